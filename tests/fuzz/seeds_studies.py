"""Studies, small: every way in which DICOM files hold pixels."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import seeds
from seeds import Seed, looked_at
from seeds_maps import Pixels
from seeds_slides import colours


def stack(**tags: Any) -> Callable[[Path], None]:
    """Three slices of a CT."""

    def make(folder: Path) -> None:
        making = seeds.module("readers/dicom/making")
        making.save_all(making.slices(3, **tags), folder / "ct")

    return make


def single(**how: Any) -> Callable[[Path], None]:
    """One image, `data` of which is made by a function of the tests' maker."""

    def make(folder: Path) -> None:
        making = seeds.module("readers/dicom/making")
        whole = dict(how)
        data = whole.pop("data", lambda making: making.ramp(24, 32))(making)
        whole = {key: getattr(making, value) if key == "sop_class" else value for key, value in whole.items()}
        encode = whole.pop("encode", None)
        image = making.image(data, **whole)
        if encode:
            encode(image, data)
        making.save(image, folder / "a.dcm")

    return make


def run_lengths(image: Any, data: Pixels) -> None:
    """Pixels coded as run lengths."""
    from pydicom.pixels.encoders.base import get_encoder
    from pydicom.uid import RLELossless

    assert get_encoder(RLELossless).is_available
    image.compress(RLELossless, data, generate_instance_uid=False)


def jpeg_2000(image: Any, data: Pixels) -> None:
    """Pixels coded as JPEG 2000."""
    from pydicom.uid import JPEG2000Lossless

    image.compress(JPEG2000Lossless, data, generate_instance_uid=False)


def baseline(image: Any, data: Pixels) -> None:
    """Pixels coded as JPEG."""
    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    made = io.BytesIO()
    Image.fromarray(data).save(made, "JPEG")
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.PixelData = encapsulate([made.getvalue()])
    image["PixelData"].VR = "OB"


def mosaic(image: Any, _: Pixels) -> None:
    """A mosaic of four slices, which its CSA header and private tag state."""
    making = seeds.module("readers/dicom/making")
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    image.ImagePositionPatient, image.ImageOrientationPatient = [-10, -20, 30], list(making.AXIAL)
    image.PixelSpacing, image.SpacingBetweenSlices = [2, 2], 3
    header = making.csa({"NumberOfImagesInMosaic": ["4"], "SliceNormalVector": ["0", "0", "-1"]})
    image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 4)
    image.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)


def tomogram(folder: Path) -> None:
    """Three reconstructed slices of nuclear medicine."""
    making = seeds.module("readers/dicom/making")
    place = {"ImagePositionPatient": [-10, -20, 50], "ImageOrientationPatient": list(making.AXIAL)}
    tags = {"PixelSpacing": [4, 4], "SpacingBetweenSlices": 5, "SliceVector": [1, 2, 3], "Modality": "NM"}
    kind = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    data = np.stack([making.ramp(24, 32)] * 3)
    image = making.image(data, sop_class="1.2.840.10008.5.1.4.1.1.20", frames=3, ImageType=kind, **tags)
    image.DetectorInformationSequence = making.item(**place)
    making.save(image, folder / "a.dcm")


def multiframe(folder: Path) -> None:
    """An enhanced MR of three frames."""
    making = seeds.module("readers/dicom/making")
    making.save(making.enhanced([0.0, 2.0, 4.0], slopes=[1.0, 2.0, 3.0]), folder / "a.dcm")


def zipped(folder: Path) -> None:
    """A study in an archive."""
    making = seeds.module("readers/dicom/making")
    members: dict[str, bytes] = {}
    for k, data in enumerate(making.slices(3)):
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        members[f"ct/{k}.dcm"] = buffer.getvalue()
    (folder / "a.zip").write_bytes(making.archive(members))


def listed(folder: Path) -> None:
    """A study with a DICOMDIR."""
    import pydicom
    from pydicom.fileset import FileSet

    making = seeds.module("readers/dicom/making")
    files = FileSet()
    files.UID = making.uid(77)
    for data in making.slices(3, PatientID="1", PatientName="A", StudyDate="20200101", StudyTime="100000",
                              StudyID="1", SeriesNumber=1, AccessionNumber="2"):  # fmt: skip
        files.add(data)
    files.write(folder / "disc")
    assert pydicom.dcmread(folder / "disc" / "DICOMDIR")


def clip(_making: Any) -> Pixels:
    """(3 frames, 24, 32, 3)."""
    return np.stack([colours(24, 32)] * 3)


RGB_TAGS = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
GREY8 = {"data": lambda making: making.ramp(24, 32).astype(np.uint8)}
PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"} | {
    f"{colour}PaletteColorLookupTable{what}": [256, 0, 16]
    if what == "Descriptor"
    else struct.pack("<256H", *range(256))
    for colour in ("Red", "Green", "Blue")
    for what in ("Descriptor", "Data")
}
STUDIES: dict[str, Seed] = {
    "stack": Seed(stack(), looked_at("ct")),
    "gaps": Seed(stack(step=3.5, WindowCenter=40, WindowWidth=400, SliceThickness=2), looked_at("ct")),
    "explicit": Seed(single(WindowCenter=1000, WindowWidth=2000), looked_at("a.dcm")),
    "implicit": Seed(single(syntax="1.2.840.10008.1.2"), looked_at("a.dcm")),
    "deflated": Seed(single(syntax="1.2.840.10008.1.2.1.99"), looked_at("a.dcm")),
    "run lengths": Seed(single(encode=run_lengths), looked_at("a.dcm")),
    "jpeg 2000": Seed(single(data=lambda making: making.ramp(96, 96) % 4000, encode=jpeg_2000), looked_at("a.dcm")),
    "jpeg": Seed(single(encode=baseline, **GREY8), looked_at("a.dcm")),
    "palette": Seed(single(**GREY8, **PALETTE), looked_at("a.dcm")),
    "clip": Seed(single(data=clip, sop_class="US_CLIP", frames=3, **RGB_TAGS), looked_at("a.dcm")),
    "radiograph": Seed(
        single(sop_class="CR", PixelSpacing=[0.2, 0.2], PhotometricInterpretation="MONOCHROME1"), looked_at("a.dcm")
    ),
    "mosaic": Seed(single(sop_class="MR", encode=mosaic), looked_at("a.dcm")),
    "tomogram": Seed(tomogram, looked_at("a.dcm")),
    "enhanced": Seed(multiframe, looked_at("a.dcm")),
    "zip": Seed(zipped, looked_at("a.zip")),
    "dicomdir": Seed(listed, looked_at("disc")),
}
