"""A server's answer to the storing of one object (PS3.18, 10.5.3 and annex I), in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from .session import WebError

FAILURES: Final[Mapping[int, str]] = {
    0x0106: "an attribute has an invalid value",
    0x0110: "processing failure",
    0x0111: "the server has an object with this UID",
    0x0112: "it refers to an object that the server does not know",
    0x0117: "its UID is invalid",
    0x0118: "the server does not know its class",
    0x0120: "an attribute is missing",
    0x0121: "a value is missing",
    0x0122: "the server does not support its class",
    0x0124: "this account may not store it",
    0x0213: "the server is short of resources",
    0xC122: "the server does not support its transfer syntax",
}
"""Failure Reason (0008,1197) → words; ranges are in `failure_words`."""

WARNINGS: Final[Mapping[int, str]] = {
    0xB000: "the server changed attributes of it",
    0xB006: "the server discarded attributes of it",
    0xB007: "the server finds that it does not match its class",
}
"""Warning Reason (0008,1196) → words."""

_REFERENCED, _FAILED, _OTHER = "00081199", "00081198", "0008119A"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
_DUPLICATE: Final = 0x0111


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an object."""

    status: Literal["stored", "already there", "failed", "unknown"]
    """"unknown" where the answer does not say it."""
    words: str = ""
    """The server's warning, or why it failed."""


def failure_words(code: int) -> str:
    """A failure reason in words, with its code."""
    kinds = {0xA7: "the server is out of resources", 0xA9: "it does not match its class"}
    text = (
        FAILURES.get(code) or kinds.get(code >> 8) or ("the server cannot understand it" if code >> 12 == 0xC else "")
    )
    return f"{text or 'a reason without a name'} ({code:04X})"


def read_stored(http_status: int, answer: Any) -> Stored:
    """The outcome by the status of HTTP and the data set in the answer, None without a readable one."""
    if not isinstance(answer, dict):
        if answer is not None:
            raise WebError("JSON that is no DICOM data set")
        if http_status == HTTPStatus.CONFLICT:
            return Stored("failed", "HTTP 409 Conflict, without a reason")
        return Stored("stored" if http_status == HTTPStatus.OK else "unknown")
    data = cast("Mapping[str, Any]", answer)
    failed = [*_items(data, _FAILED), *_items(data, _OTHER)]
    if failed:
        codes = {code for one in failed if (code := _code(one, _FAILURE_REASON)) is not None}
        words = "; ".join(map(failure_words, sorted(codes))) or "no reason given"
        return Stored("already there" if codes == {_DUPLICATE} else "failed", words)
    stored = _items(data, _REFERENCED)
    if not stored:
        return Stored("unknown")
    codes = {code for one in (*stored, data) if (code := _code(one, _WARNING_REASON)) is not None}
    return Stored(
        "stored", "; ".join(f"{WARNINGS.get(code, 'a warning without a name')} ({code:04X})" for code in sorted(codes))
    )


def _items(data: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    attribute: object = data.get(tag)
    values: object = cast("Mapping[str, Any]", attribute).get("Value") if isinstance(attribute, dict) else None
    found = cast("list[object]", values) if isinstance(values, list) else []
    return [cast("Mapping[str, Any]", one) for one in found if isinstance(one, dict)]


def _code(item: Mapping[str, Any], tag: str) -> int | None:
    attribute: object = item.get(tag)
    values: object = cast("Mapping[str, Any]", attribute).get("Value") if isinstance(attribute, dict) else None
    first = cast("list[object]", values)[0] if isinstance(values, list) and values else None
    return first if isinstance(first, int) and 0 <= first <= 0xFFFF else None
