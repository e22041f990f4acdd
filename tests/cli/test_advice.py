"""Advice that a program gives must work: every sentence of the package that names a
command is found in its sources, and for each one a test does what it says."""

import ast
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_help import understood

from commandline import fgbook, refused
from fgbook import paths
from fgbook.data import PHOTOGRAPHED, fetch
from fgbook.evidence import records, runs

# ---- every sentence has its test

# What makes a sentence of the sources one that names a command.
NAMES_A_COMMAND = re.compile(
    r"`fgbook |same command|command that trains|run its row|run again|\bwith --"
    r"|\{[^}]*command\b|pip install",
    re.IGNORECASE,
)

HERE = "tests/cli/test_advice.py"

# A part of each sentence -> the test that follows the advice: its file and name.
FOLLOWED = {
    # the causal table
    "`fgbook causal --run KEY --publish`": (
        "tests/cli/test_causal_command.py"
        "::test_edited_parts_that_were_damaged_are_made_again_as_is_said"
    ),
    "`fgbook causal --table`": (
        "tests/cli/test_causal_table.py"
        "::test_a_damaged_table_is_refused_and_can_be_made_again"
    ),
    "`fgbook results` lists the keys": (
        "tests/cli/test_predict.py::test_a_key_that_nothing_has_is_refused"
    ),
    # the same command again
    "stopped; run the same command again": (
        "tests/cli/test_run.py::test_ctrl_c_ends_a_run_so_that_it_can_go_on"
    ),
    "(a newer one may have taken its place); run the same command again": (
        "tests/evidence/test_records.py"
        "::test_a_record_that_has_gone_since_it_was_read_says_so"
    ),
    "{BUDGET_ENDED} {done} of": (
        "tests/cli/test_run.py::test_ctrl_c_ends_a_run_so_that_it_can_go_on"
    ),
    "even these take longer than": (
        "tests/cli/test_compare_command.py"
        "::test_one_that_was_killed_goes_on_and_ends_with_the_same_table"
    ),
    "it left no record of key": (
        "tests/evidence/test_batch.py"
        "::test_a_run_whose_package_changed_meanwhile_is_told_and_can_be_planned_again"
    ),
    "Stop cleanly after N minutes; run again": (
        "tests/cli/test_run.py::test_ctrl_c_ends_a_run_so_that_it_can_go_on"
    ),
    "give the same command again, which verifies": (
        "tests/data/test_fetch.py"
        "::test_archives_put_there_by_hand_are_verified_and_used"
    ),
    "is there, but not all of data set": (
        "tests/data/test_fetch.py"
        "::test_a_folder_that_its_loader_does_not_accept_is_incomplete"
    ),
    "changed while its data set was being read": (
        "tests/evidence/test_faults.py"
        "::test_a_picture_that_changes_while_its_data_set_is_read_is_refused"
    ),
    "has changed since run {self.key} was looked up": (
        "tests/evidence/test_faults.py"
        "::test_pictures_that_change_in_the_middle_of_a_run_never_change_its_result"
    ),
    "<code>{_text(story.command)}": (
        "tests/cli/test_batch_command.py::test_what_is_finished_is_not_run_again"
    ),
    "{self.run.command}{train}": (
        "tests/evidence/test_batch.py"
        "::test_a_stage_is_made_again_only_for_a_run_that_needs_its_weights"
    ),
    # commands by name
    "--keys only says something with --plan": (
        "tests/cli/test_batch_command.py::test_keys_name_every_run_and_stage_of_a_plan"
    ),
    "--keys only says something with --dry-run": (
        "tests/cli/test_run.py::test_the_key_of_a_run_is_told_before_it_is_made"
    ),
    "says how to get it": f"{HERE}::test_data_list_names_a_command_that_tells",
    "lists them": f"{HERE}::test_what_is_left_out_is_listed_by_the_command_named",
    "run `fgbook data get": f"{HERE}::test_what_is_missing_can_be_fetched_as_is_said",
    "`fgbook data get cars` names": (
        f"{HERE}::test_what_is_missing_can_be_fetched_as_is_said"
    ),
    "start with `fgbook run feng`": f"{HERE}::test_the_first_step_can_be_made",
    "make some with `fgbook run": f"{HERE}::test_the_first_step_can_be_made",
    "`fgbook doctor --torch`": (
        "tests/cli/test_places.py::test_doctor_asks_pytorch_only_when_told"
    ),
    "run `fgbook reproduce` first": (
        "tests/book/test_reproduce.py::test_the_book_is_built_from_executed_copies"
    ),
    "with --jobs 1": f"{HERE}::test_options_that_a_message_names_exist",
    "allow more with --timeout-minutes": (
        f"{HERE}::test_options_that_a_message_names_exist"
    ),
    "(with --verdicts: the verdicts)": (
        "tests/cli/test_results.py::test_verdicts_come_from_photographs"
    ),
    "was not written by `fgbook export`": (
        "tests/export/test_export.py::test_a_file_of_another_program_is_refused"
    ),
    "which `fgbook export` does not write": (
        "tests/export/test_archive.py::test_a_file_that_could_run_code_is_refused"
    ),
    "that `fgbook export` wrote": (
        "tests/cli/test_export_command.py::test_an_exported_file_predicts_as_its_run"
    ),
    "pip install": f"{HERE}::test_extras_that_a_message_names_exist",
    # a run made again
    "{about['command']} --train": (
        f"{HERE}::test_weights_that_are_not_here_are_trained_as_is_said"
    ),
    "train it with `{train_command": (
        f"{HERE}::test_weights_that_are_not_here_are_trained_as_is_said"
    ),
    "train it again with `{train_command": (
        f"{HERE}::test_weights_that_are_not_here_are_trained_as_is_said"
    ),
    "Make the run again with `{models.train_command": (
        f"{HERE}::test_a_model_without_description_is_made_again_as_is_said"
    ),
    "make it again with `{command}`": (
        f"{HERE}::test_a_damaged_record_is_made_again_as_is_said"
    ),
    "<code>{command}</code>": (
        "tests/cli/test_run.py::test_a_run_is_found_again_by_the_command_in_its_record"
    ),
    "delete that file and run the command that trains them again": (
        "tests/training/test_training.py"
        "::test_damaged_final_weights_are_told_and_made_again"
    ),
    "run the command that trains them again": (
        "tests/training/test_training.py"
        "::test_damaged_final_weights_are_told_and_made_again"
    ),
    "whose record is not here; run its row again": (
        f"{HERE}::test_a_row_of_which_something_is_lost_can_be_run_again"
    ),
    "{reason} Run its row again": (
        f"{HERE}::test_a_row_of_which_something_is_lost_can_be_run_again"
    ),
    "run its row again": (
        f"{HERE}::test_a_row_of_which_something_is_lost_can_be_run_again"
    ),
}


def sentences() -> Iterator[tuple[str, str]]:
    """Place and text of every string in the package that names a command, without
    docstrings and the examples of help texts (which test_help.py tries)."""
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                skipped.add(id(node.value))
            if isinstance(node, ast.JoinedStr):  # its parts are not strings of theirs
                skipped |= {id(part) for part in node.values}
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "examples":
                skipped |= {id(part) for part in ast.walk(node)}
        for node in ast.walk(tree):
            text = "" if id(node) in skipped else said(node)
            if NAMES_A_COMMAND.search(text):
                yield f"{path.relative_to(paths.REPOSITORY)}:{node.lineno}", text


def said(node: ast.AST) -> str:
    """The text of a string; what an f-string puts in stands in braces."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            parts.append("{" + ast.unparse(part.value) + "}")
        else:
            parts.append(said(part))
    return "".join(parts)


def test_every_sentence_that_names_a_command_is_followed_by_a_test():
    missing = [
        f"{place}: {text}"
        for place, text in sentences()
        if not any(part in text for part in FOLLOWED)
    ]
    assert not missing, "put them into FOLLOWED, with a test that does what they say"


def test_no_test_follows_a_sentence_that_is_no_longer_there():
    texts = [text for _, text in sentences()]
    stale = [part for part in FOLLOWED if not any(part in text for text in texts)]
    assert not stale


@pytest.mark.parametrize("test", sorted(set(FOLLOWED.values())))
def test_the_tests_that_follow_are_there(test):
    file, name = test.split("::")
    text = (paths.REPOSITORY / file).read_text(encoding="utf-8")
    assert f"def {name}(" in text


# ---- following it


def advised(message: str) -> list[str]:
    """The words after `fgbook` of the one command that stands in a message."""
    (command,) = re.findall(r"`fgbook ([^`]+)`", " ".join(message.split()))
    return shlex.split(command)


@pytest.fixture
def picture(pictures) -> str:
    return str(pictures / "red" / "0.png")


@pytest.fixture
def own_runs(trained, tmp_path, monkeypatch) -> tuple[Path, dict]:
    """The trained run as a copy that may be damaged; and its record."""
    runs_folder, record = trained
    shutil.copytree(runs_folder, tmp_path / "copy")
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "copy"))
    return tmp_path / "copy" / record["key"], record


@pytest.mark.parametrize("state", ["published only", "damaged"])
def test_weights_that_are_not_here_are_trained_as_is_said(
    own_runs, picture, tmp_path, state
):
    folder, record = own_runs
    predict = ["predict", picture, "--run", record["key"], "--top", "1"]
    if state == "damaged":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        published = {**record, "predictions": None}
        records.save(
            published, None, tmp_path / "results" / f"plain-{record['key']}.json"
        )
        shutil.rmtree(folder)
    before = fgbook(*predict)
    refused(before, record["key"])

    done = fgbook(*advised(before.stderr))
    assert done.exit_code == 0, done.output
    after = fgbook(*predict)
    assert after.exit_code == 0, after.output
    assert after.stdout.splitlines()[-1].endswith("red")


def test_a_model_without_description_is_made_again_as_is_said(
    own_runs, picture, pictures, tmp_path, monkeypatch
):
    """Of a run that was made before there were descriptions, on data that are no longer
    what they were: here because a picture was added."""
    folder, record = own_runs
    shutil.copytree(pictures, tmp_path / "birds")
    asked = record["command"].replace(str(pictures), str(tmp_path / "birds"))
    assert fgbook(*asked.split()[1:]).exit_code == 0
    (folder / "model.json").unlink()
    shutil.copy(picture, tmp_path / "birds" / "red" / "new.png")
    older = {**record, "command": asked, "dataset": f"folder:{tmp_path / 'birds'}"}
    records.save(older, None, folder / "record.json")

    before = fgbook("predict", picture, "--run", record["key"])
    refused(before, "has changed since")
    done = fgbook(*advised(before.stderr))
    assert done.exit_code == 0, done.output
    (made,) = [one for one in records.fresh() if one["key"] in done.stdout]
    assert made["key"] != record["key"]
    after = fgbook("predict", picture, "--run", made["key"])
    assert after.exit_code == 0, after.output


def test_a_damaged_record_is_made_again_as_is_said(own_runs):
    folder, record = own_runs
    path = folder / "record.json"
    path.write_text(path.read_text()[:-20])
    with pytest.warns(RuntimeWarning, match="is not a record") as caught:
        assert "no results yet" in fgbook("results").stdout
    done = fgbook(*advised(str(caught[0].message)))
    assert done.exit_code == 0, done.output
    assert record["key"] in fgbook("results").stdout


def test_a_row_of_which_something_is_lost_can_be_run_again(own_runs):
    """As the sentences say: delete the record, run its row again."""
    folder, record = own_runs
    (folder / "record.npz").write_bytes(b"")
    (folder / "record.json").unlink()
    assert fgbook(*record["command"].split()[1:]).exit_code == 0
    (again,) = records.fresh()
    assert again["key"] == record["key"]
    assert again["metrics"] == record["metrics"]
    assert len(records.load_predictions(again)["label"]) == again["images"]["test"]


def test_the_first_step_can_be_made(trained, picture, monkeypatch):
    """The command as it is said; the training itself is left out."""
    runs_folder, record = trained
    made = records.load(runs_folder / record["key"] / "record.json")
    monkeypatch.setattr(runs, "_find_or_make", lambda run, *_: made | {"row": run.row})
    commands = {
        tuple(advised(fgbook("results").stdout)),
        tuple(advised(fgbook("results", "liang").stdout)),
        tuple(advised(fgbook("predict", picture, "--run", "3f").stderr)),
    }
    for command in commands:
        done = fgbook(*command)
        assert done.exit_code == 0, done.output
        assert record["key"] in done.stdout


def test_data_list_names_a_command_that_tells():
    lines = [line for line in fgbook("data", "list").stdout.splitlines() if "`" in line]
    assert len(lines) == len(PHOTOGRAPHED)
    for line in lines:
        refused(fgbook(*advised(line)), "is not in")


@pytest.mark.parametrize("name", PHOTOGRAPHED)
def test_what_is_missing_can_be_fetched_as_is_said(name, monkeypatch):
    """Every data set whose authors still offer it, and what is made from one; of the
    other one, what to look for. The download itself is tested in test_fetch.py."""
    asked = []

    def fetched(whole: str, *_) -> None:
        asked.append(whole)
        raise fetch.NotDelivered("no network")

    command = advised(fgbook("data", "check", name).stderr)
    if name.startswith("cars"):
        refused(fgbook(*command), "cars_train.tgz (sha256:")
        return
    monkeypatch.setattr(fetch, "_get", fetched)
    assert fgbook(*command).stderr == "Error: no network\n"
    (whole,) = asked
    assert name.startswith(whole)


def test_what_is_left_out_is_listed_by_the_command_named(pictures, tmp_path, capsys):
    from fgbook import data

    shutil.copytree(pictures, tmp_path / "my birds")
    (tmp_path / "my birds" / "red" / "phone.heic").write_bytes(b"no picture to us")
    data.load(f"folder:{tmp_path / 'my birds'}", 32)
    captured = capsys.readouterr()
    listed = fgbook(*advised(captured.out + captured.err))
    assert "phone.heic" in listed.stdout


@pytest.mark.parametrize("words", ["--jobs 1", "--timeout-minutes 60"])
def test_options_that_a_message_names_exist(words):
    understood(["reproduce", *words.split()])


def test_extras_that_a_message_names_exist():
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    named = []
    for _, text in sentences():
        named += re.findall(r"pip install ['\"]?fgbook\[(\w+)\]", text)
    assert named
    assert set(named) <= set(extras)
