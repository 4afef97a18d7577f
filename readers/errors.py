"""The base error and its kinds. An error names its subject, the rule, what was found and the remedy."""

from collections.abc import Iterable


class LimnerError(Exception):
    """An error whose four parts read as a sentence, `SUBJECT RULE (found: VALUE). REMEDY.`, and advice.

    For example: `--hd-num must be at least 1 (found: 0). Give --hd-num 1 or more.`

    Line breaks in the parts become spaces and unprintable characters are escaped, since a part may quote a file. Errors
    pickle, so that they can be sent between processes.
    """

    subject: str
    """A noun phrase: a file, an option, a region."""
    rule: str
    """What must hold; it begins with "must"."""
    value: str
    """What was found; "" where there is nothing to show."""
    remedy: str
    """What the user can do: a sentence in the imperative, without its full stop."""

    def __init__(self, subject: str, rule: str, *, remedy: str, value: str = "") -> None:
        self.subject, self.rule, self.remedy, self.value = map(_escape, (subject, rule, remedy, value))
        super().__init__(*self.parts)

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Subject, rule, value and remedy."""
        return self.subject, self.rule, self.value, self.remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), *self.parts)

    def __str__(self) -> str:
        found = f" (found: {self.value})" if self.value else ""
        return f"{self.subject} {self.rule}{found}. {self.remedy}."

    def lines(self) -> list[str]:
        """The error as lines for a terminal: the broken rule, what was found, what to try."""
        found = [f"  found:  {self.value}"] if self.value else []
        return [f"limner: {self.subject} {self.rule}.", *found, f"  try:    {self.remedy}."]

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows instead of a traceback."""
        return self.lines()


class RequestError(LimnerError):
    """An option, a setting or a combination of them cannot be used."""


class ReadError(LimnerError):
    """A file, or pixels of it, cannot be read or understood."""


class ModelError(LimnerError):
    """A model, its card or its weights cannot be found, trusted or used on this image."""


def excerpt(text: str, limit: int = 100) -> str:
    """Shorten untrusted text for an error message: one line of printable characters, at most `limit` of them."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? " for the known name closest to `name`, as the start of a remedy; "" if none is close.

    >>> did_you_mean("watr", ["land", "water"])
    "Did you mean 'water'? "
    """
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}? " if close else ""


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def _rebuild(kind: type[LimnerError], subject: str, rule: str, value: str, remedy: str) -> LimnerError:
    return kind(subject, rule, value=value, remedy=remedy)
