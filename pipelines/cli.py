"""The command line. Standard out is data, standard error is talk.

Exit codes: 0 all regions; 1 some failed, or results could not be kept or printed, listed; 2 the request was wrong; 3
nothing could be read; 70 a mistake in limner; 128 + n stopped by signal n, so 130 by Ctrl-C. Commands import what they
need when they run, so that `--help` is quick.
"""

import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..readers.errors import LimnerError, ModelError, ReadError, RequestError
from .cli_models import models_app
from .cli_train import train_app
from .terminal import Stopped, say, talk, terminal, visible

WRONG_REQUEST, NOTHING_READ, RESULTS_LOST, MISTAKE = 2, 3, 1, 70

app = typer.Typer(
    name="limner",
    help="Annotates images too large to look at. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(models_app, name="model", hidden=True)
app.add_typer(train_app, name="train")

Inputs = Annotated[list[str] | None, typer.Argument(help="Files, folders or remote paths.", show_default=False)]
Out = Annotated[str | None, typer.Option("--out", help="Folder for the results.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings for a kind of image, such as sentinel2-l1c.")]
Model = Annotated[str | None, typer.Option("--model", help="A model card's name or path, or an annotator.")]
Labels = Annotated[str | None, typer.Option("--labels", help="Labels to report, with commas. Default: all.")]
Ask = Annotated[str | None, typer.Option("--ask", help="Question to a vision-language model about each region.")]
AnswerKind = Annotated[
    str | None, typer.Option("--answer", help="describe, classify (the labels), locate (the labels) or extract.")
]
SchemaFile = Annotated[str | None, typer.Option("--schema", help="JSON schema file of the values to extract.")]
ResolutionText = Annotated[str | None, typer.Option("--resolution", help="Pixel size as seen: 10m, 0.5um, native.")]
StretchText = Annotated[
    str | None,
    typer.Option("--stretch", help="Black and white in native numbers: 0,2750. Default: each picture's own."),
]
HdNum = Annotated[int | None, typer.Option("--hd-num", help="Most tiles of a region. Default: 25.")]
Enlarge = Annotated[
    bool | None, typer.Option("--enlarge", help="Enlarge small pictures to fill --hd-num tiles, as 4KHD always does.")
]
Overlap = Annotated[int | None, typer.Option("--overlap", help="Pixels, as seen, that neighbouring regions share.")]
AreaPath = Annotated[str | None, typer.Option("--area", help="GeoJSON file of the area of interest.")]
Sensor = Annotated[str | None, typer.Option("--sensor", help="What took the image, such as sentinel-2-l1c.")]
Bands = Annotated[str | None, typer.Option("--bands", help="Names of the file's channels in order, with commas.")]
Microns = Annotated[
    str | None, typer.Option("--microns-per-pixel", help="Pixel size of slides: one number, or two as x,y.")
]
Crs = Annotated[str | None, typer.Option("--crs", help="Coordinate reference system, where the file has none.")]
ReaderName = Annotated[str | None, typer.Option("--reader", help="Which reader opens the inputs.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="inline (this process) or local (spawned workers).")]
Workers = Annotated[int | None, typer.Option("--workers", help="Worker processes. Default: one per core.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Regions that are annotated together. Default: 1.")]
Reports = Annotated[list[str] | None, typer.Option("--report", help="A kind of report; repeatable. Default: all.")]
ConfigPath = Annotated[str | None, typer.Option("--config", help="YAML file of settings; flags win over it.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Any setting, as key=value; repeatable.")]
Fetch = Annotated[bool | None, typer.Option("--fetch", help="Allow the network for a model's weights.")]


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:  # noqa: FBT002 - a flag
    """Annotates images too large to look at. Research use only."""
    if show_version:
        say(f"limner {version('limner')}")
        raise typer.Exit


@app.command("run")
def run_command(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    inputs: Inputs = None,
    out: Out = None,
    preset: Preset = None,
    model: Model = None,
    labels: Labels = None,
    ask: Ask = None,
    answer: AnswerKind = None,
    schema_file: SchemaFile = None,
    resolution: ResolutionText = None,
    stretch: StretchText = None,
    hd_num: HdNum = None,
    enlarge: Enlarge = None,
    overlap: Overlap = None,
    area: AreaPath = None,
    sensor: Sensor = None,
    bands: Bands = None,
    crs: Crs = None,
    microns_per_pixel: Microns = None,
    reader: ReaderName = None,
    engine: EngineName = None,
    workers: Workers = None,
    batch: Batch = None,
    reports: Reports = None,
    config: ConfigPath = None,
    changes: Changes = None,
    fetch: Fetch = None,
) -> None:
    """Annotate images and write reports; run again to go on where a run was cut off."""
    from .progress import Drawing  # noqa: PLC0415 - see the top
    from .run import run  # noqa: PLC0415 - the same
    from .words import describe_outcome  # noqa: PLC0415 - the same

    settings = _settings(locals())
    try:
        with Drawing() as drawing:
            outcome = run(settings, drawing)
    except Stopped as stop:
        talk("\nStopped. What was done is kept: the same command goes on from there.")
        raise typer.Exit(stop.exit_code) from None
    _say_made(outcome.made, asked=bool(settings.reports))
    say(describe_outcome(outcome, settings.out))
    raise typer.Exit(outcome.exit_code)


@app.command("plan")
def plan_command(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    inputs: Inputs = None,
    preset: Preset = None,
    model: Model = None,
    labels: Labels = None,
    ask: Ask = None,
    answer: AnswerKind = None,
    schema_file: SchemaFile = None,
    resolution: ResolutionText = None,
    stretch: StretchText = None,
    hd_num: HdNum = None,
    enlarge: Enlarge = None,
    overlap: Overlap = None,
    area: AreaPath = None,
    sensor: Sensor = None,
    bands: Bands = None,
    crs: Crs = None,
    microns_per_pixel: Microns = None,
    reader: ReaderName = None,
    engine: EngineName = None,
    workers: Workers = None,
    batch: Batch = None,
    config: ConfigPath = None,
    changes: Changes = None,
) -> None:
    """Show what a run would do, and take: regions, tiles, memory, time. Writes nothing, fetches nothing."""
    from .estimate import LIMIT_S, estimate, measure  # noqa: PLC0415 - see the top
    from .run import crew, prepare  # noqa: PLC0415 - the same
    from .words import describe_plan, describe_time  # noqa: PLC0415 - the same

    settings = _settings(locals())
    prepared = prepare(settings, only_plan=True)
    known = estimate(prepared, batch=settings.batch)
    workers_used, threads = crew(settings)
    say(describe_plan(prepared, known, workers=workers_used))
    if not known.untimed:
        talk(f"Timing one tile in a process of its own, for at most {LIMIT_S:.0f} s")
    say(describe_time(measure(prepared, known, workers=workers_used, threads=threads), workers=workers_used))
    if any(row.status == "failed" for row in prepared.plan.files):
        raise typer.Exit(1)


@app.command("info")
def info_command(
    inputs: Inputs = None,
    sensor: Sensor = None,
    bands: Bands = None,
    crs: Crs = None,
    microns_per_pixel: Microns = None,
    reader: ReaderName = None,
    config: ConfigPath = None,
    changes: Changes = None,
) -> None:
    """Show what images are: size, bands, coordinates, and what is not known of them."""
    from .names import Names  # noqa: PLC0415 - see the top
    from .plan import reading_options, scan_inputs  # noqa: PLC0415 - the same
    from .run import check_options  # noqa: PLC0415 - the same
    from .words import describe_scanned  # noqa: PLC0415 - the same

    settings = _settings(locals())
    check_options(settings)
    options = reading_options(settings)
    found = scan_inputs(settings, options)
    names = Names.of(settings, found, options)
    scanned = [names.scanned(row) for row in found]
    say(describe_scanned(scanned))
    if not any(row.infos for row in scanned):
        raise typer.Exit(NOTHING_READ)
    if any(row.status == "failed" for row in scanned):
        raise typer.Exit(1)


@app.command("report")
def report_command(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    reports: Reports = None,
) -> None:
    """Write a run's reports again, the same bytes as before."""
    from .manifest import load_manifest  # noqa: PLC0415 - see the top
    from .report import load_writers, read_record, write_reports  # noqa: PLC0415 - the same

    config = load_manifest(Path(run_folder))["config"]
    asked = reports or config["reports"]
    writers = load_writers(asked, config.get("report_options"))
    record = read_record(Path(run_folder))
    made = tuple(write_reports(record, Path(run_folder), writers))
    _say_made(made, asked=bool(asked))
    for path in (path for one in made for path in one.paths):
        say(visible(str(path)))
    if any(one.error for one in made):
        raise typer.Exit(1)


@app.command("plugins")
def plugins_command() -> None:
    """List the installed readers, annotators and writers, and the package each comes from."""
    from .words import describe_plugins  # noqa: PLC0415 - see the top

    say(describe_plugins())


@app.command("doctor")
def doctor_command() -> None:
    """Show what this machine offers: versions, formats, weights, cores, memory, disk."""
    from .doctor import examine  # noqa: PLC0415 - see the top
    from .words import table  # noqa: PLC0415 - the same

    say(table(list(examine())))


def main() -> NoReturn:
    """Run the command line; every error becomes one clear block and an exit code."""
    with terminal():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()
        except LimnerError as error:
            _complain(error)
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


def _settings(given: dict[str, Any]) -> Any:  # noqa: ANN401 - Settings, which is imported late
    """Flags that were given, as settings."""
    from .config import Settings  # noqa: PLC0415 - see the top

    flags = {key: value for key, value in given.items() if key in Settings.model_fields and value not in (None, [])}
    return Settings.resolve(flags, file=given.get("config") or "", changes=given.get("changes") or ())


def _say_made(made: tuple[Any, ...], *, asked: bool) -> None:
    """What could not be written, and why, on standard error; not that a kind nobody named suits none of the images."""
    for one in made:
        if one.error:
            talk(visible(f"{one.writer} was not written{' as a whole' if one.paths else ''}. {one.error}"))
        for image, reason in sorted(one.omitted.items()) if asked or one.paths else ():
            talk(visible(f"{one.writer} leaves out {image}: {reason}"))


def _complain(error: LimnerError) -> None:
    found = [f"  found  {error.value}"] if error.value else []
    lines = [f"limner: {error.thing}", f"  must   {error.rule}", *found, f"  do     {error.remedy}"]
    talk("\n".join(["", *map(visible, lines)]))


def _code(error: LimnerError) -> int:
    if isinstance(error, (RequestError, ModelError)):
        return WRONG_REQUEST
    return NOTHING_READ if isinstance(error, ReadError) else RESULTS_LOST


if __name__ == "__main__":
    main()
