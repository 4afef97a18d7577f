"""A stack in a picture: its slices side by side, and each finding on its slice.

Places of findings in all other reports are those on their slices.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import replace

import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from ...model.finding import Finding
from ...readers.geometry import Box
from ...readers.overview import Montage
from ..writer import ImageRecord, Overview, UnanalysedRegion


def on_montage(image: ImageRecord, overview: Overview | None, findings: Sequence[Finding]) -> ImageRecord:
    """The image as its overview shows it, with those of its findings that are on slices that are shown.

    A picture of one plane is returned as it is, but for its findings, and so is one without an overview.
    """
    montage = None if overview is None else overview.montage
    if montage is None or len(image.info.planes) == 1:
        return replace(image, findings=lambda: findings)
    width, height = montage.size
    moved = [
        replace(finding, geometry=_moved(finding.geometry, montage, finding.plane))
        for finding in findings
        if montage.place(finding.plane) is not None
    ]
    unanalysed: list[UnanalysedRegion] = []
    for patch in image.unanalysed:
        if montage.place(patch.plane) is not None:
            box = shapely.box(patch.box.x0, patch.box.y0, patch.box.x1, patch.box.y1)
            unanalysed.append(replace(patch, box=Box(*_moved(box, montage, patch.plane).bounds)))
    roi = None
    if image.roi is not None:
        roi = shapely.union_all([_moved(image.roi, montage, plane) for plane in montage.planes])
    info = replace(image.info, size=(montage.columns * width, montage.rows * height))
    return replace(image, info=info, findings=lambda: moved, unanalysed=tuple(unanalysed), roi=roi)


def _moved(geometry: BaseGeometry, montage: Montage, plane: int) -> BaseGeometry:
    """A geometry on a slice, in level-0 pixels of the montage."""
    column, row = montage.place(plane) or (0, 0)
    return translate(geometry, column * montage.size[0], row * montage.size[1])
