"""Tables of verdicts: what their columns say, that the family is the paper's whatever
is shown."""

from dataclasses import replace

import pytest

from fgbook import figures, papers
from fgbook.evidence import families
from fgbook.figures import summary
from fgbook.papers.spec import Claim, Seeds

PAPER = papers.get("gautam")


@pytest.fixture(autouse=True)
def three_seeds(monkeypatch):
    monkeypatch.setitem(PAPER.__dict__, "seeds", {"photo": Seeds(3, 2)})


@pytest.fixture
def found(make):
    """Three rows of claims, three seeds each."""
    rows = {"plain": 0.4, "attention": 0.9, "mixup": 0.45}
    return [
        make(row, seed, quality) for row, quality in rows.items() for seed in range(3)
    ]


def line_of(lines, shown, key: str) -> dict[str, str]:
    table = lines(shown)
    (claim,) = [claim for claim in PAPER.claims if claim.key == key]
    return table[f"{key} {claim.text}"]


def test_a_line_holds_the_verdict_and_what_it_comes_from(found, lines):
    cells = line_of(lines, figures.verdict_table(PAPER, found), "C1")
    verdict = families.judge(PAPER, found)[0]
    effect = verdict.effect
    assert cells["verdict"] == verdict.outcome == "holds"
    assert cells["measured"] == f"{effect.effect:+.1f}"
    assert cells["95 % interval"] == f"{effect.low:+.1f} to {effect.high:+.1f}"
    assert cells["seeds × images"] == "3 × 60"
    assert cells["spread"] == "pooled over 3 rows"
    assert cells["why"] == ""  # the columns say it


def test_seeds_that_are_missing_are_said(found, lines):
    fewer = [r for r in found if r["row"] != "attention" or r["seed"] < 2]
    cells = line_of(lines, figures.verdict_table(PAPER, fewer), "C1")
    assert cells["verdict"] == "not run"
    assert "2 of the 3 seeds fixed beforehand are there" in cells["why"]


def test_records_of_earlier_recipes_are_said(found, make):
    recipe = PAPER.row("plain").recipes["photo"].but(epochs=99).as_dict()
    old = [make("plain", seed, 0.1, recipe=recipe) for seed in range(3)]
    for draw in (figures.verdict_table, figures.accuracy_table):
        now, then = draw(PAPER, found), draw(PAPER, found + old)
        says = " 3 records of earlier recipes are left out."
        assert says in then.html
        assert then.html.replace(says, "") == now.html


def test_a_row_on_other_pictures_changes_no_line(found, make):
    """Although all records together say which pictures are meant, not a row's own."""
    mine = {"data_fingerprint": "mine", "created": "2026-03-01T00:00:00Z"}
    own = [make("attention", seed, 0.2, **mine) for seed in range(3)]
    for draw in (figures.verdict_table, figures.accuracy_table):
        now, then = draw(PAPER, found), draw(PAPER, found + own)
        says = " 3 records of other pictures are left out."
        assert says in then.html
        assert then.html.replace(says, "") == now.html


def test_a_table_of_some_claims_has_the_verdicts_of_all(found, lines):
    claims = tuple(claim for claim in PAPER.claims if claim.key == "C1")
    some = figures.verdict_table(replace(PAPER, claims=claims), found)
    all_of_them = figures.verdict_table(PAPER, found)
    one, other = (line_of(lines, shown, "C1") for shown in (some, all_of_them))
    assert all(other[name] == cell for name, cell in one.items() if name != "metric")
    judged = [v for v in families.judge(PAPER, found) if v.p is not None]
    assert f"{len(judged)} claims are judged at once" in some.html


def test_a_table_of_some_rows_has_the_intervals_of_all(found, lines):
    rows = (PAPER.row("plain"), PAPER.row("mixup"))
    some = lines(figures.accuracy_table(replace(PAPER, rows=rows), found))
    all_of_them = lines(figures.accuracy_table(PAPER, found))
    assert list(some) == [row.title for row in rows]
    for title, cells in some.items():
        assert cells == all_of_them[title]


def test_questions_are_a_family_of_their_own(found):
    question = Claim("Q", "our own", "attention", "mixup")
    asked = replace(PAPER, claims=(question,))
    assert "judged at once" not in figures.verdict_table(asked, found).html


def test_rows_on_parts_of_the_images_are_one_data_set_in_a_caption(make):
    found = [
        make("plain", seed, 0.5, images={"train": train, "val": 3, "test": 60})
        for seed, train in enumerate((9, 27, 18))
    ]
    said = summary.setting(found)
    assert said.startswith("cub50: 3 classes, 9 to 27 training and 60 test images, ")
    whole = summary.setting(found[:1])
    assert whole.startswith("cub50: 3 classes, 9 training and 60 test images, ")
    further = [*found, make("plain", 0, 0.5, dataset="cars98")]
    assert "60 test images / cars98: 3 classes, 9 training" in summary.setting(further)
