"""Grad-CAM drawn, scored and put to the test (paper C, claim C1: "focuses on
discriminative parts").
"""

import copy
import html

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from .. import explain
from ..data.dataset import DataSet
from ..errors import count as counted
from ..evaluation import explanation, heatmaps
from ..evidence import verdicts
from ..images import augment
from ..methods import Method
from ..papers.spec import Paper, Row
from ..recipe import Recipe
from . import findings
from .base import (
    OKABE_ITO,
    WIDTH,
    Shown,
    figure,
    measured,
    styled,
    table,
)
from .curves import Curves, sweep_figure
from .photos import TRUTH, dot, lit, outline, photo, seen, spread
from .summary import by_row, image_mean, is_quick, setting, unchanged

WHERE = {
    "energy": "in the box",
    "object": "maximum on the object",
    "part": "maximum on a part",
}
CURVES = ("insertion", "deletion")
RANDOMISED = {
    0.0: "nothing",
    1e-9: "the head",
    0.25: "the last quarter",
    0.5: "the last half",
    1.0: "everything",
}
"""Share of the layers, counted from the head, whose weights are shuffled (at least one
where it is not 0).
"""


# ---- maps


class Looked:
    """One network's maps of some test images, and how well they lie.

    views (B, 3, s, s), maps (B, h, w) of the predicted class, large: the same over the
    pixels (B, s, s); right: whether each prediction is; scores: name -> (B,) of
    :func:`fgbook.evaluation.explanation.score`.
    """

    def __init__(self, model: Method, data: DataSet, index: Tensor, recipe: Recipe):
        self.model = model
        self.views = seen(data.test, index, recipe, model)
        self.maps = explanation.focus(model, self.views)
        self.large = explanation.over(model, self.maps, recipe.image_size)
        predicted = model.predict(self.views).argmax(1).cpu()
        self.right = (predicted == data.test.labels[index]).tolist()
        known = explanation.truth(data.test, index, recipe.image_size)
        self.scores = explanation.score(self.large.cpu(), **known)

    def in_box(self, i: int) -> str | None:
        """The share of the map in the object's box; None where no box is known."""
        if "energy" not in self.scores:
            return None
        return f"{float(self.scores['energy'][i]):.2f}"

    def draw(self, axes: Axes, i: int) -> None:
        """The image lit by its map, and a cross at the map's maximum."""
        photo(axes, lit(self.views[i], self.maps[i], self.model.backbone))
        y, x = divmod(int(self.large[i].argmax()), self.large.shape[-1])
        axes.plot(
            x + 0.5,
            y + 0.5,
            "P",
            ms=9,
            mfc=OKABE_ITO["yellow"],
            mec="black",
            mew=0.9,
        )
        below = "right" if self.right[i] else "wrong"
        if self.in_box(i):
            below += f", {self.in_box(i)} in box"
        axes.set_xlabel(below, fontsize=9)

    def say(self, name: str, i: int) -> str:
        """One image in the alternative text."""
        said = f"{name}, named {'rightly' if self.right[i] else 'wrongly'}"
        if self.in_box(i):
            said += f", {self.in_box(i)} of the map in the box"
        return said


@torch.no_grad()
def maps_figure(
    models: dict[str, Method], data: DataSet, recipe: Recipe, count: int = 4
) -> Shown:
    """Test images with their boxes and parts, and each lit by the map of its predicted
    class from every model (name -> model).
    """
    index = spread(data.test, count)
    known = explanation.truth(data.test, index, recipe.image_size)
    looked = {
        name: Looked(model, data, index, recipe) for name, model in models.items()
    }
    first = next(iter(looked.values()))
    columns = 1 + len(models)
    with styled():
        height = (WIDTH / columns + 0.22) * len(index) + 0.2
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(index), columns, squeeze=False)
        for i, axes in enumerate(grid[:, 0]):
            photo(axes, first.views[i])
            _draw_truth(axes, data, known, i, recipe.image_size)
        for down, one in zip(grid.T[1:], looked.values(), strict=True):
            for i, axes in enumerate(down):
                one.draw(axes, i)
        is_known = known["objects"] is not None
        titles = ["truth" if is_known else "image", *models]
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)

    said = []
    for i, label in enumerate(data.test.labels[index].tolist()):
        by_model = [one.say(name, i) for name, one in looked.items()]
        said.append(f"{data.classes[label]}: {'; '.join(by_model)}.")
    return figure(
        drawn,
        f"{len(index)} test images with what is known about them, and each lit by the"
        f" Grad-CAM map of {counted(len(models), 'network')}. {' '.join(said)}",
        _caption_of_maps(is_known),
    )


def _caption_of_maps(is_known: bool) -> str:
    """`is_known`: whether the data set says where the object is."""
    left, share = "the image", ""
    if is_known:
        left = (
            "the object's box (white) and its parts (blue dots, or dashed orange boxes)"
        )
        share = ", and the share of the map in the box"
    return (
        f"Left: {left}. Right: Grad-CAM of the class that each network predicts, drawn"
        " as light that falls on the image, each map on its own scale; the yellow cross"
        f" is its maximum; below, whether the prediction is right{share}. Images spread"
        " evenly over the test split, not chosen by eye."
    )


def _draw_truth(
    axes: Axes, data: DataSet, known: dict[str, Tensor | None], i: int, size: int
) -> None:
    """The box of the image `i` and its parts, where they are known and to be seen."""
    objects, parts = known["objects"], known["parts"]
    if objects is not None and not objects[i].isnan().any():
        outline(axes, objects[i], *TRUTH)
    if parts is None:
        return
    for part in parts[i]:
        if part.isnan().any():
            continue
        if data.test.part_boxes is not None:
            outline(axes, part.clamp(0, size), OKABE_ITO["orange"], "--")
        else:  # a point, as a box without extent
            x, y = part[:2].tolist()
            dot(axes, [x], [y], OKABE_ITO["sky"])


# ---- scores from records


def focus_table(paper: Paper, found: list[dict]) -> Shown:
    """How much of the maps lies where it should, by row, for records of one profile and
    data set; chance in the last line.
    """
    found = unchanged(found)
    quick = is_quick(found)
    rows = _rows(paper, found)
    lines = []
    for name, here in rows.items():
        row = paper.row(name)
        lines.append(_focus_line(row.title, here))
        if _has_gates(row):
            title = f"{row.title}: before the gates"
            lines.append(_focus_line(title, here, "_backbone"))
    if lines:
        lines.append(_chance_line(found, rows, lines[0]))
    nothing = {"row": "–", **dict.fromkeys(WHERE.values(), "not run")}
    return table(
        lines or [nothing],
        "Grad-CAM maps of the predicted class: share of the map's sum in the object's"
        " box, and the share of the test images where its maximum lies on the object,"
        " or on a part or near it. Others: the same for a map that knows nothing of"
        " the image, the mean of the maps of all other images. Means over a fixed"
        f" sample of the test images. {setting(found)}{_note(quick)}",
        found,
        illustration=quick,
        says=findings.of_pairs(
            _pairs(paper, rows, "energy", "energy_others"),
            "the maps of an image, by their share in its box,",
            "the mean map of all other images",
        ),
    )


def _pairs(
    paper: Paper, rows: dict[str, list[dict]], ours: str, theirs: str
) -> dict[str, tuple[float, float]]:
    """Title of a row -> the means of two of its measures, where it has both."""
    found = {}
    for name, here in rows.items():
        both = (f"focus_{ours}", f"focus_{theirs}")
        if all(verdicts.holds(record, one) for record in here for one in both):
            means = [image_mean(here, one) for one in both]
            found[paper.row(name).title] = (means[0], means[1])
    return found


def _rows(paper: Paper, found: list[dict]) -> dict[str, list[dict]]:
    """The records of each row that measures its maps, in the paper's order."""
    return by_row(found, [row.name for row in paper.rows if "focus" in row.measures])


def _has_gates(row: Row) -> bool:
    if row.method != "attention":
        return False
    return row.options.get("channel", True) or row.options.get("spatial", True)


def _focus_line(title: str, found: list[dict], suffix: str = "") -> dict[str, object]:
    """One row's maps; `suffix`: which of them, where a network has several."""
    line: dict[str, object] = {"row": html.escape(title)}
    for measure, column in WHERE.items():
        others = "–" if suffix else _mean(found, f"focus_{measure}_others")
        line[column] = _mean(found, f"focus_{measure}{suffix}")
        line[f"{column}, others"] = others
    line["seeds"] = len(found)
    return line


def _chance_line(
    found: list[dict], rows: dict[str, list[dict]], like: dict[str, object]
) -> dict[str, object]:
    """What an even map scores, in the columns of the line `like`."""
    # The same in all records that were measured: the images are.
    record = found[0]
    for here in rows.values():
        if verdicts.holds(here[0], "focus_energy"):
            record = here[0]
            break
    line: dict[str, object] = dict.fromkeys(like, "–")
    line["row"] = "an even map: chance"
    for measure, column in WHERE.items():
        line[column] = _mean([record], f"focus_{measure}_chance")
    return line


def _mean(found: list[dict], name: str) -> str:
    """The mean of an array beside the records of a row, over their images and seeds."""
    # An older record does not hold it, or the data set has no boxes or parts.
    if not all(verdicts.holds(record, name) for record in found):
        return "not measured"
    values = [verdicts.per_image(record, name) for record in found]
    if not np.isfinite(values).any():
        return "–"
    return measured(f"{image_mean(found, name):.3f}", f"mean {name}", found)


def _note(quick: bool) -> str:
    if not quick:
        return ""
    return (
        " Drawn birds and networks of seconds: it shows how maps are scored and has no"
        " bearing on the paper."
    )


# ---- insertion and deletion


def curves_table(paper: Paper, found: list[dict]) -> Shown:
    """Insertion and deletion by row, in the order of the map and of a random map."""
    found = unchanged(found)
    quick = is_quick(found)
    lines = []
    for name, here in _rows(paper, found).items():
        line: dict[str, object] = {"row": html.escape(paper.row(name).title)}
        for measure in CURVES:
            line[measure] = _mean(here, f"focus_{measure}")
            line[f"{measure}, random map"] = _mean(here, f"focus_{measure}_random")
        line["seeds"] = len(here)
        lines.append(line)
    return table(
        lines or [{"row": "–", **dict.fromkeys(CURVES, "not run")}],
        "Mean probability of the predicted class while its pixels come back to a"
        " blurred image (insertion: more is better) or turn grey (deletion: less is"
        " better), the highest of the map first, and in the order of a random map of"
        " as many cells. How sure a network is moves all four numbers: compare a map"
        f" with its random order, not the rows. {setting(found)}{_note(quick)}",
        found,
        illustration=quick,
        says=findings.of_pairs(
            _pairs(paper, _rows(paper, found), "insertion", "insertion_random"),
            "maps, by insertion,",
            "random orders",
        ),
    )


@torch.no_grad()
def curves_figure(
    models: dict[str, Method], data: DataSet, recipe: Recipe, images: int
) -> Shown:
    """Insertion and deletion, step by step: means over `images` test images, of each
    model's maps and of random maps in the first one.
    """
    index = heatmaps.sample(len(data.test), images)
    inserted: Curves = {}
    deleted: Curves = {}
    for place, (name, model) in enumerate(models.items()):
        views = seen(data.test, index, recipe, model)
        maps = explanation.focus(model, views)
        orders = {name: maps}
        if place == 0:
            orders[f"{name}, random map"] = _random_like(maps, index)
        for title, each in orders.items():
            large = explanation.over(model, each, recipe.image_size)
            curves = explanation.insertion_deletion(model, views, large)
            inserted[title] = _by_share(curves["insertion"])
            deleted[title] = _by_share(curves["deletion"])
    return sweep_figure(
        [
            ("share of the pixels that are inserted", "probability", inserted, None),
            ("share of the pixels that are deleted", "probability", deleted, None),
        ],
        "Above: pixels come back to a blurred image, the highest of the map first; a"
        " good map brings the probability of the predicted class back early. Below:"
        " they turn grey; a good map takes it away early. Means over"
        f" {counted(len(index), 'test image')}, one network a row.",
    )


def _random_like(maps: Tensor, index: Tensor) -> Tensor:
    """Random maps of the same shape (B, h, w), the same for an image in every call."""
    images = index.to(maps.device)
    values = augment.uniforms(explanation.SEED, 0, images, maps[0].numel())
    return values.T.reshape(maps.shape)


def _by_share(curve: Tensor) -> dict[float, float]:
    """(B, STEPS + 1) -> share of the pixels: mean probability."""
    points = {}
    for step, value in enumerate(curve.mean(0).tolist()):
        points[round(step / explanation.STEPS, 3)] = value
    return points


# ---- the sanity check


@torch.no_grad()
def sanity_table(
    models: dict[str, Method], data: DataSet, recipe: Recipe, images: int
) -> Shown:
    """Does the map hang on what was learned (Adebayo et al. 2018)? Rank correlation
    with the maps of networks whose weights are shuffled, from the head down.

    The maps follow the class that the trained network predicts. Below it, the
    correlation of the maps of two different images.
    """
    index = heatmaps.sample(len(data.test), images)
    labels = data.test.labels[index]
    lines = [{"weights shuffled": title} for title in RANDOMISED.values()]
    of_another = {"weights shuffled": "nothing, map of another image"}
    for name, model in models.items():
        views = seen(data.test, index, recipe, model)
        classes = model.predict(views).argmax(1)
        trained = explanation.focus(model, views)
        correlation, score = f"{name}: rank correlation", f"{name}: accuracy, %"
        for line, share in zip(lines, RANDOMISED, strict=True):
            other = shuffled(model, share)
            maps = explain.cam(other, views, classes).clamp(min=0).float()
            right = other.predict(views).argmax(1).cpu() == labels
            line[correlation] = f"{rank_correlation(trained, maps).mean():+.2f}"
            line[score] = f"{100 * float(right.float().mean()):.0f}"
        alike = rank_correlation(trained, trained.roll(1, 0))
        of_another[correlation] = f"{alike.mean():+.2f}"
        of_another[score] = "–"
    return table(
        [*lines, of_another],
        "A sanity check of the maps: Spearman's rank correlation, over the cells of"
        " the map, with the map of the same class after the weights of layers were"
        " shuffled, from the head down; 0 where one of the two is empty. Means over"
        f" {counted(len(index), 'test image')}, one network a row.",
        illustration=data.name.startswith("fieldguide"),
    )


def shuffled(model: Method, share: float) -> Method:
    """A copy whose last layers, a share of all that have weights, hold the same numbers
    in random order: as large as before, but nothing is learned.

    A share above 0 is at least one layer, the head. Running statistics are shuffled
    with the weights. Always the same for the same model.
    """
    model = copy.deepcopy(model)
    layers = _layers(model)
    count = max(1, round(share * len(layers))) if share else 0
    generator = torch.Generator().manual_seed(0)
    for layer in layers[len(layers) - count :]:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            order = torch.randperm(tensor.numel(), generator=generator)
            mixed = tensor.detach().flatten()[order.to(tensor.device)]
            with torch.no_grad():
                tensor.copy_(mixed.view_as(tensor))
    return model


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers that have weights of their own, from the image to the head."""
    layers = []
    for layer in model.modules():
        if next(layer.parameters(recurse=False), None) is not None:
            layers.append(layer)
    # The head comes last whatever the order of the modules.
    head = getattr(model, "image_head", None)
    if head is not None:
        layers = [layer for layer in layers if layer is not head] + [head]
    return layers


def rank_correlation(maps: Tensor, others: Tensor) -> NDArray:
    """Spearman's correlation of maps (B, h, w) over their cells, equal ones sharing a
    rank: (B,). 0 where one of the two is even.
    """
    a, b = _centred_ranks(maps), _centred_ranks(others)
    length = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    none = np.zeros(len(a))
    return np.divide((a * b).sum(1), length, out=none, where=length > 0)


def _centred_ranks(maps: Tensor) -> NDArray:
    ranks = rankdata(maps.flatten(1).cpu().numpy(), axis=1)
    return ranks - ranks.mean(1, keepdims=True)
