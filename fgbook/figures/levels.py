"""What the notebook on multi-level attention draws: maps and boxes by depth, and how
well the boxes fit.
"""

import html

import numpy as np
from matplotlib.figure import Figure

from ..data.dataset import DataSet
from ..evidence import records
from ..methods.levels import Levels
from ..recipe import Recipe
from . import findings
from .base import OKABE_ITO, WIDTH, Shown, figure, styled, table
from .curves import Curves, sweep_figure
from .photos import TRUTH, class_names, lit, outline, photo, seen, seen_box, spread
from .regions import located, located_cell, located_mean
from .summary import is_quick, setting

NAMES = {
    "image": "deepest level",
    "centre": "middle square, half the area",
    "whole": "whole image",
}
BLIND = ("centre", "whole")  # they know nothing of the image
MEASURES = {
    "iou": "mean IoU",
    "hit50": "share with IoU ≥ 0.5",
    "average": "mean share, IoU ≥ 0.3, 0.5, 0.7",
}
# Colour and line of a level's box, the deepest last.
STYLES = (
    (OKABE_ITO["green"], (0, (5, 1, 1, 1, 1, 1))),
    (OKABE_ITO["orange"], ":"),
    (OKABE_ITO["sky"], "--"),
    (OKABE_ITO["purple"], "-."),
)


def levels_figure(
    model: Levels, data: DataSet, recipe: Recipe, count: int = 3
) -> Shown:
    """Test images in the manner of the paper's Figure 5: the image with the true box,
    then for each level its map and its box.
    """
    index = spread(data.test, count)
    images = seen(data.test, index, recipe, model)
    maps, boxes = model.activation_maps(images), model.locate(images)
    depths = model.depths_at(recipe.image_size)
    styles = dict(zip(maps, STYLES[-len(maps) :], strict=True))
    titles = ["image"]
    for name in maps:
        titles.append(f"{_title(name)},\n{depths[name].stride} px a cell")

    with styled():
        height = 0.3 + WIDTH / len(titles) * len(index)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), len(titles), squeeze=False)
        for i, (first, *others) in enumerate(grid):
            photo(first, images[i])
            box = seen_box(data, int(index[i]), recipe)
            if box is not None:
                outline(first, box, *TRUTH)
            for axes, name in zip(others, maps, strict=True):
                photo(axes, lit(images[i], maps[name][i], depths[name]))
                outline(axes, boxes[name][i].cpu(), *styles[name])
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=11)
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({class_names(data, index)}): the image with"
        " a white box round the object, then lit by the activation map of each of"
        f" {len(maps)} levels from shallow to deep, each with the box drawn from it.",
        "Class activation maps of the predicted class at each depth, drawn as light,"
        " and the box round the largest part above Otsu's threshold. White: the true"
        " box, which training does not see. Images spread evenly over the test split,"
        " not chosen by eye.",
    )


def boxes_table(found: list[dict]) -> Shown:
    """How well each level's box fits the object's, from records, beside two boxes that
    know nothing of the image.
    """
    scored = []
    for record in located(found):
        if "image_iou" in record["localisation"]:
            scored.append(record)
    lines = []
    for name in _names(scored):
        line = {"box": html.escape(_title(name).capitalize())}
        for measure, title in MEASURES.items():
            line[title] = located_cell(scored, f"{name}_{measure}")
        lines.append(line)
    nothing = {"box": "–"} | dict.fromkeys(MEASURES.values(), "not run")
    return table(
        lines or [nothing],
        "Boxes of each level against the object's box on the test images, with 95 %"
        f" intervals over images. {setting(scored)}",
        scored,
        illustration=is_quick(scored),
        says=_says(scored),
    )


def _says(scored: list[dict]) -> str:
    """How the boxes of levels compare with those that know nothing of the image."""
    names = _names(scored)
    iou = {name: located_mean(scored, f"{name}_iou") for name in names}
    blind = [iou.pop(name) for name in BLIND if name in iou]
    if not blind:
        return ""
    pairs = {_title(name): (value, max(blind)) for name, value in iou.items()}
    theirs = "the best box that knows nothing of the image"
    return findings.of_pairs(pairs, "boxes", theirs)


def success_figure(record: dict) -> Shown:
    """Share of test images whose box reaches an IoU, against that IoU: a curve a
    level.
    """
    kept = records.load_predictions(record)
    curves: Curves = {}
    for name in _names([record]):
        if name == "whole":
            continue  # it is in the table
        iou = kept[f"iou_{name}"]
        known = iou[np.isfinite(iou)]
        curves[_title(name)] = {}
        for threshold in np.linspace(0.1, 0.9, 9):
            reached = float((known >= threshold).mean())
            curves[_title(name)][round(float(threshold), 1)] = reached
    return sweep_figure(
        [("IoU with the object's box", "share of test images", curves, 0.5)],
        "How many boxes reach which overlap; the dotted line marks the usual threshold,"
        " 0.5.",
    )


def _names(found: list[dict]) -> list[str]:
    """The boxes that records tell of: levels from shallow to deep, then the two for
    comparison.
    """
    if not found:
        return []
    fields = found[0]["localisation"]
    return [name.removesuffix("_iou") for name in fields if name.endswith("_iou")]


def _title(name: str) -> str:
    return NAMES.get(name) or name.replace("level", "level ")
