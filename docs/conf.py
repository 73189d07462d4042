"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import types
import typing
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext")]

import inventories  # noqa: E402
import tutorials  # noqa: E402


def import_with_types() -> None:
    """Import the package with the names in its annotations, which otherwise load for type checkers only."""
    first = ("anndata", "filelock", "matplotlib.pyplot", "numpy.typing", "ot", "scanpy", "seaborn", "sklearn.mixture")
    for name in (*first, "torch"):
        importlib.import_module(name)
    scalar = typing.TypeVar("scalar")
    for name, bases in (("ArrayLike", ()), ("NDArray", (typing.Generic[scalar],))):  # shown by name, not written out
        alias = types.new_class(name, bases, {}, lambda body: body.update(__module__="numpy.typing"))
        setattr(sys.modules["numpy.typing"], name, alias)
    import thalweg

    typing.TYPE_CHECKING = True
    for module in pkgutil.walk_packages(thalweg.__path__, "thalweg."):
        importlib.import_module(module.name)
    typing.TYPE_CHECKING = False


import_with_types()
import thalweg  # noqa: E402

project = "thalweg"
author = "The thalweg developers"
copyright = "2026, The thalweg developers"
release = version = thalweg.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "names",
    "results",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Pages
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Tutorials: executed at every build unless their data cannot be had, see _ext/tutorials.py
nb_execution_mode = os.environ.get("THALWEG_DOCS_EXECUTE", "cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_merge_streams = True
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # kernels show pictures, whatever the shell says
nb_execution_excludepatterns = tutorials.prepare(DOCS.parent / "tutorials", DOCS / "tutorials")

# API
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"show-inheritance": False}
maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"thalweg\..*\.M"),  # type variables
    ("py:class", r"thalweg\.core\.manifolds\._Flat"),  # the private base that two manifolds share
    ("py:class", r"pd\.DataFrame"),  # of a NamedTuple, whose bases autodoc shows as they are written
]

# Other packages
intersphinx_mapping = inventories.mapping(DOCS / "_ext" / "inventories.toml", DOCS / "_build" / "inventories")

# Looks
html_theme = "sphinx_book_theme"
html_title = "thalweg"
html_static_path = ["_static"]
html_css_files = ["thalweg.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "use_download_button": True,
    "use_fullscreen_button": False,
}
