"""Each worker process loads its networks once, and the planning process loads none."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.model.checkpoints import weights
from limner.pipelines.run import estimate
from limner.pipelines.run import execute as running
from rasterio.enums import ColorInterp

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

WATCH = '''
"""Writes a line for each network that is made: the process, what it is, and how many networks are alive then."""

import gc, importlib, os, weakref
from dataclasses import dataclass
from pathlib import Path
from limner.pipelines.run.worker import RegionJob

NETWORKS = {
    "limner.model.vlm.image_text": ["ImageTextModel"],
    "limner.model.clip.network": ["ClipImageEncoder"],
    "limner.model.vlm.fourkhd.network": ["FourKhd"],
    "limner.model.checkpoints.onnx": ["OnnxNetwork"],
    "limner.model.probe.vision_backbones": ["Backbone"],
    "limner.model.huggingface.networks": ["TransformersNetwork"],
    "limner.model.classification.wsinfer": ["TorchScript"],
    "limner.model.volume.unet": ["UNet"],
}
made = []
kept = []


def alive():
    gc.collect()
    return sum(one() is not None for one in made)


def watch(log):
    if kept:
        return
    for module, names in NETWORKS.items():
        for name in names:
            kind = getattr(importlib.import_module(module), name)
            kept.append((kind, kind.__init__))
            kind.__init__ = counted(kind.__init__, f"{module}:{name}", log)


def counted(begin, name, log):
    def init(self, *args, **options):
        begin(self, *args, **options)
        if "volume" in name and all(one.is_meta for one in self.parameters()):
            return  # made to compare shapes
        made.append(weakref.ref(self))
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {name} {alive()}\\n")

    return init


def unwatch():
    while kept:
        kind, begin = kept.pop()
        kind.__init__ = begin
    made.clear()


@dataclass
class WatchedJob(RegionJob):
    log: str = ""

    def begin(self):
        watch(self.log)
        super().begin()
'''


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map in colour, of 256 × 256 pixels of 1 m and 8 bits."""
    path = tmp_path_factory.mktemp("map") / "colours.tif"
    pixels = np.random.default_rng(5).integers(1, 256, (3, 256, 256), dtype=np.uint8)
    shape = {"width": 256, "height": 256, "count": 3, "dtype": "uint8"}
    transform = rasterio.Affine(1.0, 0.0, 500000.0, 0.0, -1.0, 5200000.0)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=transform, **shape) as raster:
        raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        raster.write(pixels)
    return path


@pytest.fixture
def stack(tmp_path: Path, making: ModuleType) -> Path:
    """A stack of CT with voxels of 1 mm."""
    return making.save_all(making.slices(9, step=1.0, PixelSpacing=[1.0, 1.0]), tmp_path / "ct")


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Watches networks in this process and in those that work for it: `loads()` is [(process, name, alive), …]."""
    (tmp_path / "watching_networks.py").write_text(WATCH)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("watching_networks", None)
    watching: Any = import_module("watching_networks")
    log = tmp_path / "loads.txt"
    log.touch()
    watching.watch(str(log))

    def of(*parts: Any, **options: Any) -> Any:
        job = watching.WatchedJob.of(*parts, **options)
        job.log = str(log)
        return job

    monkeypatch.setattr(running, "RegionJob", SimpleNamespace(of=of))
    lines = lambda: [line.split() for line in log.read_text().splitlines()]  # noqa: E731 - short
    yield SimpleNamespace(
        loads=lambda: [(int(process), name, int(alive)) for process, name, alive in lines()], alive=watching.alive
    )
    watching.unwatch()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outlines of two classes on the map."""
    import json

    from pyproj import Transformer

    place = Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True)
    features = []
    for x, y, label in ((0, 0, "a"), (128, 0, "b"), (0, 128, "b"), (128, 128, "a")):
        corners = [(x, y), (x + 128, y), (x + 128, y + 128), (x, y + 128), (x, y)]
        ring = [list(place.transform(500000 + a, 5200000 - b)) for a, b in corners]
        shape = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"label": label}, "geometry": shape})
    path = tmp_path_factory.mktemp("labels") / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def train(limner: Limner, colours: Path, taught: Path, encoder: str, out: Path) -> None:
    words = ("--labels", taught, "--encoder", encoder, "--folds", 3, "--block", "64px", "--out", out)
    output = limner("train", "probe", colours, *words)
    assert output.code == 0, output.err


def options(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", f"model_options.{pair}")]


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[str]]:
    """The arguments to annotate with one of `MODELS`, each a tiny one."""

    def get(name: str) -> Any:
        return request.getfixturevalue(name)

    def openclip() -> Path:
        folder = tmp_path / "open"
        folder.mkdir()
        get("zoo").openclip(folder)
        return folder

    def probe(encoder: str) -> Path:
        train(get("limner"), get("colours"), get("taught"), encoder, tmp_path / "probe")
        return tmp_path / "probe"

    def card() -> Path:
        size = {"value": 1.0, "unit": "m"}
        return get("make_card")(tmp_path, resolution=size, mean=[160.0], std=[32.0], valid_range=[0, 255])

    two = ["--labels", "cat,dog"]
    output: dict[str, Callable[[], list[str]]] = {
        "4khd": lambda: [f"4khd:{get('made_4khd')}", *two],
        "deepness": lambda: [f"deepness:{get('zoo').segmentor(tmp_path / 'a.onnx', resolution=100)}"],
        "encoder": lambda: [f"encoder:{get('zoo_folder')('vit')}"],
        "endpoint": lambda: [f"endpoint:{get('model_server').url}", *options("served=seer", "tile=64")],
        "probe 4khd": lambda: [f"probe:{probe('4khd:' + str(get('made_4khd')))}"],
        "probe clip": lambda: [f"probe:{probe(str(get('made_checkpoints') / 'clip'))}"],
        "probe vit": lambda: [f"probe:{probe(str(get('zoo_folder')('vit')))}"],
        "segment": lambda: [str(card())],
        "threshold": lambda: ["threshold:red"],
        **{
            f"transformers {name}": lambda name=name: [f"transformers:{get('zoo_folder')(name)}"]
            for name in ("detr", "oneformer", "segformer", "vit")
        },
        "transformers owlvit": lambda: [f"transformers:{get('zoo_folder')('owlvit')}", *two],
        "vlm internvl": lambda: [f"vlm:{get('made_vlms')('internvl')}", *two, *options("tile=56", "device=cpu")],
        "volume": lambda: [f"volume:{get('make_nnunet')(tmp_path / 'Dataset001_Bright')}"],
        "wsinfer": lambda: [f"wsinfer:{get('zoo').wsinfer(tmp_path / 'zoo', spacing_um_px=1e6)}"],
        "zero-shot clip": lambda: [f"zero-shot:{get('made_checkpoints') / 'clip'}", *two],
        "zero-shot openclip": lambda: [f"zero-shot:{openclip()}", *two],
    }
    return lambda name: ["--model", *output[name]()]


MODELS = {
    "4khd": "fourkhd",
    "deepness": "onnx",
    "encoder": "vision_backbones",
    "endpoint": "",
    "probe 4khd": "fourkhd",
    "probe clip": "clip.network",
    "probe vit": "vision_backbones",
    "segment": "onnx",
    "threshold": "",
    "transformers detr": "huggingface.networks",
    "transformers oneformer": "huggingface.networks",
    "transformers owlvit": "huggingface.networks",
    "transformers segformer": "huggingface.networks",
    "transformers vit": "huggingface.networks",
    "vlm internvl": "image_text",
    "volume": "volume.unet",
    "wsinfer": "wsinfer",
    "zero-shot clip": "clip.network",
    "zero-shot openclip": "clip.network",
}
"""Annotator and kind of model → where its network is made."""

FITTED = {"transformers oneformer"}
"""Those that normalise over a tile: the process that plans loads them once more, to fit them to the image."""


def test_every_annotator_is_counted() -> None:
    points = entry_points(group="limner.annotators")
    ours = {point.name for point in points if point.value.startswith("limner.")}  # other tests install plug-ins
    assert {name.partition(" ")[0] for name in MODELS} == ours


@pytest.mark.parametrize("engine", ["inline", "local", "plan"])
@pytest.mark.parametrize("name", MODELS)
def test_a_network_is_loaded_once_where_it_annotates(
    name: str,
    engine: str,
    model: Callable[[str], list[str]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    colours: Path,
    limner: Limner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = request.getfixturevalue("stack") if name == "volume" else colours
    words = [image, *model(name), "--hd-num", "4"]
    watched = request.getfixturevalue("watched")  # after a probe was trained
    if engine == "plan":
        monkeypatch.setattr(estimate, "free_memory", lambda: 0.0)  # so that nothing is timed
        output = limner("plan", *words)
        assert output.code == 0, output.err
        assert "cannot be measured" in output.out
        assert len(watched.loads()) == (name in FITTED)
        return
    output = limner("run", *words, "--engine", engine, "--workers", "1", "--out", tmp_path / "out")
    assert output.code == 0, output.err
    loads = watched.loads()
    if not MODELS[name]:
        assert loads == []
        return
    assert [(process, alive) for process, _, alive in loads[:-1]] == [(os.getpid(), 1)] * (name in FITTED), loads
    process, what, alive = loads[-1]
    assert MODELS[name] in what
    assert alive == 1
    assert (process == os.getpid()) == (engine == "inline")
    assert watched.alive() == 0, "what the run loaded is let go when it ends"


@pytest.mark.parametrize("encoder", ["clip", "vit", "4khd"])
def test_training_a_probe_loads_its_encoder_once(
    encoder: str, request: pytest.FixtureRequest, tmp_path: Path, colours: Path, taught: Path, limner: Limner
) -> None:
    found = {
        "clip": lambda: request.getfixturevalue("made_checkpoints") / "clip",
        "vit": lambda: request.getfixturevalue("zoo_folder")("vit"),
        "4khd": lambda: f"4khd:{request.getfixturevalue('made_4khd')}",
    }[encoder]()
    watched = request.getfixturevalue("watched")
    train(limner, colours, taught, str(found), tmp_path / "probe")
    assert [alive for _, _, alive in watched.loads()] == [1]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_another_process_hashes_no_checkpoint_again(
    command: str,
    tmp_path: Path,
    colours: Path,
    made_checkpoints: Path,
    limner: Limner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with the 16 GB of a released checkpoint: a plan and a run read each weight once in all."""
    read: list[str] = []
    digest = weights.hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        read.append(Path(str(file.name)).name)
        return digest(file, name)

    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "LARGE", 1000)
    monkeypatch.setattr(weights.hashlib, "file_digest", counted)
    monkeypatch.setattr(estimate, "free_memory", lambda: 0.0)  # so that nothing is timed
    words = ("--model", f"zero-shot:{made_checkpoints / 'clip'}", "--labels", "cat,dog", "--hd-num", 1)
    for name in ("one", "two"):
        monkeypatch.setattr(weights, "_hashes", {})  # as in another process
        out = ("--out", tmp_path / name) if command == "run" else ()
        assert limner(command, colours, *words, *out).code == 0
    assert read.count("model.safetensors") == (command == "run")


def test_files_are_hashed_once_however_many_annotators_are_made(
    tmp_path: Path, colours: Path, made_checkpoints: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = weights.hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        read.append(Path(str(file.name)).name)
        return digest(file, name)

    monkeypatch.setattr(weights, "_hashes", {})
    monkeypatch.setattr(weights.hashlib, "file_digest", counted)
    words = ("--model", f"zero-shot:{made_checkpoints / 'clip'}", "--labels", "cat,dog", "--hd-num", 1)
    for name in ("one", "two"):
        assert limner("run", colours, *words, "--out", tmp_path / name).code == 0
    assert read.count("model.safetensors") == 1
    one, two = (tmp_path / "a", tmp_path / "b")
    for path, content in ((one, b"a"), (two, b"b")):
        path.write_bytes(content)
    before = weights.sha256_of(one)
    two.replace(one)
    assert weights.sha256_of(one) != before
    assert gc.isenabled()
