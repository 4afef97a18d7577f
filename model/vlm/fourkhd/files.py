"""The files of a 4KHD checkpoint: where they are, what they hold, and their tensors one file at a time.

Safetensors are preferred; a pickled `.bin` is only ever read by torch with weights only, mapped into memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....readers.errors import ModelError
from ...checkpoints.files import CheckpointFiles, fetch_weights, find_files
from ...checkpoints.tensors import read_shapes, read_tensors
from ...checkpoints.untrusted import UntrustedDict
from .card import CARD, CheckpointCard, read_card
from .sizes import Shapes, Sizes
from .tokenizer import FILE

CONFIG, GENERATION = "config.json", "generation_config.json"

SHIPPED = ("small",)
"""Checkpoints that come with limner; a folder of the same name is ./small."""

EXTRA = re.compile(r".*\.(?:post_layernorm\.(?:weight|bias)|position_ids|inv_freq|rotary_emb\..*)")
"""Tensors that some copies of the checkpoint hold and the network has no use for."""


@dataclass(frozen=True, slots=True)
class Files:
    """A 4KHD checkpoint on this machine: what its config.json says, and its weight files in order, without an index."""

    held: CheckpointFiles
    config: UntrustedDict
    names: tuple[str, ...]

    @classmethod
    def find(cls, source: str, *, fetch: bool = False) -> "Files":
        """The files of a folder, of a hub id `OWNER/NAME@COMMIT` (40 hexadecimal digits), or of a name in `SHIPPED`.

        Only with `fetch` is a hub asked, and then for safetensors before anything pickled. Raises `ModelError` where
        something is not here.
        """
        small = (CONFIG, GENERATION, FILE)
        if source in SHIPPED:
            held = CheckpointFiles(source, Path(__file__).parent / source, small)
        else:
            held = find_files(source, fetch=fetch, small=small)
        config = held.read(CONFIG)
        fetch_weights(held, fetch=fetch and source not in SHIPPED)
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
            found |= read_shapes(self.folder / name, f"checkpoint {self.source}")
        return found

    def tensors(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(file, its tensors by name), a file at a time, on the processor and still mapped. Raises `ModelError`."""
        for name in self.names:
            yield name, read_tensors(self.folder / name, f"checkpoint {self.source}")

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
                value=f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
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
