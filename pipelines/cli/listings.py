"""Listings of models and plug-ins, as the commands `models` and `plugins` print them."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, EntryPoint
from typing import get_args

from ...model.checkpoints.cards import ModelCard, PatchCard, VolumeCard, find_any_card, shipped_cards
from ...model.checkpoints.weights import locate
from ...model.vlm.fourkhd.checkpoint import SHIPPED, FourKhdFiles
from ...readers.errors import ModelError, excerpt
from ...readers.options import Options, list_options, options_of
from ...readers.plugins import Group, installed
from .terminal import indent, table, visible

FOURKHD = "4khd:"  # prefix of the checkpoints that ship


def models_text() -> str:
    """The cards and checkpoints that ship, and the annotators that are installed."""
    rows = [(name, find_any_card(name).summary, weights_state(name)) for name in shipped_cards()]
    rows += [
        (f"{FOURKHD}{name}", card.summary, "ships with limner")
        for name in SHIPPED
        if (card := FourKhdFiles.find(name).card)
    ]
    rows += [(name, f"annotator of {_package(point)}", "") for name, point in installed("limner.annotators").items()]
    return table(rows)


def model_text(name: str) -> str:
    """A model card, the card of a checkpoint after "4khd:", or an annotator by its name, with the options."""
    if name in installed("limner.annotators"):
        return f"{visible(name)}\n{_options_text(name)}"
    if name.startswith(FOURKHD):
        return f"{_checkpoint_text(name)}\n{_options_text(FOURKHD.removesuffix(':'))}"
    card = find_any_card(name)
    rows = [
        ("summary", card.summary),
        ("licence", card.licence),
        ("citation", card.citation),
        ("homepage", card.homepage),
        ("labels", ", ".join(card.labels)),
        *(("domain", str(part)) for part in card.domain),
        *(("not for", text) for text in card.not_for),
        *(("known error", text) for text in card.known_mistakes),
        *(_segment_rows(card) if isinstance(card, ModelCard) else _volume_rows(card)),
    ]
    return f"{visible(card.name)}\n{table(rows)}\n{_options_text(card.annotator)}"


def _segment_rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    size = card.resolution
    yield "pixel size", f"{size.value:g} {size.unit}, within a factor {size.tolerates:g}"
    yield "tile", f"{card.tile} px, with a halo of {card.halo} px"
    for one in card.tiling:
        between = (
            f", {one.outline_ratio:g} × chance of outline where tiles meet" if one.outline_ratio is not None else ""
        )
        shares = f"{one.changed_percent:g} %, in step with pooling {one.changed_in_step_percent:g} %"
        state = "targets met" if one.met else "targets not met"
        yield f"tiling, {one.image}", f"change of labelled pixels {shares}{between}; {state}"
    for variant in card.variants:
        bands = ", ".join(band if isinstance(band, str) else " or ".join(band) for band in variant.bands)
        yield f"variant {variant.name}", f"{bands} in {variant.quantity}"
        yield from (("weights", variant.weights), ("sha256", variant.sha256))


def _volume_rows(card: VolumeCard | PatchCard) -> Iterator[tuple[str, str]]:
    if isinstance(card, PatchCard):
        spacing = " × ".join("the stack's" if one is None else f"{one:g}" for one in card.spacing)
        yield "network", f"{card.format}, axes {card.orientation}, voxels of {spacing} mm"
        yield "patch", f"{' × '.join(map(str, card.patch))} voxels, overlapping by {card.overlap:g}"
    else:
        yield "method", card.method
        yield "extent", f"{card.extent_mm[0]:g} to {card.extent_mm[1]:g} mm along each axis"
        for one in card.measured:
            yield "measured", f"{one.what}: {one.value:g} {one.unit}".rstrip()
    for file in card.files:
        yield from ((f"weights {file.name}", file.weights), ("sha256", file.sha256))


def _checkpoint_text(name: str) -> str:
    card = FourKhdFiles.find(name.removeprefix(FOURKHD)).card
    if card is None:
        raise ModelError(name, "must have a model card", remedy="See the files in its folder, or its page on the hub")
    rows = [
        ("summary", card.summary),
        ("licence", card.licence),
        ("use", card.use),
        ("prompts", card.asked),
        *(("domain", str(part)) for part in card.domain),
        *(("not for", text) for text in card.not_for),
        *(("known error", text) for text in card.known_mistakes),
        *(("data", f"{data.name}, {data.licence}: {data.used}. {data.citation}") for data in card.data),
        *(("measured", f"{m.what}: {m.value:g} ({m.low:g} to {m.high:g}, n = {m.count})") for m in card.measured),
    ]
    return f"{visible(name)}\n{table(rows)}"


def weights_state(name: str) -> str:
    """Which of a card's weights are on this machine. Uses no network."""
    card = find_any_card(name)
    here: list[str] = []
    missing: list[str] = []
    for network, files in card.weight_files.items():
        try:
            for file in files:
                locate(file.weights, file.sha256, fetch=False, name=card.name)
            here.append(network)
        except ModelError:
            missing.append(network)
    state = f"on this machine: {', '.join(here) or 'none'}"
    return state + (f"; missing: {', '.join(missing)} (limner models fetch {name})" if missing else "")


def plugins_text() -> str:
    """Installed readers, annotators and writers, each with its package and its options."""
    from ...readers.overrides import Overrides

    parts: list[str] = []
    for group in get_args(Group):
        for name, point in installed(group).items():
            head = table([(group.removeprefix("limner."), name, point.value, _package(point))])
            rows = _plugin_option_rows(point)
            parts += [head, *([indent(table(rows))] if rows else [])]
    return "\n".join([*parts, "options of every reader", indent(table(_option_rows(Overrides)))])


def _plugin_option_rows(point: EntryPoint) -> list[tuple[str, str, str, str]]:
    """A plug-in's options, or why it cannot be imported."""
    try:
        return _option_rows(options_of(point.load()))
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        return [("cannot be used", excerpt(str(error)), "", "")]


def _option_rows(model: type[Options]) -> list[tuple[str, str, str, str]]:
    """Name, type, default and description."""
    return [
        (row.name, row.type, f"default {row.default}" if row.default else "", row.description)
        for row in list_options(model)
    ]


def _options_text(name: str) -> str:
    """The options of an annotator, with the keys that set them."""
    point = installed("limner.annotators").get(name)
    if point is None:
        return f"needs the annotator {name}, which is not installed"
    rows = [(f"model_options.{row[0]}", *row[1:]) for row in _plugin_option_rows(point)]
    return f"options, such as --set {rows[0][0]}=VALUE\n{indent(table(rows))}" if rows else "no options"


def _package(point: EntryPoint) -> str:
    return "unknown package" if point.dist is None else _release(point.dist)


@cache
def _release(distribution: Distribution) -> str:
    """Its name and version, which are parsed each time that they are asked for."""
    return f"{distribution.name} {distribution.version}"
