"""A network that sees two kinds of images and keeps statistics of each."""

import torch
from torch import Tensor, nn

from .backbone import BatchNorm


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
            if not isinstance(module, BatchNorm):
                continue
            for kind, value in module.named_buffers():
                # a buffer's name may not hold a dot
                key = f"{name}.{kind}".replace(".", "/")
                self.register_buffer(key, value.clone())

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        """``network(x)``, with these statistics."""
        statistics = {
            key.replace("/", "."): value for key, value in self.named_buffers()
        }
        return torch.func.functional_call(network, statistics, (x,))
