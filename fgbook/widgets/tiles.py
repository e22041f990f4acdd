"""Pictures beside each other, with boxes on them and words below: what most frames are
made of. As HTML, so that words keep their size and tiles find room on a phone.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from .piece import escaped

QUALITY = 85  # of WebP
# Of the numbers in boxes, as a share of a tile's side: 11 px on a phone, where four
# tiles stand beside each other.
LETTER = 0.141


class Picture:
    """A picture (3, H, W) in [0, 1], written once for all frames that it stands in.
    Boxes on it are in units of which it is `width` wide (0: in its pixels).
    """

    def __init__(self, pixels: Tensor, width: int = 0):
        down, across = pixels.shape[-2:]
        self.width = width or across
        self.height = self.width * down // across
        content = base64.b64encode(webp(pixels)).decode()
        self.svg = (
            f'<image width="{self.width}" height="{self.height}"'
            f' href="data:image/webp;base64,{content}"/>'
        )


def pictures(images: Tensor) -> list[Picture]:
    """Of images (B, 3, H, W)."""
    return [Picture(image) for image in images]


def webp(pixels: Tensor) -> bytes:
    """A picture (3, H, W) in [0, 1] as a file."""
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255).round()
    array = levels.to(torch.uint8).permute(1, 2, 0).numpy()
    with io.BytesIO() as buffer:
        Image.fromarray(array).save(buffer, format="webp", quality=QUALITY)
        return buffer.getvalue()


@dataclass(frozen=True)
class Marks:
    """Boxes (K, 4) xyxy in the pixels of a tile's picture, of one colour and line
    (lengths of dashes and gaps; "": solid), the first with a label in its corner.
    `over`: what they hold is dimmed instead.
    """

    boxes: Tensor
    colour: str = ""
    dashes: str = ""
    label: str = ""
    over: bool = False

    def svg(self, letter: float) -> str:
        """As SVG; with a dark line below, so that it stands off every ground."""
        lines = []
        for left, top, right, bottom in self.boxes.tolist():
            across, down = right - left, bottom - top
            lines.append(
                f"M{left:.4g} {top:.4g}h{across:.4g}v{down:.4g}h{-across:.4g}z"
            )
        path = "".join(lines)
        if not path:
            return ""
        if self.over:
            return f'<path class="o" d="{path}"/>'
        dashes = f' stroke-dasharray="{self.dashes}"' if self.dashes else ""
        drawn = f'<path class="u" d="{path}"/>'
        drawn += f'<path d="{path}" stroke="{self.colour}"{dashes}/>'
        if self.label:
            left, top = self.boxes[0, :2].tolist()
            x, y = left + letter / 4, top + letter
            drawn += f'<text x="{x:.4g}" y="{y:.4g}">{escaped(self.label)}</text>'
        return drawn


@dataclass(frozen=True)
class Tile:
    """A picture, what is to be seen on it (at most 300 characters), marks, and the
    lines of text below it.
    """

    picture: Picture
    alt: str
    marks: Sequence[Marks] = ()
    lines: Sequence[str] = field(default_factory=tuple)

    def html(self) -> str:
        """As an element."""
        width, height = self.picture.width, self.picture.height
        letter = LETTER * width
        marks = "".join(each.svg(letter) for each in self.marks)
        below = "".join(f"<span>{escaped(line)}</span>" for line in self.lines)
        return (
            f'<div><svg viewBox="0 0 {width} {height}" font-size="{letter:.3g}"'
            f' role="img" aria-label="{escaped(self.alt)}">'
            f"{self.picture.svg}{marks}</svg>{below}</div>"
        )


def tiles(found: Sequence[Tile], columns: int, narrow: int = 0) -> str:
    """Tiles in so many columns, on a phone in `narrow` (0: as many)."""
    inside = "".join(tile.html() for tile in found)
    style = f"--columns:{columns};--narrow:{narrow or columns}"
    return f'<div class="fgbook-tiles" style="{style}">{inside}</div>'
