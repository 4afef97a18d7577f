"""The reader "dicom": files, folders, archives, DICOMDIRs and DICOMweb servers; a stack has a plane per slice.

Pixels are modality values (Hounsfield units, where the file states them) in float32, padding invalid; colour is 8-bit
RGB. No patient's name or id is in an image's facts: UIDs and paths are pseudonyms unless the option `names` is "show".
No DICOM library is imported here: the sandboxed process parses and decodes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, field_validator

from ..dicomweb.options import WebOptions
from ..errors import ReadError
from ..files import DICOMWEB
from ..image import FolderScan, ImageInfo
from ..pseudonyms import NameOptions, Pseudonyms
from .faults import as_error
from .sop_classes import WHOLE_SLIDE_REASON
from .source import DICOMDIR, sniff

if TYPE_CHECKING:
    from .scan import DicomScan
    from .stack_image import DicomImage

_WHOLE_SLIDE: Final = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.77\.1\.6(?![.0-9])")
_Key = tuple[tuple[str, ...], str]


class DicomOptions(WebOptions, NameOptions):
    """Options of the reader "dicom"."""

    window: str = Field(
        default="",
        description="VOI window of grey images: centre/width, a CT preset such as lung, or the file's name for one; "
        "or three of them for red, green and blue, such as lung,mediastinum,bone, or the three of medgemma.",
    )

    values: Literal["", "suv"] = Field(
        default="",
        description="suv: PET as standardised uptake values by body weight (g/ml) instead of Bq/ml.",
    )

    @field_validator("window")
    @classmethod
    def _check_window(cls, value: str) -> str:
        if value:
            from .windows import parse_windows

            parse_windows(value)
        return value


class DicomReader:
    """The reader named "dicom"."""

    name = "dicom"
    isolated = True  # parses in the sandboxed process only
    kind = "study"
    Options = DicomOptions

    def __init__(self) -> None:
        self._order: dict[_Key, tuple[object, ...]] = {}
        """The sort key of each image that was scanned."""

    def identify(self, uri: str, head: bytes) -> int:
        """The confidence for DICOM; 0 for whole slides, which the slide reader opens."""
        if uri.startswith(DICOMWEB):
            return 95
        if not head:
            from .scan import has_dicom

            return 70 if Path(uri).is_dir() and has_dicom(uri) else 0
        kind = sniff(head)
        if kind == "zip":
            from .stack_infos import archive_has_dicom

            return 70 if archive_has_dicom(uri) else 0
        if kind and _WHOLE_SLIDE.search(head):
            return 0
        return {"dicom": 95, "no-preamble": 60}.get(kind, 0)

    def scan(self, uri: str, options: DicomOptions) -> Sequence[ImageInfo]:
        """The images in a file, folder, archive or DICOMDIR. Raises `ReadError` where there is none."""
        from .stack_infos import scan_stacks, without_suv

        names = Pseudonyms.of(options)
        found = scan_stacks(uri, names)
        infos = self._infos(uri, found, names, options)
        if infos:
            return infos
        for _, error in without_suv(found, names, suv=options.values == "suv"):
            raise error
        subject = names.path(uri)
        for one in found.outcomes:
            if one.fault is not None and (one.status == "failed" or len(found.outcomes) == 1):
                raise as_error(subject, one.fault)
        why = "; ".join(sorted({one.reason for one in found.outcomes if not one.foreign})) or "no DICOM images"
        raise ReadError(
            subject, "must have a DICOM image", value=why, remedy="Leave it out, or give the study's images"
        )

    def check_input(self, uri: str, options: DicomOptions) -> None:
        """Raise `RequestError` for an input on a DICOMweb server that cannot be meant, before anything is read."""
        if uri.startswith(DICOMWEB):
            from ..dicomweb.fetch import check_input

            check_input(uri, options)

    def is_archive(self, uri: str, head: bytes) -> bool:
        """Archives, DICOMDIRs and DICOMweb servers hold files."""
        return sniff(head) == "zip" or Path(uri).name == DICOMDIR or uri.startswith(DICOMWEB)

    def scan_folder(self, folder: str, options: DicomOptions) -> FolderScan:
        """The images in a folder and below, files that failed, and DICOM files that are not images.

        What an input on a DICOMweb server names is fetched first.
        """
        from .stack_infos import conflict, scan_stacks, without_suv

        names = Pseudonyms.of(options)
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: list[tuple[str, str]] = []
        if folder.startswith(DICOMWEB):
            from ..dicomweb.fetch import fetch
            from .decoder import Decoder
            from .scan import scan_files

            fetched = fetch(folder, options)
            found = scan_files(fetched.files, Decoder())
            failed += [((uri,), error) for uri, error in fetched.failed]
            side += [(folder, fetched.summary)] if fetched.files else []
        else:
            found = scan_stacks(folder, names)
        failed += without_suv(found, names, suv=options.values == "suv")
        others_read = Path(folder).is_dir()  # other readers scan its other files
        for one in found.outcomes:
            if one.status == "failed":
                subject = names.path(one.source)
                error = as_error(subject, one.fault) if one.fault else conflict(subject, one.reason)
                failed.append(((one.source,), error))
            elif one.status == "skipped" and not (others_read and (one.foreign or one.reason == WHOLE_SLIDE_REASON)):
                side.append((one.source, one.reason))
        return FolderScan(tuple(self._infos(folder, found, names, options)), tuple(failed), tuple(side))

    def number(self, infos: Sequence[ImageInfo]) -> list[ImageInfo]:
        """Give images of any inputs ids that count studies, and the images of a modality in a study, from 1.

        They are counted in the order of the files' own UIDs, whatever the order of inputs.
        """
        from .image_info import pseudonymous_uri

        order = sorted(
            range(len(infos)),
            key=lambda at: (*self._order.get(_key(infos[at]), ()), infos[at].fingerprint, infos[at].files),
        )
        studies = list(dict.fromkeys(infos[at].study for at in order))
        numbers: Counter[tuple[str, str]] = Counter()
        named = list(infos)
        for at in order:
            info = infos[at]
            kind = dict(info.facts).get("modality", "image").lower()
            numbers[info.study, kind] += 1
            name = f"study{studies.index(info.study) + 1}-{kind}{numbers[info.study, kind]}"
            uri = pseudonymous_uri(info.study, name) if info.uri == pseudonymous_uri(info.study, info.id) else info.uri
            named[at] = replace(info, id=name, uri=uri)
        return named

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "DicomImage":
        """Open for reading the named channels. Raises `ReadError`."""
        from .stack_image import DicomImage

        return DicomImage(info, channels)

    def _infos(self, uri: str, found: "DicomScan", names: Pseudonyms, options: DicomOptions) -> list[ImageInfo]:
        from .stack_infos import stack_infos

        stacks = stack_infos(uri, found, names, window=options.window, suv=options.values == "suv")
        self._order.update((_key(info), order) for info, order in stacks)
        return self.number([info for info, _ in stacks])


def _key(info: ImageInfo) -> _Key:
    """What identifies an image among all that were scanned: its files, and its first slice in them."""
    return info.files, f"{info.planes[0].source} {info.planes[0].frame}"
