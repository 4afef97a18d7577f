"""The plan of a run: which images are analysed, at which pixel size and in which regions. Made before anything runs.

Every input file has a row, every pixel of an image is in a region, and every region is analysed or skipped with a
reason. An image that cannot be analysed is a failed row, and the others go on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import shapely
from pydantic import BaseModel, Field, TypeAdapter
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, InputSpec, SupportsDomain, SupportsPictureFit
from ...model.domain import whole_tiles
from ...model.montage import StackMontage
from ...readers.errors import LimnerError, ReadError, RequestError
from ...readers.files import is_remote
from ...readers.geometry import Box
from ...readers.image import ImageInfo
from ...readers.mask_files import FoundMask
from ...readers.orientation import UPRIGHT, Orientation, image_orientation
from ...readers.regions import Grid, Region, cut_regions
from ...readers.render import Stretch
from ...readers.scanned_files import ScannedFile
from ...readers.vectors import vector_digest
from ...reports.writer import FileRow
from ..cli.terminal import plural
from ..config import HD_NUM, Settings, is_path
from ..pixel_size import ground_metres, pixel_aspect
from ..progress import EventHandler, Inspecting
from ..slice_choice import slices_text
from .analysis_scale import analysis_scale
from .domain_check import check_domain
from .kept_overviews import KeptOverviews
from .masks import PlannedMask, plan_mask
from .overview_stats import FITTED, OUTSIDE, NothingChosenError, OnStep, compute_overview_stats
from .picture import fit_to_picture
from .windows import with_model_window

NO_MODEL = "no model"
NOT_CHOSEN = "not chosen with --slices"
DEFAULT_INPUT_SPEC = InputSpec(tile=336)  # for runs without a model: the tile size of common vision encoders

_INPUT_SPEC = TypeAdapter(InputSpec)


class _PlanFields(BaseModel):
    """The plain values of a plan, as `ImagePlan.to_json` writes them."""

    scale: tuple[float, float]
    hd_num: Annotated[int, Field(ge=HD_NUM[0], le=HD_NUM[-1])]
    overlap: Annotated[int, Field(ge=0)]
    stretch: Stretch | None
    no_rgb_reason: Annotated[str, Field(alias="unseen")]
    outside_reason: Annotated[str, Field(alias="beyond")]
    tissue: str
    warnings: tuple[str, ...] = ()
    forced: str = ""
    orientation: Orientation = UPRIGHT
    montage: StackMontage | None = None


@dataclass(frozen=True)
class ImagePlan:
    """How one image is analysed. `grid`, `spec`, `hd_num` and `overlap` determine its regions."""

    info: ImageInfo
    spec: InputSpec
    grid: Grid
    hd_num: int
    overlap: int
    stretch: Stretch | None = None
    """How the image is rendered in 8-bit RGB; None where the channels of RGB are not known."""
    no_rgb_reason: str = ""
    """Why `stretch` is None, else ""."""
    area: BaseGeometry | None = None
    """The region of interest in level-0 pixels; None for the whole image."""
    user_area: BaseGeometry | None = None
    """The part of `area` that the user gave, without regard to tissue, likewise; not kept in a manifest."""
    tissue_area: BaseGeometry | None = None
    """The part of `area` that is tissue, without regard to the user's, likewise; None where it was not looked for."""
    outside_reason: str = OUTSIDE
    """The reason to report for what lies outside `area`."""
    tissue: str = ""
    """How tissue was detected, in words; "" where it was not."""
    warnings: tuple[str, ...] = ()
    """Sentences on why the results must not be believed unseen."""
    forced: str = ""
    """What of the image is outside the model's domain, as a phrase; "" where nothing is."""
    montage: StackMontage | None = None
    """The montage of slices that a model is shown; None where it is shown planes."""
    skipped: Mapping[str, str] | None = None
    """Reasons by key of the regions that need not be read."""
    mask: PlannedMask | None = None
    """The mask of what is not analysed, or flagged; None without one."""

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """All regions, plane by plane and row by row, including those skipped."""
        return tuple(
            cut_regions(self.grid, tile=self.spec.tile, halo=self.spec.halo, overlap=self.overlap, hd_num=self.hd_num)
        )

    @property
    def remaining(self) -> list[Region]:
        """The regions that are not skipped."""
        return [region for region in self.regions if region.key not in (self.skipped or {})]

    @property
    def largest_region(self) -> Region:
        """A region with the most tiles."""
        return max(self.regions, key=lambda region: region.tiles[0] * region.tiles[1])

    def area_px(self, region: Region) -> float:
        """Level-0 pixels of what a region reports: of slices alone, not of the empty parts of a montage."""
        if self.montage is None:
            return region.core.width * region.core.height
        return float(len(self.montage.on_page(region.plane)) * self.info.size[0] * self.info.size[1])

    def reported_boxes(self, region: Region) -> list[tuple[Box, int]]:
        """(box, plane) of what a region reports, in level-0 pixels: each slice of a montage's page, else its core."""
        if self.montage is None:
            return [(region.core, region.plane)]
        return [(self.info.box, plane) for plane in self.montage.on_page(region.plane)]

    @property
    def left_out(self) -> list[int]:
        """The slices that are on no page of a montage."""
        return [] if self.montage is None else sorted({*range(len(self.info.planes))} - {*self.montage.planes})

    @property
    def analysis_metres(self) -> tuple[float, float] | None:
        """Metres on the ground per analysed pixel along x and y, at the image centre; None where not known."""
        actual = ground_metres(self.info)
        return None if actual is None else (actual[0] * self.grid.scale[0], actual[1] * self.grid.scale[1])

    def to_json(self) -> dict[str, Any]:
        """Values for JSON, without the regions, which follow from them."""
        tissue = (
            "" if self.tissue_area is None or self.tissue_area is self.area else shapely.to_geojson(self.tissue_area)
        )
        return {
            "info": self.info.to_json(),
            "spec": _INPUT_SPEC.dump_python(self.spec, mode="json"),
            "scale": list(self.grid.scale),
            "hd_num": self.hd_num,
            "overlap": self.overlap,
            "stretch": None if self.stretch is None else self.stretch.to_json(),
            "unseen": self.no_rgb_reason,
            "area": None if self.area is None else json.loads(shapely.to_geojson(self.area)),
            "beyond": self.outside_reason,
            "tissue": self.tissue,
            "warnings": list(self.warnings),
            **({"forced": self.forced} if self.forced else {}),
            **({} if self.grid.orientation == UPRIGHT else {"orientation": asdict(self.grid.orientation)}),
            **({} if self.montage is None else {"montage": asdict(self.montage)}),
            **({} if self.mask is None else {"mask": self.mask.to_json()}),
            **({"tissue_area": json.loads(tissue)} if tissue else {}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`, without `skipped`. Raises where a value has the wrong type."""
        info = ImageInfo.from_json(record["info"])
        fields = _PlanFields.model_validate(record)
        area = None if record["area"] is None else shapely.geometry.shape(record["area"])
        tissue_area = area if fields.tissue else None
        if "tissue_area" in record:
            tissue_area = shapely.geometry.shape(record["tissue_area"])
        return cls(
            info=info,
            spec=_INPUT_SPEC.validate_python(record["spec"]),
            grid=_grid(info, fields.montage, fields.scale, fields.orientation),
            hd_num=fields.hd_num,
            overlap=fields.overlap,
            stretch=fields.stretch,
            no_rgb_reason=fields.no_rgb_reason,
            area=area,
            tissue_area=tissue_area,
            outside_reason=fields.outside_reason,
            tissue=fields.tissue,
            warnings=fields.warnings,
            forced=fields.forced,
            montage=fields.montage,
            mask=PlannedMask.from_json(record["mask"]) if "mask" in record else None,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All images of a run and the outcome of every input file."""

    images: tuple[ImagePlan, ...]
    files: tuple[FileRow, ...]

    @property
    def volume_infos(self) -> list[ImageInfo]:
        """The stacks that are analysed as a whole."""
        return [image.info for image in self.images if image.spec.volume is not None]

    @property
    def volumes(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(info.id for info in self.volume_infos)

    @property
    def digest(self) -> str:
        """A sha256 of everything that determines which pixels are analysed and how."""
        content = [[image.to_json(), [region.key for region in image.regions], image.skipped] for image in self.images]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_plan(
    settings: Settings,
    scanned: Sequence[ScannedFile],
    annotator: Annotator | None,
    on_event: EventHandler = lambda _: None,
    *,
    ready: bool = True,
    kept: KeptOverviews | None = None,
    clouds: Mapping[str, FoundMask] | None = None,
) -> Plan:
    """Plan every image that can be analysed; the others become failed rows. Without an annotator all is skipped.

    An annotator that is not `ready`, since files are missing, is not fitted to the images' pixels. `kept` are the
    overviews that need not be read, and keeps others. `clouds` are the masks of images that the cloud model has made.

    Raises an image's error where no image is left: `RequestError` or `ModelError` where the settings suit no image,
    `ReadError` where none could be read.
    """
    plans: list[ImagePlan] = []
    failed: dict[str, LimnerError] = {}
    infos = [info for row in scanned for info in row.infos]
    _check_tissue(settings, infos)
    for number, info in enumerate(infos):

        def on_step(share: float, step: str, number: int = number, image: str = info.id) -> None:
            on_event(Inspecting(image, number, len(infos), share, step))

        try:
            plans.append(_plan_image(info, annotator, settings, on_step, ready=ready, kept=kept, clouds=clouds))
        except LimnerError as error:
            failed[info.id] = error
        on_step(1.0, "planning")
    if not plans:
        raise _no_image_left(scanned, list(failed.values()))
    return Plan(tuple(plans), tuple(_file_rows(scanned, failed)))


def _check_tissue(settings: Settings, infos: Sequence[ImageInfo]) -> None:
    """Raise `RequestError` where one file of tissue is given for several slides, or cores are asked for without any."""
    slides = sum(info.kind == "slide" for info in infos)
    if settings.tma and infos and not slides:
        kinds = ", ".join(sorted({f"a {info.kind}" for info in infos}))
        raise RequestError("--tma", "must be given for slides", value=kinds, remedy="Leave it out")
    if not is_path(settings.tissue):
        return
    if not is_remote(settings.tissue) and not Path(settings.tissue).exists():
        rule, remedy = "must be auto, off, or a file or folder that exists", "Give --tissue off to analyse whole slides"
        raise RequestError("--tissue", rule, value=settings.tissue, remedy=remedy)
    if not Path(settings.tissue).is_dir() and slides != 1:
        rule, remedy = "must be for one slide, being one file", "Give a folder with tissue-ID.geojson for each slide"
        raise RequestError("--tissue", rule, value=plural(slides, "slide"), remedy=remedy)


def area_digest(settings: Settings) -> str:
    """The sha256 of the area-of-interest file, or of the files of a Shapefile; "" without one."""
    return vector_digest(settings.area) if settings.area else ""


@dataclass(frozen=True, slots=True)
class HeaderPlan:
    """What is decided of an image before any of its pixels is read."""

    info: ImageInfo
    """With notes."""
    spec: InputSpec
    planes: frozenset[int]
    """The slices to analyse, from 0."""
    montage: StackMontage | None
    grid: Grid


def plan_headers(info: ImageInfo, annotator: Annotator | None, settings: Settings) -> HeaderPlan:
    """Whether a model suits an image, and at which pixel size it sees it, by the image's headers.

    Raises `LimnerError` where it does not.
    """
    spec = DEFAULT_INPUT_SPEC if annotator is None else annotator.input_spec(info)
    info = with_model_window(info, spec, settings)
    if spec.volume is not None:
        _check_volume(info, settings)
    planes = _chosen_planes(info, settings)
    whole = _whole_tiles(info, annotator, settings)
    info = replace(info, notes=(*info.notes, *_size_notes(info, spec, settings, whole)))
    montage = _montage(info, spec, settings, planes)
    grid = _grid(info, montage, analysis_scale(info, spec, settings, whole, montage), image_orientation(info))
    check_domain(info, annotator, settings, grid.scale, stain_known=False)
    return HeaderPlan(info, spec, planes, montage, grid)


def _plan_image(
    info: ImageInfo,
    annotator: Annotator | None,
    settings: Settings,
    on_step: OnStep,
    *,
    ready: bool,
    kept: KeptOverviews | None,
    clouds: Mapping[str, FoundMask] | None,
) -> ImagePlan:
    """Plan one image. Raises `LimnerError`."""
    headers = plan_headers(info, annotator, settings)  # before the overview is read
    info, spec, planes, montage, grid = headers.info, headers.spec, headers.planes, headers.montage, headers.grid
    mask, mask_warnings = plan_mask(settings, info, clouds)
    stats = compute_overview_stats(info, spec, settings, annotator, on_step, kept)
    domain = check_domain(stats.info, annotator, settings, grid.scale)
    info = replace(stats.info, notes=(*stats.info.notes, *filter(None, [stats.note]), *domain.notes))
    picture_spec = stats.spec
    if ready and isinstance(annotator, SupportsPictureFit):
        on_step(FITTED, "fitting the model to")
        picture_spec = fit_to_picture(annotator, info, grid, stats)
    plan = ImagePlan(
        info,
        picture_spec,
        grid,
        settings.hd_num,
        max(settings.overlap, stats.spec.overlap),
        stretch=stats.stretch,
        no_rgb_reason=stats.no_rgb_reason,
        area=stats.roi.area,
        user_area=stats.roi.user_area,
        tissue_area=stats.roi.tissue,
        outside_reason=stats.roi.outside_reason,
        tissue=stats.roi.tissue_method,
        warnings=(*domain.warnings, *stats.roi.warnings, *mask_warnings),
        forced=domain.forced,
        montage=montage,
        mask=mask,
    )
    no_model = NO_MODEL if annotator is None else ""
    reasons = {
        region.key: (
            NOT_CHOSEN if montage is None and region.plane not in planes else stats.roi.skip_reason(region.core)
        )
        or no_model
        for region in plan.regions
    }
    return replace(plan, skipped={key: reason for key, reason in reasons.items() if reason})


def _grid(info: ImageInfo, montage: StackMontage | None, scale: tuple[float, float], orientation: Orientation) -> Grid:
    if montage is None:
        return Grid(info.id, info.size, scale, len(info.planes), orientation)
    return Grid(info.id, montage.page_size, scale, montage.pages, unit="page")


def _montage(info: ImageInfo, spec: InputSpec, settings: Settings, planes: frozenset[int]) -> StackMontage | None:
    """The montage in which a stack is shown; None for other images, and without one.

    Raises `RequestError` for a model that cannot be shown one.
    """
    if settings.stack != "montage" or info.kind != "study" or len(info.planes) == 1:
        return None
    shown = spec.bands is None and not spec.halo and not spec.overlap
    if not shown or settings.area or settings.overlap:
        value = "a model that reads values of pixels" if not shown else "--area" if settings.area else "--overlap"
        rule, remedy = "must not be a montage for a model that maps pixels, or with an area or overlap", "Leave it out"
        raise RequestError("--stack", rule, value=value, remedy=remedy)
    pixel = ground_metres(info) or pixel_aspect(info)
    return StackMontage.of(sorted(planes), info.size, pixel, tile=spec.tile, cells=settings.hd_num)


def _chosen_planes(info: ImageInfo, settings: Settings) -> frozenset[int]:
    """The planes to analyse, from 0. Raises `NothingChosenError`, and `RequestError` for an image without slices."""
    choice = settings.slice_choice()
    if choice is None:
        return frozenset(range(len(info.planes)))
    if info.kind != "study":
        value, remedy = ",".join(settings.slices), "Leave --slices out, or give the other images a run of their own"
        raise RequestError(
            info.uri, "must be a study, since --slices chooses slices", value=f"a {info.kind}, {value}", remedy=remedy
        )
    if not (planes := choice.planes(info)):
        rule, remedy = f"must have a slice that --slices {','.join(settings.slices)} chooses", "Choose among its slices"
        raise NothingChosenError(info.uri, rule, value=slices_text(info), remedy=remedy)
    return planes


def _whole_tiles(info: ImageInfo, annotator: Annotator | None, settings: Settings) -> int:
    """Tiles in which an image is shown whole, as asked for or as the model was made to see such images; 0 to cut it."""
    if settings.whole:
        return settings.hd_num
    domain = annotator.domain if isinstance(annotator, SupportsDomain) else ()
    return 0 if settings.resolution else min(settings.hd_num, whole_tiles(domain, info))


def _size_notes(info: ImageInfo, spec: InputSpec, settings: Settings, whole: int) -> list[str]:
    """What is unchecked where the pixel size is unknown, and that an image is shown whole without being asked for."""
    notes: list[str] = []
    if spec.resolution is not None and ground_metres(info) is None:
        size = f"{spec.resolution:g} {'µm' if spec.unit == 'um' else 'm'}"
        notes.append(
            f"The pixel size is unknown, so it was not checked that the model, made for {size}, suits the picture."
        )
    if whole and not settings.whole:
        notes.append(
            f"It is shown whole in at most {plural(whole, 'tile')}, as the images were that the model was made with; "
            "--whole shows it in up to hd_num tiles, --resolution native its own pixels in regions."
        )
    return notes


def _check_volume(info: ImageInfo, settings: Settings) -> None:
    """Raise `RequestError` for what cannot be asked of a model that labels the voxels of a whole stack."""
    whole, slices = "yes" if settings.whole else "", ",".join(settings.slices)
    why = f"for a model of volumes, which takes all slices at a voxel size of its own; it concerns {info.id}"
    for name, value in (("resolution", settings.resolution), ("whole", whole), ("slices", slices)):
        if value:
            raise RequestError(f"--{name}", f"must not be given {why}", value=value, remedy=f"Leave --{name} out")


def _no_image_left(scanned: Sequence[ScannedFile], failed: Sequence[LimnerError]) -> LimnerError:
    """The error to raise where no image can be analysed: wrong settings come before unreadable files."""
    for error in failed:
        if not isinstance(error, ReadError):
            return error
    reasons = [
        row.reason if row.reason.startswith(row.path) else f"{row.path}: {row.reason}"
        for row in scanned
        if row.status == "failed"
    ]
    reasons += [str(error) for error in failed]
    skipped = Counter(row.reason for row in scanned if row.status == "skipped")
    reasons += [f"{plural(number, 'file')} skipped: {reason}" for reason, number in sorted(skipped.items())]
    return ReadError(
        "inputs",
        "must hold at least one readable image",
        value="; ".join(reasons) or "no images",
        remedy="`limner plugins` lists the readers",
    )


def _file_rows(scanned: Sequence[ScannedFile], failed: Mapping[str, LimnerError]) -> list[FileRow]:
    """A row for every input file. The files of images that cannot be planned are failed, or skipped."""
    images_of: dict[str, list[str]] = {}
    for info in (info for row in scanned for info in row.infos):
        for path in dict.fromkeys([*info.files, *(plane.source for plane in info.planes)]):
            images_of.setdefault(path, []).append(info.id)
    rows: list[FileRow] = []
    for row in scanned:
        ids = [info.id for info in row.infos] or images_of.get(row.path, []) if row.status == "read" else []
        errors = [failed[image] for image in ids if image in failed]
        status, images = row.status, [image for image in ids if image not in failed]
        if errors and not images:
            outside = all(isinstance(error, NothingChosenError) for error in errors)
            status = "skipped" if outside else "failed"
        reason = " ".join(map(str, errors)) or row.reason
        rows.append(FileRow(row.path, status, ", ".join(images), row.reader, reason))
    return rows
