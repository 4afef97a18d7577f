"""What every test may ask for."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.checkpoints.cards import find_any_card, find_card
from limner.model.checkpoints.weights import locate
from limner.readers.errors import ModelError, ReadError
from limner.readers.geometry import Box, Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.resample import axis_weights, pixel_edges, resample

ROOT = Path(__file__).resolve().parents[1]


def module(name: str) -> ModuleType:
    """A module of the tests' folder, which is no package: "readers/slide/scanners"."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / "tests" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes get numbered test ids: they may contain a timestamp, as gzip's do, and are unreadable."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """A script of the folder .ci as a module: "sbom", "bump"."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    return load


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout that the tests lie in; `limner` itself may be imported from elsewhere."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder `data` with real scenes (`data/geo/…`), where there is one: tests that need it are skipped elsewhere.

    `LIMNER_SHARED` names the folder that holds it; otherwise a folder `shared` beside the checkout is looked at.
    """
    shared = Path(os.environ.get("LIMNER_SHARED") or ROOT.parent / "shared")
    if not (shared / "data" / "geo").is_dir():
        pytest.skip(f"no real scenes at {shared}: set LIMNER_SHARED to a folder that holds data/geo")
    return shared / "data"


@pytest.fixture(scope="session")
def making() -> ModuleType:
    """Makes DICOM files."""
    return module("readers/dicom/making")


@pytest.fixture(scope="session")
def make_nnunet() -> Callable[..., Path]:
    """Makes a folder of nnU-Net v2 that labels what is brighter than 100."""
    return module("model/volume/conftest").nnunet


@pytest.fixture(scope="session")
def virginia() -> Path:
    """The sample scene of the checkout: six bands of a Sentinel-2 scene, each its own file."""
    return ROOT / "notebooks" / "samples" / "virginia"


class ArrayImage:
    """An open image whose pixels are an array: what tests show where no file matters. Follows the `Image` protocol.

    `pixels` is (H, W, C), `valid` (H, W) and everywhere by default. A read that touches one of the `damaged` boxes
    raises `ReadError`. `reads` records every (box, size) that was asked for.
    """

    def __init__(
        self,
        pixels: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        placement: Placement | None = None,
        channels: Sequence[Channel] | None = None,
        image: str = "array",
        damaged: Sequence[Box] = (),
    ) -> None:
        height, width, count = pixels.shape
        named = channels or tuple(Channel(f"B{i + 1}", dtype=str(pixels.dtype)) for i in range(count))
        self.pixels = pixels
        self.valid = np.ones((height, width), dtype=np.bool_) if valid is None else valid
        self.damaged = tuple(damaged)
        self.reads: list[tuple[Box, tuple[int, int]]] = []
        self.info = ImageInfo(
            uri=f"memory:{image}",
            reader="array",
            size=(width, height),
            channels=tuple(named),
            placement=placement or Placement.pixels(),
            id=image,
        )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All of them."""
        return self.info.channels

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """As in the protocol."""
        del plane  # there is one
        self.reads.append((box, size))
        for hole in self.damaged:
            if box.x0 < hole.x1 and hole.x0 < box.x1 and box.y0 < hole.y1 and hole.y0 < box.y1:
                raise ReadError(self.info.uri, "these pixels must be whole", remedy="Read elsewhere")
        x = axis_weights(pixel_edges(box.x0, box.x1, size[0]), self.info.size[0])
        y = axis_weights(pixel_edges(box.y0, box.y1, size[1]), self.info.size[1])
        columns = slice(x.start, x.stop)
        return resample(
            lambda top, bottom: (self.pixels[top:bottom, columns], self.valid[top:bottom, columns]),
            y,
            x,
            len(self.channels),
            self.pixels.dtype,
        )

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="session")
def array_image() -> type[ArrayImage]:
    """The class of images in memory: `array_image(pixels, valid, placement=…, channels=…, damaged=…)`."""
    return ArrayImage


@pytest.fixture(scope="session")
def coordinates() -> Callable[[int, int], npt.NDArray[np.float64]]:
    """`coordinates(width, height)`: a picture (H, W, 2) whose pixels hold their own centres (x, y)."""

    def picture(width: int, height: int) -> npt.NDArray[np.float64]:
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        return np.stack([x, y], axis=-1).astype(np.float64)

    return picture


@pytest.fixture
def model_server() -> Iterator[Any]:
    """A `ModelServer` of `model/serving.py` beside this file, which behaves until a test scripts it otherwise."""
    server = module("model/serving").ModelServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def scanners() -> ModuleType:
    """The module `readers/slide/scanners.py` beside this file: slides as scanners write them."""
    return module("readers/slide/scanners")


@pytest.fixture(scope="session")
def csmask() -> Path:
    """The weights that the sample scene is annotated with; a test that asks for them is marked `network`."""
    variant = find_card("csmask").variants[0]
    try:
        return locate(variant.weights, variant.sha256, fetch=True, name="csmask")
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def weights_of() -> Callable[[str], None]:
    """Fetches the weights of a card, or skips the test, which is marked `network`."""

    def fetch(name: str) -> None:
        try:
            for file in (file for files in find_any_card(name).weight_files.values() for file in files):
                locate(file.weights, file.sha256, fetch=True, name=name)
        except ModelError as error:
            pytest.skip(str(error))

    return fetch


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """Makes tiny models in the formats of other zoos; loads torch."""
    return module("zoo_files")


@pytest.fixture
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of golden data of OpenCLIP, whose models count as its architectures.

    They are `tiny`, `tiny-resnet`, and both with `-quickgelu`.
    """
    from limner.model.clip.openclip import ARCHITECTURES

    class Tiny:
        quick = True

        def __init__(self, model_cfg: dict[str, Any]) -> None:
            self.model_cfg = model_cfg

        def settings(self, *, quick: bool) -> dict[str, Any]:
            return {"model_cfg": self.model_cfg | {"quick_gelu": quick}}

    folder = ROOT / "tests" / "golden" / "openclip"
    for name, model_cfg in json.loads((folder / "model_cfgs.json").read_text()).items():
        monkeypatch.setitem(ARCHITECTURES, name, Tiny(model_cfg))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def zoo_making() -> ModuleType:
    """Makes tiny checkpoints in transformers' format; loads torch."""
    return module("zoo_making")


@pytest.fixture(scope="session")
def zoo_resnets() -> ModuleType:
    """Makes tiny detectors on ResNets with timm's names; loads torch."""
    return module("zoo_resnets")


@pytest.fixture(scope="session")
def zoo_folder(zoo_making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny transformers checkpoint by its name in `zoo_making.MAKERS`; made once."""
    root = tmp_path_factory.mktemp("zoo")
    return lambda name: root / name if (root / name).is_dir() else zoo_making.save(name, root)


@pytest.fixture(scope="session")
def made_checkpoints(zoo_making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints `clip` and `siglip`: pictures of 32 px, texts of 16 tokens, ten words, random weights.

    Made and saved by transformers as anybody's are.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    zoo_making.save_contrastive(folder)
    return folder


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.model` of 400 pieces, every byte among them, trained on a few sentences, with 4KHD's turn marks."""
    from sentencepiece import SentencePieceTrainer

    sentences = [
        "system user assistant What does this image show? Options: cat; dog; water.",
        "Answer with one of the options and nothing else. Locate every instance of: ship.",
        "Answer with a JSON list of boxes [x0, y0, x1, y1], in pixels of the image, which is 56 wide and 112 high",
        "Describe this image in detail. forest built-up land snow ice cloud shadow",
    ]
    prefix = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences * 20),
        model_prefix=str(prefix),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"],
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture(scope="session")
def made_4khd(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    """A 4KHD checkpoint's folder: tiles of 56 px, 2 layers, random weights, as anybody's is saved."""
    import shutil

    from limner.model.vlm.fourkhd.model_config import LINEARS, LanguageSizes, Plora, Sizes, VisionSizes
    from safetensors.numpy import save_file

    sizes = Sizes(
        VisionSizes(hidden=16, layers=2, heads=2, mlp=32, image=56),
        LanguageSizes(vocab=400, hidden=64, layers=2, heads=4, kv_heads=2, mlp=128, positions=4096),
        projector=32,
        plora={name: Plora(rank=4, alpha=8.0) for name in LINEARS},
    )
    random = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("4khd")
    tensors = {
        name: (random.normal(0, 0.2, shape) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
        for name, shape in sizes.tensors().items()
    }
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "internlmxcomposer2", **sizes.to_json()}))
    shutil.copyfile(small_tokenizer, folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="session")
def made_vlms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`made_vlms(family)`: the folder of a vision-language checkpoint, made once and not to be changed.

    Families: llava, qwen2_vl, qwen2_5_vl, qwen3_vl, internvl, gemma3.
    """
    making = module("model/vlm/make_checkpoints")
    root = tmp_path_factory.mktemp("vlms")

    def find(family: str) -> Path:
        folder = root / family
        return folder if folder.is_dir() else making.MAKERS[family](folder)

    return find


@pytest.fixture(scope="session")
def dicomweb_servers() -> ModuleType:
    """DICOMweb servers."""
    return module("dicomweb_servers")


@pytest.fixture
def fake_server(dicomweb_servers: ModuleType) -> Iterator[Any]:
    """A DICOMweb server in this process that may misbehave."""
    server = dicomweb_servers.FakeServer()
    stop = server.start()
    yield server
    stop()


@pytest.fixture(scope="session")
def orthanc(dicomweb_servers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running Orthanc with an empty database, skipped where it cannot be started."""
    server = dicomweb_servers.Orthanc(tmp_path_factory.mktemp("orthanc") / "server")
    yield server
    server.close()


browsers = module("browsers")
chromium_path, browser, open_page, axe = (
    getattr(browsers, name) for name in ("chromium_path", "browser", "open_page", "axe")
)
