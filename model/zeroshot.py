"""The `zero-shot` annotator: which of the labels that a person names fits each tile, and each region, best."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..readers.errors import RequestError
from ..readers.image import ImageInfo
from .annotator import Answer, Cost, Sight, View
from .asking.marks import refuse_marks
from .checkpoint import Checkpoint, fetch_weights, find_checkpoint
from .footprint import held_bytes
from .fusion import Fusion, unit
from .openclip.bare import find_bare
from .openclip.files import find_openclip
from .verdicts import verdict
from .views import kept_share, kept_tiles

if TYPE_CHECKING:
    from .contrastive import Contrastive

OPTIONS = (
    *("checkpoint", "architecture", "tokenizer", "labels", "templates", "aggregate", "fusion"),
    *("fetch", "threads"),
)
TEMPLATE = "a photo of {}."
OPENCLIP_LOADING = 2.5  # times its weights: as read, under transformers' names, and in the network


class ZeroShot:
    """An annotator without training: an image-text checkpoint compares each tile with words.

    Options: `checkpoint`, a folder in transformers' or OpenCLIP's format, a hub id `OWNER/NAME@COMMIT`, or a file of
    OpenCLIP's weights alone, for which `architecture` is OpenCLIP's name for the model; `tokenizer`, for OpenCLIP's
    checkpoints, a folder with its files or OpenCLIP's file of merges, where neither lies beside them; `labels`, at
    least two, with commas; `templates`, prompts with `{}` for the label, with semicolons; `aggregate`, answers for each
    "tile", the "region" or "both"; `fusion` "off", or "attention" to let a region's tiles see each other (see
    `Fusion`); `fetch` "true" lets a hub be asked; `threads` for the network, 0 for torch's own choice. Raises
    `RequestError` for options that cannot be.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise _wrong(unknown[0], "it must be known", "", f"Known: {', '.join(OPTIONS)}")
        self._source = options.get("checkpoint", "")
        if not self._source:
            raise _wrong(
                "checkpoint", "it must be named", "", "Add --set model_options.checkpoint=FOLDER, or OWNER/NAME@COMMIT"
            )
        self._architecture = options.get("architecture", "")
        self._tokenizer = options.get("tokenizer", "")
        refuse_marks({name: options[name] for name in ("labels", "templates") if options.get(name)}, of="zero-shot")
        self._labels = _labels(options.get("labels", ""))
        self._templates = _templates(options.get("templates", "") or TEMPLATE)
        self._aggregate = _choice("aggregate", options.get("aggregate", "both"), ("tile", "region", "both"))
        self._fusion = Fusion.parse(options.get("fusion", "off"), of="zero-shot")
        self._fetch = _choice("fetch", options.get("fetch", "false"), ("true", "false")) == "true"
        threads = options.get("threads", "0")
        if not threads.isdecimal():
            raise _wrong("threads", "it is a whole number", threads, "Correct it")
        self._threads = int(threads)
        self._found: Checkpoint | None = None
        self._network: Contrastive | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, the words, and what runs them. Raises `ModelError` where the files are not here."""
        checkpoint = self._checkpoint()
        return {
            "name": "zero-shot",
            "annotator": "zero-shot",
            **checkpoint.files.identity(checkpoint.family),
            **({"architecture": self._architecture} if self._architecture else {}),
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "softmax over the labels" if checkpoint.family == "clip" else "sigmoid of each label",
            "aggregate": self._aggregate,
            **({} if self._fusion is None else {"fusion": self._fusion.words()}),
            "labels": ", ".join(self._labels),
            "templates": "; ".join(self._templates),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that were asked for, in their order."""
        return self._labels

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def sight(self, info: ImageInfo) -> Sight:
        """Rendered RGB in tiles of the checkpoint's size, at any resolution. Raises `ModelError`."""
        del info  # any picture that can be rendered will do
        checkpoint = self._checkpoint()
        return Sight(
            tile=checkpoint.tile,
            overall=self._aggregate != "tile" or self._fusion is not None,
            variant=checkpoint.family,
        )

    def check(self, sights: Sequence[Sight]) -> None:
        """Find the checkpoint and its weights. Raises `ModelError`, `RequestError`."""
        del sights
        fetch_weights(self._checkpoint().files, fetch=self._fetch)

    def load(self) -> None:
        """See `Annotator`. What is wrong with the words is said here: the network's own settings bound them."""
        self._loaded()

    def cost(self, sights: Sequence[Sight], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        checkpoint = self._checkpoint()
        weights = held_bytes(checkpoint.files, itemsize=4)
        looks = tiles[0] * tiles[1] + any(sight.overall for sight in sights)
        loading = weights * (1.0 if checkpoint.open_clip is None else OPENCLIP_LOADING)
        return Cost(weights=weights, numbers="float32", work=looks, loading=loading)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """One answer for each tile with a wanted pixel, and one for the region. Raises `ModelError`."""
        network = self._loaded()
        return [self._answers(view, network) for view in views]

    def _answers(self, view: View, network: "Contrastive") -> list[Answer]:
        """A tile's geometry is its share of the region's core; its `valid` the part of it that is wanted.

        The region's probabilities are half the mean of its tiles' and half the global view's.
        """
        kept = kept_tiles(view)
        looks = np.array([network.look(view.tiles[one.place]) for one in kept])
        if self._fusion is not None and kept:
            looks = unit(self._fusion(looks.astype(np.float64), network.look(_overall(view)).astype(np.float64)))
        chances = [network.compare(one) for one in looks.astype(np.float32)]
        answers: list[Answer] = []
        if self._aggregate != "region":
            answers += [
                verdict(self._labels, one, "tile", tile.valid, geometry=tile.share)
                for one, tile in zip(chances, kept, strict=True)
            ]
        if self._aggregate != "tile" and chances:
            together = (np.mean(chances, axis=0) + network(_overall(view))) / 2
            made_of = f"half the mean of {len(chances)} tiles, half the global view"
            answers.append(verdict(self._labels, together, "region", kept_share(view), made_of=made_of))
        return answers

    def _checkpoint(self) -> Checkpoint:
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> Checkpoint:
        if Path(self._source).is_file():
            return find_bare(self._source, self._architecture, tokenizer=self._tokenizer)
        if self._architecture:
            raise _wrong(
                "architecture",
                "it is for a file of weights alone, since a folder states its own",
                self._architecture,
                "Leave it out, or name the file of weights",
            )
        found = find_openclip(self._source, fetch=self._fetch, tokenizer=self._tokenizer)
        if found is None and self._tokenizer:
            raise _wrong(
                "tokenizer",
                "it is for checkpoints of OpenCLIP, since one in transformers' format has its own",
                self._tokenizer,
                "Leave it out",
            )
        return found or find_checkpoint(self._source, fetch=self._fetch)

    def _loaded(self) -> "Contrastive":
        if self._network is None:
            from .contrastive import Contrastive  # noqa: PLC0415 - loads torch

            self._network = Contrastive(self._checkpoint(), self._labels, self._templates, threads=self._threads)
        return self._network


def _overall(view: View) -> npt.NDArray[np.float32]:
    if view.overall is None:
        msg = f"region {view.region.key}: its global view is needed, and its sight did not ask for it"
        raise ValueError(msg)
    return view.overall


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in text.split(",") if label.strip())
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise _wrong("labels", "each may be named once", ", ".join(twice), "Leave out the second")
    if len(labels) < 2:  # noqa: PLR2004 - nothing to choose between
        raise _wrong(
            "labels", "at least two are needed to choose between", text, 'Add --labels "forest,water,built-up land"'
        )
    return labels


def _templates(text: str) -> tuple[str, ...]:
    templates = tuple(template.strip() for template in text.split(";") if template.strip())
    bad = [template for template in templates if "{}" not in template]
    if bad or not templates:
        raise _wrong("templates", "each must have {} where the label goes", "; ".join(bad), f"For example {TEMPLATE!r}")
    return templates


def _choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise _wrong(name, f"it is {' or '.join(choices)}", value, "Correct it")
    return value


def _wrong(name: str, rule: str, value: str, remedy: str) -> RequestError:
    return RequestError(f"option {name!r} of zero-shot", rule, value=value, remedy=remedy)
