"""CZI: mosaics, pyramids, scenes and codecs, against known pixels and two other libraries."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.registry import scan
from limner.readers.slide.czi import CziReader
from limner.readers.slide.czi_file import jpeg_xr_size

READER = CziReader()
Pixels = np.ndarray[Any, Any]
RGB_24, BGR_24 = (bytes.fromhex(f"24C3DD6F034EFE4BB1853D77768DC9{end}") for end in ("0D", "0C"))
"""Pixel formats in the header of JPEG XR; CZI has the second."""

XML = (
    "<ImageDocument><Metadata><Information><Image><Dimensions><Channels>"
    '<Channel Id="Channel:0" Name="DAPI"/><Channel Id="Channel:1" Name="CD3"/></Channels>'
    '<S><Scenes><Scene Index="0" Name="ScanRegion0"/><Scene Index="1" Name="Doe Jane"/></Scenes></S></Dimensions>'
    '</Image></Information><Scaling><Items><Distance Id="X"><Value>{0}</Value></Distance>'
    '<Distance Id="Y"><Value>{0}</Value></Distance></Items></Scaling></Metadata></ImageDocument>'
)


def colours(height: int = 300, width: int = 410) -> Pixels:
    """Smooth colours (H, W, 3), none of them 0."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [1 + columns * 200 // width, 50 + rows * 200 // height, 1 + (rows + columns) * 250 // (height + width)]
    return np.stack(ramps, axis=2).astype(np.uint8)


def halved(pixels: Pixels) -> Pixels:
    """The mean of 2 × 2 pixels, of even sides."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return np.rint(pixels.reshape(height, 2, width, 2, -1).mean(axis=(1, 3))).astype(pixels.dtype)


def stored(pixels: Pixels, codec: int = 0) -> bytes:
    """The data of a sub-block, colours as blue, green and red."""
    raw = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    low, high = raw.reshape(-1).view(np.uint8)[::2], raw.reshape(-1).view(np.uint8)[1::2]
    return {
        0: raw.tobytes,
        1: lambda: imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=100, subsampling="444"),
        2: lambda: imagecodecs.lzw_encode(raw.tobytes()),
        4: lambda: imagecodecs.jpegxr_encode(np.ascontiguousarray(pixels), level=1.0).replace(RGB_24, BGR_24),
        5: lambda: imagecodecs.zstd_encode(raw.tobytes()),
        6: lambda: b"\3\1\1" + imagecodecs.zstd_encode(np.concatenate([low, high]).tobytes()),
    }[codec]()


def mosaic(writer: Any, pixels: Pixels, *, codec: int = 0, levels: int = 2, origin: tuple[int, int] = (-50, 30)) -> Any:
    """Tiles of 128 px that overlap by 8, drawn in the order of M; coarser levels without overlap."""
    for level in range(levels):
        factor, step = 2**level, 120 if level == 0 else 128
        number = 0
        for y in range(0, pixels.shape[0], step):
            for x in range(0, pixels.shape[1], step):
                part = pixels[y : y + 128, x : x + 128]
                kind = {"uint8": 3 if pixels.ndim == 3 else 0, "uint16": 4 if pixels.ndim == 3 else 1}[part.dtype.name]
                place = origin[0] + x * factor, origin[1] + y * factor
                size = part.shape[1], part.shape[0]
                writer.add(stored(part, codec), kind, place, size, factor=factor, compression=codec, C=0, M=number)
                number += 1
        pixels = halved(pixels) if level + 1 < levels else pixels
    return writer


@pytest.mark.parametrize("codec", [0, 1, 2, 4, 5])
def test_mosaics_pass_the_contract_and_equal_libczi(tmp_path: Path, czi_writer: Any, codec: int) -> None:
    pixels = colours()
    path = mosaic(czi_writer(), pixels, codec=codec).save(tmp_path / "a.czi", XML.format("2.5e-07"))
    if codec == 1:  # which has losses: libjpeg decodes what it encoded
        [info] = scan_with(READER, str(path), {})
        with READER.open(info) as image:
            found, _ = image.read(info.box, info.size)
        assert np.abs(found.astype(int) - pixels).max() <= 4
    else:
        info = check_reader(READER, str(path), ExpectedImage(pixels, np.ones((300, 410), dtype=bool), exact=False))
    assert (info.placement.matrix[0][0], info.placement.source) == (0.25, "CZI Scaling")
    assert dict(info.facts)["levels"] == "2"
    assert [channel.common for channel in info.channels] == ["red", "green", "blue"]
    if codec not in {0, 4, 5}:
        return
    libczi = pytest.importorskip("pylibCZIrw.czi")
    with libczi.open_czi(str(path)) as other, READER.open(info) as image:
        assert np.array_equal(other.read()[..., ::-1], pixels)
        half = other.read(zoom=0.5)[..., ::-1]
        ours, _ = image.read(info.box, (205, 150))
        assert np.abs(half.astype(int) - ours).max() <= 4, "libczi takes the nearest pixel of the level"


def test_a_mosaic_equals_czifile(tmp_path: Path, czi_writer: Any) -> None:
    czifile = pytest.importorskip("czifile")
    path = mosaic(czi_writer(), colours(), levels=1).save(tmp_path / "a.czi")
    [info] = scan_with(READER, str(path), {})
    with czifile.CziFile(str(path)) as other, READER.open(info) as image:
        assert np.array_equal(np.squeeze(other.asarray()), image.read(info.box, info.size)[0])
    assert any("the file states none" in note for note in info.notes)


@pytest.mark.parametrize(
    "codec", ["uncompressed:", "zstd0:ExplicitLevel=3", "zstd1:ExplicitLevel=3;PreProcess=HiLoByteUnpack"]
)
def test_files_of_libczi_with_scenes_channels_and_focal_planes(tmp_path: Path, codec: str) -> None:
    libczi = pytest.importorskip("pylibCZIrw.czi")
    path = tmp_path / "a.czi"
    grey = (np.moveaxis(colours(90, 130), 2, 0).astype(np.uint16) * 200)[:2]
    with libczi.create_czi(str(path)) as writer:
        for scene in range(2):
            for z in range(3):
                for c in range(2):
                    data = grey[c][..., None] + np.uint16(10 * z + scene)
                    plane, place = {"C": c, "Z": z}, (500 * scene, 20)
                    writer.write(data=data, plane=plane, location=place, scene=scene, compression_options=codec)
        writer.write_metadata("x", channel_names={0: "DAPI", 1: "CD3"}, scale_x=5e-7, scale_y=5e-7, scale_z=1.5e-6)
    for scene in range(2):
        native = np.moveaxis(grey, 0, 2) + np.uint16(20 + scene)
        truth = ExpectedImage(native, np.ones((90, 130), dtype=bool), options={"z": "2"})
        info = check_reader(READER, str(path), truth, image=scene)
        assert [channel.name for channel in info.channels] == ["DAPI", "CD3"]
        assert "The file has 3 positions along axis Z, 1.5 µm apart; 2 is read (--reader-options z=…)." in info.notes
        assert info.placement.matrix[0][0] == pytest.approx(0.5)
        assert dict(info.facts)["scene"] == f"{scene + 1} of 2"
    with pytest.raises(RequestError, match="must be from 0 to 2"):
        scan_with(READER, str(path), {"z": "3"})
    [row] = scan([str(path)], {"scene": "2"})
    assert [info.part for info in row.infos] == ["scene 2"]


def test_packed_bytes_and_names_of_scenes(tmp_path: Path, czi_writer: Any) -> None:
    grey = colours(64, 64)[..., 0].astype(np.uint16) * 301
    writer = czi_writer()
    for scene in range(2):
        writer.add(stored(grey, 6), 1, (scene * 100, 0), (64, 64), compression=6, C=1, S=scene)
    path = writer.save(tmp_path / "a.czi", XML.format("5e-07"))
    infos = scan_with(READER, str(path), {})
    assert [dict(info.facts).get("scene_name") for info in infos] == ["ScanRegion0", None], "no person's name"
    assert [info.channels[0].name for info in infos] == ["CD3", "CD3"]
    with READER.open(infos[1]) as image:
        assert np.array_equal(image.read(infos[1].box, (64, 64))[0][..., 0], grey)


def test_gaps_are_no_data_and_only_needed_blocks_are_read(tmp_path: Path, czi_writer: Any) -> None:
    pixels, writer = colours(64, 300), czi_writer()
    writer.add(stored(pixels[:, :100]), 3, (0, 0), (100, 64), C=0)
    writer.add(b"x", 3, (200, 0), (100, 64), C=0)  # damaged
    path = writer.save(tmp_path / "a.czi")
    [info] = scan_with(READER, str(path), {})
    assert info.size == (300, 64)
    box = type(info.box)
    with READER.open(info) as image, pytest.raises(ReadError, match="must be readable"):
        image.read(info.box, info.size)
    wide = czi_writer()
    wide.add(stored(pixels[:, :100]), 3, (0, 0), (100, 64), C=0)
    wide.add(b"x", 3, (2000, 0), (100, 64), C=0)
    [info] = scan_with(READER, str(wide.save(tmp_path / "b.czi")), {})
    with READER.open(info) as image:
        found, valid = image.read(box(0, 0, 200, 64), (200, 64))
        assert np.array_equal(found[:, :100], pixels[:, :100])
        assert valid[:, :100].all()
        assert not valid[:, 100:].any()
        held = image.may_hold((1, 21))
        assert held is not None
        assert held.tolist() == [[True] + [False] * 19 + [True]]


def test_an_incomplete_level_is_not_used(tmp_path: Path, czi_writer: Any) -> None:
    pixels, writer = colours(256, 256), czi_writer()
    writer.add(stored(pixels), 3, (0, 0), (256, 256), C=0)
    writer.add(stored(halved(pixels)[:, :64]), 3, (0, 0), (64, 128), factor=2, C=0)
    path = writer.save(tmp_path / "a.czi")
    info = check_reader(READER, str(path), ExpectedImage(pixels, np.ones((256, 256), dtype=bool)))
    assert "The level of 1/2 in the file is incomplete and not used." in info.notes


def test_what_is_not_read_is_refused_by_name(tmp_path: Path, czi_writer: Any) -> None:
    block = (stored(colours(16, 16)), 3, (0, 0), (16, 16))
    cases = {
        "pixel type 10": lambda w: w.add(block[0], 10, *block[2:]),
        "compression 104": lambda w: w.add(*block, compression=104),
        "one position along the axis H": lambda w: (w.add(*block, H=0), w.add(*block, H=1)),
        "several: uint8": lambda w: (w.add(*block, C=0), w.add(bytes(256), 0, (0, 0), (16, 16), C=1)),
        "none": lambda w: w.add(*block, factor=2),
        "sides of at most": lambda w: (w.add(*block), w.add(block[0], 3, (2**29, 0), (16, 16))),
        "a sub-block of 40000 × 40000 px": lambda w: w.add(b"", 3, (0, 0), (40000, 40000)),
    }
    for message, make in cases.items():
        writer = czi_writer()
        make(writer)
        with pytest.raises(ReadError, match=message):
            scan_with(READER, str(writer.save(tmp_path / "a.czi")), {})


def test_damaged_files_fail_with_a_reason(tmp_path: Path, czi_writer: Any) -> None:
    whole = mosaic(czi_writer(), colours(), levels=1).save(tmp_path / "a.czi").read_bytes()
    directory = whole.index(b"ZISRAWDIRECTORY")
    cases = {
        "truncated": whole[: len(whole) // 2],
        "its recording was not finished": whole[:100] + struct.pack("<i", 1) + whole[104:],
        "no ZISRAWDIRECTORY": whole[:directory] + b"NONSENSE" + whole[directory + 8 :],
        "sub-blocks, 1 to": whole[: directory + 32] + struct.pack("<i", 2**30) + whole[directory + 36 :],
        "with 99 axes": whole[: directory + 188] + struct.pack("<i", 99) + whole[directory + 192 :],
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"{number}.czi"
        path.write_bytes(content)
        [row] = scan([str(path)], {})
        assert row.status == "failed"
        assert message in row.reason, row.reason


def test_compressed_data_that_state_other_sizes_are_not_decoded(tmp_path: Path, czi_writer: Any) -> None:
    large = np.zeros((2000, 2000, 3), dtype=np.uint8)
    assert jpeg_xr_size(bytes(imagecodecs.jpegxr_encode(large))) == (2000, 2000)
    for codec in (1, 4, 5):  # LZW is decoded up to the size of a sub-block
        writer = czi_writer()
        writer.add(stored(large, codec), 3, (0, 0), (16, 16), compression=codec, C=0)
        [info] = scan_with(READER, str(writer.save(tmp_path / "a.czi")), {})
        with READER.open(info) as image, pytest.raises(ReadError, match="must be readable"):
            image.read(info.box, info.size)
