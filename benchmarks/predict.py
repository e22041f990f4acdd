"""Pictures a second that `fgbook predict` names, against the usual inference script on
the same files and network.

    python benchmarks/predict.py                 # 2 threads and 2 workers on the CPU

Ours is what the command does between start-up and its table: files in, names and
probabilities out, decoded by threads (or, with `--workers`, by as many processes)
while the network looks at the batch before.
Theirs is written as timm's inference script is: torchvision's ImageFolder behind a
DataLoader with worker processes that stay alive, Resize, CenterCrop and ToTensor, then
the network, softmax and the best five; in the plain memory layout, as such scripts run
by default, in channels_last, and in channels_last with the process told to keep its
memory, which is what `fgbook predict` does on a CPU. Each way runs in a process of its
own, so that none has what another has set. Network: the plain method on
EfficientNet-Lite0, random weights, float32. Files are in the page cache. "sorted alike"
is the share of pictures with the same first name, of ours and of theirs: the two ways
resize a little differently. Why ours decodes in threads is measured as well: the same
files, decoded alone by threads and by as many processes that run already. Needs
photographs (FGBOOK_DATA). Wanted: 1.5 times as many pictures on 2 cores.
"""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import common
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from fgbook import paths
from fgbook.cli import predict
from fgbook.data import store
from fgbook.errors import InputError
from fgbook.methods import Method, build
from fgbook.recipe import Recipe
from fgbook.training import devices

RECIPE = Recipe(
    backbone="timm:tf_efficientnet_lite0",
    weights="none",
    image_size=193,
    store_size=225,
)
CLASSES = 50
TOP = 5
THEIR_BATCH = 256  # timm's default

OURS = "fgbook predict"
PROCESSES = "fgbook predict --workers"
SCRIPT = "script"
LAST = ", channels_last"
KEPT = ", memory kept"
WAYS = (OURS, PROCESSES, SCRIPT, SCRIPT + LAST, SCRIPT + LAST + KEPT)


def network() -> Method:
    """A plain model with random weights."""
    torch.manual_seed(0)
    model = build("plain", CLASSES, RECIPE, {})
    side = RECIPE.image_size
    return common.settle(model, torch.rand(16, 3, side, side))


def pictures(dataset: str, count: int, folder: Path) -> list[Path]:
    """Copies of the first pictures of a data set, in the class folders that ImageFolder
    wants.
    """
    source = paths.data() / dataset
    found = sorted(source.rglob("*.jpg"))[:count]
    if not found:
        raise InputError(f"{source}: there is no picture in this folder.")
    copies = []
    for file in found:
        copy = folder / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        copies.append(copy)
    return copies


def ours(namer: predict.Namer, files: list[Path], workers: int) -> list[str]:
    """The first name of each picture."""
    found = []
    for answer in predict.answers(namer, files, TOP, workers, quiet=True):
        if isinstance(answer, InputError):
            raise answer
        found.append(answer.top[0][0])
    return found


def theirs(model: Method, loader: DataLoader, layout: torch.memory_format) -> list[str]:
    """The same, as inference scripts do it."""
    best = []
    with torch.inference_mode():
        for images, _ in loader:
            shares = model.predict(images.contiguous(memory_format=layout)).softmax(1)
            best.append(shares.topk(TOP).indices[:, 0])
    return [str(place) for place in torch.cat(best).tolist()]


def script(folder: Path, threads: int) -> DataLoader:
    """The pictures in a folder, as inference scripts read them."""
    side = (RECIPE.store_size, RECIPE.store_size)
    seen = transforms.Compose(
        [
            transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(RECIPE.image_size),
            transforms.ToTensor(),
        ]
    )
    return DataLoader(
        ImageFolder(folder, seen),
        THEIR_BATCH,
        num_workers=threads,
        persistent_workers=True,
    )


def ready(way: str, folder: Path, files: list[Path], threads: int) -> Callable:
    """One way of naming the pictures, in the process in which it is called."""
    model = network()
    if way in (OURS, PROCESSES):
        names = [str(place) for place in range(CLASSES)]
        workers = threads if way == PROCESSES else 0
        return partial(ours, predict.of_model(model, RECIPE, names), files, workers)
    layout = torch.channels_last if LAST in way else torch.contiguous_format
    if KEPT in way:
        devices.keep_memory()
    model.to(memory_format=layout)
    return partial(theirs, model, script(folder, threads), layout)


def decoded(pool: Executor, files: list[Path]) -> None:
    """All files decoded, and thrown away."""
    read = partial(store.decode, size=RECIPE.store_size)
    for _ in pool.map(read, files, chunksize=8):
        pass


def main() -> None:
    parser = common.on_device(__doc__, threads=2, seconds=30.0)
    parser.add_argument(
        "--data", default="cub50", help="a data set of JPEGs (default: cub50)"
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="pictures (default: 1000)"
    )
    chosen, device = common.options(parser)
    if device.type != "cpu":
        raise InputError("this benchmark measures on the CPU; leave out --device.")
    report = common.Report(
        "predict",
        "Naming pictures in files: fgbook predict and the usual inference script",
        chosen.device,
        ["way", "images/s", "sorted alike, %"],
        images=chosen.images,
        data=chosen.data,
        precision="float32",
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = pictures(chosen.data, chosen.images, folder)
        about = (folder, files, chosen.threads)
        makes = [partial(ready, way, *about) for way in WAYS]
        times, names = common.turns_apart(makes, chosen.seconds)
        with (
            ThreadPoolExecutor(chosen.threads) as threads,
            ProcessPoolExecutor(chosen.threads, common.SPAWN) as processes,
        ):
            pools = {"threads": threads, "processes": processes}
            only = [partial(decoded, pool, files) for pool in pools.values()]
            alone = common.turns(only, device, chosen.seconds)

    for way, taken, named in zip(WAYS, times, names, strict=True):
        alike = [a == b for a, b in zip(named, names[0], strict=True)]
        speed = len(files) / common.median(taken)
        report.row(way, speed, 100 * sum(alike) / len(alike))
    for pool, taken in zip(pools, alone, strict=True):
        report.row(f"decoding alone, {pool}", len(files) / common.median(taken), None)
    for way, taken in zip(WAYS[1:], times[1:], strict=True):
        wanted = ">= 1.5" if way == SCRIPT else ""
        report.ratio(
            f"against the {way}", *common.ratio(taken, times[0]), wanted=wanted
        )
    report.ratio("decoding: threads against processes", *common.ratio(*alone[::-1]))
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
