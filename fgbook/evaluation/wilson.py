"""An interval for a share, over images only. Needs no PyTorch."""

from statistics import NormalDist

from ..errors import InputError


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
    share = correct / n
    # towards a half: z^2 images of which half are right are added, so to speak
    shrink = 1 / (1 + z**2 / n)
    middle = shrink * (share + z**2 / (2 * n))
    half = shrink * z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # exact at the ends, where rounding would miss 0 and 1
    low = 0.0 if correct == 0 else middle - half
    high = 1.0 if correct == n else middle + half
    return low, high
