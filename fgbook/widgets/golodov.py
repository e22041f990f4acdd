"""Paper A (Golodov et al. 2018): class activation maps, also of classes that the
network does not name.
"""

from functools import cache

import torch
from torch import Tensor

from ..data.dataset import DataSet
from ..figures.photos import class_names, lit, seen, spread
from ..methods.levels import Levels
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Picture, Tile, pictures, tiles
from .words import note, share

MOST = 20  # classes that a page has frames for


def other_class(model: Levels, data: DataSet, recipe: Recipe, many: int = 4) -> Piece:
    """What speaks for any class on a test image, by the deepest level's map, beside a
    training image of the class.
    """
    index = spread(data.test, many)
    images = seen(data.test, index, recipe, model.eval())
    drawn = pictures(images)
    with torch.no_grad():
        chances = model.predict(images).float().softmax(1).cpu()
    names = [f"{i + 1}: {class_names(data, one[None])}" for i, one in enumerate(index)]

    deepest = model.names[-1]
    cells = model.depths_at(recipe.image_size)[deepest]

    @cache
    def maps(label: int) -> Tensor:
        classes = torch.full((len(images),), label, device=images.device)
        return model.activation_maps(images, classes)[deepest]

    def frame(bird: str, of: str) -> Frame:
        i, label = names.index(bird), data.classes.index(of)
        named = data.classes[int(chances[i].argmax())]
        true = class_names(data, index[i : i + 1])
        example = (data.train.labels == label).nonzero()[0]
        found = [
            Tile(drawn[i], f"The test image: {true}", (), (true,)),
            Tile(
                Picture(lit(images[i], maps(label)[i], cells)),
                f"{true}, lit by the map of {of}",
                (),
                (f"what speaks for {of}",),
            ),
            Tile(
                Picture(data.train.images[example][0].float() / 255),
                f"A training image of {of}",
                (),
                (f"a {of}",),
            ),
        ]
        says = f"The network names it {named} ({share(float(chances[i].max()))})"
        if of != named:
            says += f" and gives {of} {share(float(chances[i, label]))}"
        return Frame(tiles(found, 3), f"{says}.")

    classes = tuple(data.classes)
    start = data.classes[int(chances[0].argmax())]
    in_page = tuple(dict.fromkeys((start, *classes)))[:MOST]
    return Piece(
        "The map of another class",
        "Left, a test image; in the middle, the same in the light of the class"
        " activation map of a class, on the map's own scale; right, the first training"
        f" image of that class. Images spread evenly over the test split.{note(data)}",
        (
            Choice("bird", "picture", tuple(names), names[0]),
            Choice("of", "map of", classes, start, in_page=in_page),
        ),
        frame,
    )
