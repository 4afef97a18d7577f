"""Descriptions of images and inputs: text for the terminal, HTML for notebooks, JSON for programs."""

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..readers.geometry import crs_name
from ..readers.image import ImageInfo, Kind
from ..readers.raster.radiometry import VALUES
from ..readers.scanned_files import ScannedFile
from .cli.terminal import indent, table, visible
from .pixel_size import format_pixel_size, ground_metres

if TYPE_CHECKING:
    from PIL import Image as Picture

Row = tuple[str, str]

_STUDY = {
    "modality": "modality",
    "body_part": "body part",
    "laterality": "laterality",
    "view": "view",
    "patient_position": "patient position",
    "window_used": "window",
    "split_by": "split by",
    "split_value": "split value",
}
"""Facts of a study → their names in text."""

_SCENE = ("scene", "scene_name")
"""Facts of an image in a file that holds several."""

_STYLE = "<style>.limner td{text-align:left;vertical-align:top;padding:1px 12px 1px 0}</style>"


def html_table(rows: Sequence[Sequence[str]], *, title: str = "", picture: "Picture.Image | None" = None) -> str:
    """Rows as a self-contained HTML table with a title, beside a small picture. Escapes all text."""
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(visible(cell))}</td>' for cell in row)}</tr>" for row in rows if any(row)
    )
    image = "" if picture is None else f'<img alt="overview" style="max-width:320px" src="{_data_url(picture)}"/>'
    head = f"<b>{html.escape(visible(title))}</b>" if title else ""
    return (
        f'{_STYLE}<div class="limner">{head}<div style="display:flex;gap:16px;align-items:flex-start">'
        f"{image}<table>{body}</table></div></div>"
    )


def _data_url(picture: "Picture.Image", *, limit: int = 320) -> str:
    """A picture of at most `limit` pixels on its long side as a `data:` URL."""
    small = picture.convert("RGB")
    small.thumbnail((limit, limit))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def pixel_size_text(metres: tuple[float, float], kind: Kind = "map") -> str:
    """A pixel's width and height, once where they are equal."""
    x, y = (format_pixel_size(side, kind) for side in metres)
    return x if x == y else f"{x} × {y}"


def image_rows(info: ImageInfo) -> list[Row]:
    """An image's metadata in the terms of its field; notes come last, a row each."""
    rows = [("path", info.uri), ("kind", f"{info.kind}, read by {info.reader}")]
    rows += {"map": _map_rows, "slide": _slide_rows, "study": _study_rows}[info.kind](info)
    return rows + [("note", note) for note in info.notes]


def image_json(info: ImageInfo) -> dict[str, Any]:
    """An image's metadata for JSON: a whitelist, in the units of each kind of image; unknown values are null."""
    metres = ground_metres(info)
    facts = dict(info.facts)
    common: dict[str, Any] = {
        "id": info.id,
        "path": info.uri,
        "kind": info.kind,
        "reader": info.reader,
        "width_px": info.size[0],
        "height_px": info.size[1],
        "channels": [
            {
                "name": c.name,
                "common_name": c.common,
                "dtype": c.dtype,
                "quantity": c.quantity,
                "scale": c.scale,
                "offset": c.offset,
            }
            for c in info.channels
        ],
        "pixel_size_source": info.placement.source,
        "notes": list(info.notes),
    }
    if info.kind == "map":
        size = {"crs": crs_name(info.placement.crs) or None, "pixel_m": None if metres is None else list(metres)}
        return common | size | {"values": _values(info)[1]}
    if info.kind == "slide":
        objective, levels = facts.get("objective"), facts.get("levels")
        return common | {
            "microns_per_pixel": None if metres is None else [side * 1e6 for side in metres],
            "objective": None if objective is None else float(objective),
            "levels": None if levels is None else int(levels),
            "icc_profile": facts.get("icc_profile"),
            **{key: facts.get(key) for key in _SCENE},
        }
    step = facts.get("step_mm_median")
    return common | {
        "pixel_mm": _slice_mm(info),
        "pixel_size_source": facts.get("spacing_source") or None,
        "slices": len(info.planes),
        "slice_spacing_mm": None if step is None else float(step),
        "study": info.study or None,
        "series": facts.get("series_uid") or None,
        **{key: facts.get(key) or None for key in _STUDY},
    }


def scanned_text(scanned: Sequence[ScannedFile]) -> str:
    """The images of the inputs with their metadata, then the other files."""
    parts: list[str] = []
    for info in (info for row in scanned for info in row.infos):
        parts += [indent(table(image_rows(info)), title=info.id), ""]
    parts += [
        visible(f"{row.path}: {row.status}. {row.reason}") for row in scanned if row.reason or row.status != "read"
    ]
    return "\n".join(parts).rstrip()


def scanned_json(scanned: Sequence[ScannedFile]) -> dict[str, Any]:
    """The images of the inputs and the outcome of every file, for JSON."""
    return {
        "images": [image_json(info) for row in scanned for info in row.infos],
        "files": [
            {
                "path": row.path,
                "status": row.status,
                "images": [info.id for info in row.infos],
                "reader": row.reader or None,
                "reason": row.reason or None,
            }
            for row in scanned
        ],
    }


def _channels(info: ImageInfo) -> Row:
    names = (f"{c.name} ({c.common})" if c.common and c.common != c.name else c.name for c in info.channels)
    return "channels", ", ".join(f"{name} {c.dtype}" for name, c in zip(names, info.channels, strict=True))


def _values(info: ImageInfo) -> Row:
    """What the numbers of the channels are; for maps how they become that, and by whose word."""
    return "values", dict(info.facts).get(VALUES) or ", ".join(dict.fromkeys(c.quantity for c in info.channels))


def _map_rows(info: ImageInfo) -> list[Row]:
    metres = ground_metres(info)
    size = "size unknown" if metres is None else f"{pixel_size_text(metres)} on the ground at the centre"
    return [
        ("size", f"{info.size[0]} × {info.size[1]} px"),
        _channels(info),
        _values(info),
        ("crs", crs_name(info.placement.crs) or "none"),
        ("pixel", f"{size} ({info.placement.source})"),
    ]


def _slide_rows(info: ImageInfo) -> list[Row]:
    from ..readers.slide.tma import CoreGrid

    metres, facts = ground_metres(info), dict(info.facts)
    size = "size unknown" if metres is None else f"{pixel_size_text(metres, 'slide')}/px"
    return [
        ("size", f"{info.size[0]} × {info.size[1]} px"),
        ("pixel", f"{size} ({info.placement.source})"),
        *([("objective", f"{facts['objective']}×")] if "objective" in facts else []),
        *((name, facts[name]) for name in ("stain", "organ") if name in facts),
        *([("levels", facts["levels"])] if "levels" in facts else []),
        *([("icc", facts["icc_profile"])] if "icc_profile" in facts else []),
        *([("cores", grid.text())] if (grid := CoreGrid.of(info)) is not None else []),
        *([("scene", ", ".join(facts[key] for key in _SCENE if key in facts))] if "scene" in facts else []),
        _channels(info),
    ]


def _study_rows(info: ImageInfo) -> list[Row]:
    facts, pair = dict(info.facts), _slice_mm(info)
    size = "size unknown" if pair is None else pixel_size_text((pair[0] / 1e3, pair[1] / 1e3), "study")
    source = facts.get("spacing_source", "")
    step, slices = facts.get("step_mm_median"), len(info.planes)
    spacing = f", {float(step):.4g} mm apart" if step else ""
    return [
        *((name, facts[key]) for key, name in _STUDY.items() if key in facts),
        *([("study", info.study)] if info.study else []),
        *([("series", facts["series_uid"])] if "series_uid" in facts else []),
        ("slices", f"{slices} of {facts.get('columns', info.size[0])} × {facts.get('rows', info.size[1])} px{spacing}"),
        ("pixel", size if source in {"", "none"} else f"{size} ({source})"),
        _channels(info),
        _values(info),
    ]


def _slice_mm(info: ImageInfo) -> tuple[float, float] | None:
    """Millimetres per pixel of a slice along x and y, where they hold for the whole slice."""
    facts = dict(info.facts)
    if facts.get("spacing_source") == "us_region" or not {"col_mm", "row_mm"} <= set(facts):
        return None
    return float(facts["col_mm"]), float(facts["row_mm"])
