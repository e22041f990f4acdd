"""Semantic embedding: classes are known by descriptions, and an image is of the class
whose description fits best.

    # class_attributes (C, A): what people say of each class
    model = Semantic(create("resnet50"), 200, class_attributes)
    logits = model(images)  # {"image": (B, C)}
    said = model.attributes(images)  # (B, A): what the network says of each image

Paper C lists "semantic embedding" and does not say how. This is the usual compatibility
of an image's and a class's vectors (Akata et al. 2013, Attribute Label Embedding; Frome
et al. 2013, DeViSE), trained with the softmax loss; see Lampert et al. 2009 for
attributes as descriptions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Method

START = 10.0  # of the scale: cosines of up to 1 then make probabilities of up to 0.99
CONSTANT = 1e-6  # an attribute that spreads less over the classes tells nothing
AVERAGE = 1e-3  # a class shorter than this is average in everything


def standardised(class_attributes: Tensor) -> Tensor:
    """Attributes (C, A) of any scale -> the same with mean 0 and standard deviation 1
    over classes, rows of length 1; (C, A) float32.

    What all classes share becomes 0: it tells nothing. So does the row of a class that
    is the average in everything.
    """
    centred = class_attributes.double() - class_attributes.double().mean(0)
    spread = centred.square().mean(0).sqrt()  # (A,)
    scaled = torch.where(spread > CONSTANT, centred / spread, 0)
    return F.normalize(scaled, dim=1, eps=AVERAGE).float()


class Semantic(Method):
    """Backbone, GAP, a linear layer to attributes, and the cosine of its A numbers and
    each class's: logits are scale * cosine, the scale is learnt.

    forward(images): images (B, 3, H, W), float in [0, 1] -> {"image": logits (B, C)}.

    class_attributes: (C, A), from DataSet.class_attributes: knowledge that other
        methods do not have. Kept in the state as `classes`.
    softmax: a usual linear head beside it; logits are added.
    shuffled: each class gets the description of another one, always the same. So the
        control has the same numbers and knows nothing.

    Raises InputError where there are no attributes, or not one row a class.
    """

    VERSION = 1
    VARIANTS = ({}, {"softmax": True})
    needs_class_attributes = True
    classes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        class_attributes: Tensor | None,
        *,
        softmax: bool = False,
        shuffled: bool = False,
    ):
        super().__init__()
        if class_attributes is None:
            raise InputError(
                "semantic: this data set says nothing about its classes; take one with"
                " attributes (cub and cub50, with the folder 'attributes' of the"
                " official archive, or fieldguide), or another method."
            )
        a_row_each = class_attributes.shape[:1] == (num_classes,)
        if (
            class_attributes.ndim != 2
            or not a_row_each
            or not class_attributes.isfinite().all()
        ):
            raise InputError(
                f"semantic: attributes of shape {tuple(class_attributes.shape)}; a row"
                f" of finite numbers for each of {num_classes} classes is needed."
            )
        self.backbone = backbone
        # before the other head: the plain backbone's head for the same seed
        self.image_head = linear(backbone.channels, num_classes) if softmax else None
        self.attribute_head = linear(backbone.channels, class_attributes.shape[1])
        self.log_scale = nn.Parameter(torch.tensor(math.log(START)))  # stays positive

        if shuffled:
            class_attributes = class_attributes[_others(num_classes)]
        self.register_buffer("classes", standardised(class_attributes))  # (C, A)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; `targets` are not used (other methods do)."""
        feature = self.backbone(images).mean((2, 3))  # (B, n)
        scaled = self.log_scale.exp() * self._said(feature)  # (B, A)
        logits = scaled @ self.classes.T  # (B, C): scale * cosine, lengths being 1
        if self.image_head is not None:
            logits = logits + self.image_head(feature)
        return {"image": logits}

    def attributes(self, images: Tensor) -> Tensor:
        """What the network says of each image: (B, A) of length 1; above 0 is more than
        the classes have on average, below 0 less.
        """
        return self._said(self.backbone(images).mean((2, 3)))

    def _said(self, feature: Tensor) -> Tensor:
        return F.normalize(self.attribute_head(feature).float(), dim=1)


def _others(count: int) -> Tensor:
    """A fixed permutation of `count` numbers that leaves none in its place: one long
    cycle through all in random order.
    """
    order = torch.randperm(
        count, generator=torch.Generator().manual_seed(0), device="cpu"
    )
    return torch.empty_like(order).scatter_(0, order, order.roll(1))
