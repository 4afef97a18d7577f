"""Decoding a text token by token: finite logits, a JSON grammar where one is given, and whether a text was cut off.

The only file that imports llguidance. JSON is written on one line, with a space after each comma and colon: a model
that may write white space anywhere may never stop.
"""

# torch's types do not state what some of its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import random
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from ...readers.errors import ModelError, RequestError
from ..checkpoints.untrusted import wrap_errors
from ..scores import require_finite
from .texts import GeneratedText, raise_limit

if TYPE_CHECKING:
    import torch
    from llguidance._lib import JsonCompileOptions

LAYOUT: "JsonCompileOptions" = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MAX_TRIAL, MAX_DEPTH = 4000, 100  # bytes of a trial text under a schema, and its nesting
CLOSING, OPENING, QUOTE = b'}]"', b"{[", ord('"')


class Vocabulary:
    """A tokenizer's tokens as the bytes that they write. Making one takes about a second for 150 000 tokens."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of_fast(cls, tokenizer: Any, *, ends: Sequence[int]) -> Self:
        """The vocabulary of a fast tokenizer of transformers. `ends` are the tokens that end an answer.

        Raises `ModelError` for one that is neither byte-level nor has tokens for single bytes.
        """
        with wrap_errors(
            f"tokenizer {getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__}",
            "must have tokens that are known as bytes, to keep an answer to a schema",
            remedy="Ask to describe or classify, or name a checkpoint with a byte-level tokenizer.json",
        ):
            return cls(LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=[int(end) for end in ends]))

    @classmethod
    def of_tokens(cls, tokens: Sequence[bytes], *, ends: Sequence[int], special: Collection[int]) -> Self:
        """The vocabulary of the bytes of each token. `special` tokens and `ends` never write text."""
        wrapped = TokenizerWrapper(_Tokens(tokens, ends[0], sorted({*special, *ends})))
        return cls(LLTokenizer(wrapped, eos_token=[int(end) for end in ends], slices=[]))

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self._tokenizer.vocab_size

    def write(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens write."""
        return self._tokenizer.decode_bytes([int(token) for token in tokens])

    def start(self, schema: str) -> LLMatcher:
        """The state of an empty text under a JSON schema."""
        return LLMatcher(self._tokenizer, _grammar(schema), log_level=0)

    def check_schema(self, schema: str) -> None:
        """Raise `ModelError` where no text of this vocabulary can begin under a JSON schema."""
        Constraint(self, schema).mask()


class Constraint:
    """A text under a JSON schema while it is written. Raises `ModelError` where the schema cannot be enforced."""

    def __init__(self, vocabulary: Vocabulary, schema: str) -> None:
        self._vocabulary = vocabulary
        self._state = vocabulary.start(schema)
        self._tokens: list[int] = []
        self._check()

    def mask(self) -> npt.NDArray[np.bool_]:
        """The tokens that may come next, (vocabulary's size,); after a complete text, those that end it."""
        bits = np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary.size].astype(np.bool_)
        if not allowed.any():
            raise _stuck("no token may come next")
        return allowed

    def advance(self, token: int) -> None:
        """Append a token. Raises `ModelError` for one that `mask` does not allow."""
        complete = self.finished
        self._state.consume_token(int(token))
        self._check()
        if not complete:
            self._tokens.append(int(token))

    @property
    def finished(self) -> bool:
        """Whether the text is complete: it obeys the schema, and may end here."""
        return self._state.is_accepting()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._vocabulary.write(self._tokens).decode("utf-8", errors="replace")

    def _check(self) -> None:
        if self._state.is_error():
            raise _stuck(self._state.get_error())


class Decoding:
    """The texts of a batch while they are generated: a logits processor of transformers.

    `of` names the network in errors; a text begins after `begin` tokens and ends with one of `stops`. `constraints`
    are those of the rows; () for free texts.
    """

    def __init__(
        self, of: str, *, stops: Sequence[int], begin: int = 0, constraints: Sequence[Constraint] = ()
    ) -> None:
        self._of = of
        self._begin = begin
        self._stops = frozenset(stops)
        self._constraints = constraints
        self._taken = 0
        self._ended = [False] * len(constraints)

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """The network's logits (B, vocab) after the tokens so far, with -inf where a token may not come next.

        Raises `ModelError` where they are not finite, or no token may come next.
        """
        import torch

        step = input_ids.shape[1] - self._begin + 1
        require_finite(scores, "logits", of=self._of, at=f"at token {step} of the answer")
        if not self._constraints:
            return scores
        self._take(input_ids[:, self._begin :].tolist())
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for row, (constraint, ended) in enumerate(zip(self._constraints, self._ended, strict=True)):
            mask = np.ones(scores.shape[1], dtype=np.bool_) if ended else constraint.mask()[: scores.shape[1]]
            allowed[row, : len(mask)] = torch.from_numpy(mask)
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def texts(
        self, written: Sequence[Sequence[int]], decode: Callable[[list[int]], str], *, limit: int
    ) -> list[GeneratedText]:
        """The texts of the generated tokens, without those before `begin`; free texts come from `decode`.

        A free text is cut where it did not end within `limit` tokens. Raises `ModelError` for a text that was cut
        before it obeyed its schema.
        """
        if self._constraints:
            self._take(written)
            return [GeneratedText(_complete(self._of, constraint, limit)) for constraint in self._constraints]
        texts: list[GeneratedText] = []
        for row in written:
            end = next((place for place, token in enumerate(row) if token in self._stops), None)
            texts.append(GeneratedText.read(decode(list(row[:end])), cut=end is None))
        return texts

    def _take(self, rows: Sequence[Sequence[int]]) -> None:
        """Advance the constraints by the tokens that are new to them."""
        for place, (row, constraint) in enumerate(zip(rows, self._constraints, strict=True)):
            for token in row[self._taken :]:
                self._ended[place] = self._ended[place] or token in self._stops
                if not self._ended[place]:
                    constraint.advance(token)
        self._taken = max(map(len, rows))


def check_schema(schema: str, *, subject: str) -> None:
    """Raise `RequestError` where text cannot be generated under a JSON schema, which errors call `subject`."""
    error = LLMatcher.validate_grammar(_grammar(schema)) or _trial_error(schema)
    if error:
        raise RequestError(
            subject,
            "must be a schema that answers can be held to while they are generated",
            value=" ".join(error.split())[:200],
            remedy="Leave that part of the schema out, or write it with type, enum, properties, required and items",
        )


def check_satisfiable(schema: str, *, subject: str) -> None:
    """Raise `RequestError` where no JSON can obey a schema, which errors call `subject`."""
    error = LLMatcher.validate_grammar(_grammar(schema))
    if "nsatisfiable" in error:
        raise RequestError(
            subject,
            "must allow at least one answer",
            value=" ".join(error.split())[:200],
            remedy="Correct what contradicts itself, such as a minimum above its maximum or an empty enum",
        )


def _trial_error(schema: str) -> str:
    """Generate one short text under a schema, byte by byte; the error, "" where there is none.

    Closing characters come first, so that lists and texts stay short, and opening ones last; the rest is random with a
    fixed seed. Text that is still nested deeper and deeper could never end.
    """
    single = [bytes([byte]) for byte in range(256)]
    constraint = Constraint(Vocabulary.of_tokens([*single, b""], ends=[256], special=[256]), schema)
    deepest, depth, in_string = 0, 0, False
    chance = random.Random(0)  # noqa: S311 - nothing is kept secret
    try:
        for _ in range(MAX_TRIAL):
            if constraint.finished:
                return ""
            allowed = np.flatnonzero(constraint.mask()[:256]).tolist()
            closing = [byte for byte in (CLOSING[-1:] if in_string else CLOSING) if byte in allowed]
            rest = [byte for byte in allowed if byte not in OPENING] or allowed
            byte = closing[0] if closing else chance.choice(rest)
            constraint.advance(byte)
            in_string ^= byte == QUOTE
            depth += 0 if in_string else (byte in OPENING) - (byte in CLOSING and byte != QUOTE)
            deepest = max(deepest, depth)
    except ModelError as error:
        return error.value
    return "it contains itself without an end" if deepest > MAX_DEPTH else ""


class _Tokens:
    """A tokenizer as llguidance takes it. It reads the longest token that fits, which suffices for a grammar."""

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
        "must obey its schema while it is generated",
        value=(why.splitlines() or [""])[0][:200],
        remedy="Simplify the schema",
    )


def _complete(of: str, constraint: Constraint, limit: int) -> str:
    """A text that obeys its schema. Raises `ModelError` for one that was cut before it did."""
    if not constraint.finished:
        raise ModelError(
            f"answer of {of}",
            f"must be complete within {limit} tokens to obey its schema",
            value=f"{len(constraint.text)} characters without an end",
            remedy=f"{raise_limit(limit)}, or bound texts and lists in the schema",
        )
    return constraint.text
