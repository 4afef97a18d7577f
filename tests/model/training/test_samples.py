"""Lines of an alignment's data: what each may say, and how its picture is shown and varied."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from limner.model.tiling import TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.training.augmentation import WAYS, varied
from limner.model.training.dataset import Sample, load_picture, read_samples, show
from limner.readers.errors import ReadError, RequestError
from PIL import Image

GOOD = {"image": "a.png", "question": "what?", "answer": "sky"}
Lines = Callable[..., Path]


def test_a_line_says_all_of_a_sample(lines: Lines) -> None:
    path = lines(GOOD, "", {**GOOD, "hd_num": 4, "enlarge": False, "vary": ["shift", "zoom"]})
    first, second = read_samples(path, hd_num=9)
    assert (first.line, first.hd_num, first.enlarge, first.vary) == (1, 9, True, ())
    assert (second.line, second.hd_num, second.enlarge, second.vary) == (3, 4, False, ("zoom", "shift"))
    assert second.image == path.parent / "a.png"
    assert load_picture(second).shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"image": "a.png",', "must be JSON"),
        ("[1]", "JSON object"),
        ({**GOOD, "answer": ""}, "answer must be a text"),
        ({**GOOD, "answer": "  "}, "answer must be a text"),
        ({**GOOD, "question": 3}, "question must be a text"),
        ({"question": "q", "answer": "a"}, "image must be a text"),
        ({**GOOD, "image": "gone.png"}, "picture must be here"),
        ({**GOOD, "anwser": "x"}, "anwser"),
        ({**GOOD, "hd_num": 0}, "hd_num"),
        ({**GOOD, "hd_num": True}, "hd_num"),
        ({**GOOD, "hd_num": "4"}, "hd_num"),
        ({**GOOD, "enlarge": 1}, "enlarge"),
        ({**GOOD, "vary": "shift"}, "vary"),
        ({**GOOD, "vary": ["spin"]}, "spin"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(lines: Lines, line: object, said: str) -> None:
    with pytest.raises(RequestError, match=r"train\.jsonl, line 3") as caught:
        read_samples(lines(GOOD, GOOD, line))
    assert said in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="readable"):
        read_samples(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(RequestError, match="at least one sample"):
        read_samples(tmp_path / "empty.jsonl")


def test_a_picture_of_other_numbers_is_not_guessed_at(tmp_path: Path) -> None:
    sample = Sample("train.jsonl", 7, tmp_path / "a.png", "q", "a")
    for mode in ("RGBA", "LA", "I;16"):
        Image.new(mode, (4, 4)).save(sample.image)
        with pytest.raises(ReadError, match=f"line 7.*{mode.replace(';', '.')}"):
            load_picture(sample)
    sample.image.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ReadError, match="line 7") as caught:
        load_picture(sample)
    assert str(tmp_path) not in str(caught.value)
    Image.new("L", (4, 3), 70).save(sample.image)
    assert (load_picture(sample) == 70).all()
    assert load_picture(sample).shape == (3, 4, 3)


def test_pictures_are_shown_as_the_released_model_sees_them(lines: Lines) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 33, 3), dtype=np.uint8)
    [sample] = read_samples(lines({**GOOD, "hd_num": 6}))
    grid = TileGrid.fit(33, 50, hd_num=6, tile=16)
    (rows, cols), tiles = show(picture, sample, tile=16)
    canvas = place_on_canvas(picture, grid)
    assert (rows, cols) == (grid.rows, grid.cols) == (3, 2)
    assert np.array_equal(tiles[1:], cut_tiles(canvas, grid))
    assert np.array_equal(tiles[0], squash_to_tile(canvas.astype(np.float32), 16))


def test_pictures_that_are_not_enlarged_lie_on_white(lines: Lines) -> None:
    picture = np.full((10, 20, 3), 7, dtype=np.uint8)
    [sample] = read_samples(lines({**GOOD, "enlarge": False, "hd_num": 2}))
    grid, tiles = show(picture, sample, tile=16)
    assert grid == (1, 2)
    assert (tiles[1][:10] == 7).all()
    assert (tiles[1][10:] == 255).all()
    assert (tiles[2][:10, :4] == 7).all()
    assert (tiles[2][:, 4:] == 255).all()
    with pytest.raises(RequestError, match=r"line 1.*2 tiles of 16 px"):
        show(picture, read_samples(lines({**GOOD, "enlarge": False}))[0], tile=16)


def test_variation_is_decided_by_its_numbers_and_keeps_the_size() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    for way in WAYS:
        first, again, *others = (varied(picture, [way], np.random.default_rng(seed)) for seed in (1, 1, *range(8)))
        assert np.array_equal(first, again)
        assert first.shape in {(28, 20, 3), (20, 28, 3)}
        assert not all(np.array_equal(first, other) for other in others), way
    assert np.array_equal(varied(picture, (), np.random.default_rng(1)), picture)


def test_light_leaves_grey_grey_and_a_shift_moves_pixels() -> None:
    grey = np.repeat(np.arange(200, dtype=np.uint8).reshape(10, 20, 1), 3, axis=2)
    lit = varied(grey, ["light"], np.random.default_rng(3))
    assert (lit[..., 0] == lit[..., 1]).all()
    assert not np.array_equal(lit, grey)
    columns = {int(varied(grey, ["shift"], np.random.default_rng(seed))[5, 10, 0]) % 20 for seed in range(40)}
    assert columns == {8, 9, 10, 11, 12} or columns < {8, 9, 10, 11, 12}
    assert len(columns) > 2
