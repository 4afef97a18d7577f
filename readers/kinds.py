"""Words for images that need no numpy, so that listing models is fast."""

from typing import Final, Literal

Kind = Literal["map", "slide", "study"]

DOUBTFUL: Final = "doubtful"
"""The value of a fact that was measured without a clear result."""
