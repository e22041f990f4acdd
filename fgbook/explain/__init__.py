"""Why this class? Maps over the image, a file an explanation.

    # images (B, 3, H, W) in [0, 1]
    maps = occlusion(model, images, patch=27, stride=8)  # (B, H, W)
    maps = cam(model, images, classes)  # (B, h, w); a linear head on pooled maps
    maps = grad_cam(model, images, classes, model.backbone)  # (B, h, w); any layer
    maps = rollout(model, images)  # (B, h, w); a transformer's attention
    maps = integrated_gradients(model, images, classes)  # (B, H, W)
    maps = enlarge(maps, H, stride, first)  # (B, H, H): maps of cells over the pixels

    all_of_them = offered(model, images[:1]).explanations  # name -> function

The model is taken as it is: put it in eval mode, and the images on its device.
"""

from ..images.enlarge import enlarge
from .cam import cam
from .grad_cam import grad_cam
from .integrated import integrated_gradients
from .occlusion import GREY, occlusion
from .offered import Explanation, boxes_of, coverage, offered
from .rollout import rolled, rollout

__all__ = [
    "GREY",
    "Explanation",
    "boxes_of",
    "cam",
    "coverage",
    "enlarge",
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "offered",
    "rolled",
    "rollout",
]
