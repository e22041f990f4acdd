"""How long people wait before anything happens: processor time of imports, and of
commands that compute nothing.

    python benchmarks/startup.py

Each is a process of its own, on files that were read before. Wanted: what a notebook
imports takes at most 1.3 times what `import torch` takes, and a command that only looks
something up at most a second.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import common

TORCH = "import torch"
IMPORTS = (TORCH, "import fgbook.evidence.runs", "import fgbook.figures")
WANTED_RATIO = 1.3  # of the first of ours
COMMANDS = ("--help", "results", "results --verdicts", "doctor", "data list")
WANTED_SECONDS = 1.0


def starter(words: list[str], environment: dict[str, str]) -> Callable[[], None]:
    """A function that runs Python with these words, quietly."""

    def start() -> None:
        subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    return start


def main() -> None:
    """Measure, print, save."""
    parser = common.on_device(__doc__, seconds=60.0)
    chosen, device = common.options(parser)
    report = common.Report(
        "startup",
        "Start-up: processor time before anything is computed",
        chosen.device,
        ["process", "seconds", "ratio"],
        layout="processes",
        now=common.children,
    )
    names = [*IMPORTS, *(f"fgbook {words}" for words in COMMANDS)]
    with tempfile.TemporaryDirectory() as runs:
        # no records of this machine's own: the published ones are the same everywhere
        told = dict(os.environ, FGBOOK_RUNS=runs, OMP_NUM_THREADS="1")
        told["PYTHONPATH"] = str(common.CLONE)
        functions = [starter(["-c", statement], told) for statement in IMPORTS]
        for words in COMMANDS:
            functions.append(starter(["-m", "fgbook", *words.split()], told))
        times = common.turns(functions, device, chosen.seconds, now=common.children)
    taken = dict(zip(names, times, strict=True))

    for name, seconds in taken.items():
        ratio, _, _ = common.ratio(seconds, taken[TORCH])
        report.row(name, common.median(seconds), ratio)
    for name in IMPORTS[1:]:
        report.ratio(
            f"{name}, over {TORCH}",
            *common.ratio(taken[name], taken[TORCH]),
            wanted=f"<= {WANTED_RATIO}" if name == IMPORTS[1] else "",
        )
    for words in COMMANDS:
        seconds = taken[f"fgbook {words}"]
        report.ratio(
            f"seconds of fgbook {words}",
            *common.ratio(seconds, [1.0] * len(seconds)),
            wanted=f"<= {WANTED_SECONDS:g}",
        )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
