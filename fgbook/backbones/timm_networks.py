"""Any of timm's networks, as ``timm:<name>``. timm itself is loaded when a network is
made.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from . import late_compiler
from .backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from .freezing import parameters_of_stage
from .geometry import Depth, measure

PREFIX = "timm:"

# An nn.Module with feature_info, num_features, pretrained_cfg and
# forward_intermediates; timm's networks have no type in common that says so.
TimmNetwork = Any


def untrained(name: str) -> Backbone:
    """The backbone of that name with random weights. Raises InputError for a name that
    timm does not have.

    Its depths are, as of the other backbones, the last map before each change of stride
    from stride 4; the deepest one is what timm's classifier pools. What a network has
    behind that map (a layer between pooling and the classifier) is not used and does
    not learn.
    """
    network = _network(name)
    settings = network.pretrained_cfg
    backbone = Backbone(
        name,
        network,
        partial(maps, chosen=tuple(_chosen(network))),
        partial(depths, name),
        tuple(settings.get("mean", IMAGENET_MEAN)),
        tuple(settings.get("std", IMAGENET_STD)),
        channels=network.num_features,
        usual_size=settings.get("input_size", (3, 224, 224))[-1],
    )
    if torch.is_grad_enabled():  # else nothing is to learn
        _leave_out_what_is_behind(backbone)
    return backbone


def maps(network: TimmNetwork, x: Tensor, chosen: Sequence[int]) -> list[Tensor]:
    """The maps (B, channels, h, w) with these numbers among timm's; of the last one,
    what timm makes of it for its classifier.

    That comes as (B, C, h, w), as (B, h, w, C), or as tokens (B, prefix + h * w, C).
    """
    seen = whole_patches(network, x)
    final, found = network.forward_intermediates(seen, indices=list(chosen))
    if final.ndim == 3:
        final = _in_their_places(network, final, found[-1])
    elif getattr(network, "output_fmt", "NCHW") == "NHWC":
        final = final.permute(0, 3, 1, 2)
    return [*found[:-1], final]


def tokens(network: TimmNetwork, x: Tensor) -> list[Tensor]:
    """The class token (B, C) after the last layer, and the map of the patches' tokens
    (B, C, h, w), of a network that has both.
    """
    seen = whole_patches(network, x)
    final, found = network.forward_intermediates(seen, indices=1)
    return [final[:, 0], _in_their_places(network, final, found[-1])]


def has_class_token(backbone: Backbone) -> bool:
    """Whether a backbone is one of timm's transformers with a class token."""
    of_timm = backbone.name.startswith(PREFIX)
    return of_timm and getattr(backbone.network, "cls_token", None) is not None


def whole_patches(network: TimmNetwork, x: Tensor) -> Tensor:
    """Images without what is left at the right and at the bottom when a transformer
    has cut them into patches: no convolution that steps from patch to patch sees it.
    (timm's own refuses such images.) Raises InputError for less than one patch.
    """
    if not getattr(network, "dynamic_img_size", False):
        return x
    h, w = network.patch_embed.patch_size
    height, width = x.shape[-2:]
    if height < h or width < w:
        raise InputError(
            f"images of {width} x {height} px are smaller than the patches of {w} x {h}"
            f" px that {type(network).__name__} cuts them into; choose a larger"
            " image_size."
        )
    return x[..., : height - height % h, : width - width % w]


def _in_their_places(network: TimmNetwork, final: Tensor, like: Tensor) -> Tensor:
    """Tokens (B, prefix + h * w, C), without the first, as a map (B, C, h, w)."""
    prefix = getattr(network, "num_prefix_tokens", 0)
    patches = final[:, prefix:].transpose(1, 2)  # (B, C, h * w)
    return patches.unflatten(2, like.shape[2:])


# What has been measured, by name and size of image. (A dictionary, because compiled
# code looks into one, but past functools.lru_cache.)
_measured: dict[tuple[str, int], tuple[Depth, ...]] = {}


def depths(name: str, size: int) -> tuple[Depth, ...]:
    """The depths of timm's network of that name, measured once for a size of image, on
    a network of its own. Raises InputError when it takes no images of that size.
    """
    if (name, size) not in _measured:
        # A thread of its own: what is switched on around the caller (no gradients,
        # mixed precision, tensors without values, another device) does not reach into
        # it.
        with ThreadPoolExecutor(1) as thread:
            _measured[name, size] = thread.submit(_depths, name, size).result()
    return _measured[name, size]


def _depths(name: str, size: int) -> tuple[Depth, ...]:
    with torch.random.fork_rng(devices=[]):  # nobody's random numbers change
        network = _network(name)
    chosen = _chosen(network)
    infos = [network.feature_info[number] for number in chosen]
    channels = [info["num_chs"] for info in infos[:-1]] + [network.num_features]
    strides = [info["reduction"] for info in infos]
    firsts = measure(network, partial(maps, chosen=chosen), strides, size)
    return tuple(map(Depth, channels, strides, firsts))


def _chosen(network: TimmNetwork) -> list[int]:
    """The numbers of the last maps before each change of stride, from stride 4."""
    strides = [info["reduction"] for info in network.feature_info]
    chosen = []
    for number, stride in enumerate(strides):
        last = number + 1 == len(strides) or strides[number + 1] != stride
        if stride >= 4 and last:
            chosen.append(number)
    return chosen


def _network(name: str) -> TimmNetwork:
    timm = late_compiler.imported("timm")  # late: it takes a second

    name = name.removeprefix(PREFIX)
    try:
        network = _create(timm, name)
    except ValueError as error:
        raise InputError(f"timm has no model {name!r} ({error}).") from error
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        near = get_close_matches(name, timm.list_models(), n=3)
        raise InputError(
            f"timm has no model {name!r}; nearest:"
            f" {', '.join(near) or 'none, see timm.list_models()'}."
        ) from None
    if not hasattr(network, "forward_intermediates"):
        raise InputError(
            f"timm's {name} does not give its maps (it has no forward_intermediates);"
            " choose another, or a newer timm."
        )
    _pad_within_convolutions(network)
    return network


def _create(timm, name: str) -> TimmNetwork:
    try:
        # transformers that can take other image sizes than their own
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _pad_within_convolutions(network: TimmNetwork) -> None:
    """TensorFlow's "same" padding without a padded copy, where it is as wide at the
    left as at the right (for images of 32 k + 1 pixels: everywhere). The same bits.
    """
    from timm.layers import Conv2dSame

    padded: list[Any] = [
        module for module in network.modules() if isinstance(module, Conv2dSame)
    ]
    for module in padded:
        module.forward = partial(_same_convolution, module, module.forward)


def _same_convolution(
    module: nn.Conv2d, by_copy: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Of maps (B, C, H, W). `by_copy`: timm's own, for padding that is uneven."""
    sides = zip(
        x.shape[-2:], module.kernel_size, module.stride, module.dilation, strict=True
    )
    widths = []
    for side, window, stride, dilation in sides:
        reach = dilation * (window - 1) + 1
        widths.append(max((-(-side // stride) - 1) * stride + reach - side, 0))
    if any(width % 2 for width in widths):
        return by_copy(x)
    return F.conv2d(
        x,
        module.weight,
        module.bias,
        module.stride,
        [width // 2 for width in widths],
        module.dilation,
        module.groups,
    )


def _leave_out_what_is_behind(backbone: Backbone) -> None:
    """Parameters that the feature map does not depend on do not learn."""
    used = parameters_of_stage(backbone, -1)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in used)
