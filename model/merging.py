"""Seams: what regions cut in pieces becomes whole again, as if the picture had been looked at in one piece."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ..readers.geometry import Points
from ..readers.image import ImageInfo
from .detection.tile_detections import merge, within
from .finding import Finding

PLACES = 4  # decimals of a joined score: far finer than any network is calibrated, far coarser than rounding errors


def join(findings: Iterable[Finding], info: ImageInfo | None = None, area: BaseGeometry | None = None) -> list[Finding]:
    """One image's findings with its areas and boxes joined across seams, sorted by label, plane and place.

    Only areas that were cut are joined, with neighbours of the same plane, label, text and notes that share an edge;
    areas that only touch at a corner stay apart, as 4-connected patches are. A joined score is the mean weighted by
    "pixels" (by area where there is none) and numbers are added. Every area comes out in a normal form (vertices only
    where the outline turns, one canonical order), with its score rounded and `cut` false. Boxes are made one by
    `detections`, which asks `info` where the picture ends, and count where their middle lies inside the `area` of
    interest (level-0 pixels). All other findings pass as they are. The result does not depend on the order of the
    input, nor that of areas on how the picture was cut.

    The union is per connected set (`shapely.disjoint_subset_union_all`), which is what makes it fast.
    """
    pieces: dict[Hashable, list[Finding]] = defaultdict(list)
    areas: list[Finding] = []
    boxes: dict[int, list[Finding]] = defaultdict(list)
    others: list[Finding] = []
    for finding in findings:
        if finding.kind == "box" and finding.seen:
            boxes[finding.plane].append(finding)
        elif finding.kind != "area":
            others.append(finding)
        elif finding.cut:
            pieces[finding.plane, finding.label, finding.text, tuple(sorted(finding.notes.items()))].append(finding)
        else:
            areas.append(finding)
    for group in pieces.values():
        areas += _join(group)
    shapes = shapely.normalize(np.array([area.geometry for area in areas], dtype=object))
    whole = [
        replace(area, geometry=shape, cut=False, score=None if area.score is None else round(area.score, PLACES))
        for area, shape in zip(areas, shapes, strict=True)
    ]
    things = [subject for some in boxes.values() for subject in merge(some, info) if within(subject, area)]
    return sorted(others + whole + things, key=_place)


def _join(pieces: Sequence[Finding]) -> list[Finding]:
    """Pieces of one kind → the wholes they are part of."""
    shapes = np.array([piece.geometry for piece in pieces], dtype=object)
    wholes = shapely.get_parts(shapely.disjoint_subset_union_all(shapes))
    of_piece, of_whole = shapely.STRtree(wholes).query(shapely.point_on_surface(shapes), predicate="within")
    members: dict[int, list[Finding]] = defaultdict(list)
    for piece, whole in zip(of_piece, of_whole, strict=True):
        members[int(whole)].append(pieces[int(piece)])
    return [_merge(members[i], _straighten(whole)) for i, whole in enumerate(wholes)]


def _merge(pieces: Sequence[Finding], whole: Polygon) -> Finding:
    """One area of its pieces' total extent; sums are exact, so that their order does not matter."""
    weights = [piece.numbers.get("pixels", piece.geometry.area) for piece in pieces]
    scores = [piece.score for piece in pieces if piece.score is not None]
    score = None
    if len(scores) == len(pieces):
        score = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)
    names = sorted({name for piece in pieces for name in piece.numbers})
    numbers = {name: math.fsum(piece.numbers.get(name, 0.0) for piece in pieces) for name in names}
    return replace(pieces[0], geometry=whole, score=score, numbers=numbers)


def _straighten(polygon: Polygon) -> Polygon:
    """The polygon without vertices in the middle of a straight horizontal or vertical edge, as a union leaves them."""
    rings = [_turns(shapely.get_coordinates(ring)) for ring in shapely.get_rings(polygon)]
    return Polygon(rings[0], rings[1:])


def _turns(ring: Points) -> Points:
    """A closed ring (N, 2) → its vertices (M, 2) where it turns, not closed."""
    here = ring[:-1]
    before, after = np.roll(here, 1, axis=0), np.roll(here, -1, axis=0)
    straight = ((before == here) & (here == after)).any(axis=1)
    return here[~straight]


def _place(finding: Finding) -> tuple[object, ...]:
    """Where a finding stands in a list: by label, from top to bottom, and then by whatever tells two apart."""
    x0, y0, x1, y1 = finding.geometry.bounds
    score = -1.0 if finding.score is None else finding.score
    extras = (tuple(sorted(finding.numbers.items())), tuple(sorted(finding.notes.items())))
    return finding.label, finding.plane, y0, x0, y1, x1, finding.kind, finding.geometry.wkb, score, finding.text, extras
