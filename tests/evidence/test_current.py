"""Which records speak for a row: those of it as the paper's file has it now."""

import pytest

from fgbook import methods, papers
from fgbook.evidence import current
from fgbook.papers.spec import Seeds
from fgbook.recipe import LATER

FENG = papers.get("feng")


def record(row: str = "hybrid", **fields) -> dict:
    """The fields that are looked at, of a record as it would be made now."""
    line = FENG.row(row)
    return {
        "key": f"{row} {len(fields)}",
        "paper": "feng",
        "row": row,
        "profile": "photo",
        "dataset": "cub50",
        "seed": 0,
        "method": line.method,
        "method_version": methods.METHODS[line.method].VERSION,
        "options": dict(line.options),
        "recipe": line.recipes["photo"].as_dict(),
        "weights": "w sha256:1",
        "created": "2026-01-02T00:00:00Z",
        "after": None,
        **fields,
    }


def recipe(**changes) -> dict:
    return FENG.row("hybrid").recipes["photo"].but(**changes).as_dict()


def test_a_record_of_now_counts():
    for row in FENG.rows:
        assert current.is_current(record(row.name))


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": recipe(lr=0.4321)},
        {"options": {"m": 17}},
        {"method": "plain"},
        {"method_version": 99},
        {"row": "a row of before"},
        {"profile": "a profile of before"},
        {"paper": "a paper of before"},
    ],
)
def test_a_record_of_before_does_not(fields):
    assert not current.is_current(record() | fields)


def test_what_an_older_record_does_not_tell_is_believed():
    older = record()
    del older["method_version"]
    for name in LATER:
        if not older["recipe"][name]:
            del older["recipe"][name]
    assert current.is_current(older)


def test_other_ways_to_the_same_numbers_are_the_same():
    assert current.is_current(record(recipe=recipe(compile=True)))


def test_a_stage_of_before_makes_a_record_of_before():
    first = record("plain", key="first")
    second = record(after="first")
    assert current.is_current(second, {"first": first})
    assert current.is_current(second, {})
    outdated = first | {"method_version": 99}
    assert not current.is_current(second, {"first": outdated})


def test_weights_of_before_do_not_count():
    """A name can come to mean other weights: those of the last record are meant."""
    older = record(weights="w sha256:0", created="2026-01-01T00:00:00Z")
    newer = [record(), record("image")]
    kept = current.counted([older, *newer])
    assert kept.records == newer
    assert kept.left_out() == "1 record of earlier recipes is left out."
    elsewhere = older | {"dataset": "cars98"}
    assert current.counted([elsewhere, *newer]).records == [elsewhere, *newer]


def test_further_seeds_do_not_count(monkeypatch):
    monkeypatch.setitem(FENG.__dict__, "seeds", {"photo": Seeds(2, 2)})
    found = [record(seed=seed) for seed in range(4)]
    found += [record(seed=3, profile="quick", recipe=quick()), record(method="plain")]
    kept = current.counted(found)
    assert [r["seed"] for r in kept.records] == [0, 1, 3]
    assert kept.left_out() == (
        "1 record of earlier recipes and 2 records of seeds beyond those fixed before"
        " are left out."
    )


def quick() -> dict:
    return FENG.row("hybrid").recipes["quick"].as_dict()


def test_what_a_person_changed_is_left_as_it_is():
    changed = record(recipe=recipe(lr=0.4), overrides={"lr": 0.4}, seed=70)
    assert current.counted([changed]).records == [changed]
    assert current.counted([changed]).left_out() == ""


def test_versions_are_read_from_the_files_as_they_are():
    for name, method in methods.METHODS.items():
        assert current.method_version(name) == method.VERSION, name


def test_rows_that_claims_name_have_more_seeds(monkeypatch):
    monkeypatch.setitem(FENG.__dict__, "seeds", {"photo": Seeds(5, 3)})
    assert FENG.seeds_of("hybrid", "photo") == 5
    assert FENG.seeds_of("another", "photo") == 3
    assert FENG.seeds_of("hybrid", "quick") is None
