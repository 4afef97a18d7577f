"""Checks the options of a run before any input is read; imports only what was given options."""

from typing import Final

from ...readers.registry import check_options as check_reader_options
from ..config import Settings
from .scanning import reader_options

_OF_MODELS: Final = ("model", "model_options", "labels", "ask", "answer", "schema_file", "enlarge")


def check_options(settings: Settings) -> None:
    """Raise `RequestError` for an unknown or invalid option of a reader, the model or a writer. Reads no input."""
    check_reader_options(reader_options(settings), settings.reader or None)
    if settings.reports or settings.report_options:
        from .reporting import load_writers

        load_writers(settings.reports, settings.report_options)
    if any(getattr(settings, name) for name in _OF_MODELS):
        from .model_selection import choose_annotator

        choice = choose_annotator(settings, [])
        if choice is not None:
            choice.make()
