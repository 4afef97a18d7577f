"""The page of a run that a server shows: as report.html, but pictures and findings are asked for as they are needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...readers.orientation import Orientation
from ..measures import LabelTotals, batches
from ..palette import Palette
from ..writer import ImageRecord, Record
from .layers import LayersWriter
from .page import content_policy, page_parts
from .pictures import PagePicture, reduced_size
from .run_values import SCRIPTS, STYLES, Shown, image_facts, place_block, run_head, run_values

PAGE: Final = "page.html"

_SCRIPTS: Final = (*SCRIPTS, "view_source.js", "view_review.js", "view_page.js")
_MOST_IMAGES: Final = 2000


def live_policy() -> str:
    """The content security policy of the page, which a server sends too: a page that was changed then runs nothing."""
    return content_policy(STYLES, _SCRIPTS, served=True)


@dataclass(frozen=True, slots=True)
class LivePicture:
    """How the server shows an image."""

    size: tuple[int, int]
    """(width, height) of the upright picture at its full resolution."""
    orientation: Orientation
    """How the image is turned to be that picture."""
    hidden: str = ""
    """Why its pixels are not shown, as a sentence; "" where they are."""
    windows: Sequence[str] = ()
    """What the user may choose between to show grey values, the run's own first; () where there is no choice."""


def layers_folder(folder: Path, number: int) -> Path:
    """Where the findings of an image lie."""
    return folder / f"image-{number}"


def write_live_page(
    record: Record,
    folder: Path,
    pictures: Mapping[str, LivePicture],
    on_share: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the page, and the findings of each image for `Layers`, into an empty folder; `pictures` are by image id."""
    palette, count = Palette.of(record.labels, record.colours), len(record.images)
    totals: list[tuple[ImageRecord, LabelTotals]] = []
    shown: list[Shown] = []
    for number, image in enumerate(record.images):
        with LayersWriter(record, image, layers_folder(folder, number)) as layers:
            found = LabelTotals()
            for batch in batches(record, [image]):
                found = batch.totals
                layers.add(batch)
                on_share((number + layers.count / max(1, len(image.findings()))) / count)
            layers.finish(palette)
        totals.append((image, found))
        if number < _MOST_IMAGES:
            shown.append(_shown(record, number, layers, pictures[image.info.id]))
    with (folder / PAGE).open("w", encoding="utf-8", newline="\n", errors="replace") as file:
        file.writelines(_parts(record, totals, shown, palette))


def _parts(
    record: Record, totals: Sequence[tuple[ImageRecord, LabelTotals]], shown: Sequence[Shown], palette: Palette
) -> Iterator[str]:
    left_out: list[str] = []
    if len(shown) < len(record.images):
        left_out.append(f"The first {len(shown):,} of {len(record.images):,} images are shown; all are in the table.")
    return page_parts(
        "run.html",
        run_head(record),
        STYLES,
        _SCRIPTS,
        served=True,
        live=True,
        left_out=left_out,
        images=shown,
        **run_values(record, totals, palette, shown=len(shown)),
    )


def _shown(record: Record, number: int, layers: LayersWriter, live: LivePicture) -> Shown:
    image = layers.image
    info, planes = image.info, range(len(image.info.planes))
    about = f"{layers.count:,} {'finding' if layers.count == 1 else 'findings'}"
    thumbnail = PagePicture(f"overview/{number}", *reduced_size(live.size, 512), "The image, reduced")
    return Shown(
        number,
        image.name or info.id,
        about if record.assessed else "not assessed",
        image_facts(record, image),
        live.hidden,
        None if live.hidden else thumbnail,
        (),
        live.hidden,
        place_block(image, planes, live.orientation, live.size, layers.first_plane, windows=list(live.windows)),
        "",
    )
