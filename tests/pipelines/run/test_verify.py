"""`limner check run` says what is damaged, has changed, or holds a name or a label."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.reports.html.embedding import data_block

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
NO_MODEL = ("--model", "none", "--reports", "summary-csv,files-csv")


@pytest.fixture
def slide_run(tmp_path: Path, make_slide: Callable[..., Path], limner: Limner) -> Path:
    """The run of one slide."""
    (tmp_path / "in").mkdir()
    make_slide(tmp_path / "in" / "JOHN_DOE.tif")
    assert limner("run", tmp_path / "in", *NO_MODEL, "--out", tmp_path / "out").code == 0
    return tmp_path / "out"


def faults(said: Any) -> set[tuple[str, str]]:
    """Status and name of the checks that found something."""
    found = {(words[0], words[1]) for line in said.out.splitlines() if (words := line.split())[0] != "right"}
    assert said.code == int(any(status == "fault" for status, _ in found)), said.out
    return found


def test_a_run_as_it_was_written_is_right(slide_run: Path, limner: Limner) -> None:
    before = sorted((path.name, path.read_bytes()) for path in slide_run.rglob("*") if path.is_file())
    said = limner("check", "run", slide_run)
    assert faults(said) == set()
    for text in ("summary.csv is the same", "is unchanged", "none of 2 names", "sources.json can be read by its owner"):
        assert text in said.out
    assert sorted((path.name, path.read_bytes()) for path in slide_run.rglob("*") if path.is_file()) == before
    assert "JOHN_DOE" not in said.out + said.err


def edit_results(run: Path) -> None:
    results = run / "results.jsonl"
    results.write_bytes(results.read_bytes().replace(b"no model", b"no madel"))


def edit_manifest(run: Path) -> None:
    (run / "manifest.json").write_text((run / "manifest.json").read_text().replace('"hd_num": 25', '"hd_num": 26'))


def leak(run: Path) -> None:
    (run / "summary.csv").write_text((run / "summary.csv").read_text() + "JOHN_DOE.tif\n")


def leak_in_page(run: Path) -> None:
    """A name in a compressed block of the page."""
    block = data_block({"name": "JOHN_DOE.tif"}, {"area": np.zeros(50)})
    assert "JOHN_DOE" not in block
    (run / "page.html").write_text(f"<html><template>{block}</template></html>", encoding="utf-8")


def change_input(run: Path) -> None:
    with (run.parent / "in" / "JOHN_DOE.tif").open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (edit_results, {("fault", "results")}),
        (edit_manifest, {("fault", "manifest")}),
        (leak, {("fault", "reports"), ("fault", "names")}),
        (leak_in_page, {("note", "reports"), ("fault", "names")}),
        (change_input, {("fault", "inputs")}),
        (lambda run: shutil.rmtree(run.parent / "in"), {("note", "inputs")}),
        (lambda run: (run / "sources.json").chmod(0o644), {("fault", "private")}),
        (lambda run: (run / "summary.csv").unlink(), {("note", "reports")}),
        (lambda run: (run / "notes.txt").write_text("mine"), {("note", "reports")}),
    ],
)
def test_what_is_wrong_is_named(
    slide_run: Path, limner: Limner, change: Callable[[Path], object], found: set[tuple[str, str]]
) -> None:
    change(slide_run)
    said = limner("check", "run", slide_run)
    assert faults(said) >= found
    if ("fault", "results") not in found:
        assert faults(said) == found
    assert "JOHN_DOE" not in said.out + said.err


def test_a_folder_without_a_run_is_refused(tmp_path: Path, limner: Limner) -> None:
    assert limner("check", "run", tmp_path).code == 2


def test_reports_of_an_earlier_version_that_hold_a_name_or_a_label_are_named(
    tmp_path: Path, scene: Path, card: Path, limner: Limner
) -> None:
    """As the first versions read a .vsi: the pages of its label, as a map whose name is nobody's."""
    out, vsi = tmp_path / "out", tmp_path / "S21-1234 ROE.vsi"
    shutil.copyfile(scene, tmp_path / "s21-1234-roe.tif")
    assert limner("run", tmp_path / "s21-1234-roe.tif", "--model", card, "--out", out).code == 0
    manifest = json.loads((out / "manifest.json").read_text().replace(str(tmp_path / "s21-1234-roe.tif"), str(vsi)))
    del manifest["sha256"]  # of earlier versions
    manifest["versions"]["limner"] = "0.0.9"
    (out / "manifest.json").write_text(json.dumps(manifest))
    for gone in (False, True):
        if not gone:
            vsi.write_bytes(b"II*\0")
        said = limner("check", "run", out)
        assert ("fault", "labels") in faults(said)
        assert {("fault", "names"), ("note", "version"), ("note", "manifest")} <= faults(said)
        assert "Olympus VSI" in said.out
        assert "overview" not in said.out  # a name of the file that holds the slide's name
        assert "ROE" not in said.out.upper() + said.err.upper()
        vsi.unlink()
        vsi.symlink_to("nowhere")
