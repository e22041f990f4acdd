"""How long it takes from a picture's file to its prediction, stage by stage. For
figures and for claims about speed."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data import store

STAGES = ("decode", "preprocess", "network", "classifier")


@dataclass(frozen=True)
class Latency:
    """Measured times of one network and batch size on one machine, in seconds for the
    whole batch."""

    name: str  # of the backbone
    image_size: int  # pixels
    batch: int  # images
    # stage -> (n,) one value a repeat; "total": all stages together, file to prediction
    seconds: dict[str, np.ndarray]
    threads: int  # of torch, on the CPU
    device: str

    def per_image(self, stage: str = "total") -> tuple[float, float, float]:
        """Median, 10th and 90th percentile over repeats, in seconds an image."""
        values = self.seconds[stage] / self.batch
        return float(np.median(values)), *(
            float(np.percentile(values, q)) for q in (10, 90)
        )


@torch.inference_mode()
def measure(
    model: nn.Module,
    files: list[Path],
    image_size: int,
    *,
    batch: int = 1,
    repeats: int = 20,
    warm_up: int = 3,
    device: str = "cpu",
) -> Latency:
    """Time `model` (with ``.backbone`` and ``.head``, as
    :class:`fgbook.methods.Transfer`) on pictures' files.

    Stages: "decode", from the file to image_size pixels square, by one thread;
    "preprocess", to a float tensor in [0, 1] on the device; "network", the backbone;
    "classifier", its head, softmax, and the class numbers back on the host. Repeats
    take one file after the other, from the start again after the last. The first
    `warm_up` are not counted. On a GPU every stage waits for the device to finish,
    which the
    total therefore includes: times of a pipeline that overlaps stages would be shorter.
    """
    place = torch.device(device)
    model.eval().to(place, memory_format=torch.channels_last)
    wait = torch.cuda.synchronize if place.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "total")}
    for repeat in range(warm_up + repeats):
        chosen = [files[(repeat * batch + i) % len(files)] for i in range(batch)]
        ticks = [time.perf_counter()]

        def done() -> None:
            wait()
            ticks.append(time.perf_counter())

        pixels = np.stack([store.decode(file, image_size)[0] for file in chosen])
        done()
        images = preprocess(pixels, place)
        done()
        maps = model.backbone(images)
        done()
        model.head.predict(maps).softmax(1).argmax(1).cpu()
        done()
        if repeat >= warm_up:
            for stage, length in zip(STAGES, np.diff(ticks), strict=True):
                seconds[stage].append(length)
            seconds["total"].append(ticks[-1] - ticks[0])
    return Latency(
        model.backbone.name,
        image_size,
        batch,
        {stage: np.array(values) for stage, values in seconds.items()},
        torch.get_num_threads(),
        str(place),
    )


def preprocess(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Decoded pictures (B, 3, S, S) uint8 -> (B, 3, S, S) float32 in [0, 1] on the
    device, channels last."""
    return (
        torch.from_numpy(pixels)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
        .float()
        .div_(255)
    )


COLD = """
import sys
import torch
from fgbook.evaluation import latency
from fgbook import backbones
from fgbook.methods import Transfer
torch.set_num_threads(int(sys.argv[4]))
size = int(sys.argv[2])
latency.measure(Transfer(backbones.create(sys.argv[1], "none"), 21, image_size=size), [sys.argv[3]], size, repeats=1, warm_up=0)
"""


def cold_start(name: str, file: Path, image_size: int) -> float:
    """Seconds from starting a new Python process to its first prediction, on the CPU:
    imports, making the network (random weights), one picture.

    Raises CalledProcessError when that process fails.
    """
    begin = time.perf_counter()
    subprocess.run(
        (
            sys.executable,
            "-c",
            COLD,
            name,
            str(image_size),
            str(file),
            str(torch.get_num_threads()),
        ),
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begin
