"""Names of slide files are redacted: of plug-ins' readers, broken files, refused files."""

import csv
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.run.reporting import read_record
from limner.readers import plugins
from limner.readers.errors import ReadError, RequestError
from limner.readers.geometry import Placement
from limner.readers.image import ImageInfo
from limner.readers.options import Options
from limner.readers.pseudonyms import Pseudonyms
from limner.readers.slide.pyramid import PyramidReader

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
NAMES = ("JOHN", "DOE", "S21-1234")
PRIVATE = {"pseudonym.key", "sources.json"}


class PluginReader:
    """A plug-in's reader of slides: it does not state their kind, and names them in notes and errors."""

    name = "otherslide"
    isolated = True  # the limited process does not know it

    def identify(self, uri: str, head: bytes) -> int:
        """Files of its own kind."""
        del head
        return 99 if uri.endswith(".oslide") else 0

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        """A slide in micrometres whose id, part, study, notes and facts all hold the file's name."""
        if "broken" in Path(uri).name:
            raise ReadError(uri, "it must be whole", value=f"{Path(uri).stem} is cut", remedy="Copy it")
        if "optional" in Path(uri).name:
            raise RequestError(
                "option 'zoom' of reader 'otherslide'", f"it fits {uri}", value=Path(uri).name, remedy="Correct it"
            )
        del options
        (info,) = PyramidReader().scan(uri, PyramidReader.Options())
        stem = Path(uri).stem
        return [
            ImageInfo(
                uri,
                self.name,
                info.size,
                info.channels,
                Placement(info.placement.matrix, "um", source=f"header of {Path(uri).name}"),
                id=stem,
                part=f"scan of {Path(uri).name}",
                study=Path(uri).name,
                files=(uri,),
                fingerprint=info.fingerprint,
                notes=(f"{uri} was scanned", f"{stem} is a slide"),
                facts=(("source", Path(uri).name),),
                personal=False,
            )
        ]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> Any:
        """A pyramid, of which what is at the right cannot be read."""
        opened, read = PyramidReader().open(info, channels), PyramidReader().open(info, channels).read

        def failing(box: Any, size: tuple[int, int], plane: int = 0) -> Any:
            if box.x0 > 300 and size[0] < 300:  # a region, not the overview
                raise ReadError(info.uri, "it must be readable", value=Path(info.uri).name, remedy="Copy it")
            return read(box, size, plane)

        opened.read = failing
        return opened


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("otherslide", f"{__name__}:PluginReader", "limner.readers")
    monkeypatch.setattr(EntryPoint, "load", _load(EntryPoint.load))
    real = importlib.metadata.entry_points

    def listed() -> EntryPoints:
        return EntryPoints([*(one for group in get_args(plugins.Group) for one in real(group=group)), point])

    monkeypatch.setattr(plugins, "entry_points", listed)


def _load(real: Callable[[EntryPoint], Any]) -> Callable[[EntryPoint], Any]:
    return lambda point: PluginReader if point.name == "otherslide" else real(point)


def told(inputs: Sequence[Path], out: Path, limner: Limner, *words: object) -> str:
    """All that info, plan, run and report print and write on some inputs, and what is logged."""
    output = []
    for command in (
        ("info", *inputs),
        ("plan", *inputs, *words),
        ("run", *inputs, *words, "--out", out),
        ("run", *inputs, *words, "--out", out, "--hd-num", 4),
        ("report", out),
    ):
        got = limner(*command)
        assert got.code in {0, 1, 2, 3}, got.err
        output += [got.out, got.err]
    for path in sorted(out.rglob("*")) if out.is_dir() else ():
        output.append(path.name)
        if path.is_file() and path.name not in PRIVATE:
            output.append(path.read_bytes().decode("latin-1"))
    return "\n".join(output)


def found_in(text: str) -> list[str]:
    """Where a name stands, with what is around it."""
    return [text[max(0, at - 200) : at + 60] for name in NAMES for at in range(len(text)) if text.startswith(name, at)]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("with_map", [False, True])
def test_a_plugins_slides_are_slides(
    tmp_path: Path,
    ward: Path,
    per_tile: str,
    limner: Limner,
    make_slide: Callable[..., Path],
    scene: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    with_map: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    make_slide(ward / "JOHN_DOE S21-1234.oslide")
    shutil.copyfile(ward / "JOHN_DOE S21-1234.oslide", ward / "S21-1234_broken.oslide")
    if with_map:
        shutil.copyfile(scene, ward / "scene.tif")
    out = tmp_path / "out"
    text = told([ward], out, limner, "--model", per_tile)
    assert not found_in(text + caplog.text)
    record = read_record(out)
    slide = next(image.info for image in record.images if image.info.reader == "otherslide")
    assert (slide.kind, slide.personal) == ("slide", True)
    assert slide.id == f"slide-{slide.fingerprint[:8]}"
    assert len(record.images) == 1 + with_map
    assert any(image.failures for image in record.images)
    assert "JOHN_DOE" in (out / "sources.json").read_text()
    again = next(image for image in record.images if image.info.reader == "otherslide").overview()
    assert again is not None


@pytest.mark.usefixtures("plugin")
def test_an_error_of_an_option_contains_no_name(ward: Path, limner: Limner, make_slide: Callable[..., Path]) -> None:
    make_slide(ward / "JOHN_DOE_optional.oslide")
    output = limner("info", ward)
    assert output.code == 2
    assert not found_in(output.out + output.err)
    assert "zoom" in output.err


@pytest.mark.usefixtures("plugin")
def test_the_control_finds_the_names(
    tmp_path: Path, ward: Path, per_tile: str, limner: Limner, make_slide: Callable[..., Path]
) -> None:
    make_slide(ward / "JOHN_DOE S21-1234.oslide")
    text = told([ward], tmp_path / "out", limner, "--model", per_tile, "--set", "names=show")
    assert len(found_in(text)) > 20


def svs(path: Path) -> Path:
    """An SVS whose words and label name the patient."""
    pixels = np.full((256, 256, 3), 200, dtype=np.uint8)
    pixels[64:192, 64:192] = (150, 60, 120)
    words = (
        "Aperio Image Library v12.0.0\r\n256x256 (64x64) JPEG|AppMag = 20|MPP = 0.5"
        "|Filename = DOE_JOHN|Patient = JOHN DOE|Barcode = S21-1234"
    )
    how = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, tile=(64, 64), description=words, **how)
        file.write(pixels[::4, ::4], rowsperstrip=16, description=words, **how)
        label = "Aperio Image Library v12.0.0\r\nlabel 64x64"
        file.write(pixels[:64, :64], rowsperstrip=64, subfiletype=1, description=label, **how)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:3000])
    return path


def vsi(path: Path) -> Path:
    (path.with_name(f"_{path.stem}_") / "stack1").mkdir(parents=True)
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", description="JOHN DOE S21-1234")
    return path


BROKEN: Mapping[str, Callable[[Path], object]] = {
    "DOE_S21-1234.vsi": vsi,
    "JOHN DOE.svs": lambda path: cut(svs(path)),
    "S21-1234.mrxs": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0") and path,
    "S21-1234_DOE.czi": lambda path: path.write_bytes(b"ZISRAWFILE") and path,
    "JOHN_DOE.dcm": lambda path: path.write_bytes(bytes(128) + b"DICM" + bytes(50)) and path,
    "JOHN_DOE.ome.tif": lambda path: path.write_bytes(b"II*\0\x08\0\0\0\xff\xff") and path,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("company", ["alone", "map"])
def test_a_file_that_cannot_be_read_is_not_named(
    tmp_path: Path, ward: Path, limner: Limner, per_tile: str, scene: Path, name: str, company: str
) -> None:
    BROKEN[name](ward / name)
    if company == "map":
        shutil.copyfile(scene, ward / "scene.tif")
    text = told([ward], tmp_path / "out", limner, "--model", per_tile)
    assert "file-" in text
    assert not found_in(text)


def test_text_of_a_slides_header_and_label_is_not_printed(
    tmp_path: Path, ward: Path, limner: Limner, per_tile: str
) -> None:
    text = told([svs(ward / "JOHN DOE.svs")], tmp_path / "out", limner, "--model", per_tile)
    assert "slide-" in text
    assert not found_in(text)
    assert "S21-1234" in (ward / "JOHN DOE.svs").read_bytes().decode("latin-1")


def test_a_missing_slide_is_not_named(ward: Path, limner: Limner) -> None:
    output = limner("info", ward / "JOHN_DOE.svs")
    assert output.code == 3
    assert not found_in(output.out + output.err)


def test_kind_and_privacy_survive_the_manifest(tmp_path: Path, ward: Path, limner: Limner, per_tile: str) -> None:
    limner("run", svs(ward / "a.svs"), "--model", per_tile, "--out", tmp_path / "out")
    (image,) = read_record(tmp_path / "out").images
    assert (image.info.kind, image.info.personal) == ("slide", True)
    record = {"kind": "map", "personal": False}
    plain = {"uri": "a.tif", "reader": "raster", "size": [1, 1], "channels": []}
    place = {"matrix": [[1, 0, 0], [0, 1, 0]], "unit": "px"}
    spec = {"tile": 1}
    rest = {"scale": [1, 1], "hd_num": 1, "overlap": 0, "stretch": None, "unseen": "", "area": None, "beyond": ""}
    for unit, kind in (("px", "map"), ("um", "slide")):
        info = {**plain, **record, "placement": {**place, "unit": unit}}
        plan = ImagePlan.from_json({"info": info, "spec": spec, "tissue": "", **rest})
        assert (plan.info.kind, plan.info.personal) == (kind, unit == "um")
        assert ImagePlan.from_json(plan.to_json()).info == plan.info


@pytest.mark.parametrize("names", ["hide", "show"])
def test_a_name_is_shown_beside_the_id_on_request(
    tmp_path: Path, ward: Path, limner: Limner, per_tile: str, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef")
    svs(ward / "JOHN DOE.svs")
    hidden = Pseudonyms(b"0123456789abcdef").path(str(ward / "JOHN DOE.svs"))
    out = tmp_path / "out"
    output = limner("run", ward, "--model", per_tile, "--tissue", "off", "--names", names, "--out", out)
    assert output.code == 0, output.err
    for table in ("findings.csv", "summary.csv", "areas.csv"):
        with (out / table).open(encoding="utf-8", newline="") as file:
            ((image, name),) = {(row["image"], row["name"]) for row in csv.DictReader(file)}
        assert image.startswith("slide-" if names == "hide" else "john-doe")
        assert name == {"hide": hidden, "show": "JOHN DOE.svs"}[names], table
    (path,) = out.glob("*.qupath.geojson")
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["limner"]["name"] == read["features"][0]["properties"]["metadata"]["name"] == name


def test_the_name_of_a_map_is_shown_beside_its_id(tmp_path: Path, scene: Path, limner: Limner, per_tile: str) -> None:
    out = tmp_path / "out"
    output = limner("run", scene, "--model", per_tile, "--out", out)
    assert output.code == 0, output.err
    features = json.loads((out / "findings.geojson").read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["name"] for feature in features} == {scene.name}
    (image,) = read_record(out).images
    assert image.name == scene.name
