"""Images, boxes and maps on a pair of axes: what all pictures of this book are put
together from.
"""

from collections.abc import Sequence

import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from torch import Tensor, nn

from ..backbones import Backbone, Depth
from ..data.dataset import DataSet, Split
from ..images import augment
from ..images.enlarge import enlarge
from ..images.light import dimmed, scaled
from ..recipe import Recipe

WHITE, YELLOW = "#FFFFFF", "#FFD800"
TRUTH = (WHITE, "-")  # how an object's true box is drawn


# ---- which images, and as what


def spread(split: Split, count: int) -> Tensor:
    """Indices (count,) of images spread evenly over a split, the middles of equal
    stretches: chosen without looking at them.
    """
    count = min(count, len(split))
    return (torch.arange(count) * 2 + 1) * len(split) // (2 * count)


def device_of(model: nn.Module) -> torch.device:
    """The device that holds the model's weights."""
    return next(model.parameters()).device


def seen(split: Split, index: Tensor, recipe: Recipe, model: nn.Module) -> Tensor:
    """The images as evaluation sees them, (B, 3, s, s) in [0, 1], on the model's
    device.
    """
    return augment.centre(split.images[index].to(device_of(model)), recipe.image_size)


def seen_box(data: DataSet, place: int, recipe: Recipe) -> Tensor | None:
    """The true box (4,) of the test image at `place` in the coordinates of what
    evaluation sees, cut off at its border; None where the data set has no boxes.
    """
    if data.test.boxes is None:
        return None
    offset = augment.centre_offset(data.size, recipe.image_size)
    return (data.test.boxes[place] - offset).clamp(0, recipe.image_size)


def class_names(data: DataSet, index: Tensor) -> str:
    """The classes of test images, for an alternative text."""
    return ", ".join(data.classes[k] for k in data.test.labels[index].tolist())


# ---- on axes


def bare(axes: Axes) -> None:
    """No ticks, no frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def photo(axes: Axes, image: Tensor) -> None:
    """An image (3, H, W) in [0, 1] without ticks; pixel i covers [i, i + 1], as boxes
    count.
    """
    picture = image.detach().cpu().permute(1, 2, 0).numpy()
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axes.imshow(picture.clip(0, 1), extent=extent)
    bare(axes)


def outline(
    axes: Axes, box: Tensor, colour: str, line: str | tuple, text: str = ""
) -> None:
    """A box (4,) xyxy as an outline that stands off light and dark grounds, with a
    label in its upper left corner.
    """
    left, top, right, bottom = box.tolist()
    edge = "white" if colour == "#000000" else "black"
    axes.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color=colour,
        ls=line,
        lw=2,
        path_effects=[
            patheffects.Stroke(linewidth=3.6, foreground=edge),
            patheffects.Normal(),
        ],
        clip_on=False,
        solid_joinstyle="miter",
    )
    if text:
        ground = {
            "facecolor": colour,
            "edgecolor": "black",
            "linewidth": 0.6,
            "pad": 1.4,
        }
        axes.text(
            left,
            top,
            text,
            fontsize=8,
            fontweight="bold",
            color="black" if colour in (YELLOW, WHITE) else "white",
            ha="left",
            va="top",
            bbox=ground,
        )


def dot(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """Points that stand off light and dark grounds."""
    axes.plot(x, y, "o", ms=4, mfc=colour, mec="black", mew=0.6)


def lit(image: Tensor, attention: Tensor, cells: Backbone | Depth) -> Tensor:
    """The image (3, s, s), dimmed where the map (h, w) is lowest; `cells` says where
    the map looks.
    """
    side = image.shape[-1]
    if isinstance(cells, Backbone):
        cells = cells.depth_at(side)
    light = scaled(attention.float())[None]
    return dimmed(image, enlarge(light, side, cells.stride, cells.first)[0])
