"""The files generated from `Settings` are up to date."""

import sys
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
from limner.pipelines.config import Settings
from limner.pipelines.keywords import Keywords
from limner.pipelines.setting_values import descriptions, flag_of


@pytest.fixture(scope="module")
def writer(root: Path) -> ModuleType:
    """The script that writes both."""
    sys.path.insert(0, str(root / "tests" / "meta"))
    try:
        import settings_text
    finally:
        sys.path.pop(0)
    return settings_text


@pytest.mark.parametrize("path", ["pipelines/keywords.py", "docs/settings.md"])
def test_generated_files_are_up_to_date(writer: ModuleType, root: Path, path: str) -> None:
    assert (root / path).read_text(encoding="utf-8") == writer.FILES[path](), "run tests/meta/settings_text.py"


def test_every_setting_is_described_and_is_a_keyword() -> None:
    assert set(get_type_hints(Keywords)) == set(Settings.model_fields) - {"inputs"} | {"config"}
    for name in Settings.model_fields:
        assert descriptions()[name].endswith("."), name


def test_flags_are_the_names_of_settings(root: Path) -> None:
    table = (root / "docs" / "settings.md").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"| `{name}` | {flag_of(name)} |" in table
