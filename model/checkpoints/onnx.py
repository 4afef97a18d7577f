"""A network in ONNX form, on the processor. The one file that imports onnxruntime, when a network is loaded."""

# onnxruntime has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, excerpt
from ...readers.sandbox import SandboxError, run_sandboxed
from .untrusted import MIB, open_file, read_bytes, wrap_errors

AxisOrder = Literal["NHWC", "NCHW"]

MOST: Final = 2**31
"""Bytes of a network's file, as its format has it."""
SECONDS: Final = 120
"""In which a stranger's network must load and answer one tile."""
MEGABYTES: Final = 3072
"""Address space in which it must do so, and four times its file's size more."""

_TRIED: set[tuple[object, ...]] = set()


def runtime() -> str:
    """What runs the network, with its version; imports nothing."""
    return f"onnxruntime {version('onnxruntime')}"


class OnnxNetwork:
    """One input. `layout` is the order of its axes: batch, height, width, channels, or as torch has it.

    `metadata` is what its file says of itself. `shapes` are those of its input and its outputs, in order; an axis that
    the file leaves open is None.
    """

    def __init__(
        self,
        content: bytes,
        *,
        name: str,
        layout: AxisOrder,
        threads: int = 0,
        beside: Mapping[str, bytes] | None = None,
    ) -> None:
        """Load from the bytes that were checked. `threads` 0 takes one per core. Raises `ModelError`.

        `beside` are the files that hold weights outside the network's own, by the name it calls them; it may name no
        others.
        """
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3  # errors only
        self._name = name
        self._layout: AxisOrder = layout
        with wrap_errors(
            f"network {name}",
            "it must be an ONNX network that this onnxruntime can load",
            remedy="Check that the card names the right file, or upgrade onnxruntime",
        ):
            check_external(content, beside or {}, name)
            if beside:
                settings.add_external_initializers_from_files_in_memory(
                    list(beside), list(beside.values()), [len(part) for part in beside.values()]
                )
            self._session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            self._input, self._output = cast("str", inputs[0].name), cast("str", outputs[0].name)
            self.metadata = dict(cast("dict[str, str]", self._session.get_modelmeta().custom_metadata_map))
            self.shapes = tuple(
                tuple(axis if isinstance(axis, int) else None for axis in cast("list[object]", one.shape))
                for one in (*inputs, *outputs)
            )
            self.inputs = len(inputs)

    def __call__(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Tiles (n, height, width, channels), normalised → values (n, height, width, classes). Raises `ModelError`."""
        values = self.output(tiles)
        if values.ndim != tiles.ndim or len(values) != len(tiles):
            raise ModelError(
                f"network {self._name}",
                f"it must answer {len(tiles)} tiles with a map of values each, {self._layout}",
                value=str(values.shape),
                remedy="Name a network that segments, or correct its layout in its card where it has one",
            )
        return values if self._layout == "NHWC" else values.transpose(0, 2, 3, 1)

    def output(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Tiles (n, height, width, channels), normalised → its first output as it is. Raises `ModelError`."""
        given = tiles if self._layout == "NHWC" else np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
        with wrap_errors(
            f"network {self._name}",
            f"it must take tiles of the shape {given.shape} that is stated for it, and answer with numbers",
            remedy="Correct its tile, bands or layout, in its card where it has one",
            running=True,
        ):
            value: Any = self._session.run([self._output], {self._input: given})[0]
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
                raise TypeError(type(value))
            return value.astype(np.float32, copy=False)


def check_external(content: bytes, beside: Mapping[str, object], name: str) -> None:
    """Raise `ModelError` where a network has weights in files that nobody gave it: it could name any file."""
    others = sorted(external_files(content) - set(beside))
    if others:
        raise ModelError(
            f"network {name}",
            "its weights must be in its own file, or in those that its card names as companions",
            value=excerpt(", ".join(others)),
            remedy="Save it with its weights inside, or write a card that names the files with their sha256",
        )


def try_out(
    path: Path, *, layout: AxisOrder, tile: int, channels: int, beside: Mapping[str, Path] | None = None
) -> None:
    """Load a stranger's network in the limited process, and run it on one tile of noise; `tile` 0 loads it only.

    Whatever it does to the process, it does not do here. What was tried is remembered by path, size and time of change.
    Raises `ModelError` where it is refused, crashes, or needs more than `SECONDS` or the address space.
    """
    files = {name: str(one) for name, one in (beside or {}).items()}
    with wrap_errors(f"network {path.name}", "it must be a readable file", remedy="Check the path"):
        found = [(one, one.stat()) for one in (path, *map(Path, files.values()))]
    sizes = [(str(one), status.st_size, status.st_mtime_ns) for one, status in found]
    key = (*sizes, layout, tile, channels)
    if key not in _TRIED:
        more = 4 * sum(size for _, size, _ in sizes) // MIB
        megabytes = MEGABYTES + -(-more // 1024) * 1024
        arguments = (str(path), layout, tile, channels, files)
        try:
            run_sandboxed(f"{__name__}:load_and_run", *arguments, seconds=SECONDS, megabytes=megabytes)
        except SandboxError as error:
            raise ModelError(
                f"network {path.name}",
                f"it must load and answer one tile within {SECONDS} s and {megabytes} MiB, without a crash",
                value=f"{error.code} {error.value}".strip(),
                remedy="Do not use this file, or have it exported again",
            ) from error
        _TRIED.add(key)


def load_and_run(path: str, layout: AxisOrder, tile: int, channels: int, beside: Mapping[str, str]) -> None:
    """What `try_out` does in the limited process."""
    subject = f"network {Path(path).name}"
    parts = {name: read_bytes(Path(one), subject, most=MOST) for name, one in beside.items()}
    content = read_bytes(Path(path), subject, most=MOST)
    network = OnnxNetwork(content, name=Path(path).name, layout=layout, threads=1, beside=parts)
    if tile:
        noise = np.random.default_rng(0).random((1, tile, tile, channels), dtype=np.float32)
        network.output(noise)


_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_PARTS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
"""Message → number of a field that holds another message → which."""
_KEY, _VALUE, _LOCATION = 1, 2, b"location"  # of StringStringEntryProto
_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_TENSOR, _SHAPE, _AXIS, _AXIS_LENGTH = 1, 2, 1, 1  # of TypeProto, its Tensor, TensorShapeProto and its Dimension

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """`shapes` are those of the `inputs` inputs and then of the outputs, in order; an open axis is None."""

    metadata: Mapping[str, str]
    shapes: tuple[Shape, ...]
    inputs: int


def read_header(path: Path) -> OnnxHeader:
    """The header of an ONNX file. Raises `ModelError` where it cannot be read or is none."""
    subject = f"network {path.name}"
    with (
        wrap_errors(subject, "it must be an ONNX network", remedy="Check that it is the right file, and whole"),
        open_file(path, subject) as file,
    ):
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        metadata = {_text(entry, _KEY): _text(entry, _VALUE) for entry in _parts(whole, _METADATA)}
        graph = _parts(whole, _GRAPH)[-1]
        constants = {_text(one, _TENSOR_NAME) for one in _parts(graph, _INITIALIZER)}
        inputs = [one for one in _parts(graph, _INPUT) if _text(one, _NAME) not in constants]
        outputs = _parts(graph, _OUTPUT)
        if not inputs or not outputs:
            msg = f"it has {len(inputs)} inputs and {len(outputs)} outputs"
            raise ValueError(msg)
        return OnnxHeader(metadata, tuple(_shape(one) for one in (*inputs, *outputs)), len(inputs))


def external_files(content: bytes) -> set[str]:
    """The files that hold tensors of a network outside its own file, by the names that it gives them.

    Raises `ValueError` for bytes that are no protocol buffer.
    """
    found: set[str] = set()
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        parts = _PARTS[kind]
        entry: dict[int, bytes] = {}
        for field, value in _fields(message):
            if isinstance(value, int):
                continue
            if field in parts:
                waiting.append((parts[field], value))
            elif kind == "entry":
                entry[field] = bytes(value)
        if entry.get(_KEY) == _LOCATION:
            found.add(entry.get(_VALUE, b"").decode("utf-8", errors="replace"))
    return found


def _shape(value: memoryview) -> Shape:
    """The shape that an input or output states; () where it states none."""
    found = [value]
    for number in (_TYPE, _TENSOR, _SHAPE):
        found = [part for one in found for part in _parts(one, number)]
    axes = [axis for one in found for axis in _parts(one, _AXIS)]
    lengths = [[n for number, n in _fields(axis) if number == _AXIS_LENGTH and isinstance(n, int)] for axis in axes]
    return tuple(length[0] if length else None for length in lengths)


def _text(message: memoryview, number: int) -> str:
    found = _parts(message, number)
    return bytes(found[-1]).decode() if found else ""


def _parts(message: memoryview, wanted: int) -> list[memoryview]:
    """The messages, texts or bytes of that number in a message."""
    return [value for number, value in _fields(message) if number == wanted and isinstance(value, memoryview)]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message that is a whole number or has a length. Raises `ValueError`."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif wire == _LENGTH:
            size, at = _varint(message, at)
            if size > end - at:
                msg = "a field is longer than its message"
                raise ValueError(msg)
            yield tag >> 3, message[at : at + size]
            at += size
        elif wire in {_EIGHT, _FOUR}:
            at += 8 if wire == _EIGHT else 4
        else:
            msg = f"no field is of the kind {wire}"
            raise ValueError(msg)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    found = 0
    for place, byte in enumerate(message[at : at + 10]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return found, at + place + 1
    msg = "a number has no end"
    raise ValueError(msg)
