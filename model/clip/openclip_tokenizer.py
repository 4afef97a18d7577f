"""Texts as OpenCLIP's tokenizer takes them, and its file of merges. Imports ftfy.

Source of the method: mlfoundations/open_clip, `tokenizer.py` (what is done to a text, what a line of the file means);
byte pair encoding, arXiv 1508.07909, of the bytes of UTF-8 as in GPT-2.
"""

import gzip
import html
import zlib
from itertools import chain
from pathlib import Path
from typing import Final

import ftfy

from ...readers.errors import ModelError
from ..checkpoints.untrusted import error_text, open_file

MOST = 2**26
"""Bytes of the file of merges, unpacked."""

START, END = "<start_of_text>", "<end_of_text>"
LAST_OF_WORD: Final = "</w>"


def clean(text: str, *, lower: bool) -> str:
    """A text in one line: repaired where its encoding was mixed up, without HTML's entities, maybe in lower case."""
    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
    return text.lower() if lower else text


def read_merges(path: Path, size: int, source: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary (token → number) of `size` tokens, and its merges, from OpenCLIP's file of merges (gzip).

    Its first line is a remark; each other names two tokens that become one, the most frequent first, and as many count
    as the vocabulary has room for beside the bytes, alone and at the end of a word, and the two marks of a text. Raises
    `ModelError`.
    """
    wanted = size - 2 * 256 - 2
    try:
        with open_file(path, f"checkpoint {source}") as packed, gzip.open(packed) as file:
            content = file.read(MOST + 1)
        lines = content.decode("utf-8").split("\n")[1 : 1 + max(wanted, 0)]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _bad(path, source, error_text(error)) from error
    if len(content) > MOST:
        raise _bad(path, source, f"more than {MOST} bytes when unpacked")
    pairs = [tuple(line.split()) for line in lines]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) != wanted:
        raise _bad(path, source, f"{len(merges)} pairs of tokens, where its vocabulary of {size} needs {wanted}")
    bytes_ = _letters()
    tokens = [*bytes_, *(letter + LAST_OF_WORD for letter in bytes_), *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate(chain(tokens, (START, END)))}, merges


def _letters() -> list[str]:
    """The letter that stands for each byte: itself where it can be seen, the others from U+0100 on; those come last."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = 256 - len(seen)
    return [*map(chr, seen), *map(chr, range(256, 256 + hidden))]


def _bad(path: Path, source: str, value: str) -> ModelError:
    return ModelError(
        f"checkpoint {source}",
        f"its tokenizer {path.name} must be OpenCLIP's file of merges, packed with gzip",
        value=value,
        remedy="Take bpe_simple_vocab_16e6.txt.gz out of OpenCLIP's package, or name a folder with CLIP's tokenizer",
    )
