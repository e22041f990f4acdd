"""Curves: panels of any measure over any setting, and how training went."""

import html
import json
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import paths
from .base import NOT_YET, OKABE_ITO, WIDTH, Shown, figure, measured, styled, table
from .summary import setting, unchanged

# Curve name -> {x: y}.
Curves = dict[str, dict[float, float]]
# x label, y label, curves, the x that was trained with or None.
Panel = tuple[str, str, Curves, float | None]

# Marker, line and colour: curves can be told apart in grey.
LOOKS = (
    ("o", "-", OKABE_ITO["blue"]),
    ("s", "--", OKABE_ITO["red"]),
    ("^", "-.", OKABE_ITO["green"]),
    ("D", ":", OKABE_ITO["purple"]),
    ("v", (0, (5, 1)), OKABE_ITO["orange"]),
    ("P", (0, (3, 1, 1, 1, 1, 1)), OKABE_ITO["sky"]),
    ("X", (0, (1, 1)), OKABE_ITO["ink"]),
    ("*", (0, (8, 3)), "#8C6D31"),
)


def sweep_figure(panels: Sequence[Panel], caption: str, zero: bool = False) -> Shown:
    """Panels of curves below each other: (x label, y label, {curve name: {x: y}}, the x
    that was trained with or None). `zero`: vertical axes hold 0. The alternative text
    lists all values. Raises ValueError for more curves in a panel than can be told
    apart, eight.
    """
    with styled():
        drawn = Figure(figsize=(WIDTH, 2.5 * len(panels)), layout="constrained")
        grid = drawn.subplots(len(panels), squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=True):
            _draw_panel(axes, panel, zero)
    sentences = [_say_panel(panel) for panel in panels]
    return figure(drawn, f"Curves. {' '.join(sentences)}", caption)


def _draw_panel(axes: Axes, panel: Panel, zero: bool) -> None:
    x_label, y_label, curves, trained = panel
    if len(curves) > len(LOOKS):
        raise ValueError(
            f"{len(curves)} curves, of which {len(LOOKS)} can be told apart"
        )
    for (name, points), (marker, line, colour) in zip(
        curves.items(), LOOKS, strict=False
    ):
        x, y = list(points), list(points.values())
        axes.plot(x, y, marker=marker, ls=line, color=colour, label=name)
    if trained is not None:
        axes.axvline(trained, color="#777777", lw=1, ls=(0, (1, 2)), zorder=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    if zero:
        low, high = axes.get_ylim()
        low = min(0, low)
        axes.set_ylim(low, high + 0.06 * (high - low))
    if _whole_numbers(curves):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    if len(curves) > 1:
        legend_above(axes, ncols=2, handlelength=2.4)


def _whole_numbers(curves: Curves) -> bool:
    """Whether all x are: epochs, ranks, counts."""
    places = [x for points in curves.values() for x in points]
    return all(float(x).is_integer() for x in places)


def legend_above(axes: Axes, ncols: int, handlelength: float | None = None) -> None:
    """The legend over the panel, where it hides no curve."""
    axes.legend(
        ncols=ncols,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        columnspacing=1.2,
        handlelength=handlelength,
    )


def _say_panel(panel: Panel) -> str:
    """As "accuracy against m (regions): 1: 0.25, 2: 0.5." for each curve."""
    x_label, y_label, curves, _ = panel
    sentences = []
    for name, points in curves.items():
        which = f" ({name})" if name else ""
        values = ", ".join(f"{x:g}: {y:.4g}" for x, y in points.items())
        sentences.append(f"{y_label} against {x_label}{which}: {values}.")
    return " ".join(sentences)


# ---- training


def curves_figure(found: list[dict]) -> Shown:
    """Validation accuracy and training loss by epoch, for the runs whose log is on this
    machine (published records come without).
    """
    logs = {}
    # The first seed of every row before the second of any: not all may fit.
    for record in sorted(unchanged(found), key=lambda record: record["seed"]):
        log = read_log(record)
        if log is not None:
            logs[f"{record['row']}, seed {record['seed']}"] = log
    if not logs:
        text = "No training logs on this machine"
        return Shown(
            f"<p>{text}: these records were found, not made here.</p>", f"{text}."
        )

    caption = "How training went, epoch by epoch."
    if len(logs) > len(LOOKS):
        caption += f" Drawn: {len(LOOKS)} of {len(logs)} runs."
        logs = dict(list(logs.items())[: len(LOOKS)])
    scores = _by_epoch(logs, _score)
    losses = _by_epoch(logs, _image_loss)
    panels: list[Panel] = []
    if any(scores.values()):  # a recipe may train without validation images
        panels.append(("epoch", "validation accuracy, %", scores, None))
    if any(losses.values()):
        panels.append(("epoch", "loss of the image head", losses, None))
    if not panels:
        text = "None of these runs has an image head or was validated"
        return Shown(f"<p>{text}.</p>", f"{text}.")
    return sweep_figure(panels, caption)


def read_log(record: dict) -> list[dict] | None:
    """What was noted of each epoch, {"epoch", "val_top1", "losses", ...}; None where
    the run was not made on this machine.
    """
    path = paths.runs() / record["key"] / "log.jsonl"
    if not path.is_file():
        return None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _by_epoch(
    logs: dict[str, list[dict]], value: Callable[[dict], float | None]
) -> Curves:
    curves: Curves = {}
    for run, log in logs.items():
        curves[run] = {}
        for line in log:
            of_line = value(line)
            if of_line is not None:
                curves[run][line["epoch"]] = of_line
    return curves


def _score(line: dict) -> float | None:
    return None if line["val_top1"] is None else 100.0 * line["val_top1"]


def _image_loss(line: dict) -> float | None:
    """None for what has no image head, such as SimSiam's first stage."""
    # Oldest logs have the loss beside the epoch.
    return line["image"] if "image" in line else line["losses"].get("image")


def losses_table(found: list[dict]) -> Shown:
    """Each loss of a row in the first epoch and in the last, means over the records
    that say it.
    """
    found = [r for r in unchanged(found) if r["train"].get("losses")]
    if not found:
        return NOT_YET
    lines = []
    for name in found[0]["train"]["losses"][0]:
        line = {"loss": html.escape(name)}
        for when in ("first", "last"):
            value = loss_of(found, name, when)
            line[f"{when} epoch, measured"] = measured(
                f"{value:.2f}", f"losses {name} {when}", found
            )
        lines.append(line)
    caption = "Training losses, means of an epoch over all trainings of the row."
    return table(lines, f"{caption} {setting(found)}", found)


def loss_of(found: Sequence[dict], name: str, when: str) -> float:
    """The mean of a loss in the "first" or "last" epoch over records."""
    place = 0 if when == "first" else -1
    return float(np.mean([r["train"]["losses"][place][name] for r in found]))
