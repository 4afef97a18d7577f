"""Torch networks that normalise by what a tile shows: with an image's statistics all tilings agree."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from limner.model.huggingface.tile_statistics import TileStatistics
from torch import nn


class Squeeze(nn.Module):
    """Multiplies channels by a function of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return value * torch.sigmoid(self.pool(value))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "group": lambda: nn.GroupNorm(4, 8),
    "instance": lambda: nn.InstanceNorm2d(8, affine=True),
    "instance without weights": lambda: nn.InstanceNorm2d(8),
    "squeeze": Squeeze,
}


def make(layer: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(4)
    shared = layer()  # which is called twice, with statistics of its own each time
    parts = [nn.Conv2d(3, 8, 3, padding=1), shared, nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), shared]
    network = nn.Sequential(*parts, nn.Conv2d(8, 2, 1)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_tiles_answer_as_the_whole_image_does(kind: str) -> None:
    picture = torch.linspace(-1, 2, 96)[None, None, None] + torch.randn(
        1, 3, 64, 96, generator=torch.Generator().manual_seed(2)
    )
    network = make(LAYERS[kind])
    whole, tile = network(picture), network(picture[..., :48])
    statistics = TileStatistics(network)
    torch.testing.assert_close(network(picture), whole)  # which takes the picture's
    found = statistics.to_arrays()
    assert len(found) == 2
    assert np.abs((tile - whole[..., :48]).numpy()[..., 4:-4]).max() > 0.05
    statistics.use(found)
    for left in (0, 16, 37):
        part = network(picture[..., left : left + 48])
        torch.testing.assert_close(part[..., 4:-4], whole[..., left + 4 : left + 44])
    statistics.use({})
    torch.testing.assert_close(network(picture[..., :48]), tile)


@torch.inference_mode()
def test_tiles_of_a_batch_share_their_statistics() -> None:
    network = make(LAYERS["group"])
    statistics = TileStatistics(network)
    tiles = (
        torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1.0, 2, 5])[:, None, None, None]
    )
    together = network(tiles)
    statistics.use(statistics.to_arrays())
    for tile, expected in zip(tiles, together, strict=True):
        torch.testing.assert_close(network(tile[None])[0], expected)


def test_networks_without_such_layers_have_no_hooks() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2), nn.LayerNorm(2))
    assert TileStatistics(network).layers == {}
