"""The command `limner doctor`: what this installation has, what would be done with an input, and what is missing."""

import json
import platform
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Final

from ...model.checkpoints.cards import find_any_card, shipped_cards
from ...model.domain import Domain
from ...model.vlm.fourkhd.checkpoint import SHIPPED, FourKhdFiles
from ...readers.caches import cache_folder
from ...readers.errors import LimnerError, ModelError, ReadError, RequestError, excerpt
from ...readers.image import ImageInfo
from ...readers.plugins import install_hint, installed, require_extra
from ...readers.processors import cores
from ..config import Settings
from ..describe import pixel_size_text
from ..pixel_size import ground_metres
from ..plan_text import plan_rows
from ..progress import EventHandler
from ..run.analysis_scale import STATE_CRS, STATE_PIXEL_SIZE
from ..run.estimate import total_memory
from ..run.execute import PreparedRun, prepare
from ..run.model_selection import CARD_ANNOTATOR, NONE, choose_annotator
from ..run.plan import HeaderPlan, ImagePlan, plan_headers
from .listings import FOURKHD, weights_state
from .terminal import bytes_text, indent, plural, table, visible

Row = tuple[str, str]

SOMETHING_MISSING, INVALID_REQUEST, NOTHING_READ = 1, 2, 3

_PACKAGES = (
    *("limner", "numpy", "pyproj", "shapely", "pyogrio", "onnxruntime", "transformers"),
    *("pydicom", "pandas", "pillow", "pydantic", "typer"),
)
_DRIVERS: Final = (
    *("GTiff", "COG", "JP2OpenJPEG", "VRT", "SAFE", "SENTINEL2", "NITF", "netCDF", "HDF5", "PNG", "JPEG"),
)
SCRIPTS: Final = {
    "GDAL": """
import json, rasterio
with rasterio.Env() as env:
    print(json.dumps([["rasterio", rasterio.__version__], ["GDAL", rasterio.__gdal_version__],
                      ["GDAL drivers", " ".join(env.drivers())]]))
""",
    "OpenSlide": """
import json, openslide
print(json.dumps([["OpenSlide", f"{openslide.__library_version__} (openslide-python {openslide.__version__})"]]))
""",
    "torch": """
import json, torch
cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
mps = ["Apple GPU"] if torch.backends.mps.is_available() else []
devices = ", ".join(cuda + mps) or "CPU only" + ("" if torch.version.cuda else ", since this build has no CUDA")
print(json.dumps([["torch", torch.__version__], ["torch devices", devices]]))
""",
}
"""Library → what asks it, in a process of its own: one that cannot be loaded must not end this one."""

_USES: Final = {
    "dicom": "results as DICOM objects, DICOMweb",
    "train": "limner train",
    "quantize": "large models in 4 or 8 bits on a GPU",
    "monai": "MONAI bundles that have weights instead of a program",
    "ray": "--engine ray",
}
"""Extra → what takes it."""

_HEADER_ONLY: Final = {"analysed at", "analysed as", "regions", "skipped"}  # rows that only a model gives a meaning


def doctor_text() -> str:
    """Versions, libraries, extras, hardware and weights of this installation. Uses no network, changes nothing."""
    return table(list(_installation()))


def _installation() -> Iterator[Row]:
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
    for library, script in SCRIPTS.items():
        yield from _asked(library, script)
    for extra in sorted(metadata("limner").get_all("Provides-Extra") or ()):
        yield f"extra {extra}", _extra_state(extra)
    yield "cores", str(cores())
    memory = total_memory()
    yield "memory", "unknown" if memory is None else bytes_text(memory)
    for name, folder in (("weights cache", cache_folder()), ("working folder", Path.cwd())):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        yield name, f"{folder} ({bytes_text(shutil.disk_usage(existing).free)} free)"
    for name in shipped_cards():
        yield f"model {name}", weights_state(name)


def _asked(library: str, script: str) -> Iterator[Row]:
    """What a library says of itself, or why it cannot be loaded."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode != 0:
        yield library, f"cannot be loaded: {done.stderr.strip()[-300:]}"
        return
    rows: list[list[str]] = json.loads(done.stdout)
    for name, text in rows:
        if name != "GDAL drivers":
            yield name, text
            continue
        yield name, ", ".join(one for one in _DRIVERS if one in text.split())
        if missing := [one for one in _DRIVERS if one not in text.split()]:
            yield "GDAL lacks", ", ".join(missing)


def _extra_state(extra: str) -> str:
    """Whether the packages of an extra are installed, and the command that installs them."""
    try:
        require_extra(extra, extra)
    except RequestError as error:
        return f"missing ({error.value}), for {_USES.get(extra, 'its plug-ins')}: {install_hint(extra)}"
    return "installed"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What would be done with inputs."""

    text: str
    exit_code: int
    """0 where they can be analysed as asked for; 1 where something is missing; 2 and 3 as of every command."""


def diagnose(settings: Settings, on_event: EventHandler) -> Diagnosis:
    """Say what would be done with inputs, and what is missing. Reads overviews; fetches DICOMweb inputs only."""
    chosen = settings if settings.model else settings.model_copy(update={"model": NONE})
    try:
        prepared = prepare(chosen, only_plan=True, on_event=on_event)
        return _diagnosis(settings, prepared)
    except LimnerError as error:
        code = INVALID_REQUEST if isinstance(error, RequestError | ModelError) else SOMETHING_MISSING
        text = "Nothing can be analysed as asked for.\n" + indent("\n".join(map(visible, error.lines())))
        return Diagnosis(text, NOTHING_READ if isinstance(error, ReadError) else code)
    except Exception as error:  # noqa: BLE001 - of a library or a plug-in that is broken, which is to be found out
        text = f"cannot be told: {type(error).__name__}: {excerpt(str(error), 300)}"
        advice = "A library or a plug-in may be broken: see `limner doctor` without an input, and `limner plugins`."
        return Diagnosis(f"{visible(text)}\n{advice}", SOMETHING_MISSING)


def _diagnosis(settings: Settings, prepared: PreparedRun) -> Diagnosis:
    parts: list[str] = []
    fitting: list[set[str]] = []
    for image, shown in zip(prepared.plan.images, prepared.redacted_plan.images, strict=True):
        rows = plan_rows(shown)
        if prepared.annotator is None:
            rows = [row for row in rows if row[0] not in _HEADER_ONLY]
        rows += [("missing", text) for text in _missing(shown)]
        fits: set[str] = set()
        if not settings.model:
            for name, fit, text in _models(settings, image.info, prepared):
                rows.append((f"model {name}", text))
                fits |= {name} if fit else set()
        fitting.append(fits)
        parts += [indent(table(rows), title=shown.info.id), ""]
    failed = [row for row in prepared.redacted_plan.files if row.status == "failed"]
    parts += [visible(f"{row.path} cannot be analysed. {row.reason}") for row in failed]
    skipped = Counter(row.reason for row in prepared.redacted_plan.files if row.status == "skipped")
    parts += [visible(f"{plural(count, 'file')} skipped: {reason}") for reason, count in sorted(skipped.items())]
    closing = list(_next(settings, prepared, set[str].intersection(*fitting) if fitting else set()))
    return Diagnosis("\n".join([*parts, table(closing)]), SOMETHING_MISSING if failed or prepared.unavailable else 0)


def _missing(image: ImagePlan) -> Iterator[str]:
    """What an image does not state, and how to state it."""
    info = image.info
    if info.kind == "map" and info.placement.crs is None:
        yield f"a coordinate reference system, so positions are in pixels. {STATE_CRS}"
    elif ground_metres(info) is None:
        yield f"the pixel size, so sizes are in pixels. {STATE_PIXEL_SIZE[info.kind]}"
    if image.no_rgb_reason:
        yield f"what to show as red, green and blue. {image.no_rgb_reason}"


def _models(settings: Settings, info: ImageInfo, prepared: PreparedRun) -> Iterator[tuple[str, bool, str]]:
    """(name, whether it suits the image by its headers, why or at which pixel size) of every model that ships."""
    for name in [*shipped_cards(), *(f"{FOURKHD}{name}" for name in SHIPPED)]:
        asked = settings.model_copy(update={"model": name, "model_options": {}, "labels": ()})
        try:
            choice = choose_annotator(asked, [info])
            annotator = None if choice is None else choice.make(threads="0")
            headers = plan_headers(info, annotator, asked)
        except LimnerError as error:
            remedy = f". {error.remedy}" if any(one.kind == info.kind for one in _domain(name)) else ""
            text = f"does not suit it: {error.rule}; found {error.value}{remedy}"
            yield name, False, prepared.redactor.text(text)
            continue
        yield name, True, f"suits it, {_seen_at(headers, info)}. {_weights(name)}"


def _seen_at(headers: HeaderPlan, info: ImageInfo) -> str:
    metres, scale = ground_metres(info), headers.grid.scale
    if headers.spec.volume is not None:
        return "as one volume"
    if metres is None:
        return "at its own pixels"
    return f"at {pixel_size_text((metres[0] * scale[0], metres[1] * scale[1]), info.kind)}"


def _domain(name: str) -> Sequence[Domain]:
    """The images that a model that ships was made for."""
    if not name.startswith(FOURKHD):
        return find_any_card(name).domain
    card = FourKhdFiles.find(name.removeprefix(FOURKHD)).card
    return () if card is None else card.domain


def _weights(name: str) -> str:
    return "Ships with limner" if name.startswith(FOURKHD) else f"Weights {weights_state(name)}"


def _next(settings: Settings, prepared: PreparedRun, fitting: set[str]) -> Iterator[Row]:
    """What is absent for the chosen model, else which others there are; and the command to go on with."""
    command = prepared.redactor.text(f"limner plan {shlex.join(settings.inputs)}")
    if settings.model:
        yield "model", f"{settings.model}: {prepared.unavailable or 'ready'}"
        yield "next", f"{command} --model {shlex.quote(settings.model)} measures its time and memory"
        return
    others = sorted(set(installed("limner.annotators")) - {CARD_ANNOTATOR})
    yield "of your own", f"{', '.join(f'{name}:' for name in others)} take a checkpoint: limner models show NAME"
    small = {name for name in fitting if name.startswith(FOURKHD)}
    for name in sorted(fitting - small):
        yield "next", f"limner doctor … --model {name} says how; {command} --model {name}{_fetch(name)} measures it"
    if not fitting - small:
        yield "next", "no card that ships suits every image: state what is missing, or give a model of your own"
    for name in sorted(small):
        yield "to try", f"{command} --model {name} (a demonstration, too often wrong to be used)"


def _fetch(name: str) -> str:
    return "" if name.startswith(FOURKHD) or "missing" not in weights_state(name) else " --fetch"
