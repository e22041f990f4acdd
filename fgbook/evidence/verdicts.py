"""Rows compared over seeds and test images: effect, 95 % interval, verdict.

How an interval is computed stands in :mod:`fgbook.evidence.intervals`, what changes
where several claims are judged at once in :mod:`fgbook.evidence.families`.
`benchmarks/coverage.py` simulates all of it.

Assumptions
-----------
* Seeds are a random sample of trainings, test images one of images.
* Rows count as trained independently. That both use the same seed numbers is nominal:
  the networks differ, so a pair has hardly more in common than any two runs. For rows
  of stages this is an approximation: those that go on from one first stage share its
  networks, seed by seed. Their difference then varies rather less than is assumed.
* The rows of one paper, data set and profile vary alike between trainings, unless
  tests of equal spreads say no or the paper's file names a row unstable. What was used
  is told.
* Validation and training images are the same in all runs and count as fixed. The
  interval is about this data set, profile and recipe, and says nothing about others.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import papers
from ..errors import InputError, count
from ..evaluation.wilson import wilson
from ..papers.spec import Claim
from ..recipe import Recipe
from . import intervals, records, units
from .current import made_by
from .intervals import LEVEL, Parts, Spread

OUTCOMES = ("holds", "reversed", "no difference", "inconclusive", "not run")
EQUIVALENCE = 0.90
"""Level of the interval that must lie within what is negligible: two tests of 5 %, one
at either end."""

SPREADS = {
    "pooled": "spread pooled over {rows} rows",
    "own": "each row's own spread",
    "partly": "one row's own spread, the other's pooled over {rows} rows",
    "paired": "differences within the same trainings",
    "images": "over test images only",
    "sets": "weighted mean of {rows} data sets",
    "differ": "weighted mean of {rows} data sets that differ",
}
"""Where the spread between trainings comes from, in a word and in words."""


@dataclass(frozen=True)
class Effect:
    """How much larger the metric is in the first row: in percentage points where it is
    right or wrong, else in the metric's own unit.
    """

    effect: float
    low: float  # 95 % interval
    high: float
    trainings: tuple[int, ...]  # seeds of either row; of the same networks once
    images: int  # in the test split
    spread: str  # a key of SPREADS
    rows: int  # that the spread is estimated from
    parts: Parts

    @property
    def seeds(self) -> int:
        """Of the row that has fewer."""
        return min(self.trainings)

    @property
    def seeds_text(self) -> str:
        """Of both rows, where they differ: "5 and 3"."""
        return " and ".join(str(number) for number in dict.fromkeys(self.trainings))

    @property
    def spread_text(self) -> str:
        """Where the spread between trainings comes from, in words."""
        return SPREADS[self.spread].format(rows=self.rows)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval of another level."""
        half = float(self.parts.half(level))
        return self.effect - half, self.effect + half


@dataclass(frozen=True)
class Verdict:
    """What records say of a claim. Where several claims were judged at once, `outcome`
    is the one that counts, and `alone` what it would be had this been the only one.
    """

    claim: Claim
    outcome: str  # one of OUTCOMES
    effect: Effect | None  # None when "not run", unless some seeds are there
    why: str  # without the numbers
    alone: str
    p: float | None = None  # of the interval against its border
    p_family: float | None = None  # the same among all claims that were judged at once
    family: int = 1  # how many these are

    @property
    def printed_size(self) -> str:
        """Whether the interval excludes the printed effect: "excluded", "compatible",
        or "not printed"; empty where the interval cannot tell: without an effect, from
        one seed, and where it is of a mean of data sets that differ.
        """
        printed = self.claim.printed_effect
        if self.effect is None or self.outcome == "not run":
            return ""
        if self.effect.spread in ("images", "differ"):
            return ""
        if printed is None:
            return "not printed"
        inside = self.effect.low <= printed <= self.effect.high
        return "compatible" if inside else "excluded"

    @property
    def size_text(self) -> str:
        """The same in words: "positive, but smaller"."""
        size, about = self.printed_size, self.effect
        if about is None or size != "excluded":
            return size
        if about.low > (self.claim.printed_effect or 0.0):
            return "larger"
        return "positive, but smaller" if about.low > 0 else "smaller"

    @property
    def sentence(self) -> str:
        """All of it in one sentence, with the numbers."""
        if self.effect is None or self.outcome == "not run":
            return self.why
        said = f"{effect_text(self.effect, self.claim.metric)}; {self.why}"
        if self.claim.printed_effect is None:
            return f"{said}."
        printed = units.amount(self.claim.printed_effect, self.claim.metric)
        if not self.size_text:
            return f"{said}; printed: {printed}."
        relation = "with" if self.printed_size == "compatible" else "than"
        return f"{said}; {self.size_text} {relation} the printed {printed}."


# ---- two rows compared


def compare(
    better: Sequence[dict],
    worse: Sequence[dict],
    metric: str = "top1",
    worse_metric: str | None = None,
    among: Iterable[dict] = (),
) -> Effect:
    """The difference in a metric, better minus worse, with a 95 % interval over seeds
    and test images, from the records of two rows, one record a seed.

    `among`: records of all rows of the paper, which tell the spread between trainings;
    those of other papers, profiles, data sets and changes are ignored, and so are those
    without the metric. Without any the two rows tell it together. A row that is
    compared with itself, by two metrics, is the same networks twice: then differences
    within them count.

    The metrics are those of :class:`fgbook.papers.spec.Claim`; images for which one of
    the two is not known (NaN) are left out. With one seed in a row the interval covers
    images only. Raises InputError if the two cannot be compared: different data, test
    images or profiles, none or two records for one seed, fewer than 2 images, a metric
    that a record does not hold, or of which its mean is not finite.
    """
    first, second = _by_seed(better), _by_seed(worse)
    if not first or not second:
        raise InputError("two rows are compared; one of them has no record.")
    _same([*first, *second], OF_BOTH)
    labels = _labels(first[0])
    other_metric = worse_metric or metric
    of_first = _stacked(first, metric, labels)
    of_second = _stacked(second, other_metric, labels)
    if [r["key"] for r in first] == [r["key"] for r in second]:
        return difference(of_first, of_second, paired=True)

    def spreads() -> list[Spread]:
        # without both rows themselves the others' spread would not be theirs
        everything = [*among, *first, *second]
        if other_metric == metric:
            return spreads_of([first, second], metric, everything)
        one = spreads_of([first], metric, everything)
        return one + spreads_of([second], other_metric, everything)

    return difference(of_first, of_second, spreads)


def difference(
    first: NDArray,
    second: NDArray,
    spreads: Callable[[], list[Spread]] | None = None,
    paired: bool = False,
) -> Effect:
    """The same from arrays (S, N) of two rows, the numbers of seeds may differ: bool,
    true where the image is classified correctly, or float. `spreads` finds how much
    either row varies between trainings (None: from its own seeds); `paired`: both are
    measures of the same networks, seed by seed. Raises InputError for other shapes, for
    fewer than 2 images, and for bool with float: there is no unit that both have.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            "two arrays (seeds, images) over the same images are compared, not"
            f" {first.shape} and {second.shape}."
        )
    right_or_wrong = first.dtype == bool
    if right_or_wrong != (second.dtype == bool):
        raise InputError(
            "a metric that says right or wrong of an image cannot be compared with one"
            " that is a number."
        )
    scale = 100 if right_or_wrong else 1  # percentage points
    rows = [scale * row.astype(np.float64) for row in (first, second)]
    known = np.isfinite(rows[0]).all(0) & np.isfinite(rows[1]).all(0)
    rows = [row[:, known] for row in rows]
    if known.sum() < 2:
        raise InputError(
            f"a comparison needs at least 2 test images, not {known.sum()}."
        )

    if paired:
        within = rows[0] - rows[1]
        unit = 100.0 if right_or_wrong else float(abs(within).max())
        return _effect([within], None, unit, "paired")
    unit = 100.0 if right_or_wrong else _largest(*rows)
    if min(len(row) for row in rows) == 1:
        return _effect(rows, None, unit, "images")
    found = spreads() if spreads else [intervals.own(row.mean(1)) for row in rows]
    return _effect(rows, found, unit, _source(found))


def _source(spreads: list[Spread]) -> str:
    """The word for where spreads come from."""
    pooled = [spread.rows > 1 for spread in spreads]
    if all(pooled):
        return "pooled"
    return "partly" if any(pooled) else "own"


def _largest(first: NDArray, second: NDArray) -> float:
    """The largest difference of two runs on one image."""
    above = (first.max(0) - second.min(0)).max()
    below = (second.max(0) - first.min(0)).max()
    return float(max(above, below))


def _effect(
    rows: list[NDArray], spreads: list[Spread] | None, unit: float, kind: str
) -> Effect:
    """From one row (S, N), or two of which the second is subtracted."""
    if kind == "paired":
        if len(rows[0]) == 1:
            kind = "images"
        else:
            spreads = [intervals.own(rows[0].mean(1))]
    found = intervals.parts(rows, spreads, unit)
    parts = Parts(
        float(found.seeds),
        float(found.seeds_degrees),
        float(found.images),
        float(found.images_degrees),
    )
    mean = float(rows[0].mean() - (rows[1].mean() if len(rows) == 2 else 0.0))
    half = float(parts.half())
    return Effect(
        effect=mean,
        low=mean - half,
        high=mean + half,
        trainings=tuple(len(row) for row in rows),
        images=rows[0].shape[1],
        spread=kind,
        rows=max(spread.rows for spread in spreads) if spreads else 0,
        parts=parts,
    )


# ---- one row


def accuracy(
    found: Sequence[dict], metric: str = "top1", among: Iterable[dict] = ()
) -> tuple[float, float, float]:
    """Mean accuracy of the records of one row (one a seed) in percent, and its 95 %
    interval over seeds and test images; `metric` "top1", or "low_top1" at low
    resolution, `among` as for :func:`compare`.

    With one seed it is Wilson's interval, which covers test images only. Raises
    InputError where there is no record, or two for one seed.
    """
    return accuracies([found], metric, [*among, *found])[0]


def accuracies(
    rows: Iterable[Sequence[dict]], metric: str, among: Iterable[dict]
) -> list[tuple[float, float, float]]:
    """:func:`accuracy` of many rows, all of them in `among`: what the rows of a kind
    share is worked out once.
    """
    ordered = [_by_seed(found) for found in rows]
    if not all(ordered):
        raise InputError("a mean accuracy needs a record; there is none.")
    # one seed alone has no spread, and needs none
    spreads = iter(spreads_of([row for row in ordered if len(row) > 1], metric, among))
    return [
        share(
            _stacked(row, metric, _labels(row[0])),
            next(spreads) if len(row) > 1 else None,
        )
        for row in ordered
    ]


def share(right: NDArray, spread: Spread | None = None) -> tuple[float, float, float]:
    """:func:`accuracy` from answers (S, N) bool of S seeds on N images; `spread` is how
    much the row varies between trainings (None: from its own seeds).
    """
    if len(right) == 1:
        low, high = wilson(int(right.sum()), right.size)
        return 100 * float(right.mean()), 100 * low, 100 * high
    rows = 100 * right.astype(np.float64)
    found = spread or intervals.own(rows.mean(1))
    about = _effect([rows], [found], 100.0, _source([found]))
    return about.effect, max(0.0, about.low), min(100.0, about.high)


# ---- how much a row varies between trainings


def spreads_of(
    rows: Sequence[Sequence[dict]], metric: str, among: Iterable[dict]
) -> list[Spread]:
    """The spread of each of `rows` between trainings, from all rows in `among` that are
    of its kind (:data:`OF_PLACE`), have the metric and 2 seeds or more; a row that its
    paper's file names unstable stands for itself, as does one that
    :func:`fgbook.evidence.intervals.spreads` sets apart.
    """
    everything = list(among)
    by_key = {record["key"]: record for record in everything}
    of_kind: dict[str, dict[str, Spread]] = {}
    found = []
    for row in rows:
        kind = _kind(row[0])
        if kind not in of_kind:
            alike = [record for record in everything if _kind(record) == kind]
            of_kind[kind] = _spreads(alike, metric, by_key)
        own = intervals.own(np.array([_mean(record, metric) for record in row]))
        found.append(of_kind[kind].get(made_by(row[0], by_key), own))
    return found


def _spreads(
    alike: list[dict], metric: str, by_key: dict[str, dict]
) -> dict[str, Spread]:
    """What made a row (:func:`fgbook.evidence.current.made_by`) -> its spread, of the
    stable rows with 2 seeds or more. Changed rows can be there in several versions.
    """
    means: dict[str, dict[int, float]] = {}
    for record in alike:
        if not _is_unstable(record) and holds(record, metric):
            mean = _mean(record, metric)
            if np.isfinite(mean):
                of_row = means.setdefault(made_by(record, by_key), {})
                of_row[record["seed"]] = mean
    rows = {made: list(m.values()) for made, m in means.items() if len(m) > 1}
    spreads = intervals.spreads([np.array(values) for values in rows.values()])
    return dict(zip(rows, spreads, strict=True))


def _mean(record: dict, metric: str) -> float:
    """In the unit of effects, see :func:`_known_mean`."""
    values = per_image(record, metric)
    return (100 if values.dtype == bool else 1) * _known_mean(values)


def _known_mean(values: NDArray) -> float:
    """Over the images (N,) for which a metric is known; not finite where one is
    infinite or none is known.
    """
    known = values[~np.isnan(values)].astype(np.float64)
    return float(known.mean()) if known.size else float("nan")


# What rows must share, beside the changes that a person made, to share a spread.
OF_PLACE = ("paper", "profile", "dataset", "data_fingerprint", "purpose")


def _kind(record: dict) -> str:
    """What a record has in common with those that tell the spread of its row."""
    place = [record.get(name) for name in OF_PLACE]
    return json.dumps([place, records.changes(record)], sort_keys=True)


def _is_unstable(record: dict) -> bool:
    """Whether its paper's file names its row unstable."""
    if record.get("paper") not in papers.names():
        return False
    rows = papers.get(record["paper"]).rows
    return any(row.name == record["row"] and row.unstable for row in rows)


# ---- the metrics of one record


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


# ---- the verdict


def verdict(
    claim: Claim,
    better: Sequence[dict],
    worse: Sequence[dict],
    among: Iterable[dict] = (),
    fixed: tuple[int | None, int | None] = (None, None),
) -> Verdict:
    """Whether a claim holds, from the records of its two rows (one data set, one
    profile other than quick), judged alone.

    "holds": the whole interval lies above -margin (0, but for claims of "no worse");
    "reversed": below; "no difference": neither, and the 90 % interval lies within what
    the claim calls negligible; "inconclusive": else, or a row has only one seed; "not
    run": a row has no record that holds the metric, or not all of the seeds `fixed`
    beforehand for the first and the second row (None: any number), or there are only
    quick records, which illustrate and never decide (they are left out in any case).

    `among` as for :func:`compare`. Records with changed settings or of earlier recipes
    are for the caller to leave out (:func:`fgbook.evidence.families.judge` does); mixed
    with others they are refused. Raises InputError if the records cannot be compared
    (see :func:`compare`).
    """
    other_metric = claim.worse_metric or claim.metric
    first, lacking = _deciding(better, claim.better, claim.metric)
    second, also_lacking = _deciding(worse, claim.worse, other_metric)
    if lacking or also_lacking:
        return Verdict(claim, "not run", None, lacking or also_lacking, "not run")

    effect = compare(first, second, claim.metric, claim.worse_metric, among)
    missing = _missing(claim.better, first, fixed[0])
    missing = missing or _missing(claim.worse, second, fixed[1])
    if missing:
        so_far = f"{missing}; so far {units.amount(effect.effect, claim.metric)}."
        return Verdict(claim, "not run", effect, so_far, "not run")
    if effect.seeds == 1:
        why = "one seed does not show how much the difference varies between trainings"
        return Verdict(claim, "inconclusive", effect, why, "inconclusive")
    return decided(claim, effect)


def decided(claim: Claim, effect: Effect) -> Verdict:
    """The verdict on a claim whose seeds are all there, judged alone."""
    p = float(effect.parts.p_value(abs(effect.effect + claim.margin)))
    outcome, why = _outcome(claim, effect)
    return Verdict(claim, outcome, effect, why, outcome, p, p)


def in_family(alone: Verdict, p_family: float, family: int) -> Verdict:
    """The same verdict among `family` claims that are judged at once, with the p-value
    that it has there.
    """
    effect = alone.effect
    if effect is None or alone.p is None or family == 1:
        return alone
    found = replace(alone, p_family=p_family, family=family)
    is_clear = p_family < 1 - LEVEL
    if alone.outcome not in ("holds", "reversed") or is_clear:
        return found
    # also where it is negligible: an interval that leaves out zero shows a difference
    word = "hold" if alone.outcome == "holds" else "be reversed"
    why = (
        f"alone it would {word}, but not among {family} claims judged at once (p ="
        f" {p_text(alone.p)} alone, {p_text(p_family)} among them)"
    )
    return replace(found, outcome="inconclusive", why=why)


def _outcome(claim: Claim, effect: Effect) -> tuple[str, str]:
    """Outcome and reason, alone."""
    border = f"-{claim.margin:g}" if claim.margin else "0"
    if not effect.low <= -claim.margin <= effect.high:
        if effect.effect > -claim.margin:
            return "holds", f"the whole interval lies above {border}"
        return "reversed", f"the whole interval lies below {border}"
    limit = claim.negligible
    if not claim.margin and limit is not None:
        low, high = effect.interval(EQUIVALENCE)
        if -limit < low and high < limit:
            within = units.within(claim)
            return "no difference", f"the 90 % interval lies {within}"
    return "inconclusive", f"the interval contains {border}"


def _missing(row: str, found: list[dict], fixed: int | None) -> str:
    """What lacks of the seeds fixed beforehand, in words; empty where nothing does."""
    if fixed is None or len(found) >= fixed:
        return ""
    verb = "is" if len(found) == 1 else "are"
    return (
        f"{len(found)} of the {fixed} seeds fixed beforehand {verb} there of the row"
        f" {row!r}"
    )


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


# ---- in words


def effect_text(effect: Effect, metric: str) -> str:
    """An effect in words: value, unit, interval, how many seeds and images, and where
    the spread between trainings comes from.
    """
    value = f"{units.number(effect.effect, metric)} {units.after(metric)}".rstrip()
    interval = units.interval(effect.low, effect.high, metric)
    seeds = "one seed" if effect.seeds_text == "1" else f"{effect.seeds_text} seeds"
    images = count(effect.images, "test image")
    return (
        f"{value}, 95 % interval {interval} ({seeds}, {images}; {effect.spread_text})"
    )


def p_text(p: float) -> str:
    """A p-value: two digits, or that it is tiny."""
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


# ---- which records are of one kind

# What all records of one row must share, and what the records of two rows that are
# compared must.
OF_ROW = ("row", "method", "options", "recipe", "weights")
OF_BOTH = ("dataset", "profile", "data_fingerprint")


def _by_seed(found: Sequence[dict]) -> list[dict]:
    """Records of one row in the order of their seeds; refuses what is not one row."""
    by_seed: dict[int, dict] = {}
    for record in found:
        if record["seed"] in by_seed:
            keys = f"{by_seed[record['seed']]['key']} and {record['key']}"
            raise InputError(
                f"row {record['row']!r} has two records for seed {record['seed']}"
                f" ({keys}); keep one."
            )
        by_seed[record["seed"]] = record
    ordered = [by_seed[seed] for seed in sorted(by_seed)]
    _same(ordered, OF_ROW + OF_BOTH)
    return ordered


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


def _stacked(found: list[dict], metric: str, labels: NDArray) -> NDArray:
    """The metric of all test images (S, N), which must be those of `labels`."""
    values = []
    for record in found:
        value, label = per_image(record, metric), _labels(record)
        if value.shape != label.shape or label.ndim != 1:
            raise InputError(
                f"the predictions of record {record['key']} do not fit its labels; run"
                " its row again."
            )
        if not np.array_equal(label, labels):
            raise InputError(
                f"record {record['key']} and another one cannot be compared: their"
                " test images differ."
            )
        # images that are not known are left out later, which would hide such a failure
        if not np.isfinite(_known_mean(value)):
            raise InputError(
                f"record {record['key']} has no finite mean of {metric!r} over its test"
                " images; delete it, or run its row again."
            )
        values.append(value)
    return np.stack(values)


def _labels(record: dict) -> NDArray:
    return records.load_predictions(record)["label"]
