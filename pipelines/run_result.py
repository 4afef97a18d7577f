"""What a run gave: its findings, areas and files as data frames, its pictures, and whether all of it was done."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..readers.errors import RequestError
from ..reports.writer import FileRow, ImageRecord, Record
from .describe import area_rows, findings_rows, html_table, image_json, record_text
from .run.events import plural
from .run.reporting import Made, read_record

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
    from PIL import Image as Picture

_DRAWN = 8  # images that a notebook shows of a run
ALL_DONE, SOME_FAILED, NOTHING_READ = 0, 1, 3


@dataclass(frozen=True)
class Run:
    """The results of a run: what `limner.run` and `limner.annotate` return, and `Run.open` finds in a folder."""

    record: Record
    """Images, files, labels and areas, as report writers are given them."""
    folder: Path | None = None
    """Where the results lie; None where they are in memory only."""
    made: tuple[Made, ...] = ()
    """What each report writer made in this process."""
    source: object = None
    """What must stay in memory for the images to be read again."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """The run in a folder, as far as it went. Raises `RequestError` or `StoreError` where it is none."""
        return cls(read_record(Path(folder)), Path(folder))

    @cached_property
    def findings(self) -> "pd.DataFrame":
        """A row a finding: a GeoDataFrame with its CRS for maps, a DataFrame in µm for slides and mm for studies."""
        from ..reports.dataframes import findings_frame

        return findings_frame(self.record)

    @cached_property
    def summary(self) -> "pd.DataFrame":
        """A row an image: areas, shares, counts and densities by label."""
        from ..reports.dataframes import summary_frame

        return summary_frame(self.record)

    @cached_property
    def files(self) -> "pd.DataFrame":
        """A row an input file: what became of it, and why."""
        from ..reports.dataframes import files_frame

        return files_frame(self.record)

    @cached_property
    def images(self) -> "pd.DataFrame":
        """A row an image: the facts that `limner info --json` gives."""
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - the same

        return pd.DataFrame([image_json(image.info) for image in self.record.images])

    @property
    def paths(self) -> tuple[Path, ...]:
        """The reports that were written, in order."""
        return tuple(path for one in self.made for path in one.paths)

    @property
    def failed_files(self) -> tuple[FileRow, ...]:
        """Input files that could not be read or planned, with the reason."""
        return tuple(row for row in self.record.files if row.status == "failed")

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(what, why) for every region that failed, file that could not be read and report that was not written."""
        regions = [failure for image in self.record.images for failure in image.failures]
        files = [(row.path, row.reason) for row in self.failed_files]
        return (*regions, *files, *((one.writer, one.error) for one in self.made if one.error))

    @property
    def exit_code(self) -> int:
        """0 where everything was done; 1 where something failed; 3 where nothing could be read."""
        failed = any(image.failures for image in self.record.images)
        done = any(area.regions for image in self.record.images for area in image.areas if area.status == "analysed")
        if failed and not done:
            return NOTHING_READ
        return SOME_FAILED if self.failures else ALL_DONE

    @property
    def complete(self) -> bool:
        """Whether everything was done: nothing failed."""
        return not self.failures

    def show(self, image: str | None = None) -> "Picture.Image":
        """The overview of an image with its findings, its legend and its areas; notebooks display it.

        `image` is an id, needed where there are several. Raises `RequestError` for an unknown one.
        """
        from ..reports.overview.writer import overview_page

        return overview_page(self.record, self._image(image))

    def _image(self, name: str | None) -> ImageRecord:
        known = self.record.images
        found = [one for one in known if name in {None, one.info.id}]
        if len(found) == 1:
            return found[0]
        raise RequestError(
            "image" if name is None else f"image {name!r}",
            "it must be one of the run's",
            value=plural(len(known), "image"),
            remedy=f"Name one: {', '.join(repr(one.info.id) for one in known[:20])}",
        )

    def __repr__(self) -> str:
        """Findings by label and areas of each image, where the results lie, and what failed."""
        where = "in memory" if self.folder is None else str(self.folder)
        state = "complete" if self.complete else f"{plural(len(self.failures), 'failure')}: see .failures"
        return f"limner run {where}, {state}\n{record_text(self.record).rstrip()}\n{self.record.use}"

    def _repr_html_(self) -> str:
        """The same for notebooks, with a small picture of each image."""
        parts: list[str] = []
        for image in self.record.images[:_DRAWN]:
            rows = [*(findings_rows(self.record, image) if self.record.assessed else []), *area_rows(image)]
            parts.append(html_table(rows, title=image.info.id, picture=self.show(image.info.id)))
        left = len(self.record.images) - len(parts)
        closing = [("further", f"{plural(left, 'image')}: see .summary")] if left else []
        closing += [("results", "in memory" if self.folder is None else str(self.folder))]
        closing += [("failed", f"{what}: {why}") for what, why in self.failures[:20]]
        return "".join([*parts, html_table([*closing, ("use", self.record.use)])])
