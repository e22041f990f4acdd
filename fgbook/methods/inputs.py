"""No method but what region methods ask of images and backbones."""

from torch import Tensor

from ..backbones import Backbone
from ..errors import InputError


def side_of(images: Tensor, method: str) -> int:
    """The side S of images (B, 3, S, S), pixels. Raises InputError, in the name of
    `method`, for images that are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise InputError(
            f"{method} needs square images, not {width} x {height} pixels."
        )
    return width


def check_depth(method: str, depth: int, backbone: Backbone) -> None:
    """Raise InputError unless the backbone has a map `depth` from the deepest, 1."""
    depths = len(backbone.depths)
    if not 1 <= depth <= depths:
        raise InputError(
            f"{method}: depth is {depth}, but {backbone.name} gives maps at {depths}"
            f" depths; choose 1, the deepest, to {depths}."
        )
