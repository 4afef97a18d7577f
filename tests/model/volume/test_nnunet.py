"""nnU-Net v2 folders: what they say of a volume, on the slices' own pixels, and what is refused."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.probabilities import STEPS, LabelProbabilities
from limner.model.volume.models import find_volume_folder
from limner.model.volume.options import FolderOptions
from limner.model.volume.volume import Volume
from limner.readers.errors import ModelError

Make = Callable[..., Any]
Blobs = npt.NDArray[np.float32]
THRESHOLD = 100.0


def segment(path: Path, volume: Volume, **options: Any) -> npt.NDArray[np.uint8]:
    """The labels of a volume, after a look at the probabilities: that of a voxel's label is the highest."""
    model: Any = find_volume_folder(str(path), FolderOptions(**options))
    model.check()
    room = LabelProbabilities(
        {number: number - 1 for number in range(1, len(model.labels) + 1)},
        np.zeros((len(model.labels), *volume.shape), np.uint8),
    )
    labels = np.stack(list(model.segment(replace(volume, probabilities=room))))
    np.testing.assert_array_equal(labels, np.stack(list(model.segment(volume))))
    none = STEPS - room.values.sum(axis=0, dtype=np.int64, keepdims=True)
    if model.config.labels.regions:
        none[:] = STEPS // 2
        room.values[room.values > STEPS // 2] = STEPS  # regions hold together
    shares = np.concatenate([none, room.values])
    chosen = np.take_along_axis(shares, labels[None].astype(np.intp), axis=0)[0]
    assert (chosen >= shares.max(axis=0) - len(shares)).all()
    return labels


@pytest.mark.parametrize("axes", ["SPL", "IPL", "SAR", "PSL", "RSA"])
@pytest.mark.parametrize("transpose", [[0, 1, 2], [1, 2, 0]])
def test_labels_lie_on_the_voxels_that_they_are_of(
    axes: str, transpose: list[int], tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs
) -> None:
    def change(plans: Any, _dataset: Any, checkpoint: Any) -> None:
        for one in (plans, checkpoint["init_args"]["plans"]):
            one["transpose_forward"] = transpose

    path = make_nnunet(tmp_path / "model", change)
    found = segment(path, make_volume(blobs, axes=axes))
    np.testing.assert_array_equal(found, blobs > THRESHOLD)
    assert found.any()


def test_probabilities_are_the_softmax_of_the_logits(tmp_path: Path, make_nnunet: Make, make_volume: Make) -> None:
    """Those of the network are 0 and how far a voxel is above the threshold."""
    values = np.random.default_rng(6).integers(95, 106, (6, 9, 8)).astype(np.float32)
    model: Any = find_volume_folder(str(make_nnunet(tmp_path / "model")), FolderOptions())
    room = LabelProbabilities({1: 0}, np.zeros((1, *values.shape), np.uint8))
    list(model.segment(replace(make_volume(values), probabilities=room)))
    assert np.abs(room.values[0] / STEPS - 1 / (1 + np.exp(THRESHOLD - values))).max() < 0.5 / STEPS + 1e-3


@pytest.mark.parametrize(("reader", "expected"), [("SimpleITKIO", "downwards"), ("NibabelIOWithReorient", "RAS")])
def test_the_network_sees_the_axes_of_its_training(
    reader: str, expected: str, tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs
) -> None:
    """A kernel that looks one voxel ahead along each axis tells the directions apart."""

    def change(plans: Any, _dataset: Any, checkpoint: Any) -> None:
        for one in (plans, checkpoint["init_args"]["plans"]):
            one["image_reader_writer"] = reader
        kernel = checkpoint["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"]
        kernel.zero_()
        kernel[0, 0, 2, 1, 2] = 1

    padded = np.pad(blobs, 2)[:, :, :].astype(np.float32)
    padded[padded == 0] = 1  # so that nothing is cropped
    found = segment(make_nnunet(tmp_path / "model", change), make_volume(padded, axes="IPL"))
    ahead = {"downwards": (1, 0, -1), "RAS": (1, 0, 1)}[expected]
    wanted = np.roll(padded, ahead, axis=(0, 1, 2)) > THRESHOLD
    inner = (slice(1, -1),) * 3
    assert (found != wanted)[inner].mean() < 0.002  # a patch does not see beyond its edge
    assert (found != (padded > THRESHOLD))[inner].mean() > 0.02


def test_another_spacing_is_resampled_and_back(tmp_path: Path, make_nnunet: Make, make_volume: Make) -> None:
    z, y, x = np.mgrid[0:24, 0:36, 0:30]
    ball = (z / 4 - 3) ** 2 + (y / 4 - 4) ** 2 + (x / 4 - 3) ** 2 < 6
    found = segment(make_nnunet(tmp_path / "model"), make_volume(np.where(ball, 300, -50), (0.5, 0.5, 0.5)))
    assert (found.astype(bool) & ball).sum() * 2 / (found.sum() + ball.sum()) > 0.93


def test_voxels_that_are_not_valid_are_air(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    holed = blobs.copy()
    holed[:, :3] = np.nan
    found = segment(make_nnunet(tmp_path / "model"), make_volume(holed))
    np.testing.assert_array_equal(found, np.nan_to_num(holed, nan=-1024) > THRESHOLD)


def test_a_volume_of_zeros_has_no_labels(tmp_path: Path, make_nnunet: Make, make_volume: Make) -> None:
    assert not segment(make_nnunet(tmp_path / "model"), make_volume(np.zeros((4, 9, 9)))).any()


def test_values_that_are_no_whole_numbers(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    values = blobs + np.where(np.arange(11) > 5, 0.25, 0)[:, None, None].astype(np.float32)
    found = segment(make_nnunet(tmp_path / "model"), make_volume(values))
    np.testing.assert_array_equal(found, values > THRESHOLD)


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"])
@pytest.mark.parametrize("masked", [False, True])
def test_normalisation_of_other_pictures(
    scheme: str, masked: bool, tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs
) -> None:
    def change(plans: Any, _dataset: Any, checkpoint: Any) -> None:
        for one in (plans, checkpoint["init_args"]["plans"]):
            settings = one["configurations"]["3d_fullres"]
            settings["normalization_schemes"], settings["use_mask_for_norm"] = [scheme], [masked]
        weights = checkpoint["network_weights"]
        weights["decoder.seg_layers.0.weight"][-1] = 1000
        weights["decoder.seg_layers.0.bias"][-1] = -500

    values = np.abs(blobs) + np.where(blobs != 0, 1, 0)
    values[5:7, 5:7, 5:7] = 0  # a hole that the body encloses
    found = segment(make_nnunet(tmp_path / "model", change), make_volume(values))
    inside = values[1:, :, :-1].astype(np.float64)
    scaled = values.astype(np.float64)
    if scheme == "ZScoreNormalization":  # the box of what is not zero has no other zeros than the hole
        scaled = (scaled - inside.mean()) / inside.std()
    elif scheme == "RescaleTo01Normalization":
        scaled = (scaled - inside.min()) / (inside.max() - inside.min())
    wanted = scaled > 0.5
    wanted[0] = wanted[:, :, -1] = False
    np.testing.assert_array_equal(found, wanted)


def test_regions_are_painted_in_their_order(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    def change(_plans: Any, dataset: Any, checkpoint: Any) -> None:
        dataset["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}
        dataset["regions_class_order"] = [1, 2]
        weights = checkpoint["network_weights"]
        weights["decoder.seg_layers.0.weight"][0] = 1
        weights["decoder.seg_layers.0.bias"][0] = -50

    path = make_nnunet(tmp_path / "model", change)
    assert find_volume_folder(str(path), FolderOptions()).labels == ("whole except core", "core")
    found = segment(path, make_volume(blobs))
    np.testing.assert_array_equal(found, np.where(blobs > THRESHOLD, 2, blobs > 50))


def test_folds_are_averaged(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    path = make_nnunet(tmp_path / "model", folds=("0", "1"))
    held = torch.load(path / "fold_1" / "checkpoint_final.pth", weights_only=False)
    held["network_weights"]["decoder.seg_layers.0.bias"][-1] = -50
    torch.save(held, path / "fold_1" / "checkpoint_final.pth")
    for folds, threshold in (((), 75), (("1",), 50), (("0",), 100)):
        np.testing.assert_array_equal(segment(path, make_volume(blobs), folds=folds), blobs > threshold)


def test_mirror_images_are_averaged(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    def change(_plans: Any, _dataset: Any, checkpoint: Any) -> None:
        kernel = checkpoint["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"]
        kernel.zero_()
        kernel[0, 0, 1, 1, 2] = 2  # twice the next voxel: of both images together the mean of both neighbours, doubled
        checkpoint["inference_allowed_mirroring_axes"] = (2,)

    values = np.abs(blobs) + 1
    found = segment(make_nnunet(tmp_path / "model", change), make_volume(values), flips=True)
    wanted = values[:, :, :-2] + values[:, :, 2:] > THRESHOLD
    np.testing.assert_array_equal(found[:, :, 1:-1], wanted)


def test_a_folder_of_several_configurations(tmp_path: Path, make_nnunet: Make) -> None:
    def lowres(_plans: Any, _dataset: Any, checkpoint: Any) -> None:
        checkpoint["init_args"]["configuration"] = "3d_lowres"

    make_nnunet(tmp_path / "Dataset001_Bright" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    make_nnunet(tmp_path / "Dataset001_Bright" / "nnUNetTrainer__nnUNetPlans__3d_lowres", lowres)
    for asked, found in (("", "3d_fullres"), ("3d_lowres", "3d_lowres")):
        model = find_volume_folder(str(tmp_path / "Dataset001_Bright"), FolderOptions(configuration=asked))
        assert model.identity["configuration"] == found
        model.check()


def test_what_a_model_states_of_itself(tmp_path: Path, make_nnunet: Make) -> None:
    model = find_volume_folder(str(make_nnunet(tmp_path / "model")), FolderOptions())
    assert model.labels == ("bright",)
    assert [one.modalities for one in model.domain] == [("CT",)]
    identity = model.identity
    assert identity["name"] == "nnU-Net Dataset001_Bright"
    assert len(identity["weights_sha256_fold_0"]) == 64
    small, large = (model.cost((slices, 64, 64), (1.0, 1.0, 1.0)) for slices in (40, 400))
    assert small is not None
    assert large is not None
    assert large.work > 5 * small.work
    assert large.activations < 10 * small.activations


def test_the_plans_of_older_checkpoints(tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs) -> None:
    """nnU-Net before 2.4, as of TotalSegmentator's weights, described the network by other keys."""

    def change(plans: Any, _dataset: Any, checkpoint: Any) -> None:
        settings = plans["configurations"]["3d_fullres"]
        del settings["architecture"]
        settings |= {"UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 1, "unet_max_num_features": 1}
        settings |= {"n_conv_per_stage_encoder": [1, 1], "n_conv_per_stage_decoder": [1]}
        settings |= {"conv_kernel_sizes": [[3, 3, 3]] * 2, "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]]}
        checkpoint["init_args"]["plans"] = plans
        from limner.model.volume.nnunet_plans import read_nnunet  # its network has normalisations

        del read_nnunet
        for stage in ("encoder.stages.0.0", "encoder.stages.1.0", "decoder.stages.0"):
            for name in ("weight", "bias"):
                for place in ("norm", "all_modules.1"):
                    checkpoint["network_weights"][f"{stage}.convs.0.{place}.{name}"] = torch.ones(1)
                    if stage.startswith("encoder"):
                        checkpoint["network_weights"][f"decoder.{stage}.convs.0.{place}.{name}"] = torch.ones(1)

    found = segment(make_nnunet(tmp_path / "model", change), make_volume(blobs))
    assert found.shape == blobs.shape


CONFIGURATION = ("configurations", "3d_fullres")


def planned(*keys: str, value: Any) -> Callable[..., None]:
    def change(plans: Any, _dataset: Any, _checkpoint: Any) -> None:
        part = plans
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


def described(**values: Any) -> Callable[..., None]:
    return lambda _plans, dataset, _checkpoint: dataset.update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (planned("configurations", value=None), "must be a model of nnU-Net v2"),
        (planned(*CONFIGURATION, "normalization_schemes", value=["RGBTo01Normalization"]), "RGBTo01Normalization"),
        (planned(*CONFIGURATION, "resampling_fn_data", value="resample_torch_fornnunet"), "resample_torch_fornnunet"),
        (planned(*CONFIGURATION, "preprocessor_name", value="MyPreprocessor"), "MyPreprocessor"),
        (planned(*CONFIGURATION, "patch_size", value=[8, 8, 0]), "patch_size"),
        (planned(*CONFIGURATION, "patch_size", value=[1024, 1024, 1024]), "patch_size .* at most"),
        (planned(*CONFIGURATION, "spacing", value=[1, 1, -1]), "spacing .* must be three numbers"),
        (planned(*CONFIGURATION, "architecture", "network_class_name", value="arch.primus.Primus"), "Primus"),
        (planned(*CONFIGURATION, "architecture", "arch_kwargs", "strides", value=[[1, 1, 1]]), "strides"),
        (planned(*CONFIGURATION, "architecture", "arch_kwargs", "n_stages", value=10**9), "n_stages .* from 2 to"),
        (planned(*CONFIGURATION, "architecture", "arch_kwargs", "n_stages", value=1), "n_stages .* from 2 to"),
        (planned(*CONFIGURATION, "architecture", "arch_kwargs", "squeeze", value=True), "squeeze"),
        (planned(*CONFIGURATION, "architecture", "arch_kwargs", "nonlin", value="torch.nn.GELU"), "nonlin"),
        (planned(*CONFIGURATION, "inherits_from", value="3d_lowres"), "without a circle"),
        (planned("transpose_forward", value=[0, 0, 1]), "transpose_forward"),
        (planned("image_reader_writer", value="Tiff3DIO"), "Tiff3DIO"),
        (described(overwrite_image_reader_writer="SimpleITKIO"), "NibabelIOWithReorient in .*, SimpleITKIO in"),
        (described(channel_names={"0": "T1", "1": "FLAIR"}), "must have one channel.* 2: T1, FLAIR"),
        (described(labels={"0": "background", "1": "bright"}), "before its number"),
        (described(labels={"background": 0, "bright": 2}), "without a gap"),
        (described(labels={"background": 0, "a": [1, 2], "b": 2}), "regions_class_order"),
    ],
)
def test_folders_that_are_refused(change: Callable[..., None], message: str, tmp_path: Path, make_nnunet: Make) -> None:
    path = make_nnunet(tmp_path / "model", change)
    with pytest.raises(ModelError, match=message):
        find_volume_folder(str(path), FolderOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"configuration": "2d"}, "must be a network of volumes"),
        ({"configuration": "3d_cascade_fullres"}, "must not be a cascade"),
        ({"configuration": "3d_fulres"}, "Did you mean '3d_fullres'"),
        ({"folds": ("4",)}, "must have fold_4/checkpoint_final.pth .*folds 0"),
    ],
)
def test_options_that_are_refused(options: Any, message: str, tmp_path: Path, make_nnunet: Make) -> None:
    path = make_nnunet(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        find_volume_folder(str(path), FolderOptions(**options))


def test_other_paths_are_refused(tmp_path: Path, make_nnunet: Make) -> None:
    (tmp_path / "plans.pkl").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path, "version 1"), (tmp_path / "empty", "must be a"), (tmp_path / "none", "nothing")):
        with pytest.raises(ModelError, match=message):
            find_volume_folder(str(path), FolderOptions())
    path = make_nnunet(tmp_path / "model", folds=())
    with pytest.raises(ModelError, match=r"must have fold_\*/checkpoint_final.pth"):
        find_volume_folder(str(path), FolderOptions())


class Foreign:
    """Its pickle would run a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def trained(**values: Any) -> Callable[..., None]:
    return lambda _plans, _dataset, checkpoint: checkpoint.update(values)


def trained_with(*keys: str, value: Any) -> Callable[..., None]:
    change = planned(*keys, value=value)
    return lambda _plans, _dataset, checkpoint: change(checkpoint["init_args"], None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (trained(logging=Foreign()), "must be whole, and hold nothing but tensors .*asks for .*print"),
        (trained(network_weights=None), "must be a checkpoint of nnU-Net v2"),
        (trained(inference_allowed_mirroring_axes=(3,)), "axes from 0 to 2"),
        (trained(network_weights={}), "absent in the checkpoint"),
        (described(labels={"background": 0, "a": 1, "b": 2}), r"\(2, .* in the checkpoint, \(3, .* by the plans"),
        (trained_with("configuration", value="3d_lowres"), "3d_lowres in the checkpoint, 3d_fullres in plans.json"),
        (
            trained_with("plans", *CONFIGURATION, "spacing", value=[3.0, 1.0, 1.0]),
            r"spacing .*\[3.0, 1.0, 1.0\] in the checkpoint, \[1.0, 1.0, 1.0\] in plans.json",
        ),
        (trained_with("plans", *CONFIGURATION, "spacing", value={1: 1, "a": 2}), "plans in init_args as plain data"),
        (trained_with("plans", "image_reader_writer", value="SimpleITKIO"), "image_reader_writer of plans.json"),
    ],
)
def test_checkpoints_that_are_refused(
    change: Callable[..., None], message: str, tmp_path: Path, make_nnunet: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    model = find_volume_folder(str(make_nnunet(tmp_path / "model", change)), FolderOptions())
    with pytest.raises(ModelError, match=message):
        model.check()
    assert capsys.readouterr().out == ""


def test_scalars_of_numpy_before_version_2(tmp_path: Path, make_nnunet: Make) -> None:
    path = make_nnunet(tmp_path / "model")
    checkpoint = path / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(checkpoint) as archive:
        held = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(checkpoint, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core.multiarray" in checkpoint.read_bytes()
    find_volume_folder(str(path), FolderOptions()).check()


def test_mirroring_that_the_training_did_not_do_is_refused(tmp_path: Path, make_nnunet: Make) -> None:
    path = make_nnunet(tmp_path / "model", trained(inference_allowed_mirroring_axes=None))
    model = find_volume_folder(str(path), FolderOptions(flips=True))
    with pytest.raises(ModelError, match="must allow its patches to be mirrored"):
        model.check()


def test_weights_that_give_no_numbers_are_refused(
    tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs
) -> None:
    def change(_plans: Any, _dataset: Any, checkpoint: Any) -> None:
        checkpoint["network_weights"]["decoder.seg_layers.0.bias"].fill_(float("nan"))

    with pytest.raises(ModelError, match=r"must run on a patch .*not finite"):
        segment(make_nnunet(tmp_path / "model", change), make_volume(blobs))


def test_an_orientation_that_is_none_is_refused(
    tmp_path: Path, make_nnunet: Make, make_volume: Make, blobs: Blobs
) -> None:
    path = make_nnunet(tmp_path / "model")
    with pytest.raises(ModelError, match="must be three directions"):
        segment(path, make_volume(blobs), orientation="XYZ")
    np.testing.assert_array_equal(segment(path, make_volume(blobs), orientation="ILP"), blobs > THRESHOLD)
