"""Synthetic DICOM files, and a fixed key for their pseudonyms."""

from pathlib import Path

import pytest

KEY = "a key that is only good for tests"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The test files that come inside pydicom's wheel."""
    import pydicom.data

    return Path(pydicom.data.__file__).parent / "test_files"
