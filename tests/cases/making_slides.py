"""Slides on which tools of this field fail, from the sample slide. A maker takes a folder and the slide's pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageDraw

Rgb = npt.NDArray[np.uint8]
SECRETS = ("JOHN DOE", "John Doe", "DOE_JOHN", "S21-1234", "1957-01-02")  # drawn or written in slides here
GLASS = 243
_LOSSY = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 85}, "metadata": None}
_EXACT = {"photometric": "rgb", "compression": "deflate", "metadata": None}


def read_pixels(slide: Path) -> Rgb:
    """The first level of the sample slide, (H, W, 3)."""
    with tifffile.TiffFile(slide) as file:
        return np.ascontiguousarray(file.pages[0].asarray()[..., :3])


def label_picture() -> Image.Image:
    """What stands on the glass."""
    picture = Image.new("RGB", (387, 463), "white")
    ImageDraw.Draw(picture).text((10, 10), "JOHN DOE 1957-01-02 S21-1234", fill="black")
    return picture


def svs(path: Path, pixels: Rgb, *, mpp: str = "0.5", stated: str = "") -> Path:
    """An Aperio slide: the pixels, a thumbnail, a quarter of the pixels, the label, the whole glass."""
    height, width = pixels.shape[:2]
    size = f"{width}x{height}"
    scale = f"|MPP = {mpp}" if mpp else ""
    says = f"Aperio Image Library v12.0.0\r\n{size} [0,0 {size}] (240x240) JPEG/RGB Q=85|AppMag = 20{scale}{stated}"
    picture, label = Image.fromarray(pixels), label_picture()
    small = picture.resize((400, 400 * height // width))
    quarter = picture.resize((width // 4, height // 4), Image.Resampling.BOX)
    head = "Aperio Image Library v12.0.0\r\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, tile=(240, 240), description=says, **_LOSSY)
        file.write(np.asarray(small), rowsperstrip=16, description=f"{head}thumbnail", **_LOSSY)
        file.write(np.asarray(quarter), tile=(240, 240), description=says, **_LOSSY)
        file.write(
            np.asarray(label),
            rowsperstrip=463,
            subfiletype=1,
            description=f"{head}label 387x463",
            **{**_EXACT, "compression": "lzw"},
            predictor=True,
        )
        glass = np.asarray(label.resize((1280, 431)))
        file.write(glass, rowsperstrip=16, subfiletype=9, description=f"{head}macro 1280x431", **_LOSSY)
    return path


def ome(path: Path, scenes: Sequence[npt.NDArray[Any]], microns: tuple[float, float] = (0.5, 0.5)) -> Path:
    """An OME-TIFF of one picture or more, each with a level of the means of 2 × 2 pixels below it."""
    sizes = {"PhysicalSizeX": microns[0], "PhysicalSizeY": microns[1]}
    units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    common = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, pixels in enumerate(scenes):
            about = {"axes": "YXS", "Name": f"scene{number}", **sizes, **units}
            file.write(np.ascontiguousarray(pixels), subifds=1, metadata=about, **common)
            high, wide = (side // 2 for side in pixels.shape[:2])
            means = pixels[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2, -1).mean(axis=(1, 3))
            file.write(np.rint(means).astype(pixels.dtype), subfiletype=1, **common)
    return path


def truncated(folder: Path, pixels: Rgb) -> Path:
    """The first half of a slide's bytes."""
    whole = svs(folder / "whole", pixels[:1600, :1600]).read_bytes()
    (folder / "whole").unlink()
    path = folder / "DOE_JOHN.svs"
    path.write_bytes(whole[: len(whole) // 2])
    return path


def label(folder: Path, pixels: Rgb) -> Path:
    """A name and a case number in the file's name, in its description and on its label."""
    stated = "|Filename = DOE_JOHN|User = 7c0|Patient = John Doe|Date = 01/02/21|Barcode = S21-1234"
    return svs(folder / "DOE_JOHN S21-1234.svs", pixels[:800, :800], stated=stated)


def no_scale(folder: Path, pixels: Rgb) -> Path:
    return svs(folder / "nompp.svs", pixels[:600, :600], mpp="")


def scale_zero(folder: Path, pixels: Rgb) -> Path:
    return svs(folder / "mpp0.svs", pixels[:600, :600], mpp="0")


def scale_comma(folder: Path, pixels: Rgb) -> Path:
    return svs(folder / "mppcomma.svs", pixels[:1200, :1200], mpp="0,5")


def not_square(folder: Path, pixels: Rgb) -> Path:
    return ome(folder / "nonsq.ome.tif", [pixels[:600, :600]], (0.5, 0.25))


def _pale(pixels: Rgb, contrast: float) -> Rgb:
    return (255 - (255 - pixels[:1600, :1600].astype(float)) * contrast).clip(0, 255).astype(np.uint8)


def pale12(folder: Path, pixels: Rgb) -> Path:
    """12 % of the slide's contrast."""
    return svs(folder / "pale12.svs", _pale(pixels, 0.12))


def pale05(folder: Path, pixels: Rgb) -> Path:
    return svs(folder / "pale05.svs", _pale(pixels, 0.05))


def black_pad(folder: Path, pixels: Rgb) -> Path:
    """What the scanner did not look at, the right half, is black."""
    padded = pixels[:1600, :1600].copy()
    padded[:, 800:] = 0
    return svs(folder / "blackpad.svs", padded)


def roi_png(folder: Path, pixels: Rgb) -> Path:
    path = folder / "roi.png"
    Image.fromarray(pixels[:1200, :1200]).save(path)
    return path


def roi_jpg(folder: Path, pixels: Rgb) -> Path:
    path = folder / "roi.jpg"
    Image.fromarray(pixels[:1200, :1200]).save(path, quality=90)
    return path


def flat_tif(folder: Path, pixels: Rgb) -> Path:
    """One level, tiled, with the resolution of 0.5 µm a pixel."""
    path = folder / "flat.tif"
    scale = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels[:1200, :1200], tile=(256, 256), **_EXACT, **scale)
    return path


def cut_out(folder: Path, pixels: Rgb) -> Path:
    """The slide that the flat pictures were cut from, without loss."""
    return ome(folder / "cut.ome.tif", [pixels[:1200, :1200]])


def rgb16(folder: Path, pixels: Rgb) -> Path:
    return ome(folder / "rgb16.ome.tif", [pixels[:1200, :1200].astype(np.uint16) * 257])


def two_scenes(folder: Path, pixels: Rgb) -> Path:
    return ome(folder / "twoscenes.ome.tif", [pixels[:900, :900], pixels[1000:2200, 900:2400]])


def corrupt(folder: Path, pixels: Rgb) -> Path:
    """Two neighbouring tiles of the full level are zeros: x 480 to 960, y 480 to 720."""
    path = svs(folder / "corrupt.svs", pixels[:1200, :1200])
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = [(page.dataoffsets[tile], page.databytecounts[tile]) for tile in (12, 13)]
    with path.open("r+b") as file:
        for offset, length in places:
            file.seek(offset)
            file.write(bytes(length))
    return path


def same_names(folder: Path, pixels: Rgb) -> Path:
    """Two slides of one name in two folders, and a link to the first beside the second."""
    first = svs(folder / "Fälle 一" / "A" / "slide 1.svs", pixels[:600, :600])
    second = svs(folder / "Fälle 一" / "B" / "slide 1.svs", pixels[900:1500, 900:1500])
    (second.parent / "link.svs").symlink_to(f"../A/{first.name}")
    return folder / "Fälle 一"


def pens(folder: Path, pixels: Rgb) -> Path:
    """Tissue at 300 to 1500 on glass, and lines of a black, a blue, a green and a red pen around it."""
    glass = np.full((3000, 3000, 3), GLASS, dtype=np.uint8)
    glass[300:1500, 300:1500] = pixels[500:1700, 500:1700]
    picture = Image.fromarray(glass)
    draw = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), colour in PENS:
        draw.line([(x0, y0), (x1, y1)], fill=colour, width=60)
    return svs(folder / "pen.svs", np.asarray(picture))


PENS = (
    ((1800, 300, 2700, 1200), (20, 20, 20)),
    ((1800, 1500, 2700, 2400), (20, 60, 180)),
    ((300, 1900, 1200, 2800), (20, 120, 60)),
    ((1500, 2000, 1600, 2900), (200, 30, 30)),
)


def vsi(folder: Path, pixels: Rgb) -> Path:
    """A TIFF of label and overview; the pixels lie in a folder beside it, in a format of their own."""
    path = folder / "DOE_JOHN.vsi"
    with tifffile.TiffWriter(path) as file:
        for picture in (np.asarray(label_picture()), np.ascontiguousarray(pixels[:212, :620])):
            file.write(picture, rowsperstrip=16, **_EXACT)
    frames = folder / "_DOE_JOHN_" / "stack1" / "frame_t.ets"
    frames.parent.mkdir(parents=True)
    frames.write_bytes(b"SIS\0" + bytes(2000))
    return path


MAKERS = {
    maker.__name__: maker
    for maker in (
        truncated,
        label,
        no_scale,
        scale_zero,
        scale_comma,
        not_square,
        pale12,
        pale05,
        black_pad,
        roi_png,
        roi_jpg,
        flat_tif,
        cut_out,
        rgb16,
        two_scenes,
        corrupt,
        same_names,
        pens,
        vsi,
    )
}
