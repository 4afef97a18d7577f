"""Files that a stranger wrote to do harm: refused, in bounded time and memory."""

import gzip
import json
import os
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from limner.model.annotator import InputSpec
from limner.model.checkpoints import onnx as networks
from limner.model.checkpoints.cards import find_card, read_card, shipped_digests
from limner.model.checkpoints.files import find_files
from limner.model.checkpoints.tensors import check_config_integers, load_weights, read_shapes
from limner.model.checkpoints.untrusted import UntrustedDict, read_json, wrap_errors
from limner.model.checkpoints.untrusted_yaml import parse_yaml
from limner.model.checkpoints.weights import locate
from limner.model.clip.annotator import ZeroShot
from limner.model.clip.checkpoint import find_checkpoint
from limner.model.clip.openclip_load import read_merges
from limner.model.segmentation.annotator import Segmenter
from limner.model.segmentation.deepness import Deepness
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin
from onnx import helper

pytestmark = pytest.mark.slow


class PanicException(BaseException):
    """As pyo3 raises it for a panic of Rust."""


@pytest.mark.parametrize(
    "raised", [KeyError("x"), ValueError, MemoryError(), PanicException("a panic"), RecursionError()]
)
def test_exceptions_of_libraries_are_wrapped(raised: Any) -> None:
    name = type(raised).__name__ if isinstance(raised, BaseException) else "ValueError"
    with pytest.raises(ModelError, match=name), wrap_errors("x", "y", remedy="z"):
        raise raised


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), SystemExit(), BaseException(), ModelError("a", "b", remedy="c")]
)
def test_limner_errors_and_interrupts_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, wrap_errors("x", "y", remedy="z"):
        raise raised
    assert "x y" not in str(caught.value)


def test_memory_passes_while_a_network_runs() -> None:
    with pytest.raises(MemoryError), wrap_errors("x", "y", remedy="z", running=True):
        raise MemoryError


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('{"a": ' * 3000 + "1" + "}" * 3000, "nested more than 64 levels"),
        ('{"a": ' * 200 + "1" + "}" * 200, "nested more than 64 levels"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": {"b": NaN}}', r"a\.b in .* must be a finite number"),
        ('{"a": [1e999]}', r"a\.0 in .* must be a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"a": ' + "9" * 100 + "}", r"a in .* must be below 10\^40"),
        ("[]", "a mapping of keys to values"),
        ('{"a": "\\ud800"', "readable config.json"),
        ("\ufeff{}", "readable config.json"),
    ],
)
def test_json_is_refused(text: str, result: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=result):
        read_json(tmp_path / "config.json", "checkpoint x")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "[" * 3000 + "]" * 3000,
        "a: &a [*a]",
        "a: 1\na: 2",
        "1: 2",
        "a: .nan",
        "a: &a {b: 1}\nc: {<<: *a}",
        "a: !!python/name:os.system x",
    ],
)
def test_yaml_is_refused(text: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ModelError, match="card x"):
        parse_yaml(text, "card x")
    with pytest.raises(ModelError):
        read_card(text, subject="card x")
    assert time.perf_counter() - before < 10


def test_getters_check_types() -> None:
    held = UntrustedDict({"n": True, "x": "1", "list": {}, "part": [], "text": 3, "big": 10**9}, "config.json of x")
    for take in (
        lambda: held.integer("n", 1),
        lambda: held.integer("big", 1, most=4096),
        lambda: held.number("x", 1.0),
        lambda: held.list("list"),
        lambda: held.part("part"),
        lambda: held.text("text"),
        lambda: held.flag("x", default=True),
    ):
        with pytest.raises(ModelError, match=r"\w+ in config\.json of x must be"):
            take()
    with pytest.raises(ModelError, match=r"a\.b in x must be a whole number from 1"):
        UntrustedDict({"a": {"b": -1}}, "x").part("a").integer("b", 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused(checkpoints: Callable[[str], Path], toy_card: Callable[..., Path]) -> None:
    folder = checkpoints("clip")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    os.mkfifo(folder / "chat_template.jinja")  # only transformers would open it
    with pytest.raises(ModelError, match=r"chat_template\.jinja of .* must be a regular file \(found: a named pipe\)"):
        find_checkpoint(str(folder), fetch=False)
    card = toy_card(np.ones((2, 1, 1)), tile=8, halo=0)
    [weights] = [Path(variant.weights) for variant in find_card(str(card)).variants]
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ModelError, match="a named pipe"):
        make_plugin(Segmenter, {"model": str(card)}).check([InputSpec(tile=8, variant="one-band")])


def test_a_device_is_refused() -> None:
    with pytest.raises(ModelError, match="a device"):
        locate("/dev/zero", "0" * 64, fetch=False)


def network(path: Path, nodes: list[Any], constants: dict[str, Any] | None = None, answer: Any = None) -> Path:
    """An ONNX file as the Deepness plugin reads it, of those nodes from "x" to "y"."""
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, (1, 3, 32, 32))],
        [answer or helper.make_tensor_value_info("y", 1, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in {"model_type": '"Segmentor"', "class_names": '{"0": "a", "1": "b"}'}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience than for real networks."""
    monkeypatch.setattr(networks, "SECONDS", 6)


@pytest.mark.usefixtures("quick")
def test_networks_without_end_stop_in_the_sandbox(tmp_path: Path) -> None:
    huge = np.array([10**5, 10**6], dtype=np.int64)
    eats = network(tmp_path / "eats.onnx", [helper.make_node("ConstantOfShape", ["n"], ["y"])], {"n": huge})
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("c", 9), ("v", 1))],
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("d", 9), ("w", 1))],
    )
    loop = helper.make_node("Loop", ["", "yes", "v0"], ["y"], body=body)
    hangs = network(tmp_path / "hangs.onnx", [loop], {"yes": np.array(True), "v0": np.float32(0)})
    for path, result in ((eats, "llocate|memory"), (hangs, "found: time")):
        with pytest.raises(ModelError, match=result):
            make_plugin(Deepness, {"checkpoint": str(path)}).check([])


def test_an_untrusted_card_runs_in_the_sandbox_first(
    toy_card: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(networks, "try_in_sandbox", lambda path, **_: tried.append(path))
    card = make_plugin(Segmenter, {"model": str(toy_card(np.ones((2, 1, 1), np.float32), tile=8, halo=0))})
    card.check([InputSpec(tile=8, variant="one-band")])
    assert len(tried) == 1
    assert len(shipped_digests()) >= 4


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname", "beside.bin"])
def test_external_files_of_a_network_are_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "beside.bin").write_bytes(bytes(4 * 2 * 3))
    path = network(
        tmp_path / "n.onnx", [helper.make_node("Conv", ["x", "k"], ["y"])], {"k": np.zeros((2, 3, 1, 1), "f4")}
    )
    model = onnx.load(path)
    [weight] = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "24"}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    inner = helper.make_graph([helper.make_node("Constant", [], ["z"], value=weight)], "inner", [], [])
    nested = helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
    for changed in (model, helper.make_model(helper.make_graph([nested], "g", [], []))):
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(ModelError, match=r"weights in its own file.*found: " + place.replace(".", r"\.")):
            networks.OnnxNetwork(path.read_bytes(), name="n.onnx", layout="NCHW")


@pytest.mark.parametrize(
    ("node", "answer", "result"),
    [
        (helper.make_node("ReduceMean", ["x"], ["y"]), None, "must state the shape of its output"),
        (helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0), None, "map of values"),
        (helper.make_node("Shape", ["x"], ["y"]), helper.make_tensor_value_info("y", 7, None), "map of values"),
        (
            helper.make_node("SequenceConstruct", ["x"], ["y"]),
            helper.make_tensor_sequence_value_info("y", 1, None),
            "return numbers",
        ),
        (helper.make_node("Magic", ["x"], ["y"], domain="evil"), None, "must be an ONNX network"),
    ],
)
def test_outputs_of_another_type_are_refused(
    node: Any,
    answer: Any,
    result: str,
    tmp_path: Path,
    use: Callable[[object], None],
) -> None:
    path = network(tmp_path / "n.onnx", [node], answer=answer)
    with pytest.raises(ModelError, match=result):
        use(make_plugin(Deepness, {"checkpoint": str(path)}))


def test_a_false_safetensors_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for header in (
        {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}},
        {"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]}},
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"},
        {"a": [1]},
    ):
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        with pytest.raises(ModelError, match="must be whole"):
            read_shapes(path, "checkpoint x")
    path.write_bytes(struct.pack("<Q", 2**62))
    with pytest.raises(ModelError, match="must be whole"):
        read_shapes(path, "checkpoint x")


def test_a_pickle_that_grows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(ModelError, match="a repeats its numbers"):
        load_weights(path, "checkpoint x")
    torch.save({"a": torch.zeros(4)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(9):
            archive.writestr(f"w/{i}", bytes(2**25))
    assert path.stat().st_size < 2**20
    with pytest.raises(ModelError, match="unpack to"):
        load_weights(path, "checkpoint x")


def test_a_file_of_merges_that_grows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(66):
            file.write(bytes(2**20))
    with pytest.raises(ModelError, match="when unpacked"):
        read_merges(path, 49408, "x")


@pytest.mark.parametrize(
    "numbers",
    [
        {"num_hidden_layers": 10**6},
        {"vision_config": {"image_size": 10**6}},
        {"text_config": {"vocab_size": 10**9}},
        {"depths": [2, 2, 10**5]},
        {"num_experts": 10**6},
    ],
)
def test_settings_describe_no_more_than_the_weights_hold(numbers: dict[str, Any]) -> None:
    check_config_integers({"rope_theta": 10**9, "num_hidden_layers": 80}, tensors=3, numbers=9, subject="checkpoint x")
    with pytest.raises(ModelError, match="for its weights"):
        check_config_integers(numbers, tensors=3, numbers=9, subject="checkpoint x")


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"])
def test_a_network_larger_than_its_weights_is_never_built(key: str, checkpoints: Callable[[str], Path]) -> None:
    folder = checkpoints("clip")
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"][key] = 10**6 if key != "num_hidden_layers" else 200
    (folder / "config.json").write_text(json.dumps(settings))
    before = time.perf_counter()
    with pytest.raises(ModelError, match=r"must have the weights of|must hold every|mismatched_sizes"):
        make_plugin(ZeroShot, {"checkpoint": str(folder), "labels": "cat,dog"}).load()
    assert time.perf_counter() - before < 30


def test_an_index_may_name_only_files_of_the_folder(checkpoints: Callable[[str], Path]) -> None:
    folder = checkpoints("clip")
    (folder / "model.safetensors").rename(folder / "elsewhere")
    for index in ({"weight_map": {"a": "../elsewhere"}}, {"weight_map": {"a": 3}}, {"weight_map": []}, {}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=r"must have its weights as|weight_map"):
            find_files(str(folder), fetch=False).weights()


def test_a_small_file_is_read_in_little_memory(tmp_path: Path) -> None:
    """However much a file may have: what is asked of `read` is allocated, whatever there is to read."""
    (tmp_path / "a").write_bytes(b"small")
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom limner.model.checkpoints.untrusted import read_bytes\n"
        "from limner.readers.files import read_file\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "print(read_bytes(Path(sys.argv[1]), 'x', most=2**34), read_file(sys.argv[1], max_bytes=2**34))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("b'small' b'small'\n", "")
