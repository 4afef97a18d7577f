"""A run after its review: the records of writers, QGIS, QuPath and CSV."""

import csv
import json
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import limner as package
import pytest
import shapely
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable
from limner.pipelines.review.export import export_review, reviewed_record
from limner.pipelines.review.joint import JointReview, read_joint
from limner.pipelines.review.review import Review
from limner.pipelines.run.run_files import StoreError
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.reports.measures import batches
from limner.reports.writer import Record

QGIS = Path("/usr/bin/python3")
SQUARE = [[100, 20], [120, 20], [120, 40], [100, 40]]
HOSTILE = '=cmd|"<script>alert(1)</script>"'


@pytest.fixture
def joint(reviewed_run: Path, record: Record, tmp_path: Path) -> JointReview:
    """Findings 1 to 4: accepted, rejected, relabelled, in conflict; and an outline."""
    folder = tmp_path / "reviews"
    image = record.images[0].info.id
    one, two, three, four = (f"{image}/{number}" for number in (1, 2, 3, 4))
    with Review.open(reviewed_run, "anna", folder, record=record) as review:
        review.act({"action": "accept", "findings": [one, four]})
        review.act({"action": "reject", "findings": [two]})
        review.act({"action": "relabel", "findings": [three], "label": HOSTILE})
        review.act({"action": "comment", "findings": [three], "text": "wet; =1+1"})
        review.act({"action": "draw", "image": image, "plane": 0, "label": "pond", "rings": [SQUARE]})
    with Review.open(reviewed_run, "ben", folder, record=record) as review:
        review.act({"action": "reject", "findings": [four]})
    return read_joint(sorted(folder.iterdir()), record=record)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_findings_have_what_reviewers_decided(record: Record, joint: JointReview, tmp_path: Path) -> None:
    before = record.images[0].findings()
    [path, about] = export_review(record, joint, tmp_path / "out", ["csv"], rejected=False)
    found = rows(path)
    assert len(found) == len(before)  # one is rejected, one was drawn
    assert [row["run_finding"] for row in found[:4]] == ["1", "3", "4", "5"]
    assert [row["review"] for row in found[:4]] == ["accepted", "relabelled", "conflict", "not reviewed"]
    accepted, relabelled, conflict, untouched = found[:4]
    assert (accepted["label"], accepted["reviewer"]) == (before[0].label, "anna")
    assert (relabelled["label"], relabelled["model_label"]) == ("'" + HOSTILE, before[2].label)
    assert relabelled["review_comment"] == "wet; '=1+1"
    assert (conflict["label"], conflict["reviewer"], conflict["review_label"]) == (before[3].label, "anna, ben", "")
    assert (untouched["reviewer"], untouched["reviewed_at"]) == ("", "")
    drawn = found[-1]
    assert (drawn["review"], drawn["label"], drawn["run_finding"], drawn["area_px"]) == ("drawn", "pond", "", "400.00")
    assert (drawn["model_label"], drawn["score"]) == ("", "")
    assert [float(drawn[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px")] == [100, 20, 120, 40]
    assert json.loads(about.read_text())["decisions"] == {"accepted": 1, "drawn": 1, "rejected": 1, "relabelled": 1}
    marked = export_review(record, joint, tmp_path / "marked", ["csv"], rejected=True)[0]
    assert [row["review"] for row in rows(marked)[:3]] == ["accepted", "rejected", "relabelled"]


def test_what_is_not_reviewed_is_as_the_run_wrote_it(record: Record, joint: JointReview) -> None:
    reviewed = reviewed_record(record, joint, rejected=True).images[0].findings()
    for place, finding in enumerate(record.images[0].findings()):
        same = replace(reviewed[place], label=finding.label, notes=finding.notes, numbers=finding.numbers)
        assert same == finding


def test_a_finding_that_changed_is_refused(record: Record, joint: JointReview, tmp_path: Path) -> None:
    [image] = record.images
    moved = [*image.findings()]
    moved[0] = replace(moved[0], geometry=shapely.affinity.translate(moved[0].geometry, 1.0))
    other = replace(record, images=(replace(image, findings=lambda: moved),))
    with pytest.raises(StoreError, match="must be the one that was reviewed"):
        export_review(other, joint, tmp_path / "out", ["csv"], rejected=False)
    assert not (tmp_path / "out").exists()


def test_a_kind_that_suits_no_image_is_refused(record: Record, joint: JointReview, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--to qupath must suit an image"):
        export_review(record, joint, tmp_path / "out", ["csv", "qupath"], rejected=False)
    assert not (tmp_path / "out").exists()


def test_qupath_reads_measurements_and_texts(record: Record, joint: JointReview, tmp_path: Path) -> None:
    [image] = record.images
    micron = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um", source="test")
    slide = replace(image, info=replace(image.info, placement=micron, kind="slide", planes=()))
    slides = replace(record, images=(slide,))
    path = export_review(slides, joint, tmp_path / "out", ["qupath"], rejected=False)[0]
    assert path.name == f"{image.info.id}.qupath.geojson"
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    properties = features[1]["properties"]
    assert properties["classification"]["name"] == HOSTILE
    assert properties["metadata"]["review"] == "relabelled"
    assert properties["metadata"]["reviewer"] == "anna"
    assert all(
        isinstance(value, float | int) for one in features for value in one["properties"]["measurements"].values()
    )
    assert features[-1]["properties"]["metadata"]["review"] == "drawn"
    assert features[-1]["geometry"]["coordinates"][0][0] in SQUARE


def test_qgis_has_the_columns_and_a_style_for_new_labels(record: Record, joint: JointReview, tmp_path: Path) -> None:
    [path, _] = export_review(record, joint, tmp_path / "out", ["qgis"], rejected=False)
    with sqlite3.connect(path) as database:
        [(style,)] = database.execute("select styleQML from layer_styles").fetchall()
        names = [row[1] for row in database.execute('pragma table_info("scene")')]
        counts = dict(database.execute('select review, count(*) from "scene" group by review').fetchall())
    assert {"review", "review_label", "reviewer", "reviewed_at", "review_comment", "model_label"} <= {*names}
    assert ('value="pond"' in style, "<script>" in style) == (True, False)
    assert (counts["drawn"], counts["conflict"], "rejected" in counts) == (1, 1, False)


LOAD = """
import sys
from qgis.core import QgsApplication, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(sys.argv[1] + "|layername=scene", "scene", "ogr")
assert layer.isValid()
print(layer.renderer().type(), layer.renderer().classAttribute(), layer.featureCount())
print(sorted({feature["review"] for feature in layer.getFeatures()}))
"""


@pytest.mark.slow
def test_qgis_opens_it(record: Record, joint: JointReview, tmp_path: Path) -> None:
    if subprocess.run([QGIS, "-c", "import qgis.core"], capture_output=True, check=False).returncode:
        pytest.skip("the system's Python has no QGIS")
    [path, _] = export_review(record, joint, tmp_path / "out", ["qgis"], rejected=False)
    environment = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [QGIS, "-c", LOAD, path], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()[:2]
    assert first == f"categorizedSymbol label {len(record.images[0].findings())}"
    assert second == "['accepted', 'conflict', 'drawn', 'not reviewed', 'relabelled']"


def test_export_on_the_command_line(
    limner: Callable[..., Any], reviewed_run: Path, joint: JointReview, tmp_path: Path
) -> None:
    del joint  # the files of its reviewers are there
    anna, ben = (tmp_path / "reviews" / f"{name}.jsonl" for name in ("anna", "ben"))
    done = limner("review", "export", reviewed_run, "--to", "csv,qgis", "--review", anna, "--out", tmp_path / "one")
    assert done.code == 0
    assert len(rows(tmp_path / "one" / "reviewed.csv")) > 4
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"reviewed.csv", "reviewed.gpkg", "about.json"}
    assert "one: failed. a folder of results, which limner wrote" in limner("info", tmp_path / "one").out
    both = limner(
        "review", "export", reviewed_run, "--to", "csv", "--review", anna, "--review", ben, "--out", tmp_path / "both"
    )
    assert "1 finding with conflicts" in both.err
    assert limner("review", "export", reviewed_run, "--to", "csv", "--out", tmp_path / "none").code == 2
    assert limner("review", "export", reviewed_run, "--to", "shp", "--review", anna).code == 2


def test_a_run_after_its_review_from_python(
    reviewed_run: Path, record: Record, joint: JointReview, tmp_path: Path
) -> None:
    del joint  # the files of its reviewers are there
    run = package.Run.open(reviewed_run)
    files = [str(tmp_path / "reviews" / f"{name}.jsonl") for name in ("anna", "ben")]
    frame = run.reviewed(*files, prefer=["ben"]).findings
    assert set(frame["review"]) == {"accepted", "relabelled", "not reviewed", "drawn"}
    assert len(frame) == len(record.images[0].findings()) - 1  # two are rejected, one was drawn
    assert [*run.reviewed(*files, rejected=True).findings["review"]].count("conflict") == 1
    with pytest.raises(RequestError, match="must have a folder"):
        replace(run, folder=None).reviewed()


def test_many_findings_are_read_a_part_at_a_time(record: Record) -> None:
    count, most = 45_000, 0
    table = FindingsTable.of(Finding("bright", shapely.box(x, 0, x + 1, 1), "box") for x in range(count))
    [image] = record.images
    many = replace(record, images=(replace(image, findings=lambda: table),))
    nothing = JointReview(record.run, ("anna",), (), {}, {}, (), (), {})
    numbers = []
    for batch in batches(reviewed_record(many, nothing)):
        most = max(most, len(batch))
        numbers += batch.table.numbers["limner.run_finding"].tolist()
    assert (most, numbers) == (10_000, [*range(1, count + 1)])
