"""The overview picture of a study's image as Secondary Capture (PS3.3 A.8.1)."""
# highdicom's data sets have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ..overview.writer import overview_page
from ..writer import ImageRecord, Record, image_file, write_per_image
from .concepts import long_string
from .objects import Originals, attributes, build, read_image, require_packages, save, suitable, unsuitable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SOURCES: Final = 2000  # files of a stack that its picture refers to


class SecondaryCapture:
    """sc-<image>.dcm for each image of a study: overview-<image>.png as a DICOM image, with the findings drawn."""

    name = "dicom-sc"
    on_request = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a picture per image into `folder`."""
        require_packages("sc")

        def write_one(image: ImageRecord) -> Path:
            originals = read_image(record, image)
            dataset = build(originals, lambda: secondary_capture(originals))
            return save(dataset, image_file(folder, "sc-", image.info.id, ".dcm"))

        return write_per_image(suitable(record), write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that are not of a study, or whose originals are not known."""
        return unsuitable(record)


def secondary_capture(originals: Originals) -> "Dataset":
    """The picture of an image, which refers to the files that it shows."""
    from highdicom.sc import SCImage
    from pydicom.dataset import Dataset

    first, pixels = originals.first, np.asarray(overview_page(originals.record, originals.image))
    dataset = SCImage(
        pixels,
        "RGB",
        8,
        "PATIENT",
        patient_orientation=("L", "P"),
        specific_character_set="ISO_IR 192",
        study_instance_uid=first.StudyInstanceUID,
        patient_id=first.PatientID,
        patient_name=first.PatientName,
        patient_birth_date=first.PatientBirthDate,
        patient_sex=first.PatientSex,
        accession_number=first.AccessionNumber,
        study_id=first.StudyID,
        study_date=first.StudyDate,
        study_time=first.StudyTime,
        referring_physician_name=first.ReferringPhysicianName,
        **attributes(originals, "sc", "overview"),
    )
    dataset.copy_patient_and_study_information(first)
    dataset["PatientOrientation"].value = None  # of a page with several slices and a legend there is none
    dataset.add_new("Laterality", "CS", None)
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = long_string(f"Overview with findings drawn on it. {originals.record.use}", 1024)
    for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if name in first:
            dataset[name] = first[name]
    sources: list[Dataset] = []
    for header in originals.headers[:_SOURCES]:
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        sources.append(source)
    dataset.SourceImageSequence = sources
    return dataset
