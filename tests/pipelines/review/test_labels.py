"""Reviews as labels of a probe."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from limner.model.training.tile_labels import Outline
from limner.pipelines.review.review import Review
from limner.pipelines.train.outlines import Labels
from limner.pipelines.train.reviews import add_reviews, review_files
from limner.readers.errors import RequestError
from limner.reports.writer import Record

NONE = Labels({}, 0, 0, {})
SQUARE = [[100, 20], [120, 20], [120, 40], [100, 40]]


@pytest.fixture
def reviews(reviewed_run: Path, record: Record, tmp_path: Path) -> list[tuple[Path, list[Path]]]:
    """Findings 1 to 5: accepted, rejected, relabelled, undecided, in conflict; and an outline."""
    folder = tmp_path / "reviews"
    image = record.images[0].info.id
    keys = [f"{image}/{number}" for number in range(1, 6)]
    with Review.open(reviewed_run, "anna", folder, record=record) as review:
        review.act({"action": "accept", "findings": [keys[0], keys[4]]})
        review.act({"action": "reject", "findings": [keys[1]]})
        review.act({"action": "relabel", "findings": [keys[2]], "label": "rock"})
        review.act({"action": "relabel", "findings": [keys[3]], "label": "undecided"})
        review.act({"action": "draw", "image": image, "plane": 0, "label": "pond", "rings": [SQUARE]})
    with Review.open(reviewed_run, "ben", folder, record=record) as review:
        review.act({"action": "reject", "findings": [keys[4]]})
    return [(reviewed_run, sorted(folder.iterdir()))]


def test_what_was_confirmed_is_a_label(record: Record, reviews: list[tuple[Path, list[Path]]]) -> None:
    infos, findings = [image.info for image in record.images], record.images[0].findings()
    before = {infos[0].id: (Outline("bright", shapely.box(0, 0, 9, 9), "drawn before"),)}
    labels = add_reviews(replace(NONE, outlines=before), reviews, infos)
    assert [(one.label, one.geometry) for one in labels.outlines[infos[0].id]] == [
        ("bright", shapely.box(0, 0, 9, 9)),
        ("pond", shapely.Polygon(SQUARE)),
        (findings[0].label, findings[0].geometry),
        ("rock", findings[2].geometry),
    ]
    assert {reason: count for reason, count in labels.left_out.items() if count} == {
        "rejected findings without --rejected": 1,
        "findings that reviewers left undecided": 1,
        "findings on which reviewers disagree": 1,
    }
    assert [*labels.digests] == ["review 1"]


def test_what_was_rejected_is_a_label_where_its_class_is_named(
    record: Record, reviews: list[tuple[Path, list[Path]]]
) -> None:
    labels = add_reviews(NONE, reviews, [image.info for image in record.images], rejected="neither")
    [rejected] = [one for several in labels.outlines.values() for one in several if one.label == "neither"]
    assert rejected.geometry == record.images[0].findings()[1].geometry


def test_findings_lie_on_the_image_with_the_same_content(
    record: Record, reviews: list[tuple[Path, list[Path]]]
) -> None:
    [image] = record.images
    renamed = replace(image.info, id="b", uri="b.tif")
    assert [*add_reviews(NONE, reviews, [renamed]).outlines] == ["b"]
    changed = replace(image.info, fingerprint="0" * 64)
    with pytest.raises(RequestError, match="reviewed findings on images that are not read"):
        add_reviews(NONE, reviews, [changed])


def test_reviews_are_named_by_run_and_by_reviewer(reviewed_run: Path, record: Record) -> None:
    with Review.open(reviewed_run, "zoe", record=record) as review:
        review.act({"action": "accept", "findings": [f"{record.images[0].info.id}/1"]})
    try:
        assert review_files([str(reviewed_run)]) == review_files([f"{reviewed_run}=zoe"])
        assert review_files([f"{reviewed_run}={review.path}"]) == [(reviewed_run, [review.path])]
        with pytest.raises(RequestError, match="must be a file, or a reviewer"):
            review_files([f"{reviewed_run}=zo"])
    finally:
        review.path.unlink()


@pytest.mark.slow
def test_the_loop_on_the_command_line(tmp_path: Path, limner: Callable[..., Any]) -> None:
    """Two classes of which the first labels have one wrong: the review corrects it, and the probe learns from it."""
    classes = np.kron(np.random.default_rng(3).permutation(np.arange(64) % 2).reshape(8, 8), np.ones((32, 32), int))
    noise = np.random.default_rng(4).normal(0, 10, classes.shape)
    scene = tmp_path / "scene.tif"
    profile = {"width": 256, "height": 256, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    transform = rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    with rasterio.open(scene, "w", driver="GTiff", transform=transform, **profile) as raster:
        raster.write(np.clip(80 + 80 * classes + noise, 1, 255).astype(np.uint8), 1)
    truth = {(y, x): ("dark", "light")[classes[y * 16, x * 16]] for y in range(16) for x in range(16)}
    first = [(y, x) for y, x in truth if y % 3 == 0 and x % 3 == 0]
    swapped = {"dark": "light", "light": "dark"}
    rows = [
        f"{truth[at] if n % 4 else swapped[truth[at]]},{at[1] * 16 + 8},{at[0] * 16 + 8}" for n, at in enumerate(first)
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["label,x,y", *rows]) + "\n")
    train = ("train", "probe", scene, "--tile", 16, "--folds", 3, "--features", tmp_path / "features")
    done = limner(*train, "--labels", labels, "--block", "outline", "--out", tmp_path / "probe")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    done = limner("run", scene, "--model", f"probe:{tmp_path / 'probe'}", "--out", run, "--reports", "findings-csv")
    assert done.code == 0, done.err
    with (run / "findings.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    with Review.open(run, "anna") as review:
        for row in found:
            at = round(float(row["y0_px"]) / 16), round(float(row["x0_px"]) / 16)
            action = {"action": "relabel", "findings": [f"{row['image']}/{row['finding']}"], "label": truth[at]}
            review.act(action)
    done = limner(*train, "--review", run, "--out", tmp_path / "again")
    assert done.code == 0, done.err
    card = yaml.safe_load((tmp_path / "again" / "card.yaml").read_text())
    assert {one["name"]: one["tiles"] for one in card["classes"]} == {"dark": 128, "light": 128}
    assert card["validation"]["unit"] == "block of 10 tiles"
    assert card["figures"]["accuracy"]["value"] > 0.95
    assert [*card["labels_sha256"]] == ["review 1"]
    assert "anna" not in json.dumps(card)
    assert limner(*train, "--out", tmp_path / "nothing").code == 2
