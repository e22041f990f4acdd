"""What every method is: the contract between a method and whoever trains, measures or
explains it.

A new method is one file and one line: a class that derives from :class:`Method`, and
its name in ``fgbook.methods.METHODS``. The smallest one::

    class Blurred(Method):
        # The plain backbone, with its maps smoothed before they are pooled.
        VARIANTS = ({}, {"side": 5})  # what the tests of all methods try

        def __init__(self, backbone: Backbone, num_classes: int, *, side: int = 3):
            super().__init__()
            self.side = side
            self.backbone = backbone
            self.image_head = linear(backbone.channels, num_classes)

        def forward(self, images, targets=None):
            maps = self.backbone(images)  # (B, n, h, w)
            smooth = F.avg_pool2d(maps, self.side, 1, self.side // 2)
            return {"image": self.image_head(smooth.mean((2, 3)))}
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone

Criterion = Callable[[Tensor, Tensor], Tensor]
"""logits (N, C) and targets, (N,) int64 or (N, C) probabilities -> scalar."""

Views = Iterator[tuple[Tensor, Tensor]]
"""All images of a split, some at a time, as they are evaluated: (B, 3, S, S), float in
[0, 1], and labels (B,) int64."""

Examples = tuple[Tensor, Tensor]
"""What forward reads, (N, ...), and labels (N,) int64."""


class Method(nn.Module):
    """A classifier of images: forward, losses and predict.

    The constructor takes the backbone, the number of classes and, by keyword only, the
    method's options. Each option has a default and is annotated as int, float, bool,
    str, one of these or None, or a tuple of one of these; values out of range raise
    ``errors.InputError``. Heads are made with :func:`fgbook.methods.heads.linear`; one
    that is called ``image_head`` is made first, so that for the same seed it is the
    plain backbone's head.

    What a training step does with it, B images at a time::

        logits = model(images, targets)
        losses = model.losses(logits, targets, criterion)
        loss = sum(weight[name] * losses[name] for name in losses)
        loss.backward()

    and one step of the optimiser. A method with ``rounds`` has several optimiser steps
    a batch: this happens once for each name in there, one after the other and on the
    same views of the images, with ``model(images, targets, name)``; what forward gives
    then, ``losses`` makes that one loss of. Parameters that a round does not use stay
    as they are in it, without momentum or weight decay.

    So forward is the only thing that is traced and compiled, and that several processes
    share; all that has parameters is used there. The host must not wait for a value in
    forward or losses (no ``.item()``, no ``if`` on a tensor). Random choices come from
    torch's generator, which the loop seeds anew at every step. Training and evaluation
    mode are told by ``self.training``; in evaluation mode the result of an image does
    not depend on the other images of its batch.

    The parameters of ``backbone`` learn at the recipe's rate times backbone_lr_factor,
    all others at the recipe's rate; what must not learn has requires_grad False.
    """

    VERSION: ClassVar[int] = 1
    """Part of the key of a run: one more when results change by more than rounding."""

    VARIANTS: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """The options that the tests of all methods try; {} are the defaults."""

    own_network: ClassVar[bool] = False
    """Whether it brings its own network: then the backbone that it is given is None."""

    needs_class_attributes: ClassVar[bool] = False
    """Whether its constructor takes ``DataSet.class_attributes``, (C, A) or None, after
    the number of classes."""

    from_recipe: ClassVar[tuple[str, ...]] = ()
    """The options that, unless given, are the recipe's fields of the same name."""

    frozen_backbone: ClassVar[bool] = False
    """Whether the backbone never learns and ``head``, itself a Method, reads its maps
    (B, n, h, w) in place of images: then these are computed once and ``head`` alone is
    trained."""

    rounds: tuple[str, ...] = ()
    """The losses, by name, that each get a forward pass and an optimiser step of their
    own from every batch, in this order; (), as usual: one step lowers their sum."""

    solved: ClassVar[bool] = False
    """Whether all that learns is found at once, by ``solve``, in place of steps; for
    the `head` of a frozen backbone."""

    backbone: Backbone  # absent where own_network

    def prepare(self, views: Views) -> None:
        """Look at the training images before the first step, where a method starts from
        them; in evaluation mode, without gradients. Here: does not look.
        """

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the losses are made of, by name: logits (B, C) of every head, and
        whatever else a loss reads.

        images (B, 3, H, W), float in [0, 1], not normalised (the backbone does that).
        targets: labels (B,) int64, or class probabilities (B, C) where images are
        mixed; None where they are not known. Only few methods look at them.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a forward.")

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """Named scalars, each a mean over images, of what forward gave. The loop adds
        them up with the recipe's loss_weights (1 each, if not named) and logs each.

        targets: as in forward, but always given. criterion: the recipe's
        classification loss. Here, unless a method says otherwise: the criterion of
        every head, by the head's name.
        """
        return {name: criterion(of_head, targets) for name, of_head in logits.items()}

    def solve(
        self, train: Examples, held_out: Examples | None, refit: bool
    ) -> dict[str, float]:
        """Learn from all examples at once, where ``solved`` says so. Settings may be
        chosen by those held out; `refit`: then learn from both. Gives numbers for the
        log, by name, the losses of the training examples first.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a solve.")

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C), what is used at test time; in evaluation mode, without
        targets. Here, unless a method says otherwise: of the head "image".
        """
        return self(images)["image"]
