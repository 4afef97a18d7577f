"""The result of a run: findings, areas and files as data frames, pictures, and what failed."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..readers.errors import RequestError, did_you_mean
from ..reports.writer import FileRow, ImageRecord, Record
from .cli.terminal import plural, visible
from .config import Settings
from .describe import html_table, image_json
from .describe_run import area_rows, findings_rows, record_text
from .object_settings import OBJECTS
from .run.reporting import WrittenReport, read_record

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
    from PIL import Image as Picture

_MAX_IMAGES = 8  # shown in a notebook
ALL_DONE, SOME_FAILED, NOTHING_READ = 0, 1, 3


def _unseen(image: ImageRecord) -> bool:
    """Whether nothing of an image could be analysed, and some of it was unreadable."""
    regions = {area.status: area.regions for area in image.areas}
    return bool(regions.get("unreadable")) and not regions.get("analysed")


@dataclass(frozen=True)
class Run:
    """The result of `limner.run` and `limner.annotate`; `Run.open` reads it from a folder."""

    record: Record
    """Images, files, labels and areas, as report writers get them."""
    folder: Path | None = None
    """The run folder; None where the results are in memory only."""
    reports: tuple[WrittenReport, ...] = ()
    """What each report writer wrote in this process."""
    source: object = None
    """What must stay in memory so that the images can be read again."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str], **objects: str | float | Sequence[str]) -> Self:
        """Read the run in a folder, as far as it went. Raises `RequestError` or `StoreError`.

        `objects` are settings of objects other than the run's, such as min_area="50um2" or instances="all".
        """
        for name in objects:
            if name not in OBJECTS:
                remedy = f"{did_you_mean(name, OBJECTS)}Settings of objects: {', '.join(OBJECTS)}"
                raise RequestError(f"keyword {name!r} of Run.open", "must be a setting of objects", remedy=remedy)
        changes = Settings.resolve(objects, source="Run.open").model_dump(include=set(objects))
        return cls(read_record(Path(folder), changes=changes), Path(folder))

    @cached_property
    def findings(self) -> "pd.DataFrame":
        """A row per finding: a GeoDataFrame with a CRS for maps, a DataFrame in µm for slides and mm for studies."""
        from ..reports.dataframes import findings_frame

        return findings_frame(self.record)

    @cached_property
    def summary(self) -> "pd.DataFrame":
        """A row per image: areas, shares, counts and densities by label."""
        from ..reports.dataframes import summary_frame

        return summary_frame(self.record)

    @cached_property
    def files(self) -> "pd.DataFrame":
        """A row per input file: its outcome and the reason."""
        from ..reports.dataframes import files_frame

        return files_frame(self.record)

    @cached_property
    def images(self) -> "pd.DataFrame":
        """A row per image: the metadata that `limner info --json` prints."""
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - the same

        return pd.DataFrame([image_json(image.info) for image in self.record.images])

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the reports that were written, in order."""
        return tuple(path for report in self.reports for path in report.paths)

    @property
    def failed_files(self) -> tuple[FileRow, ...]:
        """The input files that could not be read."""
        return tuple(row for row in self.record.files if row.status == "failed")

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(what, why) for every region that failed, file that could not be read and report that was not written."""
        regions = [failure for image in self.record.images for failure in image.failures]
        files = [(row.path, row.reason) for row in self.failed_files]
        return (*regions, *files, *((report.writer, report.error) for report in self.reports if report.error))

    @property
    def exit_code(self) -> int:
        """0 where nothing failed; 1 where something did, or an image shows nothing; 3 where nothing could be read."""
        failed = any(image.failures for image in self.record.images)
        done = any(area.regions for image in self.record.images for area in image.areas if area.status == "analysed")
        if failed and not done:
            return NOTHING_READ
        return SOME_FAILED if self.failures or any(map(_unseen, self.record.images)) else ALL_DONE

    @property
    def complete(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def zones(
        self,
        path: str | os.PathLike[str],
        *,
        id: str = "",  # noqa: A002 - the flag's name
        layer: str = "",
        image: str = "",
        out: str | os.PathLike[str] | None = None,
    ) -> "pd.DataFrame":
        """Areas, shares, counts and mean scores by label in each polygon of a file, as `limner zones`.

        A row per zone and image, a GeoDataFrame in the zones' CRS for maps; `attrs["statements"]` is what must be known
        of them. `id` is the column with the zones' names; `image` is needed for zones in pixels where there are several
        images. Files are written into the new folder `out`. Raises `RequestError` for zones that cannot be used, and
        `ReadError` where an image that was analysed in part cannot be read again.
        """
        from ..reports.dataframes import zones_frame
        from .overlay.zones import run_zones, write_zone_files

        table, statements = run_zones(self.record, os.fspath(path), layer=layer, column=id, image=image)
        if out is not None:
            write_zone_files(table, Path(out))
        frame = zones_frame(table)
        frame.attrs["statements"] = statements
        return frame

    def reviewed(self, *reviews: str, prefer: Sequence[str] = (), rejected: bool = False) -> Self:
        """The run after its review: labels as reviewers gave them, then what they drew, with columns `review` and more.

        `reviews` are files or reviewers, by default all of the run; `prefer` names reviewers whose decision holds in
        conflicts. `rejected` keeps findings that were rejected. Raises `RequestError` for a run without a folder or
        reviews, and `StoreError` for damaged ones.
        """
        from .review.export import reviewed_record
        from .review.joint import find_reviews, read_joint

        if self.folder is None:
            remedy = "Give limner.run a folder out, and open that"
            raise RequestError("a run in memory", "must have a folder, beside which its reviews are", remedy=remedy)
        joint = read_joint(find_reviews(self.folder, reviews), prefer=prefer, record=self.record)
        return replace(self, record=reviewed_record(self.record, joint, rejected=rejected))

    def show(self, image: str | None = None) -> "Picture.Image":
        """The overview of an image with findings and legend; notebooks display it.

        `image` is an id, needed where there are several. Raises `RequestError` for an unknown one.
        """
        from ..reports.overview.writer import overview_page

        return overview_page(self.record, self._image(image))

    def _image(self, name: str | None) -> ImageRecord:
        known = self.record.images
        found = [image for image in known if name in {None, image.info.id}]
        if len(found) == 1:
            return found[0]
        raise RequestError(
            "image" if name is None else f"image {name!r}",
            "must be one of the run",
            value=plural(len(known), "image"),
            remedy=f"Give one of {', '.join(repr(image.info.id) for image in known[:20])}",
        )

    def __repr__(self) -> str:
        """Findings and areas of each image, the folder, and what failed."""
        where = "in memory" if self.folder is None else str(self.folder)
        state = "complete" if self.complete else f"{plural(len(self.failures), 'failure')}: see .failures"
        return f"limner run {where}, {state}\n{record_text(self.record).rstrip()}\n{self.record.use}"

    def _repr_html_(self) -> str:
        """The same for notebooks, with a small picture of each image."""
        parts: list[str] = []
        for image in self.record.images[:_MAX_IMAGES]:
            rows = [*(findings_rows(self.record, image) if self.record.assessed else []), *area_rows(image)]
            parts.append(html_table(rows, title=image.info.id, picture=self.show(image.info.id)))
        left = len(self.record.images) - len(parts)
        closing = [("more", f"{plural(left, 'image')}: see .summary")] if left else []
        closing += [("results", "in memory" if self.folder is None else str(self.folder))]
        closing += [("failed", f"{what}: {why}") for what, why in self.failures[:20]]
        return "".join([*parts, html_table([*closing, ("use", self.record.use)])])


def run_text(run: Run, folder: str) -> str:
    """The result of a run: findings by label, analysed area, paths of the reports."""
    lines = [record_text(run.record)]
    lines += [f"{row.path} failed: the reason is above and in files.csv" for row in run.failed_files]
    lines += ["Results", *(f"  {path}" for path in run.paths)]
    lines += [f"To write the reports again: limner report {shlex.quote(folder)}", run.record.use]
    return "\n".join([lines[0], *map(visible, lines[1:])])
