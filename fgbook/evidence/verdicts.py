"""Rows compared over seeds and test images: effect, 95 % interval, verdict.

The model
---------
For seed s and test image i let d[s, i] be +1 if only the first row is right, -1 if only
the second is, else 0. S seeds and N images are crossed random effects,

    d[s, i] = effect + seed[s] + image[i] + rest[s, i],

since both would be others in another study: the seed moves all images at once, an image
is easy or hard for all seeds. An interval over images alone (as in McNemar's test) or
over seeds alone leaves out the other.

The interval
------------
A two-way analysis of variance without replication gives the mean squares of seeds,
images and the rest, with expectations

    E MS_seed  = N var(seed) + var(rest),
    E MS_image = S var(image) + var(rest),
    E MS_rest  = var(rest).

The variance of the mean over all d has two parts,

    MS_seed / (S N)    and    (MS_image - MS_rest) / (S N),

estimated with S - 1 and about N - 1 degrees of freedom. Each gives a half-width with
its own Student quantile, and the squares of both add up (Howe, J. Am. Stat. Assoc.
1974). With few seeds that is wide, because few seeds say little about the spread
between trainings: at 2 seeds the quantile is 12.7, at 3 it is 4.3, at 5 it is 2.8.

`benchmarks/coverage.py` simulates how often this interval and its rivals
(Satterthwaite's degrees of freedom, hierarchical bootstraps) contain the truth: at 2 or
3 seeds the rivals miss it more often than they say, or are wider.

Two choices are conservative
----------------------------
* A negative estimate of the images' part counts as 0.
* The images' mean square is taken as if two images more had been seen, one decided for
  either row by all seeds.

Without these a small test set with a handful of disagreements gives intervals that are
too narrow.

Assumptions
-----------
* Seeds are a random sample of trainings, test images one of images.
* Both rows run with the same seed number share the order of the data, but that pairing
  is nominal: the rows' networks differ, so a pair has hardly more in common than any
  two runs. The interval holds either way, because only differences within pairs are
  used.
* Validation and training images are the same in all runs and count as fixed. The
  interval is about this data set, profile and recipe, and says nothing about others.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..papers.spec import Claim
from ..recipe import Recipe
from . import records

LEVEL = 0.95
# of the other metrics: none
UNITS = {"top1": "points", "low_top1": "points", "nll": "nats"}
OUTCOMES = ("holds", "reversed", "inconclusive", "not run")


@dataclass(frozen=True)
class Effect:
    """How much larger the metric is in the first row: in percentage points where it is
    right or wrong, else in the metric's own unit.
    """

    effect: float
    low: float  # 95 % interval
    high: float
    seeds: int
    images: int  # in the test split
    # standard deviation of the seeds' differences; None for one seed
    sd_seeds: float | None


@dataclass(frozen=True)
class Verdict:
    """What records say of a claim."""

    claim: Claim
    outcome: str  # one of OUTCOMES
    effect: Effect | None  # None when "not run"
    why: str  # one sentence


# ---- two rows compared


def compare(
    better: Sequence[dict] | NDArray,
    worse: Sequence[dict] | NDArray,
    metric: str = "top1",
    worse_metric: str | None = None,
) -> Effect:
    """The difference in a metric, better minus worse, with a 95 % interval over seeds
    and test images.

    Each row is a list of records (paired by seed; seeds that only one row has are left
    out) or an array (S, N): bool, true where the image is classified correctly, or
    float. The metrics are those of :class:`fgbook.papers.spec.Claim`; images for which
    one of the two is not known (NaN) are left out. With one seed the interval covers
    images only. Raises InputError if the two cannot be compared: different data, test
    images or profiles, no seed in common, two records for one seed, fewer than 2
    images, a metric that a record does not hold.
    """
    if isinstance(better, np.ndarray) and isinstance(worse, np.ndarray):
        first, second = better, worse
        if first.shape != second.shape or first.ndim != 2 or first.shape[0] < 1:
            raise InputError(
                "two arrays (seeds, images) of one shape are compared, not"
                f" {first.shape} and {second.shape}."
            )
    elif isinstance(better, np.ndarray) or isinstance(worse, np.ndarray):
        raise InputError("an array and records cannot be compared; give two of a kind.")
    else:
        first, second = _paired(
            _by_seed(better), _by_seed(worse), metric, worse_metric or metric
        )
    right_or_wrong = first.dtype == bool and second.dtype == bool
    scale = 100 if right_or_wrong else 1  # percentage points
    difference = scale * (first.astype(np.float64) - second.astype(np.float64))
    difference = difference[:, np.isfinite(difference).all(0)]  # (S, N)
    seeds, images = difference.shape
    if images < 2:
        raise InputError(f"a comparison needs at least 2 test images, not {images}.")

    largest = 100.0 if right_or_wrong else float(np.abs(difference).max())
    mean, half = interval(difference, largest)
    return Effect(
        effect=float(mean),
        low=float(mean - half),
        high=float(mean + half),
        seeds=seeds,
        images=images,
        sd_seeds=float(difference.mean(1).std(ddof=1)) if seeds > 1 else None,
    )


def per_image(record: dict, metric: str) -> NDArray:
    """A metric of every test image (N,): bool for "top1" and "low_top1", else float,
    larger is better ("nll" is negated).
    """
    kept = records.load_predictions(record)
    if metric == "top1":
        return kept["prediction"] == kept["label"]
    if metric == "low_top1" and "low_prediction" in kept:
        return kept["low_prediction"] == kept["label"]
    if metric not in kept:
        raise InputError(
            f"record {record['key']} holds no {metric!r} of its test images; run its"
            " row again."
        )
    return -kept["nll"].astype(np.float64) if metric == "nll" else kept[metric]


def holds(record: dict, metric: str) -> bool:
    """Whether a record can tell the metric of each test image: a row that several
    chapters share is measured as the one that ran it asks.
    """
    if metric == "top1":
        return True
    name = "low_prediction" if metric == "low_top1" else metric
    return name in records.load_predictions(record)


def interval(difference: NDArray, unit: float = 1) -> tuple[NDArray, NDArray]:
    """Mean and half-width of the 95 % interval of differences (..., S, N), which lie in
    -unit..unit; the module's docstring has the method.

    S >= 1 seeds and N >= 2 images. With one seed the half-width covers images only.
    """
    seeds, images = difference.shape[-2:]
    effect = difference.mean((-2, -1))
    of_seed = difference.mean(-1) - effect[..., None]  # (..., S)
    of_image = difference.mean(-2) - effect[..., None]  # (..., N)
    rest = difference - effect[..., None, None]  # (..., S, N)
    rest = rest - of_seed[..., None] - of_image[..., None, :]

    # as if two images more had been seen
    ms_image = seeds * ((of_image**2).sum(-1) + 2 * unit**2) / (images - 1)
    if seeds == 1:
        return effect, _t(images - 1) * np.sqrt(ms_image / images)
    ms_seed = images * (of_seed**2).sum(-1) / (seeds - 1)
    ms_rest = (rest**2).sum((-2, -1)) / ((seeds - 1) * (images - 1))

    part_of_seeds = _t(seeds - 1) ** 2 * ms_seed
    part_of_images = _t(images - 1) ** 2 * np.maximum(ms_image - ms_rest, 0)
    return effect, np.sqrt((part_of_seeds + part_of_images) / (seeds * images))


# ---- the verdict


def verdict(claim: Claim, better: Sequence[dict], worse: Sequence[dict]) -> Verdict:
    """Whether a claim holds, from the records of its two rows (one data set, one
    profile other than quick).

    "holds": the whole interval lies above -margin (0, but for claims of "no worse");
    "reversed": below; "inconclusive": -margin is in it, or there is only one seed; "not
    run": a row has no record that holds the metric, the rows share no seed, or there
    are only quick records, which illustrate and never decide (they are left out in any
    case). Records with changed settings are for the caller to leave out
    (:func:`fgbook.evidence.records.own`); mixed with others they are refused. Raises
    InputError if the records cannot be compared (see :func:`compare`).
    """
    first, lacking = _deciding(better, claim.better, claim.metric)
    if not lacking:
        other_metric = claim.worse_metric or claim.metric
        second, lacking = _deciding(worse, claim.worse, other_metric)
    if not lacking and not _seeds(first) & _seeds(second):
        lacking = f"the rows {claim.better!r} and {claim.worse!r} share no seed."
    if lacking:
        return Verdict(claim, "not run", None, lacking)

    effect = compare(first, second, claim.metric, claim.worse_metric)
    border = f"-{claim.margin:g}" if claim.margin else "0"
    if effect.seeds == 1:
        outcome = "inconclusive"
        why = "one seed does not show how much the difference varies between trainings"
    elif effect.low > -claim.margin:
        outcome, why = "holds", f"the whole interval lies above {border}"
    elif effect.high < -claim.margin:
        outcome, why = "reversed", f"the whole interval lies below {border}"
    else:
        outcome, why = "inconclusive", f"the interval contains {border}"
    return Verdict(claim, outcome, effect, f"{_said(effect, claim.metric)}; {why}.")


def _deciding(found: Sequence[dict], row: str, metric: str) -> tuple[list[dict], str]:
    """The records of a row that can decide about a metric; where there is none, a
    sentence that says why.
    """
    results = [r for r in found if r.get("purpose", "result") == "result"]
    if not results:
        return [], f"there is no finished run of the row {row!r}."
    real = [r for r in results if r["profile"] != "quick"]
    if not real:
        only = "only quick runs, which never decide"
        return [], f"there is {only} of the row {row!r}."
    measured = [r for r in real if holds(r, metric)]
    if not measured:
        return [], (
            f"the records of the row {row!r} hold no {metric!r}: another chapter's run,"
            " or not measured there."
        )
    return measured, ""


def _seeds(found: list[dict]) -> set[int]:
    return {record["seed"] for record in found}


def _said(effect: Effect, metric: str) -> str:
    """An effect in words: value, interval, how many seeds and images."""
    unit = UNITS.get(metric, "")
    digits = 1 if unit == "points" else 3
    value = f"{effect.effect:+.{digits}f}" + (f" {unit}" if unit else "")
    low, high = f"{effect.low:+.{digits}f}", f"{effect.high:+.{digits}f}"
    seeds = "one seed" if effect.seeds == 1 else f"{effect.seeds} seeds"
    return (
        f"{value}, 95 % interval {low} to {high} ({seeds}, {effect.images} test images)"
    )


# ---- one row


def summary(values: ArrayLike) -> dict[str, float | int | None]:
    """Mean, standard deviation and 95 % t-interval over seeds: values (n,) of one row
    -> mean, sd, low, high, n, in the values' unit.

    For one value sd, low and high are None. Raises InputError for none at all or one
    that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(
            "a summary needs one or more finite numbers in one dimension, not"
            f" {values.tolist()}."
        )
    n, mean = len(values), float(values.mean())
    if n == 1:
        return {"mean": mean, "sd": None, "low": None, "high": None, "n": 1}
    sd = float(values.std(ddof=1))
    half = float(_t(n - 1)) * sd / n**0.5
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "n": n}


def _t(degrees: int) -> float:
    """Two-sided Student quantile."""
    # takes as long to import as all else that `fgbook results` needs
    from scipy.special import stdtrit

    return stdtrit(degrees, (1 + LEVEL) / 2)


# ---- which records are of one kind

# What all records of one row must share, and what the records of two rows that are
# compared must.
OF_ROW = ("row", "method", "options", "recipe", "weights")
OF_BOTH = ("dataset", "profile", "data_fingerprint")


def _by_seed(found: Sequence[dict]) -> dict[int, dict]:
    """Records of one row by seed; refuses what is not one row."""
    by_seed: dict[int, dict] = {}
    for record in found:
        if record["seed"] in by_seed:
            keys = f"{by_seed[record['seed']]['key']} and {record['key']}"
            raise InputError(
                f"row {record['row']!r} has two records for seed {record['seed']}"
                f" ({keys}); keep one."
            )
        by_seed[record["seed"]] = record
    _same(list(by_seed.values()), OF_ROW + OF_BOTH)
    return by_seed


def _same(found: list[dict], names: tuple[str, ...]) -> None:
    """Raises InputError unless all records have the same in these fields."""
    for name in names:
        values = [_value(record, name) for record in found]
        for record, value in zip(found, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"records {found[0]['key']} and {record['key']} cannot be compared:"
                    f" their {name} differs."
                )


def _value(record: dict, name: str) -> str:
    """A field as text, in which tuples and lists read alike."""
    value = record.get(name)
    if name == "recipe" and value:
        # as keys see it: older records lack the fields that came later
        value = Recipe.of(value).determinants()
    return json.dumps(value, sort_keys=True)


def _paired(
    better: dict[int, dict], worse: dict[int, dict], metric: str, worse_metric: str
) -> tuple[NDArray, NDArray]:
    """The metrics, (S, N) for either row, over the seeds that both have."""
    seeds = sorted(better.keys() & worse.keys())
    if not seeds:
        raise InputError(
            f"the two rows share no seed: {sorted(better)} and {sorted(worse)}."
        )
    first = [better[seed] for seed in seeds]
    second = [worse[seed] for seed in seeds]
    _same(first + second, OF_BOTH)
    labels = _labels(first[0])

    def stacked(chosen: list[dict], of: str) -> NDArray:
        """The metric of all test images, which must be those of `labels`."""
        values = []
        for record in chosen:
            value, label = per_image(record, of), _labels(record)
            if value.shape != label.shape or label.ndim != 1:
                raise InputError(
                    f"the predictions of record {record['key']} do not fit its labels;"
                    " run its row again."
                )
            if not np.array_equal(label, labels):
                raise InputError(
                    f"records {first[0]['key']} and {record['key']} cannot be compared:"
                    " their test images differ."
                )
            values.append(value)
        return np.stack(values)

    return stacked(first, metric), stacked(second, worse_metric)


def _labels(record: dict) -> NDArray:
    return records.load_predictions(record)["label"]
