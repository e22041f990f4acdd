"""Corruptions: each against an independent definition (scipy, Pillow, loops), and what
all of them promise."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib import colors
from PIL import Image
from scipy import ndimage, stats

from fgbook.errors import InputError
from fgbook.images import augment as A
from fgbook.images import corruptions as C

RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "occlusion"}


def leaves(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Discs of all sizes and colours over each other, with some grain: edges and areas
    much as in photographs. (n, 3, size, size), 8 bits."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] + 0.5
    out = np.zeros((n, 3, size, size))  # what no disc covers is black
    for image in out:
        for radius in size / 2 * np.geomspace(1, 0.05, 60):
            inside = (x - random.uniform(0, size)) ** 2 + (
                y - random.uniform(0, size)
            ) ** 2 < radius**2
            image[:, inside] = random.uniform(0.05, 0.95, (3, 1))
    out += random.normal(0, 0.01, out.shape)
    return torch.from_numpy((out.clip(0, 1) * 255).round() / 255).float()


IMAGES, INDEX = leaves(4, 64), torch.tensor([0, 7, 3, 2**31 + 5])


def uniforms(name: str, count: int, seed: int = 0) -> np.ndarray:
    # (B, count)
    return (
        A.uniforms(A.key(seed, C.NAMES.index(name)), 0, INDEX, count).T.double().numpy()
    )


# what all promise


@pytest.mark.parametrize("name", C.NAMES)
def test_each_severity_does_more_damage_and_stays_in_range(name):
    before, damage = IMAGES.clone(), []
    for severity in range(1, 6):
        out = C.corrupt(IMAGES, name, severity, INDEX)
        assert out.shape == IMAGES.shape
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1
        assert out.isfinite().all()
        damage.append((out - IMAGES).square().mean().item())
    assert torch.equal(IMAGES, before)
    assert damage[0] > 1e-7
    assert damage[1] > 1e-4
    assert all(more > 1.02 * less for less, more in pairwise(damage))


@pytest.mark.parametrize("name", C.NAMES)
def test_an_image_is_damaged_alike_in_any_batch(name):
    whole = C.corrupt(IMAGES, name, 3, INDEX, seed=4)
    assert torch.equal(C.corrupt(IMAGES, name, 3, INDEX, seed=4), whole)
    alone = torch.cat(
        [
            C.corrupt(image[None], name, 3, place[None], seed=4)
            for image, place in zip(IMAGES, INDEX, strict=True)
        ]
    )
    order = torch.tensor([2, 0, 3, 1])
    turned = C.corrupt(IMAGES[order], name, 3, INDEX[order], seed=4)
    # whose sums may be added up in another order
    exact = name not in ("defocus_blur", "motion_blur", "gaussian_blur")
    for other, expected in ((alone, whole), (turned, whole[order])):
        assert (
            torch.equal(other, expected)
            if exact
            else torch.allclose(other, expected, atol=1e-5, rtol=0)
        )
    same = C.corrupt(IMAGES[:1].expand(2, -1, -1, -1), name, 3, torch.tensor([5, 6]))
    assert torch.allclose(same[0], same[1], atol=1e-5, rtol=0) != (name in RANDOM)
    assert torch.allclose(
        C.corrupt(IMAGES, name, 3, INDEX, seed=5), whole, atol=1e-5, rtol=0
    ) != (name in RANDOM)


@pytest.mark.parametrize("size", [1, 5, 33])
def test_any_size_will_do(size):
    for name in C.NAMES:
        assert C.corrupt(leaves(2, size), name, 5, INDEX[:2]).shape == (
            2,
            3,
            size,
            size,
        )


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="fog.*gaussian_noise"):
        C.corrupt(IMAGES, "fog", 1, INDEX)
    for severity in (0, 6, 2.5):
        with pytest.raises(InputError, match="severity"):
            C.corrupt(IMAGES, "jpeg", severity, INDEX)
    for wrong in (IMAGES[0], IMAGES[:, :1], IMAGES[..., :9], (IMAGES * 255).byte()):
        with pytest.raises(InputError, match="floating"):
            C.corrupt(wrong, "jpeg", 1, INDEX)


def test_half_precision_around_it_changes_nothing():
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            C.corrupt(IMAGES, "jpeg", 2, INDEX), C.corrupt(IMAGES, "jpeg", 2, INDEX)
        )
        inside = {
            name: C.corrupt(IMAGES, name, 2, INDEX)
            for name in ("jpeg", "pixelate", "gaussian_blur", "motion_blur")
        }
    for name, found in inside.items():
        assert torch.equal(found, C.corrupt(IMAGES, name, 2, INDEX))


def test_nothing_asks_the_device_for_a_value():
    """Tensors on the device "meta" have no values and do not mix with others: whatever
    reads one, or makes one elsewhere, fails."""
    images, index = (
        torch.rand(3, 3, 24, 24, device="meta"),
        torch.arange(3, device="meta"),
    )
    with pytest.raises(RuntimeError, match="meta"):
        images.mean().item()
    for name in C.NAMES:
        # autocast does not know this device
        found = C.DAMAGE[name](images, C.SEVERITIES[name][2], C.Random(0, name, index))
        assert found.is_meta
        assert found.shape == images.shape


# each one


def check(name: str, expected, atol: float, severities=(1, 3, 5)) -> None:
    """`expected`(images (B, 3, s, s) double, level) is what the corruption gives,
    before it is cut to [0, 1]."""
    for severity in severities:
        found = C.corrupt(IMAGES, name, severity, INDEX).numpy()
        np.testing.assert_allclose(
            found,
            expected(IMAGES.double().numpy(), C.SEVERITIES[name][severity - 1]).clip(
                0, 1
            ),
            atol=atol,
        )


def test_gaussian_noise_is_normal():
    check(
        "gaussian_noise",
        lambda x, sd: (
            x
            + sd
            * stats.norm.ppf(uniforms("gaussian_noise", 3 * 64**2).reshape(x.shape))
        ),
        1e-5,
    )
    noise = (
        C.corrupt(torch.full((4, 3, 64, 64), 0.5), "gaussian_noise", 1, INDEX) - 0.5
    ) / 0.08
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4
    flat = noise.flatten(1)
    related = np.corrcoef(
        torch.cat([flat, flat.roll(1, 1), flat.roll(64, 1)]).numpy()
    ) - np.eye(12)
    # neither images nor neighbours share their noise
    assert np.abs(related).max() < 5 / math.sqrt(flat.shape[1])


@pytest.mark.parametrize("severity", range(1, 6))
def test_shot_noise_is_poissons(severity):
    photons = C.SEVERITIES["shot_noise"][severity - 1]
    chance, images = (
        uniforms("shot_noise", 3 * 64**2).reshape(IMAGES.shape),
        IMAGES.double().numpy(),
    )
    # ppf(0) is -1
    expected = stats.poisson.ppf(chance, images * photons).clip(0, photons) / photons
    found = C.corrupt(IMAGES, "shot_noise", severity, INDEX).numpy()
    # rounding decides where a number falls between two counts
    assert (np.abs(found - expected) > 1e-6).mean() < 1e-4
    black = C.corrupt(torch.zeros(1, 3, 8, 8), "shot_noise", severity, INDEX[:1])
    assert torch.equal(black, torch.zeros_like(black))


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_sets_a_share_of_the_values_half_of_them_to_white(severity):
    share, n = C.SEVERITIES["impulse_noise"][severity - 1], IMAGES.numel()
    found = C.corrupt(IMAGES * 0.5 + 0.25, "impulse_noise", severity, INDEX)
    hit = (found == 0) | (found == 1)
    assert stats.binomtest(hit.sum().item(), n, share).pvalue > 1e-4
    assert (
        stats.binomtest((found == 1).sum().item(), hit.sum().item(), 0.5).pvalue > 1e-4
    )
    assert torch.equal(found[~hit], (IMAGES * 0.5 + 0.25)[~hit])


def test_gaussian_blur_is_scipys():
    scale = 64 / 224
    check(
        "gaussian_blur",
        lambda x, sd: ndimage.gaussian_filter(
            x, (0, 0, sd * scale, sd * scale), mode="nearest", truncate=4.0
        ),
        1e-5,
    )


def test_defocus_is_the_mean_over_a_disc():
    def slow(images, radius):
        radius = radius * 64 / 224
        reach = int(radius) + 2
        kernel = [
            [
                min(1, max(0, radius + 0.5 - math.hypot(x, y)))
                for x in range(-reach, reach + 1)
            ]
            for y in range(-reach, reach + 1)
        ]
        return ndimage.convolve(
            images, np.array(kernel)[None, None] / np.sum(kernel), mode="nearest"
        )

    check("defocus_blur", slow, 1e-5)


def test_motion_is_a_walk_over_the_image():
    angles = math.pi / 4 * (2 * uniforms("motion_blur", 1)[:, 0] - 1)
    row, column = np.mgrid[:64, :64].astype(float)

    def slow(images, level):
        half, sd = (length * 64 / 224 for length in level)
        walk = np.arange(0, 2 * half + 0.5, 0.5)
        weight = np.exp(-(walk**2) / (2 * sd**2))
        weight /= weight.sum()
        out = np.zeros_like(images)
        for image, angle, result in zip(images, angles, out, strict=True):
            for step, share in zip(walk - (walk * weight).sum(), weight, strict=True):
                place = [row - step * math.sin(angle), column - step * math.cos(angle)]
                result += share * np.stack(
                    [
                        ndimage.map_coordinates(channel, place, order=1, mode="nearest")
                        for channel in image
                    ]
                )
        return out

    check("motion_blur", slow, 1e-5)
    angle = torch.tensor(angles, dtype=torch.float32)
    kernel = C._streak(20.0, 15.0, angle).double()
    torch.testing.assert_close(
        kernel.sum((1, 2)), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0
    )
    middle = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    assert (kernel.sum(1) * middle).sum(1).abs().max() < 1e-3
    assert (kernel.sum(2) * middle).sum(1).abs().max() < 1e-3


def test_brightness_adds_to_the_value_of_hsv():
    def slow(images, more):
        hsv = colors.rgb_to_hsv(images.transpose(0, 2, 3, 1))
        hsv[..., 2] = (hsv[..., 2] + more).clip(max=1)
        return colors.hsv_to_rgb(hsv).transpose(0, 3, 1, 2)

    check("brightness", slow, 1e-5)
    assert torch.allclose(
        C.corrupt(torch.zeros(1, 3, 2, 2), "brightness", 2, INDEX[:1]),
        torch.tensor(0.2),
    )


def test_contrast_draws_all_to_the_mean_colour():
    check(
        "contrast",
        lambda x, factor: x.mean((2, 3), keepdims=True) * (1 - factor) + x * factor,
        1e-5,
    )


@pytest.mark.parametrize("size", [64, 83])
def test_jpeg_is_pillows(size):
    """Nearly all pixels are within one grey level. libjpeg's integer transforms round
    otherwise: now and then a block's coefficient falls to the next step, which is a
    large one at these qualities."""
    images, apart, changed = leaves(4, size, seed=3), [], []
    for severity, quality in enumerate(C.SEVERITIES["jpeg"], 1):
        found = C.corrupt(images, "jpeg", severity, INDEX).permute(0, 2, 3, 1) * 255
        for before, ours in zip(
            images.permute(0, 2, 3, 1) * 255, found.numpy(), strict=True
        ):
            packed = io.BytesIO()
            Image.fromarray(before.round().byte().numpy()).save(
                packed, "JPEG", quality=quality
            )
            with Image.open(packed) as opened:
                theirs, tables = np.asarray(opened, dtype=float), opened.quantization
            for own, table in zip(
                C._tables(quality, torch.device("cpu")),
                (tables[0], tables[1]),
                strict=True,
            ):
                assert own.flatten().tolist() == list(table)
            apart.append(np.abs(ours - theirs))
            changed.append(np.abs(theirs - before.numpy()))
    assert np.mean(apart) < 0.04 * np.mean(changed)
    assert np.mean(np.array(apart) < 1.5) > 0.85


def test_pixels_become_means_over_squares():
    def slow(images, level):
        few = int(64 * level)
        edges = np.linspace(0, 64, few + 1)
        # integral image, linear between whole pixels
        total = np.pad(images, ((0, 0), (0, 0), (1, 0), (1, 0))).cumsum(2).cumsum(3)
        for axis in (2, 3):
            total = np.apply_along_axis(
                lambda line: np.interp(edges, np.arange(65), line), axis, total
            )
        means = np.diff(np.diff(total, axis=2), axis=3) * (few / 64) ** 2
        place = ((np.arange(64) + 0.5) * few / 64).astype(int)
        return means[:, :, place][:, :, :, place]

    check("pixelate", slow, 1e-5)


def test_occlusion_greys_out_whole_cells_and_more_of_the_same():
    before = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    for severity, share in enumerate(C.SEVERITIES["occlusion"], 1):
        found = C.corrupt(IMAGES, "occlusion", severity, INDEX)
        # (4, 1, 8, 8)
        cells = (
            (found == 0.5)
            .all(1, keepdim=True)
            .unflatten(3, (8, 8))
            .unflatten(2, (8, 8))
            .all(5)
            .all(3)
        )
        assert (cells.sum((1, 2, 3)) == round(64 * share)).all()
        assert (cells | ~before).all()
        hidden = cells.repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(found)
        assert torch.equal(found[~hidden], IMAGES[~hidden])
        before = cells
    assert len({tuple(one.flatten().tolist()) for one in before}) == 4


def test_low_resolution_is_the_views_of_training():
    for severity, share in enumerate(C.SEVERITIES["low_resolution"], 1):
        assert torch.equal(
            C.corrupt(IMAGES, "low_resolution", severity, INDEX),
            A.degrade(IMAGES, round(64 * share), "bicubic"),
        )
