"""What other libraries raise over a stranger's file becomes a `ModelError`. The one place that does so."""

from collections.abc import Generator
from contextlib import contextmanager

from ...readers.errors import LimnerError, ModelError, excerpt

MOST = 300
"""Characters of somebody else's message that are shown."""


@contextmanager
def foreign(
    subject: str, rule: str, *, remedy: str, running: bool = False, kind: type[LimnerError] = ModelError
) -> Generator[None]:
    """Turn every exception that is not ours into one of a `kind` of ours that names its type.

    Rust libraries raise panics, which are no `Exception`: they are caught too. `KeyboardInterrupt`, `SystemExit` and
    errors of ours pass. While a network is `running`, `MemoryError` passes as well, since fewer regions may fit.
    """
    try:
        yield
    except (LimnerError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if running and isinstance(error, MemoryError):
            raise
        raise kind(subject, rule, value=reason(error), remedy=remedy) from error


def reason(error: BaseException) -> str:
    """The type of somebody else's exception and the first two lines of what it says, on one line."""
    said = " ".join(str(error).strip().splitlines()[:2])
    return excerpt(f"{type(error).__name__}: {said}" if said else type(error).__name__, MOST)
