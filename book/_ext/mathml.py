"""Formulas as MathML, converted while the book is built: they need no script from the
network, so the book reads offline too.
"""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def inline(self, node: nodes.math) -> None:
    """Write a formula within a line; `self` is Sphinx's HTML translator."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode  # or the TeX would follow


def display(self, node: nodes.math_block) -> None:
    """Write a formula that stands alone."""
    formula = convert(node.astext().strip(), display="block")
    self.body.append(f'<div class="math-block">{formula}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Make "mathml" a renderer that `_config.yml` can choose."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
