"""What tests of the command line share: calling it, and what a refusal looks like."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from fgbook import cli, paths

# A training of a second: the small backbone on few, small pictures.
SMALL = (
    "--set image_size=32 --set store_size=32 --set batch_size=8 --set weights=none"
    " --set lr=0.02"
).split()


def fgbook(*words: str, **options) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(cli.cli, words, prog_name="fgbook", **options)


def environment(**places: Path) -> dict[str, str]:
    """What a process that calls the command is told; its folders by variable."""
    told = dict(os.environ, PYTHONPATH=str(paths.REPOSITORY), OMP_NUM_THREADS="1")
    return told | {name: str(place) for name, place in places.items()}


def process(*words: str, runs: Path, **options) -> subprocess.Popen:
    """Start the command in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "fgbook", *words],
        env=environment(FGBOOK_RUNS=runs),
        text=True,
        **options,
    )


def ended(child: subprocess.Popen, status: int) -> str:
    """What a process has said that ends with this status, and without a traceback."""
    out, error = child.communicate(timeout=600)
    assert child.returncode == status, out + error
    assert "Traceback" not in error
    return out + error


def python(code: str, **options) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        **options,
    )


def refused(result: Result, *parts: str) -> None:
    """The result is a refusal: exit status 2, one line on stderr that holds `parts`,
    nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
