"""Synthetic scenes and slides, a tiny network, and the command line in this process."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import yaml
from limner.pipelines.cli import main as cli


@dataclass(frozen=True)
class CommandOutput:
    """The output and exit code of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def limner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandOutput]:
    """Run the command line in this process."""

    def invoke(*words: object) -> CommandOutput:
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return CommandOutput(int(ended.value.code or 0), output.out, output.err)

    return invoke


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Path]:
    """Write a GeoTIFF with one band "red": bright blobs on dark ground, and no data in its upper left corner."""

    def make(
        path: Path, *, width: int = 150, height: int = 110, crs: str | None = "EPSG:32633", metres: float = 10.0
    ) -> Path:
        y, x = np.mgrid[0:height, 0:width]
        pixels = (1000 + 400 * np.sin(x / 9.0) * np.cos(y / 7.0) + 100 * np.sin(x / 2.0)).astype(np.uint16)
        pixels[(x < 40) & (y < 40)] = 0
        transform = rasterio.Affine(metres, 0.0, 500000.0, 0.0, -metres, 5200000.0)
        placed: dict[str, Any] = {} if crs is None else {"crs": crs}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=1,
            dtype="uint16",
            nodata=0,
            transform=transform,
            tiled=True,
            blockxsize=64,
            blockysize=64,
            **placed,
        ) as raster:
            raster.set_band_description(1, "red")  # before the pixels, so that the directory comes first in the file
            raster.write(pixels, 1)
        return path

    return make


@pytest.fixture(scope="session")
def make_card() -> Callable[..., Path]:
    """Write a network of one 3 × 3 convolution over the band "red", and its card: dark is ground, bright is "bright".

    Where the ground is brighter than a plane through its neighbours it is "ridge"; `ridge` has other weights for it.
    With `normalises`, each of the three is normalised over the tile.
    """
    onnx = pytest.importorskip("onnx", reason="networks for tests are written with the onnx package")

    plane = ((0, -1, 0), (-1, 4, -1), (0, -1, 0))

    def make(
        folder: Path, *, ridge: Sequence[Sequence[int]] = plane, normalises: bool = False, **changes: object
    ) -> Path:
        kernels = np.zeros((3, 1, 3, 3), dtype=np.float32)
        kernels[0, 0, 1, 1], kernels[1, 0, 1, 1] = -1.0, 1.0
        kernels[2, 0] = ridge
        shape = ["n", 1, "h", "w"]
        nodes = [onnx.helper.make_node("Conv", ["x", "k"], ["c" if normalises else "y"], pads=[1] * 4)]
        if normalises:
            nodes.append(onnx.helper.make_node("InstanceNormalization", ["c", "one", "zero"], ["y"]))
        graph = onnx.helper.make_graph(
            nodes,
            "toy",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [
                onnx.numpy_helper.from_array(kernels, "k"),
                onnx.numpy_helper.from_array(np.ones(3, dtype=np.float32), "one"),
                onnx.numpy_helper.from_array(np.zeros(3, dtype=np.float32), "zero"),
            ],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        content = model.SerializeToString()
        (folder / "toy.onnx").write_bytes(content)
        variant = {
            "name": "one-band",
            "weights": "toy.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bands": ["red"],
            "quantity": "number",
            "valid_range": [0, 10000],
            "mean": [1000.0],
            "std": [256.0],  # sums are exact in any order,
        }
        names = {"ground": "#000000", "bright": "#e69f00", "ridge": "#56b4e9"}
        card = {
            "name": "toy",
            "annotator": "segment",
            "summary": "Bright things and ridges.",
            "licence": "none",
            "citation": "none",
            "homepage": "none",
            "not_for": ["anything but tests"],
            "classes": [{"name": n, "colour": c, "background": n == "ground"} for n, c in names.items()],
            "resolution": {"value": 10, "unit": "m"},
            "tile": 32,
            "halo": 4,
            "fill": "mean",
            "layout": "NCHW",
            "output": "logits",
            "variants": [{**variant, **{k: v for k, v in changes.items() if k in variant}}],
        }
        path = folder / "toy.yaml"
        path.write_text(yaml.safe_dump({**card, **{k: v for k, v in changes.items() if k in card}}), encoding="utf-8")
        return path

    return make


@pytest.fixture
def scene(tmp_path: Path, make_scene: Callable[..., Path]) -> Path:
    """A scene of 150 × 110 pixels of 10 m."""
    return make_scene(tmp_path / "scene.tif")


@pytest.fixture
def card(tmp_path: Path, make_card: Callable[..., Path]) -> Path:
    """The toy card."""
    return make_card(tmp_path)


PAINTER = '''
import os, signal, time
from pathlib import Path
from limner.model.annotator import Answer, InputSpec
from limner.readers.errors import ModelError
from limner.readers.options import Options
from pydantic import Field


class Painter:
    """Sees RGB and says of each region where it is; `behaviour` is what it does otherwise."""

    class Options(Options):
        behaviour: str = Field("", description="What it does otherwise.")
        trigger: str = Field("", description="A file that only one can delete.")

    def __init__(self, options):
        self.options = options
        self.behaviour = options.behaviour
        self.identity = {"name": "painter", "version": "1", "behaviour": self.behaviour}
        self.labels = ()
        self.colours = {}

    def input_spec(self, info):
        return InputSpec(tile=32)

    def check(self, specs):
        pass

    def load(self):
        pass

    def annotate(self, views):
        if self.behaviour == "slow":
            time.sleep(0.5)
        if self.behaviour == "stubborn":
            try:
                time.sleep(60)
            except BaseException:
                time.sleep(60)
        if self.behaviour == "bug" and views[0].region.columns.start > 0:
            raise TypeError("painter spilled")
        if self.behaviour == "memory" and (len(views) > 1 or views[0].region.columns.start > 0):
            raise MemoryError
        if self.behaviour == "rogue":
            try:
                os.unlink(self.options.trigger)  # only one worker can
            except FileNotFoundError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return [[Answer("picture", None, "region", text=f"of {view.tiles.dtype}")] for view in views]
'''


@pytest.fixture
def painter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An annotator of a package that is installed, as far as Python can tell, in this process and its children."""
    site = tmp_path / "site"
    (site / "painter-1.0.dist-info").mkdir(parents=True)
    (site / "painter_of_tests.py").write_text(PAINTER)
    (site / "painter-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: painter\nVersion: 1.0\n")
    points = "[limner.annotators]\npainter = painter_of_tests:Painter\n"
    (site / "painter-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    sys.modules.pop("painter_of_tests", None)
    return "painter"


ANNOTATOR = '''
from limner.model.annotator import Answer, InputSpec
from shapely import box


class PerTile:
    """Says of each tile how bright it is."""

    identity = {"name": "per-tile", "version": "1"}
    labels = ("seen",)
    colours = {}

    def input_spec(self, info):
        return InputSpec(tile=16)

    def check(self, specs):
        pass

    def load(self):
        pass

    def annotate(self, views):
        return [self._answers(view) for view in views]

    def _answers(self, view):
        return [
            Answer("seen", box(*place), "tile", score=round(float(tile.mean()) / 255, 6))
            for tile, place in zip(view.tiles, view.grid.boxes())
            if view.keep_mask[place[1] : place[3], place[0] : place[2]].any()
        ]
'''


@pytest.fixture
def per_tile(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an annotator that a package outside of limner brings; also for processes started from here."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "per_tile_plugin.py").write_text(ANNOTATOR)
    about = folder / "per_tile_plugin-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: per-tile-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[limner.annotators]\nper-tile = per_tile_plugin:PerTile\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "per-tile"


@pytest.fixture(scope="session")
def make_slide() -> Callable[..., Path]:
    """Write a pyramidal TIFF: stained tissue (a pink disc with bright holes) on glass, 0.5 µm a pixel if so wished."""

    def make(path: Path, *, side: int = 640, microns: float | None = 0.5, description: str = "") -> Path:
        y, x = np.mgrid[0:side, 0:side]
        pixels = np.full((side, side, 3), 244, dtype=np.uint8)
        tissue = (x - side * 0.45) ** 2 + (y - side * 0.5) ** 2 < (side * 0.3) ** 2
        pixels[tissue] = (200, 120, 170)
        pixels[tissue & ((x // 24 + y // 40) % 3 == 0)] = (110, 60, 140)
        pixels[tissue & ((x // 48 + y // 16) % 5 == 0)] = (235, 200, 225)
        resolution = {} if microns is None else {"resolution": (1e4 / microns,) * 2, "resolutionunit": "CENTIMETER"}
        with tifffile.TiffWriter(path) as tiff:
            common = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
            tiff.write(pixels, subifds=1, description=description or None, **common, **resolution)
            tiff.write(pixels[::2, ::2], subfiletype=1, **common)
        return path

    return make


@pytest.fixture(scope="session")
def slide_card(make_card: Callable[..., Path]) -> Callable[[Path], Path]:
    """Write the toy card for slides: the red of 8 bits, seen at 1 µm a pixel."""

    def make(folder: Path) -> Path:
        size = {"value": 1.0, "unit": "um"}
        return make_card(folder, resolution=size, mean=[160.0], std=[32.0], valid_range=[0, 255])

    return make


@pytest.fixture(scope="session")
def left_of_group() -> Callable[[int], list[int]]:
    """The processes of a group that are alive 5 s after its leader has ended: multiprocessing's helper ends later."""

    def members(group: int) -> list[int]:
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, own = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(own) == group and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def left(group: int) -> list[int]:
        for _ in range(100):
            if not members(group):
                return []
            time.sleep(0.05)
        return members(group)

    return left
