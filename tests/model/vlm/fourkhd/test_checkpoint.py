"""Checkpoint files: in one or several shards, safetensors and pickles, damaged and foreign; conversion and loading."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles, convert
from limner.model.vlm.fourkhd.model_config import LINEARS, LanguageSizes, Plora, Sizes, VisionSizes
from limner.model.vlm.fourkhd.network import FourKhd
from limner.model.vlm.fourkhd.runtime import RuntimeOptions, device_of, from_pretrained, load_network, split_layers
from limner.readers.errors import ModelError, RequestError
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

Weights = dict[str, torch.Tensor]


def in_parts(weights: Weights, folder: Path, *, pickled: bool, parts: int = 3) -> None:
    """Write weights as a hub would: several files, and an index that says where each tensor is."""
    (folder / "model.safetensors").unlink()
    where: dict[str, str] = {}
    suffix = "bin" if pickled else "safetensors"
    stem = "pytorch_model" if pickled else "model"
    for part in range(parts):
        name = f"{stem}-{part + 1:05d}-of-{parts:05d}.{suffix}"
        kept = {key: tensor for i, (key, tensor) in enumerate(weights.items()) if i % parts == part}
        where |= dict.fromkeys(kept, name)
        torch.save(kept, folder / name) if pickled else save_file(kept, folder / name)
    index = "pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def says(network: FourKhd) -> torch.Tensor:
    with torch.inference_mode():
        return network(input_ids=torch.arange(3, 20)[None]).logits


@pytest.mark.parametrize("form", ["safe", "safe in parts", "pickled", "pickled in parts", "old pickle"])
def test_every_weight_format_gives_the_same_network(
    folder: Path, tiny: FourKhd, tiny_weights: Weights, form: str
) -> None:
    if "parts" in form:
        in_parts(tiny_weights, folder, pickled="pickled" in form)
    elif form != "safe":
        (folder / "model.safetensors").unlink()
        zipped = form == "pickled"
        torch.save(tiny_weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    network = from_pretrained(str(folder))
    assert torch.equal(says(network), says(tiny))
    assert not any(weight.requires_grad for weight in network.parameters())


def test_eager_attention(folder: Path, tiny: FourKhd) -> None:
    network = from_pretrained(str(folder), RuntimeOptions(attention="eager"))
    assert network.kernel == "eager"
    assert float((says(network) - says(tiny)).abs().max()) < 1e-4


def test_bfloat16_weights(folder: Path, tiny: FourKhd) -> None:
    network = from_pretrained(str(folder), RuntimeOptions(dtype="bfloat16"))
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}
    assert float((says(network).float() - says(tiny)).abs().max()) < 0.5


@pytest.mark.parametrize(
    ("running", "words"),
    [
        (RuntimeOptions(dtype="int3"), ("dtype", "bfloat16", "int3")),
        (RuntimeOptions(device="gpu9"), ("device", "gpu9")),
        (RuntimeOptions(device="cuda:7"), ("device", "must name a GPU", "cuda:7")),
        (RuntimeOptions(attention="linear"), ("attention", "sdpa", "linear")),
        (RuntimeOptions(device="split"), ("GPUs", "device=cpu")),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what cannot be had without a GPU")
def test_unusable_runtime_options_are_refused(folder: Path, running: RuntimeOptions, words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as error:
        from_pretrained(str(folder), running)
    for word in words:
        assert word in str(error.value)


def test_known_unused_tensors_are_logged(
    folder: Path, tiny: FourKhd, tiny_weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    vision = "vit.vision_tower.vision_model"
    extras = {
        f"{vision}.post_layernorm.weight": torch.ones(32),
        f"{vision}.post_layernorm.bias": torch.ones(32),
        f"{vision}.embeddings.position_ids": torch.arange(577)[None],
        "model.layers.0.attention.rotary_emb.inv_freq": torch.ones(8),
    }
    save_file({**tiny_weights, **extras}, folder / "model.safetensors")
    with caplog.at_level("INFO", logger="limner"):
        assert torch.equal(says(from_pretrained(str(folder))), says(tiny))
    assert "4 tensors are not used" in caplog.text
    assert "post_layernorm.weight" in caplog.text


def lacks(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lacks("model.norm.weight"), ("1 missing", "model.norm.weight", "random")),
        (lacks("model.layers.1.attention.wo.Plora_B.weight"), ("missing", "wo.Plora_B")),
        (lambda w: {**w, "model.extra.weight": torch.ones(2)}, ("1 unknown", "model.extra.weight")),
        (lambda w: {**w, "output.weight": torch.ones(256, 63)}, ("output.weight", "(256, 64)", "(256, 63)")),
        (lambda w: {**w, "plora_glb_GN": torch.ones(1, 1, 64)}, ("plora_glb_GN", "(1, 1, 128)")),
    ],
)
def test_missing_unknown_and_misshapen_tensors_are_named(
    folder: Path, tiny_weights: Weights, change: Callable[[Weights], Weights], words: tuple[str, ...]
) -> None:
    save_file(change(tiny_weights), folder / "model.safetensors")
    with pytest.raises(ModelError) as error:
        FourKhdFiles.find(str(folder)).sizes()
    for word in words:
        assert word in str(error.value)


ENDS = ("plora_glb_GN", "plora_sub_GN")
SIBLINGS = {
    "VL": (
        "InternLM-XComposer2-VL",
        {"vision_proj.0.weight": (4096, 1024)},
        ("plora_glb_GN", "plora_sub_GN"),
        1226,
        256,
    ),
    "2.5": ("InternLM-XComposer-2.5", {}, (), 1601, 256),
    "plain": ("another model", {}, ("plora_glb_GN", "plora_sub_GN"), 577, 0),
}


@pytest.mark.parametrize("name", sorted(SIBLINGS))
def test_sibling_models_are_named(golden: Path, name: str) -> None:
    said, changed, absent, positions, rank = SIBLINGS[name]
    keys = json.loads((golden / "expected_checkpoint_keys.json").read_text(encoding="utf-8"))["keys"]
    shapes: dict[str, tuple[int, ...]] = {key: tuple(shape) for key, shape in keys.items() if key not in absent}
    shapes |= changed
    shapes["vit.vision_tower.vision_model.embeddings.position_embedding.weight"] = (positions, 1024)
    low = "model.layers.0.attention.wqkv.Plora_A.weight"
    if rank:
        shapes[low] = (rank, 4096)
    else:
        shapes = {key: shape for key, shape in shapes.items() if "Plora" not in key}
    with pytest.raises(ModelError, match=said):
        Sizes.from_checkpoint(shapes, {}, "sibling")


def test_an_unknown_rank_needs_its_alpha(folder: Path, tiny_config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps({key: v for key, v in tiny_config.items() if key != "plora"}))
    with pytest.raises(ModelError, match=r"never guessed.*rank 2"):
        FourKhdFiles.find(str(folder)).sizes()


def test_scaled_positions_are_refused_unless_they_change_nothing(folder: Path, tiny_config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps({**tiny_config, "rope_scaling": {"type": "dynamic", "factor": 2.0}}))
    FourKhdFiles.find(str(folder)).sizes()
    (folder / "config.json").write_text(json.dumps({**tiny_config, "rope_scaling": {"type": "linear", "factor": 2.0}}))
    with pytest.raises(ModelError, match="linear"):
        FourKhdFiles.find(str(folder)).sizes()


@pytest.mark.parametrize("pickled", [False, True])
def test_truncated_shard_is_named(folder: Path, tiny_weights: Weights, pickled: bool) -> None:
    in_parts(tiny_weights, folder, pickled=pickled)
    [part] = folder.glob("*-00002-of-*")
    part.write_bytes(part.read_bytes()[:-2000])
    with pytest.raises(ModelError) as error:
        load_network(FourKhdFiles.find(str(folder)), RuntimeOptions())
    assert part.name in str(error.value)
    assert "whole" in str(error.value)


def test_missing_shard_and_missing_config_are_named(folder: Path, tiny_weights: Weights) -> None:
    in_parts(tiny_weights, folder, pickled=False)
    next(folder.glob("*-00003-of-*")).unlink()
    with pytest.raises(ModelError, match="model-00003-of-00003"):
        FourKhdFiles.find(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        FourKhdFiles.find(str(folder))
    with pytest.raises(ModelError, match="OWNER/NAME@COMMIT"):
        FourKhdFiles.find("internlm/internlm-xcomposer2-4khd-7b")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/never",)


def test_pickle_with_code_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(64), "x": _Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="nothing but tensors"):
        FourKhdFiles.find(str(folder)).shapes()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": _Evil()}))
    with pytest.raises(ModelError, match="nothing but tensors"):
        FourKhdFiles.find(str(folder)).shapes()


def test_no_download_without_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="--fetch"):
        FourKhdFiles.find("internlm/internlm-xcomposer2-4khd-7b@" + "a" * 40)


@pytest.mark.parametrize("pickled", [False, True])
def test_convert_keeps_every_bit_and_states_all_sizes(
    folder: Path,
    tmp_path: Path,
    tiny: FourKhd,
    tiny_weights: Weights,
    pickled: bool,
) -> None:
    in_parts(
        {**tiny_weights, "vit.vision_tower.vision_model.post_layernorm.bias": torch.ones(32)}, folder, pickled=pickled
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.py--Class"}}))
    out = tmp_path / "out"
    made = convert(FourKhdFiles.find(str(folder)), out)
    assert sorted(path.name for path in made) == sorted(path.name for path in out.iterdir())
    assert not any(path.suffix in {".bin", ".py", ".part"} for path in out.iterdir())
    kept: Weights = {}
    for path in out.glob("*.safetensors"):
        kept |= load_file(path)
    assert kept.keys() == tiny_weights.keys()
    assert all(torch.equal(kept[name], tiny_weights[name]) for name in kept)
    written = json.loads((out / "config.json").read_text())
    assert "auto_map" not in written
    assert written["plora"]["wqkv"] == {"rank": 2, "alpha": 4.0}
    assert torch.equal(says(from_pretrained(str(out))), says(tiny))
    with pytest.raises(RequestError, match="empty"):
        convert(FourKhdFiles.find(str(folder)), out)


def test_convert_to_bfloat16(folder: Path, tmp_path: Path) -> None:
    convert(FourKhdFiles.find(str(folder)), tmp_path / "half", dtype="bfloat16")
    whole, half = folder / "model.safetensors", tmp_path / "half" / "model.safetensors"
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    assert {weight.dtype for weight in load_file(half).values()} == {torch.bfloat16}


MEASURE = """
import sys
from pathlib import Path
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles
from limner.model.vlm.fourkhd.network import FourKhd  # its imports do not count
from limner.model.vlm.fourkhd.runtime import RuntimeOptions, load_network

def most():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = most()
network = load_network(FourKhdFiles.find(sys.argv[1]), RuntimeOptions())
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux")
@pytest.mark.parametrize("pickled", [False, True])
def test_peak_memory_of_loading(tmp_path: Path, pickled: bool) -> None:
    sizes = Sizes(
        VisionSizes(hidden=64, layers=1, heads=1, mlp=64, image=56),
        LanguageSizes(vocab=1000, hidden=512, layers=12, heads=8, kv_heads=8, mlp=2048),
        projector=64,
        plora={name: Plora(8, 16.0) for name in LINEARS},
    )
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text(json.dumps(sizes.to_json()))
    weights = {name: torch.zeros(shape) + 0.01 for name, shape in sizes.tensors().items()}
    whole = sum(weight.nbytes for weight in weights.values())
    in_parts(weights, folder, pickled=pickled, parts=6)
    part = max(path.stat().st_size for path in folder.glob("*-of-*"))
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < whole + 2.0 * part + 30e6
    assert float(done.stdout) > 0.9 * whole


def test_split_layers_over_gpus() -> None:
    keys = Sizes(
        VisionSizes(hidden=1024, layers=24, heads=16, mlp=4096),
        LanguageSizes(vocab=92544, hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336),
        projector=4096,
        plora={name: Plora(8 if name == "wqkv" else 256, 16.0) for name in LINEARS},
    )
    places = split_layers(keys, [10 * 2**30, 10 * 2**30], 2)
    layers = [places[f"model.layers.{i}"] for i in range(32)]
    assert layers == sorted(layers)
    assert set(layers) == {"cuda:0", "cuda:1"}
    for name in keys.tensors():
        place = device_of(name, places)
        if name.startswith(("vit.", "vision_proj.", "plora_", "model.tok_embeddings")):
            assert place == "cuda:0"
        if name.startswith(("model.norm", "output")):
            assert place == layers[-1]
    assert device_of("model.layers.10.attention.wo.weight", {"": "a", "model.layers.1": "b"}) == "a"
    with pytest.raises(RequestError, match=r"16\.0 GiB must fit"):
        split_layers(keys, [6 * 2**30, 6 * 2**30], 2)


def test_layers_on_different_devices(tiny: FourKhd) -> None:
    """What flows follows the layers: shown with the meta device, where nothing has a value but all has a place."""
    for part in (tiny.model.layers[1], tiny.model.norm, tiny.output):
        part.to("meta")
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        said = tiny(input_ids=ids, im_mask=ids > 10, attention_mask=(ids > 4).long())
    assert said.logits.shape == (1, 17, 256)
    assert said.logits.device.type == "meta"


@pytest.mark.parametrize(("how", "most"), [("8bit", 0.05), ("4bit", 0.5)])
def test_quantized_logits_are_close(made_4khd: Path, how: str, most: float) -> None:
    pytest.importorskip("bitsandbytes", reason="numbers of few bits are its work")
    whole, small = from_pretrained(str(made_4khd)), from_pretrained(str(made_4khd), RuntimeOptions(quantize=how))
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        expected, found = whole(input_ids=ids).logits, small(input_ids=ids).logits
    error = float((found - expected).norm() / expected.norm())
    assert 1e-5 < error < most
