"""The page of a study: what it says, what it shows, and that hostile texts stay texts."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from limner.model.finding import Finding
from limner.readers.geometry import Box
from limner.reports.html.study import StudyHtml, StudyHtmlOptions
from limner.reports.writer import DISCLAIMER, Area, FileRow, ImageRecord, Record, UnanalysedRegion

Make = Callable[..., Any]
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)> \"q' & \u202e\u200b שלום 😀 " + "x" * 10_000


def box(plane: int = 0, x: float = 20, side: float = 10, **more: Any) -> Finding:
    return Finding(more.pop("label", "nodule"), shapely.box(x, 30, x + side, 30 + side), "box", plane=plane, **more)


def written(record: Record, folder: Path, **options: int) -> str:
    (path,) = StudyHtml(StudyHtmlOptions(**options)).write(record, folder)
    assert path.name == "study-2.25.1.html"
    return path.read_text(encoding="utf-8")


def test_a_page_is_one_file_that_runs_nothing_and_asks_nobody(
    tmp_path: Path, stack: Make, study: Make, page: Make
) -> None:
    html = written(study(stack([box(1, score=0.5), box(3, label="cyst")])), tmp_path)
    found = page(html)
    policy = next(one for one in found.attributes("meta") if one.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert policy["content"] == allowed
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in found.elements}
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"style", "srcset", "action"})
    assert not re.search(r"url\(|@import|https?:|file:|//", style[1])
    assert {one["src"][:5] for one in found.attributes("img")} == {"data:"}
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [one["href"] for one in found.attributes("a")]
    assert {link[1:] for link in links} <= set(ids)
    assert {link[:1] for link in links} == {"#"}
    described = [one["aria-labelledby"] for _, one in found.elements if "aria-labelledby" in one]
    assert set(described) <= set(ids)


def test_a_page_can_be_read_aloud_and_says_its_use_on_every_sheet(
    tmp_path: Path, stack: Make, study: Make, page: Make
) -> None:
    found = page(written(study(stack([box(1, score=0.5)])), tmp_path))
    assert found.attributes("html") == [{"lang": "en"}]
    assert len(found.attributes("h1")) == len(found.attributes("main")) == 1
    tables = found.attributes("table")
    assert len(tables) == len(found.attributes("caption")) >= 3
    assert all(one.get("scope") in {"col", "row"} for one in found.attributes("th"))
    (alt,) = [one["alt"] for one in found.attributes("img")]
    assert alt.startswith("Slice 2 of 5 of study1-ct1. Outlined: 1 nodule. Edges: left R, right L, top A, bottom P")
    assert found.text.count(DISCLAIMER) == 2, "in the header, and in the footer, which is repeated in print"


def test_hostile_texts_stay_texts(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    record = study(
        stack([box(text=HOSTILE, label=HOSTILE[:60], notes={HOSTILE[:40]: HOSTILE})], warnings=(HOSTILE,)),
        labels=("nodule", HOSTILE[:60]),
        files=(FileRow("file-1", "failed", reason=HOSTILE),),
    )
    record = replace(record, model={**record.model, "prompt": HOSTILE, "use": HOSTILE})
    found = page(written(record, tmp_path))
    assert not found.attributes("script")
    assert all("src" not in one or one["src"].startswith("data:") for _, one in found.elements)
    assert "<script>alert(1)</script>" in found.text
    assert "\u202e" not in found.html
    (cell,) = [one for row in found.rows for one in row if one.startswith("</td>") and "characters" in one][:1]
    assert len(cell) < 700
    assert cell.endswith(f"({len(HOSTILE):,} characters: all in findings.csv)")


def test_the_table_has_the_findings_with_their_place(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    one = box(2, score=0.875, text="a round one", notes={"certain": "no"}, numbers={"hu": 31.5})
    found = page(written(study(stack([one], facts={"patient_position": "HFS"})), tmp_path))
    at = next(number for number, row in enumerate(found.rows) if row[:2] == ["no.", "label"])
    heading, row = found.rows[at], found.rows[at + 1]
    uid = row.pop()
    assert heading[2:] == [
        "score",
        "size, width × height",
        "slice",
        "place (LPS), mm",
        "side",
        "the model's words",
        "hu",
        "certain",
        "finding_uid",
    ]
    assert [cell.strip() for cell in row] == [
        *("1", "nodule", "0.8750", "5.0 × 10.0 mm", "3", "12.5, 35.0, 4.0", "left", "a round one", "31.5", "no")
    ]
    assert re.fullmatch(r"2\.25\.\d+", uid)


def test_without_a_place_sizes_are_in_pixels(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    found = page(written(study(stack([box()], axes=None)), tmp_path))
    assert any("10 × 10 px" in row for row in found.rows)
    assert "The sides of the patient are not known." in found.text
    assert "no scale" in found.text


def test_uids_are_those_of_the_other_reports(tmp_path: Path, stack: Make, study: Make) -> None:
    from limner.reports.columns import FindingsCsv

    record = study(stack([box(1), box(1), box(2)]))
    FindingsCsv().write(record, tmp_path)
    html = written(record, tmp_path)
    uids = re.findall(r"2\.25\.\d{30,}", (tmp_path / "findings.csv").read_text(encoding="utf-8"))
    assert len(set(uids)) == 3
    assert all(uid in html for uid in uids)


def test_no_finding_and_not_assessed_are_different(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    found = page(written(study(stack()), tmp_path))
    assert "No finding was made." in found.text
    assert "Complete. All that was planned was analysed." in found.text
    assert len(found.pictures) == 1, "the middle slice, to recognise the stack"
    found = page(written(study(stack(areas=(Area("skipped", "not run yet", 8000.0, None, 1),))), tmp_path))
    assert "No finding was made in what was analysed, which is not all." in found.text
    found = page(written(replace(study(stack()), assessed=False), tmp_path))
    assert "Not assessed: no model was chosen." in found.text
    assert "No finding was made" not in found.text
    assert "toy" not in found.text


def test_what_was_not_assessed_is_listed(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    whole, part = Box(0, 0, 100, 80), Box(0, 0, 50, 80)
    left = [UnanalysedRegion(whole, "skipped", "not chosen with --slices", plane) for plane in (0, 1, 2, 4)]
    left.append(UnanalysedRegion(part, "unreadable", "the data end early", 3))
    files = [FileRow(f"file-{k}", "skipped", reason="not an image: report") for k in range(7)]
    record = study(
        stack(unanalysed=tuple(left), warnings=("Doubtful.",), forced="a chest"),
        files=(*files, FileRow("file-9", "failed", reason="it is cut short")),
    )
    found = page(written(record, tmp_path))
    assert ["study1-ct1", "skipped", "4", "1-3, 5", "not chosen with --slices"] in found.rows
    assert ["study1-ct1", "unreadable", "1", "4", "the data end early"] in found.rows
    assert ["failed", "1", "it is cut short", "file-9"] in found.rows
    assert ["skipped", "7", "not an image: report", "file-0, file-1, file-2, file-3, file-4, …"] in found.rows
    assert "study1-ct1: Doubtful." in found.text.replace(" :", ":")
    assert "Outside the domain of the model, and forced: a chest." in found.text


def test_rows_and_pictures_are_bounded_and_the_rest_is_named(
    tmp_path: Path, stack: Make, study: Make, page: Make
) -> None:
    findings = [box(k % 20, score=k / 100) for k in range(100)]
    found = page(written(study(stack(findings, planes=20)), tmp_path, pictures=3, findings=30))
    assert "3 of 20 slices with findings are shown" in found.text
    assert "30 of 100 are listed" in found.text
    assert "70 more are in findings.csv" in found.text
    numbers = [int(row[0]) for row in found.rows if row and row[0].isdigit()]
    assert numbers == sorted(numbers)
    assert {18, 19, 20, 38, 58, 98, 99, 100} <= set(numbers), "those on the pictures, and those with the highest scores"
    assert len(found.pictures) == 3
    assert page(written(study(stack(findings, planes=20)), tmp_path, pictures=0)).pictures == []


def test_stacks_share_the_pictures(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    many = stack([box(k) for k in range(9)], planes=9)
    found = page(
        written(study(many, stack([box()], name="study1-ct2"), stack(name="study1-ct3")), tmp_path, pictures=6)
    )
    titles = [one["alt"].partition(".")[0] for one in found.attributes("img")]
    assert [title.rpartition(" ")[2] for title in titles] == ["study1-ct1"] * 4 + ["study1-ct2", "study1-ct3"]


def test_a_study_that_is_gone_has_a_page_without_pictures(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    gone = stack([box()], slice_pictures=lambda planes, _: iter([None] * len(planes)))
    found = page(written(study(gone), tmp_path))
    assert found.pictures == []
    assert "The image is gone, has changed since the run, or cannot be rendered." in found.text
    assert any("nodule" in " ".join(row) for row in found.rows)


def test_pixels_with_identifying_text_are_not_shown(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    found = page(written(study(stack([box()], facts={"burned_in_risk": "yes"})), tmp_path))
    assert found.pictures == []
    assert "identifying text is burned into its pixels" in found.text
    found = page(written(study(stack([box()], facts={"burned_in_risk": "high"})), tmp_path))
    assert len(found.pictures) == 1
    assert "may be burned into its pixels: look before you pass it on." in found.text


def test_outlines_of_a_volume_are_on_its_largest_slices(tmp_path: Path, stack: Make, study: Make, page: Make) -> None:
    maps = [np.zeros((80, 100), np.uint8) for _ in range(9)]
    outlines = []
    for plane, side in enumerate((0, 2, 6, 10, 20, 14, 9, 5, 0)):
        maps[plane][30 : 30 + side, 20 : 20 + side] = 1
        outlines += [Finding("nodule", shapely.box(20, 30, 20 + side, 30 + side), "area", plane=plane)] if side else []
    found = page(written(study(stack(outlines, planes=9, label_maps=lambda: iter(maps))), tmp_path))
    assert [one["alt"][:11] for one in found.attributes("img")] == ["Slice 3 of ", "Slice 5 of ", "Slice 6 of "]
    structures = next(row for row in found.rows if row[0].strip() == "nodule")
    assert structures[2] == f"{sum((m > 0).sum() for m in maps) * 0.5 * 2.0 / 1000:.3f}"
    assert "3 of 7 are listed: the outlines on the pictures" in found.text


def test_only_studies_have_pages(tmp_path: Path, stack: Make, study: Make) -> None:
    one: ImageRecord = stack()
    slide = replace(one, info=replace(one.info, kind="slide", id="slide-1", study=""))
    assert StudyHtml().omitted(study(one, slide)) == {"slide-1": "it belongs to no study"}
    assert StudyHtml().omitted(study(slide)) == {}
    assert not StudyHtml().write(study(slide), tmp_path)
