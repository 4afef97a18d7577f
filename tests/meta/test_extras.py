"""Installation hints name real requirements, and never limner on a package index."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from limner.pipelines.cli.main import app
from limner.readers import plugins
from limner.readers.errors import RequestError
from limner.readers.plugins import install_hint, require_extra, requirements
from typer.testing import CliRunner

BY_NAME = re.compile(
    r"\b(?:pip3?|pipx|uv)\s+(?:pip\s+)?(?:install|add)\b[^\n`;&|]*?"  # the command and its options
    r"(?<![\w./-])['\"]?limner(?:\[[\w, -]*\])?(?:[=<>~!]=?[\w.]+)?['\"]?(?=[\s`;'\"]|$)"
)
OF_FOLDER = re.compile(r"pip install\b[^\n`]*?['\" ]\.\[([\w, -]+)\]")
TEXTS = {"", ".cfg", ".in", ".ipynb", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """The project's own text files, but for this one."""
    made = {"build", "dist", "runs", "__pycache__", "shared"}
    for top in sorted(root.iterdir()):
        if top.name == ".ci" or not (top.name.startswith(".") or top.name in made or top.name.endswith(".egg-info")):
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file() and path.suffix in TEXTS and path != Path(__file__):
                    yield path, path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pip install 'limner[train]'", True),
        ("pip install limner", True),
        ("`pip install --upgrade limner==0.1`", True),
        ("uv pip install limner", True),
        ("uv add limner", True),
        ("pip install -c constraints.txt .", False),
        ("pip install -c constraints.txt '.[train]'", False),
        ("pip install -e ./limner", False),
        ("pip install scikit-learn; limner train probe", False),
    ],
)
def test_the_pattern(text: str, *, found: bool) -> None:
    assert bool(BY_NAME.search(text)) == found


def test_no_text_installs_limner_from_an_index(root: Path) -> None:
    found = [f"{path}: {match[0]}" for path, text in texts(root) if (match := BY_NAME.search(text))]
    assert not found
    assert sum("pip install" in text for _, text in texts(root)) > 3, "the files were read"


def test_extras_that_documents_name_exist(root: Path) -> None:
    known = set(tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {
        extra.strip() for _, text in texts(root) for match in OF_FOLDER.finditer(text) for extra in match[1].split(",")
    }
    assert {"quantize", "train"} <= named <= known


def test_an_extra_is_what_pyproject_says(root: Path) -> None:
    stated = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, lines in stated.items():
        assert list(requirements(extra)) == lines
        hint = install_hint(extra)
        assert "limner" not in hint
        assert all(line in hint for line in lines)
    with pytest.raises(KeyError):
        requirements("none")


def test_missing_packages_are_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "threadpoolctl":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(plugins, "version", version)
    require_extra("quantize", "something")
    with pytest.raises(RequestError) as caught:
        require_extra("train", "something", otherwise="or go without")
    assert caught.value.value == "no threadpoolctl"
    hint = "pip install 'matplotlib>=3.9' 'scikit-learn>=1.7' 'threadpoolctl>=3.5'"
    assert caught.value.remedy == f"Install what is missing: {hint}; or go without"


@pytest.mark.slow
def test_training_a_probe_asks_for_its_packages_before_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "version", _none)
    result = CliRunner().invoke(
        app, ["train", "probe", str(tmp_path / "no.tif"), "--labels", "no.geojson", "--out", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, RequestError)
    assert "scikit-learn" in str(result.exception)


def _none(name: str) -> str:
    raise PackageNotFoundError(name)
