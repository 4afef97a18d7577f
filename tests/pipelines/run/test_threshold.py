"""The annotator `threshold` in whole runs: against the same threshold in numpy, whatever the regions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from limner.pipelines.run.reporting import read_record
from scipy.ndimage import gaussian_filter

Limner = Callable[..., Any]  # of conftest, which tests cannot import


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "value"), [(0.0, 0.6), (2.0, 0.6), (1.0, None)])
def test_areas_are_those_of_the_threshold(
    tmp_path: Path, make_slide: Callable[..., Path], limner: Limner, sigma: float, value: float | None
) -> None:
    slide = make_slide(tmp_path / "slide.tif", side=900)
    amounts = gaussian_filter(tifffile.imread(slide)[..., 0] / 255.0, sigma, mode="nearest")
    words = ["--set", f"model_options.sigma={sigma}", "--set", "model_options.side=below", "--tissue", "off"]
    words += [] if value is None else ["--set", f"model_options.value={value}"]
    sizes: list[list[float]] = []
    for hd_num in (1, 25):
        out = tmp_path / str(hd_num)
        said = limner("run", slide, "--model", "threshold:red", "--out", out, "--hd-num", hd_num, *words)
        assert said.code == 0, said.err
        (image,) = read_record(out).images
        sizes.append([one.geometry.area for one in image.findings()])
    assert sizes[0] == sizes[1]
    if value is not None:
        assert sum(sizes[0]) == (amounts < value).sum()
    else:  # Otsu's lies between stained tissue and glass
        assert (amounts < 0.5).sum() < sum(sizes[0]) < (amounts < 0.9).sum()


@pytest.mark.slow
def test_stained_nuclei_become_instances(tmp_path: Path, make_slide: Callable[..., Path], limner: Limner) -> None:
    slide, out = make_slide(tmp_path / "slide.tif"), tmp_path / "out"
    words = ("--set", "model_options.label=nucleus", "--instances", "nucleus", "--names", "show")
    said = limner("run", slide, "--model", "threshold:haematoxylin", "--out", out, "--min-area", "20px", *words)
    assert said.code == 0, said.err
    (image,) = read_record(out).images
    pixels = tifffile.imread(slide)
    dark = (pixels == (110, 60, 140)).all(axis=2)
    found = list(image.findings())
    assert len(found) > 10
    assert {one.label for one in found} == {"nucleus"}
    assert sum(one.geometry.area for one in found) == pytest.approx(dark.sum(), rel=0.1)


def test_what_it_cannot_do_is_refused(tmp_path: Path, scene: Path, limner: Limner) -> None:
    said = limner("run", scene, "--model", "threshold:hematoxylin", "--out", tmp_path / "a")
    assert said.code == 2
    assert "Did you mean 'haematoxylin'?" in said.err
    assert "must be known" in said.err
    bare = limner("run", scene, "--model", "threshold:haematoxylin", "--bands", "red", "--out", tmp_path / "b")
    assert bare.code in {2, 3}
    assert np.any(["must be a slide" in bare.err, "red, green and blue" in bare.err])
