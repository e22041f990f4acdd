"""Running statistics of BatchNorm, made anew from images as evaluation sees them."""

from typing import TYPE_CHECKING

import torch

from ..backbones import BatchNorm
from ..images.augment import evaluation_view
from ..recipe import Recipe
from . import schedule
from .devices import Images, to_device

if TYPE_CHECKING:
    from ..methods.method import Method


@torch.no_grad()
def recompute(model: "Method", images: Images, recipe: Recipe) -> None:
    """Replace the running statistics of `model` by those of plain views of `images`,
    the training split on the model's device.

    While a network is trained, BatchNorm averages over the zoomed, jittered, mixed
    views that it learns from; a stage that follows and freezes these statistics, and
    all evaluation, sees plain ones. Here each mean and variance becomes the average
    over batches (of recipe.batch_size images in an order of their own, a smaller last
    one left out) of ``model.predict(centre of the images)``, the idea of SWA's
    ``update_bn`` (Izmailov et al. 2018).

    Only BatchNorm layers work as in training; there is no dropout and no gradient, and
    no weight changes. Layers that are frozen, or that ``predict`` does not pass, keep
    what they have. Leaves `model` in eval mode.
    """
    # those that learn statistics: where they are frozen, train() leaves them in eval
    model.train()
    layers = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
    layers = [layer for layer in layers if layer.training]
    model.eval()

    # The counters of batches of all statistics: the layers' own, and a second set's
    # (backbones.SecondStatistics). From 0 and without a momentum, the first batch
    # replaces what stood there, and the k-th one is taken in with 1 / k.
    counters = [
        buffer
        for name, buffer in model.named_buffers()
        if name.endswith("num_batches_tracked")
    ]
    counted = [counter.clone() for counter in counters]
    momenta = [layer.momentum for layer in layers]
    for counter in counters:
        counter.zero_()
    for layer in layers:
        layer.momentum = None
        layer.train()

    # One pass. Shuffled: images often stand class by class, and a batch should look
    # like the whole.
    taken = schedule.order(0, 0, len(images))
    for number, index in enumerate(taken.split(recipe.batch_size)):
        if number and len(index) < recipe.batch_size:
            continue
        there = to_device(index, images.device)
        view = evaluation_view(images(index, there), there, recipe, recipe.resolution)
        model.predict(view.contiguous(memory_format=torch.channels_last))

    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for counter, before in zip(counters, counted, strict=True):
        # never passed: the old count belongs to the old statistics
        counter.copy_(torch.where(counter == 0, before, counter))
    model.eval()
