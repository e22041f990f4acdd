"""How near restored images come to the sharp ones: peak signal-to-noise ratio."""

import torch
from torch import Tensor

from ..data.dataset import Split
from ..images.augment import centre
from ..methods.superres import SuperResolution
from ..recipe import Recipe

TINY = 1e-12  # mean squared difference of images that count as equal: 120 dB


@torch.no_grad()
def psnr(model: SuperResolution, split: Split, recipe: Recipe) -> dict[str, Tensor]:
    """PSNR in dB of each image of a split against its sharp view: {"psnr_low",
    "psnr_restored"}, each (N,) float32 on the CPU.

    low: reduced and enlarged again; restored: what the network makes of that. On the
    model's device; leaves it in eval mode.
    """
    model.eval()
    device = next(model.parameters()).device

    low, restored = [], []
    for index in torch.arange(len(split)).split(recipe.batch_size):
        sharp = centre(split.images[index].to(device), recipe.image_size)
        reduced = model.reduce(sharp)
        low.append(decibels(reduced, sharp))
        restored.append(decibels(model.restore(reduced), sharp))

    return {
        "psnr_low": torch.cat(low).cpu(),
        "psnr_restored": torch.cat(restored).cpu(),
    }


def decibels(images: Tensor, sharp: Tensor) -> Tensor:
    """-10 log10 of the mean squared difference of images (B, 3, H, W) in [0, 1], for
    each: (B,). Equal images: limited to 120 dB.
    """
    error = (images - sharp).square().mean((1, 2, 3))
    return -10 * error.clamp(min=TINY).log10()
