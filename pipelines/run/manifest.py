"""The manifest of a run: settings, versions, model and plan. Two runs with the same manifest give the same results."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, cast

import shapely
from pydantic import BaseModel, Field, ValidationError

from ...readers.errors import RequestError, excerpt
from ...reports.writer import FileStatus
from ..cli.terminal import plural
from ..config import NEUTRAL, Settings
from .model_selection import NONE, AnnotatorChoice
from .plan import ImagePlan, Plan, area_digest
from .redaction import Redactor
from .run_files import MANIFEST, StoreError
from .run_folder import FORMAT, check_format, read_manifest
from .scanning import RESULTS_FOLDER, RUN_FOLDER

PACKAGES = ("limner", "numpy", "onnxruntime", "pyproj", "rasterio", "shapely", "torch", "transformers")
BUNDLED = {"gdal": ("rasterio", "__gdal_version__"), "proj": ("pyproj", "__proj_version__")}
"""C libraries inside packages, recorded where a process has loaded them: otherwise they changed no result."""


def make_manifest(
    settings: Settings,
    plan: Plan,
    choice: AnnotatorChoice | None,
    *,
    redactor: Redactor,
    identity: Mapping[str, str],
    labels: tuple[str, ...],
    colours: Mapping[str, str],
    concepts: Mapping[str, tuple[str, str, str]] | None = None,
) -> dict[str, Any]:
    """Everything that determines the results of a run, as values for JSON.

    Contains no time, no host or user name, and the redacted paths only. The name of a missing annotator is "none".
    Options that cannot change its answers are left out.
    """
    redacted = redactor.plan(plan)
    options = () if choice is None else choice.options
    neutral = frozenset[str]() if choice is None else choice.neutral
    return {
        "format": FORMAT,
        "config": redactor.settings(settings).model_dump(mode="json", exclude={"out", "address", "reference"}),
        "versions": versions(),
        "annotator": {
            "name": NONE if choice is None else choice.name,
            "options": {key: value for key, value in options if key not in neutral},
            **({"neutral": sorted(neutral)} if neutral else {}),
            "identity": dict(identity),
            "labels": list(labels),
            "colours": dict(colours),
            **({"concepts": {label: list(code) for label, code in concepts.items()}} if concepts else {}),
        },
        "area_sha256": area_digest(settings),
        "files": [
            {"path": row.path, "status": row.status, "image": row.image, "reader": row.reader, "reason": row.reason}
            for row in redacted.files
        ],
        "images": [image.to_json() for image in redacted.images],
        "plan_sha256": redacted.digest,
    }


class _Annotator(BaseModel, strict=True):
    name: str
    options: dict[str, str]
    identity: dict[str, str]
    labels: list[str]
    colours: dict[str, str]
    concepts: dict[str, Annotated[list[str], Field(min_length=3, max_length=3)]] = {}
    neutral: list[str] = []


class _File(BaseModel, strict=True, extra="forbid"):
    path: str
    status: FileStatus
    image: str
    reader: str
    reason: str


class _Config(BaseModel, strict=True):
    preset: str
    reports: list[str]
    report_options: dict[str, str] = {}


class _Manifest(BaseModel, strict=True):
    """The parts of every manifest; images are validated by `ImagePlan.from_json`."""

    format: int
    config: _Config
    versions: dict[str, str]
    annotator: _Annotator
    area_sha256: str
    files: list[_File]
    images: list[dict[str, Any]]
    plan_sha256: str


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read and validate the manifest of a run. Raises as `read_manifest` does."""
    manifest = read_manifest(folder)
    check_format(manifest, folder)
    try:
        checked = _Manifest.model_validate(manifest)
        for image in checked.images:
            ImagePlan.from_json(image)
        _ = checked.versions["limner"]
    except Exception as error:
        raise StoreError(
            str(folder / MANIFEST),
            f"must be as this version of limner ({version('limner')}) writes it",
            value=_problem(error),
            remedy="Use the version of limner that made it, or run again into another folder",
        ) from error
    return manifest


def _problem(error: Exception) -> str:
    """What is wrong with a manifest: the first part that is, where pydantic found several."""
    if not isinstance(error, ValidationError):
        return excerpt(f"{type(error).__name__}: {error}", 300)
    first, *more = error.errors()
    others = f", and {plural(len(more), 'other part')}" if more else ""
    return excerpt(f"{'.'.join(map(str, first['loc']))}: {first['msg']}{others}", 300)


def refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], folder: str) -> None:
    """Raise `RequestError` with the differences between the manifest in a folder and the one of this run.

    Settings that cannot change a result may differ.
    """
    changed = [f"{key}: {excerpt(str(a), 60)} there, {excerpt(str(b), 60)} now" for key, a, b in _differences(old, new)]
    if changed:
        raise RequestError(
            folder,
            "must not hold another run",
            value="; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
            remedy="Give another --out, or the same settings and inputs as before to resume that run",
        )


def versions() -> dict[str, str]:
    """Versions of the packages and C libraries that can change a result."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["geos"] = ".".join(map(str, shapely.geos_version))
    for library, (package, attribute) in BUNDLED.items():
        if package in sys.modules:
            found[library] = str(getattr(sys.modules[package], attribute))
    return found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    """(what, before, now) for everything that can change a result, settings first."""
    neutral_options = {f"model_options.{name}" for name in new.get("annotator", {}).get("neutral", [])}
    ignored = {
        "config": {*NEUTRAL, *neutral_options},
        "versions": {name for name in BUNDLED if not (name in old["versions"] and name in new["versions"])},
        "annotator": {"labels", "neutral", "colours", "concepts"},
    }
    pairs: list[tuple[str, object, object]] = []
    for part, names in ignored.items():
        before, after = _flatten(old.get(part, {})), _flatten(new.get(part, {}))
        keys = [key for key in {**before, **after} if not {key, key.partition(".")[0]} & names]
        pairs += [(key, before.get(key), after.get(key)) for key in keys]
    before, after = _fingerprints(old), _fingerprints(new)
    pairs += [(f"content of {uri}", before[uri], after[uri]) for uri in before if uri in after]
    for what in ("mask", "tissue"):
        before, after = _given(old, what), _given(new, what)
        pairs += [(f"{what} of {uri}", before[uri], after[uri]) for uri in before if uri in after]
    before, after = _statuses(old), _statuses(new)
    pairs += [(f"file {key}", before.get(key, "absent"), after.get(key, "absent")) for key in {**before, **after}]
    found = [pair for pair in pairs if pair[1] != pair[2]]
    rest = [(key, old.get(key), new.get(key)) for key in ("format", "area_sha256", "plan_sha256")]
    return found or [pair for pair in rest if pair[1] != pair[2]]


def _flatten(part: Mapping[str, object]) -> dict[str, object]:
    """A part of a manifest with the keys of nested maps as "map.key"."""
    flat: dict[str, object] = {}
    for key, value in part.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in cast("dict[str, object]", value).items()}
        else:
            flat[key] = value
    return flat


def _fingerprints(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {image["info"]["uri"]: image["info"]["fingerprint"] for image in manifest.get("images", [])}


def _given(manifest: Mapping[str, Any], what: str) -> dict[str, str]:
    """The sha256 of each image's mask, or how its tissue was found, by the image's URI."""
    found = {image["info"]["uri"]: image.get(what, "") for image in manifest.get("images", [])}
    return {uri: one["sha256"] if isinstance(one, dict) else one for uri, one in found.items()}


def _statuses(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The status of each file, without results, which come and go."""
    results = {RUN_FOLDER, RESULTS_FOLDER}
    return {row["path"]: row["status"] for row in manifest.get("files", []) if row["reason"] not in results}
