"""What a page may ask of the server: each request becomes a reply, and nothing names a file."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qs

from ...readers.errors import LimnerError
from ...readers.files import parse_json
from ...reports.html.layers import Filter, Layers, View
from ...reports.html.live_page import PAGE, LivePicture, layers_folder
from ...reports.writer import Record
from ..review.review import Review
from .findings import OUTCOMES, ImageFindings, Query
from .pictures import TILE, Frame, NoPictureError, Pictures, Quad, highest_level
from .reviewing import Reviewing
from .turns import OutdatedError

_MOST_ROWS: Final = 500
_MOST_LABELS: Final = 10_000
_LONGEST_SEARCH: Final = 500
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back."""

    status: HTTPStatus
    content: bytes = b""
    kind: str = _JSON
    """Its media type."""


_NOTHING: Final = Reply(HTTPStatus.NOT_FOUND)


class BadRequestError(Exception):
    """A request that no page of ours sends."""


class Api:
    """Replies to the requests of a page. Thread-safe."""

    def __init__(
        self,
        record: Record,
        index: Path,
        pictures: Pictures,
        live: Mapping[str, LivePicture],
        review: Review | None = None,
    ) -> None:
        self._pictures = pictures
        self._infos = [image.info for image in record.images]
        self._live = [live[info.id] for info in self._infos]
        self._page = (index / PAGE).read_bytes()
        self._findings = [
            ImageFindings(Layers.open(layers_folder(index, number))) for number in range(len(record.images))
        ]
        self._reviewing = None if review is None else Reviewing(review, self._decide)

    def _decide(self, image: str, row: int, outcome: str) -> None:
        """Note a decision; one on what is not there is of no use."""
        for info, found in zip(self._infos, self._findings, strict=True):
            if info.id == image and row < found.layers.count:
                found.decide(row, outcome)

    def post(self, path: Sequence[str], body: bytes) -> Reply:
        """Reply to a POST: a decision of the reviewer, as JSON."""
        if path != ["review"] or self._reviewing is None:
            return Reply(HTTPStatus.NOT_FOUND)
        try:
            action: Any = parse_json(body)
            if not isinstance(action, dict):
                return Reply(HTTPStatus.BAD_REQUEST)
            change = self._reviewing.act(cast("dict[str, Any]", action))
        except ValueError:
            return Reply(HTTPStatus.BAD_REQUEST)
        except LimnerError as error:
            return _json({"error": str(error)}, HTTPStatus.CONFLICT)
        return _json({**change, **self._review_state()})

    def _review_state(self) -> dict[str, Any]:
        """How far the review is; {} where the page is read-only."""
        if self._reviewing is None:
            return {}
        counts = {
            "reviewed": sum(found.reviewed for found in self._findings),
            "count": sum(found.layers.count for found in self._findings),
        }
        return {**self._reviewing.state(), **counts}

    def get(self, path: Sequence[str], query: str, is_open: Callable[[], bool]) -> Reply:
        """Reply to a GET of a path, in parts after the token."""
        try:
            if path == [""]:
                return Reply(HTTPStatus.OK, self._page, "text/html; charset=utf-8")
            return self._data(path, _Words(query)) or self._picture(path, _Words(query), is_open) or _NOTHING
        except (BadRequestError, IndexError):
            return Reply(HTTPStatus.BAD_REQUEST)
        except OutdatedError:
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE)
        except NoPictureError as error:
            return _json({"error": str(error)}, HTTPStatus.NOT_FOUND)

    def _picture(self, path: Sequence[str], words: "_Words", is_open: Callable[[], bool]) -> Reply | None:
        """A picture of an image; None for another path."""
        match path:
            case ["overview", number]:
                found = self._pictures.overview(self._image(number), is_open)
            case ["tile", number, plane, window, level, column, row]:
                at = (_whole(level), _whole(column), _whole(row))
                found = self._pictures.tile(self._frame(number, plane, window), at, is_open)
            case ["part", number, plane, window]:
                found = self._pictures.part(self._frame(number, plane, window), words.box(), is_open)
            case _:
                return None
        return Reply(HTTPStatus.OK, found.content, found.kind)

    def _data(self, path: Sequence[str], words: "_Words") -> Reply | None:
        """What is known of an image and its findings; None for another path."""
        match path:
            case ["review"]:
                return _json(self._review_state())
            case ["image", number]:
                return _json(self._about(self._image(number)))
            case ["image", number, what]:
                return self._of_image(self._image(number), what, words)
            case _:
                return None

    def _image(self, number: str) -> int:
        found = _whole(number)
        if found >= len(self._findings):
            raise BadRequestError
        return found

    def _frame(self, number: str, plane: str, window: str) -> Frame:
        """The places of an image, of a plane and of a window."""
        image, at, choice = self._image(number), _whole(plane), _whole(window)
        windows = self._live[image].windows
        if at >= len(self._infos[image].planes) or choice >= max(1, len(windows)):
            raise BadRequestError
        return Frame(image, at, choice)

    def _about(self, number: int) -> dict[str, Any]:
        """What a page needs of an image before it shows it."""
        layers, live = self._findings[number].layers, self._live[number]
        return {
            "labels": layers.labels,
            "counts": layers.label_counts(),
            "columns": layers.columns,
            "count": layers.count,
            "status": self._pictures.status(number),
            "pictured": not live.hidden,
            "tile": TILE,
            "level": highest_level(live.size),
        }

    def _of_image(self, number: int, what: str, words: "_Words") -> Reply | None:
        found, query = self._findings[number], words.query()
        if query.column >= len(found.layers.columns):
            raise BadRequestError
        match what:
            case "view":
                (step,) = words.numbers("step", 1)
                if step <= 0:
                    raise BadRequestError
                view = View(words.box(), step, words.whole("plane"))
                content = found.in_view(query, view, words.whole("extra", -1))
                return Reply(HTTPStatus.OK, content, "application/octet-stream")
            case "rows":
                start, count = max(0, words.whole("start")), words.whole("count", 100)
                table = found.table(query, start, min(count, _MOST_ROWS))
                return _json({**table, "rows": [self._decided(number, row) for row in table["rows"]]})
            case "step":
                row = found.step(query, words.whole("row", -1), words.whole("by"))
                return _json(self._decided(number, row) if row else {})
            case "at":
                x, y, near = words.numbers("at", 3)
                return _json({"row": found.at(query, (x, y), near, words.whole("plane"))})
            case _:
                return None

    def _decided(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A row of the table with what was decided of it."""
        if self._reviewing is None:
            return row
        return {**row, "decision": self._reviewing.of(self._infos[number].id, row["row"])}


@dataclass(frozen=True, slots=True)
class _Words:
    """The query of a request."""

    text: str

    def _values(self) -> Mapping[str, list[str]]:
        try:
            return parse_qs(self.text, strict_parsing=bool(self.text), max_num_fields=30, keep_blank_values=True)
        except ValueError:
            raise BadRequestError from None

    def one(self, name: str) -> str:
        """The first value of a name; "" without any."""
        return self._values().get(name, [""])[0]

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number."""
        text = self.one(name)
        return _whole(text, negative=True) if text else default

    def numbers(self, name: str, count: int) -> list[float]:
        """Finite numbers, separated by commas."""
        try:
            values = [float(part) for part in self.one(name).split(",")]
        except ValueError:
            raise BadRequestError from None
        if len(values) != count or not all(map(math.isfinite, values)) or max(map(abs, values)) > 1e12:
            raise BadRequestError
        return values

    def box(self) -> Quad:
        """The numbers "box", of which the last two are the larger ones."""
        x0, y0, x1, y1 = self.numbers("box", 4)
        if x1 <= x0 or y1 <= y0:
            raise BadRequestError
        return x0, y0, x1, y1

    def codes(self, name: str) -> frozenset[int] | None:
        """Whole numbers, separated by commas; None where there is no such name."""
        if name not in self._values():
            return None
        parts = [part for part in self.one(name).split(",") if part]
        if len(parts) > _MOST_LABELS:
            raise BadRequestError
        return frozenset(map(_whole, parts))

    def query(self) -> Query:
        """Which findings, and in which order."""
        low, high = (
            self.numbers(name, 1)[0] if self.one(name) else value for name, value in (("from", 0.0), ("to", 1.0))
        )
        search = self.one("search").strip().lower()
        if len(search) > _LONGEST_SEARCH:
            raise BadRequestError
        outcomes = self.codes("outcomes")
        return Query(
            Filter(self.codes("hide") or frozenset(), low, high, search),
            frozenset(range(len(OUTCOMES))) if outcomes is None else outcomes,
            max(-2, self.whole("order", -1)),
            self.one("down") == "1",
            self.one("words") == "1",
        )


def _whole(text: str, *, negative: bool = False) -> int:
    digits = text.removeprefix("-") if negative else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise BadRequestError
    return int(text)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(status, json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
