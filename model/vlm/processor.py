"""What a checkpoint makes of pictures and words: its own image processor, tokenizer and chat template.

Knows no network. The parts are put together here rather than by transformers' own loader, since that wants torchvision
for the videos that nobody shows, and since pictures are always prepared with Pillow: an answer then does not depend on
what else is installed. Only transformers' own classes are made, never code of a checkpoint.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # the top's wants torchvision, at times
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import (
    PROCESSOR_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage] - where all versions have it
    processor_class_from_name,
)

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import CheckpointFiles, check_tokenizer
from ..checkpoints.loading import silence_transformers
from ..checkpoints.untrusted import wrap_errors
from .chat_templates import try_templates
from .special_tokens import refuse_marks

Fit = Literal["as it is", "letterbox"]
Picture = npt.NDArray[np.uint8]

WHITE = 255
PROBE = 224  # pixels; the short side of the pictures that try out a processor
CORNER = 16  # a mark in a corner has a side of this part of the picture's


class Processor:
    """A checkpoint's processor. `fit` says how a picture must be laid for all of it to reach the network.

    "letterbox" where the processor would cut the rim off a picture that is not square, or where the family was trained
    with squares. Raises `ModelError` where it cannot be made, or hides the rim of every picture.
    """

    def __init__(self, files: CheckpointFiles) -> None:
        self.files = files
        self.family = _family(files)
        with silence_transformers(), loading(files):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                files.folder, local_files_only=True, trust_remote_code=False
            )
        self._processor: Any = self._make()
        if not self._processor.chat_template:
            raise ModelError(
                f"checkpoint {files.source}",
                "it must have a chat template, which says how a picture and a question are put to it",
                remedy="Copy its chat_template.jinja into the folder; a base model that does not chat cannot be asked",
            )
        self.fit: Fit = self._find_fit()
        self.ends = self._find_ends()
        """The tokens that end an answer, in order."""

    def read(self, pictures: Sequence[Picture], prompt: str) -> dict[str, Any]:
        """What the network gets of pictures (H, W, 3) and a prompt: torch tensors by name, a batch of one.

        Raises `RequestError` for a prompt with a mark of the chat's own, `ModelError` where the template does not take
        so many pictures or the processor cannot do with one.
        """
        refuse_marks({"question": prompt}, of="vlm", own=self.mark)
        return self._run(pictures, self._render(prompt, len(pictures)))

    def tail(self, prompt: str, answer: str, *, pictures: int) -> list[int]:
        """The tokens of an answer that follow those of `read`, without its end: as the chat template would place it.

        Some templates put a space before an answer, and a word after a space is another token.
        """
        refuse_marks({"labels": answer}, of="vlm", own=self.mark)
        asked = self._render(prompt, pictures)
        told = self._render(prompt, pictures, answer=answer)
        before = told[len(asked) :].partition(answer)[0] if told.startswith(asked) else ""
        placed = answer if before.strip() else before + answer
        known, whole = self._encode(asked), self._encode(asked + placed)
        return whole[len(known) :] if whole[: len(known)] == known else self._encode(placed)

    def excerpt(self, picture: Picture) -> tuple[int, int]:
        """(width, height) of a picture as the processor resizes it, where it says so; else its own."""
        grid = self._run([picture], self._render("", 1)).get("image_grid_thw")
        patch = getattr(self._processor.image_processor, "patch_size", None)
        if grid is None or not isinstance(patch, int):
            return picture.shape[1], picture.shape[0]
        _, rows, columns = (int(number) for number in grid[0])
        return columns * patch, rows * patch

    def _make(self) -> Any:
        """The processor of its image processor, its tokenizer and its settings, with nothing for sound and videos."""
        with silence_transformers(), loading(self.files):
            images = AutoImageProcessor.from_pretrained(
                self.files.folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
            made = cast("Any", processor_class_from_name(self._class_name()))
            kind = type(made.__name__, (made,), {"check_argument_for_proper_class": _accept})
            settings, _ = kind.get_processor_dict(self.files.folder, local_files_only=True)
            if not settings.get("chat_template"):
                settings["chat_template"] = getattr(self.tokenizer, "chat_template", None)
            parts = {"image_processor": images, "tokenizer": self.tokenizer}
            return kind.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], settings)

    def _class_name(self) -> str:
        """The name of its processor's class, from the files that transformers asks, in its order."""
        for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
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
        square = (2 * PROBE, 2 * PROBE)
        if self.family != "llava" and all(map(self._sees_corners, ((PROBE, 2 * PROBE), (2 * PROBE, PROBE)))):
            return "as it is"
        if self._sees_corners(square):
            return "letterbox"
        images = self._processor.image_processor
        crop = getattr(images, "crop_size", None)
        if getattr(images, "do_center_crop", False) and crop is not None and crop["height"] == crop["width"]:
            images.size = crop  # no larger than what is kept of it
            if self._sees_corners(square):
                return "letterbox"
        raise ModelError(
            f"checkpoint {self.files.source}",
            "its processor must show the network whole pictures",
            value="the corners of a square do not reach it",
            remedy="Switch its crop off in preprocessor_config.json, or name another checkpoint",
        )

    def _sees_corners(self, shape: tuple[int, int]) -> bool:
        """Whether a mark in any corner of a white picture of (height, width) changes what the network gets."""
        text = self._render("", 1)
        white = np.full((*shape, 3), WHITE, dtype=np.uint8)
        plain = self._run([white], text)
        height, width = (side // CORNER for side in shape)
        for rows in (slice(None, height), slice(-height, None)):
            for columns in (slice(None, width), slice(-width, None)):
                marked = white.copy()
                marked[rows, columns] = 0
                if _same(plain, self._run([marked], text)):
                    return False
        return True

    def _find_ends(self) -> tuple[int, ...]:
        """What ends an answer: the tokenizer's mark, the generation's settings, and the chat template's next mark."""
        name = "generation_config.json"
        stated: object = self.files.read(name).get("eos_token_id") if (self.files.folder / name).is_file() else None
        several = cast("list[object]", stated) if isinstance(stated, list) else [stated]
        found = {one for one in (self.tokenizer.eos_token_id, *several) if isinstance(one, int)}
        word = "answer"
        after = self._encode(self._render("", 1, answer=word).rpartition(word)[2].lstrip())
        if after and after[0] in self._marks():
            found.add(after[0])
        if not found:
            raise ModelError(
                f"checkpoint {self.files.source}",
                "it must say which token ends an answer",
                value="neither tokenizer, generation_config.json nor chat template do",
                remedy="State eos_token in tokenizer_config.json",
            )
        return tuple(sorted(found))

    def _render(self, prompt: str, pictures: int, *, answer: str = "") -> str:
        """The conversation as text, with a place for each picture: up to where the answer begins, or with it."""
        asked: list[dict[str, str]] = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": prompt}]
        talk: list[dict[str, Any]] = [{"role": "user", "content": asked}]
        if answer:
            talk.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        with self._asked("its chat template must take pictures and a question"):
            return str(self._processor.apply_chat_template(talk, add_generation_prompt=not answer, tokenize=False))

    def _run(self, pictures: Sequence[Picture], text: str) -> dict[str, Any]:
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        further: dict[str, Any] = {"add_special_tokens": False} if begun else {}
        count = len(pictures)
        rule = f"its processor and chat template must take {count} picture{'s' if count > 1 else ''} at once"
        with silence_transformers(), self._asked(rule):
            marks = [getattr(self._processor, name, None) for name in ("image_token", "boi_token")]
            places = {text.count(mark) for mark in marks if isinstance(mark, str)}
            if places and count not in places:  # not every version looks
                msg = f"the template has {max(places)} places for pictures"
                raise ValueError(msg)
            return dict(self._processor(text=[text], images=[list(pictures)], return_tensors="pt", **further))

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _marks(self) -> set[int]:
        """Tokens that are never words."""
        added = self.tokenizer.added_tokens_decoder
        marks = {place for place, token in added.items() if token.special} | set(self.tokenizer.all_special_ids)
        return marks - {self.tokenizer.unk_token_id}

    def mark(self, text: str) -> str:
        """The first mark that its tokenizer finds in a text, "" where it finds none."""
        marks = self._marks()
        found = next((token for token in self._encode(text) if token in marks), None)
        return "" if found is None else str(self.tokenizer.convert_ids_to_tokens(found))

    @cached_property
    def context(self) -> int:
        """How many tokens the network reads, 0 where its settings do not say."""
        with silence_transformers(), loading(self.files):
            settings = AutoConfig.from_pretrained(self.files.folder, local_files_only=True, trust_remote_code=False)
            return int(getattr(settings.get_text_config(), "max_position_embeddings", 0) or 0)

    @contextmanager
    def _asked(self, rule: str) -> Generator[None]:
        remedy = "Show one picture with --set model_options.views=canvas, or name another checkpoint"
        with wrap_errors(f"checkpoint {self.files.source}", rule, remedy=remedy, running=True):
            yield


@contextmanager
def loading(files: CheckpointFiles) -> Generator[None]:
    """Whatever a library raises while it reads a checkpoint becomes a `ModelError`."""
    remedy = "Check that its files are whole, and that the installed transformers knows its type"
    with wrap_errors(f"checkpoint {files.source}", "transformers must be able to load it", remedy=remedy):
        yield


def _family(files: CheckpointFiles) -> str:
    """The checkpoint's model_type. Raises `ModelError` for one that does not answer questions about pictures."""
    check_tokenizer(files)
    try_templates(files.folder, files.source)
    family = files.read("config.json").text("model_type")
    if family not in cast("Mapping[str, str]", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        compared = family in {"clip", "siglip"}
        raise ModelError(
            f"checkpoint {files.source}",
            "it must be one that answers questions about pictures, as the installed transformers knows them",
            value=excerpt(f"model_type {family}") if family else "no model_type is stated",
            remedy="Use it with --model zero-shot" if compared else "Name another checkpoint",
        )
    return family


def _accept(self: Any, name: str, part: Any) -> None:
    """Take the parts as they are: those for sound and videos are absent on purpose."""
    del self, name, part


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(np.asarray(one[k]), np.asarray(other[k])) for k in one)
