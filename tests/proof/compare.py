"""Compares the outputs of two versions by meaning: rows matched, numbers to 1e-6, geometry to 1e-9."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import shapely
from meant import COLUMNS, LINES, TABLES, Column, Lines, Table
from reading import GEOMETRY, Row, Tables

NUMBERS = 1e-6  # of the larger one
PLACES = 1e-9  # of the largest coordinate
WRITTEN = {"findings.geojson": 1.1e-7}  # degrees: its coordinates have seven decimals
COARSE = 3  # of 255, in the mean of a block of a picture
KEYS = (
    ("image", "finding"),
    ("stack_id", "finding"),
    ("image", "entry", "item", "reason"),
    ("image", "entry", "name", "reason"),
    ("path",),
    ("stack_id",),
    ("study_uid",),
    ("image",),
    ("id",),
    ("finding",),
    ("layer",),
)
_SHOWN = 12  # differences of a table


@dataclass
class Outcome:
    """What a comparison found: `meant` counts by reason, `errors` are sentences by table, `rows` how many there were.

    `skipped` are runs that the older side did not make at all.
    """

    meant: Counter[str] = field(default_factory=Counter)
    errors: dict[str, list[str]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    skipped: set[str] = field(default_factory=set)

    def wrong(self, table: str, what: str) -> None:
        """Note a difference that nobody meant."""
        self.errors.setdefault(table, []).append(what)


@dataclass(frozen=True)
class Rules:
    """The differences that are meant."""

    columns: Sequence[Column] = COLUMNS
    tables: Sequence[Table] = TABLES
    lines: Sequence[Lines] = LINES

    def reasons(self) -> list[str]:
        """All of them, in order."""
        return [rule.because for rule in (*self.columns, *self.tables, *self.lines)]


def compare(old: Tables, new: Tables, rules: Rules | None = None) -> Outcome:
    """Compare every table of the older side with its counterpart."""
    rules = rules or Rules()
    outcome = Outcome()
    left = set(new)
    for name, rows in old.items():
        counterpart, reason = _counterpart(name, rules.tables)
        if counterpart not in new:
            if reason:
                outcome.meant[reason] += 1
            else:
                outcome.wrong(name, "the newer side has no such output")
            continue
        if reason:
            outcome.meant[reason] += 1
        left.discard(counterpart)
        if name.endswith(".txt"):
            _compare_lines(name, rows, new[counterpart], rules.lines, outcome)
        else:
            _compare_table(name, rows, new[counterpart], rules.columns, outcome)
    made = {run_of(name) for name in old}
    for name in sorted(left):
        if run_of(name) not in made:
            outcome.skipped.add(run_of(name))
            continue
        reason = next((t.because for t in rules.tables if not t.old and fnmatchcase(name, t.new)), "")
        if reason:
            outcome.meant[reason] += 1
        else:
            outcome.wrong(name, "the older side has no such output")
    return outcome


def report(old: Tables, new: Tables) -> int:
    """Print a comparison; the exit code."""
    rules = Rules()
    outcome = compare(old, new, rules)
    for table, count in sorted(outcome.rows.items()):
        print(f"{table}: {count} rows compared")
    if outcome.skipped:
        print(f"\nThe older side made none of: {', '.join(sorted(outcome.skipped))}")
    print("\nMeant")
    for reason in dict.fromkeys(rules.reasons()):
        print(f"{outcome.meant[reason]:7}  {reason}" + ("" if outcome.meant[reason] else "  (never met)"))
    print("\nNot meant" if outcome.errors else "\nNothing else differs")
    for table, sentences in outcome.errors.items():
        print(f"{table}: {len(sentences)}")
        for sentence in sentences[:_SHOWN]:
            print(f"    {sentence}")
    return bool(outcome.errors)


def run_of(name: str) -> str:
    """The run or text that an output belongs to."""
    return name.partition("/")[0].removesuffix(".txt")


def _counterpart(name: str, tables: Sequence[Table]) -> tuple[str, str]:
    for table in tables:
        if table.old and table.new and re.fullmatch(table.old, name):
            return re.sub(table.old, table.new, name), table.because
        if table.old and not table.new and fnmatchcase(name, table.old):
            return "", table.because
    return name, ""


def _compare_lines(name: str, old: list[Row], new: list[Row], rules: Sequence[Lines], outcome: Outcome) -> None:
    before, after = ([row["line"] for row in rows] for rows in (old, new))
    mine = [rule for rule in rules if fnmatchcase(name, rule.texts)]
    outcome.rows[name] = len(before)
    for kind, i0, i1, j0, j1 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for sign, lines in (("-", before[i0:i1]), ("+", after[j0:j1])):
            for line in lines:
                pattern = (lambda rule: rule.old) if sign == "-" else (lambda rule: rule.new)
                reason = next((r.because for r in mine if pattern(r) and re.fullmatch(pattern(r), line)), "")
                if reason:
                    outcome.meant[reason] += 1
                else:
                    outcome.wrong(name, f"{sign} {line}")


def _compare_table(name: str, old: list[Row], new: list[Row], rules: Sequence[Column], outcome: Outcome) -> None:
    mine = [rule for rule in rules if fnmatchcase(name, rule.tables)]
    free = {rule.new for rule in mine if rule.free}
    added = {rule.new: rule.because for rule in mine if not rule.old}
    expected = [_translated(row, mine) for row in old]
    outcome.rows[name] = len(old)
    columns = {c for row in expected for c in row}
    for rule in mine:
        outcome.meant[rule.because] += sum(
            bool(rule.old) and any(re.fullmatch(rule.old, c) for c in row) for row in old
        )
    for column in sorted({c for row in new for c in row} - columns):
        reason = next((why for pattern, why in added.items() if fnmatchcase(column, pattern)), "")
        if reason:
            outcome.meant[reason] += 1
        else:
            outcome.wrong(name, f"column {column!r} is new")
    for a, b in _pairs(expected, new, name, columns - free):
        if a is None or b is None:
            side, row = ("newer", a) if b is None else ("older", b)
            outcome.wrong(name, f"the {side} side has no row like {_short(row or {})}")
            continue
        for column in sorted(columns - free):
            if not same(column, a.get(column), b.get(column), name):
                where = _short({k: a[k] for key in KEYS for k in key if k in a})
                outcome.wrong(name, f"{where}: {column} was {_cut(a.get(column))}, is {_cut(b.get(column))}")


def _translated(row: Row, rules: Sequence[Column]) -> Row:
    """A row of the older side in the words and units of the newer one."""
    made = dict(row)
    renamed: Row = {}
    for rule in rules:
        for column, cell in row.items():
            found = re.fullmatch(rule.old, column) if rule.old else None
            if found:
                made.pop(column, None)
                changed = cell if rule.change is None else rule.change(cell)
                if rule.new:
                    renamed[found.expand(rule.new)] = _scaled(changed, rule.factor) if changed else changed
    return made | renamed


def _scaled(text: str, factor: float) -> str:
    """A number times a factor (any text times 1), with as many significant digits as it had, and at least nine."""
    if factor == 1.0:
        return text
    digits = max(len(text.replace(".", "").strip("-0")), 9)
    return np.format_float_positional(float(text) * factor, precision=digits, fractional=False, trim="-")


def _pairs(
    old: Sequence[Row], new: Sequence[Row], name: str, columns: set[str]
) -> Iterator[tuple[Row | None, Row | None]]:
    """Rows that belong together: by their key, and those whose cells then differ by what they are most like."""
    key = next((k for k in KEYS if old and new and all(c in old[0] and c in new[0] for c in k)), ())
    places: dict[tuple[str, ...], list[int]] = {}
    for j, row in enumerate(new):
        places.setdefault(tuple(row.get(c, "") for c in key) if key else (str(j),), []).append(j)
    left, taken = list(enumerate(old)), set[int]()
    for most in (0, len(columns) // 3):  # first those that are the same, then those that differ a little
        again, left = left, []
        for i, row in again:
            own = places.get(tuple(row.get(c, "") for c in key) if key else (str(i),), ())
            found = next((j for j in own if j not in taken and _differing(row, new[j], columns, name) <= most), None)
            if found is None:
                left.append((i, row))
            else:
                taken.add(found)
                yield row, new[found]
        if not most:  # then those that are the same but for their key
            again, left = left, []
            for i, row in again:
                free = (
                    j for j, other in enumerate(new) if j not in taken and _alike(row, other, columns - set(key), name)
                )
                if (found := next(free, None)) is None:
                    left.append((i, row))
                else:
                    taken.add(found)
                    yield row, new[found]
    rest = [row for j, row in enumerate(new) if j not in taken]
    for _, row in left:
        counts = [_differing(row, other, columns, name) for other in rest]
        best = int(np.argmin(counts)) if counts else 0
        if not counts or counts[best] > max(len(columns) / 2, 1):
            yield row, None
        else:
            yield row, rest.pop(best)
    yield from ((None, row) for row in rest)


def _alike(a: Row, b: Row, columns: set[str], name: str) -> bool:
    return all(same(column, a.get(column), b.get(column), name) for column in columns)


def _differing(a: Row, b: Row, columns: set[str], name: str) -> int:
    return sum(not same(column, a.get(column), b.get(column), name) for column in columns)


def same(column: str, a: str | None, b: str | None, table: str = "") -> bool:
    """Whether two cells mean the same. A number with fewer decimals is one that was rounded."""
    if a == b:
        return True
    if not a or not b:
        return False
    if column == GEOMETRY:
        return same_shape(a, b, next((w for part, w in WRITTEN.items() if table.endswith(part)), 0.0))
    if column == "coarse":
        one, two = (np.frombuffer(bytes.fromhex(text), dtype=np.uint8).astype(int) for text in (a, b))
        return bool(np.abs(one - two).max() <= COARSE)
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    first, second = (len(text.partition(".")[2]) if "e" not in text else 99 for text in (a, b))
    rounded = 0.0 if first == second else 0.5 * 10.0 ** -min(first, second) * (1 + NUMBERS)
    if "." not in a or "." not in b:
        rounded = 0.0
    return abs(x - y) <= max(NUMBERS * max(abs(x), abs(y)), rounded)


def same_shape(a: str, b: str, written: float = 0.0) -> bool:
    """Whether two shapes in WKB are the same, whatever corner they start at and whichever way round."""
    one, two = (shapely.normalize(shapely.set_precision(shapely.from_wkb(bytes.fromhex(t)), 0)) for t in (a, b))
    within = max(PLACES * max(np.abs(one.bounds).max(), 1.0), written)
    if one.equals_exact(two, within):
        return True
    apart = shapely.area(shapely.symmetric_difference(one, two))
    return bool(
        one.geom_type == two.geom_type and apart <= within * one.length and _close(one.bounds, two.bounds, within)
    )


def _close(a: Sequence[float], b: Sequence[float], within: float) -> bool:
    return bool(np.abs(np.subtract(a, b)).max() <= within)


def _short(row: Mapping[str, str]) -> str:
    return ", ".join(f"{column} {_cut(cell)}" for column, cell in list(row.items())[:4])


def _cut(cell: str | None) -> str:
    if cell is None:
        return "not there"
    return repr(cell if len(cell) <= 60 else f"{cell[:40]}…{cell[-15:]}")
