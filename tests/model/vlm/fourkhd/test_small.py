"""The small 4KHD that ships: same files and code as the released one, and how well it answers."""

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.annotator import InputSpec, View
from limner.model.tiling import TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.vlm.fourkhd.annotator import FourKhdAnnotator
from limner.model.vlm.fourkhd.checkpoint import SHIPPED, FourKhdFiles, read_card
from limner.model.vlm.fourkhd.tokenizer import Tokenizer
from limner.pipelines.cli.main import app
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch, render
from PIL import Image
from rasterio.io import MemoryFile
from typer.testing import CliRunner

pytestmark = pytest.mark.slow

MEGABYTES = 12e6
LAND = (
    "annual crop,forest,herbaceous vegetation,highway,industrial,pasture,permanent crop,residential,river,sea or lake"
)
EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)


@dataclass(frozen=True)
class Film:
    """Films (n, 28, 28) and whether each shows an opacity."""

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def view(pixels: npt.NDArray[np.uint8], *, hd_num: int) -> View:
    """A picture (h, w, 3), enlarged or reduced to fill its tiles, as `limner run --enlarge` shows it."""
    height, width = pixels.shape[:2]
    region = cut_regions(Grid("picture", (width, height), (1.0, 1.0)), tile=32, hd_num=25)[0]
    grid = TileGrid.fit(width, height, hd_num=hd_num, tile=32)
    canvas = place_on_canvas(pixels, grid)
    inside = np.ones(canvas.shape[:2], dtype=np.bool_)
    spec = InputSpec(tile=32, overall=True)
    whole = squash_to_tile(canvas.astype(np.float32), 32)
    return View(region, spec, grid, cut_tiles(canvas, grid), cut_tiles(inside, grid), inside, whole)


@pytest.fixture
def films(shared_data: Path) -> Film:
    """The rows that were kept to report."""
    path = shared_data / "tiles" / "pneumoniamnist28" / "pneumoniamnist_dev.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as held:
        return Film(held["test_images"], held["test_labels"].ravel())


@pytest.fixture
def fields(shared_data: Path) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Tiles of land not used for training, as `limner run --stretch 0,2750` shows them, and what each is."""
    folder = shared_data / "tiles" / "eurosat100_ms"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    kinds = dict(zip(sorted(EUROSAT), sorted(LAND.split(",")), strict=True))
    stretch = Stretch(("B04", "B03", "B02"), (0.0,) * 3, (2750.0,) * 3, "as given")
    found: list[tuple[str, npt.NDArray[np.uint8]]] = []
    with (folder / "split.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    with zipfile.ZipFile(folder / "eurosat100_train_val.zip") as archive:
        for row in rows:
            with MemoryFile(archive.read(f"tif/{row['class']}/{row['tile']}.tif")) as held, held.open() as raster:
                native = np.moveaxis(raster.read([4, 3, 2]), 0, -1)
            found.append((kinds[row["class"]], render(native, np.ones(native.shape[:2], dtype=np.bool_), stretch)))
    return found


def test_shipped_checkpoint_is_small_and_complete() -> None:
    files = FourKhdFiles.find("small")
    assert SHIPPED == ("small",)
    assert sum(path.stat().st_size for path in files.folder.iterdir()) < MEGABYTES
    sizes = files.sizes()
    assert sizes.vision.image == 32
    assert sizes.parameters < 2_000_000
    assert Tokenizer(files.tokenizer, "small").size == sizes.language.vocab
    assert files.config["layout"] == "training"
    assert not files.held.pickled()


def test_card_of_the_shipped_checkpoint() -> None:
    card = FourKhdFiles.find("small").card
    assert card is not None
    assert "must not be used to diagnose" in card.use
    assert {one.licence for one in card.data} >= {"CC-BY-4.0"}
    assert any("EuroSAT" in one.name for one in card.data)
    identity = make_plugin(FourKhdAnnotator, {"checkpoint": "small", "labels": "no opacity,opacity"}).identity
    assert identity["use"] == card.use
    assert identity["licence"] == card.licence
    shown = CliRunner().invoke(app, ["models", "show", "4khd:small"])
    assert card.use in shown.output
    assert "4khd:small" in CliRunner().invoke(app, ["models"]).output


def test_invalid_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("name: x\nusage: all\n", encoding="utf-8")
    with pytest.raises(ModelError, match="must be a card"):
        read_card(path, "x")
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(ModelError, match="must be YAML"):
        read_card(path, "x")


def test_figures_of_the_card_are_in_the_docs(root: Path) -> None:
    card = FourKhdFiles.find("small").card
    assert card is not None
    page = (root / "docs" / "figures.md").read_text(encoding="utf-8")
    assert len(card.measured) >= 3
    for one in card.measured:
        assert f"| {one.what} | {one.value:.3f} | {one.low:.3f} to {one.high:.3f} | {one.count} |" in page


def test_chest_films_and_land_are_distinguished() -> None:
    """No data needed: a soft grey ellipse with two dark lungs is no meadow, and green noise is no film."""
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    lungs = ((np.abs(x) - 0.45) / 0.3) ** 2 + (y / 0.7) ** 2 < 1
    film = np.where(lungs, 70, 170).astype(np.uint8)[..., None].repeat(3, axis=2)
    noise = np.random.default_rng(1).normal((60, 85, 70), 6, (64, 64, 3))
    field = np.clip(noise, 0, 255).astype(np.uint8)
    annotator = make_plugin(
        FourKhdAnnotator, {"checkpoint": "small", "labels": f"no opacity,opacity,{LAND}", "margin": "0"}
    )
    [[one], [other]] = annotator.annotate([view(film, hd_num=1), view(field, hd_num=4)])
    assert one.label in {"no opacity", "opacity"}
    assert other.label in LAND.split(",")
    describer = make_plugin(FourKhdAnnotator, {"checkpoint": "small", "max_tokens": "20"})
    [[one], [other]] = describer.annotate([view(film, hd_num=1), view(field, hd_num=4)])
    assert "chest X-ray" in one.text
    assert "satellite" in other.text


def test_accuracy_on_held_out_chest_films(films: Film) -> None:
    annotator = make_plugin(
        FourKhdAnnotator, {"checkpoint": "small", "labels": "no opacity,opacity", "margin": "0", "batch_size": "16"}
    )
    views = [view(one[..., None].repeat(3, axis=2), hd_num=1) for one in films.pictures]
    said = np.array([one.label == "opacity" for [one] in annotator.annotate(views)])
    assert (said == films.labels).mean() >= 0.85
    for label in (0, 1):  # and not because most of them show one
        assert (said == films.labels)[films.labels == label].mean() >= 0.75


def test_land_accuracy_is_above_chance(fields: list[tuple[str, npt.NDArray[np.uint8]]]) -> None:
    """Of ten kinds, twice each: by chance 6 or more of twenty are right once in ninety times."""
    annotator = make_plugin(
        FourKhdAnnotator, {"checkpoint": "small", "labels": LAND, "margin": "0", "batch_size": "10"}
    )
    said = [one.label for [one] in annotator.annotate([view(pixels, hd_num=4) for _, pixels in fields])]
    assert len(said) == 20
    assert sum(label == truth for label, (truth, _) in zip(said, fields, strict=True)) >= 6


def test_reports_repeat_the_card(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "field.png")
    asked = ["run", str(tmp_path / "field.png"), "--model", "4khd:small", "--labels", LAND, "--hd-num", "4"]
    done = CliRunner().invoke(app, [*asked, "--engine", "inline", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    card = FourKhdFiles.find("small").card
    assert card is not None
    assert card.use in " ".join(done.output.split())
    for name in ("findings.csv", "summary.csv"):
        with (tmp_path / "run" / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert all(card.use in row["use"] for row in rows), name
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["annotator"]["identity"]["use"] == card.use
    [picture] = (tmp_path / "run").glob("overview-*.png")
    with Image.open(picture) as sheet:
        assert "must not be used" in str(sheet.info["Comment"])


def test_shipped_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert FourKhdFiles.find("small").config["layout"] == "training"
    with pytest.raises(ModelError, match=r"config\.json"):
        FourKhdFiles.find("./small")
