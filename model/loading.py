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

from ..readers.errors import ModelError
from .checkpoint import Files

BACKBONE, COUNTER = "backbone.", ".num_batches_tracked"  # a part of a network; and what only training reads


class Scaling(Protocol):
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


def tensor(pictures: npt.NDArray[Any], scaling: Scaling) -> torch.Tensor:
    """Pictures (n, tile, tile, 3) of values 0 to 255 → what the network sees, float32 (n, 3, tile, tile).

    What the checkpoint's processor does with pictures that have its size. Values that bicubic filtering has thrown
    beyond 0 to 255 are brought back.
    """
    values = torch.from_numpy(np.ascontiguousarray(pictures)).to(torch.float32).clamp(0, 255).permute(0, 3, 1, 2)
    mean = torch.tensor(scaling.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(scaling.std, dtype=torch.float32)[:, None, None]
    return (values * scaling.rescale - mean) / std


def load_model(
    kind: Any,  # noqa: ANN401 - transformers' classes have no common type
    files: Files,
    *,
    unused: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401 - the same
    """A network of a class of transformers, from files on this machine, in float32, for answering only.

    `settings` count in place of `config.json`. `names` are patterns of names of tensors → what the network has there;
    with them every tensor of its backbone must be used. Raises `ModelError` where transformers cannot load it, or a
    weight would be random since the files lack it, but for those whose names begin with one of `unused`.
    """
    safe = not files.pickled()
    with quiet(files.source):
        other = {} if settings is None else {"config": AutoConfig.for_model(**settings)}
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


def load_tokenizer(files: Files) -> Any:  # noqa: ANN401 - the same
    """Its tokenizer. Raises `ModelError`."""
    with quiet(files.source):
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def quiet(source: str) -> Generator[None]:
    """Keep transformers from talking, and turn whatever it raises into a `ModelError` about the checkpoint."""
    shown, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and torch raise their own
        raise ModelError(
            f"checkpoint {source}",
            "transformers must be able to load it",
            value=" ".join(line.strip() for line in (str(error).strip() or type(error).__name__).splitlines()[:2])[
                :300
            ],
            remedy="Check that its files are whole, and install the package that it names, where it names one; a "
            "SentencePiece tokenizer needs the package sentencepiece",
        ) from error
    finally:
        logging.set_verbosity(shown)
        if bars:
            logging.enable_progress_bar()
