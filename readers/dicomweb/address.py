"""Inputs that are on a DICOMweb server: a study, a series, or a query. Nothing is contacted here.

    dicomweb:https://server/dicom-web/studies/UID
    dicomweb:https://server/dicom-web/studies/UID/series/UID
    dicomweb:https://server/dicom-web?PatientID=4711&Modality=CT&StudyDate=20240101-20241231

Queries have the attributes of QIDO-RS that every server must match (PS3.18, table 10.6.1-5) of studies and series.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import RequestError, did_you_mean, excerpt
from ..files import DICOMWEB
from ..servers import Address, AddressTerms

EXAMPLE: Final = "For example dicomweb:https://pacs.example.org/dicom-web/studies/1.2.3"
TERMS: Final = AddressTerms(
    server="DICOMweb server",
    example=EXAMPLE,
    remedy="Put name and password, or a token, into environment variables and name these with the options"
    " web_user_variable and web_password_variable, or web_token_variable",
    content="studies of patients and passwords",
    insecure="Give an https URL, or where the network is safe --reader-options web_insecure=true",
)
UID: Final = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*", re.ASCII)

STUDY_ATTRIBUTES: Final[Mapping[str, str]] = {
    "StudyDate": "00080020",
    "StudyTime": "00080030",
    "AccessionNumber": "00080050",
    "ModalitiesInStudy": "00080061",
    "ReferringPhysicianName": "00080090",
    "PatientName": "00100010",
    "PatientID": "00100020",
    "StudyInstanceUID": "0020000D",
    "StudyID": "00200010",
}
"""Attributes that a query may match studies by → their tags."""

SERIES_ATTRIBUTES: Final[Mapping[str, str]] = {
    "Modality": "00080060",
    "SeriesInstanceUID": "0020000E",
    "SeriesNumber": "00200011",
    "PerformedProcedureStepStartDate": "00400244",
    "PerformedProcedureStepStartTime": "00400245",
}
"""Attributes that a query may match series by → their tags."""

_KEYWORDS: Final = {tag: name for name, tag in (STUDY_ATTRIBUTES | SERIES_ATTRIBUTES).items()}
_PATH: Final = re.compile(r"(?P<base>.*?)/studies/(?P<study>[^/]+)(?:/series/(?P<series>[^/]+))?/?")
_DATE = r"\d{8}"
_TIME = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d(?:\.\d{1,6})?)?)?"
_SYNTAX: Final[Mapping[str, tuple[str, str]]] = {
    "Date": (rf"{_DATE}|{_DATE}-|-{_DATE}|{_DATE}-{_DATE}", "a date as YYYYMMDD, or a range of two with a hyphen"),
    "Time": (rf"{_TIME}|{_TIME}-|-{_TIME}|{_TIME}-{_TIME}", "a time as HHMMSS, or a range of two with a hyphen"),
    "UID": (r"[0-9][0-9.]{0,63}(?:[,\\][0-9][0-9.]{0,63})*", "a UID, or several with commas"),
    "Modality": (r"[A-Z0-9_*?]{1,16}", "a modality such as CT"),
    "ModalitiesInStudy": (r"[A-Z0-9_*?]{1,16}", "a modality such as CT"),
    "SeriesNumber": (r"[+-]?\d{1,10}", "a whole number"),
}
_MAX_VALUE: Final = 64


@dataclass(frozen=True, slots=True)
class WebInput:
    """What to read of a server."""

    server: Address
    study: str = ""
    """The UID of a study; "" for a query."""
    series: str = ""
    """The UID of one of its series; "" for all."""
    filters: tuple[tuple[str, str], ...] = ()
    """Attributes of a query by keyword, sorted."""

    @classmethod
    def parse(cls, uri: str, *, insecure: bool) -> Self:
        """An input by its URI. Raises `RequestError`, which quotes no UID and no value."""
        subject = "DICOMweb input"
        text = uri.removeprefix(DICOMWEB)
        try:
            parts = urlsplit(text)
        except ValueError:
            raise RequestError(subject, "must be a URL", remedy=EXAMPLE) from None
        found = _PATH.fullmatch(parts.path)
        path = found["base"] if found else parts.path.rstrip("/").removesuffix("/studies")
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        server = Address.parse(f"{parts.scheme}://{parts.netloc}{path}{fragment}", TERMS, insecure=insecure)
        if re.search(r"/(studies|series|instances)(/|$)", path):
            rule = "must end with /studies/UID or /studies/UID/series/UID, or have a query"
            raise RequestError(subject, rule, remedy=EXAMPLE)
        if found:
            if parts.query:
                raise RequestError(subject, "must not have both a study and a query", remedy="Leave one of them out")
            study, series = unquote(found["study"]), unquote(found["series"] or "")
            for name, uid in (("study", study), ("series", series)):
                if uid and not UID.fullmatch(uid):
                    rule = f"must name the {name} by its UID, of numbers and points"
                    raise RequestError(subject, rule, remedy="Check the end of the URL")
            return cls(server, study, series)
        filters = _filters(parts.query)
        if not filters:
            remedy = f"{EXAMPLE}, or end it with a query such as ?PatientID=4711&Modality=CT"
            raise RequestError(subject, "must name a study or have a query", remedy=remedy)
        return cls(server, filters=filters)

    def of_level(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """The attributes of the query that are among these."""
        return {name: value for name, value in self.filters if name in attributes}


def parse_server(text: str, *, insecure: bool) -> Address:
    """The server in `dicomweb:URL`, as a place to send to. Raises `RequestError`."""
    if not text.startswith(DICOMWEB):
        remedy = "For example --to dicomweb:https://pacs.example.org/dicom-web"
        raise RequestError("--to", f"must begin with {DICOMWEB}", remedy=remedy)
    server = Address.parse(text.removeprefix(DICOMWEB), TERMS, insecure=insecure)
    if re.search(r"/(studies|series|instances)(/|$)", server.url):
        raise RequestError("--to", "must be the URL of the server, without a study", remedy="Leave out /studies/…")
    return server


def _filters(query: str) -> tuple[tuple[str, str], ...]:
    """The attributes of a query. Raises `RequestError`."""
    known = {**STUDY_ATTRIBUTES, **SERIES_ATTRIBUTES}
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        [(given, value)] = parse_qsl(part, keep_blank_values=True, max_num_fields=1) or [(part, "")]
        name = _KEYWORDS.get(given.upper(), given)
        shown = repr(name) if name.isalnum() and name.isascii() else "without a valid name"
        subject = f"attribute {excerpt(shown)} of a DICOMweb query"
        if name not in known:
            remedy = f"{did_you_mean(name, known)}Attributes: {', '.join(known)}"
            raise RequestError(subject, "must be one that servers match studies or series by", remedy=remedy)
        if name in found:
            raise RequestError(subject, "must be given once", remedy="Leave one of the two out")
        _check_value(name, value, subject)
        found[name] = value
    return tuple(sorted(found.items()))


def _check_value(name: str, value: str, subject: str) -> None:
    """Raise `RequestError`, which does not show the value, where it cannot be one of the attribute."""
    ends = next((name_end for name_end in _SYNTAX if name.endswith(name_end)), "")
    if not ends:
        if not 0 < len(value) <= _MAX_VALUE or not value.isprintable() or not value.strip(" *?") or "\\" in value:
            rule = f"must have a value of 1 to {_MAX_VALUE} printable characters that are not all wildcards"
            raise RequestError(subject, rule, remedy="Correct it")
        return
    pattern, words = _SYNTAX[ends]
    try:
        right = re.fullmatch(pattern, value, re.ASCII) is not None
        for day in re.findall(_DATE, value) if ends == "Date" else ():
            datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007 - a day, without a time
    except ValueError:
        right = False
    if not right:
        raise RequestError(subject, f"must be {words}", remedy="Correct it")
