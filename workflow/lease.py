"""Lease one of this machine's GPUs to a command, until the command ends.

    python workflow/lease.py FOLDER GPUS COMMAND...

Waits until one of the GPUs 0 .. GPUS-1 is free, and then becomes the command, which
sees that GPU only (CUDA_VISIBLE_DEVICES). A lease is a lock on a file in FOLDER that
the system gives back however the command ends. (On a cluster the scheduler leases.)
"""

import fcntl
import os
import sys
import time
from pathlib import Path


def lease(folder: Path, gpus: int) -> int:
    """The number of a GPU that is now ours, waiting for it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [os.open(folder / f"{i}.lock", os.O_RDWR | os.O_CREAT) for i in range(gpus)]
    while True:
        for number, file in enumerate(files):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            os.set_inheritable(file, True)  # the command holds it from now on
            return number
        time.sleep(0.5)


if __name__ == "__main__":
    place, count, *command = sys.argv[1:]
    os.environ["CUDA_VISIBLE_DEVICES"] = str(lease(Path(place), int(count)))
    os.execvp(command[0], command)
