"""Scans the inputs of a run with the options that its settings state."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ...readers.errors import RequestError
from ...readers.files import absolute, open_regular
from ...readers.registry import scan
from ...readers.scanned_files import ScannedFile
from ..config import QUALITY_BANDS, Settings, is_path
from .run_files import REVIEWS, is_run_folder

RUN_FOLDER = "a run folder, which holds results"
RESULTS_FOLDER = "a folder of results, which limner wrote"
_HEAD: Final = 1 << 16
_RESULTS: Final = (  # all files of one of them: zones, a probe, a training
    ("zones.csv", "zones.parquet"),
    ("card.yaml", "head.safetensors", "confusion.png"),
    ("losses.csv", "losses.png", "checkpoints"),
)
_STATED: Final = re.compile(rb'\{\n "use": "[^\n]*",\n "statements": \[')  # about.json of changes, merged runs, exports


def reader_options(settings: Settings, key: str = "") -> dict[str, str]:
    """The readers' options: those of the settings, and what readers need of other settings.

    `key` is the path of a key file for pseudonyms.
    """
    for name, example in (("names", "--names show"), ("crosswalk", "--crosswalk FILE")):
        if name in settings.reader_options:
            rule, remedy = f"must be given as {name}", f"Give {example}"
            raise RequestError(f"setting reader_options.{name}", rule, remedy=remedy)
    implied = {"names": "show" if settings.names == "show" else "hide"} | ({"key_file": key} if key else {})
    implied |= {"crosswalk": settings.crosswalk} if settings.crosswalk else {}
    return implied | settings.stated_options()


def scan_inputs(settings: Settings, options: Mapping[str, str]) -> list[ScannedFile]:
    """Scan the inputs, without the results and masks in them. Raises `RequestError` where there are no inputs."""
    if not settings.inputs:
        raise RequestError("inputs", "must name at least one file or folder", remedy="limner run INPUT... --out DIR")

    def reason_to_skip(folder: str) -> str | None:
        if settings.out and os.path.exists(settings.out) and os.path.samefile(folder, settings.out):  # noqa: PTH110, PTH121 - strings, as the registry has them
            return ""
        reviewed = folder.removesuffix(REVIEWS)
        if reviewed != folder and is_run_folder(Path(reviewed)):  # its reviews, which come and go
            return ""
        if is_run_folder(Path(folder)):
            return RUN_FOLDER
        return RESULTS_FOLDER if _holds_results(Path(folder)) else None

    rows = scan(settings.inputs, options, reader=settings.reader or None, skip_folder=reason_to_skip)
    masks = {"the mask, as --mask says": settings.mask, "the tissue, as --tissue says": settings.tissue}
    given = {absolute(path): reason for reason, path in masks.items() if is_path(path)}
    if settings.mask in QUALITY_BANDS:
        from ...readers.mask_files import band_files

        found = band_files(settings.mask, [info for row in rows for info in row.infos])
        given |= {absolute(path): f"the {settings.mask} of {of}" for path, of in found.items()}
    return [
        replace(row, status="skipped", infos=(), reason=given[absolute(row.path)])
        if given and row.status == "read" and absolute(row.path) in given
        else row
        for row in rows
    ]


def _holds_results(folder: Path) -> bool:
    """Whether a folder has the files of results that limner wrote, other than a run."""
    try:
        if any(all((folder / name).exists() for name in names) for names in _RESULTS):
            return True
        with open_regular(folder / "about.json") as file:
            return bool(_STATED.match(file.read(_HEAD)))
    except OSError:
        return False
