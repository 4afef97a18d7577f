"""A network in ONNX form, on the processor. The one file that imports onnxruntime, when a network is loaded."""

# onnxruntime has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from ..readers.errors import ModelError

Layout = Literal["NHWC", "NCHW"]


def runtime() -> str:
    """What runs the network, with its version; imports nothing."""
    return f"onnxruntime {version('onnxruntime')}"


class Network:
    """One input. `layout` is the order of its axes: batch, height, width, channels, or as torch has it.

    `metadata` is what its file says of itself. `shapes` are those of its input and its outputs, in order; an axis that
    the file leaves open is None.
    """

    def __init__(
        self, content: bytes, *, name: str, layout: Layout, threads: int = 0, beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Load from the bytes that were checked. `threads` 0 takes one per core. Raises `ModelError`.

        `beside` are the files that hold weights outside the network's own, by the name it calls them.
        """
        import onnxruntime  # noqa: PLC0415 - heavy

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3  # errors only
        try:
            if beside:
                settings.add_external_initializers_from_files_in_memory(
                    list(beside), list(beside.values()), [len(part) for part in beside.values()]
                )
            self._session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(
                f"network {name}",
                "it must be an ONNX network that this onnxruntime can load",
                value=str(error).splitlines()[0][:300],
                remedy="Check that the card names the right file, or upgrade onnxruntime",
            ) from error
        self._name = name
        self._layout: Layout = layout
        inputs = self._session.get_inputs()
        self._input = cast("str", inputs[0].name)
        self.metadata = dict(cast("dict[str, str]", self._session.get_modelmeta().custom_metadata_map))
        self.shapes = tuple(
            tuple(axis if isinstance(axis, int) else None for axis in cast("list[object]", one.shape))
            for one in (*inputs, *self._session.get_outputs())
        )
        self.inputs = len(inputs)

    def __call__(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Tiles (n, height, width, channels), normalised → values (n, height, width, classes). Raises `ModelError`."""
        values = self.outputs(tiles)[0]
        return values if self._layout == "NHWC" else values.transpose(0, 2, 3, 1)

    def outputs(self, tiles: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Tiles (n, height, width, channels), normalised → all outputs as they are. Raises `ModelError`."""
        shown = tiles if self._layout == "NHWC" else np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
        try:
            values = cast("list[npt.NDArray[Any]]", self._session.run(None, {self._input: shown}))
        except Exception as error:  # as above
            raise ModelError(
                f"network {self._name}",
                f"it must take tiles of the shape {shown.shape} that is stated for it",
                value=str(error).splitlines()[0][:300],
                remedy="Correct its tile, bands or layout, in its card where it has one",
            ) from error
        return [value.astype(np.float32, copy=False) for value in values]
