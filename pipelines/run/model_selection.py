"""Selects the annotator of a run: the one that is named, or the default model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ...model.annotator import Annotator
from ...model.checkpoints.cards import find_any_card
from ...readers.errors import LimnerError, RequestError, did_you_mean, excerpt
from ...readers.files import parse_json, read_file
from ...readers.image import ImageInfo
from ...readers.options import make_plugin, options_of
from ...readers.plugins import installed, load
from ..config import Settings

DEFAULT_CARD = "csmask"
CARD_ANNOTATOR = "segment"
VOLUME_ANNOTATOR = "volume"
NONE = "none"  # the model of a run that annotates nothing
_MAX_SCHEMA_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class AnnotatorChoice:
    """An annotator's entry point and options, from which any process can make it."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def neutral(self) -> frozenset[str]:
        """Names of the options that cannot change an answer."""
        return options_of(load("limner.annotators", self.name)).neutral()

    def make(self, **further: str) -> Annotator:
        """Make the annotator; those of the `further` options that it does not have are ignored.

        Raises `RequestError` where it is not installed or an option is invalid, and `ModelError`.
        """
        factory = load("limner.annotators", self.name)
        if not callable(factory):
            msg = f"the entry point {self.name} of limner.annotators is not callable"
            raise TypeError(msg)
        known = options_of(factory).model_fields
        options = {**dict(self.options), **{key: value for key, value in further.items() if key in known}}
        return make_plugin(cast("Callable[..., Annotator]", factory), options, self.name)


def choose_annotator(settings: Settings, infos: Sequence[ImageInfo]) -> AnnotatorChoice | None:
    """The annotator of a run, from its entry point or from a model card's name or path; None for "none".

    "NAME:CHECKPOINT" names what an annotator loads, such as "zero-shot:FOLDER". The default is `csmask`; raises
    `RequestError` where some image lacks what it needs.
    """
    if settings.model == NONE:
        return None
    name, _, checkpoint = settings.model.partition(":")
    if name in set(installed("limner.annotators")) - {CARD_ANNOTATOR}:
        return _make_choice(settings, name, **({"checkpoint": checkpoint} if checkpoint else {}))
    if checkpoint and not settings.model.endswith((".yaml", ".yml")):
        known = [f"{one}:" for one in installed("limner.annotators") if one != CARD_ANNOTATOR]
        remedy = f"{did_you_mean(f'{name}:', known)}Annotators: {', '.join(known)}"
        rule = "must begin with the name of an annotator that takes a checkpoint"
        raise RequestError(f"model {settings.model!r}", rule, remedy=remedy)
    if settings.model and settings.model != CARD_ANNOTATOR:
        if find_any_card(settings.model).annotator == VOLUME_ANNOTATOR:
            return _make_choice(settings, VOLUME_ANNOTATOR, checkpoint=settings.model)
        return _make_choice(settings, CARD_ANNOTATOR, model=settings.model)
    choice = _make_choice(settings, CARD_ANNOTATOR, model=DEFAULT_CARD)
    annotator = choice.make()
    for info in infos:
        try:
            annotator.input_spec(info)
        except LimnerError as error:
            raise RequestError(
                "--model",
                f"must be given, since the default {DEFAULT_CARD} does not suit every image",
                value=str(error),
                remedy="`limner models` lists models; --model none only describes the images",
            ) from error
    return choice


def choose_labels(settings: Settings, choice: AnnotatorChoice | None, annotator: Annotator | None) -> tuple[str, ...]:
    """The labels to keep, in the annotator's order; () for all.

    An annotator that takes the labels as an option keeps to them by itself. Raises `RequestError` for an unknown one.
    """
    if annotator is None or choice is None or "labels" in dict(choice.options):
        return ()
    unknown = sorted(set(settings.labels) - set(annotator.labels))
    if unknown and annotator.labels:
        remedy = f"Its labels: {', '.join(annotator.labels)}"
        raise RequestError("--labels", "must be labels of the model", value=excerpt(", ".join(unknown)), remedy=remedy)
    return tuple(label for label in annotator.labels if label in settings.labels)


def _make_choice(settings: Settings, name: str, **options: str) -> AnnotatorChoice:
    """An annotator with its options, some of which follow from other settings."""
    known = options_of(load("limner.annotators", name)).model_fields
    implied = {"question": settings.ask, "answer": settings.answer, "json_schema": _read_schema(settings.schema_file)}
    implied["enlarge"] = str(settings.hd_num) if settings.enlarge else ""
    implied |= {"labels": ",".join(settings.labels)} if "labels" in known else {}
    implied |= {"fetch": str(settings.fetch).lower()} if "fetch" in known else {}
    chosen = {**settings.model_options, **{key: value for key, value in implied.items() if value}, **options}
    return AnnotatorChoice(name, tuple(sorted(chosen.items())))


def _read_schema(path: str) -> str:
    """The text of a JSON schema file, since its content rather than its path determines the answers."""
    if not path:
        return ""
    try:
        text = read_file(path, max_bytes=_MAX_SCHEMA_BYTES).decode("utf-8")
        parse_json(text)
    except (OSError, ValueError) as error:
        problem = excerpt(str(error))
        raise RequestError(path, "must be readable JSON", value=problem, remedy="Check --schema-file") from error
    return text
