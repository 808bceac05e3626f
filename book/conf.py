"""Sphinx's settings. The sources stand in build/book/source, written by ``python -m book``."""

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from book.translate import LANGUAGE, LANGUAGES, say  # noqa: E402

_settings = tomllib.loads((HERE / "book.toml").read_text(encoding="utf-8"))
_repository = os.environ.get("BOOK_REPOSITORY", _settings["repository"]).rstrip("/")
_branch = os.environ.get("BOOK_BRANCH", _settings["branch"])

project = say("Instructions, language models and honest evaluation")
author = say("The authors of the instruction notebooks")
copyright = author + ", Apache-2.0"
language = LANGUAGES.get(LANGUAGE, "en")
extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["**/.ipynb_checkpoints"]
root_doc = "index"

# Notebooks as they are stored. Nothing is ever executed here.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
# "beside:../../LEDGER.html#c1": a page of the other language's site
myst_url_schemes = {"http": None, "https": None, "mailto": None, "beside": "{{path}}#{{fragment}}"}
suppress_warnings = ["myst.header"]  # a lesson may go from # to ###

if LANGUAGE == "zh":
    import jieba
    from sphinx.search.zh import SearchChinese

    jieba.setLogLevel("WARNING")  # it tells of its dictionary

    # Sphinx 9.0 ships the English stemmer for Chinese pages, and then looks for one of the language's own name.
    SearchChinese.language_name = "English"
    # A row of Chinese in a query is cut into the longest words that the index holds.
    SearchChinese.js_splitter_code = (HERE / "static" / "split_query.js").read_text(encoding="utf-8")
    html_search_options = {"dict": str(HERE.parent / "build" / "book" / "words.txt")}  # written by pages.py

html_theme = "sphinx_book_theme"
html_title = say("Instructions and honest evaluation")
html_static_path = ["static", str(HERE.parent / "build" / "book" / "static")]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False  # the pages are made from files of the repository, which has them
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system has it
html_permalinks_icon = "#"
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "max_navbar_depth": 2,
    "collapse_navbar": True,
    "home_page_in_toc": True,
    "navigation_with_keys": False,
    "use_download_button": False,
    "navbar_persistent": [],  # the side bar has the search field
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if _repository:
    html_theme_options |= {
        "repository_url": _repository,
        "repository_branch": _branch,
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }

# MathJax lies in the site: it works offline, from file://, and asks nobody.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {
    "options": {"enableMenu": False}
}  # the menu's speech engine would load files that are not there
