"""A file of a format that we know of is read by that format's reader or refused by its name; no label is ever shown."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
from limner.readers import registry
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError
from limner.readers.formats import recognise, recognise_folder
from limner.readers.image import ImageInfo
from limner.readers.options import Options
from limner.readers.raster.geotiff import RasterReader
from limner.readers.registry import open_image, scan
from limner.readers.scanned_files import ScannedFile
from limner.readers.slide.pyramid import PyramidReader

LABEL = 7  # what every pixel of a label or of the glass is in these files, and no pixel of a scan


def tissue(height: int = 256, width: int = 256) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns % 200 + 50, rows % 200 + 50, (rows + columns) % 200 + 50], axis=2).astype(np.uint8)


def aperio(path: Path, *, label: bool = True) -> Path:
    """An SVS with a thumbnail, two levels, a label and a macro."""
    words = "Aperio Image Library v12.0.0\r\n256x256 (64x64) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
    how = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), tile=(64, 64), description=words, **how)
        file.write(tissue()[::4, ::4], rowsperstrip=16, description="Aperio Image Library v12.0.0\r\nthumb", **how)
        file.write(tissue()[::4, ::4].copy(), tile=(64, 64), description=words, **how)
        for name, kind in (("label", 1), ("macro", 9)) if label else ():
            words = f"Aperio Image Library v12.0.0\r\n{name} 128x128"
            file.write(sticker(), rowsperstrip=128, subfiletype=kind, description=words, **how)
    return path


def sticker() -> np.ndarray:
    return np.full((128, 128, 3), LABEL, dtype=np.uint8)


def vsi(folder: Path, name: str = "slide.vsi") -> Path:
    """A VSI: a TIFF of the label and the glass; the pixels lie in a folder beside it."""
    with tifffile.TiffWriter(folder / name) as file:
        for _ in range(2):
            file.write(sticker(), photometric="rgb", tile=(64, 64), metadata=None)
    frames = folder / f"_{Path(name).stem}_" / "stack1"
    frames.mkdir(parents=True)
    (frames / "frame_t_0.ets").write_bytes(b"SIS\0" + bytes(100))
    return folder / name


QPTIFF = """<?xml version="1.0" encoding="utf-16"?>
<PerkinElmer-QPI-ImageDescription><DescriptionVersion>2</DescriptionVersion><SlideID>S21-1234 JOHN DOE</SlideID>
<ImageType>{kind}</ImageType><Name>{name}</Name><Biomarker>{marker}</Biomarker><Color>0,0,255</Color>
<ExposureTime>38000</ExposureTime></PerkinElmer-QPI-ImageDescription>"""


def qptiff(path: Path, planes: np.ndarray) -> Path:
    """A QPTIFF as Vectra and PhenoImager write it: channels, a thumbnail, the channels halved, glass and label."""
    names = [("DAPI", ""), ("Opal 520", "CD3"), ("Opal 690", "PanCK")]
    common = {"software": "PerkinElmer-QPI", "metadata": None, "photometric": "minisblack", "compression": "lzw"}

    def says(kind: str, name: str = "", marker: str = "") -> str:
        return QPTIFF.format(kind=kind, name=name, marker=marker)

    with tifffile.TiffWriter(path) as file:
        for plane, (name, marker) in zip(planes, names, strict=True):
            size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
            words = says("FullResolution", name, marker)
            file.write(plane, tile=(64, 64), description=words, **size, **common)
        rgb = {**common, "photometric": "rgb"}
        file.write(sticker()[:48, :60], rowsperstrip=48, description=says("Thumbnail"), subfiletype=1, **rgb)
        for plane, (name, marker) in zip(planes[:, ::2, ::2], names, strict=True):
            words = says("ReducedResolution", name, marker)
            file.write(plane.copy(), tile=(64, 64), description=words, subfiletype=1, **common)
        for kind in ("Overview", "Label"):
            file.write(sticker(), rowsperstrip=128, description=says(kind), subfiletype=9, **rgb)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def only(path: Path, reader: str | None = None) -> ScannedFile:
    (row,) = scan([str(path)], {}, reader=reader)
    return row


def shown(info: ImageInfo) -> np.ndarray:
    """All pixels of an image."""
    with open_image(info) as image:
        return image.read(info.box, info.size)[0]


@pytest.mark.parametrize("name", ["slide.vsi", "slide.tif"])
@pytest.mark.parametrize("forced", [None, "raster", "pyramid", "slide"])
def test_a_vsi_is_refused_whatever_its_name_and_reader(here: Path, name: str, forced: str | None) -> None:
    row = only(vsi(here, name), reader=forced)
    assert (row.status, row.infos, row.personal) == ("failed", (), True)
    assert "Olympus VSI is not supported: its own pages are overviews and the label" in row.reason
    assert "bfconvert" in row.reason


def test_a_folder_with_a_vsi_has_one_failed_row_and_one_for_its_pixels(here: Path) -> None:
    vsi(here)
    rows = {Path(row.path).name: row for row in scan([str(here)], {})}
    assert (rows["slide.vsi"].status, rows["frame_t_0.ets"].status) == ("failed", "skipped")
    assert rows["frame_t_0.ets"].reason == "Olympus ETS: it holds pixels of a VSI slide"


@pytest.mark.parametrize("kept", [8, 100, 5000, 20000])
def test_a_truncated_slide_is_still_recognised(here: Path, kept: int) -> None:
    path = aperio(here / "slide.svs")
    path.write_bytes(path.read_bytes()[:kept])
    row = only(path)
    assert (row.status, row.reader, row.personal) == ("failed", "slide", True)
    assert "the file is truncated" in row.reason
    assert "crs" not in row.reason


def test_reader_option_cannot_open_a_slide_with_another_reader(here: Path) -> None:
    path = aperio(here / "slide.svs")
    assert only(path).reader == "slide"
    for reader in ("raster", "pyramid"):
        row = only(path, reader=reader)
        assert (row.status, row.personal) == ("failed", True)
        assert "must be opened by the reader slide, since it is Aperio SVS" in row.reason


def test_a_slide_without_suffix_is_recognised_by_its_description(here: Path) -> None:
    row = only(aperio(here / "slide.svs").rename(here / "slide.tif"))
    assert (row.status, row.reader) == ("read", "slide")


@pytest.mark.slow
def test_a_qptiff_is_read_with_all_channels_its_size_and_nothing_of_the_label(here: Path) -> None:
    planes = np.stack([tissue(200, 300)[..., i] for i in range(3)])
    path = qptiff(here / "slide.qptiff", planes)
    truth = ExpectedImage(
        np.moveaxis(planes, 0, 2), np.ones((200, 300), dtype=bool), ((10.0, 20.0, 5.0, 10.0),), exact=False
    )
    info = check_reader(PyramidReader(), str(path), truth)
    assert [channel.name for channel in info.channels] == ["DAPI", "CD3", "PanCK"]
    assert info.placement.unit == "um"
    assert "DOE" not in repr(info)
    row = only(path)
    assert (row.status, row.reader, row.personal) == ("read", "pyramid", True)
    with open_image(info) as image:
        for size in (info.size, (150, 100), (75, 50), (30, 20), (3, 2)):
            assert (image.read(info.box, size)[0] != LABEL).all()
    assert "failed" in only(path, reader="raster").status


@pytest.mark.parametrize("kind", [1, 9])
@pytest.mark.parametrize("words", ["label", "Macro Image", ""])
def test_a_label_among_the_levels_of_a_tiff_is_no_level(here: Path, kind: int, words: str) -> None:
    """Half as wide and half as high as the picture: by its size alone it could be the next level."""
    path = here / "slide.tif"
    how = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), tile=(64, 64), **how)
        file.write(sticker(), rowsperstrip=128, subfiletype=kind, description=words or None, **how)
        file.write(tissue()[::4, ::4].copy(), tile=(64, 64), subfiletype=1, **how)
    (info,) = only(path).infos
    with open_image(info) as image:
        for size in ((256, 256), (128, 128), (64, 64), (16, 16)):
            assert (image.read(info.box, size)[0] != LABEL).all()


@pytest.mark.parametrize("words", ["label", "Macro", "Slide Label Image", "label 128x128"])
def test_a_tiff_that_begins_with_a_label_is_refused(here: Path, words: str) -> None:
    path = here / "picture.tif"
    tifffile.imwrite(path, sticker(), photometric="rgb", description=words, metadata=None)
    for forced in (None, "raster"):
        row = only(path, reader=forced)
        assert (row.status, row.personal) == ("failed", True)
        assert "label" in row.reason


def test_an_ome_tiff_that_begins_with_a_label_shows_the_scan_alone(here: Path) -> None:
    path = here / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(sticker(), photometric="rgb", metadata={"axes": "YXS", "Name": "label image"})
        file.write(tissue(), photometric="rgb", metadata={"axes": "YXS", "Name": "scan"})
    (info,) = only(path).infos
    assert np.array_equal(shown(info), tissue())
    assert any("never read" in note for note in info.notes)
    assert only(path, reader="raster").status == "failed"


def test_an_ome_tiff_of_a_label_is_refused(here: Path) -> None:
    path = here / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(sticker(), photometric="rgb", metadata={"axes": "YXS", "Name": "label image"})
    row = only(path)
    assert (row.status, row.reader) == ("failed", "pyramid")
    assert "the slide's label, which is never shown" in row.reason


def test_an_ome_tiff_whose_second_picture_is_a_label_shows_the_first(here: Path) -> None:
    path = here / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(tissue(), photometric="rgb", metadata={"axes": "YXS", "Name": "scan"})
        file.write(sticker(), photometric="rgb", metadata={"axes": "YXS", "Name": "label image"})
    (info,) = only(path).infos
    assert np.array_equal(shown(info), tissue())


def test_a_damaged_pyramid_stays_with_its_reader(here: Path) -> None:
    path = here / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 4):
            file.write(tissue()[::step, ::step].copy(), tile=(64, 64), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as file:
        cut = file.pages[1].offset - 10
    path.write_bytes(path.read_bytes()[:cut])
    row = only(path)
    assert (row.status, row.reader, row.personal) == ("failed", "pyramid", True)
    assert "the file is truncated" in row.reason


NOT_READ = {
    "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(90), "Nikon ND2"),
    "a.lif": (b"\x70\0\0\0" + bytes(90), "Leica LIF"),
    "a.isyntax": (b'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">', "Philips iSyntax"),
    "a.afi": (b"<ImageList><Image><Path>a.svs</Path></Image></ImageList>", "Aperio AFI"),
    "a.ndpis": (b"[NanoZoomer Digital Pathology Image Set]\n", "Hamamatsu NDPIS"),
    "a.nii.gz": (b"\x1f\x8b\x08" + bytes(90), "NIfTI"),
    "a.bin": (bytes(344) + b"n+1\0", "NIfTI"),
    "a.nrrd": (b"NRRD0004\n", "NRRD"),
    "a.mha": (b"ObjectType = Image\nNDims = 3\n", "MetaImage"),
    "a.nc": (b"CDF\x01" + bytes(90), "NetCDF"),
    "a.dat": (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
    "a.pdf": (b"%PDF-1.4\n", "PDF"),
    "a.mp4": (b"\0\0\0\x20ftypisom" + bytes(90), "video"),
    "a.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90), "Office document"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_an_unsupported_format_is_refused_by_name(here: Path, name: str) -> None:
    content, format_name = NOT_READ[name]
    (here / name).write_bytes(content)
    row = only(here / name)
    assert (row.status, row.infos) == ("failed", ())
    assert format_name in row.reason
    assert "is not supported" in row.reason
    assert row.personal == (format_name not in {"NetCDF", "HDF5", "PDF", "video", "Office document"})
    (row,) = scan([str(here)], {})
    assert (row.status, format_name in row.reason) == (
        "skipped" if format_name in {"Aperio AFI", "Hamamatsu NDPIS", "PDF", "video", "Office document"} else "failed",
        True,
    )


def test_an_imagej_stack_is_refused_and_a_single_image_read(here: Path) -> None:
    tifffile.imwrite(here / "stack.tif", np.zeros((3, 64, 64), dtype=np.uint8), imagej=True)
    tifffile.imwrite(here / "one.tif", np.zeros((64, 64), dtype=np.uint8), imagej=True)
    assert "ImageJ stack is not supported" in only(here / "stack.tif").reason
    assert only(here / "one.tif").status == "read"


def test_a_mirax_slide_without_its_folder_is_not_a_jpeg(here: Path, scanners: ModuleType) -> None:
    """Its .mrxs file is a JPEG."""
    path = scanners.mirax(here / "a.mrxs", scanners.smooth(128, 128))
    (here / "a").rename(here / "elsewhere")
    row = only(path)
    assert (row.status, row.reader, row.personal) == ("failed", "slide", True)
    assert "the folder of the same name, which holds its pixels, is not beside it" in row.reason
    assert only(path, reader="raster").status == "failed"


def test_jpeg_files_of_a_vms_slide_are_skipped(here: Path) -> None:
    picture = b"\xff\xd8\xff\xe0" + bytes(90)
    (here / "a_macro.jpg").write_bytes(picture)
    (here / "b.jpg").write_bytes(picture)
    (here / "a.vms").write_text("[Virtual Microscope Specimen]\nMacroImage=a_macro.jpg\n")
    assert "part of a Hamamatsu VMS slide" in only(here / "a_macro.jpg", reader="raster").reason
    assert recognise(str(here / "b.jpg"), picture) is None


@pytest.mark.parametrize("mark", [".zattrs", "zarr.json"])
def test_an_ome_zarr_is_one_row(here: Path, mark: str) -> None:
    folder = here / "slide.zarr"
    (folder / "0" / "0").mkdir(parents=True)
    (folder / mark).write_text('{"attributes": {"ome": {"multiscales": []}}, "multiscales": []}')
    for chunk in range(30):
        (folder / "0" / "0" / str(chunk)).write_bytes(b"\xff\xd8\xff" + bytes(10))
    for inputs in ([str(folder)], [str(here)]):
        (row,) = scan(inputs, {})
        assert (row.path, row.status, row.personal) == (str(folder), "failed", True)
        assert "must be valid metadata of OME-Zarr" in row.reason
    assert recognise_folder(str(here)) is None


def test_dicom_slides_and_studies_are_distinguished() -> None:
    head = bytes(128) + b"DICM" + b"1.2.840.10008.5.1.4.1.1.77.1.6\0"
    assert [found and (found.reader, found.kind) for found in (recognise("a", head), recognise("a", head[:132]))] == [
        ("slide", "slide"),
        ("dicom", "study"),
    ]


@pytest.mark.parametrize("uri", ["/vsicurl/https://example.com/a.svs", "s3://bucket/a.vsi", "/vsizip/a.zip/x.mrxs"])
def test_a_remote_slide_is_not_a_map(uri: str) -> None:
    (row,) = scan([uri], {})
    assert (row.status, row.personal) == ("failed", True)


def test_a_remote_slide_named_like_a_map_is_recognised_by_its_description(here: Path) -> None:
    path = aperio(here / "slide.svs").rename(here / "map.tif")
    archive = here / "maps.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, "map.tif")
    for uri in (str(path), f"/vsizip/{archive}/map.tif"):
        with pytest.raises(ReadError, match="opened by the reader slide, since it is Aperio SVS"):
            scan_with(RasterReader(), uri, {})


def test_a_georeferenced_pyramid_of_tiles_is_a_map(here: Path) -> None:
    path = here / "map.tif"
    tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0, 0, 500000, 4000000, 0), True)]
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), tile=(64, 64), photometric="rgb", metadata=None, extratags=tags)
        file.write(tissue()[::2, ::2].copy(), tile=(64, 64), photometric="rgb", metadata=None, subfiletype=1)
    row = only(path)
    assert (row.status, row.reader, row.personal) == ("read", "raster", False)
    assert row.infos[0].kind == "map"


def test_slides_named_like_bands_are_not_a_scene(here: Path) -> None:
    for band in ("B02", "B03"):
        aperio(here / "a.svs").rename(here / f"S2_{band}.tif")
    rows = scan([str(here)], {})
    assert [(row.status, row.reader) for row in rows] == [("read", "slide")] * 2


class Plugin:
    """A plug-in reader for every TIFF, and for VSI if it lists that."""

    name = "plugin"

    def __init__(self, formats: tuple[str, ...]) -> None:
        self.formats = formats

    def identify(self, uri: str, head: bytes) -> int:
        """Always the same, for files."""
        del uri
        return 99 if head else 0

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        """As the raster reader."""
        del options
        return RasterReader().scan(uri, RasterReader.Options())


@pytest.mark.parametrize("formats", [(), ("vsi",)])
def test_a_plugin_gets_files_of_the_formats_it_lists(
    here: Path, monkeypatch: pytest.MonkeyPatch, formats: tuple[str, ...]
) -> None:
    real = registry.readers()
    monkeypatch.setattr(registry, "readers", lambda: {**real, "plugin": Plugin(formats)})
    row = only(vsi(here))
    assert (row.status, row.reader) == (("read", "plugin") if formats else ("failed", ""))


def ring(path: Path) -> None:
    """Let the last directory point to the first."""
    content = bytearray(path.read_bytes())
    first = at = struct.unpack_from("<I", content, 4)[0]
    while at:
        place = at + 2 + 12 * struct.unpack_from("<H", content, at)[0]
        at = struct.unpack_from("<I", content, place)[0]
    struct.pack_into("<I", content, place, first)
    path.write_bytes(content)


def test_circular_tiff_directories_end(here: Path) -> None:
    path = here / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            file.write(tissue()[::step, ::step].copy(), tile=(64, 64), photometric="rgb", metadata=None)
    ring(path)
    row = only(path)
    assert (row.status, row.reader) == ("failed", "pyramid")
    assert "its directories form a loop" in row.reason


def test_hostile_files(shared_data: Path) -> None:
    for name in ("foreign_pyr125.tif", "foreign_pyr30.tif", "hang_pyr27.tif"):
        row = only(shared_data.parent / "cases" / "hostile" / name)
        assert row.reader == "pyramid", name
        assert row.status == "failed"
