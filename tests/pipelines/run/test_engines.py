"""Engines return every batch, whatever happens to their worker processes."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from limner.model.finding import Result
from limner.pipelines.run.engines import Engine, InlineEngine, ProcessPoolEngine, WorkerFaultError
from limner.readers.errors import ModelError
from limner.readers.regions import Grid, Region, cut_regions

pytestmark = pytest.mark.slow

JOBS = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from limner.model.finding import Result
from limner.readers.errors import ModelError


@dataclass(frozen=True)
class Job:
    """What happens on each region, by its place in the row; `notes` is a folder for what processes tell each other."""

    notes: str
    faults: tuple = ()

    def begin(self):
        if ("begin", "refuse") in self.faults:
            raise ModelError("model", "it must be there", remedy="Get it")
        if ("begin", "die") in self.faults:
            os._exit(7)

    def read(self, regions):
        places = [self.place(region) for region in regions]
        for place in places:
            Path(self.notes, f"read-{place}").touch()
            if dict(self.faults).get(place) == "die reading":
                os.kill(os.getpid(), signal.SIGKILL)
        return list(zip(regions, places))

    def place(self, region):
        return region.columns.start // 10

    def annotate(self, looks):
        for region, place in looks:
            fault = dict(self.faults).get(place)
            tried = Path(self.notes, f"tried-{place}")
            first = not tried.exists()
            tried.touch()
            if fault == "die" or (fault == "die once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "bug":
                raise TypeError("a bug of ours")
            if fault == "refuse":
                raise ModelError("model", "it must be loaded", remedy="Get it")
            if fault == "slow":
                time.sleep(0.2)
            while fault == "wait for the next to be read" and not Path(self.notes, f"read-{place + 1}").exists():
                time.sleep(0.01)
        return [Result(region.key, region.grid.image, "done", seconds=float(os.getpid())) for region, _ in looks]

    def close(self):
        Path(self.notes, "closed").touch()
'''


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Jobs from a module that spawned processes can import too."""
    (tmp_path / "fault_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("fault_jobs", None)
    job = import_module("fault_jobs").Job
    return lambda **faults: job(
        str(tmp_path), tuple((int(k[1:]) if k[1:].isdigit() else k, v) for k, v in faults.items())
    )


def regions(count: int) -> list[Region]:
    found = cut_regions(Grid("image", (10 * count, 10), (1.0, 1.0)), tile=10, hd_num=1)
    assert len(found) == count
    return found


def results_of(engine: Engine, todo: Sequence[Region], batch: int) -> dict[str, Result]:
    batches = [todo[i : i + batch] for i in range(0, len(todo), batch)]
    found = [result for results in engine.annotate(batches) for result in results]
    assert len({result.region for result in found}) == len(found)
    return {result.region: result for result in found}


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_inline_engine_annotates_in_order_and_closes(
    make_job: Callable[..., Any], tmp_path: Path, batch: int
) -> None:
    todo = regions(10)
    found = results_of(InlineEngine(make_job()), todo, batch)
    assert list(found) == [region.key for region in todo]
    assert (tmp_path / "closed").exists()


def test_engines_accept_no_regions(make_job: Callable[..., Any]) -> None:
    assert results_of(InlineEngine(make_job()), [], 1) == {}
    assert results_of(ProcessPoolEngine(make_job(), 2, 1), [], 1) == {}


def test_worker_processes_share_the_work(make_job: Callable[..., Any]) -> None:
    todo = regions(9)
    found = results_of(ProcessPoolEngine(make_job(**{f"p{i}": "slow" for i in range(9)}), 2, 1), todo, 2)
    assert set(found) == {region.key for region in todo}
    assert len({result.seconds for result in found.values()}) == 2


def test_regions_of_a_killed_worker_are_retried(make_job: Callable[..., Any]) -> None:
    todo = regions(9)
    found = results_of(ProcessPoolEngine(make_job(p1="die once", p7="die once"), 2, 1), todo, 3)
    assert [found[region.key].status for region in todo] == ["done"] * 9


def test_a_region_that_kills_its_worker_twice_fails_alone(make_job: Callable[..., Any]) -> None:
    todo = regions(7)
    found = results_of(ProcessPoolEngine(make_job(p4="die"), 2, 1), todo, 3)
    failed = [region.key for region in todo if found[region.key].status == "failed"]
    assert failed == [todo[4].key]
    assert "SIGKILL" in found[todo[4].key].error
    assert len(found) == 7


def test_a_region_that_kills_its_worker_while_it_is_read_ahead_fails_alone(make_job: Callable[..., Any]) -> None:
    todo = regions(7)
    found = results_of(ProcessPoolEngine(make_job(p3="die reading", p2="slow"), 1, 1), todo, 1)
    assert [found[region.key].status for region in todo] == ["done"] * 3 + ["failed"] + ["done"] * 3


@pytest.mark.parametrize("make", [InlineEngine, lambda job: ProcessPoolEngine(job, 1, 1)], ids=["inline", "local"])
def test_the_next_batch_is_read_while_one_is_annotated(
    make_job: Callable[..., Any], make: Callable[[Any], Engine]
) -> None:
    waiting = {f"p{place}": "wait for the next to be read" for place in range(3)}
    assert len(results_of(make(make_job(**waiting)), regions(4), 1)) == 4


def test_a_bug_in_a_worker_stops_the_run_with_its_traceback(make_job: Callable[..., Any]) -> None:
    with pytest.raises(WorkerFaultError, match="TypeError: a bug of ours"):
        results_of(ProcessPoolEngine(make_job(p2="bug"), 2, 1), regions(5), 1)
    with pytest.raises(TypeError, match="a bug of ours"):
        results_of(InlineEngine(make_job(p2="bug")), regions(5), 1)


@pytest.mark.parametrize("faults", [{"begin": "refuse"}, {"p0": "refuse"}])
def test_limner_errors_keep_their_class_between_processes(make_job: Callable[..., Any], faults: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="Get it"):
        results_of(ProcessPoolEngine(make_job(**faults), 1, 1), regions(2), 1)


def test_a_worker_that_cannot_start_stops_the_run(make_job: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="exit code 7"):
        results_of(ProcessPoolEngine(make_job(begin="die"), 2, 1), regions(2), 1)


def test_closing_the_engine_stops_its_workers(make_job: Callable[..., Any]) -> None:
    engine = ProcessPoolEngine(make_job(**{f"p{i}": "slow" for i in range(20)}), 2, 1)
    coming = engine.annotate([[region] for region in regions(20)])
    first = next(results for results in coming if results)
    coming.close()
    pid = int(first[0].seconds)
    assert not Path(f"/proc/{pid}").exists() or not Path("/proc").exists()
