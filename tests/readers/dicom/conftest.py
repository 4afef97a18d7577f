"""Synthetic DICOM files, and a fixed key for their pseudonyms."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

KEY = "a key that is only good for tests"


@pytest.fixture(scope="session")
def making() -> ModuleType:
    """The module `making.py` beside this file."""
    spec = importlib.util.spec_from_file_location("dicom_making", Path(__file__).with_name("making.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The test files that come inside pydicom's wheel."""
    import pydicom.data

    return Path(pydicom.data.__file__).parent / "test_files"
