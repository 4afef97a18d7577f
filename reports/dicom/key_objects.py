"""Key images of a study's findings as a Key Object Selection Document (PS3.16 TID 2010)."""
# highdicom's data sets have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ...readers.options import Options
from ..measures import batches
from ..writer import DISCLAIMER, Record
from .objects import Originals, attributes, model_name, unsuitable, write_per_study
from .structured_report import observer

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class KeyObjectsOptions(Options):
    """Options of the selection of key images."""

    most: int = Field(default=50, ge=1, le=2000, description="Most slices of a study: those with the highest score.")


class KeyObjects:
    """ko-<study>.dcm for each study that has findings: the slices, or frames, that have them, in their order.

    Of more than `most`, those with the highest score are chosen, then those with the largest area of findings.
    """

    name = "dicom-ko"
    on_request = True
    Options = KeyObjectsOptions

    def __init__(self, options: KeyObjectsOptions | None = None) -> None:
        self._most = (options or KeyObjectsOptions()).most

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a selection per study into `folder`; none for a study without findings."""
        return write_per_study(record, folder, "ko", lambda images: key_objects(images, self._most))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that are not of a study, whose originals are not known, or without findings."""
        found = unsuitable(record)
        left = [image for image in record.images if image.info.id not in found]
        return found | {image.info.id: "it has no findings" for image in left if not len(image.findings())}


def key_objects(images: Sequence[Originals], most: int) -> "Dataset | None":
    """The selection of at most `most` slices of these images; None without findings."""
    from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
    from pydicom.sr.codedict import codes

    record = images[0].record
    ranked = [(*rank, place, plane) for place, one in enumerate(images) for plane, rank in _ranks(one).items()]
    if not ranked:
        return None
    ranked.sort(key=lambda one: (-one[0], -one[1], one[2:]))
    planes: dict[str, tuple[Originals, Dataset, list[int]]] = {}
    for *_, place, plane in sorted(ranked[:most], key=lambda one: one[2:]):
        header = images[place].header_of(plane)
        planes.setdefault(header.SOPInstanceUID, (images[place], header, []))[2].append(plane)
    headers = [header for _, header, _ in planes.values()]
    text = f"{min(most, len(ranked))} of {len(ranked)} slices with findings of {model_name(record)}. {DISCLAIMER}"
    device = observer(record)
    content = KeyObjectSelection(codes.DCM.ForResearch, headers, observer_device_context=device, description=text)
    for item in content[0].ContentSequence:
        if item.ValueType == "IMAGE":
            [reference] = item.ReferencedSOPSequence
            one, _, own = planes[reference.ReferencedSOPInstanceUID]
            if frames := one.frame_numbers(own):
                reference.ReferencedFrameNumber = frames
    ids = [one.info.id for one in images]
    return KeyObjectSelectionDocument(headers, content, **attributes(images[0], "ko", "key images", str(most), *ids))


def _ranks(originals: Originals) -> dict[int, tuple[float, float]]:
    """(highest score, area of all findings in pixels) by slice with findings."""
    ranks: dict[int, tuple[float, float]] = {}
    for batch in batches(originals.record, [originals.image]):
        rows = zip(batch.table.plane.tolist(), batch.findings, batch.area_px.tolist(), strict=True)
        for plane, finding, area in rows:
            score, total = ranks.get(plane, (-1.0, 0.0))
            ranks[plane] = max(score, -1.0 if finding.score is None else finding.score), total + area
    return ranks
