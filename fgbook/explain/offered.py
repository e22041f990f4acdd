"""All explanations that a model of this package can be given, and those that it gives
itself, in one form: maps over the pixels.

    explanations, refused = offered(model, images[:1])
    maps = explanations["Grad-CAM"](images, classes)  # (B, S, S)

A method that looks at regions, or draws boxes, says with them what its prediction is
made of. As a map that is the number of boxes that cover a pixel.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..images.enlarge import enlarge
from ..methods.method import Method
from .cam import cam
from .grad_cam import grad_cam
from .integrated import integrated_gradients
from .occlusion import occlusion

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
    and integrated gradients; then the model's own: its attention map, its class
    activation maps by name, its regions, its boxes.
    """
    size = image.shape[-1]

    def over(maps: Tensor) -> Tensor:
        if not hasattr(model, "backbone"):
            raise InputError(
                f"{type(model).__name__} has no backbone that says where cells look."
            )
        depth = model.backbone.depth_at(size)
        return enlarge(maps.float(), size, depth.stride, depth.first)

    def at_the_backbone(images: Tensor, classes: Tensor) -> Tensor:
        _check_look(model, image)
        return over(grad_cam(model, images, classes, model.backbone))

    found: dict[str, Explanation] = {
        "CAM": lambda images, classes: over(cam(model, images, classes)),
        "Grad-CAM": at_the_backbone,
        "occlusion": lambda images, _: occlusion(
            model, images, _odd(PATCH * size), max(1, round(STRIDE * size))
        ),
        "integrated gradients": lambda images, classes: integrated_gradients(
            model, images, classes
        ),
    }
    look = getattr(model, "attention_map", None)
    if look is not None:
        found["own attention"] = lambda images, _: over(look(images))
    regions = getattr(model, "regions", None)
    if regions is not None:
        found["own regions"] = lambda images, _: coverage(regions(images), size)
    locate = getattr(model, "locate", None)
    if locate is not None:
        found["own boxes"] = lambda images, _: coverage(
            torch.stack(list(locate(images).values()), 1), size
        )

    refused = {}
    first = torch.zeros(1, dtype=torch.int64, device=image.device)
    for name, explanation in list(found.items()):
        try:
            explanation(image, first)
        except InputError as error:
            refused[name] = str(error)
            del found[name]
    return Offered(found, refused)


@torch.no_grad()
def _check_look(model: Method, image: Tensor) -> None:
    """Refuse a model whose backbone does not look once, and at the whole picture: its
    maps would lie elsewhere, such as in a crop.
    """
    seen: list[Tensor] = []
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        with backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
            model.predict(image)
    if len(seen) != 1 or not torch.equal(seen[0], image):
        raise InputError(
            f"the backbone of {type(model).__name__} does not look once, at the whole"
            " picture, so that no one map stands for a prediction."
        )


def _odd(side: float) -> int:
    """The odd number of pixels next to this."""
    return 2 * round((side - 1) / 2) + 1


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
