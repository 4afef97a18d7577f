"""Measurement groups of a structured report: of findings, of structures, and of whole images.

Sources: PS3.16 TID 1410 (planar regions), TID 1501 (images); PS3.3 C.18.6: spatial coordinates are columns and rows
from the upper left corner of the first pixel, as level-0 pixels are.
"""
# highdicom's data sets have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ..csv_safety import clean_text
from ..measures import FindingsBatch, batches, label_areas, total_area
from ..patient_geometry import in_patient, lateralities
from ..structures import StackStructures, measure_labels
from .concepts import concept, long_string, private_code
from .objects import Originals, model_name, model_version, parameters, structure_tracking_uid
from .outlines import outline

if TYPE_CHECKING:
    from highdicom.sr import AlgorithmIdentification, FindingSite, ImageRegion, ImageRegion3D, Measurement
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

Group = Any
"""A measurement group of highdicom: a sequence of one container."""

_LONGEST_TEXT: Final = 4000  # characters
_IN_PATIENT: Final = ("pixel_spacing", "pixel_spacing_calibrated")  # spacing sources
_NAMED: Final = 50  # labels in a sentence


def finding_groups(originals: Originals, chosen: Collection[int] | None) -> Iterator[Group]:
    """A group for each finding of an image, or for those with the `chosen` numbers, in their order."""
    for batch in batches(originals.record, [originals.image]):
        sides = lateralities(originals.info, batch.findings)
        for at in range(len(batch)):
            if chosen is None or batch.first + at in chosen:
                yield _finding_group(originals, batch, at, sides[at])


def structure_groups(originals: Originals) -> Iterator[Group]:
    """A group for each structure of a stack that was annotated as a volume, found or not: its volume and its slices."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, TrackingIdentifier
    from pydicom.sr.codedict import codes

    record, image = originals.record, originals.image
    if image.label_maps is None or not image.complete:
        return
    found = StackStructures(record, image, measure_labels(image.label_maps()))
    rows = zip(record.labels, found.volumes_ml.tolist(), found.found, found.centres_mm.tolist(), strict=True)
    for label, volume, extent, centre in rows:
        slices = range(0) if extent is None else range(int(extent.low[0]), int(extent.high[0]) + 1)
        tracking = structure_tracking_uid(record, image, label)
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(tracking, f"{image.info.id} {long_string(label)}"),
            finding_type=concept(record, label),
            algorithm_id=_algorithm(originals),
            measurements=[_measurement(codes.SCT.Volume, volume, "ml", "milliliter")],
            source_images=_source_images(originals, slices),
        )
        place = ", ".join(f"{value:.1f}" for value in centre)
        where = f"On slices {slices.start + 1} to {slices.stop}; its centre of mass in the patient (LPS, mm): {place}."
        yield _with_comments(group, [where if extent else "Assessed; no voxel of it was found."])


def assessment_group(originals: Originals, written: int) -> Group:
    """How an image was analysed: its series, the number of findings, and in words what was not assessed.

    `written` of its findings have groups of their own.
    """
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        RelationshipTypeValues,
        TrackingIdentifier,
        UIDRefContentItem,
    )
    from pydicom.sr.codedict import codes

    record, image = originals.record, originals.image
    count = len(image.findings())
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            structure_tracking_uid(record, image, ""), f"{image.info.id} assessment"
        ),
        algorithm_id=_algorithm(originals, with_parameters=True),
        measurements=[_measurement(private_code("Number of findings"), count, "1", "no units")],
    )
    group[0].ContentSequence.append(
        UIDRefContentItem(
            codes.DCM.SeriesInstanceUID, originals.first.SeriesInstanceUID, RelationshipTypeValues.CONTAINS
        )
    )
    return _with_comments(group, list(_assessment(originals, count, written)))


def _assessment(originals: Originals, count: int, written: int) -> Iterator[str]:
    record, image = originals.record, originals.image
    facts = dict(originals.info.facts)
    yield f"Status: {record.status_of([image])}. Slices or frames: {len(originals.info.planes)}."
    if facts.get("split_by"):
        yield f"It is a part of its series, by {facts['split_by']}: {facts.get('split_value', '')}."
    if not count:
        yield "Assessed; no findings." if image.complete else "No findings in what was assessed."
    elif image.label_maps is not None:
        yield "Findings are outlines of the structures on slices: the groups of the structures have their volumes."
    elif written < count:
        yield f"{count - written} of {count} findings are left out here: those of the lowest scores, then areas."
    without = [one.label for one in label_areas(record, image) if not one.findings]
    if without:
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        yield f"Labels without findings: {', '.join(without[:_NAMED])}{more}."
    whole = total_area(image.areas)[0]
    for area in image.areas:
        if area.status != "analysed" and area.pixels > 0:
            reason = f": {area.reason}" if area.reason else ""
            yield f"Not assessed, {area.status}: {area.pixels / whole:.1%} of its pixels{reason}."
    yield from (f"Region {region} failed: {error}" for region, error in image.failures[:_NAMED])
    yield from image.warnings
    yield from (f"Note on the image: {note}." for note in originals.info.notes)


def _finding_group(originals: Originals, batch: FindingsBatch, at: int, side: str) -> Group:
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    finding, plane = batch.findings[at], int(batch.table.plane[at])
    measurements: list[Measurement] = []
    if finding.score is not None:
        measurements.append(_measurement(Code("246262008", "SCT", "Score"), float(finding.score), "1", "no units"))
    if dict(originals.info.facts).get("spacing_source") in _IN_PATIENT and not math.isnan(batch.area_m2[at]):
        measurements.append(_measurement(codes.SCT.Area, float(batch.area_m2[at]) * 1e6, "mm2", "square millimeter"))
    else:
        measurements.append(_measurement(codes.SCT.Area, float(batch.area_px[at]), "{pixels}", "pixels"))
    shared: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(batch.uids[at], f"{originals.info.id} finding {batch.first + at}"),
        "finding_type": concept(originals.record, finding.label),
        "algorithm_id": _algorithm(originals),
        "finding_sites": _sites(side),
        "measurements": measurements,
    }
    comments = [finding.text, "The text was cut at the model's limit." if finding.text_cut else ""]
    whole = shapely.equals(finding.geometry, shapely.box(0, 0, *originals.info.size))
    region, rings = (None, 1) if whole else _region(originals, plane, finding.geometry)
    if region is not None:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **shared)
        comments.append(f"Its outline joins {rings} rings by cuts of no width." if rings > 1 else "")
    else:
        group = MeasurementsAndQualitativeEvaluations(source_images=_source_images(originals, [plane]), **shared)
        place = ", ".join(f"{value:g}" for value in batch.bounds[at])
        comments.append("" if whole else f"Its slice is a part of the file's image; its box in the slice: {place}.")
    return _with_comments(group, comments)


def _region(
    originals: Originals, plane: int, geometry: BaseGeometry
) -> tuple["ImageRegion | ImageRegion3D | None", int]:
    """The outline of a geometry on its slice, and of how many rings it consists.

    Slices of a mosaic are parts of a file's image: their outlines are in the patient, None where that is not known.
    """
    from highdicom.sr import ImageRegion, ImageRegion3D, SourceImageForRegion

    at, header = originals.info.planes[plane], originals.header_of(plane)
    vertices, rings = outline(geometry)
    vertices = np.clip(vertices, 0.0, originals.info.size)
    if originals.is_whole_frame(plane):
        image = SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, originals.frame_numbers([plane]))
        return ImageRegion("POLYLINE" if rings else "POINT", vertices, image), rings
    if in_patient(at) and header.get("FrameOfReferenceUID"):
        world = at.placement.to_world(vertices)
        return ImageRegion3D("POLYGON" if rings else "POINT", world, header.FrameOfReferenceUID), rings
    return None, rings


def _source_images(originals: Originals, planes: Sequence[int]) -> list[Any]:
    """References to the files of some planes, with the numbers of their frames unless all of them are meant."""
    from highdicom.sr import SourceImageForMeasurementGroup

    by_file: dict[str, tuple[Dataset, list[int]]] = {}
    for plane in planes:
        header = originals.header_of(plane)
        by_file.setdefault(header.SOPInstanceUID, (header, []))[1].append(plane)
    return [
        SourceImageForMeasurementGroup(header.SOPClassUID, uid, originals.frame_numbers(own))
        for uid, (header, own) in by_file.items()
    ]


def _sites(side: str) -> "list[FindingSite] | None":
    """The side of the patient as laterality of a body structure; None where it is not known."""
    from highdicom.sr import FindingSite
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right}
    return [FindingSite(Code("123037004", "SCT", "Body structure"), sides[side])] if side in sides else None


def _measurement(name: "Code | Any", value: float, unit: str, meaning: str) -> "Measurement":
    from highdicom.sr import Measurement
    from pydicom.sr.coding import Code

    return Measurement(name, value, Code(unit, "UCUM", meaning))


def _algorithm(originals: Originals, *, with_parameters: bool = False) -> "AlgorithmIdentification":
    from highdicom.sr import AlgorithmIdentification

    record = originals.record
    found = parameters(record, originals.image) if with_parameters else {}
    texts = [f"{key}: {value}" for key, value in found.items()]
    return AlgorithmIdentification(model_name(record), model_version(record), texts or None)


def comment(text: str) -> Any:
    """A text as content item."""
    from highdicom.sr import RelationshipTypeValues, TextContentItem
    from pydicom.sr.codedict import codes

    text = clean_text(text)
    short = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
    return TextContentItem(codes.DCM.Comment, short, RelationshipTypeValues.CONTAINS)


def _with_comments(group: Group, texts: Sequence[str]) -> Group:
    group[0].ContentSequence.extend([comment(text) for text in texts if text.strip()])
    return group
