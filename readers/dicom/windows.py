"""The windows in which a stack is shown: one as grey, or three as red, green and blue."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ..options import invalid_option
from .faults import FaultError
from .metadata import FileMetadata, Window
from .series import Slice, Stack
from .voi_lut import PRESET_OF_BODY_PART, PRESETS, TRIPLES, Function, LookupTable, VoiLut, grey_levels

_T = TypeVar("_T", bound=Hashable)

Tables = Callable[[str, int], LookupTable]
"""(source, frame from 0) → its VOI lookup table. Raises `FaultError` where that cannot be read."""

NO_WINDOW: Final = "as the file has no window"
_SUV: Final = VoiLut(5.0, 10.0, "LINEAR_EXACT")
_SUV_SOURCE: Final = "SUV of 0 to 10, as the file's window is for other values"
_COLOURS: Final = ("red", "green", "blue")
_REMEDY: Final = (
    f"For example lung, 40/400, or lung,mediastinum,bone for red, green and blue. Presets: "
    f"{', '.join([*PRESETS, *TRIPLES])}"
)


@dataclass(frozen=True, slots=True)
class ShownWindows:
    """The VOI of a whole stack."""

    vois: tuple[VoiLut, ...] = ()
    """One, or three for red, green and blue; none where its pixels must decide."""
    sources: tuple[str, ...] = ()
    """Where each is from."""
    by_option: bool = False
    """Whether the option `window` names them."""
    unused: str = ""
    """The option `window` where it is for Hounsfield units, which the stack has not."""

    @property
    def first(self) -> VoiLut | None:
        """The first window."""
        return self.vois[0] if self.vois else None

    def facts(self, *, inverted: bool) -> dict[str, str]:
        """The facts `window_…` of an image, of which several are separated by blanks; `inverted` for MONOCHROME1."""
        if not self.vois:
            return {}
        used = [_text(voi, source, inverted=inverted) for voi, source in zip(self.vois, self.sources, strict=True)]
        ends = [tuple(reversed(voi.limits())) if inverted else voi.limits() for voi in self.vois]
        levels = grey_levels(self.vois[0], inverted=inverted) if len(self.vois) == 1 else ()
        named = map(" ".join, zip(_COLOURS, used, strict=True)) if len(used) > 1 else used
        return {
            "window_used": "; ".join(named),
            "window_low": " ".join(repr(low) for low, _ in ends),
            "window_high": " ".join(repr(high) for _, high in ends),
            "window_curve": "steps" if levels else "sigmoid" if self.vois[0].function == "SIGMOID" else "",
            "window_steps": " ".join(f"{value!r}:{grey}" for value, grey in levels),
        }


def choose_windows(stack: Stack, option: str, tables: Tables, *, suv: bool = False) -> ShownWindows:
    """The windows of a whole stack.

    In order: the option `window`, the file's lookup table, its first window, and for original CT slices the preset for
    their body part, or for soft tissue; where PET becomes `suv`, numbers in the option are SUV, else 0 to 10 is shown.
    Where slices differ, the value of most of them, else of the middle one. Raises
    `RequestError` for an option that is not one window or three.
    """
    asked = parse_windows(option)
    found = [_of_option(stack, one, suv=suv) for one in asked]
    chosen = [one for one in found if one is not None]
    if asked and len(chosen) == len(asked):
        if len({voi.function == "SIGMOID" for voi, _ in chosen}) > 1:
            raise _invalid("must be three windows of one curve, not sigmoid and linear ones", option)
        return ShownWindows(tuple(voi for voi, _ in chosen), tuple(source for _, source in chosen), by_option=True)
    unused = option.strip() if asked else ""
    stated = (_SUV, _SUV_SOURCE) if suv else _stated_table(stack, tables) or _stated_window(stack)
    return ShownWindows(unused=unused) if stated is None else ShownWindows((stated[0],), (stated[1],), unused=unused)


def parse_windows(option: str) -> tuple[VoiLut | tuple[str, VoiLut] | str, ...]:
    """The parts of the option `window`: one, three, or () without it. Raises `RequestError`.

    A part is numbers, a preset of a `TRIPLES` with its name, or the lower-case name of a window.
    """
    text = option.strip().lower()
    if not text:
        return ()
    if text in TRIPLES:
        return tuple((text, VoiLut(*one, "LINEAR_EXACT")) for one in TRIPLES[text])
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 2 and all(map(_is_number, parts)):
        parts = ["/".join(parts)]
    if len(parts) not in {1, 3}:
        raise _invalid("must be one window, or three for red, green and blue", option)
    return tuple(_parse_part(part, option) for part in parts)


def _parse_part(part: str, option: str) -> VoiLut | str:
    centre, slash, width = part.partition("/")
    if not slash and not _is_number(part) and part:
        return part
    numbers = [float(one) if _is_number(one) else 0.0 for one in (centre, width)]
    if not numbers[1] > 0:
        raise _invalid("must be centre/width, with a width above 0, or the name of a window", option)
    return VoiLut(numbers[0], numbers[1])


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < _LARGEST
    except ValueError:
        return False


_LARGEST: Final = 1e12  # also refuses infinity and NaN


def _invalid(rule: str, value: str) -> Exception:
    return invalid_option("window", "reader 'dicom'", rule, value=value, remedy=_REMEDY)


Chosen = tuple[VoiLut, str]
"""A VOI, and where it is from."""


def _of_option(stack: Stack, one: VoiLut | tuple[str, VoiLut] | str, *, suv: bool) -> Chosen | None:
    """A window that the option names; None where it is for Hounsfield units and the stack has others."""
    in_hu = stack.first.metadata.quantity == "HU"
    if isinstance(one, VoiLut):
        return one, "option window"
    if isinstance(one, tuple):
        return (one[1], f"preset {one[0]}") if in_hu else None
    named = [_voi(own, window) for own in stack.slices for window in own.own.windows if window.name.lower() == one]
    if named and not suv:
        return named[0], f"file, window {one}"
    if one in PRESETS or named:
        return (VoiLut(*PRESETS[one]), f"preset {one}") if in_hu else None
    raise _invalid("must be centre/width, a preset, or the file's name for one of its windows", one)


def _stated_table(stack: Stack, tables: Tables) -> Chosen | None:
    """The lookup table of most slices, else the middle one's; None without any, or where it is damaged."""
    stated = {one.own.tables[0]: one for one in reversed(stack.slices) if one.own.tables}
    if not stated:
        return None
    chosen = stated[_most_common([one.own.tables[0] for one in stack.slices if one.own.tables])]
    try:
        table = tables(chosen.file.source, chosen.frame - 1)
    except FaultError:
        return None
    return VoiLut(0.0, 0.0, "LUT", table), "file" if len(stated) == 1 else f"file, one of {len(stated)}"


def _stated_window(stack: Stack) -> Chosen | None:
    firsts = [_voi(one, one.own.windows[0]) for one in stack.slices if one.own.windows]
    if firsts:
        different = len(set(firsts))
        return _most_common(firsts), "file, first window" if different == 1 else f"file, one of {different} windows"
    return _default_window(stack.first.metadata) if stack.first.metadata.quantity == "HU" else None


def _default_window(metadata: FileMetadata) -> Chosen:
    """The preset for the body part that a file of HU states, else that for soft tissue."""
    part = metadata.body_part
    preset = PRESET_OF_BODY_PART.get(part, "soft_tissue")
    why = f" for {metadata.body_part_source} {part}" if part else ", whatever its body part,"
    return VoiLut(*PRESETS[preset]), f"preset {preset}{why} {NO_WINDOW}"


def _most_common(values: Sequence[_T]) -> _T:
    """The value of more than half, else the middle one."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else values[len(values) // 2]


def _voi(one: Slice, window: Window) -> VoiLut:
    functions: Mapping[str, Function] = {"LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}
    return VoiLut(window.centre, window.width, functions.get(one.own.voi, "LINEAR"))


def _text(voi: VoiLut, source: str, *, inverted: bool) -> str:
    text = f"{voi.centre:g}/{voi.width:g}"
    if voi.table is not None:
        text = f"{len(voi.table.entries)} entries from {voi.table.first:g}"
    return f"{text} {voi.function} ({source}){', inverted' if inverted else ''}"
