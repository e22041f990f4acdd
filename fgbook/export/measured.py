"""What a model costs and how often it is right, in PyTorch, in ONNX Runtime, and there
in eight bits: on the same machine and the same test images.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import paths
from ..data.dataset import DataSet
from ..errors import InputError
from ..evidence import records
from ..methods import Method
from . import check, description, int8, opened, to_onnx, traced

FORMS = ("PyTorch", "ONNX", "ONNX, 8 bits")

COLUMNS = (
    "row",
    "form",
    "MB",
    "ms, 1 thread",
    "ms, 2 threads",
    "right",
    "images",
    "changed",
)
"""Of a line of the table. The times are of single images, of the fastest repeat: on one
thread processor time, on two the time that passes (None: not measured), to which other
work on the machine adds. `changed`: of these images, how many get another class than in
PyTorch."""


@dataclass(frozen=True)
class Form:
    """One way to run a trained model, that was measured."""

    name: str  # of FORMS
    megabytes: float  # on disk
    seconds: dict[int, np.ndarray]  # threads -> (repeats,) of one image
    named: np.ndarray  # (N,) int64, the class of each test image


@dataclass(frozen=True)
class Measured:
    """The forms of one model, and the test images that they were tried on."""

    row: str
    forms: list[Form]
    labels: np.ndarray  # (N,) int64

    def lines(self) -> list[list]:
        """One line a form, by COLUMNS."""
        found = []
        for form in self.forms:
            fastest = [_fastest(form, threads) for threads in (1, 2)]
            counts = (
                int((form.named == self.labels).sum()),
                len(self.labels),
                int((form.named != self.forms[0].named).sum()),
            )
            found.append([self.row, form.name, form.megabytes, *fastest, *counts])
        return found


def _fastest(form: Form, threads: int) -> float | None:
    """Milliseconds of the fastest repeat."""
    taken = form.seconds.get(threads)
    return None if taken is None else 1000 * float(taken.min())


def possible() -> bool:
    """Whether what exporting needs is installed."""
    try:
        to_onnx.check_installed()
    except InputError:
        return False
    return True


def threads_to_time() -> tuple[int, ...]:
    """One and two threads; two only where the machine is not busy, because two that
    wait for each other and for other programs say nothing of a network.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return (1, 2) if load < records.cores() - 0.5 else (1,)


def measure(
    row: str,
    model: Method,
    about: dict,
    dataset: DataSet,
    *,
    images: int = 400,
    repeats: int = 20,
    threads: tuple[int, ...] | None = None,
) -> Measured:
    """Export a model, and measure its forms. about: as its model.json says.

    images: of the test split, at most, evenly from all of it. threads: None, on one,
    and on two where the machine has nothing else to do. Raises InputError for a
    method whose export says something else.
    """
    module = traced.predicting(model, about)
    size = about["recipe"]["image_size"]
    floating = to_onnx.convert(
        traced.program(module, size), description.describe(about)
    )
    largest = check.difference(module, opened.OpenedOnnx(floating).logits, size)
    if not largest <= check.LIMIT:
        raise InputError(f"{row}: its export differs from PyTorch by {largest:.1e}.")
    calibrated, _ = int8.some(dataset.train, int8.CALIBRATED, about)
    small = int8.quantise(floating, calibrated)
    held = sum(value.nbytes for value in model.state_dict().values())

    views, labels = int8.some(dataset.test, images, about)
    sizes = (held, len(floating), len(small))
    named: dict[str, np.ndarray] = {}
    seconds: dict[str, dict[int, np.ndarray]] = {name: {} for name in FORMS}
    for count in threads or threads_to_time():
        runners = (
            _in_pytorch(module),
            opened.OpenedOnnx(floating, count).logits,
            opened.OpenedOnnx(small, count).logits,
        )
        by_form = dict(zip(FORMS, runners, strict=True))
        with _threads(count):
            clock = time.process_time if count == 1 else time.perf_counter
            for name, taken in _turns(by_form, views[:1], repeats, clock).items():
                seconds[name][count] = taken
            for name, run in by_form.items():
                if name not in named:
                    found = [run(some).argmax(1) for some in int8.batches(views)]
                    named[name] = np.concatenate(found)
    forms = [
        Form(name, bytes_ / 1e6, seconds[name], named[name])
        for name, bytes_ in zip(FORMS, sizes, strict=True)
    ]
    return Measured(row, forms, labels)


def _in_pytorch(module: torch.nn.Module) -> check.Predict:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _turns(
    runners: dict[str, check.Predict],
    image: np.ndarray,
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, np.ndarray]:
    """Seconds of one image, (repeats,) each; all take turns, and a first round does not
    count.
    """
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for repeat in range(repeats + 1):
        for name, run in runners.items():
            begin = clock()
            run(image)
            if repeat:
                taken[name].append(clock() - begin)
    return {name: np.array(values) for name, values in taken.items()}


def published() -> dict | None:
    """The saved table of `benchmarks/export.py`, the newest one; None where there is no
    clone, or none was made.
    """
    folder: Path = paths.REPOSITORY / "benchmarks" / "results"
    found = sorted(folder.glob("export-*.json"))
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None
