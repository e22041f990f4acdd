"""From a map to one box, for a whole batch: Otsu's threshold, connected components, the
box round the largest.

    masks = maps > otsu(maps)[:, None, None]  # (B, h, w)
    edges = bounding_box(largest_component(masks))  # (B, 4) in map cells
    boxes = to_pixels(edges, w, stride, first, image_size)  # (B, 4) in input pixels

Nothing here waits for the device: components are labelled in a number of rounds that
depends on the map's size alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 256


def otsu(maps: Tensor) -> Tensor:
    """Otsu's threshold (1979) of each map (B, h, w) -> (B,): ``maps > threshold`` is
    the upper of the two classes.

    Values are counted in 256 bins between the map's minimum and maximum; of the cuts
    between two bins, the first of those that maximise the variance between the classes
    is taken. The threshold is the largest value of the lower class, so no bin's edge is
    ever compared with a value. Of a constant map it is that constant, and nothing lies
    above.
    """
    values = maps.flatten(1)  # (B, n)
    n = values.shape[1]

    # The bin of each value: (B, n) int64 in 0 .. BINS - 1.
    low, high = values.aminmax(dim=1, keepdim=True)
    width = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
    bins = ((values - low) / width * BINS).long().clamp(max=BINS - 1)

    # How many values each bin holds, and their sum, counted in bins: (B, BINS). Whole
    # numbers, so exact.
    counts = torch.zeros(values.shape[0], BINS, dtype=torch.float64, device=maps.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64))
    sums = counts * torch.arange(BINS, device=maps.device)

    # Of the lower class, for a cut above each bin: (B, BINS).
    lower_count = counts.cumsum(1)
    lower_sum = sums.cumsum(1)
    total = sums.sum(1, keepdim=True)

    # Between the classes, but for a constant; 0 / 0 where a class is empty.
    difference = total * lower_count - n * lower_sum
    variance = difference.square() / (lower_count * (n - lower_count))
    both = (lower_count > 0) & (lower_count < n)
    cut = torch.where(both, variance, -1).argmax(1, keepdim=True)
    return values.masked_fill(bins > cut, float("-inf")).amax(1)


def components(masks: Tensor) -> Tensor:
    """Label the connected components of masks (B, h, w) bool: (B, h, w) int64, 0
    outside, else 1 + the number of the component's last cell in reading order. Cells
    touch by their sides and by their corners.

    Each cell points to another of its component, roots to themselves. A round hooks
    every root to the highest root that touches its tree, if that is higher, then points
    every cell straight at its root. A root without a higher neighbour either gets
    another root hooked to it, or finds that its neighbours went to a still higher one,
    and is hooked in the next round. So two rounds at least halve the roots of an
    unfinished component, and 2 log2(n) rounds are enough for n cells, whatever their
    shape.
    """
    batch, h, w = masks.shape
    n = h * w
    inside = masks.flatten(1)  # (B, n)
    own = torch.arange(n, device=masks.device).expand(batch, n)
    root = own.clone()  # what each cell points to
    for rounds in range(2 * (n.bit_length() - 1)):
        near = _highest_near(torch.where(inside, root, -1).view(batch, h, w))
        near = torch.where(inside, near.flatten(1), own)
        # hook every root to the highest that touches its tree
        root = root.scatter_reduce(1, root, near, "amax")
        # each step halves the way to the root, which is no longer than there are roots
        for _ in range((n >> rounds // 2).bit_length()):
            root = root.gather(1, root)
    return torch.where(inside, root + 1, 0).view(batch, h, w)


def _highest_near(labels: Tensor) -> Tensor:
    """The highest of the labels (B, h, w) int64 of each cell and of those that it
    touches.
    """
    # pooling takes no whole numbers on a GPU
    label = labels[:, None].to(torch.float64)
    return F.max_pool2d(label, 3, 1, 1)[:, 0].long()


def largest_component(masks: Tensor) -> Tensor:
    """The largest connected component of each mask (B, h, w) bool, as a mask; empty
    masks stay empty. Of components of equal size, the one that ends first in reading
    order.
    """
    label = components(masks).flatten(1)  # (B, n), 0 .. n
    batch, n = label.shape
    sizes = torch.zeros(batch, n + 1, dtype=torch.int64, device=masks.device)
    sizes.scatter_add_(1, label, (label > 0).long())  # label 0 is outside: no size
    largest = label == sizes.argmax(1, keepdim=True)
    return masks & largest.view_as(masks)


def bounding_box(masks: Tensor) -> Tensor:
    """The box round each mask (B, h, w) bool: (B, 4) int64 xyxy in map cells, where
    cell i covers [i, i + 1]. Of an empty mask, the whole map.
    """
    left, right = _ends(masks.any(1))
    top, bottom = _ends(masks.any(2))
    return torch.stack([left, top, right, bottom], 1)


def _ends(used: Tensor) -> tuple[Tensor, Tensor]:
    """The first cell of (B, cells) bool that is true, and one beyond the last. Where
    none is, all cells.
    """
    used = used.int()  # argmax takes the first of equal values
    first = used.argmax(1)
    after_last = used.shape[1] - used.flip(1).argmax(1)
    return first, after_last


def to_pixels(
    edges: Tensor, cells: int, stride: float, first: float, image_size: int
) -> Tensor:
    """Boxes (..., 4) xyxy in cells of a square map with `cells` a side as input pixels,
    float32, in 0 .. image_size.

    A cell's area is the square of `stride` pixels round where it looks: first + i *
    stride. What touches the border of the map reaches to the border of the image,
    however far from it the outermost cells look: so the box of all cells is the whole
    image.
    """
    pixels = ((edges.float() - 0.5) * stride + first).clamp(0, image_size)
    pixels = torch.where(edges == 0, 0.0, pixels)
    return torch.where(edges == cells, float(image_size), pixels)
