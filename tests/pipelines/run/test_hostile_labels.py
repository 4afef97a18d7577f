"""Invisible characters of a model's labels and words reach no report, and writing from right to left and emoji do."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import limner
import pytest
from limner.pipelines.run_result import Run

OVERRIDE, JOINED, FAMILY = "wa\u202eter\u200b", "می\u200cخو", "👩\u200d⚕\ufe0f"
ANNOTATOR = f'''
from limner.model.annotator import Answer, InputSpec
from shapely import box

LABELS = {(OVERRIDE, JOINED, FAMILY)!a}


class Hostile:
    """Finds three boxes."""

    identity = {{"name": "hostile", "version": "1"}}
    labels = LABELS
    colours = {{LABELS[0]: "#0072b2"}}

    def input_spec(self, info):
        return InputSpec(tile=64)

    def check(self, specs):
        pass

    def load(self):
        pass

    def annotate(self, views):
        return [
            [
                Answer(label, box(10, 10 + 15 * at, 40, 20 + 15 * at), "box", 0.5, text=label, notes={{"a": label}})
                for at, label in enumerate(LABELS)
            ]
            for _ in views
        ]
'''


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    site = tmp_path / "site"
    (site / "hostile-1.dist-info").mkdir(parents=True)
    (site / "hostile_of_tests.py").write_text(ANNOTATOR)
    (site / "hostile-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    points = "[limner.annotators]\nhostile = hostile_of_tests:Hostile\n"
    (site / "hostile-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    sys.modules.pop("hostile_of_tests", None)
    return "hostile"


@pytest.mark.slow
def test_labels_and_words_are_clean_in_every_report(
    hostile: str, make_slide: Callable[..., Path], scene: Path, tmp_path: Path
) -> None:
    slide = make_slide(tmp_path / "slide.tif", side=128)
    kinds = [
        "findings-csv",
        "summary-csv",
        "geojson",
        "geopackage",
        "geoparquet",
        "qupath",
        "stac",
        "html",
        "overview-png",
    ]
    settings: dict[str, Any] = {"model": hostile, "out": tmp_path / "run", "reports": kinds, "names": "show"}
    run = limner.run([scene, slide], **settings, skip_empty=False, tissue="off")
    assert not run.failures
    assert {one.writer for one in run.reports} == set(kinds)
    for path in run.paths:
        content = path.read_bytes()
        for hidden in ("\u202e", "\u200b"):
            for form in (hidden.encode(), ascii(hidden)[1:-1].encode()):
                assert form not in content, path
    for name in ("findings.csv", "findings.geojson"):
        text = (tmp_path / "run" / name).read_text()
        assert JOINED in text
        assert FAMILY in text
    for again in (run, Run.open(tmp_path / "run")):
        assert set(again.findings["label"]) == {"wa\ufffdter\ufffd", JOINED, FAMILY}
        assert again.record.labels == ("wa\ufffdter\ufffd", JOINED, FAMILY)
        assert again.record.colours == {"wa\ufffdter\ufffd": "#0072b2"}
        labels = {one.label for image in again.record.images for one in image.findings()}
        assert labels == set(again.record.labels)
