"""Names are on an interactive terminal and in the private crosswalk, nowhere else, and `reveal` lists them."""

import csv
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from limner.pipelines.run import execute, record_pictures
from limner.pipelines.run.engines import WorkerFaultError

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
NAME = "CANARYBIRD"
KEY = "0123456789abcdef0123456789abcdef"
PSEUDONYM = re.compile(r"file-[0-9a-f]{16}(?:\.[a-z]+)?")
NO_MODEL = ("--model", "none", "--reports", "summary-csv,files-csv")


@pytest.fixture
def ward(tmp_path: Path, making: ModuleType, make_slide: Callable[..., Path]) -> Path:
    """A study, a slide, a slide that is damaged and a letter."""
    folder = tmp_path / "in"
    for k, data in enumerate(making.slices(3)):
        making.save(data, folder / f"{NAME} study" / f"{NAME}_{k}.dcm")
    make_slide(folder / f"{NAME} A1.tif")
    (folder / f"{NAME} torn.ome.tif").write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    (folder / f"{NAME}.vsi").write_bytes(b"II*\0")
    (folder / f"{NAME} letter.txt").write_text("Dear")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_pseudonym_that_is_told_is_in_the_crosswalk(
    tmp_path: Path, ward: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)
    out = tmp_path / "out"
    said = [limner("info", ward), limner("plan", ward, *NO_MODEL[:2]), limner("run", ward, *NO_MODEL, "--out", out)]
    assert [one.code for one in said] == [1, 1, 1]
    assert "of this command only" not in "".join(one.err for one in said)
    known = json.loads((out / "sources.json").read_text())
    assert {str(path) for path in ward.rglob("*") if path.is_file()} <= set(known.values())
    for one in said:
        names = set(PSEUDONYM.findall(one.out + one.err))
        assert {Path(known[name]).name for name in names} >= {f"{NAME} torn.ome.tif", f"{NAME}.vsi"}
    assert {row["path"] for row in table(out / "files.csv")} <= set(known)


@pytest.mark.slow
def test_reveal_lists_files_studies_series_and_instances(
    tmp_path: Path, ward: Path, making: ModuleType, limner: Limner
) -> None:
    out = tmp_path / "out"
    said = limner("run", ward, *NO_MODEL, "--out", out)
    assert f"{out}/pseudonym.key" in said.err
    assert f"limner reveal {out}" in said.err
    said = limner("reveal", out)
    assert said.code == 0, said.err
    assert said.out.strip() == f"{out}-names.csv"
    written = Path(f"{out}-names.csv")
    assert written.stat().st_mode & 0o777 == 0o600
    rows = {row["original"]: row for row in table(written)}
    assert {row["missing"] for row in rows.values()} == {""}
    first = making.slices(3)[0]
    for kind, uid in (("study", first.StudyInstanceUID), ("series", first.SeriesInstanceUID)):
        assert (rows[uid]["kind"], rows[uid]["image"]) == (kind, "study1-ct1")
    assert {row["original"] for row in rows.values() if row["kind"] == "instance"} == {
        data.SOPInstanceUID for data in making.slices(3)
    }
    (summary,) = [row for row in table(out / "summary.csv") if row["image"].startswith("slide-")]
    slide = rows[str(ward / f"{NAME} A1.tif")]
    assert (slide["image"], slide["pseudonym"]) == (summary["image"], summary["name"])
    assert limner("reveal", out).code == 2  # never over a file
    said = limner("reveal", out, "--out", out / "names.csv")
    assert said.code == 2
    assert "outside of run folders" in said.err
    shutil.rmtree(ward)
    said = limner("reveal", out, "--out", tmp_path / "again.csv")
    assert said.code == 1
    assert "3 names missing. instance: its files are no longer" in said.err
    again = {row["pseudonym"]: row for row in table(tmp_path / "again.csv")}
    assert again[slide["pseudonym"]]["original"] == slide["original"]
    assert {row["missing"] != "" for row in again.values() if row["kind"] != "file"} == {True}


@pytest.mark.slow
def test_reveal_needs_the_key_of_the_run(
    tmp_path: Path, ward: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, key, other = tmp_path / "out", tmp_path / "key", tmp_path / "other"
    key.write_text(KEY)
    other.write_text(KEY[::-1])
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)
    assert limner("run", ward / f"{NAME} A1.tif", *NO_MODEL, "--out", out).code == 0
    monkeypatch.delenv("LIMNER_PSEUDONYM_KEY")
    assert not (out / "pseudonym.key").exists()
    said = limner("reveal", out)
    assert said.code == 2
    assert "LIMNER_PSEUDONYM_KEY" in said.err
    assert "must be that of the run" in limner("reveal", out, "--key-file", other).err
    assert limner("reveal", out, "--key-file", key).code == 0
    said = limner("reveal", tmp_path)
    assert (said.code, "must be a run folder" in said.err) == (2, True)


@pytest.mark.slow
def test_a_refused_run_can_be_revealed(tmp_path: Path, ward: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    said = limner("run", ward / f"{NAME} torn.ome.tif", *NO_MODEL, "--out", out)
    assert said.code == 3
    assert limner("reveal", out).code == 0
    (row,) = table(Path(f"{out}-names.csv"))
    assert row["pseudonym"] in said.err
    assert row["original"] == str(ward / f"{NAME} torn.ome.tif")
    again = limner("run", ward / f"{NAME} A1.tif", *NO_MODEL, "--out", out)
    assert again.code == 0, again.err
    known = json.loads((out / "sources.json").read_text())
    assert known[row["pseudonym"]] == row["original"]


@pytest.mark.slow
def test_pseudonyms_are_the_same_wherever_a_path_is_read_from(
    tmp_path: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    (tmp_path / "in").mkdir()
    names: set[str] = set()
    for folder, path in (
        (tmp_path, "in/JOHN_DOE.svs"),
        (tmp_path / "in", "JOHN_DOE.svs"),
        (tmp_path, "./in/JOHN_DOE.svs"),
    ):
        monkeypatch.chdir(folder)
        said = limner("info", path, "--reader-options", f"key_file={key}")
        assert said.code == 3
        names.update(PSEUDONYM.findall(said.out))
        assert "of this command only" not in said.err
    assert len(names) == 1
    assert "LIMNER_PSEUDONYM_KEY" in limner("info", "in/JOHN_DOE.svs").err


def test_the_option_of_readers_is_no_second_way(limner: Limner) -> None:
    said = limner("info", "x.svs", "--reader-options", "names=show")
    assert said.code == 2
    assert "--names show" in said.err


def shown(words: Sequence[object], *, out: bool, err: bool) -> tuple[str, str]:
    """Standard output and standard error of a command, each on a terminal of its own or in a pipe."""
    command = [sys.executable, "-m", "limner", *map(str, words)]
    pairs = [pty.openpty() if terminal else os.pipe() for terminal in (out, err)]
    process = subprocess.Popen(command, stdout=pairs[0][1], stderr=pairs[1][1], stdin=subprocess.DEVNULL)
    for _, write in pairs:
        os.close(write)
    texts: list[str] = []
    for read, _ in pairs:
        text = b""
        try:
            while part := os.read(read, 65536):
                text += part
        except OSError:  # the other end of a terminal is closed
            pass
        os.close(read)
        texts.append(text.decode())
    process.wait()
    return texts[0], texts[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "out", "err", "names"),
    [
        ((), True, True, (True, False)),
        ((), False, True, (False, False)),
        (("--names", "hide"), True, True, (False, False)),
        (("--names", "show"), False, False, (True, False)),
        (("--json",), True, True, (False, False)),
    ],
)
def test_info_shows_names_on_a_terminal_only(
    tmp_path: Path, words: tuple[str, ...], names: tuple[bool, bool], *, out: bool, err: bool
) -> None:
    told = shown(["info", tmp_path / "JOHN_DOE.svs", *words], out=out, err=err)
    assert tuple("JOHN_DOE" in text for text in told) == names


@pytest.mark.slow
def test_a_refusal_and_progress_show_names_on_a_terminal_only(tmp_path: Path, make_slide: Callable[..., Path]) -> None:
    path = make_slide(tmp_path / "JOHN_DOE.tif")
    words = ("run", path, tmp_path / "S21-1234.svs", *NO_MODEL, "--out", tmp_path / "out")
    out, err = shown(words, out=False, err=True)
    assert "S21-1234" in err
    assert "file-" not in err
    assert "\\x1b" not in err  # the bar's own control sequences are not escaped
    assert ("JOHN_DOE" in out, "S21-1234" in out, "file-" in out) == (False, False, True)
    out, err = shown(words, out=True, err=False)
    assert ("JOHN_DOE" in out, "S21-1234" in out) == (True, True)
    assert ("JOHN_DOE" in err, "S21-1234" in err, "file-" in err) == (False, False, True)
    for written in filter(Path.is_file, (tmp_path / "out").rglob("*")):
        assert (b"JOHN_DOE" in written.read_bytes()) == (written.name == "sources.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RuntimeError, WorkerFaultError])
def test_a_traceback_holds_no_name(
    tmp_path: Path, ward: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Of an error in this process, and of one that a worker sent."""
    path = ward / f"{NAME} A1.tif"

    def fail(*_: object, **__: object) -> None:
        raise kind(f"cannot open {path!s}")

    monkeypatch.setattr(execute, "make_manifest", fail)
    said = limner("run", path, *NO_MODEL, "--out", tmp_path / "out")
    assert said.code == 70
    assert "cannot open file-" in said.err
    assert NAME not in said.err + said.out


@pytest.mark.slow
def test_a_report_that_cannot_read_an_image_does_not_name_it(
    tmp_path: Path, ward: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = ward / f"{NAME} A1.tif", tmp_path / "out"
    assert limner("run", path, "--model", "none", "--reports", "overview-png", "--out", out).code == 0

    def fail(*_: object) -> None:
        raise RuntimeError(f"cannot open {path!s}")

    monkeypatch.setattr(record_pictures, "open_image", fail)
    said = limner("report", out)
    assert said.code == 1
    assert "cannot open file-" in said.err
    assert NAME not in said.err + said.out
