"""Stacks in memory, and a model of nnU-Net v2 made by hand, which labels what is brighter than a threshold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.volume.unet import UNet, UNetConfig
from limner.model.volume.volume import Volume
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane

MakeVolume = Callable[..., Volume]
MakeInfo = Callable[..., ImageInfo]


Plans = dict[str, Any]
Change = Callable[[Plans, Plans, dict[str, Any]], None]

THRESHOLD = 100.0


def _plans() -> Plans:
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 8, 8],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [1, 1],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": None,
                "norm_op_kwargs": None,
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
    }
    return {
        "dataset_name": "Dataset001_Bright",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 0.0, "std": 1.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
        },
        "configurations": {
            "2d": {**fullres, "patch_size": [8, 8], "spacing": [1.0, 1.0]},
            "3d_fullres": fullres,
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [2.0, 2.0, 2.0]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def threshold_weights(heads: int, *, slope: float = 1.0) -> dict[str, torch.Tensor]:
    """The weights of a U-Net of one channel that hands its input on, and scores how far it is above `THRESHOLD`.

    Only of positive values: LeakyReLU shrinks others, which are below the threshold all the same.
    """
    config = UNetConfig(
        kind="PlainConvUNet",
        features=(1, 1),
        kernels=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        depths=(1, 1),
        decoder=(1,),
        bias=True,
        norm="",
        eps=1e-5,
        affine=True,
        activation="LeakyReLU",
        slope=0.01,
    )
    network: Any = UNet(config, 1, heads)
    for parameter in network.parameters():
        parameter.data.zero_()
    network.encoder.stages[0][0].convs[0].conv.weight.data[0, 0, 1, 1, 1] = 1
    network.decoder.stages[0].convs[0].conv.weight.data[0, 1, 1, 1, 1] = 1
    head = network.decoder.seg_layers[0]
    head.weight.data[-1] = slope
    head.bias.data[-1] = -slope * THRESHOLD
    return network.state_dict()


def nnunet(place: Path, change: Change | None = None, *, heads: int = 2, folds: tuple[str, ...] = ("0",)) -> Path:
    """A folder of nnU-Net v2; `change` may alter its plans, its dataset and its checkpoint before they are written."""
    plans = _plans()
    dataset: Plans = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bright": 1}, "file_ending": ".nii.gz"}
    checkpoint: dict[str, Any] = {
        "network_weights": threshold_weights(heads),
        "optimizer_state": {"state": {}},
        "logging": {"dice": [np.float64(0.5), np.float32(0.25)]},
        "_best_ema": np.float64(0.5),
        "init_args": {
            "plans": json.loads(json.dumps(plans)),
            "configuration": "3d_fullres",
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    if change is not None:
        change(plans, dataset, checkpoint)
    place.mkdir(parents=True, exist_ok=True)
    (place / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (place / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    for fold in folds:
        (place / f"fold_{fold}").mkdir()
        torch.save(checkpoint, place / f"fold_{fold}" / "checkpoint_final.pth")
    return place


@pytest.fixture(scope="session")
def make_volume() -> MakeVolume:
    """Voxels whose axes run in directions such as S, P and L, at a spacing in mm, as a volume."""

    def make(voxels: npt.NDArray[Any], spacing: tuple[float, float, float] = (1, 1, 1), axes: str = "SPL") -> Volume:
        affine = np.zeros((3, 4))
        for axis, letter in enumerate(axes):
            affine["LPSRAI".index(letter) % 3, axis] = spacing[axis] * (1 if letter in "LPS" else -1)
        return Volume(voxels.shape, affine, lambda number: voxels[number].astype(np.float32))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="session")
def make_info() -> MakeInfo:
    """The metadata of an axial stack of (slices, rows, columns) at a spacing in mm, with facts."""

    def make(shape: tuple[int, int, int], spacing: tuple[float, float, float], **facts: str) -> ImageInfo:
        slices, rows, columns = shape
        step, row, column = spacing
        planes = tuple(
            Plane(Placement(((column, 0, 0), (0, row, 0), (0, 0, number * step)), "mm"), source=f"{number}.dcm")
            for number in range(slices)
        )
        channels = (Channel("grey", dtype="float32"),)
        return ImageInfo(
            "study/mr1", "dicom", (columns, rows), channels, planes[0].placement,
            id="mr1", kind="study", planes=planes, facts=tuple(facts.items()),
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def make_weights() -> Callable[..., dict[str, torch.Tensor]]:
    """`threshold_weights`."""
    return threshold_weights


@pytest.fixture(scope="session")
def blobs() -> npt.NDArray[np.float32]:
    """HU in whole numbers, (11, 14, 13): none symmetric, some above `THRESHOLD`, one slice and column of zeros."""
    z, y, x = np.mgrid[0:11, 0:14, 0:13]
    values = np.rint(250 * np.sin(z * 0.9 + 0.3 * x) * np.cos(0.5 * y - 0.2 * z) + 3 * x - 2 * y)
    values[0] = values[:, :, -1] = 0
    return values.astype(np.float32)
