"""Folds that are fair: tiles of one unit (an outline, a block of ground, an image) never stand on both sides."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ...readers.errors import RequestError

Numbers = npt.NDArray[np.intp]


def number_units(members: Sequence[Sequence[Hashable]]) -> Numbers:
    """The unit of each tile (n,), numbered from 0 in order of appearance.

    `members` are, for each tile, what it belongs to; what shares a tile is one unit, and so is what that shares.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(one: Hashable) -> Hashable:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for belongs in members:
        for other in belongs[1:]:
            parent[root(other)] = root(belongs[0])
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(root(belongs[0]), len(numbers)) for belongs in members], dtype=np.intp)


def assign_folds(units: Numbers, classes: Numbers, names: Sequence[str], *, folds: int, unit: str) -> Numbers:
    """The fold of each tile (n,), 0 to `folds` - 1, the same every time.

    Rare classes are dealt out first, large units before small ones, each to the fold that has least of its class. Each
    class must have at least as many units as there are folds: else it would be absent from one, and two folds at a time
    are set aside to choose the regularisation. Raises `RequestError` that names the class; `unit` is what a unit is
    called.
    """
    if folds < 3:
        raise RequestError(
            "folds",
            "there must be three or more: one is held out, one chooses the regularisation, the others teach",
            value=str(folds),
            remedy="Give --folds 3 or more",
        )
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for place, one in zip(units.tolist(), classes.tolist(), strict=True):
        counts[place][one] += 1
    per_class = Counter(one for count in counts.values() for one in count)
    for one, name in enumerate(names):
        if per_class[one] < folds:
            raise RequestError(
                f"class {name!r}",
                f"it must lie in at least as many {unit}s as there are folds, so that each can be held out in turn",
                value=f"{per_class[one]} for {folds} folds",
                remedy=_way_out(per_class[one], unit),
            )
    rarest = {one: (per_class[one], one) for one in per_class}
    order = sorted(counts, key=lambda u: (min(rarest[c] for c in counts[u]), -sum(counts[u].values()), u))
    held = np.zeros((folds, len(names)))
    fold_of: dict[int, int] = {}
    for place in order:
        rare = min(counts[place], key=lambda c: rarest[c])
        chosen = min(range(folds), key=lambda f: (held[f, rare], held[f].sum(), f))
        fold_of[place] = chosen
        for one, many in counts[place].items():
            held[chosen, one] += many
    return np.array([fold_of[place] for place in units.tolist()], dtype=np.intp)


def _way_out(have: int, unit: str) -> str:
    fewer = f", or give --folds {have}" if have >= 3 else ""
    smaller = ", or divide large outlines into blocks, such as --block 500m" if unit == "outline" else ""
    smaller = ", or give a smaller --block" if unit == "block" else smaller
    return f"Outline it in more places{fewer}{smaller}"
