"""Tiny checkpoints in transformers' format, with random weights, made and saved as anybody's are."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    ConvNextConfig,
    ConvNextForImageClassification,
    Deimv2Config,
    Deimv2ForObjectDetection,
    DetrConfig,
    DPTConfig,
    DPTForSemanticSegmentation,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    HGNetV2Config,
    LwDetrConfig,
    LwDetrForObjectDetection,
    LwDetrViTConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    OwlViTConfig,
    OwlViTForObjectDetection,
    PreTrainedTokenizerFast,
    ResNetConfig,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrForObjectDetection,
    RTDetrResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
    ViTForImageClassification,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deformable_detr.image_processing_pil_deformable_detr import DeformableDetrImageProcessorPil
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.oneformer.image_processing_pil_oneformer import OneFormerImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

NAMES = {0: "field", 1: "water", 2: "town"}
TILE = 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "a", "photo", "of", "cat", "dog", "water", "tower"]
SQUARE = {"height": TILE, "width": TILE}
NAMED = {"id2label": NAMES, "label2id": {name: i for i, name in NAMES.items()}}


def tokenizer() -> PreTrainedTokenizerFast:
    """Reads a dozen words."""
    reader = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106 - a token of text
    reader.pre_tokenizer = pre_tokenizers.Whitespace()
    reader.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=reader, **marks)


def _of(*stages: str) -> dict[str, Any]:
    """The argument of backbones' configs that their signatures leave out."""
    return {"out_features": [*stages]}


def _swin() -> SwinConfig:
    small: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    return SwinConfig(image_size=TILE, **_of("stage1", "stage2", "stage3", "stage4"), **small)


def _resnet(kind: Any) -> Any:
    small = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return kind(**small, out_features=["stage2", "stage3", "stage4"])


def _detr(kind: str = "Detr", **changes: Any) -> tuple[Any, Any]:
    """A detector of the DETR kind by the name of its classes, with the processor that it goes with."""
    inner = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 9}
    inner |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 2}
    size = {"shortest_edge": TILE, "longest_edge": 2 * TILE}
    config = getattr(transformers, f"{kind}Config")(backbone_config=_resnet(ResNetConfig), **inner, **changes, **NAMED)
    own = {"DabDetr": "ConditionalDetr", "TableTransformer": "Detr"}.get(kind, kind)
    processor = getattr(transformers, f"{own}ImageProcessorPil")(size=size)
    return getattr(transformers, f"{kind}ForObjectDetection")(config), processor


def _rt_detr(kind: str = "RTDetr") -> tuple[Any, Any]:
    small = {"d_model": 16, "encoder_hidden_dim": 16, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 9}
    inner = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"encoder_in_channels": [8, 16, 16], "num_denoising": 0, "decoder_in_channels": [16, 16, 16]}
    backbone = _resnet(RTDetrResNetConfig)
    config = getattr(transformers, f"{kind}Config")(backbone_config=backbone, **small, **inner, **sizes, **NAMED)
    return getattr(transformers, f"{kind}ForObjectDetection")(config), RTDetrImageProcessorPil(size=SQUARE)


def _yolos() -> tuple[Any, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(image_size=[TILE, TILE], patch_size=16, num_detection_tokens=9, **small, **NAMED)
    return YolosForObjectDetection(config), YolosImageProcessorPil(size={"shortest_edge": TILE, "longest_edge": 99})


def _vit(**changes: Any) -> tuple[Any, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=TILE, patch_size=16, **small, **NAMED, **changes)
    return ViTForImageClassification(config), ViTImageProcessorPil(size=SQUARE)


def _convnext() -> tuple[Any, Any]:
    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], **NAMED)
    return ConvNextForImageClassification(config), ConvNextImageProcessorPil(size={"shortest_edge": TILE})


def _segformer() -> tuple[Any, Any]:
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = SegformerConfig(**sizes, decoder_hidden_size=16, **NAMED)
    return SegformerForSemanticSegmentation(config), SegformerImageProcessorPil(size=SQUARE)


def _upernet() -> tuple[Any, Any]:
    stages = _of("stage1", "stage2", "stage3", "stage4")
    backbone = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], **stages)
    config = UperNetConfig(backbone_config=backbone, hidden_size=16, auxiliary_in_channels=16, **NAMED)
    return UperNetForSemanticSegmentation(config), SegformerImageProcessorPil(size=SQUARE)


def _beit() -> tuple[Any, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    sizes = {"image_size": TILE, "patch_size": 16, "out_indices": [1, 2, 3, 4], "auxiliary_channels": 8}
    config = BeitConfig(use_relative_position_bias=True, **small, **sizes, **NAMED)
    return BeitForSemanticSegmentation(config), BeitImageProcessorPil(size=SQUARE, do_reduce_labels=True)


def _dpt() -> tuple[Any, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    sizes = {"image_size": TILE, "patch_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
    config = DPTConfig(backbone_out_indices=[0, 1, 2, 3], **small, **sizes, **NAMED)
    return DPTForSemanticSegmentation(config), DPTImageProcessorPil(size=SQUARE)


def _mobilevit() -> tuple[Any, Any]:
    sizes = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "aspp_out_channels": 8}
    config = MobileViTConfig(image_size=TILE, num_attention_heads=2, **sizes, **NAMED)
    return MobileViTForSemanticSegmentation(config), MobileViTImageProcessorPil(
        size={"shortest_edge": TILE}, crop_size=SQUARE
    )


def _mask2former() -> tuple[Any, Any]:
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2, "num_queries": 9}
    inner = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 16, "dim_feedforward": 16}
    config = Mask2FormerConfig(backbone_config=_swin(), **sizes, **inner, **NAMED)
    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": TILE, "longest_edge": 2 * TILE}, size_divisor=32)
    return Mask2FormerForUniversalSegmentation(config), processor


def _maskformer() -> tuple[Any, Any]:
    inner: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 9}
    inner |= {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    decoder = DetrConfig(backbone_config=_resnet(ResNetConfig), **inner)
    sizes = {"fpn_feature_size": 32, "mask_feature_size": 32}
    config = MaskFormerConfig(backbone_config=_swin(), decoder_config=decoder, **sizes, **NAMED)
    processor = MaskFormerImageProcessorPil(size={"shortest_edge": TILE, "longest_edge": 2 * TILE}, size_divisor=32)
    return MaskFormerForInstanceSegmentation(config), processor


def _oneformer() -> tuple[Any, Any, Any]:
    letters = sorted(set("the task is semantic") - {" "})
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    reader = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    sizes = {"conv_dim": 32, "mask_dim": 32, "hidden_dim": 32, "num_attention_heads": 2, "num_queries": 9}
    inner = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 16, "dim_feedforward": 16}
    output = {"task_seq_len": 24, "text_encoder_vocab_size": len(words), "query_dec_layers": 1}
    config = OneFormerConfig(backbone_config=_swin(), **sizes, **inner, **output, **NAMED)
    processor = OneFormerImageProcessorPil(size={"shortest_edge": TILE, "longest_edge": 2 * TILE})
    return OneFormerForUniversalSegmentation(config), processor, reader


def _lw_detr() -> tuple[Any, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": TILE}
    inner = {"window_block_indices": [0], "num_windows": 4, "out_indices": [1, 2], "pretrain_image_size": TILE}
    config = LwDetrConfig(
        backbone_config=LwDetrViTConfig(**small, **inner), projector_scale_factors=[1.0], **_grouped(), **NAMED
    )
    return LwDetrForObjectDetection(config), DeformableDetrImageProcessorPil(size=SQUARE)


def _rf_detr() -> tuple[Any, Any]:
    small: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"image_size": TILE, "patch_size": 16}
    backbone = RfDetrDinov2Config(num_windows=2, **_of("stage1", "stage2"), **small)
    config = RfDetrConfig(backbone_config=backbone, **_grouped(), **NAMED)
    return RfDetrForObjectDetection(config), DeformableDetrImageProcessorPil(size=SQUARE)  # its own needs torchvision


def _grouped() -> dict[str, int]:
    small = {"d_model": 16, "decoder_ffn_dim": 16, "decoder_layers": 2, "num_queries": 9, "c2f_num_blocks": 1}
    return small | {"group_detr": 2, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2}


def _deimv2() -> tuple[Any, Any]:
    widths, four = [8, 8, 16, 16], [1, 1, 1, 1]
    stages: dict[str, Any] = {
        "stage_in_channels": [8, *widths[:-1]],
        "stage_mid_channels": [8] * 4,
        "stage_out_channels": widths,
    }
    stages |= {"stage_num_blocks": four, "stage_numb_of_layers": four, "stage_kernel_size": [3] * 4}
    light: dict[str, Any] = {"stage_light_block": [False] * 4, "stage_downsample": [False, True, True, True]}
    small: dict[str, Any] = {"stem_channels": [3, 8, 8], "embedding_size": 8, "hidden_sizes": widths, "depths": four}
    backbone = HGNetV2Config(**small, **stages, **light, **_of("stage2", "stage3", "stage4"))
    inner = {"d_model": 16, "encoder_hidden_dim": 16, "decoder_layers": 2, "num_queries": 9, "num_denoising": 0}
    inner |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"encoder_in_channels": [8, 16, 16], "decoder_in_channels": [16, 16, 16]}
    config = Deimv2Config(backbone_config=backbone, **inner, **sizes, **NAMED)
    return Deimv2ForObjectDetection(config), RTDetrImageProcessorPil(size=SQUARE)


def _owl(config: Any, model: Any, processor: Any) -> tuple[Any, Any, Any]:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 8, "pad_token_id": 0}
    text |= {"bos_token_id": 2, "eos_token_id": 3}
    vision = {**small, "image_size": TILE, "patch_size": 16}
    made = config(text_config=text, vision_config=vision, projection_dim=16)
    return model(made), processor(size=SQUARE), tokenizer()


def _grounding_dino() -> tuple[Any, Any, Any]:
    bert: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    text = BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **bert)
    small: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2}
    small |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads: dict[str, Any] = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 9,
        "max_text_len": 24,
    }
    heads |= {"num_feature_levels": 3}
    backbone = _swin()
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = GroundingDinoConfig(backbone_config=backbone, text_config=text, **small, **heads)
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": TILE, "longest_edge": 2 * TILE})
    return GroundingDinoForObjectDetection(config), processor, tokenizer()


MAKERS = {
    "beit": _beit,
    "convnext": _convnext,
    "conditional_detr": lambda: _detr("ConditionalDetr", d_model=16),
    "d_fine": lambda: _rt_detr("DFine"),
    "dab-detr": lambda: _detr("DabDetr", hidden_size=16),
    "deformable_detr": lambda: _detr("DeformableDetr", d_model=32, num_feature_levels=3),
    "deimv2": _deimv2,
    "detr": lambda: _detr(d_model=16),
    "dpt": _dpt,
    "grounding-dino": _grounding_dino,
    "lw_detr": _lw_detr,
    "mask2former": _mask2former,
    "maskformer": _maskformer,
    "mobilevit": _mobilevit,
    "oneformer": _oneformer,
    "owlv2": lambda: _owl(Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil),
    "owlvit": lambda: _owl(OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessorPil),
    "rf_detr": _rf_detr,
    "rt_detr": _rt_detr,
    "rt_detr_v2": lambda: _rt_detr("RTDetrV2"),
    "segformer": _segformer,
    "table-transformer": lambda: _detr("TableTransformer", d_model=16),
    "upernet": _upernet,
    "vit": _vit,
    "vit-many": lambda: _vit(problem_type="multi_label_classification"),
    "yolos": _yolos,
}


def save(name: str, folder: Path) -> Path:
    """A checkpoint of that name in `folder / name`."""
    made = MAKERS[name]()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in made[0].parameters():
            weight.normal_(0.0, 0.3, generator=random)
    for part in made:
        part.save_pretrained(folder / name)
    return folder / name


def save_contrastive(folder: Path) -> None:
    """Checkpoints `clip` and `siglip` in `folder`: pictures of 32 px, texts of 16 tokens, ten words.

    The filters of their patches are smooth, as training makes them.
    """
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = {word: i for i, word in enumerate([*marks.values(), "a", "photo", "of", ".", "cat", "dog", "water"])}
    reader = Tokenizer(models.WordLevel(words, unk_token=marks["unk_token"]))
    reader.pre_tokenizer = pre_tokenizers.Whitespace()
    reader.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokens = PreTrainedTokenizerFast(tokenizer_object=reader, pad_token=marks["eos_token"], **marks)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    square = {"height": 32, "width": 32}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    siglip = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    for name, model, processor in (
        ("clip", clip, CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)),
        ("siglip", siglip, SiglipImageProcessorPil(size=square)),
    ):
        random = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if not key.startswith("logit"):
                    weight.normal_(0.0, 0.3, generator=random)
                if weight.dim() == 4:
                    weight.copy_(3 * torch.nn.functional.avg_pool2d(weight, 3, stride=1, padding=1))
            model.logit_scale.fill_(2.0)
            if isinstance(model, SiglipModel):
                model.get_parameter("logit_bias").fill_(-0.7)
        for part in (model, processor, tokens):
            part.save_pretrained(folder / name)
