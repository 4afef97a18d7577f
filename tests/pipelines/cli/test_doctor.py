"""The doctor says what would be done with an input and what is missing, and never fails with a traceback."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.cli import doctor
from limner.readers import plugins

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are on this machine."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))


def test_it_lists_versions_libraries_extras_and_hardware(limner: Limner) -> None:
    output = limner("doctor")
    assert output.code == 0
    for words in ("limner", "GDAL", "GTiff", "OpenSlide", "torch devices", "cores", "memory", "weights cache"):
        assert words in output.out
    assert "limner models fetch csmask" in output.out
    assert "extra train" in output.out


def test_absent_packages_and_libraries_are_told_with_the_way_to_get_them(
    limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "scikit-learn":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(plugins, "version", version)
    monkeypatch.setitem(doctor.SCRIPTS, "torch", "import a_library_that_is_broken")
    output = limner("doctor")
    assert output.code == 0
    assert "missing (no scikit-learn), for limner train: pip install 'matplotlib" in output.out
    assert "cannot be loaded: " in output.out
    assert "a_library_that_is_broken" in output.out


def test_a_scene_fits_some_models_and_lacks_what_others_need(limner: Limner, virginia: Path) -> None:
    output = limner("doctor", virginia)
    assert output.code == 0
    for words in ("kind                map, read by scene", "EPSG:32618", "10 m on the ground", "nir"):
        assert words in output.out
    assert "csmask        does not suit it: must have values of toa_reflectance; found number. State the sensor" in (
        output.out
    )
    assert "4khd:small    suits it, at 10 m. Ships with limner" in output.out
    assert "next         no card that ships suits every image: state what is missing" in output.out
    assert "to try       limner plan" in output.out
    assert "gland         does not suit it" in output.out
    stated = limner("doctor", virginia, "--sensor", "sentinel-2-l1c")
    assert "csmask        suits it, at 30.01 m. Weights on this machine: none; missing: " in stated.out
    assert "--model csmask --fetch measures it" in stated.out


def test_a_model_that_is_named_shows_its_regions_and_what_it_lacks(limner: Limner, virginia: Path) -> None:
    output = limner("doctor", virginia, "--sensor", "sentinel-2-l1c", "--model", "csmask")
    assert output.code == 1
    assert "analysed at  30.01 m" in output.out
    assert "1 × 1 tiles of 512 px" in output.out
    assert "limner models fetch csmask" in output.out


def test_what_a_scene_does_not_state_is_told_with_its_flag(
    limner: Limner, make_scene: Callable[..., Path], tmp_path: Path
) -> None:
    output = limner("doctor", make_scene(tmp_path / "scene.tif", crs=None))
    assert output.code == 0
    assert "missing" in output.out
    assert "a coordinate reference system, so positions are in pixels. State" in output.out
    assert "--crs EPSG:32618" in output.out


def test_a_slide_without_a_pixel_size(limner: Limner, make_slide: Callable[..., Path], tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "Miller-Anna.tif", microns=None)
    output = limner("doctor", slide)
    assert "the pixel size, so sizes are in pixels. State it with --microns-per-pixel" in output.out
    assert "tissue " in output.out
    assert "Miller" not in output.out + output.err
    stated = limner("doctor", slide, "--microns-per-pixel", 0.5)
    assert "gland         suits it, at 2 µm" in stated.out
    assert "--model gland --fetch" in stated.out


def test_what_cannot_be_read_or_asked_for_is_told(limner: Limner, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    for words, code in (
        ((tmp_path / "letter.txt",), 3),
        ((tmp_path / "none.tif",), 3),
        ((scene, "--model", "csmsk"), 2),
        ((scene, "--set", "model_options.x=1", "--model", "csmask"), 2),
    ):
        output = limner("doctor", *words)
        assert output.code == code, output
        assert "Nothing can be analysed as asked for" in output.out
        assert "must" in output.out


def test_a_broken_library_is_told_without_a_traceback(
    limner: Limner, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "libgdal.so.99: cannot open shared object file"
        raise ImportError(msg)

    monkeypatch.setattr(doctor, "prepare", broken)
    output = limner("doctor", scene)
    assert output.code == 1
    assert "cannot be told: ImportError: libgdal.so.99" in output.out
    assert "Traceback" not in output.out + output.err
