"""How often do 95 % intervals for the difference of two rows contain the truth?
Simulated; prints a table.

    python benchmarks/coverage.py [--repeats 1000]        # about a minute on one core

Each simulated study has S seeds and N test images. A row is right about an image when a
sum of normal numbers is positive: the image's difficulty (shared by both rows), what
the image is for this row, what the seed does to this row, and the rest. So the true
difference is known exactly. A cell holds the share of studies whose interval contains
it, and in brackets the interval's mean half-width in percentage points. The last lines
give, for each method, the smallest coverage over all settings.
"""

import argparse
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit

from fgbook.evidence.verdicts import interval


@dataclass(frozen=True)
class Setting:
    """Accuracies of both rows, and the standard deviations of the four sources on the
    latent scale.
    """

    name: str
    accuracy: tuple[float, float]
    difficulty: float
    image: float
    seed: float
    rest: float

    def draw(
        self, random: np.random.Generator, repeats: int, seeds: int, images: int
    ) -> np.ndarray:
        """Differences (repeats, S, N) int8."""

        def normal(*shape: int) -> np.ndarray:
            return random.standard_normal((repeats, *shape), dtype=np.float32)

        parts = (self.difficulty, self.image, self.seed, self.rest)
        total = sum(part**2 for part in parts) ** 0.5
        shared = self.difficulty * normal(1, images)
        right = []
        for accuracy in self.accuracy:
            latent = (
                shared
                + self.image * normal(1, images)
                + self.seed * normal(seeds, 1)
                + self.rest * normal(seeds, images)
            )
            right.append(latent > -NormalDist().inv_cdf(accuracy) * total)
        return right[0].astype(np.int8) - right[1].astype(np.int8)

    @property
    def truth(self) -> float:
        """The difference of the two accuracies."""
        return self.accuracy[0] - self.accuracy[1]


SETTINGS = (
    Setting("all chance", (0.78, 0.76), 0, 0, 0, 1),
    Setting("images matter", (0.78, 0.76), 0.8, 0.5, 0, 0.33),
    Setting("seeds move accuracy by 1 point", (0.78, 0.76), 0.85, 0.3, 0.03, 0.43),
    Setting("seeds move accuracy by 3 points", (0.78, 0.76), 0.85, 0.3, 0.1, 0.43),
    Setting("seeds move accuracy by 11 points", (0.78, 0.76), 0.7, 0.2, 0.4, 0.4),
    Setting("easy", (0.97, 0.96), 0.9, 0.3, 0.03, 0.3),
    Setting("very easy", (0.99, 0.98), 0.95, 0.2, 0.03, 0.3),
)


def images_only(d, random):
    """Student's interval over images, seeds averaged out."""
    return _around(
        d.mean((1, 2)),
        _t(d.shape[2] - 1) * d.mean(1).std(1, ddof=1) / d.shape[2] ** 0.5,
    )


def seeds_only(d, random):
    """Student's interval over the seeds' differences."""
    return _around(
        d.mean((1, 2)),
        _t(d.shape[1] - 1) * d.mean(2).std(1, ddof=1) / d.shape[1] ** 0.5,
    )


def satterthwaite(d, random):
    """Analysis of variance, one Student quantile with Satterthwaite's degrees of
    freedom.
    """
    _, seeds, images = d.shape
    effect = d.mean((1, 2))
    of_seed, of_image = d.mean(2) - effect[:, None], d.mean(1) - effect[:, None]
    seed, image = (
        images * (of_seed**2).sum(1) / (seeds - 1),
        seeds * (of_image**2).sum(1) / (images - 1),
    )
    rest = (
        (d - effect[:, None, None] - of_seed[:, :, None] - of_image[:, None]) ** 2
    ).sum((1, 2)) / ((seeds - 1) * (images - 1))
    total = np.maximum.reduce([seed + image - rest, seed, image])
    spread = (
        seed**2 / (seeds - 1)
        + image**2 / (images - 1)
        + rest**2 / ((seeds - 1) * (images - 1))
    )
    degrees = np.clip(total**2 / np.maximum(spread, 1e-12), seeds - 1, images - 1)
    return _around(effect, _t(degrees) * np.sqrt(total / (seeds * images)))


def bootstrap(d, random, resamples: int = 400):
    """Hierarchical bootstrap: seeds and images drawn with replacement, percentiles."""
    low, high = np.quantile(_resampled(d, random, resamples), [0.025, 0.975], axis=1)
    return low, high


def corrected_bootstrap(d, random, resamples: int = 400):
    """The same, as a standard error for Student's quantile with S - 1 degrees, enlarged
    by sqrt(S / (S - 1)).
    """
    seeds = d.shape[1]
    error = (
        _resampled(d, random, resamples).std(1, ddof=1) * (seeds / (seeds - 1)) ** 0.5
    )
    return _around(d.mean((1, 2)), _t(seeds - 1) * error)


def chosen(d, random):
    """What fgbook.evidence.verdicts does."""
    return _around(*interval(d))


METHODS = {
    "images only": images_only,
    "seeds only": seeds_only,
    "Satterthwaite": satterthwaite,
    "bootstrap": bootstrap,
    "corrected bootstrap": corrected_bootstrap,
    "chosen": chosen,
}


def _resampled(d, random, resamples):
    """Means of resampled studies, (repeats, resamples). One set of weights serves all
    repeats: they are independent of the data.
    """
    _, seeds, images = d.shape
    # (resamples, S)
    of_seed = random.multinomial(seeds, [1 / seeds] * seeds, resamples) / seeds
    # (resamples, N)
    of_image = random.multinomial(images, [1 / images] * images, resamples) / images
    by_seed = d @ of_image.T  # (repeats, S, resamples)
    return (by_seed * of_seed.T).sum(1)


def _around(middle, half):
    return middle - half, middle + half


def _t(degrees):
    return stdtrit(degrees, 0.975)


def coverage(
    setting: Setting,
    seeds: int,
    images: int,
    repeats: int,
    methods: dict,
    random: np.random.Generator,
) -> dict[str, tuple]:
    """Method -> (share of intervals that contain the truth, mean half-width)."""
    hits, halves, done = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0.0), 0
    while done < repeats:
        count = min(100, repeats - done)
        d = setting.draw(random, count, seeds, images).astype(np.float64)
        for name, method in methods.items():
            low, high = method(d, random)
            hits[name] += int(
                ((low <= setting.truth + 1e-9) & (setting.truth - 1e-9 <= high)).sum()
            )
            halves[name] += float((high - low).sum()) / 2
        done += count
    return {name: (hits[name] / repeats, halves[name] / repeats) for name in methods}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats",
        type=int,
        default=1000,
        help="simulated studies a line (default 1000; the error is then about 0.007)",
    )
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    worst = dict.fromkeys(METHODS, 1.0)
    print("| images | seeds | setting | " + " | ".join(METHODS) + " |")
    print("|---|---|---|" + "---|" * len(METHODS))
    for images in (100, 1389):
        for seeds in (2, 3, 5):
            for setting in SETTINGS:
                found = coverage(setting, seeds, images, repeats, METHODS, random)
                worst = {name: min(worst[name], found[name][0]) for name in METHODS}
                cells = " | ".join(
                    f"{share:.3f} ({100 * half:.1f})" for share, half in found.values()
                )
                print(f"| {images} | {seeds} | {setting.name} | {cells} |", flush=True)
    print(
        "| | | smallest | "
        + " | ".join(f"{worst[name]:.3f}" for name in METHODS)
        + " |"
    )


if __name__ == "__main__":
    main()
