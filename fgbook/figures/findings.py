"""What a table shows, in one sentence below it, also where that is unwelcome: rows that
fall behind the plain backbone, regions that hit less often than boxes at random, gains
below zero, seeds that lie far apart.

Everything returned is HTML. The sentences name rows and measures; numbers stand in them
only with their records.
"""

import html
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import count, enumerated
from ..evidence import verdicts
from ..evidence.verdicts import Effect, Verdict
from .base import measured
from .summary import accuracy, by_row

WIDE = 5.0
"""Points between a row's best and worst seed from which they lie far apart, if this is
also three times what is usual in the table."""


def named(name: str, tag: str = "i") -> str:
    """A name in a sentence; some hold commas."""
    return f"<{tag}>{html.escape(name)}</{tag}>"


def listed(names: Iterable[str], most: int = 4, tag: str = "i") -> str:
    """As "a, b and c", each marked; of many names the first ones and how many more."""
    every = [named(name, tag) for name in names]
    if len(every) > most:
        every = [*every[: most - 1], f"{len(every) - most + 1} more"]
    return enumerated(every)


def joined(*parts: str) -> str:
    """Parts as one sentence; empty ones are left out."""
    text = "; ".join(filter(None, parts))
    if not text:
        return ""
    if text.startswith("<"):  # a name, which stays as it is
        return f"{text}."
    return f"{text[0].upper()}{text[1:]}."


def grouped(known: Mapping[str, Any], kind: Callable[[Any], str]) -> dict[str, list]:
    """Kind of a value -> the names that have such a value."""
    found: dict[str, list] = defaultdict(list)
    for name, value in known.items():
        found[kind(value)].append(name)
    return found


# ---- rows and their accuracies


def of_rows(
    found: Sequence[dict],
    titles: Mapping[str, str],
    metric: str = "top1",
    plain: str = "plain",
    among: Sequence[dict] = (),
) -> str:
    """Of a table of accuracies: which row is highest and which others its interval
    overlaps, which rows lie below the plain one, and whose seeds lie far apart.
    `titles`: name of a row -> what the table calls it; `among`: records of all rows.
    """
    rows, known = {}, {}
    for name, here in by_row(found, titles).items():
        if _all_hold(here, metric):
            rows[name] = here
            known[name] = accuracy(here, among or found, metric)
    if len(rows) < 2:
        return joined(_far_apart(rows, titles))
    return joined(
        _highest(known, titles), _behind(known, titles, plain), _far_apart(rows, titles)
    )


def _all_hold(found: Sequence[dict], metric: str) -> bool:
    return all(verdicts.holds(record, metric) for record in found)


def _highest(known: Mapping[str, tuple[float, float, float]], titles) -> str:
    best = max(known, key=lambda name: known[name][0])
    low = known[best][1]
    groups = grouped(known, lambda value: "near" if value[2] >= low else "far")
    near = groups["near"]
    near.remove(best)
    said = f"highest is {named(titles[best])}"
    if not near:
        return f"{said}, its interval above those of all others"
    if not groups["far"]:
        return f"{said}, but its interval overlaps those of all others"
    return f"{said}; its interval overlaps that of {listed(map(titles.get, near))}"


def _behind(known: Mapping[str, tuple[float, float, float]], titles, plain: str) -> str:
    """Rows whose mean lies below the plain one's."""
    if plain not in known:
        return ""
    level = known[plain][0]
    groups = grouped(known, lambda value: "behind" if value[0] < level else "ahead")
    behind = groups["behind"]
    title = named(titles[plain])
    if not behind:
        return ""
    if len(behind) == len(known) - 1:
        return f"all others lie below {title}"
    return f"below {title} lie{'s' if len(behind) == 1 else ''} " + listed(
        map(titles.get, behind)
    )


def _far_apart(rows: Mapping[str, list[dict]], titles) -> str:
    """Rows whose seeds differ far more than those of the others."""
    ranges = {}
    for name, here in rows.items():
        if len(here) > 1:
            ranges[name] = np.ptp(list(map(_top1, here)))
    said = []
    for name, width in ranges.items():
        others = dict(ranges)
        del others[name]
        usual = float(np.median(list(others.values()))) if others else 0.0
        if width >= WIDE and width >= 3 * usual:
            ends = sorted(rows[name], key=_top1)
            low, high = _top1_cell(ends[0]), _top1_cell(ends[-1])
            title = named(titles[name])
            said.append(f"the seeds of {title} spread from {low} to {high} %")
    return "; ".join(said)


def _top1_cell(record: dict) -> str:
    return measured(f"{_top1(record):.1f}", "top1", [record])


def _top1(record: dict) -> float:
    return 100 * float(np.mean(verdicts.per_image(record, "top1")))


# ---- what stands beside a baseline


def of_pairs(
    pairs: Mapping[str, tuple[float, float]],
    ours: str,
    theirs: str,
    less_is_better: bool = False,
) -> str:
    """Of a table with a baseline in each line: name of the line -> (value, it)."""
    sign = -1 if less_is_better else 1

    def kind(pair: tuple[float, float]) -> str:
        gain = sign * (pair[0] - pair[1])
        return "better" if gain > 0 else "unknown" if np.isnan(gain) else "not"

    groups = grouped(pairs, kind)
    better, other = groups["better"], groups["not"]
    known = better + other
    if not known:
        return ""
    if len(better) == len(known):
        where = "" if len(known) == 1 else " throughout"
        return joined(f"{ours} do better than {theirs}{where}")
    if not better:
        return joined(f"{ours} do no better than {theirs}: {listed(other)}")
    return joined(
        f"{ours} do better than {theirs} in {listed(better)}",
        f"but not in {listed(other)}",
    )


# ---- differences


def of_effects(effects: Mapping[str, Effect | None], what: str = "") -> str:
    """Of a table of differences with intervals: which lie above zero, which below, and
    of which neither can be said.
    """

    def kind(effect: Effect | None) -> str:
        if effect is None:
            return "unknown"
        return "above" if effect.low > 0 else "below" if effect.high < 0 else "neither"

    groups = grouped(effects, kind)
    above, below, neither = groups["above"], groups["below"], groups["neither"]
    if not (above or below or neither):
        return ""
    prefix = f"{what}: " if what else ""
    parts = []
    if above:
        parts.append(f"above zero with the whole interval: {listed(above)}")
    if below:
        parts.append(f"below zero: {listed(below)}")
    if neither and not parts:
        return joined(f"{prefix}every interval contains zero")
    if neither:
        parts.append(f"not to be told from zero: {listed(neither)}")
    return joined(prefix + "; ".join(parts))


# ---- claims


def of_verdicts(judged: Sequence[Verdict]) -> str:
    """Of a table of verdicts: which claims hold and which are reversed, and where the
    printed size is excluded though the claim holds.
    """
    if not judged:
        return ""
    by_key, smaller = {}, []
    for verdict in judged:
        by_key[verdict.claim.key] = verdict.outcome
        if verdict.outcome == "holds" and verdict.size_text == "positive, but smaller":
            smaller.append(verdict.claim.key)
    groups = grouped(by_key, str)
    if len(groups["not run"]) == len(judged):
        return joined(f"none of {count(len(judged), 'claim')} has been run as fixed")
    held, turned, equal = groups["holds"], groups["reversed"], groups["no difference"]
    parts = []
    if held:
        parts.append(f"{listed(held, 8, 'b')} hold{'s' if len(held) == 1 else ''}")
    if turned:
        verb = "is" if len(turned) == 1 else "are"
        parts.append(f"{listed(turned, 8, 'b')} {verb} reversed")
    if equal:
        verb = "makes" if len(equal) == 1 else "make"
        parts.append(f"{listed(equal, 8, 'b')} {verb} no difference")
    if not parts:
        parts.append("no claim is decided by these runs")
    if smaller:
        parts.append(f"smaller than printed: {listed(smaller, 8, 'b')}")
    return joined(*parts)


def of_tries(tries: Mapping[str, Sequence[float]]) -> str:
    """Of a table of what was tried on validation: row -> accuracies in percent; whether
    the first is clearly the best.
    """
    close = []
    for row, scores in tries.items():
        values = sorted(scores, reverse=True)
        if len(values) > 1 and values[0] - values[1] < 1.0:
            close.append(row)
    if not close:
        return ""
    return joined(
        f"the best try leads the second by less than a point for {listed(close)}:"
        " which is best may be chance"
    )
