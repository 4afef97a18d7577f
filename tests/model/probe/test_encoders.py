"""Encoders against their networks, and their identity."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.clip.checkpoint import find_checkpoint
from limner.model.clip.network import ClipNetwork
from limner.model.probe.encoders import ColourEncoder, encode, encoder_difference, find_encoder
from limner.model.vlm.fourkhd.model_config import LINEARS, LanguageSizes, Plora, Sizes, VisionSizes
from limner.model.vlm.fourkhd.network import FourKhd, FourKhdConfig
from limner.readers.errors import ModelError, RequestError
from safetensors.torch import save_file
from transformers import ConvNextConfig, ConvNextModel, ViTConfig, ViTForImageClassification

Make = Callable[..., Path]
PICTURE = np.random.default_rng(8).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
ALL = np.ones((32, 32), dtype=np.bool_)
COLOURS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "rescale_factor": 1 / 255}


def test_colour_statistics_are_those_of_the_valid_pixels() -> None:
    valid = ALL.copy()
    valid[:, 20:] = False
    observed = PICTURE[:, :20].reshape(-1, 3).astype(np.float64)
    found = ColourEncoder()(PICTURE, valid)
    ranks = np.quantile(observed, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    want = np.concatenate([observed.mean(axis=0), observed.std(axis=0), *ranks])
    assert found == pytest.approx(want.astype(np.float32))
    assert found.dtype == np.float32


def test_colour_statistics_of_native_bands_are_physical_values() -> None:
    encoder = find_encoder("colour:nir, red")
    assert encoder.bands == ("nir", "red")
    assert encoder.tile == 0
    values = np.full((8, 8, 2), 0.25, dtype=np.float32)
    values[0, 0] = np.nan
    valid = np.ones((8, 8), dtype=np.bool_)
    valid[0, 0] = False
    assert encoder(values, valid)[:2].tolist() == [0.25, 0.25]
    assert encoder.identity["of"] == "nir, red"
    with pytest.raises(RequestError, match="each band once"):
        find_encoder("colour:red,red")
    with pytest.raises(RequestError, match="--encoder colour"):
        find_encoder("")


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.slow
def test_image_text_features_are_those_of_zero_shot(checkpoints: Make, family: str) -> None:
    folder = checkpoints(family)
    encoder = find_encoder(str(folder))
    words = ClipNetwork(find_checkpoint(str(folder), fetch=False), ["cat", "dog"], ["a {}"])
    found = encoder(PICTURE, ALL)
    assert encoder.tile == 32
    assert np.array_equal(found, words.encode_image(PICTURE))
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(words(PICTURE), words.compare(found))
    assert find_encoder(f"zero-shot:{folder}").identity == encoder.identity


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A classifier as transformers saves it, without a pooler; its head is not used."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    return tmp_path / "vit"


def normal() -> torch.Tensor:
    mean, std = np.array(COLOURS["image_mean"]), np.array(COLOURS["image_std"])
    return torch.from_numpy(((PICTURE / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]


def test_a_classifier_s_features_are_the_mean_of_its_last_layer(vit: Path) -> None:
    encoder = find_encoder(str(vit))
    assert encoder.tile == 32
    model = ViTForImageClassification.from_pretrained(vit).eval()
    with torch.inference_mode():
        want = model.vit(pixel_values=normal()).last_hidden_state[0].mean(dim=0)
    assert encoder(PICTURE, ALL) == pytest.approx(want.numpy(), abs=1e-5)


def test_a_feature_map_is_averaged(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = ConvNextModel(ConvNextConfig(image_size=32, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    with torch.inference_mode():
        want = model(pixel_values=normal()).last_hidden_state[0].mean(dim=(1, 2))
    assert find_encoder(str(tmp_path))(PICTURE, ALL) == pytest.approx(want.numpy(), abs=1e-5)


def test_the_vision_encoder_of_a_4khd_model_is_an_encoder(tmp_path: Path) -> None:
    vision = VisionSizes(hidden=16, layers=2, heads=2, mlp=32, patch=8, image=32)
    language = LanguageSizes(vocab=32, hidden=16, layers=1, heads=2, kv_heads=1, mlp=32)
    sizes = Sizes(vision, language, projector=16, plora={name: Plora(2, 4.0) for name in LINEARS})
    network = FourKhd(FourKhdConfig.from_sizes(sizes)).eval()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.3, generator=random)
    save_file(
        {name: weight.contiguous() for name, weight in network.state_dict().items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internlmxcomposer2", **sizes.to_json()}))
    values = torch.from_numpy(PICTURE.astype(np.float32)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(part)[:, None, None] for part in (vision.mean, vision.std))
    with torch.inference_mode():
        want = network.vision_features((values - mean) / std)[0, 1:].mean(dim=0)
    for source in (f"4khd:{tmp_path}", str(tmp_path)):
        encoder = find_encoder(source)
        assert encoder.tile == 32
        assert encoder.identity["kind"] == "4khd"
        assert encoder(PICTURE, ALL) == pytest.approx(want.numpy(), abs=1e-5)


def test_identity_is_that_of_the_files(vit: Path) -> None:
    before = dict(find_encoder(str(vit)).identity)
    assert {"kind", "sha256_config.json", "sha256_model.safetensors", "sha256_preprocessor_config.json"} <= set(before)
    assert encoder_difference(before, find_encoder(str(vit)).identity) is None
    assert encoder_difference(before, {**before, "runtime": "another"}) is None
    (vit / "preprocessor_config.json").write_text(json.dumps({**COLOURS, "image_mean": [0.5, 0.5, 0.5]}))
    difference = encoder_difference(before, find_encoder(str(vit)).identity)
    assert difference is not None
    assert difference[0] == "sha256_preprocessor_config.json"


def test_unsuitable_checkpoints_are_refused(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="folder on this machine"):
        find_encoder(str(tmp_path / "absent"))
    spoiled = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**spoiled, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="hold every weight"):
        find_encoder(str(vit)).prepare()
    (vit / "config.json").write_text(json.dumps({"model_type": "nobody-knows", "image_size": 32}))
    with pytest.raises(ModelError, match="must load with transformers"):
        find_encoder(str(vit)).prepare()
    (vit / "config.json").write_text(json.dumps(spoiled))
    (vit / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    with pytest.raises(ModelError, match="image_mean and image_std"):
        find_encoder(str(vit)).prepare()


def test_features_that_are_not_finite_are_refused() -> None:
    tile = np.full((4, 4, 1), 1e30)
    tile[0, 0] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match=r"finite.*of 7 for tile 3.*limner info"):
        encode(ColourEncoder(("red",)), tile, np.ones((4, 4), dtype=np.bool_), "tile 3")
