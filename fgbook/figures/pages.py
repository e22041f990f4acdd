"""The pieces of the book's pages that no notebook draws: made from the published
records while the book is built, each under a name that a page asks for
(``book/_ext/shown.py``).
"""

import html
from collections.abc import Callable
from functools import lru_cache

from .. import papers, paths
from ..errors import unknown
from ..evidence import records
from .answers import chapter
from .base import Shown
from .board import board, counts_table, judged_papers, outcomes_text
from .compare import so_far
from .curves import losses_table
from .diagrams import drawing, figure
from .hero import hero
from .numbers import numbers_csv, numbers_table
from .regions import ranks_table
from .repeating import repeating_table


@lru_cache
def _published() -> list[dict]:
    """All of them, read once a build."""
    return records.published(purpose=None)


def _results() -> list[dict]:
    return records.select(_published(), purpose="result")


def _board() -> Shown:
    return board(judged_papers(_results()), _results())


def _counts() -> Shown:
    return counts_table(judged_papers(_results()))


def _clone() -> Shown:
    """The lines to type before any other: where the repository lies is set elsewhere.
    In the form that the book's blocks of commands have.
    """
    address = paths.address()
    lines = (
        f"git clone {address}",
        f"cd {address.rpartition('/')[2]}",
        "make reproduce",
        "source .venv/bin/activate",
    )
    typed = [f'<span class="gp">$ </span>{html.escape(line)}' for line in lines]
    return Shown(
        '<div class="highlight-console notranslate"><div class="highlight"><pre>'
        + "\n".join(typed)
        + "\n</pre></div></div>",
        "\n".join(lines),
    )


def _answer(paper: str) -> Shown:
    return chapter(paper, _published())


def _so_far() -> Shown:
    """What the comparison of methods has measured on photographs."""
    paper = papers.get("compare")
    first = paper.datasets["photo"][0]
    found = records.select(_results(), paper=paper.key, profile="photo", dataset=first)
    return so_far(paper, found)


def _ranks(paper: str, row: str) -> Shown:
    """Where the regions of a row lie on photographs, rank by rank."""
    return ranks_table(_on_photographs(paper, row))


def _losses(paper: str, row: str) -> Shown:
    """Where the losses of a row begin and end on photographs."""
    return losses_table(_on_photographs(paper, row))


def _on_photographs(paper: str, row: str) -> list[dict]:
    """The records of a row, of the paper's first data set of photographs if they are
    there, else of another.
    """
    found = records.select(_results(), paper=paper, profile="photo", row=row)
    if not found:
        return []
    there = sorted({record["dataset"] for record in found})
    first = papers.get(paper).datasets["photo"][0]
    return records.select(found, dataset=first if first in there else there[0])


def _numbers() -> Shown:
    return numbers_table(_published())


def _repeating() -> Shown:
    return repeating_table(_results())


def _diagram(name: str, alone: str = "") -> Shown:
    """How a method works; "alone": on a page that does not explain the signs."""
    return figure(drawing(name), "page:book/methods#reading-diagrams" if alone else "")


PIECES: dict[str, Callable[..., Shown]] = {
    "hero": hero,
    "counts": _counts,
    "board": _board,
    "outcomes": outcomes_text,
    "clone": _clone,
    "so-far": _so_far,
    "ranks": _ranks,
    "losses": _losses,
    "answer": _answer,
    "diagram": _diagram,
    "numbers": _numbers,
    "repeating": _repeating,
}


def piece(name: str, *arguments: str) -> Shown:
    """The piece of that name; raises InputError for unknown ones."""
    if name not in PIECES:
        raise unknown("piece", name, PIECES)
    return PIECES[name](*arguments)


def files() -> dict[str, str]:
    """Path below the built book -> text of a file that lies beside the pages."""
    return {"book/numbers.csv": numbers_csv(_published())}
