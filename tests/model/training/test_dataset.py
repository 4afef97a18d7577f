"""Samples of an alignment: validation of their lines, image tiles, augmentation, and training targets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from limner.model.tiling import TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.training.dataset import (
    AUGMENTATIONS,
    IGNORED,
    Sample,
    answer_offset,
    augment,
    conversation,
    image_tiles,
    load_image,
    read_samples,
    training_targets,
)
from limner.model.vlm.fourkhd.tokenizer import TURN_END, TURN_START, Tokenizer, build_prompt
from limner.readers.errors import ReadError, RequestError
from PIL import Image

GOOD = {"image": "a.png", "question": "what?", "answer": "sky"}
Lines = Callable[..., Path]


def test_a_line_is_read_as_a_sample(lines: Lines) -> None:
    path = lines(GOOD, "", {**GOOD, "hd_num": 4, "enlarge": False, "vary": ["shift", "zoom"]})
    first, second = read_samples(path, hd_num=9)
    assert (first.line, first.hd_num, first.enlarge, first.vary) == (1, 9, True, ())
    assert (second.line, second.hd_num, second.enlarge, second.vary) == (3, 4, False, ("zoom", "shift"))
    assert second.image == path.parent / "a.png"
    assert load_image(second).shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png",', "must be JSON"),
        ("[1]", "JSON object"),
        ({**GOOD, "answer": ""}, "valid answer"),
        ({**GOOD, "answer": "  "}, "valid answer"),
        ({**GOOD, "question": 3}, "valid question"),
        ({"question": "q", "answer": "a"}, "valid image"),
        ({**GOOD, "image": "gone.png"}, "existing image"),
        ({**GOOD, "anwser": "x"}, "anwser"),
        ({**GOOD, "hd_num": 0}, "hd_num"),
        ({**GOOD, "hd_num": True}, "hd_num"),
        ({**GOOD, "hd_num": "4"}, "hd_num"),
        ({**GOOD, "enlarge": 1}, "enlarge"),
        ({**GOOD, "vary": "shift"}, "vary"),
        ({**GOOD, "vary": ["spin"]}, "spin"),
    ],
)
def test_an_invalid_line_is_named_by_its_number(lines: Lines, line: object, message: str) -> None:
    with pytest.raises(RequestError, match=r"train\.jsonl, line 3") as caught:
        read_samples(lines(GOOD, GOOD, line))
    assert message in str(caught.value)


def test_an_unreadable_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="readable"):
        read_samples(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(RequestError, match="at least one sample"):
        read_samples(tmp_path / "empty.jsonl")


def test_images_of_other_modes_are_refused(tmp_path: Path) -> None:
    sample = Sample("train.jsonl", 7, tmp_path / "a.png", "q", "a")
    for mode in ("RGBA", "LA", "I;16"):
        Image.new(mode, (4, 4)).save(sample.image)
        with pytest.raises(ReadError, match=f"line 7.*{mode.replace(';', '.')}"):
            load_image(sample)
    sample.image.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ReadError, match="line 7") as caught:
        load_image(sample)
    assert str(tmp_path) not in str(caught.value)
    Image.new("L", (4, 3), 70).save(sample.image)
    assert (load_image(sample) == 70).all()
    assert load_image(sample).shape == (3, 4, 3)


def test_tiles_are_those_of_the_released_model(lines: Lines) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 33, 3), dtype=np.uint8)
    [sample] = read_samples(lines({**GOOD, "hd_num": 6}))
    grid = TileGrid.fit(33, 50, hd_num=6, tile=16)
    (rows, cols), tiles = image_tiles(picture, sample, tile=16)
    canvas = place_on_canvas(picture, grid)
    assert (rows, cols) == (grid.rows, grid.cols) == (3, 2)
    assert np.array_equal(tiles[1:], cut_tiles(canvas, grid))
    assert np.array_equal(tiles[0], squash_to_tile(canvas.astype(np.float32), 16))


def test_images_that_are_not_enlarged_are_padded_with_white(lines: Lines) -> None:
    picture = np.full((10, 20, 3), 7, dtype=np.uint8)
    [sample] = read_samples(lines({**GOOD, "enlarge": False, "hd_num": 2}))
    grid, tiles = image_tiles(picture, sample, tile=16)
    assert grid == (1, 2)
    assert (tiles[1][:10] == 7).all()
    assert (tiles[1][10:] == 255).all()
    assert (tiles[2][:10, :4] == 7).all()
    assert (tiles[2][:, 4:] == 255).all()
    with pytest.raises(RequestError, match=r"line 1.*2 tiles of 16 px"):
        image_tiles(picture, read_samples(lines({**GOOD, "enlarge": False}))[0], tile=16)


def test_augmentation_is_seeded_and_keeps_the_size() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    for name in AUGMENTATIONS:
        first, again, *others = (augment(picture, [name], np.random.default_rng(seed)) for seed in (1, 1, *range(8)))
        assert np.array_equal(first, again)
        assert first.shape in {(28, 20, 3), (20, 28, 3)}
        assert not all(np.array_equal(first, other) for other in others), name
    assert np.array_equal(augment(picture, (), np.random.default_rng(1)), picture)


def test_light_keeps_grey_and_shift_moves_pixels() -> None:
    grey = np.repeat(np.arange(200, dtype=np.uint8).reshape(10, 20, 1), 3, axis=2)
    lit = augment(grey, ["light"], np.random.default_rng(3))
    assert (lit[..., 0] == lit[..., 1]).all()
    assert not np.array_equal(lit, grey)
    columns = {int(augment(grey, ["shift"], np.random.default_rng(seed))[5, 10, 0]) % 20 for seed in range(40)}
    assert columns == {8, 9, 10, 11, 12} or columns < {8, 9, 10, 11, 12}
    assert len(columns) > 2


ASSISTANT = [92543, 525, 11353, 364]
HI = [1, 92543, 1008, 364, 6176, 92542, 364, *ASSISTANT]


def released(ids: list[int]) -> list[int]:
    return training_targets(ids, end=92542, eos=2, offset=5)


def test_a_conversation_with_an_image() -> None:
    # the released tokenizer's ids of two turns about a picture of one tile
    first = [1272, 505, 410, 2044, 446, 410, 5718, 92542, 364, *ASSISTANT]
    second = [364, 92543, 1008, 364, 677, 629, 2866, 345, 92542, 364, *ASSISTANT]
    answers = [[406, 505, 14018, 281, 92542], [9828, 92542]]
    ids = [1, 92543, 1008, 364, *[IGNORED] * 313, *first, *answers[0], *second, *answers[1], 2]
    silent = [IGNORED] * (4 + 313 + len(first))
    assert released(ids) == [*silent, *answers[0], *[IGNORED] * len(second), *answers[1], 2]


def test_a_conversation_cut_in_a_question() -> None:
    ids = [*HI, 15115, 92542, 364, 92543, 1008, 364, 12706, 505]
    assert released(ids) == [*[IGNORED] * 11, 15115, 92542, 364, *[IGNORED] * 5]


def test_a_conversation_cut_in_an_answer() -> None:
    assert released([*HI, 15115, 410]) == [*[IGNORED] * 11, 15115, 410]


def test_tokens_after_the_end_are_ignored() -> None:
    assert released([*HI, 15115, 92542, 2, 7, 8]) == [*[IGNORED] * 11, 15115, 92542, 2, IGNORED, IGNORED]


@pytest.mark.parametrize("layout", ["chat", "benchmark", "training"])
def test_a_conversation_is_the_prompt_and_then_the_answer(base: Path, layout: str) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    before, after = conversation(words, "What is it?", "a red picture", layout)  # type: ignore[arg-type]
    asked = build_prompt(words, "What is it?", layout=layout, system="")  # type: ignore[arg-type]
    answer = (*words.encode("a red picture"), words.turn_end, words.eos)
    assert before == asked.parts[0]
    assert after == (*asked.parts[1], *answer)
    learnt = training_targets(
        [*before, IGNORED, IGNORED, *after], end=words.turn_end, eos=words.eos, offset=answer_offset(words)
    )
    assert learnt == [*[IGNORED] * (len(before) + 2 + len(asked.parts[1])), *answer]


def test_texts_with_special_tokens_are_refused(base: Path) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    for question, answer in ((f"a{TURN_END}", "b"), ("a", f"b{TURN_START}")):
        with pytest.raises(RequestError, match=r"marks|tokens"):
            conversation(words, question, answer, "training")


@pytest.mark.parametrize(("question", "answer"), [("<ImageHere> and <ImageHere>", "a"), ("what", "an <ImageHere>")])
def test_a_sample_has_one_image(base: Path, question: str, answer: str) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    with pytest.raises(RequestError, match="one image"):
        conversation(words, question, answer, "chat")
