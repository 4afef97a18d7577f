"""From OpenCLIP's weights to transformers' own CLIP in memory. Imports torch and transformers.

Pickled weights are read with torch's weights-only reader.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPTokenizer

from ...readers.errors import ModelError
from ..checkpoints.files import CheckpointFiles
from ..checkpoints.loading import check_network_size, load_tokenizer, loading_errors
from ..checkpoints.tensors import check_config_integers, count_elements, load_weights
from .checkpoint import ClipCheckpoint, OpenClip
from .clip_resnet import ClipResNet
from .openclip_architectures import check_shapes
from .openclip_files import NO_WEIGHTS, renamed
from .openclip_tokenizer import END, START, read_merges


def load_openclip(kind: Any, files: CheckpointFiles, known: OpenClip) -> Any:
    """A plain CLIP from OpenCLIP's weights as transformers' own class, in float32, for answering only.

    Raises `ModelError` where a weight is absent, is not known, or has another shape than the settings say.
    """
    (name,) = files.weights()
    theirs = read_weights(files.folder / name, files.source)
    if known.architecture:
        check_shapes({name: tuple(value.shape) for name, value in theirs.items()}, known.architecture, files.source)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    held = count_elements(shapes)
    check_config_integers(known.settings, tensors=len(shapes), numbers=held, subject=f"checkpoint {files.source}")
    with loading_errors(files.source):
        with torch.device("meta"):
            check_network_size(make_clip(kind, known.settings), held, files.source)
        model = make_clip(kind, known.settings)
        ours: dict[str, torch.Tensor] = {}
        unknown: list[str] = []
        for old, new, third, turned in renamed(shapes):
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


def make_clip(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A CLIP of transformers' class `kind` with random weights, in float32; `settings` as of `openclip.sizes`."""
    vision: dict[str, Any] = dict(settings["vision_config"])
    layers = vision.pop("residual_layers", None)
    if layers is None:
        whole: dict[str, Any] = {**settings, "attn_implementation": "eager"}
        return kind(CLIPConfig(**whole)).to(torch.float32)
    least = {"hidden_size": 1, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1}  # is replaced
    whole = {**settings, "vision_config": vision | least, "attn_implementation": "eager"}
    model = kind(CLIPConfig(**whole))
    model.vision_model = ClipResNet(
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
    content = load_weights(path, f"checkpoint {source}")
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


def load_words(checkpoint: ClipCheckpoint) -> Any:
    """The tokenizer of an image-text checkpoint, also from OpenCLIP's file of merges. Raises `ModelError`."""
    known, files = checkpoint.open_clip, checkpoint.files
    if known is None or known.tokenizer is None:
        return load_tokenizer(files)
    if known.tokenizer.is_dir():
        return load_tokenizer(replace(files, folder=known.tokenizer))
    merges: Any
    vocabulary, merges = read_merges(known.tokenizer, known.settings["text_config"]["vocab_size"], files.source)
    with loading_errors(files.source):
        return CLIPTokenizer(
            vocab=vocabulary, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END
        )
