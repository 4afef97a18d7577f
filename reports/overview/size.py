"""The size of the overview picture, and the memory that drawing it takes. Loads no library."""

LONGEST = 1600
"""The long side of a shown picture is at most this many px."""
SHORTEST = 1200
"""A picture whose long side is shorter is enlarged by a whole factor."""
SUPERSAMPLING = 2
"""Drawn pixels per shown pixel."""

_LAYERS = 9  # bytes of a drawn pixel: two layers of codes, with what compares them
_PICTURES, _OVERVIEW = 9, 5  # bytes of a shown pixel in three pictures, and of the overview's with its two masks


def shown_size(size: tuple[int, int], shortest: int = SHORTEST, longest: int = LONGEST) -> tuple[int, int]:
    """The size (width, height) in which an overview is shown: reduced to `longest`, or enlarged by a whole factor."""
    most = max(size)
    factor = longest / most if most > longest else max(1, -(-shortest // most))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def drawing_bytes(overview: tuple[int, int]) -> int:
    """Bytes that the picture of an image takes at the peak, whose overview has that size (width, height)."""
    width, height = shown_size(overview)
    return width * height * (SUPERSAMPLING**2 * _LAYERS + _PICTURES) + overview[0] * overview[1] * _OVERVIEW
