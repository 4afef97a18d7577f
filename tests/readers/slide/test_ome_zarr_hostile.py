"""Damaged and malicious OME-Zarr: one `ReadError` each, in bounded memory, and nothing outside the image is read."""

import bz2
import gzip
import http.server
import json
import lzma
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.errors import LimnerError, ReadError
from limner.readers.registry import scan
from limner.readers.slide import zarr_store
from limner.readers.slide.ome_zarr import OmeZarrReader
from limner.readers.slide.zarr_codecs import decompress

zarr = pytest.importorskip("zarr")
imagecodecs = pytest.importorskip("imagecodecs")

READER = OmeZarrReader()
WriteZarr = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]
BOMB = 1 << 24


def pixels() -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[:100, :130]
    return np.stack([1 + (rows * 3 + columns * 5 + 7 * c) % 200 for c in range(2)]).astype(np.uint8)


def put(name: str, value: object) -> Change:
    """Set one entry, whose path has dots."""

    def change(found: dict[str, Any]) -> None:
        *path, last = name.split(".")
        at: Any = found
        for part in path:
            at = at[int(part) if isinstance(at, list) else part]
        at[int(last) if isinstance(at, list) else last] = value

    return change


def edit(path: Path, change: Change) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


ARRAYS_OF_2: dict[str, tuple[Change, str]] = {
    "a side": (put("shape", [2, 2**40, 130]), "must have sides up to"),
    "a chunk": (put("chunks", [1, 2**20, 2**20]), "must have sides up to"),
    "chunks of one pixel": (put("shape", [2, 2**20, 2**20]), "must have sides up to"),
    "no chunk": (put("chunks", [0, 64, 64]), "must be valid metadata"),
    "axes": (put("shape", [2] * 40), "must be valid metadata"),
    "a fraction": (put("shape", [2, 100.5, 130]), "must be valid metadata"),
    "a text": (put("shape", "1"), "must be valid metadata"),
    "a codec": (put("compressor", {"id": "run-this"}), "must be stored with codecs"),
    "a filter": (put("filters", [{"id": "pickle"}]), "must be stored with codecs"),
    "objects": (put("dtype", "|O"), "must be stored with codecs"),
    "a structure": (put("dtype", [["a", "<u1"]]), "must be stored with codecs"),
    "complex": (put("dtype", "<c8"), "must be stored with codecs"),
    "an order": (put("order", "A"), "must be valid metadata"),
    "a separator": (put("dimension_separator", "../"), "must be valid metadata"),
    "a format": (put("zarr_format", 9), "must be valid metadata"),
}
ARRAYS_OF_3: dict[str, tuple[Change, str]] = {
    "a side": (put("shape", [2, 2**40, 130]), "must have sides up to"),
    "a shard's index": (put("chunk_grid.configuration.chunk_shape", [2, 2**16, 2**16]), "must have sides up to"),
    "uneven shards": (put("codecs.0.configuration.chunk_shape", [1, 33, 32]), "must be valid metadata"),
    "a codec": (put("codecs.0.configuration.codecs.1.name", "run-this"), "must be stored with codecs"),
    "a key": (put("chunk_key_encoding.configuration", {"separator": "/../"}), "must be valid metadata"),
    "a grid": (put("chunk_grid.name", "rectilinear"), "must be stored with codecs"),
    "a type": (put("data_type", "string"), "must be stored with codecs"),
    "an index": (put("codecs.0.configuration.index_codecs", [{"name": "gzip"}]), "must be stored with codecs"),
    "a group": (put("node_type", "group"), "must be valid metadata"),
}
IMAGES: dict[str, tuple[Change, str]] = {
    "a path up": (put("multiscales.0.datasets.0.path", "../secret"), "must be valid metadata of OME-Zarr"),
    "a path from the root": (put("multiscales.0.datasets.0.path", "/etc/passwd"), "must be valid metadata"),
    "an address": (put("multiscales.0.datasets.0.path", "http://x/y"), "must be valid metadata"),
    "no array": (put("multiscales.0.datasets.0.path", "9"), "must be an array of Zarr 2 or 3"),
    "a version": (put("multiscales.0.version", "0.1"), "must be of version 0.4 or 0.5"),
    "an axis": (put("multiscales.0.axes.0.name", "λ"), "must have the axes y and x last"),
    "an axis of another type": (put("multiscales.0.axes.0.name", "z"), r"found: z \(channel\), y \(space\)"),
    "the type of an axis": (put("multiscales.0.axes.0.type", "space"), "must have the axes y and x last"),
    "a negative scale": (
        put("multiscales.0.datasets.0.coordinateTransformations.0.scale", [1, -1, 1]),
        "must be valid metadata",
    ),
    "an affine": (
        put("multiscales.0.datasets.0.coordinateTransformations.0.type", "affine"),
        "must be valid metadata",
    ),
    "no datasets": (put("multiscales.0.datasets", []), "must be valid metadata"),
    "a list": (put("multiscales", [[]]), "must be valid metadata"),
    "omero": (put("omero", 5), "must be valid metadata"),
    "wells": (lambda found: (found.clear(), found.update(plate={"wells": [{"path": "../.."}]}))[0], "must be valid"),
}


@pytest.mark.parametrize("name", ARRAYS_OF_2)
def test_arrays_of_zarr_2_that_cannot_be_read(write_zarr: WriteZarr, name: str) -> None:
    path = write_zarr("a.zarr", pixels())
    change, message = ARRAYS_OF_2[name]
    edit(path / "0" / ".zarray", change)
    with pytest.raises(ReadError, match=message):
        scan_with(READER, str(path), {})


@pytest.mark.parametrize("name", ARRAYS_OF_3)
def test_arrays_of_zarr_3_that_cannot_be_read(write_zarr: WriteZarr, name: str) -> None:
    how = {"shards": (2, 64, 64)}
    path = write_zarr("a.zarr", pixels(), version="0.5", chunks=(1, 32, 32), how=how)
    change, message = ARRAYS_OF_3[name]
    edit(path / "0" / "zarr.json", change)
    with pytest.raises(ReadError, match=message):
        scan_with(READER, str(path), {})


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_cannot_be_read(write_zarr: WriteZarr, name: str) -> None:
    path = write_zarr("a.zarr", pixels())
    write_zarr("secret", pixels())
    edit(path / ".zattrs", IMAGES[name][0])
    with pytest.raises(ReadError, match=IMAGES[name][1]):
        scan_with(READER, str(path), {})


@pytest.mark.parametrize("text", ["", "[", "[]", "{" * 5000, '{"multiscales": 1e999}', "\x00"])
def test_metadata_that_are_no_json(write_zarr: WriteZarr, text: str) -> None:
    path = write_zarr("a.ome.zarr", pixels())
    (path / ".zattrs").write_text(text)
    [row] = scan([str(path)], {})
    assert row.status == "failed"
    assert " must " in row.reason


def test_metadata_that_are_long(write_zarr: WriteZarr) -> None:
    path = write_zarr("a.zarr", pixels())
    with (path / ".zattrs").open("ab") as file:
        file.truncate(zarr_store.MAX_METADATA_BYTES + 1)
    with pytest.raises(ReadError, match="must have values of at most"):
        scan_with(READER, str(path), {})


def test_links_out_of_the_image_are_not_followed(write_zarr: WriteZarr) -> None:
    path, other = write_zarr("a.zarr", pixels(), levels=1), write_zarr("b.zarr", pixels(), levels=1)
    chunk = path / "0" / "0" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to(other / "0" / "0" / "0" / "0")
    [info] = scan_with(READER, str(path), {})
    with READER.open(info) as image, pytest.raises(ReadError, match="a link to a place outside the image"):
        image.read(info.box, info.size)
    chunk.unlink()
    chunk.symlink_to(path / "0" / "0" / "0" / "1")  # within it
    with READER.open(info) as image:
        image.read(info.box, info.size)
    chunk.unlink()
    os.mkfifo(chunk)
    with READER.open(info) as image:
        assert not image.read(info.box, info.size)[1][:64, :64].any(), "a pipe is no chunk, and is not waited for"


def bombs() -> dict[str, bytes]:
    """What decodes to 16 MiB, by codec."""
    zeros = bytes(BOMB)
    header = BOMB.to_bytes(4, "little")
    return {
        "blosc": imagecodecs.blosc_encode(zeros),
        "zstd": imagecodecs.zstd_encode(zeros),
        "lz4": header + imagecodecs.lz4_encode(zeros),
        "gzip": gzip.compress(zeros),
        "zlib": zlib.compress(zeros),
        "bz2": bz2.compress(zeros),
        "lzma": lzma.compress(zeros),
    }


@pytest.mark.slow
def test_no_codec_gives_more_than_a_chunk() -> None:
    import tracemalloc

    for name, data in bombs().items():
        assert len(data) < BOMB / 100
        assert decompress(name, data, BOMB) == bytes(BOMB), name
        tracemalloc.start()
        with pytest.raises(Exception) as error:  # noqa: PT011 - each codec has its own
            decompress(name, data, 4096)
        assert not isinstance(error.value, MemoryError)
        assert tracemalloc.get_traced_memory()[1] < BOMB * 3 // 4, name
        tracemalloc.stop()
        for cut in (data[:7], data[: len(data) // 2], b""):
            with pytest.raises(Exception):  # noqa: B017, PT011 - each codec has its own
                decompress(name, cut, 4096)


def test_a_blosc_chunk_that_states_more_bytes_than_there_are_is_not_decoded() -> None:
    data = imagecodecs.blosc_encode(bytes(range(250)) * 40)
    with pytest.raises(ValueError, match="a Blosc header"):
        decompress("blosc", data[: len(data) // 2], 10_000)


def test_an_index_that_points_beyond_its_shard(write_zarr: WriteZarr) -> None:
    how = {"shards": (2, 64, 64), "compressors": None}
    path = write_zarr("a.zarr", pixels(), version="0.5", chunks=(1, 32, 32), levels=1, how=how)
    edit(path / "0" / "zarr.json", put("codecs.0.configuration.index_codecs", [{"name": "bytes"}]))
    shard = path / "0" / "c" / "0" / "0" / "0"
    count = 8
    for offset, length in ((2**63, 1024), (0, 2**62), (10**6, 1024)):
        data = bytearray(shard.read_bytes()[: -16 * count - 4])
        data += b"".join(n.to_bytes(8, "little") for _ in range(count) for n in (offset, length))
        shard.write_bytes(data + bytes(0))
        [info] = scan_with(READER, str(path), {})
        with READER.open(info) as image, pytest.raises(ReadError, match="must be readable"):
            image.read(info.box, info.size)
        shard.write_bytes(data + bytes(4))


def test_zips_that_cannot_be_read(write_zarr: WriteZarr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.ozx").write_bytes(b"PK\3\4" + bytes(100))
    [row] = scan([str(tmp_path / "broken.ozx")], {})
    assert "must be a readable zip" in row.reason
    folder = write_zarr("a.zarr", pixels(), levels=1)
    bomb = tmp_path / "bomb.ozx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                chunk = path.parent.name == "0" and not path.name.startswith(".")
                file.writestr(str(path.relative_to(folder)), bytes(1 << 20) if chunk else path.read_bytes())
    monkeypatch.setattr("limner.readers.slide.zarr_array.MAX_CHUNK_BYTES", 1 << 16)
    [info] = scan_with(READER, str(bomb), {})
    with READER.open(info) as image, pytest.raises(ReadError, match="must have values of at most"):
        image.read(info.box, info.size)


class Odd(http.server.BaseHTTPRequestHandler):
    """A server of one folder that does something odd for chunks."""

    folder = Path()
    odd = ""
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        """Answer one request."""
        self.asked.append((self.path, self.headers.get("Range")))
        path = self.folder / self.path.lstrip("/")
        metadata = path.name.startswith(".") or path.name == "zarr.json"
        if not metadata and self.odd:
            if self.odd == "redirect":
                self.send_response(302)
                self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
                self.end_headers()
            elif self.odd == "endless":
                self.send_response(200)
                self.end_headers()
                for _ in range(64):
                    self.wfile.write(bytes(1 << 20))
            else:
                self.send_error(int(self.odd))
            return
        if not path.is_file():
            self.send_error(403 if metadata else 404)
            return
        body, span = path.read_bytes(), self.headers.get("Range")
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            body = body[-int(last) :] if not first else body[int(first) : int(last) + 1]
        self.send_response(206 if span else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], tuple[str, type[Odd]]]]:
    """`serve(odd) -> (address, handler)` of the temporary folder."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(odd: str = "") -> tuple[str, type[Odd]]:
        handler = type("Handler", (Odd,), {"folder": tmp_path, "odd": odd, "asked": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_on_a_server_is_read_by_its_chunks(
    write_zarr: WriteZarr, serve: Callable[..., Any], version: str
) -> None:
    how = {} if version == "0.4" else {"shards": (2, 128, 192)}
    write_zarr("a.ome.zarr", pixels(), version=version, how=how)
    address, handler = serve()
    native = np.moveaxis(pixels(), 0, 2)
    [info] = scan_with(READER, f"{address}/a.ome.zarr/", {})
    with READER.open(info) as image:
        found, valid = image.read(info.box, info.size)
    assert valid.all()
    assert np.array_equal(found, native)
    assert (info.files, info.fingerprint) == ((f"{address}/a.ome.zarr",), "")
    [row] = scan([f"{address}/a.ome.zarr"], {})
    assert (row.status, row.reader) == ("read", "ome-zarr")
    handler.asked.clear()
    with READER.open(info) as image:
        image.read(type(info.box)(0, 0, 60, 60), (60, 60))
    chunks = [(path, span) for path, span in handler.asked if Path(path).name.isdigit()]
    if version == "0.4":
        assert chunks == [("/a.ome.zarr/0/0/0/0", None), ("/a.ome.zarr/0/1/0/0", None)]
    else:
        assert len(chunks) == 3
        assert all(span is not None and path == "/a.ome.zarr/0/c/0/0/0" for path, span in chunks)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("redirect", "a redirect, which is not followed"),
        ("endless", "must have values of at most 1 bytes"),
        ("403", "the server answers 403"),
        ("401", "the server answers 401"),
        ("503", "the server answers 503"),
    ],
)
def test_servers_that_misbehave(
    write_zarr: WriteZarr, serve: Callable[..., Any], odd: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr("a.ome.zarr", pixels(), levels=1)
    address, handler = serve(odd)
    monkeypatch.setattr(zarr_store, "pause", lambda *_: 0.0)
    if odd == "endless":
        monkeypatch.setattr("limner.readers.slide.zarr_array.MAX_CHUNK_BYTES", 1 << 16)
        message = r"must have values of at most \d+ bytes"
    [info] = scan_with(READER, f"{address}/a.ome.zarr", {})
    with READER.open(info) as image, pytest.raises(ReadError, match=message):
        image.read(info.box, info.size)
    assert "/elsewhere" not in [path for path, _ in handler.asked]


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a.zarr", "https://me:secret@example.org/a.zarr", "https://example.org/a.zarr?key=secret"],
)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(LimnerError, match="must ") as error:
        READER.scan(address, READER.Options())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["s3://bucket/a.zarr", "https://example.org/a.ome.zarr.zip"])
def test_what_is_remote_and_no_folder_of_a_web_server_is_refused(address: str) -> None:
    [row] = scan([address], {})
    assert row.status == "failed"
    assert "must be a local file" in row.reason
