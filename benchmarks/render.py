"""How fast fieldguide's images are drawn: images a second, wall clock and processor
time.

    python benchmarks/render.py                 # 96 px, 2 threads

(--device cuda on a GPU.)

Wanted: at least 150 images a second at 96 pixels on 2 cores.
"""

import time

import common
import torch

from fgbook.data import fieldguide, scenery, species

WANTED = 150  # images a second


def main() -> None:
    parser = common.on_device(__doc__, threads=2)
    parser.add_argument("--size", type=int, default=96, help="pixels (default: 96)")
    parser.add_argument(
        "--images", type=int, default=256, help="images a call (default: 256)"
    )
    chosen, device = common.options(parser)
    table = species.table("target", 20)
    index = torch.arange(chosen.images, device=device)
    birds = species.Species(*(v.to(device) for v in table.of(index.cpu() % 20)))
    scene = scenery.Scene(fieldguide.keys(0, "target", "train", index))
    work = []

    def draw() -> None:
        begin = time.process_time()
        fieldguide.render(scene, birds, chosen.size)
        common.wait(device)
        work.append(time.process_time() - begin)

    report = common.Report(
        "render",
        "Drawing fieldguide's images",
        chosen.device,
        ["size", "images/s", "ms of processor time an image"],
        now=time.perf_counter,
        images=chosen.images,
    )
    (wall,) = common.turns([draw], device, chosen.seconds, now=time.perf_counter)
    rates = [chosen.images / seconds for seconds in wall]
    report.row(
        f"{chosen.size} px",
        common.median(rates),
        1e3 * common.median(work) / chosen.images,
    )
    report.ratio(
        f"images a second over {WANTED}",
        *common.ratio(rates, [WANTED] * len(rates)),
        wanted=">= 1" if chosen.size == 96 else "",
    )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
