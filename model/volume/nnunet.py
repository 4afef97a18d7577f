"""Segment volumes with nnU-Net v2: its folders of trained networks, which TotalSegmentator's weights are too.

    slices ─▶ turned to the training's axes ─▶ cropped ─▶ normalised ─▶ resampled ─▶ patches ─▶ logits
    label maps ◀── turned back ◀── in the whole ◀── labels ◀───── resampled row by row ◀──────────┘

Held are each fold's logits of as many rows as a patch has, in float16 as nnU-Net's own. The voxels of the series, two
bytes each where they are whole numbers, else four, and their labels, one byte each, are on disk.
"""

# torch's types do not cover what is used here:
# pyright: reportUnknownMemberType=false

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from ...readers.errors import ModelError
from ...readers.image import ImageInfo
from ...readers.scratch import scratch_array
from ..annotator import TORCH_BYTES, Cost
from ..checkpoints.memory import memory_errors
from ..checkpoints.untrusted import wrap_errors
from ..checkpoints.weights import sha256_of
from ..domain import Domain
from ..probabilities import LabelProbabilities
from .answers import CHUNK, Decision, label_rows, over_half
from .intensity import Normaliser, hold
from .nnunet_checkpoint import Checkpoint, check_shapes, read_checkpoint
from .nnunet_plans import DATASET, PLANS, NnUNetConfig
from .options import FolderOptions
from .orientation import AxesTriple, Turn, closest_axes, stacked_upwards
from .resampling import Resampler, Resampling, RowCache, new_shape
from .sliding import Patches, even_starts, nnunet_importance, slide
from .unet import UNet
from .volume import LabelMap, Volume

STEP: Final = 0.5
"""Of a patch, between neighbours: nnU-Net's default."""
_MOST_HALF: Final = 65504.0
_ALLOCATORS: Final = 0.12 * 2**30  # bytes that they keep of what is freed: measured
AIR: Final = -1024.0
"""HU of voxels of CT that are not valid."""


class NnUNet:
    """A trained configuration of nnU-Net v2 as a `VolumeModel`."""

    def __init__(self, config: NnUNetConfig, options: FolderOptions) -> None:
        self.config = config
        self._options = options
        self._networks: list[UNet] = []

    @property
    def identity(self) -> Mapping[str, str]:
        """See `VolumeModel`. Raises `ModelError` where a file cannot be read."""
        config = self.config
        digests = {f"fold_{fold}": sha256_of(config.checkpoint(fold)) for fold in config.folds}
        small = {name: sha256_of(config.folder / name) for name in (PLANS, DATASET)}
        whole = hashlib.sha256("".join(f"{k} {v}\n" for k, v in {**small, **digests}.items()).encode())
        stated = {"flips": str(self._options.flips).lower()} if self._options.flips else {}
        stated |= {} if self._options.step is None else {"step": f"{self._options.step:g}"}
        return {
            "name": f"nnU-Net {config.dataset}",
            "version": f"checkpoint {whole.hexdigest()[:12]}",
            "checkpoint": config.source,
            "configuration": config.configuration,
            "folds": ",".join(config.folds),
            "orientation": config.orientation or "of the series",
            "licence": config.licence,
            **{f"weights_sha256_{name}": digest for name, digest in digests.items()},
            **{f"sha256_{name}": digest for name, digest in small.items()},
            **stated,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """See `VolumeModel`."""
        return self.config.labels.names

    @property
    def colours(self) -> Mapping[str, str]:
        """No colours of its own."""
        return {}

    @property
    def domain(self) -> Sequence[Domain]:
        """See `VolumeModel`."""
        return self.config.domain

    @property
    def gives_probabilities(self) -> bool:
        """See `VolumeModel`: always."""
        return True

    def suits(self, info: ImageInfo) -> None:
        """Any stack that is a volume suits."""

    def check(self) -> None:
        """Read the checkpoints and compare them with the plans. Raises `ModelError`."""
        _ = self._checkpoints

    def load(self) -> None:
        """Load the network of each fold. Raises `ModelError`, `MemoryError`."""
        if self._networks:
            return
        if self._options.threads:
            torch.set_num_threads(self._options.threads)
        rule, remedy = "must load into its network", "Get the file again"
        with wrap_errors(f"checkpoint {self.config.source}", rule, remedy=remedy, running=True), memory_errors():
            for checkpoint in self._checkpoints.values():
                network = UNet(self.config.network, 1, self.config.labels.heads).eval()
                network.load_state_dict(dict(checkpoint.weights), strict=True)
                self._networks.append(network)

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `VolumeModel`; slices are read once, in order, before the first is answered."""
        self.load()
        config = self.config
        turn = turn_of(volume, config).then(config.transpose)
        held = hold(volume, fill=AIR if config.scheme == "CTNormalization" else 0.0)
        labels = scratch_array(volume.shape)
        box = held.box(turn)
        in_order = turn.order[0] == 0 and not turn.flips[0]
        given = 0
        if box is not None:
            voxels, answers = turn.apply(held.voxels)[box], turn.apply(labels)[box]
            spacing = [float(np.float32(one)) for one in volume.spacing]  # as files of NIfTI have it
            kept = volume.probabilities and volume.probabilities.turned(turn).within(box)
            rows = self._label_rows(voxels, turn.values(spacing), kept)
            for number, row in enumerate(rows):
                answers[number] = row
                while in_order and given <= box[0].start + number:
                    yield labels[given]
                    given += 1
        yield from labels[given:]

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Cost | None:
        """See `VolumeModel`; as if the slices were axial, and measured on such: see docs/figures.md."""
        config = self.config
        order = config.transpose
        source = shape[order[0]], shape[order[1]], shape[order[2]]
        sides = new_shape(source, [spacing[axis] for axis in order], config.spacing)
        patches = self._patches(sides)
        depth, height, width = (max(pair) for pair in zip(sides, config.patch, strict=True))
        depth = config.patch[0]
        patch = math.prod(config.patch)
        with torch.device("meta"):
            network = UNet(config.network, 1, config.labels.heads)
        numbers = sum(part.numel() for part in network.parameters()) * len(config.folds)
        logits = 2.0 * len(config.folds) * config.labels.heads * depth * height * width
        band = 8.0 * height * width * (depth * source[0] / sides[0] + 60) + 12.0 * depth * height * width
        running = 4.0 * patch * (9 * config.network.features[0] + 3 * config.labels.heads)
        back = 30.0 * max(CHUNK, source[1] * source[2])
        work = float(patches.count * patch * numbers * 2 ** len(self._mirrored))
        return Cost(
            weights=4.0 * numbers,
            dtype="float32",
            work=work,
            activations=_ALLOCATORS + logits + band + max(running, back),
            libraries=TORCH_BYTES,
        )

    @cached_property
    def _checkpoints(self) -> Mapping[str, Checkpoint]:
        found = {fold: read_checkpoint(self.config, fold) for fold in self.config.folds}
        for fold, checkpoint in found.items():
            check_shapes(self.config, checkpoint.weights, fold)
        stated = {fold: one.mirrored for fold, one in found.items()}
        if self._options.flips and (len(set(stated.values())) > 1 or () in stated.values()):
            rule = "must allow its patches to be mirrored, for the option flips"
            value = "; ".join(
                f"fold {fold}: axes {', '.join(map(str, axes)) or 'none'}" for fold, axes in stated.items()
            )
            raise ModelError(f"checkpoint {self.config.source}", rule, value=value, remedy="Leave out flips")
        return found

    @property
    def _mirrored(self) -> tuple[int, ...]:
        """Axes along which patches are mirrored."""
        return next(iter(self._checkpoints.values())).mirrored if self._options.flips else ()

    def _patches(self, shape: AxesTriple) -> Patches:
        step = STEP if self._options.step is None else self._options.step
        first, second, third = (even_starts(*pair, step) for pair in zip(shape, self.config.patch, strict=True))
        return Patches(self.config.patch, (first, second, third), nnunet_importance(self.config.patch))

    def _label_rows(
        self,
        voxels: npt.NDArray[np.generic],
        spacing: tuple[float, float, float],
        probabilities: LabelProbabilities | None,
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The labels of each row of the cropped voxels, on the network's axes: see `label_rows`."""
        config = self.config
        source = voxels.shape[0], voxels.shape[1], voxels.shape[2]
        target = new_shape(source, spacing, config.spacing)
        normal = Normaliser(voxels, config.scheme, masked=config.masked, intensities=config.intensities)
        plan = Resampling.plan(source, target, config.data, (spacing, config.spacing))
        resampler = Resampler(plan, normal.bounds(plan.alone) if plan.clipped else None)
        cache = RowCache(resampler, lambda first, last: torch.from_numpy(normal.rows(first, last)))
        back = Resampler(Resampling.plan(target, source, config.logits, (config.spacing, spacing)))
        logits = map(self._average, slide(cache.read, target, self._patches(target), self._logits))
        labels = config.labels
        decision = (
            Decision(labels.regions, over_half, torch.sigmoid)
            if labels.regions
            else Decision(tuple(range(labels.heads)), to_probabilities=_softmax)
        )
        return label_rows(logits, back, decision, f"checkpoint {config.source}", probabilities)

    def _logits(self, patch: torch.Tensor) -> torch.Tensor:
        """The logits of a patch by each fold in turn, (folds · classes, …), averaged over the mirror images."""
        axes = [axis + 2 for axis in self._mirrored]
        mirrors = [some for count in range(len(axes) + 1) for some in combinations(axes, count)]
        found: list[torch.Tensor] = []
        for network in self._networks:
            answers = (network(patch.flip(some)).flip(some) if some else network(patch) for some in mirrors)
            total = next(answers)
            for answer in answers:
                total += answer
            found.append((total / len(mirrors))[0])
        logits = torch.cat(found) if len(found) > 1 else found[0]
        if not bool(torch.isfinite(logits).all()):
            msg = "its logits are not finite numbers"
            raise ValueError(msg)
        return logits

    def _average(self, row: torch.Tensor) -> torch.Tensor:
        """The mean over the folds of a row of their logits, in its own number type as nnU-Net takes it."""
        first, *others = row.chunk(len(self._networks))
        for other in others:
            first = first + other
        return first / len(self._networks) if others else first


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    """Of logits (classes, height, width), some of which may be beyond the half precision that they were held in."""
    return logits.nan_to_num(posinf=_MOST_HALF, neginf=-_MOST_HALF).softmax(dim=0)


def turn_of(volume: Volume, config: NnUNetConfig) -> Turn:
    """The turn of a volume to the axes z, y and x of the training. Raises `ModelError` for an unknown orientation."""
    if not config.orientation:
        return stacked_upwards(volume.affine)
    try:
        return closest_axes(volume.affine, config.orientation)
    except ValueError as error:
        rule, remedy = "must be three directions such as SAR", "Correct the option orientation"
        raise ModelError(f"orientation {config.orientation!r}", rule, remedy=remedy) from error
