"""House rules for every file: length, docstrings, no local paths."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("readers", "model", "reports", "pipelines", "limner")
LONGEST = 500
TEXTS = {"", ".cfg", ".csv", ".in", ".ipynb", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}


def files(root: Path) -> Iterator[Path]:
    """The project's own text files: whatever is not hidden, built or a run's."""
    made = {"build", "dist", "runs", "__pycache__", "shared"}
    for top in sorted(root.iterdir()):
        if top.name == ".ci" or not (top.name.startswith(".") or top.name in made or top.name.endswith(".egg-info")):
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file() and path.suffix in TEXTS and not made & set(path.parts[len(root.parts) :]):
                    yield path


def undocumented(source: str) -> list[str]:
    """Public classes, functions and methods without a docstring, and the module itself."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["the module"]

    def visit(body: list[ast.stmt], owner: str) -> None:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                found.append(owner + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{owner}{node.name}.")

    visit(tree.body, "")
    return found


def test_project_files_are_found(root: Path) -> None:
    observed = {path.relative_to(root).as_posix() for path in files(root)}
    assert {
        "README.md",
        "Makefile",
        ".ci/run",
        "pyproject.toml",
        "readers/geometry.py",
        "tests/conftest.py",
    } <= observed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(root: Path, package: str) -> None:
    paths = sorted((root / package).rglob("*.py"))
    silent = {path.relative_to(root).as_posix(): undocumented(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: names for name, names in silent.items() if names} == {}


def test_a_missing_docstring_is_found() -> None:
    source = '"""A module."""\nclass A:\n    """A."""\n    def b(self): ...\n    def _c(self): ...\ndef d(): ...\n'
    assert undocumented(source) == ["A.b", "d"]
    assert undocumented("x = 1\n") == ["the module"]


def test_no_file_is_longer_than_500_lines(root: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(root) if path.suffix == ".py"}
    assert {path.relative_to(root).as_posix(): n for path, n in lengths.items() if n > LONGEST} == {}


def test_no_file_contains_a_local_path(root: Path) -> None:
    folders = [f"/{name}/" for name in ("home", "Users", "work", "tmp/lab", "root")]
    found = [
        f"{path.relative_to(root).as_posix()}:{number}: {line.strip()}"
        for path in files(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(folder in line.replace("://", ":") for folder in folders)
    ]
    assert found == []
