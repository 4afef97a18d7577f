"""DICOM studies: files, folders, archives and DICOMDIRs become images; a stack has a plane for each slice.

Pixels are modality values (Hounsfield units, where the file says so) in float32, padding invalid; colour is red, green
and blue of 8 bits. Nothing about a person is in an image's facts: UIDs and paths are pseudonyms (`pseudonym.py`) unless
the option `names` says show. This file holds no DICOM library: the limited process does (`decode.py`).
"""

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from ..errors import ReadError
from ..geometry import Box
from ..image import BaseImage, FolderScan, ImageInfo, Mask, Pixels
from ..pseudonyms import NameOptions, Pseudonyms
from ..resample import axis_weights, pixel_edges, resample
from .decoder import decoder
from .faults import FaultError, as_error
from .image_info import describe, told_uri
from .scan import LISTING, DicomScan, has_dicom, survey
from .sop_classes import FOR_SLIDES
from .source import sniff, split

_CACHE: Final = 128 * 2**20  # bytes of decoded frames that an open image keeps
_WHOLE_SLIDE: Final = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.77\.1\.6(?![.0-9])")


class DicomOptions(NameOptions):
    """Options of the reader "dicom"."""

    window: str = Field(
        default="",
        description="How grey is seen: centre,width, a CT preset such as lung, or the file's name for a window.",
    )


class DicomReader:
    """The reader named "dicom"."""

    name = "dicom"
    isolated = True  # the limited process parses (`decode.py`)
    kind = "study"
    Options = DicomOptions

    def __init__(self) -> None:
        self._order: dict[tuple[tuple[str, ...], str], tuple[object, ...]] = {}  # of each image that was scanned

    def identify(self, uri: str, head: bytes) -> int:
        """DICOM by its first bytes; a folder or an archive that holds some. Whole-slide images are left to others."""
        if not head:
            found = Path(uri).is_dir() and has_dicom(uri)
            return 70 if found else 0
        kind = sniff(head)
        if kind == "zip":
            return 70 if _archive_has_dicom(uri) else 0
        if kind and _WHOLE_SLIDE.search(head):
            return 0
        return {"dicom": 95, "bare": 60}.get(kind, 0)

    def scan(self, uri: str, options: DicomOptions) -> Sequence[ImageInfo]:
        """The images in a file, folder, archive or DICOMDIR. Raises `ReadError` where there is none."""
        names = Pseudonyms.of(options)
        found = self.survey(uri, options)
        infos = self._infos(uri, found, names, options)
        if infos:
            return infos
        subject = names.path(uri)
        own = [fate for fate in found.fates if fate.status == "failed" or len(found.fates) == 1]
        fault = next((fate.fault for fate in own if fate.fault is not None), None)
        if fault is not None:
            raise as_error(subject, fault)
        why = "; ".join(sorted({fate.reason for fate in found.fates if not fate.foreign})) or "no DICOM images"
        raise ReadError(subject, "it must hold an image", value=why, remedy="Leave it out, or give the study's images")

    def is_archive(self, uri: str, head: bytes) -> bool:
        """Archives and DICOMDIRs hold files."""
        return sniff(head) == "zip" or Path(uri).name == LISTING

    def scan_folder(self, folder: str, options: DicomOptions) -> FolderScan:
        """The images in a folder and below, files that failed, and DICOM files that are no images."""
        names = Pseudonyms.of(options)
        found = self.survey(folder, options)
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: list[tuple[str, str]] = []
        for fate in found.fates:
            if fate.status == "failed":
                subject = names.path(fate.source)
                error = as_error(subject, fate.fault) if fate.fault else _conflict(subject, fate.reason)
                failed.append(((fate.source,), error))
            elif fate.status == "skipped" and not (
                Path(folder).is_dir() and (fate.foreign or fate.reason == FOR_SLIDES)
            ):
                side.append((fate.source, fate.reason))
        return FolderScan(tuple(self._infos(folder, found, names, options)), tuple(failed), tuple(side))

    def number(self, infos: Sequence[ImageInfo]) -> list[ImageInfo]:
        """Images of any inputs, with ids that count studies, and a study's images of a modality, from 1.

        They are counted in the order of their UIDs as the files have them, which no order of inputs changes.
        """
        order = sorted(
            range(len(infos)),
            key=lambda at: (*self._order.get(_place(infos[at]), ()), infos[at].fingerprint, infos[at].files),
        )
        studies = list(dict.fromkeys(infos[at].study for at in order))
        numbers: Counter[tuple[str, str]] = Counter()
        named = list(infos)
        for at in order:
            info = infos[at]
            kind = _kind(dict(info.facts).get("modality", ""))
            numbers[info.study, kind] += 1
            name = f"study{studies.index(info.study) + 1}-{kind}{numbers[info.study, kind]}"
            uri = told_uri(info.study, name) if info.uri == told_uri(info.study, info.id) else info.uri
            named[at] = replace(info, id=name, uri=uri)
        return named

    def survey(self, uri: str, options: DicomOptions) -> DicomScan:
        """Every file of an input with its fate, and the stacks. Raises `ReadError` where it cannot be opened at all."""
        try:
            return survey(uri, decoder())
        except FaultError as fault:
            raise as_error(Pseudonyms.of(options).path(uri), fault) from None

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "DicomImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return DicomImage(info, channels)

    def _infos(self, uri: str, found: DicomScan, names: Pseudonyms, options: DicomOptions) -> list[ImageInfo]:
        window, tables = options.window, decoder().table
        inside = Path(uri).is_file() and Path(uri).name != LISTING  # other files' fates are told in notes
        infos: list[ImageInfo] = []
        for place, stack in enumerate(found.series.stacks):
            first = stack.first
            fates = found.of_study(first.file.study)
            info = describe(stack, f"stack{place}", names, window=window, fates=fates, tables=tables)
            infos.append(_with_archive_notes(info, found) if inside else info)
            self._order[_place(info)] = first.file.study, first.file.series, *first.order
        return self.number(infos)


class DicomImage(BaseImage):
    """An open image: asks the limited process for frames, and keeps a few of them."""

    def _open(self) -> None:
        info = self._info
        self._frames: OrderedDict[int, Pixels] = OrderedDict()
        self._dtype = np.dtype(info.channels[0].dtype)
        self._decoder = decoder()
        for path in sorted({str(split(plane.source)[0]) for plane in info.planes}):
            if not Path(path).is_file():
                raise as_error(info.id or info.uri, FaultError("missing"))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._read_plane(box, size, 0)

    def _read_plane(self, box: Box, size: tuple[int, int], plane: int) -> tuple[Pixels, Mask]:
        """See `Image.read`. Only that slice is decoded."""
        width, height = self._info.size
        down = axis_weights(pixel_edges(box.y0, box.y1, size[1]), height)
        across = axis_weights(pixel_edges(box.x0, box.x1, size[0]), width)
        window = slice(across.start, across.stop)

        def rows(start: int, stop: int) -> tuple[Pixels, Mask | None]:
            native, usable = self._rows(plane, start, stop)
            return native[:, window], None if usable is None else usable[:, window]

        return resample(rows, down, across, len(self._channel_indices), self._dtype)

    def _close(self) -> None:
        self._frames.clear()

    def _rows(self, number: int, start: int, stop: int) -> tuple[Pixels, Mask | None]:
        """Native rows start:stop of slice `number` (from 0), and where they are valid."""
        frame = self._frame(number)[start:stop]
        if frame.ndim == 3:
            return frame[..., self._channel_indices], None
        usable = ~np.isnan(frame)
        return np.where(usable, frame, np.float32(0))[..., None], usable

    def _frame(self, number: int) -> Pixels:
        if number not in self._frames:
            plane, (width, height) = self._info.planes[number], self._info.size
            try:
                pixels = self._decoder.frame(plane.source, plane.frame - 1, 0, height)
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


def _place(info: ImageInfo) -> tuple[tuple[str, ...], str]:
    """What tells an image from all others of a scan, whatever its id: its files, and its first slice in them."""
    return info.files, f"{info.planes[0].source} {info.planes[0].frame}"


def _kind(modality: str) -> str:
    return (modality or "image").lower()


def _archive_has_dicom(uri: str) -> bool:
    try:
        return any(kind for _, kind, _ in decoder().members(os.fspath(uri)))
    except FaultError:
        return False


def _conflict(subject: str, why: str) -> ReadError:
    return ReadError(subject, why, remedy="Find out which of the two files is right, and remove the other")


def _with_archive_notes(info: ImageInfo, found: DicomScan) -> ImageInfo:
    """The image with a note on what its archive holds besides: an archive has one row among the input files."""
    counts: dict[str, int] = {}
    for fate in found.fates:
        if fate.status != "read":
            counts[fate.reason] = counts.get(fate.reason, 0) + 1
    if not counts:
        return info
    left = "; ".join(f"{count} × {why}" for why, count in sorted(counts.items()))
    return replace(info, notes=(*info.notes, f"left out of its archive: {left}"))
