"""Texts and likelihoods equal those of the checkpoint's whole network in transformers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.checkpoints.files import find_files
from limner.model.vlm.image_text import ImageTextModel, resolve_device
from limner.model.vlm.processor import Processor
from limner.model.vlm.texts import GeneratedText
from limner.readers.errors import ModelError, RequestError
from transformers import AutoModelForImageTextToText

pytestmark = pytest.mark.slow

Make = Callable[[str], Path]
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3")
OPTIONS = ("ship", "ships", "shipyard", "crane", "the quay")  # three begin with the same token
PROMPTS = (
    "what does it show? Options: ship; ships; shipyard.",
    "what does it show? Options: ships; shipyard; ship.",
    "a crane",
)
COUNT: dict[str, Any] = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 99}, "what": {"enum": ["ship", "größer"]}},
    "required": ["count", "what"],
    "additionalProperties": False,
}


def network(folder: Path, *, dtype: str = "float32") -> ImageTextModel:
    return ImageTextModel(Processor(find_files(str(folder), fetch=False)), device="cpu", dtype=dtype)


def noise(seed: int = 0) -> npt.NDArray[np.uint8]:
    """A square, which every family takes as it is."""
    return np.random.default_rng(seed).integers(0, 256, size=(112, 112, 3), dtype=np.uint8)


def kind_of(folder: Path) -> Any:
    """The class of a checkpoint's network."""
    return type(AutoModelForImageTextToText.from_pretrained(folder))


def reference_scores(folder: Path, picture: npt.NDArray[np.uint8], prompts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Each full sequence through the whole model, from scratch: log P(option's tokens, then one that ends)."""
    made = Processor(find_files(str(folder), fetch=False))
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    rows: list[list[float]] = []
    for prompt in prompts:
        given = made.read([picture], prompt)
        rows.append([])
        for option in OPTIONS:
            tail = torch.tensor([made.answer_tokens(prompt, option, pictures=1)])
            whole = {**given, "input_ids": torch.cat([given["input_ids"], tail], dim=1)}
            whole["attention_mask"] = torch.ones_like(whole["input_ids"])
            for name in ("token_type_ids", "mm_token_type_ids"):
                if name in given:
                    whole[name] = torch.cat([given[name], torch.zeros_like(tail)], dim=1)
            with torch.no_grad():
                logits = model(**whole).logits[0].double().log_softmax(dim=-1)
            begin = given["input_ids"].shape[1] - 1
            words = sum(float(logits[begin + i, token]) for i, token in enumerate(tail[0].tolist()))
            ends = float(logits[-1][list(made.stop_tokens)].exp().sum().log())
            rows[-1].append(words + ends)
    return np.array(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_equal_those_of_whole_sequences(made_vlms: Make, family: str) -> None:
    folder = made_vlms(family)
    expected = reference_scores(folder, noise(), PROMPTS)
    found = network(folder).score_options([noise()], PROMPTS, OPTIONS)
    assert found.shape == (3, 5)
    assert np.ptp(expected) > 1
    assert np.abs(expected[0] - expected[2]).max() > 1e-3  # the prompt matters
    assert np.abs(found - expected).max() < 1e-4
    other = network(folder).score_options([noise(1)], PROMPTS, OPTIONS)
    assert np.abs(found - other).max() > 1e-3  # and so does the picture


@pytest.mark.parametrize("family", FAMILIES)
def test_picture_is_encoded_once(made_vlms: Make, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_vlms(family)
    one = network(folder)
    one.score_options([noise(1)], PROMPTS, OPTIONS)  # which also tries out whether it can go on
    seen: list[bool] = []
    kind = kind_of(folder)
    forward = kind.forward

    def watched(self: object, *values: object, **named: object) -> object:
        seen.append(named.get("pixel_values") is not None)
        return forward(self, *values, **named)

    monkeypatch.setattr(kind, "forward", watched)
    one.score_options([noise()], PROMPTS, OPTIONS)
    assert seen == [True, *[False] * (len(PROMPTS) * (1 + len(OPTIONS)))]


def test_whole_sequences_where_the_cache_fails(made_vlms: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one that forgets the place of what it goes on with."""
    folder = made_vlms("llava")
    expected = network(folder).score_options([noise()], PROMPTS, OPTIONS)
    kind = kind_of(folder)
    forward = kind.forward

    def forgetful(self: object, *values: object, **named: object) -> object:
        if named.get("past_key_values") is not None:
            ids = named["input_ids"]
            assert isinstance(ids, torch.Tensor)
            named["position_ids"] = torch.arange(ids.shape[1])[None]
        return forward(self, *values, **named)

    monkeypatch.setattr(kind, "forward", forgetful)
    one = network(folder)
    assert np.abs(one.score_options([noise()], PROMPTS, OPTIONS) - expected).max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_is_greedy(made_vlms: Make, family: str) -> None:
    """The checkpoints' own settings ask for chance at a temperature of 2."""
    folder = made_vlms(family)
    made = Processor(find_files(str(folder), fetch=False))
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    given = made.read([noise()], PROMPTS[2])
    ids = given["input_ids"]
    written: list[int] = []
    for _ in range(6):
        whole = {**given, "input_ids": torch.cat([ids, torch.tensor([written], dtype=torch.long)], dim=1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in given:
                zeros = torch.zeros((1, len(written)), dtype=torch.long)
                whole[name] = torch.cat([given[name], zeros], dim=1)
        with torch.no_grad():
            written.append(int(model(**whole).logits[0, -1].argmax()))
        if written[-1] in made.stop_tokens:
            break
    one = network(folder)
    words = made.tokenizer.decode(written, skip_special_tokens=True)
    text = GeneratedText(words, cut=written[-1] not in made.stop_tokens)
    assert one.generate([noise()], PROMPTS[2], limit=6) == text
    assert one.generate([noise()], PROMPTS[2], limit=6) == network(folder).generate([noise()], PROMPTS[2], limit=6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_obeys_its_schema(made_vlms: Make, family: str) -> None:
    one = network(made_vlms(family))
    for seed in range(3):
        text = one.generate([noise(seed)], PROMPTS[2], limit=200, schema=json.dumps(COUNT))
        jsonschema.validate(json.loads(text.text), COUNT)


def test_truncated_json_is_an_error(made_vlms: Make) -> None:
    with pytest.raises(ModelError, match=r"complete within 4 tokens.*max_tokens"):
        network(made_vlms("internvl")).generate([noise()], PROMPTS[2], limit=4, schema=json.dumps(COUNT))


def test_a_question_that_is_too_long_is_an_error(made_vlms: Make) -> None:
    one = network(made_vlms("qwen2_vl"))
    with pytest.raises(ModelError, match=r"into the model's 4096 tokens.*found: \d+ and 4000 for the answer"):
        one.generate([noise()], "a ship " * 50, limit=4000)
    with pytest.raises(ModelError, match="fit, with its answer, into the model's 4096 tokens"):
        one.score_options([noise()], ["a ship " * 3000], OPTIONS)


def test_pickled_weights_give_the_same_and_cannot_run_code(vlm: Make, tmp_path: Path) -> None:
    folder = vlm("llava")
    expected = network(folder).score_options([noise()], PROMPTS, OPTIONS)
    weights = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert np.abs(network(folder).score_options([noise()], PROMPTS, OPTIONS) - expected).max() < 1e-5
    mark = tmp_path / "was-here"
    torch.save({"lm_head.weight": Planted(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="must be whole"):
        network(folder)
    assert not mark.exists()


class Planted:
    """Makes a folder when it is unpickled by whoever does that without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


def test_remote_code_is_never_run(vlm: Make, tmp_path: Path) -> None:
    folder = vlm("internvl")
    mark = tmp_path / "was-here"
    (folder / "planted.py").write_text(f"open({str(mark)!r}, 'w')\nclass M: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "planted.M", "AutoConfig": "planted.M"}
    (folder / "config.json").write_text(json.dumps(config))
    network(folder).generate([noise()], "a ship", limit=1)
    assert not mark.exists()


def test_missing_weight_is_refused(vlm: Make) -> None:
    folder = vlm("qwen2_5_vl")
    weights = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({key: value for key, value in weights.items() if key != "lm_head.weight"}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"every weight.*lm_head\.weight"):
        network(folder)


def test_encoder_decoder_is_refused(vlm: Make) -> None:
    folder = vlm("llava")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))
    with pytest.raises(ModelError, match="answer continues the question"):
        network(folder)


def test_truncated_weights_are_refused(vlm: Make) -> None:
    folder = vlm("internvl")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="must be whole"):
        network(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="must have its weights as"):
        network(folder)


def test_nan_weights_are_noticed(vlm: Make) -> None:
    folder = vlm("llava")
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    model.save_pretrained(folder)
    one = network(folder)
    for ask in (
        lambda: one.generate([noise()], "a ship", limit=3),
        lambda: one.generate([noise()], "a ship", limit=90, schema=json.dumps(COUNT)),
        lambda: one.score_options([noise()], PROMPTS, OPTIONS),
    ):
        with pytest.raises(ModelError, match="finite logits"):
            ask()


def test_tokenizer_of_another_checkpoint_is_refused(vlm: Make) -> None:
    folder = vlm("llava")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"▁ship": 301', '"▁ship": 3010'))
    assert text != (folder / "tokenizer.json").read_text()
    with pytest.raises(ModelError, match=r"tokenizer of checkpoint .* must have at most.*found: 3010"):
        network(folder).score_options([noise()], ["a"], OPTIONS)


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), MemoryError, "DefaultCPUAllocator"),
        (RuntimeError("shapes cannot be multiplied"), ModelError, "run on this picture.*shapes cannot"),
        (ValueError("aspect ratio"), ModelError, "run on this picture.*aspect ratio"),
    ],
)
def test_errors_of_the_network(
    made_vlms: Make,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    expected: type[Exception],
    said: str,
) -> None:
    folder = made_vlms("qwen2_vl")
    one = network(folder)
    assert one.score_options([noise()], PROMPTS[:1], OPTIONS).shape == (1, 5)

    def full(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(kind_of(folder), "forward", full)
    monkeypatch.setattr(kind_of(folder), "generate", full)
    with pytest.raises(expected, match=said):
        one.score_options([noise()], PROMPTS, OPTIONS)
    with pytest.raises(expected, match=said):
        one.generate([noise()], "a ship", limit=3)


def test_half_precision_is_close(made_vlms: Make) -> None:
    folder = made_vlms("internvl")
    expected = network(folder).score_options([noise()], PROMPTS, OPTIONS)
    found = network(folder, dtype="bfloat16").score_options([noise()], PROMPTS, OPTIONS)
    assert 0 < np.abs(found - expected).max() < 0.5


def test_absent_device_is_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for device in ("cuda:99", "abacus"):
        with pytest.raises(RequestError, match=f"device {device} must be usable by torch"):
            resolve_device(device)
