"""What a satellite product's own metadata says of its bands: Landsat's MTL, Sentinel-2's MTD."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import ReadError, excerpt
from .bands import Radiometry, Sensor

SENTINEL_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
MOST_BYTES = 16 * 2**20
LEVELS_UP = 4  # from IMG_DATA/R10m to the product folder


def radiometry_beside(uri: str, sensor: Sensor) -> Mapping[str, Radiometry]:
    """Band id → radiometry from the metadata that lies with a band's file (or folder); empty where there is none.

    Landsat level 1: top-of-atmosphere reflectance = (REFLECTANCE_MULT · Q + REFLECTANCE_ADD) / sin(SUN_ELEVATION), by
    the Landsat data format control books; thermal bands stay plain numbers. Sentinel-2: (Q + ADD_OFFSET) /
    QUANTIFICATION_VALUE. Raises `ReadError` where the metadata is there and cannot be understood.
    """
    path = metadata_beside(uri, sensor)
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ReadError(
            str(path), "it must be readable", value=str(error), remedy="Check the path and rights"
        ) from error
    if len(content) > MOST_BYTES:
        raise ReadError(
            str(path),
            f"a product's metadata must not be larger than {MOST_BYTES // 2**20} MiB",
            remedy="Fetch it again, or remove it to work with plain numbers",
        )
    text = content.decode("utf-8", errors="replace")
    return _sentinel(text, path) if sensor.name.startswith("sentinel") else _landsat(text, path)


def metadata_beside(uri: str, sensor: Sensor) -> Path | None:
    """The metadata file of the product that a file or folder belongs to, or None."""
    start = Path(uri)
    folder = start if start.is_dir() else start.parent
    if sensor.name.startswith("sentinel"):
        level = "L1C" if "l1c" in sensor.name else "L2A"
        for place in (folder, *folder.resolve().parents[:LEVELS_UP]):
            if (found := place / f"MTD_MSI{level}.xml").is_file():
                return found
        return None
    if not re.fullmatch(r"landsat-\d-l1", sensor.name):
        return None
    for ending in ("MTL.json", "MTL.txt"):
        for found in sorted(folder.glob(f"*{ending}")):
            if start.is_dir() or start.name.startswith(found.name.removesuffix(ending)):
                return found
    return None


def _sentinel(text: str, path: Path) -> Mapping[str, Radiometry]:
    quantity = "toa_reflectance" if "L1C" in path.name else "surface_reflectance"
    found = re.search(r"<(?:BOA_)?QUANTIFICATION_VALUE(?:\s[^<>]*)?>([^<]*)", text)
    offsets = re.findall(r'<(?:RADIO|BOA)_ADD_OFFSET\s+band_id="(\d+)"\s*>([^<]*)', text)
    try:
        by = float(found[1]) if found else 0.0
        known = {SENTINEL_BANDS[int(at)]: float(value) for at, value in offsets if int(at) < len(SENTINEL_BANDS)}
    except ValueError as error:
        raise _misstated(path, error) from error
    if not (0 < by < math.inf and all(map(math.isfinite, known.values()))):
        raise _misstated(path, f"{by:g}" if found else "none")
    return {band: Radiometry(1 / by, known.get(band, 0.0) / by, quantity) for band in SENTINEL_BANDS}


def _misstated(path: Path, value: object) -> ReadError:
    return ReadError(
        str(path),
        "it must state the quantification value, and offsets as numbers",
        value=excerpt(str(value)),
        remedy="Fetch the product's metadata again",
    )


def _landsat(text: str, path: Path) -> Mapping[str, Radiometry]:
    try:
        facts = dict(_flat(json.loads(text))) if path.suffix == ".json" else _pairs(text)
        sine = math.sin(math.radians(float(facts["SUN_ELEVATION"])))
        bands: dict[str, Radiometry] = {}
        for key, value in facts.items():
            if found := re.fullmatch(r"REFLECTANCE_MULT_BAND_(\w+)", key):
                add = float(facts[f"REFLECTANCE_ADD_BAND_{found[1]}"])
                bands[f"B{found[1]}"] = Radiometry(float(value) / sine, add / sine, "toa_reflectance")
        if not all(math.isfinite(number) for band in bands.values() for number in (band.scale, band.offset)):
            raise ValueError("numbers that are not finite")  # noqa: TRY301 - reported like all others
    except (KeyError, ValueError, ArithmeticError, RecursionError) as error:
        raise ReadError(
            str(path),
            "it must state SUN_ELEVATION and reflectance factors",
            value=excerpt(str(error)),
            remedy="Fetch the scene's metadata again, or remove it to work with plain numbers",
        ) from error
    if sine <= 0:
        raise ReadError(
            str(path),
            "reflectance needs the sun above the horizon",
            value=f"SUN_ELEVATION {facts['SUN_ELEVATION']}",
            remedy="Remove the metadata file to work with plain numbers",
        )
    return bands


def _pairs(text: str) -> dict[str, str]:
    return {
        key: value.strip('"')
        for key, value in re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(\S+)[ \t\r]*$", text, re.MULTILINE)
    }


def _flat(tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in cast("dict[str, Any]", tree).items():
            if isinstance(value, dict):
                yield from _flat(cast("dict[str, Any]", value))
            else:
                yield key, str(value)
