"""Arrays on disk: zeros or another value, nothing left behind, and a full disk is told before it is written to."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.scratch import ScratchError, scratch_array


@pytest.mark.parametrize(("dtype", "fill"), [(np.uint8, 0), (np.uint8, 255), (np.float32, 0), (np.bool_, 1)])
def test_an_array_is_filled_and_its_file_has_no_name(tmp_path: Path, dtype: Any, fill: int) -> None:
    array = scratch_array((3, 4, 5), tmp_path, dtype=dtype, fill=fill)
    assert array.shape == (3, 4, 5)
    assert array.dtype == dtype
    assert (array == fill).all()
    array[1] = 1
    assert (array[1] == 1).all()
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == []


def test_an_empty_array_needs_no_file() -> None:
    assert scratch_array((0, 4)).shape == (0, 4)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve disk")
def test_a_full_disk_is_told_with_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    expected = r"must have room for 1\.3 GB \(found: No space left on device\)\. Free disk space there"
    with pytest.raises(ScratchError, match=expected) as one:
        scratch_array((1_300_000_000,), tmp_path)
    assert str(one.value).startswith(f"the folder {tmp_path}")
    with pytest.raises(ScratchError, match="or name another folder in TMPDIR") as other:
        scratch_array((1_300_000_000,))
    assert tempfile.gettempdir() in str(other.value)
