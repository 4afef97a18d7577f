"""WSInfer's loop over all patches of a slide: python wsinfer_loop.py FOLDER_OF_SLIDE MODEL OUT.npy.

Patches are written as WSInfer writes them, for the whole slide: tissue is not what is measured here.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import torchvision_operators  # noqa: F401 - before torchvision
from made import PATCH
from wsinfer.modellib.models import LocalModelTorchScript  # pyright: ignore[reportMissingImports] - of another environment
from wsinfer.modellib.run_inference import run_inference  # pyright: ignore[reportMissingImports]
from wsinfer.patchlib import save_hdf5  # pyright: ignore[reportMissingImports]
from wsinfer_zoo.client import ModelConfiguration  # pyright: ignore[reportMissingImports]


def main(folder: str, model: str, out: str) -> None:
    """Classify, and save rows x, y, probability of each class."""
    [slide] = Path(folder).iterdir()
    with openslide.OpenSlide(slide) as opened:
        width, height = opened.dimensions
    corners = [(x, y) for y in range(0, height, PATCH) for x in range(0, width, PATCH)]
    config = ModelConfiguration.from_dict(json.loads((Path(model) / "config.json").read_text()))
    with tempfile.TemporaryDirectory() as results:
        patches = Path(results) / "patches" / f"{slide.stem}.h5"
        patches.parent.mkdir()
        save_hdf5(patches, np.array(corners), patch_size=PATCH, patch_spacing_um_px=0.5)
        script = LocalModelTorchScript(config=config, model_path=str(Path(model) / "torchscript_model.pt"))
        run_inference(folder, results, script)
        table = pd.read_csv(Path(results) / "model-outputs-csv" / f"{slide.stem}.csv")
    np.save(out, table.drop(columns=["width", "height"]).to_numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
