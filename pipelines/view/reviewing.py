"""A reviewer's decisions on the findings of a run, as the page shows and changes them."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..review.actions import is_outline, split_key
from ..review.decisions import Decision
from ..review.review import Change, Review

_HISTORY: Final = 30

Decide = Callable[[str, int, str], None]
"""Notes what was decided: the image's id, the row, the outcome or ""."""


class Reviewing:
    """The decisions of one reviewer. Thread-safe."""

    def __init__(self, review: Review, decide: Decide) -> None:
        self._review, self._decide = review, decide
        self._lock = threading.Lock()
        self._decisions: dict[str, Decision] = {}
        self._note(review.decisions())

    def act(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Take an action, or undo or redo one; returns what it changed. Raises `LimnerError`."""
        with self._lock:
            change = self._change(action)
            if change is None:
                return {"events": [], "decisions": {}}
            self._note(change.decisions)
            return change.to_json()

    def _change(self, action: Mapping[str, Any]) -> Change | None:
        match action.get("action"):
            case "undo":
                return self._review.undo()
            case "redo":
                return self._review.redo()
            case _:
                return self._review.act(action)

    def _note(self, changed: Mapping[str, Decision]) -> None:
        for key, decision in changed.items():
            if decision.outcome or decision.comment:
                self._decisions[key] = decision
            else:
                self._decisions.pop(key, None)
            image, number = ("", 0) if is_outline(key) else split_key(key)
            if number:
                self._decide(image, number - 1, decision.outcome or "")

    def of(self, image: str, row: int) -> dict[str, Any] | None:
        """What was decided of a finding; None where nothing was."""
        found = self._decisions.get(f"{image}/{row + 1}")
        return None if found is None else found.to_json()

    def state(self) -> dict[str, Any]:
        """Who reviews, what was drawn, and what was done last."""
        with self._lock:
            outlines = {key: one.to_json() for key, one in self._decisions.items() if is_outline(key)}
            return {
                "reviewer": self._review.reviewer,
                "drawn": outlines,
                "history": [event.to_json() for event in self._review.history(_HISTORY)],
                "can_undo": self._review.can_undo,
                "can_redo": self._review.can_redo,
                "notices": list(self._review.notices),
            }
