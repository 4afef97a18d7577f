"""Pixel spacing of slides: plausible, implausible and overridden."""

import os
from pathlib import Path

import pytest
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.options import parse_options
from limner.readers.overrides import Overrides, PreparedOverrides
from limner.readers.slide.spacing import Spacing, slide_placement, to_micrometres

VENDOR = Spacing(0.25, 0.2501, "aperio header")


def stated(uri: str, found: Spacing | None, options: dict[str, str]) -> tuple[Placement, tuple[str, ...]]:
    """The placement of a slide with that spacing in its file, and the notes, where the user states `options`."""
    placement, notes = slide_placement(found)
    channels = tuple(Channel(name, name) for name in ("red", "green", "blue"))
    info = ImageInfo(uri, "other", (9, 9), channels, placement, notes=notes, kind="slide")
    info = PreparedOverrides(parse_options(Overrides, options, "readers")).apply(info, object())
    return info.placement, info.notes


def test_plausible_spacing_becomes_the_placement() -> None:
    placement, notes = slide_placement(VENDOR)
    assert placement.matrix == ((0.25, 0.0, 0.0), (0.0, 0.2501, 0.0))
    assert (placement.unit, placement.source, placement.crs) == ("um", "aperio header", None)
    assert notes == ()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "states none"),
        (Spacing(896.06, 896.06, "TIFF resolution tag"), "0.05 to 10"),
        (Spacing(0.049, 0.05, "x"), "0.05 to 10"),
        (Spacing(0.25, 0.2626, "x"), "differ by more than 5%"),
        (Spacing(float("nan"), 0.25, "x"), "numbers are not positive"),
        (Spacing(0.0, 0.25, "x"), "numbers are not positive"),
        (Spacing(float("inf"), float("inf"), "x"), "numbers are not positive"),
    ],
)
def test_missing_or_implausible_spacing_is_not_used(found: Spacing | None, why: str) -> None:
    placement, [note] = slide_placement(found)
    assert not placement.has_unit
    assert why in note
    assert "--microns-per-pixel" in note


def test_spacing_option_wins_over_the_file() -> None:
    placement, [note] = stated("a.svs", VENDOR, {"microns_per_pixel": "0.5,0.51"})
    assert (placement.matrix[0][0], placement.matrix[1][1]) == (0.5, 0.51)
    assert placement.source == "--microns-per-pixel"
    assert "the file has 0.25 × 0.2501 µm/px (aperio header)" in note
    assert stated("a.svs", VENDOR, {"microns_per_pixel": "0.2501"})[1] == ()
    assert stated("a.svs", None, {"microns_per_pixel": "0.5"})[1] == ()


def test_implausible_spacing_option_is_used() -> None:
    placement, [note] = stated("a.dcm", Spacing(28.9, 28.9, "DICOM PixelSpacing"), {"microns_per_pixel": "28.9"})
    assert placement.has_unit
    assert "although level 0 of a slide has" in note


@pytest.mark.parametrize("text", ["0", "-1", "half", "nan", "inf", "1,2,3", "0,5,"])
def test_invalid_spacing_option_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="microns_per_pixel"):
        stated("a.svs", VENDOR, {"microns_per_pixel": text})


def table(folder: Path, *lines: str) -> dict[str, str]:
    path = folder / "slides.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"spacing_csv": str(path)}


def test_table_finds_slides_by_path_or_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    one, two, three = (str(tmp_path / "in" / name) for name in ("one.svs", "two.svs", "three.svs"))
    options = table(tmp_path, "path,name,mpp_x,mpp_y", "in/one.svs,,0.5,0.51", ",two,0.4,0.4", ",one,9,9")
    assert stated(one, VENDOR, options)[0].matrix[1][1] == 0.51
    assert stated(two, None, options)[0].matrix[0][0] == 0.4
    assert stated(three, VENDOR, options)[0].matrix[0][0] == 0.25
    everyone = {**options, "microns_per_pixel": "1"}
    assert stated(two, None, everyone)[0].matrix[0][0] == 0.4
    assert stated(three, None, everyone)[0].matrix[0][0] == 1.0
    assert stated(one, VENDOR, options)[0].source == "table of slides"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["path,mpp"], "columns mpp_x, mpp_y, and path or name"),
        (["name,mpp_x,mpp_y", "a,0.5,"], "line 2"),
        (["name,mpp_x,mpp_y", "a,0.5,half"], "half"),
        (["name,mpp_x,mpp_y", "a,0.5,0.5", "a.svs,0.4,0.4"], "lines 2, 3 for one slide"),
    ],
)
def test_invalid_table_is_refused(tmp_path: Path, lines: list[str], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        stated("a.svs", VENDOR, table(tmp_path, *lines))


@pytest.mark.parametrize(
    ("value", "unit", "micrometres"),
    [("250", "nm", 0.25), (2.5e-4, "mm", 0.25), ("1", "in", 25400.0), ("1", "pixel", None), ("x", "µm", None)],
)
def test_length_units(value: str | float, unit: str, micrometres: float | None) -> None:
    assert to_micrometres(value, unit) == pytest.approx(micrometres)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\0\0", b"name,mpp_x\0", b"\x89PNG" + bytes(99), b"name,mpp_x,mpp_y\n" + b"x" * (17 << 20)]
)
def test_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises(RequestError, match="table of slides"):
        stated("a.svs", None, {"spacing_csv": str(table)})


def test_table_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(RequestError, match="readable CSV"):
            stated("a.svs", None, {"spacing_csv": str(path)})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(RequestError, match="not a regular file"):
        stated("a.svs", None, {"spacing_csv": str(fifo)})
