"""OME-Zarr of both versions and all codecs, written by zarr-python, against known pixels."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.registry import open_image, scan
from limner.readers.slide.ome_zarr import OmeZarrReader
from limner.readers.slide.zarr_codecs import crc32c

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

READER = OmeZarrReader()
RGB = {
    "omero": {
        "channels": [
            {"label": name, "color": colour, "window": {"start": 0, "end": 255, "min": 0, "max": 255}}
            for name, colour in (("r", "FF0000"), ("g", "00FF00"), ("b", "0000FF"))
        ]
    }
}
Pixels = np.ndarray[Any, Any]
WriteZarr = Callable[..., Path]


def coordinates(height: int = 151, width: int = 203, dtype: str = "uint8") -> Pixels:
    """(3, H, W): column, row, and a mixture of both; no value is 0."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([1 + columns * 7 % 250, 1 + rows * 5 % 250, 1 + (rows * 31 + columns * 17) % 250]).astype(dtype)


def expected(pixels: Pixels, **options: Any) -> ExpectedImage:
    """What is to be read of channels (C, H, W) of which reduced levels are stored."""
    native = np.moveaxis(pixels, 0, 2)
    return ExpectedImage(native, np.ones(native.shape[:2], dtype=bool), exact=False, options=options)


def coded(name: str) -> dict[str, Any]:
    """Arguments of zarr-python for a way to store chunks."""
    codecs = zarr.codecs
    return {
        "0.4 blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=2)},
        "0.4 zstd": {"compressors": numcodecs.Zstd()},
        "0.4 zlib": {"compressors": numcodecs.Zlib()},
        "0.4 gzip": {"compressors": numcodecs.GZip()},
        "0.4 lz4": {"compressors": numcodecs.LZ4()},
        "0.4 bz2": {"compressors": numcodecs.BZ2()},
        "0.4 lzma": {"compressors": numcodecs.LZMA()},
        "0.4 none": {"compressors": None},
        "0.4 order F": {"order": "F"},
        "0.4 dots": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        "0.5 blosc": {"compressors": codecs.BloscCodec(cname="zstd")},
        "0.5 zstd": {"compressors": codecs.ZstdCodec()},
        "0.5 gzip": {"compressors": codecs.GzipCodec()},
        "0.5 none": {"compressors": None},
        "0.5 checksum": {"compressors": [codecs.ZstdCodec(), codecs.Crc32cCodec()]},
        "0.5 big": {"serializer": codecs.BytesCodec(endian="big")},
        "0.5 transposed": {"filters": [codecs.TransposeCodec(order=(2, 0, 1))]},
        "0.5 dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
        "0.5 keys of 2": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
        "0.5 shards": {"shards": (3, 128, 192)},
        "0.5 shards, index first": {
            "shards": {"shape": (1, 128, 64), "index_location": "start"},
            "compressors": codecs.GzipCodec(),
        },
    }[name]


CODED = (
    "0.4 blosc", "0.4 zstd", "0.4 zlib", "0.4 gzip", "0.4 lz4", "0.4 bz2", "0.4 lzma", "0.4 none", "0.4 order F",
    "0.4 dots", "0.5 blosc", "0.5 zstd", "0.5 gzip", "0.5 none", "0.5 checksum", "0.5 big", "0.5 transposed",
    "0.5 dots", "0.5 keys of 2", "0.5 shards", "0.5 shards, index first",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CODED)
def test_every_way_to_store_chunks_passes_the_contract(write_zarr: WriteZarr, name: str) -> None:
    pixels = coordinates(67, 131, "uint16") * np.uint16(257)
    path = write_zarr("a.ome.zarr", pixels, version=name[:3], how=coded(name))
    info = check_reader(READER, str(path), expected(pixels))
    assert info.placement.unit == "um"
    assert info.placement.matrix[0][0] == 0.5
    assert [channel.dtype for channel in info.channels] == ["uint16"] * 3


@pytest.mark.parametrize("chunks", [(3, 50, 70), (2, 151, 203), (1, 300, 300), (3, 1, 203)])
def test_chunks_of_any_shape(write_zarr: WriteZarr, chunks: tuple[int, int, int]) -> None:
    pixels = coordinates(53 if chunks[1] == 1 else 151)
    path = write_zarr("a.zarr", pixels, chunks=chunks, more=RGB)
    info = check_reader(READER, str(path), expected(pixels))
    assert [(channel.name, channel.common) for channel in info.channels] == [
        ("r", "red"),
        ("g", "green"),
        ("b", "blue"),
    ]
    assert dict(info.facts)["channel_windows"] == "0–255, 0–255, 0–255"


def test_one_of_the_focal_planes_and_times_is_read(write_zarr: WriteZarr) -> None:
    pixels = np.stack([coordinates(70, 90, "float32") + 1000 * at for at in range(6)]).reshape(2, 3, 3, 70, 90)
    stack = np.moveaxis(pixels, 1, 2)  # t c z y x
    path = write_zarr("a.zarr", stack, axes="tczyx", chunks=(1, 2, 2, 64, 64))
    for z, t in ((0, 0), (2, 1)):
        info = check_reader(READER, str(path), expected(stack[t, :, z], z=str(z), t=str(t)))
        assert f"The file has 3 positions along axis Z, 1 µm apart; {z} is read (--reader-options z=…)." in info.notes
        assert f"The file has 2 positions along axis T; {t} is read (--reader-options t=…)." in info.notes
    with pytest.raises(RequestError, match="must be from 0 to 2"):
        scan_with(READER, str(path), {"z": "3"})


@pytest.mark.parametrize("name", ["a.ozx", "a.ome.zarr.zip"])
@pytest.mark.parametrize("inside", ["", "a.ome.zarr/"])
def test_a_zip_reads_as_its_folder(write_zarr: WriteZarr, tmp_path: Path, name: str, inside: str) -> None:
    pixels = coordinates()
    folder = write_zarr("a.ome.zarr", pixels, version="0.5", how=coded("0.5 shards"), more=RGB)
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"{inside}{path.relative_to(folder)}")
    info = check_reader(READER, str(tmp_path / name), expected(pixels))
    assert info.files == (str(tmp_path / name),)
    [row] = scan([str(tmp_path / name)], {})
    assert (row.status, row.reader) == ("read", "ome-zarr")


def test_a_folder_is_one_row_and_counted_once(write_zarr: WriteZarr, tmp_path: Path) -> None:
    pixels = coordinates()
    path = write_zarr("box/a.ome.zarr", pixels, more=RGB)
    (tmp_path / "box" / "note.txt").write_text("x")
    rows = scan([str(tmp_path / "box")], {})
    assert [(row.path, row.status) for row in rows] == [
        (str(tmp_path / "box/note.txt"), "skipped"),
        (str(path), "read"),
    ]
    again = scan([str(path), str(path)], {})
    assert [row.status for row in again if row.infos] == ["read"]
    with open_image(rows[1].infos[0]) as image:
        values, valid = image.read(image.info.box, image.info.size)
    assert valid.all()
    assert np.array_equal(values, np.moveaxis(pixels, 0, 2))


def test_a_changed_pixel_of_the_coarsest_level_changes_the_fingerprint(write_zarr: WriteZarr) -> None:
    path = write_zarr("a.zarr", coordinates())
    before = scan_with(READER, str(path), {})[0].fingerprint
    zarr.open_group(str(path))["1"][0, 0, 0] = 9
    assert scan_with(READER, str(path), {})[0].fingerprint != before


def test_a_chunk_that_is_not_stored_is_no_data(write_zarr: WriteZarr) -> None:
    for version, how in (("0.4", {}), ("0.5", coded("0.5 shards"))):
        pixels = coordinates(128, 192)
        pixels[:, 64:, 128:] = 0
        path = write_zarr(f"{version}.zarr", pixels, version=version, levels=1, how=how)
        valid = np.ones((128, 192), dtype=bool)
        valid[64:, 128:] = False
        check_reader(READER, str(path), ExpectedImage(np.moveaxis(pixels, 0, 2), valid))


@pytest.mark.parametrize(
    ("units", "scale", "note"),
    [
        ({"y": "nanometer", "x": "nanometer"}, [1, 250.0, 250.0], ""),
        ({"y": "millimeter", "x": "micrometer"}, [1, 0.00025, 0.25], ""),
        ({}, [1, 0.25, 0.25], "has no unit"),
        ({"y": "micrometer"}, [1, 0.25, 0.25], "has no unit"),
        ({"y": "furlong", "x": "furlong"}, [1, 0.25, 0.25], "has the unit 'furlong'"),
        ({"y": "micrometer", "x": "micrometer"}, [1, 0.25, 0.5], "x and y differ by more than 5%"),
        ({"y": "micrometer", "x": "micrometer"}, [1, 25.0, 25.0], "is implausible"),
    ],
)
def test_the_pixel_size_is_what_the_units_state_and_never_guessed(
    write_zarr: WriteZarr, units: dict[str, str], scale: list[float], note: str
) -> None:
    [info] = scan_with(READER, str(write_zarr("a.zarr", coordinates(), units=units, scale=scale)), {})
    if note:
        assert info.placement.unit == "px"
        assert any(note in one for one in info.notes)
    else:
        assert info.placement.matrix[0][0] == pytest.approx(0.25)
        assert info.placement.matrix[1][1] == pytest.approx(0.25)
        assert not info.notes


def test_scales_multiply(write_zarr: WriteZarr) -> None:
    path = write_zarr("a.zarr", coordinates(), scale=[1, 2.0, 2.0])
    found = json.loads((path / ".zattrs").read_text())
    found["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1, 0.125, 0.125]}]
    (path / ".zattrs").write_text(json.dumps(found))
    assert scan_with(READER, str(path), {})[0].placement.matrix[0][0] == 0.25


def test_channels_have_the_names_of_the_file(write_zarr: WriteZarr) -> None:
    named = {"omero": {"channels": [{"label": name, "color": "0000FF"} for name in ("DAPI", "CD3", "DAPI")]}}
    [info] = scan_with(READER, str(write_zarr("a.zarr", coordinates(), more=named)), {})
    assert [(channel.name, channel.common) for channel in info.channels] == [
        ("DAPI", None),
        ("CD3", None),
        ("DAPI (3)", None),
    ]
    few = {"omero": {"channels": named["omero"]["channels"][:2]}}
    [info] = scan_with(READER, str(write_zarr("b.zarr", coordinates(), more=few)), {})
    assert [channel.name for channel in info.channels] == ["channel-1", "channel-2", "channel-3"]
    assert "The metadata describe 2 channels of 3, and are not used." in info.notes


def test_a_level_that_is_no_reduction_is_not_used(write_zarr: WriteZarr) -> None:
    path = write_zarr("a.zarr", coordinates(), levels=3)
    found = json.loads((path / ".zattrs").read_text())
    found["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] = [1.0, 2.0, 2.0]
    (path / ".zattrs").write_text(json.dumps(found))
    [info] = scan_with(READER, str(path), {})
    assert dict(info.facts)["levels"] == "2"
    assert "Level 1 of the image is not used: its size is that of 1/2, and its scale states 1/4." in info.notes


def labelled(path: Path, version: str) -> None:
    """Add a group of labels with one label image."""
    group = zarr.open_group(str(path))
    labels = group.create_group("labels")
    one = labels.create_group("nuclei")
    one.create_array("0", shape=(151, 203), dtype="int32", chunks=(64, 64))[:] = 7
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    transforms = [{"type": "scale", "scale": [1, 1]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    if version == "0.4":
        labels.attrs["labels"] = ["nuclei"]
        one.attrs.update({"multiscales": [{**image, "version": "0.4"}], "image-label": {"version": "0.4"}})
    else:
        labels.attrs["ome"] = {"labels": ["nuclei"], "version": "0.5"}
        one.attrs["ome"] = {"multiscales": [image], "image-label": {}, "version": "0.5"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_no_image(write_zarr: WriteZarr, version: str) -> None:
    path = write_zarr("a.zarr", coordinates(), version=version)
    labelled(path, version)
    [row] = scan([str(path)], {})
    assert "The labels that the image comes with are not read." in row.infos[0].notes
    for inside in ("labels", "labels/nuclei"):
        [row] = scan([str(path / inside)], {})
        assert row.status == "failed"
        assert "must be an image (found: labels of the pixels of another image)" in row.reason


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_an_image_for_each_field(write_zarr: WriteZarr, tmp_path: Path, version: str) -> None:
    field = write_zarr("field.zarr", coordinates(), version=version, more=RGB)
    root = zarr.create_group(str(tmp_path / "plate.zarr"), zarr_format=2 if version == "0.4" else 3)
    wells = [{"path": "A/1"}, {"path": "B/2"}]
    about: list[tuple[Any, dict[str, Any]]] = [(root, {"plate": {"wells": wells}})]
    for well in wells:
        about.append((root.create_group(well["path"]), {"well": {"images": [{"path": "0"}, {"path": "1"}]}}))
        for number in range(2):
            shutil.copytree(field, tmp_path / "plate.zarr" / well["path"] / str(number))
    for group, found in about:
        group.attrs.update(found if version == "0.4" else {"ome": {**found, "version": version}})
    [row] = scan([str(tmp_path / "plate.zarr")], {})
    assert row.status == "read", row.reason
    names = ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    assert [dict(info.facts)["scene_name"] for info in row.infos] == names
    [row] = scan([str(tmp_path / "plate.zarr")], {"scene": "B/2/0"})
    assert [info.part for info in row.infos] == ["scene 3"]
    with open_image(row.infos[0]) as image:
        assert np.array_equal(image.read(image.info.box, image.info.size)[0][..., 0], coordinates()[0])
    [row] = scan([str(tmp_path / "plate.zarr/B/2")], {})
    assert [dict(info.facts)["scene_name"] for info in row.infos] == ["0", "1"]


def series(root: Path, image: Path, names: list[str], sizes: list[str]) -> None:
    """The layout of bioformats2raw: copies of an image with OME-XML that names them."""
    group = zarr.create_group(str(root), zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for number in range(len(names)):
        shutil.copytree(image, root / str(number))
    pixels = '<Pixels SizeX="203" SizeY="151" PhysicalSizeX="{0}" PhysicalSizeY="{0}"/>'
    images = [f'<Image Name="{n}">{pixels.format(s)}</Image>' for n, s in zip(names, sizes, strict=True)]
    (root / "OME").mkdir()
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    (root / "OME" / "METADATA.ome.xml").write_text(f'<OME xmlns="{space}">{"".join(images)}</OME>')


def test_the_glass_is_no_scan_of_bioformats2raw(write_zarr: WriteZarr, tmp_path: Path) -> None:
    image = write_zarr("a.zarr", coordinates(), units={}, more=RGB)
    series(tmp_path / "s.zarr", image, ["Scan #1", "label image", "macro image", "Scan #2"], ["0.5", "", "40", "0.25"])
    [row] = scan([str(tmp_path / "s.zarr")], {})
    assert [info.placement.matrix[0][0] for info in row.infos] == [0.5, 0.25]
    assert [info.part for info in row.infos] == ["scene 1", "scene 2"]
    assert "2 of the 4 images in the file are never read: of the label or the glass." in row.infos[0].notes
    check_reader(READER, str(tmp_path / "s.zarr"), expected(coordinates()), image=1)


def test_plain_zarr_is_refused_by_name(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr2"), shape=(5, 5), dtype="u1", chunks=(5, 5))[:] = 1
    [row] = scan([str(tmp_path / "a.zarr2")], {})
    assert row.status == "failed"
    assert "Zarr without the metadata of OME-Zarr is not supported" in row.reason


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.binary(max_size=3000))
def test_checksums_are_those_of_another_library(data: bytes) -> None:
    other = pytest.importorskip("google_crc32c")
    assert crc32c(data) == other.value(data)


@pytest.mark.parametrize("size", [511, 512, 513, 65536, 1_000_003])
def test_checksums_of_long_data(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8).tobytes()
    assert crc32c(data) == pytest.importorskip("google_crc32c").value(data)


def test_a_wrong_checksum_fails_only_the_boxes_that_need_the_chunk(write_zarr: WriteZarr) -> None:
    path = write_zarr("a.zarr", coordinates(), version="0.5", levels=1, how=coded("0.5 checksum"))
    chunk = path / "0" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    [info] = scan_with(READER, str(path), {})
    with READER.open(info) as image:
        with pytest.raises(ReadError, match="chunk 0, 0, 0, must be readable"):
            image.read(info.box, info.size)
        assert image.read(type(info.box)(100, 0, 203, 151), (103, 151))[1].all()
