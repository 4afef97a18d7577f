"""What happens to one batch of regions: open, look, annotate, lift, cover. The one place where a region may fail.

A failure that belongs to a region is a result with its reason. A mistake of ours (a TypeError, say) is raised, and
stops the run.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from ..model.annotator import Annotator, Answer, View
from ..model.finding import Result
from ..model.lift import lift
from ..model.views import cover, look
from ..readers.errors import LimnerError, ModelError
from ..readers.image import Image
from ..readers.regions import Region
from ..readers.registry import open_image
from .choice import AnnotatorChoice
from .glance import channel_names
from .plan import EMPTY, ImagePlan, Plan

HANDLES = 4  # open images that a process keeps; a batch seldom crosses from one image to another


@dataclass(frozen=True, slots=True)
class RegionJob:
    """The job of a run: its images and its annotator.

    `labels` are the ones to keep, () for all; `threads` are computing threads, 0 for one per core.
    """

    images: Mapping[str, ImagePlan]
    choice: AnnotatorChoice
    labels: tuple[str, ...] = ()
    threads: int = 0

    @classmethod
    def of(cls, plan: Plan, choice: AnnotatorChoice, *, labels: tuple[str, ...] = (), threads: int = 0) -> Self:
        """The job of a plan; small enough to send to any process."""
        images = {image.info.id: replace(image, skipped=None) for image in plan.images}
        return cls(images, choice, labels, threads)

    def begin(self) -> "RegionWork":
        """See `engine.Job`. Loads the annotator's networks, the only ones of this process."""
        annotator = self.choice.make(threads=str(self.threads))
        annotator.check([image.sight for image in self.images.values()])
        try:
            annotator.load()
        except MemoryError as error:
            raise ModelError(
                "model",
                "it must fit into memory",
                value=str(error)[:200],
                remedy="`limner plan` says what it needs. Use a smaller model, numbers of fewer bits where the "
                "model has such an option, or fewer --workers",
            ) from error
        return RegionWork(self.images, annotator, self.labels)


@dataclass(frozen=True, slots=True)
class Seen:
    """A region that was read and has something to annotate; `seconds` is what reading took."""

    view: View
    seconds: float


class RegionWork:
    """A job begun: one annotator and a few open images. See `engine.Work`."""

    def __init__(self, images: Mapping[str, ImagePlan], annotator: Annotator, labels: tuple[str, ...] = ()) -> None:
        self._images = images
        self._annotator = annotator
        self._labels = frozenset(labels)
        self._open: OrderedDict[str, Image] = OrderedDict()

    def look(self, regions: Sequence[Region]) -> list[Seen | Result]:
        """Read each region; where there is nothing to annotate, or it cannot be read, its result is known already."""
        return [self._look(region) for region in regions]

    def annotate(self, looks: Sequence[Seen | Result]) -> list[Result]:
        """A result for each look, in order. A region that the model cannot take fails alone, not with its batch.

        A batch that does not go through, for want of memory say, is tried again in halves.
        """
        seen = [one for one in looks if isinstance(one, Seen)]
        results = iter(self._annotate(seen))
        return [next(results) if isinstance(one, Seen) else one for one in looks]

    def close(self) -> None:
        """Let go of open images."""
        while self._open:
            self._open.popitem()[1].close()

    def _look(self, region: Region) -> Seen | Result:
        start = time.perf_counter()
        plan = self._images[region.grid.image]
        try:
            view = look(self._image(plan), region, plan.sight, stretch=plan.stretch, area=plan.area)
            if view.wanted.any():
                return Seen(view, time.perf_counter() - start)
            coverage = cover(view, plan.info.placement, plan.area)
        except (LimnerError, MemoryError) as error:
            return _failure(region, error, time.perf_counter() - start)
        reason = EMPTY if coverage.invalid_px > 0 else plan.beyond
        spent = time.perf_counter() - start
        return Result(region.key, region.grid.image, "skipped", coverage=coverage, error=reason, seconds=spent)

    def _image(self, plan: ImagePlan) -> Image:
        key = plan.info.id
        if key not in self._open:
            if len(self._open) >= HANDLES:
                self._open.popitem(last=False)[1].close()
            self._open[key] = open_image(plan.info, channel_names(plan.info, plan.sight, plan.stretch))
        self._open.move_to_end(key)
        return self._open[key]

    def _annotate(self, seen: Sequence[Seen]) -> list[Result]:
        if not seen:
            return []
        start = time.perf_counter()
        try:
            answers = self._annotator.annotate([one.view for one in seen])
        except (LimnerError, MemoryError) as error:
            if len(seen) > 1:
                half = len(seen) // 2
                return self._annotate(seen[:half]) + self._annotate(seen[half:])
            return [_failure(seen[0].view.region, error, seen[0].seconds + time.perf_counter() - start)]
        spent = (time.perf_counter() - start) / len(seen)
        return [self._lift(one, given, spent) for one, given in zip(seen, answers, strict=True)]

    def _lift(self, one: Seen, answers: Sequence[Answer], spent: float) -> Result:
        start = time.perf_counter()
        region = one.view.region
        plan = self._images[region.grid.image]
        try:
            kept = (answer for answer in answers if not self._labels or answer.label in self._labels)
            findings = tuple(lift(answer, one.view) for answer in kept)
            coverage = cover(one.view, plan.info.placement, plan.area)
        except (LimnerError, MemoryError) as error:
            return _failure(region, error, one.seconds + spent)
        seconds = one.seconds + spent + time.perf_counter() - start
        return Result(region.key, region.grid.image, "done", findings, coverage, seconds=seconds)


def _failure(region: Region, error: LimnerError | MemoryError, seconds: float) -> Result:
    reason = str(error)
    if isinstance(error, MemoryError):
        reason = "region: it must fit into memory. Lower --hd-num, --batch or --workers"
    return Result(region.key, region.grid.image, "failed", error=reason, seconds=seconds)
