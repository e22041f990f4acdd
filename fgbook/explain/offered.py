"""All explanations that a model of this package can be given, and those that it gives
itself, in one form: maps over the pixels.

    explanations, refused = offered(model, images[:1])
    maps = explanations["Grad-CAM"](images, classes)  # (B, S, S)

A method that looks at regions, or draws boxes, says with them what its prediction is
made of. As a map that is the number of boxes that cover a pixel. One with heads at
several depths has a map at each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backbones import Depth
from ..errors import InputError
from ..images.enlarge import enlarge
from ..methods.method import Method
from .cam import cam
from .grad_cam import grad_cam, tapped
from .integrated import integrated_gradients
from .occlusion import occlusion
from .rollout import rollout

Explanation = Callable[[Tensor, Tensor], Tensor]
"""Images (B, 3, S, S) in [0, 1] and classes (B,) int64 -> maps (B, S, S), or (B, h, w),
which are enlarged evenly. Less than 0 counts as 0.
"""

PATCH = 1 / 6  # side of the occluding patch, as a share of the image's (Peng et al.)
STRIDE = 1 / 8  # every so many pixels, likewise


class Offered(NamedTuple):
    """What a model can be explained with."""

    explanations: dict[str, Explanation]  # by name
    refused: dict[str, str]  # name -> why this model cannot have it


def offered(model: Method, image: Tensor) -> Offered:
    """The explanations of a model, each tried on one image (1, 3, S, S).

    CAM, Grad-CAM at the backbone's map, occlusion (which is about all classes at once)
    and integrated gradients; then the model's own, as :func:`_own` finds them.
    """
    size = image.shape[-1]

    def at_the_backbone(images: Tensor, classes: Tensor) -> Tensor:
        _check_look(model, image)
        return over(grad_cam(model, images, classes, model.backbone))

    def over(maps: Tensor) -> Tensor:
        return _over(maps, size, _backbone_of(model).depth_at(size))

    found: dict[str, Explanation] = {
        "CAM": lambda images, classes: over(cam(model, images, classes)),
        "Grad-CAM": at_the_backbone,
        "occlusion": lambda images, _: occlusion(
            model, images, _odd(PATCH * size), max(1, round(STRIDE * size))
        ),
        "integrated gradients": lambda images, classes: integrated_gradients(
            model, images, classes
        ),
        **_own(model, image),
    }
    refused = {}
    first = torch.zeros(1, dtype=torch.int64, device=image.device)
    for name, explanation in list(found.items()):
        try:
            explanation(image, first)
        except InputError as error:
            refused[name] = str(error)
            del found[name]
    return Offered(found, refused)


def _own(model: Any, image: Tensor) -> dict[str, Explanation]:
    """What a model shows of itself, by the methods that it has: its attention map, a
    transformer's attention rolled out, its class activation maps, Grad-CAM at each map
    that a head of its own reads, its regions, its boxes.
    """
    size = image.shape[-1]
    found: dict[str, Explanation] = {}
    if hasattr(model, "attention_map"):
        found["own attention"] = lambda images, _: _over(
            model.attention_map(images), size, _cells(model, size)
        )
    if hasattr(model, "attentions"):
        found["rollout"] = lambda images, _: _over(
            rollout(model, images), size, _cells(model, size)
        )
    if hasattr(model, "activation_maps"):
        for name in model.activation_maps(image):
            found[f"own map, {name}"] = partial(_own_map, model, name)
    if hasattr(model, "looks_at"):
        for name in model.looks_at(size):
            found[f"Grad-CAM, {name}"] = partial(_at_a_head, model, name)
    if hasattr(model, "regions"):
        found["own regions"] = lambda images, _: coverage(model.regions(images), size)
    if hasattr(model, "locate"):
        found["own boxes"] = lambda images, _: coverage(
            torch.stack(list(model.locate(images).values()), 1), size
        )
    return found


def _own_map(model: Any, name: str, images: Tensor, classes: Tensor) -> Tensor:
    """One of the model's ``activation_maps``, over the pixels."""
    size = images.shape[-1]
    depth = _cells(model, size)
    if hasattr(model, "depths_at"):  # each map has its own
        depth = model.depths_at(size)[name]
    return _over(model.activation_maps(images, classes)[name], size, depth)


def _at_a_head(model: Any, name: str, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM at one of the layers that the model ``looks_at``, over the pixels."""
    size = images.shape[-1]
    layer, depth = model.looks_at(size)[name]
    return _over(grad_cam(model, images, classes, layer), size, depth)


def _over(maps: Tensor, size: int, depth: Depth) -> Tensor:
    """Maps of cells (B, h, w) over the pixels of images of `size` pixels."""
    return enlarge(maps.float(), size, depth.stride, depth.first)


def _cells(model: Any, size: int) -> Depth:
    """Where the cells of the model's own map look."""
    if hasattr(model, "cells_at"):
        return model.cells_at(size)
    return _backbone_of(model).depth_at(size)


def _backbone_of(model: Any) -> Any:
    """Raises InputError where there is none."""
    if not hasattr(model, "backbone"):
        raise InputError(
            f"{type(model).__name__} has no backbone that says where cells look."
        )
    return model.backbone


@torch.no_grad()
def _check_look(model: Method, image: Tensor) -> None:
    """Refuse a model whose backbone does not look once, and at the whole picture: its
    maps would lie elsewhere, such as in a crop.
    """
    seen: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        seen.append(maps)
        return maps

    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        with tapped(backbone, keep):
            model.predict(image)
    if len(seen) != 1 or not torch.equal(seen[0], model.backbone(image)):
        raise InputError(
            f"the backbone of {type(model).__name__} does not look once, at the whole"
            " picture, so that no one map stands for a prediction."
        )


def _odd(side: float) -> int:
    """The odd number of pixels next to this."""
    return 2 * round((side - 1) / 2) + 1


def boxes_of(model: Any, images: Tensor) -> Tensor | None:
    """The boxes (B, K, 4) xyxy that a model cuts out of images, best or coarsest first;
    None where it cuts out none.
    """
    if hasattr(model, "regions"):
        return model.regions(images)
    if hasattr(model, "locate"):
        return torch.stack(list(model.locate(images).values()), 1)
    return None


def coverage(boxes: Tensor, size: int) -> Tensor:
    """How many of the boxes (B, m, 4) xyxy cover each pixel of images of `size` pixels,
    in parts where they cover it in part: (B, size, size).
    """
    left, top, right, bottom = boxes.unbind(-1)
    pixel = torch.arange(size, device=boxes.device)

    def covered(low: Tensor, high: Tensor) -> Tensor:
        """The share of each pixel [i, i + 1] along one side, (B, m, size)."""
        upper = torch.minimum(high[..., None], pixel + 1)
        return (upper - torch.maximum(low[..., None], pixel)).clamp(min=0)

    return torch.einsum("bmy,bmx->byx", covered(top, bottom), covered(left, right))
