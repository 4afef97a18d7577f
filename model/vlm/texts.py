"""Texts as models write them: the thought is told apart from the answer, and a text that was cut off is marked."""

import re
from dataclasses import dataclass
from typing import Final, Self

from ...readers.errors import ModelError

CUT: Final = " […]"
"""Ends a text that reached its limit of tokens."""
MAX_TOKENS: Final = 32768
"""The largest limit of tokens that a user can set."""

THOUGHT_MARKS: Final = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM-4.1V and most others
    ("<thinking>", "</thinking>"),
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<unused94>", "<unused95>"),  # MedGemma
)
"""What begins and ends a thought."""
_WRAPPERS: Final = (
    re.compile(r"<answer>(.*)</answer>", re.DOTALL | re.IGNORECASE),  # models that were trained as DeepSeek-R1
    re.compile(r"<\|begin_of_box\|>(.*)<\|end_of_box\|>", re.DOTALL),  # GLM-4.1V and 4.5V
)


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A text that a model wrote."""

    text: str
    """The answer, without the thought before it."""
    cut: bool = False
    """Whether it ended at the limit of tokens."""
    thought: str = ""
    """What the model wrote before its answer, where it marks that."""
    form: str = ""
    """In what form the answer was found, where that is not the one that was asked for."""

    @classmethod
    def read(cls, text: str, *, cut: bool = False, thought: str = "") -> Self:
        """A text as the model wrote it; `thought` is what a server tells apart by itself."""
        inner, answer = split_thought(text)
        return cls(answer, cut, "\n".join(part for part in (thought.strip(), inner) if part))

    @property
    def marked(self) -> str:
        """The answer without spaces around it, and with `CUT` at its end where it was cut off."""
        return self.text.strip() + (CUT if self.cut else "")

    def check(self, limit: int, *, subject: str = "model's answer") -> Self:
        """Return it. Raises `ModelError` where there is no answer in it; `limit` is that of its tokens."""
        if self.text.strip():
            return self
        if self.thought:
            value = f"the model only thought, {len(self.thought)} characters"
            raise ModelError(subject, "must follow the model's thought", value=value, remedy=raise_limit(limit))
        remedy = raise_limit(limit) if self.cut else "Ask in other words, or another model"
        raise ModelError(subject, "must hold a text", value="none", remedy=remedy)


def split_thought(text: str) -> tuple[str, str]:
    """(thought, answer) of a text, "" where there is none.

    A thought lies between two of `THOUGHT_MARKS`. Where its beginning is missing, which is then part of the prompt, it
    is all before the end; where its end is missing, since the text was cut off, it is all after the beginning.
    """
    thoughts: list[str] = []
    for begin, end in THOUGHT_MARKS:
        pair = re.compile(f"{re.escape(begin)}(.*?){re.escape(end)}", re.DOTALL)
        thoughts += pair.findall(text)
        text = pair.sub("", text)
        if end in text:
            thought, _, text = text.partition(end)
            thoughts.append(thought)
        text, _, thought = text.partition(begin)
        thoughts.append(thought)
    thoughts = [part for thought in thoughts if (part := thought.strip())]
    return "\n".join(thoughts), text


def unwrap(text: str) -> str:
    """What stands between the marks that some families put around an answer; any other text unchanged."""
    for wrapper in _WRAPPERS:
        found = wrapper.findall(text)
        if len(found) == 1:
            text = found[0].strip()
    return text


def raise_limit(limit: int) -> str:
    """The advice where a text did not end within `limit` tokens."""
    if limit >= MAX_TOKENS:
        return "Ask for less"
    return f"Raise --set model_options.max_tokens=NUMBER above {limit}, or ask for less"
