"""Which tokens of a conversation a model learns to say: the answers, and nothing else. Loads no torch.

Source of the rule: the released fine-tuning of InternLM-XComposer2-4KHD (arXiv 2404.06512).
"""

from collections.abc import Sequence

from ...readers.errors import RequestError
from ..vlm.fourkhd.tokenizer import IMAGE, TURN_END, TURN_START, PromptLayout, Tokenizer, build_prompt

IGNORED = -100
"""The target of a token that is not learnt; also stands for visual tokens among ids."""


def opening(tokenizer: Tokenizer) -> int:
    """How many tokens lie between the end of a person's turn and the answer: the line break and the turn's opening."""
    return len(tokenizer.encode(f"{TURN_END}\n{TURN_START}assistant\n")) - 1


def targets(ids: Sequence[int], *, end: int, eos: int, opening: int) -> list[int]:
    """The target of each token of a conversation, `IGNORED` where it is not learnt; ids at visual tokens are `IGNORED`.

    Odd `end` marks close a person's turn, even ones an answer. An answer is learnt with its mark, and so is a closing
    `eos`; a person's turn is not, nor the line break before it and the `opening` tokens after it. Where a conversation
    is cut within a person's turn, only that turn's first token, the line break, is learnt.
    """
    found = list(ids)
    if eos in ids:
        last = ids.index(eos)
        found[last + 1 :] = [IGNORED] * (len(ids) - last - 1)
    else:
        last = len(ids)
    marks = [place for place, token in enumerate(ids[:last]) if token == end]
    begins = [0, *(mark + 1 for mark in marks[1::2])]
    for begin, mark in zip(begins, marks[0::2], strict=False):
        stop = min(mark + 1 + opening, len(found))
        found[begin:stop] = [IGNORED] * (stop - begin)
    if eos not in ids and len(marks) % 2 == 0:
        begin = begins[-1] + 1
        found[begin:] = [IGNORED] * (len(found) - begin)
    return found


def conversation(
    tokenizer: Tokenizer, question: str, answer: str, layout: PromptLayout
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after the picture: the question as `tokens.ask` has it, without a system, the answer, the end.

    Raises `RequestError` for texts with the vocabulary's turn marks.
    """
    prompt = build_prompt(tokenizer, question, layout=layout, system="", earlier=())
    if TURN_END in answer or TURN_START in answer:
        build_prompt(tokenizer, answer, layout=layout, system="")  # raises
    if prompt.pictures != 1 or IMAGE in answer:
        raise RequestError(
            "question of a sample",
            "it must be about one picture, and its answer may not hold a picture's place",
            value=f"{IMAGE}, {prompt.pictures} in the question",
            remedy=f"Write {IMAGE} at most once, in the question",
        )
    before, after = prompt.parts
    return before, (*after, *tokenizer.encode(f"{answer}{TURN_END}"), tokenizer.eos)
