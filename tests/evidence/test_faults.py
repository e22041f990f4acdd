"""What goes wrong outside: processes killed, racing, disks full, pictures and records
    damaged, hostile names. Real processes and files.

Whole runs are made, from pictures to a published record. All processes are forks of one
that has imported torch (run_worker.py).
"""

import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import samples
from fgbook import paths
from fgbook.errors import InputError
from fgbook.evidence import records

SETTINGS = {
    "image_size": 32,
    "store_size": 36,
    "epochs": 2,
    "batch_size": 8,
    "backbone": "small",
    "weights": "none",
}


class Worker:
    """The process that forks others."""

    def __init__(self):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(paths.REPOSITORY),
        }
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("run_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.process.stdout.readline()  # it has imported everything

    def ask(self, task: dict) -> int:
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self,
        top: Path,
        task: str,
        *arguments,
        out: str = "out",
        die_at: int | None = None,
        environment=(),
    ) -> int:
        """Start a task of run_worker.py with its runs, results, notes and output below
        `top`; returns the process's number."""
        top.mkdir(exist_ok=True)
        places = {
            "FGBOOK_RUNS": top / "runs",
            "FGBOOK_RESULTS": top / "results",
            "NOTES": top / "notes",
        }
        return self.ask(
            {
                "task": task,
                "arguments": [str(a) if isinstance(a, Path) else a for a in arguments],
                "out": str(top / out),
                "die_at": die_at,
                "top": str(top / "r"),
                "environment": {
                    **{name: str(place) for name, place in places.items()},
                    **dict(environment),
                },
            }
        )

    def wait(self, pid: int) -> int:
        return self.ask({"wait": pid})

    def run(self, top: Path, task: str, *arguments, **options) -> tuple[int, str]:
        """(exit status, output) of a task: 0, 1 where `fgbook data check` found
        problems, 2 after a refusal, or killed."""
        (top / "said").unlink(missing_ok=True)
        status = self.wait(self.start(top, task, *arguments, out="said", **options))
        said = (top / "said").read_text(errors="replace").strip()
        assert "Traceback" not in said, said
        return status, said

    def refused(self, top: Path, task: str, *arguments, **options) -> str:
        """The one sentence that a task ends with."""
        status, said = self.run(top, task, *arguments, **options)
        assert status == 2, (
            status,
            said,
        )
        assert len(said.splitlines()) == 1, (
            status,
            said,
        )
        assert said.endswith("."), (
            status,
            said,
        )
        return said


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.process.stdin.close()
    worker.process.wait(20)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return samples.folder(tmp_path_factory.mktemp("pictures") / "set")


@pytest.fixture(scope="module")
def undisturbed(worker, pictures, tmp_path_factory):
    """(the folder of a run that nothing happened to, how many seconds it took)."""
    top = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    status, said = worker.run(top, "run", pictures, SETTINGS)
    assert status == 0, said
    return top, time.monotonic() - start


def contents(top: Path) -> dict:
    """Every file below runs and results, by name; without what may differ between equal
    runs: times, and the state of the clone."""
    found = {}
    for path in sorted(
        file
        for place in ("runs", "results")
        for file in (top / place).rglob("*")
        if not file.is_dir()
    ):
        if path.suffix == ".safetensors":
            content = {
                name: (str(value.dtype), value.numpy().tobytes())
                for name, value in load_file(path).items()
            }
        elif path.suffix == ".jsonl":
            content = [json.loads(line) for line in path.read_text().splitlines()]
            for line in content:
                del line["seconds"], line["images_per_second"]
        elif path.suffix == ".json" and path.name != "index.json":
            content = json.loads(path.read_text())
            if path.name != "model.json":  # has nothing of the kind
                for name in ("created", "commit", "dirty", "sha256"):
                    del content[name]
                del content["train"]["seconds"]
        else:
            content = path.read_bytes()
        found[str(path.relative_to(top))] = content
    return found


def same(top: Path, reference: Path) -> None:
    there, expected = contents(top), contents(reference)
    assert there.keys() == expected.keys()  # no temporary names, no half stores
    for name, content in expected.items():
        assert there[name] == content, name


# killed


def test_a_run_killed_at_twenty_random_moments_ends_as_if_nothing_had_happened(
    worker, pictures, undisturbed, tmp_path
):
    reference, length = undisturbed
    expected = contents(reference)
    # 10 and three locks
    assert sum(name.endswith((".npy", "index.json")) for name in expected) == 3
    assert len(expected) == 13
    kills, tops, phases = 0, [tmp_path / "0"], set()
    for attempt in range(200):
        pid = worker.start(tops[-1], "run", pictures, SETTINGS)
        time.sleep(random.Random(attempt).uniform(0, length))
        os.kill(pid, signal.SIGKILL)
        if worker.wait(pid) == 0:  # it was faster: the next one begins from nothing
            if kills >= 20:
                break
            tops.append(tmp_path / str(len(tops)))
            length *= 0.85  # so that most are hit, however busy the machine is
        else:
            kills += 1
            length *= 1.05
            there = {path.name for path in (tops[-1] / "runs").glob("*/*")}
            phases.add(
                "training"
                if "checkpoint.pt" in there
                else "measuring"
                if "model.safetensors" in there
                else "data"
            )
    assert kills >= 20
    assert "training" in phases
    for top in tops:
        status, said = worker.run(top, "run", pictures, SETTINGS)
        assert status == 0, said
        same(top, reference)


def test_a_run_killed_before_each_change_of_a_file_ends_as_if_nothing_had_happened(
    worker, pictures, undisturbed, tmp_path
):
    """The first process dies before its first change, the second before its second, and
    so on, until one comes through."""
    for step in range(200):
        status, said = worker.run(
            tmp_path / "top", "run", pictures, SETTINGS, die_at=step
        )
        if status == 0:
            break
        assert status == -signal.SIGKILL, said
    assert 15 < step < 100
    same(tmp_path / "top", undisturbed[0])


def test_a_trained_run_killed_before_each_change_of_a_file_is_measured_and_published(
    worker, pictures, undisturbed, tmp_path
):
    """Each time anew from trained weights without a record, killed one change later,
    then run to the end."""
    for step in range(60):
        top = tmp_path / str(step)
        shutil.copytree(
            undisturbed[0] / "runs",
            top / "runs",
            ignore=shutil.ignore_patterns("record.*"),
        )
        status, said = worker.run(top, "run", pictures, SETTINGS, die_at=step)
        if status == 0:
            break
        assert status == -signal.SIGKILL, said
        assert worker.run(top, "run", pictures, SETTINGS)[0] == 0, said
        same(top, undisturbed[0])
    assert 10 < step < 50


# racing


@pytest.mark.parametrize("count", [2, 4])
def test_of_processes_on_one_run_one_trains_and_all_get_its_record(
    worker, pictures, undisturbed, tmp_path, count
):
    pids = [
        worker.start(tmp_path, "run", pictures, SETTINGS, out=f"out {i}")
        for i in range(count)
    ]
    assert [worker.wait(pid) for pid in pids] == [0] * count
    assert (tmp_path / "notes").read_text().split() == ["fit"]
    said = [(tmp_path / f"out {i}").read_text().splitlines() for i in range(count)]
    # the same to the second of its making
    assert len({lines[-1] for lines in said}) == 1
    assert all(
        len(lines) == 1 or "being made by another process" in lines[0] for lines in said
    )
    same(tmp_path, undisturbed[0])


def test_who_waits_goes_on_when_the_other_is_killed(
    worker, pictures, undisturbed, tmp_path
):
    first = worker.start(tmp_path, "run", pictures, SETTINGS, out="first")
    until(lambda: list(tmp_path.glob("runs/*/checkpoint.pt")))
    os.kill(first, signal.SIGSTOP)
    others = [
        worker.start(tmp_path, "run", pictures, SETTINGS, out=f"other {i}")
        for i in range(2)
    ]
    until(lambda: all("waiting" in read(tmp_path / f"other {i}") for i in range(2)))
    os.kill(first, signal.SIGKILL)
    assert [worker.wait(pid) for pid in (first, *others)] == [-signal.SIGKILL, 0, 0]
    assert (tmp_path / "notes").read_text().split() == ["fit"] * 2
    same(tmp_path, undisturbed[0])


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


@pytest.mark.parametrize("sizes", [(36, 36), (36,) * 4, (36, 24, 36, 24)])
def test_of_processes_on_one_store_one_builds_and_sizes_do_not_disturb_each_other(
    worker, pictures, tmp_path, sizes
):
    expected = {
        size: worker.run(tmp_path / f"alone {size}", "load", pictures, size)[1]
        for size in set(sizes)
    }
    pids = [
        worker.start(tmp_path / "all", "load", pictures, size, out=f"out {i}")
        for i, size in enumerate(sizes)
    ]
    assert [worker.wait(pid) for pid in pids] == [0] * len(sizes)
    assert [
        (tmp_path / "all" / f"out {i}").read_text().strip() for i in range(len(sizes))
    ] == [expected[size] for size in sizes]
    decoded = (tmp_path / "all" / "notes").read_text().splitlines()
    assert len(decoded) == 24 * len(set(sizes))
    assert len(set(decoded)) == 24
    entries = sorted(
        path.name.split("-")[-1]
        for path in (tmp_path / "all" / "runs" / "store").iterdir()
    )
    assert len(entries) == 2 * len(set(sizes))
    assert sum(name.endswith(".lock") for name in entries) == len(set(sizes))


# a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def on(disk: Path) -> dict[str, str]:
    """Runs and results there; notes and output of the processes stay elsewhere."""
    return {"FGBOOK_RUNS": str(disk / "runs"), "FGBOOK_RESULTS": str(disk / "results")}


def fill(disk: Path, free: int) -> None:
    """Leave `free` bytes on the disk."""
    (disk / "ballast").unlink(missing_ok=True)
    with open(disk / "ballast", "wb") as file:
        os.posix_fallocate(
            file.fileno(), 0, max(1, shutil.disk_usage(disk).free - free)
        )


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    worker, pictures, undisturbed, small_disk, tmp_path
):
    """Wherever the room ends (pictures, log, first or later checkpoints), a sentence
    says it and no rubbish stays."""
    said, there = [], on(small_disk)
    for free in (0, 64_000, 120_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000):
        fill(small_disk, free)
        said.append(
            worker.refused(tmp_path, "run", pictures, SETTINGS, environment=there)
        )
        assert said[-1].startswith("cannot write"), said
        assert not [
            path
            for path in small_disk.rglob("*")
            if path.suffix in (".tmp", ".partial")
        ]
    assert "decoded pictures" in said[0]
    assert "checkpoint.pt" in said[-1]
    assert "is intact" in said[-1]
    (small_disk / "ballast").unlink()
    assert worker.run(tmp_path, "run", pictures, SETTINGS, environment=there)[0] == 0
    same(small_disk, undisturbed[0])


def test_a_record_on_a_full_disk_is_refused_whole(undisturbed, small_disk, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(small_disk / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(small_disk / "results"))
    [made] = [
        records.load(path) for path in (undisturbed[0] / "runs").glob("*/record.json")
    ]
    predictions, path = (
        records.load_predictions(made),
        small_disk / "runs" / made["key"] / "record.json",
    )
    before = {}
    for attempt in range(2):
        # for nothing; for the predictions but not for the record, where there was none
        for free in (0, 4096)[: 2 - attempt]:
            fill(small_disk, free)
            for call in (
                lambda: records.save({**made, "created": "later"}, predictions, path),
                lambda: records.publish({**made, "created": "later"}),
            ):
                with pytest.raises(
                    InputError,
                    match=(
                        "^cannot write .*record|^cannot write .*plain-.*No space left"
                        " on device; free some space"
                    ),
                ):
                    call()
            there = {
                file: file.read_bytes()
                for file in small_disk.rglob("*")
                if file.is_file() and file.suffix in (".json", ".npz", ".tmp")
            }
            assert {
                file: content
                for file, content in there.items()
                if file.suffix != ".npz"
            } == {f: c for f, c in before.items() if f.suffix != ".npz"}
            assert all(there[file] == content for file, content in before.items())
        (small_disk / "ballast").unlink()
        saved, published = records.save(made, predictions, path), records.publish(made)
        for record in (records.find(saved["key"]), records.load(published)):
            assert record["created"] == made["created"]
            assert all(
                (records.load_predictions(record)[name] == predictions[name]).all()
                for name in predictions
            )
        before = {
            file: file.read_bytes()
            for file in small_disk.rglob("*")
            if file.is_file() and file.suffix in (".json", ".npz")
        }
        assert len(before) == 4


def test_a_store_on_a_full_disk_is_refused_whole_and_others_stay(
    worker, pictures, small_disk, tmp_path
):
    there = {"environment": on(small_disk)}
    status, small = worker.run(tmp_path, "load", pictures, 24, **there)
    before = {
        name: content
        for name, content in contents(small_disk).items()
        if not name.endswith(".lock")
    }
    assert status == 0
    assert len(before) == 3
    for free in (0, 50_000, 95_000):  # of 93 kB for images, and some blocks more
        fill(small_disk, free)
        said = worker.refused(tmp_path, "load", pictures, 36, **there)
        assert said.startswith(
            f"cannot write decoded pictures in {small_disk / 'runs' / 'store'}"
        )
        assert "FGBOOK_RUNS" in said
        assert {
            name: content
            for name, content in contents(small_disk).items()
            if not name.endswith(".lock")
        } == before
        assert worker.run(tmp_path, "load", pictures, 24, **there) == (0, small)
    (small_disk / "ballast").unlink()
    assert worker.run(tmp_path, "load", pictures, 36, **there) == worker.run(
        tmp_path / "elsewhere", "load", pictures, 36
    )


# pictures that change


def test_a_picture_that_changes_while_its_data_set_is_read_is_refused(worker, tmp_path):
    """Else the store would hold other pixels than its fingerprint says."""
    dataset, changed = (
        samples.folder(tmp_path / "set"),
        tmp_path / "set" / "blue" / "0.png",
    )
    assert worker.refused(tmp_path / "a", "load", dataset, 36, changed).startswith(
        f"{changed}: changed while"
    )
    assert all(
        path.suffix == ".lock" for path in (tmp_path / "a" / "runs" / "store").iterdir()
    )
    assert worker.run(tmp_path / "a", "load", dataset, 36) == worker.run(
        tmp_path / "b", "load", dataset, 36
    )


CHANGES = {
    "rubbish": lambda file: file.write_bytes(b"rubbish"),
    "gone": lambda file: file.unlink(),
    "another": lambda file: shutil.copy(file.with_name("1.png"), file),
}


def outcome(top: Path, key: str) -> dict:
    """What a run came to: its weights, log, metrics and predictions."""
    found = contents(top)
    record = found[f"runs/{key}/record.json"]
    kept = {
        name: found[f"runs/{key}/{name}"]
        for name in ("model.safetensors", "log.jsonl", "record.npz")
    }
    return {
        **kept,
        **{
            name: record[name]
            for name in ("key", "data_fingerprint", "metrics", "images")
        },
    }


@pytest.mark.parametrize("change", CHANGES)
def test_pictures_that_change_in_the_middle_of_a_run_never_change_its_result(
    worker, undisturbed, tmp_path, change
):
    dataset, changed, top = (
        samples.folder(tmp_path / "set"),
        tmp_path / "set" / "blue" / "0.png",
        tmp_path / "top",
    )
    shutil.copytree(tmp_path / "set", tmp_path / "before")
    [key] = [
        path.parent.name for path in (undisturbed[0] / "runs").glob("*/record.json")
    ]
    expected = outcome(undisturbed[0], key)

    def begun(place: Path) -> int:
        pid = worker.start(place, "run", dataset, SETTINGS)
        until(lambda: list(place.glob("runs/*/checkpoint.pt")))
        os.kill(pid, signal.SIGSTOP)
        CHANGES[change](changed)
        return pid

    pid = begun(top)  # a running process trains from the store
    os.kill(pid, signal.SIGCONT)
    assert worker.wait(pid) == 0
    assert outcome(top, key) == expected

    shutil.copytree(tmp_path / "before", tmp_path / "set", dirs_exist_ok=True)
    shutil.rmtree(top)
    pid = begun(top)  # one that is killed: the next one looks at the pictures again
    os.kill(pid, signal.SIGKILL)
    worker.wait(pid)
    if change == "rubbish":
        assert worker.refused(top, "run", dataset, SETTINGS).startswith(
            f"{changed}: not a picture"
        )
    else:  # another data set, another run: as if it had been so from the beginning
        made, _ = (
            json.loads(worker.run(place, "run", dataset, SETTINGS)[1])
            for place in (top, tmp_path / "fresh")
        )
        assert made["key"] != key
        assert outcome(top, made["key"]) == outcome(tmp_path / "fresh", made["key"])
    shutil.copytree(tmp_path / "before", tmp_path / "set", dirs_exist_ok=True)
    assert worker.run(top, "run", dataset, SETTINGS)[0] == 0
    assert outcome(top, key) == expected


# records that are damaged


@pytest.fixture
def kept(undisturbed, tmp_path, monkeypatch):
    """A copy of a run and its published record."""
    for place in ("runs", "results"):
        shutil.copytree(undisturbed[0] / place, tmp_path / place)
        monkeypatch.setenv(f"FGBOOK_{place.upper()}", str(tmp_path / place))
    return tmp_path


def record_file(top: Path, place: str) -> Path:
    [path] = (top / place).glob("*/record.json" if place == "runs" else "feng/*.json")
    return path


def changed(**fields):
    return lambda path: path.write_text(
        json.dumps({**json.loads(path.read_text()), **fields})
    )


RECORDS = {
    "cut": lambda path: os.truncate(path, 300),
    "empty": lambda path: os.truncate(path, 0),
    "list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 200_000),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\0"),
    "zeros": lambda path: path.write_bytes(bytes(2000)),
    "seed": changed(seed="one"),
    "metrics": changed(metrics=None),
    "key": changed(key="../../../etc"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


def digit(path: Path) -> None:
    """Another number, in a file that still is JSON."""
    text = path.read_text()
    changed = re.sub(r'"top1": [01]', '"top1": 2', text, count=1)
    assert changed != text
    path.write_text(changed)


RECORDS["digit"] = digit


@pytest.mark.parametrize("how", RECORDS)
def test_a_damaged_fresh_record_is_named_and_left_out(kept, how):
    path = record_file(kept, "runs")
    whole = records.load(path)
    RECORDS[how](path)
    with pytest.warns(RuntimeWarning) as warned:
        assert records.fresh() == []
    said = str(warned[0].message)
    assert said.startswith(f"{path} is not a record (")
    assert said.endswith(f"); make it again with `{whole['command']}`.")
    assert "\n" not in said


@pytest.mark.parametrize("how", RECORDS)
def test_a_damaged_published_record_is_refused(kept, how):
    path = record_file(kept, "results")
    key = records.load(path)["key"]
    RECORDS[how](path)
    shutil.rmtree(kept / "runs")
    sentence = (
        f"^{re.escape(str(path))} is not a record \\(.*\\); restore it, or delete it"
        " and run its row again.$"
    )
    with pytest.raises(InputError, match=sentence):
        records.published()
    with pytest.raises(InputError, match=sentence):
        records.find(key)


def test_one_damaged_record_does_not_hide_the_others(worker, kept):
    """`fgbook results` lists what is whole, and says what is not."""
    path = record_file(kept, "runs")
    made = records.load(path)
    other = path.parent.with_name("0" * 16)
    shutil.copytree(path.parent, other)
    os.truncate(other / "record.json", 100)
    status, said = fgbook(worker, kept, "results")
    assert status == 0
    assert made["key"] in said
    assert f"{other / 'record.json'} is not a record" in said


@pytest.mark.parametrize("name", ["record.json", "record.npz"])
def test_a_damaged_record_is_measured_again_by_the_same_command(
    worker, pictures, undisturbed, tmp_path, name
):
    """Where its weights are whole it is not trained again."""
    shutil.copytree(undisturbed[0] / "runs", tmp_path / "runs")
    path = record_file(tmp_path, "runs").with_name(name)
    weights = path.with_name("model.safetensors")
    before = weights.stat().st_mtime_ns
    os.truncate(path, 100)
    status, said = worker.run(tmp_path, "run", pictures, SETTINGS)
    assert status == 0
    assert said.count(f"{path} ") == 1  # said once
    assert weights.stat().st_mtime_ns == before
    same(tmp_path, undisturbed[0])


def test_damaged_weights_are_trained_again_by_the_advised_command(
    worker, pictures, undisturbed, tmp_path
):
    shutil.copytree(undisturbed[0] / "runs", tmp_path / "runs")
    path = record_file(tmp_path, "runs").with_name("model.safetensors")
    flip(path)
    key, picture = path.parent.name, next(Path(pictures[7:]).rglob("*.png"))
    said = worker.refused(tmp_path, "fgbook", "predict", str(picture), "--run", key)
    assert f"{path} is damaged; train it again with `" in said
    status, said = advised(worker, tmp_path, said)
    assert status == 0, said
    assert said.count(f"{path} is damaged; it is trained again.") == 1
    status, said = fgbook(worker, tmp_path, "predict", picture, "--run", key)
    assert status == 0, said


def test_the_weights_of_a_published_record_are_trained_by_the_advised_command(
    worker, pictures, undisturbed, tmp_path
):
    shutil.copytree(undisturbed[0] / "results", tmp_path / "results")
    key = records.load(record_file(tmp_path, "results"))["key"]
    picture = next(Path(pictures[7:]).rglob("*.png"))
    said = worker.refused(tmp_path, "fgbook", "predict", str(picture), "--run", key)
    status, said = advised(worker, tmp_path, said)
    assert status == 0, said
    assert (tmp_path / "runs" / key / "model.safetensors").is_file()
    status, said = fgbook(worker, tmp_path, "predict", picture, "--run", key)
    assert status == 0, said


def advised(worker: "Worker", top: Path, said: str) -> tuple[int, str]:
    """Do what a sentence says, word for word."""
    words = shlex.split(said.split("`")[1])
    return fgbook(worker, top, *words[1:], "--device", "cpu")


def test_a_record_in_another_one_s_place_is_named(kept):
    path = record_file(kept, "runs")
    other = path.parent.with_name("0" * 16)
    path.parent.rename(other)
    said = (
        f"{other}/record.json is the record of run {path.parent.name}, not of"
        f" {'0' * 16}; delete it"
    )
    with pytest.warns(RuntimeWarning, match=said):
        assert records.find("0" * 16) is None


class Code:
    """A pickle that writes a file when it is read."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def flip(path: Path) -> None:
    content = path.read_bytes()
    place = len(content) // 3
    path.write_bytes(
        content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    )


def pickled(path: Path) -> None:
    with np.load(path) as arrays:
        np.savez(
            path,
            **{**arrays, "label": np.array([Code(path.with_name("pwned"))], object)},
        )


def plain_array(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(4))
    path.write_bytes(buffer.getvalue())


PREDICTIONS = {
    "cut": lambda path: os.truncate(path, 300),
    "empty": lambda path: os.truncate(path, 0),
    "flipped": flip,
    "pickle": pickled,
    "array": plain_array,
    "lacking": lambda path: np.savez(path, prediction=np.zeros(4, np.uint16)),
    "gone": lambda path: path.unlink(),
    "no archive": lambda path: path.write_bytes(b"PK\3\4 rubbish"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "another's": lambda path: np.savez(
        path,
        **{
            name: np.ones(4, np.uint16)
            for name in ("prediction", "confidence", "label")
        },
    ),
}


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("how", PREDICTIONS)
def test_damaged_predictions_are_named(kept, how, checksum):
    """Also those of older records, which hold no checksum; only that a whole file is
    another record's cannot be told from them."""
    for place in ("runs", "results"):
        path = record_file(kept, place)
        if not checksum:
            content = json.loads(path.read_text())
            del content["predictions_sha256"], content["sha256"]
            path.write_text(json.dumps(content))
        record = records.load(path)
        arrays = path.with_suffix(".npz")
        PREDICTIONS[how](arrays)
        if how == "another's" and not checksum:
            continue
        with pytest.raises(InputError) as caught:
            records.load_predictions(record)
        said = str(caught.value)
        again = (
            "restore it, or delete it and run its row again."
            if place == "results"
            else f"make it again with `{record['command']}`."
        )
        assert said.startswith(
            f"{arrays} does not hold the predictions of record {record['key']}"
        )
        assert said.endswith(again)
        assert "\n" not in said
        assert not arrays.with_name("pwned").exists()


# names


NAMES = [
    "with space",
    "Ünïcödé 鳥",
    unicodedata.normalize("NFD", "café"),
    "صقر حر",
    "-dash",
    "--help",
    "dots..in..it",
    "trailing.",
    "x" * 255,
    "鷹" * 85,
    "'quoted' \"twice\"",
    "$(touch pwned) `touch pwned`; touch pwned",
    "%s {0} {name}",
    "*?[a]",
    "back\\slash",
    "con",
    "🦅",
    "#<&amp;>",
    "|",
    "~",
]


def fgbook(worker: Worker, top: Path, *words) -> tuple[int, str]:
    return worker.run(top, "fgbook", *map(str, words))


def test_class_folders_of_any_name_go_through_everything(worker, tmp_path, monkeypatch):
    """Loaded, checked, trained on, published and predicted, in a folder whose own path
    is long and odd; nothing lands anywhere else."""
    root = (
        tmp_path / "my birds" / "Ünï 'q' $x" / ("long " * 40 + "path") / ("deep" * 50)
    )
    dataset, top = samples.folder(root, NAMES, 3), tmp_path / "top"
    (root / ".hidden").mkdir()
    (root / "..twice").mkdir()
    shutil.copy(root / "con" / "0.png", root / ".hidden")
    shutil.copy(root / "con" / "0.png", root / "..twice")
    before, outside = (
        {file for file in root.rglob("*")},
        {file for file in tmp_path.iterdir()},
    )
    monkeypatch.chdir(tmp_path)

    status, said = fgbook(worker, top, "data", "check", dataset)
    assert status == 0
    assert f"classes: {len(NAMES)}" in said
    assert f"train {len(NAMES)}, val {len(NAMES)}, test {len(NAMES)}" in said
    words = [
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        dataset,
        "--device",
        "cpu",
    ] + [word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}")]
    status, said = fgbook(worker, top, *words, "--publish")
    assert status == 0, said
    [published] = (top / "results").rglob("*.json")
    record = records.load(published)
    assert record["dataset"] == dataset
    assert record["num_classes"] == len(NAMES)
    assert len(os.fsencode(published.name)) < 200
    assert published.parent == top / "results" / "feng"
    assert f"published: {published}" in said
    command = shlex.split(record["command"])
    assert command[command.index("--dataset") + 1] == dataset
    assert dataset in fgbook(worker, top, "results")[1]
    picture = root / "--help" / "0.png"
    status, said = fgbook(
        worker, top, "predict", "--run", record["key"][:6], "--top", "99", "--", picture
    )
    assert status == 0, said
    named = [line.split(" %  ", 1)[1] for line in said.splitlines() if " %  " in line]
    assert sorted(named) == sorted(unicodedata.normalize("NFC", name) for name in NAMES)

    assert {file for file in root.rglob("*")} == before
    assert {file for file in tmp_path.iterdir()} == outside | {top}


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline",
        b"clear \x1b[2J",
        b"not utf-8 \xff\xfe",
        b"bell\x07",
        b"delete \x7f",
        b"next \xc2\x85",
    ],
)
@pytest.mark.parametrize("where", ["root", "class", "file"])
def test_names_that_cannot_be_stored_or_printed_are_refused(
    worker, tmp_path, name, where
):
    odd = os.fsdecode(name)
    root = tmp_path / (odd if where == "root" else "set")
    dataset = samples.folder(root, [odd if where == "class" else "b", "c"], 3)
    if where == "file":
        (root / "b" / "0.png").rename(root / "b" / f"{odd}.png")
    for words in (
        ["data", "check", dataset],
        ["run", "feng", "--row", "plain", "--dataset", dataset],
    ):
        status, said = fgbook(worker, tmp_path, *words)
        assert status == 2, said
        assert len(said.splitlines()) == 1, said
        assert (
            "holds control characters or bytes that are not UTF-8; rename it." in said
        ), said
        assert said.isprintable()
    assert not (tmp_path / "runs").exists()


def test_folders_that_differ_only_in_unicode_form_are_one_class(worker, tmp_path):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    dataset = samples.folder(tmp_path / "set", [*forms, "b"], 3)
    if len(list((tmp_path / "set").iterdir())) < 3:
        pytest.skip("this file system takes both forms for one name")
    assert "café/0.png is there or listed twice" in worker.refused(
        tmp_path, "load", dataset, 16
    )
    for file in (tmp_path / "set" / forms[1]).iterdir():
        file.rename(file.with_name(f"more {file.name}"))
    assert (
        "classes: 2\nimages: train 5, val 2, test 2"
        in fgbook(worker, tmp_path, "data", "check", dataset)[1]
    )


@pytest.mark.parametrize(
    "name",
    [
        "../../../secret.png",
        "{top}/secret.png",
        "001.Red_Blob/../../../../secret.png",
        "x" * 300 + ".png",
        "a\0b.png",
        "esc\x1b.png",
    ],
)
def test_lists_cannot_name_files_outside_their_data_set(
    worker, tmp_path, name, monkeypatch
):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    samples.cub(tmp_path / "data" / "cub", 6, 4)
    (tmp_path / "secret.png").write_bytes(
        next((tmp_path / "data").rglob("*.png")).read_bytes()
    )
    listed = tmp_path / "data" / "cub" / "images.txt"
    lines = listed.read_text().splitlines()
    number = lines[3].split(" ")[0]
    listed.write_text(
        "\n".join([*lines[:3], f"{number} {name.format(top=tmp_path)}", *lines[4:]])
        + "\n"
    )
    if "secret" in name:
        assert (
            tmp_path / "data" / "cub" / "images" / name.format(top=tmp_path)
        ).resolve() == tmp_path / "secret.png"
    for words in (
        ["data", "check", "cub"],
        ["run", "feng", "--row", "plain", "--dataset", "cub", "--profile", "photo"],
    ):
        status, said = worker.run(
            tmp_path,
            "fgbook",
            *words,
            environment={"FGBOOK_DATA": str(tmp_path / "data")},
        )
        # a file that is not there: one problem of several
        if len(name) > 255 and words[0] == "data":
            assert status == 1
            assert "File name too long" in said
        else:
            assert status == 2, said
            assert len(said.splitlines()) == 1, said
            assert (
                "is no name of a picture inside" in said or "File name too long" in said
            ), said
    assert "secret" not in (tmp_path / "notes").read_text()
    assert "images.txt" in (tmp_path / "notes").read_text()


def test_a_record_s_words_cannot_choose_where_it_is_published(kept):
    made = records.load(record_file(kept, "runs"))
    for field, value in (
        ("paper", "../../outside"),
        ("paper", ".."),
        ("row", "../../../row"),
        ("dataset", "../" * 9 + "x"),
        ("dataset", "d" * 400),
        ("profile", "a/b"),
    ):
        path = records.publish({**made, field: value})
        assert path.is_file()
        assert path.resolve().is_relative_to(kept / "results")
        assert len(path.relative_to(kept / "results").parts) == 2
        assert records.load(path)[field] == value
    assert {path.name for path in kept.iterdir()} == {"runs", "results"}


# pictures of any kind


def test_bad_pictures_are_refused_in_one_sentence_and_nothing_else_is_printed(
    worker, tmp_path
):
    """In a process of its own: Pillow warns of large pictures, torch and numpy of other
    things, unless someone takes care."""
    good = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    ).save(good, "JPEG")
    # refused by us; warned of by Pillow; refused by Pillow
    large = {side: io.BytesIO() for side in (8_200, 10_000, 14_000)}
    for side, file in large.items():
        Image.new("1", (side, side)).save(file, "PNG")
    contents = {
        "truncated.jpg": good.getvalue()[:-2000],
        "empty.png": b"",
        "page.jpg": b"<html>404</html>",
        "wrong.gif": b"%PDF-1.4",
        **{f"{side}.png": file.getvalue() for side, file in large.items()},
    }
    dataset = samples.folder(tmp_path / "set", ["a", "b"], 3)
    for name, content in contents.items():
        file = tmp_path / "set" / "a" / name
        file.write_bytes(content)
        assert len(content) < 200_000
        assert worker.refused(tmp_path, "load", dataset, 16).startswith(f"{file}: ")
        status, said = fgbook(worker, tmp_path, "data", "check", dataset)
        assert status == 1
        assert len([line for line in said.splitlines() if line.startswith("  ")]) == 1
        assert "Warning" not in said
        file.unlink()
    assert worker.run(tmp_path, "load", dataset, 16)[0] == 0


def test_odd_but_good_pictures_are_loaded_in_silence(worker, tmp_path):
    dataset, place = (
        samples.folder(tmp_path / "set", ["a", "b"], 3),
        tmp_path / "set" / "a",
    )
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    colour, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    colour.convert("CMYK").save(place / "cmyk.jpg")
    colour.convert("L").save(place / "grey.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(place / "deep.png")
    # a transparency for each colour
    colour.quantize(8).save(place / "clear.png", transparency=bytes(range(0, 256, 32)))
    colour.convert("LA").save(place / "grey and clear.png")
    for suffix in ("gif", "webp", "png"):
        colour.save(
            place / f"moving.{suffix}", save_all=True, append_images=[colour.rotate(90)]
        )
    colour.save(place / "turned.jpg", exif=exif)
    colour.resize((1, 1)).save(place / "dot.png")
    colour.save(place / "really a webp.jpg", format="WEBP")
    colour.save(place / "dotted name.v2.tiff")
    status, said = worker.run(tmp_path, "load", dataset, 16)
    assert status == 0, said
    assert len(said.splitlines()) == 1, said
    assert len(said.split()) == 2, said
    status, said = fgbook(worker, tmp_path, "data", "check", dataset)
    assert status == 0, said
    assert "Warning" not in said, said
