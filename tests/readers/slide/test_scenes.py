"""Files that hold several scans: which are read, how they are named, and how one is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo
from limner.readers.registry import scan
from limner.readers.slide.pyramid import PyramidReader

HALF: dict[str, Any] = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
NEVER = "are never read: of the label or the glass."


def ome(path: Path, *images: tuple[str, int, dict[str, Any]]) -> Path:
    """An OME-TIFF of square images, each of a name, a side, and what else is stated of it."""
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, (name, side, stated) in enumerate(images):
            pixels = np.full((side, side, 3), 10 * number + 5, dtype=np.uint8)
            pixels[0, 0] = number
            about = {"axes": "YXS", "Name": name, **stated}
            file.write(pixels, photometric="rgb", tile=(64, 64), metadata=about)
    return path


def scanned(path: Path, **options: str) -> tuple[ImageInfo, ...]:
    [row] = scan([str(path)], options)
    if row.status == "failed":
        raise ReadError(str(path), row.reason, remedy="")
    return row.infos


def test_every_scan_of_an_ome_tiff_is_an_image_of_its_own(tmp_path: Path) -> None:
    path = ome(tmp_path / "s.ome.tif", ("Scene #1", 130, HALF), ("Scene #2", 90, {**HALF, "PhysicalSizeX": 0.51}))
    for number, side in enumerate((130, 90)):
        pixels = np.full((side, side, 3), 10 * number + 5, dtype=np.uint8)
        pixels[0, 0] = number
        truth = ExpectedImage(pixels, np.ones((side, side), dtype=bool))
        info = check_reader(PyramidReader(), str(path), truth, image=number)
        assert dict(info.facts)["scene"] == f"{number + 1} of 2"
        assert dict(info.facts)["scene_name"] == f"Scene #{number + 1}"
        assert info.placement.matrix[0][0] == pytest.approx((0.5, 0.51)[number])
    ids = [info.id for info in scanned(path)]
    assert [name[-8:] for name in ids] == ["-scene-1", "-scene-2"]
    assert [info.id for info in scanned(path, names="show")] == ["s.ome-scene-1", "s.ome-scene-2"]


def test_pictures_of_the_label_and_the_glass_are_no_scenes(tmp_path: Path) -> None:
    """By name; and without a name, by a pixel size that no scan has or none beside one that has."""
    glass = {"PhysicalSizeX": 16.0, "PhysicalSizeY": 16.0}
    images = (("label image", 70, HALF), ("a", 80, {}), ("b", 75, glass), ("c", 130, HALF))
    [info] = scan_with(PyramidReader(), str(ome(tmp_path / "s.ome.tif", *images)), {})
    assert (info.size, info.part) == ((130, 130), "")
    assert f"3 of the 4 images in the file {NEVER}" in info.notes
    two = scan_with(PyramidReader(), str(ome(tmp_path / "t.ome.tif", ("a", 80, {}), ("b", 75, {}))), {})
    assert [info.size[0] for info in two] == [80, 75]
    with pytest.raises(ReadError, match="label"):
        scan_with(PyramidReader(), str(ome(tmp_path / "u.ome.tif", ("macro image", 80, HALF))), {})


def test_a_name_that_may_be_of_a_person_is_not_told(tmp_path: Path) -> None:
    path = ome(tmp_path / "s.ome.tif", ("DOE JOHN", 70, HALF), ("ScanRegion1", 80, HALF))
    told = [str(info.to_json()) for info in scanned(path)]
    assert not any("DOE" in text for text in told)
    assert "ScanRegion1" in told[1]
    with pytest.raises(ReadError) as refused:
        scanned(path, scene="DOE JOHN")
    assert "DOE" not in str(refused.value)


@pytest.mark.parametrize(
    ("chosen", "sides"), [("2", [80]), ("scene 1", [70]), ("ScanRegion1", [80]), ("2,1", [70, 80])]
)
def test_scenes_are_chosen_by_number_or_name(tmp_path: Path, chosen: str, sides: list[int]) -> None:
    path = ome(tmp_path / "s.ome.tif", ("", 70, HALF), ("ScanRegion1", 80, HALF))
    assert [info.size[0] for info in scanned(path, scene=chosen)] == sides


def test_a_scene_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    path = ome(tmp_path / "s.ome.tif", ("", 70, HALF), ("ScanRegion1", 80, HALF))
    with pytest.raises(ReadError, match=r"1, 2 \(ScanRegion1\)"):
        scanned(path, scene="3")


def test_a_scene_that_cannot_be_read_is_told_on_the_others(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    about = {"axes": "YX", "Name": "Scene 1", **HALF}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(np.zeros((64, 64), dtype=np.complex64), tile=(64, 64), metadata=about)
        file.write(np.zeros((96, 96), dtype=np.uint8), tile=(64, 64), metadata={**about, "Name": "Scene 2"})
    [info] = scanned(path)
    assert info.size == (96, 96)
    assert any("left out" in note and "numeric" in note for note in info.notes)
