"""New 4KHD models: vision encoders equal to transformers' own, Partial LoRA that changes nothing, files that load."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from limner.model.vlm.fourkhd.build import build
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles
from limner.model.vlm.fourkhd.model_config import (
    CLIP_MEAN,
    Kernel,
    Plora,
    new_language_sizes,
    new_plora,
    new_vision_sizes,
)
from limner.model.vlm.fourkhd.network import FourKhd
from limner.model.vlm.fourkhd.runtime import RuntimeOptions, load_network
from limner.model.vlm.fourkhd.tokenizer import TURN_END, TURN_START, Tokenizer, read_texts, train_tokenizer
from limner.model.vlm.fourkhd.vision import VisionModel
from limner.model.vlm.fourkhd.vision_encoder import (
    VisionEncoder,
    check_trained,
    interpolate,
    load_vision_encoder,
    make_vision_encoder,
)
from limner.pipelines.cli.main import app
from limner.readers.errors import ModelError, RequestError
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)
from typer.testing import CliRunner

VISION = "new:hidden=16,layers=2,heads=2,mlp=24,patch=4,tile=16"
LANGUAGE = "new:hidden=32,layers=2,heads=4,kv_heads=2,mlp=48,theta=10000,positions=256"
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SEEN: dict[str, Any] = {**SMALL, "image_size": 32, "patch_size": 8}
COLOURS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "rescale_factor": 1 / 255}
WORDS = ["What does this image show?", "Options: forest; river; opacity; no opacity.", "Answer with one."]


def shake(model: torch.nn.Module, seed: int = 5) -> torch.nn.Module:
    """Random weights that are not near nothing, also in norms and biases, with patch filters as smooth as trained."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0.0, 0.3, generator=random)
            if tensor.dim() == 4:
                tensor.copy_(3 * torch.nn.functional.avg_pool2d(tensor, 3, stride=1, padding=1))
    return model.eval()


def clip() -> torch.nn.Module:
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    return shake(CLIPModel(CLIPConfig(text_config=text, vision_config=SEEN, projection_dim=8)))


def siglip() -> torch.nn.Module:
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
    return shake(SiglipModel(SiglipConfig(text_config=text, vision_config=SEEN)))


def save(model: Any, folder: Path, *, colours: bool = True) -> Path:
    """A checkpoint's folder as transformers writes it."""
    model.save_pretrained(folder)
    if colours:
        (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS), encoding="utf-8")
    return folder


def filled(tower: VisionEncoder) -> VisionModel:
    """Our network with the tensors of a vision encoder."""
    model = VisionModel(tower.sizes)
    model.load_state_dict(tower.tensors, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "tokenizer.model"
    lines = [f"{word} {other}" for word in WORDS for other in Path(__file__).read_text(encoding="utf-8").splitlines()]
    train_tokenizer(lines, 600, path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    """A model of new parts whose separators, projector and Partial LoRA are what `build` made of them."""
    folder = tmp_path_factory.mktemp("small") / "model"
    build(VISION, LANGUAGE, folder, tokenizer=str(vocabulary), seed=3)
    return folder


def network(folder: Path) -> FourKhd:
    return load_network(FourKhdFiles.find(str(folder)), RuntimeOptions(device="cpu"))


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [clip, siglip])
def test_vision_encoder_equals_transformers_before_the_last_norm(
    tmp_path: Path, make: Callable[[], Any], kernel: Kernel
) -> None:
    model = make()
    tower = load_vision_encoder(str(save(model, tmp_path)))
    tiles = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.vision_model(tiles, output_hidden_states=True).hidden_states[-1]
        found = filled(tower)(tiles, kernel)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    assert expected.abs().max() > 1
    assert tower.concerns == ()
    assert (tower.sizes.mean, tower.sizes.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.mark.parametrize("tile", [48, 16])
@pytest.mark.parametrize("make", [clip, siglip])
def test_interpolated_positions_equal_transformers(tmp_path: Path, make: Callable[[], Any], tile: int) -> None:
    model = make()
    tower = load_vision_encoder(str(save(model, tmp_path)), tile=tile)
    assert tower.sizes.image == tile
    tiles = torch.randn(2, 3, tile, tile, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        seen = model.vision_model(tiles, output_hidden_states=True, interpolate_pos_encoding=True)
        found = filled(tower)(tiles, "sdpa")
    assert (found - seen.hidden_states[-1]).abs().max() < 1e-5


def test_the_class_token_keeps_its_position() -> None:
    positions = torch.randn(17, 6, generator=torch.Generator().manual_seed(3))
    wider = interpolate(positions, 6, class_token=True)
    assert wider.shape == (37, 6)
    assert torch.equal(wider[0], positions[0])
    assert torch.equal(interpolate(positions, 4, class_token=True), positions)


def test_vit_encoder_with_a_concern(tmp_path: Path) -> None:
    model: Any = shake(ViTModel(ViTConfig(**SEEN)))
    tower = load_vision_encoder(str(save(model, tmp_path)))
    tiles = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = model(tiles, output_hidden_states=True).hidden_states[-1]
        assert (filled(tower)(tiles, "sdpa") - expected).abs().max() < 1e-5
    assert "trained to classify" in tower.concerns[0]


def test_concerns_of_an_image_half_and_a_new_encoder(tmp_path: Path) -> None:
    half = save(shake(CLIPVisionModel(CLIPVisionConfig(**SEEN))), tmp_path)
    assert "without its text encoder" in load_vision_encoder(str(half)).concerns[0]
    assert "is untrained" in make_vision_encoder(VISION).concerns[0]


@pytest.mark.parametrize("make", [CLIPModel, SiglipModel, ViTModel])
def test_an_untrained_encoder_is_refused_whatever_its_config_says(tmp_path: Path, make: Any) -> None:
    settings = {CLIPModel: CLIPConfig, SiglipModel: SiglipConfig}.get(make)
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    model = make(settings(text_config=text, vision_config=SEEN) if settings else ViTConfig(**SEEN))
    with pytest.raises(ModelError, match=r"must be trained \(found: all norm layers have their initial.*--vision new:"):
        load_vision_encoder(str(save(model, tmp_path / "new")))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=random) * 0.1)
    with pytest.raises(ModelError, match=r"as random as noise: the correlation of neighbours is -?0\.0"):
        load_vision_encoder(str(save(model, tmp_path / "noise")))


def test_a_trained_encoder_and_fixed_parts_of_one_are_accepted(small: Path) -> None:
    """The shipped model's encoder is trained; MoCo v3's has random filters and smooth position embeddings."""
    tensors = load_vision_encoder("small").tensors
    check_trained(tensors, "shipped", class_token=True)
    new = load_vision_encoder(str(small)).tensors
    with pytest.raises(ModelError, match="must be trained"):
        check_trained(new, "new", class_token=True)
    patches, positions = "embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"
    fixed = {**tensors, patches: torch.randn(tensors[patches].shape, generator=torch.Generator().manual_seed(0))}
    side = torch.linspace(-1, 1, math.isqrt(len(tensors[positions]) - 1))
    waves = torch.cat([side[:, None].expand(-1, len(side)).flatten()[:, None], torch.zeros(len(side) ** 2, 1)], dim=1)
    fixed[positions] = torch.cat([torch.zeros(1, waves.shape[1]), waves]).repeat(1, tensors[positions].shape[1] // 2)
    check_trained(fixed, "fixed", class_token=True)


def test_unusable_vision_encoders_are_refused(tmp_path: Path) -> None:
    folder = save(clip(), tmp_path / "clip")
    with pytest.raises(RequestError, match="--tile 16 or 32"):
        load_vision_encoder(str(folder), tile=24)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="image_mean"):
        load_vision_encoder(str(folder))
    folder = save(siglip(), tmp_path / "siglip")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="layers that its config"):
        load_vision_encoder(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "dinov2"}), encoding="utf-8")
    with pytest.raises(ModelError, match="dinov2"):
        load_vision_encoder(str(folder))


def test_new_partial_lora_changes_nothing(small: Path) -> None:
    model = network(small)
    ids = torch.tensor([[1, 7, 300, 301, 302, 9]])
    mask = torch.tensor([[False, True, True, True, True, False]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, im_mask=mask).logits, model(input_ids=ids).logits)
        model.model.layers[0].attention.wqkv.Plora_B.weight.fill_(0.1)  # type: ignore[union-attr, operator]
        assert not torch.equal(model(input_ids=ids, im_mask=mask).logits, model(input_ids=ids).logits)
    down = load_file(small / "model.safetensors")["model.layers.1.feed_forward.w2.Plora_A.weight"]
    assert 0 < down.abs().mean() < 0.5


def test_the_seed_decides_every_byte(tmp_path: Path, vocabulary: Path) -> None:
    digests: list[dict[str, str]] = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        built = build(VISION, LANGUAGE, tmp_path / name, tokenizer=str(vocabulary), seed=seed)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.paths})
    assert digests[0] == digests[1]
    assert digests[0]["model.safetensors"] != digests[2]["model.safetensors"]


def test_sizes_follow_from_the_parts(small: Path, vocabulary: Path) -> None:
    sizes = FourKhdFiles.find(str(small)).sizes()
    assert (sizes.merged, sizes.projector, sizes.vision.patches_per_side) == (64, 32, 4)
    assert sizes.plora["wqkv"] == Plora(8, 16.0)
    assert sizes.plora["w2"] == Plora(8, 8.0)
    assert sizes.language.vocab == Tokenizer(vocabulary, "x").size
    model = network(small)
    assert model.plora_glb_GN.shape == (1, 1, 64)
    assert 0.01 < float(model.plora_sub_GN.std()) < 0.03
    wide = new_language_sizes("new:hidden=4096,layers=32,heads=32,kv_heads=8,mlp=14336", 92544)
    assert new_plora(wide) == {"wqkv": Plora(8, 16.0), **{name: Plora(256, 256.0) for name in ("wo", "w1", "w2", "w3")}}


def test_a_language_model_is_taken_over_unchanged(tmp_path: Path, small: Path) -> None:
    tower = save(siglip(), tmp_path / "siglip")
    built = build(str(tower), str(small), tmp_path / "new", seed=9)
    assert (tmp_path / "new" / "model.safetensors.index.json").is_file()
    model, before = network(tmp_path / "new"), network(small)
    ids = torch.tensor([[1, 40, 300, 9]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before(input_ids=ids).logits)
    assert built.sizes.merged == 4 * 32
    assert not built.sizes.vision.class_token
    # the tower of a 4KHD is taken over too
    again = load_vision_encoder(str(tmp_path / "new"))
    bias = model.vision_model.embeddings.patch_embedding.bias
    assert bias is not None
    assert torch.equal(again.tensors["embeddings.patch_embedding.bias"], bias)


def test_an_internlm2_alone_is_a_language_model(tmp_path: Path, small: Path) -> None:
    tensors = load_file(small / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("model.") and "Plora" not in name}
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    plain = {key: value for key, value in config.items() if key not in {"vision", "plora", "projector"}}
    folder = tmp_path / "internlm2"
    folder.mkdir()
    shutil.copyfile(small / "tokenizer.model", folder / "tokenizer.model")
    save_file(kept, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(ModelError, match=r"no output\.weight"):
        build(VISION, str(folder), tmp_path / "untied")
    (folder / "config.json").write_text(json.dumps({**plain, "tie_word_embeddings": True}), encoding="utf-8")
    build(VISION, str(folder), tmp_path / "tied")
    made = network(tmp_path / "tied")
    assert torch.equal(made.output.weight, made.model.tok_embeddings.weight)
    save_file({**kept, "model.layers.0.attention.wqkv.bias": torch.zeros(64)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"unknown .*wqkv\.bias"):
        build(VISION, str(folder), tmp_path / "biased")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("new:hidden=16,layers=2", "must state heads and mlp and patch and tile"),
        ("new:hidden=16,layers=2,heads=3,mlp=8,patch=4,tile=16", "multiple of heads"),
        ("new:hidden=16,layers=2,heads=2,mlp=8,patch=4,tile=20", "multiple of two patches"),
        ("new:hidden=16,layers=0,heads=2,mlp=8,patch=4,tile=16", "layers=0"),
        ("new:hidden=16,width=2", "width=2"),
        (f"{VISION},mean=2", "mean=2"),
        (f"{VISION},mean=0.1,mean=0.1", "at most once each"),
        (f"{VISION},std=0", "std=0"),
    ],
)
def test_invalid_sizes_are_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        new_vision_sizes(text)


def test_mean_and_std_of_a_new_encoder() -> None:
    sizes = new_vision_sizes(f"{VISION},mean=0.2,std=.08")
    assert (sizes.mean, sizes.std) == ((0.2,) * 3, (0.08,) * 3)
    assert new_vision_sizes(VISION).mean == CLIP_MEAN


def test_new_siglip_encoder(tmp_path: Path, vocabulary: Path) -> None:
    asked = VISION.replace("new:", "new:siglip,")
    built = build(asked, LANGUAGE, tmp_path / "model", tokenizer=str(vocabulary))
    found = FourKhdFiles.find(str(tmp_path / "model")).sizes().vision
    assert found == built.sizes.vision == new_vision_sizes(asked)
    assert (found.class_token, found.pre_norm, found.patch_bias, found.positions) == (False, False, True, 16)
    assert network(tmp_path / "model").vision_features(torch.zeros(2, 3, 16, 16)).shape == (2, 16, 16)


def test_trained_tokenizer_encodes_any_text(tmp_path: Path, vocabulary: Path) -> None:
    words = Tokenizer(vocabulary, "x")
    assert words.size == 600
    for text in ("forest", "  two  spaces ", "Größe 浦语 🛰", "a\n\nb\tc", "\u0000\u200b"):
        assert words.decode(words.encode(text)) == text
    context = words.encode(f"{TURN_START}assistant\n")
    for option in ("forest", "no opacity", "opacity"):
        assert words.encode(f"{TURN_START}assistant\n{option}{TURN_END}") == [
            *context,
            *words.encode(option),
            words.turn_end,
        ]
    with pytest.raises(RequestError, match="enough different words"):
        train_tokenizer(["a b"], 600, tmp_path / "tokenizer.model")
    with pytest.raises(RequestError, match="at least 512"):
        train_tokenizer(WORDS, 100, tmp_path / "tokenizer.model")
    assert not (tmp_path / "tokenizer.model").exists()


def test_read_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"question": "q", "answer": "a", "image": "x"}\n', encoding="utf-8")
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["one", "two", "q\na"]
    (tmp_path / "c.jsonl").write_text('{"question": "q"}\n', encoding="utf-8")
    with pytest.raises(RequestError, match=r"c\.jsonl"):
        read_texts([tmp_path / "c.jsonl"])


def test_commands_build_a_model(tmp_path: Path) -> None:
    run = CliRunner().invoke
    words = tmp_path / "tokenizer.model"
    made = run(app, ["models", "tokenizer", __file__, "--vocab", "600", "--out", str(words)])
    assert made.exit_code == 0, made.output
    tower = save(clip(), tmp_path / "clip")
    asked = ["--vision", str(tower), "--language", LANGUAGE, "--tokenizer", str(words), "--tile", "48"]
    done = run(app, ["model", "build", *asked, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert network(tmp_path / "new").sizes.vision.image == 48
    again = run(app, ["models", "build", *asked, "--out", str(tmp_path / "new")])
    assert isinstance(again.exception, RequestError)
    missing = run(app, ["models", "build", "--vision", VISION, "--language", LANGUAGE, "--out", str(tmp_path / "x")])
    assert "limner models tokenizer" in str(missing.exception)
