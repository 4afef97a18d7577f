"""The base error. Each error names the subject, the rule, the value that was found and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class LimnerError(Exception):
    """An error in four parts that read as one sentence, `SUBJECT must RULE (found: VALUE). REMEDY.`, to be acted on.

    Line breaks in the parts become spaces and unprintable characters are escaped, since a part may quote a file.
    Errors pickle, so that they can be sent between processes.

    subject: A noun phrase: a file, an option, a region.
    rule: What must hold, as the rest of the sentence: it begins with "must".
    value: What was found instead; "" where there is nothing to show.
    remedy: What the user can do now, as a sentence without its full stop.
    """

    def __init__(self, subject: str, rule: str, *, remedy: str, value: str = "") -> None:
        subject, rule, remedy, value = map(_printable, (subject, rule, remedy, value))
        super().__init__(subject, rule, remedy, value)
        self.subject = subject
        self.rule = rule
        self.remedy = remedy
        self.value = value

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.subject, self.rule, self.remedy, self.value)

    def __str__(self) -> str:
        found = f" (found: {self.value})" if self.value else ""
        return f"{self.subject} {self.rule}{found}. {self.remedy}."

    def lines(self) -> list[str]:
        """The four parts, a line each."""
        found = [f"  found:  {self.value}"] if self.value else []
        return [f"limner: {self.subject} {self.rule}.", *found, f"  try:    {self.remedy}."]

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the four parts, without the way through limner's code."""
        return self.lines()


class RequestError(LimnerError):
    """What was asked for cannot be done as asked: an option, a setting, a combination of the two."""


class ReadError(LimnerError):
    """A file, or pixels of it, cannot be read or understood."""


class ModelError(LimnerError):
    """A model, its card or its weights cannot be found, trusted or used on this image."""


def excerpt(text: str, most: int = 100) -> str:
    """Words of somebody else's as an error may show them: on one line, nothing unseen, at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say "Did you mean 'x'? " of the known name most like `name`, to begin a remedy with; "" where none is like it.

    >>> nearest("watr", ["land", "water"])
    "Did you mean 'water'? "
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}? " if close else ""


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def _rebuild(kind: type[LimnerError], subject: str, rule: str, remedy: str, value: str) -> LimnerError:
    return kind(subject, rule, remedy=remedy, value=value)
