"""The verdict board, chapters in short, and what is written into the README, from
records made by hand: every count, number and link.
"""

import re
from dataclasses import replace

import numpy as np
import pytest

from fgbook import papers
from fgbook.data import fetch
from fgbook.evidence import units, verdicts
from fgbook.evidence.judged import judged
from fgbook.figures import answers, board, repeating
from fgbook.papers.spec import Seeds

PAPER = papers.get("gautam")


@pytest.fixture(autouse=True)
def three_seeds(monkeypatch):
    monkeypatch.setitem(PAPER.__dict__, "seeds", {"photo": Seeds(3, 2)})


@pytest.fixture
def found(make):
    """Attention helps, CutMix harms, mixup does neither clearly."""
    rows = {"plain": 0.5, "attention": 0.95, "cutmix": 0.05, "mixup": 0.52}
    return [
        make(row, seed, quality) for row, quality in rows.items() for seed in range(3)
    ]


def lines_of(shown) -> dict[str, dict[str, str]]:
    """Key of a claim -> its cells, as HTML, by what they say they are."""
    lines = {}
    for line in re.findall(r"<tr>(<td.*?)</tr>", shown.html, re.S):
        pairs = re.findall(r'<td[^>]*data-label="(.*?)">(.*?)</td>', line, re.S)
        cells = dict(pairs)
        if "claim" in cells:
            lines[re.findall(r"<b>(.*?)</b>", cells["claim"])[0]] = cells
    return lines


def test_the_board_has_a_line_for_each_verdict(found):
    grouped = board.judged_papers(found)
    said = [one for each in grouped.values() for one in each]
    about = [papers.get(name) for name in papers.names() if name != "compare"]
    expected = [
        (one.paper.key, one.verdict.claim.key, one.verdict.outcome)
        for one in judged(about, found)
    ]
    listed = [
        (one.paper.key, one.verdict.claim.key, one.verdict.outcome) for one in said
    ]
    assert sorted(listed) == sorted(expected)
    made = board.board(grouped, found).html
    assert made.count("<tr><td") == len(expected)
    for outcome, number in board.outcomes(said).items():
        assert made.count(f'data-label="outcome"><b>{outcome}</b>') == number


def test_a_line_says_what_was_measured_and_leads_to_its_places(found):
    grouped = board.judged_papers(found)
    cells = lines_of(board.board(grouped, found))["C1"]
    (said,) = [s for s in grouped["gautam"] if s.verdict.claim.key == "C1"]
    effect = said.verdict.effect
    assert said.verdict.outcome == "holds"
    assert f">{effect.effect:+.1f}</span> points" in cells["effect"]
    assert f">{effect.low:+.1f} to {effect.high:+.1f}</span>" in cells["effect"]
    assert cells["seeds × images"] == "3 × 60"
    assert 'href="page:book/gautam#claim-c1"' in cells["claim"]
    asked = "find=paper=gautam+row=attention|plain+data=cub50"
    assert f'href="page:book/numbers?{asked}"' in cells["data"]
    # the records of both rows
    keys = [r["key"] for r in found if r["row"] in ("attention", "plain")]
    assert all(key in cells["effect"] for key in keys)


def test_what_was_not_run_has_no_number(found):
    cells = lines_of(board.board(board.judged_papers(found), found))["C3"]
    assert "not run" in cells["outcome"]
    assert not re.search(r"\d", re.sub(r"<svg.*?</svg>", "", cells["effect"]))


def test_the_counts_are_those_of_the_board(found):
    grouped = board.judged_papers(found)
    table = board.counts_table(grouped).html
    (line,) = re.findall(r"<tr><th[^>]*><a href=\"page:book/gautam\">.*?</tr>", table)
    numbers = re.findall(r"<td[^>]*>(.*?)</td>", line)
    counted = board.outcomes(grouped["gautam"])
    assert counted["holds"] == 1 and counted["reversed"] == 1
    assert numbers == [str(counted.get(name, "–")) for name in board.OUTCOMES]
    text = board.summary_text(grouped)
    assert f"| {' | '.join(numbers)} |" in text


def test_the_headline_tells_verdicts_from_claims(found, make):
    grouped = board.judged_papers(found)
    about = [papers.get(name) for name in board.CHAPTERS]
    claims = sum(len(paper.claims) for paper in about)
    ours = [c for paper in about for c in paper.claims if c.text.startswith("our ")]
    said = board.totals(grouped)
    assert said.startswith(f"{claims} verdicts on {claims} claims of 5 papers (")
    assert f"({len(ours)} of the claims are controls of our own)" in said
    assert "two data sets" not in said
    assert said in board.counts_table(grouped).text
    assert said in " ".join(board.summary_text(grouped).split())

    there = [make("plain", seed, 0.5, dataset="cars98") for seed in range(3)]
    there += [make("attention", seed, 0.9, dataset="cars98") for seed in range(3)]
    said = board.totals(board.judged_papers(found + there))
    # once more for each claim, and the mean of the one that was run on both
    verdicts = claims + len(PAPER.claims) + 1
    assert said.startswith(f"{verdicts} verdicts on {claims} claims of 5 papers (")
    assert "a verdict on each, and one on both together" in said


def test_no_difference_says_within_what(found, make):
    """Rows that answer alike: the margin of a claim that prints nothing is a point."""
    alike = [make("mixup", seed, 0.5) | {"row": "mixup"} for seed in range(3)]
    judged_alike = board.judged_papers([*found[:3], *alike])["gautam"]
    (said,) = [s for s in judged_alike if s.verdict.claim.key == "C2 mixup"]
    equal = replace(said.verdict, outcome="no difference")
    assert board.outcome_cell(equal) == "<b>no difference</b> within ±1 point"
    larger = replace(equal, claim=replace(equal.claim, printed_effect=30.0))
    assert board.outcome_cell(larger).endswith("within ±15 points")
    assert board.outcome_cell(said.verdict) == f"<b>{said.verdict.outcome}</b>"


def test_every_number_of_the_board_has_its_unit(make):
    found = [
        make(row, seed, quality, margin=quality)
        for row, quality in {"plain": 0.3, "all": 0.9, "triplet": 0.8}.items()
        for seed in range(3)
    ]
    cells = lines_of(board.board(board.judged_papers(found), found))
    said = re.sub("<.*?>", "", cells["C4 noise"]["effect"])
    assert re.fullmatch(
        r"\+\d+\.\d points of right answers under noise \(\S+ to \S+\)", said
    )
    assert " log2 units (" in re.sub("<.*?>", "", cells["C3"]["effect"])
    for cell in cells.values():
        text = re.sub("<.*?>", "", cell["effect"])
        assert re.search(r"[a-z]", text) or not re.search(r"\d", text)


def test_all_metrics_of_claims_have_a_unit():
    asked = {c.metric for name in papers.names() for c in papers.get(name).claims}
    assert asked <= set(units.METRICS)


def test_shares_are_in_points():
    assert units.number(0.1134, "robust_occlusion") == "+11.3"
    assert units.amount(0.1134, "robust_occlusion") == "+11.3 points"
    assert units.amount(2.2, "top1") == "+2.2 points"
    assert units.amount(0.3, "nll") == "+0.300 nats"
    assert units.heading("robust_noise") == "right answers under noise, points"


# ---- in short


def test_a_chapter_in_short_tells_the_unwelcome_first(found):
    shown = answers.answer(PAPER, found)
    told = re.findall(r'<li><a href="#(.*?)">.*?<b>(.*?)</b>', shown.html)
    assert told[0] == ("claim-c2-cutmix", "reversed")
    assert ("claim-c1", "holds") in told
    outcomes = [outcome for _, outcome in told]
    assert outcomes == sorted(outcomes, key=answers.FIRST.index)
    assert f"{len(PAPER.claims)} claims on photographs (cub50)" in shown.text


def test_a_chapter_in_short_has_a_picture_of_the_effects(found):
    drawn = answers.answer(PAPER, found).html
    (picture,) = re.findall(r'<svg class="fgbook-forest".*?</svg>', drawn, re.S)
    assert picture.count('class="effect"') == 3  # attention, CutMix, mixup
    (name,) = re.findall(r'aria-label="(.*?)"', picture)
    assert "3 claims" in name


def test_a_chapter_without_runs_says_so():
    shown = answers.answer(PAPER, [])
    count = len(PAPER.claims)
    assert f"None of {count} claims can be judged yet" in shown.text
    assert "<svg" not in shown.html and "fgbook-measured" not in shown.html


def test_a_chapter_without_runs_tells_what_was_tried(make):
    tries = []
    for row, change, top1 in (("plain", 1, 0.3), ("plain", 2, 0.5), ("all", 1, 0.4)):
        record = make(row, 1000 + change, 0.5)
        metrics = {"val": {"top1": top1}, "test": None}
        tries.append({**record, "purpose": "tuning", "metrics": metrics})
    told = re.findall(r"<li><i>(.*?)</i>: <span[^>]*>(.*?)<", tried(tries))
    assert told == [("plain", "50.0"), ("all", "40.0")]
    assert "and so no results" in tried(tries)
    assert "and so no results" not in tried([])


def test_a_chapter_without_verdicts_tells_what_its_rows_reached(make):
    found = [make("plain", seed, 0.9) for seed in range(2)] + [make("all", 0, 0.3)]
    shown = answers.answer(PAPER, found, [{"never": "looked at"}])
    told = re.findall(r"<li><i>(.*?)</i>: <span[^>]*>(.*?)<", shown.html)
    reached = [
        100 * np.mean([verdicts.per_image(record, "top1").mean() for record in of])
        for of in (found[:2], found[2:])
    ]
    assert told == [("plain", f"{reached[0]:.1f}"), ("all", f"{reached[1]:.1f}")]
    assert "cub50, 2 seeds)" in shown.html and "cub50, 1 seed)" in shown.html
    assert answers.SO_FAR in shown.text


def tried(tries) -> str:
    return answers.answer(PAPER, [], tries).html


def test_quick_runs_answer_nothing(make):
    quick = [
        make(row, seed, 0.9, profile="quick")
        for row in ("plain", "attention")
        for seed in range(3)
    ]
    assert answers.answer(PAPER, quick).text == answers.answer(PAPER, []).text


# ---- how to repeat


def test_commands_of_each_paper_with_what_their_runs_took(found):
    made = repeating.repeating_table(found).html
    (line,) = re.findall(r"<tr><td[^>]*><a href=.page:book/gautam.*?</tr>", made)
    minutes = sum(record["train"]["seconds"] for record in found) / 60
    assert f"{len(found)} runs, {minutes:.0f} min" in line
    assert "<code>fgbook run gautam --profile photo</code>" in line
    assert "<code>fgbook run gautam --profile paper</code>" in line
    # 9 to train, 60 to test; and what there is to download
    assert f"cub50 (69 images, {fetch.size('cub') / 1e9:.1f} GB)" in line
    assert made.count("not run yet") == 5
    for name in papers.names():
        assert f"fgbook run {name} --profile photo" in made
