"""Gautam, Suman, Sharma: Fine grained image classification using deep learning. Channel
and spatial attention, and a triplet loss.

    model = Attention(create("resnet50"), num_classes=200)
    logits = model(images)  # {"image": (B, C)}
    maps = model.backbone(images)  # (B, n, h, w)
    channels = model.channel(maps)  # (B, n, 1, 1): how much each channel counts
    places = model.spatial(maps * channels)  # (B, 1, h, w): and then each place

The paper says "spatial and channel-wise attention" and no more. These are the two gates
of CBAM (Woo et al. 2018), once, after the last stage, or, as there, in each residual
block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..backbones.small import Block
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method
from .options import check_choice
from .triplet import batch_hard

REDUCTION = 16  # channels of the map over units of the hidden layer
STARTS = ("identity", "usual")
PLACES = ("last", "blocks")


def top_of(start: str) -> int:
    """The largest value of a gate; see :class:`Attention` for `start`."""
    return 2 if start == "identity" else 1


class ChannelGate(nn.Module):
    """Which channels count (Woo et al. 2018, eq. 2): maps (B, n, h, w) -> gate (B, n,
    1, 1). One perceptron reads the mean and the maximum.
    """

    def __init__(self, channels: int, start: str):
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        first = nn.Linear(channels, hidden, bias=False)
        last = nn.Linear(hidden, channels, bias=False)
        self.perceptron = nn.Sequential(first, nn.ReLU(), last)
        self.top = top_of(start)
        if start == "identity":
            nn.init.zeros_(last.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Eq. 2: sigmoid(W_1(W_0(mean over places)) + W_1(W_0(maximum)))."""
        of_mean = self.perceptron(maps.mean((2, 3)))  # (B, n)
        of_maximum = self.perceptron(maps.amax((2, 3)))
        gate = self.top * (of_mean + of_maximum).sigmoid()
        return gate[:, :, None, None]


class SpatialGate(nn.Module):
    """Which places count (Woo et al. 2018, eq. 3): maps (B, n, h, w) -> gate (B, 1, h,
    w). A 7x7 convolution reads the mean and the maximum over channels; BatchNorm
    follows, as in the authors' code (whose perceptron has biases, and whose BatchNorm a
    momentum of 0.01; here neither).
    """

    def __init__(self, start: str):
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.top = top_of(start)
        if start == "identity":
            nn.init.zeros_(self.norm.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Eq. 3: sigmoid(f_7x7([mean over channels; maximum]))."""
        mean = maps.mean(1, keepdim=True)
        maximum = maps.amax(1, keepdim=True)
        pooled = torch.cat([mean, maximum], 1)  # (B, 2, h, w)
        return self.top * self.norm(self.convolution(pooled)).sigmoid()


def weighed(maps: Tensor, *gates: nn.Module | None) -> Tensor:
    """Maps (B, n, h, w) times each gate in turn, which reads what the one before it has
    left (eq. 1).
    """
    for gate in gates:
        if gate is not None:
            maps = maps * gate(maps)
    return maps


class Gates(nn.Module):
    """Both gates, or one: maps (B, n, h, w) -> the same, weighed."""

    def __init__(self, channels: int, channel: bool, spatial: bool, start: str):
        super().__init__()
        self.channel = ChannelGate(channels, start) if channel else None
        self.spatial = SpatialGate(start) if spatial else None

    def forward(self, maps: Tensor) -> Tensor:
        """First channels, then places, as in eq. 1."""
        return weighed(maps, self.channel, self.spatial)


class Gated(nn.Module):
    """A layer of the backbone, and gates behind it.

    The gates belong to another module: they are new, and must not learn at the
    backbone's rate. A tuple holds them here, because whatever a module holds directly
    is counted among its own.
    """

    def __init__(self, layer: nn.Module, gates: Gates):
        super().__init__()
        self.layer = layer
        self.elsewhere = (gates,)

    def forward(self, maps: Tensor) -> Tensor:
        """The layer's maps, weighed by the gates."""
        (gates,) = self.elsewhere
        maps = self.layer(maps)
        # Without values: asked which of the backbone's parameters a map depends on
        # (backbones.freeze_stages), and gates, which are elsewhere, are none of them.
        return maps if maps.is_meta else gates(maps)


def branch_ends(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, name of the layer in it) for the last layer of each residual branch: a
    BatchNorm, whose maps are then added to the block's input.
    """
    from torchvision.models.mobilenetv2 import InvertedResidual
    from torchvision.models.resnet import BasicBlock, Bottleneck

    last_norms = {Block: "norm2", BasicBlock: "bn2", Bottleneck: "bn3"}
    ends: list[tuple[nn.Module, str]] = []
    for block in network.modules():
        if isinstance(block, InvertedResidual) and block.use_res_connect:
            ends.append((block.conv, str(len(block.conv) - 1)))
        elif type(block) in last_norms:
            ends.append((block, last_norms[type(block)]))
        elif getattr(block, "has_skip", False):  # timm's EfficientNets and MobileNets
            ends.append((block, "bn3" if hasattr(block, "bn3") else "bn2"))
    return ends


class Attention(Method):
    """Backbone, channel gate, spatial gate, GAP, one linear head; a triplet loss on the
    pooled features, if wanted.

    channel, spatial: which gates there are. Without either it is the plain backbone.
    start: "usual": gates are sigmoids, near 0.5 at first, so each halves what a
        pretrained backbone says. "identity": gates are twice the sigmoid of 0, exactly
        1 at first: training starts from the plain backbone, with the same logits for
        the same head. Twice a sigmoid is 1 + tanh of half its argument: the range of a
        gate with 1 in its middle. The last layer of each gate starts at 0, so the
        layers behind it learn from the second step on; weight decay pulls towards the
        plain backbone.
    where: "last": behind the last stage. "blocks": on the residual branch of each
        block, before the sum, as CBAM was published; for `small`, ResNets,
        MobileNetV2 and timm's EfficientNets. In either case the gates learn at the rate
        of the heads, also those within stages that the recipe freezes.
    triplet: whether the batch-hard triplet loss (:mod:`fgbook.methods.triplet`) is one
        of the losses, "triplet"; recipe.loss_weights weights it and recipe.per_class
        puts several images of a class into each batch, without which it is 0 most of
        the time.
    margin: of that loss, in distances of embeddings of length 1.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"start": "usual", "triplet": True})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channel: bool = True,
        spatial: bool = True,
        start: str = "identity",
        where: str = "last",
        triplet: bool = False,
        margin: float = 0.3,
    ):
        super().__init__()
        check_choice("start", start, STARTS)
        check_choice("where", where, PLACES)
        if not 0 <= margin <= 2:
            raise InputError(
                f"attention: margin {margin}; distances of embeddings of length 1 lie"
                " between 0 and 2, and so must the margin."
            )
        self.triplet = triplet
        self.margin = margin
        self.backbone = backbone
        # before the gates: the plain backbone's head for the same seed
        self.image_head = linear(backbone.channels, num_classes)

        last = where == "last"
        self.channel = None
        if channel and last:
            self.channel = ChannelGate(backbone.channels, start)
        self.spatial = SpatialGate(start) if spatial and last else None

        self.blocks = nn.ModuleList()
        if where == "blocks":
            self._gate_blocks(channel, spatial, start)

    def _gate_blocks(self, channel: bool, spatial: bool, start: str) -> None:
        """Put gates on every residual branch of the backbone; they belong to `blocks`,
        so that they learn at the rate of the head.
        """
        ends = branch_ends(self.backbone.network)
        if not ends:
            raise InputError(
                f"attention: {self.backbone.name} has no residual blocks that are known"
                " here; take where='last', or small, a ResNet, mobilenet_v2 or an"
                " EfficientNet of timm."
            )
        for parent, name in ends:
            layer = parent.get_submodule(name)
            assert isinstance(layer, nn.BatchNorm2d)
            gates = Gates(layer.num_features, channel, spatial, start)
            self.blocks.append(gates)
            setattr(parent, name, Gated(layer, gates))

    def maps(self, images: Tensor) -> Tensor:
        """The feature maps (B, n, h, w) after both gates, first channels and then
        places: what is pooled.
        """
        return weighed(self.backbone(images), self.channel, self.spatial)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"image": logits (B, C)}, with the triplet loss also {"triplet": embeddings
        (B, n)}; `targets` are not used (other methods do).
        """
        feature = self.maps(images).mean((2, 3))  # (B, n)
        outputs = {"image": self.image_head(feature)}
        if self.triplet:
            outputs["triplet"] = feature
        return outputs

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """{"image": scalar}, with the triplet loss also {"triplet": scalar}; targets
        (B,) int64 or (B, C) probabilities.

        For the triplet loss a mixed image is one of the class that it shows most of:
        otherwise the paper's mixup and CutMix, which mix every image, would leave
        nothing of it. Triplets are found within what is seen at once: the batch, or its
        part where recipe.accumulate or several processes divide it.
        """
        losses = {"image": criterion(logits["image"], targets)}
        if self.triplet:
            labels = targets.argmax(1) if targets.ndim == 2 else targets
            losses["triplet"] = batch_hard(logits["triplet"], labels, self.margin)
        return losses
