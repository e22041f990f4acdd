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

# How far logits may differ, as a share of the largest one, before the map is said not
# to be theirs. Rounding stays below in float32 (with TensorFloat-32 too), and in the
# half types; other heads and other maps differ by far more.
CLOSE = 0.01
CLOSE_HALF = 0.1


def cam(model: Method, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Class activation maps: the sum over channels of the head's weights times the
    feature maps, images (B, 3, H, W) -> (B, h, w).

    classes: (B,) int64, or one class for all images; None: the predicted ones. The mean
    of a map, plus the head's bias, is the logit of its class. Cut at 0 and over h w it
    is the Grad-CAM of the maps that are pooled (Selvaraju et al. 2017, section 3), at
    the price of a prediction.

    The maps are those of ``model.maps``, where there is such a method, or else of
    ``model.backbone``; the head is ``model.image_head``. Whether the model predicts
    with them is seen by predicting the first image. Raises InputError where it does
    not: focus predicts from regions too, semantic from attributes, flrdf from two
    looks.
    """
    maps, head = _pooled(model, images)
    logits = head(maps.mean((2, 3)))  # (B, C)
    _check(model, images[:1], logits[:1])
    classes = chosen(classes, logits)
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


def _check(model: Method, image: Tensor, logits: Tensor) -> None:
    """Refuse a model whose prediction of one image is not the head's (1, C)."""
    predicted = model.predict(image).float()
    half = logits.dtype in (torch.bfloat16, torch.float16)
    limit = (CLOSE_HALF if half else CLOSE) * predicted.abs().max()
    if predicted.shape != logits.shape or (predicted - logits).abs().max() > limit:
        raise InputError(
            f"{type(model).__name__} does not predict with its image head on pooled"
            " features alone, so no class activation map adds up to its logits: use"
            " grad_cam."
        )
