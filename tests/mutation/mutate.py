"""Mutation testing: makes 400 small changes to the code, one at a time, and lists those that no test notices.

    PYTHON tests/mutation/mutate.py [--sample 400] [--seed 1] [--only PATTERN] [--minutes 30]

Each mutant is made in memory, in a process of its own that runs the tests of its module: no file is changed. The order
is random, so that those tried before the time is over are a sample too. The exit code is 1 where fewer than 90 % are
killed; some of the survivors are equivalent to the original.
"""

import argparse
import contextlib
import fnmatch
import importlib.abc
import importlib.machinery
import importlib.util
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

import changes

ROOT = Path(__file__).resolve().parents[2]
MIN_KILLED = 0.9
TABLES = (
    *(f"reports/test_{name}.py" for name in ("columns", "tables", "studies", "dataframes")),
    *(
        f"reports/test_contract.py::test_built_in_writers_fulfil_the_contract[{name}-csv]"
        for name in ("findings", "summary", "files", "studies")
    ),
)
CASES: dict[str, Sequence[str]] = {
    "readers/geometry.py": ["readers/test_geometry.py", "readers/raster/test_hostile.py::test_raster_size_is_limited"],
    "readers/geodesy.py": [
        *(f"readers/test_{name}.py" for name in ("geodesy", "stated_crs", "pixels_on")),
        "reports/test_rfc7946.py",
    ],
    "readers/areas.py": ["readers/test_geodesy.py", "readers/test_area_pieces.py"],
    "readers/densify.py": [
        "readers/test_densify.py",
        "readers/test_geodesy.py",
        "reports/test_rfc7946.py",
        "reports/test_geojson.py",
    ],
    "readers/slide/tissue.py": [
        f"readers/slide/test_{name}.py" for name in ("tissue", "tissue_annotation", "tissue_sizes", "padding")
    ],
    "readers/overview.py": [
        "readers/test_overview.py",
        "readers/raster/test_stored_blocks.py",
        "reports/test_overview.py",
        "readers/slide/test_tissue.py",
    ],
    "model/tiling.py": ["model/test_tiling.py"],
    "model/merging.py": ["model/test_merging.py", "model/test_detections.py"],
    "model/class_maps.py": [
        f"model/{name}.py" for name in ("test_class_maps", "test_scores", "segmentation/test_segmenter")
    ],
    "reports/csv_safety.py": ["reports/test_csv_safety.py"],
    "reports/table.py": TABLES,
    "reports/columns.py": TABLES,
    "reports/measures.py": TABLES,
    "reports/patient_geometry.py": [*TABLES, "reports/test_patient_geometry.py", "reports/html/test_key_images.py"],
    "reports/studies.py": TABLES,
    "reports/summary.py": TABLES,
    "reports/dataframes.py": TABLES,
    "reports/dicom/masks.py": ["reports/dicom/test_masks.py"],
    "pipelines/run/run_folder.py": ["pipelines/run/test_run_folder.py", "pipelines/run/test_parts.py"],
}
PRELOADED = ("numpy", "shapely", "rasterio", "pandas", "tifffile", "onnx", "yaml", "pydantic", "pyproj", "hypothesis")


class MutantImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An importer that gives one module the code of a mutant."""

    def __init__(self, path: str, code: CodeType) -> None:
        self.name = "limner." + path.removesuffix(".py").replace("/", ".")
        self.path, self.code = path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of the one module."""
        del path, target
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, ROOT / self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the code."""
        exec(self.code, module.__dict__)  # noqa: S102 - as an import does


def run(path: str, code: CodeType, limit: float, *, slow: bool = False) -> tuple[str, float]:
    """Run the tests of a module with such code: "passed", "failed" or "too slow", and in how many seconds."""
    begun = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        outcome = 70
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            outcome = _test(path, code, "slow" if slow else "not slow")
        os._exit(min(outcome, 70))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        spent = time.monotonic() - begun
        if ended:
            return ("failed" if status else "passed"), spent
        if spent > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too slow", spent
        time.sleep(0.01)


def _test(path: str, code: CodeType, which: str) -> int:
    import pytest
    from hypothesis import Phase, settings

    settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate))  # no shrinking: any failure counts
    settings.load_profile("mutants")
    sys.meta_path.insert(0, MutantImporter(path, code))
    options = ["-x", "-q", "-m", which, "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    options += ["--rootdir", str(ROOT), *(str(ROOT / "tests" / name) for name in CASES[path])]
    ended = pytest.main(options)
    return 0 if ended == pytest.ExitCode.NO_TESTS_COLLECTED else int(ended)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="*", help="modules, such as 'model/*' or readers/geodesy.py")
    parser.add_argument("--minutes", type=float, default=math.inf, help="when to stop")
    asked = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)  # once, before forking
    sources = {
        path: (ROOT / path).read_text(encoding="utf-8") for path in CASES if fnmatch.fnmatchcase(path, asked.only)
    }
    slowest = {path: _seconds(path, source) for path, source in sources.items()}
    every = [(path, number) for path, source in sources.items() for number in range(changes.count(source))]
    chosen = random.Random(asked.seed).sample(every, min(asked.sample, len(every)))  # noqa: S311 - a sample
    print(f"{len(chosen)} of {len(every)} mutants of {len(sources)} modules", flush=True)
    counts = {path: Counter[str]() for path in sources}
    end = time.monotonic() + 60 * asked.minutes
    for done, (path, number) in enumerate(chosen, start=1):
        if time.monotonic() > end:
            break
        mutant = changes.mutant(sources[path], number)
        outcome = _outcome(path, compile(mutant.tree, str(ROOT / path), "exec"), 20 + 5 * slowest[path])
        counts[path][outcome] += 1
        if outcome == "survived":
            text = f"{path}:{mutant.line}\n    - " + "\n    + ".join(_differing(mutant.before, mutant.after))
            print(f"survived ({done} of {len(chosen)}): {text}", flush=True)
    print(f"\n{'tried':>7} {'killed':>7} {'survived':>9}")
    whole = sum(counts.values(), Counter[str]())
    for path, some in (*counts.items(), ("all", whole)):
        print(f"{some.total():7} {some['killed']:7} {some['survived']:9}  {path}")
    counted = whole["killed"] + whole["survived"]
    print(f"\nKilled {whole['killed']} of {counted} ({whole['killed'] / max(counted, 1):.1%})")
    return int(whole["killed"] < MIN_KILLED * counted)


def _outcome(path: str, code: CodeType, limit: float) -> str:
    if run(path, code, limit)[0] == "passed" and run(path, code, 600, slow=True)[0] == "passed":
        return "survived"
    return "killed"


def _differing(before: str, after: str) -> tuple[str, str]:
    """Two lines, shortened to the part around their difference where they are long."""
    differs = (at for at, (one, two) in enumerate(zip(before, after, strict=False)) if one != two)
    start = max(0, next(differs, 0) - 60) if len(before) > 160 else 0
    return before[start : start + 160], after[start : start + 160]


def _seconds(path: str, source: str) -> float:
    """How long the tests of the unchanged module take. Exits where they fail."""
    outcome, spent = run(path, compile(source, str(ROOT / path), "exec"), 600)
    if outcome != "passed":
        sys.exit(f"The tests of {path} fail without a change")
    print(f"{path}: its tests take {spent:.1f} s", flush=True)
    return spent


if __name__ == "__main__":
    sys.exit(main())
