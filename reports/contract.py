"""A contract test for report writers, built in or of a plug-in: call `check_writer` in a test of your own.

    check_writer(MyWriter(), None, tmp_path)

Each check raises `AssertionError` with the sentence of the contract in `limner.reports.writer` that does not hold.
"""

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import shapely

from ..model.finding import Finding
from ..readers.geodesy import parse_crs
from ..readers.geometry import Box, Placement
from ..readers.image import Channel, ImageInfo, Kind, Plane
from .csv_safety import clean_text, csv_cell
from .writer import DISCLAIMER, Area, FileRow, ImageRecord, Overview, Record, UnanalysedRegion, Writer

_PATIENT: Final = "JANE-DOE"  # a patient's name, which must be in no report
_LABEL: Final = "lymphocyte"
_HOSTILE: Final = "=1+1\n\t</script>\u202e\ud800\x00"
_IDS: Final = ("../../outside/=x", "slide \u202e " + "long " * 60, "study-1")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


def check_writer(writer: Writer, record: Record | None, folder: Path) -> None:
    """Check a writer against the contract: on your own `record`, if given, a hostile one and an empty one.

    `folder` is an empty folder, in which others are made.
    """
    _require(bool(writer.name) and writer.name == clean_text(writer.name), "a writer must have a name", writer.name)
    hostile = hostile_record()
    unread = replace(hostile.images[0], findings=tuple, areas=(Area("unreadable", "cut short", 1.0, None, 1),))
    runs = {
        "hostile": hostile,
        "unread": replace(hostile, images=(unread,)),
        "empty": replace(hostile, images=(), files=(), labels=()),
    }
    for name, run in (runs if record is None else {"yours": record, **runs}).items():
        files = _check_files(writer, run, folder / name)
        _check_omitted(writer, run)
        _check_contents(files)
    _check_failure(writer, hostile, folder / "hostile" / "one")


def hostile_record() -> Record:
    """A run of a map, a slide and a study with hostile ids, texts and paths."""
    crs = parse_crs("EPSG:32618").to_wkt()
    in_patient = Placement(((0.5, 0.0, 100.0), (0.0, 1.0, 200.0), (0.0, 0.0, 5.0)), "mm", frame="2.25.9")
    placements: dict[Kind, Placement] = {
        "map": Placement(((10.0, 0.0, 5e5), (0.0, -10.0, 4e6)), "m", crs),
        "slide": Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um"),
        "study": in_patient,
    }
    images = tuple(_image(kind, name, placements[kind]) for kind, name in zip(placements, _IDS, strict=True))
    files = (FileRow("file-0123456789abcdef", "read", _IDS[0], "raster"), FileRow(_HOSTILE, "failed", reason=_HOSTILE))
    model = {"name": _HOSTILE, "version": "1", "sha256": "0" * 64}
    return Record(images, files, model, (_LABEL, _HOSTILE), "0.1.0")


def _image(kind: Kind, name: str, placement: Placement) -> ImageRecord:
    path = f"/{_PATIENT}/{_PATIENT}.tif"
    planes = (Plane(placement, path, 1, "2.25.3", 5.0, 1),) if kind == "study" else ()
    facts = (("series_uid", "2.25.7"), ("row_mm", "1.0"), ("col_mm", "0.5")) if kind == "study" else ()
    info = ImageInfo(
        uri=path,
        reader="sample",
        size=(100, 80),
        channels=(Channel("red"),),
        placement=placement,
        id=name,
        study="2.25.1" if kind == "study" else "",
        files=(path,),
        notes=(_HOSTILE,),
        planes=planes,
        facts=facts,
        kind=kind,
    )
    hole = shapely.box(10, 10, 40, 40).difference(shapely.box(20, 20, 30, 30))
    findings = [
        Finding(_LABEL, hole, "area", 0.5, numbers={"pixels": 800.0, _HOSTILE: 1.0}),
        Finding(_HOSTILE, shapely.box(50, 50, 60, 60), "box", text=_HOSTILE, notes={_HOSTILE: _HOSTILE}),
        Finding(_LABEL, shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]), "region"),
    ]
    valid = np.ones((80, 100), dtype=np.bool_)
    picture = Overview(np.full((80, 100, 3), 90, dtype=np.uint8), valid, valid, (1.0, 1.0))
    return ImageRecord(
        info,
        lambda: findings,
        lambda: picture,
        (Area("analysed", "", 7000.0, 0.5, 3), Area("skipped", _HOSTILE, 1000.0, 0.1, 1)),
        failures=((f"{name}/x0", _HOSTILE),),
        analysis={"Tiles": _HOSTILE},
        unanalysed=(UnanalysedRegion(Box(0, 60, 100, 80), "skipped", _HOSTILE),),
        slice_pictures=lambda planes, _: iter([picture] * len(planes)),
    )


def _check_files(writer: Writer, run: Record, folder: Path) -> Sequence[Path]:
    """Check that files are in the folder and nothing else, and that the same record gives the same bytes."""
    written: list[dict[str, bytes]] = []
    paths: Sequence[Path] = ()
    for name in ("two", "one", "one"):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        paths = writer.write(run, place)
        names = [path.name for path in paths]
        _require(all(path.parent == place for path in paths), "files must be in the given folder", paths)
        _require(len(set(names)) == len(names), "files must have different names", names)
        present = sorted(entry.name for entry in place.iterdir())
        _require(present == sorted(names), "all files must be returned, and no temporary file left", present)
        _require(all(path.is_file() and not path.is_symlink() for path in paths), "files must be plain files", paths)
        written.append({path.name: path.read_bytes() for path in paths})
    _require(written[0] == written[1], "the same record must give the same bytes in any folder")
    _require(written[1] == written[2], "a report that is written again must be the same")
    return paths


def _check_omitted(writer: Writer, run: Record) -> None:
    omitted = writer.omitted(run)
    ids = [image.info.id for image in run.images]
    _require(set(omitted) <= set(ids), "omitted images must be images of the run", list(omitted))
    _require(all(omitted.values()), "each omitted image must have a reason", omitted)


def _check_contents(paths: Sequence[Path]) -> None:
    for path in paths:
        content = _unpacked(path)
        leaked = _PATIENT in path.name or _PATIENT.encode() in content
        _require(not leaked, "no report may hold paths, which may hold names of patients", path.name)
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or _LABEL in text:
            disclaimed = DISCLAIMER.encode() in content
            _require(disclaimed, f"a report with findings must hold: {DISCLAIMER}", path.name)
        if text is None or "\0" in text:
            continue
        clean = "\n".join(clean_text(line) for line in text.split("\n"))
        _require(text == clean, "texts must hold no control, bidirectional or other invisible characters", path.name)
        if path.suffix in {".csv", ".tsv"}:
            _check_table(path, text)
        if "json" in path.name.rsplit(".", 2)[-1] or path.name.endswith("json.gz"):
            json.loads(text, parse_constant=_refuse)


def _unpacked(path: Path) -> bytes:
    """The content of a file, with what is compressed in it."""
    content = path.read_bytes()
    if path.suffix == ".pmtiles":  # by PMTiles 3, the header states where the metadata lies
        start, length = (int.from_bytes(content[at : at + 8], "little") for at in (24, 32))
        return content + gzip.decompress(content[start : start + length])
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _check_table(path: Path, text: str) -> None:
    lines = text.split("\n")
    rows = list(csv.reader(lines[:-1], delimiter="\t" if path.suffix == ".tsv" else ","))
    _require(lines[-1] == "" and len(rows) == len(lines) - 1, "each row of a table must be a line", path.name)
    _require(len({len(row) for row in rows}) <= 1, "each row of a table must have all columns", path.name)
    for one in (one for row in rows for one in row):
        _require(bool(_NUMBER.fullmatch(one)) or csv_cell(one) == one, "no cell of a table may be a formula", one)


def _check_failure(writer: Writer, run: Record, folder: Path) -> None:
    """Check that a write that fails, on a full disk say, leaves no file."""

    def fail() -> Sequence[Finding]:
        raise OSError(28, "No space left on device")

    before = dict(_contents(folder))
    with suppress(Exception):
        writer.write(replace(run, images=tuple(replace(image, findings=fail) for image in run.images)), folder)
    after: Mapping[str, bytes] = dict(_contents(folder))
    _require(set(after) == set(before), "a write that fails must leave nothing half-written", sorted(after))


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        yield path.name, path.read_bytes()


def _refuse(word: str) -> None:
    msg = f"{word} is not JSON"
    raise AssertionError(msg)


def _require(holds: bool, sentence: str, found: object = "") -> None:
    if not holds:
        raise AssertionError(f"{sentence} (found: {found})" if found != "" else sentence)
