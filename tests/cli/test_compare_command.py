"""`fgbook compare` on a folder of pictures: real processes, killed in the middle, and
what is refused."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import samples
from commandline import ended, fgbook, process, refused, wait_for
from fgbook.cli import compare
from fgbook.data import fieldguide

WORDS = "--profile quick --row probe --device cpu".split()


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    """Drawn birds of three species as JPEG files, in a folder for each."""
    top = tmp_path_factory.mktemp("birds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(top / "store"))
        drawn = fieldguide.load(64, species=3, per_class=(10, 1, 1))
    for number, label in enumerate(drawn.train.labels.tolist()):
        folder = top / "mine" / drawn.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = drawn.train.images[number].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=95)
    return top / "mine"


def started(words: list[str], runs: Path) -> subprocess.Popen:
    """A comparison in a process of its own."""
    return process("compare", *words, runs=runs)


def done(words: list[str], runs: Path, status: int) -> str:
    """What a comparison says that ends with this status."""
    return ended(started(words, runs), status)


def manifest(runs: Path) -> dict:
    """Of the one comparison below a folder of runs."""
    (path,) = runs.glob("comparisons/*/manifest.json")
    return json.loads(path.read_text())


def results(runs: Path) -> list[dict]:
    """The rows of its table, without times."""
    rows = manifest(runs)["rows"]
    times = ("seconds", "milliseconds")
    kept = [
        {name: value for name, value in row.items() if name not in times}
        for row in rows
    ]
    return sorted(kept, key=lambda row: row["row"])


@pytest.fixture(scope="module")
def finished(birds, tmp_path_factory) -> tuple[Path, str]:
    """The runs of a comparison that nobody disturbed, and what it said."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, done([str(birds), *WORDS], runs, 0)


def test_a_folder_becomes_a_plan_a_table_and_a_report(finished, birds):
    runs, said = finished
    assert f"folder:{birds}: 3 classes, 18 train, 6 val, 6 test pictures." in said
    assert "of each class 60 % train, 20 % val, 20 % test" in said
    assert "2 runs: 0 done, 2 to do, about " in said
    assert "order, seed by seed: probe, plain." in said
    assert "[2/2] compare plain" in said
    assert "Nothing is recommended: runs of the quick profile" in said
    about = manifest(runs)
    assert about["ended"] == "finished"
    # plain is there unasked: it is what the others are compared with
    rows = {row["row"]: row for row in about["rows"]}
    assert set(rows) == {"probe", "plain"}
    assert rows["plain"]["difference"] is None
    difference = rows["probe"]["accuracy"][0] - rows["plain"]["accuracy"][0]
    assert rows["probe"]["difference"]["effect"] == pytest.approx(difference)
    for row in rows.values():
        assert row["seeds"] == 1
        assert row["milliseconds"] > 0
    (page,) = runs.glob("comparisons/*/report.html")
    text = page.read_text()
    assert f"report: {page}" in said
    assert "Comparison on folder:" in samples.Page(text).said
    assert "http" not in text


def test_one_that_was_killed_goes_on_and_ends_with_the_same_table(
    finished, birds, tmp_path
):
    """By the system in the middle of a run, then by its budget."""
    runs, _ = finished
    own = tmp_path / "runs"
    shutil.copytree(runs / "store", own / "store")
    shutil.copytree(runs / "batches", own / "batches")  # timed steps
    words = [str(birds), *WORDS]

    comparison = started(words, own)
    wait_for(lambda: list(own.glob("*/record.json")) or comparison.poll() is not None)
    comparison.send_signal(signal.SIGTERM)
    out, error = comparison.communicate(timeout=600)
    assert comparison.returncode == 75, out + error
    assert "run the same command again" in error
    assert manifest(own)["ended"] == "interrupted"
    there = {path: path.stat().st_mtime_ns for path in own.glob("*/record.json")}
    assert 0 < len(there) < 2

    said = done(words, own, 0)
    assert f"2 runs: {len(there)} done" in said
    for path, time in there.items():
        assert path.stat().st_mtime_ns == time  # not run again
    assert results(own) == results(runs)


def test_a_budget_says_what_it_leaves_out_and_the_choice_is_kept(
    finished, birds, monkeypatch
):
    runs, _ = finished
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    words = [str(birds), *WORDS, "--row", "bilinear"]
    budget = ["--budget-minutes", "0.01"]
    for _ in range(2):
        result = fgbook("compare", *words, *budget, "--plan")
        assert result.exit_code == 0, result.output
        left_out = "left out, because 0.01 minutes are too short for them: bilinear"
        assert left_out in result.stdout
        assert "2 runs: 2 done, 0 to do." in result.stdout
    # all is done that fits, and so the whole command is
    result = fgbook("compare", *words, *budget)
    assert result.exit_code == 0, result.output
    assert "order, seed by seed: probe, plain." in result.stdout
    whole = fgbook("compare", *words, "--plan").stdout
    assert "order, seed by seed: probe, plain, bilinear." in whole
    assert "3 runs: 2 done, 1 to do" in whole


def test_a_margin_that_comes_after_the_runs_is_not_called_fixed_before(
    finished, birds, monkeypatch
):
    runs, _ = finished
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    words = ["compare", str(birds), *WORDS]
    later = fgbook(*words, "--margin", "10")
    assert later.exit_code == 0, later.output
    says = "begun with a margin of 2 points; 10 was asked for after runs were made"
    assert says in later.stdout
    assert "fixed before the runs" not in later.stdout
    page = Path(later.output.partition("report: ")[2].splitlines()[0])
    assert says in samples.Page(page.read_text()).said
    assert says in json.loads(page.with_name("manifest.json").read_text())["rule"]
    # the first one is not forgotten
    again = fgbook(*words)
    assert "The rule, fixed before the runs: " in again.stdout


def test_wrong_input_is_one_sentence(birds, tmp_path):
    refused(fgbook("compare", str(tmp_path / "nowhere")), "is not a folder", "class")
    refused(fgbook("compare", "cub5O"), "'cub50'")
    one = tmp_path / "one"
    samples.folder(one, ["red"])
    refused(fgbook("compare", str(one), "--profile", "quick"), "only one class, 'red'")
    few = tmp_path / "few"
    samples.folder(few, ["red", "blue"], 4)
    for path in sorted((few / "blue").iterdir())[1:]:
        path.unlink()
    refused(fgbook("compare", str(few), "--profile", "quick"), "1 of the three")
    quick = ("--profile", "quick")
    refused(fgbook("compare", str(birds), *quick, "--row", "pmgg"), "'pmg'")
    refused(fgbook("compare", str(birds), "--profile", "quik"), "'quick'")
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_one_test_picture_tells_no_methods_apart(tmp_path):
    mine = tmp_path / "mine"
    samples.folder(mine, ["red", "blue"], {"train": 6, "test": 1})
    next((mine / "test" / "blue").iterdir()).unlink()
    (mine / "test" / "blue").rmdir()
    words = ["--profile", "quick", "--row", "probe"]
    refused(fgbook("compare", str(mine), *words), "needs at least 2", "folder test")


def test_a_plan_chooses_for_no_later_call(birds, monkeypatch, tmp_path):
    """Nor does a call with other means."""
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    words = ["compare", str(birds), *WORDS, "--budget-minutes", "60"]
    assert fgbook(*words, "--plan").exit_code == 0
    assert not list((tmp_path / "runs").glob("comparisons/*/choice.json"))
    entries: list = []
    places = {
        compare.folder(entries, 60, jobs, device)
        for jobs, device in ((1, None), (2, None), (1, "cpu"))
    }
    assert len(places) == 3


def test_a_class_is_left_out_of_neither_part(tmp_path, monkeypatch):
    """Given parts are kept, and said."""
    samples.folder(tmp_path / "mine", ["red", "blue"], {"train": 6, "test": 3})
    words = [f"folder:{tmp_path / 'mine'}", "--profile", "quick", "--plan"]
    result = fgbook("compare", *words, "--row", "probe")
    assert result.exit_code == 0, result.output
    assert "2 classes, 10 train, 2 val, 6 test pictures" in result.stdout
    assert (
        "divided as its folders say, test being test; val is a fifth" in result.stdout
    )
