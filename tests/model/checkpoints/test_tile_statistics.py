"""Networks that normalise by what a tile shows: frozen to a whole image, they answer alike in every tiling."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from limner.model.checkpoints import tile_statistics
from limner.model.checkpoints.onnx import OnnxNetwork
from limner.readers.errors import ModelError

RNG = np.random.default_rng(11)
CHANNELS, CLASSES, TILE = 8, 3, 64
KINDS = (
    "instance",
    "group",
    "exported group",
    "means",
    "squeeze",
    "mvn",
    "layer",
    "none",
    "channels",
)
Parts = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def constant(name: str, value: object, kind: type[np.generic] = np.float32) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(value, dtype=kind), name)


def reduce_mean(value: str, axes: Sequence[int], out: str, opset: int) -> Parts:
    if opset < 18:
        return [onnx.helper.make_node("ReduceMean", [value], [out], axes=list(axes), keepdims=1)], []
    return [onnx.helper.make_node("ReduceMean", [value, f"{out}.axes"], [out], keepdims=1)], [
        constant(f"{out}.axes", axes, np.int64)
    ]


def normalisation(kind: str, value: str, out: str, *, opset: int, side: int | None) -> Parts:  # noqa: PLR0911
    """Nodes that normalise, as exporters write them."""
    make = onnx.helper.make_node
    rng = np.random.default_rng(len(out))
    per_channel = [
        constant(f"{out}.scale", rng.uniform(0.5, 2, CHANNELS)),
        constant(f"{out}.shift", rng.normal(size=CHANNELS)),
    ]
    affine = [f"{out}.scale", f"{out}.shift"]
    if kind == "instance":
        return [make("InstanceNormalization", [value, *affine], [out], epsilon=1e-3)], per_channel
    if kind == "group":
        few = [constant(f"{out}.{name}", rng.uniform(0.5, 2, 4)) for name in ("scale", "shift")]
        scales = per_channel if opset >= 21 else few
        return [make("GroupNormalization", [value, *affine], [out], num_groups=4)], scales
    if kind == "exported group":
        nodes = [
            make("Reshape", [value, f"{out}.groups"], [f"{out}.r"]),
            make("InstanceNormalization", [f"{out}.r", f"{out}.one", f"{out}.zero"], [f"{out}.n"]),
            make("Shape", [value], [f"{out}.size"]),
            make("Reshape", [f"{out}.n", f"{out}.size"], [out]),
        ]
        return nodes, [
            constant(f"{out}.groups", [0, 2, -1], np.int64),
            constant(f"{out}.one", np.ones(2)),
            constant(f"{out}.zero", np.zeros(2)),
        ]
    if kind in {"means", "channels"}:
        axes = [1] if kind == "channels" else [2, 3]
        first, constants = reduce_mean(value, axes, f"{out}.m", opset)
        second, more = reduce_mean(f"{out}.p", axes, f"{out}.v", opset)
        power = make("Pow", [f"{out}.d", f"{out}.two"], [f"{out}.p"])
        nodes = [*first, make("Sub", [value, f"{out}.m"], [f"{out}.d"]), power, *second]
        nodes += [
            make("Add", [f"{out}.v", f"{out}.eps"], [f"{out}.e"]),
            make("Sqrt", [f"{out}.e"], [f"{out}.s"]),
            make("Div", [f"{out}.d", f"{out}.s"], [out]),
        ]
        return nodes, [*constants, *more, constant(f"{out}.two", 2.0), constant(f"{out}.eps", 1e-5)]
    if kind == "squeeze":
        nodes = [
            make("GlobalAveragePool", [value], [f"{out}.p"]),
            make("Sigmoid", [f"{out}.p"], [f"{out}.g"]),
            make("Mul", [value, f"{out}.g"], [out]),
        ]
        return nodes, []
    if kind == "mvn":
        return [make("MeanVarianceNormalization", [value], [out])], []
    if kind == "layer":
        assert side is not None
        shape = (CHANNELS, side, side)
        scales = [constant(f"{out}.scale", np.full(shape, 1.5)), constant(f"{out}.shift", np.full(shape, 0.25))]
        return [make("LayerNormalization", [value, *affine], [out], axis=-3)], scales
    return [make("Relu", [value], [out])], []


def network(
    kind: str, *, opset: int = 17, side: int | None = None, layers: int = 2, element: int = onnx.TensorProto.FLOAT
) -> bytes:
    """Convolutions with a normalisation after each, three channels in and three classes out; `side` fixes its size."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    value, depth = "x", 3
    for layer in range(layers):
        rng = np.random.default_rng(layer)
        tensors.append(constant(f"k{layer}", rng.normal(size=(CHANNELS, depth, 3, 3)) / np.sqrt(9 * depth)))
        nodes.append(onnx.helper.make_node("Conv", [value, f"k{layer}"], [f"c{layer}"], pads=[1] * 4))
        more, constants = normalisation(kind, f"c{layer}", f"n{layer}", opset=opset, side=side)
        nodes += more
        tensors += constants
        value, depth = f"n{layer}", CHANNELS
        nodes.append(onnx.helper.make_node("Tanh", [value], [f"t{layer}"]))
        value = f"t{layer}"
    tensors.append(constant("head", np.random.default_rng(99).normal(size=(CLASSES, depth, 1, 1))))
    nodes.append(onnx.helper.make_node("Conv", [value, "head"], ["y"]))
    sides: list[Any] = ["h", "w"] if side is None else [side, side]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [info("x", element, ["n" if side is None else 1, 3, *sides])],
        [info("y", element, ["n" if side is None else 1, CLASSES, *sides])],
        tensors,
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString()


def picture(height: int = 160, width: int = 224) -> npt.NDArray[np.float32]:
    """A picture that is dark at the left and busy at the right, so that no two tiles have the same statistics."""
    ramp = np.linspace(-1, 2, width)[None, :, None]
    noise = RNG.normal(size=(height // 4, width // 4, 3)).repeat(4, axis=0).repeat(4, axis=1)
    return (ramp + noise * (0.3 + ramp**2)).astype(np.float32)


def run(content: bytes, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return OnnxNetwork(content, name="toy", layout="NCHW", threads=1).segment(pixels[None])[0]


def measured(content: bytes, pixels: npt.NDArray[np.float32]) -> bytes:
    found = tile_statistics.measure(content, pixels, tile=TILE, layout="NCHW", name="toy")
    assert tile_statistics.read(tile_statistics.add(found, "")).keys() == found.keys()
    return tile_statistics.freeze(content, tile_statistics.read(tile_statistics.add(found, "")), "toy")


def tiled(content: bytes, pixels: npt.NDArray[np.float32], shift: int, margin: int = 4) -> npt.NDArray[np.float32]:
    """The values in the cores of tiles of 64 px that start at -shift; NaN in the outermost pixels of the picture."""
    height, width = pixels.shape[:2]
    found = np.full((height, width, CLASSES), np.nan, dtype=np.float32)
    for y in range(-shift, height, TILE - 2 * margin):
        for x in range(-shift, width, TILE - 2 * margin):
            rows, columns = (np.clip(np.arange(at, at + TILE), 0, side - 1) for at, side in ((y, height), (x, width)))
            values = run(content, pixels[np.ix_(rows, columns)])
            for row in range(max(margin, y + margin), min(height - margin, y + TILE - margin)):
                left, right = max(margin, x + margin), min(width - margin, x + TILE - margin)
                if left < right:
                    found[row, left:right] = values[row - y, left - x : right - x]
    return found


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"layer", "none", "channels"}])
@pytest.mark.slow
def test_tiles_answer_as_the_whole_image_does(kind: str, opset: int) -> None:
    if kind == "group" and opset < 18:
        opset = 18
    pixels = picture()
    content = network(kind, opset=opset)
    whole = run(content, pixels)
    frozen = measured(content, pixels)
    assert frozen != content
    np.testing.assert_allclose(run(frozen, pixels), whole, atol=2e-4)
    for shift in (0, 17):
        found = tiled(frozen, pixels, shift)
        inside = ~np.isnan(found)
        assert inside.mean() > 0.8
        np.testing.assert_allclose(found[inside], whole[inside], atol=2e-4)
    before = tiled(content, pixels, 0), tiled(content, pixels, 17)
    both = ~np.isnan(before[0]) & ~np.isnan(before[1])
    assert np.abs(before[0] - before[1])[both].max() > 0.05  # which is why


def test_a_network_of_one_size_is_measured_tile_by_tile() -> None:
    pixels = picture(2 * TILE, 3 * TILE)
    content = network("layer", side=TILE, opset=17)
    frozen = measured(content, pixels)
    here, there = (run(frozen, pixels[y : y + TILE, x : x + TILE]) for y, x in ((0, 0), (16, 32)))
    np.testing.assert_allclose(here[20:-4, 36:-4], there[4:-20, 4:-36], atol=1e-5)
    found = tile_statistics.measure(content, pixels, tile=TILE, layout="NCHW", name="toy")
    assert [value.size for value in found.values()] == [1] * 4  # a mean and a variance for each of two layers
    convolved = onnx.load_from_string(content)
    convolved.graph.output[0].name = "c0"
    first = [
        OnnxNetwork(convolved.SerializeToString(), name="toy", layout="NCHW").output(tile[None])
        for y in range(0, 2 * TILE, TILE)
        for tile in (pixels[y : y + TILE, x : x + TILE] for x in range(0, 3 * TILE, TILE))
    ]
    mean, variance = list(found.values())[:2]
    assert mean.item() == pytest.approx(np.mean(first), abs=1e-5)
    assert variance.item() == pytest.approx(np.var(first), rel=1e-4)


def test_a_stated_size_is_no_limit_where_the_network_takes_others() -> None:
    pixels = picture()
    free, stated = (
        tile_statistics.measure(network("instance", side=side), pixels, tile=TILE, layout="NCHW", name="toy")
        for side in (None, TILE)
    )
    assert tile_statistics.add(free, "") == tile_statistics.add(stated, "")


@pytest.mark.parametrize("kind", ["none", "channels"])
def test_networks_without_statistics_over_a_tile_keep_every_byte(kind: Literal["none", "channels"]) -> None:
    content = network(kind)
    assert tile_statistics.measure(content, picture(), tile=TILE, layout="NCHW", name="toy") == {}
    assert measured(content, picture()) is content


def test_the_same_picture_gives_the_same_bytes() -> None:
    content, pixels = network("instance"), picture()
    found = [tile_statistics.measure(content, pixels, tile=TILE, layout="NCHW", name="toy") for _ in range(2)]
    assert tile_statistics.add(found[0], "") == tile_statistics.add(found[1], "")
    assert '"stain": 1' in tile_statistics.add(found[0], '{"stain": 1}')


def test_statistics_of_another_network_are_refused() -> None:
    found = tile_statistics.measure(network("instance"), picture(), tile=TILE, layout="NCHW", name="toy")
    with pytest.raises(ModelError, match="statistics that were measured"):
        tile_statistics.freeze(network("squeeze"), found, "toy")


def test_damaged_bytes_are_an_error_of_the_network() -> None:
    with pytest.raises(ModelError, match="must be an ONNX network"):
        tile_statistics.find(b"\xff" * 40, "toy")
