"""Frozen encoders that turn a tile into a feature vector. Weights are loaded with the first tile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, RequestError, excerpt
from ..checkpoints.files import CONFIGS, CheckpointFiles, as_numbers, fetch_weights, find_files
from ..checkpoints.memory import weight_bytes
from ..checkpoints.untrusted import MAX_TILE
from ..clip.checkpoint import ClipCheckpoint, find_image_text
from ..scores import require_finite

Vector = npt.NDArray[np.float32]
ImageFunction = Callable[[npt.NDArray[Any]], Vector]

COLOUR: Final = "colour"
PERCENTILES: Final = (5, 25, 50, 75, 95)
IMAGE_SIZE_KEYS: Final = ("image_size", "img_size")
"""Names that configurations give the side of their images."""


@dataclass(frozen=True, slots=True)
class ColourEncoder:
    """Colour statistics: mean, standard deviation and percentiles of each channel's valid pixels.

    The baseline that every other encoder is compared with: it contains nothing of texture or shape.
    """

    bands: tuple[str, ...] | None = None
    """STAC common names of native bands, as physical values; None for rendered RGB from 0 to 255."""
    tile: int = 0
    """Side of its tiles in pixels; 0 for any."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that decides its features."""
        percentiles = ", ".join(map(str, PERCENTILES))
        return {
            "kind": "colour",
            "statistics": f"mean, standard deviation, percentiles {percentiles}",
            "of": "red, green, blue as rendered" if self.bands is None else ", ".join(self.bands),
        }

    def prepare(self) -> None:
        """Nothing to load."""

    def weight_bytes(self) -> float:
        """No weights."""
        return 0.0

    def __call__(self, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Vector:
        """The features (dimensions,) of one tile (tile, tile, channels) with its mask of valid pixels."""
        pixels = tile[valid].astype(np.float64)
        parts = [pixels.mean(axis=0), pixels.std(axis=0), *np.percentile(pixels, PERCENTILES, axis=0)]
        return np.concatenate(parts).astype(np.float32)


@dataclass(slots=True)
class NetworkEncoder:
    """A network's features of rendered RGB; used in one process."""

    kind: Literal["image-text", "4khd", "backbone"]
    tile: int
    """Side of its tiles in pixels."""
    digests: Callable[[], Mapping[str, str]]
    """The sha256 of each file, by name."""
    make: Callable[[], ImageFunction]
    """Loads the network. Raises `ModelError`."""
    weight_bytes: Callable[[], float]
    """Bytes of the weights once loaded, from their files' headers. Raises `ModelError`."""
    stated: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the user stated that decides the features."""
    bands: tuple[str, ...] | None = None
    """Rendered RGB."""
    _network: ImageFunction | None = field(default=None, init=False)
    _identity: Mapping[str, str] | None = field(default=None, init=False)

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that decides its features: its kind, library versions, and the sha256 of its files."""
        if self._identity is None:  # a checkpoint may be gigabytes
            runtime = f"torch {version('torch')}, transformers {version('transformers')}"
            digests = {f"sha256_{name}": digest for name, digest in self.digests().items()}
            self._identity = {"kind": self.kind, "runtime": runtime, **self.stated, **digests}
        return self._identity

    def prepare(self) -> None:
        """Load the network. Raises `ModelError`."""
        if self._network is None:
            self._network = self.make()

    def __call__(self, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Vector:
        """The features (dimensions,) of one tile (tile, tile, 3) of values 0 to 255; invalid pixels are white.

        Tiles are not batched, so that features depend on their tile only.
        """
        del valid
        if self._network is None:
            self._network = self.make()
        return self._network(tile)


Encoder = ColourEncoder | NetworkEncoder


def find_encoder(source: str, *, fetch: bool = False, threads: int = 0) -> Encoder:
    """The encoder of a `--encoder` value.

    "colour", or "colour:BAND,BAND" with STAC common names; "4khd:CHECKPOINT", the vision encoder of a 4KHD model;
    "openclip:ARCHITECTURE:FILE", OpenCLIP's weights alone; else a folder or a hub id `OWNER/NAME@COMMIT` in OpenCLIP's
    or transformers' format. Raises `RequestError`, `ModelError`.
    """
    if not source:
        raise RequestError("--encoder", "must be given", remedy="Add --encoder colour, or --encoder FOLDER")
    name, _, rest = source.partition(":")
    if name == COLOUR:
        bands = tuple(band.strip() for band in rest.split(",") if band.strip())
        if len(set(bands)) < len(bands):
            raise RequestError(
                "--encoder colour", "must name each band once", value=rest, remedy="Leave out the duplicate"
            )
        return ColourEncoder(bands or None)
    if name == "4khd":
        return _fourkhd(rest, fetch=fetch, threads=threads)
    architecture = ""
    if name == "openclip":
        architecture, _, source = rest.partition(":")
        if not source:
            raise RequestError(
                "--encoder openclip",
                "must name an architecture and a file",
                value=rest,
                remedy="Write openclip:ViT-B-32:FILE",
            )
    elif name == "zero-shot":  # the same as in --model
        source = rest
    found = find_image_text(source, fetch=fetch, architecture=architecture, text=False)
    if found is not None:
        return _image_text(found, fetch=fetch, threads=threads)
    files = find_files(source, fetch=fetch, small=CONFIGS)
    if files.read("config.json").text("model_type").startswith("internlm"):
        return _fourkhd(source, fetch=fetch, threads=threads)
    return _backbone(files, fetch=fetch, threads=threads)


def encoder_difference(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The first (key, before, now) in which two encoders' identities differ, except the runtime; None if equal."""
    for key in dict.fromkeys([*before, *now]):
        if key != "runtime" and before.get(key) != now.get(key):
            return key, before.get(key, "none"), now.get(key, "none")
    return None


def encode(encoder: Encoder, tile: npt.NDArray[Any], valid: npt.NDArray[np.bool_], where: str) -> Vector:
    """An encoder's features of a tile. Raises `ModelError` where they are not finite; `where` names the tile in it."""
    remedy = "Check the encoder's files, and the image's values there with `limner info`"
    return require_finite(encoder(tile, valid), "features", of="encoder", at=f"for {where}", remedy=remedy)


def _image_text(checkpoint: ClipCheckpoint, *, fetch: bool, threads: int) -> NetworkEncoder:
    def make() -> ImageFunction:
        from ..clip.network import ClipImageEncoder

        return ClipImageEncoder(checkpoint, threads=threads)

    files, known = checkpoint.files, checkpoint.open_clip
    fetch_weights(files, fetch=fetch)
    stated = {"architecture": known.architecture} if known is not None and known.architecture else {}
    return NetworkEncoder(
        "image-text", checkpoint.tile, files.digests, make, lambda: weight_bytes(files, itemsize=4), stated
    )


def _fourkhd(source: str, *, fetch: bool, threads: int) -> NetworkEncoder:
    from ..vlm.fourkhd.checkpoint import FourKhdFiles
    from ..vlm.fourkhd.model_config import VISION

    files = FourKhdFiles.find(source, fetch=fetch)

    def make() -> ImageFunction:
        from .vision_backbones import FourKhdVisionEncoder

        return FourKhdVisionEncoder(files, threads=threads)

    sizes = files.sizes()
    return NetworkEncoder("4khd", sizes.vision.image, files.held.digests, make, lambda: sizes.weight_bytes(VISION, 4))


def _backbone(files: CheckpointFiles, *, fetch: bool, threads: int) -> NetworkEncoder:
    """A vision network that transformers knows by its model type; tiles are not resized."""
    config = files.read("config.json")
    sides = [part.get(name) for name in IMAGE_SIZE_KEYS for part in (config, config.part("vision_config"))]
    side = next((one for one in sides if type(one) is int), 0)
    if not side:
        preprocessing = files.preprocessing()
        sizes = set(as_numbers(preprocessing.get("crop_size") or preprocessing.get("size")))
        side = next((one for one in sizes if isinstance(one, int)), 0) if len(sizes) == 1 else 0
    if not 1 <= side <= MAX_TILE:
        kind = config.text("model_type") or "not stated"
        raise ModelError(
            f"config of checkpoint {files.source}",
            f"must state the size of its images, {MAX_TILE} pixels at most",
            value=excerpt(f"model type {kind}, {' or '.join(IMAGE_SIZE_KEYS)} {side or 'not stated'}"),
            remedy="Name another encoder",
        )

    def make() -> ImageFunction:
        from .vision_backbones import Backbone

        return Backbone(files, threads=threads)

    fetch_weights(files, fetch=fetch)
    return NetworkEncoder("backbone", side, files.digests, make, lambda: weight_bytes(files, itemsize=4))
