"""The page of a server in Chromium: looking, filtering and reviewing, by mouse and keyboard, and nothing is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.config import Settings
from limner.pipelines.run.execute import run as run_settings

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
HOSTILE = "</script><script>document.title = 'x'; console.error('ran')</script>\"'<img src=x onerror=alert(2)>"
SHOWN = "document.querySelector('#shown').textContent"
PROGRESS = "document.querySelector('#review-progress').textContent"
MARK = "[...document.querySelectorAll('#rows .mark')].map((one) => one.textContent)"
SAID = "document.querySelector('#review-said').textContent"
NUMBERS = "[...document.querySelectorAll('#rows tbody tr')].map((row) => Number(row.cells[0].textContent))"
PICTURE = "#canvas .openseadragon-canvas"
INSIDE = """(() => {
  const { layer } = limner.page.viewer;
  for (const at of layer.bySize) {
    const [x0, y0, x1, y1] = layer.bounds.subarray(4 * at, 4 * at + 4);
    const middle = [(x0 + x1) / 2, (y0 + y1) / 2];
    if (layer.contains(at, ...middle)) return middle;
  }
})()"""
"""A level-0 point inside of a large finding."""


@pytest.fixture
def page(made_run: Path, serve: Make, open_page: Make) -> Any:
    """The page of the run, which anna may review."""
    return open_page(serve(made_run).server.address)


@pytest.fixture
def total(client: Any) -> int:
    """How many findings the run has."""
    return client.data("image/0/rows")["total"]


def grouped(count: int) -> str:
    return f"{count:,}"


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a level-0 point is in the window."""
    page.run("document.querySelector('#canvas').scrollIntoView({ block: 'center' })")
    left, top = page.run(
        "(() => { const b = document.querySelector('#canvas').getBoundingClientRect(); return [b.x, b.y]; })()"
    )
    view = page.run("limner.page.viewer.view()")
    shown = page.run("(xy) => limner.page.place().toPicture(...xy)", [x, y])
    return left + view["x"] + shown[0] * view["zoom"], top + view["y"] + shown[1] * view["zoom"]


def test_tiles_and_findings_are_shown_and_finer_ones_on_zooming(page: Any, total: int) -> None:
    page.until(SHOWN, f"{grouped(total)} of {grouped(total)} findings shown")
    assert page.run("limner.page.viewer.layer.inView") == total
    outlines = page.run("limner.page.viewer.layer.count")
    page.run("limner.page.viewer.osd.viewport.zoomTo(8, null, true); 0")
    page.until(f"limner.page.viewer.layer.inView < {total} / 10")
    step = page.run("limner.page.viewer.extent().step")
    assert step < 1
    page.until("limner.page.viewer.osd.world.getItemAt(0).getFullyLoaded()")
    assert page.run("limner.page.viewer.layer.count") <= outlines
    assert page.messages == []


def test_a_finding_and_its_row_highlight_each_other(page: Any) -> None:
    page.tab.click("#rows tbody tr:nth-child(14) button")
    page.run("limner.page.work.then(() => 0)")
    page.settled()
    assert page.run("limner.page.selected()") == 14
    x0, y0, x1, y1 = page.run("[...limner.page.viewer.selected.bounds]")
    middle = page.run("limner.page.viewer.toLevel0(limner.page.viewer.osd.viewport.getContainerSize().divide(2))")
    assert middle == pytest.approx([(x0 + x1) / 2, (y0 + y1) / 2], abs=3)
    page.run("limner.page.select(null).then(() => 0)")
    page.run("limner.page.viewer.osd.viewport.goHome(true); 0")
    page.settled()
    page.tab.mouse.click(*on_screen(page, *page.run(INSIDE)))
    page.until("limner.page.selected() > 0")
    number = page.run("limner.page.selected()")
    page.until(
        "(document.querySelector('#rows tr[aria-current=true]') || { cells: [{}] }).cells[0].textContent", str(number)
    )
    assert page.messages == []


def test_filters_and_orders_are_the_servers(page: Any, client: Any, total: int) -> None:
    page.tab.uncheck("#layers li:nth-child(1) input")
    left = client.data("image/0/rows?hide=0")["total"]
    assert 0 < left < total
    page.until(SHOWN, f"{grouped(left)} of {grouped(total)} findings shown")
    page.tab.fill("#search", "17")
    found = client.data("image/0/rows?hide=0&search=17")["total"]
    page.until(SHOWN, f"{grouped(found)} of {grouped(total)} findings shown")
    page.tab.fill("#search", "")
    page.tab.click("#labels-all")
    page.until(SHOWN, f"{grouped(total)} of {grouped(total)} findings shown")
    page.tab.click("#rows thead th:nth-child(1) button")
    page.until(f"{NUMBERS}[0]", total)
    page.tab.click("#page-last")
    page.until(f"{NUMBERS}.at(-1)", 1)
    assert page.messages == []


def test_a_review_by_keyboard_is_kept_over_a_reload(page: Any, total: int) -> None:
    page.tab.focus(PICTURE)
    for key, mark in (("n", None), ("a", ["✓ accepted"]), ("r", ["✓ accepted", "✗ rejected"])):
        page.tab.keyboard.press(key)
        if mark is not None:
            page.until(MARK, mark)
    page.until(PROGRESS, f"2 of {grouped(total)} reviewed, by anna")
    page.until("limner.page.selected()", 3)
    page.tab.keyboard.press("u")
    page.until(MARK, ["✓ accepted"])
    page.tab.keyboard.press("Shift+U")
    page.until(MARK, ["✓ accepted", "✗ rejected"])
    page.tab.select_option("#outcomes", "0")
    page.until(SHOWN, f"{grouped(total - 2)} of {grouped(total)} findings shown")
    page.tab.reload()
    page.run("limner.ready.then(() => 0)")
    page.until(MARK, ["✓ accepted", "✗ rejected"])
    page.until(PROGRESS, f"2 of {grouped(total)} reviewed, by anna")
    assert page.tab.inner_text("#history").count("2026") + page.tab.text_content("#history").count("UTC") >= 4
    page.tab.click("#rows tbody tr:nth-child(1) button")
    page.until("document.querySelector('.decided') !== null")
    assert page.tab.inner_text(".decided").startswith("Accepted by anna, ")
    page.tab.click("#undo")
    page.until(MARK, ["✓ accepted"])
    assert page.messages == []


def test_labels_and_comments_are_taken_as_they_are_typed(page: Any) -> None:
    page.tab.click("#rows tbody tr:nth-child(2) button")
    page.until("limner.page.selected()", 2)
    page.tab.click("#relabel")
    page.tab.fill("#ask-text", HOSTILE[:190])
    page.tab.keyboard.press("Enter")
    page.until(MARK, [f"→ {HOSTILE[:190]}"])
    page.tab.click("#comment")
    page.tab.fill("#ask-text", "مرحبا 😀")
    page.tab.click("#ask button[type=submit]")
    page.until("(document.querySelector('.decided') || {}).textContent.includes('Comment: مرحبا 😀')")
    page.tab.click("#relabel")
    page.tab.fill("#ask-text", "x" * 500)
    page.tab.keyboard.press("Enter")
    page.until(f"{SAID}.includes('must have')")
    page.tab.click("#relabel")
    page.tab.keyboard.press("Escape")
    assert page.tab.is_hidden("#ask")
    assert page.run("document.title") == "scene.tif"
    assert [one for one in page.messages if "409" not in one] == []


def test_an_outline_is_drawn_kept_undone_and_deleted(page: Any) -> None:
    page.settled()
    page.tab.focus(PICTURE)
    page.tab.keyboard.press("d")
    assert page.tab.get_attribute("#draw", "aria-pressed") == "true"
    corners = [(100, 100), (500, 120), (450, 420), (120, 400)]
    for corner in corners:
        page.tab.mouse.click(*on_screen(page, *corner))
        page.tab.wait_for_timeout(350)  # a second click within 300 ms would be a double click
    page.tab.keyboard.press("Enter")
    page.tab.fill("#ask-text", "hut")
    page.tab.keyboard.press("Enter")
    page.until("document.querySelectorAll('#drawn li').length", 1)
    assert page.tab.inner_text("#drawn li").startswith("Drawn 1: hut Delete Drawn by anna")
    (outline,) = page.run("Object.values(limner.page.reviewed.drawn).map((one) => one.rings[0])")
    for (x, y), near in zip(outline, [*corners, corners[0]], strict=True):
        assert (x, y) == pytest.approx(near, abs=3), "where it was clicked"
    page.tab.reload()
    page.run("limner.ready.then(() => 0)")
    page.until("document.querySelectorAll('#drawn li').length", 1)
    page.settled()
    page.tab.click("#drawn li button:nth-of-type(1)")
    page.settled()
    page.tab.click("#drawn li button:nth-of-type(2)")
    page.until("document.querySelectorAll('#drawn li').length", 0)
    page.tab.click("#undo")
    page.until("document.querySelectorAll('#drawn li').length", 1)
    page.tab.focus(PICTURE)
    page.tab.keyboard.press("d")
    for _ in range(2):
        page.tab.keyboard.press(" ")
        page.tab.keyboard.press("ArrowRight")
        page.settled()
    page.tab.keyboard.press("Enter")
    page.until(f"{SAID}.includes('at least three corners')")
    page.tab.keyboard.press("Escape")
    assert page.tab.get_attribute("#draw", "aria-pressed") == "false"
    assert page.messages == []


def test_hostile_labels_and_several_images(
    tmp_path: Path, make_scene: Make, make_card: Make, serve: Make, open_page: Make
) -> None:
    names = {"ground": "#000000", HOSTILE: "#e69f00", "مرحبا 😀 " + "長" * 300: "#56b4e9"}
    classes = [{"name": n, "colour": c, "background": n == "ground"} for n, c in names.items()]
    scenes = [make_scene(tmp_path / f"{name}.tif", width=300) for name in ("one", "two")]
    asked = {"inputs": [*map(str, scenes)], "out": str(tmp_path / "run"), "reports": ["files-csv"]}
    run_settings(Settings.resolve({**asked, "model": str(make_card(tmp_path, classes=classes))}), lambda _: None)
    page = open_page(serve(tmp_path / "run").server.address)
    assert HOSTILE in page.tab.inner_text("#layers")
    page.until("[...document.querySelectorAll('.contacts img')].every((one) => one.complete && one.naturalWidth > 0)")
    page.tab.click("figure:nth-child(2) button.open")
    page.settled()
    page.until("document.querySelector('#about-viewer').textContent", "two.tif")
    page.tab.fill("#search", "<script>")
    page.until(f"/^[1-9]/.test({SHOWN}) && !{SHOWN}.startsWith(limner.page.source().count + ' ')")
    page.tab.focus(PICTURE)
    page.tab.keyboard.press("n")
    page.until("limner.page.selected() > 0")
    page.tab.keyboard.press("a")
    page.until(f"{MARK}.length", 1)
    assert page.run("document.title") == "2 images"
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.messages == []


def test_slices_of_a_study_are_read_from_its_files(tmp_path: Path, serve: Make, open_page: Make) -> None:
    head = Path(__file__).parents[3] / "notebooks" / "samples" / "head"
    asked = {"inputs": [str(head)], "preset": "radiology", "model": "none", "out": str(tmp_path / "run")}
    run_settings(Settings.resolve({**asked, "reports": ["files-csv"]}), lambda _: None)
    page = open_page(serve(tmp_path / "run", read_only=True).server.address)
    assert page.tab.is_hidden("#review")
    count = page.run("limner.page.place().planes.length")
    assert count > 20
    page.until("limner.page.viewer.osd.world.getItemAt(0).getFullyLoaded()")
    first = page.tab.locator(".glass").screenshot()
    page.tab.click("#slice-after")
    page.settled()
    page.until("limner.page.viewer.osd.world.getItemAt(0).getFullyLoaded()")
    assert page.tab.locator(".glass").screenshot() != first
    assert page.tab.inner_text("#slice option:checked").endswith(f" of {count}")
    assert page.messages == []


def test_a_server_that_has_ended_is_said(made_run: Path, open_page: Make) -> None:
    words = ["view", str(made_run), "--no-browser", "--read-only"]
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout is not None
    page = open_page(running.stdout.readline().strip())
    running.terminate()
    running.wait(60)
    page.tab.click("#page-last")
    page.until("document.querySelector('#served').textContent.startsWith('The server has ended.')")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.network
def test_accessibility(made_run: Path, serve: Make, open_page: Make, axe: str, width: int, scheme: str) -> None:
    page = open_page(serve(made_run).server.address, width=width, color_scheme=scheme)
    page.tab.click("#rows tbody tr:nth-child(3) button")
    page.tab.click("#accept")
    page.until(f"{MARK}.length", 1)
    page.run(axe + "; 0")
    found = page.run("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    told = [f"{one['impact']} {one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]
    assert [one for one in told if one.split()[0] in {"serious", "critical"}] == []
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is wider than the screen"
    assert page.messages == []
