"""Small untrusted files: what is too large, too deep or not a file is refused at once."""

import errno
import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from limner.readers.annotations import read_polygons, read_roi
from limner.readers.errors import RequestError
from limner.readers.files import MAX_JSON_DEPTH, atomic_path, open_regular, parse_json, read_file, write_atomic

SQUARE = [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * (MAX_JSON_DEPTH + 2) + "]" * (MAX_JSON_DEPTH + 2),
        '{"a":' * 3000 + "1" + "}" * 3000,
        *("NaN", "[1e1, Infinity]", "9" * 5000, "{", "", "\x00", '{"a": 1}{"b": 2}'),
    ],
    ids=range(10),
)
def test_invalid_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_at_the_depth_limit_is_read() -> None:
    assert parse_json("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH)
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert math.isnan(parse_json("[NaN]", allow_nan=True)[0])


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, max_bytes=5) == b"12345"
    for most, place in ((4, path), (2**20, Path("/dev/zero"))):
        with pytest.raises(OSError, match="MiB"):
            read_file(place, max_bytes=most)


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [Path.mkdir, _make_pipe, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_that_is_not_regular_is_refused_at_once(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "it")
    with pytest.raises(OSError, match=r"not a file|directory"):
        read_file(tmp_path / "it", regular=True)
    with pytest.raises(OSError, match=r"not a file|directory"):
        open_regular(tmp_path / "it", os.O_RDWR | os.O_CREAT, "r+b")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert read_file(tmp_path / "link", regular=True) == b"mine"
    with pytest.raises(OSError, match="a link"):
        open_regular(tmp_path / "link", os.O_RDWR, "r+b")


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"GeometryCollection","geometries":[' * 3000 + "]}" * 3000,
        "[" * 100_000,
        '{"type":"Polygon","coordinates":[[[0,0],[NaN,1],[1,1],[0,0]]]}',
        '{"type":"Polygon","coordinates":[[[0,0],[1e999,1],[1,1],[0,0]]]}',
        '{"type":"Polygon","coordinates":[[[0,0],[' + "9" * 400 + ",1],[1,1],[0,0]]]}",
        '{"type":"Polygon","coordinates":[[[0,0],[' + "9" * 5000 + ",1],[1,1],[0,0]]]}",
        json.dumps({"type": "Polygon", "coordinates": [[{"0": 1}] * 4]}),
        json.dumps({"type": "Polygon", "crs": {"properties": {"name": "\ud800"}}, "coordinates": [SQUARE]}),
        json.dumps({"type": "Polygon", "crs": {"properties": {"name": "EPSG:99999999"}}, "coordinates": [SQUARE]}),
        json.dumps({"type": ["Polygon"]}),
        "null",
    ],
    ids=range(11),
)
def test_an_invalid_roi_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "area.json"
    path.write_text(text)
    with pytest.raises(RequestError) as error:
        read_roi(str(path))
    assert len(str(error.value)) < 1000


@pytest.mark.slow
def test_a_polygon_of_many_vertices_is_read(tmp_path: Path) -> None:
    turns = [2 * math.pi * i / 300_000 for i in range(300_000)]
    ring = [[10 * math.cos(turn), 10 * math.sin(turn)] for turn in turns]
    (tmp_path / "area.json").write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    assert read_roi(str(tmp_path / "area.json")).area == pytest.approx(100 * math.pi, rel=1e-6)


def test_decompression_of_annotations_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.readers.annotations.MAX_FILE_BYTES", 2**20)
    (tmp_path / "bomb.geojson.gz").write_bytes(gzip.compress(b" " * 2**22))
    with pytest.raises(RequestError, match="1 MiB"):
        read_polygons(str(tmp_path / "bomb.geojson.gz"), "drawing", "pixels")
    (tmp_path / "torn.geojson.gz").write_bytes(gzip.compress(b"[]")[:-3])
    with pytest.raises(RequestError, match="GeoJSON"):
        read_polygons(str(tmp_path / "torn.geojson.gz"), "drawing", "pixels")


def test_writing_is_atomic_and_replaces_links(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "a"
    other.write_bytes(b"other")
    for name in (path, tmp_path / ".part-a"):  # what a stranger, or a process that was killed, left
        name.symlink_to(other)
    write_atomic(path, b"new")
    assert (path.read_bytes(), path.is_symlink(), other.read_bytes()) == (b"new", False, b"other")
    assert sorted(tmp_path.iterdir()) == [path, other]


@pytest.mark.skipif(os.name != "posix", reason="rights are otherwise elsewhere")
def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o644)
    write_atomic(tmp_path / "a", b"key", private=True)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "b"])  # a file, and one in a folder
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"

    def write(content: bytes, error: type[BaseException] | None = None) -> None:
        with atomic_path(path) as part:
            assert not os.path.lexists(part)
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
            if error:
                raise error

    write(b"first")
    write(b"second")
    with pytest.raises(KeyboardInterrupt):
        write(b"third", KeyboardInterrupt)
    assert (path / name).read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "b"])
def test_content_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "a"

    def full(_: int) -> None:
        assert not path.exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with atomic_path(path) as part:
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(b"new")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write()
    assert list(tmp_path.iterdir()) == []
