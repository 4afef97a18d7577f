"""Maps, small, as programs and agencies write them."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from seeds import Seed, looked_at

Pixels = npt.NDArray[Any]
WIDTH, HEIGHT = 56, 44


def pixels(count: int = 3, kind: str = "uint8", *, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """(count, height, width), smooth and all different."""
    y, x = np.mgrid[:height, :width]
    return np.stack([20 + (3 * x + 2 * y + 31 * k) % 200 for k in range(count)]).astype(kind)


def raster(path: Path, data: Pixels, **how: Any) -> Path:
    """A raster in UTM at 10 m, unless told otherwise."""
    import rasterio
    from rasterio.control import GroundControlPoint

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
                file.gcps = [GroundControlPoint(*point) for point in points], "EPSG:32618"
            if after["tags"]:
                file.update_tags(**after["tags"])
            if after["colormap"]:
                file.write_colormap(1, {k: (k, 255 - k, 7, 255) for k in range(256)})
        if after["overviews"]:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2, 4])
    return path


def tiff(**how: Any) -> Callable[[Path], Path]:
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


def world(driver: str, name: str, **how: Any) -> Callable[[Path], None]:
    """A picture with a world file and a projection beside it."""

    def make(folder: Path) -> None:
        raster(folder / name, pixels(3), driver=driver, **how)
        place = folder / f"{name[:-1]}w"
        place.write_text("10.0\n0.0\n0.0\n-10.0\n300005.0\n3999995.0\n", encoding="ascii")

    return make


def mosaic(folder: Path) -> None:
    """A VRT of two maps."""
    for name, left in (("b.tif", 3e5), ("c.tif", 3e5 + 10 * WIDTH)):
        import rasterio

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
    import rasterio

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
    lines += ['    PROCESSING_LEVEL = "L1TP"', "  END_GROUP = PRODUCT_CONTENTS", "  GROUP = IMAGE_ATTRIBUTES"]
    lines += ['    SPACECRAFT_ID = "LANDSAT_8"', "    SUN_ELEVATION = 33.7", "  END_GROUP = IMAGE_ATTRIBUTES"]
    lines += ["  GROUP = LEVEL1_RADIOMETRIC_RESCALING"]
    lines += [f"    REFLECTANCE_MULT_BAND_{k} = 2.0000E-05" for k in (2, 3, 4, 5)]
    lines += [f"    REFLECTANCE_ADD_BAND_{k} = -0.100000" for k in (2, 3, 4, 5)]
    lines += ["  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING", "END_GROUP = LANDSAT_METADATA_FILE", "END"]
    (folder / LANDSAT / f"{LANDSAT}_MTL.txt").write_text("\n".join(lines), encoding="ascii")


def variables(folder: Path) -> None:
    """A NetCDF file of two variables on one grid, with scale and offset."""
    from scipy.io import netcdf_file

    with netcdf_file(folder / "a.nc", "w") as file:
        for axis, size in (("y", HEIGHT), ("x", WIDTH)):
            file.createDimension(axis, size)
            centres = file.createVariable(axis, "f8", (axis,))
            centres[:] = 3e5 + 10.0 * np.arange(size)
            centres.units, centres.standard_name = "m", f"projection_{axis}_coordinate"
        for name in ("red", "nir"):
            variable = file.createVariable(name, "i2", ("y", "x"))
            variable[:] = pixels(1, "int16")[0]
            variable.scale_factor, variable.add_offset = 1e-4, -0.1


def stac(folder: Path) -> None:
    """A STAC item with two bands."""
    assets: dict[str, Any] = {"thumbnail": {"href": "https://127.0.0.1:9/a.png", "roles": ["thumbnail"]}}
    for name, common in (("B04", "red"), ("B08", "nir")):
        raster(folder / f"{name}.tif", pixels(1, "uint16"))
        numbers = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
        band = {"name": name, "common_name": common}
        assets[name] = {"href": f"./{name}.tif", "eo:bands": [band], "raster:bands": [numbers]}
    properties = {"datetime": "2022-01-25T10:22:21Z", "s2:processing_baseline": "04.00"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": properties, "assets": assets}
    (folder / "a.json").write_text(json.dumps(item), encoding="utf-8")


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
    "variables": Seed(variables, looked_at("a.nc")),
    "stac": Seed(stac, looked_at("a.json", flags=("--sensor", "sentinel-2-l2a"))),
}
