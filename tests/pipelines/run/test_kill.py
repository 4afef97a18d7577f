"""A run that is killed at any time resumes to the same bytes as an uninterrupted one.

Runs are real processes that die by SIGKILL. A driver loads everything once and forks, so that dozens of runs take
seconds; what it forks has opened nothing and started no thread.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DRIVER = '''
import json, os, signal, sys
from pathlib import Path
import limner.model.checkpoints.onnx, limner.model.segmentation.annotator
import limner.readers.raster.geotiff, limner.readers.registry
import limner.reports.geojson, limner.reports.geopackage, limner.reports.overview.writer, limner.reports.summary
import onnxruntime, rasterio
from limner.pipelines.run import execute as running, run_folder as storing
from limner.pipelines.config import Settings
from limner.pipelines.progress import RegionDone, Message


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def listener(after, phase):
    seen = 0

    def listen(event):
        nonlocal seen
        seen += isinstance(event, RegionDone)
        if isinstance(event, RegionDone) and seen == after:
            die()
        if phase and isinstance(event, Message) and event.text.startswith(phase):
            die()

    return listen


def tear(after, share):
    """Die when that many lines are out, with a part of the next written."""
    append, count = storing.RunFolder.append, 0

    def torn(self, results):
        nonlocal count
        count += len(results)
        if count > after:
            line = json.dumps(results[0].to_json(), separators=(",", ":")).encode() + b"\\n"
            os.write(self._results.fileno(), line[: int(len(line) * share)])
            die()
        append(self, results)

    storing.RunFolder.append = torn


def one(wish):
    os.environ.update(wish.get("environment", {}))
    settings = Settings.resolve(wish["settings"])
    if "tear" in wish:
        tear(*wish["tear"])
    if wish.get("die_at_rename"):
        names = []
        replace = Path.replace

        def dying(self, target):
            names.append(str(target))
            if len(names) == wish["die_at_rename"]:
                die()
            return replace(self, target)

        Path.replace = dying
    return running.run(settings, listener(wish.get("after"), wish.get("phase"))).exit_code


def drive():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = one(json.loads(line))
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":  # spawned workers import this file too
    drive()
'''

KILLED = -9
Run = Callable[..., int]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run settings in a forked process; gives its exit code, -9 where it was killed."""
    path = tmp_path_factory.mktemp("driver") / "driver.py"
    path.write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:

        def run(settings: dict[str, Any], **wish: object) -> int:
            assert driver.stdin is not None
            assert driver.stdout is not None
            print(json.dumps({"settings": settings, **wish}), file=driver.stdin, flush=True)
            return int(driver.stdout.readline())

        yield run
        driver.kill()


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> dict[str, Any]:
    """Settings of a run of 30 regions in two images."""
    folder = tmp_path_factory.mktemp("asked")
    scenes = [make_scene(folder / f"{n}.tif", width=w, height=100) for n, w in (("a", 100), ("b", 64))]
    return {"inputs": [str(scene) for scene in scenes], "model": str(make_card(folder)), "hd_num": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any], forked: Run) -> Path:
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert forked({**asked, "out": str(out)}) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the journal, whose lines come in any order and hold seconds, and the parts of it."""
    unordered = {"results.jsonl", "parts"}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in unordered}


def reports(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name != "manifest.json"}


def test_the_uninterrupted_run_has_findings_and_failures(whole: Path) -> None:
    lines = (whole / "results.jsonl").read_bytes().splitlines()
    assert len(lines) > 20
    assert len(reports(whole)) == 11
    assert len((whole / "findings.csv").read_text().splitlines()) > 100


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_killed_after_every_few_results(
    tmp_path: Path, asked: dict[str, Any], whole: Path, forked: Run, batch: int
) -> None:
    """One run, killed again and again until it is through."""
    settings = {**asked, "out": str(tmp_path / "out"), "batch": batch}
    deaths = 0
    while (code := forked(settings, after=1 + 2 * deaths)) == KILLED:
        deaths += 1
    assert code == 0
    assert deaths >= 3
    assert reports(tmp_path / "out") == reports(whole)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_killed_in_the_middle_of_a_line(
    tmp_path: Path, asked: dict[str, Any], whole: Path, forked: Run, batch: int
) -> None:
    settings = {**asked, "out": str(tmp_path / "out"), "batch": batch}
    for tear in ((0, 0.5), (4, 0.01), (3, 0.999)):
        assert forked(settings, tear=tear) == KILLED
        assert not (tmp_path / "out" / "results.jsonl").read_bytes().endswith(b"\n")
    assert forked(settings) == 0
    assert reports(tmp_path / "out") == reports(whole)


@pytest.mark.parametrize("wish", [{"phase": "Writing"}, *({"die_at_rename": n} for n in (1, 2, 5, 8))])
def test_killed_before_the_manifest_and_while_reports_are_written(
    tmp_path: Path, asked: dict[str, Any], whole: Path, forked: Run, wish: dict[str, Any]
) -> None:
    settings = {**asked, "out": str(tmp_path / "out")}
    assert forked(settings, **wish) == KILLED
    assert forked(settings) == 0
    assert reports(tmp_path / "out") == reports(whole)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.31, 0.58, 0.83, 0.999])
def test_killed_at_any_time(tmp_path: Path, asked: dict[str, Any], whole: Path, forked: Run, share: float) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    journal = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(journal[: int(len(journal) * share)])
    for name in reports(out):
        (out / name).unlink()
    assert forked({**asked, "out": str(out), "batch": 7}) == 0
    assert contents(out) == contents(whole)


@pytest.fixture(params=["local", "ray"])
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of an engine with worker processes."""
    if request.param == "local":
        return {"engine": "local", "workers": 2}
    cluster = request.getfixturevalue("ray_cluster")
    return {"engine": "ray", "workers": 2, "address": cluster.address, "environment": cluster.environment}


@pytest.mark.parametrize(("pool", "batch"), [("local", 1), ("local", 3), ("local", 7), ("ray", 1)], indirect=["pool"])
def test_killed_with_worker_processes(
    tmp_path: Path, asked: dict[str, Any], whole: Path, forked: Run, pool: dict[str, Any], batch: int
) -> None:
    wish = {"environment": pool.pop("environment", {})}
    settings = {**asked, **pool, "out": str(tmp_path / "out"), "batch": batch}
    assert forked(settings, after=5, **wish) == KILLED
    assert forked(settings, tear=(9, 0.7), **wish) == KILLED
    assert forked(settings, **wish) == 0
    assert reports(tmp_path / "out") == reports(whole)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == len((whole / "results.jsonl").read_text().splitlines())


def test_a_full_disk_loses_nothing(tmp_path: Path, asked: dict[str, Any], whole: Path) -> None:
    """No file may grow beyond a few blocks: the system refuses writes as it does when the disk is full."""
    settings = [f"--set={key}={value}" for key, value in asked.items() if key != "inputs"]
    command = [
        sys.executable,
        "-m",
        "limner.pipelines.cli.main",
        "run",
        *asked["inputs"],
        "--out",
        tmp_path / "out",
        *settings,
    ]
    limit = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run(
        [sys.executable, "-c", limit, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert full.returncode == 1, full.stderr
    assert "File too large" in full.stderr
    assert "Free disk space" in full.stderr
    assert "Traceback" not in full.stderr
    journal = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert 0 < len(journal) <= 9000
    assert journal.endswith(b"\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert reports(tmp_path / "out") == reports(whole)
