"""How fast fieldguide's images are drawn, and pairs that differ in one attribute:
images or pairs a second, wall clock and processor time.

    python benchmarks/render.py                       # 96 px, 2 threads
    python benchmarks/render.py --pairs --threads 1   # 72 px

(--device cuda on a GPU.) Of pairs each scene is drawn as it is, and with each of both
attributes changed that tell its species from a sibling.

Wanted: at least 150 images a second at 96 pixels on 2 cores; 500 pairs a second of
processor time at 72.
"""

import argparse
import time

import common
import torch

from fgbook.data import counterfactual, fieldguide, scenery, species

WANTED = 150  # images a second
PAIRS = 500  # pairs a second of one core


def main() -> None:
    parser = common.on_device(__doc__, threads=2)
    parser.add_argument("--pairs", action="store_true", help="pairs, not images")
    parser.add_argument("--size", type=int, help="pixels (default: 96; of pairs 72)")
    parser.add_argument(
        "--images", type=int, default=256, help="images a call (default: 256)"
    )
    chosen, device = common.options(parser)
    chosen.size = chosen.size or (72 if chosen.pairs else 96)
    if chosen.pairs:
        pairs(chosen, device)
    else:
        images(chosen, device)


def pairs(chosen: argparse.Namespace, device: torch.device) -> None:
    """Pairs a second."""
    table = species.table("target", 20)
    index = torch.arange(chosen.images // 2)
    label = index % 20
    birds = table.of(label)
    edited = []
    for which in (0, 1):
        values = birds.values.clone()
        place = [species.ATTRIBUTES.index(name) for name in species.LOCAL]
        told = torch.tensor(place)[birds.differ[:, which]][:, None]
        other = table.values[counterfactual.sibling(label, which)]
        edited.append(values.scatter(1, told, other.gather(1, told)))
    values = torch.stack([birds.values, *edited], 1).to(device)
    birds = species.Species(*(v.to(device) for v in birds))
    scene = scenery.Scene(fieldguide.keys(0, "target", "test", index.to(device)))
    work = []

    def draw() -> None:
        begin = time.process_time()
        counterfactual.drawn(scene, birds, values, chosen.size)
        common.wait(device)
        work.append(time.process_time() - begin)

    report = common.Report(
        "pairs",
        "Drawing pairs of fieldguide's images",
        chosen.device,
        ["size", "pairs/s", "ms of processor time a pair"],
        now=time.perf_counter,
        images=chosen.images,
    )
    count = 2 * len(index)
    (wall,) = common.turns([draw], device, chosen.seconds, now=time.perf_counter)
    timed = work[-len(wall) :]  # the first ones warm up
    report.row(
        f"{chosen.size} px",
        common.median([count / seconds for seconds in wall]),
        1e3 * common.median(timed) / count,
    )
    rates = [count / seconds for seconds in timed]
    report.ratio(
        f"pairs a second of processor time over {PAIRS}",
        *common.ratio(rates, [PAIRS] * len(rates)),
        wanted=">= 1" if chosen.size == 72 else "",
    )
    report.finish(chosen.save)


def images(chosen: argparse.Namespace, device: torch.device) -> None:
    """Images a second."""
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
