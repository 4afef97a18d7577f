"""What images and runs are: rows of text, HTML for notebooks, JSON for programs, in each kind's own units."""

import base64
import html
import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..readers.image import ImageInfo
from ..readers.registry import ScannedFile
from ..reports.measures import area_share, crs_name, label_areas, total_area
from ..reports.writer import ImageRecord, Record
from .cli.terminal import visible
from .run.analysis_resolution import ground_metres
from .run.events import plural

if TYPE_CHECKING:
    from PIL import Image as Picture

Row = tuple[str, str]

NO_MODEL_SAID = (
    "No model was chosen, so nothing was looked for: this shows what there is. "
    "Choose one with --model; `limner models` lists them."
)

_STUDY = {
    "modality": "modality",
    "body_part": "body part",
    "laterality": "laterality",
    "view": "view",
    "patient_position": "patient position",
    "window_used": "window",
}
"""Facts of a study → what they are called."""

_SQUARE = {"map": (1e6, "km²", 1.0, "m²"), "slide": (1e-6, "mm²", 1e-12, "µm²"), "study": (1e-6, "mm²", 1e-6, "mm²")}
"""Kind of image → the large unit of area in m² and its sign, and the small one."""

_STYLE = "<style>.limner td{text-align:left;vertical-align:top;padding:1px 12px 1px 0}</style>"


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows as aligned columns, two spaces apart, a line each; those numbered in `right` are set flush right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def indent(text: str, *, first: str = "") -> str:
    """Text moved right by two, under a first line that is not."""
    return (f"{visible(first)}\n" if first else "") + textwrap.indent(text, "  ")


def html_table(rows: Sequence[Sequence[str]], *, title: str = "", picture: "Picture.Image | None" = None) -> str:
    """Rows as a table of HTML that needs nothing else, under a title and beside a small picture. Escapes all text."""
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(visible(cell))}</td>' for cell in row)}</tr>" for row in rows if any(row)
    )
    shown = "" if picture is None else f'<img alt="overview" style="max-width:320px" src="{data_url(picture)}"/>'
    head = f"<b>{html.escape(visible(title))}</b>" if title else ""
    return (
        f'{_STYLE}<div class="limner">{head}<div style="display:flex;gap:16px;align-items:flex-start">'
        f"{shown}<table>{body}</table></div></div>"
    )


def data_url(picture: "Picture.Image", *, limit: int = 320) -> str:
    """A picture of at most `limit` pixels on its long side as a `data:` address."""
    small = picture.convert("RGB")
    small.thumbnail((limit, limit))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def format_length(metres: float, kind: str = "map") -> str:
    """A pixel size in the unit of its kind of image, to four digits: 30 m, 0.5 µm, 0.6615 mm."""
    if kind == "study":
        return f"{metres * 1e3:.4g} mm"
    return f"{metres:.4g} m" if kind == "map" and metres >= 1e-3 else f"{metres * 1e6:.4g} µm"


def format_pair(metres: tuple[float, float], kind: str = "map") -> str:
    """A pixel's width and height, once where they are equal."""
    x, y = (format_length(one, kind) for one in metres)
    return x if x == y else f"{x} × {y}"


def format_area(pixels: float, m2: float | None, kind: str = "map") -> str:
    """An area in the unit of its kind of image: km² or m², mm² or µm², mm²; in pixels where their size is unknown."""
    if m2 is None or math.isnan(m2):
        return f"{pixels:.0f} px"
    large, sign, small, small_sign = _SQUARE[kind]
    if m2 >= large / 100:
        return f"{m2 / large:.3f} {sign}"
    return f"{m2 / small:.4g} {small_sign}"


def format_share(share: float) -> str:
    """A share in percent, "–" where there is nothing to share."""
    return "–" if math.isnan(share) else f"{100 * share:.2f} %"


def image_rows(info: ImageInfo) -> list[Row]:
    """An image's facts as its field says them; notes come last, a row each."""
    own = {"map": _map_rows, "slide": _slide_rows, "study": _study_rows}[info.kind](info)
    return [
        ("path", info.uri),
        ("kind", f"{info.kind}, read by {info.reader}"),
        *own,
        *(("note", note) for note in info.notes),
    ]


def image_json(info: ImageInfo) -> dict[str, Any]:
    """An image's facts as plain values: a whitelist, in each kind's own units; what is not known is null."""
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
            {"name": c.name, "common_name": c.common, "dtype": c.dtype, "quantity": c.quantity} for c in info.channels
        ],
        "pixel_size_source": info.placement.source,
        "notes": list(info.notes),
    }
    if info.kind == "map":
        size = {"crs": crs_name(info.placement.crs) or None, "pixel_m": None if metres is None else list(metres)}
        return common | size
    if info.kind == "slide":
        microns = None if metres is None else [one * 1e6 for one in metres]
        objective, levels = facts.get("objective"), facts.get("levels")
        return common | {
            "microns_per_pixel": microns,
            "objective": None if objective is None else float(objective),
            "levels": None if levels is None else int(levels),
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
    """What was found in the inputs: images with their facts, then files that are none."""
    parts: list[str] = []
    for info in (info for row in scanned for info in row.infos):
        parts += [indent(table(image_rows(info)), first=info.id), ""]
    parts += [visible(f"{row.path}: {row.status}. {row.reason}") for row in scanned if row.status != "read"]
    return "\n".join(parts).rstrip()


def scanned_json(scanned: Sequence[ScannedFile]) -> dict[str, Any]:
    """The same for programs: images, and what became of each file."""
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


def findings_rows(record: Record, image: ImageRecord) -> list[tuple[str, str, str, str]]:
    """What was found on an image by label: count, area, and share of what was analysed, under a heading."""
    return [
        ("found", "count", "size", "share of what was analysed"),
        *(
            (of.label, str(of.findings), format_area(of.pixels, of.m2, image.info.kind), format_share(of.share))
            for of in label_areas(record, image, image.findings())
        ),
    ]


def area_rows(image: ImageRecord) -> list[tuple[str, str, str, str, str]]:
    """What became of an image's area, under a heading."""
    whole = total_area(image.areas)
    rows = [("area", "regions", "size", "share", "")]
    for area in image.areas:
        size = format_area(area.pixels, area.m2, image.info.kind)
        rows.append(
            (area.status, str(area.regions), size, format_share(area_share(total_area([area]), whole)), area.reason)
        )
    return rows


def record_text(record: Record) -> str:
    """A run's images: findings by label, and what became of the area."""
    parts: list[str] = []
    for image in record.images:
        parts.append(visible(f"{image.info.id}  {image.info.uri}"))
        parts += [indent(table(findings_rows(record, image), right=(1, 2, 3))), ""] if record.assessed else []
        parts += [indent(table(area_rows(image), right=(1, 2, 3))), ""]
    if not record.assessed:
        parts += [NO_MODEL_SAID, ""]
    failed = sum(len(image.failures) for image in record.images)
    if failed:
        again = "it" if failed == 1 else "them"
        parts.append(f"{plural(failed, 'region')} failed; running again tries {again} again.")
    return "\n".join(parts)


def _size(info: ImageInfo) -> str:
    return f"{info.size[0]} × {info.size[1]} px"


def _channels(info: ImageInfo) -> str:
    return ", ".join(
        f"{c.name}{f' ({c.common})' if c.common and c.common != c.name else ''} {c.dtype}" for c in info.channels
    )


def _values(info: ImageInfo) -> str:
    return ", ".join(dict.fromkeys(c.quantity for c in info.channels))


def _map_rows(info: ImageInfo) -> list[Row]:
    metres = ground_metres(info)
    ground = "size unknown" if metres is None else f"{format_pair(metres)} on the ground, in the middle"
    return [
        ("size", _size(info)),
        ("channels", _channels(info)),
        ("values", _values(info)),
        ("crs", crs_name(info.placement.crs) or "none"),
        ("pixel", f"{ground} ({info.placement.source})"),
    ]


def _slide_rows(info: ImageInfo) -> list[Row]:
    metres, facts = ground_metres(info), dict(info.facts)
    known = "size unknown" if metres is None else f"{format_pair(metres, 'slide')}/px"
    return [
        ("size", _size(info)),
        ("pixel", f"{known} ({info.placement.source})"),
        *([("objective", f"{facts['objective']}×")] if "objective" in facts else []),
        *([("levels", facts["levels"])] if "levels" in facts else []),
        ("channels", _channels(info)),
    ]


def _study_rows(info: ImageInfo) -> list[Row]:
    facts, pair = dict(info.facts), _slice_mm(info)
    known = "size unknown" if pair is None else format_pair((pair[0] / 1e3, pair[1] / 1e3), "study")
    source = facts.get("spacing_source", "")
    step, slices = facts.get("step_mm_median"), len(info.planes)
    apart = f", {float(step):.4g} mm apart" if step else ""
    return [
        *((name, facts[key]) for key, name in _STUDY.items() if key in facts),
        *([("study", info.study)] if info.study else []),
        *([("series", facts["series_uid"])] if "series_uid" in facts else []),
        ("slices", f"{slices} of {facts.get('columns', info.size[0])} × {facts.get('rows', info.size[1])} px{apart}"),
        ("pixel", known if source in {"", "none"} else f"{known} ({source})"),
        ("channels", _channels(info)),
        ("values", _values(info)),
    ]


def _slice_mm(info: ImageInfo) -> tuple[float, float] | None:
    """Millimetres of a slice's pixel along x and y, where they hold in all of it."""
    facts = dict(info.facts)
    if facts.get("spacing_source") == "us_region" or not {"col_mm", "row_mm"} <= set(facts):
        return None
    return float(facts["col_mm"]), float(facts["row_mm"])
