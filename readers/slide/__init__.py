"""Whole-slide images: OpenSlide formats, OME-TIFF, QPTIFF and tiled TIFF pyramids."""
