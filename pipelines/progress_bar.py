"""The progress bar on a terminal."""

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text


def make_bar(file: TextIO) -> Progress | None:
    """A bar whose tasks show the share that is done, or regions and their speed; None where rich draws none."""
    console = Console(file=file, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), _Completed(), _Speed())
    return Progress(*columns, console=console, transient=True) if console.is_terminal else None


class _Completed(MofNCompleteColumn):
    """The number of regions, or the share of what is planned."""

    def render(self, task: Task) -> Text:
        """See `MofNCompleteColumn`."""
        return Text(f"{task.percentage:.0f} %") if task.fields.get("share") else super().render(task)


class _Speed(ProgressColumn):
    """How fast regions are done, and what is left; steps of planning and reports are too different for that."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        """The text, empty for other tasks."""
        return Text(task.fields["speed"]() if "speed" in task.fields else "")
