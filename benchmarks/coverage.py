"""How often is a verdict wrong, and how often does it miss what is there? Simulated
papers, judged as fgbook.evidence judges real ones; prints a table.

    python benchmarks/coverage.py > book/_static/coverage.txt     # a minute, one core

Each simulated paper has a baseline and 14 rows that are claimed to beat it, S seeds a
row and N test images. A row is right about an image when a sum of normal numbers is
positive: the image's difficulty (shared by all rows), what the image is for this row,
what the seed does to this row, and the rest. So true accuracies are known exactly; the
sizes of the four are about those of the published records. Of half of the papers no
claim is true; in the other half the rows are better by 0, 1, 2 or 3 points.

Columns, in per cent of the papers or of the claims:

coverage   95 % intervals that contain the true difference
alone      papers without a true claim in which some interval leaves out 0
family     the same, but decided in the family, which is what counts (wanted: at most 5)
1 2 3      claims of a true effect of so many points that hold in the family
2 alone    the same of 2 points, each claim judged alone
equal      claims without an effect of which "no difference" is said
false      claims with a true effect of 1 point of which it is said (wanted: at most 5)
width      mean half-width of the intervals, in points
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from fgbook.evidence import families, intervals
from fgbook.evidence.intervals import Parts, Spread
from fgbook.evidence.verdicts import EQUIVALENCE

ROWS = 14  # beside the baseline
ACCURACY = 0.80
BETTER = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])  # points
NEGLIGIBLE = 1.0  # points
IMAGES = (300, 1389, 2054)
SEEDS = (3, 5)


@dataclass(frozen=True)
class Setting:
    """Standard deviations on the latent scale, and how many times larger the seeds'
    part is in the first row.
    """

    name: str
    seed: float
    first: float = 1.0
    difficulty: float = 0.83
    image: float = 0.3
    rest: float = 0.47


SETTINGS = (
    Setting("0.5 points", 0.018),
    Setting("1.5 points", 0.054),
    Setting("1.5, one row by 9", 0.054, first=6.0),
)


def draw(
    setting: Setting,
    random: np.random.Generator,
    better: NDArray,
    papers: int,
    seeds: int,
    images: int,
) -> NDArray:
    """Right or wrong (papers, rows, S, N) bool, the baseline last."""
    rows = len(better) + 1

    def normal(*shape: int) -> NDArray:
        return random.standard_normal((papers, *shape), dtype=np.float32)

    by_seed = np.full((rows, 1, 1), setting.seed, dtype=np.float32)
    by_seed[0] *= setting.first
    latent = setting.rest * normal(rows, seeds, images)
    latent += setting.difficulty * normal(1, 1, images)
    latent += setting.image * normal(rows, 1, images)
    latent += by_seed * normal(rows, seeds, 1)
    # a row's own total, so that its accuracy is exactly what it should be
    others = setting.difficulty**2 + setting.image**2 + setting.rest**2
    total = np.sqrt(others + by_seed[:, 0, 0].astype(float) ** 2)
    accuracy = ACCURACY + np.append(better, 0) / 100
    quantiles = np.array([NormalDist().inv_cdf(share) for share in accuracy])
    limit = (quantiles * total).astype(np.float32)
    return latent > -limit[:, None, None]


# ---- judged


@dataclass(frozen=True)
class Judged:
    """Claims (papers, ROWS) of simulated papers."""

    effect: NDArray  # points
    parts: Parts
    p: NDArray
    p_family: NDArray

    def joined(self, other: "Judged") -> "Judged":
        """These and further papers."""
        mine, theirs = vars(self.parts), vars(other.parts)
        parts = Parts(**{name: np.r_[mine[name], theirs[name]] for name in mine})
        return Judged(
            np.r_[self.effect, other.effect],
            parts,
            np.r_[self.p, other.p],
            np.r_[self.p_family, other.p_family],
        )


def judge(right: NDArray, pooling: bool) -> Judged:
    """All claims of papers from answers (papers, rows, S, N), each row against the last
    one. `pooling`: rows share one spread as far as the tests of equal spreads allow.
    """
    seeds = right.shape[-2]
    points = 100 * right.astype(np.float32)
    of_image = points.mean(-2)  # (papers, rows, N)
    of_seed = points.mean(-1, dtype=float)  # (papers, rows, S)
    rest = intervals.rest_square(points) / seeds
    both = rest[:, :-1] + rest[:, -1:]
    by_images = intervals.image_part(of_image[:, :-1] - of_image[:, -1:], both, 100.0)
    effect = (of_image[:, :-1] - of_image[:, -1:]).mean(-1, dtype=float)

    by_seeds, degrees = np.empty((2, *effect.shape))
    shared = np.zeros(len(right), dtype=int)  # degrees; 0: not all rows share them
    for paper, means in enumerate(of_seed):
        *rows, baseline = spreads(means, pooling)
        pairs = [intervals.seed_part((row, baseline), (seeds, seeds)) for row in rows]
        by_seeds[paper], degrees[paper] = np.array(pairs).T
        if all(row is baseline for row in rows):
            shared[paper] = baseline.degrees

    of_images = np.full(effect.shape, right.shape[-1] - 1)
    parts = Parts(by_seeds, degrees, by_images, of_images)
    p = parts.p_value(abs(effect))
    p_family = np.array([families.holm(values) for values in p])
    for paper in np.flatnonzero(shared):
        # what Dunnett's test calls 0.05; larger or smaller is all that is asked
        p_family[paper] = np.where(p[paper] < critical(shared[paper]), 0, 1)
    return Judged(effect, parts, p, p_family)


def spreads(means: NDArray, pooling: bool) -> list[Spread]:
    """Of all rows of a paper, from their means (rows, S)."""
    if pooling:
        return intervals.spreads(list(means))
    return [intervals.own(row) for row in means]


@lru_cache
def critical(degrees: int) -> float:
    """The p-value of a claim alone that is 0.05 among ROWS with one baseline."""
    deviation = families.critical([0.5] * ROWS, degrees)
    return float(2 * stdtr(degrees, -deviation))


def studied(
    setting: Setting,
    random: np.random.Generator,
    better: NDArray,
    seeds: int,
    images: int,
    repeats: int,
) -> tuple[Judged, Judged]:
    """The same papers judged with a shared spread, and with each row's own."""
    found: list[Judged] = []
    for papers in pieces(repeats, ROWS * seeds * images):
        right = draw(setting, random, better, papers, seeds, images)
        both = [judge(right, True), judge(right, False)]
        if found:
            both = [a.joined(b) for a, b in zip(found, both, strict=True)]
        found = both
    return found[0], found[1]


def pieces(repeats: int, size: int) -> Iterator[int]:
    """So many papers at once that they fit into the processor's memory."""
    most = max(1, 4_000_000 // size)
    while repeats > 0:
        yield min(most, repeats)
        repeats -= most


# ---- the table

COLUMNS = (
    "images",
    "seeds",
    "seeds move a row by",
    "spread",
    "coverage",
    "alone",
    "family",
    "1",
    "2",
    "3",
    "2 alone",
    "equal",
    "false",
    "width",
)


def shares(null: Judged, mixed: Judged) -> list[float]:
    """What the columns hold, from "coverage" to "width"."""
    covered = abs(mixed.effect - BETTER) <= mixed.parts.half()
    wrong = [(null.p < 0.05).any(1).mean(), (null.p_family < 0.05).any(1).mean()]
    above = mixed.effect > 0
    holds, alone = above & (mixed.p_family < 0.05), above & (mixed.p < 0.05)
    power = [holds[:, points == BETTER].mean() for points in (1, 2, 3)]
    power.append(alone[:, np.equal(BETTER, 2)].mean())
    # an interval that leaves out 0 shows a difference, however small
    within = abs(mixed.effect) + mixed.parts.half(EQUIVALENCE) < NEGLIGIBLE
    equal = within & (mixed.p >= 0.05)
    said = [equal[:, points == BETTER].mean() for points in (0, 1)]
    percent = [100 * share for share in (covered.mean(), *wrong, *power, *said)]
    return [*percent, float(mixed.parts.half().mean())]


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats",
        type=int,
        default=400,
        help="simulated papers of each kind a line (default 400: a 5 is then 5 +- 1)",
    )
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for images in IMAGES:
        for seeds in SEEDS:
            for setting in SETTINGS:
                null = studied(setting, random, 0 * BETTER, seeds, images, repeats)
                mixed = studied(setting, random, BETTER, seeds, images, repeats)
                for spread, a, b in zip(("pooled", "own"), null, mixed, strict=True):
                    cells = [f"{share:.1f}" for share in shares(a, b)]
                    line = [str(images), str(seeds), setting.name, spread, *cells]
                    print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
