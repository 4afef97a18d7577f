"""What `limner view` costs: processor seconds and memory of its index, and how soon Chromium shows a run.

The runs are those of reports_table.py: made outlines of some 20 vertices over a scene of 32 × 32 px for each. A page is
open when the findings in view are drawn and the table is filled. Zooming goes in eightfold, and ends when the outlines
there are drawn; filtering is by a label, sorting by area. With --tiles, tiles of a scene of real size are asked for one
after the other, at every level. Needs playwright.

    python tests/bench/view.py [--findings 1000 100000 1000000] [--repeat 3] [--tiles 16384] [--folder DIR]
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import reports_table
from playwright.sync_api import sync_playwright
from rasterio.enums import Resampling
from rasterio.windows import Window

FLAGS = ["--no-sandbox", "--disable-gpu"]
DONE = "(async () => { await limner.ready; await limner.page.work; return limner.page.viewer.layer.inView || 0; })()"
CLICK = """async (which) => {
  const started = performance.now();
  document.querySelector(which).click();
  await limner.page.work;
  return performance.now() - started;
}"""
ZOOM = """async () => {
  const { viewer } = limner.page;
  const [before, started] = [viewer.layer, performance.now()];
  viewer.osd.viewport.zoomBy(8, null, true);
  while (viewer.layer === before) await new Promise((resolve) => setTimeout(resolve, 5));
  return performance.now() - started;
}"""


@contextmanager
def serving(run: Path) -> Iterator[tuple[str, int, float]]:
    """The address of a server of a run, its process id, and seconds until it was printed."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "limner.pipelines.cli.main", "view", str(run), "--no-browser", "--read-only"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip(), server.pid, time.perf_counter() - started
    finally:
        server.terminate()
        server.wait()


def peak_mib(pid: int) -> float:
    """The most memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def opened(browser: Any, address: str) -> tuple[float, float, float, float]:
    """Seconds until a page is open, and milliseconds of filtering, sorting and zooming."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    tab.goto(address)
    while not tab.evaluate(DONE):
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    times = (
        tab.evaluate(CLICK, "#labels-all"),
        tab.evaluate(CLICK, "#rows thead th:nth-child(4) button"),
        tab.evaluate(ZOOM),
    )
    tab.close()
    return seconds, *times


def make_index(folder: Path) -> None:
    """Make the index of a run, as the command does."""
    from limner.pipelines.view.session import open_view

    with open_view(folder / "run"):
        pass


def write_scene(path: Path, side: int) -> None:
    """A scene of noise in 16 bits and three bands, tiled and deflated, with overviews."""
    random = np.random.default_rng(0)
    block = random.integers(300, 3000, (3, 1024, 1024), dtype=np.uint16)
    profile: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint16"}
    where = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 43e5)}
    with rasterio.open(path, "w", **profile, **where, tiled=True, compress="deflate", zlevel=1, bigtiff="yes") as scene:
        for band, name in enumerate(("red", "green", "blue"), 1):
            scene.set_band_description(band, name)
        for y in range(0, side, 1024):
            for x in range(0, side, 1024):
                window: Any = Window(x, y, min(1024, side - x), min(1024, side - y))  # pyright: ignore[reportCallIssue]
                scene.write(np.roll(block, x + y, axis=2)[:, : window.height, : window.width], window=window)
        scene.build_overviews([2, 4, 8, 16], Resampling.average)


def tile_times(run: Path) -> Iterator[tuple[int, float, float]]:
    """(level, median, longest) milliseconds of a tile, of up to 30 at each level, one after the other."""
    with serving(run) as (address, _, _):
        host, _, rest = address.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host)

        def ask(path: str) -> bytes:
            connection.request("GET", f"/{rest}{path}")
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, (path, response.status)
            return content

        about = json.loads(ask("image/0"))
        ask("tile/0/0/0/0/0/0")  # reads the overview
        for level in range(about["level"] + 1):
            side = 2**level
            places = [(k * 7 % side, k * 11 % side) for k in range(min(30, side * side))]
            times: list[float] = []
            for x, y in dict.fromkeys(places):
                started = time.perf_counter()
                ask(f"tile/0/0/0/{level}/{x}/{y}")
                times.append(1000 * (time.perf_counter() - started))
            yield level, statistics.median(times), max(times)


def findings_table(browser: Any, base: Path, counts: list[int], repeat: int) -> None:
    """Print the table of runs with made findings."""
    sys.stdout.write("| findings | index: processor s | peak MiB | MB | start, s | open, s | filter, ms | sort, ms ")
    sys.stdout.write("| zoom, ms | server, MiB |\n" + "| --- " * 10 + "|\n")
    for count in counts:
        folder = base / str(count)
        if not (folder / "run").exists():
            folder.mkdir(parents=True)
            reports_table.measured(["--folder", str(folder), "--step", "make", "--findings", str(count)])
        index = folder / ".run.view"
        shutil.rmtree(index, ignore_errors=True)
        seconds, peak = measured_index(folder)
        size = sum(file.stat().st_size for file in index.rglob("*") if file.is_file()) / 1e6
        with serving(folder / "run") as (address, pid, start):
            times = zip(*(opened(browser, address) for _ in range(repeat)), strict=True)
            open_s, filtering, sorting, zooming = (statistics.median(values) for values in times)
            held = peak_mib(pid)
        index_text = f"{seconds:.1f} | {peak:.0f} | {size:.1f}"
        page_text = f"{start:.1f} | {open_s:.2f} | {filtering:.0f} | {sorting:.0f} | {zooming:.0f} | {held:.0f}"
        sys.stdout.write(f"| {count:,} | {index_text} | {page_text} |\n")
        sys.stdout.flush()


def measured_index(folder: Path) -> tuple[float, float]:
    """Processor seconds and peak MiB of a process that makes an index."""
    process = subprocess.Popen([sys.executable, __file__, "--folder", str(folder), "--step", "index"])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the index was not made")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Make runs, index and open them, and print tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--findings", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tiles", type=int, default=16_384)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        make_index(asked.folder)
        return
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary:
        base = asked.folder or Path(temporary)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
            findings_table(browser, base, asked.findings, asked.repeat)
            browser.close()
        if asked.tiles:
            tiles_table(base / "tiles", asked.tiles)


def tiles_table(folder: Path, side: int) -> None:
    """Print the times of tiles of a scene."""
    if not (folder / "run").exists():
        folder.mkdir(parents=True)
        write_scene(folder / "scene.tif", side)
        words = ["run", str(folder / "scene.tif"), "--model", "none", "--out", str(folder / "run")]
        command = [sys.executable, "-m", "limner.pipelines.cli.main", *words, "--reports", "files-csv"]
        subprocess.run(command, check=True, capture_output=True)
    sys.stdout.write(f"\nTiles of {side} × {side} px:\n\n| level | median, ms | longest, ms |\n| --- | --- | --- |\n")
    for level, median, longest in tile_times(folder / "run"):
        sys.stdout.write(f"| {level} | {median:.0f} | {longest:.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
