"""Figures and tables of the notebook on what a network knows before it sees labels
(paper C): descriptions of classes, and pictures without labels.
"""

import html
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..evidence import records
from ..methods.semantic import Semantic
from ..papers.spec import Paper
from ..recipe import Recipe
from . import findings
from .base import (
    NOT_YET,
    OKABE_ITO,
    QUICK_NOTE,
    WIDTH,
    Shown,
    duration,
    figure,
    styled,
    table,
)
from .curves import Curves, sweep_figure
from .photos import photo, seen, spread
from .summary import accuracy_cells, by_row, is_quick, of_row, setting, unchanged

SUREST = 6  # attributes that are shown of an image


def scores_table(paper: Paper, names: Sequence[str], found: list[dict]) -> Shown:
    """One line for each of the rows `names`: accuracy with its 95 % interval, and the
    time of training, first stages included. Of quick runs only the rows that were run
    are shown.
    """
    found = unchanged(found)
    used = [record for record in found if record["row"] in names]
    quick = is_quick(used)
    rows = by_row(used, names)
    lines = []
    for name in rows if quick else names:
        here = of_row(used, name)
        mean, interval, time = "not run", "–", "–"
        if here:
            mean, interval = accuracy_cells(here, found)
            seconds = [_seconds(record) for record in here]
            time = duration(float(np.mean(seconds)))
        lines.append(
            {
                "row": html.escape(paper.row(name).title),
                "measured, %": mean,
                "95 % interval": interval,
                "seeds": len(here),
                "training": time,
            }
        )
    caption = (
        "Top-1 accuracy on the test split and its 95 % interval; time of training on"
        f" the machine named, with the first stage where there is one. {setting(used)}"
    )
    if quick:
        caption += QUICK_NOTE
    nothing = {"row": "–", "measured, %": "not run"}
    titles = {name: paper.row(name).title for name in names}
    says = findings.of_rows(used, titles, among=found)
    return table(lines or [nothing], caption, used, illustration=quick, says=says)


def _seconds(record: dict) -> float:
    """The training's time, with that of the first stages that it started from."""
    first = records.find(record["after"]) if record["after"] else None
    before = _seconds(first) if first else 0.0
    return record["train"]["seconds"] + before


# ---- first stages


def first_stages(found: list[dict]) -> list[dict]:
    """The records of the first stages that these records started from, each once; those
    that are not here are left out.
    """
    keys = []
    for record in unchanged(found):
        if record["method"] == "simsiam" and record["after"]:
            keys.append(record["after"])
    firsts = [records.find(key) for key in dict.fromkeys(keys)]
    return [first for first in firsts if first]


def stage_figure(firsts: list[dict]) -> Shown:
    """Similarity of two views and spread of the projections, epoch by epoch, of first
    stages.
    """
    kept = [record for record in firsts if record["train"].get("losses")]
    if not kept:
        return NOT_YET
    # The loss is minus the similarity, so that training makes it small.
    similarity = _by_epoch(kept, "similarity", sign=-1)
    panels = [
        ("epoch", "cosine of two views", similarity, None),
        ("epoch", "spread of projections", _by_epoch(kept, "spread"), None),
    ]
    return sweep_figure(
        panels,
        "SimSiam's first stage: two views of a picture become alike (above), while"
        " different pictures stay different (below: 1 is as different as directions can"
        " be, 0 is the collapse in which all pictures have become one).",
        zero=True,
    )


def _by_epoch(found: list[dict], loss: str, sign: int = 1) -> Curves:
    curves: Curves = {}
    for record in found:
        random = record["recipe"]["weights"] == "none"
        start = "random weights" if random else "pretrained weights"
        if record["recipe"].get("recompute_statistics"):
            start += ", statistics recomputed"
        points: dict[float, float] = {}
        for epoch, losses in enumerate(record["train"]["losses"], 1):
            points[epoch] = sign * losses[loss]
        curves[f"{start}, seed {record['seed']}"] = points
    return curves


# ---- descriptions


@torch.no_grad()
def said(
    model: Semantic, data: DataSet, recipe: Recipe, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the model says of the test images at `index` (B,), what people say of their
    classes, both (B, A) of length 1; and predicted classes (B,).
    """
    images = seen(data.test, index, recipe, model)
    own = model.classes[data.test.labels[index].to(images.device)]
    heard = model.attributes(images)
    predicted = model.predict(images).argmax(1)
    return heard.cpu(), own.cpu(), predicted.cpu()


def words_figure(
    model: Semantic, data: DataSet, recipe: Recipe, count: int = 4
) -> Shown:
    """Test images spread evenly over the split, each with the SUREST attributes that
    the model gives most, beside what people say of its class.
    """
    index = spread(data.test, count)
    heard, known, predicted = said(model, data, recipe, index)
    surest = heard.topk(min(SUREST, heard.shape[1])).indices
    heard, known = heard.gather(1, surest), known.gather(1, surest)
    low = min(0.0, float(heard.min()), float(known.min()))
    high = max(float(heard.max()), float(known.max()))

    texts = []
    with styled():
        height = 1.0 + (0.55 + 0.22 * SUREST) * len(index)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), 2, squeeze=False, width_ratios=(1, 1.25))
        for i, (left, right) in enumerate(grid):
            place = int(index[i])
            true = data.classes[int(data.test.labels[place])]
            taken = data.classes[int(predicted[i])]
            title = _short(true)
            if taken != true:
                title += f"\n(taken for {_short(taken)})"
            photo(left, data.test.images[place].float() / 255)
            left.set_title(title, fontsize=11)

            names = [data.attribute_names[a] for a in surest[i].tolist()]
            _draw_words(right, names, heard[i].tolist(), known[i].tolist())
            right.set(xlim=(low - 0.1 * (high - low), 1.05 * high))
            texts.append(_say_words(true, names, heard[i].tolist(), known[i].tolist()))
        drawn.legend(
            *grid[0, 1].get_legend_handles_labels(),
            loc="outside upper right",
            ncols=2,
            fontsize=11,
        )
    return figure(
        drawn,
        "Test images beside bars of the attributes that the network gives most."
        f" {'; '.join(texts)}.",
        "The attributes that the network is surest of (bars), and what people say of"
        " the image's true class (diamonds), both against the average of all classes"
        " (0). Images spread evenly over the test split.",
    )


def _draw_words(
    axes: Axes, names: list[str], heard: list[float], known: list[float]
) -> None:
    """One attribute a line: what the network says, and what people say."""
    place = range(len(names))
    axes.barh(
        place,
        heard,
        height=0.55,
        color=OKABE_ITO["sky"],
        label="the network, of this image",
    )
    axes.plot(
        known,
        place,
        "D",
        mfc="white",
        mec=OKABE_ITO["red"],
        ms=6,
        clip_on=False,
        label="people, of its class",
    )
    axes.axvline(0, color=OKABE_ITO["ink"], lw=1)
    axes.set(yticks=place, yticklabels=names, ylim=(len(names) - 0.4, -0.6), xticks=[0])
    axes.tick_params(labelsize=11, length=0)
    axes.spines["left"].set_visible(False)


def _say_words(
    true: str, names: list[str], heard: list[float], known: list[float]
) -> str:
    words = []
    for name, of_image, of_class in zip(names, heard, known, strict=True):
        words.append(f"{name} ({of_image:.2f}, class {of_class:.2f})")
    return f"{true}: {', '.join(words)}"


def _short(name: str) -> str:
    """A class's name without CUB's number and underscores."""
    if name[:3].isdecimal() and "." in name:
        return name.partition(".")[2].replace("_", " ")
    return name
