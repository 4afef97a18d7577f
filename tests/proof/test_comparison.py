"""The comparison of two versions' outputs finds what differs, and lets pass what means the same."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import shapely


@pytest.fixture(scope="module")
def proof() -> Iterator[dict[str, ModuleType]]:
    """The script's modules, which import each other as a script's do."""
    names = ("meant", "reading", "compare")
    sys.path.insert(0, str(Path(__file__).parent))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(Path(__file__).parent))
    for name in names:
        del sys.modules[name]


def finding(number: int, **more: str) -> dict[str, str]:
    x = 10 * number
    row = {"image": "a", "finding": str(number), "label": "water", "kind": "area", "score": "0.7426"}
    row |= {"area_px": f"{x}.00", "x0_px": f"{x}.000", "y0_px": "2.000", "x1_px": f"{x + 5}.000", "y1_px": "9.000"}
    return row | {"geometry": shapely.box(x, 2, x + 5, 9).wkb_hex} | more


def errors(
    proof: dict[str, ModuleType], old: list[dict[str, str]], new: list[dict[str, str]], *columns: object
) -> list[str]:
    """What is wrong with one table."""
    rules = proof["compare"].Rules(columns=columns, tables=(), lines=())
    return (
        proof["compare"]
        .compare({"r/findings.csv": old}, {"r/findings.csv": new}, rules)
        .errors.get("r/findings.csv", [])
    )


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1.50", "1.5", True),
        ("12345678", "12345679", True),
        ("1.000000", "1.000002", False),
        ("4428.00", "4428.01", False),
        ("0.12", "0.1234", True),
        ("0.12", "0.13", False),
        ("0.12", "0.1251", False),
        ("62", "62.4", False),
        ("", "0", False),
        ("water", "Water", False),
        ("nan", "nan", True),
    ],
)
def test_cells(proof: dict[str, ModuleType], a: str, b: str, *, same: bool) -> None:
    assert proof["compare"].same("area_px", a, b) == same
    assert proof["compare"].same("area_px", b, a) == same


def test_shapes(proof: dict[str, ModuleType]) -> None:
    corners = [(400000.0, 2.0), (400005.0, 2.0), (400005.0, 9.0), (400000.0, 9.0)]
    one = shapely.Polygon(corners).wkb_hex
    same_shape = proof["compare"].same_shape
    assert same_shape(one, shapely.Polygon([*corners[2:], *corners[:2]]).wkb_hex)
    assert same_shape(one, shapely.Polygon(corners[::-1]).wkb_hex)
    assert same_shape(one, shapely.Polygon([corners[0], (400002.0, 2.0), *corners[1:]]).wkb_hex), "a corner on an edge"
    assert same_shape(one, shapely.Polygon([(x + 1e-5, y) for x, y in corners]).wkb_hex)
    assert not same_shape(one, shapely.Polygon([(x + 2e-3, y) for x, y in corners]).wkb_hex)
    assert not same_shape(one, shapely.Polygon([(x, y * 1.01) for x, y in corners]).wkb_hex)
    assert not same_shape(one, shapely.MultiPolygon([shapely.Polygon(corners)]).wkb_hex)


def test_rows_in_another_order_are_the_same(proof: dict[str, ModuleType]) -> None:
    old = [finding(k) for k in range(1, 6)]
    assert errors(proof, old, old[::-1]) == []


def test_what_is_not_there_is_found(proof: dict[str, ModuleType]) -> None:
    old = [finding(k) for k in range(1, 6)]
    [missing] = errors(proof, old, old[1:])
    assert missing.startswith("the newer side has no row like image 'a', finding '1'")
    [extra] = errors(proof, old[1:], old)
    assert extra.startswith("the older side has no row like image 'a', finding '1'")


def test_findings_that_are_numbered_otherwise_are_told_as_that(proof: dict[str, ModuleType]) -> None:
    old = [finding(k) for k in range(1, 6)]
    new = [row | {"finding": str(6 - int(row["finding"]))} for row in old]
    found = errors(proof, old, new)
    assert len(found) == 4, "the third keeps its number"
    assert all(": finding was " in sentence for sentence in found)


def test_a_difference_is_named_with_its_place(proof: dict[str, ModuleType]) -> None:
    old = [finding(k) for k in range(1, 4)]
    new = [old[0], old[1] | {"label": "land"}, old[2]]
    assert errors(proof, old, new) == ["image 'a', finding '2', kind 'area': label was 'water', is 'land'"] or errors(
        proof, old, new
    ) == ["image 'a', finding '2': label was 'water', is 'land'"]


def test_a_column_in_another_unit_is_meant_only_where_a_rule_says_so(proof: dict[str, ModuleType]) -> None:
    column = proof["meant"].Column
    old = [finding(k, area_m2="0.000000000055776224", extra="1") for k in range(1, 4)]
    new = [finding(k, area_um2="55.776224", more="x") for k in range(1, 4)]
    rules = [
        column("µm² for slides", "r/*.csv", "area_m2", "area_um2", 1e12),
        column("not needed", "r/*.csv", "extra"),
        column("told", "r/*.csv", new="mor*"),
    ]
    assert errors(proof, old, new, *rules) == []
    for k in range(3):
        assert errors(proof, old, new, *rules[:k], *rules[k + 1 :])
    new[1]["area_um2"] = "55.776424"
    assert len(errors(proof, old, new, *rules)) == 1


def test_outputs_and_lines(proof: dict[str, ModuleType]) -> None:
    compare, meant = proof["compare"], proof["meant"]
    old = {"r/a.csv": [finding(1)], "r/gone.csv": [finding(1)], "r.txt": [{"line": "x"}, {"line": "took 1 s"}]}
    new = {"r/b.csv": [finding(1)], "r/new.csv": [finding(1)], "r.txt": [{"line": "x"}, {"line": "took 2 s"}]}
    none = compare.Rules(columns=(), tables=(), lines=())
    assert set(compare.compare(old, new, none).errors) == {"r/a.csv", "r/gone.csv", "r.txt", "r/b.csv", "r/new.csv"}
    tables = (
        meant.Table("another name", r"(.*)/a\.csv", r"\1/b.csv"),
        meant.Table("gone", "r/gone.csv"),
        meant.Table("new", new="r/new.csv"),
    )
    lines = (meant.Lines("measured", "r.txt", "took .*", "took .*"),)
    assert compare.compare(old, new, compare.Rules((), tables, lines)).errors == {}


@pytest.mark.slow
def test_any_change_of_the_baseline_would_be_found(proof: dict[str, ModuleType]) -> None:
    """Each cell of one row of each output, changed: as many differences as cells."""
    tables = proof["reading"].read(Path(__file__).with_name("baseline.json.xz"))
    none = proof["compare"].Rules(columns=(), tables=(), lines=())
    assert proof["compare"].compare(tables, tables, none).errors == {}
    for name, rows in tables.items():
        if rows and not name.endswith(".txt"):
            row = rows[len(rows) // 2]
            for column in row:
                changed = _changed(column, row[column])
                spoilt = [one if one is not row else row | {column: changed} for one in rows]
                found = proof["compare"].compare({name: rows}, {name: spoilt}, none).errors[name]
                assert len(found) in {1, 2}, (name, column)


def _changed(column: str, cell: str) -> str:
    if column == "geometry":
        return shapely.transform(shapely.from_wkb(bytes.fromhex(cell)), lambda xy: xy * (1 + 1e-7) + 1e-6).wkb_hex
    if column == "coarse":
        return "00" * (len(cell) // 2)
    return f"{cell}x"
