"""Messages of errors read as one sentence: the subject, then a rule that begins with "must"."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("readers", "model", "reports", "pipelines")
ERRORS = {
    "LimnerError",
    "RequestError",
    "ReadError",
    "ModelError",
    "StoreError",
    "OutputError",
    "NothingChosenError",
    "wrap_errors",
}


def rules(source: str) -> Iterator[tuple[int, str]]:
    """(line, rule) of every error, and variable `rule`, that is a literal or an f-string that begins with one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ERRORS and len(node.args) > 1:
            rule = node.args[1]
        elif isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == "rule" for one in node.targets
        ):
            rule = node.value
        else:
            continue
        first = rule.values[0] if isinstance(rule, ast.JoinedStr) else rule
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield node.lineno, first.value


@pytest.mark.parametrize("package", PACKAGES)
def test_a_rule_begins_with_must(root: Path, package: str) -> None:
    wrong = [
        f"{path.relative_to(root).as_posix()}:{line} {rule}"
        for path in sorted((root / package).rglob("*.py"))
        for line, rule in rules(path.read_text(encoding="utf-8"))
        if not rule.startswith("must ")
    ]
    assert wrong == []


def test_a_rule_is_found() -> None:
    assert [*rules("raise RequestError('option', f'it is {x}', remedy='Correct it')")] == [(1, "it is ")]
    assert [*rules("rule = 'needs a band'")] == [(1, "needs a band")]
