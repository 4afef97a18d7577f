"""From a checkpoint's files to a network in memory, and from pictures to what it sees. Imports torch and transformers.

Only transformers' own classes are made, never code of a checkpoint; pickled weights are read with weights only.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, CLIPTokenizer
from transformers.modeling_utils import load_state_dict
from transformers.utils import logging

from ..readers.errors import ModelError
from .architectures import check_shapes
from .checkpoint import Checkpoint, Files, OpenClip
from .openclip import NO_WEIGHTS, renamed
from .residual import ResidualTower
from .words import END, START, read_merges

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


def load_openclip(kind: Any, files: Files, known: OpenClip) -> Any:  # noqa: ANN401 - the same
    """A plain CLIP from OpenCLIP's weights as transformers' own class, in float32, for answering only.

    Raises `ModelError` where a weight is absent, is not known, or has another shape than the settings say.
    """
    (name,) = files.weights()
    theirs = read_weights(files.folder / name, files.source)
    if known.architecture:
        check_shapes({name: value.shape for name, value in theirs.items()}, known.architecture, files.source)
    with quiet(files.source):
        model = make_clip(kind, known.settings)
        ours: dict[str, torch.Tensor] = {}
        unknown: list[str] = []
        for old, new, third, turned in renamed({name: tuple(value.shape) for name, value in theirs.items()}):
            value = theirs[old].to(torch.float32)
            value = value.T if turned else value
            if new:
                ours[new] = (value if third is None else value.chunk(3)[third]).contiguous()
            else:
                unknown.append(old)
        report = model.load_state_dict(ours, strict=False)
    missing, unknown = report.missing_keys, unknown + report.unexpected_keys
    if missing or unknown:
        raise ModelError(
            f"checkpoint {files.source}",
            "its weights must be those of the plain CLIP that its settings describe, all of them",
            value=f"absent: {', '.join(missing[:3]) or 'none'}; not known: {', '.join(unknown[:3]) or 'none'}",
            remedy="Check that the settings belong to these weights",
        )
    return model.eval()


def make_clip(kind: Any, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the same
    """A CLIP of transformers' class `kind` with random weights, in float32; `settings` as of `openclip.sizes`."""
    vision: dict[str, Any] = dict(settings["vision_config"])
    layers = vision.pop("residual_layers", None)
    if layers is None:
        whole: dict[str, Any] = {**settings, "attn_implementation": "eager"}
        return kind(CLIPConfig(**whole)).to(torch.float32)
    least = {"hidden_size": 1, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1}  # is replaced
    whole = {**settings, "vision_config": vision | least, "attn_implementation": "eager"}
    model = kind(CLIPConfig(**whole))
    model.vision_model = ResidualTower(
        side=vision["image_size"],
        width=vision["hidden_size"],
        layers=layers,
        heads=vision["num_attention_heads"],
        out=settings["projection_dim"],
    )
    model.visual_projection = torch.nn.Identity()
    return model.to(torch.float32)


def read_shapes(path: Path, source: str) -> dict[str, tuple[int, ...]]:
    """The shapes of OpenCLIP's weights in a file, by their names. Raises `ModelError`."""
    return {name: tuple(value.shape) for name, value in read_weights(path, source).items()}


def read_weights(path: Path, source: str) -> dict[str, torch.Tensor]:
    """OpenCLIP's weights in a file, by their names, also as its training wraps them. Raises `ModelError`.

    Pickles are read by torch's weights-only reader, which runs nothing of them.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # that a TorchScript program is one: it is refused
            content: Any = load_state_dict(path, weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors raise their own
        raise ModelError(
            f"checkpoint {source}",
            f"{path.name} must hold tensors and nothing that runs: a pickle of weights only, or safetensors",
            value=_reason(error),
            remedy="Get the file again if it is not whole; of a TorchScript program or a whole pickled model, have the "
            "state_dict alone saved by whoever trusts it",
        ) from error
    inner = content.get("state_dict", content) if isinstance(content, dict) else content
    held = {name: value for name, value in inner.items() if name not in NO_WEIGHTS} if isinstance(inner, dict) else {}
    other = [name for name, value in held.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if other or not held:
        raise ModelError(
            f"checkpoint {source}",
            f"{path.name} must hold tensors by their names, or have them under state_dict",
            value=f"other things: {', '.join(map(str, other[:5]))}" if other else "none",
            remedy="Save the state_dict of the model alone",
        )
    return held


def _reason(error: Exception) -> str:
    """What torch says, without its advice to run what is in the file."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
    asked = re.search(r"GLOBAL (\S+)", said)
    return f"it asks for {asked[1]}" if asked else " ".join((said.strip() or type(error).__name__).split())[:160]


def load_words(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 - the same
    """The tokenizer of an image-text checkpoint, also from OpenCLIP's file of merges. Raises `ModelError`."""
    known, files = checkpoint.open_clip, checkpoint.files
    if known is None or known.tokenizer is None:
        return load_tokenizer(files)
    if known.tokenizer.is_dir():
        return load_tokenizer(replace(files, folder=known.tokenizer))
    merges: Any
    vocabulary, merges = read_merges(known.tokenizer, known.settings["text_config"]["vocab_size"], files.source)
    with quiet(files.source):
        return CLIPTokenizer(
            vocab=vocabulary, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END
        )


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
