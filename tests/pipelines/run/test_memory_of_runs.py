"""The memory of whole runs: as a plan states it, within a quarter of what they take, and within the limit advised."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.processes import held_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has allocated"),
]

PLAN = """
import json, sys
from limner.pipelines.config import Settings
from limner.pipelines.run.estimate import estimate
from limner.pipelines.run.execute import prepare
prepared = prepare(Settings.resolve(json.loads(sys.argv[1]), source="the test"))
print(estimate(prepared, batch=1).run)
"""


def peak_of(words: list[str]) -> float:
    """The most bytes that the processes of a run hold at once."""
    run = subprocess.Popen([sys.executable, "-m", "limner", "run", *words], stderr=subprocess.DEVNULL)
    most = 0.0
    while run.poll() is None:
        most = max(most, held_bytes(run.pid))
        time.sleep(0.01)
    assert run.returncode == 0
    return most


CASES: dict[str, dict[str, Any]] = {
    "one small region": {"hd_num": 65},
    "many regions, no pictures": {"hd_num": 4, "reports": ["findings-csv"]},
    "two workers": {"hd_num": 16, "engine": "local", "workers": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_states_what_a_run_takes(
    case: str, tmp_path: Path, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> None:
    scene, card = make_scene(tmp_path / "scene.tif", width=1500, height=1300), make_card(tmp_path, tile=256)
    stated = {"inputs": [str(scene)], "model": str(card), **CASES[case]}
    told = subprocess.run([sys.executable, "-c", PLAN, json.dumps(stated)], capture_output=True, text=True, check=True)
    words = [str(scene), "--model", str(card), "--out", str(tmp_path / "out")]
    for name, value in CASES[case].items():
        words += [f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value)]
    assert 0.75 < float(told.stdout.splitlines()[-1]) / peak_of(words) < 1.25


@pytest.mark.parametrize("hd_num", [4, 65])
def test_the_limit_that_is_advised_is_kept(
    hd_num: int, tmp_path: Path, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> None:
    scene, card = make_scene(tmp_path / "scene.tif", width=3000, height=2600), make_card(tmp_path, tile=256)
    words = [str(scene), "--model", str(card), "--out", str(tmp_path / "out"), "--hd-num", str(hd_num)]
    command = [sys.executable, "-m", "limner", "run", *words, "--memory", "20MB"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert re.search(r"--memory must hold .*found: +20MB, where about \d+ MB are needed", refused.stderr, re.DOTALL)
    advised = re.search(r"Give --memory (\d+)MB, which", refused.stderr)
    assert advised
    assert peak_of([*words, "--memory", f"{advised[1]}MB"]) <= float(advised[1]) * 1e6
