"""What pages state of a run as a whole: its status, warnings and method."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..writer import ImageRecord, Record
from .page import Pairs, shorten

NAMED: Final = 12
"""Images that a warning names, and findings that a caption names."""

STATUS: Final[Mapping[str, str]] = {
    "complete": "All that was planned was analysed.",
    "partial": "Part was not analysed: see what was not assessed.",
    "doubtful": "Read the warnings before you use any number.",
    "not assessed": "No model was chosen, so nothing was assessed: having no finding means nothing.",
}
"""A sentence for each status."""


def model_name(record: Record) -> str:
    """The model and its version, "none" without one."""
    named = " ".join(filter(None, (record.model.get("name"), record.model.get("version"))))
    return named if record.assessed else "none"


def warnings_of(images: Sequence[ImageRecord]) -> Pairs:
    """The images of each warning, and the warning; also that an image is outside the model's domain."""
    warned: dict[str, list[str]] = {}
    for one in images:
        forced = [f"Outside the domain of the model, and forced: {one.forced}."] if one.forced else []
        for text in (*one.warnings, *forced):
            warned.setdefault(text, []).append(one.info.id)
    return [(_names(ids), text) for text, ids in warned.items()]


def method_facts(record: Record) -> Pairs:
    """Model, versions and what decides the results."""
    model = dict(record.model) if record.assessed else {}
    names = {"name": "Model", "version": "Version", "sha256": "Weights, sha256", "use": "Use", "tiling": "Seams"}
    rows = [(names[key], model.pop(key)) for key in names if model.get(key)]
    rows += [(key.replace("_", " "), value) for key, value in sorted(model.items())]
    rows += [("Labels", ", ".join(record.labels))] if record.labels else []
    rows += [("Preset", record.preset)] if record.preset else []
    rows += [("limner", record.version)]
    return [(name, shorten(value, where="manifest.json")) for name, value in rows if value]


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more


def no_finding(*, complete: bool) -> str:
    """The sentence on images without findings, of which all that was planned was analysed, or not."""
    return "No finding was made." if complete else "No finding was made in what was analysed, which is not all."
