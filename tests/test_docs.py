"""README and docs: commands run, names and paths exist, tables and figures are those of the code."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer.main
import yaml
from limner.model.checkpoints.cards import (
    PatchCard,
    find_any_card,
    find_card,
    find_volume_card,
    read_card,
    shipped_cards,
)
from limner.pipelines.cli.main import app, main
from limner.pipelines.config import Settings
from limner.pipelines.overlay.compare import TRANSITIONS
from limner.pipelines.overlay.merge import COVERAGE
from limner.pipelines.settings_files import presets
from limner.readers.raster.bands import SENSORS
from limner.reports.columns import FINDINGS, INSTANCES, MODEL, REVIEW
from limner.reports.cores import CORES, core_label_columns
from limner.reports.overlay.zones import ZONES
from limner.reports.overlay.zones import label_columns as zone_label_columns
from limner.reports.reference import REFERENCE
from limner.reports.structures import STRUCTURES
from limner.reports.studies import SERIES, SLICES, STUDIES
from limner.reports.summary import AREAS, FILES, SUMMARY, label_columns
from limner.reports.table import Column, markdown

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "notebooks/samples/virginia/README.md")
MADE = {"_build", "generated"}
"""Folders of docs that the builder of the site writes."""
IN_ORDER = ("docs/tutorials/", "docs/how-to/")
"""Pages whose blocks are steps, each of which needs what those before it wrote."""
NOT_RUN = re.compile(r"<!-- not run in a test.*?: \S[^\n]* -->\n```(?:sh|console)\n.*?^```$", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> dict[str, str]:
    """Path → text of every page."""
    paths = [
        path for name in PAGES for path in ([root / name] if name.endswith(".md") else (root / name).rglob("*.md"))
    ]
    written = {path for path in paths if not MADE.isdisjoint(path.relative_to(root).parts)}
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted({*paths} - written)}


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """The text below a heading, down to the next heading of any level."""
    return re.split(r"^#+ ", text.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `limner …` command of a page: one per line in a block, or between backticks."""
    shell = "\n".join(blocks(text, "(?:sh|console)")).replace("\\\n", " ")
    inline = re.findall(r"`(limner [^`]*)`", text.replace("\n", " "))
    for line in [*shell.splitlines(), *inline]:
        if re.match(r"\$? ?limner ", line):
            yield shlex.split(line.lstrip("$ "), comments=True)[1:]


def test_pages_are_found(root: Path) -> None:
    found = pages(root)
    assert {"README.md", "CHANGELOG.md", "docs/models.md", "docs/readers.md", "docs/reports.md"} <= set(found)
    assert sum(1 for text in found.values() for _ in commands(text)) >= 5


def test_commands_and_flags_exist(root: Path) -> None:
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


def test_make_targets_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, text in pages(root).items():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, page


def test_links_resolve(root: Path) -> None:
    written = set(re.findall(r"reference/generated/(\w+)", (root / "docs" / "index.md").read_text(encoding="utf-8")))
    for page, text in pages(root).items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                file, _, anchor = target.partition("#")
                path = ((root / page).parent / file) if file else root / page
                if "generated" in path.parts:
                    assert path.stem in written, (page, target)
                    continue
                assert path.exists(), (page, target)
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                    assert anchor in {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def test_paths_exist(root: Path) -> None:
    for page, text in pages(root).items():
        if page != "CHANGELOG.md":
            for name in re.findall(
                r"`((?:tests|docs|notebooks|readers|model|reports|pipelines|limner)/[\w./-]*)`", text
            ):
                assert (root / name).exists(), (page, name)


def resolve(name: str) -> object:
    """The module, class or function of a dotted name. Raises `AttributeError` where there is none."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:number]))
            except ModuleNotFoundError as error:
                raise AttributeError(name) from error
    return found


def test_dotted_names_exist(root: Path) -> None:
    groups = {"limner.readers", "limner.annotators", "limner.writers"}
    for page, text in pages(root).items():
        if page != "CHANGELOG.md":
            for name in set(re.findall(r"\b(limner(?:\.[A-Za-z_]\w*)+)(?![\w/:])", text)) - groups:
                assert resolve(name) is not None, (page, name)
            for module, names in re.findall(r"^from (limner(?:\.\w+)*) import (.+)$", text, re.MULTILINE):
                assert all(hasattr(resolve(module), one) for one in names.split(", ")), (page, module, names)


def test_new_names_in_the_changelog_exist(root: Path) -> None:
    table = rows(section(pages(root)["CHANGELOG.md"], "Renamed modules and classes"))
    new = [name for row in table for name in re.findall(r"`([\w.]+)`", row[1])]
    assert len(new) > 50
    for name in new:
        assert resolve(f"limner.{name}") is not None, name


def test_classes_of_the_architecture_exist(root: Path) -> None:
    sources = [p for folder in ("readers", "model", "reports", "pipelines") for p in (root / folder).rglob("*.py")]
    defined = set(re.findall(r"^class (\w+)", "\n".join(p.read_text(encoding="utf-8") for p in sources), re.MULTILINE))
    text = pages(root)["docs/architecture.md"]
    assert set(re.findall(r"`([A-Z]\w+)(?:\.\w+)?`", text)) <= defined
    packages = {p.parent.relative_to(root).as_posix() for p in sources if p.parent.parent != root}
    named = {name.rstrip("/") for row in rows(section(text, "Rooms")) for name in re.findall(r"`([\w/]+)`", row[0])}
    assert packages <= named


def test_table_of_cards_is_complete(root: Path) -> None:
    text = pages(root)["docs/models.md"]
    table = {row[0].strip("`"): row for row in rows(section(text, "Cards that ship"))}
    volumes = {row[0].strip("`"): row for row in rows(section(text, "Cards for volumes that ship"))}
    assert set(table) | set(volumes) == set(shipped_cards())
    for name, (_, labels, _, licence, extent) in volumes.items():
        card = find_volume_card(name)
        assert labels == ", ".join(card.labels)
        assert licence == card.licence
        assert extent == f"{card.extent_mm[0]:g} to {card.extent_mm[1]:g} mm"
    for name, (_, labels, _, licence, resolution) in table.items():
        card = find_card(name)
        assert labels == ", ".join(card.labels)
        assert licence == card.licence
        assert resolution == f"{card.resolution.value:g} {card.resolution.unit}"
    for mistake in find_card("csmask").known_mistakes:
        assert f"- {mistake}\n" in text


def test_example_cards_are_valid(root: Path, tmp_path: Path) -> None:
    example, of_volumes = blocks(pages(root)["docs/models.md"], "yaml")
    assert read_card(example, subject="docs/models.md").labels == ("maize", "wheat")
    (tmp_path / "lungs.yaml").write_text(of_volumes, encoding="utf-8")
    card = find_any_card(str(tmp_path / "lungs.yaml"))
    assert isinstance(card, PatchCard)
    assert card.labels == ("lung",)


def test_table_of_sensors_is_complete(root: Path) -> None:
    table = rows(section(pages(root)["docs/readers.md"], "Sensors"))
    assert [row[0].strip("`") for row in table] == list(SENSORS)
    for name, values in table:
        quantities = {rule.quantity.replace("_", " ") for rule in SENSORS[name.strip("`")].radiometry.values()}
        assert quantities <= {values} or (not quantities and values.startswith("digital numbers")), name


@pytest.mark.parametrize("group", ["readers", "writers", "annotators"])
def test_plugins_are_documented(root: Path, group: str) -> None:
    page = {"readers": "docs/readers.md", "writers": "docs/reports.md", "annotators": "docs/models.md"}[group]
    built_in = {point.name for point in entry_points(group=f"limner.{group}") if point.value.startswith("limner.")}
    named = set(re.findall(r"`([a-z0-9-]+):?[^`]*`", pages(root)[page]))
    assert built_in <= named
    if group == "writers":
        assert {row[0].strip("`") for row in rows(section(pages(root)[page], "Kinds of report"))} == built_in


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("findings.csv", [*FINDINGS, *MODEL]),
        ("summary.csv", [*SUMMARY, *label_columns("LABEL"), *MODEL]),
        ("areas.csv", AREAS),
        ("Objects", INSTANCES),
        ("A reviewed run", REVIEW),
        ("files.csv", FILES),
        ("studies.csv", STUDIES),
        ("series.csv", SERIES),
        ("slices.csv", SLICES),
        ("structures.csv", STRUCTURES),
        ("cores.csv", [*CORES, *core_label_columns("LABEL"), *MODEL]),
        ("reference.csv", REFERENCE),
    ],
    ids=[
        *(
            "findings",
            "summary",
            "areas",
            "objects",
            "reviewed",
            "files",
            "studies",
            "series",
            "slices",
            "structures",
            "cores",
        ),
        "reference",
    ],
)
def test_column_tables_are_up_to_date(root: Path, title: str, columns: list[Column[Any]]) -> None:
    text = section(pages(root)["docs/reports.md"], title)
    table = [line for line in text[text.rindex("| column |") :].splitlines() if line.startswith("|")]
    assert table == markdown(columns).splitlines()


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("zones.csv", [*ZONES, *zone_label_columns("LABEL"), *MODEL]),
        ("transitions.csv", TRANSITIONS),
        ("coverage.csv", COVERAGE),
    ],
    ids=["zones", "transitions", "coverage"],
)
def test_column_tables_of_overlays_are_up_to_date(root: Path, title: str, columns: list[Column[Any]]) -> None:
    table = [line for line in section(pages(root)["docs/zones.md"], title).splitlines() if line.startswith("|")]
    assert table == markdown(columns).splitlines()


def test_table_of_presets_is_complete(root: Path) -> None:
    table = {row[0].strip("`"): row[2] for row in rows(section(pages(root)["docs/running.md"], "Presets"))}
    assert set(table) == set(presets())
    for name, cell in table.items():
        text = (root / "pipelines" / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        values = {k: ", ".join(v) if isinstance(v, list) else str(v) for k, v in (yaml.safe_load(text) or {}).items()}
        assert dict(re.findall(r"`(\w+): ([^`]+)`", cell)) == values, name


def test_yaml_settings_are_valid(root: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(pages(root)["docs/running.md"], "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        Settings.resolve({}, file=str(file))


def test_scripts_for_clusters_are_valid(root: Path, tmp_path: Path) -> None:
    page = pages(root)["docs/scaling.md"]
    [manifest] = blocks(page, "yaml")
    [slurm] = [block for block in blocks(page, "sh") if "#SBATCH" in block]
    spec = yaml.safe_load(manifest)["spec"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    for pod in pods:
        assert {one["name"] for one in pod["containers"][0]["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    pins = (root / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={spec['rayClusterSpec']['rayVersion']}\n" in pins
    if bash := shutil.which("bash"):
        subprocess.run([bash, "-n"], input=slurm, text=True, check=True)
    for command in (spec["entrypoint"], re.findall(r"limner run .*", slurm)[0]):
        words = [word.replace("$address", "head:6379").strip('"') for word in command.split()[2:]]
        flags = {words[i][2:].replace("-", "_"): words[i + 1] for i in range(len(words)) if words[i].startswith("--")}
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump({name: yaml.safe_load(text) for name, text in flags.items()}))
        assert Settings.resolve({}, file=str(file)).engine == "ray"


def test_table_of_costs_follows_from_the_large_scene(root: Path) -> None:
    figures = dict(rows(section(pages(root)["docs/figures.md"], "A large scene")))
    regions = int(figures["regions"].partition(",")[0])
    total, reports = (int(text) for text in re.findall(r"(\d+) s", figures["wall time"]))
    page = section(pages(root)["docs/scaling.md"], "What it costs")
    assert f"{regions} regions" in page
    assert f"take {total - reports} s" in page
    assert f"the reports {reports} s" in page
    for what, *cells in rows(page):
        scenes = {"all land": 149e6 / 40000}.get(what.partition(",")[0]) or float(what.split()[0])
        seconds = (total - reports) * scenes
        wanted = [
            regions * scenes,
            2 * seconds / 3600,
            *(seconds * 2 / cores for cores in (2, 16, 128)),
            reports * scenes,
        ]
        units = {"min": 60, "h": 3600, "days": 86400}
        found = [
            float(cell.split()[0].replace(",", "")) * (units[cell.split()[1]] if " " in cell else 1) for cell in cells
        ]
        assert found == pytest.approx(wanted, rel=0.07), what


def test_the_table_of_huge_tasks_is_what_its_script_computes(root: Path) -> None:
    script = root / "tests" / "bench" / "growth.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout in pages(root)["docs/scaling.md"]


def test_benchmark_scripts_exist(root: Path) -> None:
    scripts = {path.name for path in (root / "tests" / "bench").glob("*.py")}
    named = set(re.findall(r"tests/bench/(\w+\.py)", pages(root)["docs/figures.md"]))
    run = set(re.findall(r"tests/bench/(\w+\.py)", (root / "Makefile").read_text(encoding="utf-8")))
    assert named
    assert named <= run <= scripts


def test_citation_is_of_this_version(root: Path) -> None:
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], str(cited["version"])) == ("1.2.0", version("limner"))


def test_figures_of_the_readme_are_measured(root: Path) -> None:
    readme, figures = pages(root)["README.md"], section(pages(root)["docs/figures.md"], "A large scene")
    seconds = dict(rows(figures))["wall time"].partition(",")[0]
    for figure in ("40,000 km²", f"takes {seconds} at\n30 m", "20,000 × 20,000 px"):
        assert figure in readme
    for figure in ("40,000 km²", "20,000 × 20,000 px"):
        assert figure in figures


def test_models_of_the_readme_are_those_that_ship(root: Path) -> None:
    readme = pages(root)["README.md"]
    named = {name for row in rows(section(readme, "Models")) for name in re.findall(r"`([\w-]+):?`", row[0])}
    annotators = {point.name for point in entry_points(group="limner.annotators") if point.value.startswith("limner.")}
    assert {*shipped_cards()} <= named <= {*shipped_cards(), *annotators}
    volumes = [name for name in shipped_cards() if find_any_card(name).annotator == "volume"]
    assert f"Two such models ship, {' and '.join(f'`{name}`' for name in volumes)};" in readme


def test_memory_table_of_the_7b_is_up_to_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "bench"))
    arithmetic = importlib.import_module("bench_4khd").arithmetic()
    assert arithmetic in pages(root)["docs/asking.md"]


# Running the commands of the documents


def runnable() -> Iterator[Any]:
    """Every block of commands that is not marked as not run, with its page and commands."""
    for page, text in pages(ROOT).items():
        found = blocks(NOT_RUN.sub("", text), "(?:sh|console)")
        for number, block in enumerate(["".join(found)] if found and page.startswith(IN_ORDER) else found):
            marks = [pytest.mark.network] if "--fetch" in block or "models fetch" in block else []
            yield pytest.param(block, marks=marks, id=f"{page}-{number}")


@pytest.fixture
def workspace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made_4khd: Path,
    made_vlms: Callable[[str], Path],
    made_checkpoints: Path,
    zoo_folder: Callable[[str], Path],
) -> Path:
    """The working folder of the documents' commands: the samples, and a small file for each name that they use."""
    from pydicom.examples import get_path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    made = {"checkpoint": made_4khd, "qwen2_vl": made_vlms("qwen2_vl"), "clip": made_checkpoints / "clip"}
    for name, folder in (made | {"detr": zoo_folder("detr")}).items():
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "study").mkdir()
    shutil.copy(get_path("ct"), tmp_path / "study")
    random = np.random.default_rng(3)
    place: dict[str, Any] = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 440760, 0, -10, 4172940)}
    rgb: dict[str, Any] = {"driver": "GTiff", "count": 3, "dtype": "uint16", "photometric": "RGB", **place}
    with rasterio.open(tmp_path / "scene.tif", "w", width=64, height=64, **rgb) as file:
        file.write(random.integers(100, 2500, (3, 64, 64)).astype(np.uint16))
    with rasterio.open(tmp_path / "film.png", "w", driver="PNG", width=28, height=28, count=1, dtype="uint8") as file:
        file.write(random.integers(0, 255, (1, 28, 28)).astype(np.uint8))
    (tmp_path / "ships.json").write_text(blocks(pages(ROOT)["docs/asking.md"], "json")[0], encoding="utf-8")
    return tmp_path


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `limner` in this process."""
    monkeypatch.setattr(sys, "argv", ["limner", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    return int(ended.value.code or 0), written.out, written.err


def account(text: str) -> dict[str, float]:
    """Label → its share in percent, from what a run prints."""
    lines = re.findall(r"^  ([\w/ ]+?) +\d+ +[\d.]+(?: [kmµ]?m²)? +([\d.]+) %", text, re.MULTILINE)
    return {label: float(share) for label, share in lines}


def table_shapes(text: str) -> list[str]:
    """The rows of printed tables, each digit as 0 and each gap as one space: figures may differ, their form may not."""
    return [re.sub(r"\d", "0", " ".join(line.split())) for line in text.splitlines() if re.match(r"  \S.*  ", line)]


@pytest.mark.parametrize("block", list(runnable()))
@pytest.mark.usefixtures("workspace")
def test_commands_run(block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(commands(f"```sh\n{block}```"))
    assert found, "a block without commands of limner must be marked: <!-- not run in a test: why -->"
    printed = ""
    for words in found:
        code, out, err = run(words, monkeypatch, capsys)
        assert code == 0, f"{words}\n{out}\n{err}"
        printed += out
    if shares := account(block):
        assert account(printed) == pytest.approx(shares, abs=0.2)  # processors round differently
        assert [row for row in table_shapes(block) if row not in table_shapes(printed)] == []


@pytest.mark.network
@pytest.mark.parametrize("page", ["README.md", "docs/running.md"])
@pytest.mark.usefixtures("workspace", "csmask")
def test_python_examples_run(page: str) -> None:
    [block] = blocks(pages(ROOT)[page], "python")
    exec(compile(block, page, "exec"), {})  # noqa: S102 - what a user would run
