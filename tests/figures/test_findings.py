"""Sentences below tables: each branch comes out where records made by hand call for it,
the unwelcome ones too.
"""

import re
from dataclasses import replace

import pytest

from fgbook import figures, papers
from fgbook.evidence.intervals import Parts
from fgbook.evidence.verdicts import Effect, Verdict
from fgbook.figures import findings
from fgbook.papers.spec import Claim, Seeds

PAPER = papers.get("gautam")
TITLES = {"plain": "plain backbone", "attention": "attention", "mixup": "mixup"}


@pytest.fixture(autouse=True)
def three_seeds(monkeypatch):
    monkeypatch.setitem(PAPER.__dict__, "seeds", {"photo": Seeds(3, 3)})


@pytest.fixture
def rows(make):
    """rows(plain=0.5, ...) -> records of three seeds each."""

    def of(**qualities):
        return [
            make(row, seed, quality)
            for row, quality in qualities.items()
            for seed in range(3)
        ]

    return of


def plain(sentence: str) -> str:
    return re.sub("<.*?>", "", sentence)


# ---- rows


def test_a_row_that_is_clearly_ahead(rows):
    found = rows(plain=0.2, attention=0.95, mixup=0.3)
    said = plain(findings.of_rows(found, TITLES))
    assert said.startswith("Highest is attention, its interval above those of all")
    assert "below" not in said


def test_rows_that_cannot_be_told_apart(rows):
    said = plain(findings.of_rows(rows(plain=0.5, attention=0.5, mixup=0.5), TITLES))
    assert "but its interval overlaps those of all others" in said


def test_a_row_near_the_highest_is_named(rows):
    said = plain(findings.of_rows(rows(plain=0.1, attention=0.7, mixup=0.7), TITLES))
    best, other = ("attention", "mixup")
    if said.startswith("Highest is mixup"):
        best, other = other, best
    assert said.startswith(f"Highest is {best}; its interval overlaps that of {other}")


def test_rows_below_the_plain_one_are_named(rows):
    said = plain(findings.of_rows(rows(plain=0.6, attention=0.95, mixup=0.1), TITLES))
    assert "below plain backbone lies mixup" in said
    said = plain(findings.of_rows(rows(plain=0.9, attention=0.2, mixup=0.1), TITLES))
    assert "all others lie below plain backbone" in said


def test_seeds_that_lie_far_apart_are_said_with_their_records(rows, make):
    found = rows(plain=0.9, mixup=0.9)
    for record in found:  # nothing to be seen in these
        assert record["row"] != "attention"
    found += [make("attention", seed, q) for seed, q in enumerate((0.1, 0.5, 0.95))]
    said = plain(findings.of_rows(found, TITLES))
    (sentence,) = re.findall(r"the seeds of attention spread from .*%", plain(said))
    low, high = map(float, re.findall(r"\d+\.\d", sentence))
    assert high - low > 40
    assert findings.of_rows(found, TITLES).count("fgbook-measured") == 2
    assert "seeds of" not in findings.of_rows(found[:6], TITLES)


def test_nothing_is_said_of_nothing():
    assert findings.of_rows([], TITLES) == ""
    assert findings.of_pairs({}, "ours", "theirs") == ""
    assert findings.of_effects({"a": None}) == ""
    assert findings.of_verdicts([]) == ""
    assert findings.of_tries({}) == ""


# ---- baselines


def test_regions_that_hit_less_often_than_boxes_at_random():
    pairs = {"on the bird": (0.4, 0.5), "on a part": (0.2, 0.1)}
    said = plain(findings.of_pairs(pairs, "the regions", "boxes at random"))
    assert said == (
        "The regions do better than boxes at random in on a part; but not in on the"
        " bird."
    )
    worse = {"on the bird": (0.4, 0.5)}
    said = plain(findings.of_pairs(worse, "the regions", "boxes at random"))
    assert said == "The regions do no better than boxes at random: on the bird."
    better = {name: (1.0, 0.5) for name in pairs}
    said = plain(findings.of_pairs(better, "the regions", "boxes at random"))
    assert said == "The regions do better than boxes at random throughout."


def test_less_can_be_better():
    said = plain(findings.of_pairs({"all": (120.0, 100.0)}, "rows", "plain", True))
    assert said == "Rows do no better than plain: all."
    said = plain(findings.of_pairs({"all": (80.0, 100.0)}, "rows", "plain", True))
    assert said == "Rows do better than plain."


def test_the_table_of_regions_says_it(make):
    record = make("plain", 0, 0.5)
    measures = {"hit_object": 0.3, "hit_object_random": 0.6}
    for name, value in list(measures.items()):
        measures |= {f"{name}_low": value, f"{name}_high": value}
    shown = figures.hits_table([{**record, "localisation": measures}])
    (said,) = re.findall(r'<p class="fgbook-says">(.*?)</p>', shown.html)
    assert plain(said).startswith(
        "The regions do no better than boxes at random: plain"
    )
    assert plain(said) in shown.text


# ---- effects


def effect(low: float, high: float) -> Effect:
    parts = Parts(1.0, 4.0, 1.0, 4.0)
    return Effect((low + high) / 2, low, high, (3, 3), 60, "pooled", 3, parts)


def test_gains_below_zero_are_named():
    effects = {
        "a half": effect(1, 3),
        "a quarter": effect(-5, -2),
        "all": effect(-1, 1),
    }
    said = plain(findings.of_effects(effects, "what the system adds"))
    assert said == (
        "What the system adds: above zero with the whole interval: a half; below zero:"
        " a quarter; not to be told from zero: all."
    )
    said = plain(findings.of_effects({"all": effect(-1, 1)}))
    assert said == "Every interval contains zero."


# ---- verdicts


def verdict(key: str, outcome: str, printed: float | None = None) -> Verdict:
    claim = Claim(key, "text", "a", "b", printed_effect=printed)
    about = None if outcome == "not run" else effect(1, 3)
    return Verdict(claim, outcome, about, "", outcome)


def test_verdicts_are_told_by_outcome():
    judged = [
        verdict("B1", "holds", printed=9.0),
        verdict("B2", "holds"),
        verdict("B3", "reversed"),
        verdict("B4", "no difference"),
        verdict("B5", "inconclusive"),
    ]
    assert plain(findings.of_verdicts(judged)) == (
        "B1 and B2 hold; B3 is reversed; B4 makes no difference; smaller than printed:"
        " B1."
    )
    assert findings.of_verdicts(judged[4:]) == "No claim is decided by these runs."
    waiting = [verdict("B1", "not run"), verdict("B2", "not run")]
    assert findings.of_verdicts(waiting) == "None of 2 claims has been run as fixed."


def test_the_table_of_verdicts_says_it(rows):
    found = rows(plain=0.4, attention=0.95, cutmix=0.02)
    claims = tuple(c for c in PAPER.claims if c.key in ("C1", "C2 CutMix"))
    shown = figures.verdict_table(replace(PAPER, claims=claims), found)
    (said,) = re.findall(r'<p class="fgbook-says">(.*?)</p>', shown.html)
    assert plain(said).startswith("C1 holds; C2 CutMix is reversed")


# ---- tries


def test_a_close_choice_is_said():
    tries = {"plain": [50.0, 49.8, 30.0], "hybrid": [60.0, 40.0]}
    said = plain(findings.of_tries(tries))
    assert said.endswith("for plain: which is best may be chance.")
    assert findings.of_tries({"hybrid": [60.0, 40.0]}) == ""


def test_names_are_listed_shortly():
    assert findings.listed(["a"]) == "<i>a</i>"
    assert plain(findings.listed(["a", "b", "c"])) == "a, b and c"
    assert plain(findings.listed("abcdefg")) == "a, b, c and 4 more"
    assert findings.listed(["<b>"]) == "<i>&lt;b&gt;</i>"
