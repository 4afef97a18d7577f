"""What a run will take, before it runs: memory by arithmetic, then time by doing one tile of it, within limits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...model.annotator import Cost, InputSpec, SupportsCost
from ...model.views import grid_of
from ...readers.errors import LimnerError, RequestError
from ...readers.regions import Region, Span
from .execute import Prepared
from .machine import free_memory
from .model_selection import AnnotatorChoice
from .plan import ImagePlan
from .process_pool import try_region
from .worker import RegionJob

LIMIT_S = 120.0
"""Seconds that timing may take, loading the model among them."""

_RGB = 3
_FLOAT = 4  # bytes of a float32
_COPIES = 3  # a region as read, its tiles, and what the network makes of them: measured on the shipped cards
_LIBRARIES = 0.4 * 2**30  # of Python, torch and transformers in a process, before any weights: measured
_LEFT, _SHARE = 1.0 * 2**30, 0.1  # of free memory is left to others: so much, and that part where it is more
_WARM_S = 5.0  # what takes less is done twice, since the first time is slower
_PLACES = (2, 3, 5, 7, 11)  # where in the list of regions a tile is tried: the middle first

Tiles = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known without loading a network.

    `memory` bytes of the machine's own memory that a worker takes at its peak, of which `cost` is the annotator's for
    the largest region where it is on no GPU; None where nobody knows it. `free` bytes of memory where the model runs,
    None where the system does not say. `shapes` counts the regions to look at by their tiles, `work` is what each
    kind costs. `untimed` says why time cannot be measured, "" where it can.
    """

    memory: float
    cost: Cost | None
    free: float | None
    shapes: Mapping[Tiles, int]
    work: Mapping[Tiles, float]
    untimed: str = ""

    @property
    def regions(self) -> int:
        """How many regions are to be looked at."""
        return sum(self.shapes.values())

    @property
    def tiles(self) -> int:
        """How many tiles they have."""
        return sum(columns * rows * count for (columns, rows), count in self.shapes.items())


@dataclass(frozen=True, slots=True)
class Timing:
    """`seconds` for all regions, `how` that was found, and the `peak` bytes of memory that were seen meanwhile.

    `seconds` is None where `how` says why it could not be measured.
    """

    seconds: float | None
    how: str
    peak: float = 0.0


def estimate(prepared: Prepared, *, batch: int) -> Estimate:
    """Memory and tokens from headers and settings; loads no network and asks no server. Raises `RequestError`."""
    images = prepared.plan.images
    views = max(view_bytes(image) for image in images) * batch * 2  # the next batch is read meanwhile
    shapes = Counter(
        grid_of(region, image.spec)
        for image in images
        for region in image.regions
        if region.key not in (image.skipped or {})
    )
    work = {shape: float(shape[0] * shape[1]) for shape in shapes}
    bare = Estimate(views + _LIBRARIES, None, free_memory(), shapes, work)
    annotator = prepared.annotator
    if annotator is None or not shapes:
        return replace(bare, untimed="Nothing is to be looked at")
    if prepared.lacking:
        return replace(bare, untimed=prepared.lacking)
    specs = [image.spec for image in images]
    try:
        costs = (
            {shape: annotator.cost(specs, shape) for shape in {*shapes, (1, 1)}}
            if isinstance(annotator, SupportsCost)
            else {}
        )
        known = {shape: cost for shape, cost in costs.items() if cost is not None}
        if not known:
            return bare
        cost = max((known[shape] for shape in shapes), key=lambda one: one.memory)
        work = {shape: one.work for shape, one in known.items()}
        if cost.device == "cpu":
            found = replace(bare, memory=bare.memory + cost.memory, cost=cost, work=work)
            return replace(found, untimed=_too_large(found.memory, bare.free))
        from ...model.checkpoints.memory import free_gpu_memory

        free = free_gpu_memory(cost.device)
        return replace(bare, cost=cost, work=work, free=free, untimed=_too_large(cost.memory, free))
    except RequestError:
        raise
    except LimnerError as error:
        return replace(bare, untimed=prepared.names.text(str(error)))


def measure(prepared: Prepared, known: Estimate, *, workers: int, threads: int) -> Timing:
    """Do one real tile where it fits, in a process of its own that is ended past its limits, and extrapolate.

    `workers` processes with `threads` computing threads each (see `run.crew`) will do the run.
    """
    if not known.shapes:
        return Timing(0.0, "nothing to look at")
    if known.untimed or prepared.choice is None:
        return Timing(None, known.untimed)
    images = {image.info.id: replace(image, spec=_smallest(image.spec)) for image in prepared.plan.images}
    todo = [
        region for image in prepared.plan.images for region in image.regions if region.key not in (image.skipped or {})
    ]
    tried = [todo[len(todo) // place] for place in _PLACES]
    among = [middle_tile(region, images[region.grid.image].spec) for region in dict.fromkeys(tried)]
    free = free_memory()
    memory = float("inf") if free is None else free - max(_LEFT, free * _SHARE)
    job = _job(prepared, prepared.choice, images, threads)
    trial = try_region(job, among, threads=threads, seconds=LIMIT_S, memory=memory, again=_WARM_S)
    if trial.result is None:
        return Timing(None, prepared.names.text(trial.why), trial.peak)
    one = known.work.get((1, 1), 1.0)
    whole = sum(known.work[shape] * count for shape, count in known.shapes.items())
    seconds = trial.result.seconds * whole / one / max(1, min(workers, known.regions))
    tile = f"one tile of {prepared.names.text(trial.result.region)}, {trial.result.seconds:.2g} s"
    return Timing(seconds, f"extrapolated from {tile}" if whole != one else f"measured on {tile}", trial.peak)


def view_bytes(image: ImagePlan) -> int:
    """Bytes that a region of that image takes while it is looked at."""
    region = max(image.regions, key=lambda one: one.tiles[0] * one.tiles[1])
    columns, rows = grid_of(region, image.spec)
    return columns * rows * image.spec.tile**2 * _channels(image.spec) * _FLOAT * _COPIES


def middle_tile(region: Region, spec: InputSpec) -> Region:
    """The tile in the middle of a region, as a region of its own."""
    return Region(region.grid, _middle(region.columns, spec), _middle(region.rows, spec), region.plane)


def _middle(span: Span, spec: InputSpec) -> Span:
    place, step = span.tiles // 2, spec.tile - 2 * spec.halo
    start = span.start + place * step
    first = span.core_start if place == 0 else max(span.core_start, start + spec.halo)
    last = span.core_stop if place == span.tiles - 1 else min(span.core_stop, start + spec.tile - spec.halo)
    return Span(start, start + spec.tile, first, last, 1)


def _smallest(spec: InputSpec) -> InputSpec:
    """The spec with which a region of one tile stays one."""
    return replace(spec, enlarge=1) if spec.enlarge else spec


def _job(prepared: Prepared, choice: AnnotatorChoice, images: Mapping[str, ImagePlan], threads: int) -> RegionJob:
    job = RegionJob.of(prepared.plan, choice, labels=prepared.labels, threads=threads)
    return replace(job, images={name: replace(image, skipped=None) for name, image in images.items()})


def _too_large(needed: float, free: float | None) -> str:
    """Why what needs so many bytes is not tried; "" where it fits, with something left to others."""
    left = 0.0 if free is None else max(_LEFT, free * _SHARE)
    if free is None or needed <= free - left:
        return ""
    gib = [f"{count / 2**30:.1f} GiB" for count in (needed, free, left)]
    return f"It needs about {gib[0]} of memory, and {gib[1]} are free, of which {gib[2]} are left to others"


def _channels(spec: InputSpec) -> int:
    return _RGB if spec.bands is None else len(spec.bands)
