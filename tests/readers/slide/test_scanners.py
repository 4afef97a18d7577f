"""MIRAX and Leica slides with bounds: a scanned area somewhere on a larger glass."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import openslide
import pytest
from limner.readers import reader_calls
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.registry import scan
from limner.readers.slide.openslide import SlideReader

READER = SlideReader()


@dataclass(frozen=True)
class MadeSlide:
    """A synthetic slide: the scanned pixels, and where they lie in level-0 pixels."""

    path: Path
    pixels: np.ndarray
    first: tuple[int, int]
    vendor: str

    @property
    def part(self) -> Box:
        """The scanned area."""
        (x, y), (height, width) = self.first, self.pixels.shape[:2]
        return Box(x, y, x + width, y + height)


@pytest.fixture(params=["mirax", "mirax that overlaps", "leica"])
def made(request: pytest.FixtureRequest, tmp_path: Path, scanners: ModuleType) -> MadeSlide:
    if request.param == "leica":
        pixels = scanners.smooth(320, 384)
        return MadeSlide(scanners.leica(tmp_path / "a.scn", pixels, first=(140, 90)), pixels, (140, 90), "leica")
    overlap = 8 if "overlaps" in request.param else 0
    step = 64 - overlap
    pixels = scanners.smooth(3 * step + overlap, 5 * step + overlap)
    path = scanners.mirax(tmp_path / "a.mrxs", pixels, first=(2, 2), overlap=overlap)
    return MadeSlide(path, pixels, (2 * step, 2 * step), "mirax")


def only(path: Path) -> ImageInfo:
    (info,) = scan_with(READER, str(path), {})
    return info


def test_openslide_detects_the_format(made: MadeSlide) -> None:
    assert openslide.OpenSlide.detect_format(made.path) == made.vendor
    with openslide.OpenSlide(made.path) as slide:
        bounds = tuple(int(slide.properties[f"openslide.bounds-{side}"]) for side in ("x", "y", "width", "height"))
        assert bounds == (*made.first, made.pixels.shape[1], made.pixels.shape[0])
        assert slide.level_count == 2
        assert float(slide.properties["openslide.mpp-x"]) == 0.25


def test_pixels_and_bounds(made: MadeSlide) -> None:
    assert READER.identify(str(made.path), made.path.read_bytes()[:4096]) == 90
    info = only(made.path)
    assert info.origin == made.first
    assert info.placement.matrix == ((0.25, 0.0, 0.0), (0.0, 0.25, 0.0))
    assert info.placement.source == f"{made.vendor} header"
    with READER.open(info) as image:
        pixels, valid = image.read(made.part, made.pixels.shape[1::-1])
        assert valid.all()
        assert np.abs(pixels.astype(int) - made.pixels).mean() < 2
        assert np.array_equal(pixels, opened(made.path, made.part))
        whole = image.read(info.box, info.size)[1]
    expected = np.zeros_like(whole)
    expected[int(made.part.y0) : int(made.part.y1), int(made.part.x0) : int(made.part.x1)] = True
    assert np.array_equal(whole, expected)


def opened(path: Path, part: Box) -> np.ndarray:
    """A part of level 0 by openslide-python itself."""
    with openslide.OpenSlide(path) as slide:
        size = (int(part.width), int(part.height))
        return np.asarray(slide.read_region((int(part.x0), int(part.y0)), 0, size))[..., :3]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_coarse_level_is_aligned_and_invalid_outside_the_scan(made: MadeSlide, factor: int) -> None:
    """A coarse MIRAX tile is padded with the colour of glass where nothing was scanned."""
    info = only(made.path)
    columns, rows = (side // factor for side in info.size)
    with READER.open(info) as image:
        pixels, valid = image.read(Box(0, 0, columns * factor, rows * factor), (columns, rows))
    x, y = (np.arange(columns) + 0.5) * factor, (np.arange(rows) + 0.5) * factor
    across = (x - factor / 2 >= made.part.x0) & (x + factor / 2 <= made.part.x1)
    down = (y - factor / 2 >= made.part.y0) & (y + factor / 2 <= made.part.y1)
    inner = down[:, None] & across
    assert valid[inner].all()
    outside = (x < made.part.x0) | (x > made.part.x1), (y < made.part.y0) | (y > made.part.y1)
    assert not valid[:, outside[0]].any()
    assert not valid[outside[1]].any()
    height, width = made.pixels.shape[:2]
    ramps = np.broadcast_arrays(
        (x - made.part.x0)[None, :] * 200 / width + 30, (y - made.part.y0)[:, None] * 200 / height + 30
    )
    for channel, ramp in enumerate(ramps):
        assert np.abs(pixels[..., channel] - ramp)[inner].mean() < 2


@pytest.mark.slow
def test_slides_with_bounds_pass_the_contract(made: MadeSlide) -> None:
    info = only(made.path)
    native = opened(made.path, info.box)
    valid = np.zeros(native.shape[:2], dtype=bool)
    valid[int(made.part.y0) : int(made.part.y1), int(made.part.x0) : int(made.part.x1)] = True
    points = ((8.0, 4.0, 2.0, 1.0), (*made.first, made.first[0] / 4, made.first[1] / 4))
    check_reader(READER, str(made.path), ExpectedImage(native, valid, points, exact=False))


@pytest.mark.slow
def test_single_level_passes_the_exact_contract(tmp_path: Path, scanners: ModuleType) -> None:
    path = scanners.mirax(tmp_path / "a.mrxs", scanners.smooth(128, 192), first=(3, 1), levels=1)
    info = only(path)
    valid = np.zeros(info.size[::-1], dtype=bool)
    valid[64:192, 192:384] = True
    check_reader(READER, str(path), ExpectedImage(opened(path, info.box), valid))


@pytest.mark.slow
def test_folder_has_a_row_for_every_file(tmp_path: Path, scanners: ModuleType) -> None:
    scanners.mirax(tmp_path / "in" / "one.mrxs", scanners.smooth(128, 128))
    rows = {Path(row.path).name: (row.status, row.reader) for row in scan([str(tmp_path / "in")], {})}
    assert rows["one.mrxs"] == ("read", "slide")
    assert {rows[name][0] for name in ("Data0000.dat", "Index.dat", "Slidedat.ini")} == {"skipped"}
    (info,) = (info for row in scan([str(tmp_path / "in")], {}) for info in row.infos)
    assert [Path(name).name for name in info.files] == ["one.mrxs", "Data0000.dat", "Index.dat", "Slidedat.ini"]


def test_personal_data_stays_in_the_file(made: MadeSlide, scanners: ModuleType) -> None:
    with openslide.OpenSlide(made.path) as slide:
        assert any(scanners.PLANTED in value for value in slide.properties.values())
    text = repr(only(made.path))
    assert scanners.PLANTED not in text
    assert "2009" not in text


@pytest.mark.parametrize("spoil", [lambda b: b[:40], lambda b: b.replace(b"01.02", b"99.99"), lambda _: b""])
def test_broken_index_is_refused(tmp_path: Path, scanners: ModuleType, spoil: Callable[[bytes], bytes]) -> None:
    path = scanners.mirax(tmp_path / "a.mrxs", scanners.smooth(128, 128))
    index = path.with_suffix("") / "Index.dat"
    index.write_bytes(spoil(index.read_bytes()))
    (row,) = scan([str(path)], {})
    assert row.status == "failed"
    assert "must be a slide that OpenSlide can open" in row.reason


@pytest.mark.slow
def test_slide_that_hangs_openslide_fails_alone(
    tmp_path: Path, scanners: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_calls, "SCAN_SECONDS", 3.0)
    scanners.mirax(tmp_path / "a.mrxs", scanners.smooth(192, 320))
    settings = tmp_path / "a" / "Slidedat.ini"
    levels = settings.read_text(encoding="utf-8").rsplit("OVERLAP_X = 0.0", 1)
    settings.write_text("OVERLAP_X = nan".join(levels), encoding="utf-8")
    [row] = [row for row in scan([str(tmp_path / "a.mrxs")], {}) if row.path.endswith(".mrxs")]
    assert row.status == "failed"
    assert "in time" in row.reason
