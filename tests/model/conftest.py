"""Pictures in memory, and networks small enough to check by hand."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml
from limner.model.annotator import InputSpec, View
from limner.model.views import read_view
from limner.readers.geometry import Box, Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch


@dataclass(frozen=True)
class Picture:
    """An open image whose native pixels (H, W, C) are an array; a read takes the pixel under each sample's centre."""

    info: ImageInfo
    pixels: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All of them."""
        return self.info.channels

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """As the protocol says, by nearest neighbour."""
        del plane  # there is one
        height, width = self.mask.shape
        left = box.x0 + np.arange(size[0]) * (box.width / size[0])
        top = box.y0 + np.arange(size[1]) * (box.height / size[1])
        x = np.clip(np.floor(left + box.width / size[0] / 2), 0, width - 1).astype(int)
        y = np.clip(np.floor(top + box.height / size[1] / 2), 0, height - 1).astype(int)
        ends = ((top, box.height / size[1], height), (left, box.width / size[0], width))
        within = np.logical_and.outer(*((at + step > 1e-6) & (at < side - 1e-6) for at, step, side in ends))
        return self.pixels[np.ix_(y, x)], self.mask[np.ix_(y, x)] & within

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@pytest.fixture(scope="session")
def picture() -> Callable[..., Picture]:
    """Make an open image of an array (H, W, C): `bands` are common names, `placement` unknown unless given."""

    def make(
        pixels: npt.NDArray[Any],
        *,
        bands: Sequence[str] = (),
        quantity: str = "number",
        scale: float = 1.0,
        offset: float = 0.0,
        mask: npt.NDArray[np.bool_] | None = None,
        placement: Placement | None = None,
    ) -> Picture:
        height, width, count = pixels.shape
        names = list(bands) or [None] * count
        channels = tuple(
            Channel(f"b{i}", common, str(pixels.dtype), scale, offset, quantity) for i, common in enumerate(names)
        )
        info = ImageInfo("memory", "array", (width, height), channels, placement or Placement.pixels(), id="picture")
        return Picture(info, pixels, np.ones((height, width), dtype=np.bool_) if mask is None else mask)

    return make


@pytest.fixture
def toy_card(tmp_path: Path) -> Callable[..., Path]:
    """Write a network and its card, and give the card's path.

    One convolution with whole-numbered weights over one band "red", so that sums are exact in any order: class c's
    logit is what `kernels[c]` (odd side) makes of the neighbourhood. What lies beyond a tile counts as 0. The network's
    file states tiles of `stated` pixels, if any.
    """

    def make(
        kernels: npt.NDArray[np.float32], *, tile: int, halo: int, stated: int | None = None, **changes: object
    ) -> Path:
        weights = kernels[:, None].astype(np.float32)
        pad = kernels.shape[1] // 2
        sides = [stated or "h", stated or "w"]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Conv", ["x", "k"], ["y"], pads=[pad] * 4)],
            "toy",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, *sides])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", len(kernels), *sides])],
            [onnx.numpy_helper.from_array(weights, "k")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        content = model.SerializeToString()
        name = hashlib.sha256(content).hexdigest()
        (tmp_path / f"{name}.onnx").write_bytes(content)
        variant = {
            "name": "one-band",
            "weights": f"{name}.onnx",
            "sha256": name,
            "bands": ["red"],
            "quantity": "number",
            "valid_range": [-1e6, 1e6],
            "mean": [0.0],
            "std": [1.0],
        }
        card = {
            "name": "toy",
            "annotator": "segment",
            "summary": "A toy.",
            "licence": "none",
            "citation": "none",
            "homepage": "none",
            "not_for": ["anything"],
            "classes": [{"name": f"class {i}", "colour": "#000000"} for i in range(len(kernels))],
            "resolution": {"value": 1, "unit": "m"},
            "tile": tile,
            "halo": halo,
            "layout": "NCHW",
            "output": "logits",
            "fill": "mean",
            "variants": [variant],
        }
        path = tmp_path / f"{name}-{tile}-{halo}.yaml"
        path.write_text(yaml.safe_dump(card | changes), encoding="utf-8")
        return path

    return make


@pytest.fixture
def checkpoints(made_checkpoints: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of the checkpoint `clip` or `siglip` that a test may spoil."""
    return lambda name: Path(shutil.copytree(made_checkpoints / name, tmp_path / name))


@pytest.fixture
def views(picture: Callable[..., Picture]) -> list[View]:
    """A picture of 96 × 64 px in regions of up to four tiles of 32 px."""
    pixels = np.random.default_rng(5).integers(0, 256, size=(64, 96, 3), dtype=np.uint8)
    image = picture(pixels)
    as_it_is = Stretch(("red", "green", "blue"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "as it is")
    regions = cut_regions(Grid("rossi-jane", image.info.size, (1.0, 1.0)), tile=32, halo=0, hd_num=4, overlap=0)
    return [read_view(image, region, InputSpec(tile=32, overall=True), stretch=as_it_is) for region in regions]


@pytest.fixture(scope="session")
def use(picture: Callable[..., Picture]) -> Callable[[object], None]:
    """Ask an annotator, or an encoder, for everything that it is asked for in a run."""
    pixels = np.random.default_rng(5).integers(0, 256, size=(96, 96, 3), dtype=np.uint8)
    image = picture(pixels, bands=("red", "green", "blue"))
    plain = Stretch(("red", "green", "blue"), (0.0,) * 3, (255.0,) * 3, "as it is")

    def ask(made: object) -> None:
        if not hasattr(made, "annotate"):
            if hasattr(made, "prepare"):
                encoder: Any = made
                assert encoder.identity
                encoder.prepare()
                side = min(encoder.tile or 32, 128)
                encoder(np.zeros((side, side, 3), np.uint8), np.ones((side, side), bool))
            return
        subject: Any = made
        assert subject.identity
        assert subject.labels is not None
        assert subject.colours is not None
        spec = subject.input_spec(image.info)
        subject.check([spec])
        subject.load()
        if spec.tile <= 256:
            region = next(
                iter(cut_regions(Grid("p", image.info.size, (1.0, 1.0)), tile=spec.tile, halo=spec.halo, hd_num=1))
            )
            bands = spec.bands or ("red", "green", "blue")
            opened = picture(pixels[..., : len(bands)], bands=bands)
            subject.annotate([read_view(opened, region, spec, stretch=plain)])

    return ask
