"""Models in every format that limner reads, tiny, each with a picture that it is shown."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seeds
import seeds_maps
import seeds_slides
import yaml
from seeds import Seed, Steps

SCENE = "scene.tif"


def shown(*words: str, scene: str = SCENE) -> Steps:
    """The image is annotated with a model."""
    run = ["limner", "run", f"@{scene}", *words, "--hd-num", "4", "--out", "@out", "--reports", "summary-csv"]
    return [run]


def with_scene(make: Callable[[Path], object], kind: str = "map") -> Callable[[Path], None]:
    """A maker that adds the picture: a map of 150 × 100 px in colour, or a slide of 260 × 200 px."""

    def both(folder: Path) -> None:
        make(folder)
        if kind == "map":
            colours = seeds_maps.pixels(3, width=100, height=70)
            path = seeds_maps.raster(folder / SCENE, colours, photometric="RGB")
            import rasterio

            with rasterio.open(path, "r+") as file:
                for band, name in enumerate(("red", "green", "blue"), start=1):
                    file.set_band_description(band, name)
        else:
            seeds_slides.pyramid(SCENE, compression="deflate")(folder)

    return both


def card(folder: Path, **changes: Any) -> None:
    """A network of one convolution and its card."""
    import onnx

    kernels = np.zeros((3, 1, 3, 3), dtype=np.float32)
    kernels[0, 0, 1, 1], kernels[1, 0, 1, 1] = -1.0, 1.0
    shape = ["n", 1, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4)],
        "toy",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [onnx.numpy_helper.from_array(kernels, "k")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    (folder / "toy.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    variant = {"name": "one-band", "weights": "toy.onnx", "sha256": digest, "bands": ["red"], "quantity": "number"}
    variant |= {"valid_range": [0, 10000], "mean": [100.0], "std": [64.0]}
    classes = [{"name": f"class {k}", "colour": "#00000" + str(k), "background": k == 0} for k in range(3)]
    whole = {"name": "toy", "annotator": "segment", "summary": "A toy.", "licence": "none", "citation": "none"}
    whole |= {"homepage": "none", "not_for": ["anything"], "classes": classes, "tile": 32, "halo": 4}
    whole |= {"resolution": {"value": 10, "unit": "m"}, "fill": "mean", "layout": "NCHW", "output": "logits"}
    (folder / "toy.yaml").write_text(yaml.safe_dump({**whole, "variants": [variant], **changes}), encoding="utf-8")


def deepness(name: str, **changes: Any) -> Callable[[Path], None]:
    """An ONNX network with Deepness's metadata."""
    return with_scene(lambda folder: getattr(seeds.module("zoo_files"), name)(folder / "net.onnx", **changes))


def checkpoint(name: str) -> Callable[[Path], None]:
    """A checkpoint of transformers; its bytes are the same in every process."""

    def make(folder: Path) -> None:
        import torch

        torch.manual_seed(5)
        seeds.module("zoo_making").save(name, folder)
        (folder / name).rename(folder / "model")

    return with_scene(make)


def vlm(family: str) -> Callable[[Path], None]:
    """A vision-language checkpoint."""

    def make(folder: Path) -> None:
        import torch

        torch.manual_seed(5)
        seeds.module("model/vlm/make_checkpoints").MAKERS[family](folder / "model")

    return with_scene(make)


def openclip(*, pickled: bool = False) -> Callable[[Path], None]:
    """A checkpoint in OpenCLIP's format."""

    def make(folder: Path) -> None:
        (folder / "model").mkdir()
        seeds.module("zoo_files").openclip(folder / "model", pickled=pickled)

    return with_scene(make)


def wsinfer(folder: Path) -> None:
    """A model of the WSInfer zoo."""
    seeds.module("zoo_files").wsinfer(folder / "model")


def fourkhd(folder: Path) -> None:
    """A tiny 4KHD checkpoint: tiles of 56 px, two layers."""
    from limner.model.vlm.fourkhd.model_config import LINEARS, LanguageSizes, Plora, Sizes, VisionSizes
    from safetensors.numpy import save_file

    small = Path(__import__("limner.model.vlm.fourkhd", fromlist=["x"]).__file__).parent / "small"
    sizes = Sizes(
        VisionSizes(hidden=16, layers=2, heads=2, mlp=32, image=56),
        LanguageSizes(vocab=_pieces(small), hidden=32, layers=1, heads=4, kv_heads=2, mlp=64, positions=4096),
        projector=16,
        plora={name: Plora(rank=4, alpha=8.0) for name in LINEARS},
    )
    random = np.random.default_rng(7)
    out = folder / "model"
    out.mkdir()
    tensors = {
        name: (random.normal(0, 0.2, shape) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
        for name, shape in sizes.tensors().items()
    }
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps({"model_type": "internlmxcomposer2", **sizes.to_json()}))
    shutil.copyfile(small / "tokenizer.model", out / "tokenizer.model")


def _pieces(small: Path) -> int:
    from sentencepiece import SentencePieceProcessor

    return int(SentencePieceProcessor(model_file=str(small / "tokenizer.model")).vocab_size())


def probe(folder: Path) -> None:
    """A probe trained on colours alone."""
    from limner.model.probe.card import HEAD, ProbeCard, write_card
    from limner.model.probe.encoders import ColourEncoder
    from limner.model.probe.head import Head

    out = folder / "model"
    out.mkdir()
    weights = np.zeros((21, 3))
    weights[0] = [-1.0, 0.0, 1.0]
    head = Head(np.full(21, 128.0), np.full(21, 32.0), ((weights, np.array([-1.0, 0.0, -1.0])),), temperature=0.5)
    figure = {"value": 1.0, "low": 1.0, "high": 1.0}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error_before", "calibration_error")
    kind = {"kind": "linear", "sha256": head.save(out / HEAD), "dimensions": 21, "strength": "1", "temperature": 0.5}
    held = {"folds": 5, "unit": "outline", "units": 15, "inside": 0.5, "interval": "95 %", "left_out": {}}
    observed = {"tile": 16, "metres": 10.0, "tolerates": 1.5, "bands": None, "quantity": "", "channels": 3}
    result = {
        "summary": "Tells dark, grey and bright apart.", "licence": "CC0",
        "classes": [{"name": name, "tiles": 5, "units": 5} for name in ("dark", "grey", "bright")],
        "seen": observed, "encoder": {"source": "colour", "identity": dict(ColourEncoder().identity)}, "head": kind,
        "validation": held, "figures": dict.fromkeys(names, figure), "by_class": [],
        "confusion": [[5, 0, 0], [0, 5, 0], [0, 0, 5]], "margins": [], "majority": 0.3333, "colour": None, "gain": None,
        "labels_sha256": {}, "versions": {}, "not_for": ["anything but tests"],
    }  # fmt: skip
    write_card(ProbeCard.model_validate(result), out)


ZOO = ("vit", "convnext", "segformer", "mask2former", "detr", "rt_detr", "yolos", "upernet", "dpt", "deimv2")
BY_WORDS = ("owlvit", "grounding-dino")
LOW = ("--set", "model_options.threshold=0.1")
LABELS = ("--labels", "cat,dog,water")


def _model(kind: str, make: Callable[[Path], None], *words: str) -> Seed:
    return Seed(make, shown("--model", f"{kind}:@model", *words), kept=(SCENE,))


def _asked(family: str, words: Sequence[str]) -> Seed:
    few = (
        "--set",
        "model_options.device=cpu",
        "--set",
        "model_options.tile=56",
        "--set",
        "model_options.max_tokens=99",
    )
    return _model("vlm", vlm(family), *few, *words)


CARD = [["limner", "models", "show", "@toy.yaml"], *shown("--model", "@toy.yaml")]
MODELS: dict[str, Seed] = {
    "card": Seed(with_scene(card), CARD, kept=(SCENE, "toy.onnx")),
    "card's network": Seed(with_scene(card), CARD, kept=(SCENE, "toy.yaml")),
    "areas": Seed(deepness("segmentor", resolution=1000), shown("--model", "deepness:@net.onnx"), kept=(SCENE,)),
    "boxes": Seed(
        deepness("detector", upright=True, resolution=1000), shown("--model", "deepness:@net.onnx"), kept=(SCENE,)
    ),
    "wsinfer": _model("wsinfer", with_scene(wsinfer, "slide")),
    "openclip": _model("zero-shot", openclip(), *LABELS),
    "openclip, pickled": _model("zero-shot", openclip(pickled=True), *LABELS),
    "probe": _model("probe", with_scene(probe)),
    "4khd": _model("4khd", with_scene(fourkhd), *LABELS, "--set", "model_options.device=cpu"),
    **{name: _model("transformers", checkpoint(name), *(() if name in {"vit", "convnext"} else LOW)) for name in ZOO},
    **{name: _model("transformers", checkpoint(name), *LOW, *LABELS) for name in BY_WORDS},
    "internvl": _asked("internvl", ("--ask", "what is it")),
    "qwen2_vl": _asked("qwen2_vl", ("--ask", "what is it", "--labels", "ship,crane")),
    "llava": _asked("llava", ("--answer", "locate", "--labels", "ship")),
}
