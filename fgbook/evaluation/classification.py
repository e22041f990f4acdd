"""How often the right class comes first, and how far the confidence can be believed.
All fractions in [0, 1].
"""

import torch
from torch import Tensor

from ..errors import InputError
from .wilson import wilson

BINS = 15  # of the calibration error
# the smallest probability whose logarithm is taken; float32 has hardly any below
TINY = 1e-38


def metrics(
    probabilities: Tensor, labels: Tensor, num_classes: int
) -> dict[str, float | int]:
    """The numbers of one split: probabilities (N, C) that sum to 1 in each row, labels
    (N,) in 0..C-1, C = num_classes >= 2.

    top1, top5 (the right class is among the 5 most probable, or among all when C < 5);
    precision, recall, f1: macro averages over the classes that occur in labels or
    predictions, where a class that is never predicted has precision 0; ece: expected
    calibration error over 15 equal bins of the confidence (Guo et al. 2017); loss: mean
    cross-entropy in nats; n: images; top1_low, top1_high: 95 % Wilson interval of top1.
    Raises InputError for what is not that.
    """
    # late: torchmetrics takes seconds to import, and a finished run needs none of it
    from torchmetrics.functional import classification as tm

    _check(probabilities, labels, num_classes)
    probabilities = probabilities.float()
    labels = labels.long()
    prediction = probabilities.argmax(1)
    n = len(labels)

    correct = int((prediction == labels).sum())
    low, high = wilson(correct, n)

    # what is passed is checked above, so torchmetrics need not look again
    top5 = tm.multiclass_accuracy(
        probabilities,
        labels,
        num_classes=num_classes,
        average="micro",
        top_k=min(5, num_classes),
        validate_args=False,
    )
    precision = tm.multiclass_precision(
        prediction,
        labels,
        num_classes=num_classes,
        average="macro",
        validate_args=False,
    )
    recall = tm.multiclass_recall(
        prediction,
        labels,
        num_classes=num_classes,
        average="macro",
        validate_args=False,
    )
    f1 = tm.multiclass_f1_score(
        prediction,
        labels,
        num_classes=num_classes,
        average="macro",
        validate_args=False,
    )
    calibration = tm.multiclass_calibration_error(
        probabilities.clamp(0, 1),  # rounding may leave 1 + 1e-7
        labels,
        num_classes=num_classes,
        n_bins=BINS,
        norm="l1",
        validate_args=False,
    )

    of_true_class = probabilities.gather(1, labels[:, None])
    loss = -of_true_class.clamp(min=TINY).log().mean()
    return {
        "top1": correct / n,
        "top5": float(top5),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "ece": float(calibration),
        "loss": float(loss),
        "n": n,
        "top1_low": low,
        "top1_high": high,
    }


def _check(probabilities: Tensor, labels: Tensor, num_classes: int) -> None:
    """Refuse what has no metrics, in the words of what is wrong with it."""
    if num_classes < 2:
        raise InputError(
            f"a classification needs at least 2 classes, not {num_classes}."
        )
    fitting = (
        probabilities.ndim == 2
        and probabilities.shape[1] == num_classes
        and labels.shape == probabilities.shape[:1]
    )
    if not fitting:
        shapes = f"{tuple(probabilities.shape)} and {tuple(labels.shape)}"
        raise InputError(
            f"probabilities and labels have the shapes {shapes}; they must be"
            f" (N, {num_classes}) and (N,)."
        )
    if not len(labels):
        raise InputError("there are no images to evaluate.")
    _check_labels(labels, num_classes)
    _check_probabilities(probabilities)


def _check_labels(labels: Tensor, num_classes: int) -> None:
    lowest, highest = labels.min().item(), labels.max().item()
    whole = not labels.is_floating_point()
    if not whole or lowest < 0 or highest >= num_classes:
        raise InputError(
            f"labels must be whole numbers in 0..{num_classes - 1}, not"
            f" {lowest}..{highest}."
        )


def _check_probabilities(probabilities: Tensor) -> None:
    bad = ~torch.isfinite(probabilities).all(1)
    if bad.any():
        raise InputError(
            f"the probabilities of {int(bad.sum())} of {len(bad)} images are not"
            f" finite, first {int(bad.int().argmax())}."
        )
    negative = (probabilities < -1e-3).any()
    # in half precision a sum may miss 1 by a few thousandths
    off = ((probabilities.float().sum(1) - 1).abs() > 1e-2).any()
    if negative or off:
        raise InputError(
            "probabilities must not be negative and must sum to 1 for each image; apply"
            " softmax to logits."
        )
