"""Encoders: what turns a tile into numbers that a probe can learn from. Frozen, and known by what they are made of.

Loads no weights until a tile is to be encoded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, RequestError, excerpt
from ..checkpoints.files import CONFIGS, CheckpointFiles, as_numbers, fetch_weights, find_files
from ..checkpoints.memory import weight_bytes
from ..checkpoints.untrusted import MAX_TILE
from ..clip.checkpoint import ClipCheckpoint, find_checkpoint
from ..clip.openclip_files import find_openclip
from ..clip.openclip_state_dict import find_bare
from ..scores import require_finite

Vector = npt.NDArray[np.float32]
Kind = Literal["colour", "image-text", "4khd", "backbone"]

COLOUR = "colour"
PERCENTILES = (5, 25, 50, 75, 95)
LENGTHS = ("image_size", "img_size")  # how configurations call the side of their pictures


class Encoder(Protocol):
    """A frozen encoder; lives in one process."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that decides its features: its `kind`, and the sha256 of its files. Raises `ModelError`."""
        ...

    @property
    def tile(self) -> int:
        """The side of its tiles in pixels; 0 where any will do."""
        ...

    @property
    def bands(self) -> tuple[str, ...] | None:
        """STAC common names of the bands that it sees as physical values; None where it sees rendered RGB."""
        ...

    def prepare(self) -> None:
        """Load what it needs, so that what is wrong with it is said early. Raises `ModelError`."""
        ...

    def held(self) -> float:
        """Bytes of its weights once it is loaded; loads nothing. Raises `ModelError`."""
        ...

    def __call__(self, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Vector:
        """One tile (tile, tile, channels), and where it is valid, some of it → its features (dimensions,).

        RGB is 0 to 255, invalid pixels white. One at a time, so that features depend on nothing but their tile.
        """
        ...


@dataclass(frozen=True, slots=True)
class ColourEncoder:
    """Statistics of each channel: mean, standard deviation and percentiles of its valid pixels.

    Of red, green and blue from 0 to 255, or of native `bands` as physical values. Knows nothing of texture or shape:
    what a larger encoder is worth is what it adds to this.
    """

    bands: tuple[str, ...] | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """See `Encoder`."""
        percentiles = ", ".join(map(str, PERCENTILES))
        return {
            "kind": "colour",
            "statistics": f"mean, standard deviation, percentiles {percentiles}",
            "of": "red, green, blue as rendered" if self.bands is None else ", ".join(self.bands),
        }

    @property
    def tile(self) -> int:
        """Any."""
        return 0

    def prepare(self) -> None:
        """Nothing is needed."""

    def held(self) -> float:
        """None."""
        return 0.0

    def __call__(self, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Vector:
        """See `Encoder`."""
        seen = tile[valid].astype(np.float64)
        parts = [seen.mean(axis=0), seen.std(axis=0), *np.percentile(seen, PERCENTILES, axis=0)]
        return np.concatenate(parts).astype(np.float32)


@dataclass(slots=True)
class NetworkEncoder:
    """A network's features of rendered RGB. `load` makes what is called with a tile, whose weights are `size` bytes.

    What decides it are the files of which `digests` are made, and what a person said of them: `stated`.
    """

    kind: Kind
    source: str
    tile: int
    digests: Callable[[], Mapping[str, str]]
    load: Callable[[], Callable[[npt.NDArray[Any]], Vector]]
    size: Callable[[], float]
    stated: Mapping[str, str] = field(default_factory=dict[str, str])
    _network: Callable[[npt.NDArray[Any]], Vector] | None = field(default=None, init=False)
    _known: Mapping[str, str] | None = field(default=None, init=False)

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Rendered RGB."""
        return None

    @property
    def identity(self) -> Mapping[str, str]:
        """See `Encoder`."""
        if self._known is None:  # a checkpoint may be gigabytes
            runtime = f"torch {version('torch')}, transformers {version('transformers')}"
            digests = {f"sha256_{name}": digest for name, digest in self.digests().items()}
            self._known = {"kind": self.kind, "runtime": runtime, **self.stated, **digests}
        return self._known

    def prepare(self) -> None:
        """See `Encoder`."""
        if self._network is None:
            self._network = self.load()

    def held(self) -> float:
        """See `Encoder`."""
        return self.size()

    def __call__(self, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Vector:
        """See `Encoder`. Invalid pixels are seen as they are rendered, white."""
        del valid
        self.prepare()
        if self._network is None:
            msg = "the encoder was not loaded"
            raise RuntimeError(msg)
        return self._network(tile)


def find_encoder(source: str, *, fetch: bool = False, threads: int = 0) -> Encoder:
    """An encoder by what a person calls it.

    "colour", or "colour:BAND,BAND" with STAC common names; "4khd:CHECKPOINT", the vision tower of a 4KHD model;
    "openclip:ARCHITECTURE:FILE", OpenCLIP's weights alone; else a folder or a hub id `OWNER/NAME@COMMIT`, in OpenCLIP's
    format, or in transformers': of the CLIP or SigLIP type, a 4KHD model, or any other with one picture in and features
    out. Raises `RequestError`, `ModelError`.
    """
    if not source:
        raise RequestError(
            "encoder", "it must be named", remedy="Add --encoder colour, or --encoder FOLDER with a checkpoint"
        )
    name, _, rest = source.partition(":")
    if name == COLOUR:
        bands = tuple(band.strip() for band in rest.split(",") if band.strip())
        if len(set(bands)) < len(bands):
            raise RequestError("encoder colour", "each band is named once", value=rest, remedy="Leave out the second")
        return ColourEncoder(bands or None)
    if name == "4khd":
        return _fourkhd(rest, fetch=fetch, threads=threads)
    if name == "zero-shot":  # as --model calls them
        source = rest
    opened = _openclip(rest if name == "openclip" else "", source, fetch=fetch)
    if opened is not None:
        return _image_text(opened, fetch=fetch, threads=threads)
    files = find_files(source, fetch=fetch, small=CONFIGS)
    kind = files.read("config.json").text("model_type")
    if kind in {"clip", "siglip"}:
        return _image_text(find_checkpoint(source, fetch=fetch), fetch=fetch, threads=threads)
    if kind.startswith("internlm"):
        return _fourkhd(source, fetch=fetch, threads=threads)
    return _backbone(files, kind, fetch=fetch, threads=threads)


def _openclip(named: str, source: str, *, fetch: bool) -> ClipCheckpoint | None:
    """A checkpoint of OpenCLIP's: `named` "ARCHITECTURE:FILE" where not "", else what `source` is; None if none."""
    architecture, _, file = named.partition(":")
    if named and not file:
        raise RequestError(
            "encoder openclip", "its architecture is named first", value=named, remedy="Write openclip:ViT-B-32:FILE"
        )
    if named or Path(source).is_file():
        return find_bare(file or source, architecture, words=False)
    return find_openclip(source, fetch=fetch, words=False)


def same_encoder(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The first (what, before, now) in which two encoders' identities differ, the runtime apart; None if in none."""
    for key in dict.fromkeys([*before, *now]):
        if key != "runtime" and before.get(key) != now.get(key):
            return key, before.get(key, "none"), now.get(key, "none")
    return None


def encode(encoder: Encoder, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_], where: str) -> Vector:
    """What an encoder makes of a tile, once it is sure that it is finite. Raises `ModelError` that says `where`."""
    remedy = "Check the encoder's files; and the image's values there, with `limner info`"
    return require_finite(encoder(tile, valid), "features", of="encoder", at=f"for {where}", remedy=remedy)


def _image_text(checkpoint: ClipCheckpoint, *, fetch: bool, threads: int) -> NetworkEncoder:
    def load() -> Callable[[npt.NDArray[Any]], Vector]:
        from ..clip.network import ClipImageEncoder

        return ClipImageEncoder(checkpoint, threads=threads)

    fetch_weights(checkpoint.files, fetch=fetch)
    files = checkpoint.files

    known = checkpoint.open_clip
    stated = {"architecture": known.architecture} if known is not None and known.architecture else {}
    return NetworkEncoder("image-text", checkpoint.source, checkpoint.tile, files.digests, load, _size(files), stated)


def _fourkhd(source: str, *, fetch: bool, threads: int) -> NetworkEncoder:
    from ..vlm.fourkhd.cost import weight_bytes
    from ..vlm.fourkhd.files import CheckpointFiles as FourKhdFiles
    from ..vlm.fourkhd.sizes import VISION

    files = FourKhdFiles.find(source, fetch=fetch)

    def load() -> Callable[[npt.NDArray[Any]], Vector]:
        from .vision_backbones import FourKhdVisionEncoder

        return FourKhdVisionEncoder(files, threads=threads)

    sizes = files.sizes()
    held = weight_bytes(sizes, VISION, 4)
    return NetworkEncoder("4khd", source, sizes.vision.image, files.held.digests, load, lambda: held)


def _backbone(files: CheckpointFiles, kind: str, *, fetch: bool, threads: int) -> NetworkEncoder:
    """A checkpoint whose class transformers knows by its model type. Its own resizing is not done: a tile is whole."""
    config = files.read("config.json")
    lengths = [part.get(name) for name in LENGTHS for part in (config, config.part("vision_config"))]
    length = next((one for one in lengths if type(one) is int), 0)
    if not length:
        cut = files.preprocessing().get("crop_size") or files.preprocessing().get("size")
        sides = set(as_numbers(cut))
        length = next((one for one in sides if isinstance(one, int)), 0) if len(sides) == 1 else 0
    if not 1 <= length <= MAX_TILE:
        raise ModelError(
            f"checkpoint {files.source}",
            f"its config or its processor must say how large its pictures are, {MAX_TILE} pixels at most",
            value=excerpt(f"model type {kind or 'not stated'}, {' or '.join(LENGTHS)} {length or 'not stated'}"),
            remedy="Name another encoder",
        )

    def load() -> Callable[[npt.NDArray[Any]], Vector]:
        from .vision_backbones import Backbone

        return Backbone(files, threads=threads)

    fetch_weights(files, fetch=fetch)
    return NetworkEncoder("backbone", str(Path(files.source)), length, files.digests, load, _size(files))


def _size(files: CheckpointFiles) -> Callable[[], float]:
    return lambda: weight_bytes(files, itemsize=4)
