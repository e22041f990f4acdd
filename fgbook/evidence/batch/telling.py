"""What a batch says while it is at work: a line for each run that ends, a bar with the
time that is left, the report, and published records.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ... import paths
from ...errors import count
from .. import records
from ..estimate import duration
from . import report
from .grid import ENDED, Entry, complete_rows
from .pool import Child


class Teller:
    """Told of everything by the pool. `extra` finds what the report says besides the
    runs, from whether all is over.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        story: report.Story,
        publish: bool = False,
        extra: Callable[[bool], report.Extra] | None = None,
    ):
        self.entries, self.story, self.publish = entries, story, publish
        self.extra = extra
        self.todo = [entry for entry in entries if entry.left]
        self.published: set[tuple[str, ...]] = set()
        self.began = time.monotonic()
        # a bar in a terminal only
        self.bar = tqdm(
            total=sum(entry.expected for entry in self.todo) or 1.0,
            disable=None,
            leave=False,
            bar_format="{percentage:3.0f}% |{bar:20}| {desc}",
        )
        self._publish()
        self._report("at work")

    def ended(self, entry: Entry) -> None:
        """A run has."""
        over = sum(one.state in ("finished", "failed") for one in self.todo)
        top1 = report.top1(entry)
        said = entry.state
        if entry.state == "finished" and top1 is not None:
            said = f"{100 * top1:.1f} % top-1"
        elif entry.state == "failed":
            said = f"failed: {entry.why}"
        of = f"[{over}/{len(self.todo)}]"
        self._say(f"{of} {entry.title}: {said} ({duration(entry.seconds)})")
        self._publish()
        self._report("at work")

    def look(self, active: Sequence[Child]) -> None:
        """Move the bar."""
        if self.bar.disable:
            return
        done = sum(one.expected for one in self.todo if one.state in ENDED)
        spent = sum(one.seconds for one in self.todo)
        names = []
        for child in active:
            run, epochs = child.entry.run, child.epochs()
            before = child.entry.epochs  # of an earlier call
            share = (epochs - before) / max(1, run.recipe.epochs - before)
            done += min(1.0, share) * child.entry.expected
            spent += time.monotonic() - child.started
            of = f"{epochs} of {run.recipe.epochs}"
            names.append(f"{run.paper} {run.row} seed {run.seed}, epoch {of}")

        # what is left, as fast as it went so far
        left = (self.bar.total - done) / max(1, len(active))
        if done:
            left *= spent / done
        self.bar.n = min(done, self.bar.total)
        self.bar.set_description_str(f"{duration(left)} left; {'; '.join(names)}")

    def over(self, how: str) -> None:
        """The batch has ended: finished, failed, stopped or interrupted."""
        self.bar.close()
        print(f"report: {self._report(how)}", flush=True)

    def _say(self, line: str) -> None:
        self.bar.write(line)
        sys.stdout.flush()

    def _publish(self) -> None:
        """Copy the records of rows that are complete to the published ones."""
        if not self.publish:
            return
        for row in complete_rows(self.entries):
            first = row[0]
            kind = first["paper"], first["row"], first["dataset"]
            new = [record for record in row if not _is_published(record)]
            if kind not in self.published and new:
                for record in new:
                    records.publish(record)
                self._say(f"published: {' '.join(kind)}, {count(len(new), 'record')}")
            self.published.add(kind)

    def _report(self, how: str) -> str:
        seconds = time.monotonic() - self.began
        story = replace(self.story, seconds=seconds, ended=how)
        # who interrupts does not want to wait for what is measured at the end
        over = how not in ("at work", "interrupted")
        extra = self.extra(over) if self.extra else None
        return str(report.write(self.entries, story, extra))


def _is_published(record: dict) -> bool:
    """Whether it comes from the published ones of its own paper; of another paper's
    record it is a copy under another name.
    """
    folder = Path(record[records.FOLDER])
    return folder == paths.results() / paths.file_name(record["paper"])
