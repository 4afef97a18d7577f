"""Marks: what a model reads as a turn of the chat, a picture or the end of a text, and so no person may write.

One rule for every vision-language model: what is asked, labels and schemas hold none. They are refused rather than read
as plain text, which many tokenizers cannot do, and which nobody could see from a server's answer.
"""

import re
from collections.abc import Callable, Mapping

from ...readers.errors import RequestError, excerpt

_NAMES = (
    "image|img|im_start|im_end|im_patch|video|audio|pad|eos|bos|unk|mask|sep|cls|ctx|box|ref|quad|fim_\\w+|think|SYS"
)
KNOWN = re.compile(
    r"<[|\uff5c][^<>\n]{1,60}[|\uff5c]>"  # <|im_start|>, <|endoftext|>, <|image_pad|>, DeepSeek's
    r"|\[UNUSED_TOKEN_\d+\]|<ImageHere>"  # InternLM's
    rf"|</?(?:s|{_NAMES})(?:_?\d+)?>|<<?/?SYS>?>"
    r"|</?(?:start|end)_of_\w+>|<(?:\w+_)?(?:image|img|IMG)(?:_\w+)?>"  # Gemma's turns, and pictures' places
    r"|<image_soft_token>|<IMG_CONTEXT>|<extra_id_\d+>|<\uff5c[^<>\n]+>"
    r"|\[/?(?:INST|IMG|IMG_BREAK|IMG_END|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
"""Marks of the families that are in use; a checkpoint's own come from its tokenizer."""


def refuse_marks(texts: Mapping[str, str], *, of: str, own: Callable[[str], str] | None = None) -> None:
    """Raise `RequestError` for the first text, by the name of its option, that holds a mark; `of` is the annotator.

    `own` is the mark that the checkpoint's tokenizer finds in a text, "" where it finds none.
    """
    for name, text in texts.items():
        known = KNOWN.search(text)
        mark = known[0] if known else own(text) if own else ""
        if mark:
            raise RequestError(
                f"option {name!r} of {of}",
                "it may not hold the marks by which models tell pictures and turns of the chat apart",
                value=excerpt(mark),
                remedy="Leave the mark out, or write it in other words",
            )
