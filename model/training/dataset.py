"""Samples of an alignment: their file, their images, augmentation, and the tokens that are learnt. Loads no torch.

A sample is a JSON object on a line of its own:

    {"image": "tiles/0001.png", "question": "What does this image show?", "answer": "forest", "hd_num": 1}
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...readers.errors import LimnerError, ReadError, RequestError, excerpt
from ..checkpoints.untrusted import error_text, parse_json
from ..tiling import WHITE, TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from ..vlm.fourkhd.tokenizer import IMAGE, TURN_END, TURN_START, PromptLayout, Tokenizer, build_prompt

Picture = npt.NDArray[np.uint8]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Augmentation = Literal["zoom", "shift", "mirror", "turn", "light"]

FORMATS: Final = ("PNG", "JPEG", "TIFF")
_MODES: Final = ("1", "L", "P", "RGB")

IGNORED: Final = -100
"""The target of a token that is not learnt; also stands for visual tokens among ids."""

MIN_ZOOM: Final = 0.8
MAX_SHIFT: Final = 0.08
CONTRAST, GAIN, BALANCE = 1.3, 1.2, 1.05
"""The largest factors by which `light` changes contrast, brightness and each colour, either way."""


class _Line(BaseModel):
    """A line of the file; other keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: Annotated[str, StringConstraints(pattern=r"\S")]
    question: Text
    answer: Text
    hd_num: Annotated[int, Field(ge=1)]
    enlarge: bool = True
    vary: list[Augmentation] = []


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with a question and the answer that is to be learnt."""

    source: str
    """Name of the file."""
    line: int
    image: Path
    """PNG, JPEG or TIFF of 8 bits, grey or RGB."""
    question: str
    answer: str
    hd_num: int = 1
    """Maximum number of tiles."""
    enlarge: bool = True
    """False keeps the image's own pixels, on white, as a run without `--enlarge` does."""
    vary: tuple[str, ...] = ()
    """Augmentations that leave the answer true."""

    def error(self, rule: str, *, value: str = "", remedy: str = "Correct the line") -> RequestError:
        """The error about this line."""
        return RequestError(f"{self.source}, line {self.line}", rule, value=value, remedy=remedy)


def read_samples(path: Path, *, hd_num: int = 1) -> list[Sample]:
    """The samples of a JSONL file in its order; `hd_num` is for lines without one. Empty lines are skipped.

    Raises `RequestError` that names the line: invalid JSON, an unknown key, a missing image, an empty text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            str(path), "must be a readable file of JSON lines in UTF-8", value=str(error), remedy="Check --data"
        ) from error
    lines = enumerate(text.split("\n"), start=1)
    samples = [_sample(path, number, line, hd_num) for number, line in lines if line.strip()]
    if not samples:
        raise RequestError(str(path), "must contain at least one sample", remedy="Check --data")
    return samples


def _sample(path: Path, number: int, text: str, hd_num: int) -> Sample:
    subject = f"{path.name}, line {number}"
    try:
        content: Any = parse_json(text, subject)
    except ValueError as error:
        raise RequestError(subject, "must be JSON", value=str(error), remedy="Correct the line") from error
    if not isinstance(content, dict):
        raise RequestError(subject, "must be a JSON object", value=text[:60], remedy="Write {…}")
    try:
        line = _Line.model_validate({"hd_num": hd_num, **content})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise RequestError(
            subject,
            f"must have a valid {key}",
            value="none" if first["type"] == "missing" else excerpt(f"{first['input']}: {first['msg']}"),
            remedy=f"Correct the line, whose keys can be {', '.join(_Line.model_fields)}",
        ) from error
    image = path.parent / line.image
    if not image.is_file():
        raise RequestError(subject, "must name an existing image", value=line.image, remedy="Correct the path")
    vary = tuple(name for name in AUGMENTATIONS if name in line.vary)
    return Sample(path.name, number, image, line.question, line.answer, line.hd_num, line.enlarge, vary)


def load_image(sample: Sample) -> Picture:
    """A sample's image, RGB (h, w, 3). Raises `ReadError` that names the line."""
    from PIL import Image

    subject = f"{sample.source}, line {sample.line}"
    try:
        with Image.open(sample.image, formats=FORMATS) as image:
            if image.mode in _MODES and "transparency" not in image.info:
                return np.asarray(image.convert("RGB"), dtype=np.uint8)
            mode = image.mode
    except Exception as error:  # Pillow's decoders raise their own
        raise ReadError(
            subject,
            f"must have an intact {', '.join(FORMATS)} image",
            value=error_text(error).replace(str(sample.image), sample.image.name),
            remedy="Correct or leave out the line",
        ) from error
    raise ReadError(
        subject,
        "must have an image of 8 bits, grey or RGB, without transparency",
        value=f"{sample.image.name} is {mode}",
        remedy="Convert the image",
    )


def image_tiles(picture: Picture, sample: Sample, *, tile: int) -> tuple[tuple[int, int], npt.NDArray[np.float32]]:
    """((rows, cols), global view and tiles (1 + n, tile, tile, 3) of values 0 to 255) of an image (h, w, 3).

    Uses the released model's own transform (arXiv 2404.06512), or the image's own pixels where the sample is not to be
    enlarged. Raises `RequestError` that names the line where the image does not fit.
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
                "must have an image that fits into its hd_num tiles, since it is not enlarged",
                value=f"{width} × {height} px need {grid.cols * grid.rows} tiles of {tile} px, hd_num {sample.hd_num}",
                remedy="Raise hd_num, or crop the image",
            )
        canvas = np.full((grid.size[1], grid.size[0], 3), WHITE, dtype=np.uint8)
        canvas[:height, :width] = picture
    whole = squash_to_tile(canvas.astype(np.float32), tile)
    tiles = cut_tiles(canvas, grid).astype(np.float32)
    return (grid.rows, grid.cols), np.concatenate([whole[None], tiles])


def augment(picture: Picture, names: Sequence[str], random: np.random.Generator) -> Picture:
    """Apply augmentations to an image (h, w, 3); the size stays, except that a quarter turn swaps the sides."""
    for name, change in AUGMENTATIONS.items():
        if name in names:
            picture = change(picture, random)
    return np.ascontiguousarray(picture)


def _zoom(picture: Picture, random: np.random.Generator) -> Picture:
    """Crop at least `MIN_ZOOM` of each side, and resample it bilinearly to the full size."""
    height, width = int(picture.shape[0]), int(picture.shape[1])
    share = random.uniform(MIN_ZOOM, 1.0)
    top, left = random.uniform(0.0, 1.0 - share, 2)
    y = (np.arange(height) + 0.5) * share + float(top) * height - 0.5
    x = (np.arange(width) + 0.5) * share + float(left) * width - 0.5
    values = _interpolate(_interpolate(picture.astype(np.float32), y, 0), x, 1)
    return np.rint(values).astype(np.uint8)


def _interpolate(
    values: npt.NDArray[np.float32], at: npt.NDArray[np.floating[Any]], axis: int
) -> npt.NDArray[np.float32]:
    """Linear interpolation along an axis; border pixels are repeated."""
    last = values.shape[axis] - 1
    at = np.clip(at, 0.0, last)
    first = np.minimum(np.floor(at).astype(np.intp), max(last - 1, 0))
    share = (at - first).astype(np.float32).reshape((-1, *(1,) * (values.ndim - axis - 1)))
    low: npt.NDArray[np.float32] = values.take(first, axis)
    high: npt.NDArray[np.float32] = values.take(np.minimum(first + 1, last), axis)
    return (low + (high - low) * share).astype(np.float32)


def _shift(picture: Picture, random: np.random.Generator) -> Picture:
    """Shift by at most `MAX_SHIFT` of a side; border pixels are repeated."""
    rows, columns = (
        np.clip(np.arange(side) + round(random.uniform(-MAX_SHIFT, MAX_SHIFT) * side), 0, side - 1)
        for side in (int(picture.shape[0]), int(picture.shape[1]))
    )
    return picture[rows][:, columns]


def _mirror(picture: Picture, random: np.random.Generator) -> Picture:
    return picture[:, ::-1] if random.random() < 0.5 else picture


def _turn(picture: Picture, random: np.random.Generator) -> Picture:
    return np.rot90(picture, int(random.integers(4)))


def _light(picture: Picture, random: np.random.Generator) -> Picture:
    """Scale contrast about the mean, brightness and, in colour images, each channel."""
    contrast, gain = (math.exp(random.uniform(-math.log(most), math.log(most))) for most in (CONTRAST, GAIN))
    grey = bool((picture[..., 0] == picture[..., 1]).all() and (picture[..., 1] == picture[..., 2]).all())
    balance = np.ones(3) if grey else np.exp(random.uniform(-math.log(BALANCE), math.log(BALANCE), 3))
    values = picture.astype(np.float64)
    mean = values.mean(axis=(0, 1))
    values = ((values - mean) * contrast + mean) * gain * balance
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


AUGMENTATIONS: Final = {"zoom": _zoom, "shift": _shift, "mirror": _mirror, "turn": _turn, "light": _light}
"""In the order in which they are applied."""


def answer_offset(tokenizer: Tokenizer) -> int:
    """The number of tokens between the end of a user's turn and the answer: a line break and the turn's opening."""
    return len(tokenizer.encode(f"{TURN_END}\n{TURN_START}assistant\n")) - 1


def training_targets(ids: Sequence[int], *, end: int, eos: int, offset: int) -> list[int]:
    """The target of each token of a conversation, `IGNORED` where it is not learnt.

    Answers are learnt with the `end` token that closes them and a final `eos`; the user's turns, the line break before
    them and the `offset` tokens after them are not. Odd `end` tokens close a user's turn, even ones an answer. Where a
    conversation is truncated within a user's turn, only that turn's first token, the line break, is learnt. Follows the
    released fine-tuning of InternLM-XComposer2-4KHD (arXiv 2404.06512).
    """
    found = list(ids)
    if eos in ids:
        last = ids.index(eos)
        found[last + 1 :] = [IGNORED] * (len(ids) - last - 1)
    else:
        last = len(ids)
    ends = [index for index, token in enumerate(ids[:last]) if token == end]
    begins = [0, *(index + 1 for index in ends[1::2])]
    for begin, index in zip(begins, ends[0::2], strict=False):
        stop = min(index + 1 + offset, len(found))
        found[begin:stop] = [IGNORED] * (stop - begin)
    if eos not in ids and len(ends) % 2 == 0:
        begin = begins[-1] + 1
        found[begin:] = [IGNORED] * (len(found) - begin)
    return found


def conversation(
    tokenizer: Tokenizer, question: str, answer: str, layout: PromptLayout
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and after the image: the question without a system prompt, the answer, and the end tokens.

    Raises `RequestError` for texts that contain the vocabulary's special tokens.
    """
    prompt = build_prompt(tokenizer, question, layout=layout, system="", earlier=())
    if TURN_END in answer or TURN_START in answer:
        build_prompt(tokenizer, answer, layout=layout, system="")  # raises
    if len(prompt.parts) != 2 or IMAGE in answer:
        raise RequestError(
            "question of a sample",
            "must be about one image, whose placeholder must not be in the answer",
            value=f"{IMAGE}, {len(prompt.parts) - 1} in the question",
            remedy=f"Write {IMAGE} at most once, in the question",
        )
    before, after = prompt.parts
    return before, (*after, *tokenizer.encode(f"{answer}{TURN_END}"), tokenizer.eos)
