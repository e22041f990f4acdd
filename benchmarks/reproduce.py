"""Wall time of `make reproduce` by stage, from nothing: python benchmarks/reproduce.py [--setup]

Works in a temporary copy of the clone's files with an empty folder for runs, so that nothing is up to date. With --setup it also makes the
virtual environment, which downloads whatever pip has not cached. The last ratio is the sum of the notebooks' seconds over the wall time: on N cores
at most N; what is missing to it went into waiting for the slowest one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]


def timed(stage: str, command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Run a command quietly; its seconds. Ends the benchmark with what it said when it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stdout}")
    print(f"{stage:<24}{seconds:8.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="make the virtual environment too")
    setup = parser.parse_args().setup
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clone"
        made_here = {str(CLONE / name) for name in (".git", ".venv", "_build", "runs", "data", "weights")}  # at the top only: fgbook/data is code
        shutil.copytree(CLONE, folder, ignore=lambda where, names: [n for n in names if os.path.join(where, n) in made_here or n == "__pycache__"])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FGBOOK_")}
        python = sys.executable
        if setup:
            timed("set-up", ["make", ".venv/ready"], folder, environment)
            python = str(folder / ".venv" / "bin" / "python")
        wall = timed("notebooks", [python, "-m", "fgbook", "reproduce", "--no-book"], folder, environment)
        work = 0.0
        for copy in sorted((folder / "_build" / "executed").glob("*.ipynb")):
            seconds = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["fgbook"]["seconds"]
            print(f"  {copy.stem:<22}{seconds:8.1f} s")
            work += seconds
        book = timed("book", [python, "-m", "fgbook", "book"], folder, environment)
        again = timed("all of it once more", [python, "-m", "fgbook", "reproduce"], folder, environment)
        print(f"{'notebooks and book':<24}{wall + book:8.1f} s   ratio to once more: {(wall + book) / again:.1f}")
        print(f"notebooks at work at a time, on average: {work / wall:.2f}")


if __name__ == "__main__":
    main()
