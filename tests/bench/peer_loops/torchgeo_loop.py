"""TorchGeo's grid sampler over a scene: python torchgeo_loop.py SCENE OUT.npz."""

import sys
import time
from typing import Any

import numpy as np
import torchvision_operators  # noqa: F401 - before torchvision

# isort: split
from made import CHIP, STRIDE
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples  # pyright: ignore[reportMissingImports]
from torchgeo.samplers import GridGeoSampler  # pyright: ignore[reportMissingImports] - of another environment


def main(scene: str, out: str) -> None:
    """Read every chip, and save the sums of each with its place."""
    dataset: Any = RasterDataset(scene)
    left, top, pixel = dataset.bounds[0].start, dataset.bounds[1].stop, dataset.res[0]
    begun, rows = time.process_time(), []
    sampler = GridGeoSampler(dataset, CHIP, STRIDE)
    for batch in DataLoader(dataset, sampler=sampler, collate_fn=stack_samples, batch_size=4):
        for bounds, chip in zip(batch["bounds"], batch["image"], strict=True):
            x, y = (bounds[0].start - left) / pixel, (top - bounds[1].stop) / pixel
            rows.append((round(x), round(y), float(chip.double().sum())))
    np.savez(out, rows=np.array(rows), cpu=time.process_time() - begun)


if __name__ == "__main__":
    main(*sys.argv[1:])
