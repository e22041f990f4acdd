"""Occlusion maps drawn and counted (Peng et al. 2016, section 3 and Figure 3)."""

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from .. import explain
from ..data.dataset import DataSet
from ..evaluation import heatmaps
from ..evidence import verdicts
from ..recipe import Recipe
from . import (
    STYLE,
    WIDTH,
    Shown,
    _count,
    _photo,
    figure,
    measured,
    setting,
    spread,
    table,
)

MEASURES = {
    "heat_area": "area: share of the image, without a threshold",
    "heat_half": "area above half of the maximum, share of the image",
    "heat_strength": "strength, log2",
    "heat_relative": "strength for the length of the logits, log2",
}


def maps_figure(
    models: dict[str, nn.Module],
    data: DataSet,
    recipe: Recipe,
    count: int = 3,
    patch: float = heatmaps.PATCH,
    stride: int = 3,
) -> Shown:
    """Test images as the networks see them, and beside each its map from every model
    (name -> model), normalised as in the paper."""
    index, device = spread(data.test, count), _device(models)
    seen = heatmaps.views(data.test, index, recipe, device)
    maps = {
        name: explain.occlusion(
            model, seen, heatmaps.odd(patch * recipe.image_size), stride
        )
        for name, model in models.items()
    }
    found = {
        name: heatmaps.measures(each, heatmaps.logits(models[name], seen))
        for name, each in maps.items()
    }
    says = {
        name: (
            (
                heatmaps.logits(model, seen).argmax(1).cpu() == data.test.labels[index]
            ).tolist()
        )
        for name, model in models.items()
    }
    columns = 1 + len(models)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, (WIDTH / columns + 0.2) * len(index) + 0.75),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), columns, squeeze=False)
        for line in range(len(index)):
            _photo(grid[line, 0], seen[line])
            for axes, (name, each) in zip(grid[line, 1:], maps.items(), strict=True):
                normalised = each[line] / each[line].amax().clamp(min=heatmaps.TINY)
                shown = axes.imshow(
                    normalised.cpu().numpy(), cmap="cividis", vmin=0, vmax=1
                )
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                area, strength = (
                    found[name][measure][line].item()
                    for measure in ("area", "strength")
                )
                axes.set_xlabel(
                    f"area {area:.2f}, strength {strength:+.1f}", fontsize=9.5
                )
        for axes, title in zip(grid[0], ["image", *models], strict=True):
            axes.set_title(title)
        drawn.colorbar(
            shown,
            ax=list(grid[-1]),
            orientation="horizontal",
            label="effect of hiding the place, share of the map's maximum",
            fraction=0.05,
            aspect=40,
        )
    said = " ".join(
        f"{data.classes[label]}: "
        + "; ".join(
            f"{name}, area {found[name]['area'][i]:.2f}, strength"
            f" {found[name]['strength'][i]:+.1f}, named"
            f" {'rightly' if says[name][i] else 'wrongly'}"
            for name in models
        )
        + "."
        for i, label in enumerate(data.test.labels[index].tolist())
    )
    return figure(
        drawn,
        f"{len(index)} test images at low resolution with their heat maps, from dark"
        f" blue (no effect) to yellow (the largest). {said}",
        "Heat maps in the manner of the paper's Figure 3: how far the logits move when"
        f" a grey square, {heatmaps.odd(patch * recipe.image_size)} of"
        f" {recipe.image_size} pixels wide, hides the place. Each map on its own scale,"
        " as in the paper, so that colours show where and not how much; numbers below:"
        " area (share of the image) and strength (log2, 1 more is twice as strong)."
        " Images spread evenly over the test split, not chosen by eye.",
    )


def statistics_table(
    found: list[dict],
    better: str = "high-low",
    worse: str = "low",
    titles: tuple[str, str] = ("high, then low", "low only"),
) -> Shown:
    """The measures of two rows over the sampled test images, and their difference on
    the same images and seeds, for records of one profile."""
    rows, lines = (
        [[r for r in found if r["row"] == name] for name in (better, worse)],
        [],
    )
    used, quick = [*rows[0], *rows[1]], any(r["profile"] == "quick" for r in found)
    for name, title in MEASURES.items():
        line = {"measure": title}
        for column, of_row in zip(titles, rows, strict=True):
            value = (
                np.nanmean(
                    [verdicts.per_image(r, name).astype(np.float64) for r in of_row]
                )
                if of_row
                else None
            )
            line[column] = (
                measured(f"{value:.3f}", f"mean {name}", of_row)
                if of_row
                else "not run"
            )
        if {r["seed"] for r in rows[0]} & {r["seed"] for r in rows[1]}:
            effect = verdicts.compare(*rows, name)
            line["difference"] = measured(
                f"{effect.effect:+.3f}", f"effect {name}", *rows
            )
            line["95 % interval"] = measured(
                f"{effect.low:+.3f} to {effect.high:+.3f}",
                f"effect {name} interval",
                *rows,
            )
            line["seeds"], line["images"] = effect.seeds, effect.images
        else:
            line |= {"difference": "–", "95 % interval": "–", "seeds": 0, "images": 0}
        lines.append(line)
    note = (
        " Drawn birds and networks of seconds: it shows how the maps are counted and"
        " has no bearing on the paper."
        if quick
        else ""
    )
    return table(
        lines,
        "Heat maps of low-resolution test images, means, and differences on the same"
        " images and seeds with their 95 % intervals over seeds and images."
        f" {setting(used)}{note}",
        used,
        illustration=quick,
    )


def strides_table(
    models: dict[str, nn.Module],
    data: DataSet,
    recipe: Recipe,
    strides: list[int],
    count: int = 2,
    patch: float = heatmaps.PATCH,
) -> Shown:
    """What is lost when only every s-th row and column is evaluated: maps against exact
    ones, and the two main measures."""
    index, device = spread(data.test, count), _device(models)
    seen, side = (
        heatmaps.views(data.test, index, recipe, device),
        heatmaps.odd(patch * recipe.image_size),
    )
    exact = {
        name: explain.occlusion(model, seen, side) for name, model in models.items()
    }
    lines = []
    for stride in [1, *strides]:
        errors, shifts = [], []
        for name, model in models.items():
            maps, logits = (
                (
                    explain.occlusion(model, seen, side, stride)
                    if stride > 1
                    else exact[name]
                ),
                heatmaps.logits(model, seen),
            )
            errors.append(heatmaps.agreement(maps, exact[name]))
            coarse, fine = (
                heatmaps.measures(m, logits)
                for m in (
                    maps[:, stride // 2 :: stride, stride // 2 :: stride],
                    exact[name],
                )
            )
            shifts.append(
                {key: coarse[key] - fine[key] for key in ("area", "strength")}
            )
        mean = lambda parts, key: (
            torch.stack([part[key] for part in parts]).mean().item()
        )
        lines.append(
            {
                "stride": stride,
                "copies an image": (
                    len(range(stride // 2, recipe.image_size, stride)) ** 2
                ),
                "error": f"{mean(errors, 'error'):.2f}",
                "rank correlation": f"{mean(errors, 'rank'):.2f}",
                "area, change": f"{mean(shifts, 'area'):+.3f}",
                "strength, change": f"{mean(shifts, 'strength'):+.2f}",
            }
        )
    return table(
        lines,
        "Maps evaluated on every s-th row and column and enlarged, against exact ones:"
        " length of the difference over that of the exact map, and Spearman's rank"
        " correlation over pixels; and how much area and strength change when they are"
        " computed from the evaluated places alone. Means over"
        f" {_count(len(index), 'test image')} and the networks {', '.join(models)}.",
        illustration=data.name.startswith("fieldguide"),
    )


def patches_table(
    models: dict[str, nn.Module],
    data: DataSet,
    recipe: Recipe,
    patches: list[float],
    images: int,
) -> Shown:
    """Area and strength by the size of the grey patch, which the paper does not
    print."""
    lines = []
    for patch in patches:
        line = {
            "patch": (
                f"{heatmaps.odd(patch * recipe.image_size)} of {recipe.image_size} px"
            )
        }
        found = {
            name: heatmaps.measure(model, data.test, recipe, images, patch)
            for name, model in models.items()
        }
        for key, digits in (("area", ".3f"), ("strength", "+.2f")):
            line |= {
                f"{key}, {name}": format(np.nanmean(values[f"heat_{key}"]), digits)
                for name, values in found.items()
            }
        lines.append(line)
    return table(
        lines,
        "Area and strength of the heat maps by the side of the grey patch: means over"
        f" {min(images, len(data.test))} test images, one network a row.",
        illustration=data.name.startswith("fieldguide"),
    )


def _device(models: dict[str, nn.Module]) -> torch.device:
    return next(next(iter(models.values())).parameters()).device
