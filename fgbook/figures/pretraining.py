"""Figures and tables of the notebook on what a network knows before it sees labels
(paper C): descriptions of classes, and pictures without labels."""

import html

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..evidence import records
from ..methods.semantic import Semantic
from ..papers.spec import Paper
from ..recipe import Recipe
from . import (
    OKABE_ITO,
    QUICK_NOTE,
    STYLE,
    WIDTH,
    Shown,
    _photo,
    _seen,
    accuracy,
    figure,
    measured,
    setting,
    spread,
    sweep_figure,
    table,
)


def scores_table(paper: Paper, names: tuple[str, ...], found: list[dict]) -> Shown:
    """One line for each of the rows `names`: accuracy with its 95 % interval, and the
    time of training, first stages included. Of quick runs only the rows that were run
    are shown."""
    used = [r for r in found if r["row"] in names]
    quick, lines = any(r["profile"] == "quick" for r in used), []
    for name in names:
        of_row = [r for r in used if r["row"] == name]
        line = {
            "row": html.escape(paper.row(name).title),
            "measured, %": "not run",
            "95 % interval": "–",
            "seeds": len(of_row),
            "training": "–",
        }
        if of_row:
            mean, low, high = accuracy(of_row)
            line |= {
                "measured, %": measured(f"{mean:.1f}", "top1", of_row),
                "95 % interval": measured(
                    f"{low:.1f} to {high:.1f}", "top1 interval", of_row
                ),
                "training": _time(np.mean([_seconds(r) for r in of_row])),
            }
        if of_row or not quick:
            lines.append(line)
    lines = lines or [{"row": "–", "measured, %": "not run"}]
    what = (
        "Top-1 accuracy on the test split and its 95 % interval; time of training on"
        f" the machine named, with the first stage where there is one. {setting(used)}"
    )
    return table(lines, what + QUICK_NOTE * quick, used, illustration=quick)


def _seconds(record: dict) -> float:
    first = records.find(record["after"]) if record["after"] else None
    return record["train"]["seconds"] + (_seconds(first) if first else 0)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def first_stages(found: list[dict]) -> list[dict]:
    """The records of the first stages that these records started from, each once; those
    that are not here are left out."""
    keys = dict.fromkeys(
        r["after"] for r in found if r["method"] == "simsiam" and r["after"]
    )
    return [first for key in keys if (first := records.find(key))]


def stage_figure(firsts: list[dict]) -> Shown:
    """Similarity of two views and spread of the projections, epoch by epoch, of first
    stages."""
    firsts = [r for r in firsts if r["train"].get("losses")]
    if not firsts:
        return Shown("<p>Not run yet.</p>", "Not run yet.")
    starts = {
        r["key"]: (
            f"{'random' if r['recipe']['weights'] == 'none' else 'pretrained'} weights,"
            f" seed {r['seed']}"
        )
        for r in firsts
    }

    def curves(name: str, sign: int) -> dict[str, dict[float, float]]:
        return {
            starts[r["key"]]: {
                epoch: sign * loss[name]
                for epoch, loss in enumerate(r["train"]["losses"], 1)
            }
            for r in firsts
        }

    panels = [
        ("epoch", "cosine of two views", curves("similarity", -1), None),
        ("epoch", "spread of projections", curves("spread", 1), None),
    ]
    return sweep_figure(
        panels,
        "SimSiam's first stage: two views of a picture become alike (above), while"
        " different pictures stay different (below: 1 is as different as directions can"
        " be, 0 is the collapse in which all pictures have become one).",
        zero=True,
    )


@torch.no_grad()
def said(
    model: Semantic, data: DataSet, recipe: Recipe, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the model says of the test images at `index` (B,), what people say of their
    classes, both (B, A) of length 1; and predicted classes (B,)."""
    images = _seen(data.test, index, recipe, model)
    own = model.classes[data.test.labels[index].to(images.device)]
    return (
        model.attributes(images).cpu(),
        own.cpu(),
        model.predict(images).argmax(1).cpu(),
    )


def words_figure(
    model: Semantic, data: DataSet, recipe: Recipe, count: int = 4, words: int = 6
) -> Shown:
    """Test images spread evenly over the split, each with the `words` attributes that
    the model is surest of, beside what people say of its class."""
    index = spread(data.test, count)
    heard, known, predicted = said(model, data, recipe, index)
    chosen = heard.topk(min(words, heard.shape[1])).indices  # (B, words)
    drawn_values = torch.cat([heard.gather(1, chosen), known.gather(1, chosen)])
    low, high, alt = min(0.0, float(drawn_values.min())), float(drawn_values.max()), []
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 1.0 + (0.55 + 0.22 * words) * len(index)),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), 2, squeeze=False, width_ratios=(1, 1.25))
        for i, (picture, bars) in enumerate(grid):
            best = chosen[i].tolist()
            true, taken = (
                data.classes[k]
                for k in (int(data.test.labels[index[i]]), int(predicted[i]))
            )
            _photo(picture, data.test.images[index[i]].float() / 255)
            picture.set_title(
                (
                    _short(true)
                    if true == taken
                    else f"{_short(true)}\n(taken for {_short(taken)})"
                ),
                fontsize=9,
            )
            place = range(len(best))
            bars.barh(
                place,
                heard[i, best].tolist(),
                height=0.55,
                color=OKABE_ITO["sky"],
                label="the network, of this image",
            )
            bars.plot(
                known[i, best].tolist(),
                place,
                "D",
                mfc="white",
                mec=OKABE_ITO["red"],
                ms=6,
                clip_on=False,
                label="people, of its class",
            )
            bars.axvline(0, color="black", lw=1)
            bars.set(
                yticks=place,
                yticklabels=[data.attribute_names[a] for a in best],
                ylim=(len(best) - 0.4, -0.6),
                xticks=[0],
                xlim=(low - 0.1 * (high - low), 1.05 * high),
            )
            bars.tick_params(labelsize=9, length=0)
            bars.spines["left"].set_visible(False)
            alt.append(
                f"{true}: "
                + ", ".join(
                    f"{data.attribute_names[a]} ({heard[i, a]:.2f}, class"
                    f" {known[i, a]:.2f})"
                    for a in best
                )
            )
        drawn.legend(
            *grid[0, 1].get_legend_handles_labels(),
            loc="outside upper right",
            ncols=2,
            fontsize=9,
        )
    return figure(
        drawn,
        "Test images beside bars of the attributes that the network gives most."
        f" {'; '.join(alt)}.",
        "The attributes that the network is surest of (bars), and what people say of"
        " the image's true class (diamonds), both against the average of all classes"
        " (0). Images spread evenly over the test split.",
    )


def _short(name: str) -> str:
    """A class's name without CUB's number and underscores."""
    return (
        name.partition(".")[2].replace("_", " ")
        if name[:3].isdecimal() and "." in name
        else name
    )
