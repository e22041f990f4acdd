r"""Attention rollout (Abnar and Zuidema 2020): how much of each patch of an image comes
to a transformer's class token, if attention is all that moves it.

    A_l          attention of layer l, mean over its heads; rows sum to 1: (B, T, T)
    R = (A_L + I) / 2 ... (A_2 + I) / 2 (A_1 + I) / 2
    map of the image = the class token's row of R, of which the patches are kept

I is the way past each layer. TransFG (He et al. 2022, equations 4 and 5) leaves it out,
multiplies the attention of each head by itself, and takes of each head the patch that
is highest; as a map that is the model's own attention.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..methods.method import Method
from ..methods.transfg import TransFG


def rolled(attentions: Sequence[Tensor]) -> Tensor:
    """The first token's row of R, (B, T), from the attention (B, K, T, T) of each layer
    from the first to the last, whose rows sum to 1, as this one does.
    """
    row = torch.zeros_like(attentions[-1][:, 0, :1])  # (B, 1, T)
    row[..., 0] = 1
    # from the last layer to the first: a row times matrices
    for of_layer in reversed(attentions):
        row = (row @ of_layer.mean(1) + row) / 2
    return row[:, 0]


@torch.no_grad()
def rollout(model: Method, images: Tensor) -> Tensor:
    """Rolled-out attention of the patches of images (B, 3, S, S): (B, h, w), not
    negative; the same for all classes.

    Of TransFG, whose last layer sees only patches that the layers before it chose: of
    these layers. Raises InputError for a model without a class token that is followed.
    """
    if not isinstance(model, TransFG):
        raise InputError(
            f"rollout follows the class token of a transformer; {type(model).__name__}"
            " has none that is known here."
        )
    of_patches = rolled(model.attentions(images))[:, model.prefix :]
    side = math.isqrt(of_patches.shape[1])
    return of_patches.unflatten(1, (side, side))
