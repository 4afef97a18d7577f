"""Run folders and configuration files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import seeds_models
import seeds_slides
import seeds_studies
from seeds import Seed
from seeds_models import SCENE

KEY = "0123456789abcdef0123456789abcdef"


def ran(make: Callable[[Path], object], *words: str) -> Callable[[Path], None]:
    """The folder `out` of a run, with what was run."""

    def run(folder: Path) -> None:
        make(folder)
        environment = os.environ | {"LIMNER_PSEUDONYM_KEY": KEY}
        # what is loaded has its version in the manifest
        loaded = "import pyproj, rasterio; from limner.pipelines.cli.main import main; main()"
        command = [sys.executable, "-c", loaded, "run", *(word.replace("@", f"{folder}/") for word in words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run


REPORTS = ("findings-csv", "summary-csv", "files-csv", "geojson")
FLAGS = tuple(word for name in REPORTS for word in ("--reports", name))
MAP = (f"@{SCENE}", "--model", "@toy.yaml", "--hd-num", "1", *FLAGS, "--out", "@out")
SLIDE = (f"@{SCENE}", "--model", "none", *FLAGS, "--out", "@out")
STACK = ("@ct", "--model", "none", *FLAGS, "--reports", "studies-csv", "--out", "@out")
MADE = tuple(f"out/{name}" for name in ("findings", "summary", "files", "studies", "slices"))  # nothing reads reports
RUNS: dict[str, Seed] = {
    "a map": Seed(
        ran(seeds_models.with_scene(seeds_models.card), *MAP),
        [["limner", "report", "@out"], ["limner", "run", *MAP]],
        kept=(SCENE, "toy", *MADE),
        placed=True,
    ),
    "a slide": Seed(
        ran(seeds_slides.pyramid(SCENE, compression="deflate"), *SLIDE),
        [["limner", "report", "@out"], ["limner", "run", *SLIDE]],
        kept=(SCENE, *MADE),
        placed=True,
    ),
    "a study": Seed(
        ran(seeds_studies.stack(), *STACK),
        [["limner", "report", "@out"], ["limner", "run", *STACK]],
        kept=("ct", *MADE),
        placed=True,
    ),
}


def _square(x: float, y: float) -> list[list[float]]:
    side = 0.0008
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


AREA = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"label": ("wet", "dry")[k % 2]},
            "geometry": {
                "type": "Polygon",
                "coordinates": [_square(0.001 * (k % 8) - 77.2205, 36.1235 - k // 8 / 500)],
            },
        }
        for k in range(16)
    ],
}
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}, "what": {"enum": ["ship", "crane"]}},
    "required": ["count", "what"],
    "additionalProperties": False,
}
SETTINGS = """preset: neutral
model: none
resolution: 10m
hd_num: 4
stretch: "0,255"
bands: [red, green, blue]
labels: []
reader_options: {sensor: sentinel-2-l1c}
reports: [summary-csv, geojson]
"""
CSV = "image,x,y,label\n" + "".join(
    f"scene,{8 + 16 * (k % 6)},{8 + 32 * (k // 6)},{'wet' if k % 2 else 'dry'}\n" for k in range(12)
)


def _written(name: str, content: str) -> Callable[[Path], None]:
    return seeds_models.with_scene(lambda folder: (folder / name).write_text(content, encoding="utf-8"))


def _taught(labels: str) -> list[list[str]]:
    train = [
        "limner",
        "train",
        "probe",
        f"@{SCENE}",
        "--labels",
        f"@{labels}",
        "--tile",
        "8",
        "--folds",
        "3",
        "--out",
        "@probe",
    ]
    return [train]


def asked(folder: Path) -> None:
    """A schema, and a checkpoint to ask."""
    seeds_models.vlm("internvl")(folder)
    (folder / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")


def spaced(folder: Path) -> None:
    """A slide without pixel size, and a table that has it."""
    import numpy as np
    import tifffile

    whole = np.ascontiguousarray(seeds_slides.colours())
    tifffile.imwrite(folder / SCENE, whole, photometric="rgb", tile=(64, 64), metadata=None)
    (folder / "spacing.csv").write_text(f"path,mpp_x,mpp_y\n{SCENE},0.5,0.5\n", encoding="utf-8")


CONFIG: dict[str, Seed] = {
    "settings": Seed(
        _written("settings.yaml", SETTINGS),
        [["limner", words, f"@{SCENE}", "--config", "@settings.yaml"] for words in ("info", "plan")],
        kept=(SCENE,),
    ),
    "area": Seed(
        _written("area.geojson", json.dumps(AREA)),
        [["limner", "plan", f"@{SCENE}", "--model", "none", "--area", "@area.geojson"]],
        kept=(SCENE,),
    ),
    "labels": Seed(_written("labels.geojson", json.dumps(AREA)), _taught("labels.geojson"), kept=(SCENE,)),
    "labels, csv": Seed(_written("labels.csv", CSV), _taught("labels.csv"), kept=(SCENE,)),
    "schema": Seed(
        asked,
        seeds_models.shown(
            "--model", "vlm:@model", "--ask", "how many", "--schema-file", "@schema.json",
            "--set", "model_options.device=cpu", "--set", "model_options.tile=56",
            "--set", "model_options.max_tokens=40",
        ),
        kept=(SCENE, "model"),
    ),
    "spacing": Seed(
        spaced,
        [["limner", "info", f"@{SCENE}", "--set", "reader_options.spacing_csv=@spacing.csv"]],
        kept=(SCENE,),
    ),
}  # fmt: skip
