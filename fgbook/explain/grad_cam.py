r"""Grad-CAM (Selvaraju et al. 2017): class activation maps of any layer, with gradients
in place of a head's weights.

    images -> ... -> layer: maps A (B, n, h, w) -> ... -> logit of the class
                                               <-------- gradient, ends at A

    alpha_i = mean over places of d logit / d A_i  (eq. 1)
    M = max(0, sum_i alpha_i A_i)                  (eq. 2)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..methods.method import Method
from .classes import chosen


@contextmanager
def tapped(layer: nn.Module, tap: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what `layer` gives goes through `tap` before anyone sees it; of a
    backbone the feature map, also where a method reads it as the last of ``stages``.
    """
    if not isinstance(layer, Backbone):
        with layer.register_forward_hook(lambda _, inputs, output: tap(output)):
            yield
        return
    features = layer.features

    def with_the_last_tapped(network: nn.Module, images: Tensor) -> list[Tensor]:
        *earlier, last = features(network, images)
        return [*earlier, tap(last)]

    layer.features = with_the_last_tapped
    try:
        yield
    finally:
        layer.features = features


def grad_cam(
    model: Method, images: Tensor, classes: Tensor | None, layer: nn.Module
) -> Tensor:
    """Channels of `layer`'s output (B, n, h, w) weighted by their mean gradient,
    negative sums cut: images (B, 3, H, W) -> (B, h, w).

    classes: whose logit is followed, (B,) int64, or one class for all images; None: the
    predicted ones. The gradient ends at `layer`; no parameter's `.grad` is touched, no
    hook stays behind. Of a backbone the feature map is meant; what a method reads of
    its earlier maps is not seen. Raises InputError for a layer that does not run
    exactly once in a prediction, or that no gradient reaches.
    """
    kept: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        # Detached, so that the gradient ends here and not in the layers before.
        kept.append(output.detach().requires_grad_())
        # The next layer may work in place, which must not change what is kept.
        return kept[-1].clone()

    with torch.enable_grad(), tapped(layer, keep):
        logits = model.predict(images)
        of_class = logits.gather(1, chosen(classes, logits)[:, None])  # (B, 1)
        score = of_class.sum()
    if len(kept) != 1:
        raise InputError(
            "grad_cam needs a layer that runs once in a prediction; this one ran"
            f" {len(kept)} times."
        )

    # One gradient of the sum gives those of all images: they do not mix in eval mode.
    gradient = None
    if score.requires_grad:
        (gradient,) = torch.autograd.grad(score, kept, allow_unused=True)
    if gradient is None:
        raise InputError(
            "grad_cam needs a prediction whose gradient reaches the layer; that of"
            f" {type(model).__name__} does not: use occlusion."
        )
    alpha = gradient.mean((2, 3), keepdim=True)  # eq. 1: (B, n, 1, 1)
    maps = kept[0].detach()
    return (alpha * maps).sum(1).clamp(min=0)  # eq. 2
