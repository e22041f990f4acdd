"""Tables and figures of the chapter on low resolution (Peng et al. 2016)."""

import html
from dataclasses import replace

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..data.dataset import DataSet
from ..evidence import records, verdicts
from ..images import augment
from ..methods.superres import SuperResolution
from ..papers import peng
from ..papers.spec import Paper
from ..recipe import Recipe
from . import (
    OKABE_ITO,
    QUICK_NOTE,
    STYLE,
    WIDTH,
    Shown,
    _photo,
    accuracy,
    figure,
    measured,
    recipe_table,
    setting,
    spread,
    table,
)

METRICS = {"high": "top1", "low": "low_top1"}  # resolution of the test images -> metric


def resolution_table(
    paper: Paper, found: list[dict], printed: str = "cars-cropped"
) -> Shown:
    """Tables 1 and 3: top-1 accuracy of each row at high and at low resolution, printed
        and measured, for records of one profile and data set.

    `printed` names the data set whose printed numbers stand beside, except beside quick
    runs. Rows that the paper does not have follow.
    """
    about = next(t for t in paper.tables if t.columns[0] == printed)
    quick = any(r["profile"] == "quick" for r in found)
    ours = {label: about.rows.get(label) for label in about.cells}
    extra = {
        paper.row(name).title: name
        for name in peng.MAIN
        if name not in ours.values() and name != "restorer"
    }
    lines = []
    for label, name in (ours | extra).items():
        if quick and name is None:
            continue
        of_row = [r for r in found if r["row"] == name]
        line = {"row": html.escape(paper.row(name).title if name else label)}
        for column, (resolution, metric) in enumerate(METRICS.items()):
            if not quick:
                value = about.cells[label][column] if label in about.cells else None
                line[f"{resolution}, printed %"] = (
                    "–" if value is None else f"{value:.1f}"
                )
            line[f"{resolution}, measured %"] = (
                _accuracy(of_row, metric) if of_row else "not run" if name else "–"
            )
        lines.append(line | {"seeds": len(of_row) if name else "–"})
    what = (
        f"{'' if quick else about.name + ': '}top-1 accuracy on high- and"
        " low-resolution test images, measured ones with their 95 % interval."
        f" {setting(found)}"
    )
    return table(
        lines,
        what[0].upper() + what[1:] + (QUICK_NOTE if quick else ""),
        found,
        illustration=quick,
    )


def _accuracy(of_row: list[dict], metric: str) -> str:
    mean, low, high = accuracy(of_row, metric)
    return (
        f"{measured(f'{mean:.1f}', metric, of_row)}"
        f" ({measured(f'{low:.1f} to {high:.1f}', f'{metric} interval', of_row)})"
    )


def settings_table(paper: Paper) -> Shown:
    """The settings of Tables 1 and 3; the cells of Table 2 differ in nothing but the
    amounts."""
    return recipe_table(
        replace(paper, rows=tuple(paper.row(name) for name in peng.MAIN))
    )


def restoration_table(found: list[dict]) -> Shown:
    """How near the restored test images come to the sharp ones, from records of the
    restorer row."""
    found, lines = [r for r in found if r["row"] == "restorer"], []
    for title, name in (
        ("reduced and enlarged", "psnr_low"),
        ("restored", "psnr_restored"),
    ):
        value = (
            np.mean(
                [
                    records.load_predictions(r)[name].mean(dtype=np.float64)
                    for r in found
                ]
            )
            if found
            else None
        )
        lines.append(
            {
                "image": title,
                "PSNR measured, dB": (
                    measured(f"{value:.2f}", name, found) if found else "not run"
                ),
            }
        )
    quick = any(r["profile"] == "quick" for r in found)
    return table(
        lines,
        "Peak signal-to-noise ratio against the sharp image, mean over test images."
        f" {setting(found)}",
        found,
        illustration=quick,
    )


def examples_figure(
    model: SuperResolution, data: DataSet, recipe: Recipe, count: int = 3
) -> Shown:
    """Test images sharp, reduced and enlarged, and restored."""
    index = spread(data.test, count)
    sharp = augment.centre(
        data.test.images[index].to(next(model.parameters()).device), recipe.image_size
    )
    low = model.reduce(sharp)
    columns = {
        "high resolution": sharp,
        f"reduced to {recipe.low_side} px": low,
        "restored": model.restore(low),
    }
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, WIDTH / 3 * len(index) + 0.25), layout="constrained"
        )
        grid = drawn.subplots(len(index), 3, squeeze=False)
        for column, (title, images) in enumerate(columns.items()):
            for line in range(len(index)):
                _photo(grid[line, column], images[line])
            grid[0, column].set_title(title)
    names = ", ".join(data.classes[k] for k in data.test.labels[index].tolist())
    return figure(
        drawn,
        f"{len(index)} test images ({names}), each three times: sharp, blurred by the"
        " loss of resolution, and restored with somewhat sharper edges.",
        f"What the rows see: images of {recipe.image_size} pixels, the same reduced to"
        f" {recipe.low_side} pixels and enlarged, and what the restoring network makes"
        " of these. Images spread evenly over the test split, not chosen by eye.",
    )


# ---- Table 2


def amounts_table(paper: Paper, found: list[dict]) -> Shown:
    """Table 2 as measured: accuracy at low resolution by the amounts of both stages;
    the last line is mixed training."""
    quick, amounts = any(r["profile"] == "quick" for r in found), _amounts(found)
    lines = []
    for high in (0, *amounts, None):  # None: mixed
        line = {
            "first stage": (
                "both at once"
                if high is None
                else "none"
                if high == 0
                else f"H {high}/8"
            )
        }
        for low in amounts:
            name = peng.mixed(low) if high is None else peng.staged(high, low)
            of_row = [r for r in found if r["row"] == name]
            line[f"L {low}/8, measured %"] = (
                measured(f"{accuracy(of_row, 'low_top1')[0]:.1f}", "low_top1", of_row)
                if of_row
                else "not run"
            )
        lines.append(line)
    used = [r for r in found if r["row"] in peng.grid(r["profile"])]
    seeds = sorted(
        {sum(r["row"] == row for r in used) for row in {r["row"] for r in used}}
    )
    each = (
        f"Cells are means over {seeds[0]} to {seeds[-1]} seeds. "
        if len(seeds) > 1
        else ""
    )
    return table(
        lines,
        "Top-1 accuracy on low-resolution test images: lines, the share of the"
        " training images that the first stage sees at high resolution; columns, the"
        f" share that the second stage sees at low resolution. {each}{setting(used)}"
        + (QUICK_NOTE if quick else ""),
        used,
        illustration=quick,
    )


def amounts_figure(paper: Paper, found: list[dict]) -> Shown:
    """Table 2 as a map, the printed one above the measured one; quick runs alone."""
    quick, amounts = any(r["profile"] == "quick" for r in found), _amounts(found)
    panels = [] if quick else [("printed (Stanford Cars)", *_printed(paper))]
    cell = lambda name: (
        lambda of_row: accuracy(of_row, "low_top1")[0] if of_row else np.nan
    )([r for r in found if r["row"] == name])
    if found:
        values = np.array(
            [[cell(peng.staged(h, low)) for low in amounts] for h in (0, *amounts)]
            + [[cell(peng.mixed(low)) for low in amounts]]
        )
        panels.append(
            (
                f"measured ({found[0]['dataset']})",
                values,
                ["none", *(f"H {h}/8" for h in amounts), "mixed"],
                [f"L {low}/8" for low in amounts],
            )
        )
    heights = [0.29 * len(values) + 0.55 for _, values, _, _ in panels]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        for axes, (title, values, lines, columns) in zip(
            drawn.subplots(len(panels), height_ratios=heights, squeeze=False).flat,
            panels,
            strict=True,
        ):
            axes.imshow(values, cmap="cividis", aspect="auto")
            middle = (
                (np.nanmin(values) + np.nanmax(values)) / 2
                if np.isfinite(values).any()
                else 0
            )
            for y, x in np.argwhere(np.isfinite(values)):
                axes.text(
                    x,
                    y,
                    f"{values[y, x]:.1f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if values[y, x] < middle else "black",
                )
            # mixed training stands apart
            axes.axhline(len(values) - 1.5, color="white", lw=3)
            axes.set(
                xticks=range(len(columns)),
                xticklabels=columns,
                yticks=range(len(lines)),
                yticklabels=lines,
                title=title,
            )
            axes.tick_params(length=0, labelsize=9.5)
            axes.spines[:].set_visible(False)
    said = " ".join(
        f"{title}: "
        + "; ".join(
            f"{line}: "
            + ", ".join("not run" if np.isnan(v) else f"{v:.1f}" for v in row)
            for line, row in zip(lines, values)
        )
        + "."
        for title, values, lines, _ in panels
    )
    return figure(
        drawn,
        "Maps of the accuracy on low-resolution test images by amount of training"
        f" images. {said}",
        "Accuracy on low-resolution test images, %. Downwards: more high-resolution"
        " images in the first stage; to the right: more low-resolution images in the"
        " second; last line: both resolutions at once. Lighter is better, each map on"
        " its own scale."
        + (
            ""
            if quick
            else (
                " In the printed map, 1k are a thousand of about eight thousand images."
            )
        ),
    )


def difference_figure(paper: Paper, found: list[dict]) -> Shown:
    """Staged minus mixed training on the same images, against their amount: printed and
    measured; quick runs alone."""
    quick, curves = any(r["profile"] == "quick" for r in found), {}
    if not quick:
        values, _, _ = _printed(paper)
        curves["printed"] = {
            a: (values[a, a - 1] - values[-1, a - 1], 0.0, 0.0)
            for a in range(2, peng.ALL + 1)
        }
    for amount in _amounts(found):
        rows = [
            [r for r in found if r["row"] == name]
            for name in (peng.staged(amount, amount), peng.mixed(amount))
        ]
        if {r["seed"] for r in rows[0]} & {r["seed"] for r in rows[1]}:
            effect = verdicts.compare(*rows, "low_top1")
            curves.setdefault("measured, 95 % interval", {})[amount] = (
                effect.effect,
                effect.effect - effect.low,
                effect.high - effect.effect,
            )
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = drawn.subplots()
        for (name, points), (marker, line, colour) in zip(
            curves.items(),
            (
                (("D", "--", OKABE_ITO["red"]), ("o", "-", OKABE_ITO["blue"]))
                if not quick
                else (("o", "-", OKABE_ITO["blue"]),)
            ),
        ):
            at, y = list(points), np.array(list(points.values()))
            if name == "printed":
                axes.plot(
                    at,
                    y[:, 0],
                    marker=marker,
                    ls=line,
                    color=colour,
                    mfc="white",
                    label=name,
                )
            else:
                axes.errorbar(
                    at,
                    y[:, 0],
                    yerr=y[:, 1:].T,
                    marker=marker,
                    ls=line,
                    color=colour,
                    capsize=4,
                    label=name,
                )
        axes.axhline(0, color="black", lw=1)
        axes.set(
            xlabel="eighths of the training images",
            ylabel="staged minus mixed, points",
            xticks=range(1, peng.ALL + 1),
        )
        if curves:
            axes.legend(
                ncols=2, fontsize=10, loc="lower left", bbox_to_anchor=(-0.02, 1.0)
            )
    said = (
        " ".join(
            f"{name}: "
            + ", ".join(
                f"{at}/8: {y[0]:+.1f}"
                + (f" ({y[0] - y[1]:+.1f} to {y[0] + y[2]:+.1f})" if y[1] else "")
                for at, y in points.items()
            )
            + "."
            for name, points in curves.items()
        )
        or "Not run yet."
    )
    return figure(
        drawn,
        "Curve of the difference in accuracy between staged and mixed training by"
        f" amount of training images. {said}",
        "Staged minus mixed training on exactly the same images, in points of accuracy"
        " on low-resolution test images: above zero, staged training is better. The"
        " paper's claim is that the difference is about zero with all images and above"
        " it with few."
        + (
            " The interval of a single seed covers the choice of test images only."
            if len({r["seed"] for r in found}) == 1
            else ""
        ),
    )


def _amounts(found: list[dict]) -> tuple[int, ...]:
    return peng.AMOUNTS[found[0]["profile"] if found else "photo"]


def _printed(paper: Paper) -> tuple[np.ndarray, list[str], list[str]]:
    """Table 2 as printed: values (10, 8) with NaN for a dash, names of its lines and
    columns. The last line is mixed training."""
    about = next(t for t in paper.tables if t.name == "Table 2")
    return (
        np.array(list(about.cells.values()), dtype=float),
        list(about.cells),
        list(about.columns),
    )
