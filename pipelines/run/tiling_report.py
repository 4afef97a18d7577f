"""What a check of a model's tiling found, as text, as JSON, and as a block for the model's card."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..cli.terminal import indent, table
from .tiling_check import IN_STEP, MAX_CHANGED, MAX_RATIO, Measured, TilingCheck

REPORTS = ("seams.json", "seams.txt", "seams.yaml")
"""Names of the files that `write_reports` writes."""


def tiling_text(found: TilingCheck) -> str:
    """The check of one image, for a terminal."""
    x0, y0, x1, y1 = found.part
    halo = found.proposed_halo
    proposal = "none up to 3/8 of the tile meets the target" if halo is None else f"{halo} px (now {found.halo} px)"
    rows = [
        ("measured", f"{x1 - x0} × {y1 - y0} analysed pixels from ({x0}, {y0}), {found.labelled} of them labelled"),
        ("tiles", f"{found.tile} px, halo {found.halo} px"),
        ("change, mean", f"{_percent(found.mean_changed)} of labelled pixels; at most {MAX_CHANGED:.1%} at any shift"),
        *(
            (f"change, {shift} px", f"{share:.3%}{', in step with pooling' if shift % IN_STEP == 0 else ''}")
            for shift, share in found.changed.items()
        ),
        (
            f"change, outer {found.margin} px",
            f"{found.changed_in_margin:.3%} of those at the picture's edge, not counted",
        ),
        ("outline on seams", f"{_ratio(found)}; at most {MAX_RATIO:g}"),
        ("halo proposed", proposal),
        ("targets", "met" if found.met else "NOT met"),
    ]
    return f"{found.image}: {found.model}\n{indent(table(rows))}"


def card_block(found: Sequence[TilingCheck]) -> str:
    """The block `tiling` of a model card, in YAML."""
    entries = [
        {
            "image": one.image,
            "changed_percent": round(100 * one.worst_changed, 3),
            "changed_in_step_percent": round(100 * one.worst_in_step, 3),
            "outline_ratio": None if one.ratio is None else round(one.ratio.value, 2),
            "outline_interval": None if one.ratio is None else [round(one.ratio.low, 2), round(one.ratio.high, 2)],
            "halo": one.halo,
            "met": one.met,
        }
        for one in found
    ]
    return yaml.safe_dump({"tiling": entries}, sort_keys=False, allow_unicode=True)


def write_reports(found: Sequence[TilingCheck], folder: Path) -> list[Path]:
    """Write the three reports into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    content = (
        json.dumps({"format": 1, "images": [one.to_json() for one in found]}, indent=1, ensure_ascii=False) + "\n",
        "\n".join(map(tiling_text, found)) + "\n",
        card_block(found),
    )
    paths = [folder / name for name in REPORTS]
    for path, text in zip(paths, content, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def _percent(measured: Measured) -> str:
    return f"{measured.value:.3%} ({measured.low:.3%} to {measured.high:.3%})"


def _ratio(found: TilingCheck) -> str:
    if found.ratio is None:
        return "no two tiles meet on what is labelled"
    return f"{found.ratio.value:.2f} × chance ({found.ratio.low:.2f} to {found.ratio.high:.2f}, {found.lines} lines)"
