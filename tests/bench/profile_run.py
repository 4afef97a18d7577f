"""Where the processor time of a limner command goes: a table of functions, and stacks for a flame graph.

    python tests/bench/profile_run.py [--stacks FILE] [--top 25] -- run SCENE --model CARD --out DIR

A thread looks at the stacks of all others, and gives each the processor time that its thread has spent since. A
function's row has what it and the libraries that it calls have spent; functions of limner are told apart, and what a
library does in threads of its own, or in other processes, is a row each. `--stacks` writes lines "a;b;c microseconds",
which speedscope.app and flamegraph.pl draw. Linux only.
"""

import argparse
import contextlib
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from limner.pipelines.cli.main import main as command

INTERVAL = 0.003


def spent() -> dict[int, int]:
    """Nanoseconds of processor time of each thread of this process, by its number in the system."""
    found: dict[int, int] = {}
    for path in Path("/proc/self/task").iterdir():
        try:
            found[int(path.name)] = int((path / "schedstat").read_text().split()[0])
        except (OSError, ValueError):
            continue  # it has ended
    return found


def named(frame: FrameType) -> str:
    """A function with its module."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"


def stack(frame: FrameType | None) -> tuple[str, ...]:
    """Functions from the outermost to the innermost."""
    names: list[str] = []
    while frame is not None:
        names.append(named(frame))
        frame = frame.f_back
    return tuple(reversed(names))


def sample(ended: threading.Event, stacks: Counter[tuple[str, ...]]) -> None:
    """Add microseconds of all other threads to their stacks until the event."""
    before = spent()
    while not ended.wait(INTERVAL):
        frames = sys._current_frames()  # noqa: SLF001 - there is no other way
        threads = {thread.native_id: frames.get(thread.ident or 0) for thread in threading.enumerate()}
        now = spent()
        for number, nanoseconds in now.items():
            used = (nanoseconds - before.get(number, 0)) // 1000
            if used > 0 and number != threading.get_native_id():
                stacks[stack(threads.get(number)) or ("threads of libraries",)] += used
        before = now


def owner(functions: tuple[str, ...]) -> str:
    """The innermost function of limner in a stack, with the innermost of all."""
    if any(name.startswith("importlib._bootstrap") for name in functions):
        return "imports"
    own = next((name for name in reversed(functions) if name.startswith("limner.")), functions[0])
    return f"`{own}`" if own == functions[-1] else f"`{own}` → `{functions[-1]}`"


def table(stacks: Counter[tuple[str, ...]], children: float, top: int) -> list[str]:
    """Lines of Markdown."""
    rows: Counter[str] = Counter()
    for functions, microseconds in stacks.items():
        rows[owner(functions)] += microseconds
    rows["other processes"] += int(children * 1e6)
    total = max(1, rows.total())
    lines = ["| CPU, s | share | function |", "| --- | --- | --- |"]
    for name, microseconds in rows.most_common(top):
        lines.append(f"| {microseconds / 1e6:.2f} | {microseconds / total:.0%} | {name} |")
    return [*lines, f"| {total / 1e6:.2f} | 100% | all |"]


def profile(run: Callable[[], object]) -> tuple[Counter[tuple[str, ...]], float]:
    """Microseconds by stack while something runs, and CPU seconds of other processes."""
    stacks: Counter[tuple[str, ...]] = Counter()
    ended = threading.Event()
    watcher = threading.Thread(target=sample, args=(ended, stacks), daemon=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.setswitchinterval(INTERVAL / 10)  # else a function that gives up the lock has the time of those before it
    watcher.start()
    with contextlib.suppress(SystemExit):
        run()
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return stacks, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--stacks", type=Path)
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    sys.argv[1:] = asked.words
    stacks, children = profile(command)
    sys.stdout.write("\n".join(table(stacks, children, asked.top)) + "\n")
    if asked.stacks:
        lines = [f"{';'.join(functions)} {microseconds}" for functions, microseconds in sorted(stacks.items())]
        asked.stacks.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
