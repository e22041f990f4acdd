"""Why this class? Maps over the image: occlusion, class activation maps (CAM),
Grad-CAM.

    maps = occlusion(model, images, patch=27, stride=8)      # images (B, 3, H, W) in
    [0, 1] -> (B, H, W) maps = cam(model, images, classes)                       # ->
    (B, h, w); a linear head on pooled features maps = grad_cam(model, images, classes,
    model.backbone)  # -> (B, h, w); any layer that gives feature maps

The model is taken as it is: put it in eval mode, and the images on its device.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ..backbones import BatchNorm
from ..errors import InputError
from ..methods.plain import Plain

GREY = 128 / 255
CHUNK = {"cpu": 16}  # occluded copies at a time: few enough for a processor's cache
CHUNK_GPU = 1024  # and enough to fill a GPU

# Where occlusion cuts a backbone in two: the layers before, those after, the stride of
# the map between them, and how many pixels to either side a cell of it sees. Holds for
# networks whose convolutions and poolings have odd sizes and symmetric padding, and in
# which every BatchNorm is named right behind the convolution that feeds it.
CUTS = {
    "small": (
        lambda net: nn.Sequential(net.stem, net.blocks[:1]),
        lambda net: nn.Sequential(net.blocks[1:], net.widen),
        4,
        7,
    ),
    "mobilenet_v2": (lambda net: net.features[:4], lambda net: net.features[4:], 4, 9),
}


@torch.no_grad()
def occlusion(
    model: nn.Module,
    images: Tensor,
    patch: int,
    stride: int = 1,
    *,
    grey: float = GREY,
    chunk: int | None = None,
) -> Tensor:
    """How much the logits move when a patch is greyed out: images (B, 3, H, W), float
    in [0, 1] -> maps (B, H, W), float32, not negative.

    The value of a pixel is ||logits(I) - logits(I')||^2, where in I' the square of
    `patch` pixels (odd) centred at that pixel is `grey`, cut off at the border of the
    image (Peng et al. 2016, section 3; before normalisation). At stride s every s-th
    row and column is evaluated, the others lie on straight lines between (beyond the
    outermost: equal to it).

    `model` needs predict(images) -> logits. At most `chunk` occluded copies are in
    memory at a time. For a plain head on a backbone of CUTS only the part of the early
    map that can see the patch is computed for each copy, and BatchNorm is folded into
    the convolutions: the same values up to rounding. Raises InputError for an even
    patch, or a stride or chunk below 1.
    """
    if patch < 1 or patch % 2 == 0:
        raise InputError(
            f"an occluding patch is centred at a pixel, so its side is odd; {patch} is"
            f" not: take {max(1, patch + 1)}."
        )
    if stride < 1 or (chunk is not None and chunk < 1):
        raise InputError(
            f"occlusion: stride and chunk are at least 1, not {stride} and {chunk}."
        )
    device, (height, width) = images.device, images.shape[-2:]
    chunk = chunk or CHUNK.get(device.type, CHUNK_GPU)
    early, late, step, reach = _cut(model)
    rows, columns = (
        torch.arange(min(stride, side) // 2, side, stride, device=device)
        for side in (height, width)
    )
    count = len(rows) * len(columns)

    # (B, H, W, 3): networks run faster on channels that lie side by side
    pixels = images.permute(0, 2, 3, 1).contiguous()
    # (B, h, w, n)
    maps = torch.cat(
        [
            early(part.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for part in pixels.split(chunk)
        ]
    )
    # (B, C), of the untouched images
    logits = torch.cat([late(part.permute(0, 3, 1, 2)) for part in maps.split(chunk)])
    values = []
    for number in torch.arange(len(images) * count, device=device).split(chunk):
        image, place = number // count, number % count
        down = _near(rows[place // len(columns)], height, patch, step, reach)
        across = _near(columns[place % len(columns)], width, patch, step, reach)
        # (K, c, c, 3)
        crop = pixels[image[:, None, None], *_pairs(down.pixels, across.pixels)]
        crop = torch.where(
            (down.hidden[:, :, None] & across.hidden[:, None, :])[..., None], grey, crop
        )
        seen = early(crop.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        copies, each = (
            maps[image],
            torch.arange(len(image), device=device)[:, None, None],
        )
        copies[each, *_pairs(down.cells, across.cells)] = seen[
            each, *_pairs(down.in_crop, across.in_crop)
        ]
        values.append(
            (late(copies.permute(0, 3, 1, 2)) - logits[image]).square().sum(1)
        )
    grid = torch.cat(values).float().view(len(images), len(rows), len(columns))
    with torch.autocast(device.type, enabled=False):
        return _hats(rows, height, stride) @ grid @ _hats(columns, width, stride).T


def cam(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Class activation maps (Zhou et al. 2016): sum over channels of the head's weights
    times the feature maps, (B, h, w).

    classes (B,) int64; None: the predicted ones. The mean of a map, plus the head's
    bias, is the logit of its class. Cut at 0 and over h w it is the Grad-CAM of the
    maps that are pooled (Selvaraju et al. 2017, section 3), at the price of a
    prediction. Raises InputError for a model without a linear `image_head` on pooled
    features of its `backbone`.
    """
    head = getattr(model, "image_head", None)
    if not isinstance(head, nn.Linear):
        raise InputError(
            "a class activation map needs a linear head on pooled features;"
            f" {type(model).__name__} has none: use grad_cam."
        )
    # attention: what its gates leave of the backbone's
    maps = getattr(model, "maps", model.backbone)(images)
    if classes is None:
        classes = head(maps.mean((2, 3))).argmax(1)
    return torch.einsum("bn,bnhw->bhw", head.weight[classes], maps)


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor | None, layer: nn.Module
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): channels of `layer`'s output (B, n, h, w)
        weighted by their mean gradient, negative sums cut, (B, h, w).

    classes (B,) int64: whose logit is followed; None: the predicted ones. The gradient
        ends at `layer`; no parameter's `.grad` is touched, no hook stays behind.
    """
    kept: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # the next layer may work in place

    with torch.enable_grad(), layer.register_forward_hook(hook):
        logits = model.predict(images)
        chosen = logits.argmax(1) if classes is None else classes
        # a sum, because images do not mix in eval mode
        score = logits.gather(1, chosen[:, None]).sum()
    if len(kept) != 1:
        raise InputError(
            "grad_cam needs a layer that runs once in a prediction; this one ran"
            f" {len(kept)} times."
        )
    (gradient,) = torch.autograd.grad(score, kept)
    return (gradient.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1).clamp(min=0)


def enlarge(maps: Tensor, size: int, stride: int, first: float) -> Tensor:
    """Maps (B, h, w) over the pixels of images (B, size, size): straight lines between
    the cells, beyond the outermost their value.

    Cell (y, x) looks at the input round (first + x * stride, first + y * stride), in
    pixels, where pixel i covers [i, i + 1] (see :class:`fgbook.backbones.Depth`).
    """
    rows, columns = (
        _hats(
            first - 0.5 + stride * torch.arange(cells, device=maps.device), size, stride
        )
        for cells in maps.shape[1:]
    )
    return rows @ maps @ columns.T


def _cut(
    model: nn.Module,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int, int]:
    """The model as late(early(images)), the stride of the map between, and its reach. A
    model that cannot be cut: the map is the image."""
    if type(model) is not Plain or model.backbone.name not in CUTS:
        return (lambda images: images), model.predict, 1, 0
    model = _folded(model)
    backbone, (first, rest, step, reach) = model.backbone, CUTS[model.backbone.name]
    begin, end = first(backbone.network), rest(backbone.network)
    return (
        lambda images: begin((images - backbone.mean) / backbone.std),
        lambda maps: model.image_head(end(maps).mean((2, 3))),
        step,
        reach,
    )


def _folded(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorm layers are part of the convolutions before
    them."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        children = list(module.named_children())
        for (name, convolution), (behind, norm) in zip(
            children, children[1:], strict=False
        ):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNorm):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, behind, nn.Identity())
    return model.to(memory_format=torch.channels_last)


class Near(NamedTuple):
    """What has to be computed anew along one axis for each of K patches."""

    pixels: Tensor  # (K, c) of the image: those that the changed cells see
    hidden: Tensor  # (K, c) whether the patch hides them
    cells: Tensor  # (K, n) of the early map: all that see the patch
    # (K, n) the same cells, counted from the first one of the crop's map
    in_crop: Tensor


def _near(centre: Tensor, side: int, patch: int, step: int, reach: int) -> Near:
    """For patches at `centre` (K,). A crop either ends beyond what its changed cells
    see or where the image ends, with the same padding."""
    cells = -(-side // step)
    changed = min(cells, (patch - 1 + 2 * reach) // step + 1)
    margin = -(-reach // step)
    cropped = min(cells, changed + 2 * margin)
    # the first cell that reaches the patch
    first = (-((reach + patch // 2 - centre) // step)).clamp(0, cells - changed)
    start = (first - margin).clamp(0, cells - cropped)
    line = torch.arange(side - (cells - cropped) * step, device=centre.device)
    pixels = start[:, None] * step + line
    inside = first[:, None] + torch.arange(changed, device=centre.device)
    return Near(
        pixels,
        (pixels - centre[:, None]).abs() <= patch // 2,
        inside,
        inside - start[:, None],
    )


def _pairs(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all pairs: (K, a) and (K, b) -> (K, a, 1) and (K, 1, b)."""
    return rows[:, :, None], columns[:, None, :]


def _hats(at: Tensor, side: int, stride: int) -> Tensor:
    """Linear interpolation as a matrix (side, len(at)): from values at the pixels `at`,
    `stride` apart, to all."""
    place = (torch.arange(side, device=at.device) - at[0]) / stride
    return (
        1
        - (
            place.clamp(0, len(at) - 1)[:, None]
            - torch.arange(len(at), device=at.device)
        ).abs()
    ).clamp(min=0)
