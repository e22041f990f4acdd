"""What every table and figure is made of: HTML with its caption and its sources, one
style of drawing, and numbers as text.
"""

import html
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ..evidence import sortable
from .vector import INK, svg

OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "ink": INK,  # black on a light page, white on a dark one
}
STYLE = matplotlib.RcParams(
    {
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.dpi": 100,
        "font.size": 11,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.labelsize": 11,
        "legend.frameon": False,
        "axes.grid": False,
    }
)
# Inches; narrow, so that text of 11 points is 11 pixels on a phone.
WIDTH = 4.7
QUICK_NOTE = (
    " Drawn birds and a network of seconds: it shows how the rows are run and has no"
    " bearing on the paper."
)


@dataclass(frozen=True)
class Shown:
    """Something a notebook shows: `html`, and `text` where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def sentence(text: str) -> Shown:
    """One sentence in the place of a table or figure that cannot be drawn."""
    return Shown(f"<p>{html.escape(text)}</p>", text)


NOT_YET = sentence("Not run yet.")


def glue(name: str, shown: Shown) -> None:
    """Display it, and keep it under `name` for the book's pages (outside the book's
    environment it is only displayed).
    """
    try:
        from myst_nb import glue as keep
    except ImportError:  # Colab
        from IPython.display import display

        display(shown)
    else:
        keep(name, shown)


# ---- figures


def styled() -> AbstractContextManager[None]:
    """Matplotlib's settings of this book: axes made inside the block look alike."""
    return matplotlib.rc_context(STYLE)


def figure(drawn: Figure, alt: str, caption: str) -> Shown:
    """A drawn figure as HTML.

    `alt` says what is to be seen, for those who cannot see it; `caption` says what it
    means. Both are plain text; raises ValueError where one is missing. A long `alt` is
    shortened to a name, and stands as a whole, folded, below the caption.
    """
    if not alt.strip() or not caption.strip():
        raise ValueError("a figure needs alternative text and a caption")
    name = shortened(alt)
    image = f'<div class="fgbook-drawn">{svg(drawn, name)}</div>'
    below = f"<figcaption>{html.escape(caption)}</figcaption>"
    words = ""
    if name != alt:
        title = "<summary>The figure in words</summary>"
        words = f"<details>{title}<p>{html.escape(alt)}</p></details>"
    return Shown(
        f'<figure class="fgbook-figure">{image}{below}{words}</figure>',
        f"[figure] {caption}",
    )


LONGEST = 300  # characters of a figure's name


def shortened(alt: str) -> str:
    """As many of its sentences, or else of its words, as fit."""
    if len(alt) <= LONGEST:
        return alt
    start = alt[: LONGEST - 1]
    for end in (". ", "; ", ", ", " "):
        before, found, _ = start.rpartition(end)
        if found and len(before) > LONGEST / 4:
            return before + ("." if end == ". " else " …")
    return start + "…"


# ---- tables


def table(
    lines: list[dict],
    caption: str,
    found: Sequence[dict] = (),
    illustration: bool = False,
    says: str = "",
    find: str = "",
) -> Shown:
    """A table as HTML, one dictionary a line; cells may hold HTML. Below it, folded,
    the records that it was made from and the command that repeats each.

    `illustration` marks what must not be read as a result. `says`: what the table
    shows, a sentence as HTML (:mod:`fgbook.figures.findings`). `find`: an example of
    what can be asked for; with one, the table can be sorted and filtered.
    """
    frame = pd.DataFrame(lines)
    body = frame.to_html(escape=False, index=False, border=0, na_rep="–")
    mark = ""
    if illustration:
        mark = '<span class="fgbook-illustration">illustration</span> '
    above = f"<figcaption>{mark}{html.escape(caption)}</figcaption>"
    below = f'<p class="fgbook-says">{says}</p>' if says else ""
    below += sources(found)
    # With a place in the tab order a wide table can be scrolled by keyboard.
    scrolled = f'<div tabindex="0">{body}</div>'
    lines_of_text = frame.map(without_tags).to_string(index=False)
    asks = f' data-sortable="{html.escape(find)}"' if find else ""
    script = sortable.script() if find else ""
    return Shown(
        f'<figure class="fgbook-table"{asks}>{above}{scrolled}{below}</figure>{script}',
        f"{caption}\n{lines_of_text}\n{without_tags(says)}".strip(),
    )


def without_tags(cell: object) -> str:
    """HTML as plain text."""
    return html.unescape(re.sub(r"<[^>]*>", "", str(cell)))


def sources(found: Sequence[dict]) -> str:
    """The records that numbers come from and the command that repeats each, folded;
    "" where there are none.
    """
    if not found:
        return ""
    lines = []
    for record in found:
        key = html.escape(record["key"])
        command = html.escape(record["command"])
        about = f'data-record="{key}" data-of="{html.escape(described(record))}"'
        lines.append(
            f"<li {about}>record <code>{key}</code>: <code>{command}</code></li>"
        )
    title = "Records behind these numbers, and the commands that repeat them"
    return f"<details><summary>{title}</summary><ul>{''.join(lines)}</ul></details>"


def described(record: dict) -> str:
    """What a number's source says of a record besides its key and command."""
    profile, dataset = record.get("profile", ""), record.get("dataset", "")
    about = f"{record.get('paper', '')} {record.get('row', '')}, {profile}, {dataset}"
    return f"{about}; seed {record.get('seed', '–')}"


def measured(
    text: str, field: str, found: Sequence[dict], other: Sequence[dict] = ()
) -> str:
    """A measured number as HTML, marked with the field and the keys of the records that
    it comes from (and, for a difference, those compared with).
    """
    keys = _keys(found)
    # whose rows tell how much trainings differ
    paper = next((record["paper"] for record in found if "paper" in record), "")
    title = f"{field} of record{'s' if len(found) + len(other) > 1 else ''} {keys}"
    versus = ""
    if other:
        title += f" against {_keys(other)}"
        versus = f' data-versus="{html.escape(_keys(other))}"'
    return (
        f'<span class="fgbook-measured" data-field="{html.escape(field)}"'
        f' data-records="{html.escape(keys)}"{versus}'
        f' data-paper="{html.escape(paper)}"'
        f' title="{html.escape(title)}">{text}</span>'
    )


def _keys(found: Sequence[dict]) -> str:
    return " ".join(record["key"] for record in found)


# ---- numbers and lists as text


def distinct(values: Iterable[object]) -> str:
    """Differing values side by side, in their order: "224 / 448"."""
    return " / ".join(dict.fromkeys(str(value) for value in values))


def between(low: float, high: float, digits: int = 1) -> str:
    """An interval: "1.0 to 2.0"."""
    return f"{low:.{digits}f} to {high:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """A difference: "+1.0"."""
    return f"{value:+.{digits}f}"


def signed_between(low: float, high: float, digits: int = 1) -> str:
    """The interval of a difference: "-1.0 to +2.0"."""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def duration(seconds: float) -> str:
    """Of a training: "40 s", "1.5 min"."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
