"""Occlusion maps (Zeiler and Fergus 2014; Peng et al. 2016, section 3): how far the
logits move when a place cannot be seen.

One forward pass for every place is much work. Two things make it less. All copies of
all images go through the network in batches; and of the first layers only what changes
is computed anew, as in Krypton (Nakandala et al. 2019), because there a patch is seen
by few cells only::

      image                        early map                    the rest

    +-------------+   early      +-------------+    late
    |   +-----+   |   on the     | same  same  |    on the whole
    |   | ### |   |   crop  -->  |   +---+     |    map    -->  logits of the copy
    |   | ### |   |              |   |new| same|
    |   +-----+   |              |   +---+     |
    +-------------+              +-------------+

    ###  the grey patch
    box  left: the crop, what the changed cells see of the image, and a margin
         right: the changed cells, those that see the patch; they are cut out of the
         crop's own map and put into the map of the untouched image

That is exact, up to rounding. Later layers see too much of the image for it to pay.

captum's Occlusion is no substitute. Its windows stay inside the image, ours are centred
at pixels up to the border; its value of a pixel is the mean over all windows that cover
it, ours belongs to the window centred there, as in the paper. (Where both have the same
window they agree: a test holds that.) And on the networks here ours takes a half to a
third of the time, see benchmarks/occlusion.py.
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ..backbones import BatchNorm
from ..backbones.small import Small
from ..errors import InputError
from ..images.enlarge import lines
from ..methods.method import Method
from ..methods.plain import Plain

WholeNumbers = TypeVar("WholeNumbers", int, Tensor)

GREY = 128 / 255
CHUNK = {"cpu": 16}  # occluded copies at a time: few enough for a processor's cache
CHUNK_GPU = 1024  # and enough to fill a GPU


@torch.no_grad()
def occlusion(
    model: Method,
    images: Tensor,
    patch: int,
    stride: int = 1,
    *,
    chunk: int | None = None,
) -> Tensor:
    """How much the logits move when a patch is greyed out: images (B, 3, H, W), float
    in [0, 1] -> maps (B, H, W), float32, not negative.

    The value of a pixel is ||logits(I) - logits(I')||^2, where in I' the square of
    `patch` pixels (odd) centred at that pixel is GREY, cut off at the border of the
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
    device = images.device
    height, width = images.shape[-2:]
    chunk = chunk or CHUNK.get(device.type, CHUNK_GPU)
    halves = _halves(model)

    # where patches are centred
    rows = torch.arange(min(stride, height) // 2, height, stride, device=device)
    columns = torch.arange(min(stride, width) // 2, width, stride, device=device)
    places = len(rows) * len(columns)

    # the untouched images, with channels last: networks run faster on channels that lie
    # side by side, and pieces of images are cut out with the first indices
    pixels = _channels_last(images).contiguous()  # (B, H, W, 3)
    maps = torch.cat([halves.begin(part) for part in pixels.split(chunk)])
    logits = torch.cat([halves.end(part) for part in maps.split(chunk)])  # (B, C)

    values = []
    # every place of every image is a copy with a number
    for number in torch.arange(len(images) * places, device=device).split(chunk):
        image = number // places  # (K,) of K copies
        place = number % places
        down = _near(rows[place // len(columns)], height, patch, halves)
        across = _near(columns[place % len(columns)], width, patch, halves)
        copies = _occluded(pixels, maps, image, down, across, halves)
        moved = halves.end(copies) - logits[image]  # (K, C)
        values.append(moved.square().sum(1))

    grid = torch.cat(values).float().view(len(images), len(rows), len(columns))
    with torch.autocast(device.type, enabled=False):
        return lines(rows, height, stride) @ grid @ lines(columns, width, stride).T


# ---- the two halves of a network


class Halves(NamedTuple):
    """A network cut in two, late(early(images)), both on and with channels first."""

    early: Callable[[Tensor], Tensor]
    late: Callable[[Tensor], Tensor]
    step: int  # of the map between: its stride
    reach: int  # how many pixels to either side a cell of it sees

    def begin(self, pixels: Tensor) -> Tensor:
        """The early map (K, h, w, n) of pixels (K, H, W, 3), channels last."""
        return _channels_last(self.early(_channels_first(pixels)))

    def end(self, maps: Tensor) -> Tensor:
        """Logits (K, C) of early maps, channels last."""
        return self.late(_channels_first(maps))


def _small(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    assert isinstance(network, Small)
    begin = nn.Sequential(network.stem, network.blocks[:1])
    return begin, nn.Sequential(network.blocks[1:], network.widen)


def _mobilenet_v2(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    layers = network.features
    assert isinstance(layers, nn.Sequential)
    return layers[:4], layers[4:]


# name -> (how to cut the network, the stride of the map between, its reach). Holds for
# networks whose convolutions and poolings have odd sizes and symmetric padding, and in
# which every BatchNorm is named right behind the convolution that feeds it.
CUTS = {"small": (_small, 4, 7), "mobilenet_v2": (_mobilenet_v2, 4, 9)}


def _halves(model: Method) -> Halves:
    """The model in two halves. Of one that cannot be cut the first half does nothing:
    the map between is the image.
    """
    if type(model) is not Plain or model.backbone.name not in CUTS:
        return Halves(lambda images: images, model.predict, step=1, reach=0)
    folded = _folded(model)
    backbone = folded.backbone
    cut, step, reach = CUTS[backbone.name]
    first_layers, other_layers = cut(backbone.network)
    mean, std = backbone.get_buffer("mean"), backbone.get_buffer("std")

    def early(images: Tensor) -> Tensor:
        return first_layers((images - mean) / std)

    def late(maps: Tensor) -> Tensor:
        return folded.image_head(other_layers(maps).mean((2, 3)))

    return Halves(early, late, step, reach)


def _folded(model: Plain) -> Plain:
    """A copy in eval mode whose BatchNorm layers are part of the convolutions before
    them.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        children = list(module.named_children())
        for (name, convolution), (behind, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNorm):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, behind, nn.Identity())
    return model.to(memory_format=torch.channels_last)


def _channels_last(x: Tensor) -> Tensor:
    """(K, n, h, w) -> (K, h, w, n)."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    """(K, h, w, n) -> (K, n, h, w)."""
    return x.permute(0, 3, 1, 2)


# ---- the neighbourhood of a patch


class Near(NamedTuple):
    """What has to be computed anew along one axis, for each of K patches."""

    pixels: Tensor  # (K, c) the crop, as pixels of the image
    hidden: Tensor  # (K, c) whether the patch hides them
    cells: Tensor  # (K, n) the changed cells, as cells of the early map
    in_crop: Tensor  # (K, n) the same, as cells of the crop's own map


def _near(centre: Tensor, side: int, patch: int, halves: Halves) -> Near:
    """Along an axis of `side` pixels, for patches centred at the pixels `centre` (K,).

    Sizes are the same for all patches, so that they make one batch; at the border of
    the image the crop is shifted inwards, and then holds cells that do not change::

        pixels    0         start * step                          side
                  |-----------|=====|#######|=====|-----------------|
                               the crop, ### patch
        cells     0         start  first                          cells
                  |-----------|-----|-------|-----|-----------------|
                            margin   changed  margin
    """
    _, _, step, reach = halves
    half = patch // 2
    # Cell i sees the pixels i * step - reach .. i * step + reach.
    cells = _up(side, step)
    changed = min(cells, (patch - 1 + 2 * reach) // step + 1)
    # The first one that sees the patch: i * step + reach >= centre - half.
    first = _up(centre - half - reach, step).clamp(0, cells - changed)

    # Layers pad the crop's border, too. A margin of as many cells as can see that
    # padding keeps it away from the changed ones, unless the crop ends where the image
    # ends: there the padding is the image's own.
    margin = _up(reach, step)
    cropped = min(cells, changed + 2 * margin)
    start = (first - margin).clamp(0, cells - cropped)

    # As many pixels as leave whole steps out: the last crop then ends with the image.
    length = side - (cells - cropped) * step
    pixels = start[:, None] * step + torch.arange(length, device=centre.device)
    hidden = (pixels - centre[:, None]).abs() <= half
    inside = first[:, None] + torch.arange(changed, device=centre.device)
    return Near(pixels, hidden, inside, inside - start[:, None])


def _occluded(
    pixels: Tensor,
    maps: Tensor,
    image: Tensor,
    down: Near,
    across: Near,
    halves: Halves,
) -> Tensor:
    """Early maps (K, h, w, n) of K occluded copies: those of the untouched images, with
    the changed cells put in.

    pixels (B, H, W, 3) and maps (B, h, w, n) of the untouched images; image (K,): of
    which of them each is a copy.
    """
    # crops with the patch in them: (K, c, c', 3)
    crops = pixels[image[:, None, None], *_pairs(down.pixels, across.pixels)]
    patch_down, patch_across = _pairs(down.hidden, across.hidden)
    hidden = (patch_down & patch_across)[..., None]
    seen = halves.begin(torch.where(hidden, GREY, crops))

    copies = maps[image]  # indexing copies
    each = torch.arange(len(image), device=image.device)[:, None, None]
    there = _pairs(down.cells, across.cells)
    here = _pairs(down.in_crop, across.in_crop)
    copies[each, *there] = seen[each, *here]
    return copies


def _pairs(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all pairs of a row and a column: (K, a) and (K, b) -> (K, a, 1) and
    (K, 1, b), which together pick (K, a, b).
    """
    return rows[:, :, None], columns[:, None, :]


def _up(value: WholeNumbers, step: int) -> WholeNumbers:
    """The quotient value / step, rounded up."""
    return -(-value // step)
