"""The exercises of the chapters, read from the pages: each changes one parameter of a
notebook of its chapter, and its solution's command does that.
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import yaml
from test_book import copy_clone

import samples
from fgbook import paths, reproduce

ROOT = paths.REPOSITORY
CHAPTERS = ("golodov", "feng", "gautam", "liang", "peng", "causal")
# Every chapter may also use the notebook that begins the book.
OF_ALL = "tutorial"

EXERCISE = re.compile(
    r"\*\*(\d)\. [^*]+\*\* [^\n]+\n\n"
    r":::\{dropdown\} Solution \1\n"
    r"```console\n\$ (fgbook reproduce [^\n]+)\n```\n\n"
    r"([^\n]+)\n:::\n"
)


@dataclass(frozen=True)
class Exercise:
    """One of a chapter: the notebook, and what its solution changes."""

    chapter: str
    number: str
    notebook: Path
    changes: dict[str, str]

    def __str__(self) -> str:
        return f"{self.chapter} {self.number}"


def section(chapter: str) -> str:
    text = (ROOT / "book" / f"{chapter}.md").read_text(encoding="utf-8")
    return text.partition("\n## Exercises\n")[2].partition("\n## ")[0]


def exercises() -> list[Exercise]:
    found = []
    for chapter in CHAPTERS:
        for number, command, _ in EXERCISE.findall(section(chapter)):
            _, _, notebook, *words = shlex.split(command)
            path = ROOT / "notebooks" / f"{notebook}.ipynb"
            assert words[0::3] == ["-p"] * (len(words) // 3), command
            changes = dict(zip(words[1::3], words[2::3], strict=True))
            found.append(Exercise(chapter, number, path, changes))
    return found


EXERCISES = exercises()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_three_each_with_a_folded_solution(chapter):
    numbers = [one.number for one in EXERCISES if one.chapter == chapter]
    assert numbers == ["1", "2", "3"]
    assert section(chapter).count("{dropdown}") == 3


@pytest.mark.parametrize("one", EXERCISES, ids=str)
def test_it_changes_one_parameter_of_a_notebook_of_its_chapter(one):
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    below = {OF_ALL}
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            if chapter["file"] == f"book/{one.chapter}":
                below |= {Path(x["file"]).name for x in chapter["sections"]}
    assert one.notebook.stem in below
    (name,) = one.changes
    (value,) = reproduce.check_parameters(one.notebook, one.changes).values()
    cells = nbformat.read(one.notebook, 4).cells
    (source,) = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
    stored = re.search(rf"^{name}: \w+ = (.*?)  #", source, flags=re.M)
    assert yaml.safe_load(stored[1]) != value
    assert f"`{name}`" in section(one.chapter) or name in ("epochs",)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Notebooks with the smallest parameters, and a few pictures."""
    where = tmp_path_factory.mktemp("exercises")
    samples.cub(where / "data" / "cub", count=18, train=10)
    copy_clone(where, {one.notebook.stem for one in EXERCISES})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(where / name))
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        yield where


@pytest.mark.slow
@pytest.mark.parametrize("one", EXERCISES, ids=str)
def test_its_solution_runs(one, clone):
    """The change as the page writes it, on the smallest budget."""
    notebook = clone / "notebooks" / one.notebook.name
    (result,) = reproduce.execute(clone, [notebook], one.changes, jobs=1)
    assert result.state == "done", result.message
