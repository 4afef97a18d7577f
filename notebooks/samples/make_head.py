"""Make the sample `head/head.zip` from the study that its README names, at half the resolution.

    python notebooks/samples/make_head.py STUDY.zip [OUT.zip]

Blocks of 2 × 2 × 2 voxels are averaged. Of the headers, only geometry and the format of pixels are kept.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

COPIED = (
    *("SOPClassUID", "Modality", "MagneticFieldStrength", "PatientPosition", "SamplesPerPixel", "RescaleIntercept"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope"),
)
SAME_DAY = (1980, 1, 1, 0, 0, 0)  # of the archive's members, so that it is the same whenever it is made


def reduce(source: Path, target: Path) -> None:
    """Write the study in the archive `source` to `target`, its first voxel in the middle of the first block."""
    with zipfile.ZipFile(source) as archive:
        files = [io.BytesIO(archive.read(info)) for info in archive.infolist() if not info.is_dir()]
    slices = [pydicom.dcmread(file) for file in files]
    row, column = np.array(slices[0].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    slices.sort(key=lambda one: float(np.cross(row, column) @ np.array(one.ImagePositionPatient, dtype=np.float64)))
    voxels = np.stack([one.pixel_array for one in slices]).astype(np.float64)
    half = [side // 2 for side in voxels.shape]
    blocks = voxels[: 2 * half[0], : 2 * half[1], : 2 * half[2]].reshape(half[0], 2, half[1], 2, half[2], 2)
    small = np.rint(blocks.mean(axis=(1, 3, 5))).astype(np.int16)
    down, across = (float(side) for side in slices[0].PixelSpacing)
    uids = {name: generate_uid(entropy_srcs=["limner", name]) for name in ("Study", "Series", "FrameOfReference")}
    with zipfile.ZipFile(target, "w") as archive:
        for number, pixels in enumerate(small):
            first, second = (np.array(one.ImagePositionPatient, float) for one in slices[2 * number : 2 * number + 2])
            made = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
            for name in COPIED:
                if name in slices[0]:
                    setattr(made, name, slices[0][name].value)
            made.SOPInstanceUID = generate_uid(entropy_srcs=["limner", "head", str(number)])
            made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (
                uids[name] for name in ("Study", "Series", "FrameOfReference")
            )
            made.ImageType = ["DERIVED", "PRIMARY", "AXIAL", "RESAMPLED"]
            made.BodyPartExamined, made.SeriesDescription, made.PatientIdentityRemoved = "HEAD", "T1w", "YES"
            made.BurnedInAnnotation = "NO"
            made.PatientName = made.PatientID = ""
            made.InstanceNumber = number + 1
            made.ImagePositionPatient = [
                f"{one:.6f}" for one in (first + second) / 2 + row * across / 2 + column * down / 2
            ]
            made.ImageOrientationPatient = list(slices[0].ImageOrientationPatient)
            made.PixelSpacing = [f"{2 * down:.9f}", f"{2 * across:.9f}"]
            made.SliceThickness = f"{2 * float(slices[0].SliceThickness):.9f}"
            made.Rows, made.Columns = pixels.shape
            made.PixelData = pixels.tobytes()
            made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
            written = io.BytesIO()
            made.save_as(written, enforce_file_format=True)
            member = zipfile.ZipInfo(f"head/{number + 1:03}.dcm", SAME_DAY)
            archive.writestr(member, written.getvalue(), zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    reduce(Path(sys.argv[1]), Path(*(sys.argv[2:] or [Path(__file__).with_name("head") / "head.zip"])))
