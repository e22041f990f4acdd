"""The workflow, by a real Snakemake: on this machine, and on a real Slurm of one node.

Snakemake has an environment of its own, never the package's: its program is looked for
in FGBOOK_SNAKEMAKE, else on the path. Where it (or Slurm) is not installed, these tests
are skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import samples
from fgbook import paths
from fgbook.evidence import records

WORKFLOW = paths.REPOSITORY / "workflow"
SNAKEMAKE = os.environ.get("FGBOOK_SNAKEMAKE") or shutil.which("snakemake")

needs_snakemake = pytest.mark.skipif(
    SNAKEMAKE is None, reason="needs Snakemake: see book/batches.md"
)
needs_slurm = pytest.mark.skipif(
    not (
        SNAKEMAKE
        and shutil.which("sbatch")
        and hasattr(os, "geteuid")
        and os.geteuid() == 0
        and os.environ.get("FGBOOK_SLURM")
    ),
    reason="needs Snakemake with its Slurm plugin, Slurm, root, and FGBOOK_SLURM=1",
)


def environment(top: Path) -> dict[str, str]:
    places = {name: str(top / name.lower()) for name in ("RUNS", "RESULTS")}
    told = {f"FGBOOK_{name}": place for name, place in places.items()}
    return dict(os.environ, OMP_NUM_THREADS="1", **told)


def settings(top: Path, **changes) -> list[str]:
    """Words of Snakemake's command line for a workflow that lies below `top`."""
    chosen = {"python": sys.executable, "out": str(top / "out"), "notebooks": []}
    file = top / "settings.yaml"
    file.write_text(yaml.safe_dump({**chosen, **changes}))
    words = ["-s", str(WORKFLOW / "Snakefile"), "--configfile", str(file)]
    return [*words, "--directory", str(top / "work")]


def snakemake(top: Path, words: list[str]) -> subprocess.Popen:
    assert SNAKEMAKE is not None
    return subprocess.Popen(
        [SNAKEMAKE, *words],
        env=environment(top),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def done(top: Path, words: list[str]) -> str:
    process = snakemake(top, words)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


# ---- without an engine


def test_the_settings_are_those_that_the_workflow_reads():
    text = (WORKFLOW / "Snakefile").read_text()
    given = yaml.safe_load((WORKFLOW / "config.yaml").read_text())
    read = {part.split('"')[1] for part in text.split("config[")[1:] if part[0] == '"'}
    read |= {part.split("'")[1] for part in text.split("config[")[1:] if part[0] == "'"}
    assert read == set(given)


@pytest.mark.skipif(sys.platform == "win32", reason="locks files as Unix does")
def test_a_gpu_is_leased_to_one_command_at_a_time(tmp_path):
    """Four commands on two GPUs: each sees one GPU, and no GPU is seen by two at once;
    a command that is killed gives its GPU back."""
    work = (
        "import os, sys, time, pathlib;"
        "gpu = os.environ['CUDA_VISIBLE_DEVICES'];"
        "mark = pathlib.Path(sys.argv[1]) / gpu;"
        "mark.mkdir();"  # raises where another one is at work on it
        "time.sleep(0.7); mark.rmdir(); print(gpu)"
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    lease = [sys.executable, str(WORKFLOW / "lease.py"), str(tmp_path / "gpus"), "2"]

    stuck = subprocess.Popen([*lease, "sleep", "600"])
    wait_for((tmp_path / "gpus" / "1.lock").exists)
    stuck.send_signal(signal.SIGKILL)
    stuck.wait()
    pieces = [
        subprocess.Popen(
            [*lease, sys.executable, "-c", work, str(marks)],
            text=True,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    seen = [piece.communicate(timeout=60)[0].strip() for piece in pieces]
    assert [piece.returncode for piece in pieces] == [0] * 4
    assert sorted(seen) == ["0", "0", "1", "1"]


# ---- on this machine


@needs_snakemake
def test_from_runs_to_an_executed_notebook(tmp_path):
    dataset = samples.folder(tmp_path / "pictures", count=15)
    words = settings(
        tmp_path,
        rows=["plain", "hybrid"],
        datasets=[dataset],
        notebooks=["feng_accuracy"],
        parameters={"dataset": dataset, "rows": "plain,hybrid"},
    )
    done(tmp_path, [*words, "--cores", "2"])
    kept = [records.load(path) for path in (tmp_path / "out/records").glob("*.json")]
    assert sorted(record["row"] for record in kept) == ["hybrid", "plain"]
    for record in kept:
        assert len(records.load_predictions(record)["label"])
    notebook = json.loads((tmp_path / "out/notebooks/feng_accuracy.ipynb").read_text())
    said = json.dumps(notebook["cells"])
    for record in kept:
        assert record["key"] in said
    assert "Nothing to be done" in done(tmp_path, [*words, "--cores", "2"])


@needs_snakemake
def test_a_run_that_its_budget_ended_is_called_again(tmp_path):
    """Status 75 is no record: a second call goes on to the end of the run."""
    words = settings(tmp_path, rows=["plain"], minutes=0.02, retries=0)
    cut = snakemake(tmp_path, [*words, "--cores", "1"])
    said, _ = cut.communicate(timeout=600)
    assert cut.returncode != 0, said
    assert not list((tmp_path / "out/records").glob("*.json"))
    (log,) = (tmp_path / "out/logs").glob("*.log")
    assert "the time budget ended after 0 of 1 runs" in log.read_text()
    words = settings(tmp_path, rows=["plain"])
    done(tmp_path, [*words, "--cores", "1", "--rerun-triggers", "mtime"])
    (record,) = (tmp_path / "out/records").glob("*.json")
    assert records.load(record)["train"]["steps"] == 150


# ---- on Slurm

SLURM = (
    "--executor slurm --jobs 2 --slurm-no-account --slurm-status-command squeue"
    " --slurm-init-seconds-before-status-checks 5 --latency-wait 10"
    " --default-resources slurm_partition=here mem_mb=1000 runtime=60"
).split()


@pytest.fixture
def slurm():
    """Not below pytest's own folder, which the user of munge may not enter."""
    script = str(WORKFLOW / "slurm-here.sh")
    place = tempfile.mkdtemp(prefix="slurm-here-")
    try:
        subprocess.run([script, "start", place], check=True)
        yield
    finally:
        subprocess.run([script, "stop", place], check=True)
        shutil.rmtree(place)


@needs_slurm
def test_a_cancelled_job_goes_on_and_no_record_is_lost_or_doubled(slurm, tmp_path):
    """Two rows; the job of one is killed with scancel in its middle. Snakemake submits
    it anew, and its final weights are those of a run that nobody disturbed."""
    changes = {"rows": ["plain", "single"], "retries": 2}
    words = settings(tmp_path, **changes)
    working = snakemake(tmp_path, [*words, *SLURM])

    jobs: list[str] = []

    def in_the_middle() -> bool:
        """Note the number of a job whose run has finished an epoch."""
        for log in (tmp_path / "runs").glob("*/log.jsonl"):
            if log.read_text().count("\n") in (1, 2, 3):
                listed = subprocess.run(
                    ["squeue", "-h", "-o", "%i %k"], capture_output=True, text=True
                ).stdout
                for line in listed.splitlines():
                    if log.parent.name in line:
                        jobs.append(line.split()[0])
                        return True
        return working.poll() is not None

    wait_for(in_the_middle)
    assert jobs, working.communicate()
    subprocess.run(["scancel", *jobs], check=True)
    said, _ = working.communicate(timeout=1200)
    assert working.returncode == 0, said

    calm = tmp_path / "calm"
    calm.mkdir()
    done(calm, [*settings(calm, **changes), "--cores", "1"])
    stopped = 0
    for path in sorted((tmp_path / "out/records").glob("*.json")):
        key = records.load(path)["key"]
        log = (tmp_path / f"out/logs/{key}.log").read_text()
        stopped += "stopped; run the same command again" in log
        weights = [top / "runs" / key / "model.safetensors" for top in (tmp_path, calm)]
        found, expected = map(load_file, weights)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert stopped == 1
    assert len(list((tmp_path / "out/records").glob("*.json"))) == 2
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 2
