"""The tiles of one image that teach: which they are, what an encoder makes of them, what they belong to."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.annotator import Answer, InputSpec, View
from ...model.probe.encoders import Encoder
from ...model.training.training_tiles import Outline, block_of, judge, tile_boxes
from ...readers.errors import ModelError, RequestError
from ...readers.geometry import Box
from ...readers.image import ImageInfo
from ...readers.regions import Region
from ..config import Resolution
from ..run.plan import ImagePlan, ground_metres
from ..run.worker import RegionJob
from .features import Encoded, FeatureStore, encode
from .probe_config import ProbeConfig

VALID: Final = 0.5
"""The least share of a tile that must hold data."""


@dataclass(slots=True)
class Tiles:
    """Tiles that teach, as they are found. `places` are (number of its image, y, x), whatever its region."""

    places: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    features: list[npt.NDArray[np.float32]] = field(default_factory=list[npt.NDArray[np.float32]])
    colour: list[npt.NDArray[np.float32]] = field(default_factory=list[npt.NDArray[np.float32]])
    labels: list[str] = field(default_factory=list[str])
    members: list[list[Hashable]] = field(default_factory=list[list[Hashable]])
    left_out: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, slots=True)
class Watcher:
    """An annotator that only looks: what plans and reads images as a run would."""

    encoder: Encoder
    tile: int
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: tuple[str, ...] = ()
    colours: Mapping[str, str] = field(default_factory=dict[str, str])

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Tiles as the encoder sees them, at any resolution."""
        del info
        return InputSpec(tile=self.tile, bands=self.encoder.bands, variant="probe")

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Nothing: the encoder was found."""

    def load(self) -> None:
        """Nothing: the encoder is loaded with the first tile."""

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """Nothing is said."""
        return [[] for _ in views]


def collect(
    plan: ImagePlan,
    number: int,
    outlines: Sequence[Outline],
    encoders: Sequence[Encoder],
    store: FeatureStore,
    tiles: Tiles,
    request: ProbeConfig,
) -> int:
    """Add the tiles of one image that teach, with their features; returns how many regions hold some.

    `number` is the image's place among all. Raises `LimnerError` where a region that teaches cannot be read or encoded.
    """
    block = _block(plan, request.unit)
    work = RegionJob({plan.info.id: plan})
    picture = plan.info.box
    done = 0
    try:
        for region in plan.regions:
            boxes = tile_boxes(region, plan.spec)
            verdicts = judge(boxes, outlines, picture=picture, inside=request.inside, rest=request.rest)
            tiles.left_out.update(one.fate for one in verdicts if one.fate in {"at an edge", "two classes"})
            taught = [place for place, one in enumerate(verdicts) if one.fate == "taught"]
            if not taught:
                continue
            found = _encoded(plan, region, taught, encoders, store, work)
            done += 1
            for place in taught:
                if found[0].valid[place] < VALID:
                    tiles.left_out["without data"] += 1
                    continue
                tiles.places.append((number, boxes[place].y0, boxes[place].x0))
                tiles.features.append(found[0].features[place])
                if len(found) > 1:
                    tiles.colour.append(found[1].features[place])
                tiles.labels.append(verdicts[place].label)
                tiles.members.append(_members(plan, boxes[place], verdicts[place].outlines, block))
    finally:
        work.close()
    return done


def _encoded(
    plan: ImagePlan,
    region: Region,
    places: Sequence[int],
    encoders: Sequence[Encoder],
    store: FeatureStore,
    work: RegionJob,
) -> list[Encoded]:
    """What each encoder makes of a region's tiles: from the store, or read, encoded and kept."""
    kept = [store.find(plan, region, encoder) for encoder in encoders]
    if all(set(places) <= set(one.valid) for one in kept):
        return kept
    [look] = work.read([region])
    if not isinstance(look, View):
        if look.status == "failed":
            raise ModelError(
                f"region {region.key}",
                "it must be readable, since outlines lie on it",
                value=look.error,
                remedy="Repair the file, or leave those outlines out",
            )
        nothing = Encoded({}, dict.fromkeys(places, 0.0))
        return [nothing for _ in encoders]
    result: list[Encoded] = []
    for encoder, known in zip(encoders, kept, strict=True):
        fresh = encode(look, [place for place in places if place not in known.valid], encoder)
        whole = Encoded({**known.features, **fresh.features}, {**known.valid, **fresh.valid})
        store.keep(plan, region, encoder, whole)
        result.append(whole)
    return result


def _members(plan: ImagePlan, box: Box, outlines: Sequence[str], block: tuple[float, float] | str) -> list[Hashable]:
    """What a tile belongs to that must stay on one side of a fold."""
    image = plan.info.id
    if isinstance(block, tuple):
        return [(image, *block_of(box, block))]
    if block == "outline" and outlines:
        return [(image, name) for name in outlines]
    return [(image,)]  # what nobody outlined has no other bounds than its image's


def _block(plan: ImagePlan, text: str) -> tuple[float, float] | str:
    """The size of blocks in level-0 pixels (x, y), or "outline" or "image". Raises `RequestError` for anything else."""
    if text in {"outline", "image"}:
        return text
    try:
        pixels = float(text.removesuffix("px")) if text.endswith("px") else 0.0
        asked = None if pixels > 0 else Resolution.parse(text)
    except (ValueError, RequestError):
        pixels, asked = 0.0, None
    if pixels > 0:
        return pixels, pixels
    if asked is None or asked.metres is None:
        raise RequestError(
            "block", "it is outline, image, or a length", value=text, remedy="For example --block 500m, 200um or 512px"
        )
    actual = ground_metres(plan.info)
    if actual is None:
        raise RequestError(
            f"block of {text} on {plan.info.id}",
            "the size of its pixels must be known",
            remedy="State blocks in pixels, such as --block 512px",
        )
    return asked.metres / actual[0], asked.metres / actual[1]
