"""What the language model reads: its tokenizer, and the layouts in which words and pictures were joined.

`chat` is the released model's own conversation, which begins every part of text with BOS; `benchmark` is that of its
published evaluations, the picture before all words and BOS once; `training` that of its fine-tuning, the picture inside
the person's turn and BOS once. Source: arXiv 2404.06512 and its released vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ....readers.errors import ModelError, RequestError
from ...checkpoints.untrusted import read_bytes, wrap_errors

if TYPE_CHECKING:
    from ..grammar import Vocabulary

MOST = 2**26
"""Bytes of a tokenizer's file."""
Layout = Literal["chat", "benchmark", "training"]

LAYOUTS: tuple[Layout, ...] = ("chat", "benchmark", "training")
FILE = "tokenizer.model"
IMAGE = "<ImageHere>"
TURN: Final = "[UNUSED_TOKEN_146]"  # begins a turn, one piece of the vocabulary
END: Final = "[UNUSED_TOKEN_145]"  # ends it
SYSTEM = (
    "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
    "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by "
    "Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the user such "
    "as English and 中文.\n"
    "- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based on the "
    "provided image."
)  # what the released model was trained to find there, letter for letter


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids between pictures: one part more than there are pictures; the first and the last may be empty."""

    parts: tuple[tuple[int, ...], ...]

    @property
    def pictures(self) -> int:
        """How many pictures it takes."""
        return len(self.parts) - 1

    def __len__(self) -> int:
        """Tokens of text."""
        return sum(map(len, self.parts))


class Tokenizer:
    """A SentencePiece vocabulary with the model's two turn marks.

    `size` is how many tokens it knows; `end` the token that ends an answer, `stops` all that do.
    """

    def __init__(self, path: Path, source: str) -> None:
        from sentencepiece import SentencePieceProcessor

        if not path.is_file():
            raise ModelError(
                f"checkpoint {source}",
                f"it must have its tokenizer, {FILE}",
                value="it is absent",
                remedy=f"Copy the checkpoint's {FILE} into the folder; for a hub id add --fetch",
            )
        content = read_bytes(path, f"checkpoint {source}", most=MOST)
        self._pieces: Any = SentencePieceProcessor()
        with wrap_errors(
            f"checkpoint {source}",
            f"its {FILE} must be a SentencePiece model",
            remedy="Copy the file again: it is damaged",
        ):
            self._pieces.LoadFromSerializedProto(content)
        self.size: int = self._pieces.GetPieceSize()
        self.bos: int = self._pieces.bos_id()
        self.eos: int = self._pieces.eos_id()
        self.end: int = self._pieces.PieceToId(END)
        absent = [piece for piece in (TURN, END) if self._pieces.PieceToId(piece) == self._pieces.unk_id()]
        if absent or self.bos < 0 or self.eos < 0:
            raise ModelError(
                f"checkpoint {source}",
                f"its vocabulary must have <s>, </s>, {TURN} and {END}",
                value=f"no {absent[0] if absent else '<s> or </s>'}",
                remedy=f"Put the {FILE} of a 4KHD model into the folder",
            )

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.eos, self.end

    def encode(self, text: str) -> list[int]:
        """Text → ids, without BOS; the turn marks are one id each."""
        return list(self._pieces.EncodeAsIds(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → text."""
        return str(self._pieces.DecodeIds([int(i) for i in ids]))

    def mark(self, text: str) -> str:
        """The first mark in a text, a token that writes nothing, "" where it holds none."""
        ids = self.encode(text)
        return next(
            (str(self._pieces.IdToPiece(i)) for i in ids if not self._bytes(i) and not self._pieces.IsUnknown(i)), ""
        )

    def pieces(self) -> list[bytes]:
        """The bytes of every token, b"" for those that stand for none."""
        return [self._bytes(i) for i in range(self.size)]

    def _bytes(self, i: int) -> bytes:
        piece: str = self._pieces.IdToPiece(i)
        if self._pieces.IsByte(i):
            return bytes([int(piece[3:5], 16)])
        if self._pieces.IsControl(i) or self._pieces.IsUnknown(i) or self._pieces.IsUnused(i) or piece in {TURN, END}:
            return b""
        return piece.replace("\u2581", " ").encode()


def vocabulary(tokenizer: Tokenizer) -> "Vocabulary":
    """What the tokenizer's tokens write; those that write nothing never stand in an answer."""
    from ..grammar import Vocabulary

    tokens = tokenizer.pieces()
    silent = [place for place, token in enumerate(tokens) if not token]
    return Vocabulary.of_tokens(tokens, ends=tokenizer.stops, special=silent)


def ask(
    tokenizer: Tokenizer,
    question: str,
    *,
    layout: Layout = "chat",
    system: str = SYSTEM,
    earlier: Sequence[tuple[str, str]] = (),
) -> Prompt:
    """The prompt of a question about one picture, or those whose places `<ImageHere>` holds in layout "chat".

    `earlier` are the conversation's (question, answer) so far; the picture stands where the first one put it, before
    it unless it says otherwise. In "benchmark" and "training" there is no system and no earlier turn. Raises
    `RequestError` for a question that holds the vocabulary's turn marks.
    """
    turns = [*earlier, (question, "")]
    bad = next((mark for asked, said in turns for mark in (TURN, END) if mark in asked or mark in said), "")
    if bad:
        raise RequestError(
            "question", "it must not hold the marks of the model's turns", value=bad, remedy="Leave the mark out"
        )
    if layout == "training":
        before = tokenizer.encode(f"{TURN}user\n")
        return Prompt(((tokenizer.bos, *before), tuple(tokenizer.encode(f"{question}{END}\n{TURN}assistant\n"))))
    if layout == "benchmark":
        text = f"{TURN}user\n{question}{END}\n{TURN}assistant\n"
        return Prompt(((tokenizer.bos,), tuple(tokenizer.encode(text))))
    if not any(IMAGE in asked for asked, _ in turns):
        turns[0] = (IMAGE + turns[0][0], turns[0][1])
    text = f"{TURN}system\n{system}{END}\n" if system else ""
    for asked, said in turns[:-1]:
        text += f"{TURN}user\n{asked}{END}\n{TURN}assistant\n{said}{END}\n"
    text += f"{TURN}user\n{turns[-1][0]}{END}\n{TURN}assistant\n"
    parts = [(tokenizer.bos, *tokenizer.encode(part)) if part else () for part in text.split(IMAGE)]
    return Prompt(tuple(parts))
