"""Check that an annotator keeps the contract of `limner.model.annotator`: call `check_annotator` in a test.

    check_annotator(MyAnnotator, {"threshold": "0.5"}, MyReader(), info)

Each check is one sentence of the contract; `AssertionError` is raised with the sentence that does not hold.
"""

import pickle
import re
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import shapely
from pydantic import TypeAdapter

from ..readers.image import ImageInfo, Reader
from ..readers.options import make_plugin, options_of
from ..readers.overview import read_overview
from ..readers.raster.bands import find_channels
from ..readers.regions import Grid, cut_regions
from ..readers.render import fit_stretch, render, rgb_channels
from .annotator import Annotator, Answer, InputSpec, SupportsDomain, SupportsFit, SupportsPictureFit, View
from .domain import Domain
from .finding import Kind
from .views import read_view

MAX_REGIONS = 4  # of the image, on which the annotator is tried


def check_annotator(
    maker: Callable[..., Annotator], options: Mapping[str, object], reader: Reader, info: ImageInfo
) -> list[list[Answer]]:
    """Try an annotator on one image, of which `reader` has returned `info`; returns its answers.

    `maker` is its entry point, `options` are texts as a command line gives them. Raises `AssertionError`.
    """
    annotator, spec, views = _start(maker, options, reader, info)
    answers = [list(one) for one in annotator.annotate(views)]
    _require(all(map(_equal, views, _views(reader, info, spec))), "an annotator does not change its views")
    _require(len(answers) == len(views), "there is a list of answers for each view, in order", len(answers))
    labels = tuple(annotator.labels)
    for view, some in zip(views, answers, strict=True):
        for answer in some:
            _check_answer(answer, view, labels)
    again = [list(one) for one in annotator.annotate(views)]
    _require(again == answers, "a second call returns the same answers")
    alone = [list(annotator.annotate([view])[0]) for view in views]
    _require(alone == answers, "an answer does not depend on the other views of the call")
    backwards = [list(one) for one in annotator.annotate(views[::-1])][::-1]
    _require(backwards == answers, "answers are in the order of the views")
    _require(pickle.loads(pickle.dumps(answers)) == answers, "answers pickle")  # noqa: S301 - our own bytes
    if "threads" in options_of(maker).model_fields:
        other, _, _ = _start(maker, {**options, "threads": "2"}, reader, info)
        found = [[answer.label for answer in some] for some in other.annotate(views)]
        _require(found == [[a.label for a in some] for some in answers], "threads do not change an answer")
    return answers


def _start(
    maker: Callable[..., Annotator], options: Mapping[str, object], reader: Reader, info: ImageInfo
) -> tuple[Annotator, InputSpec, list[View]]:
    """A loaded annotator, its input spec, and views of the image."""
    with _no_network():
        annotator = make_plugin(maker, options)
        spec: Any = annotator.input_spec(info)
    _require(isinstance(spec, InputSpec), "input_spec returns an InputSpec", type(spec).__name__)
    _require(pickle.loads(pickle.dumps(spec)) == spec, "a spec pickles")  # noqa: S301 - our own bytes
    plain = TypeAdapter(InputSpec)
    _require(plain.validate_json(plain.dump_json(spec)) == spec, "a spec survives JSON")
    if isinstance(annotator, SupportsFit) and spec.bands is None:
        with reader.open(info, rgb_channels(info.channels)) as image:
            seen = read_overview(image)
            stretch = fit_stretch(seen.pixels, seen.valid, image.channels)
        fitted = annotator.fit(spec, render(seen.pixels, seen.valid, stretch), seen.valid, seen.valid)
        _require(replace(fitted, fitted=spec.fitted) == spec, "fitting changes nothing of a spec but `fitted`")
        spec = fitted
    annotator.check([spec])
    if isinstance(annotator, SupportsPictureFit):
        view = _views(reader, info, spec)[0]
        fitted = annotator.fit_picture(spec, lambda: (view.tiles[0], view.valid[0]))
        _require(replace(fitted, fitted=spec.fitted) == spec, "fitting changes nothing of a spec but `fitted`")
        spec = fitted
        annotator.check([spec])
    _check_declarations(annotator)
    annotator.load()
    views = _views(reader, info, spec)
    _require(bool(views), "the image has a valid pixel in its first regions")
    return annotator, spec, views


def _views(reader: Reader, info: ImageInfo, spec: InputSpec) -> list[View]:
    """Views of the first regions that have something to annotate."""
    stretch = None
    names = find_channels(info.channels, spec.bands) if spec.bands is not None else rgb_channels(info.channels)
    with reader.open(info, names) as image:
        if spec.bands is None:
            seen = read_overview(image)
            stretch = fit_stretch(seen.pixels, seen.valid, image.channels)
        regions = cut_regions(Grid(info.id, info.size, (1.0, 1.0)), tile=spec.tile, halo=spec.halo, hd_num=4)
        views = [read_view(image, region, spec, stretch=stretch) for region in regions[:MAX_REGIONS]]
    kept = [view for view in views if view.keep_mask.any()]
    return [replace(view, tiles=np.asarray(view.tiles), valid=np.asarray(view.valid)) for view in kept]


def _check_declarations(annotator: Annotator) -> None:
    domain: Any = annotator.domain if isinstance(annotator, SupportsDomain) else ()
    _require(all(isinstance(part, Domain) for part in domain), "a domain is a sequence of Domain", domain)
    identity, labels, colours = dict[Any, Any](annotator.identity), annotator.labels, dict(annotator.colours)
    text = all(isinstance(one, str) for pair in identity.items() for one in pair)
    _require(text and bool(identity.get("name")), "identity is texts by name, with a `name` among them", identity)
    kind = type(labels)
    _require(kind is tuple, "labels are a tuple", kind.__name__)
    _require(len(set(labels)) == len(labels) and all(labels), "labels differ, and none is empty", labels)
    wrong = [one for one in colours.values() if not re.fullmatch("#[0-9a-f]{6}", one)]
    _require(not wrong, "colours are written #rrggbb", wrong)
    _require(not labels or set(colours) <= set(labels), "colours are those of labels", set(colours) - set(labels))


def _check_answer(answer: Answer, view: View, labels: tuple[str, ...]) -> None:
    width, height = view.grid.size
    _require(not labels or answer.label in labels, "an answer's label is one of `labels`", answer.label)
    _require(answer.kind in get_args(Kind), f"an answer is one of {', '.join(get_args(Kind))}", answer.kind)
    _require(answer.geometry is not None or answer.kind == "region", "all kinds but region have a geometry")
    score = 0.0 if answer.score is None else answer.score
    _require(bool(np.isfinite(score)) and 0 <= score <= 1, "a score is finite, from 0 to 1", answer.score)
    _require(bool(np.isfinite(list(answer.numbers.values())).all()), "numbers are finite", answer.numbers)
    shape = answer.geometry
    if shape is not None:
        _require(shape.is_valid and not shape.is_empty, "a geometry is valid, and not empty", shape)
        inside = bool(shapely.box(0, 0, width, height).covers(shape))
        _require(inside, "a geometry lies on the canvas, in canvas pixels", shape.bounds)


@contextmanager
def _no_network() -> Generator[None]:
    """Refuse network connections while an annotator is constructed and asked for its input spec."""

    def refuse(*_: object, **__: object) -> None:
        _require(False, "constructing an annotator uses no network")

    known = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect, socket.getaddrinfo = refuse, refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = known  # type: ignore[method-assign]


def _equal(one: View, other: View) -> bool:
    parts = ((one.tiles, other.tiles), (one.valid, other.valid), (one.keep_mask, other.keep_mask))
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in parts)


def _require(holds: bool, sentence: str, found: Any = None) -> None:
    if not holds:
        raise AssertionError(sentence if found is None else f"{sentence} (found: {found})")
