"""A process that forks training runs and lets them die. Importing torch takes seconds,
so it is done once, and each run is a fork.

    python fault_worker.py '[{"task": "random", "folder": ..., ...}, ...]'

It prints one line of JSON.

Nothing here runs torch before a fork: a fork of a process whose threads have worked may
    hang.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

# Accelerate, dynamo and tqdm are what a run imports late: here, so that not every fork
# has to.
import accelerate.utils  # noqa: F401
import torch
import torch._dynamo
import tqdm.auto  # noqa: F401
from torch import nn

from fgbook import files
from fgbook.data.dataset import DataSet, Split
from fgbook.recipe import Recipe
from fgbook.training import loop

RECIPE = {
    "image_size": 8,
    "store_size": 10,
    "rotate": 10.0,
    "jitter": 0.2,
    "backbone": "tiny",
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.05,
    "backbone_lr_factor": 0.5,
}


class Tiny(nn.Module):
    """Three classes, told apart by colour and texture; BatchNorm or none, dropout or
    none."""

    def __init__(self, norm: bool = True, dropout: float = 0.2):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8) if norm else nn.GroupNorm(2, 8),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)

    def forward(self, images, targets=None):
        return {"image": self.head(self.dropout(self.backbone(images).mean((2, 3))))}

    def losses(self, logits, targets, criterion):
        return {
            "image": criterion(logits["image"], targets),
            "size": 0.01 * logits["image"].square().mean(),
        }

    def predict(self, images):
        return self(images)["image"]


class InTurns(Tiny):
    """A second head; each has an optimiser step of its own on every batch."""

    rounds = ("image", "second")

    def __init__(self, norm: bool = True, dropout: float = 0.2):
        super().__init__(norm, dropout)
        self.second = nn.Linear(8, 3)

    def forward(self, images, targets=None, only=None):
        heads = {"image": self.head, "second": self.second}
        features = self.dropout(self.backbone(images).mean((2, 3)))
        return {name: heads[name](features) for name in ([only] if only else heads)}

    def losses(self, logits, targets, criterion):
        return {name: criterion(value, targets) for name, value in logits.items()}


def split(count: int, seed: int, size: int = 10) -> Split:
    labels = torch.arange(count) % 3
    images = torch.randint(
        0,
        200,
        (count, 3, size, size),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.uint8,
    )
    images[torch.arange(count), labels] += 25
    return Split(images, labels, [f"{seed}/{i}.jpg" for i in range(count)])


def dataset(fingerprint: str = "f00d") -> DataSet:
    return DataSet(
        "tiny",
        ["a", "b", "c"],
        10,
        fingerprint,
        split(35, 0),
        split(13, 1),
        split(13, 2),
    )


def make(norm: bool = True, dropout: float = 0.2, in_turns: bool = False) -> Tiny:
    torch.manual_seed(0)
    return InTurns(norm, dropout) if in_turns else Tiny(norm, dropout)


def train(task: dict) -> None:
    """What a forked process does: one run, then its predictions."""
    torch.set_num_threads(1)
    loop.SAVE_SECONDS = task.get("save_seconds", 0.01)
    recipe = Recipe(**{**RECIPE, **task["recipe"]})
    model, data = make(**task.get("model", {})), dataset()
    loop.fit(
        model, data, recipe, Path(task["folder"]), seed=3, device="cpu", progress=False
    )
    probabilities = loop.predict(model, data.test, recipe, device="cpu")
    if os.environ.get("RANK", "0") == "0":
        torch.save(probabilities, task["folder"] + ".probabilities.pt")


def fork(task: dict, before=lambda: None) -> int:
    """Start a run in a process of its own; its exit status is 0, 130 after
    KeyboardInterrupt, 1 after any other exception."""
    pid = os.fork()
    if pid:
        return pid
    try:
        before()
        train(task)
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_random_moments(task: dict) -> dict:
    """Run once undisturbed, to know how long it takes; then again, hit by a signal at
    `count` random moments, and to the end.

    A run that comes through before it is hit stays as it is, and the next one takes a
    folder of its own.
    """
    start = time.monotonic()
    assert wait(fork({**task, "folder": task["reference"]})) == 0
    length = time.monotonic() - start
    folders, statuses = [task["folder"] + "-0"], []
    moments = random.Random(task["seed"])
    while len(statuses) < task["count"]:
        pid = fork({**task, "folder": folders[-1]})
        time.sleep(moments.uniform(0, 0.7 * length))
        os.kill(pid, task["signal"])
        if status := wait(pid):
            statuses.append(status)
        else:
            folders.append(f"{task['folder']}-{len(folders)}")
    assert wait(fork({**task, "folder": folders[-1]})) == 0
    return {"statuses": statuses, "folders": folders}


def at_file_operations(task: dict) -> dict:
    """Kill the first run at its first operation on files, the second at its second, and
    so on, until one comes through."""
    statuses = []
    while not statuses or statuses[-1]:
        left = [len(statuses)]

        def dying(operation, left=left):
            def step(*arguments, **options):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return operation(*arguments, **options)

            return step

        def before():
            os.replace = dying(os.replace)
            os.fsync = dying(os.fsync)
            Path.unlink = dying(Path.unlink)
            files.open = dying(open)  # found before the builtin

        statuses.append(wait(fork(task, before)))
        assert statuses[-1] in (0, -signal.SIGKILL), statuses
    return {"statuses": statuses}


def several(task: dict) -> dict:
    """One run in `count` processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": task["count"],
        "LOCAL_WORLD_SIZE": task["count"],
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }

    def before(rank):
        for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items():
            os.environ[name] = str(value)

    pids = [fork(task, lambda rank=rank: before(rank)) for rank in range(task["count"])]
    return {"statuses": [wait(pid) for pid in pids]}


if __name__ == "__main__":
    tasks = {
        "random": at_random_moments,
        "files": at_file_operations,
        "several": several,
    }
    print(json.dumps([tasks[task["task"]](task) for task in json.loads(sys.argv[1])]))
