"""OpenCLIP checkpoints against an independent implementation of the published architecture."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.clip.annotator import ZeroShot
from limner.model.clip.checkpoint import MERGES, find_openclip
from limner.model.clip.network import ClipNetwork
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin
from torch import nn

SIDE, LENGTH = 32, 10


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("pickled", [False, True])
def test_probabilities_match_the_reference(quick: bool, pickled: bool, zoo: ModuleType, tmp_path: Path) -> None:
    model = zoo.openclip(tmp_path, quick=quick, pickled=pickled)
    found = find_openclip(str(tmp_path), fetch=False)
    assert found is not None
    picture = np.random.default_rng(2).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    scores = ClipNetwork(found, ("cat", "water land"), ("a photo of {}.", "{}"))(picture)
    shown = (torch.tensor(picture, dtype=torch.float32) / 255 - torch.tensor(zoo.MEAN)) / torch.tensor(zoo.STD)
    texts = [[10, 1, 2, 3, 5, 4, 11], [10, 5, 11], [10, 1, 2, 3, 7, 8, 4, 11], [10, 7, 8, 11]]
    tokens = torch.tensor([text + [0] * (LENGTH - len(text)) for text in texts])
    with torch.inference_mode():
        image = nn.functional.normalize(model.image(shown.permute(2, 0, 1)[None]), dim=-1)
        read = nn.functional.normalize(model.text(tokens), dim=-1).reshape(2, 2, -1).mean(dim=1)
        logits = image @ nn.functional.normalize(read, dim=-1).T * model.logit_scale.exp()
    assert scores == pytest.approx(logits.softmax(dim=-1)[0].numpy(), abs=1e-5)


def test_the_activation_matters(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path, quick=True)
    picture = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)

    def scores() -> Any:
        found = find_openclip(str(tmp_path), fetch=False)
        assert found is not None
        return ClipNetwork(found, ("cat", "dog"), ("{}",))(picture)

    first = scores()
    spoil(tmp_path, "model_cfg", quick_gelu=False)
    assert abs(scores() - first).max() > 1e-4


def spoil(folder: Path, *where: str, **changes: object) -> None:
    """Change keys of the settings; None removes one."""
    path = folder / "open_clip_config.json"
    settings = json.loads(path.read_text())
    part = settings
    for step in where:
        part = part[step]
    part.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del part[key]
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("where", "changes", "message"),
    [
        (("model_cfg", "text_cfg"), {"hf_model_name": "bert"}, "hf_model_name"),
        (("model_cfg", "vision_cfg"), {"timm_model_name": "vit"}, "timm_model_name"),
        (("model_cfg", "vision_cfg"), {"layers": [3, 4, 6]}, "plain CLIP"),
        (("model_cfg", "vision_cfg"), {"pool_type": "avg"}, "pool_type"),
        (("model_cfg", "text_cfg"), {"no_causal_mask": True}, "no_causal_mask"),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer_kwargs"),
        (("model_cfg",), {"init_logit_bias": -10}, "init_logit_bias"),
        (("model_cfg",), {"embed_dim": None}, "plain CLIP"),
        (("preprocess_cfg",), {"mean": None}, "never guessed"),
        (("preprocess_cfg",), {"std": [0.5, 0.0, 0.5]}, "never guessed"),
        (("preprocess_cfg",), {"mean": ["0.5"] * 3}, "never guessed"),
        (("preprocess_cfg",), {"mode": "BGR"}, "in RGB"),
    ],
)
def test_other_models_are_refused(
    where: tuple[str, ...], changes: dict[str, object], message: str, zoo: ModuleType, tmp_path: Path
) -> None:
    zoo.openclip(tmp_path)
    spoil(tmp_path, *where, **changes)
    with pytest.raises(ModelError, match=message):
        find_openclip(str(tmp_path), fetch=False)


def test_the_normalisation_is_that_of_the_settings(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path)
    found = find_openclip(str(tmp_path), fetch=False)
    assert found is not None
    assert (found.mean, found.std, found.rescale) == (tuple(zoo.MEAN), tuple(zoo.STD), 1 / 255)
    further = {"mean": 0.5, "std": [0.25], "size": 64, "interpolation": "bilinear", "resize_mode": "squash"}
    spoil(tmp_path, "preprocess_cfg", mode="RGB", **further)
    found = find_openclip(str(tmp_path), fetch=False)
    assert found is not None
    assert (found.mean, found.std, found.tile) == ((0.5,) * 3, (0.25,) * 3, SIDE)  # the network's own size, as there


def test_text_for_another_tokenizer_is_not_lowercased(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path)
    (tmp_path / MERGES).write_bytes(b"not for it")
    for name, lower in ((None, True), ("some/tokenizer", False)):
        spoil(tmp_path, "model_cfg", "text_cfg", hf_tokenizer_name=name or "")
        found = find_openclip(str(tmp_path), fetch=False)
        assert found is not None
        assert found.open_clip is not None
        assert found.open_clip.lower is lower
        assert found.open_clip.tokenizer == (tmp_path / MERGES if lower else tmp_path)


def test_weights_must_be_those_of_the_settings(zoo: ModuleType, tmp_path: Path) -> None:
    one = make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"})
    zoo.openclip(tmp_path)
    spoil(tmp_path, "model_cfg", "vision_cfg", layers=1)
    with pytest.raises(ModelError, match="unknown: vision_model"):
        one.load()
    spoil(tmp_path, "model_cfg", "vision_cfg", layers=3)
    with pytest.raises(ModelError, match=r"missing: vision_model\.encoder\.layers\.2"):
        make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"}).load()
    spoil(tmp_path, "model_cfg", "vision_cfg", layers=2, image_size=64)
    with pytest.raises(ModelError, match="size mismatch"):
        make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"}).load()
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors or open_clip_pytorch_model\.bin"):
        make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"}).check([])


def test_a_missing_tokenizer_is_refused(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="must have its tokenizer"):
        find_openclip(str(tmp_path), fetch=False)


def test_a_folder_in_both_formats_is_transformers(zoo: ModuleType, tmp_path: Path, made_checkpoints: Path) -> None:
    zoo.openclip(tmp_path)
    both = Path(shutil.copytree(made_checkpoints / "clip", tmp_path / "both"))
    shutil.copy(tmp_path / "open_clip_config.json", both)
    assert find_openclip(str(both), fetch=False) is None
    assert find_openclip(str(made_checkpoints / "clip"), fetch=False) is None


def test_identity_lists_its_files(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path)
    one = make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"})
    identity = one.identity
    assert set(identity) >= {
        "sha256_open_clip_config.json",
        "sha256_open_clip_model.safetensors",
        "sha256_tokenizer.json",
    }
    assert identity["weights_sha256_clip"] == identity["sha256_open_clip_model.safetensors"]
