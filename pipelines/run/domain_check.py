"""The check that an image is of the kind that the model was made for, while planning."""

from dataclasses import dataclass

from ...model.annotator import Annotator, SupportsDomain
from ...model.domain import compare_domain
from ...readers.errors import ModelError
from ...readers.image import ImageInfo
from ..config import Settings


@dataclass(frozen=True, slots=True)
class DomainCheck:
    """The result of comparing an image with the model's domain."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    forced: str = ""
    """The mismatches that `--force-domain` overrode, as a phrase."""


def check_domain(
    info: ImageInfo,
    annotator: Annotator | None,
    settings: Settings,
    scale: tuple[float, float],
    *,
    stain_known: bool = True,
) -> DomainCheck:
    """Compare an image with the domain of the model. Raises `ModelError` for a mismatch, unless it is forced.

    scale: level-0 pixels (x, y) per pixel in the analysis.
    stain_known: whether the overview has been read; before that only headers are compared.
    """
    if annotator is None:
        return DomainCheck()
    domain = annotator.domain if isinstance(annotator, SupportsDomain) else ()
    found = compare_domain(domain, info, scale, stain_known=stain_known)
    if found.mismatches and not settings.force_domain:
        raise ModelError(
            info.id or info.uri,
            "must be of the kind of images that the model was made for",
            value="; ".join(found.mismatches),
            remedy="Choose another model, or give --force-domain, which every report then tells",
        )
    forced = "; ".join(found.mismatches)
    forced_warning = (f"Outside the domain of the model, forced with --force-domain: {forced}.",) if forced else ()
    unknown = f"Whether the model suits the image was not checked in full: {'; '.join(found.unknown)}."
    notes = (unknown,) if found.unknown else ()
    return DomainCheck(notes, (*forced_warning, *found.doubts), forced)
