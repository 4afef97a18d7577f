"""What README and docs say can be checked, is."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer.main
from limner.model.checkpoints.cards import find_card, read_card, shipped_cards
from limner.pipelines.cli.main import app
from limner.pipelines.config import Settings, presets
from limner.readers.raster.bands import SENSORS
from limner.reports.columns import FINDINGS, MODEL
from limner.reports.studies import SERIES, STUDIES
from limner.reports.summary import AREAS, FILES, SUMMARY, label_columns
from limner.reports.table import Column, markdown

pytestmark = pytest.mark.slow

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "notebooks/samples/virginia/README.md")


def pages(root: Path) -> dict[str, str]:
    """Path → text of every page for people."""
    paths = [path for name in PAGES for path in ([root / name] if name.endswith(".md") else (root / name).glob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """What stands under a heading, down to the next one of any rank."""
    return re.split(r"^#+ ", text.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(text: str) -> Iterator[list[str]]:
    """Every `limner …` command line of a page: in a block, one a line, or between backticks."""
    shell = "\n".join(blocks(text, "(?:sh|console)")).replace("\\\n", " ")
    inline = re.findall(r"`(limner [^`]*)`", text.replace("\n", " "))
    for line in [*shell.splitlines(), *inline]:
        if re.match(r"\$? ?limner ", line):
            yield shlex.split(line.lstrip("$ "), comments=True)[1:]


def test_pages_are_seen(root: Path) -> None:
    found = pages(root)
    assert {"README.md", "CHANGELOG.md", "docs/models.md", "docs/readers.md", "docs/reports.md"} <= set(found)
    assert sum(1 for text in found.values() for _ in commands(text)) >= 5


def test_every_command_exists_with_its_flags(root: Path) -> None:
    top = typer.main.get_command(app)
    for page, text in pages(root).items():
        for words in commands(text):
            command: Any = top
            rest = list(words)
            while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
                assert rest[0] in command.commands, (page, words)
                command = command.commands[rest.pop(0)]
            known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {
                "--help",
                "-h",
            }
            flags = {word.partition("=")[0] for word in rest if word.startswith("-")}
            assert flags <= known, (page, words, flags - known)


def test_every_target_of_make_exists(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, text in pages(root).items():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, page


def test_links_lead_somewhere(root: Path) -> None:
    for page, text in pages(root).items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                file, _, anchor = target.partition("#")
                path = ((root / page).parent / file) if file else root / page
                assert path.exists(), (page, target)
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                    assert anchor in {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def test_files_that_are_named_exist(root: Path) -> None:
    for page, text in pages(root).items():
        for name in re.findall(r"`((?:tests|docs|notebooks|readers|model|reports|pipelines)/[\w./-]+\.\w+)`", text):
            assert (root / name).exists(), (page, name)


def test_the_cards_that_ship_are_those_named(root: Path) -> None:
    text = pages(root)["docs/models.md"]
    table = {row[0].strip("`"): row for row in rows(section(text, "Cards that ship"))}
    assert set(table) == set(shipped_cards())
    for name, (_, labels, _, licence, resolution) in table.items():
        card = find_card(name)
        assert labels == ", ".join(card.labels)
        assert licence == card.licence
        assert resolution == f"{card.resolution.value:g} {card.resolution.unit}"
    for mistake in find_card("csmask").known_mistakes:
        assert f"- {mistake}\n" in text


def test_the_card_to_start_from_is_one(root: Path) -> None:
    [example] = blocks(pages(root)["docs/models.md"], "yaml")
    assert read_card(example, subject="docs/models.md").labels == ("maize", "wheat")


def test_the_sensors_are_those_named(root: Path) -> None:
    table = rows(section(pages(root)["docs/readers.md"], "Settings"))
    assert [row[0].strip("`") for row in table] == list(SENSORS)
    for name, values in table:
        quantities = {way.quantity.replace("_", " ") for way in SENSORS[name.strip("`")].radiometry.values()}
        assert quantities <= {values} or (not quantities and values.startswith("digital numbers")), name


@pytest.mark.parametrize("group", ["readers", "writers", "annotators"])
def test_the_plug_ins_are_those_named(root: Path, group: str) -> None:
    page = {"readers": "docs/readers.md", "writers": "docs/reports.md", "annotators": "docs/models.md"}[group]
    ours = {point.name for point in entry_points(group=f"limner.{group}") if point.value.startswith("limner.")}
    named = set(re.findall(r"`([a-z0-9-]+)`", pages(root)[page]))
    assert ours <= named
    if group == "writers":
        assert {row[0].strip("`") for row in rows(section(pages(root)[page], "Kinds of report"))} == ours


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("findings.csv", [*FINDINGS, *MODEL]),
        ("summary.csv", [*SUMMARY, *label_columns("LABEL"), *MODEL]),
        ("areas.csv", AREAS),
        ("files.csv", FILES),
        ("studies.csv", STUDIES),
        ("series.csv", SERIES),
    ],
    ids=["findings", "summary", "areas", "files", "studies", "series"],
)
def test_the_columns_are_those_declared(root: Path, title: str, columns: list[Column[Any]]) -> None:
    table = [line for line in section(pages(root)["docs/reports.md"], title).splitlines() if line.startswith("|")]
    assert table == markdown(columns).splitlines()


def test_the_presets_are_those_named(root: Path) -> None:
    named = re.findall(r"`--preset ([\w-]+)`|--preset ([\w-]+)", pages(root)["README.md"])
    assert {first or second for first, second in named} <= set(presets())


def test_settings_in_yaml_are_settings(root: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(pages(root)["README.md"], "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        Settings.resolve({}, file=str(file))


def test_the_scripts_that_measure_figures_exist(root: Path) -> None:
    scripts = {path.name for path in (root / "tests" / "bench").glob("*.py")}
    told = set(re.findall(r"tests/bench/(\w+\.py)", pages(root)["docs/figures.md"]))
    run = set(re.findall(r"tests/bench/(\w+\.py)", (root / "Makefile").read_text(encoding="utf-8")))
    assert told
    assert told <= run <= scripts


def account(text: str) -> dict[str, float]:
    """Label → its share in percent, from the account that a run prints."""
    lines = re.findall(r"^  ([\w/ ]+?) +\d+ +[\d.]+ k?m² +([\d.]+) %$", text, re.MULTILINE)
    return {label: float(share) for label, share in lines}


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
def test_the_account_of_the_readme_is_what_is_printed(root: Path, tmp_path: Path) -> None:
    [told] = [block for block in blocks(pages(root)["README.md"], "console") if "limner run" in block]
    words = next(words for words in commands(pages(root)["README.md"]) if words[0] == "run")
    words[words.index("--out") + 1] = str(tmp_path / "run")
    code = "from limner.pipelines.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=root, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(account(told)) == 6  # five labels, and what became of the area
    assert account(done.stdout) == pytest.approx(account(told), abs=0.2)  # another processor rounds differently
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"findings.csv", "findings.geojson", "findings.gpkg"}
