"""Images a second that reach the network: stored once and augmented in batches, or
decoded from files in every epoch as is usual.

    python benchmarks/input.py                  # 2 threads here, 2 workers there

(--device cuda on a GPU.) Ours is fgbook.data.load (decoded once into a memory-mapped
uint8 array) and fgbook.images.augment. Theirs is torchvision's ImageFolder, a
DataLoader with as many workers, and transforms.v2 on uint8 tensors, the faster of its
two ways. Both give the same kind of batch: random crops and flips of the same
photographs, float32 in [0, 1], channels_last, on the device. Files and store are in the
page cache. Needs photographs (FGBOOK_DATA). Wanted: ours at least 5 times as fast on 2
cores. "ms" is processor time an image, ours on one thread, theirs summed over
processes: a busy machine disturbs it least. The larger the pictures (their median size
is printed), the longer decoding takes, and the larger the ratio.
"""

import time

import common
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fgbook import data
from fgbook.images.augment import augment
from fgbook.recipe import Recipe


def stored(
    images: torch.Tensor,
    index: torch.Tensor,
    recipe: Recipe,
    batch: int,
    device: torch.device,
):
    """A pass over the images at `index`, as training makes it: uint8 on the device if
    it is a GPU.
    """
    if device.type == "cuda":
        images, index = images.to(device), index.to(device)
    epoch = iter(range(10**9))

    def run() -> None:
        number = next(epoch)
        for places in index.split(batch):
            augment(images[places], places, recipe, 0, number).contiguous(
                memory_format=torch.channels_last
            )

    return run


def decoded(
    folder: str,
    index: torch.Tensor,
    transforms: list,
    batch: int,
    workers: int,
    device: torch.device,
):
    """A pass over as many picture files with worker processes, which stay alive between
    passes.
    """
    pictures = Subset(ImageFolder(folder, v2.Compose(transforms)), index.tolist())
    pinned = device.type == "cuda"
    loader = DataLoader(
        pictures,
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=pinned,
    )

    def run() -> None:
        for images, _ in loader:
            images.to(device, non_blocking=pinned, memory_format=torch.channels_last)

    return run, loader


def work(function, spent: list[float], threads: int | None = None):
    """`function`, noting the processor seconds that this process spends on it; with so
    many threads only, where given.
    """

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
        torch.set_num_threads(before)

    return run


def median_size(files: list) -> str:
    """Of pictures in files: "500 x 375 px"."""
    sizes = [Image.open(file).size for file in files]
    widths, heights = zip(*sizes, strict=True)
    return f"{common.median(widths):.0f} x {common.median(heights):.0f} px"


def main() -> None:
    parser = common.on_device(__doc__, threads=2)
    parser.add_argument(
        "--data",
        default="cub50",
        help="a data set with class folders of pictures (default: cub50)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        help="pixels of what the network sees (default: 224)",
    )
    parser.add_argument(
        "--store",
        type=int,
        default=256,
        help="pixels of what is stored, and of the Resize (default: 256)",
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--images", type=int, default=384, help="images a pass (default: 384)"
    )
    chosen, device = common.options(parser)
    photos = data.load(chosen.data, chosen.store).split("train+val")
    count = min(chosen.images, len(photos))
    index = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[
        :count
    ]
    recipe = Recipe(image_size=chosen.size, store_size=chosen.store)
    size, resize = chosen.size, v2.Resize((chosen.store, chosen.store))
    zoom = v2.RandomResizedCrop(size, scale=(0.25, 1))
    to_float = [v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    lines = {  # what is done -> our recipe, their transforms
        f"crop of {size} from {chosen.store}": (
            recipe,
            [v2.ToImage(), resize, v2.RandomCrop(size), *to_float],
        ),
        f"zoomed crop of {size}": (
            recipe.but(crop_scale=0.5),
            [v2.ToImage(), zoom, *to_float],
        ),
        f"zoomed crop of {size} from {chosen.store}": (
            recipe.but(crop_scale=0.5),
            [v2.ToImage(), resize, zoom, *to_float],
        ),
    }
    report = common.Report(
        "input",
        "Images a second that reach the network: stored and augmented, or decoded from"
        " files",
        chosen.device,
        [
            "augmentation",
            "stored/s",
            "files/s",
            "ratio",
            "stored ms",
            "files ms",
            "ratio of processor time",
        ],
        pictures=median_size(
            [data.path(chosen.data) / photos.files[i] for i in index[:100]]
        ),
        data=chosen.data.partition(":")[0],
        size=size,
        store=chosen.store,
        batch=chosen.batch,
        images=count,
        workers=chosen.threads,
        now=time.perf_counter,
    )
    for name, (ours, theirs) in lines.items():
        ready = stored(photos.images, index, ours, chosen.batch, device)
        usual, loader = decoded(
            str(data.path(chosen.data)),
            index,
            theirs,
            chosen.batch,
            chosen.threads,
            device,
        )
        before = common.children()
        mine: list[float] = []
        main_process: list[float] = []
        turns = [ready, work(usual, main_process), work(ready, mine, threads=1)]
        stored_times, file_times, _ = common.turns(
            turns, device, chosen.seconds, now=time.perf_counter
        )
        # waits for the workers: only then their processor time is known
        loader._iterator._shutdown_workers()
        per_pass = (common.children() - before + sum(main_process)) / len(main_process)
        found = common.ratio(file_times, stored_times)
        per_thread = common.median(mine)
        report.row(
            name,
            count / common.median(stored_times),
            count / common.median(file_times),
            found[0],
            1e3 * per_thread / count,
            1e3 * per_pass / count,
            per_pass / per_thread,
        )
        report.ratio(
            f"{name}: images a second from the store over from files",
            *found,
            wanted=">= 5",
        )
        report.ratio(
            f"{name}: processor time from files over from the store",
            per_pass / per_thread,
        )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
