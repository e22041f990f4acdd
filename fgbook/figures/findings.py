"""What a table shows, in one sentence below it, also where that is unwelcome: rows that
fall behind the plain backbone, regions that hit less often than boxes at random, gains
below zero, seeds that lie far apart.

Everything returned is HTML. The sentences name rows and measures; numbers stand in them
only with their records.
"""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..evidence import verdicts
from ..evidence.verdicts import Effect, Verdict
from .base import count, measured
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
    if len(every) < 2:
        return "".join(every)
    return f"{', '.join(every[:-1])} and {every[-1]}"


def joined(*parts: str) -> str:
    """Parts as one sentence; empty ones are left out."""
    there = [part for part in parts if part]
    if not there:
        return ""
    text = "; ".join(there)
    if text.startswith("<"):  # a name, which stays as it is
        return f"{text}."
    return f"{text[0].upper()}{text[1:]}."


def keyed(keys: Iterable[str]) -> str:
    """The keys of claims, of which a reader wants more: "B1, B2 and B3"."""
    return listed(keys, 8, "b")


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
    rows = by_row(found, titles)
    rows = {
        name: here
        for name, here in rows.items()
        if all(verdicts.holds(record, metric) for record in here)
    }
    if len(rows) < 2:
        return _far_apart(rows, titles)
    known = {
        name: accuracy(here, among or found, metric) for name, here in rows.items()
    }
    return joined(
        _highest(known, titles), _behind(known, titles, plain), _far_apart(rows, titles)
    )


def _highest(known: Mapping[str, tuple[float, float, float]], titles) -> str:
    best = max(known, key=lambda name: known[name][0])
    low = known[best][1]
    others = [name for name in known if name != best]
    near = [name for name in others if known[name][2] >= low]
    said = f"highest is {named(titles[best])}"
    if not near:
        return f"{said}, its interval above those of all others"
    if len(near) == len(others):
        return f"{said}, but its interval overlaps those of all others"
    return f"{said}; its interval overlaps that of {listed(titles[n] for n in near)}"


def _behind(known: Mapping[str, tuple[float, float, float]], titles, plain: str) -> str:
    """Rows whose mean lies below the plain one's."""
    if plain not in known:
        return ""
    behind = [name for name in known if known[name][0] < known[plain][0]]
    title = named(titles[plain])
    if not behind:
        return ""
    if len(behind) == len(known) - 1:
        return f"all others lie below {title}"
    return f"below {title} lie{'s' if len(behind) == 1 else ''} " + listed(
        titles[name] for name in behind
    )


def _far_apart(rows: Mapping[str, list[dict]], titles) -> str:
    """Rows whose seeds differ far more than those of the others."""
    ranges = {}
    for name, here in rows.items():
        if len(here) > 1:
            ranges[name] = np.ptp([_top1(record) for record in here])
    said = []
    for name, width in ranges.items():
        others = [value for other, value in ranges.items() if other != name]
        usual = float(np.median(others)) if others else 0.0
        if width >= WIDE and width >= 3 * usual:
            ends = sorted(rows[name], key=_top1)
            low, high = (
                measured(f"{_top1(record):.1f}", "top1", [record])
                for record in (ends[0], ends[-1])
            )
            said.append(f"the seeds of {named(titles[name])} spread from {low}")
            said[-1] += f" to {high} %"
    return "; ".join(said)


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
    known = {n: p for n, p in pairs.items() if np.isfinite(p).all()}
    sign = -1 if less_is_better else 1
    better = [n for n, (value, base) in known.items() if sign * (value - base) > 0]
    worse = [n for n, (value, base) in known.items() if sign * (value - base) < 0]
    if not known:
        return ""
    if len(better) == len(known):
        where = "" if len(known) == 1 else " throughout"
        return joined(f"{ours} do better than {theirs}{where}")
    if not better:
        return joined(f"{ours} do no better than {theirs}: {listed(worse or known)}")
    return joined(
        f"{ours} do better than {theirs} in {listed(better)}",
        f"but not in {listed(n for n in known if n not in better)}",
    )


# ---- differences


def of_effects(effects: Mapping[str, Effect | None], what: str = "") -> str:
    """Of a table of differences with intervals: which lie above zero, which below, and
    of which neither can be said.
    """
    known = {name: effect for name, effect in effects.items() if effect}
    if not known:
        return ""
    above = [name for name, effect in known.items() if effect.low > 0]
    below = [name for name, effect in known.items() if effect.high < 0]
    neither = [name for name in known if name not in (*above, *below)]
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

    def keys(outcome: str) -> list[str]:
        return [v.claim.key for v in judged if v.outcome == outcome]

    if len(keys("not run")) == len(judged):
        return joined(f"none of {count(len(judged), 'claim')} has been run as fixed")
    held, turned, equal = keys("holds"), keys("reversed"), keys("no difference")
    smaller = [
        v.claim.key
        for v in judged
        if v.outcome == "holds" and v.size_text == "positive, but smaller"
    ]
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
