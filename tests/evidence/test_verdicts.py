"""Verdicts: what is compared with what, outcomes, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fgbook import papers
from fgbook.errors import InputError
from fgbook.evaluation.wilson import wilson
from fgbook.evidence import intervals, records, verdicts
from fgbook.papers.spec import Claim

CLAIM = Claim("X1", "hybrid beats plain", "hybrid", "plain", 1.0)

# ---- two arrays


def rows(seeds: int, images: int, seed: int = 0, gain: float = 0.0):
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=images)
    return tuple(
        random.normal(size=(seeds, images)) * 0.5 + difficulty + shift > 0
        for shift in (0.7 + gain, 0.7)
    )


def ends(found) -> tuple[float, float, float]:
    return found.effect, found.low, found.high


def test_a_difference_is_antisymmetric_and_ignores_the_order_of_seeds_and_images():
    a, b = rows(3, 80, gain=0.3)
    found, back = verdicts.difference(a, b), verdicts.difference(b, a)
    assert ends(back) == pytest.approx((-found.effect, -found.high, -found.low))
    order = np.random.default_rng(1).permutation(80)
    # seeds of two rows have nothing to do with each other
    moved = verdicts.difference(a[[2, 0, 1]][:, order], b[[1, 0, 2]][:, order])
    assert ends(moved) == pytest.approx(ends(found))


def test_rows_may_have_different_numbers_of_seeds():
    a, b = rows(5, 80, gain=0.3)
    found = verdicts.difference(a, b[:3])
    assert found.effect == pytest.approx(100 * (a.mean() - b[:3].mean()))
    assert found.trainings == (5, 3)
    assert found.seeds == 3


def test_one_seed_counts_images_only():
    a, b = rows(1, 60, gain=0.5)
    found = verdicts.difference(a, b)
    difference = 100.0 * (a[0].astype(float) - b[0])
    square = (((difference - difference.mean()) ** 2).sum() + 2 * 100**2) / 59
    half = stats.t.ppf(0.975, 59) * (square / 60) ** 0.5
    assert ends(found) == pytest.approx(
        (found.effect, found.effect - half, found.effect + half)
    )
    assert found.spread == "images"


def test_two_measures_of_the_same_networks_differ_seed_by_seed():
    """What a seed does to both is no uncertainty of their difference."""
    random = np.random.default_rng(2)
    shift = np.array([[-9.0], [0.0], [9.0]])
    first = shift + random.normal(1, 0.1, (3, 50))
    second = shift + random.normal(0, 0.1, (3, 50))
    paired = verdicts.difference(first, second, paired=True)
    assert paired.low > 0.5
    assert paired.spread == "paired"
    of_seed = (first - second).mean(1)
    assert paired.parts.seeds == pytest.approx(of_seed.var(ddof=1) / 3)
    assert paired.parts.seeds_degrees == 2
    assert verdicts.difference(first, second).low < 0


def test_equal_rows_and_a_handful_of_disagreements_never_decide():
    a = np.ones((3, 100), bool)
    same = verdicts.difference(a, a)
    assert same.effect == 0
    assert same.low < 0 < same.high
    # a sign test on 4 to 0 gives p = 0.125
    for others, decided in ((1, False), (4, False), (12, True)):
        b = a.copy()
        b[:, :others] = False
        assert (verdicts.difference(a, b).low > 0) == decided


def test_more_seeds_and_more_images_narrow_the_interval():
    wide = []
    for seeds, images in ((2, 100), (3, 100), (5, 100), (5, 800)):
        found = [verdicts.difference(*rows(seeds, images, k)) for k in range(20)]
        wide.append(np.mean([one.high - one.low for one in found]))
    assert wide == sorted(wide, reverse=True)
    assert wide[3] < wide[2] / 2


# ---- one row


def test_the_accuracy_of_one_seed_is_wilsons():
    (a, _) = rows(1, 70)
    low, high = wilson(int(a.sum()), 70)
    assert verdicts.share(a) == pytest.approx((100 * a.mean(), 100 * low, 100 * high))


def test_the_accuracy_of_several_seeds_has_both_parts():
    (a, _) = rows(4, 70)
    spread = intervals.own(100 * a.mean(1))
    half = intervals.parts([100.0 * a], [spread], 100.0).half()
    mean = 100 * a.mean()
    assert verdicts.share(a) == pytest.approx((mean, mean - half, mean + half))
    right = np.ones((2, 5), bool)
    assert verdicts.share(right)[2] == 100  # never above


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
    assert "+33.3" in verdict.sentence
    assert "3 seeds, 120 test images; spread pooled over 2 rows" in verdict.sentence
    assert "positive, but" not in verdict.sentence
    assert verdict.size_text == "larger"  # than the point that is printed
    back = verdicts.verdict(CLAIM, bad, good)
    assert back.outcome == "reversed"
    assert back.effect.high < 0
    wide = Claim("X1", "", "hybrid", "plain")
    close = verdicts.verdict(wide, series("hybrid", 20), series("plain", 21))
    assert close.outcome == "inconclusive"
    assert close.effect.low < 0 < close.effect.high
    assert "contains 0" in close.why


def test_a_sentence_has_the_effects_unit_and_what_is_measured(series):
    found = series("hybrid", 10), series("plain", 50)
    effect = verdicts.verdict(CLAIM, *found).effect
    points = verdicts.effect_text(effect, "top1")
    assert points.startswith("+33.3 points, 95 % interval +")
    # of a share, which is computed in 0..1
    share = replace(effect, effect=0.032, low=0.003, high=0.061)
    assert verdicts.effect_text(share, "robust_noise") == (
        "+3.2 points of right answers under noise, 95 % interval +0.3 to +6.1"
        " (3 seeds, 120 test images; spread pooled over 2 rows)"
    )
    nats = verdicts.effect_text(share, "nll")
    assert nats.startswith("+0.032 nats, 95 % interval +0.003 to +0.061 (")


def test_one_seed_never_decides(series):
    verdict = verdicts.verdict(
        CLAIM, series("hybrid", 1, seeds=(4,)), series("plain", 100, seeds=(4,))
    )
    assert verdict.outcome == "inconclusive"
    assert verdict.effect.low > 0
    assert verdict.p is None
    assert "one seed" in verdict.why
    # nor does its interval, which is over images only, refute what is printed
    assert verdict.printed_size == verdict.size_text == ""
    assert verdict.sentence.endswith("; printed: +1.0 points.")


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
    ):
        verdict = verdicts.verdict(CLAIM, better, worse)
        assert verdict.outcome == "not run"
        assert verdict.effect is None
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(verdict.why)


def test_quick_runs_beside_real_ones_are_left_out(make, series):
    better, worse = series("hybrid", 10), series("plain", 50)
    quick = series("hybrid", 119, profile="quick")
    with_quick = verdicts.verdict(CLAIM, better + quick, worse)
    assert with_quick.effect == verdicts.compare(better, worse)


def test_seeds_need_not_be_the_same(series):
    later = series("plain", 50, seeds=(4, 5, 6))
    found = verdicts.compare(series("hybrid", 10), later)
    assert found.effect == pytest.approx(100 * (50 + 1 / 3 - 10 - 1 / 3) / 120)


# ---- how much trainings differ


def test_all_rows_of_the_paper_tell_the_spread(make, series):
    """And none of another paper, profile or data set, or with changes."""
    better, worse = series("hybrid", 10), series("plain", 50)
    other = [make("image", seed, range(40 + 2 * seed)) for seed in (0, 1)]
    foreign = []
    for fields in (
        {"paper": "peng"},
        {"profile": "paper"},
        {"dataset": "cars98"},
        {"data_fingerprint": "f1"},
        {"overrides": {"lr": 1.0}},
        {"purpose": "tuning"},
    ):
        # alike, or they would be set apart whatever they are of
        foreign += [make("other", s, range(40 + 2 * s), **fields) for s in (0, 1, 2)]
    alone = [make("single", 0, range(90))]  # one seed tells nothing

    among = [*better, *worse, *other, *foreign, *alone]
    found = verdicts.compare(better, worse, among=among)
    assert (found.spread, found.rows) == ("pooled", 3)
    means = [100 / 120 * np.array(x) for x in ([10, 11, 10], [50, 51, 50], [40, 42])]
    squares = sum(((m - m.mean()) ** 2).sum() for m in means)
    assert found.parts.seeds == pytest.approx(squares / 5 * 2 / 3)
    assert found.parts.seeds_degrees == 5
    row = verdicts.accuracy(better, among=among)
    own = intervals.parts(
        [100.0 * np.stack([verdicts.per_image(r, "top1") for r in better])],
        [intervals.Spread(squares / 5, 5, 3)],
        100.0,
    )
    assert row[2] - row[0] == pytest.approx(own.half())


def test_versions_of_a_changed_row_tell_their_own_spread(make, series):
    """And do not stand in for each other's seeds."""
    changed = {"overrides": {"lr": 1.0}}
    better, worse = series("hybrid", 10, **changed), series("plain", 50, **changed)
    before = []
    for seed in (0, 1, 2):
        fields = changed | {"method_version": 0}
        before.append(make("hybrid", seed, range(30 * seed), **fields))
    without = verdicts.compare(better, worse, among=[*better, *worse])
    found = verdicts.compare(better, worse, among=[*before, *better, *worse])
    # so different that it is set apart
    assert found.parts.seeds == without.parts.seeds
    assert (found.spread, found.rows) == ("pooled", 2)
    first = verdicts.compare(before, worse, among=[*before, *better, *worse])
    assert first.spread == "partly"


def test_a_row_named_unstable_stands_for_itself(make, series, monkeypatch):
    paper = papers.get("feng")
    named = {"paper": "feng"}
    better, worse = series("hybrid", 10, **named), series("plain", 50, **named)
    other = series("single", 40, **named)
    among = [*better, *worse, *other]
    assert verdicts.compare(better, worse, among=among).rows == 3
    for row in paper.rows:
        if row.name == "plain":
            monkeypatch.setitem(row.__dict__, "unstable", True)
    found = verdicts.compare(better, worse, among=among)
    assert (found.spread, found.rows) == ("partly", 2)
    assert "one row's own spread" in found.spread_text
    assert verdicts.compare(better, other, among=among).spread == "pooled"


def test_the_same_networks_are_compared_with_themselves(make, tmp_path):
    """A row by two metrics: differences within its networks, as the same twice would
    otherwise be taken for two rows."""
    found = []
    for seed in (0, 1, 2):
        record = make("high", seed, range(20 + 9 * seed))
        kept = dict(records.load_predictions(record))
        # at low resolution thirty more are wrong, whatever the seed
        kept["low_prediction"] = kept["prediction"].copy()
        kept["low_prediction"][60:90] += 1
        found.append(records.save(record, kept, tmp_path / f"low-{seed}.json"))
    effect = verdicts.compare(found, found, "top1", "low_top1")
    assert effect.spread == "paired"
    assert effect.effect == pytest.approx(25)
    assert effect.parts.seeds == pytest.approx(0)


# ---- fixed numbers of seeds


def test_missing_seeds_are_said_with_what_is_there_so_far(series):
    better, worse = series("hybrid", 10), series("plain", 50, seeds=(0, 1))
    verdict = verdicts.verdict(CLAIM, better, worse, fixed=(3, 3))
    assert verdict.outcome == "not run"
    assert verdict.effect.effect == pytest.approx(100 * (50.5 - 10 - 1 / 3) / 120)
    assert verdict.why == (
        "2 of the 3 seeds fixed beforehand are there of the row 'plain'; so far"
        " +33.5 points."
    )
    assert verdict.printed_size == ""
    assert verdicts.verdict(CLAIM, better, worse, fixed=(3, 2)).outcome == "holds"


# ---- outcomes


def claimed(effect: float, half: float, printed: float | None = None, **fields):
    """The verdict on an effect whose 95 % interval is so long, alone."""
    parts = intervals.Parts(0.0, 1, (half / 1.96) ** 2, 10**6)
    about = verdicts.Effect(
        effect, effect - half, effect + half, (5, 5), 10**6, "pooled", 9, parts
    )
    claim = Claim("X", "", "hybrid", "plain", printed, **fields)
    return verdicts.decided(claim, about)


@pytest.mark.parametrize(
    ("effect", "half", "printed", "outcome"),
    [
        (2.0, 1.9, None, "holds"),
        (-2.0, 1.9, None, "reversed"),
        (0.2, 0.9, None, "no difference"),  # 90 %: -0.56 to 0.96
        (0.2, 1.0, None, "inconclusive"),  # to 1.04
        (0.2, 1.0, 3.0, "no difference"),  # half of what is printed
        (0.8, 0.7, None, "holds"),  # comes first, though negligible
        (2.0, 2.1, None, "inconclusive"),
    ],
)
def test_holds_comes_before_no_difference(effect, half, printed, outcome):
    assert claimed(effect, half, printed).outcome == outcome


def test_what_is_negligible_depends_on_the_metric():
    assert Claim("X", "", "a", "b", 0.5).negligible == 1.0
    assert Claim("X", "", "a", "b", -3.0).negligible == 1.5
    assert Claim("X", "", "a", "b", 0.3, metric="nll").negligible == 0.15
    assert Claim("X", "", "a", "b", metric="nll").negligible is None
    small = claimed(0.0, 1e-6, metric="nll")
    assert small.outcome == "inconclusive"


def test_no_worse_knows_no_difference():
    assert claimed(0.0, 0.5, margin=1.0).outcome == "holds"
    assert claimed(-1.0, 0.5, margin=1.0).outcome == "inconclusive"
    assert claimed(-2.0, 0.5, margin=1.0).outcome == "reversed"


@pytest.mark.parametrize(
    ("effect", "half", "printed", "size", "text"),
    [
        (2.0, 1.0, None, "not printed", "not printed"),
        (2.0, 1.0, 2.9, "compatible", "compatible"),
        (2.0, 1.0, 4.0, "excluded", "positive, but smaller"),
        (0.5, 1.0, 4.0, "excluded", "smaller"),
        (2.0, 1.0, 0.5, "excluded", "larger"),
    ],
)
def test_whether_the_printed_size_is_excluded(effect, half, printed, size, text):
    verdict = claimed(effect, half, printed)
    assert verdict.printed_size == size
    assert verdict.size_text == text
    if printed is not None:
        assert f"the printed +{printed:.1f} points." in verdict.sentence


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
    for other in (a[0], np.ones((3, 8), bool)):
        with pytest.raises(InputError, match="over the same images"):
            verdicts.difference(a, other)
    with pytest.raises(InputError, match="2 test images"):
        verdicts.difference(a[:, :1], a[:, :1])
    with pytest.raises(InputError, match="no record"):
        verdicts.compare(series("hybrid", 3), [])
    with pytest.raises(InputError, match="no record"):
        verdicts.compare([], [])
    with pytest.raises(InputError, match="there is none"):
        verdicts.accuracy([])
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
    assert "nats" in found.sentence
    assert (
        verdicts.verdict(
            Claim("X3", "", "plain", "hybrid", metric="nll"), worse, better
        ).outcome
        == "reversed"
    )


@pytest.fixture
def with_loss(make, tmp_path):
    """with_loss(row, losses): a record for each list of losses of the test images."""

    def some(row: str, losses) -> list[dict]:
        found = []
        for seed, values in enumerate(losses):
            record = make(row, seed, range(20 + seed))
            kept = records.load_predictions(record)
            kept |= {"nll": np.asarray(values, np.float32)}
            found.append(records.save(record, kept, tmp_path / f"{row}-{seed}.json"))
        return found

    return some


def losses(seeds: int, mean: float) -> list:
    random = np.random.default_rng(int(10 * mean))
    return [random.gamma(2.0, mean / 2, 120) for _ in range(seeds)]


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_training_that_came_to_no_numbers_is_named_not_judged(with_loss, broken):
    one = losses(3, 0.4)
    if np.isnan(broken):
        one[1][:] = broken  # of some images unknown is usual, of all is not
    else:
        one[1][7] = broken
    better, worse = with_loss("hybrid", one), with_loss("plain", losses(3, 0.9))
    says = f"record {better[1]['key']} has no finite mean of 'nll'"
    with pytest.raises(InputError, match=says):
        verdicts.compare(better, worse, "nll")
    with pytest.raises(InputError, match=says):
        verdicts.compare(worse, better, "nll")


def test_nor_does_it_tell_how_much_others_vary(with_loss):
    better, worse = (
        with_loss("hybrid", losses(3, 0.4)),
        with_loss("plain", losses(3, 2)),
    )
    broken = losses(3, 1.0)
    broken[0][3], broken[1][:] = np.inf, np.nan
    among = [*better, *worse, *with_loss("image", broken)]
    found = verdicts.compare(better, worse, "nll", among=among)
    assert found == verdicts.compare(better, worse, "nll", among=[*better, *worse])
    assert np.isfinite(found.low)


def test_right_or_wrong_is_not_compared_with_a_number():
    """One of them would count in points, the other in its own unit."""
    right = np.ones((3, 9), bool)
    for pair in ((right, right.astype(float)), (right.astype(float), right)):
        for paired in (False, True):
            with pytest.raises(InputError, match="right or wrong"):
                verdicts.difference(*pair, paired=paired)


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
