"""The page of a study in Chromium: nothing is refused or reported, and every sheet of A4 states the use."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.reports.html.study import StudyHtml
from PIL import Image

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
HOSTILE = "</style><script>document.title = 'x'; console.error('ran')</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def chromium() -> str:
    """Where Chromium is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium on this machine: apt-get install chromium")


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Callable[..., str]:
    """Opens a page, and gives what the browser says of it."""

    def run(page: Path, *words: str) -> str:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        log = ("--enable-logging=stderr", "--hide-scrollbars", "--no-first-run")
        command = [chromium, *FLAGS, *log, profile, *words, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    return run


@pytest.fixture
def made(tmp_path: Path, stack: Make, study: Make) -> Path:
    """A page with hostile texts and more findings than one sheet holds."""
    findings = [
        Finding("nodule", shapely.box(20 + k, 30, 30 + k, 40), "box", k / 100, HOSTILE, plane=k % 5) for k in range(60)
    ]
    (path,) = StudyHtml().write(study(stack(findings, grey=90, warnings=(HOSTILE,))), tmp_path)
    return path


@pytest.mark.parametrize("width", [1200, 390])
def test_a_page_shows_its_pictures_and_the_console_is_silent(
    made: Path, tmp_path: Path, browse: Callable[..., str], width: int
) -> None:
    shot = tmp_path / "shot.png"
    assert browse(made, f"--window-size={width},4000", f"--screenshot={shot}") == ""
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(axis=2)
    assert red.sum() > 500, "outlines, drawn in pictures that the policy allows"
    assert (np.abs(pixels - 90).max(axis=2) < 4).sum() > 20_000


def test_the_console_tells_of_what_the_policy_refuses(made: Path, browse: Callable[..., str], tmp_path: Path) -> None:
    """The control of the test above."""
    changed = tmp_path / "changed.html"
    changed.write_text(made.read_text().replace("<main>", "<main><script>1</script>"))
    assert "Content Security Policy" in browse(changed, f"--screenshot={tmp_path / 'shot.png'}")


def test_every_sheet_of_paper_states_the_use(made: Path, tmp_path: Path, browse: Callable[..., str]) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on this machine: apt-get install poppler-utils")
    pdf = tmp_path / "page.pdf"
    assert browse(made, "--no-pdf-header-footer", f"--print-to-pdf={pdf}") == ""
    size = subprocess.run(["pdfinfo", pdf], capture_output=True, text=True, check=True).stdout  # noqa: S607
    width, height = map(float, re.findall(r"Page size:\s+([\d.]+) x ([\d.]+)", size)[0])
    assert (width, height) == pytest.approx((595, 842), abs=2)
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    sheets = text.split("\f")[:-1]
    assert len(sheets) >= 3
    assert all("Research use only. Not for clinical" in sheet for sheet in sheets)
    assert all(re.search(rf"\b{number}\s*/\s*{len(sheets)}\b", sheet) for number, sheet in enumerate(sheets, 1))
    tables = [sheet for sheet in sheets if "finding_uid" in sheet]
    assert len(tables) >= 2, "the head of a table is on each sheet that it is on"
