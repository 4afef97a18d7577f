"""Scores nuclei found by a colour threshold and a watershed against hand-drawn ones, beside scikit-image's recipe.

python tests/bench/nuclei.py dsb2018_he.zip    (needs scikit-image)

The archive holds images/ and labels/ of 81 H&E fields of the 2018 Data Science Bowl (BBBC038, CC0). Methods are tuned
on every second field, by F1 at an intersection over union above 0.5, and scored on the others.
"""

import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, cast

import limner
import numpy as np
import numpy.typing as npt
from limner.pipelines.run.reporting import read_record
from PIL import Image
from rasterio.features import rasterize
from scipy import ndimage

Labels = npt.NDArray[np.int64]
Found = Mapping[str, Labels]

NECKS, SIZES, SIGMAS = (0.6, 0.75, 0.9), (20, 40, 80), (1.0, 2.0)
RECIPE = tuple(product((1.0, 2.0, 3.0), (3, 5, 7, 10), (20, 40)))
QUANTITIES = ("density", "haematoxylin", "red")


def overlaps(truth: Labels, found: Labels) -> tuple[Labels, Labels, Labels, Labels]:
    """Areas of all true and of all found objects, and those of the pairs that overlap by more than half."""
    both = np.zeros((int(truth.max()) + 1, int(found.max()) + 1), dtype=np.int64)
    np.add.at(both, (truth.ravel(), found.ravel()), 1)
    of_truth, of_found = both.sum(axis=1), both.sum(axis=0)
    shared = both[1:, 1:]
    i, j = np.nonzero(2 * shared > of_truth[1:, None] + of_found[None, 1:] - shared)
    return of_truth[1:][of_truth[1:] > 0], of_found[1:][of_found[1:] > 0], of_truth[1:][i], of_found[1:][j]


def score(truth: Found, found: Found) -> tuple[float, float, float, float, float]:
    """F1, recall and precision at 0.5, the correlation of the areas of pairs, and the ratio of their sums."""
    parts = [overlaps(truth[name], found[name]) for name in truth]
    true, made, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    alike = float(np.corrcoef(first, second)[0, 1])
    pairs = len(first)
    return 2 * pairs / (len(true) + len(made)), pairs / len(true), pairs / len(made), alike, second.sum() / first.sum()


def of_recipe(pixels: npt.NDArray[np.uint8], sigma: float, distance: int, least: int) -> Labels:
    """The classical recipe: haematoxylin, Otsu, peaks of the distance, watershed."""
    from skimage import color, feature, filters, morphology, segmentation  # pyright: ignore[reportMissingImports]

    amount = filters.gaussian(color.rgb2hed(pixels)[..., 0], sigma)
    mask = morphology.remove_small_objects(amount > filters.threshold_otsu(amount), max_size=least - 1)
    mask = np.asarray(ndimage.binary_fill_holes(mask))
    distances: Any = ndimage.distance_transform_edt
    depth, label = distances(mask), cast("Any", ndimage.label)
    peaks = feature.peak_local_max(depth, min_distance=distance, labels=label(mask)[0])
    markers = np.zeros(mask.shape, dtype=np.int64)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=mask).astype(np.int64)


def of_limner(folder: Path, neck: float, least: int) -> dict[str, Labels]:
    """The instances of a run, with these settings."""
    changes = {"instances": ("nucleus",), "neck": neck, "min_area": f"{least}px", "fill_holes": "100px"}
    found: dict[str, Labels] = {}
    for image in read_record(folder, changes=changes).images:
        shapes = [(one.geometry, number) for number, one in enumerate(image.findings(), 1)]
        size = image.info.size[::-1]
        drawn = rasterize(shapes, out_shape=size, dtype="int32") if shapes else np.zeros(size)
        found[Path(image.name).stem] = np.asarray(drawn, dtype=np.int64)
    return found


def tuned(name: str, trials: Iterable[tuple[str, Callable[[int], Found]]], truth: Sequence[Found]) -> None:
    """Print the best of some trials on the first half, and its scores on the second."""
    best, settings, make = max(
        ((score(truth[0], make(0))[0], name, make) for name, make in trials), key=lambda one: one[0]
    )
    numbers = score(truth[1], make(1))
    cells = [f"{one:.3f}" for one in (best, *numbers)]
    print(f"| {name} | {settings} | {' | '.join(cells)} |", flush=True)  # noqa: T201


def main() -> None:
    """Print a row for each method."""
    if len(sys.argv) < 2 or find_spec("skimage") is None:
        print("nuclei.py needs the archive dsb2018_he.zip and the package scikit-image")  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with zipfile.ZipFile(sys.argv[1]) as archive:
            archive.extractall(root)
        files = sorted((root / "images").glob("*.png"))
        pixels = {file.stem: np.array(Image.open(file).convert("RGB")) for file in files}
        every = {name: np.array(Image.open(root / "labels" / f"{name}.png")).astype(np.int64) for name in pixels}
        truth = [{name: every[name] for name in list(every)[half::2]} for half in (0, 1)]
        print("| method | settings | F1, tuned half | F1 | recall | precision | correlation of areas | ratio |")  # noqa: T201
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
        for quantity in QUANTITIES:
            side = "below" if quantity == "red" else "above"
            trials: list[tuple[str, Callable[[int], Found]]] = []
            for sigma in SIGMAS:
                out = root / f"{quantity}-{sigma}"
                options = {"side": side, "label": "nucleus", "sigma": sigma}
                given = {"microns_per_pixel": 0.5, "tissue": "off", "names": "show", "reports": "files-csv"}
                limner.run(root / "images", model=f"threshold:{quantity}", out=out, model_options=options, **given)
                trials += [
                    (
                        f"sigma {sigma:g} px, neck {neck:g}, at least {least} px",
                        lambda _, o=out, n=neck, m=least: of_limner(o, n, m),
                    )
                    for neck, least in product(NECKS, SIZES)
                ]
            tuned(f"limner, threshold:{quantity}", trials, truth)
        tuned(
            "scikit-image",
            (
                (
                    f"sigma {sigma:g} px, peaks {distance} px apart, at least {least} px",
                    lambda half, s=sigma, d=distance, m=least: {
                        name: of_recipe(pixels[name], s, d, m) for name in truth[half]
                    },
                )
                for sigma, distance, least in RECIPE
            ),
            truth,
        )


if __name__ == "__main__":
    main()
