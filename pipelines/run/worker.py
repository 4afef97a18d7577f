"""Reads and annotates batches of regions. The failure of a region becomes a result; a bug stops the run."""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, cast

import numpy as np

from ...model.annotator import Annotator, Answer, View
from ...model.class_map_masks import mask_answers
from ...model.finding import Coverage, PackedRaster, Result
from ...model.montage import MontageImage
from ...model.probabilities import NODATA, LabelProbabilities
from ...model.probe.features import SupportsFeatures
from ...model.views import core_window, measure_coverage, read_view, to_image_coordinates
from ...model.volume.volume import SupportsVolumes
from ...readers.errors import LimnerError, ModelError
from ...readers.image import Image
from ...readers.regions import Region
from ...readers.registry import limit_caches, open_image
from .features import feature_rasters
from .masks import MASK, RegionMasks
from .memory import MAX_OPEN, return_large_arrays
from .model_selection import AnnotatorChoice
from .overview_stats import EMPTY, channel_names
from .parts import pack_raster
from .plan import ImagePlan, Plan
from .stack_job import PROBABILITIES, Labels, annotate_stack
from .windows import NOT_VISIBLE


@dataclass
class RegionJob:
    """The job of a run, see `engines.Job`: its images and its annotator."""

    images: Mapping[str, ImagePlan]
    """Plans by image id."""
    choice: AnnotatorChoice | None = None
    labels: tuple[str, ...] = ()
    """Labels to keep; () for all."""
    threads: int = 0
    """Computing threads; 0 for one per core."""
    probabilities: bool = False
    """Whether results have the probabilities of the labels to keep."""
    cache: float = math.inf
    """Most bytes of decoded pixels that readers keep."""
    _annotator: Annotator | None = field(default=None, init=False)
    _open: OrderedDict[str, Image] = field(default_factory=OrderedDict[str, Image], init=False)
    _masks: RegionMasks = field(default_factory=RegionMasks, init=False)

    @classmethod
    def of(
        cls,
        plan: Plan,
        choice: AnnotatorChoice,
        *,
        labels: tuple[str, ...] = (),
        threads: int = 0,
        probabilities: bool = False,
        cache: float = math.inf,
    ) -> Self:
        """The job of a plan."""
        images = {image.info.id: replace(image, skipped=None) for image in plan.images}
        return cls(images, choice, labels, threads, probabilities, cache)

    def begin(self) -> None:
        """Make the annotator and load its networks. Raises `LimnerError`."""
        return_large_arrays()
        if self.cache < math.inf:
            limit_caches(self.cache)
        if self.choice is None:
            return
        self._annotator = self.choice.make(threads=str(self.threads))
        self._annotator.check([image.spec for image in self.images.values()])
        try:
            self._annotator.load()
        except MemoryError as error:
            raise ModelError(
                "the model",
                "must fit into memory",
                value=str(error)[:200],
                remedy="Use a smaller model, its dtype or quantize option, or fewer --workers; "
                "`limner plan` estimates the memory",
            ) from error

    def read(self, regions: Sequence[Region]) -> list[View | Result | Region]:
        """Read each region. One that cannot be read, or has no pixels to annotate, becomes its result.

        The regions of a stack that is annotated as a whole are returned as they are.
        """
        whole = any(self.images[region.grid.image].spec.volume for region in regions[:1])
        return list(regions) if whole else [self.read_region(region) for region in regions]

    def annotate(self, views: Sequence[View | Result | Region]) -> list[Result]:
        """A result for each view, in order.

        A batch that fails, out of memory for example, is retried in halves, so that a region fails alone.
        """
        if slices := [view for view in views if isinstance(view, Region)]:
            return self._annotate_stack(slices)
        results = iter(self._annotate([view for view in views if isinstance(view, View)]))
        return [view if isinstance(view, Result) else next(results) for view in views]

    def close(self) -> None:
        """Release the annotator and close all images."""
        self._annotator = None
        self._masks.close()
        while self._open:
            self._open.popitem()[1].close()

    def read_region(self, region: Region) -> View | Result:
        """A region's view, or its result where it cannot be read or has no pixels to annotate."""
        start = time.perf_counter()
        plan = self.images[region.grid.image]
        try:
            masked = self._masks.masked(plan.mask, plan.info, region)
            view = read_view(self._image(plan), region, plan.spec, stretch=plan.stretch, roi=plan.area, masked=masked)
            if view.visible and view.keep_mask.any():
                return replace(view, seconds=time.perf_counter() - start)
            coverage = _coverage(view, plan)
        except (LimnerError, MemoryError) as error:
            return _failure(region, error, time.perf_counter() - start)
        mostly_outside = coverage.invalid_px <= (coverage.outside_px if plan.tissue else 0.0)
        reason = plan.outside_reason if mostly_outside else EMPTY
        if plan.mask is not None and coverage.masked_px > max(coverage.outside_px, coverage.invalid_px):
            reason = plan.mask.reason
        if view.keep_mask.any():
            reason = NOT_VISIBLE
        seconds = time.perf_counter() - start
        rasters = _mask_raster(view)
        return Result(
            region.key, region.grid.image, "skipped", coverage=coverage, error=reason, seconds=seconds, rasters=rasters
        )

    def _annotate_stack(self, slices: Sequence[Region]) -> list[Result]:
        plan, annotator = self.images[slices[0].grid.image], self._annotator
        if not isinstance(annotator, SupportsVolumes):
            msg = "a stack is annotated as a whole by an annotator of volumes that has begun"
            raise TypeError(msg)
        labels = Labels.of(cast("Annotator", annotator).labels, self.labels)
        start = time.perf_counter()
        try:
            image = self._image(plan)
            return annotate_stack(plan, image, slices, annotator, labels, probabilities=self.probabilities)
        except (LimnerError, MemoryError) as error:
            seconds = (time.perf_counter() - start) / len(slices)
            return [_failure(region, error, seconds) for region in slices]

    def _image(self, plan: ImagePlan) -> Image:
        key = plan.info.id
        if key not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            names = None if plan.spec.volume else channel_names(plan.info, plan.spec, plan.stretch)
            image = open_image(plan.info, names)
            self._open[key] = image if plan.montage is None else MontageImage(image, plan.montage)
        self._open.move_to_end(key)
        return self._open[key]

    def _annotate(self, views: Sequence[View]) -> list[Result]:
        if not views:
            return []
        if self._annotator is None:
            msg = "a job must begin before it annotates"
            raise RuntimeError(msg)
        start = time.perf_counter()
        if self.probabilities:
            views = [self._with_probabilities(view) for view in views]
        try:
            answers = self._annotator.annotate(views)
        except (LimnerError, MemoryError) as error:
            if len(views) > 1:
                half = len(views) // 2
                return self._annotate(views[:half]) + self._annotate(views[half:])
            return [_failure(views[0].region, error, views[0].seconds + time.perf_counter() - start)]
        seconds = (time.perf_counter() - start) / len(views)
        return [self._result(view, given, seconds) for view, given in zip(views, answers, strict=True)]

    def _result(self, view: View, answers: Sequence[Answer], seconds: float) -> Result:
        start, region = time.perf_counter(), view.region
        seconds += view.seconds
        try:
            kept = [answer for answer in answers if not self.labels or answer.label in self.labels]
            plan = self.images[region.grid.image]
            findings = tuple(to_image_coordinates(mask_answers(view, kept), view))
            if plan.montage is not None:
                findings = tuple(map(plan.montage.to_slices, findings))
            coverage = _coverage(view, plan)
            rasters = _mask_raster(view)
            if isinstance(self._annotator, SupportsFeatures):
                rasters |= feature_rasters(self._annotator.features(view))
        except (LimnerError, MemoryError) as error:
            return _failure(region, error, seconds)
        seconds += time.perf_counter() - start
        if view.probabilities is not None:
            rasters[PROBABILITIES] = _core_probabilities(view, view.probabilities)
        return Result(region.key, region.grid.image, "done", findings, coverage, seconds=seconds, rasters=rasters)

    def _with_probabilities(self, view: View) -> View:
        """A view with room for the probabilities of its pixels; one whose batch failed gets new room."""
        labels = self.labels or cast("Annotator", self._annotator).labels
        values = np.full((len(labels), *view.keep_mask.shape), NODATA, dtype=np.uint8)
        return replace(view, probabilities=LabelProbabilities({label: i for i, label in enumerate(labels)}, values))


def _core_probabilities(view: View, found: LabelProbabilities) -> PackedRaster:
    """The probabilities of a view's core, `NODATA` where answers are not kept."""
    core = core_window(view.region)
    return pack_raster(np.where(view.keep_mask[core], found.values[(slice(None), *core)], np.uint8(NODATA)))


def _mask_raster(view: View) -> dict[str, PackedRaster]:
    """What is masked of a region's core, for its result; {} where nothing is."""
    core = None if view.masked is None else view.masked.pixels[core_window(view.region)]
    return {} if core is None or not core.any() else {MASK: pack_raster(core)}


def _coverage(view: View, plan: ImagePlan) -> Coverage:
    """The coverage of a view. Invalid pixels beside detected tissue are no data, rather than glass.

    The empty parts of a montage are not counted.
    """
    cover = measure_coverage(view, plan.info.placement, plan.area, invalid_first=bool(plan.tissue))
    if plan.montage is None:
        return cover
    core, area = view.region.core, plan.area_px(view.region)
    invalid = max(0.0, cover.invalid_px - (core.width * core.height - area))
    share = area / (cover.valid_px + invalid)  # pixels at the edges of slices are whole in the analysis
    pixels = cover.valid_px * share, invalid * share
    if cover.valid_m2 is None or cover.invalid_m2 is None:
        return replace(cover, valid_px=pixels[0], invalid_px=pixels[1])
    m2 = (cover.valid_m2 + cover.invalid_m2) / (core.width * core.height)
    return replace(cover, valid_px=pixels[0], invalid_px=pixels[1], valid_m2=pixels[0] * m2, invalid_m2=pixels[1] * m2)


def _failure(region: Region, error: LimnerError | MemoryError, seconds: float) -> Result:
    out_of_memory = "The region must fit into memory. Lower --hd-num, --batch or --workers."
    reason = out_of_memory if isinstance(error, MemoryError) else str(error)
    return Result(region.key, region.grid.image, "failed", error=reason, seconds=seconds)
