"""Boxes in the forms of several families, placed on the canvas, or refused with the reason."""

import pytest
from limner.model.vlm.box_format import BoxFormat, Unit

PLACE = (16.0, 32.0, 48.0, 64.0)  # on a canvas of 128 × 128


def read(unit: Unit | str, text: str) -> tuple[list[tuple[tuple[float, ...], str, str]], str]:
    """((corners, form, name) of each box, errors)."""
    made = BoxFormat.of(unit, (0.0, 0.0, 128.0, 128.0), (128, 128))  # type: ignore[arg-type]
    found, errors = made.read(text)
    return [(tuple(one.geometry.bounds), one.form, one.name) for one in found], errors


@pytest.mark.parametrize(
    ("unit", "text", "form", "name"),
    [
        ("pixels", "[[16, 32, 48, 64]]", "", ""),
        ("pixels", '{"boxes": [[16, 32, 48, 64]]}', "", ""),
        ("thousandths-yx", "[[250, 125, 500, 375]]", "", ""),
        ("pixels", '[{"bbox_2d": [16, 32, 48, 64], "label": "a ship"}]', "bbox_2d", "a ship"),
        ("thousandths", '{"label": "ship", "bbox_2d": [125, 250, 375, 500]}', "bbox_2d", "ship"),
        ("", '```json\n[{"box_2d": [250, 125, 500, 375], "label": "ship"}]\n```', "box_2d", "ship"),
        ("thousandths-yx", '[{"box_2d": [250, 125, 500, 375]}]', "box_2d", ""),
        ("", "<ref>ship</ref><box>(125,250),(375,500)</box>", "<box>", "ship"),
        ("thousandths", "<box>[[125, 250, 375, 500]]</box>", "<box>", ""),
        (
            "",
            "<|object_ref_start|>ship<|object_ref_end|><|box_start|>(125,250),(375,500)<|box_end|>",
            "<box>",
            "ship",
        ),
        ("", "<loc0256><loc0128><loc0512><loc0384> ship", "<loc>", ""),
        ("pixels", "<loc0256><loc0128><loc0512><loc0384> ship", "<loc>", ""),  # can be nothing else
    ],
)
def test_a_box_is_placed_in_the_form_of_its_family(unit: str, text: str, form: str, name: str) -> None:
    assert read(unit, text) == ([(PLACE, form, name)], "")


def test_several_boxes_of_999() -> None:
    found, errors = read("", "<|ref|>ship<|/ref|><|det|>[[0, 0, 999, 999], [333, 0, 666, 999]]<|/det|>")
    assert errors == ""
    assert [form for _, form, _ in found] == ["<|det|>"] * 2
    assert found[0][0] == (0, 0, 128, 128)
    assert found[1][0] == pytest.approx((128 / 3, 0, 256 / 3, 128))


@pytest.mark.parametrize(
    ("unit", "text", "why"),
    [
        ("", "[[16, 32, 48, 64]]", "coordinates that nothing states: --set model_options.boxes=pixels for Qwen2.5-VL"),
        ("", '[{"bbox_2d": [16, 32, 48, 64]}]', "coordinates that nothing states"),
        ("pixels", '[{"box_2d": [16, 32, 48, 64]}]', "y first, in thousandths, but pixels were asked for"),
        ("thousandths", '[{"box_2d": [16, 32, 48, 64]}]', "--set model_options.boxes=thousandths-yx"),
        ("pixels", "<box>(16,32),(48,64)</box>", "coordinates are thousandths, but pixels were asked for"),
        ("thousandths-yx", '[{"bbox_2d": [16, 32, 48, 64]}]', "x first, but thousandths-yx were asked for"),
        ("", "<loc0512><loc0128><loc0256><loc0384>", "has no area"),
        ("", "<|det|>[[0, 0, 1000, 999]]<|/det|>", "leaves the picture of 999 × 999"),
        ("pixels", "[" + "[1, 2, 3, 4]," * 101 + "]", "101 boxes are more than 100"),
        ("", "<|det|>a picture of Dr Rossi<|/det|>", "a <|det|> holds no box"),
        ("", '{"box_2d": ["Dr Rossi"]}', "a box_2d holds no box"),
    ],
)
def test_a_box_that_cannot_be_placed_has_the_reason(unit: str, text: str, why: str) -> None:
    found, errors = read(unit, text)
    assert found == []
    assert why in errors
    assert "Rossi" not in errors


def test_a_request_names_the_order_of_the_corners() -> None:
    whole = (0.0, 0.0, 128.0, 128.0)
    assert (
        "[y0, x0, y1, x1], in coordinates from 0 to 1000 across"
        in BoxFormat.of("thousandths-yx", whole, (9, 9)).request
    )
    assert "[x0, y0, x1, y1], in pixels of the image" in BoxFormat.of("pixels", whole, (9, 9)).request
    own = BoxFormat.of("", whole, (9, 9))
    assert "form that you were trained to write" in own.request
    assert own.schema == ""
