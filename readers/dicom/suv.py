"""Standardised uptake values of PET by body weight: SUVbw = activity concentration · weight / injected activity.

Runs in the sandboxed process: weight, activity and times are a patient's, and neither they nor the factor leave it;
pixels of the values, and codes of what was assumed, do. Source: the vendor-neutral computation of QIBA, "SUV
vendor-neutral pseudo-code" (qibawiki.rsna.org, Standardized Uptake Value), for PET Image Storage in Bq/ml (PS3.3
C.8.9.1). Activities are decay-corrected to the start of the scan (START) or to the injection (ADMIN).
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from .attributes import code, items, number, texts, words
from .faults import FaultError

_DAY: Final = 86400.0
_LONGEST: Final = 2 * _DAY  # between injection and scan


@dataclass(frozen=True, slots=True)
class SuvFactor:
    """SUVbw per modality value."""

    factor: float
    notes: tuple[str, ...] = ()
    """Keys of `metadata.SUV_NOTES`."""


def suv_factor(dataset: Dataset) -> SuvFactor:
    """The factor of a PET file. Raises `FaultError` that names the attribute that is absent or unfit."""
    units = code(dataset, "Units", words("BQML CNTS GML PROPCNTS CM2ML UMOLML NONE PCNT 1CM MLMING MLG MLML"))
    if units == "GML":
        if texts(dataset, "SUVType")[:1] not in ([], ["BW"]):
            raise _unfit("an SUV Type (0054,1006) other than BW")
        return SuvFactor(1.0, ("stated",))
    if units != "BQML":
        raise _unfit(f"Units (0054,1001) of {units or 'none that is known'}, not BQML")
    corrections = texts(dataset, "CorrectedImage")
    for correction in ("ATTN", "DECY"):
        if correction not in corrections:
            raise _unfit(f"no {correction} in Corrected Image (0028,0051)")
    reference = code(dataset, "DecayCorrection", words("NONE START ADMIN"))
    if reference not in {"START", "ADMIN"}:
        raise _unfit(f"Decay Correction (0054,1102) of {reference or 'none'}, not START or ADMIN")
    weight = _positive(dataset, "PatientWeight", "Patient's Weight (0010,1030)")
    drugs = items(dataset, "RadiopharmaceuticalInformationSequence")
    if len(drugs) != 1:
        raise _unfit(f"{len(drugs)} items, not one, in Radiopharmaceutical Information Sequence (0054,0016)")
    dose = _positive(drugs[0], "RadionuclideTotalDose", "Radionuclide Total Dose (0018,1074)")
    if reference == "ADMIN":
        return SuvFactor(weight * 1000.0 / dose)
    half_life = _positive(drugs[0], "RadionuclideHalfLife", "Radionuclide Half Life (0018,1075)")
    scan, notes = _scan_start(dataset, half_life)
    seconds, note = _decay_seconds(drugs[0], scan)
    return SuvFactor(weight * 1000.0 / (dose * 2.0 ** (-seconds / half_life)), (*notes, *note))


def _scan_start(dataset: Dataset, half_life: float) -> tuple[datetime, tuple[str, ...]]:
    """The time to which START corrects, and what was assumed."""
    series, acquired = _clock(dataset, "Series"), _clock(dataset, "Acquisition")
    if series is None:
        raise _unfit("no Series Date and Time (0008,0021), (0008,0031)")
    if acquired is None:
        raise _unfit("no Acquisition Date and Time (0008,0022), (0008,0032)")
    if series <= acquired:
        return series, ("series",)
    try:
        own = dataset.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
        if (found := _date_time(str(own.decode("ascii", "replace") if isinstance(own, bytes) else own))) is not None:
            return found, ("ge",)
    except KeyError:
        pass
    reference, duration = number(dataset, "FrameReferenceTime"), number(dataset, "ActualFrameDuration")
    if reference is None:
        raise _unfit("a series time after the acquisition, and no Frame Reference Time (0054,1300)")
    if not duration or duration <= 0:
        raise _unfit("a series time after the acquisition, and no Actual Frame Duration (0018,1242)")
    rate = math.log(2.0) / half_life
    decays = rate * duration / 1000.0
    average = math.log(decays / -math.expm1(-decays)) / rate
    return acquired - timedelta(seconds=reference / 1000.0 - average), ("frames",)


def _decay_seconds(drug: Dataset, scan: datetime) -> tuple[float, tuple[str, ...]]:
    """Seconds from the injection to the scan, and what was assumed."""
    notes: tuple[str, ...] = ()
    injected = _date_time(next(iter(texts(drug, "RadiopharmaceuticalStartDateTime")), ""))
    if injected is None:
        time = next(iter(texts(drug, "RadiopharmaceuticalStartTime")), "")
        injected = _date_time(f"{scan:%Y%m%d}{time}") if time else None
        if injected is None:
            raise _unfit("no Radiopharmaceutical Start DateTime (0018,1078) or Start Time (0018,1072)")
        notes = ("same-day",)
        if injected > scan:
            injected, notes = injected - timedelta(days=1), ("day-before",)
    seconds = (scan - injected).total_seconds()
    if not 0.0 <= seconds <= _LONGEST:
        raise _unfit("a Radiopharmaceutical Start DateTime (0018,1078) after the scan, or over two days before it")
    return seconds, notes


def _clock(dataset: Dataset, prefix: str) -> datetime | None:
    day, time = (next(iter(texts(dataset, f"{prefix}{kind}")), "") for kind in ("Date", "Time"))
    return _date_time(day + time) if day and time else None


def _date_time(text: str) -> datetime | None:
    """A date and time, such as 20200131235959.5; None where it is not one. A stated offset from UTC is left out."""
    digits, _, fraction = text.strip().partition("+")[0].partition("-")[0].replace(":", "").partition(".")
    try:
        whole = datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - all are local times
        return whole + timedelta(seconds=float(f"0.{fraction or 0}")) if len(digits) >= 12 else None
    except ValueError:
        return None


def _positive(dataset: Dataset, name: str, shown: str) -> float:
    found = number(dataset, name)
    if found is None:
        raise _unfit(f"no {shown}")
    if found <= 0:
        raise _unfit(f"a {shown} that is not above 0")
    return found


def _unfit(found: str) -> FaultError:
    return FaultError("suv", found)
