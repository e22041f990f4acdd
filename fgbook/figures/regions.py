"""Where the regions of paper B (Feng et al. 2019) lie: counted from records, and drawn
on images as a trained network sees them.
"""

import copy
import html

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..errors import InputError, unknown
from ..methods.focus import Focus
from ..recipe import Recipe
from . import findings
from .base import (
    NOT_YET,
    OKABE_ITO,
    WIDTH,
    Shown,
    between,
    figure,
    measured,
    sentence,
    styled,
    table,
)
from .photos import YELLOW, class_names, device_of, lit, outline, photo, seen, spread
from .summary import is_quick, of_row, setting, unchanged

# The paper's Figure 2 draws regions 1-4 in red, green, blue and yellow. Line style and
# number tell them apart without colour.
REGION_STYLES = (
    ("#E0201B", "-"),
    ("#00A651", "--"),
    ("#2B6BFF", "-."),
    (YELLOW, ":"),
)
HITS = {
    "hit_object": "regions whose centre lies on the bird",
    "hit_part": "regions that hold a part (on drawn birds a telling one)",
    "union_iou": "all regions together against the bird's box, IoU",
}
SHORT_HITS = {
    "hit_object": "on the bird",
    "hit_part": "on a telling part",
    "union_iou": "IoU with its box",
}
BAR_STYLES = (
    (OKABE_ITO["blue"], ""),
    (OKABE_ITO["orange"], "//"),
    (OKABE_ITO["green"], ".."),
    (OKABE_ITO["purple"], "xx"),
)
# What a trained model can be asked with other values of.
TEST_SETTINGS = ("m", "l", "threshold", "box", "attention")


# ---- from records


def hits_table(found: list[dict]) -> Shown:
    """Where the regions lie, from records with ground truth, beside as many boxes of
    the same size placed at random.
    """
    quick = is_quick(found)
    found = located(found)
    lines = []
    pairs: dict[str, tuple[float, float]] = {}
    for name, title in HITS.items():
        of_name = [r for r in found if r["localisation"].get(name) is not None]
        for row in _rows(of_name):
            records = of_row(of_name, row)
            chance = located_mean(records, f"{name}_random")
            pairs[f"{row}: {title}"] = (located_mean(records, name), chance)
            lines.append(
                {
                    "measure": title,
                    "row": html.escape(row),
                    "regions": located_cell(records, name),
                    "random boxes": located_cell(records, f"{name}_random"),
                }
            )
    nothing = {"measure": "–", "row": "–", "regions": "not run", "random boxes": "–"}
    return table(
        lines or [nothing],
        f"{_hits_caption(found)} {setting(found)}",
        found,
        illustration=quick,
        says=findings.of_pairs(pairs, "the regions", "boxes at random"),
    )


def _hits_caption(found: list[dict]) -> str:
    """What the table's numbers are, and which of them can be compared."""
    caption = "Where the regions lie on the test images: means over images"
    rows = _rows(found)
    if any(len(of_row(found, row)) > 1 for row in rows):
        caption += " and trainings."
    else:
        caption += ", with 95 % intervals over these."
    caption += (
        " Compare within a line: how often a box at random hits depends on its size,"
        " and rows have boxes of different sizes."
    )
    if any(not r["dataset"].startswith("fieldguide") for r in found):
        caption += (
            " A telling part is one that tells a species from its siblings. Photographs"
            " have none marked; there any of CUB's fifteen parts counts, which is much"
            " easier to hit."
        )
    return caption


def located(found: list[dict]) -> list[dict]:
    """The records that hold measures of where their boxes lie."""
    return [record for record in unchanged(found) if record["localisation"]]


def _rows(found: list[dict]) -> list[str]:
    return list(dict.fromkeys(record["row"] for record in found))


def located_mean(found: list[dict], name: str) -> float:
    """Mean over records of a measure of where their boxes lie."""
    return float(np.mean([record["localisation"][name] for record in found]))


def located_cell(found: list[dict], name: str) -> str:
    """The same as HTML; for a single record with its 95 % interval over images."""
    mean = located_mean(found, name)
    cell = measured(f"{mean:.2f}", f"localisation {name}", found)
    if len(found) > 1:
        return cell
    about = found[0]["localisation"]
    interval = between(about[f"{name}_low"], about[f"{name}_high"], digits=2)
    return f"{cell} ({measured(interval, f'localisation {name} interval', found)})"


def ranks_table(found: list[dict]) -> Shown:
    """Where the first, second, ... region of a row lies, from records with ground
    truth, beside boxes of the same size placed at random.
    """
    found = located(found)
    if not found:
        return NOT_YET
    names = [f"hit_{of}{kind}" for of in ("object", "part") for kind in ("", "_random")]
    heads = ("on the bird", "random box on it", "on a part", "random box on one")
    lines = []
    for rank in range(len(found[0]["localisation"]["hit_object_by_rank"])):
        line: dict[str, object] = {"region": rank + 1}
        for name, head in zip(names, heads, strict=True):
            line[f"{head}, measured"] = _rank_cell(found, f"{name}_by_rank", rank)
        lines.append(line)
    caption = (
        "Of how many test images the first, second, ... region lies with its centre on"
        " the bird, or holds a part: shares, means over images and trainings."
    )
    return table(lines, f"{caption} {setting(found)}", found)


def _rank_cell(found: list[dict], name: str, rank: int) -> str:
    mean = float(np.mean([record["localisation"][name][rank] for record in found]))
    return measured(f"{mean:.2f}", f"localisation {name} {rank + 1}", found)


def hits_figure(found: list[dict]) -> Shown:
    """Localisation measures of the rows that have regions, beside boxes at random."""
    found = located(found)
    rows = _rows(found)
    names = []
    for name in HITS:
        if any(record["localisation"].get(name) is not None for record in found):
            names.append(name)
    if not names:
        return sentence("This data set has no ground truth for regions.")

    heights = {row: _heights(of_row(found, row), names) for row in rows}
    at_random = _heights(found, [f"{name}_random" for name in names])
    with styled():
        drawn = Figure(figsize=(WIDTH, 3.2))
        axes = drawn.subplots()
        thick = 0.8 / (len(rows) + 1)
        middle = np.arange(len(names))
        for place, row in enumerate(rows):
            at = middle + (place - len(rows) / 2) * thick
            colour, hatch = BAR_STYLES[place]
            _draw_bars(axes, at, heights[row], thick, row, colour, hatch, "white")
        at = middle + len(rows) / 2 * thick
        _draw_bars(
            axes, at, at_random, thick, "random boxes", "#BBBBBB", None, "#777777"
        )
        axes.set(
            ylim=(0, 1.08),
            xticks=range(len(names)),
            xticklabels=[SHORT_HITS[name] for name in names],
        )
        axes.legend(fontsize=10, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    said = []
    for i, name in enumerate(names):
        values = [f"{row} {heights[row][i]:.2f}" for row in rows]
        values.append(f"random boxes {at_random[i]:.2f}")
        said.append(f"{HITS[name]}: {', '.join(values)}")
    return figure(
        drawn,
        f"Bar chart. {'; '.join(said)}.",
        "Where the selected regions lie on the test images, beside as many boxes of the"
        " same size placed at random.",
    )


def _heights(found: list[dict], names: list[str]) -> list[float]:
    return [located_mean(found, name) for name in names]


def _draw_bars(
    axes: Axes,
    at: np.ndarray,
    heights: list[float],
    thick: float,
    label: str,
    colour: str,
    hatch: str | None,
    edge: str,
) -> None:
    bars = axes.bar(
        at, heights, thick, label=label, color=colour, hatch=hatch, edgecolor=edge
    )
    axes.bar_label(bars, fmt="%.2f", fontsize=11, padding=1)


# ---- where a trained model looks


def variant(model: Focus, **settings) -> Focus:
    """A copy of a trained model with other test-time settings (m, l, threshold,
    box, attention), everything learned left as it is.

    A smaller `l` than was trained drops the last regions' weights from the hybrid head,
    as if their features were zero. Raises InputError for a setting that does not exist,
    for an `l` larger than was trained, and for a smaller one where no head reads them.
    """
    other = copy.deepcopy(model)
    for name, value in settings.items():
        if name not in TEST_SETTINGS:
            raise unknown("test-time setting", name, TEST_SETTINGS)
        setattr(other, name, value)
    if other.l > model.l:
        raise InputError(
            f"l = {other.l} regions cannot be read: the hybrid head was trained with"
            f" {model.l}."
        )
    if other.l < model.l:
        head = other.hybrid_head
        if head is None:
            raise InputError(
                "l: this network was trained without the hybrid head that reads"
                " regions; take a row that has one, such as hybrid."
            )
        # The head reads the image's feature and those of l regions, side by side.
        width = (1 + other.l) * model.backbone.channels
        head.weight = torch.nn.Parameter(head.weight[:, :width].detach().clone())
        head.in_features = width
    return other


def attention_figure(
    model: Focus, data: DataSet, recipe: Recipe, count: int = 4
) -> Shown:
    """Attention maps of test images: maximum over all classes beside the map of the
    predicted and of the true class, and the top region of each.
    """
    index = spread(data.test, count)
    images = seen(data.test, index, recipe, model)
    labels = data.test.labels[index].to(device_of(model))
    right = model.predict(images).argmax(1) == labels
    columns = {"image": images}
    for kind, title in (
        ("max", "maximum"),
        ("predicted", "predicted class"),
        ("true", "true class"),
    ):
        maps = variant(model, attention=kind).attention_map(images, labels)
        columns[title] = _all_lit(images, maps, model)

    with styled():
        height = 0.25 + 1.36 * len(index)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), len(columns), squeeze=False)
        for (title, shown), down in zip(columns.items(), grid.T, strict=True):
            for axes, image in zip(down, shown, strict=True):
                photo(axes, image)
            down[0].set_title(title, fontsize=11)
        for axes, rightly in zip(grid[:, 0], right.tolist(), strict=True):
            axes.set_ylabel("right" if rightly else "wrong", fontsize=11)
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({class_names(data, index)}) lit by three"
        " attention maps each: maximum over all classes, predicted class, true class."
        f" The network names {int(right.sum())} of them rightly.",
        "Attention maps, drawn as light that falls on the image: full light where the"
        " map is highest, dusk where it is lowest, each map on its own scale. Where the"
        " prediction (written at the left) is wrong, the maps of the predicted and of"
        " the true class are maps of different classes. Images spread evenly over the"
        " test split, not chosen by eye.",
    )


def _all_lit(images: Tensor, maps: Tensor, model: Focus) -> Tensor:
    pairs = zip(images, maps, strict=True)
    return torch.stack([lit(image, each, model.backbone) for image, each in pairs])


def regions_figure(model: Focus, data: DataSet, recipe: Recipe) -> Shown:
    """The four best regions of six test images, in the manner of the paper's Figure 2:
    red, green, blue, yellow.
    """
    index = spread(data.test, 6)
    images = seen(data.test, index, recipe, model)
    boxes = model.regions(images)[:, : len(REGION_STYLES)].cpu()
    columns = 3
    lines = -(-len(index) // columns)  # rounded up
    with styled():
        drawn = Figure(figsize=(WIDTH, 1.95 * lines), layout="constrained")
        grid = list(drawn.subplots(lines, columns, squeeze=False).flat)
        for axes, image, regions in zip(grid, images, boxes, strict=False):
            photo(axes, image)
            for place in reversed(range(len(regions))):  # the best one on top
                colour, line = REGION_STYLES[place]
                outline(axes, regions[place], colour, line, text=str(place + 1))
        for axes in grid[len(index) :]:
            axes.set_visible(False)
    return figure(
        drawn,
        f"{len(index)} test images with their four best regions drawn as numbered"
        " squares: 1 red solid, 2 green dashed, 3 blue dash-dotted, 4 yellow dotted.",
        "The four best regions in the manner of the paper's Figure 2: first red"
        " (solid), second green (dashed), third blue (dash-dotted), fourth yellow"
        " (dotted). Images spread evenly over the test split, not chosen by eye.",
    )
