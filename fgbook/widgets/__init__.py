"""What a reader plays with: one piece a chapter. A piece is a function from settings to
a frame (:mod:`.piece`); :func:`show` shows it, live before a kernel, or in a page.
"""

from collections.abc import Callable

from . import causal, compare, feng, gautam, golodov, liang, peng, verdicts
from .piece import Piece
from .show import attended, live, page, show

PIECES: dict[str, Callable[[], Piece]] = {"verdict": verdicts.piece}
"""Those that a page can show without a notebook, by name."""

__all__ = [
    "PIECES",
    "attended",
    "causal",
    "compare",
    "feng",
    "gautam",
    "golodov",
    "liang",
    "live",
    "page",
    "peng",
    "show",
    "verdicts",
]
