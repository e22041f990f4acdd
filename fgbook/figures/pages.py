"""The pieces of the book's pages that no notebook draws: made from the published
records while the book is built, each under a name that a page asks for
(``book/_ext/shown.py``).
"""

import html
from collections.abc import Callable
from functools import lru_cache

from .. import papers
from ..errors import unknown
from ..evidence import records
from .answers import chapter
from .base import Shown
from .board import authors, board, counts_table, first_chapter, judged_papers
from .diagrams import drawing, figure
from .hero import hero
from .numbers import numbers_csv, numbers_table
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


def _first() -> Shown:
    """Which chapter to read first, as a sentence with a link."""
    name, decided, claims = first_chapter(judged_papers(_results()))
    title = html.escape(authors(papers.get(name)))
    text = (
        f'Begin with <a href="page:book/{name}">{title}</a>: of the five it has the'
        f" largest share of claims that are decided, {decided} of {claims}."
    )
    if not decided:
        text = (
            f'Begin with <a href="page:book/{name}">{title}</a>; no claim is decided'
            " yet."
        )
    return Shown(f"<p>{text}</p>", text)


def _answer(paper: str) -> Shown:
    return chapter(paper, _published())


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
    "first": _first,
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
