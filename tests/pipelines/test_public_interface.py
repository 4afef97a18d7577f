"""`import limner`: public names, import time, and what editors and notebooks see."""

import inspect
import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import limner
import pytest
from limner.pipelines.config import Settings
from limner.pipelines.setting_values import descriptions
from limner.readers.errors import LimnerError, RequestError

NAMES = ["Run", "__version__", "annotate", "compare", "merge", "open", "plan", "run", "scan", "watch"]


def test_the_public_names() -> None:
    assert dir(limner) == sorted(limner.__all__) == NAMES
    assert limner.__version__ == version("limner")
    for name in NAMES:
        assert getattr(limner, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'anotate'"):
        limner.anotate  # noqa: B018 - what is tested


def test_import_is_fast_and_lazy() -> None:
    code = "import sys; before = set(sys.modules); import limner; print(*sorted(set(sys.modules) - before))"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 10  # of which Python itself takes most
    loaded = {name for name in done.stdout.split() if not name.startswith(("typing", "collections", "_", "re", "enum"))}
    outside = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert outside == {"limner"}


@pytest.mark.slow
def test_python_m_limner_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "limner", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == f"limner {version('limner')}\n"


@pytest.mark.parametrize("name", ["open", "scan", "plan", "run", "annotate"])
def test_every_setting_is_a_documented_keyword(name: str) -> None:
    function = getattr(limner, name)
    parameters = inspect.signature(function).parameters
    settings, described = set(Settings.model_fields) - {"inputs"}, descriptions()
    assert settings < set(parameters)
    for setting in settings:
        assert parameters[setting].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{setting}: {described[setting]}" in function.__doc__


def test_an_unknown_keyword_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Did you mean 'hd_num'"):
        limner.scan(tmp_path, hd_nums=9)  # pyright: ignore[reportCallIssue] - what is tested


TYPED = """import limner
run = limner.run("scene.tif", model="csmask", out="runs/a", hd_num=9, stretch=(0, 2750), microns_per_pixel=0.5)
reveal_type(run.exit_code)
reveal_type(limner.open("scene.tif").info.kind)
limner.run("scene.tif", modell="csmask")
limner.run("scene.tif", hd_num="nine")
limner.annotate([[1]], names="of")
"""


@pytest.mark.slow
def test_a_type_checker_knows_every_keyword(root: Path, tmp_path: Path) -> None:
    checker = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
    if checker is None:
        pytest.skip("no pyright: the group of tools for types is not installed")
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "limner").mkdir()
    (tmp_path / "limner" / "__init__.py").symlink_to(root / "limner" / "__init__.py")
    for name in ("readers", "model", "reports", "pipelines"):
        (tmp_path / "limner" / name).symlink_to(root / name)
    (tmp_path / "pyrightconfig.json").write_text('{"include": ["typed.py"]}')
    words = [checker, "--outputjson", "-p", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    found = json.loads(done.stdout)["generalDiagnostics"]
    messages = [(one["range"]["start"]["line"], one["severity"], one["message"]) for one in found]
    assert [(line, kind) for line, kind, _ in messages] == [
        *[(2, "information"), (3, "information")],
        *[(4, "error"), (5, "error"), (6, "error")],
    ]
    for (_, _, message), words_ in zip(
        messages, ['is "int"', "'slide'", '"modell"', '"hd_num"', '"names"'], strict=True
    ):
        assert words_ in message


def test_errors_in_a_notebook() -> None:
    error = LimnerError("scene.tif", "must be a picture", value="0 bytes", remedy="Copy it again")
    assert error._render_traceback_() == [
        "limner: scene.tif must be a picture.",
        "  found:  0 bytes",
        "  try:    Copy it again.",
    ]
