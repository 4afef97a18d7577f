"""Records of studies with made stacks, and pages taken apart."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
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
