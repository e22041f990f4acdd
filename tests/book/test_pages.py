"""What the README and the pages about the project say, compared with what is there:
paths, names, commands, and the steps that add something."""

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import click
import pytest
import yaml

from fgbook import __version__, cli, data, papers, paths, reproduce
from fgbook.data.photos import Photos
from fgbook.evidence import runs
from fgbook.figures.repeating import commands

ROOT = paths.REPOSITORY
PAGES = ["README.md", "book/developing.md", "book/reproduce.md", "book/batches.md"]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def cells(text: str) -> list[list[str]]:
    """The cells of all Markdown tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines]


# ---- paths


def named_paths() -> list[tuple[str, str]]:
    """Every path of the repository that a page names in code or in a link."""
    tops = "fgbook|tests|benchmarks|notebooks|book|results|workflow"
    found = set()
    for page in PAGES:
        for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", read(page)):
            found.add((page, path))
        for path in re.findall(r"\]\((?!http)([^)#]+)\)", read(page)):
            found.add((page, path.removeprefix("source:")))
    return sorted(found)


# What the reader is told to write.
TO_BE_WRITTEN = {"fgbook/methods/blurred.py", "blurred"}


@pytest.mark.parametrize(("page", "path"), named_paths())
def test_paths_that_a_page_names_exist(page, path):
    if path in TO_BE_WRITTEN:
        return
    inside_the_page = (ROOT / page).parent / path
    assert (ROOT / path).exists() or inside_the_page.exists()


# "`NAMES` in `fgbook/papers/__init__.py`"
PLACED = re.compile(r"`([A-Z][A-Za-z_]+)`\s+in\s+`(fgbook/[\w/.]+\.py)`")
# "in `fgbook/methods/__init__.py` its import and its line in `METHODS`"
NAMED_AFTER = re.compile(
    r"in\s+`(fgbook/[\w/.]+\.py)`[^.`]*?\sin\s+`([A-Z][A-Za-z_]+)`"
)


def placed_names() -> list[tuple[str, str]]:
    text = read("book/developing.md")
    after = [(name, file) for file, name in NAMED_AFTER.findall(text)]
    return sorted(set(PLACED.findall(text) + after))


def test_the_page_places_what_has_lines_to_be_added():
    named = {name for name, _ in placed_names()}
    assert named >= {"METHODS", "NAMES", "PHOTOGRAPHED", "SOURCES"}


@pytest.mark.parametrize(("name", "file"), placed_names())
def test_names_are_in_the_files_that_the_page_says(name, file):
    assert re.search(rf"^{name}\b.*=", read(file), flags=re.M)


# ---- commands


def command_lines(page: str) -> list[str]:
    """Every line for the command `fgbook` that a page shows, in a block of code or
    within a sentence, where it may be broken."""
    text = read(page)
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    found = re.findall(r"(?:\$ |&& )(fgbook [a-z][^`\n#]*)", text)
    for code in re.findall(r"`([^`]+)`", prose):
        line = " ".join(code.split())
        if re.match("fgbook [a-z]", line):
            found.append(line)
    return found


LINES = sorted({(page, line) for page in PAGES for line in command_lines(page)})


OF_PAPERS = [("{shown} repeating", c) for p in papers.names() for c in commands(p)]


@pytest.mark.parametrize(("page", "line"), LINES + OF_PAPERS)
def test_commands_that_a_page_shows_are_understood(page, line):
    words = shlex.split(line)[1:]
    command: click.Command = cli.cli
    while words and isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    if not words:  # named in prose
        return
    # raises for what it does not know
    given = command.make_context("fgbook", words).params
    for row in given.get("rows") or ():
        if row not in TO_BE_WRITTEN:
            papers.get(given["paper"]).row(row)


NOTEBOOKS = re.compile(
    r"(?:papermill notebooks/|fgbook reproduce )(\w+)\S*(?: out\.ipynb)?"
    r"((?: -p \w+ \w+)+)"
)


@pytest.mark.parametrize("page", PAGES)
def test_parameters_of_notebooks_that_a_page_shows_exist(page):
    for notebook, changes in NOTEBOOKS.findall(read(page)):
        path = ROOT / "notebooks" / f"{notebook}.ipynb"
        given = dict(re.findall(r"-p (\w+) (\w+)", changes))
        assert len(reproduce.check_parameters(path, given)) == len(given)


def test_the_package_is_used_as_the_readme_shows():
    """Names, and the keywords of calls; running it would train for minutes."""
    (example,) = re.findall(r"```python\n(.*?)```", read("README.md"), flags=re.S)
    calls = [
        node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)
    ]
    asked = {
        node.func.attr: {keyword.arg for keyword in node.keywords}
        for node in calls
        if isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "runs"
    }
    assert set(asked) == {"rows", "load_model"}
    for name, keywords in asked.items():
        assert keywords <= set(inspect.signature(getattr(runs, name)).parameters)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_a_page_shows_exist(page):
    targets = re.findall(r"^\.PHONY: (.*)", read("Makefile"), flags=re.M)[0].split()
    for target in re.findall(r"(?:\$ |`)make ([a-z-]+)", read(page)):
        assert target in targets


def test_the_gate_runs_what_the_page_says():
    gate = read("book/developing.md").split("## The gate")[1].split("```")[1]
    said = re.findall(r"\$ make ([\w-]+)", gate)
    run = re.findall(r"^command_of_the_readme ([\w-]+)", read(".ci/run"), flags=re.M)
    assert said == run


def test_lint_asks_what_the_page_says():
    recipe = read("Makefile").split("\nlint: ")[1].split("\n\n")[0]
    said = read("book/developing.md").split("`make lint` asks ")[1].split(";")[0]
    for tool in re.findall(r"`([^`]+)`", " ".join(said.split())):
        assert tool in recipe


def test_the_hooks_ask_what_make_lint_asks():
    """The same tools, of the environment in use: nothing is fetched from elsewhere. Of
    workflows git names the files."""
    recipe = read("Makefile").split("\nlint: ")[1].split("\n\n")[0]
    wanted = re.findall(r"\$\(python\) -m (.+?)(?: \\\n.*)? \|\|", recipe)
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    asked = [re.sub(r"^python -m | --force-exclude", "", entry) for entry in entries]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert asked == wanted


# ---- adding something, as the page says


def blocks(title: str) -> list[str]:
    """The Python code under a heading of the page."""
    section = read("book/developing.md").split(f"### {title}\n")[1].split("\n## ")[0]
    section = section.split("\n### ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.S)


def add_the_method(where: Path) -> None:
    """The steps of the page, literally, in a copy of the package."""
    unseen = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fgbook", where / "fgbook", ignore=unseen)
    file, its_import, its_line, its_row = blocks("A method")
    folder = where / "fgbook" / "methods"
    (folder / "blurred.py").write_text(file)
    text = (folder / "__init__.py").read_text()
    text = text.replace("from .flrdf", f"{its_import}from .flrdf", 1)
    text = re.sub(r"(\nMETHODS\b.*= \{\n)", rf"\g<1>{its_line}", text)
    (folder / "__init__.py").write_text(text)
    paper = where / "fgbook" / "papers" / "compare.py"
    row = f"    {its_row.strip()},\n"  # among others
    text, rows = re.subn(r"(\nROWS = \(\n)", rf"\g<1>{row}", paper.read_text())
    assert rows == 1
    paper.write_text(text)


@pytest.mark.slow
def test_a_new_method_is_trained_by_the_command_of_the_page(tmp_path):
    add_the_method(tmp_path)
    section = read("book/developing.md").split("### A method\n")[1]
    (command,) = re.findall(r"\$ fgbook (.*)\n", section.split("\n### ")[0])
    places = {"PYTHONPATH": tmp_path, "OMP_NUM_THREADS": "1"}
    for name in ("runs", "results"):
        places[f"FGBOOK_{name.upper()}"] = tmp_path / name
    done = subprocess.run(
        [sys.executable, "-m", "fgbook", *shlex.split(command)],
        cwd=tmp_path,
        env=dict(os.environ, **{name: str(place) for name, place in places.items()}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["method"], record["dataset"]) == ("blurred", "fieldguide")
    assert record["train"]["epochs"] == 1
    assert record["metrics"]["test"]["top1"] > 2 / record["num_classes"]  # it learns


def test_a_method_takes_one_file_and_its_line_and_gets_the_tests_of_all(tmp_path):
    add_the_method(tmp_path)
    unseen = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "methods", tmp_path / "methods", ignore=unseen)
    shutil.copy(ROOT / "tests" / "samples.py", tmp_path / "methods")

    # One network is enough here: the gate tries the package's own methods on all. And
    # compiling takes longer than all the rest.
    words = "-m pytest -p no:cacheprovider methods/test_methods.py -v".split()
    chosen = "blurred and not resnet and not mobilenet and not compile"
    done = subprocess.run(
        [sys.executable, *words, "-k", chosen],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    applied = re.findall(r"::test_\w+\[blurred.*\] PASSED", done.stdout)
    assert len(applied) > 20


@pytest.mark.parametrize("name", data.PHOTOGRAPHED)
def test_a_data_set_is_two_functions_in_a_file(name):
    module = data.PHOTOGRAPHED[name]
    assert get_type_hints(module.folder)["return"] is Path
    assert get_type_hints(module.photos)["return"] is Photos


# the comparison of methods stands among the papers' files and is none of them
PAPERS = [name for name in papers.names() if name != "compare"]


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_a_file_a_chapter_and_notebooks(name):
    assert papers.get(name).key == name
    parts = yaml.safe_load(read("_toc.yml"))["parts"]
    (chapters,) = [part["chapters"] for part in parts if part["caption"] == "Papers"]
    (chapter,) = [one for one in chapters if one["file"] == f"book/{name}"]
    listed = [section["file"] for section in chapter["sections"]]
    there = sorted((ROOT / "notebooks").glob(f"{name}_*.ipynb"))
    assert sorted(listed) == [f"notebooks/{path.stem}" for path in there]
    assert there


def test_fields_of_records_are_listed():
    """Of the published ones, and those that came later."""
    listed = set()
    section = read("book/reproduce.md").split("## What a record holds")[1]
    for row in cells(section.split("\n## ")[0]):
        listed |= set(re.findall(r"`(\w+)`", row[0]))
    used = {"option_changes", "sha256", "loop_version", "measures_version"}
    for path in (ROOT / "results").rglob("*.json"):
        used |= set(json.loads(path.read_text(encoding="utf-8")))
    assert used <= listed


# ---- the project's own files


def test_versions_agree():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert project["version"] == __version__
    assert str(citation["version"]) == __version__
    assert f"## {__version__}" in read("CHANGELOG.md")


def test_conda_installs_extras_that_exist():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    conda = yaml.safe_load(read("environment.yml"))["dependencies"]
    extras = conda[-1]["pip"][0].split("[")[1].rstrip("]").split(",")
    assert set(extras) <= set(project["optional-dependencies"])
