r"""Maps of cells over the pixels of an image, in straight lines from cell to cell.

Three cells look at the pixels 1, 5 and 9 (first 1.5, stride 4). Between them values lie
on straight lines; beyond the outermost their value goes on::

    value            b
                   /   \
                 /       \
        a - - a            c - - c

    pixel 0   1      5      9   11
"""

import torch
from torch import Tensor


def enlarge(maps: Tensor, size: int, stride: int, first: float) -> Tensor:
    """Maps (B, h, w) over the pixels of images (B, size, size).

    Cell (y, x) looks at the input round (first + y * stride, first + x * stride), in
    pixels, where pixel i covers [i, i + 1] (see :class:`fgbook.backbones.Depth`).
    """
    h, w = maps.shape[1:]
    # the middle of pixel i is i + 0.5
    rows = first - 0.5 + stride * torch.arange(h, device=maps.device)
    columns = first - 0.5 + stride * torch.arange(w, device=maps.device)
    return lines(rows, size, stride) @ maps @ lines(columns, size, stride).T


def lines(at: Tensor, side: int, stride: int) -> Tensor:
    """Linear interpolation as a matrix (side, len(at)): from values at the pixels `at`,
    `stride` apart, to all pixels.

    Column i is the hat of cell i: 1 where it looks, 0 where its neighbours do.
    """
    # of every pixel, in cells: 1.5 is half way from cell 1 to cell 2
    place = (torch.arange(side, device=at.device) - at[0]) / stride
    place = place.clamp(0, len(at) - 1)  # beyond the outermost cells
    cells = torch.arange(len(at), device=at.device)
    distance = (place[:, None] - cells).abs()  # (side, len(at))
    return (1 - distance).clamp(min=0)
