"""Slides on which tools of this field fail, and what is right."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # of conftest, which tests cannot import
Made = Callable[[str], Path]
Rows = Callable[[Path], list[dict[str, str]]]
Shares = Callable[[Path], dict[str, float]]


def fails(*values: object, reason: str, raises: type[BaseException] = AssertionError) -> Any:
    """A row of a table that is wrong today."""
    return pytest.param(*values, marks=pytest.mark.xfail(strict=True, raises=raises, reason=reason))


LOOK = ("--reports", "findings-csv", "--reports", "summary-csv", "--reports", "files-csv")


@pytest.fixture
def card(tmp_path: Path, make_card: Callable[..., Path]) -> Path:
    """A network that finds what is bright in red, at 4 µm a pixel."""
    coarse = {"value": 4.0, "unit": "um"}
    return make_card(tmp_path, resolution=coarse, mean=[160.0], std=[32.0], valid_range=[0, 255])


@pytest.fixture
def fine_card(tmp_path: Path, make_card: Callable[..., Path]) -> Path:
    """A network for the slides' own 0.5 µm that finds nothing, in tiles of 128 px."""
    changes = {"mean": [10000.0], "std": [32.0], "valid_range": [0, 255], "tile": 128}
    return make_card(tmp_path, resolution={"value": 0.5, "unit": "um"}, **changes)


def test_a_slide_that_is_cut_off_is_said_to_be(tmp_path: Path, slides: Made, card: Path, limner: Limner) -> None:
    said = limner("run", slides("truncated"), "--model", card, "--out", tmp_path / "out")
    assert said.code == 3
    assert "truncated" in said.err
    assert "--crs" not in said.err


def test_the_name_of_a_slide_that_is_cut_off_is_not_told(
    tmp_path: Path, slides: Made, card: Path, limner: Limner
) -> None:
    said = limner("run", slides("truncated"), "--model", card, "--out", tmp_path / "out")
    assert "DOE" not in said.err + said.out


def test_a_label_is_in_nothing_that_is_written_or_said(
    tmp_path: Path,
    slides: Made,
    making_slides: ModuleType,
    card: Path,
    limner: Limner,
    everything: Callable[[Path], bytes],
) -> None:
    out = tmp_path / "out"
    told = [
        limner(verb, slides("label"), *words)
        for verb, words in (
            ("info", ()),
            ("plan", ("--model", card)),
            ("run", ("--model", card, "--out", out)),
        )
    ]
    assert [said.code for said in told] == [0, 0, 0]
    written = everything(out) + "".join(said.out + said.err for said in told).encode()
    assert len(written) > 10_000
    assert [secret for secret in making_slides.SECRETS if secret.encode() in written] == []


def test_a_label_is_never_shown(tmp_path: Path, slides: Made, card: Path, limner: Limner) -> None:
    """What is shown is the tissue, whose middle is not white."""
    out = tmp_path / "out"
    assert limner("run", slides("label"), "--model", card, "--out", out).code == 0
    (overview,) = out.glob("overview-*.png")
    picture = np.asarray(Image.open(overview).convert("RGB"))
    height, width = picture.shape[:2]
    middle = picture[height // 3 : height * 2 // 3, width // 3 : width * 2 // 3]
    assert middle.std() > 10
    assert np.median(middle) < 235


@pytest.mark.parametrize("name", ["no_scale", "scale_zero", "not_square"])
def test_a_slide_without_a_usable_scale_is_refused_with_the_remedy(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, name: str
) -> None:
    said = limner("run", slides(name), "--model", card, "--out", tmp_path / "out")
    assert said.code == 2
    assert "--microns-per-pixel" in said.err


@pytest.mark.parametrize("name", ["no_scale", "scale_zero", "not_square"])
def test_a_slide_that_is_refused_is_found_by_name_in_the_crosswalk(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, name: str
) -> None:
    out = tmp_path / "out"
    said = limner("run", slides(name), "--model", card, "--out", out)
    told = set(re.findall(r"file-[0-9a-f]{16}(?:\.[a-z]+)?", said.err))
    assert told
    assert (out / "sources.json").is_file()
    known = json.loads((out / "sources.json").read_text())
    assert {Path(known[name]).name for name in told if name in known} == {slides(name).name}


def test_a_scale_with_a_decimal_comma_is_half_a_micron(slides: Made, limner: Limner) -> None:
    said = limner("info", slides("scale_comma"))
    assert said.code == 0
    assert re.search(r"0\.5 (µm|um)", said.out)


@pytest.mark.parametrize("name", ["pale12", "pale05"])
def test_pale_tissue_is_found_or_a_warning_says_that_none_was(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, shares: Shares, rows: Rows, name: str
) -> None:
    out = tmp_path / "out"
    said = limner("run", slides(name), "--model", card, *LOOK, "--out", out)
    assert said.code in {0, 1}, said.err
    if shares(out)["analysed"] < 1.0:
        assert "tissue" in said.err
        assert {row["status"] for row in rows(out / "summary.csv")} != {"complete"}


def test_black_padding_is_no_data(tmp_path: Path, slides: Made, card: Path, limner: Limner, shares: Shares) -> None:
    out = tmp_path / "out"
    said = limner("run", slides("black_pad"), "--model", card, *LOOK, "--out", out)
    assert said.code == 0, said.err
    found = shares(out)
    assert found.get("no data", 0.0) == pytest.approx(50.0, abs=1.0)
    assert found["analysed"] > 30.0


@pytest.mark.parametrize("name", ["roi_png", "roi_jpg", "flat_tif"])
def test_a_flat_picture_of_stated_scale_is_like_the_slide_it_was_cut_from(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, shares: Shares, name: str
) -> None:
    found = []
    for number, one in enumerate(("cut_out", name)):
        out = tmp_path / str(number)
        said = limner("run", slides(one), "--microns-per-pixel", "0.5", "--model", card, *LOOK, "--out", out)
        assert said.code == 0, said.err
        found.append(shares(out))
    assert found[0]["analysed"] > 50.0
    assert found[1] == pytest.approx(found[0], abs=1.0 if name == "roi_jpg" else 0.2)


def test_the_name_of_a_flat_picture_that_is_a_slide_is_nowhere(
    tmp_path: Path, slides: Made, per_tile: str, limner: Limner, everything: Callable[[Path], bytes]
) -> None:
    """Nor that of one that cannot be read."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(slides("roi_png"), folder / "DOE_JOHN.png")
    (folder / "DOE_JANE.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    said = limner("run", folder, "--microns-per-pixel", "0.5", "--model", per_tile, "--out", out)
    assert said.code == 1, said.err
    written = everything(out) + (said.out + said.err).encode()
    assert len(written) > 10_000
    assert b"DOE_J" not in written  # three letters may be in a compressed picture by chance


@pytest.mark.parametrize(
    ("size", "told"), [("--microns-per-pixel", "0.090 mm²"), ("--metres-per-pixel", "0.090 km²"), ("", "360,000 px")]
)
def test_an_area_on_a_flat_picture_is_in_its_pixels(
    tmp_path: Path, slides: Made, per_tile: str, limner: Limner, size: str, told: str
) -> None:
    ring = [[300, 300], [900, 300], [900, 900], [300, 900], [300, 300]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    words = ("--area", tmp_path / "area.geojson", "--model", per_tile, *((size, "0.5") if size else ()))
    said = limner("plan", slides("roi_png"), *words)
    assert said.code == 0, said.err
    assert f"25.00 % of the picture, {told}" in said.out


def test_colours_of_16_bits_are_stretched_or_refused_while_planning(
    tmp_path: Path, slides: Made, card: Path, limner: Limner
) -> None:
    planned = limner("plan", slides("rgb16"), "--model", card)
    said = limner("run", slides("rgb16"), "--model", card, *LOOK, "--out", tmp_path / "out")
    assert said.code == planned.code
    if planned.code:
        assert planned.code == 2
        assert "16" in planned.err


def test_the_scenes_of_a_file_are_listed(slides: Made, limner: Limner) -> None:
    said = limner("info", slides("two_scenes"))
    assert said.code == 0, said.err
    told = said.out + said.err
    assert "scene0" in told
    assert "scene1" in told


def test_a_scene_is_chosen(slides: Made, limner: Limner) -> None:
    said = limner("info", slides("two_scenes"), "--scene", "scene1")
    assert said.code == 0, said.err
    assert "1500 × 1200 px" in said.out


def test_only_regions_that_need_damaged_tiles_fail(
    tmp_path: Path, slides: Made, fine_card: Path, limner: Limner, rows: Rows
) -> None:
    out = tmp_path / "out"
    words = ("--model", fine_card, "--hd-num", 1, "--set", "tissue=off", *LOOK, "--out", out)
    said = limner("run", slides("corrupt"), *words)
    assert said.code == 1, said.err
    areas = {row["item"]: float(row["area_px"]) for row in rows(out / "areas.csv") if row["entry"] == "area"}
    assert set(areas) == {"analysed", "unreadable"}
    assert 480 * 240 <= areas["unreadable"] <= (480 + 2 * 140) * (240 + 2 * 140)
    assert sum(areas.values()) == 1200 * 1200


def test_slides_of_one_name_are_told_apart_in_every_table(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, rows: Rows
) -> None:
    out = tmp_path / "out"
    said = limner("run", slides("same_names"), "--model", card, *LOOK, "--out", out)
    assert said.code == 0, said.err
    known = json.loads((out / "sources.json").read_text())
    image = {
        Path(known[row["path"]]).parent.name: row["image"] for row in rows(out / "files.csv") if row["path"] in known
    }
    assert set(image) == {"A", "B"}
    for table in ("findings.csv", "summary.csv"):
        assert {row["image"] for row in rows(out / table)} >= set(image.values())


def test_a_link_to_a_slide_is_told_and_not_counted_twice(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, rows: Rows
) -> None:
    out = tmp_path / "out"
    said = limner("run", slides("same_names"), "--model", card, *LOOK, "--out", out)
    assert said.code == 0, said.err
    assert len({row["image"] for row in rows(out / "summary.csv")}) == 2
    linked = [row for row in rows(out / "files.csv") if "link" in row["reason"] or "same" in row["reason"]]
    assert len(linked) == 1


def test_pens_are_no_tissue(
    tmp_path: Path, slides: Made, card: Path, limner: Limner, rows: Rows, shares: Shares
) -> None:
    """What was analysed is the square of tissue, 16 % of the slide, and the picture's findings lie in it."""
    out = tmp_path / "out"
    said = limner("run", slides("pens"), "--model", card, *LOOK, "--out", out)
    assert said.code == 0, said.err
    assert 10.0 < shares(out)["analysed"] < 17.0
    found = rows(out / "findings.csv")
    assert found
    places = np.array([[float(row[key]) for key in ("x0_px", "y0_px", "x1_px", "y1_px")] for row in found])
    assert places[:, :2].min() > 280
    assert places[:, 2:].max() < 1520


def test_a_vsi_is_refused_by_its_name(tmp_path: Path, slides: Made, limner: Limner) -> None:
    for said in (
        limner("info", slides("vsi")),
        limner("run", slides("vsi"), "--preset", "neutral", "--model", "none", "--out", tmp_path / "out"),
    ):
        assert said.code == 3
        assert "VSI" in said.err + said.out
        assert "not supported" in said.err + said.out


def test_the_pages_of_a_vsi_are_never_shown(
    tmp_path: Path, slides: Made, limner: Limner, per_tile: str, everything: Callable[[Path], bytes]
) -> None:
    """Whatever it is asked for, and in a folder too."""
    for number, (what, words) in enumerate(
        (
            (slides("vsi"), ("--model", per_tile)),
            (slides("vsi").parent, ("--model", "none")),
        )
    ):
        out = tmp_path / str(number)
        said = limner("run", what, *words, "--out", out)
        assert list(out.glob("*.png")) == []
        assert "DOE" not in said.err + said.out
        assert b"DOE_J" not in everything(out)
