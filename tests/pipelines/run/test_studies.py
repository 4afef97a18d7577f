"""End-to-end runs on radiology studies."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from limner.model.annotator import InputSpec
from limner.pipelines.api import plan
from limner.pipelines.config import Settings
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run.scanning import reader_options, scan_inputs
from limner.pipelines.run.windows import with_model_window, with_visibility_note
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.voi_lut import LookupTable, VoiLut, to_grey
from limner.readers.errors import ModelError, RequestError
from limner.readers.geometry import Placement
from limner.readers.image import ImageInfo, Plane
from limner.readers.overview import MAX_MONTAGE_PLANES, Montage
from limner.readers.render import window_stretch

pytestmark = pytest.mark.slow

WIDE = {"WindowCenter": 4000, "WindowWidth": 10000}  # a window in which all of `making.slices` shows something
Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


@pytest.fixture(autouse=True)
def same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms that are the same in every run."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """Every report of a run."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix not in {".json", ".jsonl", ""}}


@pytest.mark.parametrize("hd_num", [1, 4, 9, 25])
def test_findings_name_their_slice(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner, hd_num: int
) -> None:
    folder = making.save_all(making.slices(7, **WIDE), tmp_path / "ct", order=[3, 1, 6, 0, 5, 2, 4])
    out = tmp_path / "out"
    output = limner("run", folder, "--model", per_tile, "--out", out, "--hd-num", hd_num)
    assert output.code == 0, output.err
    found = rows(out / "findings.csv")
    assert sorted(int(row["slice"]) for row in found) == list(range(1, 8))
    assert len({row["sop_uid"] for row in found}) == 7
    place = {int(row["slice"]): float(row["slice_position_mm"]) for row in found}
    assert [place[k + 1] - place[k] for k in range(1, 7)] == [2.5] * 6
    for row in found:
        assert row["instance_number"] == row["slice"], "made in the order of their places"
        assert float(row["centre_lps_z_mm"]) == 30 + 2.5 * (int(row["slice"]) - 1)
        assert row["spacing_source"] == "pixel_spacing"
    (image,) = read_record(out).images
    (summary,) = rows(out / "summary.csv")
    slice_mm2 = math.prod(float(dict(image.info.facts)[key]) for key in ("rows", "row_mm", "columns", "col_mm"))
    assert float(summary["analysed_mm2"]) == pytest.approx(7 * slice_mm2)
    assert float(summary["per_mm2.seen"]) == pytest.approx(1 / slice_mm2)
    assert [f.plane for f in image.findings()] == list(range(7))
    assert {f.geometry.bounds for f in image.findings()} == {(0.0, 0.0, 6.0, 8.0)}


def test_a_finding_keeps_its_uid_however_slices_are_cut(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(7, **WIDE), tmp_path / "ct")
    uids = []
    for hd_num in (1, 4, 25):
        out = tmp_path / str(hd_num)
        assert limner("run", folder, "--model", per_tile, "--out", out, "--hd-num", hd_num).code == 0
        uids.append({row["sop_uid"]: row["finding_uid"] for row in rows(out / "findings.csv")})
    assert uids[0] == uids[1] == uids[2]
    assert len(set(uids[0].values())) == 7


def test_engines_and_batches_give_the_same_bytes(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(9, **WIDE), tmp_path / "ct")
    made = []
    for engine, batch in (("inline", 1), ("inline", 3), ("local", 1), ("local", 3)):
        out = tmp_path / f"{engine}{batch}"
        words = ("--hd-num", 1, "--engine", engine, "--workers", 2, "--batch", batch)
        output = limner("run", folder, "--model", per_tile, "--out", out, *words)
        assert output.code == 0, output.err
        made.append(contents(out))
    assert made[0] == made[1] == made[2] == made[3]


def test_a_large_radiograph_is_analysed_at_full_resolution(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    path = making.save(making.image(making.ramp(40, 50), sop_class=making.CR), tmp_path / "cr.dcm")
    assert limner("run", path, "--model", per_tile, "--out", tmp_path / "out").code == 0
    (image,) = read_record(tmp_path / "out").images
    assert image.scale == (1.0, 1.0)
    assert len(image.findings()) == 12


def test_a_window_that_the_file_states_is_used(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    images = making.slices(4, WindowCenter=500, WindowWidth=2000)
    folder = making.save_all(images, tmp_path / "ct")
    assert limner("run", folder, "--model", per_tile, "--out", tmp_path / "out").code == 0
    (image,) = read_record(tmp_path / "out").images
    assert image.analysis["Window"].startswith("500/2000")
    stretch = json.loads((tmp_path / "out" / "manifest.json").read_text())["images"][0]["stretch"]
    assert (stretch["low"], stretch["high"]) == ([-500.0], [1499.0])  # PS3.3 C.11.2.1.2


def test_a_stretch_is_refused_for_studies(tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner) -> None:
    folder = making.save_all(making.slices(4, WindowCenter=500, WindowWidth=2000), tmp_path / "ct")
    output = limner("run", folder, "--model", per_tile, "--stretch", "0,100", "--out", tmp_path / "out")
    assert output.code == 2
    assert "rendered through a window" in output.err
    assert "reader_options.window" in output.err


@pytest.mark.parametrize("kind", ["sigmoid", "table"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_model_and_overview_use_the_files_rendering(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner, kind: str, photometric: str
) -> None:
    """The oracle: the grey pipeline on the file's own numbers."""
    pixels = making.ramp(32, 48).astype(np.uint16)
    pixels[:16, :16] = 5000
    tags: dict[str, object] = {"WindowCenter": 1500, "WindowWidth": 1200, "VOILUTFunction": "SIGMOID"}
    voi = VoiLut(1500, 1200, "SIGMOID")
    if kind == "table":
        entries = (np.linspace(0, 1, 3000) ** 3 * 1023).astype(np.uint16)
        table = making.item(LUTDescriptor=[3000, 100, 10], LUTData=entries.tobytes())
        table[0]["LUTDescriptor"].VR, table[0]["LUTData"].VR = "US", "OW"
        tags["VOILUTSequence"], voi = table, VoiLut(0, 0, "LUT", LookupTable(100.0, entries.astype(float), 10))
    data = making.image(
        pixels, sop_class=making.CR, PhotometricInterpretation=photometric, PixelPaddingValue=5000, **tags
    )
    out = tmp_path / "out"
    path = making.save(data, tmp_path / "cr.dcm")
    assert limner("run", path, "--model", per_tile, "--out", out).code == 0
    expected = to_grey(pixels.astype(float), pixels != 5000, voi, inverted=photometric == "MONOCHROME1").astype(int)
    (image,) = read_record(out).images
    assert len(image.findings()) == 5  # one of six tiles is all padding
    for finding in image.findings():
        x, y = (int(value) for value in finding.geometry.bounds[:2])
        mean = expected[y : y + 16, x : x + 16].mean() / 255
        assert finding.score == pytest.approx(mean, abs=1 / 255)
    overview = image.overview()
    assert overview is not None
    assert overview.scale == (1.0, 1.0)
    assert np.abs(overview.pixels[..., 1].astype(int) - expected).max() <= 1
    assert {"sigmoid": "1500/1200 SIGMOID", "table": "3000 entries from 100 LUT"}[kind] in image.analysis["Window"]


def test_metadata_does_not_depend_on_the_model(tmp_path: Path, making: ModuleType) -> None:
    folder = str(making.save_all(making.slices(7, **WIDE), tmp_path / "ct"))
    seen = []
    for changes in ({"hd_num": 9}, {"hd_num": 25, "overlap": 8}, {"hd_num": 1, "batch": 3, "skip_empty": False}):
        settings = Settings.resolve({"inputs": [folder], **changes})
        (*_, last) = (row.infos for row in scan_inputs(settings, reader_options(settings)) if row.infos)
        seen.append(last)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0].size == (6, 8)


def test_anisotropic_pixels_are_resampled_to_squares(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(3, PixelSpacing=[1.0, 0.5], **WIDE), tmp_path / "ct")
    assert limner("run", folder, "--model", per_tile, "--out", tmp_path / "out").code == 0
    (image,) = read_record(tmp_path / "out").images
    assert image.scale == (1.0, 0.5)  # mm between rows are twice those between columns
    assert {f.geometry.bounds for f in image.findings()} == {(0.0, 0.0, 6.0, 8.0)}
    overview = image.overview()
    assert overview is not None
    assert overview.montage is not None
    assert overview.montage.planes == (0, 1, 2)


def test_a_long_stack_shows_the_slices_with_findings() -> None:
    info = ImageInfo(
        "u",
        "dicom",
        (4, 4),
        (),
        Placement.pixels(),
        planes=tuple(Plane(Placement.pixels(), f"{k}") for k in range(200)),
    )
    assert len(Montage.of(info).planes) == MAX_MONTAGE_PLANES
    assert {3, 150} <= set(Montage.of(info, [150, 3]).planes)
    crowded = Montage.of(info, range(100, 200)).planes
    assert len(crowded) == MAX_MONTAGE_PLANES
    assert min(crowded) >= 100


def test_a_run_without_a_model_describes_the_images(tmp_path: Path, making: ModuleType, limner: Limner) -> None:
    folder = making.save_all(making.slices(5, **WIDE), tmp_path / "ct")
    out = tmp_path / "out"
    planned = limner("plan", folder, "--preset", "radiology")
    assert planned.code == 0, planned.err
    assert "No model is chosen" in planned.out
    output = limner("run", folder, "--preset", "radiology", "--out", out)
    assert output.code == 0, output.err
    assert "No model is chosen" in output.out
    assert [row["status"] for row in rows(out / "files.csv")] == ["read"] * 5
    for name in ("series.csv", "studies.csv"):
        assert [(row["status"], row["n_findings"]) for row in rows(out / name)] == [("not assessed", "")]
    assert {row["status"] for row in rows(out / "summary.csv")} == {"not assessed"}
    assert {row["findings"] for row in rows(out / "summary.csv")} == {""}
    assert rows(out / "findings.csv") == []
    (image,) = read_record(out).images
    assert {(area.status, area.reason): area.pixels for area in image.areas}["skipped", "no model"] > 0
    assert sum(area.pixels for area in image.areas) == image.info.size[0] * image.info.size[1] * 5
    assert image.unanalysed == ()
    assert image.overview() is not None
    assert (out / f"overview-{image.info.id}.png").stat().st_size > 1000
    assert not list(out.glob("*.qupath.geojson*")), "a study is no slide"


def test_every_member_of_an_archive_has_a_row(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(3, **WIDE), tmp_path / "ct")
    members = {f"in/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    packed = tmp_path / "study.zip"
    packed.write_bytes(making.archive(members | {"read me.txt": b"no"}))
    for name, given in (("file", packed), ("folder", tmp_path / "inbox")):
        if name == "folder":
            given.mkdir()
            (given / "study.zip").write_bytes(packed.read_bytes())
        out = tmp_path / f"out-{name}"
        output = limner("run", given, "--model", per_tile, "--out", out, "--set", "names=show")
        assert output.code == 0, output.err
        found = {Path(row["path"]).name: (row["status"], row["image"]) for row in rows(out / "files.csv")}
        read = ("read", "study1-ct1")
        assert found == {
            "study.zip": read,
            "000.dcm": read,
            "001.dcm": read,
            "002.dcm": read,
            "read me.txt": ("skipped", ""),
        }


def test_a_dicom_slide_among_slices_is_read_as_a_slide(
    tmp_path: Path, making: ModuleType, shared_data: Path, limner: Limner
) -> None:
    folder = making.save_all(making.slices(3, **WIDE), tmp_path / "mixed")
    slide = shared_data / "slides" / "dicom_wsi_camelyon" / "camelyon_multiframe_jpeg2000_lossless.dcm"
    (folder / "slide.dcm").write_bytes(slide.read_bytes())
    out = tmp_path / "out"
    output = limner("run", folder, "--model", "none", "--out", out)
    assert output.code == 0, output.err
    assert sorted(row["reader"] for row in rows(out / "files.csv")) == ["dicom", "dicom", "dicom", "slide"]


def test_a_slice_in_which_nothing_is_visible_is_unreadable_and_noted(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    """Values grow by 1000 a slice: the window of the first two leaves the others white, or black where inverted."""
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        shown = {"WindowCenter": 0, "WindowWidth": 1900, "PhotometricInterpretation": photometric}
        folder = making.save_all(making.slices(5, **shown), tmp_path / photometric)
        output = limner("run", folder, "--model", per_tile, "--out", tmp_path / f"out-{photometric}")
        assert output.code == 0, output.err
        assert "nothing visible in this window in 3 of 5 slices" in output.err
        (image,) = read_record(tmp_path / f"out-{photometric}").images
        assert {finding.plane for finding in image.findings()} == {0, 1}
        assert [(area.status, area.reason, area.pixels, area.regions) for area in image.areas] == [
            ("analysed", "", 96.0, 2),
            ("unreadable", "nothing visible in this window", 144.0, 3),
        ]
        assert {(one.status, one.plane) for one in image.unanalysed} == {("unreadable", k) for k in (2, 3, 4)}
        assert not image.complete
        assert not image.failures, "asking again would not help"


def test_an_image_in_which_nothing_is_visible_is_a_failure(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(2, WindowCenter=-9000, WindowWidth=10), tmp_path / "ct")
    for command in ("info", "plan"):
        more = ("--model", per_tile) if command == "plan" else ()
        output = limner(command, folder, *more)
        assert "nothing visible in this window" in output.out
    output = limner("run", folder, "--model", per_tile, "--out", tmp_path / "out")
    assert output.code == 1, output.err


def test_a_model_that_states_its_window_gets_it(tmp_path: Path, making: ModuleType) -> None:
    """In Hounsfield units alone, and not beside a window of the user's."""
    spec = InputSpec(tile=16, limits=(-160.0, 240.0))
    path = making.save(making.slices(1)[0], tmp_path / "ct.dcm")
    (info,) = scan_with(DicomReader(), str(path), {})
    assert any("choose another" in note for note in info.notes)
    used = with_model_window(info, spec, Settings.model_validate({}))
    stretch = window_stretch(used)
    assert stretch is not None
    assert (stretch.low, stretch.high, stretch.blank) == ((-160.0,), (240.0,), 0)
    assert stretch.source.startswith(
        "40/400 LINEAR_EXACT (the window of the model's training images, instead of 40/400"
    )
    assert not any("choose another" in note for note in used.notes)
    assert with_model_window(info, replace(spec, limits=None), Settings.model_validate({})) == info
    with pytest.raises(RequestError, match="model's training images"):
        with_model_window(info, spec, Settings.model_validate({"reader_options": {"window": "lung"}}))
    film = making.save(making.image(making.ramp(), sop_class=making.CR), tmp_path / "cr.dcm")
    (radiograph,) = scan_with(DicomReader(), str(film), {})
    with pytest.raises(ModelError, match="must have values in HU"):
        with_model_window(radiograph, spec, Settings.model_validate({}))


def test_an_image_that_is_all_padding_is_noted(tmp_path: Path, making: ModuleType) -> None:
    data = making.slices(1, PixelPaddingValue=-5)[0]
    data.PixelData = np.full((8, 6), -5, dtype=np.int16).tobytes()
    (info,) = scan_with(DicomReader(), str(making.save(data, tmp_path / "ct.dcm")), {})
    assert with_visibility_note(info).notes[-1] == "it has no valid pixels: all are padding"


def test_slices_that_are_not_chosen_are_skipped_regions(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder, out = making.save_all(making.slices(7, **WIDE), tmp_path / "ct"), tmp_path / "out"
    output = limner("run", folder, "--model", per_tile, "--slices", "every:3,at:32.6mm", "--out", out)
    assert output.code == 0, output.err
    assert [row["slice"] for row in rows(out / "findings.csv")] == ["1", "2", "4", "7"]
    areas = {(row["item"], row["reason"]): row["regions"] for row in rows(out / "areas.csv") if row["entry"] == "area"}
    assert areas == {("analysed", ""): "4", ("skipped", "not chosen with --slices"): "3"}
    (summary,) = rows(out / "summary.csv")
    assert summary["status"] == "complete"


def test_a_stack_without_a_chosen_slice_is_skipped_beside_one_that_has_one(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(7, **WIDE), tmp_path / "ct")
    scout = making.image(making.ramp(), number=90, SeriesInstanceUID=making.uid(9), **WIDE)
    making.save(scout, folder / "scout.dcm")
    words = ("run", folder, "--model", per_tile, "--out", tmp_path / "out", "--slices")
    output = limner(*words, "5-6")
    assert output.code == 0, output.err
    files = [row for row in rows(tmp_path / "out" / "files.csv") if row["status"] == "skipped"]
    assert len(files) == 1
    assert "--slices 5-6 chooses" in files[0]["reason"]
    refused = limner(*words, "30")
    assert refused.code == 2
    assert "7 slices at 30 to 45 mm" in refused.err


def test_slices_are_chosen_of_studies_only(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    words = ("--sensor", "sentinel-2-l1c", "--slices", 1, "--out", tmp_path / "out")
    refused = limner("run", scene, "--model", card, *words)
    assert refused.code == 2
    assert "must be a study" in refused.err


@pytest.mark.parametrize("words", [(), ("--whole",)])
def test_whole_shows_a_picture_without_a_pixel_size_in_one_view(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner, words: tuple[str, ...]
) -> None:
    """`per_tile` has tiles of 16 px."""
    path = making.save(making.image(making.ramp(40, 50), sop_class=making.CR), tmp_path / "cr.dcm")
    out = tmp_path / "out"
    assert limner("run", path, "--model", per_tile, "--hd-num", 4, *words, "--out", out).code == 0
    (image,) = read_record(out).images
    regions = sum(area.regions for area in image.areas)
    assert (regions, image.scale) == ((1, (50 / 32, 50 / 32)) if words else (4, (1.0, 1.0)))
    assert {row["sop_uid"] for row in rows(out / "findings.csv")} == {image.info.planes[0].name}
    assert max(float(row["x1_px"]) for row in rows(out / "findings.csv")) == 50


@pytest.mark.parametrize(
    ("settings", "regions", "tiles"),
    [({}, 1, (1, 1)), ({"resolution": "native"}, 4, (5, 5)), ({"whole": True}, 1, (4, 6))],
)
def test_a_model_made_with_whole_films_sees_a_film_whole(
    tmp_path: Path, making: ModuleType, settings: dict[str, Any], regions: int, tiles: tuple[int, int]
) -> None:
    film = making.image(making.ramp(300, 200), sop_class=making.CR, BodyPartExamined="CHEST", WindowCenter=15000)
    path = making.save(film, tmp_path / "cr.dcm")
    asked: dict[str, Any] = {"model": "4khd:small", "labels": ["opacity", "no opacity"], "answer": "classify"}
    (image,) = plan(path, **asked, **settings).images
    assert len(image.regions) == regions
    assert image.largest_region.tiles == tiles
    assert any("shown whole" in note for note in image.info.notes) == (not settings)


def test_a_model_and_the_overview_see_three_windows_in_colour(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    hu = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}
    folder, out = making.save_all(making.slices(3, **hu), tmp_path / "ct"), tmp_path / "out"
    asked = ("--reader-options", "window=500/4000,2000/400,400/900")
    output = limner("run", folder, "--model", per_tile, *asked, "--out", out)
    assert output.code == 0, output.err
    (series,) = rows(out / "series.csv")
    assert series["window_used"].startswith("red 500/4000 LINEAR (option window); green 2000/400")
    (image,) = read_record(out).images
    overview = image.overview()
    assert overview is not None
    red, green, blue = (overview.pixels[..., colour][overview.valid] for colour in range(3))
    assert (red != green).any()
    assert (green != blue).any()


def test_a_window_makes_colour_pictures_fail_and_not_the_study(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    folder = making.save_all(making.slices(3, **WIDE), tmp_path / "ct")
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    screen = making.image(np.zeros((8, 6, 3), np.uint8), sop_class=making.SC, number=77, **tags)
    making.save(screen, folder / "screen.dcm")
    asked = ("--reader-options", "window=4000/10000", "--out", tmp_path / "out")
    assert limner("run", folder, "--model", per_tile, *asked).code == 1
    (failed,) = [row for row in rows(tmp_path / "out" / "files.csv") if row["status"] == "failed"]
    assert "must be grey to be shown in a window (found: colours, window 4000/10000)" in failed["reason"]
    assert len(rows(tmp_path / "out" / "findings.csv")) == 3


def test_slices_csv_tells_the_stacks_of_a_series_apart_in_order(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner
) -> None:
    """Three b-values at four places, in another order of instances; a second of the clock between two files."""
    images = []
    for at, b in enumerate((1000.0, 0.0, 500.0)):
        for k, one in enumerate(making.slices(4, **WIDE)):
            number = 4 * at + k + 1
            one.SOPInstanceUID, one.InstanceNumber = making.uid(1000 + number), number
            one.SOPClassUID, one.Modality, one.DiffusionBValue = making.MR, "MR", b
            one.AcquisitionDate, one.AcquisitionTime = "20200101", f"1030{number:02}.5"
            one.PatientComments = "a text"
            images.append(one)
    out = tmp_path / "out"
    output = limner("run", making.save_all(images, tmp_path / "mr"), "--model", per_tile, "--slices", 2, "--out", out)
    assert output.code == 0, output.err
    found = rows(out / "slices.csv")
    expected = [(f"study1-mr{n}", b, f"{b} s/mm²") for n, b in enumerate(("0", "500", "1000"), 1) for _ in range(4)]
    assert [(row["image"], row["b_value_s_mm2"], row["split_value"]) for row in found] == expected
    assert {row["split_by"] for row in found} == {"b-value"}
    assert [float(row["acquisition_time_s"]) for row in found] == [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3]
    assert [row["status"] for row in found] == ["skipped", "analysed", "skipped", "skipped"] * 3
    assert [row["n_findings"] for row in found] == ["0", "1", "0", "0"] * 3
    assert {row["path"] for row in found} == {row["path"] for row in rows(out / "files.csv")}
    sops = {row["slice"]: row["sop_uid"] for row in found if row["image"] == "study1-mr1"}
    assert next(row["sop_uid"] for row in rows(out / "findings.csv")) == sops["2"]
    text = (out / "slices.csv").read_text()
    assert "20200101" not in text
    assert "1030" not in text
    assert making.ROOT not in text
