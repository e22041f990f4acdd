"""Networks and images that the tests of explanations share."""

import torch
from torch import nn

from fgbook import backbones
from fgbook.methods import build
from fgbook.recipe import Recipe


class Tiny(nn.Module):
    """Any model with predict; its logits depend on where the light is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True))
        self.image_head = nn.Linear(4, 3)

    def backbone(self, images):
        return self.layer(images)

    def predict(self, images):
        return self.image_head(self.layer(images).square().flatten(2).amax(2))


def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().double().eval()


def network(backbone: str, classes: int = 5):
    """A plain model in float64 with the BatchNorm statistics of random images, and
    other parameters than those of a fresh one."""
    torch.manual_seed(0)
    model = build(
        "plain", classes, Recipe(backbone=backbone, weights="none"), {}
    ).double()
    for module in model.modules():
        if isinstance(module, backbones.BatchNorm):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0  # the statistics of one batch
    nn.init.normal_(model.image_head.weight)
    with torch.no_grad():
        model.train().predict(torch.rand(8, 3, 64, 64, dtype=torch.float64))
    return model.eval()


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(
        count,
        3,
        height,
        width,
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
