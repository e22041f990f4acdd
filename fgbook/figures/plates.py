"""Plates: what a data set looks like, and what is known about its pictures."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet, Split
from .base import OKABE_ITO, WIDTH, Shown, figure, styled
from .photos import TRUTH, bare, dot, outline, photo, spread

COLUMNS = 4


def pictures(images: Tensor, titles: list[str], alt: str, caption: str) -> Shown:
    """Pictures (N, 3, S, S) uint8 in a grid, each with its title (empty: none)."""
    lines = -(-len(images) // COLUMNS)  # rounded up
    side = WIDTH / COLUMNS * (1.4 if any(titles) else 1.0)
    with styled():
        drawn = Figure(figsize=(WIDTH, side * lines), layout="constrained")
        grid = list(drawn.subplots(lines, COLUMNS, squeeze=False).flat)
        for axes, image, title in zip(grid, images, titles, strict=False):
            photo(axes, image.float() / 255)
            axes.set_title(title.replace(" ", "\n", 1), pad=3)
        for axes in grid[len(images) :]:
            axes.set_visible(False)
    return figure(drawn, alt, caption)


def ground_truth(data: DataSet, count: int = 3) -> Shown:
    """Test images with everything that is known about them: box, mask, visible parts,
    the parts that tell siblings apart.
    """
    split, index = data.test, spread(data.test, count)
    with styled():
        height = 2 * WIDTH / len(index) + 0.5
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(2, len(index), squeeze=False)
        for (above, below), place in zip(grid.T, index.tolist(), strict=True):
            _mark(above, split, place)
            name = data.classes[int(split.labels[place])]
            above.set_title(name.replace(" ", "\n", 1), pad=3)
            mask = np.zeros((data.size, data.size))
            if split.masks is not None:
                mask = split.masks[place].numpy()
            below.imshow(mask, cmap="gray_r", vmin=0, vmax=1)
            bare(below)
    return figure(
        drawn,
        f"{len(index)} pictures with a white box round the bird, orange dashed boxes"
        " round its telling parts and blue dots on its visible parts; below each, the"
        " bird's mask in black.",
        "What is known about each picture: the bird's box (white), the parts that tell"
        " its species from its siblings (orange, dashed), the parts that can be seen"
        " (dots), and the mask (below).",
    )


def _mark(axes: Axes, split: Split, place: int) -> None:
    """The picture with its box and its parts, as far as they are known."""
    photo(axes, split.images[place].float() / 255)
    if split.boxes is not None:
        outline(axes, split.boxes[place], *TRUTH)
    if split.part_boxes is not None:
        for box in split.part_boxes[place]:
            if not box.isnan().any():  # NaN: the part is hidden
                outline(axes, box, OKABE_ITO["orange"], "--")
    if split.parts is not None:
        x, y, visible = split.parts[place].T
        there = visible > 0
        dot(axes, x[there].tolist(), y[there].tolist(), OKABE_ITO["sky"])
