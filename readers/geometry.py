"""Boxes and placements: where pixels lie in the image and in the world.

Level-0 pixels everywhere: x right, y down, corners not centres, boxes half-open. The centre of the first pixel is
(0.5, 0.5). A reader whose format counts pixel centres converts when it scans.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from .errors import ReadError

Points = npt.NDArray[np.float64]
MAX_SIDE: Final = 2**23
"""Longest side in pixels of an image that is read. A longer one is a damaged or malicious header."""

_ROOT_ID = re.compile(r'(?:ID|AUTHORITY)\s*\[\s*"(\w+)"\s*,\s*"?(\w+)"?\s*\]\s*\]\s*$')
_ROOT_NAME = re.compile(r'^\s*\w+\s*\[\s*"([^"]*)"')

Unit = Literal["px", "um", "mm", "m", "deg", "crs"]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A non-empty half-open box `[x0, x1) × [y0, y1)` in level-0 pixels; it may reach beyond the image."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            msg = f"a box needs x0 < x1 and y0 < y1: {self.x0, self.y0, self.x1, self.y1}"
            raise ValueError(msg)

    @property
    def width(self) -> float:
        """Width in level-0 pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Height in level-0 pixels."""
        return self.y1 - self.y0

    def clip(self, width: float, height: float) -> Self | None:
        """Clip to an image of that size in level-0 pixels; None where nothing is left.

        >>> Box(-10, 5, 40, 60).clip(30, 30)
        Box(x0=0.0, y0=5, x1=30, y1=30)
        """
        x0, y0 = max(self.x0, 0.0), max(self.y0, 0.0)
        x1, y1 = min(self.x1, width), min(self.y1, height)
        return type(self)(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A pixel → world polynomial fitted to ground control points by least squares.

    World = Σ c[i] · u^p v^q over `terms` (p, q), with u, v = (pixel - centre) / scale.
    """

    terms: tuple[tuple[int, int], ...]
    x_coefficients: tuple[float, ...]
    y_coefficients: tuple[float, ...]
    centre: tuple[float, float]
    scale: float
    residual_px: float
    """Root mean square distance in pixels between the control points and the fit."""

    def __call__(self, xy: Points) -> Points:
        """Level-0 pixels (N, 2) → world (N, 2)."""
        u, v = self._normalised(xy)
        return np.stack([u**p * v**q for p, q in self.terms], axis=1) @ self._coefficients()

    def jacobian(self, xy: Points) -> Points:
        """∂world/∂pixel at level-0 pixels (N, 2) → (N, 2, 2)."""
        u, v = self._normalised(xy)
        du = np.stack([p * u ** max(p - 1, 0) * v**q for p, q in self.terms], axis=1)
        dv = np.stack([q * u**p * v ** max(q - 1, 0) for p, q in self.terms], axis=1)
        return np.stack([du @ self._coefficients(), dv @ self._coefficients()], axis=2) / self.scale

    def _normalised(self, xy: Points) -> Points:
        return ((xy - np.asarray(self.centre)) / self.scale).T

    def _coefficients(self) -> Points:
        return np.stack([self.x_coefficients, self.y_coefficients], axis=1)


@dataclass(frozen=True, slots=True)
class Placement:
    """The mapping from level-0 pixels to the world.

    ::

        (0, 0) ── x, columns ──▶            world x │ a  b  c │   │ x │
           │   ┌─────┬─────┐                world y │ d  e  f │ · │ y │
           y   │·    │     │  · = (0.5, 0.5)                      │ 1 │
         rows  ├─────┼─────┤
           ▼   │     │     │

    a, e: pixel size; b, d: rotation; c, f: world of pixel corner (0, 0).
    """

    matrix: tuple[tuple[float, float, float], ...]
    """World = matrix @ (x, y, 1): two rows for a map or a slide, three for a patient (LPS)."""
    unit: Unit
    """Unit of the world axes: "px" if unknown, "crs" for another unit that the CRS defines (feet, say)."""
    crs: str | None = None
    """WKT of a map's coordinate reference system."""
    frame: str | None = None
    """DICOM frame-of-reference UID of a study."""
    source: str = "none"
    """Where in the file the numbers were found."""
    warp: Polynomial | None = None
    """The exact mapping where it is not affine; `matrix` then approximates it."""

    def __post_init__(self) -> None:
        linear = np.asarray(self.matrix, dtype=np.float64)
        if linear.shape not in {(2, 3), (3, 3)} or not np.isfinite(linear).all():
            msg = f"a placement's matrix has 2 or 3 rows of 3 finite numbers: {self.matrix}"
            raise ValueError(msg)
        if np.linalg.matrix_rank(linear[:, :2]) < 2:
            rule = "must span two directions"
            remedy = "Correct the file's georeference, or remove it to work in pixels"
            raise ReadError(f"the pixel grid of {self.source}", rule, value=str(self.matrix), remedy=remedy)

    @classmethod
    def pixels(cls, source: str = "none") -> Self:
        """The identity placement of an image without georeference or pixel size."""
        return cls(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "px", source=source)

    @property
    def has_unit(self) -> bool:
        """Whether the world axes have a physical unit."""
        return self.unit != "px"

    @property
    def is_upright(self) -> bool:
        """Whether columns and rows of pixels are parallel to the two world axes."""
        linear = np.asarray(self.matrix, dtype=np.float64)[:, :2]
        return self.warp is None and len(linear) == 2 and not linear[[0, 1], [1, 0]].any()

    def to_world(self, xy: npt.ArrayLike) -> Points:
        """Level-0 pixels (N, 2) → world (N, 2 or 3), in `unit`.

        The centre of the first pixel of a north-up map of 10 m:

        >>> Placement(((10, 0, 500000), (0, -10, 4200000)), "m").to_world([(0.5, 0.5)]).tolist()
        [[500005.0, 4199995.0]]
        """
        points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        if self.warp is not None:
            return self.warp(points)
        matrix = np.asarray(self.matrix, dtype=np.float64)
        world = np.empty((len(points), len(matrix)))
        for axis, (along_x, along_y, offset) in enumerate(matrix):  # @ starts threads
            world[:, axis] = points[:, 0] * along_x + points[:, 1] * along_y + offset
        return world

    def to_pixel(self, world_xy: npt.ArrayLike) -> Points:
        """World (N, 2 or 3) → level-0 pixels (N, 2): the inverse of `to_world`; patient points are projected first.

        Raises `ReadError` where the polynomial cannot be inverted.
        """
        matrix = np.asarray(self.matrix, dtype=np.float64)
        world = np.asarray(world_xy, dtype=np.float64).reshape(-1, len(matrix))
        inverse = np.linalg.pinv(matrix[:, :2])
        points = (world - matrix[:, 2]) @ inverse.T
        if self.warp is None:
            return points
        for _ in range(
            20
        ):  # Newton's method: a georeference polynomial is nearly affine, so it converges in a few steps
            step = np.linalg.solve(self.warp.jacobian(points), (world - self.warp(points))[:, :, None])[:, :, 0]
            points = points + step
            if not step.size or np.abs(step).max() < 1e-10:
                return points
        raise ReadError(
            f"world coordinates for {self.source}",
            "must lie where the polynomial of the control points can be inverted",
            value=str(world[0].tolist()),
            remedy="Keep coordinates within the image, or warp the image to a map grid first",
        )


def crs_name(crs: str | None) -> str:
    """A CRS in short: "EPSG:32618" where its WKT has that id, else its name; "" without one."""
    if not crs:
        return ""
    code = _ROOT_ID.search(crs)
    if code:
        return f"{code[1]}:{code[2]}"
    name = _ROOT_NAME.match(crs)
    return name[1] if name else crs
