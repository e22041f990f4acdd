"""What notebooks show, as pages have it: pictures are files beside the pages and not
text inside them, and the search index holds the words of tables but not the lists of
records that are folded below.
"""

import base64
import hashlib
import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

# Only what an element shows: what a script reads stays with the script.
PICTURE = re.compile(
    r"((?:src|href)=[\"'])data:image/(png|webp|jpeg);base64,([A-Za-z0-9+/=]+)"
)
FOLDED = re.compile(r"<(details|style|script|svg|template)\b.*?</\1>", re.S)


class Output(nodes.General, nodes.Element):
    """HTML in its attribute `html`; its child is the text that can be searched for."""


def write(self, node: Output) -> None:
    """Write the HTML; `self` is Sphinx's HTML translator."""
    self.body.append(node["html"])
    raise nodes.SkipNode  # or its text would follow


def prepare(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Turn each piece of HTML of a page into an Output."""
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_images"
    address = "../" * page.count("/") + "_images"

    def as_file(found: re.Match) -> str:
        content = base64.b64decode(found[3])
        # equal pictures are one file
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{found[2]}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return f"{found[1]}{address}/{name}"

    for raw in list(tree.findall(nodes.raw)):
        if "html" not in raw.get("format", "").split():
            continue
        shown = PICTURE.sub(as_file, raw.astext())
        shown = shown.replace("<img ", '<img loading="lazy" ')
        words = re.sub(r"<[^>]*>", " ", FOLDED.sub(" ", raw.astext()))
        output = Output("", nodes.Text(html.unescape(words)), html=shown)
        raw.replace_self(output)


def setup(app: Sphinx) -> dict[str, bool]:
    """Prepare every page before it is written."""
    app.add_node(Output, html=(write, None))
    app.connect("doctree-resolved", prepare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
