"""`limner check seams`: a model that depends on its tiles is found out, and one that does not is not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from limner.model.checkpoints.cards import find_card
from limner.pipelines.config import Settings
from limner.pipelines.run import tiling_check
from limner.pipelines.run.execute import prepare
from limner.pipelines.run.tiling_check import Measured, TilingCheck, check_tiling, parse_shifts
from limner.readers.errors import RequestError

Make = Callable[..., Path]


def check(scene: Path, card: Path, **options: str) -> TilingCheck:
    prepared = prepare(
        Settings.resolve({"inputs": [str(scene)], "model": str(card), "model_options": options}, file="")
    )
    plan = prepared.plan.images[0]
    assert prepared.choice is not None
    annotator = prepared.choice.make(threads="1")
    annotator.check([plan.spec])
    annotator.load()
    return check_tiling(plan, annotator, shifts=(3, 8), window=128)


@pytest.mark.slow
def test_a_local_network_passes(scene: Path, card: Path) -> None:
    found = check(scene, card)
    assert found.changed == {3: 0.0, 8: 0.0}
    assert found.met
    assert found.labelled > 1000
    assert found.ratio is not None
    assert 0.2 < found.ratio.value < 1.2
    assert (found.by_halo[0] > 0, found.by_halo[8], found.proposed_halo) == (True, 0.0, 8)


@pytest.mark.slow
def test_a_network_that_normalises_each_tile_is_found_out(tmp_path: Path, scene: Path, make_card: Make) -> None:
    card = make_card(tmp_path, normalises=True)
    as_it_is, frozen = check(scene, card, normalise="tile"), check(scene, card)
    assert not as_it_is.met
    assert as_it_is.worst_changed > 0.02
    assert as_it_is.proposed_halo is None
    assert frozen.worst_changed == 0.0
    assert frozen.met


def test_outline_along_cuts_is_counted_against_all_other_lines() -> None:
    labels = np.ones((64, 64), dtype=np.int16)
    labels[:, 20:] = 2
    labels[30:34, 40:44] = 1
    rng = np.random.default_rng(0)
    wall, lines = tiling_check._outline_ratio({0: labels}, {0: ([20], [])}, rng)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert wall is not None
    assert wall.value > 100
    assert lines == 1
    nowhere, _ = tiling_check._outline_ratio({0: labels}, {0: ([10], [])}, rng)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert nowhere is not None
    assert nowhere.value == 0
    nothing, _ = tiling_check._outline_ratio({0: labels}, {0: ([], [])}, rng)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert nothing is None


def test_the_halo_is_the_smallest_from_which_on_the_target_is_met() -> None:
    shares = {0: 0.03, 8: 0.004, 16: 0.006, 24: 0.004, 32: 0.001}
    found = TilingCheck("a", "m", 64, 8, (0, 0, 9, 9), 8, 5, {1: 0.0}, Measured(0, 0, 0), None, 0.0, 0, shares)
    assert found.proposed_halo == 24


@pytest.mark.parametrize("text", ["", "0", "257", "1,x", "-3", "1.5"])
def test_shifts_are_whole_numbers_from_1_to_256(text: str) -> None:
    assert parse_shifts("160, 1,1") == (1, 160)
    with pytest.raises(RequestError, match="--shifts"):
        parse_shifts(text)


@pytest.mark.slow
def test_the_command_writes_a_report_and_a_block_that_a_card_takes(
    tmp_path: Path, limner: Callable[..., object], scene: Path, card: Path
) -> None:
    out = tmp_path / "checked"
    done = limner("check", "seams", scene, "--model", card, "--shifts", "8", "--window", "96", "--out", out)
    assert "targets" in str(done)
    assert "code=0" in str(done)
    report = json.loads((out / "seams.json").read_text(encoding="utf-8"))
    assert report["images"][0]["changed"] == {"8": 0.0}
    assert "halo proposed" in (out / "seams.txt").read_text(encoding="utf-8")
    with card.open("a", encoding="utf-8") as file:
        file.write((out / "seams.yaml").read_text(encoding="utf-8"))
    [block] = find_card(str(card)).tiling
    assert (block.changed_percent, block.met) == (0.0, True)


def test_a_card_that_missed_a_target_says_so(tmp_path: Path, make_card: Make) -> None:
    card = make_card(tmp_path)
    block = {"image": "a", "changed_percent": 1.97, "changed_in_step_percent": 0.01, "halo": 4, "met": False}
    content = yaml.safe_load(card.read_text(encoding="utf-8"))
    assert find_card(str(card)).tiling_note == ""
    card.write_text(yaml.safe_dump({**content, "tiling": [block]}), encoding="utf-8")
    assert "up to 2 % of labelled pixels" in find_card(str(card)).tiling_note
