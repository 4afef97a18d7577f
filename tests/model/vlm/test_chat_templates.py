"""Untrusted chat templates are tried in the sandboxed process."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from limner.model.vlm import chat_templates
from limner.model.vlm.chat_templates import check_templates
from limner.readers.errors import ModelError

pytestmark = pytest.mark.slow

pytest.importorskip("resource", reason="memory limits need a POSIX system")

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"
GROWING = "{% set ns = namespace(x='a' * 9999) %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "SECONDS", 2.0)
    monkeypatch.setattr(chat_templates, "_CHECKED", set())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", ENDLESS),
        ("chat_template.jinja", GROWING),
        ("chat_template.json", {"chat_template": ENDLESS}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": ENDLESS}]}),
        ("processor_config.json", {"chat_template": ENDLESS}),
    ],
    ids=["endless", "growing", "of a processor", "one of several", "in settings"],
)
def test_endless_template_is_refused(quick: None, tmp_path: Path, name: str, content: Any) -> None:
    del quick
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    begun = time.monotonic()
    with pytest.raises(ModelError, match="must render a short conversation within"):
        check_templates(tmp_path, "x")
    assert time.monotonic() - begun < 30


def test_invalid_template_passes_the_trial(quick: None, tmp_path: Path) -> None:
    del quick
    (tmp_path / "chat_template.jinja").write_text("{% nothing %}")
    (tmp_path / "processor_config.json").write_text("[]")
    check_templates(tmp_path, "x")


def test_trial_result_is_cached(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del quick
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content[1].text }}")
    check_templates(tmp_path, "x")
    tried: list[str] = []
    monkeypatch.setattr(chat_templates, "run_sandboxed", lambda *_, **__: tried.append("again"))
    check_templates(tmp_path, "x")
    assert tried == []
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].role }}")
    check_templates(tmp_path, "x")
    assert tried == ["again"]
