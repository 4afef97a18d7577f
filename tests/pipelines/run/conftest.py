"""A Ray cluster of two nodes on this machine, for the tests that need one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on the loopback interface only; read when ray is imported
    "RAY_AUTH_MODE": "disabled",  # without a token in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
}
_SOON_DEAD = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 700, "health_check_failure_threshold": 3}


class RayCluster:
    """Two nodes of one processor each, and those that are added."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.environment = {**_ENVIRONMENT, "RAY_TMPDIR": str(folder)}
        """Of its processes, and of those that connect to it."""
        self.folder = folder
        """Of logs and sockets."""
        head = {**_NODE, "include_dashboard": False, "_system_config": _SOON_DEAD}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self._cluster.add_node(**_NODE)

    @contextlib.contextmanager
    def further_node(self, **environment: str) -> Iterator[int]:
        """A node whose processes have these environment variables; gives the process id of its raylet."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            node = self._cluster.add_node(**_NODE)
        try:
            yield node.all_processes["raylet"][0].process.pid
        finally:
            self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


_PROBE = """
import ray
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
class Actor:
    def answer(self):
        return 42
assert ray.get(ray.remote(Actor).remote().answer.remote(), timeout=60) == 42
ray.shutdown()
"""
_PROBE_S = 100.0  # it takes five


@pytest.fixture(scope="session")
def ray_starts() -> None:
    """Skips where Ray is absent or does not work: in some sandboxes its processes wait for each other for ever."""
    if find_spec("ray") is None:
        pytest.skip("the package ray is not installed")
    folder = Path(tempfile.mkdtemp(prefix="limner-"))
    environment = {**os.environ, **_ENVIRONMENT, "RAY_TMPDIR": str(folder)}
    probe = subprocess.Popen(
        [sys.executable, "-c", _PROBE],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = probe.wait(_PROBE_S)
    except subprocess.TimeoutExpired:
        code = None
    with contextlib.suppress(ProcessLookupError, AttributeError):
        os.killpg(probe.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    if code != 0:
        problem = f"no answer in {_PROBE_S:.0f} s" if code is None else f"exit code {code}"
        pytest.skip(f"Ray does not work on this machine: {problem}")


@pytest.fixture(scope="session")
def ray_cluster(ray_starts: None) -> Iterator[RayCluster]:
    """A running cluster."""
    del ray_starts
    folder = Path(tempfile.mkdtemp(prefix="limner-"))  # short: sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**_ENVIRONMENT, "RAY_TMPDIR": str(folder)}.items():
            patch.setenv(name, value)
        (folder / "ray").mkdir()
        cluster = RayCluster(folder)
        try:
            yield cluster
        finally:
            cluster.close()
            shutil.rmtree(folder, ignore_errors=True)
