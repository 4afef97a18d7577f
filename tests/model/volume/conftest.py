"""Stacks in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.volume.volume import Volume
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane

MakeVolume = Callable[..., Volume]
MakeInfo = Callable[..., ImageInfo]


@pytest.fixture(scope="session")
def make_volume() -> MakeVolume:
    """Voxels whose axes run in the directions S, P and L, at a spacing in mm, as a volume."""

    def make(voxels: npt.NDArray[Any], spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
        affine = np.zeros((3, 4))
        affine[[2, 1, 0], range(3)] = spacing
        return Volume(voxels.shape, affine, lambda number: voxels[number].astype(np.float32))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="session")
def make_info() -> MakeInfo:
    """The metadata of an axial stack of (slices, rows, columns) at a spacing in mm, with facts."""

    def make(shape: tuple[int, int, int], spacing: tuple[float, float, float], **facts: str) -> ImageInfo:
        slices, rows, columns = shape
        step, row, column = spacing
        planes = tuple(
            Plane(Placement(((column, 0, 0), (0, row, 0), (0, 0, number * step)), "mm"), source=f"{number}.dcm")
            for number in range(slices)
        )
        channels = (Channel("grey", dtype="float32"),)
        return ImageInfo(
            "study/mr1", "dicom", (columns, rows), channels, planes[0].placement,
            id="mr1", kind="study", planes=planes, facts=tuple(facts.items()),
        )  # fmt: skip

    return make
