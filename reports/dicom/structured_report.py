"""Structured reports: the findings of a study as TID 1500 "Measurement Report" (PS3.16) in a Comprehensive 3D SR."""
# highdicom's data sets have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field

from ...readers.options import Options
from ..measures import batches
from ..writer import ImageRecord, Record
from .groups import Group, assessment_group, comment, finding_groups, structure_groups
from .objects import Originals, attributes, device_uid, model_name, unsuitable, write_per_study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FL_VALUES: Final = 0xFFFF // 4  # that VR FL holds in explicit encoding, where its length has 16 bits


class StructuredReportOptions(Options):
    """Options of the structured report."""

    most: int = Field(
        default=1000, ge=1, le=20000, description="Most findings of a study: those of the highest scores."
    )


class StructuredReport:
    """sr-<study>.dcm for each study: findings with outline, area, score and text, structures with volume.

    Findings have the tracking UID of `finding_uid` in findings.csv. A group for each image says how it was analysed,
    what was not, and how many findings it has, also where there are none.
    """

    name = "dicom-sr"
    on_request = True
    Options = StructuredReportOptions

    def __init__(self, options: StructuredReportOptions | None = None) -> None:
        self._most = (options or StructuredReportOptions()).most

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a report per study into `folder`."""
        return write_per_study(record, folder, "sr", lambda images: structured_report(images, self._most))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that are not of a study, or whose originals are not known."""
        return unsuitable(record)


def structured_report(images: Sequence[Originals], most: int) -> "Dataset":
    """The report of a study, of these of its images, with at most `most` findings."""
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    record, ids = images[0].record, [one.info.id for one in images]
    chosen = highest(record, [one.image for one in images if one.image.label_maps is None], most)
    groups: list[Group] = []
    for one in images:
        numbers = chosen.get(one.info.id, set[int]())
        groups += [assessment_group(one, len(numbers)), *structure_groups(one), *finding_groups(one, numbers)]
    context = ObservationContext(observer_device_context=observer(record))
    content = MeasurementReport(context, codes.SCT.ImagingProcedure, groups[:1])
    content[0].ContentSequence.append(_remarks(images))
    items = (item for group in groups for item in group[0].ContentSequence)
    short = all(len(item.get("GraphicData") or ()) <= _FL_VALUES for item in items)
    report = Comprehensive3DSR(
        evidence=list({header.SOPInstanceUID: header for one in images for header in one.headers}.values()),
        content=content[0],
        is_complete=all(one.image.complete for one in images),
        transfer_syntax_uid=ExplicitVRLittleEndian if short else ImplicitVRLittleEndian,
        **attributes(images[0], "sr", "findings", str(most), *ids),
    )
    [measurements] = [item for item in report.ContentSequence if item.name == codes.DCM.ImagingMeasurements]
    measurements.ContentSequence.extend([group[0] for group in groups[1:]])  # above, each would be copied in depth
    return report


def highest(record: Record, images: Sequence[ImageRecord], most: int) -> dict[str, set[int]]:
    """The numbers of at most `most` findings by image: of the highest score, then the largest area, then the first."""
    found = [
        (-1.0 if score is None or np.isnan(score) else float(score), area, -place, image.info.id, batch.first + at)
        for place, image in enumerate(images)
        for batch in batches(record, [image])
        for at, (score, area) in enumerate(zip(batch.table.score, batch.area_px.tolist(), strict=True))
    ]
    found.sort(key=lambda one: (-one[0], -one[1], -one[2], one[4]))
    chosen: dict[str, set[int]] = {}
    for *_, image, number in found[:most]:
        chosen.setdefault(image, set()).add(number)
    return chosen


def observer(record: Record) -> Any:
    """The model as the device that observed."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(record), name=model_name(record), manufacturer_name="limner", model_name=model_name(record)
    )
    return ObserverContext(codes.DCM.Device, device)


def _remarks(images: Sequence[Originals]) -> Any:
    """What the results may be used for, and which images of the study are not in the report."""
    from highdicom.sr import ContainerContentItem, ContentSequence, RelationshipTypeValues
    from pydicom.sr.coding import Code

    record, study, ids = images[0].record, images[0].info.study, [one.info.id for one in images]
    texts = [record.use, "A model made these findings; nobody has verified them."]
    absent = [one.info.id for one in record.images if one.info.study == study and one.info.id not in ids]
    if absent:
        texts.append(f"Not in this report, since their originals could not be read: {', '.join(absent)}.")
    remarks = ContainerContentItem(
        Code("C0034375", "UMLS", "Qualitative Evaluations"), relationship_type=RelationshipTypeValues.CONTAINS
    )
    remarks.ContentSequence = ContentSequence([comment(text) for text in texts])
    return remarks
