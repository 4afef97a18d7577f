"""The mask of a run's images: what it is, how it is kept in a manifest, and which pixels of a region it masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field

from ...model.annotator import Masked
from ...model.views import roi_mask
from ...readers.errors import RequestError
from ...readers.image import ImageInfo
from ...readers.mask_files import BANDS, FoundMask, find_band_mask, find_file_mask
from ...readers.masks import ImageMask, OpenMask
from ...readers.raster.stac import keep_queries
from ...readers.regions import Region
from ..config import CLOUD_MODEL, Settings

MASK: Final = "mask"
"""The name of the mask (H, W) of a core among the rasters of a result; one of which nothing is masked has none."""

CLOUD_MASK: Final = "cloud mask"
FILE_MASK: Final = "mask"
"""Reasons for which something was not analysed."""

UNDER: Final = "under the {}"
"""The reason of what was analysed all the same, with one of these."""

Action = Literal["exclude", "flag"]


@dataclass(frozen=True, slots=True)
class PlannedMask:
    """The mask of one image in a plan."""

    reason: str
    """Why what is masked was not analysed."""
    how: str
    """What is masked, in words, without a path."""
    action: Action
    sha256: str = ""
    """Of the file, or of the run of the model that made it."""
    mask: ImageMask | None = None
    """Not kept in a manifest; None also in a plan of a model that has not run yet."""

    @property
    def excludes(self) -> bool:
        """Whether what is masked is not analysed."""
        return self.action == "exclude"

    def to_json(self) -> dict[str, Any]:
        """Values for JSON, without the mask itself."""
        return {"reason": self.reason, "how": self.how, "action": self.action, "sha256": self.sha256}

    @classmethod
    def from_json(cls, record: object) -> Self:
        """The inverse of `to_json`. Raises `ValueError` for a value of a wrong type."""
        fields = _Fields.model_validate(record)
        return cls(fields.reason, fields.how, fields.action, fields.sha256)


class _Fields(BaseModel, strict=True, extra="forbid"):
    reason: Annotated[str, Field(min_length=1)]
    how: str
    action: Action
    sha256: str = ""


def plan_mask(
    settings: Settings, info: ImageInfo, clouds: Mapping[str, FoundMask] | None
) -> tuple[PlannedMask | None, tuple[str, ...]]:
    """The mask of an image that the settings ask for, and warnings of it.

    clouds: masks by image that the cloud model has made; None where it has not run. Raises `RequestError`, `ReadError`.
    """
    name, values = settings.mask, tuple(map(int, settings.mask_values))
    if not name:
        return None, ()
    if info.kind == "study":
        remedy = "Leave --mask out, or give the studies a run of their own"
        raise RequestError(info.uri, "must be a map or a slide, since --mask is given", value="a study", remedy=remedy)
    if name == CLOUD_MODEL:
        if clouds is None:
            how = f"{CLOUD_MODEL}: cloud and shadow, found before anything else is analysed"
            return PlannedMask(CLOUD_MASK, how, settings.mask_action), ()
        if info.id not in clouds:
            remedy = "Leave it out, or give --mask FILE"
            raise RequestError(info.uri, f"must be an image that {CLOUD_MODEL} can analyse", remedy=remedy)
        found = clouds[info.id]
    elif name in BANDS:
        found = find_band_mask(name, info, values)
    else:
        found = find_file_mask(name, info, values)
    reason = FILE_MASK if name != CLOUD_MODEL and name not in BANDS else CLOUD_MASK
    planned = PlannedMask(reason, found.how, settings.mask_action, found.sha256, found.mask)
    return planned, (found.warning,) if found.warning else ()


class RegionMasks:
    """Reads what the masks of a job's images mask, with one open file an image, for one worker."""

    def __init__(self) -> None:
        self._open: dict[str, OpenMask] = {}

    def masked(self, planned: PlannedMask | None, info: ImageInfo, region: Region) -> Masked | None:
        """What is masked of a region; None for an image without a mask. Raises `ReadError`."""
        if planned is None or planned.mask is None:
            return None
        raster = planned.mask.raster
        if raster is None:
            return Masked(roi_mask(region, planned.mask.area, whole=True), exclude=planned.excludes)
        if info.id not in self._open:
            self.close()
            keep_queries(info.files)  # before the image itself is open
            self._open[info.id] = raster.open()
        return Masked(self._open[info.id].masked(region, info.placement), exclude=planned.excludes)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()
