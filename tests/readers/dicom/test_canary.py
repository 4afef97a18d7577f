"""A patient's name planted in every text is in no output; a control shows that the test would find it."""

import json
import logging
import pickle
import struct
import warnings
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from limner.model.finding import Finding
from limner.pipelines.run.redaction import Redactor
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import LimnerError
from limner.readers.image import ImageInfo
from limner.readers.pseudonyms import NameOptions, Pseudonyms
from limner.reports.studies import StudiesCsv
from limner.reports.writer import ImageRecord, Record
from pydantic import TypeAdapter
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from shapely.geometry import box

NAME = "CANARYBIRD"
TEXTS = {"AE": 16, "CS": 16, "LO": 64, "LT": 1000, "PN": 64, "SH": 16, "ST": 1000, "UC": 64, "UT": 1000}
KEEP = {"SpecificCharacterSet", "PhotometricInterpretation", "TransferSyntaxUID"}
READER = DicomReader()


def plant(data: Dataset) -> int:
    """Put the name into every text attribute of the dictionary; returns into how many."""
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, (vr, *_) in DicomDictionary.items():
            name = keyword_for_tag(tag)
            if vr in TEXTS and name and name not in KEEP and tag >> 16 not in {0, 2, 4} and tag < 0x7FE00000:
                setattr(data, name, f"{NAME}{tag:08X}"[: TEXTS[vr]])
                count += 1
    data.add_new(0x00091001, "LO", NAME)
    data.StudyDate, data.PatientBirthDate = "19340203", "19340203"
    return count


def mosaic(making: ModuleType) -> Dataset:
    """A mosaic with the name in its private header, its region's code and its procedure's, and a time of day."""
    kind = ["ORIGINAL", "PRIMARY", "MOSAIC"]
    data = making.image(making.ramp(), sop_class=making.MR, number=80, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    plant(data)
    data.ImageType, data.SOPInstanceUID = kind, making.uid(1080)
    data.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 4)
    header = b"SV10" + bytes(4) + struct.pack("<2I64si4s3i", 1, 77, NAME.encode(), 1, b"IS", 6, 1, 77)
    header += struct.pack("<4i", 10, 10, 77, 10) + NAME.encode() + bytes(2)
    data.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    code = making.item(CodeValue=NAME, CodingSchemeDesignator="SCT", CodeMeaning=f"CT {NAME}")
    data.AnatomicRegionSequence = data.ProcedureCodeSequence = code
    data.AcquisitionDate, data.AcquisitionTime = "19340203", "123456.789"
    return data


@pytest.fixture
def aviary(tmp_path: Path, making: ModuleType) -> Path:
    """A folder of studies whose every text, file name and folder name is the patient's, some of it damaged."""
    folder = tmp_path / f"{NAME}^JOHN"
    images = making.slices(4, WindowCenter=1, WindowWidth=2, WindowCenterWidthExplanation=NAME)
    for k, data in enumerate(images):
        assert plant(data) > 800
        path = making.save(data, folder / f"{NAME}_{k}.{NAME}")
        assert NAME.encode() in path.read_bytes()
    whole = path.read_bytes()
    making.save(mosaic(making), folder / f"{NAME}_mosaic.dcm")
    (folder / f"{NAME}_cut.dcm").write_bytes(whole[:-30])
    (folder / f"{NAME}_text.dcm").write_bytes(NAME.encode() * 99)
    radiograph = making.image(
        making.ramp(), sop_class=making.CR, number=70, StudyInstanceUID=f"../{NAME}", SeriesInstanceUID=f"/{NAME}"
    )
    plant(radiograph)
    radiograph.Rows = 9
    making.save(radiograph, folder / f"{NAME}_short.dcm")
    radiograph.Rows = 8
    making.save(radiograph, folder / f"{NAME}_cr.dcm")
    bad = whole.replace(b"DS" + struct.pack("<H", 2) + b"2 ", b"DS" + struct.pack("<H", 2) + b"X ")
    (folder / f"{NAME}_window.dcm").write_bytes(bad)
    (folder / f"{NAME}.zip").write_bytes(
        making.archive({f"{NAME}/{NAME}.dcm": whole, f"../{NAME}": whole, f"{NAME}.txt": b"?"})
    )
    return folder


Streams = tuple[pytest.LogCaptureFixture, pytest.CaptureFixture[str]]


@pytest.fixture
def streams(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Streams:
    """What is logged, and what is printed."""
    return caplog, capfd


def everything_told(folder: Path, out: Path, identities: Literal["hide", "show"], streams: Streams) -> str:
    """All output of scanning, reading, failing and writing tables, as one text."""
    caplog, capfd = streams
    options = {"names": identities}
    told: list[str] = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        scanned = READER.scan_folder(str(folder), READER.Options(names=identities))
        infos = list(scanned.infos)
        told += [str(error) for _, error in scanned.failed] + [reason for _, reason in scanned.side]
        for path in sorted(folder.iterdir()):
            try:
                infos += scan_with(READER, str(path), options)
            except LimnerError as error:
                told += [str(error), repr(error), str(pickle.loads(pickle.dumps(error)))]  # noqa: S301 - our own
        for path in sorted(folder.glob("*_3.*")):
            path.rename(folder / "moved")
        for info in infos:
            try:
                with READER.open(info) as image:
                    image.read(info.box, (16, 16))
            except LimnerError as error:
                told.append(str(error))
        told += [str(warning.message) for warning in warned]
    redactor = Redactor(Pseudonyms.of(NameOptions(names="hide")) if identities == "hide" else None)
    records = tuple(_record(redactor.info(info)) for info in infos)  # as in the manifest of a run
    (out / identities).mkdir(parents=True)
    StudiesCsv().write(Record(records, (), {"name": "m", "version": "1"}, ("seen",), "0"), out / identities)
    told += [path.read_text(encoding="utf-8") for path in sorted((out / identities).iterdir())]
    told += [json.dumps(_whitelisted(info)) for info in infos]
    captured = capfd.readouterr()
    assert len(infos) >= 4
    assert len(told) > 12
    return "\n".join([*told, caplog.text, captured.out, captured.err])


def _record(info: ImageInfo) -> ImageRecord:
    finding = Finding("seen", box(1, 1, 3, 3), "box", 0.5)
    return ImageRecord(info, lambda: [finding], lambda: None, ())


def _whitelisted(info: ImageInfo) -> dict[str, object]:
    """An image's facts without the two fields by which it is opened: they hold paths and are for this machine only."""
    plain = TypeAdapter(ImageInfo).dump_python(info, mode="json")
    return {
        k: v if k != "planes" else [{n: x for n, x in c.items() if n != "source"} for c in v]
        for k, v in plain.items()
        if k != "files"
    }


@pytest.mark.slow
def test_no_patient_data_is_in_any_output(aviary: Path, tmp_path: Path, streams: Streams) -> None:
    told = everything_told(aviary, tmp_path / "out", "hide", streams)
    assert NAME not in told.upper()
    assert "19340203" not in told
    assert not {"123456.789", "45296.789"} & {word.strip(',"') for word in told.split()}, "the time of day, in seconds"
    assert "1.2.826.0.1.3680043.8.498" not in told


@pytest.mark.slow
def test_the_control_finds_planted_patient_data(aviary: Path, tmp_path: Path, streams: Streams) -> None:
    told = everything_told(aviary, tmp_path / "out", "show", streams)
    assert NAME in told.upper()
    assert "1.2.826.0.1.3680043.8.498" in told
