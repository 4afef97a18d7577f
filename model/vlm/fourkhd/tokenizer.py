"""The tokenizer and prompt layouts of 4KHD, and training the tokenizer of a small model.

Sources: arXiv 2404.06512 and its released vocabulary; SentencePiece, arXiv 1808.06226, in its byte-pair form.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ....readers.errors import ModelError, RequestError
from ....readers.files import write_atomic
from ...checkpoints.untrusted import read_bytes, wrap_errors

if TYPE_CHECKING:
    from ..decoding import Vocabulary

MAX_BYTES = 2**26
"""Bytes of a tokenizer's file."""
MIN_PIECES = 512
"""Pieces of the smallest vocabulary: 256 bytes, the special tokens, and some text."""

PromptLayout = Literal["chat", "benchmark", "training"]
"""How text and picture are joined.

`chat` is the released model's conversation, in which every part of text begins with BOS. `benchmark` is that of its
published evaluations: the picture before all text, and BOS once. `training` is that of its fine-tuning: the picture
inside the user's turn, and BOS once.
"""

LAYOUTS: tuple[PromptLayout, ...] = ("chat", "benchmark", "training")
TOKENIZER = "tokenizer.model"
IMAGE = "<ImageHere>"
TURN_START: Final = "[UNUSED_TOKEN_146]"
TURN_END: Final = "[UNUSED_TOKEN_145]"
SYSTEM = (
    "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
    "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by "
    "Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the user such "
    "as English and 中文.\n"
    "- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based on the "
    "provided image."
)
"""The system prompt of the released model's training, verbatim."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids between pictures."""

    parts: tuple[tuple[int, ...], ...]
    """One part more than there are pictures; the first and the last may be empty."""

    @property
    def pictures(self) -> int:
        """The number of pictures."""
        return len(self.parts) - 1

    def __len__(self) -> int:
        """Tokens of text."""
        return sum(map(len, self.parts))


class Tokenizer:
    """A SentencePiece vocabulary with the two special tokens of turns."""

    def __init__(self, path: Path, source: str) -> None:
        from sentencepiece import SentencePieceProcessor

        self._subject = subject = f"{TOKENIZER} of checkpoint {source}"
        if not path.is_file():
            remedy = f"Copy the checkpoint's {TOKENIZER} into the folder; for a hub id add --fetch"
            raise ModelError(subject, "must be in its folder", value="no such file", remedy=remedy)
        content = read_bytes(path, f"checkpoint {source}", most=MAX_BYTES)
        self._pieces: Any = SentencePieceProcessor()
        with wrap_errors(subject, "must be a SentencePiece model", remedy="Copy the file again: it is damaged"):
            self._pieces.LoadFromSerializedProto(content)
        self.size: int = self._pieces.GetPieceSize()
        """Number of tokens."""
        self.bos: int = self._pieces.bos_id()
        self.eos: int = self._pieces.eos_id()
        self.turn_end: int = self._pieces.PieceToId(TURN_END)
        """The token that ends an answer."""
        unknown = self._pieces.unk_id()
        absent = [piece for piece in (TURN_START, TURN_END) if self._pieces.PieceToId(piece) == unknown]
        if absent or self.bos < 0 or self.eos < 0:
            raise ModelError(
                subject,
                f"must have the tokens <s>, </s>, {TURN_START} and {TURN_END}",
                value=f"no {absent[0] if absent else '<s> or </s>'}",
                remedy=f"Put the {TOKENIZER} of a 4KHD model into the folder",
            )

    def check_vocabulary(self, vocab: int) -> None:
        """Raise `ModelError` where it has more tokens than the `vocab` of a network."""
        if self.size > vocab:
            raise ModelError(
                self._subject,
                f"must have at most the network's {vocab} tokens",
                value=str(self.size),
                remedy="Name the tokenizer that belongs to the checkpoint, or put it into the folder",
            )

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.eos, self.turn_end

    def encode(self, text: str) -> list[int]:
        """Text → ids, without BOS; the special tokens of turns are one id each."""
        return list(self._pieces.EncodeAsIds(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → text."""
        return str(self._pieces.DecodeIds([int(i) for i in ids]))

    def special_token(self, text: str) -> str:
        """The first special token in a text, which stands for no bytes; "" where there is none."""
        for i in self.encode(text):
            if not self._bytes(i) and not self._pieces.IsUnknown(i):
                return str(self._pieces.IdToPiece(i))
        return ""

    def token_bytes(self) -> list[bytes]:
        """The bytes of every token, b"" for special tokens."""
        return [self._bytes(i) for i in range(self.size)]

    def _bytes(self, i: int) -> bytes:
        piece: str = self._pieces.IdToPiece(i)
        if self._pieces.IsByte(i):
            return bytes([int(piece[3:5], 16)])
        special = self._pieces.IsControl(i) or self._pieces.IsUnknown(i) or self._pieces.IsUnused(i)
        return b"" if special or piece in {TURN_START, TURN_END} else piece.replace("\u2581", " ").encode()

    def vocabulary(self) -> "Vocabulary":
        """The vocabulary for decoding under a grammar, in which special tokens never stand."""
        from ..decoding import Vocabulary

        tokens = self.token_bytes()
        special = [i for i, token in enumerate(tokens) if not token]
        return Vocabulary.of_tokens(tokens, ends=self.stop_tokens, special=special)


def build_prompt(
    tokenizer: Tokenizer,
    question: str,
    *,
    layout: PromptLayout = "chat",
    system: str = SYSTEM,
    earlier: Sequence[tuple[str, str]] = (),
) -> Prompt:
    """The prompt of a question about one picture, or in layout "chat" about those where `<ImageHere>` stands.

    `earlier` are the conversation's (question, answer) so far; the picture stands before the first question unless the
    text places it. "benchmark" and "training" have no system prompt and no earlier turns. Raises `RequestError` for a
    question with special tokens of turns.
    """
    turns = [*earlier, (question, "")]
    bad = next((mark for turn in turns for mark in (TURN_START, TURN_END) if mark in turn[0] or mark in turn[1]), "")
    if bad:
        rule = "must not hold the special tokens of the model's turns"
        raise RequestError("question", rule, value=bad, remedy="Leave the token out")
    if layout == "training":
        before = tokenizer.encode(f"{TURN_START}user\n")
        answer = tokenizer.encode(f"{question}{TURN_END}\n{TURN_START}assistant\n")
        return Prompt(((tokenizer.bos, *before), tuple(answer)))
    if layout == "benchmark":
        text = f"{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n"
        return Prompt(((tokenizer.bos,), tuple(tokenizer.encode(text))))
    if not any(IMAGE in asked for asked, _ in turns):
        turns[0] = (IMAGE + turns[0][0], turns[0][1])
    text = f"{TURN_START}system\n{system}{TURN_END}\n" if system else ""
    for asked, answered in turns:
        text += f"{TURN_START}user\n{asked}{TURN_END}\n{TURN_START}assistant\n{answered}{TURN_END}\n"
    text = text.removesuffix(f"{TURN_END}\n")
    return Prompt(tuple((tokenizer.bos, *tokenizer.encode(part)) if part else () for part in text.split(IMAGE)))


def train_tokenizer(texts: Sequence[str], size: int, path: Path) -> None:
    """Write the SentencePiece model of `size` pieces that spells `texts` shortest. Same texts, same bytes.

    Characters that the texts lack are spelled in bytes, so that any text can be encoded. The special tokens of turns
    and the line break are pieces of their own, so that an answer begins with the same tokens wherever it stands. Raises
    `RequestError` where the texts are too few for the size.
    """
    from sentencepiece import SentencePieceTrainer

    if size < MIN_PIECES:
        rule = f"must have at least {MIN_PIECES} pieces"
        raise RequestError("vocabulary", rule, value=str(size), remedy="Raise --vocab")
    model = io.BytesIO()
    try:
        SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            user_defined_symbols=[TURN_START, TURN_END, "\n"],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise RequestError(
            "texts",
            f"must hold enough different words for a vocabulary of {size} pieces",
            value=(str(error).splitlines() or [""])[-1][:200],
            remedy="Lower --vocab, or give more texts",
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, model.getvalue())


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The lines of text files, or the questions and answers of `.jsonl` files. Raises `RequestError`."""
    texts: list[str] = []
    for path in paths:
        try:
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            if path.suffix == ".jsonl":
                samples: list[Any] = [json.loads(line) for line in lines]
                lines = [f"{sample['question']}\n{sample['answer']}" for sample in samples]
            texts += [line for line in lines if line.strip()]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RequestError(
                str(path),
                "must be readable text in UTF-8, or JSON lines with question and answer",
                value=f"{type(error).__name__}: {error}",
                remedy="Check the path",
            ) from error
    return texts
