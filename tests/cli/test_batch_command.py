"""`fgbook batch`: real processes, which are interrupted, fail, and go on."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commandline import ended, fgbook, process, refused, wait_for
from fgbook.evidence import records


def started(words: list[str], runs: Path) -> subprocess.Popen:
    """A batch in a process of its own."""
    return process("batch", *words, runs=runs)


def done(words: list[str], runs: Path, status: int) -> str:
    """What a batch says that ends with this status."""
    return ended(started(words, runs), status)


def manifest(runs: Path) -> dict:
    """Of the one batch below a folder of runs."""
    (path,) = runs.glob("batches/*/manifest.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory) -> tuple[list[str], Path, str]:
    """The words of a batch of two rows on pictures, its runs, and what it said."""
    runs = tmp_path_factory.mktemp("runs")
    words = "feng --row plain --row hybrid --jobs 2 --device cpu".split()
    words += ["--dataset", f"folder:{pictures}"]
    return words, runs, done(words, runs, 0)


# ---- what it makes


def test_a_batch_makes_the_records_of_its_rows(finished):
    _, runs, said = finished
    found = [records.load(path) for path in runs.glob("*/record.json")]
    assert {record["row"] for record in found} == {"plain", "hybrid"}
    assert "2 runs: 0 done, 2 to do, about " in said
    for record in found:
        top1 = 100 * record["metrics"]["test"]["top1"]
        assert (
            f"feng {record['row']}, {record['dataset']}, seed 0: {top1:.1f} %" in said
        )
    about = manifest(runs)
    assert about["ended"] == "finished"
    assert about["command"].startswith("fgbook batch feng --row plain")
    assert {run["key"] for run in about["runs"]} == {record["key"] for record in found}
    for run in about["runs"]:
        assert run["state"] == "finished"
        assert run["seconds"] > 0
        assert Path(run["log"]).is_file()


def test_what_is_finished_is_not_run_again(finished, monkeypatch):
    """By the command that the report names."""
    _, runs, _ = finished
    words = shlex.split(manifest(runs)["command"])[1:]
    made = {path: path.stat().st_mtime_ns for path in runs.glob("*/*.*")}
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    result = fgbook(*words)
    assert result.exit_code == 0, result.output
    assert "2 runs: 2 done, 0 to do." in result.stdout
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/*.*")}
    assert after == made


def test_a_plan_trains_nothing_and_says_what_is_there(finished, monkeypatch):
    words, runs, _ = finished
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    result = fgbook("batch", *words, "--seeds", "3", "--plan")
    assert result.exit_code == 0, result.output
    assert "6 runs: 2 done, 4 to do, about " in result.stdout
    (plain,) = [line for line in result.stdout.splitlines() if " plain " in line]
    assert re.search(r" 0 +1 2 ", plain)
    assert "a step, 1 record" in plain
    assert len(list(runs.glob("*/record.json"))) == 2


def test_a_plan_names_the_papers_that_have_none_of_the_rows(finished, monkeypatch):
    words, runs, _ = finished
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    result = fgbook("batch", "peng", *words, "--plan")
    assert result.exit_code == 0, result.output
    assert "peng has none of these rows at profile quick: left out." in result.stdout


def test_keys_name_every_run_and_stage_of_a_plan(pictures):
    asked = ["peng", "--row", "low-high", "--dataset", f"folder:{pictures}"]
    said = fgbook("batch", *asked, "--plan", "--keys").stdout
    stage, last = [line.split("\t") for line in said.splitlines()]
    assert stage[2] == "-"
    assert last[2] == stage[0]
    assert stage[1] == last[1] == "to do"
    for key, *_, command in (stage, last):
        again = fgbook(*command.split()[1:], "--dry-run", "--keys").stdout
        assert again.split("\t")[0] == key
    refused(fgbook("batch", *asked, "--keys"), "--plan")


def test_rows_are_published_when_all_their_seeds_are_there(
    finished, tmp_path, monkeypatch
):
    words, runs, _ = finished
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    result = fgbook("batch", *words, "--publish")
    assert result.exit_code == 0, result.output
    kept = records.published("feng")
    assert {record["row"] for record in kept} == {"plain", "hybrid"}
    assert result.stdout.count("published: feng ") == 2


# ---- what fails


def test_a_failure_does_not_stop_the_others_and_can_be_repaired(
    finished, tmp_path, monkeypatch
):
    words, runs, _ = finished
    own = tmp_path / "runs"
    keys = {run["row"]: run["key"] for run in manifest(runs)["runs"]}
    own.mkdir()
    shutil.copytree(runs / "store", own / "store")
    (own / keys["plain"]).touch()  # in the way of its folder
    said = done(words, own, 1)
    assert (own / keys["hybrid"] / "record.json").is_file()
    (failed,) = [run for run in manifest(own)["runs"] if run["state"] == "failed"]
    assert failed["row"] == "plain"
    assert str(own / keys["plain"]) in failed["why"]
    assert f"failed: feng plain, {failed['dataset']}, seed 0: {failed['why']}" in said
    assert f"log: {failed['log']}" in said
    assert failed["why"] in Path(failed["log"]).read_text()
    assert said.rstrip().endswith("1 of 2 runs failed; see above.")
    assert manifest(own)["ended"] == "failed"

    (own / keys["plain"]).unlink()
    assert "2 runs: 1 done, 1 to do" in done(words, own, 0)


# ---- what is interrupted


def children(process: subprocess.Popen) -> list[int]:
    """Numbers of the processes that it has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_a_batch_ends_cleanly_however_it_is_ended_and_goes_on(tmp_path):
    """By the system, by Ctrl-C, by its budget, by force: the final weights are those of
    a run that nobody disturbed."""
    words = "feng --row plain --device cpu".split()
    own, undisturbed = tmp_path / "own", tmp_path / "undisturbed"

    def epochs() -> int:
        return sum(log.read_text().count("\n") for log in own.glob("*/log.jsonl"))

    def begun(more: int) -> tuple[subprocess.Popen, list[int]]:
        before, batch = epochs(), started(words, own)
        wait_for(lambda: epochs() >= before + more or batch.poll() is not None)
        assert batch.poll() is None, batch.communicate()
        return batch, children(batch)

    for number, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        batch, at_work = begun(1)
        assert at_work
        batch.send_signal(number)
        out, error = batch.communicate(timeout=600)
        assert batch.returncode == status, error
        assert "run the same command again" in error
        assert "seed 0: stopped" in out
        assert not any(map(is_running, at_work))
        assert manifest(own)["ended"] == "interrupted"

    batch, at_work = begun(1)
    batch.kill()
    batch.communicate()
    wait_for(lambda: not any(map(is_running, at_work)))
    assert not list(own.glob("*/record.json"))

    said = done([*words, "--budget-minutes", "0.001"], own, 75)
    assert "the time budget ended after 0 of 1 runs" in said
    done(words, own, 0)
    done(words, undisturbed, 0)
    (one,), (other,) = (runs.glob("*/model.safetensors") for runs in (own, undisturbed))
    assert one.parent.name == other.parent.name
    expected = load_file(other)
    found = load_file(one)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(list(own.glob("*/record.json"))) == 1


def test_wrong_input_is_refused_before_anything_runs(tmp_path):
    refused(fgbook("batch", "fengg"), "unknown paper 'fengg'", "'feng'")
    refused(fgbook("batch", "feng", "--row", "hybird"), "'hybrid'")
    refused(fgbook("batch", "feng", "--profile", "quik"), "'quick'")
    refused(fgbook("batch", "feng", "--dataset", "fieldgide"), "'fieldguide'")
    refused(fgbook("batch", "feng", "--seeds", "2", "--seed", "1"), "exclude")
    assert not (tmp_path / "runs" / "batches").exists()
