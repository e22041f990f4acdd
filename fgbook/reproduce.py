"""Notebooks in batches with papermill, and the book from their executed copies.

==================== ===============================================================
``_build/running``   what is being executed now; nothing else reads it
``_build/executed``  finished copies with the parameters as they are stored: what the
                     book is built from
``_build/batch``     finished copies of runs with other parameters
                     (``fgbook reproduce feng_accuracy -p profile photo``)
``_build/failed``    the copy of a notebook that failed, with the error in it
``_build/book-src``  the book's sources beside the executed copies, as Jupyter Book
                     wants them
``_build/html``      the book
==================== ===============================================================

A copy reaches its place by a rename when it is complete, and carries a key: a hash of
all that determines it. Equal key: not executed again. The book carries a key as well,
and a digest of each of its files.
"""

import ast
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from . import papers, paths, tryout
from .errors import BUDGET_ENDED, InputError, unknown
from .evidence import records
from .evidence.batch import end_with
from .papers.spec import PROFILES

# Time limit of one cell of a published notebook: an order above the slowest one on two
# cores.
MINUTES = 30.0
# The same where parameters were given: photographs on a CPU take hours.
LONG_MINUTES = 24 * 60.0
# What is said when two kernels drew the same port.
RACE = re.compile(
    r"Address already in use|Kernel died before replying|Kernel didn't respond"
)
# Its command line; it has no __main__ of its own.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
# Parameters of notebooks that name a data set, which the notebook then opens.
DATA_SETS = ("dataset", "birds")
# Those that list rows, as "feng/plain".
NETWORKS = ("networks", "exports", "photograph", "shortcut")
# Whose rows a notebook takes where its name does not begin with the paper's.
PAPER_OF = {"comparison": "compare", "tutorial": "feng"}
LEAST = {"seeds": 1, "processes": 1, "budget_minutes": 0}  # 0 minutes: no budget


class Failure(RuntimeError):
    """A notebook or the book failed; what happened has been printed. The command line
    exits with 1.
    """


@dataclass
class Job:
    """One notebook to execute. Its paths lie in the clone `where`."""

    where: Path
    notebook: Path
    # only what differs from the notebook's own parameters cell
    parameters: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def name(self) -> str:
        """The notebook's name, with the changed parameters if there are any; a file
        name.
        """
        if not self.parameters:
            return self.notebook.stem
        changes = "-".join(f"{name}={value}" for name, value in self.parameters.items())
        readable = re.sub(r"[^\w.=-]+", "_", changes)[:80]
        # two that read the same after that still differ
        return f"{self.notebook.stem}-{readable}-{records.key(self.parameters)[:6]}"

    @property
    def copy(self) -> Path:
        """Where the executed copy goes."""
        return self._in("batch" if self.parameters else "executed")

    @property
    def running(self) -> Path:
        """Where the copy grows while the notebook is executed."""
        return self._in("running")

    @property
    def log(self) -> Path:
        """What its process says meanwhile."""
        return self.running.with_suffix(".log")

    @property
    def failed(self) -> Path:
        """Where the copy goes when a cell fails."""
        return self._in("failed")

    def clear(self) -> None:
        """Remove what lies in ``_build/running``."""
        self.running.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)

    def _in(self, folder: str) -> Path:
        return self.where / "_build" / folder / f"{self.name}.ipynb"


@dataclass
class Result:
    """What became of a notebook."""

    name: str
    # "done", "kept" (its copy was there already), "stopped" (its time budget ended
    # before all of its runs did), "failed"
    state: str
    seconds: float = 0.0
    message: str = ""  # of a failure: cell and error


# ---- finding and checking


def clone() -> Path:
    """The clone of the repository that holds the current folder, or else the one that
    the package is imported from. Raises InputError where there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, paths.REPOSITORY):
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise InputError(
        f"no notebooks here; go into a clone of {paths.address()} and run the command"
        " there."
    )


def notebooks(where: Path, names: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a clone, or those named (``feng_accuracy``, with or without
    folder and ``.ipynb``), each once. Raises InputError for unknown names.
    """
    found = {path.stem: path for path in sorted((where / "notebooks").glob("*.ipynb"))}
    if not found:
        raise InputError(f"there are no notebooks in {where / 'notebooks'}.")
    wanted = list(dict.fromkeys(Path(name).stem for name in names))
    for name in wanted:
        if name not in found:
            raise unknown("notebook", name, found)
    return [found[name] for name in wanted or found]


def check_parameters(notebook: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    """`parameters` as typed values, in the types that the notebook's parameters cell
    declares. Starts no kernel.

    Raises InputError for a name that the notebook does not have (papermill would ignore
    it), for a value of the wrong type, for a profile, row or data set that does not
    exist, and for a parameters cell that papermill cannot read.
    """
    need_jupyter()
    from papermill import inspect_notebook

    declared = _assigned(notebook)  # refuses a file that is no notebook
    known = inspect_notebook(notebook)
    for name in declared:
        if name not in known:
            raise InputError(
                f"papermill cannot read parameter {name} of {notebook.name}; give it"
                " one line, one '=', and a plain annotation such as int or str."
            )
    values = {}
    for name, text in parameters.items():
        if name not in known:
            raise unknown(f"parameter of {notebook.stem}", name, known)
        kind, default = known[name]["inferred_type_name"], known[name]["default"]
        if kind == "None":  # no annotation: the default tells
            kind = type(_literal(default)).__name__
        try:
            value = parse(text, kind)
        except ValueError:
            raise InputError(
                f"parameter {name} of {notebook.stem} must be of type {kind} (default"
                f" {default}); got {text!r}."
            ) from None
        values[name] = _existing(notebook, name, value)
    return values


def parse(text: str, kind: str) -> Any:
    """`text` from a command line as a value of the type that a parameters cell names:
    str, int, float, bool, or a literal such as list or list[int].

    ``parse("3", "int")`` is 3. Raises ValueError where the text is no such value.
    """
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in ("int", "float"):
        number = int(text) if kind == "int" else float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number

    outer, _, inner = kind.rstrip("]").partition("[")
    value = _literal(text)
    if type(value).__name__ != outer:
        raise ValueError(text)
    if outer == "list" and inner:
        for item in value:
            if type(item).__name__ != inner:
                raise ValueError(text)
    return value


def _existing(notebook: Path, name: str, value: Any) -> Any:
    """The value of a parameter, refused where it names a profile, data set or row that
    does not exist, or is no number of seeds or minutes: the notebook would find that
    only after its kernel has started.

    The path of a folder becomes absolute: it is meant from where the person is, and
    kernels work elsewhere.
    """
    if name in LEAST and value < LEAST[name]:
        raise InputError(
            f"parameter {name} must be at least {LEAST[name]}, not {value:g}."
        )
    if not isinstance(value, str) or not value:  # empty: the default
        return value
    if name == "profile" and value not in PROFILES:
        raise unknown("profile", value, PROFILES)
    if name in DATA_SETS:
        return _existing_data(value)
    for part in value.split(","):
        _check_part(paper_of(notebook), name, part.strip())
    return value


def paper_of(notebook: Path) -> str:
    """The key of the paper whose rows a notebook takes, or what else its name begins
    with.
    """
    return PAPER_OF.get(notebook.stem, notebook.stem.split("_")[0])


def _check_part(paper: str, name: str, part: str) -> None:
    """Refuse one name of a parameter that lists some; `paper`: the notebook's."""
    if name == "planted":
        _existing_data(f"fieldguide-shortcut{part}")
    elif name in NETWORKS and "/" in part:  # else the name of a backbone
        key, _, row = part.partition("/")
        papers.get(key).row(row)
    elif name in ("row", "rows") and paper in papers.names():
        papers.get(paper).row(part)


def _existing_data(name: str) -> str:
    from . import data

    if name.startswith("folder:"):
        name = data.absolute(name)
        data.path(name)  # raises InputError where there are no pictures
    elif name not in data.names():
        raise unknown("data set", name, data.names())
    return name


def _literal(text: str) -> Any:
    """A Python literal, or the text itself where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _cells(notebook: Path) -> list[dict]:
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{notebook} is not a notebook ({type(error).__name__}: {error})."
        ) from error


def _source(cell: dict) -> str:
    return "".join(cell["source"])  # a list of lines, or one string


def _tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _assigned(notebook: Path) -> list[str]:
    """Names that the parameters cell assigns."""
    tagged = [cell for cell in _cells(notebook) if "parameters" in _tags(cell)]
    if not tagged:
        return []
    try:
        body = ast.parse(_source(tagged[0])).body
    except SyntaxError as error:
        raise InputError(
            f"the parameters cell of {notebook.name} is not Python: {error.msg}, line"
            f" {error.lineno}."
        ) from error
    targets: list[ast.expr] = []
    for line in body:
        if isinstance(line, ast.AnnAssign):
            targets.append(line.target)
        elif isinstance(line, ast.Assign):
            targets += line.targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


def need_jupyter() -> None:
    """Raises InputError when the packages that execute notebooks and build the book are
    not installed.
    """
    for module in ("papermill", "ipykernel", "jupyter_book"):
        if find_spec(module) is None:
            package = module.replace("_", "-")
            raise InputError(
                f"notebooks and the book need {package}, which is not installed: pip"
                ' install "fgbook[book]"'
            )


# ---- executing


def execute(
    where: Path,
    chosen: Sequence[Path],
    parameters: Mapping[str, str] | None = None,
    *,
    jobs: int | None = None,
    minutes: float | None = None,
    force: bool = False,
) -> list[Result]:
    """Execute notebooks, at most `jobs` at a time (default: one a core), and return
    what became of each, in the order of `chosen`.

    `parameters` are given to every notebook, and checked against all of them before the
    first kernel starts (InputError). `minutes` limits each cell. `force` executes again
    what is done already. A notebook that fails does not stop the others. On an
    interrupt all are stopped.
    """
    need_jupyter()
    todo = [
        Job(where, notebook, check_parameters(notebook, parameters or {}))
        for notebook in chosen
    ]
    common = _determinants()
    for job in todo:
        job.key = records.key({**common, **_content(job)})
    with _alone(where, [job.name for job in todo]):
        for job in todo:
            job.clear()  # what a run that was killed has left
        # With parameters a run may have been stopped by its time budget: executing
        # again goes on, and finds what is finished by its record.
        results = {
            job.name: Result(job.name, "kept")
            for job in todo
            if not force and not job.parameters and _done(job)
        }
        if results:
            say(f"{len(results)} of {len(todo)} notebooks are up to date.")
        queue = [job for job in todo if job.name not in results]
        cores = records.cores()
        at_once = max(1, min(jobs or cores, len(queue)))
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // at_once))
        if queue:
            each = "1 thread" if threads == "1" else f"{threads} threads"
            say(
                f"executing {len(queue)} notebooks, {at_once} at a time, with {each}"
                " each:"
            )
        limit = minutes or (LONG_MINUTES if parameters else MINUTES)
        for result in _pool(queue, at_once, threads, limit):
            results[result.name] = result
        for job in todo:
            job.clear()
    return [results[job.name] for job in todo]


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def _content(job: Job) -> dict:
    """What a notebook is, without the outputs that an editor may have stored in it."""
    cells = [
        [cell["cell_type"], _source(cell), cell.get("metadata")]
        for cell in _cells(job.notebook)
    ]
    return {"parameters": job.parameters, "cells": cells}


def _pool(
    queue: list[Job], jobs: int, threads: str, minutes: float
) -> Iterator[Result]:
    """Results as they come in. One process a notebook: papermill's own state is global,
    and a crash stays its own.
    """
    waiting = list(queue)
    active: list[_Child] = []
    ended = 0
    # a bar in a terminal only
    bar = tqdm(total=len(queue), disable=None, leave=False, unit="notebook")
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(_Child(waiting.pop(0), threads, minutes))
            time.sleep(0.1)
            bar.set_postfix_str(", ".join(child.job.name for child in active))

            for child in [one for one in active if one.process.poll() is not None]:
                active.remove(child)
                if child.lost_a_race():
                    active.append(_Child(child.job, threads, minutes, retry=False))
                    continue
                result = child.result()
                ended += 1
                bar.update()
                bar.write(f"  [{ended}/{len(queue)}] {_line(result)}")
                sys.stdout.flush()
                yield result
    finally:
        bar.close()
        for child in active:  # only after an interrupt or an error of ours
            child.stop()


def _line(result: Result) -> str:
    """A result in one line; a failure's message below it."""
    said = f"{result.name}: {result.state}, {result.seconds:.0f} s"
    return "\n      ".join([said, *result.message.splitlines()])


class _Child:
    """A process that executes one notebook into ``_build/running``."""

    def __init__(self, job: Job, threads: str, minutes: float, retry: bool = True):
        self.job = job
        self.minutes = minutes
        self.retry = retry
        self.started = time.monotonic()
        self.log = job.log
        job.running.parent.mkdir(parents=True, exist_ok=True)
        spec = {
            "parent": os.getpid(),
            "notebook": str(job.notebook.relative_to(job.where)),
            "output": str(job.running.relative_to(job.where)),
            "parameters": job.parameters,
            "seconds": math.ceil(60 * minutes),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fgbook.reproduce", json.dumps(spec)],
                cwd=job.where,
                env=_environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def lost_a_race(self) -> bool:
        """Whether the kernel never came up because another one took its port; tried
        once more.
        """
        if self.process.returncode == 0 or not self.retry:
            return False
        if _error(self.job.running):  # a cell failed, so the kernel was there
            return False
        return bool(RACE.search(self._said()))

    def result(self) -> Result:
        """What became of the notebook; moves its copy to where that belongs."""
        job = self.job
        seconds = time.monotonic() - self.started
        if self.process.returncode == 0:
            stopped = _budget_ended(job.running)
            _finish(job, seconds)
            state = "stopped" if stopped else "done"
            return Result(job.name, state, seconds, stopped)
        message = self._why() or _error(job.running) or self._last_line()
        if job.running.is_file():
            job.failed.parent.mkdir(parents=True, exist_ok=True)
            os.replace(job.running, job.failed)
            message += f"\nthe copy with the error: {job.failed.relative_to(job.where)}"
        return Result(job.name, "failed", seconds, message)

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _last_line(self) -> str:
        lines = self._said().strip().splitlines()
        return lines[-1] if lines else f"exit status {self.process.returncode}"

    def _why(self) -> str:
        """One line about a failure that is not an error of a cell; empty if it is
        one.
        """
        code = self.process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed by signal {-code} ({name})."
        said = self._said()
        if "CellTimeoutError" in said:
            return (
                f"a cell took longer than {self.minutes:g} minutes; allow more with"
                " --timeout-minutes."
            )
        if "DeadKernelError" in said:
            return (
                "its kernel died; most often the memory is full: run fewer at a time"
                " with --jobs 1."
            )
        return ""

    def stop(self) -> None:
        """End the process and its kernel: in a terminal Ctrl-C has reached it too, so
        first wait, then ask, then kill.
        """
        steps = ((None, 2), (signal.SIGINT, 8), (signal.SIGKILL, None))
        for number, seconds in steps:
            if number is not None:
                self.process.send_signal(number)
            try:
                self.process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                continue


def _environment(threads: str) -> dict[str, str]:
    """What a child process and its kernel are told."""
    told = dict(os.environ, OMP_NUM_THREADS=threads)
    # this environment's kernel, not one in the home folder
    told["JUPYTER_PREFER_ENV_PATH"] = "1"
    # the kernel chooses the one that puts figures into the notebook
    told.pop("MPLBACKEND", None)
    # kernels import the very package whose hash is in the key
    if paths.in_clone():
        there = told.get("PYTHONPATH")
        ours = str(paths.REPOSITORY)
        told["PYTHONPATH"] = os.pathsep.join([ours, there] if there else [ours])
    return told


def _finish(job: Job, seconds: float) -> None:
    """Put a complete copy in its place, with its key; without the paths of this machine
    that papermill notes down.
    """
    content = json.loads(job.running.read_text(encoding="utf-8"))
    noted = content["metadata"].get("papermill", {})
    for name in ("input_path", "output_path"):
        noted.pop(name, None)
    content["metadata"]["fgbook"] = {
        "key": job.key,
        "parameters": job.parameters,
        "seconds": round(seconds, 1),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    records.write_atomically(job.copy, text.encode())
    job.failed.unlink(missing_ok=True)


def _budget_ended(copy: Path) -> str:
    """What a notebook says when its time budget ended before its runs did; empty where
    it does not.
    """
    for cell in _cells(copy):
        for output in cell.get("outputs", []):
            for line in "".join(output.get("text", "")).splitlines():
                if BUDGET_ENDED in line:
                    return line[line.index(BUDGET_ENDED) :]
    return ""


def _done(job: Job) -> bool:
    """Whether there is a complete copy with the job's key."""
    try:
        content = json.loads(job.copy.read_text(encoding="utf-8"))
        return content["metadata"]["fgbook"]["key"] == job.key
    except (OSError, ValueError, KeyError):
        return False


def _error(copy: Path) -> str:
    """The error of the cell that failed, in a few lines; empty where no cell did."""
    if not copy.is_file():
        return ""
    try:
        cells = _cells(copy)
    except InputError:  # killed while it was being written
        return ""
    # without papermill's own remarks
    cells = [cell for cell in cells if "papermill-error-cell-tag" not in _tags(cell)]
    for number, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                lines = _source(cell).strip().splitlines()
                lines.append(f"{output['ename']}: {output['evalue']}")
                return f"cell {number}:\n{_shortened(lines)}"
    return ""


def _shortened(lines: list[str]) -> str:
    """The first and last of many lines, none of them endless, indented."""
    if len(lines) > 8:
        lines = [*lines[:3], "...", lines[-1]]
    shown = []
    for text in lines:
        for line in text.splitlines()[:5]:
            shown.append(f"    {line[:200]}")
    return "\n".join(shown)


def _determinants() -> dict:
    """What every notebook's result depends on, besides the notebook: the package, the
    published records, versions.
    """
    return {
        "package": _tree(paths.PACKAGE),
        "results": _tree(paths.results()),
        "versions": records.versions(),
    }


def _tree(folder: Path) -> str:
    """A digest of all files below a folder: names, sizes, contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith(".") or "__pycache__" in path.parts
        if path.is_file() and not hidden:
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(where: Path, names: Sequence[str]) -> Iterator[None]:
    """Held while these are made in ``_build``: copies of notebooks by name, or the
    book. Several commands may be at work in a clone, as in a job array, but not on the
    same. The system releases what is held when the process ends, however it ends.
    """
    folder = where / "_build" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in sorted(names):
            lock = FileLock(folder / f"{name}.lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise InputError(
                    f"another fgbook reproduce or fgbook book is at work on {name} in"
                    f" {where}; wait until it ends."
                ) from None
        yield


def _child(spec: dict) -> None:
    """What a child process does: execute one notebook, and never outlive the command
    that started it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # papermill then ends its kernel; also where a shell had SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    end_with(spec["parent"], signal.SIGINT)
    import papermill

    papermill.execute_notebook(
        spec["notebook"],
        spec["output"],
        spec["parameters"],
        kernel_name="python3",
        progress_bar=False,
        start_timeout=120,
        execution_timeout=spec["seconds"],
    )


# ---- the book


def build_book(where: Path, *, force: bool = False) -> Path:
    """Build the book from the executed copies, strictly (every warning is an error);
    returns the page to open.

    Not built again when neither its sources nor any of its files have changed. Raises
    InputError when a notebook has not been executed, Failure when the build fails; the
    book that stood in ``_build/html`` then still stands there.
    """
    need_jupyter()
    build = where / "_build"
    html = build / "html"
    copies = [Job(where, notebook).copy for notebook in notebooks(where)]
    missing = [copy.stem for copy in copies if not copy.is_file()]
    if missing:
        raise InputError(
            f"not executed yet: {', '.join(missing)}; run `fgbook reproduce` first."
        )
    with _alone(where, ["book"]):
        source = _gather(where, copies)
        key = _book_key(source)
        if not force and _is_whole(html, key):
            say("the book is up to date.")
            return html / "index.html"
        say("building the book ...")
        started = time.monotonic()
        made = _built(where, source)
        # "download" gives the notebook as it is stored, as Colab does
        for notebook in notebooks(where):
            stored = made / "_sources" / "notebooks" / notebook.name
            if stored.is_file():
                shutil.copy(notebook, stored)
        noted = {"key": key, "files": _digests(made)}
        (made / ".key").write_text(json.dumps(noted, indent=1), encoding="utf-8")
        _replace(html, made)
        shutil.rmtree(build / "book-new", ignore_errors=True)
        say(f"  done, {time.monotonic() - started:.0f} s")
    return html / "index.html"


def _gather(where: Path, copies: list[Path]) -> Path:
    """All that the book is made of, in one new folder: pages, executed notebooks, and
    the package, whose sources some chapters show.
    """
    source = where / "_build" / "book-src"
    shutil.rmtree(source, ignore_errors=True)
    unseen = shutil.ignore_patterns(".*", "__pycache__")
    for folder in (where / "book", where / "fgbook"):
        if folder.is_dir():
            shutil.copytree(folder, source / folder.name, ignore=unseen)
    (source / "notebooks").mkdir()
    for path in copies:
        shutil.copy(path, source / "notebooks")
    for path in (where / "_config.yml", where / "_toc.yml"):
        shutil.copy(path, source)
    why = tryout.gather(source, where / "_build", _tree(paths.PACKAGE))
    if why:
        say(f"no network will run in the book's page try: {why}")
    return source


def _book_key(source: Path) -> str:
    """Equal key, equal book: a hash of its sources, of the published records, and of
    the tools that build it.
    """
    tools = {
        name: metadata.version(name) for name in ("jupyter-book", "sphinx", "myst-nb")
    }
    made_of = {"files": _digests(source), "results": _tree(paths.results())}
    return records.key(made_of | tools)


def _is_whole(html: Path, key: str) -> bool:
    """Whether a book of that key stands in `html`, with every file as it was built."""
    try:
        noted = json.loads((html / ".key").read_text(encoding="utf-8"))
        if noted["key"] != key:
            return False
        return all(
            _digest(html / name) == digest for name, digest in noted["files"].items()
        )
    # no book, one of an earlier version, or a file that is gone
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _built(where: Path, source: Path) -> Path:
    """Run Jupyter Book; the folder of pages. Raises Failure with what it complained
    about.
    """
    fresh = where / "_build" / "book-new"
    log = where / "_build" / "book.log"
    shutil.rmtree(fresh, ignore_errors=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(source)]
    command += ["--path-output", str(fresh)]
    # everything anew; warnings are errors, broken references too; all of them at once
    command += ["--all", "-W", "-n", "--keep-going"]
    with log.open("wb") as file:
        done = subprocess.run(
            command,
            cwd=where,
            # threads that wait for each other on a busy machine take minutes
            env=dict(os.environ, OMP_NUM_THREADS="1"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        complaints = _complaints(log, source)
        raise Failure(
            f"the book could not be built (an earlier one is kept):\n{complaints}\nall"
            f" that was said: {log.relative_to(where)}"
        )
    return fresh / "_build" / "html"


def _complaints(log: Path, source: Path) -> str:
    """The warnings and errors in a build's log, or its end where it names none."""
    coloured = log.read_text(encoding="utf-8", errors="replace")
    lines = re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()
    named = [line for line in lines if re.search(r"WARNING|ERROR|CRITICAL", line)]
    shown = named[:20] or lines[-20:]
    return "\n".join("  " + line.replace(f"{source}{os.sep}", "") for line in shown)


def _replace(html: Path, made: Path) -> None:
    """Put a new book in the place of the old one, by renaming."""
    old = html.with_name("html-old")
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        html.rename(old)
    made.rename(html)
    shutil.rmtree(old, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by name relative to it -> digest of its content."""
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
