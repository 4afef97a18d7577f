"""Read a folder of nnU-Net v2: how its networks are built, and what happens to a volume before and after them.

Format: `plans.json` and `dataset.json` of MIC-DKFZ/nnUNet ("nnU-Net dataset format", "explanation of plans files"),
whose `PlansManager` and `LabelManager` say what absent keys mean. Nothing is imported or run by a name in a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from ...readers.errors import ModelError, did_you_mean, excerpt
from ..checkpoints.untrusted import CHECK_PATH, UntrustedDict, read_json
from ..domain import Domain
from .options import FolderOptions
from .orientation import AxesTriple
from .resampling import Orders
from .unet import Triple, UNetConfig

PLANS: Final = "plans.json"
DATASET: Final = "dataset.json"
CHECKPOINT: Final = "checkpoint_final.pth"
DEFAULT: Final = "3d_fullres"

_NETWORKS: Final = ("PlainConvUNet", "ResidualEncoderUNet")
_SCHEMES: Final = ("CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization")
_RESAMPLING: Final = "resample_data_or_seg_to_shape"
_READERS: Final[Mapping[str, str]] = {"SimpleITKIO": "", "NibabelIO": "", "NibabelIOWithReorient": "SAR"}
"""nnU-Net's reader → the directions of the axes that it brings every volume to; "" for those of the file."""

_MODALITIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ct",), "CT"),
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t2", "t2w", "flair", "adc", "dwi"), "MR"),
    **dict.fromkeys(("pet", "pt"), "PT"),
}
_MOST_STAGES, _MOST_DEPTH, _MOST_FEATURES = 12, 64, 4096
_MOST_SIDE, _MOST_PATCH = 1024, 2**26  # voxels
_MOST_LABELS: Final = 255
_NAMES_FIRST: Final = "in nnU-Net v2 a label's name stands before its number"
_OLD: Final = "plans of version 1"


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a network's answers."""

    names: tuple[str, ...]
    """Of labels 1, 2, … of a label map."""
    heads: int
    """Classes or regions that the network scores."""
    regions: tuple[int, ...] = ()
    """Label of each region, in the order in which later ones are painted over earlier ones; empty for classes."""


@dataclass(frozen=True, slots=True)
class NnUNetConfig:
    """A trained configuration of nnU-Net v2."""

    source: str
    """What the user named."""
    folder: Path
    """With `PLANS`, `DATASET` and the folds."""
    dataset: str
    configuration: str
    plans: UntrustedDict
    settings: UntrustedDict
    """Of the configuration in the plans."""
    network: UNetConfig
    patch: AxesTriple
    spacing: tuple[float, float, float]
    transpose: AxesTriple
    """Axis of the turned volume for each axis of the network."""
    scheme: Literal["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"]
    masked: bool
    """Whether only the voxels of the body, which are not 0, are normalised."""
    intensities: Mapping[str, float]
    """Of the foreground in the training set: mean, std, percentile_00_5, percentile_99_5; for CT."""
    data: Orders
    """Of the resampling of the volume."""
    logits: Orders
    """Of the resampling of the answers."""
    orientation: str
    """Directions of the axes z, y and x; "" for those of the files, slices stacked along their normal."""
    labels: Labels
    modality: str
    """DICOM's code; "" where the channel's name is none that is known."""
    licence: str
    folds: tuple[str, ...]

    def checkpoint(self, fold: str) -> Path:
        """The file with the weights of a fold."""
        return self.folder / f"fold_{fold}" / CHECKPOINT

    @property
    def domain(self) -> tuple[Domain, ...]:
        """The studies that it was made for."""
        return (Domain(kind="study", modalities=(self.modality,)),) if self.modality else ()


def is_nnunet(path: Path) -> bool:
    """Whether a path is a folder that nnU-Net, of any version, would write."""
    return path.is_dir() and bool([*path.glob("plans*.json"), *path.glob("plans*.pkl"), *path.glob(f"*__*__*/{PLANS}")])


def read_nnunet(path: Path, options: FolderOptions) -> NnUNetConfig:
    """The configuration of a folder. Raises `ModelError` where it is incomplete, or beyond what is done here."""
    source = str(path)
    subject = f"checkpoint {source}"
    folder = _folder(path, options.configuration, subject)
    plans = read_json(folder / PLANS, subject)
    if not isinstance(plans.get("configurations"), dict):
        rule = "must be a model of nnU-Net v2: its plans must have configurations"
        raise ModelError(subject, rule, value=_OLD, remedy="Train it with nnU-Net v2, or name another")
    dataset = read_json(folder / DATASET, subject)
    name = _configuration(folder, plans, options.configuration)
    settings = _resolve(plans, name)
    _only(settings, "preprocessor_name", ("DefaultPreprocessor",))
    _only(plans, "label_manager", ("LabelManager",))
    transpose = _triple(plans, "transpose_forward", default=(0, 1, 2), least=0, most=2)
    if sorted(transpose) != [0, 1, 2]:
        raise plans.wrong("transpose_forward", "an order of the axes 0, 1 and 2")
    channel = _channel(dataset)
    intensities = plans.part("foreground_intensity_properties_per_channel") or plans.part(
        "foreground_intensity_properties_by_modality"
    )
    scheme, masked = _normalisation(settings)
    found = intensities.part("0")
    keys = ("mean", "std", "percentile_00_5", "percentile_99_5") if scheme == "CTNormalization" else ()
    absent = [key for key in keys if found.get(key) is None]
    if absent:
        raise found.wrong(absent[0], "stated for CTNormalization")
    return NnUNetConfig(
        source=source,
        folder=folder,
        dataset=plans.text("dataset_name") or folder.parent.name,
        configuration=name,
        plans=plans,
        settings=settings,
        network=_network(settings),
        patch=_patch(settings),
        spacing=_spacing(settings),
        transpose=transpose,
        scheme=cast("Any", scheme),
        masked=masked,
        intensities={key: found.number(key, 0.0) for key in keys},
        data=_orders(settings, "resampling_fn_data", 3),
        logits=_orders(settings, "resampling_fn_probabilities", 1, most=1),
        orientation=options.orientation or _orientation(plans, dataset),
        labels=read_labels(dataset),
        modality=_MODALITIES.get(channel.lower(), ""),
        licence=dataset.text("licence") or dataset.text("license") or "not known: the checkpoint's own",
        folds=_folds(folder, options.folds, subject),
    )


def _folder(path: Path, configuration: str, subject: str) -> Path:
    """The folder with the plans: the path, or the one below it, `TRAINER__PLANS__CONFIGURATION`."""
    if (path / PLANS).is_file():
        return path
    below = {each.name: each for each in sorted(path.glob("*__*__*")) if (each / PLANS).is_file()}
    asked = configuration or DEFAULT
    chosen = [name for name in below if name.split("__")[-1] == asked] if len(below) > 1 or configuration else [*below]
    if len(chosen) == 1:
        return below[chosen[0]]
    if not below:
        rule = f"must be a model of nnU-Net v2, with a {PLANS}"
        raise ModelError(subject, rule, value=_OLD, remedy="Train it with nnU-Net v2, or name another")
    rule = f"must have one trained model of the configuration {excerpt(asked)}"
    raise ModelError(subject, rule, value=excerpt(", ".join(below), 300), remedy="Name one of these folders itself")


def _configuration(folder: Path, plans: UntrustedDict, asked: str) -> str:
    """The name of the configuration: asked for, else of the folder's name, else the default, else the only one."""
    known = list(plans.part("configurations"))
    named = folder.name.split("__")[-1]
    found = asked or next((name for name in (named, DEFAULT, *known) if name in known), "")
    if found not in known:
        remedy = f"{did_you_mean(asked, known)}Known: {excerpt(', '.join(known), 200)}"
        rule = f"must be a configuration of {plans.where}"
        raise ModelError(f"configuration {asked!r}", rule, remedy=remedy)
    return found


def _resolve(plans: UntrustedDict, name: str) -> UntrustedDict:
    """The settings of a configuration, with those that it inherits."""
    parts = plans.part("configurations")
    chain: list[UntrustedDict] = []
    following = name
    while following:
        if following not in parts or len(chain) > len(parts):
            raise parts.wrong(name, "a configuration that inherits from others without a circle")
        chain.append(parts.part(following))
        following = chain[-1].text("inherits_from")
    merged: dict[str, Any] = {}
    for one in reversed(chain):
        merged |= one
    settings = UntrustedDict(merged, f"{excerpt(name)} in {plans.where}")
    if settings.text("previous_stage"):
        rule, remedy = "must not be a cascade", f"Name another configuration, such as {DEFAULT}"
        raise ModelError(settings.where, rule, value=settings.text("previous_stage"), remedy=remedy)
    if len(settings.list("patch_size")) != 3:
        rule, remedy = "must be a network of volumes", f"Name another configuration, such as {DEFAULT}"
        raise ModelError(settings.where, rule, value=f"patch_size {settings.get('patch_size')}", remedy=remedy)
    return settings


def _only(settings: UntrustedDict, key: str, known: Sequence[str]) -> str:
    """The text under a key, which must be a known name: others are refused by it."""
    found = settings.text(key, known[0])
    if found not in known:
        subject, rule = f"{key} in {settings.where}", f"must be {' or '.join(known)}"
        raise ModelError(subject, rule, value=excerpt(found), remedy="Name a model that was trained with it")
    return found


def _triple(
    settings: UntrustedDict, key: str, *, default: Triple | None = None, least: int = 1, most: int = _MOST_SIDE
) -> Triple:
    return _as_triple(settings, key, settings.get(key, default), least, most)


def _as_triple(settings: UntrustedDict, key: str, value: object, least: int = 1, most: int = _MOST_SIDE) -> Triple:
    listed = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
    several = [value] * 3 if isinstance(value, int) else listed
    numbers = [one for one in several if isinstance(one, int) and not isinstance(one, bool) and least <= one <= most]
    if len(several) != 3 or len(numbers) != 3:
        raise settings.wrong(key, f"three whole numbers from {least} to {most}")
    return numbers[0], numbers[1], numbers[2]


def _patch(settings: UntrustedDict) -> AxesTriple:
    patch = _triple(settings, "patch_size")
    if patch[0] * patch[1] * patch[2] > _MOST_PATCH:
        raise settings.wrong("patch_size", f"of at most {_MOST_PATCH} voxels")
    return patch


def _spacing(settings: UntrustedDict) -> tuple[float, float, float]:
    found = settings.list("spacing")
    if len(found) != 3 or not all(isinstance(one, (int, float)) and 0 < one < 1000 for one in found):
        raise settings.wrong("spacing", "three numbers of mm")
    return float(found[0]), float(found[1]), float(found[2])


def _channel(dataset: UntrustedDict) -> str:
    names = dataset.part("channel_names") or dataset.part("modality")
    if len(names) != 1:
        rule, value = "must have one channel, since a stack has one", excerpt(", ".join(map(str, names.values())))
        raise ModelError(dataset.where, rule, value=f"{len(names)}: {value}", remedy="Name a model of one channel")
    return str(next(iter(names.values())))


def _normalisation(settings: UntrustedDict) -> tuple[str, bool]:
    schemes, masks = settings.list("normalization_schemes"), settings.list("use_mask_for_norm")
    if len(schemes) != 1 or schemes[0] not in _SCHEMES:
        subject, rule = f"normalization_schemes in {settings.where}", f"must be one of {', '.join(_SCHEMES)}"
        value = excerpt(", ".join(map(str, schemes)))
        raise ModelError(subject, rule, value=value, remedy="Name a model that was trained with it")
    return schemes[0], masks == [True]


def _orders(settings: UntrustedDict, key: str, order: int, most: int = 5) -> Orders:
    """The orders of a resampling; beyond 1 the range of what is resampled must be known before its first row."""
    _only(settings, key, (_RESAMPLING,))
    given = settings.part(f"{key}_kwargs")
    if given.number("separate_z_anisotropy_threshold", 3.0) != 3.0:
        raise given.wrong("separate_z_anisotropy_threshold", "3, as by default")
    separate = None if given.get("force_separate_z") is None else given.flag("force_separate_z", default=False)
    orders = given.integer("order", order, least=0, most=most), given.integer("order_z", 0, least=0, most=most)
    return Orders(*orders, separate)


def _orientation(plans: UntrustedDict, dataset: UntrustedDict) -> str:
    """The directions that nnU-Net's reader brought volumes to. Raises `ModelError` where two files contradict."""
    planned, stated = plans.text("image_reader_writer"), dataset.text("overwrite_image_reader_writer")
    stated = "" if stated == "None" else stated
    if planned and stated and planned != stated:
        value = f"{excerpt(planned)} in {PLANS}, {excerpt(stated)} in {DATASET}"
        rule, remedy = "must name one reader, which decides the orientation", "Correct the one that is wrong"
        raise ModelError(plans.where, rule, value=value, remedy=remedy)
    holder, key = (plans, "image_reader_writer") if planned else (dataset, "overwrite_image_reader_writer")
    return _READERS[_only(holder, key, tuple(_READERS))]


def _folds(folder: Path, asked: Sequence[str], subject: str) -> tuple[str, ...]:
    """Names of the folds: those asked for, else all numbered ones, else the one that was trained on everything."""
    here = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*") if (path / CHECKPOINT).is_file())
    numbered = [name for name in here if name.isdecimal()]
    absent = [name for name in asked if name not in here]
    if absent or not here:
        what = f"fold_{excerpt(absent[0])}/{CHECKPOINT}" if absent else f"fold_*/{CHECKPOINT}"
        known = ", ".join(here)
        remedy = f"Name others with --set model_options.folds={','.join(here)}" if here else CHECK_PATH
        raise ModelError(subject, f"must have {what}", value=known and f"folds {known}", remedy=remedy)
    return tuple(asked or numbered or here)


def read_labels(dataset: UntrustedDict) -> Labels:
    """The labels of a dataset. Raises `ModelError` where they are none that nnU-Net takes, or too many."""
    given = dataset.part("labels")
    values = {name: _label(given, name) for name in given if name != "ignore"}
    if values.get("background") != (0,):
        raise given.wrong("background", f"0: {_NAMES_FIRST}")
    numbers = sorted({number for several in values.values() for number in several})
    if len(numbers) > _MOST_LABELS + 1:
        raise dataset.wrong("labels", f"at most {_MOST_LABELS} labels")
    if any(len(several) > 1 for several in values.values()):
        return _regions(dataset, {name: several for name, several in values.items() if several != (0,)})
    if numbers != list(range(len(values))):
        raise dataset.wrong("labels", "numbered from 0 without a gap, each once")
    ordered = sorted(values, key=lambda name: values[name])
    return Labels(tuple(_clean(name) for name in ordered[1:]), len(values))


def _label(given: UntrustedDict, name: str) -> tuple[int, ...]:
    value = given[name]
    several = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not several or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in several):
        raise given.wrong(name, f"a whole number, or a list of them: {_NAMES_FIRST}")
    return tuple(sorted(set(several)))


def _regions(dataset: UntrustedDict, regions: Mapping[str, tuple[int, ...]]) -> Labels:
    """Regions that overlap: what is painted as one is it without those that are painted over it."""
    order = dataset.list("regions_class_order")
    if len(order) != len(regions) or len(set(order)) < len(order) or not all(isinstance(one, int) for one in order):
        raise dataset.wrong("regions_class_order", f"{len(regions)} different whole numbers, one for each region")
    names: list[str] = []
    for place, (name, several) in enumerate(regions.items()):
        over = [other for other, those in list(regions.items())[place + 1 :] if set(those) & set(several)]
        names.append(_clean(name) + (f" except {', '.join(map(_clean, over))}" if over else ""))
    return Labels(tuple(names), len(names), tuple(range(1, len(names) + 1)))


def _clean(name: str) -> str:
    return excerpt(name) or "unnamed"


def _network(settings: UntrustedDict) -> UNetConfig:
    """The network of a configuration, in the keys of today, or in those before nnU-Net 2.4."""
    architecture = settings.part("architecture")
    if not architecture:
        return _older_network(settings)
    name = architecture.text("network_class_name").rpartition(".")[2]
    given = architecture.part("arch_kwargs")
    _check_class(settings, name)
    depths = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    _class_name(given, "conv_op", ("Conv3d",))
    known = {"n_stages", "features_per_stage", "kernel_sizes", "strides", depths, "n_conv_per_stage_decoder"}
    known |= {"conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin"}
    known |= {"nonlin_kwargs", "deep_supervision", "nonlin_first"}
    other = sorted(key for key in set(given) - known if given[key] is not None)
    if other:
        rule, remedy = f"must have arguments of {name} that are known here", "Name a model without it"
        raise ModelError(f"arch_kwargs in {settings.where}", rule, value=excerpt(", ".join(other)), remedy=remedy)
    stages = given.required_integer("n_stages", least=2, most=_MOST_STAGES)
    norm = _class_name(given, "norm_op", ("InstanceNorm3d", "BatchNorm3d", ""))
    return UNetConfig(
        kind=cast("Any", name),
        features=_counts(given, "features_per_stage", stages, _MOST_FEATURES),
        kernels=_triples(given, "kernel_sizes", stages),
        strides=_triples(given, "strides", stages),
        depths=_counts(given, depths, stages),
        decoder=_counts(given, "n_conv_per_stage_decoder", stages - 1),
        bias=given.flag("conv_bias", default=False),
        norm=cast("Any", norm),
        eps=given.part("norm_op_kwargs").number("eps", 1e-5, above=0.0),
        affine=given.part("norm_op_kwargs").flag("affine", default=norm == "BatchNorm3d"),
        activation=cast("Any", _class_name(given, "nonlin", ("LeakyReLU", "ReLU"))),
        slope=given.part("nonlin_kwargs").number("negative_slope", 0.01),
        activation_first=given.flag("nonlin_first", default=False),
        dropout=given.get("dropout_op") is not None,
    )


def _older_network(settings: UntrustedDict) -> UNetConfig:
    name = settings.text("UNet_class_name")
    _check_class(settings, name)
    depths = settings.list("n_conv_per_stage_encoder")
    stages = len(depths)
    if not 2 <= stages <= _MOST_STAGES:
        raise settings.wrong("n_conv_per_stage_encoder", f"a list of 2 to {_MOST_STAGES} whole numbers")
    base = settings.required_integer("UNet_base_num_features", most=_MOST_FEATURES)
    most = settings.required_integer("unet_max_num_features", most=_MOST_FEATURES)
    return UNetConfig(
        kind=cast("Any", name),
        features=tuple(min(base * 2**stage, most) for stage in range(stages)),
        kernels=_triples(settings, "conv_kernel_sizes", stages),
        strides=_triples(settings, "pool_op_kernel_sizes", stages),
        depths=_counts(settings, "n_conv_per_stage_encoder", stages),
        decoder=_counts(settings, "n_conv_per_stage_decoder", stages - 1),
        bias=True,
        norm="InstanceNorm3d",
        eps=1e-5,
        affine=True,
        activation="LeakyReLU",
        slope=0.01,
    )


def _check_class(settings: UntrustedDict, name: str) -> None:
    if name not in _NETWORKS:
        rule, value = f"must have a network that is one of {', '.join(_NETWORKS)}", excerpt(name) or "none"
        raise ModelError(settings.where, rule, value=value, remedy="Name a model with one of these")


def _class_name(given: UntrustedDict, key: str, known: Sequence[str]) -> str:
    """The last part of a class's name, which must be a known one; the last of those where there is none."""
    name = given.text(key).rpartition(".")[2]
    if name not in known:
        raise given.wrong(key, f"one of {', '.join(one for one in known if one)}")
    return name


def _counts(given: UntrustedDict, key: str, length: int, most: int = _MOST_DEPTH) -> tuple[int, ...]:
    """One whole number for each stage; a single one stands for all."""
    value = given.get(key)
    several = [value] * length if isinstance(value, int) else given.list(key)
    if len(several) != length or not all(isinstance(one, int) and 1 <= one <= most for one in several):
        raise given.wrong(key, f"{length} whole numbers from 1 to {most}")
    return tuple(several)


def _triples(given: UntrustedDict, key: str, length: int) -> tuple[Triple, ...]:
    """Three whole numbers for each stage."""
    value = given.get(key)
    several = [value] * length if isinstance(value, int) else given.list(key)
    if len(several) != length:
        raise given.wrong(key, f"{length} times three whole numbers")
    return tuple(_as_triple(given, key, one, most=32) for one in several)
