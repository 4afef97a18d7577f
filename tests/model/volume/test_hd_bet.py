"""The method of HD-BET with a small network of random weights: resizing, the network, folds, and the way back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.checkpoints.cards import find_volume_card
from limner.model.probabilities import STEPS, LabelProbabilities
from limner.model.volume import hd_bet_network
from limner.model.volume.cards import find_volume_model
from limner.model.volume.hd_bet import HdBet, resize, spline_weights
from limner.model.volume.hd_bet_network import HdBetNetwork
from limner.model.volume.orientation import UNTURNED, Turn
from limner.model.volume.volume import Volume
from limner.readers.errors import ModelError
from scipy import ndimage
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

MakeVolume = Callable[..., Volume]


def zoom(values: npt.NDArray[Any], factors: Sequence[float], **options: Any) -> npt.NDArray[np.float32]:
    return np.asarray(ndimage.zoom(values, factors, **options), dtype=np.float32)


def make_network(seed: int) -> HdBetNetwork:
    """A network of one channel at full resolution."""
    torch.manual_seed(seed)
    network = HdBetNetwork(1)
    for part in network.modules():
        if isinstance(part, nn.InstanceNorm3d):
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, 0, 0.2)
    return network.eval()


def plainly(net: Any, x: torch.Tensor) -> torch.Tensor:
    """The network as its authors' paper and code describe it, layer by layer, without saving memory."""

    def norm(x: torch.Tensor, of: nn.InstanceNorm3d, slope: float) -> torch.Tensor:
        return F.leaky_relu(F.instance_norm(x, weight=of.weight, bias=of.bias), slope)

    skips: list[torch.Tensor] = []
    x = net.init_conv(x)
    for level in range(1, 6):
        block = getattr(net, f"context{level}")
        x = x + block.conv2(norm(block.conv1(norm(x, block.bn_1, 0.01)), block.bn_2, 0.01))
        if level < 5:
            down = getattr(net, f"down{level}")
            skips.append(norm(x, down.bn, 0.01))
            x = down.downsample(skips[-1])
    x = norm(x, net.bn_after_context5, 0.1)
    for step in range(1, 5):
        up = getattr(net, f"up{step}")
        x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
        x = torch.cat([skips.pop(), norm(up.upsample_conv(x), up.bn, 0.01)], dim=1)
        if step < 4:
            loc = getattr(net, f"loc{step}")
            x = norm(loc.conv2(norm(loc.conv1(x), loc.bn_1, 0.01)), loc.bn_2, 0.01)
    x = norm(net.end_conv_1(x), net.end_conv_1_bn, 0.1)
    x = norm(net.end_conv_2(x), net.end_conv_2_bn, 0.1)
    return net.seg_layer(x).softmax(1)[0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("hd_bet")
    paths = [folder / f"{seed}.model" for seed in range(2)]
    for seed, path in enumerate(paths):
        torch.save(make_network(seed).state_dict(), path)
    return paths


@pytest.fixture(scope="module")
def voxels() -> npt.NDArray[np.float32]:
    """Smooth random values (slices, rows, columns)."""
    noise = np.random.default_rng(0).random((5, 6, 7))
    return zoom(noise, (6, 8, 7), order=1)


@pytest.mark.slow
@pytest.mark.parametrize("slab", [2**14, 2**30])
def test_little_memory_gives_the_same_probabilities(monkeypatch: pytest.MonkeyPatch, slab: int) -> None:
    monkeypatch.setattr(hd_bet_network, "_SLAB", slab)
    network, x = make_network(0), torch.rand(1, 1, 32, 48, 64)
    with torch.inference_mode():
        found, expected = network(x), plainly(network, x)
    assert found.shape == x.shape[2:]
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("length", "count"), [(40, 17), (17, 40), (20, 20), (3, 4)])
def test_the_weights_of_splines_are_those_of_scikit_image(length: int, count: int) -> None:
    values = np.random.default_rng(0).random((length, 2)).astype(np.float32)
    expected = zoom(values, (count / length, 1), order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(spline_weights(length, count) @ values, expected, atol=1e-5)


def test_volumes_are_resized_slice_by_slice(make_volume: MakeVolume, voxels: npt.NDArray[np.float32]) -> None:
    """As `skimage.transform.resize(…, order=3, mode="edge", anti_aliasing=False)` does, which calls this zoom."""
    volume = make_volume(voxels, (2.0, 0.7, 1.5))
    shape = (40, 22, 49)
    assert voxels.shape == (30, 48, 49)
    factors = [new / old for new, old in zip(shape, voxels.shape, strict=True)]
    expected = zoom(voxels, factors, order=3, mode="nearest", grid_mode=True)
    found = resize(volume, 1.5)
    np.testing.assert_allclose(found, expected.clip(voxels.min(), voxels.max()), atol=2e-5)
    voxels = voxels.copy()
    voxels[0, 0, 0] = np.nan
    assert np.isfinite(resize(make_volume(voxels), 1.5)).all()


@pytest.mark.slow
def test_labels_do_not_depend_on_the_orientation(
    files: list[Path], voxels: npt.NDArray[np.float32], make_volume: MakeVolume
) -> None:
    method = HdBet(least=32)
    method.load(files[:1])
    volume = make_volume(voxels, (2.0, 1.0, 1.5))
    expected = np.stack(list(method.segment(volume, "model test")))
    assert expected.shape == voxels.shape
    assert expected.dtype == np.uint8
    assert 0.02 < expected.mean() < 0.98
    turn = Turn((2, 0, 1), (True, False, True))
    stored = turn.apply(voxels)
    moved = Volume(stored.shape, turn.affine(volume.affine, voxels.shape), lambda n: stored[n])
    room = LabelProbabilities({1: 0}, np.zeros((1, *moved.shape), np.uint8))
    found = np.stack(list(method.segment(replace(moved, probabilities=room), "model test")))
    assert (room.values[0][found == 1] >= STEPS // 2).all()
    assert room.values.max() > STEPS // 2
    assert np.mean(turn.invert(found) != expected) < 1e-3  # the order of sums may decide a voxel at exactly one half


@pytest.mark.slow
def test_folds_and_mirror_images_are_averaged(
    files: list[Path], voxels: npt.NDArray[np.float32], make_volume: MakeVolume
) -> None:
    from limner.model.volume.masks import largest_component, spread_slices

    voxels = voxels[:, :32, :32]
    one, all_of_them = HdBet(least=32), HdBet(flips=True, least=32)
    one.load(files[:1])
    all_of_them.load(files)
    volume = make_volume(voxels, (1.5, 1.5, 1.5))
    x = voxels[:, ::-1, ::-1]  # S, P, L → S, A, R
    x = torch.from_numpy((x - x.mean()) / x.std())
    padded = F.pad(x, (0, 0, 0, 0, 0, 2))[None, None]
    total = torch.zeros(padded.shape[2:])
    flips: list[list[int]] = [[], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
    with torch.inference_mode():
        for seed in range(2):
            for axes in flips:
                total += make_network(seed)(padded.flip([axis + 2 for axis in axes])).flip(axes)
    mask = largest_component((total / 16 > 0.5).numpy()[tuple(slice(0, side) for side in x.shape)])
    found = np.stack(list(all_of_them.segment(volume, "model test")))
    assert np.mean(found != np.stack(list(spread_slices(mask, UNTURNED, x.shape)))[:, ::-1, ::-1]) < 1e-3
    assert np.mean(found != np.stack(list(one.segment(volume, "model test")))) > 1e-3


def test_voxels_of_one_value_are_refused(make_volume: MakeVolume) -> None:
    with pytest.raises(ModelError, match=r"voxels of different values \(found: 3\)"):
        list(HdBet().segment(make_volume(np.full((4, 4, 4), 3)), "model test"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    for content in (nn.Conv3d(1, 1, 1).state_dict(), {"init_conv.bias": torch.zeros(3)}):
        torch.save(content, tmp_path / "other.model")
        with pytest.raises(ModelError, match="weights of HD-BET's network"):
            HdBet().load([tmp_path / "other.model"])
    (tmp_path / "other.model").write_bytes(b"no pickle")
    with pytest.raises(ModelError, match="hold nothing but tensors"):
        HdBet().load([tmp_path / "other.model"])


def test_the_folds_of_the_card() -> None:
    assert [file.name for file in find_volume_card("brain-mr").files] == list("01234")
    by_default = find_volume_model("brain-mr").identity
    assert [key for key in by_default if "sha256_" in key] == ["weights_sha256_0"]
    assert "flips" not in by_default
    several = find_volume_model("brain-mr", folds=["4", "1"], flips=True).identity
    assert [key for key in several if "sha256_" in key] == ["weights_sha256_1", "weights_sha256_4"]
    assert several["flips"] == "true"
    with pytest.raises(ModelError, match=r"fold '5' must be a fold of model brain-mr. Its folds: 0, 1, 2, 3, 4"):
        find_volume_model("brain-mr", folds=["5"])


def test_larger_volumes_cost_more() -> None:
    small = HdBet.cost((100, 100, 100), (1, 1, 1), 1e6)
    large = HdBet.cost((400, 400, 400), (1, 1, 1), 1e6)
    assert small.memory < 2**30 < large.memory
    assert small.work == 128**3
