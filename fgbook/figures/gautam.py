"""Tables and figures of the chapter on paper C (Gautam et al.): what each component is
worth, what it costs to compute, what damage and few images cost, and margins.

In the order of the chapter's notebooks. "The plain backbone" is the row `plain`.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..evaluation import robustness
from ..evaluation.cost import GATED, TRANSFORMERS, Cost
from ..evidence import records, verdicts
from ..evidence.verdicts import Effect
from ..images import corruptions
from ..papers import gautam
from ..papers.spec import Paper
from . import findings
from .base import (
    NOT_YET,
    OKABE_ITO,
    QUICK_NOTE,
    WIDTH,
    Shown,
    between,
    figure,
    measured,
    signed,
    signed_between,
    styled,
    table,
)
from .curves import legend_above
from .effects import draw_effect, effect_text, legend_on_top, name_effects, name_lines
from .summary import (
    accuracy,
    accuracy_cells,
    by_row,
    image_mean,
    is_quick,
    measured_where,
    of_row,
    setting,
    unchanged,
)
from .tables import recipe_table

# Field of a record -> title; all in per cent.
SCORES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ece": "calibration error",
}
PARTS = ("attention", *gautam.COMPONENTS)
# Marker, line and colour of a row; rows that are not here are not drawn.
LOOKS: dict[str, tuple[str, str | tuple, str]] = {
    "plain": ("o", "-", "ink"),
    "all": ("s", "--", "blue"),
    "attention": ("^", "-.", "orange"),
    "mixup": ("D", ":", "green"),
    "cutmix": ("v", (0, (5, 1)), "purple"),
}


def _show(
    lines: list[dict],
    empty: dict,
    caption: str,
    used: list[dict],
    quick: bool,
    says: str = "",
) -> Shown:
    """A table of these records; the line `empty` where there is no other; below it what
    it says.
    """
    note = QUICK_NOTE if quick else ""
    caption = f"{caption} {setting(used)}{note}"
    return table(lines or [empty], caption, used, illustration=quick, says=says)


# ---- ablation


def scores_table(paper: Paper, found: list[dict]) -> Shown:
    """One line a row of the ablation: accuracy with its 95 % interval; macro precision,
    recall and F1; calibration error and cross-entropy.

    All of them on the test images of records of one profile and data set, means over
    seeds. Of quick runs only the rows that were run are shown.
    """
    found = unchanged(found)
    quick = is_quick(found)
    rows = by_row(found, gautam.MAIN)
    shown = rows if quick else gautam.MAIN
    lines = []
    for name in shown:
        line = {"row": html.escape(paper.row(name).title)}
        lines.append(line | _scores_line(rows.get(name, []), found))
    return _show(
        lines,
        {"row": "–", "accuracy, measured %": "not run"},
        "Each component alone, all of them, and all but one, on the test images."
        " Precision, recall and F1 are means over classes; the calibration error is"
        " the expected one, over 15 equal bins of the confidence; for it and for"
        " cross-entropy less is better.",
        _in_main(found),
        quick,
    )


def _in_main(found: list[dict]) -> list[dict]:
    """The records of the ablation's rows."""
    return [record for record in found if record["row"] in gautam.MAIN]


def _scores_line(found: list[dict], among: list[dict]) -> dict[str, object]:
    """The numbers of one row's records, among those of all rows."""
    line: dict[str, object] = {
        "accuracy, measured %": "not run",
        "95 % interval": "–",
    }
    for title in SCORES.values():
        line[f"{title}, measured %"] = "–"
    line["cross-entropy, measured nats"] = "–"
    line["seeds"] = len(found)
    if not found:
        return line

    line["accuracy, measured %"], line["95 % interval"] = accuracy_cells(found, among)
    for field, title in SCORES.items():
        values = [record["metrics"]["test"][field] for record in found]
        score = f"{100 * np.mean(values):.1f}"
        line[f"{title}, measured %"] = measured(score, field, found)
    loss = f"{-image_mean(found, 'nll'):.2f}"
    line["cross-entropy, measured nats"] = measured(loss, "loss", found)
    return line


@dataclass(frozen=True)
class Difference:
    """The effect of one row against another, and the records that it comes from."""

    effect: Effect
    better: list[dict]
    worse: list[dict]

    def cells(self, field: str = "effect", digits: int = 1) -> tuple[str, str]:
        """The effect and its interval as HTML."""
        about, rows = self.effect, (self.better, self.worse)
        interval = signed_between(about.low, about.high, digits)
        return (
            measured(signed(about.effect, digits), field, *rows),
            measured(interval, f"{field} interval", *rows),
        )


def difference(
    found: list[dict], better: str, worse: str, metric: str = "top1"
) -> Difference | None:
    """How two rows differ; None where no record of one of them holds the metric."""
    found = unchanged(found)
    first, second = _holding(found, better, metric), _holding(found, worse, metric)
    if not first or not second:
        return None
    effect = verdicts.compare(first, second, metric, among=found)
    return Difference(effect, first, second)


def _holding(found: list[dict], row: str, metric: str) -> list[dict]:
    """The records of a row that hold the metric of each test image."""
    return [r for r in of_row(found, row) if verdicts.holds(r, metric)]


def _cells(about: Difference | None) -> tuple[str, str]:
    """A difference and its interval as cells."""
    return about.cells() if about else ("not run", "–")


def _alone(found: list[dict], part: str) -> Difference | None:
    """What a component adds to the plain backbone."""
    return difference(found, part, "plain")


def _last(found: list[dict], part: str) -> Difference | None:
    """What a component adds to all others."""
    return difference(found, "all", f"no-{part}")


def components_table(found: list[dict]) -> Shown:
    """What each component adds alone (against the plain backbone) and last (all against
    all but it), in points of accuracy with 95 % intervals.
    """
    found = unchanged(found)
    lines = []
    for part in PARTS:
        alone, its_interval = _cells(_alone(found, part))
        last, last_interval = _cells(_last(found, part))
        lines.append(
            {
                "component": part,
                "alone, measured": alone,
                "95 % interval": its_interval,
                "added to all others, measured": last,
                "its 95 % interval": last_interval,
            }
        )
    used = _in_main(found)
    return table(
        lines,
        "What a component adds in points of top-1 accuracy: to the plain backbone, and"
        " to the system that has all the others (all, minus all but it). Above zero it"
        f" helps. {setting(used)}",
        used,
        illustration=is_quick(found),
        says=" ".join(
            findings.of_effects(
                _effects({part: of(found, part) for part in PARTS}), what
            )
            for what, of in (("alone", _alone), ("added to all others", _last))
        ).strip(),
    )


def _effects(found: Mapping[str, Difference | None]) -> dict[str, Effect | None]:
    return {name: about.effect if about else None for name, about in found.items()}


def components_figure(found: list[dict]) -> Shown:
    """:func:`components_table` as a forest plot: two intervals a component."""
    alone = {part: _alone(found, part) for part in PARTS}
    last = {part: _last(found, part) for part in PARTS}
    if not any((*alone.values(), *last.values())):
        return NOT_YET

    said = []
    with styled():
        drawn = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(PARTS)))
        axes = drawn.subplots()
        for about, label, marker, colour, shift in (
            (alone, "alone: it minus plain", "o", "blue", -0.14),
            (last, "last: all minus all but it", "s", "red", 0.14),
        ):
            name_effects(axes, label, marker, colour)
            for place, (part, one) in enumerate(about.items()):
                if one:
                    draw_effect(axes, one.effect, place + shift, marker, colour)
                    which = label.partition(":")[0]
                    said.append(f"{part}, {which}: {effect_text(one.effect)}")
        name_lines(axes, list(PARTS), "difference in accuracy, percentage points")
        axes.set(ylim=(len(PARTS) - 0.5, -0.5))
        legend_on_top(axes)
    return figure(
        drawn,
        "Forest plot of what each component adds, in percentage points of accuracy."
        f" {'; '.join(said)}.",
        "What each component adds, with 95 % intervals: to the plain backbone (dots)"
        " and to all the others (squares). An interval that crosses zero leaves open"
        " whether it helps." + _note(found),
    )


def _note(found: list[dict]) -> str:
    return QUICK_NOTE if is_quick(found) else ""


def settings_table(paper: Paper) -> Shown:
    """The settings of the rows of the ablation; rows on fewer images differ from theirs
    in ``fraction`` alone.
    """
    rows = tuple(paper.row(name) for name in gautam.MAIN)
    return recipe_table(replace(paper, rows=rows))


# ---- C5: what it costs


@dataclass(frozen=True)
class Finding:
    """What measured costs say about a part of claim C5, on one machine."""

    claim: str
    outcome: str  # "holds", "does not hold", "depends", "no limit given", "not run"
    why: str


LESS = "C5 less computation than transformers"
EDGE = "C5 efficient enough for mobile and edge"


def judge_cost(found: list[Cost]) -> list[Finding]:
    """Claim C5 in two parts: less computation than transformers, and "efficient enough
    for mobile and edge".

    The first holds against a transformer when a prediction takes fewer operations and a
    smaller median of seconds; it "holds" when against all that were measured, "does not
    hold" when against none, else it "depends". For the second the paper names no limit,
    so there is only a yardstick.
    """
    by_name = {cost.name: cost for cost in found}
    ours = by_name.get(GATED)
    if ours is None:
        why = f"{GATED} was not measured."
        return [Finding(LESS, "not run", why), Finding(EDGE, "not run", why)]
    rivals = [by_name[name] for name in TRANSFORMERS if name in by_name]
    return [_judge_less(ours, rivals), _judge_edge(ours, by_name.get("mobilenet_v2"))]


def _judge_less(ours: Cost, rivals: list[Cost]) -> Finding:
    if not rivals:
        return Finding(LESS, "not run", "no transformer was measured.")
    wins = []
    for rival in rivals:
        fewer = ours.flops < rival.flops
        faster = ours.median < rival.median
        wins.append(fewer and faster)
    if all(wins):
        outcome = "holds"
    elif any(wins):
        outcome = "depends"
    else:
        outcome = "does not hold"
    return Finding(LESS, outcome, " ".join(_against(ours, rival) for rival in rivals))


def _judge_edge(ours: Cost, yardstick: Cost | None) -> Finding:
    if yardstick is None:
        why = "no network made for phones was measured."
        return Finding(EDGE, "not run", why)
    why = f"the paper names no limit. {_against(ours, yardstick)}"
    return Finding(EDGE, "no limit given", why)


def _against(ours: Cost, other: Cost) -> str:
    return (
        f"Against {other.name}: {ours.flops / other.flops:.2g} times the operations,"
        f" {ours.parameters / other.parameters:.2g} times the parameters,"
        f" {ours.median / other.median:.2g} times the time."
    )


def cost_verdict_table(found: list[Cost]) -> Shown:
    """Claim C5 and what follows from the costs."""
    lines = []
    for finding in judge_cost(found):
        key, _, text = finding.claim.partition(" ")
        lines.append(
            {
                "claim": f"<b>{key}</b> {html.escape(text)}",
                "verdict": f"<b>{html.escape(finding.outcome)}</b>",
                "why": html.escape(finding.why),
            }
        )
    return table(
        lines,
        "The claim about computation, judged by costs of the machine that ran this"
        " notebook. It holds against a transformer where both operations and time are"
        " less.",
    )


def cost_table(
    found: list[Cost], machine: dict, larger: dict[str, int] | None = None
) -> Shown:
    """Parameters, operations, memory and time of each network. `larger`: name ->
    operations at 448 pixels; `machine`: from ``records.hardware``.
    """
    lines = []
    for cost in found:
        low, high = (1000 * np.percentile(cost.seconds, q) for q in (10, 90))
        line: dict[str, object] = {
            "network": html.escape(cost.name.replace("_", " ")),
            "parameters, million": f"{cost.parameters / 1e6:.1f}",
            f"GFLOP at {cost.image_size} px": f"{cost.flops / 1e9:.2f}",
        }
        if larger:
            line["GFLOP at 448 px"] = f"{larger[cost.name] / 1e9:.1f}"
        line |= {
            "kept for the gradient, MiB": f"{cost.activations / 2**20:.0f}",
            "milliseconds, median": f"{1000 * cost.median:.0f}",
            "10th to 90th percentile": between(low, high, digits=0),
            "repeats": len(cost.seconds),
        }
        lines.append(line)
    return table(
        lines,
        "One image through each network: parameters, floating-point operations (a"
        " multiplication and an addition are two), activations that a training step"
        " keeps, and the time of a prediction. Random weights, float32. Times"
        f" {measured_where(found, machine)}.",
    )


# ---- C4: damage and few images


def damaged(found: list[dict], row: str) -> dict[str, NDArray] | None:
    """Answers of a row on damaged images: {"clean": (S, n), kind: (5, S, n)} bool, by
    seed; None where no record of it holds them.
    """
    holding = _holding(found, row, "damaged")
    if not holding:
        return None
    answers = []
    for record in sorted(holding, key=lambda record: record["seed"]):
        answers.append(robustness.answers(records.load_predictions(record)))
    return {kind: np.stack([one[kind] for one in answers], -2) for kind in answers[0]}


@dataclass(frozen=True)
class RelativeError:
    """Mean corruption error of a row in per cent of the plain backbone's, and the
    records that it comes from.
    """

    error: float
    ours: list[dict]
    plain: list[dict]


def corruption_error(found: list[dict], row: str) -> RelativeError | None:
    """The mean corruption error of a row, over all seeds of it and of the plain
    backbone; None without such, or where that makes no error on a kind of damage.
    """
    answers, of_plain = damaged(found, row), damaged(found, "plain")
    if answers is None or of_plain is None:
        return None
    for kind, right in of_plain.items():
        if kind != "clean" and right.all():
            return None  # nothing to divide by
    error = robustness.mean_corruption_error(_of_image(answers), _of_image(of_plain))
    ours, plain = (_holding(found, name, "damaged") for name in (row, "plain"))
    return RelativeError(error, ours, plain)


def _of_image(answers: dict[str, NDArray]) -> dict[str, NDArray]:
    """Share of the seeds that are right: (..., S, n) -> (..., n)."""
    return {kind: right.mean(-2) for kind, right in answers.items()}


def damage_table(paper: Paper, found: list[dict]) -> Shown:
    """Right answers under damage: shares over all kinds and by group, what damage
    costs, and the mean corruption error against the plain backbone.
    """
    columns = {"robust": "all damage"}
    for group in robustness.GROUPS:
        columns[f"robust_{group}"] = group
    columns["robust_change"] = "change by damage"

    lines: list[dict] = []
    used: list[dict] = []
    errors: dict[str, tuple[float, float]] = {}
    for name in gautam.MAIN:
        holding = _holding(found, name, "damaged")
        if not holding:
            continue
        used += holding
        line: dict[str, object] = {"row": html.escape(paper.row(name).title)}
        for field, title in columns.items():
            line[f"{title}, measured"] = _image_mean_cell(holding, field)
        about = corruption_error(found, name)
        if about and name != "plain":
            errors[paper.row(name).title] = (about.error, 100.0)
        line["mean corruption error, measured % of plain"] = _error_cell(about)
        line["seeds"] = len(holding)
        lines.append(line)

    images = 0
    if used:
        answers = robustness.answers(records.load_predictions(used[0]))
        images = answers["clean"].shape[-1]
    return _show(
        lines,
        {"row": "–", "all damage, measured": "not run"},
        f"Share of right answers on {images} test images, each damaged in twelve ways"
        " at five severities. Change: minus the share on the same images undamaged. The"
        " mean corruption error is the error relative to the plain backbone's, kind by"
        " kind; less is better.",
        used,
        is_quick(found),
        findings.of_pairs(errors, "rows under damage", "the plain backbone", True),
    )


def _image_mean_cell(found: list[dict], field: str) -> str:
    return measured(f"{image_mean(found, field):.3f}", f"mean {field}", found)


def _error_cell(about: RelativeError | None) -> str:
    if about is None:
        return "–"
    error = f"{about.error:.1f}"
    return measured(error, "corruption error", about.ours, about.plain)


def severity_figure(found: list[dict]) -> Shown:
    """Error over severity, a panel for each kind of damage."""
    curves = _answers_by_row(found)
    if not curves:
        return NOT_YET
    said = []
    with styled():
        drawn = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        grid = drawn.subplots(4, 3, sharex=True, sharey=True)
        for axes, kind in zip(grid.flat, corruptions.NAMES, strict=True):
            for row, answers in curves.items():
                errors = [100 - 100 * right.mean() for right in _levels(answers, kind)]
                _draw_errors(axes, row, errors)
                values = ", ".join(f"{error:.0f}" for error in errors)
                said.append(f"{kind}, {row}: {values}")
            axes.set_title(_spaced(kind), fontsize=11)
            axes.set(xticks=range(6), ylim=(0, 100))
            axes.tick_params(labelsize=11)
            axes.grid(axis="y", color="#DDDDDD", lw=0.7)
        drawn.supxlabel("severity (0: undamaged)", fontsize=11)
        drawn.supylabel("error, %", fontsize=11)
        drawn.legend(
            *grid.flat[-1].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(curves),
            fontsize=11,
            columnspacing=1.2,
        )
    return figure(
        drawn,
        f"Twelve panels of error in percent at severities 0 to 5. {'; '.join(said)}.",
        "Error on damaged test images by kind and severity. All rows saw the same"
        " damage on the same images." + _note(found),
    )


def _answers_by_row(found: list[dict]) -> dict[str, dict[str, NDArray]]:
    """:func:`damaged` of the rows that are drawn and were measured."""
    by_name = {}
    for row in LOOKS:
        answers = damaged(found, row)
        if answers:
            by_name[row] = answers
    return by_name


def _levels(answers: dict[str, NDArray], kind: str) -> list[NDArray]:
    """Answers at severities 0 (undamaged) to 5, each (S, n)."""
    return [answers["clean"], *answers[kind]]


def _draw_errors(axes: Axes, row: str, errors: list[float]) -> None:
    marker, line, colour = LOOKS[row]
    axes.plot(
        range(len(errors)),
        errors,
        marker=marker,
        ls=line,
        color=OKABE_ITO[colour],
        ms=4,
        lw=1.4,
        label=row,
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def kinds_figure(found: list[dict]) -> Shown:
    """For each kind of damage: right answers of each row minus the plain backbone's,
    with 95 % intervals.
    """
    against: dict[str, Difference] = {}
    for row in LOOKS:
        about = difference(found, row, "plain", "robust")
        if row != "plain" and about:
            against[row] = about
    if not against:
        return NOT_YET
    titles = {"robust": "all kinds", "robust_change": "all, minus undamaged"}
    for kind in corruptions.NAMES:
        titles[f"robust_{kind}"] = _spaced(kind)

    said = []
    with styled():
        height = 0.9 + (0.1 * len(against) + 0.15) * len(titles)
        drawn = Figure(figsize=(WIDTH, height))
        axes = drawn.subplots()
        for i, (row, about) in enumerate(against.items()):
            effects = _in_points(about, list(titles), found)
            # The rows' dots stand one below the other, round the line's middle.
            shift = (i - (len(against) - 1) / 2) * 0.8 / len(against)
            _draw_effects(axes, row, effects, shift)
            for title, effect in zip(titles.values(), effects, strict=True):
                said.append(f"{row}, {title}: {effect_text(effect)}")
        x_label = "right answers more than the plain backbone, points"
        name_lines(axes, list(titles.values()), x_label)
        axes.axhline(1.5, color="#777777", lw=0.8)  # below the two means
        axes.set(ylim=(len(titles) - 0.5, -0.5))
        legend_on_top(axes, ncols=4)
    return figure(
        drawn,
        "Dot plot of differences to the plain backbone in points of right answers"
        f" under damage. {'; '.join(said)}.",
        "Right answers under each kind of damage (mean over five severities), minus the"
        " plain backbone's, with 95 % intervals. The second line takes off what a row"
        " is better or worse at on undamaged images." + _note(found),
    )


def _in_points(
    about: Difference, metrics: list[str], among: list[dict]
) -> list[Effect]:
    """The effects on several metrics that are shares, in percentage points."""
    effects = []
    for metric in metrics:
        effect = verdicts.compare(about.better, about.worse, metric, among=among)
        effects.append(
            replace(
                effect,
                effect=100 * effect.effect,
                low=100 * effect.low,
                high=100 * effect.high,
            )
        )
    return effects


def _draw_effects(axes: Axes, row: str, effects: list[Effect], shift: float) -> None:
    """One dot with its interval a line, all of one row."""
    marker, _, colour = LOOKS[row]
    middle = [one.effect for one in effects]
    below = [one.effect - one.low for one in effects]
    above = [one.high - one.effect for one in effects]
    axes.errorbar(
        middle,
        np.arange(len(effects)) + shift,
        xerr=[below, above],
        fmt=marker,
        color=OKABE_ITO[colour],
        capsize=2,
        lw=1.4,
        ms=5,
        label=row,
    )


# Mean, low, high in per cent at each place; NaN where nothing was run.
Points = list[tuple[float, float, float]]
NOTHING = (np.nan, np.nan, np.nan)


def occlusion_figure(found: list[dict]) -> Shown:
    """Accuracy over the share of the image that is covered, with 95 % intervals."""
    points: dict[str, Points] = {}
    for row, answers in _answers_by_row(found).items():
        points[row] = [verdicts.share(right) for right in _levels(answers, "occlusion")]
    covered = [0, *(100 * level for level in corruptions.SEVERITIES["occlusion"])]
    return _curves(
        points,
        covered,
        "share of the image that is covered, %",
        "Accuracy on images of which a part is covered by grey squares, with 95 %"
        " intervals." + _note(found),
    )


def _part_rows(part: str) -> tuple[str, str]:
    """The plain backbone and the whole system on a part of the training images; empty:
    on all of them.
    """
    return (f"plain-{part}", f"all-{part}") if part else ("plain", "all")


def fractions_figure(found: list[dict]) -> Shown:
    """Accuracy over the share of the training images, plain backbone and whole system,
    with 95 % intervals.
    """
    found = unchanged(found)
    sizes = gautam.FRACTIONS | {"": 1.0}
    points: dict[str, Points] = {"plain": [], "all": []}
    for part in sizes:
        for row, name in zip(points, _part_rows(part), strict=True):
            here = of_row(found, name)
            points[row].append(accuracy(here, found) if here else NOTHING)
    run = {row: values for row, values in points.items() if np.isfinite(values).any()}
    return _curves(
        run,
        [100 * size for size in sizes.values()],
        "share of the training images, %",
        "Accuracy on all test images by the share of each class's training images, with"
        " 95 % intervals." + _note(found),
    )


def _curves(
    points: dict[str, Points], at: list[float], x_label: str, caption: str
) -> Shown:
    """A curve with intervals for each row, over the places `at`."""
    if not points:
        return NOT_YET
    with styled():
        drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = drawn.subplots()
        for i, (row, values) in enumerate(points.items()):
            # Side by side, so that intervals do not cover each other.
            shift = (i - (len(points) - 1) / 2) * 0.006 * max(at)
            _draw_intervals(axes, row, np.array(at) + shift, np.array(values))
        axes.set(
            xlabel=x_label,
            ylabel="accuracy, %",
            xticks=at,
            xticklabels=[f"{x:.0f}" for x in at],
            ylim=(0, None),
            xlim=(min(at) - 0.05 * max(at), 1.05 * max(at)),
        )
        axes.grid(axis="y", color="#DDDDDD", lw=0.7)
        legend_above(axes, ncols=5)
    said = " ".join(_say_curve(row, at, values) for row, values in points.items())
    against = x_label.removesuffix(", %")
    return figure(
        drawn, f"Curves of accuracy in percent against the {against}. {said}", caption
    )


def _draw_intervals(axes: Axes, row: str, at: NDArray, values: NDArray) -> None:
    """One curve: values (places, 3) as in :data:`Points`."""
    marker, line, colour = LOOKS[row]
    there = np.isfinite(values[:, 0])  # a line goes on over what was not run
    mean, low, high = values[there].T
    axes.errorbar(
        at[there],
        mean,
        yerr=[mean - low, high - mean],
        marker=marker,
        ls=line,
        color=OKABE_ITO[colour],
        capsize=3,
        label=row,
    )


def _say_curve(row: str, at: list[float], values: Points) -> str:
    said = []
    for x, (mean, low, high) in zip(at, values, strict=True):
        if np.isfinite(mean):
            said.append(f"{x:.0f} %: {mean:.1f} ({between(low, high)})")
    return f"{row}: {', '.join(said)}."


def fractions_table(found: list[dict]) -> Shown:
    """What the whole system adds to the plain backbone with each share of the training
    images, in points of accuracy with its 95 % interval.
    """
    found = unchanged(found)
    lines: list[dict] = []
    used: list[dict] = []
    gains: dict[str, Difference | None] = {}
    for part, size in (gautam.FRACTIONS | {"": 1.0}).items():
        plain, whole = _part_rows(part)
        line = {"share of the training images": f"{size:g}"}
        for row, name in (("plain", plain), ("all", whole)):
            here = of_row(found, name)
            used += here
            cell = accuracy_cells(here, found)[0] if here else "not run"
            line[f"{row}, measured %"] = cell
        about = difference(found, whole, plain)
        gains[f"{size:g} of the images"] = about
        gain, interval = _cells(about)
        line["all minus plain, measured"] = gain
        line["95 % interval"] = interval
        lines.append(line)
    return _show(
        lines,
        {},
        "Accuracy with fewer training images. Schedules are in epochs, so fewer images"
        " are fewer steps as well.",
        used,
        is_quick(found),
        findings.of_effects(_effects(gains), "what the system adds"),
    )


# ---- C3: margins

DISTANCES = {
    "inter": "between classes",
    "intra": "within",
    "ratio": "between over within",
}


def margins_table(paper: Paper, found: list[dict]) -> Shown:
    """Distances between and within classes of the test images' embeddings, the margin
    of an image, and its difference to the plain backbone.
    """
    lines: list[dict] = []
    used: list[dict] = []
    gains: dict[str, Difference | None] = {}
    for name in gautam.MAIN:
        holding = []
        for record in _holding(found, name, "margin"):
            if "classes" in record["metrics"]:
                holding.append(record)
        if not holding:
            continue
        used += holding
        line: dict[str, object] = {"row": html.escape(paper.row(name).title)}
        for field, title in DISTANCES.items():
            line[f"{title}, measured"] = _distance_cell(holding, field)
        line["margin, measured"] = _image_mean_cell(holding, "margin")
        gain = interval = "–"
        if name != "plain":
            about = difference(found, name, "plain", "margin")
            gains[paper.row(name).title] = about
            if about:
                gain, interval = about.cells("effect margin", digits=3)
        line["margin minus plain's, measured"] = gain
        line["95 % interval"] = interval
        line["seeds"] = len(holding)
        lines.append(line)
    return _show(
        lines,
        {"row": "–", "between classes, measured": "not run"},
        "Distances of the test images' embeddings, which have length 1: between the"
        " means of classes, from an image to the mean of the others of its class, and"
        " their ratio. The margin of an image is log2 of the distance to the nearest"
        " other class over that to its own: 1 more is twice as clear.",
        used,
        is_quick(found),
        findings.of_effects(_effects(gains), "margin minus the plain backbone's"),
    )


def _distance_cell(found: list[dict], field: str) -> str:
    values = [record["metrics"]["classes"][field] for record in found]
    if None in values:
        return "–"  # a ratio is None where all embeddings are one
    return measured(f"{np.mean(values):.3f}", f"classes {field}", found)
