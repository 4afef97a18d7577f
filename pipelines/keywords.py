"""The keywords of `limner.run` and its like: written from `Settings` by tests/meta/settings_text.py."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Keywords(TypedDict, total=False):
    """Every setting but the inputs. What is not given, or None, has its default."""

    config: str | os.PathLike[str] | None
    """YAML file of settings; keywords win over it."""
    out: str | os.PathLike[str] | None
    """Folder for the results. A run that was cut off goes on when it is given the same folder."""
    preset: str | None
    """Settings that ship for a kind of image; all others win over it."""
    model: str | os.PathLike[str] | None
    """Model card by name or path, or annotator with its checkpoint, such as probe:FOLDER. Default: csmask, where every
    image has the bands that it needs. none annotates nothing: the run reports what there is.
    """
    labels: str | Sequence[str] | None
    """Labels to report, or to choose from where the model takes words. Default: all."""
    ask: str | None
    """Question to a vision-language model about each region."""
    answer: Literal["", "describe", "classify", "locate", "extract"] | None
    """Kind of answer: describe is a text, classify one of the labels, locate boxes of the labels, extract the values of
    schema_file.
    """
    schema_file: str | os.PathLike[str] | None
    """JSON schema file of the values to extract."""
    resolution: str | None
    """Pixel size at which regions are analysed: 10m, 0.5um or native. Default: the model's own."""
    stretch: str | tuple[float, float] | None
    """Native numbers that become black and white in pictures of more than 8 bits, such as 0,2750. Default: percentiles
    of each image.
    """
    hd_num: int | None
    """Most tiles of a region, 1 to 65; larger images are cut into more regions."""
    enlarge: bool | None
    """Enlarge small pictures to fill hd_num tiles, as 4KHD's own transform always does."""
    overlap: int | None
    """Pixels, at the analysed resolution, that neighbouring regions share."""
    area: str | os.PathLike[str] | None
    """GeoJSON file of the area of interest: longitude and latitude for maps, pixels as QuPath exports them for slides
    and studies.
    """
    tissue: Literal["auto", "off"] | None
    """auto leaves out what of a slide holds no tissue."""
    skip_empty: bool | None
    """Leave out regions in which the overview shows no valid pixel."""
    reader: str | None
    """Reader that opens the inputs. Default: the one that knows their format best."""
    sensor: str | None
    """Sensor and processing level of the images, where their files do not say it."""
    bands: str | Sequence[str] | None
    """Names of the file's channels, in its order, such as blue,green,red,nir."""
    crs: str | None
    """Coordinate reference system, such as EPSG:32618, of files that have none."""
    microns_per_pixel: float | tuple[float, float] | str | None
    """Pixel size of slides that do not state it: one number, or two as x,y."""
    names: Literal["hide", "show"] | None
    """hide replaces names and paths of slides and studies by pseudonyms in all output."""
    reader_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the readers, such as window=40,400; `limner plugins` lists them."""
    model_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the model; `limner models show NAME` lists them."""
    report_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the writers, as WRITER.OPTION=VALUE; `limner plugins` lists them."""
    engine: Literal["inline", "local"] | None
    """inline works in this process, local in several processes of this machine."""
    workers: int | None
    """Processes of the engine local. Default: one for each core."""
    batch: int | None
    """Regions that are annotated together."""
    reports: str | Sequence[str] | None
    """Kinds of reports to write. Default: all."""
    fetch: bool | None
    """Allow the network for the model's weights."""
