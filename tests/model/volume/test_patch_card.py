"""Cards of a user's own network for volumes: ONNX, and TorchScript where it is trusted."""

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import yaml
from limner.model.checkpoints.cards import find_any_card
from limner.model.probabilities import STEPS, LabelProbabilities
from limner.model.volume.models import find_model
from limner.model.volume.options import VolumeOptions
from limner.model.volume.volume import VolumeModel
from limner.readers.errors import LimnerError, ModelError
from onnx import helper

Blobs = npt.NDArray[np.float32]


def onnx_file(path: Path, *, channels_last: bool = False, classes: int = 2, patch: int | str = "side") -> Path:
    """A network that hands its input on, minus a half, as the score of its last class; others score 0."""
    weight = np.zeros((classes, 1, 1, 1, 1), dtype=np.float32)
    bias = np.zeros(classes, dtype=np.float32)
    weight[-1], bias[-1] = 10, -5
    names = [f"{patch}{i}" if isinstance(patch, str) else patch for i in range(3)]
    shapes = ([1, *names, 1], [1, *names, classes]) if channels_last else ([1, 1, *names], [1, classes, *names])
    nodes = [helper.make_node("Conv", ["first", "w", "b"], ["last"])]
    if channels_last:
        nodes = [
            helper.make_node("Transpose", ["x"], ["first"], perm=[0, 4, 1, 2, 3]),
            *nodes,
            helper.make_node("Transpose", ["last"], ["y"], perm=[0, 2, 3, 4, 1]),
        ]
    ends = ("x", "y") if channels_last else ("first", "last")
    tensors = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info(ends[0], onnx.TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info(ends[1], onnx.TensorProto.FLOAT, shapes[1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def script_file(path: Path) -> Path:
    """The same network as a TorchScript program."""
    network: Any = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.weight[1], network.bias[1] = 10, -5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 4, 4, 4)), path)
    return path


def card(network: Path, **changes: Any) -> Path:
    """A card beside a network; its window makes 100 HU a half."""
    content = {
        "name": "bright",
        "annotator": "volume",
        "summary": "What is bright.",
        "licence": "MIT",
        "citation": "None.",
        "homepage": "https://example.org",
        "not_for": ["Patients."],
        "classes": [
            {"name": "background", "colour": "#808080", "background": True},
            {"name": "bright", "colour": "#e6ab02"},
        ],
        "domain": [{"kind": "study", "modalities": ["CT"]}],
        "format": "onnx" if network.suffix == ".onnx" else "torchscript",
        "files": [{"name": "net", "weights": network.name, "sha256": hashlib.sha256(network.read_bytes()).hexdigest()}],
        "orientation": "SAR",
        "spacing": [None, None, None],
        "intensity": [{"kind": "window", "low": -100, "high": 300}],
        "fill": -1000,
        "patch": [8, 8, 8],
        "output": "logits",
    }
    path = network.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


def model(path: Path, **options: Any) -> VolumeModel:
    return find_model(VolumeOptions(checkpoint=str(path), **options))


def labels(path: Path, volume: Any, **options: Any) -> npt.NDArray[np.uint8]:
    found: Any = model(path, **options)
    found.check()
    places: dict[str | int, int] = {number: number - 1 for number in range(1, len(found.labels) + 1)}
    room = LabelProbabilities(places, np.zeros((len(places), *volume.shape), np.uint8))
    given = np.stack(list(found.segment(replace(volume, probabilities=room))))
    for number, place in places.items():
        if found.card.output == "sigmoid":
            assert (room.values[place][given == number] >= STEPS * found.card.threshold - 1).all()
        else:
            others = room.values.max(axis=0)
            assert (room.values[place][given == number] >= others[given == number] - 1).all()
    return given


@pytest.mark.parametrize("axes", ["SPL", "ASR"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_onnx_network(axes: str, channels_last: bool, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    path = card(
        onnx_file(tmp_path / "net.onnx", channels_last=channels_last), layout="NDHWC" if channels_last else "NCDHW"
    )
    np.testing.assert_array_equal(labels(path, make_volume(blobs, axes=axes)), blobs > 100)


def test_what_a_card_states(tmp_path: Path) -> None:
    found = model(card(onnx_file(tmp_path / "net.onnx")))
    assert found.labels == ("bright",)
    assert found.colours["bright"] == "#e6ab02"
    assert found.domain[0].modalities == ("CT",)
    assert found.identity["name"] == "bright"
    assert found.cost((100, 64, 64), (1.0, 1.0, 1.0)) is not None
    assert find_any_card(str(tmp_path / "net.yaml")).annotator == "volume"


@pytest.mark.parametrize("output", ["logits", "probabilities", "sigmoid"])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_what_a_network_returns(output: str, blend: str, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    path = card(onnx_file(tmp_path / "net.onnx"), output=output, blend=blend, overlap=0.25, threshold=0.75)
    threshold = 100 if output != "sigmoid" else 100 + np.log(3) * 40  # whose sigmoid is 0.75
    np.testing.assert_array_equal(labels(path, make_volume(blobs)), blobs > threshold)


def test_another_spacing(tmp_path: Path, make_volume: Any) -> None:
    z, y, x = np.mgrid[0:24, 0:36, 0:30]
    ball = (z / 4 - 3) ** 2 + (y / 4 - 4) ** 2 + (x / 4 - 3) ** 2 < 6
    path = card(onnx_file(tmp_path / "net.onnx"), spacing=[1, None, 1])
    found = labels(path, make_volume(np.where(ball, 300, -50), (0.5, 0.5, 0.5))).astype(bool)
    assert (found & ball).sum() * 2 / (found.sum() + ball.sum()) > 0.95
    assert (found != ball).any()


@pytest.mark.parametrize(
    ("intensity", "half"),
    [
        ({"kind": "z-score"}, lambda v: v.mean() + v.std() / 2),
        ({"kind": "z-score", "nonzero": True}, lambda v: v[v != 0].mean() + v[v != 0].std() / 2),
        ({"kind": "z-score", "mean": 20, "std": 160}, lambda _: 100),
        ({"kind": "percentiles", "low": 10, "high": 90}, lambda v: np.percentile(v, [10, 90]).mean()),
        ({"kind": "window", "low": 0, "high": 100, "to": [-1, 0.5]}, lambda _: 100),
        ({"kind": "window", "low": 0, "high": 100, "to": [0, 0.25], "clip": False}, lambda _: 200),
    ],
)
def test_intensities(intensity: Any, half: Any, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    path = card(onnx_file(tmp_path / "net.onnx"), intensity=[intensity])
    wanted = blobs > half(blobs.astype(np.float64)) if intensity.get("to") != [-1, 0.5] else blobs > 1e9
    np.testing.assert_array_equal(labels(path, make_volume(blobs)), wanted)


def test_voxels_that_are_not_valid_are_filled(tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    holed = blobs.copy()
    holed[:, 4:6] = np.nan
    path = card(onnx_file(tmp_path / "net.onnx"), fill=1000)
    np.testing.assert_array_equal(labels(path, make_volume(holed)), np.nan_to_num(holed, nan=1000) > 100)


def test_a_script_runs_only_where_it_is_trusted(tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    path = card(script_file(tmp_path / "net.ts"))
    sha256 = hashlib.sha256((tmp_path / "net.ts").read_bytes()).hexdigest()
    for trust in ("", "0" * 64):
        with pytest.raises(ModelError, match=f"TorchScript is a program.*trust={sha256}"):
            model(path, trust=trust).load()
    np.testing.assert_array_equal(labels(path, make_volume(blobs), trust=sha256), blobs > 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"orientation": "SAS"}, "one each of L or R"),
        ({"orientation": "XYZ"}, "orientation"),
        ({"patch": [8, 8]}, "must have three values"),
        ({"intensity": [{"kind": "window", "low": 1}]}, "must state low and high"),
        ({"intensity": [{"kind": "window", "low": 1, "high": 0}]}, "low must be below high"),
        ({"intensity": [{"kind": "percentiles", "low": -1}]}, "from 0 to 100"),
        ({"intensity": [{"kind": "histogram"}]}, "kind"),
        ({"overlapp": 0.5}, "Did you mean 'overlap'"),
        ({"patch": [9, 8, 8]}, "must have one input of the shape"),
        ({"layout": "NDHWC"}, "must have one input of the shape"),
        ({"classes": [{"name": n, "colour": "#808080", "background": n == "a"} for n in "abc"]}, "must return"),
    ],
)
def test_cards_that_are_refused(changes: Any, message: str, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    path = card(onnx_file(tmp_path / "net.onnx", patch=8), **changes)
    with pytest.raises(ModelError, match=message):
        labels(path, make_volume(blobs))


def test_options_of_folders_are_refused(tmp_path: Path) -> None:
    path = card(onnx_file(tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match=r"without options that it does not have .*folds, flips"):
        model(path, folds=("0",), flips=True)
    with pytest.raises(LimnerError, match=r"must not be given for the card brain"):
        find_model(VolumeOptions(checkpoint="brain", step=0.5))
