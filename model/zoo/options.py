"""The options of annotators for models in other formats: words from a command line, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...readers.errors import ModelError, RequestError, nearest


@dataclass(frozen=True, slots=True)
class Options:
    """What a person said to an annotator. `annotator` names it in errors."""

    annotator: str
    said: Mapping[str, str]

    def only(self, *known: str) -> None:
        """Raise `RequestError` for an option that is not among those known."""
        unknown = sorted(set(self.said) - set(known))
        if unknown:
            remedy = f"{nearest(unknown[0], known)}Known: {', '.join(known)}"
            raise self.wrong(unknown[0], "it must be known", "", remedy)

    def needed(self, name: str, remedy: str) -> str:
        """An option that must be given. Raises `RequestError`."""
        if not self.said.get(name):
            raise self.wrong(name, "it must be named", "", remedy)
        return self.said[name]

    def whole(self, name: str) -> int | None:
        """A whole number, None where it is not given. Raises `RequestError`."""
        text = self.said.get(name, "")
        if text and not text.isdecimal():
            raise self.wrong(name, "it is a whole number", text, "Correct it")
        return int(text) if text else None

    def share(self, name: str) -> float | None:
        """A number from 0 to 1, None where it is not given. Raises `RequestError`."""
        text = self.said.get(name, "")
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0.0 <= number <= 1.0:
            raise self.wrong(name, "it is a number from 0 to 1", text, "Correct it")
        return number

    def flag(self, name: str) -> bool:
        """True or false, false where it is not given. Raises `RequestError`."""
        text = self.said.get(name, "false")
        if text not in {"true", "false"}:
            raise self.wrong(name, "it is true or false", text, "Correct it")
        return text == "true"

    def names(self, name: str, separator: str = ",") -> tuple[str, ...]:
        """Names with separators between them, each once. Raises `RequestError` for one that is given twice."""
        given = tuple(part.strip() for part in self.said.get(name, "").split(separator) if part.strip())
        twice = sorted({part for part in given if given.count(part) > 1})
        if twice:
            raise self.wrong(name, "each may be named once", ", ".join(twice), "Leave out the second")
        return given

    def wrong(self, name: str, rule: str, value: str, remedy: str) -> RequestError:
        """The error about an option."""
        return RequestError(f"option {name!r} of {self.annotator}", rule, value=value, remedy=remedy)


def among(asked: Sequence[str], labels: Sequence[str], model: str) -> tuple[str, ...]:
    """The labels that were asked for, in the model's order; all where none was. Raises `ModelError` for another."""
    unknown = [label for label in asked if label not in labels]
    if unknown:
        some = f"{', '.join(labels[:20])}{', …' if len(labels) > 20 else ''}"  # noqa: PLR2004 - a line's worth
        raise ModelError(
            f"label {unknown[0]!r}",
            f"it must be one that {model} knows",
            remedy=f"{nearest(unknown[0], labels)}Its labels: {some}",
        )
    return tuple(label for label in dict.fromkeys(labels) if not asked or label in asked)
