"""Scans the inputs of a run with the options that its settings state."""

import os
from collections.abc import Mapping
from pathlib import Path

from ...readers.errors import RequestError
from ...readers.registry import scan
from ...readers.scanned_files import ScannedFile
from ..config import Settings
from .run_folder import REVIEWS, is_run_folder

RUN_FOLDER = "a run folder, which holds results"


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
    """Scan the inputs, without the run folders in them. Raises `RequestError` where there are no inputs."""
    if not settings.inputs:
        raise RequestError("inputs", "must name at least one file or folder", remedy="limner run INPUT... --out DIR")

    def reason_to_skip(folder: str) -> str | None:
        if settings.out and os.path.exists(settings.out) and os.path.samefile(folder, settings.out):  # noqa: PTH110, PTH121 - strings, as the registry has them
            return ""
        reviewed = folder.removesuffix(REVIEWS)
        if reviewed != folder and is_run_folder(Path(reviewed)):  # its reviews, which come and go
            return ""
        return RUN_FOLDER if is_run_folder(Path(folder)) else None

    return scan(settings.inputs, options, reader=settings.reader or None, skip_folder=reason_to_skip)
