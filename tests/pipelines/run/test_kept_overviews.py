"""Overviews that the run folder keeps: no image is decoded again for one, and reports are the same without them."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from limner.pipelines.run import kept_overviews
from limner.pipelines.run.kept_overviews import KeptOverviews, damaged_overviews
from limner.pipelines.run.reporting import read_record
from limner.readers.overview import ReducedImage, read_overview
from limner.readers.registry import open_image, scan

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
REPORTS = "files-csv,overview-png,html"


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every overview is worth keeping, however small the image is."""
    monkeypatch.setattr(kept_overviews, "LEAST_TIMES", 0)
    monkeypatch.setattr(kept_overviews, "LEAST_BYTES", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the images of which an overview is decoded from now on."""
    ids: list[str] = []

    def counting(image: Any, **options: Any) -> ReducedImage:
        ids.append(image.info.id)
        return read_overview(image, **options)

    monkeypatch.setattr(kept_overviews, "read_overview", counting)
    return ids


@pytest.fixture
def run(tmp_path: Path, scene: Path, card: Path, limner: Limner, costly: None) -> Path:
    """The run of a map."""
    del costly
    said = limner("run", scene, "--out", tmp_path / "run", "--model", card, "--hd-num", 4, "--reports", REPORTS)
    assert said.code == 0, said.err
    return tmp_path / "run"


def reports(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".csv", ".png", ".html"}}


def keep(tmp_path: Path, image: Any, found: ReducedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run folder with this overview of an image."""
    (tmp_path / "scratch").mkdir(exist_ok=True)
    (tmp_path / "out").mkdir(exist_ok=True)
    kept = KeptOverviews(tmp_path / "out", tmp_path / "scratch")
    with monkeypatch.context() as patch:
        patch.setattr(kept_overviews, "read_overview", lambda *_, **__: found)
        kept.read(image, 100)
    kept.save()


@pytest.mark.usefixtures("costly")
@pytest.mark.parametrize("dtype", ["|u1", "|i1", "<u2", ">i2", "<u4", "<f2", "<f4", "<f8"])
@pytest.mark.parametrize("sampled", [False, True])
def test_what_is_kept_is_the_same_bit_by_bit(
    dtype: str, sampled: bool, tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    content = random.integers(0, 256, 11 * 7 * 3 * np.dtype(dtype).itemsize, np.uint8).tobytes()
    pixels = np.frombuffer(content, dtype).reshape(11, 7, 3)  # with NaN and infinity
    masks = [random.random((11, 7)) < 0.5 for _ in range(3)]
    found = ReducedImage(pixels, masks[0], masks[1], (1 / 3, 1e9 / 7), masks[2] if sampled else None)
    (row,) = scan([str(scene)], {})
    with open_image(row.infos[0]) as image:
        keep(tmp_path, image, found, monkeypatch)
    again = KeptOverviews(tmp_path / "out").load(row.infos[0], ["red"], 100)
    assert again is not None
    assert (again.pixels.tobytes(), again.pixels.dtype, again.pixels.shape) == (content, np.dtype(dtype), (11, 7, 3))
    assert again.scale == found.scale
    assert np.array_equal(again.valid, found.valid)
    assert np.array_equal(again.readable, found.readable)
    assert (again.sampled is None) != sampled
    assert again.sampled is None or np.array_equal(again.sampled, masks[2])
    part = KeptOverviews(tmp_path / "out").load(row.infos[0], ["red"], 100, first=2)
    assert part is not None
    assert (part.pixels.tobytes(), part.pixels.shape) == (pixels[..., :2].tobytes(), (11, 7, 2))
    assert np.array_equal(part.valid, found.valid)


@pytest.mark.slow
def test_a_map_is_decoded_once_for_a_run_its_reports_and_a_resumed_run(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, costly: None, read: list[str]
) -> None:
    del costly
    words = ("run", scene, "--out", tmp_path / "run", "--model", card, "--hd-num", 1, "--reports", REPORTS)
    assert limner(*words).code == 0
    first, lines = reports(tmp_path / "run"), (tmp_path / "run" / "results.jsonl").read_bytes().splitlines(True)
    (tmp_path / "run" / "results.jsonl").write_bytes(b"".join(lines[:-2]))
    assert limner(*words).code == 0
    assert limner("report", tmp_path / "run").code == 0
    assert read == ["scene"]
    assert reports(tmp_path / "run") == first
    assert len((tmp_path / "run" / "results.jsonl").read_bytes().splitlines()) == len(lines)


@pytest.mark.slow
def test_a_damaged_one_is_made_again(run: Path, limner: Limner, read: list[str]) -> None:
    (path,) = (run / "overviews").iterdir()
    content, before = path.read_bytes(), reports(run)
    damage = {"cut": content[:-1], "changed": content[:-9] + b"x" + content[-8:], "empty": b"", "gone": None}
    for name, damaged in damage.items():
        path.unlink()
        if damaged is None:
            path.parent.rmdir()
        else:
            path.write_bytes(damaged)
        assert damaged_overviews(run) == ({} if damaged is None else {path.name: True}), name
        for report in before:
            (run / report).unlink()
        read.clear()
        assert limner("report", run).code == 0, name
        assert read == ["scene"], name
        assert reports(run) == before, name
        assert path.read_bytes() == content, name


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_overview(run: Path, limner: Limner) -> None:
    (path,) = (run / "overviews").iterdir()
    path.unlink()
    os.mkfifo(path)
    said = limner("check", "run", run)
    assert said.code == 0, said.out
    assert f"overviews/{path.name} is damaged" in said.out
    assert "overview-scene.png is the same" in said.out
    assert limner("report", run).code == 0
    assert path.is_file()


@pytest.mark.slow
def test_one_of_other_pixels_or_of_another_version_is_not_used(
    run: Path, scene: Path, limner: Limner, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (run / "overviews").iterdir()
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(kept_overviews, "version", lambda _: "0.0")
        assert limner("report", run).code == 0
        assert read == ["scene"]
        assert path.read_bytes() != content
        assert [path] == [*path.parent.iterdir()], "it replaces that of another version"
    path.write_bytes(content)
    (row,) = scan([str(scene)], {})
    info = row.infos[0]
    assert KeptOverviews(run).load(info, ["red"], 2048) is not None
    changed = [scene.with_name("other.tif"), scene]
    shutil.copy(scene, changed[0])
    with scene.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    for other in changed:
        (row,) = scan([str(other)], {})
        assert KeptOverviews(run).load(row.infos[0], ["red"], 2048) is None
    (image,) = read_record(run).images
    assert image.overview() is None, "the image has changed"


@pytest.mark.slow
def test_the_overview_of_a_slide_is_kept_without_its_name(
    tmp_path: Path, make_slide: Callable[..., Path], limner: Limner, costly: None, read: list[str]
) -> None:
    del costly
    (tmp_path / "in").mkdir()
    make_slide(tmp_path / "in" / "JOHN_DOE.tif")
    words = ("run", tmp_path / "in", "--model", "none", "--out", tmp_path / "run", "--reports", REPORTS)
    assert limner(*words).code == 0
    before, count = reports(tmp_path / "run"), len(read)
    for path in (tmp_path / "run" / "overviews").iterdir():
        assert b"DOE" not in path.read_bytes()
        assert "DOE" not in path.name
        assert path.stat().st_mode & 0o777 == 0o600
    assert limner(*words).code == 0
    assert limner("report", tmp_path / "run").code == 0
    assert len(read) == count
    assert reports(tmp_path / "run") == before
    said = limner("check", "run", tmp_path / "run")
    assert said.code == 0
    assert "kept overview" in said.out


@pytest.mark.slow
def test_no_overview_of_a_study_is_kept(
    tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner, costly: None, read: list[str]
) -> None:
    del costly
    folder = making.save_all(making.slices(3), tmp_path / "ct")
    words = ("run", folder, "--model", per_tile, "--out", tmp_path / "run", "--reports", REPORTS)
    assert limner(*words).code == 0
    assert limner("report", tmp_path / "run").code == 0
    assert len(read) == 1, "while planning; what reports show is a choice of slices"
    assert not (tmp_path / "run" / "overviews").exists()


@pytest.mark.slow
def test_what_is_quickly_read_is_not_kept(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    words = ("run", scene, "--out", tmp_path / "run", "--model", card, "--hd-num", 4, "--reports", REPORTS)
    assert limner(*words).code == 0
    assert not (tmp_path / "run" / "overviews").exists()


@pytest.mark.usefixtures("costly")
def test_no_more_is_kept_than_allowed(tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ReducedImage(
        np.zeros((3, 4, 1), np.uint8), np.ones((3, 4), np.bool_), np.ones((3, 4), np.bool_), (10.0, 20.0)
    )
    (row,) = scan([str(scene)], {})
    (tmp_path / "out" / "overviews").mkdir(parents=True)
    full = tmp_path / "out" / "overviews" / "full"
    full.write_bytes(bytes(10_000))
    with open_image(row.infos[0]) as image:
        with monkeypatch.context() as patch:
            patch.setattr(kept_overviews, "MAX_BYTES", 10_000)
            keep(tmp_path, image, found, monkeypatch)
        assert [*full.parent.iterdir()] == [full]
        full.unlink()
        for limit, name, count in ((11, "MAX_OVERVIEW_BYTES", 0), (100, "MAX_BYTES", 0), (12, "MAX_OVERVIEW_BYTES", 1)):
            with monkeypatch.context() as patch:
                patch.setattr(kept_overviews, name, limit)
                keep(tmp_path, image, found, monkeypatch)
            assert len([*full.parent.iterdir()]) == count


@pytest.mark.usefixtures("costly")
def test_an_image_without_a_fingerprint_is_kept_for_one_command(tmp_path: Path, scene: Path, read: list[str]) -> None:
    """It may change before its reports are written again."""
    (row,) = scan([str(scene)], {})
    (tmp_path / "scratch").mkdir()
    kept = KeptOverviews(tmp_path, tmp_path / "scratch", every=True)
    with open_image(replace(row.infos[0], fingerprint="")) as image:
        kept.read(image, 2048)
        kept.save()
        kept.read(image, 2048)
    assert read == ["scene"]
    assert not (tmp_path / "overviews").exists()
