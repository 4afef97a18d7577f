"""What a reviewer's events amount to: a decision for each finding, through undo and redo."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from .actions import Action, Rings, is_outline, outline_key

Outcome = Literal["accepted", "rejected", "relabelled", "drawn"]

_OUTCOMES: Final[dict[str, Outcome]] = {"accept": "accepted", "reject": "rejected", "relabel": "relabelled"}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a review's log."""

    number: int
    """From 1, among the events of its reviewer."""
    at: str
    """The time (UTC, ISO 8601)."""
    by: str
    """The reviewer."""
    action: Action | Literal["undo", "redo"]
    target: int = 0
    """Of undo and redo: the number of the event that was undone or done again."""
    labels: tuple[str, ...] = ()
    """The model's labels of the action's findings; "" for drawn ones."""
    checks: tuple[str, ...] = ()
    """What tells whether a finding is still the one that was reviewed; "" for drawn ones."""

    def to_json(self, most: int | None = 20) -> dict[str, Any]:
        """For a list of what was done, with at most so many of its findings."""
        what = {"action": self.action, "event": self.target} if isinstance(self.action, str) else self.action.to_json()
        keys = () if isinstance(self.action, str) else self.action.findings
        counted = {"findings": keys[:most], "count": len(keys)} if keys else {}
        return {"number": self.number, "at": self.at, "by": self.by, **what, **counted}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a finding."""

    outcome: Outcome | None
    """None where there is only a comment, or a decision was taken back."""
    label: str
    """The label that the finding has by it: of an accepted or rejected one the model's."""
    by: str
    at: str
    """When (UTC, ISO 8601)."""
    comment: str = ""
    image: str = ""
    """Of a drawn one: the image's id, and its plane and outline in level-0 pixels."""
    plane: int = 0
    rings: Rings = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; image, plane and rings of a drawn one only."""
        record: dict[str, Any] = {"outcome": self.outcome, "label": self.label, "by": self.by, "at": self.at}
        if self.comment:
            record["comment"] = self.comment
        if self.rings:
            record |= {"image": self.image, "plane": self.plane, "rings": self.rings}
        return record


_State = tuple[Decision, Any]
"""A decision, and the state before it or None."""


class Decisions:
    """The decisions of one reviewer's events, which are applied in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """All, in order."""
        self.done: list[Event] = []
        """Those that hold, in order: the last one is undone next."""
        self.undone: list[Event] = []
        """Those that were undone since the last action: the last one is done again next."""
        self._states: dict[str, _State] = {}

    def apply(self, event: Event) -> tuple[str, ...]:
        """Apply an event; returns the keys of the findings that it concerns.

        Raises `ValueError` where it undoes an event that is not the last one, or acts on what is not drawn.
        """
        if event.number != len(self.events) + 1:
            msg = f"event {event.number} follows event {len(self.events)}"
            raise ValueError(msg)
        if isinstance(event.action, Action):
            keys = self._act(event, event.action)
            self.done.append(event)
            self.undone.clear()
        else:
            source, target = (self.done, self.undone) if event.action == "undo" else (self.undone, self.done)
            if not source or source[-1].number != event.target:
                msg = f"event {event.number} has no event {event.target} to {event.action}"
                raise ValueError(msg)
            subject = source.pop()
            action = subject.action
            assert isinstance(action, Action)  # noqa: S101 - nothing else is put there
            keys = self._take_back(subject, action) if event.action == "undo" else self._act(subject, action)
            target.append(subject)
        self.events.append(event)
        return keys

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: str) -> Decision | None:
        """The decision of a finding; None where there never was one."""
        state = self._states.get(key)
        return None if state is None else state[0]

    def problem(self, action: Action) -> str:
        """Why an action cannot follow, as a phrase; "" where it can."""
        outlines = [key for key in action.findings if is_outline(key)]
        for key in outlines:
            found = self.get(key)
            if found is None or found.outcome != "drawn":
                return f"{key} is not drawn, or deleted"
        if outlines and action.verb not in {"relabel", "comment", "delete"}:
            return f"{outlines[0]} was drawn, so that there is nothing to {action.verb}"
        if action.verb == "delete" and len(outlines) < len(action.findings):
            return "findings of the run are rejected, not deleted"
        return ""

    def items(self) -> Iterator[tuple[str, Decision]]:
        """(key, decision) of all findings with an outcome or a comment."""
        for key, (decision, _) in self._states.items():
            if decision.outcome or decision.comment:
                yield key, decision

    def _act(self, event: Event, action: Action) -> tuple[str, ...]:
        if problem := self.problem(action):
            msg = f"event {event.number}: {problem}"
            raise ValueError(msg)
        keys = action.findings or (outline_key(event.by, event.number),)
        shared: dict[str, Decision] = {}  # equal decisions are one object
        for key, was in zip(keys, event.labels or ("",) * len(keys), strict=True):
            before = self._states.get(key)
            old = before[0] if before else None
            if old is None and was in shared:
                decision = shared[was]
            else:
                decision = _decide(event, action, was, old)
                if old is None:
                    shared[was] = decision
            self._states[key] = (decision, before)
        return keys

    def _take_back(self, event: Event, action: Action) -> tuple[str, ...]:
        keys = action.findings or (outline_key(event.by, event.number),)
        for key in keys:
            before = self._states[key][1]
            if before is None:
                del self._states[key]
            else:
                self._states[key] = before
        return keys


def _decide(event: Event, action: Action, was: str, old: Decision | None) -> Decision:
    """The decision of a finding that the model labelled `was`, after an old decision."""
    if action.verb == "draw":
        made = Decision("drawn", action.label, event.by, event.at)
        return replace(made, image=action.image, plane=action.plane, rings=action.rings)
    if action.verb == "comment":
        return replace(old or Decision(None, was, event.by, event.at), comment=action.text)
    if old is not None and old.rings:
        changes = {"label": action.label} if action.verb == "relabel" else {"outcome": None}
        return replace(old, by=event.by, at=event.at, **changes)
    outcome = _OUTCOMES.get(action.verb)
    if outcome == "relabelled" and action.label == was:
        outcome = "accepted"
    label = action.label if outcome == "relabelled" else was
    return Decision(outcome, label, event.by, event.at, old.comment if old else "")
