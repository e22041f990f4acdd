"""The path of a number, with real pictures in a folder, real processes, and real
kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import samples
from fgbook import papers, paths
from fgbook.errors import InputError
from fgbook.evidence import measures, records, runs, tuning
from fgbook.papers.spec import Row, Tuning
from fgbook.recipe import Recipe
from fgbook.training import loop

SMALL = {
    "image_size": 32,
    "store_size": 36,
    "epochs": 2,
    "batch_size": 8,
    "backbone": "small",
    "weights": "none",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of real PNG files that differ in colour, in train, val and test
    folders."""
    return samples.folder(
        tmp_path_factory.mktemp("pictures") / "set",
        count={"train": 12, "val": 4, "test": 6},
    )


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))
    runs._load.cache_clear()


def resolve(pictures, row="plain", seed=0, **overrides):
    return runs.resolve(
        "feng", row, dataset=pictures, seed=seed, overrides={**SMALL, **overrides}
    )


def run(pictures, row="plain", seed=0, **overrides):
    return runs.execute(resolve(pictures, row, seed, **overrides), progress=False)


def test_a_record_holds_what_is_needed_to_trust_and_repeat_it(pictures):
    record = run(pictures)
    for name in (
        "key",
        "seed",
        "recipe",
        "profile",
        "commit",
        "dirty",
        "data_fingerprint",
        "versions",
        "hardware",
        "parameters",
        "flops",
        "command",
        "weights",
        "train",
        "printed",
        "created",
    ):
        assert name in record
    # of the code that is part of its key
    assert record["loop_version"] == loop.VERSION
    assert record["measures_version"] == measures.VERSION
    assert record["metrics"]["test"]["n"] == 12
    assert record["metrics"]["val"]["n"] == 8
    predictions = records.load_predictions(record)
    assert (predictions["prediction"] == predictions["label"]).mean() == pytest.approx(
        record["metrics"]["test"]["top1"]
    )
    assert record["flops"] > 1e5
    assert record["parameters"] > 1e4
    json.dumps(record, allow_nan=False)
    assert f"--dataset {pictures}" in record["command"]
    assert "--seed 0" in record["command"]
    assert "--set epochs=2" in record["command"]


def test_equal_key_is_not_run_again_and_everything_that_matters_changes_the_key(
    pictures, monkeypatch
):
    record = run(pictures)
    monkeypatch.setattr(runs.loop, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert run(pictures)["created"] == record["created"]
    base = resolve(pictures)
    others = [
        resolve(pictures, seed=1),
        resolve(pictures, lr=0.03),
        resolve(pictures, row="hybrid"),
        resolve(pictures, row="single"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 5
    assert resolve(pictures, compile=True).key == base.key
    monkeypatch.setattr(runs.methods.METHODS["plain"], "VERSION", 99)
    assert resolve(pictures).key != base.key


def test_the_data_change_the_key(pictures, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pictures.removeprefix("folder:"), copy)
    before = resolve(f"folder:{copy}").key
    Image.new("RGB", (40, 48), (1, 2, 3)).save(copy / "train" / "red" / "0.png")
    runs._load.cache_clear()
    assert resolve(f"folder:{copy}").key != before


def test_model_comes_back_with_the_numbers_of_its_record(pictures):
    record = run(pictures, row="hybrid", image_size=72, store_size=80)
    network, dataset = runs.model(
        resolve(pictures, row="hybrid", image_size=72, store_size=80), progress=False
    )
    probabilities = runs.loop.predict(
        network, dataset.test, Recipe.of(record["recipe"])
    )
    assert (
        probabilities.argmax(1).numpy()
        == records.load_predictions(record)["prediction"]
    ).all()
    assert not network.training


def test_a_published_record_is_enough_but_a_model_is_trained_when_asked_for(pictures):
    record = run(pictures)
    records.publish(record)
    shutil.rmtree(paths.runs())
    assert run(pictures)["created"] == record["created"]
    assert not (paths.runs() / record["key"]).exists()
    runs.model(resolve(pictures), progress=False)
    assert (
        records.load(paths.runs() / record["key"] / "record.json")["metrics"]
        == record["metrics"]
    )


def test_after_the_budget_a_record_does_not_stand_for_a_model(pictures):
    records.publish(run(pictures))
    shutil.rmtree(paths.runs())
    asked = {"rows": ["plain"], "dataset": pictures, "overrides": SMALL}
    asked |= {"budget_minutes": 1e-9, "progress": False}
    with pytest.warns(RuntimeWarning, match="after 0 of 1 runs"):
        assert runs.rows("feng", **asked, train=True) == []
    assert len(runs.rows("feng", **asked)) == 1


def test_tensorboard_of_a_run_that_is_done_is_not_passed_over(pictures):
    records.publish(run(pictures))
    asked = {"rows": ["plain"], "dataset": pictures, "overrides": SMALL}
    with pytest.warns(RuntimeWarning, match="is done: nothing is written for TensorB"):
        runs.rows("feng", **asked, progress=False, tensorboard=True)


def test_tuning_measures_validation_only(pictures, monkeypatch):
    listed = Tuning(Recipe(**SMALL), {"plain": ({}, {"lr": 0.02})})
    paper = replace(papers.get("feng"), tuning={"quick": listed})
    monkeypatch.setattr(papers, "get", lambda key: paper)
    tries = tuning.tune("feng", "plain", "quick", pictures, progress=False)
    assert [t["metrics"]["test"] for t in tries] == [None, None]
    assert {t["seed"] for t in tries} == {tuning.SEED}
    assert tries[0]["metrics"]["val"]["top1"] >= tries[1]["metrics"]["val"]["top1"]
    assert {tuple(t["overrides"].items()) for t in tries} == {(), (("lr", 0.02),)}
    for attempt in tries:
        log = paths.runs() / attempt["key"] / "log.jsonl"
        curve = [json.loads(line)["val_top1"] for line in log.open()]
        assert attempt["train"]["val_top1"] == curve
    with pytest.raises(InputError, match="lists no tuning for row 'hybrid'"):
        tuning.tune("feng", "hybrid", "quick", pictures)


@pytest.mark.parametrize(
    ("curve", "points"),
    [
        ([0.2, 0.5, 0.7, 0.71], 1.0),
        ([0.2, 0.5, 0.7, 0.71, 0.6, 0.8, 0.9, 0.85], 5.0),  # after the sixth epoch
        ([0.2, 0.5, 0.7], None),  # too few
        ([None] * 4, None),  # nothing was held out
        ([], None),  # made before the curve was kept
    ],
)
def test_what_the_last_quarter_of_the_epochs_brought(curve, points):
    found = tuning.last_quarter({"train": {"val_top1": curve}})
    assert found == (points if points is None else pytest.approx(points))


@pytest.fixture
def staged(monkeypatch):
    """feng's paper with two rows more: `second` starts from what `plain` learned,
    `other` from what `second` did."""
    paper = papers.get("feng")
    own = paper.row("plain").recipes["quick"]
    low = {"quick": own.but(resolution="low", low_side=8, lr=0.001)}
    more = (
        Row("second", "then low", "plain", {}, low, after="plain"),
        Row("other", "and again", "plain", {}, low, after="second"),
    )
    monkeypatch.setattr(
        papers, "get", lambda key: replace(paper, rows=(*paper.rows, *more))
    )


def test_a_stage_starts_from_the_weights_of_the_one_before(
    pictures, staged, monkeypatch
):
    record = run(pictures, "other")
    made = {r["row"]: r for r in records.fresh()}
    assert made.keys() == {"plain", "second", "other"}
    assert record["after"] == made["second"]["key"]
    assert made["second"]["after"] == made["plain"]["key"]
    assert record["metrics"]["test_low"]["n"] == 12
    assert len(records.load_predictions(record)["low_nll"]) == 12
    assert "test_low" not in made["plain"]["metrics"]

    starts = []
    fit = runs.loop.fit

    def noting(network, *arguments, **keywords):
        state = network.state_dict()
        starts.append({name: value.clone() for name, value in state.items()})
        return fit(network, *arguments, **keywords)

    monkeypatch.setattr(runs.loop, "fit", noting)
    again = run(pictures, "second", epochs=1)  # a change applies to both stages
    assert len(starts) == 2
    assert again["key"] != made["second"]["key"]
    first = load_file(paths.runs() / again["after"] / "model.safetensors")
    assert all(torch.equal(starts[1][name], first[name]) for name in first)
    assert runs.of(record).key == record["key"]
    assert runs.of(record).after.key == record["after"]
    keys = {
        resolve(pictures, "second").key,
        resolve(pictures, "second", seed=1).key,
        resolve(pictures, "other").key,
    }
    assert len(keys) == 3


def test_rows_with_equal_keys_share_a_run_under_both_names(pictures, monkeypatch):
    paper = papers.get("feng")
    twin = replace(paper.row("plain"), name="twin")
    monkeypatch.setattr(
        papers, "get", lambda key: replace(paper, rows=(*paper.rows, twin))
    )
    first, second = run(pictures), run(pictures, "twin")
    assert first["key"] == second["key"]
    assert (first["row"], second["row"]) == ("plain", "twin")
    assert len(records.fresh()) == 1


def test_a_part_of_the_training_images(pictures):
    record = run(pictures, fraction=0.5)
    assert record["images"] == {"train": 12, "val": 4, "test": 12}
    assert record["key"] != resolve(pictures).key
    assert resolve(pictures, fraction=1.0).key == resolve(pictures).key
    files = [
        set(resolve(pictures, fraction=share).data().train.files)
        for share in (0.25, 0.5, 1.0)
    ]
    assert files[0] < files[1] < files[2]
    assert [len(f) for f in files] == [6, 12, 24]
    assert resolve(pictures, fraction=0.5).data().train.labels.bincount().tolist() == [
        6,
        6,
    ]


def test_wrong_names_are_refused_with_the_nearest(pictures):
    for arguments, message in (
        ({"paper": "fneg", "row": "plain"}, "did you mean 'feng'"),
        ({"paper": "feng", "row": "hybird"}, "did you mean 'hybrid'"),
        ({"paper": "feng", "row": "plain", "profile": "quik"}, "did you mean 'quick'"),
        (
            {"paper": "feng", "row": "plain", "overrides": {"epoch": 1}},
            "did you mean 'epochs'",
        ),
        (
            {"paper": "feng", "row": "plain", "overrides": {"backbone": "resnet5"}},
            "did you mean 'resnet50'",
        ),
    ):
        with pytest.raises(InputError, match=message):
            records.find(runs.resolve(**arguments).key)


def test_a_budget_that_ends_first_leaves_a_run_that_goes_on(pictures):
    undisturbed = run(pictures, seed=3)
    shutil.rmtree(paths.runs() / undisturbed["key"])
    unfinished = runs.execute(
        resolve(pictures, seed=3), budget_minutes=1e-6, progress=False
    )
    assert unfinished is None
    record = run(pictures, seed=3)
    assert record["metrics"] == undisturbed["metrics"]


WORKER = """
import sys, torch
torch.set_num_threads(1)
from fgbook.evidence import runs
run = runs.resolve("feng", "plain", dataset=sys.argv[1], overrides=eval(sys.argv[2]))
runs.execute(run, progress=False)
"""


def start(pictures, **overrides):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, pictures, repr({**SMALL, **overrides})],
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_who_waits_for_another_process_keeps_to_the_budget(pictures):
    asked = resolve(pictures)
    process = start_holding(asked.key)
    began = time.monotonic()
    assert runs.execute(asked, budget_minutes=1 / 60, progress=False) is None
    assert 1 <= time.monotonic() - began < 30
    process.communicate("done")
    assert runs.execute(asked, progress=False) is not None


def start_holding(key: str) -> subprocess.Popen:
    """A process that has the turn of a run until it is written to."""
    code = (
        "from fgbook.evidence import runs\n"
        f"with runs._turn({key!r}, runs.Way()): print('mine', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_two_processes_on_one_key_train_once(pictures):
    # so that both find it taken, whichever starts first
    with runs._turn(resolve(pictures, epochs=4).key, runs.Way()):
        both = [start(pictures, epochs=4), start(pictures, epochs=4)]
        for process in both:
            assert (
                "is being made by another process; waiting" in process.stdout.readline()
            )
    for process in both:
        process.communicate(timeout=300)
    assert [process.returncode for process in both] == [0, 0]
    [record] = records.fresh()
    log = [
        json.loads(line)
        for line in (
            (paths.runs() / record["key"] / "log.jsonl").read_text().splitlines()
        )
    ]
    assert [line["epoch"] for line in log] == [1, 2, 3, 4]
    assert (
        sum(path.name == "model.safetensors" for path in paths.runs().rglob("*")) == 1
    )


def test_killed_and_started_again_gives_the_same_weights_and_record(
    pictures, tmp_path, monkeypatch
):
    assert start(pictures, epochs=40).wait(timeout=300) == 0
    [undisturbed] = records.fresh()
    key = undisturbed["key"]
    weights = load_file(paths.runs() / key / "model.safetensors")

    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "again"))
    process = start(pictures, epochs=40)
    log = tmp_path / "again" / key / "log.jsonl"
    deadline = time.monotonic() + 200
    while (
        not (log.is_file() and log.read_text().count("\n") >= 2)
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "again" / key / "record.json").exists(), (
        "finished before it could be killed"
    )
    assert start(pictures, epochs=40).wait(timeout=300) == 0
    [record] = records.fresh()
    assert record["metrics"] == undisturbed["metrics"]
    again = load_file(paths.runs() / key / "model.safetensors")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert {p.name for p in (paths.runs() / key).iterdir()} == {
        "record.json",
        "record.npz",
        "model.json",
        "model.safetensors",
        "log.jsonl",
    }
