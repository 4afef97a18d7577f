"""Chromium for the tests of pages, and the script that checks accessibility."""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

AXE = ("axe-core@4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c")
"""The package of npm that checks accessibility, and the sha256 of its axe.min.js."""


@dataclass
class OpenPage:
    """A page that Chromium shows."""

    tab: Any
    """Of playwright."""
    messages: list[str]
    """What the console said."""

    def run(self, script: str, *words: Any) -> Any:
        """The value of a JavaScript expression."""
        return self.tab.evaluate(script, *words)

    def until(self, script: str, expected: Any = True) -> None:
        """Wait until an expression has a value. Playwright's own way evaluates a text, which the policy refuses."""
        for _ in range(200):
            if (value := self.run(script)) == expected:
                return
            self.tab.wait_for_timeout(50)
        raise AssertionError((script, value))

    def settled(self) -> None:
        """Wait until the picture is open and stands still."""
        seen: list[Any] = []
        for _ in range(200):
            seen.append(self.run("limner.page.viewer.drawn && limner.page.viewer.view()"))
            if seen[-1] and seen[-4:] == [seen[-1]] * 4:
                return
            self.tab.wait_for_timeout(40)
        raise AssertionError(seen[-3:])


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Any]:
    """Chromium, driven by playwright."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with driver.sync_playwright() as made:
        started = made.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., OpenPage]]:
    """Opens a file, or an address of this machine, and waits for its scripts. What it wants of others is noted."""
    contexts: list[Any] = []

    def start(page: Path | str, *, width: int = 1280, height: int = 900, **more: Any) -> OpenPage:
        address = page if isinstance(page, str) else page.as_uri()
        own = ("file:", "data:") if isinstance(page, Path) else (address, "data:")
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **more))
        tab, messages = contexts[-1].new_page(), list[str]()
        tab.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: messages.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda one: None if one.url.startswith(own) else messages.append(f"asked: {one.url}"))
        tab.goto(address)
        opened = OpenPage(tab, messages)
        if more.get("java_script_enabled", True):
            opened.run("limner.ready")
            opened.settled()
        return opened

    yield start
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, fetched from npm."""
    npm = shutil.which("npm") or pytest.skip("no npm on this machine, which fetches axe-core: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run([npm, "pack", "--silent", AXE[0]], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {done.stderr[-300:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        content = script.read()
    assert hashlib.sha256(content).hexdigest() == AXE[1]
    return content.decode()
