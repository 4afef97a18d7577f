"""Writes an SBOM (CycloneDX 1.6) and a table of licences of what an installation of limner without extras has.

    python .ci/sbom.py FOLDER

Run it in an environment that has limner. The same environment gives the same bytes. Exits with 1, and writes nothing,
where a package states a licence of the GPL family without an alternative, or none that is known.
"""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = "limner"

KNOWN = (
    *("Apache", "BSD", "MIT", "ISC", "MPL", "Mozilla", "PSF", "Python", "Zlib", "CC0", "LGPL", "BSL-1.0", "Unlicense"),
    *("HPND", "Public Domain", "Public-Domain", "blessing", "IJG", "libpng", "libtiff", "CNRI", "LLVM"),
)
"""Words of licences that may be in a default installation."""

_GPL = re.compile(r"(?<![A-Za-z])A?GPL|(?<!Lesser )General Public License|Affero", re.IGNORECASE)


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(found: Distribution, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """What a distribution requires on this system, with those of its extras that are asked for."""
    for line in found.requires or ():
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def installation(root: str = ROOT) -> dict[str, Distribution]:
    """The distributions that an installation of `root` without extras has, by their normal names."""
    found = {normal(root): distribution(root)}
    todo = [*requirements(found[normal(root)])]
    while todo:
        one = todo.pop()
        if normal(one.name) not in found:
            found[normal(one.name)] = distribution(one.name)
            todo += requirements(found[normal(one.name)], frozenset(one.extras))
    return dict(sorted(found.items()))


def licence(found: Distribution) -> str:
    """The licence that a distribution states: an SPDX expression, a line of text, or its classifiers."""
    about = found.metadata
    lines = (about.get("License") or "").strip().splitlines() or [""]
    classified = [
        text.rsplit(" :: ", 1)[-1] for text in about.get_all("Classifier") or () if text.startswith("License")
    ]
    short = lines[0] if len(lines) == 1 and len(lines[0]) < 60 else ""
    return about.get("License-Expression") or short or ", ".join(classified) or lines[0]


def refusal(stated: str) -> str:
    """Why a licence may not be in a default installation; "" where it may."""
    for term in re.split(r"\bAND\b|,", stated):
        if all(_GPL.search(choice) for choice in re.split(r"\bOR\b", term)):
            return "a licence of the GPL family"
    return "" if any(word.lower() in stated.lower() for word in KNOWN) else "no licence that is known"


def sbom(found: dict[str, Distribution]) -> dict[str, object]:
    """The SBOM as CycloneDX has it, without times and serial numbers."""

    def reference(name: str) -> str:
        return f"pkg:pypi/{name}@{found[name].version}"

    def component(name: str) -> dict[str, object]:
        stated = licence(found[name])
        expression = found[name].metadata.get("License-Expression")
        spdx = {"expression": stated} if expression else {"license": {"name": stated}}
        kind = "application" if name == normal(ROOT) else "library"
        same = {"purl": reference(name), "bom-ref": reference(name), "licenses": [spdx]}
        return {"type": kind, "name": found[name].name, "version": found[name].version, **same}

    edges = {
        name: sorted({reference(normal(one.name)) for one in requirements(of) if normal(one.name) in found})
        for name, of in found.items()
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(normal(ROOT))},
        "components": [component(name) for name in found if name != normal(ROOT)],
        "dependencies": [{"ref": reference(name), "dependsOn": on} for name, on in edges.items()],
    }


def table(found: dict[str, Distribution]) -> str:
    """The licences as a Markdown table."""
    rows = [f"| {of.name} | {of.version} | {licence(of)} |" for name, of in found.items() if name != normal(ROOT)]
    return "\n".join(["| package | version | licence, as it states it |", "| --- | --- | --- |", *rows]) + "\n"


def main(folder: str) -> int:
    """Write both files. Returns the exit code."""
    found = installation()
    refused = {name: why for name, of in found.items() if (why := refusal(licence(of)))}
    for name, why in refused.items():
        print(f"{name} states {licence(found[name])!r}: {why}", file=sys.stderr)
    if refused:
        return 1
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(json.dumps(sbom(found), indent=1) + "\n", encoding="utf-8")
    (out / "licences.md").write_text(table(found), encoding="utf-8")
    print(f"{len(found) - 1} packages: {out / 'sbom.cdx.json'}, {out / 'licences.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "dist"))
