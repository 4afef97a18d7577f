"""`check_annotator` passes an annotator that keeps the contract, and says which sentence another breaks."""

# ruff: noqa: D101, D102 - toys that are read beside what they break

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from limner.model.annotator import Answer, InputSpec, View
from limner.model.contract import check_annotator
from limner.model.views import kept_tiles
from limner.readers.geometry import Box, Placement
from limner.readers.image import BaseImage, Channel, ImageInfo, Mask, Pixels, Reader
from limner.readers.options import Options
from pydantic import Field
from shapely import box

PICTURE = np.random.default_rng(5).integers(0, 255, (70, 100, 3)).astype(np.uint8)


class Held(BaseImage):
    def _open(self) -> None: ...

    def _close(self) -> None: ...

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        y, x = (np.arange(n) + int(start) for n, start in ((size[1], box.y0), (size[0], box.x0)))
        inside = (y < len(PICTURE))[:, None] & (x < PICTURE.shape[1])
        rows, columns = y.clip(0, len(PICTURE) - 1), x.clip(0, PICTURE.shape[1] - 1)
        return PICTURE[rows][:, columns][..., self._channel_indices], inside


class HeldReader:
    name = "held"

    def identify(self, uri: str, head: bytes) -> int:
        del uri, head
        return 0

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        del uri, options
        return [INFO]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> Held:
        return Held(info, channels)


INFO = ImageInfo(
    "held",
    "held",
    (100, 70),
    tuple(Channel(name, name) for name in ("red", "green", "blue")),
    Placement.pixels(),
    id="held",
)
READER = cast("Reader", HeldReader())


class ToyOptions(Options):
    how: str = Field(default="", description="Which sentence is broken.")
    threads: int = Field(default=1, ge=1, description="Of nothing.")


class Toy:
    """Says of each tile how bright it is; `how` is what it does otherwise."""

    Options = ToyOptions

    def __init__(self, options: ToyOptions) -> None:
        self.how, self.threads, self.calls = options.how, options.threads, 0
        if self.how == "network":
            socket.getaddrinfo("example.org", 443)
        self.identity: dict[str, Any] = {"name": "" if self.how == "identity" else "toy"}
        self.labels = ("a", "a") if self.how == "labels" else ("bright",)
        self.colours = {"bright": "red" if self.how == "colours" else "#ff0000"}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        del info
        return InputSpec(tile=32)

    def check(self, specs: Sequence[InputSpec]) -> None:
        assert specs

    def load(self) -> None: ...

    def annotate(self, views: Sequence[View]) -> list[list[Answer]]:
        self.calls += 1
        if self.how == "views":
            np.asarray(views[0].tiles)[...] = 0
        found = [[self._answer(view, place.index, len(views)) for place in kept_tiles(view)] for view in views]
        return found[:-1] if self.how == "length" else found[::-1] if self.how == "order" else found

    def _answer(self, view: View, place: int, many: int) -> Answer:
        score = round(float(view.tiles[place].mean()) / 255, 6)
        answer = Answer("bright", box(0, 0, 4, 4), "tile", score=score)
        changes: dict[str, dict[str, Any]] = {
            "label": {"label": "dark"},
            "score": {"score": 1.5},
            "nan": {"score": float("nan")},
            "numbers": {"numbers": {"n": float("inf")}},
            "geometry": {"geometry": box(0, 0, 400, 4)},
            "empty": {"geometry": box(1, 1, 1, 1)},
            "batch": {"score": score / many},
            "state": {"score": score / self.calls},
        }
        return replace(answer, **changes.get(self.how, {}))


def test_an_annotator_that_keeps_the_contract_passes() -> None:
    answers = check_annotator(Toy, {}, READER, INFO)
    assert sum(map(len, answers)) == 12


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("network", "constructing an annotator uses no network"),
        ("identity", "identity is texts by name"),
        ("labels", "labels differ"),
        ("colours", "colours are written #rrggbb"),
        ("views", "an annotator does not change its views"),
        ("length", "there is a list of answers for each view"),
        ("order", "an answer does not depend|answers are in the order of the views"),
        ("label", "an answer's label is one of `labels`"),
        ("score", "a score is finite, from 0 to 1"),
        ("nan", "a score is finite, from 0 to 1"),
        ("numbers", "numbers are finite"),
        ("geometry", "a geometry lies on the canvas"),
        ("empty", "a geometry is valid, and not empty"),
        ("batch", "an answer does not depend on the other views"),
        ("state", "a second call returns the same answers"),
    ],
)
def test_the_broken_sentence_is_named(how: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_annotator(Toy, {"how": how}, READER, INFO)


@dataclass(frozen=True)
class Silent:
    """Without `Options` it is called with nothing."""

    identity = {"name": "silent"}  # noqa: RUF012 - as plug-ins write it
    labels = ()
    colours = {}  # noqa: RUF012 - as plug-ins write it

    def input_spec(self, info: ImageInfo) -> InputSpec:
        del info
        return InputSpec(tile=16)

    def check(self, specs: Sequence[InputSpec]) -> None: ...

    def load(self) -> None: ...

    def annotate(self, views: Sequence[View]) -> list[list[Answer]]:
        return [[] for _ in views]


def test_an_annotator_without_options_is_called_without_arguments() -> None:
    assert check_annotator(cast("Any", Silent), {}, READER, INFO) == [[]] * 4
