"""What all readers' open images share."""

import numpy as np
import pytest
from limner.readers.errors import ReadError
from limner.readers.geometry import Box, Placement
from limner.readers.image import BaseImage, Channel, ImageInfo, Mask, Pixels

CHANNELS = tuple(Channel(name) for name in "abc")
INFO = ImageInfo("uri", "test", (2, 2), CHANNELS, Placement.pixels("none"))


class Counted(BaseImage):
    """An image that counts how often its handle is closed; it cannot be opened where its uri is "bad"."""

    closed = 0

    def _open(self) -> None:
        if self.info.uri == "bad":
            raise ReadError(self.info.uri, "it must be good", remedy="Give another")

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        assert box == INFO.box
        return np.array(self._channel_indices), np.ones(size, dtype=bool)

    def _close(self) -> None:
        type(self).closed += 1


def test_an_image_is_read_while_open_and_closed_once() -> None:
    before = Counted.closed
    with Counted(INFO, ["c", "a"]) as image:
        assert image.channels == (CHANNELS[2], CHANNELS[0])
        assert image.read(INFO.box, (1, 1))[0].tolist() == [2, 0]
        image.close()
        with pytest.raises(ReadError, match="uri must be open"):
            image.read(INFO.box, (1, 1))
    assert Counted.closed == before + 1


def test_a_failed_open_closes_the_handle() -> None:
    before = Counted.closed
    with pytest.raises(ReadError, match="it must be good"):
        Counted(ImageInfo("bad", "test", (2, 2), CHANNELS, Placement.pixels("none")))
    assert Counted.closed == before + 1
