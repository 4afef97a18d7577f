"""Checkpoints as they lie on the hub: settings of older versions, names with gaps, weights in parts or pickles."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from limner.model.checkpoints.files import find_files
from limner.model.checkpoints.loading import to_tensor
from limner.model.huggingface.annotator import Transformers
from limner.model.huggingface.networks import TransformersNetwork
from limner.model.huggingface.task_config import TaskConfig, read_task_config
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin
from PIL import Image
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

Folder = Callable[[str], Path]

SIDE = 64
VALID = np.ones((SIDE, SIDE), dtype=np.bool_)
TILE = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PLAIN = {"do_normalize": True, "do_resize": True, **COLOURS}
DETECTOR, SEGMENTER = "ForObjectDetection", "ForSemanticSegmentation"

LAYOUTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # name: the processor, the model's type and architecture, and preprocessor_config.json
    "detr": ("Detr", "detr", DETECTOR, PLAIN | {"format": "coco_detection", "size": 80, "max_size": 133}),
    "table-transformer": ("Detr", "table-transformer", DETECTOR, PLAIN | {"size": 100, "max_size": 80}),
    "short-longest": ("Detr", "detr", DETECTOR, PLAIN | {"size": {"shortest_edge": 96, "longest_edge": 80}}),
    "in-a-box": ("Detr", "detr", DETECTOR, PLAIN | {"size": {"max_height": 80, "max_width": 80}}),
    "yolos": ("Yolos", "yolos", DETECTOR, PLAIN | {"size": 90, "max_size": 140}),
    "conditional": (
        "ConditionalDetr",
        "conditional_detr",
        DETECTOR,
        PLAIN | {"size": {"shortest_edge": 80, "longest_edge": 133}, "do_pad": True, "do_rescale": True},
    ),
    "deformable": ("DeformableDetr", "deformable_detr", DETECTOR, PLAIN | {"size": 80, "max_size": 133}),
    "rt_detr": ("RTDetr", "rt_detr", DETECTOR, {"size": {"height": 64, "width": 64}}),
    "segformer": ("Segformer", "segformer", SEGMENTER, PLAIN | {"size": 64, "reduce_labels": True, "resample": 2}),
    "maskformer": (
        "MaskFormer",
        "maskformer",
        "ForInstanceSegmentation",
        PLAIN | {"size": 80, "max_size": 160, "size_divisibility": 32, "reduce_labels": True, "ignore_index": 255},
    ),
    "mask2former": (
        "Mask2Former",
        "mask2former",
        "ForUniversalSegmentation",
        PLAIN | {"size": {"shortest_edge": 80, "longest_edge": 160}, "size_divisor": 32, "do_reduce_labels": True},
    ),
    "dpt": ("DPT", "dpt", SEGMENTER, PLAIN | {"size": [80, 80], "ensure_multiple_of": 32, "keep_aspect_ratio": False}),
    "dpt-near": ("DPT", "dpt", SEGMENTER, PLAIN | {"size": 100, "ensure_multiple_of": 32, "keep_aspect_ratio": True}),
    "beit": ("Beit", "beit", SEGMENTER, PLAIN | {"size": 64, "crop_size": 60, "do_center_crop": False}),
    "mobilevit": (
        "MobileViT",
        "mobilevit",
        SEGMENTER,
        {"size": 72, "crop_size": 64, "do_center_crop": True, "do_resize": True, "resample": 2},
    ),
    "vit": ("ViT", "vit", "ForImageClassification", PLAIN | {"size": 64}),
}


def recipe(folder: Path) -> TaskConfig:
    return read_task_config(find_files(str(folder), fetch=False))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_settings_of_older_versions(name: str, tmp_path: Path) -> None:
    processor, family, architecture, shown = LAYOUTS[name]
    if family == "mask2former":
        pytest.importorskip("scipy", reason="transformers' own class needs scipy")
    config = {"model_type": family, "architectures": [processor + architecture], "id2label": {"0": "a", "1": "b"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stated = {"feature_extractor_type": f"{processor}FeatureExtractor", **shown}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    found = recipe(tmp_path)
    theirs = getattr(transformers, f"{processor}ImageProcessorPil").from_pretrained(tmp_path)
    large = Image.fromarray(np.zeros((200, 200, 3), dtype=np.uint8))
    assert theirs(large, return_tensors="pt")["pixel_values"].shape[-2:] == (found.tile, found.tile)
    tile = np.random.default_rng(0).integers(0, 256, (found.tile, found.tile, 3), dtype=np.uint8)
    steps = {} if found.family != "mobilevit" else {"do_resize": False}  # it enlarges, then crops
    expected = theirs(Image.fromarray(tile), return_tensors="pt", **steps)["pixel_values"]
    assert torch.allclose(to_tensor((tile[..., ::-1] if found.flipped else tile)[None], found), expected, atol=1e-3)


def restated(folder: Path, to: Path, **changes: object) -> Path:
    copy = Path(shutil.copytree(folder, to))
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


def test_outputs_without_a_class_give_no_answers(zoo_folder: Folder, tmp_path: Path) -> None:
    names = {"0": "N/A", "1": "ship", "2": "N/A"}
    folder = restated(zoo_folder("rt_detr"), tmp_path / "coco", id2label=names, label2id={"N/A": 2, "ship": 1})
    annotator = make_plugin(Transformers, {"checkpoint": str(folder)})
    assert annotator.labels == ("ship",)
    found = recipe(folder)
    assert found.labels == ("N/A", "ship", "N/A")
    with pytest.raises(ModelError, match=r"must be a label of"):
        _ = make_plugin(Transformers, {"checkpoint": str(folder), "labels": "N/A"}).labels


@pytest.mark.parametrize(
    ("names", "number", "output"),
    [
        ({"1": "cat", "2": "dog"}, None, "2 names, none for 0"),
        ({"0": "cat", "3": "dog"}, None, "2 names, none for 1, 2"),
        ({"0": "cat", "1": "dog"}, 3, "2 names, none for 2, num_labels 3"),
        ({"0": "cat", "1": "dog", "2": "cow"}, 2, "3 names, num_labels 2"),
    ],
)
def test_missing_class_names_are_refused(
    names: dict[str, str], number: int | None, output: str, zoo_folder: Folder, tmp_path: Path
) -> None:
    stated: dict[str, object] = {} if number is None else {"num_labels": number}
    folder = restated(zoo_folder("vit"), tmp_path / "names", id2label=names, **stated)
    with pytest.raises(ModelError) as caught:
        recipe(folder)
    assert f"(found: {output})" in str(caught.value)


def _sharded(folder: Path) -> None:
    model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _pickled_in_parts(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = sorted(tensors)[: len(tensors) // 2]
    parts = {"pytorch_model-00001-of-00002.bin": half, "pytorch_model-00002-of-00002.bin": set(tensors) - set(half)}
    for name, keys in parts.items():
        torch.save({key: tensors[key] for key in keys}, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _counted(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    more = {key.replace("running_var", "num_batches_tracked"): torch.tensor(7) for key in tensors if "_var" in key}
    save_file(tensors | more, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("written", [_sharded, _pickled, _pickled_in_parts, _counted])
def test_weights_in_another_layout(written: Callable[[Path], None], zoo_folder: Folder, tmp_path: Path) -> None:
    folder = restated(zoo_folder("detr"), tmp_path / "other")
    written(folder)
    boxes = [
        TransformersNetwork(found, found.labels).detect(TILE, VALID)
        for found in (recipe(zoo_folder("detr")), recipe(folder))
    ]
    assert boxes[0] == boxes[1]


def test_norms_by_their_old_names(zoo_folder: Folder, tmp_path: Path) -> None:
    folder = restated(zoo_folder("grounding-dino"), tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    named = {
        next((key.replace(new, name) for new, name in old.items() if key.endswith(new)), key): value
        for key, value in tensors.items()
    }
    assert set(named) != set(tensors)
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    words = ("cat", "dog")
    boxes = [
        TransformersNetwork(recipe(path), words).detect(TILE, VALID) for path in (zoo_folder("grounding-dino"), folder)
    ]
    assert boxes[0] == boxes[1]


def test_a_oneformer_of_the_hub(zoo_folder: Folder, tmp_path: Path) -> None:
    folder = restated(zoo_folder("oneformer"), tmp_path / "hub", is_training=True)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    texts = {"model.text_mapper.prompt_ctx.weight": torch.zeros(2, 2)}  # what reads texts in training
    save_file(tensors | texts, folder / "model.safetensors", {"format": "pt"})
    observed = [TransformersNetwork(found, found.labels) for found in (recipe(zoo_folder("oneformer")), recipe(folder))]
    assert np.array_equal(observed[0].segment(TILE), observed[1].segment(TILE))
    fewer = restated(folder, tmp_path / "fewer", text_encoder_vocab_size=len(words) - 1)
    with pytest.raises(ModelError, match=f"no more than the network's {len(words) - 1} tokens"):
        TransformersNetwork(recipe(fewer), ("field", "water", "town"))
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match="must have its tokenizer"):
        recipe(folder)
