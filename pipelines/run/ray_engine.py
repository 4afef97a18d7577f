"""Engine on a Ray cluster: each actor has one annotator, and this process alone writes.

Everything that leaves an actor is a returned value, never an exception or a line of its standard streams, since Ray
writes those to log files, and errors name files.
"""

import contextlib
import hashlib
import logging
import math
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest.mock import patch

from ...model.finding import Result
from ...readers.errors import LimnerError, RequestError, excerpt
from ...readers.files import is_remote
from ...readers.image import ImageInfo
from ...readers.kinds import KEY_VARIABLE
from ...readers.processors import cores
from ...readers.regions import Region
from ...readers.registry import open_image
from ..cli.terminal import plural
from .engines import TASKS_HELD, Job, PoolLimits, Task, WorkerFaultError, run_pool

RETRIES = 3
"""How often a region is tried again, alone, after its actor or its node was lost."""

CONNECT_S = 60.0
"""Seconds within which a cluster must answer."""

START_S = 600.0
"""Seconds within which a cluster must have room for at least one actor."""


_POLL_S = 1.0
_CHECKED_FILES = 1000  # of the inputs, evenly spread
_CHECKED_REMOTE = 3
_STORE_BYTES = 2**29  # of a Ray started on this machine: its default is a third of the memory
_PACKAGES = ("limner", "limner.readers", "limner.model", "limner.reports", "limner.pipelines")
_QUIET: dict[str, object] = {
    "ray._private.utils.get_entrypoint_name": "limner",  # Ray shows the command line, which names files
    "ray._private.worker.print_to_stdstream": None,  # Ray prints errors of nodes among the results
}
_LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system it means: listen on the loopback interface only
}


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Works in actors on the nodes of a Ray cluster. Regions of an actor that is lost are retried, one by one."""

    job: Callable[[int], Job]
    """Makes the job for a number of computing threads."""
    address: str = ""
    """HOST:PORT or auto; "" starts Ray on this machine."""
    workers: int = 0
    """Number of actors; 0 for one per core, or as many as the GPUs allow."""
    gpus: float = 0.0
    """GPUs of an actor."""
    images: Sequence[ImageInfo] = ()
    """Images that each node must be able to open."""

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """See `Engine`. Raises `RequestError` where there is no cluster, or one that cannot do this work."""
        with _connection(self.address, self.workers) as ray:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            workers, threads = divide(resources(nodes), self.workers, self.gpus)
            _check_nodes(ray, [node for node in nodes if _slots(resources([node]), 1, self.gpus)], self.images)
            shared = ray.put(self.job(threads))
            options = {"num_cpus": threads, "num_gpus": self.gpus or None, "max_concurrency": TASKS_HELD}
            actor = ray.remote(_Actor).options(scheduling_strategy="SPREAD", max_restarts=0, **options)

            def start() -> _Worker:
                return _Worker.start(ray, actor, shared)

            limits = PoolLimits(workers, tasks=TASKS_HELD, retries=RETRIES, restarts=2)
            yield from run_pool(batches, limits, start=start, wait=_Wait(ray, self.address or "--engine ray"))


@dataclass(frozen=True, slots=True)
class Resources:
    """What a node has."""

    cpus: int
    gpus: float


def resources(nodes: Iterable[Mapping[str, Any]]) -> list[Resources]:
    """What nodes have, from Ray's description of them."""
    found = (node["Resources"] for node in nodes)
    return [Resources(int(one.get("CPU", 0)), float(one.get("GPU", 0))) for one in found]


def divide(nodes: Sequence[Resources], workers: int, gpus: float) -> tuple[int, int]:
    """Number of actors, and cores of each: as many as still let all of them start at once.

    Raises `RequestError` where no node has the GPUs of an actor.

    >>> divide([Resources(8, 0), Resources(3, 0)], 3, 0)
    (3, 3)
    >>> divide([Resources(8, 2), Resources(8, 0)], 0, 0.5)
    (4, 2)
    """
    if gpus and not any(node.gpus >= gpus for node in nodes):
        raise RequestError(
            "--gpus-per-worker",
            "must be at most the GPUs of a node of the cluster",
            value=f"{gpus:g}; the most of {plural(len(nodes), 'node')} is {max((n.gpus for n in nodes), default=0):g}",
            remedy="Start nodes with GPUs (ray start --num-gpus), or leave --gpus-per-worker out to use processors",
        )
    workers = workers or max(1, _slots(nodes, 1, gpus))
    most = max((node.cpus for node in nodes), default=1)
    return workers, max((count for count in range(1, most + 1) if _slots(nodes, count, gpus) >= workers), default=1)


def _slots(nodes: Sequence[Resources], cpus: int, gpus: float) -> int:
    """How many actors nodes have room for."""
    return sum(min(node.cpus // cpus, int(node.gpus / gpus + 1e-6) if gpus else node.cpus) for node in nodes)


def check_address(address: str) -> None:
    """Raise `RequestError` where nothing answers at HOST:PORT; other addresses are left to Ray."""
    host, colon, port = address.rpartition(":")
    if address in {"", "auto"}:
        return
    if not colon or not host or "/" in host or not port.isdecimal():
        remedy = "Give the address that `ray start --head` printed, or auto on a machine of the cluster"
        raise RequestError("--address", "must be HOST:PORT or auto", value=address, remedy=remedy)
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S / 4).close()
    except (OSError, OverflowError) as error:
        _refuse(address, str(error))


def _refuse(address: str, problem: str) -> NoReturn:
    raise RequestError(
        "--address",
        "must be that of a running Ray cluster, and this machine one of its nodes",
        value=f"{address}: {excerpt(problem, 300)}",
        remedy="Start one with `ray start --head --port=6379`, and run limner on one of its machines",
    )


@contextlib.contextmanager
def _connection(address: str, workers: int) -> Generator[Any]:
    """Ray, connected to a cluster or to one that is started here and ends with it."""
    check_address(address)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {} if address else _LOCAL))
        if not address:
            os.environ.pop(KEY_VARIABLE, None)  # only scanning needs it; `patch` puts it back
        ray: Any = import_module("ray")
        if ray.is_initialized() and address in {"", "auto"}:  # by the program that calls us
            yield ray
            return
        if address:
            _await_cluster(address)
        for name, value in _QUIET.items():
            module, _, attribute = name.rpartition(".")
            if hasattr(import_module(module), attribute):
                stack.enter_context(patch(name, return_value=value))
        options: dict[str, Any] = {"address": address or "local"}
        if not address:
            options |= {"num_cpus": max(workers, cores()), "object_store_memory": _STORE_BYTES}
            options |= {"include_dashboard": False}
        log = logging.getLogger("ray")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.CRITICAL + 1)  # what matters is raised
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, configure_logging=False, **options)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises
            _refuse(address or "this machine", str(error.__cause__ or error))
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray sets its own
        stack.callback(ray.shutdown)
        yield ray


def _await_cluster(address: str) -> None:
    """Raise `RequestError` where no cluster answers in time. Ray itself might wait forever, or end its process."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", f"--address={address}"]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, errors="replace", timeout=CONNECT_S, check=False
        )
    except subprocess.TimeoutExpired:
        _refuse(address, f"no answer in {CONNECT_S:.0f} s")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        _refuse(address, lines[-1] if lines else f"exit code {done.returncode}")


def _check_nodes(ray: Any, nodes: Sequence[Mapping[str, Any]], images: Sequence[ImageInfo]) -> None:
    """Raise `RequestError` where a node has another limner or cannot open an input."""
    local = sorted({path for info in images for path in info.files if os.path.isfile(path)})  # noqa: PTH113 - False for any error
    local = local[:: max(1, math.ceil(len(local) / _CHECKED_FILES))]
    remote = [info for info in images if is_remote(info.uri)][:_CHECKED_REMOTE]
    packed = pickle.dumps(({path: os.stat(path).st_size for path in local}, remote))  # noqa: PTH116 - paths are texts
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    expected, probe = installation(), ray.remote(_make_probe())
    calls = {
        probe.options(num_cpus=0, max_retries=1, scheduling_strategy=affinity(node["NodeID"], soft=False)).remote(
            expected,
            packed,
            os.getcwd(),  # noqa: PTH109 - a text
        ): node
        for node in nodes
    }
    for call, node in calls.items():
        name = node_name(node)
        try:
            found, problem = cast("tuple[dict[str, str], tuple[str, str] | None]", ray.get(call, timeout=START_S))
        except ray.exceptions.RayTaskError as error:
            raise WorkerFaultError(str(error)) from None
        except ray.exceptions.GetTimeoutError:
            rule, remedy = f"must start a process within {START_S:.0f} s", "See Ray's logs there, or leave the node out"
            raise RequestError(name, rule, remedy=remedy) from None
        except ray.exceptions.RayError:  # the node was lost; its regions are not
            continue
        for key in (key for key in expected if found.get(key) != expected[key]):
            raise RequestError(
                name,
                f"must have the same {key} as this machine, where it is {expected[key]}",
                value=found.get(key, "none"),
                remedy="Install the same checkout on every node: pip install -c constraints.txt '.[ray]'",
            )
        if problem:
            remedy = "Put the inputs on storage that every node mounts at the same path, or name them by URI"
            raise RequestError(f"{problem[0]} on {name}", "must be readable there too", value=problem[1], remedy=remedy)


def node_name(node: Mapping[str, Any]) -> str:
    """A node in words, from Ray's description of it."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


@dataclass(slots=True)
class _Worker:
    """An actor, see `engines.Worker`."""

    ray: Any
    handle: Any
    job: Any
    """Reference to the job, which each node fetches once."""
    pending: dict[Any, Task | None]
    """What was called, by reference; None for its start."""
    node: str = ""
    """Where it runs, "" while it waits for a place."""
    ready: bool = False
    reason: str = ""

    @classmethod
    def start(cls, ray: Any, actor: Any, job: Any) -> "_Worker":
        """Ask for an actor."""
        handle = actor.remote()
        return cls(ray, handle, job, {handle.node_id.remote(): None})

    @property
    def tasks(self) -> list[Task]:
        """What it works on."""
        return [task for task in self.pending.values() if task is not None]

    def send(self, task: Task) -> None:
        """Give it a task."""
        self.pending[self.handle.annotate.remote(task.regions)] = task

    def receive(self) -> list[Result]:
        """See `engines.Worker`. Raises what stopped it, with its node."""
        kind, content = self._get()
        if kind == "raised":
            subject, rule, value, remedy = content.parts
            raise type(content)(f"{subject} on {self.node}", rule, value=value, remedy=remedy)
        if kind == "fault":
            raise WorkerFaultError(content)
        if kind == "ready":
            self.ready = True
            return []
        return content

    def place(self) -> bool:
        """Begin the job if what it has to tell is where it runs; else False."""
        if self.node:
            return False
        try:
            _, found = self._get()
        except EOFError:
            return False
        self.node = next((node_name(node) for node in self.ray.nodes() if node["NodeID"] == found), found)
        self.pending = {self.handle.begin.remote(self.job, installation(), os.getcwd()): None}  # noqa: PTH109 - a text
        return True

    def exit_reason(self) -> str:
        """How it was lost: without addresses and numbers, so that reports do not depend on them."""
        return self.reason

    def stop(self) -> None:
        """End it, also while it works."""
        with contextlib.suppress(Exception):  # it has ended
            self.ray.kill(self.handle, no_restart=True)

    def _get(self) -> tuple[str, Any]:
        if self.reason:
            raise EOFError(self.reason)
        errors = self.ray.exceptions
        [call], _ = self.ray.wait(list(self.pending), num_returns=1)
        try:
            answer = cast("tuple[str, Any]", self.ray.get(call))
        except errors.RayTaskError as error:
            raise WorkerFaultError(str(error)) from None
        except errors.RayError as error:
            self.reason = _loss(error, started=bool(self.node))
            self.stop()
            raise EOFError(self.reason) from None
        del self.pending[call]
        return answer


def _loss(error: Exception, *, started: bool) -> str:
    """Why an actor was lost, as a clause."""
    text = str(error)
    if not started:
        return excerpt(text.strip().splitlines()[-1], 300)
    if type(error).__name__ == "OutOfMemoryError":
        return "ended by Ray, since its node had no memory left"
    return "its node was lost" if "node has died" in text or "raylet" in text else "perhaps out of memory"


@dataclass(slots=True)
class _Wait:
    """Waits for workers, see `run_pool`."""

    ray: Any
    address: str
    since: float = field(default_factory=time.monotonic)
    """When one had a place last."""

    def __call__(self, workers: Sequence[_Worker]) -> list[_Worker]:
        """Raises `RequestError` where no worker gets a place in time."""
        while True:
            calls = {call: worker for worker in workers for call in worker.pending}
            done, _ = self.ray.wait(list(calls), num_returns=1, timeout=_POLL_S)
            if found := [calls[call] for call in done if not calls[call].place()]:
                return found
            if any(worker.node for worker in workers):
                self.since = time.monotonic()
            elif time.monotonic() - self.since > START_S:
                free = self.ray.available_resources()
                known = ", ".join(f"{free.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
                rule = f"must have room for one worker within {START_S:.0f} s"
                raise RequestError(
                    self.address, rule, value=f"free: {known}", remedy="Wait for other jobs, or add nodes; then resume"
                )


# What runs on the nodes


def installation() -> dict[str, str]:
    """What must be the same on all nodes: Python, and limner down to its source files."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        folder = Path(str(import_module(package).__file__)).parent
        for path in sorted(folder.glob("*.py") if package == "limner" else folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "limner": f"{version('limner')}, sources {digest.hexdigest()[:12]}"}


def check_inputs(packed: bytes, folder: str) -> tuple[str, str] | None:
    """The first input that cannot be opened here or differs, with the reason. Relative paths are from `folder`."""
    _silence()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    sizes, remote = cast("tuple[dict[str, int], list[ImageInfo]]", pickle.loads(packed))  # noqa: S301 - from our driver
    for path, size in sizes.items():
        try:
            with Path(path).open("rb") as file:
                found = os.fstat(file.fileno()).st_size
        except OSError as error:
            return path, error.strerror or str(error)
        if found != size:
            return path, f"{found} bytes, here {size}"
    for info in remote:
        try:
            open_image(info).close()
        except LimnerError as error:
            return info.uri, error.value or str(error)
    return None


def _make_probe() -> Callable[..., tuple[dict[str, str], object]]:
    """A function that Ray sends as code, since a node may have no limner, or another one."""

    def probe(expected: dict[str, str], packed: bytes, folder: str) -> tuple[dict[str, str], object]:
        try:
            from limner.pipelines.run import ray_engine
        except ImportError:
            return {**expected, "limner": "none, or one without an engine for Ray"}, None
        found = ray_engine.installation()
        return found, ray_engine.check_inputs(packed, folder) if found == expected else None

    return probe


def _silence() -> None:
    """Drop what this process writes to its standard streams, which Ray keeps in files."""
    logging.lastResort = None  # as in `cli.terminal`
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)


class _Actor:
    """Runs a job on a node: reads in one thread and annotates in another, each one call at a time."""

    def __init__(self) -> None:
        _silence()
        self._reader, self._annotator = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._job: Job | None = None

    def node_id(self) -> tuple[str, str]:
        """Ray's name of the node."""
        ray: Any = import_module("ray")
        return "node", str(ray.get_runtime_context().get_node_id())

    def begin(self, job: Job, expected: dict[str, str], folder: str) -> tuple[str, Any]:
        """Begin the job. Relative paths are from `folder`, where it exists."""
        with contextlib.suppress(OSError):
            os.chdir(folder)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `execute.run`
        found = installation()
        if found != expected:
            remedy = "Install the same checkout on every node"
            error = RequestError("limner", "must be the same on all nodes", value=str(found), remedy=remedy)
            return "raised", error
        self._job = job
        return self._try("ready", lambda: self._annotator.submit(job.begin).result())

    def annotate(self, regions: Sequence[Region]) -> tuple[str, Any]:
        """The results of a batch."""
        job = cast("Job", self._job)

        def work() -> list[Result]:
            views = self._reader.submit(job.read, regions).result()
            return self._annotator.submit(job.annotate, views).result()

        return self._try("results", work)

    def _try(self, kind: str, work: Callable[[], object]) -> tuple[str, Any]:
        """What `work` returns or raises, as a value."""
        try:
            return kind, work()
        except LimnerError as error:
            return "raised", error
        except Exception:  # noqa: BLE001 - any bug is reported to the driver, which stops the run
            return "fault", traceback.format_exc()
