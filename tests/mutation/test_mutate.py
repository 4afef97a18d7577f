"""The table of mutated modules names files that exist."""

import re
from pathlib import Path


def test_modules_and_their_tests_exist(root: Path) -> None:
    text = (root / "tests/mutation/mutate.py").read_text(encoding="utf-8")
    modules = re.findall(r'^    "(\w+/[\w/]+\.py)":', text, re.MULTILINE)
    tests = re.findall(r'"((?:readers|model|reports|pipelines)/[\w/]*test_\w+\.py)', text)
    assert len(modules) > 10
    assert len(tests) > 10
    assert [name for name in modules if not (root / name).is_file()] == []
    assert [name for name in tests if not (root / "tests" / name).is_file()] == []
