"""Differences between the older and the newer side that are meant, each with its reason. All others are errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column that is another on the newer side. `tables` is a pattern such as "*/findings.csv" or "slide*/*".

    `old` and `new` are its names, as for `re.sub`; without `old` it is new, and `new` a pattern such as "*_um"; without
    `new` it is gone. The older cell is multiplied by
    `factor` or goes through `change` before it is compared. With `free` its cells are not compared at all.
    """

    because: str
    tables: str
    old: str = ""
    new: str = ""
    factor: float = 1.0
    change: Callable[[str], str] | None = None
    free: bool = False


@dataclass(frozen=True)
class Table:
    """A table that is called otherwise, gone (without `new`) or new (without `old`): patterns of run and file.

    With both, `new` is what `re.sub(old, new, name)` makes of the older name.
    """

    because: str
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Lines:
    """Printed lines that differ: those of the older side that match `old`, and of the newer one that match `new`.

    Either may be a regular expression for the whole line; empty: there are none.
    """

    because: str
    texts: str
    old: str = ""
    new: str = ""


_SMALL = ("slide*", "examples", "stud*")  # runs of slides and studies
_NAMES = "what people call an image stands beside its id"
_WHOLE = "what summary.csv told of labels and areas stands in areas.csv; summary.csv has a row an image"
_UNITS = "areas of slides are in µm² and mm², those of studies in mm²"
_PLANES = "a stack's frames are planes: what is counted is frames, not the sheet that they were laid on"
_QUPATH = "QuPath's measurements are called as the columns are, and its metadata holds the others"
_SLICES = "a region of a stack is a slice at its own resolution, where it was a montage of slices of a tile each"
_GROUND = "the picture of a slide or a study does not speak of the ground"
_FACTS = "facts are told in the terms of the kind of image: maps, slides and studies each have their own rows"
_PRINTED = "sizes are printed in the units of the kind of image, and shares are those of summary.csv"
_OWN = "coordinates in an image's own world are told of maps, µm of slides; studies have those of the patient"

COLUMNS: Sequence[Column] = (
    *(Column(_NAMES, f"*/{table}", new="name") for table in ("findings*", "summary.csv", "series.csv", "*.qupath*")),
    Column(_NAMES, "*/overview-*.png", "title", "title", free=True),
    *(Column("a box in the image's own CRS", "*/findings.*", new=f"world_{end}") for end in ("x?", "y?")),
    *(
        Column("a layer of the GeoPackage has every column of findings", "*/findings.gpkg#*", new=name)
        for name in ("image", "crs", "world_unit", "world_x", "world_y", "*_um", "*_mm2", "*_um2")
    ),
    Column(_WHOLE, "*/summary.csv", "name", "item"),
    *(Column(_WHOLE, "*/summary.csv", f"{size}_{axis}_m") for size in ("pixel", "seen") for axis in "xy"),
    *(Column(_WHOLE, "*/summary.csv", new=name) for name in ("weights_sha256", "limner")),
    *(Column(_UNITS, f"{run}/*.csv", "area_m2", "area_mm2", 1e6) for run in _SMALL[:2]),
    *(Column(_UNITS, "slide*/findings.csv", new=name) for name in ("area_um2", "*_um")),
    *(Column(_OWN, f"{run}/findings.csv", name) for run in _SMALL for name in ("lon", "lat", "crs")),
    *(Column(_OWN, f"{run}/findings.csv", f"world_{name}") for run in _SMALL for name in ("x", "y", "unit")),
    Column(_QUPATH, "*.qupath*", r"measurements\.(p\..*|pixels|valid)", r"measurements.number.\1"),
    *(Column(_QUPATH, "*.qupath*", new=name) for name in ("measurements.area_mm2", "metadata.*", "limner.name")),
    *(Column(_PLANES, "examples/summary.csv", name, name, free=True) for name in ("area_px", "regions")),
    *(
        Column(_PLANES, "examples/overview-study1-us1.png", name, name, free=True)
        for name in ("width", "height", "coarse", "drawn")
    ),
    Column(_PLANES, "stud*/findings.csv", r"bbox_(..)_px", r"\1_px"),
    *(Column(_PLANES, "stud*/findings.csv", name, name, free=True) for name in ("x_px", "y_px")),
    Column(_PLANES, "stud*/findings.csv", "n_slices"),
    *(Column(_PLANES, "stud*/findings.csv", name, name, free=True) for name in ("finding", "finding_uid")),
    Column(_PLANES, "stud*/summary.csv", "regions", "regions", free=True),
    *(Column(_PLANES, "stud*/summary.csv", name, name, free=True) for name in ("area_px", "share")),
    Column("a study's areas follow from its pixel spacing", "stud*/*.csv", "area_m2", "area_mm2", free=True),
    *(
        Column(_GROUND, f"{run}/overview-*.png", name, name, free=True)
        for run in _SMALL
        for name in ("coarse", "drawn")
    ),
    *(Column(_SLICES, "stud*/overview-*.png", name, name, free=True) for name in ("width", "height")),
    *(Column(_SLICES, f"stud*/{table}.csv", "n_findings", "n_findings", free=True) for table in ("series", "studies")),
    Column(
        "x_px of finding 89 lies half way between two thousandths", "virginia/findings.csv", "x_px", "x_px", free=True
    ),
    Column("an image's id is called image everywhere", "*/series.csv", "stack_id", "image"),
)
_STUDIES = (("old", "findings.csv"), ("new", "findings.csv"), ("old", "summary.csv"), ("new", "areas.csv"))
_ROWS = "reader|kind|path|size|channels|values|crs|pixel|notes?|objective|levels|modality|window|study|series|slices"
TABLES: Sequence[Table] = (
    Table("GeoParquet is a new report", new="*.parquet"),
    *(Table(_SLICES, **{side: f"stud*/{name}"}) for side, name in _STUDIES),
    Table(_WHOLE, r"(.*)/summary\.csv", r"\1/areas.csv"),
    Table(_WHOLE, new="*/summary.csv"),
    Table("findings.csv tells of slices all that slices.csv told", "*/slices.csv"),
)
LINES: Sequence[Lines] = (
    Lines("GeoParquet is a new report", "*.txt", new=r" *\S+\.parquet"),
    Lines(_WHOLE, "*.txt", new=r" *[a-z-]+/areas\.csv"),
    Lines("findings.csv tells of slices all that slices.csv told", "*.txt", old=r" *[a-z-]+/slices\.csv"),
    Lines(_PLANES, "examples.txt", *[r" *skipped .*no model"] * 2),
    *(
        Lines(_FACTS, f"{text}-*.txt", *[rf" +({_ROWS}|seen at|seen as|tissue|skipped|regions)\b.*"] * 2)
        for text in ("info", "plan")
    ),
    *(
        Lines(_PRINTED, f"{run}*.txt", *[r" +.*(%|share.*|\b(px|[mµk]*m²)).*"] * 2)
        for run in (*_SMALL, "map-wide", "map-words")
    ),
    Lines(_SLICES, "plan-study.txt", *[r"regions to look at.*"] * 2),
    Lines("what a run takes is measured anew each time", "plan-*.txt", *[r".*\b(time|memory)\b.*"] * 2),
)
