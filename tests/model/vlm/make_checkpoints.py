"""Small vision-language checkpoints with random weights, saved as transformers saves them.

Tests find it by the fixture `made_vlms`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    GenerationConfig,
    InternVLConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

Savable = Any  # whatever of transformers has save_pretrained
TEXTS = ["a ship at the quay and a crane", "[[1, 2, 3, 4]]", '{"count": 3, "seen": true}', "what does it show"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "llava": (
        "{% for m in messages %}{{ m.role.upper() }}:{% for c in m.content %}"
        "{% if c.type == 'image' %} <image>\n{% else %} {{ c.text }}{% endif %}{% endfor %}"
        "{% if m.role == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "internvl": CHATML.replace("IMAGE", "<ctx>\n"),
    "gemma3": (
        "<s>{% for m in messages %}<turn>{{ m.role }}\n{% for c in m.content %}"
        "{% if c.type == 'image' %}<boi>{% else %}{{ c.text }}{% endif %}{% endfor %}<over>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}"
    ),
}
QWEN = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**TINY, "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False}
VISION: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
UNKNOWN = {"unk_token": "<unk>"}
TURNS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SEEDS = {"llava": 6, "qwen2_vl": 1, "qwen2_5_vl": 4, "qwen3_vl": 3, "internvl": 1, "gemma3": 1}
"""With these each names a box when it is asked to locate, and does not go on for a hundred."""
MARKED = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


def byte_level(marks: list[str], **named: object) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; `marks` are special and come first."""
    reader = Tokenizer(models.BPE())
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(marks) + 320, initial_alphabet=alphabet, special_tokens=marks, show_progress=False
    )
    reader.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=reader, **named)


def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer as LLaMA's: spaces are marks, and what it has no token for are bytes."""
    marks = ["<unk>", "<s>", "</s>", "<image>"]
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "\u2581")} | set("ASISTNUER:"))
    merges = [("\u2581", "s"), ("\u2581", "q"), ("s", "h"), ("i", "p"), ("\u2581s", "h"), ("\u2581sh", "ip")]
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *("".join(pair) for pair in merges)]
    known = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    reader = Tokenizer(models.BPE(vocab=known, merges=merges, byte_fallback=True, fuse_unk=True, **UNKNOWN))
    reader.normalizer = normalizers.Replace(" ", "\u2581")
    reader.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", **UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=reader, extra_special_tokens={"image_token": "<image>"}, **named)


def save(folder: Path, family: str, *parts: Savable, processor: dict[str, Any] | None = None) -> Path:
    """Fill a checkpoint at random and save its parts (settings, images, tokenizer), and what no part saves."""
    config, images, tokenizer = parts
    model = AutoModelForImageTextToText.from_config(config)
    random = torch.Generator().manual_seed(SEEDS[family])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            looks = "q_proj" in name or "k_proj" in name  # so sharply that places matter
            weight.normal_(0.0, 1.0 if looks else 0.25 if weight.dim() > 1 else 0.05, generator=random)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True, temperature=2.0)
    for part in (model, images, tokenizer):
        part.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATES.get(family, QWEN), encoding="utf-8")
    if processor is not None:
        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def make_llava(folder: Path) -> Path:
    """One picture of 56 pixels, of which CLIP's processor would crop the border; a LLaMA tokenizer."""
    tokenizer = sentencepiece()
    vision = CLIPVisionConfig(**VISION, image_size=56, patch_size=14, projection_dim=16)
    text = {"model_type": "llama", **TEXT, "vocab_size": len(tokenizer)}
    more: dict[str, Any] = {"image_token_id": 3}  # a name of its config that its signature leaves out
    config = LlavaConfig(vision_config=vision, text_config=text, **more)
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    return save(folder, "llava", config, images, tokenizer, processor=processor)


def make_qwen(folder: Path, family: str) -> Path:
    """Pictures of any size, in patches that the processor merges; positions in three dimensions."""
    marks = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_level(marks, **MARKED)
    patch = 16 if family == "qwen3_vl" else 14
    text = {**TEXT, "vocab_size": len(tokenizer) + 7, "head_dim": 8, "bos_token_id": None, "eos_token_id": 1}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    places: dict[str, Any] = {
        "image_token_id": 4,
        "video_token_id": 5,
        "vision_start_token_id": 2,
        "vision_end_token_id": 3,
    }
    config: Any
    if family == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": patch}
        config = Qwen2VLConfig(text_config=text, vision_config=vision, **places)
    elif family == "qwen2_5_vl":
        vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 32}
        vision |= {"patch_size": patch, "window_size": 56, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **places)
    else:
        vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 32}
        vision |= {"patch_size": patch, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        config = Qwen3VLConfig(text_config=text, vision_config=vision, **places)
    images = Qwen2VLImageProcessorPil(patch_size=patch, size={"shortest_edge": 56 * 56, "longest_edge": 140 * 140})
    return save(folder, family, config, images, tokenizer)


def make_internvl(folder: Path) -> Path:
    """Tiles of 56 pixels that the processor cuts by itself, and a thumbnail."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<ctx>"}
    named["video_token"] = "<video>"  # noqa: S105 - not a secret
    marks = ["<|im_start|>", "<|im_end|>", *named.values()]
    tokenizer = byte_level(marks, extra_special_tokens=named, **MARKED)
    vision = {**VISION, "image_size": [56, 56], "patch_size": [14, 14]}
    text = {"model_type": "qwen2", **TEXT, "vocab_size": len(tokenizer)}
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=4, image_seq_length=4)
    images = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True)
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    return save(folder, "internvl", config, images, tokenizer, processor=processor)


def make_gemma3(folder: Path) -> Path:
    """Pictures squashed to 56 pixels that attend both ways; layers that look back over eight tokens alone."""
    named = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<soft>"}
    marks = ["<pad>", "</s>", "<s>", "<turn>", "<over>", *named.values()]
    tokenizer = byte_level(marks, extra_special_tokens=named, **TURNS)
    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": 56, "patch_size": 14}
    text = {**TEXT, "vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": 8}
    text["layer_types"] = ["sliding_attention", "full_attention"]
    places: dict[str, Any] = {"image_token_index": 7, "boi_token_index": 5, "eoi_token_index": 6}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **places)
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    processor = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    return save(folder, "gemma3", config, images, tokenizer, processor=processor)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "llava": make_llava,
    "qwen2_vl": lambda folder: make_qwen(folder, "qwen2_vl"),
    "qwen2_5_vl": lambda folder: make_qwen(folder, "qwen2_5_vl"),
    "qwen3_vl": lambda folder: make_qwen(folder, "qwen3_vl"),
    "internvl": make_internvl,
    "gemma3": make_gemma3,
}
