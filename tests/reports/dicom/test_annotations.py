"""Annotations and segmentations of DICOM slides: coordinates from the corner of the total pixel matrix."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import shapely
from limner.model.finding import Finding
from limner.model.probabilities import NODATA
from limner.readers.contract import scan_with
from limner.readers.geometry import Box, Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.regions import Grid, Region, cut_regions
from limner.readers.slide.openslide import SlideReader
from limner.reports.contract import check_writer
from limner.reports.dicom.ann import DicomAnn
from limner.reports.dicom.seg import DicomSeg, SegOptions
from limner.reports.writer import DISCLAIMER, Area, ImageRecord, PartlyWrittenError, Record
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE = 64
ORIGIN = (20.5, 30.25)  # mm
SPACING = (0.0005, 0.00025)  # mm between rows, between columns
TURNED = [0, -1, 0, -1, 0, 0]  # along a row and down a column, on the slide


def item(**elements: Any) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def write_level(path: Path, pixels: Any, number: int = 1, **more: Any) -> None:
    """A level of a slide in tiles of 64 px, with all that dciodvfy asks for."""
    height, width = pixels.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    padded[:height, :width] = pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(WHOLE_SLIDE), UID(f"1.2.3.4.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    origin = item(XOffsetInSlideCoordinateSystem=ORIGIN[0], YOffsetInSlideCoordinateSystem=ORIGIN[1])
    kind = ["ORIGINAL" if number == 1 else "DERIVED", "PRIMARY", "VOLUME", "NONE" if number == 1 else "RESAMPLED"]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=list(SPACING), SliceThickness=0.001)],
        WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=kind)],
    )
    specimen = item(
        SpecimenIdentifier="S1",
        SpecimenUID="1.2.3.9",
        IssuerOfTheSpecimenIdentifierSequence=[],
        SpecimenPreparationSequence=[],
    )
    path_item = item(
        OpticalPathIdentifier="1",
        IlluminationTypeCodeSequence=code("111744", "DCM", "Brightfield illumination"),
        IlluminationColorCodeSequence=code("371251000", "SCT", "White color"),
        ICCProfile=b"\0\0",
        ColorSpace="SRGB",
    )
    slide = item(
        SOPClassUID=WHOLE_SLIDE,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        FrameOfReferenceUID="1.2.3.5",
        PositionReferenceIndicator="SLIDE_CORNER",
        DimensionOrganizationSequence=[item(DimensionOrganizationUID="1.2.3.6")],
        DimensionOrganizationType="TILED_FULL",
        ImageType=kind,
        Modality="SM",
        **dict.fromkeys(["PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"], ""),
        PatientName="Doe^Jane",
        PatientID="7",
        ReferringPhysicianName="",
        SeriesNumber=1,
        InstanceNumber=number,
        Manufacturer="made",
        ManufacturerModelName="made",
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        AcquisitionContextSequence=[],
        ContentDate="20250101",
        ContentTime="101112",
        AcquisitionDateTime="20250101101112",
        ContainerIdentifier="C1",
        IssuerOfTheContainerIdentifierSequence=[],
        ContainerTypeCodeSequence=[],
        SpecimenDescriptionSequence=[specimen],
        ImagedVolumeWidth=width * SPACING[1],
        ImagedVolumeHeight=height * SPACING[0],
        ImagedVolumeDepth=1.0,
        LossyImageCompression="00",
        VolumetricProperties="VOLUME",
        SpecimenLabelInImage="NO",
        BurnedInAnnotation="NO",
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
        NumberOfOpticalPaths=1,
        OpticalPathSequence=[path_item],
        TotalPixelMatrixOriginSequence=[origin],
        ImageOrientationSlide=TURNED,
        TotalPixelMatrixRows=height,
        TotalPixelMatrixColumns=width,
        TotalPixelMatrixFocalPlanes=1,
        SharedFunctionalGroupsSequence=[shared],
        NumberOfFrames=rows * columns,
        Rows=TILE,
        Columns=TILE,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).tobytes(),
    )
    for name, value in more.items():
        if value is None:
            del slide[name]
        else:
            setattr(slide, name, value)
    slide.file_meta = meta
    slide.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> ImageInfo:
    """A white slide of 200 × 150 px with a red rectangle from (70, 20) to (140, 90), and half of it as a level."""
    folder = tmp_path_factory.mktemp("slide")
    pixels = np.full((150, 200, 3), 255, np.uint8)
    pixels[20:90, 70:140] = 255, 0, 0
    write_level(folder / "b.dcm", pixels)
    write_level(folder / "a.dcm", pixels[::2, ::2], 2)
    [info] = scan_with(SlideReader(), str(folder / "a.dcm"), {"microns_per_pixel": "0.25,0.5"})
    return replace(info, id="slide-1")


def record(info: ImageInfo, *findings: Finding, **more: Any) -> Record:
    areas = (Area("analysed", "", 1.0, None, 1),)
    image = ImageRecord(info, lambda: findings, lambda: None, areas, **{"original": lambda: info, **more})
    model = {"name": "toy", "version": "1", "sha256": "0" * 64}
    return Record((image,), (), model, ("tumour", "stroma"), "0.1.0", started="2026-01-02T03:04:05+00:00", run="1" * 64)


RED = shapely.box(70, 20, 140, 90)
HOLE = shapely.box(5, 100, 60, 145).difference(shapely.box(10, 110, 20, 120)).difference(shapely.box(30, 110, 40, 120))
PARTS = shapely.MultiPolygon([shapely.box(150, 5, 160.25, 15), shapely.box(170, 100, 199.5, 150)])
FINDINGS = (
    Finding("tumour", RED, "area", 0.75),
    Finding("stroma", PARTS, "area"),
    Finding("tumour", HOLE, "area", 0.5),
    Finding("tumour", shapely.box(1, 1, 9, 8), "box", 0.25),
)


FRACTIONAL = DicomSeg(SegOptions(type="fractional"))


def with_probabilities(slide: ImageInfo) -> tuple[Record, Any]:
    """A record with steps (labels, H, W) on pixels of 2 × 3 of the slide's, of which the last reach beyond it."""
    grid = Grid(slide.id, slide.size, (2.0, 3.0))
    width, height = grid.shape
    steps = np.zeros((2, height, width), np.uint8)
    steps[0, 10:40, 70:90] = np.arange(30)[:, None] * 8
    steps[0, 0, 0], steps[0, 12, 80:] = NODATA, NODATA
    regions = [one for one in cut_regions(grid, tile=32, halo=0) if one.core.x0 < 190]

    def kept() -> Iterator[tuple[Region, Any]]:
        for one in regions:
            c, r = one.columns, one.rows
            yield one, steps[:, r.core_start : r.core_stop, c.core_start : c.core_stop]

    return record(slide, *FINDINGS, grid=grid, probabilities=kept), steps


def written(writer: Any, made: Record, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    [path] = writer.write(made, folder)
    return path


def rings(group: Dataset) -> list[Any]:
    """The vertices of each annotation of a group, by the index list as PS3.3 C.37.1.2 defines it."""
    double = "DoublePointCoordinatesData" in group
    data = group.DoublePointCoordinatesData if double else group.PointCoordinatesData
    points = np.frombuffer(data, "<f8" if double else "<f4").reshape(-1, 2)
    starts = (np.frombuffer(group.LongPrimitivePointIndexList, "<u4") - 1) // 2
    assert len(starts) == group.NumberOfAnnotations
    return np.split(points, starts[1:])


def values(group: Dataset) -> dict[str, list[float]]:
    """Measurements by name."""
    found = {}
    for one in group.MeasurementsSequence:
        content = one.MeasurementValuesSequence[0]
        assert "AnnotationIndexList" not in content
        numbers = np.frombuffer(content.FloatingPointValues, "<f4").tolist()
        found[one.ConceptNameCodeSequence[0].CodeMeaning.lower()] = numbers
    return found


def test_annotations_lie_where_the_slide_shows_them(slide: ImageInfo, tmp_path: Path) -> None:
    with SlideReader().open(slide) as image:
        pixels, _ = image.read(Box(0, 0, 200, 150), (200, 150))
    red = pixels[..., 1] < 128
    assert (np.argwhere(red).min(axis=0).tolist(), np.argwhere(red).max(axis=0).tolist()) == ([20, 70], [89, 139])
    dataset = pydicom.dcmread(written(DicomAnn(), record(slide, *FINDINGS), tmp_path / "out"))
    assert (dataset.AnnotationCoordinateType, dataset.PixelOriginInterpretation) == ("2D", "VOLUME")
    level = pydicom.dcmread(Path(slide.uri).parent / "b.dcm")
    assert dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID == level.SOPInstanceUID
    assert (level.TotalPixelMatrixColumns, level.TotalPixelMatrixRows) == slide.size
    assert (dataset.StudyInstanceUID, dataset.ContainerIdentifier) == (level.StudyInstanceUID, "C1")
    groups = list(dataset.AnnotationGroupSequence)
    assert [(one.AnnotationGroupNumber, one.AnnotationGroupLabel) for one in groups] == [
        (1, "stroma"),
        (2, "tumour"),
        (3, "tumour"),
    ]
    assert [one.AnnotationGroupDescription.partition(".")[0] for one in groups[1:]] == [
        "areas traced from a class map",
        "boxes",
    ]
    assert DISCLAIMER in groups[0].AnnotationGroupDescription
    stroma, tumour, boxes = ([shapely.Polygon(ring) for ring in rings(group)] for group in groups)
    assert [one.bounds for one in stroma] == [(150, 5, 160.25, 15), (170, 100, 199.5, 150)]
    assert [one.bounds for one in tumour] == [RED.bounds, HOLE.bounds]
    assert shapely.equals(tumour[0], RED)
    assert shapely.equals(tumour[1].buffer(0), HOLE)
    assert [one.bounds for one in boxes] == [(1, 1, 9, 8)]
    um2 = 0.25 * 0.5
    assert values(groups[0]) == {"area": [102.5 * um2, 29.5 * 50 * um2], "finding": [2, 2]}
    assert values(groups[1]) == {"area": [4900 * um2, HOLE.area * um2], "score": [0.75, 0.5], "finding": [1, 3]}
    assert values(groups[2]) == {"area": [56 * um2], "score": [0.25], "finding": [4]}


def test_a_score_that_some_findings_lack_is_listed_for_the_others(slide: ImageInfo, tmp_path: Path) -> None:
    findings = (Finding("tumour", RED, "area"), Finding("tumour", HOLE, "area", 0.5))
    dataset = pydicom.dcmread(written(DicomAnn(), record(slide, *findings), tmp_path / "out"))
    [score] = [
        one.MeasurementValuesSequence[0]
        for one in dataset.AnnotationGroupSequence[0].MeasurementsSequence
        if one.ConceptNameCodeSequence[0].CodeMeaning == "score"
    ]
    assert np.frombuffer(score.AnnotationIndexList, "<u4").tolist() == [2]
    assert np.frombuffer(score.FloatingPointValues, "<f4").tolist() == [0.5]


def test_without_a_size_of_pixels_there_is_no_area(slide: ImageInfo, tmp_path: Path) -> None:
    unknown = replace(slide, placement=Placement.pixels())
    dataset = pydicom.dcmread(written(DicomAnn(), record(unknown, *FINDINGS), tmp_path / "out"))
    assert values(dataset.AnnotationGroupSequence[0]) == {"finding": [2, 2]}


def test_wsidicom_and_highdicom_read_the_same_coordinates(slide: ImageInfo, tmp_path: Path) -> None:
    from highdicom.ann import annread

    path = written(DicomAnn(), record(slide, *FINDINGS), tmp_path / "out")
    own = [rings(group) for group in pydicom.dcmread(path).AnnotationGroupSequence]
    theirs = [group.get_graphic_data("2D") for group in annread(path).get_annotation_groups()]
    assert [[ring.tolist() for ring in group] for group in theirs] == [[ring.tolist() for ring in part] for part in own]
    wsidicom = pytest.importorskip("wsidicom", reason="wsidicom is not installed")
    shutil.copy(slide.files[1], path.parent)
    with wsidicom.WsiDicom.open(path.parent) as opened:
        [instance] = opened.annotations
    found = [[one.geometry.to_coords() for one in group.annotations] for group in instance.groups]
    assert [[[list(xy) for xy in ring] for ring in group] for group in found] == [
        [ring.tolist() for ring in group] for group in own
    ]


@pytest.mark.parametrize(("side", "name"), [(2**18, "PointCoordinatesData"), (2**18 + 1, "DoublePointCoordinatesData")])
def test_no_vertex_moves_by_a_hundredth_of_a_pixel(side: int, name: str, tmp_path: Path) -> None:
    write_level(tmp_path / "a.dcm", np.zeros((64, 64, 3), np.uint8), TotalPixelMatrixColumns=side)
    files = (str(tmp_path / "a.dcm"),)
    channels = (Channel("red"), Channel("green"), Channel("blue"))
    placement = Placement(((0.25, 0, 0), (0, 0.5, 0)), "um")
    info = ImageInfo(files[0], "slide", (side, 64), channels, placement, id="wide", files=files, kind="slide")
    corners = np.array([(side - 0.3, 1 / 3), (side - 0.7, 60.123), (side - 33.337, 50.0009)])
    finding = Finding("tumour", shapely.Polygon(corners), "area")
    dataset = pydicom.dcmread(written(DicomAnn(), record(info, finding), tmp_path / "out"))
    [group] = dataset.AnnotationGroupSequence
    assert name in group
    assert np.abs(rings(group)[0] - corners).max() < 0.01


@pytest.mark.parametrize("writer", [DicomAnn(), DicomSeg(), FRACTIONAL], ids=["ann", "seg", "fractional"])
def test_dciodvfy_finds_no_error_of_ours(writer: Any, slide: ImageInfo, tmp_path: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy of Debian's dicom3tools is not installed")

    def errors(path: Path) -> set[str]:
        done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
        return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}

    # which dciodvfy 2022-06-18 says of every 2-D annotation, also without that attribute
    known = {"Error - Only valid for AnnotationCoordinateType of 3D - attribute <CommonZCoordinateValue> = <>"}
    path = written(writer, with_probabilities(slide)[0], tmp_path / "out")
    assert "CommonZCoordinateValue" not in path.read_bytes().decode("latin-1")
    assert errors(path) - known <= errors(Path(slide.files[1]))


def test_a_segmentation_has_the_tiles_of_the_slide_that_areas_touch(slide: ImageInfo, tmp_path: Path) -> None:
    from highdicom.seg import segread

    path = written(DicomSeg(), record(slide, *FINDINGS), tmp_path / "out")
    dataset = pydicom.dcmread(path)
    assert (dataset.DimensionOrganizationType, dataset.Rows, dataset.Columns) == ("TILED_SPARSE", TILE, TILE)
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == ["tumour", "stroma"]
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(150) + 0.5)
    expected = {
        "tumour": shapely.contains_xy(RED, x, y) | shapely.contains_xy(HOLE, x, y),
        "stroma": shapely.contains_xy(PARTS, x, y),
    }
    read = segread(path)
    for number, label in enumerate(("tumour", "stroma"), 1):
        matrix = read.get_total_pixel_matrix(segment_numbers=[number])[..., 0]
        assert np.array_equal(matrix > 0, expected[label])
    level = pydicom.dcmread(Path(slide.uri).parent / "b.dcm")
    touched = set()
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSlideSequence[0]
        column, row = (
            place.ColumnPositionInTotalImagePixelMatrix - 1,
            place.RowPositionInTotalImagePixelMatrix - 1,
        )
        offsets = [float(place.get(f"{axis}OffsetInSlideCoordinateSystem")) for axis in "XYZ"]
        assert offsets == pytest.approx([ORIGIN[0] - row * SPACING[0], ORIGIN[1] - column * SPACING[1], 0], abs=1e-9)
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == level.SOPInstanceUID
        assert source.ReferencedFrameNumber == row // TILE * 4 + column // TILE + 1
        touched.add((groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber, column, row))
    mask = expected["tumour"] | expected["stroma"]
    tiles = {
        (number, column, row)
        for number, label in enumerate(("tumour", "stroma"), 1)
        for row in range(0, 150, TILE)
        for column in range(0, 200, TILE)
        if expected[label][row : row + TILE, column : column + TILE].any()
    }
    assert touched == tiles
    assert mask.any()


@pytest.mark.slow
@pytest.mark.parametrize("writer", [DicomAnn(), DicomSeg()], ids=lambda writer: writer.name)
def test_orthanc_files_them_with_the_slide(writer: Any, slide: ImageInfo, orthanc: Any, tmp_path: Path) -> None:
    orthanc.clear()
    original = orthanc.put(Path(slide.files[1]))
    path = written(writer, record(slide, *FINDINGS), tmp_path / "out")
    stored = orthanc.put(path)
    assert stored["ParentStudy"] == original["ParentStudy"]
    assert orthanc.ask(f"/instances/{stored['ID']}/file") == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("writer", [DicomAnn(), DicomSeg()], ids=lambda writer: writer.name)
def test_writers_keep_the_contract_with_originals(writer: Any, slide: ImageInfo, tmp_path: Path) -> None:
    check_writer(writer, record(slide, *FINDINGS), tmp_path)


def test_slides_that_cannot_have_annotations_are_named(slide: ImageInfo, tmp_path: Path) -> None:
    other = tmp_path / "a.svs"
    other.write_bytes(b"II*\0" + b"\0" * 200)
    plain = replace(slide, uri=str(other), files=(str(other),))
    for made, reason in (
        (record(plain, *FINDINGS), "not DICOM"),
        (record(slide), "no findings"),
        (record(slide, *FINDINGS, original=None), "original files are not known"),
        (record(replace(slide, kind="study"), *FINDINGS), "it is a study"),
    ):
        assert DicomAnn().write(made, tmp_path) == []
        assert reason in DicomAnn().omitted(made)["slide-1"]
    assert "not DICOM" in DicomSeg().omitted(record(plain, *FINDINGS))["slide-1"]
    assert DicomAnn().omitted(record(slide, *FINDINGS)) == {}


@pytest.mark.parametrize(
    ("more", "writer", "reason"),
    [
        ({"TotalPixelMatrixRows": 151}, DicomAnn(), "must have an instance of 200 × 150 px"),
        ({"StudyInstanceUID": None}, DicomAnn(), "no StudyInstanceUID"),
        ({"TotalPixelMatrixOriginSequence": None}, DicomSeg(), "no origin on the slide"),
    ],
)
def test_slides_that_do_not_state_what_is_needed_are_refused(
    more: dict[str, Any], writer: Any, reason: str, slide: ImageInfo, tmp_path: Path
) -> None:
    write_level(tmp_path / "b.dcm", np.zeros((150, 200, 3), np.uint8), **more)
    files = (str(tmp_path / "b.dcm"),)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(PartlyWrittenError) as raised:
        writer.write(record(replace(slide, uri=files[0], files=files), *FINDINGS), out)
    assert reason in raised.value.omitted["slide-1"]
    assert list(out.iterdir()) == []


def test_probabilities_lie_on_the_pixels_of_the_analysis(slide: ImageInfo, tmp_path: Path) -> None:
    from highdicom.seg import segread

    made, steps = with_probabilities(slide)
    path, (_, height, width) = written(FRACTIONAL, made, tmp_path / "out"), steps.shape
    dataset = pydicom.dcmread(path)
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == ["tumour"]  # there is no stroma
    assert (dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows) == (width, height)
    [measures] = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert [float(one) for one in measures.PixelSpacing] == pytest.approx([3 * SPACING[0], 2 * SPACING[1]])
    read = segread(path)
    matrix = read.get_total_pixel_matrix(segment_numbers=[1], rescale_fractional=False)[..., 0]
    assert np.array_equal(matrix, np.where(steps[0] == NODATA, 0, steps[0]))
    [origin] = dataset.TotalPixelMatrixOriginSequence
    first = [float(origin.get(f"{axis}OffsetInSlideCoordinateSystem")) for axis in "XY"]
    # the middle of the first pixel: 1 row and half a column of the slide from the middle of the slide's first
    assert first == pytest.approx([ORIGIN[0] - SPACING[0], ORIGIN[1] - SPACING[1] / 2], abs=1e-9)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSlideSequence[0]
        x, y = place.ColumnPositionInTotalImagePixelMatrix - 1, place.RowPositionInTotalImagePixelMatrix - 1
        offsets = [float(place.get(f"{axis}OffsetInSlideCoordinateSystem")) for axis in "XY"]
        assert offsets == pytest.approx([first[0] - y * 3 * SPACING[0], first[1] - x * 2 * SPACING[1]], abs=1e-9)
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        assert source.SpatialLocationsPreserved == "NO"
