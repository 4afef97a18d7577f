"""The table of mutated modules names files that exist, and no mutant is the same program as the original."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest


def test_modules_and_their_tests_exist(root: Path) -> None:
    text = (root / "tests/mutation/mutate.py").read_text(encoding="utf-8")
    modules = re.findall(r'^    "(\w+/[\w/]+\.py)":', text, re.MULTILINE)
    tests = re.findall(r'"((?:readers|model|reports|pipelines)/[\w/]*test_\w+\.py)', text)
    assert len(modules) > 10
    assert len(tests) > 10
    assert [name for name in modules if not (root / name).is_file()] == []
    assert [name for name in tests if not (root / "tests" / name).is_file()] == []


@pytest.fixture(scope="module")
def changes(root: Path) -> ModuleType:
    """The module that makes mutants."""
    spec = importlib.util.spec_from_file_location("changes", root / "tests/mutation/changes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("(x + 180.0) % 360.0", ["(x + 180.0) * 360.0", "(x + 181.0) % 360.0", "(x + 180.0) % 361.0"]),
        ("(x - 90.0) % 360.0", [
            "(x - 90.0) * 360.0", "(x + 90.0) % 360.0", "(x - 91.0) % 360.0", "(x - 90.0) % 361.0",
        ]),
        ("x < 0.02", ["x <= 0.02", "x < 1.02"]),
        ("x == 0.02", ["x != 0.02", "x == 1.02"]),
        ("zip(a, strict=True)", []),
        ("a.reshape(-1, 2)", ["a.reshape(-1, 3)"]),
    ],
)  # fmt: skip
def test_mutants(changes: ModuleType, source: str, mutants: list[str]) -> None:
    """(x + 180) % 360 is (x - 180) % 360."""
    assert sorted(changes.mutant(source, number).after for number in range(changes.count(source))) == sorted(mutants)
