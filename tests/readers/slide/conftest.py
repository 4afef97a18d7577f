"""Hierarchies of OME-Zarr, written by zarr-python."""

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
