"""What a step depends on: pure functions of the recipe, the seed and counters.

Nothing here remembers anything. So a run that was stopped needs no random state to go
on as if nothing had happened.
"""

import math

import torch
from torch import Tensor

from ..images.augment import key
from ..recipe import Recipe


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimiser steps in an epoch.

    The last batch may be smaller, but one of a single image is left out, because
    BatchNorm cannot normalise it (unless there is no other).
    """
    whole, rest = divmod(images, batch_size)
    return whole + (rest > 1 or whole == 0)


# ---- the order of an epoch


def order(seed: int, epoch: int, images: int) -> Tensor:
    """The order in which an epoch takes the images: a permutation (images,) int64 that
    depends on nothing but the arguments.
    """
    generator = torch.Generator().manual_seed(key(seed, epoch))
    return torch.randperm(images, generator=generator)


def by_class(labels: Tensor, per_class: int, seed: int, epoch: int) -> Tensor:
    """:func:`order` with `per_class` images of a class in a row: labels (N,) int64 on
    the CPU -> a permutation (N,) int64.

    Each class's images, in random order, are cut into groups of that many; groups
    follow each other in random order, those of every class's rest at the end of the
    epoch. So every image is still taken once, and a class may meet itself in a batch.
    (Hermans et al. 2017 draw P different classes and K images of each for every batch,
    anew.)
    """
    # class by class, within a class in random order
    taken = order(seed, epoch, len(labels))
    taken = taken[labels[taken].argsort(stable=True)]
    of = labels[taken]

    # each image's rank in its class, from 0
    count = labels.bincount()  # (C,)
    first = count.cumsum(0) - count  # where a class begins
    rank = torch.arange(len(labels)) - first[of]

    # a group begins at every per_class-th rank
    group = (rank % per_class == 0).cumsum(0) - 1
    # whether the group is what is left of a class, smaller than the others
    rest = rank // per_class == count[of] // per_class

    # groups in random order, and those behind all others; within one nothing moves
    place = order(seed, epoch, int(group[-1]) + 1)[group]
    return taken[(place + len(labels) * rest).argsort(stable=True)]


def of_epoch(labels: Tensor, recipe: Recipe, seed: int, epoch: int) -> Tensor:
    """The recipe's order of the images with these labels (N,) in an epoch: (N,)
    int64.
    """
    if recipe.per_class:
        return by_class(labels, recipe.per_class, seed, epoch)
    return order(seed, epoch, len(labels))


# ---- learning rates


def factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at optimiser step `step` (from 0) when
    an epoch has `steps` steps.

    "step", "cosine", "cyclic" and "onecycle" are PyTorch's StepLR, CosineAnnealingLR
    (to 0), CyclicLR (triangular, from a tenth) and OneCycleLR (30 % up from 1/25, then
    down to 1/250,000, by cosines; momentum stays). Warm-up multiplies: linearly to 1 in
    warmup_epochs.
    """
    total = recipe.epochs * steps
    if recipe.schedule == "step":
        epoch = step // steps
        value = recipe.step_factor ** (epoch // recipe.step_epochs)
    elif recipe.schedule == "cosine":
        value = (1 + math.cos(math.pi * step / total)) / 2
    elif recipe.schedule == "cyclic":
        place = step / (recipe.cycle_epochs * steps) % 1  # in the triangle
        value = 0.1 + 0.9 * (1 - abs(2 * place - 1))
    elif recipe.schedule == "onecycle":
        value = _one_cycle(step, total)
    else:
        value = 1.0

    warm_up = max(1.0, recipe.warmup_epochs * steps)
    return value * min(1.0, (step + 1) / warm_up)


def _one_cycle(step: int, total: int) -> float:
    """OneCycleLR (Smith and Topin 2018, as PyTorch has it): two halves of cosines."""
    top = 0.3 * total - 1  # the step of the highest rate
    last = total - 1
    if step <= top:
        start, end, share = 1 / 25, 1.0, step / top
    else:
        start, end, share = 1.0, 1 / 25e4, (step - top) / (last - top)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
