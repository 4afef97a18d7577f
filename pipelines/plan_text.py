"""The text of a plan: how each image is analysed, the estimated memory and the measured time."""

import math
from collections import Counter

import shapely
from shapely.geometry.base import BaseGeometry

from ..model.annotator import Cost
from ..readers.areas import area_m2
from ..readers.scanned_files import COUNTED_ONCE
from ..reports.overview.scale_bar import format_area
from .cli.terminal import bytes_text, duration_text, indent, plural, table, visible
from .describe import Row, image_rows, pixel_size_text
from .describe_run import NO_MODEL_CHOSEN
from .run.estimate import Estimate, Timing
from .run.execute import PreparedRun
from .run.plan import ImagePlan

_REGIONS = "regions to analyse"
_ASSUMED = "for outlines of a vertex per 200 analysed pixels, and more where outlines are finer"
_CLUSTERS = (1, 4, 16, 64, 256, 1024)  # machines


def plan_text(prepared: PreparedRun, known: Estimate, *, workers: int) -> str:
    """A plan: how each image is analysed, and the estimated memory."""
    plan = prepared.redacted_plan
    parts: list[str] = []
    for image in plan.images:
        parts += [indent(table(plan_rows(image)), title=image.info.id), ""]
    parts += [visible(f"{row.path}: {row.status}. {row.reason}") for row in plan.files if row.status == "failed"]
    parts += [visible(f"{row.path}: {row.reason}") for row in plan.files if row.reason.endswith(COUNTED_ONCE)]
    others = (row.reason for row in plan.files if row.status == "skipped" and not row.reason.endswith(COUNTED_ONCE))
    skipped = Counter(others)
    parts += [visible(f"{plural(count, 'file')} skipped: {reason}") for reason, count in sorted(skipped.items())]
    if prepared.annotator is None:
        parts.append(NO_MODEL_CHOSEN)
    parts_of = ("stacks", len(plan.volumes)) if plan.volumes else ("tiles", known.tiles)
    rows = [
        (_REGIONS, str(known.regions)),
        (f"{parts_of[0]} to analyse", str(parts_of[1])),
        *_memory_rows(prepared, known),
    ]
    if known.cost is not None and known.cost.tokens:
        rows.append(("tokens per region", _tokens_text(known.cost)))
    return "\n".join([*parts, table([*rows, ("workers", str(workers))])])


def time_text(timing: Timing, *, workers: int, cluster: bool = False) -> str:
    """The last rows of a plan: the time and memory that were measured. The workers of a `cluster` are machines."""
    if timing.seconds is None:
        return f"{'time'.ljust(len(_REGIONS))}  cannot be measured. {timing.how}"
    place = "on this machine" + (f" with {plural(workers, 'worker')}" if workers > 1 else "")
    if cluster:
        total = duration_text(timing.seconds * workers)
        place = f"with {plural(workers, 'worker')} like this machine, {total} of all together"
    rows = [("time".ljust(len(_REGIONS)), f"about {duration_text(timing.seconds)} {place}, {timing.how}")]
    if timing.peak:
        rows.append(("memory measured", f"{bytes_text(timing.peak)} on one {timing.unit}"))
    return table(rows)


def cluster_text(timing: Timing, *, machines: int, pieces: int, planning: float) -> str:
    """The time that clusters of machines like this one take, and that of all their machines, which one pays for.

    `timing` is that of `machines`; `pieces` are the regions or stacks that are divided among them, `planning` the
    seconds for which all wait.
    """
    total, start = (timing.seconds or 0.0) * max(1, min(machines, pieces)), planning + timing.loading
    rows: list[tuple[str, ...]] = [("machines like this one", "time", "of all together")]
    for count in (one for one in _CLUSTERS if one <= max(1, pieces)):
        seconds = start + total * math.ceil(pieces / count) / max(1, pieces)
        rows.append((str(count), duration_text(seconds), duration_text(seconds * count)))
    waiting = f"{duration_text(planning)} of planning and {duration_text(timing.loading)} of loading the model"
    text = f"With {waiting}, which all wait for. The reports, which one process writes, are not counted."
    return f"{table(rows)}\n{text}"


def plan_rows(image: ImagePlan) -> list[Row]:
    """An image's metadata, and how it is analysed."""
    metres = image.analysis_metres
    reduced = max(image.grid.scale)
    own = f"its own pixels{f', reduced {reduced:.3g} times' if reduced > 1 else ''}"
    skipped = Counter((image.skipped or {}).values())
    rows = [
        *[row for row in image_rows(image.info) if row[0] != "note"],
        ("analysed at", own if metres is None else pixel_size_text(metres, image.info.kind)),
        *_analysis_rows(image),
        *([("area of interest", _area_text(image, image.user_area))] if image.user_area is not None else []),
        *([("tissue", image.tissue)] if image.tissue else []),
        *([("mask", f"{image.mask.how} ({image.mask.action})")] if image.mask is not None else []),
        *(("skipped", f"{plural(count, 'region')}: {reason}") for reason, count in sorted(skipped.items())),
    ]
    if min(image.grid.scale) < 1:
        rows.append(("analysed at", "pixels are enlarged, which adds no detail"))
    rows += [("warning", warning) for warning in image.warnings]
    return rows + [("note", note) for note in image.info.notes]


def _analysis_rows(image: ImagePlan) -> list[Row]:
    """What the model gets of an image."""
    if image.spec.volume is not None:
        size = " × ".join(f"{one:.4g}" for one in image.spec.volume.spacing)
        return [("analysed as", f"one volume of {len(image.regions)} slices, with voxels of {size} mm")]
    region = image.largest_region
    if image.montage is not None:
        layout = f"{image.montage.columns} × {image.montage.rows} slices, each in a tile of {image.spec.tile} px"
        order = "in order, row by row, with their numbers and sides"
        return [("analysed as", "RGB"), ("regions", f"{len(image.regions)} montages of up to {layout}, {order}")]
    count = f"{len(image.regions)} of up to {region.size[0]} × {region.size[1]} px"
    return [
        ("analysed as", "RGB" if image.spec.bands is None else ", ".join(image.spec.bands)),
        ("regions", f"{count}, {region.tiles[0]} × {region.tiles[1]} tiles of {image.spec.tile} px"),
    ]


def _area_text(image: ImagePlan, area: BaseGeometry) -> str:
    """The share of an area in level-0 pixels in its image, and its size."""
    info = image.info
    whole = shapely.box(0, 0, *info.size)
    m2, of_m2 = (area_m2(one, info.placement) for one in (area, whole))
    share = area.area / whole.area if m2 is None or not of_m2 else m2 / of_m2
    size = format_area(math.nan if m2 is None else m2, area.area, info.kind, exact=True)
    return f"{100 * share:.2f} % of the {'picture' if len(info.planes) == 1 else 'slices'}, {size}"


def _memory_rows(prepared: PreparedRun, known: Estimate) -> list[Row]:
    """The estimated memory of a worker and of the run, and the free memory."""
    cost, place = known.cost, "on this machine"
    worker = f"about {bytes_text(known.memory)}, estimated"
    rows: list[Row] = []
    if cost is None:
        worker += ", without the model"
    else:
        parts = ((f"weights in {cost.dtype}", cost.weights), ("keys and values", cost.cache))
        sizes = ", ".join(
            f"{name} {bytes_text(size)}" for name, size in (*parts, ("activations", cost.activations)) if size
        )
        if cost.device == "cpu":
            worker += f": {sizes}, and images and libraries"
        else:
            place = "on all GPUs" if cost.device == "split" else f"on {cost.device}"
            rows.append(("GPU memory per worker", f"about {bytes_text(cost.memory)}, estimated: {sizes}"))
    free = "unknown" if known.free is None else f"{bytes_text(known.free)} {place}"
    if known.planning is not None:
        planning = f"{bytes_text(known.planning)} at most, measured; a run needs it before its workers start"
        rows.append(("memory for planning", planning))
    if prepared.annotator is not None and not prepared.unavailable:
        rows.append(("memory for reports", f"about {bytes_text(known.reports)}, estimated {_ASSUMED}"))
        code = f"and {bytes_text(known.code)} of libraries' code, which the system lets go of where it must"
        rows.append(("memory of the run", f"about {bytes_text(known.run)} at its peak, estimated, {code}"))
    return [("memory per worker", worker), *rows, ("memory free", free)]


def _tokens_text(cost: Cost) -> str:
    """The tokens of the largest region, and that they are too many where they are."""
    question = cost.tokens - cost.image_tokens - cost.answer_tokens
    parts = (("picture", cost.image_tokens), ("question", question), ("answer at most", cost.answer_tokens))
    text = f"up to {cost.tokens}: " + ", ".join(f"{name} {count}" for name, count in parts if count)
    if cost.context and cost.tokens > cost.context:
        text += f". That is more than the model's {cost.context}: lower --hd-num, or these regions will fail"
    return text
