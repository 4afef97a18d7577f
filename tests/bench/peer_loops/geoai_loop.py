"""geoai's tiled inference with the network of `end_to_end.py`: python geoai_loop.py SCENE WEIGHTS.npz OUT.tif."""

import sys
from typing import Any

import numpy as np
import torchvision_operators  # noqa: F401 - before torchvision

# isort: split
import torch
from end_to_end_case import HALO, MEAN, STD, TILE
from geoai.inference import predict_geotiff  # pyright: ignore[reportMissingImports] - of another environment

PLACES = ((0, "first"), (2, "second"))


def main(scene: str, weights: str, out: str) -> None:
    """Segment, and write the class of each pixel."""
    stored = np.load(weights)
    first = torch.nn.Conv2d(6, 8, 5, padding=2, bias=False)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3, padding=1, bias=False))
    network.load_state_dict({f"{place}.weight": torch.from_numpy(stored[name]) for place, name in PLACES})
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))

    def normalise(tile: Any) -> Any:
        return (tile - mean) / std

    def classes(scores: Any) -> Any:
        return scores.argmax(axis=0)[None]

    predict_geotiff(
        network,
        scene,
        out,
        tile_size=TILE,
        overlap=2 * HALO,
        num_classes=3,
        output_dtype="uint8",
        output_nodata=255,
        preprocess_fn=normalise,
        postprocess_fn=classes,
        device="cpu",
        compress="deflate",
        verbose=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
