"""The keywords of `limner.run` and its like: written from `Settings` by tests/meta/settings_text.py."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Keywords(TypedDict, total=False):
    """Every setting but the inputs. What is not given, or None, has its default."""

    config: str | os.PathLike[str] | None
    """YAML file of settings; keywords win over it."""
    out: str | os.PathLike[str] | None
    """Output folder. An interrupted run resumes when it is given the same folder again."""
    preset: str | None
    """Settings that ship for one kind of image. All other settings override them."""
    model: str | os.PathLike[str] | None
    """Model card by name or path, or annotator with its checkpoint, such as probe:FOLDER. Default: csmask, if every
    image has the bands it needs. With none, nothing is annotated and the run only describes the images.
    """
    labels: str | Sequence[str] | None
    """Labels to report; for models that take label texts, the candidates. Default: all."""
    ask: str | None
    """Question that a vision-language model is asked about each region."""
    answer: Literal["", "describe", "classify", "locate", "extract"] | None
    """Type of answer: describe (free text), classify (one of the labels), locate (boxes of the labels) or extract
    (values that follow schema_file).
    """
    force_domain: bool | None
    """Run the model on images that it was not made for, by its card. Every report then tells so."""
    schema_file: str | os.PathLike[str] | None
    """JSON schema file of the values to extract."""
    probabilities: bool | None
    """Keep the model's probability of each label at each analysed pixel, in steps of 1/250, for the report
    probabilities and for fractional segmentations with report_options dicom-seg.type=fractional. Takes disk space.
    """
    resolution: str | None
    """Pixel size at which images are analysed: 10m, 0.5um or native. Default: the model's own."""
    stretch: str | tuple[float, float] | None
    """Pixel values rendered as black and white, for images of more than 8 bits, such as 0,2750. Default: percentiles of
    each image.
    """
    hd_num: int | None
    """Maximum number of tiles in a region, 1 to 65. Larger images are split into more regions."""
    whole: bool | None
    """Show each image, or each slice of a stack, whole: reduced until it fits into hd_num tiles. Its pixel size may be
    unknown.
    """
    enlarge: bool | None
    """Enlarge small images until they fill hd_num tiles, as 4KHD's own transform does."""
    overlap: int | None
    """Overlap of neighbouring regions, in pixels at the analysis resolution."""
    area: str | os.PathLike[str] | None
    """File of the region of interest: GeoJSON, GeoPackage, FlatGeobuf, Shapefile or KML, in its own CRS for maps, in
    pixels as exported by QuPath for slides, studies and images without a georeference. FILE|layername=NAME names a
    layer.
    """
    tissue: str | os.PathLike[str] | None
    """auto detects the tissue on slides and skips the rest; off analyses the whole slide. A file of a tissue mask,
    polygons in pixels as QuPath exports them or a picture that is 0 beside the tissue, is used instead; a folder, such
    as an earlier run, has one for each slide (tissue-ID.geojson).
    """
    mask: str | os.PathLike[str] | None
    """What lies under cloud or must not be analysed for another reason: csmask-cloud (the model of that name is run
    first), SCL or QA_PIXEL (the quality band of a Sentinel-2 or a Landsat product), or a file of polygons or a raster.
    """
    mask_action: Literal["exclude", "flag"] | None
    """exclude leaves out what is masked, and counts its area by its reason; flag analyses it, and states for each
    finding how much of it is masked.
    """
    mask_values: str | Sequence[str] | None
    """Values of the mask's raster that are masked, such as 3,8,9. Default: those that stand for cloud and shadow; in a
    file every value but 0.
    """
    stack: Literal["slices", "montage"] | None
    """How a stack is shown to a model of pictures: slice by slice, or as montages of as many slices as a region has
    tiles, each in a tile, with its number and the side of the patient.
    """
    slices: str | Sequence[str] | None
    """Slices of each stack to analyse: numbers and ranges (1,5,10-40), every:N for the first and each Nth after it, or
    at:-12.5mm for those nearest to a position along the normal. Default: all.
    """
    skip_empty: bool | None
    """Skip regions in which the overview has no valid pixel."""
    reader: str | None
    """Reader that opens the inputs. Default: the one that supports their format best."""
    sensor: str | None
    """Sensor and processing level of images whose files do not state them."""
    bands: str | Sequence[str] | None
    """Names of the channels, in the order of the file, such as blue,green,red,nir."""
    crs: str | None
    """Coordinate reference system of files that have none, such as EPSG:32618."""
    microns_per_pixel: float | tuple[float, float] | str | None
    """Pixel size in µm of slides that do not state it, and of pictures, which are slides then: one number, or x,y."""
    metres_per_pixel: float | tuple[float, float] | str | None
    """Pixel size in metres of maps and pictures without a georeference: one number, or two as x,y."""
    scene: str | Sequence[str] | None
    """Images to analyse of a file that holds several, by number or name. Default: all, each as an image of its own."""
    tma: bool | None
    """Find the cores of tissue microarrays on slides, analyse nothing else, and write cores.csv with a row for each."""
    icc: Literal["ignore", "apply"] | None
    """apply converts 8-bit colours of slides to sRGB by the ICC profile of their file; ignore reads them as they are
    stored, as nearly all models saw them in training.
    """
    names: Literal["auto", "hide", "show"] | None
    """auto replaces the names and paths of slides and studies by pseudonyms, except on an interactive terminal; hide
    there too; show nowhere, so that names are in everything that is written.
    """
    crosswalk: str | os.PathLike[str] | None
    """CSV file of pseudonyms of your own for paths and UIDs of slides and studies, with the columns original and
    pseudonym, and kind where needed. Others are replaced as ever.
    """
    reader_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the readers, such as window=40,400; `limner plugins` lists them."""
    model_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the model; `limner models show NAME` lists them."""
    report_options: Mapping[str, str | float | Sequence[str | float]] | None
    """Options of the writers, as WRITER.OPTION=VALUE; `limner plugins` lists them."""
    engine: Literal["inline", "local", "ray"] | None
    """inline runs in this process, local in several processes on this machine, ray in processes on the nodes of a Ray
    cluster.
    """
    address: str | None
    """Ray cluster of the ray engine: HOST:PORT, or auto for the one that this machine belongs to. Default: a Ray that
    is started on this machine and ends with the run.
    """
    workers: int | None
    """Number of processes of the local and the ray engine. Default: one per core, or as many as the GPUs allow with
    gpus_per_worker.
    """
    gpus_per_worker: float | None
    """GPUs of each process of the ray engine: whole ones, or a part of one such as 0.5. Default: none."""
    batch: int | None
    """Number of regions annotated per batch."""
    memory: str | os.PathLike[str] | None
    """Most memory that a run may take, or with the engine ray each of its workers, such as 2GB: workers, batches,
    caches and reading ahead are made to fit. Default: no limit.
    """
    reports: str | Sequence[str] | None
    """Kinds of reports to write. Default: all but those on request, of which docs/reports.md tells. To name a dicom-…
    report is to ask for objects that identify the patient: they hold the name, and the originals' UIDs and dates.
    """
    reference: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
    """Reference masks of stacks that are annotated as volumes: NIfTI label maps on the stacks' own voxels, as FILE or
    IMAGE=FILE. Dice and surface distances go to reference.csv.
    """
    min_area: str | os.PathLike[str] | None
    """Least area of areas of a class map that are reported: 500m2 or 0.05ha on maps, 50um2 on slides, 20mm2 in studies,
    or 5px of the analysis. Smaller ones are left out once areas are joined across regions; areas.csv accounts for them.
    """
    fill_holes: str | os.PathLike[str] | None
    """Fill holes of areas up to this area, in the same units, or all. A hole that holds another area stays."""
    smooth: bool | None
    """Cut the corners of pixels from outlines, so that steps become lines. Borders stay shared."""
    simplify: str | os.PathLike[str] | None
    """Leave out vertices of outlines whose triangle with their neighbours is smaller than the square of this: 5m on
    maps, 2um on slides, 1mm in studies or 1px. Borders stay shared.
    """
    instances: str | Sequence[str] | None
    """Labels whose areas are split into objects where they are narrow, each with its perimeter, circularity and mean
    intensities; all for every label.
    """
    neck: float | None
    """Width of a neck between two instances, as a share of the smaller one's: only narrower ones part them."""
    tissue_edge: str | os.PathLike[str] | None
    """Depth up to which an area that only lines the edge of the tissue of a slide is no object; off keeps it."""
    fetch: bool | None
    """Allow downloading the model's weights."""
