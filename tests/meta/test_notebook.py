"""The notebook runs from top to bottom as plain Python, and carries no outputs."""

import json
from pathlib import Path
from typing import Any

import limner
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(root: Path) -> list[dict[str, Any]]:
    """The notebook's cells that are code."""
    notebook = json.loads((root / "notebooks" / "first-look.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_parses_and_carries_no_outputs(cells: list[dict[str, Any]]) -> None:
    assert cells
    for cell in cells:
        compile("".join(cell["source"]), cell["id"], "exec")
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
def test_it_runs(
    cells: list[dict[str, Any]],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "samples").symlink_to(root / "notebooks" / "samples")
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102 - what a person would run
    run = names["run"]
    assert (run.exit_code, run.failures) == (0, ())
    assert set(run.findings["label"]) >= {"water", "land"}
    assert [*limner.Run.open(run.folder).summary["image"]] == ["virginia"]
    assert names["scene"].info.id == "virginia"
    assert "% valid" in capsys.readouterr().out
