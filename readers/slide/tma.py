"""Cores of a tissue microarray: found on the tissue mask of a slide's overview, and named by their place in a grid.

Method: components of the mask that are as large as most are cores. Vectors between neighbouring cores give the two
directions and steps of the grid; cores are numbered from neighbour to neighbour, and an affine grid is fitted to them
by least squares. Every place of the grid within the outermost rows and columns is a core, missing where it holds less
than a tenth of the tissue that a core has. There is no chance in it: the same mask gives the same grid.
"""
# scipy has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

import json
import math
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..image import ImageInfo, Mask

FACT: Final = "tma"
"""The entry of `ImageInfo.facts` for the cores of a slide."""

_LEAST_CORES: Final = 4
_MAX_CORES: Final = 5000
_SPECK: Final = 0.02  # of a core's area: smaller components do not count
_MISSING: Final = 0.1  # of a core's area: with less tissue it is missing
_SIZES: Final = (0.3, 2.2)  # of the usual area: components of such sizes are cores
_NEAR: Final = (0.6, 1.5)  # of the distance to the nearest core: such cores are neighbours in a row or column
_OFF: Final = 0.35  # of a step: farther from its place no core lies
_LEAST_SHARE: Final = 0.8  # of the cores that must lie on the grid

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Core:
    """One place of the grid."""

    name: str
    """Row and column: "A-1" is the first of the top row."""
    row: int
    """From 1, the top."""
    column: int
    """From 1, the left."""
    x: float
    y: float
    """Its middle in level-0 pixels: that of its tissue, of a missing core that of its place."""
    tissue_px: float
    """Area of its tissue in level-0 pixels, by the overview."""
    pieces: int
    """Components of its tissue."""
    missing: bool


@dataclass(frozen=True, slots=True)
class CoreGrid:
    """The cores of a slide."""

    rows: int
    columns: int
    corner: tuple[float, float]
    """The middle of the place A-1 in level-0 pixels."""
    across: tuple[float, float]
    """The step from a column to the next."""
    down: tuple[float, float]
    """The step from a row to the next."""
    diameter: float
    """Of a usual core, in level-0 pixels."""
    outside: int
    """Components of tissue that belong to no core."""
    cores: tuple[Core, ...]
    """Row by row from the top left."""

    @property
    def radius(self) -> float:
        """In level-0 pixels, of the circle that shows a core: a little larger than a usual one."""
        return 0.55 * self.diameter

    @property
    def degrees(self) -> float:
        """By how much the rows are turned clockwise."""
        return math.degrees(math.atan2(self.across[1], self.across[0]))

    def places(self, xy: Points) -> npt.NDArray[np.intp]:
        """The number in `cores` of the place that points (N, 2) lie in, -1 outside the grid."""
        basis = np.array([self.across, self.down]).T
        at = np.rint(np.linalg.solve(basis, (xy - self.corner).T).T).astype(np.intp)
        inside = ((at >= 0) & (at < (self.columns, self.rows))).all(axis=1)
        return np.where(inside, at[:, 1] * self.columns + at[:, 0], -1)

    def cell(self, core: Core) -> Points:
        """The corners (4, 2) of the place of a core; the cells of a grid share their borders."""
        across, down = np.array(self.across), np.array(self.down)
        middle = np.array(self.corner) + (core.column - 1) * across + (core.row - 1) * down
        return np.array(
            [middle + a * across + b * down for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))]
        )

    def text(self) -> str:
        """The grid in words."""
        missing = sum(core.missing for core in self.cores)
        size = (
            f"{len(self.cores) - missing} cores of a tissue microarray of {self.rows} rows and {self.columns} columns"
        )
        return f"{size}, turned by {self.degrees:.1f}°, {missing} missing, {self.outside} pieces of tissue between them"

    def to_text(self) -> str:
        """The grid as JSON, for a fact."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, info: ImageInfo) -> "Self | None":
        """The grid among the facts of an image; None without one."""
        text = dict(info.facts).get(FACT)
        if text is None:
            return None
        found: dict[str, Any] = json.loads(text)
        cores = tuple(Core(**one) for one in found.pop("cores"))
        pairs = {name: tuple(found.pop(name)) for name in ("corner", "across", "down")}
        return cls(cores=cores, **pairs, **found)


def core_name(row: int, column: int) -> str:
    """The name of a place, both from 0: rows are A to Z, AA to AZ and so on.

    >>> core_name(0, 0), core_name(25, 11), core_name(26, 0)
    ('A-1', 'Z-12', 'AA-1')
    """
    letters, number = "", row + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return f"{letters}-{column + 1}"


def find_cores(mask: Mask, scale: tuple[float, float], subject: str) -> CoreGrid:
    """The cores on a tissue mask (H, W) of an overview with `scale` level-0 pixels (x, y) per pixel.

    Raises `ReadError` where they are not in a grid of at least two rows and columns.
    """
    centres, areas = _components(mask, scale)
    whole = _usual_area(areas)
    is_core = (areas > _SIZES[0] * whole) & (areas < _SIZES[1] * whole)
    if not _LEAST_CORES <= np.count_nonzero(is_core) <= _MAX_CORES:
        raise _no_grid(subject, f"{np.count_nonzero(is_core)} areas of tissue of about one size")
    good = centres[is_core]
    across, down = _steps(good, subject)
    places = _numbered(good, across, down)
    on_grid = places[:, 0] > np.iinfo(np.intp).min
    corner = good[0]
    for _ in range(3):  # fit, leave out what lies off, number the rest by the fit
        corner, across, down = _fit(good[on_grid], places[on_grid])
        at = np.linalg.solve(np.array([across, down]).T, (good - corner).T).T
        places = np.rint(at).astype(np.intp)
        on_grid = (np.abs(at - places) < _OFF).all(axis=1)
        if np.count_nonzero(on_grid) < max(_LEAST_CORES, _LEAST_SHARE * len(good)):
            raise _no_grid(subject, f"{np.count_nonzero(on_grid)} of {len(good)} areas of tissue on a grid")
    taken = places[on_grid]
    if len(np.unique(taken, axis=0)) < _LEAST_SHARE * len(taken):
        raise _no_grid(subject, "several areas of tissue in one place of the grid")
    first, last = taken.min(axis=0), taken.max(axis=0)
    columns, rows = (last - first + 1).tolist()
    if min(rows, columns) < 2 or rows * columns > _MAX_CORES:
        raise _no_grid(subject, f"{rows} rows and {columns} columns")
    corner = corner + first[0] * across + first[1] * down
    diameter = 2 * math.sqrt(whole / math.pi)
    return _filled(centres, areas, whole, (rows, columns), (corner, across, down), diameter)


def _no_grid(subject: str, found: str) -> ReadError:
    rule = "must show the cores of a tissue microarray in rows and columns, for --tma"
    remedy = "Leave out --tma, or outline the cores in QuPath and give them with --area"
    return ReadError(subject, rule, value=found, remedy=remedy)


def _components(mask: Mask, scale: tuple[float, float]) -> tuple[Points, Points]:
    """Middles (N, 2) in level-0 pixels and areas (N,) in square level-0 pixels of connected tissue."""
    from scipy import ndimage

    closed = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3]
    labelled: Any = ndimage.label(closed, structure=np.ones((3, 3)))
    labels, count = labelled
    if not count:
        return np.empty((0, 2)), np.empty(0)
    numbers = np.arange(1, count + 1)
    areas: Points = np.asarray(ndimage.sum_labels(mask, labels, numbers), dtype=np.float64) * scale[0] * scale[1]
    middles = np.asarray(ndimage.center_of_mass(closed, labels, numbers)).reshape(-1, 2)
    return (middles[:, ::-1] + 0.5) * scale, areas


def _usual_area(areas: npt.NDArray[np.float64]) -> float:
    """The median area of the components that are not small against the one at which half of the tissue is reached."""
    if not len(areas):
        return 0.0
    ordered = np.sort(areas)
    half = float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
    return float(np.median(areas[areas > half / 4]))


def _steps(good: Points, subject: str) -> tuple[Points, Points]:
    """The steps from column to column and from row to row, by the median of vectors between neighbours."""
    from scipy.spatial import cKDTree

    distances, others = cKDTree(good).query(good, k=min(9, len(good)))
    near = float(np.median(distances[:, 1]))
    vectors = (good[others[:, 1:]] - good[:, None]).reshape(-1, 2)
    lengths = np.hypot(vectors[:, 0], vectors[:, 1])
    vectors = vectors[lengths < near * (1 + _NEAR[1]) / 1.25]  # neighbours along a row, a column, and some diagonals
    lengths = np.hypot(vectors[:, 0], vectors[:, 1])
    shortest = vectors[lengths < near * 1.25]
    angles = np.arctan2(shortest[:, 1], shortest[:, 0])
    turn = float(np.angle(np.exp(4j * angles).mean())) / 4  # within ±45°
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    along = vectors @ axes.T
    steps: list[Points] = []
    for axis in (0, 1):
        forward = along[(along[:, axis] > 0) & (np.abs(along[:, 1 - axis]) < _OFF * np.abs(along[:, axis]))]
        if not len(forward):
            raise _no_grid(subject, "areas of tissue without neighbours in rows and columns")
        closest = forward[forward[:, axis] < 1.4 * np.percentile(forward[:, axis], 10)]
        steps.append(np.median(closest, axis=0) @ axes)
    return steps[0], steps[1]


def _numbered(good: Points, across: Points, down: Points) -> npt.NDArray[np.intp]:
    """The place (column, row) of each core, counted from neighbour to neighbour; the least number where it has none.

    The largest group of cores that are connected by steps is numbered.
    """
    from scipy.spatial import cKDTree

    tree, reach = cKDTree(good), _OFF * min(float(np.hypot(*across)), float(np.hypot(*down)))
    nothing = np.iinfo(np.intp).min
    best = np.full((len(good), 2), nothing, dtype=np.intp)
    seen = np.zeros(len(good), dtype=bool)
    moves = [(1, 0, across), (-1, 0, -across), (0, 1, down), (0, -1, -down)]
    for start in range(len(good)):
        if seen[start]:
            continue
        places = np.full((len(good), 2), nothing, dtype=np.intp)
        places[start], seen[start] = (0, 0), True
        queue = deque([start])
        while queue:
            one = queue.popleft()
            for columns, rows, step in moves:
                distance, other = tree.query(good[one] + step)
                if distance < reach and not seen[other]:
                    places[other], seen[other] = places[one] + (columns, rows), True
                    queue.append(int(other))
        if np.count_nonzero(places[:, 0] > nothing) > np.count_nonzero(best[:, 0] > nothing):
            best = places
    return best


def _fit(good: Points, places: npt.NDArray[np.intp]) -> tuple[Points, Points, Points]:
    """Corner, step across and step down of the affine grid nearest to the cores."""
    terms = np.column_stack([np.ones(len(places)), places])
    corner, across, down = np.linalg.lstsq(terms, good, rcond=None)[0]
    return corner, across, down


def _filled(
    centres: Points,
    areas: npt.NDArray[np.float64],
    whole: float,
    shape: tuple[int, int],
    grid: tuple[Points, Points, Points],
    diameter: float,
) -> CoreGrid:
    """The grid with the tissue of each core: components nearest to its place, no farther than a core reaches."""
    (rows, columns), (corner, across, down) = shape, grid
    empty = CoreGrid(rows, columns, _pair(corner), _pair(across), _pair(down), round(diameter, 3), 0, ())
    numbers = empty.places(centres) if len(centres) else np.empty(0, dtype=np.intp)
    middles = corner + (numbers % columns)[:, None] * across + (numbers // columns)[:, None] * down
    reach = max(diameter / 2, _OFF * min(float(np.hypot(*across)), float(np.hypot(*down))))
    near = np.hypot(*(centres - middles).T) <= reach
    numbers = np.where((numbers >= 0) & near, numbers, -1)
    counted = areas >= _SPECK * whole
    cores: list[Core] = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        own = (numbers == number) & counted
        tissue = float(areas[own].sum())
        missing = tissue < _MISSING * whole
        place = corner + column * across + row * down
        x, y = place if missing else np.average(centres[own], axis=0, weights=areas[own])
        cores.append(
            Core(
                name=core_name(row, column),
                row=row + 1,
                column=column + 1,
                x=round(float(x), 3),
                y=round(float(y), 3),
                tissue_px=round(tissue, 1),
                pieces=int(np.count_nonzero(own)),
                missing=missing,
            )
        )
    outside = int(np.count_nonzero((numbers < 0) & counted))
    return CoreGrid(rows, columns, empty.corner, empty.across, empty.down, empty.diameter, outside, tuple(cores))


def _pair(point: Points) -> tuple[float, float]:
    return round(float(point[0]), 3), round(float(point[1]), 3)
