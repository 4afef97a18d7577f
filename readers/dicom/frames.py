"""The metadata of single frames: functional groups, positions, windows, and what tells frames at one place apart.

Runs in the sandboxed process. Sources: PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.11.2 (windows).
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from pydicom.dataset import Dataset

from .attributes import code, digest, items, number, numbers, positive_pair, texts, values, vector, words
from .metadata import SPLIT_ATTRIBUTES, FrameMetadata, Vector, Window
from .mosaic import Mosaic
from .nuclear import reconstruction

_WINDOW_NAMES = words(
    "WINDOW1 WINDOW2 WINDOW3 ABDOMEN BONE BRAIN LIVER LUNG MEDIASTINUM PELVIS SOFT_TISSUE SPINE NORMAL HARDER SOFTER"
    " HARD SOFT USER DEFAULT"
)
_FUNCTIONS = words("LINEAR LINEAR_EXACT SIGMOID")
_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_TIME = re.compile(r"^(\d\d):?(\d\d)?:?(\d\d(?:\.\d{1,6})?)?")
_TIMES = {0x00181063, 0x00181065}  # Frame Time, Frame Time Vector: frames of one place
_DAY = 86400.0  # seconds
_DAYS = 1000  # days are counted modulo this, so that no date leaves the process


def functional_groups(dataset: Dataset, count: int) -> list[Sequence[Dataset]]:
    """For each frame its own functional groups and the shared ones; [] for files without functional groups."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    own = items(dataset, "PerFrameFunctionalGroupsSequence")
    if not shared and not own:
        return []
    return [[*own[at : at + 1], *shared] for at in range(count)]


def functional_group(groups: Sequence[Dataset], name: str, within: Dataset) -> Dataset:
    """The item of functional group `name` for a frame, or the data set itself in files without functional groups."""
    for group in groups:
        if found := items(group, name):
            return found[0]
    return Dataset() if groups else within


def read_frames(dataset: Dataset, count: int, mosaic: Mosaic | None) -> list[FrameMetadata]:
    """The metadata of each of `count` frames, or slices of a mosaic; of one frame where all are alike."""
    if groups := functional_groups(dataset, count):
        return [_frame(dataset, group) for group in groups]
    frame = _frame(dataset, [])
    if mosaic is not None:
        return [replace(frame, position=position) for position in mosaic.positions(frame)]
    if found := reconstruction(dataset, count):
        return [
            replace(
                frame,
                position=one.position,
                orientation=one.orientation,
                splits=tuple(
                    one.splits.get(name, old) for name, old in zip(SPLIT_ATTRIBUTES, frame.splits, strict=True)
                ),
            )
            for one in found
        ]
    if count > 1 and not _TIMES & {int(tag) for tag in numbers(dataset, "FrameIncrementPointer")}:
        return [replace(frame, position=None)]  # the stated position is that of the first frame
    return [frame]


def _frame(dataset: Dataset, groups: Sequence[Dataset]) -> FrameMetadata:
    voi = functional_group(groups, "FrameVOILUTSequence", dataset)
    orientation = vector(functional_group(groups, "PlaneOrientationSequence", dataset), "ImageOrientationPatient", 6)
    position = vector(functional_group(groups, "PlanePositionSequence", dataset), "ImagePositionPatient", 3)
    rescale = functional_group(groups, "PixelValueTransformationSequence", dataset)
    windows = _windows(voi)
    return FrameMetadata(
        position=None if position is None else _vector(position),
        orientation=None if orientation is None else (_vector(orientation[:3]), _vector(orientation[3:])),
        spacing=positive_pair(functional_group(groups, "PixelMeasuresSequence", dataset), "PixelSpacing"),
        windows=tuple(window for window in windows if window.width > 0),
        unusable_window=len(values(voi, "WindowCenter")) > sum(window.width > 0 for window in windows),
        voi=code(voi, "VOILUTFunction", _FUNCTIONS) or "LINEAR",
        splits=_splits(dataset, groups),
        tables=tuple(digest(item, "LUTDescriptor", "LUTData") for item in items(voi, "VOILUTSequence")),
        flat=number(rescale, "RescaleSlope") == 0 and not items(rescale, "ModalityLUTSequence"),
    )


def _splits(dataset: Dataset, groups: Sequence[Dataset]) -> tuple[float | str, ...]:
    """The values of `SPLIT_ATTRIBUTES`."""
    content = functional_group(groups, "FrameContentSequence", dataset)
    heart = functional_group(groups, "CardiacSynchronizationSequence", dataset)
    typed = next(
        (item for kind in _TYPES for item in [functional_group(groups, kind, Dataset())] if "FrameType" in item),
        dataset,
    )
    echo = functional_group(groups, "MREchoSequence", dataset)
    offset = functional_group(groups, "TemporalPositionSequence", dataset)
    found = {
        "stack": digest(content, "StackID"),
        "echo time": _value(echo, "EffectiveEchoTime", "EchoTime"),
        "inversion time": _value(
            functional_group(groups, "MRModifierSequence", dataset), "InversionTimes", "InversionTime"
        ),
        "b-value": _value(functional_group(groups, "MRDiffusionSequence", dataset), "DiffusionBValue"),
        "time offset": _value(offset, "TemporalPositionTimeOffset"),
        "temporal position": _value(content, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        "trigger time": _value(heart, "NominalCardiacTriggerDelayTime", "TriggerTime"),
        "cardiac phase": _value(heart, "NominalPercentageOfCardiacPhase"),
        "frame reference time": _value(dataset, "FrameReferenceTime"),
        "acquisition": _value(content if groups else dataset, "FrameAcquisitionNumber", "AcquisitionNumber"),
        "image type": digest(typed, "FrameType", "ImageType"),
        "acquisition time": _clock(content, "FrameAcquisitionDateTime", "AcquisitionDateTime", "Acquisition"),
        "content time": _clock(dataset, "", "", "Content"),
    }
    return tuple(found.get(name, "") for name in SPLIT_ATTRIBUTES)


def _value(dataset: Dataset, *names: str) -> float | str:
    """The number that the first of these attributes with a value states; a digest of another value; "" without one."""
    for name in names:
        if values(dataset, name):
            found = numbers(dataset, name)
            return found[0] if len(found) == 1 else digest(dataset, name)
    return ""


def _clock(dataset: Dataset, *names: str) -> float | str:
    """Seconds by the clock from the first of two date-times, else from the date and time whose prefix comes last."""
    *date_times, prefix = names
    for name in date_times:
        for text in texts(dataset, name)[:1] if name else []:
            if (found := _seconds(text[:8], text[8:])) is not None:
                return found
    day, time = (texts(dataset, f"{prefix}{kind}")[:1] for kind in ("Date", "Time"))
    found = _seconds(day[0] if day else "", time[0]) if time else None
    return "" if found is None else found


def _seconds(day: str, time: str) -> float | None:
    """Seconds of a date, such as 20200131 or nothing, and a time, such as 235959.5; None where it is not a time."""
    match = _TIME.match(time)
    if match is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    try:
        days = date(int(day[:4]), int(day[4:6]), int(day[6:8])).toordinal() % _DAYS
    except ValueError:
        days = 0
    return days * _DAY + hours * 3600 + minutes * 60 + seconds


def _windows(voi: Dataset) -> list[Window]:
    names = texts(voi, "WindowCenterWidthExplanation")
    return [
        Window(centre, width, names[at] if at < len(names) and names[at] in _WINDOW_NAMES else "")
        for at, (centre, width) in enumerate(
            zip(numbers(voi, "WindowCenter"), numbers(voi, "WindowWidth"), strict=False)
        )
    ][:16]


def _vector(values: Sequence[float]) -> Vector:
    return values[0], values[1], values[2]
