"""What a reviewer can do, checked as it comes from a browser or a file: `parse_action` trusts nothing of it."""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import shapely
from shapely.errors import ShapelyError

from ...readers.errors import RequestError, did_you_mean, excerpt
from ...reports.csv_safety import clean_text

Verb = Literal["accept", "reject", "clear", "relabel", "draw", "delete", "comment"]
Point = tuple[float, float]
Rings = tuple[tuple[Point, ...], ...]
"""Closed rings of a polygon in level-0 pixels: its outline, then its holes."""

MOST_FINDINGS: Final = 100_000
"""Findings that one action may name."""
MOST_VERTICES: Final = 10_000
"""Vertices of a drawn outline, with its holes."""
LONGEST_LABEL: Final = 200
LONGEST_COMMENT: Final = 2_000

_OUTLINE: Final = "drawn:"
_NAME: Final = re.compile(r"\w[\w .@-]{0,63}")
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_INVISIBLE: Final = "\ufffd"  # what `clean_text` makes of it


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a reviewer, of which only the parts that its verb needs are filled."""

    verb: Verb
    findings: tuple[str, ...] = ()
    """Keys: IMAGE/NUMBER, the image and the finding of findings.csv, or the id of a drawn one."""
    label: str = ""
    text: str = ""
    image: str = ""
    plane: int = 0
    rings: Rings = ()

    def to_json(self) -> dict[str, Any]:
        """The action as a browser posts it."""
        return {"action": self.verb, **{name: getattr(self, name) for name in _PARTS[self.verb]}}


_PARTS: Final[Mapping[Verb, tuple[str, ...]]] = {
    "accept": ("findings",),
    "reject": ("findings",),
    "clear": ("findings",),
    "relabel": ("findings", "label"),
    "draw": ("image", "plane", "label", "rings"),
    "delete": ("findings",),
    "comment": ("findings", "text"),
}


def parse_action(given: Mapping[str, Any], labels: Collection[str] = ()) -> Action:
    """Check an action. `labels` are the run's own, which are taken as they are. Raises `RequestError`."""
    asked = given.get("action")
    verb: Verb | None = asked if asked in tuple(_PARTS) else None
    if verb is None:
        name = str(asked)[:50]
        remedy = f"{did_you_mean(name, _PARTS)}Actions: {', '.join(_PARTS)}"
        raise _error("an action", "must be one that limner knows", name, remedy)
    parts = _PARTS[verb]
    if unknown := [name for name in given if name not in {"action", *parts}]:
        raise _error(f"action {verb}", "must have no other members", unknown[0], f"Give {', '.join(parts)}")
    values = {name: _CHECKS[name](given.get(name, 0 if name == "plane" else None)) for name in parts if name != "label"}
    if "label" in parts:
        label = given.get("label")
        values["label"] = label if isinstance(label, str) and label in labels else _label(label)
    return Action(verb, **values)


def check_reviewer(name: str) -> str:
    """A reviewer's name, which names a file too. Raises `RequestError`."""
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name) or name[-1] in " ." or _RESERVED.fullmatch(name):
        rule = "must be a name of up to 64 letters, digits, spaces and . _ @ -, that can be a file's"
        raise _error("the reviewer", rule, name, "Give --reviewer anna, say")
    return name


def outline_key(reviewer: str, number: int) -> str:
    """The id of the finding that a reviewer's event drew."""
    return f"{_OUTLINE}{reviewer}:{number}"


def is_outline(key: str) -> bool:
    """Whether a finding was drawn: the keys of a run's own end with a slash and a number."""
    return key.startswith(_OUTLINE) and "/" not in key


def split_key(key: str) -> tuple[str, int]:
    """The image and the number of a run's finding; ("", 0) for any other text."""
    image, slash, number = key.rpartition("/")
    plain = slash and number.isascii() and number.isdecimal() and len(number) < 12 and number[0] != "0"
    return (image, int(number)) if plain else ("", 0)


def polygon(rings: Rings) -> shapely.Polygon:
    """The polygon of rings."""
    return shapely.Polygon(rings[0], rings[1:])


def _findings(value: object) -> tuple[str, ...]:
    given = cast("list[object]", value) if isinstance(value, (list, tuple)) else []
    keys = [key for key in given if isinstance(key, str) and (is_outline(key) or split_key(key)[1])]
    if not keys or len(keys) < len(given):
        rule, remedy = "must be a list of keys IMAGE/NUMBER", "Give them as findings.csv numbers them"
        raise _error("findings", rule, cast("object", value), remedy)
    if len(keys) > MOST_FINDINGS:
        raise _error("findings", f"must be at most {MOST_FINDINGS} at a time", len(keys), "Give them in parts")
    return tuple(dict.fromkeys(keys))


def _text(subject: str, value: object, longest: int, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise _error(subject, "must be a text", value, "Give a text")
    text = clean_text(unicodedata.normalize("NFC", value)).strip()
    if not (text or empty) or len(text) > longest:
        found = f"{len(text)} characters" if text else "nothing"
        rule = f"must have up to {longest} characters" if empty else f"must have 1 to {longest} characters"
        raise _error(subject, rule, found, "Give a shorter one" if text else "Give one")
    if _INVISIBLE in text:
        remedy = "Type it again without them: two labels that look alike must be alike"
        raise _error(subject, "must have visible characters only", value, remedy)
    return text


def _label(value: object) -> str:
    return _text("a label", value, LONGEST_LABEL)


def _comment(value: object) -> str:
    return _text("a comment", value, LONGEST_COMMENT, empty=True)


def _image(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _error("image", "must be the id of an image", value, "Give one of the run's")
    return value


def _plane(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise _error("plane", "must be the number of a slice, from 0", value, "Give 0 for an image without slices")
    return value


def _rings(value: object) -> Rings:
    """Closed rings of a valid polygon."""
    lists: list[Any] = cast("list[Any]", value) if isinstance(value, (list, tuple)) else []
    try:
        if sum(map(len, lists)) > MOST_VERTICES:
            found = sum(map(len, lists))
            raise _error("an outline", f"must have at most {MOST_VERTICES} vertices", found, "Draw it in parts")
        rings = tuple(tuple((_number(x), _number(y)) for x, y in ring) for ring in lists)
        closed = tuple(ring if ring[0] == ring[-1] else (*ring, ring[0]) for ring in rings)
        shape = polygon(closed)
    except (TypeError, ValueError, IndexError, OverflowError, ShapelyError) as error:
        rule = "must be rings of three or more points [x, y] with finite coordinates"
        raise _error("an outline", rule, cast("object", value), "Give level-0 pixels") from error
    if not shape.is_valid or not shape.area > 0:
        reason = shapely.is_valid_reason(shape) if not shape.is_valid else "no area"
        raise _error("an outline", "must be a valid polygon", reason, "Draw it without crossing lines")
    return closed


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(number := float(value)):
        msg = "no finite number"
        raise ValueError(msg)
    return number


_CHECKS: Final[Mapping[str, Callable[[object], Any]]] = {
    "findings": _findings,
    "text": _comment,
    "image": _image,
    "plane": _plane,
    "rings": _rings,
}


def _error(subject: str, rule: str, value: object, remedy: str) -> RequestError:
    return RequestError(subject, rule, value=excerpt(str(value)), remedy=remedy)
