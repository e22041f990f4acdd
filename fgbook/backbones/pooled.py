"""A backbone whose map has one cell: what a linear probe reads of an image."""

from functools import partial

import torch
from torch import Tensor

from ..errors import InputError
from . import networks, timm_networks
from .backbone import Backbone
from .geometry import Depth, Maps

POOLS = ("mean", "class", "both")


def pooled(backbone: Backbone, pool: str) -> Backbone:
    """The same network (and weights: nothing is copied), with one map of one cell, (B,
    n, 1, 1).

    pool: "mean" of the map over space; "class", a transformer's class token after the
        last layer and its normalisation; "both", the class token before the mean.

    Its name is the backbone's and the pool's. Raises InputError for a class token of a
    network that has none.
    """
    n = backbone.channels * (2 if pool == "both" else 1)
    read: Maps = partial(_mean, backbone.features)
    if pool != "mean":
        read = partial(_class, _tokens(backbone), pool == "both")
    made = Backbone(
        f"{backbone.name}-{pool}",
        backbone.network,
        read,
        partial(_depths, n),
        channels=n,
        usual_size=backbone.usual_size,
    )
    made.mean, made.std = backbone.mean, backbone.std
    return made


def _depths(n: int, size: int) -> tuple[Depth, ...]:
    """The one cell looks at the whole image."""
    return (Depth(n, size, size / 2),)


def _mean(maps: Maps, network: torch.nn.Module, x: Tensor) -> list[Tensor]:
    return [maps(network, x)[-1].mean((2, 3), keepdim=True)]


def _class(
    tokens: Maps, both: bool, network: torch.nn.Module, x: Tensor
) -> list[Tensor]:
    first, patches = tokens(network, x)  # (B, n), (B, n, h, w)
    if both:
        first = torch.cat([first, patches.mean((2, 3))], 1)
    return [first[..., None, None]]


def _tokens(backbone: Backbone) -> Maps:
    """What gives the class token (B, n) and the map of the patches' tokens."""
    if backbone.name == "vit_b_16":
        return networks.vit_tokens
    if timm_networks.has_class_token(backbone):
        return timm_networks.tokens
    raise InputError(
        f"{backbone.name} has no class token; choose pool='mean', or a vision"
        " transformer that has one."
    )
