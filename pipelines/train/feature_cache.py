"""Encode the tiles of a region, and cache their features in a folder.

A region's file is named by the hash of everything that decides its content: the encoder, the image's bytes, how it is
read, and where the region lies. Names and paths of images are not in it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...model.annotator import View
from ...model.probe import encoders
from ...model.probe.encoders import Encoder
from ...readers.errors import RequestError
from ...readers.files import write_atomic
from ...readers.orientation import UPRIGHT
from ...readers.regions import Region
from ..run.plan import ImagePlan


@dataclass(frozen=True, slots=True)
class TileFeatures:
    """Features of some of a region's tiles."""

    features: Mapping[int, npt.NDArray[np.float32]]
    """Tile → features (dimensions,); tiles without a valid pixel have none."""
    valid: Mapping[int, float]
    """Tile → share of valid pixels."""


def encode_tiles(view: View, indices: Sequence[int], encoder: Encoder) -> TileFeatures:
    """The features of some tiles of a view. Raises `ModelError` where they are not finite."""
    features: dict[int, npt.NDArray[np.float32]] = {}
    valid: dict[int, float] = {}
    for index in indices:
        valid[index] = round(float(view.valid[index].mean()), 6)
        if view.valid[index].any():
            where = f"tile {index} of {view.region.key}"
            features[index] = encoders.encode(encoder, view.tiles[index], view.valid[index], where)
    return TileFeatures(features, valid)


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A folder of encoded regions. Remote images have no fingerprint and are not cached."""

    folder: Path

    def read(self, plan: ImagePlan, region: Region, encoder: Encoder) -> TileFeatures:
        """The cached features of a region; empty where there are none, or the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._path(plan, region, encoder)
        if path is None or not path.is_file():
            return TileFeatures({}, {})
        try:
            held = load(path.read_bytes())
            valid = dict(zip(held["places"].tolist(), held["valid"].tolist(), strict=True))
            rows = iter(held["features"])
        except (OSError, SafetensorError, KeyError):
            return TileFeatures({}, {})
        return TileFeatures({index: next(rows) for index, share in valid.items() if share > 0}, valid)

    def write(self, plan: ImagePlan, region: Region, encoder: Encoder, encoded: TileFeatures) -> None:
        """Cache the features of a region. Raises `RequestError` where the folder is not writable."""
        from safetensors.numpy import save

        path = self._path(plan, region, encoder)
        if path is None:
            return
        indices = sorted(encoded.valid)
        rows = [encoded.features[index] for index in indices if index in encoded.features]
        content = save(
            {
                "places": np.array(indices, dtype=np.int64),
                "valid": np.array([encoded.valid[index] for index in indices], dtype=np.float64),
                "features": np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32),
            }
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise RequestError(
                f"feature folder {self.folder}",
                "must be writable",
                value=str(error),
                remedy="Make room, or name another with --features",
            ) from error

    def _path(self, plan: ImagePlan, region: Region, encoder: Encoder) -> Path | None:
        """The file of a region; None for an image without a fingerprint."""
        info = plan.info
        if not info.fingerprint:
            return None
        c, r = region.columns, region.rows
        key: dict[str, object] = {
            "encoder": dict(encoder.identity),
            "image": [info.fingerprint, info.part, info.reader, *(list(option) for option in info.options)],
            "channels": [[one.name, one.common, one.scale, one.offset, one.quantity] for one in info.channels],
            "spec": [plan.spec.tile, plan.spec.halo, plan.spec.bands],
            "stretch": None if plan.stretch is None else plan.stretch.to_json(),
            "region": [list(plan.grid.scale), region.plane, c.start, c.stop, r.start, r.stop],
        }
        if plan.grid.orientation != UPRIGHT:
            key["orientation"] = str(plan.grid.orientation)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"
