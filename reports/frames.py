"""A run's tables as data frames."""

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

from .measures import measure
from .tables import FILES_COLUMNS, finding_columns
from .writer import Record


def findings_frame(record: Record) -> pd.DataFrame:
    """A row a finding."""
    frames: list[pd.DataFrame] = []
    for image in record.images:
        findings = image.findings()
        frames.append(pd.DataFrame(finding_columns(image, findings, measure(findings, image.info.placement))))
    return pd.concat(frames) if frames else pd.DataFrame()


def summary_frame(record: Record) -> pd.DataFrame:
    """A row an image."""
    return pd.DataFrame({"image": [image.info.id for image in record.images]})


def files_frame(record: Record) -> pd.DataFrame:
    """A row a file."""
    return pd.DataFrame({key: [getattr(row, key) for row in record.files] for key in FILES_COLUMNS})
