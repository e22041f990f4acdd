"""No method but a loss, which :mod:`fgbook.methods.attention` adds to its own: the
batch-hard triplet loss (Hermans, Beyer and Leibe 2017), images of one class together,
images of different classes apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def batch_hard(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Scalar, the mean over anchors a of max(0, margin + max_p D(a, p) - min_n D(a, n))
    (their eq. 5): embeddings (B, n), labels (B,) int64.

    p are the other images of the anchor's class in the batch, n those of other classes;
    each anchor has its farthest p and nearest n. An image without a p or without an n
    is no anchor; without any anchor the loss is 0, with zero gradient.

    D is the Euclidean distance (not squared, as they advise) of embeddings divided by
    their length, so it lies in [0, 2] and `margin` means the same for every backbone;
    they leave the length free. In float32 also under mixed precision, and without a
    value that the host waits for.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.float(), dim=1)
        squared = 2 - 2 * unit @ unit.T  # (B, B): |a - b|^2 = 2 - 2 a.b
        # below the limit the gradient is 0, and not infinite as the root's at 0
        distance = squared.clamp(min=1e-6).sqrt()

    same = labels[:, None] == labels  # (B, B)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = same & ~itself

    # of each anchor (B,); the filled-in values, 0 and 2, are the ends of the range
    farthest_positive = distance.masked_fill(~positive, 0).amax(1)
    nearest_negative = distance.masked_fill(same, 2).amin(1)
    hinge = (margin + farthest_positive - nearest_negative).clamp(min=0)

    anchor = positive.any(1) & ~same.all(1)
    return torch.where(anchor, hinge, 0).sum() / anchor.sum().clamp(min=1)
