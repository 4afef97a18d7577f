"""Prints the options of all readers, annotators and reports that ship, as docs/plugins.md shows them."""

import sys
from importlib.metadata import entry_points

from limner.readers.options import options_of, options_table
from limner.readers.overrides import Overrides

GROUPS = {"limner.readers": "Reader", "limner.annotators": "Annotator", "limner.writers": "Report"}


def tables() -> str:
    """A heading and a table for each plug-in of limner's that takes options."""
    parts = [f"### Every reader\n\n{options_table(Overrides)}"]
    for group, word in GROUPS.items():
        ours = [one for one in entry_points(group=group) if one.value.startswith("limner.")]
        for point in sorted(ours, key=lambda one: one.name):
            model = options_of(point.load())
            if model.model_fields:
                parts.append(f"### {word} `{point.name}`\n\n{options_table(model)}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(tables())
