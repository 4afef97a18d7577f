"""Mutations of a module's source, except for those that no test can notice because they are the same program."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}

Change = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """A changed module. `before` and `after` are the first line that differs, as Python would write it."""

    line: int
    before: str
    after: str
    tree: ast.Module


def count(source: str) -> int:
    """How many mutants a module has."""
    return sum(1 for _ in _changes(ast.parse(source)))


def mutant(source: str, number: int) -> Mutant:
    """One mutant of a module, by its number in the order of the source. It differs in one expression."""
    tree = ast.parse(source)
    before = ast.unparse(tree).splitlines()
    node, change = next(pair for i, pair in enumerate(_changes(tree)) if i == number)
    change()
    ast.fix_missing_locations(tree)
    after = ast.unparse(tree).splitlines()
    one, two = next(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
    return Mutant(getattr(node, "lineno", 0), one.strip(), two.strip(), tree)


def _changes(tree: ast.Module) -> Iterator[tuple[ast.AST, Change]]:
    pending: list[ast.AST] = [tree]
    halves: list[ast.AST] = []
    while pending:
        node = pending.pop()
        halves += _half_periods(node)
        if all(node is not one for one in halves):
            yield from ((node, change) for change in _changes_of(node))
        pending.extend(reversed(list(_children(node))))


def _half_periods(node: ast.AST) -> Iterator[ast.AST]:
    """The sum of (x + 180) % 360, which is (x - 180) % 360 as well."""
    match node:
        case ast.BinOp(
            ast.BinOp(_, ast.Add() | ast.Sub(), ast.Constant(float(half))) as moved, ast.Mod(), ast.Constant(full)
        ) if full == 2 * half:
            yield moved
        case _:
            pass


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What may change within a node: no annotation, import, decorator, or words of an error."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: a guard that nothing can set off
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.If) and "'win32'" in ast.unparse(node.test):  # what does not run here
        yield from node.orelse
        return
    skipped: list[object] = [getattr(node, name, None) for name in ("annotation", "returns")]
    skipped += getattr(node, "decorator_list", [])
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"cast", "TypeVar"}:
        skipped += [*node.args[:1], *node.keywords]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("reshape"):  # any negative length is worked out
        skipped += [one for one in node.args if ast.unparse(one) == "-1"]
    yield from (child for child in ast.iter_child_nodes(node) if all(child is not one for one in skipped))


def _changes_of(node: ast.AST) -> Iterator[Change]:  # noqa: C901 - a table by kinds
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                yield lambda i=i, operator=operator: node.ops.__setitem__(i, _COMPARED[type(operator)]())
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            yield lambda: setattr(node, "op", _COMPUTED[type(op)]())
        case ast.BoolOp(op=op):
            yield lambda: setattr(node, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=op, operand=operand):
            yield lambda: setattr(node, "operand", ast.UnaryOp(op, operand))  # twice is as good as not at all
        case ast.IfExp(body=body, orelse=orelse) if ast.dump(body) != ast.dump(orelse):
            yield lambda: node.__init__(node.test, orelse, body)
        case ast.Constant(value=bool(value)):
            yield lambda: setattr(node, "value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield lambda: setattr(node, "value", value + 1)
        case ast.Name(id=name) if name in _CALLED:
            yield lambda: setattr(node, "id", _CALLED[name])
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield lambda: setattr(node, "value", ast.Constant(None))
        case _:
            pass
