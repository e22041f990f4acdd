"""Tables and figures of the chapter on paper C (Gautam et al.): what each component is
worth, what damage and few images cost, what it costs to compute."""

import html
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..evaluation import robustness
from ..evaluation.cost import GATED, TRANSFORMERS, Cost
from ..evidence import records, verdicts
from ..images import corruptions
from ..papers import gautam
from ..papers.spec import Paper
from . import (
    OKABE_ITO,
    QUICK_NOTE,
    STYLE,
    WIDTH,
    Shown,
    accuracy,
    figure,
    hardware,
    measured,
    recipe_table,
    setting,
    share,
    table,
)

# field of a record -> title, all in per cent
SCORES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ece": "calibration error",
}
PARTS = ("attention", *gautam.COMPONENTS)
# Marker, line and colour of a row; rows that are not here are not drawn.
LOOKS = {
    "plain": ("o", "-", "black"),
    "all": ("s", "--", "blue"),
    "attention": ("^", "-.", "orange"),
    "mixup": ("D", ":", "green"),
    "cutmix": ("v", (0, (5, 1)), "purple"),
}
NOT_YET = Shown("<p>Not run yet.</p>", "Not run yet.")


def _row(found: list[dict], name: str) -> list[dict]:
    return [r for r in found if r["row"] == name]


def _quick(found: list[dict]) -> bool:
    return any(r["profile"] == "quick" for r in found)


# ---- ablation


def scores_table(paper: Paper, found: list[dict]) -> Shown:
    """One line a row of the ablation: accuracy with its 95 % interval; macro precision,
        recall and F1; calibration error and cross-entropy.

    All of them on the test images of records of one profile and data set, means over
    seeds. Of quick runs only the rows that were run are shown.
    """
    lines, used = [], [r for r in found if r["row"] in gautam.MAIN]
    for name in gautam.MAIN:
        of_row = _row(used, name)
        if not of_row and _quick(found):
            continue
        line = {
            "row": html.escape(paper.row(name).title),
            "accuracy, measured %": "not run",
            "95 % interval": "–",
        }
        line |= {f"{title}, measured %": "–" for title in SCORES.values()} | {
            "cross-entropy, measured nats": "–",
            "seeds": len(of_row),
        }
        if of_row:
            mean, low, high = accuracy(of_row)
            line["accuracy, measured %"] = measured(f"{mean:.1f}", "top1", of_row)
            line["95 % interval"] = measured(
                f"{low:.1f} to {high:.1f}", "top1 interval", of_row
            )
            for field, title in SCORES.items():
                line[f"{title}, measured %"] = measured(
                    f"{100 * np.mean([r['metrics']['test'][field] for r in of_row]):.1f}",
                    field,
                    of_row,
                )
            loss = -np.mean([verdicts.per_image(r, "nll").mean() for r in of_row])
            line["cross-entropy, measured nats"] = measured(
                f"{loss:.2f}", "loss", of_row
            )
        lines.append(line)
    lines = lines or [{"row": "–", "accuracy, measured %": "not run"}]
    what = (
        "Each component alone, all of them, and all but one, on the test images."
        " Precision, recall and F1 are means over classes; the calibration error is"
        " the expected one, over 15 equal bins of the confidence; for it and for"
        f" cross-entropy less is better. {setting(used)}"
    )
    return table(
        lines,
        what + (QUICK_NOTE if _quick(found) else ""),
        used,
        illustration=_quick(found),
    )


def _effect(
    found: list[dict], better: str, worse: str, metric: str = "top1"
) -> tuple[verdicts.Effect, list[dict], list[dict]] | None:
    """The effect and the records that it comes from; None where the two rows share no
    seed that holds the metric."""
    rows = [
        [r for r in _row(found, name) if verdicts.holds(r, metric)]
        for name in (better, worse)
    ]
    shared = {r["seed"] for r in rows[0]} & {r["seed"] for r in rows[1]}
    if not shared:
        return None
    first, second = ([r for r in of_row if r["seed"] in shared] for of_row in rows)
    return verdicts.compare(first, second, metric), first, second


def _cells(
    about: tuple | None, field: str = "effect", digits: int = 1
) -> tuple[str, str]:
    """An effect and its interval as cells."""
    if about is None:
        return "not run", "–"
    effect, *both = about
    return (
        measured(f"{effect.effect:+.{digits}f}", field, *both),
        measured(
            f"{effect.low:+.{digits}f} to {effect.high:+.{digits}f}",
            f"{field} interval",
            *both,
        ),
    )


def _contributions(found: list[dict]) -> dict[str, tuple[tuple | None, tuple | None]]:
    """Component -> what it adds to the plain backbone, what it adds to all others."""
    return {
        name: (_effect(found, name, "plain"), _effect(found, "all", f"no-{name}"))
        for name in PARTS
    }


def components_table(found: list[dict]) -> Shown:
    """What each component adds alone (against the plain backbone) and last (all against
    all but it), in points of accuracy with 95 % intervals."""
    lines = []
    for name, (alone, last) in _contributions(found).items():
        line = {"component": name}
        line["alone, measured"], line["95 % interval"] = _cells(alone)
        line["added to all others, measured"], line["its 95 % interval"] = _cells(last)
        lines.append(line)
    used = [r for r in found if r["row"] in gautam.MAIN]
    return table(
        lines,
        "What a component adds in points of top-1 accuracy: to the plain backbone, and"
        " to the system that has all the others (all, minus all but it). Above zero it"
        f" helps. {setting(used)}",
        used,
        illustration=_quick(found),
    )


def components_figure(found: list[dict]) -> Shown:
    """:func:`components_table` as a forest plot: two intervals a component."""
    about = _contributions(found)
    ways = (
        ("alone: it minus plain", "o", "blue", -0.14),
        ("last: all minus all but it", "s", "red", 0.14),
    )
    if not any(pair != (None, None) for pair in about.values()):
        return NOT_YET
    said = []
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(about)))
        axes = drawn.subplots()
        for i, (label, marker, colour, shift) in enumerate(ways):
            axes.errorbar(
                [],
                [],
                xerr=[],
                fmt=marker,
                color=OKABE_ITO[colour],
                capsize=4,
                lw=2,
                label=label,
            )
            for place, (name, pair) in enumerate(about.items()):
                if pair[i] is not None:
                    effect = pair[i][0]
                    axes.errorbar(
                        effect.effect,
                        place + shift,
                        xerr=[
                            [effect.effect - effect.low],
                            [effect.high - effect.effect],
                        ],
                        fmt=marker,
                        color=OKABE_ITO[colour],
                        capsize=4,
                        lw=2,
                    )
                    said.append(
                        f"{name}, {label.partition(':')[0]}: {effect.effect:+.1f}"
                        f" ({effect.low:+.1f} to {effect.high:+.1f})"
                    )
        axes.axvline(0, color="black", lw=1)
        axes.set(
            ylim=(len(about) - 0.5, -0.5),
            yticks=range(len(about)),
            yticklabels=list(about),
            xlabel="difference in accuracy, percentage points",
        )
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.4, 1.0),
            ncols=2,
            fontsize=10,
            handletextpad=0.3,
            columnspacing=1.2,
        )
    return figure(
        drawn,
        "Forest plot of what each component adds, in percentage points of accuracy."
        f" {'; '.join(said)}.",
        "What each component adds, with 95 % intervals: to the plain backbone (dots)"
        " and to all the others (squares). An interval that crosses zero leaves open"
        " whether it helps." + (QUICK_NOTE if _quick(found) else ""),
    )


def settings_table(paper: Paper) -> Shown:
    """The settings of the rows of the ablation; rows on fewer images differ from theirs
    in ``fraction`` alone."""
    return recipe_table(
        replace(paper, rows=tuple(paper.row(name) for name in gautam.MAIN))
    )


# ---- C5: what it costs


@dataclass(frozen=True)
class Finding:
    """What measured costs say about a part of claim C5, on one machine."""

    claim: str
    outcome: str  # "holds", "does not hold", "depends", "no limit given", "not run"
    why: str


def judge_cost(found: list[Cost]) -> list[Finding]:
    """Claim C5 in two parts: less computation than transformers, and "efficient enough
        for mobile and edge".

    The first holds against a transformer when a prediction takes fewer operations and a
    smaller median of seconds; it "holds" when against all that were measured, "does not
    hold" when against none, else it "depends". For the second the paper names no limit,
    so there is only a yardstick.
    """
    by_name = {cost.name: cost for cost in found}
    ours, rivals = (
        by_name.get(GATED),
        [by_name[name] for name in TRANSFORMERS if name in by_name],
    )
    less, edge = (
        "C5 less computation than transformers",
        "C5 efficient enough for mobile and edge",
    )
    if ours is None:
        return [
            Finding(claim, "not run", f"{GATED} was not measured.")
            for claim in (less, edge)
        ]
    findings = []
    if rivals:
        wins = [
            ours.flops < rival.flops and ours.median < rival.median for rival in rivals
        ]
        outcome = "holds" if all(wins) else "depends" if any(wins) else "does not hold"
        findings.append(Finding(less, outcome, _against(ours, rivals)))
    else:
        findings.append(Finding(less, "not run", "no transformer was measured."))
    if "mobilenet_v2" in by_name:
        findings.append(
            Finding(
                edge,
                "no limit given",
                "the paper names no limit."
                f" {_against(ours, [by_name['mobilenet_v2']])}",
            )
        )
    else:
        findings.append(
            Finding(edge, "not run", "no network made for phones was measured.")
        )
    return findings


def _against(ours: Cost, others: list[Cost]) -> str:
    return " ".join(
        f"Against {other.name}: {ours.flops / other.flops:.2g} times the operations,"
        f" {ours.parameters / other.parameters:.2g} times the parameters,"
        f" {ours.median / other.median:.2g} times the time."
        for other in others
    )


def cost_verdict_table(found: list[Cost]) -> Shown:
    """Claim C5 and what follows from the costs."""
    lines = [
        {
            "claim": (
                f"<b>{one.claim.partition(' ')[0]}</b>"
                f" {html.escape(one.claim.partition(' ')[2])}"
            ),
            "verdict": f"<b>{html.escape(one.outcome)}</b>",
            "why": html.escape(one.why),
        }
        for one in judge_cost(found)
    ]
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
    operations at 448 pixels; `machine`: from ``records.hardware``."""
    lines = []
    for cost in found:
        low, high = (1000 * np.percentile(cost.seconds, q) for q in (10, 90))
        lines.append(
            {
                "network": html.escape(cost.name.replace("_", " ")),
                "parameters, million": f"{cost.parameters / 1e6:.1f}",
                f"GFLOP at {cost.image_size} px": f"{cost.flops / 1e9:.2f}",
                **(
                    {"GFLOP at 448 px": f"{larger[cost.name] / 1e9:.1f}"}
                    if larger
                    else {}
                ),
                "kept for the gradient, MiB": f"{cost.activations / 2**20:.0f}",
                "milliseconds, median": f"{1000 * cost.median:.0f}",
                "10th to 90th percentile": f"{low:.0f} to {high:.0f}",
                "repeats": len(cost.seconds),
            }
        )
    threads = " / ".join(dict.fromkeys(str(cost.threads) for cost in found))
    return table(
        lines,
        "One image through each network: parameters, floating-point operations (a"
        " multiplication and an addition are two), activations that a training step"
        " keeps, and the time of a prediction. Random weights, float32. Times measured"
        f" by the notebook that drew this: {hardware({'hardware': machine})}, torch"
        f" with {threads} thread{'s' * (threads != '1')}.",
    )


# ---- C4: damage and few images


def damaged(
    found: list[dict], row: str, seeds: set[int] | None = None
) -> dict[str, np.ndarray] | None:
    """Answers of a row on damaged images: {"clean": (S, n), kind: (5, S, n)} bool, by
    seed; None where no record of it holds them."""
    of_row = [
        r
        for r in _row(found, row)
        if verdicts.holds(r, "damaged") and (seeds is None or r["seed"] in seeds)
    ]
    answers = [
        robustness.answers(records.load_predictions(r))
        for r in sorted(of_row, key=lambda r: r["seed"])
    ]
    return (
        {kind: np.stack([one[kind] for one in answers], -2) for kind in answers[0]}
        if answers
        else None
    )


def corruption_error(
    found: list[dict], row: str
) -> tuple[float, list[dict], list[dict]] | None:
    """Mean corruption error of a row in per cent of the plain backbone's, over the
    seeds that both have; and the records of both. None without such."""
    both = [
        [r for r in _row(found, name) if verdicts.holds(r, "damaged")]
        for name in (row, "plain")
    ]
    seeds = {r["seed"] for r in both[0]} & {r["seed"] for r in both[1]}
    if not seeds:
        return None
    flat = [
        {
            kind: right.reshape(*right.shape[:-2], -1)
            for kind, right in damaged(found, name, seeds).items()
        }
        for name in (row, "plain")
    ]
    if any(right.all() for kind, right in flat[1].items() if kind != "clean"):
        return None  # the plain backbone makes no error there
    return robustness.mean_corruption_error(*flat), *(
        [r for r in of_row if r["seed"] in seeds] for of_row in both
    )


def damage_table(paper: Paper, found: list[dict]) -> Shown:
    """Right answers under damage: shares over all kinds and by group, what damage
    costs, and the mean corruption error against the plain backbone."""
    columns = {
        "robust": "all damage",
        **{f"robust_{group}": group for group in robustness.GROUPS},
        "robust_change": "change by damage",
    }
    lines, used = [], []
    for name in gautam.MAIN:
        of_row = [r for r in _row(found, name) if verdicts.holds(r, "damaged")]
        if not of_row:
            continue
        used += of_row
        line = {"row": html.escape(paper.row(name).title)}
        for field, title in columns.items():
            line[f"{title}, measured"] = measured(
                f"{np.mean([np.nanmean(verdicts.per_image(r, field), dtype=float) for r in of_row]):.3f}",
                f"mean {field}",
                of_row,
            )
        error = corruption_error(found, name)
        line["mean corruption error, measured % of plain"] = (
            measured(f"{error[0]:.1f}", "corruption error", *error[1:])
            if error
            else "–"
        )
        lines.append(line | {"seeds": len(of_row)})
    lines = lines or [{"row": "–", "all damage, measured": "not run"}]
    count = len(next(iter(damaged(used, used[0]["row"]).values()))[0]) if used else 0
    what = (
        f"Share of right answers on {count} test images, each damaged in twelve ways at"
        " five severities. Change: minus the share on the same images undamaged. The"
        " mean corruption error is the error relative to the plain backbone's, kind by"
        f" kind; less is better. {setting(used)}"
    )
    return table(
        lines,
        what + (QUICK_NOTE if _quick(found) else ""),
        used,
        illustration=_quick(found),
    )


def severity_figure(found: list[dict]) -> Shown:
    """Error over severity, a panel for each kind of damage."""
    curves = {row: answers for row in LOOKS if (answers := damaged(found, row))}
    if not curves:
        return NOT_YET
    said = []
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        for axes, kind in zip(
            drawn.subplots(4, 3, sharex=True, sharey=True).flat,
            corruptions.NAMES,
            strict=True,
        ):
            for row, answers in curves.items():
                marker, line, colour = LOOKS[row]
                error = [
                    100 - 100 * right.mean()
                    for right in (answers["clean"], *answers[kind])
                ]
                axes.plot(
                    range(6),
                    error,
                    marker=marker,
                    ls=line,
                    color=OKABE_ITO[colour],
                    ms=4,
                    lw=1.4,
                    label=row,
                )
                said.append(
                    f"{kind}, {row}: " + ", ".join(f"{value:.0f}" for value in error)
                )
            axes.set_title(kind.replace("_", " "), fontsize=10)
            axes.set(xticks=range(6), ylim=(0, 100))
            axes.tick_params(labelsize=9.5)
            axes.grid(axis="y", color="#DDDDDD", lw=0.7)
        drawn.supxlabel("severity (0: undamaged)", fontsize=11)
        drawn.supylabel("error, %", fontsize=11)
        drawn.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(curves),
            fontsize=10,
            columnspacing=1.2,
        )
    return figure(
        drawn,
        f"Twelve panels of error in percent at severities 0 to 5. {'; '.join(said)}.",
        "Error on damaged test images by kind and severity. All rows saw the same"
        " damage on the same images." + (QUICK_NOTE if _quick(found) else ""),
    )


def kinds_figure(found: list[dict]) -> Shown:
    """For each kind of damage: right answers of each row minus the plain backbone's,
    with 95 % intervals."""
    rows = [
        row
        for row in LOOKS
        if row != "plain" and _effect(found, row, "plain", "robust")
    ]
    if not rows:
        return NOT_YET
    said, metrics = (
        [],
        {
            "robust": "all kinds",
            "robust_change": "all, minus undamaged",
        }
        | {f"robust_{kind}": kind.replace("_", " ") for kind in corruptions.NAMES},
    )
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.9 + (0.1 * len(rows) + 0.15) * len(metrics)))
        axes = drawn.subplots()
        for i, row in enumerate(rows):
            marker, _, colour = LOOKS[row]
            # once, not for each kind
            kept = [
                [records.load_predictions(r) for r in of_row]
                for of_row in _effect(found, row, "plain", "robust")[1:]
            ]
            effects = [
                verdicts.compare(
                    *(np.stack([one[metric] for one in of_row]) for of_row in kept)
                )
                for metric in metrics
            ]
            values = 100 * np.array(
                [(e.effect, e.effect - e.low, e.high - e.effect) for e in effects]
            )
            at = np.arange(len(metrics)) + (i - (len(rows) - 1) / 2) * 0.8 / len(rows)
            axes.errorbar(
                values[:, 0],
                at,
                xerr=values[:, 1:].T,
                fmt=marker,
                color=OKABE_ITO[colour],
                capsize=2,
                lw=1.4,
                ms=5,
                label=row,
            )
            said += [
                f"{row}, {title}: {value:+.1f} ({value - low:+.1f} to"
                f" {value + high:+.1f})"
                for title, (value, low, high) in zip(
                    metrics.values(), values, strict=True
                )
            ]
        axes.axvline(0, color="black", lw=1)
        axes.axhline(1.5, color="#777777", lw=0.8)
        axes.set(
            ylim=(len(metrics) - 0.5, -0.5),
            yticks=range(len(metrics)),
            yticklabels=list(metrics.values()),
            xlabel="right answers more than the plain backbone, points",
        )
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.4, 1.0),
            ncols=4,
            fontsize=10,
            handletextpad=0.3,
            columnspacing=1.2,
        )
    return figure(
        drawn,
        "Dot plot of differences to the plain backbone in points of right answers"
        f" under damage. {'; '.join(said)}.",
        "Right answers under each kind of damage (mean over five severities), minus the"
        " plain backbone's, with 95 % intervals. The second line takes off what a row"
        " is better or worse at on undamaged images."
        + (QUICK_NOTE if _quick(found) else ""),
    )


def occlusion_figure(found: list[dict]) -> Shown:
    """Accuracy over the share of the image that is covered, with 95 % intervals."""
    curves = {row: answers for row in LOOKS if (answers := damaged(found, row))}
    points = {
        row: [share(right) for right in (answers["clean"], *answers["occlusion"])]
        for row, answers in curves.items()
    }
    at = [0, *(100 * level for level in corruptions.SEVERITIES["occlusion"])]
    return _curves(
        points,
        at,
        "share of the image that is covered, %",
        "Accuracy on images of which a part is covered by grey squares, with 95 %"
        " intervals.",
        _quick(found),
    )


def fractions_figure(found: list[dict]) -> Shown:
    """Accuracy over the share of the training images, plain backbone and whole system,
    with 95 % intervals."""
    shares = {size: part for part, size in gautam.FRACTIONS.items()} | {1.0: ""}
    points: dict[str, list] = {}
    for row in ("plain", "all"):
        points[row] = [
            (
                accuracy(of_row)
                if (of_row := _row(found, f"{row}-{part}".strip("-")))
                else (np.nan,) * 3
            )
            for part in shares.values()
        ]
    points = {
        row: values for row, values in points.items() if np.isfinite(values).any()
    }
    return _curves(
        points,
        [100 * value for value in shares],
        "share of the training images, %",
        "Accuracy on all test images by the share of each class's training images, with"
        " 95 % intervals.",
        _quick(found),
    )


def _curves(
    points: dict[str, list[tuple[float, float, float]]],
    at: list[float],
    x_label: str,
    caption: str,
    quick: bool,
) -> Shown:
    """Curves with intervals: row -> (mean, low, high) in per cent at each place, NaN
    where there is none."""
    if not points:
        return NOT_YET
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = drawn.subplots()
        for i, (row, values) in enumerate(points.items()):
            marker, line, colour = LOOKS[row]
            mean, low, high = np.array(values).T
            there = np.isfinite(mean)  # so that a line goes on over what was not run
            # side by side
            x = np.array(at)[there] + (i - (len(points) - 1) / 2) * 0.006 * max(at)
            axes.errorbar(
                x,
                mean[there],
                yerr=[(mean - low)[there], (high - mean)[there]],
                marker=marker,
                ls=line,
                color=OKABE_ITO[colour],
                capsize=3,
                label=row,
            )
        axes.set(
            xlabel=x_label,
            ylabel="accuracy, %",
            xticks=at,
            xticklabels=[f"{x:.0f}" for x in at],
            ylim=(0, None),
            xlim=(min(at) - 0.05 * max(at), 1.05 * max(at)),
        )
        axes.grid(axis="y", color="#DDDDDD", lw=0.7)
        axes.legend(
            ncols=5,
            fontsize=10,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            columnspacing=1.2,
        )
    said = " ".join(
        f"{row}: "
        + ", ".join(
            f"{x:.0f} %: {mean:.1f} ({low:.1f} to {high:.1f})"
            for x, (mean, low, high) in zip(at, values, strict=True)
            if np.isfinite(mean)
        )
        + "."
        for row, values in points.items()
    )
    return figure(
        drawn,
        f"Curves of accuracy in percent against the {x_label.removesuffix(', %')}."
        f" {said}",
        caption + (QUICK_NOTE if quick else ""),
    )


def fractions_table(found: list[dict]) -> Shown:
    """What the whole system adds to the plain backbone with each share of the training
    images, in points of accuracy with its 95 % interval."""
    lines, used = [], []
    for part, size in (*gautam.FRACTIONS.items(), ("", 1.0)):
        names = [f"{row}-{part}".strip("-") for row in ("plain", "all")]
        of_rows = [_row(found, name) for name in names]
        line = {"share of the training images": f"{size:g}"}
        for row, of_row in zip(("plain", "all"), of_rows, strict=True):
            line[f"{row}, measured %"] = (
                measured(f"{accuracy(of_row)[0]:.1f}", "top1", of_row)
                if of_row
                else "not run"
            )
        line["all minus plain, measured"], line["95 % interval"] = _cells(
            _effect(found, *names[::-1])
        )
        used += of_rows[0] + of_rows[1]
        lines.append(line)
    what = (
        "Accuracy with fewer training images. Schedules are in epochs, so fewer images"
        " are fewer steps as well. " + setting(used)
    )
    return table(
        lines,
        what + (QUICK_NOTE if _quick(found) else ""),
        used,
        illustration=_quick(found),
    )


# ---- C3: margins


def margins_table(paper: Paper, found: list[dict]) -> Shown:
    """Distances between and within classes of the test images' embeddings, the margin
    of an image, and its difference to the plain backbone."""
    lines, used = [], []
    for name in gautam.MAIN:
        of_row = [
            r
            for r in _row(found, name)
            if verdicts.holds(r, "margin") and "classes" in r["metrics"]
        ]
        if not of_row:
            continue
        used += of_row
        line = {"row": html.escape(paper.row(name).title)}
        for field, title in (
            ("inter", "between classes"),
            ("intra", "within"),
            ("ratio", "between over within"),
        ):
            # a ratio is None where all embeddings are one
            values = [r["metrics"]["classes"][field] for r in of_row]
            line[f"{title}, measured"] = (
                "–"
                if None in values
                else measured(f"{np.mean(values):.3f}", f"classes {field}", of_row)
            )
        line["margin, measured"] = measured(
            f"{np.mean([np.nanmean(verdicts.per_image(r, 'margin'), dtype=float) for r in of_row]):.3f}",
            "mean margin",
            of_row,
        )
        against = None if name == "plain" else _effect(found, name, "plain", "margin")
        line["margin minus plain's, measured"], line["95 % interval"] = (
            _cells(against, "effect margin", 3) if against else ("–", "–")
        )
        lines.append(line | {"seeds": len(of_row)})
    lines = lines or [{"row": "–", "between classes, measured": "not run"}]
    what = (
        "Distances of the test images' embeddings, which have length 1: between the"
        " means of classes, from an image to the mean of the others of its class, and"
        " their ratio. The margin of an image is log2 of the distance to the nearest"
        f" other class over that to its own: 1 more is twice as clear. {setting(used)}"
    )
    return table(
        lines,
        what + (QUICK_NOTE if _quick(found) else ""),
        used,
        illustration=_quick(found),
    )
