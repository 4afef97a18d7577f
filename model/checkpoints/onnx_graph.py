"""Read and rewrite the graph of an ONNX network in the bytes of its file.

Format: onnx.proto (fields and their numbers). Only nodes of the main graph are seen; those of functions and of
subgraphs (`If`, `Loop`) stay as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .protobuf import fields, numbers_of, submessages, text_of, write_bytes, write_number

GRAPH, METADATA = 7, 14  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto
TENSOR_NAME = 8  # of TensorProto
NAME, TYPE = 1, 2  # of ValueInfoProto
_OPSET, _DOMAIN, _VERSION = 8, 1, 2  # of ModelProto and its OperatorSetIdProto
_IN, _OUT, _OP, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7  # of NodeProto
_FLOAT, _INT, _TENSOR, _INTS, _KIND = 2, 3, 5, 8, 20  # of AttributeProto, whose name is field 1 too
_KIND_INT, _KIND_TENSOR, _KIND_INTS = 2, 4, 7
_DIMS, _DATA_TYPE, _INT64_DATA, _RAW = 1, 2, 7, 9  # of TensorProto
_TENSOR_TYPE, _ELEMENT = 1, 1  # of TypeProto and its Tensor
_TYPES: Final = {"float32": 1, "int64": 7, "float16": 10, "float64": 11}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    content: bytes = field(repr=False)
    """The node as a field of its graph."""

    @classmethod
    def read(cls, message: memoryview, content: memoryview) -> "Node":
        """From a NodeProto, and the field that holds it; the name of an operator of another domain has that before."""
        inputs, outputs = (tuple(str(bytes(one), "utf-8") for one in submessages(message, key)) for key in (_IN, _OUT))
        domain = text_of(message, _NODE_DOMAIN)
        op = text_of(message, _OP)
        return cls(op if domain in {"", "ai.onnx"} else f"{domain}.{op}", inputs, outputs, bytes(content))

    @classmethod
    def make(cls, op: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> "Node":
        """A new node of the standard domain with one output."""
        parts = [write_bytes(_IN, one) for one in inputs]
        parts += [write_bytes(_OUT, output), write_bytes(_OP, op)]
        for name, value in attributes.items():
            if isinstance(value, int):
                content = [write_number(_INT, value), write_number(_KIND, _KIND_INT)]
            else:
                content = [*(write_number(_INTS, one) for one in value), write_number(_KIND, _KIND_INTS)]
            parts.append(write_bytes(_ATTRIBUTE, [write_bytes(NAME, name), *content]))
        return cls(op, tuple(inputs), (output,), write_bytes(NODE, parts))

    @classmethod
    def constant(cls, name: str, value: npt.NDArray[Any]) -> "Node":
        """A constant of floating-point numbers or of 64-bit whole numbers."""
        tensor = [
            *(write_number(_DIMS, side) for side in value.shape),
            write_number(_DATA_TYPE, _TYPES[value.dtype.name]),
            write_bytes(_RAW, little_endian(value)),
        ]
        attribute = [write_bytes(NAME, "value"), write_bytes(_TENSOR, tensor), write_number(_KIND, _KIND_TENSOR)]
        parts = [write_bytes(_OUT, name), write_bytes(_OP, "Constant"), write_bytes(_ATTRIBUTE, attribute)]
        return cls("Constant", (), (name,), write_bytes(NODE, parts))

    def _attribute(self, name: str) -> memoryview | None:
        message = submessages(memoryview(self.content), NODE)[0]
        return next((one for one in submessages(message, _ATTRIBUTE) if text_of(one, NAME) == name), None)

    def number(self, name: str, default: float) -> float:
        """An attribute that is one number."""
        found = self._attribute(name)
        for key, value, content in () if found is None else fields(found):
            if key == _FLOAT and value is None:
                return float(np.frombuffer(content[-4:], dtype="<f4")[0])
        whole = [] if found is None else numbers_of(found, _INT)
        return whole[-1] if whole else default

    def numbers(self, name: str) -> list[int] | None:
        """An attribute that is a list of whole numbers; None without one."""
        found = self._attribute(name)
        return None if found is None else numbers_of(found, _INTS)

    @property
    def tensor(self) -> memoryview | None:
        """The tensor of a `Constant`."""
        found = self._attribute("value")
        return submessages(found, _TENSOR)[-1] if found is not None and submessages(found, _TENSOR) else None


@dataclass(frozen=True, slots=True)
class Graph:
    """The main graph of a network."""

    nodes: tuple[Node, ...]
    """In an order in which they can run."""
    tensors: Mapping[str, memoryview] = field(repr=False)
    """Constants by name, as TensorProto."""
    inputs: tuple[str, ...]
    """Without constants."""
    opset: int
    """The version of the standard operators."""

    @classmethod
    def read(cls, content: bytes) -> "Graph":
        """From a network's file. Raises `ValueError`."""
        model = memoryview(content)
        graph = _only_graph(model)
        nodes = tuple(
            Node.read(value, raw) for key, value, raw in fields(graph) if key == NODE and isinstance(value, memoryview)
        )
        tensors = {text_of(one, TENSOR_NAME): one for one in submessages(graph, INITIALIZER)}
        for node in nodes:
            if node.op == "Constant" and (tensor := node.tensor) is not None:
                tensors[node.outputs[0]] = tensor
        inputs = tuple(name for one in submessages(graph, INPUT) if (name := text_of(one, NAME)) not in tensors)
        opsets = [
            numbers_of(one, _VERSION) for one in submessages(model, _OPSET) if text_of(one, _DOMAIN) in {"", "ai.onnx"}
        ]
        return cls(nodes, tensors, inputs, max((one[-1] for one in opsets if one), default=1))

    def whole_numbers(self, name: str) -> list[int] | None:
        """The values of a constant of 64-bit whole numbers; None where it is no such constant."""
        tensor = self.tensors.get(name)
        if tensor is None or numbers_of(tensor, _DATA_TYPE) != [_TYPES["int64"]]:
            return None
        raw = submessages(tensor, _RAW)
        return np.frombuffer(raw[-1], dtype="<i8").tolist() if raw else numbers_of(tensor, _INT64_DATA)

    def axes_of_constant(self, name: str) -> int | None:
        """How many axes a constant has; None where it is no constant."""
        tensor = self.tensors.get(name)
        return None if tensor is None else len(numbers_of(tensor, _DIMS))


def rewrite(content: bytes, nodes: Iterable[Node], *, outputs: Sequence[str] | None = None) -> bytes:
    """The file with other nodes. With `outputs`, these alone are its outputs, and it takes inputs of any shape.

    Raises `ValueError`.
    """
    model = memoryview(content)
    graph: list[bytes | memoryview] = [
        raw if outputs is None or key != INPUT or not isinstance(value, memoryview) else _of_any_shape(value)
        for key, value, raw in fields(_only_graph(model))
        if key not in {NODE, VALUE_INFO} and not (outputs is not None and key == OUTPUT)
    ]
    graph += [node.content for node in nodes]
    graph += [write_bytes(OUTPUT, [write_bytes(NAME, name)]) for name in outputs or ()]
    return b"".join(write_bytes(GRAPH, graph) if key == GRAPH else raw for key, _, raw in fields(model))


def of_any_size(content: bytes) -> bytes:
    """The file without the shapes of inputs and outputs that it states. Raises `ValueError`."""
    names = [text_of(one, NAME) for one in submessages(_only_graph(memoryview(content)), OUTPUT)]
    return rewrite(content, Graph.read(content).nodes, outputs=names)


def _only_graph(model: memoryview) -> memoryview:
    found = submessages(model, GRAPH)
    if len(found) != 1:
        msg = f"it has {len(found)} graphs"
        raise ValueError(msg)
    return found[0]


def _of_any_shape(value: memoryview) -> bytes:
    """A ValueInfoProto without its shape."""
    kinds = [numbers_of(one, _ELEMENT) for kind in submessages(value, TYPE) for one in submessages(kind, _TENSOR_TYPE)]
    tensor = write_bytes(_TENSOR_TYPE, [write_number(_ELEMENT, kinds[0][0] if kinds and kinds[0] else 1)])
    return write_bytes(INPUT, [write_bytes(NAME, text_of(value, NAME)), write_bytes(TYPE, [tensor])])


def little_endian(value: npt.NDArray[Any]) -> bytes:
    """The numbers of an array, row by row."""
    return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
