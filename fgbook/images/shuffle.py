"""Images cut into patches that change places."""

import torch
from torch import Tensor

from ..errors import InputError


def shuffle_patches(images: Tensor, n: int) -> Tensor:
    """Images (B, c, S, S) cut into n x n patches that change places, by a uniform
    permutation for each image.

    Permutations come from torch's generator of the images' device; the training loop
    seeds it at every step, so that a resumed run draws the same. Where n does not
    divide S, the n x n patches of S // n pixels lie in the middle, and the frame of
    fewer than n pixels in all stays where it is. n = 1 changes nothing. Raises
    InputError for more patches than pixels.
    """
    batch, size = len(images), images.shape[-1]
    side, rest = divmod(size, n)
    if not side:
        raise InputError(
            f"{n} patches a side do not fit into {size} pixels; choose a smaller n."
        )
    middle = slice(rest // 2, rest // 2 + n * side)

    # Rows and columns become patches and pixels within: (B, n, n, c, side, side).
    patches = images[..., middle, middle].unflatten(3, (n, side))
    patches = patches.unflatten(2, (n, side)).permute(0, 2, 4, 1, 3, 5)

    # Sorting random numbers makes a permutation: which patch comes to each place,
    # (B, n * n).
    source = torch.rand(batch, n * n, device=images.device).argsort(1)
    image = torch.arange(batch, device=images.device)[:, None]
    moved = patches[image, source // n, source % n]  # (B, n * n, c, side, side)

    # Back to rows and columns.
    moved = moved.unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5)
    moved = moved.reshape(batch, -1, n * side, n * side)
    if not rest:
        return moved
    result = images.clone()
    result[..., middle, middle] = moved
    return result
