"""What is run on each side: the same work, asked for in the words that each side understands.

A command line that changed on purpose gets an entry in `NEW`, and a line in `meant.py` where its outputs changed too.
"""

import shlex
from collections.abc import Mapping, Sequence

# These need weights that a package index serves.
FETCHED = ("virginia", "slides", "plan-virginia", "plan-slides")

_TOY, _SLIDE, _WIDE = (f"--model inputs/models/{name}/toy.yaml" for name in ("map", "slide", "wide"))
_SMALL = "--model 4khd:small --hd-num 4"
_ZOO = "--model transformers:inputs/models"
_SPACING = "--set reader_options.spacing_csv=inputs/samples/slides/spacing.csv"
_THRESHOLD = "--set model_options.threshold=0.3"
_LAND = (
    "'annual crop,forest,herbaceous vegetation,highway,industrial,pasture,permanent crop,residential,river,sea or lake'"
)

# limner run … --out NAME
RUNS: dict[str, str] = {
    "virginia": "inputs/samples/virginia --preset sentinel2-l1c --fetch",
    "slides": f"inputs/samples/slides --preset pathology --fetch {_SPACING}",
    "examples": "inputs/examples --preset radiology",
    "map": f"inputs/maps/projected.tif {_TOY} --hd-num 4",
    "map-overlap": f"inputs/maps/projected.tif {_TOY} --hd-num 4 --overlap 16 --batch 3",
    "map-area": f"inputs/maps/projected.tif {_TOY} --area inputs/maps/area.geojson --labels ridge",
    "map-coarse": f"inputs/maps/rotated.tif {_TOY} --resolution 20m --hd-num 1",
    "map-wide": f"inputs/maps/wide.tif {_WIDE} --resolution native --hd-num 9",
    "maps": f"inputs/maps {_TOY} --resolution native --engine local --workers 2",
    "map-classes": f"inputs/maps/colours.tif {_ZOO}/segformer --hd-num 4",
    "map-tiles": f"inputs/maps/colours.tif {_ZOO}/vit --hd-num 4",
    "map-boxes": f"inputs/maps/colours.tif {_ZOO}/detr --hd-num 4 {_THRESHOLD}",
    "map-words": "inputs/maps/colours.tif --model zero-shot --set model_options.checkpoint=inputs/models/clip "
    "--labels cat,dog,water --hd-num 4",
    "asked-describe": f"inputs/maps/colours.tif {_SMALL} --ask 'What does this image show?'",
    "asked-classify": f"inputs/samples/virginia {_SMALL} --sensor sentinel-2-l1c --stretch 0,2750 --labels {_LAND} "
    "--set model_options.margin=0",
    "asked-locate": f"inputs/maps/colours.tif {_SMALL} --answer locate --labels river,forest",
    "asked-extract": f"inputs/maps/colours.tif {_SMALL} --ask 'How many?' --schema inputs/models/schema.json",
    "slide": f"inputs/slides/disc.tif {_SLIDE} --hd-num 4",
    "slide-tiles": f"inputs/slides/disc.tif {_ZOO}/vit --resolution 1um --set tissue=auto --microns-per-pixel 0.5",
    "study-classes": f"inputs/study {_ZOO}/segformer --hd-num 4",
    "study-boxes": f"inputs/study {_ZOO}/yolos {_THRESHOLD}",
    "study-asked": f"inputs/study {_SMALL} --labels 'no opacity,opacity'",
    "study-listed": "inputs/study --model none",
}

# What is printed: limner …
TEXTS: dict[str, str] = {
    "info-map": "info inputs/maps/projected.tif",
    "info-scene": "info inputs/samples/virginia --sensor sentinel-2-l1c",
    "info-slides": f"info inputs/samples/slides {_SPACING}",
    "info-study": "info inputs/study",
    "plan-map": f"plan {RUNS['map']}",
    "plan-slide": f"plan {RUNS['slide']}",
    "plan-study": f"plan {RUNS['study-boxes']}",
    "plan-virginia": f"plan {RUNS['virginia']}".replace(" --fetch", ""),
    "plan-slides": f"plan {RUNS['slides']}".replace(" --fetch", ""),
}

# The words of the newer side where they differ, by the name of the run or text.
NEW: dict[str, str] = {
    "asked-extract": RUNS["asked-extract"].replace("--schema ", "--schema-file "),
    "study-asked": f"{RUNS['study-asked']} --force-domain",  # the model is made for chest films
}


def commands(*, new: bool) -> Mapping[str, Sequence[str]]:
    """The words after `limner` of every command of one side, by name."""
    own = NEW if new else {}
    runs = {name: f"run {own.get(name, words)} --out {name}" for name, words in RUNS.items()}
    every = runs | {name: own.get(name, words) for name, words in TEXTS.items()}
    return {name: shlex.split(words) for name, words in every.items()}
