"""ONNX networks: read a file's header from its bytes, try an untrusted network in a sandbox, and run it on the CPU.

Format: onnx.proto (fields and their numbers). onnxruntime is imported only when a network is loaded.
"""

# onnxruntime has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, excerpt
from ...readers.sandbox import SandboxError, run_sandboxed, while_waiting
from .memory import allocated_bytes
from .onnx_graph import GRAPH, INITIALIZER, INPUT, METADATA, NAME, OUTPUT, TENSOR_NAME, TYPE, of_any_size
from .protobuf import fields, submessages, text_of
from .untrusted import MIB, open_file, read_bytes, wrap_errors

if TYPE_CHECKING:
    from ..annotator import Cost

AxisOrder = Literal["NHWC", "NCHW"]
"""Order of a network's axes: batch, height, width, channels, or as in torch."""

Shape = tuple[int | None, ...]
"""The shape of an input or output; None for an axis that the file leaves open."""

MAX_BYTES: Final = 2**31  # of a network's file, by its format
SECONDS: Final = 120  # in which an untrusted network must load and run on one tile
MEGABYTES: Final = 3072  # of address space in which it must do so, beside four times its file's size

_LIBRARIES: Final = 0.01 * 2**30  # bytes of onnxruntime in a process: measured
_HELD: Final = 2.5  # bytes of a loaded network per byte of its file, which has weights in one layout only: 2.0 to 3.2

_tried: dict[tuple[object, ...], float] = {}  # what each took, in bytes

# field numbers of onnx.proto: message → field that holds another message → its type
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
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
_KEY, _VALUE, _LOCATION = 1, 2, b"location"  # of StringStringEntryProto
_TENSOR, _SHAPE, _AXIS, _AXIS_LENGTH = 1, 2, 1, 1  # of TypeProto, its Tensor, TensorShapeProto and its Dimension


def runtime() -> str:
    """The runtime and its version, without importing it."""
    from importlib.metadata import version

    return f"onnxruntime {version('onnxruntime')}"


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """Metadata and shapes of an ONNX file."""

    metadata: Mapping[str, str]
    shapes: tuple[Shape, ...]
    """Of the inputs and then of the outputs, in order."""
    inputs: int
    """How many of them are inputs."""


class OnnxNetwork:
    """An ONNX network on the CPU, with one input of which it returns the first output."""

    def __init__(
        self,
        content: bytes,
        *,
        name: str,
        layout: AxisOrder,
        threads: int = 0,
        companions: Mapping[str, bytes] | None = None,
        tile: int = 0,
        quiet: bool = False,
    ) -> None:
        """Load from bytes that were checked. `threads` 0 takes one per core. Raises `ModelError`.

        `companions` are the files with weights outside the network's own, by the name in the network; it may name no
        others. `tile` is the side of its tiles: where the file states another, what it states is left out, since a
        network of convolutions takes any. `quiet` keeps onnxruntime from printing the errors that are raised.
        """
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # would take cores from the reader
        settings.log_severity_level = 4 if quiet else 3  # fatal errors, or all errors
        self._subject = f"network {name}"
        self._layout: AxisOrder = layout
        remedy = "Check that it is the right file, or upgrade onnxruntime"
        with wrap_errors(self._subject, "must be an ONNX network for this onnxruntime", remedy=remedy):
            _check_external_files(content, companions or {}, self._subject)
            if companions:
                settings.add_external_initializers_from_files_in_memory(
                    list(companions), list(companions.values()), [len(part) for part in companions.values()]
                )
            if tile and set(_stated_sides(content, layout)) - {tile, None}:
                content = of_any_size(content)
            self._session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            self._input, self._outputs = cast("str", inputs[0].name), [cast("str", one.name) for one in outputs]
            shapes = [cast("list[object]", one.shape) for one in (*inputs, *outputs)]
            self.header = OnnxHeader(
                dict(cast("dict[str, str]", self._session.get_modelmeta().custom_metadata_map)),
                tuple(tuple(axis if isinstance(axis, int) else None for axis in shape) for shape in shapes),
                len(inputs),
            )

    def segment(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Normalised tiles (n, height, width, channels) → values (n, height, width, classes). Raises `ModelError`."""
        values = self.output(tiles)
        if values.ndim != tiles.ndim or len(values) != len(tiles):
            rule = f"must return a map of values for each of {len(tiles)} tiles, in the order {self._layout}"
            remedy = "Name a network that segments, or correct its layout in its card where it has one"
            raise ModelError(self._subject, rule, value=str(values.shape), remedy=remedy)
        return values if self._layout == "NHWC" else values.transpose(0, 2, 3, 1)

    def output(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Normalised tiles (n, height, width, channels) → the first output as it is. Raises `ModelError`."""
        return self._run(tiles, self._outputs[:1])[0].astype(np.float32, copy=False)

    def outputs(self, tiles: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
        """Normalised tiles (n, height, width, channels) → all outputs, in their own types. Raises `ModelError`."""
        return self._run(tiles, self._outputs)

    def _run(self, tiles: npt.NDArray[np.float32], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        batch = np.ascontiguousarray(tiles if self._layout == "NHWC" else tiles.transpose(0, 3, 1, 2))
        rule = f"must take tiles of the stated shape {batch.shape} and return numbers"
        remedy = "Correct its tile, bands or layout, in its card where it has one"
        with wrap_errors(self._subject, rule, remedy=remedy, running=True):
            values = cast("list[Any]", self._session.run(list(outputs), {self._input: batch}))
            for value in values:
                if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
                    raise TypeError(type(value))
            return values


def _check_external_files(content: bytes, companions: Mapping[str, object], subject: str) -> None:
    """Raise `ModelError` where a network has weights in files other than its companions: it could name any file."""
    others = sorted(external_files(content) - set(companions))
    if others:
        rule = "must have its weights in its own file, or in the companions of its card"
        remedy = "Save it with its weights inside, or write a card that names the files with their sha256"
        raise ModelError(subject, rule, value=excerpt(", ".join(others)), remedy=remedy)


def try_in_sandbox(
    path: Path, *, layout: AxisOrder, tile: int, channels: int, companions: Mapping[str, Path] | None = None
) -> float:
    """Load an untrusted network in a sandboxed process, and run it on one tile of noise; `tile` 0 only loads it.

    Returns the bytes that the tile took beside the loaded network, 0 where the system does not tell. Networks that
    passed are remembered by path, size and time of change. Raises `ModelError` where it is refused, crashes, or needs
    more than `SECONDS` or the address space.
    """
    subject = f"network {path.name}"
    files = {name: str(one) for name, one in (companions or {}).items()}
    with wrap_errors(subject, "must be a readable file", remedy="Check the path"):
        found = [(one, one.stat()) for one in (path, *map(Path, files.values()))]
    key = (*((str(one), status.st_size, status.st_mtime_ns) for one, status in found), layout, tile, channels)
    if key in _tried:
        return _tried[key]
    size = 4 * sum(status.st_size for _, status in found) // MIB
    megabytes = MEGABYTES + -(-size // 1024) * 1024
    arguments = (str(path), layout, tile, channels, files)
    while_waiting(partial(import_module, "onnxruntime"))  # which takes as long here as there
    try:
        taken = run_sandboxed(f"{__name__}:load_and_run", *arguments, seconds=SECONDS, megabytes=megabytes)
    except SandboxError as error:
        rule = f"must load and run on one tile within {SECONDS} s and {megabytes} MiB, without a crash"
        remedy = "Do not use this file, or have it exported again"
        raise ModelError(subject, rule, value=f"{error.code} {error.value}".strip(), remedy=remedy) from error
    _tried[key] = float(taken)
    return _tried[key]


def cost(size: float, activations: float, tiles: tuple[int, int]) -> "Cost":
    """The cost of a region of (columns, rows) tiles for networks whose files have `size` bytes.

    activations: bytes of a tile's, which onnxruntime keeps, and of what becomes of its output.
    """
    from ..annotator import Cost  # not above: a sandboxed process that tries a network has no use for its libraries

    held = _HELD * size
    work = tiles[0] * tiles[1]
    return Cost(held, "their own type", work, activations=activations, loading=held + size, libraries=_LIBRARIES)


def load_and_run(path: str, layout: AxisOrder, tile: int, channels: int, companions: Mapping[str, str]) -> float:
    """The part of `try_in_sandbox` that runs in the sandboxed process."""
    subject = f"network {Path(path).name}"
    parts = {name: read_bytes(Path(one), subject, most=MAX_BYTES) for name, one in companions.items()}
    content = read_bytes(Path(path), subject, most=MAX_BYTES)
    network = OnnxNetwork(content, name=Path(path).name, layout=layout, threads=1, companions=parts, tile=tile)
    loaded = allocated_bytes()
    if tile:
        network.output(np.random.default_rng(0).random((1, tile, tile, channels), dtype=np.float32))
    return max(0.0, allocated_bytes() - loaded)  # onnxruntime keeps what it took


def read_header(path: Path) -> OnnxHeader:
    """The header of an ONNX file, without loading its network. Raises `ModelError` where it cannot be read."""
    subject = f"network {path.name}"
    remedy = "Check that it is the right file, and whole"
    with wrap_errors(subject, "must be an ONNX network", remedy=remedy), open_file(path, subject) as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        metadata = {text_of(entry, _KEY): text_of(entry, _VALUE) for entry in submessages(whole, METADATA)}
        graph = submessages(whole, GRAPH)[-1]
        inputs, outputs = _inputs(graph), submessages(graph, OUTPUT)
        if not inputs or not outputs:
            msg = f"it has {len(inputs)} inputs and {len(outputs)} outputs"
            raise ValueError(msg)
        return OnnxHeader(metadata, tuple(_shape(one) for one in (*inputs, *outputs)), len(inputs))


def _inputs(graph: memoryview) -> list[memoryview]:
    """The inputs of a graph without its constants."""
    constants = {text_of(one, TENSOR_NAME) for one in submessages(graph, INITIALIZER)}
    return [one for one in submessages(graph, INPUT) if text_of(one, NAME) not in constants]


def _stated_sides(content: bytes, layout: AxisOrder) -> Shape:
    """Height and width of a network's first input, as its file states them; () where it states no shape."""
    inputs = _inputs(submessages(memoryview(content), GRAPH)[-1])
    shape = _shape(inputs[0]) if inputs else ()
    return shape[1:3] if layout == "NHWC" else shape[2:4]


def external_files(content: bytes) -> set[str]:
    """The files that hold tensors of a network outside its own file, by their names in the network.

    Raises `ValueError` for bytes that are no protocol buffer.
    """
    found: set[str] = set()
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        entry: dict[int, bytes] = {}
        for number, value, _ in fields(message):
            if not isinstance(value, memoryview):
                continue
            if number in _MESSAGES[kind]:
                waiting.append((_MESSAGES[kind][number], value))
            elif kind == "entry":
                entry[number] = bytes(value)
        if entry.get(_KEY) == _LOCATION:
            found.add(entry.get(_VALUE, b"").decode("utf-8", errors="replace"))
    return found


def _shape(value: memoryview) -> Shape:
    """The shape of an input or output; () where the file states none."""
    found = [value]
    for number in (TYPE, _TENSOR, _SHAPE):
        found = [part for one in found for part in submessages(one, number)]
    axes = [axis for one in found for axis in submessages(one, _AXIS)]
    lengths = [[n for number, n, _ in fields(axis) if number == _AXIS_LENGTH and isinstance(n, int)] for axis in axes]
    return tuple(length[0] if length else None for length in lengths)
