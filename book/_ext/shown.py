"""What a page shows that no notebook draws. In a page

    ```{shown} answer feng
    ```

stands for the piece "answer" of `fgbook/figures/pages.py`, called with "feng" while the
book is built, or for a piece to play with, of those that `fgbook/widgets/__init__.py`
names; `{start} feng` says how long a chapter's notebooks take, and opens them in Colab.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fgbook import paths, widgets
from fgbook.errors import InputError
from fgbook.figures import pages

COLAB = "https://colab.research.google.com/github"
WORDS_A_MINUTE = 200


class Shown(SphinxDirective):
    """A piece by its name, with its arguments after it."""

    required_arguments = 1
    optional_arguments = 3

    def run(self) -> list[nodes.Node]:
        """As HTML, whose links between pages become addresses."""
        name = self.arguments[0]
        try:
            if name in widgets.PIECES:
                made = widgets.page(name, widgets.PIECES[name]()).html
            else:
                made = pages.piece(*self.arguments).html
        except InputError as error:
            raise self.error(str(error)) from error
        linked = re.sub(r'(?<=")page:([\w/]+)', self.address, made)
        return [nodes.raw("", linked, format="html")]

    def address(self, link: re.Match) -> str:
        """Where another page lies, as seen from this one."""
        if link[1] not in self.env.found_docs:
            raise self.error(f"there is no page {link[1]} to link to")
        return self.env.app.builder.get_relative_uri(self.env.docname, link[1])


class Start(SphinxDirective):
    """Before a chapter: minutes of its text and of its notebooks, and Colab."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A line of text and a line of links."""
        page = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        reading = max(1, round(len(page.split()) / WORDS_A_MINUTE))
        folder = Path(self.env.srcdir) / "notebooks"
        links, seconds = [], 0.0
        for name in self.arguments[0].split():
            notebook = json.loads((folder / f"{name}.ipynb").read_text("utf-8"))
            seconds += notebook["metadata"].get("fgbook", {}).get("seconds", 0.0)
            links.append(self.colab(name, title(notebook)))
        running = f"{seconds / 60:.0f}" if seconds >= 90 else "1"
        count = "its notebook" if len(links) == 1 else f"its {len(links)} notebooks"
        text = (
            f"{reading} minutes to read; {count} took {running} min to run when this"
            " page was built, on a processor."
            f' <a href="{self.repeating()}">Commands for photographs and for the'
            " paper's own data</a>."
        )
        line = f'<p class="fgbook-start"><b>Minutes.</b> {text}</p>'
        badges = f'<p class="fgbook-colab">{" ".join(links)}</p>'
        return [nodes.raw("", line + badges, format="html")]

    def repeating(self) -> str:
        """Where the commands of each paper stand."""
        relative = self.env.app.builder.get_relative_uri
        return f"{relative(self.env.docname, 'book/reproduce')}#each-paper"

    def colab(self, name: str, text: str) -> str:
        """A link that opens a notebook there."""
        repository = paths.address().removeprefix("https://github.com")
        branch = self.env.config.html_theme_options["repository_branch"]
        address = f"{COLAB}{repository}/blob/{branch}/notebooks/{name}.ipynb"
        return f'<a href="{address}"><b>Open in Colab</b> {html.escape(text)}</a>'


def title(notebook: dict) -> str:
    """The first heading of a notebook."""
    first = "".join(notebook["cells"][0]["source"]).splitlines()[0]
    return first.lstrip("# ").strip()


def write_files(app: Sphinx, error: Exception | None) -> None:
    """What lies beside the pages, once they are written."""
    if error is None and app.builder.name == "html":
        for name, text in pages.files().items():
            (Path(app.outdir) / name).write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make both directives known."""
    app.add_directive("shown", Shown)
    app.add_directive("start", Start)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
