"""Inputs and models for the runs that are compared: made without limner, the same bytes every time."""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import rasterio
import tifffile
import yaml

TESTS = Path(__file__).resolve().parents[1]
CHECKPOINTS = ("detr", "segformer", "vit", "yolos")
LABELS = {"ground": "#000000", "bright": "#e69f00", "ridge": "#56b4e9"}


def load(name: str) -> ModuleType:
    """A module of the tests' folder by its path there, without the suffix."""
    spec = importlib.util.spec_from_file_location(f"proof_{name.replace('/', '_')}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_inputs(folder: Path, samples: Path) -> None:
    """Write everything that the runs read into `folder`, with a copy of the sample scenes and slides."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(samples, folder / "samples")
    make_maps(folder / "maps")
    make_slide(folder / "slides" / "disc.tif")
    make_study(folder / "study")
    make_examples(folder / "examples")
    make_models(folder / "models")


def make_maps(folder: Path) -> None:
    """A projected, a rotated and a wide geographic scene of one band, one in colour, and an area of interest."""
    folder.mkdir()
    waves = ground(150, 110)
    waves[(np.mgrid[:110, :150] < 40).all(axis=0)] = 0
    write_map(folder / "projected.tif", waves[None], "EPSG:32633", rasterio.Affine(10, 0, 500000, 0, -10, 5200000))
    turned = rasterio.Affine(8.0, 6.0, 300000.0, 6.0, -8.0, 6200000.0)
    write_map(folder / "rotated.tif", ground(90, 70)[None], "EPSG:32719", turned)
    wide = rasterio.Affine(0.25, 0.0, 160.0, 0.0, -0.25, 70.0)  # past the antimeridian, where a degree shrinks
    write_map(folder / "wide.tif", ground(160, 120)[None], "EPSG:4326", wide)
    rows, columns = np.mgrid[:140, :180]
    colours = np.stack([128 + 100 * np.sin(columns / f) * np.cos(rows / (f + 3)) for f in (9, 14, 23)])
    place = rasterio.Affine(10.0, 0.0, 440000.0, 0.0, -10.0, 4170000.0)
    write_map(folder / "colours.tif", colours.astype(np.uint8), "EPSG:32618", place)
    corners = [[15.004, 46.953], [15.016, 46.9495], [15.0105, 46.944], [15.003, 46.9465], [15.004, 46.953]]
    area = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
    (folder / "area.geojson").write_text(json.dumps(area), encoding="utf-8")


def ground(width: int, height: int) -> npt.NDArray[np.uint16]:
    """Bright blobs on dark ground."""
    y, x = np.mgrid[:height, :width]
    return (1000 + 400 * np.sin(x / 9.0) * np.cos(y / 7.0) + 100 * np.sin(x / 2.0)).astype(np.uint16)


def write_map(path: Path, bands: npt.NDArray[Any], crs: str, transform: rasterio.Affine) -> None:
    """Write a GeoTIFF of bands (C, H, W): one is called "red"."""
    count, height, width = bands.shape
    more: dict[str, Any] = {"photometric": "RGB"} if count == 3 else {"nodata": 0}
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=bands.dtype, crs=crs,
        transform=transform, tiled=True, blockxsize=64, blockysize=64, **more,
    ) as raster:  # fmt: skip
        if count == 1:
            raster.set_band_description(1, "red")
        raster.write(bands)


def make_slide(path: Path, side: int = 640) -> None:
    """Stained tissue, a disc with holes, on glass; two levels, 0.5 µm a pixel."""
    path.parent.mkdir()
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), 244, dtype=np.uint8)
    tissue = (x - side * 0.45) ** 2 + (y - side * 0.5) ** 2 < (side * 0.3) ** 2
    pixels[tissue] = (200, 120, 170)
    pixels[tissue & ((x // 24 + y // 40) % 3 == 0)] = (110, 60, 140)
    pixels[tissue & ((x // 48 + y // 16) % 5 == 0)] = (235, 200, 225)
    with tifffile.TiffWriter(path) as tiff:
        common: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
        tiff.write(pixels, subifds=1, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **common)
        tiff.write(pixels[::2, ::2], subfiletype=1, **common)


def make_study(folder: Path) -> None:
    """A CT of seven slices named out of order, a sagittal series, a projection, and a file that is no image."""
    making = load("readers/dicom/making")
    rows, columns = np.mgrid[:64, :48]
    stack = making.slices(7)
    for k, one in enumerate(stack):
        blob = 900 * np.exp(-((rows - 30 - k) ** 2 + (columns - 12 - 4 * k) ** 2) / 60)
        pixels = (200 + 5 * columns + blob).astype(np.int16)
        one.PixelData, one.Rows, one.Columns = pixels.tobytes(), *pixels.shape
    making.save_all(stack, folder / "ct", order=[3, 1, 6, 0, 5, 2, 4])
    sagittal = making.slices(
        3, step=4.0, orientation=making.SAGITTAL, SeriesInstanceUID=making.uid(20), PixelSpacing=[0.8, 0.6]
    )
    for k, one in enumerate(sagittal):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = making.uid(2100 + k)
        one.PixelData, one.Rows, one.Columns = (300 + 4 * rows + 40 * k).astype(np.int16).tobytes(), 64, 48
    making.save_all(sagittal, folder / "sagittal")
    film = making.image(
        (100 + 9 * columns + 3 * rows).astype(np.int16), sop_class=making.CR, number=50,
        SeriesInstanceUID=making.uid(30), ImagerPixelSpacing=[0.2, 0.2], ImageType=["ORIGINAL", "PRIMARY"],
    )  # fmt: skip
    making.save(film, folder / "film.dcm")
    (folder / "notes.txt").write_text("no image\n", encoding="utf-8")


def make_examples(folder: Path) -> None:
    """Two of pydicom's own examples, which `make demo` shows."""
    from pydicom.examples import get_path

    folder.mkdir()
    for name in ("ybr_color", "ct"):
        found = Path(str(get_path(name)))  # pyright: ignore[reportArgumentType] - each name is one of its literals
        (folder / found.name).write_bytes(found.read_bytes())


def make_models(folder: Path) -> None:
    """Three cards with a network of one convolution, checkpoints of four makes, one for words, and a schema."""
    folder.mkdir()
    make_card(folder / "map", {"resolution": {"value": 10, "unit": "m"}})
    make_card(folder / "wide", {"resolution": {"value": 16000, "unit": "m"}})
    make_card(
        folder / "slide", {"resolution": {"value": 1.0, "unit": "um"}},
        {"mean": [160.0], "std": [32.0], "valid_range": [0, 255]},
    )  # fmt: skip
    zoo = load("zoo_making")
    for name in CHECKPOINTS:
        zoo.save(name, folder)
    zoo.save_contrastive(folder)
    properties = {"count": {"type": "integer"}, "kind": {"enum": ["field", "water"]}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")


def make_card(folder: Path, card: Mapping[str, Any], variant: Mapping[str, Any] | None = None) -> None:
    """Write `toy.yaml` and its network: dark is ground, bright is "bright", what stands out is "ridge"."""
    folder.mkdir()
    kernels = np.zeros((3, 1, 3, 3), dtype=np.float32)
    kernels[0, 0, 1, 1], kernels[1, 0, 1, 1] = -1.0, 1.0
    kernels[2, 0] = [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
    shape = ["n", 1, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4)],
        "toy",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [onnx.numpy_helper.from_array(kernels, "k")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString(deterministic=True)
    (folder / "toy.onnx").write_bytes(content)
    whole = {
        "name": "toy", "annotator": "segment", "summary": "Bright things and ridges.", "licence": "none",
        "citation": "none", "homepage": "none", "not_for": ["anything but tests"],
        "classes": [{"name": n, "colour": c, "background": n == "ground"} for n, c in LABELS.items()],
        "tile": 32, "halo": 4, "fill": "mean", "layout": "NCHW", "output": "logits",
        "variants": [
            {
                "name": "one-band", "weights": "toy.onnx", "sha256": hashlib.sha256(content).hexdigest(),
                "bands": ["red"], "quantity": "number", "valid_range": [0, 10000], "mean": [1000.0], "std": [256.0],
                **(variant or {}),
            }
        ],
        **card,
    }  # fmt: skip
    (folder / "toy.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
