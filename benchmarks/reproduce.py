"""Wall time of `make reproduce` by stage, from nothing:

    python benchmarks/reproduce.py [--setup] [--save]

Works in a temporary copy of the clone's files with an empty folder for runs, so that
nothing is up to date. With --setup it also makes the virtual environment, which
downloads whatever pip has not cached. The last ratio is the sum of the notebooks'
seconds over the wall time: on N cores at most N; what is missing to it went into
waiting for the slowest one.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common


def timed(
    stage: str, command: list[str], folder: Path, environment: dict[str, str]
) -> float:
    """Run a command quietly; its seconds. Ends the benchmark with what it said when it
    fails.
    """
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stdout}")
    return seconds


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--setup", action="store_true", help="make the virtual environment too"
    )
    chosen = parser.parse_args()
    report = common.Report(
        "reproduce",
        "Wall time of make reproduce, by stage",
        "cpu",
        ["stage", "seconds"],
        layout="quick",
        now=time.perf_counter,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clone"
        # at the top only: fgbook/data is code
        made_here = {
            str(common.CLONE / name)
            for name in (".git", ".venv", "_build", "runs", "data", "weights")
        }
        shutil.copytree(
            common.CLONE,
            folder,
            ignore=lambda where, names: [
                n
                for n in names
                if os.path.join(where, n) in made_here or n == "__pycache__"
            ],
        )
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FGBOOK_")
        }
        python = sys.executable
        if chosen.setup:
            report.row(
                "set-up", timed("set-up", ["make", ".venv/ready"], folder, environment)
            )
            python = str(folder / ".venv" / "bin" / "python")
        wall = timed(
            "notebooks",
            [python, "-m", "fgbook", "reproduce", "--no-book"],
            folder,
            environment,
        )
        report.row("notebooks", wall)
        work = 0.0
        for copy in sorted((folder / "_build" / "executed").glob("*.ipynb")):
            noted = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["fgbook"]
            seconds = noted["seconds"]
            report.row(f"- {copy.stem}", float(seconds))
            work += seconds
        book = timed("book", [python, "-m", "fgbook", "book"], folder, environment)
        report.row("book", book)
        again = timed(
            "once more", [python, "-m", "fgbook", "reproduce"], folder, environment
        )
        report.row("all of it once more", again)
    report.ratio(
        "notebooks and book, over once more with everything up to date",
        (wall + book) / again,
    )
    report.ratio("notebooks at work at a time, on average", work / wall)
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
