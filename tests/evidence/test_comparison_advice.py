"""`fgbook compare` without processes: intervals that hold together, the advice and its
rule, and which rows a budget pays for."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import samples
from fgbook import papers
from fgbook.evidence import advice, families, intervals, records, verdicts
from fgbook.evidence.batch import budget, compared, report
from fgbook.evidence.batch.grid import Entry
from fgbook.papers.compare import FAMILIES
from fgbook.papers.spec import Claim

PAPER = papers.get("compare")
IMAGES = 4000
LABELS = (np.arange(IMAGES) % 5).astype(np.uint16)


@pytest.fixture
def make(tmp_path):
    """make(row, errors, flops=, seconds=, images=, profile=): a record for each number
    of errors, which fall on the same images as far as they reach."""

    def one(row: str, errors: list[int], **fields) -> list[dict]:
        line = PAPER.row(row)
        images = fields.pop("images", IMAGES)
        found = []
        for seed, wrong in enumerate(errors):
            # one image in ten is wrong by chance of the training
            random = np.random.default_rng([seed, len(row), wrong])
            hard = np.arange(images) < wrong
            moved = random.choice(images, images // 50, replace=False)
            hard[moved] = hard[random.permutation(moved)]
            prediction = np.where(hard, (LABELS[:images] + 1) % 5, LABELS[:images])
            kept = {
                "prediction": prediction.astype(np.uint16),
                "confidence": np.ones(images, np.float16),
                "label": LABELS[:images],
            }
            about = {
                "key": records.key({"row": row, "seed": seed, "wrong": wrong}),
                "purpose": "result",
                "paper": "compare",
                "row": row,
                "seed": seed,
                "profile": fields.get("profile", "photo"),
                "dataset": "folder:/mine",
                "data_fingerprint": "f",
                "method": line.method,
                "options": line.options,
                "recipe": line.recipes["photo"].as_dict(),
                "weights": "w",
                "overrides": {},
                "metrics": {"test": {}},
                "images": {"test": images},
                "flops": fields.get("flops", 10**9),
                "parameters": 10**6,
                "train": {"seconds": fields.get("seconds", 60.0)},
            }
            path = tmp_path / f"{about['key']}.json"
            found.append(records.save(about, kept, path))
        return found

    return one


# ---- intervals that hold together


def test_the_critical_deviation_is_scipys_dunnett():
    random = np.random.default_rng(3)
    plain, *groups = (random.normal(k / 2, 1, 6) for k in range(5))
    expected = stats.dunnett(*groups, control=plain, random_state=0)
    widths = expected.confidence_interval(0.95)
    half = (widths.high - widths.low) / 2
    spread = np.mean([group.var(ddof=1) for group in (plain, *groups)])
    found = families.critical([0.5] * 4, 25) * np.sqrt(spread * 2 / 6)
    assert half == pytest.approx(np.full(4, found), rel=5e-3)


def test_the_critical_deviation_of_one_comparison_is_students():
    assert families.critical([0.3], 8) == pytest.approx(stats.t.ppf(0.975, 8), abs=2e-3)


def test_joint_intervals_leave_out_0_where_the_family_s_verdict_does(make):
    """Another path to the same decision: p-values of Dunnett's test."""
    found = {
        "plain": make("plain", [800, 820, 790]),
        "pmg": make("pmg", [700, 720, 715]),
        "cal": make("cal", [770, 760, 765]),
        "dcl": make("dcl", [800, 810, 805]),
        "mmal": make("mmal", [1000, 990, 1010]),
    }
    among = [record for some in found.values() for record in some]
    others = [row for row in found if row != "plain"]
    alone = []
    for row in others:
        effect = verdicts.compare(found[row], found["plain"], among=among)
        assert effect.spread == "pooled"
        alone.append(verdicts.decided(Claim(row, "", row, "plain"), effect))
    differences = advice.differences(found, "plain", others)
    for verdict in families.together(alone):
        joint = differences[verdict.claim.key]
        assert joint.effect == verdict.effect.effect
        assert joint.high - joint.low > verdict.effect.high - verdict.effect.low
        assert (joint.low > 0 or joint.high < 0) == (verdict.p_family < 0.05)


def test_a_row_that_is_the_same_in_every_training_is_compared_among_the_others(make):
    """A probe's spread is 0, which is no reason for Bonferroni's wider intervals."""
    found = {
        "plain": make("plain", [800, 820, 790]),
        "pmg": make("pmg", [700, 720, 715]),
        "cal": make("cal", [770, 760, 765]),
    }
    probe = make("probe", [900])[0]
    found["probe"] = []
    for seed in range(3):
        same = probe | {"seed": seed, "key": f"{seed:016x}"}
        found["probe"].append(same)
    among = [record for some in found.values() for record in some]
    effects = [
        verdicts.compare(found[row], found["plain"], among=among)
        for row in ("pmg", "cal", "probe")
    ]
    (spread,) = verdicts.spreads_of([found["plain"]], "top1", among)
    level = advice.joint_level(effects, (spread, 3))
    assert 0.95 < level < 1 - 0.05 / 3
    # of rows with spreads of their own
    own = intervals.own(np.array([1.0, 2.0, 3.0]))
    assert advice.joint_level(effects, (own, 3)) == pytest.approx(1 - 0.05 / 3)


def test_joint_intervals_are_dunnetts_and_no_wider(make):
    """Against scipy's multivariate t, of which Bonferroni's bound is but a bound."""
    others = ["pmg", "cal", "dcl", "mmal", "flrdf", "cross-x", "api-net"]
    found = {"plain": make("plain", [800, 820, 790])}
    for number, row in enumerate(others):
        errors = 700 + 10 * number
        found[row] = make(row, [errors, errors + 20, errors + 15])
    among = [record for some in found.values() for record in some]
    effects = {
        row: verdicts.compare(found[row], found["plain"], among=among) for row in others
    }
    (spread,) = verdicts.spreads_of([found["plain"]], "top1", among)
    assert spread.rows == 8
    level = advice.joint_level(list(effects.values()), (spread, 3))
    correlation = np.full((7, 7), 0.5)
    np.fill_diagonal(correlation, 1)
    law = stats.multivariate_t(np.zeros(7), correlation, df=spread.degrees, seed=0)

    def error(level: float) -> float:
        """How often one of seven such intervals misses."""
        corner = np.full(7, stats.t.isf((1 - level) / 2, spread.degrees))
        return 1 - float(law.cdf(corner, lower_limit=-corner, maxpts=60_000))

    assert error(level) == pytest.approx(0.05, abs=2e-3)
    assert error(1 - 0.05 / 7) < 0.04
    for row, joint in advice.differences(found, "plain", others).items():
        assert (joint.low, joint.high) == effects[row].interval(level)


def test_of_two_joint_intervals_of_a_pair_the_wider_one_counts(make):
    """Rows of different numbers of seeds are differently careful as controls."""
    found = {
        "plain": make("plain", [800, 820, 790]),
        "pmg": make("pmg", [700, 720, 715, 705, 710, 725, 712]),
        "cal": make("cal", [770, 760]),
    }

    def width(one: advice.Difference) -> float:
        return one.high - one.low

    against = advice.pairs(found)
    for first, second in (("plain", "pmg"), ("plain", "cal"), ("pmg", "cal")):
        both = []
        for control, row in ((first, second), (second, first)):
            others = [name for name in found if name != control]
            both.append(width(advice.differences(found, control, others)[row]))
        assert max(both) > 1.001 * min(both)
        assert width(against[first][second]) == pytest.approx(max(both))
        assert against[second][first] == against[first][second].turned()


# ---- the table


def test_the_table_has_every_row_the_most_accurate_first(make):
    found = {
        "plain": make("plain", [800, 820, 790], seconds=50.0),
        "pmg": make("pmg", [600, 610, 605], flops=3 * 10**9),
        "cal": make("cal", [1000, 990, 1010]),
    }
    lines = advice.lines(PAPER, found, 2.0)
    assert [line.row for line in lines] == ["pmg", "plain", "cal"]
    assert [line.outcome for line in lines] == ["better", "", "worse"]
    best = lines[0]
    assert best.difference.effect == pytest.approx(100 * (2410 - 1815) / 3 / IMAGES)
    everything = [record for some in found.values() for record in some]
    assert best.accuracy == verdicts.accuracy(found["pmg"], "top1", everything)
    assert (best.flops, lines[1].seconds) == (3 * 10**9, 50.0)


def test_an_interval_within_the_margin_is_no_difference():
    inside = advice.Difference(0.5, -1.0, 1.9)
    assert inside.outcome(2.0) == "no difference"
    assert inside.outcome(1.5) == "inconclusive"
    assert inside.turned().outcome(2.0) == "no difference"
    one_training = advice.Difference(9.0, 5.0, 13.0, decides=False)
    assert one_training.outcome(2.0) == "inconclusive"


# ---- the advice


def test_the_best_method_is_recommended_where_no_other_is_nearly_as_good(make):
    found = {
        "probe": make("probe", [1200, 1200, 1200]),
        "plain": make("plain", [800, 820, 790]),
        "pmg": make("pmg", [400, 410, 405], flops=4 * 10**9, seconds=900.0),
    }
    advised = advice.advise(found, 2.0)
    assert (advised.row, advised.decided, advised.good_enough) == (
        "pmg",
        True,
        ("pmg",),
    )
    assert "only method" in advised.sentence
    # who can do without 25 points
    wide = advice.advise(found, 25.0)
    assert wide.row == "probe"
    assert set(wide.good_enough) == set(found)


@pytest.mark.parametrize(
    ("pmg", "chosen"),
    [
        ({"flops": 2 * 10**9, "seconds": 1.0}, "plain"),  # dearer to predict
        ({"flops": int(1.04e9), "seconds": 1.0}, "pmg"),  # as dear: quicker to train
        ({"flops": 10**9 // 2, "seconds": 9000.0}, "pmg"),  # cheaper
    ],
)
def test_of_those_that_are_good_enough_the_cheapest_is_recommended(make, pmg, chosen):
    found = {
        "plain": make("plain", [800, 820, 790], seconds=50.0),
        "pmg": make("pmg", [800, 810, 805], **pmg),
        "cal": make("cal", [1400, 1390, 1410], flops=10, seconds=1.0),
    }
    advised = advice.advise(found, 3.0)
    assert advised.decided
    assert set(advised.good_enough) == {"plain", "pmg"}
    assert advised.row == chosen


def test_few_pictures_decide_nothing_and_that_is_said(make):
    found = {
        "probe": make("probe", [12, 12, 12], images=40, seconds=1.0),
        "plain": make("plain", [9, 10, 8], images=40),
        "pmg": make("pmg", [8, 9, 7], images=40),
    }
    advised = advice.advise(found, 2.0)
    assert not advised.decided
    assert advised.good_enough == ()
    assert advised.row == "probe"  # the cheapest that none is shown to beat
    assert advised.sentence.startswith("Undecided: ")
    assert "40 test pictures and 3 trainings" in advised.sentence
    assert "by its cost and not by evidence" in advised.sentence


def test_a_method_that_another_one_beats_is_not_what_to_start_with(make):
    found = {
        "probe": make("probe", [1600, 1600, 1600], seconds=1.0),
        "plain": make("plain", [800, 820, 790]),
        "pmg": make("pmg", [790, 800, 780], flops=4 * 10**9),
    }
    advised = advice.advise(found, 0.01)
    assert (advised.row, advised.decided) == ("plain", False)
    assert "cheapest of the 2 that no other of the 3" in advised.sentence


def test_one_training_and_quick_runs_decide_nothing(make):
    one = {"plain": make("plain", [900]), "pmg": make("pmg", [100])}
    advised = advice.advise(one, 2.0)
    assert not advised.decided
    assert "one training of a method does not show" in advised.sentence
    assert [line.outcome for line in advice.lines(PAPER, one, 2.0)] == [
        "inconclusive",
        "",
    ]
    quick = {
        row: make(row, [errors, errors], profile="quick")
        for row, errors in (("plain", 900), ("pmg", 100))
    }
    advised = advice.advise(quick, 2.0)
    assert advised.row is None
    assert "only illustrate" in advised.sentence
    outcomes = {line.row: line.outcome for line in advice.lines(PAPER, quick, 2.0)}
    assert outcomes == {"plain": "", "pmg": "illustration"}


# ---- what a budget pays for

SECONDS = {
    "plain": 100.0,
    "probe": 20.0,
    "neighbours": 20.0,
    "bilinear": 110.0,
    "compact": 105.0,
    "pmg": 400.0,
    "cal": 300.0,
    "cross-x": 150.0,
}


def test_families_take_turns_the_cheapest_first():
    assert budget.order(SECONDS) == [
        "probe",
        "plain",
        "compact",
        "cross-x",
        "pmg",
        "neighbours",
        "bilinear",
        "cal",
    ]


def test_every_row_has_a_place_in_the_order():
    rows = [row.name for row in PAPER.rows]
    assert sorted(budget.order(dict.fromkeys(rows, 1.0))) == sorted(rows)
    assert sorted(row for some in FAMILIES.values() for row in some) == sorted(rows)


def test_what_does_not_fit_is_left_out_and_smaller_things_still_fit():
    choice = budget.choose(SECONDS, 400.0)
    assert choice.rows == ["probe", "plain", "compact", "cross-x", "neighbours"]
    assert choice.left_out == ["pmg", "bilinear", "cal"]
    assert budget.choose(SECONDS, None).left_out == []
    assert budget.choose(SECONDS, 1.0).rows == ["probe", "plain"]


def test_a_choice_is_gone_on_with_for_the_same_rows(tmp_path):
    assert budget.remembered(tmp_path, ["plain"]) is None
    choice = budget.choose(SECONDS, 400.0)
    budget.remember(tmp_path, choice)
    assert budget.remembered(tmp_path, list(SECONDS)) == choice
    assert budget.remembered(tmp_path, ["plain", "probe"]) is None
    (tmp_path / budget.FILE).write_text("{")
    assert budget.remembered(tmp_path, list(SECONDS)) is None


def test_the_margin_that_came_before_the_runs_is_kept(tmp_path):
    choice = budget.choose(SECONDS, 400.0)
    begun = budget.with_margin(choice, 2.0, made=False)
    assert begun.margin == 2.0
    # nobody has seen a result yet
    assert budget.with_margin(begun, 3.0, made=False).margin == 3.0
    assert budget.with_margin(begun, 10.0, made=True) == begun
    # of runs that other calls made nobody knows for which margin
    assert budget.with_margin(choice, 2.0, made=True).margin is None
    budget.remember(tmp_path, begun)
    assert budget.remembered(tmp_path, list(SECONDS)) == begun


def test_a_choice_of_before_margins_were_kept_is_gone_on_with(tmp_path):
    choice = budget.choose(SECONDS, 400.0)
    kept = {"rows": choice.rows, "left_out": choice.left_out}
    records.write_json(tmp_path / budget.FILE, kept)
    assert budget.remembered(tmp_path, list(SECONDS)) == choice


@pytest.mark.parametrize(
    ("begun", "says"),
    [
        (2.0, "The rule, fixed before the runs: of the methods"),
        (
            1.0,
            "The rule (begun with a margin of 1 point; 2 was asked for after runs were"
            " made): of the methods",
        ),
        (None, "The rule (its margin came after some of the runs): of the methods"),
    ],
)
def test_the_rule_says_when_its_margin_was_fixed(begun, says):
    rule = advice.rule(2.0, begun)
    assert rule.startswith(says)
    assert "at most 2 points worse" in rule


# ---- the report


class Asked:
    """A run as an entry names it."""

    def __init__(self, record: dict):
        self.key, self.row = record["key"], record["row"]
        self.folder = Path("nowhere")


def test_the_report_can_be_sorted_and_says_what_came_out(make, tmp_path, monkeypatch):
    found = {
        "plain": make("plain", [800, 820, 790], seconds=119.0),
        "pmg": make("pmg", [600, 610, 605], seconds=6000.0),
    }
    entries = []
    for some in found.values():
        for record in some:
            entry = Entry(Asked(record), record=record)
            monkeypatch.setattr(entry, "found", lambda record=record: [record])
            entries.append(entry)
    comparison = compared.Comparison(
        PAPER,
        entries,
        2.0,
        "folder:/a <b>",
        ["the plan"],
        ["cal"],
        tmp_path,
        begun_with=2.0,
    )
    extra = comparison.extra(over=True)
    page = samples.Page(extra.html)
    assert "Use pmg: it is the only method" in page.said
    assert "the plan" in page.said
    assert "The rule, fixed before the runs" in page.said
    # hours after seconds, whatever the text
    keys = [
        float(given["data-sort"])
        for tag, given in page.tags
        if tag == "span" and "data-sort" in given
    ]
    assert keys == [6000.0, 119.0]
    # better than plain: right of the middle
    (dot,) = [given for tag, given in page.tags if tag == "circle"]
    assert float(dot["cx"]) > compared.WIDTH / 2
    assert "http" not in extra.html
    assert extra.facts["advice"]["row"] == "pmg"
    assert extra.facts["left_out"] == ["cal"]
    assert [row["row"] for row in extra.facts["rows"]] == ["pmg", "plain"]
    assert extra.title == "Comparison on folder:/a <b>"
    # before the end nothing is recommended
    assert comparison.extra(over=False).facts["advice"] is None
    assert report.Extra().html == ""
