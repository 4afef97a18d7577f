"""The functions of the package `limner`. Their keywords are the settings of the command line."""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from ..readers.array import crs_of, register_array
from ..readers.errors import LimnerError, ReadError, RequestError
from ..readers.geometry import Box
from ..readers.image import Image, ImageInfo, Mask, Pixels
from ..readers.overview import read_overview
from ..readers.registry import open_image
from ..readers.render import display_stretch, fit_stretch, render, rgb_channels
from ..readers.scanned_files import ScannedFile
from .cli.terminal import indent, plural, table
from .config import Settings
from .describe import html_table, image_rows, scanned_text
from .keywords import Keywords
from .overlays import compare, merge
from .plan_text import plan_text
from .progress import Message, progress_display, stopped_text
from .run.estimate import estimate
from .run.execute import PreparedRun, prepare, run_in_memory
from .run.execute import run as run_settings
from .run.redaction import scan_with_redaction
from .run.watching import NOT_WATCHED, Watched, Watcher
from .run_result import Run
from .setting_values import descriptions

if TYPE_CHECKING:
    from PIL import Image as Picture

__all__ = ["Run", "annotate", "compare", "merge", "open", "plan", "run", "scan", "watch"]

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class OpenedImage:
    """An open image, as `limner.open` returns it. Use it as a context manager, or call `close`."""

    info: ImageInfo
    """Metadata; paths and names of slides and studies are pseudonyms unless names="show"."""

    def __init__(self, opened: ImageInfo, redacted: ImageInfo) -> None:
        self.info = redacted
        self._opened = opened
        self._image: Image | None = open_image(opened)

    def read(
        self, box: Box | Sequence[float] | None = None, size: tuple[int, int] | None = None, plane: int = 0
    ) -> tuple[Pixels, Mask]:
        """Read native pixels (height, width, channels) of a box, and their validity mask (height, width).

        `box` is (x0, y0, x1, y1) in level-0 pixels, x right, y down, half-open; the whole image by default. `size` is
        (width, height) of the result; the box's own by default. `plane` is the index of a slice. Raises `ReadError`,
        and `RequestError` once closed.
        """
        area = self._opened.box if box is None else box if isinstance(box, Box) else Box(*map(float, box))
        shape = size or (max(1, round(area.width)), max(1, round(area.height)))
        return self._handle().read(area, shape, plane)

    def overview(self, limit: int = 1024) -> "Picture.Image":
        """The whole image in 8-bit RGB, at most `limit` pixels on its long side.

        A stack becomes a montage of slices, rendered through the window of the study. Raises `ReadError` where the
        red, green and blue channels are not known: name them with bands.
        """
        from PIL import Image as Picture

        self._handle()
        with open_image(self._opened, rgb_channels(self._opened.channels)) as image:
            pixels, valid, *_ = read_overview(image, limit=limit, reopen=open_image)
            stretch = display_stretch(
                self._opened, fit_stretch(pixels, valid, image.channels, keep_colours=self._opened.kind == "slide")
            )
            return Picture.fromarray(render(pixels, valid, stretch))

    def close(self) -> None:
        """Close the file."""
        if self._image is not None:
            self._image.close()
            self._image = None

    def _handle(self) -> Image:
        if self._image is None:
            raise RequestError(self.info.id, "must be open to be read", remedy="Open it again with limner.open")
        return self._image

    def __enter__(self) -> Self:
        """The image itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """The metadata."""
        return indent(table(image_rows(self.info)), title=self.info.id)

    def _repr_html_(self) -> str:
        """The same for notebooks, beside a small picture where there can be one."""
        rows, picture = image_rows(self.info), None
        try:
            picture = self.overview(320)
        except LimnerError as error:
            rows.append(("picture", str(error)))
        return html_table(rows, title=self.info.id, picture=picture)


def open(path: str | os.PathLike[str], *, image: str | None = None, **settings: Unpack[Keywords]) -> OpenedImage:  # noqa: A001 - as in PIL
    """Open one image: a file, the folder of a scene, or a series of a study.

    `image` is an id, needed where the path holds several. Raises `ReadError` where the path holds no readable image,
    `RequestError` where it holds several.
    """
    scanned, redactor = scan_with_redaction(_settings(path, settings))
    infos = [info for row in scanned for info in row.infos]
    if not infos:
        reasons = "; ".join(row.reason for row in map(redactor.scanned, scanned) if row.reason)
        raise ReadError(str(path), "must hold a readable image", value=reasons, remedy="See limner.scan(path)")
    chosen = [info for info in infos if image in {None, info.id}]
    if len(chosen) != 1:
        names = ", ".join(info.id for info in infos[:20]) + (", …" if len(infos) > 20 else "")
        raise RequestError(
            str(path) if image is None else f"image {image!r}",
            "must hold one image, or one must be named" if image is None else f"must be one of those in {path}",
            value=plural(len(infos), "image"),
            remedy=f"Choose one: limner.open(path, image={infos[0].id!r}). Images: {names}",
        )
    return OpenedImage(chosen[0], redactor.info(chosen[0]))


class Scan(list[ScannedFile]):
    """A row per input file, with its images or the reason why there are none."""

    def __repr__(self) -> str:
        """The images with their metadata, then the other files."""
        return scanned_text(self)


def scan(inputs: Inputs, **settings: Unpack[Keywords]) -> Scan:
    """Find the images in files and folders: a row per file, with its images or the reason why not. Reads no pixels."""
    scanned, redactor = scan_with_redaction(_settings(inputs, settings))
    return Scan(map(redactor.scanned, scanned))


class PlannedRun:
    """What a run would do; `print` shows it."""

    def __init__(self, prepared: PreparedRun) -> None:
        self.prepared = prepared
        """The plan with its model, as `limner.pipelines` uses it."""
        plan = prepared.redacted_plan
        self.images = plan.images
        """How each image would be analysed: its regions, and why some are skipped."""
        self.files = plan.files
        """The outcome of each input file."""
        self.estimate = estimate(prepared, batch=prepared.division.batch)
        """Regions, tiles and memory, estimated."""
        self._workers = prepared.division.workers

    def __repr__(self) -> str:
        """The plan in words."""
        return plan_text(self.prepared, self.estimate, workers=self._workers)


def plan(inputs: Inputs, **settings: Unpack[Keywords]) -> PlannedRun:
    """Plan a run: regions, tiles, memory. Writes nothing, and fetches nothing but the studies of DICOMweb inputs.

    Raises `LimnerError` where no image can be analysed.
    """
    given = _settings(inputs, settings)
    with progress_display() as on_event:
        prepared = prepare(given, only_plan=True, on_event=on_event)
    return PlannedRun(prepared)


def run(inputs: Inputs, **settings: Unpack[Keywords]) -> Run:
    """Annotate images and write reports into the folder `out`; the same call resumes an interrupted run.

    Shows progress in a terminal and in a notebook. Raises `RequestError`, `ModelError`, `ReadError` where nothing can
    be read, `StoreError` where results cannot be written. Later errors are in the `failures` of the result.
    """
    given = _settings(inputs, settings)
    with progress_display() as on_event:
        try:
            return run_settings(given, on_event)
        except KeyboardInterrupt:
            on_event(Message(stopped_text(on_event, again="call")))
            raise


def watch(run: str | os.PathLike[str], *, every: float = 1.0) -> Watched:
    """Show the progress of a run that another process works on, from its folder alone, until it ends.

    Shows it in a terminal and in a notebook. To interrupt it, there as by Ctrl-C, ends the watching and not the run.
    Reads it `every` so many seconds. Raises `RequestError` where there is no run folder, `StoreError` where it is
    damaged.
    """
    watched = Watcher(Path(run), wait=True)
    with progress_display(watched.held_bytes) as on_event:
        try:
            return watched.follow(on_event, every=every)
        except KeyboardInterrupt:
            on_event(Message(NOT_WATCHED))
            return watched.read()


def annotate(
    array: object,
    *,
    transform: Sequence[float] | None = None,
    name: str = "array",
    **settings: Unpack[Keywords],
) -> Run:
    """Annotate an array in memory: a numpy array (height, width[, channels]) or an xarray.DataArray. Writes nothing.

    With `transform` (as `affine.Affine`: column, row of pixel corners → world) and `crs`, or the `spatial_ref` and
    coordinates of an xarray, it is a map; with microns_per_pixel=0.5 a slide; else an image in pixels. Three channels
    of uint8 are red, green and blue; `bands` names others. Raises `LimnerError` for what cannot be annotated.
    """
    given: dict[str, Any] = dict(settings)
    microns = _parse_microns(given.pop("microns_per_pixel", None))
    held = register_array(array, name=name, transform=transform, microns_per_pixel=microns)
    given["crs"] = given.get("crs") or crs_of(array)
    made = _settings(held.info.uri, {"names": "show", **given, "reader": "array"})
    with progress_display() as on_event:
        return replace(run_in_memory(made, on_event), source=held)


def _parse_microns(given: float | tuple[float, float] | str | None) -> tuple[float, float] | None:
    """One number, or two as x,y, as two. Raises `RequestError`."""
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, tuple) else (given,)
    try:
        numbers = [float(number) for number in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in {1, 2} or not all(math.isfinite(number) and number > 0 for number in numbers):
        remedy = "For example microns_per_pixel=0.5"
        raise RequestError("microns_per_pixel", "must be one or two positive numbers", value=repr(given), remedy=remedy)
    return numbers[0], numbers[-1]


def _settings(inputs: Inputs, keywords: Mapping[str, Any]) -> Settings:
    """Keywords as settings. Raises `RequestError` for an unknown or invalid one."""
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    given = {key: value for key, value in keywords.items() if key != "config" and value is not None}
    file = keywords.get("config") or ""
    return Settings.resolve({**given, "inputs": paths}, file=os.fspath(file), source="the keywords")


def _document(function: Callable[..., object]) -> None:
    """Add the keywords to the signature and the docstring of a function, for completion and `help`."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = Keywords.__annotations__
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *more])  # pyright: ignore[reportFunctionMemberAccess]
    lines = "\n".join(f"    {name}: {text}" for name, text in descriptions().items() if name in hints)
    function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nKeywords, each a setting:\n\n{lines}\n"


for _function in (open, scan, plan, run, annotate):
    _document(_function)
