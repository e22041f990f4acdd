"""The picture on the first page: four drawn species, and the one detail in which each
differs from the bird before it. And what is made of the same birds: the picture of the
README, the logo, the icon, and the preview that other sites show.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..data import fieldguide
from ..data.species import describe
from .base import Shown, styled

SIDE = 320  # pixels of a bird
CELL = 224  # units of a bird in a drawing
INK = {"light": "#1f2328", "dark": "#e6edf3"}
LOOKS = {
    "light": ".ring { stroke: #C24A00 }",
    # black feathers would be lost on black without a rim of light
    "dark": ".ring { stroke: #F5A13C } image { filter: drop-shadow(0 0 2px #9aa6b2) }",
}
PAPER = "#EDE8DB"  # fieldguide's

ORDER = (0, 1, 3, 2)
"""Four siblings are two values of a first attribute with two of a second. In this order
each differs from the one before in one of them, and the first from the last.
"""
CHANGED = (0, 1, 0, 1)  # which attribute that is


@dataclass(frozen=True)
class Portrait:
    """A species with the detail that is ringed."""

    name: str
    detail: str  # "forked tail"
    picture: Image.Image  # RGBA, without paper
    url: str  # the same as an address
    box: tuple[float, float, float, float]  # of the detail, xyxy in shares of the side


@lru_cache
def portraits() -> tuple[Portrait, ...]:
    """The four species of the first genus, in the order of the picture."""
    pictures = cut_out(len(ORDER), SIDE)
    words, areas = describe(count=len(ORDER)), fieldguide.telling_areas(len(ORDER))
    found = []
    for place, changed in zip(ORDER, CHANGED, strict=True):
        name, details = words[place]
        left, top, right, bottom = areas[place, changed].tolist()
        found.append(
            Portrait(
                name,
                details.split(", ")[changed],
                pictures[place],
                _as_url(pictures[place]),
                (left, top, right, bottom),
            )
        )
    return tuple(found)


def _as_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=86)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cut_out(species: int, size: int) -> list[Image.Image]:
    """Plates without their paper, RGBA: what differs between black and white paper is
    how much of the paper is seen.
    """
    black = fieldguide.plate(species, size, paper=(0.0, 0.0, 0.0)).float()
    white = fieldguide.plate(species, size, paper=(1.0, 1.0, 1.0)).float()
    alpha = 255 - (white - black).mean(1, keepdim=True)  # (species, 1, S, S)
    colour = (255 * black / alpha.clamp(min=1)).clamp(0, 255)
    return [_image(rgb, a) for rgb, a in zip(colour, alpha, strict=True)]


def _image(rgb: Tensor, alpha: Tensor) -> Image.Image:
    layers = np.concatenate([rgb.numpy(), alpha.clamp(0, 255).numpy()])
    return Image.fromarray(layers.round().astype(np.uint8).transpose(1, 2, 0), "RGBA")


# ---- drawn


def _bird(portrait: Portrait) -> str:
    """A bird and its ring in a square of CELL units."""
    left, top, right, bottom = (CELL * edge for edge in portrait.box)
    x, y = (left + right) / 2, (top + bottom) / 2
    rx, ry = 0.55 * (right - left) + 3, 0.55 * (bottom - top) + 3
    return (
        f'<image href="{portrait.url}" width="{CELL}" height="{CELL}"/>'
        f'<ellipse class="ring" cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}"'
        ' fill="none" stroke-width="3"/>'
    )


def alternative(found: Sequence[Portrait]) -> str:
    """The picture in words."""
    said = ", ".join(f"{one.name} ({one.detail})" for one in found)
    return f"Four drawn birds that look alike, a detail of each ringed: {said}."


CAPTION = (
    "Four species of one genus, drawn by this package. Each differs from the bird"
    " before it in one detail, the first from the last; the rings show where."
)


def hero() -> Shown:
    """The picture for a page of the book: text stays text, and the birds stand in two
    rows on a phone.
    """
    found = portraits()
    cells = []
    for one in found:
        square = f'viewBox="0 0 {CELL} {CELL}"'
        cells.append(
            f'<div><svg {square} aria-hidden="true">{_bird(one)}</svg>'
            f"<b>{html.escape(one.name)}</b><span>{html.escape(one.detail)}</span>"
            "</div>"
        )
    name = html.escape(alternative(found))
    return Shown(
        '<figure class="fgbook-hero">'
        f'<div class="birds" role="img" aria-label="{name}">{"".join(cells)}</div>'
        f"<figcaption>{html.escape(CAPTION)}</figcaption></figure>",
        CAPTION,
    )


def hero_svg(theme: str) -> str:
    """The picture as a file for "light" or "dark" surroundings."""
    found = portraits()
    width, height = CELL * len(found), CELL + 52
    cells = []
    for place, one in enumerate(found):
        words = ((one.name, CELL + 20, "600"), (one.detail, CELL + 42, "400"))
        texts = []
        for text, y, weight in words:
            texts.append(
                f'<text x="{CELL / 2}" y="{y}" font-weight="{weight}">'
                f"{html.escape(text)}</text>"
            )
        moved = f'<g transform="translate({CELL * place} 0)">'
        cells.append(f"{moved}{_bird(one)}{''.join(texts)}</g>")
    name = html.escape(alternative(found))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" aria-label="{name}"'
        f' font-family="system-ui, sans-serif" font-size="18" text-anchor="middle"'
        f' fill="{INK[theme]}"><style>{LOOKS[theme]}</style>\n'
        f"{chr(10).join(cells)}\n</svg>\n"
    )


# ---- small and square


def icon(size: int) -> Image.Image:
    """A bird in a disc of paper, RGBA."""
    large = 2 * size  # drawn larger, so that the disc's edge is smooth
    bird = cut_out(2, large)[0]
    y, x = np.mgrid[:large, :large] + 0.5 - large / 2
    inside = np.hypot(x, y) < 0.495 * large
    paper = np.zeros((large, large, 4), np.uint8)
    paper[inside] = (*bytes.fromhex(PAPER[1:]), 255)
    sheet = Image.fromarray(paper, "RGBA")
    # within the disc, of which the corners of the plate stick out
    bird = bird.resize((int(0.84 * large), int(0.84 * large)), Image.Resampling.LANCZOS)
    sheet.alpha_composite(bird, (int(0.08 * large), int(0.07 * large)))
    kept = np.array(sheet)
    kept[~inside] = 0
    whole = Image.fromarray(kept, "RGBA")
    return whole.resize((size, size), Image.Resampling.LANCZOS)


def preview() -> Image.Image:
    """1200 x 630 pixels: what other sites show beside a link."""
    with styled():
        drawn = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
        drawn.text(0.05, 0.85, "Fine-grained image classification,", fontsize=36)
        drawn.text(0.05, 0.75, "repeated", fontsize=36, weight="bold")
        drawn.text(
            0.05,
            0.09,
            "Five papers: their methods to read, their runs to repeat,"
            " a verdict on every claim",
            fontsize=17,
        )
        for place, one in enumerate(portraits()):
            axes = drawn.add_axes((0.02 + 0.24 * place, 0.2, 0.24, 0.24 * 12 / 6.3))
            axes.imshow(np.array(one.picture))
            axes.set_axis_off()
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", facecolor=PAPER)
    with Image.open(buffer) as picture:
        return picture.convert("RGB").quantize(128)
