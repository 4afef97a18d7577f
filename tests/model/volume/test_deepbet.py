"""The method of deepbet with small networks of random weights: from the card to labels on the slices."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from limner.model.checkpoints.cards import find_card
from limner.model.probabilities import STEPS, LabelProbabilities
from limner.model.volume.cards import CardModel, find_volume_model
from limner.model.volume.deepbet import DeepBet, find_box
from limner.model.volume.linknet import LinkNet
from limner.model.volume.orientation import Turn
from limner.model.volume.volume import Volume
from limner.readers.errors import ModelError
from limner.readers.image import ImageInfo

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")

SIDE = 64
MakeVolume = Callable[..., Volume]
MakeInfo = Callable[..., ImageInfo]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks as TorchScript archives. The first answers with all voxels, so that the box is the volume."""
    folder = tmp_path_factory.mktemp("deepbet")
    paths: list[Path] = []
    for seed, name in enumerate(("box", "outline")):
        torch.manual_seed(seed)
        network = LinkNet(4, 2)
        if name == "box":
            assert network.tp_conv2.bias is not None
            network.tp_conv2.bias.data[1] += 100
        paths.append(folder / f"{name}.pt")
        torch.jit.trace(network.eval(), torch.rand(1, 1, SIDE, SIDE, SIDE), check_trace=False).save(paths[-1])  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    return paths


@pytest.fixture(scope="module")
def method(files: list[Path]) -> DeepBet:
    method = DeepBet(coarse=SIDE, fine=SIDE)
    method.load(files)
    return method


@pytest.fixture(scope="module")
def voxels() -> npt.NDArray[Any]:
    """Smooth random values (slices, rows, columns) on all of which a network has an opinion."""
    rng = np.random.default_rng(0)
    return np.kron(rng.random((5, 6, 7)), np.ones((5, 5, 5))).astype(np.float32)


@pytest.mark.slow
def test_labels_do_not_depend_on_the_orientation(
    method: DeepBet, voxels: npt.NDArray[Any], make_volume: MakeVolume
) -> None:
    volume = make_volume(voxels)
    expected = np.stack(list(method.segment(volume, "model test")))
    assert expected.shape == voxels.shape
    assert expected.dtype == np.uint8
    assert 0.05 < expected.mean() < 0.95
    for turn in (Turn((2, 0, 1), (True, False, True)), Turn((1, 2, 0), (False, True, False))):
        stored = turn.apply(voxels)
        moved = Volume(stored.shape, turn.affine(volume.affine, voxels.shape), lambda n, a=stored: a[n])
        room = LabelProbabilities({1: 0}, np.zeros((1, *stored.shape), np.uint8))
        found = np.stack(list(method.segment(replace(moved, probabilities=room), "model test")))
        np.testing.assert_array_equal(turn.invert(found), expected)
        over = room.values[0] > STEPS // 2
        assert over.any()
        assert (found[over] == 1).mean() > 0.8  # but for parts other than the largest


@pytest.mark.slow
def test_the_pipeline_is_that_of_its_authors(
    method: DeepBet, files: list[Path], voxels: npt.NDArray[Any], make_volume: MakeVolume
) -> None:
    """Against a few lines of torch on the archive itself: sampling, scaling, network, and the way back."""
    from limner.model.volume.masks import fill_holes, largest_component

    x = torch.from_numpy(voxels.transpose(2, 1, 0)[::-1, ::-1].copy())  # S, P, L → R, A, S
    cube = torch.nn.functional.interpolate(x[None, None], (SIDE,) * 3, mode="nearest-exact")
    low, high = cube.quantile(0.005), cube.quantile(0.995)
    scaled = ((cube - low) / (high - low)).clamp(0, 1)
    scaled = 0.226 * (scaled - scaled.mean()) / scaled.std() + 0.449
    with torch.inference_mode():
        logits = torch.jit.load(files[1])(scaled)  # pyright: ignore[reportUnknownMemberType]
    back = torch.nn.functional.interpolate(logits, x.shape, mode="nearest-exact")[0, 0] > 0
    expected = fill_holes(largest_component(back.numpy()))
    found = np.stack(list(method.segment(make_volume(voxels), "model test")))
    assert np.mean(found.transpose(2, 1, 0)[::-1, ::-1] != expected) < 1e-4


def test_the_box_has_its_margin() -> None:
    coarse = np.zeros((128, 128, 128), dtype=bool)
    coarse[32:96, 20:100, 0:50] = True
    assert find_box(coarse, (256, 128, 64)) == (slice(51, 205), slice(12, 108), slice(0, 27))
    assert find_box(np.zeros((128, 128, 128), dtype=bool), (256, 128, 64)) is None


def test_voxels_of_one_value_are_refused(make_volume: MakeVolume) -> None:
    with pytest.raises(ModelError, match=r"voxels of different values \(found: 3\)"):
        list(DeepBet(coarse=8).segment(make_volume(np.full((4, 4, 4), 3)), "model test"))


@pytest.mark.slow
def test_weights_of_another_network_are_refused(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.jit.trace(torch.nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2)).save(other)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    with pytest.raises(ModelError, match="weights of deepbet's network"):
        DeepBet().load([files[0], other])


@pytest.fixture
def card(files: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a card beside copies of the networks."""

    def write(**changes: object) -> Path:
        kinds = [("background", "#808080", True), ("brain", "#e69f00", False)]
        texts = ("annotator", "volume", "summary", "A toy.", "licence", "none", "citation", "none", "homepage", "none")
        content: dict[str, object] = {
            "name": "toy",
            **dict(zip(texts[::2], texts[1::2], strict=True)),
            "not_for": ["anything"],
            "method": "deepbet",
            "extent_mm": [80, 400],
            "classes": [{"name": name, "colour": colour, "background": empty} for name, colour, empty in kinds],
            "domain": [{"kind": "study", "modalities": ["MR"]}],
            "files": [
                {"name": path.stem, "weights": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                for path in files
            ],
        }
        for path in files:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content | changes), encoding="utf-8")
        return tmp_path / "toy.yaml"

    return write


def test_a_card_is_a_model(card: Callable[..., Path], make_info: MakeInfo) -> None:
    model = find_volume_model(str(card()))
    assert model.labels == ("brain",)
    assert model.colours == {"brain": "#e69f00"}
    assert model.identity["name"] == "toy"
    assert len(model.identity["weights_sha256_outline"]) == 64
    assert str(model.domain[0]) == "study (MR)"
    model.check()
    model.load()
    cost = model.cost((100, 100, 100), (1, 1, 1))
    assert cost is not None
    assert cost.memory > 2**29
    model.suits(make_info((90, 100, 100), (1, 1, 1), modality="MR"))
    assert isinstance(model, CardModel)


@pytest.mark.parametrize(
    ("shape", "modality", "message"),
    [
        ((90, 100, 100), "CT", r"must be of the modality MR for toy \(found: CT\)"),
        ((30, 100, 100), "MR", r"80 to 400 mm along each axis for toy \(found: 30 × 100 × 100 mm\)"),
        ((90, 100, 500), "", r"found: 90 × 100 × 500 mm"),
        ((1, 100, 100), "MR", "at least 3 slices"),
    ],
)
def test_other_stacks_are_refused(
    card: Callable[..., Path], make_info: MakeInfo, shape: tuple[int, int, int], modality: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        find_volume_model(str(card())).suits(make_info(shape, (1, 1, 1), modality=modality))


def test_changed_weights_are_refused(card: Callable[..., Path]) -> None:
    path = card()
    with (path.parent / "outline.pt").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="must have the sha256"):
        find_volume_model(str(path)).check()


def test_nothing_is_fetched_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"nothing is fetched without --fetch.*limner models fetch brain"):
        find_volume_model("brain").check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "method"),
        ({"extent_mm": [400, 80]}, "extent_mm must be ordered"),
        ({"files": []}, "files"),
        ({"flies": []}, r"known keys only \(found: flies\). Did you mean 'files'"),
        ({"files": [{"name": "a", "weights": "a", "sha256": "0" * 64}] * 2}, "two file names are the same"),
        ({"files": [{"name": "a", "weights": "a", "sha": ""}]}, "sha256"),
        ({"classes": [{"name": n, "colour": "#000000", "background": True} for n in "ab"]}, "not be background"),
        ({"annotator": "segment"}, "resolution"),
    ],
)
def test_errors_of_a_card_are_named(card: Callable[..., Path], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_volume_model(str(card(**changes)))


def test_a_card_of_another_annotator_is_refused() -> None:
    with pytest.raises(ModelError, match=r"must be a card of the annotator volume \(found: segment\).*segment:csmask"):
        find_volume_model("csmask")


def test_options_of_another_method_are_refused() -> None:
    with pytest.raises(ModelError, match="without folds and flips"):
        find_volume_model("brain", folds=["0"])
    with pytest.raises(ModelError, match="without folds and flips"):
        find_volume_model("brain", flips=True)


def test_the_segmenter_refuses_a_card_for_volumes() -> None:
    with pytest.raises(ModelError, match=r"annotator segment \(found: volume\).*--model volume:brain"):
        find_card("brain")
