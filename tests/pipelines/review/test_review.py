"""A reviewer's log: actions, undo and redo, restarts, locks, torn lines, and what is refused."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.review.actions import MOST_FINDINGS, MOST_VERTICES
from limner.pipelines.review.review import Change, Review, reviews_folder
from limner.pipelines.run.run_files import StoreError
from limner.readers.errors import RequestError
from limner.reports.writer import Record

SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]


@pytest.fixture
def review(reviewed_run: Path, tmp_path: Path, record: Record) -> Callable[..., Review]:
    """Open a review in a folder of the test's own."""

    def make(reviewer: str = "anna") -> Review:
        return Review.open(reviewed_run, reviewer, tmp_path / "reviews", record=record)

    return make


def keys(record: Record, count: int) -> list[str]:
    """The first findings of the run."""
    image = record.images[0]
    assert len(image.findings()) >= count
    return [f"{image.info.id}/{number}" for number in range(1, count + 1)]


def draw(record: Record, **changes: Any) -> dict[str, Any]:
    """The action of drawing a square."""
    image = record.images[0].info.id
    return {"action": "draw", "image": image, "plane": 0, "label": "pond", "rings": [SQUARE], **changes}


def some(change: Change | None) -> Change:
    """A change, where there was one."""
    assert change is not None
    return change


def test_the_default_folder_lies_beside_the_run(tmp_path: Path) -> None:
    assert reviews_folder(tmp_path / "runs" / "a" / "..") == tmp_path / "runs.reviews"


def test_there_is_no_file_before_the_first_event(review: Callable[..., Review], tmp_path: Path) -> None:
    with review() as opened:
        assert (opened.undo(), opened.redo(), opened.decisions(), opened.history()) == (None, None, {}, [])
    assert not (tmp_path / "reviews").exists()


def test_each_action_is_a_line_and_survives_a_restart(
    review: Callable[..., Review], record: Record, lines: Callable[[Path], list[dict]]
) -> None:
    one, two, three, four = keys(record, 4)
    labels = [finding.label for finding in record.images[0].findings()[:4]]
    with review() as opened:
        opened.act({"action": "accept", "findings": [one, two]})
        opened.act({"action": "reject", "findings": [two]})
        opened.act({"action": "relabel", "findings": [three], "label": "pond"})
        opened.act({"action": "comment", "findings": [three, four], "text": "look again"})
        change = opened.act(draw(record))
        before = dict(opened.decisions())
    assert [before[key].outcome for key in (one, two, three, four)] == ["accepted", "rejected", "relabelled", None]
    assert [before[key].label for key in (one, two, three, four)] == [*labels[:2], "pond", labels[3]]
    assert [before[key].comment for key in (three, four)] == ["look again"] * 2
    [drawn] = change.decisions
    assert drawn == "drawn:anna:5"
    assert before[drawn].rings == ((*((float(x), float(y)) for x, y in SQUARE), (10.0, 10.0)),)
    with review() as again:
        assert again.decisions() == before
        assert [event.number for event in again.history(2)] == [5, 4]
        again.act({"action": "clear", "findings": [one]})
        assert one not in again.decisions()
    header, *events = lines(opened.path)
    assert (header["limner_review"], header["run"], header["reviewer"]) == (1, record.run, "anna")
    assert [event["event"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[0]["labels"] == labels[:2]


def test_undo_and_redo_work_across_restarts(review: Callable[..., Review], record: Record) -> None:
    one, two = keys(record, 2)
    with review() as opened:
        opened.act({"action": "accept", "findings": [one]})
        opened.act({"action": "reject", "findings": [one, two]})
        opened.act(draw(record))
    with review() as opened:
        assert some(opened.undo()).decisions["drawn:anna:3"].outcome is None
        assert {key: one.outcome for key, one in some(opened.undo()).decisions.items()} == {one: "accepted", two: None}
    with review() as opened:
        assert some(opened.redo()).decisions[two].outcome == "rejected"
        assert some(opened.redo()).decisions["drawn:anna:3"].outcome == "drawn"
        assert opened.redo() is None
        opened.undo()
        opened.act({"action": "accept", "findings": [two]})
        assert opened.redo() is None  # since an action followed
        opened.undo()
        opened.undo()
        opened.undo()
        assert (opened.decisions(), opened.undo(), opened.can_undo) == ({}, None, False)
        assert len(opened.history()) == 12


def test_a_change_is_plain_json(review: Callable[..., Review], record: Record) -> None:
    with review() as opened:
        opened.act({"action": "accept", "findings": keys(record, 1)})
        told = json.loads(json.dumps(opened.act(draw(record)).to_json()))
        undone = json.loads(json.dumps(some(opened.undo()).to_json()))
    [decision] = told["decisions"].values()
    assert decision["outcome"] == "drawn"
    assert (decision["label"], decision["by"], decision["plane"]) == ("pond", "anna", 0)
    assert decision["rings"] == [[*SQUARE, SQUARE[0]]]
    assert undone["decisions"]["drawn:anna:2"]["outcome"] is None
    assert undone["events"][0] == {**undone["events"][0], "number": 3, "action": "undo", "event": 2}


def test_a_label_of_the_model_is_accepted(review: Callable[..., Review], record: Record) -> None:
    [key] = keys(record, 1)
    label = record.images[0].findings()[0].label
    with review() as opened:
        opened.act({"action": "relabel", "findings": [key], "label": label})
        assert opened.decisions()[key].outcome == "accepted"


def test_drawn_findings_can_be_relabelled_deleted_and_commented_only(
    review: Callable[..., Review], record: Record
) -> None:
    with review() as opened:
        [key] = opened.act(draw(record)).decisions
        opened.act({"action": "relabel", "findings": [key], "label": "lake"})
        opened.act({"action": "comment", "findings": [key], "text": "deep"})
        decision = opened.decisions()[key]
        assert (decision.outcome, decision.label, decision.comment) == ("drawn", "lake", "deep")
        for action in ("accept", "reject", "clear"):
            with pytest.raises(RequestError, match="was drawn"):
                opened.act({"action": action, "findings": [key]})
        opened.act({"action": "delete", "findings": [key]})
        with pytest.raises(RequestError, match="deleted"):
            opened.act({"action": "relabel", "findings": [key], "label": "pond"})
        assert some(opened.undo()).decisions[key].outcome == "drawn"
        with pytest.raises(RequestError, match="rejected, not deleted"):
            opened.act({"action": "delete", "findings": keys(record, 1)})


LONG = "x" * 201


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"action": "rejct", "findings": ["scene/1"]}, "Did you mean 'reject'"),
        ({"action": 7}, "must be one that limner knows"),
        ({"action": "accept", "findings": ["scene/1"], "force": True}, "no other members"),
        ({"action": "accept"}, "list of keys"),
        ({"action": "accept", "findings": []}, "list of keys"),
        ({"action": "accept", "findings": "scene/1"}, "list of keys"),
        ({"action": "accept", "findings": ["scene/0"]}, "list of keys"),
        ({"action": "accept", "findings": ["scene/01"]}, "list of keys"),
        ({"action": "accept", "findings": [["scene", 1]]}, "list of keys"),
        ({"action": "accept", "findings": ["scene/99999"]}, "must be one of the run"),
        ({"action": "accept", "findings": ["scent/1"]}, "Did you mean 'scene'"),
        ({"action": "accept", "findings": ["scene/1"] * (MOST_FINDINGS + 1)}, "at a time"),
        ({"action": "relabel", "findings": ["scene/1"], "label": " \n "}, "1 to 200"),
        ({"action": "relabel", "findings": ["scene/1"], "label": LONG}, "1 to 200"),
        ({"action": "relabel", "findings": ["scene/1"], "label": "pond\u202e"}, "visible"),
        ({"action": "relabel", "findings": ["scene/1"], "label": "po\u200bnd"}, "visible"),
        ({"action": "relabel", "findings": ["scene/1"], "label": ["pond"]}, "must be a text"),
        ({"action": "comment", "findings": ["scene/1"], "text": None}, "must be a text"),
        ({"action": "delete", "findings": ["drawn:anna:1"]}, "not drawn"),
        ({"action": "draw", "plane": 1}, "must be one of scene's"),
        ({"action": "draw", "plane": True}, "number of a slice"),
        ({"action": "draw", "image": "elsewhere"}, "must be one of the run"),
        ({"action": "draw", "rings": [[[0, 0], [9, 9], [0, 9], [9, 0]]]}, "Self-intersection"),
        ({"action": "draw", "rings": [[[0, 0], [5, 5], [9, 9], [5, 5]]]}, "valid polygon"),
        ({"action": "draw", "rings": [[[0, 0], [151, 0], [9, 9]]]}, "inside of its image"),
        ({"action": "draw", "rings": [[[-0.5, 0], [15, 0], [9, 9]]]}, "inside of its image"),
        ({"action": "draw", "rings": [[[0, 0], [float("nan"), 0], [9, 9]]]}, "finite coordinates"),
        ({"action": "draw", "rings": [[[0, 0], [10**400, 0], [9, 9]]]}, "finite coordinates"),
        ({"action": "draw", "rings": [[[0, 0], ["1", 0], [9, 9]]]}, "finite coordinates"),
        ({"action": "draw", "rings": [[[0, 0], [1, 0]]]}, "must be"),
        ({"action": "draw", "rings": [[]]}, "three or more"),
        ({"action": "draw", "rings": []}, "three or more"),
        ({"action": "draw", "rings": {"outline": SQUARE}}, "three or more"),
        ({"action": "draw", "rings": [SQUARE, [[50, 50], [60, 50], [60, 60]]]}, "Hole lies outside"),
        ({"action": "draw", "rings": [[[x / 100, 1 + x % 2] for x in range(MOST_VERTICES + 1)]]}, "in parts"),
    ],
)
def test_an_action_that_cannot_be_is_refused_and_changes_nothing(
    review: Callable[..., Review], record: Record, change: dict[str, Any], problem: str
) -> None:
    action = draw(record, **change) if change.get("action") == "draw" else change
    with review() as opened, pytest.raises(RequestError, match=problem):
        opened.act(action)
    assert opened.decisions() == {}
    with review() as again:
        assert again.history() == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "con", "LPT1.x", " anna", "anna.", "a" * 65, "an\nna", "-a"]
)
def test_a_reviewer_that_no_file_can_have_is_refused(review: Callable[..., Review], name: str) -> None:
    with pytest.raises(RequestError, match="the reviewer must be a name"):
        review(name)


def test_a_folder_of_reviews_lies_outside_of_the_run(reviewed_run: Path, record: Record) -> None:
    with pytest.raises(RequestError, match="outside of run folders"):
        Review.open(reviewed_run, "anna", reviewed_run / "reviews", record=record)


def test_a_review_is_open_once(review: Callable[..., Review], record: Record) -> None:
    action = {"action": "accept", "findings": keys(record, 1)}
    with review() as first, review() as second:  # neither has a file yet
        first.act(action)
        with pytest.raises(RequestError, match="open twice"):
            second.act(action)
        with pytest.raises(RequestError, match="open twice"):
            review()
    with review() as third:
        assert len(third.history()) == 1


def test_who_comes_second_reads_what_the_first_one_wrote(review: Callable[..., Review], record: Record) -> None:
    one, two = keys(record, 2)
    with review() as second:
        with review() as first:
            first.act({"action": "accept", "findings": [one]})
        second.act({"action": "reject", "findings": [two]})
        assert {key: found.outcome for key, found in second.decisions().items()} == {one: "accepted", two: "rejected"}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_line_is_left_out_and_said(review: Callable[..., Review], record: Record, cut: int) -> None:
    one, two = keys(record, 2)
    with review() as opened:
        opened.act({"action": "accept", "findings": [one]})
        opened.act({"action": "accept", "findings": [two]})
    opened.path.write_bytes(opened.path.read_bytes()[:-cut])
    with review() as again:
        assert [*again.decisions()] == [one]
        assert "not complete" in again.notices[0]
        again.act({"action": "reject", "findings": [two]})
    with review() as once_more:
        assert (once_more.decisions()[two].outcome, once_more.notices) == ("rejected", [])


def test_a_torn_header_is_a_new_file(review: Callable[..., Review], record: Record) -> None:
    with review() as opened:
        opened.act({"action": "accept", "findings": keys(record, 1)})
    whole = opened.path.read_bytes()
    opened.path.write_bytes(whole[:20])
    with review() as again:
        again.act({"action": "accept", "findings": keys(record, 1)})
    assert again.path.read_bytes().split(b"\n")[0] == whole.split(b"\n")[0]


def test_other_files_are_refused_in_a_sentence(review: Callable[..., Review], record: Record, tmp_path: Path) -> None:
    with review() as opened:
        opened.act({"action": "accept", "findings": keys(record, 1)})
    path, whole = opened.path, opened.path.read_bytes()
    with pytest.raises(RequestError, match="must be a review of this run"):
        Review.open(tmp_path, "anna", tmp_path / "reviews", record=replace(record, run="another"))
    for content, kind, problem in [
        (whole.replace(b'"limner_review":1', b'"limner_review":2', 1), StoreError, "newer version"),
        (whole.replace(b"accept", b"reject"), StoreError, "line 2 must be one event"),
        (whole.replace(b'"reviewer":"anna"', b'"reviewer":"anne"', 1), StoreError, "line 1"),
        (whole + whole.splitlines(keepends=True)[1], StoreError, "events in order"),
        (b"image,label\nscene,water\n", RequestError, "a review that limner wrote"),
        (b"\x00" * 100 + b"\n", RequestError, "a review that limner wrote"),
    ]:
        path.write_bytes(content)
        with pytest.raises(kind, match=problem):
            review()
        assert path.read_bytes() == content  # nothing is lost
    path.rename(path.with_name("ben.jsonl")).write_bytes(whole)
    with pytest.raises(RequestError, match="must be ben's own review"):
        review("ben")


def test_a_log_that_was_deleted_is_not_written_to(review: Callable[..., Review], record: Record) -> None:
    with review() as opened:
        opened.act({"action": "accept", "findings": keys(record, 1)})
        opened.path.unlink()
        with pytest.raises(StoreError, match="must not be deleted"):
            opened.act({"action": "accept", "findings": keys(record, 1)})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(("personal", "mode"), [(True, 0o600), (False, 0o644)])
def test_only_the_owner_reads_the_review_of_personal_images(
    reviewed_run: Path, record: Record, tmp_path: Path, personal: bool, mode: int
) -> None:
    [image] = record.images
    private = replace(record, images=(replace(image, info=replace(image.info, personal=personal)),))
    before = os.umask(0o022)
    try:
        with Review.open(reviewed_run, "anna", tmp_path / "reviews", record=private) as opened:
            opened.act({"action": "accept", "findings": keys(record, 1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(opened.path.stat().st_mode) == mode


def test_nothing_is_decided_where_the_disk_is_full(
    review: Callable[..., Review], record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = keys(record, 2)
    with review() as opened:
        opened.act({"action": "accept", "findings": [one]})
        before = opened.path.read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(StoreError, match="No space left"):
                opened.act({"action": "accept", "findings": [two]})
        assert (opened.path.read_bytes(), [*opened.decisions()]) == (before, [one])
        opened.act({"action": "accept", "findings": [two]})
        assert [*opened.decisions()] == [one, two]


KILLED = """
import os, sys
from pathlib import Path
from limner.pipelines.review.review import Review
with Review.open(Path(sys.argv[1]), "anna", Path(sys.argv[2])) as review:
    for at in range(10_000):
        review.act({"action": "accept", "findings": [f"scene/{at % 9 + 1}"]})
        print(at + 1, flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(
    reviewed_run: Path, review: Callable[..., Review], tmp_path: Path
) -> None:
    held = 0
    for first in (20, 27):
        command = [sys.executable, "-c", KILLED, str(reviewed_run), str(tmp_path / "reviews")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(first):
            process.stdout.readline()
        process.kill()
        acknowledged = int([str(first), *process.stdout.read().split()][-1])
        process.wait()
        with review() as opened:
            added = len(opened.history(100_000)) - held
        assert acknowledged <= added <= acknowledged + 1
        held += added


def test_a_change_names_what_changed(review: Callable[..., Review], record: Record) -> None:
    one, two = keys(record, 2)
    with review() as opened:
        change: Change = opened.act({"action": "accept", "findings": [one, two, one]})
    assert [*change.decisions] == [one, two]
    assert (change.events[0].by, change.events[0].number) == ("anna", 1)
