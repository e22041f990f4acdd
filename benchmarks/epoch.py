"""The plain row from picture files to its accuracy: by fgbook, and as is usual.

    python benchmarks/epoch.py                  # cub50, EfficientNet-Lite0, 1 thread

Every way starts from the same pretrained weights and picture files, trains some epochs
with the same optimiser, rates, crops and flips, and classifies the test pictures once.
"s an epoch" is the time of all of it, divided by the epochs. Ours decodes every file
once, into a store that is made anew each time, and writes checkpoint, log and weights
as always. "torchvision" is how its reference scripts do it (references/classification:
PIL transforms picture by picture, loss and accuracies read after every step), "timm"
how its train.py does it (batches of uint8 that are normalised as a whole, losses read
now and then). Both decode each file in every epoch and keep images in PyTorch's own
order of memory; "all layers" also trains what the photo profile freezes, which is what
these scripts do unasked. Each way runs in a process of its own, so that none profits
from what another has set (ours tells the process to keep its memory). Files are read in
that process, so that the processor time of reading is seen; worker processes would do
the same work beside. Needs photographs (FGBOOK_DATA) and the backbone's weights.
Wanted: theirs at least 1.5 times ours. "right" is how many test pictures each way has
right in the end.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fgbook import backbones, data
from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.papers.feng import PLAIN
from fgbook.recipe import Recipe
from fgbook.training import loop

EVERY = 50  # steps, after which timm's script reads a loss


# ---- the pictures


def chosen_files(name: str, classes: int, train: int, test: int, top: Path) -> str:
    """Links to some pictures of a data set, in folders for train and test and in these
    for each class; the data set's name of it.
    """
    photos = data._photos(name)
    for label in range(classes):
        for part, count in (("train", train), ("test", test)):
            of_part = (photos.labels == label) & (photos.splits == part)
            folder = top / part / f"{label:03d}"
            folder.mkdir(parents=True)
            for place in np.flatnonzero(of_part)[:count]:
                file = photos.root / photos.files[place]
                (folder / file.name).symlink_to(file)
    return f"folder:{top}"


class Files(Dataset):
    """Pictures in class folders, decoded whenever they are asked for."""

    def __init__(self, folder: Path, transform: Callable):
        self.files = sorted(folder.glob("*/*"))
        self.transform = transform
        names = sorted({file.parent.name for file in self.files})
        self.labels = [names.index(file.parent.name) for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int):
        with Image.open(self.files[place]) as picture:
            return self.transform(picture.convert("RGB")), self.labels[place]


# ---- ours


def ours(name: str, recipe: Recipe) -> Callable[[], int]:
    """All of it, as a function that gives the number of test pictures that are
    right.
    """

    def run() -> int:
        with tempfile.TemporaryDirectory() as place:
            os.environ["FGBOOK_RUNS"] = place
            found = data.load(name, recipe.store_size)
            torch.manual_seed(0)
            model = build("plain", found.num_classes, recipe, {})
            loop.fit(model, found, recipe, Path(place) / "run", progress=False)
            said = loop.predict(model, found.test, recipe).argmax(1)
            return int((said == found.test.labels).sum())

    return run


# ---- the usual ways


class Network(nn.Module):
    """The same network for images that are normalised already."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, C)."""
        backbone = self.model.backbone
        maps = backbone.features(backbone.network, images)[-1]  # the last ones
        return self.model.image_head(maps.mean((2, 3)))


def network(classes: int, recipe: Recipe, all_layers: bool) -> Network:
    torch.manual_seed(0)
    if all_layers:
        recipe = recipe.but(batchnorm="batch", frozen_stages=0)
    model = build("plain", classes, recipe, {})
    backbones.freeze_stages(model, recipe.frozen_stages)
    return Network(model)


def optimiser_of(model: Network, recipe: Recipe, steps: int):
    """AdamW with two rates, and its one-cycle schedule."""
    of_backbone = model.model.backbone
    rates = [recipe.lr * recipe.backbone_lr_factor, recipe.lr]
    parts = (of_backbone.parameters(), model.model.image_head.parameters())
    groups = []
    for part, rate in zip(parts, rates, strict=True):
        learning = [p for p in part if p.requires_grad]
        groups.append({"params": learning, "lr": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps)
    return optimiser, schedule


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(1) == targets).sum()


def usual(
    top: Path, classes: int, recipe: Recipe, style: str, all_layers: bool = False
) -> Callable[[], int]:
    """The same by one of the two scripts: style "torchvision" or "timm"."""
    read_often = style == "torchvision"
    size, batch = recipe.image_size, recipe.batch_size
    backbone = backbones.create(recipe.backbone, "none")
    mean, std = backbone.mean, backbone.std  # (3, 1, 1), of the pretraining
    last: list = [transforms.PILToTensor()]
    if read_often:
        last.append(transforms.ConvertImageDtype(torch.float32))
        last.append(
            transforms.Normalize(mean.flatten().tolist(), std.flatten().tolist())
        )
    zoom = transforms.RandomResizedCrop(size, scale=(recipe.crop_scale**2, 1.0))
    squash = transforms.Resize((recipe.store_size,) * 2)
    train = Files(
        top / "train",
        transforms.Compose([zoom, transforms.RandomHorizontalFlip(), *last]),
    )
    test = Files(
        top / "test",
        transforms.Compose([squash, transforms.CenterCrop(size), *last]),
    )

    def batches(files: Files, shuffle: bool) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in DataLoader(files, batch, shuffle):
            if not read_often:
                images = images.float().sub_(255 * mean).div_(255 * std)
            yield images, targets

    def run() -> int:
        model = network(classes, recipe, all_layers)
        an_epoch = -(-len(train) // batch)
        optimiser, schedule = optimiser_of(model, recipe, recipe.epochs * an_epoch)
        read = 0.0
        for _ in range(recipe.epochs):
            model.train()
            for step, (images, targets) in enumerate(batches(train, True)):
                logits = model(images)
                loss = F.cross_entropy(
                    logits, targets, label_smoothing=recipe.label_smoothing
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                if read_often:
                    read += hits(logits, targets).item()
                if read_often or step % EVERY == 0:
                    read += loss.item()
        model.eval()
        right = 0
        with torch.inference_mode():
            for images, targets in batches(test, False):
                right += hits(model(images), targets).item()
        return int(right)

    return run


def main() -> None:
    parser = common.on_device(__doc__, seconds=0)
    parser.add_argument(
        "--data", default="cub50", help="a data set of photographs (default: cub50)"
    )
    parser.add_argument("--backbone", help="default: the photo profile's")
    parser.add_argument("--classes", type=int, default=8, help="default: 8")
    parser.add_argument("--train", type=int, default=8, help="a class (default: 8)")
    parser.add_argument("--test", type=int, default=8, help="a class (default: 8)")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--size", type=int, help="pixels (default: the profile's)")
    chosen, device = common.options(parser)
    if device.type != "cpu":
        raise InputError("this benchmark measures on the CPU; leave out --device.")
    recipe = PLAIN["photo"].but(epochs=chosen.epochs)
    if chosen.size:
        recipe = recipe.but(
            image_size=chosen.size, store_size=round(chosen.size * 224 / 193)
        )
    if chosen.backbone:
        recipe = recipe.but(backbone=chosen.backbone)
    total = chosen.classes * chosen.test
    report = common.Report(
        "epoch",
        "The plain row, from files to its accuracy: ours, and as it is usually done",
        chosen.device,
        ["way", "s an epoch", "ratio", f"right of {total}"],
        backbone=recipe.backbone,
        size=recipe.image_size,
        train=chosen.classes * chosen.train,
        test=total,
        epochs=chosen.epochs,
        data=chosen.data.partition(":")[0],
    )
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        wanted = (chosen.data, chosen.classes, chosen.train, chosen.test)
        name = chosen_files(*wanted, top)
        about = (top, chosen.classes, recipe)
        ways = {
            "fgbook": partial(ours, name, recipe),
            "torchvision": partial(usual, *about, "torchvision"),
            "timm": partial(usual, *about, "timm"),
            "torchvision, all layers": partial(usual, *about, "torchvision", True),
            "timm, all layers": partial(usual, *about, "timm", True),
        }
        times, right = common.turns_apart(list(ways.values()), chosen.seconds, 2)
    for way, taken, of_test in zip(ways, times, right, strict=True):
        found = common.ratio(taken, times[0])
        seconds = common.median(taken) / chosen.epochs
        report.row(way, seconds, found[0], of_test)
        if way != "fgbook":
            report.ratio(f"{way}: time over ours", *found, wanted=">= 1.5")
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
