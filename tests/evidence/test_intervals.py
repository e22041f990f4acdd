"""Intervals against slow loops and scipy; where the spread between trainings comes
from; and, simulated, how often all of it is wrong."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy import stats

from fgbook import paths
from fgbook.evidence import intervals
from fgbook.evidence.intervals import Parts, Spread

# ---- both parts


def tables(*seeds: int, images: int = 40, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=images)
    latent = [0.5 * random.normal(size=(n, images)) + difficulty for n in seeds]
    return [100.0 * (one > 0.3 * k) for k, one in enumerate(latent)]


def slow_rest(x: np.ndarray) -> float:
    seeds, images = x.shape
    if seeds == 1:
        return 0.0
    mean = sum(map(sum, x)) / (seeds * images)
    of_seed = [sum(row) / images for row in x]
    of_image = [sum(column) / seeds for column in x.T]
    squares = 0.0
    for s in range(seeds):
        for i in range(images):
            squares += (x[s, i] - of_seed[s] - of_image[i] + mean) ** 2
    return squares / ((seeds - 1) * (images - 1))


def slow_variance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The seeds' part, each row with its own spread, and the images' part."""
    by_seeds = by_rest = 0.0
    for x in (a, b):
        if len(x) > 1:
            by_seeds += stats.tvar([np.mean(row) for row in x]) / len(x)
        by_rest += slow_rest(x) / len(x)
    d = [np.mean(a[:, i]) - np.mean(b[:, i]) for i in range(a.shape[1])]
    mean = sum(d) / len(d)
    square = (sum((x - mean) ** 2 for x in d) + 2 * 100**2) / (len(d) - 1)
    return by_seeds, max(square - by_rest, 0) / len(d)


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_the_two_parts_are_those_of_slow_loops(seeds):
    a, b = tables(*seeds)
    spreads = [intervals.own(x.mean(1)) for x in (a, b)] if min(seeds) > 1 else None
    parts = intervals.parts([a, b], spreads, 100.0)
    by_seeds, by_images = slow_variance(a, b)
    assert float(parts.images) == pytest.approx(by_images)
    assert float(parts.seeds) == pytest.approx(by_seeds if spreads else 0.0)
    assert parts.images_degrees == 39


def test_own_spreads_have_welchs_degrees():
    random = np.random.default_rng(6)
    a, b = random.normal(0, 1, 5), random.normal(0, 4, 3)
    pair = [intervals.own(a), intervals.own(b)]
    variance, degrees = intervals.seed_part(pair, [5, 3])
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert float(degrees) == pytest.approx(expected.df)
    t = (a.mean() - b.mean()) / variance**0.5
    assert t == pytest.approx(expected.statistic)


def test_rows_that_share_a_spread_have_its_degrees():
    a, b = tables(5, 3)
    shared = Spread(0.7, 28, 8)
    parts = intervals.parts([a, b], [shared, shared], 100.0)
    assert parts.seeds == pytest.approx(0.7 * (1 / 5 + 1 / 3))
    assert parts.seeds_degrees == 28


def test_a_row_alone_has_the_same_parts_without_the_other():
    (a,) = tables(4)
    parts = intervals.parts([a], [intervals.own(a.mean(1))], 100.0)
    zero = np.zeros((1, 40))
    assert parts.seeds == pytest.approx(a.mean(1).var(ddof=1) / 4)
    assert parts.seeds_degrees == 3
    assert float(parts.images) == pytest.approx(slow_variance(a, zero)[1])


def test_many_studies_at_once_are_each_study():
    random = np.random.default_rng(2)
    many = random.normal(size=(6, 3, 20))
    rest = intervals.rest_square(many)
    assert rest == pytest.approx([slow_rest(one) for one in many])
    together = intervals.image_part(many.mean(1), rest / 3, 1.0)
    alone = [intervals.parts([one], None, 1.0).images for one in many]
    assert together == pytest.approx(alone)


# ---- interval and p-value


def test_one_part_alone_is_students_interval():
    random = np.random.default_rng(3)
    values = random.normal(0.7, 0.05, 6)
    parts = Parts(stats.tvar(values) / 6, 5, 0.0, 99)
    for level in (0.90, 0.95):
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert 2 * parts.half(level) == pytest.approx(expected.high - expected.low)
    distance = abs(values.mean() - 0.68)
    expected_p = stats.ttest_1samp(values, 0.68).pvalue
    assert float(parts.p_value(distance)) == pytest.approx(expected_p)


def test_a_p_value_is_where_the_interval_ends():
    parts = Parts(0.8, 4, 1.3, 200)
    for alpha in (0.3, 0.05, 0.001):
        ends = parts.half(1 - alpha)
        assert float(parts.p_value(ends)) == pytest.approx(alpha)
    at_once = parts.p_value(np.array([0.0, parts.half(), 1e9]))
    assert at_once == pytest.approx([1.0, 0.05, intervals.SMALLEST], abs=1e-9)


def test_a_deviation_has_the_p_value():
    parts = Parts(1.0, 7, 0.0, 1)
    for p in (0.5, 0.02):
        assert 2 * stats.t.sf(parts.deviation(p), 7) == pytest.approx(p)


# ---- one spread for all rows


def normal_rows(scales: list[float], seeds: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, scale, seeds) for scale in scales]


def test_alike_rows_share_their_mean_square():
    rows = [np.array([0.0, 2.0]), np.array([5.0, 6.0, 7.0])]
    first, second = intervals.spreads(rows)
    assert first is second
    # squares 2 and 2, degrees 1 and 2
    assert first == Spread(pytest.approx(4 / 3), 3, 2)


def test_equal_spreads_is_scipys_levene():
    for seed in range(5):
        rows = normal_rows([1, 1, 2, 3], 4, seed)
        expected = stats.levene(*rows, center="median").pvalue
        assert intervals.equal_spreads(rows) == pytest.approx(expected)
    pairs = normal_rows([1, 9], 2, 0)  # two numbers lie equally far from their median
    assert intervals.equal_spreads(pairs) == 1
    assert intervals.equal_spreads([np.ones(3), np.ones(3)]) == 1


def test_rows_that_differ_throughout_share_nothing():
    rows = normal_rows([1, 1, 1, 9, 9, 9], 6, 1)
    assert intervals.equal_spreads(rows) < 0.05
    found = intervals.spreads(rows)
    assert found == [intervals.own(row) for row in rows]


def test_a_single_wild_row_stands_apart():
    rows = normal_rows([1] * 9 + [8], 3, 0)
    found = intervals.spreads(rows)
    assert found[-1] == intervals.own(rows[-1])
    assert found[0].rows == 9
    assert found[0].square == pytest.approx(
        np.mean([row.var(ddof=1) for row in rows[:-1]])
    )


def test_the_largest_ratio_is_judged_by_the_f_test():
    """Cochran's statistic, for equal numbers of seeds."""
    rows = normal_rows([1, 1, 1, 1, 3], 3, 4)
    squares = np.array([row.var(ddof=1) for row in rows])
    share = squares.max() / squares.sum()
    ratio = share * 4 / (1 - share)
    p = 5 * stats.f.sf(ratio, 2, 8)
    expected = int(squares.argmax()) if p < 0.05 else None
    assert intervals.outlier([intervals.own(row) for row in rows]) == expected


def test_alike_rows_are_rarely_told_apart():
    random = np.random.default_rng(5)
    apart = 0
    for _ in range(400):
        spreads = intervals.spreads(list(random.normal(size=(15, 3))))
        apart += any(spread.rows < 15 for spread in spreads)
    assert apart / 400 < 0.10


# ---- all of it, simulated


@pytest.fixture(scope="module")
def coverage():
    path = paths.REPOSITORY / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules["coverage_benchmark"] = benchmark  # dataclasses look there
    spec.loader.exec_module(benchmark)
    return benchmark


def test_simulated_rows_are_as_accurate_as_they_should_be(coverage):
    random = np.random.default_rng(0)
    for setting in coverage.SETTINGS:
        right = coverage.draw(setting, random, coverage.BETTER, 60, 3, 300)
        wanted = coverage.ACCURACY + np.append(coverage.BETTER, 0) / 100
        assert right.mean((0, 2, 3)) == pytest.approx(wanted, abs=0.03)


def test_a_simulated_paper_is_judged_as_a_real_one(coverage):
    """One claim of the fast simulation against the functions that verdicts use."""
    random = np.random.default_rng(1)
    right = coverage.draw(coverage.SETTINGS[0], random, coverage.BETTER, 1, 3, 200)
    judged = coverage.judge(right, True)
    rows = 100.0 * right[0]
    spreads = intervals.spreads([row.mean(1) for row in rows])
    pair = [spreads[3], spreads[-1]]
    parts = intervals.parts([rows[3], rows[-1]], pair, 100.0)
    effect = rows[3].mean() - rows[-1].mean()
    assert judged.effect[0, 3] == pytest.approx(effect, abs=1e-4)
    assert judged.p[0, 3] == pytest.approx(float(parts.p_value(abs(effect))), rel=1e-3)


def test_intervals_contain_the_truth_as_often_as_they_say(coverage):
    """And claims of which none is true are decided in few papers; 300 papers with 14
    claims, so the error of a share of papers is 0.013."""
    random = np.random.default_rng(7)
    setting = coverage.SETTINGS[1]
    null = coverage.studied(setting, random, 0 * coverage.BETTER, 3, 300, 300)
    for judged in null:
        assert (abs(judged.effect) <= judged.parts.half()).mean() > 0.93
        assert (judged.p_family < 0.05).any(1).mean() < 0.09
    pooled, own = null
    # the simulation can tell: taken one by one, many papers have a false claim
    assert (pooled.p < 0.05).any(1).mean() > 0.2
    assert pooled.parts.half().mean() < 0.8 * own.parts.half().mean()
