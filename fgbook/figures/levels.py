"""What the notebook on multi-level attention draws: maps and boxes by depth, and how
well the boxes fit."""

import html

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..data.dataset import DataSet
from ..evidence import records
from ..methods.levels import Levels
from ..recipe import Recipe
from . import (
    OKABE_ITO,
    STYLE,
    WIDTH,
    Shown,
    _box,
    _lit,
    _photo,
    _seen,
    _share,
    figure,
    setting,
    spread,
    sweep_figure,
    table,
)

NAMES = {
    "image": "deepest level",
    "centre": "middle square, half the area",
    "whole": "whole image",
}
MEASURES = {
    "iou": "mean IoU",
    "hit50": "share with IoU ≥ 0.5",
    "average": "mean share, IoU ≥ 0.3, 0.5, 0.7",
}
# one a level, the deepest last
COLOURS = (
    (OKABE_ITO["green"], (0, (5, 1, 1, 1, 1, 1))),
    (OKABE_ITO["orange"], ":"),
    (OKABE_ITO["sky"], "--"),
    (OKABE_ITO["purple"], "-."),
)


def levels_figure(
    model: Levels, data: DataSet, recipe: Recipe, count: int = 3
) -> Shown:
    """Test images in the manner of the paper's Figure 5: the image with the true box,
    then for each level its map and its box."""
    index = spread(data.test, count)
    images = _seen(data.test, index, recipe, model)
    maps, boxes = model.activation_maps(images), model.locate(images)
    margin = (data.size - recipe.image_size) // 2
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 0.3 + WIDTH / (1 + len(maps)) * len(index)),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), 1 + len(maps), squeeze=False)
        for line, (first, *others) in enumerate(grid):
            _photo(first, images[line])
            if data.test.boxes is not None:
                _box(
                    first,
                    (data.test.boxes[index[line]] - margin).clamp(0, recipe.image_size),
                    "#FFFFFF",
                    "-",
                )
            for axes, name, style in zip(
                others, maps, COLOURS[-len(maps) :], strict=True
            ):
                _photo(axes, _lit(images[line], maps[name][line], model.depths[name]))
                _box(axes, boxes[name][line].cpu(), *style)
        for axes, title in zip(
            grid[0],
            [
                "image",
                *(
                    f"{_title(name)},\n{d.stride} px a cell"
                    for name, d in model.depths.items()
                ),
            ],
            strict=True,
        ):
            axes.set_title(title, fontsize=10)
    names = ", ".join(data.classes[k] for k in data.test.labels[index].tolist())
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({names}): the image with a white box round"
        f" the object, then lit by the activation map of each of {len(maps)} levels"
        " from shallow to deep, each with the box drawn from it.",
        "Class activation maps of the predicted class at each depth, drawn as light,"
        " and the box round the largest part above Otsu's threshold. White: the true"
        " box, which training does not see. Images spread evenly over the test split,"
        " not chosen by eye.",
    )


def boxes_table(found: list[dict]) -> Shown:
    """How well each level's box fits the object's, from records, beside two boxes that
    know nothing of the image."""
    of = [r for r in found if r["localisation"] and "image_iou" in r["localisation"]]
    lines = [
        {"box": html.escape(_title(name).capitalize())}
        | {
            title: _share(of, f"{name}_{measure}")
            for measure, title in MEASURES.items()
        }
        for name in _names(of)
    ]
    lines = lines or [{"box": "–"} | dict.fromkeys(MEASURES.values(), "not run")]
    return table(
        lines,
        "Boxes of each level against the object's box on the test images, with 95 %"
        f" intervals over images. {setting(of)}",
        of,
        illustration=any(r["profile"] == "quick" for r in of),
    )


def success_figure(record: dict) -> Shown:
    """Share of test images whose box reaches an IoU, against that IoU: a curve a
    level."""
    kept, at = records.load_predictions(record), np.linspace(0.1, 0.9, 9)
    curves = {}
    for name in _names([record])[:-1]:  # the whole image is in the table
        iou = kept[f"iou_{name}"]
        curves[_title(name)] = {
            round(float(t), 1): float((iou[np.isfinite(iou)] >= t).mean()) for t in at
        }
    return sweep_figure(
        [("IoU with the object's box", "share of test images", curves, 0.5)],
        "How many boxes reach which overlap; the dotted line marks the usual threshold,"
        " 0.5.",
    )


def _names(found: list[dict]) -> list[str]:
    """The boxes that records tell of: levels from shallow to deep, then the two for
    comparison."""
    return [
        key.removesuffix("_iou")
        for key in (found[0]["localisation"] if found else {})
        if key.endswith("_iou")
    ]


def _title(name: str) -> str:
    return NAMES.get(name) or name.replace("level", "level ")
