"""Changes to what JSON or YAML text holds."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import yaml

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 65536, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "nan", "x", "x" * 3000, "../../../../etc/passwd", "/dev/zero", "\x1b[31m", "\u202e", "\ud800", [], {}, [[]],
    [None], {"": None}, [0] * 3000,
)  # fmt: skip


def places(tree: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or number) of a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys)[:2000]:
        yield tree, key
        if depth < 12:
            yield from places(tree[key], depth + 1)


def change(random: Random, content: bytes) -> bytes:  # noqa: C901, PLR0912 - a branch for each kind of change
    """The text with one value changed; as it was where it is neither JSON nor YAML."""
    try:
        found, compact = json.loads(content), True
    except (ValueError, RecursionError):
        try:
            found, compact = yaml.safe_load(content), False
        except (ValueError, RecursionError, yaml.YAMLError):
            return content
    deep = random.choice((3, 100, 3000, 100_000))
    if random.random() < 0.02:
        return (b"[" * deep + b"]" * deep) if random.random() < 0.5 else b'{"a":' * deep + b"1" + b"}" * deep
    every = list(places(found))
    if not every:
        return json.dumps(random.choice(VALUES)).encode()
    # a long list of words must not hide the few settings beside it
    shallow = [place for place in every if not isinstance(place[0], list) or len(place[0]) < 40] or every
    holder, key = random.choice(shallow if random.random() < 0.8 else every)
    what = random.randrange(8)
    old = holder[key]
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.insert(key, old)
    elif what == 1 or (what == 2 and isinstance(holder, dict)):
        holder[random.choice(("x", f"{key}s", "", "../a", str(random.choice(every)[1])))] = holder.pop(key)
    elif what == 3:
        other, there = random.choice(every)
        holder[key] = other[there] if not isinstance(other[there], (dict, list)) else random.choice(VALUES)
    elif what == 4 and isinstance(old, (int, float)) and not isinstance(old, bool):
        holder[key] = random.choice((old + 1, old - 1, -old, old * 1000, old * 10**6, old / 3, str(old), [old], 0))
    elif what == 4 and isinstance(old, str):
        holder[key] = random.choice((old + "x", old[:-1], old.upper(), old * 2, [old], "../" + old, "/" + old))
    elif what == 5 and isinstance(old, list):
        holder[key] = random.choice((old * 2, old[:-1], old[::-1], old * 500, *old[:2]))
    elif what == 6:
        holder[key] = [old] if random.random() < 0.5 else {"a": old}
    else:
        holder[key] = random.choice(VALUES)
    if compact:
        return json.dumps(found, ensure_ascii=random.random() < 0.9).encode("utf-8", "surrogatepass")
    try:
        return yaml.safe_dump(found, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return content
