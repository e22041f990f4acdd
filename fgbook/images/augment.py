"""Everything random that happens to a batch of images, on the batch's device.

Random numbers are counter-based: a number depends only on (seed, epoch, image index,
stream), never on what was drawn before. So an image is augmented in the same way
whatever the batch size, the order, the number of processes, or the step at which a
killed run resumes.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown
from ..recipe import Recipe

MASK = 0xFFFFFFFF  # 32 bits

# What each stream of random numbers is for. A new stream goes to the end: the numbers
# of a stream depend on its place.
(
    PLACE_X,
    PLACE_Y,
    ZOOM,
    FLIP,
    ROTATE,
    BRIGHTNESS,
    CONTRAST,
    ERASE,
    ERASE_AREA,
    ERASE_ASPECT,
    ERASE_X,
    ERASE_Y,
    RESOLUTION,
    PARTNER,
    SHARE,
    CUT_X,
    CUT_Y,
    CUT,
    STREAMS,
) = range(19)
ERASED_AREA = (0.02, 0.33)  # share of the image
ERASED_ASPECT = (0.3, 3.3)  # height / width
QUANTILES = 4096  # intervals of the table of a Beta distribution


def scramble(x):
    """Scramble 32-bit values, Python integers or int64 tensors in [0, 2^32), one to
    one.

    The constants are those of a low-bias 32-bit integer hash by C. Wellons
    (hash-prospector). Both are below 2^31, so that no product overflows int64: the
    result does not depend on how a device treats overflow.
    """
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & MASK
    x = ((x ^ (x >> 12)) * 0x297A2D39) & MASK
    return x ^ (x >> 15)


def key(seed: int, *counters: int) -> int:
    """A 32-bit number that depends on all arguments: a seed for whatever belongs to
    these counters.
    """
    value = scramble(scramble((seed & MASK) ^ 0x9E3779B9) ^ ((seed >> 32) & MASK))
    for counter in counters:
        value = scramble(scramble((counter + 0x7F4A7C15) & MASK) ^ value)
    return value


def uniforms(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Streams 0..count-1 at once: index (B,) int64 -> (count, B) float32 in [0, 1), on
    the device of `index`.
    """
    stream = torch.arange(count, device=index.device)[:, None]
    return _fraction(index, stream, seed, epoch)


def uniform(seed: int, epoch: int, index: Tensor, stream: int) -> Tensor:
    """One stream of random numbers: index (B,) int64 -> (B,) float32 in [0, 1). An
    image's number does not depend on its batch.
    """
    return _fraction(index, stream, seed, epoch)


def _fraction(index: Tensor, stream, seed: int, epoch: int) -> Tensor:
    bits = scramble(scramble(index & MASK) ^ key(seed, epoch))
    bits = scramble(bits ^ scramble(stream + 1))
    # 24 bits are what a float32 holds exactly, so 1 is never reached
    return (bits >> 8).float() * 2.0**-24


def augment(
    images: Tensor, index: Tensor, recipe: Recipe, seed: int, epoch: int
) -> Tensor:
    """What training sees: images (B, 3, S, S) uint8 -> (B, 3, s, s) float32 in [0, 1],
    where s is recipe.image_size.

    index (B,) int64: the images' places in their split. Raises InputError when S is
    smaller than s. Feature maps that were kept, (B, V, n, h, w) floating -> (B, n, h,
    w) float32: the image's, or (V = 2) its mirror image's for those that recipe.flip
    mirrors. Nothing else of the recipe acts on them.

    Crop, zoom, mirror and rotation are composed into one affine map, so that each pixel
    is interpolated once (bilinear); then brightness and contrast. Without zoom and
    rotation the crop starts at a whole pixel and the result is the slice itself:
    training is then as sharp as evaluation. A zoom out (a square larger than s) is not
    low-passed; keep store_size below about 1.5 image_size. What a rotation brings in
    from outside is the image mirrored at its border. Then a rectangle is blanked
    (recipe.erase), and last the resolution is reduced (recipe.resolution).
    """
    _check(images, recipe.image_size)
    random = uniforms(seed, epoch, index, STREAMS)  # (STREAMS, B)
    mirrored = random[FLIP] < 0.5
    if images.is_floating_point():
        return _of_maps(images, mirrored & recipe.flip)

    if recipe.crop_scale or recipe.rotate:
        views = _sampled(images, mirrored & recipe.flip, random, recipe)
    else:
        views = _window(images, mirrored & recipe.flip, random, recipe)

    if recipe.jitter:
        _jitter(views, random, recipe.jitter)
    views.clamp_(0, 1)
    if recipe.erase:
        views = _erase(views, random, recipe.erase)

    if recipe.resolution == "high":
        return views
    low = degrade(views, recipe.low_side, recipe.upsample)
    if recipe.resolution == "low":
        return low
    return torch.where(_each(random[RESOLUTION] < 0.5), low, views)


def _each(values: Tensor) -> Tensor:
    """One number an image, (B,), ready to be combined with images: (B, 1, 1, 1)."""
    return values[:, None, None, None]


def _of_maps(maps: Tensor, mirrored: Tensor) -> Tensor:
    """Kept maps (B, V, n, h, w) -> those of the image or, where it is kept and mirrored
    (B,) says so, of its mirror image.
    """
    if maps.shape[1] == 1:
        return maps[:, 0].float()
    return torch.where(_each(mirrored), maps[:, 1], maps[:, 0]).float()


def _jitter(views: Tensor, random: Tensor, strength: float) -> None:
    """Change brightness and contrast of the views (B, 3, s, s), in place, by factors
    between 1 - strength and 1 + strength. Contrast is about the view's own mean.
    """
    brightness = 1 + strength * (2 * random[BRIGHTNESS] - 1)  # (B,)
    contrast = 1 + strength * (2 * random[CONTRAST] - 1)
    mean = views.mean((1, 2, 3)) * brightness  # after the change of brightness
    views.mul_(_each(brightness * contrast)).add_(_each(mean * (1 - contrast)))


def _window(images: Tensor, mirrored: Tensor, random: Tensor, recipe: Recipe) -> Tensor:
    """Windows that start at a whole pixel, all places equally likely: one gather of
    bytes, which mirrors too.
    """
    stored, size = images.shape[-1], recipe.image_size
    left = (random[PLACE_X] * (stored - size + 1)).long()[:, None]  # (B, 1)
    top = (random[PLACE_Y] * (stored - size + 1)).long()[:, None]

    line = torch.arange(size, device=images.device)
    row = top + line  # (B, s)
    column = left + torch.where(mirrored[:, None], size - 1 - line, line)  # (B, s)
    # as a flat image counts its pixels, the same in all colours: (B, 3, s * s)
    pixel = (row[:, :, None] * stored + column[:, None]).flatten(1)
    pixel = pixel[:, None].expand(-1, 3, -1)

    windows = images.flatten(2).gather(2, pixel).unflatten(2, (size, size))
    return windows.float().div_(255)


def _sampled(
    images: Tensor, mirrored: Tensor, random: Tensor, recipe: Recipe
) -> Tensor:
    """Crop, zoom, mirror and rotation as one affine map."""
    stored, size = images.shape[-1], recipe.image_size
    if recipe.crop_scale:
        # (B,) pixels of the stored image
        side = stored * (recipe.crop_scale + (1 - recipe.crop_scale) * random[ZOOM])
        left = random[PLACE_X] * (stored - side)
        top = random[PLACE_Y] * (stored - side)
    else:
        side = torch.full_like(random[ZOOM], size)
        # whole pixels, all equally likely
        left = (random[PLACE_X] * (stored - size + 1)).floor()
        top = (random[PLACE_Y] * (stored - size + 1)).floor()
    mirror = 1 - 2 * mirrored.float()  # (B,) -1 or 1
    angle = math.radians(recipe.rotate) * (2 * random[ROTATE] - 1)

    # A place of the result, (x, y) in [-1, 1] from edge to edge, goes to middle + scale
    # * rotation * (mirror * x, y) in the stored image.
    scale = side / stored
    along, across = scale * angle.cos(), scale * angle.sin()
    middle_x = (2 * left + side) / stored - 1
    middle_y = (2 * top + side) / stored - 1
    # each (B, 2, 1, 1)
    by_x = torch.stack([along * mirror, across * mirror], 1)[:, :, None, None]
    by_y = torch.stack([-across, along], 1)[:, :, None, None]
    middle = torch.stack([middle_x, middle_y], 1)[:, :, None, None]

    # pixel centres, (s,)
    line = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    # (B, 2, s, s): a CPU makes planes much faster than pairs
    grid = (by_y * line[:, None] + middle) + by_x * line
    # without rotation nothing outside is seen; "border" is faster
    padding = "reflection" if recipe.rotate else "border"
    sampled = F.grid_sample(
        images.float(),
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode=padding,
        align_corners=False,
    )
    return sampled.div_(255)


def degrade(views: Tensor, side: int, mode: str) -> Tensor:
    """Low resolution: views (B, c, s, s) in [0, 1], reduced to side x side pixels and
    enlarged to s x s again, in [0, 1].

    Reduced with a triangle filter as wide as the reduction (antialiased bilinear);
    enlarged by `mode`, "bicubic" or "bilinear".
    """
    low = F.interpolate(
        views, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    enlarged = F.interpolate(low, size=views.shape[-2:], mode=mode, align_corners=False)
    return enlarged.clamp_(0, 1)  # bicubic overshoots


def _erase(views: Tensor, random: Tensor, share: float) -> Tensor:
    """Random erasing (Zhong et al. 2020) in `share` of the views (B, 3, s, s); random
    (STREAMS, B).

    The rectangle's area is uniform and its aspect log-uniform in the ranges above, all
    places inside are equally likely. Different from the paper: areas go up to 33 %
    (40 % there); a side longer than the image is cut to it, by at most 5 % (there a
    rectangle is drawn anew until it fits); the fill is the view's own mean colour
    (random values there), which brings in no colour or texture that photographs lack.
    """
    size = views.shape[-1]
    smallest, largest = ERASED_AREA
    area = (smallest + (largest - smallest) * random[ERASE_AREA]) * size**2  # (B,)
    flattest, steepest = (math.log(aspect) for aspect in ERASED_ASPECT)
    aspect = (flattest + (steepest - flattest) * random[ERASE_ASPECT]).exp()

    # height * width = area, height / width = aspect
    height = (area * aspect).sqrt().round().clamp(1, size)
    width = (area * (1 / aspect)).sqrt().round().clamp(1, size)
    left = (random[ERASE_X] * (size - width + 1)).floor()
    top = (random[ERASE_Y] * (size - height + 1)).floor()

    rectangle = inside(left, top, left + width, top + height, size, size)
    erased = rectangle & (random[ERASE] < share)[:, None, None]
    return torch.where(erased[:, None], views.mean((2, 3), keepdim=True), views)


def inside(
    left: Tensor, top: Tensor, right: Tensor, bottom: Tensor, height: int, width: int
) -> Tensor:
    """Which pixels lie in a rectangle: four times (B,), in pixels, right and bottom
    excluded -> (B, height, width) bool.
    """
    x = torch.arange(width, device=left.device)
    y = torch.arange(height, device=left.device)
    columns = (x >= left[:, None]) & (x < right[:, None])  # (B, width)
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    return rows[:, :, None] & columns[:, None]


def partners(index: Tensor, count: int, seed: int, epoch: int) -> Tensor:
    """The image that each one is mixed with: index (B,) int64 in [0, count) -> (B,),
    uniform over [0, count) without itself.

    `count` is the size of the training split, below 2^24; where it is 1, the only image
    is its own partner.
    """
    # doubles: the same whole number on every device
    ahead = uniform(seed, epoch, index, PARTNER).double() * (count - 1)
    return (index + 1 + ahead.long()) % count


def mix(
    views: Tensor,
    others: Tensor,
    labels: Tensor,
    other_labels: Tensor,
    num_classes: int,
    index: Tensor,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Mix views with their partners' -> (mixed views (B, c, h, w), class probabilities
    (B, C) float32).

    views, others (B, c, h, w) float; labels, other_labels (B,) int64; index (B,) int64:
    the places of `views` in their split. Each image's own share comes from Beta(a, a).
    mixup (Zhang et al. 2018, a = recipe.mixup): every pixel is the weighted mean of
    both. CutMix (Yun et al. 2019, a = recipe.cutmix): a rectangle of h * sqrt(1 -
    share) by w * sqrt(1 - share) pixels round a uniform centre, clipped at the border,
    is the other's; the share is then what is left of the image. With both, a coin
    decides for each image. Labels are mixed by the same share. Raises InputError when
    the recipe asks for neither.
    """
    if not recipe.mixup and not recipe.cutmix:
        raise InputError(
            "nothing to mix: recipe.mixup and recipe.cutmix are both 0; set one of them"
            " above 0."
        )
    random = uniforms(seed, epoch, index, STREAMS)
    if recipe.mixup:
        weight = _beta(random[SHARE], recipe.mixup)[:, None, None]  # (B, 1, 1)
    if recipe.cutmix:
        kept = _kept(random, recipe.cutmix, *views.shape[-2:])  # (B, h, w)
    if recipe.mixup and recipe.cutmix:
        weight = torch.where((random[CUT] < 0.5)[:, None, None], kept, weight)
    elif recipe.cutmix:
        weight = kept

    # Of the own view at each pixel; its mean is the share of the own label.
    share = weight.mean((1, 2))[:, None]  # (B, 1)
    weight = weight[:, None]  # (B, 1, h, w) or (B, 1, 1, 1)
    mixed = weight * views + (1 - weight) * others

    classes = torch.arange(num_classes, device=labels.device)
    own = (labels[:, None] == classes).float()  # one-hot, (B, C)
    other = (other_labels[:, None] == classes).float()
    return mixed, share * own + (1 - share) * other


def _kept(random: Tensor, parameter: float, height: int, width: int) -> Tensor:
    """CutMix: 1 where a view stays, 0 in the rectangle that comes from the other: (B,
    height, width) float.
    """
    # of the rectangle, as a share of the image's sides
    side = (1 - _beta(random[SHARE], parameter)).sqrt()
    down, across = (height * side).floor(), (width * side).floor()
    left = (random[CUT_X] * width).floor() - across / 2
    top = (random[CUT_Y] * height).floor() - down / 2
    return (~inside(left, top, left + across, top + down, height, width)).float()


def _beta(uniform: Tensor, parameter: float) -> Tensor:
    """Uniform numbers (B,) in [0, 1) -> numbers from Beta(parameter, parameter), by the
    quantile function interpolated in its table.

    The table is exact at its nodes: for parameters from 0.1 to 1, a number is off by
    less than 1e-6; for others, where the ends are steep, the probability of being below
    any value is off by less than 1 / QUANTILES.
    """
    table = _quantiles(parameter, uniform.device)
    place = uniform * QUANTILES
    below = place.long()
    return torch.lerp(table[below], table[below + 1], place - below)


@lru_cache(maxsize=16)
def _quantiles(parameter: float, device: torch.device) -> Tensor:
    """Quantiles 0, 1/QUANTILES .. 1 of Beta(parameter, parameter): (QUANTILES + 1,)
    float32, made once on the host.
    """
    from scipy import special  # late: only mixed images need it

    probabilities = torch.linspace(0, 1, QUANTILES + 1, dtype=torch.float64)
    quantiles = special.betaincinv(parameter, parameter, probabilities.numpy())
    return torch.from_numpy(quantiles).float().to(device)


def evaluation_view(
    images: Tensor, index: Tensor, recipe: Recipe, resolution: str
) -> Tensor:
    """What evaluation sees: :func:`centre` of the images (B, ...), as it is ("high"),
    degraded by the recipe ("low"), or ("mixed") degraded where index (B,) int64, the
    place in the split, is odd. Raises InputError for low resolution of kept feature
    maps.
    """
    views = centre(images, recipe.image_size)
    if resolution == "high":
        return views
    if resolution not in ("low", "mixed"):
        raise unknown("resolution", resolution, ("high", "low", "mixed"))
    if images.is_floating_point():
        raise InputError(
            "feature maps that were kept cannot be reduced in resolution; evaluate the"
            " network on the images."
        )
    low = degrade(views, recipe.low_side, recipe.upsample)
    if resolution == "low":
        return low
    return torch.where(_each(index % 2 == 1), low, views)


def centre(images: Tensor, image_size: int) -> Tensor:
    """The centre of images (B, 3, S, S) uint8 as (B, 3, image_size, image_size) float32
    in [0, 1]: an exact slice. Of kept feature maps (B, V, n, h, w), those of the image
    that is not mirrored, (B, n, h, w) float32.
    """
    _check(images, image_size)
    if images.is_floating_point():
        return images[:, 0].float()
    start = centre_offset(images.shape[-1], image_size)
    middle = slice(start, start + image_size)
    return images[..., middle, middle].float().div_(255)


def centre_offset(store_size: int, image_size: int) -> int:
    """Pixels that :func:`centre` cuts off at the left and at the top: a box of the
    stored image minus this is the box in what is seen.
    """
    return (store_size - image_size) // 2


def _check(images: Tensor, size: int) -> None:
    """Raises InputError unless images are stored pictures of at least `size` pixels, or
    kept feature maps.
    """
    kept = images.is_floating_point()
    if kept:
        known = images.ndim == 5 and images.shape[1] in (1, 2)
    elif images.dtype == torch.uint8 and images.ndim == 4:
        known = images.shape[1] == 3 and images.shape[2] == images.shape[3]
    else:
        known = False
    if not known:
        found = f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
        raise InputError(
            "images must be (B, 3, S, S) uint8, or kept feature maps (B, 1 or 2, n, h,"
            f" w) of a floating type, not {found}."
        )
    if not kept and images.shape[-1] < size:
        raise InputError(
            f"images of {images.shape[-1]} px are smaller than image_size {size}; load"
            " the data at a larger size."
        )
