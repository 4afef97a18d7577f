"""Parts of a run folder: findings and rasters come back as they were given, or damage is reported."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding, Result
from limner.model.findings_table import FindingsTable
from limner.pipelines.run import parts
from limner.pipelines.run.parts import Part, RasterPart
from limner.pipelines.run.run_files import StoreError
from limner.pipelines.run.run_folder import RunFolder, read_entries, read_findings, read_raster

ODD = "a\ud800\n%/é\x00"
FINDINGS = (
    Finding("field", shapely.box(0, 1 / 3, 2, 3).difference(shapely.box(1, 1, 1.5, 1.5)), "area", 0.1, cut=True),
    Finding(ODD, shapely.box(5, 5, 6, 6), "box", None, window=(0.0, 0.0, 9.0, 9.5), numbers={ODD: 1e300}),
    Finding("", shapely.Point(1, 2), "tile", 1.0, text=ODD, text_cut=True, notes={ODD: "", "b": ODD}, plane=7),
    Finding("field", shapely.Polygon(), "region", 0.5, numbers={"pixels": 0.0}),
)


def stored(folder: Path, *results: Result) -> Path:
    with RunFolder.open(folder) as store:
        store.append(results)
    return folder


def result(region: str, findings: tuple[Finding, ...] = FINDINGS, **more: Any) -> Result:
    return Result(region, "image", "done", findings, **more)


def test_findings_come_back_as_they_were(tmp_path: Path) -> None:
    stored(tmp_path, result("a"), result("none", ()), result("b", FINDINGS[2:]))
    stored(tmp_path, result("c", FINDINGS[:1]))
    entries = read_entries(tmp_path)
    assert [entry.findings for entry in entries.values()] == [4, 0, 2, 1]
    assert entries["none"].part is None
    for region, findings in (("a", FINDINGS), ("b", FINDINGS[2:]), ("c", FINDINGS[:1])):
        assert tuple(read_findings(tmp_path, [entries[region]])) == findings
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "findings-000001.arrows",
        "findings-000002.arrows",
    ]


def test_a_line_says_what_became_of_a_region(tmp_path: Path) -> None:
    stored(tmp_path, result("a", FINDINGS[:1]))
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record | {"part": "", "sha256": ""} == {
        "region": "a",
        "image": "image",
        "status": "done",
        "error": "",
        "seconds": 0.0,
        "coverage": None,
        "findings": 1,
        "part": "",
        "row": 0,
        "sha256": "",
    }
    assert record["part"]["file"] == "findings-000001.arrows"


@pytest.mark.parametrize(
    "raster",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.random.default_rng(0).random((2, 5, 7)).astype(np.float32),
        np.eye(9, dtype=bool),
        np.full((1, 2, 3, 4), -1, dtype=">i2"),
        np.zeros((3000, 2000), dtype=np.uint16)[::2, ::3],
    ],
)
def test_rasters_come_back_as_they_were(tmp_path: Path, raster: np.ndarray) -> None:
    stored(tmp_path, result("a", rasters={"classes": raster, "other": raster[:1]}), result("b"))
    entries = read_entries(tmp_path)
    assert list(entries["a"].rasters) == ["classes", "other"]
    found = read_raster(tmp_path, entries["a"], "classes")
    assert found.dtype == raster.dtype.newbyteorder("=")
    assert np.array_equal(found, raster)
    assert np.array_equal(read_raster(tmp_path, entries["a"], "other"), raster[:1])
    if raster.size > 10000:
        assert entries["a"].rasters["classes"].part.length < 1000
    with pytest.raises(KeyError):
        read_raster(tmp_path, entries["b"], "classes")


@pytest.mark.parametrize("raster", [np.zeros((0, 3)), np.array(["a"]), np.zeros((1,) * 5), np.zeros(3, complex)])
def test_what_is_no_raster_is_not_stored(tmp_path: Path, raster: np.ndarray) -> None:
    with RunFolder.open(tmp_path) as store:
        with pytest.raises(ValueError, match="no raster"):
            store.append([result("a", rasters={"classes": raster})])
        assert read_entries(tmp_path) == {}


@pytest.mark.parametrize("name", ["findings-000001.arrows", "rasters-000001.zst"])
@pytest.mark.parametrize("kind", ["cut", "byte", "gone"])
def test_damage_is_named(tmp_path: Path, name: str, kind: str) -> None:
    stored(tmp_path, result("a", rasters={"classes": np.eye(50)}))
    path = tmp_path / "parts" / name
    content = path.read_bytes()
    if kind == "gone":
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(content[:-9] if kind == "cut" else bytes([content[0] ^ 1]) + content[1:])
    (entry,) = read_entries(tmp_path).values()
    with pytest.raises(StoreError, match=name):
        _ = read_findings(tmp_path, [entry]) if "findings" in name else read_raster(tmp_path, entry, "classes")


def test_what_no_line_states_is_never_read(tmp_path: Path) -> None:
    """A process that dies between a part and its line leaves bytes behind."""
    stored(tmp_path, result("a"))
    with (tmp_path / "parts" / "findings-000001.arrows").open("ab") as file:
        file.write(b"half a par")
    (tmp_path / "parts" / "findings-000002.arrows").write_bytes(b"")
    stored(tmp_path, result("b"))
    assert max(path.name for path in (tmp_path / "parts").iterdir()) == "findings-000003.arrows"
    assert len(read_findings(tmp_path, read_entries(tmp_path).values())) == 8


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_FULL", 5000)
    with RunFolder.open(tmp_path) as store:
        for number in range(8):
            store.append([result(str(number))])
    assert len(list((tmp_path / "parts").iterdir())) > 1
    assert len(read_findings(tmp_path, read_entries(tmp_path).values())) == 32


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FINDINGS[0], score=math.nan),
        replace(FINDINGS[0], numbers={"a": math.inf}),
        replace(FINDINGS[1], window=(0.0, 0.0, math.inf, 1.0)),
        replace(FINDINGS[0], geometry=shapely.Polygon([(0, 0), (1, 0), (math.inf, 1)])),
        replace(FINDINGS[0], kind="else"),  # type: ignore[arg-type]
    ],
)
def test_wrong_findings_are_not_stored(tmp_path: Path, wrong: Finding) -> None:
    with RunFolder.open(tmp_path) as store:
        with pytest.raises(ValueError, match=r"not finite|another type"):
            store.append([result("a", (wrong,))])
        assert read_entries(tmp_path) == {}


@pytest.mark.parametrize(
    "place", [("../a", 0, 1), ("findings-000001.arrows", -1, 1), ("rasters-000001.zst", 0, 2**40), ("", 0, 1)]
)
def test_a_place_outside_of_the_parts_is_refused(place: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match="no place of a part"):
        Part(*place, sha256="0" * 16)


def test_a_raster_larger_than_memory_is_refused() -> None:
    part = Part("rasters-000001.zst", 0, 10, "0" * 16)
    for dtype, shape in (("<f8", (2**20, 2**20)), ("O", (1,)), ("|u1", (-1, -1)), ("|u1", (True,))):
        with pytest.raises((ValueError, TypeError), match="no raster"):
            RasterPart(part, dtype, shape)


@pytest.mark.slow
def test_a_full_disk_in_the_middle_of_a_part_loses_nothing(tmp_path: Path) -> None:
    """No file may grow beyond 64 KiB: the system refuses the rest of a part, as it does when the disk is full."""
    store = stored(tmp_path / "run", result("a"))
    code = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np, shapely\n"
        "from limner.model.finding import Finding, Result\n"
        "from limner.pipelines.run.run_files import StoreError\n"
        "from limner.pipelines.run.run_folder import RunFolder\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (65536, {resource.RLIM_INFINITY}))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "many = tuple(Finding('a', shapely.Point(n, n), 'tile') for n in range(9000))\n"
        "noise = np.random.default_rng(0).random((300, 300))\n"
        "with RunFolder.open(Path(sys.argv[1])) as store:\n"
        "    for more in ({'findings': many}, {'rasters': {'p': noise}}):\n"
        "        try:\n"
        "            store.append([Result('b', 'image', 'done', **more)])\n"
        "        except StoreError as error:\n"
        "            print(error)\n"
        "    store.append([Result('c', 'image', 'done', many[:9], rasters={'p': noise[:9]})])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.count("File too large). Free disk space") for line in done.stdout.splitlines()] == [1, 1]
    entries = read_entries(store)
    assert {region: entry.findings for region, entry in entries.items()} == {"a": 4, "c": 9}
    assert len(read_findings(store, entries.values())) == 13
    assert read_raster(store, entries["c"], "p").shape == (9, 300)
    assert os.path.getsize(store / "parts" / "findings-000002.arrows") < 65536  # noqa: PTH202 - of the whole part


def test_a_table_of_findings_is_a_sequence_of_them() -> None:
    table = FindingsTable.of(FINDINGS)
    assert tuple(table) == FINDINGS
    assert (table[1], table[-1], tuple(table[1:3])) == (FINDINGS[1], FINDINGS[3], FINDINGS[1:3])
    assert tuple(FindingsTable.concatenated([table[2:], table[:1]])) == (*FINDINGS[2:], FINDINGS[0])
    assert tuple(FindingsTable.of(())) == tuple(FindingsTable.concatenated([])) == ()
