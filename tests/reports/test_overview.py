"""The overview picture: findings, hatching, legend and units."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model import findings_table
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable
from limner.model.merged_findings import in_batches
from limner.readers.geometry import Box, Placement
from limner.readers.image import Plane
from limner.readers.overview import Montage
from limner.reports.overview import painting
from limner.reports.overview import writer as overview
from limner.reports.overview.painting import (
    NODATA,
    UNREADABLE,
    Canvas,
    FindingsDrawing,
    draw_base,
    on_montage,
    rasterise,
    unanalysed_masks,
)
from limner.reports.overview.scale_bar import ScaleBar, format_area, format_length, format_share, north
from limner.reports.overview.size import LONGEST, SHORTEST
from limner.reports.overview.text import draw_text, text_width, to_font_characters, wrap
from limner.reports.overview.writer import OverviewPng
from limner.reports.palette import Palette
from limner.reports.writer import DISCLAIMER, NOT_RUN, Area, ImageRecord, Overview, Record, UnanalysedRegion
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngImageFile

pytestmark = pytest.mark.slow

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
RED = Palette.of(["water", "land"], {"water": "#ff0000", "land": "#00ff00"})
GREY = (120, 120, 120)


def picture(image: ImageRecord, findings: list[Finding]) -> np.ndarray:
    overview = image.overview()
    canvas = Canvas.of(image, overview)
    with FindingsDrawing(image, overview, canvas.size) as drawing:
        for _, table in in_batches(FindingsTable.of(findings)):
            drawing.add(table)
        return np.asarray(drawing.on(draw_base(overview, canvas), RED))


@pytest.fixture
def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line that is drawn on a page, and a check that it lies on its page."""
    texts: list[str] = []
    draw = overview.draw_text

    def record_text(
        pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, colour: Any, size: int, anchor: str = "la"
    ) -> None:
        left = xy[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * text_width(text, size)
        assert left >= -0.5
        assert left + text_width(text, size) <= pen.im.size[0] + 0.5, text
        texts.append(text)
        draw(pen, xy, text, colour, size, anchor)

    monkeypatch.setattr(overview, "draw_text", record_text)
    return texts


def test_findings_are_drawn_in_place(image: MakeImage) -> None:
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
    assert (shown[180, 300] == (255, 0, 0)).all(), "the outline has the full colour"


def test_a_hole_shows_the_picture_and_an_island_in_it_its_own_colour(image: MakeImage) -> None:
    hole, island = shapely.box(200, 200, 600, 600), shapely.box(300, 300, 500, 500)
    lake = shapely.box(100, 100, 700, 700).difference(hole)
    for order in ([0, 1], [1, 0]):
        findings = [Finding("water", lake, "area"), Finding("land", island, "area")]
        shown = picture(image("a", Placement.pixels()), [findings[place] for place in order])
        assert tuple(shown[300, 300]) == GREY
        assert shown[480, 480, 1] > 150
        assert shown[180, 180, 0] > 150


@pytest.mark.parametrize(("module", "most"), [(painting, "_IN_MEMORY"), (findings_table, "BATCH")])
def test_a_picture_does_not_depend_on_how_many_shapes_are_drawn_at_once(
    image: MakeImage, monkeypatch: pytest.MonkeyPatch, module: ModuleType, most: str
) -> None:
    """Areas with holes, of several parts, and boxes, which overlap, so that their order shows."""
    findings: list[Finding] = []
    for x in range(0, 800, 100):
        disc = shapely.Point(x, x).buffer(90).difference(shapely.Point(x, x).buffer(20))
        findings.append(Finding("water", shapely.union(disc, shapely.box(x, 0, x + 30, 30)), "area"))
        findings.append(Finding("land", shapely.box(x, x, x + 70, x + 120), "box"))
    whole = picture(image("a", Placement.pixels()), findings)
    monkeypatch.setattr(module, most, 3)
    assert np.array_equal(picture(image("a", Placement.pixels()), findings), whole)


def test_a_tiny_detection_can_be_seen(image: MakeImage) -> None:
    shown = picture(
        image("a", Placement.pixels(), size=(10_000, 8000)),
        [Finding("water", shapely.box(5000, 4000, 5003, 4003), "box")],
    )
    coloured = (shown == (255, 0, 0)).all(axis=2)
    assert coloured.sum() > 16


def test_nodata_is_a_checkerboard_and_unreadable_pixels_are_hatched(image: MakeImage) -> None:
    pixels = np.full((80, 100, 3), 120, dtype=np.uint8)
    valid, readable = np.ones((80, 100), dtype=np.bool_), np.ones((80, 100), dtype=np.bool_)
    valid[:20, :20] = False
    readable[60:, 80:] = valid[60:, 80:] = False
    shown = picture(
        image("a", Placement.pixels(), overview=lambda: Overview(pixels, valid, readable, (10.0, 10.0))), []
    )
    assert {tuple(colour) for colour in shown[:240, :240].reshape(-1, 3)} == set(NODATA)
    lost = shown[740:, 980:].reshape(-1, 3).astype(int)
    assert (np.abs(lost - UNREADABLE).sum(axis=1) < 120).mean() > 0.1
    assert (shown[:720, 240:] == GREY).all()


def test_hatching_is_exactly_on_what_was_skipped(image: MakeImage) -> None:
    """Outside the region of interest and in skipped regions; 1000 × 800 level-0 pixels are shown as 1200 × 960."""
    roi = shapely.Polygon([(100.3, 100.1), (700.7, 130.2), (650.9, 700.6), (200.4, 600.8)]).difference(
        shapely.box(300, 300, 400, 400)
    )
    regions = (
        UnanalysedRegion(Box(500, 200, 600, 300), "skipped", "not run yet"),
        UnanalysedRegion(Box(0, 700, 1000, 800), "unreadable", "truncated"),
    )
    black = np.zeros((80, 100, 3), dtype=np.uint8)
    valid = np.ones((80, 100), dtype=np.bool_)
    partial = image(
        "a",
        Placement.pixels(),
        roi=roi,
        unanalysed=regions,
        overview=lambda: Overview(black, valid, valid, (10.0, 10.0)),
    )
    x, y = np.meshgrid((np.arange(1200) + 0.5) / 1.2, (np.arange(960) + 0.5) / 1.2)
    unreadable = y > 700
    skipped = ~(shapely.contains_xy(roi, x, y)) | shapely.contains_xy(shapely.box(500, 200, 600, 300), x, y)
    skipped &= ~unreadable
    masks = unanalysed_masks(partial, (1200, 960))
    assert (masks[0] == skipped).all()
    assert (masks[1] == unreadable).all()
    shown = picture(partial, [])
    assert ((shown != 0).any(axis=2) == skipped | unreadable).all()
    red = (shown[..., 0] > 150) & (shown[..., 1] < 100)
    assert red[unreadable].any()
    assert not red[~unreadable].any()
    stripes = (shown[..., 0] > 100) & skipped
    assert 0.1 < stripes[skipped].mean() < 0.25


def test_a_whole_image_has_no_hatching(image: MakeImage) -> None:
    whole = image("a", Placement.pixels())
    assert (picture(whole, []) == GREY).all()
    assert not any(mask.any() for mask in unanalysed_masks(whole, (100, 80)))


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_has_the_pixels_whose_centre_lies_inside(seed: int) -> None:
    random = np.random.default_rng(seed)
    blobs = [shapely.Point(*random.uniform(-5, 45, 2)).buffer(random.uniform(2, 15)) for _ in range(6)]
    shape = shapely.union_all(blobs[:4]).difference(shapely.union_all(blobs[4:]))
    x, y = np.meshgrid(np.arange(60) + 0.5, np.arange(40) + 0.5)
    assert (rasterise(shape, (60, 40), (1.5, 1.0)) == shapely.contains_xy(shape, x / 1.5, y)).all()


def test_empty_cells_of_a_montage_are_not_skipped(image: MakeImage) -> None:
    """Three slices on a 2 × 2 montage: the fourth cell holds no slice."""
    stack = image("a", Placement.pixels(), size=(10, 10), roi=shapely.box(0, 0, 5, 10))
    plane = Plane(Placement.pixels(), "a")
    stack = replace(stack, info=replace(stack.info, planes=(plane,) * 3))
    overview = Overview(
        np.zeros((20, 20, 3), dtype=np.uint8),
        np.ones((20, 20), dtype=np.bool_),
        np.ones((20, 20), dtype=np.bool_),
        (1.0, 1.0),
        Montage((10, 10), (0, 1, 2)),
    )
    skipped, _ = unanalysed_masks(on_montage(stack, overview), (20, 20))
    expected = np.zeros((20, 20), dtype=np.bool_)
    expected[:10, 5:10] = expected[:10, 15:] = expected[10:, 5:10] = True
    assert (skipped == expected).all()


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
def test_the_size_of_the_canvas(
    size: tuple[int, int], shown: tuple[int, int], expected: tuple[int, int], image: MakeImage
) -> None:
    width, height = shown
    observed = np.ones((height, width), dtype=np.bool_)
    overview = Overview(
        np.zeros((height, width, 3), dtype=np.uint8), observed, observed, (size[0] / width, size[1] / height)
    )
    canvas = Canvas.of(image("a", Placement.pixels(), size=size), overview)
    assert canvas.size == expected
    assert draw_base(overview, canvas).size == expected


def test_a_picture_per_image_with_the_disclaimer(
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
        with Image.open(path) as page:
            page.load()
            assert isinstance(page, PngImageFile)
            assert page.text == {"Software": "limner 0.1.0", "Comment": DISCLAIMER}
            assert page.width > 1000
            last_line = np.asarray(page.convert("L"))[-60:-30, 36:600]
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


def test_the_scale_bar_is_true_to_scale(placement: MakePlacement) -> None:
    bar = ScaleBar.of(placement(32618, *NORTH_UP), (1000, 800), 2.0, 2000)
    assert bar is not None
    assert bar.metres == 2000
    assert bar.pixels == pytest.approx(400, rel=1e-3)
    slide = ScaleBar.of(Placement(((0.25, 0, 0), (0, 0.25, 0)), "um"), (40_000, 30_000), 0.04, 1600)
    assert slide is not None
    assert format_length(slide.metres) == "2 mm"
    assert slide.pixels == pytest.approx(320)
    assert ScaleBar.of(Placement.pixels(), (1000, 800), 2.0, 2000) is None


def test_a_scale_bar_of_just_a_quarter_of_the_picture() -> None:
    """800 px of 0.5 µm: a quarter is 100 µm but for a rounding."""
    bar = ScaleBar.of(Placement(((0.5, 0, 0), (0, 0.5, 0)), "um"), (800, 800), 1.0, 800)
    assert bar is not None
    assert format_length(bar.metres) == "0.1 mm"
    assert bar.pixels == pytest.approx(200)


@pytest.mark.parametrize("turn", [0.0, 30.0, 135.0, -100.0])
@pytest.mark.parametrize("south_of_equator", [False, True])
def test_north_follows_the_map(turn: float, placement: MakePlacement, *, south_of_equator: bool) -> None:
    """On the central meridian grid north is true north; the picture is turned by `turn`."""
    cos, sin = 10 * math.cos(math.radians(turn)), 10 * math.sin(math.radians(turn))
    epsg, middle = (32718, 6_000_000.0) if south_of_equator else (32618, 4_000_000.0)
    x0, y0 = 500_000.0 - 500 * (cos + sin), middle - 500 * (sin - cos)
    place = placement(epsg, cos, sin, x0, sin, -cos, y0)
    direction = north(place, (1000, 1000))
    assert direction is not None
    assert (direction - turn + 180) % 360 - 180 == pytest.approx(0, abs=0.1)


def test_north_is_undefined_around_a_pole(placement: MakePlacement) -> None:
    assert north(placement(3031, 1000.0, 0.0, -5e5, 0.0, -1000.0, 5e5), (1000, 1000)) is None
    assert north(Placement.pixels(), (1000, 1000)) is None


def test_quantities_are_formatted_with_their_units() -> None:
    assert [format_length(m) for m in (2000, 10.0036, 0.5, 0.05, 2.5e-7)] == [
        "2 km",
        "10 m",
        "0.5 m",
        "50 mm",
        "0.25 µm",
    ]
    assert format_area(2.06e8, 0) == "206 km²"
    assert format_area(1234.5, 0) == "1,234 m²"
    assert format_area(2.5e-13, 0, "slide") == "0.25 µm²"
    assert format_area(0.0116, 0, "study") == "11,600 mm²"
    assert format_area(math.nan, 12345) == "12,345 px"
    assert format_area(0.0, 0) == "0"
    assert [format_share(part) for part in (0.0, 1e-9, 0.4567, 1.0, math.nan)] == [
        "0.0 %",
        "<0.1 %",
        "45.7 %",
        "100.0 %",
        "",
    ]


def test_text_is_drawn_with_the_characters_of_the_font() -> None:
    assert to_font_characters("Küste – 10 μm × 5 m²: 水\n") == "Kuste - 10 µm x 5 m²: ? "
    assert text_width("m²", 20) > text_width("m", 20)
    assert text_width("µ", 20) == text_width("u", 20)


def test_a_micro_sign_has_a_stem_below_the_baseline() -> None:
    inked: dict[str, int] = {}
    for letter in "uµ":
        canvas = Image.new("L", (60, 60))
        draw_text(ImageDraw.Draw(canvas), (10, 40), letter, 255, 40, "ls")  # type: ignore[arg-type]
        inked[letter] = int((np.asarray(canvas)[42:] > 128).sum())
    assert inked["u"] == 0
    assert inked["µ"] > 10


@pytest.mark.parametrize("width", [30, 100, 480])
@pytest.mark.parametrize(
    "text",
    ["bright field at 7.96 × 7.96 µm a pixel: colour in optical density above 0.03", "x" * 300, "", "a  b", "m² " * 40],
)
def test_text_is_wrapped_and_never_cut(text: str, width: int) -> None:
    lines = wrap(text, 20, width)
    assert "".join("".join(lines).split()) == "".join(to_font_characters(text).split())
    assert all(text_width(line, 20) <= width for line in lines)


@pytest.mark.parametrize("kind", ["map", "slide", "study"])
def test_no_text_of_a_page_is_cut(
    kind: str, image: MakeImage, record: MakeRecord, out: Path, drawn_texts: list[str]
) -> None:
    """Long ids, labels, reasons, methods and terms of use: each word of them is on the page."""
    placed = image(
        "an-id-" + "long-" * 20,
        Placement(((0.5, 0, 0), (0, 0.5, 0)), "um"),
        [Finding("a label of many words that no legend has room for on one line", shapely.box(0, 0, 9, 9), "area")],
        analysis={"Tissue": "bright field at 7.97 × 7.96 µm a pixel: " + "optical density " * 20, "Bands": "RGB"},
        areas=(Area("analysed", "", 5e5, 1e-6, 4), Area("skipped", "a reason " * 12, 3e5, 1e-6, 3)),
    )
    placed = replace(placed, name="name " * 30, info=replace(placed.info, kind=kind))
    model = {"name": "toy", "version": "1", "use": "only for " + "very careful readers " * 60}
    OverviewPng().write(record(placed, model=model), out)
    page = " ".join("".join(drawn_texts).split())
    squeezed = page.replace(" ", "")
    for text in (placed.info.id, placed.name, *placed.analysis.values(), model["use"], "a reason " * 12):
        assert to_font_characters(text).replace(" ", "") in squeezed
    assert "..." not in page
    assert "0.5 µm" in page
    assert "ground" not in page


@pytest.mark.parametrize("assessed", [True, False])
def test_a_page_states_whether_a_model_was_run(
    image: MakeImage, record: MakeRecord, out: Path, drawn_texts: list[str], *, assessed: bool
) -> None:
    one = image("a", Placement.pixels(), analysis={"Tiles": "256 px", "Window": "40/400"})
    run = replace(record(one, labels=()), assessed=assessed)
    OverviewPng().write(run, out)
    assert ("Complete" in drawn_texts) == assessed
    assert ("No findings, share of the analysed area" in drawn_texts) == assessed
    assert ("Not analysed: no model was chosen" in drawn_texts) != assessed
    assert ("256 px" in drawn_texts) == assessed
    assert "40/400" in drawn_texts


def test_the_badge_is_green_only_where_all_was_analysed_and_nothing_is_doubtful(
    image: MakeImage, record: MakeRecord, out: Path, drawn_texts: list[str]
) -> None:
    one = image("a", Placement.pixels())
    unfinished = (Area("analysed", "", 10.0, None, 1), Area("skipped", NOT_RUN, 30.0, None, 3))
    for changes, badge, status in (
        ({}, "Complete", "complete"),
        ({"warnings": ("Hardly any tissue.",)}, "Doubtful: read the warning", "doubtful"),
        ({"areas": (Area("unreadable", "dark", 1.0, None, 2),)}, "Partial: some of it could not be read", "partial"),
        ({"areas": unfinished}, "Partial: 3 regions not run yet", "partial"),
        ({"failures": (("r", "broken"),), "warnings": ("Hardly any tissue.",)}, "Partial: 1 region failed", "partial"),
    ):
        drawn_texts.clear()
        shown = replace(one, **changes)
        OverviewPng().write(record(shown), out)
        badges = [text for text in drawn_texts if text.startswith(("Complete", "Doubtful", "Partial"))]
        assert badges == [badge]
        assert ("Hardly any tissue." in drawn_texts) == bool(shown.warnings)
        assert record(shown).status_of([shown]) == status
