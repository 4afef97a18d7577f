"""Known file formats, recognised by first bytes, by neighbouring files and by name, in that order.

A file of a known format is opened by that format's reader or refused by name. It never falls through to another reader:
pages of a slide's file may be pictures of the glass label, with a patient's name on it.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Final

from .errors import ReadError
from .files import split_variable
from .image import Kind
from .slide import tiff_directories as tiff

_MAX_PAGES: Final = 64  # directories of a TIFF that are read
_GEO_TAGS: Final = frozenset({33550, 33922, 34264, 34735, 42112, 42113})  # of GeoTIFF and GDAL
_WHOLE_SLIDE: Final = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.77\.1\.6(?![.0-9])")  # its SOP class
_MAX_BYTES: Final = 1 << 16  # of a list of files or a folder's attributes
_STAC: Final = b'"stac_version"'
_NGFF: Final = (b'"multiscales"', b'"bioformats2raw', b'"plate"', b'"well"', b'"image-label"', b'"labels"')
_REMOTE_ZARR: Final = re.compile(r"[^/]+://.*\.zarr/")  # a group of a hierarchy on a server


@dataclass(frozen=True, slots=True)
class Format:
    """A known format."""

    key: str
    """Name by which plug-in readers claim it, in their attribute `formats`."""
    name: str
    kind: Kind | None
    """None where it holds no image."""
    reader: str = ""
    """The built-in reader, "" if there is none."""
    why: str = ""
    """Why there is none."""
    remedy: str = ""
    strict: bool = True
    """Whether no other reader may open it, even by --reader, because it may hold pictures of a label."""
    auxiliary: bool = False
    """Whether it belongs to an image or is none, so that it is skipped in a folder."""

    @property
    def personal(self) -> bool:
        """Whether file names may be names of people."""
        return self.kind in {"slide", "study"}

    def read_by(self, name: str, reader: object) -> bool:
        """Whether a reader reads this format: the built-in one, or one that lists the key."""
        return name == self.reader or self.key in getattr(reader, "formats", ())

    def refusal(self, subject: str) -> ReadError:
        """The error for a file that no reader may open, or only another one."""
        if self.reader:
            rule = f"must be opened by the reader {self.reader}, since it is {self.name}"
            return ReadError(subject, rule, remedy="Leave --reader out")
        found = f"{self.name} is not supported" + (f": {self.why}" if self.why else "")
        file, variable = split_variable(subject)
        remedy = self.remedy.replace("FILE", quote(file)).replace(
            "VARIABLE", quote(subject) if variable else "VARIABLE"
        )
        return ReadError(subject, "must be in a supported format", value=found, remedy=remedy)


_OME: Final = "Convert it to OME-TIFF, for example with `bfconvert` of Bio-Formats"
_ZARR: Final = "Write the array as GeoTIFF, or an image of a slide as OME-Zarr 0.4 or 0.5"
_SDK: Final = "Export it as TIFF or OME-TIFF with Philips' tools or isyntax2raw"
_LOSSLESS: Final = "Export it from the scanner's own viewer as OME-TIFF or SVS"
_VOLUME: Final = "Give the DICOM series that it was made from"
_GDAL: Final = (
    "If you trust it, convert a variable with `gdal_translate VARIABLE OUT.tif`; `gdalinfo FILE` lists the names of all"
)

_GROUPS: Final[tuple[tuple[Kind, str, str, dict[str, str]], ...]] = (  # kind, reader, remedy, name by key
    ("slide", "slide", "", {
        "svs": "Aperio SVS", "ndpi": "Hamamatsu NDPI", "vms": "Hamamatsu VMS", "scn": "Leica SCN",
        "mrxs": "Mirax MRXS of 3DHISTECH", "bif": "Ventana BIF", "philips": "Philips TIFF", "trestle": "Trestle TIFF",
        "svslide": "Sakura SVSLIDE", "dicom-wsi": "DICOM whole-slide image",
    }),
    ("slide", "pyramid", "", {"ome-tiff": "OME-TIFF", "qptiff": "PerkinElmer or Akoya QPTIFF"}),
    ("study", "dicom", "", {"dicom": "DICOM"}),
    ("slide", "czi", "", {"czi": "Zeiss CZI"}),
    ("slide", "", _OME, {
        "zvi": "Zeiss ZVI", "lsm": "Zeiss LSM", "lif": "Leica LIF", "oib": "Olympus OIB or OIF",
        "nd2": "Nikon ND2", "stk": "MetaMorph STK", "fluoview": "Olympus FluoView TIFF", "imaris": "Imaris",
    }),
    ("slide", "", _SDK, {"isyntax": "Philips iSyntax"}),
    ("slide", "", _LOSSLESS, {
        "mds": "Motic MDS or MDSX", "kfb": "KFBIO KFB", "tmap": "Unic TMAP", "sdpc": "SQRAY SDPC", "vsf": "Meyer VSF",
    }),
    ("study", "", _VOLUME, {
        "nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage (MHA, MHD)", "analyze": "Analyze or Interfile header",
    }),
)  # fmt: skip

_FORMATS: Final = {
    one.key: one
    for one in (
        *(Format(key, name, kind, own, "", fix) for kind, own, fix, names in _GROUPS for key, name in names.items()),
        Format("pyramid", "pyramid of tiles in TIFF", "slide", "pyramid", strict=False),
        Format("vsi", "Olympus VSI", "slide", "", "its own pages are overviews and the label", _OME),
        Format("imagej", "ImageJ stack", "slide", "", "its channels and planes lie in one piece", _OME),
        Format("ome-zarr", "OME-Zarr", "slide", "ome-zarr"),
        Format("ets", "Olympus ETS", "slide", "", "it holds pixels of a VSI slide", _OME, auxiliary=True),
        Format("afi", "Aperio AFI", "slide", "", "it lists slides", "Give its .svs files", auxiliary=True),
        Format("ndpis", "Hamamatsu NDPIS", "slide", "", "it lists slides", "Give its .ndpi files", auxiliary=True),
        Format("vms-part", "part of a Hamamatsu VMS slide", "slide", "", "", "Give the .vms file", auxiliary=True),
        Format("label", "picture of a slide's label", "slide", "", "", "Leave it out", auxiliary=True),
        # maps, and files without an image: any reader may open them
        Format("zarr", "Zarr without the metadata of OME-Zarr", "map", "", "", _ZARR, strict=False),
        Format("hdf5", "HDF5 or NetCDF 4", "map", "", "it can take pixels from any other file", _GDAL, strict=False),
        Format("netcdf", "NetCDF", "map", "scene", strict=False),
        Format("hdf4", "HDF 4", "map", "", "", _GDAL, strict=False),
        Format("stac", "STAC item", "map", "scene", strict=False, auxiliary=True, why="name it to read its assets"),
        Format("pdf", "PDF", None, "", "", "Leave it out", strict=False, auxiliary=True),
        Format("video", "video", None, "", "", "Give single frames as PNG or TIFF", strict=False, auxiliary=True),
        Format("office", "Office document", None, "", "", "Leave it out", strict=False, auxiliary=True),
    )
}

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
    "zarr": "ome-zarr", "ozx": "ome-zarr", "zarr.zip": "ome-zarr",
}  # fmt: skip

_BY_BYTES: Final = (  # offset, bytes, key
    (0, b"ZISRAWFILE", "czi"), (0, b"\xda\xce\xbe\x0a", "nd2"), (344, b"n+1\0", "nifti"), (344, b"ni1\0", "nifti"),
    (4, b"n+2\0", "nifti"), (4, b"ni2\0", "nifti"), (0, b"NRRD000", "nrrd"), (0, b"ObjectType = Image", "metaimage"),
    (0, b"SIS\0", "ets"), (0, b"\x89HDF\r\n\x1a\n", "hdf5"), (0, b"CDF\x01", "netcdf"), (0, b"CDF\x02", "netcdf"),
    (0, b"CDF\x05", "netcdf"), (0, b"\x0e\x03\x13\x01", "hdf4"), (0, b"%PDF-", "pdf"), (4, b"ftypisom", "video"),
    (4, b"ftypmp4", "video"), (4, b"ftypqt", "video"), (0, b"\x1a\x45\xdf\xa3", "video"), (8, b"AVI LIST", "video"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office"),
)  # fmt: skip

_BY_NAME_FIRST: Final = frozenset({"svslide", "mrxs", "imaris", "zvi", "oib"})  # first bytes of general containers
_LABEL: Final = re.compile(r"(slide )?(label|macro|thumbnail|overview)([ _-]?image)?( \d+x\d+)?", re.IGNORECASE)


def recognise(uri: str, head: bytes) -> Format | None:
    """The known format of a file, whose first 4 KiB are `head` (empty for a remote file), or None."""
    by_name = _by_name(uri)
    if by_name in _BY_NAME_FIRST:
        return _FORMATS[by_name]
    if head[:4] in tiff.MAGIC:
        key = _tiff(uri, by_name)
    elif head[128:132] == b"DICM":
        key = "dicom-wsi" if _WHOLE_SLIDE.search(head) else "dicom"
    elif head.startswith(b"\xff\xd8\xff") and _is_part_of_vms(uri):
        key = "vms-part"
    elif b"DPUfsImport" in head[:512]:
        key = "isyntax"
    elif head.lstrip().startswith(b"{") and _is_stac(uri, head):
        key = "stac"
    else:
        key = next((key for at, magic, key in _BY_BYTES if head.startswith(magic, at)), "") or by_name
    return _FORMATS.get(key)


def recognise_folder(folder: str) -> Format | None:
    """The known format of a folder that is a single image, or None."""
    path = Path(folder)
    marks = [path / name for name in (".zattrs", "zarr.json", ".zgroup", ".zarray") if (path / name).is_file()]
    if not marks:
        return _FORMATS["ome-zarr"] if path.name.lower().endswith(".ome.zarr") else None
    text = b"".join(_beginning(mark) for mark in marks)
    plain = not any(word in text for word in _NGFF)
    return _FORMATS["zarr" if plain and not path.name.lower().endswith(".ome.zarr") else "ome-zarr"]


def recognise_description(description: str, software: str) -> Format | None:
    """The format by the TIFF tags ImageDescription and Software, where the file itself cannot be read here."""
    page = tiff.Page({}, {tiff.DESCRIPTION: description, tiff.SOFTWARE: software}, frozenset(), 0)
    return _FORMATS.get("label" if is_label(description) else _by_tags(page, (page,)))


def is_label(text: str) -> bool:
    """Whether a page's description is that of a picture of the slide's label, or of the glass with it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return any(_LABEL.fullmatch(line) for line in lines[:2])


def _by_name(uri: str) -> str:
    if _REMOTE_ZARR.match(uri):
        return "ome-zarr"
    name = re.split(r"[?#]", uri)[0].replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gz")
    _, _, suffix = name.rpartition(".")
    double = ".".join(name.split(".")[-2:])
    return _BY_NAME.get(double, "") or (_BY_NAME.get(suffix, "") if "." in name else "")


def _tiff(uri: str, by_name: str) -> str:
    """The key of a TIFF by its neighbouring files, its first pages and its name."""
    if by_name == "vsi" or _has_vsi_folder(uri):
        return "vsi"
    try:
        found = tiff.Directories.read(uri, _MAX_PAGES)
    except OSError:
        found = None
    pages = () if found is None else found.pages
    key = _by_tags(pages[0], pages) if pages else ""
    if key or by_name:
        return key or by_name
    if not pages or pages[0].tags & _GEO_TAGS:
        return ""
    macro = pages[0].numbers.get(tiff.SUBFILE, 0) & 8  # the bit of scanners for pictures of the whole glass
    if macro or is_label(pages[0].text(tiff.DESCRIPTION)) or is_label(pages[0].text(tiff.PAGE_NAME)):
        return "label"
    tiled = tiff.TILE_WIDTH in pages[0].tags
    return "pyramid" if tiled and (_is_pyramid(pages) or (found is not None and found.fault)) else ""


def _by_tags(page: tiff.Page, pages: tuple[tiff.Page, ...]) -> str:
    """The key of a TIFF by descriptions and tags of its first page."""
    description, make, software = page.text(tiff.DESCRIPTION), page.text(tiff.MAKE), page.text(tiff.SOFTWARE)
    tests = {
        "svs": description.startswith("Aperio"),
        "ndpi": 65420 in page.tags or make.startswith("Hamamatsu"),
        "scn": "leica-microsystems.com/scn" in description,
        "bif": any("iScan" in one.text(tiff.XMP) for one in pages[:3]),
        "philips": "DPUfsImport" in description or software.startswith("Philips DP"),
        "trestle": software.startswith("MedScan"),
        "qptiff": software.startswith("PerkinElmer-QPI") or "PerkinElmer-QPI-ImageDescription" in description,
        "ome-tiff": "<OME" in description,
        "imagej": description.startswith("ImageJ=")
        and re.search(r"^images=(?!1$)\d+", description, re.MULTILINE) is not None,
        "lsm": 34412 in page.tags,
        "stk": 33629 in page.tags,
        "fluoview": 34361 in page.tags,
    }
    georeferenced = bool(page.tags & _GEO_TAGS)
    return next((key for key, holds in tests.items() if holds and not (key == "imagej" and georeferenced)), "")


def _is_pyramid(pages: tuple[tiff.Page, ...]) -> bool:
    """Whether a later page is the first one reduced."""
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


def _has_vsi_folder(uri: str) -> bool:
    """Whether the folder with a VSI's pixels lies beside a file: `_NAME_` with folders `stack…`."""
    path = Path(uri)
    folder = path.with_name(f"_{path.stem}_")
    try:
        return any(one.name.startswith("stack") for one in os.scandir(folder) if one.is_dir())
    except (OSError, ValueError):
        return False


def _is_stac(uri: str, head: bytes) -> bool:
    """Whether JSON, which begins with `head`, states a version of STAC in its first 64 KiB."""
    return _STAC in head or (uri.lower().endswith((".json", ".geojson")) and _STAC in _beginning(Path(uri)))


def _is_part_of_vms(uri: str) -> bool:
    """Whether a VMS or VMU slide in the same folder lists this file."""
    path = Path(uri)
    try:
        return path.name.lower() in _vms_texts(str(path.parent), path.parent.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=8)
def _vms_texts(folder: str, changed: int) -> str:
    """The content of all .vms and .vmu files of a folder in lower case; `changed` invalidates the cache."""
    del changed
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".vms", ".vmu")))
    return "\n".join(_beginning(Path(folder) / name).decode("latin-1").lower() for name in names)


def _beginning(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return b""
