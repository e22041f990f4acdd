"""Which rows of a comparison fit into a time budget, and in which order rows are run.
Costs decide, and never results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from ...papers.compare import FAMILIES
from .. import records
from .grid import Entry

FIRST = ("probe", "plain")
"""What every comparison begins with, whatever the budget: what it costs to train
nothing, and what all others are compared with."""

KEPT_BACK = 0.1
"""Of a budget, for what estimates miss."""

START_SECONDS = 8.0
"""Until the process of a run trains: imports, pictures, weights."""

FILE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """Rows, each list in the order in which they are run, and the margin."""

    rows: list[str]
    left_out: list[str]
    # points, fixed before any run was made; None: runs were there before
    margin: float | None = None


def costs(entries: Sequence[Entry]) -> dict[str, float]:
    """Row -> seconds that are left of all of its runs."""
    seconds: dict[str, float] = {}
    for entry in entries:
        left = START_SECONDS + entry.expected if entry.left else 0.0
        row = entry.run.row
        seconds[row] = seconds.get(row, 0.0) + left
    return seconds


def order(seconds: Mapping[str, float]) -> list[str]:
    """Rows in the order in which they tell most for their time: :data:`FIRST`, then the
    cheapest of each family, then the second of each, and so on.
    """
    family = {row: name for name, rows in FAMILIES.items() for row in rows}
    place: dict[str, int] = {}
    so_far: dict[str, int] = {}
    for row in sorted(seconds, key=lambda name: seconds[name]):
        place[row] = so_far.get(family[row], 0)
        so_far[family[row]] = place[row] + 1
    others = [row for row in seconds if row not in FIRST]
    others.sort(key=lambda row: (place[row], seconds[row]))
    return [row for row in FIRST if row in seconds] + others


def choose(seconds: Mapping[str, float], budget: float | None) -> Choice:
    """The rows that fit into `budget` seconds (None: all), taken in their order, each
    if it still fits; those that every comparison begins with in any case.
    """
    rows, left_out, spent = [], [], 0.0
    for row in order(seconds):
        fits = budget is None or spent + seconds[row] <= budget
        if fits or row in FIRST:
            rows.append(row)
            spent += seconds[row]
        else:
            left_out.append(row)
    return Choice(rows, left_out)


def with_margin(choice: Choice, margin: float, made: bool) -> Choice:
    """With the margin that is asked for, as long as no run is `made`: one that is given
    later could be chosen by the results.
    """
    return choice if made else replace(choice, margin=margin)


def remembered(folder: Path, rows: Sequence[str]) -> Choice | None:
    """What an earlier call with the same words chose of `rows`: it is gone on with,
    although by now other rows would fit.
    """
    try:
        kept = records.read_json(folder / FILE)
        found = Choice(kept["rows"], kept["left_out"], kept.get("margin"))
    except (OSError, ValueError, KeyError):
        return None
    same = sorted([*found.rows, *found.left_out]) == sorted(rows)
    return found if same else None


def remember(folder: Path, choice: Choice) -> None:
    """Keep it for the next call."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{FILE}.lock"):
        records.write_json(folder / FILE, asdict(choice))


def in_order(entries: Sequence[Entry], choice: Choice) -> list[Entry]:
    """The entries of the chosen rows: seed by seed, so that a comparison that is cut
    off is still one, and in the order of the rows.
    """
    place = {row: number for number, row in enumerate(choice.rows)}
    chosen = [entry for entry in entries if entry.run.row in place]
    return sorted(chosen, key=lambda entry: (entry.run.seed, place[entry.run.row]))
