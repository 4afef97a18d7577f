"""Test ids are deterministic: none depends on the clock, hash seed, time zone, locale, home or folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LONGEST = 200
LATER = """
import time

now = time.time
time.time = lambda: now() + 1e8
time.time_ns = lambda: int(time.time() * 1e9)
"""


def collect(root: Path, tests: Path, folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Start to collect `tests` in a process of its own whose working folder and home are `folder`."""
    (folder / "later.py").write_text(LATER, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "LC_"))}
    kept |= {"PYTHONPATH": str(folder), "HOME": str(folder), **environment}
    command = [sys.executable, "-m", "pytest", "-c", str(root / "pyproject.toml"), "--rootdir", str(root)]
    command += ["--confcutdir", str(tests if tests.is_dir() else tests.parent)]  # /tmp may hold anybody's conftest.py
    command += ["--collect-only", "-q", "-p", "no:cacheprovider", *options, str(tests)]
    return subprocess.Popen(command, cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ids(root: Path, tests: Path, folder: Path) -> tuple[list[str], list[str]]:
    """The ids of `tests` in order, as two processes that differ in all that may differ collect them."""
    folders = [folder / "one", folder / "two"]
    for one in folders:
        one.mkdir()
    started = [
        collect(root, tests, folders[0], PYTHONHASHSEED="1", TZ="America/St_Johns", LC_ALL="C.UTF-8"),
        collect(
            root, tests, folders[1], "-p", "later", PYTHONHASHSEED="2", TZ="Pacific/Kiritimati", LC_ALL="C",
            PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
        ),
    ]  # fmt: skip
    result = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], result
    one, two = ([line for line in text.splitlines() if "::" in line] for text in result)
    return one, two


def test_test_ids_are_deterministic(root: Path, tmp_path: Path) -> None:
    one, two = ids(root, root / "tests", tmp_path)
    assert len(one) > 2000
    assert one == two
    assert [name for name in one if len(name) > LONGEST or not (name.isascii() and name.isprintable())] == []


def test_nondeterministic_test_ids_are_found(root: Path, tmp_path: Path) -> None:
    made = ["gzip.compress(b'')", "hash('a')", "str(Path.home())", "time.time_ns()", "time.strftime('%H')"]
    lines = ["import gzip, time, pytest", "from pathlib import Path"]
    for number, value in enumerate(made):
        lines += [f"@pytest.mark.parametrize('x', [{value}])", f"def test_{number}(x): pass"]
    planted = tmp_path / "test_planted.py"
    planted.write_text("\n".join(lines), encoding="utf-8")
    one, two = ids(root, planted, tmp_path)
    assert len(one) == len(two) == len(made)
    assert [a for a, b in zip(one, two, strict=True) if a == b] == []


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"text"])
def test_bytes_are_not_used_as_ids(content: bytes, request: pytest.FixtureRequest) -> None:
    assert request.node.name.startswith("test_bytes_are_not_used_as_ids[content"), content
