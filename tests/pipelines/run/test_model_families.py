"""End-to-end runs with every family of models, from checkpoint to report."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
Folder = Callable[[str], Path]

TABLES = ("findings.csv", "summary.csv", "findings.geojson")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def identity(out: Path) -> dict[str, str]:
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))["annotator"]["identity"]


def run(limner: Limner, scene: Path, out: Path, *words: str) -> list[dict[str, str]]:
    """A run with small regions, so that there are seams."""
    output = limner("run", scene, *words, "--hd-num", 4, "--out", out)
    assert output.code == 0, output.err
    return rows(out / "findings.csv")


def test_classification(tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    found = run(limner, scene, tmp_path / "out", "--model", f"transformers:{zoo_folder('vit')}")
    assert {row["kind"] for row in found} == {"tile"}
    assert {row["label"] for row in found} <= {"field", "water", "town"}
    for row in found:
        assert sum(float(row[f"number.p.{label}"]) for label in ("field", "water", "town")) == pytest.approx(
            1, abs=2e-4
        )
    output = identity(tmp_path / "out")
    assert output["task"] == "classify"
    assert output["licence"].startswith("not known")
    assert len(output["weights_sha256_vit"]) == 64
    assert output["preprocessing"].startswith("tiles of 64 px, red, green, blue; value × 0.00392157; mean 0.5")
    assert output["checkpoint"] == str(zoo_folder("vit"))
    reports = [path for path in (tmp_path / "out").glob("*.*") if path.name != "manifest.json"]
    assert [path.name for path in reports if str(zoo_folder("vit").parent).encode() in path.read_bytes()] == []
    assert '<dt>checkpoint</dt><dd dir="auto">vit</dd>' in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_only_the_requested_labels(tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    model = f"transformers:{zoo_folder('vit')}"
    every = run(limner, scene, tmp_path / "all", "--model", model)
    asked = every[0]["label"]
    some = run(limner, scene, tmp_path / "some", "--model", model, "--labels", asked)
    assert [row["label"] for row in some] == [row["label"] for row in every if row["label"] == asked]
    output = limner("run", scene, "--model", model, "--labels", "twon", "--out", tmp_path / "none")
    assert output.code == 2
    assert "Did you mean 'town'?" in output.err


@pytest.mark.parametrize("name", ["oneformer", "segformer", "upernet"])
def test_segmentation(name: str, tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    found = run(limner, scene, tmp_path / "out", "--model", f"transformers:{zoo_folder(name)}")
    assert {row["kind"] for row in found} == {"area"}
    summary = rows(tmp_path / "out" / "areas.csv")
    analysed = next(float(row["area_px"]) for row in summary if row["item"] == "analysed")
    labels = [float(row["area_px"]) for row in summary if row["entry"] == "label"]
    assert sum(labels) == pytest.approx(analysed)  # the classes partition the analysed area
    without = run(
        limner, scene, tmp_path / "less", "--model", f"transformers:{zoo_folder(name)}",
        "--set", "model_options.background=water",
    )  # fmt: skip
    assert {row["label"] for row in without} == {row["label"] for row in found} - {"water"}


@pytest.mark.parametrize("name", ["detr", "rt_detr", "yolos"])
def test_detection(name: str, tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    threshold = ("--set", "model_options.threshold=0.3")
    model = ("--model", f"transformers:{zoo_folder(name)}", *threshold)
    found = run(limner, scene, tmp_path / "out", *model)
    assert {row["kind"] for row in found} == {"box"}
    assert all(float(row["score"]) >= 0.3 for row in found)
    assert all(float(row["number.tiles"]) >= 1 for row in found)
    engine = ("--set", "engine=local", "--set", "workers=1") if name == "detr" else ()
    other = limner("run", scene, *model, "--hd-num", 4, "--out", tmp_path / "again", "--batch", 3, *engine)
    assert other.code == 0, other.err
    for table in TABLES:
        assert (tmp_path / "out" / table).read_bytes() == (tmp_path / "again" / table).read_bytes()


@pytest.mark.parametrize("name", ["deimv2", "lw_detr", "rf_detr"])
def test_newer_detectors(name: str, tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    threshold = ("--set", "model_options.threshold=0.3")
    found = run(limner, scene, tmp_path / "out", "--model", f"transformers:{zoo_folder(name)}", *threshold)
    assert {row["kind"] for row in found} == {"box"}
    assert {row["label"] for row in found} <= {"field", "water", "town"}
    assert identity(tmp_path / "out")["score"] == "sigmoid of each label"


def test_a_detector_on_a_resnet_of_timm(tmp_path: Path, scene: Path, zoo_resnets: ModuleType, limner: Limner) -> None:
    folder = tmp_path / "table"
    zoo_resnets.detector(folder, "TableTransformer", "resnet18")
    model = ("--model", f"transformers:{folder}", "--set", "model_options.threshold=0.2")
    found = run(limner, scene, tmp_path / "out", *model)
    assert {row["kind"] for row in found} == {"box"}
    assert {row["label"] for row in found} <= {"field", "water", "town"}


@pytest.mark.parametrize("name", ["detr", "segformer"])
def test_background_classes_are_not_reported(
    name: str, tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner
) -> None:
    folder = Path(shutil.copytree(zoo_folder(name), tmp_path / "model"))
    model = ("--model", f"transformers:{folder}", "--set", "model_options.threshold=0.3")
    labels = {row["label"] for row in run(limner, scene, tmp_path / "all", *model)}
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    names = {key: "N/A" if label == min(labels) else label for key, label in settings["id2label"].items()}
    path.write_text(json.dumps(settings | {"id2label": names}))
    assert {row["label"] for row in run(limner, scene, tmp_path / "named", *model)} == labels - {min(labels)}


def test_detections_do_not_depend_on_the_regions(
    tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner
) -> None:
    tables = []
    for number in (2, 30):
        model = ("--model", f"transformers:{zoo_folder('rt_detr')}", "--set", "model_options.threshold=0.3")
        out = tmp_path / str(number)
        output = limner("run", scene, *model, "--hd-num", number, "--out", out)
        assert output.code == 0, output.err
        tables.append((out / "findings.csv").read_bytes())
    assert len(tables[0].splitlines()) > 5
    assert tables[0] == tables[1]


def test_a_detection_on_a_stack_is_on_one_slice(
    tmp_path: Path, making: ModuleType, zoo_folder: Folder, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    folder = making.save_all(making.slices(5), tmp_path / "ct")
    model = (
        "--model",
        f"transformers:{zoo_folder('rt_detr')}",
        "--set",
        "model_options.threshold=0.3",
        "--set",
        "model_options.halo=0",
    )
    found = run(limner, folder, tmp_path / "out", *model)
    assert {row["kind"] for row in found} == {"box"}
    assert all(row.get("note.cut", "") == "" for row in found)
    assert {row["slice"] for row in rows(tmp_path / "out" / "findings.csv")} <= set("12345")


@pytest.mark.parametrize("name", ["owlvit", "grounding-dino"])
def test_open_vocabulary_detection(name: str, tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    model = ("--model", f"transformers:{zoo_folder(name)}", "--set", "model_options.threshold=0.1")
    found = run(limner, scene, tmp_path / "out", *model, "--labels", "cat,water tower")
    assert {row["kind"] for row in found} == {"box"}
    assert {row["label"] for row in found} <= {"cat", "water tower"}
    assert identity(tmp_path / "out")["labels"] == "cat, water tower"
    output = limner("run", scene, *model, "--out", tmp_path / "none")
    assert output.code == 2
    assert "must name what to look for" in output.err


def test_errors_are_reported(tmp_path: Path, scene: Path, zoo_folder: Folder, limner: Limner) -> None:
    for words, told in (
        (["--model", "transformers"], "for example, --model transformers:FOLDER"),
        (["--model", f"transformers:{tmp_path / 'gone'}"], "a folder on this machine"),
        (["--model", f"transformers:{tmp_path}"], "must have a readable config.json"),
        (["--set", "model_options.halo=32"], "must leave a core in a tile"),
        (["--set", "model_options.threshold=2"], "a number from 0 to 1"),
        (["--set", "model_options.treshold=0.2"], "Did you mean 'threshold'?"),
        (["--set", "model_options.template=a photo"], "where the label goes"),
    ):
        model = [] if "--model" in words else ["--model", f"transformers:{zoo_folder('detr')}"]
        output = limner("run", scene, *model, *words, "--out", tmp_path / "out")
        assert output.code == 2, (words, output.err)
        assert told in " ".join(output.err.split()), (words, output.err)


def test_a_slide_by_a_model_of_the_wsinfer_zoo(
    tmp_path: Path, make_slide: Callable[..., Path], zoo: ModuleType, limner: Limner
) -> None:
    slide = make_slide(tmp_path / "slide.tif")
    folder = zoo.wsinfer(tmp_path / "zoo")
    found = run(limner, slide, tmp_path / "out", "--model", f"wsinfer:{folder}")
    assert {row["kind"] for row in found} == {"tile"}
    assert {row["label"] for row in found} <= {"nuclei", "stroma", "glass"}
    assert {float(row["x0_px"]) % 80 for row in found} == {0.0}  # 40 pixels of 1 um, where the slide's are 0.5 um
    assert len({row["score"] for row in found}) > 10
    output = identity(tmp_path / "out")
    assert output["preprocessing"].startswith("patches of 40 px of 1 um, shown at 56 px")
    assert len(output["sha256_config.json"]) == len(output["weights_sha256_torchscript_model.pt"]) == 64
    unsized = make_slide(tmp_path / "unsized.tif", microns=None)
    refused = limner("run", unsized, "--model", f"wsinfer:{folder}", "--out", tmp_path / "none")
    assert refused.code != 0
    assert "--microns-per-pixel" in refused.err
    coarse = make_slide(tmp_path / "coarse.tif", microns=4.0)
    refused = limner("run", coarse, "--model", f"wsinfer:{folder}", "--out", tmp_path / "none")
    assert refused.code != 0
    assert "of the 1 µm of the model" in refused.err


def test_a_map_by_networks_with_the_metadata_of_deepness(
    tmp_path: Path, scene: Path, zoo: ModuleType, limner: Limner
) -> None:
    pytest.importorskip("onnx", reason="networks for tests are written with the onnx package")
    segmentor = zoo.segmentor(tmp_path / "areas.onnx", class_names={"0": "dim", "1": "park", "2": "lake"})
    areas = run(limner, scene, tmp_path / "areas", "--model", f"deepness:{segmentor}")
    assert {row["kind"] for row in areas} == {"area"}
    detector = zoo.detector(tmp_path / "boxes.onnx", upright=True, resolution=1000)
    boxes = run(limner, scene, tmp_path / "boxes", "--model", f"deepness:{detector}")
    assert {row["kind"] for row in boxes} == {"box"}
    assert {row["label"] for row in boxes} == {"car", "bus"}
    output = identity(tmp_path / "boxes")
    assert output["det_type"] == "YOLO_Ultralytics"
    assert output["threshold"] == "0.6"
    assert len(output["weights_sha256_Detector"]) == 64
    fine = zoo.segmentor(tmp_path / "fine.onnx", resolution=200)
    refused = limner("run", scene, "--model", f"deepness:{fine}", "--out", tmp_path / "none")
    assert refused.code != 0
    assert "of the 2 m of the model" in refused.err


def test_words_and_pictures_by_a_checkpoint_of_openclip(
    tmp_path: Path, scene: Path, zoo: ModuleType, limner: Limner
) -> None:
    (tmp_path / "open").mkdir()
    zoo.openclip(tmp_path / "open", quick=True)
    found = run(limner, scene, tmp_path / "out", "--model", f"zero-shot:{tmp_path / 'open'}", "--labels", "water,land")
    assert {row["kind"] for row in found} == {"tile", "region"}
    assert {row["label"] for row in found} <= {"water", "land"}
    assert len(identity(tmp_path / "out")["sha256_open_clip_model.safetensors"]) == 64


def test_weights_alone_by_the_name_of_their_architecture(
    tmp_path: Path, scene: Path, tiny_clip: Path, limner: Limner
) -> None:
    weights = tmp_path / "RemoteCLIP-tiny.safetensors"
    shutil.copy(tiny_clip / "tiny.safetensors", weights)
    asked = ("--model", f"zero-shot:{weights}", "--labels", "water,land")
    words = ("--set", f"model_options.tokenizer={tiny_clip / 'merges.txt.gz'}")
    for name, head in (("tiny", "gelu"), ("tiny-quickgelu", "quick_gelu")):
        named = ("--set", f"model_options.architecture={name}", "--fetch")  # though there is nothing to fetch
        found = run(limner, scene, tmp_path / head, *asked, *words, *named)
        assert {row["kind"] for row in found} == {"tile", "region"}
        output = identity(tmp_path / head)
        assert output["architecture"] == name
        assert len(output["sha256_RemoteCLIP-tiny.safetensors"]) == len(output["sha256_merges.txt.gz"]) == 64
    assert (tmp_path / "gelu" / "findings.csv").read_bytes() != (tmp_path / "quick_gelu" / "findings.csv").read_bytes()
    for further, told in (
        ((), "must have its architecture named"),
        (("--set", "model_options.architecture=ViT-B-32"), "packed with gzip"),
        (("--set", "model_options.architecture=tinny"), "Did you mean 'tiny'"),
    ):
        refused = limner("run", scene, *asked, *words, *further, "--out", tmp_path / "none")
        assert refused.code == 2, refused.err
        assert told in " ".join(refused.err.split()), refused.err
    no_words = limner("run", scene, *asked, "--set", "model_options.architecture=tiny", "--out", tmp_path / "none")
    assert no_words.code == 2
    assert "must have its tokenizer" in " ".join(no_words.err.split())
