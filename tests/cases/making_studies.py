"""DICOM studies on which tools of this field fail. A maker takes a folder, and returns the folder that it filled."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {"CT": "2", "MR": "4", "PT": "128", "MG": "1.2", "US": "6.1", "CR": "1", "NM": "20", "OT": "7"}
ENHANCED_MR = "4.1"
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
SIDE = 64


def ramp() -> npt.NDArray[np.uint16]:
    """10 · (row + column)."""
    return (np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 10).astype(np.uint16)


def flat(value: int) -> npt.NDArray[np.uint16]:
    return np.full((SIDE, SIDE), value, dtype=np.uint16)


def of(*items: Dataset) -> Items:
    return Items(items)


def item(**tags: object) -> Dataset:
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def image(
    modality: str, pixels: npt.NDArray[Any], *, storage: str = "", placed: bool = True, **tags: object
) -> Dataset:
    """One image; `placed` puts its corner at (−16, −16, z) mm, with z = 0 and pixels of 0.5 mm."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    bits = 8 * pixels.dtype.itemsize
    rows, columns = pixels.shape[-2:]
    whole: dict[str, object] = {
        "SOPClassUID": _STORAGE + (storage or CLASSES[modality]),
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "Modality": modality,
        "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientName": "T^T",
        "PatientID": "1",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if placed:
        whole |= {"ImagePositionPatient": [-16, -16, 0], "ImageOrientationPatient": AXIAL}
        whole |= {"PixelSpacing": [0.5, 0.5], "SliceThickness": 1}
    if modality == "CT":
        whole |= {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    for name, value in (whole | tags).items():
        if value is not None:
            setattr(made, name, value)
    return made


def stack(modality: str, pictures: Iterable[tuple[npt.NDArray[Any], dict[str, object]]]) -> list[Dataset]:
    """Images of one series; each comes with its own tags, of which `z` is its height in mm."""
    same = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    made = []
    for number, (pixels, tags) in enumerate(pictures, 1):
        own = {"InstanceNumber": number, "ImagePositionPatient": [-16, -16, tags.pop("z", 0)], **tags}
        made.append(image(modality, pixels, **same, **own))
    return made


def save(folder: Path, images: Sequence[Dataset]) -> Path:
    for number, one in enumerate(images):
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.save_as(folder / f"{number:03d}", enforce_file_format=True)
    return folder


def mosaic(folder: Path, _: object) -> Path:
    """Five slices of 72 × 72 in one picture of 3 × 3 places, as Siemens scanners write them.

    Each has its own grey and one bright pixel, in column 20 and row 10; pixels are 3 mm, slices lie 4 mm apart.
    """
    picture = np.zeros((216, 216), dtype=np.uint16)
    for number in range(5):
        top, left = number // 3 * 72, number % 3 * 72
        picture[top : top + 72, left : left + 72] = 100 * (number + 1)
        picture[top + 10, left + 20] = 4000
    spacings = {"PixelSpacing": [3, 3], "SpacingBetweenSlices": 4, "SliceThickness": 3}
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "Manufacturer": "SIEMENS"}
    made = image("MR", picture, ImagePositionPatient=[-324, -324, -8], **spacings, **kind)
    made.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    made.add_new(0x0019100A, "US", 5)
    return save(folder, [made])


def _four_phases(modality: str, tags: Any, *, shuffled: bool) -> list[Dataset]:
    """Five places at four times; greys are 1000 + 100 · time. `tags(time, place)` are what tells times apart.

    All are within the window: of a picture beyond it, nothing would be asked.
    """
    pictures = []
    for place in range(5):
        for when in range(4):
            number = 4 * place + when + 1
            window = {"WindowCenter": 1150 if modality == "MR" else 126, "WindowWidth": 400}
            own = {"z": 2.0 * place, **window, "InstanceNumber": number * 7 % 20 + 1 if shuffled else number}
            pictures.append((flat(1000 + 100 * when), {**own, **tags(when, place)}))
    return stack(modality, pictures)


def temporal_position(folder: Path, _: object) -> Path:
    def tags(when: int, _: int) -> dict[str, object]:
        return {"TemporalPositionIdentifier": 21 + when}

    return save(folder, _four_phases("MR", tags, shuffled=True))


def trigger_time(folder: Path, _: object) -> Path:
    def tags(when: int, _: int) -> dict[str, object]:
        return {"NominalPercentageOfCardiacPhase": 25.0 * when, "TriggerTime": 200.0 * when}

    return save(folder, _four_phases("CT", tags, shuffled=True))


def content_time(folder: Path, _: object) -> Path:
    """Only the clock tells them apart, and instance numbers run through the times at each place."""

    def tags(when: int, place: int) -> dict[str, object]:
        clock = f"12{when:02d}{place:02d}.{when}{place}"
        return {"ContentTime": clock, "AcquisitionTime": clock}

    return save(folder, _four_phases("CT", tags, shuffled=False))


def window_black(folder: Path, _: object) -> Path:
    return save(folder, [image("CT", ramp(), WindowCenter=30000, WindowWidth=10)])


def slope_zero(folder: Path, _: object) -> Path:
    return save(folder, [image("CT", ramp(), RescaleSlope=0)])


def mixed_orientation(folder: Path, _: object) -> Path:
    """Six axial slices and a coronal one in one series."""
    pictures: list[tuple[np.ndarray, dict[str, object]]] = [(ramp(), {"z": 2.0 * number}) for number in range(6)]
    return save(folder, stack("CT", [*pictures, (ramp(), {"ImageOrientationPatient": CORONAL})]))


def three_planes(folder: Path, _: object) -> Path:
    """One enhanced file of three frames in each of three planes."""
    pixels = np.stack([flat(100 * (number + 1)) for number in range(9)])
    made = image("MR", pixels, storage=ENHANCED_MR, placed=False, NumberOfFrames=9)
    measures = item(PixelSpacing=[1, 1], SliceThickness=5)
    made.SharedFunctionalGroupsSequence = of(item(PixelMeasuresSequence=of(measures)))
    frames = []
    for plane in (AXIAL, SAGITTAL, CORONAL):
        for number in range(3):
            corner = [float(value) for value in np.cross(plane[:3], plane[3:]) * number * 10]
            position, orientation = item(ImagePositionPatient=corner), item(ImageOrientationPatient=plane)
            frames.append(item(PlanePositionSequence=of(position), PlaneOrientationSequence=of(orientation)))
    made.PerFrameFunctionalGroupsSequence = of(*frames)
    return save(folder, [made])


def tomogram(folder: Path, _: object) -> Path:
    """A nuclear-medicine reconstruction of six slices, which is placed by its detector's sequence alone."""
    pixels = np.stack([flat(100 * (number + 1)) for number in range(6)])
    kind = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    spacings = {"PixelSpacing": [4, 4], "SpacingBetweenSlices": 4, "SliceThickness": 4}
    made = image(
        "NM", pixels, placed=False, NumberOfFrames=6, ImageType=kind, SliceVector=[1, 2, 3, 4, 5, 6], **spacings
    )
    place = item(ImagePositionPatient=[-128, -128, 50], ImageOrientationPatient=AXIAL)
    made.DetectorInformationSequence = of(place)
    return save(folder, [made])


def pet_slopes(folder: Path, _: object) -> Path:
    """One activity, 1484.375 Bq/ml on average, in five slices of different slopes."""
    activity = np.zeros((SIDE, SIDE))
    activity[16:48, 16:48], activity[28:36, 28:36] = 5000, 20000
    common = {"RescaleIntercept": 0, "Units": "BQML", "WindowCenter": 10000, "WindowWidth": 20000}
    pictures = [
        (np.round(activity / slope).astype(np.int16), {"z": 3.0 * number, "RescaleSlope": slope, **common})
        for number, slope in enumerate((1.0, 1.0, 2.0, 4.0, 8.0))
    ]
    return save(folder, stack("PT", pictures))


def mammogram(folder: Path, _: object) -> Path:
    """MONOCHROME1, so that high numbers are dark; its pixels are known in the detector's plane only."""
    picture = np.zeros((SIDE, SIDE), dtype=np.uint16)
    picture[:, : SIDE // 2] = 3000
    picture[20:30, 5:15] = 1000
    shown: dict[str, Any] = {
        "PhotometricInterpretation": "MONOCHROME1",
        "WindowCenter": [2048, 1500],
        "WindowWidth": [4096, 1000],
    }
    scale: dict[str, Any] = {"ImagerPixelSpacing": [0.07, 0.07], "EstimatedRadiographicMagnificationFactor": 1.5}
    bits: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
    return save(folder, [image("MG", picture, placed=False, ImageLaterality="L", **shown, **scale, **bits)])


def film_spacings(folder: Path, _: object) -> Path:
    """Calibrated to 0.15 mm; the detector's 0.2 mm said twice; said once; pixels of unknown plane."""
    detector: dict[str, Any] = {"ImagerPixelSpacing": [0.2, 0.2]}
    stated: list[dict[str, Any]] = [
        {**detector, "PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "GEOMETRY"},
        {**detector, "PixelSpacing": [0.2, 0.2]},
        detector,
        {"PixelSpacing": [0.2, 0.2]},
    ]
    return save(folder, [image("CR", ramp(), placed=False, **tags) for tags in stated])


def ultrasound(folder: Path, _: object) -> Path:
    """One region in cm; two, of which one is a trace; one whose axes are seconds and cm."""
    images = []
    for regions in ([(3, 3, 0.05, 0.04, 1)], [(3, 3, 0.05, 0.05, 1), (4, 7, 0.01, 1.0, 3)], [(4, 3, 0.01, 0.05, 2)]):
        stated = [
            item(
                RegionSpatialFormat=form,
                RegionDataType=1,
                RegionFlags=0,
                RegionLocationMinX0=0,
                RegionLocationMinY0=0,
                RegionLocationMaxX1=SIDE - 1,
                RegionLocationMaxY1=SIDE - 1,
                PhysicalUnitsXDirection=unit_x,
                PhysicalUnitsYDirection=unit_y,
                PhysicalDeltaX=x,
                PhysicalDeltaY=y,
            )
            for unit_x, unit_y, x, y, form in regions
        ]
        picture = np.full((SIDE, SIDE), 50, dtype=np.uint8)
        images.append(image("US", picture, placed=False, SequenceOfUltrasoundRegions=of(*stated)))
    return save(folder, images)


def padding(folder: Path, _: object) -> Path:
    """Padding of −2000 around a square, stated as signed, as unsigned, and as signed without its type in the file."""
    picture = np.full((SIDE, SIDE), -2000, dtype=np.int16)
    picture[16:48, 16:48] = np.arange(32) * 10
    images = []
    for kind, value, syntax in (
        ("SS", -2000, ExplicitVRLittleEndian),
        ("US", 63536, ExplicitVRLittleEndian),
        ("SS", -2000, ImplicitVRLittleEndian),
    ):
        made = image("CT", picture, RescaleIntercept=0)
        made.add_new(0x00280120, kind, value)
        made.file_meta.TransferSyntaxUID = syntax
        images.append(made)
    return save(folder, images)


def overlay_bits(folder: Path, _: object) -> Path:
    """12 bits of picture, and above them a bit of an overlay."""
    picture = ramp()
    picture[10:20, 10:20] |= 0x8000
    return save(folder, [image("CT", picture, BitsStored=12, HighBit=11)])


def colours(folder: Path, _: object) -> Path:
    """YBR with halved colours, (150, 90, 200) in each pixel; and RGB plane by plane, (200, 100, 30)."""
    halved = np.zeros((SIDE, SIDE // 2, 4), dtype=np.uint8)
    halved[...] = 150, 150, 90, 200
    planes = np.zeros((3, SIDE, SIDE), dtype=np.uint8)
    planes[0], planes[1], planes[2] = 200, 100, 30
    common = {"SamplesPerPixel": 3}
    ybr = {"PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422", "PixelData": halved.tobytes()}
    rgb = {"PlanarConfiguration": 1, "PhotometricInterpretation": "RGB", "PixelData": planes.tobytes()}
    one = np.zeros((SIDE, SIDE), dtype=np.uint8)
    return save(folder, [image("OT", one, placed=False, **common, **tags) for tags in (ybr, rgb)])


def decimal_comma(folder: Path, _: object) -> Path:
    """A spacing of "0,5"."""
    save(folder, [image("CT", ramp())])
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.5\\0.5 ", b"0,5\\0,5 "))
    return folder


def gap(folder: Path, _: object) -> Path:
    """Slices 0, 1, 2, 4, 5 and 9 of a stack of 2.5 mm."""
    return save(folder, stack("CT", [(ramp(), {"z": 2.5 * number}) for number in (0, 1, 2, 4, 5, 9)]))


def doubled_places(folder: Path, _: object) -> Path:
    """Six slices, of which two were sent once more under other UIDs."""
    return save(folder, stack("CT", [(ramp(), {"z": 2.0 * number}) for number in (0, 1, 2, 3, 4, 5, 2, 3)]))


def same_uid(folder: Path, _: object) -> Path:
    """Five different slices of one SOP Instance UID."""
    uid = generate_uid()
    pictures = [(flat(1000 + number), {"z": 2.0 * number, "SOPInstanceUID": uid}) for number in range(5)]
    return save(folder, stack("CT", pictures))


def foreign_files(folder: Path, _: object) -> Path:
    """Three slices among files of other kinds, a slice that is cut off and an empty one."""
    save(folder, stack("CT", [(ramp(), {"z": 2.0 * number}) for number in range(3)]))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 200)
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n" + b"x" * 500)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(500))
    (folder / "trunc.dcm").write_bytes((folder / "000").read_bytes()[:900])
    (folder / "empty.dcm").touch()
    return folder


MAKERS = {
    maker.__name__: maker
    for maker in (
        mosaic,
        temporal_position,
        trigger_time,
        content_time,
        window_black,
        slope_zero,
        mixed_orientation,
        three_planes,
        tomogram,
        pet_slopes,
        mammogram,
        film_spacings,
        ultrasound,
        padding,
        overlay_bits,
        colours,
        decimal_comma,
        gap,
        doubled_places,
        same_uid,
        foreign_files,
    )
}
