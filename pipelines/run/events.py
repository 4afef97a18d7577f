"""Progress as events: what a run says of itself while it works. Whoever listens decides how to show it."""

from collections.abc import Callable
from dataclasses import dataclass

from ...model.finding import Status


@dataclass(frozen=True, slots=True)
class Started:
    """The plan stands: `total` regions in `images` images, of which `done` were done by an earlier, cut-off run."""

    images: int
    total: int
    done: int
    folder: str


@dataclass(frozen=True, slots=True)
class RegionDone:
    """A region's outcome is safe on the disk."""

    region: str
    status: Status
    findings: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence for a person: what is going on, or a note that they should read."""

    text: str


Event = Started | RegionDone | Message
Listener = Callable[[Event], None]


def plural(count: int, word: str) -> str:
    """The count with its word: "1 region", "2 regions"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
