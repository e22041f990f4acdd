"""Methods compared on one data set, and which of them to use: what ``fgbook compare``
says at its end.

Every method is compared with the plain backbone, and for the advice with every other
one. All intervals of one comparison hold together with 95 %: Dunnett's, where the rows
share one estimate of how much trainings differ, else Bonferroni's.

The advice
----------
A method is *good enough* where its intervals against all other methods lie above
-margin: it is then not worse than the best one by more than that, whichever the best
one is (comparisons with the best, from intervals round every method in turn: Edwards
and Hsu, J. Am. Stat. Assoc. 1983; two-sided ones, which are wider than needed). Of
these the cheapest is recommended: the fewest operations to predict an image, where 5 %
more count as equal, and then the shortest training. The margin is a person's, to be
fixed before the runs; where it came later the rule says so.

Where none is good enough nothing is decided, and this is what is said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..papers.spec import Paper
from . import verdicts
from .families import critical
from .intervals import LEVEL, Spread
from .verdicts import Effect

BASELINE = "plain"
EQUAL_COST = 1.05  # operations that count as equally many

Found = Mapping[str, Sequence[dict]]
"""Row -> its records, one a seed; at least one."""


@dataclass(frozen=True)
class Difference:
    """A row minus another one, in points, with the interval that holds together with
    those of the other rows.
    """

    effect: float
    low: float
    high: float
    # two trainings of each or more: one does not show how much they differ
    decides: bool = True

    def turned(self) -> "Difference":
        """The other row minus this one."""
        return Difference(-self.effect, -self.high, -self.low, self.decides)

    def is_above(self, border: float) -> bool:
        """Whether it is shown to be larger."""
        return self.decides and self.low > border

    def outcome(self, margin: float) -> str:
        """What the interval says: "better", "worse", "no difference" (all of it within
        the margin), or "inconclusive" (also of one training).
        """
        if not self.decides:
            return "inconclusive"
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        if -margin < self.low and self.high < margin:
            return "no difference"
        return "inconclusive"


@dataclass(frozen=True)
class Line:
    """What was found of one row."""

    row: str
    title: str
    seeds: int
    accuracy: tuple[float, float, float]  # percent, with the 95 % interval
    difference: Difference | None  # to the plain backbone; None: it is, or has not run
    outcome: str
    seconds: float  # of training, the mean
    flops: int  # of predicting an image
    parameters: int


@dataclass(frozen=True)
class Advice:
    """What to use."""

    sentence: str
    row: str | None  # None: nothing can be said
    decided: bool  # else a choice by cost
    good_enough: tuple[str, ...] = ()  # rows


# ---- the table


def lines(paper: Paper, found: Found, margin: float) -> list[Line]:
    """One for each row that has records, the most accurate first."""
    among = _all(found)
    others = [row for row in found if row != BASELINE]
    to_plain: dict[str, Difference] = {}
    if BASELINE in found and others:
        to_plain = differences(found, BASELINE, others)
    quick = is_quick(among)
    listed = []
    for row, records in found.items():
        difference = to_plain.get(row)
        outcome = difference.outcome(margin) if difference else ""
        listed.append(
            Line(
                row=row,
                title=paper.row(row).title,
                seeds=len(records),
                accuracy=verdicts.accuracy(records, "top1", among),
                difference=difference,
                outcome="illustration" if outcome and quick else outcome,
                seconds=_seconds(records),
                flops=records[0]["flops"],
                parameters=records[0]["parameters"],
            )
        )
    return sorted(listed, key=lambda line: -line.accuracy[0])


def is_quick(found: Iterable[dict]) -> bool:
    """Whether these records illustrate and must not decide."""
    return any(record["profile"] == "quick" for record in found)


def _all(found: Found) -> list[dict]:
    return [record for records in found.values() for record in records]


def _seconds(records: Sequence[dict]) -> float:
    return float(np.mean([record["train"]["seconds"] for record in records]))


# ---- intervals that hold together


def differences(
    found: Found, control: str, others: Sequence[str]
) -> dict[str, Difference]:
    """Each of `others` minus `control`."""
    among = _all(found)
    effects = {}
    for row in others:
        effects[row] = verdicts.compare(found[row], found[control], among=among)
    level = joint_level(list(effects.values()), _spread(found[control], among))
    together = {}
    for row, effect in effects.items():
        interval = effect.interval(level)
        together[row] = Difference(effect.effect, *interval, effect.seeds > 1)
    return together


def _spread(records: Sequence[dict], among: Sequence[dict]) -> tuple[Spread, int]:
    """How much a row varies between trainings, and how many of these it has."""
    if len(records) == 1:
        return Spread(0.0, 1), 1
    (spread,) = verdicts.spreads_of([records], "top1", among)
    return spread, len(records)


def joint_level(effects: Sequence[Effect], of_control: tuple[Spread, int]) -> float:
    """The level that the interval of each of several differences to one control must
    have, so that all hold with 95 %; `of_control`: its spread between trainings, and
    how many of these it has.
    """
    spread, seeds = of_control
    degrees = {round(float(effect.parts.seeds_degrees), 6) for effect in effects}
    several = all(effect.seeds > 1 for effect in effects)
    # what is solved, and so the same in every training, leaves the control's degrees
    if several and spread.rows > 1 and degrees == {round(float(spread.degrees), 6)}:
        from scipy.special import stdtr

        variance = spread.square / seeds  # the control's share of a difference's
        shares = []
        for effect in effects:
            both = max(effect.parts.seeds, variance)
            shares.append(variance / both if both else 0.5)
        deviation = critical(sorted(shares), spread.degrees)
        return float(1 - 2 * stdtr(spread.degrees, -deviation))
    return 1 - (1 - LEVEL) / len(effects)


# ---- the advice


def advise(found: Found, margin: float) -> Advice:
    """What the records recommend; see the top of this file. Quick runs recommend
    nothing.
    """
    among = _all(found)
    if is_quick(among):
        return Advice(
            "Nothing is recommended: runs of the quick profile only illustrate; leave"
            " --profile quick out.",
            None,
            False,
        )
    if len(found) < 2:
        return Advice("Nothing can be compared yet.", None, False)

    against = pairs(found)
    good = []
    for row in found:
        if all(other.is_above(-margin) for other in against[row].values()):
            good.append(row)
    if good:
        chosen = cheapest(found, good)
        return Advice(_decided(chosen, good, margin), chosen, True, tuple(good))
    left = []
    for row in found:
        if not any(other.turned().is_above(0) for other in against[row].values()):
            left.append(row)
    chosen = cheapest(found, left)
    return Advice(
        f"Undecided: no method is shown to be within {margin:g} points of the best;"
        f" {_why(found, against)} Start with {chosen}, by its cost and not by evidence:"
        f" it is the cheapest of the {len(left)} that no other of the {len(found)}"
        " methods is shown to beat.",
        chosen,
        False,
    )


def _why(found: Found, against: Mapping[str, Mapping[str, Difference]]) -> str:
    """Why nothing is decided."""
    seeds = min(len(records) for records in found.values())
    if seeds == 1:
        return "one training of a method does not show how much its trainings differ."
    images = _all(found)[0]["images"]["test"]
    halves = []
    for others in against.values():
        halves += [(other.high - other.low) / 2 for other in others.values()]
    return (
        f"with {images} test pictures and {seeds} trainings of each, differences below"
        f" about {np.median(halves):.0f} points cannot be told from chance."
    )


def rule(margin: float, begun_with: float | None) -> str:
    """How the advice is found, in words; `begun_with`: the margin that was fixed before
    the runs, None where some were there already.
    """
    fixed = _fixed_when(margin, begun_with)
    return (
        f"The rule{fixed}: of the methods that are shown to be at most {margin:g}"
        " points worse than the best, whichever that is (intervals against all others,"
        " which hold together with 95 %), the cheapest: the fewest operations to"
        " predict an image, 5 % more counting as equal, then the shortest training."
    )


def _fixed_when(margin: float, begun_with: float | None) -> str:
    """When the margin was fixed, as it stands behind "The rule"."""
    if begun_with is None:
        return " (its margin came after some of the runs)"
    if begun_with == margin:
        return ", fixed before the runs"
    points = "point" if begun_with == 1 else "points"
    return (
        f" (begun with a margin of {begun_with:g} {points}; {margin:g} was asked for"
        " after runs were made)"
    )


def pairs(found: Found) -> dict[str, dict[str, Difference]]:
    """Row -> every other row -> the first minus the second. The intervals of a row hold
    together: each is that of the more careful one of both.
    """
    as_control = {}
    for row in found:
        others = [name for name in found if name != row]
        as_control[row] = differences(found, row, others)
    against: dict[str, dict[str, Difference]] = {row: {} for row in found}
    for first, second in combinations(found, 2):
        one = as_control[first][second]  # second minus first
        other = as_control[second][first].turned()
        wider = max(one, other, key=lambda each: each.high - each.low)
        against[second][first] = wider
        against[first][second] = wider.turned()
    return against


def cheapest(found: Found, rows: Sequence[str]) -> str:
    """Of `rows`: fewest operations to predict, then the shortest training."""
    operations = {row: found[row][0]["flops"] for row in rows}
    most = EQUAL_COST * min(operations.values())
    equal = [row for row in rows if operations[row] <= most]
    return min(equal, key=lambda row: _seconds(found[row]))


def _decided(chosen: str, good: Sequence[str], margin: float) -> str:
    if len(good) == 1:
        return (
            f"Use {chosen}: it is the only method that is shown to be at most"
            f" {margin:g} points worse than the best."
        )
    others = ", ".join(row for row in good if row != chosen)
    return (
        f"Use {chosen}: it is the cheapest of {len(good)} methods that are shown to be"
        f" at most {margin:g} points worse than the best (the others: {others})."
    )
