"""The `vlm` annotator: any image-text-to-text checkpoint in transformers' format answers questions about regions."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.options import invalid_option
from ..annotator import Cost, InputSpec, View
from ..checkpoints.files import CONFIGS, TOKENIZER, CheckpointFiles, as_numbers, fetch_weights, find_files
from ..tiling import TILE, WHITE
from .annotator import OptionScores, Picture, VlmAnnotator, check_context, view_pictures
from .box_format import BoxFormat, Unit
from .question import PictureOptions, Question, refuse_special_tokens
from .texts import GeneratedText

if TYPE_CHECKING:
    from .image_text import ImageTextModel
    from .processor import Processor

SMALL_FILES = (*CONFIGS, *TOKENIZER, "chat_template.jinja", "chat_template.json", "generation_config.json")
MIN_TILE, MAX_TILE = 28, 2048  # pixels

BOX_UNITS: Mapping[str, Unit] = {
    "internvl": "thousandths",  # InternVL 2.5's and 3's training data
    "llava": "unit",  # LLaVA 1.5, arXiv 2310.03744: 0 to 1 of the picture padded to a square
    "qwen2_5_vl": "pixels",  # Qwen2.5-VL, arXiv 2502.13923: of the picture as its processor resizes it
    "qwen2_vl": "thousandths",  # Qwen2-VL, arXiv 2409.12191
    "qwen3_vl": "thousandths",  # Qwen3-VL's cookbook on grounding
    "qwen3_vl_moe": "thousandths",  # the same
}
"""Family → the coordinates in which it was trained to name boxes."""

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_CACHES = 3  # held to classify: of all prompts' common part, of one prompt, and of an option


class TransformersVlmOptions(PictureOptions):
    """Options of `vlm`, including those of the question."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder in transformers' format, or a hub id `OWNER/NAME@COMMIT`.",
        examples=["--model vlm:FOLDER, or vlm:OWNER/NAME@COMMIT"],
    )
    tile: int | None = Field(
        default=None, ge=MIN_TILE, le=MAX_TILE, description="Side of a tile in pixels; by default the checkpoint's own."
    )
    dtype: Literal["", "float32", "bfloat16", "float16", "auto"] = Field(
        default="", description="Type of number; by default float32 on a CPU, else the checkpoint's own."
    )
    device: str = Field(default="auto", description="torch's name of a device; auto is a GPU where there is one.")


class TransformersVlmAnnotator(VlmAnnotator):
    """The annotator `vlm`. Raises `RequestError` for options that contradict each other."""

    Options = TransformersVlmOptions

    def __init__(self, options: TransformersVlmOptions) -> None:
        question = Question.from_options(options, "vlm").check_grammar("vlm")
        super().__init__(question, TransformersBackend(options, locates=question.answer == "locate"))


class TransformersBackend:
    """A checkpoint of transformers; see `VlmBackend`. Raises `RequestError` for options that contradict each other.

    By default a region is one picture, since most networks cut tiles of their own, and its tile is the checkpoint's own
    where it has one, so that pixels reach the network without resampling.
    """

    def __init__(self, options: TransformersVlmOptions, *, locates: bool = False) -> None:
        self._options = options
        self._source = options.checkpoint
        self._locates = locates
        if locates and options.views == "tiles":
            rule = "must be canvas to locate, for boxes in one picture"
            raise invalid_option("views", "vlm", rule, value="tiles", remedy="Leave it out")
        self._resized: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, how it is shown pictures, and what runs it. Raises `ModelError`."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, str]:  # cached: hashing large weights takes time
        device, family = self._device, self._processor.family
        shown_as = {"canvas": "the region as one picture", "tiles": "the global view, then each tile"}
        square = ", laid on a white square" if self._processor.fit == "letterbox" else ""
        return {
            "name": "vlm",
            "annotator": "vlm",
            **self._files.identity(family),
            "family": family,
            "runtime": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "llguidance")),
            "device": device.partition(":")[0],
            "dtype": self._dtype,
            "shown": shown_as[self._options.views] + square,
            **({"boxes": str(self._box_unit())} if self._locates else {}),
        }

    def check(self, question: Question) -> None:
        """Verify the files, and that device, tokenizer, template and context suffice for this question."""
        fetch_weights(self._files, fetch=self._options.fetch)
        _ = self._device
        if self._locates:
            self._box_unit()
        processor = self._processor
        refuse_special_tokens(question.texts, of="vlm", find=processor.special_token)
        pictures = [_white(self._tile, self._tile)] * (1 if self._options.views == "canvas" else 2)
        longest = max(len(processor.read(pictures, prompt)["input_ids"][0]) for prompt in question.prompts())
        written = question.max_tokens if question.answer != "classify" else 0
        tokens = longest + (written or 1)
        check_context(f"question to {self._source}", tokens, processor.context, written=written)
        if question.schema:
            processor.vocabulary().check_schema(question.schema)

    def input_spec(self) -> InputSpec:
        """Rendered RGB in tiles of the checkpoint's own size, else of about 336 pixels. Raises `ModelError`."""
        return InputSpec(tile=self._tile, overall=self._options.views == "tiles", variant=self._family)

    def load(self) -> None:
        """See `VlmBackend`."""
        _ = self._model

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost:
        """See `VlmBackend`: from settings, headers and the processor."""
        processor, side = self._processor, self._tile
        pictures = [(side, side)] * (1 + tiles[0] * tiles[1])
        if self._options.views == "canvas":
            width, height = side * tiles[0], side * tiles[1]
            longest = max(width, height)
            pictures = [(longest, longest) if processor.fit == "letterbox" else (width, height)]
        return _estimate_cost(processor, pictures, question, device=self._device, dtype=self._dtype)

    def box_format(self, view: View) -> BoxFormat:
        """The family's coordinates over its picture, including any white margin. Raises `ModelError`."""
        width, height = view.grid.size
        span, pixels = (0.0, 0.0, float(width), float(height)), (width, height)
        if self._processor.fit == "letterbox":
            side = max(width, height)
            x, y = (side - width) // 2, (side - height) // 2
            span, pixels = (float(-x), float(-y), float(side - x), float(side - y)), (side, side)
        unit = self._box_unit()
        if unit == "pixels":
            if pixels not in self._resized:
                self._resized[pixels] = self._processor.resized(pixels)
            pixels = self._resized[pixels]
        return BoxFormat.of(unit, span, pixels, canvas=(float(width), float(height)))

    def generate(
        self,
        views: Sequence[View],
        prompts: Sequence[str],
        *,
        limit: int,
        schema: str = "",
        formats: Sequence[BoxFormat] = (),
    ) -> list[GeneratedText]:
        """See `VlmBackend`: one view at a time, and boxes under their schema."""
        del formats
        pairs = zip(views, prompts, strict=True)
        return [self._model.generate(self._pictures(view), text, limit=limit, schema=schema) for view, text in pairs]

    def score_options(self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]) -> OptionScores:
        """See `VlmBackend`: each view is read once for all prompts and options."""
        scores = [self._model.score_options(self._pictures(view), prompts, options) for view in views]
        return OptionScores(np.stack(scores))

    def _pictures(self, view: View) -> list[Picture]:
        """The pictures of a view as the network gets them."""
        pictures = view_pictures(view, self._options.views)
        return [letterbox(one) for one in pictures] if self._processor.fit == "letterbox" else pictures

    def _box_unit(self) -> Unit:
        unit = self._options.boxes or BOX_UNITS.get(self._family)
        if unit is None:
            raise ModelError(
                f"checkpoint {self._source}",
                "must be of a family whose box coordinates are known, to locate",
                value=excerpt(f"model_type {self._family}"),
                remedy=f"Look them up, then --set model_options.boxes={'|'.join(get_args(Unit))}",
            )
        return unit

    @cached_property
    def _family(self) -> str:
        return self._files.read("config.json").text("model_type")

    @cached_property
    def _tile(self) -> int:
        return self._options.tile or _own_tile(self._files)

    @cached_property
    def _device(self) -> str:
        from .image_text import resolve_device

        return resolve_device(self._options.device or "auto")

    @property
    def _dtype(self) -> str:
        return self._options.dtype or ("float32" if self._device == "cpu" else "auto")

    @cached_property
    def _files(self) -> CheckpointFiles:
        return find_files(self._source, fetch=self._options.fetch, small=SMALL_FILES)

    @cached_property
    def _processor(self) -> "Processor":
        from .processor import Processor

        return Processor(self._files)

    @cached_property
    def _model(self) -> "ImageTextModel":
        from .image_text import ImageTextModel

        return ImageTextModel(self._processor, device=self._device, dtype=self._dtype, threads=self._options.threads)


def letterbox(picture: Picture) -> Picture:
    """A picture (H, W, 3) in the middle of a white square, with an odd pixel below or to the right."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = _white(side, side)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = picture
    return square


def _white(width: int, height: int) -> Picture:
    return np.full((height, width, 3), WHITE, dtype=np.uint8)


def _own_tile(files: CheckpointFiles) -> int:
    """The side of the vision encoder's pictures, or the multiple of its merged patches next to 336."""
    vision = files.read("config.json").part("vision_config")
    for stated in (vision.get("image_size"), files.preprocessing().get("crop_size")):
        sides = set(as_numbers(stated))
        side = sides.pop() if len(sides) == 1 else 0
        if isinstance(side, int) and MIN_TILE <= side <= MAX_TILE:
            return side
    patch, merged = vision.get("patch_size"), vision.get("spatial_merge_size", 1)
    if type(patch) is int and type(merged) is int and 0 < patch * merged <= TILE:
        return round(TILE / (patch * merged)) * patch * merged
    return TILE


def _estimate_cost(
    processor: "Processor", pictures: Sequence[tuple[int, int]], question: Question, *, device: str, dtype: str
) -> Cost:
    """The cost of a question about pictures of (width, height).

    Tokens are exact: the processor counts them on white pictures. Activations are the widest moment of a layer, with
    attention computed in blocks. Raises `ModelError`, `RequestError`.
    """
    from ..checkpoints.memory import weight_bytes

    config = processor.config
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    if dtype == "auto":
        dtype = str(getattr(config, "dtype", None) or getattr(text, "dtype", None) or "").removeprefix("torch.")
    weights = weight_bytes(processor.files, itemsize=_ITEMSIZE.get(dtype, 0))
    itemsize = _ITEMSIZE.get(dtype, _ITEMSIZE["float32"])
    prompts = question.prompts()
    inputs = processor.read([_white(*size) for size in pictures], max(prompts, key=len))
    read = int(inputs["input_ids"].shape[1])
    classify = question.answer == "classify"
    written = 0 if classify else question.max_tokens
    tokens = read + written
    heads, hidden, layers = (_size(text, name) for name in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    head_dim = _size(text, "head_dim") or (hidden // heads if heads else 0)
    cache = 2 * layers * (_size(text, "num_key_value_heads") or heads) * head_dim * tokens * itemsize
    patches = _vision_patches(inputs, vision)
    encoding = patches * (4 * _size(vision, "intermediate_size") + 6 * _size(vision, "hidden_size"))
    reading = read * (5 * _size(text, "intermediate_size") + 6 * hidden)
    pixels = sum(math.prod(value.shape) for value in inputs.values() if value.is_floating_point())
    features = patches * _size(vision, "hidden_size")
    return Cost(
        weights=weights,
        dtype=dtype or "their own type",
        work=(len(prompts) if question.answer == "locate" else 1)
        * (2 * weights / itemsize * tokens + 2 * layers * heads * head_dim * tokens**2),
        cache=float(cache * (_CACHES if classify else 1)),
        activations=float((max(encoding, reading) + features + pixels) * itemsize),
        tokens=tokens,
        image_tokens=processor.image_tokens(inputs),
        answer_tokens=written,
        context=processor.context,
        device=device,
    )


def _size(settings: Any, name: str) -> int:
    """A size in settings; 0 where they state none: some families name it otherwise."""
    value = getattr(settings, name, None)
    return value if isinstance(value, int) else 0


def _vision_patches(inputs: dict[str, Any], vision: Any) -> int:
    """Patches of the vision encoder: rows of them, or of pictures that it cuts up itself."""
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return 0
    if pixels.ndim == 2:
        return int(pixels.shape[0])
    *several, height, width = cast("tuple[int, ...]", tuple(pixels.shape))
    patch = _size(vision, "patch_size") or 14
    return math.prod(several[:-1]) * (height // patch) * (width // patch)
