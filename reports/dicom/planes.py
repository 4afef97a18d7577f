"""The slices of a study as new objects refer to them: original instances and frames, and their place in the patient.

Placements are of pixel corners, DICOM's positions of pixel centres: half a pixel lies between them.
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..patient_geometry import in_patient
from .objects import Originals

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Numbers = npt.NDArray[np.float64]

_DECIMALS: Final = 9  # of mm and cosines, so that sums of rounded numbers print as what the file stated


def item(**elements: Any) -> "Dataset":
    """A data set of these elements."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def code(value: str, scheme: str, meaning: str) -> "Dataset":
    """A code sequence's item."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def decimals(values: npt.ArrayLike) -> list[str]:
    """Numbers as VR DS holds them, in at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(one) + 0.0) for one in np.round(np.asarray(values, np.float64), _DECIMALS)]


@dataclass(frozen=True)
class Planes:
    """The slices of an image of a study."""

    originals: Originals
    scale: tuple[float, float] = (1.0, 1.0)
    """Original pixels (x, y) per pixel of the new object."""

    @cached_property
    def frame_of_reference(self) -> str:
        """The original UID of the frame of reference; "" where not all slices have a place in one."""
        stated = {str(header.get("FrameOfReferenceUID") or "") for header in self.originals.headers}
        placed = all(map(in_patient, self.originals.info.planes))
        return stated.pop() if placed and len(stated) == 1 else ""

    def reference(self, number: int) -> "Dataset":
        """The instance of a slice (from 0), and its frame where the instance has several."""
        header = self.originals.header_of(number)
        made = item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
        if (frames := self.originals.frame_numbers([number])) is not None:
            made.ReferencedFrameNumber = frames[0]
        return made

    def position(self, number: int) -> list[str]:
        """Image Position (Patient): the centre of the slice's first pixel."""
        centre = np.array([self.scale]) / 2
        return decimals(self.originals.info.planes[number].placement.to_world(centre)[0])

    def orientation(self, number: int) -> list[str]:
        """Image Orientation (Patient)."""
        along, down, _ = self._axes(number)
        return decimals([*along / np.linalg.norm(along), *down / np.linalg.norm(down)])

    def measures(self) -> "Dataset | None":
        """Pixel measures, which all slices share; None where they have no place in a frame of reference.

        A thickness that the file does not state is the distance of slices; None for a single one, since a frame with a
        place must have it.
        """
        header, facts = self.originals.first, dict(self.originals.info.facts)
        groups = [group for name in _SHARED for group in header.get(name) or ()]
        stated = [header, *(one for group in groups for one in group.get("PixelMeasuresSequence") or ())]
        thickness = [one.SliceThickness for one in stated if (one.get("SliceThickness") or 0) > 0]
        step = facts.get("step_mm_median")
        known: Any = thickness[0] if thickness else step
        if not self.frame_of_reference or known is None:
            return None
        along, down, _ = self._axes(0)
        across, below = self.scale
        made = item(PixelSpacing=decimals([np.linalg.norm(down) * below, np.linalg.norm(along) * across]))
        made.SliceThickness = decimals([known])[0]
        least, most = facts.get("step_mm_min"), facts.get("step_mm_max")
        if step and least and most and float(most) - float(least) <= _SAME_STEP:
            made.SpacingBetweenSlices = decimals([step])[0]
        return made

    def _axes(self, number: int) -> Numbers:
        return np.asarray(self.originals.info.planes[number].placement.matrix, np.float64).T


_SHARED: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_SAME_STEP: Final = 0.01  # mm
