"""MONAI bundles: what their configuration says is carried out, and nothing of it is run."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.volume.answers import Decision
from limner.model.volume.models import find_volume_folder
from limner.model.volume.options import FolderOptions
from limner.model.volume.pipeline import Crop, Pipeline, Resample, Stage
from limner.readers.errors import ModelError

Blobs = npt.NDArray[np.float32]
Change = Callable[[dict[str, Any], dict[str, Any]], None]


def settings() -> dict[str, Any]:
    """An `inference.json` in the style of the model zoo's."""
    return {
        "imports": ["$import glob"],
        "bundle_root": "/workspace/bundle",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "patch": [8, 8, 8],
        "network_def": {"_target_": "UNet", "spatial_dims": 3},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -100,
                    "a_max": 300,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "RandFlipd", "keys": "image", "_disabled_": True},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": "@patch",
            "sw_batch_size": "$4",
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@bundle_root"},
            ],
        },
    }


def bundle(folder: Path, change: Change | None = None) -> Path:
    """A bundle with a TorchScript program that hands its input on, minus a half, as the score of channel 1."""
    metadata: dict[str, Any] = {
        "name": "Bright things",
        "version": "0.1.0",
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "modality": "CT"}},
            "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "bright"}}},
        },
    }
    inference = settings()
    if change is not None:
        change(inference, metadata)
    for name, content in (("inference", inference), ("metadata", metadata)):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    network: Any = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.weight[1], network.bias[1] = 10, -5
    (folder / "models").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 4, 4, 4)), folder / "models" / "model.ts")
    return folder


def labels(folder: Path, volume: Any) -> npt.NDArray[np.uint8]:
    trust = hashlib.sha256((folder / "models" / "model.ts").read_bytes()).hexdigest()
    model = find_volume_folder(str(folder), FolderOptions(trust=trust))
    model.check()
    return np.stack(list(model.segment(volume)))


def transform(name: str, **values: Any) -> Change:
    """A change of a transform's arguments, or another transform in its place."""

    def change(inference: dict[str, Any], _metadata: Any) -> None:
        for part in ("preprocessing", "postprocessing"):
            for one in inference[part]["transforms"]:
                if one["_target_"] == name:
                    one.update(values)

    return change


def without(name: str) -> Change:
    return transform(name, _disabled_=True)


def inserted(after: str, **given: Any) -> Change:
    def change(inference: dict[str, Any], _metadata: Any) -> None:
        for part in ("preprocessing", "postprocessing"):
            listed = inference[part]["transforms"]
            names = [one["_target_"] for one in listed]
            if after in names:
                listed.insert(names.index(after) + 1, {"keys": "image", **given})

    return change


@pytest.mark.parametrize("axes", ["SPL", "ASR"])
def test_a_bundle(axes: str, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    np.testing.assert_array_equal(labels(bundle(tmp_path), make_volume(blobs, axes=axes)), blobs > 100)


def test_what_a_bundle_states(tmp_path: Path) -> None:
    model = find_volume_folder(str(bundle(tmp_path)), FolderOptions())
    assert model.labels == ("bright",)
    assert model.identity["name"] == "Bright things"
    assert model.domain[0].modalities == ("CT",)
    assert model.cost((100, 64, 64), (1.0, 1.0, 1.0)) is not None


@pytest.mark.parametrize(
    ("change", "threshold"),
    [
        (transform("Activationsd", softmax=[True, False]), 100),
        (transform("AsDiscreted", argmax=None, threshold=0.75), 100 + np.log(3) * 40),
        (transform("Invertd", nearest_interp=True), 100),
        (transform("ScaleIntensityRanged", a_min=0, a_max=300, clip=False), 150),
        (inserted("ScaleIntensityRanged", _target_="CropForegroundd", source_key="image", margin=1), 100),
        (transform("ScaleIntensityRanged", _target_="RandFlipd", keys="label"), 0.5),
    ],
)
def test_what_is_carried_out(change: Change, threshold: float, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    def both(inference: dict[str, Any], metadata: Any) -> None:
        change(inference, metadata)
        discrete = inference["postprocessing"]["transforms"][2]
        if discrete["argmax"] is None:
            inference["postprocessing"]["transforms"][0] |= {"softmax": False, "sigmoid": True}
            metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "dark", "1": "bright"}

    found = labels(bundle(tmp_path, both), make_volume(blobs))
    independent = threshold not in {100, 150, 0.5}
    np.testing.assert_array_equal(found == (2 if independent else 1), blobs > threshold)


@pytest.mark.parametrize(
    ("given", "half"),
    [
        ({"_target_": "NormalizeIntensityd", "nonzero": True}, lambda v: v[v != 0].mean() + v[v != 0].std() / 2),
        ({"_target_": "NormalizeIntensityd", "subtrahend": 20, "divisor": 160, "channel_wise": True}, lambda _: 100),
        ({"_target_": "ScaleIntensityd", "minv": 0, "maxv": 1}, lambda v: (v.min() + v.max()) / 2),
        (
            {
                "_target_": "ScaleIntensityRangePercentilesd",
                "lower": 10,
                "upper": 90,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            lambda v: np.percentile(v, [10, 90]).mean(),
        ),
    ],
)
def test_intensities(given: Any, half: Any, tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    def change(inference: dict[str, Any], _metadata: Any) -> None:
        inference["preprocessing"]["transforms"][4] = {"keys": "image", **given}

    found = labels(bundle(tmp_path, change), make_volume(blobs))
    np.testing.assert_array_equal(found, blobs > half(blobs.astype(np.float64)))


def test_voxels_of_another_size_coincide_with_the_first() -> None:
    """The voxels of MONAI's `Spacing`: the first in place, others at equal steps, the last not beyond the last."""
    line = torch.arange(7, dtype=torch.float64)[:, None, None].expand(7, 2, 2)
    stage = Stage((7, 2, 2), (1.0, 1.0, 1.0), lambda: lambda first, last: line[first:last])
    after = Resample((1.5, None, None), cells=False).apply(stage)
    assert after.shape == (5, 2, 2)
    assert torch.cat(list(after.blocks()))[:, 0, 0].tolist() == [0, 1.5, 3, 4.5, 6]


@pytest.mark.parametrize(("margin", "beyond"), [(0, False), (3, False), (3, True)])
def test_a_crop_is_undone(margin: int, beyond: bool, make_volume: Any) -> None:
    values = np.zeros((7, 9, 8), dtype=np.float32)
    values[1:5, 4:6, 2:7] = 5
    line = Pipeline((Crop(margin, beyond),), "", (2, 2, 2), 0.5, False, False, "", Decision((0, 1)))
    stage, back, box = line.prepare(values, (1.0, 1.0, 1.0))
    assert back.target == values.shape
    padded = np.pad(values, margin)
    expected = ((1 - margin, 5 + margin), (4 - margin, 6 + margin), (2 - margin, 7 + margin))
    if not beyond:
        expected = tuple(
            (max(low, 0), min(high, side)) for (low, high), side in zip(expected, values.shape, strict=True)
        )
    assert box == expected
    inside = tuple(slice(low + margin, high + margin) for low, high in expected)
    np.testing.assert_array_equal(torch.cat(list(stage.blocks())).numpy(), padded[inside])

    def network(patch: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(patch[0], 2), patch[0]])

    found = np.stack(list(line.segment(make_volume(values), network, "network")))
    np.testing.assert_array_equal(found, values > 2)


def test_programs_run_only_where_they_are_trusted(tmp_path: Path) -> None:
    model = find_volume_folder(str(bundle(tmp_path)), FolderOptions())
    with pytest.raises(ModelError, match="TorchScript is a program"):
        model.load()


def part(name: str, **values: Any) -> Change:
    return lambda inference, _metadata: inference[name].update(values)


def stated(**values: Any) -> Change:
    return lambda _inference, metadata: metadata["network_data_format"]["outputs"]["pred"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (inserted("EnsureTyped", _target_="RandGaussianNoised"), "RandGaussianNoised"),
        (inserted("Invertd", _target_="KeepLargestConnectedComponentd"), "KeepLargestConnectedComponentd"),
        (transform("ScaleIntensityRanged", a_min="$__import__('os').system('touch x')"), "must be a literal"),
        (transform("ScaleIntensityRanged", a_min="@nothing"), "must refer to a part"),
        (transform("ScaleIntensityRanged", a_min="@preprocessing::transforms::4::a_min"), "circle of references"),
        (transform("ScaleIntensityRanged", a_max=-100), "a_min other than a_max"),
        (transform("ScaleIntensityRanged", b_min=None), "no b_min"),
        (transform("ScaleIntensityRanged", gamma=2), "arguments that are known here.* gamma"),
        (transform("Spacingd", mode="nearest"), "mode: nearest"),
        (transform("Spacingd", pixdim=[1, 0, 1]), "pixdim"),
        (transform("Orientationd", _disabled_=True), "must follow Orientationd"),
        (without("Invertd"), "must have Invertd"),
        (transform("AsDiscreted", argmax=False), "argmax or a threshold"),
        (transform("Activationsd", other="$lambda x: x"), "known here.* other"),
        (part("inferer", _target_="SimpleInferer"), "SlidingWindowInferer .*SimpleInferer"),
        (part("inferer", roi_size=[8, 8]), "roi_size"),
        (part("inferer", overlap=1), "overlap: 1"),
        (part("preprocessing", _target_="OneOf"), "Compose"),
        (stated(channel_def={"0": "background"}), "a name for each of 2 channels"),
        (lambda _i, m: m["network_data_format"]["inputs"]["image"].update(num_channels=4), "4 channels"),
        (lambda i, _m: i.update(inferer="$1"), "must be a part with a _target_"),
    ],
)
def test_bundles_that_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        find_volume_folder(str(bundle(tmp_path, change)), FolderOptions())


def test_a_bundle_without_a_network_is_refused(tmp_path: Path) -> None:
    model = find_volume_folder(str(bundle(tmp_path)), FolderOptions())
    (tmp_path / "models" / "model.ts").unlink()
    with pytest.raises(ModelError, match=r"must have models/model.pt and the package monai, or models/model.ts"):
        model.load()
    with pytest.raises(ModelError, match="folds"):
        find_volume_folder(str(tmp_path), FolderOptions(folds=("0",)))


@pytest.mark.slow
def test_weights_of_a_network_of_monai(tmp_path: Path, make_volume: Any, blobs: Blobs) -> None:
    nets = pytest.importorskip("monai.networks.nets", reason="monai is not installed")
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}

    def change(inference: dict[str, Any], _metadata: Any) -> None:
        inference["network_def"] = {"_target_": "UNet", **arguments}

    folder = bundle(tmp_path / "one", change)
    torch.manual_seed(0)
    network = nets.UNet(**arguments).eval()
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    model: Any = find_volume_folder(str(folder), FolderOptions())
    model.load()
    patch = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(model._network(patch), network(patch)[0])  # noqa: SLF001 - what the weights compute
    assert np.stack(list(model.segment(make_volume(blobs)))).shape == blobs.shape
    for given, message in (
        ({"_target_": "UNet", **arguments, "channels": [4, 9]}, "in the weights, .* by network_def"),
        ({"_target_": "UNet", **arguments, "norm": {"_target_": "x"}}, "literal arguments"),
        ({"_target_": "UNet", **arguments, "channels": [4, 10**12]}, "must be at most"),
        ({"_target_": "VISTA3D"}, "must be one of .*VISTA3D"),
    ):
        other = bundle(tmp_path / str(abs(hash(message))), lambda i, _m, g=given: i.update(network_def=g))
        torch.save(network.state_dict(), other / "models" / "model.pt")
        with pytest.raises(ModelError, match=message):
            find_volume_folder(str(other), FolderOptions()).load()
