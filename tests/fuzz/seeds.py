"""What is changed: small valid inputs of every kind, and what a person does with them.

A seed is made once in a folder of its own, the same bytes each time. `AREAS` names them all.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]
Steps = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Seed:
    """How the files of a seed are made, which are never changed (by how their paths begin), and what is done.

    A "@" in a step is the input's folder. Where the files themselves name it (`placed`) it is the same for all inputs.
    """

    make: Callable[[Path], object]
    steps: Steps
    kept: tuple[str, ...] = ()
    placed: bool = False


def module(name: str) -> ModuleType:
    """A module of the tests' folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def looked_at(*inputs: str, flags: Sequence[str] = ()) -> Steps:
    """The steps for images: info, plan, read, and sometimes a run without a model."""
    paths = [f"@{name}" for name in inputs]
    return [
        ["limner", "info", *paths, *flags],
        ["limner", "plan", *paths, "--model", "none", *flags],
        ["read", *paths],
        ["limner", "run", *paths, "--model", "none", "--out", "@out", "--reports", "summary-csv", *flags],
    ]


def areas() -> dict[str, dict[str, Seed]]:
    """Every area's seeds by name. Imports only what is light."""
    import seeds_maps
    import seeds_models
    import seeds_runs
    import seeds_slides
    import seeds_studies

    return {
        "maps": seeds_maps.MAPS,
        "slides": seeds_slides.SLIDES,
        "studies": seeds_studies.STUDIES,
        "models": seeds_models.MODELS,
        "runs": seeds_runs.RUNS,
        "config": seeds_runs.CONFIG,
    }
