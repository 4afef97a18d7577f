"""What a slide is called in reports: not by its file name, unless asked for."""

from collections.abc import Mapping

from .errors import RequestError


def slide_id(path: str, mark: str, options: Mapping[str, str]) -> str:
    """The id of a slide: `slide-` and 8 hexadecimal digits of its fingerprint, or "" (its file name) where asked for.

    Names of slide files are often case numbers or names of people. Raises `RequestError` where the reader option
    `names` is neither "show" nor "hide".
    """
    choice = options.get("names", "hide")
    if choice not in {"hide", "show"}:
        raise RequestError("reader option names", "it is hide or show", value=choice, remedy=f"Correct it for {path}")
    return "" if choice == "show" else f"slide-{mark[:8]}"
