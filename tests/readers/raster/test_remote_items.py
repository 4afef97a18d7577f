"""STAC items whose assets are on a server: read only where that is asked for, and without a trace of signatures."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.errors import RequestError
from limner.readers.registry import open_image, scan
from limner.readers.sandbox import release_sandbox

from .test_remote import Server

pytestmark = pytest.mark.slow

ASKED = {"remote_assets": "true"}
SIGNATURE = "sig=SECRET"


@pytest.fixture
def folder(tmp_path: Path, write_raster: Callable[..., str]) -> Path:
    """A folder to serve: a red band of 10 m and a near infrared one of 20 m."""
    write_raster("served/B04.tif", np.full((64, 64, 1), 2000, np.uint16))
    write_raster("served/R20m/B8A.tif", np.full((32, 32, 1), 3000, np.uint16), transform=[20, 0, 3e5, 0, -20, 4e6])
    write_raster("served/colour.tif", np.full((64, 64, 3), 20, np.uint8))
    return tmp_path / "served"


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of the folder."""
    servers: list[Server] = []

    def start(mode: str = "well", failures: int = 0) -> Server:
        servers.append(Server(folder, mode, failures))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def write_item(path: Path, hrefs: dict[str, str], **more: Any) -> str:
    content = {"type": "Feature", "stac_version": "1.1.0", "id": "S2_scene", "geometry": None, "links": []}
    content |= {"properties": {"datetime": "2023-06-14T16:09:01Z"}}
    content |= {"assets": {key: {"href": href} for key, href in hrefs.items()}} | more
    path.write_text(json.dumps(content))
    return str(path)


def values(path: str, options: dict[str, str]) -> list[list[int]]:
    """The numbers of each channel of the images of an input."""
    found: list[list[int]] = []
    for row in scan([path], options):
        for info in row.infos:
            with open_image(info) as image:
                pixels, valid = image.read(info.box, info.size)
            assert valid.all()
            found.append([int(one) for one in pixels.max(axis=(0, 1))])
    return found


def test_a_local_item_names_assets_on_a_server(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve()
    path = write_item(tmp_path / "item.json", {"B04": f"{server.url}B04.tif", "B8A": f"{server.url}R20m/B8A.tif"})
    (refused,) = scan([path], {})
    assert refused.status == "failed"
    assert f"on the server {server.address}, which --set reader_options.remote_assets=true reads" in refused.reason
    assert values(path, ASKED) == [[2000, 3000]]
    [info] = scan([path], ASKED)[0].infos
    Path(path).unlink()
    with open_image(info) as image:
        assert image.read(info.box, info.size)[0].max() == 3000
    assert server.end() > 0


def test_nothing_is_asked_of_a_server_without_the_option(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve()
    scan([write_item(tmp_path / "item.json", {"B04": f"{server.url}B04.tif"})], {})
    scan([str(tmp_path)], {})
    assert server.end() == 0


def test_an_object_store_holds_assets(
    tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.address)
    for name, value in {"AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES"}.items():
        monkeypatch.setenv(name, value)
    path = write_item(tmp_path / "item.json", {"B04": "s3://bucket/B04.tif", "B8A": "s3://bucket/R20m/B8A.tif"})
    release_sandbox()  # the next one has this environment
    assert values(path, ASKED) == [[2000, 3000]]
    release_sandbox()


def test_an_item_that_is_given_by_its_url_has_the_assets_of_its_server(
    folder: Path, serve: Callable[..., Server]
) -> None:
    server, other = serve(), serve()
    hrefs = {"B04": "./B04.tif", "B8A": f"{server.url}R20m/B8A.tif", "elsewhere": f"{other.url}colour.tif"}
    write_item(folder / "item.json", hrefs)
    assert values(f"{server.url}item.json", {}) == [[2000, 3000]]
    assert other.end() == 0
    (row,) = scan([f"{server.url}item.json"], {})
    assert any(f"elsewhere: it is on the server {other.address}" in note for note in row.infos[0].notes)


def test_a_collection_that_is_given_by_its_url_lists_items(folder: Path, serve: Callable[..., Server]) -> None:
    server = serve()
    write_item(folder / "R20m" / "one.json", {"B8A": "B8A.tif"})
    links = [{"rel": "item", "href": href} for href in ("R20m/one.json", "https://127.0.0.1:9/two.json", "gone.json")]
    content = {"type": "Collection", "stac_version": "1.1.0", "id": "c", "links": links}
    (folder / "collection.json").write_text(json.dumps(content))
    assert values(f"{server.url}collection.json", {}) == [[3000]]
    reasons = " ".join(row.reason for row in scan([f"{server.url}collection.json"], {}) if row.status == "failed")
    assert "two.json: it is not on this machine" in reasons
    assert "gone.json must exist on its server" in reasons


def test_an_asset_of_several_bands_on_a_server(tmp_path: Path, serve: Callable[..., Server]) -> None:
    asset = {"href": f"{serve('signed').url}colour.tif?{SIGNATURE}"}
    asset |= {"bands": [{"name": one} for one in ("red", "green", "blue")]}
    path = write_item(tmp_path / "item.json", {}, assets={"visual": asset})
    assert values(path, ASKED) == [[20, 20, 20]]


def command(*words: object) -> str:
    """What a command of limner writes."""
    done = subprocess.run(
        [sys.executable, "-m", "limner", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_signatures_are_sent_and_leave_no_trace(
    tmp_path: Path, write_raster: Callable[..., str], serve: Callable[..., Server]
) -> None:
    server = serve("signed")
    hrefs = {name: f"{server.url}{name}.tif?{SIGNATURE}" for name in ("B04", "B03", "B02", "gone")}
    for name in ("B02", "B03"):
        write_raster(f"served/{name}.tif", np.full((64, 64, 1), 1000, np.uint16))
    path = write_item(tmp_path / "item.json", hrefs)
    asked = ("--set", "reader_options.remote_assets=true")
    words = (
        *asked,
        "--model",
        "threshold:red",
        "--set",
        "model_options.value=0.3",
        "--engine",
        "local",
        "--stretch",
        "0,4000",
        "--out",
        tmp_path / "run",
    )
    told = [command("info", path, *asked), command("run", path, *words)]
    told.append(command("report", tmp_path / "run", "--reports", "overview-png,html"))
    assert "gone: it must" in told[0]
    assert (tmp_path / "run" / "findings.csv").read_text().count("\n") > 1
    written = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert any(file.suffix == ".png" for file in written)
    for text in (*(one.encode() for one in told), *(file.read_bytes() for file in written)):
        assert b"SECRET" not in text


@pytest.mark.parametrize(
    ("mode", "why"),
    [("403", "403"), ("404", "404"), ("503", "503"), ("half", "readable")],
)
def test_a_server_that_refuses_is_named_with_its_answer(
    tmp_path: Path, serve: Callable[..., Server], mode: str, why: str
) -> None:
    server = serve(mode)
    path = write_item(tmp_path / "item.json", {"B04": f"{server.url}B04.tif?{SIGNATURE}"})
    reason = next((row.reason for row in scan([path], ASKED)), "")
    if not reason:
        with pytest.raises(Exception, match=why) as caught:
            values(path, ASKED)
        reason = str(caught.value)
    assert why in reason
    assert "SECRET" not in reason


@pytest.mark.parametrize(
    ("href", "why"),
    [
        ("https://name:SECRET@127.0.0.1:9/B04.tif", "its address holds a name or password"),
        ("ftp://127.0.0.1/B04.tif", "it is not on this machine"),
        ("/vsicurl/https://127.0.0.1:9/B04.tif", "it is not on this machine"),
    ],
)
def test_other_addresses_are_not_read(tmp_path: Path, href: str, why: str) -> None:
    (row,) = scan([write_item(tmp_path / "item.json", {"B04": href})], ASKED)
    assert why in row.reason
    assert "SECRET" not in row.reason


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:9/a.tif?sig=SECRET",
        "https://me:SECRET@127.0.0.1:9/a.tif",
        "/vsicurl?url=https://a/b%3FSECRET",
    ],
)
def test_an_input_with_a_secret_is_refused_before_anything_is_written(url: str) -> None:
    with pytest.raises(RequestError, match="must not hold a name, password or query") as caught:
        scan([url], {})
    assert "SECRET" not in str(caught.value)
    assert "127.0.0.1:9/a.tif" in str(caught.value) or "/vsicurl" in str(caught.value)


def test_a_scene_classification_on_a_server_is_a_mask(
    tmp_path: Path, write_raster: Callable[..., str], serve: Callable[..., Server]
) -> None:
    classes = np.full((32, 32, 1), 4, np.uint8)
    classes[8:24, 4:20] = 9
    write_raster("served/SCL.tif", classes, transform=[20, 0, 3e5, 0, -20, 4e6])
    for name in ("B02", "B03"):
        write_raster(f"served/{name}.tif", np.full((64, 64, 1), 1000, np.uint16))
    url = serve("signed").url
    path = write_item(
        tmp_path / "item.json", {name: f"{url}{name}.tif?{SIGNATURE}" for name in ("B04", "B03", "B02", "SCL")}
    )
    words = ("--model", "threshold:red", "--set", "model_options.value=0.3", "--stretch", "0,4000", "--mask", "SCL")
    asked = ("--set", "reader_options.remote_assets=true", "--engine", "local", "--reports", "summary-csv")
    command("run", path, *words, *asked, "--out", tmp_path / "run")
    with (tmp_path / "run" / "areas.csv").open(encoding="utf-8", newline="") as file:
        found = {(row["item"], row["reason"]): float(row["area_px"]) for row in csv.DictReader(file)}
    assert found["skipped", "cloud mask"] == 32 * 32
