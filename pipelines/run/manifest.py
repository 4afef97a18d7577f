"""The manifest: what was asked, of what, by what. Two runs with the same one give the same results."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import shapely
from pydantic import BaseModel

from ...readers.errors import RequestError, excerpt
from ...reports.writer import FileStatus
from ..config import NEUTRAL, Settings
from .model_selection import NONE, AnnotatorChoice
from .plan import RUN_FOLDER, ImagePlan, Plan, area_digest
from .redaction import Redactor
from .run_folder import MANIFEST, StoreError, read_manifest

FORMAT = 2
INNER = {"gdal": ("rasterio", "__gdal_version__"), "proj": ("pyproj", "__proj_version__")}
"""Libraries inside packages, stated where a process has loaded them: where it has not, they changed no result."""

DECIDING_PACKAGES = ("limner", "numpy", "onnxruntime", "pyproj", "rasterio", "shapely", "torch", "transformers")


def make_manifest(
    settings: Settings,
    plan: Plan,
    choice: AnnotatorChoice | None,
    *,
    names: Redactor,
    identity: Mapping[str, str],
    labels: tuple[str, ...],
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that decides a run's results, as plain values that `json` writes.

    No clock, no name of a machine or person beyond the paths that were given, and of slides and studies not those.
    Without an annotator its name is "none". Options that cannot change its answers are left out.
    """
    shown = names.plan(plan)
    options = () if choice is None else choice.options
    neutral = frozenset[str]() if choice is None else choice.neutral
    return {
        "format": FORMAT,
        "config": names.settings(settings).model_dump(mode="json", exclude={"out"}),
        "versions": versions(),
        "annotator": {
            "name": NONE if choice is None else choice.name,
            "options": {key: value for key, value in options if key not in neutral},
            **({"neutral": sorted(neutral)} if neutral else {}),
            "identity": dict(identity),
            "labels": list(labels),
            "colours": dict(colours),
        },
        "area_sha256": area_digest(settings),
        "files": [
            {"path": row.path, "status": row.status, "image": row.image, "reader": row.reader, "reason": row.reason}
            for row in shown.files
        ],
        "images": [image.to_json() for image in shown.images],
        "plan_sha256": shown.digest,
    }


class _Annotator(BaseModel, strict=True):
    name: str
    options: dict[str, str]
    identity: dict[str, str]
    labels: list[str]
    colours: dict[str, str]
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
    """What every manifest holds; images are checked where they are made plans again."""

    format: Literal[2]
    config: _Config
    versions: dict[str, str]
    annotator: _Annotator
    area_sha256: str
    files: list[_File]
    images: list[dict[str, Any]]
    plan_sha256: str


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run, with every part in its place. Raises as `store.read_manifest` does."""
    manifest = read_manifest(folder)
    try:
        checked = _Manifest.model_validate(manifest)
        for image in checked.images:
            ImagePlan.from_json(image)
        _ = checked.versions["limner"]
    except Exception as error:
        raise StoreError(
            str(folder / MANIFEST),
            f"it must be as this version of limner ({version('limner')}) writes it",
            value=excerpt(f"{type(error).__name__}: {error}", 300),
            remedy="Use the version of limner that made it, or run again into another folder",
        ) from error
    return manifest


def refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], folder: str) -> None:
    """Raise `RequestError` that names what differs between a folder's manifest and what is asked for now.

    Settings that cannot change a result may differ.
    """
    changed = [f"{key}: {_short(before)} there, {_short(after)} now" for key, before, after in _differences(old, new)]
    if changed:
        raise RequestError(
            folder,
            "it holds another run, and results of two runs are never mixed",
            value="; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
            remedy="Give another --out, or ask for the same again to go on with that run",
        )


def versions() -> dict[str, str]:
    """Versions of what can change a result: our packages, and the libraries inside theirs where they say so."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in DECIDING_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["geos"] = ".".join(map(str, shapely.geos_version))
    for inner, (package, attribute) in INNER.items():
        if package in sys.modules:
            found[inner] = str(getattr(sys.modules[package], attribute))
    return found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    """(what, before, now) for each deciding part, settings first."""
    found: list[tuple[str, object, object]] = []
    free = {f"model_options.{name}" for name in cast("list[str]", _section(new, "annotator").get("neutral", []))}
    for part in ("config", "versions", "annotator"):
        before, after = _section(old, part), _section(new, part)
        neutral = {*NEUTRAL, *free} if part == "config" else {"labels", "neutral"}
        keys = [
            key for key in dict.fromkeys([*before, *after]) if not {key, key.partition(".")[0]} & {*neutral, "colours"}
        ]
        keys = [key for key in keys if key not in INNER or (key in before and key in after)]
        found += [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    prints_before, prints_after = _fingerprints(old), _fingerprints(new)
    found += [
        (f"content of {uri}", prints_before[uri], prints_after[uri])
        for uri in prints_before
        if uri in prints_after and prints_before[uri] != prints_after[uri]
    ]
    found += [
        (f"file {path}", before, after)
        for path, before, after in _joined(_statuses(old), _statuses(new))
        if before != after
    ]
    if not found:
        found += [
            (key, old.get(key), new.get(key))
            for key in ("format", "area_sha256", "plan_sha256")
            if old.get(key) != new.get(key)
        ]
    return found


def _section(manifest: Mapping[str, Any], part: str) -> dict[str, object]:
    """One part of a manifest; maps within it come out as "map.key"."""
    flat: dict[str, object] = {}
    for key, value in cast("dict[str, object]", manifest.get(part, {})).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": deep for inner, deep in cast("dict[str, object]", value).items()}
        else:
            flat[key] = value
    return flat


def _fingerprints(manifest: Mapping[str, Any]) -> dict[str, str]:
    images = cast("list[dict[str, Any]]", manifest.get("images", []))
    return {image["info"]["uri"]: image["info"]["fingerprint"] for image in images}


def _statuses(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What became of each file; folders of runs come and go, and count for nothing."""
    files = cast("list[dict[str, Any]]", manifest.get("files", []))
    return {row["path"]: row["status"] for row in files if row["reason"] != RUN_FOLDER}


def _joined(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    paths = dict.fromkeys([*before, *after])
    return [(path, before.get(path, "absent"), after.get(path, "absent")) for path in paths]


def _short(value: object) -> str:
    text = str(value)
    limit = 60
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
