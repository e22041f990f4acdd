"""The arithmetic of an interval: what other trainings and other test images would
change, each with its own degrees of freedom.

The model
---------
The value of a row on test image i in the training with seed s is

    x[s, i] = mean + seed[s] + image[i] + rest[s, i],

with S seeds and N images as crossed random effects, since both would be others in
another study: the seed moves all images at once, an image is easy or hard for all
seeds. An interval over images alone (as in McNemar's test) or over seeds alone leaves
out the other. Two rows count as trained independently: that they share seed *numbers*
means nothing. They share the images.

The interval
------------
Let d[i] be the difference of both rows on image i, each row averaged over its seeds.
The variance of the mean of all d[i] has two parts,

    seeds:   MS_a / S_a + MS_b / S_b,
    images:  (var(d) - rest_a / S_a - rest_b / S_b) / N.

MS is the variance of a row's mean over all images between its seeds; it holds the rest
too. rest is the residual mean square of the table of seeds and images of one row: that
much of var(d) is not the images'. Each part gives a half-width with its own Student
quantile, and the squares of both add up (Howe, J. Am. Stat. Assoc. 1974).

Few seeds say little about MS: at 3 the quantile is 4.3. Rows of one study therefore
share one estimate, :func:`spreads`, unless the rows themselves refuse it.

The mean of a single row has the same two parts with one row only; the difference of two
measures of the *same* networks is the mean of one row, namely of the differences.

Two choices are conservative
----------------------------
* A negative estimate of the images' part counts as 0.
* var(d) is taken as if two images more had been seen, one decided for either row by all
  seeds.

Without these a small test set with a handful of disagreements gives intervals that are
too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
REFUSED = 0.05  # a smaller p-value of the test of equal spreads refuses pooling
SMALLEST = 1e-12  # p-value that is told apart from 0

Numbers = Any
"""A number, or an array of one number for each of many studies (simulation)."""


# ---- an interval from its two parts


@dataclass(frozen=True)
class Parts:
    """The variance of a mean, in its unit squared, and the degrees of freedom of its
    two parts; numbers, or arrays of one shape.
    """

    seeds: Numbers
    seeds_degrees: Numbers
    images: Numbers
    images_degrees: Numbers

    def half(self, level: float = LEVEL) -> Numbers:
        """Half-width of the interval of that level."""
        return self._half(1 - level)

    def _half(self, alpha: Numbers) -> Numbers:
        by_seeds = _quantile(self.seeds_degrees, alpha) ** 2 * self.seeds
        by_images = _quantile(self.images_degrees, alpha) ** 2 * self.images
        return np.sqrt(by_seeds + by_images)

    def p_value(self, distance: Numbers) -> Numbers:
        """The smallest alpha at which the interval of level 1 - alpha round an estimate
        leaves out what lies `distance` (>= 0) from it.
        """
        # half-widths grow as alpha shrinks: halve the stretch of log(alpha)
        low = np.full(np.shape(distance), np.log(SMALLEST))
        high = np.zeros(np.shape(distance))
        for _ in range(48):
            middle = (low + high) / 2
            reaches = self._half(np.exp(middle)) >= distance
            low = np.where(reaches, middle, low)
            high = np.where(reaches, high, middle)
        return np.exp(high)

    def deviation(self, p_value: Numbers) -> Numbers:
        """|t| of Student's distribution with the seeds' degrees that has this two-sided
        p-value.
        """
        return _quantile(self.seeds_degrees, p_value)


def _quantile(degrees: Numbers, alpha: Numbers) -> Numbers:
    """Two-sided Student quantile."""
    # takes as long to import as all else that `fgbook results` needs
    from scipy.special import stdtrit

    return -stdtrit(degrees, np.asarray(alpha) / 2)


# ---- the images' part


def rest_square(values: NDArray) -> Numbers:
    """Residual mean square of tables (..., S, N) of seeds and images; 0 for one
    seed.
    """
    seeds, images = values.shape[-2:]
    if seeds == 1:
        return np.zeros(values.shape[:-2])
    rest = values - values.mean(-1, keepdims=True)
    rest = rest - rest.mean(-2, keepdims=True)
    return (rest**2).sum((-2, -1)) / ((seeds - 1) * (images - 1))


def image_part(of_image: NDArray, rest: Numbers, unit: Numbers) -> Numbers:
    """The images' part of the variance of the mean of `of_image` (..., N): of one row,
    or of the difference of two, each row averaged over its seeds. `rest`: how much of
    their variance is not the images', rest square over seeds, of both rows together;
    `unit`: the largest that one image can count.
    """
    images = of_image.shape[-1]
    deviation = of_image - of_image.mean(-1, keepdims=True)
    # as if two images more had been seen
    square = ((deviation**2).sum(-1) + 2 * np.square(unit)) / (images - 1)
    return np.maximum(square - rest, 0) / images


# ---- the seeds' part


@dataclass(frozen=True)
class Spread:
    """How much the mean of a row over the test images varies between trainings: a mean
    square, and its degrees of freedom.
    """

    square: Numbers
    degrees: Numbers
    rows: int = 1  # that it is estimated from


def own(means: NDArray) -> Spread:
    """From the means (..., S) of one row, S >= 2."""
    return Spread(means.var(-1, ddof=1), means.shape[-1] - 1)


def spreads(means: Sequence[NDArray]) -> list[Spread]:
    """How much each of several rows varies, from the means (S,) of each, S >= 2: one
    estimate for all of them, squares about each row's own mean and degrees of freedom
    added up.

    A row that varies too much for that (:func:`outlier`) has its own estimate; so has
    every row where the others still differ (:func:`equal_spreads`).
    """
    found = [own(row) for row in means]
    members = list(range(len(means)))
    while (apart := outlier([found[i] for i in members])) is not None:
        del members[apart]
    if len(members) < 2 or equal_spreads([means[i] for i in members]) < REFUSED:
        return found
    degrees = sum(found[i].degrees for i in members)
    squares = sum(found[i].square * found[i].degrees for i in members)
    shared = Spread(squares / degrees, degrees, len(members))
    return [shared if i in members else each for i, each in enumerate(found)]


def outlier(found: Sequence[Spread]) -> int | None:
    """The place of the row whose mean square is too large beside the others': the F
    test of the largest ratio, its p-value times the number of rows (Cochran's test, for
    any numbers of seeds). None where there is none, or fewer than three rows.

    It sees what the test of equal spreads, made for heavy tails, does not see at 3
    seeds: one row that varies six times as much as 14 others is found in 82 % of the
    cases, against 12 %. Means over hundreds of images are near enough to normal.
    """
    from scipy.special import fdtrc

    if len(found) < 3:
        return None
    squares = np.array([each.square * each.degrees for each in found])
    degrees = np.array([each.degrees for each in found])
    others, of_others = squares.sum() - squares, degrees.sum() - degrees
    if not others.all():
        return None
    ratios = (squares / degrees) / (others / of_others)
    p = fdtrc(degrees, of_others, ratios)
    place = int(p.argmin())
    return place if len(found) * p[place] < REFUSED else None


def equal_spreads(groups: Sequence[NDArray]) -> float:
    """p-value of Levene's test with medians (Brown and Forsythe, J. Am. Stat. Assoc.
    1974) that groups of numbers spread alike; of groups of 3 and more, because two lie
    equally far from their median whatever their spread. 1 where there is nothing to
    compare.
    """
    from scipy.special import fdtrc

    distances = [abs(g - np.median(g)) for g in groups if len(g) >= 3]
    if len(distances) < 2:
        return 1.0
    everything = np.concatenate(distances)
    middle = everything.mean()
    between = sum(len(d) * (d.mean() - middle) ** 2 for d in distances)
    within = sum(float(((d - d.mean()) ** 2).sum()) for d in distances)
    first, second = len(distances) - 1, len(everything) - len(distances)
    if within == 0:
        return 1.0 if between == 0 else 0.0
    return float(fdtrc(first, second, (between / first) / (within / second)))


def seed_part(spreads: Sequence[Spread], seeds: Sequence[int]) -> tuple:
    """The seeds' part of the variance of a mean, of one row or of the difference of
    two, and its degrees of freedom: those of the one estimate that both rows share,
    else Welch and Satterthwaite's.
    """
    shared = spreads[0]
    if all(spread is shared for spread in spreads):
        return shared.square * sum(1 / n for n in seeds), shared.degrees
    terms = [spread.square / n for spread, n in zip(spreads, seeds, strict=True)]
    total = sum(terms)
    by_row = zip(terms, spreads, strict=True)
    uncertainty = sum(term**2 / spread.degrees for term, spread in by_row)
    smallest = sum(spread.degrees for spread in spreads)
    # where no row varies at all any number does
    degrees = np.where(uncertainty > 0, total**2 / np.maximum(uncertainty, 1e-300), 0)
    return total, np.where(uncertainty > 0, degrees, smallest)


def parts(
    values: Sequence[NDArray], spreads: Sequence[Spread] | None, unit: Numbers
) -> Parts:
    """Both parts of the variance of the mean of one row (..., S, N), or of the
    difference of two. Without spreads (one seed) the interval covers images only.
    """
    of_image = values[0].mean(-2)
    rest = rest_square(values[0]) / values[0].shape[-2]
    if len(values) == 2:
        of_image = of_image - values[1].mean(-2)
        rest = rest + rest_square(values[1]) / values[1].shape[-2]
    by_images = image_part(of_image, rest, unit)

    by_seeds: Numbers = 0.0
    degrees: Numbers = 1
    if spreads:
        by_seeds, degrees = seed_part(spreads, [v.shape[-2] for v in values])
    return Parts(by_seeds, degrees, by_images, of_image.shape[-1] - 1)
