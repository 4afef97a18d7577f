"""The U-Nets have the parameters, by name and shape, of dynamic-network-architectures."""

from dataclasses import replace

import pytest
import torch
from limner.model.volume.unet import UNet, UNetConfig

CONFIG = UNetConfig(
    kind="PlainConvUNet",
    features=(2, 4),
    kernels=((1, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2)),
    depths=(1, 2),
    decoder=(1,),
    bias=True,
    norm="InstanceNorm3d",
    eps=1e-5,
    affine=True,
    activation="LeakyReLU",
    slope=0.01,
)
PARTS = ("conv", "norm", "all_modules.0", "all_modules.1")
CONVOLUTION = tuple(f"{part}.{name}" for part in PARTS for name in ("weight", "bias"))
UNBIASED = tuple(name for name in CONVOLUTION if name not in {"conv.bias", "all_modules.0.bias"})


def names(*parts: tuple[str, tuple[str, ...]]) -> set[str]:
    return {f"{part}.{name}" for part, several in parts for name in several}


def decoded(encoder: set[str]) -> set[str]:
    """Those of a whole network: its decoder lists its encoder's again."""
    one = ("weight", "bias")
    ours = names(("stages.0.convs.0", CONVOLUTION), ("transpconvs.0", one), ("seg_layers.0", one))
    return {f"encoder.{name}" for name in encoder} | {
        f"decoder.{name}" for name in ours | {f"encoder.{e}" for e in encoder}
    }


def test_the_plain_network() -> None:
    state = UNet(CONFIG, 1, 3).state_dict()
    encoder = names(*((f"stages.{stage}.0.convs.{i}", CONVOLUTION) for stage, i in ((0, 0), (1, 0), (1, 1))))
    assert set(state) == decoded(encoder)
    assert state["encoder.stages.0.0.convs.0.conv.weight"].shape == (2, 1, 1, 3, 3)
    assert state["decoder.transpconvs.0.weight"].shape == (4, 2, 1, 2, 2)
    assert state["decoder.stages.0.convs.0.conv.weight"].shape == (2, 4, 1, 3, 3)
    assert state["decoder.seg_layers.0.weight"].shape == (3, 2, 1, 1, 1)


def test_the_residual_network() -> None:
    state = UNet(replace(CONFIG, kind="ResidualEncoderUNet"), 1, 3).state_dict()
    blocks = [(f"stages.{s}.blocks.{b}.conv{c}", CONVOLUTION) for s, b in ((0, 0), (1, 0), (1, 1)) for c in (1, 2)]
    encoder = names(("stem.convs.0", CONVOLUTION), *blocks, ("stages.1.blocks.0.skip.1", UNBIASED))
    assert set(state) == decoded(encoder)
    assert state["encoder.stages.1.blocks.0.skip.1.conv.weight"].shape == (4, 2, 1, 1, 1)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("norm", ["InstanceNorm3d", "BatchNorm3d", ""])
def test_logits_have_the_shape_of_the_patch(kind: str, norm: str) -> None:
    config = replace(CONFIG, kind=kind, norm=norm, dropout=True)
    with torch.inference_mode():
        logits = UNet(config, 1, 3).eval()(torch.randn(1, 1, 5, 8, 6))
    assert logits.shape == (1, 3, 5, 8, 6)
    assert float(logits.std()) > 0


def test_the_activation_before_the_normalisation() -> None:
    torch.manual_seed(0)
    patch = torch.randn(1, 1, 4, 8, 8)
    usual, other = UNet(CONFIG, 1, 2).eval(), UNet(replace(CONFIG, activation_first=True), 1, 2).eval()
    other.load_state_dict(
        {name: usual.state_dict()[name.replace("all_modules.2", "all_modules.1")] for name in other.state_dict()}
    )
    with torch.inference_mode():
        assert not torch.allclose(usual(patch), other(patch))
