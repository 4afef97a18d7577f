"""Find a checkpoint of the CLIP or SigLIP type and read its configuration, without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import CheckpointFiles, as_numbers, check_tokenizer, find_files, normalisation
from ..checkpoints.untrusted import MAX_TILE

Family = Literal["clip", "siglip"]

IMAGE_SIZE = 224  # transformers' default of both vision configurations


@dataclass(frozen=True, slots=True)
class OpenClip:
    """What a checkpoint in OpenCLIP's format is, in words of transformers.

    `settings` are keyword arguments of `CLIPConfig` that mean the same model. `architecture` is its name where a person
    gave it, "" where a file states the settings. `tokenizer` is a folder with a tokenizer in transformers' format, or
    OpenCLIP's own file of merges; None where no words are to be read. `lower` says that texts are read in lower case.
    """

    settings: Mapping[str, Any]
    architecture: str = ""
    tokenizer: Path | None = None
    lower: bool = True


@dataclass(frozen=True, slots=True)
class ClipCheckpoint:
    """An image-text checkpoint of the CLIP or SigLIP type. `tile` is its pictures' side in pixels.

    A picture's values 0 to 255 become (value · rescale - mean) / std, by channel: red, green, blue. `open_clip` is None
    where its files are in transformers' format.
    """

    files: CheckpointFiles
    family: Family
    tile: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    open_clip: OpenClip | None = None

    @property
    def source(self) -> str:
        """Where it was named to be."""
        return self.files.source


def find_checkpoint(source: str, *, fetch: bool) -> ClipCheckpoint:
    """The checkpoint of a folder, or of a hub id `OWNER/NAME@COMMIT` (40 hexadecimal digits), and its settings.

    With `fetch` a hub's small files may be fetched, never the weights: see `fetch_weights`. Raises `ModelError` where
    it is not here, lacks a file, or is of a type that is not known.
    """
    files = find_files(source, fetch=fetch)
    config = files.read("config.json")
    kind = config.text("model_type")
    if kind not in {"clip", "siglip"}:
        raise ModelError(
            f"checkpoint {source}",
            "its model_type must be clip or siglip",
            value=excerpt(kind) or "none is stated",
            remedy="Name another checkpoint",
        )
    check_tokenizer(files)
    tile = config.part("vision_config").integer("image_size", IMAGE_SIZE, most=MAX_TILE)
    rescale, mean, std = _preprocessing(files, tile)
    return ClipCheckpoint(files, cast("Family", kind), tile, rescale, mean, std)


def _preprocessing(files: CheckpointFiles, tile: int) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """(rescale, mean, std) as its processor has them, which must leave a picture of `tile` pixels whole."""
    settings, source = files.preprocessing(), files.source
    sizes = {
        number
        for key, asked in (("size", "do_resize"), ("crop_size", "do_center_crop"))
        if settings.flag(asked, default=True)
        for number in as_numbers(settings.get(key, tile))
    }
    if sizes != {tile} and sizes:
        raise ModelError(
            f"checkpoint {source}",
            f"its processor must show the network whole pictures of {tile} pixels, as its config says",
            value=", ".join(map(str, sorted(sizes))),
            remedy="Name another checkpoint: this one enlarges and crops, which would hide the rim of every tile",
        )
    return normalisation(settings, source)
