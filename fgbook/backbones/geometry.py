"""Where the cells of a feature map look: computed from a network's layers, or measured
on the network itself.

    geometry((64, (7, 2, 3), (3, 2, 1)))  # a stem of two layers that halve, by hand
    measure(network, maps, strides, size)  # any network, at images of that size
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError

Maps = Callable[[Any, Tensor], list[Tensor]]
"""network, images (B, 3, H, W) -> its maps (B, channels, h, w), the deepest last. The
network is an nn.Module; which one, each such function says itself."""


@dataclass(frozen=True)
class Depth:
    """What a feature map is: its channels, and where its cells look.

    Cell (y, x) looks at the input round (first + y * stride, first + x * stride), in
    pixels, where pixel i covers [i, i + 1].
    """

    channels: int
    stride: int
    first: float


Layer = tuple[int, int, int]
"""kernel, stride, padding."""


def geometry(*maps: tuple[int, *tuple[Layer, ...]]) -> tuple[Depth, ...]:
    """The depths of a network from its layers.

    For each map: its channels, then (kernel, stride, padding) of every layer since the
    map before it that strides or is not padded by half its kernel. (Other layers leave
    the cells where they are.)

    The middle of a window lies (kernel - 1) / 2 - padding cells after the cell that its
    own number names, and each step is `stride` cells. So three pixels wide with stride
    2 and padding 1 samples pixels 0, 2, 4, ... and cell 0 goes on looking at the middle
    of pixel 0.
    """
    depths = []
    stride, first = 1, 0.5  # the image itself: the middle of pixel 0
    for channels, *layers in maps:
        for kernel, step, padding in layers:
            first += stride * ((kernel - 1) / 2 - padding)
            stride *= step
        depths.append(Depth(channels, stride, first))
    return tuple(depths)


# ---- measured

# What mixes places without moving them: attention. (MLA: multi-scale linear attention.)
ATTENTION = re.compile("Attention|Attn|MLA")

# Small enough that nothing of the network bends: gates stand still, ReLU6 is far from
# its 6, and what is left of a gate's own slope vanishes beside the map that it scales.
TINY = 1e-60


def measure(
    network: nn.Module, maps: Maps, strides: Sequence[int], size: int
) -> list[float]:
    """Where cell 0 of each map looks in square images of `size` pixels: `first` of
    :class:`Depth`, in half pixels. Overwrites the weights of the network.

    Every layer is made to take the mean of what lies in the middle of its window; then
    a cell depends on the very pixels that it looks at, and the gradient shows which.
    This sees whatever the layers do: padding on one side, as TensorFlow has it, which
    depends on the size; shortcuts (of two ways with different middles, the mean
    counts); merged patches. Attention looks at all places and moves none, so it counts
    as a constant. Where a network mixes all places with each other in another way
    (multilayer perceptrons over places), no middle is left to be found: its cells are
    taken for equal tiles of the image.

    Raises InputError when the network does not take images of that size.
    """
    network.double().eval().requires_grad_(False)
    _look_at_the_middle(network)

    image, found = _strip(network, maps, strides[-1], size)
    pairs = zip(found, strides, strict=True)
    return [_first(cells, image, stride) for cells, stride in pairs]


def _look_at_the_middle(network: nn.Module) -> None:
    """Weights become means over their inputs, of filters in the middle of the window
    (one place, or two where the window is even); biases become 0.
    """
    for module in network.modules():
        if ATTENTION.search(type(module).__name__):
            module.register_forward_hook(_constant)
    for weight in network.parameters():
        if weight.ndim < 2:
            weight.zero_()
        elif weight.ndim == 4:
            weight.zero_()
            y, x = (slice((side - 1) // 2, side // 2 + 1) for side in weight.shape[2:])
            middle = weight[:, :, y, x]
            middle.fill_(1 / middle[0].numel())
        else:
            weight.fill_(1 / weight[0].numel())


def _constant(module: nn.Module, inputs: tuple, output: object) -> object:
    """A hook: the output no longer depends on anything."""
    if isinstance(output, tuple):
        return tuple(_constant(module, inputs, one) for one in output)
    return output.detach() if isinstance(output, Tensor) else output


class Linear(TorchFunctionMode):
    """Within it, layers that bend are linear: normalisation changes nothing, and the
    largest of a window is its mean.
    """

    NORMS = (F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """What torch calls in place of each of its functions."""
        kwargs = kwargs or {}
        if function in self.NORMS:
            return args[0]
        if function is F.max_pool2d:
            return _average_pool(*args, **kwargs)
        if function is F.pad and kwargs.get("value") == -math.inf:
            # round what the largest was taken of: a mean wants zeros
            kwargs = {**kwargs, "value": 0.0}
        return function(*args, **kwargs)


def _average_pool(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Average pooling by the arguments of max pooling."""
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


def _strip(
    network: nn.Module, maps: Maps, stride: int, size: int
) -> tuple[Tensor, list[Tensor]]:
    """An image that is cheap to look at and whose cells look where those of an image of
    `size` pixels do, and its maps. It is low, and four strides longer than what `size`
    leaves over.

    One-sided padding depends on what is left when a side is halved, so on `size` modulo
    the stride alone. Networks without padding need more height; those for one size of
    image, or for windows of a size, need the square.
    """
    width = 4 * stride + size % stride
    sides = [(stride, width), (3 * stride, 6 * stride + width), (size, size)]
    for height, width in sides:
        image = torch.full((1, 3, height, width), TINY, dtype=torch.float64)
        image.requires_grad_()
        try:
            with Linear():
                # a copy: hooks of torch's FLOP counter, where one is on, take no leaf
                found = maps(network, image.clone())
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if found[-1].shape[3] >= 2:  # two cells, to see how far apart they look
            return image, found
        reason = f"its map has {found[-1].shape[3]} cells a side"
    raise InputError(
        f"{type(network).__name__} does not take images of {size} px ({reason}); choose"
        " another image_size."
    )


def _first(cells: Tensor, image: Tensor, stride: int) -> float:
    """Where cell 0 looks, from two cells (1, n, h, w) in the middle of a row."""
    middle = cells.shape[3] // 2
    before, after = (_centre(cells, image, x) for x in (middle - 1, middle))
    apart = after - before
    if not math.isclose(apart, stride, rel_tol=0.05):  # also where it is not a number
        return stride / 2
    first = (before + after) / 2 - (middle - 0.5) * stride
    return round(2 * first) / 2


def _centre(cells: Tensor, image: Tensor, x: int) -> float:
    """The middle of the columns of pixels that a cell in column x depends on."""
    if not cells.requires_grad:
        return math.nan
    cell = cells[0, :, cells.shape[2] // 2, x].sum()
    (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
    weight = gradient[0].abs().sum((0, 1))  # (W,)
    place = torch.arange(len(weight), dtype=weight.dtype) + 0.5
    return ((place * weight).sum() / weight.sum()).item()
