"""Backbones: networks that turn an image into a feature map.

backbone = create("mobilenet_v2")          # or resnet50, vit_b_16, small,
timm:<name>, ... maps = backbone(images)                    # images (B, 3, H, W) in
[0, 1] -> (B, backbone.channels, h, w) early, *others, last =
backbone.stages(images)   # maps at several depths; backbone.depths says what each
is
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ..errors import InputError, unknown
from .small import Small
from .weights import find, identity, load

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Depth:
    """What a feature map is: its channels, and where its cells look. Cell (y, x) looks
    at the input round (first + x * stride, first + y * stride), in pixels, where pixel
    i covers [i, i + 1]."""

    channels: int
    stride: int
    first: float


def geometry(*layers: tuple) -> tuple[Depth, ...]:
    """The depths of a network from its layers: for each map its channels, then (kernel,
    stride, padding) of every layer since the map before it that strides or is not
    padded by half its kernel. (Other layers leave the cells where they are.)

    The middle of a window lies (kernel - 1) / 2 - padding cells after the cell that its
    own number names, and each step is `stride` cells. So three pixels wide with stride
    2 and padding 1 samples pixels 0, 2, 4, ... and cell 0 goes on looking at the middle
    of pixel 0.
    """
    found, stride, first = [], 1, 0.5  # the image itself: the middle of pixel 0
    for channels, *since in layers:
        for kernel, step, padding in since:
            first += stride * ((kernel - 1) / 2 - padding)
            stride *= step
        found.append(Depth(channels, stride, first))
    return tuple(found)


class Backbone(nn.Module):
    """A network without its classifier: images (B, 3, H, W), float in [0, 1] -> feature
        map (B, channels, h, w), h about H / stride.

    The mean and standard deviation that the network was trained with are applied
    inside. With `frozen_statistics` (see :func:`freeze_statistics`) BatchNorm layers
    keep and use their stored mean and variance in training too; weight and bias still
    learn.

    `features` gives the maps of the network at several depths, the last one being the
    feature map; `depths` describes them. The last one's `channels`, `stride` and
    `first` (where its cells look, see :class:`Depth`) are also the backbone's own.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        features: Callable[[nn.Module, Tensor], list[Tensor]],
        depths: tuple[Depth, ...],
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ):
        super().__init__()
        self.name, self.depths = name, depths
        self.channels, self.stride, self.first = (
            depths[-1].channels,
            depths[-1].stride,
            depths[-1].first,
        )
        self.network = network
        self.features = features
        self.frozen_statistics = False
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """The maps (B, channels, h, w) at every one of `depths`, in one pass; the last
        is what ``forward`` gives."""
        return self.features(self.network, (images - self.mean) / self.std)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self


def freeze_statistics(model: nn.Module) -> None:
    """From now on the BatchNorm layers of every Backbone in `model` stay in eval mode,
    whatever ``model.train()`` says."""
    for module in model.modules():
        if isinstance(module, Backbone):
            module.frozen_statistics = True
            module.train(module.training)


class SecondStatistics(nn.Module):
    """A second set of BatchNorm running statistics for a network that sees two kinds of
    images; all weights are shared.

    ``second(network, x)`` is ``network(x)`` with this set in place of the network's
    own: used in eval mode, updated in training, and saved with the model that holds it.
    It starts as a copy. Where statistics are frozen it stays that copy, and so changes
    nothing.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        for name, module in network.named_modules():
            if isinstance(module, BatchNorm):
                for kind, value in module.named_buffers():
                    # a buffer's name may not hold a dot
                    self.register_buffer(
                        f"{name}.{kind}".replace(".", "/"), value.clone()
                    )

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        return torch.func.functional_call(
            network,
            {name.replace("/", "."): value for name, value in self.named_buffers()},
            (x,),
        )


# ---- feature maps at several depths, of torchvision's networks and our own


def _small(network: nn.Module, x: Tensor) -> list[Tensor]:
    fine = network.blocks[0](network.stem(x))
    coarse = network.blocks[1](fine)
    return [fine, coarse, network.widen(network.blocks[2](coarse))]


def _resnet(network: nn.Module, x: Tensor) -> list[Tensor]:
    x, maps = network.maxpool(network.relu(network.bn1(network.conv1(x)))), []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def _sequence(network: nn.Module, x: Tensor, after: tuple[int, ...]) -> list[Tensor]:
    """Of networks that are one sequence of layers: the maps after those with the
    numbers `after`."""
    maps = []
    for number, layer in enumerate(network.features):
        x = layer(x)
        if number in after:
            maps.append(x)
    return maps


def _alexnet_fc7(network: nn.Module, x: Tensor) -> list[Tensor]:
    """With AlexNet's two hidden fully connected layers (and their dropout): a map of
    one cell, of whatever size the image is."""
    maps = _sequence(network, x, (1, 4, 11))
    return [
        *maps,
        network.classifier(network.avgpool(network.features[12](maps[-1])).flatten(1))[
            ..., None, None
        ],
    ]


def _convnext(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The final LayerNorm, which torchvision applies after pooling, is applied at every
    place: pooling stays the last, linear step."""
    *earlier, last = _sequence(network, x, (1, 3, 5, 7))
    return [*earlier, network.classifier(last)]


def _inception(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Up to Mixed_7c, past the auxiliary classifier; maps before each stride change,
    from stride 4."""
    x = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(x)))
    maps = [network.Conv2d_4a_3x3(network.Conv2d_3b_1x1(network.maxpool1(x)))]
    for blocks in (
        ("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d"),
        ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    ):
        x = maps[-1]
        for block in blocks:
            x = getattr(network, block)(x)
        maps.append(x)
    return maps


def _vit(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The patch tokens after the last layer, back in their places; the positional
    embedding is resized where the image is not 224 px."""
    x = network.conv_proj(x)  # (B, 768, h, w)
    h, w = x.shape[-2:]
    position = network.encoder.pos_embedding  # (1, 1 + side * side, 768)
    side = math.isqrt(position.shape[1] - 1)
    if (h, w) != (side, side):
        grid = position[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
        position = torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    # (B, 1 + h * w, 768)
    tokens = (
        torch.cat(
            [network.class_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)],
            1,
        )
        + position
    )
    tokens = network.encoder.ln(network.encoder.layers(network.encoder.dropout(tokens)))
    return [tokens[:, 1:].transpose(1, 2).unflatten(2, (h, w))]


# kernel, stride, padding: halving with padding, by twos, and without padding
HALF, POOL, VALID = (3, 2, 1), (2, 2, 0), (3, 2, 0)
SMALL = geometry((32, HALF, HALF), (96, HALF), (Small.channels,))
MOBILE = geometry((24, HALF, HALF), (32, HALF), (96, HALF), (1280, HALF))
BASIC, BOTTLENECK = (
    geometry((n, (7, 2, 3), HALF), (2 * n, HALF), (4 * n, HALF), (8 * n, HALF))
    for n in (64, 256)
)
INCEPTION = geometry(
    (192, VALID, (3, 1, 0), VALID, (3, 1, 0)), (288, VALID), (768, VALID), (2048, VALID)
)

# name -> (maps, their depths, the classifier's attribute). The maps are the last ones
# before each change of stride, from stride 4.
TORCHVISION = {
    "alexnet": (
        partial(_sequence, after=(1, 4, 11, 12)),
        geometry((64, (11, 4, 2)), (192, VALID), (256, VALID), (256, VALID)),
        "classifier",
    ),
    "alexnet_fc7": (
        _alexnet_fc7,
        geometry(
            (64, (11, 4, 2)), (192, VALID), (256, VALID), (4096, VALID, (6, 1, 0))
        ),
        "classifier",
    ),
    # conv3_3, conv4_3, conv5_3 and the pool after it
    "vgg16": (
        partial(_sequence, after=(15, 22, 29, 30)),
        geometry((256, POOL, POOL), (512, POOL), (512, POOL), (512, POOL)),
        "classifier",
    ),
    "inception_v3": (_inception, INCEPTION, "fc"),
    "resnet18": (_resnet, BASIC, "fc"),
    "resnet34": (_resnet, BASIC, "fc"),
    "resnet50": (_resnet, BOTTLENECK, "fc"),
    "resnet101": (_resnet, BOTTLENECK, "fc"),
    "mobilenet_v2": (partial(_sequence, after=(3, 6, 13, 18)), MOBILE, "classifier"),
    "efficientnet_b0": (
        partial(_sequence, after=(2, 3, 5, 8)),
        geometry((24, HALF, HALF), (40, HALF), (112, HALF), (1280, HALF)),
        "classifier",
    ),
    "convnext_tiny": (
        _convnext,
        geometry((96, (4, 4, 0)), (192, POOL), (384, POOL), (768, POOL)),
        "classifier",
    ),
    "vit_b_16": (_vit, geometry((768, (16, 16, 0))), "heads"),
}
NAMES = ("small", *TORCHVISION)


def _untrained(name: str) -> Backbone:
    """The backbone with random weights, drawn from torch's global generator as its
    authors chose."""
    if name == "small":
        return Backbone(name, Small(), _small, SMALL)
    if name.startswith("timm:"):
        return _timm(name)
    features, found, head = TORCHVISION[name]
    if name == "inception_v3":
        network = torchvision.models.inception_v3(
            weights=None, aux_logits=False, init_weights=True
        )
    else:
        network = torchvision.models.get_model(name.removesuffix("_fc7"), weights=None)
    # layers of the head: ConvNeXt's LayerNorm, AlexNet's fc6 and fc7
    stays = {"convnext_tiny": 1, "alexnet_fc7": 6}.get(name)
    setattr(network, head, network.classifier[:stays] if stays else nn.Identity())
    # Inception's weights come from TensorFlow and want pixels in [-1, 1]; torchvision
    # gets there by way of ImageNet's mean (transform_input).
    scale = (
        ((0.5,) * 3, (0.5,) * 3)
        if name == "inception_v3"
        else (IMAGENET_MEAN, IMAGENET_STD)
    )
    return Backbone(name, network, features, found, *scale)


# ---- timm


def _timm_model(name: str, **options) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(
            f"backbone {name!r} needs the timm package; install it with: pip install"
            " 'fgbook[timm]'"
        ) from None
    name = name.removeprefix("timm:")
    try:
        return timm.create_model(name, num_classes=0, **options)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        near = get_close_matches(name, timm.list_models(), n=3)
        raise InputError(
            f"timm has no model {name!r}; nearest:"
            f" {', '.join(near) or 'none, see timm.list_models()'}."
        ) from None


def _timm_map(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Timm's feature maps come as (B, C, h, w), (B, h, w, C), or tokens of square
    images (B, prefix + h * h, C); here always the first, and only the last depth."""
    maps = network.forward_features(x)
    if maps.ndim == 3:
        maps = maps[:, getattr(network, "num_prefix_tokens", 0) :]
        return [maps.transpose(1, 2).unflatten(2, (math.isqrt(maps.shape[1]),) * 2)]
    return [
        (
            maps.permute(0, 3, 1, 2)
            if getattr(network, "output_fmt", "NCHW") == "NHWC"
            else maps
        )
    ]


def _timm(name: str) -> Backbone:
    try:
        # transformers that can take other image sizes than their own
        network = _timm_model(name, dynamic_img_size=True)
    except TypeError:
        network = _timm_model(name)
    size = network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
    with torch.no_grad():
        (maps,) = _timm_map(network.eval(), torch.zeros(1, 3, size, size))
    mean, std = (
        tuple(network.pretrained_cfg.get(k, v))
        for k, v in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    stride = round(size / maps.shape[2])
    # A guess by family: timm does not say where a cell looks. Networks with one-sided
    # ("same") padding lie between the two.
    first = (
        stride / 2
        if network.__class__.__name__.endswith("Transformer")
        or "NeXt" in network.__class__.__name__
        else 0.5
    )
    return Backbone(
        name,
        network.train(),
        _timm_map,
        (Depth(maps.shape[1], stride, first),),
        mean,
        std,
    )


# ---- with weights


def create(name: str, weights: str = "pretrained") -> Backbone:
    """The backbone of that name, in training mode.

    `name`: one of NAMES, or ``timm:<name>`` when timm is installed. `weights`: "none"
    (random); "pretrained" (for `small` the file in the package; for others a file in
    ``paths.weights()`` called <name>-imagenet1k, <name>, or as torchvision calls it,
    else torchvision's or timm's download); a path; or the name of another file in that
    folder, with or without its suffix. Files are safetensors or torch state dicts; a
    classifier in them is ignored. Raises InputError, with what to do, for an unknown
    name and for weights that cannot be found, downloaded or read, that hold code, or
    that do not fit (with the keys).
    """
    _known(name)
    source = find(name, weights)
    backbone = _untrained(name)
    if source is not None:
        load(backbone.network, name, source)
    return backbone


def weights_id(name: str, weights: str = "pretrained") -> str:
    """What identifies the weights in a record: file name and sha256 (8 digits), the
    name of a download, or "none". Downloads nothing."""
    if name == "none":  # of a method that brings its own network
        return "none"
    _known(name)
    return identity(name, find(name, weights))


def _known(name: str) -> None:
    if name not in NAMES and not name.startswith("timm:"):
        raise unknown("backbone", name, [*NAMES, "timm:NAME"])
