"""Damaged images, for measuring robustness: twelve corruptions at five severities,
batched, on the images' device.

Names, severities and definitions follow ImageNet-C (Hendrycks and Dietterich 2019),
which are set for images of 224 x 224 pixels. Here lengths in pixels (blurs) grow with
the side of the image (at 64 pixels the lightest are under half a pixel, which shows
little); noise stays per pixel and JPEG blocks stay 8 x 8 pixels. Occlusion and low
resolution are not in ImageNet-C. What is random depends on (seed, name, image index,
pixel) alone: not on the batch, and not on the severity, so that severities differ in
strength only.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown
from .augment import degrade, key, uniforms
from .regions import gaussian_smooth

SEVERITIES: dict[str, tuple] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "shot_noise": (60, 25, 12, 5, 3),  # photons that make white
    # share of the values set to 0 or 1
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "gaussian_blur": (1, 2, 3, 4, 6),  # standard deviation, pixels of 224
    "defocus_blur": (3, 4, 6, 8, 10),  # radius, pixels of 224
    # half length and standard deviation, pixels of 224
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the brightest channel
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor
    "jpeg": (25, 18, 15, 10, 7),  # quality
    # side in squares, as a share of the side in pixels
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "occlusion": (0.1, 0.2, 0.3, 0.4, 0.5),  # share of the area (ours)
    # side, as a share of the side (ours)
    "low_resolution": (0.5, 0.35, 0.25, 0.18, 0.125),
}
# a new one goes to the end: random numbers depend on the place
NAMES = tuple(SEVERITIES)
CELLS = 8  # occlusion greys out cells of a grid of so many by so many


def corrupt(
    images: Tensor, name: str, severity: int, index: Tensor, seed: int = 0
) -> Tensor:
    """Damage images (B, 3, s, s) floating in [0, 1] -> the same shape, float32 in [0,
    1]; `images` are left as they are.

    name: one of NAMES; severity: 1 (light) to 5; index (B,) int64: the images' places
        in their split. Raises InputError for other values.
    """
    if name not in SEVERITIES:
        raise unknown("corruption", name, NAMES)
    if severity not in (1, 2, 3, 4, 5):
        raise InputError(f"severity is {severity!r}; it must be 1, 2, 3, 4 or 5.")
    if (
        not images.is_floating_point()
        or images.ndim != 4
        or images.shape[1] != 3
        or images.shape[2] != images.shape[3]
    ):
        raise InputError(
            f"images must be (B, 3, s, s) floating in [0, 1], not {tuple(images.shape)}"
            f" {str(images.dtype).removeprefix('torch.')}."
        )
    # half precision would be a corruption of its own
    with torch.autocast(images.device.type, enabled=False):
        return _corrupt(
            images.float(), name, SEVERITIES[name][severity - 1], index, seed
        ).clamp(0, 1)


def _corrupt(images: Tensor, name: str, level, index: Tensor, seed: int) -> Tensor:
    size = images.shape[-1]
    pixels = size / 224

    def random(*shape: int) -> Tensor:
        """Uniform numbers (B, *shape) in [0, 1)."""
        return uniforms(
            key(seed, NAMES.index(name)), 0, index, math.prod(shape)
        ).T.reshape(-1, *shape)

    match name:
        case "gaussian_noise":
            # the normal distribution's quantiles
            return images + level * torch.special.ndtri(
                random(3, size, size).clamp(min=2**-25)
            )
        case "shot_noise":
            return _poisson(images * level, random(3, size, size), level) / level
        case "impulse_noise":
            chance = random(3, size, size)
            return torch.where(
                chance < level / 2,
                0.0,
                torch.where(chance >= 1 - level / 2, 1.0, images),
            )
        case "gaussian_blur":
            return gaussian_smooth(images.flatten(0, 1), level * pixels).view_as(images)
        case "defocus_blur":
            return _convolve(images, _disk(level * pixels, images.device))
        case "motion_blur":
            angle = math.pi / 4 * (2 * random(1)[:, 0] - 1)  # -45 to 45 degrees
            return _convolve(
                images, _streak(level[0] * pixels, level[1] * pixels, angle)
            )
        # of hue, saturation and value, the value grows: all channels by one factor
        case "brightness":
            value = images.amax(1, keepdim=True)
            brighter = (value + level).clamp(max=1)
            return torch.where(
                value > 0, images * (brighter / value.clamp(min=1e-6)), brighter
            )
        case "contrast":
            mean = images.mean((2, 3), keepdim=True)
            return mean + level * (images - mean)
        case "jpeg":
            return _jpeg(images, level)
        case "pixelate":
            cover = _cover(max(1, int(size * level)), size, images.device)
            return F.interpolate(
                cover @ images @ cover.T, size=(size, size), mode="nearest-exact"
            )
        case "occlusion":
            # (B, cells) a permutation: when each is covered
            turn = random(CELLS**2).argsort(dim=1, stable=True)
            hidden = (turn < round(level * CELLS**2)).view(-1, CELLS, CELLS)
            cell = torch.arange(size, device=images.device) * CELLS // size
            return torch.where(hidden[:, cell][:, :, cell][:, None], 0.5, images)
        case "low_resolution":
            return degrade(images, max(1, round(size * level)), "bicubic")


def _cover(few: int, size: int, device: torch.device) -> Tensor:
    """Mean over each of `few` equal intervals of `size` pixels, pixels at its ends
    counting by the part inside: a matrix (few, size)."""
    length = size / few
    start, pixel = (
        torch.arange(few, device=device)[:, None] * length,
        torch.arange(size, device=device),
    )
    return (
        torch.minimum(start + length, pixel + 1) - torch.maximum(start, pixel)
    ).clamp(min=0) / length


def _poisson(rate: Tensor, uniform: Tensor, most: int) -> Tensor:
    """Numbers from Poisson distributions, by inversion: the least k with P(count <= k)
    > uniform, or `most` if that is less."""
    chance = (-rate).exp()  # P(count = k), from k = 0
    below, count = chance.clone(), torch.zeros_like(rate)
    for k in range(most):
        count += uniform >= below
        chance = chance * rate / (k + 1)
        below += chance
    return count


def _disk(radius: float, device: torch.device) -> Tensor:
    """A filled circle, one pixel soft at its rim, that sums to 1: (1, k, k). ImageNet-C
    softens its rim by a slight Gaussian blur."""
    half = math.ceil(radius)
    line = torch.arange(-half, half + 1, device=device)
    kernel = (radius + 0.5 - (line**2 + line[:, None] ** 2).sqrt()).clamp(0, 1)
    return (kernel / kernel.sum())[None]


def _streak(half_length: float, sigma: float, angle: Tensor) -> Tensor:
    """The trace of a moving point: half of a Gaussian along a line at `angle` (B,),
        radians -> (B, k, k), each sums to 1.

    It begins bright and fades over 2 * half_length pixels, as in ImageNet-C; but its
    centre of mass lies in the middle, so that the object stays where it is.
    """
    # (T,) along the line
    place = torch.arange(0, 2 * half_length + 0.5, 0.5, device=angle.device)
    weight = torch.exp(-0.5 * (place / sigma) ** 2)
    weight = weight / weight.sum()
    place = place - (weight * place).sum()
    half = math.ceil(2 * half_length) + 1
    line = torch.arange(-half, half + 1, device=angle.device)  # (k,)
    near = lambda centre: (1 - (line - centre[..., None]).abs()).clamp(min=0)
    return torch.einsum(
        "t,bty,btx->byx",
        weight,
        near(place * angle.sin()[:, None]),
        near(place * angle.cos()[:, None]),
    )


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Images (B, 3, s, s) convolved with kernels (B or 1, k, k), k odd, the border
    continued; by Fourier transforms, as kernels are large."""
    size, half = images.shape[-1], kernel.shape[-1] // 2
    padded = F.pad(images, (half,) * 4, mode="replicate")
    shape = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=shape)[:, None]
    return torch.fft.irfft2(spectrum, s=shape)[
        ..., 2 * half : 2 * half + size, 2 * half : 2 * half + size
    ]


def _jpeg(images: Tensor, quality: int) -> Tensor:
    """What JPEG leaves of images: 8-bit YCbCr, colour at half resolution, 8 x 8 blocks
        whose cosine coefficients are rounded (ITU-T T.81).

    As libjpeg and Pillow do it by default, except for the rounding within their integer
    transforms.
    """
    size = images.shape[-1]
    more = -size % 16
    red, green, blue = F.pad(
        (images * 255).round(), (0, more, 0, more), mode="replicate"
    ).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # Cb and Cr, without their offset of 128
    colour = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1).round()
    luma_table, colour_table = _tables(quality, images.device)
    luma = _blocks((luma.round() - 128)[:, None], luma_table)[:, 0] + 128
    colour = F.interpolate(
        _blocks(F.avg_pool2d(colour, 2).round(), colour_table),
        scale_factor=2,
        mode="bilinear",
        align_corners=False,
    )
    cb, cr = colour.round().unbind(1)
    rgb = torch.stack(
        [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], 1
    )
    return rgb[..., :size, :size].round().clamp(0, 255) / 255


def _blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (B, c, h, w) around 0, h and w multiples of 8 -> the same after their
    blocks' coefficients are rounded to multiples of the table."""
    batch, planes_, height, width = planes.shape
    step = torch.arange(8, device=planes.device)
    # (frequency, place), orthonormal
    cosine = torch.cos(math.pi / 16 * (2 * step + 1) * step[:, None]) / 2
    cosine[0] /= math.sqrt(2)
    blocks = planes.view(batch, planes_, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (cosine @ blocks @ cosine.T / table).round() * table
    return (
        (cosine.T @ coefficients @ cosine)
        .transpose(3, 4)
        .reshape(planes.shape)
        .round()
        .clamp(-128, 127)
    )


@lru_cache(maxsize=16)
def _tables(quality: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Quantisation steps for luma and colour, (8, 8) each: T.81's tables K.1 and K.2,
    scaled by quality as the Independent JPEG Group does."""
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([LUMA, COLOUR]).view(2, 8, 8)
    luma, colour = ((tables * factor + 50) // 100).clamp(1, 255).float().to(device)
    return luma, colour


LUMA = [
    16,
    11,
    10,
    16,
    24,
    40,
    51,
    61,
    12,
    12,
    14,
    19,
    26,
    58,
    60,
    55,
    14,
    13,
    16,
    24,
    40,
    57,
    69,
    56,
    14,
    17,
    22,
    29,
    51,
    87,
    80,
    62,
    18,
    22,
    37,
    56,
    68,
    109,
    103,
    77,
    24,
    35,
    55,
    64,
    81,
    104,
    113,
    92,
    49,
    64,
    78,
    87,
    103,
    121,
    120,
    101,
    72,
    92,
    95,
    98,
    112,
    100,
    103,
    99,
]
COLOUR = [
    17,
    18,
    24,
    47,
    *[99] * 4,
    18,
    21,
    26,
    66,
    *[99] * 4,
    24,
    26,
    56,
    *[99] * 5,
    47,
    66,
    *[99] * 6,
    *[99] * 32,
]
