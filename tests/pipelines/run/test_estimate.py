"""Estimates of memory and time, and the limits of timing."""

import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from limner.model.annotator import InputSpec
from limner.model.clip.annotator import ZeroShot
from limner.model.huggingface.annotator import Transformers
from limner.model.vlm.fourkhd.annotator import FourKhdAnnotator
from limner.model.vlm.transformers_backend import TransformersVlmAnnotator
from limner.pipelines.plan_text import cluster_text
from limner.pipelines.run import estimate
from limner.pipelines.run.estimate import middle_tile
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
GIB = 2**30
RUN = """
import atexit, re, sys
from limner.pipelines.cli import main as cli
from limner.pipelines.run import estimate

atexit.register(lambda: sys.stderr.write(re.search("VmHWM.*", open("/proc/self/status").read())[0]))

estimate.free_memory = lambda: 8.0 * 2**30
cli.main()
"""


PLANNED = """
import sys
from limner.pipelines.config import Settings
from limner.pipelines.run.execute import prepare
from limner.pipelines.run.processes import held_bytes
from limner.readers.files import parse_fields
from pathlib import Path
import os

prepare(Settings.resolve({"inputs": [sys.argv[1]], "model": sys.argv[2]}, source="a test"))
fields = parse_fields(Path("/proc/self/status"))
print(fields["VmHWM"] - fields["RssFile"] - fields["RssAnon"] + held_bytes(os.getpid()))
"""


def save_holes(path: Path, shapes: dict[str, list[int]], kind: str, itemsize: int) -> None:
    """A safetensors file with a true header and nothing behind it: it takes no room on the disk, and reads as zeros."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A map in colour, 1700 × 1700 pixels of 10 m."""
    path = tmp_path / "colours.tif"
    pixels = np.random.default_rng(5).integers(0, 256, (3, 170, 170), dtype=np.uint8).repeat(10, 1).repeat(10, 2)
    shape = {"width": 1700, "height": 1700, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    transform = rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=transform, **shape) as raster:
        raster.write(pixels)
    return path


@pytest.fixture
def full_size(root: Path, tmp_path: Path, small_tokenizer: Path) -> Path:
    """A checkpoint of the released 7B's names and shapes, in bfloat16, without its numbers."""
    folder = tmp_path / "7b"
    folder.mkdir()
    keys = json.loads((root / "tests/golden/4khd/expected_checkpoint_keys.json").read_text())["keys"]
    save_holes(folder / "model.safetensors", keys, "BF16", 2)
    sizes = {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768}
    (folder / "config.json").write_text(json.dumps({"model_type": "internlmxcomposer2", **sizes}))
    (folder / "tokenizer.model").write_bytes(small_tokenizer.read_bytes())
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process held is asked of /proc")
@pytest.mark.parametrize(
    ("option", "weights", "most"),
    [
        ("dtype=", "weights in float32 32.0 GiB", 37),  # on a processor
        ("dtype=float32", "weights in float32 32.0 GiB", 37),
        ("dtype=bfloat16", "weights in bfloat16 16.0 GiB", 19),
        ("quantize=4bit", "weights in 4 bits and float32 9.4 GiB", 14),
        ("quantize=8bit", "weights in 8 bits and float32 12.5 GiB", 17),
    ],
)
def test_the_7b_is_planned_in_little_memory(
    option: str, weights: str, most: float, full_size: Path, colours: Path
) -> None:
    assert full_size.stat().st_size < GIB
    words = ["plan", colours, "--model", f"4khd:{full_size}", "--labels", "ship,quay", "--hd-num", 25]
    words += ["--set", "model_options.device=cpu", "--set", f"model_options.{option}"]
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.rpartition("VmHWM:")[2].split()[0]) * 1024 < 0.55 * GIB
    assert weights in done.stdout
    [memory] = [line for line in done.stdout.splitlines() if line.startswith("memory per worker")]
    needed = float(memory.split("about ")[1].split(" GiB")[0])
    assert most - 4 < needed < most
    assert (
        f"cannot be measured. It needs about {needed} GiB of memory, but 8.0 GiB are free, of which 1.0" in done.stdout
    )
    [tokens] = [line for line in done.stdout.splitlines() if line.startswith("tokens per region")]
    visual = 12 * 13 + 1 + 60 * 61
    assert f": picture {visual}, question" in tokens
    assert visual < int(tokens.split("up to ")[1].split(":")[0]) < visual + 2000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process held is asked of /proc")
def test_a_plan_states_what_a_run_holds_while_it_plans(
    scene: Path, make_card: Callable[..., Path], tmp_path: Path
) -> None:
    """The network normalises over a tile, so that planning runs it on the picture."""
    card = make_card(tmp_path, normalises=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "plan", str(scene), "--model", str(card)],
        capture_output=True,
        text=True,
        check=False,
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("memory for planning")]
    planned = subprocess.run(
        [sys.executable, "-c", PLANNED, str(scene), str(card)], capture_output=True, text=True, check=False
    )
    held = float(planned.stdout) / 2**20
    assert 0.75 < float(line.split()[3]) / held < 1.25


def test_the_estimate_is_printed_before_timing(
    colours: Path, made_4khd: Path, limner: Limner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def tried(*_: object, **__: object) -> Any:
        seen.append(capsys.readouterr().out)
        msg = "as far as this test goes"
        raise RuntimeError(msg)

    monkeypatch.setattr(estimate, "try_region", tried)
    output = limner("plan", colours, "--model", f"4khd:{made_4khd}", "--labels", "cat,dog")
    assert "as far as this test goes" in output.err
    assert "memory per worker" in seen[0]
    assert "time" not in seen[0].splitlines()[-1]


TRIED = """
import os, signal, time
from limner.model.annotator import Answer, InputSpec
from limner.readers.options import Options
from pydantic import Field


class TriedOptions(Options):
    behaviour: str = Field("", description="How it misbehaves.")


class Tried:
    Options = TriedOptions
    identity = {"name": "tried", "version": "1"}
    labels = ("seen",)
    colours = {}

    def __init__(self, options):
        self.behaviour, self.held = options.behaviour, []

    def input_spec(self, info):
        return InputSpec(tile=64)

    def check(self, specs):
        pass

    def load(self):
        if self.behaviour == "load":
            raise MemoryError("DefaultCPUAllocator")

    def annotate(self, views):
        assert all(len(view.tiles) == 1 for view in views)
        if self.behaviour == "sleep":
            time.sleep(600)
        if self.behaviour == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.behaviour == "eat":
            self.held.append(bytearray(os.urandom(2**20)) * 32)
            time.sleep(0.05)
        time.sleep(0.2)
        return [[] for _ in views]
"""


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An annotator of a package outside of limner that misbehaves as its options ask."""
    folder = tmp_path / "plugin"
    about = folder / "tried_plugin-1.dist-info"
    about.mkdir(parents=True)
    (folder / "tried_plugin.py").write_text(TRIED)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tried-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[limner.annotators]\ntried = tried_plugin:Tried\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "tried"


@pytest.mark.parametrize(
    ("behaviour", "output"),
    [
        ("", "extrapolated from one tile of colours/"),
        ("sleep", "cannot be measured. One tile was not finished within 15 s"),
        ("die", "cannot be measured. The process that tried it died (killed by SIGKILL"),
        ("eat", "cannot be measured. It took more than 0.8 GiB of memory and was stopped"),
        ("load", "cannot be measured. the model must fit into memory (found: DefaultCPUAllocator)"),
    ],
)
def test_timing_has_limits_of_time_and_memory(
    behaviour: str, output: str, colours: Path, tried: str, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "LIMIT_S", 15.0 if behaviour == "sleep" else 120.0)
    monkeypatch.setattr(estimate, "free_memory", lambda: 1.8 * GIB)
    done = limner("plan", colours, "--model", tried, "--set", f"model_options.behaviour={behaviour}", "--hd-num", 4)
    assert done.code == 0, done.err
    assert "memory per worker" in done.out
    assert output in done.out, done.out
    if not behaviour:
        [time] = [line for line in done.out.splitlines() if line.startswith("time")]
        tiles = math.ceil(1700 / 64) ** 2
        assert 0.15 * tiles < float(time.split("about ")[1].split()[0]) * (60 if " min" in time else 1) < 0.6 * tiles


def test_a_cluster_waits_for_planning_and_for_its_last_regions() -> None:
    timing = estimate.Timing(6000.0, "measured", loading=20.0)
    text = cluster_text(timing, machines=4, pieces=18, planning=40.0)  # 24,000 s of one machine
    *rows, waiting = text.splitlines()
    assert rows == [
        "machines like this one  time    of all together",
        "1                       6.7 h   6.7 h",
        "4                       1.9 h   7.5 h",  # five rounds of 1333 s, and a minute
        "16                      45 min  12.1 h",
    ]
    assert waiting.startswith("With 40 s of planning and 20 s of loading the model, which all wait for.")


@pytest.mark.parametrize("words", [(), ("--engine", "ray", "--workers", 4)], ids=["one", "four"])
def test_a_plan_tells_the_time_of_clusters(
    words: tuple[object, ...], colours: Path, tried: str, limner: Limner
) -> None:
    done = limner("plan", colours, "--model", tried, "--hd-num", 4, "--cluster", *words)
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.partition("machines like this one")[2].splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["1", "4", "16", "64"]  # of 196 regions
    assert rows[0][1:3] == rows[0][3:5]
    assert 2 <= int(rows[0][1]) <= 7, "minutes of 729 tiles of 0.2 s, on a machine that may be busy"


def test_an_invalid_request_is_refused_before_anything_is_printed(
    colours: Path, zoo_folder: Callable[[str], Path], limner: Limner
) -> None:
    output = limner("plan", colours, "--model", f"transformers:{zoo_folder('owlvit')}")
    assert output.code == 2
    assert output.out == ""
    assert "must name what to look for" in output.err


def inner(one: object, *names: str) -> Any:
    """What an object holds under a private name, and what that holds, and so on."""
    for name in names:
        one = getattr(one, name)
    return one


def parameters(module: torch.nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in module.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_estimated_weights_match_the_loaded_network(
    dtype: str,
    made_4khd: Path,
    made_vlms: Callable[[str], Path],
    made_checkpoints: Path,
    zoo_folder: Callable[[str], Path],
) -> None:
    options = {"labels": "ship,crane", "device": "cpu", "dtype": dtype}
    asked: Any = make_plugin(FourKhdAnnotator, {"checkpoint": str(made_4khd), **options})
    asked.load()
    assert asked.cost([], (2, 2)).weights == parameters(inner(asked, "_backend", "_generator", "_network"))
    for family in ("internvl", "qwen2_5_vl", "llava"):
        asked = make_plugin(TransformersVlmAnnotator, {"checkpoint": str(made_vlms(family)), **options})
        cost = asked.cost([], (2, 2))
        asked.load()
        network = inner(asked, "_backend", "_model")
        assert cost.weights == parameters(inner(network, "_model"))
        side = 2 * inner(asked, "_backend").input_spec().tile
        read = inner(network, "_read")([np.zeros((side, side, 3), dtype=np.uint8)], "what", room=1)
        assert cost.tokens >= read["input_ids"].shape[1]
        assert cost.cache > 0
    if dtype == "float32":
        one: Any = make_plugin(ZeroShot, {"checkpoint": str(made_checkpoints / "clip"), "labels": "cat,dog"})
        one.load()
        assert one.cost([InputSpec(tile=32)], (2, 2)).weights == parameters(inner(one, "_loaded", "_model"))
        other: Any = make_plugin(Transformers, {"checkpoint": str(zoo_folder("vit"))})
        other.load()
        assert other.cost([], (2, 2)).weights == parameters(inner(other, "_network", "_model"))


def test_estimated_quantised_weights_match_the_loaded_network(made_4khd: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="an extra")
    for how in ("4bit", "8bit"):
        asked: Any = make_plugin(
            FourKhdAnnotator, {"checkpoint": str(made_4khd), "labels": "a,b", "device": "cpu", "quantize": how}
        )
        asked.load()
        held = 0
        for module in inner(asked, "_backend", "_generator", "_network").modules():
            for weight in inner(module, "_parameters").values():
                if weight is not None:
                    state = getattr(weight, "quant_state", None)
                    scales = [] if state is None else [state.absmax, state.state2.absmax]
                    scales += [weight.SCB] if getattr(weight, "SCB", None) is not None else []
                    held += sum(one.numel() * one.element_size() for one in (weight, *scales))
        assert asked.cost([], (2, 2)).weights == pytest.approx(held, rel=0.01)


def test_the_middle_tile_of_a_region_is_its_own_region() -> None:
    for halo in (0, 4):
        for region in cut_regions(Grid("image", (150, 110), (2.0, 2.0)), tile=32, halo=halo, hd_num=9):
            one = middle_tile(region, InputSpec(tile=32, halo=halo))
            assert one.tiles == (1, 1)
            assert one.size == (32, 32)
            for whole, part in ((region.columns, one.columns), (region.rows, one.rows)):
                assert whole.start <= part.start < part.stop <= whole.stop
                assert whole.core_start <= part.core_start < part.core_stop <= whole.core_stop
                assert part.start <= part.core_start < part.core_stop <= part.stop


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_respects_control_groups(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_CGROUPS", tmp_path)
    monkeypatch.setattr(estimate, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text({1: "4:memory:/job/step\n1:cpu:/\n", 2: "0::/job/step\n"}[version])
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    job = (tmp_path / "memory" if version == 1 else tmp_path) / "job"
    (job / "step").mkdir(parents=True)
    for folder, limit in ((job, str(300 * 2**20)), (job / "step", {1: str(2**63), 2: "max"}[version])):
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(f"{200 * 2**20}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {50 * 2**20}\n")
    assert estimate.free_memory() == 150 * 2**20
