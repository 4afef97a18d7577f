"""Invalid requests end quickly with an error message and an exit code, never with a traceback."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

LONG, LONGER = "x" * 300, "x" * 5000
NUMBER = "9" * 400


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--overlap 1000000000", 2),
        ("--overlap 99999999999999999999999", 2),
        ("--overlap -1", 2),
        ("--resolution 1e-300m", 2),
        ("--resolution 1e300m", 2),
        ("--resolution nan", 2),
        (f"--resolution {NUMBER}m", 2),
        (f"--resolution 0.{'0' * 400}1m", 2),
        ("--resolution 0.0001um", 2),
        ("--stretch nan,inf", 2),
        ("--stretch 1,2,3", 2),
        ("--batch 1000000000", 2),
        ("--batch 0", 2),
        ("--engine local --workers 1000000000", 2),
        ("--workers -1", 2),
        ("--hd-num 0", 2),
        (f"--hd-num {NUMBER}", 2),
        ("--crs nonsense", 2),
        ("--crs \udcff", 2),
        ("--crs EPSG:99999999", 2),
        ("--sensor nonsense", 2),
        ("--bands a,b,c", 3),
        ("--reader nonsense", 2),
        ("--reader dicom", 3),
        ("--engine slurm", 2),
        ("--preset /etc/passwd", 2),
        ("--model /", 2),
        (f"--model {LONGER}", 2),
        ("--model \udcff", 2),
        ("--model none:x", 2),
        ("--model 4khd:/nowhere --ask x", 2),
        ("--model probe:/", 2),
        ("--area /nowhere", 2),
        ("--area /", 2),
        ("--area SCENE", 2),
        ("--config /dev/zero", 2),
        ("--config SCENE", 2),
        (f"--config {LONG}", 2),
        ("--set hd_num", 2),
        (f"--set hd_num={'9' * 5000}", 2),
        ("--set names=maybe", 2),
        ("--set reader_options.nonsense=1", 2),
    ],
)
def test_plan_with_invalid_arguments(words: str, code: int, scene: Path, limner: Limner) -> None:
    begun = time.monotonic()
    given = [str(scene) if word == "SCENE" else word for word in words.split(" ")]
    model = [] if "--model" in given else ["--model", "none"]
    output = limner("plan", scene, *model, *given)
    assert output.code == code, output.err
    assert "Traceback" not in output.err
    assert len(output.out + output.err) < 12_000
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("value", ["0", "nan", "inf", "-1", "1,2,3", "x", "1e-300"])
def test_impossible_pixel_sizes_of_a_slide(
    value: str, tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    slide = make_slide(tmp_path / "slide.tif", side=256, microns=None)
    output = limner("plan", slide, "--model", slide_card(tmp_path), f"--microns-per-pixel={value}")
    assert output.code in {2, 3}
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    ("out", "code"),
    [("", 2), ("SCENE", 2), ("/proc/x", 1), ("/dev/null/x", 1), (LONG, 1), (LONGER, 1), ("/dev/full", 2)],
)
def test_invalid_output_folders(out: str, code: int, scene: Path, limner: Limner) -> None:
    output = limner("run", scene, "--model", "none", "--out", str(scene) if out == "SCENE" else out)
    assert output.code == code, output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("info", 2),
        ("info /nowhere", 3),
        (f"info {LONG}", 3),
        (f"info {LONGER}", 3),
        ("info /dev/null", 3),
        ("info SCENE/x", 3),
        ("info SCENE --reader dicom", 3),
        ("report /", 2),
        ("report /nowhere", 2),
        ("report SCENE", 2),
        (f"report {LONG}", 1),
        (f"report {LONGER}", 1),
        ("run SCENE --model none --out OUT --reports nonsense", 2),
        ("run SCENE --model none --out OUT --reports geojson --reports geojson", 0),
        ("models show /", 2),
        ("models show 4khd:", 2),
        (f"models show {LONGER}", 2),
        ("models fetch nonsense", 2),
        ("models convert / OUT", 2),
        ("models convert nonsense OUT", 2),
        ("models tokenizer /nowhere --out OUT", 2),
        ("models tokenizer / --out OUT", 2),
        ("models build --vision x --language y --out OUT", 2),
        ("train align /nowhere --data /nowhere --out OUT", 2),
        ("train align / --data / --out SCENE", 2),
        ("train probe SCENE --labels /nowhere --out OUT", 2),
        ("train probe SCENE --labels FOLDER --out OUT", 2),
        ("train probe SCENE --labels SCENE --out SCENE --folds 0", 2),
        ("train probe SCENE --labels SCENE --out OUT --tile -5", 2),
    ],
)
def test_other_commands_with_invalid_arguments(
    words: str, code: int, scene: Path, tmp_path: Path, limner: Limner
) -> None:
    names = {"SCENE": str(scene), "OUT": str(tmp_path / "out"), "FOLDER": str(tmp_path)}
    output = limner(*[names.get(word, word.replace("SCENE", str(scene))) for word in words.split(" ")])
    assert output.code == code, output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    "text",
    [
        *("image,label,x,y\nscene,a", "label,x,y\na,1,2,3,4\nb", "label,wkt\na,POLYGON((", "label,x,y\na,nan,1"),
        *("label\na", f"label,x,y\na,{'9' * 5000},1", "label,x,y,crs\na,1,1,\x00", "a" * 200_000, "\x00\x00"),
        "label,x,y\n",
    ],
    ids=range(10),
)
def test_invalid_labels(text: str, scene: Path, tmp_path: Path, limner: Limner) -> None:
    (tmp_path / "labels.csv").write_text(text)
    output = limner("train", "probe", scene, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out")
    assert output.code == 2, output.err


def test_a_hundred_thousand_labels(scene: Path, card: Path, limner: Limner) -> None:
    output = limner("plan", scene, "--model", card, "--labels", ",".join(f"label {i}" for i in range(100_000)))
    assert output.code == 2
    assert len(output.err) < 2000


@pytest.mark.parametrize("schema", ["[" * 5000, '{"type": NaN}', "\x00", json.dumps({"a": "b" * 2**21})], ids=range(4))
def test_invalid_schemas(schema: str, scene: Path, tmp_path: Path, limner: Limner) -> None:
    (tmp_path / "schema.json").write_text(schema)
    words = ("--ask", "x", "--answer", "extract", "--schema-file", tmp_path / "schema.json")
    output = limner("plan", scene, "--model", "4khd:/nowhere", *words)
    assert output.code == 2
    assert "schema" in output.err
