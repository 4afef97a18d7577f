"""What a network normalises by is measured once for an image, travels in the plan, and makes all tilings agree."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from limner.model.checkpoints import tile_statistics
from limner.model.segmentation.annotator import Segmenter
from limner.pipelines.config import Settings
from limner.pipelines.run import picture
from limner.pipelines.run.execute import prepare, run
from limner.pipelines.run.overview_stats import OverviewStats, compute_overview_stats
from limner.pipelines.run.plan import ImagePlan
from limner.readers.errors import RequestError
from limner.readers.image import ImageInfo
from limner.readers.options import make_plugin
from limner.readers.regions import Grid
from limner.readers.registry import scan

Make = Callable[..., Path]


@pytest.fixture
def card(tmp_path: Path, make_card: Make) -> Path:
    return make_card(tmp_path, normalises=True)


def settings(scene: Path, card: Path, **changes: object) -> Settings:
    return Settings.resolve({"inputs": [str(scene)], "model": str(card), "engine": "inline", **changes}, file="")


def planned(scene: Path, card: Path, **changes: object) -> ImagePlan:
    return prepare(settings(scene, card, **changes)).plan.images[0]


def total(folder: Path) -> list[tuple[str, float]]:
    lines = (folder / "areas.csv").read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
    return [(row["item"], float(row["area_px"])) for row in rows if row["entry"] == "label"]


@pytest.mark.slow
def test_the_plan_holds_the_statistics_and_so_does_its_digest(scene: Path, card: Path) -> None:
    plan = prepare(settings(scene, card)).plan
    statistics = tile_statistics.read(plan.images[0].spec.fitted)
    assert [value.shape for value in statistics.values()] == [(1, 3, 1)] * 2
    assert ImagePlan.from_json(plan.images[0].to_json()).spec == plan.images[0].spec
    assert prepare(settings(scene, card)).plan.digest == plan.digest
    other = prepare(settings(scene, card, model_options={"normalise": "tile"})).plan
    assert other.images[0].spec.fitted == ""
    assert other.digest != plan.digest


@pytest.mark.slow
def test_regions_do_not_change_an_area(tmp_path: Path, scene: Path, card: Path) -> None:
    found: list[list[tuple[str, float]]] = []
    for name, changes in {
        "few": {"hd_num": 25},
        "many": {"hd_num": 1},
        "pool": {"engine": "local", "workers": 2},
    }.items():
        run(settings(scene, card, out=str(tmp_path / name), reports=("summary-csv",), **changes), lambda _: None)
        found.append(total(tmp_path / name))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2


@pytest.mark.slow
def test_a_run_resumes_with_the_same_statistics_and_refuses_others(tmp_path: Path, scene: Path, card: Path) -> None:
    out = tmp_path / "run"
    run(settings(scene, card, out=str(out), reports=()), lambda _: None)
    before = (out / "results.jsonl").read_bytes()
    run(settings(scene, card, out=str(out), reports=()), lambda _: None)
    assert (out / "results.jsonl").read_bytes() == before
    with pytest.raises(RequestError, match="must not hold another run"):
        run(settings(scene, card, out=str(out), model_options={"normalise": "tile"}), lambda _: None)


def stats_of(scene: Path, card: Path) -> tuple[ImageInfo, Grid, OverviewStats]:
    [row] = scan([str(scene)], {})
    segmenter = make_plugin(Segmenter, {"model": str(card)})
    spec = segmenter.input_spec(row.infos[0])
    info = row.infos[0]
    return (
        info,
        Grid(info.id, info.size, (1.0, 1.0)),
        compute_overview_stats(info, spec, settings(scene, card), segmenter),
    )


def test_a_large_image_is_sampled_in_the_same_blocks_each_time(
    scene: Path, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, grid, stats = stats_of(scene, card)
    whole, valid = picture.read_picture(info, grid, stats)
    assert whole.shape == (110, 150, 1)
    assert not valid[:40, :40].any()
    monkeypatch.setattr(picture, "_BLOCK", 10)
    found, mask = picture.read_picture(info, grid, stats, 1000)
    again, _ = picture.read_picture(info, grid, stats, 1000)
    assert found.shape == (30, 30, 1)
    assert mask.mean() > 0.8  # at most one of nine lies in the corner without data
    np.testing.assert_array_equal(found, again)
    blocks = [found[y : y + 10, x : x + 10] for y in (0, 10, 20) for x in (0, 10, 20)]
    places = {
        (x, y)
        for y in range(0, 110, 10)
        for x in range(0, 150, 10)
        for block in blocks
        if np.array_equal(whole[y : y + 10, x : x + 10], block, equal_nan=True)
    }
    assert len(places) == 9
    assert {(x >= 75, y >= 55) for x, y in places} == {(False, False), (False, True), (True, False), (True, True)}


def test_a_plan_without_the_weights_is_made_without_them(scene: Path, tmp_path: Path, make_card: Make) -> None:
    absent = make_card(tmp_path, normalises=True, weights="pypi:limner-toy==1.0#toy.onnx", sha256="0" * 64)
    prepared = prepare(settings(scene, absent), only_plan=True)
    assert prepared.unavailable
    assert prepared.plan.images[0].spec.fitted == ""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["blend", "flips"])
def test_averaged_scores_do_not_depend_on_regions(tmp_path: Path, scene: Path, card: Path, option: str) -> None:
    found: list[list[tuple[str, float]]] = []
    for name, hd_num in (("one", 25), ("some", 9)):
        changes = {"hd_num": hd_num, "model_options": {option: "true"}, "reports": ("summary-csv",)}
        result = run(settings(scene, card, out=str(tmp_path / name), **changes), lambda _: None)
        assert result.exit_code == 0
        found.append(total(tmp_path / name))
    assert found[0] == found[1]
    assert planned(scene, card, model_options={option: "true"}).overlap == (32 if option == "blend" else 0)
