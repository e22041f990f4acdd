"""How long it takes from a picture's file to its prediction, stage by stage. For
figures and for claims about speed.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import store
from ..methods import Transfer

STAGES = ("decode", "preprocess", "network", "classifier")


@dataclass(frozen=True)
class Latency:
    """Measured times of one network and batch size on one machine, in seconds for the
    whole batch.
    """

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
        low, high = np.percentile(values, 10), np.percentile(values, 90)
        return float(np.median(values)), float(low), float(high)


@torch.inference_mode()
def measure(
    model: Transfer,
    files: list[Path],
    image_size: int,
    *,
    batch: int = 1,
    repeats: int = 20,
    warm_up: int = 3,
    device: str = "cpu",
) -> Latency:
    """Time a backbone with a head on pictures' files.

    Stages: "decode", from the file to image_size pixels square, by one thread;
    "preprocess", to a float tensor in [0, 1] on the device; "network", the backbone;
    "classifier", its head, softmax, and the class numbers back on the host. Repeats
    take one file after the other, from the start again after the last. The first
    `warm_up` are not counted. On a GPU every stage waits for the device to finish,
    which the total therefore includes: times of a pipeline that overlaps stages would
    be shorter. Leaves the network on the device, in eval mode.
    """
    place = torch.device(device)
    model.eval().to(place).to(memory_format=torch.channels_last)

    spans = []  # (repeats, stages)
    for repeat in range(warm_up + repeats):
        first = repeat * batch
        chosen = [files[(first + i) % len(files)] for i in range(batch)]
        ticks = _predict(model, chosen, image_size, place)
        if repeat >= warm_up:
            spans.append(np.diff(ticks))

    by_stage = np.array(spans).reshape(-1, len(STAGES))
    seconds = {stage: by_stage[:, i] for i, stage in enumerate(STAGES)}
    seconds["total"] = by_stage.sum(1)
    return Latency(
        name=model.backbone.name,
        image_size=image_size,
        batch=batch,
        seconds=seconds,
        threads=torch.get_num_threads(),
        device=str(place),
    )


def _predict(
    model: Transfer, files: list[Path], image_size: int, device: torch.device
) -> list[float]:
    """Predict the classes of pictures: the time before, and after each of STAGES."""
    ticks = [time.perf_counter()]

    pixels = np.stack([store.decode(file, image_size)[0] for file in files])
    ticks.append(_now(device))

    images = preprocess(pixels, device)
    ticks.append(_now(device))

    maps = model.backbone(images)
    ticks.append(_now(device))

    model.head.predict(maps).softmax(1).argmax(1).cpu()
    ticks.append(_now(device))
    return ticks


def _now(device: torch.device) -> float:
    """The time at which the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def preprocess(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Decoded pictures (B, 3, S, S) uint8 -> (B, 3, S, S) float32 in [0, 1] on the
    device, channels last.
    """
    images = torch.from_numpy(pixels).to(device)  # as bytes: a quarter of the way
    images = images.contiguous(memory_format=torch.channels_last)
    return images.float().div_(255)


# Arguments: backbone, image size, file, threads.
COLD = """
import sys
import torch
from fgbook import backbones
from fgbook.evaluation import latency
from fgbook.methods import Transfer

name, size, file, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
backbone = backbones.create(name, "none")
model = Transfer(backbone, 21, image_size=int(size))
latency.measure(model, [file], int(size), repeats=1, warm_up=0)
"""


def cold_start(name: str, file: Path, image_size: int) -> float:
    """Seconds from starting a new Python process to its first prediction, on the CPU:
    imports, making the network (random weights), one picture.

    Raises CalledProcessError when that process fails.
    """
    threads = torch.get_num_threads()
    arguments = (name, str(image_size), str(file), str(threads))
    begin = time.perf_counter()
    subprocess.run(
        (sys.executable, "-c", COLD, *arguments), check=True, capture_output=True
    )
    return time.perf_counter() - begin
