"""Which reader opens what, and that every file gets a row."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers import registry
from limner.readers.errors import RequestError
from limner.readers.files import find_linked
from limner.readers.image import ImageInfo
from limner.readers.options import Options
from limner.readers.raster.geotiff import RasterReader
from limner.readers.registry import find_reader, open_image, readers, scan
from limner.readers.scanned_files import ScannedFile

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]


class Other:
    """A plug-in reader with a fixed confidence for every file."""

    name = "other"

    def __init__(self, confidence: int = 70) -> None:
        self.confidence = confidence

    def identify(self, uri: str, head: bytes) -> int:
        """Always the same, for files."""
        del uri
        return self.confidence if head else 0

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        """As the raster reader."""
        del options
        return RasterReader().scan(uri, RasterReader.Options())

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> Any:
        """As the raster reader."""
        return RasterReader().open(info, channels)


def row(rows: Sequence[ScannedFile], name: str) -> ScannedFile:
    (found,) = [row for row in rows if Path(row.path).name == name]
    return found


def test_built_in_readers_are_installed() -> None:
    assert {"raster", "scene"} <= set(readers())


@pytest.mark.slow
def test_importing_readers_loads_no_format_library() -> None:
    code = (
        "import sys, limner.readers.registry as r; r.readers(); "
        "print(sorted({'rasterio', 'openslide', 'pydicom', 'torch', 'pyproj'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(("confidence", "winner"), [(60, "raster"), (80, "other")])
def test_the_highest_confidence_wins(confidence: int, winner: str) -> None:
    tiff = b"II*\0\x08\0\0\0\x01\0" + b"\xaf\x87\x03\0\x04\0\0\0\0\0\0\0"  # one tag, the GeoKey directory
    assert find_reader("a.tif", tiff, {"other": Other(confidence), "raster": RasterReader()}) == winner
    assert find_reader("a.tif", b"hello", {"raster": RasterReader()}) is None


def test_a_tie_is_refused_with_both_names_and_the_flag() -> None:
    with pytest.raises(RequestError, match=r"other and raster.*--reader other or --reader raster"):
        find_reader("a.tif", b"II*\0", {"other": Other(50), "raster": RasterReader()})


@pytest.mark.parametrize(
    ("head", "confidence"),
    [
        (b"II*\0\x08\0\0\0", 50),
        (b"MM\0*\0\0\0\x08", 50),
        (b"II+\0\x08\0\0\0", 50),
        (b"MM\0+\0\x08\0\0", 50),
        (b"\0\0\0\x0cjP  \r\n\x87\n", 50),
        (b"\x89PNG\r\n\x1a\n", 40),
        (b"\xff\xd8\xff\xe0", 40),
        (b"\n <VRTDataset rasterXSize", 60),
        (b"%PDF-1.4", 0),
        (b"PK\x03\x04", 0),
        (b"", 0),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, 50),
    ],
)
def test_raster_confidence_by_first_bytes(head: bytes, confidence: int) -> None:
    assert RasterReader().identify("some.tif", head) == confidence


def test_a_georeferenced_tiff_has_higher_confidence(
    write_raster: WriteRaster, places: Places, shared_data: Path
) -> None:
    # COG and BigTIFF keep their directory in front
    path = write_raster("a.tif", places(20, 20), BIGTIFF="YES", driver="GTiff")
    assert RasterReader().identify(path, Path(path).read_bytes()[:4096]) in {50, 70}
    misnamed = shared_data / "geo" / "sentinel2_virginia_l1c" / "s2_B01.jp2"
    assert RasterReader().identify(str(misnamed), misnamed.read_bytes()[:4096]) == 70


@pytest.mark.parametrize("uri", ["/vsicurl/https://x/a.tif", "s3://bucket/a.tif", "https://x/a.tif", "/vsizip/a.zip/b"])
def test_raster_confidence_of_remote_paths(uri: str) -> None:
    assert RasterReader().identify(uri, b"") == 30


def test_every_file_of_a_folder_has_a_row(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    write_raster("in/b.tif", places(8, 8))
    write_raster("in/sub/a.tif", places(8, 8))
    write_raster("in/A.tif", places(8, 8))
    (tmp_path / "in" / "notes.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "in" / "empty.log").touch()
    (tmp_path / "in" / ".hidden").mkdir()
    (tmp_path / "in" / ".hidden" / "x.tif").touch()
    rows = scan([str(tmp_path / "in")], {})
    assert [Path(row.path).name for row in rows] == ["A.tif", "b.tif", "empty.log", "notes.txt", "a.tif"]
    assert [row.status for row in rows] == ["read", "read", "skipped", "skipped", "read"]
    assert row(rows, "empty.log").reason == "it is empty"
    assert "first bytes" in row(rows, "notes.txt").reason
    assert [row.infos[0].id for row in rows if row.infos] == ["a", "b", "a-2"]
    assert rows == scan([str(tmp_path / "in")], {})


def test_ids_do_not_depend_on_the_order_of_the_inputs(
    write_raster: WriteRaster, places: Places, tmp_path: Path
) -> None:
    paths = [write_raster(f"{folder}/Größe 1.tif", places(8, 8)) for folder in ("p", "q", "r")]
    forth = {info.uri: info.id for row in scan(paths, {}) for info in row.infos}
    back = {info.uri: info.id for row in scan(paths[::-1], {}) for info in row.infos}
    assert forth == back == dict(zip(paths, ("grosse-1", "grosse-1-2", "grosse-1-3"), strict=True))
    assert tmp_path.exists()


def test_a_file_named_twice_is_one_image(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(8, 8))
    assert len(scan([path, path, str(Path(path).parent)], {})) == 1


def test_an_unrecognised_file_fails_with_the_readers(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("hello", encoding="utf-8")
    (tmp_path / "b.tif").touch()
    rows = scan([str(tmp_path / name) for name in ("a.tif", "b.tif", "c.tif")], {})
    assert [row.status for row in rows] == ["failed"] * 3
    assert "raster" in rows[0].reason
    assert "scene" in rows[0].reason
    assert "b'hello'" in rows[0].reason
    assert "0 bytes" in rows[1].reason
    assert "No such file" in rows[2].reason


def test_a_file_in_a_folder_that_is_no_image_as_its_name_says_fails(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    (tmp_path / "b.JPG").write_text("<!DOCTYPE html>")
    (tmp_path / "c.md").write_text("<!DOCTYPE html>")
    (tmp_path / "d.png").touch()
    rows = scan([str(tmp_path)], {})
    assert [row.status for row in rows] == ["failed", "failed", "skipped", "failed"]
    assert "(found: 0 bytes). Fetch it again" in rows[3].reason
    assert rows[0].reason.endswith("(found: a pointer of Git LFS). Fetch the file itself with `git lfs pull`.")
    assert rows[1].reason.endswith(
        "(found: it begins with b'<!DOCTYP'). Fetch it again if it is an image, or leave it out."
    )


def test_a_reader_can_be_forced(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for band in ("B02", "B03"):
        write_raster(f"s/S2_{band}.tif", places(8, 8))
    together = scan([str(tmp_path / "s")], {})
    apart = scan([str(tmp_path / "s")], {}, reader="raster")
    assert [len(row.infos) for row in together] == [1, 0]
    assert [len(row.infos) for row in apart] == [1, 1]
    (tmp_path / "grid.txt").write_text(
        "ncols 2\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n5 6\n", encoding="utf-8"
    )
    (forced,) = scan([str(tmp_path / "grid.txt")], {}, reader="raster")
    assert forced.infos[0].size == (2, 1)
    with pytest.raises(RequestError, match=r"must be one of .*raster.*found: rasta"):
        scan([str(tmp_path)], {}, reader="rasta")


def test_an_unknown_option_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"sensr.*Did you mean 'sensor'\?"):
        scan([str(tmp_path)], {"sensr": "sentinel-2-l1c"}, reader="raster")


def test_invalid_overrides(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(8, 8, 2))
    with pytest.raises(RequestError, match="--sensor"):
        scan([path], {"sensor": "spotnik"})
    (failed,) = scan([path], {"bands": "red"})
    assert failed.status == "failed"
    assert "each of the 2 channels" in failed.reason


def test_sources_of_a_mosaic_are_a_part_of_it(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    source = Path(write_raster("m/left.tif", places(8, 8)))
    (tmp_path / "m" / "mosaic.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    rows = scan([str(tmp_path / "m")], {})
    assert [(Path(row.path).name, row.status) for row in rows] == [("left.tif", "skipped"), ("mosaic.vrt", "read")]
    assert "mosaic.vrt" in rows[0].reason


def test_open_image_goes_to_the_reader_that_scanned(write_raster: WriteRaster, places: Places) -> None:
    picture = places(8, 6, 2)
    ((info,),) = [row.infos for row in scan([write_raster("a.tif", picture)], {})]
    with open_image(info, ["2"]) as image:
        pixels, _ = image.read(info.box, info.size)
    assert np.array_equal(pixels[:, :, 0], picture[:, :, 1])


def test_a_named_pipe_is_a_row_and_never_opened(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    write_raster("in/a.tif", places(8, 8))
    os.mkfifo(tmp_path / "in" / "pipe.tif")
    (tmp_path / "in" / "device.tif").symlink_to("/dev/zero")
    rows = scan([str(tmp_path / "in")], {})
    assert [(Path(row.path).name, row.status) for row in rows] == [
        ("a.tif", "read"),
        ("device.tif", "failed"),
        ("pipe.tif", "failed"),
    ]
    assert "a named pipe" in rows[2].reason
    assert "a device" in rows[1].reason


def test_a_folder_that_cannot_be_listed_is_a_row(
    write_raster: WriteRaster, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raster("in/a.tif", places(8, 8))
    closed = tmp_path / "in" / "closed"
    closed.mkdir()
    listed, allowed = os.listdir, os.access

    def refuse(path: str) -> list[str]:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(registry.os, "listdir", refuse)  # the tests may run as root, who may list everything
    monkeypatch.setattr(registry.os, "access", lambda path, mode: Path(path) != closed and allowed(path, mode))
    rows = scan([str(tmp_path / "in")], {})
    assert [(Path(row.path).name, row.status) for row in rows] == [("a.tif", "read"), ("closed", "failed")]
    assert "Permission denied" in rows[1].reason


@pytest.mark.parametrize("name", ["a\0b.tif", "a" * 5000 + ".tif", "/dev/full/a.tif"])
def test_an_invalid_file_name_is_a_row(name: str) -> None:
    (found,) = scan([name], {})
    assert found.status == "failed"


class Failing(Other):
    """A plug-in reader with a defect."""

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        """Fails for some files."""
        if Path(uri).name == "b.tif":
            raise IndexError(uri)
        return super().scan(uri, options)


def test_an_exception_of_a_reader_fails_one_row(
    write_raster: WriteRaster, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_raster(f"in/{name}.tif", places(8, 8))
    monkeypatch.setattr(registry, "readers", lambda: {"failing": Failing()})
    rows = scan([str(tmp_path / "in")], {})
    assert [row.status for row in rows] == ["read", "failed", "read"]
    assert "IndexError in the reader" in rows[1].reason


CRASHING = """
import os, time
from limner.readers.raster.geotiff import RasterReader
class Reader(RasterReader):
    name = "crashing"
    def identify(self, uri, head):
        if uri.endswith("f.tif"): os.abort()
        return 99 if head else 0
    def scan(self, uri, options):
        if uri.endswith("b.tif"): os.abort()
        if uri.endswith("c.tif"): bytearray(1 << 40)
        if uri.endswith("d.tif"): time.sleep(600)
        return super().scan(uri, options)
"""


@pytest.mark.slow
def test_a_crash_timeout_or_memory_bomb_fails_one_row(
    write_raster: WriteRaster, places: Places, tmp_path: Path
) -> None:
    """An installed plug-in runs in the sandbox, like built-in readers."""
    for name in "abcdefg":
        write_raster(f"in/{name}.tif", places(8, 8))
    plugin = tmp_path / "plugin" / "crashing-1.0.dist-info"
    plugin.mkdir(parents=True)
    (plugin.parent / "crashing.py").write_text(CRASHING, encoding="utf-8")
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1.0\n", encoding="utf-8")
    (plugin / "entry_points.txt").write_text("[limner.readers]\ncrashing = crashing:Reader\n", encoding="utf-8")
    code = (
        "import json, sys\nfrom limner.readers import reader_calls, registry\nreader_calls.SCAN_SECONDS = 8\n"
        "rows = registry.scan([sys.argv[1]], {})\n"
        "print(json.dumps([[row.status, row.reader, row.reason] for row in rows]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")],
        env={**os.environ, "PYTHONPATH": str(plugin.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = json.loads(done.stdout)
    statuses = ("read", "failed", "failed", "failed", "read", "failed", "read")
    assert [row[:2] for row in rows] == [
        [status, "" if at == 5 else "crashing"] for at, status in enumerate(statuses)
    ], "of the sixth no reader could be chosen"
    words = {1: "crash", 2: "memory", 3: "in time", 5: "crash"}
    assert [at for at, word in words.items() if word not in rows[at][2]] == []


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(group: str, name: str) -> object:
        raise ImportError(group + name)

    monkeypatch.setattr(registry, "load", broken)
    with pytest.raises(RequestError, match="must be importable"):
        readers()["raster"]


@pytest.fixture
def pair(write_raster: WriteRaster, places: Places) -> tuple[Path, Path]:
    """Two scenes of one name, in folders a and b."""
    return Path(write_raster("a/scene.tif", places(60, 50))), Path(write_raster("b/scene.tif", places(60, 50)))


def counted(rows: Sequence[ScannedFile]) -> list[str]:
    return sorted(info.uri for row in rows for info in row.infos)


@pytest.mark.parametrize("inputs", [("a/scene.tif", "a/../a/scene.tif"), ("a", "a/scene.tif"), ("a/scene.tif", "a")])
def test_a_file_given_twice_is_told_and_counted_once(pair: tuple[Path, Path], inputs: tuple[str, ...]) -> None:
    rows = scan([str(pair[0].parents[1] / name) for name in inputs], {})
    assert len(counted(rows)) == 1
    assert [(row.status, row.reason) for row in rows] == [("read", "given twice: counted once")]


def test_a_folder_given_twice_is_told(pair: tuple[Path, Path]) -> None:
    rows = scan([str(pair[0].parent), str(pair[0].parent)], {})
    assert len(counted(rows)) == 1
    assert rows[-1] == ScannedFile(str(pair[0].parent), "skipped", reason="its files are given twice: counted once")


@pytest.mark.parametrize(("link", "how"), [(os.symlink, "by a link"), (os.link, "by a hard link")])
@pytest.mark.parametrize("name", ["0-first.tif", "z-last.tif"])
def test_a_linked_file_is_told_and_counted_once(
    pair: tuple[Path, Path], link: Callable[..., None], how: str, name: str
) -> None:
    first, second = pair
    linked = second.parent / name
    link(first, linked)
    inputs = [str(linked), str(first), str(second)] if name.startswith("0") else [str(first.parents[1])]
    rows = scan(inputs, {})
    assert len(counted(rows)) == 2
    (skipped,) = [row for row in rows if row.status == "skipped"]
    kept = [str(first), str(linked)]
    if link is os.symlink or name.startswith("z"):  # the file itself rather than its link; the first of equal names
        assert skipped.path == kept[1]
    kept.remove(skipped.path)
    assert skipped.reason == f"the same file as {kept[0]}, {how}: counted once"


def test_a_link_to_a_source_of_a_mosaic_is_no_image(pair: tuple[Path, Path]) -> None:
    """The mosaic, the source and the link hold the same pixels: they are counted once."""
    folder = pair[0].parent
    (folder / "mosaic.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    (folder / "linked.tif").symlink_to(pair[0])
    rows = scan([str(folder)], {})
    assert [Path(uri).name for uri in counted(rows)] == ["mosaic.vrt"]
    assert row(rows, "linked.tif").reason == f"the same file as {pair[0]}, by a link: counted once"


def test_a_link_to_a_folder_within_an_input_is_told(pair: tuple[Path, Path]) -> None:
    first, second = pair
    (second.parent / "more").symlink_to(first.parent, target_is_directory=True)
    rows = scan([str(second.parent)], {})
    assert counted(rows) == [str(second)]
    assert row(rows, "more").reason == "a link to a folder, which is not followed"


def test_an_image_with_a_file_of_its_own_is_no_double() -> None:
    rows = [("/none/a", [("/none/a", "/none/b")]), ("/none/a", [("/none/a", "/none/c")]), ("/none/a", [("/none/a",)])]
    assert list(find_linked(rows)) == [2]
