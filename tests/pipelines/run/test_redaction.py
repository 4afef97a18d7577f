"""A patient's name in tags, file names and folder names appears in no output of any command.

The control shows the same run with names shown, in which it does.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from limner.pipelines.run.redaction import Redactor
from limner.pipelines.run.reporting import read_record
from limner.readers.errors import ReadError

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
NAME = "CANARYBIRD"
PRIVATE = {"pseudonym.key", "sources.json"}


@pytest.fixture
def ward(tmp_path: Path, making: ModuleType, make_slide: Callable[..., Path]) -> Path:
    """A folder of a slide, a study and what cannot be read, all of it called after the patient."""
    folder = tmp_path / f"{NAME}^JOHN"
    texts = {"PatientName": f"{NAME}^JOHN", "PatientID": NAME, "StudyDescription": NAME, "SeriesDescription": NAME}
    images = making.slices(4, **texts, InstitutionName=NAME, ProtocolName=NAME)
    for k, data in enumerate(images):
        making.save(data, folder / "study" / f"{NAME}_{k}.dcm")
    whole = (folder / "study" / f"{NAME}_0.dcm").read_bytes()
    (folder / "study" / f"{NAME}_cut.dcm").write_bytes(whole[:-60])
    (folder / "study" / f"{NAME}.zip").write_bytes(making.archive({f"{NAME}/{NAME}.dcm": whole, f"{NAME}.txt": b"?"}))
    (folder / "slides").mkdir()
    make_slide(folder / "slides" / f"{NAME}_A1.tif", description=f"{NAME} barcode")
    broken = make_slide(folder / "slides" / f"{NAME}_torn.tif")
    broken.write_bytes(broken.read_bytes()[:-2500])
    (folder / f"{NAME}_letter.txt").write_text(f"Dear {NAME}")
    assert NAME.encode() in whole
    return folder


def all_output(ward: Path, out: Path, limner: Limner, model: str, *further: object) -> str:
    """All that the commands print and write on that folder, as one text."""
    told: list[str] = []
    inputs = [ward / "study", ward / "slides", ward / f"{NAME}_letter.txt", ward / "study" / f"{NAME}_gone.dcm"]
    words = ("--model", model, *further)
    for command in (("info", *inputs, *further), ("plan", *inputs, *words), ("run", *inputs, *words, "--out", out)):
        output = limner(*command)
        assert output.code in {0, 1}, output.err
        told += [output.out, output.err]
    record = read_record(out)
    assert len(record.images) >= 2
    assert any(image.findings() for image in record.images)
    next(ward.glob("slides/*_A1.tif")).rename(ward / "slides" / "moved.tif")
    output = limner("report", out)
    told += [output.out, output.err]
    (ward / "slides" / "moved.tif").rename(ward / "slides" / f"{NAME}_A1.tif")
    for again in (("--hd-num", 4), ("--crs", "EPSG:32633"), ("--resolution", "10m"), ("--area", ward / "area.geojson")):
        output = limner("run", *inputs, *words, *again, "--out", out)
        assert output.code != 70
        told += [output.out, output.err]
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in PRIVATE:
            told.append(f"{path.name}\n{path.read_bytes().decode('latin-1')}")
    return "\n".join(told)


@pytest.mark.slow
def test_no_output_contains_the_patient_name(tmp_path: Path, ward: Path, per_tile: str, limner: Limner) -> None:
    told = all_output(ward, tmp_path / "out", limner, per_tile)
    where = [told[max(0, at - 200) : at + 60] for at in range(len(told)) if told.startswith(NAME, at)]
    assert not where, where[0]
    with (tmp_path / "out" / "files.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["status"] for row in rows} == {"read", "skipped", "failed"}
    assert len(rows) >= 10


@pytest.mark.slow
def test_the_name_is_found_where_names_are_shown(tmp_path: Path, ward: Path, per_tile: str, limner: Limner) -> None:
    told = all_output(ward, tmp_path / "out", limner, per_tile, "--set", "names=show")
    assert told.count(NAME) > 20
    assert not any((tmp_path / "out" / name).exists() for name in PRIVATE)


@pytest.mark.slow
def test_sources_are_private_and_restore_the_paths(tmp_path: Path, ward: Path, per_tile: str, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", ward / "study", "--model", per_tile, "--out", out).code in {0, 1}
    for name in PRIVATE:
        assert (out / name).stat().st_mode & 0o777 == 0o600
    assert NAME in (out / "sources.json").read_text()
    assert all(image.overview() is not None for image in read_record(out).images)
    (out / "sources.json").unlink()
    assert all(image.overview() is None for image in read_record(out).images)


@pytest.mark.slow
def test_a_refused_run_leaves_the_sources_unchanged(tmp_path: Path, ward: Path, per_tile: str, limner: Limner) -> None:
    out = tmp_path / "out"
    limner("run", ward / "study", "--model", per_tile, "--out", out)
    before = {name: (out / name).read_bytes() for name in PRIVATE}
    assert limner("run", ward / "slides", "--model", per_tile, "--out", out).code == 2
    assert {name: (out / name).read_bytes() for name in PRIVATE} == before


@pytest.mark.slow
def test_paths_of_maps_are_not_redacted(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert str(scene) in (tmp_path / "out" / "manifest.json").read_text()
    assert not any((tmp_path / "out" / name).exists() for name in PRIVATE)


def test_whole_names_are_replaced_and_parts_of_words_are_not() -> None:
    names = Redactor(replacements={"/data/x/DOE.svs": "file-1.svs", "DOE.svs": "file-1.svs", "case": "file-2"})
    error = names.error(
        ReadError("/data/x/DOE.svs", "must be", value="in 'DOE.svs', a case", remedy="cases in lowercase")
    )
    assert str(error) == "file-1.svs must be (found: in 'file-1.svs', a file-2). cases in lowercase."
    assert type(error) is ReadError
