"""Prints the memory that an nnU-Net takes for stacks of more and more slices, beside what was predicted.

python tests/bench/volume_memory.py [SLICES ...]

Each stack in a process of its own, with a network of random weights: 24 classes, patches of 96³ at 1.5 mm. Memory is
what a process has allocated; pages of files, which the system takes back when it needs them, are not counted.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from limner.model.volume.models import find_volume_folder
from limner.model.volume.options import FolderOptions
from limner.model.volume.unet import UNet, UNetConfig
from limner.model.volume.volume import Volume
from limner.pipelines.run.memory import held_bytes

MIB = 2**20
CLASSES, PATCH = 24, 96
SIDE, SPACING = 384, (1.0, 0.9, 0.9)
CONFIG = UNetConfig(
    kind="PlainConvUNet",
    features=(8, 8, 8),
    kernels=((3, 3, 3),) * 3,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    depths=(1, 1, 1),
    decoder=(1, 1),
    bias=True,
    norm="InstanceNorm3d",
    eps=1e-5,
    affine=True,
    activation="LeakyReLU",
    slope=0.01,
)


def make_folder(folder: Path) -> None:
    """A model as nnU-Net before 2.4 wrote it."""
    settings = {
        "patch_size": [PATCH] * 3,
        "spacing": [1.5] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "UNet_class_name": CONFIG.kind,
        "UNet_base_num_features": 8,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": CONFIG.depths,
        "n_conv_per_stage_decoder": CONFIG.decoder,
        "conv_kernel_sizes": CONFIG.kernels,
        "pool_op_kernel_sizes": CONFIG.strides,
    }
    ct = {"mean": 0, "std": 200, "percentile_00_5": -1000, "percentile_99_5": 1000}
    plans = {
        "image_reader_writer": "NibabelIOWithReorient",
        "configurations": {"3d_fullres": settings},
        "foreground_intensity_properties_per_channel": {"0": ct},
    }
    labels = {"background": 0, **{f"organ {i}": i for i in range(1, CLASSES)}}
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}), encoding="utf-8")
    (folder / "fold_0").mkdir()
    torch.manual_seed(0)
    weights = UNet(CONFIG, 1, CLASSES).state_dict()
    torch.save({"network_weights": weights}, folder / "fold_0" / "checkpoint_final.pth")


def slice_of(number: int) -> np.ndarray:
    """Whole numbers of HU."""
    random = np.random.default_rng(number)
    return np.rint(random.normal(size=(SIDE, SIDE)) * 300).astype(np.float32)


def measure(folder: str, slices: int) -> None:
    """Print MiB predicted, taken beyond the libraries, and seconds, of one stack."""
    torch.set_num_threads(2)
    model = find_volume_folder(folder, FolderOptions())
    affine = np.array([[0, 0, SPACING[2], 0], [0, SPACING[1], 0, 0], [SPACING[0], 0, 0, 0]])
    shape = (slices, SIDE, SIDE)
    cost = model.cost(shape, SPACING)
    assert cost is not None
    model.load()
    before, began, peak, done = held_bytes(os.getpid()), time.perf_counter(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], held_bytes(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    count = sum(1 for _ in model.segment(Volume(shape, affine, slice_of)))
    done.set()
    watcher.join()
    taken = (peak[0] - before) / MIB
    sys.stdout.write(f"| {count} | {cost.memory / MIB:.0f} | {taken:.0f} | {time.perf_counter() - began:.0f} |\n")


def main() -> None:
    """A row for each number of slices."""
    if len(sys.argv) == 3 and Path(sys.argv[1]).is_dir():
        measure(sys.argv[1], int(sys.argv[2]))
        return
    sys.stdout.write("| slices | predicted, MiB | taken, MiB | s |\n|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        for slices in sys.argv[1:] or ("150", "300", "600", "1200"):
            done = subprocess.run(
                [sys.executable, __file__, folder, slices], capture_output=True, text=True, check=True
            )
            sys.stdout.write(done.stdout)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
