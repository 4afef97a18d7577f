"""Proof that nothing broke: makes every output of one version of limner, and compares it with another's by meaning.

    PYTHON tests/proof/proof.py make FOLDER     with the environment of the limner to be measured
    PYTHON tests/proof/proof.py compare OLD NEW
    PYTHON tests/proof/proof.py keep FOLDER     what of FOLDER's tables is worth keeping, as baseline.json.xz

OLD and NEW are folders of `make`, or the file of `keep`. Differences that are meant stand in `meant.py`; any other
makes the exit code 1. `make --quick` leaves out what needs weights from a package index.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import compare
import inputs
import reading
import runs

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef0123456789abcdef"
PROGRAM = "import sys; from limner.pipelines.cli.main import main; sys.argv[0] = 'limner'; main()"


def make(folder: Path, *, new: bool, quick: bool, only: str) -> int:
    """Run every command of a side in `folder`, a new one or one that was cut off. The exit code."""
    if not (folder / "inputs").is_dir():
        inputs.make_inputs(folder / "inputs", ROOT / "notebooks" / "samples")
    environment = {**os.environ, "LIMNER_PSEUDONYM_KEY": KEY, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    failed: list[str] = []
    for name, words in runs.commands(new=new).items():
        if (quick and name in runs.FETCHED) or (only and only != name):
            continue
        target = folder / f"{name}.txt"
        if target.exists() and not only:
            continue
        shutil.rmtree(folder / name, ignore_errors=True)
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(f"{name}: exit code {done.returncode}, {time.monotonic() - begun:.0f} s", flush=True)
        if done.returncode > 1:  # 1 is for a run that leaves a file out, which is an outcome like others
            failed.append(name)
            print(done.stderr)
        else:
            target.write_text(f"exit code {done.returncode}\n{done.stdout}", encoding="utf-8")
    print("Failed: " + ", ".join(failed) if failed else f"All outputs lie in {folder}")
    return bool(failed)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--old", action="store_true", help="speak as the older side does: see runs.py")
    making.add_argument("--quick", action="store_true", help="leave out what needs a package index")
    making.add_argument("--only", default="", help="one run or text, again")
    keeping = commands.add_parser("keep")
    keeping.add_argument("folder", type=Path)
    keeping.add_argument("--to", type=Path, default=Path(__file__).with_name("baseline.json.xz"))
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    asked = parser.parse_args()
    if asked.command == "make":
        return make(asked.folder.resolve(), new=not asked.old, quick=asked.quick, only=asked.only)
    if asked.command == "keep":
        tables = reading.read_folder(asked.folder)
        kept = {name: rows for name, rows in tables.items() if compare.run_of(name) not in runs.FETCHED}
        reading.keep(kept, asked.to)
        return 0
    return compare.report(reading.read(asked.old), reading.read(asked.new))


if __name__ == "__main__":
    sys.exit(main())
