"""Images cut into patches that change places."""

import torch
from torch import Tensor

from ..errors import InputError


def shuffle_patches(images: Tensor, n: int) -> Tensor:
    """Images (B, c, S, S) cut into n x n patches that change places, by a uniform
    permutation for each image; see :func:`move_patches`.

    Permutations come from torch's generator of the images' device; the training loop
    seeds it at every step, so that a resumed run draws the same.
    """
    # sorting random numbers makes a permutation
    source = torch.rand(len(images), n * n, device=images.device).argsort(1)
    return move_patches(images, source, n)


def near_places(
    count: int, n: int, k: float, device: torch.device | str | None = None
) -> Tensor:
    """For each of `count` images, which of n x n patches comes to each place when they
    move by fewer than 2k rows and fewer than 2k columns: (count, n * n) int64,
    permutations of the numbers row by row.

    First the patches of each row change places, then those of each column. Each line
    is sorted by its numbers 0 .. n - 1, to each of which a random number between -k
    and k is added. Random numbers as in :func:`shuffle_patches`.
    """

    def lines() -> Tensor:
        """The order of n lines of each image: (count, n, n)."""
        noise = 2 * torch.rand(count, n, n, device=device) - 1
        return (torch.arange(n, device=device) + k * noise).argsort(2)

    from_column = lines()  # at (row, place): the column it comes from
    from_row = lines().transpose(1, 2)  # at (place, column): the row it comes from
    # at (y, x) is what the first step had put at (from_row, x)
    source = from_row * n + from_column.gather(1, from_row)
    return source.flatten(1)


def move_patches(images: Tensor, source: Tensor, n: int) -> Tensor:
    """Images (B, c, S, S) with the patch of number source (B, n * n) int64 at each of n
    x n places; patches and places are numbered row by row.

    Where n does not divide S, the n x n patches of S // n pixels lie in the middle, and
    the frame of fewer than n pixels in all stays where it is. n = 1 changes nothing.
    Raises InputError for more patches than pixels.
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
