"""The functions of `limner`: opened images, runs and their data frames, arrays in memory."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import limner
import numpy as np
import numpy.typing as npt
import pytest
from limner.pipelines.describe import html_table
from limner.readers.errors import ReadError, RequestError

Limner = Callable[..., Any]  # returns `code`, `out`, `err`


def test_an_opened_image_has_metadata_and_pixels(scene: Path) -> None:
    with limner.open(scene) as image:
        pixels, valid = image.read((30, 30, 60, 50))
        assert pixels.shape == (20, 30, 1)
        assert not valid[:10, :10].any()
        assert valid[10:, 10:].all()
        half, _ = image.read((40, 40, 80, 60), size=(20, 10))
        assert half.shape == (10, 20, 1)
        assert np.asarray(image.overview(75)).shape == (55, 75, 3)
        assert "10 m on the ground" in repr(image)
        assert "EPSG:32633" in image._repr_html_()
        assert 'src="data:image/png;base64,' in image._repr_html_()
    with pytest.raises(RequestError, match=r"limner\.open"):
        image.read()


def test_html_is_escaped() -> None:
    made = html_table([("<script>", "a & b\x1b")], title="<b>")
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert "a &amp; b\\x1b" in made
    assert "<b>&lt;b&gt;</b>" in made
    assert not re.search(r'(?:src|href)="(?!data:)', made)


@pytest.mark.slow
def test_a_path_with_several_images_needs_an_id(scene: Path, make_scene: Callable[..., Path]) -> None:
    make_scene(scene.parent / "other.tif")
    with pytest.raises(RequestError, match=r"limner\.open\(path, image='other'\)") as error:
        limner.open(scene.parent)
    assert "Images: other, scene" in str(error.value)
    assert limner.open(scene.parent, image="scene").info.id == "scene"
    (scene.parent / "letter.txt").write_text("Dear Sir")
    with pytest.raises(ReadError, match="must hold a readable image"):
        limner.open(scene.parent / "letter.txt")
    rows = limner.scan(scene.parent)
    assert {Path(row.path).name: row.status for row in rows} == {
        "letter.txt": "skipped",
        "other.tif": "read",
        "scene.tif": "read",
    }
    assert "letter.txt: skipped. no installed reader" in repr(rows)


@pytest.mark.slow
def test_a_run_has_data_frames_and_is_opened_again(
    scene: Path, card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = repr(limner.plan(scene, model=card, hd_num=4))
    assert "2 × 2 tiles of 32 px" in words
    run = limner.run(scene, model=card, hd_num=4, out=tmp_path / "out", reports=["findings-csv"])
    assert capsys.readouterr() == ("", "")  # neither a terminal nor a notebook
    assert (run.exit_code, run.complete, run.failures) == (0, True, ())
    assert [path.name for path in run.paths] == ["findings.csv"]
    assert run.findings.crs.to_epsg() == 32633
    assert run.findings["area_m2"].dtype == float
    assert set(run.findings["label"]) == {"bright", "ridge"}
    assert [*run.summary["image"]] == [*run.images["id"]] == ["scene"]
    assert [*run.files["status"]] == ["read"]
    assert run.show().width > 1000
    assert "bright" in repr(run)
    assert "data:image/png" in run._repr_html_()
    again = limner.Run.open(tmp_path / "out")
    assert again.exit_code == 0
    assert again.findings.equals(run.findings)
    with pytest.raises(RequestError, match="'scene'"):
        again.show("other")


@pytest.mark.slow
def test_an_array_gives_the_results_of_its_file(scene: Path, card: Path, tmp_path: Path) -> None:
    run = limner.run(scene, model=card, out=tmp_path / "out")
    with limner.open(scene) as image:
        pixels, valid = image.read()
    masked = np.ma.masked_array(pixels[..., 0], ~valid)
    place = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    held = limner.annotate(masked, model=card, transform=place, crs="EPSG:32633", bands=["red"])
    assert held.folder is None
    assert held.exit_code == 0
    assert held.findings.crs == run.findings.crs
    columns = ["label", "area_m2", "x0_px", "y1_px", "lon", "lat"]
    assert held.findings[columns].equals(run.findings[columns])
    assert held.findings.geometry.equals(run.findings.geometry)
    assert held.show().size == run.show().size


def test_an_xarray_is_georeferenced(scene: Path, card: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="only whoever has xarray gives its arrays")
    with limner.open(scene) as image:
        pixels, _ = image.read()
    array = xarray.DataArray(
        pixels.transpose(2, 0, 1),
        dims=("band", "y", "x"),
        coords={
            "band": ["red"],
            "x": 500005.0 + 10 * np.arange(150),
            "y": 5199995.0 - 10 * np.arange(110),
            "spatial_ref": xarray.DataArray(0, attrs={"crs_wkt": "EPSG:32633"}),
        },
        attrs={"_FillValue": 0},
    )
    run = limner.annotate(array, model=card)
    assert [*run.images["crs"]] == ["EPSG:32633"]
    bounds = run.findings.total_bounds
    assert (bounds[0] >= 500000, bounds[3] <= 5200000) == (True, True)
    assert [*run.summary["image"]] == [*run.summary["name"]] == ["array"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "settings", "words"),
    [
        (np.zeros((3, 4, 5, 6)), {}, "Put channels last"),
        (np.zeros((4, 4), dtype=complex), {}, "numbers"),
        (np.zeros((0, 4)), {}, r"\(0, 4\)"),
        (np.zeros((40, 40, 3), dtype=np.uint8), {"microns_per_pixel": 0}, "positive"),
        (np.zeros((40, 40, 5)), {"bands": "red"}, "5 channels"),
    ],
    ids=["axes", "complex", "empty", "spacing", "bands"],
)
def test_invalid_arrays_are_refused(array: npt.NDArray[Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises((RequestError, ReadError), match=words):
        limner.annotate(array, model="none", **settings)


@pytest.mark.slow
def test_a_slide_in_memory_is_measured_in_micrometres() -> None:
    run = limner.annotate(np.full((64, 64, 3), 200, dtype=np.uint8), model="none", microns_per_pixel=0.5)
    assert [*run.images["kind"]] == ["slide"]
    assert [*run.images["microns_per_pixel"]] == [[0.5, 0.5]]
    assert "1024 µm²" in repr(run)


@pytest.mark.slow
def test_info_as_json_holds_a_whitelist_and_no_path_of_a_slide(
    limner: Limner, make_slide: Callable[..., Path], scene: Path, tmp_path: Path
) -> None:
    path = make_slide(tmp_path / "Doe-John.tif", side=256)
    output = limner("info", path, scene, "--json")
    assert output.code == 0
    assert "Doe" not in output.out
    slide, one = json.loads(output.out)["images"]
    assert (slide["kind"], slide["microns_per_pixel"], slide["levels"]) == ("slide", [0.5, 0.5], 2)
    assert (one["kind"], one["crs"], one["width_px"]) == ("map", "EPSG:32633", 150)
    assert {row["status"] for row in json.loads(output.out)["files"]} == {"read"}
    assert "Doe-John" in limner("info", path, "--json", "--names", "show").out
    words = limner("info", path).out
    assert "0.5 µm/px" in words
    assert "on the ground" not in words


@pytest.mark.slow
def test_info_of_a_study(limner: Limner) -> None:
    from pydicom.examples import get_path

    output = limner("info", get_path("ct"))
    for words in ("modality  ", "CT", "1 of 128 × 128 px", "0.6615 mm (pixel_spacing)", "HU"):
        assert words in output.out
    assert "on the ground" not in output.out
    [study] = json.loads(limner("info", get_path("ct"), "--json").out)["images"]
    assert (study["modality"], study["slices"]) == ("CT", 1)
    assert study["pixel_mm"] == pytest.approx([0.661468, 0.661468])


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["", "run", "plan", "info", "models", "train", "train probe", "report"])
def test_help_is_complete_at_any_width(
    limner: Limner, monkeypatch: pytest.MonkeyPatch, command: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    output = limner(*command.split(), "-h")
    assert output.code == 0
    assert "..." not in output.out.replace("[ARGS]...", "").replace("[INPUTS]...", "")
    assert max(map(len, output.out.splitlines())) <= width
    assert output.out == limner(*command.split(), "--help").out


def test_help_lists_the_values_of_settings(limner: Limner) -> None:
    words = " ".join(limner("run", "-h").out.split())
    for value in ("sentinel2-l1c", "geopackage", "landsat-8-l2", "csmask-cloud", "zero-shot:", "describe|classify"):
        assert value in words


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("limner run --preset path", ["pathology"]),
        ("limner run --reports geojson,qu", ["geojson,qupath", "geojson,qupath-gz"]),
        ("limner plan --sensor naip", ["naip-4"]),
        ("limner models show gl", ["gland"]),
        ("limner ru", ["run"]),
    ],
)
def test_a_shell_completes_values(
    limner: Limner, monkeypatch: pytest.MonkeyPatch, typed: str, completed: list[str]
) -> None:
    monkeypatch.setenv("_LIMNER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert limner().out.split() == completed
