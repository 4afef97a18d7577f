"""Segment volumes with MONAI bundles: what their configuration says is carried out here, and nothing of it is run.

The network is `models/model.pt`, weights for a network of the package `monai` that `network_def` names, or
`models/model.ts`, a TorchScript program that needs to be trusted.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo
from ..annotator import Cost
from ..checkpoints.memory import file_bytes
from ..checkpoints.weights import sha256_of
from ..domain import Domain
from .answers import Decision
from .bundle_config import BundleConfig
from .options import FolderOptions
from .patch_model import pipeline_cost
from .pipeline import Crop, Percentiles, Pipeline, Resample, Step, Window, ZScore
from .resampling import new_shape
from .runtimes import check_trusted, load_torchscript
from .volume import LabelMap, Volume

if TYPE_CHECKING:
    import torch

    from .sliding import Network

INFERENCE: Final = Path("configs", "inference.json")
_WEIGHTS, _SCRIPT = Path("models", "model.pt"), Path("models", "model.ts")
_LOADING: Final = (
    "keys allow_missing_keys reader image_only ensure_channel_first dtype channel_dim strict_check "
    "device track_meta data_type meta_keys meta_key_postfix overwriting simple_keys"
)
_IGNORED: Final = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped")
_MODALITIES: Final = {"CT": "CT", "MR": "MR", "MRI": "MR", "PET": "PT"}


Known = dict[str, Callable[[Any], bool]]
"""Argument → whether a value of it is one that is carried out here."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle's configuration says."""

    pipeline: Pipeline
    labels: tuple[str, ...]
    channels: int
    """Scores of the network."""
    config: BundleConfig


def is_bundle(path: Path) -> bool:
    """Whether a path is the folder of a MONAI bundle."""
    return (path / "configs" / "metadata.json").is_file()


class MonaiBundle:
    """A MONAI bundle as a `VolumeModel`."""

    def __init__(self, path: str, options: FolderOptions) -> None:
        """Read its configuration. Raises `ModelError`."""
        self._folder, self._options = Path(path), options
        given = [name for name in ("folds", "flips", "configuration") if getattr(options, name)]
        if given:
            rule, remedy = "must be used without options that it does not have", "Leave them out"
            raise ModelError(f"bundle {path}", rule, value=", ".join(given), remedy=remedy)
        self._bundle = read_bundle(self._folder, path, options)
        self._subject = self._bundle.config.subject
        self._network: Network | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """See `VolumeModel`. Raises `ModelError` where a file cannot be read."""
        metadata = self._bundle.config.metadata
        files = {path.name: sha256_of(self._folder / path) for path in (self._file, INFERENCE)}
        whole = hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in files.items()).encode())
        return {
            "name": excerpt(metadata.text("name") or self._folder.name),
            "version": f"bundle {excerpt(metadata.text('version'), 20)} {whole.hexdigest()[:12]}",
            "checkpoint": str(self._folder),
            "licence": "not known: see the LICENSE of the bundle",
            "weights_sha256_network": files[self._file.name],
            "sha256_inference.json": files[INFERENCE.name],
            **({} if self._options.step is None else {"step": f"{self._options.step:g}"}),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The channels of its metadata, without background."""
        return self._bundle.labels

    @property
    def colours(self) -> Mapping[str, str]:
        """No colours of its own."""
        return {}

    @property
    def domain(self) -> Sequence[Domain]:
        """The modality of its metadata."""
        stated = self._bundle.config.metadata.part("network_data_format").part("inputs").part("image").text("modality")
        code = _MODALITIES.get(stated.upper(), "")
        return (Domain(kind="study", modalities=(code,)),) if code else ()

    @property
    def gives_probabilities(self) -> bool:
        """See `VolumeModel`: where its post-processing says what makes them of the network's values."""
        return bool(self._bundle.pipeline.activation)

    def suits(self, info: ImageInfo) -> None:
        """Any stack that is a volume suits."""

    def check(self) -> None:
        """Verify the network's file. Raises `ModelError`."""
        if self._file == _SCRIPT:
            path = self._folder / _SCRIPT
            check_trusted(path, sha256_of(path), self._options.trust, self._subject)

    def load(self) -> None:
        """Load the network. Raises `ModelError`."""
        if self._network is not None:
            return
        self.check()
        path, channels = self._folder / self._file, self._bundle.channels
        if self._file == _SCRIPT:
            self._network = load_torchscript(path, classes=channels, layout="NCDHW", subject=self._subject)
        else:
            from .monai_networks import load_monai_network

            self._network = load_monai_network(self._bundle.config, path, channels)

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `VolumeModel`."""
        self.load()
        assert self._network is not None  # noqa: S101 - told to the type checker
        return self._bundle.pipeline.segment(volume, self._network, self._subject)

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Cost | None:
        """See `VolumeModel`; as if the slices were axial."""
        pipeline = self._bundle.pipeline
        source, there = (shape[2], shape[1], shape[0]), (spacing[2], spacing[1], spacing[0])
        spacings = next((one.spacing for one in pipeline.steps if isinstance(one, Resample)), (None,) * 3)
        target = new_shape(source, there, [new or old for new, old in zip(spacings, there, strict=True)])
        return pipeline_cost(pipeline, file_bytes([self._folder / self._file]), target, self._bundle.channels)

    @cached_property
    def _file(self) -> Path:
        """The network's file: weights where the package `monai` is installed, else a program. Raises `ModelError`."""
        here = [path for path in (_WEIGHTS, _SCRIPT) if (self._folder / path).is_file()]
        usable = [path for path in here if path == _SCRIPT or find_spec("monai") is not None]
        if usable:
            return usable[0]
        rule = f"must have {_WEIGHTS.as_posix()} and the package monai, or {_SCRIPT.as_posix()}"
        remedy = "Install monai (the extra `monai`), or complete the folder"
        raise ModelError(self._subject, rule, value=", ".join(path.as_posix() for path in here), remedy=remedy)


def read_bundle(folder: Path, source: str, options: FolderOptions) -> Bundle:
    """What a bundle's configuration says. Raises `ModelError` for what limner does not carry out, by name."""
    config = BundleConfig(folder, source)
    steps, orientation = _preprocessing(config)
    activation, nearest, threshold = _postprocessing(config)
    target, given = config.part("inferer")
    if target != "SlidingWindowInferer":
        raise config.refused("inferer", "must be a SlidingWindowInferer", target)
    known: Known = {
        "roi_size": _sides,
        "overlap": lambda v: _number(v) and 0 <= v < 1,
        "mode": lambda v: v in {"constant", "gaussian"},
        "sigma_scale": lambda v: _number(v) and 0 < v <= 1,
        "padding_mode": lambda v: v == "constant",
        "cval": lambda v: v == 0,
    }
    ignored = "sw_batch_size sw_device device progress cache_roi_weight_map cpu_thresh buffer_steps buffer_dim"
    window = config.arguments(given, known, ignored)
    if "roi_size" not in window:
        raise config.refused("inferer", "must have a roi_size", "none")
    first, second, third = window["roi_size"]
    channels, labels, numbers = _labels(config, independent=threshold is not None)
    return Bundle(
        Pipeline(
            steps=steps,
            orientation=options.orientation or orientation,
            patch=(first, second, third),
            overlap=float(window.get("overlap", 0.25)) if options.step is None else 1 - options.step,
            even=False,
            gaussian=window.get("mode", "constant") == "gaussian",
            activation=cast("Any", activation),
            decision=Decision(numbers, None if threshold is None else partial(_at_least, threshold)),
            sigma=float(window.get("sigma_scale", 0.125)),
            back=0 if nearest else 1,
        ),
        labels,
        channels,
        config,
    )


def _preprocessing(config: BundleConfig) -> tuple[tuple[Step | Resample | Crop, ...], str]:
    """The steps before the network, and the directions of its axes."""
    steps: list[Step | Resample | Crop] = []
    orientation = ""
    for name, given in config.transforms("preprocessing"):
        keys = config.value(given.get("keys", "image"), f"keys of {given.where}")
        if "image" not in (cast("list[Any]", keys) if isinstance(keys, list) else [keys]):
            continue
        if name in _IGNORED:
            config.arguments(given, {}, _LOADING)
        elif name == "Orientationd":
            known: Known = {"axcodes": lambda v: isinstance(v, str) and len(v) == 3, "as_closest_canonical": _flag}
            found = config.arguments(given, known, "keys allow_missing_keys labels lazy")
            orientation = "RAS" if found.get("as_closest_canonical") else str(found.get("axcodes", ""))
        elif name in _STEPS:
            if name == "Spacingd" and (not orientation or any(isinstance(one, (Resample, Crop)) for one in steps)):
                raise config.refused(given.where, "must follow Orientationd, once, and before CropForegroundd", name)
            steps.append(_STEPS[name](config, given))
        else:
            raise _unknown(given, name, (*_IGNORED, "Orientationd", *_STEPS))
    if not orientation:
        rule = "must have an Orientationd: which way the axes of its training ran is never guessed"
        raise config.refused("preprocessing", rule, "none")
    return tuple(steps), orientation


def _postprocessing(config: BundleConfig) -> tuple[str, bool, float | None]:
    """(activation, whether the nearest voxel counts in resampling back, threshold of independent channels)."""
    activation, nearest = "", None
    threshold: float | None = None
    decided = False
    for name, given in config.transforms("postprocessing"):
        if name == "Activationsd":
            found = config.arguments(given, {"softmax": _flag, "sigmoid": _flag}, "keys")
            activation = (
                "softmax" if _first(found.get("softmax")) else "sigmoid" if _first(found.get("sigmoid")) else ""
            )
        elif name == "Invertd":
            ignored = (
                "keys transform orig_keys meta_keys orig_meta_keys meta_key_postfix to_tensor device allow_missing_keys"
            )
            nearest = bool(
                _first(config.arguments(given, {"nearest_interp": _flag}, ignored).get("nearest_interp", True))
            )
            if decided and not nearest:
                raise config.refused(given.where, "must take the nearest voxel of labels", "nearest_interp: false")
        elif name == "AsDiscreted":
            known: Known = {
                "argmax": _flag,
                "threshold": lambda v: _number(_first(v)),
                "to_onehot": lambda v: not _first(v),
            }
            found = config.arguments(given, known, "keys allow_missing_keys")
            decided, threshold = True, None if _first(found.get("argmax")) else _first(found.get("threshold"))
            if threshold is None and not _first(found.get("argmax")):
                raise config.refused(given.where, "must have argmax or a threshold", "neither")
        elif name not in {"SaveImaged", "EnsureTyped", "ToTensord"}:
            raise _unknown(given, name, ("Activationsd", "AsDiscreted", "Invertd", "SaveImaged"))
    if nearest is None or not decided:
        raise config.refused("postprocessing", "must have Invertd and AsDiscreted", "not both")
    return activation, nearest, threshold


def _labels(config: BundleConfig, *, independent: bool) -> tuple[int, tuple[str, ...], tuple[int, ...]]:
    """(channels, names of labels, label of each channel) from the metadata."""
    formats = config.metadata.part("network_data_format")
    inputs = formats.part("inputs").part("image").integer("num_channels", 1)
    if inputs != 1:
        rule, remedy = "must take one channel, since a stack has one", "Name a bundle of one channel"
        raise ModelError(config.subject, rule, value=f"{inputs} channels", remedy=remedy)
    output = formats.part("outputs").part("pred")
    given = output.part("channel_def")
    channels = output.integer("num_channels", len(given), most=256)
    if sorted(given) != sorted(map(str, range(channels))):
        raise output.wrong("channel_def", f"a name for each of {channels} channels, from 0")
    names = [excerpt(given.text(str(number))) or f"channel {number}" for number in range(channels)]
    if independent:
        return channels, tuple(names), tuple(range(1, channels + 1))
    return channels, tuple(names[1:]), tuple(range(channels))


def _unknown(given: Any, name: str, known: Sequence[str]) -> ModelError:
    rule = f"must be a transform that is carried out here: {', '.join(known)}"
    return ModelError(given.where, rule, value=excerpt(name), remedy="Name another bundle")


def _spacing(config: BundleConfig, given: Any) -> Resample:
    known: Known = {
        "pixdim": _three_numbers,
        "mode": lambda v: _first(v) in {"bilinear", 1},
        "padding_mode": lambda v: _first(v) == "border",
        "diagonal": lambda v: v is False,
        "scale_extent": lambda v: not _first(v),
    }
    found = config.arguments(given, known, "keys allow_missing_keys align_corners dtype recompute_affine lazy")
    if "pixdim" not in found or min(found["pixdim"]) <= 0:
        raise config.refused(given.where, "must have a pixdim of three numbers above 0", str(found.get("pixdim")))
    first, second, third = (float(one) for one in found["pixdim"])
    return Resample((first, second, third), cells=False)


def _range(config: BundleConfig, given: Any) -> Step:
    names = ("a_min", "a_max", "b_min", "b_max")
    known: Known = {**dict.fromkeys(names, _number), "clip": _flag}
    found = config.arguments(given, known, "keys allow_missing_keys dtype")
    low, high, first, last = _numbers(config, given, found, names)
    if low == high:
        raise config.refused(given.where, "must have an a_min other than a_max", str(low))
    return Window(low, high, (first, last), clip=bool(found.get("clip")))


def _percentiles(config: BundleConfig, given: Any) -> Step:
    names = ("lower", "upper", "b_min", "b_max")
    known: Known = {**dict.fromkeys(names, _number), "clip": _flag, "relative": lambda v: v is False}
    found = config.arguments(given, known, "keys allow_missing_keys dtype channel_wise")
    low, high, first, last = _numbers(config, given, found, names)
    if not 0 <= low < high <= 100:
        raise config.refused(given.where, "must have percentiles from 0 to 100", f"{low}, {high}")
    return Percentiles(low, high, (first, last), clip=bool(found.get("clip")))


def _numbers(config: BundleConfig, given: Any, found: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """Arguments that must all be there."""
    absent = [name for name in names if found.get(name) is None]
    if absent:
        raise config.refused(given.where, f"must have {', '.join(names)}", f"no {absent[0]}")
    return [float(found[name]) for name in names]


def _scaled(config: BundleConfig, given: Any) -> Step:
    known: Known = {"minv": _number, "maxv": _number, "channel_wise": _flag}
    found = config.arguments(given, known, "keys allow_missing_keys dtype")
    return Percentiles(0, 100, (float(found.get("minv", 0)), float(found.get("maxv", 1))), clip=False)


def _normalised(config: BundleConfig, given: Any) -> Step:
    known: Known = {
        "subtrahend": _number,
        "divisor": lambda v: _number(v) and v != 0,
        "nonzero": _flag,
        "channel_wise": _flag,
    }
    found = config.arguments(given, known, "keys allow_missing_keys dtype")
    return ZScore(found.get("subtrahend"), found.get("divisor"), nonzero=bool(found.get("nonzero")))


def _crop(config: BundleConfig, given: Any) -> Crop:
    known: Known = {
        "source_key": lambda v: v == "image",
        "margin": lambda v: isinstance(v, int) and 0 <= v <= 1000,
        "k_divisible": lambda v: v == 1,
        "allow_smaller": _flag,
    }
    found = config.arguments(given, known, "keys allow_missing_keys start_coord_key end_coord_key lazy")
    return Crop(int(found.get("margin", 0)), over_edge=not found.get("allow_smaller", False))


_STEPS: Final[Mapping[str, Callable[[BundleConfig, Any], Step | Resample | Crop]]] = {
    "Spacingd": _spacing,
    "ScaleIntensityRanged": _range,
    "ScaleIntensityRangePercentilesd": _percentiles,
    "ScaleIntensityd": _scaled,
    "NormalizeIntensityd": _normalised,
    "CropForegroundd": _crop,
}


def _at_least(threshold: float, scores: "torch.Tensor") -> "torch.Tensor":
    return scores >= threshold


def _first(value: Any) -> Any:
    """The value for the first key, where a list has one for each."""
    return next(iter(cast("list[Any]", value)), None) if isinstance(value, list) else value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _three_numbers(value: Any) -> bool:
    several = cast("list[Any]", value) if isinstance(value, list) else []
    return len(several) == 3 and all(map(_number, several))


def _flag(value: Any) -> bool:
    return isinstance(_first(value), bool)


def _sides(value: Any) -> bool:
    sides = cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()
    return len(sides) == 3 and all(isinstance(one, int) and 1 <= one <= 1024 for one in sides)
