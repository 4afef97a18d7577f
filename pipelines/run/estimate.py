"""Estimates the memory of a run by arithmetic, and its time by annotating one tile within limits."""

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...model.annotator import Cost, InputSpec, SupportsCost
from ...model.finding import Result
from ...model.views import grid_of
from ...readers.errors import LimnerError, RequestError
from ...readers.files import parse_fields
from ...readers.regions import Region, Span
from ...readers.sandbox import release_sandbox
from .engines import Job, Task, WorkerProcess
from .execute import PreparedRun
from .memory import REPORT_CODE, parent_bytes, release_freed_memory, report_bytes, started, worker_bytes
from .processes import code_bytes, peak_bytes
from .worker import RegionJob

LIMIT_S = 120.0
"""Most seconds that timing may take, including loading the model."""

_RESERVE, _RESERVE_SHARE = 1.0 * 2**30, 0.1  # free memory to leave to other processes: bytes, or a share if more
_WARM_UP_S = 5.0  # a region that takes less is timed a second time, since the first run is slower
_PLACES = (2, 3, 5, 7, 11)  # fractions of the list of regions at which tiles are tried, the middle first
_POLL_S = 0.02  # between two checks of a timed process, in which it allocates some tens of MB
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CGROUP_V2 = ("memory.max", "memory.current")
_CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")

TileShape = tuple[int, int]
"""Columns and rows of tiles in a region."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known without loading a network."""

    memory: float
    """Bytes of main memory of a worker at its peak."""
    cost: Cost | None
    """The annotator's cost of the largest region; None where not known."""
    free: float | None
    """Free bytes where the model runs; None where not known."""
    shapes: Mapping[TileShape, int]
    """Number of regions to analyse by their tiles."""
    work: Mapping[TileShape, float]
    """Work of a region by its tiles, proportional to time."""
    planning: float | None = None
    """Most bytes that this process has held so far, as a run will before its workers start; None where not known."""
    annotating: float = 0.0
    """Bytes of all processes of a run while regions are annotated; with Ray, of a worker."""
    reports: float = 0.0
    """Bytes of a run while it writes reports, if as much is found as `memory.report_bytes` assumes."""
    code: float = 0.0
    """Bytes of the code of libraries in the process that leads a run, which the system lets go of where it must."""
    untimed: str = ""
    """Why the time cannot be measured, "" where it can."""

    @property
    def run(self) -> float:
        """Bytes of a run at its peak: while it plans, annotates, or writes reports."""
        return max(self.planning or 0.0, self.annotating, self.reports)

    @property
    def regions(self) -> int:
        """Number of regions to analyse."""
        return sum(self.shapes.values())

    @property
    def tiles(self) -> int:
        """Number of their tiles."""
        return sum(columns * rows * count for (columns, rows), count in self.shapes.items())


@dataclass(frozen=True, slots=True)
class Timing:
    """The measured time of a run."""

    seconds: float | None
    """For all regions; None where it could not be measured."""
    how: str
    """How it was measured, or why not."""
    peak: float = 0.0
    """Most bytes of memory seen meanwhile."""
    unit: str = "tile"
    """What was annotated: a "tile", or a "stack" that is annotated as a volume."""
    loading: float = 0.0
    """Seconds until a process had loaded the model."""


def estimate(prepared: PreparedRun, *, batch: int) -> Estimate:
    """Estimate memory and tokens from headers and settings; loads no network, contacts no server.

    Raises `RequestError`.
    """
    images, settings = prepared.plan.images, prepared.settings
    shapes = Counter(grid_of(region, image.spec) for image in images for region in image.remaining)
    work = {shape: float(shape[0] * shape[1]) for shape in shapes}
    asked = prepared.division.workers
    workers = started(images, batch=batch, workers=asked)
    others, code = parent_bytes(settings), code_bytes() + REPORT_CODE

    def estimated(cost: Cost | None) -> Estimate:
        each = worker_bytes(
            images, cost, batch=batch, limit=prepared.limit, probabilities=prepared.probabilities, workers=asked
        )
        annotating = each if settings.engine == "ray" else others + workers * each
        reports = report_bytes(settings, images, cost)
        return Estimate(each, cost, free_memory(), shapes, work, peak_bytes(), annotating, reports, code)

    basic = estimated(None)
    annotator = prepared.annotator
    if annotator is None or not shapes:
        return replace(basic, untimed="There is nothing to analyse")
    if prepared.unavailable or not isinstance(annotator, SupportsCost):
        return replace(basic, untimed=prepared.unavailable)
    specs = [image.spec for image in images]
    try:
        costs = {shape: annotator.cost(specs, shape) for shape in {*shapes, (1, 1)}}
        known = {shape: cost for shape, cost in costs.items() if cost is not None}
        if not known:
            return basic
        cost = max((known[shape] for shape in shapes), key=lambda one: one.memory)
        found = replace(estimated(cost), work={shape: one.work for shape, one in known.items()})
        if cost.device == "cpu":
            return replace(found, untimed=_does_not_fit(found.memory, basic.free))
        from ...model.checkpoints.memory import free_gpu_memory

        free = free_gpu_memory(cost.device)
        return replace(found, free=free, untimed=_does_not_fit(cost.memory, free))
    except RequestError:
        raise
    except LimnerError as error:
        return replace(basic, untimed=prepared.redactor.text(str(error)))


def measure(prepared: PreparedRun, known: Estimate, *, workers: int, threads: int) -> Timing:
    """Annotate one tile, if it fits, in a process that is ended at its limits, and extrapolate.

    The run will have `workers` processes with `threads` computing threads each.
    """
    if not known.shapes:
        return Timing(0.0, "nothing to analyse")
    job = prepared.job(threads)
    if known.untimed or job is None:
        return Timing(None, known.untimed)
    if prepared.plan.volumes:
        return _measure_stack(prepared, job, workers=workers, threads=threads)
    job = replace(
        job, images={name: replace(image, spec=_no_enlarging(image.spec)) for name, image in job.images.items()}
    )
    todo = [region for image in prepared.plan.images for region in image.remaining]
    regions = dict.fromkeys(todo[len(todo) // place] for place in _PLACES)
    tiles = [middle_tile(region, job.images[region.grid.image].spec) for region in regions]
    trial = _try(job, tiles, threads=threads)
    if trial.result is None:
        return Timing(None, prepared.redactor.text(trial.why), trial.peak)
    one = known.work.get((1, 1), 1.0)
    total = sum(known.work[shape] * count for shape, count in known.shapes.items())
    seconds = trial.result.seconds * total / one / max(1, min(workers, known.regions))
    tile = f"one tile of {prepared.redactor.text(trial.result.region)}, {trial.result.seconds:.2g} s"
    return Timing(
        seconds, f"{'extrapolated from' if total != one else 'measured on'} {tile}", trial.peak, "tile", trial.loading
    )


def _measure_stack(prepared: PreparedRun, job: RegionJob, *, workers: int, threads: int) -> Timing:
    """Annotate the stack with the fewest voxels, and extrapolate by voxels."""
    stacks = {image.info.id: math.prod(image.spec.volume.shape) for image in prepared.plan.images if image.spec.volume}
    smallest = min(stacks, key=stacks.__getitem__)
    slices = next(image.remaining for image in prepared.plan.images if image.info.id == smallest)
    trial = _try(job, slices[:1], threads=threads, unit="stack")
    if trial.result is None:
        return Timing(None, prepared.redactor.text(trial.why), trial.peak, "stack")
    total = sum(stacks.values()) / stacks[smallest]
    seconds = trial.result.seconds * total / max(1, min(workers, len(stacks)))
    stack = f"the stack {prepared.redactor.text(smallest)}, {trial.result.seconds:.2g} s"
    return Timing(
        seconds, f"{'extrapolated from' if total != 1 else 'measured on'} {stack}", trial.peak, "stack", trial.loading
    )


def _try(job: RegionJob, candidates: Sequence[Region], *, threads: int, unit: str = "tile") -> "Trial":
    """See `try_region`; within the memory that is free."""
    release_sandbox()  # its memory is needed now
    release_freed_memory()
    free = free_memory()
    limit = float("inf") if free is None else free - _reserve(free)
    return try_region(job, candidates, threads=threads, seconds=LIMIT_S, memory=limit, unit=unit)


def middle_tile(region: Region, spec: InputSpec) -> Region:
    """The tile in the middle of a region, as a region of its own."""
    return Region(region.grid, _middle(region.columns, spec), _middle(region.rows, spec), region.plane)


def _middle(span: Span, spec: InputSpec) -> Span:
    place, step = span.tiles // 2, spec.tile - 2 * spec.halo
    start = span.start + place * step
    first = span.core_start if place == 0 else max(span.core_start, start + spec.halo)
    last = span.core_stop if place == span.tiles - 1 else min(span.core_stop, start + spec.tile - spec.halo)
    return Span(start, start + spec.tile, first, last, 1)


def _no_enlarging(spec: InputSpec) -> InputSpec:
    """The spec with which a region of one tile is not enlarged."""
    return replace(spec, enlarge=1) if spec.enlarge else spec


def _reserve(free: float) -> float:
    """Bytes of free memory to leave to other processes."""
    return max(_RESERVE, free * _RESERVE_SHARE)


def _does_not_fit(needed: float, free: float | None) -> str:
    """Why so many bytes do not fit, "" where they do."""
    if free is None or needed <= free - _reserve(free):
        return ""
    gib = [f"{count / 2**30:.1f} GiB" for count in (needed, free, _reserve(free))]
    return f"It needs about {gib[0]} of memory, but {gib[1]} are free, of which {gib[2]} are reserved"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of `try_region`."""

    result: Result | None
    why: str
    """Why there is no result."""
    peak: float
    """Most bytes of memory that the process was seen to hold, without cached files."""
    loading: float = 0.0
    """Seconds from its start until it had loaded the model."""


class _LimitError(Exception):
    """A process has reached one of its limits; the message is a sentence."""


def try_region(
    job: Job, candidates: Sequence[Region], *, threads: int, seconds: float, memory: float, unit: str = "tile"
) -> Trial:
    """Annotate the first candidate that has valid pixels, in a process of its own, to measure time and memory.

    The process is ended after `seconds`, including loading the model, or at `memory` bytes. A region that takes less
    than 5 s is annotated twice, and the second run counts. Raises `WorkerFaultError`.
    """
    start, loading = time.monotonic(), 0.0
    worker = WorkerProcess.start(job, threads)
    monitor = _Monitor(worker, start + seconds, seconds, memory, unit)
    with contextlib.suppress(OSError):  # if memory runs out after all, this process is killed first
        Path(f"/proc/{worker.process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
    result, why = None, f"The {unit}s that were tried have no pixels to annotate"
    try:
        monitor.receive("The model was not loaded")
        loading = time.monotonic() - start
        results = (monitor.annotate(region) for region in candidates)
        tried = next((one for one in results if one.status != "skipped"), None)
        if tried is not None and tried.status == "failed":
            why = tried.error
        elif tried is not None:
            result, why = tried, ""
    except (_LimitError, LimnerError) as error:
        why = str(error)
    except (EOFError, OSError):
        why = f"The process that tried it died ({worker.exit_reason()})"
    finally:
        worker.stop()
    return Trial(result, why, monitor.peak, loading)


@dataclass(slots=True)
class _Monitor:
    """Watches the time and memory of a worker process."""

    worker: WorkerProcess
    deadline: float
    seconds: float
    memory: float
    unit: str
    peak: float = 0.0

    def annotate(self, region: Region) -> Result:
        """The result of a region, of the second run where the first is fast. Raises as `receive` does."""
        results: list[Result] = []
        while len(results) < 2 and all(one.status == "done" and one.seconds < _WARM_UP_S for one in results):
            self.worker.send(Task([region]))
            results += self.receive(f"One {self.unit} was not finished")
        return results[-1]

    def receive(self, late: str) -> list[Result]:
        """The next results; `late` begins the message of a timeout. Raises `_LimitError`."""
        while not self.worker.connection.poll(_POLL_S):
            held = parse_fields(Path(f"/proc/{self.worker.process.pid}/status")).get("RssAnon", 0.0)
            self.peak = max(self.peak, held)
            if held > self.memory:
                msg = f"It took more than {self.memory / 2**30:.1f} GiB of memory and was stopped"
                raise _LimitError(msg)
            if time.monotonic() > self.deadline:
                msg = f"{late} within {self.seconds:.0f} s, the time limit of a plan"
                raise _LimitError(msg)
        return self.worker.receive()


def total_memory() -> float | None:
    """Bytes of main memory; None where the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def free_memory() -> float | None:
    """Bytes that this process and its children can allocate without swapping; None where not known.

    The least of what the system reports as available and of what is left of the limits of the control groups
    (containers, batch systems). Cached files count as free.
    """
    available = parse_fields(Path("/proc/meminfo")).get("MemAvailable", total_memory())
    known = [*_left_of_cgroups(), *([] if available is None else [available])]
    return min(known) if known else None


def _left_of_cgroups() -> Iterator[float]:
    """Bytes left of each memory limit of this process: of its control group and of those that enclose it."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (_CGROUPS / "memory", _CGROUP_V1) if controllers else (_CGROUPS, _CGROUP_V2)
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder != root and root not in folder.parents:
                break
            limit, used = (_read_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield max(0.0, limit - used + _cached_bytes(folder))


def _read_number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" where there is no limit
        return None


def _cached_bytes(folder: Path) -> float:
    """Bytes of cached files of a control group, which the system drops when it needs memory."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    return float(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
