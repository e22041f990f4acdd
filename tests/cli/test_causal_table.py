"""The causal table: made once, line by line, published without loss, and refused where
it was damaged.
"""

import json

import pytest
import torch

from commandline import fgbook, refused
from fgbook import papers
from fgbook.errors import AGAIN, InputError
from fgbook.evaluation import causal
from fgbook.evaluation.causal import Scores
from fgbook.evidence import causes, records, runs
from fgbook.figures import causes as drawn

SMALL = {"image_size": 40, "store_size": 44, "epochs": 1, "fraction": 0.2}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of its own, and a table of two small networks with five scenes."""
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))
    networks = {name: ("feng", "plain", SMALL) for name in ("plain", "other")}
    networks["other"] = ("golodov", "levels", SMALL)
    monkeypatch.setattr(causes, "NETWORKS", networks)
    monkeypatch.setattr(causes, "SCENES", 5)
    return tmp_path


def test_all_that_can_be_explained_is_in_the_table():
    for paper, row, changes in causes.NETWORKS.values():
        recipe = papers.get(paper).row(row).recipes["quick"].but(**changes)
        assert recipe.epochs * recipe.fraction >= 1
        assert recipe.image_size == 73  # one experiment for all
    everything = causes.planned()
    blamed = len(causes.BLAMED)
    assert len(set(everything)) == (len(causes.NETWORKS) + blamed * 3) * 5
    first = [one for one in everything[:20] if one.network == "plain"]
    assert len(first) == 20  # the shortcut of the backbone before all else
    assert {one.share for one in everything[20:134]} == {0}
    assert {one.network for one in everything if one.share} == set(causes.BLAMED)


def test_parts_of_the_table_are_named_and_checked():
    assert causes.planned(["dcl"], [90], 2) == [("dcl", 90, 0), ("dcl", 90, 1)]
    with pytest.raises(InputError, match="did you mean 'plain'"):
        causes.planned(["plane"])
    with pytest.raises(InputError, match="did you mean '50'"):
        causes.planned(shares=[51])


def test_the_table_is_made_once_and_read_back(places):
    words = ("causal", "--table", "--share", "0", "--seeds", "1", "--device", "cpu")
    result = fgbook(*words, "--network", "plain")
    assert result.exit_code == 0, result.output
    assert "0 of 1 networks are there" in result.output
    assert "plain, shortcut 0 %, seed 0: published" in result.output
    path = places / "results" / "causal" / "plain.jsonl"
    before = path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["plain.jsonl"]  # no rest

    # again: nothing is made twice; another one is added
    again = fgbook(*words)
    assert again.exit_code == 0, again.output
    assert "1 of 2 networks are there" in again.output
    assert path.read_bytes() == before

    plain, other = causes.lines()
    assert (plain["network"], other["network"]) == ("plain", "other")
    for line in (plain, other):
        assert line["scenes"] == 5
        assert line["command"].startswith("fgbook causal --table")
        assert {"commit", "dirty", "versions", "hardware", "created"} <= set(line)
        assert records.find(line["run"])["metrics"]["test"]["top1"] == line["top1"]

    one = causes.Wanted("other", 0, 0)
    model, _ = runs.model(causes.resolve(one), device="cpu")
    expected = causal.judge(model, causal.experiment(40, 5, 44))
    (found,) = causes.published()["other", 0]
    assert {"own boxes", "own map, level1"} <= set(found.maps)
    same(found, expected)

    shown = drawn.measure_table(causes.published(), "effects", causes.lines())
    for line in (plain, other):
        assert line["command"] in shown.html
    assert shown.html.count("boxes: ") == 1


def same(found: Scores, expected: Scores):
    close = {"atol": 1e-4, "rtol": 0, "equal_nan": True}
    torch.testing.assert_close(found.effects, expected.effects, **close)
    for name, values in expected.network.items():
        torch.testing.assert_close(found.network[name], values, **close)
    for mine, theirs in (
        (found.maps, expected.maps),
        (found.controls, expected.controls),
    ):
        assert mine.keys() == theirs.keys()
        for name, measures in theirs.items():
            for measure, values in measures.items():
                torch.testing.assert_close(mine[name][measure], values, **close)
    assert found.refused == expected.refused


def about(network="plain", share=0, seed=0, **more):
    return {
        "key": f"{network}{share}{seed}",
        "network": network,
        "share": share,
        "seed": seed,
        "paper": "feng",
        "row": network,
        "dataset": f"set{share}",
        **more,
    }


def test_a_line_takes_the_place_of_its_own_only(places):
    for seed, share in ((1, 0), (0, 50), (0, 0)):
        causes._publish(about(share=share, seed=seed), "plain")
    causes._publish(about(seed=1, scenes=7), "plain")
    lines = causes.lines()
    assert [(x["share"], x["seed"]) for x in lines] == [(0, 0), (0, 1), (50, 0)]
    assert [x.get("scenes") for x in lines] == [None, 7, None]


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_table_is_refused_and_can_be_made_again(places, damage):
    causes._publish(about(), "plain")
    path = causes.folder() / "plain.jsonl"
    text = path.read_text(encoding="utf-8")
    line = json.loads(text)
    line["seed"] = 3
    path.write_text(
        {"cut": text[:-9], "changed": json.dumps(line), "other": "[]\n"}[damage],
        encoding="utf-8",
    )
    refused(
        fgbook("causal", "--table", "--network", "plain", "--share", "0"),
        "fgbook causal --table",
    )
    path.unlink()  # as it says
    result = fgbook(
        *("causal", "--table", "--network", "plain", "--share", "0"),
        *("--seeds", "1", "--budget-minutes", "0.0001"),
    )
    assert result.exit_code == AGAIN
    assert "run the same command again" in result.output


def test_either_a_run_or_the_table():
    for words in ((), ("--run", "3f2a", "--table")):
        refused(fgbook("causal", *words), "choose one")


@pytest.mark.parametrize(
    "words",
    [
        ("--run", "3f2a", "--budget-minutes", "5"),
        ("--run", "3f2a", "--network", "plain"),
        ("--table", "--scenes", "48"),
        ("--table", "--publish"),
    ],
)
def test_what_says_nothing_there_is_refused(words):
    refused(fgbook("causal", *words), "leave it out")
