"""Damaged and malicious run folders."""

import copy
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limner.model.finding import Result
from limner.pipelines.run.manifest import load_manifest
from limner.pipelines.run.reporting import load_writers, read_record, write_reports
from limner.pipelines.run.run_files import StoreError
from limner.pipelines.run.run_folder import FORMAT, RunFolder, read_entries, read_findings
from limner.readers.errors import RequestError
from shapely.affinity import translate

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

OTHERS: list[Any] = [None, True, -1, 0.5, 10**30, "x", "\ud800", [], {}, [[1]], {"a": 1}]
PART = "parts/findings-000001.arrows"
WRITERS = ("files-csv", "findings-csv", "geojson", "summary-csv")


@pytest.fixture(scope="session")
def ended(
    tmp_path_factory: pytest.TempPathFactory, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path]
) -> Path:
    """A folder with a slide, a card, and a run of the two, which hides names."""
    from limner.pipelines.config import Settings
    from limner.pipelines.run.execute import run

    folder = tmp_path_factory.mktemp("ended")
    asked = {"inputs": [str(make_slide(folder / "slide.tif", side=256))], "model": str(slide_card(folder))}
    run(Settings.resolve({**asked, "hd_num": 4, "out": str(folder / "run")}), lambda _: None)
    return folder


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def other(value: object, chance: random.Random) -> object:
    """A JSON value with one value replaced by another kind, taken out or nested deeply."""
    changed: Any = copy.deepcopy(value)
    *way, last = chance.choice(list(places(changed)))
    at = changed
    for key in way:
        at = at[key]
    if chance.random() < 0.2:
        del at[last]
    else:
        at[last] = chance.choice(OTHERS)
    return changed


def mutate(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    kind = chance.choice(["byte", "cut", "value", "value", "value", "deep", "junk"])
    if kind == "byte" or path.name == "pseudonym.key":
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :])
    elif kind == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "deep":
        path.write_bytes(b"[" * 5000 + b"]" * 5000 + b"\n")
    elif kind == "junk":
        path.write_bytes(content + chance.randbytes(50) + b"\n")
    elif path.suffix == ".arrows":
        path.write_bytes(content[: chance.randrange(len(content))] + chance.randbytes(chance.randrange(100)))
    elif path.name == "results.jsonl":
        lines = content.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = json.dumps(other(json.loads(lines[at]), chance)).encode()
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    else:
        record = json.loads(content)
        record.pop("sha256", None)  # as one who means it would
        path.write_text(json.dumps(other(record, chance)))


def use(folder: Path) -> str:
    """Write the reports of a folder and open it to resume. Returns the error, "" without one."""
    output = ""
    try:
        record = read_record(folder)
        output = " ".join(made.error for made in write_reports(record, folder, load_writers(WRITERS)))
    except (StoreError, RequestError) as error:
        output = str(error)
    try:
        with RunFolder.open(folder):
            load_manifest(folder)
    except (StoreError, RequestError) as error:
        output = str(error)
    assert "\n" not in output
    assert "a bug of the writer" not in output
    return output.strip()


def test_damage_is_an_error_and_no_bug(ended: Path, tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - nothing secret
    told, begun = 0, time.process_time()
    for number in range(240):
        folder = shutil.copytree(ended / "run", tmp_path / str(number))
        name = chance.choice(["manifest.json", "manifest.json", "results.jsonl", PART, PART, "sources.json"])
        mutate(folder / name, chance)
        before = (folder / "results.jsonl").read_bytes()
        told += bool(use(folder))
        after = (folder / "results.jsonl").read_bytes()
        assert before.startswith(after)
        assert b"\n" not in before[len(after) :], f"mutant {number} lost whole lines"
        shutil.rmtree(folder)
    assert told > 120
    assert time.process_time() - begun < 240


@pytest.mark.parametrize("name", ["manifest.json", "results.jsonl", PART, "sources.json", "pseudonym.key"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "nothing there", "sparse"])
def test_other_things_in_place_of_files_are_reported(
    name: str, kind: str, ended: Path, tmp_path: Path, limner: Limner
) -> None:
    folder = shutil.copytree(ended / "run", tmp_path / "run")
    path = folder / name
    target = tmp_path / "target"
    target.write_text("a line of mine\nand a part of one")
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(target)
    elif kind == "sparse":
        path.write_bytes(content)
        os.truncate(path, 10 * 2**30)
    again = ("run", ended / "slide.tif", "--model", ended / "toy.yaml", "--hd-num", 4, "--out", folder)
    for words in (("report", folder), again):
        output = limner(*words)
        assert output.code in {0, 1, 2}, output.err
        assert "Traceback" not in output.err
    assert target.read_text() == "a line of mine\nand a part of one"


def test_a_changed_number_is_detected(ended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ended / "run", tmp_path / "run")
    text = (folder / "manifest.json").read_text()
    assert text.count('"size": [\n    256') or "256" in text
    (folder / "manifest.json").write_text(text.replace("256", "257"))
    with pytest.raises(StoreError, match="sha256"):
        read_record(folder)


def test_a_manifest_of_another_version_is_reported(ended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ended / "run", tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    for format_, changes in ((1, {}), (2, {}), (4, {}), (FORMAT, {"files": None})):
        changed = {**manifest, "format": format_, **changes}
        changed.pop("sha256")
        (folder / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(StoreError, match="version of limner"):
            read_record(folder)


def test_an_untrusted_run_writes_only_into_its_folder(ended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ended / "run", tmp_path / "a" / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["images"][0]["info"]["id"] = "x/../../../out"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "overview-x").mkdir()
    made = list(write_reports(read_record(folder), folder, load_writers(["overview-png", "qupath"])))
    paths = [path for one in made for path in one.paths]
    assert len(paths) == 2
    assert all(path.resolve().parent == folder.resolve() for path in paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("where", ["far away", "on no plane"])
def test_a_finding_far_outside_its_image_is_damage(ended: Path, tmp_path: Path, where: str) -> None:
    """Its outline would get a vertex every so often, all the way."""
    folder = shutil.copytree(ended / "run", tmp_path / "run")
    entry = next(entry for entry in read_entries(folder).values() if entry.findings)
    moved = [
        replace(one, plane=1) if where == "on no plane" else replace(one, geometry=translate(one.geometry, 64e6))
        for one in read_findings(folder, [entry])
    ]
    with RunFolder.open(folder) as store:
        store.append([Result(entry.region, entry.image, "done", tuple(moved), entry.coverage)])
    output = " ".join(made.error for made in write_reports(read_record(folder), folder, load_writers(WRITERS)))
    assert "must hold valid geometries on" in output
