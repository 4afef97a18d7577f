"""The scene, the network and the card of `end_to_end.py`. Imports no limner, so that its peer does not either."""

import hashlib
from pathlib import Path

import numpy as np

CLASSES = ("ground", "bright", "rough")
TILE, HALO = 512, 16
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
SLIDE_BANDS = ("red", "green", "blue")
MEAN, STD = (1500, 1600, 1700, 2000, 1900, 1800), (500, 500, 600, 800, 700, 600)
STRIP = 512


def write_scene(path: Path, side: int, *, noise: int = 60) -> None:
    """Six bands of 16 bits at 10 m: broad waves with noise, in blocks of 512 px of all bands, deflate."""
    import rasterio
    from rasterio.windows import Window

    random = np.random.default_rng(0)
    place = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 300000, 0, -10, 4300000)}
    blocks = {"tiled": True, "blockxsize": STRIP, "blockysize": STRIP, "interleave": "pixel", "bigtiff": "yes"}
    packed = {"compress": "deflate", "predictor": 2, "zlevel": 1, "num_threads": "all_cpus"}
    shape = {"driver": "GTiff", "width": side, "height": side, "count": len(BANDS), "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **shape, **place, **blocks, **packed) as raster:
        for number, name in enumerate(BANDS, 1):
            raster.set_band_description(number, name)
        x = np.arange(side)[None, :]
        for top in range(0, side, STRIP):
            y = np.arange(top, min(top + STRIP, side))[:, None]
            waves = [np.sin(x / (37 + 7 * n) + n) * np.cos(y / (29 + 5 * n)) + np.sin((x + y) / 401) for n in range(3)]
            strip = np.stack([1700 + 350 * waves[n % 3] + 120 * n for n in range(len(BANDS))])
            strip += random.integers(0, noise, strip.shape)
            raster.write(strip.astype(np.uint16), window=Window(0, top, side, len(y)))  # pyright: ignore[reportCallIssue] - rasterio states no types


def write_network(folder: Path, *, hidden: int = 8, slide: bool = False) -> Path:
    """Two convolutions, 6 → `hidden` → 3 channels, as `tiny.onnx`, and its card, which is returned.

    For a `slide` of three channels at 1 µm instead.
    """
    import onnx
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    bands, mean, std = (SLIDE_BANDS, (0, 0, 0), (255, 255, 255)) if slide else (BANDS, MEAN, STD)
    random = np.random.default_rng(7)
    first = random.normal(size=(hidden, len(bands), 1, 1)) / 25 * np.ones((1, 1, 5, 5))
    second = random.normal(size=(len(CLASSES), hidden, 1, 1)) / 9 * np.ones((1, 1, 3, 3))
    if slide:  # tissue is what has less green than glass: few polygons, as smooth as its edge
        colour = np.arange(hidden) % 3
        first = (colour[:, None] == np.arange(3))[:, :, None, None] * np.full((5, 5), 1 / 25)
        weights = np.stack([2.2 * (colour == 1), 1.0 * (colour != 1), 0.0 * colour])
        second = weights[:, :, None, None] * np.full((3, 3), 3 / hidden / 9)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["x", "first"], ["hidden"], pads=[2] * 4),
            make("Relu", ["hidden"], ["positive"]),
            make("Conv", ["positive", "second"], ["y"], pads=[1] * 4),
        ],
        "tiny",
        [info("x", onnx.TensorProto.FLOAT, ["n", len(bands), "h", "w"])],
        [info("y", onnx.TensorProto.FLOAT, ["n", len(CLASSES), "h", "w"])],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in (("first", first), ("second", second))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    (folder / "tiny.onnx").write_bytes(content)
    variant = {
        "name": f"{len(bands)}-bands",
        "weights": "tiny.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bands": list(bands),
        "quantity": "number",
        "valid_range": [0, 255 if slide else 10000],
        "mean": list(mean),
        "std": list(std),
    }
    colours = ("#000000", "#e69f00", "#56b4e9")
    card = {
        "name": "tiny",
        "annotator": "segment",
        "summary": "Two convolutions.",
        "licence": "none",
        "citation": "none",
        "homepage": "none",
        "not_for": ["anything but measuring"],
        "classes": [
            {"name": name, "colour": colour, "background": name == CLASSES[0]}
            for name, colour in zip(CLASSES, colours, strict=True)
        ],
        "resolution": {"value": 1, "unit": "um"} if slide else {"value": 10, "unit": "m"},
        "tile": TILE,
        "halo": HALO,
        "fill": "nearest",
        "layout": "NCHW",
        "output": "logits",
        "variants": [variant],
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    return path
