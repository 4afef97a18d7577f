"""What OME-Zarr (NGFF 0.4 and 0.5) states: which images there are, their axes, levels, pixel size and channels."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from ..errors import ReadError, excerpt
from ..formats import is_label
from ..image import Channel
from ..pseudonyms import harmless_name
from .spacing import MAX_MPP, Spacing
from .tiff import MAX_XML_BYTES, OmeMetadata
from .tiff_directories import MAX_SEGMENTS
from .tiled_pyramid import Level
from .zarr_array import Json, ZarrArray, as_object, read_json
from .zarr_store import Store

MAX_IMAGES: Final = 1000
"""Of one hierarchy, such as the fields of a plate."""

_VERSIONS: Final = ("0.4", "0.5")
_MAX_LEVELS: Final = 64
_MAX_CHANNELS: Final = 1024
_KINDS: Final = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_MICROMETRES: Final = {  # names of UDUNITS, as NGFF has them
    "angstrom": 1e-4, "picometer": 1e-6, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "decimeter": 1e5, "meter": 1e6, "inch": 25400.0,
}  # fmt: skip
_SOURCE: Final = "OME-Zarr coordinateTransformations"
_COLOURS: Final = {"FF0000": "red", "00FF00": "green", "0000FF": "blue"}
_PATH: Final = re.compile(r"[^/\\\0:]{1,255}(/[^/\\\0:]{1,255}){0,15}")
_FIELD: Final = re.compile(r"([A-Za-z]{1,3}|[0-9]{1,4})(/[0-9]{1,4}){0,2}")  # of a well's image
_SAME: Final = 0.02  # relative difference of a level's stated scale and that of its size
_DAMAGED: Final = "Get an undamaged copy of the image"
_CONVERT: Final = "Write it again as OME-Zarr 0.4 or 0.5, for example with bioformats2raw"


@dataclass(frozen=True, slots=True)
class NgffScene:
    """One image of a hierarchy."""

    path: str
    """Of its group, "" for the root."""
    name: str = ""
    """In a plate, such as A/1/0."""
    spacing: Spacing | None = None
    """That OME-XML beside it states."""


@dataclass(frozen=True, slots=True)
class NgffImage:
    """One image: its levels, finest first, and what is stated of it."""

    arrays: tuple[ZarrArray, ...]
    levels: tuple[Level, ...]
    axes: str
    """Of all arrays, such as "tczyx"."""
    spacing: Spacing | None
    channels: tuple[Channel, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    name: str
    z_step: float | None = None
    """Between focal planes, in µm; None where it is not known."""

    def length(self, axis: str) -> int:
        """The length of an axis of level 0, 1 without it."""
        return self.arrays[0].shape[self.axes.index(axis)] if axis in self.axes else 1


def group_attributes(store: Store, path: str) -> tuple[Json | None, str]:
    """What NGFF has among the attributes of a group, and the key of the document; None where there is no group."""
    base = f"{path}/" if path else ""
    key = f"{base}zarr.json"
    if (found := read_json(store, key)) is not None:
        attributes = as_object(found.get("attributes", {}), store.root, key)
        return as_object(attributes.get("ome", attributes), store.root, key), key
    key = f"{base}.zattrs"
    return read_json(store, key), key


def find_scenes(store: Store) -> tuple[list[NgffScene], list[str]]:
    """The images of a hierarchy and notes on those that are left out. Raises `ReadError` where there is none.

    An image, the series of bioformats2raw, the images of a well, or all of a plate. Pictures of the label and of the
    whole glass are left out by the rule for OME-TIFF: those named so, and beside an image with the pixel size of a scan
    those without one or with a coarser one.
    """
    found, key = group_attributes(store, "")
    if found is None:
        rule = "must have the metadata of OME-Zarr at its root"
        raise ReadError(store.root, rule, value="neither zarr.json nor .zattrs", remedy="Give the folder that has them")
    if "image-label" in found or "labels" in found:
        rule, value = "must be an image", "labels of the pixels of another image"
        raise ReadError(store.root, rule, value=value, remedy="Give the folder of the image that they belong to")
    if "multiscales" in found:
        return [NgffScene("")], []
    try:
        if "plate" in found:
            return _plate(store, found), []
        if "well" in found:
            return [NgffScene(path, path) for path in _paths(found["well"]["images"], store, key)], []
        if "bioformats2raw.layout" in found:
            return _series(store)
    except (KeyError, TypeError, AttributeError) as error:
        raise _invalid(store, key, f"{type(error).__name__}: {error}") from error
    rule = "must be an image, a well, a plate or the output of bioformats2raw"
    raise ReadError(store.root, rule, value=f"{key} names none of them", remedy="Give the folder of one of its images")


def _plate(store: Store, found: Json) -> list[NgffScene]:
    scenes: list[NgffScene] = []
    for well in _paths(found["plate"]["wells"], store, "plate"):
        inside, key = group_attributes(store, well)
        if inside is None:
            raise _invalid(store, key, "the well is missing")
        scenes += [NgffScene(f"{well}/{one}", f"{well}/{one}") for one in _paths(inside["well"]["images"], store, key)]
        _limit(store, len(scenes))
    return scenes


def _series(store: Store) -> tuple[list[NgffScene], list[str]]:
    """The images of bioformats2raw that are scans, with what the OME-XML beside them states."""
    listed, _ = group_attributes(store, "OME")
    paths = [str(path) for path in (listed or {}).get("series", ())]
    if not paths:
        while read_json(store, f"{len(paths)}/zarr.json") or read_json(store, f"{len(paths)}/.zgroup"):
            paths.append(str(len(paths)))
            _limit(store, len(paths))
    paths = _paths([{"path": path} for path in paths], store, "OME")
    xml = store.get("OME/METADATA.ome.xml", MAX_XML_BYTES)
    stated = OmeMetadata.parse((xml or b"").decode("utf-8", "replace"))
    described = {path: stated[at] for at, path in enumerate(paths) if len(stated) == len(paths)}
    scenes: list[tuple[NgffScene, str]] = []
    for path in paths:
        own = described.get(path, OmeMetadata())
        image = read_image(store, path)
        scenes.append((NgffScene(path, "", own.spacing), "label" if is_label(own.name) else image.name))
        if image.spacing is not None:
            scenes[-1] = NgffScene(path, "", image.spacing), scenes[-1][1]
    kept = [scene for scene, name in scenes if not is_label(name)]
    if any(_is_scan(scene) for scene in kept):
        kept = [scene for scene in kept if _is_scan(scene)]
    left = len(scenes) - len(kept)
    if not kept:
        rule, value = "must hold a scan", f"{len(scenes)} images, none of which is one"
        raise ReadError(store.root, rule, value=value, remedy="Give the folder of one of its images")
    verb = "is" if left == 1 else "are"
    notes = [f"{left} of the {len(scenes)} images in the file {verb} never read: of the label or the glass."]
    return kept, notes if left else []


def _is_scan(scene: NgffScene) -> bool:
    return scene.spacing is not None and max(scene.spacing.x, scene.spacing.y) <= MAX_MPP


def _limit(store: Store, count: int) -> None:
    if count > MAX_IMAGES:
        rule = f"must hold at most {MAX_IMAGES} images"
        raise ReadError(store.root, rule, value=f"{count} or more", remedy="Give the folder of one of its wells")


def _paths(listed: Any, store: Store, key: str) -> list[str]:
    """Paths of groups, each within the hierarchy, in the order given."""
    paths = [str(one["path"]) for one in listed]
    for path in paths:
        if not _PATH.fullmatch(path) or ".." in path.split("/"):
            raise _invalid(store, key, f"the path {path}")
    _limit(store, len(paths))
    return list(dict.fromkeys(paths))


def _invalid(store: Store, key: str, why: str) -> ReadError:
    rule = "must be valid metadata of OME-Zarr"
    return ReadError(f"{store.root}, {key},", rule, value=excerpt(why, 300), remedy=_DAMAGED)


def read_image(store: Store, path: str) -> NgffImage:
    """The image of a group. Raises `ReadError`."""
    found, key = group_attributes(store, path)
    if found is None or "multiscales" not in found:
        raise _invalid(store, key, "no multiscales")
    try:
        return _read_image(store, path, key, found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _invalid(store, key, f"{type(error).__name__}: {error}") from error


def _read_image(store: Store, path: str, key: str, found: Json) -> NgffImage:
    listed = cast("list[Json]", found["multiscales"])
    scales = listed[0]
    version = str(scales.get("version", found.get("version", _VERSIONS[0])))
    if version not in _VERSIONS:
        rule = f"must be of version {' or '.join(_VERSIONS)} of OME-Zarr"
        raise ReadError(f"{store.root}, {key},", rule, value=version, remedy=_CONVERT)
    axes = _axes(cast("list[Json]", scales["axes"]), store, key)
    units = {str(axis["name"]): str(axis.get("unit") or "") for axis in scales["axes"]}
    datasets = cast("list[Json]", scales["datasets"])[:_MAX_LEVELS]
    base = f"{path}/" if path else ""
    arrays = [ZarrArray.open(store, base + one) for one in _paths(datasets, store, key)]
    whole = _scale(scales.get("coordinateTransformations"), len(axes))
    steps = [
        [a * b for a, b in zip(_scale(d["coordinateTransformations"], len(axes)), whole, strict=True)] for d in datasets
    ]
    notes = [f"The image has {len(listed)} multiscales; the first is read."] if len(listed) > 1 else []
    kept, levels = [arrays[0]], [_level(arrays[0], arrays[0])]
    _check_first(arrays[0], axes, store, key)
    for number, (array, step) in enumerate(zip(arrays[1:], steps[1:], strict=True), start=1):
        why = _fault(array, arrays[0], step, steps[0])
        if why:
            notes.append(f"Level {number} of the image is not used: {why}.")
            continue
        kept.append(array)
        levels.append(_level(array, arrays[0]))
    spacing, unit_notes = _spacing(axes, steps[0], units)
    first = arrays[0]
    count = first.shape[axes.index("c")] if "c" in axes else 1
    omero = as_object(found.get("omero") or {}, store.root, key)
    described = cast("list[Json]", omero.get("channels") or [])
    channels, facts, colour_notes = _channels(described, count, first.coding.dtype.name)
    micrometres = _MICROMETRES.get(units.get("z", ""))
    z_step = None if micrometres is None else steps[0][axes.index("z")] * micrometres
    if _has_labels(store, base):
        notes.append("The labels that the image comes with are not read.")
    return NgffImage(
        arrays=tuple(kept),
        levels=tuple(levels),
        axes=axes,
        spacing=spacing,
        channels=channels,
        facts=(("levels", str(len(kept))), *facts),
        notes=(*unit_notes, *colour_notes, *notes),
        name=str(scales.get("name") or ""),
        z_step=z_step,
    )


def _axes(listed: Sequence[Json], store: Store, key: str) -> str:
    """The names of the axes, as one letter each. Raises `ReadError` for others than t, c, z, y and x."""
    names = [str(axis["name"]) for axis in listed]
    types = [str(axis.get("type") or "") for axis in listed]
    known = all(_KINDS.get(name) in {kind, None} or not kind for name, kind in zip(names, types, strict=True))
    if not set(names) <= set(_KINDS) or len(set(names)) < len(names) or names[-2:] != ["y", "x"] or not known:
        rule = "must have the axes y and x last, and before them none but t (time), c (channel) and z (space)"
        value = excerpt(", ".join(f"{name} ({kind})" for name, kind in zip(names, types, strict=True)))
        raise ReadError(f"{store.root}, {key},", rule, value=value, remedy=_CONVERT)
    return "".join(names)


def _scale(transforms: Any, axes: int) -> list[float]:
    """The product of scales; 1 without any. Raises `ValueError` for numbers that are none, or not positive."""
    product = [1.0] * axes
    for one in transforms or ():
        if one["type"] == "scale":
            numbers = [float(number) for number in one["scale"]]
            if len(numbers) != axes or not all(math.isfinite(number) and number > 0 for number in numbers):
                msg = f"a scale of {numbers}"
                raise ValueError(msg)
            product = [a * b for a, b in zip(product, numbers, strict=True)]
        elif one["type"] not in {"identity", "translation"}:
            msg = f"a transformation of the type {one['type']}"
            raise ValueError(msg)
    return product


def _check_first(array: ZarrArray, axes: str, store: Store, key: str) -> None:
    if len(array.shape) != len(axes):
        raise _invalid(store, key, f"{len(axes)} axes of an array with {len(array.shape)}")
    if "c" in axes and array.shape[axes.index("c")] > _MAX_CHANNELS:
        raise _invalid(store, key, f"{array.shape[axes.index('c')]} channels, at most {_MAX_CHANNELS} are read")
    tiles = _level(array, array).tiles
    if tiles[0] * tiles[1] > MAX_SEGMENTS:
        rule, remedy = f"must have at most {MAX_SEGMENTS} chunks in a plane", "Write it with larger chunks"
        raise ReadError(f"{store.root}, {array.path},", rule, value=f"{tiles[0]} × {tiles[1]}", remedy=remedy)


def _level(array: ZarrArray, first: ZarrArray) -> Level:
    full, size, tile = ((sides[-1], sides[-2]) for sides in (first.shape, array.shape, array.chunk))
    return Level.of(full, size, tile)


def _fault(array: ZarrArray, first: ZarrArray, step: Sequence[float], base: Sequence[float]) -> str:
    """Why a level is not the first one reduced in x and y; "" where it is."""
    if len(array.shape) != len(first.shape) or array.shape[:-2] != first.shape[:-2]:
        return f"it has the shape {' × '.join(map(str, array.shape))} of {' × '.join(map(str, first.shape))}"
    if array.coding.dtype.newbyteorder("=") != first.coding.dtype.newbyteorder("="):
        return f"it has {array.coding.dtype.name} instead of {first.coding.dtype.name}"
    if any(side > whole for side, whole in zip(array.shape, first.shape, strict=True)):
        return "it is larger than the first"
    scale = _level(array, first).scale
    for axis, of_size in ((-1, scale[0]), (-2, scale[1])):
        stated = step[axis] / base[axis]
        if abs(stated / of_size - 1) > _SAME + 1 / array.shape[axis]:
            return f"its size is that of 1/{of_size:.4g}, and its scale states 1/{stated:.4g}"
    return ""


def _spacing(axes: str, step: Sequence[float], units: dict[str, str]) -> tuple[Spacing | None, list[str]]:
    found = [units[axis] for axis in "xy"]
    if not all(unit in _MICROMETRES for unit in found):
        known = (
            f"the unit {excerpt(next(unit for unit in found if unit not in _MICROMETRES))!r}"
            if all(found)
            else "no unit"
        )
        numbers = " × ".join(f"{step[axes.index(axis)]:g}" for axis in "xy")
        return None, [f"The scale of x and y, {numbers}, has {known}, so it is not used as the pixel size."]
    x, y = (step[axes.index(axis)] * _MICROMETRES[units[axis]] for axis in "xy")
    return Spacing(x, y, _SOURCE), []


def _channels(
    described: Sequence[Json], count: int, dtype: str
) -> tuple[tuple[Channel, ...], list[tuple[str, str]], list[str]]:
    """The channels by their labels in omero metadata, with their colours and windows as facts."""
    known = list(described) if len(described) == count else []
    notes = (
        [f"The metadata describe {len(described)} channels of {count}, and are not used."]
        if described and not known
        else []
    )
    names = [str(one.get("label") or "") for one in known] or [""] * count
    colours = [str(one.get("color") or "").upper().removeprefix("#") for one in known] or [""] * count
    pure = [_COLOURS.get(colour) for colour in colours]
    shown = list(_COLOURS.values()) == pure
    channels: list[Channel] = []
    for number, name in enumerate(names):
        own = name or (str(pure[number]) if shown else f"channel-{number + 1}")
        own = own if all(channel.name != own for channel in channels) else f"{own} ({number + 1})"
        channels.append(Channel(own, pure[number] if shown else None, dtype))
    windows = [_window(one) for one in known]
    facts = (
        [("channel_colours", ", ".join(colours))] if all(re.fullmatch("[0-9A-F]{6}", one) for one in colours) else []
    )
    if windows and all(windows):
        facts.append(("channel_windows", ", ".join(windows)))
    return tuple(channels), facts, notes


def _window(channel: Json) -> str:
    """The window of display that a channel states, as "start–end"; "" without one."""
    window = channel.get("window")
    ends = [cast("Json", window).get(end) for end in ("start", "end")] if isinstance(window, dict) else []
    return f"{ends[0]:g}–{ends[1]:g}" if len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends) else ""


def _has_labels(store: Store, base: str) -> bool:
    found, _ = group_attributes(store, f"{base}labels")
    return bool((found or {}).get("labels"))


def numbered(scenes: Sequence[NgffScene], scene: NgffScene, name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """`ImageInfo.part` of a scene and the facts that tell it from others; nothing for the only one."""
    if len(scenes) == 1:
        return "", ()
    number = scenes.index(scene) + 1
    own = scene.name if _FIELD.fullmatch(scene.name) else harmless_name(name)
    facts = (("scene", f"{number} of {len(scenes)}"), *((("scene_name", own),) if own else ()))
    return f"scene {number}", facts


def with_spacing(image: NgffImage, scene: NgffScene) -> NgffImage:
    """The image with the pixel size of OME-XML, where its own metadata state none."""
    return image if image.spacing is not None or scene.spacing is None else replace(image, spacing=scene.spacing)
