"""Inputs on which tools of this field fail, made once a worker, and ways to show them to the command line."""

import csv
import importlib.util
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[1]
MEGABYTE = 2**20


def load(path: Path) -> ModuleType:
    """A module of the tests' folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


_pipelines = load(TESTS / "pipelines" / "conftest.py")
limner = _pipelines.limner
make_scene = _pipelines.make_scene
make_card = _pipelines.make_card
make_slide = _pipelines.make_slide
per_tile = _pipelines.per_tile


@pytest.fixture(autouse=True)
def same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms that are the same in every run."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")


@pytest.fixture(scope="session")
def making_maps() -> ModuleType:
    """Makes maps from the sample scene."""
    return load(TESTS / "cases" / "making_maps.py")


@pytest.fixture(scope="session")
def making_slides() -> ModuleType:
    """Makes slides from the sample slide."""
    return load(TESTS / "cases" / "making_slides.py")


@pytest.fixture(scope="session")
def making_studies() -> ModuleType:
    """Makes DICOM studies."""
    return load(TESTS / "cases" / "making_studies.py")


@pytest.fixture(scope="session")
def maps(making_maps: ModuleType, virginia: Path, tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """`maps(name)` is the path of a made map: see `making_maps.MAKERS`. Not to be changed."""
    return Made(making_maps.MAKERS, making_maps.read_crop(virginia), tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="session")
def areas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of areas of interest: see `making_areas.areas`."""
    return load(TESTS / "cases" / "making_areas.py").areas(tmp_path_factory.mktemp("areas"))


@pytest.fixture(scope="session")
def slides(making_slides: ModuleType, root: Path, tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """`slides(name)` is the path of a made slide: see `making_slides.MAKERS`. Not to be changed."""
    pixels = making_slides.read_pixels(root / "notebooks" / "samples" / "slides" / "prostate.tiff")
    return Made(making_slides.MAKERS, pixels, tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="session")
def studies(making_studies: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """`studies(name)` is the folder of a made study: see `making_studies.MAKERS`. Not to be changed."""
    return Made(making_studies.MAKERS, None, tmp_path_factory.mktemp("studies"))


class Made:
    """Inputs by name, each made when it is first asked for."""

    def __init__(self, makers: dict[str, Callable[[Path, object], Path]], source: object, folder: Path) -> None:
        self.makers, self.source, self.folder = makers, source, folder
        self.made: dict[str, Path] = {}

    def __call__(self, name: str) -> Path:
        """Where it lies."""
        if name not in self.made:
            (self.folder / name).mkdir()
            self.made[name] = self.makers[name](self.folder / name, self.source)
        return self.made[name]


@pytest.fixture(scope="session")
def hostile() -> Path:
    """A folder `cases/hostile` of files found by mutation, where there is one beside `shared_data`'s folder."""
    shared = Path(os.environ.get("LIMNER_SHARED") or TESTS.parents[1] / "shared") / "cases" / "hostile"
    if not shared.is_dir():
        pytest.skip(f"no hostile files at {shared}: set LIMNER_SHARED to a folder that holds cases/hostile")
    return shared


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, str]]]:
    """The rows of a CSV report."""
    return read_rows


@pytest.fixture(scope="session")
def shares() -> Callable[[Path], dict[str, float]]:
    """`shares(out)`: name of a label, or of what became of the area, → per cent, of a run of one image."""
    return lambda out: {
        row["item"]: 100 * float(row["share"])
        for row in read_rows(out / "areas.csv")
        if row["entry"] in {"label", "area"} and row["share"]
    }


@pytest.fixture(scope="session")
def everything() -> Callable[[Path], bytes]:
    """All that a run wrote for others to see, names included: not the key and the crosswalk, which are the user's."""
    kept = {"pseudonym.key", "sources.json"}
    return lambda out: b"\n".join(
        path.name.encode() + b"\n" + path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in kept
    )


@dataclass(frozen=True)
class Ended:
    """How a process ended. `code` is negative for a signal; `stopped` names the limit that it broke, if any."""

    code: int
    out: str
    err: str
    megabytes: float
    stopped: str


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Ended]]:
    """`child(*words, seconds=8, wait=40, megabytes=1500)`: the command line in a process of its own, ended at a limit.

    `seconds` are of the processor and `megabytes` are held at once, by the process and those below it; `wait` is the
    most that passes meanwhile. A limit on addresses stands behind that.
    """
    running: list[subprocess.Popen[bytes]] = []

    def run(*words: object, seconds: float = 8, wait: float = 40, megabytes: float = 1500, stdin: int = -3) -> Ended:
        out, err = tmp_path / "child-out", tmp_path / "child-err"
        begun, most, stopped = time.monotonic(), 0.0, ""
        with out.open("wb") as written, err.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "limner.pipelines.cli.main", *map(str, words)],
                stdout=written,
                stderr=said,
                stdin=stdin,
                preexec_fn=_fence,  # noqa: PLW1509 - no threads of this process hold locks that it needs
                start_new_session=True,
            )
            running.append(process)
            while process.poll() is None and not stopped:
                time.sleep(0.02)
                spent, held = _used(process.pid)
                most = max(most, held)
                passed = {f"{seconds} s of the processor": spent > seconds, f"{megabytes} MB": held > megabytes}
                passed[f"{wait} s"] = time.monotonic() - begun > wait
                stopped = next((f"more than {limit}" for limit, broken in passed.items() if broken), "")
            _end(process)
        said_out, said_err = (path.read_text("utf-8", "replace") for path in (out, err))
        return Ended(process.returncode, said_out, said_err, most, stopped)

    yield run
    for process in running:
        _end(process)


def _fence() -> None:
    """No core dumps, and no more addresses than a process of limner and its libraries can need."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (12_000 * MEGABYTE, 12_000 * MEGABYTE))


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.wait(5)


def _below(pid: int) -> Sequence[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for below in children for one in _below(int(below)))]


def _used(pid: int) -> tuple[float, float]:
    """Seconds of the processor and megabytes of a process and those below it."""
    ticks = pages = 0
    for one in _below(pid):
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks, pages = ticks + int(fields[11]) + int(fields[12]), pages + int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * resource.getpagesize() / MEGABYTE
