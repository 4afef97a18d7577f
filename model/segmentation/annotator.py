"""The `segment` annotator: a semantic-segmentation network with a model card, on native bands."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError
from ...readers.image import ImageInfo, Mask, Pixels
from ..annotator import Answer, Cost, InputSpec, ReadPicture, View
from ..checkpoints import onnx, tile_statistics, weights
from ..checkpoints.cards import CardVariant, ModelCard, find_card, shipped_digests, shipped_model_cards
from ..checkpoints.memory import file_bytes
from ..checkpoints.untrusted import MIB
from ..class_maps import ClassScores, class_map_bytes, class_map_to_polygons, fill_invalid
from ..domain import Domain
from ..options import SegmentationOptions
from ..scores import sigmoid, softmax
from ..tiling import sample_tiles
from .stain import Stain, fit_stain

DEFAULT = "csmask"
_SAMPLED, _FEW = 4, 1000  # every so many-th pixel shows which quantity a view has, if that gives so many values


class SegmenterOptions(SegmentationOptions):
    """Options of `Segmenter`."""

    model: str = Field(default=DEFAULT, min_length=1, description="A shipped model card's name, or a card's path.")


class Segmenter:
    """An annotator with a model card. Raises `ModelError` for an invalid card."""

    Options = SegmenterOptions

    def __init__(self, options: SegmenterOptions) -> None:
        self._options = options
        self.card: ModelCard = find_card(options.model)
        self._variants = {variant.name: variant for variant in self.card.variants}
        self._checked: tuple[CardVariant, ...] = ()
        self._fitted: dict[str, str] = {}
        self._tile_bytes = {variant.name: variant.tile_mib * MIB for variant in self.card.variants}
        self._networks: dict[str, tuple[str, onnx.OnnxNetwork]] = {}

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
            **self._options.identity,
            **({"tiling": note} if (note := self.card.tiling_note) else {}),
            **{f"weights_sha256_{variant.name}": variant.sha256 for variant in self.card.variants},
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The card's classes, without background."""
        return self.card.labels

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """The card's codes."""
        return self.card.concepts

    @property
    def gives_probabilities(self) -> bool:
        """See `SupportsProbabilities`: always."""
        return True

    @property
    def domain(self) -> Sequence[Domain]:
        """The card's."""
        return self.card.domain

    @property
    def colours(self) -> Mapping[str, str]:
        """The card's colours."""
        return {one.name: one.colour for one in self.card.classes}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The bands of the first variant that the image has, in the quantity it needs.

        Raises `ModelError` that names the missing bands, or the quantity.
        """
        quantities = {c.common: c.quantity for c in reversed(info.channels) if c.common}
        for variant in self.card.variants:
            bands = _choose_bands(variant, quantities)
            dtypes = {c.dtype for c in info.channels if c.common in bands}
            eight_bits = {"uint8", "uint16"} if info.kind == "slide" else {"uint8"}  # a slide's keep their proportions
            if variant.input == "macenko-ehod" and not dtypes <= eight_bits:
                subject, rule = self._on(info.id or info.uri), "must have 8-bit colours, of which stains are separated"
                raise ModelError(subject, rule, value=", ".join(sorted(dtypes)), remedy="Choose another model")
            if None not in bands and {quantities[band] for band in bands if band} == {variant.quantity}:
                native = variant.input == "bands"
                return InputSpec(
                    tile=self.card.tile,
                    halo=self.card.halo,
                    bands=tuple(band for band in bands if band) if native else None,
                    quantity=variant.quantity if native else "",
                    value_range=variant.valid_range if native else None,
                    resolution=self.card.resolution.value,
                    unit=self.card.resolution.unit,
                    tolerates=self.card.resolution.tolerates,
                    variant=variant.name,
                    overlap=self.card.tile if self._options.blend else 0,
                )
        raise self._no_variant(info, quantities)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find and verify the weights that those specs need; untrusted ones run in a sandbox. Raises `ModelError`."""
        self._fitted = {spec.variant: spec.fitted for spec in reversed(specs)}
        self._checked = tuple(self._variants[name] for name in sorted(self._fitted))
        for variant in self._checked:
            path, *others = self._files([variant], fetch=self._options.fetch)
            if not {part.sha256 for part in (variant, *variant.companions)} <= shipped_digests():
                names = [part.name for part in variant.companions]
                self._tile_bytes[variant.name] = onnx.try_in_sandbox(
                    path,
                    layout=self.card.layout,
                    tile=self.card.tile,
                    channels=len(variant.bands),
                    companions=dict(zip(names, others, strict=True)),
                )

    def load(self) -> None:
        """Load the networks of the variants that were checked, for the first image of each. Raises `ModelError`."""
        for variant in self._checked:
            self._network(variant, self._fitted[variant.name])

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`. A network keeps the memory of its largest tile."""
        variants = [self._variants[name] for name in sorted({spec.variant for spec in specs})]
        size = file_bytes(self._files(variants, fetch=False))
        maps = class_map_bytes(specs, tiles, classes=len(self.card.classes), averaging=self._options.averaging)
        maps += sum(self._tile_bytes[variant.name] for variant in variants)
        return onnx.cost(size, maps, tiles)

    def fit(
        self,
        spec: InputSpec,
        overview: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
    ) -> InputSpec:
        """See `SupportsFit`: the slide's stains, where the card asks for them."""
        if self._variants[spec.variant].input == "bands":
            return spec
        return replace(spec, fitted=json.dumps({"stain": fit_stain(overview, tissue, valid).to_json()}))

    def fit_picture(self, spec: InputSpec, read: ReadPicture) -> InputSpec:
        """See `SupportsPictureFit`: the statistics over a tile in the network, measured on the whole image."""
        variant = self._variants[spec.variant]
        name, content = self._named(variant), self._content(variant)
        if self._options.normalise == "tile" or not tile_statistics.find(content, name):
            return spec
        pixels, valid = read()
        statistics = tile_statistics.measure(
            content,
            self._input(variant, spec.fitted)(pixels, valid),
            tile=spec.tile,
            layout=self.card.layout,
            name=name,
            companions=self._companions(variant),
        )
        return replace(spec, fitted=tile_statistics.add(statistics, spec.fitted))

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The areas of each view. Raises `ModelError`."""
        return [self._annotate(view) for view in views]

    def _annotate(self, view: View) -> list[Answer]:
        variant = self._variants[view.spec.variant]
        self._check_range(view, variant)
        network, to_input = self._network(variant, view.spec.fitted), self._input(variant, view.spec.fitted)

        def segment(tile: Pixels, valid: Mask) -> ClassScores:
            return network.segment(to_input(tile, valid)[None])[0]

        return class_map_to_polygons(
            view,
            segment,
            self._probabilities,
            classes=[one.name for one in self.card.classes],
            background=[i for i, one in enumerate(self.card.classes) if one.background],
            network=self._named(variant),
            averaging=self._options.averaging,
        )

    def _input(self, variant: CardVariant, fitted: str) -> Callable[[Pixels, Mask], ClassScores]:
        """What makes the network's input (H, W, C) of pixels (H, W, C) and their validity (H, W)."""
        mean, std = (np.asarray(values, dtype=np.float32)[:, None, None] for values in (variant.mean, variant.std))
        stain: Stain | None = None
        if variant.input == "macenko-ehod":
            if not fitted:
                msg = f"model {self.card.name} must be fitted to the overview before it annotates"
                raise ValueError(msg)
            stain = Stain.from_json(json.loads(fitted)["stain"])

        def to_input(pixels: Pixels, valid: Mask) -> ClassScores:
            source = (pixels if stain is None else stain(pixels)).transpose(2, 0, 1)
            planes = np.empty(source.shape, dtype=np.float32)  # as most networks take them
            np.divide(np.subtract(source, mean, out=planes), std, out=planes)
            values: ClassScores = planes.transpose(1, 2, 0)
            if valid.all():
                return values
            return (
                fill_invalid(values, valid) if self.card.fill == "nearest" else np.where(valid[..., None], values, 0.0)
            )

        return to_input

    def _probabilities(self, values: ClassScores) -> ClassScores:
        if self.card.output == "probabilities":
            return values
        return softmax(values) if self.card.output == "logits" else sigmoid(values)

    def _files(self, variants: Sequence[CardVariant], *, fetch: bool) -> list[Path]:
        """The files of variants, each network's followed by its companions', with the card's hashes."""
        parts = [part for variant in variants for part in (variant, *variant.companions)]
        return [weights.locate(part.weights, part.sha256, fetch=fetch, name=self.card.name) for part in parts]

    def _network(self, variant: CardVariant, fitted: str) -> onnx.OnnxNetwork:
        """The network of a variant as fitted to an image; that for the image before is let go."""
        if self._networks.get(variant.name, ("", None))[0] != fitted or variant.name not in self._networks:
            self._networks.pop(variant.name, None)
            name = self._named(variant)
            network = onnx.OnnxNetwork(
                tile_statistics.freeze(self._content(variant), tile_statistics.read(fitted), name),
                name=name,
                layout=self.card.layout,
                threads=self._options.threads,
                companions=self._companions(variant),
                tile=self.card.tile,
            )
            self._networks[variant.name] = fitted, network
        return self._networks[variant.name][1]

    def _content(self, variant: CardVariant) -> bytes:
        if variant not in self._checked:
            self.check([InputSpec(tile=self.card.tile, variant=variant.name)])
        return weights.read_weights(variant.weights, variant.sha256, name=self.card.name)

    def _companions(self, variant: CardVariant) -> dict[str, bytes]:
        return {c.name: weights.read_weights(c.weights, c.sha256, name=self.card.name) for c in variant.companions}

    def _named(self, variant: CardVariant) -> str:
        return f"{self.card.name}/{variant.name}"

    def _on(self, image: str) -> str:
        return f"{image} with model {self.card.name}"

    def _no_variant(self, info: ImageInfo, quantities: Mapping[str, str]) -> ModelError:
        """The error of an image that suits no variant, with a remedy."""
        subject = self._on(info.id or info.uri)
        complete = [v for v in self.card.variants if None not in _choose_bands(v, quantities)]
        if not complete:
            least = min(self.card.variants, key=lambda v: len(v.bands))
            names = [band if isinstance(band, str) else " or ".join(band) for band in least.bands]
            chosen = _choose_bands(least, quantities)
            missing = [name for name, band in zip(names, chosen, strict=True) if not band]
            return ModelError(
                subject,
                f"must have the bands {', '.join(names)}; missing: {', '.join(missing)}",
                value=", ".join(quantities) or f"{len(info.channels)} channels of which none is named",
                remedy="State the sensor with --sensor or name the channels with --bands, or choose another model",
            )
        found = sorted({quantities[band] for band in _choose_bands(complete[0], quantities) if band})
        needed = sorted({variant.quantity for variant in self.card.variants})
        if "number" in found:
            remedy = "State the sensor and its level with --sensor, for example --sensor sentinel-2-l1c"
        else:
            able = [c.name for c in shipped_model_cards() if any([v.quantity] == found for v in c.variants)]
            remedy = f"Choose a model made for that: {', '.join(able) or 'none is shipped'}"
        return ModelError(subject, f"must have values of {' or '.join(needed)}", value=", ".join(found), remedy=remedy)

    def _check_range(self, view: View, variant: CardVariant) -> None:
        """Refuse a wrong quantity: most valid values of a sample lie outside the variant's range."""
        low, high = variant.valid_range
        values = sample_tiles(view.tiles, _SAMPLED)[sample_tiles(view.valid, _SAMPLED)]
        if len(values) < _FEW:
            values = sample_tiles(view.tiles, 1)[sample_tiles(view.valid, 1)]
        if 2 * np.count_nonzero((values >= low) & (values <= high)) >= values.size:  # not where a value is NaN
            return
        raise ModelError(
            self._on(view.region.key),
            f"must have values of {variant.quantity} between {low:g} and {high:g}",
            value=f"median {np.median(values):g}",
            remedy="Check the file's scale and offset, or state the right sensor with --sensor",
        )


def _choose_bands(variant: CardVariant, has: Mapping[str, str]) -> list[str | None]:
    """For each band of a variant, the name under which the image has it, or None."""
    choices = [(band,) if isinstance(band, str) else band for band in variant.bands]
    return [next((name for name in names if name in has), None) for names in choices]
