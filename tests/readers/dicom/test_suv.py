"""PET as standardised uptake values by body weight, and what a file lacks for them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

READER = DicomReader()
PET = "1.2.840.10008.5.1.4.1.1.128"
BY_HAND = 2.763368
"""SUV of 10,000 Bq/ml: 70 kg and 370 MBq of F-18 (6586.2 s), injected an hour before the scan.

2^(-3600 / 6586.2) = 0.684633, 370 MBq · 0.684633 = 253.314 MBq, 70,000 g / 253.314 MBq · 10,000 Bq/ml = 2.76337.
"""

Pet = Callable[..., Path]


def drug(**tags: object) -> Dataset:
    made = Dataset()
    whole: dict[str, object] = {
        "RadionuclideTotalDose": 370e6,
        "RadionuclideHalfLife": 6586.2,
        "RadiopharmaceuticalStartDateTime": "20200101093000",
    }
    for name, value in (whole | tags).items():
        if value is not None:
            setattr(made, name, value)
    return made


@pytest.fixture
def pet(tmp_path: Path, making: ModuleType) -> Pet:
    """Make slices of 10 Bq/ml for each stored number; tags of the drug are given as `drug`."""

    def make(count: int = 1, **tags: Any) -> Path:
        whole = {
            "sop_class": PET,
            "Modality": "PT",
            "Units": "BQML",
            "DecayCorrection": "START",
            "CorrectedImage": ["ATTN", "DECY", "SCAT"],
            "PatientWeight": 70,
            "SeriesDate": "20200101",
            "SeriesTime": "103000",
            "AcquisitionDate": "20200101",
            "AcquisitionTime": "103205.5",
            "RescaleSlope": 10,
            "RescaleIntercept": 0,
            "PixelPaddingValue": 100,
            "RadiopharmaceuticalInformationSequence": Items([drug(**tags.pop("drug", {}))]),
        }
        for one in range(count):
            place = {"ImagePositionPatient": [0, 0, 3.0 * one], "ImageOrientationPatient": list(making.AXIAL)}
            stored = (100 * np.arange(24).reshape(4, 6) + 100).astype(np.int16)
            data = making.image(stored, number=one + 1, **place, PixelSpacing=[4, 4], **(whole | tags))
            making.save(data, tmp_path / "pet" / f"{one}.dcm")
        return tmp_path / "pet"

    return make


def scan(path: Path, **options: str) -> ImageInfo:
    (info,) = scan_with(READER, str(path / "0.dcm"), {"values": "suv"} | options)
    return info


def value_of_1000(info: ImageInfo) -> float:
    """The value where 1000 is stored: 10,000 Bq/ml."""
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    assert valid.sum() == 23
    assert not valid[0, 0]
    return float(values[1, 3, 0])


def test_start_is_corrected_for_decay_from_the_injection(pet: Pet) -> None:
    info = scan(pet())
    assert value_of_1000(info) == pytest.approx(BY_HAND, rel=1e-6)
    assert (info.channels[0].quantity, dict(info.facts)["quantity"]) == ("SUVbw", "SUVbw")
    assert any("START" in note for note in info.notes)


def test_without_the_option_values_are_as_stated(pet: Pet) -> None:
    info = scan(pet(PatientWeight=None), values="")
    assert value_of_1000(info) == 10000
    assert info.channels[0].quantity == "Bq/ml"


def test_admin_is_not_corrected_again(pet: Pet) -> None:
    info = scan(pet(DecayCorrection="ADMIN", SeriesTime=None, drug={"RadiopharmaceuticalStartDateTime": None}))
    assert value_of_1000(info) == pytest.approx(10000 * 70000 / 370e6)


@pytest.mark.parametrize(
    ("time", "scan_time", "noted"),
    [("093000", "103000", "that of the scan"), ("233000.00", "003000", "the day before")],
)
def test_a_time_without_a_day_is_the_one_before_the_scan(pet: Pet, time: str, scan_time: str, noted: str) -> None:
    injected = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": time}
    info = scan(pet(SeriesTime=scan_time, AcquisitionTime=scan_time, drug=injected))
    assert value_of_1000(info) == pytest.approx(BY_HAND, rel=1e-6)
    assert any(noted in note for note in info.notes)


def test_a_series_time_after_the_acquisition_is_replaced_by_the_frame_reference_time(pet: Pet) -> None:
    """A frame of 120 s from 10:35 on, whose activity is the mean one T/2 - λT²/24 = 59.9369 s later: began at 10:30."""
    late = {"SeriesTime": "180000", "AcquisitionTime": "103500", "ActualFrameDuration": 120000}
    info = scan(pet(**late, FrameReferenceTime=(300 + 59.9369) * 1000))
    assert value_of_1000(info) == pytest.approx(BY_HAND, rel=1e-6)
    assert any("frame reference time" in note for note in info.notes)


def test_a_series_time_after_the_acquisition_is_replaced_by_the_begin_that_ge_states(pet: Pet) -> None:
    path = pet(SeriesTime="180000")
    data = pydicom.dcmread(path / "0.dcm")
    data.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200101103000.00")
    data.save_as(path / "0.dcm")
    info = scan(path)
    assert value_of_1000(info) == pytest.approx(BY_HAND, rel=1e-6)
    assert any("GE's own" in note for note in info.notes)


def test_units_of_suv_are_used_as_they_are(pet: Pet) -> None:
    info = scan(pet(Units="GML", PatientWeight=None))
    assert value_of_1000(info) == 10000
    assert info.channels[0].quantity == "SUVbw"


def test_neither_weight_nor_dose_nor_the_factor_leaves_the_sandboxed_process(pet: Pet) -> None:
    info = scan(pet(PatientWeight=71.25, drug={"RadionuclideTotalDose": 371234567.0}))
    told = json.dumps(info.to_json())
    factor = 71250 / (371234567 * 0.684633)
    assert not [one for one in ("71.25", "371234567", "6586.2", "0930", "1030", f"{factor:.4g}"[:5]) if one in told]


def test_the_window_is_in_suv(pet: Pet) -> None:
    path = pet(WindowCenter=16000, WindowWidth=32000)
    assert dict(scan(path).facts)["window_used"].startswith("5/10 LINEAR_EXACT (SUV of 0 to 10")
    assert dict(scan(path, window="2.5/5").facts)["window_used"] == "2.5/5 LINEAR (option window)"


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"PatientWeight": None}, "no Patient's Weight (0010,1030)"),
        ({"PatientWeight": 0}, "Patient's Weight (0010,1030) that is not above 0"),
        ({"Units": "CNTS"}, "Units (0054,1001) of CNTS"),
        ({"Units": "GML", "SUVType": "LBM"}, "SUV Type (0054,1006)"),
        ({"DecayCorrection": "NONE"}, "Decay Correction (0054,1102) of NONE"),
        ({"CorrectedImage": ["ATTN"]}, "no DECY in Corrected Image (0028,0051)"),
        ({"CorrectedImage": ["DECY"]}, "no ATTN in Corrected Image (0028,0051)"),
        ({"RadiopharmaceuticalInformationSequence": None}, "0 items"),
        ({"drug": {"RadionuclideTotalDose": None}}, "no Radionuclide Total Dose (0018,1074)"),
        ({"drug": {"RadionuclideHalfLife": None}}, "no Radionuclide Half Life (0018,1075)"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": None}}, "(0018,1078) or Start Time (0018,1072)"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20200101110000"}}, "(0018,1078) after the scan"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20191201110000"}}, "over two days"),
        ({"SeriesTime": None}, "no Series Date and Time"),
        ({"AcquisitionTime": "later"}, "no Acquisition Date and Time"),
        ({"SeriesTime": "180000"}, "no Frame Reference Time (0054,1300)"),
        ({"SeriesTime": "180000", "FrameReferenceTime": 1}, "no Actual Frame Duration (0018,1242)"),
    ],
)
def test_what_a_file_lacks_is_named(pet: Pet, tags: dict[str, Any], named: str) -> None:
    with pytest.raises(ReadError) as error:
        scan(pet(**tags))
    assert named in str(error.value)
    assert "reader_options.values=suv" in str(error.value)


def test_a_stack_that_lacks_it_fails_and_the_others_do_not(pet: Pet, making: ModuleType) -> None:
    folder = pet(count=2, PatientWeight=None)
    making.save(making.image(making.ramp(), number=50, SeriesInstanceUID=making.uid(7)), folder / "ct.dcm")
    found = READER.scan_folder(str(folder), READER.Options(values="suv"))
    assert [dict(info.facts)["modality"] for info in found.infos] == ["CT"]
    ((files, error),) = found.failed
    assert len(files) == 2
    assert "Patient's Weight" in str(error)
