"""How far tiles agree with the same network run on the whole image at once, and what to put beyond its edges.

    python tests/bench/whole_image.py MODEL INPUT [setting=value ...]

MODEL is a card with ONNX weights on this machine, and INPUT an image that fits memory at the card's resolution;
settings are those of a run, for example sensor=sentinel-2-l1c. Printed are

- the share of labelled pixels whose class differs between the run's own tiles, with their statistics fixed, and the
  network as it is on the whole image, away from the picture's edge by the tile's halo and 32 px;
- what a picture's edge costs: the middle of the image is analysed as a picture of its own, once for each rule for
  what lies beyond its edges; the share of labelled pixels in its outer 64 px that the whole image has otherwise.
"""

import json
import sys
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from limner.model.annotator import InputSpec
from limner.model.checkpoints import tile_statistics, weights
from limner.model.checkpoints.cards import CardVariant, ModelCard
from limner.model.checkpoints.onnx import OnnxNetwork
from limner.model.class_maps import draw_labels, fill_invalid
from limner.model.segmentation.annotator import Segmenter
from limner.model.segmentation.stain import Stain
from limner.model.views import core_window, read_canvas, read_view
from limner.pipelines.config import Settings
from limner.pipelines.run.execute import prepare
from limner.pipelines.run.overview_stats import channel_names
from limner.pipelines.run.picture import block_region
from limner.pipelines.run.plan import ImagePlan
from limner.readers.registry import open_image

Values = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]
Rule = Literal["edge", "reflect", "constant"]

STRIDE: Final = 64
EDGE: Final = 64
RULES: Final[tuple[Rule, ...]] = ("edge", "reflect", "constant")
ALIGNED: Final = 32
"""Pixels at the edge of the whole image that do not count beside the halo."""


def tiled_labels(plan: ImagePlan, annotator: Segmenter) -> Labels:
    """The run's labels (H, W): -1 not analysed, 0 background, else the class and 1."""
    width, height = plan.grid.shape
    codes = {label: code for code, label in enumerate(annotator.labels, 1)}
    found = np.full((height, width), -1)
    with open_image(plan.info, channel_names(plan.info, plan.spec, plan.stretch)) as image:
        for region in plan.regions:
            view = read_view(image, region, plan.spec, stretch=plan.stretch, roi=plan.area)
            drawn = draw_labels(annotator.annotate([view])[0], codes, view.keep_mask.shape)
            core, (rows, columns) = core_window(region), (region.rows, region.columns)
            found[rows.core_start : rows.core_stop, columns.core_start : columns.core_stop] = np.where(
                view.keep_mask[core], drawn[core], -1
            )
    return found


def network_input(plan: ImagePlan, variant: CardVariant) -> Values:
    """The whole picture as the network takes it (H, W, C)."""
    with open_image(plan.info, channel_names(plan.info, plan.spec, plan.stretch)) as image:
        pixels, valid = read_canvas(image, block_region(plan.grid, (0, 0, 0), plan.grid.shape), plan.spec, plan.stretch)
    if variant.input == "macenko-ehod":
        pixels = Stain.from_json(json.loads(plan.spec.fitted)["stain"])(pixels)
    mean, std = (np.asarray(one, dtype=np.float32) for one in (variant.mean, variant.std))
    values = ((pixels - mean) / std).astype(np.float32)
    return values if valid.all() else fill_invalid(values, valid)


def whole_labels(values: Values, network: OnnxNetwork, card: ModelCard, beyond: Rule | None = "edge") -> Labels:
    """Labels (H, W) of a picture at once, with `beyond` its edges; None lets the network pad with zeros."""
    height, width = values.shape[:2]
    before = 0 if beyond is None else 2 * EDGE
    after = [before + -side % STRIDE for side in (height, width)]
    values = np.pad(values, ((before, after[0]), (before, after[1]), (0, 0)), mode=beyond or "edge")
    classes = network.segment(values[None])[0][before : before + height, before : before + width].argmax(axis=2)
    codes = np.cumsum([not one.background for one in card.classes])
    return np.where([one.background for one in card.classes], 0, codes)[classes]


def differ(one: Labels, other: Labels, where: npt.NDArray[np.bool_]) -> float:
    """The share of labelled pixels that differ, in percent."""
    labelled = where & (one >= 0) & (other >= 0) & ((one > 0) | (other > 0))
    return 100 * float((labelled & (one != other)).sum()) / max(1, int(labelled.sum()))


def inside(shape: tuple[int, ...], margin: int) -> npt.NDArray[np.bool_]:
    """Where pixels lie at least a margin from the edge."""
    found = np.zeros(shape[:2], dtype=np.bool_)
    found[margin : shape[0] - margin, margin : shape[1] - margin] = True
    return found


def load(card: ModelCard, variant: CardVariant, spec: InputSpec | None) -> OnnxNetwork:
    """The network for pictures of any size, with its statistics fixed as in `spec`, if any."""
    content = weights.read_weights(variant.weights, variant.sha256, name=card.name)
    others = {c.name: weights.read_weights(c.weights, c.sha256, name=card.name) for c in variant.companions}
    if spec is not None:
        content = tile_statistics.freeze(content, tile_statistics.read(spec.fitted), card.name)
    return OnnxNetwork(content, name=card.name, layout=card.layout, companions=others, tile=1)


def main(model: str, path: str, *changes: str) -> None:
    """Print the figures of every image."""
    settings = Settings.resolve({"inputs": [path], "model": model}, changes=changes, file="")
    prepared = prepare(settings)
    assert prepared.choice is not None
    for plan in prepared.plan.images:
        annotator = prepared.choice.make(threads="0")
        assert isinstance(annotator, Segmenter)
        annotator.check([plan.spec])
        annotator.load()
        card = annotator.card
        variant = next(one for one in card.variants if one.name == plan.spec.variant)
        values = network_input(plan, variant)
        shape, margin = values.shape[:2], plan.spec.halo + ALIGNED
        tiled = tiled_labels(plan, annotator)
        as_it_is = whole_labels(values, load(card, variant, None), card, None)
        share = differ(tiled, as_it_is, inside(shape, margin))
        lines = [
            f"{plan.info.id}, {card.name}/{variant.name}: {shape[1]} × {shape[0]} px, {len(plan.regions)} regions",
            f"  tiles of {plan.spec.tile} px against the whole image, from {margin} px on: {share:.3f} %",
        ]
        network = load(card, variant, plan.spec)
        fixed = whole_labels(values, network, card)
        part = [max(0, (side - 2 * EDGE) // STRIDE * STRIDE) for side in shape]
        if min(part) > 2 * EDGE:
            y, x = EDGE, EDGE
            middle = np.s_[y : y + part[0], x : x + part[1]]
            at_edge = ~inside(tuple(part), EDGE)
            for beyond in (None, *RULES):
                found = whole_labels(values[middle], network, card, beyond)
                name = {"edge": "repeated", "reflect": "mirrored", "constant": "the mean", None: "zeros in each layer"}
                cost = differ(np.where(tiled[middle] < 0, -1, found), fixed[middle], at_edge)
                lines.append(f"  beyond the edges {name[beyond]}: {cost:.3f} % of the outer {EDGE} px")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
