"""Stacks that are annotated as a whole: findings per slice, structures in ml and mm, and label maps as NIfTI."""

import csv
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
from limner.model.domain import Domain
from limner.model.volume import annotator
from limner.model.volume.volume import LabelMap, Volume
from limner.pipelines.config import Settings
from limner.pipelines.run import execute
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run_result import Run
from limner.readers.errors import ModelError, ReadError, RequestError
from limner.readers.image import ImageInfo
from limner.reports.contract import check_writer
from limner.reports.structures import Nifti, StructuresCsv
from limner.reports.writer import DISCLAIMER

pytestmark = pytest.mark.slow

WIDE = {"WindowCenter": 4000, "WindowWidth": 10000}
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)


class Threshold:
    """Labels voxels by their value: "bright" from 2000, "brighter" from 3000."""

    labels: tuple[str, ...] = ("bright", "brighter")
    colours: Mapping[str, str] = {"bright": "#ff0000"}
    domain: Sequence[Domain] = ()
    identity: Mapping[str, str] = {"name": "threshold", "version": "1"}
    shape = (0, 0)

    def suits(self, info: ImageInfo) -> None:
        """It suits all."""

    def check(self) -> None:
        """It has no files."""

    def load(self) -> None:
        """It has no network."""

    def cost(self, shape: object, spacing: object) -> None:
        """Not known."""

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """Label slice by slice, NaN as 0."""
        for values in volume.slices():
            levels = np.nan_to_num(values)
            yield ((levels >= 2000).astype(np.uint8) + (levels >= 3000)).astype(np.uint8)


class Failing(Threshold):
    """Fails in the middle of a stack."""

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """Raise `ModelError` after one slice."""
        yield next(iter(super().segment(volume)))
        raise ModelError("the network", "must work", remedy="Repair it")


class Short(Threshold):
    """Returns too few slices."""

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """All but the last."""
        yield from list(super().segment(volume))[:-1]


class Turned(Threshold):
    """Returns slices of another shape."""

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """Rows as columns."""
        return (one.T for one in super().segment(volume))


@pytest.fixture(autouse=True)
def _same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    use(monkeypatch, Threshold())


def use(monkeypatch: pytest.MonkeyPatch, model: Threshold) -> None:
    monkeypatch.setattr(annotator, "find_model", lambda _: model)


def run(folder: Path, out: Path, **settings: Any) -> Run:
    stated = {"inputs": [str(folder)], "model": "volume:any", "out": str(out), "engine": "inline", **settings}
    return execute.run(Settings.resolve(stated), lambda _: None)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values_of(making: ModuleType, count: int) -> Any:
    """The values (slices, rows, columns) of `making.slices`."""
    return np.stack([making.ramp(add=1000 * k) for k in range(count)]).astype(np.float64) - 1024


@pytest.mark.parametrize("orientation", ["AXIAL", "SAGITTAL", "OBLIQUE"])
def test_structures_are_measured_in_the_patient(tmp_path: Path, making: ModuleType, orientation: str) -> None:
    axes = OBLIQUE if orientation == "OBLIQUE" else getattr(making, orientation)
    stack = making.slices(6, orientation=axes, PixelSpacing=[0.5, 0.75], **WIDE)
    folder = making.save_all(stack, tmp_path / "ct", order=[3, 1, 0, 5, 2, 4])
    run(folder, tmp_path / "out")
    levels = values_of(making, 6)
    truth = (levels >= 2000).astype(int) + (levels >= 3000)
    found = rows(tmp_path / "out" / "structures.csv")
    assert [(row["label"], row["value"], row["status"]) for row in found] == [
        ("bright", "1", "complete"),
        ("brighter", "2", "complete"),
    ]
    column, row_ = np.array(axes[:3]) * 0.75, np.array(axes[3:]) * 0.5
    step = np.cross(axes[:3], axes[3:]) * 2.5
    for number, row in enumerate(found, 1):
        k, j, i = np.nonzero(truth == number)
        assert float(row["volume_ml"]) == pytest.approx(len(k) * 0.5 * 0.75 * 2.5 / 1000, abs=5e-4)
        assert int(row["voxels"]) == len(k)
        assert (int(row["first_slice"]), int(row["last_slice"])) == (k.min() + 1, k.max() + 1)
        assert int(row["n_slices"]) == len(set(k))
        places = np.array([-10, -20, 30]) + np.outer(i, column) + np.outer(j, row_) + np.outer(k, step)
        assert [float(row[f"{a}_mm"]) for a in "xyz"] == pytest.approx(places.mean(axis=0), abs=1e-3)
        sides = ((np.ptp(i) + 1) * 0.75, (np.ptp(j) + 1) * 0.5, (np.ptp(k) + 1) * 2.5)
        assert [float(row[f"{a}_mm"]) for a in ("columns", "rows", "slices")] == pytest.approx(sides)
        half = (np.abs(column) + np.abs(row_) + np.abs(step)) / 2
        assert all(float(row[f"{a}0_mm"]) <= places[:, at].min() - 0.99 * half[at] + 1e-3 for at, a in enumerate("xyz"))
        assert all(float(row[f"{a}1_mm"]) >= places[:, at].max() + 0.99 * half[at] - 1e-3 for at, a in enumerate("xyz"))
    areas = defaultdict[str, float](float)
    for finding in rows(tmp_path / "out" / "findings.csv"):
        areas[finding["label"]] += float(finding["area_px"])
        assert finding["sop_uid"]
        assert finding["slice_position_mm"]
    assert areas == {label: np.count_nonzero(truth == number) for number, label in enumerate(Threshold.labels, 1)}


def test_a_label_map_is_written_as_nifti(tmp_path: Path, making: ModuleType) -> None:
    stack = making.slices(6, orientation=OBLIQUE, PixelSpacing=[0.5, 0.75], **WIDE)
    run(making.save_all(stack, tmp_path / "ct"), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("labels-*.nii.gz")
    image: Any = nibabel.load(path)
    levels = values_of(making, 6)
    truth = (levels >= 2000).astype(int) + (levels >= 3000)
    assert np.array_equal(np.asarray(image.dataobj), truth.transpose(2, 1, 0))
    for (k, j, i), data in (((0, 0, 0), stack[0]), ((5, 0, 0), stack[5]), ((2, 3, 4), stack[2])):
        place = np.array(data.ImagePositionPatient, float)
        place = place + i * 0.75 * np.array(OBLIQUE[:3]) + j * 0.5 * np.array(OBLIQUE[3:])
        assert (image.affine @ [i, j, k, 1])[:3] == pytest.approx(place * [-1, -1, 1])
    assert image.header.get_sform(coded=True)[1] == image.header.get_qform(coded=True)[1] == 1
    assert image.header.get_qform() == pytest.approx(image.affine, abs=1e-4)
    assert DISCLAIMER.encode() in image.header["descrip"].tobytes()
    about = json.loads(image.header.extensions[0].get_content())
    assert about["labels"] == {"1": "bright", "2": "brighter"}
    assert gzip.decompress(path.read_bytes())[:4] == (348).to_bytes(4, "little")


def test_padding_has_no_label(tmp_path: Path, making: ModuleType) -> None:
    bright = int(making.ramp(add=5000)[4, 3])
    stack = making.slices(6, PixelPaddingValue=bright, **WIDE)
    result = run(making.save_all(stack, tmp_path / "ct"), tmp_path / "out")
    (image,) = result.record.images
    assert image.label_maps is not None
    last = list(image.label_maps())[-1]
    assert last[4, 3] == 0
    assert np.count_nonzero(last) == last.size - 1
    (summary,) = rows(tmp_path / "out" / "summary.csv")
    assert float(summary["analysed_px"]) == 6 * 48 - 1


def test_a_run_in_memory_measures_the_same(tmp_path: Path, making: ModuleType) -> None:
    folder = making.save_all(making.slices(6, **WIDE), tmp_path / "ct")
    stored = run(folder, tmp_path / "out").record
    settings = Settings.resolve({"inputs": [str(folder)], "model": "volume:any"})
    kept = execute.run_in_memory(settings, lambda _: None).record
    for record in (stored, kept):
        assert record.images[0].label_maps is not None
    maps = [np.stack(list(record.images[0].label_maps())) for record in (stored, kept)]  # pyright: ignore[reportOptionalCall]
    assert np.array_equal(maps[0], maps[1])
    assert StructuresCsv().write(kept, tmp_path)[0].read_bytes() == (tmp_path / "out/structures.csv").read_bytes()


def test_chosen_labels_alone_are_kept(tmp_path: Path, making: ModuleType) -> None:
    folder = making.save_all(making.slices(6, **WIDE), tmp_path / "ct")
    record = run(folder, tmp_path / "out", labels=["brighter"]).record
    assert record.images[0].label_maps is not None
    assert {int(v) for one in record.images[0].label_maps() for v in np.unique(one)} == {0, 1}
    (row,) = rows(tmp_path / "out" / "structures.csv")
    assert (row["label"], row["value"]) == ("brighter", "1")


@pytest.mark.parametrize(("model", "why"), [(Failing(), "must work"), (Short(), "5"), (Turned(), r"\(6, 8\)")])
def test_a_stack_that_fails_fails_whole_and_is_tried_again(
    tmp_path: Path, making: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Threshold, why: str
) -> None:
    folder = making.save_all(making.slices(6, **WIDE), tmp_path / "ct")
    use(monkeypatch, model)
    record = run(folder, tmp_path / "out").record
    assert len(record.images[0].failures) == 6
    assert all(re.search(why, reason) for _, reason in record.images[0].failures)
    assert {row["status"] for row in rows(tmp_path / "out" / "structures.csv")} == {"partial"}
    use(monkeypatch, Threshold())
    run(folder, tmp_path / "out")
    run(folder, tmp_path / "new")
    assert (tmp_path / "out/structures.csv").read_bytes() == (tmp_path / "new/structures.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("two slices", "at least 3 slices.*2 slices"),
        ("a gap", "equal steps, none missing.*1 missing"),
        ("uneven", "equal steps, none missing.*off equal steps"),
        ("tilted", "along the normal.*sheared by 21.8°"),
        ("unplaced", "place in the patient"),
    ],
)
def test_a_stack_that_is_no_volume_is_refused(tmp_path: Path, making: ModuleType, name: str, why: str) -> None:
    stack = making.slices(6, **WIDE)
    for k, one in enumerate(stack):
        if name == "uneven" and k == 3:
            one.ImagePositionPatient[2] += 1
        if name == "tilted":
            one.ImagePositionPatient[1] += 1.0 * k
        if name == "unplaced":
            del one.ImagePositionPatient
    stack = {"two slices": stack[:2], "a gap": stack[:2] + stack[3:]}.get(name, stack)
    with pytest.raises((ModelError, ReadError), match=why):
        run(making.save_all(stack, tmp_path / "ct"), tmp_path / "out")


def test_colour_pictures_and_maps_are_no_volumes(tmp_path: Path, make_scene: Any) -> None:
    with pytest.raises((ModelError, ReadError), match=r"stack of grey slices.*a map"):
        run(make_scene(tmp_path / "scene.tif"), tmp_path / "out")


@pytest.mark.parametrize("asked", [{"resolution": "native"}, {"whole": True}, {"slices": "2-4"}])
def test_a_resolution_a_whole_view_and_a_choice_of_slices_are_refused(
    tmp_path: Path, making: ModuleType, asked: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match="must not be given for a model of volumes"):
        run(making.save_all(making.slices(6, **WIDE), tmp_path / "ct"), tmp_path / "out", **asked)


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, making: ModuleType) -> None:
    folder = making.save_all(making.slices(6, **WIDE), tmp_path / "ct")
    run(folder, tmp_path / "whole")
    run(folder, tmp_path / "cut")
    lines = (tmp_path / "cut/results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut/results.jsonl").write_bytes(b"".join(lines[:3]))
    run(folder, tmp_path / "cut")
    for name in ("structures.csv", "findings.csv", "summary.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_reference_is_compared_and_leaves_no_trace(tmp_path: Path, making: ModuleType, limner: Any) -> None:
    folder = making.save_all(making.slices(6, **WIDE), tmp_path / "ct")
    run(folder, tmp_path / "out")
    (made,) = (tmp_path / "out").glob("labels-*.nii.gz")
    mask: Any = nibabel.load(made)
    labels = np.asarray(mask.dataobj).copy()
    labels[:, :, 3] = 0
    (tmp_path / "DOE^JANE").mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, mask.affine), tmp_path / "DOE^JANE" / "mask.nii.gz")
    reference = str(tmp_path / "DOE^JANE" / "mask.nii.gz")
    run(folder, tmp_path / "compared", reference=[reference])
    found = rows(tmp_path / "compared" / "reference.csv")
    truth = np.asarray(mask.dataobj)
    for number, row in enumerate(found, 1):
        both = np.count_nonzero((truth == number) & (labels == number))
        share = 2 * both / (np.count_nonzero(truth == number) + np.count_nonzero(labels == number))
        assert float(row["dice"]) == pytest.approx(share, abs=1e-6)
    traces = [path for path in (tmp_path / "compared").rglob("*") if path.is_file() and path.name != "sources.json"]
    assert not [path.name for path in traces if b"DOE^JANE" in path.read_bytes()]
    run(folder, tmp_path / "compared")  # the same run, whatever it was compared with
    output = limner("report", tmp_path / "out", "--reports", "structures-csv", "--reference", reference)
    assert output.code == 0, output.err
    assert rows(tmp_path / "out" / "reference.csv")[0]["dice"] == found[0]["dice"]
    with pytest.raises(RequestError, match="must be a readable NIfTI"):
        run(folder, tmp_path / "third", reference=[str(tmp_path / "none.nii")])


@pytest.mark.parametrize("writer", [StructuresCsv(), Nifti()])
def test_the_writers_keep_their_contract(tmp_path: Path, making: ModuleType, writer: Any) -> None:
    run(making.save_all(making.slices(6, **WIDE), tmp_path / "ct"), tmp_path / "out")
    record = read_record(tmp_path / "out")
    check_writer(writer, record, tmp_path / "reports")
    others = replace(record.images[0], label_maps=None, info=replace(record.images[0].info, id="other"))
    assert list(writer.omitted(replace(record, images=(*record.images, others)))) == ["other"]
