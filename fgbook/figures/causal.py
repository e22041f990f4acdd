"""Explanations judged by experiment: tables with intervals over scenes and trainings,
pairs of pictures with their maps, what a planted shortcut does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..errors import count as counted
from ..evaluation import causal
from ..evaluation.causal import EDITS, Experiment, Scores
from ..evidence import intervals
from ..explain import Explanation
from ..images.light import lit
from ..methods import Method
from .base import (
    NOT_YET,
    OKABE_ITO,
    WIDTH,
    Shown,
    between,
    figure,
    sentence,
    signed,
    signed_between,
    styled,
    table,
)
from .curves import LOOKS, legend_above
from .photos import photo

Found = dict[str, list[Scores]]
"""Name of a network -> what was found of it, one a training."""

REACTIONS = {
    "right": "named rightly",
    "follows": "follows the telling attribute",
    "other": "moved by another attribute",
    "perch": "by the perch",
    "background": "by the background",
}
MEASURES = {
    "energy": "on the cause",
    "pointing": "maximum on it",
    "rank": "ranks the cause higher",
    "within": "the same within the bird",
    "effects": "agrees with the effects",
}
CONTROLS = {
    "even": "even map",
    "centre": "middle of the picture",
    "edges": "edges of the picture",
    "random box": "random box",
    "bird": "the bird",
}
ACROSS = 5  # pictures
ENOUGH = 4  # degrees of freedom of a spread that speaks for networks trained once
NOTE = " Drawn birds and networks of seconds."


# ---- a mean and its interval


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes and trainings, and its 95 % interval; NaN where there is
    nothing to take it of.
    """

    mean: float
    low: float
    high: float
    count: int  # scenes that it is made from, of all trainings

    def text(self, digits: int = 2) -> str:
        """As "0.25 (0.20 to 0.30)"."""
        if not self.count:
            return "–"
        if np.isnan(self.low):
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ({between(self.low, self.high, digits)})"

    def signed(self, digits: int = 2) -> str:
        """As "+0.25 (+0.20 to +0.30)"."""
        if np.isnan(self.low):
            return "–"
        inside = signed_between(self.low, self.high, digits)
        return f"{signed(self.mean, digits)} ({inside})"


def estimate(
    found: Sequence[Tensor],
    lowest: float = 0.0,
    highest: float = 1.0,
    spread: intervals.Spread | None = None,
) -> Estimate:
    """From numbers of scenes (N,), one row a training, NaN where a scene has none; each
    number is between `lowest` and `highest`, and so are the ends of the interval.
    spread: how much trainings vary; None: what these show, where there are several.

    The mean of what is there is a ratio of two means over scenes, that of the numbers
    and that of what is there. To first order it varies as the mean of
    (number - mean) / share that is there, 0 where there is none: a full table of
    trainings and scenes, whose interval :mod:`fgbook.evidence.intervals` knows.
    """
    values = np.stack([each.double().numpy() for each in found])  # (seeds, N)
    there = np.isfinite(values)
    if not there.any():
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(values[there].mean())
    if values.shape[1] < 2 or there.sum() < 2:
        return Estimate(mean, np.nan, np.nan, int(there.sum()))
    apart = _apart(values)
    if spread is None and len(values) > 1:
        spread = intervals.own(apart.mean(1))
    known = None if spread is None else [spread]
    parts = intervals.parts([apart], known, np.abs(apart).max())
    half = float(parts.half())
    low, high = max(lowest, mean - half), min(highest, mean + half)
    return Estimate(mean, low, high, int(there.sum()))


def _apart(values: NDArray) -> NDArray:
    """See :func:`estimate`: (seeds, N) of numbers with gaps -> the same without."""
    there = np.isfinite(values)
    if not there.any():
        return np.zeros_like(values)
    return np.where(there, values - values[there].mean(), 0) / there.mean()


def estimates(cells: Sequence[Sequence[Tensor]], lowest: float = 0.0) -> list[Estimate]:
    """:func:`estimate` of several networks, of numbers up to 1. How much trainings vary
    is estimated of all of them together, where they do not refuse it; and that counts
    for those of one training too, where it has ENOUGH degrees of freedom.
    """
    spreads = spreads_of(cells)
    return [
        estimate(cell, lowest, spread=spread)
        for cell, spread in zip(cells, spreads, strict=True)
    ]


def spreads_of(cells: Sequence[Sequence[Tensor]]) -> list[intervals.Spread | None]:
    """For each network how much its trainings vary, see :func:`estimates`; None where
    that cannot be told.
    """
    means = []
    for cell in cells:
        values = np.stack([each.double().numpy() for each in cell])
        means.append(_apart(values).mean(1) if np.isfinite(values).any() else [])
    several = [i for i, each in enumerate(means) if len(each) > 1]
    found: list[intervals.Spread | None] = [None] * len(cells)
    known = intervals.spreads([np.asarray(means[i]) for i in several])
    for i, spread in zip(several, known, strict=True):
        found[i] = spread
    if not known:
        return found
    widest = max(known, key=lambda spread: spread.rows)
    for i, each in enumerate(means):
        if len(each) == 1 and widest.degrees >= ENOUGH:
            found[i] = widest
    return found


def difference(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    spreads: Sequence[intervals.Spread | None],
) -> Estimate:
    """How much more there is of a number in some trainings than in others, on the same
    scenes: within [-1, 1].
    """
    rows = [np.stack([e.double().numpy() for e in each]) for each in (after, before)]
    there = [np.isfinite(row) for row in rows]
    if not (there[0].any() and there[1].any()):
        return Estimate(np.nan, np.nan, np.nan, 0)
    means = [float(row[t].mean()) for row, t in zip(rows, there, strict=True)]
    apart = [_apart(row) for row in rows]
    unit = sum(np.abs(each).max() for each in apart)
    known = [spread for spread in spreads if spread is not None]
    parts = intervals.parts(apart, known if len(known) == 2 else None, unit)
    mean, half = means[0] - means[1], float(parts.half())
    count = int(there[0].sum() + there[1].sum())
    return Estimate(mean, max(-1.0, mean - half), min(1.0, mean + half), count)


def of_network(found: Sequence[Scores], name: str) -> Estimate:
    """A reaction of a network."""
    return estimate([scores.network[name] for scores in found])


def of_networks(found: Sequence[Sequence[Scores]], name: str) -> list[Estimate]:
    """A reaction of each of several networks."""
    return estimates([[scores.network[name] for scores in each] for each in found])


def of_maps(found: Sequence[Scores], name: str, measure: str) -> Estimate:
    """A measure of an explanation, or of a control."""
    lowest = -1.0 if measure == "effects" else 0.0
    return estimate([_maps(scores, name)[measure] for scores in found], lowest)


def beyond(found: Sequence[Scores], name: str) -> Estimate:
    """How much more of an explanation, or of a control, is on the cause than of the
    bird's mask, on the same scenes.
    """
    more = [
        _maps(one, name)["energy"] - one.controls["bird"]["energy"] for one in found
    ]
    return estimate(more, lowest=-1.0)


def more_ground(least: Sequence[Scores], most: Sequence[Scores], name: str) -> Estimate:
    """How much more of a map lies on the background in some trainings than in others
    (each a row of its own: that two share a seed says nothing about networks that
    differ).
    """
    before, after = (
        [one.maps[name]["ground"] for one in each] for each in (least, most)
    )
    return difference(before, after, spreads_of([before, after]))


def _maps(scores: Scores, name: str) -> dict[str, Tensor]:
    return scores.controls[name] if name in scores.controls else scores.maps[name]


# ---- tables


def network_table(found: Found) -> Shown:
    """Question 1: does the prediction follow?"""
    lines = []
    for name, of_one in found.items():
        line = {"network": name}
        for reaction, title in REACTIONS.items():
            line[title] = of_network(of_one, reaction).text()
        lines.append(line)
    return table(
        lines,
        "What moves the prediction. Share of the pictures that are named rightly; of"
        " those, the share that is named as the sibling once the attribute which tells"
        " them apart is the sibling's, where any pixel of it is seen; and the share in"
        " which a change that tells nothing moves the prediction. In brackets, with"
        f" 95 % confidence, what other scenes{_or_trainings(found)} could give."
        f" {_setting(found)}",
        illustration=True,
    )


def maps_table(found: Found, records: Sequence[dict] = ()) -> Shown:
    """Questions 2 and 4: does the explanation point at the cause, and does it know what
    matters how much? One line a network and explanation; maps that know nothing, for
    the first network's causes, come first.
    """
    lines = []
    first = next(iter(found.values()))
    for name, title in CONTROLS.items():
        lines.append(_line("no network", title, first, name))
    for network, of_one in found.items():
        for name in of_one[0].maps:
            lines.append(_line(network, name, of_one, name))
    refused = {
        f"{name} of {network}"
        for network, of_one in found.items()
        for name in of_one[0].refused
    }
    left_out = f" Not to be had: {', '.join(sorted(refused))}." if refused else ""
    return table(
        lines,
        "Where the prediction follows a telling attribute, the changed pixels are its"
        " cause. Share of the map on the cause; how often the map's maximum is on it or"
        " near; how probably a pixel of the cause is higher than another (one half:"
        " chance), among all and among the bird's; Spearman's correlation, over all"
        " that can be changed in a picture, of the share of the map on it with what the"
        " change does to the log-odds; and how much more of the map is on the cause"
        " than of the bird's mask. In brackets, with 95 % confidence, what other"
        f" scenes{_or_trainings(found)} could give.{left_out} {_setting(found)}",
        records,
        illustration=True,
    )


def _line(network: str, title: str, found: Sequence[Scores], name: str) -> dict:
    line: dict[str, object] = {"network": network, "map": title}
    for measure, column in MEASURES.items():
        line[column] = of_maps(found, name, measure).text()
    more = "–" if name == "bird" else beyond(found, name).signed()
    line["more than the bird"] = more
    line["pictures"] = of_maps(found, name, "energy").count
    return line


def _or_trainings(found: Found) -> str:
    return _or_trainings_of(found.values())


def _or_trainings_of(each: Iterable[Sequence[Scores]]) -> str:
    return " and trainings" if min(map(len, each)) > 1 else ""


def _setting(found: Found) -> str:
    seeds = max(map(len, found.values()))
    scenes = len(next(iter(found.values()))[0].network["right"])
    return f"{counted(scenes, 'scene')}, {counted(seeds, 'training')} a network.{NOTE}"


# ---- pictures


@torch.no_grad()
def pairs_figure(
    model: Method,
    pairs: Experiment,
    explanations: dict[str, Explanation],
    names: Sequence[str],
    count: int = 3,
) -> Shown:
    """The first scenes in which a prediction follows, as they are, with the telling
    attribute changed, and lit by the maps of explanations. `names`: of the species.
    """
    logits = causal.answers(model, pairs)
    cause = causal.causes(logits, pairs)
    scenes = cause.any(1).nonzero().flatten()[:count]
    if not len(scenes):
        return sentence("In none of the scenes does the prediction follow.")
    which = cause[scenes].float().argmax(1)
    edit = pairs.telling[scenes, which]
    some = only(pairs, scenes)
    classes = logits[scenes, 0].argmax(1)
    maps = {
        name: causal.explained(model, some, explanation, classes)
        for name, explanation in explanations.items()
    }
    columns = 2 + len(maps)
    with styled():
        side = WIDTH / min(columns, ACROSS)
        lines = -(-columns // ACROSS)
        height = len(scenes) * lines * (side + 0.4)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(scenes) * lines, min(columns, ACROSS), squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for i, rows in enumerate(np.split(grid, len(scenes))):
            places = list(rows.flat)
            _pair(places[:2], some, i, int(edit[i]))
            _maps_of(places[2:], some, i, maps)
    told = [EDITS[int(k) - 1] for k in edit]
    said = [
        f"{names[int(k)]}, and with other {word} named as {names[int(s)]}."
        for k, word, s in zip(classes, told, pairs.siblings[scenes, which], strict=True)
    ]
    return figure(
        drawn,
        f"{counted(len(scenes), 'drawn bird')}, each with one attribute changed, and"
        f" lit by {', '.join(maps)}. {' '.join(said)}",
        "As it is; with one attribute of the sibling, the pixels that differ outlined:"
        " here the network names the sibling; then the first picture, lit where each"
        " map is high, each on its own scale. The first scenes in which the prediction"
        f" follows, not chosen by eye. {' '.join(said)}",
    )


def only(pairs: Experiment, scenes: Tensor) -> Experiment:
    """Some of the scenes."""
    return Experiment(**{name: v[scenes] for name, v in vars(pairs).items()})


def _pair(places: Sequence[Axes], pairs: Experiment, i: int, edit: int) -> None:
    for axes, k in zip(places, (0, edit), strict=True):
        axes.set_visible(True)
        photo(axes, pairs.images[i, k].float() / 255)
    outlined(places[1], pairs.changed[i, edit])
    titled(places[0], "unchanged")
    titled(places[1], f"other {EDITS[edit - 1]}")


def titled(axes: Axes, text: str) -> None:
    """A title that stays over its small picture."""
    axes.set_title(text.replace(" ", "\n", 1), fontsize=11, pad=3)


def outlined(axes: Axes, mask: Tensor) -> None:
    """A line round the pixels of a mask (S, S) bool; nothing for an empty one."""
    if not mask.any():
        return
    middle = np.arange(len(mask)) + 0.5
    level = mask.float().numpy()
    for colour, width in (("black", 2.4), (OKABE_ITO["yellow"], 1.2)):
        axes.contour(middle, middle, level, [0.5], colors=colour, linewidths=width)


def _maps_of(
    places: Iterable[Axes], pairs: Experiment, i: int, maps: dict[str, Tensor]
) -> None:
    for axes, (name, each) in zip(places, maps.items(), strict=False):
        axes.set_visible(True)
        photo(axes, lit(pairs.images[i, 0].float() / 255, each[i]))
        titled(axes, name)


# ---- shortcuts


def shortcut_figure(found: dict[float, list[Scores]]) -> Shown:
    """Question 3: planted share of a shortcut -> what was found of the networks. What
    they do, and how much of each explanation lies on the background.
    """
    shares = sorted(found)
    names = [
        name
        for name in found[shares[0]][0].maps
        if all(name in one.maps for each in found.values() for one in each)
    ]
    by_share = [found[share] for share in shares]
    above = {
        "named rightly": of_networks(by_share, "right"),
        "follows the attribute": of_networks(by_share, "follows"),
        "follows the background": of_networks(by_share, "planted"),
    }
    below = {
        name: estimates(
            [[one.maps[name]["ground"] for one in each] for each in by_share]
        )
        for name in names
    }
    x = [100 * share for share in shares]
    with styled():
        drawn = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        first, second = drawn.subplots(2, sharex=True)
        _lines(first, x, above, "share of the test pictures")
        _lines(second, x, below, "share of the map\non the background")
        even = of_maps(found[shares[0]], "even", "ground").mean
        second.axhline(even, color="#777777", lw=1, ls=(0, (1, 2)))
        second.set_xlabel("training pictures with the planted background, %")
        second.set_xticks(x, [f"{at:g}" for at in x], fontsize=8)  # 90 beside 100
    said = [
        f"{name}: "
        + ", ".join(f"{at:g} %: {e.text()}" for at, e in zip(x, row, strict=True))
        for name, row in {**above, **below}.items()
    ]
    return figure(
        drawn,
        f"Two panels of curves over the planted share. {'. '.join(said)}.",
        "Networks that were trained with a shortcut: in this share of the training"
        " pictures each sibling has a background of its own, in the test pictures any."
        " Above: what they do; the background is followed when another one makes the"
        " network name the sibling that goes with it. Below: the share of each map, of"
        " the class that is named, on the pixels which change with the background;"
        " dotted: an even map. Bars: 95 % intervals over"
        f" scenes{_or_trainings_of(found.values())}.{NOTE}",
    )


def shortcut_finding(found: dict[float, list[Scores]]) -> Shown:
    """Which explanations put more on the background of the same pictures where the
    network was trained with most of the shortcut, than where with least.
    """
    least, most = found[min(found)], found[max(found)]
    groups: dict[str, list[str]] = {"notice it": [], "do not, that we can tell": []}
    for name in least[0].maps:
        if name not in most[0].maps:
            continue
        change = more_ground(least, most, name)
        which = "notice it" if change.low > 0 else "do not, that we can tell"
        groups[which].append(f"{name} {change.signed()}")
    said = [
        "The background is followed in"
        f" {of_network(least, 'planted').text()} of the pictures without a shortcut,"
        f" and in {of_network(most, 'planted').text()} with the largest. Change of the"
        " share of the map on the background, of those that"
    ]
    parts = [f"{words}: {', '.join(names)}" for words, names in groups.items() if names]
    return sentence(f"{said[0]} {'; of those that '.join(parts)}.")


def _lines(axes: Axes, x: list[float], rows: dict[str, list[Estimate]], y: str) -> None:
    for k, (name, row) in enumerate(rows.items()):
        marker, line, colour = LOOKS[k % len(LOOKS)]
        place = np.array(x) + 1.2 * (k - (len(rows) - 1) / 2)
        mean = np.array([each.mean for each in row])
        ends = np.array([[each.low, each.high] for each in row])
        axes.errorbar(
            place,
            mean,
            yerr=np.abs(ends.T - mean),
            marker=marker,
            ls=line,
            color=colour,
            label=name,
            capsize=3,
        )
    axes.set(ylabel=y, ylim=(-0.03, 1.03))
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.legend(  # small, or it takes the panel's place
        ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=8.5
    )


# ---- effects


def effects_figure(found: Found) -> Shown:
    """Question 4: how far each change moves the log-odds of the class that is named, by
    network.
    """
    rows = {
        name: [
            estimate([one.effects[:, k] for one in of_one], highest=np.inf)
            for k in range(len(EDITS))
        ]
        for name, of_one in found.items()
    }
    with styled():
        drawn = Figure(figsize=(WIDTH, 6.2), layout="constrained")
        axes = drawn.subplots()
        for i, (name, row) in enumerate(rows.items()):
            marker, _, colour = LOOKS[i % len(LOOKS)]
            place = np.arange(len(EDITS)) + 0.18 * (i - (len(rows) - 1) / 2)
            mean = np.array([each.mean for each in row])
            ends = np.array([[each.low, each.high] for each in row])
            axes.errorbar(
                mean,
                place,
                xerr=np.abs(ends.T - mean),
                fmt=marker,
                color=colour,
                label=name,
                capsize=2,
                ms=5,
            )
        axes.set(
            yticks=range(len(EDITS)),
            yticklabels=EDITS,
            ylim=(len(EDITS) - 0.5, -0.5),
            xlim=(0, None),
            xlabel="change of the log-odds",
        )
        axes.grid(axis="x", color="#DDDDDD", lw=0.7)
        legend_above(axes, ncols=2)
    said = [
        f"{name}: "
        + ", ".join(f"{e} {x.mean:.2f}" for e, x in zip(EDITS, row, strict=True))
        for name, row in rows.items()
    ]
    return figure(
        drawn,
        f"Dots with bars, a line for each thing that is changed. {'. '.join(said)}.",
        "How far a change of one thing moves the log-odds of the class that is named,"
        " up or down: means over the scenes in which any pixel changes, with 95 %"
        f" intervals over scenes{_or_trainings(found)}. Perch and background tell"
        f" nothing about the species.{NOTE}",
    )


# ---- photographs


def parts_table(
    edited: dict[str, dict[str, Tensor]] | None,
    records: Sequence[dict] = (),
    illustration: bool = False,
) -> Shown:
    """What :mod:`fgbook.evaluation.part_edits` found; None: nothing yet."""
    if edited is None:
        return NOT_YET
    titles = {"deleted": "part blurred", "swapped": "part of another bird"}
    lines = []
    for name in edited["deleted"]:
        line = {"map": name}
        for edit, title in titles.items():
            line[title] = estimate([edited[edit][name]], -1.0).text()
        lines.append(line)
    both = estimate([edited["both"]["effects"]], -1.0)
    return table(
        lines,
        "Photographs: Spearman's correlation, over the visible parts of a picture, of"
        " the share of a map on the part with how far the log-odds move when the part"
        " is blurred, or exchanged for that of a bird of another class. The effects of"
        f" both edits agree with each other by {both.text()}: more cannot be asked of a"
        f" map. {counted(len(edited['both']['effects']), 'test picture')}, one"
        " network; in brackets, with 95 % confidence, what other pictures could give.",
        records,
        illustration,
    )
