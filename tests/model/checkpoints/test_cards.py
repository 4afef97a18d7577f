"""Model cards: what ships is complete, and what is wrong in a card is said."""

from pathlib import Path

import pytest
import yaml
from limner.model.checkpoints import cards
from limner.model.checkpoints.cards import ModelCard, find_any_card, find_card, read_card, shipped_cards
from limner.model.checkpoints.untrusted_yaml import parse_yaml
from limner.readers.errors import ModelError


@pytest.fixture
def content() -> dict[str, object]:
    """A card as plain values."""
    return yaml.safe_load(find_card("csmask").model_dump_json())


def read(content: dict[str, object]) -> ModelCard:
    return read_card(yaml.safe_dump(content), subject="card test")


@pytest.mark.parametrize("name", shipped_cards())
def test_cards_that_ship_are_parsed_as_strictly_as_others(name: str) -> None:
    text = (Path(cards.__file__).parent / "cards" / f"{name}.yaml").read_text(encoding="utf-8")
    assert repr(parse_yaml(text, name, shipped=True)) == repr(parse_yaml(text, name))
    with pytest.raises(ModelError, match="the name 'name' is given twice"):
        parse_yaml(f"{text}\nname: another\n", name, shipped=True)


def test_the_cards_that_ship() -> None:
    assert shipped_cards() == ("brain", "brain-mr", "csmask", "csmask-cloud", "gland")
    assert find_card("csmask").labels == ("shadow", "water", "snow/ice", "land", "cloud")
    assert find_card("csmask-cloud").labels == ("cloud", "shadow")
    for name in shipped_cards():
        card = find_any_card(name)
        assert card.name == name
        assert card.known_mistakes
        assert len({kind.colour for kind in card.classes}) == len(card.classes)
        if isinstance(card, ModelCard):
            assert (card.tile - 2 * card.halo) % 32 == 0, "tiles must keep step with the network's pooling"


def test_a_card_reads_itself_back(content: dict[str, object]) -> None:
    assert read(content) == find_card("csmask")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiel": 256}, r"must have known keys only \(found: tiel\). Did you mean 'tile'"),
        ({"resolution": {"value": 30, "unit": "m", "tolerate": 2}}, r"resolution.tolerate\). Did you mean 'tolerates'"),
        ({"tile": 64}, "wider than its two halos"),
        ({"tile": "wide"}, "tile: .*found: wide"),
        ({"classes": [{"name": "a", "colour": "#000000"}] * 2}, "two class names are the same"),
        ({"classes": [{"name": n, "colour": "#000000", "background": True} for n in "ab"]}, "not be background"),
        ({"classes": [{"name": "a", "colour": "red"}, {"name": "b", "colour": "#000000"}]}, "classes.0.colour"),
        ({"not_for": []}, "not_for"),
        ({"annotator": "other"}, "annotator"),
    ],
)
def test_errors_of_a_card_are_named(content: dict[str, object], change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(content | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1]}, "one value each"),
        ({"std": [0.0] * 6}, "std"),
        ({"sha256": "abc"}, "sha256"),
        ({"valid_range": [1, 0]}, "ordered"),
        ({"bnads": []}, r"variants.0.bnads\). Did you mean 'bands'"),
    ],
)
def test_errors_of_a_variant_are_named(content: dict[str, object], change: dict[str, object], message: str) -> None:
    first, *_ = content["variants"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType] - plain YAML
    with pytest.raises(ModelError, match=message):
        read(content | {"variants": [first | change]})


@pytest.mark.parametrize(("text", "message"), [("a: [", "must be YAML"), ("- a", "a mapping"), ("", "a mapping")])
def test_other_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_card(text, subject="card test")


def test_a_card_by_path_counts_its_weights_from_its_own_folder(tmp_path: Path, content: dict[str, object]) -> None:
    first, *_ = content["variants"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType] - plain YAML
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content | {"variants": [first | {"weights": "net.onnx"}]}), encoding="utf-8")
    card = find_card(str(path))
    assert card.variants[0].weights == str(tmp_path / "net.onnx")
    moved = read(content | {"variants": [first | {"weights": "elsewhere/net.onnx"}]})
    assert card.digest == moved.digest
    assert card.digest != read(content | {"variants": [first], "fill": "mean"}).digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csmsk", "Did you mean 'csmask'"),
        ("gone.yaml", "readable text file"),
        ("x", "Known: brain"),
    ],
)
def test_unknown_cards(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_card(name)
