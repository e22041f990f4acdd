"""The drawn birds that the page offers."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from ..data import fieldguide, species
from ..data.scenery import Scene

COUNT = 12
SIDE = 243  # pixels: three times what the networks see, for the eye
TEST_IMAGES = 500  # of the quick profile: 25 of each of 20 species


def birds() -> list[dict[str, str]]:
    """Birds of the test split, spread over it evenly and chosen without looking: name
    and picture (a WebP image as a URL).
    """
    index = (torch.arange(COUNT) * 2 + 1) * TEST_IMAGES // (2 * COUNT)
    table = species.table("target", 20)
    label = index % len(table.names)  # species take turns
    scene = Scene(fieldguide.keys(0, "target", "test", index))
    drawn = fieldguide.render(scene, table.of(label), SIDE).images
    return [
        {"name": table.names[k], "picture": _as_url(image)}
        for k, image in zip(label.tolist(), drawn, strict=True)
    ]


def _as_url(image: Tensor) -> str:
    """An image (3, H, W) uint8, compressed: a drawing of 7 kB."""
    with io.BytesIO() as buffer:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture.save(buffer, format="webp", quality=85)
        content = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/webp;base64,{content}"
