"""Focal planes, times and names of channels are the same in OME-TIFF, OME-Zarr and CZI."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from limner.readers.contract import scan_with
from limner.readers.errors import RequestError
from limner.readers.registry import open_image, readers, scan

FORMATS = ("pyramid", "ome-zarr", "czi")
Pixels = np.ndarray[Any, Any]
DISTANCES = "".join(
    f'<Distance Id="{axis}"><Value>{metres}</Value></Distance>'
    for axis, metres in (("X", 5e-7), ("Y", 5e-7), ("Z", 2e-6))
)
XML = (
    "<ImageDocument><Metadata><Information><Image><Dimensions><Channels>{}</Channels></Dimensions></Image></Information>"
    f"<Scaling><Items>{DISTANCES}</Items></Scaling></Metadata></ImageDocument>"
)


@pytest.fixture
def save(tmp_path: Path, write_zarr: Callable[..., Path], czi_writer: Any) -> Callable[..., str]:
    """Write a stack of axes T C Z Y X in 16 bits, of 0.5 µm and planes 2 µm apart, in a format; returns its path."""

    def write(kind: str, stack: Pixels, names: tuple[str, ...]) -> str:
        if kind == "ome-zarr":
            omero = {"omero": {"channels": [{"label": name} for name in names]}}
            return str(write_zarr("a.ome.zarr", stack, axes="tczyx", scale=[1.0, 1.0, 2.0, 0.5, 0.5], more=omero))
        if kind == "pyramid":
            size = {f"PhysicalSize{axis}": value for axis, value in (("X", 0.5), ("Y", 0.5), ("Z", 2.0))}
            about = {"axes": "TCZYX", "Channel": {"Name": list(names)}, **size}
            tifffile.imwrite(tmp_path / "a.ome.tif", stack, tile=(32, 32), photometric="minisblack", metadata=about)
            return str(tmp_path / "a.ome.tif")
        writer = czi_writer()
        for t, c, z in np.ndindex(*stack.shape[:3]):
            plane = np.ascontiguousarray(stack[t, c, z])
            writer.add(plane.tobytes(), 1, (0, 0), plane.shape[::-1], C=c, Z=z, T=t, M=0)
        listed = "".join(f'<Channel Id="Channel:{at}" Name="{name}"/>' for at, name in enumerate(names))
        return str(writer.save(tmp_path / "a.czi", XML.format(listed)))

    return write


def stack_of(channels: int) -> Pixels:
    """(2 times, channels, 3 planes, 40, 50): the value names its place."""
    numbers = np.arange(2 * channels * 3, dtype=np.uint16).reshape(2, channels, 3, 1, 1)
    return np.ascontiguousarray(np.broadcast_to(1 + numbers, (2, channels, 3, 40, 50)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("names", [("DAPI",), ("DAPI", "CD3"), ("CD3", "CD3", "")])
def test_channels_have_their_names_and_planes_are_chosen(
    save: Callable[..., str], kind: str, names: tuple[str, ...]
) -> None:
    stack = stack_of(len(names))
    path = save(kind, stack, names)
    (row,) = scan([path], {"z": "2", "t": "1"})
    (info,) = row.infos
    assert row.reader == kind
    expected = {1: ["DAPI"], 2: ["DAPI", "CD3"], 3: ["CD3", "CD3 (2)", "channel-3"]}
    assert [one.name for one in info.channels] == expected[len(names)]
    assert [note for note in info.notes if "positions" in note] == [
        "The file has 2 positions along axis T; 1 is read (--reader-options t=…).",
        "The file has 3 positions along axis Z, 2 µm apart; 2 is read (--reader-options z=…).",
    ]
    with open_image(info, [info.channels[-1].name]) as image:
        pixels, valid = image.read(info.box, info.size)
    assert valid.all()
    assert (pixels[..., 0] == stack[1, -1, 2]).all()
    (renamed,) = scan([path], {"bands": ",".join(f"band {at}" for at in range(len(names)))})[0].infos
    assert [one.name for one in renamed.channels] == [f"band {at}" for at in range(len(names))]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("axis", "most"), [("z", 2), ("t", 1)])
def test_a_plane_that_is_not_there_is_refused(save: Callable[..., str], kind: str, axis: str, most: int) -> None:
    path = save(kind, stack_of(1), ("DAPI",))
    with pytest.raises(RequestError, match=f"{axis}.*reader '{kind}'.* must be from 0 to {most} for this file"):
        scan_with(readers()[kind], path, {axis: str(most + 1)})
