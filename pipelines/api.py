"""The interface of `limner` for programs and notebooks: what the commands do, as functions. Settings are keywords."""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from ..readers.array import crs_of, register_array
from ..readers.errors import ReadError, RequestError
from ..readers.registry import ScannedFile
from .cli.progress import watch
from .cli.text import describe_plan
from .config import Settings
from .describe import scanned_text
from .keywords import Keywords
from .opened import OpenedImage
from .run.estimate import Estimate, estimate
from .run.events import plural
from .run.execute import Prepared, crew, prepare, run_in_memory
from .run.execute import run as run_settings
from .run.redaction import scan_with_redaction
from .run_result import Run

__all__ = ["Run", "annotate", "open", "plan", "run", "scan"]

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open(path: str | os.PathLike[str], *, image: str | None = None, **settings: Unpack[Keywords]) -> OpenedImage:  # noqa: A001 - as PIL has it
    """Open one image: a file, a scene's folder, or a series of a study.

    `image` is an id, needed where the path holds several. Raises `ReadError` where the path holds no readable image,
    `RequestError` where it must be said which one.
    """
    given = _settings(path, settings)
    scanned, names = scan_with_redaction(given)
    infos = [info for row in scanned for info in row.infos]
    if not infos:
        reasons = "; ".join(row.reason for row in map(names.scanned, scanned) if row.reason)
        raise ReadError(
            str(path), "it must hold an image that can be read", value=reasons, remedy="See limner.scan(path)"
        )
    chosen = [info for info in infos if image in {None, info.id}]
    if len(chosen) != 1:
        raise RequestError(
            str(path) if image is None else f"image {image!r}",
            f"it must be one of the {plural(len(infos), 'image')} in {path}",
            value="not said which" if image is None else "no such image",
            remedy=f"Choose one: limner.open(path, image={infos[0].id!r}). "
            f"Images: {', '.join(info.id for info in infos[:20])}{', …' if len(infos) > 20 else ''}",
        )
    return OpenedImage(chosen[0], names.info(chosen[0]))


class Scan(list[ScannedFile]):
    """What became of each input file: a row a file, with its images or the reason why there are none."""

    def __repr__(self) -> str:
        """Images with their facts, then the other files with the reason."""
        return scanned_text(self)


def scan(inputs: Inputs, **settings: Unpack[Keywords]) -> Scan:
    """What files and folders hold: a row a file, each with its images or the reason why not. Reads no pixels."""
    scanned, names = scan_with_redaction(_settings(inputs, settings))
    return Scan(map(names.scanned, scanned))


class PlannedRun:
    """What a run would do: `print` it. `images` and `files` say it in detail."""

    def __init__(self, prepared: Prepared, settings: Settings) -> None:
        self.prepared = prepared
        """The plan with its model, as `limner.pipelines` uses it."""
        self.images = prepared.shown.images
        """How each image would be analysed: its regions, and why some are skipped."""
        self.files = prepared.shown.files
        """What became of each input file."""
        self.estimate: Estimate = estimate(prepared, batch=settings.batch)
        """Regions, tiles and memory, by arithmetic."""
        self._workers = crew(settings)[0]

    def __repr__(self) -> str:
        """The plan in words."""
        return describe_plan(self.prepared, self.estimate, workers=self._workers)


def plan(inputs: Inputs, **settings: Unpack[Keywords]) -> PlannedRun:
    """What a run of these settings would do: regions, tiles, memory. Writes nothing, fetches nothing.

    Raises `LimnerError` where no image can be analysed.
    """
    given = _settings(inputs, settings)
    return PlannedRun(prepare(given, only_plan=True), given)


def run(inputs: Inputs, **settings: Unpack[Keywords]) -> Run:
    """Annotate images and write reports into the folder `out`; the same call goes on where it was cut off.

    Progress is shown in a terminal and in a notebook. Raises `RequestError`, `ModelError`, `ReadError` where nothing
    can be read, `StoreError` where results cannot be kept. What fails later is in the result's `failures`.
    """
    given = _settings(inputs, settings)
    with watch() as listen:
        return run_settings(given, listen)


def annotate(
    array: object,
    *,
    transform: Sequence[float] | None = None,
    name: str = "array",
    **settings: Unpack[Keywords],
) -> Run:
    """Annotate an array in memory: a numpy array (height, width[, channels]) or an xarray.DataArray. Writes nothing.

    It is a map where `transform` (as `affine.Affine`: column, row of pixel corners → world) and `crs` place it, as an
    xarray's `spatial_ref` and coordinates may; a slide with microns_per_pixel=0.5; else a picture in pixels. Three
    channels of uint8 are red, green and blue; `bands` names others. Raises `LimnerError` for what cannot be annotated.
    """
    given: dict[str, Any] = dict(settings)
    microns = given.pop("microns_per_pixel", None)
    held = register_array(array, name=name, transform=transform, microns_per_pixel=_pair(microns))
    given["crs"] = given.get("crs") or crs_of(array)
    made = _settings(held.info.uri, {"names": "show", **given, "reader": "array"})
    with watch() as listen:
        return replace(run_in_memory(made, listen), source=held)


def _pair(given: float | tuple[float, float] | str | None) -> tuple[float, float] | None:
    """One number, or two as x,y, as two. Raises `RequestError`."""
    if given is None:
        return None
    several = given.split(",") if isinstance(given, str) else given if isinstance(given, tuple) else (given,)
    try:
        numbers = [float(number) for number in several]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in {1, 2} or not all(math.isfinite(one) and one > 0 for one in numbers):
        raise RequestError(
            "microns_per_pixel",
            "it must be one positive number, or two as x,y",
            value=repr(given),
            remedy="Give such as microns_per_pixel=0.5",
        )
    return numbers[0], numbers[-1]


def _settings(inputs: Inputs, keywords: Mapping[str, Any]) -> Settings:
    """Keywords as settings. Raises `RequestError` for one that is unknown or wrong."""
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    given = {key: value for key, value in keywords.items() if key != "config" and value is not None}
    file = keywords.get("config") or ""
    return Settings.resolve({**given, "inputs": paths}, file=os.fspath(file), source="the keywords")


def _document(function: Callable[..., object]) -> None:
    """Give a function the signature and the documentation of its keywords, for completion and `help`."""
    signature = inspect.signature(function)
    kept = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = Keywords.__annotations__
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    function.__signature__ = signature.replace(parameters=[*kept, *more])  # pyright: ignore[reportFunctionMemberAccess]
    said = "\n".join(
        f"    {name}: {field.description}" for name, field in Settings.model_fields.items() if name in hints
    )
    function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nKeywords, each a setting:\n\n{said}\n"


for _one in (open, scan, plan, run, annotate):
    _document(_one)
