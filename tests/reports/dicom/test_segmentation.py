"""Segmentations and structure sets of studies: the same voxels as the outlines and as NIfTI, on the original slices."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import shapely
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError
from limner.readers.geometry import Box, Placement
from limner.readers.image import ImageInfo
from limner.reports.contract import check_writer
from limner.reports.dicom.masks import patches
from limner.reports.dicom.rtstruct import DicomRtStruct
from limner.reports.dicom.seg import DicomSeg
from limner.reports.structures import Nifti
from limner.reports.writer import DISCLAIMER, Area, ImageRecord, PartlyWrittenError, Record, UnanalysedRegion
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from scipy import ndimage

pytestmark = pytest.mark.filterwarnings("ignore:The value length")  # of a made thickness, which is too long

LABELS = ("lesion", "organ")
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
PATIENT: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientID": "7",
    "PatientBirthDate": "",
    "PatientSex": "F",
    "StudyDate": "20250102",
    "StudyTime": "101112",
    "StudyID": "1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "SeriesNumber": 1,
    "Manufacturer": "made",
}
TILT = 0.3
"""mm along y for each mm along z."""


@dataclass
class Study:
    """A made study of one image, and what was found in it."""

    info: ImageInfo
    folder: Path
    maps: Any
    """(slices, rows, columns) the number of a label, or 0."""
    findings: list[Finding] = field(default_factory=list)

    def record(self, *, volume: bool = False, **more: Any) -> Record:
        """The record of a run that found these areas."""
        facts: dict[str, Any] = {
            "info": self.info,
            "findings": lambda: self.findings,
            "overview": lambda: None,
            "areas": (Area("analysed", "", 1.0, None, 1),),
            "original": lambda: self.info,
            "label_maps": (lambda: iter(self.maps)) if volume else None,
        }
        image = ImageRecord(**{**facts, **more})
        model = {"name": "toy", "version": "1", "sha256": "0" * 64}
        return Record((image,), (), model, LABELS, "0.1.0", started="2026-01-02T03:04:05+00:00", run="1" * 64)


def _files(kind: str, making: ModuleType) -> list[Any]:
    ramp = making.ramp(14, 11)
    plain: dict[str, Any] = {"PixelSpacing": [0.75, 0.4], "SliceThickness": 2, **PATIENT}

    def stack(orientation: Sequence[float], positions: Any, **tags: Any) -> list[Any]:
        normal = np.cross(orientation[:3], orientation[3:])
        return [
            making.image(
                ramp,
                number=number + 1,
                ImagePositionPatient=[f"{value:.9g}" for value in [-11.3, 20.7, 30.1] + normal * at[0] + [0, at[1], 0]],
                ImageOrientationPatient=list(orientation),
                **{**plain, **tags},
            )
            for number, at in enumerate(positions)
        ]

    regular = [(2.5 * number, 0.0) for number in range(5)]
    if kind == "multi-frame":
        image = making.enhanced([6.0, 0.0, 9.0, 3.0], slopes=[1, 1, 1, 1])
        for name, value in PATIENT.items():
            setattr(image, name, value)
        return [image]
    return {
        "plain": lambda: stack(making.AXIAL, regular),
        "oblique": lambda: stack(OBLIQUE, regular),
        "sagittal": lambda: stack(making.SAGITTAL, regular, SliceThickness="0.666666686534882"),  # 17 characters
        "tilted": lambda: stack(making.AXIAL, [(at, TILT * at) for at, _ in regular]),
        "uneven": lambda: stack(making.AXIAL, [(0.0, 0.0), (2.5, 0.0), (7.5, 0.0), (8.1, 0.0)]),
        "no character set": lambda: stack(making.AXIAL, regular, SpecificCharacterSet="", PatientName="Doe"),
        "slice without a thickness": lambda: stack(making.AXIAL, regular[:1], SliceThickness=""),
        "projection": lambda: [
            making.image(
                ramp, sop_class=making.CR, ImagerPixelSpacing=[0.2, 0.2], PatientOrientation=["L", "F"], **PATIENT
            )
        ],
    }[kind]()


UNPLACED = ("slice without a thickness", "projection")  # as far as a segmentation can state
KINDS = ("plain", "oblique", "sagittal", "tilted", "uneven", "no character set", "multi-frame", *UNPLACED)
VOLUMES = ("plain", "oblique", "sagittal", "no character set", "multi-frame")


@pytest.fixture
def made(tmp_path: Path, making: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Study]:
    """A study of a kind, with areas in all slices but one."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "a key that is only good for tests")

    def make(kind: str) -> Study:
        folder = making.save_all(_files(kind, making), tmp_path / "study")
        [info] = scan_with(DicomReader(), str(folder), {})
        random = np.random.default_rng(5)
        noise = ndimage.gaussian_filter(random.normal(size=(len(info.planes), *info.size[::-1])), (0, 1, 1))
        maps = ((noise > 0.1) + 2 * (noise < -0.12)).astype(np.uint8)
        maps[1:2] = 0
        maps[0, 1:4, 1:4], maps[0, 2, 2] = 1, 0  # with a hole
        findings = [
            Finding(LABELS[one.value - 1], one.polygon, "area", 0.5, plane=plane)
            for plane, label_map in enumerate(maps)
            for one in polygonise(label_map, np.ones(label_map.shape, np.float32), label_map > 0)
        ]
        random.shuffle(findings)  # type: ignore[arg-type]
        return Study(info, folder, maps, findings)

    return make


def written(writer: DicomSeg | DicomRtStruct | Nifti, record: Record, folder: Path) -> Path:
    """The only file of a report."""
    folder.mkdir(exist_ok=True)
    [path] = writer.write(record, folder)
    return path


def errors(path: Path) -> set[str]:
    """The errors that dciodvfy finds in a file."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy of Debian's dicom3tools is not installed")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def place(position: Any, orientation: Any, spacing: Any) -> Any:
    """(3, 3): mm (LPS) of (column, row, 1), counted from pixel centres, of a slice (PS3.3 C.7.6.2.1.1)."""
    row, column = np.reshape(np.asarray(orientation, float), (2, 3))
    return np.stack([row * float(spacing[1]), column * float(spacing[0]), np.asarray(position, float)], axis=1)


def frames(dataset: Any) -> Iterator[tuple[str, Any, Any]]:
    """(label, functional groups, mask) of each frame, with the bits unpacked by hand."""
    rows, columns, count = dataset.Rows, dataset.Columns, int(dataset.NumberOfFrames)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    masks = bits[: rows * columns * count].reshape(count, rows, columns)
    names = {one.SegmentNumber: one.SegmentLabel for one in dataset.SegmentSequence}
    for groups, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
        yield names[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber], groups, mask.astype(bool)


def sources(folder: Path) -> dict[tuple[str, int | None], Any]:
    """Instance and frame (None for the only one) → the place of each original slice."""
    found = {}
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        if "PerFrameFunctionalGroupsSequence" not in dataset:
            found[dataset.SOPInstanceUID, None] = dataset
            continue
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for number, own in enumerate(dataset.PerFrameFunctionalGroupsSequence, 1):
            frame = pydicom.Dataset()
            frame.ImagePositionPatient = own.PlanePositionSequence[0].ImagePositionPatient
            frame.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            frame.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
            frame.FrameOfReferenceUID, frame.StudyInstanceUID = dataset.FrameOfReferenceUID, dataset.StudyInstanceUID
            found[dataset.SOPInstanceUID, number] = frame
    return found


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_the_pixels_and_the_place_of_their_sources(
    kind: str, volume: bool, made: Callable[[str], Study], tmp_path: Path
) -> None:
    study = made(kind)
    dataset = pydicom.dcmread(written(DicomSeg(), study.record(volume=volume), tmp_path / "out"))
    originals, seen = sources(study.folder), np.zeros_like(study.maps)
    by_instance = {(plane.source, plane.frame): number for number, plane in enumerate(study.info.planes)}
    files = {pydicom.dcmread(path).SOPInstanceUID: str(path) for path in study.folder.iterdir()}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    indices = []
    for label, groups, mask in frames(dataset):
        assert mask.any()
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        key = source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")
        original = originals[key]
        assert dataset.StudyInstanceUID == original.StudyInstanceUID
        number = by_instance[files[key[0]], key[1] or 1]
        seen[number][mask] = LABELS.index(label) + 1
        indices.append(tuple(groups.FrameContentSequence[0].DimensionIndexValues))
        if kind in UNPLACED:
            assert "FrameOfReferenceUID" not in dataset
            assert "PlanePositionSequence" not in groups
            assert (dataset.PatientOrientation or None) == (["L", "F"] if kind == "projection" else None)
            continue
        assert dataset.FrameOfReferenceUID == original.FrameOfReferenceUID
        own = place(
            groups.PlanePositionSequence[0].ImagePositionPatient,
            shared.PlaneOrientationSequence[0].ImageOrientationPatient,
            shared.PixelMeasuresSequence[0].PixelSpacing,
        )
        theirs = place(original.ImagePositionPatient, original.ImageOrientationPatient, original.PixelSpacing)
        assert np.abs(own - theirs).max() < 1e-8
        assert len(str(shared.PixelMeasuresSequence[0].SliceThickness)) <= 16
    assert np.array_equal(seen, study.maps)
    assert len(set(indices)) == len(indices)
    for axis in np.array(indices).T:
        assert sorted(set(axis.tolist())) == list(range(1, len(set(axis.tolist())) + 1))


@pytest.mark.parametrize("kind", VOLUMES)
def test_segmentation_nifti_and_outlines_agree_voxel_for_voxel(
    kind: str, made: Callable[[str], Study], tmp_path: Path
) -> None:
    study = made(kind)
    record = study.record(volume=True)
    nifti: Any = nibabel.load(written(Nifti(), record, tmp_path / "nifti"))  # type: ignore[attr-defined]
    values = np.asarray(nifti.dataobj)
    to_voxel = np.linalg.inv(nifti.affine)
    seen = np.zeros_like(values)
    dataset = pydicom.dcmread(written(DicomSeg(), record, tmp_path / "seg"))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for label, groups, mask in frames(dataset):
        rows, columns = np.nonzero(mask)
        matrix = place(
            groups.PlanePositionSequence[0].ImagePositionPatient,
            shared.PlaneOrientationSequence[0].ImageOrientationPatient,
            shared.PixelMeasuresSequence[0].PixelSpacing,
        )
        lps = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ matrix.T
        voxels = np.append(lps * [-1, -1, 1], np.ones((len(lps), 1)), axis=1) @ to_voxel.T
        assert np.abs(voxels - np.rint(voxels)).max() < 1e-4
        seen[tuple(np.rint(voxels[:, :3]).astype(int).T)] = LABELS.index(label) + 1
    assert np.array_equal(seen, values)
    outlined = np.zeros_like(study.maps)
    for patch in patches(study.record().images[0], LABELS):
        outlined[patch.plane][patch.mask] = LABELS.index(patch.label) + 1
    assert np.array_equal(outlined, study.maps)
    assert np.array_equal(values, study.maps.T)


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_reads_the_same_voxels(kind: str, made: Callable[[str], Study], tmp_path: Path) -> None:
    from highdicom.seg import segread

    study = made(kind)
    read = segread(written(DicomSeg(), study.record(), tmp_path / "out"))
    assert [read.get_segment_description(number).segment_label for number in read.segment_numbers] == list(LABELS)
    planes = study.info.planes
    uids = {str(path): pydicom.dcmread(path).SOPInstanceUID for path in study.folder.iterdir()}
    options: dict[str, Any] = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    options["ignore_spatial_locations"] = kind in UNPLACED
    if kind == "multi-frame":
        numbers = [plane.frame for plane in planes]
        found = read.get_pixels_by_source_frame(next(iter(uids.values())), numbers, **options)
    else:
        found = read.get_pixels_by_source_instance([uids[plane.source] for plane in planes], **options)
    assert np.array_equal(found, study.maps)
    if kind in VOLUMES:  # highdicom orders slices against their normal
        volume = read.get_volume(combine_segments=True, allow_missing_positions=True)
        corner = volume.map_reference_to_indices(np.asarray([planes[0].placement.to_world([[0.5, 0.5]])[0]]))
        assert np.abs(corner[0] - np.rint(corner[0])).max() < 1e-4
        assert np.count_nonzero(volume.array) == np.count_nonzero(study.maps)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "projection"])
def test_contours_enclose_the_same_pixels(kind: str, made: Callable[[str], Study], tmp_path: Path) -> None:
    study = made(kind)
    assert any(shapely.get_num_interior_rings(one.geometry) for one in study.findings)
    dataset = pydicom.dcmread(written(DicomRtStruct(), study.record(), tmp_path / "out"))
    names = {one.ROINumber: one.ROIName for one in dataset.StructureSetROISequence}
    assert list(names.values()) == list(LABELS)
    uids = {pydicom.dcmread(path).SOPInstanceUID: str(path) for path in study.folder.iterdir()}
    by_instance = {(plane.source, plane.frame): number for number, plane in enumerate(study.info.planes)}
    findings = []
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            [source] = contour.ContourImageSequence
            key = uids[source.ReferencedSOPInstanceUID], int(source.get("ReferencedFrameNumber", 1))
            points = np.reshape(np.asarray(contour.ContourData, float), (-1, 3))
            assert (contour.ContourGeometricType, contour.NumberOfContourPoints) == ("CLOSED_PLANAR", len(points))
            assert not np.array_equal(points[0], points[-1])
            plane = study.info.planes[by_instance[key]]
            pixels = plane.placement.to_pixel(points)
            assert np.abs(plane.placement.to_world(pixels) - points).max() < 1e-4  # in the plane of the slice
            assert np.abs(pixels - np.rint(pixels)).max() < 1e-3  # on edges of pixels
            ring = shapely.Polygon(pixels)
            findings.append(Finding(names[roi.ReferencedROINumber], ring, "area", plane=by_instance[key]))
    seen = np.zeros_like(study.maps)
    for patch in patches(replace(study.record().images[0], findings=lambda: findings), LABELS):
        seen[patch.plane][patch.mask] = LABELS.index(patch.label) + 1
    assert np.array_equal(seen, study.maps)
    assert {one.ReferencedROINumber for one in dataset.RTROIObservationsSequence} == set(names)
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == next(iter(sources(study.folder).values())).FrameOfReferenceUID
    [series] = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert len(series.ContourImageSequence) == len(study.info.planes)


@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error_beyond_the_sources_own(
    kind: str, writer: Any, made: Callable[[str], Study], tmp_path: Path
) -> None:
    study = made(kind)
    if kind == "projection" and writer.name == "dicom-rtstruct":
        assert writer.write(study.record(), tmp_path) == []
        assert "no place in the patient" in writer.omitted(study.record())[study.info.id]
        return
    known = set().union(*(errors(path) for path in study.folder.iterdir()))
    assert errors(written(writer, study.record(), tmp_path / "out")) <= known


def test_slices_at_the_same_positions_have_a_segmentation_each(
    making: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "a key that is only good for tests")
    once = making.slices(3, EchoTime=10, **PATIENT)
    again = making.slices(3, EchoTime=20, **PATIENT)
    for number, image in enumerate(again, 4):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = making.uid(1000 + number)
        image.InstanceNumber = number
    folder = making.save_all([*once, *again], tmp_path / "study")
    infos = scan_with(DicomReader(), str(folder), {})
    assert len(infos) == 2
    square = shapely.box(1, 1, 3, 4)
    for info in infos:
        study = Study(info, folder, None, [Finding("lesion", square, "area", plane=plane) for plane in range(3)])
        path = written(DicomSeg(), study.record(), tmp_path / info.id)
        dataset = pydicom.dcmread(path)
        assert dataset.NumberOfFrames == 3
        named = {one.ReferencedSOPInstanceUID for one in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
        assert named == {pydicom.dcmread(plane.source).SOPInstanceUID for plane in info.planes}


@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
def test_objects_are_filed_in_the_study_in_a_series_of_their_own(
    writer: Any, made: Callable[[str], Study], tmp_path: Path
) -> None:
    study = made("oblique")
    path = written(writer, study.record(), tmp_path / "out")
    assert path.stat().st_mode & 0o777 == 0o600
    dataset, source = pydicom.dcmread(path), pydicom.dcmread(study.info.planes[0].source)
    for name in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
        assert dataset[name].value == source[name].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert "not for diagnosis" in dataset.SeriesDescription
    assert DISCLAIMER in dataset.ContributingEquipmentSequence[0].ContributionDescription


def test_segments_state_the_algorithm_the_colour_and_a_tracking_uid(
    made: Callable[[str], Study], tmp_path: Path
) -> None:
    from highdicom.color import CIELabColor

    record = replace(made("plain").record(), colours={"lesion": "#ff0000"})
    dataset = pydicom.dcmread(written(DicomSeg(), record, tmp_path / "out"))
    again = pydicom.dcmread(written(DicomSeg(), replace(record, run="2" * 64), tmp_path / "other"))
    for one, other in zip(dataset.SegmentSequence, again.SegmentSequence, strict=True):
        assert one.SegmentAlgorithmType == "AUTOMATIC"
        assert one.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "toy"
        assert one.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99LIMNER"
        assert one.TrackingUID == other.TrackingUID  # of the same structure in another run
    colour = CIELabColor.from_dicom_value(dataset.SegmentSequence[0].RecommendedDisplayCIELabValue)
    assert colour.to_rgb() == (255, 0, 0)
    assert dataset.SOPInstanceUID != again.SOPInstanceUID
    assert DISCLAIMER in dataset.SegmentSequence[0].SegmentDescription
    assert dataset.ContentDescription == "Areas by label"
    left_out = (UnanalysedRegion(Box(0, 0, 11, 14), "skipped", "not chosen", 1),)
    for writer in (DicomSeg(), DicomRtStruct()):
        path = written(writer, made("plain").record(unanalysed=left_out), tmp_path / writer.name)
        assert b"Not all of it was analysed" in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
def test_writers_keep_the_contract_with_originals(writer: Any, made: Callable[[str], Study], tmp_path: Path) -> None:
    (tmp_path / "contract").mkdir()
    check_writer(writer, made("plain").record(), tmp_path / "contract")


@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
def test_images_that_have_no_mask_are_named(writer: Any, made: Callable[[str], Study], tmp_path: Path) -> None:
    study = made("plain")
    name = study.info.id
    boxes = [Finding("lesion", shapely.box(0, 0, 4, 4), "box")]
    for record, reason in (
        (study.record(findings=list), "no findings"),
        (study.record(findings=lambda: boxes), "boxes, tiles or regions"),
        (study.record(original=None), "original files are not known"),
        (replace(study.record(), started=""), "does not state when it began"),
        (study.record(info=replace(study.info, kind="map", placement=Placement.pixels())), "it is a map"),
    ):
        assert writer.write(record, tmp_path) == []
        assert reason in writer.omitted(record)[name]
    assert writer.omitted(study.record()) == {}


@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
def test_originals_that_are_gone_or_have_changed_are_refused(
    writer: Any, made: Callable[[str], Study], tmp_path: Path
) -> None:
    study = made("plain")
    out = tmp_path / "out"
    out.mkdir()

    def changed() -> ImageInfo:
        raise ReadError(study.info.id, "must not change between the run and its reports", remedy="Restore the file")

    for record, reason in ((study.record(original=changed), "must not change"), (study.record(), "must")):
        if record.images[0].original is not changed:
            shutil.rmtree(study.folder)
        with pytest.raises(PartlyWrittenError) as raised:
            writer.write(record, out)
        assert reason in raised.value.omitted[study.info.id]
        assert str(study.folder) not in raised.value.omitted[study.info.id]
        assert list(out.iterdir()) == []


def test_areas_between_the_centres_of_pixels_are_refused(made: Callable[[str], Study], tmp_path: Path) -> None:
    study = made("plain")
    study.findings = [Finding("lesion", shapely.box(1.6, 1.6, 2.4, 2.4), "area")]
    with pytest.raises(PartlyWrittenError) as raised:
        DicomSeg().write(study.record(), tmp_path)
    assert "the centre of a pixel" in raised.value.omitted[study.info.id]


def test_labels_are_texts_of_dicom(made: Callable[[str], Study], tmp_path: Path) -> None:
    study = made("plain")
    labels = ("a\\b\u202e" + "c" * 100, "\ud800\x00")
    study.findings = [Finding(label, shapely.box(1, 1, 3, 3), "area") for label in labels]
    for writer in (DicomSeg(), DicomRtStruct()):
        path = written(writer, replace(study.record(), labels=labels), tmp_path / "out")
        dataset = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        if writer.name == "dicom-seg":
            named = [one.SegmentLabel for one in dataset.SegmentSequence]
        else:
            named = [one.ROIName for one in dataset.StructureSetROISequence]
        assert named[0].startswith("a/b")
        assert len(named[0]) == 64
        assert len(named) == 2


@pytest.mark.parametrize("writer", [DicomSeg(), DicomRtStruct()], ids=lambda writer: writer.name)
def test_odd_headers_are_taken_over_in_silence(
    writer: Any, making: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "a key that is only good for tests")
    odd: dict[str, Any] = {
        "PatientSex": "X",
        "PatientBirthDate": "31.12.1970",
        "PositionReferenceIndicator": "x" * 100,
        "StudyID": "much too long for a short string",
        "PatientWeight": "heavy",
    }
    images = making.slices(3, **PATIENT)
    for image in images:
        for name, value in odd.items():
            vr = dictionary_VR(name).replace("DS", "LO")
            image.add(pydicom.DataElement(tag_for_keyword(name) or 0, vr, value, validation_mode=IGNORE))
    folder = making.save_all(images, tmp_path / "study")
    [info] = scan_with(DicomReader(), str(folder), {})
    study = Study(info, folder, None, [Finding("lesion", shapely.box(1, 1, 3, 4), "area")])
    recwarn.clear()
    path = written(writer, study.record(), tmp_path / "out")
    assert [str(one.message) for one in recwarn] == []
    assert pydicom.dcmread(path).PatientID == "7"
