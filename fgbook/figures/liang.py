"""Figures and tables of the chapter on paper D (Liang and Qu): where the foreground
lies, what is shuffled, and the losses of the branches."""

import html
import json

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from .. import paths
from ..data.dataset import DataSet
from ..evaluation.localisation import LEVELS
from ..evidence import records, verdicts
from ..images import regions
from ..methods.flrdf import Flrdf, shuffle_patches
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

# What is compared: (row, which of its maps), what that is, and in short.
MAPS = {
    ("cam", "foreground"): ("plain class activation map", "plain map"),
    ("fixed", "foreground"): ("maxima pressed to 70 %", "pressed to 70 %"),
    ("flrdf", "foreground"): ("learnable suppression", "learnable"),
    ("flrdf", "cam"): ("the same network's maps before suppression", "its maps before"),
}
# boxes that know nothing of the image
CONSTANT = {"centre": "middle square, half the area", "whole": "whole image"}
# row -> patches a side
PATCHES = {"foreground": "not looked at", "n1": "1", "n2": "2", "flrdf": "4", "n8": "8"}


# ---- Table 3


def boxes_table(found: list[dict]) -> Shown:
    """Table 3 as measured: how well boxes and maps fit the object, by suppression and
    threshold, beside boxes that know nothing of the image."""
    of = [
        r
        for r in found
        if r["localisation"] and "foreground_maxboxaccv2" in r["localisation"]
    ]
    level = next((r["options"].get("level", 0.2) for r in of), 0.2)
    lines = []
    for (row, name), (title, _) in MAPS.items():
        here = [r for r in of if r["row"] == row]
        if here:
            lines.append(
                _line(
                    title,
                    here,
                    f"{name}_max",
                    f"{name}_mean",
                    f"{name}_maxboxaccv2",
                    level,
                )
            )
    for name, title in CONSTANT.items():
        if of:
            # the same in every record
            lines.append(_line(title, of[:1], name, name, f"{name}_average", level))
    lines = lines or [{"box": "–", "measured": "not run"}]
    return table(
        lines,
        "Boxes against the object's box on the test images, larger is better: share of"
        " images with an IoU of at least 0.5, and mean IoU, for a threshold at a share"
        " of the map's maximum and at its mean; and MaxBoxAccV2, the mean over an IoU"
        " of 0.3, 0.5 and 0.7 of the best share over all levels at which the maps can"
        f" be cut, on these very images. {setting(of)}",
        of,
        illustration=any(r["profile"] == "quick" for r in of),
    )


def _line(
    title: str, found: list[dict], at_max: str, at_mean: str, of_map: str, level: float
) -> dict:
    line = {"box": html.escape(title)}
    for name, where in ((at_max, f"{level:g} of the maximum"), (at_mean, "the mean")):
        line |= {
            f"measured IoU ≥ 0.5, cut at {where}": _share(found, f"{name}_hit50"),
            f"measured mean IoU, cut at {where}": _share(found, f"{name}_iou"),
        }
    return line | {"measured MaxBoxAccV2": _share(found, of_map), "seeds": len(found)}


def levels_figure(found: list[dict], iou: float = 0.5) -> Shown:
    """Share of test images with a box of at least that IoU, against the level at which
    the maps are cut: what MaxBoxAccV2 takes the maximum of."""
    which, curves = (0.3, 0.5, 0.7).index(iou), {}
    for (row, name), (_, title) in MAPS.items():
        here = [records.load_predictions(r) for r in found if r["row"] == row]
        if here and f"boxacc_{name}" in here[0]:
            shares = np.mean(
                [kept[f"boxacc_{name}"][which] for kept in here], axis=0, dtype=float
            )
            curves[title] = {
                round(float(LEVELS[i]), 2): float(shares[i])
                for i in range(0, len(LEVELS), 5)
            }
    if not curves:
        return Shown(
            "<p>No maps have been scored here.</p>", "No maps have been scored here."
        )
    return sweep_figure(
        [("level at which maps are cut", f"share with IoU ≥ {iou:g}", curves, None)],
        f"Share of test images with a box that reaches an IoU of {iou:g}, by the level"
        " at which every map is cut, from its minimum (0: the whole image) to its"
        " maximum (1); the best of all components counts.",
    )


def maps_figure(model: Flrdf, data: DataSet, recipe: Recipe, count: int = 4) -> Shown:
    """Test images with the true box; lit by the map before and after suppression, each
    with its box; and the foreground, enlarged."""
    index = spread(data.test, count)
    images = _seen(data.test, index, recipe, model)
    maps, boxes = model.activation_maps(images), model.locate(images)
    views = regions.crop_zoom(images, boxes["foreground"][:, None], images.shape[-1])[
        :, 0
    ]
    margin = (data.size - recipe.image_size) // 2
    shown = [
        (name, style)
        for name, style in (
            ("cam", (OKABE_ITO["orange"], "--")),
            ("foreground", (OKABE_ITO["sky"], "-")),
        )
        if name in maps
    ]
    titles = {"cam": "before", "foreground": "pressed" if "cam" in maps else "map"}
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 0.3 + WIDTH / (2 + len(shown)) * len(index)),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), 2 + len(shown), squeeze=False)
        for line, (first, *others, last) in enumerate(grid):
            _photo(first, images[line])
            if data.test.boxes is not None:
                _box(
                    first,
                    (data.test.boxes[index[line]] - margin).clamp(0, recipe.image_size),
                    "#FFFFFF",
                    "-",
                )
            for axes, (name, style) in zip(others, shown, strict=True):
                _photo(axes, _lit(images[line], maps[name][line], model.backbone))
                _box(axes, boxes[name][line].cpu(), *style)
            _photo(last, views[line])
        for axes, title in zip(
            grid[0],
            ["image", *(titles[name] for name, _ in shown), "foreground"],
            strict=True,
        ):
            axes.set_title(title, fontsize=10.5)
    names = ", ".join(data.classes[k] for k in data.test.labels[index].tolist())
    before = (
        "by the class activation map before suppression with a dashed box, by the map"
        " after it with a solid box"
        if len(shown) > 1
        else "by the map with a solid box"
    )
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({names}): the image with a white box round"
        f" the object, the image lit {before}, and what that box cuts out, enlarged.",
        "Localisation maps of the predicted class, drawn as light, each on its own"
        " scale, with the boxes that the method draws from them; at the right, what the"
        " second branch sees. White: the true box, which training does not see. Images"
        " spread evenly over the test split, not chosen by eye.",
    )


# ---- Table 4


def patches_figure(found: list[dict]) -> Shown:
    """Accuracy by patches a side, as the difference to one patch on the same test
    images."""
    whole = [r for r in found if r["row"] == "n1"]
    points = {}
    for row, title in PATCHES.items():
        here = [r for r in found if r["row"] == row]
        if row != "n1" and {r["seed"] for r in here} & {r["seed"] for r in whole}:
            points[title] = verdicts.compare(here, whole)
    if not points:
        return Shown(
            "<p>Not run yet: the row n1 and another one are needed.</p>", "Not run yet."
        )
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = drawn.subplots()
        for at, title in enumerate(PATCHES.values()):
            if title in points:
                e = points[title]
                axes.errorbar(
                    at,
                    e.effect,
                    yerr=[[e.effect - e.low], [e.high - e.effect]],
                    fmt="o",
                    color=OKABE_ITO["blue"],
                    capsize=4,
                    lw=2,
                )
        axes.plot(list(PATCHES).index("n1"), 0, "s", mfc="white", mec="black")
        axes.axhline(0, color="black", lw=1, zorder=0)
        axes.set(
            xticks=range(len(PATCHES)),
            xticklabels=PATCHES.values(),
            xlim=(-0.5, len(PATCHES) - 0.5),
            xlabel="patches a side in the third branch",
            ylabel="points against n = 1",
        )
    said = "; ".join(
        f"{title}: {e.effect:+.1f} ({e.low:+.1f} to {e.high:+.1f})"
        for title, e in points.items()
    )
    seeds = min(e.seeds for e in points.values())
    return figure(
        drawn,
        "Differences in accuracy to n = 1 in percentage points, by patches a side."
        f" {said}.",
        "Accuracy by the number of patches a side, as the difference to n = 1 (square)"
        " on the same test images and seeds, with its 95 % interval"
        + (
            ", which with one seed covers the choice of test images only"
            if seeds == 1
            else ""
        )
        + ". Not looked at: the third branch is left out.",
    )


def shuffles_figure(
    model: Flrdf,
    data: DataSet,
    recipe: Recipe,
    numbers: tuple[int, ...] = (1, 2, 4, 8),
    count: int = 3,
) -> Shown:
    """Foregrounds of test images, cut into n x n patches and shuffled: what the third
    branch sees."""
    index = spread(data.test, count)
    images = _seen(data.test, index, recipe, model)
    views = regions.crop_zoom(
        images, model.locate(images)["foreground"][:, None], images.shape[-1]
    )[:, 0]
    with torch.random.fork_rng(), matplotlib.rc_context(STYLE):
        torch.manual_seed(0)
        drawn = Figure(
            figsize=(WIDTH, 0.3 + WIDTH / len(numbers) * len(index)),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), len(numbers), squeeze=False)
        for column, n in enumerate(numbers):
            for axes, view in zip(
                grid[:, column], shuffle_patches(views, n), strict=True
            ):
                _photo(axes, view)
            grid[0, column].set_title(f"n = {n}")
    names = ", ".join(data.classes[k] for k in data.test.labels[index].tolist())
    return figure(
        drawn,
        f"Grid of the foregrounds of {len(index)} test images ({names}), cut into n x n"
        f" squares that change places, for n = {', '.join(map(str, numbers))}.",
        "What the third branch sees: the foreground cut into n x n patches that change"
        " places at random. With more patches the outline goes first, then the parts,"
        " then all but texture. Images spread evenly over the test split, not chosen by"
        " eye.",
    )


# ---- Figure 5


def losses_figure(found: list[dict], row: str = "flrdf") -> Shown:
    """Figure 5: the training losses of the three branches and their weighted sum, epoch
    by epoch, mean over seeds; a panel for each data set."""
    panels, of_row = [], [r for r in found if r["row"] == row and _losses(r)]
    for dataset in dict.fromkeys(r["dataset"] for r in of_row):
        here = [r for r in of_row if r["dataset"] == dataset]
        weights, names = (
            dict(here[0]["recipe"]["loss_weights"]),
            list(_losses(here[0])[0]),
        )
        epochs = min(len(_losses(r)) for r in here)
        # (epochs, branches)
        values = np.mean(
            [
                [[line[name] for name in names] for line in _losses(r)[:epochs]]
                for r in here
            ],
            axis=0,
        )
        curves = {
            name: dict(enumerate(values[:, i].tolist(), 1))
            for i, name in enumerate(names)
        }
        curves["sum"] = dict(
            enumerate((values @ [weights.get(name, 1.0) for name in names]).tolist(), 1)
        )
        panels.append(("epoch", f"loss ({dataset})", curves, None))
    if not panels:
        return Shown(
            "<p>No losses were kept of these runs.</p>",
            "No losses were kept of these runs.",
        )
    return sweep_figure(
        panels,
        "The cross-entropy of each branch on the training images, in nats, and what"
        " training makes small: their sum with the recipe's weights.",
    )


def _losses(record: dict) -> list[dict[str, float]]:
    """A record's losses by epoch; of an older record those of the log, if the run was
    made on this machine."""
    log = paths.runs() / record["key"] / "log.jsonl"
    if "losses" not in record["train"] and log.is_file():
        return [
            json.loads(line)["losses"]
            for line in log.read_text(encoding="utf-8").splitlines()
        ]
    return record["train"].get("losses", [])
