"""Runs in a Ray cluster: same bytes as in this process, nothing lost by a kill, and errors that name the node."""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limner.model.finding import Result
from limner.pipelines.config import Settings
from limner.pipelines.progress import Event, RegionDone
from limner.pipelines.run import ray_engine
from limner.pipelines.run.execute import run
from limner.pipelines.run.ray_engine import RayEngine, Resources, check_inputs, divide, installation, resources
from limner.readers import plugins
from limner.readers.contract import scan_with
from limner.readers.errors import RequestError
from limner.readers.raster.geotiff import RasterReader
from limner.readers.regions import Grid, Region, cut_regions

NOBODY = "DOE^JANE"
SITE = """
import importlib.metadata, sys
class NoLimner:
    def find_spec(self, name, path=None, target=None):
        if name == "limner" and {hidden}:
            raise ModuleNotFoundError("No module named 'limner'", name="limner")
sys.meta_path.insert(0, NoLimner())
if {older!r}:
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: {older!r} if name == "limner" else version(name)
def hook(event, arguments):
    if event == "open" and {missing!r} and str(arguments[0]).endswith({missing!r}):
        raise FileNotFoundError(2, "No such file or directory")
sys.addaudithook(hook)
"""


def reports(folder: Path) -> dict[str, bytes]:
    names = {"manifest.json", "results.jsonl", "parts"}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in names}


@pytest.fixture
def settings(
    tmp_path: Path, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> Callable[..., Settings]:
    """Settings of a run of 20 regions, of which some are empty."""
    scene = make_scene(tmp_path / f"{NOBODY}.tif", width=110, height=130)
    base = {"inputs": [str(scene)], "model": str(make_card(tmp_path)), "hd_num": 1}
    return lambda out, **further: Settings.resolve({**base, "out": str(tmp_path / out), **further})


def regions_of(folder: Path) -> list[str]:
    """The keys of the results in a run folder, in the order in which they came."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [line.split('"region":"', 1)[1].split('"', 1)[0] for line in lines]


@pytest.mark.slow
def test_reports_have_the_same_bytes_with_every_engine(
    tmp_path: Path, settings: Callable[..., Settings], ray_cluster: Any
) -> None:
    """In the cluster an actor is killed in the middle, and nothing is done twice."""
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, RegionDone) and len(killed) < 3:  # also the one that replaces it
            actors = [pid for pid, name in processes() if name.startswith("ray::_Actor")]
            killed.extend(actors[:1])
            for pid in actors[:1]:
                os.kill(pid, signal.SIGKILL)

    made = {
        "inline": run(settings("inline"), lambda _: None),
        "local": run(settings("local", engine="local", workers=2), lambda _: None),
        "ray": run(settings("ray", engine="ray", address=ray_cluster.address, workers=2, batch=2), kill),
    }
    assert killed
    assert {name: one.exit_code for name, one in made.items()} == dict.fromkeys(made, 0)
    assert len(reports(tmp_path / "inline")["findings.csv"].splitlines()) > 20
    for name in made:
        assert reports(tmp_path / name) == reports(tmp_path / "inline")
        assert sorted(regions_of(tmp_path / name)) == sorted(set(regions_of(tmp_path / "inline")))
    leaks = [path for path in ray_cluster.folder.rglob("*") if path.is_file() and NOBODY.encode() in path.read_bytes()]
    assert leaks == []
    assert ray_cluster.address not in (tmp_path / "ray" / "manifest.json").read_text()


def processes() -> Iterator[tuple[int, str]]:
    """Process id and command line of every process of this user."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                yield int(path.name), (path / "cmdline").read_text()
            except OSError:
                continue


class Sleeper:
    """A job of which each region takes a fifth of a second; its results tell the raylet that started their process."""

    def begin(self) -> None:
        """Nothing to load."""

    def read(self, regions: Sequence[Region]) -> Sequence[Region]:
        """The regions themselves."""
        return regions

    def annotate(self, views: Sequence[Region]) -> list[Result]:
        """Whose seconds are the process id of the raylet."""
        import os
        import time

        from limner.model.finding import Result

        time.sleep(0.2 * len(views))
        return [Result(view.key, view.grid.image, "done", seconds=float(os.getppid())) for view in views]

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture
def sends_this_module() -> Iterator[None]:
    """Ray sends the code of this module, which nodes cannot import."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.usefixtures("sends_this_module")
def test_a_killed_raylet_loses_and_repeats_nothing(ray_cluster: Any) -> None:
    todo = cut_regions(Grid("image", (10 * 60, 10), (1.0, 1.0)), tile=10, hd_num=1)
    done: list[str] = []
    killed_at = 0
    with ray_cluster.further_node() as raylet:
        for results in RayEngine(lambda _: Sleeper(), ray_cluster.address, 3).annotate([[one] for one in todo]):
            done += [result.region for result in results if result.status == "done"]
            if not killed_at and any(result.seconds == raylet for result in results):
                os.kill(raylet, signal.SIGKILL)
                killed_at = len(done)
    assert 0 < killed_at < len(todo) - 3
    assert sorted(done) == sorted(region.key for region in todo)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"hidden": True}, ("must have the same limner", "found: none", "pip install -c constraints.txt '.[ray]'")),
        ({"older": "0.0.9"}, ("must have the same limner", "found: 0.0.9, sources ", "pip install -c constraints.txt")),
        (
            {"missing": f"{NOBODY}.tif"},
            (f"{NOBODY}.tif on node", "readable there", "No such file", "every node mounts"),
        ),
    ],
    ids=["no-limner", "another-limner", "no-input"],
)
def test_a_node_that_cannot_work_is_named(
    tmp_path: Path, settings: Callable[..., Settings], ray_cluster: Any, site: dict[str, Any], words: tuple[str]
) -> None:
    (tmp_path / "site").mkdir()
    content = SITE.format(**{"hidden": False, "older": "", "missing": ""} | site)
    (tmp_path / "site" / "sitecustomize.py").write_text(content)
    asked = settings("out", engine="ray", address=ray_cluster.address)
    with ray_cluster.further_node(PYTHONPATH=str(tmp_path / "site")), pytest.raises(RequestError) as caught:
        run(asked, lambda _: None)
    assert [word for word in (*words, "node ", "127.0.0.1") if word not in str(caught.value)] == []
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("sends_this_module")
def test_the_command_line_and_errors_of_nodes_stay_here(ray_cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Ray would show the command line of a run, which names files, and print what happens on nodes."""
    todo = cut_regions(Grid("image", (10 * 8, 10), (1.0, 1.0)), tile=10, hd_num=1)
    shown: list[str] = []
    for results in RayEngine(lambda _: Sleeper(), ray_cluster.address, 2).annotate([[one] for one in todo]):
        if results and not shown:
            from ray._private import state

            shown = [job["Entrypoint"] for job in state.jobs() if not job["IsDead"]]
            os.kill(next(pid for pid, name in processes() if name.startswith("ray::_Actor")), signal.SIGKILL)
    assert shown == ["limner"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_cluster_without_gpus_is_refused(settings: Callable[..., Settings], ray_cluster: Any) -> None:
    asked = settings("out", engine="ray", address=ray_cluster.address, gpus_per_worker=0.5)
    with pytest.raises(RequestError, match=r"--gpus-per-worker must be at most .*2 nodes is 0"):
        run(asked, lambda _: None)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_starts")
def test_ray_starts_on_this_machine(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123")
    handler, level = signal.getsignal(signal.SIGTERM), logging.getLogger().level
    assert run(settings("out", engine="ray", workers=1), lambda _: None).exit_code == 0
    assert os.environ["LIMNER_PSEUDONYM_KEY"]
    assert signal.getsignal(signal.SIGTERM) is handler
    assert logging.getLogger().level == level


# Requests that cannot be met, without a cluster


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "ray://head:10001"}, "--address must be HOST:PORT or auto"),
        ({"address": "head"}, "--address must be HOST:PORT or auto"),
        ({"address": "127.0.0.1:1"}, "--address must be that of a running Ray cluster"),
        ({"engine": "local", "address": "auto"}, "--address must come with --engine ray"),
        ({"engine": "inline", "gpus_per_worker": 1.0}, "--gpus-per-worker must come with --engine ray"),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(map(str, given.values())),
)
def test_requests_are_refused_before_inputs_are_read(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("limner.pipelines.run.execute.require_extra", lambda *_, **__: None)
    with pytest.raises(RequestError, match=words):
        run(settings("out", **{"engine": "ray", **given}), lambda _: None)


@pytest.mark.parametrize("gpus", [1.5, -1.0, float("nan"), float("inf")])
def test_gpus_are_whole_or_a_part_of_one(gpus: float) -> None:
    with pytest.raises(RequestError, match="gpus_per_worker"):
        Settings.resolve({"gpus_per_worker": gpus})


def test_ray_that_is_not_installed_is_named_with_its_command(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise plugins.PackageNotFoundError(name)

    monkeypatch.setattr(plugins, "version", version)
    with pytest.raises(RequestError, match=r"--engine ray .*no ray.*pip install 'ray>="):
        run(settings("out", engine="ray"), lambda _: None)


@pytest.mark.slow
def test_a_port_that_never_answers_is_given_up(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the package ray is not installed")
    monkeypatch.setattr(ray_engine, "CONNECT_S", 4.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestError, match=rf"--address must be .*{address}: no answer in 4 s"):
            run(settings("out", engine="ray", address=address), lambda _: None)


def test_actors_are_as_large_as_fits() -> None:
    nodes = [Resources(8, 0), Resources(3, 0)]
    assert divide(nodes, 0, 0) == (11, 1)
    assert divide(nodes, 3, 0) == (3, 3)
    assert divide(nodes, 40, 0) == (40, 1)
    assert divide([Resources(16, 2), Resources(16, 0)], 0, 0.5) == (4, 4)
    assert divide([Resources(4, 8)], 0, 2) == (4, 1)
    assert resources([{"Resources": {"CPU": 2.0, "memory": 1e9}}]) == [Resources(2, 0)]


def test_an_installation_is_told_apart_by_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = installation()
    assert before == installation()
    monkeypatch.setattr(ray_engine, "_PACKAGES", ("limner", "limner.readers"))
    assert installation()["limner"] != before["limner"]
    assert installation()["Python"] == before["Python"]


@pytest.mark.parametrize("change", ["none", "size", "gone"])
def test_inputs_are_checked_on_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(ray_engine, "_silence", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").write_bytes(b"abc")
    packed = pickle.dumps(({"a.tif": 4 if change == "size" else 3}, []))
    if change == "gone":
        (tmp_path / "a.tif").unlink()
    found = check_inputs(packed, str(tmp_path))
    wanted = {"none": None, "size": ("a.tif", "3 bytes, here 4"), "gone": ("a.tif", "No such file or directory")}
    assert found == wanted[change]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["well", "403"])
def test_remote_inputs_are_opened_on_a_node(
    tmp_path: Path, root: Path, make_scene: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """What a server answers to this machine, it may refuse to a node."""
    monkeypatch.setattr(ray_engine, "_silence", lambda: None)
    monkeypatch.chdir(tmp_path)
    [info] = scan_with(RasterReader(), str(make_scene(tmp_path / "scene.tif")), {})
    words = [sys.executable, root / "tests/readers/raster/serve_file.py", info.uri, mode, "0"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = f"http://127.0.0.1:{int(server.stdout.readline())}/bucket/scene.tif"
        found = check_inputs(pickle.dumps(({}, [replace(info, uri=uri)])), str(tmp_path))
        server.kill()
    assert found == (None if mode == "well" else (uri, "HTTP response code: 403"))
