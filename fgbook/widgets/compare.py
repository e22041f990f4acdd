"""The comparison of methods: where two of them differ, image by image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.dataset import DataSet
from ..errors import InputError
from ..evidence import records
from ..figures.base import OKABE_ITO
from ..figures.photos import spread
from ..figures.summary import by_row
from ..images.augment import centre
from ..papers.spec import Paper
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Marks, Picture, Tile, tiles
from .words import note

COLUMNS = 8


def differences(
    paper: Paper,
    found: Sequence[dict],
    data: DataSet,
    recipe: Recipe,
    many: int = 40,
) -> Piece:
    """Test images on which one of two rows is right and the other wrong, from the
    predictions that records keep; the first record of each row counts. Raises
    InputError for fewer than two rows.
    """
    titles = {row.name: row.title for row in paper.rows}
    right = {}
    for row, here in by_row(found, titles).items():
        kept = records.load_predictions(here[0])
        right[titles[row]] = torch.from_numpy(kept["prediction"] == kept["label"])
    if len(right) < 2:
        raise InputError(
            f"two rows are compared, but {len(found)} records are of {len(right)}."
        )
    index = spread(data.test, many)
    sheet = sheet_of(centre(data.test.images[index], recipe.image_size))

    def frame(first: str, second: str) -> Frame:
        a, b = right[first], right[second]
        here = a[index], b[index]
        marks = (
            Marks(runs(here[0] == here[1]), over=True),
            Marks(runs(here[0] & ~here[1]), OKABE_ITO["sky"]),
            Marks(runs(~here[0] & here[1]), OKABE_ITO["orange"], "5 3"),
        )
        alt = f"{len(index)} test images, marked where only one of two methods is right"
        shown = tiles([Tile(sheet, alt, marks)], 1)
        return Frame(shown, _says(first, second, a, b))

    names = tuple(right)
    return Piece(
        "Where two methods differ",
        "Test images spread evenly over the split. Blue: only the first method is"
        " right; orange, dashed: only the second; dark: both are right, or both"
        f" wrong.{note(data)}",
        (
            Choice("first", "first method", names, names[0]),
            Choice("second", "second method", names, names[-1]),
        ),
        frame,
    )


def sheet_of(images: Tensor) -> Picture:
    """Images (N, 3, s, s) side by side, in units of one image."""
    size = images.shape[-1]
    columns = min(COLUMNS, len(images))
    lines = -(-len(images) // columns)  # rounded up
    sheet = images.new_zeros(3, lines * size, columns * size)
    for place, image in enumerate(images):
        top, left = (size * number for number in divmod(place, columns))
        sheet[:, top : top + size, left : left + size] = image
    return Picture(sheet, columns)


def runs(marked: Tensor) -> Tensor:
    """Where the marked ones of N images lie on the sheet, (N,) bool -> (K, 4) in its
    units: a box for all that follow each other in a line.
    """
    boxes: list[list[int]] = []
    for place in marked.nonzero().flatten().tolist():
        top, left = divmod(place, COLUMNS)
        if boxes and boxes[-1][1] == top and boxes[-1][2] == left:
            boxes[-1][2] += 1
        else:
            boxes.append([left, top, left + 1, top + 1])
    return torch.tensor(boxes).view(-1, 4)


def _says(first: str, second: str, a: Tensor, b: Tensor) -> str:
    """How often each alone is right, on all test images; a and b (N,) bool."""
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    alone, other = int((a & ~b).sum()), int((~a & b).sum())
    return (
        f"Of all {len(a)} test images {both} are named rightly by both, {neither} by"
        f" neither, {alone} only by {first}, {other} only by {second}."
    )
