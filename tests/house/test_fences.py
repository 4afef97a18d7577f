"""Which file may import which library. What is not in the table may not be imported at all."""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGES = ("readers", "model", "reports", "pipelines", "limner")


def _in(room: str, names: str) -> tuple[str, ...]:
    """Files of one of the model's rooms."""
    return tuple(f"model/{room}/{name}.py" for name in names.split())


CARDS = ("model/cards.py", "model/fourkhd/card.py", "model/probe/card.py")

FENCES: dict[str, tuple[str, ...]] = {
    # arrays and planar geometry are the language that the packages speak with each other
    "numpy": ("*",),
    "shapely": ("*",),
    # a format or a system of coordinates, one file; rasterio once more, late, for tracing class maps without any raster
    "rasterio": ("readers/gdal.py", "model/polygons.py"),
    # connected patches and dilation of masks
    "scipy": ("readers/patches.py",),
    "pyproj": ("readers/geodesy.py", "readers/proj.py"),
    "openslide": ("readers/slide.py",),
    "tifffile": ("readers/pyramid.py", "readers/tiffpicture.py"),
    # only in the limited process that decodes studies
    "pydicom": ("readers/dicom/header.py", "readers/dicom/pixels.py"),
    "matplotlib": ("pipelines/plots.py",),
    "pyogrio": ("reports/geopackage.py",),
    "pandas": ("reports/tables.py", "reports/frames.py", "pipelines/run_result.py"),
    "geopandas": ("reports/frames.py",),
    # drawing; and late, for pictures that do not fill the 4KHD grid exactly, and for those that are sent
    "PIL": (
        *("reports/lettering.py", "reports/overview.py", "reports/painting.py"),
        "model/training/samples.py",
        *("model/tiling.py", "model/asking/chat.py"),
        *("pipelines/describe.py", "pipelines/opened.py", "pipelines/run_result.py"),
    ),
    # what runs a network, and what fetches one
    "onnxruntime": ("model/onnx.py",),
    "huggingface_hub": ("model/weights.py",),
    "platformdirs": ("model/weights.py",),
    # a model behind a URL: what asks it, and what checks its answers
    "httpx2": ("model/asking/wire.py",),
    "jsonschema": ("model/asking/schema.py",),
    # what compares pictures with words, and what answers questions on them
    "torch": (
        "model/contrastive.py",
        "model/loading.py",
        "model/memory.py",
        "model/tensors.py",
        "model/probe/towers.py",
        *_in("asking", "decoding imagetext"),
        *_in("openclip", "load residual"),
        *_in("zoo", "networks torchscript"),
        *_in("fourkhd", "answer attention convert language load network running speaker tower vision"),
        *_in("training", "align checkpoints"),
    ),
    "transformers": (
        "model/contrastive.py",
        "model/loading.py",
        "model/probe/towers.py",
        *_in("asking", "decoding imagetext processor reckoning"),
        *_in("openclip", "load residual"),
        *_in("zoo", "networks"),
        *_in("fourkhd", "answer attention language network tower"),
    ),
    # what repairs a text whose encoding was mixed up
    "ftfy": ("model/openclip/texts.py",),
    # what a chat template is a program for, in the limited process
    "jinja2": _in("asking", "templates"),
    # what holds an answer to a schema
    "llguidance": ("model/asking/grammar.py",),
    # a checkpoint's files, its words, and numbers of few bits
    "safetensors": (
        *("model/footprint.py", "model/probe/head.py", "model/tensors.py", "pipelines/features.py"),
        *_in("fourkhd", "build convert"),
        *_in("training", "checkpoints"),
    ),
    "sentencepiece": _in("fourkhd", "tokens vocabulary"),
    "bitsandbytes": _in("fourkhd", "load"),
    # options of plug-ins, strict settings, cards and plans, in and out of text
    "pydantic": ("*",),
    "yaml": ("pipelines/settings_file.py", "model/untrusted.py", "model/probe/card.py"),
    # what fits a probe's head, on as many threads as it is told; using one needs neither
    "sklearn": _in("training", "probe"),
    "threadpoolctl": _in("training", "probe"),
    # talking to a person
    "typer": ("pipelines/cli.py", "pipelines/cli_*.py"),
    "rich": ("pipelines/progress.py",),
}
"""Library → the files that may import it, as patterns."""

BEHIND = {
    "imagecodecs",  # tifffile's
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
    "pillow": "PIL",
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
}
"""Where what one installs and what one imports have different names."""

HEAVY = (
    "PIL",
    "geopandas",
    "llguidance",
    "onnxruntime",
    "openslide",
    "pandas",
    "pydicom",
    "pyogrio",
    "pyproj",
    "rasterio",
    "tifffile",
    "torch",
    "transformers",
)


SEAMS = ("bands", "errors", "fingerprint", "geometry", "image", "plugins", "regions", "registry", "render", "resample")
"""Modules of `readers` that a plug-in or another package needs without any format."""


def libraries(source: str) -> set[str]:
    """Third-party libraries that a source imports, at the top or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"__import__", "importlib.import_module"}:
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
        if not any(fnmatch.fnmatch(path, pattern) for pattern in FENCES.get(library, ()))
    ]


def test_no_file_climbs_a_fence(root: Path) -> None:
    assert violations(imports(root)) == []


def test_every_gate_is_used(root: Path) -> None:
    found = imports(root)
    unused = [
        f"{library} in {pattern}"
        for library, patterns in FENCES.items()
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


def test_what_is_imported_is_required_and_what_is_required_is_imported(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() for line in lines if name not in OURS]
    required = {re.split(r"[<>=]", line)[0] for line in [*project["dependencies"], *extras]}
    assert required >= BEHIND
    assert {DISTRIBUTIONS.get(name, name) for name in required - BEHIND} == set(FENCES)


def modules(root: Path, *folders: str, without: tuple[str, ...]) -> list[str]:
    """Modules of those folders that are outside the fences of `without`."""
    return [
        f"limner.{path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
        for path in imports(root)
        if path.partition("/")[0] in folders
        and not path.endswith("__main__.py")
        and not any(fnmatch.fnmatch(path, pattern) for library in without for pattern in FENCES.get(library, ()))
    ]


def loaded(code: str) -> set[str]:
    """The heavy libraries in memory after a fresh Python ran `code`, with the network out of reach."""
    closed = (
        "import socket\n"
        "def refuse(*_):\n    raise AssertionError('the network was touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
    )
    told = f"\nimport sys\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", closed + code + told], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_packages_cost_nothing_to_import() -> None:
    assert loaded("import limner, " + ", ".join(f"limner.{package}" for package in PACKAGES[:-1])) == set()


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded("import rasterio") == {"rasterio"}


def test_the_reading_seam_loads_no_format_library() -> None:
    assert loaded("import " + ", ".join(f"limner.readers.{name}" for name in SEAMS)) == set()


@pytest.mark.slow
def test_only_the_network_itself_loads_what_runs_networks(root: Path) -> None:
    names = modules(
        root,
        "readers",
        "model",
        "reports",
        "pipelines",
        without=("onnxruntime", "torch", "transformers", "safetensors"),
    )
    assert "limner.pipelines.cli" in names
    assert loaded("import " + ", ".join(names)) & {"onnxruntime", "torch", "transformers"} == set()


@pytest.mark.parametrize("arguments", ["--help", "run --help", "models --help", "plugins"])
def test_help_is_quick_and_touches_neither_network_nor_models_nor_pixels(arguments: str) -> None:
    code = (
        f"import sys\nsys.argv = ['limner', *{arguments.split()!r}]\n"
        "from limner.pipelines.cli import main\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "assert not code, code"
    )
    assert loaded(code) <= ({"pyproj"} if arguments == "plugins" else set())
