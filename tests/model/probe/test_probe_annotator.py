"""The probe annotator: its answers, and the images and files that it refuses."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.annotator import View
from limner.model.clip.fusion import Fusion
from limner.model.probe.annotator import Probe
from limner.model.probe.card import HEAD, ProbeCard, read_card, write_card
from limner.model.probe.encoders import ColourEncoder
from limner.model.probe.head import Head
from limner.model.views import read_view, to_image_coordinates
from limner.readers.errors import ModelError, RequestError
from limner.readers.image import Image
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch

Pictures = Callable[..., Image]
MakeProbe = Callable[..., Path]
PLAIN = Stretch(("b0", "b1", "b2"), (0.0,) * 3, (255.0,) * 3, "as it is")
RGB = ("red", "green", "blue")


@pytest.fixture
def make_probe(tmp_path: Path) -> MakeProbe:
    """Write a probe by hand: dark, grey or bright by the mean of red, in tiles of 16 px."""

    def make(**observed: Any) -> Path:
        weights = np.zeros((21, 3))
        weights[0] = [-1.0, 0.0, 1.0]
        head = Head(np.full(21, 128.0), np.full(21, 32.0), ((weights, np.array([-1.0, 0.0, -1.0])),), temperature=0.5)
        digest = head.save(tmp_path / HEAD)
        figure = {"value": 1.0, "low": 1.0, "high": 1.0}
        names = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error_before", "calibration_error")
        card = {
            "summary": "Tells dark, grey and bright apart.",
            "licence": "CC0",
            "classes": [{"name": name, "tiles": 5, "units": 5} for name in ("dark", "grey", "bright")],
            "seen": {
                "tile": 16,
                "metres": None,
                "tolerates": 1.5,
                "bands": None,
                "quantity": "",
                "channels": 3,
                **observed,
            },
            "encoder": {"source": "colour", "identity": dict(ColourEncoder().identity)},
            "head": {"kind": "linear", "sha256": digest, "dimensions": 21, "strength": "1", "temperature": 0.5},
            "validation": {
                "folds": 5,
                "unit": "outline",
                "units": 15,
                "inside": 0.5,
                "interval": "95 %",
                "left_out": {},
            },
            "figures": dict.fromkeys(names, figure),
            "by_class": [],
            "confusion": [[5, 0, 0], [0, 5, 0], [0, 0, 5]],
            "margins": [],
            "majority": 0.3333,
            "colour": None,
            "gain": None,
            "labels_sha256": {},
            "versions": {},
            "not_for": ["anything but tests"],
        }
        write_card(ProbeCard.model_validate(card), tmp_path)
        return tmp_path

    return make


def views(picture: Pictures, probe: Probe, **made: Any) -> tuple[list[View], Any]:
    """A picture of 80 × 48 px whose tiles have known brightness, in regions of four tiles; a corner is nodata."""
    levels = np.random.default_rng(6).permutation(np.linspace(20, 235, 15)).reshape(3, 5)
    pixels = np.repeat(np.kron(levels, np.ones((16, 16)))[..., None], 3, axis=2).astype(np.uint8)
    mask = np.ones((48, 80), dtype=np.bool_)
    mask[:16, :16] = False
    image = picture(pixels, mask=mask, bands=RGB, **made)
    spec = probe.input_spec(image.info)
    regions = cut_regions(Grid("picture", image.info.size, (1.0, 1.0)), tile=16, hd_num=4)
    return [read_view(image, region, spec, stretch=PLAIN) for region in regions], levels


def test_it_is_installed() -> None:
    [point] = entry_points(group="limner.annotators", name="probe")
    assert point.load() is Probe


def test_each_tile_gets_the_class_of_its_features(make_probe: MakeProbe, picture: Pictures) -> None:
    probe = make_plugin(Probe, {"checkpoint": str(make_probe()), "margin": "0"})
    shown, levels = views(picture, probe)
    found = {
        tuple(map(int, to_image_coordinates([answer], view)[0].geometry.bounds[:2])): answer
        for view, answers in zip(shown, probe.annotate(shown), strict=True)
        for answer in answers
    }
    assert len(found) == 14  # of fifteen, one is nodata
    for (x, y), answer in found.items():
        z = (int(levels[y // 16, x // 16]) - 128) / 32 / 0.5
        logits = np.array([-z - 2, 0.0, z - 2])
        chances = np.exp(logits) / np.exp(logits).sum()
        assert [answer.numbers[f"p.{name}"] for name in ("dark", "grey", "bright")] == pytest.approx(chances, abs=1e-4)
        assert answer.label == ("dark", "grey", "bright")[int(chances.argmax())]
        assert answer.score == answer.numbers[f"p.{answer.label}"]
        assert (answer.kind, answer.numbers["valid"]) == ("tile", 1.0)


def test_below_the_margin_a_tile_is_undecided(make_probe: MakeProbe, picture: Pictures) -> None:
    folder = make_probe()
    for margin in (0.0, 0.4, 1.0):
        probe = make_plugin(Probe, {"checkpoint": str(folder), "margin": str(margin)})
        shown, _ = views(picture, probe)
        for answer in (one for answers in probe.annotate(shown) for one in answers):
            ranked = sorted((answer.numbers[f"p.{name}"] for name in ("dark", "grey", "bright")), reverse=True)
            assert (answer.label == "undecided") == (ranked[0] - ranked[1] < margin)
    assert probe.labels == ("dark", "grey", "bright", "undecided")
    assert set(probe.colours) == {"undecided"}


def test_standardised_features_are_fused(make_probe: MakeProbe, picture: Pictures) -> None:
    folder = make_probe()
    fused = make_plugin(Probe, {"checkpoint": str(folder), "fusion": "attention,2,0.5"})
    shown, _ = views(picture, fused)
    assert all(view.global_view is not None for view in shown)
    card, encoder = read_card(folder), ColourEncoder()
    head = Head.load(folder / HEAD, card.head.sha256)
    for view, answers in zip(shown, fused.annotate(shown), strict=True):
        kept = [(tile, valid) for tile, valid in zip(view.tiles, view.valid, strict=True) if valid.any()]
        standard = head.standardise(np.array([encoder(*one) for one in kept]))
        assert view.global_view is not None
        overall = head.standardise(encoder(view.global_view.clip(0, 255), np.ones((16, 16), dtype=bool))[None])[0]
        want = head.probabilities(Fusion(2.0, 0.5)(standard, overall))
        got = [[one.numbers[f"p.{name}"] for name in ("dark", "grey", "bright")] for one in answers]
        assert np.array(got) == pytest.approx(want, abs=1e-4)


def test_only_chosen_labels_are_reported(make_probe: MakeProbe, picture: Pictures) -> None:
    folder = make_probe()
    probe = make_plugin(Probe, {"checkpoint": str(folder), "labels": "bright,undecided"})
    shown, _ = views(picture, probe)
    assert {one.label for answers in probe.annotate(shown) for one in answers} <= {"bright", "undecided"}
    with pytest.raises(RequestError, match=r"must name classes.*wet.*Choose among dark, grey, bright, undecided"):
        make_plugin(Probe, {"checkpoint": str(folder), "labels": "wet"}).check([])


def test_answers_do_not_depend_on_the_batch(make_probe: MakeProbe, picture: Pictures) -> None:
    probe = make_plugin(Probe, {"checkpoint": str(make_probe()), "fusion": "attention"})
    shown, _ = views(picture, probe)
    assert list(probe.annotate(shown)) == [probe.annotate([view])[0] for view in shown]
    shares = [to_image_coordinates([one], view)[0].geometry for view in shown for one in probe.annotate([view])[0]]
    assert shapely.union_all(shares).area == sum(one.area for one in shares)


def test_another_encoder_is_refused(make_probe: MakeProbe) -> None:
    probe = make_plugin(Probe, {"checkpoint": str(make_probe()), "encoder": "colour:red,green,blue"})
    with pytest.raises(ModelError, match=r"red, green, blue instead of red, green, blue as rendered.*train the"):
        probe.check([])


def test_other_bands_are_refused(make_probe: MakeProbe, picture: Pictures) -> None:
    grey = picture(np.zeros((8, 8, 1), dtype=np.uint8)).info
    with pytest.raises(ModelError, match=r"trained on: red, green and blue.*one grey channel"):
        make_plugin(Probe, {"checkpoint": str(make_probe())}).input_spec(grey)
    native = make_plugin(
        Probe, {"checkpoint": str(make_probe(bands=["red", "nir"], quantity="toa_reflectance", channels=2))}
    )
    four = picture(np.zeros((8, 8, 2), dtype=np.uint16), bands=("nir", "red"), quantity="toa_reflectance").info
    assert native.input_spec(four).bands == ("red", "nir")
    with pytest.raises(ModelError, match=r"trained on: red, nir in toa_reflectance.*no nir"):
        native.input_spec(picture(np.zeros((8, 8, 3), dtype=np.uint16), bands=RGB, quantity="toa_reflectance").info)
    with pytest.raises(ModelError, match="values are number"):
        native.input_spec(picture(np.zeros((8, 8, 2), dtype=np.uint16), bands=("nir", "red")).info)


def test_the_resolution_is_that_of_its_training_set(make_probe: MakeProbe, picture: Pictures) -> None:
    info = picture(np.zeros((8, 8, 3), dtype=np.uint8), bands=RGB).info
    fine = make_plugin(Probe, {"checkpoint": str(make_probe(metres=2.5e-7))}).input_spec(info)
    assert (fine.resolution, fine.unit, fine.tolerates) == (0.25, "um", 1.5)
    coarse = make_plugin(Probe, {"checkpoint": str(make_probe(metres=10.0))}).input_spec(info)
    assert (coarse.resolution, coarse.unit) == (10.0, "m")
    assert make_plugin(Probe, {"checkpoint": str(make_probe())}).input_spec(info).resolution is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'checkpoint'.*probe:FOLDER"),
        ({"margin": "2"}, "option 'margin'.*from 0 to 1"),
        ({"margin": "wide"}, "option 'margin'"),
        ({"fusion": "yes"}, "option 'fusion'"),
        ({"templates": "a {}"}, "option 'templates' of .* must be one of fetch, threads, checkpoint"),
        ({"threads": "many"}, "option 'threads'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_plugin(Probe, {**({"checkpoint": "x"} if options else {}), **options})


def test_other_folders_are_refused(tmp_path: Path, make_probe: MakeProbe) -> None:
    with pytest.raises(ModelError, match=r"must be a folder with card\.yaml.*train probe"):
        make_plugin(Probe, {"checkpoint": str(tmp_path / "absent")}).check([])
    folder = make_probe()
    text = (folder / "card.yaml").read_text()
    (folder / "card.yaml").write_text(text.replace("licence:", "license:"))
    with pytest.raises(ModelError, match=r"card\.yaml.*licen"):
        read_card(folder)
    (folder / "card.yaml").write_text("- a\n- b\n")
    with pytest.raises(ModelError, match="mapping"):
        read_card(folder)


def test_identity_covers_everything_that_decides_the_result(make_probe: MakeProbe) -> None:
    folder = make_probe()
    found = make_plugin(Probe, {"checkpoint": str(folder)}).identity
    assert found["sha256_head"] == read_card(folder).head.sha256
    assert found["encoder_kind"] == "colour"
    assert found["version"] == f"card {found['sha256_card'][:12]}"
    assert (found["margin"], found["fusion"], found["licence"]) == ("0.1", "off", "CC0")
    assert (
        make_plugin(Probe, {"checkpoint": str(folder), "fusion": "attention"})
        .identity["fusion"]
        .startswith("attention")
    )
