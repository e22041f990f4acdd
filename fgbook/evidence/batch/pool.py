"""The runs of a batch, several at a time: each is `fgbook run` in a process of its own,
so that one that crashes or fills its memory takes no other with it.

A process stops cleanly when it is asked to (SIGTERM), when the budget ends, and when
the batch itself is no more (fgbook/cli watches `PARENT`).
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import AGAIN, INTERRUPTED, WRONG_INPUT, InputError
from .. import records
from ..estimate import epochs_done
from . import PARENT
from .grid import Entry

LOOKS_A_SECOND = 5


@dataclass(frozen=True)
class Way:
    """How the runs of a batch are made; nothing here changes a result."""

    folder: Path  # for logs
    jobs: int = 1  # runs at a time
    threads: int = 1  # of each
    device: str | None = None
    end: float | None = None  # of the time budget, on time.monotonic's clock

    def minutes_left(self) -> float | None:
        """Of the time budget; None without one."""
        return None if self.end is None else (self.end - time.monotonic()) / 60

    def over(self) -> bool:
        """Whether the time budget has ended."""
        return self.end is not None and time.monotonic() >= self.end


class Child:
    """A process that makes one run, in one of the pool's places."""

    def __init__(self, entry: Entry, way: Way, place: int):
        self.entry, self.place = entry, place
        self.asked = False  # to stop
        self.started = time.monotonic()
        path = way.folder / f"{entry.run.key}.log"
        try:
            way.folder.mkdir(parents=True, exist_ok=True)
            log = path.open("ab")
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}; free some space or choose"
                " another folder (FGBOOK_RUNS)."
            ) from error
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fgbook", *words(entry, way, place)],
                env=_environment(way.threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for the batch, which then asks its children
                start_new_session=True,
            )
        entry.log, entry.state = str(path), "running"

    def epochs(self) -> int:
        """Those that are done, over all calls."""
        return epochs_done(self.entry.run) or 0

    def end(self) -> None:
        """Note what became of the run, when its process has ended."""
        entry, code = self.entry, self.process.returncode
        entry.seconds += time.monotonic() - self.started
        found = records.find_fresh(entry.run.key)
        if code == 0 and found is not None:
            entry.state, entry.record = "finished", found
        elif code in (AGAIN, INTERRUPTED) or (self.asked and code != WRONG_INPUT):
            entry.state = "stopped"
        else:
            entry.state, entry.why = "failed", self._why()

    def _why(self) -> str:
        """One sentence about a failure: what the process said last, or what killed
        it.
        """
        code = self.process.returncode
        if code == 0:
            return (
                f"it left no record of key {self.entry.run.key}: the package or the"
                " data have changed since the batch was planned; run the same command"
                " again."
            )
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; most often the memory is full" if name == "SIGKILL" else ""
            return f"its process was killed by signal {-code} ({name}){hint}."
        log = Path(self.entry.log).read_text(encoding="utf-8", errors="replace")
        lines = log.strip().splitlines()
        for line in reversed(lines):
            if line.startswith("Error: "):
                return line.removeprefix("Error: ")
        return lines[-1] if lines else f"its process ended with exit status {code}."


def words(entry: Entry, way: Way, place: int) -> list[str]:
    """What comes after `fgbook` to make a run in one of the pool's places."""
    found = shlex.split(entry.command)[1:]
    device = way.device
    gpus = torch.cuda.device_count()
    if device is None and gpus > 1:
        device = f"cuda:{place % gpus}"
    if device:
        found += ["--device", device]
    minutes = way.minutes_left()
    if minutes is not None:
        found += ["--budget-minutes", f"{max(minutes, 0.01):.4f}"]
    return found


def _environment(threads: int) -> dict[str, str]:
    told = {
        "OMP_NUM_THREADS": str(threads),
        "TQDM_MININTERVAL": "60",  # a log is not watched
        "PYTHONUNBUFFERED": "1",
        PARENT: str(os.getpid()),
    }
    return dict(os.environ, **told)


def make(
    entries: Sequence[Entry],
    way: Way,
    ended: Callable[[Entry], None],
    look: Callable[[list[Child]], None],
) -> None:
    """Make all runs that are left, at most `way.jobs` at a time, in their order.

    `ended` is called with each when it has ended, `look` several times a second with
    what is at work. A run that fails does not stop the others, but those that start
    from it are not tried. Nothing is begun after the time budget. On an interrupt all
    are asked to stop, and what they noted is noted here, before it is raised.
    """
    active: list[Child] = []
    try:
        while True:
            _skip(entries, ended)
            _start(entries, way, active)
            if not active:
                return
            time.sleep(1 / LOOKS_A_SECOND)
            _collect(active, ended)
            look(active)
    finally:
        _stop(active, ended)  # only after an interrupt, or an error of ours


def _start(entries: Sequence[Entry], way: Way, active: list[Child]) -> None:
    """Begin runs while there are free places, time, and something that can begin."""
    places = set(range(way.jobs)) - {child.place for child in active}
    usable = {entry.run.key: entry.state in ("done", "finished") for entry in entries}
    for entry in entries:
        if not places or way.over():
            return
        before = entry.run.after
        if entry.left and (before is None or usable[before.key]):
            active.append(Child(entry, way, places.pop()))


def _skip(entries: Sequence[Entry], ended: Callable[[Entry], None]) -> None:
    """Give up what starts from a run that failed."""
    by_key = {entry.run.key: entry for entry in entries}
    for entry in entries:
        before = entry.run.after
        if before is None or not entry.left:
            continue
        if by_key[before.key].state == "failed":
            entry.state = "failed"
            entry.why = f"the stage that it starts from, row {before.row}, failed."
            entry.log = by_key[before.key].log
            ended(entry)


def _collect(active: list[Child], ended: Callable[[Entry], None]) -> None:
    """Note what has ended."""
    for child in list(active):
        if child.process.poll() is not None:
            active.remove(child)
            child.end()
            ended(child.entry)


def _stop(active: list[Child], ended: Callable[[Entry], None]) -> None:
    """Ask all to stop, wait, and note; kill them when a second interrupt comes."""
    try:
        for child in active:
            child.asked = True
            child.process.terminate()
        for child in active:
            child.process.wait()
    except KeyboardInterrupt:
        for child in active:
            child.process.kill()
            child.process.wait()
        raise
    finally:
        _collect(active, ended)
