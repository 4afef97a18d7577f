"""The picture a person looks at first."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers.geometry import Box, Placement
from limner.reports.overview import writer as overview
from limner.reports.overview.painting import LONGEST, NOTHING, SHORTEST, UNREADABLE, Canvas, draw_base, draw_findings
from limner.reports.overview.scale_bar import ScaleBar, area_words, length_words, north, share_words
from limner.reports.overview.text import text_width, to_font_characters, wrap
from limner.reports.overview.writer import OverviewPng
from limner.reports.palette import Palette
from limner.reports.writer import DISCLAIMER, Area, ImageRecord, Overview, Record, UnanalysedRegion
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
RED = Palette.of(["water", "land"], {"water": "#ff0000", "land": "#00ff00"})
GREY = (120, 120, 120)


def picture(image: ImageRecord, findings: list[Finding]) -> np.ndarray:
    overview = image.overview()
    plate = draw_base(overview, Canvas.of(image, overview))
    return np.asarray(draw_findings(plate, image, findings, RED))


def test_findings_are_where_they_are(image: MakeImage) -> None:
    """A square of level-0 pixels is coloured to the pixel: 1000 × 800 px are shown as 1200 × 960."""
    shown = picture(image("a", Placement.pixels()), [Finding("water", shapely.box(250, 100, 500, 200), "area")])
    assert shown.shape == (960, 1200, 3)
    coloured = (shown != GREY).any(axis=2)
    y, x = np.nonzero(coloured)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (
        pytest.approx(300, abs=1),
        pytest.approx(600, abs=1),
        pytest.approx(120, abs=1),
        pytest.approx(240, abs=1),
    )
    inside = shown[180, 450]
    assert inside[0] > 150
    assert inside[1] == inside[2] < 100
    assert (shown[180, 300] == (255, 0, 0)).all(), "the rim has the full colour"


def test_a_hole_shows_the_picture_and_an_island_in_it_its_own_colour(image: MakeImage) -> None:
    hole, island = shapely.box(200, 200, 600, 600), shapely.box(300, 300, 500, 500)
    lake = shapely.box(100, 100, 700, 700).difference(hole)
    for order in ([0, 1], [1, 0]):
        findings = [Finding("water", lake, "area"), Finding("land", island, "area")]
        shown = picture(image("a", Placement.pixels()), [findings[place] for place in order])
        assert tuple(shown[300, 300]) == GREY
        assert shown[480, 480, 1] > 150
        assert shown[180, 180, 0] > 150


def test_a_tiny_detection_can_be_seen(image: MakeImage) -> None:
    shown = picture(
        image("a", Placement.pixels(), size=(10_000, 8000)),
        [Finding("water", shapely.box(5000, 4000, 5003, 4003), "box")],
    )
    coloured = (shown == (255, 0, 0)).all(axis=2)
    assert coloured.sum() > 16


def test_what_was_not_seen_is_marked(image: MakeImage) -> None:
    pixels = np.full((80, 100, 3), 120, dtype=np.uint8)
    valid, readable = np.ones((80, 100), dtype=np.bool_), np.ones((80, 100), dtype=np.bool_)
    valid[:20, :20] = False
    readable[60:, 80:] = valid[60:, 80:] = False
    seen = image(
        "a",
        Placement.pixels(),
        overview=lambda: Overview(pixels, valid, readable, (10.0, 10.0)),
        unanalysed=(UnanalysedRegion(Box(400, 300, 600, 500), "skipped", "outside the area of interest"),),
    )
    shown = picture(seen, [])
    assert {tuple(colour) for colour in shown[:200, :200].reshape(-1, 3)} == set(NOTHING)
    lost = shown[740:, 980:].reshape(-1, 3).astype(int)
    assert (np.abs(lost - UNREADABLE).sum(axis=1) < 120).mean() > 0.2
    skipped = shown[360:600, 480:720].reshape(-1, 3)
    assert (skipped != GREY).any(axis=1).mean() > 0.5
    assert tuple(shown[100, 600]) == GREY


def test_what_lies_outside_the_area_of_interest_is_pale(image: MakeImage) -> None:
    seen = image("a", Placement.pixels(), roi=shapely.box(200, 200, 600, 600))
    shown = picture(seen, [])
    assert tuple(shown[480, 480]) == GREY
    assert shown[900, 1100].min() > 180


@pytest.mark.parametrize(
    ("size", "shown", "expected"),
    [
        ((1000, 800), (100, 80), (1200, 960)),
        ((20_000, 10_000), (2048, 1024), (LONGEST, LONGEST // 2)),
        ((30_000, 3), (2048, 1), (LONGEST, 1)),
        ((1, 1), (1, 1), (SHORTEST, SHORTEST)),
        ((1400, 100), (1400, 100), (1400, 100)),
    ],
)
def test_a_canvas_that_one_can_see(
    size: tuple[int, int], shown: tuple[int, int], expected: tuple[int, int], image: MakeImage
) -> None:
    width, height = shown
    seen = np.ones((height, width), dtype=np.bool_)
    overview = Overview(np.zeros((height, width, 3), dtype=np.uint8), seen, seen, (size[0] / width, size[1] / height))
    canvas = Canvas.of(image("a", Placement.pixels(), size=size), overview)
    assert canvas.size == expected
    assert draw_base(overview, canvas).size == expected


def test_a_picture_an_image_with_the_words_that_must_be_there(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    findings = [
        Finding("water", shapely.box(0, 0, 500, 500), "area"),
        Finding("Küste 水", shapely.box(0, 0, 9, 9), "box"),
    ]
    areas = (
        Area("analysed", "", 500_000.0, 5e7, 4),
        Area("no data", "nodata 0", 200_000.0, 2e7, 0),
        Area("skipped", "outside", 60_000.0, 6e6, 3),
        Area("unreadable", "truncated", 40_000.0, 4e6, 1),
    )
    whole = image("a", placement(32618, *NORTH_UP), findings, areas=areas, failures=(("a/x0", "truncated"),))
    lost = image("lost", Placement.pixels(), overview=lambda: None)
    many = replace(record(whole, lost), labels=tuple(f"label {place}" for place in range(40)))
    paths = OverviewPng().write(many, out)
    assert [path.name for path in paths] == ["overview-a.png", "overview-lost.png"]
    assert sorted(out.iterdir()) == sorted(paths)
    for path in paths:
        with Image.open(path) as sheet:
            sheet.load()
            assert isinstance(sheet, PngImageFile)
            assert sheet.text == {"Software": "limner 0.1.0", "Comment": DISCLAIMER}
            assert sheet.width > 1000
            last_line = np.asarray(sheet.convert("L"))[-60:-30, 36:600]
            assert (last_line < 100).mean() > 0.02, "the disclaimer is written there"


def test_the_same_record_gives_the_same_bytes(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, tmp_path: Path
) -> None:
    findings = [Finding("water", shapely.Point(x, x).buffer(9), "area") for x in range(0, 800, 40)]
    written: list[bytes] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (path,) = OverviewPng().write(record(image("a", placement(32618, *NORTH_UP), findings)), tmp_path / name)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_the_scale_bar_is_as_long_as_the_ground(placement: MakePlacement) -> None:
    bar = ScaleBar.of(placement(32618, *NORTH_UP), (1000, 800), 2.0, 2000)
    assert bar is not None
    assert bar.metres == 2000
    assert bar.pixels == pytest.approx(400, rel=1e-3)
    slide = ScaleBar.of(Placement(((0.25, 0, 0), (0, 0.25, 0)), "um"), (40_000, 30_000), 0.04, 1600)
    assert slide is not None
    assert length_words(slide.metres) == "2 mm"
    assert slide.pixels == pytest.approx(320)
    assert ScaleBar.of(Placement.pixels(), (1000, 800), 2.0, 2000) is None


def test_a_scale_bar_of_just_a_quarter_of_the_picture() -> None:
    """800 px of 0.5 µm: a quarter is 100 µm but for a rounding."""
    bar = ScaleBar.of(Placement(((0.5, 0, 0), (0, 0.5, 0)), "um"), (800, 800), 1.0, 800)
    assert bar is not None
    assert length_words(bar.metres) == "0.1 mm"
    assert bar.pixels == pytest.approx(200)


@pytest.mark.parametrize("turn", [0.0, 30.0, 135.0, -100.0])
@pytest.mark.parametrize("south_of_equator", [False, True])
def test_north_is_where_the_map_says(turn: float, placement: MakePlacement, *, south_of_equator: bool) -> None:
    """On the central meridian grid north is true north; the picture is turned by `turn`."""
    cos, sin = 10 * math.cos(math.radians(turn)), 10 * math.sin(math.radians(turn))
    epsg, middle = (32718, 6_000_000.0) if south_of_equator else (32618, 4_000_000.0)
    x0, y0 = 500_000.0 - 500 * (cos + sin), middle - 500 * (sin - cos)
    place = placement(epsg, cos, sin, x0, sin, -cos, y0)
    direction = north(place, (1000, 1000))
    assert direction is not None
    assert (direction - turn + 180) % 360 - 180 == pytest.approx(0, abs=0.1)


def test_there_is_no_one_north_around_a_pole(placement: MakePlacement) -> None:
    assert north(placement(3031, 1000.0, 0.0, -5e5, 0.0, -1000.0, 5e5), (1000, 1000)) is None
    assert north(Placement.pixels(), (1000, 1000)) is None


def test_quantities_in_words() -> None:
    assert [length_words(m) for m in (2000, 10.0036, 0.5, 0.05, 2.5e-7)] == [
        "2 km",
        "10 m",
        "0.5 m",
        "50 mm",
        "0.25 µm",
    ]
    assert area_words(2.06e8, 0) == "206 km²"
    assert area_words(1234.5, 0) == "1,234 m²"
    assert area_words(2.5e-13, 0, "slide") == "0.25 µm²"
    assert area_words(0.0116, 0, "study") == "11,600 mm²"
    assert area_words(math.nan, 12345) == "12,345 px"
    assert area_words(0.0, 0) == "0"
    assert [share_words(part) for part in (0.0, 1e-9, 0.4567, 1.0, math.nan)] == [
        "0.0 %",
        "<0.1 %",
        "45.7 %",
        "100.0 %",
        "",
    ]


def test_words_are_spelled_in_letters_that_the_font_has() -> None:
    assert to_font_characters("Küste – 10 µm × 5 m²: 水\n") == "Kuste - 10 um x 5 m²: ? "
    assert text_width("m²", 20) > text_width("m", 20)
    (line,) = wrap("a very long name of an image", 20, 100)
    assert line.endswith("...")
    assert text_width(line, 20) <= 100
    assert wrap("", 20, 100) == [""]


@pytest.mark.parametrize("assessed", [True, False])
def test_without_a_model_the_picture_says_that_nothing_was_looked_for(
    image: MakeImage, record: MakeRecord, out: Path, monkeypatch: pytest.MonkeyPatch, *, assessed: bool
) -> None:
    said: list[str] = []
    put = overview.write

    def listening(pen: object, place: tuple[float, float], words: str, *how: object) -> None:
        said.append(words)
        put(pen, place, words, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "write", listening)
    run = replace(record(image("a", Placement.pixels()), labels=()), assessed=assessed)
    OverviewPng().write(run, out)
    text = "\n".join(said)
    assert ("Complete" in text) == assessed
    assert ("No findings" in text) == assessed
    assert ("Nothing was looked for" in text) != assessed
