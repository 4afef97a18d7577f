"""Synthetic DICOM files: slices whose pixels encode their coordinates, enhanced frames, and hostile files."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

ROOT = "1.2.826.0.1.3680043.8.498."
CT, MR, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "4.1"))
CR, SC, US_CLIP = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("1", "7", "3.1"))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
EXPLICIT = "1.2.840.10008.1.2.1"


def uid(number: int) -> str:
    """A UID that is the same in every run."""
    return f"{ROOT}{number}"


def ramp(rows: int = 8, columns: int = 6, add: int = 0) -> np.ndarray:
    """Pixels that encode their coordinates: 100 · row + column + `add`."""
    return (100 * np.arange(rows)[:, None] + np.arange(columns) + add).astype(np.int16)


def image(
    pixels: np.ndarray, *, sop_class: str = CT, number: int = 1, syntax: str = EXPLICIT, **tags: object
) -> FileDataset:
    """One image in memory; a tag of None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid(1000 + number))
    meta.TransferSyntaxUID = UID(syntax)
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    frames = int(str(tags.pop("frames", 1)))
    whole: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid(1000 + number),
        "StudyInstanceUID": uid(1),
        "SeriesInstanceUID": uid(2),
        "FrameOfReferenceUID": uid(3),
        "Modality": {CT: "CT", CR: "CR", US_CLIP: "US", SC: "OT"}.get(sop_class, "MR"),
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": number,
        "Rows": pixels.shape[1 if frames > 1 else 0],
        "Columns": pixels.shape[2 if frames > 1 else 1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": 8 * pixels.dtype.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if frames > 1:
        whole["NumberOfFrames"] = frames
    for name, value in (whole | tags).items():
        if value is not None:
            setattr(data, name, value)
    return data


def slices(
    count: int = 5, *, step: float = 2.5, orientation: Sequence[float] = AXIAL, **tags: object
) -> list[FileDataset]:
    """A CT stack along its normal; slice k's pixels are the ramp plus 10 000 · k / count."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        image(
            ramp(add=1000 * k),
            number=k + 1,
            ImagePositionPatient=[float(n) for n in (-10.0, -20.0, 30.0) + normal * step * k],
            ImageOrientationPatient=list(orientation),
            **{"PixelSpacing": [0.5, 0.5], "RescaleSlope": 1, "RescaleIntercept": -1024, **tags},
        )
        for k in range(count)
    ]


def save(data: FileDataset, path: Path) -> Path:
    """Write one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def save_all(images: Sequence[FileDataset], folder: Path, order: Sequence[int] | None = None) -> Path:
    """Write a stack; `order` gives the number in the name of each file."""
    for k, data in enumerate(images):
        save(data, folder / f"{k if order is None else order[k]:03d}.dcm")
    return folder


def item(**tags: object) -> Items:
    """A sequence of one item."""
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return Items([data])


def enhanced(positions: Sequence[float], *, slopes: Sequence[float], times: Sequence[int] | None = None) -> FileDataset:
    """An enhanced MR: frame k lies at z = positions[k], with its own slope; its pixels are the ramp plus 1000 · k."""
    pixels = np.stack([ramp(add=1000 * k) for k in range(len(positions))])
    data = image(pixels, sop_class=ENHANCED_MR, frames=len(positions))
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.75, 0.5], SliceThickness=3)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(AXIAL))
    data.SharedFunctionalGroupsSequence = Items([shared])
    own: list[Dataset] = []
    for k, z in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=[1.0, 2.0, z])
        frame.PixelValueTransformationSequence = item(RescaleIntercept=5, RescaleSlope=slopes[k], RescaleType="US")
        frame.FrameContentSequence = item(TemporalPositionIndex=times[k] if times else 1)
        frame.FrameVOILUTSequence = item(WindowCenter=100 + k, WindowWidth=50)
        own.append(frame)
    data.PerFrameFunctionalGroupsSequence = Items(own)
    return data


def csa(tags: Mapping[str, list[str]], *, later: bool = True) -> bytes:
    """A CSA header with these tags, each of six items of which the first have texts, in either form."""
    whole = (b"SV10\4\3\2\1" if later else b"") + struct.pack("<2I", len(tags) + 1, 77)
    for name, texts in {"EchoLinePosition": ["64"], **tags}.items():
        whole += struct.pack("<64si4s3i", name.encode(), len(texts), b"IS", 6, 6, 77)
        for at in range(6):
            text = texts[at].encode() + b"\0" if at < len(texts) else b""
            size = len(text)
            whole += struct.pack("<4i", *((size, size, 77, size) if later else (size + 6, 0, 77, 0)))
            whole += text + b"\0" * (-size % 4)
    return whole


def hostile(folder: Path) -> dict[str, Path]:
    """Hostile files, and one good slice among them, each in a folder of its own: name → path."""
    made: dict[str, Path] = {}

    def keep(name: str, content: bytes, suffix: str = ".dcm") -> None:
        path = folder / name / f"a{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made[name] = path

    def content(data: FileDataset) -> bytes:
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    good = slices(1)[0]
    keep("good", content(good))
    keep("deflate bomb", deflate_bomb(300 * 2**20))
    rle = image(ramp(), number=50, syntax="1.2.840.10008.1.2.5", Rows=65535, Columns=65535)
    rle.PixelData = encapsulate([struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 26])
    rle["PixelData"].VR = "OB"
    keep("65535² run-length", content(rle))
    middling = image(ramp(), number=51, syntax="1.2.840.10008.1.2.5", Rows=8000, Columns=8000)
    middling.PixelData = rle.PixelData
    middling["PixelData"].VR = "OB"
    keep("8000² run-length of 116 bytes", content(middling))
    keep("native pixels cut short", content(good)[:-40])
    huge = image(ramp(), number=52, Rows=60000, Columns=60000)
    keep("60000² native, no pixels behind it", content(huge))
    many = image(ramp(), number=53, NumberOfFrames=2**31 - 1)
    keep("two thousand million frames", content(many))
    keep("sequences nested 3000 deep", nested(3000))
    wrong = bytearray(content(good))
    at = wrong.index(struct.pack("<HH", 0x0008, 0x0060))
    wrong[at + 6 : at + 8] = struct.pack("<H", 0xFFFE)
    keep("an element longer than the file", bytes(wrong))
    keep(
        "path-like UIDs", content(good).replace(uid(1001).encode(), b"/../../../etc/passwd".ljust(len(uid(1001)), b"0"))
    )
    table = image(ramp().astype(np.uint16), number=54)
    table.ModalityLUTSequence = item(LUTDescriptor=[0, 0, 16], ModalityLUTType="HU", LUTData=b"\0\1" * 4)
    keep("a lookup table shorter than it says", content(table))
    palette = image(ramp().astype(np.uint8), number=55, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [65535, 0, 16])
        setattr(palette, f"{colour}PaletteColorLookupTableData", b"\0\0")
    keep("a palette shorter than it says", content(palette))
    keep("random bytes after a preamble", b"\0" * 128 + b"DICM" + np.random.default_rng(1).bytes(5000))
    keep(
        "zip slip",
        archive({"../../escaped.dcm": content(good), "/rooted.dcm": content(good), "in.dcm": content(slices(2)[1])}),
        ".zip",
    )
    keep("zip bomb", archive({"bomb.dcm": b"\0" * 128 + b"DICM" + b"\0" * (300 * 2**20)}), ".zip")
    keep("a zip cut short", archive({"a.dcm": content(good)})[:-30], ".zip")
    keep("a program and a DICOM file in one", b"MZ" + content(image(ramp(), number=56))[2:])
    return made


def deflate_bomb(size: int) -> bytes:
    """A deflated data set that becomes `size` bytes of zeros inside one element."""
    meta = struct.pack("<HH2sH", 2, 0x0010, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = [stream.compress(struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, size))]
    body += [stream.compress(b"\0" * 2**20) for _ in range(size // 2**20)]
    return b"\0" * 128 + b"DICM" + group + meta + b"".join([*body, stream.flush()])


def nested(depth: int) -> bytes:
    """A slice with a sequence inside a sequence, `depth` times, of undefined length."""
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    buffer = io.BytesIO()
    slices(1)[0].save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    return data[:at] + begin * depth + end * depth + data[at:]


def archive(members: dict[str, bytes]) -> bytes:
    """A zip archive with exactly those names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()
