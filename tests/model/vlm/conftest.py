"""Vision-language checkpoints, and views for them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.annotator import View
from limner.model.views import read_view
from limner.model.vlm.annotator import VlmAnnotator
from limner.readers.image import Image
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch

PLAIN = Stretch(("red", "green", "blue"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "as it is")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Networks as small as these lose more by several threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def vlm(made_vlms: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's checkpoint, to spoil."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(made_vlms(family), tmp_path / "checkpoints" / family))

    return copy


@pytest.fixture(scope="session")
def show(picture: Callable[..., Image]) -> Callable[..., list[View]]:
    """`show(annotator, pixels, hd_num=4)`: the views of a picture (H, W, 3) in regions of at most so many tiles."""

    def views(
        annotator: VlmAnnotator, pixels: npt.NDArray[np.uint8], *, hd_num: int = 4, scale: float = 1.0
    ) -> list[View]:
        image = picture(pixels)
        spec = annotator.input_spec(image.info)
        grid = Grid("picture", image.info.size, (scale, scale))
        regions = cut_regions(grid, tile=spec.tile, halo=spec.halo, hd_num=hd_num)
        return [read_view(image, region, spec, stretch=PLAIN) for region in regions]

    return views
