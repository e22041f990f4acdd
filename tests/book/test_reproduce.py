"""Batches of notebooks and the book: real kernels, real processes, tiny notebooks."""

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

from fgbook import paths, reproduce
from fgbook.errors import InputError

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
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path
    )
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
    return "".join(
        o["text"]
        for cell in nbformat.read(notebook, 4).cells
        for o in cell.get("outputs", [])
        if o.output_type == "stream"
    )


def states(results: list[reproduce.Result]) -> dict[str, str]:
    return {result.name: result.state for result in results}


# ------------------------------------------------------------------------------------------------------------------------- parameters


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
    assert (
        name in said
        and "must be of type" in said
        and repr(value) in said
        and "\n" not in said
    )


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


def test_the_books_own_notebooks_can_be_parameterised():
    for notebook in reproduce.notebooks(paths.REPOSITORY):
        assert reproduce.check_parameters(notebook, {}) == {}


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
    out, error = process.communicate(timeout=600)
    assert (
        process.returncode == 2
        and error.startswith("Error: ")
        and error.count("\n") == 1
    ), error
    assert (
        not (clone / "started").exists() and not (clone / "_build" / "running").exists()
    )


# -------------------------------------------------------------------------------------------------------------------------- executing


def test_a_batch_skips_what_is_done_and_survives_a_failure(clone, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "_determinants", lambda: {"package": 1})
    good = clone / "notebooks" / "good.ipynb"
    bad = write(
        clone / "notebooks" / "bad.ipynb",
        "def look():\n    raise ValueError('no such bird')",
        "look()",
        "print('never')",
    )
    chosen = [bad, good]
    results = reproduce.execute(clone, chosen)
    assert states(results) == {"bad": "failed", "good": "done"}
    said = capsys.readouterr().out
    assert (
        "cell 4:" in said
        and "look()" in said
        and "ValueError: no such bird" in said
        and "Traceback" not in said
    )
    executed = clone / "_build" / "executed"
    assert [path.name for path in executed.iterdir()] == ["good.ipynb"]
    assert (clone / "_build" / "failed" / "bad.ipynb").is_file() and not (
        clone / "_build" / "running"
    ).exists()
    copy = nbformat.read(executed / "good.ipynb", 4)
    assert "measured quick 1" in printed(executed / "good.ipynb")
    # a Colab reader's edits must count
    assert not any(
        "injected-parameters" in cell.metadata.get("tags", []) for cell in copy.cells
    )
    assert str(clone) not in json.dumps(copy)

    write(bad, "print('repaired')")
    # saved with outputs, as JupyterLab does: the same notebook
    stored = nbformat.read(good, 4)
    stored.cells[-1].outputs, stored.cells[-1].execution_count = (
        [nbformat.v4.new_output("stream", text="by hand")],
        7,
    )
    nbformat.write(stored, good)
    assert states(reproduce.execute(clone, chosen)) == {"bad": "done", "good": "kept"}
    assert not (clone / "_build" / "failed" / "bad.ipynb").exists()

    write(good, "print('measured again')")
    assert states(reproduce.execute(clone, chosen)) == {"bad": "kept", "good": "done"}
    assert "again" in printed(executed / "good.ipynb")

    monkeypatch.setattr(reproduce, "_determinants", lambda: {"package": 2})
    assert states(reproduce.execute(clone, [good])) == {"good": "done"}


def test_what_a_key_depends_on_notices_code_and_records(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path))
    before = reproduce._determinants()
    (tmp_path / "r.json").write_text("{}")
    after = reproduce._determinants()
    assert (
        before["results"] != after["results"] and before["package"] == after["package"]
    )
    assert {"python", "torch"} <= set(before["versions"])


def test_other_parameters_leave_the_published_copies_alone(clone, monkeypatch):
    monkeypatch.setattr(reproduce, "_determinants", lambda: {})
    good = clone / "notebooks" / "good.ipynb"
    results = reproduce.execute(clone, [good], {"profile": "photo", "seeds": "3"})
    assert results[0].state == "done" and not (clone / "_build" / "executed").exists()
    (copy,) = (clone / "_build" / "batch").iterdir()
    assert "measured photo 3" in printed(copy) and "profile=photo" in copy.name
    # Not kept: the time budget may have cut it off, and what is finished is found by
    # its record.
    assert (
        reproduce.execute(clone, [good], {"profile": "photo", "seeds": "3"})[0].state
        == "done"
    )


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


def test_a_cell_that_takes_too_long_and_a_dead_kernel_are_told_apart(clone, capsys):
    slow, dead = (
        write(clone / "notebooks" / "slow.ipynb", "import time; time.sleep(60)"),
        write(clone / "notebooks" / "dead.ipynb", "import os; os._exit(1)"),
    )
    assert states(reproduce.execute(clone, [slow], minutes=0.02)) == {"slow": "failed"}
    assert states(reproduce.execute(clone, [dead])) == {"dead": "failed"}
    said = capsys.readouterr().out
    assert "longer than 0.02 minutes" in said and "kernel died" in said


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
    write(
        clone / "notebooks" / "slow.ipynb",
        "import os, time\nopen('pid.new',"
        " 'w').write(str(os.getpid()))\nos.rename('pid.new', 'pid')",
        "if not os.path.exists('quick'):\n    time.sleep(300)",
    )
    process = command(clone, "reproduce", "--no-book", "--jobs", "2")
    wait_for(
        lambda: (
            (clone / "pid").exists()
            and (clone / "_build" / "executed" / "good.ipynb").exists()
        )
    )
    process.send_signal(number)
    out, error = process.communicate(timeout=600)
    if number != signal.SIGKILL:
        assert (
            process.returncode == 130
            and "run the same command again" in error
            and "Traceback" not in error
        )
    kernel = int((clone / "pid").read_text())
    wait_for(lambda: not alive(kernel))
    assert [path.name for path in (clone / "_build" / "executed").iterdir()] == [
        "good.ipynb"
    ]
    (clone / "quick").touch()
    process = command(clone, "reproduce", "--no-book")
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert "1 of 2 notebooks are up to date" in out and "slow: done" in out


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


def test_two_batches_at_once_are_refused(clone):
    with (
        reproduce._alone(clone),
        pytest.raises(InputError, match="another fgbook reproduce"),
    ):
        reproduce.execute(clone, [clone / "notebooks" / "good.ipynb"])


# --------------------------------------------------------------------------------------------------------------------------- the book


def test_the_book_is_built_from_executed_copies_and_a_failed_build_keeps_the_old_one(
    clone,
):
    with pytest.raises(InputError, match="not executed yet: good"):
        reproduce.build_book(clone)
    reproduce.execute(clone, [clone / "notebooks" / "good.ipynb"])
    page = reproduce.build_book(clone)
    assert (
        page.is_file()
        and "measured quick 1"
        in (clone / "_build" / "html" / "notebooks" / "good.html").read_text()
    )
    downloaded = clone / "_build" / "html" / "_sources" / "notebooks" / "good.ipynb"
    # as stored, without outputs
    assert downloaded.read_bytes() == (clone / "notebooks" / "good.ipynb").read_bytes()

    built = page.stat().st_mtime_ns
    # nothing has changed
    assert reproduce.build_book(clone).stat().st_mtime_ns == built

    (clone / "book" / "index.md").write_text("# Title\n\nSee [nothing](missing.md).\n")
    with pytest.raises(reproduce.Failure, match=r"(?s)index\.md.*missing"):
        reproduce.build_book(clone)
    assert (
        page.stat().st_mtime_ns == built
        and "measured"
        in (clone / "_build" / "html" / "notebooks" / "good.html").read_text()
    )

    (clone / "book" / "index.md").write_text(
        "# Another title\n\nSee [the notebook](../notebooks/good.ipynb).\n"
    )
    reproduce.build_book(clone)
    assert (
        "Another title"
        in (clone / "_build" / "html" / "book" / "index.html").read_text()
    )
