"""Load OpenCLIP's weights into transformers' CLIP, and OpenCLIP's tokenizer. Imports torch, transformers and ftfy.

Pickled weights are read with torch's weights-only reader, which runs no code.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import gzip
import html
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import ftfy
import torch
from transformers import CLIPConfig, CLIPTokenizer

from ...readers.errors import ModelError
from ..checkpoints.files import CheckpointFiles
from ..checkpoints.loading import check_network_size, load_tokenizer, loading_errors
from ..checkpoints.tensors import check_config_integers, count_elements
from ..checkpoints.untrusted import error_text, open_file
from .checkpoint import ClipCheckpoint, OpenClip
from .clip_resnet import ClipResNet
from .openclip import NO_WEIGHTS, check_shapes, read_weights

LARGEST_MERGES: Final = 2**26
"""Bytes of the file of merges, unpacked."""
START, END = "<start_of_text>", "<end_of_text>"
LAST_OF_WORD: Final = "</w>"

_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION: Final = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}
_TEXT: Final = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
"""OpenCLIP's name → transformers'."""


def load_openclip(kind: Any, files: CheckpointFiles, known: OpenClip) -> Any:
    """A plain CLIP with OpenCLIP's weights as transformers' class `kind`, in float32, for inference only.

    Raises `ModelError` where a weight is missing, unknown, or of another shape than the settings say.
    """
    (name,) = files.weights()
    weights = read_weights(files.folder / name, files.source)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    if known.architecture:
        check_shapes(shapes, known.architecture, files.source)
    held = count_elements(shapes)
    check_config_integers(known.settings, tensors=len(shapes), numbers=held, subject=f"checkpoint {files.source}")
    with loading_errors(files.source):
        with torch.device("meta"):
            check_network_size(make_clip(kind, known.settings), held, files.source)
        model = make_clip(kind, known.settings)
        converted: dict[str, torch.Tensor] = {}
        unknown: list[str] = []
        for old, new, third, transposed in _renamed(weights):
            value = weights[old].to(torch.float32)
            value = value.T if transposed else value
            if new:
                converted[new] = (value if third is None else value.chunk(3)[third]).contiguous()
            else:
                unknown.append(old)
        report = model.load_state_dict(converted, strict=False)
    missing, unknown = report.missing_keys, unknown + report.unexpected_keys
    if missing or unknown:
        raise ModelError(
            f"checkpoint {files.source}",
            "must have exactly the weights of the plain CLIP that its settings describe",
            value=f"missing: {', '.join(missing[:3]) or 'none'}; unknown: {', '.join(unknown[:3]) or 'none'}",
            remedy="Check that the settings belong to these weights",
        )
    return model.eval()


def make_clip(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A CLIP of transformers' class `kind` with random weights, in float32; `settings` as of `openclip.clip_config`."""
    vision: dict[str, Any] = dict(settings["vision_config"])
    layers = vision.pop("residual_layers", None)
    if layers is not None:  # a minimal vision transformer, which is replaced
        vision |= {"hidden_size": 1, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1}
    whole: dict[str, Any] = {**settings, "vision_config": vision, "attn_implementation": "eager"}
    model = kind(CLIPConfig(**whole))
    if layers is not None:
        vision = settings["vision_config"]
        model.vision_model = ClipResNet(
            side=vision["image_size"],
            width=vision["hidden_size"],
            layers=layers,
            heads=vision["num_attention_heads"],
            out=settings["projection_dim"],
        )
        model.visual_projection = torch.nn.Identity()
    return model.to(torch.float32)


def _renamed(names: Iterable[str]) -> Iterator[tuple[str, str, int | None, bool]]:
    """Transformers' names for OpenCLIP's.

    Yields (OpenCLIP's name, transformers' name, which third of its rows or None for all, whether to transpose). The
    second is "" for an unknown name.
    """
    names = sorted(names)
    resnet = any(name.removeprefix("module.").startswith("visual.attnpool.") for name in names)
    for name in names:
        plain = name.removeprefix("module.")
        if plain in NO_WEIGHTS or plain.endswith("attn_mask"):
            continue
        side = "vision_model" if plain.startswith("visual.") else "text_model"
        part = plain.removeprefix("visual.").removeprefix("text.")
        block = part.split(".")
        if resnet and side == "vision_model":
            yield name, f"vision_model.{part}", None, False
        elif part.startswith("transformer.resblocks.") and len(block) > 4:
            inner, kind = ".".join(block[3:-1]), block[-1]
            layer = f"{side}.encoder.layers.{block[2]}"
            if inner == "attn" and kind.startswith("in_proj_"):
                for third, letter in enumerate("qkv"):
                    yield name, f"{layer}.self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}", third, False
            else:
                known = _BLOCK.get(inner, "")
                yield name, f"{layer}.{known}.{kind}" if known else "", None, False
        else:
            known = (_VISION if side == "vision_model" else _TEXT).get(part, "")
            yield name, known, None, part in {"proj", "text_projection"}


def load_clip_tokenizer(checkpoint: ClipCheckpoint) -> Any:
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


def clean(text: str, *, lower: bool) -> str:
    """A text on one line with its encoding repaired and HTML entities replaced, as OpenCLIP's `tokenizer.py` does."""
    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
    return text.lower() if lower else text


def read_merges(path: Path, size: int, source: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary (token → id) of `size` tokens and its merges, from OpenCLIP's file of merges (gzip).

    Byte pair encoding (arXiv 1508.07909) of UTF-8, as in GPT-2. The file's first line is a comment; each other line
    names two tokens to merge, most frequent first. The vocabulary is the bytes, the bytes at the end of a word, as many
    merges as fit, and the tokens that start and end a text. Raises `ModelError`.
    """
    needed = size - 2 * 256 - 2
    problem = ""
    merges: list[tuple[str, str]] = []
    try:
        with open_file(path, f"checkpoint {source}") as packed, gzip.open(packed) as file:
            content = file.read(LARGEST_MERGES + 1)
        pairs = [line.split() for line in content.decode("utf-8").split("\n")[1 : 1 + max(needed, 0)]]
        merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
        if len(content) > LARGEST_MERGES:
            problem = f"more than {LARGEST_MERGES} bytes when unpacked"
        elif len(merges) != needed:
            problem = f"{len(merges)} pairs of tokens, where its vocabulary of {size} needs {needed}"
    except (OSError, EOFError, ValueError, zlib.error) as error:
        problem = error_text(error)
    if problem:
        raise ModelError(
            f"tokenizer {path.name} of checkpoint {source}",
            "must be OpenCLIP's file of merges, packed with gzip",
            value=problem,
            remedy="Take bpe_simple_vocab_16e6.txt.gz from OpenCLIP's package, or name a folder with CLIP's tokenizer",
        )
    letters = _byte_letters()
    tokens = [*letters, *(letter + LAST_OF_WORD for letter in letters), *(first + second for first, second in merges)]
    return {token: index for index, token in enumerate(chain(tokens, (START, END)))}, merges


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it is printable, the others from U+0100 on, which come last."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, printable), *map(chr, range(256, 512 - len(printable)))]
