"""A checkpoint's own image processor, tokenizer and chat template: pictures and a prompt become input of its network.

The parts are put together here, not by transformers' own loader, which needs torchvision for the videos that limner
never shows. Pictures are always prepared with Pillow, so that an answer does not depend on other installed packages.
Only transformers' own classes are made; code that comes with a checkpoint is never run.
"""

# transformers' types do not state what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # the top-level one needs torchvision
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import (
    PROCESSOR_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage] - where all versions have it
    processor_class_from_name,
)

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import CheckpointFiles, check_tokenizer
from ..checkpoints.loading import silence_transformers
from ..checkpoints.untrusted import MAX_TILE, wrap_errors
from ..tiling import WHITE
from .annotator import Picture
from .chat_templates import check_templates
from .question import refuse_special_tokens
from .texts import THOUGHT_MARKS

if TYPE_CHECKING:
    from .decoding import Vocabulary

Fit = Literal["unchanged", "letterbox"]
"""How a picture reaches the network whole: letterboxed where the processor would crop pictures that are not square."""

TRIAL = 224  # pixels; the short side of the pictures that try out a processor
CORNER = 16  # a mark in a corner has a side of this part of the picture's
MAX_PIXELS, MAX_PATCHES, MAX_TOKENS = 2**26, 2**12, 2**23
"""What a processor may make of a small picture, by its settings."""

_PROCESSOR, _IMAGES = "processor_config.json", "preprocessor_config.json"
_SIDES, _EDGES = r"(?:\w+_)?size|height|width|image_grid_pinpoints", "(?:shortest|longest)_edge"
_PATCHES, _TOKENS = r"(?:\w+_)?(?:patches|tiles|crops)", r"\w*(?:seq_len|seq_length|tokens)"


class Processor:
    """A checkpoint's processor. Raises `ModelError` where it cannot be made, or hides the border of every picture."""

    def __init__(self, files: CheckpointFiles) -> None:
        self.files = files
        self.family = _family(files)
        _check_settings(files)
        with silence_transformers(), loading(files):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                files.folder, local_files_only=True, trust_remote_code=False
            )
        self._processor: Any = self._make()
        if not self._processor.chat_template:
            raise ModelError(
                f"checkpoint {files.source}",
                "must have a chat template, which joins a picture and a question",
                remedy="Copy its chat_template.jinja into the folder; a base model without one cannot be asked",
            )
        self.fit: Fit = self._find_fit()
        self.stop_tokens = self._find_stop_tokens()
        """The tokens that end an answer, in order."""

    def read(self, pictures: Sequence[Picture], prompt: str, *, thinks: bool = False) -> dict[str, Any]:
        """The network's input for pictures and a prompt: torch tensors by name, a batch of one.

        Where the chat template lets a model think before it answers, it may do so if it `thinks`; else its thought is
        ended before it begins, so that the next token is the answer's. Raises `RequestError` for a prompt with special
        tokens, `ModelError` where template or processor do not take the pictures.
        """
        refuse_special_tokens({"question": prompt}, of="vlm", find=self.special_token)
        return self._run(pictures, self._render(prompt, len(pictures), thinks=thinks))

    def answer_tokens(self, prompt: str, answer: str, *, pictures: int) -> list[int]:
        """The tokens of an answer after those of `read`, without its end, as the chat template places it.

        Some templates put a space before an answer, and a word after a space is another token.
        """
        refuse_special_tokens({"labels": answer}, of="vlm", find=self.special_token)
        before = self._render(prompt, pictures)
        whole = self._render(prompt, pictures, answer=answer)
        space = whole[len(before) :].partition(answer)[0] if whole.startswith(before) else ""
        placed = answer if space.strip() else space + answer
        known, tokens = self._encode(before), self._encode(before + placed)
        return tokens[len(known) :] if tokens[: len(known)] == known else self._encode(placed)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) to which the processor resizes a picture of that size, where it tells; else the same."""
        white = np.full((size[1], size[0], 3), WHITE, dtype=np.uint8)
        grid = self._run([white], self._render("", 1)).get("image_grid_thw")
        patch = getattr(self._processor.image_processor, "patch_size", None)
        if grid is None or not isinstance(patch, int):
            return size
        _, rows, columns = (int(number) for number in grid[0])
        return columns * patch, rows * patch

    def _make(self) -> Any:
        """The processor of its image processor, its tokenizer and its settings, without audio and video."""
        with silence_transformers(), loading(self.files):
            images = AutoImageProcessor.from_pretrained(
                self.files.folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
            named = cast("Any", processor_class_from_name(self._class_name()))
            kind = type(named.__name__, (named,), {"check_argument_for_proper_class": _accept})
            settings, _ = kind.get_processor_dict(self.files.folder, local_files_only=True)
            if not settings.get("chat_template"):
                settings["chat_template"] = getattr(self.tokenizer, "chat_template", None)
            parts = {"image_processor": images, "tokenizer": self.tokenizer}
            return kind.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], settings)

    def _class_name(self) -> str:
        """The name of its processor's class, from the files that transformers reads, in its order."""
        for name in (_PROCESSOR, _IMAGES, "tokenizer_config.json"):
            if (self.files.folder / name).is_file():
                stated = self.files.read(name).get("processor_class")
                if isinstance(stated, str):
                    return stated
        known = cast("Mapping[str, str]", PROCESSOR_MAPPING_NAMES).get(self.family)
        if known is None:
            msg = f"no processor class is known for model_type {self.family}"
            raise ValueError(msg)
        return known

    def _find_fit(self) -> Fit:
        square = (2 * TRIAL, 2 * TRIAL)
        if self.family != "llava" and all(map(self._keeps_corners, ((TRIAL, 2 * TRIAL), (2 * TRIAL, TRIAL)))):
            return "unchanged"  # LLaVA was trained with squares
        if self._keeps_corners(square):
            return "letterbox"
        images = self._processor.image_processor
        crop = getattr(images, "crop_size", None)
        if getattr(images, "do_center_crop", False) and crop is not None and crop["height"] == crop["width"]:
            images.size = crop  # no larger than the part that is kept
            if self._keeps_corners(square):
                return "letterbox"
        raise ModelError(
            f"processor of checkpoint {self.files.source}",
            "must show the network whole pictures",
            value="the corners of a square do not reach it",
            remedy="Switch its crop off in preprocessor_config.json, or name another checkpoint",
        )

    def _keeps_corners(self, shape: tuple[int, int]) -> bool:
        """Whether a mark in any corner of a white picture (height, width) changes the network's input."""
        text = self._render("", 1)
        white = np.full((*shape, 3), WHITE, dtype=np.uint8)
        plain = self._run([white], text)
        height, width = (side // CORNER for side in shape)
        for rows in (slice(None, height), slice(-height, None)):
            for columns in (slice(None, width), slice(-width, None)):
                marked = white.copy()
                marked[rows, columns] = 0
                changed = self._run([marked], text)
                if plain.keys() == changed.keys() and all(np.array_equal(plain[k], changed[k]) for k in plain):
                    return False
        return True

    def _find_stop_tokens(self) -> tuple[int, ...]:
        """The tokenizer's end token, those of the generation settings, and the chat template's next special token."""
        name = "generation_config.json"
        stated: object = self.files.read(name).get("eos_token_id") if (self.files.folder / name).is_file() else None
        several = cast("list[object]", stated) if isinstance(stated, list) else [stated]
        found = {one for one in (self.tokenizer.eos_token_id, *several) if isinstance(one, int)}
        word = "answer"
        after = self._encode(self._render("", 1, answer=word).rpartition(word)[2].lstrip())
        if after and after[0] in self._special_tokens():
            found.add(after[0])
        if not found:
            raise ModelError(
                f"checkpoint {self.files.source}",
                "must state which token ends an answer",
                value="none in tokenizer, generation_config.json and chat template",
                remedy="State eos_token in tokenizer_config.json",
            )
        return tuple(sorted(found))

    @cached_property
    def opened_thought(self) -> str:
        """The mark with which the chat template begins a thought that the model goes on with, "" for none."""
        text = self._render("", 1, thinks=True).rstrip()
        return next((begin for begin, _ in THOUGHT_MARKS if text.endswith(begin)), "")

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones but for the marks of a thought."""
        marks = self._thought_tokens
        parts = [(marked, list(run)) for marked, run in groupby(tokens, marks.__contains__)]
        return "".join(
            "".join(marks[token] for token in run)
            if marked
            else str(self.tokenizer.decode(run, skip_special_tokens=True))
            for marked, run in parts
        )

    @cached_property
    def _thought_tokens(self) -> dict[int, str]:
        """The special tokens that begin or end a thought, which decoding would leave out."""
        known = {mark for pair in THOUGHT_MARKS for mark in pair}
        added = self.tokenizer.added_tokens_decoder
        return {place: token.content for place, token in added.items() if token.special and token.content in known}

    def _render(self, prompt: str, pictures: int, *, answer: str = "", thinks: bool = False) -> str:
        """The conversation as text with a place for each picture, up to where the answer begins, or with it."""
        content: list[dict[str, str]] = [{"type": "image"}] * pictures + [{"type": "text", "text": prompt}]
        conversation: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer:
            conversation.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        switch = (
            {} if thinks or "enable_thinking" not in str(self._processor.chat_template) else {"enable_thinking": False}
        )
        with self._running("must take pictures and a question", "chat template", pictures):
            text = str(
                self._processor.apply_chat_template(
                    conversation, add_generation_prompt=not answer, tokenize=False, **switch
                )
            )
        ends = [end for begin, end in THOUGHT_MARKS if text.rstrip().endswith(begin)]
        return text if thinks or not ends else f"{text.rstrip()}\n\n{ends[0]}\n\n"

    def _run(self, pictures: Sequence[Picture], text: str) -> dict[str, Any]:
        has_bos = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        further: dict[str, Any] = {"add_special_tokens": False} if has_bos else {}
        count = len(pictures)
        rule = f"must take {count} picture{'s' if count > 1 else ''} at once"
        with silence_transformers(), self._running(rule, "processor and chat template", count):
            marks = [getattr(self._processor, name, None) for name in ("image_token", "boi_token")]
            places = {text.count(mark) for mark in marks if isinstance(mark, str)}
            if places and count not in places:  # not every version of transformers checks
                msg = f"the template has {max(places)} places for pictures"
                raise ValueError(msg)
            return dict(self._processor(text=[text], images=[list(pictures)], return_tensors="pt", **further))

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _special_tokens(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder
        special = {place for place, token in added.items() if token.special} | set(self.tokenizer.all_special_ids)
        return special - {self.tokenizer.unk_token_id}

    def special_token(self, text: str) -> str:
        """The first special token that its tokenizer finds in a text, "" where it finds none."""
        special = self._special_tokens()
        found = next((token for token in self._encode(text) if token in special), None)
        return "" if found is None else str(self.tokenizer.convert_ids_to_tokens(found))

    def vocabulary(self) -> "Vocabulary":
        """The vocabulary for decoding under a grammar. Raises `ModelError`."""
        from .decoding import Vocabulary

        return Vocabulary.of_fast(self.tokenizer, ends=self.stop_tokens)

    def image_tokens(self, inputs: Mapping[str, Any]) -> int:
        """How many tokens of an input stand for pictures; 0 where the settings do not name their token."""
        names = ("image_token_id", "image_token_index")
        mark = next((one for name in names if isinstance(one := getattr(self.config, name, None), int)), None)
        return 0 if mark is None else int((inputs["input_ids"] == mark).sum())

    @cached_property
    def config(self) -> Any:
        """Transformers' configuration of the network."""
        with silence_transformers(), loading(self.files):
            return AutoConfig.from_pretrained(self.files.folder, local_files_only=True, trust_remote_code=False)

    @property
    def context(self) -> int:
        """Tokens of the network's context, 0 where its settings do not state them."""
        with loading(self.files):
            return int(getattr(self.config.get_text_config(), "max_position_embeddings", 0) or 0)

    @contextmanager
    def _running(self, rule: str, part: str, pictures: int) -> Generator[None]:
        several = "Show one picture with --set model_options.views=canvas, or name another checkpoint"
        remedy = several if pictures > 1 else "Name another checkpoint"
        with wrap_errors(f"{part} of checkpoint {self.files.source}", rule, remedy=remedy, running=True):
            yield


@contextmanager
def loading(files: CheckpointFiles) -> Generator[None]:
    """Turn any exception of a library that reads a checkpoint into a `ModelError`."""
    remedy = "Check that its files are complete, and that the installed transformers has its type"
    with wrap_errors(f"checkpoint {files.source}", "must load in transformers", remedy=remedy):
        yield


def _family(files: CheckpointFiles) -> str:
    """The checkpoint's model_type. Raises `ModelError` for one that does not answer questions about pictures."""
    check_tokenizer(files)
    check_templates(files.folder, files.source)
    config = files.read("config.json")
    family = config.text("model_type")
    if family not in cast("Mapping[str, str]", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        own_code = bool(config.part("auto_map"))
        raise ModelError(
            f"model_type of checkpoint {files.source}",
            "must be an image-text-to-text model of the installed transformers, which answers questions about pictures",
            value=(excerpt(family) or "none") + (", which needs code that comes with it" if own_code else ""),
            remedy=_other_way(family, own_code=own_code),
        )
    return family


_WITHOUT_CODE: Mapping[str, str] = {
    "GOT": "stepfun-ai/GOT-OCR-2.0-hf",
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf, or another size of InternVL3-…-hf or InternVL3_5-…-HF",
    "llava_llama": "llava-hf/llava-1.5-7b-hf",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_qwen": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "multi_modality": "deepseek-community/deepseek-vl-1.3b-chat, or deepseek-community/Janus-Pro-1B",
    "ovis": "thisisiron/Ovis2-1B-hf",
}
"""model_type of a checkpoint with code of its own → the same model for transformers' own classes."""
_FOR_OTHERS: Mapping[str, str] = {"clip": "zero-shot", "siglip": "zero-shot", "internlmxcomposer2": "4khd"}


def _other_way(family: str, *, own_code: bool) -> str:
    """The advice for a model_type that cannot be asked by transformers' own classes."""
    if family in _FOR_OTHERS:
        return f"Use it with --model {_FOR_OTHERS[family]}"
    if family in _WITHOUT_CODE:
        return f"Name the variant that needs no code of its own: {_WITHOUT_CODE[family]}"
    if own_code:
        return (
            "limner runs no code of a checkpoint: look for a variant whose name ends in -hf, or serve it and use "
            "--model endpoint:URL"
        )
    return "Name another checkpoint"


def _check_settings(files: CheckpointFiles) -> None:
    """Raise `ModelError` where a processor's settings turn a small picture into too many pixels, patches or tokens.

    transformers allocates as much as these untrusted numbers state.
    """
    names = [name for name in (_PROCESSOR, _IMAGES) if (files.folder / name).is_file()]
    numbers = [pair for name in names for pair in _numbers(files.read(name))]

    def largest(pattern: str, least: int = 0) -> int:
        return max((number for key, number in numbers if re.fullmatch(pattern, key)), default=least)

    by_area = bool(largest("merge_size"))  # Qwen's edges are numbers of pixels in all
    side = largest(_SIDES if by_area else f"{_SIDES}|{_EDGES}")
    pixels = max(side**2, largest("min_pixels|shortest_edge" if by_area else "min_pixels"))
    pixels *= max(1, largest(f"min_{_PATCHES}"))
    patch = min((number for key, number in numbers if key == "patch_size" and number > 0), default=pixels)
    patches = largest(_PATCHES)
    tokens = max(largest(_TOKENS) * max(1, patches), pixels // patch**2 if patch else 0)
    for what, found, most in (
        ("pixels along a side", side, MAX_TILE),
        ("pixels", pixels, MAX_PIXELS),
        ("patches", patches, MAX_PATCHES),
        ("tokens", tokens, MAX_TOKENS),
    ):
        if found > most:
            raise ModelError(
                f"processor settings of checkpoint {files.source}",
                f"must make at most {most} {what} of a small picture",
                value=str(found),
                remedy=f"Correct {' or '.join(names)}, or get the files again from their source",
            )


def _numbers(settings: object, key: str = "") -> list[tuple[str, int]]:
    """The whole numbers in settings with their keys, at any depth."""
    if isinstance(settings, Mapping):
        return [pair for name, part in cast("Mapping[str, object]", settings).items() for pair in _numbers(part, name)]
    if isinstance(settings, list):
        return [pair for part in cast("list[object]", settings) for pair in _numbers(part, key)]
    return [(key, int(settings))] if isinstance(settings, (int, float)) else []


def _accept(self: Any, name: str, part: Any) -> None:
    """Accept the parts of a processor as they are: those for audio and video are absent."""
    del self, name, part
