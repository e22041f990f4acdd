"""How often the right class comes first, and how far the confidence can be believed.
All fractions in [0, 1]."""

from statistics import NormalDist

import torch
from torch import Tensor
from torchmetrics.functional import classification as tm

from ..errors import InputError

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
    calibration error over 15 equal bins of the confidence; loss: mean cross-entropy in
    nats; n: images; top1_low, top1_high: 95 % Wilson interval of top1. Raises
    InputError for what is not that.
    """
    _check(probabilities, labels, num_classes)
    probabilities, labels = probabilities.float(), labels.long()
    settings = {"num_classes": num_classes, "validate_args": False}
    macro = {"average": "macro", **settings}
    prediction = probabilities.argmax(1)
    correct, n = int((prediction == labels).sum()), len(labels)
    low, high = wilson(correct, n)
    return {
        "top1": correct / n,
        "top5": float(
            tm.multiclass_accuracy(
                probabilities,
                labels,
                average="micro",
                top_k=min(5, num_classes),
                **settings,
            )
        ),
        "precision": float(tm.multiclass_precision(prediction, labels, **macro)),
        "recall": float(tm.multiclass_recall(prediction, labels, **macro)),
        "f1": float(tm.multiclass_f1_score(prediction, labels, **macro)),
        "ece": float(
            tm.multiclass_calibration_error(
                probabilities.clamp(0, 1), labels, n_bins=BINS, norm="l1", **settings
            )
        ),
        "loss": float(
            -probabilities.gather(1, labels[:, None]).clamp(min=TINY).log().mean()
        ),
        "n": n,
        "top1_low": low,
        "top1_high": high,
    }


def confusion(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (C, C) int64, row: true class, column: predicted class. Arguments as for
    :func:`metrics`."""
    _check(probabilities, labels, num_classes)
    return tm.multiclass_confusion_matrix(
        probabilities.argmax(1), labels.long(), num_classes, validate_args=False
    )


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (J. Am. Stat. Assoc. 1927) for a share of `correct` in
    `n`: it stays in [0, 1] and is honest near both ends.

    Raises InputError unless 0 <= correct <= n, n > 0 and 0 < level < 1.
    """
    if not (0 <= correct <= n and n > 0 and 0 < level < 1):
        raise InputError(
            f"an interval for {correct} of {n} at level {level} is not defined."
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = correct / n, 1 / (1 + z**2 / n)
    middle = shrink * (share + z**2 / (2 * n))
    half = shrink * z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (0.0 if correct == 0 else middle - half), (
        1.0 if correct == n else middle + half
    )


def _check(probabilities: Tensor, labels: Tensor, num_classes: int) -> None:
    if num_classes < 2:
        raise InputError(
            f"a classification needs at least 2 classes, not {num_classes}."
        )
    if (
        probabilities.ndim != 2
        or probabilities.shape[1] != num_classes
        or labels.shape != probabilities.shape[:1]
    ):
        shapes = f"{tuple(probabilities.shape)} and {tuple(labels.shape)}"
        raise InputError(
            f"probabilities and labels have the shapes {shapes}; they must be (N,"
            f" {num_classes}) and (N,)."
        )
    if not len(labels):
        raise InputError("there are no images to evaluate.")
    if (
        labels.is_floating_point()
        or int(labels.min()) < 0
        or int(labels.max()) >= num_classes
    ):
        raise InputError(
            f"labels must be whole numbers in 0..{num_classes - 1}, not"
            f" {labels.min().item()}..{labels.max().item()}."
        )
    bad = ~torch.isfinite(probabilities).all(1)
    if bad.any():
        raise InputError(
            f"the probabilities of {int(bad.sum())} of {len(bad)} images are not"
            f" finite, first {int(bad.int().argmax())}."
        )
    if (probabilities < -1e-3).any() or (
        (probabilities.float().sum(1) - 1).abs() > 1e-2
    ).any():
        raise InputError(
            "probabilities must not be negative and must sum to 1 for each image; apply"
            " softmax to logits."
        )
