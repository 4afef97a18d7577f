"""A vocabulary for a small model, made from the texts that it will read and write.

Source: SentencePiece, arXiv 1808.06226, in its byte-pair form. What the texts do not hold is spelled in bytes, so that
any text can be asked and none is changed.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....readers.errors import RequestError
from ....readers.files import write_atomic
from .tokenizer import END, TURN

LEAST = 512
"""Pieces of the smallest vocabulary: 256 bytes, the marks, and something to say."""


def make_vocabulary(texts: Sequence[str], size: int, path: Path) -> None:
    """Write the SentencePiece model of `size` pieces that spells `texts` shortest. Same texts, same bytes.

    The turn marks and the line break are pieces that nothing joins, so that an answer begins with the same tokens
    wherever it stands. Raises `RequestError` where the texts do not suffice for the size.
    """
    from sentencepiece import SentencePieceTrainer

    if size < LEAST:
        raise RequestError("vocab", f"it has at least {LEAST} pieces", value=str(size), remedy="Raise it")
    made = io.BytesIO()
    try:
        SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_writer=made,
            vocab_size=size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            user_defined_symbols=[TURN, END, "\n"],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise RequestError(
            "vocab",
            "the texts must hold enough different words for it",
            value=(str(error).splitlines() or [""])[-1][:200],
            remedy="Lower the size, or give more texts",
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, made.getvalue())


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The lines of text files; of JSONL files (`.jsonl`) the questions and answers. Raises `RequestError`."""
    texts: list[str] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            said: list[Any] = [json.loads(line) for line in lines if line.strip()] if path.suffix == ".jsonl" else []
            texts += [f"{one['question']}\n{one['answer']}" for one in said] if path.suffix == ".jsonl" else lines
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RequestError(
                str(path),
                "it must be readable text in UTF-8, or JSON lines with question and answer",
                value=f"{type(error).__name__}: {error}",
                remedy="Check the path",
            ) from error
    return [text for text in texts if text.strip()]
