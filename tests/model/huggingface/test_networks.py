"""Networks in transformers' format: what limner makes of a tile is what the checkpoint's own processor would make."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from limner.model.checkpoints.files import find_files
from limner.model.checkpoints.loading import to_tensor
from limner.model.detections import Detection
from limner.model.huggingface.networks import TransformersNetwork
from limner.model.huggingface.task_config import DETECTORS, read_task_config
from limner.readers.errors import ModelError, RequestError
from PIL import Image

pytestmark = pytest.mark.slow

Folder = Callable[[str], Path]

SIDE = 64
VALID = np.ones((SIDE, SIDE), dtype=np.bool_)
PROCESSORS = {
    "beit": "BeitImageProcessorPil",
    "convnext": "ConvNextImageProcessorPil",
    "conditional_detr": "ConditionalDetrImageProcessorPil",
    "d_fine": "RTDetrImageProcessorPil",
    "dab-detr": "ConditionalDetrImageProcessorPil",
    "deformable_detr": "DeformableDetrImageProcessorPil",
    "deimv2": "RTDetrImageProcessorPil",
    "detr": "DetrImageProcessorPil",
    "dpt": "DPTImageProcessorPil",
    "grounding-dino": "GroundingDinoImageProcessorPil",
    "lw_detr": "DeformableDetrImageProcessorPil",
    "mask2former": "Mask2FormerImageProcessorPil",
    "maskformer": "MaskFormerImageProcessorPil",
    "mobilevit": "MobileViTImageProcessorPil",
    "oneformer": "OneFormerImageProcessorPil",
    "owlv2": "Owlv2ImageProcessorPil",
    "owlvit": "OwlViTImageProcessorPil",
    "rf_detr": "DeformableDetrImageProcessorPil",
    "rt_detr": "RTDetrImageProcessorPil",
    "rt_detr_v2": "RTDetrImageProcessorPil",
    "table-transformer": "DetrImageProcessorPil",
    "segformer": "SegformerImageProcessorPil",
    "upernet": "SegformerImageProcessorPil",
    "vit": "ViTImageProcessorPil",
    "vit-many": "ViTImageProcessorPil",
    "yolos": "YolosImageProcessorPil",
}


@pytest.fixture
def tile() -> npt.NDArray[np.uint8]:
    """A picture with structure."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x * 4 % 256, y * 4 % 256, (x * y) % 256], axis=-1).astype(np.uint8)


def network(folder: Path, labels: tuple[str, ...] = (), threads: int = 0, template: str = "{}") -> TransformersNetwork:
    recipe = read_task_config(find_files(str(folder), fetch=False))
    if recipe.task == "segment by masks":
        pytest.importorskip("scipy", reason="transformers' own class needs scipy")
    return TransformersNetwork(recipe, labels or recipe.labels, threads=threads, template=template)


def processor(name: str, folder: Path) -> Any:
    if name in {"mask2former", "maskformer", "owlv2"}:
        pytest.importorskip("scipy", reason="transformers' own class needs scipy")
    return getattr(transformers, PROCESSORS[name]).from_pretrained(folder)


def asked(name: str, folder: Path, tile: npt.NDArray[np.uint8], **words: Any) -> Any:
    """The checkpoint's own answer, through transformers' own processor."""
    kinds = {"vit-many": "vit"}
    model: Any = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = model.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config.model_type == kinds.get(name, name)
    shown = processor(name, folder)(Image.fromarray(tile), return_tensors="pt")
    if name == "oneformer":
        reader = transformers.AutoTokenizer.from_pretrained(folder)
        both = transformers.OneFormerProcessor(processor(name, folder), reader, task_seq_length=24)
        words |= {"task_inputs": both(Image.fromarray(tile), ["semantic"], return_tensors="pt")["task_inputs"]}
    with torch.inference_mode():
        return model(**{**shown, **words})


@pytest.mark.parametrize("name", sorted(PROCESSORS))
def test_preprocessing_equals_the_processor(name: str, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    recipe = read_task_config(find_files(str(zoo_folder(name)), fetch=False))
    assert recipe.tile == SIDE
    steps = {"do_resize": False, "do_center_crop": False} if name == "convnext" else {}  # it enlarges, then crops
    shown = processor(name, zoo_folder(name))(Image.fromarray(tile), return_tensors="pt", **steps)["pixel_values"]
    ours = to_tensor((tile[..., ::-1] if recipe.flipped else tile)[None], recipe)
    assert torch.allclose(ours, torch.as_tensor(shown), atol=1e-3)


@pytest.mark.parametrize("name", ["vit", "vit-many"])
def test_classification(name: str, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    logits = asked(name, zoo_folder(name), tile).logits[0]
    expected = logits.softmax(dim=0) if name == "vit" else logits.sigmoid()
    assert network(zoo_folder(name)).classify(tile) == pytest.approx(expected.numpy(), abs=1e-5)
    assert read_task_config(find_files(str(zoo_folder(name)), fetch=False)).labels == ("field", "water", "town")


@pytest.mark.parametrize(
    "name", ["beit", "dpt", "mobilevit", "segformer", "upernet", "mask2former", "maskformer", "oneformer"]
)
def test_segmentation(name: str, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    values = network(zoo_folder(name)).segment(tile)
    assert values.shape == (SIDE, SIDE, 3)
    answer = asked(name, zoo_folder(name), tile)
    (own,) = processor(name, zoo_folder(name)).post_process_semantic_segmentation(answer, target_sizes=[(SIDE, SIDE)])
    agree = (values.argmax(axis=2) == own.numpy()).mean()
    by_masks = name in {"mask2former", "maskformer", "oneformer"}
    assert agree > (0.98 if by_masks else 0.9999)  # transformers enlarges those twice, or their sum
    if by_masks:
        assert values.sum(axis=2) == pytest.approx(np.ones((SIDE, SIDE)), abs=1e-5)


@pytest.mark.parametrize("name", ["mask2former", "maskformer", "oneformer"])
def test_classes_of_masks_are_summed(name: str, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    answer = asked(name, zoo_folder(name), tile)
    size = {"size": (SIDE, SIDE), "mode": "bilinear", "align_corners": False}
    masks = torch.nn.functional.interpolate(answer.masks_queries_logits, **size)[0].sigmoid()
    summed = torch.einsum("qc,qhw->hwc", answer.class_queries_logits[0].softmax(dim=-1)[:, :-1], masks)
    expected = (summed / summed.sum(dim=-1, keepdim=True)).numpy()
    assert np.allclose(network(zoo_folder(name)).segment(tile), expected, atol=1e-5)


def boxes(found: list[Detection], least: float) -> list[tuple[Any, ...]]:
    return sorted((one.label, *np.round([one.score, *one.box], 3)) for one in found if one.score > least)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detection(name: str, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    names = ("field", "water", "town")
    answer = asked(name, zoo_folder(name), tile)
    best = {"top_k": 9} if name == "rf_detr" else {}  # as its own processor, which needs torchvision
    for least in (0.0, 0.2):
        (own,) = processor(name, zoo_folder(name)).post_process_object_detection(
            answer, threshold=least, target_sizes=[(SIDE, SIDE)], **best
        )
        expected = [
            Detection(names[label], score, tuple(corners))
            for label, score, corners in zip(
                own["labels"].tolist(), own["scores"].tolist(), own["boxes"].tolist(), strict=True
            )
        ]
        assert len(expected) > 0
        assert np.allclose(
            [row[1:] for row in boxes(network(zoo_folder(name)).detect(tile, VALID), least)],
            [row[1:] for row in boxes(expected, least)],
            atol=2e-3,
        )


@pytest.mark.parametrize("name", ["owlvit", "owlv2"])
def test_detection_by_words(name: str, zoo_making: ModuleType, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    read = zoo_making.tokenizer()(["a photo of a cat", "a photo of a tower"], padding="max_length", max_length=8)
    words = {key: torch.tensor(read[key]) for key in ("input_ids", "attention_mask")}
    answer = asked(name, zoo_folder(name), tile, **words)
    (own,) = processor(name, zoo_folder(name)).post_process_object_detection(
        answer, threshold=0.0, target_sizes=[(SIDE, SIDE)]
    )
    found = network(zoo_folder(name), ("cat", "tower"), template="a photo of a {}").detect(tile, VALID)
    assert [one.label for one in found] == [("cat", "tower")[label] for label in own["labels"].tolist()]
    assert np.allclose([one.score for one in found], own["scores"], atol=1e-5)
    assert np.allclose([one.box for one in found], own["boxes"], atol=1e-3)


def test_detection_by_a_sentence(zoo_making: ModuleType, zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    folder = zoo_folder("grounding-dino")
    read = zoo_making.tokenizer()("water tower. cat.", return_tensors="pt")
    assert read["input_ids"].tolist() == [[2, 10, 11, 4, 8, 4, 3]]
    answer = asked("grounding-dino", folder, tile, **read)
    by_token = answer.logits[0].sigmoid()
    found = network(folder, ("Water tower", "cat")).detect(tile, VALID)
    expected = torch.stack([by_token[:, 1:3].amax(dim=1), by_token[:, 4]], dim=1)
    assert np.allclose([one.score for one in found], expected.amax(dim=1), atol=1e-5)
    assert [one.label for one in found] == [("Water tower", "cat")[i] for i in expected.argmax(dim=1).tolist()]


def test_an_answer_does_not_depend_on_threads(zoo_folder: Folder, tile: npt.NDArray[np.uint8]) -> None:
    first = network(zoo_folder("detr")).detect(tile, VALID)
    threads = torch.get_num_threads()
    second = network(zoo_folder("detr"), threads=1).detect(tile, VALID)
    torch.set_num_threads(threads)
    assert np.allclose([one.box for one in first], [one.box for one in second], atol=1e-4)


def test_labels_that_are_too_long_are_refused(zoo_folder: Folder) -> None:
    for name in ("owlvit", "grounding-dino"):
        with pytest.raises(RequestError, match="fit into the"):
            network(zoo_folder(name), ("cat " * 40,))


def spoilt(folder: Path, to: Path, **changes: object) -> Path:
    """A copy of a folder with other settings; None takes a key away."""
    copy = Path(shutil.copytree(folder, to))
    for name in ("config.json", "preprocessor_config.json"):
        path = copy / name
        if path.is_file():
            settings = json.loads(path.read_text()) | {
                k.removeprefix("p_"): v for k, v in changes.items() if k.startswith("p_") == (name[0] == "p")
            }
            path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return copy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["ViTModel"]}, "must have a known architecture"),
        ({"architectures": None}, "none is stated"),
        (
            {"architectures": ["RfDetrForInstanceSegmentation"], "model_type": "rf_detr"},
            "Known detectors: .*rf_",
        ),
        (
            {"architectures": ["DetrForSegmentation"], "model_type": "detr"},
            "by masks mask2former, maskformer, oneformer",
        ),
        ({"num_channels": 6}, "three channels"),
        ({"id2label": None}, "name every class"),
        ({"id2label": {"0": "a", "2": "b"}}, "name every class"),
        ({"p_image_mean": None}, "must state image_mean"),
        ({"p_size": {"height": 64, "width": 32}}, "square pictures of a stated size"),
        ({"p_do_color_quantize": True}, "do_color_quantize"),
    ],
)
def test_unsupported_configurations_are_refused(
    changes: dict[str, object], words: str, zoo_folder: Folder, tmp_path: Path
) -> None:
    folder = spoilt(zoo_folder("vit"), tmp_path / "spoilt", **changes)
    with pytest.raises(ModelError, match=words):
        read_task_config(find_files(str(folder), fetch=False))


def test_a_number_of_classes_that_the_weights_do_not_have(zoo_folder: Folder, tmp_path: Path) -> None:
    folder = spoilt(zoo_folder("vit"), tmp_path / "more", id2label={str(i): f"c{i}" for i in range(5)}, label2id=None)
    with pytest.raises(ModelError, match=str(folder)):
        network(folder)


def test_absent_and_truncated_weights(zoo_folder: Folder, tmp_path: Path) -> None:
    torn = spoilt(zoo_folder("vit"), tmp_path / "torn")
    whole = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="must be whole"):
        network(torn)
    (torn / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="must have its weights as"):
        network(torn)


def test_a_head_that_was_never_trained_is_refused(zoo_folder: Folder, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    headless = spoilt(zoo_folder("vit"), tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, headless / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="would be random"):
        network(headless)


def test_channels_in_another_order(zoo_folder: Folder, tmp_path: Path, tile: npt.NDArray[np.uint8]) -> None:
    flipped = network(spoilt(zoo_folder("vit"), tmp_path / "bgr", p_do_flip_channel_order=True))
    assert flipped.classify(tile[..., ::-1].copy()) == pytest.approx(network(zoo_folder("vit")).classify(tile))
