"""ICC profiles of slides: whether they are applied, and the conversion to sRGB by LittleCMS.

Profiles are ignored by default: models were trained on colours as scanners store them, nearly without exception, and a
conversion moves them by tens of grey levels. What was done is a fact of every slide that has a profile.
"""

import hashlib
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import ReadError, excerpt
from ..image import Pixels

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

MAX_PROFILE_BYTES: Final = 16 << 20
APPLIED: Final = "applied, to sRGB"
"""How the fact of a profile that is applied begins."""

IGNORED: Final = "not applied"
"""How the fact of a profile that is not applied begins."""

FACT: Final = "icc_profile"
"""The entry of `ImageInfo.facts`."""

_INTENTS: Final = ("perceptual", "relative colorimetric", "saturation", "absolute colorimetric")
_REMEDY: Final = "Leave out --icc apply to read the colours as they are stored"


def profile_facts(
    profile: bytes | None, subject: str, *, colours: bool, apply: bool
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The facts and notes about the profile of a slide.

    `colours` tells whether its pixels are 8-bit red, green and blue. Raises `ReadError` for a profile that is to be
    applied and cannot be.
    """
    if profile is None:
        return (), ("--icc apply changes nothing here: the file has no ICC profile.",) if apply else ()
    about = f"{len(profile)} bytes, sha256 {hashlib.sha256(profile).hexdigest()[:12]}"
    if not apply:
        return ((FACT, f"{IGNORED} ({about})"),), ("The ICC profile of the file is not applied.",)
    found = ColourTransform(profile, subject, colours=colours)
    return ((FACT, f"{APPLIED}, {found.intent} intent, by {found.library} ({about})"),), ()


class ColourTransform:
    """The conversion of 8-bit colours to sRGB by the profile of a slide, with the intent that the profile names.

    Raises `ReadError` for a profile that LittleCMS cannot use, and without `colours` of 8 bits.
    """

    def __init__(self, profile: bytes, subject: str, *, colours: bool = True) -> None:
        from PIL import ImageCms, features

        if not colours:
            rule, value = "must be 8-bit red, green and blue for --icc apply", "other channels or numbers"
            raise ReadError(subject, rule, value=value, remedy=_REMEDY)
        try:
            if len(profile) > MAX_PROFILE_BYTES:
                msg = f"{len(profile)} bytes, at most {MAX_PROFILE_BYTES} are read"
                raise ValueError(msg)  # noqa: TRY301 - reported below, like the errors of LittleCMS
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.ImageCmsProfile(ImageCms.core.createProfile("sRGB"))
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
            flags = ImageCms.Flags.HIGHRESPRECALC
            self._transform: ImageCmsTransform = ImageCms.buildTransform(source, target, "RGB", "RGB", intent, flags)
        except Exception as error:  # PyCMSError, OSError, ValueError: by what is broken
            value = excerpt(f"{len(profile)} bytes: {error}", 200)
            rule = "must have an ICC profile of red, green and blue that LittleCMS can use for --icc apply"
            raise ReadError(subject, rule, value=value, remedy=_REMEDY) from error
        self.intent = _INTENTS[intent]
        self.library = f"LittleCMS {features.version('littlecms2') or 'of unknown version'}"

    def convert(self, pixels: Pixels) -> Pixels:
        """The colours (H, W, 3) in sRGB, 8 bits."""
        from PIL import Image, ImageCms

        picture: Any = Image.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(ImageCms.applyTransform(picture, self._transform))
