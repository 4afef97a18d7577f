"""Checkpoint folders in the layout of transformers: locate them, read their configuration, hash and fetch their files.

Loads no weights.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...readers.errors import ModelError, excerpt
from . import untrusted, weights
from .untrusted import UntrustedDict

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",))
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
)
SAFETENSORS, INDEX, SHARDS = "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"
PICKLE, PICKLE_INDEX, PICKLE_SHARDS = "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"
CHANNELS = 3


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of a checkpoint on this machine."""

    source: str
    """The folder or hub id that the user named."""
    folder: Path
    small: tuple[str, ...] = (*CONFIGS, *TOKENIZER)
    """Names of the files besides the weights that decide an answer; one may be the path of a file elsewhere."""
    kept: tuple[str, ...] = (SAFETENSORS, INDEX, PICKLE, PICKLE_INDEX)
    """Names that its weights, or their index, may have; the first that is there counts."""

    def read(self, name: str) -> UntrustedDict:
        """The mapping in a JSON file. Raises `ModelError` where it cannot be read, or holds no mapping."""
        return untrusted.read_json(self.folder / name, f"checkpoint {self.source}")

    def preprocessing(self) -> UntrustedDict:
        """The settings of its image processor, from the file that transformers would take. Raises `ModelError`.

        That is `processor_config.json` where it has an image processor, else `preprocessor_config.json`.
        """
        both = "processor_config.json"
        settings = self.read(both).part("image_processor") if (self.folder / both).is_file() else None
        return settings or self.read("preprocessor_config.json")

    def weights(self) -> tuple[str, ...]:
        """Names of the files with its weights. Raises `ModelError` where they are not here."""
        found = next((name for name in self.kept if (self.folder / name).is_file()), self.kept[0])
        names = (found,)
        if found in {INDEX, PICKLE_INDEX}:
            index = self.read(found)
            parts = index.part("weight_map")
            names = (found, *sorted({parts.text(name) for name in parts}))
            if len(names) == 1:
                raise index.wrong("weight_map", "a mapping from each tensor to its file")
        absent = [name for name in names if Path(name).name != name or not (self.folder / name).is_file()]
        if absent:
            files = " or ".join(name for name in self.kept if not name.endswith(".json"))
            rule = f"must have its weights as {files}" + (", or as shards with an index" if INDEX in self.kept else "")
            remedy = "Complete the folder; for a hub id add --fetch where there is a network"
            raise ModelError(f"checkpoint {self.source}", rule, value=f"no {excerpt(absent[0])}", remedy=remedy)
        return names

    def pickled(self) -> bool:
        """Whether its weights are pickled, to be read by torch's weights-only reader. Raises `ModelError`."""
        return ".bin" in self.weights()[0]

    def digests(self) -> dict[str, str]:
        """The sha256 of each file that decides an answer, by name. Raises `ModelError`."""
        others = [name for name in self.small if (self.folder / name).is_file()]
        return {Path(name).name: weights.sha256_of(self.folder / name) for name in (*others, *self.weights())}

    def identity(self, variant: str) -> dict[str, str]:
        """Its entries in a manifest: source, commit, each file's sha256, and one `version`. Raises `ModelError`.

        `variant` is the annotator's name for the network with these weights.
        """
        digests = self.digests()
        whole = hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode())
        hub = HUB_ID.fullmatch(self.source)
        return {
            "version": f"checkpoint {whole.hexdigest()[:12]}",
            "checkpoint": self.source,
            "revision": hub["revision"] if hub else "",
            "licence": "not known: the checkpoint's own",
            f"weights_sha256_{variant}": " ".join(digests[name] for name in self.weights()),
            **{f"sha256_{name}": digest for name, digest in digests.items()},
        }


def find_files(
    source: str,
    *,
    fetch: bool,
    small: tuple[str, ...] = (*CONFIGS, *TOKENIZER),
    kept: tuple[str, ...] = (SAFETENSORS, INDEX, PICKLE, PICKLE_INDEX),
) -> CheckpointFiles:
    """The files of a folder, or of a hub id `OWNER/NAME@COMMIT` (40 hexadecimal digits).

    With `fetch` the `small` files of a hub may be fetched, never the weights: see `fetch_weights`. Raises `ModelError`
    where nothing of it is here.
    """
    folder = _folder(source, small, fetch=fetch)
    untrusted.check_folder(folder, f"checkpoint {source}")
    return CheckpointFiles(source, folder, small, kept)


def fetch_weights(files: CheckpointFiles, *, fetch: bool) -> None:
    """Make sure that the weights are here, preferring safetensors. Raises `ModelError`."""
    if fetch and not Path(files.source).exists():
        safe = tuple(name for name in files.kept if ".safetensors" in name)
        _folder(files.source, (*safe, *((SHARDS,) if INDEX in safe else ())), fetch=True)
        if not any((files.folder / name).is_file() for name in safe):
            pickled = tuple(name for name in files.kept if name not in safe)
            _folder(files.source, (*pickled, *((PICKLE_SHARDS,) if PICKLE_INDEX in pickled else ())), fetch=True)
    files.weights()


def _folder(source: str, names: tuple[str, ...], *, fetch: bool) -> Path:
    hub = HUB_ID.fullmatch(source)
    if Path(source).is_dir():
        return Path(source)
    if hub is not None:
        return weights.snapshot(hub["repo"], hub["revision"], names, fetch=fetch)
    rule = "must be a folder on this machine, or a hub id with its full commit"
    remedy = "Correct the path, or write OWNER/NAME@COMMIT with 40 hexadecimal digits: a branch may change"
    raise ModelError(f"checkpoint {source}", rule, remedy=remedy)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer in transformers' format."""
    return any(all((folder / name).is_file() for name in names) for names in VOCABULARIES)


def check_tokenizer(files: CheckpointFiles) -> None:
    """Raise `ModelError` where a checkpoint's files hold no tokenizer."""
    if not has_tokenizer(files.folder):
        value = "none of " + ", ".join("+".join(names) for names in VOCABULARIES)
        remedy = "Copy the checkpoint's tokenizer files into the folder"
        raise ModelError(f"checkpoint {files.source}", "must have its tokenizer", value=value, remedy=remedy)


def normalisation(settings: UntrustedDict, source: str) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """(rescale, mean, std) of an image processor's settings: values 0 to 255 become (value · rescale - mean) / std.

    Mean and std are by channel: red, green, blue. Raises `ModelError` where they are not stated.
    """
    rescale = settings.number("rescale_factor", 1 / 255) if settings.flag("do_rescale", default=True) else 1.0
    if not settings.flag("do_normalize", default=True):
        return rescale, (0.0,) * CHANNELS, (1.0,) * CHANNELS
    mean, std = (as_numbers(settings.get(key)) for key in ("image_mean", "image_std"))
    if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
        rule = "must state image_mean and image_std of its processor for red, green and blue"
        remedy = "Complete preprocessor_config.json: the values are never guessed"
        raise ModelError(f"checkpoint {source}", rule, value=f"{mean} and {std}", remedy=remedy)
    return rescale, mean, std


def as_numbers(value: Any) -> tuple[float, ...]:
    """The numbers of a size or of channels, which files write as a number, a list or by name."""
    if isinstance(value, dict):
        several = list(cast("dict[str, Any]", value).values())
    else:
        several = cast("list[Any]", value) if isinstance(value, list) else [value]
    return tuple(number for number in several if isinstance(number, (int, float)) and not isinstance(number, bool))
