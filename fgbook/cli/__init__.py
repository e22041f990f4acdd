"""The command line: one file a topic.

Heavy imports stand inside the commands, so that ``--help``, results and wrong names
answer at once.
"""

import os
import signal
import threading
import warnings

import click

from .. import __version__
from ..evidence.batch import PARENT, end_with
from . import (
    batch,
    causal,
    compare,
    data,
    doctor,
    export,
    notebooks,
    predict,
    results,
    run,
)
from .common import WIDTH, Commands, end_on_request, examples


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": WIDTH,
    },
    epilog=examples(
        "fgbook reproduce                             all notebooks, then the book",
        "fgbook run feng --row hybrid                 one row of a paper, no download",
        "fgbook run feng --profile photo --seeds 3    all rows on real photographs",
        "fgbook batch feng --profile photo --plan     what a whole grid would take",
        "fgbook compare ~/my-birds --plan             which method for my pictures",
        "fgbook results feng --verdicts               what came out",
        "fgbook predict bird.jpg --run 3f2a           name the bird in a photograph",
        "fgbook export --run 3f2a -o model.onnx       its model, for other programs",
        "fgbook doctor                                what is installed and found here",
    ),
)
@click.version_option(__version__, prog_name="fgbook")
def cli() -> None:
    """Fine-grained image classification: papers, their methods, runs and verdicts."""


for command in (
    notebooks.reproduce,
    notebooks.book,
    run.run,
    batch.batch,
    compare.compare,
    run.tune,
    run.pretrain,
    results.results,
    data.data,
    predict.predict,
    export.export,
    causal.causal,
    doctor.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: a request to end (SIGTERM, a closed terminal) is treated like
    Ctrl-C, so that children stop and runs can go on later.
    """
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            # nohup has it ignored, and keeps its meaning
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end_on_request)
        _end_with_parent()
    warnings.showwarning = _say
    cli(prog_name="fgbook")


def _end_with_parent() -> None:
    """Where a batch started this process: ask ourselves to end when that batch is no
    more, however it ended.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        end_with(int(parent))


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one sentence: where in the code it was raised helps nobody here."""
    click.echo(message, err=True)
