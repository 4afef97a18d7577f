"""Words that need no library, so that listing models and starting processes is fast."""

from typing import Final, Literal

Kind = Literal["map", "slide", "study"]

DOUBTFUL: Final = "doubtful"
"""The value of a fact that was measured without a clear result."""

KEY_VARIABLE: Final = "LIMNER_PSEUDONYM_KEY"
"""The environment variable with the key of pseudonyms."""
