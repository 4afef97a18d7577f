"""What happens to one batch of regions: open, look, annotate, lift, cover. The one place where a region may fail.

A failure that belongs to a region is a result with its reason. A mistake of ours (a TypeError, say) is raised, and
stops the run.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from ...model.annotator import Annotator, Answer, View
from ...model.finding import Result
from ...model.views import measure_coverage, read_view, to_image_coordinates
from ...readers.errors import LimnerError, ModelError
from ...readers.image import Image
from ...readers.regions import Region
from ...readers.registry import open_image
from .model_selection import AnnotatorChoice
from .overview_stats import channel_names
from .plan import ImagePlan, Plan
from .roi import EMPTY

HANDLES = 4  # open images that a process keeps; a batch seldom crosses from one image to another


@dataclass
class RegionJob:
    """The work of a run: its images and its annotator. Small enough to send to any process until it has begun.

    `labels` are the ones to keep, () for all; `threads` are computing threads, 0 for one per core. See `engine.Job`.
    """

    images: Mapping[str, ImagePlan]
    choice: AnnotatorChoice | None = None
    labels: tuple[str, ...] = ()
    threads: int = 0
    _annotator: Annotator | None = field(default=None, init=False)
    _open: OrderedDict[str, Image] = field(default_factory=OrderedDict[str, Image], init=False)

    @classmethod
    def of(cls, plan: Plan, choice: AnnotatorChoice, *, labels: tuple[str, ...] = (), threads: int = 0) -> Self:
        """The job of a plan."""
        return cls({image.info.id: replace(image, skipped=None) for image in plan.images}, choice, labels, threads)

    def begin(self) -> None:
        """Make the annotator and load its networks, the only ones of this process. Raises `LimnerError`."""
        if self.choice is None:
            return
        self._annotator = self.choice.make(threads=str(self.threads))
        self._annotator.check([image.spec for image in self.images.values()])
        try:
            self._annotator.load()
        except MemoryError as error:
            raise ModelError(
                "model",
                "it must fit into memory",
                value=str(error)[:200],
                remedy="`limner plan` says what it needs. Use a smaller model, numbers of fewer bits where the "
                "model has such an option, or fewer --workers",
            ) from error

    def read(self, regions: Sequence[Region]) -> list[View | Result]:
        """Read each region; where there is nothing to annotate, or it cannot be read, its result is known already."""
        return [self._read(region) for region in regions]

    def annotate(self, looks: Sequence[View | Result]) -> list[Result]:
        """A result for each look, in order. A region that the model cannot take fails alone, not with its batch.

        A batch that does not go through, for want of memory say, is tried again in halves.
        """
        results = iter(self._annotate([one for one in looks if isinstance(one, View)]))
        return [next(results) if isinstance(one, View) else one for one in looks]

    def close(self) -> None:
        """Let go of the annotator and of open images."""
        self._annotator = None
        while self._open:
            self._open.popitem()[1].close()

    def _read(self, region: Region) -> View | Result:
        start = time.perf_counter()
        plan = self.images[region.grid.image]
        try:
            view = read_view(self._image(plan), region, plan.spec, stretch=plan.stretch, roi=plan.area)
            if view.keep_mask.any():
                return replace(view, seconds=time.perf_counter() - start)
            coverage = measure_coverage(view, plan.info.placement, plan.area)
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
            self._open[key] = open_image(plan.info, channel_names(plan.info, plan.spec, plan.stretch))
        self._open.move_to_end(key)
        return self._open[key]

    def _annotate(self, views: Sequence[View]) -> list[Result]:
        if not views:
            return []
        if self._annotator is None:
            msg = "a job must begin before it annotates"
            raise RuntimeError(msg)
        start = time.perf_counter()
        try:
            answers = self._annotator.annotate(views)
        except (LimnerError, MemoryError) as error:
            if len(views) > 1:
                half = len(views) // 2
                return self._annotate(views[:half]) + self._annotate(views[half:])
            return [_failure(views[0].region, error, views[0].seconds + time.perf_counter() - start)]
        spent = (time.perf_counter() - start) / len(views)
        return [self._to_image(view, given, spent) for view, given in zip(views, answers, strict=True)]

    def _to_image(self, view: View, answers: Sequence[Answer], spent: float) -> Result:
        start, region = time.perf_counter(), view.region
        plan = self.images[region.grid.image]
        try:
            kept = (answer for answer in answers if not self.labels or answer.label in self.labels)
            findings = tuple(to_image_coordinates(answer, view) for answer in kept)
            coverage = measure_coverage(view, plan.info.placement, plan.area)
        except (LimnerError, MemoryError) as error:
            return _failure(region, error, view.seconds + spent)
        seconds = view.seconds + spent + time.perf_counter() - start
        return Result(region.key, region.grid.image, "done", findings, coverage, seconds=seconds)


def _failure(region: Region, error: LimnerError | MemoryError, seconds: float) -> Result:
    reason = str(error)
    if isinstance(error, MemoryError):
        reason = "region: it must fit into memory. Lower --hd-num, --batch or --workers"
    return Result(region.key, region.grid.image, "failed", error=reason, seconds=seconds)
