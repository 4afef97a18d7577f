"""Turn a volume so that its axes run in the directions that a model was trained with, and turn its labels back.

Axes are permuted and flipped, never interpolated. A direction is one of the letters L, R, A, P, S and I, towards which
an index grows: left, right, anterior, posterior, superior, inferior of the patient. "SAR" names the directions of array
axes 0, 1 and 2, which are z, y and x of a NIfTI file that nibabel calls "RAS".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

Array = TypeVar("Array", bound=npt.NDArray[Any])
AxesTriple = tuple[int, int, int]

_LETTERS: Final = ("LR", "PA", "SI")
"""Letter of the positive and of the negative direction of x, y and z in LPS."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A permutation of a volume's axes, with flips."""

    order: AxesTriple
    """Source axis of each axis of the turned array."""
    flips: tuple[bool, bool, bool]
    """Whether each axis of the turned array runs against its source axis."""

    def apply(self, array: Array) -> Array:
        """A view of the last three axes of `array` as turned."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return turned[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]  # pyright: ignore[reportReturnType]

    def invert(self, array: Array) -> Array:
        """A view of the last three axes of a turned `array` as they were."""
        lead = array.ndim - 3
        straight = array[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]
        back = [self.order.index(axis) for axis in range(3)]
        return straight.transpose(*range(lead), *(lead + axis for axis in back))  # pyright: ignore[reportReturnType]

    def values(self, each: Sequence[float]) -> tuple[float, float, float]:
        """Values of the source axes, such as a spacing, by axis of the turned array."""
        return each[self.order[0]], each[self.order[1]], each[self.order[2]]

    def shape(self, shape: Sequence[int]) -> AxesTriple:
        """The shape of the turned array."""
        return shape[self.order[0]], shape[self.order[1]], shape[self.order[2]]

    def affine(self, affine: npt.NDArray[np.float64], shape: Sequence[int]) -> npt.NDArray[np.float64]:
        """The `Volume.affine` of the turned array, from that of the source, whose shape is `shape`."""
        turned = affine[:, [*self.order, 3]]
        for axis, (source, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            if flip:
                turned[:, 3] += turned[:, axis] * (shape[source] - 1)
                turned[:, axis] *= -1
        return turned

    def then(self, order: Sequence[int]) -> "Turn":
        """The turn, followed by a permutation of the turned axes."""
        first, second, third = order
        flips = self.flips[first], self.flips[second], self.flips[third]
        return Turn((self.order[first], self.order[second], self.order[third]), flips)


UNTURNED: Final = Turn((0, 1, 2), (False, False, False))


def directions(affine: npt.NDArray[np.float64]) -> str:
    """The closest direction of each array axis of a volume, such as "SPL" of axial slices from the feet upwards.

    Each direction of the patient is given to one axis, and the axis closest to one chooses first; in a tie the columns
    do. nibabel does the same with a NIfTI file, whose first axis they are (`io_orientation`).
    """
    left, _, right = np.linalg.svd(affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0))
    cosines = left @ right
    letters = ["", "", ""]
    for axis in sorted((2, 1, 0), key=lambda axis: -float(np.max(cosines[:, axis] ** 2))):
        world = int(np.argmax(np.abs(cosines[:, axis])))
        letters[axis] = _LETTERS[world][int(cosines[world, axis] < 0)]
        cosines[world, :] = 0
    return "".join(letters)


def turn_between(source: str, target: str) -> Turn:
    """The turn from an array whose axes run in the directions `source` to those of `target`.

    Raises `ValueError` where one is no triple of directions.
    """
    found = [_worlds(axes) for axes in (source, target)]
    order = [found[0].index(world) for world in found[1]]
    first, second, third = order
    flips = [source[axis] != letter for axis, letter in zip(order, target, strict=True)]
    return Turn((first, second, third), (flips[0], flips[1], flips[2]))


def closest_axes(affine: npt.NDArray[np.float64], target: str) -> Turn:
    """The turn of a volume that brings its axes closest to the directions of `target`, such as "SAR".

    affine: that of `Volume`. Raises `ValueError` where `target` is no triple of directions.
    """
    return turn_between(directions(affine), target)


def stacked_upwards(affine: npt.NDArray[np.float64]) -> Turn:
    """The turn that stacks slices along their normal, the cross product of row and column, as ITK reads a series."""
    slices, rows, columns = affine[:, 0], affine[:, 1], affine[:, 2]
    return Turn((0, 1, 2), (bool(np.cross(columns, rows) @ slices < 0), False, False))


def _worlds(axes: str) -> list[int]:
    """The axis of the patient, 0 to 2 for x, y and z, of each letter."""
    found = [next((world for world, pair in enumerate(_LETTERS) if letter in pair), -1) for letter in axes]
    if sorted(found) != [0, 1, 2]:
        msg = f"{axes!r} must be three letters, one each of L or R, A or P, S or I"
        raise ValueError(msg)
    return found
