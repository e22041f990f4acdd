r"""Integrated gradients (Sundararajan et al. 2017): what each pixel adds to a logit,
on the straight way from an image without content to the image.

    grey image G -> ... -> G + a (I - G) -> ... -> image I        a from 0 to 1

    value of a pixel = sum over colours of (I - G) * mean over a of d logit / d pixel

All values of an image add up to logit(I) - logit(G), the more exactly the more steps
the mean is taken of.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from .classes import chosen, logits_of
from .occlusion import GREY

STEPS = 16


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = STEPS,
) -> Tensor:
    """Values of the pixels of images (B, 3, H, W) for a class, (B, H, W); negative ones
    speak against it.

    classes: (B,) int64, or one class for all images; None: the predicted ones. The
    gradient is taken in the middles of `steps` equal parts of the way. No parameter's
    `.grad` is touched. Raises InputError for fewer than 1 step, and for a model that
    lets no gradient through to its images.
    """
    if steps < 1:
        raise InputError(
            f"integrated gradients: at least 1 step is needed, not {steps}."
        )
    if classes is None:
        with torch.no_grad():
            classes = logits_of(model, images).argmax(1)

    way = images - GREY
    total = torch.zeros_like(images)
    for step in range(steps):
        share = (step + 0.5) / steps
        with torch.enable_grad():
            seen = (GREY + share * way).detach().requires_grad_()
            logits = logits_of(model, seen)
            score = logits.gather(1, chosen(classes, logits)[:, None]).sum()
            gradient = None
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(score, seen, allow_unused=True)
        if gradient is None:
            raise InputError(
                f"{type(model).__name__} lets no gradient through to its images: use"
                " occlusion."
            )
        total += gradient
    return (way * total / steps).sum(1)
