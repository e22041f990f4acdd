"""Damaged images, for measuring robustness: twelve corruptions at five severities,
batched, on the images' device.

Ten of them have the names, definitions and severities of ImageNet-C (Hendrycks and
Dietterich 2019), which are set for images of 224 x 224 pixels; occlusion and low
resolution are ours. Here lengths in pixels (blurs) grow with the side of the image (at
64 pixels the lightest are under half a pixel, which shows little); noise stays per
pixel and JPEG blocks stay 8 x 8 pixels. What is random depends on (seed, name, image
index, pixel) alone: not on the batch, and not on the severity, so that severities
differ in strength only.

Against the package imagecorruptions 1.1.2, from which the literature takes them, on a
photograph of 224 x 224: Gaussian blur, brightness and contrast agree within one grey
level (there results are rounded down to 8 bits), JPEG to 0.3 grey levels on average,
defocus blur to 1.3 (its disc has another rim) and pixelate to 2.3 (in squares of no
whole number of pixels, ours counts a pixel by its part); noise has the same
distribution. Motion blur has the same trace, but there the object moves with it.

Why not that package: it takes one image at a time, on the processor, draws from numpy's
global generator, and brings OpenCV and scikit-image, of which the present ones (with
numpy 2) make three of its functions fail. Six kinds of ImageNet-C are missing here:
glass and zoom blur, snow, frost, fog and elastic transforms. So compare rows of this
book with each other, kind by kind, and not their means with printed ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown
from .augment import degrade, key, uniforms
from .regions import gaussian_smooth

# fmt: off
SEVERITIES: dict[str, tuple] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "shot_noise": (60, 25, 12, 5, 3),  # photons that make white
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of values set to 0 or 1
    "gaussian_blur": (1, 2, 3, 4, 6),  # standard deviation, pixels of 224
    "defocus_blur": (3, 4, 6, 8, 10),  # radius, pixels of 224
    # half length and standard deviation, pixels of 224
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the brightest channel
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # side in squares over that in pixels
    "occlusion": (0.1, 0.2, 0.3, 0.4, 0.5),  # share of the area (ours)
    "low_resolution": (0.5, 0.35, 0.25, 0.18, 0.125),  # share of the side (ours)
}
# fmt: on
# a new one goes to the end: random numbers depend on the place
NAMES = tuple(SEVERITIES)
SIDE = 224  # pixels of the images for which lengths are given
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
    square = images.ndim == 4 and images.shape[2] == images.shape[3]
    if not (images.is_floating_point() and square and images.shape[1] == 3):
        raise InputError(
            f"images must be (B, 3, s, s) floating in [0, 1], not {tuple(images.shape)}"
            f" {str(images.dtype).removeprefix('torch.')}."
        )
    damage = DAMAGE[name]
    level = SEVERITIES[name][severity - 1]
    # half precision would be a corruption of its own
    with torch.autocast(images.device.type, enabled=False):
        damaged = damage(images.float(), level, Random(seed, name, index))
        return damaged.clamp(0, 1)


@dataclass(frozen=True)
class Random:
    """The random numbers of one kind of damage: the seed, the kind and an image's place
    in its split (index, (B,) int64) decide them.
    """

    seed: int
    name: str
    index: Tensor

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (B, *shape) in [0, 1), the same at every call."""
        kind = NAMES.index(self.name)
        numbers = uniforms(key(self.seed, kind), 0, self.index, math.prod(shape))
        return numbers.T.reshape(-1, *shape)


# ---- each kind: images (B, 3, s, s) float32 in [0, 1], its level of SEVERITIES


def gaussian_noise(images: Tensor, deviation: float, random: Random) -> Tensor:
    """Normal noise on every value."""
    chance = random.uniform(*images.shape[1:])
    # the normal distribution's quantiles; that of 0 would be infinite
    return images + deviation * torch.special.ndtri(chance.clamp(min=2**-25))


def shot_noise(images: Tensor, photons: int, random: Random) -> Tensor:
    """Counted light: a Poisson number of photons, `photons` on average for white."""
    chance = random.uniform(*images.shape[1:])
    return _poisson(images * photons, chance, photons) / photons


def impulse_noise(images: Tensor, share: float, random: Random) -> Tensor:
    """Salt and pepper: a share of the values becomes 0 or 1, one as often as the
    other.
    """
    chance = random.uniform(*images.shape[1:])
    salted = torch.where(chance >= 1 - share / 2, 1.0, images)
    return torch.where(chance < share / 2, 0.0, salted)


def gaussian_blur(images: Tensor, deviation: float, random: Random) -> Tensor:
    """A Gaussian over each channel."""
    channels = images.flatten(0, 1)
    return gaussian_smooth(channels, _pixels(deviation, images)).view_as(images)


def defocus_blur(images: Tensor, radius: float, random: Random) -> Tensor:
    """Every point becomes a disc."""
    return _convolve(images, _disk(_pixels(radius, images), images.device))


def motion_blur(images: Tensor, level: tuple[int, int], random: Random) -> Tensor:
    """Every point becomes a streak, in a direction from -45 to 45 degrees."""
    half_length, deviation = (_pixels(length, images) for length in level)
    angle = math.pi / 4 * (2 * random.uniform(1)[:, 0] - 1)
    return _convolve(images, _streak(half_length, deviation, angle))


def brightness(images: Tensor, more: float, random: Random) -> Tensor:
    """The value grows, of hue, saturation and value: all channels by one factor."""
    value = images.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    scaled = images * (brighter / value.clamp(min=1e-6))
    return torch.where(value > 0, scaled, brighter)  # black becomes grey


def contrast(images: Tensor, factor: float, random: Random) -> Tensor:
    """All pixels are drawn to the image's mean colour."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + factor * (images - mean)


def jpeg(images: Tensor, quality: int, random: Random) -> Tensor:
    """What JPEG leaves of images: 8-bit YCbCr, colour at half resolution, 8 x 8 blocks
    whose cosine coefficients are rounded (ITU-T T.81).

    As libjpeg and Pillow do it by default, except for the rounding within their integer
    transforms.
    """
    size = images.shape[-1]
    luma_table, colour_table = _tables(quality, images.device)

    # whole blocks of 16, because colour has half the resolution
    more = -size % 16
    padded = F.pad((images * 255).round(), (0, more, 0, more), mode="replicate")
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # Cb and Cr, without their offset of 128
    colour = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1).round()

    luma = _blocks((luma.round() - 128)[:, None], luma_table)[:, 0] + 128
    halved = _blocks(F.avg_pool2d(colour, 2).round(), colour_table)
    colour = F.interpolate(halved, scale_factor=2, mode="bilinear", align_corners=False)

    cb, cr = colour.round().unbind(1)
    red = luma + 1.402 * cr
    green = luma - 0.344136 * cb - 0.714136 * cr
    blue = luma + 1.772 * cb
    rgb = torch.stack([red, green, blue], 1)[..., :size, :size]
    return rgb.round().clamp(0, 255) / 255


def pixelate(images: Tensor, share: float, random: Random) -> Tensor:
    """Squares of one colour, the mean of what they cover."""
    size = images.shape[-1]
    cover = _cover(max(1, int(size * share)), size, images.device)
    means = cover @ images @ cover.T
    return F.interpolate(means, size=(size, size), mode="nearest-exact")


def occlusion(images: Tensor, share: float, random: Random) -> Tensor:
    """Cells of a grid are greyed out; those of a lighter severity stay so."""
    size = images.shape[-1]
    # a permutation (B, cells): when each cell is covered
    turn = random.uniform(CELLS**2).argsort(dim=1, stable=True)
    hidden = (turn < round(share * CELLS**2)).view(-1, CELLS, CELLS)
    cell = torch.arange(size, device=images.device) * CELLS // size  # of each pixel
    hidden = hidden[:, cell][:, :, cell]  # (B, s, s)
    return torch.where(hidden[:, None], 0.5, images)


def low_resolution(images: Tensor, share: float, random: Random) -> Tensor:
    """Reduced and enlarged again, as for paper E."""
    return degrade(images, max(1, round(images.shape[-1] * share)), "bicubic")


DAMAGE: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "gaussian_blur": gaussian_blur,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "occlusion": occlusion,
    "low_resolution": low_resolution,
}


# ---- what they are made of


def _pixels(length: float, images: Tensor) -> float:
    """A length in pixels of 224, in pixels of these images."""
    return length * (images.shape[-1] / SIDE)


def _poisson(rate: Tensor, uniform: Tensor, most: int) -> Tensor:
    """Numbers from Poisson distributions, by inversion: the least k with P(count <= k)
    > uniform, or `most` if that is less.
    """
    chance = (-rate).exp()  # P(count = k), from k = 0
    below = chance.clone()  # P(count <= k)
    count = torch.zeros_like(rate)
    for k in range(most):
        count += uniform >= below
        chance = chance * rate / (k + 1)
        below += chance
    return count


def _cover(few: int, size: int, device: torch.device) -> Tensor:
    """Mean over each of `few` equal intervals of `size` pixels, pixels at its ends
    counting by the part inside: a matrix (few, size).
    """
    length = size / few
    start = torch.arange(few, device=device)[:, None] * length
    pixel = torch.arange(size, device=device)
    # interval and pixel overlap from the later start to the earlier end
    end = torch.minimum(start + length, pixel + 1)
    overlap = end - torch.maximum(start, pixel)
    return overlap.clamp(min=0) / length


def _disk(radius: float, device: torch.device) -> Tensor:
    """A filled circle, one pixel soft at its rim, that sums to 1: (1, k, k). ImageNet-C
    softens its rim by a slight Gaussian blur.
    """
    half = math.ceil(radius)
    line = torch.arange(-half, half + 1, device=device)
    distance = (line**2 + line[:, None] ** 2).sqrt()
    kernel = (radius + 0.5 - distance).clamp(0, 1)
    return (kernel / kernel.sum())[None]


def _streak(half_length: float, sigma: float, angle: Tensor) -> Tensor:
    """The trace of a moving point: half of a Gaussian along a line at `angle` (B,),
    radians -> (B, k, k), each sums to 1.

    It begins bright and fades over 2 * half_length pixels, as in ImageNet-C; but its
    centre of mass lies in the middle, so that the object stays where it is.
    """
    # every half pixel along the line: (T,)
    place = torch.arange(0, 2 * half_length + 0.5, 0.5, device=angle.device)
    weight = torch.exp(-0.5 * (place / sigma) ** 2)
    weight = weight / weight.sum()
    place = place - (weight * place).sum()

    # each place is shared by the four pixels round it
    half = math.ceil(2 * half_length) + 1
    rows = _shares(place * angle.sin()[:, None], half)
    columns = _shares(place * angle.cos()[:, None], half)
    return torch.einsum("t,bty,btx->byx", weight, rows, columns)


def _shares(place: Tensor, half: int) -> Tensor:
    """How far each pixel of a line, -half..half, is at a place (B, T), linearly: (B, T,
    k), 1 where it is that pixel, 0 from one pixel away.
    """
    line = torch.arange(-half, half + 1, device=place.device)
    return (1 - (line - place[..., None]).abs()).clamp(min=0)


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Images (B, 3, s, s) convolved with kernels (B or 1, k, k), k odd, the border
    continued; by Fourier transforms, as kernels are large.
    """
    size, half = images.shape[-1], kernel.shape[-1] // 2
    padded = F.pad(images, (half,) * 4, mode="replicate")
    shape = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=shape)[:, None]
    # the kernel's middle is at (half, half), the padding adds as much
    inside = slice(2 * half, 2 * half + size)
    return torch.fft.irfft2(spectrum, s=shape)[..., inside, inside]


def _blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (B, c, h, w) around 0, h and w multiples of 8 -> the same after their
    blocks' coefficients are rounded to multiples of the table.
    """
    batch, count, height, width = planes.shape
    step = torch.arange(8, device=planes.device)
    # the cosine transform (frequency, place), orthonormal
    cosine = torch.cos(math.pi / 16 * (2 * step + 1) * step[:, None]) / 2
    cosine[0] /= math.sqrt(2)

    # (B, c, h / 8, w / 8, 8, 8)
    blocks = planes.view(batch, count, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (cosine @ blocks @ cosine.T / table).round() * table
    restored = (cosine.T @ coefficients @ cosine).transpose(3, 4)
    return restored.reshape(planes.shape).round().clamp(-128, 127)


@lru_cache(maxsize=16)
def _tables(quality: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Quantisation steps for luma and colour, (8, 8) each: T.81's tables K.1 and K.2,
    scaled by quality as the Independent JPEG Group does.
    """
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([LUMA, COLOUR])
    luma, colour = ((tables * factor + 50) // 100).clamp(1, 255).float().to(device)
    return luma, colour


# fmt: off
LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
COLOUR = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
]
# fmt: on
