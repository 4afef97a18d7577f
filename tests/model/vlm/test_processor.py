"""The checkpoint's own processor, with no part of a picture hidden from the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.checkpoints.files import find_files
from limner.model.vlm.processor import Processor
from limner.model.vlm.transformers_backend import letterbox
from limner.readers.errors import ModelError, RequestError
from transformers import AutoProcessor

pytestmark = pytest.mark.slow

Make = Callable[[str], Path]
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3")


def processor(folder: Path) -> Processor:
    return Processor(find_files(str(folder), fetch=False))


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def change(folder: Path, name: str, **values: object) -> None:
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **values}))


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_input_equals_that_of_transformers_own_loader(made_vlms: Make, family: str) -> None:
    folder = made_vlms(family)
    theirs: Any = AutoProcessor.from_pretrained(folder)
    picture = noise(70, 70)
    talk = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "a ship"}]}]
    expected = theirs.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    found = processor(folder).read([picture], "a ship")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("family", "mark", "tokens"),
    [
        ("qwen2_vl", "<|image_pad|>", 5 * 4),
        ("qwen2_5_vl", "<|image_pad|>", 5 * 4),
        ("qwen3_vl", "<|image_pad|>", 4 * 4),
        ("internvl", "<ctx>", 4 * (3 * 2 + 1)),  # tiles and a thumbnail, each of four tokens
    ],
)
def test_processor_without_torchvision(made_vlms: Make, family: str, mark: str, tokens: int) -> None:
    made = processor(made_vlms(family))
    shape = (112, 168) if family == "internvl" else (112, 140)
    ids = [int(token) for token in made.read([noise(*shape)], "a ship")["input_ids"][0]]
    assert ids.count(made.tokenizer.convert_tokens_to_ids(mark)) == tokens
    assert made.tokenizer.decode(ids).endswith("a ship<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(112, 168), (168, 56), (100, 99)])
def test_every_corner_reaches_the_network(made_vlms: Make, family: str, shape: tuple[int, int]) -> None:
    made = processor(made_vlms(family))
    lay = letterbox if made.fit == "letterbox" else (lambda picture: picture)
    plain = noise(*shape)
    before = made.read([lay(plain)], "a ship")["pixel_values"]
    for rows in (slice(0, 8), slice(-8, None)):
        for columns in (slice(0, 8), slice(-8, None)):
            marked = plain.copy()
            marked[rows, columns] = 255 - marked[rows, columns]
            assert not np.array_equal(before, made.read([lay(marked)], "a ship")["pixel_values"])


def test_letterbox_keeps_the_border(made_vlms: Make) -> None:
    """What the letterbox is for: CLIP's processor cuts both ends off a picture that is not square."""
    made = processor(made_vlms("llava"))
    assert made.fit == "letterbox"
    assert {processor(made_vlms(family)).fit for family in FAMILIES[1:]} == {"unchanged"}
    plain = noise(56, 112)
    marked = plain.copy()
    marked[:, :20] = 0
    marked[:, -20:] = 0
    hidden, seen = ([lay(one) for one in (plain, marked)] for lay in ((lambda picture: picture), letterbox))
    assert np.array_equal(*(made.read([one], "")["pixel_values"] for one in hidden))
    assert not np.array_equal(*(made.read([one], "")["pixel_values"] for one in seen))


def test_crop_of_squares_is_switched_off(vlm: Make) -> None:
    folder = vlm("llava")
    plain = processor(folder)
    picture = noise(120, 120)
    expected = plain.read([picture], "")["pixel_values"]
    change(folder, "preprocessor_config.json", size={"shortest_edge": 80})
    cut: Any = AutoProcessor.from_pretrained(folder)
    marked = picture.copy()
    marked[:15] = 0
    assert np.array_equal(*(cut.image_processor([one])["pixel_values"] for one in (picture, marked)))
    made = processor(folder)
    assert made.fit == "letterbox"
    assert np.array_equal(made.read([picture], "")["pixel_values"], expected)


def test_processor_that_always_hides_the_border_is_refused(vlm: Make) -> None:
    folder = vlm("llava")
    change(folder, "preprocessor_config.json", size={"shortest_edge": 80}, crop_size={"height": 60, "width": 40})
    with pytest.raises(ModelError, match=r"whole pictures.*corners of a square"):
        processor(folder)


@pytest.mark.parametrize(
    ("family", "pieces"),
    [("llava", ["▁ship"]), ("qwen2_vl", ["sh", "ip"]), ("internvl", ["sh", "ip"])],
)
def test_answer_tokens_follow_the_template(made_vlms: Make, family: str, pieces: list[str]) -> None:
    """LLaVA's puts a space before it, with which the word is one token."""
    made = processor(made_vlms(family))
    tail = made.answer_tokens("what is it", "ship", pictures=1)
    assert made.tokenizer.convert_ids_to_tokens(tail) == pieces


@pytest.mark.parametrize(
    ("family", "ends"), [("llava", ["</s>"]), ("internvl", ["<|im_end|>"]), ("gemma3", ["</s>", "<over>"])]
)
def test_stop_tokens(made_vlms: Make, family: str, ends: list[str]) -> None:
    """Gemma's turns end with a mark that its tokenizer does not call an end."""
    made = processor(made_vlms(family))
    assert made.tokenizer.convert_ids_to_tokens(list(made.stop_tokens)) == ends


def test_stop_tokens_of_the_generation_config(vlm: Make) -> None:
    folder = vlm("qwen2_vl")
    change(folder, "generation_config.json", eos_token_id=[1, 5])
    assert processor(folder).stop_tokens == (1, 5)
    change(folder, "generation_config.json", eos_token_id=5)
    assert processor(folder).stop_tokens == (1, 5)


def test_checkpoint_without_stop_token_is_refused(vlm: Make) -> None:
    folder = vlm("qwen2_vl")
    (folder / "generation_config.json").unlink()
    change(folder, "tokenizer_config.json", eos_token=None)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "."))
    with pytest.raises(ModelError, match="which token ends an answer"):
        processor(folder)


@pytest.mark.parametrize("family", ["qwen2_vl", "internvl", "llava", "gemma3"])
def test_several_pictures(made_vlms: Make, family: str) -> None:
    made = processor(made_vlms(family))
    one, two = (made.read([noise(56, 56)] * n, "a ship")["input_ids"].shape[1] for n in (1, 2))
    assert two > one


def test_template_for_one_picture_refuses_two(vlm: Make) -> None:
    folder = vlm("qwen2_vl")
    template = folder / "chat_template.jinja"
    text = template.read_text().replace("{% if c.type == 'image' %}", "{% if c.type == 'image' and loop.first %}")
    template.write_text(text.replace("{% else %}", "{% elif c.type == 'text' %}"))
    made = processor(folder)
    with pytest.raises(ModelError, match=r"take 2 pictures at once.*views=canvas"):
        made.read([noise(56, 56)] * 2, "a ship")


def test_a_thought_that_the_template_begins_is_ended_unless_the_model_thinks(vlm: Make) -> None:
    """As Qwen3-VL's and GLM-4.1V's thinking models have it; their labels would be scored inside the thought."""
    folder = vlm("qwen2_vl")
    assert processor(folder).opened_thought == ""
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    made = processor(folder)
    assert made.opened_thought == "<think>"
    thinks, ended = (
        made.tokenizer.decode(made.read([noise(56, 56)], "a ship", thinks=one)["input_ids"][0]) for one in (True, False)
    )
    assert thinks.endswith("<|im_start|>assistant\n<think>\n")
    assert ended.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert made.tokenizer.decode(made.answer_tokens("a ship", "quay", pictures=1)) == "quay"


def test_a_template_with_a_switch_for_thoughts_is_told(vlm: Make) -> None:
    folder = vlm("qwen2_vl")
    template = folder / "chat_template.jinja"
    switch = "{% if enable_thinking is defined and not enable_thinking %}<none>{% endif %}"
    template.write_text(template.read_text().replace("assistant\n{% endif %}", f"assistant\n{switch}{{% endif %}}"))
    made = processor(folder)
    thinks, ended = (
        made.tokenizer.decode(made.read([noise(56, 56)], "a ship", thinks=one)["input_ids"][0]) for one in (True, False)
    )
    assert (thinks.endswith("<none>"), ended.endswith("<none>")) == (False, True)


def test_marks_of_a_thought_are_decoded_where_they_are_special(made_vlms: Make, vlm: Make) -> None:
    made = processor(vlm("qwen2_vl"))
    made.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokens = made.tokenizer("<think>a</think>ship<|im_end|>", add_special_tokens=False)["input_ids"]
    assert made.decode(tokens) == "<think>a</think>ship"
    plain = processor(made_vlms("qwen2_vl"))
    assert plain.decode(plain.tokenizer("ship<|im_end|>", add_special_tokens=False)["input_ids"]) == "ship"


@pytest.mark.parametrize(
    ("family", "way"),
    [
        ("internvl_chat", "OpenGVLab/InternVL3-8B-hf"),
        ("GOT", "stepfun-ai/GOT-OCR-2.0-hf"),
        ("internlmxcomposer2", "--model 4khd"),
        ("phi_never_heard_of", "ends in -hf, or serve it and use --model endpoint:URL"),
    ],
)
def test_a_checkpoint_with_code_of_its_own_is_refused_with_the_variant_without(
    vlm: Make, family: str, way: str
) -> None:
    folder = vlm("qwen2_vl")
    change(folder, "config.json", model_type=family, auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(ModelError, match="which needs code that comes with it") as caught:
        processor(folder)
    assert way in str(caught.value)


@pytest.mark.parametrize(("family", "mark"), [("qwen2_vl", "<|image_pad|>"), ("llava", "</s>"), ("internvl", "<img>")])
def test_special_tokens_in_a_question_are_refused(made_vlms: Make, family: str, mark: str) -> None:
    made = processor(made_vlms(family))
    with pytest.raises(RequestError, match=r"must not hold the special tokens.*found: "):
        made.read([noise(56, 56)], f"a {mark} ship")
    with pytest.raises(RequestError, match="must not hold the special tokens"):
        made.answer_tokens("a ship", mark, pictures=1)


def test_template_of_the_tokenizer_config(vlm: Make) -> None:
    folder = vlm("qwen2_5_vl")
    expected = processor(folder).read([noise(56, 56)], "a ship")["input_ids"]
    template = folder / "chat_template.jinja"
    change(folder, "tokenizer_config.json", chat_template=template.read_text())
    template.unlink()
    assert np.array_equal(processor(folder).read([noise(56, 56)], "a ship")["input_ids"], expected)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "must be a folder on this machine"),
        (lambda folder: (folder / "config.json").unlink(), "readable config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "must have its tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "must load in transformers"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "must have a chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"), "must take pictures and a question"),
        (lambda folder: (folder / "chat_template.jinja").write_text("no place"), "must take 1 picture at once"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "must load in transformers"),
        (lambda folder: change(folder, "config.json", model_type="bert"), r"answers questions about pictures.*bert"),
        (lambda folder: change(folder, "config.json", model_type="clip"), r"found: clip.*zero-shot"),
        (lambda folder: change(folder, "config.json", model_type=""), "found: none"),
    ],
)
def test_unusable_checkpoint_is_refused(vlm: Make, spoil: Callable[[Path], object], said: str) -> None:
    folder = vlm("qwen2_vl")
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        processor(folder)


@pytest.mark.parametrize(
    ("family", "name", "values", "rule"),
    [
        ("internvl", "processor_config.json", {"image_seq_length": 2**31}, "8388608 tokens"),
        ("internvl", "preprocessor_config.json", {"max_patches": 10**6}, "4096 patches"),
        ("internvl", "preprocessor_config.json", {"size": {"height": 10**6, "width": 56}}, "4096 pixels along a side"),
        ("internvl", "preprocessor_config.json", {"size": {"height": 4096, "width": 4096}, "min_patches": 9}, "pixels"),
        ("llava", "preprocessor_config.json", {"size": {"shortest_edge": 30000}}, "4096 pixels along a side"),
        ("llava", "processor_config.json", {"num_additional_image_tokens": 10**12}, "tokens"),
        ("qwen2_vl", "preprocessor_config.json", {"size": {"shortest_edge": 2**31, "longest_edge": 2**31}}, "pixels"),
    ],
)
def test_settings_that_would_exhaust_memory_are_refused(
    vlm: Make, family: str, name: str, values: dict[str, object], rule: str
) -> None:
    """Transformers makes as many pixels and tokens of a picture as its settings state."""
    folder = vlm(family)
    change(folder, name, **values)
    with pytest.raises(ModelError, match=rf"processor settings .*must make at most .*{rule}"):
        processor(folder)


def test_clip_checkpoint_is_refused(made_checkpoints: Path) -> None:
    with pytest.raises(ModelError, match="--model zero-shot"):
        processor(made_checkpoints / "clip")


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("qwen2_vl", "Qwen2VLImageProcessor"),
        ("qwen2_5_vl", "Qwen2VLImageProcessorFast"),
        ("llava", "CLIPImageProcessor"),
    ],
)
def test_image_processor_class_names(vlm: Make, family: str, named: str) -> None:
    """Checkpoints name classes that want another library; Pillow's do the same."""
    folder = vlm(family)
    expected = processor(folder).read([noise(56, 56)], "a ship")["pixel_values"]
    change(folder, "preprocessor_config.json", image_processor_type=named)
    assert np.array_equal(processor(folder).read([noise(56, 56)], "a ship")["pixel_values"], expected)


def test_remote_code_is_never_run(vlm: Make, tmp_path: Path) -> None:
    folder = vlm("qwen2_vl")
    expected = processor(folder).read([noise(56, 56)], "a ship")["input_ids"]
    mark = tmp_path / "was-here"
    (folder / "planted.py").write_text(f"open({str(mark)!r}, 'w')\nclass P: pass\n")
    for name, key in (("tokenizer_config", "AutoTokenizer"), ("preprocessor_config", "AutoProcessor")):
        change(folder, f"{name}.json", auto_map={key: "planted.P", "AutoImageProcessor": "planted.P"})
    assert np.array_equal(processor(folder).read([noise(56, 56)], "a ship")["input_ids"], expected)
    assert not mark.exists()
