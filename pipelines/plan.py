"""The plan: which images, seen how finely, in which regions. Made before anything runs; data, not action.

Every input file ends up with a row, every image's every pixel in a region, every region either to be looked at or
skipped with its reason. What makes an image impossible is that image's row, and the other images go on.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import shapely
from pydantic import TypeAdapter
from shapely.geometry.base import BaseGeometry

from ..model.annotator import Annotator, Sight
from ..readers.area import place_area, read_area
from ..readers.bands import resolve
from ..readers.errors import LimnerError, ModelError, ReadError, RequestError
from ..readers.geodesy import metres_per_pixel, on_earth
from ..readers.image import ImageInfo, Mask
from ..readers.overview import read_overview
from ..readers.regions import Grid, Region, cut, snap_scale
from ..readers.registry import Scanned, open_image, scan
from ..readers.render import Stretch, fit_stretch, rgb_channels
from ..reports.writer import FileRow
from .config import Settings
from .resolution import Resolution, format_metres

OUTSIDE = "outside the area of interest"
EMPTY = "no valid pixels"
MOST_ENLARGED = 16
DILATION = 2  # overview pixels: what is valid by less than half of one must not be lost

_INFO = TypeAdapter(ImageInfo)
_SIGHT = TypeAdapter(Sight)


@dataclass(frozen=True)
class ImagePlan:
    """How one image is looked at.

    `grid`, `sight`, `hd_num` and `overlap` decide its regions. `stretch` renders it in 8-bit RGB; where that would be
    a guess it is None and `unseen` says why. `area` is the area of interest in level-0 pixels. `skipped` maps keys of
    regions that need not be read to the reason.
    """

    info: ImageInfo
    sight: Sight
    grid: Grid
    hd_num: int
    overlap: int
    stretch: Stretch | None = None
    unseen: str = ""
    area: BaseGeometry | None = None
    skipped: Mapping[str, str] | None = None

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """All its regions, row by row, also those skipped."""
        return tuple(
            cut(self.grid, tile=self.sight.tile, halo=self.sight.halo, overlap=self.overlap, hd_num=self.hd_num)
        )

    @property
    def seen_metres(self) -> tuple[float, float] | None:
        """Metres on the ground of a pixel as seen, along x and y in the image's middle; None where not known."""
        actual = ground_metres(self.info)
        return None if actual is None else (actual[0] * self.grid.scale[0], actual[1] * self.grid.scale[1])

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes, without the regions, which follow from them."""
        return {
            "info": _INFO.dump_python(self.info, mode="json"),
            "sight": _SIGHT.dump_python(self.sight, mode="json"),
            "scale": list(self.grid.scale),
            "hd_num": self.hd_num,
            "overlap": self.overlap,
            "stretch": None if self.stretch is None else self.stretch.to_json(),
            "unseen": self.unseen,
            "area": None if self.area is None else json.loads(shapely.to_geojson(self.area)),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; what was skipped is in the results."""
        info = _INFO.validate_python(record["info"])
        return cls(
            info=info,
            sight=_SIGHT.validate_python(record["sight"]),
            grid=Grid(info.id, info.size, tuple(record["scale"])),
            hd_num=record["hd_num"],
            overlap=record["overlap"],
            stretch=None if record["stretch"] is None else Stretch.from_json(record["stretch"]),
            unseen=record["unseen"],
            area=None if record["area"] is None else shapely.geometry.shape(record["area"]),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All images of a run and what became of every input file."""

    images: tuple[ImagePlan, ...]
    files: tuple[FileRow, ...]

    @property
    def digest(self) -> str:
        """A sha256 over everything that decides which pixels are looked at and how."""
        content = [[image.to_json(), [region.key for region in image.regions], image.skipped] for image in self.images]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_plan(settings: Settings, scanned: Sequence[Scanned], annotator: Annotator) -> Plan:
    """Plan every image that can be read and seen; the others become failed rows.

    Raises the first error where no image is left: `ReadError` where nothing could be read, `RequestError` or
    `ModelError` where what was asked does not suit any image.
    """
    area = read_area(settings.area) if settings.area else None
    plans: list[ImagePlan] = []
    failed: dict[str, LimnerError] = {}
    for row in scanned:
        for info in row.infos:
            try:
                plans.append(_plan_image(info, annotator.sight(info), settings, area))
            except LimnerError as error:
                failed[info.id] = error
    if not plans:
        raise _nothing_left(scanned, list(failed.values()))
    return Plan(tuple(plans), tuple(_file_rows(scanned, failed)))


def scan_inputs(settings: Settings) -> list[Scanned]:
    """What the inputs are. Raises `RequestError` where none is given."""
    if not settings.inputs:
        raise RequestError("inputs", "at least one file or folder is needed", remedy="limner run INPUT... --out DIR")
    return scan(settings.inputs, settings.reading(), reader=settings.reader or None)


def area_digest(settings: Settings) -> str:
    """Sha256 of the area-of-interest file, "" without one."""
    return hashlib.sha256(Path(settings.area).read_bytes()).hexdigest() if settings.area else ""


def ground_metres(info: ImageInfo) -> tuple[float, float] | None:
    """Metres on the ground of a level-0 pixel along x and y in the image's middle; None where nothing tells."""
    return metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2))


def channel_names(info: ImageInfo, sight: Sight, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a sight needs, in its order: its bands, or the stretch's channels for RGB."""
    if sight.bands is None:
        return () if stretch is None else stretch.channels
    return resolve(info.channels, sight.bands)


def _plan_image(info: ImageInfo, sight: Sight, settings: Settings, area: BaseGeometry | None) -> ImagePlan:
    """One image's plan. Raises `LimnerError` that says what about it cannot be done."""
    placed = None if area is None else _place(area, info)
    scale = _grid_scale(info, sight, settings)
    plan = ImagePlan(info, sight, Grid(info.id, info.size, scale), settings.hd_num, settings.overlap, area=placed)
    stretch, unseen, filled = _overview_facts(info, sight)
    if sight.bands is None and stretch is None:
        raise ReadError(info.uri, f"the model sees pictures in RGB, and {unseen}", remedy="Name the bands with --bands")
    skipped = {} if placed is None else {r.key: OUTSIDE for r in plan.regions if not placed.intersects(_core(r))}
    if settings.skip_empty:
        skipped |= {r.key: EMPTY for r in plan.regions if r.key not in skipped and not filled.touches(r)}
    return replace(plan, stretch=stretch, unseen=unseen, skipped=skipped)


class OutsideAreaError(RequestError):
    """The area of interest does not touch this image: no fault of the image where it touches another."""


def _place(area: BaseGeometry, info: ImageInfo) -> BaseGeometry:
    """The area on the image. Raises `OutsideAreaError` off it, another `RequestError` where the image has no place."""
    try:
        return place_area(area, info)
    except RequestError as error:
        if on_earth(info.placement):
            raise OutsideAreaError(error.thing, error.rule, value=error.value, remedy=error.remedy) from error
        raise


def _grid_scale(info: ImageInfo, sight: Sight, settings: Settings) -> tuple[float, float]:
    """Level-0 pixels a grid pixel. Raises where the ground size must be known and is not, or does not suit the model.

    What was asked for comes first, then what the annotator was made for, then the picture's own.
    """
    made_for = sight.resolution
    if made_for is not None and sight.unit == "um":
        made_for *= 1e-6
    wanted = Resolution.parse(settings.resolution) or Resolution(made_for)
    actual = ground_metres(info)
    if actual is None:
        if wanted.metres is None and made_for is None:
            return 1.0, 1.0
        asked = f"--resolution {settings.resolution}" if wanted.metres and settings.resolution else "the model"
        raise RequestError(
            info.uri,
            f"the size of its pixels on the ground must be known, since {asked} needs it",
            value=f"no coordinate reference system (placement from {info.placement.source})",
            remedy="State it with --crs, for example --crs EPSG:32618, where the file has a geotransform",
        )
    scale = snap_scale(min(actual) if wanted.metres is None else wanted.metres, actual)
    if min(scale) < 1 / MOST_ENLARGED:
        raise RequestError(
            info.uri,
            f"pixels are not enlarged more than {MOST_ENLARGED} times, since that shows nothing more",
            value=f"pixels of {format_metres(max(actual))} to be seen at {format_metres(wanted.metres or min(actual))}",
            remedy="Give a coarser --resolution",
        )
    if made_for is not None:
        _refuse_unsuited(info, actual, scale, made_for, sight.tolerates)
    return scale


def _refuse_unsuited(
    info: ImageInfo, actual: tuple[float, float], scale: tuple[float, float], made_for: float, tolerates: float
) -> None:
    """Raise `ModelError` where pixels as seen, or the detail in them where they are enlarged, do not suit the model."""
    seen = math.sqrt(actual[0] * scale[0] * actual[1] * scale[1])
    detail = math.sqrt(actual[0] * actual[1] * max(1.0, scale[0]) * max(1.0, scale[1]))
    slack = tolerates * (1.0 + 1e-6)
    for metres, word in ((seen, "pixels seen at"), (detail, "pixels of the picture of")):
        if not 1 / slack <= metres / made_for <= slack:
            raise ModelError(
                info.uri,
                f"the model was made for pixels of {format_metres(made_for)} and works within a factor {tolerates:g}",
                value=f"{word} {format_metres(metres)}",
                remedy="Leave --resolution out where the picture is fine enough, or choose another model",
            )


@dataclass(frozen=True, slots=True)
class _Filled:
    """Where an overview may hold valid pixels, a little enlarged; `scale` level-0 pixels a pixel (x, y)."""

    mask: Mask
    scale: tuple[float, float]

    def touches(self, region: Region) -> bool:
        core = region.core
        x0, x1 = math.floor(core.x0 / self.scale[0]), math.ceil(core.x1 / self.scale[0])
        y0, y1 = math.floor(core.y0 / self.scale[1]), math.ceil(core.y1 / self.scale[1])
        return bool(self.mask[y0:y1, x0:x1].any())


def _overview_facts(info: ImageInfo, sight: Sight) -> tuple[Stretch | None, str, _Filled]:
    """The stretch from the overview (or why there is none), and where there may be valid pixels."""
    unseen = ""
    try:
        shown = rgb_channels(info.channels)
    except ReadError as error:
        shown, unseen = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
    names = tuple(dict.fromkeys([*shown, *channel_names(info, sight, None)])) or (info.channels[0].name,)
    with open_image(info, names) as image:
        pixels, valid, readable, scale = read_overview(image)
        stretch = fit_stretch(pixels[..., : len(shown)], valid, image.channels[: len(shown)]) if shown else None
    return stretch, unseen, _Filled(_dilate(valid | ~readable), scale)


def _dilate(mask: Mask) -> Mask:
    """The mask grown by `DILATION` pixels in every direction."""
    grown = mask.copy()
    for axis in (0, 1):
        source = grown.copy()
        for step in range(1, DILATION + 1):
            ahead: list[slice] = [slice(None), slice(None)]
            behind: list[slice] = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            grown[tuple(ahead)] |= source[tuple(behind)]
            grown[tuple(behind)] |= source[tuple(ahead)]
    return grown


def _core(region: Region) -> BaseGeometry:
    core = region.core
    return shapely.box(core.x0, core.y0, core.x1, core.y1)


def _nothing_left(scanned: Sequence[Scanned], failed: Sequence[LimnerError]) -> LimnerError:
    """The error to raise where no image can be looked at: what was asked for counts before what could not be read."""
    for error in failed:
        if not isinstance(error, ReadError):
            return error
    reasons = [f"{row.path}: {row.reason}" for row in scanned if row.status == "failed"]
    reasons += [str(error) for error in failed]
    return ReadError(
        "inputs",
        "at least one image must be readable",
        value="; ".join(reasons) or "no images",
        remedy="`limner plugins` lists what can read which formats",
    )


def _file_rows(scanned: Sequence[Scanned], failed: Mapping[str, LimnerError]) -> list[FileRow]:
    """A row for every input file; files of an image that cannot be planned have failed with it, or are skipped."""
    image_of: dict[str, list[str]] = {}
    for info in (info for row in scanned for info in row.infos):
        for path in info.files:
            image_of.setdefault(path, []).append(info.id)
    rows: list[FileRow] = []
    for row in scanned:
        ids = [info.id for info in row.infos] or image_of.get(row.path, []) if row.status == "read" else []
        reasons = [str(failed[one]) for one in ids if one in failed]
        lost = bool(ids) and len(reasons) == len(ids)
        beside = lost and all(isinstance(failed[one], OutsideAreaError) for one in ids)
        rows.append(
            FileRow(
                path=row.path,
                status="skipped" if beside else "failed" if lost else row.status,
                image="" if lost else ", ".join(one for one in ids if one not in failed),
                reader=row.reader,
                reason=" ".join(reasons) or row.reason,
            )
        )
    return rows
