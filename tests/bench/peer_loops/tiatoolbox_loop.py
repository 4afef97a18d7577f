"""TIAToolbox's patch predictor over a slide: python tiatoolbox_loop.py SLIDE MODEL OUT.npy."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torchvision_operators  # noqa: F401 - before torchvision

# isort: split
import torch
from made import MICRONS, PATCH
from tiatoolbox.models import IOPatchPredictorConfig, PatchPredictor  # pyright: ignore[reportMissingImports]
from tiatoolbox.models.models_abc import ModelABC  # pyright: ignore[reportMissingImports] - of another environment


class Classifier(ModelABC):
    """The TorchScript network."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network: Any = torch.jit.load(path)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Scores of a batch."""
        return torch.softmax(self.network(values), dim=1)

    @staticmethod
    def preproc(image: Any) -> torch.Tensor:
        """A tile (256, 256, 3) of 8 bits, normalised as the model's configuration states."""
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - 0.5) / 0.5

    @staticmethod
    def infer_batch(model: Any, batch_data: torch.Tensor, *, device: str) -> Any:
        """Scores of a batch, as an array."""
        with torch.inference_mode():
            return model(batch_data.to(device)).cpu().numpy()


def main(path: str, model: str, out: str) -> None:
    """Classify, and save rows x, y, probability of each class."""
    resolution = [{"units": "mpp", "resolution": MICRONS}]
    shape = (PATCH, PATCH)
    config = IOPatchPredictorConfig(
        input_resolutions=resolution, output_resolutions=resolution, patch_input_shape=shape, stride_shape=shape
    )
    predictor = PatchPredictor(Classifier(Path(model) / "torchscript_model.pt"), batch_size=32, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        found = predictor.run(
            [Path(path)],
            ioconfig=config,
            patch_mode=False,
            auto_get_mask=False,
            save_dir=Path(folder) / "out",
            output_type="zarr",
            return_probabilities=True,
        )
        import zarr  # pyright: ignore[reportMissingImports]

        opened: Any = zarr.open(str(next(iter(found.values()))), mode="r")
        np.save(out, np.concatenate([opened["coordinates"][:, :2], opened["probabilities"][:]], axis=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
