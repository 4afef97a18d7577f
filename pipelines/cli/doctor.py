"""What this machine offers: versions, formats, weights, cores, memory, disk."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from ...model.checkpoints.cards import find_card, shipped_cards
from ...model.checkpoints.weights import cache_folder, locate
from ...readers.errors import ModelError
from ..run.machine import cores, total_memory

PACKAGES = (
    *("limner", "numpy", "rasterio", "pyproj", "shapely", "pyogrio", "onnxruntime", "torch", "transformers"),
    *("pydicom", "openslide-python", "pandas", "pillow", "pydantic", "typer"),
)
DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "VRT", "SAFE", "SENTINEL2", "NITF", "netCDF", "HDF5", "PNG", "JPEG")


_ASK_GDAL = """
import json, rasterio
with rasterio.Env() as env:
    print(json.dumps([rasterio.__gdal_version__, list(env.drivers())]))
"""


def examine() -> Iterator[tuple[str, str]]:
    """(what, how it is) in a fixed order. Touches no network and changes nothing."""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
    yield from _formats()
    yield "cores", str(cores())
    memory = total_memory()
    yield "memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"
    cache = cache_folder()
    yield "weights cache", f"{cache} ({_free(cache)} free)"
    yield "working folder", f"{Path.cwd()} ({_free(Path.cwd())} free)"
    for name in shipped_cards():
        yield f"model {name}", weights_state(name)


def weights_state(name: str) -> str:
    """Which of a card's weights are on this machine. Touches no network."""
    card = find_card(name)
    here: list[str] = []
    gone: list[str] = []
    for variant in card.variants:
        try:
            locate(variant.weights, variant.sha256, fetch=False, name=card.name)
            here.append(variant.name)
        except ModelError:
            gone.append(variant.name)
    said = f"on this machine: {', '.join(here) or 'none'}"
    return said + (f"; not here: {', '.join(gone)} (limner models fetch {name})" if gone else "")


def _formats() -> Iterator[tuple[str, str]]:
    """Formats that rasterio opens, asked in a process of its own: a library that cannot be loaded is a finding."""
    asked = subprocess.run([sys.executable, "-c", _ASK_GDAL], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if asked.returncode != 0:
        yield "GDAL", f"cannot be loaded: {asked.stderr.strip()[-300:]}"
        return
    gdal, drivers = cast("tuple[str, list[str]]", json.loads(asked.stdout))
    yield "GDAL", gdal
    yield "GDAL drivers", ", ".join(name for name in DRIVERS if name in drivers)
    lacking = [name for name in DRIVERS if name not in drivers]
    if lacking:
        yield "GDAL lacks", ", ".join(lacking)


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**30:.1f} GiB"
