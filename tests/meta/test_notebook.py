"""The notebooks run from top to bottom in a kernel, as a person would run them, and carry no outputs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

NOTEBOOKS = {
    "first-look": ("csmask", "% valid"),
    "slide": ("gland", "epithelium"),
    "study": ("brain", " ml"),
    "own-labels": ("", "balanced accuracy"),
    "fourkhd-inside": ("", "the probability of the label changes by"),
}
"""Name → the card whose weights it fetches, and words of its outputs."""

LARGEST = 20_000  # bytes of a notebook without outputs


def read(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_every_notebook_is_tested_and_documented(root: Path) -> None:
    assert {path.stem for path in (root / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (root / "docs").rglob("*.md"))
    assert {name for name in NOTEBOOKS if f"notebooks/{name}.ipynb" in texts} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_carries_no_outputs_and_uses_the_public_interface(root: Path, name: str) -> None:
    assert (root / "notebooks" / f"{name}.ipynb").stat().st_size < LARGEST
    cells = [cell for cell in read(root, name)["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        source = "".join(cell["source"])
        compile(source, cell["id"], "exec")
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        assert not re.search(r"(?:import|from) limner\.", source)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.network] if card else []) for n, (card, _) in NOTEBOOKS.items()]
)
def test_it_runs(root: Path, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with the packages of the group notebooks")
    import nbformat

    card, words = NOTEBOOKS[name]
    if card:
        request.getfixturevalue("weights_of")(card)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "samples").symlink_to(root / "notebooks" / "samples")
    notebook: Any = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert words in json.dumps(outputs, ensure_ascii=False)
    shown = [output["data"] for output in outputs if "data" in output]
    assert any("image/png" in data for data in shown) or name == "fourkhd-inside"
    assert any(re.search(r"(\d+) of \1 regions?", data.get("text/plain", "")) for data in shown), "progress is drawn"
