"""Grad-CAM drawn, scored and put to the test (paper C, claim C1: "focuses on
discriminative parts")."""

import copy
import html

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import rankdata
from torch import nn

from .. import explain
from ..data.dataset import DataSet
from ..evaluation import explanation, heatmaps
from ..evidence import verdicts
from ..images import augment
from ..papers.spec import Paper
from ..recipe import Recipe
from . import (
    OKABE_ITO,
    STYLE,
    WIDTH,
    Shown,
    _box,
    _count,
    _lit,
    _photo,
    _seen,
    figure,
    measured,
    setting,
    spread,
    sweep_figure,
    table,
)

WHERE = {
    "energy": "in the box",
    "object": "maximum on the object",
    "part": "maximum on a part",
}
CURVES = {"insertion": "insertion", "deletion": "deletion"}
RANDOMISED = {
    0.0: "nothing",
    1e-9: "the head",
    0.25: "the last quarter",
    0.5: "the last half",
    1.0: "everything",
}
"""Share of the layers, counted from the head, whose weights are shuffled (at least one
where it is not 0)."""


@torch.no_grad()
def maps_figure(
    models: dict[str, nn.Module], data: DataSet, recipe: Recipe, count: int = 4
) -> Shown:
    """Test images with their boxes and parts, and each lit by the map of its predicted
    class from every model (name -> model)."""
    index, size = spread(data.test, count), recipe.image_size
    known = explanation.truth(data.test, index, size)
    views = {
        name: _seen(data.test, index, recipe, model) for name, model in models.items()
    }
    maps = {
        name: explanation.focus(model, views[name]) for name, model in models.items()
    }
    large = {
        name: explanation.over(models[name], each, size) for name, each in maps.items()
    }
    right = {
        name: (
            (
                model.predict(views[name]).argmax(1).cpu() == data.test.labels[index]
            ).tolist()
        )
        for name, model in models.items()
    }
    scores = {
        name: {
            key: values.tolist()
            for key, values in explanation.score(each.cpu(), **known).items()
        }
        for name, each in large.items()
    }
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, (WIDTH / (1 + len(models)) + 0.22) * len(index) + 0.2),
            layout="constrained",
        )
        grid = drawn.subplots(len(index), 1 + len(models), squeeze=False)
        for line, axes in enumerate(grid[:, 0]):
            _photo(axes, next(iter(views.values()))[line])
            if (
                known["objects"] is not None
                and not known["objects"][line].isnan().any()
            ):
                _box(axes, known["objects"][line], "#FFFFFF", "-")
            for part in [] if known["parts"] is None else known["parts"][line]:
                if data.test.part_boxes is not None and not part.isnan().any():
                    _box(axes, part.clamp(0, size), OKABE_ITO["orange"], "--")
                elif not part.isnan().any():
                    axes.plot(
                        *part[:2].tolist(),
                        "o",
                        ms=4,
                        mfc=OKABE_ITO["sky"],
                        mec="black",
                        mew=0.6,
                    )
        for column, (name, model) in enumerate(models.items(), 1):
            for line, axes in enumerate(grid[:, column]):
                _photo(axes, _lit(views[name][line], maps[name][line], model.backbone))
                y, x = divmod(int(large[name][line].argmax()), size)
                axes.plot(
                    x + 0.5,
                    y + 0.5,
                    "P",
                    ms=9,
                    mfc=OKABE_ITO["yellow"],
                    mec="black",
                    mew=0.9,
                )
                inside = (
                    f", {scores[name]['energy'][line]:.2f} in box"
                    if "energy" in scores[name]
                    else ""
                )
                axes.set_xlabel(
                    ("right" if right[name][line] else "wrong") + inside, fontsize=9
                )
        for axes, title in zip(grid[0], ["truth", *models], strict=True):
            axes.set_title(title)
    said = " ".join(
        f"{data.classes[label]}: "
        + "; ".join(
            f"{name}, named {'rightly' if right[name][i] else 'wrongly'}"
            + (
                f", {scores[name]['energy'][i]:.2f} of the map in the box"
                if "energy" in scores[name]
                else ""
            )
            for name in models
        )
        + "."
        for i, label in enumerate(data.test.labels[index].tolist())
    )
    return figure(
        drawn,
        f"{len(index)} test images with what is known about them, and each lit by the"
        f" Grad-CAM map of {_count(len(models), 'network')}. {said}",
        "Left: the object's box (white) and its parts (blue dots, or dashed orange"
        " boxes). Right: Grad-CAM of the class that each network predicts, drawn as"
        " light that falls on the image, each map on its own scale; the yellow cross is"
        " its maximum; below, whether the prediction is right, and the share of the map"
        " in the box. Images spread evenly over the test split, not chosen by eye.",
    )


def focus_table(paper: Paper, found: list[dict]) -> Shown:
    """How much of the maps lies where it should, by row, for records of one profile and
    data set; chance in the last line."""
    lines = []
    for name, of_row in _rows(paper, found).items():
        row = paper.row(name)
        gates = row.method == "attention" and (
            row.options.get("channel", True) or row.options.get("spatial", True)
        )
        for suffix, title in (
            ("", row.title),
            *([("_backbone", f"{row.title}: before the gates")] if gates else []),
        ):
            line = {"row": html.escape(title)}
            for measure, column in WHERE.items():
                line[column] = _mean(of_row, f"focus_{measure}{suffix}")
                line[f"{column}, others"] = (
                    "–" if suffix else _mean(of_row, f"focus_{measure}_others")
                )
            lines.append(line | {"seeds": len(of_row)})
    if lines:
        # all agree
        of_row = next(
            (
                of_row
                for of_row in _rows(paper, found).values()
                if verdicts.holds(of_row[0], "focus_energy")
            ),
            [found[0]],
        )
        lines.append(
            dict.fromkeys(lines[0], "–")
            | {"row": "an even map: chance"}
            | {
                column: _mean(of_row[:1], f"focus_{measure}_chance")
                for measure, column in WHERE.items()
            }
        )
    else:
        lines.append({"row": "–", **dict.fromkeys(WHERE.values(), "not run")})
    quick = any(r["profile"] == "quick" for r in found)
    return table(
        lines,
        "Grad-CAM maps of the predicted class: share of the map's sum in the object's"
        " box, and the share of the test images where its maximum lies on the object,"
        " or on a part or near it. Others: the same for a map that knows nothing of"
        " the image, the mean of the maps of all other images. Means over a fixed"
        f" sample of the test images. {setting(found)}{_note(quick)}",
        found,
        illustration=quick,
    )


def curves_table(paper: Paper, found: list[dict]) -> Shown:
    """Insertion and deletion by row, in the order of the map and of a random map."""
    lines = []
    for name, of_row in _rows(paper, found).items():
        line = {"row": html.escape(paper.row(name).title)}
        for measure in CURVES:
            line |= {
                measure: _mean(of_row, f"focus_{measure}"),
                f"{measure}, random map": _mean(of_row, f"focus_{measure}_random"),
            }
        lines.append(line | {"seeds": len(of_row)})
    quick = any(r["profile"] == "quick" for r in found)
    return table(
        lines or [{"row": "–", **dict.fromkeys(CURVES, "not run")}],
        "Mean probability of the predicted class while its pixels come back to a"
        " blurred image (insertion: more is better) or turn grey (deletion: less is"
        " better), the highest of the map first, and in the order of a random map of"
        " as many cells. How sure a network is moves all four numbers: compare a map"
        f" with its random order, not the rows. {setting(found)}{_note(quick)}",
        found,
        illustration=quick,
    )


@torch.no_grad()
def curves_figure(
    models: dict[str, nn.Module], data: DataSet, recipe: Recipe, images: int
) -> Shown:
    """Insertion and deletion, step by step: means over `images` test images, of each
    model's maps and of random maps in the first one."""
    index, size = heatmaps.sample(len(data.test), images), recipe.image_size
    points: dict[str, dict[str, dict[float, float]]] = {name: {} for name in CURVES}
    for name, model in models.items():
        seen = _seen(data.test, index, recipe, model)
        maps = explanation.focus(model, seen)
        orders = {name: maps}
        if name == next(iter(models)):
            orders[f"{name}, random map"] = augment.uniforms(
                explanation.SEED, 0, index.to(seen.device), maps[0].numel()
            ).T.reshape(maps.shape)
        for title, each in orders.items():
            for kind, curve in explanation.insertion_deletion(
                model, seen, explanation.over(model, each, size)
            ).items():
                points[kind][title] = {
                    round(step / explanation.STEPS, 3): value
                    for step, value in enumerate(curve.mean(0).tolist())
                }
    panels = [
        (
            "share of the pixels that are inserted",
            "probability",
            points["insertion"],
            None,
        ),
        (
            "share of the pixels that are deleted",
            "probability",
            points["deletion"],
            None,
        ),
    ]
    return sweep_figure(
        panels,
        "Above: pixels come back to a blurred image, the highest of the map first; a"
        " good map brings the probability of the predicted class back early. Below:"
        " they turn grey; a good map takes it away early. Means over"
        f" {_count(len(index), 'test image')}, one network a row.",
    )


@torch.no_grad()
def sanity_table(
    models: dict[str, nn.Module], data: DataSet, recipe: Recipe, images: int
) -> Shown:
    """Does the map hang on what was learned (Adebayo et al. 2018)? Rank correlation
    with the maps of networks whose weights are shuffled, from the head down.

    The maps follow the class that the trained network predicts. Below it, the
    correlation of the maps of two different images.
    """
    index = heatmaps.sample(len(data.test), images)
    labels = data.test.labels[index]
    lines = [{"weights shuffled": title} for title in RANDOMISED.values()] + [
        {"weights shuffled": "nothing, map of another image"}
    ]
    for name, model in models.items():
        seen = _seen(data.test, index, recipe, model)
        classes, trained = model.predict(seen).argmax(1), explanation.focus(model, seen)
        for line, share in zip(lines, RANDOMISED, strict=False):
            other = shuffled(model, share)
            alike = rank_correlation(
                trained, explain.cam(other, seen, classes).clamp(min=0).float()
            )
            line[f"{name}: rank correlation"] = f"{alike.mean():+.2f}"
            line[f"{name}: accuracy, %"] = (
                f"{100 * (other.predict(seen).argmax(1).cpu() == labels).float().mean().item():.0f}"
            )
        lines[-1] |= {
            f"{name}: rank correlation": (
                f"{rank_correlation(trained, trained.roll(1, 0)).mean():+.2f}"
            ),
            f"{name}: accuracy, %": "–",
        }
    return table(
        lines,
        "A sanity check of the maps: Spearman's rank correlation, over the cells of"
        " the map, with the map of the same class after the weights of layers were"
        " shuffled, from the head down; 0 where one of the two is empty. Means over"
        f" {_count(len(index), 'test image')}, one network a row.",
        illustration=data.name.startswith("fieldguide"),
    )


def shuffled(model: nn.Module, share: float) -> nn.Module:
    """A copy whose last layers, a share of all that have weights, hold the same numbers
    in random order: as large as before, but nothing is learned.

    A share above 0 is at least one layer, the head. Running statistics are shuffled
    with the weights. Always the same for the same model.
    """
    model = copy.deepcopy(model)
    head = getattr(model, "image_head", None)
    layers = [
        layer
        for layer in model.modules()
        if layer is not head and next(layer.parameters(recurse=False), None) is not None
    ]
    # it comes last whatever the order of the modules
    layers += [] if head is None else [head]
    count = max(1, round(share * len(layers))) if share else 0
    generator = torch.Generator().manual_seed(0)
    for layer in layers[len(layers) - count :]:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            with torch.no_grad():
                tensor.copy_(
                    tensor.flatten()[
                        torch.randperm(tensor.numel(), generator=generator).to(
                            tensor.device
                        )
                    ].view_as(tensor)
                )
    return model


def rank_correlation(maps: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """Spearman's correlation of maps (B, h, w) over their cells, equal ones sharing a
    rank: (B,). 0 where one of the two is even."""
    a, b = (rankdata(each.flatten(1).cpu().numpy(), axis=1) for each in (maps, others))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    length = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)


def _rows(paper: Paper, found: list[dict]) -> dict[str, list[dict]]:
    """The records of each row that measures its maps, in the paper's order."""
    names = [row.name for row in paper.rows if "focus" in row.measures]
    return {
        name: of_row
        for name in names
        if (of_row := [r for r in found if r["row"] == name])
    }


def _mean(of_row: list[dict], name: str) -> str:
    """The mean of an array beside the records of a row, over their images and seeds."""
    # an older record, or a data set without boxes or parts
    if not all(verdicts.holds(r, name) for r in of_row):
        return "not measured"
    values = [verdicts.per_image(r, name).astype(np.float64) for r in of_row]
    return (
        measured(f"{np.nanmean(values):.3f}", f"mean {name}", of_row)
        if np.isfinite(values).any()
        else "–"
    )


def _note(quick: bool) -> str:
    return (
        " Drawn birds and networks of seconds: it shows how maps are scored and has no"
        " bearing on the paper."
        if quick
        else ""
    )
