"""Which formats there are: recognised by their bytes, by what lies beside a file, and by its name, in that order.

A file of a format that is listed here is read by that format's reader or refused by that format's name. It never falls
through to another reader: pages of a slide's file may be pictures of the glass label, with a patient's name on it.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from .errors import ReadError
from .image import Kind
from .slide.tiff_directories import (
    DESCRIPTION,
    MAGIC,
    MAKE,
    PAGE_NAME,
    SOFTWARE,
    SUBFILE,
    TILE_WIDTH,
    XMP,
    Directories,
    Page,
)

_FEW: Final = 64  # directories that tell what a TIFF is
_MAPS: Final = frozenset({33550, 33922, 34264, 34735, 42112, 42113})  # GeoTIFF's and GDAL's tags
_WHOLE_SLIDE: Final = re.compile(
    rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.77\.1\.6(?![.0-9])"
)  # VL Whole Slide Microscopy Image Storage
_SMALL: Final = 1 << 16  # bytes of a list or of a folder's attributes that are looked at


@dataclass(frozen=True, slots=True)
class Format:
    """A format that we know of.

    `key` is what a plug-in's reader lists in its attribute `formats` to be given such files. `kind` is None for what
    holds no image. `reader` is ours that reads it, "" where none does: `why` and `remedy` then say more. A `strict`
    format may hold pictures of a label: no other reader may open it, even where a user names one. What lies `aside`
    belongs to an image or is none, and is passed over in a folder.
    """

    key: str
    name: str
    kind: Kind | None
    reader: str = ""
    why: str = ""
    remedy: str = ""
    strict: bool = True
    aside: bool = False

    @property
    def personal(self) -> bool:
        """Whether names of such files may be names of people."""
        return self.kind in {"slide", "study"}

    def read_by(self, name: str, reader: object) -> bool:
        """Whether a reader is made for this format: ours, or one that lists the format's key."""
        return name == self.reader or self.key in getattr(reader, "formats", ())

    def refusal(self, subject: str) -> ReadError:
        """The error that says that no reader may open such a file."""
        if self.reader:
            return ReadError(
                subject,
                f"a file of the format {self.name} is opened by the reader {self.reader} and by no other",
                value="another reader was named",
                remedy="Leave --reader out",
            )
        found = f"{self.name} is not supported" + (f": {self.why}" if self.why else "")
        return ReadError(subject, "it must be of a format that limner reads", value=found, remedy=self.remedy)


_OME: Final = "Convert it to OME-TIFF, for example with `bfconvert` of Bio-Formats"
_SLIDE: Final = (
    "Convert it to OME-TIFF, for example with `bfconvert` of Bio-Formats or `vips tiffsave --tile --pyramid`"
)
_SDK: Final = "Export it as TIFF or OME-TIFF with Philips' tools or isyntax2raw"
_LOSSLESS: Final = "Export it from the scanner's own viewer as OME-TIFF or SVS"
_VOLUME: Final = "Give the DICOM series that it was made from"
_GDAL: Final = (
    "Write the variable that you mean as GeoTIFF, for example with `gdal_translate NETCDF:FILE:VARIABLE OUT.tif`"
)
_WHICH: Final = "which of its variables is meant is not known"
_NO_IMAGE: Final = "Leave it out"

_FORMATS: Final = {
    one.key: one
    for one in (
        # slides and microscopy that one of our readers opens
        Format("svs", "Aperio SVS", "slide", "slide"),
        Format("ndpi", "Hamamatsu NDPI", "slide", "slide"),
        Format("vms", "Hamamatsu VMS", "slide", "slide"),
        Format("scn", "Leica SCN", "slide", "slide"),
        Format("mrxs", "Mirax MRXS of 3DHISTECH", "slide", "slide"),
        Format("bif", "Ventana BIF", "slide", "slide"),
        Format("philips", "Philips TIFF", "slide", "slide"),
        Format("trestle", "Trestle TIFF", "slide", "slide"),
        Format("svslide", "Sakura SVSLIDE", "slide", "slide"),
        Format("dicom-wsi", "DICOM whole-slide image", "slide", "slide"),
        Format("ome-tiff", "OME-TIFF", "slide", "pyramid"),
        Format("qptiff", "PerkinElmer or Akoya QPTIFF", "slide", "pyramid"),
        Format("pyramid", "pyramid of tiles in TIFF", "slide", "pyramid", strict=False),
        Format("dicom", "DICOM", "study", "dicom"),
        # those that none does
        Format("vsi", "Olympus VSI", "slide", "", "its own pages are overviews and the label", _OME),
        Format("ets", "Olympus ETS", "slide", "", "it holds pixels of a VSI slide", _OME, aside=True),
        Format("afi", "Aperio AFI", "slide", "", "it lists slides", "Give its .svs files", aside=True),
        Format("ndpis", "Hamamatsu NDPIS", "slide", "", "it lists slides", "Give its .ndpi files", aside=True),
        Format("vms-part", "part of a Hamamatsu VMS slide", "slide", "", "", "Give the .vms file", aside=True),
        Format("label", "picture of a slide's label", "slide", "", "", "Leave it out", aside=True),
        Format("isyntax", "Philips iSyntax", "slide", "", "", _SDK),
        Format("czi", "Zeiss CZI", "slide", "", "", _OME),
        Format("zvi", "Zeiss ZVI", "slide", "", "", _OME),
        Format("lsm", "Zeiss LSM", "slide", "", "", _OME),
        Format("lif", "Leica LIF", "slide", "", "", _OME),
        Format("oib", "Olympus OIB or OIF", "slide", "", "", _OME),
        Format("nd2", "Nikon ND2", "slide", "", "", _OME),
        Format("stk", "MetaMorph STK", "slide", "", "", _OME),
        Format("fluoview", "Olympus FluoView TIFF", "slide", "", "", _OME),
        Format("imaris", "Imaris", "slide", "", "", _OME),
        Format("imagej", "ImageJ stack", "slide", "", "its channels and planes lie in one piece", _OME),
        Format("mds", "Motic MDS or MDSX", "slide", "", "", _LOSSLESS),
        Format("kfb", "KFBIO KFB", "slide", "", "", _LOSSLESS),
        Format("tmap", "Unic TMAP", "slide", "", "", _LOSSLESS),
        Format("sdpc", "SQRAY SDPC", "slide", "", "", _LOSSLESS),
        Format("vsf", "Meyer VSF", "slide", "", "", _LOSSLESS),
        Format("ome-zarr", "OME-Zarr", "slide", "", "limner does not read it yet", _SLIDE),
        Format("nifti", "NIfTI", "study", "", "", _VOLUME),
        Format("nrrd", "NRRD", "study", "", "", _VOLUME),
        Format("metaimage", "MetaImage (MHA, MHD)", "study", "", "", _VOLUME),
        Format("analyze", "Analyze or Interfile header", "study", "", "", _VOLUME),
        # maps and what holds no image: whoever claims one may have it
        Format("zarr", "Zarr", "map", "", "", "Write the array that you mean as GeoTIFF", strict=False),
        Format("hdf5", "HDF5 or NetCDF 4", "map", "", _WHICH, _GDAL, strict=False),
        Format("netcdf", "NetCDF", "map", "", _WHICH, _GDAL, strict=False),
        Format("hdf4", "HDF 4", "map", "", "", _GDAL, strict=False),
        Format("pdf", "PDF", None, "", "", _NO_IMAGE, strict=False, aside=True),
        Format("video", "video", None, "", "", "Give single frames as PNG or TIFF", strict=False, aside=True),
        Format("office", "Office document", None, "", "", _NO_IMAGE, strict=False, aside=True),
    )
}  # fmt: skip

_BY_NAME: Final = {
    "svs": "svs", "afi": "afi", "ndpi": "ndpi", "ndpis": "ndpis", "vms": "vms", "vmu": "vms", "scn": "scn",
    "mrxs": "mrxs", "bif": "bif", "svslide": "svslide", "vsi": "vsi", "ets": "ets", "isyntax": "isyntax",
    "i2syntax": "isyntax", "qptiff": "qptiff", "czi": "czi", "zvi": "zvi", "lsm": "lsm", "lif": "lif", "lof": "lif",
    "xlef": "lif", "oib": "oib", "oif": "oib", "oir": "oib", "nd2": "nd2", "stk": "stk", "ims": "imaris", "mds": "mds",
    "mdsx": "mds", "kfb": "kfb", "tmap": "tmap", "sdpc": "sdpc", "vsf": "vsf", "ome.tif": "ome-tiff",
    "ome.tiff": "ome-tiff", "ome.btf": "ome-tiff", "ome.tf2": "ome-tiff", "ome.tf8": "ome-tiff", "nii": "nifti",
    "nii.gz": "nifti", "nrrd": "nrrd", "nhdr": "nrrd", "mha": "metaimage", "mhd": "metaimage", "dcm": "dicom",
    "dicom": "dicom", "nc": "netcdf", "h5": "hdf5", "hdf5": "hdf5", "pdf": "pdf", "mp4": "video", "avi": "video",
    "mkv": "video", "mov": "video", "docx": "office", "xlsx": "office", "pptx": "office", "doc": "office",
    "xls": "office", "ppt": "office", "odt": "office", "ods": "office", "odp": "office",
}  # fmt: skip

_BY_BYTES: Final = (
    (0, b"ZISRAWFILE", "czi"),
    (0, b"\xda\xce\xbe\x0a", "nd2"),
    (344, b"n+1\0", "nifti"),
    (344, b"ni1\0", "nifti"),
    (4, b"n+2\0", "nifti"),
    (4, b"ni2\0", "nifti"),
    (0, b"NRRD000", "nrrd"),
    (0, b"ObjectType = Image", "metaimage"),
    (0, b"SIS\0", "ets"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"CDF\x01", "netcdf"),
    (0, b"CDF\x02", "netcdf"),
    (0, b"CDF\x05", "netcdf"),
    (0, b"\x0e\x03\x13\x01", "hdf4"),
    (0, b"%PDF-", "pdf"),
    (4, b"ftypisom", "video"),
    (4, b"ftypmp4", "video"),
    (4, b"ftypqt", "video"),
    (0, b"\x1a\x45\xdf\xa3", "video"),
    (8, b"AVI LIST", "video"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office"),
)

_NAMED: Final = frozenset({"svslide", "mrxs", "imaris", "zvi", "oib"})  # their names say more than their first bytes
_LABEL: Final = re.compile(r"(slide )?(label|macro|thumbnail|overview)([ _-]?image)?( \d+x\d+)?", re.IGNORECASE)


def recognise(uri: str, head: bytes) -> Format | None:
    """The format of a file, whose first 4 KiB are `head` (empty where they are not at hand); None for any other."""
    by_name = _by_name(uri)
    if by_name in _NAMED:
        return _FORMATS[by_name]
    if head[:4] in MAGIC:
        key = _tiff(uri, by_name)
    elif head[128:132] == b"DICM":
        key = "dicom-wsi" if _WHOLE_SLIDE.search(head) else "dicom"
    elif head.startswith(b"\xff\xd8\xff") and _listed(uri):
        key = "vms-part"
    elif b"DPUfsImport" in head[:512]:
        key = "isyntax"
    else:
        key = next((key for at, magic, key in _BY_BYTES if head.startswith(magic, at)), "") or by_name
    return _FORMATS.get(key)


def recognise_folder(folder: str) -> Format | None:
    """The format of a folder that is one image of many files, None for any other."""
    path = Path(folder)
    marks = [path / name for name in (".zattrs", "zarr.json", ".zgroup", ".zarray") if (path / name).is_file()]
    if not marks:
        return _FORMATS["ome-zarr"] if path.name.lower().endswith(".ome.zarr") else None
    said = b"".join(_beginning(mark) for mark in marks)
    plain = b'"multiscales"' not in said and b'"bioformats2raw' not in said and b'"plate"' not in said
    return _FORMATS["zarr" if plain and not path.name.lower().endswith(".ome.zarr") else "ome-zarr"]


def recognise_description(description: str, software: str) -> Format | None:
    """The format that a picture's own words state, where its file cannot be looked at: it may lie elsewhere."""
    page = Page({}, {DESCRIPTION: description, SOFTWARE: software}, frozenset(), 0, reduced=False)
    return _FORMATS.get("label" if is_label(description) else _scanner(page, (page,)))


def is_label(text: str) -> bool:
    """Whether a page's or picture's name says that it shows the slide's label, or the whole glass with it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return any(_LABEL.fullmatch(line) for line in lines[:2])


def _by_name(uri: str) -> str:
    name = re.split(r"[?#]", uri)[0].replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gz")
    _, _, suffix = name.rpartition(".")
    double = ".".join(name.split(".")[-2:])
    return _BY_NAME.get(double, "") or (_BY_NAME.get(suffix, "") if "." in name else "")


def _tiff(uri: str, by_name: str) -> str:
    """What a TIFF is: by what lies beside it, by its first pages, by its name."""
    if by_name == "vsi" or _has_frames(uri):
        return "vsi"
    try:
        found = Directories.read(uri, _FEW)
    except OSError:
        found = None
    pages = () if found is None else found.pages
    key = _scanner(pages[0], pages) if pages else ""
    if key or by_name:
        return key or by_name
    if not pages or pages[0].tags & _MAPS:
        return ""
    macro = pages[0].numbers.get(SUBFILE, 0) & 8  # a bit that scanners set for pictures of the whole glass
    if macro or is_label(pages[0].text(DESCRIPTION)) or is_label(pages[0].text(PAGE_NAME)):
        return "label"
    tiled = TILE_WIDTH in pages[0].tags
    return "pyramid" if tiled and (_has_level(pages) or (found is not None and found.fault)) else ""


def _scanner(page: Page, pages: tuple[Page, ...]) -> str:
    """The format that the words and tags of a TIFF's first page state."""
    says, made, software = page.text(DESCRIPTION), page.text(MAKE), page.text(SOFTWARE)
    tests = {
        "svs": says.startswith("Aperio"),
        "ndpi": 65420 in page.tags or made.startswith("Hamamatsu"),
        "scn": "leica-microsystems.com/scn" in says,
        "bif": any("iScan" in one.text(XMP) for one in pages[:3]),
        "philips": "DPUfsImport" in says or software.startswith("Philips DP"),
        "trestle": software.startswith("MedScan"),
        "qptiff": software.startswith("PerkinElmer-QPI") or "PerkinElmer-QPI-ImageDescription" in says,
        "ome-tiff": "<OME" in says,
        "imagej": says.startswith("ImageJ=") and re.search(r"^images=(?!1$)\d+", says, re.MULTILINE) is not None,
        "lsm": 34412 in page.tags,
        "stk": 33629 in page.tags,
        "fluoview": 34361 in page.tags,
    }
    georeferenced = bool(page.tags & _MAPS)
    return next((key for key, holds in tests.items() if holds and not (key == "imagej" and georeferenced)), "")


def _has_level(pages: tuple[Page, ...]) -> bool:
    """Whether a page further on is the first one in small."""
    (width, height), kind = pages[0].size, pages[0].numbers.get(262)
    if min(width, height) < 1 or kind not in {0, 1, 2, 6}:
        return False
    for page in pages[1:]:
        across, down = page.size
        if 0 < across < width and 0 < down < height and page.numbers.get(262) == kind:
            factor = max(width, height) / max(across, down)
            if abs(across * factor - width) <= 2 * factor and abs(down * factor - height) <= 2 * factor:
                return True
    return False


def _has_frames(uri: str) -> bool:
    """Whether a VSI's folder of pixels lies beside a file: `_NAME_` with `stack…/frame_t….ets` in it."""
    path = Path(uri)
    folder = path.with_name(f"_{path.stem}_")
    try:
        return any(one.name.startswith("stack") for one in os.scandir(folder) if one.is_dir())
    except (OSError, ValueError):
        return False


def _listed(uri: str) -> bool:
    """Whether a VMS or VMU slide in the same folder names this file as one of its own."""
    path = Path(uri)
    try:
        return path.name.lower() in _lists(str(path.parent), path.parent.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=8)
def _lists(folder: str, changed: int) -> str:
    """What all .vms and .vmu files of a folder say, in small letters."""
    del changed
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".vms", ".vmu")))
    return "\n".join(_beginning(Path(folder) / name).decode("latin-1").lower() for name in names)


def _beginning(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_SMALL)
    except OSError:
        return b""
