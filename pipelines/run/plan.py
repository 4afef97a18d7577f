"""The plan: which images, seen how finely, in which regions. Made before anything runs; data, not action.

Every input file ends up with a row, every image's every pixel in a region, every region either to be looked at or
skipped with its reason. What makes an image impossible is that image's row, and the other images go on.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import shapely
from pydantic import BaseModel, Field, TypeAdapter
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, InputSpec
from ...readers.errors import LimnerError, ReadError, RequestError
from ...readers.image import ImageInfo
from ...readers.regions import Grid, Region, cut_regions
from ...readers.registry import ScannedFile, known_options, scan
from ...readers.render import Stretch
from ...reports.writer import FileRow
from ..config import HD_NUM, Settings
from .analysis_resolution import grid_scale, ground_metres
from .events import plural
from .overview_stats import glance
from .roi import OUTSIDE, OutsideAreaError
from .run_folder import is_run

RUN_FOLDER = "the folder of a run: what it holds are results"
NO_MODEL = "no model"
UNSEEING = InputSpec(tile=336)  # how an image is cut where there is no annotator: as vision encoders see it

_SIGHT = TypeAdapter(InputSpec)


class _Rest(BaseModel):
    """What else a plan says, as `ImagePlan.to_json` writes it."""

    scale: tuple[float, float]
    hd_num: Annotated[int, Field(ge=HD_NUM[0], le=HD_NUM[-1])]
    overlap: Annotated[int, Field(ge=0)]
    stretch: Stretch | None
    unseen: str
    beyond: str
    tissue: str


@dataclass(frozen=True)
class ImagePlan:
    """How one image is looked at.

    `grid`, `spec`, `hd_num` and `overlap` decide its regions. `stretch` renders it in 8-bit RGB; where that would be
    a guess it is None and `unseen` says why. `area` is where it is worth looking, in level-0 pixels: what was drawn,
    and what is tissue (`tissue` says how it was found); what lies `beyond` is left out for that reason. `skipped` maps
    keys of regions that need not be read to the reason.
    """

    info: ImageInfo
    spec: InputSpec
    grid: Grid
    hd_num: int
    overlap: int
    stretch: Stretch | None = None
    unseen: str = ""
    area: BaseGeometry | None = None
    beyond: str = OUTSIDE
    tissue: str = ""
    skipped: Mapping[str, str] | None = None

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """All its regions, plane by plane and row by row, also those skipped."""
        return tuple(
            cut_regions(self.grid, tile=self.spec.tile, halo=self.spec.halo, overlap=self.overlap, hd_num=self.hd_num)
        )

    @property
    def analysis_metres(self) -> tuple[float, float] | None:
        """Metres on the ground of a pixel as seen, along x and y in the image's middle; None where not known."""
        actual = ground_metres(self.info)
        return None if actual is None else (actual[0] * self.grid.scale[0], actual[1] * self.grid.scale[1])

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes, without the regions, which follow from them."""
        return {
            "info": self.info.to_json(),
            "spec": _SIGHT.dump_python(self.spec, mode="json"),
            "scale": list(self.grid.scale),
            "hd_num": self.hd_num,
            "overlap": self.overlap,
            "stretch": None if self.stretch is None else self.stretch.to_json(),
            "unseen": self.unseen,
            "area": None if self.area is None else json.loads(shapely.to_geojson(self.area)),
            "beyond": self.beyond,
            "tissue": self.tissue,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; what was skipped is in the results. Raises where a value is of another kind."""
        info = ImageInfo.from_json(record["info"])
        rest = _Rest.model_validate(record)
        return cls(
            info=info,
            spec=_SIGHT.validate_python(record["spec"]),
            grid=Grid(info.id, info.size, rest.scale, len(info.planes)),
            hd_num=rest.hd_num,
            overlap=rest.overlap,
            stretch=rest.stretch,
            unseen=rest.unseen,
            area=None if record["area"] is None else shapely.geometry.shape(record["area"]),
            beyond=rest.beyond,
            tissue=rest.tissue,
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


def make_plan(settings: Settings, scanned: Sequence[ScannedFile], annotator: Annotator | None) -> Plan:
    """Plan every image that can be read and seen; the others become failed rows. Without an annotator all is skipped.

    Raises the first error where no image is left: `ReadError` where nothing could be read, `RequestError` or
    `ModelError` where what was asked does not suit any image.
    """
    plans: list[ImagePlan] = []
    failed: dict[str, LimnerError] = {}
    for row in scanned:
        for info in row.infos:
            try:
                plans.append(_plan_image(info, annotator, settings))
            except LimnerError as error:
                failed[info.id] = error
    if not plans:
        raise _nothing_left(scanned, list(failed.values()))
    return Plan(tuple(plans), tuple(_file_rows(scanned, failed)))


def reading_options(settings: Settings, key: str = "") -> dict[str, str]:
    """The readers' options: what a person says of the files, and what follows from settings for readers that care.

    `key` is a pseudonyms' key file.
    """
    known = known_options(settings.reader or None)
    follow = {"names": settings.names}
    follow |= {"key_file": key} if key else {}
    return {option: value for option, value in follow.items() if option in known} | settings.reading()


def scan_inputs(settings: Settings, options: Mapping[str, str]) -> list[ScannedFile]:
    """What the inputs are; neither the results of this run nor those of others. Raises `RequestError` for none."""
    if not settings.inputs:
        raise RequestError("inputs", "at least one file or folder is needed", remedy="limner run INPUT... --out DIR")

    def apart(folder: str) -> str | None:
        if settings.out and os.path.exists(settings.out) and os.path.samefile(folder, settings.out):  # noqa: PTH110, PTH121 - as the registry spells paths
            return ""
        return RUN_FOLDER if is_run(Path(folder)) else None

    return scan(settings.inputs, options, reader=settings.reader or None, apart=apart)


def area_digest(settings: Settings) -> str:
    """Sha256 of the area-of-interest file, "" without one."""
    return hashlib.sha256(Path(settings.area).read_bytes()).hexdigest() if settings.area else ""


def _plan_image(info: ImageInfo, annotator: Annotator | None, settings: Settings) -> ImagePlan:
    """One image's plan. Raises `LimnerError` that says what about it cannot be done."""
    spec = UNSEEING if annotator is None else annotator.input_spec(info)
    scale = grid_scale(info, spec, settings)
    seen = glance(info, spec, settings, annotator)
    plan = ImagePlan(
        info,
        seen.spec,
        Grid(info.id, info.size, scale, len(info.planes)),
        settings.hd_num,
        settings.overlap,
        stretch=seen.stretch,
        unseen=seen.unseen,
        area=seen.interest.area,
        beyond=seen.interest.beyond,
        tissue=seen.interest.method,
    )
    otherwise = NO_MODEL if annotator is None else ""
    reasons = {region.key: seen.interest.why_skipped(region.core) or otherwise for region in plan.regions}
    return replace(plan, skipped={key: reason for key, reason in reasons.items() if reason})


def _nothing_left(scanned: Sequence[ScannedFile], failed: Sequence[LimnerError]) -> LimnerError:
    """The error to raise where no image can be looked at: what was asked for counts before what could not be read."""
    for error in failed:
        if not isinstance(error, ReadError):
            return error
    reasons = [f"{row.path}: {row.reason}" for row in scanned if row.status == "failed"]
    reasons += [str(error) for error in failed]
    left_out = Counter(row.reason for row in scanned if row.status == "skipped")
    reasons += [f"{plural(number, 'file')} skipped: {reason}" for reason, number in sorted(left_out.items())]
    return ReadError(
        "inputs",
        "at least one image must be readable",
        value="; ".join(reasons) or "no images",
        remedy="`limner plugins` lists what can read which formats",
    )


def _file_rows(scanned: Sequence[ScannedFile], failed: Mapping[str, LimnerError]) -> list[FileRow]:
    """A row for every input file; files of an image that cannot be planned have failed with it, or are skipped."""
    image_of: dict[str, list[str]] = {}
    for info in (info for row in scanned for info in row.infos):
        for path in dict.fromkeys([*info.files, *(plane.source for plane in info.planes)]):
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
