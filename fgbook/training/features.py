"""Features that do not change are computed once: a frozen backbone's maps of every
image of a data set, kept and memory-mapped.

The paper that works in this way (Golodov et al. 2018) calls them bottleneck features.
An epoch of the classifier then costs what reading the maps costs: the backbone runs
once for a data set, whatever the number of rows, epochs and seeds.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import store
from ..data.dataset import DataSet
from ..errors import InputError
from ..images.augment import centre
from ..recipe import Recipe

VERSION = 1  # raise it when the same backbone and images give other features
# images through the backbone at a time; the result does not depend on it, up to
# rounding
BATCH = 64
SPLITS = ("train", "val", "test")


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
    views = 2 if recipe.flip else 1
    about = {
        "version": VERSION,
        "data": dataset.fingerprint,
        "stored": dataset.size,
        "image": recipe.image_size,
        "views": views,
        "backbone": recipe.backbone,
        "weights": _digest(backbone) if weights_id == "none" else weights_id,
    }
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    weights = (
        weights_id.split(" ")[0]
        .removesuffix(".safetensors")
        .removeprefix(f"{recipe.backbone}-")
    )
    name = f"features-{dataset.name}-{dataset.size}-{recipe.image_size}-{views}-{recipe.backbone}-{weights}"
    splits = [dataset.split(split) for split in SPLITS]
    total = sum(map(len, splits))

    def write(target: Path) -> None:
        style = {
            "desc": f"features of {dataset.name}",
            "unit": "image",
            "leave": False,
            "mininterval": 1,
            "disable": total < 500,
        }
        with open(target / "maps.npy", "wb") as file, tqdm(total=total, **style) as bar:
            empty = True
            for split in splits:
                for index in torch.arange(len(split)).split(BATCH):
                    maps = compute(
                        backbone, split.images[index], recipe.image_size, views, device
                    )
                    if not maps.isfinite().all():
                        raise InputError(
                            f"features of {recipe.backbone} are not finite in float16;"
                            " normalise its last layer, or train it end to end."
                        )
                    if empty:  # only now is their shape known
                        header = {
                            "descr": "<f2",
                            "fortran_order": False,
                            "shape": (total, *maps.shape[1:]),
                        }
                        np.lib.format.write_array_header_1_0(file, header)
                        empty = False
                    file.write(maps.numpy())
                    bar.update(len(index))

    maps = torch.from_numpy(store.entry(name, fingerprint, write)["maps"])
    parts = maps.split([len(split) for split in splits])
    return replace(
        dataset,
        **{
            split: replace(about, images=part)
            for split, about, part in zip(SPLITS, splits, parts, strict=True)
        },
    )


@torch.no_grad()
def compute(
    backbone: nn.Module,
    images: Tensor,
    image_size: int,
    views: int = 1,
    device: str | torch.device | None = None,
) -> Tensor:
    """Feature maps of one batch of pictures (B, 3, S, S) uint8 -> (B, views, n, h, w)
    float16 on the CPU; leaves `backbone` in eval mode on the device."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    backbone.eval().to(device, memory_format=torch.channels_last)
    seen = centre(images.to(device), image_size).contiguous(
        memory_format=torch.channels_last
    )
    return (
        torch.stack(
            [backbone(view).half() for view in (seen, seen.flip(-1))[:views]], 1
        )
        .cpu()
        .contiguous()
    )


def _digest(backbone: nn.Module) -> str:
    """A hash of all weights and running statistics."""
    digest = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
