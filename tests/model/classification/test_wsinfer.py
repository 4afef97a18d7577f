"""The WSInfer model zoo's format."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from limner.model.annotator import View
from limner.model.classification.wsinfer import TorchScript, WSInfer
from limner.model.tiling import TileGrid
from limner.readers.errors import ModelError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions
from PIL import Image


def slide(dtype: str = "uint8", names: tuple[str | None, ...] = ("red", "green", "blue")) -> ImageInfo:
    channels = tuple(Channel(f"c{i}", name, dtype) for i, name in enumerate(names))
    return ImageInfo("slide", "slide", (100, 80), channels, Placement.pixels(), id="slide")


def test_preprocessing_equals_wsinfer(zoo: ModuleType, tmp_path: Path) -> None:
    one = make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "zoo")), "threads": "1"})
    spec = one.input_spec(slide())
    assert (spec.tile, spec.resolution, spec.unit, spec.bands, spec.halo) == (40, 1.0, "um", None, 0)
    pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    (region,) = cut_regions(Grid("slide", (40, 40), (1.0, 1.0)), tile=40)
    grid = TileGrid.exact(1, 1, tile=40)
    everywhere = np.ones((40, 40), dtype=np.bool_)
    view = View(region, spec, grid, pixels[None], everywhere[None], everywhere)
    one.check([spec])
    [[answer]] = one.annotate([view])
    # Resize, ToTensor and Normalize by their definitions
    shown = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    values = ((shown - [0.5, 0.4, 0.6]) / [0.2, 0.25, 0.2]).mean(axis=(0, 1))
    logits = np.array([6 * (values[2] - values[0]), 6 * (values[0] - values[1]), 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    found = [answer.numbers[f"p.{label}"] for label in ("nuclei", "stroma", "glass")]
    assert found == pytest.approx(expected, abs=1e-4)
    assert answer.kind == "tile"
    assert answer.label == ("nuclei", "stroma", "glass")[int(expected.argmax())]


def test_one_class_is_a_sigmoid(zoo: ModuleType, tmp_path: Path) -> None:
    folder = zoo.wsinfer(tmp_path / "one", classes=1)
    script = TorchScript(folder / "torchscript_model.pt", 1)
    tile = np.zeros((8, 8, 3), dtype=np.uint8)
    tile[..., 2] = 51
    assert script(tile, mean=(0, 0, 0), std=(1, 1, 1)) == pytest.approx(1 / (1 + np.exp(-1.2)))
    first = script(tile, mean=(0, 0, 0), std=(1, 1, 1))
    assert all((script(tile, mean=(0, 0, 0), std=(1, 1, 1)) == first).all() for _ in range(5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec_version": "2.0"}, "spec_version"),
        ({"class_names": ["a", "a", "b"]}, "class_names"),
        ({"num_classes": 2}, "num_classes"),
        ({"patch_size_pixels": 0}, "patch_size_pixels"),
        ({"patch_size_pixels": None}, "patch_size_pixels"),
        ({"spacing_um_px": -1}, "spacing_um_px"),
        ({"transform": [{"name": "CenterCrop"}, {"name": "ToTensor"}]}, "transform"),
        ({"transform": [{"name": "Normalize"}, {"name": "ToTensor"}]}, "transform"),
        ({"transform": [{"name": "ToTensor"}, {"name": "Normalize", "arguments": {"mean": [0.5]}}]}, "Normalize"),
        ({"transform": [{"name": "Resize", "arguments": {"size": [3, 4]}}, {"name": "ToTensor"}]}, "Resize"),
    ],
)
def test_invalid_configurations_are_named(
    changes: dict[str, object], words: str, zoo: ModuleType, tmp_path: Path
) -> None:
    one = make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "bad", **changes))})
    with pytest.raises(ModelError, match=words):
        one.input_spec(slide())


def test_resize_may_be_absent_or_give_two_sides(zoo: ModuleType, tmp_path: Path) -> None:
    bare = make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "bare", transform=[{"name": "ToTensor"}]))})
    assert "shown at 40 px; mean 0, 0, 0; std 1, 1, 1" in bare.identity["preprocessing"]
    steps = [{"name": "Resize", "arguments": {"size": [56, 56]}}, {"name": "ToTensor"}]
    twice = make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "twice", transform=steps))})
    assert "shown at 56 px" in twice.identity["preprocessing"]


@pytest.mark.parametrize("info", [slide("uint16"), slide(names=(None,)), slide(names=("red", "green", "nir"))])
def test_other_channels_are_refused(info: ImageInfo, zoo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="red, green and blue of 8 bits"):
        make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "zoo"))}).input_spec(info)


def test_invalid_scripts_are_refused(zoo: ModuleType, tmp_path: Path) -> None:
    folder = zoo.wsinfer(tmp_path / "zoo")
    script = folder / "torchscript_model.pt"
    with pytest.raises(ModelError, match="2 numbers a tile"):
        TorchScript(script, 2)(np.zeros((8, 8, 3), dtype=np.uint8), mean=(0, 0, 0), std=(1, 1, 1))
    script.write_bytes(script.read_bytes()[:100])
    with pytest.raises(ModelError, match="must load as TorchScript"):
        make_plugin(WSInfer, {"checkpoint": str(folder)}).load()
    script.unlink()
    with pytest.raises(ModelError, match="must have a readable torchscript_model"):
        make_plugin(WSInfer, {"checkpoint": str(folder)}).check([])


def test_planning_does_not_load_the_script(zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the script was loaded")

    one = make_plugin(WSInfer, {"checkpoint": str(zoo.wsinfer(tmp_path / "zoo"))})
    monkeypatch.setattr(torch.jit, "load", never)
    _ = one.identity, one.labels, one.input_spec(slide())
