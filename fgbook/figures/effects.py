"""Effects with their intervals: dots and bars that the forest plots of all chapters
share, and the plot of a paper's claims.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evidence import units
from ..evidence.families import judge
from ..evidence.verdicts import Effect, Verdict
from ..papers.spec import Paper
from .base import OKABE_ITO, WIDTH, Shown, figure, signed, signed_between, styled


def effect_text(effect: Effect, digits: int = 1) -> str:
    """As "+1.0 (-0.5 to +2.5)"."""
    interval = signed_between(effect.low, effect.high, digits)
    return f"{signed(effect.effect, digits)} ({interval})"


def bars(effect: Effect) -> list[list[float]]:
    """The interval as lengths below and above the effect, as matplotlib wants them."""
    return [[effect.effect - effect.low], [effect.high - effect.effect]]


def draw_effect(
    axes: Axes, effect: Effect, place: float, marker: str, colour: str
) -> None:
    """A dot at the effect and a bar over its interval, at the height `place`."""
    axes.errorbar(
        effect.effect,
        place,
        xerr=bars(effect),
        fmt=marker,
        color=OKABE_ITO[colour],
        capsize=4,
        lw=2,
    )


def name_effects(axes: Axes, label: str, marker: str, colour: str) -> None:
    """The legend's entry of effects that are drawn one by one."""
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


def name_lines(axes: Axes, names: list[str], x_label: str) -> None:
    """A forest plot's axes: one name a line from the top down, and the line of no
    effect.
    """
    axes.axvline(0, color=OKABE_ITO["ink"], lw=1)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=x_label)
    axes.tick_params(axis="y", length=0)


def legend_on_top(axes: Axes, ncols: int = 2) -> None:
    """The legend over a forest plot."""
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.4, 1.0),
        ncols=ncols,
        handletextpad=0.3,
        columnspacing=1.2,
    )


PRINTED: dict[str, Any] = {"mfc": "white", "mec": OKABE_ITO["red"], "ms": 7}


def effects_figure(paper: Paper, found: list[dict]) -> Shown:
    """Effects of the claims with their 95 % intervals beside the printed effects (a
    forest plot), of those that are in percentage points.
    """
    judged = []
    for verdict in judge(paper, found):
        if units.unit(verdict.claim.metric) is units.POINTS:
            judged.append(verdict)
    any_printed = any(v.claim.printed_effect is not None for v in judged)
    any_measured = any(v.effect for v in judged)

    with styled():
        drawn = Figure(figsize=(WIDTH, 0.8 + 0.62 * len(judged)))
        axes = drawn.subplots()
        for place, verdict in enumerate(judged):
            printed = verdict.claim.printed_effect
            if printed is not None:
                axes.plot(printed, place - 0.16, "D", **PRINTED)
            if verdict.effect:
                draw_effect(axes, verdict.effect, place + 0.12, "o", "blue")
        if any_printed:
            axes.plot([], [], "D", **PRINTED, label="printed")
        if any_measured:
            name_effects(axes, "measured, 95 % interval", "o", "blue")
        names = [f"{v.claim.key}: {v.outcome}" for v in judged]
        name_lines(axes, names, "difference in accuracy, percentage points")
        axes.set(ylim=(len(judged) - 0.4, -0.6))
        if any_printed or any_measured:
            legend_on_top(axes)

    said = "; ".join(_say(verdict) for verdict in judged)
    caption = "Effects of the claims: as printed (diamonds)"
    if any_measured:
        caption += (
            " and as measured on photographs with their 95 % intervals (dots), each for"
            " itself. A claim holds when its interval lies right of zero, also with"
            " allowance for how many claims are judged at once."
        )
    else:
        caption += "; not measured yet."
    return figure(
        drawn,
        f"Forest plot of the claims' effects in percentage points. {said}.",
        caption,
    )


def _say(verdict: Verdict) -> str:
    said = f"{verdict.claim.key} {verdict.outcome}"
    if verdict.effect:
        said += f", {effect_text(verdict.effect)}"
    return said
