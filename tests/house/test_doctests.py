"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import limner.model
import limner.pipelines
import limner.readers
import limner.reports
import pytest

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (limner.readers, limner.model, limner.reports, limner.pipelines)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name != "__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
