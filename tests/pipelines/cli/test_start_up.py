"""What commands load: libraries that they do not need would more than double the time that they take."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HEAVY = {"numpy", "pyproj", "shapely", "rasterio", "scipy", "pandas", "pyogrio", "torch", "transformers", "onnxruntime"}
HEAVY |= {"matplotlib", "PIL", "pydicom", "rich", "ray", "huggingface_hub"}
SCRIPT = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("LOADED " + " ".join(name for name in sys.modules if "." not in name)))
from limner.pipelines.cli.main import main
main()
"""


def loaded(words: Sequence[str]) -> set[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("LOADED ")[2].split())


def test_listing_models_loads_no_library_of_numbers() -> None:
    assert loaded(["models"]) & HEAVY == set()


def test_the_metadata_of_a_map_needs_no_library_of_reports_or_models(scene: Path) -> None:
    assert loaded(["info", str(scene)]) & HEAVY <= {"numpy", "pyproj", "shapely", "rich"}
