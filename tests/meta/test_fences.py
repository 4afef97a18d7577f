"""Which package may import which third-party library."""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGES = ("readers", "model", "reports", "pipelines", "limner")


ROOMS: dict[str, tuple[str, ...]] = {
    # formats and coordinate systems
    "rasterio": (
        "readers/raster/*",
        "model/class_map*",
        "reports/class_map.py",
        "reports/stac_assets.py",
        "reports/rasters.py",
    ),
    "openslide": ("readers/slide/*",),
    "tifffile": ("readers/slide/*", "reports/rasters.py"),
    "imagecodecs": ("readers/slide/*",),
    "pydicom": ("readers/dicom/*", "reports/dicom/*"),
    "highdicom": ("reports/dicom/*",),
    "pyproj": ("readers/*",),
    # networks and their files
    **dict.fromkeys(("onnxruntime", "torch", "transformers", "bitsandbytes", "sentencepiece", "ftfy"), ("model/*",)),
    **dict.fromkeys(("huggingface_hub", "sklearn", "threadpoolctl"), ("model/*",)),
    **dict.fromkeys(("jsonschema", "llguidance"), ("model/vlm/*",)),
    "httpx2": ("model/vlm/*", "readers/slide/zarr_store.py"),
    "jinja2": ("model/vlm/*", "reports/html/*"),
    "platformdirs": ("readers/caches.py",),
    **dict.fromkeys(("dicomweb_client", "requests"), ("readers/dicomweb/*",)),
    "monai": ("model/volume/*",),
    "safetensors": ("model/*", "pipelines/train/*"),
    # tables, drawings and the terminal
    "geopandas": ("reports/*",),
    "h5py": ("reports/features.py",),
    "pyarrow": ("reports/*", "pipelines/run/*"),
    "pyogrio": ("reports/*", "readers/vectors.py"),
    "pandas": ("reports/*", "pipelines/run_result.py", "pipelines/overlays.py", "pipelines/overlay/compare.py"),
    "PIL": ("model/*", "reports/*", "pipelines/*", "readers/slide/icc.py"),
    "matplotlib": ("pipelines/train/*",),
    "nibabel": ("reports/*",),
    "ray": ("pipelines/run/ray_engine.py",),
    "typer": ("pipelines/cli/*",),
    "rich": ("pipelines/progress.py", "pipelines/progress_bar.py"),
    "yaml": ("model/*", "pipelines/*"),
    **dict.fromkeys(("numpy", "shapely", "scipy", "pydantic"), ("*",)),
}
"""Library → the rooms that may import it, as patterns of paths."""

BEHIND = {
    "openslide-bin",  # openslide's
    "pyjpegls",  # pydicom's, like the four below
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "python-gdcm",
}
"""Required because a library that we import loads it."""

OURS = {"test", "lint"}
"""Extras of those who work on limner; the others are a user's choice, imported late."""

DISTRIBUTIONS = {
    "Jinja2": "jinja2",
    "openslide-python": "openslide",
    "dicomweb-client": "dicomweb_client",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
}
"""Where what one installs and what one imports have different names."""

HEAVY = (
    "PIL",
    "dicomweb_client",
    "geopandas",
    "highdicom",
    "llguidance",
    "onnxruntime",
    "openslide",
    "pandas",
    "pyarrow",
    "pydicom",
    "pyogrio",
    "pyproj",
    "rasterio",
    "requests",
    "tifffile",
    "torch",
    "transformers",
)


SEAMS = (
    "raster.bands",
    "errors",
    "files",
    "geometry",
    "image",
    "plugins",
    "regions",
    "registry",
    "render",
    "resample",
)
"""Modules of `readers` that a plug-in or another package needs without any format."""


@cache
def libraries(source: str) -> set[str]:
    """Third-party libraries that a source imports, at the top or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "__import__",
            "import_module",
            "importlib.import_module",
        }:
            found |= {str(a.value).partition(".")[0] for a in node.args if isinstance(a, ast.Constant) if a.value}
    return found - set(sys.stdlib_module_names) - {"limner"}


def imports(root: Path) -> dict[str, set[str]]:
    """File → libraries."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): libraries(path.read_text(encoding="utf-8")) for path in paths}


def violations(found: Mapping[str, set[str]]) -> list[str]:
    """Every import over a fence."""
    return [
        f"{path} imports {library}"
        for path, names in found.items()
        for library in sorted(names)
        if not any(fnmatch.fnmatch(path, pattern) for pattern in ROOMS.get(library, ()))
    ]


def test_libraries_are_imported_only_where_allowed(root: Path) -> None:
    assert violations(imports(root)) == []


def test_every_allowed_import_is_used(root: Path) -> None:
    found = imports(root)
    unused = [
        f"{library} in {pattern}"
        for library, patterns in ROOMS.items()
        for pattern in patterns
        if not any(library in names for path, names in found.items() if fnmatch.fnmatch(path, pattern))
    ]
    assert unused == []


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("readers", "import torch"),
        ("readers", "def late():\n    import rasterio.features"),
        ("model", "from pandas import DataFrame"),
        ("reports", "import importlib\nx = importlib.import_module('onnxruntime')"),
        ("pipelines", "import a_library_nobody_agreed_on"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, package: str, line: str) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    planted = tmp_path / package / "planted.py"
    planted.write_text("import json\nimport numpy as np\n", encoding="utf-8")
    assert violations(imports(tmp_path)) == []
    planted.write_text(line + "\n", encoding="utf-8")
    [caught] = violations(imports(tmp_path))
    assert caught.startswith(f"{package}/planted.py imports ")


def test_requirements_match_the_imports(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() for line in lines if name not in OURS]
    required = {re.split(r"[<>=]", line)[0] for line in [*project["dependencies"], *extras]}
    assert required >= BEHIND
    assert {DISTRIBUTIONS.get(name, name) for name in required - BEHIND} == set(ROOMS)


def modules(root: Path) -> list[str]:
    """The modules of the packages other than `model`, and those of the annotators that plug-in entry points name."""
    paths = sorted(path for package in PACKAGES[:-1] if package != "model" for path in (root / package).rglob("*.py"))
    names = [path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in paths]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    annotators = [value.partition(":")[0] for value in project["entry-points"]["limner.annotators"].values()]
    return [*(f"limner.{name.removesuffix('.__init__')}" for name in names), *annotators]


def loaded(code: str) -> set[str]:
    """The heavy libraries in memory after a fresh Python ran `code`, with the network out of reach."""
    closed = (
        "import socket\n"
        "def refuse(*_):\n    raise AssertionError('the network was touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
    )
    output = f"\nimport sys\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", closed + code + output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_packages_cost_nothing_to_import() -> None:
    assert loaded("import limner, " + ", ".join(f"limner.{package}" for package in PACKAGES[:-1])) == set()


@pytest.mark.slow
def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded("import rasterio") == {"rasterio"}


@pytest.mark.slow
def test_the_reader_interface_loads_no_format_library() -> None:
    assert loaded("import " + ", ".join(f"limner.readers.{name}" for name in SEAMS)) == set()


@pytest.mark.slow
def test_only_network_modules_load_torch(root: Path) -> None:
    names = modules(root)
    assert "limner.pipelines.cli.main" in names
    assert loaded("import " + ", ".join(names)) & {"onnxruntime", "torch", "transformers"} == set()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["--help", "run --help", "models --help", "plugins"])
def test_help_is_quick_and_touches_neither_network_nor_models_nor_pixels(arguments: str) -> None:
    code = (
        f"import sys\nsys.argv = ['limner', *{arguments.split()!r}]\n"
        "from limner.pipelines.cli.main import main\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "assert not code, code"
    )
    found = loaded(code)
    if arguments == "plugins":  # which loads each of them, to list its options
        found &= {"onnxruntime", "rasterio", "torch", "transformers"}
    assert found == set()
