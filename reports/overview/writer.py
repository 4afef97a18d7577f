"""One picture an image, on which a person sees in two seconds whether it worked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from ...model.finding import Finding
from ...readers import geodesy
from ...readers.files import atomic_path
from ..measures import area_share, crs_name, label_areas, total_area
from ..palette import Palette, rgb
from ..writer import DISCLAIMER, ImageRecord, Record, image_file, write_per_image
from .montage import on_montage
from .painting import NOTHING, SKIPPED, UNREADABLE, Canvas, draw_base, draw_findings, hatch
from .scale_bar import ScaleBar, area_words, length_words, north, share_words
from .text import Colour, text_width, to_font_characters, wrap, write

INK, QUIET, HAIRLINE, PAPER = (28, 31, 35), (104, 110, 118), (217, 220, 224), (255, 255, 255)
ANALYSED, GOOD = (60, 64, 70), (24, 128, 72)

_MARGIN, _PANEL, _FOOTER, _LINE = 36, 480, 84, 34
_SAID = 26  # px: a line of what the model says of its use
_LABELS = 16  # of which the legend has room
_WORDS = 8  # lines of how the image was seen


@dataclass(frozen=True, slots=True)
class OverviewPng:
    """overview-<image id>.png for each image: the picture with its findings, and beside it what it all means.

    Findings are filled and outlined in their labels' colours. No data is a grey checker; red hatches are what could not
    be read, grey hatches what was skipped; what lies outside the area of interest is pale. Shares are of the analysed
    area.
    """

    name: str = "overview-png"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a picture an image into `folder`."""
        facts = PngImagePlugin.PngInfo()
        facts.add_text("Software", f"limner {record.version}")
        facts.add_text("Comment", to_font_characters(record.use))

        def write_one(image: ImageRecord) -> Path:
            path = image_file(folder, "overview-", image.info.id, ".png")
            with atomic_path(path) as part:
                overview_page(record, image).save(part, "PNG", pnginfo=facts, compress_level=6)
            return path

        return write_per_image(record.images, write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a picture can be made of any image
        """Nothing: of a picture that cannot be read, the sheet says so."""
        return {}


class _Panel:
    """The column of words beside the picture, written from the top down; `y` is where the next line goes."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.y = 0
        self.sheet = Image.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.sheet)

    def text(self, words: str, size: int, colour: Colour = INK, *, lines: int = 1) -> None:
        """Words over the whole width, broken into at most `lines` lines."""
        for line in wrap(words, size, self.width, lines):
            write(self.pen, (0, self.y), line, colour, size)
            self.y += round(size * 1.4)

    def heading(self, words: str) -> None:
        """A quiet heading under a hairline."""
        self.y += 22
        self.pen.line((0, self.y, self.width, self.y), HAIRLINE, 2)
        self.y += 14
        self.text(words, 17, QUIET)
        self.y += 4

    def pill(self, words: str, colour: Colour) -> None:
        """Words in white on a colour."""
        self.y += 12
        line = wrap(words, 19, self.width - 28)[0]
        wide = text_width(line, 19) + 28
        self.pen.rounded_rectangle((0, self.y, wide, self.y + 34), 17, colour)
        write(self.pen, (14, self.y + 17), line, PAPER, 19, "lm")
        self.y += 34

    def row(self, swatch: Image.Image | None, name: str, middle: str = "", right: str = "") -> None:
        """A swatch, a name, and two quantities set to the right."""
        centre = self.y + _LINE // 2
        left = 0
        if swatch is not None:
            self.sheet.paste(swatch, (0, centre - swatch.height // 2))
            left = swatch.width + 12
        room = self.width - left
        if right:
            write(self.pen, (self.width, centre), right, INK, 21, "rm")
            room -= 100
        if middle:
            middle = wrap(middle, 19, room * 2 / 3)[0]
            write(self.pen, (left + room, centre), middle, QUIET, 19, "rm")
            room -= text_width(middle, 19) + 12
        write(self.pen, (left, centre), wrap(name, 21, room)[0], INK, 21, "lm")
        self.y += _LINE

    def picture(self, picture: Image.Image) -> None:
        """A picture over the width, with a hairline around it."""
        self.sheet.paste(picture, (0, self.y))
        self.pen.rectangle((0, self.y, picture.width - 1, self.y + picture.height - 1), outline=HAIRLINE)
        self.y += picture.height


def overview_page(record: Record, image: ImageRecord) -> Image.Image:
    """An image with its findings, and beside it what they mean."""
    palette = Palette.of(record.labels, record.colours)
    overview, findings = image.overview(), image.findings()
    shown_image = on_montage(image, overview, findings)
    canvas = Canvas.of(shown_image, overview)
    plate = draw_base(overview, canvas)
    panel = _panel(record, image, findings, palette, None if overview is None else plate)
    shown = draw_findings(plate, shown_image, shown_image.findings(), palette)

    high = max(shown.height + _FOOTER, panel.y)
    wide = shown.width + _PANEL + 3 * _MARGIN
    said = record.model.get("use", "")
    further = wrap(said, 20, wide - 2 * _MARGIN, 4) if said else []
    sheet = Image.new("RGB", (wide, high + 3 * _MARGIN + 20 + _SAID * len(further)), PAPER)
    sheet.paste(shown, (_MARGIN, _MARGIN))
    sheet.paste(panel.sheet.crop((0, 0, _PANEL, panel.y)), (shown.width + 2 * _MARGIN, _MARGIN))
    pen = ImageDraw.Draw(sheet)
    _footer(pen, image, canvas, (_MARGIN, _MARGIN + shown.height))
    y = sheet.height - _MARGIN
    for line in reversed(further):
        write(pen, (_MARGIN, y), line, INK, 20, "ls")
        y -= _SAID
    write(pen, (_MARGIN, y), DISCLAIMER, INK, 20, "ls")
    write(pen, (sheet.width - _MARGIN, y), f"limner {record.version}", QUIET, 18, "rs")
    return sheet


def _panel(
    record: Record, image: ImageRecord, findings: Sequence[Finding], palette: Palette, plate: Image.Image | None
) -> _Panel:
    panel = _Panel(_PANEL, 4000)
    panel.text(" · ".join(dict.fromkeys(filter(None, (image.name, image.info.id)))), 34, lines=2)
    panel.text(" ".join(filter(None, (record.model.get("name"), record.model.get("version")))), 20, QUIET)
    if not record.assessed:
        panel.pill("Nothing was looked for: no model", QUIET)
    elif image.complete:
        panel.pill("Complete", GOOD)
    else:
        lost = len(image.failures)
        panel.pill(f"Partial: {lost} {'region' if lost == 1 else 'regions'} failed", UNREADABLE)

    if record.assessed:
        counted = f"{len(findings):,} {'finding' if len(findings) == 1 else 'findings'}" if findings else "No findings"
        panel.heading(f"{counted}, share of the analysed area")
    areas = label_areas(record, image, findings)
    for of in areas[:_LABELS]:
        words = (area_words(of.m2, of.pixels, image.info.kind), share_words(of.share)) if of.findings else ("none", "")
        panel.row(_swatch(rgb(palette[of.label])), of.label or "(no label)", *words)
    if len(areas) > _LABELS:
        panel.row(None, f"and {len(areas) - _LABELS} more labels: see areas.csv")

    panel.heading("The image's area")
    whole = total_area(image.areas)
    for status in ("analysed", "no data", "skipped", "unreadable"):
        here = [area for area in image.areas if area.status == status and area.pixels > 0]
        if here:
            part = total_area(here)
            name = status if status == "analysed" else f"{status}: {', '.join(dict.fromkeys(a.reason for a in here))}"
            size = area_words(part[1], part[0], image.info.kind)
            panel.row(_mark(status), name.rstrip(": "), size, share_words(area_share(part, whole)))

    panel.heading("Seen as")
    for name, value in _seen(image):
        panel.row(None, name, value)

    if plate is None:
        panel.heading("The picture cannot be read")
        return panel
    panel.heading("Without findings" if record.assessed else "Without marks")
    small = plate.copy()
    small.thumbnail((_PANEL, _PANEL), Image.Resampling.BOX)
    panel.picture(small)
    return panel


def _seen(image: ImageRecord) -> list[tuple[str, str]]:
    """How the image was looked at, as names and values."""
    columns, lines = image.info.size
    rows = [("Size", f"{columns:,} × {lines:,} px")]
    ground = geodesy.metres_per_pixel(image.info.placement, (columns / 2, lines / 2))
    if ground is not None:
        rows.append(("Pixel on the ground" if image.info.kind == "map" else "Pixel", _pair(*ground)))
        rows.append(("Pixel as the model saw it", _pair(ground[0] * image.scale[0], ground[1] * image.scale[1])))
    if image.info.placement.crs:
        rows.append(("Coordinates", crs_name(image.info.placement.crs)))
    rows += image.analysis.items()
    return rows[:_WORDS]


def _pair(x: float, y: float) -> str:
    first, second = length_words(x), length_words(y)
    return first if first == second else f"{first} × {second}"


def _footer(pen: ImageDraw.ImageDraw, image: ImageRecord, canvas: Canvas, corner: tuple[int, int]) -> None:
    """Scale bar and north arrow under the picture, whose lower left corner is `corner`."""
    left, top = corner
    placement, size = image.info.placement, image.info.size
    bar = ScaleBar.of(placement, size, canvas.scale[0], canvas.size[0])
    base = top + 56
    if bar is None:
        write(pen, (left, top + 40), "No scale: the image does not say how large its pixels are", QUIET, 20, "ls")
    else:
        right = left + bar.pixels
        pen.line((left, base - 10, left, base, right, base, right, base - 10), INK, 3)
        write(pen, ((left + right) / 2, base - 10), length_words(bar.metres), INK, 22, "ms")
    turn = north(placement, size)
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
        way = [(float(x), float(y)) for x, y in (tip, wing, tail)]
        pen.polygon(way, fill=INK if filled else PAPER, outline=INK, width=2)
    x, y = middle - 44 * aside
    write(pen, (float(x), float(y)), "N", INK, 24, "mm")


def _swatch(colour: Colour) -> Image.Image:
    """A label's fill and outline on a mid grey, as they look on a picture."""
    swatch = Image.new("RGB", (30, 22), PAPER)
    pen = ImageDraw.Draw(swatch)
    pen.rectangle((0, 0, 29, 21), colour, tuple(value * 3 // 4 for value in colour), 2)
    return swatch


def _mark(status: Literal["analysed", "no data", "skipped", "unreadable"]) -> Image.Image:
    """The mark of a part of the image, as in the picture."""
    high, wide = 22, 30
    pixels = np.full((high, wide, 3), 255, dtype=np.uint8)
    if status == "analysed":
        pixels[:] = ANALYSED
    elif status == "no data":
        y, x = np.indices((high, wide)) // 8
        pixels[:] = np.array(NOTHING)[(x + y) % 2]
    else:
        pixels[hatch((wide, high), 8, 3)] = SKIPPED if status == "skipped" else UNREADABLE
    pixels[[0, -1]] = pixels[:, [0, -1]] = HAIRLINE
    return Image.fromarray(pixels)
