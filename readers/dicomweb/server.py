"""A DICOMweb server: searches (QIDO-RS), retrieval of instances (WADO-RS) and storing of objects (STOW-RS).

Searches go through the package dicomweb-client. It parses instances in this process and holds messages in memory, so
that retrieval and storing are done here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from dicomweb_client.web import DICOMwebClient

from ..servers import Address
from .address import SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, UID, WebInput
from .cache import Instance
from .multipart import MessageBody, boundary_of, write_part
from .options import WebOptions
from .session import JSON_TYPES, MAX_JSON, Answer, WebError, WebSession, read_json
from .stored import Stored, read_stored

PAGE: Final = 500
MAX_PAGES: Final = 2000
MAX_STUDIES: Final = 1000
"""Studies that are counted where a query matches more than it may."""

MAX_INSTANCES: Final = 100_000
"""Instances of one input."""

_DICOM: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_TAGS: Final[Mapping[str, str]] = {**STUDY_ATTRIBUTES, **SERIES_ATTRIBUTES, "SOPInstanceUID": "00080018"}
_COMPARED: Final = (
    "PatientID",
    "AccessionNumber",
    "StudyID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "Modality",
)
"""Attributes of a query that an answer is compared with, since a server may ignore what it does not know."""

_NO_LIST: Final = (400, 404, 405, 406, 501)
"""Statuses of servers that have no list of a study that they do not have, or no lists at all."""

Row = Mapping[str, tuple[str, ...]]
"""Values by keyword, of the attributes in `_TAGS`."""


class WebServer:
    """A server, for one thread. Methods raise `WebError`; making one raises `RequestError`."""

    def __init__(self, address: Address, options: WebOptions) -> None:
        self.address = address
        self._session = WebSession(address, options)
        self._client: Any = DICOMwebClient(address.url, session=self._session, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)  # the session does

    def abort(self) -> None:
        """End what another thread asks of it, and ask nothing more."""
        self._session.abort()

    def list_instances(self, asked: WebInput, most: int) -> list[Instance]:
        """The instances of an input, sorted; of a query that matches at most so many studies.

        Raises `TooManyError`.
        """
        if asked.study:
            return self._instances(asked.study, asked.series)
        filters = asked.of_level(STUDY_ATTRIBUTES)
        of_series = asked.of_level(SERIES_ATTRIBUTES)
        broad = {"ModalitiesInStudy": of_series["Modality"]} if "Modality" in of_series else {}
        studies = self._search(
            partial(self._client.search_for_studies, search_filters={**broad, **filters}),
            "StudyInstanceUID",
            MAX_STUDIES,
        )
        _compare(studies.values(), filters)
        if len(studies) > most:
            raise TooManyError(len(studies))
        found: list[Instance] = []
        for study in sorted(studies):
            if not of_series:
                found += self._instances(study)
                continue
            series = self._search(
                partial(self._client.search_for_series, study, search_filters=of_series), "SeriesInstanceUID", PAGE
            )
            _compare(series.values(), of_series)
            for one in sorted(series):
                found += self._instances(study, one)
            if len(found) > MAX_INSTANCES:
                raise WebError(f"more than {MAX_INSTANCES} instances", remedy="Narrow the query")
        return found

    def has(self, one: Instance) -> bool:
        """Whether the server has an instance."""
        search = partial(
            self._client.search_for_instances, one.study, one.series, search_filters={"SOPInstanceUID": one.sop}
        )
        try:
            return any(one.sop in row["SOPInstanceUID"] for row in _rows(search(limit=PAGE)))
        except WebError as error:
            if error.status in _NO_LIST:
                return False
            raise

    def retrieve(self, one: Instance, file: BinaryIO, limit: int) -> None:
        """Write the bytes of an instance, as the server keeps them, to a file that is empty or cut first."""

        def read(answer: Answer) -> None:
            file.seek(0)
            file.truncate()
            if answer.media_type == "application/dicom":  # without the message around it, as some servers send
                file.writelines(answer.chunks(limit))
            elif answer.media_type == "multipart/related":
                boundary = boundary_of(answer.response.headers["content-type"])
                write_part(answer.chunks(limit), boundary, file)
            else:
                raise answer.wrong_type("a DICOM object")

        self._session.exchange("GET", f"{self.address.url}{one.path}", read, headers={"Accept": _DICOM})

    def store(self, path: Path) -> Stored:
        """Store an object. Raises `OSError` where the file cannot be read."""

        def read(answer: Answer) -> Stored:
            body = b"".join(answer.chunks(MAX_JSON))
            known = answer.media_type in JSON_TYPES and body.strip()
            return read_stored(answer.status, read_json(answer, body) if known else None)

        size = path.stat().st_size
        return self._session.exchange(
            "POST",
            f"{self.address.url}/studies",
            read,
            headers={"Accept": "application/dicom+json", "Content-Type": MessageBody.content_type},
            body=lambda: MessageBody(path),
            size=size,
            store=True,
        )

    def _instances(self, study: str, series: str = "") -> list[Instance]:
        search = partial(self._client.search_for_instances, study, series or None)
        rows = self._search(search, "SOPInstanceUID", MAX_INSTANCES)
        for row in rows.values():
            for name, uid in (("StudyInstanceUID", study), ("SeriesInstanceUID", series)):
                if uid and row[name] not in {(), (uid,)}:
                    remedy = "Do not trust this server's answers"
                    raise WebError("instances of another study or series than was asked for", remedy=remedy)
        return sorted(Instance(study, series or _uid(row, "SeriesInstanceUID"), sop) for sop, row in rows.items())

    def _search(self, search: Callable[..., Any], key: str, most: int) -> dict[str, Row]:
        """The results of a search by UID, page after page. Raises `WebError` where there are more than `most`."""
        found: dict[str, Row] = {}
        for _ in range(MAX_PAGES):
            page = _rows(search(limit=PAGE, offset=len(found)))  # one by one: the first without a UID ends it
            new = {uid: row for row in page if (uid := _uid(row, key)) not in found}
            found |= new
            if len(found) > most:
                raise WebError(f"more than {most} results", remedy="Name a study or a series, or narrow the query")
            if not new:  # also of a server that ignores the offset
                return found
        raise WebError(f"more than {MAX_PAGES} pages of results", remedy="Name a study or a series")


class TooManyError(Exception):
    """A query matches `count` studies, more than it may."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


def _rows(answer: Any) -> Iterator[Row]:
    """The attributes of results that are used here, shortened: an answer may hold others without end."""
    for row in cast("list[object]", answer) if isinstance(answer, list) else [None]:
        if not isinstance(row, dict):
            raise WebError("JSON that is no list of DICOM data sets")
        yield {name: _values(cast("Mapping[str, Any]", row), tag) for name, tag in _TAGS.items()}


def _values(row: Mapping[str, Any], tag: str) -> tuple[str, ...]:
    """The values of an attribute as texts, up to 16 of 65 characters."""
    attribute: object = row.get(tag)
    values: object = cast("Mapping[str, Any]", attribute).get("Value") if isinstance(attribute, dict) else None
    found = cast("list[object]", values)[:16] if isinstance(values, list) else []
    return tuple(str(one)[:65].strip(" \0") for one in found if isinstance(one, str | int | float))


def _uid(row: Row, key: str) -> str:
    uid = next(iter(row[key]), "")
    if not UID.fullmatch(uid):
        raise WebError("a result without a valid UID")
    return uid


def _compare(rows: Iterable[Row], filters: Mapping[str, str]) -> None:
    """Raise `WebError` for a result that states another value than was asked for."""
    for row in rows:
        for name in filters.keys() & set(_COMPARED):
            if row[name] and not any(_matches(value, filters[name], name) for value in row[name]):
                remedy = f"The server ignores {name} in queries: name the studies by their UIDs"
                raise WebError(f"a result that does not match the {name} of the query", remedy=remedy)


def _matches(value: str, asked: str, name: str) -> bool:
    """Whether a value matches that of a query (PS3.4, C.2.2.2)."""
    if name == "StudyDate":
        first, hyphen, last = asked.partition("-")
        last = last or ("99999999" if hyphen else first)
        return first <= value.replace(".", "") <= last
    if name.endswith("UID"):
        return value in re.split(r"[,\\]", asked)
    return fnmatchcase(value.lower(), asked.strip().lower().replace("[", "[[]"))
