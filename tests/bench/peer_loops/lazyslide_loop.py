"""LazySlide's loop over all tiles of a slide: python lazyslide_loop.py SLIDE MODEL OUT.npy."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torchvision_operators  # noqa: F401 - before torchvision

# isort: split
import lazyslide  # pyright: ignore[reportMissingImports] - of another environment
import torch
import wsidata  # pyright: ignore[reportMissingImports]
from made import MICRONS, PATCH


def transform(pixels: Any) -> torch.Tensor:
    """A tile (256, 256, 3) of 8 bits, normalised as the model's configuration states."""
    return (torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255 - 0.5) / 0.5


def main(path: str, model: str, out: str) -> None:
    """Classify, and save rows x, y, probability of each class."""
    slide = wsidata.open_wsi(path, store=None)
    lazyslide.pp.tile_tissues(slide, PATCH, mpp=MICRONS, background_filter=False, tissue_key=None)
    network: Any = torch.jit.load(Path(model) / "torchscript_model.pt").eval()
    logits = lazyslide.tl.feature_extraction(
        slide, network, model_name="tiny", transform=transform, device="cpu", pbar=False, return_features=True
    )
    corners = slide.shapes["tiles"].bounds[["minx", "miny"]].to_numpy()
    scores = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    np.save(out, np.concatenate([corners, scores], axis=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
