"""Folders for what was fetched over the network."""

import os
import sys
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """The folder of fetched files: $LIMNER_CACHE, or the platform's cache folder.

    On Windows an existing folder of earlier versions, without `Cache` at its end, is still used.
    """
    chosen = os.environ.get("LIMNER_CACHE")
    if chosen:
        return Path(chosen)
    folder = user_cache_path("limner", appauthor=False)
    return folder.parent if sys.platform == "win32" and folder.parent.is_dir() else folder
