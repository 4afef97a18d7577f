"""Files that mean harm: each costs one row and a second or two, reaches nobody, and shows nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # of conftest, which tests cannot import
Rows = Callable[[Path], list[dict[str, str]]]


@pytest.fixture(scope="session")
def making_hostile(root: Path) -> ModuleType:
    """Makes files that mean harm."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("making_hostile", root / "tests" / "cases" / "making_hostile.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def one_row(folder: Path, out: Path, name: str, child: Callable[..., Any], rows: Rows, model: str, good: str) -> None:
    """The file is a row of its own, and the good one beside it is annotated all the same."""
    words = (
        "--stretch",
        "0,255",
        "--set",
        "skip_empty=false",
        "--set",
        "names=show",
        "--reports",
        "files-csv",
        "--reports",
        "summary-csv",
    )
    ended = child("run", folder, "--model", model, *words, "--out", out)
    assert ended.stopped == ""
    assert ended.code in {0, 1}, ended.err
    assert "Traceback" not in ended.err
    files = {Path(row["path"]).name: row for row in rows(out / "files.csv")}
    assert files[good]["status"] == "read"
    assert name in files
    whole = {
        row["image"]: row for row in rows(out / "areas.csv") if (row["entry"], row["item"]) == ("area", "analysed")
    }
    assert float(whole[files[good]["image"]]["share"]) > 0.99  # one pixel of a good one is no number


@pytest.mark.parametrize(
    "name",
    [
        "foreign_pyr125.tif",
        "foreign_pyr30.tif",
        "foreign_tif251.tif",
        "foreign_vrt20.vrt",
        "hang_pyr27.tif",
        "hang_tif516.tif",
        "mem_tif884.tif",
        "segv_vrt.vrt",
    ],
)
def test_a_file_found_by_mutation_is_one_row(
    tmp_path: Path, hostile: Path, child: Callable[..., Any], rows: Rows, per_tile: str, name: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for one in (name, "tiny.tif"):
        shutil.copyfile(hostile / one, folder / one)
    one_row(folder, tmp_path / "out", name, child, rows, per_tile, "tiny.tif")


@pytest.mark.parametrize(
    "name",
    [
        "looping",
        "huge_tile",
        "many_bands",
        "null_kernel",
        "infinite",
    ],
)
def test_a_harmful_raster_is_one_row(
    tmp_path: Path, making_hostile: ModuleType, child: Callable[..., Any], rows: Rows, per_tile: str, name: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    making_hostile.good(folder / "good.tif")
    suffix = ".vrt" if name in {"null_kernel", "infinite"} else ".tif"
    making_hostile.HARMFUL[name](folder / f"harmful{suffix}")
    one_row(folder, tmp_path / "out", f"harmful{suffix}", child, rows, per_tile, "good.tif")


LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    connection.settimeout(1)
    try:
        asked = connection.recv(200)
        connection.sendall(b"HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    except OSError:
        asked = b"nothing"
    with open(sys.argv[1], "ab") as file:
        file.write(asked.partition(b"\\r")[0] + b"\\n")
    connection.close()
"""


class Listener:
    """Writes down who connects to a port of this machine, and says that there is nothing.

    In a process of its own, since GDAL holds this one's lock while it waits for an answer.
    """

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.process = subprocess.Popen([sys.executable, "-c", LISTENER, kept], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    @property
    def asked(self) -> list[str]:
        """The first line of each request."""
        return self.kept.read_text().splitlines() if self.kept.exists() else []


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    made = Listener(tmp_path_factory.mktemp("listener") / "asked")
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.fixture
def listener(listening: Listener) -> Listener:
    """One that nobody has asked yet."""
    listening.kept.unlink(missing_ok=True)
    return listening


WRAPPERS = ("simple", "complicated", "raw", "warped", "nested")
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://{host}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>300000</UpperLeftX><UpperLeftY>5000000</UpperLeftY><LowerRightX>301920</LowerRightX>"
    "<LowerRightY>4998080</LowerRightY><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow><BlockSizeX>64</BlockSizeX>"
    "<BlockSizeY>64</BlockSizeY><BandsCount>1</BandsCount>{cache}</GDAL_WMS>"
)
REMOTE = {
    "http": "http://{host}/a.tif",
    "vsicurl": "/vsicurl/http://{host}/a.tif",
    "vsicurl with options": "/vsicurl?url=http%3A%2F%2F{host}%2Fa.tif",
    "vsicurl_streaming": "/vsicurl_streaming/http://{host}/a.tif",
    "vsis3": "/vsis3/bucket/a.tif",
    "vsizip of vsicurl": "/vsizip//vsicurl/http://{host}/a.zip/a.tif",
    "wms": "WMS:http://{host}/wms?SERVICE=WMS&REQUEST=GetMap&VERSION=1.1.1&LAYERS=a&SRS=EPSG:32618&BBOX=300000,4998080,301920,5000000",
    "wcs": "WCS:http://{host}/wcs?SERVICE=WCS&VERSION=2.0.1&COVERAGE=a",
    "wmts": "WMTS:http://{host}/wmts",
    "stacit": 'STACIT:"http://{host}/items.json"',
    "stacta": 'STACTA:"http://{host}/item.json"',
    "inline": "",
    "inline that writes": "",
}


def believed(out: Path, rows: Rows, names: list[str]) -> list[str]:
    """Names of files that have no row, or of which a pixel was analysed; the good map's all were."""
    files = {Path(row["path"]).name: row for row in rows(out / "files.csv")}
    analysed = {
        row["image"]: float(row["share"] or 0)
        for row in rows(out / "areas.csv")
        if (row["entry"], row["item"]) == ("area", "analysed")
    }
    assert analysed[files["good.tif"]["image"]] == 1.0
    return [name for name in names if name not in files or analysed.get(files[name]["image"], 0) > 0]


def wrap(folder: Path, making: ModuleType, source: str) -> list[str]:
    """A folder of a good map and of the source in all wrappers; the wrappers' names."""
    folder.mkdir()
    making.good(folder / "good.tif")
    return [making.WRAPPERS[kind](folder / f"{kind}.vrt", source).name for kind in WRAPPERS]


LOOK = ("--stretch", "0,255", "--set", "skip_empty=false", "--reports", "files-csv", "--reports", "summary-csv")


@pytest.mark.parametrize("kind", REMOTE)
def test_a_source_on_the_network_is_refused_and_not_asked(
    tmp_path: Path,
    making_hostile: ModuleType,
    listener: Listener,
    limner: Limner,
    rows: Rows,
    per_tile: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "3")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    monkeypatch.setenv("AWS_S3_ENDPOINT", listener.address)
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    kept = tmp_path / "kept"
    cache = f"<Cache><Path>{kept}</Path></Cache>" if kind == "inline that writes" else ""
    inline = WMS.format(host=listener.address, cache=cache)
    source = inline if kind.startswith("inline") else REMOTE[kind].format(host=listener.address)
    names = wrap(tmp_path / "in", making_hostile, source)
    said = limner("run", tmp_path / "in", "--model", per_tile, *LOOK, "--out", tmp_path / "out")
    assert listener.asked == []
    assert not kept.exists()
    assert said.code == 1, said.err
    assert believed(tmp_path / "out", rows, names) == []


@pytest.mark.parametrize("kind", ["absolute", "above", "above by a link", "no raster"])
def test_a_source_outside_the_folder_or_no_raster_is_refused(
    tmp_path: Path, making_hostile: ModuleType, limner: Limner, rows: Rows, per_tile: str, kind: str
) -> None:
    canary = making_hostile.good(tmp_path / "canary.tif")
    source = {"absolute": str(canary), "above": "../canary.tif", "above by a link": "link.tif", "no raster": "secret"}[
        kind
    ]
    names = wrap(tmp_path / "in", making_hostile, source)
    if kind in {"above", "above by a link"}:  # a source of the inner file is named from where that lies
        making_hostile.simple(tmp_path / "in" / "nested" / "inner.vrt", "../../canary.tif")
    if kind == "above by a link":
        (tmp_path / "in" / "link.tif").symlink_to(canary)
    (tmp_path / "in" / "secret").write_bytes(b"root:x:0:0:" * 400)
    (tmp_path / "in" / "nested" / "secret").write_bytes(b"root:x:0:0:" * 400)
    said = limner("run", tmp_path / "in", "--model", per_tile, *LOOK, "--out", tmp_path / "out")
    assert said.code == 1, said.err
    assert believed(tmp_path / "out", rows, names) == []


@pytest.mark.parametrize("kind", ["fifo", "device", "stdin", "memory", "itself"])
def test_a_source_that_is_no_file_of_its_own_is_refused_at_once(
    tmp_path: Path, making_hostile: ModuleType, child: Callable[..., Any], rows: Rows, per_tile: str, kind: str
) -> None:
    """One wrapper at a time would be five processes; where one of them hangs or dies, all do."""
    source = {
        "fifo": "pipe.bin",
        "device": "/dev/zero",
        "stdin": "/vsistdin/",
        "memory": "MEM:::DATAPOINTER=4096,PIXELS=64,LINES=64,BANDS=1,DATATYPE=Byte",
        "itself": "simple.vrt",
    }[kind]
    folder = tmp_path / "in"
    names = wrap(folder, making_hostile, source)
    if kind == "itself":
        making_hostile.simple(folder / "nested" / "inner.vrt", "../nested.vrt")
    if kind == "fifo":
        os.mkfifo(folder / "pipe.bin")
        os.mkfifo(folder / "nested" / "pipe.bin")
    read, write = os.pipe()  # an input that stays open and says nothing
    try:
        ended = child("run", folder, "--model", per_tile, *LOOK, "--out", tmp_path / "out", wait=15, stdin=read)
    finally:
        os.close(read)
        os.close(write)
    assert ended.stopped == ""
    assert ended.code == 1, ended.err
    assert believed(tmp_path / "out", rows, names) == []


def test_a_virtual_raster_of_files_beside_and_below_it_is_read(
    tmp_path: Path, making_hostile: ModuleType, limner: Limner, rows: Rows, per_tile: str
) -> None:
    folder = tmp_path / "in"
    names = wrap(folder, making_hostile, "good.tif")
    shutil.copyfile(folder / "good.tif", folder / "nested" / "good.tif")
    (folder / "raw.vrt").unlink()  # pixels of a TIFF are no raw bytes
    said = limner("run", folder, "--model", per_tile, *LOOK, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    files = {Path(row["path"]).name: row["status"] for row in rows(tmp_path / "out" / "files.csv")}
    assert {name: files[name] for name in names if name != "raw.vrt"} == dict.fromkeys(set(names) - {"raw.vrt"}, "read")


def test_a_fifo_among_the_inputs_is_one_row(
    tmp_path: Path, making_hostile: ModuleType, child: Callable[..., Any], rows: Rows, per_tile: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    making_hostile.good(folder / "good.tif")
    os.mkfifo(folder / "pipe.tif")
    ended = child("run", folder, "--model", per_tile, *LOOK, "--out", tmp_path / "out", wait=15)
    assert ended.stopped == ""
    assert ended.code in {0, 1}, ended.err
    files = {Path(row["path"]).name: row for row in rows(tmp_path / "out" / "files.csv")}
    assert files["good.tif"]["status"] == "read"
    assert files["pipe.tif"]["status"] != "read"
    assert files["pipe.tif"]["reason"]
