"""Texts as models write them: the thought is told apart from the answer, and a text that was cut off is marked."""

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
    ("<answer>", "</answer>"),  # models that were trained as DeepSeek-R1
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM-4.1V and 4.5V
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
        *ended, last = text.split(end)
        answer: list[str] = []
        for part in ended:
            before, mark, thought = part.partition(begin)
            answer.append(before if mark else "")
            thoughts.append(thought if mark else part)
        before, _, thought = last.partition(begin)
        thoughts.append(thought)
        text = "".join([*answer, before])
    return "\n".join(part for thought in thoughts if (part := thought.strip())), text


def unwrap(text: str) -> str:
    """What stands between the marks that some families put around an answer; any other text unchanged."""
    for begin, end in _WRAPPERS:
        before, mark, rest = text.partition(begin)
        inner, ended, after = rest.partition(end)
        if mark and ended and begin not in inner + after and end not in before + after:
            text = inner.strip()
    return text


def unfence(text: str) -> str:
    """What stands in a fence of Markdown, where the text is nothing else; any other text unchanged."""
    text = text.strip()
    first, line_break, rest = text.partition("\n")
    fenced = line_break and first.rstrip() in {"```", "```json"} and rest.endswith("```")
    return rest.removesuffix("```").strip() if fenced else text


def raise_limit(limit: int) -> str:
    """The advice where a text did not end within `limit` tokens."""
    if limit >= MAX_TOKENS:
        return "Ask for less"
    return f"Raise --set model_options.max_tokens=NUMBER above {limit}, or ask for less"
