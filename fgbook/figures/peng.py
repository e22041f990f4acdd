"""Tables and figures of the chapter on low resolution (Peng et al. 2016)."""

import html
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data.dataset import DataSet
from ..evidence import records, verdicts
from ..evidence.verdicts import Effect
from ..methods.superres import SuperResolution
from ..papers import peng
from ..papers.spec import Paper, Table
from ..recipe import Recipe
from . import findings
from .base import (
    OKABE_ITO,
    QUICK_NOTE,
    WIDTH,
    Shown,
    figure,
    measured,
    signed,
    styled,
    table,
)
from .effects import effect_text
from .photos import class_names, photo, seen, spread
from .summary import (
    accuracy,
    accuracy_cells,
    is_quick,
    of_row,
    setting,
    unchanged,
)
from .tables import recipe_table

# Resolution of the test images -> metric.
METRICS = {"high": "top1", "low": "low_top1"}


# ---- Tables 1 and 3


def resolution_table(
    paper: Paper, found: list[dict], printed: str = "cars-cropped"
) -> Shown:
    """Tables 1 and 3: top-1 accuracy of each row at high and at low resolution, printed
    and measured, for records of one profile and data set.

    `printed` names the data set whose printed numbers stand beside, except beside quick
    runs. Rows that the paper does not have follow.
    """
    found = unchanged(found)
    quick = is_quick(found)
    about = next(t for t in paper.tables if t.columns[0] == printed)
    labels = _labels(paper, about)
    lines = []
    for label, name in labels.items():
        if quick and name is None:
            continue
        title = paper.row(name).title if name else label
        here = of_row(found, name)
        line: dict[str, object] = {"row": html.escape(title)}
        for column, (resolution, metric) in enumerate(METRICS.items()):
            if not quick:
                line[f"{resolution}, printed %"] = _printed_cell(about, label, column)
            cell = "–" if name is None else _measured_cell(here, found, metric)
            line[f"{resolution}, measured %"] = cell
        line["seeds"] = "–" if name is None else len(here)
        lines.append(line)

    used = [record for record in found if record["row"] in labels.values()]
    begin = "Top-1" if quick else f"{about.name}: top-1"
    note = QUICK_NOTE if quick else ""
    caption = (
        f"{begin} accuracy on high- and low-resolution test images, measured ones with"
        f" their 95 % interval. {setting(used)}{note}"
    )
    titles = {name: label for label, name in labels.items() if name}
    titles.pop("probe", None)  # which sees no image at low resolution
    low = findings.of_rows(used, titles, "low_top1", plain="low", among=found)
    says = f"At low resolution: {low[0].lower()}{low[1:]}" if low else ""
    return table(lines, caption, used, illustration=quick, says=says)


def _labels(paper: Paper, about: Table) -> dict[str, str | None]:
    """What the lines are called -> our row: the printed lines (None where we do not run
    one), then the rows that are ours alone.
    """
    labels: dict[str, str | None] = {}
    for label in about.cells:
        labels[label] = about.rows.get(label)
    for name in peng.MAIN:
        # The restorer names no class; it has a table of its own.
        if name not in labels.values() and name != "restorer":
            labels[paper.row(name).title] = name
    return labels


def _printed_cell(about: Table, label: str, column: int) -> str:
    value = about.cells[label][column] if label in about.cells else None
    return "–" if value is None else f"{value:.1f}"


def _measured_cell(here: list[dict], found: list[dict], metric: str) -> str:
    if not here:
        return "not run"
    if not all(verdicts.holds(record, metric) for record in here):
        return "–"
    mean, interval = accuracy_cells(here, found, metric)
    return f"{mean} ({interval})"


def settings_table(paper: Paper) -> Shown:
    """The settings of Tables 1 and 3; the cells of Table 2 differ in nothing but the
    amounts.
    """
    rows = tuple(paper.row(name) for name in peng.MAIN)
    return recipe_table(replace(paper, rows=rows))


# ---- restored images


def restoration_table(found: list[dict]) -> Shown:
    """How near the restored test images come to the sharp ones, from records of the
    restorer row.
    """
    found = of_row(found, "restorer")
    lines = []
    for title, field in (
        ("reduced and enlarged", "psnr_low"),
        ("restored", "psnr_restored"),
    ):
        cell = "not run"
        if found:
            means = []
            for record in found:
                kept = records.load_predictions(record)
                means.append(kept[field].mean(dtype=np.float64))
            cell = measured(f"{np.mean(means):.2f}", field, found)
        lines.append({"image": title, "PSNR measured, dB": cell})
    return table(
        lines,
        "Peak signal-to-noise ratio against the sharp image, mean over test images."
        f" {setting(found)}",
        found,
        illustration=is_quick(found),
    )


def examples_figure(
    model: SuperResolution, data: DataSet, recipe: Recipe, count: int = 3
) -> Shown:
    """Test images sharp, reduced and enlarged, and restored."""
    index = spread(data.test, count)
    sharp = seen(data.test, index, recipe, model)
    low = model.reduce(sharp)
    columns = {
        "high resolution": sharp,
        f"reduced to {recipe.low_side} px": low,
        "restored": model.restore(low),
    }
    with styled():
        height = WIDTH / len(columns) * len(index) + 0.25
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), len(columns), squeeze=False)
        for down, (title, images) in zip(grid.T, columns.items(), strict=True):
            for axes, image in zip(down, images, strict=True):
                photo(axes, image)
            down[0].set_title(title)
    return figure(
        drawn,
        f"{len(index)} test images ({class_names(data, index)}), each three times:"
        " sharp, blurred by the loss of resolution, and restored with somewhat sharper"
        " edges.",
        f"What the rows see: images of {recipe.image_size} pixels, the same reduced to"
        f" {recipe.low_side} pixels and enlarged, and what the restoring network makes"
        " of these. Images spread evenly over the test split, not chosen by eye.",
    )


# ---- Table 2


def _amounts(found: list[dict]) -> tuple[int, ...]:
    """The amounts of training images, in eighths, that the profile has rows for."""
    return peng.AMOUNTS[found[0]["profile"] if found else "photo"]


def _row_names(amounts: tuple[int, ...]) -> dict[str, list[str]]:
    """Table 2 as rows: what the first stage sees -> a row for each amount of the
    second; "mixed" sees both resolutions at once.
    """
    names = {"none": [peng.staged(0, low) for low in amounts]}
    for high in amounts:
        names[f"H {high}/8"] = [peng.staged(high, low) for low in amounts]
    names["mixed"] = [peng.mixed(low) for low in amounts]
    return names


def amounts_table(found: list[dict]) -> Shown:
    """Table 2 as measured: accuracy at low resolution by the amounts of both stages;
    the last line is mixed training.
    """
    found = unchanged(found)
    amounts = _amounts(found)
    lines = []
    for first, names in _row_names(amounts).items():
        line = {"first stage": "both at once" if first == "mixed" else first}
        for low, name in zip(amounts, names, strict=True):
            here = of_row(found, name)
            line[f"L {low}/8, measured %"] = _low_cell(here, found)
        lines.append(line)
    used = [record for record in found if record["row"] in peng.grid(record["profile"])]
    note = QUICK_NOTE if is_quick(found) else ""
    return table(
        lines,
        "Top-1 accuracy on low-resolution test images: lines, the share of the"
        " training images that the first stage sees at high resolution; columns, the"
        " share that the second stage sees at low resolution."
        f" {_seeds(used)}{setting(used)}{note}",
        used,
        illustration=is_quick(found),
        says=_staged_or_mixed(found),
    )


def _staged_or_mixed(found: list[dict]) -> str:
    """How staged training compares with mixed training on exactly the same images."""
    effects = _measured_differences(found)
    by_amount = {f"{amount}/8": effect for amount, effect in effects.items()}
    return findings.of_effects(by_amount, "staged minus mixed, on the same images")


def _low_cell(here: list[dict], found: list[dict]) -> str:
    return accuracy_cells(here, found, "low_top1")[0] if here else "not run"


def _seeds(used: list[dict]) -> str:
    """A sentence where cells differ in their numbers of seeds."""
    rows = [record["row"] for record in used]
    numbers = sorted({rows.count(row) for row in rows})
    if len(numbers) < 2:
        return ""
    return f"Cells are means over {numbers[0]} to {numbers[-1]} seeds. "


# Title, values (lines, columns) with NaN for a dash, names of lines and of columns.
Map = tuple[str, NDArray, list[str], list[str]]


def amounts_figure(paper: Paper, found: list[dict]) -> Shown:
    """Table 2 as a map, the printed one above the measured one; quick runs alone."""
    found = unchanged(found)
    quick = is_quick(found)
    maps = [] if quick else [_printed(paper)]
    if found:
        maps.append(_measured(found))
    heights = [0.29 * len(values) + 0.55 for _, values, _, _ in maps]
    with styled():
        drawn = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        grid = drawn.subplots(len(maps), height_ratios=heights, squeeze=False)
        for axes, each in zip(grid.flat, maps, strict=True):
            _draw_map(axes, each)

    caption = (
        "Accuracy on low-resolution test images, %. Downwards: more high-resolution"
        " images in the first stage; to the right: more low-resolution images in the"
        " second; last line: both resolutions at once. Lighter is better, each map on"
        " its own scale."
    )
    if not quick:
        caption += (
            " In the printed map, 1k are a thousand of about eight thousand images."
        )
    said = " ".join(_say_map(each) for each in maps)
    return figure(
        drawn,
        "Maps of the accuracy on low-resolution test images by amount of training"
        f" images. {said}",
        caption,
    )


def _printed(paper: Paper) -> Map:
    """Table 2 as printed, (10, 8). The last line is mixed training."""
    about = next(t for t in paper.tables if t.name == "Table 2")
    values = np.array(list(about.cells.values()), dtype=float)
    title = "printed (Stanford Cars)"
    return title, values, list(about.cells), list(about.columns)


def _measured(found: list[dict]) -> Map:
    amounts = _amounts(found)
    lines = _row_names(amounts)
    values = np.full((len(lines), len(amounts)), np.nan)
    for y, names in enumerate(lines.values()):
        for x, name in enumerate(names):
            here = of_row(found, name)
            if here:
                values[y, x] = accuracy(here, found, "low_top1")[0]
    title = f"measured ({found[0]['dataset']})"
    return title, values, list(lines), [f"L {low}/8" for low in amounts]


def _draw_map(axes: Axes, each: Map) -> None:
    title, values, lines, columns = each
    axes.imshow(values, cmap="cividis", aspect="auto")
    known = np.isfinite(values)
    middle = 0.0
    if known.any():
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for y, x in np.argwhere(known):
        axes.text(
            x,
            y,
            f"{values[y, x]:.1f}",
            ha="center",
            va="center",
            fontsize=9,
            # the lower half of the colours is dark
            color="white" if values[y, x] < middle else "black",
        )
    axes.axhline(len(values) - 1.5, color="white", lw=3)  # mixed training stands apart
    axes.set(
        xticks=range(len(columns)),
        xticklabels=columns,
        yticks=range(len(lines)),
        yticklabels=lines,
        title=title,
    )
    axes.tick_params(length=0, labelsize=9.5)
    axes.spines[:].set_visible(False)


def _say_map(each: Map) -> str:
    title, values, lines, _ = each
    said = []
    for line, row in zip(lines, values, strict=True):
        cells = ["not run" if np.isnan(value) else f"{value:.1f}" for value in row]
        said.append(f"{line}: {', '.join(cells)}")
    return f"{title}: {'; '.join(said)}."


def difference_figure(paper: Paper, found: list[dict]) -> Shown:
    """Staged minus mixed training on the same images, against their amount: printed and
    measured; quick runs alone.
    """
    found = unchanged(found)
    printed = {} if is_quick(found) else _printed_differences(paper)
    effects = _measured_differences(found)
    with styled():
        drawn = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = drawn.subplots()
        if printed:
            axes.plot(
                list(printed),
                list(printed.values()),
                marker="D",
                ls="--",
                color=OKABE_ITO["red"],
                mfc="white",
                label="printed",
            )
        if effects:
            middle = [one.effect for one in effects.values()]
            below = [one.effect - one.low for one in effects.values()]
            above = [one.high - one.effect for one in effects.values()]
            axes.errorbar(
                list(effects),
                middle,
                yerr=[below, above],
                marker="o",
                ls="-",
                color=OKABE_ITO["blue"],
                capsize=4,
                label=MEASURED,
            )
        axes.axhline(0, color=OKABE_ITO["ink"], lw=1)
        axes.set(
            xlabel="eighths of the training images",
            ylabel="staged minus mixed, points",
            xticks=range(1, peng.ALL + 1),
        )
        if printed or effects:
            axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    caption = (
        "Staged minus mixed training on exactly the same images, in points of accuracy"
        " on low-resolution test images: above zero, staged training is better. The"
        " paper's claim is that the difference is about zero with all images and above"
        " it with few."
    )
    if len({record["seed"] for record in found}) == 1:
        caption += (
            " The interval of a single seed covers the choice of test images only."
        )
    return figure(
        drawn,
        "Curve of the difference in accuracy between staged and mixed training by"
        f" amount of training images. {_say_differences(printed, effects)}",
        caption,
    )


MEASURED = "measured, 95 % interval"


def _printed_differences(paper: Paper) -> dict[int, float]:
    """Eighths of the images -> staged minus mixed training, as printed."""
    _, values, _, _ = _printed(paper)
    # Line a: a thousand images more in the first stage; column a - 1: a thousand in
    # the second. The paper prints a dash for mixed training on one thousand.
    amounts = range(2, peng.ALL + 1)
    return {a: float(values[a, a - 1] - values[-1, a - 1]) for a in amounts}


def _measured_differences(found: list[dict]) -> dict[int, Effect]:
    effects = {}
    for amount in _amounts(found):
        staged = of_row(found, peng.staged(amount, amount))
        mixed = of_row(found, peng.mixed(amount))
        if staged and mixed:
            effects[amount] = verdicts.compare(staged, mixed, "low_top1", among=found)
    return effects


def _say_differences(printed: dict[int, float], effects: dict[int, Effect]) -> str:
    said = []
    if printed:
        values = [f"{at}/8: {signed(value)}" for at, value in printed.items()]
        said.append(f"printed: {', '.join(values)}.")
    if effects:
        values = [f"{at}/8: {effect_text(one)}" for at, one in effects.items()]
        said.append(f"{MEASURED}: {', '.join(values)}.")
    return " ".join(said) or "Not run yet."
