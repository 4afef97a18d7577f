"""limner annotates images too large to look at: satellite scenes, pathology slides, radiology studies.

    import limner
    run = limner.run("scene.tif", model="csmask", out="runs/a")
    run.findings

Everything here loads when it is first used, so that `import limner` is quick.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

__path__ = extend_path(__path__, __name__)  # in a checkout this folder is found before the installed packages

if TYPE_CHECKING:
    from limner.pipelines.api import annotate, open, plan, run, scan  # noqa: A004 - `limner.open`, as PIL has it
    from limner.pipelines.run_result import Run

    __version__: str

__all__ = ["Run", "__version__", "annotate", "open", "plan", "run", "scan"]


def __getattr__(name: str) -> object:
    """Load a name of the interface when it is first used."""
    if name not in __all__:
        msg = f"module 'limner' has no attribute {name!r}"
        raise AttributeError(msg)
    if name == "__version__":
        from importlib.metadata import version

        return version("limner")
    from limner.pipelines import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """The names of the interface, for completion."""
    return __all__
