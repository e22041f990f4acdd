"""Paper D (Liang and Qu): the foreground that a map gives, and its shuffled patches."""

import torch
from torch import Tensor

from ..data.dataset import DataSet
from ..figures.base import OKABE_ITO
from ..figures.photos import TRUTH, class_names, lit, seen, seen_box, spread
from ..images.regions import box_iou, crop_zoom
from ..images.shuffle import shuffle_patches
from ..methods.flrdf import Flrdf
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Marks, Picture, Tile, tiles
from .words import note

NUMBERS = (1, 2, 3, 4, 6, 8)
SEED = 0  # the same permutation whatever else is chosen


def looks(model: Flrdf, data: DataSet, recipe: Recipe, many: int = 3) -> Piece:
    """What the second and the third look see, by whether peaks of the maps are pressed
    down and by how many patches change places.
    """
    index = spread(data.test, many)
    images = seen(data.test, index, recipe, model)
    maps, boxes = model.activation_maps(images), model.locate(images)
    true = [seen_box(data, place, recipe) for place in index.tolist()]
    pressed = (False, True) if "cam" in maps else (True,)

    def frame(pressed: bool, n: int) -> Frame:
        which = "foreground" if pressed else "cam"
        views = crop_zoom(images, boxes[which][:, None], recipe.image_size)[:, 0]
        cut = shuffled(views, n)
        found = []
        for i, place in enumerate(index):
            name = class_names(data, place[None])
            light = lit(images[i], maps[which][i], model.backbone)
            marks = [Marks(boxes[which][i : i + 1].cpu(), OKABE_ITO["sky"])]
            known = true[i]
            if known is not None:
                marks.insert(0, Marks(known[None], TRUTH[0], "5 3"))
            found += [
                Tile(
                    Picture(light),
                    f"{name}, lit by its map, with its box",
                    marks,
                    ("box",),
                ),
                Tile(Picture(views[i]), f"{name}, cut out", (), ("second look",)),
                Tile(
                    Picture(cut[i]), f"{name}, {n} x {n} patches", (), ("third look",)
                ),
            ]
        return Frame(tiles(found, 3), _says(pressed, n, boxes[which].cpu(), true))

    return Piece(
        "Foreground and patches",
        "From left to right: the image in the light of its localisation map, with the"
        " box drawn from it (blue) and the true one (white, dashed); what the box cuts"
        " out, enlarged; and that, cut into n x n patches that change places."
        f" One trained network; images spread evenly over the test split.{note(data)}",
        (
            Choice("pressed", "press peaks down", pressed, True),
            Choice("n", "n, patches a side", NUMBERS, 4),
        ),
        frame,
    )


def shuffled(views: Tensor, n: int) -> Tensor:
    """Views (B, 3, s, s) with their patches moved, the same way every time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return shuffle_patches(views, n)


def _says(pressed: bool, n: int, boxes: Tensor, true: list[Tensor | None]) -> str:
    """What was done, and how well the boxes (B, 4) fit."""
    peaks = "Peaks pressed down" if pressed else "Peaks as they are"
    overlaps = []
    for box, known in zip(boxes, true, strict=True):
        if known is not None:
            overlaps.append(f"{float(box_iou(box, known)):.2f}")
    fit = f": IoU of box and true box {', '.join(overlaps)}" if overlaps else ""
    moved = "nothing changes places" if n == 1 else f"{n * n} patches change places"
    return f"{peaks}{fit}. n = {n}: {moved}."
