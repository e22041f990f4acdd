"""What a paper's file is made of: recipes made from others, tries, printed values."""

import json

import pytest

from fgbook import papers
from fgbook.errors import InputError
from fgbook.papers.spec import PROFILES, Recipes, Row, Table, Tuning, same_options
from fgbook.recipe import Recipe

PLAIN = Recipes(quick=Recipe(epochs=1), photo=Recipe(epochs=2), paper=Recipe(epochs=3))


def test_but_changes_every_profile_and_nothing_else():
    changed = PLAIN.but(mixup=0.2)
    assert list(changed) == list(PROFILES)
    for profile, recipe in changed.items():
        assert recipe == PLAIN[profile].but(mixup=0.2)


def test_at_changes_one_profile_and_nothing_else():
    changed = PLAIN.at("photo", mixup=0.1, lr=0.5)
    assert changed["photo"] == PLAIN["photo"].but(mixup=0.1, lr=0.5)
    assert changed["quick"] == PLAIN["quick"]
    assert changed["paper"] == PLAIN["paper"]


def test_only_leaves_the_other_profiles_out():
    assert PLAIN.only("paper") == {"paper": PLAIN["paper"]}


def test_what_is_made_leaves_what_it_was_made_from():
    before = dict(PLAIN)
    PLAIN.but(mixup=0.2).at("quick", lr=0.5).only("quick")
    assert before == PLAIN


def test_unknown_fields_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="mixup"):
        PLAIN.but(mixupp=0.2)
    with pytest.raises(InputError, match="mixup"):
        PLAIN.at("quick", mixupp=0.2)


def test_a_try_changes_recipe_and_options_and_never_sees_validation_images():
    row = Row("row", "title", "focus", {"m": 4}, PLAIN)
    change = {"lr": 0.5, "options": {"l": 2}}
    base = Recipe(train_on="train+val")
    ((told, recipe, options),) = Tuning(base, {"row": (change,)}).of(row)
    assert told == {"lr": 0.5, "options": {"l": 2}}
    assert recipe == base.but(lr=0.5, train_on="train")
    assert options == {"m": 4, "l": 2}
    ((_, _, options),) = Tuning(base, {"row": (change,)}, options={"row": {}}).of(row)
    assert options == {"l": 2}


@pytest.mark.parametrize("name", papers.names())
def test_every_table_has_a_value_for_each_column(name):
    for table in papers.get(name).tables:
        for label, cells in table.cells.items():
            assert len(cells) == len(table.columns), (table.name, label)
        assert table.rows.keys() <= table.cells.keys()


@pytest.mark.parametrize("name", papers.names())
def test_rows_have_names_of_their_own_and_start_from_rows_that_are_there(name):
    paper = papers.get(name)
    names = [row.name for row in paper.rows]
    assert len(set(names)) == len(names)
    for row in paper.rows:
        if row.after is not None:
            assert row.recipes.keys() <= paper.row(row.after).recipes.keys()


def test_a_printed_value_is_that_of_the_first_table_that_has_the_row():
    paper = papers.get("liang")
    first = next(t for t in paper.tables if "flrdf" in t.rows.values())
    (label,) = (label for label, ours in first.rows.items() if ours == "flrdf")
    for column, value in zip(first.columns, first.cells[label], strict=True):
        assert paper.printed("flrdf", column) == value
        assert paper.printed_text("flrdf", column) == f"{value:.1f}"
    assert paper.printed("flrdf", "cub50") is None
    assert paper.printed_text("flrdf", "cub50") == Table("", "", (), {}).missing


def test_options_of_a_record_are_those_of_the_row_though_json_has_no_tuples():
    for paper in map(papers.get, papers.names()):
        for row in paper.rows:
            recorded = json.loads(json.dumps(row.options))
            assert same_options(recorded, row.options)
            assert same_options(row.options, recorded)
    assert not same_options({"sides": [0.3, 0.45]}, {"sides": (0.3, 0.4)})
    assert not same_options({"sides": [0.3]}, {})
