"""Untrusted rasters make GDAL read nothing but the pixels in their own folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
from limner.readers import registry
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo
from limner.readers.raster import gdal
from limner.readers.raster.geotiff import RasterReader

WriteRaster = Callable[..., str]
SIDE = 64
Listener = Any  # of conftest, which tests cannot import


def scan(path: Path | str, **options: str) -> ImageInfo:
    """Scan and read the only image of a file."""
    (info,) = scan_with(RasterReader(), str(path), options)
    with RasterReader().open(info) as image:
        image.read(info.box, (16, 16))
        image.read(info.box, info.size)
    return info


def vrt(body: str, *, head: str = "", band: str = "") -> str:
    """A VRT of one band."""
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{head}'
        f'<VRTRasterBand dataType="Byte" band="1"{band}>{body}</VRTRasterBand></VRTDataset>'
    )


def wms(address: str, cache: str = "") -> str:
    """GDAL's description of a web map service."""
    corner = (
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>"
    )
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}</ServerUrl></Service><DataWindow>{corner}'
        f"<SizeX>{SIDE}</SizeX><SizeY>{SIDE}</SizeY></DataWindow>{cache}</GDAL_WMS>"
    )


def wcs(address: str) -> str:
    return f"<WCS_GDAL><ServiceURL>{address}/?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>"


NAMES = {
    "http": "{address}/a.tif",
    "vsicurl": "/vsicurl/{address}/a.tif",
    "vsicurl_streaming": "/vsicurl_streaming/{address}/a.tif",
    "vsis3": "/vsis3/bucket/a.tif",
    "vsisubfile": "/vsisubfile/0_4096,/vsicurl/{address}/a.tif",
    "vsistdin": "/vsistdin/",
    "wms": "WMS:{address}/?LAYERS=x&amp;SRS=EPSG:4326&amp;BBOX=0,0,1,1",
    "wcs": "WCS:{address}/?COVERAGE=x",
    "wmts": "WMTS:{address}/",
    "stacit": 'STACIT:"{address}/a.json"',
    "stacta": 'STACTA:"{address}/a.json"',
    "inline wms": "{wms}",
    "inline vrt": '&lt;VRTDataset rasterXSize="64" rasterYSize="64"/&gt;',
    "mem": "MEM:::DATAPOINTER=0,PIXELS=64,LINES=64",
    "vrt address": "vrt://{address}/a.tif",
    "absolute": "/etc/passwd",
    "above": "../secret.tif",
    "above, by a turn": "sub/../../secret.tif",
    "device": "/dev/zero",
    "link": "link.tif",
    "text": "text.tif",
    "folder": "sub",
    "nowhere": "none.tif",
    "web map in a file": "web.xml",
    "nested": "nested.vrt",
    "by another driver": "NETCDF:tile.tif:x",
}

FILE = '<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>'
KINDS = {
    "simple": vrt(f"<SimpleSource>{FILE}</SimpleSource>"),
    "simple, not relative": vrt(f"<SimpleSource>{FILE}</SimpleSource>").replace('"1">{}', '"0">{}'),
    "complex": vrt(f"<ComplexSource>{FILE}<ScaleRatio>2</ScaleRatio></ComplexSource>"),
    "mask": vrt(
        "",
        head=f'<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource>{FILE}</SimpleSource></VRTRasterBand></MaskBand>',
    ),
    "raw": vrt(
        '<SourceFilename relativeToVRT="1">{}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>'
        "<LineOffset>8</LineOffset>",
        band=' subClass="VRTRawRasterBand"',
    ),
    "warped": f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}" subClass="VRTWarpedDataset">'
    '<VRTRasterBand dataType="Byte" band="1" subClass="VRTWarpedRasterBand"/><GDALWarpOptions>'
    '<SourceDataset relativeToVRT="1">{}</SourceDataset><Transformer><GenImgProjTransformer>'
    + "".join(f"<{side}GeoTransform>0,1,0,0,0,1</{side}GeoTransform>" for side in ("Src", "SrcInv", "Dst", "DstInv"))
    + '</GenImgProjTransformer></Transformer><BandList><BandMapping src="1" dst="1"/></BandList>'
    "</GDALWarpOptions></VRTDataset>",
}


@pytest.mark.parametrize("kind", KINDS)
def test_vrt_sources_outside_the_folder_are_refused(
    tile: Path, listener: Listener, write_raster: WriteRaster, tmp_path: Path, kind: str
) -> None:
    """Every source that is no raster in the folder is refused in every element; nothing is requested or written."""
    secret = write_raster("secret.tif", np.ones((SIDE, SIDE, 1), np.uint8))
    box = tile.parent
    (box / "sub").mkdir()
    (box / "link.tif").symlink_to(secret)
    (box / "text.tif").write_text("root:x:0:0:root:/root:/bin/sh\n" * 200)
    cache = f"<Cache><Path>{box}/written</Path></Cache>"
    (box / "web.xml").write_text(wms(listener.address, cache))
    (box / "nested.vrt").write_text(KINDS["simple"].format(f"/vsicurl/{listener.address}/a.tif"))
    for at, (case, name) in enumerate(NAMES.items()):
        named = name.format(address=listener.address, wms=escape(wms(listener.address, cache)))
        path = box / f"case{at}.vrt"
        path.write_text(KINDS[kind].format(named))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ReadError):
            scan(path)
        assert not listener.received, case
        assert sorted(tmp_path.rglob("*")) == before, case


def test_vrt_sources_in_the_folder_are_read(tile: Path) -> None:
    """The same VRTs as above with a good source; raw bytes are refused with any source."""
    for kind, text in KINDS.items():
        (tile.parent / "a.vrt").write_text(text.format(tile if "not" in kind else tile.name))
        if kind == "raw":
            with pytest.raises(ReadError, match="subClass"):
                scan(tile.parent / "a.vrt")
        else:
            scan(tile.parent / "a.vrt")


@pytest.mark.parametrize(
    "name",
    [
        "{}",
        "WMS:{}/?LAYERS=x",
        "WCS:{}/?COVERAGE=x",
        "/vsistdin/",
        "/vsimem/x",
        "/vsisubfile/0_9,/etc/passwd",
        "/dev/zero",
    ],
)
def test_input_names_are_files_or_urls(listener: Listener, name: str) -> None:
    named = name.format(listener.address) if name != "{}" else wms(listener.address)
    with pytest.raises(ReadError):
        scan(named)
    assert not listener.received


def refused(path: Path, what: str) -> None:
    with pytest.raises(ReadError, match=what):
        scan_with(RasterReader(), str(path), {})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (vrt("<KernelFilteredSource/>"), "KernelFilteredSource"),
        (vrt("", band=' subClass="VRTDerivedRasterBand"'), "subClass"),
        (vrt("<PixelFunctionType>sum</PixelFunctionType>"), "PixelFunctionType"),
        (vrt("<PixelFunctionCode><![CDATA[import os]]></PixelFunctionCode>"), "CDATA"),
        (vrt("<Overview><SourceFilename>tile.tif</SourceFilename></Overview>"), "Overview"),
        (vrt("", head="<PansharpeningOptions/>"), "PansharpeningOptions"),
        (vrt(f"<SimpleSource>{FILE}<OpenOptions/></SimpleSource>".format("tile.tif")), "OpenOptions"),
        (vrt("<simpleSource/>"), "simpleSource"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + vrt(""), "declarations"),
        ("<?xml version='1.0'?><?go now?>" + vrt(""), "declarations"),
        (vrt(f"<SimpleSource>{FILE}</SimpleSource>".format("tile.tif<!-- -->/x")), "declarations"),
        (vrt(f"<SimpleSource>{FILE}</SimpleSource>".format(" tile.tif")), "source"),
        (vrt("<SimpleSource><SourceBand>1</SourceBand></SimpleSource>"), "name a file"),
        (vrt("") * 2, "well-formed"),
        (vrt("")[:-3], "well-formed"),
        (vrt("").replace('"64"', '"0"', 1), "positive integers"),
        ("<VRTDataset>" * 10_000, "<VRTDataset> in <VRTDataset>"),
        (
            vrt(
                f'<SimpleSource>{FILE}<DstRect xOff="nan" yOff="0" xSize="1" ySize="1"/></SimpleSource>'.format(
                    "tile.tif"
                )
            ),
            "finite",
        ),
        (
            vrt(f'<SimpleSource>{FILE}<SourceProperties BlockXSize="9"/></SimpleSource>'.format("tile.tif")),
            "BlockXSize is",
        ),
        (vrt("<ColorInterp>Palette</ColorInterp><ColorTable/>").replace("Byte", "Int32"), "palette|table"),
        (vrt("", head="<GeoTransform>1,2</GeoTransform>" + " " * 33 * 2**20), "32 MiB"),
    ],
    ids=lambda text: text[:40] if text else None,
)
def test_vrt_elements_off_the_allow_list_are_refused(tile: Path, text: str, what: str) -> None:
    path = tile.parent / "a.vrt"
    path.write_text(text)
    refused(path, what)


def test_vrt_is_recognised_by_content(tile: Path, listener: Listener) -> None:
    """At any position of the first bytes that GDAL reads, under any file name."""
    text = KINDS["simple"].format(f"/vsicurl/{listener.address}/a.tif")
    for name, content in {
        "a.tif": text.encode(),
        "b.vrt": b"\xef\xbb\xbf" + text.encode(),
        "c.vrt": b"\n \t" + text.encode(),
        "d.jpg": b"\xff\xd8\xff\xfe\x11\x11" + text.encode(),
        "e.vrt": text.encode("utf-16"),
    }.items():
        (tile.parent / name).write_bytes(content)
        with pytest.raises(ReadError):
            scan(tile.parent / name)
    assert not listener.received


def test_nested_vrts_are_limited(tile: Path) -> None:
    """In depth, without cycles, and in the number of files that one read opens."""
    simple = "<SimpleSource>" + FILE + "</SimpleSource>"
    names = [tile.name, *(f"{depth}.vrt" for depth in range(gdal.MAX_VRT_DEPTH + 1))]
    for inner, outer in pairwise(names):
        (tile.parent / outer).write_text(vrt(simple.format(inner)))
    scan(tile.parent / names[-2])
    refused(tile.parent / names[-1], "nested")
    for one, other in (("x.vrt", "x.vrt"), ("y.vrt", "z.vrt"), ("z.vrt", "y.vrt")):
        (tile.parent / one).write_text(vrt(simple.format(other)))
    refused(tile.parent / "x.vrt", "source of itself")
    refused(tile.parent / "y.vrt", "source of itself")
    for inner, outer in zip(names[:3], ("1.vrt", "2.vrt", "3.vrt"), strict=True):
        (tile.parent / outer).write_text(
            vrt(simple.format(inner if inner == tile.name else f"{int(outer[0]) - 1}.vrt") * 60)
        )
    refused(tile.parent / "3.vrt", "not open more than")


def test_vrts_read_as_gdal_reads_them(tile: Path, write_raster: WriteRaster) -> None:
    """Scales, lookup tables, masks, averages and statistics."""
    write_raster("box/sub/masked.tif", np.full((SIDE, SIDE, 1), 7, np.uint8), mask=np.eye(SIDE) > 0)
    rect = f'xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"'
    about = (
        f'<SourceProperties RasterXSize="{SIDE}" RasterYSize="{SIDE}" DataType="Byte" BlockXSize="64" BlockYSize="64"/>'
    )
    rects = f"{about}<SrcRect {rect}/><DstRect {rect}/>"
    one, masked = FILE.format("tile.tif") + rects, FILE.format("sub/masked.tif") + rects
    statistics = '<Metadata><MDI key="STATISTICS_MEAN">5</MDI></Metadata>'
    table = '<ColorInterp>Palette</ColorInterp><ColorTable><Entry c1="1" c2="2" c3="3" c4="255"/></ColorTable>'
    mask = '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource>{}</SimpleSource></VRTRasterBand></MaskBand>'
    place = '<SRS dataAxisToSRSAxisMapping="1,2">EPSG:32618</SRS><GeoTransform> 3e5, 10, 0, 4e6, 0, -10</GeoTransform>'
    bodies = {
        "simple": vrt(f'<SimpleSource resampling="bilinear">{one}</SimpleSource>', head=place),
        "absolute": vrt(f"<SimpleSource>{one}</SimpleSource>".replace('"1">tile.tif', f'"0">{tile}')),
        "nodata": vrt(f"<NoDataValue>9</NoDataValue><ComplexSource>{one}<NODATA>9</NODATA></ComplexSource>"),
        "scaled": vrt(
            f"<Offset>1</Offset><ComplexSource>{one}<ScaleOffset>3</ScaleOffset><ScaleRatio>0.5</ScaleRatio></ComplexSource>"
        ),
        "by a table": vrt(f"<ComplexSource>{one}<LUT>0:0,100:10,255:255</LUT></ComplexSource>"),
        "averaged": vrt(f"<AveragedSource>{one}</AveragedSource>"),
        "by a mask": vrt(f"<NoDataFromMaskSource>{masked}<NODATA>0</NODATA></NoDataFromMaskSource>"),
        "masked": vrt(f"<SimpleSource>{masked}</SimpleSource>", head=mask.format(masked.replace(">1<", ">mask,1<"))),
        "statistics": vrt(
            f"{statistics}<Description>depth</Description><SimpleSource>{one}</SimpleSource>", head=statistics
        ),
        "palette": vrt(f"{table}<SimpleSource>{one}</SimpleSource>"),
        "declared": '<?xml version="1.0" encoding="UTF-8"?>\n' + vrt(f"<SimpleSource>{one}</SimpleSource>"),
        "overviews": vrt(
            f"<SimpleSource>{one}</SimpleSource>", head='<OverviewList resampling="nearest">2 4</OverviewList>'
        ),
        "nested": vrt("<SimpleSource>" + FILE.format("simple.vrt") + "</SimpleSource>"),
    }
    with rasterio.open(tile) as file:
        blocks = 'BlockXSize="{1}" BlockYSize="{0}"'.format(*file.block_shapes[0])
    for name, text in bodies.items():
        path = tile.parent / f"{name}.vrt"
        path.write_text(text.replace('BlockXSize="64" BlockYSize="64"', blocks))
        info = scan(path)
        with RasterReader().open(info) as image, rasterio.open(path) as file:
            pixels, valid = image.read(info.box, info.size)
            if name == "palette":
                assert pixels[0, 0].tolist() == [1, 2, 3]
            else:
                assert np.array_equal(valid, file.dataset_mask() != 0), name
                assert np.array_equal(pixels[valid, 0], file.read(1)[valid]), name


@pytest.mark.parametrize(
    "case", ["tag", "aux.xml", "ovr, wms", "ovr, wcs", "msk, wcs", "ovr, vrt", "msk, vrt", "parts", "vrt's"]
)
def test_untrusted_sidecar_files_are_refused(tile: Path, listener: Listener, case: str) -> None:
    """GDAL opens overviews and masks by their names, or by names that the file states."""
    elsewhere = f"WCS:{listener.address}/?COVERAGE=x"
    named = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{elsewhere}</MDI></Metadata>'
    path, beside = tile, ""
    web = {"wms": wms(listener.address), "wcs": wcs(listener.address), "vrt": KINDS["simple"].format(tile.name)}
    if case == "tag":
        with rasterio.open(tile, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=elsewhere)
    elif case == "aux.xml":
        tile.with_name("tile.tif.aux.xml").write_text(f"<PAMDataset>{named}</PAMDataset>")
    elif case == "vrt's":
        path = tile.with_name("a.vrt")
        path.write_text(vrt(f"<SimpleSource>{FILE}</SimpleSource>".format(tile.name), head=named))
    elif case == "parts":
        path = tile.with_name("a.vrt")
        part = f'<Metadata domain="SUBDATASETS"><MDI key="SUBDATASET_1_NAME">{elsewhere}</MDI></Metadata>'
        path.write_text(f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{part}</VRTDataset>')
    else:
        ending, _, kind = case.partition(", ")
        beside = f"tile.tif.{ending}"
        tile.with_name(beside).write_text(web[kind])
    with pytest.raises(ReadError, match=beside):
        scan(path)
    assert not listener.received


def test_sidecar_link_out_of_the_folder_is_refused(tile: Path, write_raster: WriteRaster) -> None:
    tile.with_name("tile.tif.ovr").symlink_to(write_raster("secret.tif", np.ones((32, 32, 1), np.uint8)))
    refused(tile, "tile.tif.ovr beside")


PIPES = ("pipe.tif", "a.vrt", "tile.tif.ovr", "tile.tif.msk", "tile.tif.aux.xml", "tile.tfw", "TILE.IMD", "folder")


@pytest.mark.slow
@pytest.mark.parametrize("pipe", PIPES)
def test_named_pipes_do_not_block(tile: Path, pipe: str) -> None:
    path = tile
    if pipe == "folder":
        path = tile.parent
    elif pipe == "a.vrt":
        path = tile.with_name("a.vrt")
        path.write_text(KINDS["simple"].format("source.tif"))
        os.mkfifo(tile.with_name("source.tif"))
    else:
        os.mkfifo(tile.with_name(pipe))
        path = tile.with_name(pipe) if pipe == "pipe.tif" else tile
    code = (
        "import sys\nfrom limner.readers.errors import ReadError\n"
        "from limner.readers.raster.geotiff import RasterReader\n"
        "R = RasterReader\ntry:\n    R().scan(sys.argv[1], R.Options())\nexcept ReadError as e:\n    print(e.rule)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "regular" in done.stdout


def test_remote_raster_opens_no_other_url(tile: Path, listener: Listener, served_folder: Callable[[Path], str]) -> None:
    here = served_folder(tile.parent)
    scan(f"{here}/tile.tif")
    (tile.parent / "a.vrt").write_text(KINDS["simple"].format(f"/vsicurl/{listener.address}/a.tif"))
    with rasterio.open(tile, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{listener.address}/a.tif")
    tile.rename(tile.with_name("led.tif"))
    for name in ("a.vrt", "led.tif"):
        with pytest.raises(ReadError):
            scan(f"{here}/{name}")
    assert not listener.received


def test_untrusted_vrt_as_a_band_of_a_scene(tile: Path, listener: Listener) -> None:
    folder = tile.parent / "scene"
    folder.mkdir()
    for band in ("B02", "B03"):
        (folder / f"S2_{band}.tif").write_bytes(tile.read_bytes())
    (folder / "S2_B04.vrt").write_text(KINDS["simple"].format(f"/vsicurl/{listener.address}/a.tif"))
    (folder / "S2_B05.tif").write_text(KINDS["simple"].format(f"/vsicurl/{listener.address}/a.tif"))
    rows = registry.scan([str(folder)], {})
    failed = {Path(row.path).name: row.reason for row in rows if row.status == "failed"}
    assert failed.keys() == {"S2_B02.tif", "S2_B04.vrt"}
    assert "S2_B05.tif" in failed["S2_B02.tif"]
    assert not listener.received


def test_crs_that_names_a_file_is_refused(tile: Path) -> None:
    """PROJ opens the grid files that a CRS names, and would block on a pipe."""
    grid = tile.with_name("grid.gsb")
    os.mkfifo(grid)
    path = tile.with_name("a.vrt")
    path.write_text(
        vrt(
            f"<SimpleSource>{FILE}</SimpleSource>".format(tile.name),
            head=f"<SRS>+proj=utm +zone=18 +ellps=WGS84 +nadgrids={grid} +units=m +no_defs</SRS>"
            "<GeoTransform>3e5, 10, 0, 4e6, 0, -10</GeoTransform>",
        )
    )
    refused(path, "CRS")
    srs = f"<PAMDataset><SRS>+proj=utm +zone=18 +nadgrids={grid} +no_defs</SRS></PAMDataset>"
    aside = tile.with_name("tile.tif.aux.xml")
    aside.write_text(srs.replace("grids", "&#103;rids"))
    refused(tile, "CRS")
    aside.unlink()


def test_what_forbids_the_network_holds_in_each_thread_alone() -> None:
    """Handles of one image are read in several threads, of which one leaves GDAL's environment before another."""
    from rasterio._env import get_gdal_config

    first, second = Event(), Event()

    def allowed() -> Any:
        return get_gdal_config("CPL_VSIL_CURL_ALLOWED_FILENAME")

    def read() -> tuple[Any, Any]:
        with gdal.gdal_env("a.tif"):
            first.set()
            assert second.wait(60)
            return allowed(), get_gdal_config("GDAL_CACHEMAX")

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        assert first.wait(60)
        with gdal.gdal_env("b.tif"):
            assert allowed() == "nothing"
        with gdal.gdal_env("https://server/c.tif"):
            assert allowed() is None
            second.set()
            found, cache = reading.result()
    assert found == "nothing"
    assert cache
