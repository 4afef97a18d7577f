"""Which annotator a run uses: the one that was named, or the only sensible one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ...model.annotator import Annotator
from ...readers.errors import LimnerError, RequestError, excerpt
from ...readers.files import parse_json, read_file
from ...readers.image import ImageInfo
from ...readers.options import make_plugin, options_of
from ...readers.plugins import installed, load
from ..config import Settings

DEFAULT_CARD = "csmask"
CARD_ANNOTATOR = "segment"
_MOST_SCHEMA = 2**20  # bytes
NONE = "none"  # the model of a run that annotates nothing


@dataclass(frozen=True, slots=True)
class AnnotatorChoice:
    """Which annotator, by its entry point, with its options: enough to make the same one in any process."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def neutral(self) -> frozenset[str]:
        """Names of the options that cannot change an answer."""
        return options_of(self._maker()).neutral()

    def make(self, **further: str) -> Annotator:
        """The annotator. Raises `RequestError` where it is not installed or an option does not fit, and `ModelError`.

        Of `further` options those are given that it has.
        """
        maker = self._maker()
        known = options_of(maker).model_fields
        given = {**dict(self.options), **{key: value for key, value in further.items() if key in known}}
        return make_plugin(maker, given, self.name)

    def _maker(self) -> Callable[..., Annotator]:
        found = load("limner.annotators", self.name)
        if not callable(found):
            msg = f"the entry point {self.name} of limner.annotators is not callable"
            raise TypeError(msg)
        return cast("Callable[..., Annotator]", found)


def choose_annotator(settings: Settings, infos: Sequence[ImageInfo]) -> AnnotatorChoice | None:
    """The annotator of a run: an installed one by its entry point, or a card by its name or path; None where "none".

    "NAME:CHECKPOINT" names what an annotator loads: "zero-shot:FOLDER". Where none is named it is `csmask`, if every
    image has what that needs. Raises `RequestError` where it has not.
    """
    if settings.model == NONE:
        return None
    name, _, checkpoint = settings.model.partition(":")
    if name in set(installed("limner.annotators")) - {CARD_ANNOTATOR}:
        return _choice(settings, name, **({"checkpoint": checkpoint} if checkpoint else {}))
    if settings.model and settings.model != CARD_ANNOTATOR:
        return _choice(settings, CARD_ANNOTATOR, model=settings.model)
    choice = _choice(settings, CARD_ANNOTATOR, model=DEFAULT_CARD)
    annotator = choice.make()
    for info in infos:
        try:
            annotator.input_spec(info)
        except LimnerError as error:
            raise RequestError(
                "model",
                f"one must be named, since {DEFAULT_CARD} does not suit every image",
                value=str(error),
                remedy="Name one with --model; `limner models` lists them; --model none does without",
            ) from error
    return choice


def choose_labels(settings: Settings, choice: AnnotatorChoice | None, annotator: Annotator | None) -> tuple[str, ...]:
    """The labels to report, in the annotator's order; () for all of them, or without an annotator.

    An annotator that was told the labels answers for them, and may have words of its own where none of them fits.
    Raises `RequestError` for an unknown one.
    """
    if annotator is None or choice is None or "labels" in dict(choice.options):
        return ()
    unknown = sorted(set(settings.labels) - set(annotator.labels))
    if unknown and annotator.labels:
        raise RequestError(
            "labels",
            "the model must know them",
            value=excerpt(", ".join(unknown)),
            remedy=f"Its labels: {', '.join(annotator.labels)}",
        )
    return tuple(label for label in annotator.labels if label in settings.labels)


def _choice(settings: Settings, name: str, **options: str) -> AnnotatorChoice:
    """An annotator with the options that were set, and what other settings say to it.

    Labels are given to an annotator that takes them: of another's findings those with these labels are kept.
    """
    known = options_of(load("limner.annotators", name)).model_fields
    asked = {"question": settings.ask, "answer": settings.answer, "json_schema": _schema(settings.schema_file)}
    asked["enlarge"] = str(settings.hd_num) if settings.enlarge else ""
    asked |= {"labels": ",".join(settings.labels)} if "labels" in known else {}
    asked |= {"fetch": str(settings.fetch).lower()} if "fetch" in known else {}
    chosen = {**settings.model_options, **{key: value for key, value in asked.items() if value}, **options}
    return AnnotatorChoice(name, tuple(sorted(chosen.items())))


def _schema(path: str) -> str:
    """The text of a JSON schema's file: what it says decides answers, not where it lies."""
    if not path:
        return ""
    try:
        text = read_file(path, max_bytes=_MOST_SCHEMA).decode("utf-8")
        parse_json(text)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"schema {path}", "the file must be readable JSON", value=excerpt(str(error)), remedy="Check --schema-file"
        ) from error
    return text
