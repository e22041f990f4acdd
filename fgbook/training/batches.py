"""From the numbers of a batch's images to what the network sees of them."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..images.augment import augment, key, mix, partners
from ..recipe import Recipe
from .devices import Images, to_device

if TYPE_CHECKING:
    from accelerate import Accelerator


def parts(
    batch: Tensor, recipe: Recipe, accelerator: "Accelerator"
) -> tuple[list[Tensor], list[float]]:
    """The images of a batch (B,) that are this process's, in recipe.accumulate parts
    (fewer for a smaller batch), and the share of the whole batch that each part is.

    Losses are means, so a part's loss times its share, added up over parts and
    processes, is the loss of the whole batch.
    """
    slices = batch.tensor_split(accelerator.num_processes)  # the last is the smallest
    mine = slices[accelerator.process_index]
    # A process that is left without an image works on one of the others' with share 0:
    # all have to take part in the exchange of gradients.
    if not len(mine):
        return [batch[:1]], [0.0]

    # Equally many in all processes, because they meet in each part (SyncBatchNorm);
    # so not more than the smallest slice has images.
    count = math.ceil(len(batch) * recipe.accumulate / recipe.batch_size)
    count = min(max(1, len(slices[-1])), count)
    found = list(mine.tensor_split(count))
    return found, [len(part) / len(batch) for part in found]


def examples(
    index: Tensor,
    images: Images,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """What is learnt from the images at index (B,) int64 on the CPU: views (V * B, 3,
    s, s), where V is recipe.views, and their labels (V * B,) or, where images are
    mixed, class probabilities (V * B, C).

    The first B are the images' first views, and so on, each from random numbers of its
    own.
    """
    seeds = [seed, *(key(seed, number) for number in range(1, recipe.views))]
    views, targets = [], []
    for own in seeds:
        view, target = _view(index, images, labels, num_classes, recipe, own, epoch)
        views.append(view)
        targets.append(target)
    together = torch.cat(views).contiguous(memory_format=torch.channels_last)
    return together, torch.cat(targets)


def _view(
    index: Tensor,
    images: Images,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """One view of each image, mixed with another image's where the recipe says so, and
    its target.
    """
    there, view = _augmented(index, images, recipe, seed, epoch)
    targets = labels[there]
    if not recipe.mixup and not recipe.cutmix:
        return view, targets

    partner = partners(index, len(images), seed, epoch)
    others, other_view = _augmented(partner, images, recipe, seed, epoch)
    return mix(
        view,
        other_view,
        targets,
        labels[others],
        num_classes,
        there,
        recipe,
        seed,
        epoch,
    )


def _augmented(
    index: Tensor, images: Images, recipe: Recipe, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Index (B,) on the device, and the augmented images at it."""
    there = to_device(index, images.device)
    return there, augment(images(index, there), there, recipe, seed, epoch)
