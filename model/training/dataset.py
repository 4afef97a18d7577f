"""What an alignment learns from: pictures with a question and its answer, a JSON object a line. Loads no torch.

    {"image": "tiles/0001.png", "question": "What does this image show?", "answer": "forest", "hd_num": 1}

`image` is a PNG, JPEG or TIFF of 8 bits in grey or RGB, its path relative to the file. `hd_num` is the most tiles it
may fill. With `"enlarge": false` the picture is not enlarged: its pixels lie in the upper left of as many tiles as it
needs, on white, as a run without `--enlarge` shows it. `vary` lists how the picture may be changed from time to time:
`variation.WAYS`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import LimnerError, ReadError, RequestError
from ..checkpoints.untrusted import error_text, parse_json
from ..tiling import WHITE, TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from .augmentation import WAYS

KEYS = ("image", "question", "answer", "hd_num", "enlarge", "vary")
FORMATS = ("PNG", "JPEG", "TIFF")
_MODES = ("1", "L", "P", "RGB")


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of the file `source`: a picture and what is to be said of it."""

    source: str
    line: int
    image: Path
    question: str
    answer: str
    hd_num: int = 1
    enlarge: bool = True
    vary: tuple[str, ...] = ()

    def error(self, rule: str, *, value: str = "", remedy: str = "Correct the line") -> RequestError:
        """The error that says what is wrong with this line."""
        return _wrong(self.source, self.line, rule, value, remedy)


def read_samples(path: Path, *, hd_num: int = 1) -> list[Sample]:
    """The samples of a JSONL file, in its order; `hd_num` where a line has none. Empty lines are passed over.

    Raises `RequestError` that names the line: not JSON, an unknown key, a picture that is not here, nothing to say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            str(path), "it must be a readable file of JSON lines in UTF-8", value=str(error), remedy="Check --data"
        ) from error
    lines = enumerate(text.split("\n"), start=1)
    samples = [_sample(path, number, line, hd_num) for number, line in lines if line.strip()]
    if not samples:
        raise RequestError(str(path), "it must hold at least one sample", remedy="Check --data")
    return samples


def load_picture(sample: Sample) -> npt.NDArray[np.uint8]:
    """A sample's picture, RGB (h, w, 3). Raises `ReadError` that names the line."""
    from PIL import Image

    subject = f"{sample.source}, line {sample.line}"
    try:
        with Image.open(sample.image, formats=FORMATS) as picture:
            if picture.mode not in _MODES or "transparency" in picture.info:
                raise ReadError(  # noqa: TRY301 - passes below
                    subject,
                    "its picture must have 8 bits in grey or RGB, and nothing transparent: the rest would be a guess",
                    value=f"{sample.image.name} is {picture.mode}",
                    remedy="Convert the picture",
                )
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except ReadError:
        raise
    except Exception as error:  # Pillow's decoders raise their own
        raise ReadError(
            subject,
            f"its picture must be a whole {', '.join(FORMATS)}",
            value=error_text(error).replace(str(sample.image), sample.image.name),
            remedy="Correct or leave out the line",
        ) from error


def show(
    picture: npt.NDArray[np.uint8], sample: Sample, *, tile: int
) -> tuple[tuple[int, int], npt.NDArray[np.float32]]:
    """((rows, cols), the global view and the tiles (1 + n, tile, tile, 3) of values 0 to 255) of a picture (h, w, 3).

    The released model's own transform (arXiv 2404.06512), or the picture as it is where the sample is not to be
    enlarged. Raises `RequestError` that names the line where it does not fit.
    """
    height, width = picture.shape[:2]
    if sample.enlarge:
        try:
            grid = TileGrid.fit(width, height, hd_num=sample.hd_num, tile=tile)
        except LimnerError as error:
            raise sample.error(error.rule, value=error.value, remedy=error.remedy) from error
        canvas = place_on_canvas(picture, grid)
    else:
        grid = TileGrid.exact(-(-width // tile), -(-height // tile), tile=tile)
        if grid.cols * grid.rows > sample.hd_num:
            raise sample.error(
                "a picture that is not enlarged must fit into its hd_num tiles",
                value=f"{width} × {height} px need {grid.cols * grid.rows} tiles of {tile} px, hd_num {sample.hd_num}",
                remedy="Raise hd_num, or cut the picture",
            )
        canvas = np.full((grid.size[1], grid.size[0], 3), WHITE, dtype=np.uint8)
        canvas[:height, :width] = picture
    whole = squash_to_tile(canvas.astype(np.float32), tile)
    tiles = cut_tiles(canvas, grid).astype(np.float32)
    return (grid.rows, grid.cols), np.concatenate([whole[None], tiles])


def _sample(path: Path, number: int, line: str, hd_num: int) -> Sample:
    source = path.name
    try:
        content: object = parse_json(line, f"{source}, line {number}")
    except ValueError as error:
        raise _wrong(source, number, "it must be JSON", str(error), "Correct the line") from error
    if not isinstance(content, dict):
        raise _wrong(source, number, "it must be a JSON object", line[:60], "Write {…}")
    said = cast("dict[str, Any]", content)
    unknown = sorted(set(said) - set(KEYS))
    if unknown:
        raise _wrong(source, number, "its keys must be known", unknown[0], f"Known: {', '.join(KEYS)}")
    for key in ("image", "question", "answer"):
        if not isinstance(said.get(key), str) or not str(said[key]).strip():
            raise _wrong(
                source, number, f"its {key} must be a text that is not empty", str(said.get(key, "")), "Add it"
            )
    tiles, enlarge, vary = said.get("hd_num", hd_num), said.get("enlarge", True), said.get("vary", [])
    if isinstance(tiles, bool) or not isinstance(tiles, int) or tiles < 1:
        raise _wrong(source, number, "its hd_num must be a whole number from 1", str(tiles), "Correct it")
    if not isinstance(enlarge, bool):
        raise _wrong(source, number, "its enlarge must be true or false", str(enlarge), "Correct it")
    asked = cast("list[object]", vary) if isinstance(vary, list) else [None]
    if not all(way in WAYS for way in asked):
        raise _wrong(source, number, f"its vary must be a list of {', '.join(WAYS)}", str(said["vary"]), "Correct it")
    image = path.parent / str(said["image"])
    if not image.is_file():
        raise _wrong(source, number, "its picture must be here", str(said["image"]), "Correct the path")
    ways = tuple(way for way in WAYS if way in asked)
    question, answer = str(said["question"]).strip(), str(said["answer"]).strip()
    return Sample(source, number, image, question, answer, tiles, enlarge, ways)


def _wrong(source: str, number: int, rule: str, value: str, remedy: str) -> RequestError:
    return RequestError(f"{source}, line {number}", rule, value=value, remedy=remedy)
