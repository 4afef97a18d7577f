"""PROJ opens no file that a coordinate system names."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_coordinate_system_opens_no_grid_that_it_names(tmp_path: Path) -> None:
    """A pipe among the grids would be waited for by whoever asks for a longitude."""
    grid = tmp_path / "grid.gsb"
    os.mkfifo(grid)
    code = (
        "import sys, pyproj\nfrom limner.readers import geodesy\nfrom limner.readers.errors import ReadError\n"
        "from limner.readers.geometry import Placement\n"
        "for text in sys.argv[1:]:\n    for wkt in (text, pyproj.CRS.from_user_input(text).to_wkt()):\n"
        "        try:\n            geodesy.lonlat_or_nan(Placement(((9, 0, 3e5), (0, -9, 4e6)), 'm', wkt), [[0, 0]])\n"
        "            print('placed')\n        except ReadError:\n            print('refused')"
    )
    crs = "+proj=utm +zone=18 +ellps=WGS84 +nadgrids={} +units=m +no_defs +type=crs"
    asked = [crs.format(name) for name in (grid, f"@{grid}", f"@null,{grid}", "../grid.gsb", "none.gsb", "@null")]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["refused"] * 10 + ["placed"] * 2
