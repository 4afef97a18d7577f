"""Settings from presets, files and flags, and their validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.config import NEUTRAL, Resolution, Settings
from limner.pipelines.pixel_size import format_pixel_size
from limner.pipelines.settings_files import presets
from limner.readers.errors import RequestError


def test_precedence_is_preset_then_file_then_flag_then_set(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: sentinel2-l1c\nhd_num: 9\nresolution: 20m\nbatch: 2\n")
    settings = Settings.resolve({"hd_num": 16, "batch": 4}, file=str(file), changes=["batch=5"])
    assert settings.sensor == "sentinel-2-l1c"
    assert (settings.resolution, settings.hd_num, settings.batch) == ("20m", 16, 5)


def test_a_flag_names_another_preset_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: sentinel2-l1c\n")
    settings = Settings.resolve({"preset": "landsat"}, file=str(file))
    assert (settings.preset, settings.sensor) == ("landsat", "landsat-8-l1")


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid(name: str) -> None:
    assert Settings.resolve({"preset": name}).preset == name


def test_maps_are_merged_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model_options: {a: one, b: two}\n")
    settings = Settings.resolve({}, file=str(file), changes=["model_options.b=three", "reader_options.nodata=7"])
    assert settings.model_options == {"a": "one", "b": "three"}
    assert settings.stated_options() == {"nodata": "7"}


def test_lists_may_be_written_with_commas_or_as_yaml(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("bands: [blue, green]\nlabels: water, cloud\n")
    settings = Settings.resolve({"sensor": "x"}, file=str(file))
    assert settings.labels == ("water", "cloud")
    assert settings.stated_options() == {"sensor": "x", "bands": "blue,green"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hdnum: 9", ("hdnum", "hd_num", "run.yaml")),
        ("hd_num: nine", ("hd_num", "integer", "nine")),
        ("hd_num: 0", ("hd_num", "from 1 to 65 tiles", "0", "--hd-num 9")),
        ("hd_num: 66", ("hd_num", "from 1 to 65 tiles", "66", "more regions")),
        ("stretch: '5'", ("stretch", "two different numbers", "5", "--stretch 0,2750")),
        ("stretch: [1, 2, 3]", ("stretch", "1")),
        ("stretch: nan,1", ("stretch", "two different numbers", "nan,1")),
        ("stretch: 4,4", ("stretch", "two different numbers", "4,4")),
        ("hd_num: true", ("hd_num", "integer")),
        ("hd_num: 9\nhd_num: 8", ("twice",)),
        ("resolution: 10", ("resolution", "string")),
        ("resolution: 10 parsecs", ("--resolution 10m", "parsecs")),
        ("resolution: 0m", ("positive",)),
        ("engine: dask", ("engine", "local")),
        ("preset: sentinel2", ("sentinel2-l1c",)),
        ("- a", ("list",)),
        ("a: [", ("YAML",)),
        ("model_options: {a: {b: 1}}", ("model_options.a", "string")),
    ],
)
def test_an_invalid_settings_file(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(RequestError) as error:
        Settings.resolve({}, file=str(file))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("change", ["hd_num", "=3", "hd_num.=3", "hdnum=3", "hd_num=x", "hd_num.x=3"])
def test_an_invalid_set_is_refused(change: str) -> None:
    with pytest.raises(RequestError):
        Settings.resolve({}, changes=[change])


def test_neutral_settings_exist() -> None:
    assert set(NEUTRAL) < set(Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "metres"), [("10m", 10.0), ("0.5um", 0.5e-6), ("0.25 µm", 0.25e-6), (".5m", 0.5), ("native", None)]
)
def test_resolutions(text: str, metres: float | None) -> None:
    resolution = Resolution.parse(text)
    assert resolution is not None
    assert resolution.metres == metres


def test_an_empty_resolution_is_the_annotators_own() -> None:
    assert Resolution.parse("") is None


def test_format_pixel_size() -> None:
    assert (format_pixel_size(30.0), format_pixel_size(5e-7)) == ("30 m", "0.5 µm")


def test_an_unknown_setting_on_the_command_line(tmp_path: Path, limner: Callable[..., Any]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("hdnum: 9\n")
    output = limner("run", "x.tif", "--out", tmp_path / "out", "--config", file)
    assert output.code == 2
    assert "Did you mean 'hd_num'?" in output.err
    assert "Traceback" not in output.err
    assert not output.out
    assert not (tmp_path / "out").exists()


_LAUGHS = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [*{'a' if i == 0 else f'k{i - 1}'}] \n" for i in range(40))


@pytest.mark.parametrize(
    "text",
    [
        "out: " + "[" * 3000 + "]" * 3000,
        "{" * 3000,
        "- " * 3000,
        "".join(" " * i + "a:\n" for i in range(1200)),
        _LAUGHS,
        "out: &x [*x]",
        "hd_num: " + "9" * 5000,
        "hd_num: 2020-13-45",
        "inputs: 2020-01-01",
        "hd_num: 0b_",
        "inputs: !!binary aGk=",
        "fetch: !!bool foo",
        'hd_num: !!int ""',
        "out: !!timestamp x",
        "out: !!python/object/apply:os.system [ls]",
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "1: 2",
        "null: 2",
        "out: a\nout: b",
        '"out": a\nout: b',
        "a\0: 1",
        'out: "a\\0b"',
        'crs: "\\ud800"',
        "---\nout: a\n---\nout: b",
        "batch: 1000000000",
        "x: " + "y" * 2**20,
    ],
    ids=range(27),
)
def test_a_malicious_settings_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(text.encode("utf-8"))
    with pytest.raises(RequestError) as error:
        Settings.resolve({}, file=str(file))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/nowhere", "a\0b", "x" * 300, "x" * 5000])
def test_an_unreadable_settings_file(path: str) -> None:
    with pytest.raises(RequestError, match="readable text"):
        Settings.resolve({}, file=path)


@pytest.mark.parametrize("change", [f"hd_num={'9' * 5000}", "hd_num=9999999999", "batch=9999999999", "crs=\ud800"])
def test_oversized_values_are_refused(change: str) -> None:
    with pytest.raises(RequestError) as error:
        Settings.resolve({}, changes=[change])
    assert len(str(error.value)) < 1000
