"""The `transformers` annotator: a folder of classification, segmentation or detection, by what its settings say."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from ...readers.image import ImageInfo, Mask, Pixels
from ..annotator import Answer, Cost, Sight, View
from ..areas import Values, areas, softmax, spread
from ..checkpoint import Files, fetch_weights, find_files
from ..detections import sightings
from ..footprint import held_bytes
from ..verdicts import verdict
from ..views import kept_tiles
from .options import Options, among
from .recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from .networks import Network

OPTIONS = ("checkpoint", "labels", "background", "threshold", "template", "halo", "fetch", "threads")
THRESHOLD = 0.5
FOUND = {"owlvit": 0.1, "owlv2": 0.1, "grounding-dino": 0.25, "mm-grounding-dino": 0.25}  # transformers' own defaults
TEMPLATES = {"owlvit": "a photo of a {}", "owlv2": "a photo of a {}"}  # as its authors asked; others take bare words
NOTHING = "N/A"  # what COCO's checkpoints call the numbers that no class has
SHARE = 8  # a tile's rim is this part of it: neighbours share a quarter, and most things are whole in one


class Transformers:
    """An annotator for folders that transformers saved: its `config.json` says what the network does.

    Options: `checkpoint`, a folder or a hub id `OWNER/NAME@COMMIT`; `labels`, which of its labels to keep, or what a
    detector by words looks for; `background`, classes of a segmentation that give no areas, besides one that is called
    background; `threshold`, the lowest score of a detection; `template`, the prompt around a label to look for, with
    `{}`; `halo`, the rim of a tile in pixels (default: an eighth of it, nothing for classification); `fetch` "true"
    lets a hub be asked; `threads` for the network, 0 for torch's own choice. Raises `RequestError`.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        said = Options("transformers", options)
        said.only(*OPTIONS)
        self._options = said
        self._source = said.needed("checkpoint", "Write --model transformers:FOLDER, or transformers:OWNER/NAME@COMMIT")
        self._asked = said.names("labels")
        self._background = said.names("background")
        self._threshold = said.share("threshold")
        self._halo = said.whole("halo")
        self._fetch = said.flag("fetch")
        self._threads = said.whole("threads") or 0
        template = options.get("template", "")
        if template and "{}" not in template:
            raise said.wrong(
                "template", "it must have {} where the label goes", template, "For example 'a photo of {}'"
            )
        self._template = template
        self._recipe: Recipe | None = None
        self._network: Network | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, what it sees, and what runs it. Raises `ModelError` where the files are not here."""
        recipe = self._read()
        further = {"threshold": f"{self._least(recipe):g}"} if recipe.task in {"detect", "find"} else {}
        if recipe.task == "find":
            further |= {"labels": ", ".join(self._asked), "template": self._prompt(recipe)}
        if recipe.task.startswith("segment"):
            further |= {"background": ", ".join(recipe.labels[i] for i in self._empty(recipe))}
        scores = "sigmoid of each label" if recipe.independent or recipe.task == "find" else "softmax over the labels"
        return {
            "name": "transformers",
            "annotator": "transformers",
            **recipe.files.identity(recipe.family),
            "task": recipe.task,
            "family": recipe.family,
            "preprocessing": recipe.preprocessing,
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "share of a class in its masks" if recipe.task == "segment by masks" else scores,
            **further,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Those it was asked for, or all it has, without background and outputs that stand for nothing.

        Raises `ModelError`.
        """
        recipe = self._read()
        if recipe.task == "find":
            return self._asked
        empty = {NOTHING, *(recipe.labels[i] for i in self._empty(recipe))}
        return among(self._asked, [label for label in recipe.labels if label not in empty], recipe.files.source)

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def sight(self, info: ImageInfo) -> Sight:
        """Rendered RGB in tiles of the network's size, at any resolution. Raises `ModelError`."""
        del info
        recipe = self._read()
        halo = 0 if recipe.task == "classify" else recipe.tile // SHARE if self._halo is None else self._halo
        if recipe.tile <= 2 * halo:
            raise self._options.wrong(
                "halo", f"a tile of {recipe.tile} px must be wider than its two rims", str(halo), "Lower it"
            )
        return Sight(tile=recipe.tile, halo=halo, variant=recipe.family)

    def check(self, sights: Sequence[Sight]) -> None:
        """Find the checkpoint and its weights. Raises `ModelError`, `RequestError`."""
        del sights
        recipe = self._read()
        if recipe.task == "find" and not self._asked:
            raise self._options.wrong("labels", "what to look for must be named", "", 'Add --labels "ship,aircraft"')
        _ = self.labels
        fetch_weights(recipe.files, fetch=self._fetch)

    def load(self) -> None:
        """See `Annotator`."""
        self._loaded()

    def cost(self, sights: Sequence[Sight], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        del sights
        return Cost(held_bytes(self._read().files, itemsize=4), "float32", work=tiles[0] * tiles[1])

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """What the network says of each view. Raises `ModelError`."""
        network, kept = self._loaded(), frozenset(self.labels)
        return [[answer for answer in self._answers(view, network) if answer.label in kept] for view in views]

    def _answers(self, view: View, network: "Network") -> list[Answer]:
        recipe = self._read()
        if recipe.task == "classify":
            return [
                verdict(recipe.labels, network.classify(view.tiles[one.place]), "tile", one.valid, geometry=one.share)
                for one in kept_tiles(view)
            ]
        if recipe.task in {"detect", "find"}:
            return sightings(view, network.detect, threshold=self._least(recipe), of=f"checkpoint {self._source}")

        def see(tile: Pixels, valid: Mask) -> Values:
            return network.segment(tile if valid.all() else spread(tile, valid), valid)

        return areas(
            view,
            see,
            softmax if recipe.task == "segment" else (lambda shares: shares),
            classes=recipe.labels,
            background=self._empty(recipe),
            network=recipe.files.source,
        )

    def _least(self, recipe: Recipe) -> float:
        return FOUND.get(recipe.family, THRESHOLD) if self._threshold is None else self._threshold

    def _prompt(self, recipe: Recipe) -> str:
        return self._template or TEMPLATES.get(recipe.family, "{}")

    def _empty(self, recipe: Recipe) -> tuple[int, ...]:
        """The classes that give no areas."""
        if not recipe.task.startswith("segment"):
            return ()
        named = among(self._background, recipe.labels, recipe.files.source) if self._background else ()
        called = {label for label in recipe.labels if label.lower().strip("_") == "background"}
        return tuple(i for i, label in enumerate(recipe.labels) if label in (named or called))

    def _read(self) -> Recipe:
        if self._recipe is None:
            files: Files = find_files(self._source, fetch=self._fetch)
            self._recipe = read_recipe(files)
        return self._recipe

    def _loaded(self) -> "Network":
        if self._network is None:
            from .networks import Network  # noqa: PLC0415 - loads torch

            recipe = self._read()
            labels = self._asked if recipe.task == "find" else recipe.labels
            self._network = Network(recipe, labels, template=self._prompt(recipe), threads=self._threads)
        return self._network
