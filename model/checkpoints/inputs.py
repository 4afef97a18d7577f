"""From pixels of 8 bits to a network's input, by a table of what each value becomes."""

import numpy as np
import numpy.typing as npt


def apply_tables(pixels: npt.NDArray[np.uint8], tables: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Pixels (H, W, C) → (C, H, W); `tables` (C, 256) hold what the numbers of each channel become."""
    result = np.empty((len(tables), *pixels.shape[:2]), dtype=np.float32)
    for channel, table in enumerate(tables):
        table.take(pixels[..., channel], out=result[channel], mode="clip")
    return result
