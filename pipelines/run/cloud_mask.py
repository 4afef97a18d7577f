"""The masks of the cloud model: a run of its own in the run folder, at the model's own resolution, before the other."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ...readers.files import absolute
from ...readers.mask_files import FoundMask
from ...readers.masks import ImageMask, MaskRaster, MaskRule
from ...reports.class_map import NODATA, NONE
from ...reports.writer import image_file
from ..config import CLOUD_MODEL, Settings
from .manifest import load_manifest
from .plan import ImagePlan

FOLDER: Final = "cloud-mask"
"""The folder of that run in the run folder."""

_CLASSES: Final = "class-map"
_KEPT: Final = (
    *("inputs", "preset", "force_domain", "hd_num", "skip_empty", "reader", "sensor", "bands", "crs"),
    *("microns_per_pixel", "metres_per_pixel", "scene", "names", "crosswalk", "reader_options", "fetch"),
    *("engine", "address", "workers", "gpus_per_worker", "batch", "memory"),
)
"""The settings that hold for the cloud model too."""


def cloud_masks(settings: Settings, folder: Path, run: Callable[[Settings], object]) -> dict[str, FoundMask]:
    """The masks of all images that the cloud model can analyse, by id; it goes on where it was interrupted.

    `run` carries out the settings of a run. Raises `LimnerError` as that does.
    """
    own = folder / FOLDER
    kept = {name: getattr(settings, name) for name in _KEPT}
    run(Settings(**kept, model=CLOUD_MODEL, out=str(own), reports=(_CLASSES,)))
    manifest = load_manifest(own)
    labels = manifest["annotator"]["labels"]
    rule = MaskRule(values=tuple(range(1, 1 + len(labels))), known=(NONE, *range(1, 1 + len(labels)), NODATA))
    found: dict[str, FoundMask] = {}
    for plan in map(ImagePlan.from_json, manifest["images"]):
        path = image_file(own, "classes-", plan.info.id, ".tif")
        if not path.exists():
            continue
        raster = MaskRaster(absolute(str(path)), "", "", plan.grid.shape, plan.info.placement, rule, plan.grid)
        how = f"{CLOUD_MODEL}: {' and '.join(labels)}, and where it has no data"
        found[plan.info.id] = FoundMask(ImageMask(raster), how, _digest(manifest))
    return found


def _digest(manifest: dict[str, Any]) -> str:
    """What decides the masks: the model, its weights and its plan."""
    parts = [manifest["annotator"]["identity"], manifest["plan_sha256"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
