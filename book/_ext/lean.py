"""Pages without what they do not need: the script that starts kernels (it raises an
error on every page, and no page starts one), the script of icons (1.5 MB; the theme's
style sheet has the same icons as a font), the index of the search, which only the page
of results reads, and maps of scripts. What the theme leaves without a name gets one,
and a list without items is none.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

UNUSED = ("thebe",)
ICONS = re.compile(r"<script[^>]*fontawesome\.js[^>]*></script>")
SEARCH = re.compile(
    r"<script[^>]*(searchtools|language_data|searchindex)\.js[^>]*></script>"
)
RESULTS = "search.html"
FILES = ("*.map", "fontawesome.js*", "sphinx-thebe.*", "*.ttf", "*webpack-macros.html")
# What opens a chapter's notebooks in the contents beside the page.
FOLD = '<summary><span class="toctree-toggle"'
NAMED = FOLD.replace(
    "<summary>", '<summary aria-label="The notebooks of this chapter">'
)
# Said to be a list, but nothing in it is said to be an item.
LIST = '<div role="list" class="citation-list">'
PLAIN = '<div class="citation-list">'


def without_kernels(
    app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any
) -> None:
    """Leave out scripts and style sheets, inline ones by what they say."""
    for kind in ("script_files", "css_files"):
        kept = []
        for file in context.get(kind, []):
            said = f"{file} {getattr(file, 'attributes', {}).get('body', '')}"
            if not any(word in said.lower() for word in UNUSED):
                kept.append(file)
        context[kind] = kept


def finish(app: Sphinx, error: Exception | None) -> None:
    """The same for what the theme's own templates write, and for unused files."""
    if error or app.builder.format != "html":
        return
    made = Path(app.outdir)
    for page in made.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = ICONS.sub("", text).replace(FOLD, NAMED).replace(LIST, PLAIN)
        if page.name != RESULTS:
            text = SEARCH.sub("", text)
        page.write_text(text, encoding="utf-8")
    for pattern in FILES:
        for path in (made / "_static").rglob(pattern):
            path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """After the theme, whose pages these are."""
    app.connect("html-page-context", without_kernels, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
