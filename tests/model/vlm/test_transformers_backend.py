"""The `vlm` annotator: pictures that the network gets, and texts that become answers on the view."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from limner.model.annotator import Answer, View
from limner.model.checkpoints.files import find_files
from limner.model.tiling import join_tiles
from limner.model.views import to_image_coordinates
from limner.model.vlm.annotator import VlmAnnotator
from limner.model.vlm.image_text import ImageTextModel
from limner.model.vlm.processor import Processor
from limner.model.vlm.question import Question
from limner.model.vlm.texts import GeneratedText
from limner.model.vlm.transformers_backend import (
    BOX_UNITS,
    TransformersBackend,
    TransformersVlmAnnotator,
    TransformersVlmOptions,
    letterbox,
)
from limner.readers.errors import ModelError, RequestError
from limner.readers.options import make_plugin
from shapely.geometry import box

pytestmark = pytest.mark.slow

Make = Callable[[str], Path]
Show = Callable[..., list[View]]
Dictate = Callable[..., "Dictated"]
Picture = npt.NDArray[np.uint8]
CORE = ("llava", "qwen2_vl", "internvl")
FAMILIES = (*CORE, "qwen2_5_vl", "qwen3_vl", "gemma3")
RECORD = json.dumps(
    {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 0, "maximum": 9},
            "what": {"enum": ["ship", "crane"]},
            "seen": {"type": "boolean"},
        },
        "required": ["count", "what", "seen"],
        "additionalProperties": False,
    }
)


def noise(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def annotator(folder: Path, **options: str) -> VlmAnnotator:
    return make_plugin(TransformersVlmAnnotator, {"checkpoint": str(folder), "device": "cpu", "tile": "56", **options})


@pytest.fixture
def dictate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., "Dictated"]:
    """`dictate(*texts)`: networks answer with these texts from now on; their inputs are kept."""

    def start(*texts: str) -> Dictated:
        told = Dictated()
        left = list(texts)

        def generate(
            _: ImageTextModel, pictures: list[Picture], prompt: str, *, limit: int, schema: str = ""
        ) -> GeneratedText:
            del limit, schema
            told.pictures.append(pictures)
            told.prompts.append(prompt)
            return GeneratedText.read(left.pop(0))

        monkeypatch.setattr(ImageTextModel, "generate", generate)
        return told

    return start


@dataclass(frozen=True, slots=True)
class Dictated:
    """What a network was asked that was told what to say."""

    pictures: list[list[Picture]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


def test_a_thought_is_no_description(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    one = annotator(made_vlms("qwen2_vl"), max_tokens="77")
    [view] = show(one, noise(56, 56))
    dictate("<think>Hmm.</think>\n\nA ship.", "<think>Hmm, wa")
    [[answer]] = one.annotate([view])
    assert (answer.text, answer.text_cut, answer.notes) == ("A ship.", False, {"answer_thought": "Hmm."})
    with pytest.raises(ModelError, match=r"only thought.*Raise --set model_options\.max_tokens=NUMBER above 77"):
        one.annotate([view])


def test_the_cost_states_tokens(made_vlms: Make) -> None:
    one = TransformersBackend(TransformersVlmOptions(checkpoint=str(made_vlms("qwen2_vl")), tile=56, device="cpu"))
    question = Question("what does it show", max_tokens=100)
    cost = one.cost((2, 1), question)
    assert (cost.image_tokens, cost.answer_tokens, cost.context) == (2 * 1 * 2 * 2, 100, 4096)
    assert cost.tokens > cost.image_tokens + cost.answer_tokens
    labels = one.cost((2, 1), Question("what", "classify", ("a", "b")))
    assert (labels.image_tokens, labels.answer_tokens) == (8, 0)


def test_it_is_installed() -> None:
    [point] = entry_points(group="limner.annotators", name="vlm")
    assert point.load() is TransformersVlmAnnotator


@pytest.mark.parametrize(
    ("family", "tile"),
    [("llava", 56), ("internvl", 56), ("gemma3", 56), ("qwen2_vl", 336), ("qwen2_5_vl", 336), ("qwen3_vl", 320)],
)
def test_tile_size_of_the_checkpoint(made_vlms: Make, family: str, tile: int) -> None:
    """The side of its vision tower's pictures, or the multiple of its merged patches next to 336."""
    spec = TransformersBackend(TransformersVlmOptions(checkpoint=str(made_vlms(family)))).input_spec()
    assert (spec.tile, spec.overall, spec.variant, spec.bands) == (tile, False, family, None)
    spec = TransformersBackend(
        TransformersVlmOptions(checkpoint=str(made_vlms(family)), tile=112, views="tiles")
    ).input_spec()
    assert (spec.tile, spec.overall) == (112, True)


@pytest.mark.parametrize("family", CORE)
def test_network_gets_the_whole_canvas(made_vlms: Make, show: Show, dictate: Dictate, family: str) -> None:
    one = annotator(made_vlms(family))
    pixels = noise(300, 90)
    told = dictate(*["something"] * 9)
    shown = show(one, pixels, hd_num=3)
    assert all(view.grid.size[0] != view.grid.size[1] for view in shown)
    for view in shown:
        one.annotate([view])
        [[picture]] = told.pictures
        canvas = join_tiles(view.tiles, view.grid)
        assert np.array_equal(picture, letterbox(canvas) if family == "llava" else canvas)
        told.pictures.clear()


def test_a_letterbox_is_white_and_keeps_every_pixel() -> None:
    for width, height, x, y in ((9, 4, 0, 2), (4, 9, 2, 0), (5, 8, 1, 0), (7, 7, 0, 0)):
        picture = noise(width, height)
        square = letterbox(picture)
        side = max(width, height)
        assert square.shape == (side, side, 3)
        assert np.array_equal(square[y : y + height, x : x + width], picture)
        square[y : y + height, x : x + width] = 255
        assert (square == 255).all()


def test_views_are_the_global_view_and_then_each_tile(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    one = annotator(made_vlms("internvl"), views="tiles")
    told = dictate("something")
    view = show(one, noise(112, 112))[0]
    one.annotate([view])
    [pictures] = told.pictures
    assert view.global_view is not None
    assert np.array_equal(pictures[0], np.clip(np.rint(view.global_view), 0, 255).astype(np.uint8))
    assert np.array_equal(np.stack(pictures[1:]), view.tiles)


def test_network_with_several_pictures(made_vlms: Make, show: Show) -> None:
    one = annotator(made_vlms("qwen2_vl"), views="tiles", labels="ship,crane")
    views = show(one, noise(112, 112)) + show(one, noise(112, 112, seed=1))
    found = [answer.numbers["p.ship"] for [answer] in one.annotate(views)]
    assert len(found) == 2
    assert found[0] != found[1]


@pytest.mark.parametrize("family", [*CORE, "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("hd_num", [1, 2, 3, 4])
def test_boxes_round_trip_to_level_0_pixels(
    made_vlms: Make, show: Show, dictate: Dictate, family: str, hd_num: int
) -> None:
    """A box of the image in the family's own units comes back to the same level-0 pixels."""
    one = annotator(made_vlms(family), labels="ship", answer="locate")
    shown = show(one, np.full((800, 500, 3), 7, dtype=np.uint8), hd_num=hd_num, scale=4.0)
    assert len(shown) > 1
    for view in shown:
        width, height = view.grid.size
        canvas = np.array([width // 7, height // 14, width * 4 // 7, height * 5 // 7])
        side = max(width, height)
        if family == "llava":  # 0 to 1 of the white square around the canvas
            said = (canvas + np.tile([(side - width) // 2, (side - height) // 2], 2)) / side
        elif family == "qwen2_5_vl":  # pixels of what its processor makes, at most 140² of them: multiples of 28
            rows, columns = resized(made_vlms(family), view)
            said = canvas / np.tile([width, height], 2) * np.tile([columns, rows], 2)
        else:
            said = canvas / np.tile([width, height], 2) * 1000
        told = dictate(json.dumps([said.tolist()]))
        [[answer]] = one.annotate([view])
        finding = to_image_coordinates([answer], view)[0]
        assert (finding.label, finding.kind) == ("ship", "box")
        corner = np.tile([view.region.columns.start, view.region.rows.start], 2)
        expected = np.minimum((corner + canvas) * 4, [500, 800, 500, 800])  # no further than the picture
        assert finding.geometry.bounds == pytest.approx(tuple(expected), abs=1e-9)
        words = {"unit": "from 0 to 1 across", "thousandths": "from 0 to 1000 across", "pixels": "in pixels of the"}
        assert words[BOX_UNITS[family]] in told.prompts[0]


def resized(folder: Path, view: View) -> tuple[int, int]:
    """(height, width) of a view as a checkpoint's processor resizes it, by what it says of its patches."""
    made = Processor(find_files(str(folder), fetch=False))
    _, rows, columns = made.read([join_tiles(view.tiles, view.grid)], "a")["image_grid_thw"][0].tolist()
    return rows * 14, columns * 14


def test_pixel_boxes_are_of_the_resized_picture(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    """It takes at most 140² pixels here: 196 × 168 become less, and coordinates are of these."""
    one = annotator(made_vlms("qwen2_5_vl"), labels="ship", answer="locate", tile="28")
    pixels = np.zeros((168, 196, 3), dtype=np.uint8)
    [view] = show(one, pixels, hd_num=42)
    high, wide = resized(made_vlms("qwen2_5_vl"), view)
    assert wide * high <= 140 * 140 < 196 * 168
    told = dictate(f"[[0, 0, {wide}, {high}], [{wide / 2}, {high / 4}, {wide}, {high / 2}]]")
    [[whole, part]] = one.annotate([view])
    assert f"{wide} wide and {high} high" in told.prompts[0]
    assert to_image_coordinates([whole], view)[0].geometry.bounds == pytest.approx((0, 0, 196, 168))
    assert to_image_coordinates([part], view)[0].geometry.bounds == pytest.approx((98, 42, 196, 84))


def test_box_in_the_margin_is_unplaced(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    one = annotator(made_vlms("llava"), labels="ship", answer="locate")
    [view] = show(one, np.zeros((56, 168, 3), dtype=np.uint8))
    dictate("[[0.1, 0.1, 0.4, 0.3], [0.25, 0.3, 0.5, 0.5], [0.1, 0.2]]")
    [[kept, lost]] = one.annotate([view])
    assert to_image_coordinates([kept], view)[0].geometry.equals(
        box(42, 0, 84, 28)
    )  # a rim that the margin's pixels round to
    assert lost.label == "unplaced"
    assert lost.notes["why"] == "[0.1, 0.1, 0.4, 0.3] lies in the margin of the picture; [0.1, 0.2] is no box"


def test_exponents_in_boxes(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    one = annotator(made_vlms("llava"), labels="ship", answer="locate")
    [view] = show(one, np.zeros((112, 112, 3), dtype=np.uint8))
    dictate("[[1e-3, 0.0, 5E-1, 1.0]]")
    [[kept]] = one.annotate([view])
    assert to_image_coordinates([kept], view)[0].geometry.bounds == pytest.approx((0.112, 0, 56, 112))


def test_unknown_box_units_are_not_guessed(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    folder = made_vlms("gemma3")
    one = annotator(folder, labels="ship", answer="locate")
    with pytest.raises(ModelError, match=r"box coordinates are known.*gemma3.*boxes=pixels\|thousandths\|unit"):
        one.check([])
    annotator(folder, labels="ship,crane").check([])  # to choose a label needs none
    one = annotator(folder, labels="ship", answer="locate", boxes="thousandths")
    one.check([])
    [view] = show(one, np.zeros((112, 112, 3), dtype=np.uint8))
    dictate("[[0, 250, 500, 1000]]")
    [[kept]] = one.annotate([view])
    assert to_image_coordinates([kept], view)[0].geometry.bounds == (0, 28, 56, 112)
    assert one.identity["boxes"] == "thousandths"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_four_kinds_of_answer(made_vlms: Make, show: Show, family: str) -> None:
    folder = made_vlms(family)
    kinds: list[dict[str, str]] = [
        {"question": "what does it show", "max_tokens": "8"},
        {"labels": "ship,shipyard,crane"},
        {"labels": "ship", "answer": "locate", "boxes": "thousandths", "max_tokens": "200"},
        {"json_schema": RECORD, "max_tokens": "100"},
    ]
    found: list[Answer] = []
    for options in kinds:
        one = annotator(folder, **options)
        one.check([])
        views = show(one, noise(112, 56))
        if family == "gemma3" and "question" in options:  # with its weights it says nothing that is a word
            with pytest.raises(ModelError, match="must hold a text"):
                one.annotate(views)
            continue
        answers = one.annotate(views)
        assert [*answers] == [*annotator(folder, **options).annotate(views)]  # the same, made anew
        assert {answer.label for answer in answers[0]} <= set(one.labels)
        found += [*answers[0]]
    assert [one.geometry for one in found if one.label == "description"] == [None] * (family != "gemma3")
    weighed = next(one for one in found if "agreement" in one.numbers)
    assert sum(weighed.numbers[f"p.{label}"] for label in ("ship", "shipyard", "crane")) == pytest.approx(1, abs=3e-4)
    record = next(one for one in found if one.label == "record")
    assert record.notes["what"] in {"ship", "crane"}
    assert record.numbers.keys() >= {"count", "seen", "valid"}


def test_answers_do_not_depend_on_the_batch(made_vlms: Make, show: Show) -> None:
    one = annotator(made_vlms("qwen2_vl"), labels="ship,shipyard,crane")
    views = show(one, noise(168, 112), hd_num=2)
    together = one.annotate(views)
    alone = [one.annotate([view])[0] for view in reversed(views)][::-1]
    assert len(views) > 1
    assert [*together] == alone


def test_overflowing_number_is_an_error(made_vlms: Make, show: Show, dictate: Dictate) -> None:
    schema = json.dumps({"type": "object", "properties": {"n": {"type": "number"}}})
    one = annotator(made_vlms("internvl"), json_schema=schema)
    [view] = show(one, noise(56, 56))
    for number in ("1e999", "1" + "0" * 400):
        dictate(f'{{"n": {number}}}')
        with pytest.raises(ModelError, match=r"answer on .*finite numbers.*minimum and maximum"):
            one.annotate([view])


def test_identity(vlm: Make) -> None:
    folder = vlm("llava")
    before = annotator(folder).identity
    assert before == annotator(folder).identity
    names = ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja")
    assert {f"sha256_{name}" for name in (*names, "processor_config.json", "generation_config.json")} <= set(before)
    assert before["weights_sha256_llava"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (before["name"], before["family"], before["device"], before["dtype"]) == ("vlm", "llava", "cpu", "float32")
    assert before["shown"] == "the region as one picture, laid on a white square"
    assert all(f"{name} " in before["runtime"] for name in ("torch", "transformers", "llguidance"))
    assert annotator(folder, dtype="bfloat16").identity["dtype"] == "bfloat16"
    assert annotator(folder, views="tiles").identity["shown"].startswith("the global view, then each tile")
    (folder / "chat_template.jinja").write_text((folder / "chat_template.jinja").read_text() + "{# other #}")
    after = annotator(folder).identity
    assert {key for key in before if before[key] != after[key]} == {"version", "sha256_chat_template.jinja"}


def test_annotator_imports_no_torch(made_vlms: Make) -> None:
    code = (
        "import sys\nfrom limner.model.vlm.transformers_backend import TransformersVlmAnnotator as Vlm\n"
        f"one = Vlm(Vlm.Options(checkpoint={str(made_vlms('llava'))!r}, labels='a,b'))\n"
        "one.input_spec(None), one.labels\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'llguidance'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_network_access_without_fetch() -> None:
    code = (
        "import os, socket, sys\n"
        "def refuse(*_):\n    print('the network was touched'); os._exit(9)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from limner.model.vlm.transformers_backend import TransformersVlmAnnotator as Vlm\n"
        f"one = Vlm(Vlm.Options(checkpoint='nobody/nothing@{'0' * 40}'))\n"
        "try:\n    one.input_spec(None)\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ModelError checkpoint nobody/nothing@")
    assert "Add --fetch" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": ""}, "must be given"),
        ({"model": "llava"}, "must be one of"),
        ({"views": "all"}, "canvas or tiles"),
        ({"boxes": "metres"}, "pixels, thousandths, unit or"),
        ({"dtype": "int8"}, "float32, bfloat16, float16 or auto"),
        ({"tile": "12"}, "from 28 to 2048"),
        ({"tile": "wide"}, "from 28 to 2048"),
        ({"threads": "-1"}, "whole number"),
        ({"fetch": "yes"}, "true or false"),
        ({"labels": "ship", "answer": "locate", "views": "tiles"}, "must be canvas to locate"),
        ({"labels": "ship"}, "at least 2 to classify"),
        ({"json_schema": '{"type": "object", "not": {}}'}, "held to while"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make_plugin(TransformersVlmAnnotator, {"checkpoint": "somewhere", **options})


def test_damaged_weights_fail_on_load(vlm: Make) -> None:
    folder = vlm("qwen2_vl")
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelError, match="must be whole"):
        annotator(folder).load()


def test_network_is_loaded_once(made_vlms: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ImageTextModel] = []
    load = ImageTextModel.__init__

    def counted(self: ImageTextModel, processor: Processor, *, device: str, dtype: str, threads: int) -> None:
        made.append(self)
        load(self, processor, device=device, dtype=dtype, threads=threads)

    monkeypatch.setattr(ImageTextModel, "__init__", counted)
    one = annotator(made_vlms("llava"), labels="ship,crane")
    one.load()
    one.load()
    assert len(made) == 1
