"""The `vlm` annotator: any image-text-to-text checkpoint in transformers' format answers a question on each region."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.options import invalid_option
from ..annotator import Cost, InputSpec, View
from ..checkpoints.files import CONFIGS, TOKENIZER, CheckpointFiles, fetch_weights, find_files
from ..tiling import TILE, WHITE
from .annotator import VlmAnnotator
from .backend import check_room
from .box_format import BoxFormat, Unit
from .pictures import pictures_of
from .question import Question, QuestionOptions
from .special_tokens import refuse_marks

if TYPE_CHECKING:
    from .image_text import ImageText
    from .processor import Processor

SMALL = (*CONFIGS, *TOKENIZER, "chat_template.jinja", "chat_template.json", "generation_config.json")
SMALLEST, LARGEST = 28, 2048  # pixels; what can be a tile

BOXES: Mapping[str, Unit] = {
    "internvl": "thousandths",  # InternVL 2.5's and 3's training data
    "llava": "unit",  # LLaVA 1.5, arXiv 2310.03744: 0 to 1 of the picture padded to a square
    "qwen2_5_vl": "pixels",  # Qwen2.5-VL, arXiv 2502.13923: of the picture as its processor resizes it
    "qwen2_vl": "thousandths",  # Qwen2-VL, arXiv 2409.12191
    "qwen3_vl": "thousandths",  # Qwen3-VL's cookbook on grounding
    "qwen3_vl_moe": "thousandths",  # the same
}
"""Family → the coordinates in which it was trained to name boxes."""

Picture = npt.NDArray[np.uint8]


class TransformersVlmOptions(QuestionOptions):
    """Options of `vlm`, those of the question among them."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder in transformers' format, or a hub id `OWNER/NAME@COMMIT`.",
        examples=["--model vlm:FOLDER, or vlm:OWNER/NAME@COMMIT"],
    )
    views: Literal["canvas", "tiles"] = Field(
        default="canvas",
        description="Whether a region is shown as one picture, or as its global view and then each tile.",
    )
    tile: int | None = Field(
        default=None, ge=SMALLEST, le=LARGEST, description="Pixels a side of a tile; by default the checkpoint's own."
    )
    boxes: Literal["", "pixels", "thousandths", "unit"] = Field(
        default="", description="The unit in which it names boxes, for families of which that is not known."
    )
    dtype: Literal["", "float32", "bfloat16", "float16", "auto"] = Field(
        default="", description="Type of numbers; by default float32 on a processor, else the checkpoint's own."
    )
    device: str = Field(default="auto", description="torch's name of a device; auto is a GPU where there is one.")


class TransformersVlmAnnotator(VlmAnnotator):
    """The annotator `vlm`. Raises `RequestError` for options that do not fit together."""

    Options = TransformersVlmOptions

    def __init__(self, options: TransformersVlmOptions) -> None:
        question = Question.of(options, "vlm").check_grammar("vlm")
        super().__init__(question, TransformersBackend(options, locates=question.answer == "locate"))


class TransformersBackend:
    """A checkpoint as a respondent: it turns views into pictures.

    A region is shown as one picture by default, since most networks cut tiles of their own, and its tile is the
    checkpoint's own where it has one, so that what the network looks at is what was read, unresampled. Raises
    `RequestError` for options that cannot be.
    """

    def __init__(self, options: TransformersVlmOptions, *, locates: bool = False) -> None:
        self._options = options
        self._source = options.checkpoint
        self._locates = locates
        if locates and options.views == "tiles":
            rule = "locate needs one picture, whose coordinates boxes are in"
            raise invalid_option("views", "vlm", rule, value="tiles", remedy="Leave it out")
        self._files: CheckpointFiles | None = None
        self._named: dict[str, str] | None = None
        self._made: Processor | None = None
        self._network: ImageText | None = None
        self._sizes: dict[tuple[int, ...], tuple[int, int]] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, how pictures are shown to it, and what runs it. Raises `ModelError`."""
        if self._named is None:  # weights are long, and their files do not change while a run goes on
            files, processor, device = self._found(), self._processor(), self._where()
            shown_as = {"canvas": "the region as one picture", "tiles": "the global view, then each tile"}
            letterbox = ", laid on a white square" if processor.fit == "letterbox" else ""
            self._named = {
                "name": "vlm",
                "annotator": "vlm",
                **files.identity(processor.family),
                "family": processor.family,
                "runtime": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "llguidance")),
                "device": device.partition(":")[0],
                "dtype": self._number_type(device),
                "shown": shown_as[self._options.views] + letterbox,
                **({"boxes": str(self._unit())} if self._locates else {}),
            }
        return self._named

    def check(self, question: Question) -> None:
        """Whether its files are here, and device, tokenizer, template and context can do with this question."""
        fetch_weights(self._found(), fetch=self._options.fetch)
        self._where()
        if self._locates:
            self._unit()
        processor = self._processor()
        refuse_marks(question.texts, of="vlm", own=processor.mark)
        side = self._options.tile or _own_tile(self._found())
        pictures = [np.full((side, side, 3), WHITE, dtype=np.uint8)] * (1 if self._options.views == "canvas" else 2)
        read = [len(processor.read(pictures, prompt)["input_ids"][0]) for prompt in question.prompts()]
        room = question.max_tokens if question.answer != "classify" else 1
        check_room(f"question to {self._source}", max(read) + room, processor.context)
        if question.schema:
            from .grammar import Constraint, Vocabulary

            Constraint(Vocabulary.of_fast(processor.tokenizer, ends=processor.ends), question.schema).mask()

    def input_spec(self) -> InputSpec:
        """Rendered RGB in tiles of the checkpoint's own size, else of about 336 pixels. Raises `ModelError`."""
        files = self._found()
        family = files.read("config.json").text("model_type")
        return InputSpec(
            tile=self._options.tile or _own_tile(files), overall=self._options.views == "tiles", variant=family
        )

    def load(self) -> None:
        """See `VlmBackend`."""
        self._loaded()

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost:
        """See `VlmBackend`: from settings, headers and the processor."""
        from .cost import reckon

        processor, device, side = self._processor(), self._where(), self.input_spec().tile
        pictures = [(side, side)] * (1 + tiles[0] * tiles[1])
        if self._options.views == "canvas":
            width, height = side * tiles[0], side * tiles[1]
            square = (max(width, height), max(width, height))
            pictures = [square if processor.fit == "letterbox" else (width, height)]
        return reckon(processor, pictures, question, device=device, dtype=self._number_type(device))

    def box_format(self, view: View) -> BoxFormat:
        """The family's coordinates over the picture that it is shown, a white margin included. Raises `ModelError`."""
        width, height = view.grid.size
        side = max(width, height)
        unit = self._unit()
        span = (0.0, 0.0, float(width), float(height))
        if self._processor().fit == "letterbox":
            x, y = (side - width) // 2, (side - height) // 2
            span = (float(-x), float(-y), float(side - x), float(side - y))
        pixels = (round(span[2] - span[0]), round(span[3] - span[1]))
        if unit == "pixels":
            pixels = self._resized(pixels)
        return BoxFormat.of(unit, span, pixels, within=(float(width), float(height)))

    def generate(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """See `VlmBackend.generate`: one view at a time."""
        network = self._loaded()
        pairs = zip(views, prompts, strict=True)
        return [network.generate(self._pictures(view), prompt, limit=limit, schema=schema) for view, prompt in pairs]

    def score_options(
        self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """See `VlmBackend.score_options`: each view is read once for all prompts and options."""
        network = self._loaded()
        return np.stack([network.score_options(self._pictures(view), prompts, options) for view in views])

    def _pictures(self, view: View) -> list[Picture]:
        """What the network is shown of a view."""
        pictures = pictures_of(view, self._options.views)
        return [letterbox(one) for one in pictures] if self._processor().fit == "letterbox" else pictures

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that the processor makes of a picture of that size."""
        if size not in self._sizes:
            self._sizes[size] = self._processor().excerpt(np.full((size[1], size[0], 3), WHITE, dtype=np.uint8))
        return self._sizes[size]

    def _unit(self) -> Unit:
        family = self._found().read("config.json").text("model_type")
        unit = self._options.boxes or BOXES.get(family)
        if unit is None:
            raise ModelError(
                f"checkpoint {self._source}",
                "to locate, the coordinates that it names boxes in must be known",
                value=excerpt(f"nothing is known of model_type {family}"),
                remedy=f"Look them up and say them: --set model_options.boxes={'|'.join(get_args(Unit))}",
            )
        return unit

    def _where(self) -> str:
        from .image_text import resolve_device

        return resolve_device(self._options.device or "auto")

    def _number_type(self, device: str) -> str:
        """The type of number to compute in: unless it is told, float32 on a processor, else the checkpoint's own."""
        return self._options.dtype or ("float32" if device == "cpu" else "auto")

    def _found(self) -> CheckpointFiles:
        if self._files is None:
            self._files = find_files(self._source, fetch=self._options.fetch, small=SMALL)
        return self._files

    def _processor(self) -> "Processor":
        if self._made is None:
            from .processor import Processor

            self._made = Processor(self._found())
        return self._made

    def _loaded(self) -> "ImageText":
        if self._network is None:
            from .image_text import ImageText

            processor, device = self._processor(), self._where()
            dtype, threads = self._number_type(device), self._options.threads
            self._network = ImageText(processor, device=device, dtype=dtype, threads=threads)
        return self._network


def letterbox(picture: Picture) -> Picture:
    """A picture (H, W, 3) in the middle of a white square, with the odd pixel below or to the right."""
    height, width = picture.shape[:2]
    side = max(height, width)
    if height == width:
        return picture
    square = np.full((side, side, 3), WHITE, dtype=np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = picture
    return square


def _own_tile(files: CheckpointFiles) -> int:
    """The side of the pictures that the vision tower was made for, or the multiple of its patches next to 336."""
    vision = files.read("config.json").part("vision_config")
    for stated in (vision.get("image_size"), files.preprocessing().get("crop_size")):
        side = _side(stated)
        if SMALLEST <= side <= LARGEST:
            return side
    patch, merged = vision.get("patch_size"), vision.get("spatial_merge_size", 1)
    if type(patch) is int and type(merged) is int and 0 < patch * merged <= TILE:
        return round(TILE / (patch * merged)) * patch * merged
    return TILE


def _side(stated: Any) -> int:
    """The side of a square that a file states as a number, a list or by names; 0 for anything else."""
    if isinstance(stated, dict):
        several = list(cast("dict[str, object]", stated).values())
    else:
        several = cast("list[object]", stated) if isinstance(stated, list) else [stated]
    numbers = {number for number in several if type(number) is int}
    return numbers.pop() if len(numbers) == 1 else 0
