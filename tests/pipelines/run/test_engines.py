"""Engines return every batch, whatever happens to their worker processes, on this machine or in a Ray cluster."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from limner.model.finding import Result
from limner.pipelines.run.engines import Engine, InlineEngine, ProcessPoolEngine, WorkerFaultError
from limner.pipelines.run.ray_engine import RETRIES, RayEngine
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
            raise ModelError("model", "must be there", remedy="Get it")
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
                raise ModelError("model", "must be loaded", remedy="Get it")
            if fault == "slow":
                time.sleep(0.2)
            while fault == "wait for another to be read" and self.count("read") == self.count("tried") < 4:
                time.sleep(0.01)
        return [Result(region.key, region.grid.image, "done", seconds=float(os.getpid())) for region, _ in looks]

    def count(self, what):
        return len(list(Path(self.notes).glob(f"{what}-*")))

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


MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["inline", "local", "ray"])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """Engines for a job, with two worker processes unless told otherwise."""
    if request.param == "inline":
        return lambda job, *_: InlineEngine(job)
    if request.param == "local":
        return lambda job, workers=2: ProcessPoolEngine(job, workers, 1)
    cluster = request.getfixturevalue("ray_cluster")

    def make(job: Any, workers: int = 2) -> Engine:
        import_module("ray.cloudpickle").register_pickle_by_value(sys.modules[type(job).__module__])
        return RayEngine(lambda _: job, cluster.address, workers)

    return make


POOLS = pytest.mark.parametrize("make_engine", ["local", "ray"], indirect=True)


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


def test_engines_accept_no_regions(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    assert results_of(make_engine(make_job()), [], 1) == {}


def test_engines_annotate_every_region_once(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    todo = regions(11)
    found = results_of(make_engine(make_job()), todo, 2)
    assert {found[region.key].status for region in todo} == {"done"}


def test_what_comes_before_the_first_results_is_that_a_model_is_loaded(
    make_job: Callable[..., Any], make_engine: MakeEngine
) -> None:
    with contextlib.closing(make_engine(make_job()).annotate([regions(1)])) as coming:
        assert next(coming) == []


@POOLS
def test_worker_processes_share_the_work(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    todo = regions(40)
    found = results_of(make_engine(make_job(**{f"p{i}": "slow" for i in range(40)})), todo, 2)
    assert set(found) == {region.key for region in todo}
    assert len({result.seconds for result in found.values()}) == 2


@POOLS
def test_regions_of_a_killed_worker_are_retried(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    todo = regions(9)
    found = results_of(make_engine(make_job(p1="die once", p7="die once")), todo, 3)
    assert [found[region.key].status for region in todo] == ["done"] * 9


@POOLS
def test_a_region_that_kills_its_workers_fails_alone(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    todo = regions(7)
    engine = make_engine(make_job(p4="die"))
    found = results_of(engine, todo, 3)
    failed = [region.key for region in todo if found[region.key].status == "failed"]
    assert failed == [todo[4].key]
    times = f"{RETRIES + 1} times (perhaps" if isinstance(engine, RayEngine) else "twice (killed by SIGKILL"
    assert times in found[todo[4].key].error
    assert len(found) == 7


@POOLS
def test_a_region_that_kills_its_worker_while_it_is_read_ahead_fails_alone(
    make_job: Callable[..., Any], make_engine: MakeEngine
) -> None:
    todo = regions(7)
    found = results_of(make_engine(make_job(p3="die reading", p2="slow"), 1), todo, 1)
    assert [found[region.key].status for region in todo] == ["done"] * 3 + ["failed"] + ["done"] * 3


def test_the_next_batch_is_read_while_one_is_annotated(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    # Which of the four is read next, an engine does not promise.
    waiting = {f"p{place}": "wait for another to be read" for place in range(3)}
    assert len(results_of(make_engine(make_job(**waiting), 1), regions(4), 1)) == 4


@pytest.mark.parametrize("engine", [InlineEngine, ProcessPoolEngine])
def test_without_room_nothing_is_read_ahead(
    make_job: Callable[..., Any], tmp_path: Path, engine: Callable[..., Engine]
) -> None:
    todo = regions(3)
    job, limits = make_job(p0="slow", p1="slow"), (1, 1) if engine is ProcessPoolEngine else ()
    done = 0
    for results in engine(job, *limits, room=lambda: False).annotate([[region] for region in todo]):
        done += len(results)
        assert not results or not (tmp_path / f"read-{done + 1}").exists()
    assert done == 3


def test_a_bug_stops_the_run_with_its_traceback(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    engine = make_engine(make_job(p2="bug"))
    with pytest.raises(TypeError if isinstance(engine, InlineEngine) else WorkerFaultError, match="a bug of ours"):
        results_of(engine, regions(5), 1)


@pytest.mark.parametrize("faults", [{"begin": "refuse"}, {"p0": "refuse"}])
def test_limner_errors_keep_their_class_between_processes(
    make_job: Callable[..., Any], make_engine: MakeEngine, faults: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match=r"^model.* must be .*Get it"):
        results_of(make_engine(make_job(**faults), 1), regions(2), 1)


@POOLS
def test_a_worker_that_cannot_start_stops_the_run(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    with pytest.raises(ModelError, match="worker process must start"):
        results_of(make_engine(make_job(begin="die")), regions(2), 1)


@POOLS
def test_closing_the_engine_stops_its_workers(make_job: Callable[..., Any], make_engine: MakeEngine) -> None:
    engine = make_engine(make_job(**{f"p{i}": "slow" for i in range(20)}))
    coming = engine.annotate([[region] for region in regions(20)])
    first = next(results for results in coming if results)
    coming.close()
    process, tries = Path(f"/proc/{int(first[0].seconds)}"), 100
    while process.exists() and (tries := tries - 1):
        time.sleep(0.1)
    assert tries
