"""Files of OpenCLIP's weights alone: results are those of OpenCLIP's own code; damaged files are refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.checkpoints.loading import to_tensor
from limner.model.clip.annotator import ZeroShot
from limner.model.clip.checkpoint import MERGES, find_openclip, find_state_dict
from limner.model.clip.network import ClipNetwork
from limner.model.clip.openclip import read_weights
from limner.model.clip.openclip_load import load_clip_tokenizer
from limner.model.probe.encoders import encoder_difference, find_encoder
from limner.readers.errors import ModelError, RequestError
from limner.readers.options import make_plugin
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

MODELS = ("tiny", "tiny-quickgelu", "tiny-resnet", "tiny-resnet-quickgelu")
ALL = np.ones((32, 32), dtype=np.bool_)


def weights(folder: Path, model: str) -> dict[str, torch.Tensor]:
    """Of one of the golden models, by OpenCLIP's names."""
    return load_file(folder / f"{model.removesuffix('-quickgelu')}.safetensors")


@pytest.fixture
def state(tiny_clip: Path) -> dict[str, torch.Tensor]:
    """Weights of the golden model with a vision transformer."""
    return weights(tiny_clip, "tiny")


@pytest.fixture
def weights_file(tiny_clip: Path, state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    """A file of weights, with OpenCLIP's file of merges beside it."""
    shutil.copy(tiny_clip / "merges.txt.gz", tmp_path / MERGES)
    torch.save(state, tmp_path / "RemoteCLIP-tiny.pt")
    return tmp_path / "RemoteCLIP-tiny.pt"


def golden(folder: Path) -> tuple[Any, list[str]]:
    return np.load(folder / "embeddings.npz"), json.loads((folder / "prompts.json").read_text())


def trained(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A training checkpoint of OpenCLIP."""
    weights = {f"module.{name}": value.float() for name, value in state.items()}
    return {"epoch": 3, "name": "x", "state_dict": weights, "optimizer": {"state": {}}, "scaler": None}


WRITERS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor], Path], object]]] = {
    "plain": ("a.pt", torch.save),
    "safetensors": ("a.safetensors", save_file),
    "training checkpoint": ("epoch_3.pt", lambda state, path: torch.save(trained(state), path)),
    "old pickle": ("a.bin", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
    "with sizes and a list of one scale": (
        "a.pth",
        lambda state, path: torch.save(
            {**state, "logit_scale": state["logit_scale"][None], "input_resolution": 32, "attn_mask": torch.zeros(24)},
            path,
        ),
    ),
    "of a separate text encoder": (
        "a.pt",
        lambda state, path: torch.save(
            {n if n.startswith("visual.") or n == "logit_scale" else f"text.{n}": v for n, v in state.items()}, path
        ),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("writer", WRITERS)
def test_results_are_those_of_openclip(writer: str, name: str, tiny_clip: Path, tmp_path: Path) -> None:
    file, write = WRITERS[writer]
    write(weights(tiny_clip, name), tmp_path / file)
    want, prompts = golden(tiny_clip)
    found = find_state_dict(str(tmp_path / file), name, tokenizer=str(tiny_clip / "merges.txt.gz"))
    model = ClipNetwork(found, prompts, ("{}",))
    for i, picture in enumerate(want[f"{name.removesuffix('-quickgelu')} pictures"]):
        assert model.encode_image(picture) == pytest.approx(want[f"{name} image"][i], abs=2e-6)
        assert model(picture) == pytest.approx(want[f"{name} chances"][i], abs=2e-6)


def test_images_are_normalised_as_in_openclip(tiny_clip: Path, weights_file: Path) -> None:
    want, _ = golden(tiny_clip)
    observed = to_tensor(want["tiny pictures"][:1], find_state_dict(str(weights_file), "tiny")).numpy()
    assert np.abs(observed - want["tiny seen"]).max() < 1e-6


def test_activations_differ_by_more_than_the_tolerance(tiny_clip: Path) -> None:
    want, _ = golden(tiny_clip)
    assert np.abs(want["tiny image"] - want["tiny-quickgelu image"]).max() > 1e-3
    for name in ("tiny", "tiny-resnet"):
        assert np.abs(want[f"{name} chances"] - want[f"{name}-quickgelu chances"]).max() > 1e-4


def test_a_folder_in_openclips_format_gives_the_same_result(
    tiny_clip: Path, weights_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    shutil.copy(weights_file, folder / "open_clip_pytorch_model.bin")
    shutil.copy(weights_file.parent / MERGES, folder)
    settings = json.loads((tiny_clip / "model_cfgs.json").read_text())["tiny"]
    one = find_state_dict(str(weights_file), "tiny")
    scaling = {"mean": one.mean, "std": one.std, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": scaling}))
    other = find_openclip(str(folder), fetch=False)
    assert other is not None
    assert (other.tile, other.mean, other.std) == (one.tile, one.mean, one.std)
    pictures, prompts = golden(tiny_clip)[0]["tiny pictures"], ["farmer\u2019s field", "Water &amp; land"]
    alone, folder = (ClipNetwork(found, prompts, ("{}",))(pictures[0]) for found in (one, other))
    assert np.array_equal(alone, folder)
    assert {"open_clip_config.json", MERGES} < set(other.files.digests())


def test_the_architecture_must_be_named(weights_file: Path) -> None:
    with pytest.raises(ModelError, match="shapes of tiny and of tiny-quickgelu"):
        make_plugin(ZeroShot, {"checkpoint": str(weights_file), "labels": "a,b"}).identity  # noqa: B018 - what a plan asks first
    with pytest.raises(ModelError, match="Did you mean 'ViT-B-32-quickgelu'"):
        find_state_dict(str(weights_file), "ViT-B-32-quickgellu")
    words = load_clip_tokenizer(find_state_dict(str(weights_file), "tiny"))
    words.save_pretrained(weights_file.parent / "words")
    options = {"checkpoint": str(weights_file), "labels": "a,b", "tokenizer": str(weights_file.parent / "words")}
    with pytest.raises(ModelError, match="vision width 16 instead of 1024") as caught:
        make_plugin(ZeroShot, options | {"architecture": "ViT-L-14"}).load()
    assert "the shapes are those of tiny and of tiny-quickgelu" in str(caught.value)
    with pytest.raises(ModelError, match="vision width 16 instead of 1024"):
        find_encoder(f"openclip:ViT-L-14:{weights_file}").prepare()


def test_options_for_other_formats_are_refused(
    weights_file: Path, zoo: ModuleType, made_checkpoints: Path, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    zoo.openclip(tmp_path / "open")
    labels = {"labels": "cat,dog"}
    for folder in (tmp_path / "open", made_checkpoints / "clip"):
        with pytest.raises(RequestError, match="for a file of weights alone"):
            make_plugin(ZeroShot, {"checkpoint": str(folder), "architecture": "tiny", **labels}).check([])
    with pytest.raises(RequestError, match="has its own"):
        make_plugin(
            ZeroShot, {"checkpoint": str(made_checkpoints / "clip"), "tokenizer": str(weights_file), **labels}
        ).check([])
    with pytest.raises(ModelError, match=r"ends in \.pt, \.pth, \.bin, \.safetensors"):
        find_state_dict(str(weights_file.parent / MERGES), "tiny")


class Planted:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("architecture", ["", "tiny"])
def test_a_pickle_with_code_is_not_run(architecture: str, weights_file: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "more": Planted(tmp_path / "ran")}, weights_file)
    with pytest.raises(ModelError, match="hold nothing but tensors") as caught:
        make_plugin(ZeroShot, {"checkpoint": str(weights_file), "labels": "a,b", "architecture": architecture}).load()
    assert not (tmp_path / "ran").exists()
    assert f"it asks for {os.name}.mkdir" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_pickle_with_code_in_a_folder_is_not_run(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path, pickled=True)
    torch.save({"state_dict": {}, "more": Planted(tmp_path / "ran")}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=f"it asks for {os.name}.mkdir"):
        make_plugin(ZeroShot, {"checkpoint": str(tmp_path), "labels": "cat,dog"}).load()
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(weights_file: Path, state: dict[str, torch.Tensor]) -> None:
    def message() -> str:
        with pytest.raises(ModelError, match=weights_file.name) as caught:
            read_weights(weights_file, str(weights_file))
        return str(caught.value)

    torch.jit.script(torch.nn.Linear(2, 2)).save(weights_file)
    assert "TorchScript" in message()
    torch.save(torch.nn.Linear(2, 2), weights_file)
    assert "Linear" in message()
    torch.save({"epoch": 3, "weights": state}, weights_file)
    assert "other values: epoch, weights" in message()
    torch.save({0: torch.zeros(2)}, weights_file)
    assert "other values: 0" in message()
    weights_file.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.")
    assert "Unsupported operand" in message()
    assert "torch.load" not in message()
    torch.save([1.0], weights_file)
    assert "none" in message()
    weights_file.write_bytes(weights_file.read_bytes()[:100])
    assert "must be whole" in message()


def test_incomplete_weights_are_refused(weights_file: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({name: value for name, value in state.items() if name != "ln_final.bias"}, weights_file)
    with pytest.raises(ModelError, match=r"missing: text_model\.final_layer_norm\.bias"):
        make_plugin(ZeroShot, {"checkpoint": str(weights_file), "labels": "a,b", "architecture": "tiny"}).load()
    torch.save({**state, "logit_bias": torch.zeros(1)}, weights_file)
    with pytest.raises(ModelError, match="unknown: logit_bias"):
        make_plugin(ZeroShot, {"checkpoint": str(weights_file), "labels": "a,b", "architecture": "tiny"}).load()


def test_the_tokenizer_is_beside_the_weights_or_named(
    weights_file: Path, tiny_clip: Path, zoo: ModuleType, tmp_path: Path
) -> None:
    merges = weights_file.parent / MERGES
    assert find_state_dict(str(weights_file), "tiny").open_clip.tokenizer == merges  # type: ignore[union-attr]
    (tmp_path / "away").mkdir()
    merges = merges.rename(tmp_path / "away" / MERGES)
    with pytest.raises(ModelError, match="must have its tokenizer") as caught:
        find_state_dict(str(weights_file), "tiny")
    assert MERGES in str(caught.value)
    assert "model_options.tokenizer=PATH" in str(caught.value)
    with pytest.raises(ModelError, match=r"none of .* in .*absent"):
        find_state_dict(str(weights_file), "tiny", tokenizer=str(tmp_path / "absent"))
    digests = []
    for path in (merges, merges.parent, tiny_clip / "merges.txt.gz"):
        options = {"checkpoint": str(weights_file), "labels": "a,b", "architecture": "tiny", "tokenizer": str(path)}
        one = make_plugin(ZeroShot, options)
        one.check([])
        digests.append(one.identity[f"sha256_{'merges.txt.gz' if path.parent == tiny_clip else MERGES}"])
    assert len(set(digests)) == 1
    assert one.identity["architecture"] == "tiny"
    assert one.identity["weights_sha256_clip"] == one.identity[f"sha256_{weights_file.name}"]
    assert str(tmp_path) not in str(list(one.identity))
    (tmp_path / "other").mkdir()
    zoo.openclip(tmp_path / "other")  # its tokenizer has a dozen words
    other = find_state_dict(str(weights_file), "tiny", tokenizer=str(tmp_path / "other"))
    with pytest.raises(ModelError, match="must begin and end a text with the tokens 702 and 703"):
        ClipNetwork(other, ("a", "b"), ("{}",))


def test_a_tokenizer_in_transformers_format_is_read(weights_file: Path, tiny_clip: Path, tmp_path: Path) -> None:
    found = find_state_dict(str(weights_file), "tiny")
    load_clip_tokenizer(found).save_pretrained(tmp_path / "words")
    other = find_state_dict(str(weights_file), "tiny", tokenizer=str(tmp_path / "words"))
    assert other.open_clip is not None
    assert other.open_clip.tokenizer == tmp_path / "words"
    picture, prompts = golden(tiny_clip)[0]["tiny pictures"][0], ["farmer\u2019s field", "ΟΔΟΣ"]
    alone, folder = (ClipNetwork(one, prompts, ("{}",))(picture) for one in (found, other))
    assert np.array_equal(alone, folder)


def test_a_long_text_is_refused(weights_file: Path) -> None:
    with pytest.raises(RequestError, match="fit into the 24 tokens"):
        ClipNetwork(find_state_dict(str(weights_file), "tiny"), ("a", "forest " * 12), ("{}",))


def test_weights_alone_are_an_encoder(weights_file: Path, tiny_clip: Path) -> None:
    (weights_file.parent / MERGES).unlink()  # no text is encoded
    want, _ = golden(tiny_clip)
    encoder = find_encoder(f"openclip:tiny:{weights_file}")
    assert encoder.tile == 32
    assert encoder(want["tiny pictures"][0], ALL) == pytest.approx(want["tiny image"][0], abs=1e-5)
    assert encoder.identity["architecture"] == "tiny"
    quick = find_encoder(f"openclip:tiny-quickgelu:{weights_file}")
    assert quick(want["tiny pictures"][0], ALL) == pytest.approx(want["tiny-quickgelu image"][0], abs=1e-5)
    assert encoder_difference(encoder.identity, quick.identity) == ("architecture", "tiny", "tiny-quickgelu")
    with pytest.raises(ModelError, match="shapes of tiny and of tiny-quickgelu"):
        find_encoder(str(weights_file))
    with pytest.raises(RequestError, match="openclip:ViT-B-32:FILE"):
        find_encoder(f"openclip:{weights_file}")


def test_a_folder_in_openclips_format_is_an_encoder(zoo: ModuleType, tmp_path: Path) -> None:
    zoo.openclip(tmp_path)
    picture = np.random.default_rng(2).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    found = find_openclip(str(tmp_path), fetch=False)
    assert found is not None
    want = ClipNetwork(found, ("cat", "dog"), ("{}",)).encode_image(picture)
    (tmp_path / "tokenizer.json").unlink()
    for source in (str(tmp_path), f"zero-shot:{tmp_path}"):
        encoder = find_encoder(source)
        assert np.array_equal(encoder(picture, ALL), want)
        assert {"sha256_open_clip_config.json", "sha256_open_clip_model.safetensors"} < set(encoder.identity)
