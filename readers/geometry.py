"""Boxes and placements: where pixels are, in the picture and in the world.

One convention everywhere: level-0 pixels, x right, y down, corners not centres, boxes half-open. The centre of the
first pixel is (0.5, 0.5). A reader whose format counts pixel centres converts at its door.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from .errors import ReadError

Points = npt.NDArray[np.float64]
MAX_SIDE: Final = 2**23
"""Pixels: the longest side of a picture that is read. A longer one is damage, or a trap for who looks at all of it."""

Unit = Literal["px", "um", "mm", "m", "deg", "crs"]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open box `[x0, x1) × [y0, y1)` in level-0 pixels; may reach beyond the picture; cannot be empty."""

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
        """The part inside a picture of that size in level-0 pixels, or None where nothing is left.

        >>> Box(-10, 5, 40, 60).clip(30, 30)
        Box(x0=0.0, y0=5, x1=30, y1=30)
        """
        x0, y0 = max(self.x0, 0.0), max(self.y0, 0.0)
        x1, y1 = min(self.x1, width), min(self.y1, height)
        return type(self)(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A smooth pixel → world mapping that is not affine: a least-squares polynomial through ground control points.

    World = Σ c[i] · u^p v^q over `terms` (p, q), with u, v = (pixel - centre) / scale. `residual_px` is the root mean
    square distance in pixels between the control points and the fit: what the georeference itself is worth.
    """

    terms: tuple[tuple[int, int], ...]
    x_coefficients: tuple[float, ...]
    y_coefficients: tuple[float, ...]
    centre: tuple[float, float]
    scale: float
    residual_px: float

    def __call__(self, xy: Points) -> Points:
        """Level-0 pixels (N, 2) → world (N, 2)."""
        u = (xy - np.asarray(self.centre)) / self.scale
        basis = np.stack([u[:, 0] ** p * u[:, 1] ** q for p, q in self.terms], axis=1)
        return basis @ np.stack([self.x_coefficients, self.y_coefficients], axis=1)

    def jacobian(self, xy: Points) -> Points:
        """∂world/∂pixel at level-0 pixels (N, 2) → (N, 2, 2)."""
        u = (xy - np.asarray(self.centre)) / self.scale
        weights = np.stack([self.x_coefficients, self.y_coefficients], axis=1)
        du = np.stack([p * u[:, 0] ** max(p - 1, 0) * u[:, 1] ** q for p, q in self.terms], axis=1) @ weights
        dv = np.stack([q * u[:, 0] ** p * u[:, 1] ** max(q - 1, 0) for p, q in self.terms], axis=1) @ weights
        return np.stack([du, dv], axis=2) / self.scale


@dataclass(frozen=True, slots=True)
class Placement:
    """Level-0 pixels → world.

    `matrix` has a row per world axis and three columns: world = matrix @ (x, y, 1). Two rows for a map or a slide,
    three for a patient (mm, LPS). Where `warp` is given it is the true mapping and `matrix` its affine approximation.
    `unit` is the unit of the world axes, "px" where nothing is known and "crs" where it is another one that the CRS
    states (feet, say). `crs` is WKT, for maps only. `frame` is a frame-of-reference UID, for patients only. `source`
    says where the numbers were read.
    """

    matrix: tuple[tuple[float, float, float], ...]
    unit: Unit
    crs: str | None = None
    frame: str | None = None
    source: str = "none"
    warp: Polynomial | None = None

    def __post_init__(self) -> None:
        linear = np.asarray(self.matrix, dtype=np.float64)
        if linear.shape not in {(2, 3), (3, 3)} or not np.isfinite(linear).all():
            msg = f"a placement's matrix has 2 or 3 rows of 3 finite numbers: {self.matrix}"
            raise ValueError(msg)
        if np.linalg.matrix_rank(linear[:, :2]) < 2:
            raise ReadError(
                f"placement from {self.source}",
                "the pixel grid must span two directions",
                value=str(self.matrix),
                remedy="Repair the file's georeference, or remove it to work in pixels",
            )

    @classmethod
    def pixels(cls, source: str = "none") -> Self:
        """The placement of a picture of which nothing is known: world is pixels."""
        return cls(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "px", source=source)

    @property
    def known(self) -> bool:
        """Whether the world axes have a physical unit."""
        return self.unit != "px"

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
        return points @ matrix[:, :2].T + matrix[:, 2]

    def to_pixel(self, world_xy: npt.ArrayLike) -> Points:
        """World (N, 2 or 3) → level-0 pixels (N, 2): the exact inverse; a patient point is projected on the plane."""
        matrix = np.asarray(self.matrix, dtype=np.float64)
        world = np.asarray(world_xy, dtype=np.float64).reshape(-1, len(matrix))
        inverse = np.linalg.pinv(matrix[:, :2])
        points = (world - matrix[:, 2]) @ inverse.T
        if self.warp is None:
            return points
        for _ in range(20):  # Newton; a georeference polynomial is nearly affine, so a handful of steps suffice
            step = np.linalg.solve(self.warp.jacobian(points), (world - self.warp(points))[:, :, None])[:, :, 0]
            points = points + step
            if not step.size or np.abs(step).max() < 1e-10:
                return points
        raise ReadError(
            f"placement from {self.source}",
            "world coordinates must lie where the control points' polynomial can be inverted",
            value=str(world[0].tolist()),
            remedy="Keep coordinates within the picture, or warp the picture to a map grid first",
        )
