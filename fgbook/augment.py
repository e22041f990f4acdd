"""Everything random that happens to a batch of images, on the batch's device.

Random numbers are counter-based: a number depends only on (seed, epoch, image index, stream), never on what was drawn before. So an image
is augmented in the same way whatever the batch size, the order, the number of processes, or the step at which a killed run resumes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .recipe import Recipe

MASK = 0xFFFFFFFF
PLACE_X, PLACE_Y, ZOOM, FLIP, ROTATE, BRIGHTNESS, CONTRAST, STREAMS = range(8)  # what each stream of random numbers is for


def mix(x):
    """Scramble 32-bit values, Python integers or int64 tensors in [0, 2^32), one to one.

    The constants are those of a low-bias 32-bit integer hash by C. Wellons (hash-prospector). Both are below 2^31, so that no product
    overflows int64: the result does not depend on how a device treats overflow.
    """
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & MASK
    x = ((x ^ (x >> 12)) * 0x297A2D39) & MASK
    return x ^ (x >> 15)


def key(seed: int, *counters: int) -> int:
    """A 32-bit number that depends on all arguments: a seed for whatever belongs to these counters."""
    value = mix(mix((seed & MASK) ^ 0x9E3779B9) ^ ((seed >> 32) & MASK))
    for counter in counters:
        value = mix(mix((counter + 0x7F4A7C15) & MASK) ^ value)
    return value


def uniforms(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Streams 0..count-1 at once: index (B,) int64 -> (count, B) float32 in [0, 1), on the device of `index`."""
    stream = torch.arange(count, device=index.device)[:, None]
    return _fraction(index, stream, seed, epoch)


def uniform(seed: int, epoch: int, index: Tensor, stream: int) -> Tensor:
    """One stream of random numbers: index (B,) int64 -> (B,) float32 in [0, 1). An image's number does not depend on its batch."""
    return _fraction(index, stream, seed, epoch)


def _fraction(index: Tensor, stream, seed: int, epoch: int) -> Tensor:
    bits = mix(mix(index & MASK) ^ key(seed, epoch))
    bits = mix(bits ^ mix(stream + 1))
    return (bits >> 8).float() * 2.0**-24  # 24 bits are what a float32 holds exactly, so 1 is never reached


def augment(images: Tensor, index: Tensor, recipe: Recipe, seed: int, epoch: int) -> Tensor:
    """What training sees: images (B, 3, S, S) uint8 -> (B, 3, s, s) float in [0, 1], where s is recipe.image_size.

    index (B,) int64: the images' places in their split. Raises InputError when S is smaller than s.
    Crop, zoom, mirror and rotation are composed into one affine map, so that each pixel is interpolated once (bilinear); then brightness
    and contrast. Without zoom and rotation the crop starts at a whole pixel and the result is the slice itself (up to 1e-4): training is
    then as sharp as evaluation. A zoom out (a square larger than s) is not low-passed; keep store_size below about 1.5 image_size. What a
    rotation brings in from outside is the image mirrored at its border.
    """
    stored, size = images.shape[-1], recipe.image_size
    _check(images, size)
    random = uniforms(seed, epoch, index, STREAMS)  # (8, B)
    if recipe.crop_scale:
        side = stored * (recipe.crop_scale + (1 - recipe.crop_scale) * random[ZOOM])  # (B,) pixels of the stored image
        left, top = random[PLACE_X] * (stored - side), random[PLACE_Y] * (stored - side)
    else:
        side = torch.full_like(random[ZOOM], size)
        places = stored - size + 1  # whole pixels 0..stored - size, all equally likely
        left, top = (random[PLACE_X] * places).floor(), (random[PLACE_Y] * places).floor()
    mirror = 1 - 2 * (random[FLIP] < 0.5).float() if recipe.flip else torch.ones_like(side)  # (B,) -1 or 1
    angle = math.radians(recipe.rotate) * (2 * random[ROTATE] - 1)

    # A place of the result, (x, y) in [-1, 1] from edge to edge, goes to centre + scale * rotation * (mirror * x, y) in the stored image.
    scale = side / stored
    along, across = scale * angle.cos(), scale * angle.sin()
    column_x = torch.stack([along * mirror, across * mirror], 1)[:, None, None]  # (B, 1, 1, 2)
    column_y = torch.stack([-across, along], 1)[:, None, None]
    middle = torch.stack([(2 * left + side) / stored - 1, (2 * top + side) / stored - 1], 1)[:, None, None]
    line = (2 * torch.arange(size, device=images.device) + 1) / size - 1  # pixel centres, (s,)
    grid = (column_y * line[:, None, None] + middle) + column_x * line[:, None]  # (B, s, s, 2)
    images = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False).div_(255)

    if recipe.jitter:
        brightness = 1 + recipe.jitter * (2 * random[BRIGHTNESS] - 1)
        contrast = 1 + recipe.jitter * (2 * random[CONTRAST] - 1)
        mean = images.mean((1, 2, 3)) * brightness  # (B,) after the change of brightness
        images.mul_((brightness * contrast)[:, None, None, None]).add_((mean * (1 - contrast))[:, None, None, None])
    return images.clamp_(0, 1)


def centre(images: Tensor, image_size: int) -> Tensor:
    """What evaluation sees: the centre of images (B, 3, S, S) uint8 as (B, 3, image_size, image_size) float in [0, 1]. An exact slice."""
    _check(images, image_size)
    start = centre_offset(images.shape[-1], image_size)
    return images[..., start : start + image_size, start : start + image_size].float().div_(255)


def centre_offset(store_size: int, image_size: int) -> int:
    """Pixels that :func:`centre` cuts off at the left and at the top: a box of the stored image minus this is the box in what is seen."""
    return (store_size - image_size) // 2


def _check(images: Tensor, size: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InputError(f"images must be (B, 3, S, S) uint8, not {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}.")
    if images.shape[-1] < size:
        raise InputError(f"images of {images.shape[-1]} px are smaller than image_size {size}; load the data at a larger size.")
