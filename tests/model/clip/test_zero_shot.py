"""The zero-shot annotator: tiles cover the core once, and an answer depends on its own region only."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import shapely
from limner.model.annotator import Answer, InputSpec, View
from limner.model.clip.annotator import ZeroShot
from limner.model.clip.checkpoint import find_checkpoint
from limner.model.clip.fusion import Fusion
from limner.model.clip.network import ClipNetwork
from limner.model.views import core_window, read_view, to_image_coordinates
from limner.readers.errors import ModelError, RequestError
from limner.readers.image import Image
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

Make = Callable[..., Path]
Pictures = Callable[..., Image]
LABELS = "cat,dog,water"
PLAIN = Stretch(("red", "green", "blue"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "as it is")


def views(picture: Pictures, spec: InputSpec, *, overlap: int = 0) -> list[View]:
    """A picture of 150 × 100 px in regions of four tiles; a square of it, 70 px wide, is nodata."""
    pixels = np.random.default_rng(5).integers(0, 256, size=(100, 150, 3), dtype=np.uint8)
    mask = np.ones((100, 150), dtype=np.bool_)
    mask[:70, :70] = False
    image = picture(pixels, mask=mask)
    grid = Grid("picture", image.info.size, (1.0, 1.0))
    regions = cut_regions(grid, tile=spec.tile, halo=spec.halo, hd_num=4, overlap=overlap)
    return [read_view(image, region, spec, stretch=PLAIN) for region in regions]


def annotator(folder: Path, **options: str) -> ZeroShot:
    return make_plugin(ZeroShot, {"checkpoint": str(folder), "labels": LABELS, **options})


def test_it_is_installed() -> None:
    [point] = entry_points(group="limner.annotators", name="zero-shot")
    assert point.load() is ZeroShot


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.slow
def test_an_answer_is_the_network_s_result_for_its_tile(checkpoints: Make, picture: Pictures, family: str) -> None:
    folder = checkpoints(family)
    zero_shot = annotator(folder)
    network = ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS.split(","), ["a photo of {}."])
    spec = zero_shot.input_spec(picture(np.zeros((4, 4, 3), dtype=np.uint8)).info)
    assert spec == InputSpec(tile=32, overall=True, variant=family)
    shown = views(picture, spec)
    regions = 0
    for view, answers in zip(shown, zero_shot.annotate(shown), strict=True):
        chances: list[np.ndarray] = []
        tiles = iter(answers)
        for tile, (x0, y0, x1, y1) in zip(view.tiles, view.grid.boxes(), strict=True):
            if not view.keep_mask[y0:y1, x0:x1].any():
                continue
            chances.append(network(tile))
            answer = next(tiles)
            assert answer.kind == "tile"
            share = core(view) & box(x0, y0, x1, y1)
            assert shapely.equals(answer.geometry, share)
            check(answer, chances[-1], view.keep_mask[y0:y1, x0:x1].sum() / share.area)
        if not chances:
            assert list(tiles) == []
            continue
        [region] = tiles
        assert (region.kind, region.geometry) == ("region", None)
        assert view.global_view is not None
        check(
            region, (np.mean(chances, axis=0) + network(view.global_view)) / 2, view.keep_mask.sum() / core(view).area
        )
        assert region.notes == {"made_of": f"half the mean of {len(chances)} tiles, half the global view"}
        regions += 1
    assert regions > 1


def core(view: View) -> BaseGeometry:
    rows, columns = core_window(view.region)
    return box(columns.start, rows.start, columns.stop, rows.stop)


def check(answer: Answer, chances: np.ndarray, valid: float) -> None:
    labels = LABELS.split(",")
    assert answer.label == labels[int(chances.argmax())]
    assert answer.score == answer.numbers[f"p.{answer.label}"]
    assert list(answer.numbers) == [*(f"p.{label}" for label in labels), "valid"]
    assert [answer.numbers[f"p.{label}"] for label in labels] == [round(float(chance), 4) for chance in chances]
    assert answer.numbers["valid"] == round(float(valid), 6)


@pytest.mark.parametrize("overlap", [0, 10])
def test_tiles_cover_the_valid_area_once(checkpoints: Make, picture: Pictures, overlap: int) -> None:
    zero_shot = annotator(checkpoints("clip"), aggregate="tile")
    shown = views(picture, InputSpec(tile=32), overlap=overlap)
    found = [
        to_image_coordinates([answer], view)[0].geometry
        for view, answers in zip(shown, zero_shot.annotate(shown), strict=True)
        for answer in answers
    ]
    empty = 70 * 70
    assert shapely.union_all(found).area == pytest.approx(sum(one.area for one in found))
    assert 150 * 100 - empty <= sum(one.area for one in found) < 150 * 100
    assert not shapely.union_all(found).intersects(box(1, 1, 2, 2))


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.slow
def test_answers_do_not_depend_on_the_batch(checkpoints: Make, picture: Pictures, family: str) -> None:
    folder = checkpoints(family)
    shown = views(picture, InputSpec(tile=32, overall=True))
    batched = annotator(folder).annotate(shown)
    one = annotator(folder)
    alone = [one.annotate([view])[0] for view in reversed(shown)][::-1]
    assert list(batched) == alone


@pytest.mark.slow
def test_aggregate_chooses_tiles_or_regions(checkpoints: Make, picture: Pictures) -> None:
    folder = checkpoints("clip")
    info = picture(np.zeros((4, 4, 3), dtype=np.uint8)).info
    for aggregate, kinds in (("tile", {"tile"}), ("region", {"region"}), ("both", {"tile", "region"})):
        zero_shot = annotator(folder, aggregate=aggregate)
        spec = zero_shot.input_spec(info)
        assert spec.overall == (aggregate != "tile")
        found = zero_shot.annotate(views(picture, spec))
        assert {answer.kind for answers in found for answer in answers} == kinds


def test_identity_covers_everything_that_decides_the_result(checkpoints: Make) -> None:
    folder = checkpoints("clip")
    before = annotator(folder).identity
    assert before == annotator(folder).identity
    assert {
        "sha256_model.safetensors",
        "sha256_config.json",
        "sha256_tokenizer.json",
        "sha256_preprocessor_config.json",
    } <= set(before)
    assert before["weights_sha256_clip"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert before["score"] == "softmax over the labels"
    assert annotator(folder, templates="a {}").identity["templates"] == "a {}"
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    after = annotator(folder).identity
    assert {key for key in before if before[key] != after[key]} == {
        "version",
        "sha256_model.safetensors",
        "weights_sha256_clip",
    }


@pytest.mark.slow
def test_planning_imports_no_torch(checkpoints: Make) -> None:
    code = (
        "import sys\nfrom limner.model.clip.annotator import ZeroShot\n"
        f"one = ZeroShot(ZeroShot.Options(checkpoint={str(checkpoints('clip'))!r}, labels='a,b'))\n"
        "one.input_spec(None), one.identity, one.labels\n"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "cat"}, "at least 2 texts"),
        ({"labels": ""}, "at least 2 texts|must be given"),
        ({"labels": "cat,dog, cat"}, r"named once, and cat is named again"),
        ({"templates": "a photo of {}.;a drawing"}, r"must have \{\}.*a drawing"),
        ({"templates": " ; "}, r"texts separated by ';'.*for example, a photo of \{\}"),
        ({"aggregate": "slide"}, "both, tile or region"),
        ({"threads": "-1"}, "whole number"),
        ({"fetch": "yes"}, "true or false"),
        ({"checkpoint": ""}, "must be given"),
        ({"model": "clip"}, "option 'model' of .* must be one of"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_plugin(ZeroShot, {"checkpoint": "somewhere", "labels": LABELS, **options})


def change(folder: Path, name: str, **values: object) -> None:
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **values}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "must be a folder on this machine"),
        (lambda folder: (folder / "config.json").unlink(), "readable config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "readable config.json"),
        (lambda folder: change(folder, "config.json", model_type="blip"), "clip or siglip.*found: blip"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "must have its tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "must load with transformers"),
        (lambda folder: (folder / "model.safetensors").unlink(), "must have its weights as"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"weights"), "must be whole"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "readable preprocessor_config.json"),
        (lambda folder: change(folder, "preprocessor_config.json", image_mean=None), "image_mean"),
        (lambda folder: change(folder, "preprocessor_config.json", size=40), "whole images of 32 pixels.*32, 40"),
    ],
)
@pytest.mark.slow
def test_an_unsuitable_checkpoint_is_refused_on_load(
    checkpoints: Make, spoil: Callable[[Path], object], message: str
) -> None:
    folder = checkpoints("clip")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        annotator(folder).load()


def test_a_nested_processor_takes_precedence(checkpoints: Make) -> None:
    folder = checkpoints("siglip")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    nested = {"image_processor": {**settings, "image_mean": [0.1, 0.2, 0.3]}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert find_checkpoint(str(folder), fetch=False).mean == (0.1, 0.2, 0.3)
    (folder / "processor_config.json").write_text('{"processor_class": "SiglipProcessor"}')
    assert find_checkpoint(str(folder), fetch=False).mean == (0.5, 0.5, 0.5)


def test_all_shards_of_the_weights_are_required(checkpoints: Make) -> None:
    folder = checkpoints("clip")
    name = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"logit_scale": name}}))
    assert find_checkpoint(str(folder), fetch=False).files.weights() == (index.name, name)
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../elsewhere"}}))
    with pytest.raises(ModelError, match=r"no \.\./elsewhere"):
        find_checkpoint(str(folder), fetch=False).files.weights()


@pytest.mark.slow
def test_no_network_access_without_fetch() -> None:
    code = (
        "import os, socket, sys\n"
        "def refuse(*_):\n    print('the network was touched'); os._exit(9)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from limner.model.clip.annotator import ZeroShot\n"
        f"one = ZeroShot(ZeroShot.Options(checkpoint='nobody/nothing@{'0' * 40}', labels='a,b'))\n"
        "try:\n    one.input_spec(None)\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ModelError checkpoint nobody/nothing@")
    assert "Add --fetch" in done.stdout


def test_a_hub_id_needs_its_commit() -> None:
    with pytest.raises(ModelError, match="OWNER/NAME@COMMIT"):
        make_plugin(ZeroShot, {"checkpoint": "nobody/nothing@main", "labels": LABELS}).check([])


@pytest.mark.parametrize("aggregate", ["tile", "both"])
@pytest.mark.slow
def test_fusion_is_applied_before_classification(checkpoints: Make, picture: Pictures, aggregate: str) -> None:
    folder = checkpoints("clip")
    fused = annotator(folder, aggregate=aggregate, fusion="attention,4,0.5")
    spec = fused.input_spec(picture(np.zeros((4, 4, 3), dtype=np.uint8)).info)
    assert spec.overall
    network = ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS.split(","), ["a photo of {}."])
    shown = views(picture, spec)
    differing = 0
    for view, answers in zip(shown, fused.annotate(shown), strict=True):
        boxes = zip(view.tiles, view.grid.boxes(), strict=True)
        features = np.array(
            [network.encode_image(t) for t, (x0, y0, x1, y1) in boxes if view.keep_mask[y0:y1, x0:x1].any()]
        )
        if not len(features):
            continue
        assert view.global_view is not None
        observed = Fusion(4.0, 0.5)(
            features.astype(np.float64), network.encode_image(view.global_view).astype(np.float64)
        )
        observed /= np.linalg.norm(observed, axis=1, keepdims=True)
        chances = [network.compare(one) for one in observed.astype(np.float32)]
        tiles = [one for one in answers if one.kind == "tile"]
        for answer, one in zip(tiles, chances, strict=True):
            assert [answer.numbers[f"p.{label}"] for label in LABELS.split(",")] == pytest.approx(one, abs=6e-5)
        differing += sum(abs(network.compare(a) - b).max() > 2e-4 for a, b in zip(features, chances, strict=True))
        assert len(answers) - len(tiles) == (aggregate == "both")
    assert differing > 0
    assert fused.identity["fusion"].startswith("attention")
    assert "fusion" not in annotator(folder).identity
