"""Records of studies with made stacks, and pages taken apart."""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane
from limner.reports.writer import Area, ImageRecord, Overview, Record
from PIL import Image

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
VOID = {"meta", "img", "br", "link", "input", "hr", "rect", "path"}


@dataclass
class Page(HTMLParser):
    """A page: its elements, texts and pictures; raises `AssertionError` where tags do not match."""

    html: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """The cells of every row of every table."""
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        assert not self.open_tags, self.open_tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the last element."""
        if tag not in VOID:
            assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if self.open_tags[-1:] not in (["style"], ["script"]):
            self.texts.append(data)
        if {"td", "th"} & set(self.open_tags):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """All that can be read, with single blanks."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def pictures(self) -> list[np.ndarray]:
        """The pixels of every picture."""
        found = [one["src"].partition("base64,")[2] for one in self.attributes("img")]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found]


@pytest.fixture(scope="session")
def page() -> type[Page]:
    """Takes a page apart."""
    return Page


@pytest.fixture(scope="session")
def stack() -> Callable[..., ImageRecord]:
    """A stack of `planes` slices of 100 × 80 px of 0.5 × 1 mm, with black pictures unless `grey` says otherwise."""

    def make(
        findings: Sequence[Finding] = (),
        *,
        planes: int = 5,
        axes: tuple[Sequence[float], Sequence[float]] | None = AXIAL,
        name: str = "study1-ct1",
        grey: int = 0,
        facts: dict[str, str] | None = None,
        **more: Any,
    ) -> ImageRecord:
        def place(k: int) -> Placement:
            if axes is None:
                return Placement.pixels("none")
            x, y = np.array(axes[0]) * 0.5, np.array(axes[1])
            z = np.cross(axes[0], axes[1]) * 2.0 * k
            return Placement(tuple(zip(x.tolist(), y.tolist(), z.tolist(), strict=True)), "mm", source="pixel_spacing")

        stated = {"series_uid": "2.25.7", "modality": "CT", "row_mm": "1.0", "col_mm": "0.5", "n_images": str(planes)}
        stated |= {"spacing_source": "pixel_spacing" if axes else "none", "window_used": "40/400 LINEAR (file)"}
        info = ImageInfo(
            "dicom:2.25.1/x",
            "dicom",
            (100, 80),
            (Channel("grey"),),
            place(0),
            id=name,
            study="2.25.1",
            planes=tuple(Plane(place(k), f"file-{k}", 1, f"2.25.3{k}", 2.0 * k, k + 1) for k in range(planes)),
            facts=tuple((stated | (facts or {})).items()),
            kind="study",
        )
        sure = np.ones((80, 100), np.bool_)
        picture = Overview(np.full((80, 100, 3), grey, np.uint8), sure, sure, (1.0, 1.0))

        def pictures(chosen: Sequence[int], longest: int) -> Iterator[Overview | None]:
            assert longest >= 100
            return iter([picture] * len(chosen))

        values: dict[str, Any] = {
            "info": info,
            "findings": lambda: list(findings),
            "overview": lambda: picture,
            "areas": (Area("analysed", "", 8000.0 * planes, None, planes),),
            "analysis": {"Window": "40/400 LINEAR (file)"},
            "slice_pictures": pictures,
        }
        return ImageRecord(**(values | more))

    return make


@pytest.fixture(scope="session")
def study() -> Callable[..., Record]:
    """A run of some stacks with a toy model."""

    def make(*images: ImageRecord, labels: Sequence[str] = ("nodule", "cyst"), **more: Any) -> Record:
        model = {"name": "toy", "version": "1", "sha256": "0" * 64, "licence": "MIT"}
        colours = {"nodule": "#ff0000", "cyst": "#00ff00"}
        return Record(images, more.pop("files", ()), model, tuple(labels), "0.1.0", colours=colours, **more)

    return make


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
    """Opens a file, and waits for its scripts. What it wants of a network is refused and noted."""
    contexts: list[Any] = []

    def start(path: Path, *, width: int = 1280, height: int = 900, **more: Any) -> OpenPage:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **more))
        tab, messages = contexts[-1].new_page(), list[str]()
        tab.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: messages.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request", lambda one: None if one.url[:5] in {"file:", "data:"} else messages.append(f"asked: {one.url}")
        )
        tab.goto(path.as_uri())
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
