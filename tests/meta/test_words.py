"""Identifiers and file names use the terms of the field: no word of `banned_names.csv` is a part of one."""

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("readers", "model", "reports", "pipelines", "limner")


def words(name: str) -> set[str]:
    """The words of an identifier in snake_case or CamelCase, in lower case."""
    return {word.lower() for part in name.split("_") for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)}


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that a source itself names: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def banned(root: Path) -> dict[str, str]:
    """Banned word → what to write instead, "" where it depends."""
    with (root / "tests/meta/banned_names.csv").open(encoding="utf-8", newline="") as file:
        return {row["banned"]: row["instead"] for row in csv.DictReader(file)}


def found(root: Path, packages: tuple[str, ...]) -> list[str]:
    """Each file and identifier with a banned word."""
    instead = banned(root)
    hits: list[str] = []
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        where = path.relative_to(root).as_posix()
        names = [(0, path.stem), *sorted(set(identifiers(path.read_text(encoding="utf-8"))))]
        hits += [
            f"{where}:{line} {name}: not {word}, but {instead[word] or 'what it is'}"
            for line, name in names
            for word in sorted(words(name) & instead.keys())
        ]
    return hits


@pytest.mark.parametrize("package", PACKAGES)
def test_no_identifier_holds_a_banned_word(root: Path, package: str) -> None:
    assert found(root, (package,)) == []


def test_a_banned_word_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests/meta").mkdir(parents=True)
    (tmp_path / "tests/meta/banned_names.csv").write_text("banned,instead\nsight,input_spec\n", encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/views.py").write_text("class FirstSight:\n    pass\n\noversight = 1\n", encoding="utf-8")
    assert found(tmp_path, ("model",)) == ["model/views.py:1 FirstSight: not sight, but input_spec"]
