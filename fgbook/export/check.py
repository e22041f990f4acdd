"""Whether an exported file says what the model in PyTorch says."""

from collections.abc import Callable

import numpy as np
import torch

from . import traced

LIMIT = 1e-3
"""Largest difference between two logits that is put down to rounding."""

BATCHES = (1, traced.EXAMPLES, 5)
"""Numbers of images that are tried: one, as many as were traced, and another."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (B, 3, S, S) float32 -> logits (B, C)."""


def difference(module: traced.Predicting, exported: Predict, size: int) -> float:
    """The largest difference of a logit, over all batch sizes that are tried; infinite
    where the exported file cannot take one, or either gives no number.
    """
    largest = 0.0
    for seed, count in enumerate(BATCHES):
        images = traced.probes(size, count, seed)
        with torch.inference_mode():
            wanted = module(images).numpy()
        found = exported(images.numpy())
        if found.shape != wanted.shape or not np.isfinite(found - wanted).all():
            return float("inf")
        largest = max(largest, float(np.abs(found - wanted).max()))
    return largest
