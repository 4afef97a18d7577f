"""Prints how often the stain of an overview is told rightly: made pictures, and the real ones where shared data are.

python tests/bench/stain_table.py [FOLDER of slides]
"""

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from limner.readers.contract import scan_with
from limner.readers.overview import read_overview
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.staining import HE, IHC, measure_stain
from limner.readers.slide.tissue import find_tissue, overview_side
from PIL import Image

Rgb = npt.NDArray[np.uint8]

# Optical densities of red, green, blue, after Ruifrok & Johnston 2001; the last two are found in tissue unstained
VECTORS = {
    "haematoxylin": (0.65, 0.70, 0.29),
    "eosin": (0.07, 0.99, 0.11),
    "dab": (0.27, 0.57, 0.78),
    "melanin": (0.45, 0.58, 0.68),
    "blood": (0.12, 0.72, 0.68),
}
COUNT = 400  # made pictures of each stain
REAL_IHC = ("ometiff_os2_ki67/OS-2-vsi.ome.tif",)
REAL_HE = (
    "aperio_cmu1_small_region/CMU-1-Small-Region.svs",
    "generic_pyramid_prostate/slide.tiff",
    "ometiff_os1_he/OS-1-detail.ome.tif",
    "dicom_wsi_camelyon/camelyon_multiframe_jpeg2000_lossless.dcm",
    "pen_marks/tcga-green-pen.png",
    "pen_marks/tcga-red-pen.png",
    "pen_marks/wsi-blue-pen.png",
    "generic_pyramid_prostate/slide_with_ink.jpeg",
    "generic_pyramid_prostate/tma_spots.jpeg",
)


def made(generator: np.random.Generator, stain: str) -> Rgb:
    """A picture of 96 × 96 px: glass on the left, and tissue of random amounts, hues, contrast, white and noise."""
    amounts = {name: np.zeros((96, 60)) for name in VECTORS}
    nuclei = generator.random((96, 60)) < generator.uniform(0.1, 0.6)
    amounts["haematoxylin"] = generator.gamma(2, 0.05, (96, 60)) + nuclei * generator.uniform(0.2, 0.6)
    if stain == HE:
        amounts["eosin"] = generator.gamma(4, generator.uniform(0.03, 0.12), (96, 60))
        for name in ("melanin", "blood"):
            share = generator.choice([0.0, 0.02, 0.1])
            amounts[name] = (generator.random((96, 60)) < share) * generator.uniform(0.2, 0.6)
    else:
        share = generator.uniform(0.05, 0.7)
        amounts["dab"] = (generator.random((96, 60)) < share) * generator.gamma(4, 0.15, (96, 60))
        amounts["dab"] += generator.uniform(0, 0.05)  # background
    density = np.zeros((96, 60, 3))
    for name, amount in amounts.items():
        vector = np.clip(np.array(VECTORS[name]) + generator.normal(0, 0.04, 3), 0.01, None)
        density += amount[..., None] * vector * generator.uniform(0.6, 1.2)
    white = generator.uniform(215, 250) + generator.normal(0, 3, 3)
    picture = np.tile(white, (96, 96, 1))
    picture[:, 36:] *= 10**-density
    return np.clip(picture + generator.normal(0, 1, picture.shape), 0, 255).astype(np.uint8)


def fields(folder: Path) -> Iterator[Rgb]:
    """The 81 fields of H&E-like histology."""
    with zipfile.ZipFile(folder / "nuclei_dsb2018_he" / "dsb2018_he.zip") as archive:
        for name in sorted(archive.namelist()):
            if "images/" in name and name.endswith(".png"):
                yield np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))


def overview(path: Path) -> tuple[Rgb, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Pixels, tissue and validity of a real slide or picture."""
    if path.suffix in {".png", ".jpeg"}:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        valid, microns = np.ones(pixels.shape[:2], dtype=bool), None
    else:
        reader = PyramidReader() if path.name == "slide.tiff" or ".ome." in path.name else SlideReader()
        options = {"microns_per_pixel": "0.5"} if path.name == "slide.tiff" else {}
        [info] = scan_with(reader, str(path), options)
        with reader.open(info) as image:
            pixels, valid, *_ = read_overview(image, limit=overview_side(info))
        microns = (8.0, 8.0) if info.placement.unit == "um" else None
    return pixels, find_tissue(pixels, valid, microns=microns).mask, valid


def told(pixels: Rgb, tissue: npt.NDArray[np.bool_] | None = None) -> str:
    valid = np.ones(pixels.shape[:2], dtype=bool)
    mask = find_tissue(pixels, valid, microns=(8.0, 8.0)).mask if tissue is None else tissue
    return measure_stain(pixels, mask, valid)[0] or "not told"


def rates() -> dict[str, Counter[str]]:
    """What is told of made pictures, by their stain."""
    generator = np.random.default_rng(0)
    return {stain: Counter(told(made(generator, stain)) for _ in range(COUNT)) for stain in (HE, IHC)}


def main() -> None:
    columns = (HE, IHC, "doubtful", "not told")
    found = {f"made, {stain}": counts for stain, counts in rates().items()}
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        whole = np.ones((2000, 2000), dtype=bool)
        found["81 real fields, H&E"] = Counter(
            told(one, whole[: one.shape[0], : one.shape[1]]) for one in fields(folder)
        )
        for stain, names in ((HE, REAL_HE), (IHC, REAL_IHC)):
            results = (measure_stain(*overview(folder / name))[0] or "not told" for name in names)
            found[f"{len(names)} real {'slide' if len(names) == 1 else 'slides'}, {stain}"] = Counter(results)
    lines = [("pictures", *columns), ("---",) * (len(columns) + 1)]
    lines += [(name, *(str(counts[column]) for column in columns)) for name, counts in found.items()]
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
