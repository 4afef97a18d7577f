"""ONNX networks with the metadata that the Deepness plugin of QGIS reads."""

from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.annotator import View
from limner.model.detections import YOLO_LAYOUTS, decode_yolo
from limner.model.segmentation.deepness import Deepness
from limner.model.tiling import TileGrid
from limner.readers.errors import LimnerError, ModelError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions

pytest.importorskip("onnx", reason="networks for tests are written with the onnx package")

CHANNELS = tuple(Channel(name, name) for name in ("red", "green", "blue"))
INFO = ImageInfo("map", "raster", (100, 80), CHANNELS, Placement.pixels(), id="map")


def show(one: Deepness, pixels: npt.NDArray[np.uint8]) -> View:
    """A picture as large as a tile."""
    spec = one.input_spec(INFO)
    side = spec.tile
    (region,) = cut_regions(Grid("map", (side, side), (1.0, 1.0)), tile=side, halo=spec.halo)
    everywhere = np.ones((side, side), dtype=np.bool_)
    grid = TileGrid.exact(1, 1, tile=side, overlap=2 * spec.halo)
    return View(region, spec, grid, pixels[None], everywhere[None], everywhere)


def stripes(side: int) -> npt.NDArray[np.uint8]:
    """Red, green and blue, from left to right."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    for channel, (start, stop) in enumerate(((0, 8), (8, 20), (20, side))):
        pixels[:, start:stop, channel] = 255
    return pixels


@pytest.mark.slow
def test_segmentation(zoo: ModuleType, tmp_path: Path) -> None:
    one = make_plugin(Deepness, {"checkpoint": str(zoo.segmentor(tmp_path / "a.onnx"))})
    assert one.labels == ("park", "lake")
    spec = one.input_spec(INFO)
    assert (spec.tile, spec.halo, spec.resolution, spec.unit, spec.bands) == (32, 4, 10.0, "m", None)
    [answers] = one.annotate([show(one, stripes(32))])
    found = {answer.label: answer for answer in answers}
    assert {label: answer.geometry.bounds for label, answer in found.items() if answer.geometry} == {
        "park": (8, 0, 20, 32),
        "lake": (20, 0, 32, 32),
    }
    assert found["park"].score == pytest.approx(np.exp(8) / (np.exp(8) + 2), abs=1e-4)
    assert found["park"].kind == "area"


def test_a_network_gets_each_value_standardised(zoo: ModuleType, tmp_path: Path) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    path = zoo.segmentor(tmp_path / "a.onnx", standardization_mean=mean, standardization_std=std)
    pixels = np.random.default_rng(0).permutation(np.arange(768).reshape(16, 16, 3) % 256).astype(np.uint8)
    one = make_plugin(Deepness, {"checkpoint": str(path)})
    given = one._input(pixels)  # noqa: SLF001 - what the network makes of it does not tell the last bit
    assert (given == ((pixels / 255 - mean) / std).astype(np.float32)).all()


def test_pixels_below_the_threshold_have_no_area(zoo: ModuleType, tmp_path: Path) -> None:
    dim = stripes(32) // 16  # of 8/16 logits, hardly above a third
    path = zoo.segmentor(tmp_path / "a.onnx", seg_thresh=0.6)
    assert make_plugin(Deepness, {"checkpoint": str(path)}).annotate(
        [show(make_plugin(Deepness, {"checkpoint": str(path)}), dim)]
    ) == [[]]
    low = make_plugin(Deepness, {"checkpoint": str(path), "threshold": "0.4"})
    assert {answer.label for answer in low.annotate([show(low, dim)])[0]} == {"park", "lake"}


def test_one_output_is_one_class(zoo: ModuleType, tmp_path: Path) -> None:
    shift = {"standardization_mean": [0.5, 0.5, 0.5], "standardization_std": [0.5, 0.5, 0.5]}
    for name, names in (("two", None), ("one", {"0": "roof"})):
        changes = shift | ({} if names is None else {"class_names": names})
        path = zoo.segmentor(tmp_path / f"{name}.onnx", classes=1, last="Sigmoid", **changes)
        one = make_plugin(Deepness, {"checkpoint": str(path)})
        assert one.labels == ("roof",)
        [[answer]] = one.annotate([show(one, stripes(32))])
        assert answer.geometry is not None
        assert answer.geometry.bounds == (0, 0, 8, 32)
        assert answer.score == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-4)
        strict = make_plugin(Deepness, {"checkpoint": str(path), "threshold": "1"})
        assert strict.annotate([show(strict, stripes(32))]) == [[]]
        lax = make_plugin(Deepness, {"checkpoint": str(path), "threshold": "0.1"})  # less likely than not, but enough
        dim = stripes(32) // 255 * np.uint8(100)
        [[answer]] = lax.annotate([show(lax, dim)])
        assert answer.geometry is not None
        assert answer.geometry.bounds == (0, 0, 8, 32)
        assert answer.score == pytest.approx(1 / (1 + np.exp(8 - 1600 / 255)), abs=1e-3)


@pytest.mark.parametrize("upright", [False, True])
def test_detection(upright: bool, zoo: ModuleType, tmp_path: Path) -> None:
    one = make_plugin(Deepness, {"checkpoint": str(zoo.detector(tmp_path / "a.onnx", upright=upright))})
    assert one.labels == ("car", "bus")
    pixels = np.full((64, 64, 3), 90, dtype=np.uint8)
    pixels[16:32, 48:64, 0] = 204
    pixels[48:64, 0:16, 0] = 0
    [answers] = one.annotate([show(one, pixels)])
    found = sorted((answer.label, answer.score, answer.geometry.bounds) for answer in answers if answer.geometry)
    cells = [(16.0 * x + 1, 16.0 * y + 1) for y in range(4) for x in range(4)]
    if upright:  # the best class decides: where red is absent, another thing is certain
        assert len(found) == 16
        assert ("bus", 1.0, (1, 49, 15, 63)) in found
        assert ("car", 0.8, (49, 17, 63, 31)) in found
        assert {bounds[:2] for _, _, bounds in found} == set(cells)
    else:  # how sure it is of anything decides
        assert found == [("car", 0.8, (49, 17, 63, 31))]


def test_overlapping_candidates_are_suppressed() -> None:
    rows = np.array([[20, 20, 10, 10, 0.9, 0.2, 0.8], [21, 20, 10, 10, 0.8, 0.9, 0.1], [40, 20, 8, 6, 0.7, 0.9, 0.1]])
    rows = np.concatenate([rows, [[20, 40, 10, 10, 0.5, 0.9, 0.1]]]).astype(np.float32)[None]
    layout = YOLO_LAYOUTS["YOLO_v5_or_v7_default"]
    found = decode_yolo(rows, layout, ("a", "b"), threshold=0.6, overlap=0.4, network="n")
    assert [(one.label, round(one.score, 4), one.box) for one in found] == [
        ("b", 0.9, (15, 15, 25, 25)),
        ("a", 0.7, (36, 17, 44, 23)),
    ]
    sixth = decode_yolo(rows, YOLO_LAYOUTS["YOLO_v6"], ("a", "b"), threshold=0.6, overlap=0.4, network="n")
    assert [(one.label, round(one.score, 4)) for one in sixth] == [("b", 0.8), ("a", 0.9), ("a", 0.9)]
    with pytest.raises(ModelError, match="det_type"):
        decode_yolo(rows, YOLO_LAYOUTS["YOLO_Ultralytics"], ("a", "b"), threshold=0.6, overlap=0.4, network="n")
    with pytest.raises(ModelError, match="finite"):
        decode_yolo(rows * np.nan, layout, ("a", "b"), threshold=0.6, overlap=0.4, network="n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": None}, "model_type"),
        ({"model_type": '"Regressor"'}, "Segmentor or Detector"),
        ({"model_type": '"Superresolution"'}, "Segmentor or Detector"),
        ({"class_names": None}, "class_names"),
        ({"class_names": {"0": "a", "2": "b"}}, "class_names"),
        ({"class_names": {"0": "a", "1": "a"}}, "class_names"),
        ({"resolution": -3}, "resolution"),
        ({"resolution": '"ten"'}, "resolution"),
        ({"tiles_overlap": 100}, "tiles_overlap"),
        ({"standardization_std": [0.1, 0, 0.1]}, "standardization_std"),
        ({"standardization_mean": [0.1]}, "standardization_std"),
        ({"tile_size": 48}, "tile_size"),
        ({"tile": None}, "model_options.tile"),
    ],
)
def test_invalid_metadata_is_named(changes: dict[str, object], words: str, zoo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        make_plugin(Deepness, {"checkpoint": str(zoo.segmentor(tmp_path / "a.onnx", **changes))}).input_spec(INFO)


def test_options_complete_the_metadata(zoo: ModuleType, tmp_path: Path) -> None:
    path = zoo.segmentor(tmp_path / "a.onnx", tile=None, model_type=None, resolution=None, tiles_overlap=None)
    one = make_plugin(Deepness, {"checkpoint": str(path), "tile": "48", "model_type": "segmentor", "halo": "3"})
    spec = one.input_spec(INFO)
    assert (spec.tile, spec.halo, spec.resolution) == (48, 3, None)
    ([park, *_],) = one.annotate([show(one, stripes(48))])
    assert park.geometry is not None
    written = make_plugin(Deepness, {"checkpoint": str(zoo.segmentor(tmp_path / "b.onnx", tile=None, tile_size=40))})
    assert written.input_spec(INFO).tile == 40
    old = zoo.segmentor(tmp_path / "c.onnx", class_names=None, names="{0: 'background', 1: 'x', 2: 'y'}")
    assert make_plugin(Deepness, {"checkpoint": str(old)}).labels == ("x", "y")


def test_other_bands_and_other_files_are_refused(zoo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="write a model card"):
        make_plugin(Deepness, {"checkpoint": str(zoo.detector(tmp_path / "a.onnx", channels=4))}).input_spec(INFO)
    with pytest.raises(ModelError, match="det_type"):
        make_plugin(
            Deepness, {"checkpoint": str(zoo.detector(tmp_path / "b.onnx", det_type="YOLO_Ultralytics_obb"))}
        ).input_spec(INFO)
    (tmp_path / "c.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelError, match="ONNX network"):
        make_plugin(Deepness, {"checkpoint": str(tmp_path / "c.onnx")}).input_spec(INFO)
    with pytest.raises(ModelError, match="must have a readable"):
        make_plugin(Deepness, {"checkpoint": str(tmp_path / "d.onnx")}).input_spec(INFO)
    logits = make_plugin(Deepness, {"checkpoint": str(zoo.segmentor(tmp_path / "e.onnx", last="Identity"))})
    with pytest.raises(ModelError, match="must return scores from 0 to 1"):
        logits.annotate([show(logits, stripes(32))])
    more = zoo.segmentor(tmp_path / "f.onnx", class_names={str(i): f"c{i}" for i in range(4)})
    with pytest.raises(LimnerError, match="one per class"):
        make_plugin(Deepness, {"checkpoint": str(more)}).annotate(
            [show(make_plugin(Deepness, {"checkpoint": str(more)}), stripes(32))]
        )


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_network_without_an_input_or_output_is_refused(zoo: ModuleType, tmp_path: Path, side: str) -> None:
    onnx = pytest.importorskip("onnx")
    made = onnx.load(zoo.segmentor(tmp_path / "a.onnx"))
    made.graph.ClearField(side)
    onnx.save(made, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match=f" 0 {side}s"):
        make_plugin(Deepness, {"checkpoint": str(tmp_path / "a.onnx")}).input_spec(INFO)
