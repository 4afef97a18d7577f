"""What the commands print on standard out: plans, outcomes, images, models, as plain text in columns."""

import math
import shlex
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, get_args

from ...model.checkpoints.cards import find_card, shipped_cards
from ...model.vlm.fourkhd.files import SHIPPED, Files
from ...readers.errors import ModelError, excerpt
from ...readers.options import Options, list_options, options_of
from ...readers.overrides import Overrides
from ...readers.plugins import Group, installed
from ..describe import NO_MODEL_SAID, format_pair, image_rows, indent, record_text, table
from ..run.estimate import Estimate, Timing
from ..run.events import plural
from ..run.execute import Prepared
from ..run.model_selection import CARD_ANNOTATOR
from ..run.plan import ImagePlan
from .doctor import weights_state
from .terminal import visible

if TYPE_CHECKING:
    from ..run_result import Run

_ASKED = "4khd:"  # before a checkpoint's name
_REGIONS = "regions to look at"
_MINUTE, _HOUR = 60.0, 3600.0


def describe_run(run: "Run", folder: str) -> str:
    """A run's closing words: findings by label, what became of the area, where the results lie."""
    parts = [record_text(run.record)]
    parts += [visible(f"{row.path} failed: the reason is above and in files.csv") for row in run.failed_files]
    parts.append("Results")
    parts += [visible(f"  {path}") for one in run.made for path in one.paths]
    again = f"Made again at any time by: limner report {shlex.quote(folder)}"
    parts += [visible(again), visible(run.record.use)]
    return "\n".join(parts)


def describe_plan(prepared: Prepared, known: Estimate, *, workers: int) -> str:
    """A plan: each image, what of it is looked at and how, and what that takes by arithmetic."""
    shown = prepared.shown
    parts: list[str] = []
    for image in shown.images:
        parts += [indent(table(_plan_rows(image)), first=image.info.id), ""]
    parts += [visible(f"{row.path}: {row.status}. {row.reason}") for row in shown.files if row.status == "failed"]
    left_out = _counts([row.reason for row in shown.files if row.status == "skipped"])
    parts += [visible(f"{plural(n, 'file')} skipped: {reason}") for reason, n in left_out]
    if prepared.annotator is None:
        parts.append(NO_MODEL_SAID)
    rows = [(_REGIONS, str(known.regions)), ("tiles to look at", str(known.tiles)), *_memory_rows(known)]
    if known.cost is not None and known.cost.tokens:
        rows.append(("tokens a region", f"up to {known.cost.tokens}, those of question and answer among them"))
    rows.append(("workers", str(workers)))
    return "\n".join([*parts, table(rows)])


def describe_time(timing: Timing, *, workers: int) -> str:
    """The last rows of a plan: what could be measured."""
    if timing.seconds is None:
        return f"{'time'.ljust(len(_REGIONS))}  cannot be measured. {timing.how}"
    by = f" with {plural(workers, 'worker')}" if workers > 1 else ""
    rows = [("time".ljust(len(_REGIONS)), f"about {_duration(timing.seconds)} on this machine{by}, {timing.how}")]
    if timing.peak:
        rows.append(("memory measured", f"{_bytes(timing.peak)} on one tile"))
    return table(rows)


def _memory_rows(known: Estimate) -> list[tuple[str, str]]:
    """What a worker holds, and what there is to hold it."""
    cost, place = known.cost, "on this machine"
    said = f"about {_bytes(known.memory)}, by arithmetic"
    rows: list[tuple[str, str]] = []
    if cost is None:
        said += ", the model's own not counted"
    else:
        parts = [(f"weights in {cost.numbers}", cost.weights), ("keys and values", cost.cache)]
        parts += [("activations", cost.activations)]
        of = ", ".join(f"{name} {_bytes(size)}" for name, size in parts if size)
        if cost.device == "cpu":
            said += f": {of}, and pictures and libraries"
        else:
            place = "on all GPUs" if cost.device == "split" else f"on {cost.device}"
            rows.append(("GPU memory a worker", f"about {_bytes(cost.memory)}, by arithmetic: {of}"))
    free = "not known" if known.free is None else f"{_bytes(known.free)} {place}"
    return [("memory a worker", said), *rows, ("memory free", free)]


def describe_models() -> str:
    """The cards that ship and the annotators that are installed."""
    rows = [(name, find_card(name).summary, weights_state(name)) for name in shipped_cards()]
    rows += [(f"{_ASKED}{name}", card.summary, "ships") for name in SHIPPED if (card := Files.find(name).card)]
    others = [(name, f"annotator of {_origin(point)}", "") for name, point in installed("limner.annotators").items()]
    return table([*rows, *others])


def describe_card(name: str) -> str:
    """A model card in full; after "4khd:" that of a checkpoint; and the options of an annotator, also by its name."""
    if name in installed("limner.annotators"):
        return f"{visible(name)}\n{_options_said(name)}"
    if name.startswith(_ASKED):
        return f"{_describe_checkpoint(name)}\n{_options_said(_ASKED.removesuffix(':'))}"
    card = find_card(name)
    size = card.resolution
    rows = [
        ("summary", card.summary),
        ("licence", card.licence),
        ("citation", card.citation),
        ("homepage", card.homepage),
        ("labels", ", ".join(card.labels)),
        ("made for", f"{size.value:g} {size.unit} a pixel, within a factor {size.tolerates:g}"),
        ("tile", f"{card.tile} px, of which a rim of {card.halo} px is not kept"),
        *(("not for", text) for text in card.not_for),
        *(("known mistake", text) for text in card.known_mistakes),
    ]
    for variant in card.variants:
        wants = ", ".join(band if isinstance(band, str) else " or ".join(band) for band in variant.bands)
        rows += [(f"variant {variant.name}", f"{wants} in {variant.quantity}"), ("weights", variant.weights)]
        rows.append(("sha256", variant.sha256))
    return f"{visible(card.name)}\n{table(rows)}\n{_options_said(CARD_ANNOTATOR)}"


def _describe_checkpoint(name: str) -> str:
    card = Files.find(name.removeprefix(_ASKED)).card
    if card is None:
        raise ModelError(name, "it must have a card to show", remedy="Look into its folder, or at its hub's page")
    rows = [
        ("summary", card.summary),
        ("licence", card.licence),
        ("use", card.use),
        ("to be asked", card.asked),
        *(("not for", text) for text in card.not_for),
        *(("known mistake", text) for text in card.known_mistakes),
        *(("data", f"{one.name}, {one.licence}: {one.used}. {one.citation}") for one in card.data),
        *(("measured", f"{m.what}: {m.value:g} ({m.low:g} to {m.high:g}, n = {m.count})") for m in card.measured),
    ]
    return f"{visible(name)}\n{table(rows)}"


def describe_plugins() -> str:
    """Installed readers, annotators and writers, each with the package it comes from and its options."""
    parts: list[str] = []
    for group in get_args(Group):
        for name, point in installed(group).items():
            head = table([(group.removeprefix("limner."), name, point.value, _origin(point))])
            rows = _option_rows(point)
            parts += [head, *([indent(table(rows))] if rows else [])]
    stated = table(_rows_of(Overrides))
    return "\n".join([*parts, "options of every reader", indent(stated)])


def _option_rows(point: EntryPoint) -> list[tuple[str, str, str, str]]:
    """A plug-in's options; one that cannot be imported says why."""
    try:
        return _rows_of(options_of(point.load()))
    except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
        return [("cannot be used", excerpt(str(error)), "", "")]


def _rows_of(model: type[Options]) -> list[tuple[str, str, str, str]]:
    """Name, type, default and what it does."""
    return [
        (row.name, row.type, f"default {row.default}" if row.default else "", row.description)
        for row in list_options(model)
    ]


def _options_said(name: str) -> str:
    """The options of an annotator, as they are set."""
    rows = [(f"model_options.{row[0]}", *row[1:]) for row in _option_rows(installed("limner.annotators")[name])]
    return f"options, such as --set {rows[0][0]}=VALUE\n{indent(table(rows))}" if rows else "it takes no options"


def _plan_rows(image: ImagePlan) -> list[tuple[str, str]]:
    seen = image.analysis_metres
    own = "its own pixels" if image.grid.scale == (1.0, 1.0) else "a slice a tile"
    region = max(image.regions, key=lambda one: one.tiles[0] * one.tiles[1])
    skipped = image.skipped or {}
    many = f"{len(image.regions)} of up to {region.size[0]} × {region.size[1]} px"
    rows = [
        *[row for row in image_rows(image.info) if row[0] != "note"],
        ("seen at", own if seen is None else format_pair(seen, image.info.kind)),
        ("seen as", "RGB" if image.spec.bands is None else ", ".join(image.spec.bands)),
        ("regions", f"{many}, {region.tiles[0]} × {region.tiles[1]} tiles of {image.spec.tile} px"),
        *([("tissue", image.tissue)] if image.tissue else []),
        *(("skipped", f"{plural(n, 'region')}: {reason}") for reason, n in _counts(list(skipped.values()))),
    ]
    if min(image.grid.scale) < 1:
        rows.append(("note", "pixels are enlarged: this shows the model no more than the picture holds"))
    return rows + [("note", note) for note in image.info.notes]


def _counts(reasons: Sequence[str]) -> list[tuple[str, int]]:
    return [(reason, reasons.count(reason)) for reason in sorted(set(reasons))]


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown package"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
