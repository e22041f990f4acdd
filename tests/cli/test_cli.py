"""The command line: what people type, what they are told, and how it ends."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import samples
from fgbook import cli, paths
from fgbook.evidence import records
from fgbook.recipe import Recipe

SMALL = [
    "--set",
    "image_size=32",
    "--set",
    "store_size=32",
    "--set",
    "batch_size=8",
    "--set",
    "weights=none",
    "--set",
    "lr=0.02",
]


def fgbook(*words: str):
    return CliRunner().invoke(cli.cli, words, prog_name="fgbook")


def process(*words: str, runs: Path, **options) -> subprocess.Popen:
    environment = dict(
        os.environ,
        PYTHONPATH=str(paths.REPOSITORY),
        OMP_NUM_THREADS="1",
        FGBOOK_RUNS=str(runs),
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "fgbook", *words], env=environment, text=True, **options
    )


def sentence(result, *parts: str) -> None:
    """The result is a refusal: exit status 2, one line on stderr that holds `parts`,
    nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, (
        result.stderr
    )
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """No test looks into the clone's own runs, results and data."""
    for name in ("RUNS", "RESULTS", "DATA"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two classes of 15 pictures, one reddish, one bluish."""
    folder = tmp_path_factory.mktemp("pictures")
    samples.folder(folder, count=15)
    return folder


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory) -> tuple[Path, dict]:
    """A folder of runs with one run in it, made by the command line; and its record."""
    runs = tmp_path_factory.mktemp("runs")
    done = process(
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=4",
        *SMALL,
        runs=runs,
    )
    out, error = done.communicate(timeout=600)
    assert done.returncode == 0, error
    (record,) = (json.loads(path.read_text()) for path in runs.glob("*/record.json"))
    assert record["key"] in out
    return runs, record


# ------------------------------------------------------------------------------------------------------------------------ help, names


def commands() -> list[list[str]]:
    found = [[]]
    for name, command in cli.cli.commands.items():
        found.append([name])
        found += [[name, inner] for inner in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_with_examples_that_its_options_know(words):
    result = fgbook(*words, "--help")
    assert result.exit_code == 0
    command = cli.cli
    for word in words:
        command = command.commands[word]
    examples = [
        line.strip()
        for line in result.output.splitlines()
        if line.startswith("  ") and "fgbook " in line and "Usage" not in line
    ]
    assert "Example" in result.output and examples
    for example in examples:
        if example.startswith(" ".join(["fgbook", *words])) and not isinstance(
            command, cli.Commands
        ):
            known = {
                option for parameter in command.params for option in parameter.opts
            }
            assert {
                word for word in example.split() if word.startswith("-")
            } <= known, example


def test_help_and_wrong_names_answer_without_heavy_imports(tmp_path):
    code = """
import sys
from click.testing import CliRunner
from fgbook.cli import cli
for words in (["--help"], ["run", "--help"], ["run", "fengg"], ["run", "feng", "--row", "hybird"], ["runn"], ["run", "feng", "--set", "epoch=1"]):
    CliRunner().invoke(cli, words)
print(sorted({"torch", "pandas", "papermill", "matplotlib"} & set(sys.modules)))
"""
    environment = dict(os.environ, PYTHONPATH=str(paths.REPOSITORY))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["runn"], ["unknown command 'runn'", "'run'"]),
        (["data", "lst"], ["unknown command 'lst'", "'list'"]),
        (["run", "fengg"], ["unknown paper 'fengg'", "'feng'"]),
        (["tune", "fengg"], ["unknown paper 'fengg'", "'feng'"]),
        (["results", "fengg"], ["unknown paper 'fengg'", "'feng'"]),
        (["run", "feng", "--row", "hybird"], ["unknown row", "'hybrid'"]),
        (["run", "feng", "--profile", "quik"], ["unknown profile 'quik'", "'quick'"]),
        (
            ["run", "feng", "--set", "weights=none", "--dataset", "fieldgide"],
            ["unknown data set 'fieldgide'", "'fieldguide'"],
        ),
        (["run", "feng", "--device", "cudaa"], ["device 'cudaa'", "cpu"]),
        (
            ["run", "feng", "--seeds", "2", "--seed", "1"],
            ["--seeds", "--seed", "exclude"],
        ),
        (
            ["run", "feng", "--set", "epoch=1"],
            ["unknown recipe field 'epoch'", "'epochs'"],
        ),
        (["run", "feng", "--set", "epochs"], ["no '='"]),
        (
            ["run", "feng", "--set", "epochs=two"],
            ["epochs must be of type int", "'two'"],
        ),
        (["run", "feng", "--set", "flip=perhaps"], ["flip must be of type bool"]),
        (["run", "feng", "--set", "epochs=0"], ["epochs is 0"]),
        (
            ["run", "feng", "--row", "plain", "--set", "backbone=resnet51"],
            ["unknown backbone 'resnet51'", "'resnet50'"],
        ),
        (["tune", "feng", "--row", "plain", "--profile", "quik"], ["'quik'"]),
        (["data", "check", "cubb"], ["unknown data set 'cubb'", "'cub'"]),
        (["data", "path", "cubb"], ["unknown data set 'cubb'", "'cub'"]),
        (["data", "check", "cub"], ["cub is not in", "https:"]),
        (["run", "feng", "--profile", "photo"], ["is not in", "https:"]),
        (
            ["predict", "missing.jpg", "--run", "3f"],
            ["missing.jpg: there is no such file"],
        ),
    ],
)
def test_wrong_input_gets_one_sentence(words, parts):
    sentence(fgbook(*words), *parts)


def test_without_jupyter_only_notebook_commands_are_refused():
    """As after `pip install fgbook`, without the extra."""
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("papermill", "ipykernel", "jupyter_book") else find(name, *rest)
class Hidden:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("papermill", "ipykernel", "jupyter_book", "nbformat", "IPython", "ipywidgets"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from click.testing import CliRunner
from fgbook.cli import cli
for words in (["reproduce"], ["book"], ["data", "list"], ["doctor"], ["results"]):
    result = CliRunner().invoke(cli, words)
    print(result.exit_code, result.stderr.strip())
"""
    environment = dict(os.environ, PYTHONPATH=str(paths.REPOSITORY))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=paths.REPOSITORY,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "2", "0", "0", "0"], (
        done.stdout + done.stderr
    )
    assert all('pip install "fgbook[book]"' in line for line in lines[:2])


# ---------------------------------------------------------------------------------------------------------------- running, end to end


def test_a_run_is_found_again_and_its_own_command_names_it(trained, monkeypatch):
    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    made = {path: path.stat().st_mtime_ns for path in runs.glob("*/*")}
    # the command that the record says repeats it
    result = fgbook(*record["command"].split()[1:])
    assert result.exit_code == 0 and record["key"] in result.stdout
    assert {
        path: path.stat().st_mtime_ns
        for path in runs.glob("*/*")
        if path.parent.name != "locks"
    }.items() <= made.items()


def test_results_show_what_was_run(trained, monkeypatch):
    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    table = fgbook("results", "feng").stdout
    assert (
        f"{100 * record['metrics']['test']['top1']:.1f}" in table
        and "epochs=4" in table
        and "illustrations" in table
    )
    assert json.loads(fgbook("results", "--json").stdout) == [record]


def test_predict_names_the_class(trained, pictures, monkeypatch):
    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    images = [str(pictures / "red" / "0.png"), str(pictures / "blue" / "0.png")]
    result = fgbook("predict", *images, "--run", record["key"][:6], "--top", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0::2] == images and [line.split()[-1] for line in lines[1::2]] == [
        "red",
        "blue",
    ]
    both = fgbook("predict", images[0], "--run", record["key"]).stdout.splitlines()[1:]
    shares = [float(line.split()[0]) for line in both]
    assert (
        len(shares) == 2
        and shares == sorted(shares, reverse=True)
        and abs(sum(shares) - 100) <= 0.11
    )


def test_predict_refuses_what_it_cannot_use(trained, pictures, monkeypatch, tmp_path):
    runs, record = trained
    image = str(pictures / "red" / "0.png")
    sentence(fgbook("predict", image, "--run", "3f"), "nothing has been run here yet")
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    sentence(fgbook("predict", image, "--run", "zz"), "unknown run 'zz'")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    sentence(fgbook("predict", str(broken), "--run", record["key"]), "broken.jpg")
    published = tmp_path / "published" / f"plain-{record['key']}.json"
    records.save({**record, "predictions": None}, None, published)
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(published.parent))
    sentence(
        fgbook("predict", image, "--run", record["key"]),
        "weights of run",
        record["command"],
    )
    records.save(
        {**record, "predictions": None, "key": record["key"][:4] + "0" * 12},
        None,
        published.with_name("other.json"),
    )
    sentence(fgbook("predict", image, "--run", record["key"][:4]), "2 runs begin with")


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "store" not in path.parts
    }


def test_a_dry_run_says_what_is_true_and_keeps_nothing(
    trained, pictures, monkeypatch, tmp_path
):
    from fgbook.evidence import estimate

    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.3)
    words = [
        "run",
        "feng",
        "--row",
        "plain",
        "--row",
        "hybrid",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=4",
        *SMALL,
    ]
    before = files(runs)
    result = fgbook(*words, "--seeds", "2", "--device", "cpu", "--dry-run")
    assert result.exit_code == 0, result.output
    assert (
        files(runs) == before
        and not files(tmp_path)
        and not (tmp_path / "results").exists()
    )
    plain, hybrid = result.stdout.split("feng hybrid")
    images = record["images"]
    for part in (
        (
            f"train {images['train']}, val {images['val']}, test {images['test']}; 2"
            " classes"
        ),
        "epochs=4*",
        "batch_size=8*",
        "optimiser=adamw,",
        f"{record['train']['steps']:,} in 4 epochs",
        f"{record['parameters']:,} parameters learn, 0 are fixed",
        f"{record['flops'] / 1e9:.3g} GFLOP",
        "activations ",
        f"seed 0       has a record: {record['key']}",
        "seed 1       to do",
    ):
        assert part in plain, result.stdout
    assert "to do" in hybrid and hybrid.splitlines()[-1].startswith(
        "total: 4 runs, 3 to do, about "
    )
    # An image of 32 px, 8 in a batch: the small backbone keeps at least one map of each
    # of its 10 convolutions.
    assert float(re.search(r"activations ([\d.]+) MiB", plain)[1]) > 0.5


def test_a_dry_run_tells_a_checkpoint_and_what_is_left(pictures, tmp_path, monkeypatch):
    from fgbook.evidence import estimate

    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.1)
    words = [
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=500",
        "--device",
        "cpu",
        *SMALL,
    ]
    fgbook(*words, "--budget-minutes", "0.01")
    (log,) = (tmp_path / "runs").glob("*/log.jsonl")
    done = log.read_text().count("\n")
    before = files(tmp_path / "runs")
    said = fgbook(*words, "--dry-run").stdout
    assert (
        f"has a checkpoint, {done} of 500 epochs done: {log.parent}" in said
        and files(tmp_path / "runs") == before
    )


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"],
        [
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes",
            "2",
            "--main_process_port",
            "0",
        ],
    ],
    ids=["torchrun", "accelerate"],
)
def test_two_processes_make_the_record_of_one(launcher, pictures, tmp_path):
    """Real launchers, gloo on the CPU. Statistics are frozen, so that images do not see
    each other; the last batch is odd."""
    words = [
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=2",
        "--set",
        "batchnorm=frozen",
        "--device",
        "cpu",
        *SMALL,
    ]
    environment = dict(
        os.environ,
        PYTHONPATH=str(paths.REPOSITORY),
        OMP_NUM_THREADS="1",
        FGBOOK_RUNS=str(tmp_path / "both"),
    )
    both = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "fgbook", *words],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert both.returncode == 0, both.stderr
    assert both.stdout == fgbook(*words).stdout  # one table, of the same numbers
    one, two = (
        json.loads(path.read_text())
        for name in ("runs", "both")
        for path in (tmp_path / name).glob("*/record.json")
    )
    assert one["key"] == two["key"] and one["train"]["steps"] == two["train"]["steps"]
    for split in ("val", "test"):
        assert two["metrics"][split] == pytest.approx(one["metrics"][split], abs=1e-4)
    first, second = (
        records.load_predictions({**r, records.FOLDER: str(tmp_path / name / r["key"])})
        for name, r in (("runs", one), ("both", two))
    )
    assert (first["prediction"] == second["prediction"]).all() and np.allclose(
        first["confidence"], second["confidence"], atol=2e-3
    )


def test_the_notebook_trains_in_two_processes(pictures, tmp_path):
    """Its own cells, started as Jupyter would; the kernel itself then only reads the
    record."""
    code = f"""
import nbformat
cells = [cell.source for cell in nbformat.read({str(paths.REPOSITORY / "notebooks" / "feng_accuracy.ipynb")!r}, 4).cells if cell.cell_type == "code"]
[parameters] = [cell for cell in cells if "processes: int = 1" in cell]
[runs] = [cell for cell in cells if "notebook_launcher(" in cell]
exec(parameters)
dataset, rows, epochs, processes, device = {f"folder:{pictures}"!r}, "plain", 1, 2, "cpu"
exec(runs)
import torch.distributed
assert not torch.distributed.is_initialized()
print("found", *[record["key"] for record in found])
"""
    environment = dict(
        os.environ,
        PYTHONPATH=str(paths.REPOSITORY),
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (record,) = (
        json.loads(path.read_text())
        for path in (tmp_path / "runs").glob("*/record.json")
    )
    assert (
        "Launching training on 2 " in done.stdout
        and done.stdout.splitlines()[-1] == f"found {record['key']}"
    )


def test_ctrl_c_ends_a_run_so_that_it_can_go_on(pictures, tmp_path):
    words = [
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=5000",
        *SMALL,
    ]
    running = process(*words, runs=tmp_path)
    wait_for(
        lambda: (
            any(
                path.read_text().count("\n") > 1
                for path in tmp_path.glob("*/log.jsonl")
            )
            or running.poll() is not None
        )
    )
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=600)
    assert (
        running.returncode == 130
        and "run the same command again to continue" in error
        and "Traceback" not in error
    ), error
    (log,) = tmp_path.glob("*/log.jsonl")
    before = log.read_text().splitlines()
    again = process(*words, "--budget-minutes", "0.05", runs=tmp_path)
    out, error = again.communicate(timeout=600)
    assert (
        again.returncode == 0 and "the time budget ended after 0 of 1 runs" in error
    ), error
    after = log.read_text().splitlines()
    assert after[: len(before)] == before  # it went on, and did not begin anew


def wait_for(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------------------ disks and readers


def test_a_run_folder_that_cannot_be_written_is_said(pictures, tmp_path):
    (tmp_path / "file").touch()
    done = process(
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        *SMALL,
        runs=tmp_path / "file" / "runs",
    )
    out, error = done.communicate(timeout=600)
    assert (
        done.returncode == 2
        and str(tmp_path / "file") in error
        and "Traceback" not in error
        and error.count("Error: ") == 1
    ), error


def test_a_full_disk_is_said_and_earlier_records_stay(trained, pictures):
    """The limit on file sizes stands in for the full disk: writing fails in the middle
    of a file."""
    runs, record = trained
    kept = {path: path.read_bytes() for path in runs.glob(f"{record['key']}/*")}
    done = process(
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--seed",
        "1",
        "--set",
        "epochs=4",
        *SMALL,
        runs=runs,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (200_000, 200_000)
        ),
    )
    out, error = done.communicate(timeout=600)
    assert (
        done.returncode == 2
        and "Traceback" not in error
        and "Error: cannot" in error
        and "free some space" in error
    ), error
    assert {path: path.read_bytes() for path in runs.glob(f"{record['key']}/*")} == kept
    assert [path.parent.name for path in runs.glob("*/record.json")] == [record["key"]]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = process("data", "list", runs=tmp_path, stdout=write)
    os.close(write)
    assert done.communicate(timeout=600)[1] == ""


# ---------------------------------------------------------------------------------------------------------------------- tables, doctor


def save(
    folder: Path,
    row: str,
    seed: int,
    top1: float,
    profile: str = "paper",
    dataset: str = "cub",
    printed: float | None = None,
) -> dict:
    """A published record with the fields that tables and verdicts read; the share
    `top1` of 1000 test images is right."""
    correct = np.arange(1000) < round(1000 * top1)
    key = records.key(
        {"row": row, "seed": seed, "profile": profile, "dataset": dataset}
    )
    record = {
        "key": key,
        "purpose": "result",
        "paper": "feng",
        "row": row,
        "method": "plain",
        "options": {},
        "profile": profile,
        "dataset": dataset,
        "seed": seed,
        "recipe": Recipe().as_dict(),
        "overrides": {},
        "weights": "none",
        "data_fingerprint": "f",
        "num_classes": 2,
        "metrics": {"val": None, "test": {"top1": top1}},
        "printed": printed,
    }
    predictions = {
        "prediction": correct.astype(np.uint16),
        "confidence": np.ones(1000, np.float16),
        "label": np.ones(1000, np.uint16),
    }
    return records.save(record, predictions, folder / f"{row}-{key}.json")


def test_printed_numbers_stand_beside_the_papers_own_profile_only(tmp_path):
    for seed, top1 in enumerate((0.70, 0.72, 0.74)):
        save(tmp_path / "results", "plain", seed, top1, printed=84.5)
    save(
        tmp_path / "results",
        "plain",
        0,
        0.5,
        profile="quick",
        dataset="fieldguide",
        printed=84.5,
    )
    header, *lines = fgbook("results").stdout.splitlines()
    paper, quick = (
        next(line for line in lines if name in line) for name in (" paper ", " quick ")
    )
    # Student's interval for 70, 72, 74: 72 +- 4.303 * 2 / sqrt(3)
    assert (
        "3" in paper.split()
        and "72.0" in paper
        and "67.0 to 77.0" in paper
        and "84.5" in paper
    )
    assert "50.0" in quick and "84.5" not in quick


def test_verdicts_never_come_from_quick_numbers(tmp_path):
    for seed in range(3):
        for profile, dataset in (("quick", "fieldguide"), ("photo", "cub50")):
            save(tmp_path / "results", "image", seed, 0.80, profile, dataset)
            save(tmp_path / "results", "plain", seed, 0.70, profile, dataset)
    said = {
        (v["claim"], v["profile"]): v
        for v in json.loads(fgbook("results", "feng", "--verdicts", "--json").stdout)
    }
    assert said["B1", "photo"]["outcome"] == "holds" and said["B1", "photo"]["effect"][
        "effect"
    ] == pytest.approx(10)
    assert said["B2", "photo"]["outcome"] == "not run" and not any(
        profile == "quick" for _, profile in said
    )
    text = fgbook("results", "--verdicts").stdout
    assert "feng B1 on cub50 (photo): holds" in text


def test_doctor_names_versions_places_and_space(tmp_path):
    import torch

    (tmp_path / "data" / "cub").mkdir(parents=True)
    text = fgbook("doctor").stdout
    for part in (
        torch.__version__.split("+")[0],
        str(tmp_path / "runs"),
        "FGBOOK_DATA",
        "cub",
        "GiB free",
        "papermill",
    ):
        assert part in text


def test_data_list_and_path(tmp_path, pictures):
    text = fgbook("data", "list").stdout
    assert (
        "fieldguide" in text
        and "cub50" in text
        and "missing" in text
        and str(tmp_path / "data") in text
    )
    assert fgbook("data", "path").stdout.strip() == str(tmp_path / "data")
    assert fgbook("data", "path", f"folder:{pictures}").stdout.strip() == str(pictures)
    checked = fgbook("data", "check", f"folder:{pictures}")
    assert checked.exit_code == 0 and "classes: 2" in checked.stdout


def test_data_get_names_what_can_be_fetched_and_where_to_put_what_cannot(tmp_path):
    sentence(fgbook("data", "get", "airkraft"), "did you mean 'aircraft'")
    result = fgbook("data", "get", "cars")  # the authors' link is dead
    sentence(
        result, "cars_train.tgz (sha256:", str(tmp_path / "data" / "downloads" / "cars")
    )


def test_tune_says_where_a_paper_lists_no_settings():
    sentence(fgbook("tune", "feng"), "no tuning for profile 'quick'", "photo")
    sentence(
        fgbook("tune", "feng", "--row", "hybird", "--profile", "photo"),
        "did you mean 'hybrid'",
    )


def test_publish_copies_records_to_the_published_ones(
    trained, pictures, monkeypatch, tmp_path
):
    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    words = (
        "run",
        "feng",
        "--row",
        "plain",
        "--dataset",
        f"folder:{pictures}",
        "--set",
        "epochs=4",
        *SMALL,
    )
    assert (
        "published" not in fgbook(*words).stdout and not (tmp_path / "results").exists()
    )
    assert "published: " in fgbook(*words, "--publish").stdout
    [kept] = records.published("feng")
    assert (
        kept["key"] == record["key"]
        and len(records.load_predictions(kept)["label"])
        == record["metrics"]["test"]["n"]
    )


# ------------------------------------------------------------------------------------------------------------ the project's own files


def test_versions_agree():
    import tomllib

    import yaml

    from fgbook import __version__

    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())[
        "project"
    ]
    citation = yaml.safe_load((paths.REPOSITORY / "CITATION.cff").read_text())
    assert project["version"] == str(citation["version"]) == __version__
    assert f"## {__version__}" in (paths.REPOSITORY / "CHANGELOG.md").read_text()
    conda = yaml.safe_load((paths.REPOSITORY / "environment.yml").read_text())[
        "dependencies"
    ]
    extras = conda[-1]["pip"][0].split("[")[1].rstrip("]").split(",")
    assert set(extras) <= set(project["optional-dependencies"])


def test_commands_and_files_that_the_readme_names_exist():
    """Every `fgbook ...` line of the README parses (names, options, rows, parameters);
    every relative link and notebook is there."""
    import re
    import shlex

    from fgbook import papers, reproduce

    text = (paths.REPOSITORY / "README.md").read_text()
    lines = re.findall(r"(?:\$ |`|&& )(fgbook [^`\n#]+)", text)
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0].startswith("-"):
            continue
        command = cli.cli.commands[words.pop(0)]
        if isinstance(command, cli.Commands):
            command = command.commands[words.pop(0)]
        # raises for what it does not know
        given = command.make_context("fgbook", words).params
        if "rows" in given:
            assert all(papers.get(given["paper"]).row(row) for row in given["rows"])
    for notebook, changes in re.findall(
        r"(?:papermill notebooks/|fgbook reproduce )(\w+)\S*(?: out\.ipynb)?((?: -p \w+"
        r" \w+)+)",
        text,
    ):
        reproduce.check_parameters(
            paths.REPOSITORY / "notebooks" / f"{notebook}.ipynb",
            dict(re.findall(r"-p (\w+) (\w+)", changes)),
        )
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (paths.REPOSITORY / target).exists(), target
