"""Tiny models in formats other than transformers': WSInfer's folders, Deepness's ONNX files, OpenCLIP's checkpoints."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


class Stain(torch.nn.Module):
    """Three classes from a patch's mean colour: blue against red, red against green, and neither."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        weights = torch.tensor([[-6.0, 0.0, 6.0], [6.0, -6.0, 0.0], [0.0, 0.0, 0.0]])
        self.weights = torch.nn.Parameter(weights[:classes])

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) → (n, classes) logits."""
        return pictures.mean(dim=(2, 3)) @ self.weights.T


def wsinfer(folder: Path, classes: int = 3, **changes: object) -> Path:
    """A model of the WSInfer zoo: `config.json` and `torchscript_model.pt`; `changes` are other keys of the former."""
    folder.mkdir()
    torch.jit.script(Stain(classes)).save(folder / "torchscript_model.pt")
    settings = {
        "spec_version": "1.0",
        "architecture": "stain",
        "num_classes": classes,
        "class_names": ["nuclei", "stroma", "glass"][:classes],
        "patch_size_pixels": 40,
        "spacing_um_px": 1.0,
        "transform": [
            {"name": "Resize", "arguments": {"size": 56}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.5, 0.4, 0.6], "std": [0.2, 0.25, 0.2]}},
        ],
    } | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return folder


def _onnx(path: Path, nodes: list[Any], constants: dict[str, Any], shapes: tuple[Any, Any], metadata: Any) -> Path:
    """Write a network of those nodes from "x" to "y", and its metadata."""
    import onnx

    float32 = onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(np.asarray(value, dtype=np.int64 if name == "shape" else np.float32), name)
        for name, value in constants.items()
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info("x", float32, shapes[0])],
        [onnx.helper.make_tensor_value_info("y", float32, shapes[1])],
        weights,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    for key, value in metadata.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(model.SerializeToString())
    return path


def segmentor(path: Path, *, classes: int = 3, tile: int | None = 32, last: str = "Softmax", **changes: object) -> Path:
    """An ONNX network as the Deepness plugin reads it, that tells red, green and blue apart pixel by pixel."""
    from onnx import helper

    kernels = 8 * np.eye(3, dtype=np.float32)[:classes, :, None, None]
    axis: dict[str, Any] = {"axis": 1} if last == "Softmax" else {}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"]),
        helper.make_node(last, ["z"], ["y"], **axis),
    ]
    names = {0: "_background", 1: "park", 2: "lake"} if classes == 3 else {0: "_background", 1: "roof"}
    metadata = {"model_type": '"Segmentor"', "class_names": names, "resolution": 1000, "tiles_overlap": 25} | changes
    return _onnx(path, nodes, {"k": kernels}, ([1, 3, tile, tile], [1, classes, tile, tile]), metadata)


def detector(path: Path, *, upright: bool = False, tile: int = 64, channels: int = 3, **changes: object) -> Path:
    """An ONNX network as the Deepness plugin reads it: a box of 14 pixels in each cell of 16, sure where red."""
    from onnx import helper

    side = tile // 16
    centres = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(1, -1, 2) * 16 + 8
    fixed = np.concatenate([centres, np.full_like(centres, 14)], axis=2)
    red = np.zeros((1, channels, 1, 1))
    red[0, 0] = 1
    parts = ["fixed", "sure", "other"] if upright else ["fixed", "sure", "sure", "other"]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["r"]),
        helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Reshape", ["p", "shape"], ["sure"]),
        helper.make_node("Sub", ["one", "sure"], ["other"]),
        helper.make_node("Concat", parts, ["rows"], axis=2),
        helper.make_node("Transpose", ["rows"], ["y"], perm=[0, 2, 1] if upright else [0, 1, 2]),
    ]
    constants = {"k": red, "shape": [1, side * side, 1], "fixed": fixed, "one": [1.0]}
    numbers = 6 if upright else 7
    shape = [1, numbers, side * side] if upright else [1, side * side, numbers]
    metadata: dict[str, object] = {"model_type": "Detector", "class_names": "{0: 'car', 1: 'bus'}", "det_conf": 0.6}
    metadata |= {"det_type": "YOLO_Ultralytics" if upright else "YOLO_v5_or_v7_default", "det_iou_thresh": 0.3}
    return _onnx(path, nodes, constants, ([1, channels, tile, tile], shape), metadata | changes)


PICTURE, PATCH, VIT, TEXT, JOINT = 32, 8, 16, 10, 6
MEAN, STD = [0.48, 0.45, 0.4], [0.26, 0.27, 0.28]


class Block(torch.nn.Module):
    """A residual block: attention and a perceptron, each after a norm."""

    def __init__(self, width: int, heads: int, act: torch.nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attn = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        parts = (
            ("c_fc", torch.nn.Linear(width, 4 * width)),
            ("gelu", act),
            ("c_proj", torch.nn.Linear(4 * width, width)),
        )
        self.mlp = torch.nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(n, length, width) → the same."""
        observed = self.ln_1(x)
        x = x + self.attn(observed, observed, observed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Quick(torch.nn.Module):
    """The activation of OpenAI's models."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of any shape."""
        return x * torch.sigmoid(1.702 * x)


def blocks(width: int, act: torch.nn.Module) -> torch.nn.Module:
    inner = torch.nn.Module()
    inner.resblocks = torch.nn.ModuleList([Block(width, 2, act) for _ in range(2)])
    return inner


class Reference(torch.nn.Module):
    """CLIP as OpenCLIP describes it, with its names."""

    def __init__(self, words: int, *, quick: bool) -> None:
        super().__init__()
        act = Quick() if quick else torch.nn.GELU()
        self.visual = torch.nn.Module()
        self.visual.conv1 = torch.nn.Conv2d(3, VIT, PATCH, stride=PATCH, bias=False)
        self.visual.class_embedding = torch.nn.Parameter(torch.empty(VIT))
        self.visual.positional_embedding = torch.nn.Parameter(torch.empty((PICTURE // PATCH) ** 2 + 1, VIT))
        self.visual.ln_pre, self.visual.ln_post = torch.nn.LayerNorm(VIT), torch.nn.LayerNorm(VIT)
        self.visual.transformer = blocks(VIT, act)
        self.visual.proj = torch.nn.Parameter(torch.empty(VIT, JOINT))
        self.token_embedding = torch.nn.Embedding(words, VIT)
        self.positional_embedding = torch.nn.Parameter(torch.empty(TEXT, VIT))
        self.transformer = blocks(VIT, act)
        self.ln_final = torch.nn.LayerNorm(VIT)
        self.text_projection = torch.nn.Parameter(torch.empty(VIT, JOINT))
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))
        random = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name != "logit_scale":
                    weight.normal_(0.0, 0.4, generator=random)

    def image(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) → (n, joint)."""
        v: Any = self.visual
        x = v.conv1(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([v.class_embedding.expand(len(x), 1, -1), x], dim=1) + v.positional_embedding
        x = v.ln_pre(x)
        for block in v.transformer.resblocks:
            x = block(x, None)
        return v.ln_post(x[:, 0]) @ v.proj

    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, length) → (n, joint): filled up with 0; what comes later is not seen."""
        x = self.token_embedding(tokens) + self.positional_embedding
        mask = torch.full((TEXT, TEXT), -torch.inf).triu(1)
        for block in self.transformer.resblocks:  # type: ignore[union-attr]
            x = block(x, mask)
        x = self.ln_final(x)
        return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ self.text_projection


def openclip(folder: Path, *, quick: bool = False, pickled: bool = False) -> Reference:
    """A checkpoint in OpenCLIP's format, with the tokenizer of a dozen words whose last ends a text."""
    words = ["<unk>", "a", "photo", "of", ".", "cat", "dog", "water", "land", "built", "<s>", "</s>"]
    reader = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106 - a token of text
    reader.pre_tokenizer = pre_tokenizers.Whitespace()
    reader.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 10), ("</s>", 11)]
    )
    marks = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=reader, **marks).save_pretrained(folder)
    model = Reference(len(words), quick=quick)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if pickled:
        whole = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(whole, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    settings = {
        "model_cfg": {
            "embed_dim": JOINT,
            **({"quick_gelu": True} if quick else {}),
            "vision_cfg": {"image_size": PICTURE, "layers": 2, "width": VIT, "patch_size": PATCH, "head_width": 8},
            "text_cfg": {"context_length": TEXT, "vocab_size": len(words), "width": VIT, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    return model
