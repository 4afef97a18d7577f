"""What commands load: libraries that they do not need would more than double the time that they take."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HEAVY = {"numpy", "pyproj", "shapely", "rasterio", "scipy", "pandas", "pyogrio", "torch", "transformers", "onnxruntime"}
HEAVY |= {"matplotlib", "PIL", "pydicom", "rich", "ray", "huggingface_hub", "tifffile", "openslide", "pyarrow"}
FORMATS = {"dicom.decoder", "raster.scene", "slide.czi", "slide.ome_zarr", "slide.openslide", "slide.pyramid"}
PIXELS = {"areas", "overview", "raster.raster_image", "raster.stac", "resample", "vectors"}
SCRIPT = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("LOADED " + " ".join(sys.modules)))
from limner.pipelines.cli.start import main
main()
"""
SANDBOX = """
import json, sys
from limner.readers.registry import scan
from limner.readers.sandbox import SCAN_MEMORY_MB, run_sandboxed
assert scan(sys.argv[1:], {})[0].infos
code = "sorted(__import__('sys').modules)"
print(json.dumps(run_sandboxed("builtins:eval", code, seconds=9, megabytes=SCAN_MEMORY_MB)))
"""


def loaded(words: Sequence[str]) -> set[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("LOADED ")[2].split())


def test_listing_models_loads_no_library_of_numbers() -> None:
    assert loaded(["models"]) & HEAVY == set()


def test_the_metadata_of_a_map_needs_no_library_of_reports_or_models(scene: Path) -> None:
    found = loaded(["info", str(scene)])
    assert found & HEAVY == {"numpy", "pyproj"}
    assert found & {"yaml", "limner.model", *(f"limner.readers.{name}" for name in FORMATS | PIXELS)} == set()


def test_a_plan_loads_no_library_of_reports(scene: Path) -> None:
    assert loaded(["plan", str(scene), "--model", "none"]) & HEAVY == {"numpy", "pyproj", "rasterio", "shapely"}


def test_the_process_that_scans_a_map_loads_no_library_of_other_formats(scene: Path) -> None:
    command = [sys.executable, "-c", SANDBOX, str(scene)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(json.loads(done.stdout))
    assert HEAVY & found == {"numpy", "rasterio"}
    assert found & {"email.utils", "importlib.metadata", "limner.readers.raster.stac"} == set()
