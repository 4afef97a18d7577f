"""The network against transformers: same tensors as its processor, same probabilities as its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.checkpoints.loading import to_tensor
from limner.model.clip.checkpoint import find_checkpoint
from limner.model.clip.network import ClipNetwork
from limner.readers.errors import ModelError, RequestError
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

Make = Callable[..., Path]
LABELS = ("cat", "dog", "water")
PROCESSORS: dict[str, Any] = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}
MODELS: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}


def pictures(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)


def reference(family: str, folder: Path, shown: npt.NDArray[np.uint8], prompts: list[str]) -> npt.NDArray[np.float64]:
    """The probabilities of transformers' own processor, tokenizer and whole model."""
    model = MODELS[family].from_pretrained(folder).eval()
    observed = PROCESSORS[family].from_pretrained(folder)([Image.fromarray(p) for p in shown], return_tensors="pt")
    padding = {"padding": True} if family == "clip" else {"padding": "max_length", "max_length": 16}
    read = AutoTokenizer.from_pretrained(folder)(prompts, return_tensors="pt", **padding)
    with torch.no_grad():
        logits = model(pixel_values=observed["pixel_values"], **read).logits_per_image
    chances = logits.softmax(dim=1) if family == "clip" else logits.sigmoid()
    return chances.numpy().astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_tensors_are_those_of_the_processor(checkpoints: Make, family: str) -> None:
    folder = checkpoints(family)
    shown = pictures(5)
    expected = PROCESSORS[family].from_pretrained(folder)([Image.fromarray(p) for p in shown], return_tensors="pt")
    found = to_tensor(shown, find_checkpoint(str(folder), fetch=False))
    assert found.dtype == torch.float32
    assert found.shape == expected["pixel_values"].shape == (5, 3, 32, 32)
    assert (found - expected["pixel_values"]).abs().max() < 1e-5


@pytest.mark.slow
def test_values_of_a_global_view_are_clipped(checkpoints: Make) -> None:
    checkpoint = find_checkpoint(str(checkpoints("clip")), fetch=False)
    shown = pictures(1)
    assert torch.equal(to_tensor(shown, checkpoint), to_tensor(shown.astype(np.float32), checkpoint))
    outside = np.where(shown > 127, np.float32(280.0), np.float32(-9.0))
    within = np.where(shown > 127, np.float32(255.0), np.float32(0.0))
    assert torch.equal(to_tensor(outside, checkpoint), to_tensor(within, checkpoint))


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_probabilities_are_those_of_the_model(checkpoints: Make, family: str) -> None:
    folder = checkpoints(family)
    shown = pictures(4)
    expected = reference(family, folder, shown, [f"a photo of {label}." for label in LABELS])
    network = ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["a photo of {}."])
    found = np.stack([network(picture) for picture in shown])
    assert np.ptp(expected) > 0.05  # else the comparison would be vacuous
    assert np.abs(found - expected).max() < 1e-4
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5) == (family == "clip")


@pytest.mark.slow
def test_several_templates_are_averaged_as_features(checkpoints: Make) -> None:
    folder = checkpoints("clip")
    templates = ["a photo of {}.", "water {} photo", "{}"]
    model: Any = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    checkpoint = find_checkpoint(str(folder), fetch=False)
    shown = pictures(1)
    rows: list[Any] = []
    with torch.no_grad():
        for label in LABELS:
            read = tokenizer([t.format(label) for t in templates], padding=True, return_tensors="pt")
            features = model.get_text_features(**read).pooler_output
            mean = (features / features.norm(dim=1, keepdim=True)).mean(dim=0)
            rows.append(mean / mean.norm())
        observed = model.get_image_features(to_tensor(shown, checkpoint)).pooler_output[0]
        logits = torch.stack(rows) @ (observed / observed.norm()) * model.logit_scale.exp()
    found = ClipNetwork(checkpoint, LABELS, templates)(shown[0])
    assert np.abs(found - logits.softmax(dim=0).numpy()).max() < 1e-4
    assert np.abs(found - ClipNetwork(checkpoint, LABELS, templates[:1])(shown[0])).max() > 1e-3


@pytest.mark.slow
def test_a_pickled_checkpoint_gives_the_same_result_and_runs_no_code(checkpoints: Make, tmp_path: Path) -> None:
    folder = checkpoints("clip")
    safe = ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])(pictures(1)[0])
    weights = CLIPModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    pickled = ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])(pictures(1)[0])
    assert np.abs(safe - pickled).max() < 1e-6
    mark = tmp_path / "was-here"
    torch.save({"logit_scale": Planted(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="must be whole"):
        ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])
    assert not mark.exists()


class Planted:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


def test_code_of_a_checkpoint_is_not_run(checkpoints: Make, tmp_path: Path) -> None:
    folder = checkpoints("clip")
    mark = tmp_path / "was-here"
    (folder / "planted.py").write_text(f"open({str(mark)!r}, 'w')\nclass CLIPModel: pass\nclass T: pass\n")
    for name, classes in (
        ("config.json", '"AutoModel": "planted.CLIPModel"'),
        ("tokenizer_config.json", '"AutoTokenizer": ["planted.T", "planted.T"]'),
    ):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("{", f'{{"auto_map": {{{classes}}},', 1))
    ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])
    assert not mark.exists()


def test_a_missing_weight_is_refused(checkpoints: Make) -> None:
    folder = checkpoints("clip")
    model = CLIPModel.from_pretrained(folder)
    kept = {key: value for key, value in model.state_dict().items() if key != "visual_projection.weight"}
    (folder / "model.safetensors").unlink()
    torch.save(kept, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"every weight.*visual_projection\.weight"):
        ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_long_prompt_is_refused(checkpoints: Make, family: str) -> None:
    checkpoint = find_checkpoint(str(checkpoints(family)), fetch=False)
    with pytest.raises(RequestError, match=r"fit into the 16 tokens.*found: 2\d tokens"):
        ClipNetwork(checkpoint, ["cat " * 20, "dog"], ["{}"])


def test_a_tokenizer_of_another_checkpoint_is_refused(checkpoints: Make) -> None:
    folder = checkpoints("clip")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"dog": 8', '"dog": 800'))
    assert text != (folder / "tokenizer.json").read_text()
    with pytest.raises(ModelError, match="must have no more than the network"):
        ClipNetwork(find_checkpoint(str(folder), fetch=False), LABELS, ["{}"])


def test_the_default_image_size_is_that_of_transformers() -> None:
    from limner.model.clip.checkpoint import IMAGE_SIZE

    configs: list[Any] = [CLIPConfig(), SiglipConfig()]
    assert [config.vision_config.image_size for config in configs] == [IMAGE_SIZE] * 2
