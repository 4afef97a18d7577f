"""The commands `limner review merge` and `limner review export`."""

from pathlib import Path
from typing import Annotated

import typer

from ...readers.errors import RequestError, did_you_mean
from .settings_options import add_command
from .terminal import plural, print_message, print_result, table, visible

review_app = typer.Typer(
    help="Join reviews of a run, and export the result.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_LISTED = 50  # conflicts on a terminal
_PREFER = typer.Option("--prefer", metavar="NAME", help="Whose decision holds in conflicts; repeatable, in order.")


@review_app.callback()
def review_command() -> None:
    """What reviewers decided of a run."""


@add_command(review_app, "merge")
def merge_command(
    reviews: Annotated[list[str], typer.Argument(metavar="A.jsonl B.jsonl …", help="Reviews of one run.")],
    *,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The new file, such as merged.jsonl.")],
    prefer: Annotated[list[str] | None, _PREFER] = None,
) -> None:
    """Join reviews of one run and list conflicts and how well reviewers agree; nothing is lost."""
    from ...reports.table import Rows
    from ..review.joint import conflict_columns, is_private, read_joint, write_conflicts, write_merged
    from ..review.log import SUFFIX
    from ..run.reveal import check_private

    path = Path(out)
    if path.suffix != SUFFIX:
        raise RequestError("--out", f"must end with {SUFFIX}", value=out, remedy="Give --out merged.jsonl, say")
    conflicts = path.with_name(f"{path.stem}-conflicts.csv")
    check_private(path)
    check_private(conflicts)
    files = [Path(one) for one in reviews]
    joint = read_joint(files, prefer=prefer or ())
    write_merged(joint, path, private=is_private(files))
    write_conflicts(joint, conflicts)
    columns = conflict_columns(joint.reviewers)
    rows = Rows(joint.conflicts[:_LISTED])
    if len(rows):
        cells = zip(*(column.texts(rows) for column in columns), strict=True)
        print_result(table([[column.name for column in columns], *cells]))
    if len(joint.conflicts) > _LISTED:
        print_result(f"and {len(joint.conflicts) - _LISTED} more: see {visible(str(conflicts))}")
    for one in joint.agreements:
        names = " and ".join(one.reviewers)
        agreed = f"they agree on {one.share:.1%}, Cohen's kappa {one.kappa:.2f}" if one.judged else "they share none"
        print_result(visible(f"{names}: {plural(one.judged, 'finding')} judged by both; {agreed}"))
    for notice in joint.notices:
        print_message(visible(notice))
    decided = sum(1 for one in joint.decisions.values() if one.outcome)
    print_message(f"{plural(decided, 'decision')}, {plural(len(joint.conflicts), 'conflict')}")
    for written in (path, conflicts):
        print_result(visible(str(written)))


@add_command(review_app, "export")
def export_command(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    *,
    to: Annotated[list[str], typer.Option("--to", metavar="KIND", help="qgis, qupath or csv; repeatable.")],
    review: Annotated[
        list[str] | None,
        typer.Option("--review", metavar="REVIEW", help="A file, or a reviewer; repeatable. Default: all of the run."),
    ] = None,
    prefer: Annotated[list[str] | None, _PREFER] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Keep rejected findings, marked.")] = False,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A new folder. Default: RUN-reviewed.")] = "",
) -> None:
    """Export the findings of a run after its review: for QGIS, for QuPath, or as CSV."""
    from ..review.export import EXPORTS, export_review
    from ..review.joint import find_reviews, read_joint
    from ..run.reporting import read_record

    kinds = list(dict.fromkeys(name for text in to for name in text.split(",")))
    for kind in kinds:
        if kind not in EXPORTS:
            remedy = f"{did_you_mean(kind, EXPORTS)}Give {', '.join(EXPORTS)}"
            raise RequestError("--to", "must be a kind of export", value=kind, remedy=remedy)
    folder = Path(run_folder)
    record = read_record(folder)
    joint = read_joint(find_reviews(folder, review or ()), prefer=prefer or (), record=record)
    place = Path(out or f"{folder.resolve()}-reviewed")
    paths = export_review(record, joint, place, kinds, rejected=rejected)
    for path in paths:
        print_result(visible(str(path)))
    for notice in joint.notices:
        print_message(visible(notice))
    unresolved = len(joint.unresolved)
    if unresolved:
        print_message(f"{plural(unresolved, 'finding')} with conflicts: marked in the column review")
    print_message(visible(record.use))
