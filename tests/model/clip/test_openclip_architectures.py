"""The table of OpenCLIP's architectures, and matching weights by their shapes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from limner.model.clip.openclip import architecture_names, check_shapes, matching_architectures, named_config, sizes_in
from limner.model.clip.openclip_load import make_clip
from limner.readers.errors import ModelError
from transformers import CLIPModel

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "openclip" / "architectures.json"
TABLE: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())


def test_names_are_those_of_openclip() -> None:
    assert sorted(architecture_names()) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_an_architecture_is_that_of_openclip(name: str) -> None:
    settings = named_config(name, "x")
    with torch.device("meta"):
        model = make_clip(CLIPModel, settings)
    vision, text = settings["vision_config"], settings["text_config"]
    assert {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "image": vision["image_size"],
        "heads": [vision["num_attention_heads"], text["num_attention_heads"]],
        "activation": {"gelu": "GELU", "quick_gelu": "QuickGELU"}[vision["hidden_act"]],
        "layers": [vision.get("residual_layers") or vision["num_hidden_layers"], text["num_hidden_layers"]],
        "context": text["max_position_embeddings"],
        "vocabulary": text["vocab_size"],
    } == TABLE[name]
    assert text["hidden_act"] == vision["hidden_act"]


def shapes(patch: int, width: int, image: int, layers: int, **changes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that determine sizes; the text encoder is ViT-B's."""
    mlp = "mlp.c_fc.weight"
    return {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.positional_embedding": ((image // patch) ** 2 + 1, width),
        "visual.proj": (width, 512),
        **{f"visual.transformer.resblocks.{i}.{mlp}": (4 * width, width) for i in range(layers)},
        **{f"transformer.resblocks.{i}.{mlp}": (2048, 512) for i in range(12)},
        "token_embedding.weight": (49408, 512),
        "positional_embedding": (77, 512),
        "text_projection": (512, 512),
        **changes,
    }


def test_shapes_determine_sizes_but_not_the_activation() -> None:
    assert matching_architectures(shapes(32, 768, 224, 12)) == ["ViT-B-32", "ViT-B-32-quickgelu"]
    assert matching_architectures(shapes(32, 768, 256, 12)) == ["ViT-B-32-256"]
    assert (
        matching_architectures({f"module.{name}": shape for name, shape in shapes(16, 768, 224, 12).items()})[0]
        == "ViT-B-16"
    )
    assert matching_architectures(shapes(32, 768, 224, 11)) == []
    assert matching_architectures(shapes(32, 768, 224, 12, positional_embedding=(64, 512))) == []
    custom = {name if name.startswith("visual") else f"text.{name}": s for name, s in shapes(32, 768, 224, 12).items()}
    assert matching_architectures(custom) == ["ViT-B-32", "ViT-B-32-quickgelu"]


def test_shapes_of_a_resnet_determine_its_sizes() -> None:
    text = {name: shape for name, shape in shapes(32, 768, 224, 12).items() if not name.startswith("visual.")}
    net = {
        "visual.layer1.0.conv1.weight": (64, 64, 1, 1),
        "visual.attnpool.positional_embedding": (50, 2048),
        **{
            f"visual.layer{i}.{n}.bn1.bias": (1,)
            for i, blocks in ((1, 3), (2, 4), (3, 6), (4, 3))
            for n in range(blocks)
        },
    }
    assert matching_architectures(text | net | {"text_projection": (512, 1024)}) == ["RN50", "RN50-quickgelu"]
    with pytest.raises(ModelError, match="blocks of stage 3 6 instead of 23, joint width 1024 instead of 512"):
        check_shapes(text | net | {"text_projection": (512, 1024)}, "RN101", "x")


def test_other_weights_have_no_sizes() -> None:
    whole = shapes(32, 768, 224, 12)
    for name in ("visual.proj", "token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight"):
        assert sizes_in({key: shape for key, shape in whole.items() if key != name}) == {}
    assert sizes_in(whole | {"visual.conv1.weight": ()}) == {}


def test_a_name_and_shapes_must_agree() -> None:
    found = shapes(32, 768, 224, 12)
    check_shapes(found, "ViT-B-32", "x")
    check_shapes(found, "ViT-B-32-quickgelu", "x")
    with pytest.raises(ModelError, match="must have its architecture named") as caught:
        check_shapes(found, "", "x")
    assert "shapes of ViT-B-32 and of ViT-B-32-quickgelu" in str(caught.value)
    assert "model_options.architecture=NAME" in str(caught.value)
    with pytest.raises(ModelError, match="must have weights with the shapes of ViT-B-16") as caught:
        check_shapes(found, "ViT-B-16", "x")
    assert "patch size 32 instead of 16" in str(caught.value)
    assert "the shapes are those of ViT-B-32 and of ViT-B-32-quickgelu" in str(caught.value)
    with pytest.raises(ModelError, match="vision layers 11 instead of 12") as caught:
        check_shapes(shapes(32, 768, 224, 11), "ViT-B-32", "x")
    assert "open_clip_config.json" in str(caught.value)
    with pytest.raises(ModelError, match=r"unknown: image size 224, .*vision layers 11"):
        check_shapes(shapes(32, 768, 224, 11), "", "x")
    with pytest.raises(ModelError, match="no vision encoder of OpenCLIP's"):
        check_shapes({"visual.attnpool.positional_embedding": (50, 2048)}, "", "x")


def test_a_name_must_be_known() -> None:
    with pytest.raises(ModelError, match="Did you mean 'ViT-B-32'"):
        named_config("ViT-B/32", "x")
    with pytest.raises(ModelError, match="Known: RN50, RN50-quickgelu, "):
        named_config("convnext", "x")
