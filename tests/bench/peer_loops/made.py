"""The pictures and networks that `peers.py` gives to limner and to the programs beside it. Imports no limner."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE, OBJECTS, CELL = 8192, 6000, 8
TILE, OVERLAP = 512, 64
"""Side of a detector's tile, and how far neighbours overlap, in pixels."""
SIZES = range(9, 28, 2)
"""Sides of objects in pixels: odd, so that the middle of one is the middle of a pixel."""
PATCH, MICRONS = 256, 0.5
SOURCE, PART = 2048, 512
"""Sides of a part in pixels of the picture, and as it is read."""
CHIP, STRIDE = 512, 480
CLASSES = ("pale", "dark")


def write_objects(path: Path) -> Path:
    """A georeferenced picture (8192, 8192, 3) of 8 bits with 6000 objects, and `path`.npy: their boxes (6000, 4).

    Objects lie in cells of 96 px, none over another. The pixel in the middle of one has red 255, which no other pixel
    has, and the object's width and height as its green and blue.
    """
    import rasterio

    random = np.random.default_rng(5)
    picture = random.integers(40, 56, (SIDE, SIDE, 3), dtype=np.uint8)
    across, pitch = SIDE // 96, 96
    boxes = np.empty((OBJECTS, 4), np.int64)
    for number, cell in enumerate(random.choice(across**2, OBJECTS, replace=False)):
        wide, high = random.choice(SIZES, 2)
        x = int(cell % across) * pitch + int(random.integers(0, pitch - wide - 4))
        y = int(cell // across) * pitch + int(random.integers(0, pitch - high - 4))
        picture[y : y + high, x : x + wide] = (180, 120, 60)
        picture[y + high // 2, x + wide // 2] = (255, wide, high)
        boxes[number] = x, y, x + wide, y + high
    place = {"crs": "EPSG:32618", "transform": rasterio.Affine(0.5, 0, 300000, 0, -0.5, 4300000)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "pixel", "photometric": "rgb"}
    shape = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(path, "w", **shape, **place, **layout, num_threads="all_cpus") as raster:
        raster.write(picture.transpose(2, 0, 1))
    np.save(path.with_suffix(".npy"), boxes)
    return path


def write_detector(path: Path) -> Path:
    """An ONNX network in the layout of YOLOv8 with the metadata of QGIS's Deepness, which finds the objects exactly.

    (1, 3, 512, 512), red, green and blue from 0 to 1 → (1, 5, 4096): centre, size and score of each cell of 8 px.
    """
    import onnx

    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    place = np.arange(CELL, dtype=np.float32) + 0.5
    sums = np.zeros((5, 3, CELL, CELL), np.float32)  # of what the middle says in a cell: x, y, width, height, whether
    sums[0, 0], sums[1, 0] = place[None, :], place[:, None]
    sums[2, 1] = sums[3, 2] = 255
    sums[4, 0] = 1
    cells = TILE // CELL
    corner = np.zeros((1, 5, cells, cells), np.float32)
    corner[0, 0], corner[0, 1] = np.arange(cells)[None, :] * CELL, np.arange(cells)[:, None] * CELL
    constants = {
        "red": np.array([255, 0, 0], np.float32).reshape(1, 3, 1, 1),
        "threshold": np.array([-254], np.float32),
        "two": np.eye(3, dtype=np.float32)[1:].reshape(2, 3, 1, 1),
        "sums": sums,
        "corner": corner,
        "parts": np.array([4, 1]),
        "most": np.array([2], np.float32),
        "shape": np.array([1, 5, cells**2]),
    }
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["x", "red", "threshold"], ["over"]),
            make("Relu", ["over"], ["middle"]),
            make("Conv", ["x", "two"], ["size"]),
            make("Mul", ["size", "middle"], ["said"]),
            make("Concat", ["middle", "said"], ["all"], axis=1),
            make("Conv", ["all", "sums"], ["inside"], strides=[CELL, CELL]),
            make("Add", ["inside", "corner"], ["cells"]),
            make("Split", ["cells", "parts"], ["boxes", "middles"], axis=1),
            make("Sub", ["most", "middles"], ["room"]),  # 1 for one middle, negative on white beyond the picture
            make("Relu", ["room"], ["single"]),
            make("Mul", ["middles", "single"], ["score"]),
            make("Concat", ["boxes", "score"], ["rows"], axis=1),
            make("Reshape", ["rows", "shape"], ["y"]),
        ],
        "detector",
        [info("x", onnx.TensorProto.FLOAT, [1, 3, TILE, TILE])],
        [info("y", onnx.TensorProto.FLOAT, [1, 5, cells**2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    metadata = {
        "model_type": "Detector",
        "class_names": {"0": "object"},
        "det_type": "YOLO_Ultralytics",
        "det_conf": 0.5,
        "tiles_overlap": 100 * OVERLAP / TILE,
    }
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    path.write_bytes(model.SerializeToString())
    return path


def write_slide(sample: Path, path: Path, side: int = 8192) -> Path:
    """A slide that is made up: copies of a real one side by side, as a pyramid of JPEG tiles of 256 px at 0.5 µm/px."""
    import tifffile

    piece = tifffile.imread(sample, key=0)
    copies = -(-side // min(piece.shape[:2]))
    picture = np.tile(piece, (copies, copies, 1))[:side, :side]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(3):
            reduced = picture[:: 4**level, :: 4**level]
            across = 10000 / (MICRONS * 4**level)
            spacing: dict[str, Any] = {"resolution": (across, across), "resolutionunit": "CENTIMETER"}
            shape: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 90}}
            kind = {"subfiletype": 1 if level else 0, "photometric": "rgb", "metadata": None}
            file.write(np.ascontiguousarray(reduced), **shape, **spacing, **kind)
    return path


def write_classifier(folder: Path) -> Path:
    """A folder of the WSInfer model zoo: a convolution of 8 channels with stride 8, its mean, and two classes."""
    import torch

    torch.manual_seed(3)
    first, mean, last = torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(8, 2)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), mean, torch.nn.Flatten(), last)
    folder.mkdir(exist_ok=True)
    torch.jit.script(network.eval()).save(str(folder / "torchscript_model.pt"))
    steps: list[dict[str, Any]] = [
        {"name": "Resize", "arguments": {"size": PATCH}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3}},
    ]
    config = {
        "spec_version": "1.0",
        "architecture": "tiny",
        "num_classes": len(CLASSES),
        "class_names": list(CLASSES),
        "name": "tiny",
        "patch_size_pixels": PATCH,
        "spacing_um_px": MICRONS,
        "transform": steps,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
