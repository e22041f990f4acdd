"""`fgbook run`: from words to records, and how it ends when something is in the way."""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from commandline import SMALL, environment, fgbook, process, python, refused, wait_for
from fgbook import paths
from fgbook.errors import WRONG_INPUT
from fgbook.evidence import records
from fgbook.training import checkpoints


def files(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder but the decoded pictures, with its content."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "store" not in path.parts
    }


# ---- found again


def test_a_run_is_found_again_by_the_command_in_its_record(trained, with_run):
    runs, _ = trained
    made = {path: path.stat().st_mtime_ns for path in runs.glob("*/*")}
    result = fgbook(*with_run["command"].split()[1:])
    assert result.exit_code == 0
    assert with_run["key"] in result.stdout
    after = {
        path: path.stat().st_mtime_ns
        for path in runs.glob("*/*")
        if path.parent.name != "locks"
    }
    assert after.items() <= made.items()


def test_what_is_given_twice_counts_once(words, with_run):
    twice = "--seed 0 --seed 0 --row plain --set epochs=4 --set epochs=4".split()
    dataset = words[words.index("--dataset") :][:2]
    _, *lines = fgbook(*words, *twice, *dataset).stdout.splitlines()
    (line,) = [line for line in lines if with_run["key"] in line]
    assert line.split()[5] == "1", "seeds"


def test_the_path_of_a_folder_is_meant_from_here(
    pictures, words, with_run, monkeypatch
):
    """The record has it absolute, so that its command works from anywhere."""
    monkeypatch.chdir(pictures.parent)
    relative = [word.replace(f"{pictures.parent}/", "") for word in words]
    assert relative != words
    result = fgbook(*relative, "--set", "epochs=4")
    assert with_run["key"] in result.stdout
    assert f"folder:{pictures}" in result.stdout


def test_publish_copies_records_to_the_published_ones(words, with_run, tmp_path):
    again = [*words, "--set", "epochs=4"]
    assert "published" not in fgbook(*again).stdout
    assert not (tmp_path / "results").exists()
    assert "published: " in fgbook(*again, "--publish").stdout
    (kept,) = records.published("feng")
    assert kept["key"] == with_run["key"]
    labels = records.load_predictions(kept)["label"]
    assert len(labels) == with_run["metrics"]["test"]["n"]


# ---- outputs that can be named beforehand


def test_the_key_of_a_run_is_told_before_it_is_made(words, with_run):
    asked = [*words, *"--set epochs=4 --seeds 2 --dry-run --keys".split()]
    first, second = fgbook(*asked).stdout.splitlines()
    key, state, before, command = first.split("\t")
    assert (key, state, before) == (with_run["key"], "done", "-")
    assert command == with_run["command"]
    key, state, before, command = second.split("\t")
    assert state == "to do"
    (again,) = fgbook(*command.split()[1:], "--dry-run", "--keys").stdout.splitlines()
    assert again == second


def test_a_record_is_also_written_where_it_is_asked_for(words, with_run, tmp_path):
    path = tmp_path / "engine" / "plain.json"
    asked = [*words, "--set", "epochs=4", "--record", str(path)]
    assert fgbook(*asked).exit_code == 0
    copy = records.load(path)
    assert copy["key"] == with_run["key"]
    assert copy["metrics"] == with_run["metrics"]
    labels = records.load_predictions(copy)["label"]
    assert len(labels) == with_run["metrics"]["test"]["n"]

    refused(fgbook(*asked, "--seeds", "2"), "one run, and 2 are asked for")
    refused(fgbook(*words, "--record", str(tmp_path / "a.txt")), "must end in .json")
    inside = str(path / "b.json")
    refused(fgbook(*words, "--record", inside), "plain.json is a file, not a folder")
    refused(fgbook(*words, "--keys"), "--dry-run")


@pytest.mark.parametrize("number", ["nan", "inf", "0", "-1"])
def test_a_budget_is_a_finite_time(words, number):
    result = fgbook(*words, "--budget-minutes", number)
    assert result.exit_code == WRONG_INPUT
    assert "Invalid value for '--budget-minutes'" in result.stderr


def test_a_seed_is_one_that_all_generators_take(words):
    result = fgbook(*words, "--seed", str(2**64))
    assert result.exit_code == WRONG_INPUT
    assert "Invalid value for '--seed'" in result.stderr


# ---- options of the method


def test_an_option_changes_the_run_and_stands_in_its_command(pictures):
    asked = f"run feng --row hybrid --dataset folder:{pictures}".split()
    asked += [*SMALL, "--set", "epochs=1", "--option", "m=4", "--option", "m=4"]
    changed = fgbook(*asked)
    assert changed.exit_code == 0, changed.output
    assert "m=4" in changed.stdout
    (record,) = records.fresh()
    assert record["options"]["m"] == 4
    assert "--option m=4" in record["command"]
    again = fgbook(*record["command"].split()[1:])
    assert record["key"] in again.stdout
    assert len(records.fresh()) == 1


# ---- dry runs


@pytest.fixture
def dry_run(trained, words, with_run, monkeypatch, tmp_path) -> str:
    """What is said before two rows are run with two seeds, of which one run is there;
    nothing is kept."""
    from fgbook.evidence import estimate

    runs, _ = trained
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.3)
    asked = [*words, *"--row hybrid --set epochs=4 --seeds 2 --device cpu".split()]
    before = files(runs)
    result = fgbook(*asked, "--dry-run")
    assert result.exit_code == 0, result.output
    assert files(runs) == before
    assert not files(tmp_path)
    assert not (tmp_path / "results").exists()
    return result.stdout


def test_a_dry_run_says_what_is_true(dry_run, with_run):
    plain, hybrid = dry_run.split("feng hybrid")
    images, steps = with_run["images"], with_run["train"]["steps"]
    for part in (
        f"train {images['train']}, val {images['val']}, test {images['test']};",
        "2 classes",
        "epochs=4*",
        "batch_size=8*",
        "optimiser=adamw,",
        f"{steps:,} in 4 epochs",
        f"{with_run['parameters']:,} parameters learn, 0 are fixed",
        f"{with_run['flops'] / 1e9:.3g} GFLOP",
        f"seed 0       has a record: {with_run['key']}",
        "seed 1       to do",
    ):
        assert part in plain, dry_run
    assert "to do" in hybrid
    assert hybrid.splitlines()[-1].startswith("total: 4 runs, 3 to do, about ")
    # An image of 32 px, 8 in a batch: the small backbone keeps at least one map of each
    # of its 10 convolutions.
    activations = re.search(r"activations ([\d.]+) MiB", plain)
    assert activations, plain
    assert float(activations[1]) > 0.5


def test_a_dry_run_tells_a_checkpoint_and_what_is_left(words, tmp_path, monkeypatch):
    from fgbook.evidence import estimate

    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.1)
    long = [*words, *"--set epochs=500 --device cpu".split()]
    fgbook(*long, "--budget-minutes", "0.01")
    (log,) = (tmp_path / "runs").glob("*/log.jsonl")
    done = log.read_text().count("\n")
    before = files(tmp_path / "runs")
    said = fgbook(*long, "--dry-run").stdout
    assert f"has a checkpoint, {done} of 500 epochs done: {log.parent}" in said
    assert files(tmp_path / "runs") == before


# ---- several processes

LAUNCHERS = {
    "torchrun": "torch.distributed.run --nproc-per-node 2 --standalone",
    "accelerate": (
        "accelerate.commands.launch --cpu --num_processes 2 --main_process_port 0"
    ),
}


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_two_processes_make_the_record_of_one(launcher, words, tmp_path):
    """Real launchers, gloo on the CPU. Statistics are frozen, so that images do not see
    each other; the last batch is odd."""
    asked = [*words, *"--set epochs=2 --set batchnorm=frozen --device cpu".split()]
    both = subprocess.run(
        [sys.executable, "-m", *launcher.split(), "-m", "fgbook", *asked],
        env=environment(FGBOOK_RUNS=tmp_path / "both"),
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert both.returncode == 0, both.stderr
    assert both.stdout == fgbook(*asked).stdout  # one table, of the same numbers
    (path_of_one,) = (tmp_path / "runs").glob("*/record.json")
    (path_of_two,) = (tmp_path / "both").glob("*/record.json")
    one, two = records.load(path_of_one), records.load(path_of_two)
    assert one["key"] == two["key"]
    assert one["train"]["steps"] == two["train"]["steps"]
    for split in ("val", "test"):
        assert two["metrics"][split] == pytest.approx(one["metrics"][split], abs=1e-4)
    first, second = records.load_predictions(one), records.load_predictions(two)
    assert (first["prediction"] == second["prediction"]).all()
    assert np.allclose(first["confidence"], second["confidence"], atol=2e-3)


def test_the_notebook_trains_in_two_processes(pictures, tmp_path, monkeypatch):
    """Its own cells, started as Jupyter would; the kernel itself then only reads the
    record."""
    notebook = paths.REPOSITORY / "notebooks" / "feng_accuracy.ipynb"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = python(
        f"""
import nbformat
notebook = nbformat.read({str(notebook)!r}, 4)
cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
[parameters] = [cell for cell in cells if "processes: int = 1" in cell]
[runs] = [cell for cell in cells if "notebook_launcher(" in cell]
exec(parameters)
dataset, rows, device = {f"folder:{pictures}"!r}, "plain", "cpu"
epochs, processes = 1, 2
exec(runs)
import torch.distributed
assert not torch.distributed.is_initialized()
print("found", *[record["key"] for record in found])
""",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/record.json")
    assert "Launching training on 2 " in done.stdout
    assert done.stdout.splitlines()[-1] == f"found {records.load(path)['key']}"


# ---- interrupted


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_request_to_end_leaves_a_checkpoint_of_that_step(
    words, tmp_path, number, status
):
    """An engine ends a job, or a person. Each epoch is saved at its end; here also the
    steps since then, however few.
    """
    long = [word.replace("batch_size=8", "batch_size=2") for word in words]
    long += ["--set", "epochs=5000"]
    running = process(*long, runs=tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/log.jsonl")) or running.poll() is not None)
    (log,) = tmp_path.glob("*/log.jsonl")
    wait_for(lambda: log.read_text().count("\n") > 1)
    running.send_signal(number)
    _, error = running.communicate(timeout=600)
    assert running.returncode == status, error
    assert "Traceback" not in error
    *_, (done, total) = re.findall(r"(\d+)/(\d+) \[", error)  # of the progress bar
    content = checkpoints.read(log.parent / "checkpoint.pt")
    assert content is not None
    state = content["state"]
    steps = int(total) // 5000  # in an epoch
    assert state["epoch"] * steps + state["step"] == int(done) > 0
    assert state["epoch"] == log.read_text().count("\n")


def test_ctrl_c_ends_a_run_so_that_it_can_go_on(words, tmp_path):
    long = [*words, "--set", "epochs=5000"]
    running = process(*long, runs=tmp_path)

    def has_begun() -> bool:
        logs = list(tmp_path.glob("*/log.jsonl"))
        return any(log.read_text().count("\n") > 1 for log in logs)

    wait_for(lambda: has_begun() or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=600)
    assert running.returncode == 130, error
    assert "run the same command again" in error
    assert "Traceback" not in error

    (log,) = tmp_path.glob("*/log.jsonl")
    before = log.read_text().splitlines()
    again = process(*long, "--budget-minutes", "0.05", runs=tmp_path)
    _, error = again.communicate(timeout=600)
    assert again.returncode == 75, error
    assert error.count("the time budget ended after 0 of 1 runs") == 1
    after = log.read_text().splitlines()
    assert after[: len(before)] == before  # it went on, and did not begin anew


# ---- disks and readers


def test_a_run_folder_that_cannot_be_written_is_said(words, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "file" / "runs"))
    refused(fgbook(*words), str(tmp_path / "file"))


def test_a_full_disk_is_said_and_earlier_records_stay(trained, words):
    """The limit on file sizes stands in for the full disk: writing fails in the middle
    of a file."""
    runs, record = trained
    kept = {path: path.read_bytes() for path in runs.glob(f"{record['key']}/*")}
    limit = (200_000, 200_000)
    done = process(
        *words,
        *"--seed 1 --set epochs=4".split(),
        runs=runs,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    _, error = done.communicate(timeout=600)
    assert done.returncode == 2, error
    assert "Traceback" not in error
    assert "Error: cannot" in error
    assert "free some space" in error
    assert {path: path.read_bytes() for path in runs.glob(f"{record['key']}/*")} == kept
    assert [path.parent.name for path in runs.glob("*/record.json")] == [record["key"]]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = process("data", "list", runs=tmp_path, stdout=write)
    os.close(write)
    assert done.communicate(timeout=600)[1] == ""
