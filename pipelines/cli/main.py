"""The command line. Results go to standard output, progress and messages to standard error.

Exit codes: 0 done; 1 some regions, files or reports failed; 2 invalid request; 3 nothing could be read; 70 a bug in
limner; 128 + n stopped by signal n, so 130 by Ctrl-C. Commands import what they need when they run, so that `--help`
is fast.
"""

import json
import sys
import time
import traceback
from collections import Counter
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ...readers.errors import LimnerError, ModelError, ReadError, RequestError
from ..object_settings import OBJECTS
from .check import check_app
from .features import add_features
from .loading import loading
from .models import models_app
from .overlay import add_overlay_commands
from .review import review_app
from .settings_options import PLANNING, READING, REPORTING, RUNNING, add_command, complete, with_settings
from .terminal import Stopped, plural, print_message, print_result, terminal, visible
from .train import train_app
from .view import add_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Settings
    from ..run.reporting import WrittenReport

SOME_FAILED, INVALID_REQUEST, NOTHING_READ, BUG = 1, 2, 3, 70

app = typer.Typer(
    name="limner",
    help="Annotate images too large to look at: satellite scenes, pathology slides, radiology studies. "
    "For research use only.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(models_app, name="model", hidden=True)
app.add_typer(train_app, name="train")
app.add_typer(check_app, name="check")
app.add_typer(review_app, name="review")


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Annotate images too large to look at. For research use only."""
    if show_version:
        from importlib.metadata import version

        print_result(f"limner {version('limner')}")
        raise typer.Exit


@add_command(app, "run")
@with_settings(RUNNING)
def run_command(settings: "Settings") -> None:
    """Annotate images and write reports; run the same command again to resume."""
    with loading():
        from ..progress import TerminalProgress, stopped_text
        from ..run.execute import run
        from ..run_result import run_text

    progress = TerminalProgress()
    try:
        with progress:
            result = run(settings, progress)
    except Stopped as stop:
        print_message(f"\n{stopped_text(progress, again='command')}")
        raise typer.Exit(stop.exit_code) from None
    _print_problems(result.reports, requested=bool(settings.reports))
    print_result(run_text(result, settings.out))
    raise typer.Exit(result.exit_code)


add_features(app)


@add_command(app, "watch")
def watch_command(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, given as its --out.")],
    *,
    once: Annotated[bool, typer.Option("--once", help="Print how far it is, and end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks. Default: 1.")] = 1.0,
) -> None:
    """Show the progress of a run from another terminal, until it ends; reads its folder only, and stops nothing."""
    from ..progress import TerminalProgress
    from ..run.watching import NOT_WATCHED, Watcher

    watcher = Watcher(Path(run_folder), wait=not once)
    try:
        if once:
            watched = watcher.read()
        else:
            with TerminalProgress(watcher.held_bytes) as progress:
                watched = watcher.follow(progress, every=every)
    except Stopped as stop:
        print_message(f"\n{NOT_WATCHED}")
        raise typer.Exit(stop.exit_code) from None
    print_result(repr(watched))
    raise typer.Exit(watched.exit_code)


add_view(app)


@add_command(app, "plan")
@with_settings(PLANNING)
def plan_command(
    settings: "Settings",
    *,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Show the time and cost of clusters of machines, too.")
    ] = False,
) -> None:
    """Show what a run would do: regions, tiles, memory, time. Writes nothing, fetches DICOMweb inputs only."""
    with loading():
        from ..plan_text import cluster_text, plan_text, time_text
        from ..progress import Message, TerminalProgress
        from ..run.estimate import LIMIT_S, estimate, measure
        from ..run.execute import prepare, workers_and_threads

    start = time.monotonic()
    with TerminalProgress() as progress:
        progress(Message("Scanning the inputs"))
        prepared = prepare(settings, only_plan=True, on_event=progress)
    planning = time.monotonic() - start
    known = estimate(prepared, batch=prepared.division.batch)
    workers, threads = workers_and_threads(settings, prepared)
    print_result(plan_text(prepared, known, workers=workers))
    if not known.untimed:
        unit = "stack" if prepared.plan.volumes else "tile"
        print_message(f"Timing one {unit} in a separate process, for at most {LIMIT_S:.0f} s")
    timing = measure(prepared, known, workers=workers, threads=threads)
    ray = settings.engine == "ray"  # its workers are machines
    print_result(time_text(timing, workers=workers, cluster=ray))
    if cluster and timing.seconds is not None:
        pieces = len(prepared.plan.volumes) or known.regions
        print_result(cluster_text(timing, machines=workers if ray else 1, pieces=pieces, planning=planning))
    if any(row.status == "failed" for row in prepared.plan.files):
        raise typer.Exit(SOME_FAILED)


@add_command(app, "info")
@with_settings(READING)
def info_command(
    settings: "Settings",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the metadata of images: size, bands, coordinate system or modality, and what is missing."""
    with loading():
        from ...readers.geodesy import load_proj
        from ...readers.sandbox import while_waiting
        from ..describe import scanned_json, scanned_text
        from ..run.option_checks import check_options
        from ..run.redaction import scan_with_redaction, unmatched_entries

    check_options(settings)
    if as_json and settings.names == "auto":  # for programs, on a terminal too
        settings = settings.model_copy(update={"names": "hide"})
    while_waiting(load_proj)  # maps need it
    found, redactor = scan_with_redaction(settings)
    if unmatched := unmatched_entries(settings, found, redactor):
        print_message(unmatched)
    if any(info.kind == "study" for row in found for info in row.infos):
        from ..run.windows import with_visibility_note

        found = [replace(row, infos=tuple(map(with_visibility_note, row.infos))) for row in found]
    scanned = [redactor.scanned(row) for row in found]
    text = json.dumps(scanned_json(scanned), indent=1, ensure_ascii=False) if as_json else scanned_text(scanned)
    print_result(text)
    if not any(row.infos for row in scanned):
        raise typer.Exit(NOTHING_READ)
    if any(row.status == "failed" for row in scanned):
        raise typer.Exit(SOME_FAILED)


@add_command(app, "report")
@with_settings(REPORTING)
def report_command(
    settings: "Settings",
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--reports",
            help="Kinds of reports. Default: those of the run. To name one of dicom-… is to ask for objects that"
            " identify the patient: they hold the name, and the originals' UIDs and dates.",
            autocompletion=complete("reports"),
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="FILE", help="Reference mask as NIfTI, or IMAGE=FILE; repeatable."),
    ] = None,
) -> None:
    """Write the reports of a run again; the files are identical, unless settings of objects or reports are given."""
    from tempfile import TemporaryDirectory

    from ...reports.reference import ReferenceCsv, match_references
    from ..progress import TerminalProgress
    from ..run.dicom_objects import write_run_reports
    from ..run.kept_overviews import KeptOverviews
    from ..run.manifest import load_manifest
    from ..run.reporting import load_writers, read_record

    if others := sorted(settings.model_fields_set - {*REPORTING, "preset"}):
        rule, remedy = f"must be among {', '.join(REPORTING)}", "Leave others out: those of the run hold"
        raise RequestError("the settings of limner report", rule, value=", ".join(others), remedy=remedy)
    folder = Path(run_folder)
    named = [name for text in reports or () for name in text.split(",")]
    load_writers(named, settings.report_options)  # so that an unknown name comes before a missing folder
    config = load_manifest(folder)["config"]
    names = named or config["reports"]
    writers = load_writers(names, {**config.get("report_options", {}), **settings.report_options})
    given = settings.model_dump(include=settings.model_fields_set & set(OBJECTS))
    with TemporaryDirectory(prefix="limner-") as scratch:
        overviews = KeptOverviews(folder, Path(scratch))
        record = read_record(folder, overviews=overviews, changes=given)
        if reference:
            stacks = [image.info for image in record.images if image.label_maps is not None]
            writers.append(ReferenceCsv(match_references(reference, stacks)))
        with TerminalProgress() as on_event:
            written = write_run_reports(record, folder, writers, on_event)
        overviews.save()
    _print_problems(written, requested=bool(names))
    for path in (path for report in written for path in report.paths):
        print_result(visible(str(path)))
    if any(report.error for report in written):
        raise typer.Exit(SOME_FAILED)


@add_command(app, "reveal")
def reveal_command(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    *,
    out: Annotated[
        str,
        typer.Option("--out", metavar="FILE", help="Default: RUN-names.csv or RUN-matched.csv, beside the run."),
    ] = "",
    key_file: Annotated[
        str, typer.Option("--key-file", metavar="FILE", help="The key of the run, unless it is in its folder.")
    ] = "",
    crosswalk: Annotated[
        str, typer.Option("--crosswalk", metavar="FILE", help="The crosswalk of the run, where it has been moved.")
    ] = "",
    join: Annotated[
        str,
        typer.Option("--join", metavar="FILE", help="CSV export of a PACS or worklist to join to a table of the run."),
    ] = "",
    on: Annotated[
        str, typer.Option("--on", metavar="COLUMN", help="The export's column of UIDs of studies, series or instances.")
    ] = "StudyInstanceUID",
    table: Annotated[
        str, typer.Option("--table", metavar="NAME", help="The CSV report to join: findings, studies, slices, ….")
    ] = "findings",
) -> None:
    """Write the names behind a run's pseudonyms to a CSV table, or join it to an export: personal, for you only."""
    from ..run.matching import match_export
    from ..run.reveal import check_private, reveal, write_revealed

    folder = Path(run_folder)
    path = Path(out or f"{folder.resolve()}-{'matched' if join else 'names'}.csv")
    check_private(path)
    rows = reveal(folder, key_file, crosswalk)
    missing = Counter(f"{row.kind}: {row.missing}" for row in rows if row.missing)
    if join:
        matched = match_export(folder, rows, Path(join), on=on, table=table, out=path)
        counts = (
            (matched.rows, f"of {table}.csv matched"),
            (matched.run_only, f"of {table}.csv without a row in the export: match is 'run only'"),
            (matched.export_only, f"of the export without one in {table}.csv: match is 'export only'"),
        )
        for count, what in counts:
            print_message(f"{plural(count, 'row')} {what}")
    else:
        write_revealed(rows, path)
    for reason, count in missing.items():
        print_message(visible(f"{plural(count, 'name')} missing. {reason}"))
    print_message("The table is personal data. Only you can read it; do not pass it on with the reports.")
    print_result(visible(str(path)))
    if missing:
        raise typer.Exit(SOME_FAILED)


@add_command(app, "send")
@with_settings(("reader_options",))
def send_command(
    settings: "Settings",
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="dicomweb:URL",
            help="The server, such as dicomweb:https://HOST/dicom-web. Its options are reader options: "
            "web_user_variable and web_password_variable, or web_token_variable, name environment variables.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; contact nothing.")] = False,
) -> None:
    """Send the DICOM objects of a run to a DICOMweb server, each once, with a receipt in its sent.jsonl."""
    from ...readers.dicomweb.options import WebOptions
    from ...readers.options import parse_options
    from ..run.send import send

    options = parse_options(WebOptions, settings.reader_options, "limner send")
    counts = Counter[str]()
    for one in send(Path(run_folder), to, options, dry_run=dry_run):
        print_result(visible(f"{one.file}: {one.status}{f'. {one.words}' if one.words else ''}"))
        counts[one.status] += 1
    print_message(", ".join(f"{count} {status}" for status, count in counts.items()))
    if counts["failed"]:
        raise typer.Exit(SOME_FAILED)


add_overlay_commands(app)


@add_command(app, "plugins")
def plugins_command() -> None:
    """List the installed readers, annotators and writers with their packages and options."""
    from .listings import plugins_text

    print_result(plugins_text())


@add_command(app, "doctor")
@with_settings(PLANNING)
def doctor_command(settings: "Settings") -> None:
    """Say what would be done with INPUTS and what is missing; without them, what this installation has."""
    from ..progress import TerminalProgress
    from .doctor import diagnose, doctor_text

    if not settings.inputs:
        print_result(doctor_text())
        return
    with TerminalProgress() as progress:
        found = diagnose(settings, progress)
    print_result(found.text)
    raise typer.Exit(found.exit_code)


def main() -> NoReturn:
    """Run the command line; every error becomes a message and an exit code."""
    with terminal():
        try:
            try:
                _asked(sys.argv[1:2])(prog_name="limner")
            finally:
                sys.stdout.flush()
        except LimnerError as error:
            print_message("\n".join(["", *map(visible, error.lines())]))
            invalid = isinstance(error, (RequestError, ModelError))
            sys.exit(INVALID_REQUEST if invalid else NOTHING_READ if isinstance(error, ReadError) else SOME_FAILED)
        except Stopped as stop:
            print_message("\nStopped.")
            sys.exit(stop.exit_code)
        except Exception:  # noqa: BLE001 - anything else is a bug, and reported as one
            traceback.print_exc()
            print_message(
                "\nThis is a bug in limner or in a plug-in, not in your files. Results so far are kept. "
                "Please report the lines above with the output of `limner doctor`."
            )
            sys.exit(BUG)
    sys.exit(0)


def _asked(words: "Sequence[str]") -> typer.Typer:
    """The app with the command that is named only, if one is: making the options of all takes longer than scanning."""
    asked = copy(app)
    asked.registered_commands = [one for one in app.registered_commands if one.name in words]
    asked.registered_groups = [one for one in app.registered_groups if one.name in words]
    return asked if asked.registered_commands or asked.registered_groups else app


def _print_problems(reports: "Sequence[WrittenReport]", *, requested: bool) -> None:
    """Print which reports failed, and which images they omit unless nobody requested a kind that suits no image."""
    for report in reports:
        if report.error:
            print_message(
                visible(f"{report.writer} was not written{' completely' if report.paths else ''}. {report.error}")
            )
        for image, reason in sorted(report.omitted.items()) if requested or report.paths else ():
            print_message(visible(f"{report.writer} omits {image}: {reason}"))


if __name__ == "__main__":
    main()
