"""Packages import only to the left: readers, model, reports, pipelines."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = ("readers", "model", "reports", "pipelines", "limner")
IMPORTERS = {"__import__", "import_module", "importlib.import_module"}


def imported(tree: ast.AST, depth: int = 1) -> Iterator[tuple[int, str]]:
    """(line, which of our packages) for every import of one, however it is written and wherever it stands.

    `depth` is how many folders below the root the file lies.
    """
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            names = [f"limner.{node.module or alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level > depth + 1:
            names = ["limner.beyond-the-top"]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS:
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "limner":
                yield getattr(node, "lineno", 0), rest.partition(".")[0]
            elif first in ORDER:
                yield getattr(node, "lineno", 0), f"a second copy of {first}"


def violations(root: Path) -> list[str]:
    """Every import in the four folders of `root` that does not point to the left."""
    found: list[str] = []
    for place, package in enumerate(ORDER):
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            room = path.parent.relative_to(root)
            for line, target in imported(ast.parse(path.read_text(encoding="utf-8")), len(room.parts)):
                if target not in ORDER[: place + 1]:
                    found.append(f"{where}:{line} imports {target}")
    return found


def test_packages_import_only_to_the_left(root: Path) -> None:
    assert violations(root) == []


def test_imports_are_found(root: Path) -> None:
    observed = {package: [*imported(ast.parse(text))] for package in ORDER for text in [_all(root / package)]}
    assert {target for _, target in observed["model"]} >= {"readers"}
    assert {target for _, target in observed["reports"]} >= {"readers", "model"}
    assert {target for _, target in observed["pipelines"]} >= {"readers", "model"}


def _all(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))


@pytest.mark.parametrize(
    ("package", "line", "target"),
    [
        ("readers", "from ..model.finding import Finding", "model"),
        ("readers", "from .. import reports", "reports"),
        ("model", "import limner.reports.writer", "reports"),
        ("model", "from limner import pipelines", "pipelines"),
        ("reports", "from ..pipelines.run import run_folder", "pipelines"),
        ("reports", "def late():\n    from ..pipelines.run.run_folder import RunFolder", "pipelines"),
        ("reports", "import importlib\nimportlib.import_module('limner.pipelines.run.run_folder')", "pipelines"),
        ("pipelines", "from readers.geometry import Box", "a second copy of readers"),
        ("pipelines", "from ...elsewhere import thing", "beyond-the-top"),
        ("pipelines", "import limner", ""),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, package: str, line: str, target: str) -> None:
    for name in ORDER:
        (tmp_path / name).mkdir()
    planted = tmp_path / package / "planted.py"
    planted.write_text("from ..readers.geometry import Box\n", encoding="utf-8")
    assert violations(tmp_path) == []
    planted.write_text(line + "\n", encoding="utf-8")
    assert violations(tmp_path) == [f"{package}/planted.py:{line.count(chr(10)) + 1} imports {target}"]


def test_subpackages_keep_the_order(tmp_path: Path) -> None:
    (tmp_path / "readers" / "dicom").mkdir(parents=True)
    planted = tmp_path / "readers" / "dicom" / "planted.py"
    planted.write_text("from ..geometry import Box\n", encoding="utf-8")
    assert violations(tmp_path) == []
    planted.write_text("from ...reports.writer import Record\n", encoding="utf-8")
    assert violations(tmp_path) == ["readers/dicom/planted.py:1 imports reports"]


def sibling_imports(root: Path) -> dict[str, set[str]]:
    """Module → the modules of our packages that it imports, at the top, late, or for type checkers only."""
    files = {
        path.relative_to(root).with_suffix("").as_posix().replace("/", "."): path
        for p in ORDER[:-1]
        for path in (root / p).rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join([*module.split(".")[: -node.level], *([node.module] if node.module else [])])
                graph[module] |= {
                    name for name in (base, *(f"{base}.{alias.name}" for alias in node.names)) if name in files
                }
    return graph


def test_no_modules_import_each_other(root: Path) -> None:
    graph = sibling_imports(root)
    assert "readers.geometry" in graph["readers.image"]
    graphlib.TopologicalSorter(graph).prepare()  # which raises CycleError


def test_a_circle_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
