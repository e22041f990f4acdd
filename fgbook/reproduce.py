"""Notebooks in batches with papermill, and the book from their executed copies.

    _build/running/    what is being executed now; nothing else reads it
    _build/executed/   finished copies with the parameters as they are stored: what the
    book is built from _build/batch/      finished copies of runs with other parameters
    (``fgbook reproduce feng_accuracy -p profile photo``) _build/failed/     the copy of
    a notebook that failed, with the error in it _build/book-src/   the book's sources
    beside the executed copies, as Jupyter Book wants them _build/html/       the book

A copy reaches its place by a rename when it is complete, and carries a key: a hash of
all that determines it. Equal key: not executed again.
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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from . import papers, paths
from .errors import InputError, unknown
from .evidence import records
from .papers.spec import PROFILES

# time limit of one cell of a published notebook: an order above the slowest one on two
# cores
MINUTES = 30.0
# the same where parameters were given: photographs on a CPU take hours
LONG_MINUTES = 24 * 60.0
# two kernels drew the same port
RACE = re.compile(
    r"Address already in use|Kernel died before replying|Kernel didn't respond"
)
# its command line; it has no __main__ of its own
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


class Failure(RuntimeError):
    """A notebook or the book failed; what happened has been printed. The command line
    exits with 1."""


@dataclass
class Job:
    """One notebook to execute. Its paths lie in the clone `where`."""

    where: Path
    notebook: Path
    # only what differs from the notebook's own parameters cell
    parameters: dict = field(default_factory=dict)
    key: str = ""

    @property
    def name(self) -> str:
        """The notebook's name, with the changed parameters if there are any; a file
        name."""
        if not self.parameters:
            return self.notebook.stem
        changes = re.sub(
            r"[^\w.=-]+",
            "_",
            "-".join(f"{name}={value}" for name, value in self.parameters.items()),
        )
        return f"{self.notebook.stem}-{changes[:80]}-{records.key(self.parameters)[:6]}"

    @property
    def copy(self) -> Path:
        """Where the executed copy goes."""
        return (
            self.where
            / "_build"
            / ("batch" if self.parameters else "executed")
            / f"{self.name}.ipynb"
        )

    @property
    def running(self) -> Path:
        return self.where / "_build" / "running" / f"{self.name}.ipynb"

    @property
    def failed(self) -> Path:
        return self.where / "_build" / "failed" / f"{self.name}.ipynb"


@dataclass
class Result:
    """What became of a notebook."""

    name: str
    state: str  # "done", "kept" (its copy was there already), "failed"
    seconds: float = 0.0
    message: str = ""  # of a failure: cell and error


# ---- finding and checking


def clone() -> Path:
    """The clone of the repository that holds the current folder, or else the one that
    the package is imported from."""
    here = Path.cwd()
    for folder in (here, *here.parents, paths.REPOSITORY):
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise InputError(
        "no notebooks here; go into a clone of https://github.com/fgbook/fgbook and run"
        " the command there."
    )


def notebooks(where: Path, names: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """The notebooks of a clone, or those named (``feng_accuracy``, with or without
    folder and ``.ipynb``). Raises InputError for unknown names."""
    found = {path.stem: path for path in sorted((where / "notebooks").glob("*.ipynb"))}
    if not found:
        raise InputError(f"there are no notebooks in {where / 'notebooks'}.")
    for name in names:
        if Path(name).stem not in found:
            raise unknown("notebook", Path(name).stem, found)
    return [
        found[name] for name in dict.fromkeys(Path(name).stem for name in names)
    ] or list(found.values())


def check_parameters(notebook: Path, parameters: dict[str, str]) -> dict:
    """`parameters` as typed values, in the types that the notebook's parameters cell
    declares. Starts no kernel.

    Raises InputError for a name that the notebook does not have (papermill would ignore
    it), for a value of the wrong type, and for a parameters cell that papermill cannot
    read.
    """
    need_jupyter()
    from papermill import inspect_notebook

    declared, known = _assigned(notebook), inspect_notebook(notebook)
    for name in declared:
        if name not in known:
            hint = (
                "give it one line, one '=', and a plain annotation such as int or str"
            )
            raise InputError(
                f"papermill cannot read parameter {name} of {notebook.name}; {hint}."
            )
    typed = {}
    for name, text in parameters.items():
        if name not in known:
            raise unknown(f"parameter of {notebook.stem}", name, known)
        kind, default = known[name]["inferred_type_name"], known[name]["default"]
        if kind == "None":  # no annotation: the default tells
            kind = type(_literal(default)).__name__
        try:
            typed[name] = convert(text, kind)
        except ValueError:
            raise InputError(
                f"parameter {name} of {notebook.stem} must be of type {kind} (default"
                f" {default}); got {text!r}."
            ) from None
        _check_name(notebook, name, typed[name])
    return typed


def _check_name(notebook: Path, name: str, value: object) -> None:
    """Refuse an unknown profile, data set or row, which a notebook would find only
    after its kernel has started. Empty: the default."""
    if not isinstance(value, str) or not value:
        return
    paper = notebook.stem.split("_")[0]
    if name == "profile" and value not in PROFILES:
        raise unknown("profile", value, PROFILES)
    if name == "dataset" and not value.startswith("folder:"):
        from . import data

        if value not in data.names():
            raise unknown("data set", value, data.names())
    if name in ("row", "rows") and paper in papers.names():
        for row in value.split(","):
            papers.get(paper).row(row.strip())


def convert(text: str, kind: str):
    """`text` from a command line as a value of the type named `kind`: str, int, float,
    bool, list[..], dict[..], tuple[..], Optional[..].

    ``convert("3", "int")`` is 3. Raises ValueError where the text is no such value.
    """
    optional = re.fullmatch(r"Optional\[(.+)\]", kind)
    if optional:
        return None if text.lower() == "none" else convert(text, optional[1])
    if kind in ("str", "NoneType"):
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
    outer, inner = re.fullmatch(r"(\w+)(?:\[(.*)\])?", kind).groups()
    value = _literal(text)
    if type(value).__name__ != outer:
        raise ValueError(text)
    if (
        outer == "list"
        and inner
        and any(type(item).__name__ != inner for item in value)
    ):
        raise ValueError(text)
    return value


def _literal(text: str):
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


def _assigned(notebook: Path) -> list[str]:
    """Names that the parameters cell assigns."""
    for cell in _cells(notebook):
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            break
    else:
        return []
    try:
        body = ast.parse(_source(cell)).body
    except SyntaxError as error:
        raise InputError(
            f"the parameters cell of {notebook.name} is not Python: {error.msg}, line"
            f" {error.lineno}."
        ) from error
    targets = [line.target for line in body if isinstance(line, ast.AnnAssign)]
    targets += [
        target
        for line in body
        if isinstance(line, ast.Assign)
        for target in line.targets
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def need_jupyter() -> None:
    """Raises InputError when the packages that execute notebooks and build the book are
    not installed."""
    for module in ("papermill", "ipykernel", "jupyter_book"):
        if find_spec(module) is None:
            package = module.replace("_", "-")
            raise InputError(
                f"notebooks and the book need {package}, which is not installed: pip"
                ' install "fgbook[book]"'
            )


# ---- executing


def cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def execute(
    where: Path,
    chosen: list[Path],
    parameters: dict[str, str] | None = None,
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
        # not the outputs
        cells = [
            [cell["cell_type"], _source(cell), cell.get("metadata")]
            for cell in _cells(job.notebook)
        ]
        job.key = records.key({**common, "parameters": job.parameters, "cells": cells})
    with _alone(where):
        # left by a run that was killed
        shutil.rmtree(where / "_build" / "running", ignore_errors=True)
        # With parameters a run may have been stopped by its time budget: executing
        # again goes on, and finds what is finished by its record.
        results = {
            job.name: Result(job.name, "kept")
            for job in todo
            if not force and not job.parameters and _done(job)
        }
        queue = [job for job in todo if job.name not in results]
        jobs = max(1, min(jobs or cores(), len(queue) or 1))
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))
        if results:
            print(
                f"{len(results)} of {len(todo)} notebooks are up to date.", flush=True
            )
        if queue:
            print(
                f"executing {len(queue)} notebooks, {jobs} at a time, with {threads}"
                f" thread{'s' * (threads != '1')} each:",
                flush=True,
            )
        minutes = minutes or (LONG_MINUTES if parameters else MINUTES)
        for result in _pool(queue, jobs, threads, minutes):
            results[result.name] = result
        shutil.rmtree(where / "_build" / "running", ignore_errors=True)
    return [results[job.name] for job in todo]


def _pool(
    queue: list[Job], jobs: int, threads: str, minutes: float
) -> Iterator[Result]:
    """Results as they come in. One process a notebook: papermill's own state is global,
    and a crash stays its own."""
    queue, active, total, ended = list(queue), [], len(queue), 0
    # a bar in a terminal only
    bar = tqdm(total=total, disable=None, leave=False, unit="notebook")
    try:
        while queue or active:
            while queue and len(active) < jobs:
                active.append(_Child(queue.pop(0), threads, minutes))
            time.sleep(0.1)
            bar.set_postfix_str(", ".join(child.job.name for child in active))
            for child in [
                child for child in active if child.process.poll() is not None
            ]:
                active.remove(child)
                if child.lost_a_race():
                    active.append(_Child(child.job, threads, minutes, retry=False))
                    continue
                result = child.result()
                ended += 1
                bar.update()
                line = (
                    f"  [{ended}/{total}] {result.name}: {result.state},"
                    f" {result.seconds:.0f} s"
                )
                bar.write(
                    line
                    + "".join(f"\n      {text}" for text in result.message.splitlines())
                )
                sys.stdout.flush()
                yield result
    finally:
        bar.close()
        for child in active:  # only after an interrupt or an error of ours
            child.stop()


class _Child:
    """A process that executes one notebook into ``_build/running``."""

    def __init__(self, job: Job, threads: str, minutes: float, retry: bool = True):
        self.job, self.minutes, self.retry, self.started = (
            job,
            minutes,
            retry,
            time.monotonic(),
        )
        job.running.parent.mkdir(parents=True, exist_ok=True)
        # this environment's kernel, not one in the home folder
        environment = dict(
            os.environ, OMP_NUM_THREADS=threads, JUPYTER_PREFER_ENV_PATH="1"
        )
        # the kernel chooses the one that puts figures into the notebook
        environment.pop("MPLBACKEND", None)
        # kernels import the very package whose hash is in the key
        if (paths.REPOSITORY / "pyproject.toml").is_file():
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(paths.REPOSITORY), environment.get("PYTHONPATH")])
            )
        spec = {
            "parent": os.getpid(),
            "notebook": str(job.notebook.relative_to(job.where)),
            "output": str(job.running.relative_to(job.where)),
            "parameters": job.parameters,
            "seconds": math.ceil(60 * minutes),
        }
        self.log = job.running.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fgbook.reproduce", json.dumps(spec)],
                cwd=job.where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def lost_a_race(self) -> bool:
        """Whether the kernel never came up because another one took its port; tried
        once more."""
        return (
            self.process.returncode != 0
            and self.retry
            and not _error(self.job.running)
            and bool(RACE.search(self._said()))
        )

    def result(self) -> Result:
        job, seconds = self.job, time.monotonic() - self.started
        if self.process.returncode == 0:
            _finish(job, seconds)
            return Result(job.name, "done", seconds)
        last_line = (
            self._said().strip().splitlines()
            or [f"exit status {self.process.returncode}"]
        )[-1]
        message = self._why() or _error(job.running) or last_line
        if job.running.is_file():
            job.failed.parent.mkdir(parents=True, exist_ok=True)
            os.replace(job.running, job.failed)
            message += f"\nthe copy with the error: {job.failed.relative_to(job.where)}"
        return Result(job.name, "failed", seconds, message)

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _why(self) -> str:
        """One line about a failure that is not an error of a cell; empty if it is
        one."""
        said, code = self._said(), self.process.returncode
        if code < 0:
            return (
                f"its process was killed by signal {-code}"
                f" ({signal.Signals(-code).name})."
            )
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
        first wait, then ask, then kill."""
        for signal_number, seconds in (
            (None, 2),
            (signal.SIGINT, 8),
            (signal.SIGKILL, None),
        ):
            if signal_number is not None:
                self.process.send_signal(signal_number)
            try:
                self.process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                continue


def _finish(job: Job, seconds: float) -> None:
    """Put a complete copy in its place, with its key; without the paths of this machine
    that papermill notes down."""
    content = json.loads(job.running.read_text(encoding="utf-8"))
    for name in ("input_path", "output_path"):
        content["metadata"].get("papermill", {}).pop(name, None)
    content["metadata"]["fgbook"] = {
        "key": job.key,
        "parameters": job.parameters,
        "seconds": round(seconds, 1),
    }
    records.write_atomically(
        job.copy, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    )
    job.failed.unlink(missing_ok=True)


def _about(copy: Path) -> dict:
    """What was noted in an executed copy: key, parameters, seconds; empty where there
    is no complete copy."""
    try:
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["fgbook"]
    except (OSError, ValueError, KeyError):
        return {}


def _done(job: Job) -> bool:
    return _about(job.copy).get("key") == job.key


def _error(copy: Path) -> str:
    """The error of the cell that failed, in a few lines; empty where no cell did."""
    if not copy.is_file():
        return ""
    try:
        cells = _cells(copy)
    except InputError:  # killed while it was being written
        return ""
    # papermill's own remarks
    cells = [
        cell
        for cell in cells
        if "papermill-error-cell-tag" not in cell.get("metadata", {}).get("tags", [])
    ]
    for number, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                lines = _source(cell).strip().splitlines() + [
                    f"{output['ename']}: {output['evalue']}"
                ]
                shown = lines if len(lines) <= 8 else lines[:3] + ["..."] + lines[-1:]
                return f"cell {number}:\n" + "\n".join(
                    f"    {line[:200]}"
                    for text in shown
                    for line in text.splitlines()[:5]
                )
    return ""


def _determinants() -> dict:
    """What every notebook's result depends on, besides the notebook: the package, the
    published records, versions."""

    def tree(folder: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and not path.name.startswith(".")
            ):
                digest.update(
                    f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode()
                    + path.read_bytes()
                )
        return digest.hexdigest()

    return {
        "package": tree(Path(__file__).parent),
        "results": tree(paths.results()),
        "versions": records.versions(),
    }


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Held while ``_build`` is written; the system releases it when the process ends,
    however it ends."""
    (where / "_build").mkdir(exist_ok=True)
    lock = FileLock(where / "_build" / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another fgbook reproduce or fgbook book is at work in {where}; wait until"
            " it ends."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _child(spec: dict) -> None:
    """What a child process does: execute one notebook, and never outlive the command
    that started it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # papermill then ends its kernel; also where a shell had SIGINT ignored
        signal.signal(number, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == spec["parent"]:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
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

    Not built again when nothing has changed. Raises InputError when a notebook has not
    been executed, Failure when the build fails; the book that stood in ``_build/html``
    then still stands there.
    """
    need_jupyter()
    build = where / "_build"
    html, source, fresh, log = (
        build / "html",
        build / "book-src",
        build / "book-new",
        build / "book.log",
    )
    copies = [Job(where, notebook).copy for notebook in notebooks(where)]
    missing = [copy.stem for copy in copies if not copy.is_file()]
    if missing:
        raise InputError(
            f"not executed yet: {', '.join(missing)}; run `fgbook reproduce` first."
        )
    with _alone(where):
        for folder in (source, fresh):
            shutil.rmtree(folder, ignore_errors=True)
        # chapters show parts of the package's sources
        for folder in filter(Path.is_dir, (where / "book", where / "fgbook")):
            shutil.copytree(
                folder,
                source / folder.name,
                ignore=shutil.ignore_patterns(".*", "__pycache__"),
            )
        (source / "notebooks").mkdir()
        for path in (where / "_config.yml", where / "_toc.yml"):
            shutil.copy(path, source)
        for copy in copies:
            shutil.copy(copy, source / "notebooks")
        tools = {
            name: metadata.version(name)
            for name in ("jupyter-book", "sphinx", "myst-nb")
        }
        files = {
            path.relative_to(source).as_posix(): _digest(path)
            for path in source.rglob("*")
            if path.is_file()
        }
        key = records.key({"files": files, **tools})
        if (
            not force
            and (html / ".key").is_file()
            and (html / ".key").read_text() == key
        ):
            print("the book is up to date.", flush=True)
            return html / "index.html"
        print("building the book ...", flush=True)
        started = time.monotonic()
        command = [
            sys.executable,
            "-c",
            JUPYTER_BOOK,
            "build",
            str(source),
            "--path-output",
            str(fresh),
            "--all",
            "-W",
            "-n",
            "--keep-going",
        ]
        with log.open("wb") as file:
            code = subprocess.run(
                command,
                cwd=where,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        if code:
            said = [
                re.sub(r"\x1b\[[\d;]*m", "", line)
                for line in log.read_text(errors="replace").splitlines()
            ]
            shown = [
                line for line in said if re.search(r"WARNING|ERROR|CRITICAL", line)
            ][:20] or said[-20:]
            listed = "\n".join(
                "  " + line.replace(f"{source}{os.sep}", "") for line in shown
            )
            raise Failure(
                f"the book could not be built (an earlier one is kept):\n{listed}\nall"
                f" that was said: {log.relative_to(where)}"
            )
        made = fresh / "_build" / "html"
        # "download" gives the notebook as it is stored, as Colab does
        for notebook in notebooks(where):
            stored = made / "_sources" / "notebooks" / notebook.name
            if stored.is_file():
                shutil.copy(notebook, stored)
        (made / ".key").write_text(key)
        old = build / "html-old"
        shutil.rmtree(old, ignore_errors=True)
        if html.exists():
            html.rename(old)
        made.rename(html)
        for folder in (old, fresh):
            shutil.rmtree(folder, ignore_errors=True)
        print(f"  done, {time.monotonic() - started:.0f} s", flush=True)
    return html / "index.html"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
