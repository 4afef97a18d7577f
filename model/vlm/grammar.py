"""Decoding under a grammar: which tokens may come next so that a text obeys a JSON schema. Knows no network.

The one file that imports llguidance. JSON is written on one line, with a space after each comma and colon: a model that
may write white space anywhere may never stop.
"""

import random
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from ...readers.errors import ModelError, RequestError
from ..checkpoints.untrusted import wrap_errors

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's tokens for single bytes
SPACE = "\u2581"  # SentencePiece's mark of a space

LAYOUT: "JsonCompileOptions" = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
LONGEST, DEEPEST = 4000, 100  # bytes of a text that tries out a schema, and how deep it may be nested
CLOSING, OPENING, QUOTE = b'}]"', b"{[", ord('"')


def check_schema(schema: str, *, subject: str) -> None:
    """Raise `RequestError` where text cannot be made to obey a JSON schema; `subject` names it."""
    wrong = LLMatcher.validate_grammar(_grammar(schema)) or _walk(schema)
    if wrong:
        raise RequestError(
            subject,
            "answers must be able to be held to it while they are written",
            value=" ".join(wrong.split())[:200],
            remedy="Leave that part of the schema out, or say it with type, enum, properties, required and items",
        )


def check_possible(schema: str, *, subject: str) -> None:
    """Raise `RequestError` where no JSON can obey a schema, whoever is held to it; `subject` names it."""
    wrong = LLMatcher.validate_grammar(_grammar(schema))
    if "nsatisfiable" in wrong:
        raise RequestError(
            subject,
            "some answer must be able to obey it",
            value=" ".join(wrong.split())[:200],
            remedy="Correct what contradicts itself, such as a minimum above its maximum or an empty enum",
        )


def _walk(schema: str) -> str:
    """Write one short text under a schema, byte by byte; what goes wrong, "" where nothing does.

    What closes is written first, so that lists and texts stay short, and what opens last; the rest is chosen evenly,
    the same every time. A text that is nested deeper and deeper all the same could never end.
    """
    single = [bytes([byte]) for byte in range(256)]
    constraint = Constraint(Vocabulary.of_tokens([*single, b""], ends=[256], special=[256]), schema)
    deepest, nested, within = 0, 0, False
    chance = random.Random(0)  # noqa: S311 - nothing is kept secret
    try:
        for _ in range(LONGEST):
            if constraint.finished:
                return ""
            allowed = np.flatnonzero(constraint.mask()[:256]).tolist()
            closing = [byte for byte in (CLOSING[-1:] if within else CLOSING) if byte in allowed]
            rest = [byte for byte in allowed if byte not in OPENING] or allowed
            byte = closing[0] if closing else chance.choice(rest)
            constraint.advance(byte)
            within ^= byte == QUOTE
            nested += 0 if within else (byte in OPENING) - (byte in CLOSING and byte != QUOTE)
            deepest = max(deepest, nested)
    except ModelError as error:
        return error.value
    return "it contains itself without an end" if deepest > DEEPEST else ""


class Vocabulary:
    """A tokenizer's tokens as the bytes that they write. Making one takes about a second for 150 000 tokens."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of_fast(cls, tokenizer: Any, *, ends: Sequence[int]) -> Self:
        """Of a fast tokenizer of transformers. `ends` are the tokens that end an answer.

        Raises `ModelError` for one whose bytes cannot be known: neither byte-level nor with tokens for single bytes.
        """
        with wrap_errors(
            f"tokenizer {getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__}",
            "its tokens must be known as bytes, to hold an answer to a schema",
            remedy="Ask to describe or classify, or name a checkpoint with a byte-level tokenizer.json",
        ):
            return cls(LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=[int(end) for end in ends]))

    @classmethod
    def of_tokens(cls, tokens: Sequence[bytes], *, ends: Sequence[int], special: Collection[int]) -> Self:
        """Of the bytes of each token, in their order. `special` tokens, the `ends` among them, never write text."""
        marks = sorted({*special, *ends})
        wrapped = TokenizerWrapper(_Tokens(tokens, ends[0], marks))
        return cls(LLTokenizer(wrapped, eos_token=[int(end) for end in ends], slices=[]))

    @classmethod
    def of_pieces(cls, pieces: Sequence[str], *, ends: Sequence[int], special: Collection[int]) -> Self:
        """Of a SentencePiece model's pieces, in their order: `▁` writes a space, `<0x0A>` the byte 10."""
        return cls.of_tokens([piece_bytes(piece) for piece in pieces], ends=ends, special=special)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.vocab_size

    def write(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens write."""
        return self._tokenizer.decode_bytes([int(token) for token in tokens])

    def start(self, schema: str) -> LLMatcher:
        """The state of a text that has yet to be written, and is to obey a JSON schema."""
        return LLMatcher(self._tokenizer, _grammar(schema), log_level=0)


class Constraint:
    """A text while it is written, token by token, so that it obeys a JSON schema.

    Raises `ModelError` where the schema cannot be held to, or grows beyond bounds.
    """

    def __init__(self, vocabulary: Vocabulary, schema: str) -> None:
        self._vocabulary = vocabulary
        self._state = vocabulary.start(schema)
        self._tokens: list[int] = []
        self._check()

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, (vocabulary's size,); once the text is whole, those that end it."""
        bits = np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary.size].astype(np.bool_)
        if not allowed.any():
            raise _stuck("no token may come next")
        return allowed

    def advance(self, token: int) -> None:
        """Take the token that came next. Raises `ModelError` for one that `mask` does not allow."""
        whole = self.finished
        self._state.consume_token(int(token))
        self._check()
        if not whole:
            self._tokens.append(int(token))

    @property
    def finished(self) -> bool:
        """Whether the text is whole: it obeys the schema, and may end here."""
        return self._state.is_accepting()

    @property
    def text(self) -> str:
        """What has been written."""
        return self._vocabulary.write(self._tokens).decode("utf-8", errors="replace")

    def _check(self) -> None:
        if self._state.is_error():
            raise _stuck(self._state.get_error())


def piece_bytes(piece: str) -> bytes:
    """The bytes that a piece of a SentencePiece model writes."""
    byte = BYTE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


class _Tokens:
    """A tokenizer as llguidance wants it. It reads the longest token that fits, which is enough for a grammar."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end: int, special: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.eos_token_id = end
        self.special_token_ids = list(special)
        texts = [(token, place) for place, token in enumerate(tokens) if token and place not in set(special)]
        self._places = dict(reversed(texts))
        self._longest = max((len(token) for token, _ in texts), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        rest = text.encode() if isinstance(text, str) else text
        found: list[int] = []
        while rest:
            fits = (n for n in range(min(self._longest, len(rest)), 0, -1) if rest[:n] in self._places)
            length = next(fits, 0)
            if not length:
                break
            found.append(self._places[rest[:length]])
            rest = rest[length:]
        return found


def _grammar(schema: str) -> str:
    return LLMatcher.grammar_from_json_schema(schema, overrides=LAYOUT)


def _stuck(why: str) -> ModelError:
    return ModelError(
        "answer",
        "it must be held to its schema while it is written",
        value=(why.splitlines() or [""])[0][:200],
        remedy="Simplify the schema",
    )
