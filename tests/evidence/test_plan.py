"""From a row of a paper's file to runs: options, changes, names, and pictures that are
added while a Python process lives."""

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import samples
from fgbook import methods, papers, recipe
from fgbook.errors import InputError
from fgbook.evidence import measures, records, runs, tuning, verdicts
from fgbook.papers.spec import Claim, Row, Tuning
from fgbook.recipe import Recipe

SMALL = {
    "image_size": 32,
    "store_size": 36,
    "epochs": 1,
    "batch_size": 8,
    "backbone": "small",
    "weights": "none",
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    return samples.folder(tmp_path_factory.mktemp("pictures") / "set")


def resolve(pictures: str, row: str = "hybrid", **changes) -> runs.Run:
    return runs.resolve("feng", row, dataset=pictures, overrides=SMALL, **changes)


def execute(run: runs.Run) -> dict:
    return runs.execute(run, device="cpu", progress=False)


# ---- options of a method


def test_an_option_changes_the_run_and_its_key(pictures):
    changed = resolve(pictures, options={"m": 5})
    assert changed.options == resolve(pictures).options | {"m": 5}
    assert changed.option_changes == {"m": 5}
    assert changed.key != resolve(pictures).key
    assert changed.key != resolve(pictures, options={"m": 4}).key


def test_options_may_be_typed_as_text(pictures):
    wanted = {"paper": "feng", "rows": ["hybrid"], "dataset": pictures}
    (typed,) = runs.planned(**wanted, options="m=5  box=0.3")
    (given,) = runs.planned(**wanted, options={"m": 5, "box": 0.3})
    assert typed.key == given.key
    assert typed.option_changes == {"m": 5, "box": 0.3}


@pytest.mark.parametrize(
    ("rows", "text", "says"),
    [
        (["hybrid"], "m", "option 'm' has no '='; write NAME=VALUE"),
        (["hybrid"], "m=two", "focus: m must be a whole number"),
        (["hybrid"], "m=4 m=5", "option gives m two values"),
        # the plain row has no options at all
        (["plain", "hybrid"], "m=4", "unknown option of plain 'm'"),
    ],
    ids=["no value", "type", "two values", "of another row"],
)
def test_wrong_text_is_refused(pictures, rows, text, says):
    with pytest.raises(InputError, match=says):
        runs.planned("feng", rows, dataset=pictures, options=text)


def test_an_option_as_the_row_has_it_changes_nothing(pictures):
    own = methods.options_of("focus") | papers.get("feng").row("hybrid").options
    same = resolve(pictures, options={"m": own["m"], "box": own["box"]})
    assert same.option_changes == {}
    assert same.key == resolve(pictures).key


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mm": 2}, "unknown option of focus 'mm'; did you mean 'm'"),
        ({"m": "two"}, "focus: m must be a whole number"),
        ({"m": 2.5}, "focus: m must be a whole number"),
        ({"m": -1}, "m"),
        ({"box": 7.0}, "box"),
    ],
    ids=["name", "text", "half", "negative", "too large"],
)
def test_a_wrong_option_is_refused_before_anything_is_read(options, says):
    with pytest.raises(InputError, match=says):
        runs.resolve("feng", "hybrid", dataset="folder:/nowhere", options=options)


def test_a_changed_option_is_in_the_record_and_its_command(pictures):
    record = execute(resolve(pictures, options={"m": 5}))
    assert record["option_changes"] == {"m": 5}
    assert record["options"]["m"] == 5
    assert "--option m=5" in record["command"]
    assert runs.of(record).key == record["key"]
    assert runs.of(record).command == record["command"]


def from_command(command: str) -> runs.Run:
    """The run that a command asks for, by the functions that the command line uses."""
    words = shlex.split(command)
    paper, row = words[2], words[words.index("--row") + 1]
    method = papers.get(paper).row(row).method
    overrides, options = {}, {}
    for flag, word in pairwise(words):
        name, _, text = word.partition("=")
        if flag == "--set":
            overrides[name] = recipe.parse(name, text)
        if flag == "--option":
            options[name] = methods.parse_option(method, name, text)
    return runs.resolve(
        paper,
        row,
        words[words.index("--profile") + 1],
        words[words.index("--dataset") + 1],
        int(words[words.index("--seed") + 1]),
        overrides,
        options,
    )


@pytest.mark.parametrize(
    ("paper", "row", "overrides", "options"),
    [
        ("feng", "hybrid", {"flip": False, "lr": 0.5}, {"m": 5, "box": 0.25}),
        ("feng", "plain", {"loss_weights": (("image", 0.5),)}, {}),
        ("gautam", "all", {}, {"spatial": False}),
        ("golodov", "adam", {"epochs": 2}, {"hidden": 16, "pool": "gap"}),
    ],
)
def test_a_run_is_what_its_command_says(pictures, paper, row, overrides, options):
    run = runs.resolve(paper, row, "quick", pictures, 3, overrides, options)
    again = from_command(run.command)
    assert again.key == run.key
    assert again == run


def test_options_that_two_stages_share_change_in_both(pictures):
    first = {"part": "pretrain"}
    simsiam = papers.get("gautam").row("simsiam")
    assert papers.get("gautam").row(simsiam.after).options == first
    run = runs.resolve("gautam", "simsiam", "quick", options={"width": 64})
    assert run.options["width"] == 64
    assert run.after.options == first | {"width": 64}
    assert run.after.option_changes == {"width": 64}


def test_an_option_in_which_two_stages_differ_changes_in_the_last_alone():
    row = papers.get("peng").row("super-resolution")
    before = papers.get("peng").row("restorer")
    assert row.options["part"] != before.options["part"]
    run = runs.resolve("peng", row.name, "quick", options={"part": "restorer"})
    assert run.option_changes == {"part": "restorer"}
    assert run.after.option_changes == {}


def test_a_row_with_a_changed_option_shares_the_run_of_the_row_that_it_equals(
    pictures, monkeypatch
):
    paper = papers.get("feng")
    hybrid = paper.row("hybrid")
    twin = Row("two", "", "focus", hybrid.options | {"m": 5}, hybrid.recipes)
    rows = (*paper.rows, twin)
    monkeypatch.setattr(papers, "get", lambda key: replace(paper, rows=rows))
    record = execute(resolve(pictures, "two"))
    found = execute(resolve(pictures, options={"m": 5}))
    assert found["key"] == record["key"]
    assert found["row"] == "hybrid"
    assert found["option_changes"] == {"m": 5}
    assert record["option_changes"] == {}


def test_changed_records_are_no_record_of_their_row(pictures):
    own = execute(resolve(pictures))
    changed = execute(resolve(pictures, options={"m": 5}))
    # the overrides that make it small count as changes, too
    own["overrides"] = changed["overrides"] = {}
    assert records.own(own)
    assert not records.own(changed)
    assert records.changes(changed) == {"m": 5}
    claim = Claim("X1", "", "hybrid", "plain")
    photo = [{**own, "profile": "photo"}, {**changed, "profile": "photo", "seed": 1}]
    with pytest.raises(InputError, match="options differs"):
        verdicts.verdict(claim, photo, photo)


def test_a_published_record_gives_way_to_its_own_kind_only(pictures):
    own = execute(resolve(pictures))
    changed = execute(resolve(pictures, options={"m": 5}))
    older = {name: value for name, value in own.items() if name != "option_changes"}
    older["key"] = "0" * 16
    kept = records.publish(changed)
    gone = records.publish(older)  # made before options could be changed
    assert records.publish(own).is_file()
    assert kept.is_file()
    assert not gone.exists()


def test_a_published_record_of_other_pictures_stays_and_is_told_of(pictures):
    """A person's own copy of a data set takes nothing away from what is published; a
    folder has no other copy."""
    made = execute(resolve(pictures))

    def published(dataset: str, number: int) -> Path:
        key, seen = str(number) * 16, str(number) * 64
        changed = {"dataset": dataset, "key": key, "data_fingerprint": seen}
        return records.publish(made | changed)

    official = published("cub50", 1)
    with pytest.warns(RuntimeWarning, match="of other pictures of cub50; it stays"):
        own = published("cub50", 2)
    assert official.is_file() and own.is_file()
    # the same pictures, by newer code
    with pytest.warns(RuntimeWarning, match="of other pictures"):
        newer = records.publish(records.load(own) | {"key": "3" * 16})
    assert [path.is_file() for path in (official, own, newer)] == [True, False, True]

    first, second = (published("folder:/birds", number) for number in (4, 5))
    assert [path.is_file() for path in (first, second)] == [False, True]


def test_tuning_takes_options_too_but_not_those_that_a_try_is_about(
    pictures, monkeypatch
):
    tries = {"hybrid": ({}, {"options": {"m": 4}})}
    listed = Tuning(Recipe(**SMALL), tries)
    paper = replace(papers.get("feng"), tuning={"quick": listed})
    monkeypatch.setattr(papers, "get", lambda key: paper)
    found = tuning.tune(
        "feng", "hybrid", "quick", pictures, options={"m": 5}, progress=False
    )
    made = {record["options"]["m"]: record["option_changes"] for record in found}
    assert made == {5: {"m": 5}, 4: {}}


# ---- what is given twice, and names


def test_seeds_and_rows_that_are_given_twice_count_once(pictures):
    planned = runs.planned(
        "feng", ["hybrid", "plain", "hybrid"], "quick", pictures, [1, 0, 1]
    )
    assert [(run.seed, run.row) for run in planned] == [
        (1, "hybrid"),
        (1, "plain"),
        (0, "hybrid"),
        (0, "plain"),
    ]


def test_code_that_measures_otherwise_makes_another_run(pictures, monkeypatch):
    """The first version is no part of the key: it came after published records."""
    run = resolve(pictures)
    assert measures.VERSION == 1
    determinants = {
        "method": run.method,
        "options": run.options,
        "recipe": run.recipe.determinants(),
        "weights": run.weights,
        "data": run.fingerprint,
        "seed": run.seed,
        "purpose": run.purpose,
        "versions": [methods.METHODS[run.method].VERSION, runs.loop.VERSION],
    }
    assert run.key == records.key(determinants)
    monkeypatch.setattr(measures, "VERSION", 2)
    assert resolve(pictures).key == records.key(determinants | {"measures": 2})


def test_a_folder_means_the_same_from_everywhere(pictures, monkeypatch):
    place = Path(pictures.removeprefix("folder:"))
    monkeypatch.chdir(place.parent)
    run = runs.resolve("feng", "plain", dataset="folder:set", overrides=SMALL)
    assert run.dataset == pictures
    monkeypatch.chdir("/")
    assert run.key == resolve(pictures, "plain").key


def test_low_resolution_of_kept_maps_is_refused_before_training(pictures):
    line = next(
        row
        for row in papers.get("golodov").rows_at("quick")
        if methods.METHODS[row.method].frozen_backbone
    )
    for overrides in ({"low_side": 8}, {"low_side": 8, "resolution": "low"}):
        with pytest.raises(InputError, match="set low_side=0 and resolution=high"):
            runs.resolve("golodov", line.name, "quick", pictures, overrides=overrides)


# ---- pictures that are added


@pytest.fixture
def growing(tmp_path) -> tuple[str, Path]:
    """A data set, and a picture that it does not have yet."""
    return samples.folder(tmp_path / "set"), tmp_path / "set" / "red" / "new.png"


def test_pictures_that_are_added_between_two_calls_are_seen(growing):
    dataset, new = growing

    def row() -> dict:
        [record] = runs.rows(
            "feng", ["plain"], dataset=dataset, overrides=SMALL, progress=False
        )
        return record

    before = row()
    Image.new("RGB", (40, 48), (1, 2, 3)).save(new)
    after = row()
    assert sum(after["images"].values()) == sum(before["images"].values()) + 1
    assert after["key"] != before["key"]


def test_runs_that_are_planned_together_see_the_same_pictures(growing):
    dataset, new = growing
    first, second = runs.planned("feng", ["plain"], "quick", dataset, 2, SMALL)
    key = first.key
    Image.new("RGB", (40, 48), (1, 2, 3)).save(new)
    assert second.fingerprint == first.fingerprint
    assert first.key == key
    assert len(second.data().train.files) == len(first.data().train.files)
