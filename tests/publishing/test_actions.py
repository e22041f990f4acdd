"""The workflows of GitHub: that they can be trusted with what they may do, and that the
commands they give exist. Their syntax is checked by `make lint`."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from fgbook import __version__, paths

FOLDER = paths.REPOSITORY / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
# Which jobs may do more than read: to publish pages, and to name themselves to the
# package index. Both have an environment, which a person can protect.
MAY_WRITE = {
    ("book", "publish"): {"pages": "write", "id-token": "write"},
    ("release", "publish"): {"id-token": "write"},
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def jobs(path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def commands(path) -> list[str]:
    """What the steps of a workflow run, line by line."""
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines()]


def test_these_are_the_workflows():
    assert {path.stem for path in FILES} == {"tests", "book", "weekly", "release"}


@each_file
def test_actions_are_pinned_to_commits_and_say_their_version(path):
    used = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert used
    for line in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_an_action_has_one_version():
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    versions = dict.fromkeys(re.findall(r"uses: *(\S+)@(\S+ # \S+)", text))
    assert len({name for name, _ in versions}) == len(versions)


@each_file
def test_jobs_may_read_and_those_that_publish_a_little_more(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        assert job.get("permissions", {}) == MAY_WRITE.get((path.stem, name), {})
        assert ("environment" in job) == ("permissions" in job)


@each_file
def test_jobs_end(path):
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 120


@each_file
def test_no_text_from_outside_becomes_part_of_a_command(path):
    """Such as the title of a pull request: expressions are put in before the shell
    reads the line."""
    assert not [line for line in commands(path) if "${{" in line]


@each_file
def test_no_checkout_leaves_its_token_behind(path):
    for job in jobs(path).values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}


def test_targets_and_files_that_are_named_exist():
    makefile = (paths.REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)", makefile, flags=re.MULTILINE)
    lines = [line for path in FILES for line in commands(path)]
    made = {found for line in lines for found in re.findall(r"\bmake (\w+)", line)}
    assert {"lint", "test", "reproduce"} <= made <= set(targets.split())
    files = {found for line in lines for found in re.findall(r"--file (\S+)", line)}
    files |= {line for line in lines if line.startswith(".ci/")}
    assert files == {"environment.yml", ".binder/environment.yml", ".ci/run"}
    assert all((paths.REPOSITORY / name).is_file() for name in files)


OFFLINE = """
import runpy, socket, sys
def refuse(*_, **__):
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv[0] = "check-jsonschema"
runpy.run_module("check_jsonschema", run_name="__main__")
"""


def test_their_syntax_is_checked_without_a_network(tmp_path):
    """With the words of the Makefile."""
    makefile = (paths.REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "-m check_jsonschema --builtin-schema vendor.github-workflows" in makefile
    wrong = tmp_path / "wrong.yml"
    text = (FOLDER / "tests.yml").read_text(encoding="utf-8")
    wrong.write_text(text.replace("runs-on:", "runs-at:"), encoding="utf-8")
    words = [sys.executable, "-c", OFFLINE, "--builtin-schema"]
    words += ["vendor.github-workflows"]
    assert subprocess.run([*words, *FILES]).returncode == 0
    told = subprocess.run([*words, str(wrong)], capture_output=True, text=True)
    assert told.returncode == 1
    assert "runs-at" in told.stdout


def test_all_files_name_one_version():
    """A release is refused where its tag is not the version of pyproject.toml."""
    project = (paths.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(project)["project"]["version"]
    cited = (paths.REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert yaml.safe_load(cited)["version"] == __version__ == version
