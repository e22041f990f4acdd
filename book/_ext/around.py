"""What stands around a page: title, description and picture for other sites that show
a link to it, and licence and citation at its foot.
"""

import html

from docutils import nodes
from sphinx.application import Sphinx

from fgbook import paths

# Beside the address of the repository: its files as they are.
RAW = "https://raw.githubusercontent.com"
PICTURE = "book/_static/preview.png"
CREATIVE_COMMONS = "https://creativecommons.org/licenses/by/4.0/"


def add(app: Sphinx, page: str, _: str, context: dict, tree: nodes.Node | None) -> None:
    """The tags and the footer of one page."""
    branch = app.config.html_theme_options["repository_branch"]
    context["metatags"] = context.get("metatags", "") + tags(
        {
            "og:title": context.get("title", ""),
            "og:description": description(tree) or app.config.project,
            "og:image": f"{paths.address().replace('https://github.com', RAW)}/{branch}"
            f"/{PICTURE}",
            "og:type": "article",
            "twitter:card": "summary_large_image",
        }
    )
    context["theme_extra_footer"] = footer(f"{paths.address()}/blob/{branch}")


def description(tree: nodes.Node | None) -> str:
    """What the page says of itself at its top; "" where it says nothing."""
    for tag in tree.findall(nodes.meta) if tree else ():
        if tag.get("name") == "description":
            return tag["content"]
    return ""


def tags(said: dict[str, str]) -> str:
    """As HTML."""
    lines = [""]
    for name, text in said.items():
        lines.append(f'<meta property="{name}" content="{html.escape(text)}"/>')
    return "\n".join(lines)


def footer(top: str) -> str:
    """Licences and citation, linked."""
    return (
        f'<p>Code: <a href="{top}/LICENSE">MIT</a>. Text and figures:'
        f' <a href="{CREATIVE_COMMONS}">CC BY 4.0</a>. To cite:'
        f' <a href="{top}/CITATION.cff">CITATION.cff</a>, and the paper whose method'
        " you use.</p>"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """For every page that is written."""
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
