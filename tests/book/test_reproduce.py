"""Batches of notebooks and the book: real kernels, real processes, tiny notebooks."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

import samples
from fgbook import papers, paths, reproduce
from fgbook.cli import cli
from fgbook.errors import InputError, unfinished

PARAMETERS = """profile: str = "quick"  # which recipe
seeds: int = 1  # how many
rate: float = 0.5
wide: bool = False
sizes: list[int] = [1, 2]
"""


def write(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a heading, a parameters cell and code cells."""
    cells = [
        nbformat.v4.new_markdown_cell(f"# {path.stem}"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def clone(tmp_path):
    """A small clone: a book of two pages."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.md").write_text(
        "# Title\n\nSee [the notebook](../notebooks/good.ipynb).\n"
    )
    (tmp_path / "_config.yml").write_text(
        'title: small\nexecute:\n  execute_notebooks: "off"\n'
    )
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n  - file: notebooks/good\n"
    )
    write(tmp_path / "notebooks" / "good.ipynb", "print('measured', profile, seeds)")
    return tmp_path


def command(clone: Path, *words: str) -> subprocess.Popen:
    package = clone if (clone / "fgbook").exists() else paths.REPOSITORY
    environment = dict(
        os.environ,
        PYTHONPATH=str(package),
        FGBOOK_RESULTS=str(clone / "results"),
        OMP_NUM_THREADS="1",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "fgbook", *words],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(notebook: Path) -> str:
    """What the cells of an executed notebook printed."""
    said = []
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                said.append(output["text"])
    return "".join(said)


def states(results: list[reproduce.Result]) -> dict[str, str]:
    return {result.name: result.state for result in results}


# ---- parameters


def test_parameters_get_the_types_that_the_notebook_declares(clone):
    given = {
        "profile": "photo",
        "seeds": "3",
        "rate": "1e-5",
        "wide": "true",
        "sizes": "[4]",
    }
    typed = reproduce.check_parameters(clone / "notebooks" / "good.ipynb", given)
    assert typed == {
        "profile": "photo",
        "seeds": 3,
        "rate": 1e-5,
        "wide": True,
        "sizes": [4],
    }
    assert [type(value) for value in typed.values()] == [str, int, float, bool, list]


def test_types_come_from_the_default_where_there_is_no_annotation(tmp_path):
    notebook = write(tmp_path / "n.ipynb", parameters="seeds = 1\nname = 'a'\n")
    assert reproduce.check_parameters(notebook, {"seeds": "2", "name": "2"}) == {
        "seeds": 2,
        "name": "2",
    }
    with pytest.raises(InputError, match="of type int"):
        reproduce.check_parameters(notebook, {"seeds": "two"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", "three"),
        ("seeds", "1.5"),
        ("seeds", ""),
        ("rate", "fast"),
        ("rate", "nan"),
        ("wide", "1"),
        ("sizes", "4"),
        ("sizes", "['a']"),
    ],
)
def test_a_wrong_type_gets_one_sentence(clone, name, value):
    with pytest.raises(InputError) as caught:
        reproduce.check_parameters(clone / "notebooks" / "good.ipynb", {name: value})
    said = str(caught.value)
    assert f"parameter {name} " in said
    assert "must be of type" in said
    assert repr(value) in said
    assert "\n" not in said


def test_a_mistyped_name_gets_the_nearest_valid_ones(clone):
    with pytest.raises(
        InputError, match="unknown parameter of good 'seed'; did you mean 'seeds'"
    ):
        reproduce.check_parameters(clone / "notebooks" / "good.ipynb", {"seed": "3"})


@pytest.mark.parametrize(
    "cell", ["seeds: int = 1  # seeds=1 is quick", "seeds: int | None = 1"]
)
def test_a_parameter_that_papermill_cannot_see_is_refused(tmp_path, cell):
    """papermill passes over lines with two '=' and annotations it does not know: its
    help would lack them."""
    with pytest.raises(InputError, match="cannot read parameter seeds"):
        reproduce.check_parameters(write(tmp_path / "n.ipynb", parameters=cell), {})


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "n.ipynb").write_text("{")
    with pytest.raises(InputError, match="n.ipynb is not a notebook"):
        reproduce.check_parameters(tmp_path / "n.ipynb", {})


def test_notebooks_are_found_by_name_with_or_without_folder(clone):
    good = clone / "notebooks" / "good.ipynb"
    for name in ("good", "good.ipynb", "notebooks/good.ipynb"):
        assert reproduce.notebooks(clone, [name]) == [good]
    with pytest.raises(InputError, match="unknown notebook 'god'; did you mean 'good'"):
        reproduce.notebooks(clone, ["god"])


@pytest.mark.parametrize(
    "notebook", reproduce.notebooks(paths.REPOSITORY), ids=lambda path: path.stem
)
def test_the_books_own_notebooks_accept_their_own_parameters(notebook):
    """Each as a person would give it: one that means something else than its name does
    elsewhere would be refused."""
    from papermill import inspect_notebook

    texts = {}
    for name, about in inspect_notebook(notebook).items():
        if about["inferred_type_name"] == "str":
            texts[name] = ast.literal_eval(about["default"])
    assert reproduce.check_parameters(notebook, texts) == texts


@pytest.mark.parametrize(
    "notebook", reproduce.notebooks(paths.REPOSITORY), ids=lambda path: path.stem
)
def test_every_notebook_with_rows_says_of_which_paper(notebook):
    names = {"row", "rows"} & set(reproduce._assigned(notebook))
    assert not names or reproduce.paper_of(notebook) in papers.names()
    for name in names:
        with pytest.raises(InputError, match="unknown row of"):
            reproduce.check_parameters(notebook, {name: "nonsense"})


def test_wrong_parameters_are_refused_before_any_kernel_starts(clone):
    write(
        clone / "notebooks" / "other.ipynb",
        "open('started', 'w')",
        parameters="speed: int = 1\n",
    )
    # speed: unknown to the first one only
    for given in ({"seeds": "three"}, {"speed": "3"}):
        with pytest.raises(InputError):
            reproduce.execute(clone, reproduce.notebooks(clone), given)
    process = command(clone, "reproduce", "-p", "seed", "3")
    _, error = process.communicate(timeout=600)
    assert process.returncode == 2, error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert not (clone / "started").exists()
    assert not list((clone / "_build" / "running").glob("*"))


# ---- executing


@pytest.fixture
def bad(clone):
    """A second notebook, in which a cell fails."""
    failing = "def look():\n    raise ValueError('no such bird')"
    return write(clone / "notebooks" / "bad.ipynb", failing, "look()", "print('never')")


def test_a_batch_survives_a_failure(clone, bad, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "_determinants", dict)
    good = clone / "notebooks" / "good.ipynb"
    results = reproduce.execute(clone, [bad, good])
    assert states(results) == {"bad": "failed", "good": "done"}

    said = capsys.readouterr().out
    assert "cell 4:" in said
    assert "look()" in said
    assert "ValueError: no such bird" in said
    assert "Traceback" not in said

    executed = clone / "_build" / "executed"
    assert [path.name for path in executed.iterdir()] == ["good.ipynb"]
    assert (clone / "_build" / "failed" / "bad.ipynb").is_file()
    assert not list((clone / "_build" / "running").iterdir())

    copy = nbformat.read(executed / "good.ipynb", 4)
    assert "measured quick 1" in printed(executed / "good.ipynb")
    tags = [tag for cell in copy.cells for tag in cell.metadata.get("tags", [])]
    assert "injected-parameters" not in tags  # a Colab reader's edits must count
    assert str(clone) not in json.dumps(copy)

    write(bad, "print('repaired')")
    assert states(reproduce.execute(clone, [bad, good])) == {
        "bad": "done",
        "good": "kept",
    }
    assert not (clone / "_build" / "failed" / "bad.ipynb").exists()


def test_a_batch_executes_again_what_has_changed(clone, monkeypatch):
    monkeypatch.setattr(reproduce, "_determinants", lambda: {"package": 1})
    good = clone / "notebooks" / "good.ipynb"
    assert states(reproduce.execute(clone, [good])) == {"good": "done"}

    # saved with outputs, as JupyterLab does: the same notebook
    stored = nbformat.read(good, 4)
    stored.cells[-1].outputs = [nbformat.v4.new_output("stream", text="by hand")]
    stored.cells[-1].execution_count = 7
    nbformat.write(stored, good)
    assert states(reproduce.execute(clone, [good])) == {"good": "kept"}

    write(good, "print('measured again')")
    assert states(reproduce.execute(clone, [good])) == {"good": "done"}
    assert "again" in printed(clone / "_build" / "executed" / "good.ipynb")

    monkeypatch.setattr(reproduce, "_determinants", lambda: {"package": 2})
    assert states(reproduce.execute(clone, [good])) == {"good": "done"}


def test_a_copy_that_was_cut_short_counts_as_missing(clone):
    job = reproduce.Job(clone, clone / "notebooks" / "good.ipynb", key="0")
    job.running.parent.mkdir(parents=True)
    shutil.copy(job.notebook, job.running)
    reproduce._finish(job, 1.0)
    assert reproduce._done(job)
    job.copy.write_bytes(job.copy.read_bytes()[:-100])
    assert not reproduce._done(job)


def test_what_a_key_depends_on_notices_code_and_records(tmp_path, monkeypatch):
    for name in ("package", "results"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "package")
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))
    first = reproduce._determinants()
    assert {"python", "torch"} <= set(first["versions"])

    (tmp_path / "results" / "r.json").write_text("{}")
    second = reproduce._determinants()
    assert first["results"] != second["results"]
    assert first["package"] == second["package"]

    (tmp_path / "package" / "m.py").touch()
    third = reproduce._determinants()
    assert second["results"] == third["results"]
    assert second["package"] != third["package"]


def test_other_parameters_leave_the_published_copies_alone(clone, monkeypatch):
    monkeypatch.setattr(reproduce, "_determinants", dict)
    good = clone / "notebooks" / "good.ipynb"
    given = {"profile": "photo", "seeds": "3"}
    (result,) = reproduce.execute(clone, [good], given)
    assert result.state == "done"
    assert not (clone / "_build" / "executed").exists()
    (copy,) = (clone / "_build" / "batch").iterdir()
    assert "measured photo 3" in printed(copy)
    assert "profile=photo" in copy.name
    # Not kept: the time budget may have cut it off, and what is finished is found by
    # its record.
    assert reproduce.execute(clone, [good], given)[0].state == "done"


@pytest.mark.parametrize(
    "name, value, near",
    [("profile", "quik", "'quick'"), ("dataset", "cub5", "'cub50'")],
)
def test_a_profile_or_data_set_that_does_not_exist_is_refused_before_a_kernel_starts(
    tmp_path, name, value, near
):
    notebook = write(
        tmp_path / "feng_some.ipynb", parameters=f'{name}: str = ""  # one of those'
    )
    with pytest.raises(InputError, match=near):
        reproduce.check_parameters(notebook, {name: value})


@pytest.mark.parametrize(
    ("declared", "value", "said"),
    [
        ("seeds: int = 1", "0", "at least 1, not 0"),
        ("budget_minutes: float = 0.0", "-1", "at least 0"),
        (
            'networks: str = ""',
            "feng/plain,gautam/nope",
            "row of gautam 'nope'",
        ),
        ('planted: str = "100"', "100,55", "'fieldguide-shortcut50'"),
    ],
)
def test_what_a_notebook_cannot_run_is_refused_before_a_kernel_starts(
    tmp_path, declared, value, said
):
    notebook = write(tmp_path / "causal.ipynb", parameters=declared)
    name = declared.split(":")[0]
    with pytest.raises(InputError, match=said):
        reproduce.check_parameters(notebook, {name: value})


def test_the_path_of_a_folder_is_meant_from_where_the_person_is(tmp_path, monkeypatch):
    """Kernels work in the clone's folders."""
    samples.folder(tmp_path / "birds", count=5)
    (tmp_path / "elsewhere").mkdir()
    notebook = write(
        tmp_path / "feng_some.ipynb", parameters='dataset: str = ""  # one'
    )
    monkeypatch.chdir(tmp_path)
    typed = reproduce.check_parameters(notebook, {"dataset": "folder:birds"})
    assert typed == {"dataset": f"folder:{tmp_path / 'birds'}"}

    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a folder"):
        reproduce.check_parameters(notebook, {"dataset": "folder:birds"})


def test_a_cell_that_takes_too_long_and_a_dead_kernel_are_told_apart(clone, capsys):
    slow = write(clone / "notebooks" / "slow.ipynb", "import time; time.sleep(60)")
    dead = write(clone / "notebooks" / "dead.ipynb", "import os; os._exit(1)")
    assert states(reproduce.execute(clone, [slow], minutes=0.02)) == {"slow": "failed"}
    assert states(reproduce.execute(clone, [dead])) == {"dead": "failed"}
    said = capsys.readouterr().out
    assert "longer than 0.02 minutes" in said
    assert "kernel died" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_batch_that_is_killed_leaves_nothing_behind_and_goes_on(clone, number):
    """Whatever ends the command, its kernels end too, what was finished stays, and the
    next call does the rest."""
    # code that nobody edits meanwhile
    shutil.copytree(
        Path(reproduce.__file__).parent,
        clone / "fgbook",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    says_its_number = (
        "import os, time\n"
        "open('pid.new', 'w').write(str(os.getpid()))\n"
        "os.rename('pid.new', 'pid')"
    )
    waits = "if not os.path.exists('quick'):\n    time.sleep(300)"
    write(clone / "notebooks" / "slow.ipynb", says_its_number, waits)
    executed = clone / "_build" / "executed"
    process = command(clone, "reproduce", "--no-book", "--jobs", "2")
    wait_for((clone / "pid").exists)
    wait_for((executed / "good.ipynb").exists)
    process.send_signal(number)
    _, error = process.communicate(timeout=600)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "run the same command again" in error
        assert "Traceback" not in error
    kernel = int((clone / "pid").read_text())
    wait_for(lambda: not alive(kernel))
    assert [path.name for path in executed.iterdir()] == ["good.ipynb"]
    (clone / "quick").touch()
    process = command(clone, "reproduce", "--no-book")
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert "1 of 2 notebooks are up to date" in out
    assert "slow: done" in out


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # a container may have nobody who collects the dead
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def wait_for(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_the_same_notebook_twice_at_once_is_refused(clone):
    with (
        reproduce._alone(clone, ["good"]),
        pytest.raises(InputError, match="another fgbook reproduce.* on good in"),
    ):
        reproduce.execute(clone, [clone / "notebooks" / "good.ipynb"])


def test_other_notebooks_of_a_clone_can_be_executed_at_once(clone, monkeypatch):
    """As the jobs of an array do; what another one is writing stays."""
    monkeypatch.setattr(reproduce, "_determinants", dict)
    other = clone / "_build" / "running" / "other.ipynb"
    other.parent.mkdir(parents=True)
    other.write_text("being written")
    with reproduce._alone(clone, ["other"]):
        (result,) = reproduce.execute(clone, [clone / "notebooks" / "good.ipynb"])
    assert result.state == "done"
    assert other.read_text() == "being written"


def test_a_notebook_whose_budget_ended_is_not_done(clone, monkeypatch):
    """Its copy is kept, and the command ends with the status "call again"."""
    monkeypatch.setattr(reproduce, "_determinants", dict)
    monkeypatch.chdir(clone)
    said = unfinished(1, 3)
    source = f"import warnings\nwarnings.warn({said!r}, RuntimeWarning)"
    write(clone / "notebooks" / "cut.ipynb", source)
    result = CliRunner().invoke(cli, ["reproduce", "cut"])
    assert result.exit_code == 75, result.output
    assert said in result.output
    assert (clone / "_build" / "executed" / "cut.ipynb").is_file()


# ---- the book


@pytest.fixture
def pages(clone, monkeypatch):
    """Where the small clone's book is built, with its notebook executed."""
    monkeypatch.setattr(reproduce, "_determinants", dict)
    reproduce.execute(clone, [clone / "notebooks" / "good.ipynb"])
    return clone / "_build" / "html"


def test_a_book_needs_executed_notebooks(clone):
    with pytest.raises(InputError, match="not executed yet: good"):
        reproduce.build_book(clone)


def test_the_book_is_built_from_executed_copies(clone, pages, capsys):
    page = reproduce.build_book(clone)
    assert page.is_file()
    assert "measured quick 1" in (pages / "notebooks" / "good.html").read_text()
    downloaded = pages / "_sources" / "notebooks" / "good.ipynb"
    # as stored, without outputs
    assert downloaded.read_bytes() == (clone / "notebooks" / "good.ipynb").read_bytes()

    built = page.stat().st_mtime_ns
    assert reproduce.build_book(clone).stat().st_mtime_ns == built  # nothing changed
    assert "up to date" in capsys.readouterr().out

    # a page that is gone or not what was built is not up to date
    chapter = pages / "notebooks" / "good.html"
    whole = chapter.read_bytes()
    page.unlink()
    chapter.write_bytes(whole[:100])
    assert reproduce.build_book(clone).is_file()
    assert "up to date" not in capsys.readouterr().out
    assert "measured quick 1" in chapter.read_text()


@pytest.mark.parametrize("damage", ["index.html", "notebooks/good.html", ".key"])
def test_a_book_with_a_file_missing_or_damaged_is_not_whole(tmp_path, damage):
    names = ("index.html", "notebooks/good.html")
    (tmp_path / "notebooks").mkdir()
    for name in names:
        (tmp_path / name).write_text(f"page {name}")
    noted = {"key": "0", "files": reproduce._digests(tmp_path)}
    (tmp_path / ".key").write_text(json.dumps(noted))
    assert reproduce._is_whole(tmp_path, "0")
    assert not reproduce._is_whole(tmp_path, "1")

    kept = (tmp_path / damage).read_text()
    (tmp_path / damage).write_text(kept[:-1])
    assert not reproduce._is_whole(tmp_path, "0")
    (tmp_path / damage).unlink()
    assert not reproduce._is_whole(tmp_path, "0")


def test_a_failed_build_keeps_the_old_book(clone, pages):
    pages.mkdir()
    (pages / "index.html").write_text("an earlier book")
    (clone / "book" / "index.md").write_text("# Title\n\nSee [it](missing.md).\n")
    with pytest.raises(reproduce.Failure, match=r"(?s)index\.md.*missing"):
        reproduce.build_book(clone)
    assert (pages / "index.html").read_text() == "an earlier book"
