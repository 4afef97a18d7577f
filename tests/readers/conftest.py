"""Rasters made on the fly."""

import http.server
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

WriteRaster = Callable[..., str]


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """`write_raster(name, pixels (H, W, C), **profile) -> path`: by default in UTM 18 N at 10 m.

    `names` are band descriptions, `colours` their interpretations, `mask` (H, W) an internal mask, `overviews` factors.
    """

    def write(name: str, pixels: np.ndarray[Any, Any], **profile: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        extra = {key: profile.pop(key, None) for key in ("names", "colours", "mask", "overviews", "scales", "offsets")}
        height, width, count = pixels.shape
        settings: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:32618", "transform": from_origin(3e5, 4e6, 10, 10)}
        settings |= {"dtype": pixels.dtype, "width": width, "height": height, "count": count} | profile
        settings = {key: value for key, value in settings.items() if value is not None}
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **settings) as file:
                if extra["colours"] is not None:
                    file.colorinterp = extra["colours"]
                file.write(np.moveaxis(pixels, 2, 0))
                for band, text in enumerate(extra["names"] or (), start=1):
                    file.set_band_description(band, text)
                for key in ("scales", "offsets"):
                    if extra[key] is not None:
                        setattr(file, key, extra[key])
                if extra["mask"] is not None:
                    file.write_mask(extra["mask"].astype(np.uint8) * 255)
            if extra["overviews"] is not None:
                with rasterio.open(path, "r+") as file:
                    file.build_overviews(extra["overviews"], Resampling.average)
        return str(path)

    return write


@pytest.fixture
def places() -> Callable[..., np.ndarray[Any, Any]]:
    """`places(width, height, channels, dtype)`: an image whose pixels encode position and channel."""

    def make(width: int, height: int, channels: int = 1, dtype: str = "uint16") -> np.ndarray[Any, Any]:
        y, x = np.mgrid[:height, :width]
        planes = [1 + (7 * x + 13 * y + 29 * c) % 120 for c in range(channels)]
        return np.stack(planes, axis=2).astype(dtype)

    return make


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges of the files in a folder."""

    def do_GET(self) -> None:
        """One range."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def served_folder() -> Iterator[Callable[[Path], str]]:
    """`served_folder(folder) -> URL` of a folder's files, served by byte ranges while the test runs."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Listener:
    """Records connections to `address` (http://127.0.0.1:PORT)."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                client.settimeout(1)
                try:
                    self.received.append(client.recv(99))
                except OSError:
                    self.received.append(b"")

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def tile(write_raster: WriteRaster) -> Path:
    """A valid raster, in a folder of its own."""
    pixels = np.arange(64 * 64).reshape(64, 64, 1) % 251
    return Path(write_raster("box/tile.tif", pixels.astype(np.uint8)))
