"""The limit on memory: what fits into it, and that reading ahead waits for room."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from limner.model.annotator import InputSpec
from limner.model.checkpoints.cards import find_card
from limner.model.segmentation.annotator import Segmenter, SegmenterOptions
from limner.pipelines.config import Settings, parse_bytes
from limner.pipelines.run import execute, memory
from limner.pipelines.run.engines import WorkerProcess
from limner.pipelines.run.estimate import estimate
from limner.pipelines.run.execute import prepare
from limner.pipelines.run.memory import Headroom, divide
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.run.processes import held_bytes
from limner.readers.errors import RequestError

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
MB = 1e6


@pytest.mark.parametrize(
    ("text", "count"), [("2GB", 2e9), ("1.5 GiB", 1.5 * 2**30), (" 300MB ", 3e8), (".5TiB", 2**39)], ids=str
)
def test_an_amount_of_memory_is_read(text: str, count: float) -> None:
    assert parse_bytes(text) == count
    assert Settings.resolve({"memory": text}).memory == text


@pytest.mark.parametrize("text", ["2", "2 gigabytes", "-1GB", "0MB", "GB", "1e3GB"])
def test_other_texts_are_no_amount_of_memory(text: str) -> None:
    with pytest.raises(RequestError, match="unit MB, GB or TB"):
        Settings.resolve({"memory": text})


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process needs 100 MB, and 100 MB for each region of a batch."""
    monkeypatch.setattr(memory, "worker_bytes", lambda *_, batch, **__: 100 * MB * (1 + batch))
    monkeypatch.setattr(memory, "LIBRARIES", 100 * MB)
    monkeypatch.setattr(memory, "PLANNED", 0.0)
    monkeypatch.setattr(memory, "report_bytes", lambda *_, **__: 0.0)


@pytest.mark.parametrize(
    ("given", "workers", "batch"),
    [
        ({}, 4, 8),
        ({"memory": "900MB"}, 1, 8),
        ({"memory": "899MB"}, 1, 4),
        ({"memory": "200MB"}, 1, 1),
        ({"memory": "900MB", "engine": "local"}, 1, 4),
        ({"memory": "5GB", "engine": "local"}, 4, 8),
        ({"memory": "2GB", "engine": "local"}, 2, 8),
    ],
    ids=str,
)
@pytest.mark.usefixtures("hundred")
def test_batches_and_workers_are_made_to_fit(given: dict[str, str], workers: int, batch: int) -> None:
    settings = Settings.resolve({"batch": 8, **given})
    found = divide(settings, [], None, workers=4)
    assert (found.workers, found.batch) == (workers, batch)
    assert found.memory <= parse_bytes(given.get("memory", "5GB"))


@pytest.mark.usefixtures("hundred")
def test_each_worker_of_ray_has_the_limit_of_its_own() -> None:
    found = divide(Settings.resolve({"batch": 8, "memory": "300MB", "engine": "ray"}), [], None, workers=4)
    assert (found.workers, found.batch) == (4, 2)


@pytest.mark.parametrize("given", [{"memory": "199MB"}, {"memory": "299MB", "engine": "local"}], ids=str)
@pytest.mark.usefixtures("hundred")
def test_a_limit_too_small_for_one_region_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="must hold one region") as caught:
        divide(Settings.resolve(given), [], None, workers=4)
    assert "are needed" in str(caught.value)


@pytest.mark.parametrize(
    ("needed", "rule"), [("planning", "what planning takes"), ("reports", "what the reports take")]
)
@pytest.mark.usefixtures("hundred")
def test_a_limit_too_small_for_the_rest_of_a_run_is_refused(
    needed: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what all parts need, so that the limit that is advised is not refused for another reason."""
    monkeypatch.setattr(memory, "report_bytes", lambda *_, **__: 400 * MB if needed == "reports" else 300 * MB)
    planning = 400 * MB if needed == "planning" else 300 * MB
    for settings in ({"memory": "100MB"}, {"memory": "350MB"}):
        with pytest.raises(RequestError, match=rule) as caught:
            divide(Settings.resolve(settings), [], None, workers=1, planning=planning)
        assert "440MB" in caught.value.remedy
    assert divide(Settings.resolve({"memory": "440MB"}), [], None, workers=1, planning=planning).batch == 1
    ray = Settings.resolve({"memory": "350MB", "engine": "ray"})  # the limit of workers on other machines
    assert divide(ray, [], None, workers=1, planning=planning).batch == 1


def test_the_limit_that_is_advised_is_enough(scene: Path, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the caches of readers grow with it, here those of four open slides that are larger than they are."""
    monkeypatch.setattr(memory, "cache_bytes", lambda *limits: 4 * min(96 * MB, limits[2]))
    monkeypatch.setattr(execute, "peak_bytes", lambda: 0.0)  # of all tests before
    monkeypatch.setattr(memory, "report_bytes", lambda *_, **__: 0.0)
    stated = {"inputs": [str(scene)], "model": str(card)}
    with pytest.raises(RequestError, match="must hold one region") as caught:
        prepare(Settings.resolve({**stated, "memory": "100MB"}))
    advised = re.search(r"--memory (\d+MB)", caught.value.remedy)
    assert advised
    assert prepare(Settings.resolve({**stated, "memory": advised[1]})).division.batch == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds is asked of /proc")
def test_there_is_headroom_up_to_the_limit() -> None:
    held = held_bytes(os.getpid())
    assert held > 10 * MB
    assert Headroom(None, 1e15)()
    assert Headroom(10 * held, held)()
    assert not Headroom(held / 2, 0.0)()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_command_says_how_much_is_needed(
    command: str, tmp_path: Path, scene: Path, card: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "peak_bytes", lambda: 0.0)  # of all tests before
    monkeypatch.setattr(memory, "report_bytes", lambda *_, **__: 0.0)
    words = [command, scene, "--model", card, "--memory", "20MB", *(["--out", tmp_path / "out"] * (command == "run"))]
    output = limner(*words)
    assert output.code == 2
    assert "--memory must hold one region and the model" in output.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_limit_changes_no_result(
    engine: str, tmp_path: Path, scene: Path, card: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "peak_bytes", lambda: 0.0)  # of all tests before
    for name, words in {"free": [], "limited": ["--memory", "600MB", "--batch", 4]}.items():
        out = ["--out", tmp_path / name, "--engine", engine, "--workers", 2]
        assert limner("run", scene, "--model", card, "--hd-num", 4, *out, *words).code == 0
    for path in (tmp_path / "free").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "limited" / path.name).read_bytes()


def test_kept_probabilities_take_a_byte_for_each_label_and_pixel(scene: Path, card: Path) -> None:
    def needed(*, probabilities: bool, batch: int) -> float:
        stated = {"inputs": [str(scene)], "model": str(card), "probabilities": probabilities, "batch": batch}
        return prepare(Settings.resolve(stated)).division.memory

    for batch in (1, 3):  # those of a batch, and two of the region that is masked and compressed
        more = needed(probabilities=True, batch=batch) - needed(probabilities=False, batch=batch)
        labels, canvas = 2, (5 * 24 + 8) ** 2  # of 25 tiles
        assert more == labels * canvas * (min(batch, 2) + 2), "there are two regions"


def test_few_and_small_regions_take_less(scene: Path, card: Path) -> None:
    """A region is read ahead where a worker has a second one, and caches hold no more than the regions have."""

    def planned(**words: Any) -> ImagePlan:
        return prepare(Settings.resolve({"inputs": [str(scene)], "model": str(card), **words})).plan.images[0]

    one, two = planned(hd_num=65), planned()
    assert (len(one.remaining), len(two.remaining)) == (1, 2)
    assert memory.worker_bytes([one], None, batch=1) == memory.worker_bytes([one], None, batch=1, workers=2)
    more = memory.worker_bytes([two], None, batch=1) - memory.worker_bytes([two], None, batch=1, workers=2)
    view, tile = memory.view_bytes(two), 4 * 32**2 * 4
    assert more == view + 2 * (view + tile) - tile, "the view, and what two threads have freed instead of one"
    assert memory.cache_bytes([one], 1) == 2 * 150 * 110
    assert memory.cache_bytes([one], 1, 1000.0) == 1000.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has allocated")
def test_what_a_network_takes_for_a_tile_is_in_its_cost(make_card: Callable[..., Path], tmp_path: Path) -> None:
    """As its card states it, until the network is tried in the sandbox; neither decides answers."""
    path = make_card(tmp_path, tile=1024)
    unstated = find_card(str(path)).digest
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    record["variants"][0]["tile_mib"] = 100
    path.write_text(yaml.safe_dump(record), encoding="utf-8")
    assert find_card(str(path)).digest == unstated
    segmenter = Segmenter(SegmenterOptions(model=str(path)))
    spec = InputSpec(1024, halo=4, bands=("red",), variant="one-band")
    stated = segmenter.cost([spec], (1, 1))
    assert stated.activations == 100 * 2**20
    segmenter.check([spec])
    measured = segmenter.cost([spec], (1, 1))
    assert 12 * 2**20 <= measured.activations < 100 * 2**20, "the output, and what a convolution unrolls"
    assert (measured.weights, measured.libraries) == (stated.weights, stated.libraries)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has allocated")
@pytest.mark.parametrize("family", ["transformers", "wsinfer", "4khd"])
def test_what_libraries_take_is_estimated_within_a_quarter(
    family: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that has loaded a network of next to no weights."""
    get = request.getfixturevalue
    folders = {
        "transformers": lambda: get("zoo_folder")("segformer"),
        "wsinfer": lambda: get("zoo").wsinfer(tmp_path / "zoo"),
        "4khd": lambda: get("made_4khd"),
    }
    slide = get("make_slide")(tmp_path / "slide.tif")
    stated = {"inputs": [str(slide)], "model": f"{family}:{folders[family]()}", "tissue": "off", "hd_num": 1}
    prepared = prepare(Settings.resolve(stated))
    monkeypatch.setattr(memory, "cache_bytes", lambda *_: 0.0)
    predicted = estimate(prepared, batch=1).memory
    job = prepared.job(1)
    assert job is not None
    worker = WorkerProcess.start(job, 1)
    try:
        worker.receive()
        held = held_bytes(worker.process.pid or 0)
    finally:
        worker.stop()
    assert 0.75 < predicted / held < 1.25
