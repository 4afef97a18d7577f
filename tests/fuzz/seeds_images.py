"""Maps, slides and studies, small, as programs and scanners write them."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import seeds
from seeds import Seed, looked_at

Pixels = npt.NDArray[Any]
WIDTH, HEIGHT = 56, 44


def pixels(count: int = 3, kind: str = "uint8", *, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """(count, height, width), smooth and all different."""
    y, x = np.mgrid[:height, :width]
    return np.stack([20 + (3 * x + 2 * y + 31 * k) % 200 for k in range(count)]).astype(kind)


def raster(path: Path, data: Pixels, **how: Any) -> Path:  # noqa: ANN401 - what rasterio takes
    """A raster in UTM at 10 m, unless told otherwise."""
    import rasterio  # noqa: PLC0415 - a person who fuzzes models needs none

    after = {name: how.pop(name, None) for name in ("mask", "overviews", "gcps", "rpcs", "tags", "colormap")}
    place = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 4e6)}
    whole = {"driver": "GTiff", **place, "dtype": data.dtype, "count": len(data)} | how
    whole |= {"width": data.shape[2], "height": data.shape[1]}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **{key: value for key, value in whole.items() if value is not None}) as file:
            file.write(data)
            if after["mask"]:
                file.write_mask(np.pad(np.full((HEIGHT - 8, WIDTH - 8), 255, np.uint8), 4))
            if after["gcps"]:
                points = [(0, 0, 3e5, 4e6), (40, 0, 3e5, 3.9e6), (0, 50, 3.1e5, 4e6), (40, 50, 3.1e5, 3.9e6)]
                file.gcps = [rasterio.control.GroundControlPoint(*point) for point in points], "EPSG:32618"
            if after["tags"]:
                file.update_tags(**after["tags"])
            if after["colormap"]:
                file.write_colormap(1, {k: (k, 255 - k, 7, 255) for k in range(256)})
        if after["overviews"]:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2, 4])
    return path


def tiff(**how: Any) -> Callable[[Path], Path]:  # noqa: ANN401 - what `raster` takes
    """Make `a.tif`; `count` and `kind` are of its pixels."""
    shape = how.pop("count", 3), how.pop("kind", "uint8")
    return lambda folder: raster(folder / "a.tif", pixels(*shape), **how)


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}


def rational(folder: Path) -> None:
    """A map with rational polynomial coefficients beside it."""
    raster(folder / "a.tif", pixels(1, "uint16"), crs=None, transform=None)
    names = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF", "LINE_SCALE", "SAMP_SCALE", "LAT_SCALE")
    lines = [f"{name}: 20.5" for name in (*names, "LONG_SCALE", "HEIGHT_SCALE")]
    for part in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN"):
        lines += [f"{part}_COEFF_{k}: {0.1 / k}" for k in range(1, 21)]
    (folder / "a_RPC.TXT").write_text("\n".join(lines), encoding="ascii")


def world(driver: str, name: str, **how: Any) -> Callable[[Path], None]:  # noqa: ANN401 - what `raster` takes
    """A picture with a world file and a projection beside it."""

    def make(folder: Path) -> None:
        raster(folder / name, pixels(3), driver=driver, **how)
        place = folder / f"{name[:-1]}w"
        place.write_text("10.0\n0.0\n0.0\n-10.0\n300005.0\n3999995.0\n", encoding="ascii")

    return make


def mosaic(folder: Path) -> None:
    """A VRT of two maps."""
    for name, left in (("b.tif", 3e5), ("c.tif", 3e5 + 10 * WIDTH)):
        import rasterio  # noqa: PLC0415 - see above

        raster(folder / name, pixels(1, "uint16"), transform=rasterio.Affine(10, 0, left, 0, -10, 4e6))
    sources = "".join(
        f"""<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/><DstRect xOff="{k * WIDTH}" yOff="0" xSize="{WIDTH}"
 ySize="{HEIGHT}"/></SimpleSource>"""
        for k, name in enumerate(("b.tif", "c.tif"))
    )
    complex_source = sources.replace("SimpleSource", "ComplexSource").replace(
        "</ComplexSource>", "<ScaleRatio>2</ScaleRatio><NODATA>0</NODATA></ComplexSource>"
    )
    (folder / "a.vrt").write_text(
        f"""<VRTDataset rasterXSize="{2 * WIDTH}" rasterYSize="{HEIGHT}"><SRS>EPSG:32618</SRS>
<GeoTransform>300000, 10, 0, 4000000, 0, -10</GeoTransform>
<VRTRasterBand dataType="UInt16" band="1"><NoDataValue>0</NoDataValue>{sources}</VRTRasterBand>
<VRTRasterBand dataType="UInt16" band="2"><NoDataValue>0</NoDataValue>{complex_source}</VRTRasterBand></VRTDataset>""",
        encoding="ascii",
    )


def bands(folder: Path) -> None:
    """A scene whose bands are files."""
    (folder / "s").mkdir()
    for name in ("B02", "B03", "B04"):
        raster(folder / "s" / f"S2_{name}.tif", pixels(1, "uint16"))
    import rasterio  # noqa: PLC0415 - see above

    coarse = pixels(1, "uint16", width=WIDTH // 2, height=HEIGHT // 2)
    raster(folder / "s" / "S2_B11.tif", coarse, transform=rasterio.Affine(20, 0, 3e5, 0, -20, 4e6))


SAFE = "S2B_MSIL2A_20220125T102221_N0400_R065_T32UNU_20220125T111503.SAFE"
LANDSAT = "LC08_L1TP_224078_20200518_20200525_02_T1"


def safe(folder: Path) -> None:
    """A product of Sentinel-2."""
    image = folder / SAFE / "GRANULE" / "L2A_T32UNU_A025" / "IMG_DATA" / "R10m"
    image.mkdir(parents=True)
    for name in ("B02", "B03", "B04", "B08"):
        raster(image / f"T32UNU_20220125T102221_{name}_10m.tif", pixels(1, "uint16"))
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{k}">-1000</BOA_ADD_OFFSET>' for k in range(13))
    (folder / SAFE / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD.xsd">'
        "<n1:General_Info><Product_Info><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE></Product_Info>"
        '<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000'
        f"</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>{offsets}"
        "</BOA_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>",
        encoding="utf-8",
    )


def landsat(folder: Path) -> None:
    """A product of Landsat."""
    (folder / LANDSAT).mkdir()
    for k in (2, 3, 4, 5):
        raster(folder / LANDSAT / f"{LANDSAT}_B{k}.TIF", pixels(1, "uint16"))
    lines = ["GROUP = LANDSAT_METADATA_FILE", "  GROUP = PRODUCT_CONTENTS"]
    lines += [f'    FILE_NAME_BAND_{k} = "{LANDSAT}_B{k}.TIF"' for k in (2, 3, 4, 5)]
    lines += ["    PROCESSING_LEVEL = \"L1TP\"", "  END_GROUP = PRODUCT_CONTENTS", "  GROUP = IMAGE_ATTRIBUTES"]
    lines += ['    SPACECRAFT_ID = "LANDSAT_8"', "    SUN_ELEVATION = 33.7", "  END_GROUP = IMAGE_ATTRIBUTES"]
    lines += ["  GROUP = LEVEL1_RADIOMETRIC_RESCALING"]
    lines += [f"    REFLECTANCE_MULT_BAND_{k} = 2.0000E-05" for k in (2, 3, 4, 5)]
    lines += [f"    REFLECTANCE_ADD_BAND_{k} = -0.100000" for k in (2, 3, 4, 5)]
    lines += ["  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING", "END_GROUP = LANDSAT_METADATA_FILE", "END"]
    (folder / LANDSAT / f"{LANDSAT}_MTL.txt").write_text("\n".join(lines), encoding="ascii")


RGB = {"photometric": "RGB"}
ONE = looked_at("a.tif")
MAPS: dict[str, Seed] = {
    "strips": Seed(tiff(kind="uint16", nodata=0), ONE),
    "lzw": Seed(tiff(kind="uint16", **TILED, compress="lzw", predictor=2), ONE),
    "float": Seed(tiff(count=1, kind="float32", **TILED, compress="deflate", predictor=3, nodata=float("nan")), ONE),
    "jpeg tiles": Seed(tiff(**TILED, compress="jpeg", photometric="YCBCR"), ONE),
    "bigtiff": Seed(tiff(**TILED, BIGTIFF="YES", compress="zstd"), ONE),
    "planes": Seed(tiff(**TILED, interleave="band", compress="packbits"), ONE),
    "palette": Seed(tiff(count=1, colormap=True), ONE),
    "alpha": Seed(tiff(count=4, **RGB, alpha="yes"), ONE),
    "mask and overviews": Seed(tiff(**TILED, **RGB, mask=True, overviews=True), ONE),
    "control points": Seed(tiff(count=1, gcps=True, crs=None, transform=None), ONE),
    "geographic": Seed(tiff(count=1, crs="EPSG:4326", transform=(1e-3, 0.0, 8.0, 0.0, -1e-3, 50.0, 0, 0, 1)), ONE),
    "tags": Seed(tiff(count=2, kind="int16", tags={"TIFFTAG_IMAGEDESCRIPTION": "a b", "AREA_OR_POINT": "Point"}), ONE),
    "many bands": Seed(tiff(count=40, kind="uint16"), ONE),
    "complex": Seed(tiff(count=1, kind="complex64"), ONE),
    "rational": Seed(rational, ONE),
    "png": Seed(world("PNG", "a.png"), looked_at("a.png", flags=("--crs", "EPSG:32618"))),
    "jpeg": Seed(world("JPEG", "a.jpg"), looked_at("a.jpg")),
    "jp2": Seed(lambda folder: raster(folder / "a.jp2", pixels(1, "uint16"), driver="JP2OpenJPEG"), looked_at("a.jp2")),
    "mosaic": Seed(mosaic, looked_at("a.vrt")),
    "bands": Seed(bands, looked_at("s")),
    "safe": Seed(safe, looked_at(SAFE)),
    "landsat": Seed(landsat, looked_at(LANDSAT)),
}


def colours(height: int = 200, width: int = 260) -> Pixels:
    """(height, width, 3)"""
    return np.ascontiguousarray(np.moveaxis(pixels(3, width=width, height=height), 0, 2))


def pyramid(name: str = "a.tif", *, order: str = "<", big: bool = False, subs: bool = False, **how: Any) -> Any:  # noqa: ANN401 - what tifffile takes
    """Make a pyramid of tiles, 0.5 µm a pixel, its levels as pages or as SubIFDs."""

    def make(folder: Path) -> None:
        import tifffile  # noqa: PLC0415 - see above

        whole = colours()
        size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "metadata": None}
        with tifffile.TiffWriter(folder / name, byteorder=order, bigtiff=big) as file:
            for level in range(3):
                reduced = {"subfiletype": 1} if level else {"subifds": 2 if subs else None}
                file.write(whole[:: 2**level, :: 2**level], photometric="rgb", tile=(64, 64), **reduced, **size, **how)

    return make


def aperio(folder: Path) -> None:
    """A slide as Aperio writes it, with a thumbnail, a label and a macro."""
    import tifffile  # noqa: PLC0415 - see above

    whole, jpeg = colours(), {"compression": "jpeg", "photometric": "rgb", "metadata": None}
    says = "Aperio Image Library v11.2.1 \n260x200 (240x240) JPEG/RGB Q=90|AppMag = 40|MPP = 0.2500|ScanScope ID = X"
    with tifffile.TiffWriter(folder / "a.svs") as file:
        for factor in (1, 4):
            file.write(whole[::factor, ::factor], tile=(240, 240), description=says, **jpeg)
            if factor == 1:
                file.write(whole[::8, ::8], rowsperstrip=16, description=says, **jpeg)
        for label, reduced in (("label", 1), ("macro", 9)):
            text = f"Aperio Image Library v11.2.1 \n{label} 60x40"
            file.write(whole[:40, :60], description=text, subfiletype=reduced, rowsperstrip=40, **jpeg)


def ome(axes: str, name: str = "a.ome.tif") -> Callable[[Path], None]:
    """An OME-TIFF with those axes, a reduced level and a second picture."""

    def make(folder: Path) -> None:
        import tifffile  # noqa: PLC0415 - see above

        data = np.moveaxis(colours(100, 130), 2, 0).astype(np.uint16)
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
        about = {"axes": axes, "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}, "UUID": "urn:uuid:0", **size}
        data = data[:, None] if len(axes) == 4 else data
        with tifffile.TiffWriter(folder / name, ome=True) as file:
            file.write(data, tile=(64, 64), subifds=1, metadata=about)
            file.write(data[..., ::2, ::2], tile=(64, 64), subfiletype=1)
            file.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", metadata={"axes": "YXS"})
        content = (folder / name).read_bytes()  # a UUID that is new each time is no seed
        import re  # noqa: PLC0415 - only here

        same = re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"urn:uuid:00000000-0000-0000-0000-000000000000", content)
        (folder / name).write_bytes(same)

    return make


def philips(folder: Path) -> None:
    """A tiled TIFF whose description is XML as Philips writes it."""
    says = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">PHILIPS</Attribute>'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" '
        'PMSVR="IString">WSI</Attribute><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">"0.00025" "0.00025"</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" '
        'Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray"><Array><DataObject '
        'ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">"0.00025" "0.00025"</Attribute></DataObject></Array></Attribute></DataObject></Array>'
        "</Attribute></DataObject>"
    )
    import tifffile  # noqa: PLC0415 - see above

    with tifffile.TiffWriter(folder / "a.tiff") as file:
        told = {"description": says, "software": "Philips DP v1.0", "metadata": None}
        file.write(colours(), tile=(64, 64), photometric="rgb", compression="jpeg", **told)


def hamamatsu(folder: Path) -> None:
    """A TIFF with the tags of an NDPI, whose one level is one JPEG."""
    import tifffile  # noqa: PLC0415 - see above

    tags = [(65420, "I", 1, 1, True), (65421, "f", 1, 40.0, True), (65422, "i", 1, 0, True), (65423, "i", 1, 0, True)]
    tags += [(65424, "i", 1, 0, True)]
    size = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(folder / "a.ndpi") as file:
        for level, magnification in ((1, 40.0), (4, 10.0)):
            own = [*tags[:1], (65421, "f", 1, magnification, True), *tags[2:]]
            part = colours()[::level, ::level]
            file.write(
                part, photometric="rgb", compression="jpeg", rowsperstrip=len(part), extratags=own,
                description="NanoZoomer", **size,
            )  # fmt: skip


def scanned(name: str, suffix: str) -> Callable[[Path], object]:
    """A slide of `readers/scanners.py`."""
    return lambda folder: getattr(seeds.module("readers/scanners"), name)(folder / f"a.{suffix}", colours(130, 200))


SLIDES: dict[str, Seed] = {
    "aperio": Seed(aperio, looked_at("a.svs")),
    "pages": Seed(pyramid(compression="jpeg"), looked_at("a.tif")),
    "subifds": Seed(pyramid(compression="deflate", subs=True), looked_at("a.tif")),
    "big-endian": Seed(pyramid(order=">", compression="lzw"), looked_at("a.tif")),
    "bigtiff": Seed(pyramid(big=True, subs=True), looked_at("a.tif")),
    "jpeg 2000": Seed(pyramid(compression="jpeg2000"), looked_at("a.tif")),
    "webp": Seed(pyramid(compression="webp"), looked_at("a.tif")),
    "ome": Seed(ome("CYX"), looked_at("a.ome.tif")),
    "ome stack": Seed(ome("CZYX"), looked_at("a.ome.tif")),
    "philips": Seed(philips, looked_at("a.tiff")),
    "hamamatsu": Seed(hamamatsu, looked_at("a.ndpi")),
    "mirax": Seed(scanned("mirax", "mrxs"), looked_at("a.mrxs")),
    "leica": Seed(scanned("leica", "scn"), looked_at("a.scn")),
}


def stack(**tags: Any) -> Callable[[Path], None]:  # noqa: ANN401 - what DICOM has
    """Three slices of a CT."""

    def make(folder: Path) -> None:
        making = seeds.module("readers/dicom/making")
        making.save_all(making.slices(3, **tags), folder / "ct")

    return make


def single(**how: Any) -> Callable[[Path], None]:  # noqa: ANN401 - what DICOM has
    """One image, `data` of which is made by a function of the tests' maker."""

    def make(folder: Path) -> None:
        making = seeds.module("readers/dicom/making")
        whole = dict(how)
        data = whole.pop("data", lambda making: making.ramp(24, 32))(making)
        whole = {key: getattr(making, value) if key == "sop_class" else value for key, value in whole.items()}
        encode = whole.pop("encode", None)
        image = making.image(data, **whole)
        if encode:
            encode(image, data)
        making.save(image, folder / "a.dcm")

    return make


def run_lengths(image: Any, data: Pixels) -> None:  # noqa: ANN401 - a dataset
    """Pixels coded as run lengths."""
    from pydicom.pixels import get_encoder  # noqa: PLC0415 - see above
    from pydicom.uid import RLELossless  # noqa: PLC0415 - the same

    assert get_encoder(RLELossless).is_available
    image.compress(RLELossless, data, generate_instance_uid=False)


def jpeg_2000(image: Any, data: Pixels) -> None:  # noqa: ANN401 - a dataset
    """Pixels coded as JPEG 2000."""
    from pydicom.uid import JPEG2000Lossless  # noqa: PLC0415 - see above

    image.compress(JPEG2000Lossless, data, generate_instance_uid=False)


def baseline(image: Any, data: Pixels) -> None:  # noqa: ANN401 - a dataset
    """Pixels coded as JPEG."""
    import io  # noqa: PLC0415 - only here

    from PIL import Image  # noqa: PLC0415 - see above
    from pydicom.encaps import encapsulate  # noqa: PLC0415 - the same
    from pydicom.uid import JPEGBaseline8Bit  # noqa: PLC0415 - the same

    made = io.BytesIO()
    Image.fromarray(data).save(made, "JPEG")
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.PixelData = encapsulate([made.getvalue()])
    image["PixelData"].VR = "OB"


def multiframe(folder: Path) -> None:
    """An enhanced MR of three frames."""
    making = seeds.module("readers/dicom/making")
    making.save(making.enhanced([0.0, 2.0, 4.0], slopes=[1.0, 2.0, 3.0]), folder / "a.dcm")


def zipped(folder: Path) -> None:
    """A study in an archive."""
    import io  # noqa: PLC0415 - only here

    making = seeds.module("readers/dicom/making")
    members: dict[str, bytes] = {}
    for k, data in enumerate(making.slices(3)):
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        members[f"ct/{k}.dcm"] = buffer.getvalue()
    (folder / "a.zip").write_bytes(making.archive(members))


def listed(folder: Path) -> None:
    """A study with a DICOMDIR."""
    import pydicom  # noqa: PLC0415 - see above
    from pydicom.fileset import FileSet  # noqa: PLC0415 - the same

    making = seeds.module("readers/dicom/making")
    files = FileSet()
    files.UID = making.uid(77)
    for data in making.slices(3, PatientID="1", PatientName="A", StudyDate="20200101", StudyTime="100000",
                              StudyID="1", SeriesNumber=1, AccessionNumber="2"):  # fmt: skip
        files.add(data)
    files.write(folder / "disc")
    assert pydicom.dcmread(folder / "disc" / "DICOMDIR")


def clip(_making: Any) -> Pixels:  # noqa: ANN401 - a module
    """(3 frames, 24, 32, 3)"""
    return np.stack([colours(24, 32)] * 3)


RGB_TAGS = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
GREY8 = {"data": lambda making: making.ramp(24, 32).astype(np.uint8)}
PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"} | {
    f"{colour}PaletteColorLookupTable{what}": [256, 0, 16] if what == "Descriptor" else struct.pack("<256H", *range(256))
    for colour in ("Red", "Green", "Blue")
    for what in ("Descriptor", "Data")
}
STUDIES: dict[str, Seed] = {
    "stack": Seed(stack(), looked_at("ct")),
    "gaps": Seed(stack(step=3.5, WindowCenter=40, WindowWidth=400, SliceThickness=2), looked_at("ct")),
    "explicit": Seed(single(WindowCenter=1000, WindowWidth=2000), looked_at("a.dcm")),
    "implicit": Seed(single(syntax="1.2.840.10008.1.2"), looked_at("a.dcm")),
    "deflated": Seed(single(syntax="1.2.840.10008.1.2.1.99"), looked_at("a.dcm")),
    "run lengths": Seed(single(encode=run_lengths), looked_at("a.dcm")),
    "jpeg 2000": Seed(single(data=lambda making: making.ramp(96, 96) % 4000, encode=jpeg_2000), looked_at("a.dcm")),
    "jpeg": Seed(single(encode=baseline, **GREY8), looked_at("a.dcm")),
    "palette": Seed(single(**GREY8, **PALETTE), looked_at("a.dcm")),
    "clip": Seed(single(data=clip, sop_class="US_CLIP", frames=3, **RGB_TAGS), looked_at("a.dcm")),
    "radiograph": Seed(
        single(sop_class="CR", PixelSpacing=[0.2, 0.2], PhotometricInterpretation="MONOCHROME1"), looked_at("a.dcm")
    ),
    "enhanced": Seed(multiframe, looked_at("a.dcm")),
    "zip": Seed(zipped, looked_at("a.zip")),
    "dicomdir": Seed(listed, looked_at("disc")),
}
