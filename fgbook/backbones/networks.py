"""torchvision's networks: the maps that they give, where their cells look, and what
their weights are called. torchvision itself, which takes seconds to load, is loaded
when a network is made.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import late_compiler
from .backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from .geometry import Depth, Maps, geometry

if TYPE_CHECKING:  # loading it takes seconds
    from torchvision.models import (
        AlexNet,
        ConvNeXt,
        Inception3,
        ResNet,
        VisionTransformer,
    )

# ---- feature maps at several depths


def resnet(network: "ResNet", x: Tensor) -> list[Tensor]:
    """The maps after each of the four stages."""
    x = network.relu(network.bn1(network.conv1(x)))
    x = network.maxpool(x)
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def sequence(
    network: "AlexNet | ConvNeXt", x: Tensor, after: tuple[int, ...]
) -> list[Tensor]:
    """The maps after the layers with the numbers `after`, of networks that are one
    sequence of layers.
    """
    maps = []
    for number, layer in enumerate(network.features):
        x = layer(x)
        if number in after:
            maps.append(x)
    return maps


def alexnet_fc7(network: "AlexNet", x: Tensor) -> list[Tensor]:
    """With AlexNet's two hidden fully connected layers (and their dropout): a map of
    one cell, of whatever size the image is.
    """
    maps = sequence(network, x, (1, 4, 11))
    pooled = network.avgpool(network.features[12](maps[-1]))
    hidden = network.classifier(pooled.flatten(1))  # (B, 4096)
    return [*maps, hidden[..., None, None]]


def convnext(network: "ConvNeXt", x: Tensor) -> list[Tensor]:
    """The final LayerNorm, which torchvision applies after pooling, is applied at every
    place: pooling stays the last, linear step.
    """
    *earlier, last = sequence(network, x, (1, 3, 5, 7))
    return [*earlier, network.classifier(last)]


INCEPTION_STAGES = (
    ("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d"),
    ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


def inception(network: "Inception3", x: Tensor) -> list[Tensor]:
    """Up to Mixed_7c, past the auxiliary classifier; maps before each stride change,
    from stride 4.
    """
    x = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(x)))
    x = network.Conv2d_4a_3x3(network.Conv2d_3b_1x1(network.maxpool1(x)))
    maps = [x]
    for blocks in INCEPTION_STAGES:
        for block in blocks:
            x = getattr(network, block)(x)
        maps.append(x)
    return maps


def vit(network: "VisionTransformer", x: Tensor) -> list[Tensor]:
    """The patch tokens after the last layer, back in their places."""
    return vit_tokens(network, x)[1:]


def vit_tokens(network: "VisionTransformer", x: Tensor) -> list[Tensor]:
    """The class token (B, n) after the last layer, and the map of the patches' tokens;
    the positional embedding is resized where the image is not 224 px.
    """
    x = network.conv_proj(x)  # (B, n, h, w)
    h, w = x.shape[-2:]
    patches = x.flatten(2).transpose(1, 2)  # (B, h * w, n)
    first = network.class_token.expand(x.shape[0], -1, -1)  # (B, 1, n)

    tokens = torch.cat([first, patches], 1) + _position(network, h, w)
    tokens = network.encoder.layers(network.encoder.dropout(tokens))
    tokens = network.encoder.ln(tokens)  # (B, 1 + h * w, n)
    return [tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, (h, w))]


def _position(network: "VisionTransformer", h: int, w: int) -> Tensor:
    """The positional embedding (1, 1 + h * w, n): of the class token, then of the
    patches, whose square grid is resized to h x w.
    """
    position = network.encoder.pos_embedding  # (1, 1 + side * side, n)
    side = math.isqrt(position.shape[1] - 1)
    if (h, w) == (side, side):
        return position
    grid = position[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
    return torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], 1)


# ---- the networks


@dataclass(frozen=True)
class Network:
    """One of torchvision's networks.

    maps, depths: what it gives: the last maps before each change of stride, from
        stride 4.
    head: the attribute of its classifier, of which the first `kept` layers stay.
    weights: torchvision's name of its first ImageNet weights: the ones that the papers'
        years know; later sets come from a stronger training recipe.
    file: what the file with these is called, without its suffix.
    """

    maps: Maps
    depths: tuple[Depth, ...]
    head: str
    weights: str
    file: str
    kept: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


# kernel, stride, padding: halving with padding, by twos, and without padding
HALF, POOL, VALID = (3, 2, 1), (2, 2, 0), (3, 2, 0)
WHOLE = (3, 1, 0)  # 3 x 3 without padding
PATCHES = (4, 4, 0)

ALEXNET_DEPTHS = geometry((64, (11, 4, 2)), (192, VALID), (256, VALID), (256, VALID))


def _residual(channels: int) -> tuple[Depth, ...]:
    """The depths of a residual network whose first stage has so many channels."""
    n = channels
    return geometry((n, (7, 2, 3), HALF), (2 * n, HALF), (4 * n, HALF), (8 * n, HALF))


TORCHVISION = {
    "alexnet": Network(
        maps=partial(sequence, after=(1, 4, 11, 12)),
        depths=ALEXNET_DEPTHS,
        head="classifier",
        weights="AlexNet_Weights.IMAGENET1K_V1",
        file="alexnet-owt-7be5be79",
    ),
    "alexnet_fc7": Network(
        maps=alexnet_fc7,
        depths=geometry(
            (64, (11, 4, 2)), (192, VALID), (256, VALID), (4096, VALID, (6, 1, 0))
        ),
        head="classifier",
        kept=6,
        weights="AlexNet_Weights.IMAGENET1K_V1",
        file="alexnet-owt-7be5be79",
    ),
    "vgg16": Network(
        # conv3_3, conv4_3, conv5_3 and the pool after it
        maps=partial(sequence, after=(15, 22, 29, 30)),
        depths=geometry((256, POOL, POOL), (512, POOL), (512, POOL), (512, POOL)),
        head="classifier",
        weights="VGG16_Weights.IMAGENET1K_V1",
        file="vgg16-397923af",
    ),
    "inception_v3": Network(
        maps=inception,
        depths=geometry(
            (192, VALID, WHOLE, VALID, WHOLE), (288, VALID), (768, VALID), (2048, VALID)
        ),
        head="fc",
        weights="Inception_V3_Weights.IMAGENET1K_V1",
        file="inception_v3_google-0cc3c7bd",
        # Its weights come from TensorFlow and want pixels in [-1, 1]; torchvision gets
        # there by way of ImageNet's mean (transform_input).
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "resnet18": Network(
        maps=resnet,
        depths=_residual(64),
        head="fc",
        weights="ResNet18_Weights.IMAGENET1K_V1",
        file="resnet18-f37072fd",
    ),
    "resnet34": Network(
        maps=resnet,
        depths=_residual(64),
        head="fc",
        weights="ResNet34_Weights.IMAGENET1K_V1",
        file="resnet34-b627a593",
    ),
    "resnet50": Network(
        maps=resnet,
        depths=_residual(256),
        head="fc",
        weights="ResNet50_Weights.IMAGENET1K_V1",
        file="resnet50-0676ba61",
    ),
    "resnet101": Network(
        maps=resnet,
        depths=_residual(256),
        head="fc",
        weights="ResNet101_Weights.IMAGENET1K_V1",
        file="resnet101-63fe2227",
    ),
    "mobilenet_v2": Network(
        maps=partial(sequence, after=(3, 6, 13, 18)),
        depths=geometry((24, HALF, HALF), (32, HALF), (96, HALF), (1280, HALF)),
        head="classifier",
        weights="MobileNet_V2_Weights.IMAGENET1K_V1",
        file="mobilenet_v2-b0353104",
    ),
    "efficientnet_b0": Network(
        maps=partial(sequence, after=(2, 3, 5, 8)),
        depths=geometry((24, HALF, HALF), (40, HALF), (112, HALF), (1280, HALF)),
        head="classifier",
        weights="EfficientNet_B0_Weights.IMAGENET1K_V1",
        file="efficientnet_b0_rwightman-7f5810bc",
    ),
    "convnext_tiny": Network(
        maps=convnext,
        depths=geometry((96, PATCHES), (192, POOL), (384, POOL), (768, POOL)),
        head="classifier",
        kept=1,  # LayerNorm
        weights="ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        file="convnext_tiny-983f1562",
    ),
    "vit_b_16": Network(
        maps=vit,
        depths=geometry((768, (16, 16, 0))),
        head="heads",
        weights="ViT_B_16_Weights.IMAGENET1K_V1",
        file="vit_b_16-c867db91",
    ),
}


def untrained(name: str) -> Backbone:
    """The backbone of that name with random weights, drawn from torch's global
    generator as its authors chose.
    """
    torchvision = late_compiler.imported("torchvision")  # late: it takes a second

    known = TORCHVISION[name]
    options = {}
    if name == "inception_v3":
        options = {"aux_logits": False, "init_weights": True}
    network = torchvision.models.get_model(
        name.removesuffix("_fc7"), weights=None, **options
    )

    kept = nn.Identity()
    if known.kept:
        kept = getattr(network, known.head)[: known.kept]
    setattr(network, known.head, kept)
    return Backbone(name, network, known.maps, known.depths, known.mean, known.std)
