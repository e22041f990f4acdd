"""What the benchmarks share: timing in turns, the options that all have, tables, and
result files.
"""

import argparse
import datetime
import gc
import json
import multiprocessing
import os
import re
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch

from fgbook.evidence import records
from fgbook.methods import METHODS, Method
from fgbook.training.devices import keep_memory

CLONE = Path(__file__).resolve().parents[1]
RESULTS = CLONE / "benchmarks" / "results"
LAYOUT = "channels_last"  # what fgbook trains in
SPAWN = multiprocessing.get_context("spawn")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with --save."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--save",
        nargs="?",
        const=RESULTS,
        type=Path,
        metavar="FOLDER",
        help=f"write the results there (default: {RESULTS.name})",
    )
    return found


def on_device(
    description: str, threads: int = 1, seconds: float | None = 4.0
) -> argparse.ArgumentParser:
    """A parser with --save, --device and --threads and, where something is timed,
    --seconds (None: nothing is).
    """
    found = parser(description)
    found.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    found.add_argument(
        "--threads", type=int, default=threads, help=f"CPU threads (default: {threads})"
    )
    if seconds is not None:
        found.add_argument(
            "--seconds",
            type=float,
            default=seconds,
            help=f"spent on each line at least (default: {seconds:g})",
        )
    return found


def compares_methods(found: argparse.ArgumentParser) -> None:
    """Options of a benchmark that sets methods beside the plain backbone."""
    found.add_argument("--backbone", help="default: mobilenet_v2; resnet50 on a GPU")
    found.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS),
        choices=list(METHODS),
        help="default: all; plain is always there",
    )


def options(found: argparse.ArgumentParser) -> tuple[argparse.Namespace, torch.device]:
    """What was chosen on the command line, with the defaults that depend on the device,
    and that device. Sets the number of threads.
    """
    chosen = found.parse_args()
    device = torch.device(chosen.device)
    torch.set_num_threads(chosen.threads)
    if "methods" in chosen:
        chosen.backbone = chosen.backbone or (
            "resnet50" if device.type == "cuda" else "mobilenet_v2"
        )
        chosen.methods = list(dict.fromkeys(["plain", *chosen.methods]))
    return chosen, device


def clock(device: torch.device | str) -> Callable[[], float]:
    """Wall time; on one CPU thread processor time, which is the same on a quiet machine
    and suffers little on a busy one.
    """
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and torch.get_num_threads() == 1:
        return time.process_time
    return time.perf_counter


def children() -> float:
    """Processor seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def turns(
    functions: list[Callable],
    device: torch.device,
    seconds: float,
    least: int = 3,
    now: Callable | None = None,
) -> list[list[float]]:
    """Seconds of each function in each round, by the clock `now` (default:
    :func:`clock`).

    All run in turn in every round, so that a busy machine disturbs all alike.
    """
    now = now or clock(device)
    keep_memory()
    for function in functions:  # once for caches and autotuning
        function()
    taken: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    gc.collect()
    while time.perf_counter() < end or len(taken[0]) < least:
        for function, times in zip(functions, taken, strict=True):
            wait(device)
            start = now()
            function()
            wait(device)
            times.append(now() - start)
    return taken


def turns_apart(
    makes: Sequence[Callable[[], Callable]], seconds: float, least: int = 3
) -> tuple[list[list[float]], list]:
    """As :func:`turns`, of functions that are made and called in processes of their
    own, so that none has what another has set in its process (how memory is kept, say):
    the seconds of each in each round, and what each gave in the last one. Seconds of
    processor time on one thread, of wall time on several. For the CPU only.
    """
    gave: list = [None for _ in makes]
    taken: list[list[float]] = [[] for _ in makes]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                ProcessPoolExecutor(1, SPAWN, _make, (make, torch.get_num_threads()))
            )
            for make in makes
        ]
        for process in processes:  # once for caches, one after the other
            process.submit(_again).result()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken[0]) < least:
            for place, process in enumerate(processes):
                used, gave[place] = process.submit(_again).result()
                taken[place].append(used)
    return taken, gave


def _make(make: Callable[[], Callable], threads: int) -> None:
    """In a process of its own: what :func:`_again` will call."""
    global _made
    torch.set_num_threads(threads)
    _made = make()


def _again() -> tuple[float, object]:
    """In a process of its own: seconds of a call, and what it gave."""
    now = clock("cpu")
    gc.collect()
    start = now()
    gave = _made()
    return now() - start, gave


def settle(model: Method, images: torch.Tensor) -> Method:
    """Have a model with random weights pass on what it sees: its BatchNorm statistics
    become those of these images. In evaluation mode afterwards.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train().predict(images)
    return model.eval()


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Median of the rounds' ratios, and their quartiles: rounds are compared with
    themselves, so slow ones do no harm.
    """
    each = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = statistics.quantiles(each, n=4, method="inclusive")
    return statistics.median(each), low, high


class Report:
    """One benchmark's outcome: prints a table and its ratios, and is written as one
    JSON file.

    File: <name>-<hardware>-torch<version>-<layout>.json with benchmark, title, command,
    date, hardware, load (average of the minute before), clock, versions, commit,
    layout, settings, columns, rows and ratios; nothing in it names the machine or its
    folders.
    """

    def __init__(
        self,
        name: str,
        title: str,
        device: str,
        columns: list[str],
        layout: str = LAYOUT,
        now: Callable | None = None,
        **settings,
    ):
        by_processor = (now or clock(device)) in (time.process_time, children)
        times = "processor time" if by_processor else "wall time"
        self.content = {
            "benchmark": name,
            "title": title,
            "command": None,
            "date": datetime.date.today().isoformat(),
            "hardware": records.hardware(device),
            "load": round(os.getloadavg()[0], 1),
            "clock": times,
            "versions": records.versions(),
            **records.commit(),
            "layout": layout,
            "settings": settings,
            "columns": columns,
            "rows": [],
            "ratios": [],
        }
        about = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in settings.items()
        )
        print(
            f"{title}\n{hardware(self.content['hardware'])}; torch {torch.__version__};"
            f" {times}; load {self.content['load']}; {about}\n"
        )
        print(self._line(columns))

    def row(self, *cells) -> None:
        """A line of the table, printed at once; numbers are rounded to four digits,
        None is a dash.
        """
        cells = [
            float(f"{cell:.4g}") if isinstance(cell, float) else cell for cell in cells
        ]
        self.content["rows"].append(cells)
        print(self._line(cells), flush=True)

    def ratio(
        self,
        what: str,
        value: float,
        low: float | None = None,
        high: float | None = None,
        wanted: str = "",
    ) -> None:
        """A ratio with its quartiles and what was wanted: "" or a comparison such as
        ">= 5".
        """
        rounded = [
            None if number is None else float(f"{number:.3g}")
            for number in (value, low, high)
        ]
        names = ("what", "value", "low", "high", "wanted")
        found = (what, *rounded, wanted)
        self.content["ratios"].append(dict(zip(names, found, strict=True)))

    def finish(self, save: Path | None) -> None:
        """Print the ratios; write the file when a folder is given."""
        print()
        for found in self.content["ratios"]:
            wanted = f" (wanted: {found['wanted']})" if found["wanted"] else ""
            print(f"ratio, {found['what']}: {spread(found)}{wanted}")
        if save:
            self.content["command"] = command()
            path = save / f"{self.content['benchmark']}-{slug(self.content)}.json"
            text = json.dumps(self.content, indent=1, allow_nan=False) + "\n"
            records.write_atomically(path, text.encode())
            print(f"written: {path.name}")

    def _line(self, cells: list) -> str:
        first, *rest = (shown(cell) for cell in cells)
        return f"{first:<34}" + "".join(
            f"  {text:>{len(name)}}"
            for text, name in zip(rest, self.content["columns"][1:], strict=True)
        )


def shown(cell) -> str:
    """A cell as text: three significant digits, but no exponent."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return "-" if cell is None else str(cell)


def spread(found: dict) -> str:
    """A ratio with its quartiles, if it has any."""
    if found["low"] is None:
        return shown(found["value"])
    quartiles = f"[{shown(found['low'])}, {shown(found['high'])}]"
    return f"{shown(found['value'])} {quartiles}"


def hardware(about: dict) -> str:
    """One line about the processor or GPU of a record."""
    threads = (
        f"{about['threads']} thread{'s' * (about['threads'] > 1)} on {about['cores']}"
        f" core{'s' * (about['cores'] > 1)}"
    )
    if "gpu" in about:
        return f"{about['gpu']}, {threads} of {about['cpu']}"
    return f"{about['cpu']}, {threads}"


def slug(content: dict) -> str:
    """<hardware>-torch<version>-<layout>, as in
    "amd-epyc-2-threads-torch2.9.1-channels_last".
    """
    about = content["hardware"]
    machine = about.get("gpu")
    if machine is None:
        threads = f"{about['threads']} thread{'s' * (about['threads'] > 1)}"
        machine = f"{about['cpu']} {threads}"
    machine = re.sub(r"\((r|tm)\)", "", machine.lower())
    machine = re.sub(r"[^a-z0-9]+", "-", machine).strip("-")
    version = content["versions"]["torch"].split("+")[0]
    return f"{machine}-torch{version}-{content['layout']}"


def command() -> str:
    """How this process was called, without the folders that --save and a data set may
    name.
    """
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word.startswith("--save="):
            kept.append("--save")
        else:
            kept.append(re.sub("folder:.*", "folder:PATH", word))
        if word == "--save":
            rest = list(words)
            words = iter(rest[1:] if rest and not rest[0].startswith("-") else rest)
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])
