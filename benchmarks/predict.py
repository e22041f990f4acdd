"""Pictures a second that `fgbook predict` names, against the usual inference script on
the same files and network.

    python benchmarks/predict.py                 # 2 threads and 2 workers on the CPU

Ours is what the command does between start-up and its table: files in, names and
probabilities out, decoded by threads while the network looks at the batch before.
Theirs is written as timm's inference script is: torchvision's ImageFolder behind a
DataLoader with worker processes that stay alive, Resize, CenterCrop and ToTensor, then
the network, softmax and the best five; once in the plain memory layout, as such scripts
run by default, and once in channels_last. Network: the plain method on
EfficientNet-Lite0, random weights, float32. Files are in the page cache. "sorted alike"
is the share of pictures with the same first name, of ours and of theirs: the two ways
resize a little differently. Needs photographs (FGBOOK_DATA). Wanted: 1.5 times as many
pictures on 2 cores.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import common
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from fgbook import paths
from fgbook.cli import predict
from fgbook.errors import InputError
from fgbook.methods import Method, build
from fgbook.recipe import Recipe

RECIPE = Recipe(
    backbone="timm:tf_efficientnet_lite0",
    weights="none",
    image_size=193,
    store_size=225,
)
CLASSES = 50
TOP = 5
THEIR_BATCH = 256  # timm's default


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


def ours(namer: predict.Namer, files: list[Path]) -> list[str]:
    """The first name of each picture."""
    found = []
    for answer in predict.answers(namer, files, TOP, quiet=True):
        if isinstance(answer, InputError):
            raise answer
        found.append(answer.top[0][0])
    return found


def theirs(model: Method, loader: DataLoader, layout: torch.memory_format) -> list[str]:
    """The same, as inference scripts do it."""
    model.to(memory_format=layout)
    best = []
    with torch.inference_mode():
        for images, _ in loader:
            shares = model.predict(images.contiguous(memory_format=layout)).softmax(1)
            best.append(shares.topk(TOP).indices[:, 0])
    return [str(place) for place in torch.cat(best).tolist()]


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
    with tempfile.TemporaryDirectory() as folder:
        files = pictures(chosen.data, chosen.images, Path(folder))
        side = (RECIPE.store_size, RECIPE.store_size)
        seen = transforms.Compose(
            [
                transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(RECIPE.image_size),
                transforms.ToTensor(),
            ]
        )
        loader = DataLoader(
            ImageFolder(folder, seen),
            THEIR_BATCH,
            num_workers=chosen.threads,
            persistent_workers=True,
        )
        model = network()
        namer = predict.of_model(model, RECIPE, [str(i) for i in range(CLASSES)])
        ways = {
            "fgbook predict": partial(ours, namer, files),
            "script": partial(theirs, model, loader, torch.contiguous_format),
            "script, channels_last": partial(
                theirs, model, loader, torch.channels_last
            ),
        }
        names = {way: run() for way, run in ways.items()}
        model.to(memory_format=torch.channels_last)
        times = common.turns(list(ways.values()), device, chosen.seconds)

    for way, taken in zip(ways, times, strict=True):
        alike = [
            a == b for a, b in zip(names[way], names["fgbook predict"], strict=True)
        ]
        report.row(
            way, len(files) / common.median(taken), 100 * sum(alike) / len(alike)
        )
    for (way, wanted), taken in zip(
        (("script", ">= 1.5"), ("script, channels_last", "")), times[1:], strict=True
    ):
        report.ratio(
            f"against the {way}", *common.ratio(taken, times[0]), wanted=wanted
        )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
