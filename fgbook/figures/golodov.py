"""Figures and tables of the chapter on paper A (Golodov et al. 2018): losses, what
pretraining is worth, and where the time goes."""

import html
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..evaluation.latency import STAGES, Latency
from ..evidence import records, verdicts
from ..papers.golodov import PRINTED_LOSS
from . import (
    OKABE_ITO,
    STYLE,
    WIDTH,
    Shown,
    accuracy,
    figure,
    hardware,
    measured,
    setting,
    table,
)

SEEN = {  # (data set, row) -> what the trunk saw before
    ("imagewoof10", "gap"): "nothing: trained from scratch",
    ("imagewoof10", "linear"): (
        "ImageNet, in which these breeds are classes and most of these photographs are"
        " training images"
    ),
    (
        "imagewoof10",
        "linear-birds",
    ): "birds of iNaturalist: other photographs of other animals",
    ("imagewoof10", "plain"): "as for ImageNet; then the training images, end to end",
    ("cub50", "gap"): "nothing: trained from scratch",
    (
        "cub50",
        "linear",
    ): "ImageNet: other photographs, some bird species among a thousand classes",
    ("cub50", "linear-birds"): (
        "birds of iNaturalist: other photographs, at least 37 of the 50 species as"
        " classes"
    ),
    ("cub50", "plain"): "as for ImageNet; then the training images, end to end",
}
KINDS = {
    "gap": "from scratch",
    "linear": "frozen, ImageNet",
    "linear-birds": "frozen, iNaturalist birds",
    "plain": "fine-tuned, ImageNet",
}


def loss_table(paper, found: list[dict]) -> Shown:
    """Cross-entropy on the test images (nats; smaller is better) of the rows on frozen
    features, beside the losses that the paper prints (on validation)."""
    lines, quick = [], any(r["profile"] == "quick" for r in found)
    for row in paper.rows:
        of_row = [r for r in found if r["row"] == row.name]
        if row.method == "transfer" and of_row:
            line = {"row": html.escape(row.title)}
            if not quick:
                line["printed loss"] = (
                    f"{PRINTED_LOSS[row.name]:.2f}" if row.name in PRINTED_LOSS else "–"
                )
            loss = np.concatenate([verdicts.per_image(r, "nll") for r in of_row])
            lines.append(
                line
                | {
                    "measured loss": measured(f"{-loss.mean():.2f}", "loss", of_row),
                    "seeds": len(of_row),
                }
            )
    lines = lines or [{"row": "–", "measured loss": "not run", "seeds": 0}]
    return table(
        lines,
        "Cross-entropy in nats: printed on validation images, measured on test images."
        f" {setting(found)}",
        found,
        illustration=quick,
    )


def pretraining_table(found: list[dict]) -> Shown:
    """What a trunk had seen, and what that is worth: accuracy, and the difference to
    the network from scratch on the same test images. Several data sets."""
    lines = []
    for (dataset, row), seen in SEEN.items():
        here, scratch = (
            records.select(found, dataset=dataset, row=name) for name in (row, "gap")
        )
        if here:
            mean, low, high = accuracy(here)
            line = {
                "data set": dataset,
                "network": KINDS[row],
                "what the trunk had seen": seen,
                "measured, %": measured(f"{mean:.1f}", "top1", here),
                "95 % interval": measured(
                    f"{low:.1f} to {high:.1f}", "top1 interval", here
                ),
            }
            shared = {r["seed"] for r in here} & {r["seed"] for r in scratch}
            if shared and row != "gap":
                effect = verdicts.compare(here, scratch)
                both = [
                    [r for r in rows if r["seed"] in shared] for rows in (here, scratch)
                ]
                line["measured gain over scratch"] = measured(
                    f"{effect.effect:+.1f}", "effect", *both
                )
            else:
                line["measured gain over scratch"] = "–"
            lines.append(line)
    lines = lines or [
        {
            "data set": "–",
            "network": "–",
            "what the trunk had seen": "–",
            "measured, %": "not run",
        }
    ]
    used = [r for r in found if (r["dataset"], r["row"]) in SEEN]
    return table(
        lines,
        f"What pretraining is worth, by what the trunk had seen. {setting(used)}",
        used,
    )


def pretraining_figure(found: list[dict]) -> Shown:
    """The accuracies of :func:`pretraining_table` with their 95 % intervals, one line a
    network, one panel a data set."""
    by_set = {
        name: {
            row: rows
            for row in KINDS
            if (rows := records.select(found, dataset=name, row=row))
        }
        for name in ("imagewoof10", "cub50")
    }
    by_set = {name: rows for name, rows in by_set.items() if rows}
    if not by_set:
        return Shown(
            "<p>No published runs to compare yet.</p>",
            "No published runs to compare yet.",
        )
    marks = dict(
        zip(
            KINDS,
            (("o", "black"), ("s", "blue"), ("^", "orange"), ("D", "green")),
            strict=True,
        )
    )
    said = []
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.5 + 1.55 * len(by_set)), layout="constrained")
        for axes, (name, rows) in zip(
            drawn.subplots(len(by_set), sharex=True, squeeze=False).flat,
            by_set.items(),
            strict=True,
        ):
            for place, (row, of_row) in enumerate(rows.items()):
                mean, low, high = accuracy(of_row)
                marker, colour = marks[row]
                axes.errorbar(
                    mean,
                    place,
                    xerr=[[mean - low], [high - mean]],
                    fmt=marker,
                    color=OKABE_ITO[colour],
                    capsize=4,
                    lw=2,
                )
                axes.annotate(
                    f"{mean:.1f}",
                    (mean, place),
                    (0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
                said.append(
                    f"{name}, {KINDS[row]}: {mean:.1f} ({low:.1f} to {high:.1f})"
                )
            axes.set(
                ylim=(len(rows) - 0.4, -0.7),
                yticks=range(len(rows)),
                yticklabels=[KINDS[row] for row in rows],
                title=name,
                xlim=(0, 100),
            )
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="#DDDDDD", lw=0.7)
            axes.set_axisbelow(True)
        axes.set_xlabel("test accuracy, %")
    return figure(
        drawn,
        "Dot plots of test accuracy in percent with 95 % intervals."
        f" {'; '.join(said)}.",
        "What a trunk had seen before decides most. On the dogs, ImageNet had most of"
        " the photographs themselves; on the birds, iNaturalist had most of the"
        " species. The two data sets also differ in their numbers of classes and"
        " images.",
    )


# ---- latency


@dataclass(frozen=True)
class Speed:
    """The verdict on claim A5, "recognition takes one to two minutes an image", on one
    machine."""

    outcome: str  # "holds", "does not hold", "not run"
    why: str


def speed(
    found: list[Latency], backbone: str = "inception_v3", cold: float | None = None
) -> Speed:
    """Judge A5 by the time from file to prediction of one image (batch 1), nine repeats
    of ten; with `cold` seconds, also by a program's start."""
    alone = [one for one in found if one.name == backbone and one.batch == 1]
    if not alone:
        return Speed("not run", f"{backbone} was not timed with single images.")
    median, _, high = alone[0].per_image()
    slowest = max(high, cold or 0.0)
    said = (
        f"from file to prediction {_time(median)} (median; nine of ten within"
        f" {_time(high)})"
        + (f", {_time(cold)} with the start of the program" if cold else "")
    )
    if slowest < 60:
        return Speed(
            "does not hold",
            (
                f"{said}: far from a minute on this machine."
                if slowest < 30
                else f"{said}: less than a minute on this machine."
            ),
        )
    return Speed("holds", f"{said}: a minute or more on this machine.")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def speed_table(verdict: Speed) -> Shown:
    """Claim A5 and its verdict in one line."""
    return table(
        [
            {
                "claim": "<b>A5</b> recognition takes one to two minutes an image",
                "verdict": f"<b>{html.escape(verdict.outcome)}</b>",
                "why": html.escape(verdict.why),
            }
        ],
        "The claim about speed, judged by times measured on the machine that ran this"
        " notebook.",
    )


def latency_table(found: list[Latency], machine: dict) -> Shown:
    """Milliseconds an image by stage (medians), and the total with the range of nine
    repeats of ten. `machine`: from ``records.hardware``."""
    lines = []
    for one in found:
        median, low, high = one.per_image()
        lines.append(
            {
                "network": f"{one.name} at {one.image_size} px",
                "images at a time": one.batch,
                **{
                    f"{stage}, ms": f"{1000 * one.per_image(stage)[0]:.1f}"
                    for stage in STAGES
                },
                "total, ms": f"{1000 * median:.1f}",
                "10th to 90th percentile": f"{1000 * low:.1f} to {1000 * high:.1f}",
                "repeats": len(one.seconds["total"]),
            }
        )
    return table(
        lines, f"Time from file to prediction, by image. {_where(found, machine)}"
    )


def latency_figure(found: list[Latency], machine: dict) -> Shown:
    """Stacked bars: median milliseconds an image, stage by stage; one panel a batch
    size."""
    sizes = list(dict.fromkeys(one.batch for one in found))
    styles = (("orange", "//"), ("sky", ".."), ("blue", ""), ("purple", "xx"))
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 0.9 + (0.5 + 0.34 * len(found) / len(sizes)) * len(sizes)),
            layout="constrained",
        )
        for axes, batch in zip(
            drawn.subplots(len(sizes), sharex=True, squeeze=False).flat,
            sizes,
            strict=True,
        ):
            here = [one for one in found if one.batch == batch]
            left = np.zeros(len(here))
            for stage, (colour, hatch) in zip(STAGES, styles, strict=True):
                width = np.array([1000 * one.per_image(stage)[0] for one in here])
                axes.barh(
                    range(len(here)),
                    width,
                    left=left,
                    color=OKABE_ITO[colour],
                    hatch=hatch,
                    edgecolor="white",
                    label=stage,
                    height=0.7,
                )
                left += width
            for place, one in enumerate(here):
                axes.annotate(
                    f"{1000 * one.per_image()[0]:.0f}",
                    (left[place], place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9.5,
                )
            axes.set(
                yticks=range(len(here)),
                yticklabels=[f"{one.name}, {one.image_size}" for one in here],
                ylim=(len(here) - 0.5, -0.5),
                title=f"{batch} image{'s' * (batch > 1)} at a time",
            )
            axes.tick_params(axis="y", length=0)
            axes.margins(x=0.12)
        axes.set_xlabel("milliseconds an image (median)")
        drawn.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=4,
            fontsize=10,
            handlelength=1.4,
            columnspacing=1.2,
        )
    said = "; ".join(
        f"{one.name} at {one.image_size} px, {one.batch} at a time: "
        + ", ".join(
            f"{stage} {1000 * one.per_image(stage)[0]:.1f}"
            for stage in (*STAGES, "total")
        )
        for one in found
    )
    return figure(
        drawn,
        f"Stacked bars of milliseconds an image by stage. {said}.",
        "Where the time goes between a picture's file and its prediction."
        f" {_where(found, machine)}",
    )


def _where(found: list[Latency], machine: dict) -> str:
    threads = " / ".join(dict.fromkeys(str(one.threads) for one in found))
    return (
        f"Measured by the notebook that drew this: {hardware({'hardware': machine})},"
        f" torch with {threads} thread{'s' * (threads != '1')}, random weights."
    )
