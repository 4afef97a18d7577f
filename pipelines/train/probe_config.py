"""What a probe is to be: a person's choices, apart from which images and how they are read."""

from dataclasses import dataclass

from ...model.probe.encoders import COLOUR
from ...model.training.probe import HeadKind
from ...model.training.training_tiles import INSIDE
from ...readers.errors import RequestError


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """What a probe is to be.

    `labels` is a file or a folder, `label_field` the property or column that holds the label, "" for the usual ones.
    `tile` pixels where the encoder takes any, 0 for 64. `head` is "linear" or "mlp". `inside` is the least share of a
    tile within its class, `rest` the class of what nobody outlined, "" for none. `block` says what is never on both
    sides of a fold: "outline", "image", or a length such as 500m, 200um or 512px for blocks of that size; "" is
    outlines, and images where there is a `rest`, which has no other bounds.
    """

    labels: str
    encoder: str = COLOUR
    label_field: str = ""
    tile: int = 0
    head: str = "linear"
    folds: int = 5
    inside: float = INSIDE
    rest: str = ""
    block: str = ""
    licence: str = "not stated"
    features: str = ""

    @property
    def kind(self) -> HeadKind:
        """The head. Raises `RequestError` for one that is not known."""
        if self.head not in {"linear", "mlp"}:
            raise RequestError("head", "it is linear or mlp", value=self.head, remedy="Correct it")
        return "mlp" if self.head == "mlp" else "linear"

    @property
    def unit(self) -> str:
        """What is never on both sides, as `block` says it, or as is usual."""
        return self.block or ("image" if self.rest else "outline")
