"""Builds the documentation site: `make docs`. Pages of the reference are written from the code first."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import write_pages

project = "limner"
author = "The limner developers"
copyright = "The limner developers, Apache-2.0"  # noqa: A001 - Sphinx's name
version = release = version_of("limner")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "limner"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

nitpicky = False  # docstrings name things in single backquotes, which are no roles
default_role = "code"
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
myst_links_external_new_tab = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
suppress_warnings = ["misc.highlighting_failure"]  # examples of output, and JSON with an ellipsis


def setup(app: Sphinx) -> None:
    """Write the pages that come from the code before any page is read."""
    app.connect("builder-inited", lambda of: write_pages(Path(of.srcdir) / "reference" / "generated"))
