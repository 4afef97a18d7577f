"""The documentation site: every page is in its contents, and the built pages open without a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGES_OF_CODE = {"cards", "commands", "python", "scorecards"}


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning is an error, as in `make docs`."""
    pytest.importorskip("furo", reason="the site is built with the packages of the group docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", folder / "trees"]
    done = subprocess.run(
        [*map(str, command), str(root / "docs"), str(folder / "html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_built_and_found(root: Path, site: Path) -> None:
    pages = {path.relative_to(root / "docs").with_suffix("") for path in (root / "docs").rglob("*.md")}
    pages = {page for page in pages if "_build" not in page.parts}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert pages <= built
    assert {page.name for page in built if page.parent.name == "generated"} >= PAGES_OF_CODE


def test_pages_fetch_nothing(site: Path) -> None:
    elsewhere = r"""["']?(?:https?:)?//"""
    loaded = rf"""<(?:script|img|iframe|link|source)\b[^>]*?(?:src|href)\s*=\s*{elsewhere}[^"'> ]+"""
    fetched = re.compile(rf"{loaded}|@import|url\(\s*{elsewhere}")
    texts = [path for pattern in ("*.html", "*.css") for path in site.rglob(pattern)]
    assert len(texts) > 20
    found = [f"{path.name}: {match[0][:200]}" for path in texts for match in fetched.finditer(path.read_text("utf-8"))]
    assert found == []


def test_the_reference_has_commands_cards_and_functions(site: Path) -> None:
    reference = site / "reference" / "generated"
    commands = (reference / "commands.html").read_text("utf-8")
    for words in ("limner watch", "--once", "limner train probe", "limner check run", "The folder of a run"):
        assert words in commands
    assert "known error" in (reference / "cards.html").read_text("utf-8")
    assert "where tiles meet" in (reference / "cards.html").read_text("utf-8")
    assert "known error" in (reference / "scorecards.html").read_text("utf-8")
    python = (reference / "python.html").read_text("utf-8")
    for name in ("limner.pipelines.api.watch", "limner.model.annotator.Annotator", "limner.readers.geometry.Placement"):
        assert f'id="{name}"' in python
