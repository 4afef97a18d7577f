"""The commands of docs/training.md work as they are written, from the repository's root."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.model.probe.card import read_card

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]


def test_the_example_trains_and_runs_a_probe(
    root: Path, tmp_path: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    [block] = [
        text for text in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "train probe" in text
    ]
    commands = [line.split() for line in block.replace("\\\n", " ").splitlines()]
    assert [words[:2] for words in commands] == [["limner", "train"], ["limner", "run"]]
    (tmp_path / "notebooks").symlink_to(root / "notebooks")
    monkeypatch.chdir(tmp_path)
    for words in commands:
        done = limner(*words[1:])
        assert done.code == 0, done.err
    card = read_card(tmp_path / commands[0][commands[0].index("--out") + 1])
    assert card.labels == ("field", "forest", "marsh", "water")
    assert card.figures.accuracy.low > 0.9
    assert (tmp_path / commands[1][commands[1].index("--out") + 1] / "findings.csv").is_file()
