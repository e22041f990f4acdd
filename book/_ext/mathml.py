"""Formulas as MathML, converted while the book is built: they need no script from the
network, so the book reads offline too."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(self, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(self, node: nodes.math_block) -> None:
    self.body.append(
        "<div"
        f' class="math-block">{convert(node.astext().strip(), display="block")}</div>'
    )
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
