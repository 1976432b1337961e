"""How the documentation is built: ``python -m sphinx -W --keep-going docs docs/_build/html``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# Examples run while the pages are built: shortly, unless the whole runs are asked for.
if not os.environ.get("MODAL_NTK_FULL"):
    os.environ["MODAL_NTK_SMALL"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

project = "modal_ntk"
author = "The modal_ntk developers"
copyright = author
release = version = installed_version("modal-ntk")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "helptext",
    "blocks",
    "cards",
]
exclude_patterns = ["_build", "_ext", "_templates", "**/README.md"]
templates_path = ["_templates"]
suppress_warnings = [
    # The gallery leaves functions in its configuration; this only keeps its pages from being cached.
    "config.cache",
]

# A single backtick in a docstring is a name; where nothing has it, it is shown as code.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autosummary_generate = True
# Where names differ in case alone, so must their files in more than that.
autosummary_filename_map = {
    "modal_ntk.kernels.Posterior": "modal_ntk.kernels.Posterior_class",
    "modal_ntk.kernels.MMD": "modal_ntk.kernels.MMD_class",
}
# Public names are what a package hands out, wherever they are defined.
autosummary_imported_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Only the scripts at the top: below lie the long studies and the template of a plugin.
    "filename_pattern": r"examples[/\\][^/\\]+\.py$",
    "nested_sections": False,
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": False,
    "plot_gallery": "True",
}

html_theme = "pydata_sphinx_theme"
html_title = f"modal_ntk {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def only_scripts_at_the_top(_app: object, config: object) -> None:
    """Keep the gallery from taking the template of a plugin, whose README is Markdown, for a part of itself."""
    config.sphinx_gallery_conf["source_suffix"] = {".rst": "restructuredtext"}  # type: ignore[attr-defined]


def setup(app: object) -> None:
    """Register what this site needs beside its extensions."""
    app.connect("config-inited", only_scripts_at_the_top, priority=900)  # type: ignore[attr-defined]
