"""Writes a new version to pyproject.toml, CITATION.cff and the change log.

    python .ci/bump.py VERSION [FOLDER]

Changes nothing, and exits with 1, where the version is not MAJOR.MINOR.PATCH, is no later one, or has no changes.
"""

import re
import sys
import tomllib
from pathlib import Path

UNRELEASED = "## Unreleased"
FILES = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")


def bump(version: str, root: Path) -> str:
    """Write the version. Returns why it cannot be, "" where it was."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"the version must be MAJOR.MINOR.PATCH (found: {version})"
    texts = {
        name: (root / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")
    }
    old = tomllib.loads(texts["pyproject.toml"])["project"]["version"]
    if [*map(int, version.split("."))] <= [*map(int, old.split("."))]:
        return f"the version must be later than {old} (found: {version})"
    changes = texts["CHANGELOG.md"].partition(f"{UNRELEASED}\n")[2].partition("\n## ")[0]
    if not changes.strip():
        return f"CHANGELOG.md must list changes below {UNRELEASED!r}"
    changed = {
        "pyproject.toml": texts["pyproject.toml"].replace(f'\nversion = "{old}"\n', f'\nversion = "{version}"\n', 1),
        "CITATION.cff": texts["CITATION.cff"].replace(f"\nversion: {old}\n", f"\nversion: {version}\n", 1),
        "CHANGELOG.md": texts["CHANGELOG.md"].replace(f"{UNRELEASED}\n", f"## {version}\n", 1),
    }
    for name, text in changed.items():
        if text == texts[name]:
            return f"{name} must state the version {old}"
    for name, text in changed.items():
        (root / name).write_text(text, encoding="utf-8")
    return ""


if __name__ == "__main__":
    problem = bump(sys.argv[1], Path(*sys.argv[2:3]))
    print(problem or f"Version {sys.argv[1]}: see `git diff`, and docs/releasing.md for what follows")
    sys.exit(bool(problem))
