"""Tokens are those of OpenCLIP's own tokenizer."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from limner.model.checkpoints.files import CheckpointFiles
from limner.model.checkpoints.weights import locate
from limner.model.clip.checkpoint import ClipCheckpoint, OpenClip
from limner.model.clip.openclip_load import clean, load_clip_tokenizer, read_merges
from limner.readers.errors import ModelError

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "openclip"
TEXTS: list[dict[str, Any]] = json.loads((GOLDEN / "texts.json").read_text())
PUBLISHED = "pypi:open_clip_torch==3.3.0#open_clip/bpe_simple_vocab_16e6.txt.gz"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
LONG_S = "\u017f long s '\u017f"
"""The one text of 300 that differs: after an apostrophe OpenCLIP takes an old long s for an s."""


def tokenizer(merges: Path, size: int) -> Any:
    known = OpenClip({"text_config": {"vocab_size": size}}, tokenizer=merges)
    return load_clip_tokenizer(ClipCheckpoint(CheckpointFiles("x", merges.parent), "clip", 32, 1 / 255, (), (), known))


def differing(merges: Path, size: int, key: str) -> list[str]:
    read = tokenizer(merges, size)
    return [
        row["text"]
        for row in TEXTS
        if read(clean(row["text"], lower=True))["input_ids"] != [size - 2, *row[key], size - 1]
    ]


def test_tokens_of_difficult_texts_are_those_of_openclip() -> None:
    assert len(TEXTS) == 300
    assert differing(GOLDEN / "merges.txt.gz", 704, "small") == [LONG_S]


@pytest.mark.network
@pytest.mark.slow
def test_tokens_with_the_published_vocabulary_are_those_of_openclip() -> None:
    try:
        path = locate(PUBLISHED, SHA256, fetch=True)
    except ModelError as error:
        pytest.skip(str(error))
    assert differing(path, 49408, "clip") == [LONG_S]


def test_a_text_is_cleaned() -> None:
    assert clean("  The farmer\u2019s\n&amp;lt; Field ", lower=True) == "the farmer's < field"
    assert clean("ΟΔΟΣ schÃ¶n", lower=False) == "ΟΔΟΣ schön"


def test_a_vocabulary_is_bytes_then_merges_then_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(b"#version\na b</w>\nt h\nmore than fits\n"))
    vocabulary, merges = read_merges(path, 516, "x")
    assert merges == [("a", "b</w>"), ("t", "h")]
    assert [vocabulary[token] for token in ("!", "!</w>", "ab</w>", "th")] == [0, 256, 512, 513]
    assert [vocabulary[token] for token in ("<start_of_text>", "<end_of_text>")] == [514, 515]
    assert len(vocabulary) == 516


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"#version\na b\n", "Not a gzipped file", id="not gzip"),
        pytest.param(gzip.compress(b"#version\na b\nc d\n", mtime=0)[:-12], "end-of-stream", id="truncated"),
        pytest.param(gzip.compress(b"#version\n\xff\xfe b\n", mtime=0), "utf-8", id="not UTF-8"),
        pytest.param(
            gzip.compress(b"#version\na b\n", mtime=0),
            "1 pairs of tokens, where its vocabulary of 516 needs 2",
            id="too few pairs",
        ),
        pytest.param(gzip.compress(b"#version\na b\nabc\n", mtime=0), "1 pairs", id="a line of one token"),
    ],
)
def test_an_invalid_file_of_merges_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="OpenCLIP's file of merges") as caught:
        read_merges(path, 516, "x")
    assert message in str(caught.value)
