"""Key images: which slices of a stack are shown, and their pictures with the findings outlined and numbered.

┌──────────────────────────────┐
│ 12/40          A      40/400 │   Nothing covers the slice: slice number, window, sides of the patient, scale bar
│ ┌──────────────────────────┐ │   and the note on use stand in the margin, outlines and numbers beside what they
│R│       ▛▀▜ 3              │L│   belong to. A line is drawn in its label's colour on a wider black one, so that it
│ │       ▙▄▟                │ │   shows on any grey.
│ └──────────────────────────┘ │
│ |--| 50 mm     P             │
└──────────────────────────────┘
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw

from ...model.finding import Finding
from ..measures import FindingsBatch
from ..overview.painting import SKIPPED, UNREADABLE, Canvas, draw_base, enlarged, hatched, unanalysed_masks
from ..overview.scale_bar import ScaleBar, format_length
from ..overview.text import Colour, draw_text, text_width, wrap
from ..palette import Palette, rgb
from ..patient_geometry import Edges
from ..writer import DISCLAIMER, ImageRecord, Overview

LONGEST: Final = 1024
"""Pixels on the long side of a slice that is shown: a larger one is reduced."""
SHORTEST: Final = 512
"""A slice whose long side is shorter is enlarged by a whole factor."""
MOST_OUTLINES: Final = 300
"""Findings that are outlined on one slice."""
MOST_NUMBERS: Final = 40
"""Findings that are numbered on one slice."""

_INK, _PAPER = (235, 237, 240), (16, 18, 20)
_LINE, _CASING = 2, 5  # px: widths of a line and of the black one below it, on a picture of 512 px as all below
_SIZE, _MARGIN = 15, 26  # px: of letters, and of the margin around a slice
_RINGS = 4  # distances from an outline at which a number may stand
_NUMBER, _USE = 14, 13  # px: of the numbers of findings, and of the note on use


@dataclass(slots=True)
class FindingsIndex:
    """What the choice of slices and rows needs of all findings of an image: 36 bytes each."""

    _labels: dict[str, int] = field(default_factory=dict[str, int])
    _rows: list[npt.NDArray[np.float64]] = field(default_factory=list[npt.NDArray[np.float64]])
    _uids: bytearray = field(default_factory=bytearray)

    def add(self, batch: FindingsBatch) -> None:
        """Add the next findings of the image."""
        codes = [self._labels.setdefault(label, len(self._labels)) for label in batch.table.label]
        score = np.where(np.isnan(batch.table.score), -1.0, batch.table.score)
        plane = batch.table.plane.astype(np.float64)
        self._rows.append(np.stack([np.array(codes, np.float64), plane, score, batch.area_px]))
        for uid in batch.uids:
            self._uids += int(uid.rpartition(".")[2]).to_bytes(16, "big")

    def __len__(self) -> int:
        return len(self._uids) // 16

    @property
    def labels(self) -> list[str]:
        """The labels that were found, in the order in which they were."""
        return list(self._labels)

    @property
    def columns(self) -> npt.NDArray[np.float64]:
        """(4, N): the place of its label in `labels`, plane, score (-1 for none) and area in level-0 pixels."""
        return np.concatenate([np.empty((4, 0)), *self._rows], axis=1)

    def uids(self, rows: Sequence[int]) -> list[str]:
        """The `finding_uid` of some findings."""
        return [f"2.25.{int.from_bytes(self._uids[16 * row : 16 * row + 16], 'big')}" for row in rows]

    def ranked(self) -> npt.NDArray[np.intp]:
        """All findings, the one with the highest score first, the largest of those with one score or none."""
        _, _, score, area = self.columns
        return np.lexsort((np.arange(len(score)), -area, -score))


BY_SCORE: Final = (
    "for each label in turn the slice of its finding with the highest score, or the largest where scores are equal or"
    " there are none, that is not shown yet"
)
BY_EXTENT: Final = (
    "for each label in turn, the largest first, the slice on which its outlines have the largest area, then those at a"
    " quarter and three quarters of the slices that it is on"
)


def choose_planes(index: FindingsIndex, most: int, *, volume: bool) -> list[int]:
    """At most so many of the planes with findings, in order: chosen `BY_EXTENT` in a volume, else `BY_SCORE`."""
    codes, planes, _, areas = index.columns
    candidates: dict[int, list[int]] = {}
    if volume:
        extent = np.bincount(codes.astype(np.intp), weights=areas) if len(codes) else np.empty(0)
        for code in np.argsort(-extent, kind="stable").tolist():
            here = codes == code
            area = np.bincount(planes[here].astype(np.intp), weights=areas[here])
            on = np.flatnonzero(area)
            candidates[code] = (
                [int(area.argmax()), *(int(on[(len(on) - 1) * part // 4]) for part in (1, 3))] if on.size else []
            )
    else:
        for row in index.ranked().tolist():
            candidates.setdefault(int(codes[row]), []).append(int(planes[row]))
    chosen: dict[int, None] = {}
    left = [iter(dict.fromkeys(one)) for one in candidates.values()]
    while left and len(chosen) < most:
        for turn in list(left):
            plane = next((plane for plane in turn if plane not in chosen), None)
            if plane is None:
                left.remove(turn)
            elif len(chosen) < most:
                chosen[plane] = None
    return sorted(chosen)


def fair_shares(counts: Sequence[int], most: int) -> list[int]:
    """Divide at most `most` among some that have `counts` to show: equal shares, and the rest to those with more.

    >>> fair_shares([1, 50, 9], 20)
    [1, 10, 9]
    """
    shares = [0] * len(counts)
    left = most
    order = sorted(range(len(counts)), key=lambda at: counts[at])
    for done, at in enumerate(order):
        shares[at] = min(counts[at], -(-left // (len(order) - done)))
        left -= shares[at]
    return shares


@dataclass(frozen=True, slots=True)
class KeyImage:
    """What a key image shows beside its slice."""

    plane: int
    title: str
    """Which slice it is, such as "12/40"."""
    window: str
    """In short."""
    edges: Edges | None


def draw_key_image(
    image: ImageRecord,
    picture: Overview | None,
    findings: Sequence[tuple[int, Finding]],
    palette: Palette,
    about: KeyImage,
) -> Image.Image:
    """One slice with its margin. `findings` are those to outline, the most important first, with their numbers."""
    canvas = Canvas.of(image, picture, shortest=SHORTEST, longest=LONGEST)
    base = draw_base(picture, canvas)
    here = tuple(region for region in image.unanalysed if region.plane == about.plane)
    skipped, unreadable = unanalysed_masks(replace(image, unanalysed=here), base.size)
    base = hatched(hatched(base, skipped, SKIPPED), unreadable, UNREADABLE)
    outlined = findings[:MOST_OUTLINES]
    for width in (_CASING, _LINE):
        for _, finding in reversed(outlined):
            colour = rgb(palette[finding.label]) if width == _LINE else (0, 0, 0)
            _outline(base, finding, canvas.scale, colour, _px(base, width))
    _draw_numbers(base, outlined[:MOST_NUMBERS], canvas.scale, palette)
    return _with_margin(image, base, canvas, about)


def _px(base: Image.Image, length: int) -> int:
    """A length on a picture of 512 px, on this one: pages show all at about one size."""
    return max(length, round(length * max(base.size) / SHORTEST))


def _rings(finding: Finding, scale: tuple[float, float]) -> list[npt.NDArray[np.float64]]:
    """The outlines of a finding in shown px; a square for a part that would be too small to see."""
    parts = shapely.get_parts(shapely.transform(finding.geometry, lambda xy: xy * scale))
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(enlarged(parts))]


def _outline(base: Image.Image, finding: Finding, scale: tuple[float, float], colour: Colour, width: int) -> None:
    """Draw the outlines of a finding, those along the border of the slice inside it."""
    pen, inset = ImageDraw.Draw(base), width / 2
    high = np.array(base.size) - 1 - inset
    for ring in _rings(finding, scale):
        path = np.clip(ring - 0.5, inset, high).ravel().tolist()  # Pillow counts from the centres of pixels
        pen.line([*path, *path[2:4]], colour, width, joint="curve")


def _draw_numbers(
    base: Image.Image, findings: Sequence[tuple[int, Finding]], scale: tuple[float, float], palette: Palette
) -> None:
    """Write the number of each finding beside its outline, where it covers no number that is there already."""
    pen, size, gap = ImageDraw.Draw(base), _px(base, _NUMBER), _px(base, _CASING)
    taken: list[tuple[float, float, float, float]] = []
    for number, finding in findings:
        path = np.concatenate([np.empty((0, 2)), *_rings(finding, scale)])
        if not len(path):
            continue
        wide, high = text_width(str(number), size) + size / 2, size * 1.4
        corners: list[tuple[float, float]] = []
        (left, top), (right, bottom) = path.min(axis=0), path.max(axis=0)
        x_top, x_bottom = (path[path[:, 1] == y, 0].mean() - wide / 2 for y in (top, bottom))
        y_left, y_right = (path[path[:, 0] == x, 1].mean() - high / 2 for x in (left, right))
        for away in range(_RINGS):
            up, aside = gap + away * high, gap + away * wide
            corners += [(x_top, top - up - high), (right + aside, y_right)]
            corners += [(left - aside - wide, y_left), (x_bottom, bottom + up)]
        inside = [
            (min(max(0.0, x), base.width - 1 - wide), min(max(0.0, y), base.height - 1 - high)) for x, y in corners
        ]
        boxes = [(x, y, x + wide, y + high) for x, y in inside]
        box = next((one for one in boxes if not any(_overlap(one, other) for other in taken)), boxes[0])
        taken.append(box)
        pen.rectangle(box, (0, 0, 0), rgb(palette[finding.label]))
        draw_text(pen, (box[0] + wide / 2, box[1] + high / 2), str(number), (255, 255, 255), size, "mm")


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_margin(image: ImageRecord, base: Image.Image, canvas: Canvas, about: KeyImage) -> Image.Image:
    """The slice in a black frame with its number, window, sides, scale and use."""
    margin, size, small = (_px(base, length) for length in (_MARGIN, _SIZE, _USE))
    use, line = wrap(DISCLAIMER, small, base.width), round(small * 1.3)
    page = Image.new("RGB", (base.width + 2 * margin, base.height + 2 * margin + line * len(use) + line // 2), _PAPER)
    page.paste(base, (margin, margin))
    pen = ImageDraw.Draw(page)
    right, bottom, half = margin + base.width, margin + base.height, margin / 2
    draw_text(pen, (margin, half), about.title, _INK, size, "lm")
    draw_text(pen, (right, half), about.window, _INK, size, "rm")
    if about.edges is not None:
        across, down = margin + base.width / 2, margin + base.height / 2
        for letters, x, y in (
            (about.edges.left, half, down),
            (about.edges.right, right + half, down),
            (about.edges.top, across, half),
            (about.edges.bottom, across, bottom + half),
        ):
            draw_text(pen, (x, y), letters, _INK, size if len(letters) == 1 else small * 4 // 5, "mm")
    bar = ScaleBar.of(image.info.planes[about.plane].placement, image.info.size, canvas.scale[0], canvas.size[0])
    if bar is None:
        draw_text(pen, (margin, bottom + half), "no scale", _INK, size, "lm")
    else:
        end, low, high = margin + bar.pixels, bottom + margin * 0.7, bottom + margin * 0.35
        pen.line((margin, high, margin, low, end, low, end, high), _INK, _px(base, _LINE))
        draw_text(pen, (end + half, bottom + half), format_length(bar.metres, image.info.kind), _INK, size, "lm")
    for number, text in enumerate(use, 1):
        draw_text(pen, (margin, bottom + margin + number * line), text, _INK, small, "ls")
    return page
