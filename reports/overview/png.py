"""Pictures as PNG files, with what they were made with and for."""

import zlib
from pathlib import Path

from PIL import Image, PngImagePlugin

from ...readers.files import atomic_path
from ..writer import Record
from .text import to_font_characters


def save_png(picture: Image.Image, path: Path, record: Record) -> None:
    """Write a picture of a run."""
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("Software", f"limner {record.version}")
    metadata.add_text("Comment", to_font_characters(record.use))
    with atomic_path(path) as part:
        # pixels of maps hardly repeat: runs alone give smaller files in less time than a search for repetitions
        picture.save(part, "PNG", pnginfo=metadata, compress_type=zlib.Z_RLE)
