"""Prints how many voxels of MONAI bundles have the label that MONAI's own transforms and inferer give them.

python tests/bench/monai_parity.py

Needs monai beside limner; says so and ends where it is not. Each series goes through what MONAI's `ConfigParser` makes
of the bundle's configuration, behind its reader, and through limner.
"""

# MONAI is not among what the project installs:
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

if importlib.util.find_spec("monai") is None:
    sys.stdout.write("skipped: monai is not installed beside limner\n")
    sys.exit()

from limner.model.volume.models import find_volume_folder
from limner.model.volume.options import FolderOptions
from limner.model.volume.volume import Volume
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import UNet

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 4,
    "channels": [8, 16, 16],
    "strides": [2, 2],
    "norm": "instance",
}
TURN = np.array([[0.94, -0.30, 0.16], [0.29, 0.95, 0.10], [-0.18, -0.05, 0.98]])
"""About a rotation: made one below."""


def bundle(folder: Path, case: dict[str, Any]) -> None:
    """A bundle with random weights."""
    preprocessing = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": case.get("axcodes", "RAS")},
        {"_target_": "Spacingd", "keys": "image", "pixdim": case["pixdim"], "mode": "bilinear"},
        *case["intensity"],
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    inverse = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    postprocessing = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        inverse | {"nearest_interp": case.get("nearest", False), "to_tensor": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    inferer = {
        "_target_": "SlidingWindowInferer",
        "roi_size": [32, 32, 32],
        "sw_batch_size": 2,
        "overlap": case.get("overlap", 0.25),
        "mode": case.get("mode", "constant"),
    }
    inference = {
        "network_def": NETWORK,
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
    }
    names = {str(i): name for i, name in enumerate(["background", "a", "b", "c"])}
    outputs = {"pred": {"num_channels": 4, "channel_def": names}}
    metadata = {"network_data_format": {"inputs": {"image": {"num_channels": 1}}, "outputs": outputs}}
    for name, content in (("inference", inference), ("metadata", metadata)):
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    torch.manual_seed(1)
    arguments: dict[str, Any] = {key: value for key, value in NETWORK.items() if key != "_target_"}
    (folder / "models").mkdir()
    torch.save(UNet(**arguments).state_dict(), folder / "models" / "model.pt")


def reference(folder: Path, image: MetaTensor) -> np.ndarray:
    """The labels by MONAI, in the axes of the series (slices, rows, columns)."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    before, inferer, after = (
        parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing")
    )
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    before.transforms = before.transforms[2:]
    data = before({"image": image})
    with torch.inference_mode():
        data["pred"] = inferer(data["image"][None], network)[0]
    return after(data)["pred"][0].numpy().transpose(2, 1, 0)


WINDOW = {"_target_": "ScaleIntensityRanged", "a_min": -300, "a_max": 400, "b_min": 0, "b_max": 1, "clip": True}
ZSCORE = {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True}
CROP = {"_target_": "CropForegroundd", "source_key": "image", "margin": 2}
CASES: dict[str, dict[str, Any]] = {
    "window, 1.5 mm": {"intensity": [WINDOW], "pixdim": [1.5, 1.5, 1.5], "mode": "gaussian", "overlap": 0.5},
    "window, 1.5 × 1.5 × 2 mm, nearest": {"intensity": [WINDOW], "pixdim": [1.5, 1.5, 2.0], "nearest": True},
    "z-score, LPS": {"intensity": [ZSCORE], "pixdim": [1.2, 1.2, 1.2], "axcodes": "LPS"},
    "window and crop": {"intensity": [WINDOW, CROP], "pixdim": [1.5, 1.5, 1.5], "mode": "gaussian"},
}
SHAPES = {
    "upright": ((40, 52, 48), np.eye(3)),
    "oblique": ((36, 60, 44), np.linalg.svd(TURN)[0] @ np.linalg.svd(TURN)[2]),
}


def main() -> None:
    """A row for each bundle and series."""
    torch.set_num_threads(2)
    sys.stdout.write("| bundle | series | voxels | labels | differ |\n|---|---|---|---|---|\n")
    for title, case in CASES.items():
        for one in case["intensity"]:
            one["keys"] = "image"
        with tempfile.TemporaryDirectory() as kept:
            folder = Path(kept) / "bundle"
            bundle(folder, case)
            for name, (shape, turn) in SHAPES.items():
                from scipy.ndimage import gaussian_filter

                random = np.random.default_rng(5)
                smooth = gaussian_filter(random.normal(size=shape), 2.5)
                values = np.rint(smooth / smooth.std() * 250 + random.normal(size=shape) * 30).astype(np.float32)
                if CROP in case["intensity"]:
                    values[:4] = values[:, :6] = values[:, :, -7:] = -1000
                axes = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]]) * (2.0, 0.9, 0.9)
                affine = np.column_stack([turn @ axes, [-20.0, 5.0, 90.0]])
                whole = np.eye(4)
                whole[:3] = np.diag([-1.0, -1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
                stored = np.ascontiguousarray(values.transpose(2, 1, 0))[None]
                wanted = reference(folder, MetaTensor(torch.from_numpy(stored), affine=torch.from_numpy(whole)))
                model = find_volume_folder(str(folder), FolderOptions())
                found = np.stack(list(model.segment(Volume(shape, affine, lambda i, v=values: v[i]))))
                sys.stdout.write(
                    f"| {title} | {name} | {found.size} | {len(np.unique(found))} | {(found != wanted).sum()} |\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
