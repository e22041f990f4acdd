"""TransFG (He, Chen, Liu, Kortylewski, Yang, Bai, Wang, Yuille, AAAI 2022): a vision
transformer whose last layer sees nothing of the image but the patches that the class
token looked at, one for each attention head.

    model = TransFG(create("timm:vit_base_patch16_224"), num_classes=200, stride=12)
    logits = model(images)  # {"image": (B, C), "token": (B, D)}
    boxes = model.eval().regions(images)  # (B, K, 4): the patches that were chosen

On a convolutional backbone the cells of its map take the place of patches, and all of
the transformer is new: the hybrid of Dosovitskiy et al. 2021 (section 3.1).
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, Depth, timm_networks
from ..errors import InputError
from ..images.regions import centre_boxes
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method


class TransFG(Method):
    """Layers 1 .. L-1 read all N patches; part selection; layer L reads the class token
    and the K chosen ones. K attention heads, D numbers a token.

    Images are squares (B, 3, S, S), float in [0, 1]. Loss "contrast" compares the class
    tokens of a batch: it wants per_class in the recipe, or same classes rarely meet.

    stride: pixels from patch to patch, for patches that overlap (12 in the paper); 0:
        they lie side by side. Of one of timm's transformers.
    margin: cosine above which tokens of different classes are pushed apart (0.4).
    layers, width, heads: L, D and K of the transformer on a convolutional backbone; one
        of timm's has its own.

    Layer L and the head are new, all else is the backbone's, which drops nothing out
    (the public code drops a tenth in embeddings and layers). Raises InputError for an
    option out of range, and for a transformer that is not one of timm's.
    """

    VERSION = 1
    VARIANTS = ({"width": 16, "heads": 2}, {"layers": 2, "width": 16, "heads": 4})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        stride: int = 0,
        margin: float = 0.4,
        layers: int = 3,
        width: int = 192,
        heads: int = 6,
    ):
        super().__init__()
        _check(margin, layers, width, heads)
        self.backbone = backbone
        self.margin = margin
        self.of_patches = _is_transformer(backbone)
        if self.of_patches:
            self._take_apart(stride)
        else:
            self._add(layers, width, heads, stride)
        self.head = linear(self.norm.normalized_shape[0], num_classes)

    def _take_apart(self, stride: int) -> None:
        """Patches and layers of a transformer; its own last layer is replaced by a new
        one, and does not learn.
        """
        network: Any = self.backbone.network
        patch = network.patch_embed.patch_size[0]
        if not 0 <= stride <= patch:
            raise InputError(
                f"transfg: stride is {stride}, but {self.backbone.name} has patches of"
                f" {patch} px; choose 1 to that, or 0 for patches side by side."
            )
        self.patch, self.stride = patch, stride or patch
        network.patch_embed.proj.stride = (self.stride, self.stride)
        self.prefix = network.num_prefix_tokens
        self.last = _renewed(copy.deepcopy(network.blocks[-1]))
        network.blocks[-1].requires_grad_(False)

    def _add(self, layers: int, width: int, heads: int, stride: int) -> None:
        """A transformer on the cells of the backbone's map."""
        from timm.models.vision_transformer import Block  # late: it takes seconds

        if stride:
            raise InputError(
                f"transfg: stride is {stride}, but {self.backbone.name} is no"
                " transformer that cuts images into patches; set stride=0."
            )
        self.prefix = 1
        self.enter = nn.Linear(self.backbone.channels, width)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        blocks = [_renewed(Block(width, heads, qkv_bias=True)) for _ in range(layers)]
        self.added, self.last = nn.ModuleList(blocks[:-1]), blocks[-1]
        self.added_norm = nn.LayerNorm(width)

    @property
    def layers(self) -> Any:
        """Layers 1 .. L-1."""
        network: Any = self.backbone.network
        return network.blocks[:-1] if self.of_patches else self.added

    @property
    def norm(self) -> Any:
        """The normalisation after layer L."""
        return self.backbone.network.norm if self.of_patches else self.added_norm

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head, and the class tokens that the contrast compares; `targets`
        are not used (other methods do).
        """
        tokens, parts = self._read(images)
        of_parts = (self.prefix + parts)[..., None].expand(-1, -1, tokens.shape[2])
        chosen = torch.cat([tokens[:, :1], tokens.gather(1, of_parts)], 1)
        token = self.norm(self.last(chosen))[:, 0]  # (B, D)
        return {"image": self.head(token), "token": token}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """{"image": the criterion, "contrast": equation 7}; weights 1 in the paper."""
        return {
            "image": criterion(logits["image"], targets),
            "contrast": contrast(logits["token"], targets, self.margin),
        }

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """The chosen patches (B, K, 4), xyxy in input pixels, in the heads' order; two
        may be the same. Of a convolutional map, squares of its stride.
        """
        size = side_of(images, "transfg")
        tokens, parts = self._read(images)
        side = math.isqrt(tokens.shape[1] - self.prefix)
        cells = self.cells_at(size)
        box = min(self.patch if self.of_patches else cells.stride, size)
        boxes = centre_boxes(
            side, side, size, box, cells.stride, cells.first, images.device
        )
        return boxes[parts]

    def cells_at(self, size: int) -> Depth:
        """Where the patches look, in images of `size` pixels."""
        if not self.of_patches:
            return self.backbone.depth_at(size)
        return Depth(self.backbone.channels, self.stride, self.patch / 2)

    @torch.no_grad()
    def attentions(self, images: Tensor) -> list[Tensor]:
        """How far tokens look at each other in layers 1 .. L-1: (B, K, T, T) each, the
        class token first, patches from `prefix` on.
        """
        return self._layers(images)[1]

    @torch.no_grad()
    def attention_map(self, images: Tensor) -> Tensor:
        """What parts are chosen by, mean over the heads: (B, h, w) over the patches."""
        side_of(images, "transfg")
        of_patches = rolled_out(self.attentions(images))[..., self.prefix :].mean(1)
        side = math.isqrt(of_patches.shape[1])
        return of_patches.unflatten(1, (side, side))

    def _read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, prefix + N, D) after layer L-1, the class token first, and the
        numbers (B, K) of the patches chosen.
        """
        tokens, attentions = self._layers(images)
        return tokens, rolled_out(attentions)[..., self.prefix :].argmax(2)

    def _layers(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, prefix + N, D) after layer L-1, and the attention in the layers up
        to it.
        """
        tokens = self._embedded(images)
        attentions = []
        for layer in self.layers:
            attentions.append(attention(layer, tokens))
            tokens = layer(tokens)
        return tokens, attentions

    def _embedded(self, images: Tensor) -> Tensor:
        """Patches or cells as tokens (B, prefix + N, D), with their places."""
        network: Any = self.backbone.network
        if self.of_patches:
            seen = (images - self.backbone.mean) / self.backbone.std
            seen = network.patch_embed(timm_networks.whole_patches(network, seen))
            return network.norm_pre(network.patch_drop(network._pos_embed(seen)))
        maps = self.backbone(images)  # (B, n, h, w)
        h, w = maps.shape[2:]
        cells = self.enter(maps.flatten(2).transpose(1, 2))
        cells = cells + places(h, w, cells.shape[2], maps.device)
        first = self.class_token.expand(maps.shape[0], -1, -1)
        return torch.cat([first, cells], 1)


def attention(layer: Any, tokens: Tensor) -> Tensor:
    """How far each token looks at each other in a layer of timm's: (B, K, T, T), rows
    sum to 1. Without gradient: parts are chosen by it, which has none.

    The layer itself then computes it again, in whatever way is fast; that costs less
    memory than to keep it for the backward pass.
    """
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        own = layer.attn
        mixed = own.qkv(layer.norm1(tokens.float()))  # (B, T, 3 * D)
        mixed = mixed.unflatten(2, (3, own.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = own.q_norm(mixed[0]), own.k_norm(mixed[1])  # (B, K, T, d)
        return (query @ key.transpose(2, 3) * own.scale).softmax(3)


def rolled_out(attentions: list[Tensor]) -> Tensor:
    """Equations 4 and 5: the class token's row (B, K, T) of a_(L-1) ... a_2 a_1.

    A row times matrices, from the last layer to the first, gives the same row as the
    product of matrices, T times cheaper.
    """
    row = attentions[-1][:, :, :1]  # (B, K, 1, T)
    for earlier in reversed(attentions[:-1]):
        row = row @ earlier
    return row[:, :, 0]


def contrast(tokens: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Equation 7, a scalar: tokens (B, D), targets as losses have them. Over all B * B
    pairs, 1 - cosine of those of one class, and what the cosine of others exceeds
    `margin` by. Of mixed images, in the shares in which classes agree.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        unit = F.normalize(tokens.float())
        cosine = unit @ unit.T  # (B, B)
        if targets.ndim == 1:
            same = (targets[:, None] == targets).float()
        else:
            same = targets.float() @ targets.float().T
        apart = (cosine - margin).clamp(min=0)
        return (same * (1 - cosine) + (1 - same) * apart).mean()


def places(h: int, w: int, width: int, device: torch.device) -> Tensor:
    """What is added to the tokens of an h x w map, row by row: (h * w, width), sines
    and cosines of the row and of the column, a quarter of the numbers each, with wave
    lengths from 2 pi to 2 pi * 10,000 cells.
    """
    quarter = width // 4
    rate = 1e4 ** (-torch.arange(quarter, device=device) / quarter)
    waves = []
    for cells in (h, w):
        angle = torch.arange(cells, device=device)[:, None] * rate
        waves.append(torch.cat([angle.sin(), angle.cos()], 1))  # (cells, width / 2)
    rows = waves[0][:, None].expand(h, w, -1)
    columns = waves[1][None].expand(h, w, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)


def _is_transformer(backbone: Backbone) -> bool:
    """Whether a backbone is one of timm's vision transformers; raises InputError for
    one that is neither that nor convolutional.
    """
    if backbone.name.startswith(timm_networks.PREFIX):
        from timm.models.vision_transformer import VisionTransformer

        if isinstance(backbone.network, VisionTransformer):
            return True
    if len(backbone.depths) > 1:
        return False
    raise InputError(
        f"transfg cannot see inside {backbone.name}; choose one of timm's vision"
        " transformers, such as timm:vit_base_patch16_224, or a convolutional network."
    )


def _renewed(layer: nn.Module) -> nn.Module:
    """The layer with new weights, as those of vision transformers begin."""
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    return layer


def _check(margin: float, layers: int, width: int, heads: int) -> None:
    if layers < 2 or heads < 1 or width < 4 or width % 4 or width % heads:
        raise InputError(
            "transfg: at least 2 layers, and a width that is a multiple of 4 and of"
            f" heads are needed, not layers {layers}, width {width}, heads {heads}."
        )
    if not -1 <= margin < 1:
        raise InputError(f"transfg: margin is {margin}; a cosine below 1 is needed.")
