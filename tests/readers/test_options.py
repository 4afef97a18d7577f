"""Options: texts become types, what does not fit is one error, and one declaration feeds lists too."""

import pickle
from typing import Literal

import pytest
from limner.readers.errors import RequestError
from limner.readers.options import NEUTRAL, Options, list_options, options_of, options_table, parse_options
from pydantic import Field, field_validator


class Made(Options):
    """Options of every type."""

    checkpoint: str = Field(description="A folder.", examples=["--model made:FOLDER"])
    tile: int = Field(default=256, ge=8, le=4096, description="Pixels a side.")
    share: float | None = Field(default=None, ge=0, le=1, description="A part of the whole.")
    labels: tuple[str, ...] = Field(default=(), description="What to look for.")
    templates: tuple[str, ...] = Field(
        default=("a {}",), description="Words around.", json_schema_extra={"separator": ";"}
    )
    box: tuple[float, float] = Field(default=(0.0, 1.5), description="From and to.")
    unit: Literal["", "pixels", "unit"] = Field(default="", description="Of boxes.")
    fetch: bool = Field(default=False, description="Whether the network is allowed.", json_schema_extra=NEUTRAL)

    @field_validator("labels")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            msg = "must be valid: each is named once"
            raise ValueError(msg)
        return value


def parse(**given: object) -> Made:
    return parse_options(Made, {"checkpoint": "x", **given}, "made")


def test_text_is_converted_to_the_fields_types() -> None:
    found = parse(tile="512", share="0.5", labels="a, b,", templates="{}; one {}", box="1,2", fetch="true")
    assert (found.tile, found.share, found.labels, found.templates) == (512, 0.5, ("a", "b"), ("{}", "one {}"))
    assert (found.box, found.fetch, found.unit) == ((1.0, 2.0), True, "")


def test_empty_text_is_the_default_except_for_text_fields() -> None:
    found = parse(tile="", share="", labels="", unit="", checkpoint="")
    assert found == Made.model_validate({"checkpoint": ""})


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"tile": "7"}, "must be a whole number from 8 to 4096"),
        ({"tile": "a"}, "must be a whole number from 8 to 4096"),
        ({"tile": "9" * 5000}, "must be a whole number from 8 to 4096"),
        ({"share": "nan"}, "must be a number from 0 to 1"),
        ({"share": "1.5"}, "must be a number from 0 to 1"),
        ({"box": "1"}, "must be 2 numbers separated by commas"),
        ({"unit": "metres"}, "must be nothing, pixels or unit"),
        ({"fetch": "yes"}, "must be true or false"),
        ({"labels": "a,a"}, "must be valid: each is named once"),
    ],
)
def test_an_invalid_value_is_one_error_with_the_valid_ones(given: dict[str, str], rule: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**given)
    assert error.value.subject == f"option {next(iter(given))!r} of made"
    assert error.value.rule == rule
    assert len(error.value.value) <= 100


def test_an_unknown_option_is_refused_with_the_closest_one() -> None:
    with pytest.raises(RequestError) as error:
        parse(label="a")
    assert str(error.value).startswith("option 'label' of made must be one of ")
    assert "Did you mean 'labels'? Correct its name" in str(error.value)
    with pytest.raises(RequestError, match=r"option 'x' of bare must not be given, since there are none"):
        parse_options(Options, {"x": "1"}, "bare")


def test_a_missing_option_is_refused_with_an_example() -> None:
    with pytest.raises(
        RequestError, match=r"'checkpoint' of made must be given. Give, for example, --model made:FOLDER"
    ):
        parse_options(Made, {}, "made")


def test_options_are_frozen_and_survive_pickle_and_text() -> None:
    found = parse(tile="512", share="0.25", labels="a,b", templates="{};one {}", box="1,2.5", unit="unit", fetch="true")
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - our own
    assert parse_options(Made, found.texts(), "made") == found
    assert found.texts()["templates"] == "{};one {}"
    assert parse().texts() == {"checkpoint": "x"}
    with pytest.raises(ValueError, match="frozen"):
        found.tile = 8  # pyright: ignore[reportAttributeAccessIssue] - this is what is refused


def test_list_and_table_of_options() -> None:
    rows = {row.name: row for row in list_options(Made)}
    assert (rows["tile"].type, rows["tile"].default) == ("a whole number from 8 to 4096", "256")
    assert (rows["share"].type, rows["share"].default) == ("a number from 0 to 1", "")
    assert rows["templates"].type == "texts separated by ';'"
    assert [name for name, row in rows.items() if row.neutral] == ["fetch"]
    assert Made.neutral() == {"fetch"}
    assert "| `tile` | a whole number from 8 to 4096 | `256` | Pixels a side. |\n" in options_table(Made)
    assert options_table(Options) == "It takes no options.\n"


def test_options_of_a_plugin() -> None:
    class Bare: ...

    class Wrong:
        Options = dict

    assert options_of(Bare) is Options
    with pytest.raises(RequestError, match="subclass"):
        options_of(Wrong)
