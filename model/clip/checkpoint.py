"""Find CLIP and SigLIP checkpoints in transformers' or OpenCLIP's format, or as a file of OpenCLIP's weights alone.

Reads their configuration, not their weights. Source of OpenCLIP's format: mlfoundations/open_clip 3.3,
`push_to_hf_hub.py` (files), `transform.py` and `constants.py` (normalisation). QuiltNet is a folder of this kind;
RemoteCLIP and GeoRSCLIP are files of weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from ...readers.errors import ModelError, RequestError, excerpt
from ..checkpoints.files import (
    CHANNELS,
    CONFIGS,
    TOKENIZER,
    VOCABULARIES,
    CheckpointFiles,
    as_numbers,
    check_tokenizer,
    find_files,
    has_tokenizer,
    normalisation,
)
from ..checkpoints.untrusted import MAX_TILE
from .openclip import SETTINGS, check_shapes, clip_config, named_config, read_shapes

Family = Literal["clip", "siglip"]

MERGES: Final = "bpe_simple_vocab_16e6.txt.gz"
"""The vocabulary of OpenCLIP's own tokenizer, a file of its package."""
SAFE, PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
TRANSFORMERS: Final = "config.json"
SUFFIXES: Final = (".pt", ".pth", ".bin", ".safetensors")
IMAGE_SIZE: Final = 224
"""The default of both vision configurations in transformers."""

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's normalisation, which OpenCLIP uses for an architecture that is given by name only."""


@dataclass(frozen=True, slots=True)
class OpenClip:
    """What is particular to a checkpoint in OpenCLIP's format."""

    settings: Mapping[str, Any]
    """Keyword arguments of transformers' `CLIPConfig` for its model."""
    architecture: str = ""
    """The name that the user gave; "" where a file states the settings."""
    tokenizer: Path | None = None
    """A folder with a tokenizer in transformers' format, or OpenCLIP's file of merges; None without text."""
    lower: bool = True
    """Whether text is lowercased."""


@dataclass(frozen=True, slots=True)
class ClipCheckpoint:
    """A checkpoint of the CLIP or SigLIP type."""

    files: CheckpointFiles
    family: Family
    tile: int
    """Side of its images in pixels."""
    rescale: float
    """Values 0 to 255 become (value · rescale - mean) / std, by channel."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    open_clip: OpenClip | None = None
    """None for transformers' format."""

    @property
    def source(self) -> str:
        """Where it was found, as the user named it."""
        return self.files.source


def find_image_text(
    source: str, *, fetch: bool, architecture: str = "", tokenizer: str = "", text: bool = True
) -> ClipCheckpoint | None:
    """The CLIP or SigLIP checkpoint of a file of weights, a folder or a hub id `OWNER/NAME@COMMIT`, in any format.

    None for a checkpoint in transformers' format of another type. `architecture` is for a file of weights alone,
    `tokenizer` for OpenCLIP's formats (see `with_tokenizer`); without `text` no tokenizer is needed in these. Raises
    `ModelError`, `RequestError`.
    """
    if Path(source).is_file():
        return find_state_dict(source, architecture, tokenizer=tokenizer, text=text)
    if architecture:
        raise RequestError(
            f"architecture of checkpoint {source}",
            "must be named for a file of weights alone, since a folder states its own",
            value=architecture,
            remedy="Leave it out, or name the file of weights",
        )
    found = find_openclip(source, fetch=fetch, tokenizer=tokenizer, text=text)
    if found is not None:
        return found
    if tokenizer:
        raise RequestError(
            f"tokenizer of checkpoint {source}",
            "must be named for checkpoints of OpenCLIP only, since one in transformers' format has its own",
            value=tokenizer,
            remedy="Leave it out",
        )
    files = find_files(source, fetch=fetch, small=CONFIGS)
    if files.read(TRANSFORMERS).text("model_type") not in {"clip", "siglip"}:
        return None
    return find_checkpoint(source, fetch=fetch)


def find_openclip(source: str, *, fetch: bool, tokenizer: str = "", text: bool = True) -> ClipCheckpoint | None:
    """The checkpoint of a folder or hub id in OpenCLIP's format, None for another format.

    A folder in both formats is read as transformers'. Raises `ModelError` where its model is not a plain CLIP.
    """
    small = (SETTINGS, TRANSFORMERS, *((MERGES, *TOKENIZER) if text else ()))
    files = find_files(source, fetch=fetch, small=small, kept=(SAFE, PICKLED))
    if not (files.folder / SETTINGS).is_file():
        return None
    if (files.folder / TRANSFORMERS).is_file() and files.read(TRANSFORMERS).get("model_type") in {"clip", "siglip"}:
        return None
    stated = files.read(SETTINGS)
    settings = clip_config(stated, source)
    preprocess = stated.part("preprocess_cfg")
    mean, std = (as_numbers(preprocess.get(key)) for key in ("mean", "std"))
    mean, std = (part * CHANNELS if len(part) == 1 else part for part in (mean, std))
    if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
        raise ModelError(
            f"preprocess_cfg of checkpoint {source}",
            "must state mean and std for red, green and blue",
            value=f"{mean} and {std}",
            remedy=f"Complete {SETTINGS}: the values are never guessed",
        )
    if preprocess.get("mode", "RGB") != "RGB":
        raise ModelError(
            f"preprocess_cfg of checkpoint {source}",
            "must ask for images in RGB",
            value=excerpt(f"mode: {preprocess['mode']}", 60),
            remedy="Name another checkpoint",
        )
    own_tokenizer = not stated.part("model_cfg").part("text_cfg").get("hf_tokenizer_name")
    words = None
    if text:
        files, words = with_tokenizer(files, tokenizer, merges=own_tokenizer)
    known = OpenClip(settings, tokenizer=words, lower=own_tokenizer)
    return ClipCheckpoint(files, "clip", settings["vision_config"]["image_size"], 1 / 255, mean, std, known)


def find_state_dict(source: str, architecture: str, *, tokenizer: str = "", text: bool = True) -> ClipCheckpoint:
    """The checkpoint of a file that holds a CLIP's weights by OpenCLIP's names, and nothing else.

    `architecture` is OpenCLIP's name for the model, which a state dict does not hold. The normalisation is OpenAI's.
    Raises `ModelError`; where no architecture is named, with those that fit the weights.
    """
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"file {source}",
            f"must have a name that ends in {', '.join(SUFFIXES)}, as files of weights do",
            value=path.suffix or "no ending",
            remedy="Name the file of weights, or the folder that holds them with their settings",
        )
    if not architecture:
        check_shapes(read_shapes(path, source), architecture, source)
    settings = named_config(architecture, source)
    files, words = CheckpointFiles(source, path.parent, (), (path.name,)), None
    if text:
        files, words = with_tokenizer(files, tokenizer)
    known = OpenClip(settings, architecture, words)
    return ClipCheckpoint(files, "clip", settings["vision_config"]["image_size"], 1 / 255, MEAN, STD, known)


def with_tokenizer(files: CheckpointFiles, named: str, *, merges: bool = True) -> tuple[CheckpointFiles, Path]:
    """A checkpoint's files with those of its tokenizer, and the path of that: a folder, or OpenCLIP's file of merges.

    `named` is either path, "" for what lies beside the weights, where with `merges` OpenCLIP's file comes first. Raises
    `ModelError` where there is none.
    """
    place = Path(named) if named else files.folder
    beside = place / MERGES
    if named and place.is_file():
        found, names = place, (str(place.absolute()),)
    elif merges and beside.is_file():
        found, names = beside, (str(beside.absolute()) if named else MERGES,)
    elif has_tokenizer(place):
        found, names = place, tuple(str(place.absolute() / name) if named else name for name in TOKENIZER)
    else:
        known = (*((MERGES,) if merges else ()), *("+".join(several) for several in VOCABULARIES))
        raise ModelError(
            f"checkpoint {files.source}",
            "must have its tokenizer",
            value=f"none of {', '.join(known)} in {place}",
            remedy=f"Put CLIP's tokenizer files there, or {MERGES} of OpenCLIP's package, or name either with "
            "--set model_options.tokenizer=PATH",
        )
    return replace(files, small=(*(name for name in files.small if name not in {MERGES, *TOKENIZER}), *names)), found


def find_checkpoint(source: str, *, fetch: bool) -> ClipCheckpoint:
    """The checkpoint of a folder or hub id in transformers' format.

    With `fetch` a hub's small files may be fetched, never the weights: see `fetch_weights`. Raises `ModelError` where
    it is missing, incomplete, or of another type.
    """
    files = find_files(source, fetch=fetch)
    config = files.read(TRANSFORMERS)
    kind = config.text("model_type")
    if kind not in {"clip", "siglip"}:
        raise ModelError(
            f"model_type of checkpoint {source}",
            "must be clip or siglip",
            value=excerpt(kind) or "none",
            remedy="Name another checkpoint",
        )
    check_tokenizer(files)
    tile = config.part("vision_config").integer("image_size", IMAGE_SIZE, most=MAX_TILE)
    settings = files.preprocessing()
    sizes = {
        number
        for key, flag in (("size", "do_resize"), ("crop_size", "do_center_crop"))
        if settings.flag(flag, default=True)
        for number in as_numbers(settings.get(key, tile))
    }
    if sizes != {tile} and sizes:
        raise ModelError(
            f"processor of checkpoint {source}",
            f"must pass whole images of {tile} pixels, the size in its config",
            value=", ".join(map(str, sorted(sizes))),
            remedy="Name another checkpoint: this one enlarges and crops, which would hide the border of every tile",
        )
    rescale, mean, std = normalisation(settings, source)
    return ClipCheckpoint(files, cast("Family", kind), tile, rescale, mean, std)
