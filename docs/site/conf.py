"""Settings of Sphinx for the manual; `build.py` beside this file runs it once a language."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from words import Words  # noqa: E402

project = "Inkwell"
html_title = "Inkwell"
html_favicon = str(HERE.parents[1] / "server/api/web/app/icon.svg")
extensions = ["myst_parser"]
# Headings are linked by the anchors that GitHub gives them.
myst_heading_anchors = 6
# Answers of examples are shortened with "...", which is not JSON.
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True
# Blocks without a language are what a command prints.
highlight_language = "text"
html_show_copyright = False

html_theme = "furo"
templates_path = [str(HERE / "templates")]
html_static_path = [str(HERE / "static")]
html_css_files = ["manual.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
html_permalinks_icon = "#"
html_search_language = "words"
# The name of each other language in itself, and what this one calls the two lists beside a page.
OTHER = {"en": ("zh", "中文"), "zh": ("en", "English")}
LISTS = {"en": ("Pages", "Headings"), "zh": ("页面", "标题")}


class AnchorsOfGitHub(SphinxTransform):
    """Puts the anchor that GitHub gives a heading before the others, so that the page shows it."""

    default_priority = 990

    def apply(self, **_: Any) -> None:
        for section in self.document.findall(nodes.section):
            slug = section.get("slug")
            if slug in section["ids"]:
                section["ids"] = [slug, *(each for each in section["ids"] if each != slug)]


def link_the_other_language(app: Sphinx, name: str, _: str, context: Any, __: Any) -> None:
    """Give the templates the address of the page's twin."""
    language = Path(app.srcdir).name
    code, label = OTHER[language]
    contents, headings = LISTS[language]
    twin = name if (Path(app.srcdir).parent / code / f"{name}.md").exists() else "index"
    up = "../" * (name.count("/") + 1)
    special = name in ("search", "404")
    context["twin"] = {
        "code": code,
        "label": label,
        "contents": contents,
        "headings": headings,
        "href": f"{up}{code}/{name if special else twin}.html",
    }


def setup(app: Sphinx) -> None:
    app.add_search_language(Words)
    app.add_transform(AnchorsOfGitHub)
    app.connect("html-page-context", link_the_other_language)
