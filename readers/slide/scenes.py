"""The scenes of a TIFF slide: which of the images in its file are scans, and what OME-XML states of each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ReadError
from ..pseudonyms import harmless_name
from .spacing import MAX_MPP
from .tiff import OmeMetadata, check_series, shows_label

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries


@dataclass(frozen=True, slots=True)
class Scene:
    """One scan in a file."""

    series: "TiffPageSeries"
    ome: OmeMetadata
    part: str = ""
    """`ImageInfo.part`: "scene 2", or "" for the only scene of a file."""

    facts: tuple[tuple[str, str], ...] = ()
    """`ImageInfo.facts`: its place among the scenes, and its name where that cannot be of a person or a file."""


def find_scenes(tiff: "TiffFile", uri: str) -> tuple[list[Scene], list[str]]:
    """The scenes of a file in its order, and notes on its other images.

    Every image that OME-XML describes is a scene, but for pictures of the label and the whole glass: those named so,
    and, beside an image with the pixel size of a scan, those without one or with a coarser one than any scan has. Other
    TIFF files state nothing of their images, so the first is read. Raises `ReadError` where no scene can be read.
    """
    every = list(tiff.series)
    if not tiff.is_ome:
        others = [f"The file holds {len(every)} images; only the first is read."] if len(every) > 1 else []
        return [Scene(check_series(every[0], uri), OmeMetadata())], others
    listed = list(OmeMetadata.parse(tiff.ome_metadata or ""))
    notes: list[str] = []
    if len(listed) > len(every):
        notes.append(f"The header lists {len(listed)} images, and the file holds {len(every)} of them.")
    images = [Scene(series, _take(listed, series)) for series in every]
    scans = [one for one in images if not shows_label(one.series)] or images[:1]
    if any(_is_scan(one) for one in scans):
        scans = [one for one in scans if _is_scan(one)]
    if len(scans) < len(images):
        count, verb = len(images) - len(scans), "is" if len(images) - len(scans) == 1 else "are"
        notes.append(f"{count} of the {len(images)} images in the file {verb} never read: of the label or the glass.")
    scenes: list[Scene] = []
    faults: list[ReadError] = []
    for scan in scans:
        try:
            check_series(scan.series, uri)
            scenes.append(scan)
        except ReadError as error:
            faults.append(error)
    if not scenes:
        raise faults[0]
    notes += [f"A scene of the file is left out: it {fault.rule} (found: {fault.value})." for fault in faults]
    if len(scenes) > 1:
        scenes = [_numbered(scene, number, len(scenes)) for number, scene in enumerate(scenes, start=1)]
    return scenes, notes


def _numbered(scene: Scene, number: int, count: int) -> Scene:
    name = harmless_name(scene.ome.name)
    facts = (("scene", f"{number} of {count}"), *((("scene_name", name),) if name else ()))
    return Scene(scene.series, scene.ome, f"scene {number}", facts)


def _take(listed: list[OmeMetadata], series: "TiffPageSeries") -> OmeMetadata:
    """The metadata of an image, which are removed from the list with those before them: tifffile leaves images out."""
    size = (series.keyframe.imagewidth, series.keyframe.imagelength)
    for at, one in enumerate(listed):
        if one.name == series.name and one.size == size:
            del listed[: at + 1]
            return one
    return OmeMetadata()


def _is_scan(scene: Scene) -> bool:
    """Whether an image has a pixel size that scans have."""
    return scene.ome.spacing is not None and max(scene.ome.spacing.x, scene.ome.spacing.y) <= MAX_MPP
