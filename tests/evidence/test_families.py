"""Several claims at once against scipy and slow references; a paper's claims judged
together; one claim on several data sets."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fgbook import papers
from fgbook.evidence import families, intervals, records, verdicts
from fgbook.evidence.judged import judged as judged_by
from fgbook.papers.spec import Claim, Seeds

# ---- families


def slow_holm(values: list[float]) -> list[float]:
    """Reject the smallest p-values one after the other, at alpha over those that are
    left: the smallest alpha at which a claim is rejected, by trying many."""
    ordered = sorted(values)
    found = []
    for value in values:
        for alpha in np.linspace(0, 1, 10001):
            rejected = 0
            while (
                rejected < len(values)
                and ordered[rejected] * (len(values) - rejected) <= alpha
            ):
                rejected += 1
            if value in ordered[:rejected]:
                break
        found.append(alpha)
    return found


@pytest.mark.parametrize(
    "values", [[0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.6, 0.7], [0.012, 0.013, 0.9]]
)
def test_holm_is_step_by_step(values):
    found = families.holm(np.array(values))
    assert found == pytest.approx(slow_holm(values), abs=1.1e-4)


@pytest.mark.parametrize(("rows", "degrees"), [(1, 4), (4, 10), (14, 30)])
def test_dunnett_is_a_multivariate_t(rows, degrees):
    correlation = np.full((rows, rows), 0.5)
    np.fill_diagonal(correlation, 1)
    law = stats.multivariate_t(np.zeros(rows), correlation, df=degrees, seed=0)
    deviations = np.array([0.5, 2.0, 3.5])
    found = families.dunnett(deviations, np.full(rows, 0.5), degrees)
    # of a probability near 0 or 1 the sampled reference is right to about 1e-3
    for deviation, p in zip(deviations, found, strict=True):
        corner = np.full(rows, deviation)
        expected = 1 - law.cdf(corner, lower_limit=-corner, maxpts=20_000)
        assert p == pytest.approx(float(expected), abs=2e-3)


def test_dunnett_of_one_claim_is_student():
    for deviation in (0.1, 2.0, 6.0):
        found = families.dunnett(np.array([deviation]), np.array([0.5]), 8)
        assert found[0] == pytest.approx(2 * stats.t.sf(deviation, 8), rel=1e-4)


def test_unequal_numbers_of_seeds_make_other_correlations():
    shares = np.array([5 / 8, 3 / 10, 2 / 7])
    correlation = np.sqrt(np.outer(shares, shares))
    np.fill_diagonal(correlation, 1)
    corner = np.full(3, 2.2)
    law = stats.multivariate_t(np.zeros(3), correlation, df=9, seed=0)
    expected = 1 - law.cdf(corner, lower_limit=-corner, maxpts=60_000)
    found = families.dunnett(np.array([2.2]), shares, 9)
    assert found[0] == pytest.approx(float(expected), abs=1e-3)


def verdict_of(name: str, difference: float, degrees: int, square: float):
    """A claim on `name` against plain whose images tell nothing: five seeds a row."""
    parts = intervals.Parts(square * 2 / 5, degrees, 0.0, 1000)
    half = float(parts.half())
    about = verdicts.Effect(
        difference,
        difference - half,
        difference + half,
        (5, 5),
        1001,
        "pooled",
        5,
        parts,
    )
    return verdicts.decided(Claim(name, "", name, "plain"), about)


def test_claims_with_one_baseline_are_scipys_dunnett():
    """Where test images are certain, a row's seeds are a group of plain numbers."""
    random = np.random.default_rng(0)
    plain = random.normal(0, 1, 5)
    groups = {f"r{k}": random.normal(0.6 * k, 1, 5) for k in range(4)}
    expected = stats.dunnett(*groups.values(), control=plain, random_state=0)
    spread = intervals.spreads([plain, *groups.values()])[0]
    assert spread.rows == 5
    alone = [
        verdict_of(name, group.mean() - plain.mean(), spread.degrees, spread.square)
        for name, group in groups.items()
    ]
    judged = families.together(alone)
    found = [verdict.p_family for verdict in judged]
    assert found == pytest.approx(list(expected.pvalue), abs=1e-3)
    assert all(verdict.family == 4 for verdict in judged)


def test_claims_without_a_common_row_are_holms():
    alone = [
        verdict_of("a", 1.6, 16, 1.0),
        verdict_of("b", 2.4, 16, 1.0),
        verdict_of("c", 0.1, 16, 1.0),
    ]
    other = replace(alone[0].claim, worse="another")
    alone[0] = replace(alone[0], claim=other)
    found = [verdict.p_family for verdict in families.together(alone)]
    ps = [verdict.p for verdict in alone]
    assert found == pytest.approx([2 * ps[0], 3 * ps[1], ps[2]])


def test_a_verdict_that_the_family_takes_back_says_so():
    alone = [verdict_of("a", 1.5, 16, 1.0)]
    assert alone[0].outcome == "holds"
    alone += [verdict_of(name, 0.1, 16, 1.0) for name in "bcdefgh"]
    first, *others = families.together(alone)
    assert (first.outcome, first.alone) == ("inconclusive", "holds")
    assert "alone it would hold, but not among 8 claims judged at once" in first.why
    assert all(one.why == two.why for one, two in zip(others, alone[1:], strict=True))


def test_claims_without_a_p_value_are_no_part_of_the_family():
    claim = Claim("n", "", "n", "plain")
    lacking = verdicts.Verdict(claim, "not run", None, "there is none.", "not run")
    alone = [verdict_of("a", 1.5, 16, 1.0), lacking]
    assert families.together(alone) == alone


# ---- a paper's claims

FENG = papers.get("feng")
LABELS = np.arange(200, dtype=np.uint16) % 4


@pytest.fixture
def make(tmp_path):
    """make(row, seed, wrong, **fields): a record of a row of feng at the photo profile
    that errs on so many images."""

    def one(row: str, seed: int, wrong: int, **fields) -> dict:
        line = FENG.row(row)
        prediction = LABELS.copy()
        prediction[:wrong] += 1
        key = records.key({"row": row, "seed": seed, "wrong": wrong, **fields})
        record = {
            "key": key,
            "purpose": "result",
            "paper": "feng",
            "row": row,
            "seed": seed,
            "profile": "photo",
            "dataset": "cub50",
            "data_fingerprint": "f",
            "method": line.method,
            "options": line.options,
            "recipe": line.recipes["photo"].as_dict(),
            "weights": "w",
            "created": "2026-01-01T00:00:00Z",
            "overrides": {},
            "option_changes": {},
            "metrics": {"test": {}},
        }
        kept = {
            "prediction": prediction,
            "confidence": np.ones(200, np.float16),
            "label": LABELS,
        }
        return records.save(record | fields, kept, tmp_path / f"{key}.json")

    return one


@pytest.fixture
def five(monkeypatch):
    """Five seeds fixed for rows of claims, three for others."""
    monkeypatch.setitem(FENG.__dict__, "seeds", {"photo": Seeds(5, 3)})


@pytest.fixture
def found(make, five):
    rows = {"plain": 60, "image": 40, "single": 40, "hybrid": 20}
    everything = []
    for row, wrong in rows.items():
        everything += [make(row, seed, wrong + seed % 2) for seed in range(5)]
    return everything


def outcomes(judged) -> dict[str, str]:
    return {verdict.claim.key: verdict.outcome for verdict in judged}


def test_all_claims_of_a_paper_are_judged(found):
    judged = families.judge(FENG, found)
    assert outcomes(judged) == {
        "B1": "holds",
        "B2": "holds",
        "B3": "holds",
        "B4": "not run",
        "B5": "holds",
    }
    assert {v.family for v in judged if v.p is not None} == {4}
    assert {v.effect.rows for v in judged if v.effect} == {4}


def test_some_of_the_claims_have_the_verdicts_of_all(found):
    all_of_them = {v.claim: v for v in families.judge(FENG, found)}
    question = Claim("Q", "our own", "hybrid", "plain")
    some = replace(FENG, claims=(FENG.claims[2], question))
    first, second = families.judge(some, found)
    assert first == all_of_them[FENG.claims[2]]
    assert second.claim == question
    assert second.family == 1


def test_exactly_the_seeds_fixed_beforehand_count(found, make):
    further = [make("hybrid", seed, 199) for seed in (5, 6)]
    assert families.judge(FENG, found + further) == families.judge(FENG, found)
    fewer = [r for r in found if r["row"] != "hybrid" or r["seed"] in (0, 3)]
    verdict = families.judge(FENG, fewer)[1]
    assert verdict.outcome == "not run"
    assert verdict.why.startswith("2 of the 5 seeds fixed beforehand are there")


def test_records_of_an_earlier_recipe_are_never_compared(found, make):
    now = FENG.row("hybrid").recipes["photo"]
    before = now.but(epochs=now.epochs + 1).as_dict()
    old = [make("hybrid", seed, 150, recipe=before) for seed in range(5)]
    assert families.judge(FENG, found + old) == families.judge(FENG, found)
    mixed = [r for r in found if r["row"] != "hybrid"] + old
    verdict = families.judge(FENG, mixed)[4]
    assert verdict.outcome == "not run"
    assert verdict.effect is None


def test_a_row_on_other_pictures_loses_no_verdict(found, make):
    """A person's own copy of the data: one row, all of its seeds."""
    mine = {"data_fingerprint": "mine", "created": "2026-03-01T00:00:00Z"}
    own = [make("hybrid", seed, 150, **mine) for seed in range(5)]
    assert families.judge(FENG, found + own) == families.judge(FENG, found)


def test_judging_loads_no_torch():
    code = (
        "import sys; from fgbook import papers; from fgbook.evidence import families;"
        " from fgbook.evidence.current import loop_version, method_version;"
        " families.judge(papers.get('feng'), []); method_version('focus');"
        " loop_version();"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- several data sets


def test_the_mean_of_several_sets_weighs_by_precision():
    effects = []
    for value, square, images in ((2.0, 0.5, 0.3), (1.0, 2.0, 0.4), (-1.0, 1.0, 9.0)):
        parts = intervals.Parts(square, 8, images, 500)
        ends = (value - 1, value + 1)
        effects.append(verdicts.Effect(value, *ends, (3, 3), 501, "pooled", 5, parts))
    variances = [0.8, 2.4, 10.0]
    total = sum(1 / v for v in variances)
    mean = sum(e.effect / v for e, v in zip(effects, variances, strict=True)) / total
    found = families.fixed_effect(effects)
    assert found.effect == pytest.approx(mean)
    # the variance of a mean that is weighted by precision
    assert found.parts.seeds + found.parts.images == pytest.approx(1 / total)
    assert found.low == pytest.approx(mean - found.parts.half())
    assert found.images == 1503
    assert "weighted mean of 3 data sets" in found.spread_text


def test_equal_sets_halve_the_variance_and_double_the_degrees():
    parts = intervals.Parts(0.5, 8, 0.3, 500)
    one = verdicts.Effect(1.0, 0.0, 2.0, (3, 3), 501, "pooled", 5, parts)
    both = families.fixed_effect([one, one]).parts
    assert vars(both) == pytest.approx(vars(intervals.Parts(0.25, 16, 0.15, 1000)))


def test_only_claims_that_were_decided_on_several_sets_are_combined(found, make):
    there = [
        make(row, seed, wrong, dataset="cars98")
        for row, wrong in (("plain", 50), ("image", 45))
        for seed in range(5)
    ]
    here = families.judge(FENG, found)
    judged = {"cub50": here, "cars98": families.judge(FENG, there)}
    (combined,) = families.across(judged)
    assert combined.claim.key == "B1"
    single = [v[0].effect for v in judged.values()]
    assert min(e.effect for e in single) < combined.effect.effect
    assert combined.effect.effect < max(e.effect for e in single)
    assert "cub50: holds" in combined.why
    assert "cars98:" in combined.why


def on_sets(**effects: tuple[float, float]) -> dict[str, list[verdicts.Verdict]]:
    """Data set -> the verdict on one claim there, from effect and standard error."""
    judged = {}
    for dataset, (effect, error) in effects.items():
        square = 5 / 2 * error**2
        found = [verdict_of("image", effect, 30, square)]
        judged[dataset] = families.together(found)
    return judged


def test_sets_that_contradict_each_other_decide_nothing():
    judged = on_sets(cub50=(-4.0, 1.0), cars98=(5.0, 1.5))
    assert [v[0].outcome for v in judged.values()] == ["reversed", "holds"]
    (combined,) = families.across(judged)
    # by hand: (-4 - 5)^2 / (1^2 + 1.5^2)
    assert "the data sets differ (Q = 24.9, p < 0.001; " in combined.why
    assert "cub50: reversed, cars98: holds)" in combined.why
    assert combined.outcome == combined.alone == "inconclusive"
    assert combined.p is combined.p_family is None
    # shown, but not for what all sets share
    single = [v[0].effect for v in judged.values()]
    assert combined.effect.effect == families.fixed_effect(single).effect
    assert "weighted mean of 2 data sets that differ" in combined.sentence


def test_where_sets_differ_a_mean_beyond_zero_decides_nothing():
    judged = on_sets(cub50=(4.0, 0.5), cars98=(0.5, 1.2))
    (combined,) = families.across(judged)
    assert combined.effect.low > 0
    assert "cub50: holds, cars98: inconclusive" in combined.why
    assert combined.outcome == "inconclusive"


def test_where_sets_differ_a_claim_that_holds_on_each_holds():
    judged = on_sets(cub50=(40.0, 1.0), cars98=(60.0, 2.0))
    (combined,) = families.across(judged)
    assert "the data sets differ (Q = 80.0, p < 0.001; " in combined.why
    assert combined.outcome == combined.alone == "holds"
    # of an intersection-union test the largest
    assert combined.p == max(v[0].p for v in judged.values())


def test_sets_that_agree_are_judged_by_their_mean():
    judged = on_sets(cub50=(2.0, 1.1), cars98=(2.2, 1.1))
    assert {v[0].outcome for v in judged.values()} == {"inconclusive"}
    (combined,) = families.across(judged)
    assert combined.outcome == "holds"
    assert combined.why == (
        "the whole interval lies above 0 (cub50: inconclusive, cars98: inconclusive)"
    )


def test_q_is_a_weighted_sum_of_squares():
    """Against the same by loops, and scipy's chi-square."""
    judged = on_sets(a=(1.0, 0.7), b=(2.5, 1.0), c=(-0.5, 0.4))
    effects = [v[0].effect for v in judged.values()]
    mean = families.fixed_effect(effects).effect
    q = 0.0
    for effect, error in ((1.0, 0.7), (2.5, 1.0), (-0.5, 0.4)):
        q += ((effect - mean) / error) ** 2
    assert families.heterogeneity(effects) == pytest.approx((q, stats.chi2.sf(q, 2)))


def test_what_printed_size_means_is_not_said_of_a_mean_of_sets_that_differ():
    judged = on_sets(cub50=(40.0, 1.0), cars98=(60.0, 2.0))
    printed = {
        name: [replace(v, claim=replace(v.claim, printed_effect=30.0)) for v in found]
        for name, found in judged.items()
    }
    (combined,) = families.across(printed)
    assert combined.printed_size == combined.size_text == ""
    assert combined.sentence.endswith("; printed: +30.0 points.")


def test_a_combined_verdict_names_the_sets_that_it_uses(found, make):
    """Of three sets the last has not all rows of the claim."""
    everything = list(found)
    for dataset, rows in (("cars98", ("plain", "image")), ("dogs10", ("plain",))):
        for row in rows:
            for seed in range(5):
                everything.append(make(row, seed, 45 + seed % 2, dataset=dataset))
    said = [s for s in judged_by([FENG], everything) if len(s.datasets or ()) > 1]
    assert [(s.verdict.claim.key, s.datasets) for s in said] == [
        ("B1", ("cars98", "cub50"))
    ]
