"""Paper C (Gautam et al.): pictures mixed and damaged, and what networks name them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.dataset import DataSet
from ..errors import enumerated
from ..figures.photos import class_names, seen, spread
from ..images.corruptions import corrupt
from ..methods import Method
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Picture, Tile, tiles
from .words import note, share

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second picture
KINDS = ("gaussian_noise", "gaussian_blur", "occlusion")


def damage(
    models: Mapping[str, Method], data: DataSet, recipe: Recipe, many: int = 3
) -> Piece:
    """Pairs of test images, mixed and then damaged, and how sure each network is of
    either; name -> network, all with the same classes.
    """
    index = spread(data.test, 2 * many)
    second = index[1::2]
    first = index[::2][: len(second)]
    one = next(iter(models.values()))
    views = seen(data.test, first, recipe, one), seen(data.test, second, recipe, one)

    @torch.no_grad()
    def frame(kind: str, severity: int, second_share: float) -> Frame:
        made = mixed(*views, second_share)
        if severity:
            made = corrupt(made, kind, severity, first.to(made.device))
        sure = {}
        for name, model in models.items():
            sure[name] = model.eval().predict(made).float().softmax(1).cpu()
        found = []
        for i, image in enumerate(made):
            own = class_names(data, first[i : i + 1])
            other = class_names(data, second[i : i + 1])
            lines = [f"{own} + {other}"]
            for name, chances in sure.items():
                top, best = chances[i].max(0)
                lines.append(f"{name}: {data.classes[int(best)]}, {share(float(top))}")
            alt = f"{share(1 - second_share)} {own}, {share(second_share)} {other}"
            found.append(Tile(Picture(image), alt, (), lines))
        return Frame(tiles(found, 3), _says(sure, data, first, second))

    return Piece(
        "Mixed and damaged pictures",
        "Two test images mixed as mixup mixes them in training, then damaged; below"
        " each, what the networks name it. A network trained with mixup should be less"
        " sure of a mixture; whether it stands damage better is another question."
        f" Pairs spread evenly over the test split.{note(data)}",
        (
            Choice(
                "kind", "damage", KINDS, KINDS[0], lambda kind: kind.replace("_", " ")
            ),
            Choice("severity", "severity", tuple(range(6)), 0),
            Choice("second_share", "share of the second", SHARES, 0.25, share),
        ),
        frame,
    )


def mixed(first: Tensor, second: Tensor, second_share: float) -> Tensor:
    """Mixup (Zhang et al. 2018) of pictures (B, 3, s, s)."""
    return (1 - second_share) * first + second_share * second


def _says(sure: dict[str, Tensor], data: DataSet, first: Tensor, second: Tensor) -> str:
    """The mean probability of the classes of either picture, by network."""
    said = []
    for name, chances in sure.items():
        means = []
        for place in (first, second):
            labels = data.test.labels[place][:, None]
            means.append(share(float(chances.gather(1, labels).mean())))
        said.append(f"{name} gives the first {means[0]} and the second {means[1]}")
    return f"On average {enumerated(said)}."
