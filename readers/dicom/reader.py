"""The reader "dicom": files, folders, archives, DICOMDIRs and DICOMweb servers; a stack has a plane per slice.

Pixels are modality values (Hounsfield units, where the file states them) in float32, padding invalid; colour is 8-bit
RGB. No patient's name or id is in an image's facts: UIDs and paths are pseudonyms unless the option `names` is "show".
No DICOM library is imported here: the sandboxed process parses and decodes.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator

from ..dicomweb.options import WebOptions
from ..errors import ReadError
from ..files import DICOMWEB
from ..geometry import Box
from ..image import BaseImage, FolderScan, ImageInfo, Mask, Pixels
from ..pseudonyms import NameOptions, Pseudonyms
from ..resample import axis_weights, pixel_edges, resample
from .decoder import Decoder
from .faults import FaultError, as_error
from .image_info import image_info, pseudonymous_uri
from .scan import DICOMDIR, DicomScan, has_dicom, scan_files, scan_input
from .sop_classes import WHOLE_SLIDE_REASON
from .source import sniff, split_member
from .windows import parse_windows

_CACHE: Final = 128 * 2**20  # bytes of decoded frames that an open image keeps
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
            return 70 if Path(uri).is_dir() and has_dicom(uri) else 0
        kind = sniff(head)
        if kind == "zip":
            return 70 if _archive_has_dicom(uri) else 0
        if kind and _WHOLE_SLIDE.search(head):
            return 0
        return {"dicom": 95, "no-preamble": 60}.get(kind, 0)

    def scan(self, uri: str, options: DicomOptions) -> Sequence[ImageInfo]:
        """The images in a file, folder, archive or DICOMDIR. Raises `ReadError` where there is none."""
        names = Pseudonyms.of(options)
        found = self._scan(uri, names)
        infos = self._infos(uri, found, names, options)
        if infos:
            return infos
        for _, error in _without_suv(found, names, options):
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
        names = Pseudonyms.of(options)
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: list[tuple[str, str]] = []
        if folder.startswith(DICOMWEB):
            from ..dicomweb.fetch import fetch

            fetched = fetch(folder, options)
            found = scan_files(fetched.files, Decoder())
            failed += [((uri,), error) for uri, error in fetched.failed]
            side += [(folder, fetched.summary)] if fetched.files else []
        else:
            found = self._scan(folder, names)
        failed += _without_suv(found, names, options)
        others_read = Path(folder).is_dir()  # other readers scan its other files
        for one in found.outcomes:
            if one.status == "failed":
                subject = names.path(one.source)
                error = as_error(subject, one.fault) if one.fault else _conflict(subject, one.reason)
                failed.append(((one.source,), error))
            elif one.status == "skipped" and not (others_read and (one.foreign or one.reason == WHOLE_SLIDE_REASON)):
                side.append((one.source, one.reason))
        return FolderScan(tuple(self._infos(folder, found, names, options)), tuple(failed), tuple(side))

    def number(self, infos: Sequence[ImageInfo]) -> list[ImageInfo]:
        """Give images of any inputs ids that count studies, and the images of a modality in a study, from 1.

        They are counted in the order of the files' own UIDs, whatever the order of inputs.
        """
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
        return DicomImage(info, channels)

    def _scan(self, uri: str, names: Pseudonyms) -> DicomScan:
        """Scan an input. Raises `ReadError` where it cannot be opened at all."""
        try:
            return scan_input(uri, Decoder())
        except FaultError as fault:
            raise as_error(names.path(uri), fault) from None

    def _infos(self, uri: str, found: DicomScan, names: Pseudonyms, options: DicomOptions) -> list[ImageInfo]:
        tables = Decoder().table
        archive = Path(uri).is_file() and Path(uri).name != DICOMDIR  # one row in files.csv: notes list its other files
        infos: list[ImageInfo] = []
        for number, stack in enumerate(found.grouped.stacks):
            first = stack.first
            suv = options.values == "suv" and first.metadata.modality == "PT"
            if suv and any(one.metadata.suv for one in stack.slices):
                continue  # `_without_suv` tells of it
            outcomes = found.of_study(first.file.study)
            info = image_info(
                stack, f"stack{number}", names, window=options.window, suv=suv, outcomes=outcomes, tables=tables
            )
            infos.append(_with_archive_note(info, found) if archive else info)
            self._order[_key(info)] = stack.order
        return self.number(infos)


def _without_suv(found: DicomScan, names: Pseudonyms, options: DicomOptions) -> list[tuple[tuple[str, ...], ReadError]]:
    """The files of each stack whose values cannot become SUV though that is asked for, with the error."""
    failed: list[tuple[tuple[str, ...], ReadError]] = []
    for stack in found.grouped.stacks if options.values == "suv" else ():
        faulty = [one for one in stack.slices if one.metadata.suv]
        if faulty and stack.first.metadata.modality == "PT":
            error = as_error(names.path(faulty[0].file.source), FaultError("suv", faulty[0].metadata.suv))
            failed.append((tuple(sorted({one.file.source for one in stack.slices})), error))
    return failed


class DicomImage(BaseImage):
    """An open image, with a cache of decoded frames."""

    def _open(self) -> None:
        info = self._info
        self._frames: OrderedDict[int, Pixels] = OrderedDict()
        self._dtype = np.dtype(info.channels[0].dtype)
        self._decoder = Decoder()
        self._suv = dict(info.options).get("values") == "suv"
        for path in sorted({str(split_member(plane.source)[0]) for plane in info.planes}):
            if not Path(path).is_file():
                raise as_error(info.id or info.uri, FaultError("missing"))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._read_plane(box, size, 0)

    def _read_plane(self, box: Box, size: tuple[int, int], plane: int) -> tuple[Pixels, Mask]:
        """See `Image.read`; only that slice is decoded."""
        width, height = self._info.size
        down = axis_weights(pixel_edges(box.y0, box.y1, size[1]), height)
        across = axis_weights(pixel_edges(box.x0, box.x1, size[0]), width)
        window = slice(across.start, across.stop)

        def rows(start: int, stop: int) -> tuple[Pixels, Mask | None]:
            native, valid = self._rows(plane, start, stop)
            return native[:, window], None if valid is None else valid[:, window]

        return resample(rows, down, across, len(self._channel_indices), self._dtype)

    def _close(self) -> None:
        self._frames.clear()

    def _rows(self, number: int, start: int, stop: int) -> tuple[Pixels, Mask | None]:
        """Native rows start:stop of slice `number` (from 0), and where they are valid."""
        frame = self._frame(number)[start:stop]
        if frame.ndim == 3:
            return frame[..., self._channel_indices], None
        valid = ~np.isnan(frame)
        return np.where(valid, frame, np.float32(0))[..., None], valid

    def _frame(self, number: int) -> Pixels:
        if number not in self._frames:
            plane, (width, height) = self._info.planes[number], self._info.size
            try:
                pixels = self._decoder.frame(plane.source, plane.frame - 1, 0, height, suv=self._suv)
            except FaultError as fault:
                raise as_error(f"{self._info.id}, slice {number + 1} of {len(self._info.planes)}", fault) from None
            colours = 1 if len(self._info.channels) == 1 else 3
            if pixels.shape[:2] != (height, width) or pixels.ndim != (2 if colours == 1 else 3):
                raise as_error(self._info.id, FaultError("decode", f"an array of {pixels.shape}"))
            while self._frames and sum(kept.nbytes for kept in self._frames.values()) + pixels.nbytes > _CACHE:
                self._frames.popitem(last=False)
            self._frames[number] = pixels
        self._frames.move_to_end(number)
        return self._frames[number]


def _key(info: ImageInfo) -> _Key:
    """What identifies an image among all that were scanned: its files, and its first slice in them."""
    return info.files, f"{info.planes[0].source} {info.planes[0].frame}"


def _archive_has_dicom(uri: str) -> bool:
    try:
        return any(kind for _, kind, _ in Decoder().members(uri))
    except FaultError:
        return False


def _conflict(subject: str, why: str) -> ReadError:
    return ReadError(subject, why, remedy="Find out which of the two files is right, and remove the other")


def _with_archive_note(info: ImageInfo, found: DicomScan) -> ImageInfo:
    """The image with a note on the other files of its archive, which has one row in files.csv."""
    counts = Counter(outcome.reason for outcome in found.outcomes if outcome.status != "read")
    if not counts:
        return info
    rest = "; ".join(f"{count} × {reason}" for reason, count in sorted(counts.items()))
    return replace(info, notes=(*info.notes, f"left out of its archive: {rest}"))
