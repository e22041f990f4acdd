"""What the commands share: how they end, how they are described, and what is asked of
every word that a person gives.
"""

import errno
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import paths
from ..errors import AGAIN, FAILED, INTERRUPTED, WRONG_INPUT, InputError, unknown

if TYPE_CHECKING:
    from ..evidence.plan import Run

WIDTH = 88  # columns of the help texts
LARGEST_SEED = 2**32 - 1  # that all random generators take

Command = TypeVar("Command", bound=Callable[..., Any])
"""The function behind a command, or the command: what an option is added to."""

# What the system says when a place cannot be written: the person can do something about
# these, a traceback would only hide it.
UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)

# What no file can be called.
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


# ---- how a command ends


class Refused(click.ClickException):
    """Wrong input: printed as "Error: ..." on stderr, without a traceback."""

    exit_code = WRONG_INPUT


class Failed(click.ClickException):
    """Right input, but it could not be done: printed in the same way."""

    exit_code = FAILED


_requests: list[int] = []  # signals that asked this process to end


def end_on_request(number: int, frame: FrameType | None) -> None:
    """The handler of signals by which a system asks a process to end (SIGTERM, a closed
    terminal): what Ctrl-C does, at once or between two steps, but noted, because an
    engine should call again.
    """
    _requests.append(number)
    as_ctrl_c = signal.getsignal(signal.SIGINT)
    if not callable(as_ctrl_c):  # ignored, as in the background jobs of a shell
        as_ctrl_c = signal.default_int_handler
    as_ctrl_c(number, frame)


class Commands(click.Group):
    """A group whose commands end in one sentence, and with a status that an engine can
    act on: see fgbook/errors.py.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say which command was probably meant where there is none of that name."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise Refused(str(unknown("command", args[0], self.list_commands(ctx))))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # as click types it
        """Run the command; turn what a person can repair into a sentence."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise Refused(str(error)) from error
        except KeyboardInterrupt:
            said = "stopped; run the same command again: what trains goes on."
            click.echo(f"\n{said}", err=True)
            ctx.exit(AGAIN if _requests else INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has gone, as with `| head`
            # else Python complains once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(FAILED)
        except OSError as error:
            place = error.filename or "a file"
            if error.errno in NO_NAME:
                said = f"no file can be called {place} ({error.strerror})"
                raise Refused(f"{said}; give another name.") from error
            if error.errno not in UNWRITABLE:
                raise
            raise Refused(cannot_write(place, error.strerror)) from error


def cannot_write(place: object, why: str | None) -> str:
    """The sentence for a place that cannot be written."""
    return (
        f"cannot use {place} ({why}); make it readable, free some space, or choose"
        " another folder for what is written (FGBOOK_RUNS)."
    )


@contextmanager
def quiet_disk() -> Iterator[None]:
    """Torch and safetensors report a full disk as errors of their own: say it as for
    any other file.
    """
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:
        signs = ("No space left", "PytorchStreamWriter", "File too large")
        if not any(sign in str(error) for sign in signs):
            raise
        said = str(error).splitlines()[0]
        raise InputError(cannot_write(paths.runs(), said)) from error


# ---- how it is described


def examples(*lines: str, note: str = "") -> str:
    """The end of a help text: command lines that can be copied, and a remark."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    # \b keeps click from filling the paragraph
    text = "\b\n" + "\n".join([title, *(f"  {line}" for line in lines)])
    return f"{text}\n\n{note}" if note else text


class Amount(click.FloatRange):
    """A number above 0 that is one."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse infinity, and what is no number (nan), too."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def on_device(command: Command) -> Command:
    """The option --device, which all commands that compute have."""
    help = "cpu, cuda, cuda:1.  [default: a GPU if there is one]"
    return click.option("--device", help=help)(command)


def over_seeds(default: str) -> Callable[[Command], Command]:
    """The options --seeds and --seed, for :func:`numbers_of`."""

    def add(command: Command) -> Command:
        one = click.option(
            "--seed",
            "chosen",
            type=click.IntRange(0, LARGEST_SEED),
            multiple=True,
            help="Train with this seed; repeatable.",
            metavar="SEED",
        )
        many = click.option(
            "--seeds",
            type=click.IntRange(1),
            help=f"Train with seeds 0 .. N-1.  [default: {default}]",
            metavar="N",
        )
        return many(one(command))

    return add


def numbers_of(seeds: int | None, chosen: Iterable[int]) -> list[int]:
    """The seeds that are asked for; empty where none are."""
    if seeds and chosen:
        raise InputError(
            "--seeds N and --seed SEED exclude each other; use one of them."
        )
    return list(dict.fromkeys(chosen)) or list(range(seeds or 0))


def several_at_once(command: Command) -> Command:
    """The option --jobs."""
    return click.option(
        "--jobs",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Runs at a time; they share the cores (or take turns with the GPUs).",
    )(command)


def within_budget(command: Command) -> Command:
    """The option --budget-minutes."""
    return click.option(
        "--budget-minutes",
        type=Amount(),
        help="Stop cleanly after N minutes; run again to go on.",
        metavar="N",
    )(command)


def with_keys(beside: str) -> Callable[[Command], Command]:
    """The option --keys, which needs another one."""
    return click.option(
        "--keys",
        is_flag=True,
        help=f"With {beside}: only a line for each run, for programs: its key, its"
        " state, the key of the stage before it or -, and its command, separated by"
        " tabs.",
    )


def key_line(run: "Run", state: str, command: str) -> str:
    """What --keys says of a run."""
    before = run.after.key if run.after else "-"
    return "\t".join([run.key, state, before, command])


def publishes(command: Command) -> Command:
    """The option --publish."""
    help = "Copy the records to the published ones, which the book prints."

    def check(_context: click.Context, _option: click.Parameter, chosen: bool) -> bool:
        """Refuse a folder that cannot be published into, before anything is run."""
        from ..evidence import records

        if chosen:
            records.publishing_folder()
        return chosen

    return click.option("--publish", is_flag=True, help=help, callback=check)(command)


# ---- what a person gives


def one_dataset(given: Iterable[str]) -> str | None:
    """The data set that is asked for; None where none is.

    Given twice it counts once. Raises InputError where two are named. The path of a
    folder stays as it is typed: :func:`fgbook.data.absolute` knows from where it is
    meant.
    """
    different = list(dict.fromkeys(given))
    if len(different) > 1:
        raise InputError(
            f"--dataset takes one data set; got {' and '.join(different)}. Run the"
            " command once for each."
        )
    return different[0] if different else None


def check_device(name: str | None) -> None:
    """Refuse a device that this machine does not have, before any data are read."""
    if name is None:
        return
    import torch

    try:
        torch.zeros(1, device=name).cpu()  # "meta" makes numbers, and has none
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); there"
            f" is: {', '.join(there)}."
        ) from error


def known_records() -> list[dict]:
    """All records, published or made here, of results and of tuning; the fresh one
    where a run has both.
    """
    from ..evidence import records

    # rows, also of several papers, may share a run
    found = {}
    for record in records.published(purpose=None) + records.fresh():
        found[record["paper"], record["row"], record["key"]] = record
    return list(found.values())
