"""Slides through OpenSlide: synthetic, damaged and real ones."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pydicom
import pytest
import tifffile
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.geometry import Box
from limner.readers.registry import scan
from limner.readers.slide.openslide import SlideReader
from PIL import ImageCms
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

Rgb = npt.NDArray[np.uint8]
PLANTED = "DOE^JANE"


def smooth(height: int, width: int) -> Rgb:
    """Ramps of x, y and their sum: pixels encode their position, and JPEG hardly changes them."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [columns * 200 / width + 30, rows * 200 / height + 30, (columns / width + rows / height) * 90 + 60]
    return np.stack(ramps, axis=2).astype(np.uint8)


def aperio(
    path: Path, pixels: Rgb, *, levels: tuple[int, ...] = (1, 4), mpp: str = "MPP = 0.2500", **how: object
) -> Path:
    """An SVS as Aperio writes it: level 0, a thumbnail in strips, the other levels, label and macro."""
    compression = {"compression": "jpeg", "compressionargs": {"level": 90}, "photometric": "rgb", **how}
    says = (
        f"Aperio Image Library v11.2.1 \n{pixels.shape[1]}x{pixels.shape[0]} (240x240) JPEG/RGB Q=90|AppMag = 40|{mpp}"
    )
    says += f"|User = {PLANTED}|Filename = {PLANTED}|Date = 12/29/09"
    with tifffile.TiffWriter(path) as file:
        for i, factor in enumerate(levels):
            height, width = (side // factor * factor for side in pixels.shape[:2])
            blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
            level = blocks.mean(axis=(1, 3)).astype(np.uint8)
            file.write(level, tile=(240, 240), description=says, metadata=None, **compression)
            if i == 0:
                file.write(pixels[::8, ::8], rowsperstrip=16, description=says, metadata=None, **compression)
        for name, reduced in (("label", 1), ("macro", 9)):
            sticker = np.full((40, 60, 3), 77, dtype=np.uint8)
            text = f"Aperio Image Library v11.2.1 \n{name} 60x40"
            file.write(sticker, description=text, subfiletype=reduced, rowsperstrip=40, metadata=None, **compression)
    return path


def opened_whole(path: Path) -> Rgb:
    """Level 0 by openslide-python itself."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def everywhere(pixels: Rgb) -> npt.NDArray[np.bool_]:
    return np.ones(pixels.shape[:2], dtype=bool)


@pytest.mark.slow
def test_aperio_slide_passes_the_contract(tmp_path: Path) -> None:
    path = aperio(tmp_path / "a.svs", smooth(301, 517), levels=(1,))
    truth = opened_whole(path)
    info = check_reader(SlideReader(), str(path), ExpectedImage(truth, everywhere(truth), ((8.0, 4.0, 2.0, 1.0),)))
    assert np.abs(truth.astype(int) - smooth(301, 517)).mean() < 1.5
    assert (info.placement.unit, info.placement.source) == ("um", "aperio header")


@pytest.mark.slow
def test_slide_of_several_levels_passes_the_contract(tmp_path: Path) -> None:
    pixels = smooth(1201, 1807)
    path = aperio(tmp_path / "a.svs", pixels, levels=(1, 4, 16))
    truth = opened_whole(path)
    info = check_reader(SlideReader(), str(path), ExpectedImage(truth, everywhere(truth), exact=False))
    with SlideReader().open(info) as image:
        for factor in (2, 4, 5.5, 16, 20):
            rows, columns = (int(side / factor) - 1 for side in pixels.shape[:2])
            seen, valid = image.read(Box(0, 0, columns * factor, rows * factor), (columns, rows))
            assert valid.all()
            x = (np.arange(columns) + 0.5) * factor * 200 / 1807 + 30
            y = (np.arange(rows) + 0.5) * factor * 200 / 1201 + 30
            assert np.abs(seen[:, :, 0] - x).mean() < 1.5
            assert np.abs(seen[:, :, 1] - y[:, None]).mean() < 1.5


def test_personal_data_stays_in_the_file(tmp_path: Path) -> None:
    path = aperio(tmp_path / f"{PLANTED}.svs", smooth(300, 300), levels=(1,))
    assert PLANTED in openslide.OpenSlide(path).properties.values()
    [info] = scan_with(SlideReader(), str(path), {})
    told = repr(info).replace(str(path), "")
    assert PLANTED not in told
    assert "12/29/09" not in told
    [row] = scan([str(path)], {})
    assert re.fullmatch(r"slide-[0-9a-f]{8}", row.infos[0].id)
    [named] = scan([str(path)], {"names": "show"})
    assert named.infos[0].id == "doe-jane"
    with pytest.raises(RequestError, match="hide or show"):
        scan([str(path)], {"names": "yes"})


def break_tile(path: Path, page: int, index: int) -> None:
    """Overwrite one JPEG tile with zeros."""
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[page].dataoffsets[index], tiff.pages[page].databytecounts[index]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\0" * count
    path.write_bytes(content)


def test_unreadable_tile_fails_only_boxes_that_need_it(tmp_path: Path) -> None:
    path = aperio(tmp_path / "a.svs", smooth(720, 960), levels=(1, 4))
    truth = opened_whole(path)
    break_tile(path, 0, 5)  # of 4 columns: column 1, row 1
    [info] = scan_with(SlideReader(), str(path), {})
    lost = []
    with SlideReader().open(info) as image:
        for _ in range(2):
            for row in range(3):
                for column in range(4):
                    x, y = column * 240, row * 240
                    try:
                        seen, valid = image.read(Box(x, y, x + 240, y + 240), (240, 240))
                    except ReadError as error:
                        lost.append((column, row, "level 0, pixels 240–480, 240–480" in str(error)))
                    else:
                        assert valid.all()
                        assert np.array_equal(seen, truth[y : y + 240, x : x + 240])
        assert lost == [(1, 1, True)] * 2
        assert image.read(info.box, (240, 180))[1].all()  # the level below is whole
    with openslide.OpenSlide(path) as slide:  # an OpenSlide handle fails for good after its first error
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region((240, 240), 0, (240, 240))
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region((0, 0), 0, (240, 240))


def test_unscanned_area_is_invalid(tmp_path: Path) -> None:
    pixels = smooth(480, 480)
    path = tmp_path / "sparse.tif"
    tiles = [pixels[:240, :240], None, None, pixels[240:, 240:]]
    tifffile.imwrite(
        path, iter(tiles), shape=pixels.shape, dtype="uint8", photometric="rgb", tile=(240, 240), compression="deflate",
        metadata=None,
    )  # fmt: skip
    [info] = scan_with(SlideReader(), str(path), {})
    with SlideReader().open(info) as image:
        seen, valid = image.read(info.box, info.size)
    want = np.zeros((480, 480), dtype=bool)
    want[:240, :240] = want[240:, 240:] = True
    assert np.array_equal(valid, want)
    assert np.array_equal(seen[want], pixels[want])


@pytest.mark.parametrize(
    ("mpp", "unit", "says"),
    [("MPP = 0.2500", "um", None), ("Q = 1", "px", "states none"), ("MPP = 0.0010", "px", "implausible")],
)
def test_spacing(tmp_path: Path, mpp: str, unit: str, says: str | None) -> None:
    path = aperio(tmp_path / "a.svs", smooth(300, 300), levels=(1,), mpp=mpp, resolution=(1, 1), resolutionunit="none")
    [info] = scan_with(SlideReader(), str(path), {})
    assert info.placement.unit == unit
    assert says is None or any(says in note for note in info.notes)
    [stated] = scan_with(SlideReader(), str(path), {"microns_per_pixel": "0.5"})
    assert stated.placement.matrix[0][0] == 0.5
    assert not any("states none" in note or "implausible" in note for note in stated.notes)


def confidence(path: Path) -> int:
    return SlideReader().identify(str(path), path.read_bytes()[:4096])


def test_identify(tmp_path: Path) -> None:
    assert confidence(aperio(tmp_path / "a.svs", smooth(300, 300))) == 90
    tifffile.imwrite(tmp_path / "t.tif", smooth(300, 300), tile=(64, 64), photometric="rgb", metadata=None)
    assert 0 < confidence(tmp_path / "t.tif") < 70
    (tmp_path / "n.txt").write_text("no slide")
    (tmp_path / "e.svs").write_bytes(b"")
    assert confidence(tmp_path / "n.txt") == confidence(tmp_path / "e.svs") == 0
    (tmp_path / "ct.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"1.2.840.10008.5.1.4.1.1.2")
    assert confidence(tmp_path / "ct.dcm") == 0
    assert SlideReader().identify(str(tmp_path), b"") == 0
    assert SlideReader().identify("s3://bucket/a.svs", b"") == 0


def test_missing_or_changed_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"II*\0" + b"\0" * 100)
    for uri in (str(path), str(tmp_path / "none.svs")):
        with pytest.raises(ReadError):
            scan_with(SlideReader(), uri, {})
    aperio(path, smooth(300, 300))
    [info] = scan_with(SlideReader(), str(path), {})
    aperio(path, smooth(300, 310))
    with pytest.raises(ReadError, match="must still have 300 × 300 px"):
        SlideReader().open(info)


def dicom_level(path: Path, pixels: Rgb, series: str, spacing: float, number: int, icc: bytes = b"") -> None:
    """One level of a DICOM slide, uncompressed, in tiles of 64."""
    rows, columns = (-(-side // 64) for side in pixels.shape[:2])
    padded = np.zeros((rows * 64, columns * 64, 3), dtype=np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
    meta.MediaStorageSOPInstanceUID = UID(f"{series}.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    measures, shared, data = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [spacing, spacing]
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.ImageType = (
        ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"] if number == 1 else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    )
    data.Modality, data.PatientName, data.PatientID, data.InstanceNumber = "SM", PLANTED, PLANTED, number
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", series, "1.2.4"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.Rows = data.Columns = 64
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.NumberOfFrames, data.DimensionOrganizationType, data.TotalPixelMatrixFocalPlanes = (
        rows * columns,
        "TILED_FULL",
        1,
    )
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.ImagedVolumeHeight, data.ImagedVolumeWidth = (side * spacing for side in pixels.shape[:2])
    if icc:
        data.OpticalPathSequence = [pydicom.Dataset()]
        data.OpticalPathSequence[0].ICCProfile = icc
    data.PixelData = padded.reshape(rows, 64, columns, 64, 3).swapaxes(1, 2).tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.mark.slow
def test_the_icc_profile_of_a_dicom_slide_is_applied_on_request(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile += bytes(-len(profile) % 2)
    pixels = smooth(300, 420)
    dicom_level(tmp_path / "b.dcm", pixels, "1.2.3.4", 0.00025, 1, profile)
    for icc, fact in (
        ("ignore", f"not applied ({len(profile)} bytes"),
        ("apply", "applied, to sRGB, perceptual intent"),
    ):
        [info] = scan_with(SlideReader(), str(tmp_path / "b.dcm"), {"icc": icc})
        assert dict(info.facts)["icc_profile"].startswith(fact)
        with SlideReader().open(info) as image:
            found, _ = image.read(info.box, info.size)
        assert np.abs(found.astype(int) - pixels).max() <= 1, "sRGB in sRGB"


@pytest.mark.slow
def test_any_file_of_a_dicom_series_opens_the_slide(tmp_path: Path) -> None:
    pixels = smooth(300, 420)
    half = pixels.reshape(150, 2, 210, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    dicom_level(tmp_path / "b.dcm", pixels, "1.2.3.4", 0.00025, 1)
    dicom_level(tmp_path / "a.dcm", half, "1.2.3.4", 0.0005, 2)
    dicom_level(tmp_path / "c.dcm", pixels, "1.2.3.40", 0.00025, 1)
    [one], [two] = (scan_with(SlideReader(), str(tmp_path / name), {}) for name in ("a.dcm", "b.dcm"))
    assert one == two
    assert one.files == (str(tmp_path / "a.dcm"), str(tmp_path / "b.dcm"))
    assert (one.placement.matrix[0][0], one.placement.source) == (0.25, "DICOM PixelSpacing")
    assert PLANTED not in repr(one)
    check_reader(SlideReader(), str(tmp_path / "b.dcm"), ExpectedImage(pixels, everywhere(pixels), exact=False))
    with SlideReader().open(one) as image:
        assert np.array_equal(image.read(one.box, (210, 150))[0], half)


@pytest.mark.slow
def test_real_aperio(shared_data: Path) -> None:
    path = shared_data / "slides" / "aperio_cmu1_small_region" / "CMU-1-Small-Region.svs"
    assert confidence(path) == 90
    [info] = scan_with(SlideReader(), str(path), {})
    assert info.placement.matrix == ((0.499, 0.0, 0.0), (0.0, 0.499, 0.0))
    assert not any(secret in repr(info) for secret in ("CPAPERIOCS", "b414003d", "12/29/09", "1004486"))
    truth = tifffile.imread(path)  # another decoder of the same tiles
    with SlideReader().open(info) as image:
        seen, valid = image.read(info.box, info.size)
        part, _ = image.read(Box(1000, 1000, 1400, 1400), (100, 100))
    assert valid.all()
    assert np.array_equal(seen, truth)
    mean = truth[1000:1400, 1000:1400].reshape(100, 4, 100, 4, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(part - mean).max() <= 0.5


def test_real_hamamatsu(shared_data: Path) -> None:
    path = shared_data / "slides" / "hamamatsu_ndpi_tritc" / "test3-TRITC-2-560.ndpi"
    [info] = scan_with(SlideReader(), str(path), {})
    assert confidence(path) == 90
    assert info.size == (3968, 4864)
    assert info.placement.matrix[0][0] == pytest.approx(0.2281750559)
    with SlideReader().open(info) as image:
        part, valid = image.read(Box(1000, 1000, 1700, 1600), (700, 600))
        coarse, _ = image.read(Box(0, 0, 3968, 4864), (496, 608))
    with openslide.OpenSlide(path) as slide:
        assert np.array_equal(part, np.asarray(slide.read_region((1000, 1000), 0, (700, 600)))[..., :3])
        assert np.array_equal(coarse, np.asarray(slide.read_region((0, 0), 3, (496, 608)))[..., :3])
    assert valid.all()


@pytest.mark.slow
def test_real_dicom(shared_data: Path) -> None:
    path = shared_data / "slides" / "dicom_wsi_camelyon" / "camelyon_multiframe_jpeg2000_lossless.dcm"
    [info] = scan_with(SlideReader(), str(path), {})
    assert confidence(path) == 90
    told = repr(info).replace(str(path), "")
    assert not any(name in told for name in ("GenLast", "PN-1-692", "GO-1692", "16340811", "Camelyon16"))
    assert any("28.969 × 28.968 µm/px (DICOM PixelSpacing) is implausible" in note for note in info.notes)
    [stated] = scan_with(SlideReader(), str(path), {"microns_per_pixel": "28.969,28.968"})
    assert stated.placement.has_unit
    with SlideReader().open(info) as image:
        seen, valid = image.read(info.box, info.size)
    assert valid.all()
    with openslide.OpenSlide(path) as slide:
        assert np.array_equal(seen, np.asarray(slide.read_region((0, 0), 0, info.size))[..., :3])
