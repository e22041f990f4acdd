r"""Class activation maps (Zhou et al. 2016): where the evidence for a class lies.

    images -> backbone -> maps (B, n, h, w) --mean over h, w--> (B, n) -> head -> logits

The head is linear, so it may as well come before the mean. Its weights W (C, n) then
make a map of each class, whose mean over places is the logit, but for the head's bias:

    M_k = sum_i W_ki maps_i         mean(M_k) + bias_k = logit_k
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..methods.method import Method
from .classes import chosen

# How far the head's logits may be from the predicted ones, as a share of the largest.
# Both come from one image by the same steps, so that even rounding is the same.
CLOSE = 1e-4


def cam(model: Method, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Class activation maps: the sum over channels of the head's weights times the
    feature maps, images (B, 3, H, W) -> (B, h, w).

    classes: (B,) int64, or one class for all images; None: the predicted ones. The mean
    of a map, plus the head's bias, is the logit of its class. Cut at 0 and over h w it
    is the Grad-CAM of the maps that are pooled (Selvaraju et al. 2017, section 3), at
    the price of a prediction.

    The maps are those of ``model.maps``, where there is such a method, or else of
    ``model.backbone``; the head is ``model.image_head``. Whether the model predicts
    with them is tried on the first image. Raises InputError where it does not: focus
    predicts from regions too, semantic from attributes, flrdf from two looks.
    """
    _check(model, images[:1])
    maps, head = _pooled(model, images)
    classes = chosen(classes, head(maps.mean((2, 3))))
    return torch.einsum("bn,bnhw->bhw", head.weight[classes], maps)


def _pooled(model: Method, images: Tensor) -> tuple[Tensor, nn.Linear]:
    """The maps (B, n, h, w) that are pooled, and the head that reads the means."""
    head = getattr(model, "image_head", None)
    # attention: what its gates leave of the backbone's maps
    see = getattr(model, "maps", None) or getattr(model, "backbone", None)
    if not isinstance(head, nn.Linear) or see is None:
        raise InputError(
            "a class activation map needs a linear head on pooled features;"
            f" {type(model).__name__} has none: use grad_cam."
        )
    return see(images), head


@torch.no_grad()
def _check(model: Method, image: Tensor) -> None:
    """Refuse a model whose prediction of an image (1, 3, H, W) is not its head's."""
    maps, head = _pooled(model, image)
    predicted = model.predict(image)
    same = maps.shape[1] == head.in_features
    if same:
        difference = (head(maps.mean((2, 3))) - predicted).abs().max()
        same = bool(difference <= CLOSE * predicted.abs().max())
    if not same:
        raise InputError(
            f"{type(model).__name__} does not predict with its image head on pooled"
            " features alone, so no class activation map adds up to its logits: use"
            " grad_cam."
        )
