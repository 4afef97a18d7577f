"""From a checkpoint's files to a network in memory, and from pictures to what it sees. Imports torch and transformers.

Only transformers' own classes are made, never code of a checkpoint; pickled weights are read with weights only.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from ...readers.errors import ModelError
from .files import CheckpointFiles
from .memory import memory_errors
from .tensors import check_config_integers, count_elements, read_shapes
from .untrusted import wrap_errors

REMEDY = (
    "Check that its files are whole, and install the package that it names, where it names one; a SentencePiece "
    "tokenizer needs the package sentencepiece"
)
ROOM, LEAST = 4, 2**24
"""A network may hold so many times the numbers of its weights, which may be tied, and so many more."""
BACKBONE, COUNTER = "backbone.", ".num_batches_tracked"  # a part of a network; and what only training reads


class Normalisation(Protocol):
    """How a picture's values 0 to 255 reach a network: (value · rescale - mean) / std, by channel."""

    @property
    def rescale(self) -> float:
        """What a value is multiplied with first."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """What is then taken away, by channel."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """What it is divided by at last, by channel."""
        ...


def to_tensor(pictures: npt.NDArray[Any], scaling: Normalisation) -> torch.Tensor:
    """Pictures (n, tile, tile, 3) of values 0 to 255 → what the network sees, float32 (n, 3, tile, tile).

    What the checkpoint's processor does with pictures that have its size. Values that bicubic filtering has thrown
    beyond 0 to 255 are brought back.
    """
    values = torch.from_numpy(np.ascontiguousarray(pictures)).to(torch.float32).clamp(0, 255).permute(0, 3, 1, 2)
    mean = torch.tensor(scaling.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(scaling.std, dtype=torch.float32)[:, None, None]
    return (values * scaling.rescale - mean) / std


def load_model(
    kind: Any,
    files: CheckpointFiles,
    *,
    unused: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Any:
    """A network of a class of transformers, from files on this machine, in float32, for answering only.

    `settings` count in place of `config.json`. `names` are patterns of names of tensors → what the network has there;
    with them every tensor of its backbone must be used. Raises `ModelError` where transformers cannot load it, or a
    weight would be random since the files lack it, but for those whose names begin with one of `unused`.
    """
    safe = not files.pickled()
    with loading_errors(files.source):
        config = _config(files) if settings is None else AutoConfig.for_model(**settings)
        check_config_size(kind, config, settings or files.read("config.json"), files)
        other = {} if settings is None else {"config": config}
        model, report = kind.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=safe,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            key_mapping=dict(names) if names else None,
            **other,
        )
    absent = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    left = sorted(name for name in report["unexpected_keys"] if names and BACKBONE in name and COUNTER not in name)
    if absent or left:
        raise ModelError(
            f"checkpoint {files.source}",
            "its files must hold every weight that its config.json describes: what is absent would be random",
            value=f"no {', '.join(absent[:3])}" if absent else f"not known: {', '.join(left[:3])}",
            remedy="Name a checkpoint that was trained for this, with all its parts",
        )
    return model.eval()


def _config(files: CheckpointFiles) -> Any:
    return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


def load_tokenizer(files: CheckpointFiles) -> Any:
    """Its tokenizer. Raises `ModelError`."""
    with loading_errors(files.source):
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def loading_errors(source: str) -> Generator[None]:
    """Keep transformers from talking, and turn whatever it raises into a `ModelError` about the checkpoint."""
    with (
        silence_transformers(),
        wrap_errors(f"checkpoint {source}", "transformers must be able to load it", remedy=REMEDY),
    ):
        yield


@contextmanager
def silence_transformers() -> Generator[None]:
    """Keep transformers from talking to a person: what matters is an error of ours."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def inference_errors(source: str) -> Generator[None]:
    """Turn what a network raises on a tile into a `ModelError` about the checkpoint, but for `MemoryError`."""
    remedy = "Check that its files belong together, or name another checkpoint"
    with (
        wrap_errors(f"checkpoint {source}", "its network must be able to answer", remedy=remedy, running=True),
        memory_errors(),
    ):
        yield


def check_config_size(kind: Any, config: Any, stated: Mapping[str, Any], files: CheckpointFiles) -> None:
    """Raise `ModelError` where settings describe a network that is much larger than its weights.

    Numbers that decide how much is allocated are compared with the weights before anything is allocated: counts with
    how many tensors there are, other numbers with how many numbers they hold; then the network is built without memory
    and must not hold more than `ROOM` times the numbers of its weights. `stated` are the settings `config` was made of.
    """
    subject = f"checkpoint {files.source}"
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files.weights():
        if not name.endswith(".json"):
            shapes |= read_shapes(files.folder / name, subject)
    held = count_elements(shapes)
    check_config_integers(stated, tensors=len(shapes), numbers=held, subject=subject)
    make = getattr(kind, "from_config", None) or kind._from_config  # noqa: SLF001 - transformers' own name for it
    with torch.device("meta"):
        check_network_size(make(config), held, files.source)


def check_network_size(network: torch.nn.Module, held: int, source: str) -> None:
    """Raise `ModelError` where a network built without memory is much larger than its weights of `held` numbers."""
    described = sum(part.numel() for part in (*network.parameters(), *network.buffers()))
    if described > ROOM * held + LEAST:
        raise ModelError(
            f"checkpoint {source}",
            "its settings must describe the network that its weights are for",
            value=f"{described} numbers described, {held} in the weights",
            remedy="Check that its files belong together",
        )
