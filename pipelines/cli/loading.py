"""Imports of many modules at once."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def loading() -> Generator[None]:
    """Import modules in a `with` block, without a search for garbage in what they define, then and later.

    Searches at every few hundred new objects would take a tenth of the time of the imports.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
