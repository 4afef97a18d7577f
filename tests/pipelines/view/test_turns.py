"""Who reads next, which index is used, and which windows may be chosen."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.manifest import load_manifest
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.run.reporting import read_record
from limner.pipelines.view import index as indices
from limner.pipelines.view.pictures import highest_level, live_picture
from limner.pipelines.view.turns import OutdatedError, Turns
from limner.readers.render import Stretch

pytestmark = pytest.mark.slow


def waiting(turns: Turns[str], names: list[str], is_open: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Who read and who was given up, of threads that came one after the other while the only reader was lent."""
    read, outdated = list[str](), list[str]()

    def ask(name: str) -> None:
        try:
            with turns.turn(lambda: is_open(name)):
                read.append(name)
        except OutdatedError:
            outdated.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    with turns.turn():
        for number, thread in enumerate(threads, 1):
            thread.start()
            for _ in range(500):
                if len(turns) + len(outdated) >= number:
                    break
                time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    return read, sorted(outdated)


def test_the_newest_reads_first_and_of_too_many_the_oldest_leave() -> None:
    assert waiting(Turns(["reader"], 3), list("abcde"), lambda _: True) == (["e", "d", "c"], ["a", "b"])


def test_who_does_not_wait_any_more_is_not_read_for() -> None:
    assert waiting(Turns(["reader"], 9), list("abc"), lambda name: name == "b") == (["b"], ["a", "c"])


def test_a_reader_is_given_back_when_reading_fails() -> None:
    turns = Turns(["reader"], 1)
    with pytest.raises(ValueError, match="damaged"), turns.turn():
        raise ValueError("damaged")
    with turns.turn() as reader:
        assert reader == "reader"


def plan_of(run: Path) -> ImagePlan:
    return ImagePlan.from_json(load_manifest(run)["images"][0])


def test_three_windows_can_be_shown_one_by_one(made_run: Path) -> None:
    plan = plan_of(made_run)
    assert live_picture(plan).windows == ()
    three = Stretch(("red",), (0.0, 1.0, 2.0), (9.0, 8.0, 7.0), "lung; bone; brain")
    assert live_picture(replace(plan, stretch=three)).windows == ["lung; bone; brain", "lung", "bone", "brain"]
    facts = (*plan.info.facts, ("burned_in_risk", "yes"))
    hidden = live_picture(replace(plan, info=replace(plan.info, facts=facts))).hidden
    assert "identifying text is burned into its pixels" in hidden


def test_levels_of_tiles_begin_with_one_tile() -> None:
    assert [highest_level((side, 10)) for side in (1, 512, 513, 1024, 40_000)] == [0, 0, 1, 1, 7]


def test_a_damaged_index_is_made_again_and_one_in_use_stays(
    made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(made_run, tmp_path / "run"))  # whose index no other test uses
    record, plan = read_record(run), plan_of(run)
    live = {plan.info.id: live_picture(plan)}
    messages = list[Any]()
    with indices.open_index(run, record, live) as folder:
        (folder / "image-0" / "layers.json").write_text("{")
        with indices.open_index(run, replace(record, run="another"), live, messages.append) as other:
            assert folder.exists(), "a server uses it"
            assert other != folder
    with indices.open_index(run, record, live, messages.append) as again:
        assert again == folder
        assert (again / "image-0" / "layers.json").read_text() != "{"
        assert not other.exists(), "that of another state of the run"

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(indices, "_remove_unused", refuse)
    with indices.open_index(run, replace(record, run="a third"), live) as temporary:
        assert indices.index_folder(run) not in temporary.parents
        assert (temporary / "page.html").is_file()
    assert not temporary.exists()
