"""What report.html costs: processor seconds and peak memory to write it, its size, and how soon Chromium shows it.

The runs are those of reports_table.py: made outlines of some 20 vertices over a scene of 32 × 32 px for each. A page is
open when its findings are drawn and its table is filled; filtering is by a label, sorting by area. Needs playwright.

    python tests/bench/run_page.py [--findings 1000 10000 100000] [--repeat 3]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import reports_table
from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu"]
BUTTONS = ("#labels-all", "#rows thead th:nth-child(4) button")  # which filter and sort all findings
CLICK = """async (which) => {
  const started = performance.now();
  document.querySelector(which).click();
  await limner.page.work;
  return performance.now() - started;
}"""


def opened(browser: Any, page: Path) -> tuple[float, float, float, float]:
    """Seconds until a page is open, and milliseconds of drawing it, filtering and sorting."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    tab.goto(page.as_uri())
    tab.evaluate("limner.ready")
    while not tab.evaluate("Boolean(limner.page.viewer.drawn)"):
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    draw, filtering, sorting = tab.evaluate("limner.page.viewer.cost"), *(tab.evaluate(CLICK, one) for one in BUTTONS)
    tab.close()
    return seconds, draw, filtering, sorting


def main() -> None:
    """Make runs, write their pages, open them, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--findings", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    sys.stdout.write("| findings | processor s | peak MiB | MB | open, s | draw, ms | filter, ms | sort, ms |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as temporary:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for count in asked.findings:
            folder = Path(temporary) / str(count)
            (folder / "out").mkdir(parents=True)
            words = ["--folder", str(folder), "--findings", str(count)]
            reports_table.measured([*words, "--step", "make"])
            seconds, _, peak = reports_table.measured([*words, "--step", "html"])
            page = folder / "out" / "report.html"
            times = zip(*(opened(browser, page) for _ in range(asked.repeat)), strict=True)
            open_s, draw, filtering, sorting = (statistics.median(values) for values in times)
            numbers = f"{seconds:.1f} | {peak:.0f} | {page.stat().st_size / 1e6:.1f} | {open_s:.2f}"
            sys.stdout.write(f"| {count:,} | {numbers} | {draw:.0f} | {filtering:.0f} | {sorting:.0f} |\n")
            sys.stdout.flush()
        browser.close()


if __name__ == "__main__":
    main()
