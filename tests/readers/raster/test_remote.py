"""Rasters on a server: read by ranges, and servers that refuse, fail, stop half way or never answer."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Box
from limner.readers.raster import gdal
from limner.readers.raster.geotiff import RasterReader
from rasterio.transform import from_origin

pytestmark = pytest.mark.slow

WINDOW = Box(600, 700, 1000, 900)


class Server:
    """A process that serves a file on the loopback interface."""

    def __init__(self, file: Path, mode: str, failures: int) -> None:
        script = Path(__file__).with_name("serve_file.py")
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, script, file, mode, str(failures)], **pipes)
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"http://{self.address}/bucket/{'scene.tif' if file.is_file() else ''}"

    def end(self) -> int:
        """End it; returns how many bytes it has sent."""
        out, _ = self._process.communicate("")
        return int(out)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled GeoTIFF of noise, which does not compress, with overviews."""
    path = tmp_path_factory.mktemp("remote") / "scene.tif"
    pixels = np.random.default_rng(2).integers(0, 255, (3, 1536, 2048), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": 2048, "height": 1536, "count": 3, "dtype": "uint8", "crs": "EPSG:32618"}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "transform": from_origin(5e5, 4e6, 10, 10)}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.build_overviews([2, 4, 8])
    return path


@pytest.fixture
def serve(scene: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of the scene."""
    servers: list[Server] = []

    def start(mode: str = "well", failures: int = 0) -> Server:
        servers.append(Server(scene, mode, failures))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def read(uri: str) -> Any:
    """Pixels of the window at full resolution, and of the whole reduced eight times."""
    [info] = scan_with(RasterReader(), uri, {})
    with RasterReader().open(info) as image:
        return image.read(WINDOW, (400, 200))[0], image.read(info.box, (256, 192))[0]


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_what_is_needed_is_fetched(scene: Path, serve: Callable[..., Server]) -> None:
    server = serve()
    assert same(read(server.url), read(str(scene)))
    assert 0 < server.end() < scene.stat().st_size / 4


def test_an_object_store_is_read_by_its_own_scheme(
    scene: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.address)
    for name, value in {"AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES"}.items():
        monkeypatch.setenv(name, value)
    assert same(read("s3://bucket/scene.tif"), read(str(scene)))
    assert 0 < server.end() < scene.stat().st_size / 4


def test_a_server_that_fails_for_a_moment_is_asked_again(scene: Path, serve: Callable[..., Server]) -> None:
    server = serve(failures=2)
    assert same(read(server.url), read(str(scene)))


@pytest.mark.parametrize(
    ("mode", "why"),
    [("403", "403"), ("404", "404"), ("503", "503"), ("half", "readable pixels"), ("without ranges", "HTTP ranges")],
)
def test_a_server_that_refuses_is_named_with_its_answer(serve: Callable[..., Server], mode: str, why: str) -> None:
    server, start = serve(mode), time.monotonic()
    with pytest.raises(ReadError, match=why) as caught:
        read(server.url)
    assert time.monotonic() - start < 60
    assert "HTTP ranges" in caught.value.remedy
    assert server.url in str(caught.value)


def test_pixels_that_are_refused_are_told_with_the_answer(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where a right expires in the middle of a run: GDAL's error would only say that it could not decode a block."""
    with rasterio.open(scene) as whole:
        profile = whole.profile
        with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
            file.write(whole.read())
    server = Server(tmp_path / "scene.tif", "late 403", 0)
    try:
        [info] = scan_with(RasterReader(), server.url, {})
        with RasterReader().open(info) as image, pytest.raises(ReadError, match="the server answered 403"):
            image.read(WINDOW, (400, 200))
        with RasterReader().open(info) as image:
            image.read(Box(0, 0, 50, 50), (50, 50))
    finally:
        server.kill()
    levels = {record.levelno for record in caplog.records}
    assert levels <= {logging.WARNING}, "what GDAL tells of its requests stays here"
    assert capfd.readouterr() == ("", "")


def test_a_server_that_never_answers_is_given_up(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_MAX_RETRY": "1"}
    assert set(quick) <= set(gdal.REMOTE), "the limits that are shortened are those in use"
    monkeypatch.setattr(gdal, "REMOTE", gdal.REMOTE | quick)
    server, start = serve("silent"), time.monotonic()
    with pytest.raises(ReadError, match="must be a raster that GDAL can open"):
        read(server.url)
    assert time.monotonic() - start < 30
