"""What a run will take, before it runs: memory by arithmetic, time by doing one region of it."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..model.annotator import Remote, Sight
from ..model.asking.respondent import Cost, Costing
from ..readers.errors import LimnerError
from ..readers.regions import Region
from .plan import ImagePlan
from .run import Prepared
from .work import RegionJob, Seen

_RGB = 3
_FLOAT = 4  # bytes of a float32
_COPIES = 3  # a region as read, its tiles, and what the network makes of them: measured on the shipped cards


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` for all regions in one process and `memory` bytes a worker; None where `missing` says why.

    `tokens` is how many a language model reads of a full region and its question; 0 where there is none.
    """

    seconds: float | None
    memory: float
    measured: str
    missing: str = ""
    tokens: int = 0


def estimate(prepared: Prepared, *, batch: int) -> Estimate:
    """Do one real region where the model is on this machine; else say what is missing. Touches no network.

    A model that knows its cost, in tokens and memory, is believed where it takes more than was measured.
    """
    images = prepared.plan.images
    todo = [region for image in images for region in image.regions if region.key not in (image.skipped or {})]
    views = max(view_bytes(image) for image in images) * batch * 2  # the next batch is read meanwhile
    if not todo or prepared.annotator is None or prepared.choice is None:
        return Estimate(0.0, views, "nothing to look at")
    if isinstance(prepared.annotator, Remote) and prepared.annotator.host:
        return Estimate(
            None, views, "by arithmetic", f"It is up to {prepared.annotator.host}, which a plan does not ask"
        )
    try:
        cost = _cost(prepared, todo)
        prepared.annotator.prepare([image.sight for image in images])
        work = RegionJob.of(prepared.plan, prepared.choice).begin()
    except LimnerError as error:
        return Estimate(None, views, "by arithmetic, the model's own not counted", prepared.names.text(str(error)))
    memory, tokens = (cost.memory + views, cost.tokens) if cost else (views, 0)
    try:
        for place in (2, 3, 5, 7, 11):  # the middle first; where it turns out to be empty, elsewhere
            region = todo[len(todo) // place]
            if isinstance(work.look([region])[0], Seen):
                break
        work.annotate(work.look([region]))  # the first time loads the model
        start = time.perf_counter()
        results = work.annotate(work.look([region]))
        spent = time.perf_counter() - start
    finally:
        work.close()
    failed = [result.error for result in results if result.status == "failed"]
    if failed:
        return Estimate(None, memory, "by arithmetic", prepared.names.text(failed[0]), tokens)
    tiles = sum(region.tiles[0] * region.tiles[1] for region in todo)
    share = tiles / (region.tiles[0] * region.tiles[1])
    measured = f"measured on region {region.key}"
    return Estimate(spent * share, max(memory, peak_memory() + views), measured, tokens=tokens)


def _cost(prepared: Prepared, todo: Sequence[Region]) -> Cost | None:
    """What the largest region costs, where the annotator knows. Raises `ModelError`."""
    if not isinstance(prepared.annotator, Costing):
        return None
    return prepared.annotator.cost(max((region.tiles for region in todo), key=lambda tiles: tiles[0] * tiles[1]))


def view_bytes(image: ImagePlan) -> int:
    """Bytes that a region of that image takes while it is looked at."""
    region = max(image.regions, key=lambda one: one.tiles[0] * one.tiles[1])
    return region.tiles[0] * region.tiles[1] * image.sight.tile**2 * _channels(image.sight) * _FLOAT * _COPIES


def peak_memory() -> float:
    """The most bytes of memory that this process has held; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource  # noqa: PLC0415 - only where there is one

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def _channels(sight: Sight) -> int:
    return _RGB if sight.bands is None else len(sight.bands)
