"""The command line. Standard out is data, standard error is talk.

Exit codes: 0 all regions; 1 some failed, or results could not be kept or printed, listed; 2 the request was wrong; 3
nothing could be read; 70 a mistake in limner; 128 + n stopped by signal n, so 130 by Ctrl-C. Commands import what they
need when they run, so that `--help` is quick.
"""

import json
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ...readers.errors import LimnerError, ModelError, ReadError, RequestError
from .models import models_app
from .settings_options import PLANNING, READING, RUNNING, add_command, complete, with_settings
from .terminal import Stopped, say, talk, terminal, visible
from .train import train_app

if TYPE_CHECKING:
    from ..config import Settings

WRONG_REQUEST, NOTHING_READ, RESULTS_LOST, MISTAKE = 2, 3, 1, 70

app = typer.Typer(
    name="limner",
    help="Annotates images too large to look at. Research use only.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(models_app, name="model", hidden=True)
app.add_typer(train_app, name="train")


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Annotates images too large to look at. Research use only."""
    if show_version:
        say(f"limner {version('limner')}")
        raise typer.Exit


@add_command(app, "run")
@with_settings(RUNNING)
def run_command(settings: "Settings") -> None:
    """Annotate images and write reports; run again to go on where a run was cut off."""
    from ..run.execute import run
    from .progress import Drawing
    from .text import describe_run

    try:
        with Drawing() as drawing:
            done = run(settings, drawing)
    except Stopped as stop:
        talk("\nStopped. What was done is kept: the same command goes on from there.")
        raise typer.Exit(stop.exit_code) from None
    _say_made(done.made, asked=bool(settings.reports))
    say(describe_run(done, settings.out))
    raise typer.Exit(done.exit_code)


@add_command(app, "plan")
@with_settings(PLANNING)
def plan_command(settings: "Settings") -> None:
    """Show what a run would do, and take: regions, tiles, memory, time. Writes nothing, fetches nothing."""
    from ..run.estimate import LIMIT_S, estimate, measure
    from ..run.execute import crew, prepare
    from .text import describe_plan, describe_time

    prepared = prepare(settings, only_plan=True)
    known = estimate(prepared, batch=settings.batch)
    workers_used, threads = crew(settings)
    say(describe_plan(prepared, known, workers=workers_used))
    if not known.untimed:
        talk(f"Timing one tile in a process of its own, for at most {LIMIT_S:.0f} s")
    say(describe_time(measure(prepared, known, workers=workers_used, threads=threads), workers=workers_used))
    if any(row.status == "failed" for row in prepared.plan.files):
        raise typer.Exit(1)


@add_command(app, "info")
@with_settings(READING)
def info_command(
    settings: "Settings",
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what images are: size, bands, coordinates or modality, and what is not known of them."""
    from ..describe import scanned_json, scanned_text
    from ..run.execute import check_options
    from ..run.redaction import scan_with_redaction

    check_options(settings)
    found, names = scan_with_redaction(settings)
    scanned = [names.scanned(row) for row in found]
    say(json.dumps(scanned_json(scanned), indent=1, ensure_ascii=False) if as_json else scanned_text(scanned))
    if not any(row.infos for row in scanned):
        raise typer.Exit(NOTHING_READ)
    if any(row.status == "failed" for row in scanned):
        raise typer.Exit(1)


@add_command(app, "report")
def report_command(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--reports", help="Kinds of reports. Default: those of the run.", autocompletion=complete("reports")
        ),
    ] = None,
) -> None:
    """Write a run's reports again, the same bytes as before."""
    from ..run.manifest import load_manifest
    from ..run.reporting import load_writers, read_record, write_reports

    named = [name for text in reports or () for name in text.split(",")]
    if named:
        load_writers(named)
    config = load_manifest(Path(run_folder))["config"]
    asked = named or config["reports"]
    writers = load_writers(asked, config.get("report_options"))
    record = read_record(Path(run_folder))
    made = tuple(write_reports(record, Path(run_folder), writers))
    _say_made(made, asked=bool(asked))
    for path in (path for one in made for path in one.paths):
        say(visible(str(path)))
    if any(one.error for one in made):
        raise typer.Exit(1)


@add_command(app, "plugins")
def plugins_command() -> None:
    """List the installed readers, annotators and writers, and the package each comes from."""
    from .text import describe_plugins

    say(describe_plugins())


@add_command(app, "doctor")
def doctor_command() -> None:
    """Show what this machine offers: versions, formats, weights, cores, memory, disk."""
    from ..describe import table
    from .doctor import examine

    say(table(list(examine())))


def main() -> NoReturn:
    """Run the command line; every error becomes one clear block and an exit code."""
    with terminal():
        try:
            try:
                app(prog_name="limner")
            finally:
                sys.stdout.flush()
        except LimnerError as error:
            talk("\n".join(["", *map(visible, error.lines())]))
            sys.exit(_code(error))
        except Stopped as stop:
            talk("\nStopped.")
            sys.exit(stop.exit_code)
        except Exception:  # noqa: BLE001 - whatever it is, it is ours, and said so
            traceback.print_exc()
            talk(
                "\nThis is a mistake in limner or in a plug-in, not in your files. Results so far are kept. "
                "Please report the lines above with the output of `limner doctor`."
            )
            sys.exit(MISTAKE)
    sys.exit(0)


def _say_made(made: tuple[Any, ...], *, asked: bool) -> None:
    """What could not be written, and why, on standard error; not that a kind nobody named suits none of the images."""
    for one in made:
        if one.error:
            talk(visible(f"{one.writer} was not written{' as a whole' if one.paths else ''}. {one.error}"))
        for image, reason in sorted(one.omitted.items()) if asked or one.paths else ():
            talk(visible(f"{one.writer} leaves out {image}: {reason}"))


def _code(error: LimnerError) -> int:
    if isinstance(error, (RequestError, ModelError)):
        return WRONG_REQUEST
    return NOTHING_READ if isinstance(error, ReadError) else RESULTS_LOST


if __name__ == "__main__":
    main()
