"""An image opened by hand: its facts, a picture of it, and pixels of any part."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..readers.errors import LimnerError, RequestError
from ..readers.geometry import Box
from ..readers.image import Image, ImageInfo, Mask, Pixels
from ..readers.overview import read_overview
from ..readers.registry import open_image
from ..readers.render import display_stretch, fit_stretch, render, rgb_channels
from .describe import html_table, image_rows, indent, table

if TYPE_CHECKING:
    from PIL import Image as Picture


class OpenedImage:
    """An open image, as `limner.open` gives it. Use it as a context manager, or call `close`."""

    info: ImageInfo
    """Facts about the image; paths and names of slides and studies are pseudonyms unless names="show"."""

    def __init__(self, opened: ImageInfo, shown: ImageInfo) -> None:
        self.info = shown
        self._opened = opened
        self._image: Image | None = open_image(opened)

    def read(
        self, box: Box | Sequence[float] | None = None, size: tuple[int, int] | None = None, plane: int = 0
    ) -> tuple[Pixels, Mask]:
        """Native pixels (height, width, channels) of a box, and where they are valid (height, width).

        `plane` is a slice of a stack, from 0. `box` is (x0, y0, x1, y1) in level-0 pixels, x right, y down, half-open;
        the whole image by default. `size` is (width, height) of the result; the box's own by default. Raises
        `ReadError`, and `RequestError` once closed.
        """
        area = self._opened.box if box is None else box if isinstance(box, Box) else Box(*map(float, box))
        shape = size or (max(1, round(area.width)), max(1, round(area.height)))
        return self._handle().read(area, shape, plane)

    def overview(self, limit: int = 1024) -> "Picture.Image":
        """The whole image in 8-bit RGB, at most `limit` pixels on its long side; `numpy.asarray` gives (H, W, 3).

        Of a stack some of its slices, side by side, through the window of the study. Raises `ReadError` where it would
        be a guess which channels are red, green and blue: name them with bands.
        """
        from PIL import Image as Picture

        self._handle()
        with open_image(self._opened, rgb_channels(self._opened.channels)) as image:
            pixels, valid, _, _ = read_overview(image, limit=limit)
            stretch = display_stretch(self._opened, fit_stretch(pixels, valid, image.channels))
            return Picture.fromarray(render(pixels, valid, stretch))

    def close(self) -> None:
        """Let go of the file."""
        if self._image is not None:
            self._image.close()
            self._image = None

    def _handle(self) -> Image:
        if self._image is None:
            raise RequestError(
                self.info.id, "an image must be open to be read", value="closed", remedy="Open it again: limner.open"
            )
        return self._image

    def __enter__(self) -> Self:
        """The image itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """The image's facts, a line each."""
        return indent(table(image_rows(self.info)), first=self.info.id)

    def _repr_html_(self) -> str:
        """The same for notebooks, beside a small picture where there can be one."""
        try:
            picture = self.overview(320)
        except LimnerError as error:
            return html_table([*image_rows(self.info), ("picture", str(error))], title=self.info.id)
        return html_table(image_rows(self.info), title=self.info.id, picture=picture)
