"""Statistics over a tile inside ONNX networks: measure them once on a whole image, and write them in as constants.

Instance, group and layer normalisation over space, and pooling of a whole tile (squeeze and excitation), make a network
answer for a pixel by what else its tile happens to show, so that the same pixel has two classes in two tiles. Here each
such statistic becomes that of the image: nodes that normalise are first replaced by the operations that they stand for,
so that every statistic is the output of a node of its own, as it is where an exporter wrote the operations out; the
network then runs once on the image with these outputs exposed; and for tiles the nodes are replaced by what they gave.
A statistic of a deep layer is therefore taken behind shallow layers that were normalised by the whole image too.

A network that runs at one size only is run on tiles of the image, once for each statistic and with all statistics
before it already fixed: the mean over the tiles is then the image's (of a mean, and of a mean of squared deviations).
"""

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from .onnx import AxisOrder, OnnxNetwork
from .onnx_graph import Graph, Node, little_endian, rewrite
from .untrusted import wrap_errors

Values = npt.NDArray[np.float32]
Statistics = Mapping[str, npt.NDArray[np.floating]]
"""Statistics by name, in the network's own number type."""

Sample = TypeVar("Sample", bound=np.generic)

_KEY: Final = "statistics"
MAX_STRIDE: Final = 64  # a canvas is padded to a multiple of the largest power of 2 in a tile, up to this
_POOLS: Final = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
_REDUCTIONS: Final = frozenset({"ReduceMean", "ReduceMax"})
_NORMALISATIONS: Final = {
    "InstanceNormalization": 1e-5,
    "GroupNormalization": 1e-5,
    "LayerNormalization": 1e-5,
    "MeanVarianceNormalization": 1e-9,
}
"""Each with its default epsilon."""
_AXES_AS_INPUT: Final = 18  # the version of operators from which reductions have their axes as an input
_CASTS_LIKE: Final = 15  # from which a constant can take the number type of a value
_CHANNEL_SCALES: Final = 21  # from which group normalisation has a scale for each channel


@dataclass(frozen=True, slots=True)
class _Candidates:
    """A network's graph with its statistics as nodes of their own."""

    nodes: tuple[Node, ...]
    certain: tuple[str, ...]
    """Outputs of nodes that reduce all of space, whatever the size of the picture, in order."""
    possible: tuple[str, ...]
    """Those, and outputs of reductions along a single axis, which may be the channels."""


def find(content: bytes, name: str) -> bool:
    """Whether a network has statistics over a tile. `name` names it in errors. Raises `ModelError`."""
    return bool(_candidates(content, name).possible)


def freeze(content: bytes, statistics: Statistics, name: str) -> bytes:
    """The file of a network with these statistics as constants; the same bytes where there are none.

    Raises `ModelError` where the network does not have them.
    """
    if not statistics:
        return content
    found = _candidates(content, name)
    with wrap_errors(f"network {name}", "must have the statistics that were measured", remedy="Run it anew"):
        absent = sorted(set(statistics) - set(found.possible))
        if absent:
            raise ValueError(", ".join(absent[:3]))
        return rewrite(content, _with_constants(found.nodes, statistics))


def measure(
    content: bytes,
    canvas: Values,
    *,
    tile: int,
    layout: AxisOrder,
    name: str,
    companions: Mapping[str, bytes] | None = None,
) -> dict[str, npt.NDArray[np.floating]]:
    """The statistics of a whole picture (H, W, channels), normalised as a tile is; {} for a network that has none.

    Runs on one thread, since the order of a sum, and so its last bit, depends on their number. Raises `ModelError`
    where the network does not run with its statistics exposed.
    """
    found = _candidates(content, name)

    def load(nodes: Sequence[Node], outputs: Collection[str]) -> OnnxNetwork:
        changed = rewrite(content, nodes, outputs=list(outputs))
        return OnnxNetwork(changed, name=name, layout=layout, threads=1, companions=companions, quiet=True)

    if not found.possible:
        return {}
    for step in dict.fromkeys([1, gcd(tile, MAX_STRIDE)]):  # as it is, or padded for a network that halves its sides
        try:
            network = load(found.nodes, found.possible)
            whole = network.outputs(_padded(canvas, step)[None])
            other = network.outputs(_of_other_size(canvas, tile, step)[None])
        except ModelError:
            continue
        return {key: one for key, one, two in zip(found.possible, whole, other, strict=True) if one.shape == two.shape}
    return _tile_by_tile(found, cut(canvas, tile), load)


def cut(canvas: npt.NDArray[Sample], tile: int) -> list[npt.NDArray[Sample]]:
    """A picture (H, W, channels) in tiles side by side, its last column and row repeated to fill them."""
    padded = _padded(canvas, tile)
    height, width = padded.shape[:2]
    return [padded[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]


def add(statistics: Statistics, fitted: str) -> str:
    """What was fitted to an image, a JSON object or "", with these statistics in it; as it is where there are none.

    A statistic has its number type, its shape, and its numbers as base64, little-endian.
    """
    if not statistics:
        return fitted
    record = {
        name: [value.dtype.name, list(value.shape), base64.b64encode(little_endian(value)).decode()]
        for name, value in statistics.items()
    }
    return json.dumps({**json.loads(fitted or "{}"), _KEY: record})


def read(fitted: str) -> Statistics:
    """The statistics that `add` wrote; {} where there are none."""
    record = json.loads(fitted or "{}").get(_KEY, {})
    return {
        name: np.frombuffer(base64.b64decode(numbers), dtype=np.dtype(kind).newbyteorder("<"))
        .astype(kind)
        .reshape(shape)
        for name, (kind, shape, numbers) in record.items()
    }


def _tile_by_tile(
    found: _Candidates, tiles: Sequence[Values], load: Callable[[Sequence[Node], Collection[str]], OnnxNetwork]
) -> dict[str, npt.NDArray[np.floating]]:
    """See the module's text; only statistics that are certain to be over space."""
    statistics: dict[str, npt.NDArray[np.floating]] = {}
    for key in found.certain:
        network = load(_with_constants(found.nodes, statistics), [key])
        given = [network.outputs(tile[None])[0] for tile in tiles]
        statistics[key] = np.mean(given, axis=0, dtype=np.float64).astype(given[0].dtype)
    return statistics


def _padded(canvas: npt.NDArray[Sample], step: int) -> npt.NDArray[Sample]:
    """A canvas whose sides are multiples of `step`, with its last column and row repeated."""
    height, width = canvas.shape[:2]
    if not (height % step or width % step):
        return canvas
    return np.pad(canvas, ((0, -height % step), (0, -width % step), (0, 0)), mode="edge")


def _of_other_size(canvas: Values, tile: int, step: int) -> Values:
    """A canvas of about half a tile whose sides both differ from those of the padded one."""
    multiple = gcd(tile, MAX_STRIDE)
    side = max(multiple, tile // 2 // multiple * multiple)
    height, width = (side if length + -length % step != side else side + multiple for length in canvas.shape[:2])
    return np.pad(canvas, ((0, height), (0, width), (0, 0)), mode="edge")[:height, :width]


def _with_constants(nodes: Sequence[Node], statistics: Statistics) -> list[Node]:
    """The nodes with constants in place of those that compute these statistics."""
    return [
        Node.constant(node.outputs[0], statistics[node.outputs[0]]) if set(node.outputs) & set(statistics) else node
        for node in nodes
    ]


def _candidates(content: bytes, name: str) -> _Candidates:
    remedy = "Check that it is the right file, and whole"
    with wrap_errors(f"network {name}", "must be an ONNX network", remedy=remedy):
        graph = Graph.read(content)
        seen = set(graph.inputs)  # values that depend on the picture, and not on its size alone
        nodes: list[Node] = []
        certain: list[str] = []
        possible: list[str] = []
        for place, node in enumerate(graph.nodes):
            depends = bool(seen & set(node.inputs)) and node.op not in {"Shape", "Size"}
            seen |= set(node.outputs) if depends else set()
            parts = _Parts.of(graph, node, f"limner.statistics.{place}") if depends else None
            if parts is not None:
                nodes += parts.nodes
                certain += parts.statistics
                possible += parts.statistics
                continue
            nodes.append(node)
            if depends and node.op in _POOLS | _REDUCTIONS:
                axes = _axes(graph, node)
                if node.op in _POOLS or axes is None or len(axes) > 1:
                    certain.append(node.outputs[0])
                possible.append(node.outputs[0])
        return _Candidates(tuple(nodes), tuple(certain), tuple(possible))


def _axes(graph: Graph, node: Node) -> list[int] | None:
    """The axes of a reduction, None for all of them; [0] where they are computed."""
    if len(node.inputs) > 1 and node.inputs[1]:
        return graph.whole_numbers(node.inputs[1]) or [0]
    return node.numbers("axes")


class _Parts:
    """The operations that a normalisation stands for.

    (x - mean) / sqrt(mean of squared deviations + epsilon) · scale + shift, with the means over each group of channels.
    """

    def __init__(self, graph: Graph, prefix: str) -> None:
        self.nodes: list[Node] = []
        self.statistics: list[str] = []
        self._graph = graph
        self._prefix = prefix

    @classmethod
    def of(cls, graph: Graph, node: Node, prefix: str) -> "_Parts | None":
        """The parts of a node that normalises over space; None for any other."""
        if node.op not in _NORMALISATIONS or len(node.outputs) != 1:
            return None
        parts = cls(graph, prefix)
        picture, scale, shift = (*node.inputs, "", "")[:3]
        output = node.outputs[0]
        epsilon = node.number("epsilon", _NORMALISATIONS[node.op])
        if node.op == "LayerNormalization":
            axes = graph.axes_of_constant(scale)
            if axes is None or axes < 2:
                return None  # over the channels of each place
            value = parts._normalised(picture, list(range(-axes, 0)), epsilon)
            parts._scaled(value, scale, shift, output)
            return parts
        per_channel = node.op == "InstanceNormalization"
        if node.op == "GroupNormalization":
            groups = int(node.number("num_groups", 1))
            per_channel = graph.opset >= _CHANNEL_SCALES
        elif node.op == "MeanVarianceNormalization":
            groups = 1 if 1 in (node.numbers("axes") or [0, 2, 3]) else 0
        else:
            groups = 0  # each channel is one
        value = parts._add("Reshape", picture, parts._whole_numbers([0, groups, -1]))
        value = parts._normalised(value, [2], epsilon)
        if scale and per_channel and groups:
            value = parts._like(value, picture)
            value = parts._add("Reshape", value, parts._whole_numbers([0, 0, -1]))
        if scale:
            scale, shift = (parts._add("Reshape", one, parts._whole_numbers([1, -1, 1])) for one in (scale, shift))
        parts._like(parts._scaled(value, scale, shift), picture, output)
        return parts

    def _normalised(self, value: str, axes: list[int], epsilon: float) -> str:
        mean = self._mean(value, axes)
        deviation = self._add("Sub", value, mean)
        variance = self._mean(self._add("Mul", deviation, deviation), axes)
        self.statistics += [mean, variance]
        room = self._constant(np.array(epsilon, dtype=np.float32))
        if self._graph.opset >= _CASTS_LIKE:
            room = self._add("CastLike", room, variance)
        return self._add("Div", deviation, self._add("Sqrt", self._add("Add", variance, room)))

    def _mean(self, value: str, axes: list[int]) -> str:
        if self._graph.opset >= _AXES_AS_INPUT:
            return self._add("ReduceMean", value, self._whole_numbers(axes), keepdims=1)
        return self._add("ReduceMean", value, axes=axes, keepdims=1)

    def _scaled(self, value: str, scale: str, shift: str, output: str = "") -> str:
        if not scale:
            return value
        scaled = self._add("Mul", value, scale, output=output if not shift else "")
        return self._add("Add", scaled, shift, output=output) if shift else scaled

    def _like(self, value: str, picture: str, output: str = "") -> str:
        return self._add("Reshape", value, self._add("Shape", picture), output=output)

    def _whole_numbers(self, values: list[int]) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def _constant(self, value: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        self.nodes.append(Node.constant(f"{self._prefix}.{len(self.nodes)}", value))
        return self.nodes[-1].outputs[0]

    def _add(self, op: str, *inputs: str, output: str = "", **attributes: int | Sequence[int]) -> str:
        self.nodes.append(Node.make(op, inputs, output or f"{self._prefix}.{len(self.nodes)}", **attributes))
        return self.nodes[-1].outputs[0]
