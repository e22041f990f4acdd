"""Occlusion maps drawn and counted (Peng et al. 2016, section 3 and Figure 3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .. import explain
from ..data.dataset import DataSet
from ..errors import count as counted
from ..evaluation import heatmaps
from ..evidence import verdicts
from ..methods import Method
from ..recipe import Recipe
from . import findings
from .base import (
    WIDTH,
    Shown,
    figure,
    measured,
    signed,
    signed_between,
    styled,
    table,
)
from .photos import bare, device_of, photo, spread
from .summary import image_mean, is_quick, of_row, setting, unchanged

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

STRIDE = 3  # pixels between the squares of a map that is drawn

MEASURES = {
    "heat_area": "area: share of the image, without a threshold",
    "heat_half": "area above half of the maximum, share of the image",
    "heat_strength": "strength, log2",
    "heat_relative": "strength for the length of the logits, log2",
}


# ---- maps


def maps_figure(
    models: dict[str, Method],
    data: DataSet,
    recipe: Recipe,
    count: int = 3,
    patch: float = heatmaps.PATCH,
) -> Shown:
    """Test images as the networks see them, and beside each its map from every model
    (name -> model), normalised as in the paper.
    """
    index = spread(data.test, count)
    views = heatmaps.views(data.test, index, recipe, _device(models))
    side = heatmaps.odd(patch * recipe.image_size)
    maps, measures, right = {}, {}, {}
    for name, model in models.items():
        logits = heatmaps.logits(model, views)
        maps[name] = explain.occlusion(model, views, side, STRIDE)
        measures[name] = heatmaps.measures(maps[name], logits)
        right[name] = logits.argmax(1).cpu() == data.test.labels[index]

    columns = 1 + len(models)
    with styled():
        height = (WIDTH / columns + 0.2) * len(index) + 0.75
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), columns, squeeze=False)
        for i, (first, *others) in enumerate(grid):
            photo(first, views[i])
            for axes, name in zip(others, models, strict=True):
                shown = _draw_map(axes, maps[name][i])
                text = _area_and_strength(measures[name], i)
                axes.set_xlabel(text, fontsize=9.5)
        for axes, title in zip(grid[0], ["image", *models], strict=True):
            axes.set_title(title)
        drawn.colorbar(
            shown,  # any one: all have the same scale
            ax=list(grid[-1]),
            orientation="horizontal",
            label="effect of hiding the place, share of the map's maximum",
            fraction=0.05,
            aspect=40,
        )

    said = []
    for i, label in enumerate(data.test.labels[index].tolist()):
        by_model = []
        for name in models:
            how = "rightly" if right[name][i] else "wrongly"
            text = _area_and_strength(measures[name], i)
            by_model.append(f"{name}, {text}, named {how}")
        said.append(f"{data.classes[label]}: {'; '.join(by_model)}.")
    return figure(
        drawn,
        f"{len(index)} test images at low resolution with their heat maps, from dark"
        f" blue (no effect) to yellow (the largest). {' '.join(said)}",
        "Heat maps in the manner of the paper's Figure 3: how far the logits move when"
        f" a grey square, {side} of {recipe.image_size} pixels wide, hides the place."
        " Each map on its own scale, as in the paper, so that colours show where and"
        " not how much; numbers below: area (share of the image) and strength (log2, 1"
        " more is twice as strong). Images spread evenly over the test split, not"
        " chosen by eye.",
    )


def _device(models: dict[str, Method]) -> torch.device:
    return device_of(next(iter(models.values())))


def _draw_map(axes: Axes, each: Tensor) -> "AxesImage":
    normalised = each / each.amax().clamp(min=heatmaps.TINY)
    shown = axes.imshow(normalised.cpu().numpy(), cmap="cividis", vmin=0, vmax=1)
    bare(axes)
    return shown


def _area_and_strength(measures: dict[str, Tensor], i: int) -> str:
    area, strength = float(measures["area"][i]), float(measures["strength"][i])
    return f"area {area:.2f}, strength {strength:+.1f}"


# ---- measures


def statistics_table(
    found: list[dict],
    better: str = "high-low",
    worse: str = "low",
    titles: tuple[str, str] = ("high, then low", "low only"),
) -> Shown:
    """The measures of two rows over the sampled test images, and their difference on
    the same images, for records of one profile.
    """
    found = unchanged(found)
    first, second = of_row(found, better), of_row(found, worse)
    used = [*first, *second]
    quick = is_quick(found)
    lines = []
    effects = {}
    for name, title in MEASURES.items():
        if first and second:
            effects[title] = verdicts.compare(first, second, name, among=found)
        line: dict[str, object] = {"measure": title}
        for column, here in zip(titles, (first, second), strict=True):
            line[column] = _mean_cell(here, name)
        lines.append(line | _difference(first, second, name, found))
    note = ""
    if quick:
        note = (
            " Drawn birds and networks of seconds: it shows how the maps are counted"
            " and has no bearing on the paper."
        )
    return table(
        lines,
        "Heat maps of low-resolution test images, means, and differences on the same"
        " images with their 95 % intervals over seeds and images."
        f" {setting(used)}{note}",
        used,
        illustration=quick,
        says=findings.of_effects(effects, "difference"),
    )


def _mean_cell(found: list[dict], name: str) -> str:
    if not found:
        return "not run"
    return measured(f"{image_mean(found, name):.3f}", f"mean {name}", found)


def _difference(
    first: list[dict], second: list[dict], name: str, among: list[dict]
) -> dict[str, object]:
    if not first or not second:
        return {"difference": "–", "95 % interval": "–", "seeds": 0, "images": 0}
    effect = verdicts.compare(first, second, name, among=among)
    field = f"effect {name}"
    interval = signed_between(effect.low, effect.high, digits=3)
    return {
        "difference": measured(signed(effect.effect, 3), field, first, second),
        "95 % interval": measured(interval, f"{field} interval", first, second),
        "seeds": effect.seeds_text,
        "images": effect.images,
    }


# ---- what the maps depend on


def strides_table(
    models: dict[str, Method],
    data: DataSet,
    recipe: Recipe,
    strides: Sequence[int],
    count: int = 2,
    patch: float = heatmaps.PATCH,
) -> Shown:
    """What is lost when only every s-th row and column is evaluated: maps against exact
    ones, and the two main measures.
    """
    index = spread(data.test, count)
    views = heatmaps.views(data.test, index, recipe, _device(models))
    side = heatmaps.odd(patch * recipe.image_size)
    lines = []
    parts: dict[int, list[dict[str, Tensor]]] = {s: [] for s in (1, *strides)}
    for model in models.values():
        logits = heatmaps.logits(model, views)
        exact = explain.occlusion(model, views, side)
        for stride, of_stride in parts.items():
            maps = exact
            if stride > 1:
                maps = explain.occlusion(model, views, side, stride)
            of_stride.append(_loss_of(maps, exact, logits, stride))
    for stride, of_stride in parts.items():
        evaluated = len(range(stride // 2, recipe.image_size, stride))  # a side
        lines.append(
            {
                "stride": stride,
                "copies an image": evaluated**2,
                "error": f"{_mean(of_stride, 'error'):.2f}",
                "rank correlation": f"{_mean(of_stride, 'rank'):.2f}",
                "area, change": f"{_mean(of_stride, 'area'):+.3f}",
                "strength, change": f"{_mean(of_stride, 'strength'):+.2f}",
            }
        )
    return table(
        lines,
        "Maps evaluated on every s-th row and column and enlarged, against exact ones:"
        " length of the difference over that of the exact map, and Spearman's rank"
        " correlation over pixels; and how much area and strength change when they are"
        " computed from the evaluated places alone. Means over"
        f" {counted(len(index), 'test image')} and the networks {', '.join(models)}.",
        illustration=data.name.startswith("fieldguide"),
    )


def _loss_of(
    maps: Tensor, exact: Tensor, logits: Tensor, stride: int
) -> dict[str, Tensor]:
    """Error and rank correlation of enlarged maps (B, s, s), and the change in area and
    strength when only the evaluated places count; (B,) each.
    """
    evaluated = maps[:, stride // 2 :: stride, stride // 2 :: stride]
    coarse = heatmaps.measures(evaluated, logits)
    fine = heatmaps.measures(exact, logits)
    found = dict(heatmaps.agreement(maps, exact))
    for name in ("area", "strength"):
        found[name] = coarse[name] - fine[name]
    return found


def _mean(parts: list[dict[str, Tensor]], name: str) -> float:
    """Over networks and images."""
    return float(torch.stack([part[name] for part in parts]).mean())


def patches_table(
    models: dict[str, Method],
    data: DataSet,
    recipe: Recipe,
    patches: Sequence[float],
    images: int,
) -> Shown:
    """Area and strength by the size of the grey patch, which the paper does not
    print.
    """
    lines = []
    for patch in patches:
        side = heatmaps.odd(patch * recipe.image_size)
        areas, strengths = {}, {}
        for name, model in models.items():
            values = heatmaps.measure(model, data.test, recipe, images, patch)
            areas[f"area, {name}"] = f"{np.nanmean(values['heat_area']):.3f}"
            strength = np.nanmean(values["heat_strength"])
            strengths[f"strength, {name}"] = f"{strength:+.2f}"
        line = {"patch": f"{side} of {recipe.image_size} px"}
        lines.append(line | areas | strengths)
    return table(
        lines,
        "Area and strength of the heat maps by the side of the grey patch: means over"
        f" {min(images, len(data.test))} test images, one network a row.",
        illustration=data.name.startswith("fieldguide"),
    )
