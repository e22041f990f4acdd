"""How fast fieldguide's images are drawn: images a second at 96 pixels, wall clock and processor time.

    python benchmarks/render.py [--size 96] [--images 256] [--threads 2] [--device cpu]

Wanted: at least 150 images a second at 96 pixels on 2 cores. The last line is the ratio of the measured rate to that.
"""

import argparse
import time

import torch

from fgbook.data import fieldguide, species

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--images", type=int, default=256)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--device", default="cpu")
parser.add_argument("--repeats", type=int, default=3)
options = parser.parse_args()

torch.set_num_threads(options.threads)
table = species.table("target", 20)
index = torch.arange(options.images, device=options.device)
values, siblings, differ = (v.to(options.device)[index % 20] for v in (table.values, table.siblings, table.differ))
key = fieldguide.keys(0, "target", "train", index)


def draw() -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    drawing = fieldguide.render(values, siblings, differ, key, options.size)
    drawing.images.sum().item()  # waits for a GPU
    return time.perf_counter() - wall, time.process_time() - processor


draw()
runs = [draw() for _ in range(options.repeats)]
wall, processor = min(run[0] for run in runs), min(run[1] for run in runs)
rate = options.images / wall
print(f"{options.images} images of {options.size} px on {options.device}, {options.threads} threads, best of {options.repeats}")
print(f"{rate:.0f} images/s ({1000 * processor / options.images:.1f} ms of processor time an image)")
print(f"ratio to 150 images/s: {rate / 150:.2f}")
