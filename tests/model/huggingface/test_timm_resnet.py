"""Detectors on timm's ResNets answer as that ResNet does, which the tests have by themselves."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.checkpoints.files import find_files
from limner.model.checkpoints.loading import to_tensor
from limner.model.checkpoints.untrusted import UntrustedDict
from limner.model.huggingface.networks import TransformersNetwork
from limner.model.huggingface.task_config import read_task_config
from limner.model.huggingface.timm_resnet import LAYERS, NAMES, timm_resnet
from limner.readers.errors import ModelError
from safetensors.torch import load_file, save_file
from transformers import ResNetBackbone, ResNetConfig
from transformers.core_model_loading import WeightRenaming

pytestmark = pytest.mark.slow

SIDE = 64
VALID = np.ones((SIDE, SIDE), dtype=np.bool_)
DETR = {"model_type": "detr"}
TWO_STAGES = {"with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 9}


def restated(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def network(folder: Path) -> TransformersNetwork:
    recipe = read_task_config(find_files(str(folder), fetch=False))
    return TransformersNetwork(recipe, recipe.labels)


@pytest.mark.parametrize(
    ("kind", "name", "stated"),
    [
        ("Detr", "resnet50", {}),
        ("Detr", "resnet26", {"dilation": True}),
        ("Detr", "resnet18", {"dilation": True}),
        ("ConditionalDetr", "resnet34", {}),
        ("DeformableDetr", "resnet26", {"num_feature_levels": 3}),
        ("DeformableDetr", "resnet18", {"num_feature_levels": 1, "dilation": True}),
        ("DeformableDetr", "resnet18", {"num_feature_levels": 3, **TWO_STAGES}),
        ("TableTransformer", "resnet18", {}),
        ("DabDetr", "resnet18", {"inner": True}),
    ],
)
def test_a_detector_with_a_timm_resnet(
    kind: str, name: str, stated: dict[str, Any], tmp_path: Path, zoo_resnets: ModuleType
) -> None:
    model = zoo_resnets.detector(tmp_path, kind, name, **stated)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    tile = np.stack([x * 4 % 256, y * 4 % 256, (x * y) % 256], axis=-1).astype(np.uint8)
    recipe = read_task_config(find_files(str(tmp_path), fetch=False))
    assert recipe.tile == SIDE
    with torch.inference_mode():
        answer = model(pixel_values=to_tensor(tile[None], recipe))
    logits = answer.logits[0]
    scores = logits.sigmoid() if recipe.independent else logits.softmax(dim=-1)[:, :-1]
    assert scores.std() > 1e-3
    order = scores.flatten().argsort(descending=True, stable=True) if recipe.independent else None
    best, which = scores.max(dim=-1)
    found = network(tmp_path).detect(tile, VALID)
    if order is not None:
        best, which, rows = scores.flatten()[order], order % 3, order // 3
    else:
        rows = torch.arange(len(best))
    centre, half = answer.pred_boxes[0, rows, :2], answer.pred_boxes[0, rows, 2:] / 2
    boxes = torch.cat([centre - half, centre + half], dim=1) * SIDE
    assert [one.label for one in found] == [("field", "water", "town")[i] for i in which.tolist()]
    assert np.allclose([one.score for one in found], best, atol=1e-5)
    assert np.allclose([one.box for one in found], boxes, atol=1e-3)


def test_backbones_stated_in_several_ways() -> None:
    plain = timm_resnet(UntrustedDict(DETR, "config.json"))
    assert plain is not None
    assert plain.settings["backbone_config"]["depths"] == [3, 4, 6, 3]  # transformers' default is resnet50
    assert not plain.dilated
    old = DETR | {"backbone": "resnet50", "backbone_config": None, "use_timm_backbone": True}
    options = {"in_chans": 3, "out_indices": [1, 2, 3, 4]}
    new = {"model_type": "timm_backbone", "backbone": "resnet50.a1_in1k", "out_indices": [1, 2, 3, -1]}
    for config in (old, old | {"backbone_kwargs": options}, DETR | {"backbone_config": new}):
        assert timm_resnet(UntrustedDict(config, "config.json")) == plain
    wide = (
        old | {"dilation": True},
        old | {"backbone_kwargs": options | {"output_stride": 16}},
        DETR | {"backbone_config": new | {"output_stride": 16}},
    )
    for config in wide:
        found = timm_resnet(UntrustedDict(config, "config.json"))
        assert found is not None
        assert found.dilated
        assert found.settings == plain.settings
    for levels, stages in ((1, ["stage4"]), (4, ["stage2", "stage3", "stage4"])):
        deformable = timm_resnet(
            UntrustedDict({"model_type": "deformable_detr", "num_feature_levels": levels}, "config.json")
        )
        assert deformable is not None
        assert deformable.settings["backbone_config"]["out_features"] == stages


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "rt_detr"},
        DETR | {"use_timm_backbone": False, "backbone": "microsoft/resnet-50"},
        DETR | {"backbone_config": {"model_type": "resnet"}},
        DETR | {"backbone": "resnet50d"},
        DETR | {"backbone": "tf_efficientnet_b0"},
        DETR | {"backbone_kwargs": {"output_stride": 8}},
        DETR | {"backbone_kwargs": {"out_indices": [0, 1]}},
    ],
)
def test_other_backbones_are_left_to_transformers(config: dict[str, Any]) -> None:
    assert timm_resnet(UntrustedDict(config, "config.json")) is None


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_tensor_is_renamed(name: str, zoo_resnets: ModuleType) -> None:
    found = timm_resnet(UntrustedDict(DETR | {"backbone": name}, "config.json"))
    assert found is not None
    settings = {key: value for key, value in found.settings["backbone_config"].items() if key != "model_type"}
    with torch.device("meta"):
        theirs, ours = zoo_resnets.Reference(name, (4,)), ResNetBackbone(ResNetConfig(**settings))
    prefix, shapes = "backbone.conv_encoder.model.", {}
    rules = [WeightRenaming(source_patterns=old, target_patterns=new) for old, new in NAMES.items()]
    for key, value in theirs.state_dict().items():
        renamed = prefix + key
        for rule in rules:
            renamed = rule.rename_source_key(renamed)[0]
        shapes[renamed.removeprefix(prefix)] = value.shape
    assert shapes == {key: value.shape for key, value in ours.state_dict().items()}


def test_other_tensors_are_named(tmp_path: Path, zoo_resnets: ModuleType) -> None:
    folder = tmp_path / "detr"
    zoo_resnets.detector(folder, "Detr", "resnet18")
    restated(folder, backbone="resnet34")
    with pytest.raises(ModelError, match=r"would be random.*no .*stages"):
        network(folder)
    restated(folder, backbone="resnet18")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    more = {"model.backbone.conv_encoder.model.layer4.2.conv1.weight": torch.zeros(512, 512, 3, 3)}
    save_file(tensors | more, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"not known: .*stages\.3\.layers\.2"):
        network(folder)
    restated(folder, backbone="resnet50d")
    with pytest.raises(ModelError, match="timm"):
        network(folder)


def test_a_resnet_of_other_channels_is_refused(tmp_path: Path, zoo_resnets: ModuleType) -> None:
    zoo_resnets.detector(tmp_path, "Detr", "resnet18")
    restated(tmp_path, backbone_kwargs={"in_chans": 4})
    with pytest.raises(ModelError, match="three channels"):
        read_task_config(find_files(str(tmp_path), fetch=False))
