"""Verdicts: the interval against a slow reference and by simulated coverage; pairing;
outcomes; what is refused."""

import importlib.util

import numpy as np
import pytest
from scipy import stats

from fgbook import paths
from fgbook.errors import InputError
from fgbook.evidence import records, verdicts
from fgbook.papers.spec import Claim

CLAIM = Claim("X1", "hybrid beats plain", "hybrid", "plain", 1.0)

# ---- the interval


def rows(seeds: int, images: int, seed: int = 0, gain: float = 0.0):
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=images)
    return tuple(
        random.normal(size=(seeds, images)) * 0.5 + difficulty + shift > 0
        for shift in (0.7 + gain, 0.7)
    )


def slow_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """The formulas of the docstring with loops, in fractions."""
    seeds, images = a.shape
    d = [[float(a[s, i]) - float(b[s, i]) for i in range(images)] for s in range(seeds)]
    mean = sum(map(sum, d)) / (seeds * images)
    of_image = [sum(d[s][i] for s in range(seeds)) / seeds for i in range(images)]
    of_seed = [sum(d[s]) / images for s in range(seeds)]
    ms_image = seeds * (sum((x - mean) ** 2 for x in of_image) + 2) / (images - 1)
    if seeds == 1:
        half = stats.t.ppf(0.975, images - 1) * (ms_image / images) ** 0.5
        return mean, mean - half, mean + half
    ms_seed = images * sum((x - mean) ** 2 for x in of_seed) / (seeds - 1)
    rest = sum(
        (d[s][i] - of_seed[s] - of_image[i] + mean) ** 2
        for s in range(seeds)
        for i in range(images)
    ) / ((seeds - 1) * (images - 1))
    part_seed, part_image = (
        ms_seed / (seeds * images),
        max(ms_image - rest, 0) / (seeds * images),
    )
    half = (
        stats.t.ppf(0.975, seeds - 1) ** 2 * part_seed
        + stats.t.ppf(0.975, images - 1) ** 2 * part_image
    ) ** 0.5
    return mean, mean - half, mean + half


@pytest.mark.parametrize(("seeds", "images"), [(1, 40), (2, 2), (3, 57), (5, 200)])
def test_compare_is_the_slow_formula(seeds, images):
    a, b = rows(seeds, images, seed=images)
    found = verdicts.compare(a, b)
    assert (found.effect, found.low, found.high) == pytest.approx(
        [100 * x for x in slow_interval(a, b)], abs=1e-9
    )
    assert (found.seeds, found.images) == (seeds, images)
    per_seed = [100 * (np.mean(x) - np.mean(y)) for x, y in zip(a, b, strict=True)]
    assert found.effect == pytest.approx(np.mean(per_seed))
    assert found.sd_seeds == (
        None if seeds == 1 else pytest.approx(np.std(per_seed, ddof=1))
    )


def test_compare_is_antisymmetric_and_ignores_the_order_of_seeds_and_images():
    a, b = rows(3, 80, gain=0.3)
    found, back = verdicts.compare(a, b), verdicts.compare(b, a)
    assert (back.effect, back.low, back.high) == pytest.approx(
        (-found.effect, -found.high, -found.low)
    )
    order = np.random.default_rng(1).permutation(80)
    moved = verdicts.compare(a[[2, 0, 1]][:, order], b[[2, 0, 1]][:, order])
    assert (moved.effect, moved.low, moved.high) == pytest.approx(
        (found.effect, found.low, found.high)
    )


def test_equal_rows_and_a_handful_of_disagreements_never_decide():
    a = np.ones((3, 100), bool)
    same = verdicts.compare(a, a)
    assert same.effect == 0
    assert same.low < 0 < same.high
    # a sign test on 4 to 0 gives p = 0.125
    for others, decided in ((1, False), (4, False), (12, True)):
        b = a.copy()
        b[:, :others] = False
        assert (verdicts.compare(a, b).low > 0) == decided


def test_intervals_contain_the_truth_as_often_as_they_say():
    """Simulated studies in which images, seeds and chance weigh differently; 2000 a
    setting, so the error of a share of 0.95 is 0.005."""
    spec = importlib.util.spec_from_file_location(
        "coverage_benchmark", paths.REPOSITORY / "benchmarks" / "coverage.py"
    )
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    random, methods = (
        np.random.default_rng(7),
        {name: benchmark.METHODS[name] for name in ("chosen", "images only")},
    )
    naive = []
    for images, seeds in ((100, 2), (100, 3), (100, 5), (500, 3)):
        for setting in benchmark.SETTINGS:
            found = benchmark.coverage(setting, seeds, images, 2000, methods, random)
            assert found["chosen"][0] >= 0.93, (setting.name, seeds, images)
            naive.append(found["images only"][0])
    # the simulation can tell: an interval that takes the seeds as given fails it
    assert min(naive) < 0.5


def test_more_seeds_and_more_images_narrow_the_interval():
    wide = [
        np.mean([np.diff(_ends(rows(s, n, seed=k)))[0] for k in range(20)])
        for s, n in ((2, 100), (3, 100), (5, 100), (5, 800))
    ]
    assert wide == sorted(wide, reverse=True)
    assert wide[3] < wide[2] / 2


def _ends(pair):
    found = verdicts.compare(*pair)
    return found.low, found.high


# ---- the verdict

LABELS = np.arange(120, dtype=np.uint16) % 6


@pytest.fixture
def make(tmp_path):
    """make(row, seed, wrong, **fields): a saved record that errs on the images at
    `wrong`."""

    def one(row: str, seed: int, wrong, labels=LABELS, **fields) -> dict:
        prediction = labels.copy()
        prediction[np.asarray(wrong, int)] = (labels[np.asarray(wrong, int)] + 1) % 6
        number = len(list(tmp_path.glob("*.json")))
        record = {
            "key": f"{number:016x}",
            "purpose": "result",
            "row": row,
            "seed": seed,
            "profile": "photo",
            "dataset": "cub50",
            "data_fingerprint": "f0",
            "method": row,
            "options": {},
            "recipe": {"epochs": 3, "loss_weights": []},
            "weights": "w",
            "metrics": {"test": {"top1": 0}},
            **fields,
        }
        arrays = {
            "prediction": prediction,
            "confidence": np.ones(len(labels), np.float16),
            "label": labels,
        }
        return records.save(record, arrays, tmp_path / f"{number}.json")

    return one


@pytest.fixture
def series(make):
    """series(row, error, seeds, **fields): records of one row that err on the first
    `error` images, give or take one with the seed."""
    return lambda row, error, seeds=(0, 1, 2), **fields: [
        make(row, seed, range(error + seed % 2), **fields) for seed in seeds
    ]


def test_outcomes(series):
    good, bad = series("hybrid", 10), series("plain", 50)
    verdict = verdicts.verdict(CLAIM, good, bad)
    assert verdict.outcome == "holds"
    assert verdict.effect.low > 0
    assert verdict.claim is CLAIM
    assert verdict.effect.effect == pytest.approx(100 * 40 / 120)
    assert "+33.3" in verdict.why
    assert "3 seeds, 120 test images" in verdict.why
    back = verdicts.verdict(CLAIM, bad, good)
    assert back.outcome == "reversed"
    assert back.effect.high < 0
    close = verdicts.verdict(CLAIM, series("hybrid", 20), series("plain", 21))
    assert close.outcome == "inconclusive"
    assert close.effect.low < 0 < close.effect.high
    assert "contains 0" in close.why


def test_one_seed_never_decides(series):
    verdict = verdicts.verdict(
        CLAIM, series("hybrid", 1, seeds=(4,)), series("plain", 100, seeds=(4,))
    )
    assert verdict.outcome == "inconclusive"
    assert verdict.effect.low > 0
    assert verdict.effect.sd_seeds is None
    assert "one seed" in verdict.why


def test_not_run_says_why(series):
    good, bad = series("hybrid", 10), series("plain", 50)
    for better, worse, says in (
        ([], bad, "no finished run of the row 'hybrid'"),
        (good, [], "no finished run of the row 'plain'"),
        (
            series("hybrid", 10, profile="quick"),
            series("plain", 50, profile="quick"),
            "only quick runs",
        ),
        (good, series("plain", 50, profile="quick"), "only quick runs.*'plain'"),
        (good, series("plain", 50, purpose="tuning"), "no finished run"),
        (good, series("plain", 50, seeds=(7, 8)), "share no seed"),
    ):
        verdict = verdicts.verdict(CLAIM, better, worse)
        assert verdict.outcome == "not run"
        assert verdict.effect is None
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(verdict.why)


def test_rows_are_paired_by_seed_and_quick_runs_beside_real_ones_are_left_out(
    make, series
):
    first = {seed: [*range(seed * 3)] for seed in (0, 1, 2, 5)}
    second = {seed: [*range(40, 50 + seed)] for seed in (9, 2, 0, 1)}
    better = [make("hybrid", seed, wrong) for seed, wrong in first.items()] + series(
        "hybrid", 119, profile="quick"
    )
    worse = [make("plain", seed, wrong) for seed, wrong in second.items()]

    def right(wrong):
        return ~np.isin(np.arange(120), wrong)

    expected = verdicts.compare(
        np.stack([right(first[s]) for s in (0, 1, 2)]),
        np.stack([right(second[s]) for s in (0, 1, 2)]),
    )
    assert verdicts.verdict(CLAIM, better, worse).effect == expected
    assert verdicts.compare(better[:4], worse) == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data_fingerprint": "f1"}, "data_fingerprint"),
        ({"dataset": "cub"}, "dataset"),
        ({"profile": "paper"}, "profile"),
        ({"labels": LABELS[::-1].copy()}, "test images differ"),
        ({"labels": LABELS[:-6]}, "test images differ"),
    ],
)
def test_rows_of_different_data_are_refused(series, fields, says):
    with pytest.raises(InputError, match=says):
        verdicts.verdict(CLAIM, series("hybrid", 10), series("plain", 50, **fields))


def test_records_that_are_not_one_row_are_refused(make, series):
    worse = series("plain", 50)
    for odd, says in (
        (make("hybrid", 0, [1]), "two records for seed 0"),
        (
            make("hybrid", 9, [1], recipe={"epochs": 4, "loss_weights": []}),
            "recipe differs",
        ),
        (make("hybrid", 9, [1], options={"m": 2}), "options differs"),
        (make("single", 9, [1]), "row differs"),
    ):
        with pytest.raises(InputError, match=says):
            verdicts.verdict(CLAIM, [*series("hybrid", 10), odd], worse)
    # a tuple before it is saved, a list after: the same
    fresh = make("hybrid", 9, [1], recipe={"epochs": 3, "loss_weights": ()})
    assert (
        verdicts.verdict(CLAIM, [*series("hybrid", 10), fresh], worse).outcome
        == "holds"
    )


def test_other_refusals(series):
    a = np.ones((3, 9), bool)
    for other in (a[:2], a[0], np.ones((3, 8), bool)):
        with pytest.raises(InputError, match="one shape"):
            verdicts.compare(a, other)
    with pytest.raises(InputError, match="2 test images"):
        verdicts.compare(a[:, :1], a[:, :1])
    with pytest.raises(InputError, match="share no seed"):
        verdicts.compare(
            series("hybrid", 3, seeds=(1,)), series("plain", 3, seeds=(2,))
        )
    with pytest.raises(InputError, match="holds no 'recall'"):
        verdicts.compare(series("hybrid", 3), series("plain", 3), "recall")
    unmeasured = verdicts.verdict(
        Claim("X2", "", "hybrid", "plain", worse_metric="recall"),
        series("hybrid", 3),
        series("plain", 3),
    )
    assert unmeasured.outcome == "not run"
    assert "'plain' hold no 'recall'" in unmeasured.why


def test_other_metrics_are_compared_image_by_image(make, tmp_path):
    """A metric beside the record, the loss (less is better), and one network at two
    resolutions, against plain numpy."""
    random = np.random.default_rng(4)
    arrays = {}

    def extended(row: str, seed: int, loss: float) -> dict:
        record = make(row, seed, random.permutation(120)[:20])
        kept = records.load_predictions(record)
        kept |= {
            "nll": random.gamma(2.0, loss, 120).astype(np.float32),
            "low_prediction": random.permutation(LABELS),
            "area": random.random(120),
        }
        kept["area"][:100] = np.nan  # measured on some images only
        arrays[row, seed] = kept
        return records.save(record, kept, tmp_path / f"{record['key']}-more.json")

    better, worse = (
        [extended(row, seed, loss) for seed in (0, 1, 2)]
        for row, loss in (("hybrid", 0.2), ("plain", 0.9))
    )

    def stacked(row, name):
        return np.stack([arrays[row, seed][name] for seed in (0, 1, 2)])

    for metric, other, scale, expected in (
        ("nll", None, 1, stacked("plain", "nll") - stacked("hybrid", "nll")),
        (
            "area",
            None,
            1,
            (stacked("hybrid", "area") - stacked("plain", "area"))[:, 100:],
        ),
        (
            "top1",
            "low_top1",
            100,
            (stacked("hybrid", "prediction") == LABELS) * 1.0
            - (stacked("plain", "low_prediction") == LABELS),
        ),
    ):
        effect = verdicts.compare(better, worse, metric, other)
        assert effect.effect == pytest.approx(scale * expected.mean(), rel=1e-5)
        assert effect.images == expected.shape[1]
        assert effect.low < effect.effect < effect.high
    found = verdicts.verdict(
        Claim("X3", "", "hybrid", "plain", metric="nll"), better, worse
    )
    assert found.outcome == "holds"
    assert "nats" in found.why
    assert (
        verdicts.verdict(
            Claim("X3", "", "plain", "hybrid", metric="nll"), worse, better
        ).outcome
        == "reversed"
    )


def test_a_margin_turns_better_into_no_worse(series):
    same, worse, better = (
        series("plain", 50),
        series("hybrid", 51),
        series("single", 49),
    )

    def outcome(row, name, margin):
        claim = Claim("X4", "", name, "plain", margin=margin)
        return verdicts.verdict(claim, row, same).outcome

    assert outcome(worse, "hybrid", 0.0) == "inconclusive"
    assert outcome(worse, "hybrid", 5.0) == "holds"
    far = series("image", 90)
    assert outcome(far, "image", 5.0) == "reversed"
    assert outcome(far, "image", 90.0) == "holds"
    assert outcome(better, "single", 0.0) == "inconclusive"


# ---- the summary


def test_summary_is_students_interval():
    values = np.random.default_rng(3).normal(0.7, 0.05, 6)
    found = verdicts.summary(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["sd"] == pytest.approx(stats.tstd(values))
    assert found["n"] == 6
    assert verdicts.summary([0.5]) == {
        "mean": 0.5,
        "sd": None,
        "low": None,
        "high": None,
        "n": 1,
    }
    for wrong in ([], [0.5, float("nan")], [[0.5, 0.6]]):
        with pytest.raises(InputError):
            verdicts.summary(wrong)
