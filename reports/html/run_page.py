"""The page of a run: report.html, which shows every image with its findings, and what was done with which model."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image
from pydantic import Field

from ...readers.files import atomic_path
from ...readers.image import ImageInfo
from ...readers.options import Options
from ...readers.orientation import UPRIGHT
from ..measures import FindingsBatch, LabelTotals
from ..overview.painting import SKIPPED, UNREADABLE, Canvas, draw_base, hatched, plane_masks
from ..palette import Palette
from ..streams import Stream, write_stream
from ..writer import ImageRecord, Overview, Record
from .key_images import BY_EXTENT, BY_SCORE, FindingsIndex, choose_planes, fair_shares
from .listed import ListedFindings, Room
from .page import page_parts
from .pictures import PagePicture, embed
from .run_values import (
    IDENTIFYING,
    SCRIPTS,
    STYLES,
    Shown,
    image_facts,
    is_identifying,
    place_block,
    run_head,
    run_values,
)
from .thumbnails import MOST_PARTS, Worded, coarse_parts, read_parts

REPORT: Final = "report.html"

_SCRIPTS: Final = (*SCRIPTS, "run_embedded.js")
_MEBIBYTE: Final = 1 << 20
_OUTLINE_BYTES: Final = 32 * _MEBIBYTE  # of a page, before they are compressed to a half
_TEXT_CHARACTERS: Final = 8_000_000  # of a page
_LARGEST_PICTURE: Final = 3 * _MEBIBYTE // 2
_LONGEST_SLICE: Final = 1024
_GONE: Final = "No picture: the image is gone, has changed since the run, or cannot be rendered."


class HtmlOptions(Options):
    """Options of the report "html"."""

    findings: int = Field(
        default=100_000, ge=0, le=1_000_000, description="Most findings that the page holds, of all images together."
    )
    images: int = Field(default=200, ge=1, le=2000, description="Most images that the page shows.")
    slices: int = Field(default=24, ge=1, le=500, description="Most slices of stacks that the page shows.")
    picture_px: int = Field(
        default=2048,
        ge=64,
        le=8192,
        description="Longest side of an image's picture; above 2048 images are read again.",
    )
    thumbnails: int = Field(
        default=100,
        ge=0,
        le=MOST_PARTS,
        description="Most parts with a model's words that are read from images whose picture is coarser.",
    )
    pictures_mib: int = Field(default=12, ge=1, le=200, description="Most MiB of all pictures together.")


class HtmlReport:
    """report.html for the run: one file that shows everything offline in any browser."""

    name = "html"
    Options = HtmlOptions

    def __init__(self, options: HtmlOptions | None = None) -> None:
        self._options = options or HtmlOptions()

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write report.html into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write the page; of the findings only what it has room for is kept."""
        page = _RunPage(record, self._options)
        while (batch := (yield)) is not None:
            if batch.first == 1:
                page.start(batch)
            last = page.images[-1]
            last.totals = batch.totals
            last.listed.add(batch)
            if last.index is not None:
                last.index.add(batch)
        page.finish()
        path = folder / REPORT
        with atomic_path(path) as part, open(part, "w", encoding="utf-8", newline="\n", opener=page.opener) as file:
            file.writelines(page.parts())
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - the page names every image
        """Nothing: the page names every image."""
        return {}


@dataclass(slots=True)
class _PageImage:
    """What the page has of one image."""

    image: ImageRecord
    number: int
    """From 0."""
    shown: bool
    """Whether it is shown, and not only named."""
    totals: LabelTotals
    listed: ListedFindings
    index: FindingsIndex | None
    """Of a stack."""
    block: str = ""

    @property
    def slice_count(self) -> int:
        """How many slices of a stack have findings, at least 1; 0 of another image."""
        return 0 if self.index is None else max(1, len(set(self.index.columns[1].tolist())))


@dataclass(slots=True)
class _RunPage:
    """A run, as it becomes a page."""

    record: Record
    options: HtmlOptions
    images: list[_PageImage] = field(default_factory=list[_PageImage])
    _palette: Palette = field(init=False)
    _left: Room = field(init=False)

    def __post_init__(self) -> None:
        self._palette = Palette.of(self.record.labels, self.record.colours)
        self._left = Room(self.options.findings, _OUTLINE_BYTES, _TEXT_CHARACTERS)

    def start(self, batch: FindingsBatch) -> None:
        """Begin the image of a batch, which may use its share of the room that those before it left."""
        self.finish()
        image = batch.image
        number = len(self.images)
        most = min(len(self.record.images), self.options.images)
        shown, left = number < most, max(1, most - number)
        share = Room(
            self._left.findings // left if shown else 0,
            self._left.outline_bytes // left,
            self._left.text_characters // left,
        )
        stack = len(image.info.planes) > 1
        pixels = _LONGEST_SLICE if stack else self.options.picture_px
        coarseness = max(image.info.size) / pixels
        listed = ListedFindings(self.record, image, share, coarseness)
        index = FindingsIndex() if stack and shown else None
        self.images.append(_PageImage(image, number, shown, batch.totals, listed, index))

    def finish(self) -> None:
        """Keep of the last image what the page needs."""
        if not self.images:
            return
        last = self.images[-1]
        if last.shown and not last.block:
            last.block = last.listed.block({}, self._palette)
            used = last.listed
            self._left = Room(
                self._left.findings - used.listed,
                self._left.outline_bytes - used.outline_bytes,
                self._left.text_characters - used.text_characters,
            )
            used.forget()

    def opener(self, path: str, flags: int) -> int:
        """Open the page's file: readable by its owner only where an image is personal."""
        private = any(one.image.info.personal for one in self.images)
        return os.open(path, flags, 0o600 if private else 0o666)

    def parts(self) -> Iterator[str]:
        """The page, piece by piece."""
        record = self.record
        count, listed = sum(one.listed.count for one in self.images), sum(one.listed.listed for one in self.images)
        shown = [one for one in self.images if one.shown]
        left_out: list[str] = []
        if count > listed:
            left_out.append(
                f"This page holds {listed:,} of {count:,} findings: of each image those with the highest score, or the"
                " largest where scores are equal or there are none. All are in findings.csv and the other reports."
            )
        if len(record.images) > len(shown):
            left_out.append(
                f"The first {len(shown):,} of {len(record.images):,} images are shown; all are in the table."
            )
        totals = [(one.image, one.totals) for one in self.images]
        yield from page_parts(
            "run.html",
            run_head(record),
            STYLES,
            _SCRIPTS,
            live=False,
            left_out=left_out,
            images=self._shown(shown),
            **run_values(record, totals, self._palette, shown=len(shown)),
        )

    def _shown(self, shown: Sequence[_PageImage]) -> Iterator[Shown]:
        """Each image with its pictures, one at a time."""
        slices = fair_shares([one.slice_count for one in shown], self.options.slices)
        pictures = sum(max(1, one) for one in slices)
        most = min(_LARGEST_PICTURE, self.options.pictures_mib * _MEBIBYTE // max(1, pictures))
        coarse = [coarse_parts(one.listed.worded, one.listed.coarseness) for one in shown]
        shares = fair_shares([len(parts) for parts in coarse], self.options.thumbnails)
        for one, planes, parts, share in zip(shown, slices, coarse, shares, strict=True):
            yield self._shown_image(one, max(1, planes), most, parts[:share])

    def _shown_image(self, one: _PageImage, slices: int, most: int, parts: Sequence[Worded]) -> Shown:
        image, info = one.image, one.image.info
        planes, note = [0], ""
        if one.index is not None:
            volume = image.label_maps is not None
            planes = choose_planes(one.index, slices, volume=volume)
            on = sorted({int(plane) for plane in one.index.columns[1].tolist()})
            others = [plane for plane in on if plane not in planes]
            more = min(len(others), slices - len(planes)) if planes else 0
            planes = sorted([*planes, *(others[len(others) * at // more] for at in range(more))])
            if len(on) > len(planes):
                rule = f"{BY_EXTENT if volume else BY_SCORE}; then others, evenly spread"
                note = f"{len(planes)} of {len(on)} slices with findings are shown, by this rule: {rule}."
            elif not planes:
                planes, note = (
                    [len(info.planes) // 2],
                    "The middle slice is shown, so that the stack can be recognised.",
                )
        identifying = is_identifying(info)
        overviews = [None] * len(planes) if identifying else list(self._overviews(image, planes))
        painted: list[PagePicture] = []
        for plane, overview in zip(planes, overviews, strict=True):
            if overview is not None:
                of = f"Slice {plane + 1} of {len(info.planes)}" if len(info.planes) > 1 else "The image"
                painted.append(
                    embed(_paint(image, overview, plane, self._longest(image)), f"{of}, without findings", most)
                )
        size = (painted[0].width, painted[0].height) if painted else _blank(info)
        turned = UPRIGHT if overviews[0] is None else overviews[0].orientation
        hidden = "" if painted else IDENTIFYING if identifying else _GONE
        number = f"{one.listed.count:,} {'finding' if one.listed.count == 1 else 'findings'}"
        return Shown(
            one.number,
            image.name or info.id,
            number if self.record.assessed else "not assessed",
            image_facts(self.record, image),
            note,
            painted[0] if painted else None,
            painted[1:],
            hidden,
            place_block(image, planes, turned, size, self._start(one, planes)),
            one.block,
            () if identifying else read_parts(image, parts),
        )

    def _start(self, one: _PageImage, planes: Sequence[int]) -> int:
        """Which of the slices is shown first: that of the first finding, by score or size."""
        if one.index is None or not len(one.index):
            return 0
        plane = int(one.index.columns[1][one.index.ranked()[0]])
        return planes.index(plane) if plane in planes else 0

    def _longest(self, image: ImageRecord) -> int:
        return _LONGEST_SLICE if len(image.info.planes) > 1 else self.options.picture_px

    def _overviews(self, image: ImageRecord, planes: Sequence[int]) -> Iterator[Overview | None]:
        """The pixels of planes; the kept overview of an image of one, where that is as fine as asked for."""
        longest = self._longest(image)
        if len(image.info.planes) == 1 and (longest <= 2048 or image.slice_pictures is None):
            yield image.overview()
        elif image.slice_pictures is None:
            yield from [None] * len(planes)
        else:
            yield from image.slice_pictures(planes, longest)


def _paint(image: ImageRecord, overview: Overview, plane: int, longest: int) -> Image.Image:
    """A plane without findings: a checkerboard on nodata, hatching where it was not analysed or cannot be read."""
    canvas = Canvas.of(image, overview, shortest=1, longest=longest)
    base = draw_base(overview, canvas)
    skipped, unreadable = plane_masks(image, plane, overview.orientation, base.size)
    return hatched(hatched(base, skipped, SKIPPED), unreadable, UNREADABLE)


def _blank(info: ImageInfo) -> tuple[int, int]:
    """The size of the plain canvas of an image without a picture."""
    factor = 1024 / max(info.size)
    return max(1, round(info.size[0] * factor)), max(1, round(info.size[1] * factor))
