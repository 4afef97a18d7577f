"""The `segment` annotator: a semantic-segmentation network sees native bands, and its class map becomes areas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError
from ...readers.image import ImageInfo, Mask, Pixels
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints import onnx, weights
from ..checkpoints.cards import CardVariant, ModelCard, find_card, shipped_cards, shipped_digests
from ..checkpoints.memory import file_bytes
from ..class_maps import ClassScores, class_map_to_polygons, fill_invalid
from ..options import NetworkOptions
from ..scores import sigmoid, softmax
from .stain import Stain, fit_stain

DEFAULT = "csmask"


class SegmenterOptions(NetworkOptions):
    """Options of `Segmenter`."""

    model: str = Field(default=DEFAULT, min_length=1, description="A shipped model card's name, or a card's path.")


class Segmenter:
    """An annotator that a model card describes. Raises `ModelError` for a card that is not one."""

    Options = SegmenterOptions

    def __init__(self, options: SegmenterOptions) -> None:
        self._options = options
        self.card: ModelCard = find_card(options.model)
        self._variants = {variant.name: variant for variant in self.card.variants}
        self._checked: tuple[CardVariant, ...] = ()
        self._networks: dict[str, onnx.OnnxNetwork] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """The card and everything in it that decides answers, with the runtime."""
        return {
            "name": self.card.name,
            "version": f"card {self.card.digest[:12]}",
            "annotator": "segment",
            "card_sha256": self.card.digest,
            "licence": self.card.licence,
            "runtime": onnx.runtime(),
            **{f"weights_sha256_{variant.name}": variant.sha256 for variant in self.card.variants},
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The card's classes, without background."""
        return self.card.labels

    @property
    def colours(self) -> Mapping[str, str]:
        """The card's colours."""
        return {kind.name: kind.colour for kind in self.card.classes}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The bands of the first variant that the image has, in the quantity it needs.

        Raises `ModelError` that says which bands are missing, or what is not known of the numbers.
        """
        quantities = {c.common: c.quantity for c in reversed(info.channels) if c.common}
        for variant in self.card.variants:
            bands = _choose(variant, quantities)
            depths = {c.dtype for c in info.channels if c.common in bands}
            if variant.input == "macenko-ehod" and depths and depths != {"uint8"}:
                raise ModelError(
                    f"{info.id or info.uri} with model {self.card.name}",
                    "stains are told apart in colours of 8 bits",
                    value=", ".join(sorted(depths)),
                    remedy="Choose another model",
                )
            if None not in bands and {quantities[band] for band in bands if band} == {variant.quantity}:
                return InputSpec(
                    tile=self.card.tile,
                    halo=self.card.halo,
                    bands=tuple(band for band in bands if band) if variant.input == "bands" else None,
                    quantity=variant.quantity if variant.input == "bands" else "",
                    resolution=self.card.resolution.value,
                    unit=self.card.resolution.unit,
                    tolerates=self.card.resolution.tolerates,
                    variant=variant.name,
                )
        raise self._cannot_see(info, quantities)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find and check the weights that those specs need; a stranger's are tried out. Raises `ModelError`."""
        self._checked = tuple(self._variants[name] for name in sorted({spec.variant for spec in specs}))
        for variant in self._checked:
            found, *others = self._files([variant], fetch=self._options.fetch)
            if not {part.sha256 for part in (variant, *variant.companions)} <= shipped_digests():
                names = [part.name for part in variant.companions]
                onnx.try_out(
                    found,
                    layout=self.card.layout,
                    tile=self.card.tile,
                    channels=len(variant.bands),
                    beside=dict(zip(names, others, strict=True)),
                )

    def load(self) -> None:
        """Load the networks of the variants that were checked. Raises `ModelError`."""
        for variant in self._checked:
            self._network(variant)

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`. Files are held beside the networks that are made of them."""
        variants = [self._variants[name] for name in sorted({spec.variant for spec in specs})]
        held = file_bytes(self._files(variants, fetch=False))
        return Cost(held, "their own type", work=tiles[0] * tiles[1], loading=2 * held)

    def fit(
        self,
        spec: InputSpec,
        overview: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
    ) -> InputSpec:
        """See `Fitting`: the slide's stains, where the card asks for them."""
        if self._variants[spec.variant].input == "bands":
            return spec
        return replace(spec, fitted=json.dumps(fit_stain(overview, tissue, valid).to_json()))

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The areas of each view. Raises `ModelError`."""
        return [self._areas(view) for view in views]

    def _areas(self, view: View) -> list[Answer]:
        variant = self._variants[view.spec.variant]
        _check_range(view, variant, self.card.name)
        network = self._network(variant)
        mean = np.asarray(variant.mean, dtype=np.float32)
        std = np.asarray(variant.std, dtype=np.float32)

        def see(tile: Pixels, valid: Mask) -> ClassScores:
            shown = (self._stained(tile, view.spec, variant) - mean) / std
            if not valid.all():
                shown = (
                    fill_invalid(shown, valid)
                    if self.card.fill == "nearest"
                    else np.where(valid[..., None], shown, 0.0)
                )
            return network(shown[None])[0]

        return class_map_to_polygons(
            view,
            see,
            self._probabilities,
            classes=[kind.name for kind in self.card.classes],
            background=[i for i, kind in enumerate(self.card.classes) if kind.background],
            network=f"{self.card.name}/{variant.name}",
        )

    def _stained(self, tile: npt.NDArray[Any], spec: InputSpec, variant: CardVariant) -> npt.NDArray[np.float32]:
        """A tile as the variant wants it: bands as they are, or red, green and blue as stains."""
        if variant.input == "bands":
            return tile
        if not spec.fitted:
            msg = f"model {self.card.name} must be fitted to the overview before it is shown a tile"
            raise ValueError(msg)
        return Stain.from_json(json.loads(spec.fitted))(tile)

    def _probabilities(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.card.output == "probabilities":
            return values
        return softmax(values) if self.card.output == "logits" else sigmoid(values)

    def _files(self, variants: Sequence[CardVariant], *, fetch: bool) -> list[Path]:
        """The files of variants, each after that of the network those of its companions, with the card's hashes."""
        parts = [part for variant in variants for part in (variant, *variant.companions)]
        return [weights.locate(part.weights, part.sha256, fetch=fetch, name=self.card.name) for part in parts]

    def _network(self, variant: CardVariant) -> onnx.OnnxNetwork:
        if variant.name not in self._networks:
            if variant not in self._checked:
                self.check([InputSpec(tile=self.card.tile, variant=variant.name)])
            self._networks[variant.name] = onnx.OnnxNetwork(
                weights.read(variant.weights, variant.sha256, name=self.card.name),
                name=f"{self.card.name}/{variant.name}",
                layout=self.card.layout,
                threads=self._options.threads,
                beside={c.name: weights.read(c.weights, c.sha256, name=self.card.name) for c in variant.companions},
            )
        return self._networks[variant.name]

    def _cannot_see(self, info: ImageInfo, quantities: Mapping[str, str]) -> ModelError:
        """Why no variant can work on an image, and what would do."""
        subject = f"{info.id or info.uri} with model {self.card.name}"
        complete = [v for v in self.card.variants if None not in _choose(v, quantities)]
        if not complete:
            least = min(self.card.variants, key=lambda v: len(v.bands))
            lacking = [
                _say(want) for want, band in zip(least.bands, _choose(least, quantities), strict=True) if not band
            ]
            return ModelError(
                subject,
                f"the image must have the bands {', '.join(_say(want) for want in least.bands)}; "
                f"missing: {', '.join(lacking)}",
                value=", ".join(quantities) or f"{len(info.channels)} channels of which none is named",
                remedy="State the sensor with --sensor or name the channels with --bands, or choose another model",
            )
        known = sorted({quantities[band] for band in _choose(complete[0], quantities) if band})
        needed = sorted({variant.quantity for variant in self.card.variants})
        if "number" in known:
            remedy = "State the sensor and its level with --sensor, for example --sensor sentinel-2-l1c"
        else:
            able = [n for n in shipped_cards() if any([v.quantity] == known for v in find_card(n).variants)]
            remedy = f"Choose a model made for that: {', '.join(able) or 'none is shipped'}"
        return ModelError(subject, f"its values must be {' or '.join(needed)}", value=", ".join(known), remedy=remedy)


def _choose(variant: CardVariant, has: Mapping[str, str]) -> list[str | None]:
    """For each band of a variant, the name under which the image has it, or None."""
    wants = [(band,) if isinstance(band, str) else band for band in variant.bands]
    return [next((name for name in names if name in has), None) for names in wants]


def _say(band: str | tuple[str, ...]) -> str:
    return band if isinstance(band, str) else " or ".join(band)


def _check_range(view: View, variant: CardVariant, name: str) -> None:
    """Refuse numbers that cannot be what they are said to be: most valid values lie outside the variant's range."""
    values = view.tiles[view.valid]
    low, high = variant.valid_range
    if values.size and np.mean((values < low) | (values > high)) > 0.5:
        raise ModelError(
            f"{view.region.key} with model {name}",
            f"values of {variant.quantity} must lie between {low:g} and {high:g}",
            value=f"median {np.median(values):g}",
            remedy="Check the file's scale and offset, or state the right sensor with --sensor",
        )
