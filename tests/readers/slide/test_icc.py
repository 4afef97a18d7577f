"""ICC profiles: ignored or applied, against LittleCMS on the whole picture, and profiles that are damaged."""

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.geometry import Box
from limner.readers.registry import scan
from limner.readers.slide.icc import MAX_PROFILE_BYTES
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from PIL import Image, ImageCms

Rgb = np.ndarray[Any, Any]
GHOSTSCRIPT = Path("/usr/share/color/icc/ghostscript")
APPLY = {"icc": "apply"}


def colours(height: int = 150, width: int = 210) -> Rgb:
    """Smooth colours that cover the cube, and some of H&E."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [columns * 255 / width, rows * 255 / height, (columns / width + rows / height) * 127]
    pixels = np.stack(ramps, axis=2).astype(np.uint8)
    pixels[20:60, 30:90] = (200, 120, 170)
    return pixels


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(gamma: float = 1.8, *, space: bytes = b"RGB ", intent: int = 1, swap: bool = False) -> bytes:
    """A matrix profile of version 2.4 with the primaries of Adobe RGB, adapted to D50, and a gamma."""
    rows = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
    rows = rows[::-1] if swap else rows
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642) + fixed(1.0) + fixed(0.8249),
        **{
            name + b"XYZ": b"XYZ " + bytes(4) + b"".join(map(fixed, row))
            for name, row in zip((b"r", b"g", b"b"), rows, strict=True)
        },
        **{name + b"TRC": curve for name in (b"r", b"g", b"b")},
    }
    at, body, table = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    illuminant = fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    head = struct.pack(">I4sI4s4s4s12s4s", at + len(body), b"lcms", 0x02400000, b"scnr", space, b"XYZ ", date, b"acsp")
    head += bytes(24) + struct.pack(">I", intent) + illuminant
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def reference(pixels: Rgb, icc: bytes) -> Rgb:
    """The whole picture in sRGB by Pillow, with the intent of the profile."""
    source = ImageCms.getOpenProfile(io.BytesIO(icc))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))


def plain(path: Path, pixels: Rgb, icc: bytes | None, **how: Any) -> Path:
    """A pyramidal TIFF of two levels without losses."""
    with tifffile.TiffWriter(path) as file:
        for level in range(2):
            reduced = {"subfiletype": 1} if level else {}
            file.write(pixels, photometric="rgb", tile=(64, 64), metadata=None, iccprofile=icc, **reduced, **how)
            pixels = pixels[::2, ::2].copy()
    return path


def aperio(path: Path, pixels: Rgb, icc: bytes | None) -> Path:
    """An Aperio SVS of one level whose tiles have no losses."""
    about = f"Aperio Image Library v1.0\n{pixels.shape[1]}x{pixels.shape[0]} (64x64)|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as file:
        file.write(
            pixels,
            photometric="rgb",
            tile=(64, 64),
            metadata=None,
            description=about,
            iccprofile=icc,
            compression="lzw",
        )
    return path


MADE: dict[str, Callable[..., tuple[Any, Path]]] = {
    "pyramid": lambda folder, pixels, icc: (PyramidReader(), plain(folder / "a.tif", pixels, icc)),
    "slide": lambda folder, pixels, icc: (SlideReader(), aperio(folder / "a.svs", pixels, icc)),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("swap", [False, True])
def test_applied_profiles_pass_the_contract_on_the_converted_picture(tmp_path: Path, kind: str, *, swap: bool) -> None:
    pixels, icc = colours(), profile(swap=swap)
    reader, path = MADE[kind](tmp_path, pixels, icc)
    converted = reference(pixels, icc)
    assert np.abs(converted.astype(int) - pixels).max() > 20
    with reader.open(scan_with(reader, str(path), APPLY)[0]) as image:
        found, valid = image.read(image.info.box, image.info.size)
        half, _ = image.read(Box(0, 0, 210, 150), (105, 75))
    assert valid.all()
    assert np.abs(found.astype(int) - converted).max() <= 1
    if kind == "slide":  # whose only level is reduced after it was converted
        means = converted.reshape(75, 2, 105, 2, 3).mean(axis=(1, 3))
        assert np.abs(half - means).max() <= 1.5
    truth = ExpectedImage(found, valid, exact=False, options=APPLY)
    info = check_reader(reader, str(path), truth)
    assert dict(info.facts)["icc_profile"].startswith("applied, to sRGB, relative colorimetric intent, by LittleCMS")
    assert not any("ICC" in note for note in info.notes)


@pytest.mark.parametrize("kind", MADE)
def test_profiles_are_ignored_by_default_and_told(tmp_path: Path, kind: str) -> None:
    pixels = colours()
    reader, path = MADE[kind](tmp_path, pixels, profile())
    info = check_reader(reader, str(path), ExpectedImage(pixels, np.ones((150, 210), dtype=bool), exact=False))
    assert dict(info.facts)["icc_profile"].startswith(f"not applied ({len(profile())} bytes, sha256 ")
    assert "The ICC profile of the file is not applied." in info.notes


@pytest.mark.parametrize("kind", MADE)
def test_a_slide_without_a_profile_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    pixels = colours()
    reader, path = MADE[kind](tmp_path, pixels, None)
    truth = ExpectedImage(pixels, np.ones((150, 210), dtype=bool), exact=False, options=APPLY)
    info = check_reader(reader, str(path), truth)
    assert "icc_profile" not in dict(info.facts)
    assert "--icc apply changes nothing here: the file has no ICC profile." in info.notes


@pytest.mark.parametrize("name", ["made", "a98.icc", "ps_rgb.icc", "rommrgb.icc", "srgb.icc"])
def test_colours_are_those_of_the_programs_of_littlecms(tmp_path: Path, name: str) -> None:
    tificc = shutil.which("tificc")
    if tificc is None:
        pytest.skip("no tificc: liblcms2-utils of Debian has it")
    if name != "made" and not (GHOSTSCRIPT / name).is_file():
        pytest.skip("no profiles of Ghostscript")
    icc = profile() if name == "made" else (GHOSTSCRIPT / name).read_bytes()
    pixels = colours()
    (tmp_path / "p.icc").write_bytes(icc)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    intent = int.from_bytes(icc[64:68], "big")
    command = [tificc, f"-i{tmp_path / 'p.icc'}", "-o*sRGB", f"-t{intent}", "-c0", "-w8"]
    subprocess.run([*command, tmp_path / "in.tif", tmp_path / "out.tif"], check=True, capture_output=True)
    path = plain(tmp_path / "a.tif", pixels, icc)
    with PyramidReader().open(scan_with(PyramidReader(), str(path), APPLY)[0]) as image:
        found, _ = image.read(image.info.box, image.info.size)
    assert np.abs(found.astype(int) - tifffile.imread(tmp_path / "out.tif")).max() <= 1


HOSTILE = {
    "noise": np.random.default_rng(1).integers(0, 256, 3000).astype(np.uint8).tobytes(),
    "cut": profile()[:200],
    "no tag": profile()[:128] + bytes(4),
    "other colours": profile(space=b"CMYK"),
    "grey": profile(space=b"GRAY"),
    "a count": profile()[:128] + b"\xff\xff\xff\xff" + profile()[132:],
    "an offset": profile()[:172] + b"\xff\xff\xff\xf0" + profile()[176:],
    "an intent": profile(intent=77),
    "zeros": bytes(500),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", MADE)
def test_damaged_profiles_are_refused_only_where_they_are_applied(tmp_path: Path, kind: str, name: str) -> None:
    pixels = colours()
    reader, path = MADE[kind](tmp_path, pixels, HOSTILE[name])
    with pytest.raises(ReadError, match="must have an ICC profile of red, green and blue that LittleCMS can use"):
        scan_with(reader, str(path), APPLY)
    with reader.open(scan_with(reader, str(path), {})[0]) as image:
        assert np.array_equal(image.read(image.info.box, image.info.size)[0], pixels)


def test_a_damaged_profile_fails_its_file_and_no_other(tmp_path: Path) -> None:
    plain(tmp_path / "a.tif", colours(), HOSTILE["noise"])
    plain(tmp_path / "b.tif", colours(), profile())
    first, second = scan([str(tmp_path)], APPLY)
    assert (first.status, second.status) == ("failed", "read")
    assert "Leave out --icc apply to read the colours as they are stored." in first.reason


def test_a_long_profile_is_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.tif", colours(), bytes(MAX_PROFILE_BYTES + 1))
    with pytest.raises(ReadError, match=f"at most {MAX_PROFILE_BYTES} are read"):
        scan_with(PyramidReader(), str(path), APPLY)


@pytest.mark.parametrize("dtype", ["uint16", "grey"])
def test_other_pixels_than_8_bit_colours_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    pixels = colours()[..., 0] if dtype == "grey" else colours().astype(dtype) * 256
    with tifffile.TiffWriter(path) as file:
        kind = "minisblack" if dtype == "grey" else "rgb"
        file.write(pixels, photometric=kind, tile=(64, 64), metadata=None, iccprofile=profile())
    with pytest.raises(ReadError, match="must be 8-bit red, green and blue for --icc apply"):
        scan_with(PyramidReader(), str(path), APPLY)


def test_the_option_has_two_values(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must be ignore or apply"):
        scan_with(PyramidReader(), str(plain(tmp_path / "a.tif", colours(), None)), {"icc": "maybe"})
