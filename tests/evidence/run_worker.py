"""A process that forks others and lets them die. Importing torch takes seconds, so it
is done once, and each piece of work is a fork.

It prints a line when it is ready, and reads lines of JSON: ``{"task", "arguments",
"environment", "out", "die_at", "top"}`` starts a process with its output in the file
`out`, and answers with its number; ``{"wait": number}`` answers with its exit status
(2: an InputError, whose sentence was printed).

Nothing here runs torch before a fork: a fork of a process whose threads have worked may
    hang.
"""

import hashlib
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from PIL import Image

from fgbook import cli, data, papers
from fgbook.data import store
from fgbook.errors import InputError
from fgbook.evidence import records, runs
from fgbook.training import loop

# What functions import late, once for all forks instead of in each.
LATE = (
    "accelerate",
    "fgbook.cli.predict",
    "fgbook.cli.results",
    "fgbook.cli.run",
    "fgbook.evaluation.classification",
    "fgbook.evaluation.cost",
    "fgbook.evaluation.explanation",
    "fgbook.evaluation.heatmaps",
    "fgbook.evaluation.localisation",
    "fgbook.evaluation.robustness",
    "fgbook.evidence.verdicts",
    "scipy.ndimage",
    "scipy.special",
    "torch._subclasses.fake_tensor",
    "torch.utils.flop_counter",
    "torchmetrics.functional.classification",
    "torchvision.models",
    "tqdm.auto",
)
for name in (*LATE, *(f"fgbook.papers.{paper}" for paper in papers.names())):
    importlib.import_module(name)
Image.init()  # Pillow's formats


def note(line: str) -> None:
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{line}\n")


def run(dataset: str, settings: dict) -> None:
    """A whole run, from pictures to a published record, with a checkpoint after every
    step. Notes "fit" when it trains."""
    loop.SAVE_SECONDS = 0.0
    fit = loop.fit

    def noted(*arguments, **options):
        note("fit")
        return fit(*arguments, **options)

    loop.fit = noted
    record = runs.execute(
        runs.resolve("feng", "plain", dataset=dataset, overrides=settings),
        device="cpu",
        progress=False,
    )
    records.publish(record)
    print(json.dumps(record))


def load(dataset: str, size: int, meddle: str | None = None) -> None:
    """Load a data set; notes the files that it decodes. The file `meddle` becomes
    another picture between the first look and decoding."""
    decode, fingerprint = store.decode, data.photos.fingerprint

    def noted(path, *arguments):
        note(path)
        return decode(path, *arguments)

    def meddled(*arguments):
        Path(meddle).write_bytes((Path(meddle).parent / "1.png").read_bytes())
        return fingerprint(*arguments)

    store.decode = noted
    if meddle:
        data.photos.fingerprint = meddled
    found = data.load(dataset, size)
    pixels = b"".join(
        found.split(name).images.numpy().tobytes() for name in ("train", "val", "test")
    )
    print(found.fingerprint, hashlib.sha256(pixels).hexdigest())


def fgbook(*words: str) -> None:
    """The command line. Notes every file that it opens."""
    sys.addaudithook(
        lambda event, arguments: (
            event == "open"
            and arguments[0] != os.environ["NOTES"]
            and note(ascii(arguments[0]))
        )
    )
    sys.argv = ["fgbook", *words]
    cli.main()


def die_at(number: int, top: str) -> None:
    """Kill this process with SIGKILL when it is about to change files below `top` for
    the `number`-th time (from 0)."""
    left = [number]

    def watch(event: str, arguments: tuple) -> None:
        writing = event == "open" and arguments[2] & (
            os.O_WRONLY | os.O_RDWR | os.O_CREAT
        )
        if (
            writing or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        ) and str(arguments[0]).startswith(top):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(watch)


def work(task: dict) -> None:
    """What a forked process does."""
    file = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(task["environment"])
    status = 1
    try:
        torch.set_num_threads(1)
        if task["die_at"] is not None:
            die_at(task["die_at"], task["top"])
        {"run": run, "load": load, "fgbook": fgbook}[task["task"]](*task["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except InputError as error:
        print(error)
        status = 2
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    print(0, flush=True)  # ready
    for line in sys.stdin:
        task = json.loads(line)
        if "wait" in task:
            print(os.waitstatus_to_exitcode(os.waitpid(task["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            work(task)
        print(pid, flush=True)
