"""The golden vectors, and the tiny model of which they were made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.vlm.fourkhd.model_config import LINEARS, Sizes
from limner.model.vlm.fourkhd.network import FourKhd, FourKhdConfig
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[3] / "golden" / "4khd"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden data."""
    return GOLDEN


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """What the reference's network made, by name."""
    return dict(np.load(GOLDEN / "network.npz"))


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """The config.json of a checkpoint like the tiny model's: what the released one says, and what it cannot."""
    told = json.loads((GOLDEN / "tiny_config.json").read_text(encoding="utf-8"))
    plora = {name: told["plora"]["wqkv" if name == "wqkv" else "wo_w1_w2_w3"] for name in LINEARS}
    return {**told["llm"], "vision": {"heads": told["vision"]["num_attention_heads"]}, "plora": plora}


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, torch.Tensor]:
    """Its tensors."""
    return load_file(GOLDEN / "tiny_state_dict.safetensors")


@pytest.fixture
def tiny(tiny_config: dict[str, Any], tiny_weights: dict[str, torch.Tensor]) -> FourKhd:
    """The tiny model itself."""
    sizes = Sizes.from_checkpoint({name: tuple(w.shape) for name, w in tiny_weights.items()}, tiny_config, "tiny")
    network = FourKhd(FourKhdConfig.from_sizes(sizes))
    network.load_state_dict(tiny_weights)
    return network.eval().requires_grad_(requires_grad=False)


@pytest.fixture
def folder(tmp_path: Path, tiny_config: dict[str, Any], small_tokenizer: Path) -> Path:
    """The tiny model as a checkpoint's folder."""
    made = tmp_path / "tiny"
    made.mkdir()
    (made / "model.safetensors").write_bytes((GOLDEN / "tiny_state_dict.safetensors").read_bytes())
    (made / "config.json").write_text(json.dumps(tiny_config))
    (made / "tokenizer.model").write_bytes(small_tokenizer.read_bytes())
    return made
