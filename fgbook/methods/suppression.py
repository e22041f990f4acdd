"""No method but a block, which :mod:`fgbook.methods.flrdf` puts behind its backbone:
it presses down the peaks of feature maps, so that a map shows more of an object than
the spot that tells most (Liang and Qu, section 2.1).
"""

import torch
from torch import Tensor, nn


class Suppression(nn.Module):
    """Feature maps X (B, n, h, w) with their peaks pressed down: X^s = min(X, tau), a
    clamp from above, tau = X_max * G.

    X_max is each channel's spatial maximum (the max-element extractor). G, the
    suppression controller, is one number `bound` in [0, 1], or (bound None) learnt: G =
    sigmoid(f(GAP(X))), eq. 1, one number for each image and channel. f is linear
    without bias, drawn from N(0, 0.01), so that G starts near a half; it learns at the
    rate of the heads. ReLU comes first, so that tau is not negative. (ReLU, bias, start
    and rate are silent; they are those of "discriminative region suppression", whose
    block this is.)
    """

    def __init__(self, channels: int, bound: float | None = None):
        super().__init__()
        self.controller: nn.Linear | None = None
        if bound is None:
            self.controller = nn.Linear(channels, channels, bias=False)
            nn.init.normal_(self.controller.weight, std=0.01)
        else:
            self.bound = bound

    def forward(self, maps: Tensor) -> Tensor:
        """X^s, of the shape of X."""
        maps = maps.relu()
        top = maps.amax((2, 3), keepdim=True)  # X_max: (B, n, 1, 1)
        return torch.minimum(maps, top * self._control(maps))

    def _control(self, maps: Tensor) -> Tensor | float:
        """G, eq. 1: (B, n, 1, 1), or one number."""
        if self.controller is None:
            return self.bound
        return self.controller(maps.mean((2, 3))).sigmoid()[..., None, None]
