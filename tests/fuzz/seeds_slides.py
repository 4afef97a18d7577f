"""Slides, small, as scanners and programs write them."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import seeds
from seeds import Seed, looked_at
from seeds_maps import Pixels, pixels


def colours(height: int = 200, width: int = 260) -> Pixels:
    """(height, width, 3)."""
    return np.ascontiguousarray(np.moveaxis(pixels(3, width=width, height=height), 0, 2))


def pyramid(
    name: str = "a.tif",
    *,
    order: Literal["<", ">"] = "<",
    big: bool = False,
    subs: bool = False,
    **how: Any,
) -> Any:
    """Make a pyramid of tiles, 0.5 µm a pixel, its levels as pages or as SubIFDs."""

    def make(folder: Path) -> None:
        import tifffile

        whole = colours()
        size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "metadata": None}
        with tifffile.TiffWriter(folder / name, byteorder=order, bigtiff=big) as file:
            for level in range(3):
                reduced = {"subfiletype": 1} if level else {"subifds": 2 if subs else None}
                file.write(whole[:: 2**level, :: 2**level], photometric="rgb", tile=(64, 64), **reduced, **size, **how)

    return make


def aperio(folder: Path) -> None:
    """A slide as Aperio writes it, with a thumbnail, a label and a macro."""
    import tifffile

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
        import tifffile

        data = np.moveaxis(colours(100, 130), 2, 0).astype(np.uint16)
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
        about = {"axes": axes, "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}, "UUID": "urn:uuid:0", **size}
        data = data[:, None] if len(axes) == 4 else data
        with tifffile.TiffWriter(folder / name, ome=True) as file:
            file.write(data, tile=(64, 64), subifds=1, metadata=about)
            file.write(data[..., ::2, ::2], tile=(64, 64), subfiletype=1)
            file.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", metadata={"axes": "YXS"})
        content = (folder / name).read_bytes()  # a UUID that is new each time is no seed
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
    import tifffile

    with tifffile.TiffWriter(folder / "a.tiff") as file:
        output = {"description": says, "software": "Philips DP v1.0", "metadata": None}
        file.write(colours(), tile=(64, 64), photometric="rgb", compression="jpeg", **output)


def hamamatsu(folder: Path) -> None:
    """A TIFF with the tags of an NDPI, whose one level is one JPEG."""
    import tifffile

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
    """A slide of `readers/slide/scanners.py`."""
    module = "readers/slide/scanners"
    return lambda folder: getattr(seeds.module(module), name)(folder / f"a.{suffix}", colours(130, 200))


def zarr(version: int) -> Callable[[Path], object]:
    """OME-Zarr of Zarr 2 or 3, of two levels in chunks of 64 px, those of the second version compressed."""

    def make(folder: Path) -> None:
        root, pixels = folder / "a.ome.zarr", np.moveaxis(colours(), 2, 0)
        datasets: list[dict[str, Any]] = []
        for level in range(2):
            part = pixels[:, :: 2**level, :: 2**level]
            array = root / str(level)
            array.mkdir(parents=True)
            if version == 2:
                how = {"zarr_format": 2, "dtype": "|u1", "compressor": {"id": "zlib"}, "dimension_separator": "/"}
                how |= {"shape": part.shape, "chunks": [1, 64, 64], "order": "C", "filters": None, "fill_value": 0}
                (array / ".zarray").write_text(json.dumps(how))
            else:
                grid = {"name": "regular", "configuration": {"chunk_shape": [1, 64, 64]}}
                how = {"zarr_format": 3, "node_type": "array", "data_type": "uint8", "shape": part.shape}
                how |= {"chunk_grid": grid, "codecs": [{"name": "bytes"}], "fill_value": 0}
                (array / "zarr.json").write_text(json.dumps(how))
            for place in np.ndindex(3, -(-part.shape[1] // 64), -(-part.shape[2] // 64)):
                chunk = np.zeros((64, 64), dtype=np.uint8)
                own = part[place[0], 64 * place[1] :, 64 * place[2] :][:64, :64]
                chunk[: own.shape[0], : own.shape[1]] = own
                path = array.joinpath(*(["c"] if version == 3 else []), *map(str, place))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(zlib.compress(chunk.tobytes()) if version == 2 else chunk.tobytes())
            scale = [{"type": "scale", "scale": [1, 0.5 * 2**level, 0.5 * 2**level]}]
            datasets.append({"path": str(level), "coordinateTransformations": scale})
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
        channels = [{"label": name, "color": name} for name in ("FF0000", "00FF00", "0000FF")]
        image = {"multiscales": [{"axes": axes, "datasets": datasets}], "omero": {"channels": channels}}
        if version == 2:
            (root / ".zgroup").write_text('{"zarr_format": 2}')
            (root / ".zattrs").write_text(json.dumps(image))
        else:
            attributes = {"ome": {"version": "0.5", **image}}
            (root / "zarr.json").write_text(
                json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
            )

    return make


def czi(folder: Path) -> None:
    """A mosaic of two levels in CZI."""
    writer, pixels = seeds.module("readers/slide/conftest").CziWriter(), colours(192, 256)[..., ::-1]
    for factor, part in ((1, pixels), (2, pixels[::2, ::2])):
        for number, (y, x) in enumerate((y, x) for y in range(0, len(part), 64) for x in range(0, part.shape[1], 64)):
            tile = np.ascontiguousarray(part[y : y + 64, x : x + 64])
            place, size = (x * factor, y * factor), (tile.shape[1], tile.shape[0])
            writer.add(tile.tobytes(), 3, place, size, factor=factor, C=0, M=number)
    distances = "".join(f'<Distance Id="{axis}"><Value>5e-07</Value></Distance>' for axis in "XY")
    scaling = f"<ImageDocument><Metadata><Scaling><Items>{distances}</Items></Scaling></Metadata></ImageDocument>"
    writer.save(folder / "a.czi", scaling)


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
    "zarr 2": Seed(zarr(2), looked_at("a.ome.zarr")),
    "zarr 3": Seed(zarr(3), looked_at("a.ome.zarr")),
    "czi": Seed(czi, looked_at("a.czi")),
    "leica": Seed(scanned("leica", "scn"), looked_at("a.scn")),
}
