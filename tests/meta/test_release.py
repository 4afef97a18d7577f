"""What a release needs: a version bump, an SBOM, and licences that a default installation may have."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture(scope="module")
def sbom(tool: Callable[[str], ModuleType]) -> ModuleType:
    """The script that writes the SBOM."""
    return tool("sbom")


@pytest.fixture(scope="module")
def bump(tool: Callable[[str], ModuleType]) -> ModuleType:
    """The script that writes a version."""
    return tool("bump")


def test_no_package_of_a_default_installation_is_under_the_gpl(sbom: ModuleType) -> None:
    found = sbom.installation()
    assert {"limner", "torch", "rasterio", "openslide-bin", "certifi"} <= set(found)
    assert not {"ray", "monai", "bitsandbytes", "highdicom", "pytest", "scikit-learn"} & set(found), "extras"
    refused = {name: sbom.licence(of) for name, of in found.items() if sbom.refusal(sbom.licence(of))}
    assert refused == {}


@pytest.mark.parametrize(
    ("stated", "refused"),
    [
        ("MIT", False),
        ("GPL-3.0-or-later", True),
        ("GPLv2", True),
        ("AGPL-3.0-only", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("MIT AND GPL-2.0-only", True),
        ("LGPL-2.1-only AND (BSD-3-Clause OR GPL-2.0-only)", False),
        ("GNU Lesser General Public License v2.1", True),  # named so that nobody can tell: state LGPL-2.1
        ("UNKNOWN", True),
        ("", True),
    ],
)
def test_licences_are_told_apart(sbom: ModuleType, stated: str, *, refused: bool) -> None:
    assert bool(sbom.refusal(stated)) == refused


def test_the_sbom_lists_what_is_installed_and_is_the_same_again(sbom: ModuleType, tmp_path: Path) -> None:
    assert sbom.main(str(tmp_path / "a")) == sbom.main(str(tmp_path / "b")) == 0
    text = (tmp_path / "a" / "sbom.cdx.json").read_text(encoding="utf-8")
    assert text == (tmp_path / "b" / "sbom.cdx.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["version"] == version("limner")
    parts = {one["name"].lower(): one for one in found["components"]}
    assert parts["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert parts["pydantic"]["licenses"] == [{"expression": "MIT"}]
    references = {one["bom-ref"] for one in [*found["components"], found["metadata"]["component"]]}
    assert {one["ref"] for one in found["dependencies"]} == references
    assert {on for one in found["dependencies"] for on in one["dependsOn"]} <= references
    assert f"| pydantic | {version('pydantic')} | MIT |" in (tmp_path / "a" / "licences.md").read_text(encoding="utf-8")


def test_a_licence_of_the_gpl_stops_the_release(
    sbom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = sbom.licence
    monkeypatch.setattr(sbom, "licence", lambda of: "GPL-3.0-only" if of.name == "numpy" else stated(of))
    assert sbom.main(str(tmp_path / "out")) == 1
    assert "numpy states 'GPL-3.0-only'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of the files that state the version."""
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def test_a_version_is_written_everywhere(bump: ModuleType, checkout: Path) -> None:
    assert bump.bump("7.0.1", checkout) == ""
    assert '\nversion = "7.0.1"\n' in (checkout / "pyproject.toml").read_text(encoding="utf-8")
    assert yaml.safe_load((checkout / "CITATION.cff").read_text(encoding="utf-8"))["version"] == "7.0.1"
    log = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "\n## 7.0.1\n" in log
    assert "## Unreleased" not in log
    assert "CHANGELOG.md must list changes" in bump.bump("7.0.2", checkout)


@pytest.mark.parametrize("stated", ["7", "7.0", "v7.0.0", "7.0.0rc1", "0.0.1", "same"])
def test_what_is_no_later_version_changes_nothing(bump: ModuleType, checkout: Path, stated: str) -> None:
    before = {path: path.read_bytes() for path in checkout.iterdir()}
    assert "the version must be" in bump.bump(version("limner") if stated == "same" else stated, checkout)
    assert {path: path.read_bytes() for path in checkout.iterdir()} == before


def test_issue_templates_ask_for_what_is_needed_and_warn_of_patients(root: Path) -> None:
    templates = sorted((root / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert {path.stem for path in templates} == {"bug", "config", "model", "wrong-number"}
    for path in templates:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= set(form)
            ids = [part["id"] for part in form["body"] if "id" in part]
            assert len(ids) == len(set(ids))
            assert "patient" in path.read_text(encoding="utf-8")
    assert "limner doctor" in (root / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")


def test_the_dockerfile_uses_what_exists(root: Path) -> None:
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (root / name).exists(), name
    assert "USER limner" in text
