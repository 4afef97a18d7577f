"""A process that does with files what a person does, one input after another, and says how each step ended.

It reads lines of JSON {"folder", "step"} and answers each with one line. A step is ["limner", argument, …], the
command line in this process, or ["read", input, …]: whatever it holds is opened and read, whole and in parts.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MISTAKE = 70
"""The exit code of `limner` for an exception that is not its own."""

OURS = re.compile(r"eport this as a (?:bug|mistake) of the (reader|writer)")
"""Where limner went on after an exception that is not its own: a row or a report says so."""

SPARE = 4 * 2**30
"""Bytes of address space beyond what is used before an input: the parent ends a process long before."""


def command_line(arguments: Sequence[str]) -> tuple[str, str]:
    """How `limner` ended, and its output."""
    from limner.pipelines.cli import main as cli

    result, output = io.StringIO(), io.StringIO()
    sys.argv = ["limner", *arguments]
    try:
        with contextlib.redirect_stdout(result), contextlib.redirect_stderr(output):
            cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
        if code == MISTAKE or OURS.search(result.getvalue() + output.getvalue()):
            return "foreign", output.getvalue() + result.getvalue()
        return ("fine" if code == 0 else "refused"), output.getvalue()
    return "foreign", "the command line returned"


def read(inputs: Sequence[str]) -> tuple[str, str]:
    """Read every image of the inputs: the overview, the whole picture small, and windows at several scales."""
    from limner.readers.errors import LimnerError
    from limner.readers.geometry import Box
    from limner.readers.overview import read_overview
    from limner.readers.registry import open_image, scan

    outcome = "fine"
    try:
        infos = [info for row in scan(list(inputs), {}) for info in row.infos]
    except LimnerError:
        return "refused", ""
    for info in infos[:3]:
        width, height = info.size
        windows = [
            (info.box, (16, 16)),
            (Box(0, 0, 32, 32), (32, 32)),
            (Box(width - 20.5, height - 20.5, width + 10, height + 10), (20, 20)),
            (Box(width / 3, height / 3, width / 3 + 60, height / 3 + 60), (20, 20)),
            (Box(3, 5, 11, 13), (16, 16)),
        ]
        try:
            with open_image(info, [channel.name for channel in info.channels[:4]]) as image:
                read_overview(image, limit=64)
                for box, size in windows:
                    try:
                        image.read(box, size)
                    except LimnerError:
                        outcome = "refused"
        except LimnerError:
            outcome = "refused"
    return outcome, ""


def step(words: Sequence[str]) -> tuple[str, str]:
    """How one step ended: "fine", "refused", "memory" or "foreign" with the traceback."""
    try:
        return {"limner": command_line, "read": read}[words[0]](words[1:])
    except MemoryError:
        return "memory", traceback.format_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
        return "foreign", traceback.format_exc()


def signature(trace: str) -> str:
    """What two tracebacks of one mistake share: the exception's kind, and where limner was when it came."""
    places = re.findall(r'File "[^"]*?/((?:readers|model|reports|pipelines)/[^"]+)", line \d+, in (\w+)', trace)
    kind = re.sub(r"[^\w.].*", "", _told_last(trace))
    where = " < ".join(f"{path}:{name}" for path, name in reversed(places[-3:]))
    return f"{kind} {where}" if where else f"{kind} {hashlib.sha256(trace.encode()).hexdigest()[:8]}"


def _told_last(trace: str) -> str:
    """The line of a traceback that names the exception; what the command line says after it is left out."""
    return (trace.partition("\nThis is a bug in limner")[0].strip().splitlines() or [""])[-1]


def attempt(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """How one step of an input ended, with its output or traceback, and its peak memory."""
    words = [word.replace("@", f"{folder}/") for word in words]
    held = resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = set(folder.rglob("*"))
    end, output = step(words)
    made = set(folder.rglob("*")) - before
    if end in {"fine", "refused"} and made and "--out" not in words and words[1] != "report":
        end, output = "wrote", f"wrote {sorted(str(path) for path in made)[:5]}"
    if end == "foreign" and re.search(r"^MemoryError", _told_last(output)):
        end = "memory"
    return {
        "end": end,
        "told": output,
        "signature": signature(output) if end == "foreign" else end,
        "peak": peak() - held,
    }


def resident() -> int:
    """Resident memory of this process in bytes."""
    return _status("VmRSS")


def peak() -> int:
    """The most that it had since the peak was begun anew."""
    return _status("VmHWM")


def _status(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.findall(rf"{name}:\s+(\d+)", status)[0]) * 1024


def limit_address_space() -> None:
    """Let this process have little more than it has."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def remember() -> None:
    """Look up plug-ins and flags once; a process for each command would look them up each time."""
    import typer.main

    importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
    typer.main.get_command = functools.cache(typer.main.get_command)


def serve(lines: Iterator[str]) -> None:
    """Answer every line; the answers go where standard output went, which the inputs do not reach."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    remember()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    for name in (
        "limner.pipelines.cli.main",
        "limner.pipelines.run.execute",
        "limner.readers.registry",
        "rasterio",
        "pyproj",
    ):
        importlib.import_module(name)
    limit_address_space()
    answers.write("ready\n")
    answers.flush()
    for line in lines:
        asked = json.loads(line)
        answers.write(json.dumps(attempt(Path(asked["folder"]), asked["step"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(iter(sys.stdin.readline, ""))
