"""Unusual inputs: results among inputs, file names that are not UTF-8, very long names."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.readers.errors import RequestError
from limner.reports.writer import image_file

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
ODD = os.fsdecode(b"\xff\xfe.tif")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in {"results.jsonl", "parts"}
    }


@pytest.mark.parametrize("place", ["results", "a/b/results"])
def test_results_may_lie_among_the_inputs(
    place: str, tmp_path: Path, make_scene: Callable[..., Path], card: Path, limner: Limner
) -> None:
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    make_scene(folder / "scene.tif")
    make_scene(folder / "a" / "second.tif")
    words = ("run", folder, "--model", card, "--hd-num", 4, "--out", folder / place)
    output = limner(*words)
    assert output.code == 0, output.err
    before = contents(folder / place)
    assert b"overview" not in before["files.csv"]
    output = limner(*words)
    assert output.code == 0, output.err
    assert contents(folder / place) == before
    (folder / place / "overview-scene.png").unlink()
    assert limner("report", folder / place).code == 0
    assert contents(folder / place) == before


def test_results_of_other_runs_are_skipped(
    tmp_path: Path, make_scene: Callable[..., Path], card: Path, limner: Limner
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_scene(folder / "scene.tif")
    first = ("run", folder, "--model", card, "--out", folder / "one")
    second = ("run", folder, "--model", card, "--out", folder / "two")
    assert limner(*first).code == 0
    assert limner(*second).code == 0
    text = (folder / "two" / "files.csv").read_text()
    assert "a run folder" in text
    assert "overview" not in text
    before = contents(folder / "one")
    training = folder / "aligned"  # as `limner train align` writes it
    (training / "checkpoints").mkdir(parents=True)
    (training / "losses.csv").touch()
    shutil.copy(folder / "two" / "overview-scene.png", training / "losses.png")
    output = limner(*first)  # "two" and "aligned" were not there when it began
    assert output.code == 0, output.err
    assert contents(folder / "one") == before
    output = limner("info", folder)
    assert output.out.count("a run folder") == 2
    assert output.out.count("a folder of results") == 1
    assert limner("info", folder / "one").code == 3


def test_an_input_among_the_results_is_refused(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--model", card, "--out", out).code == 0
    (tmp_path / "link").symlink_to(out)
    for given in (out, out / "overview-scene.png", tmp_path / "link"):
        output = limner("run", given, "--model", card, "--out", out)
        assert output.code == 2
        assert "outside of the output folder" in output.err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "must hold files (found: none)"),
        (lambda folder: (folder / ".hidden").write_text("x"), "must hold files (found: only hidden files"),
        (lambda folder: (folder / "deep" / "deeper").mkdir(parents=True), "must hold files (found: none)"),
        (lambda folder: (folder / "letter.txt").write_text("Dear Sir"), "no installed reader recognises"),
    ],
)
def test_a_folder_without_an_image(make: Callable[[Path], object], words: str, tmp_path: Path, limner: Limner) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder)
    for command in (("info", folder), ("plan", folder), ("run", folder, "--out", tmp_path / "out")):
        output = limner(*command)
        assert output.code == 3
        assert words in output.out + output.err
    assert not (tmp_path / "out").exists()


def test_an_archive_without_studies_says_so(tmp_path: Path, limner: Limner) -> None:
    with zipfile.ZipFile(tmp_path / "letters.zip", "w") as archive:
        archive.writestr("letter.txt", "Dear Sir")
    output = limner("info", tmp_path / "letters.zip")
    assert output.code == 3
    assert "(found: a zip archive without DICOM files). Unpack it, and name the folder" in output.out


def test_a_file_name_that_is_not_utf8(
    tmp_path: Path,
    make_slide: Callable[..., Path],
    make_scene: Callable[..., Path],
    slide_card: Callable[[Path], Path],
    limner: Limner,
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    make_slide(folder / ODD, side=256)
    make_scene(tmp_path / "map.tif").rename(folder / f"map{ODD}")
    card = slide_card(tmp_path)
    output = limner("info", folder)
    assert output.code == 1
    assert "must have a name in UTF-8" in output.out  # GDAL takes no other
    for how in ("hide", "show"):
        words = ("run", folder, "--model", card, "--hd-num", 4, "--out", out / how, "--set", f"names={how}")
        output = limner(*words)
        assert output.code == 1, output.err
        assert (r"\xff\xfe.tif" in output.out) == (how == "show")
        assert "bug in limner" not in output.err
        before = contents(out / how)
        (picture,) = (name for name in before if name.startswith("overview-"))
        assert picture.isascii()
        assert limner(*words).code == 1
        assert contents(out / how) == before
        assert limner("report", out / how).code == 0
        assert contents(out / how) == before
        json.loads(before["manifest.json"].decode("utf-8"))
    assert ODD in json.loads((out / "hide" / "sources.json").read_text()).popitem()[1]
    output = limner("plan", folder / ODD, "--model", card)
    assert output.code == 0, output.err


def test_a_locale_of_ascii_reads_slides_too(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path]
) -> None:
    path = make_slide(tmp_path / "slide.tif", side=256).rename(tmp_path / "ß ×.tif")
    command = [sys.executable, "-m", "limner.pipelines.cli.main", "run", path, "--model", slide_card(tmp_path)]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    for _ in range(2):
        output = subprocess.run(
            [*command, "--out", tmp_path / "out"], env={**os.environ, **locale}, capture_output=True, check=False
        )
        assert output.returncode == 0, output.stderr


def test_a_very_long_file_name(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    long = "a" * 250
    make_slide(folder / f"{long}b.tif", side=256)
    make_slide(folder / f"{long}c.tif", side=256)
    make_slide(folder / "short.tif", side=256)
    words = ("--hd-num", 4, "--set", "names=show", "--out", tmp_path / "out")
    output = limner("run", folder, "--model", slide_card(tmp_path), *words)
    assert output.code == 0, output.err
    names = [path.name for path in (tmp_path / "out").iterdir()]
    for suffix in (".png", ".qupath.geojson", ".qupath.geojson.gz"):
        assert sum(name.endswith(suffix) for name in names) == 3
    assert "overview-short.png" in names
    assert max(len(name.encode()) for name in names) <= 143


def test_ids_become_unique_file_names(tmp_path: Path) -> None:
    assert image_file(tmp_path, "overview-", "s2.b-1_x", ".png") == tmp_path / "overview-s2.b-1_x.png"
    odd = ["a" * 121, "a" * 122, "../x", "..", "", ".x", "a/b", "a\\b", "a\0", "\ud800", "é", "a b"]
    paths = [image_file(tmp_path, "", one, ".png") for one in odd]
    assert len(set(paths)) == len(odd)
    assert all(path.parent == tmp_path and path.name.isascii() and len(path.name) < 140 for path in paths)
    assert image_file(tmp_path, "", "a" * 121, ".png") == image_file(tmp_path, "", "a" * 121, ".png")


def test_a_picture_that_cannot_be_written_fails_alone(
    tmp_path: Path, make_scene: Callable[..., Path], card: Path, limner: Limner
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    make_scene(folder / "a.tif")
    make_scene(folder / "b.tif")
    assert limner("run", folder, "--model", card, "--out", out).code == 0
    (out / "overview-a.png").unlink()
    (out / "overview-a.png").mkdir()
    shutil.move(out / "overview-b.png", tmp_path / "before.png")
    output = limner("report", out, "--reports", "overview-png")
    assert output.code == 1
    assert "overview-png omits a: the file must be writable (found: Is a directory)" in output.err
    assert "1 of 2 could not be" in output.err
    assert (out / "overview-b.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_settings_must_be_utf8() -> None:
    from limner.pipelines.config import Settings

    with pytest.raises(RequestError, match="must be valid UTF-8"):
        Settings.resolve({"crs": "\udcff"})
    assert Settings.resolve({"inputs": [ODD]}).inputs == (ODD,)
