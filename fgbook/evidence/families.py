"""Several claims judged at once, and one claim on several data sets.

A family is what one paper claims on one data set and profile. Among many claims of
which none is true some would hold by chance; so the verdicts that count are those of
the family:

* where all claims compare one row with others in one metric, and share one estimate of
  the spread between trainings, Dunnett's test (J. Am. Stat. Assoc. 1955),
* else Holm's (Scand. J. Stat. 1979), which needs no assumption on how claims depend on
  each other.

Both make of each claim's own p-value, the smallest alpha at which its interval leaves
out the border, the p-value that it has in the family.

A family is the claims that have a p-value when it is judged; a row that is finished
later can change the adjusted verdicts of others. "No difference", from the 90 %
interval of a claim alone, is not adjusted.

A claim that was measured on several data sets gets one more verdict, from the
fixed-effect mean of the differences: each counts by the inverse of its variance. That
mean answers for all sets only where they share one effect. Where Cochran's Q
(Biometrics 1954) says that they do not, it decides nothing: the claim has the outcome
that it has on each set, if that is the same on all of them (what holds on every set
holds on all: an intersection-union test, which needs no further correction), else it is
inconclusive.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .. import papers
from ..papers.spec import Claim, Paper
from .current import counted
from .intervals import LEVEL, Parts
from .verdicts import Effect, Verdict, decided, in_family, p_text, verdict

# ---- a paper's claims


def judge(paper: Paper, found: Sequence[dict]) -> list[Verdict]:
    """A verdict for each of `paper.claims`, from records of one profile and data set.

    Only records count that are of their row as the paper's file has it now, with the
    seeds fixed beforehand (:mod:`fgbook.evidence.current`), and none with changed
    options of the method; those with changed recipes are for the caller to leave out.
    The claims of the paper are one family, also where `paper.claims` are but some of
    them; other questions that are asked together are another.
    """
    kept = counted(r for r in found if not r.get("option_changes")).records
    original = papers.get(paper.key)
    questions = [claim for claim in paper.claims if claim not in original.claims]
    judged: dict[Claim, Verdict] = {}
    for claims in (original.claims, questions):
        # what is asked decides whether the family is looked at, not what it holds
        if set(claims) & set(paper.claims):
            alone = [_alone(original, claim, kept) for claim in claims]
            judged |= dict(zip(claims, together(alone), strict=True))
    return [judged[claim] for claim in paper.claims]


def _alone(paper: Paper, claim: Claim, found: list[dict]) -> Verdict:
    better = [record for record in found if record["row"] == claim.better]
    worse = [record for record in found if record["row"] == claim.worse]
    fixed: list[int | None] = [None, None]
    if found:
        profile = found[0]["profile"]
        rows = (claim.better, claim.worse)
        fixed = [paper.seeds_of(row, profile) for row in rows]
    return verdict(claim, better, worse, found, (fixed[0], fixed[1]))


# ---- families


def together(alone: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one family, from each alone. Claims that have no p-value (not
    run, one seed) do not belong to it.
    """
    members = [found for found in alone if found.p is not None]
    if len(members) < 2:
        return list(alone)
    values = np.array([found.p for found in members], dtype=float)
    adjusted = _dunnett(members) if _one_baseline(members) else holm(values)
    of_claim = dict(zip((found.claim for found in members), adjusted, strict=True))
    judged = []
    for found in alone:
        p = of_claim.get(found.claim)
        both = found if p is None else in_family(found, float(p), len(members))
        judged.append(both)
    return judged


def holm(values: NDArray) -> NDArray:
    """Holm's p-values (m,) from those of each claim alone."""
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    stepwise = np.maximum.accumulate(factors * values[order])
    adjusted = np.empty_like(stepwise)
    adjusted[order] = np.minimum(stepwise, 1)
    return adjusted


def _one_baseline(members: Sequence[Verdict]) -> bool:
    """Whether all claims compare one row with others, in one metric and with one
    estimate of the spread.
    """
    effects = [found.effect for found in members if found.effect]
    pools = {(e.spread, e.parts.seeds_degrees) for e in effects}
    metrics = {found.claim.metric for found in members}
    metrics |= {found.claim.worse_metric or found.claim.metric for found in members}
    same = len(pools) == len(metrics) == 1 and effects[0].spread == "pooled"
    return same and bool(_baseline(members))


def _baseline(members: Sequence[Verdict]) -> str:
    """The row that all claims name while they name each other row once; "" where there
    is none.
    """
    pairs = [(found.claim.better, found.claim.worse) for found in members]
    shared = set.intersection(*(set(pair) for pair in pairs))
    if len(shared) != 1:
        return ""
    (row,) = shared
    others = [b if a == row else a for a, b in pairs]
    return row if len(set(others)) == len(others) else ""


def _dunnett(members: Sequence[Verdict]) -> NDArray:
    """Dunnett's p-values. What a claim's interval says is a deviation of Student's
    distribution with the pooled degrees that has the same p-value.
    """
    effects = [found.effect for found in members if found.effect]
    degrees = effects[0].parts.seeds_degrees
    values = np.array([found.p for found in members], dtype=float)
    deviations = effects[0].parts.deviation(values)
    baseline = _baseline(members)
    shares = np.array([_share_of_baseline(found, baseline) for found in members])
    return dunnett(deviations, shares, degrees)


def _share_of_baseline(found: Verdict, baseline: str) -> float:
    """The share of a difference's variance between trainings that is the baseline's: a
    half where both rows have as many seeds.
    """
    first, second = found.effect.trainings if found.effect else (1, 1)
    other = second if found.claim.better == baseline else first
    return other / (first + second)


def dunnett(deviations: NDArray, shares: NDArray, degrees: float) -> NDArray:
    """P(max |T_k| >= deviation) for each deviation (m,), where the T are Student's t
    with that many degrees, one a comparison with a shared baseline, correlated as
    sqrt(shares_j * shares_k): differences of which these shares (m,) of the variance
    are the baseline's.

    Given the baseline's part z and the spread s the T are independent; what remains are
    two integrals.
    """
    from scipy.special import chdtri, ndtr

    z, of_z = _grid(-8.0, 8.0, lambda z: -(z**2) / 2)
    ends = [np.sqrt(chdtri(degrees, p) / degrees) for p in (1 - 1e-12, 1e-12)]
    spread, of_spread = _grid(
        ends[0], ends[1], lambda s: (degrees - 1) * np.log(s) - degrees * s**2 / 2
    )
    of_baseline = np.sqrt(shares)[:, None, None]
    of_other = np.sqrt(1 - shares)[:, None, None]
    adjusted = []
    for deviation in deviations:
        limit = deviation * spread[:, None]  # (GRID, 1)
        above = ndtr((limit - of_baseline * z) / of_other)  # (m, GRID, GRID)
        below = ndtr((-limit - of_baseline * z) / of_other)
        inside = (above - below).prod(0)
        adjusted.append(1 - of_spread @ inside @ of_z)
    return np.clip(adjusted, 0, 1)


def critical(shares: Sequence[float], degrees: float, level: float = LEVEL) -> float:
    """The deviation that the largest of several |T_k| of :func:`dunnett` stays below
    with probability `level`.
    """
    # a comparison that is all baseline would leave nothing to integrate over
    sharing = tuple(min(round(float(share), 3), 0.999) for share in shares)
    return _critical(sharing, float(degrees), level)


@lru_cache(maxsize=256)
def _critical(shares: tuple[float, ...], degrees: float, level: float) -> float:
    from scipy.special import stdtrit

    # between that of one comparison and Bonferroni's
    alphas = np.array([1 - level, (1 - level) / len(shares)])
    low, high = -stdtrit(degrees, alphas / 2)
    while high - low > 1e-3:
        middle = (low + high) / 2
        p = dunnett(np.array([middle]), np.array(shares), degrees)[0]
        low, high = (low, middle) if p < 1 - level else (middle, high)
    return float(high)


GRID = 129  # steps of an integral


def _grid(
    low: float, high: float, log_density: Callable[[NDArray], NDArray]
) -> tuple[NDArray, NDArray]:
    """Places (GRID,) from low to high, and weights that sum to 1."""
    places = np.linspace(low, high, GRID)
    logarithms = log_density(places)
    weights = np.exp(logarithms - logarithms.max())
    return places, weights / weights.sum()


# ---- one claim on several data sets


DIFFER = 0.05  # a smaller p-value of Cochran's Q: the sets do not share one effect


def across(judged: Mapping[str, Sequence[Verdict]]) -> list[Verdict]:
    """One verdict for each claim that was decided on two data sets or more, from the
    verdicts on each (data set -> verdicts of one paper and profile). Together these are
    a family.
    """
    by_claim = on_each(judged)
    combined = []
    for claim, singles in by_claim.items():
        effects = [one.effect for one in singles.values() if one.effect]
        combined.append(decided(claim, fixed_effect(effects)))
    # those whose sets differ are judged with the others: what the family is should not
    # depend on what came out
    return [_with_singles(one, by_claim[one.claim]) for one in together(combined)]


def on_each(
    judged: Mapping[str, Sequence[Verdict]],
) -> dict[Claim, dict[str, Verdict]]:
    """Claim -> data set -> verdict, of the sets on which that claim was decided with a
    p-value; of the claims for which these are two or more.
    """
    by_claim: dict[Claim, dict[str, Verdict]] = {}
    for dataset, verdicts in judged.items():
        for found in verdicts:
            if found.p is not None:
                by_claim.setdefault(found.claim, {})[dataset] = found
    return {claim: each for claim, each in by_claim.items() if len(each) > 1}


def _with_singles(mean: Verdict, singles: Mapping[str, Verdict]) -> Verdict:
    """The verdict over several data sets, from that on the mean and those on each."""
    said = ", ".join(f"{dataset}: {one.outcome}" for dataset, one in singles.items())
    q, p = heterogeneity([one.effect for one in singles.values() if one.effect])
    if mean.effect is None or p >= DIFFER:
        return replace(mean, why=f"{mean.why} ({said})")
    sign = "" if p < 0.001 else "= "
    why = f"the data sets differ (Q = {q:.1f}, p {sign}{p_text(p)}; {said})"
    about = replace(mean.effect, spread="differ")
    if len({one.outcome for one in singles.values()}) == 1:
        # as clear as where it is least so
        least = max(singles.values(), key=lambda one: one.p_family or 0.0)
        return replace(least, effect=about, why=why)
    undecided = "inconclusive"
    return Verdict(mean.claim, undecided, about, why, undecided, family=mean.family)


def heterogeneity(effects: Sequence[Effect]) -> tuple[float, float]:
    """Cochran's Q of independent effects, and its p-value, of the chi-square
    distribution with one degree less than there are effects: whether they could all be
    the same but for chance.

    The variances are estimated, from few seeds, so that equal sets are said to differ a
    little more often than one time in twenty; that only makes the verdict more careful.
    """
    from scipy.special import chdtrc

    values = np.array([e.effect for e in effects])
    weights = 1 / np.array([e.parts.seeds + e.parts.images for e in effects])
    q = float((weights * (values - np.average(values, weights=weights)) ** 2).sum())
    return q, float(chdtrc(len(effects) - 1, q))


def fixed_effect(effects: Sequence[Effect]) -> Effect:
    """The mean of independent effects, each weighted by the inverse of its variance."""
    variances = np.array([e.parts.seeds + e.parts.images for e in effects])
    weights = (1 / variances) / (1 / variances).sum()
    mean = float(weights @ np.array([e.effect for e in effects]))
    by_seeds = _sum(weights, [(e.parts.seeds, e.parts.seeds_degrees) for e in effects])
    by_images = _sum(
        weights, [(e.parts.images, e.parts.images_degrees) for e in effects]
    )
    parts = Parts(*by_seeds, *by_images)
    half = float(parts.half())
    return Effect(
        effect=mean,
        low=mean - half,
        high=mean + half,
        trainings=(min(e.seeds for e in effects),),
        images=sum(e.images for e in effects),
        spread="sets",
        rows=len(effects),
        parts=parts,
    )


def _sum(weights: NDArray, terms: list[tuple[float, float]]) -> tuple[float, float]:
    """Variance of a weighted sum and its degrees of freedom (Satterthwaite), from each
    term's.
    """
    variances, degrees = np.array(terms, dtype=float).T
    scaled = weights**2 * variances
    total, spread = scaled.sum(), (scaled**2 / degrees).sum()
    if spread == 0:
        return 0.0, float(degrees.min())
    return float(total), float(total**2 / spread)
