"""The run folder: atomic writes, checksums, locking."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.finding import Coverage, Finding, Result
from limner.pipelines.run import run_folder
from limner.pipelines.run.run_files import RESULTS, StoreError, is_run_folder
from limner.pipelines.run.run_folder import (
    RunFolder,
    add_checksum,
    read_entries,
    read_findings,
    read_manifest,
    remove_checksum,
)
from limner.readers.errors import RequestError
from shapely.geometry import box

PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def result(number: int, *, error: str = "") -> Result:
    finding = Finding('a ","findings":[ label', box(number, 0, number + 1, 1 / 3), "area", score=0.1)
    if error:
        return Result(f"image/{number}", "image", "failed", error=error)
    return Result(f"image/{number}", "image", "done", (finding,) * number, Coverage(1.0, 2.0, 3.0, 4.0))


def test_appended_results_are_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with RunFolder.open(folder) as store:
        store.write_manifest({"asked": "é"})
        store.append([result(0), result(1)])
        store.append([result(2)])
    assert read_manifest(folder) == {"asked": "é"}
    entries = read_entries(folder)
    assert list(entries) == ["image/0", "image/1", "image/2"]
    assert entries["image/2"].coverage == Coverage(1.0, 2.0, 3.0, 4.0)
    assert [(entry.findings, entry.row) for entry in entries.values()] == [(0, 0), (1, 0), (2, 0)]
    findings = read_findings(folder, [entries["image/2"], entries["image/1"]])
    assert [f.geometry.bounds for f in findings] == [(2, 0, 3, 1 / 3)] * 2 + [(1, 0, 2, 1 / 3)]


def test_texts_of_results_are_readable_in_any_language(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.append([result(1, error="Größe \u2028 \ud800")])
    assert "Größe" in (tmp_path / RESULTS).read_text(encoding="utf-8")
    entry = read_entries(tmp_path)["image/1"]
    assert entry.error.startswith("Größe \u2028 ")
    assert (entry.findings, entry.part, entry.row) == (0, None, 0)


def test_the_checksum_of_a_manifest_does_not_depend_on_the_order_of_its_keys(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({"a": {"x": 1, "y": 2}, "b": 3})
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    whole["a"] = dict(reversed(whole["a"].items()))
    path.write_text(json.dumps(dict(reversed(whole.items()))), encoding="utf-8")
    assert read_manifest(tmp_path) == {"a": {"x": 1, "y": 2}, "b": 3}


def test_a_manifest_holds_no_number_that_json_lacks(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store, pytest.raises(ValueError, match="JSON compliant"):
        store.write_manifest({"a": float("nan")})
    assert not (tmp_path / "manifest.json").exists()


def test_the_latest_result_of_a_region_counts(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.append([result(1, error='broken: ","findings":[')])
        store.append([result(1)])
    assert read_entries(tmp_path)["image/1"].status == "done"


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data())
def test_an_incomplete_last_line_is_cut(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RunFolder.open(folder) as store:
        store.write_manifest({})
        store.append([result(i) for i in range(4)])
    whole = (folder / RESULTS).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (folder / RESULTS).write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    assert len(read_entries(folder)) == complete
    with RunFolder.open(folder) as store:
        assert len(store.entries) == complete
        store.append([result(i) for i in range(complete, 4)])
    entries = read_entries(folder)
    assert [f.geometry.bounds[0] for f in read_findings(folder, entries.values())] == [1, 2, 2, 3, 3, 3]


def test_an_incomplete_line_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({})
        store.append([result(1)])
    whole = (tmp_path / RESULTS).read_bytes()
    (tmp_path / RESULTS).write_bytes(whole + b"x" * 200_000)
    with RunFolder.open(tmp_path) as store:
        assert list(store.entries) == ["image/1"]
    assert (tmp_path / RESULTS).read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({})
        store.append([result(0), result(1)])
    lines = (tmp_path / RESULTS).read_bytes().splitlines(keepends=True)
    (tmp_path / RESULTS).write_bytes(lines[0][20:] + lines[1])
    with pytest.raises(StoreError, match="line 1"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("part", ["coverage", "findings", "start"])
def test_a_changed_digit_is_damage(tmp_path: Path, part: str) -> None:
    """A number that is another is as easy to read as the one that was written."""
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({})
        store.append([result(0), result(1)])
    lines = (tmp_path / RESULTS).read_bytes()
    digit = re.compile(rb"[1-9]").search(lines, lines.index(part.encode()))
    assert digit is not None
    (tmp_path / RESULTS).write_bytes(lines[: digit.start()] + b"0" + lines[digit.end() :])
    with pytest.raises(StoreError, match=r"line [12].*checksum"):
        read_entries(tmp_path)


def test_entries_are_read_without_the_findings(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.append([result(1)])
    shutil.rmtree(tmp_path / "parts")
    entries = read_entries(tmp_path)
    assert entries["image/1"].findings == 1
    with pytest.raises(StoreError, match=r"findings-000001\.arrows"):
        read_findings(tmp_path, entries.values())


@pytest.mark.parametrize(
    "value",
    [
        b'"region":1',
        b'"image":null',
        b'"error":[]',
        b'"status":"gone"',
        b'"coverage":[NaN,0]',
        b'"coverage":3',
        b'"findings":-1',
        b'"findings":[]',
        b'"findings":1',
        b'"part":{"file":"../a","start":0,"length":1,"sha256":"0"},"findings":1',
        b'"rasters":{"a":{"part":{},"dtype":"|u1","shape":[1]}}',
        b'"rasters":[]',
    ],
)
def test_a_value_of_the_wrong_type_is_damage(tmp_path: Path, value: bytes) -> None:
    """JSON takes the last of two members of one name."""
    line = b'{"region":"a","image":"i","status":"done","error":"","coverage":null,"findings":0,%s}' % value
    (tmp_path / RESULTS).write_bytes(add_checksum(line))
    with pytest.raises(StoreError, match="line 1"):
        read_entries(tmp_path)


def test_a_line_ends_with_16_digits_of_its_sha256() -> None:
    assert add_checksum(b'{"a":1}') == b'{"a":1,"sha256":"015abd7f5cc57a2d"}\n'
    assert remove_checksum(b'{"a":1,"sha256":"015abd7f5cc57a2d"}\n') == b'{"a":1}'
    with pytest.raises(ValueError, match="checksum"):
        remove_checksum(b'{"a":2,"sha256":"015abd7f5cc57a2d"}\n')


@pytest.mark.slow
def test_a_line_has_at_most_a_mib(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        store.append([result(0)])
    path, whole, most = tmp_path / RESULTS, (tmp_path / RESULTS).read_bytes(), 1_048_576
    os.truncate(path, len(whole) + most - 1)
    assert list(read_entries(tmp_path)) == ["image/0"]
    os.truncate(path, len(whole) + most)
    with pytest.raises(StoreError, match=r"line 2.*more than 1048576 bytes"):
        read_entries(tmp_path)
    os.truncate(path, len(whole) + most + 2**16)
    with pytest.raises(StoreError, match=r"last line .*more than 1048576 bytes"):
        RunFolder.open(tmp_path)
    os.truncate(path, len(whole) + most)
    with RunFolder.open(tmp_path):
        assert path.read_bytes() == whole


def test_a_manifest_is_an_indented_text_with_its_checksum(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        assert not store.has_manifest
        store.write_manifest({"asked": "é"})
        assert store.has_manifest
    seal = hashlib.sha256(b'{"asked":"\\u00e9"}').hexdigest()
    path = tmp_path / "manifest.json"
    assert path.read_text(encoding="utf-8") == f'{{\n "asked": "é",\n "sha256": "{seal}"\n}}\n'
    path.write_text('{"asked": "e"}')
    assert read_manifest(tmp_path) == {"asked": "e"}, "those of earlier versions have none"
    path.write_text(f'{{"asked": "e", "sha256": "{seal}"}}')
    with pytest.raises(StoreError, match="sha256 does not match"):
        read_manifest(tmp_path)
    with RunFolder.open(tmp_path) as store:
        assert store.has_manifest, "damaged as it is"


def test_a_run_has_a_manifest_and_results(tmp_path: Path) -> None:
    assert not is_run_folder(tmp_path)
    (tmp_path / "manifest.json").touch()
    assert not is_run_folder(tmp_path)
    (tmp_path / RESULTS).touch()
    assert is_run_folder(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert not is_run_folder(tmp_path)


def test_a_manifest_has_at_most_a_gib(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    os.truncate(tmp_path / "manifest.json", 2**30 + 1)
    with pytest.raises(StoreError, match="more than 1024 MiB"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", [".part-123", RESULTS, "sources.json", "pseudonym.key"])
def test_files_written_before_the_manifest_are_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with RunFolder.open(tmp_path) as store:
        assert store.entries == {}


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path, *, there: bool) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    for _ in range(2):
        with RunFolder.open(folder), pytest.raises(RequestError, match="another run"):
            RunFolder.open(folder)
        assert [path.name for path in tmp_path.rglob("*")] == ["out"] * there


def test_a_run_that_wrote_nothing_leaves_the_names_and_a_manifest(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "names"):
        (tmp_path / "names" / "sources.json").write_text("{}")
    with RunFolder.open(tmp_path / "run") as store:
        store.write_manifest({})
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["names/sources.json", "run/manifest.json", f"run/{RESULTS}"]


def test_a_results_file_that_another_run_has_just_deleted_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = run_folder.lock

    def late(file: BinaryIO, folder: Path) -> None:
        (tmp_path / RESULTS).unlink()
        lock(file, folder)

    monkeypatch.setattr(run_folder, "lock", late)
    with pytest.raises(RequestError, match="another run"):
        RunFolder.open(tmp_path)


def test_two_runs_cannot_write_at_once(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path), pytest.raises(RequestError, match="another run"):
        RunFolder.open(tmp_path)
    with RunFolder.open(tmp_path):
        pass


@pytest.mark.slow
def test_the_lock_of_a_dead_process_is_released(tmp_path: Path) -> None:
    opened = f"s = RunFolder.open(Path({str(tmp_path)!r}))"
    hold = f"from pathlib import Path; from limner.pipelines.run.run_folder import RunFolder; {opened}"
    holder = subprocess.Popen([sys.executable, "-c", f"{hold}; print('locked', flush=True); input()"], **PIPES)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(RequestError, match="another run"):
        RunFolder.open(tmp_path)
    holder.kill()
    holder.communicate()
    with RunFolder.open(tmp_path):
        pass


@pytest.mark.parametrize("name", ["thesis.docx", "findings.csv"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RequestError, match="a new folder, an empty one"):
        RunFolder.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_impossible_folder_name_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="null"):
        RunFolder.open(tmp_path / "a\0b")


def test_nonfinite_numbers_are_never_written(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as store:
        with pytest.raises(ValueError, match="JSON compliant"):
            store.append([Result("image/0", "image", "done", (), Coverage(float("nan"), 0.0))])
        assert (tmp_path / RESULTS).read_bytes() == b""


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RequestError, match="found: a file"):
        RunFolder.open(tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permissions_is_a_store_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError):
        RunFolder.open(tmp_path / "run")


def test_a_full_disk_leaves_no_part_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({})
        store.append([result(0)])
        before = (tmp_path / RESULTS).read_bytes()

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="found: No space left on device"):
            store.append([result(1), result(2)])
        assert (tmp_path / RESULTS).read_bytes() == before
        with pytest.raises(StoreError, match="found: No space left on device"):
            store.write_manifest({"another": 1})
        assert read_manifest(tmp_path) == {}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "parts", RESULTS]
        monkeypatch.undo()
        store.append([result(1)])
    entries = read_entries(tmp_path)
    assert list(entries) == ["image/0", "image/1"]
    assert len(read_findings(tmp_path, entries.values())) == 1


@pytest.mark.parametrize(("made", "told"), [(2, "an earlier version of limner"), (4, "a newer version of limner")])
def test_a_run_folder_of_another_format_is_refused(tmp_path: Path, made: int, told: str) -> None:
    with RunFolder.open(tmp_path) as store:
        store.write_manifest({"format": made, "versions": {"limner": "0.0.7"}})
    with pytest.raises(StoreError, match=rf"found: format {made} of {told} \(0\.0\.7\)"):
        RunFolder.open(tmp_path)


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunFolder.open(tmp_path) as store:
        store.append([result(1)])
    assert list(read_entries(tmp_path)) == ["image/1"]
