"""limner annotates images too large to look at: satellite scenes, pathology slides, radiology studies.

    import limner
    run = limner.run("scene.tif", model="csmask", out="runs/a")
    run.findings

Names are loaded when they are first used, so that `import limner` is fast.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

__path__ = extend_path(__path__, __name__)  # in a checkout, this folder shadows the installed package

if TYPE_CHECKING:
    from limner.pipelines.api import annotate, compare, merge, open, plan, run, scan, watch  # noqa: A004 - `limner.open`, as in PIL
    from limner.pipelines.run_result import Run

    __version__: str

__all__ = ["Run", "__version__", "annotate", "compare", "merge", "open", "plan", "run", "scan", "watch"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in __all__:
        msg = f"module 'limner' has no attribute {name!r}"
        raise AttributeError(msg)
    if name == "__version__":
        from importlib.metadata import version

        return version("limner")
    from limner.pipelines import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
