"""Load networks and tokenizers with transformers, from checkpoint files that are checked first.

Only transformers' own classes are instantiated, never code of a checkpoint; pickles are read with weights only.
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

MAX_RATIO, ALLOWANCE = 4, 2**24
"""A network may have so many times the numbers of its weights, which may be tied, and so many more."""
BACKBONE, COUNTER = "backbone.", ".num_batches_tracked"  # parts of tensor names; the latter is for training only


class Normalisation(Protocol):
    """How pixel values 0 to 255 reach a network: (value · rescale - mean) / std, by channel."""

    @property
    def rescale(self) -> float:
        """The factor of a value."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """By channel."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """By channel."""
        ...


def to_tensor(pictures: npt.NDArray[Any], scaling: Normalisation) -> torch.Tensor:
    """Pictures (n, tile, tile, 3) of values 0 to 255 → normalised float32 (n, 3, tile, tile).

    What the checkpoint's processor does with pictures of its size. Overshoot of bicubic filtering is clipped.
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
    """Load a network of a class of transformers from files on this machine, in float32, for inference.

    `settings` replace `config.json`. `names` map patterns of tensor names to those of the network; with them every
    tensor of its backbone must be used. Raises `ModelError` where transformers cannot load it, or a weight whose name
    does not begin with one of `unused` is absent and would be random.
    """
    use_safetensors = not files.pickled()
    with loading_errors(files.source):
        config = _read_config(files) if settings is None else AutoConfig.for_model(**settings)
        check_config_size(kind, config, settings or files.read("config.json"), files)
        model, report = kind.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=use_safetensors,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            key_mapping=dict(names) if names else None,
            **({} if settings is None else {"config": config}),
        )
    absent = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    left = sorted(name for name in report["unexpected_keys"] if names and BACKBONE in name and COUNTER not in name)
    if absent or left:
        raise ModelError(
            f"checkpoint {files.source}",
            "must hold every weight of its config.json: absent ones would be random",
            value=f"no {', '.join(absent[:3])}" if absent else f"not known: {', '.join(left[:3])}",
            remedy="Name a checkpoint that was trained for this, with all its parts",
        )
    return model.eval()


def _read_config(files: CheckpointFiles) -> Any:
    return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


def load_tokenizer(files: CheckpointFiles) -> Any:
    """Its tokenizer. Raises `ModelError`."""
    with loading_errors(files.source):
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def loading_errors(source: str) -> Generator[None]:
    """Silence transformers, and turn whatever it raises into a `ModelError` about the checkpoint."""
    remedy = (
        "Check that its files are whole, and install the package that it names, where it names one; a SentencePiece "
        "tokenizer needs the package sentencepiece"
    )
    with silence_transformers(), wrap_errors(f"checkpoint {source}", "must load with transformers", remedy=remedy):
        yield


@contextmanager
def silence_transformers() -> Generator[None]:
    """Silence transformers' log and progress bars: what matters is raised as an error."""
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
    """Turn what a network raises on a tile into a `ModelError` about the checkpoint, except for `MemoryError`."""
    remedy = "Check that its files belong together, or name another checkpoint"
    with wrap_errors(f"checkpoint {source}", "must run on a tile", remedy=remedy, running=True), memory_errors():
        yield


def check_config_size(kind: Any, config: Any, stated: Mapping[str, Any], files: CheckpointFiles) -> None:
    """Raise `ModelError` where a configuration describes a network that is much larger than its weights.

    Numbers that decide how much is allocated are compared with the weights before anything is allocated; then the
    network is built without memory. `stated` are the settings that `config` was made of.
    """
    subject = f"checkpoint {files.source}"
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files.weights():
        if not name.endswith(".json"):
            shapes |= read_shapes(files.folder / name, subject)
    numbers = count_elements(shapes)
    check_config_integers(stated, tensors=len(shapes), numbers=numbers, subject=subject)
    check_network_size(build_without_weights(kind, config), numbers, files.source)


def build_without_weights(kind: Any, config: Any) -> torch.nn.Module:
    """The network of a class of transformers that a configuration describes, without memory for its weights."""
    make = getattr(kind, "from_config", None) or kind._from_config  # noqa: SLF001 - transformers' own name for it
    with torch.device("meta"):
        return make(config)


def check_network_size(network: torch.nn.Module, numbers: int, source: str) -> None:
    """Raise `ModelError` where a network built without memory is much larger than its weights of so many numbers."""
    described = sum(part.numel() for part in (*network.parameters(), *network.buffers()))
    if described > MAX_RATIO * numbers + ALLOWANCE:
        rule = "must have the weights of the network that its settings describe"
        value = f"{described} numbers described, {numbers} in the weights"
        raise ModelError(f"checkpoint {source}", rule, value=value, remedy="Check that its files belong together")
