"""Reviews joined: what agrees, conflicts, preferences, agreement figures, and that nothing is lost."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.pipelines.review.actions import Action, Verb, parse_action
from limner.pipelines.review.decisions import Decision, Decisions, Event
from limner.pipelines.review.joint import JointReview, find_reviews, join, read_joint, write_merged
from limner.pipelines.review.review import Review
from limner.readers.errors import LimnerError, RequestError
from limner.reports.writer import Record

KEYS = tuple(f"a/{number}" for number in range(1, 5))
LABELS = dict(zip(KEYS, ("land", "land", "water", "water"), strict=True))
SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0), (0.0, 0.0))


def event(number: int, by: str, action: Action | Any, target: int = 0, at: int = 0) -> Event:
    """An event at a second of a day."""
    when = f"2026-12-01T00:{at // 60:02}:{at % 60:02}Z"
    keys = action.findings if isinstance(action, Action) else ()
    labels = tuple(LABELS.get(key, "") for key in keys)
    return Event(number, when, by, action, target, labels, tuple("0" * 8 if label else "" for label in labels))


def acts(by: str, *actions: Action) -> tuple[Event, ...]:
    """The log of a reviewer who does these."""
    return tuple(event(number, by, action, at=number) for number, action in enumerate(actions, 1))


def on(verb: Verb, *keys: str, label: str = "", text: str = "") -> Action:
    """An action on findings."""
    return Action(verb, keys, label=label, text=text)


def drawn(label: str, shift: float = 0.0) -> Action:
    """A square, moved to the right."""
    return Action("draw", label=label, image="a", rings=(tuple((x + shift, y) for x, y in SQUARE),))


def joined(*logs: Sequence[Event], prefer: tuple[str, ...] = ()) -> JointReview:
    """Logs, joined."""
    return join("run", {log[0].by: log for log in logs}, prefer)


def test_decisions_that_agree_are_joined_and_others_listed() -> None:
    one, two, three, four = KEYS
    anna = acts("anna", on("accept", one, two), on("relabel", three, label="marsh"), on("comment", four, text="hm"))
    ben = acts("ben", on("accept", one), on("reject", two), on("relabel", three, label="marsh"))
    found = joined(anna, ben)
    assert found.decisions[one] == Decision("accepted", "land", "anna, ben", "2026-12-01T00:00:01Z")
    assert (found.decisions[three].label, found.decisions[three].by) == ("marsh", "anna, ben")
    assert (found.decisions[four].outcome, found.decisions[four].comment) == (None, "hm")
    [conflict] = found.conflicts
    assert (conflict.key, conflict.label, conflict.resolved) == (two, "land", "")
    assert {name: one.outcome for name, one in conflict.decisions.items()} == {"anna": "accepted", "ben": "rejected"}
    assert two not in found.decisions
    assert [*found.unresolved] == [two]


def test_a_preference_resolves_conflicts_and_only_these() -> None:
    anna, ben = acts("anna", on("accept", *KEYS[:2])), acts("ben", on("reject", *KEYS[1:]))
    found = joined(anna, ben, prefer=("ben", "anna"))
    assert {key: one.outcome for key, one in found.decisions.items()} == dict(
        zip(KEYS, ["accepted", "rejected", "rejected", "rejected"], strict=True)
    )
    assert ([one.resolved for one in found.conflicts], found.unresolved) == (["ben"], {})


def test_cohens_kappa_of_a_table_worked_by_hand() -> None:
    anna = acts("anna", on("accept", *KEYS[:3]), on("reject", KEYS[3]))
    ben = acts("ben", on("accept", *KEYS[:2]), on("reject", *KEYS[2:]))
    [agreement] = joined(anna, ben).agreements
    # 2 × land by both; anna water, ben rejected; both rejected. By chance: land 2/4 · 2/4, rejected 1/4 · 2/4
    assert (agreement.judged, agreement.agreed, agreement.share) == (4, 3, 0.75)
    assert agreement.kappa == pytest.approx((0.75 - 0.375) / (1 - 0.375))
    [alone] = joined(acts("anna", on("accept", KEYS[0])), acts("ben", on("accept", KEYS[1]))).agreements
    assert (alone.judged, math.isnan(alone.share), math.isnan(alone.kappa)) == (0, True, True)


def test_an_outline_that_two_have_drawn_is_listed() -> None:
    anna, ben = acts("anna", drawn("pond"), drawn("lake", 50)), acts("ben", drawn("pool", 2), drawn("lake", 58))
    found = joined(anna, ben)
    [conflict] = found.conflicts  # 80 of 120 px² are common; of the others 20 of 180
    assert conflict.key == "drawn:anna:1 drawn:ben:1"
    assert len(found.decisions) == 4
    assert [*joined(anna, ben, prefer=("ben",)).decisions] == ["drawn:anna:2", "drawn:ben:1", "drawn:ben:2"]


@pytest.fixture
def two_reviews(reviewed_run: Path, record: Record, tmp_path: Path) -> list[Path]:
    """Reviews by anna and by ben, who disagree on the second finding."""
    [image] = record.images
    keys = [f"{image.info.id}/{number}" for number in (1, 2, 3)]
    square = [[5, 5], [15, 5], [15, 15], [5, 15]]
    for name, verb in (("anna", "accept"), ("ben", "reject")):
        with Review.open(reviewed_run, name, tmp_path / "reviews", record=record) as review:
            review.act({"action": "accept", "findings": keys[:1]})
            review.act({"action": verb, "findings": keys[1:2]})
            review.act({"action": "relabel", "findings": keys[2:], "label": '=cmd|"/C calc"!A0'})
            review.act({"action": "draw", "image": image.info.id, "plane": 0, "label": name, "rings": [square]})
            review.undo()
    return [tmp_path / "reviews" / f"{name}.jsonl" for name in ("anna", "ben")]


def test_a_merged_file_holds_every_event_and_joins_the_same(two_reviews: list[Path], tmp_path: Path) -> None:
    joint = read_joint(two_reviews)
    merged = write_merged(joint, tmp_path / "merged.jsonl", private=False)
    assert read_joint([merged]) == joint
    assert read_joint([merged, *reversed(two_reviews)]) == joint  # what is there twice counts once
    lines = [set(path.read_text().splitlines()[1:]) for path in (merged, *two_reviews)]
    assert lines[0] == lines[1] | lines[2]
    assert write_merged(read_joint([two_reviews[1], merged]), tmp_path / "again.jsonl", private=False).read_bytes() == (
        merged.read_bytes()
    )


def test_merge_on_the_command_line(
    limner: Callable[..., Any], two_reviews: list[Path], reviewed_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged.jsonl"
    done = limner("review", "merge", *two_reviews, "--out", out)
    assert (done.code, out.exists()) == (0, True)
    assert "3 findings judged by both; they agree on 66.7 %" in done.out.replace("66.7%", "66.7 %")
    table = (tmp_path / "merged-conflicts.csv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "image,finding,label,outcome.anna,label.anna,at.anna,outcome.ben,label.ben,at.ben,holds"
    assert [line.split(",")[:2] for line in table[1:]] == [["scene", "2"]]
    assert limner("review", "merge", *two_reviews, "--out", out).code == 2  # which replaces nothing
    assert limner("review", "merge", *two_reviews, "--out", reviewed_run / "merged.jsonl").code == 2
    preferred = limner("review", "merge", *two_reviews, "--prefer", "ben", "--out", tmp_path / "ben.jsonl")
    assert (preferred.code, read_joint([tmp_path / "ben.jsonl"]).unresolved) == (0, {})
    two_reviews[1].write_bytes(two_reviews[1].read_bytes() + b'{"event":6')
    torn = limner("review", "merge", *two_reviews, "--out", tmp_path / "torn.jsonl")
    assert (torn.code, "last line was not complete" in torn.err) == (0, True)
    unknown = limner("review", "merge", *two_reviews, "--prefer", "bem", "--out", tmp_path / "x.jsonl")
    assert (unknown.code, "Did you mean 'ben'?" in unknown.err) == (2, True)


def test_reviews_that_cannot_be_joined_are_refused(
    two_reviews: list[Path], record: Record, reviewed_run: Path, tmp_path: Path
) -> None:
    other = replace(record, run="another")
    with Review.open(reviewed_run, "carol", tmp_path / "others", record=other) as review:
        review.act({"action": "accept", "findings": ["scene/1"]})
    with Review.open(reviewed_run, "anna", tmp_path / "others", record=record) as review:
        review.act({"action": "reject", "findings": ["scene/1"]})
    with pytest.raises(RequestError, match="must be of the same run"):
        read_joint([*two_reviews, tmp_path / "others" / "carol.jsonl"])
    with pytest.raises(RequestError, match="must be a review of this run"):
        read_joint(two_reviews, record=other)
    with pytest.raises(RequestError, match="must go on where the other review of anna ends"):
        read_joint([*two_reviews, tmp_path / "others" / "anna.jsonl"])
    with pytest.raises(RequestError, match="Did you mean 'anna'"):
        find_reviews(reviewed_run, ["ana"], tmp_path / "reviews")
    with pytest.raises(RequestError, match="must have reviews"):
        find_reviews(tmp_path / "elsewhere")


ACTIONS = st.one_of(
    st.builds(
        Action,
        st.sampled_from(["accept", "reject", "clear"]),
        st.lists(st.sampled_from(KEYS), min_size=1, unique=True).map(tuple),
    ),
    st.builds(lambda key, label: on("relabel", key, label=label), st.sampled_from(KEYS), st.sampled_from("xy")),
    st.builds(lambda key, text: on("comment", key, text=text), st.sampled_from(KEYS), st.sampled_from(["", "?"])),
    st.builds(drawn, st.sampled_from("xy"), st.sampled_from([0.0, 3.0, 40.0])),
    st.sampled_from(["undo", "redo"]),
)
LOGS = st.lists(ACTIONS, max_size=12)


def log_of(by: str, steps: Sequence[Any]) -> tuple[tuple[Event, ...], Decisions, list[dict[str, Decision]]]:
    """The events of these steps as `Review` makes them, what they amount to, and that after each."""
    state, states = Decisions(), [{}]
    for at, step in enumerate(steps):
        source = state.done if step == "undo" else state.undone
        if isinstance(step, Action):
            state.apply(event(len(state.events) + 1, by, step, at=at))
        elif source:
            state.apply(event(len(state.events) + 1, by, step, source[-1].number, at=at))
        states.append(dict(state.items()))
    return tuple(state.events), state, states


@settings(derandomize=True, deadline=None)
@given(LOGS)
def test_undo_takes_back_exactly_one_action_and_redo_gives_it_again(steps: list[Any]) -> None:
    _, state, _ = log_of("anna", steps)
    before, done = dict(state.items()), len(state.done)
    history = [before]
    for _ in range(done):
        state.apply(event(len(state.events) + 1, "anna", "undo", state.done[-1].number))
        history.append(dict(state.items()))
    assert history[-1] == {}
    for expected in reversed(history[:-1]):
        state.apply(event(len(state.events) + 1, "anna", "redo", state.undone[-1].number))
        assert dict(state.items()) == expected


@settings(derandomize=True, deadline=None)
@given(LOGS)
def test_what_was_undone_never_was(steps: list[Any]) -> None:
    events, state, _ = log_of("anna", steps)
    fresh = Decisions()
    holding = {one.number: one for one in state.done}
    for number, one in enumerate((holding[number] for number in sorted(holding)), 1):
        fresh.apply(replace(one, number=number))
    if not any(
        isinstance(one.action, Action) and one.action.verb == "draw" for one in events
    ):  # whose ids hold numbers
        assert dict(fresh.items()) == dict(state.items())
    assert len(fresh) == len(state)


@settings(derandomize=True, deadline=None)
@given(LOGS, LOGS, LOGS)
def test_the_order_of_reviews_does_not_matter_and_nothing_is_lost(
    one: list[Any], two: list[Any], three: list[Any]
) -> None:
    steps = (one, two, three)
    logs = {name: log_of(name, several) for name, several in zip(("anna", "ben", "carol"), steps, strict=True)}
    events = {name: log[0] for name, log in logs.items() if log[0]}
    found = join("run", events)
    back = join("run", dict(reversed(events.items())))
    assert ({*found.decisions}, {*found.unresolved}) == ({*back.decisions}, {*back.unresolved})
    assert found.events == events
    taken: Mapping[str, set[Any]] = {}
    for _, state, _ in logs.values():
        for key, decision in state.items():
            if decision.outcome:
                taken = {**taken, key: taken.get(key, set()) | {(decision.outcome, decision.label)}}
    for key, answers in taken.items():
        holds = found.decisions.get(key)
        if len(answers) == 1:
            assert holds is not None
            assert {(holds.outcome, holds.label)} == answers
        else:
            assert key in found.unresolved
            assert holds is None or holds.outcome is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VERBS = st.sampled_from(["accept", "relabel", "draw", "delete", "comment", "undo"])
PARTS = st.dictionaries(st.sampled_from(["findings", "label", "text", "image", "plane", "rings"]), JSON, max_size=6)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.one_of(VERBS, JSON), PARTS)
def test_any_json_is_an_action_or_refused(verb: Any, parts: dict[str, Any]) -> None:
    try:
        action = parse_action({"action": verb, **parts})
    except RequestError:
        return
    assert parse_action(json.loads(json.dumps(action.to_json()))) == action


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = SAMPLE.encode()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["flip", "cut", "double"]))
        if change == "flip":
            content[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del content[at : at + data.draw(st.integers(1, 30))]
        else:
            content[at:at] = content[at : at + 40]
        if not content:
            break
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(content)
    try:
        joint = read_joint([path])
    except LimnerError:
        return
    assert {*joint.decisions} <= {"a/1", "a/2"}


def _sample() -> str:
    from limner.pipelines.review.log import Header, event_line, header_line

    events = acts("anna", on("accept", "a/1"), on("reject", "a/2"))
    return b"".join([header_line(Header("run", ("anna",))), *map(event_line, events)]).decode()


SAMPLE = _sample()
