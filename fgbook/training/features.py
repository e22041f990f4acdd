"""Features that do not change are computed once: a frozen backbone's maps of every
image of a data set, kept and memory-mapped.

The paper that works in this way (Golodov et al. 2018) calls them bottleneck features.
An epoch of the classifier then costs what reading the maps costs: the backbone runs
once for a data set, whatever the number of rows, epochs and seeds.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data import store
from ..data.dataset import SPLITS, DataSet
from ..errors import InputError
from ..images.augment import centre
from ..recipe import Recipe
from . import devices

VERSION = 1  # raise it when the same backbone and images give other features
# images through the backbone at a time; the result does not depend on it, up to
# rounding
BATCH = 64


def cached(
    backbone: nn.Module,
    dataset: DataSet,
    recipe: Recipe,
    weights_id: str,
    device: str | torch.device | None = None,
) -> DataSet:
    """`dataset` with feature maps in place of pictures: each split's `images` are (N,
    V, n, h, w) float16, memory-mapped.

    The maps are what `backbone` makes of the centre of each picture, recipe.image_size
    pixels square, in evaluation mode and float32; float16 keeps them to within 0.05 %
    of each value (2^-11). V = 1, or, with recipe.flip, 2: the mirrored picture's maps
    second. Labels, names and ground truth (in pixels of the pictures) stay as they are.

    Kept in ``paths.store()`` under data set, size and backbone; made again when the
    data's fingerprint or `weights_id` (from ``backbones.weights_id``; "none": random
    weights, which the values themselves identify) changes, or a file is damaged. Of
    several processes one computes and the others wait. Memory stays at one batch.
    Raises InputError for features beyond float16's range (65504) or not finite, and for
    a folder that cannot be written.
    """
    check(recipe)
    views = 2 if recipe.flip else 1
    if weights_id == "none":
        weights, short = _digest(backbone), "none"
    else:
        # for the folder's name: the file's name without what the backbone says anyway
        weights, short = weights_id, weights_id.split(" ")[0]
        short = short.removesuffix(".safetensors").removeprefix(f"{recipe.backbone}-")

    # what the features depend on, and where they are kept
    reader = getattr(backbone, "name", recipe.backbone)
    about = {
        "version": VERSION,
        "data": dataset.fingerprint,
        "stored": dataset.size,
        "image": recipe.image_size,
        "views": views,
        "backbone": reader,
        "weights": weights,
    }
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    sizes = f"{dataset.size}-{recipe.image_size}-{views}"
    name = f"features-{dataset.name}-{sizes}-{reader}-{short}"

    splits = {split: dataset.split(split) for split in SPLITS}
    pictures = [split.images for split in splits.values()]

    def write(target: Path) -> None:
        said = f"features of {dataset.name}"
        batches = _batches(backbone, pictures, recipe.image_size, views, device)
        _write(target / "maps.npy", batches, sum(map(len, pictures)), said)

    maps = torch.from_numpy(store.entry(name, fingerprint, write)["maps"])
    parts = maps.split([len(images) for images in pictures])
    found = {}
    for split, part in zip(SPLITS, parts, strict=True):
        found[split] = replace(splits[split], images=part)
    train, val, test = (found[split] for split in SPLITS)
    return replace(dataset, train=train, val=val, test=test)


def check(recipe: Recipe) -> None:
    """Raise InputError for a recipe that features of whole pictures cannot serve: there
    are none of pictures at low resolution.
    """
    for name in ("resolution", "low_side"):
        value = getattr(recipe, name)
        if value not in ("high", 0):
            raise InputError(
                f"recipe: {name} is {value!r}, but features of a frozen backbone are"
                " computed once, at high resolution; leave it off, or choose a row"
                " whose backbone is trained."
            )


def _batches(
    backbone: nn.Module,
    pictures: list[Tensor],
    image_size: int,
    views: int,
    device: str | torch.device | None,
) -> Iterator[Tensor]:
    """Features of all splits' pictures, a batch (B, views, n, h, w) at a time."""
    for images in pictures:
        for index in torch.arange(len(images)).split(BATCH):
            maps = compute(backbone, images[index], image_size, views, device)
            if not maps.isfinite().all():
                name = getattr(backbone, "name", type(backbone).__name__)
                raise InputError(
                    f"features of {name} are not finite in float16; normalise its last"
                    " layer, or train it end to end."
                )
            yield maps


def _write(path: Path, batches: Iterator[Tensor], total: int, said: str) -> None:
    """Write batches of features, `total` pictures together, as one .npy file. Only the
    first batch tells their shape, so the header is written then.
    """
    from tqdm.auto import tqdm

    bar = tqdm(
        total=total,
        desc=said,
        unit="image",
        leave=False,
        mininterval=1,
        disable=total < 500,
    )
    with open(path, "wb") as file, bar:
        for maps in batches:
            if file.tell() == 0:
                header = {
                    "descr": "<f2",
                    "fortran_order": False,
                    "shape": (total, *maps.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(maps.numpy().data)
            bar.update(len(maps))


@torch.no_grad()
def compute(
    backbone: nn.Module,
    images: Tensor,
    image_size: int,
    views: int = 1,
    device: str | torch.device | None = None,
) -> Tensor:
    """Feature maps of one batch of pictures (B, 3, S, S) uint8 -> (B, views, n, h, w)
    float16 on the CPU; leaves `backbone` in eval mode on the device.
    """
    place = torch.device(device or devices.default_device())
    devices.move(backbone.eval(), place)
    seen = centre(images.to(place), image_size)
    seen = seen.contiguous(memory_format=torch.channels_last)
    found = [backbone(seen).half()]
    if views == 2:
        found.append(backbone(seen.flip(-1)).half())
    return torch.stack(found, 1).cpu().contiguous()


def _digest(backbone: nn.Module) -> str:
    """A hash of all weights and running statistics."""
    digest = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
