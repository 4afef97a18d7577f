"""Fuzz limner with slightly damaged files: only its own errors may result.

    python tests/fuzz/fuzz.py --seed 1 --inputs 20000 --jobs 2 --out runs/fuzz

Each input is a small valid file or folder with one to four changes, which follow from the seed and the input's number
alone: `--only NUMBER` makes one again. A reused process runs a user's commands on it (see `worker.py`).
Counted are those that end well or with an error of limner's own ("fine", "refused"), and those that must not be:
"foreign" (another exception), "slow" (a step of over 30 s of processor time, or 120 s by the clock, twice), "memory"
(over 1.5 GB more than before), "died" (the process did), "wrote" (a file where nothing was to be written). Exit code 1
where there is any of these. What was found lies in `--out`: a folder for each different mistake with the input and what
was said.
"""

import argparse
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import changes
import seeds

SECONDS, BYTES = 30, 1536 * 2**20
WEIGHTS = {"maps": 34, "slides": 24, "studies": 18, "models": 8, "runs": 9, "config": 7}
BAD = ("foreign", "slow", "memory", "died", "wrote")
REUSED = 400
PLACE = b"@FUZZ@"
"""Stands for an input's folder where its files name it."""
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Input:
    """One input: where it comes from, what was changed in it, its files and what is done with them."""

    number: int
    area: str
    name: str
    changed: str
    files: dict[str, bytes]
    steps: list[list[str]]
    placed: bool = False


@dataclass
class Kitchen:
    """Makes seeds, each once and when it is needed, and inputs of them. `folder` is for one seed at a time."""

    seed: int
    areas: list[str]
    folder: Path
    known: dict[str, dict[str, seeds.Seed]] = field(default_factory=seeds.areas)
    made: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    making: threading.Lock = field(default_factory=threading.Lock)

    def files(self, area: str, name: str) -> dict[str, bytes]:
        """The files of a seed by path; folders that hold none are left out."""
        with self.making:
            if (area, name) not in self.made:
                self.folder.mkdir(parents=True)
                self.known[area][name].make(self.folder)
                found = sorted(path for path in self.folder.rglob("*") if path.is_file())
                self.made[area, name] = {
                    path.relative_to(self.folder).as_posix(): path.read_bytes().replace(bytes(self.folder), PLACE)
                    for path in found
                }
                shutil.rmtree(self.folder)
            return self.made[area, name]

    def unchanged(self) -> list[Input]:
        """Every seed as it is: each must end well, or what is changed is no longer what it was meant to be."""
        names = [(area, name) for area in self.areas for name in self.known[area]]
        return [
            Input(number, area, name, "", self.files(area, name), [list(words) for words in seed.steps], seed.placed)
            for number, (area, name) in enumerate(names)
            for seed in [self.known[area][name]]
        ]

    def make(self, number: int) -> Input:
        """The input of that number."""
        drawn = random.Random(f"{self.seed}:{number}")  # noqa: S311 - nothing is secret
        area = drawn.choices(self.areas, [WEIGHTS[area] for area in self.areas])[0]
        name = drawn.choice(list(self.known[area]))
        seed = self.known[area][name]
        files = dict(self.files(area, name))
        open_to_change = [path for path in files if not path.startswith(seed.kept)] if seed.kept else list(files)
        # small files decide more than large ones: settings and headers beside weights and pixels
        path = drawn.choice(open_to_change)
        files[path] = changes.change(drawn, path, old := files[path])
        if drawn.random() < 0.7:  # whoever changes a file can also state its new sum
            before, after = (hashlib.sha256(content).hexdigest().encode() for content in (old, files[path]))
            files = {other: text.replace(before, after) if len(text) < 2**20 else text for other, text in files.items()}
        steps = [list(words) for words in seed.steps]
        if area in {"maps", "slides", "studies"} and drawn.random() < 0.9:
            steps = steps[:-1]
        return Input(number, area, name, path, files, steps, seed.placed)


class Worker:
    """A process that tries inputs, watched: it is ended when one takes too long or too much."""

    def __init__(self, out: Path) -> None:
        self._environment = os.environ | {
            "HOME": str(out), "LIMNER_CACHE": str(out / "cache"), "LIMNER_PSEUDONYM_KEY": "0123456789abcdef" * 2,
            "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        self._log = (out / "worker.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._tried = 0

    def attempt(self, folder: Path, steps: list[list[str]]) -> dict[str, Any]:
        """What became of an input: how its worst step ended, after which there is none."""
        before, _ = self._used(self._started().pid)
        whole: dict[str, Any] = {"outcome": "fine", "signature": "", "told": "", "peak": 0, "seconds": 0.0, "ends": []}
        for words in steps:
            start = time.monotonic()
            answer = self._step(json.dumps({"folder": str(folder), "step": words}), before)
            whole["ends"].append(answer["end"])
            whole["peak"] = max(whole["peak"], answer["peak"])
            whole["seconds"] += time.monotonic() - start
            if answer["end"] in BAD or (answer["end"] == "refused" and whole["outcome"] == "fine"):
                whole |= {"outcome": answer["end"], "signature": answer["signature"], "told": answer["told"]}
            if answer["end"] in BAD:
                break
        self._tried += 1
        if whole["outcome"] in BAD or self._tried >= REUSED:
            self.close()  # a mistake may have left something behind that the next input would suffer from
        return whole

    def _step(self, line: str, before: int) -> dict[str, Any]:
        process, start, most, text = self._started(), time.monotonic(), 0, b""
        _, seconds = self._used(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line.encode() + b"\n")
            while not text.endswith(b"\n"):
                if select.select([process.stdout], [], [], 0.1)[0]:
                    part = os.read(process.stdout.fileno(), 2**16)
                    text += part
                    if part:
                        continue
                    return self._died(most)
                held, worked = self._used(process.pid)
                most, took = max(most, held - before), time.monotonic() - start
                if most > BYTES or worked - seconds > SECONDS or took > 4 * SECONDS:
                    end = "memory" if most > BYTES else "slow"
                    output = f"ended after {took:.1f} s, {worked - seconds:.1f} s of them of processor time"
                    return {"end": end, "told": output, "signature": end, "peak": most}
        except BrokenPipeError:
            return self._died(most)
        answer: dict[str, Any] = json.loads(text)
        answer["peak"] = max(answer["peak"], most)
        return answer | ({"end": "memory"} if answer["peak"] > BYTES else {})

    def _died(self, most: int) -> dict[str, Any]:
        output = f"it ended with {self._process.wait()}" if self._process else ""
        return {"end": "died", "told": output, "signature": "died", "peak": most}

    def close(self) -> None:
        """End the process and what it started."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._log, env=self._environment, start_new_session=True, bufsize=0,
            )  # fmt: skip
            self._tried = 0
            assert self._process.stdout is not None
            self._process.stdout.readline()
        return self._process

    def _used(self, pid: int) -> tuple[int, float]:
        """Bytes of resident memory and seconds of processor time of a process and all that it started."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            return 0, 0.0
        below = [self._used(int(child)) for child in children]
        held = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") + sum(one for one, _ in below)
        # user and system time, its own and that of children that have ended
        ticks = sum(int(field) for field in fields[11:15])
        return held, ticks / os.sysconf("SC_CLK_TCK") + sum(one for _, one in below)


@dataclass
class Fuzz:
    """A round: the inputs' numbers, what became of each, and the mistakes that were found."""

    kitchen: Kitchen
    out: Path
    keep: bool
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[int]] = field(default_factory=dict)
    counting: threading.Lock = field(default_factory=threading.Lock)
    placing: threading.Lock = field(default_factory=threading.Lock)
    heaviest: tuple[int, int] = (0, 0)
    slowest: tuple[float, int] = (0.0, 0)

    def work(self, numbers: Iterator[int]) -> None:
        """Try inputs until there are none left, in a process of one's own."""
        worker = Worker(self.out)
        try:
            while True:
                with self.counting:
                    number = next(numbers, None)
                if number is None:
                    break
                self.one(worker, self.kitchen.make(number))
        finally:
            worker.close()

    def one(self, worker: Worker, made: Input) -> dict[str, Any]:
        """Try one input."""
        if made.placed:
            with self.placing, self.kitchen.making:
                answer = self._twice(worker, made, self.kitchen.folder)
        else:
            folder = Path(tempfile.mkdtemp(prefix=f"{made.number}-", dir=self.out))
            answer = self._twice(worker, made, folder)
        self._count(made, answer)
        return answer

    def _twice(self, worker: Worker, made: Input, folder: Path) -> dict[str, Any]:
        """Try an input, and again where it was slow: once may be the machine."""
        answer: dict[str, Any] = {"outcome": "slow"}
        for _ in range(2):
            if answer["outcome"] == "slow":
                write(made, folder)
                answer = worker.attempt(folder, made.steps)
                shutil.rmtree(folder, ignore_errors=True)
        return answer

    def _count(self, made: Input, answer: dict[str, Any]) -> None:
        with self.counting:
            outcome = answer["outcome"]
            self.counts[made.area, outcome] += 1
            self.seconds[made.area] += answer["seconds"]
            self.heaviest = max(self.heaviest, (answer["peak"], made.number))
            self.slowest = max(self.slowest, (answer["seconds"], made.number))
            if outcome not in BAD and not self.keep:
                return
            kind = f"{outcome}: {answer['signature']}"
            if outcome in {"slow", "memory", "died"}:  # no traceback: told apart by what was changed
                kind = f"{kind} ({made.area}, {made.name}, {Path(made.changed).suffix})"
            numbers = self.found.setdefault(kind, [])
            numbers.append(made.number)
            if len(numbers) == 1:
                report(made, answer, kind, self.out / made.area / f"{made.number}", self.kitchen)
                print(f"{made.area} {made.number} ({made.name}, {made.changed}): {kind}", flush=True)  # noqa: T201

    def table(self) -> str:
        """How many of each area ended how."""
        heads = ("fine", "refused", *BAD)
        lines = [f"{'area':<9}{'inputs':>8}" + "".join(f"{head:>9}" for head in heads) + f"{'inputs/s':>10}"]
        for area in (*self.kitchen.areas, "all"):
            row = [
                sum(n for (a, end), n in self.counts.items() if end == head and area in {a, "all"}) for head in heads
            ]
            spent = sum(self.seconds.values()) if area == "all" else self.seconds[area]
            speed = sum(row) / spent if spent else 0.0
            lines.append(f"{area:<9}{sum(row):>8}" + "".join(f"{number:>9}" for number in row) + f"{speed:>10.1f}")
        lines.append(f"most memory: {self.heaviest[0] / 2**20:.0f} MB more (input {self.heaviest[1]})")
        lines.append(f"longest: {self.slowest[0]:.1f} s (input {self.slowest[1]})")
        return "\n".join(lines)


def write(made: Input, folder: Path) -> None:
    """Write an input's files."""
    for path, content in made.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.replace(PLACE, bytes(folder)))


def report(made: Input, answer: dict[str, Any], kind: str, folder: Path, of: Kitchen) -> None:
    """Keep an input with its output."""
    shutil.rmtree(folder, ignore_errors=True)
    write(made, folder / "input")
    steps = "\n".join(" ".join(words) for words in made.steps)
    again = f"python tests/fuzz/fuzz.py --seed {of.seed} --area {','.join(of.areas)} --only {made.number}"
    text = f"{kind}\n\nseed {made.name!r}, changed: {made.changed}\nin the folder `input`:\n{steps}\n\n{again}\n\n"
    text += f"{answer['ends']}\n{answer['told']}"
    (folder / "found.txt").write_text(text, encoding="utf-8", errors="replace")


def unchanged(fuzz: Fuzz) -> int:
    """Try the seeds as they are, and name those that do not end well."""
    worker = Worker(fuzz.out)
    for made in fuzz.kitchen.unchanged():
        answer = fuzz.one(worker, made)
        if answer["outcome"] != "fine":
            print(f"{made.area}, {made.name}: {answer['outcome']}: {answer['told']}")  # noqa: T201 - a script
    worker.close()
    print(fuzz.table())  # noqa: T201 - the same
    return int(any(outcome != "fine" for _, outcome in fuzz.counts))


def main() -> int:
    """Run a round and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=20000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, help="make and try the input of this number, and keep it")
    parser.add_argument("--unchanged", action="store_true", help="only try whether all seeds end well as they are")
    parser.add_argument("--area", default=",".join(WEIGHTS), help="areas with commas; another choice, other inputs")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", default="runs/fuzz", help="folder for what is found")
    asked = parser.parse_args()
    out = Path(asked.out).resolve()
    shutil.rmtree(out / "input", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    fuzz = Fuzz(Kitchen(asked.seed, asked.area.split(","), out / "input"), out, keep=asked.only is not None)
    if asked.unchanged:
        return unchanged(fuzz)
    numbers = iter([asked.only] if fuzz.keep else range(asked.first, asked.first + asked.inputs))
    with ThreadPoolExecutor(jobs := 1 if fuzz.keep else asked.jobs) as pool:
        for done in [pool.submit(fuzz.work, numbers) for _ in range(jobs)]:
            done.result()
    table = fuzz.table()
    ordered = sorted(fuzz.found.items(), key=lambda item: -len(item[1]))
    kinds = "\n".join(f"{len(found)} × {kind}: {', '.join(map(str, found[:5]))}" for kind, found in ordered)
    (out / "table.txt").write_text(f"{table}\n\n{kinds}\n", encoding="utf-8")
    print(table, kinds, sep="\n\n")  # noqa: T201 - a script
    return int(any(end in BAD for _, end in fuzz.counts))


if __name__ == "__main__":
    sys.exit(main())
