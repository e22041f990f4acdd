"""Which records speak for a row: those of it as the paper's file has it now."""

import pytest

from fgbook import methods, papers
from fgbook.evidence import current, measures
from fgbook.papers.spec import Seeds
from fgbook.recipe import LATER
from fgbook.training import loop

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
        "loop_version": loop.VERSION,
        "measures_version": measures.VERSION,
        "options": dict(line.options),
        "recipe": line.recipes["photo"].as_dict(),
        "weights": "w sha256:1",
        "data_fingerprint": "official",
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
        {"loop_version": 99},
        {"measures_version": 99},
        {"row": "a row of before"},
        {"profile": "a profile of before"},
        {"paper": "a paper of before"},
    ],
)
def test_a_record_of_before_does_not(fields):
    assert not current.is_current(record() | fields)


def test_what_an_older_record_does_not_tell_is_believed():
    older = record()
    for name in ("method_version", "loop_version", "measures_version"):
        del older[name]
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


def test_records_of_before_the_loop_or_the_measures_changed_do_not_count(monkeypatch):
    """What does not name a version is of the first."""
    older = record()
    del older["loop_version"], older["measures_version"]
    for name in ("loop_version", "measures_version"):
        with monkeypatch.context() as patch:
            patch.setattr(current, name, lambda: 2)
            assert not current.is_current(older)
            assert current.is_current(record() | {name: 2})


def test_one_run_on_other_pictures_does_not_count():
    """Most records say which pictures are meant, whichever were made last."""
    official = [record(seed=seed) for seed in range(3)] + [record("image")]
    own = record(data_fingerprint="mine", created="2026-03-01T00:00:00Z")
    kept = current.counted([own, *official])
    assert kept.records == official
    assert kept.left_out() == "1 record of other pictures is left out."
    elsewhere = own | {"dataset": "cars98"}
    assert current.counted([elsewhere, *official]).records == [elsewhere, *official]
    # a person's changes never stood for the row
    changed = own | {"overrides": {"lr": 0.4}}
    assert changed in current.counted([changed, *official]).records


def test_records_that_do_not_count_say_nothing_about_pictures():
    own = record(data_fingerprint="mine")
    official = [
        record(seed=0),
        *(record(seed=seed, method_version=99) for seed in range(3)),
        *(record(seed=seed) for seed in range(70, 73)),
    ]
    kept = current.counted([own, own | {"seed": 1}, *official])
    assert [r["data_fingerprint"] for r in kept.records] == ["mine", "mine"]
    assert kept.left_out() == (
        "3 records of earlier recipes, 3 records of seeds beyond those fixed before and"
        " 1 record of other pictures are left out."
    )


def test_of_as_many_records_of_either_pictures_the_last_one_says_which():
    first = record(seed=0)
    second = record(data_fingerprint="mine", created="2026-03-01T00:00:00Z")
    for found in ([first, second], [second, first]):
        assert current.counted(found).records == [second]


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
    assert current.loop_version() == loop.VERSION
    assert current.measures_version() == measures.VERSION


def test_what_makes_a_run_is_told_without_its_seed_and_its_data():
    one = record()
    alike = record(seed=3, dataset="cars98", data_fingerprint="other")
    older = record()
    for name in ("method_version", "loop_version", "measures_version"):
        del older[name]
    assert current.made_by(one) == current.made_by(alike) == current.made_by(older)
    for fields in (
        {"row": "image"},
        {"method_version": 99},
        {"loop_version": 99},
        {"measures_version": 99},
        {"recipe": recipe(lr=0.4321)},
        {"options": {"m": 17}},
        {"weights": "w sha256:0"},
    ):
        assert current.made_by(one) != current.made_by(one | fields)


def test_what_makes_a_stage_is_told_with_the_one_before():
    """Whose keys differ with the seed, though nothing else does."""
    first = [record("plain", key=f"first {seed}", seed=seed) for seed in (0, 1)]
    before = first[0] | {"key": "before", "method_version": 99}
    others = {each["key"]: each for each in [*first, before]}
    kinds = [
        current.made_by(record(after=key), others)
        for key in ("first 0", "first 1", "before")
    ]
    assert kinds[0] == kinds[1] != kinds[2]


def test_rows_that_claims_name_have_more_seeds(monkeypatch):
    monkeypatch.setitem(FENG.__dict__, "seeds", {"photo": Seeds(5, 3)})
    assert FENG.seeds_of("hybrid", "photo") == 5
    assert FENG.seeds_of("another", "photo") == 3
    assert FENG.seeds_of("hybrid", "quick") is None
