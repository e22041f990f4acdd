"""Figures and tables of the chapter on paper D (Liang and Qu): where the foreground
lies, what is shuffled, and the losses of the branches.
"""

import html

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..evaluation.localisation import LEVELS
from ..evidence import records, verdicts
from ..evidence.verdicts import Effect
from ..images import regions
from ..images.shuffle import shuffle_patches
from ..methods.flrdf import Flrdf
from ..recipe import Recipe
from . import findings
from .base import OKABE_ITO, WIDTH, Shown, figure, sentence, styled, table
from .curves import Curves, Panel, sweep_figure
from .effects import bars, effect_text
from .photos import TRUTH, class_names, lit, outline, photo, seen, seen_box, spread
from .regions import located, located_cell, located_mean
from .summary import is_quick, of_row, setting, unchanged

# fmt: off
# What is compared: (row, which of its maps), what that is, and in short.
MAPS = {
    ("cam", "foreground"): ("plain class activation map", "plain map"),
    ("fixed", "foreground"): ("maxima pressed to 70 %", "pressed to 70 %"),
    ("flrdf", "foreground"): ("learnable suppression", "learnable"),
    ("flrdf", "cam"): ("the same network's maps before suppression", "its maps before"),
}
# fmt: on
# Boxes that know nothing of the image.
CONSTANT = {"centre": "middle square, half the area", "whole": "whole image"}
# Row -> patches a side; and how many are shown.
PATCHES = {"foreground": "not looked at", "n1": "1", "n2": "2", "flrdf": "4", "n8": "8"}
SHUFFLED = (1, 2, 4, 8)


# ---- Table 3


def boxes_table(found: list[dict]) -> Shown:
    """Table 3 as measured: how well boxes and maps fit the object, by suppression and
    threshold, beside boxes that know nothing of the image.
    """
    scored = []
    for record in located(found):
        if "foreground_maxboxaccv2" in record["localisation"]:
            scored.append(record)
    lines = []
    for (row, name), (title, _) in MAPS.items():
        here = of_row(scored, row)
        if here:
            boxes = (f"{name}_max", f"{name}_mean")
            lines.append(_line(title, here, boxes, f"{name}_maxboxaccv2"))
    for name, title in CONSTANT.items():
        if scored:
            # The same in every record, and at every threshold.
            one = scored[:1]
            lines.append(_line(title, one, (name, name), f"{name}_average"))
    blind = [located_mean(scored[:1], f"{name}_iou") for name in CONSTANT if scored]
    pairs = {}
    for (row, name), (title, _) in MAPS.items():
        if here := of_row(scored, row):
            pairs[title] = (located_mean(here, f"{name}_max_iou"), max(blind))
    return table(
        lines or [{"box": "–", "measured": "not run"}],
        "Boxes against the object's box on the test images, larger is better: share of"
        " images with an IoU of at least 0.5, and mean IoU, for a threshold at a share"
        " of the map's maximum and at its mean; and MaxBoxAccV2, the mean over an IoU"
        " of 0.3, 0.5 and 0.7 of the best share over all levels at which the maps can"
        f" be cut, on these very images. {setting(scored)}",
        scored,
        illustration=is_quick(scored),
        says=findings.of_pairs(
            pairs, "boxes cut from maps", "the best box that knows nothing of the image"
        ),
    )


def _line(
    title: str, found: list[dict], boxes: tuple[str, str], of_map: str
) -> dict[str, object]:
    """One kind of maps: the `boxes` cut at a share of the maximum and at the mean."""
    level = found[0]["options"].get("level", 0.2)
    line: dict[str, object] = {"box": html.escape(title)}
    for name, where in zip(
        boxes, (f"{level:g} of the maximum", "the mean"), strict=True
    ):
        hits = located_cell(found, f"{name}_hit50")
        line[f"measured IoU ≥ 0.5, cut at {where}"] = hits
        line[f"measured mean IoU, cut at {where}"] = located_cell(found, f"{name}_iou")
    line["measured MaxBoxAccV2"] = located_cell(found, of_map)
    line["seeds"] = len(found)
    return line


def levels_figure(found: list[dict], iou: float = 0.5) -> Shown:
    """Share of test images with a box of at least that IoU, against the level at which
    the maps are cut: what MaxBoxAccV2 takes the maximum of.
    """
    which = (0.3, 0.5, 0.7).index(iou)
    curves: Curves = {}
    for (row, name), (_, title) in MAPS.items():
        kept = [records.load_predictions(record) for record in of_row(found, row)]
        field = f"boxacc_{name}"
        if kept and field in kept[0]:
            by_seed = [one[field][which] for one in kept]
            shares = np.mean(by_seed, axis=0, dtype=float)
            # Every fifth level is enough for the eye and for the text.
            curves[title] = {
                round(float(LEVELS[i]), 2): float(shares[i])
                for i in range(0, len(LEVELS), 5)
            }
    if not curves:
        return sentence("No maps have been scored here.")
    return sweep_figure(
        [("level at which maps are cut", f"share with IoU ≥ {iou:g}", curves, None)],
        f"Share of test images with a box that reaches an IoU of {iou:g}, by the level"
        " at which every map is cut, from its minimum (0: the whole image) to its"
        " maximum (1); the best of all components counts.",
    )


def maps_figure(model: Flrdf, data: DataSet, recipe: Recipe, count: int = 4) -> Shown:
    """Test images with the true box; lit by the map before and after suppression, each
    with its box; and the foreground, enlarged.
    """
    index = spread(data.test, count)
    images = seen(data.test, index, recipe, model)
    maps, boxes = model.activation_maps(images), model.locate(images)
    views = _enlarged(images, boxes["foreground"])

    before = "cam" in maps  # a plain map has nothing before suppression
    columns = {"foreground": ("pressed" if before else "map", OKABE_ITO["sky"], "-")}
    if before:
        columns = {"cam": ("before", OKABE_ITO["orange"], "--")} | columns
    titles = ["image", *(title for title, _, _ in columns.values()), "foreground"]

    with styled():
        height = 0.3 + WIDTH / len(titles) * len(index)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), len(titles), squeeze=False)
        for i, (first, *others, last) in enumerate(grid):
            photo(first, images[i])
            box = seen_box(data, int(index[i]), recipe)
            if box is not None:
                outline(first, box, *TRUTH)
            for axes, (name, (_, colour, line)) in zip(
                others, columns.items(), strict=True
            ):
                photo(axes, lit(images[i], maps[name][i], model.backbone))
                outline(axes, boxes[name][i].cpu(), colour, line)
            photo(last, views[i])
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=11)
    by = "by the map with a solid box"
    if before:
        by = (
            "by the class activation map before suppression with a dashed box, by the"
            " map after it with a solid box"
        )
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({class_names(data, index)}): the image with"
        f" a white box round the object, the image lit {by}, and what that box cuts"
        " out, enlarged.",
        "Localisation maps of the predicted class, drawn as light, each on its own"
        " scale, with the boxes that the method draws from them; at the right, what the"
        " second branch sees. White: the true box, which training does not see. Images"
        " spread evenly over the test split, not chosen by eye.",
    )


def _enlarged(images: Tensor, boxes: Tensor) -> Tensor:
    """What the boxes (B, 4) cut out of the images (B, 3, s, s), as large as these."""
    return regions.crop_zoom(images, boxes[:, None], images.shape[-1])[:, 0]


# ---- Table 4


def patches_figure(found: list[dict]) -> Shown:
    """Accuracy by patches a side, as the difference to one patch on the same test
    images.
    """
    found = unchanged(found)
    whole = of_row(found, "n1")
    effects: dict[str, Effect] = {}
    for row, title in PATCHES.items():
        here = of_row(found, row)
        if row != "n1" and here and whole:
            effects[title] = verdicts.compare(here, whole, among=found)
    if not effects:
        return Shown(
            "<p>Not run yet: the row n1 and another one are needed.</p>", "Not run yet."
        )
    with styled():
        drawn = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = drawn.subplots()
        titles = list(PATCHES.values())
        for title, effect in effects.items():
            axes.errorbar(
                titles.index(title),
                effect.effect,
                yerr=bars(effect),
                fmt="o",
                color=OKABE_ITO["blue"],
                capsize=4,
                lw=2,
            )
        ink = OKABE_ITO["ink"]
        axes.plot(titles.index(PATCHES["n1"]), 0, "s", mfc="white", mec=ink)
        axes.axhline(0, color=ink, lw=1, zorder=0)
        axes.set(
            xticks=range(len(titles)),
            xticklabels=titles,
            xlim=(-0.5, len(titles) - 0.5),
            xlabel="patches a side in the third branch",
            ylabel="points against n = 1",
        )
    said = [f"{title}: {effect_text(effect)}" for title, effect in effects.items()]
    one_seed = ""
    if min(effect.seeds for effect in effects.values()) == 1:
        one_seed = ", which with one seed covers the choice of test images only"
    return figure(
        drawn,
        "Differences in accuracy to n = 1 in percentage points, by patches a side."
        f" {'; '.join(said)}.",
        "Accuracy by the number of patches a side, as the difference to n = 1 (square)"
        f" on the same test images, with its 95 % interval{one_seed}. Not"
        " looked at: the third branch is left out.",
    )


def shuffles_figure(
    model: Flrdf, data: DataSet, recipe: Recipe, count: int = 3
) -> Shown:
    """Foregrounds of test images, cut into n x n patches and shuffled: what the third
    branch sees.
    """
    index = spread(data.test, count)
    images = seen(data.test, index, recipe, model)
    views = _enlarged(images, model.locate(images)["foreground"])
    with torch.random.fork_rng(), styled():
        torch.manual_seed(0)  # the same picture every time
        height = 0.3 + WIDTH / len(SHUFFLED) * len(index)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), len(SHUFFLED), squeeze=False)
        for down, n in zip(grid.T, SHUFFLED, strict=True):
            for axes, view in zip(down, shuffle_patches(views, n), strict=True):
                photo(axes, view)
            down[0].set_title(f"n = {n}")
    return figure(
        drawn,
        f"Grid of the foregrounds of {len(index)} test images"
        f" ({class_names(data, index)}), cut into n x n squares that change places, for"
        f" n = {', '.join(map(str, SHUFFLED))}.",
        "What the third branch sees: the foreground cut into n x n patches that change"
        " places at random. With more patches the outline goes first, then the parts,"
        " then all but texture. Images spread evenly over the test split, not chosen by"
        " eye.",
    )


# ---- Figure 5


def losses_figure(found: list[dict]) -> Shown:
    """Figure 5: the training losses of the three branches and their weighted sum, epoch
    by epoch, mean over seeds; a panel for each data set.
    """
    by_dataset: dict[str, list[dict]] = {}
    for record in of_row(found, "flrdf"):
        by_dataset.setdefault(record["dataset"], []).append(record)
    if not by_dataset:
        return sentence("No losses were kept of these runs.")
    panels: list[Panel] = []
    for dataset, here in by_dataset.items():
        panels.append(("epoch", f"loss ({dataset})", _mean_losses(here), None))
    return sweep_figure(
        panels,
        "The cross-entropy of each branch on the training images, in nats, and what"
        " training makes small: their sum with the recipe's weights.",
    )


def _mean_losses(found: list[dict]) -> Curves:
    """Branch -> {epoch: loss}, means over the records of a row, and their sum."""
    weights = dict(found[0]["recipe"]["loss_weights"])
    by_seed = [record["train"]["losses"] for record in found]
    epochs = min(len(losses) for losses in by_seed)
    curves: Curves = {name: {} for name in by_seed[0][0]}
    curves["sum"] = {}
    for epoch in range(epochs):
        total = 0.0
        for name in by_seed[0][0]:
            mean = float(np.mean([losses[epoch][name] for losses in by_seed]))
            curves[name][epoch + 1] = mean
            total += weights.get(name, 1.0) * mean
        curves["sum"][epoch + 1] = total
    return curves
