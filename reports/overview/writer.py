"""The overview picture of an image: its findings, and beside them a panel that explains them."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...readers import geodesy
from ...readers.geometry import crs_name
from ...readers.image import Kind
from ...readers.orientation import UPRIGHT, Orientation
from ..measures import FindingsBatch, LabelArea, LabelTotals, area_share, batches, total_area
from ..palette import Palette, rgb
from ..streams import Stream, send_all, stream_per_image, write_stream
from ..writer import DISCLAIMER, NOT_RUN, ImageRecord, Record, image_file
from .painting import NODATA, SKIPPED, UNREADABLE, Canvas, FindingsDrawing, draw_base, hatched, on_montage
from .png import save_png
from .scale_bar import ScaleBar, format_area, format_length, format_share, format_volume, north
from .text import Colour, draw_text, text_width, wrap

INK, QUIET, HAIRLINE, PAPER = (28, 31, 35), (104, 110, 118), (217, 220, 224), (255, 255, 255)
GOOD, DOUBTFUL = (24, 128, 72), (168, 96, 0)

_MARGIN, _PANEL, _FOOTER, _LINE = 36, 480, 84, 34
_USE_LINE = 26  # px: a line of what the model may be used for
_LABELS = 16  # that the legend lists
_TITLE_SIZES = (34, 28, 22, 17)  # px: the first at which a title fits two lines, else the last


@dataclass(frozen=True, slots=True)
class OverviewPng:
    """overview-<image id>.png for each image: the picture with its findings, and a panel with legend, areas and method.

    Findings are filled and outlined in their labels' colours. A grey checkerboard is nodata, red hatching unreadable,
    grey hatching skipped, which is also what lies outside the region of interest. Shares are of the analysed area.
    """

    name: str = "overview-png"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a picture per image into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write a picture per image, once all its findings are known."""
        return (yield from stream_per_image(partial(_write, record, folder)))

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a picture can be made of any image
        """Nothing: where the pixels cannot be read, the picture says so."""
        return {}


class _Panel:
    """The column of text beside the picture, written from the top down; it grows with what is written."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.y = 0
        """Where the next line goes."""
        self.page = Image.new("RGB", (width, 1000), PAPER)
        self.pen = ImageDraw.Draw(self.page)

    def _reserve(self, height: int) -> int:
        """The y of a block of `height` px, which the page is enlarged to hold."""
        top, self.y = self.y, self.y + height
        if self.y > self.page.height:
            self.page = self.page.crop((0, 0, self.width, 2 * self.y))
            self.page.paste(PAPER, (0, top, self.width, 2 * self.y))
            self.pen = ImageDraw.Draw(self.page)
        return top

    def text(self, text: str, size: int, colour: Colour = INK) -> None:
        """Text over the whole width, wrapped."""
        for line in wrap(text, size, self.width):
            top = self._reserve(round(size * 1.4))
            draw_text(self.pen, (0, top), line, colour, size)

    def title(self, text: str) -> None:
        """A title, as large as it fits two lines."""
        size = next((size for size in _TITLE_SIZES if len(wrap(text, size, self.width)) <= 2), _TITLE_SIZES[-1])
        self.text(text, size)

    def heading(self, text: str) -> None:
        """A quiet heading under a hairline."""
        top = self._reserve(36)
        self.pen.line((0, top + 22, self.width, top + 22), HAIRLINE, 2)
        self.text(text, 17, QUIET)
        self._reserve(4)

    def pill(self, text: str, colour: Colour) -> None:
        """Text in white on a rounded patch of colour."""
        self._reserve(12)
        for line in wrap(text, 19, self.width - 28):
            top = self._reserve(34)
            self.pen.rounded_rectangle((0, top, text_width(line, 19) + 28, top + 34), 17, colour)
            draw_text(self.pen, (14, top + 17), line, PAPER, 19, "lm")

    def row(self, swatch: Image.Image | None, name: str, middle: str = "", right: str = "") -> None:
        """A swatch, a name, and two right-aligned quantities; the name is wrapped in the room that they leave."""
        left = 0 if swatch is None else swatch.width + 12
        end = self.width - (100 if right else 0)
        room = end - left - (text_width(middle, 19) + 12 if middle else 0)
        first, *more = wrap(name, 21, room)
        centre = self._reserve(_LINE) + _LINE // 2
        if swatch is not None:
            self.page.paste(swatch, (0, centre - swatch.height // 2))
        draw_text(self.pen, (end, centre), middle, QUIET, 19, "rm")
        draw_text(self.pen, (self.width, centre), right, INK, 21, "rm")
        draw_text(self.pen, (left, centre), first, INK, 21, "lm")
        for line in more:
            top = self._reserve(28)
            draw_text(self.pen, (left, top + 12), line, INK, 21, "lm")

    def fact(self, name: str, value: str) -> None:
        """A name and its value: on one line where they fit, else the value wrapped below the name."""
        if text_width(name, 21) + text_width(value, 19) + 12 <= self.width:
            self.row(None, name, value)
        else:
            self.row(None, name)
            self.text(value, 19, QUIET)

    def picture(self, picture: Image.Image) -> None:
        """A picture with a hairline around it."""
        top = self._reserve(picture.height)
        self.page.paste(picture, (0, top))
        self.pen.rectangle((0, top, picture.width - 1, top + picture.height - 1), outline=HAIRLINE)


def overview_page(record: Record, image: ImageRecord) -> Image.Image:
    """An image with its findings, and a panel that explains them."""
    return send_all(_page(record, image), batches(record, [image]))


def _write(record: Record, folder: Path, image: ImageRecord) -> Stream:
    path = image_file(folder, "overview-", image.info.id, ".png")
    save_png((yield from _page(record, image)), path, record)
    return [path]


def _page(record: Record, image: ImageRecord) -> Generator[None, FindingsBatch | None, Image.Image]:
    """The page of an image whose findings are sent, then None."""
    palette, overview, totals = Palette.of(record.labels, record.colours), image.overview(), LabelTotals()
    shown = on_montage(image, overview)
    canvas = Canvas.of(shown, overview)
    with FindingsDrawing(shown, overview, canvas.size) as drawing:
        while (batch := (yield)) is not None:
            drawing.add(batch.table)
            totals = batch.totals
        base = draw_base(overview, canvas)
        picture = drawing.on(base, palette)
    panel = _panel(record, image, totals, palette, None if overview is None else base)
    turned = UPRIGHT if overview is None else overview.orientation

    width = picture.width + _PANEL + 3 * _MARGIN
    use = replace(record, images=(image,)).use.removeprefix(DISCLAIMER).strip()
    lines = [DISCLAIMER, *(wrap(use, 20, width - 2 * _MARGIN) if use else [])]
    height = max(picture.height + _FOOTER, panel.y) + 3 * _MARGIN - 6 + _USE_LINE * len(lines)
    page = Image.new("RGB", (width, height), PAPER)
    page.paste(picture, (_MARGIN, _MARGIN))
    page.paste(panel.page.crop((0, 0, _PANEL, panel.y)), (picture.width + 2 * _MARGIN, _MARGIN))
    pen = ImageDraw.Draw(page)
    _footer(pen, image, canvas, (_MARGIN, _MARGIN + picture.height), turned)
    first = height - _MARGIN - (len(lines) - 1) * _USE_LINE
    for number, line in enumerate(lines):
        draw_text(pen, (_MARGIN, first + number * _USE_LINE), line, INK, 20, "ls")
    draw_text(pen, (width - _MARGIN, first), f"limner {record.version}", QUIET, 18, "rs")
    return page


def _panel(
    record: Record, image: ImageRecord, totals: LabelTotals, palette: Palette, base: Image.Image | None
) -> _Panel:
    panel, kind = _Panel(_PANEL), image.info.kind
    panel.title(" - ".join(dict.fromkeys(filter(None, (image.name, image.info.id)))))
    panel.text(" ".join(filter(None, (record.model.get("name"), record.model.get("version")))), 20, QUIET)
    panel.pill(*_status(record, image))
    for warning in image.warnings:
        panel.text(warning, 19, DOUBTFUL)
    if record.assessed:
        found = totals.findings
        count = f"{found:,} {'finding' if found == 1 else 'findings'}" if found else "No findings"
        panel.heading(f"{count}, share of the analysed area")
    areas = totals.areas(record, image)
    for of in areas[:_LABELS]:
        size = _label_size(of, kind) if of.findings else "none"
        share = format_share(of.share) if of.findings else ""
        panel.row(_swatch(rgb(palette[of.label])), of.label or "(no label)", size, share)
    if len(areas) > _LABELS:
        panel.row(None, f"and {len(areas) - _LABELS} more labels: see areas.csv")

    panel.heading("Area of the image")
    whole = total_area(image.areas)
    for status in ("analysed", "no data", "skipped", "unreadable"):
        here = [area for area in image.areas if area.status == status and area.pixels > 0]
        if here:
            part = total_area(here)
            reasons = ", ".join(dict.fromkeys(area.reason for area in here if area.reason))
            name = f"{status}: {reasons}" if reasons and status != "analysed" else status
            panel.row(
                _status_swatch(status) if record.assessed else None,
                name,
                format_area(part[1], part[0], kind),
                format_share(area_share(part, whole)),
            )

    panel.heading("Analysis" if record.assessed else "Image")
    for name, value in _properties(record, image):
        panel.fact(name, value)

    if base is None:
        panel.heading("The pixels cannot be read")
    elif record.assessed:
        panel.heading("Without findings")
        small = base.copy()
        small.thumbnail((_PANEL, _PANEL), Image.Resampling.BOX)
        panel.picture(small)
    return panel


def _status(record: Record, image: ImageRecord) -> tuple[str, Colour]:
    if not record.assessed:
        return "Not analysed: no model was chosen", QUIET
    status = record.status_of([image])
    if status == "partial":
        failed = len(image.failures)
        left = sum(area.regions for area in image.areas if area.reason == NOT_RUN)
        counts = [(failed, "failed"), (left, NOT_RUN)]
        parts = [f"{count} {'region' if count == 1 else 'regions'} {what}" for count, what in counts if count]
        return f"Partial: {', '.join(parts) or 'some of it could not be read'}", UNREADABLE
    return ("Doubtful: read the warning", DOUBTFUL) if status == "doubtful" else ("Complete", GOOD)


def _properties(record: Record, image: ImageRecord) -> list[tuple[str, str]]:
    """The image's size and CRS and how it was analysed, as names and values."""
    columns, lines = image.info.size
    rows = [("Size", f"{columns:,} × {lines:,} px")]
    metres = geodesy.metres_per_pixel(image.info.placement, (columns / 2, lines / 2))
    if metres is not None:
        rows.append(("Pixel size", _format_size(*metres)))
    if metres is not None and record.assessed:
        rows.append(
            ("Pixel size in the analysis", _format_size(metres[0] * image.scale[0], metres[1] * image.scale[1]))
        )
    if image.info.placement.crs:
        rows.append(("CRS", crs_name(image.info.placement.crs)))
    if record.assessed and (note := record.model.get("tiling")):
        rows.append(("Tiling", note))
    of_model = ("Regions", "Tiles", "Bands")
    return rows + [(name, value) for name, value in image.analysis.items() if record.assessed or name not in of_model]


def _label_size(of: LabelArea, kind: Kind) -> str:
    return format_area(of.m2, of.pixels, kind) if math.isnan(of.ml) else format_volume(of.ml)


def _format_size(x: float, y: float) -> str:
    first, second = format_length(x), format_length(y)
    return first if first == second else f"{first} × {second}"


def _footer(
    pen: ImageDraw.ImageDraw, image: ImageRecord, canvas: Canvas, corner: tuple[int, int], turned: Orientation
) -> None:
    """Scale bar and north arrow under the picture, whose lower left corner is `corner`."""
    left, top = corner
    placement, size = image.info.placement, image.info.size
    bar = ScaleBar.of(placement, size, canvas.scale[0], canvas.size[0], turned)
    base = top + 56
    if bar is None:
        draw_text(pen, (left, top + 40), "No scale: the image does not state its pixel size", QUIET, 20, "ls")
    else:
        right = left + bar.pixels
        pen.line((left, base - 10, left, base, right, base, right, base - 10), INK, 3)
        draw_text(pen, ((left + right) / 2, base - 10), format_length(bar.metres, image.info.kind), INK, 22, "ms")
    turn = north(placement, size, turned)
    if turn is not None:
        _arrow(pen, (left + canvas.size[0] - 34, top + 40), turn)


def _arrow(pen: ImageDraw.ImageDraw, middle: tuple[float, float], turn: float) -> None:
    """A compass needle `turn` degrees clockwise from up, with its N."""
    angle = math.radians(turn)
    ahead = np.array([math.sin(angle), -math.cos(angle)])
    aside = np.array([math.cos(angle), math.sin(angle)])
    tip, tail = middle + 24 * ahead, middle - 14 * ahead
    for side, filled in ((-1, True), (1, False)):
        wing = middle - 22 * ahead + side * 13 * aside
        path = [(float(x), float(y)) for x, y in (tip, wing, tail)]
        pen.polygon(path, fill=INK if filled else PAPER, outline=INK, width=2)
    x, y = middle - 44 * aside
    draw_text(pen, (float(x), float(y)), "N", INK, 24, "mm")


def _swatch(colour: Colour) -> Image.Image:
    """A label's fill and outline."""
    swatch = Image.new("RGB", (30, 22), PAPER)
    ImageDraw.Draw(swatch).rectangle((0, 0, 29, 21), colour, tuple(value * 3 // 4 for value in colour), 2)
    return swatch


def _status_swatch(status: str) -> Image.Image:
    """How the picture marks a part of the image: not at all where it was analysed."""
    swatch = Image.new("RGB", (30, 22), PAPER)
    if status == "no data":
        y, x = np.indices((22, 30)) // 8
        swatch = Image.fromarray(np.array(NODATA, dtype=np.uint8)[(x + y) % 2])
    elif status != "analysed":
        colour = SKIPPED if status == "skipped" else UNREADABLE
        swatch = hatched(swatch, np.ones((22, 30), dtype=np.bool_), colour, pitch=8)
    ImageDraw.Draw(swatch).rectangle((0, 0, 29, 21), outline=HAIRLINE)
    return swatch
