"""The distributions contain the packages, all of them, and nothing else."""

import fnmatch
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from typing import Any

import limner
import pytest

PACKAGES = ("model", "pipelines", "readers", "reports")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder with the built wheel and source distribution: `make test` says where."""
    folder = os.environ.get("LIMNER_DIST")
    if not folder:
        pytest.skip("nothing was built: make test builds, and sets LIMNER_DIST")
    return Path(folder)


def shipped(root: Path) -> dict[str, Path]:
    """The files of the door and of the four folders, as `limner/…`."""
    inside = {
        f"limner/{path.relative_to(root).as_posix()}": path for one in PACKAGES for path in (root / one).rglob("*")
    }
    door = {path.relative_to(root).as_posix(): path for path in (root / "limner").iterdir()}
    return {name: path for name, path in (inside | door).items() if path.is_file() and path.suffix != ".pyc"}


def test_the_list_of_packages_equals_the_folders(root: Path, project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    packages = [*PACKAGES, "limner"]
    folders = {path.parent.relative_to(root).as_posix() for p in packages for path in (root / p).rglob("__init__.py")}
    assert set(setuptools["package-dir"].values()) == folders
    assert (
        set(setuptools["packages"])
        == set(setuptools["package-dir"])
        == {"limner" if name == "limner" else f"limner.{name.replace('/', '.')}" for name in folders}
    )


def test_every_file_that_is_not_python_is_declared_as_data(root: Path, project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    folders = {package: folder for package, folder in setuptools["package-dir"].items() if package != "limner"}
    declared = {
        f"limner/{folders.get(package, '')}/{pattern}".replace("//", "/")
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
    }
    for name in shipped(root):
        assert name.endswith(".py") or any(fnmatch.fnmatch(name, pattern) for pattern in declared), name


def test_every_declared_pattern_of_data_has_files(root: Path, project: dict[str, Any]) -> None:
    for package, patterns in project["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert [*(root / package.removeprefix("limner.").replace(".", "/")).glob(pattern)], (package, pattern)


def test_the_wheel_holds_the_four_folders_and_nothing_else(root: Path, built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    facts = {name for name in names if re.match(r"limner-[^/]+\.dist-info/", name)}
    assert names - facts == set(shipped(root))
    assert {name.split("/", 1)[1] for name in facts} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_the_source_distribution_holds_what_building_takes_and_nothing_else(root: Path, built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    made = {name for name in names if name.startswith("limner.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    asked = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    assert names - made == {path.relative_to(root).as_posix() for path in shipped(root).values()} | asked


def test_what_is_tested_is_the_installed_wheel(root: Path, built: Path) -> None:
    [folder] = limner.__path__
    assert built.is_dir()
    assert Path(folder).parent.name == "site-packages"
    assert not (Path(folder) / "pyproject.toml").exists()
    door = {path.name for path in (root / "limner").iterdir()}
    assert {path.name for path in Path(folder).iterdir()} - {"__pycache__"} == {*PACKAGES, *door} - {"__pycache__"}
    for name, ours in shipped(root).items():
        assert (Path(folder).parent / name).read_bytes() == ours.read_bytes(), name


def test_the_installed_packages_are_found_from_within_the_checkout(root: Path, built: Path) -> None:
    assert built.is_dir()
    code = "import limner, limner.pipelines.api; print(limner.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == root / "limner" / "__init__.py"


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(root: Path) -> dict[str, str]:
    """Name → version in constraints.txt."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def test_every_requirement_is_pinned_for_the_tests(root: Path, project: dict[str, Any]) -> None:
    groups = [line for group in project["dependency-groups"].values() for line in group if isinstance(line, str)]
    extras = project["project"]["optional-dependencies"].values()
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"], *chain(*extras), *groups]
    names = {normal(re.split(r"[\[<>=]", requirement)[0]) for requirement in asked}
    assert names - set(pins(root)) == set()


def test_only_what_users_may_want_is_published_as_an_extra(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode("utf-8")
    assert set(re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE)) == {
        "dicom",
        "features",
        "monai",
        "quantize",
        "ray",
        "train",
    }
    assert "pytest" not in text


def test_the_tests_run_with_the_pinned_versions(root: Path, built: Path) -> None:
    assert built.is_dir()
    pinned = pins(root)
    for distribution in distributions():
        name, version = normal(distribution.name), distribution.version.partition("+")[0]
        # a build of torch for a graphics card brings its maker's libraries
        if name != "limner" and not name.startswith(("cuda-", "nvidia-", "triton")):
            assert pinned.get(name) == version, name
