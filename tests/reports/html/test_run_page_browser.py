"""The page of a run in Chromium: what it shows, what clicks, keys and filters do, and that nothing is refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers import geodesy
from limner.readers.geometry import Placement, Polynomial
from limner.readers.orientation import image_orientation
from limner.reports.html.run_page import HtmlReport
from limner.reports.writer import FileRow, Overview
from PIL import Image

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
HOSTILE = "</script><script>document.title = 'x'; console.error('ran')</script>\"'<img src=x onerror=alert(2)>"
BIDI = "مرحبا بالعالم"
COLUMNS = "[...document.querySelectorAll('#rows thead th button')].map((one) => one.textContent)"
ROWS = (
    "[...document.querySelectorAll('#rows tbody tr')].map((row) => [...row.cells].map((one) => one.innerText.trim()))"
)
SHOWN = "document.querySelector('#shown').textContent"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a record's page."""

    def run(record: Any) -> Path:
        (path,) = HtmlReport().write(record, tmp_path)
        return path

    return run


@pytest.fixture
def utm(placement: Make) -> Placement:
    """10 m, north-up."""
    return placement(32618, 10, 0, 5e5, 0, -10, 4e6)


def boxes(count: int) -> list[Finding]:
    """Boxes on a grid of 10 columns over 1000 × 800 px."""
    return [
        Finding(
            ("land", "water")[k % 2],
            shapely.box(100 * (k % 10) + 20, 80 * (k // 10) + 20, 100 * (k % 10) + 60, 80 * (k // 10) + 50 + k),
            "area",
            round(1 - k / 100, 2),
            "A lake." if k == 7 else "",
        )
        for k in range(count)
    ]


def test_a_finding_and_its_row_highlight_each_other(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm, boxes(30)))))
    view = page.run("limner.page.viewer.view()")
    left, top = page.run(
        "(() => { const b = document.querySelector('#canvas').getBoundingClientRect(); return [b.x, b.y]; })()"
    )
    shown = page.run("limner.page.place().toPicture(240, 35)")
    page.tab.mouse.click(left + view["x"] + shown[0] * view["zoom"], top + view["y"] + shown[1] * view["zoom"])
    page.tab.wait_for_selector("#rows tr[aria-current=true]")
    assert page.run("document.querySelector('#rows tr[aria-current=true]').cells[0].textContent") == "3"
    assert "Finding 3 land" in " ".join(page.tab.inner_text("#selected").split())
    page.tab.click("#rows tbody tr:nth-child(14) button")
    page.settled()
    assert page.run("limner.page.selected()") == 14
    middle = page.run("limner.page.viewer.toLevel0(limner.page.viewer.osd.viewport.getContainerSize().divide(2))")
    assert middle == pytest.approx([340, 80 + 41.5], abs=3), "the middle of the chosen finding"
    assert page.messages == []


def test_filters_leave_what_they_say(write: Make, open_page: Make, image: Make, record: Make, utm: Placement) -> None:
    page = open_page(write(record(image("a", utm, boxes(30)))))
    assert page.tab.inner_text("#shown") == "30 of 30 findings shown"
    page.tab.uncheck("#layers li:nth-child(1) input")
    page.until(SHOWN, "15 of 30 findings shown")
    assert {row[1] for row in page.run(ROWS)} == {"water"}
    page.tab.fill("#score-from", "0.9")
    page.until(SHOWN, "5 of 30 findings shown")
    page.tab.fill("#score-from", "0")
    page.tab.fill("#search", "lake")
    page.until(SHOWN, "1 of 30 findings shown")
    assert page.run(ROWS)[0][0] == "8"
    assert page.tab.inner_text("#cards .said") == "A lake."
    page.tab.fill("#search", "nothing of the kind")
    page.until(SHOWN, "0 of 30 findings shown")
    assert page.messages == []


def test_what_is_hidden_is_not_drawn(write: Make, open_page: Make, image: Make, record: Make, utm: Placement) -> None:
    colours = {"land": "#ff0000", "water": "#0000ff"}
    page = open_page(write(record(image("a", utm, boxes(30)), colours=colours)))

    def pixels() -> tuple[int, int]:
        shot = np.asarray(Image.open(io.BytesIO(page.tab.locator(".glass").screenshot())).convert("RGB")).astype(int)
        red = (shot[..., 0] > 200) & (shot[..., 1:] < 60).all(axis=2)
        blue = (shot[..., 2] > 200) & (shot[..., :2] < 60).all(axis=2)
        return int(red.sum()), int(blue.sum())

    assert min(pixels()) > 500
    page.tab.uncheck("#layers li:nth-child(1) input")
    page.tab.wait_for_timeout(300)
    red, blue = pixels()
    assert (red, blue > 500) == (0, True)


def test_the_table_is_sorted_by_its_headings(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    findings = [replace(one, score=None) if k == 4 else one for k, one in enumerate(boxes(250))]
    page = open_page(
        write(
            record(
                image(
                    "a", utm, [replace(one, geometry=shapely.box(k, 0, k + 1, 1 + k)) for k, one in enumerate(findings)]
                )
            )
        )
    )
    assert page.run(COLUMNS) == [
        "no.",
        "label",
        "score",
        "area, m²",
        "longitude, °",
        "latitude, °",
        "the model's words",
    ]
    assert page.tab.inner_text("#page-text") == "1 to 100 of 250"
    page.tab.click("#rows thead th:nth-child(4) button")
    page.tab.click("#rows thead th:nth-child(4) button")
    assert [row[0] for row in page.run(ROWS)[:3]] == ["250", "249", "248"]
    assert page.run("document.querySelector('#rows thead th:nth-child(4)').ariaSort") == "descending"
    page.tab.click("#rows thead th:nth-child(3) button")
    assert page.run(ROWS)[0][0] == "250"
    page.tab.click("#page-last")
    assert [row[0] for row in page.run(ROWS)[-2:]] == ["1", "5"], "what has no score comes last"
    page.tab.click("#areas thead th:nth-child(2) button")
    page.tab.click("#areas thead th:nth-child(2) button")
    assert page.tab.inner_text("#areas tbody tr:first-child th").strip() in {"land", "water"}
    assert page.messages == []


def test_the_keyboard_reaches_findings(write: Make, open_page: Make, image: Make, record: Make, utm: Placement) -> None:
    page = open_page(write(record(image("a", utm, boxes(30)))))
    page.tab.focus("#canvas .openseadragon-canvas")
    selected = "limner.page.selected()"
    for key, number in (("n", 1), ("n", 2), ("p", 1), ("p", 30)):
        page.tab.keyboard.press(key)
        assert page.run(selected) == number
    page.settled()
    page.tab.keyboard.press("n")
    page.settled()
    page.run("limner.page.select(null)")
    page.tab.keyboard.press("Enter")
    assert page.run(selected) == 1, "the finding in the middle"
    before = page.run("limner.page.viewer.view().zoom")
    page.tab.keyboard.press("+")
    page.settled()
    assert page.run("limner.page.viewer.view().zoom") > before
    page.tab.keyboard.press("r")
    page.settled()
    assert page.run("limner.page.viewer.osd.viewport.getRotation()") == 0, "north stays up"
    page.tab.focus("#rows tbody tr:nth-child(5) button")
    page.tab.keyboard.press("Enter")
    assert page.run(selected) == 5
    assert page.messages == []


def test_hostile_texts_are_shown_and_do_nothing(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    long = "".join(chr(0x4E00 + k % 500) for k in range(10_000))
    labels = [HOSTILE, BIDI, "😀 \u202e\u0000", long]
    findings = [Finding(one, shapely.box(9 * k, 0, 9 * k + 8, 9), "area", 0.5, one) for k, one in enumerate(labels)]
    shown = [
        replace(image(name, utm, findings, warnings=(HOSTILE,), failures=(("a/x0", HOSTILE),)), name=HOSTILE)
        for name in ("a", HOSTILE)
    ]
    page = open_page(write(record(*shown, labels=labels, files=[FileRow(HOSTILE, "failed", reason=HOSTILE)])))
    assert HOSTILE in page.tab.inner_text("#layers")
    assert page.run("document.querySelector('#layers bdi').textContent") == HOSTILE
    assert page.run(ROWS)[1][1] == BIDI
    page.tab.click("figure:nth-child(2) button.open")
    page.settled()
    page.tab.fill("#search", "<script>")
    page.until(SHOWN, "1 of 4 findings shown")
    assert page.run("document.title") == "2 images"
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.messages == []


WARP = Polynomial(
    ((0, 0), (1, 0), (0, 1), (1, 1), (2, 0)),
    (5e5, 4000.0, 30.0, 5.0, 9.0),
    (4e6, 20.0, -4000.0, 3.0, 0.0),
    (500.0, 400.0),
    400.0,
    0.1,
)
AFFINES = {
    "north-up": (32618, (10, 0, 5e5, 0, -10, 4e6)),
    "south-up": (32618, (10, 0, 5e5, 0, 10, 4e6)),
    "on its side": (32618, (0, 10, 5e5, -10, 0, 4e6)),
    "turned": (32618, (8, 3, 5e5, 3, -8, 4e6)),
    "degrees": (4326, (0.01, 0, -78, 0, -0.01, 37)),
    "pole": (3031, (2000, 0, -1e6, 0, -2000, 8e5)),
    "antimeridian": (32601, (100, 0, 2e5, 0, -100, 18e5)),
}


@pytest.mark.parametrize("name", [*AFFINES, "warped"])
def test_coordinates_under_the_cursor_are_those_of_the_placement(
    write: Make, open_page: Make, image: Make, record: Make, placement: Make, name: str
) -> None:
    place = replace(placement(32618, 10, 0, 5e5, 0.05, -10, 4e6), warp=WARP) if name == "warped" else None
    if place is None:
        code, matrix = AFFINES[name]
        place = placement(code, *matrix)
    shown = image("a", place, boxes(3))
    turned = image_orientation(shown.info)
    sure = np.ones(turned.swap((100, 80))[::-1], np.bool_)
    picture = Overview(np.full((*sure.shape, 3), 120, np.uint8), sure, sure, (10.0, 10.0), None, turned)
    page = open_page(write(record(replace(shown, overview=lambda: picture))))
    points = np.array([[0.5, 0.5], [300.25, 700.0], [999.0, 1.0], [431.7, 523.3]])
    view = page.run("limner.page.viewer.view()")
    upright = turned.to_upright(points, shown.info.size) / 10
    for point, (px, py) in zip(points, upright, strict=True):
        at = page.run(
            f"limner.page.viewer.toLevel0({{ x: {view['x'] + px * view['zoom']}, y: {view['y'] + py * view['zoom']} }})"
        )
        assert at == pytest.approx(point, abs=1e-6), "the pixel of the file under a point of the turned picture"
        world = page.run("(xy) => limner.page.place().toWorld(...xy)", at)
        assert world == pytest.approx(place.to_world([point])[0], rel=1e-12)
        lonlat = page.run("(xy) => limner.page.place().toLonLat(...xy)", at)
        back = geodesy.from_lonlat(place, [lonlat])[0]
        assert back == pytest.approx(point, abs=0.02), "pixels"
    metres = geodesy.metres_per_pixel(place, (500.0, 400.0))
    assert metres is not None
    across = page.run("limner.page.place().metresAcross(500, 400)")
    assert across == pytest.approx(turned.swap(metres)[0] * 10, rel=1e-3)
    assert "longitude" in page.tab.inner_text("#position")
    assert page.messages == []


def test_the_scale_bar_has_the_length_that_it_says(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm, boxes(3)))))
    width = page.run("document.querySelector('#scale-bar').getBoundingClientRect().width")
    length = float(page.tab.inner_text("#scale-text").removesuffix(" km"))
    zoom = page.run("limner.page.viewer.view().zoom")
    metres = geodesy.metres_per_pixel(utm, (500.0, 400.0))
    assert metres is not None
    assert width / zoom * 10 * metres[0] == pytest.approx(1000 * length, rel=0.02)


def test_a_stack_has_slices_and_sides(write: Make, open_page: Make, stack: Make, study: Make) -> None:
    findings = [Finding("nodule", shapely.box(20, 30, 30, 40), "box", 0.1 * k, plane=k) for k in range(4)]
    page = open_page(write(study(stack(findings, planes=9))))
    assert page.tab.input_value("#slice") == "3", "that of the highest score is shown first"
    assert page.tab.inner_text("#side-left") == "R"
    assert page.tab.inner_text("#slice option:checked") == "4 of 9"
    page.tab.click("#slice-before")
    page.settled()
    assert page.tab.inner_text("#slice option:checked") == "3 of 9"
    page.tab.click("#rows tbody tr:nth-child(1) button")
    page.settled()
    assert page.tab.inner_text("#slice option:checked") == "1 of 9", "the slice of a chosen finding is opened"
    assert page.tab.inner_text("#scale-text").endswith("mm")
    assert "Window 40/400" in page.tab.inner_text("#accuracy")
    assert page.messages == []


def test_an_image_without_pixels_still_has_its_findings(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm, boxes(9), overview=lambda: None))))
    assert page.run("limner.page.viewer.inView") == 9
    assert page.messages == []


def test_a_run_without_findings_or_images_opens(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm))))
    assert page.tab.inner_text("#shown") == "No findings"
    assert page.messages == []


def test_words_stand_beside_their_part_of_the_image(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    def parts(wanted: Any, longest: int) -> Any:
        sure = np.ones((240, longest), np.bool_)
        yield from (Overview(np.full((240, longest, 3), (0, 200, 0), np.uint8), sure, sure, (2, 2)) for _ in wanted)

    places = [shapely.box(0, 0, 960, 480), shapely.box(0, 480, 20480, 10240)]
    findings = [Finding("land", place, "region", text=f"It is {k}.") for k, place in enumerate(places)]
    page = open_page(write(record(image("a", utm, findings, size=(20480, 10240), part_pictures=parts))))
    notes = "[...document.querySelectorAll('#cards .note')].map((one) => one.textContent)"
    page.until(f"{notes}.every(Boolean) && {notes}.length", 2)
    cut = 20480 / 100  # the picture of the fixture has 100 px
    assert page.run(notes) == [
        "Read from the image: 1 px for 2 px of the image.",
        f"Cut from the picture above: 1 px for {cut:.0f} px of the image.",
    ]
    pixel = "one.getContext('2d').getImageData(9, 9, 1, 1).data"
    colours = f"[...document.querySelectorAll('#cards canvas')].map((one) => [...{pixel}])"
    assert page.run(colours) == [[0, 200, 0, 255], [120, 120, 120, 255]]
    assert page.messages == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.network
def test_accessibility(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement, axe: str, width: int, scheme: str
) -> None:
    images = [image(name, utm, boxes(30), warnings=("Hardly any tissue.",)) for name in ("a", "b")]
    page = open_page(
        write(record(*images, files=[FileRow("x", "failed", reason="y")])), width=width, color_scheme=scheme
    )
    page.tab.click("#rows tbody tr:nth-child(3) button")
    page.run(axe + "; 0")
    found = page.run("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    told = [f"{one['impact']} {one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]
    assert [one for one in told if one.split()[0] in {"serious", "critical"}] == []
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is wider than the screen"


def test_paper_has_the_picture_and_the_use(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm, boxes(30)))))
    content = page.tab.pdf(format="A4", print_background=True)
    assert content.startswith(b"%PDF")
    assert page.run("document.querySelectorAll('.printed').length") == 0, "the screen is as before"
    page.tab.emulate_media(media="print")
    assert page.tab.is_hidden(".tools")
    assert page.messages == []


def test_without_scripts_the_numbers_are_there(
    write: Make, open_page: Make, image: Make, record: Make, utm: Placement
) -> None:
    page = open_page(write(record(image("a", utm, boxes(30)))), java_script_enabled=False)
    assert "need JavaScript" in page.tab.inner_text("noscript")
    assert page.tab.is_hidden("#viewer")
    assert page.tab.is_visible("#image-1 img")
    assert "water" in page.tab.inner_text("#areas")
