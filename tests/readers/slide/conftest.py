"""Hierarchies of OME-Zarr, written by zarr-python, and CZI files."""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Pixels = np.ndarray[Any, Any]
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
KINDS = {"t": "time", "c": "channel"}


def halved(pixels: Pixels) -> Pixels:
    """The mean of 2 × 2 pixels of the last two axes; an odd last row or column is dropped."""
    height, width = (side // 2 for side in pixels.shape[-2:])
    blocks = pixels[..., : 2 * height, : 2 * width].reshape(*pixels.shape[:-2], height, 2, width, 2)
    return np.rint(blocks.mean(axis=(-3, -1))).astype(pixels.dtype)


WriteZarr = Callable[..., Path]


@pytest.fixture
def write_zarr(tmp_path: Path) -> WriteZarr:
    """`write_zarr(name, pixels, axes="cyx", version="0.4", levels=2, **…) -> path` of an image with reduced levels.

    `scale` is that of level 0, `units` by axis, `more` the group's other attributes, `how` those of `create_array`.
    """
    zarr = pytest.importorskip("zarr")

    def write(  # noqa: PLR0913 - each has a default
        name: str,
        pixels: Pixels,
        *,
        axes: str = "cyx",
        version: str = "0.4",
        levels: int = 2,
        chunks: Sequence[int] | None = None,
        scale: Sequence[float] | None = None,
        units: Mapping[str, str] = UNITS,
        more: Mapping[str, Any] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> Path:
        path = tmp_path / name
        group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3, overwrite=True)
        steps = list(scale or [1.0] * (len(axes) - 2) + [0.5, 0.5])
        datasets: list[dict[str, Any]] = []
        for level in range(levels):
            stored: dict[str, Any] = dict(how or {})
            if version == "0.4" and "chunk_key_encoding" not in stored:
                stored["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
            array = group.create_array(
                str(level),
                shape=pixels.shape,
                dtype=pixels.dtype,
                chunks=tuple(chunks or [1] * (len(axes) - 2) + [64, 64]),
                **stored,
            )
            array[:] = pixels
            sizes = [*steps[:-2], steps[-2] * 2**level, steps[-1] * 2**level]
            transforms = [{"type": "scale", "scale": sizes}]
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
            pixels = halved(pixels)
        listed = [
            {"name": axis, "type": KINDS.get(axis, "space")} | ({"unit": units[axis]} if axis in units else {})
            for axis in axes
        ]
        image: dict[str, Any] = {"axes": listed, "datasets": datasets, "name": "Scene #1"}
        if version == "0.4":
            group.attrs.update({"multiscales": [{**image, "version": "0.4"}], **(more or {})})
        else:
            group.attrs["ome"] = {"version": version, "multiscales": [image], **(more or {})}
        return path

    return write


class CziWriter:
    """Writes sub-blocks of a CZI file, of any level and in any codec."""

    def __init__(self) -> None:
        self._body = bytearray(_segment(b"ZISRAWFILE", bytes(512)))
        self._entries: list[bytes] = []

    def add(
        self,
        data: bytes,
        pixel_type: int,
        place: tuple[int, int],
        stored: tuple[int, int],
        *,
        factor: int = 1,
        compression: int = 0,
        **axes: int,
    ) -> None:
        """One sub-block: its data as they are stored, corner in level-0 pixels, stored (width, height), other axes."""
        sides = [(b"X", place[0], stored[0]), (b"Y", place[1], stored[1])]
        listed = [(name, at, side * factor, side) for name, at, side in sides]
        listed += [(name.encode(), at, 1, 1) for name, at in axes.items()]
        pyramid = 0 if factor == 1 else 2
        entry = struct.pack(
            "<2siqiiB5si", b"DV", pixel_type, len(self._body), 0, compression, pyramid, b"", len(listed)
        )
        entry += b"".join(struct.pack("<4siifi", name, at, side, 0.0, kept) for name, at, side, kept in listed)
        head = struct.pack("<iiq", 0, 0, len(data)) + entry
        self._entries.append(entry)
        self._body += _segment(b"ZISRAWSUBBLOCK", head.ljust(256, b"\0") + data)

    def save(self, path: Path, xml: str = "") -> Path:
        """Write the file."""
        directory = len(self._body)
        self._body += _segment(
            b"ZISRAWDIRECTORY", struct.pack("<i", len(self._entries)).ljust(128, b"\0") + b"".join(self._entries)
        )
        metadata = len(self._body)
        text = (xml or "<ImageDocument><Metadata/></ImageDocument>").encode()
        self._body += _segment(b"ZISRAWMETADATA", struct.pack("<ii", len(text), 0).ljust(256, b"\0") + text)
        same = bytes(range(16))
        self._body[32 : 32 + 80] = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, same, same, 0, directory, metadata, 0, 0)
        path.write_bytes(self._body)
        return path


def _segment(name: bytes, content: bytes) -> bytes:
    size = -(-len(content) // 32) * 32
    return struct.pack("<16sqq", name, size, len(content)) + content.ljust(size, b"\0")


@pytest.fixture
def czi_writer() -> type[CziWriter]:
    """A writer of CZI files."""
    return CziWriter
