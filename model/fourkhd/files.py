"""The files of a 4KHD checkpoint: where they are, what they hold, and their tensors one file at a time.

Safetensors are preferred; a pickled `.bin` is only ever read by torch with weights only, mapped into memory.
"""

# torch's and safetensors' types do not say what they load:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...readers.errors import ModelError
from .. import checkpoint
from .card import CARD, CheckpointCard, read_card
from .sizes import Shapes, Sizes
from .tokens import FILE

CONFIG, GENERATION = "config.json", "generation_config.json"

SHIPPED = ("small",)
"""Checkpoints that come with limner; a folder of the same name is ./small."""

EXTRA = re.compile(r".*\.(?:post_layernorm\.(?:weight|bias)|position_ids|inv_freq|rotary_emb\..*)")
"""Tensors that some copies of the checkpoint hold and the network has no use for."""


@dataclass(frozen=True, slots=True)
class Files:
    """A 4KHD checkpoint on this machine: what its config.json says, and its weight files in order, without an index."""

    held: checkpoint.Files
    config: Mapping[str, Any]
    names: tuple[str, ...]

    @classmethod
    def find(cls, source: str, *, fetch: bool = False) -> "Files":
        """The files of a folder, of a hub id `OWNER/NAME@COMMIT` (40 hexadecimal digits), or of a name in `SHIPPED`.

        Only with `fetch` is a hub asked, and then for safetensors before anything pickled. Raises `ModelError` where
        something is not here.
        """
        small = (CONFIG, GENERATION, FILE)
        if source in SHIPPED:
            held = checkpoint.Files(source, Path(__file__).parent / source, small)
        else:
            held = checkpoint.find_files(source, fetch=fetch, small=small)
        config = held.read(CONFIG)
        checkpoint.fetch_weights(held, fetch=fetch and source not in SHIPPED)
        return cls(held, config, tuple(name for name in held.weights() if not name.endswith(".json")))

    @property
    def source(self) -> str:
        """Where it was named to be."""
        return self.held.source

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.held.folder

    @property
    def pickled(self) -> bool:
        """Whether its weights are pickles."""
        return self.names[0].endswith(".bin")

    @property
    def tokenizer(self) -> Path:
        """Where its tokenizer should be."""
        return self.folder / FILE

    @property
    def card(self) -> CheckpointCard | None:
        """What the checkpoint's card says of it, None where it has none. Raises `ModelError` for one that is wrong."""
        path = self.folder / CARD
        return read_card(path, self.source) if path.is_file() else None

    def shapes(self) -> Shapes:
        """Name → shape of every tensor; no tensor is read. Raises `ModelError` where a file is damaged."""
        found: dict[str, tuple[int, ...]] = {}
        for name in self.names:
            with _damage(self.source, name):
                if self.pickled:
                    found |= {key: tuple(tensor.shape) for key, tensor in _unpickle(self.folder / name).items()}
                else:
                    found |= _safe_shapes(self.folder / name)
        return found

    def tensors(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(file, its tensors by name), a file at a time, on the processor and still mapped. Raises `ModelError`."""
        from safetensors.torch import load_file  # noqa: PLC0415 - loads torch

        for name in self.names:
            with _damage(self.source, name):
                held = _unpickle(self.folder / name) if self.pickled else load_file(self.folder / name)
            yield name, held

    def sizes(self) -> Sizes:
        """The model's sizes, once it is sure that the files hold it: see `compare`. Raises `ModelError`."""
        shapes = self.shapes()
        sizes = Sizes.of(shapes, self.config, self.source)
        compare(shapes, sizes, self.source)
        return sizes


def compare(shapes: Shapes, sizes: Sizes, source: str) -> list[str]:
    """The tensors that are tolerated though the network has no use for them, sorted.

    Raises `ModelError` that names the first of those that are missing, unknown, or of another shape.
    """
    expected = sizes.tensors()
    missing = [name for name in expected if name not in shapes]
    extra = sorted(name for name in shapes if name not in expected)
    unknown = [name for name in extra if not EXTRA.fullmatch(name)]
    differing = [name for name in expected if name in shapes and tuple(shapes[name]) != expected[name]]
    for names, what in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise ModelError(
                f"checkpoint {source}",
                "it must hold all tensors of a 4KHD model and no others: what is missing would be random",
                value=f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",  # noqa: PLR2004 - a line
                remedy="Check that all of the checkpoint's files are here and belong together",
            )
    if differing:
        name = differing[0]
        raise ModelError(
            f"checkpoint {source}",
            f"its tensor {name} must have the shape {expected[name]}",
            value=str(tuple(shapes[name])),
            remedy="Check that config.json and the weights belong together",
        )
    return extra


def _safe_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open  # noqa: PLC0415 - a compiled library, when it is needed

    with safe_open(path, framework="numpy") as held:
        return {key: tuple(held.get_slice(key).get_shape()) for key in held.keys()}  # noqa: SIM118 - not a mapping


def _unpickle(path: Path) -> dict[str, Any]:
    """The tensors of a pickled file, by torch's own reader of nothing but tensors, mapped where the file allows it."""
    import torch  # noqa: PLC0415 - heavy

    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"  # older files cannot be mapped
    held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    return {key: tensor for key, tensor in held.items() if isinstance(tensor, torch.Tensor)}


class _damage:  # noqa: N801 - reads as a verb: with _damage(…)
    """Says of whatever a library raises over a file that the file is damaged."""

    def __init__(self, source: str, name: str) -> None:
        self._source, self._name = source, name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (ModelError, MemoryError, TypeError)):
            raise ModelError(
                f"checkpoint {self._source}",
                f"its file {self._name} must be whole, and hold nothing but tensors",
                value=(str(error).splitlines() or [type(error).__name__])[0][:200],
                remedy="Copy or fetch the file again; its size and sha256 stand on the hub's page",
            ) from error
