"""Paper E (Peng et al. 2016): at which size a bird is lost, and what a grey square of
another size hides.
"""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from .. import explain
from ..data.dataset import DataSet
from ..errors import enumerated
from ..evaluation import heatmaps
from ..figures.base import OKABE_ITO
from ..figures.photos import class_names, seen, spread
from ..images.augment import degrade
from ..images.light import lit
from ..methods import Method
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Marks, Picture, Tile, pictures, tiles
from .words import note, share

SIDES = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
PATCHES = (0.05, 0.1, heatmaps.PATCH, 0.25, 0.4)  # shares of the image's side
STRIDE = 7  # pixels; odd, so that all phases of the networks' own grids are met


# ---- how small a bird can be


def resolution(
    models: Mapping[str, Method],
    data: DataSet,
    recipe: Recipe,
    many: int = 4,
    tested: int = 100,
) -> Piece:
    """Test images at any size, and how many of `tested` each network (by name) still
    names rightly. Without the answers the pictures are a riddle: which of the sharp
    ones below are they?
    """
    index = spread(data.test, many)
    others = spread(data.test, tested)
    first = next(iter(models.values()))
    images = seen(data.test, index, recipe, first)
    others_seen = seen(data.test, others, recipe, first)
    labels = data.test.labels[others]
    riddle = [_sharp(data, int(label)) for label in data.test.labels[index].unique()]

    @cache
    def right(side: int) -> str:
        small = reduced(others_seen, side, recipe)
        said = []
        for name, model in models.items():
            hits = named(model, small) == labels
            said.append(f"{name} {share(float(hits.float().mean()))}")
        return enumerated(said)

    def frame(side: int, answers: bool) -> Frame:
        small = reduced(images, side, recipe)
        given = {name: named(model, small) for name, model in models.items()}
        found = []
        for i, place in enumerate(index):
            lines = _answers(data, int(place), given, i) if answers else ()
            found.append(
                Tile(Picture(small[i]), f"A bird, {side} pixels wide", (), lines)
            )
        says = f"{side} pixels a side. Of {len(others)} test images are named rightly:"
        shown = tiles(found, 4, narrow=2) + tiles(riddle, 4)
        return Frame(shown, f"{says} by {right(side)}.")

    sides = [*(side for side in SIDES if side < recipe.image_size), recipe.image_size]
    start = min(sides, key=lambda side: abs(side - recipe.low_side))
    return Piece(
        "How small can it be?",
        "Above, test images reduced to so many pixels a side and enlarged again, as"
        " networks at low resolution see them; below, other pictures of the same"
        f" classes, sharp. Images spread evenly over the test split.{note(data)}",
        (
            Choice("side", "pixels a side", sides, start),
            Choice("answers", "show the answers", (False, True), True),
        ),
        frame,
    )


def reduced(views: Tensor, side: int, recipe: Recipe) -> Tensor:
    """Views (B, 3, s, s) at `side` pixels, enlarged again as the recipe says."""
    if side >= views.shape[-1]:
        return views
    return degrade(views, side, recipe.upsample)


@torch.no_grad()
def named(model: Method, views: Tensor) -> Tensor:
    """The class (B,) that a network names, on the cpu."""
    return heatmaps.logits(model.eval(), views).argmax(1).cpu()


def _sharp(data: DataSet, label: int) -> Tile:
    """The first training image of a class."""
    place = int((data.train.labels == label).nonzero()[0])
    name = data.classes[label]
    picture = data.train.images[place].float() / 255
    return Tile(Picture(picture), f"{name}, sharp", (), (name,))


def _answers(
    data: DataSet, place: int, given: dict[str, Tensor], i: int
) -> tuple[str, ...]:
    """What the test image at `place` is, and what networks name it."""
    true = int(data.test.labels[place])
    lines = [data.classes[true]]
    for name, answer in given.items():
        mark = "✓" if int(answer[i]) == true else f"✗ {data.classes[int(answer[i])]}"
        lines.append(f"{name}: {mark}")
    return tuple(lines)


# ---- what a grey square hides


def occlusion(
    models: Mapping[str, Method], data: DataSet, recipe: Recipe, many: int = 3
) -> Piece:
    """Occlusion maps of test images by the side of the grey square, network by network
    (by name).
    """
    first = next(iter(models.values()))
    index = spread(data.test, many)
    device = next(first.parameters()).device
    views = heatmaps.views(data.test, index, recipe, device)
    drawn = pictures(views)
    size = recipe.image_size
    sides = sorted({heatmaps.odd(part * size) for part in PATCHES})

    def frame(network: str, side: int) -> Frame:
        model = models[network].eval()
        maps = explain.occlusion(model, views, side, STRIDE).cpu()
        square = _middle(side, size)
        found = []
        for i, place in enumerate(index):
            name = class_names(data, place[None])
            marks = [Marks(square, OKABE_ITO["sky"])]
            found.append(Tile(drawn[i], f"{name}, with the square", marks))
        for i, place in enumerate(index):
            name = class_names(data, place[None])
            light = lit(views[i].cpu(), maps[i])
            found.append(Tile(Picture(light), f"{name}, lit by its occlusion map"))
        about = heatmaps.measures(maps, heatmaps.logits(model, views).cpu())
        area, strength = float(about["area"].mean()), float(about["strength"].mean())
        return Frame(
            tiles(found, len(index)),
            f"{network}, square of {side} of {size} pixels: mean area of the maps"
            f" {share(area)} of the image, strength {strength:+.1f} (log2).",
        )

    return Piece(
        "What a grey square hides",
        "Above, test images as the networks see them and the size of the grey square"
        " (blue); below, how far the logits move when it hides a place, as light, each"
        f" map on its own scale. Places every {STRIDE} pixels, straight lines between."
        f" Images spread evenly over the test split.{note(data)}",
        (
            Choice("network", "network", tuple(models), next(iter(models))),
            Choice("side", "side of the square, pixels", sides, sides[len(sides) // 2]),
        ),
        frame,
    )


def _middle(side: int, size: int) -> Tensor:
    """The square of that side in the middle of an image: (1, 4) xyxy."""
    low, high = (size - side) / 2, (size + side) / 2
    return torch.tensor([[low, low, high, high]])
