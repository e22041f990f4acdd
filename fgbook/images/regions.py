"""From attention map to zoomed crops, for a whole batch: boxes, their overlap, greedy
selection, one sampling call.

Nothing here waits for the device: every size is a Python int, every choice a masked
argmax. Boxes are ``xyxy`` in input pixels, where pixel i covers the interval [i, i +
1], so that an image of side S spans 0..S.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def centre_boxes(
    h: int,
    w: int,
    image_size: int,
    box_size: float | tuple[float, float],
    stride: int,
    first: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """The constant boxes of a map: (h * w, 4) float32, row by row, one for each cell:
    `box_size` is the side of a square, or height and width.

    Cell (y, x) looks at the input round (first + y * stride, first + x * stride). A box
    that would leave the square image of side `image_size` is shifted inside, not cut,
    so that all boxes show the same scale. Raises InputError if the box is larger than
    the image.
    """
    height, width = box_size if isinstance(box_size, tuple) else (box_size, box_size)
    for side in (height, width):
        if not 0 < side <= image_size:
            raise InputError(
                f"a box of {side:g} pixels does not fit into an image of {image_size};"
                " choose a smaller box."
            )

    def starts(cells: int, side: float) -> Tensor:
        centres = first + torch.arange(cells, device=device) * stride
        # both limits of one type: the tracer of exports takes no others
        return (centres - side / 2).clamp(0.0, float(image_size - side))

    top, left = torch.meshgrid(starts(h, height), starts(w, width), indexing="ij")
    boxes = torch.stack([left, top, left + width, top + height], -1)  # (h, w, 4)
    return boxes.flatten(0, 1)


def windows(
    h: int, w: int, height: int, width: int, device: torch.device | str | None = None
) -> Tensor:
    """All windows of height x width cells within a map: (N, 4) int64 xyxy in cells,
    where cell i covers [i, i + 1], in the order in which ``avg_pool2d`` with stride 1
    gives their means.
    """
    tops = torch.arange(h - height + 1, device=device)
    lefts = torch.arange(w - width + 1, device=device)
    top, left = torch.meshgrid(tops, lefts, indexing="ij")
    boxes = torch.stack([left, top, left + width, top + height], -1)
    return boxes.flatten(0, 1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes a (..., 4) and b (..., 4), broadcast against
    each other -> (...), 0..1; empty boxes give 0.
    """
    upper_left = torch.maximum(a[..., :2], b[..., :2])  # (..., 2), of what both cover
    lower_right = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (lower_right - upper_left).clamp(min=0).prod(-1)  # 0 where they are apart
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    union = area_a + area_b - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def iou_matrix(boxes: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes (N, 4) -> (N, N)."""
    return box_iou(boxes[:, None], boxes[None])


def gaussian_smooth(maps: Tensor, sigma: float) -> Tensor:
    """Each map (B, h, w) smoothed with a Gaussian of `sigma` cells, cut at 4 sigma; the
    border is continued by its last value, so that a constant map stays what it is.
    sigma 0: unchanged.
    """
    if sigma <= 0:
        return maps
    radius = int(4 * sigma + 0.5)
    line = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = kernel / kernel.sum()

    # Along the columns, then along the rows.
    padded = F.pad(maps[:, None], (radius,) * 4, mode="replicate")
    down = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(down, kernel.view(1, 1, 1, -1))[:, 0]


def select(scores: Tensor, iou: Tensor, m: int, threshold: float | Tensor) -> Tensor:
    """Greedy non-maximum suppression that always gives m boxes: scores (B, N), iou (N,
    N) -> indices (B, m) int64, the best first.

    Each of m steps takes, in every image at once, the best box that overlaps no chosen
    one by more than `threshold`. When none is left in an image, the best boxes not
    chosen yet follow, so that the result keeps its shape without a look at the values.
    Equal scores: the lower index first. Scores are finite. Raises InputError if there
    are fewer than m boxes.
    """
    count = scores.shape[1]
    if count < m:
        raise InputError(
            f"{m} regions are asked for, but the map has only {count} cells; use larger"
            " images or a smaller m."
        )
    index = torch.arange(count, device=scores.device)
    free = torch.ones_like(scores, dtype=torch.bool)  # (B, N) not chosen yet
    apart = free  # (B, N) nor too close to a chosen one
    chosen = []
    for _ in range(m):
        # where all that is left is too close, it counts nevertheless
        pool = apart | (free & ~apart.any(1, keepdim=True))
        best = scores.masked_fill(~pool, float("-inf")).argmax(1)  # (B,)
        chosen.append(best)
        free = free & (index != best[:, None])
        apart = apart & free & (iou[best] <= threshold)
    return torch.stack(chosen, 1)


def crop_zoom(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes (B, m, 4) out of images (B, c, H, W) and resize them to `size` pixels:
    (B, m, c, size, size).

    All crops of the batch are one bilinear sampling call. Output pixel i is the image
    at the middle of the i-th of `size` equal intervals of the box (no corner
    alignment); beyond the outermost pixel centres the border pixel counts. That is
    ``roi_align(aligned=True, sampling_ratio=1)``. Meant for enlarging: there is no
    low-pass filter. Images and boxes are float32.
    """
    batch, channels, height, width = images.shape
    m = boxes.shape[1]

    # Where to sample, in pixels: x and y, (B, m, 2, size).
    steps = (torch.arange(size, device=images.device) + 0.5) / size  # (size,)
    start = boxes[..., :2, None]
    sides = (boxes[..., 2:] - boxes[..., :2])[..., None]
    place = start + steps * sides
    # grid_sample counts from -1 to 1: (B, m, size)
    x = place[:, :, 0] * (2 / width) - 1
    y = place[:, :, 1] * (2 / height) - 1

    # Planes of x and of y: a CPU samples faster from them than from pairs. The m grids
    # of an image are stacked into one tall grid, so that the image itself is not copied
    # m times.
    x = x[:, :, None].expand(-1, -1, size, -1)  # (B, m, size, size)
    y = y[..., None].expand(-1, -1, -1, size)
    grid = torch.stack([x, y], 1).flatten(2, 3)  # (B, 2, m * size, size)
    crops = F.grid_sample(
        images,
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )  # (B, c, m * size, size)
    return crops.view(batch, channels, m, size, size).transpose(1, 2)
