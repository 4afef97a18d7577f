"""Prints whether limner's nnU-Net labels every voxel as nnU-Net's own code does, on tiny networks with random weights.

python tests/bench/nnunet_parity.py

Needs nnunetv2, with nibabel and SimpleITK, beside limner; says so and ends where they are not. Each series is written
as NIfTI, read and segmented by nnU-Net's own predictor, and compared with the label maps of the same voxels here.
"""

# nnU-Net is not among what the project installs:
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

MISSING = [name for name in ("nnunetv2", "nibabel", "SimpleITK") if importlib.util.find_spec(name) is None]
if MISSING:
    sys.stdout.write(f"skipped: {', '.join(MISSING)} not installed beside limner\n")
    sys.exit()

os.environ |= dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), tempfile.gettempdir())

import json  # noqa: E402 - nnU-Net reads these variables when it is imported

import nibabel as nib  # noqa: E402
from limner.model.volume.models import find_volume_folder  # noqa: E402
from limner.model.volume.options import FolderOptions  # noqa: E402
from limner.model.volume.volume import Volume  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: E402

LABELS = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "vein": 4}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
CT = {"mean": 20.0, "std": 180.0, "percentile_00_5": -400.0, "percentile_99_5": 500.0}
FLIP_LPS = np.diag([-1.0, -1.0, 1.0])
"""Between LPS and the RAS of NIfTI."""


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """A rotation about x, y and z in turn."""
    whole = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn, (i, j) = np.eye(3), [one for one in range(3) if one != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        whole = turn @ whole
    return whole


def affine(spacing: tuple[float, float, float], turn: np.ndarray) -> np.ndarray:
    """(3, 4) of a volume: slices, rows and columns towards S, P and L, turned."""
    axes = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]])
    return np.column_stack([turn @ axes * spacing, [-31.0, 12.5, 250.0]])


CORONAL = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
SERIES: dict[str, tuple[tuple[int, int, int], np.ndarray]] = {
    "isotropic": ((40, 52, 48), affine((1.5, 1.5, 1.5), np.eye(3))),
    "fine": ((46, 66, 70), affine((1.25, 0.78, 0.78), np.eye(3))),
    "anisotropic": ((14, 60, 64), affine((6.0, 0.9, 0.9), np.eye(3))),
    "oblique": ((36, 50, 44), affine((2.0, 1.1, 1.1), rotation((18.0, -12.0, 25.0)))),
    "coronal": ((38, 44, 52), affine((2.0, 1.2, 1.2), CORONAL)),
    "downwards": ((36, 48, 40), affine((-1.8, 1.3, 1.3), np.eye(3))),
    "small": ((10, 20, 18), affine((2.0, 1.6, 1.6), np.eye(3))),
}


def voxels(shape: tuple[int, int, int], *, ct: bool) -> np.ndarray:
    """Smooth blobs with noise: HU, or an MR picture in a frame of zeros."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(7)
    smooth = gaussian_filter(random.normal(size=shape), 2.5)
    values = smooth / smooth.std() * 250 + random.normal(size=shape) * 30
    if ct:
        return np.rint(values).astype(np.float32)
    values = np.abs(values).astype(np.float32) + 1
    values[:3] = values[-2:] = values[:, :4] = values[:, :, -5:] = 0
    return values


def plans(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Plans as nnU-Net writes them."""
    residual, stages = case.get("residual", False), 3
    strides = [[1, 1, 1], case.get("stride", [2, 2, 2]), [2, 2, 2]]
    resampling: dict[str, Any] = {
        f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    kwargs = {
        "n_stages": stages,
        "features_per_stage": [8, 12, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [case.get("kernel", [3, 3, 3])] + [[3, 3, 3]] * (stages - 1),
        "strides": strides,
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): [1, 2, 2] if residual else [2] * stages,
        "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": case["reader"],
        "transpose_forward": case.get("transpose", [0, 1, 2]),
        "transpose_backward": np.argsort(case.get("transpose", [0, 1, 2])).tolist(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": case.get("patch", [24, 32, 28]),
                "spacing": case.get("spacing", [1.5, 1.5, 1.5]),
                "normalization_schemes": [case["scheme"]],
                "use_mask_for_norm": [case.get("masked", False)],
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet."
                    + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
                    "arch_kwargs": kwargs,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                **resampling,
            }
        },
    }


def model_folder(folder: Path, case: dict[str, Any]) -> Path:
    """A trained model as nnU-Net writes it, with random weights."""
    planned = plans(folder.name, case)
    labels = REGIONS if case.get("regions") else LABELS
    dataset: dict[str, Any] = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    dataset |= {"regions_class_order": [1, 2, 3]} if case.get("regions") else {}
    place = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    place.mkdir(parents=True)
    (place / "plans.json").write_text(json.dumps(planned), encoding="utf-8")
    (place / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    architecture = planned["configurations"]["3d_fullres"]["architecture"]
    for fold in range(case.get("folds", 1)):
        torch.manual_seed(fold)
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            3 if case.get("regions") else len(LABELS),
            deep_supervision=True,
        )
        for parameter in network.parameters():
            parameter.data += 0.15 * torch.randn(parameter.shape)
        held = {
            "network_weights": network.state_dict(),
            "optimizer_state": torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99).state_dict(),
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(0.1)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {
                "plans": planned,
                "configuration": "3d_fullres",
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(case.get("mirror", ())) or None,
        }
        (place / f"fold_{fold}").mkdir()
        torch.save(held, place / f"fold_{fold}" / "checkpoint_final.pth")
    return place


def reference(place: Path, series: Path, case: dict[str, Any]) -> np.ndarray:
    """The labels by nnU-Net, in the axes of the series."""
    predictor = nnUNetPredictor(
        use_mirroring=bool(case.get("mirror")),
        device=torch.device("cpu"),
        allow_tqdm=False,
        perform_everything_on_device=False,
    )
    predictor.initialize_from_trained_model_folder(str(place), tuple(range(case.get("folds", 1))))
    out = series.parent / "out.nii.gz"
    predictor.predict_from_files_sequential([[str(series)]], [str(out).removesuffix(".nii.gz")])
    return np.asanyarray(nib.load(out).dataobj).transpose(2, 1, 0)


CASES: dict[str, dict[str, Any]] = {
    "plain, CT, RAS": {"scheme": "CTNormalization", "reader": "NibabelIOWithReorient"},
    "plain, CT, RAS, transposed": {
        "scheme": "CTNormalization",
        "reader": "NibabelIOWithReorient",
        "transpose": [1, 2, 0],
        "patch": [32, 28, 24],
    },
    "residual, z-score, ITK": {"scheme": "ZScoreNormalization", "reader": "SimpleITKIO", "residual": True},
    "plain, masked z-score, anisotropic": {
        "scheme": "ZScoreNormalization",
        "reader": "NibabelIOWithReorient",
        "masked": True,
        "spacing": [6.0, 1.0, 1.0],
        "patch": [8, 40, 40],
        "stride": [1, 2, 2],
        "kernel": [1, 3, 3],
    },
    "residual, regions, mirrored": {
        "scheme": "RescaleTo01Normalization",
        "reader": "SimpleITKIO",
        "residual": True,
        "regions": True,
        "mirror": [0, 1, 2],
    },
    "plain, 2 folds": {"scheme": "CTNormalization", "reader": "NibabelIOWithReorient", "folds": 2},
}


def main() -> None:
    """Print a row for each model and series."""
    torch.set_num_threads(2)
    quiet = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    sys.stdout.write(
        "| model | series | voxels | labels | differ | s here | s nnU-Net |\n|---|---|---|---|---|---|---|\n"
    )
    for title, case in CASES.items():
        with tempfile.TemporaryDirectory() as kept:
            place = model_folder(Path(kept) / "Dataset001_Tiny", case)
            options = FolderOptions(flips=bool(case.get("mirror")))
            for name, (shape, matrix) in SERIES.items():
                values = voxels(shape, ct=case["scheme"] == "CTNormalization")
                upwards = case["reader"] != "NibabelIOWithReorient" and matrix[2, 0] < 0
                stored, placed = (values[::-1], matrix * [-1, 1, 1, 1]) if upwards else (values, matrix)
                if upwards:
                    placed[:, 3] += matrix[:, 0] * (shape[0] - 1)
                whole = np.eye(4)
                whole[:3] = FLIP_LPS @ placed[:, [2, 1, 0, 3]]
                series = Path(kept) / "case_0000.nii.gz"
                nib.save(nib.Nifti1Image(stored.transpose(2, 1, 0), whole), series)
                sys.stdout, talk = quiet, sys.stdout
                began = time.perf_counter()
                wanted = reference(place, series, case)
                theirs = time.perf_counter() - began
                sys.stdout = talk
                wanted = wanted[::-1] if upwards else wanted
                model = find_volume_folder(str(place), options)
                model.check()
                began = time.perf_counter()
                found = np.stack(list(model.segment(Volume(shape, matrix, lambda i, v=values: v[i]))))
                ours = time.perf_counter() - began
                sys.stdout.write(
                    f"| {title} | {name} | {found.size} | {len(np.unique(found))} | {(found != wanted).sum()} | "
                    f"{ours:.1f} | {theirs:.1f} |\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
