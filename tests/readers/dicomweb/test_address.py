"""Inputs on DICOMweb servers: what they name, and what is refused before anything is contacted."""

from typing import Any

import pytest
from limner.readers.dicomweb.address import WebInput, parse_server
from limner.readers.dicomweb.options import WebOptions, authorization
from limner.readers.errors import RequestError

TOKEN: dict[str, Any] = {"web_token_variable": "PACS_TOKEN"}
BASE = "dicomweb:https://pacs.example.org/dicom-web"


def parse(text: str, *, insecure: bool = False) -> WebInput:
    return WebInput.parse(text, insecure=insecure)


def test_a_study_and_a_series() -> None:
    study, series = parse(f"{BASE}/studies/1.2.3"), parse(f"{BASE}/studies/1.2.3/series/4.5/")
    assert (study.server.url, study.study, study.series) == ("https://pacs.example.org/dicom-web", "1.2.3", "")
    assert (series.server.url, series.study, series.series) == ("https://pacs.example.org/dicom-web", "1.2.3", "4.5")


@pytest.mark.parametrize("end", ["", "/", "/studies"])
def test_a_query(end: str) -> None:
    found = parse(f"{BASE}{end}?PatientID=4711&Modality=CT&StudyDate=20240101-20241231&00080050=A%20%231")
    assert found.server.url == "https://pacs.example.org/dicom-web"
    assert dict(found.filters) == {
        "PatientID": "4711",
        "Modality": "CT",
        "StudyDate": "20240101-20241231",
        "AccessionNumber": "A #1",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BASE, "must name a study or have a query"),
        (f"{BASE}/studies", "must name a study or have a query"),
        (f"{BASE}/studies/1.2.3?PatientID=1", "must not have both"),
        (f"{BASE}/studies/1.2.3/instances/4.5", "must end with /studies/UID"),
        (f"{BASE}/studies/..%2f..%2fetc", "by its UID"),
        (f"{BASE}/studies/{'1.' * 40}1", "by its UID"),
        (f"{BASE}/studies/Doe", "by its UID"),
        ("dicomweb:https://doe:secret@pacs.example.org/studies/1.2", "must not hold a name, password"),
        ("dicomweb:https://pacs.example.org/studies/1.2#x", "must not hold a name, password"),
        ("dicomweb:http://pacs.example.org/studies/1.2", "must use https"),
        ("dicomweb:ftp://pacs.example.org/studies/1.2", "must begin with http"),
        ("dicomweb:file:///etc/studies/1.2", "must begin with http"),
        ("dicomweb:/etc/studies/1.2", "must begin with http"),
        (f"{BASE}?PatintID=1", "Did you mean 'PatientID'"),
        (f"{BASE}?includefield=all", "must be one that servers match"),
        (f"{BASE}?PatientID=", "must have a value"),
        (f"{BASE}?PatientID=*", "not all wildcards"),
        (f"{BASE}?PatientID=1&PatientID=2", "must be given once"),
        (f"{BASE}?StudyDate=2024", "must be a date"),
        (f"{BASE}?StudyDate=20240231", "must be a date"),
        (f"{BASE}?StudyDate=20240101-", ""),
        (f"{BASE}?StudyTime=2561", "must be a time"),
        (f"{BASE}?Modality=ct", "must be a modality"),
        (f"{BASE}?StudyInstanceUID=1.2,Doe", "must be a UID"),
        (f"{BASE}?SeriesNumber=one", "must be a whole number"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    if not why:
        parse(text)
        return
    with pytest.raises(RequestError, match=why) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_http_where_it_is_safe() -> None:
    assert parse("dicomweb:http://127.0.0.1:8042/dicom-web/studies/1.2").server.loopback
    assert parse("dicomweb:http://pacs.lan/studies/1.2", insecure=True).server.url == "http://pacs.lan"


@pytest.mark.parametrize("text", ["https://pacs.example.org", f"{BASE}/studies/1.2", "dicomweb:pacs.example.org"])
def test_where_to_send(text: str) -> None:
    assert parse_server(f"{BASE}/", insecure=False).url == "https://pacs.example.org/dicom-web"
    with pytest.raises(RequestError, match=r"must (begin with|be the URL of the server)"):
        parse_server(text, insecure=False)


def test_credentials_are_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_USER", "doe")
    monkeypatch.setenv("PACS_PASSWORD", "two words")
    monkeypatch.setenv("PACS_TOKEN", "abc")
    both: dict[str, Any] = {"web_user_variable": "PACS_USER", "web_password_variable": "PACS_PASSWORD"}
    assert authorization(WebOptions()) == ""
    assert authorization(WebOptions(**both)) == "Basic ZG9lOnR3byB3b3Jkcw=="
    assert authorization(WebOptions(**TOKEN)) == "Bearer abc"
    for wrong in (both | TOKEN, {**both, "web_password_variable": ""}):
        with pytest.raises(RequestError, match="Give one of the two"):
            authorization(WebOptions(**wrong))
    monkeypatch.setenv("PACS_TOKEN", "abc\ndef")
    with pytest.raises(RequestError, match="environment variable PACS_TOKEN") as caught:
        authorization(WebOptions(**TOKEN))
    assert "abc" not in str(caught.value)
    with pytest.raises(RequestError, match="the name of an environment variable") as caught:
        WebOptions(**{**TOKEN, "web_token_variable": "eyJhbGciOi.J9"})
    assert "eyJ" not in str(caught.value)
