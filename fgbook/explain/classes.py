"""Which class an explanation explains, and what a network says of it: one rule for all
of them.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError


def chosen(classes: Tensor | None, logits: Tensor) -> Tensor:
    """The class of each image, (B,) int64, from what a caller says and the logits (B,
    C).

    None: the predicted ones. One class, () or (1,), counts for all images; otherwise
    there is one for each image, (B,). Raises InputError for any other shape, for
    numbers that are not whole, and for classes that do not exist.
    """
    count, num_classes = logits.shape
    if classes is None:
        return logits.argmax(1)
    if classes.shape not in ((), (1,), (count,)):
        raise InputError(
            f"classes of shape {tuple(classes.shape)} for {count} images; give one"
            " class for all of them, or one for each."
        )
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise InputError(
            f"classes are counted from 0 in whole numbers; {classes.dtype} is no type"
            " for that: use torch.int64."
        )
    if ((classes < 0) | (classes >= num_classes)).any():
        raise InputError(
            f"a class lies between 0 and {num_classes - 1}; {classes.tolist()} does"
            " not."
        )
    return classes.to(logits.device, torch.int64).expand(count)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What any network says at test time, (B, C): its ``predict`` where it has one, as
    all methods here, else its forward.
    """
    return getattr(model, "predict", model)(images)
