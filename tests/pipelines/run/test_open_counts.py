"""A map is opened once by the plan, whose overview the reports show, and once by each process that annotates."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Limner = Callable[..., Any]

PLUGIN = '''
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from limner.readers.raster.geotiff import RasterReader

LOG = Path(__file__).with_name("log.txt")


class CountingReader(RasterReader):
    """Reads GeoTIFFs whose names end in .counted, and writes down what it is asked."""

    name = "counting"
    isolated = True

    def identify(self, uri, head):
        return 99 if uri.endswith(".counted") else 0

    def scan(self, uri, options):
        note("scan")
        return [replace(info, reader=self.name) for info in super().scan(uri, options)]

    def open(self, info, channels=None):
        note("open")
        return super().open(info, channels)


def note(what):
    with LOG.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")
'''


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_tile: str) -> Callable[[], list[tuple[str, str]]]:
    """What the reader was asked since the last time: (what, process) each."""
    del per_tile  # its PYTHONPATH is replaced by both
    folder = tmp_path / "reader"
    about = folder / "counting_reader-1.dist-info"
    about.mkdir(parents=True)
    (folder / "counting_reader.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-reader\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[limner.readers]\ncounting = counting_reader:CountingReader\n")
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("counting_reader", None)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    log = folder / "log.txt"

    def since() -> list[tuple[str, str]]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return [(what, process) for what, _, process in (line.partition(" ") for line in lines)]

    return since


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_each_stage_opens_an_image_once(
    engine: str, tmp_path: Path, scene: Path, per_tile: str, limner: Limner, asked: Callable[[], list[tuple[str, str]]]
) -> None:
    image = scene.rename(tmp_path / "scene.counted")
    out = tmp_path / "out"
    output = limner("run", image, "--model", per_tile, "--hd-num", 4, "--engine", engine, "--workers", 2, "--out", out)
    assert output.code == 0, output.err
    found = asked()
    opens = Counter(process for what, process in found if what == "open")
    assert [what for what, _ in found].count("scan") == 1
    if engine == "inline":
        assert list(opens.values()) == [2]
    else:
        assert sorted(opens.values()) in ([1, 1], [1, 1, 1])
    (picture,) = out.glob("overview-*.png")
    drawn = picture.read_bytes()
    assert limner("report", out).code == 0
    assert [what for what, _ in asked()] == ["open"]
    assert picture.read_bytes() == drawn
