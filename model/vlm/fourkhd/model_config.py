"""Sizes of parts of a 4KHD model that are made anew, as a person writes them. Loads no torch.

"new:hidden=128,layers=4,heads=4,mlp=512,patch=8,tile=64" is a vision tower of CLIP's kind; with "siglip," before the
sizes it is of SigLIP's, without the norm before the layers, which hides from a small tower how bright a patch is. It
may have the mean and std of its pictures' values from 0 to 1, of all colours, where those are not CLIP's: a tower sees
little of pictures that keep to a small part of the range. A language model has hidden, layers, heads and mlp, and may
have kv_heads, theta and positions.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from ....readers.errors import RequestError
from .sizes import LINEARS, LanguageSizes, Plora, VisionSizes

NEW = "new:"

_VISION = ("hidden", "layers", "heads", "mlp", "patch", "tile")
_LANGUAGE = ("hidden", "layers", "heads", "mlp")
_OPTIONAL = {"kv_heads": 0, "theta": 1_000_000, "positions": 32768}
_SIGLIP = "siglip,"
_COLOURS = {"mean": 0.0, "std": 0.01}  # least values
_RANKS = {"wqkv": (8, 2.0)}  # released: rank and alpha / rank; of the others below
_RANK, _SCALE = 256, 1.0
_NARROW = 4  # a rank is at most the width over this: beyond it nothing is saved


def vision_sizes(text: str) -> VisionSizes:
    """A vision tower from "new:…". Raises `RequestError` that names what is wrong."""
    siglip = text.removeprefix(NEW).startswith(_SIGLIP)
    text, colours = _colours(text.removeprefix(NEW).removeprefix(_SIGLIP))
    asked = _read("--vision", text, _VISION, {})
    sizes = VisionSizes(asked["hidden"], asked["layers"], asked["heads"], asked["mlp"], asked["patch"], asked["tile"])
    sizes = replace(sizes, **colours)
    if siglip:
        sizes = replace(sizes, class_token=False, pre_norm=False, patch_bias=True, activation="gelu_tanh", eps=1e-6)
    check_heads("--vision", sizes.hidden, sizes.heads)
    check_tile(sizes.image, sizes.patch)
    return sizes


def language_sizes(text: str, vocab: int) -> LanguageSizes:
    """A language model of InternLM2's kind from "new:…", for `vocab` tokens. Raises `RequestError`."""
    asked = _read("--language", text, _LANGUAGE, _OPTIONAL)
    hidden, heads = asked["hidden"], asked["heads"]
    kv_heads = asked["kv_heads"] or heads
    check_heads("--language", hidden, heads)
    if heads % kv_heads or (hidden // heads) % 2:
        raise RequestError(
            "--language",
            "heads must be a multiple of kv_heads, and a head's width even, since positions turn pairs",
            value=f"{heads} heads, {kv_heads} kv_heads, {hidden // heads} wide",
            remedy="Correct the sizes",
        )
    theta, positions = float(asked["theta"]), asked["positions"]
    return LanguageSizes(
        vocab, hidden, asked["layers"], heads, kv_heads, asked["mlp"], rope_theta=theta, positions=positions
    )


def ploras(language: LanguageSizes) -> dict[str, Plora]:
    """Partial LoRA as the released model has it, no wider than a quarter of a narrower language model."""
    most = max(1, language.hidden // _NARROW)
    ranks = {name: _RANKS.get(name, (_RANK, _SCALE)) for name in LINEARS}
    return {name: Plora(min(rank, most), min(rank, most) * scale) for name, (rank, scale) in ranks.items()}


def check_tile(tile: int, patch: int) -> None:
    """Raise `RequestError` where a tile is not cut into an even number of patches: they are merged two by two."""
    if tile % (2 * patch) or tile < 1:
        below = max(1, tile // (2 * patch)) * 2 * patch
        raise RequestError(
            "tile",
            f"it must be a multiple of two patches of {patch} pixels, since patches are merged two by two",
            value=f"{tile} pixels",
            remedy=f"Give --tile {below} or {below + 2 * patch}",
        )


def check_heads(subject: str, hidden: int, heads: int) -> None:
    """Raise `RequestError` where a width cannot be shared among heads."""
    if hidden % heads:
        raise RequestError(
            subject, "hidden must be a multiple of heads", value=f"{hidden} and {heads}", remedy="Correct the sizes"
        )


def _colours(text: str) -> tuple[str, dict[str, tuple[float, float, float]]]:
    """The sizes without `mean` and `std`, and those, the same for the three colours."""
    rest: list[str] = []
    found: dict[str, tuple[float, float, float]] = {}
    for part in text.removeprefix(NEW).split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in _COLOURS:
            rest.append(part)
            continue
        number = float(value) if re.fullmatch(r"\d*\.?\d+", value) else -1.0
        if not _COLOURS[name] <= number <= 1 or name in found:
            raise RequestError(
                "--vision",
                "mean and std are of values from 0 to 1, each stated once, and std at least 0.01",
                value=part,
                remedy="Write mean=0.45,std=0.27, say",
            )
        found[name] = (number, number, number)
    return ",".join(rest), found


def _read(subject: str, text: str, needed: tuple[str, ...], optional: Mapping[str, int]) -> dict[str, int]:
    known = (*needed, *optional)
    found: dict[str, int] = {}
    for part in text.removeprefix(NEW).split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in known or name in found or not value.isdecimal() or int(value) < 1:
            raise RequestError(
                subject,
                f"sizes are whole numbers from 1, each named once: {NEW}{','.join(f'{word}=…' for word in needed)}",
                value=part,
                remedy=f"Known: {', '.join(known)}",
            )
        found[name] = int(value)
    absent = [name for name in needed if name not in found]
    if absent:
        raise RequestError(subject, f"{' and '.join(absent)} must be stated", value=text, remedy="Add what is missing")
    return {**optional, **found}
