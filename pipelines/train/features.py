"""Features of tiles, read and encoded once: a second training finds them in a folder.

A file a region, known by everything that decides what is in it: the encoder, the image's bytes, how it is seen, and
where the region lies. Names and paths of images are not in it, and not to be got out of it.
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
from ...readers.regions import Region
from ..run.plan import ImagePlan

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of some of a region's tiles: tile → features (dimensions,), and tile → the share of it that is valid."""

    features: Mapping[int, Values]
    valid: Mapping[int, float]


def encode(view: View, places: Sequence[int], encoder: Encoder) -> Encoded:
    """Features of those of a view's tiles that hold valid pixels. Raises `ModelError` where they are not finite."""
    features: dict[int, Values] = {}
    valid: dict[int, float] = {}
    for place in places:
        valid[place] = round(float(view.valid[place].mean()), 6)
        if view.valid[place].any():
            what = f"tile {place} of {view.region.key}"
            features[place] = encoders.encode(encoder, view.tiles[place], view.valid[place], what)
    return Encoded(features, valid)


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """A folder of encoded regions. Images that are read from afar have no fingerprint, and are not kept."""

    folder: Path

    def find(self, plan: ImagePlan, region: Region, encoder: Encoder) -> Encoded:
        """What is kept of a region; nothing where nothing is, or a file was cut off."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._path(plan, region, encoder)
        if path is None or not path.is_file():
            return Encoded({}, {})
        try:
            held = load(path.read_bytes())
            places, shares = held["places"].tolist(), held["valid"].tolist()
            rows = iter(held["features"])
        except (OSError, SafetensorError, KeyError):
            return Encoded({}, {})
        valid = dict(zip(places, shares, strict=True))
        return Encoded({place: next(rows) for place in places if valid[place] > 0}, valid)

    def keep(self, plan: ImagePlan, region: Region, encoder: Encoder, encoded: Encoded) -> None:
        """Keep what is known of a region. Raises `RequestError` where the folder cannot be written to."""
        from safetensors.numpy import save

        path = self._path(plan, region, encoder)
        if path is None:
            return
        places = sorted(encoded.valid)
        rows = [encoded.features[place] for place in places if place in encoded.features]
        content = save(
            {
                "places": np.array(places, dtype=np.int64),
                "valid": np.array([encoded.valid[place] for place in places], dtype=np.float64),
                "features": np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32),
            }
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise RequestError(
                f"features in {self.folder}",
                "the folder must be writable",
                value=str(error),
                remedy="Make room, or name another with --features",
            ) from error

    def _path(self, plan: ImagePlan, region: Region, encoder: Encoder) -> Path | None:
        """The file of a region; None where nothing tells one state of the image from another."""
        info = plan.info
        if not info.fingerprint:
            return None
        c, r = region.columns, region.rows
        decides = {
            "encoder": dict(encoder.identity),
            "image": [info.fingerprint, info.part, info.reader, *(list(option) for option in info.options)],
            "channels": [[one.name, one.common, one.scale, one.offset, one.quantity] for one in info.channels],
            "spec": [plan.spec.tile, plan.spec.halo, plan.spec.bands],
            "stretch": None if plan.stretch is None else plan.stretch.to_json(),
            "region": [list(plan.grid.scale), region.plane, c.start, c.stop, r.start, r.stop],
        }
        name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"
