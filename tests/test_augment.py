"""Augmentation: random numbers that depend on counters alone, and one affine sampling against a slow loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fgbook import augment as A
from fgbook.errors import InputError
from fgbook.recipe import Recipe


def pictures(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def recipe(size: int, stored: int, **fields) -> Recipe:
    return Recipe(image_size=size, store_size=stored, **fields)


# random numbers


def test_uniform_depends_on_its_counters_only():
    index = torch.randperm(1000, generator=torch.Generator().manual_seed(1)) * 7919
    whole = A.uniform(5, 3, index, 2)
    assert torch.equal(torch.cat([A.uniform(5, 3, part, 2) for part in index.split(37)]), whole)
    assert torch.equal(A.uniforms(5, 3, index, 4)[2], whole)
    one = [A.mix(A.mix(A.mix(i) ^ A.key(5, 3)) ^ A.mix(3)) >> 8 for i in index.tolist()]  # the same in unbounded Python integers
    assert torch.equal(torch.tensor(one, dtype=torch.float64) / 2**24, whole.double())
    assert whole.dtype == torch.float32 and 0 <= whole.min() and whole.max() < 1


def test_mix_is_one_to_one_and_stays_in_32_bits():
    values = torch.cat([torch.arange(200_000), 2**32 - 1 - torch.arange(200_000)])
    mixed = A.mix(values)
    assert len(mixed.unique()) == len(values) and mixed.min() >= 0 and mixed.max() < 2**32


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 1])
def test_uniform_is_uniform_and_streams_epochs_and_seeds_are_unrelated(seed):
    index, n = torch.arange(20_000), 20_000
    draws = [A.uniform(seed, epoch, index, stream) for epoch in (0, 1) for stream in range(7)] + [A.uniform(seed + 1, 0, index, 0)]
    for draw in draws:
        assert stats.kstest(draw.numpy(), "uniform").pvalue > 1e-5
    related = np.corrcoef(torch.stack(draws + [draws[0].roll(1), draws[0].roll(2)]).numpy()) - np.eye(len(draws) + 2)
    assert np.abs(related).max() < 5 / math.sqrt(n)


def test_key_sees_every_argument():
    keys = [A.key(s, e, k) for s in (0, 1, -1, 2**32, 2**33) for e in range(20) for k in range(20)]
    assert len(set(keys)) == len(keys)


# geometry


def slow(image: np.ndarray, size: int, left: float, top: float, side: float, mirror: bool, angle: float) -> np.ndarray:
    """One image, pixel by pixel: (3, S, S) in [0, 1] -> (3, size, size). Rotation and mirror are about the centre of the square."""
    stored = image.shape[-1]
    out = np.zeros((3, size, size))

    def at(y, x):  # mirrored at the edges between pixels -1 | 0 and S - 1 | S
        y, x = (v % (2 * stored) for v in (y, x))
        return image[:, min(y, 2 * stored - 1 - y), min(x, 2 * stored - 1 - x)]

    for row in range(size):
        for column in range(size):
            u = (column + 0.5) / size * side - side / 2  # from the centre of the square, stored pixels
            v = (row + 0.5) / size * side - side / 2
            u = -u if mirror else u
            x = left + side / 2 + u * math.cos(angle) - v * math.sin(angle) - 0.5
            y = top + side / 2 + u * math.sin(angle) + v * math.cos(angle) - 0.5
            x0, y0 = math.floor(x), math.floor(y)
            fx, fy = x - x0, y - y0
            above, below = (at(y, x0) * (1 - fx) + at(y, x0 + 1) * fx for y in (y0, y0 + 1))
            out[:, row, column] = above * (1 - fy) + below * fy
    return out


@pytest.mark.parametrize("fields", [
    {}, {"flip": False}, {"rotate": 30.0}, {"crop_scale": 0.5}, {"crop_scale": 0.3, "rotate": 180.0}, {"crop_scale": 1.0},
    {"rotate": 15.0, "jitter": 0.4},
])  # fmt: skip
@pytest.mark.parametrize("stored", [20, 27])
def test_augment_equals_a_slow_loop(fields, stored):
    size, seed, epoch = 14, 3, 2
    images, index = pictures(6, stored), torch.tensor([0, 5, 17, 1000, 3, 99])
    chosen = recipe(size, stored, **fields)
    fast = A.augment(images, index, chosen, seed, epoch)
    streams = (A.PLACE_X, A.PLACE_Y, A.ZOOM, A.FLIP, A.ROTATE, A.BRIGHTNESS, A.CONTRAST)
    x, y, zoom, flip, rotate, bright, contrast = (A.uniform(seed, epoch, index, stream).double().tolist() for stream in streams)
    for i, image in enumerate(images.numpy() / 255.0):
        if chosen.crop_scale:
            side = stored * (chosen.crop_scale + (1 - chosen.crop_scale) * zoom[i])
            left, top = x[i] * (stored - side), y[i] * (stored - side)
        else:
            side, left, top = size, int(x[i] * (stored - size + 1)), int(y[i] * (stored - size + 1))
        expected = slow(image, size, left, top, side, chosen.flip and flip[i] < 0.5, math.radians(chosen.rotate) * (2 * rotate[i] - 1))
        if chosen.jitter:
            expected = expected * (1 + chosen.jitter * (2 * bright[i] - 1))
            expected = expected.mean() + (expected - expected.mean()) * (1 + chosen.jitter * (2 * contrast[i] - 1))
        assert np.abs(fast[i].numpy() - expected.clip(0, 1)).max() < 1e-4


def test_crops_are_slices_of_every_place_mirrored_half_of_the_time():
    stored, size, n = 10, 8, 4000
    ramp = torch.arange(stored * stored, dtype=torch.uint8).view(1, 1, stored, stored).expand(n, 3, -1, -1)  # the value tells the place
    out = A.augment(ramp, torch.arange(n), recipe(size, stored), 0, 0) * 255
    assert (out - out.round()).abs().max() < 1e-2
    rows = out[:, 0].round().long()
    mirrored = rows[:, 0, 0] > rows[:, 0, 1]
    rows = torch.where(mirrored[:, None, None], rows.flip(2), rows)
    top, left = rows[:, 0, 0] // stored, rows[:, 0, 0] % stored
    places = torch.arange(size)
    assert torch.equal(rows, (top[:, None, None] + places[:, None]) * stored + left[:, None, None] + places)
    counts = torch.bincount((top * 3 + left) * 2 + mirrored, minlength=18)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5 and len(counts) == 18


@settings(max_examples=40, deadline=None)
@given(stored=st.integers(8, 40), share=st.floats(0.2, 1), scale=st.floats(0, 1), rotate=st.floats(0, 360), jitter=st.floats(0, 2),
       seed=st.integers(-(2**63), 2**63), epoch=st.integers(0, 10**6), split=st.integers(1, 4))  # fmt: skip
def test_any_setting_gives_the_same_images_in_any_batch(stored, share, scale, rotate, jitter, seed, epoch, split):
    chosen = recipe(max(1, int(stored * share)), stored, crop_scale=scale, rotate=rotate, jitter=jitter)
    images, index = pictures(5, stored, seed % 2**31), torch.tensor([4, 0, 70_000, 2**40, 3])
    whole = A.augment(images, index, chosen, seed, epoch)
    assert whole.shape == (5, 3, chosen.image_size, chosen.image_size) and whole.dtype == torch.float32
    assert whole.isfinite().all() and whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(torch.cat([A.augment(x, i, chosen, seed, epoch) for x, i in zip(images.split(split), index.split(split))]), whole)


def test_epochs_differ_and_nothing_random_is_left_when_all_is_off():
    images, index = pictures(8, 16), torch.arange(8)
    chosen = recipe(12, 16)
    assert not torch.equal(A.augment(images, index, chosen, 0, 0), A.augment(images, index, chosen, 0, 1))
    still = A.augment(images, index, recipe(16, 16, flip=False), 0, 0)
    assert (still - images / 255).abs().max() < 1e-4


@pytest.mark.parametrize("stored,size", [(16, 16), (16, 11), (17, 12), (5, 1)])
def test_centre_is_a_slice_and_its_offset_moves_boxes(stored, size):
    images = pictures(3, stored)
    seen, offset = A.centre(images, size), A.centre_offset(stored, size)
    for y in range(size):
        for x in range(size):
            assert torch.equal(seen[:, :, y, x], images[:, :, y + offset, x + offset].float() / 255)
    assert 0 <= (stored - size - offset) - offset <= 1  # as much is cut at the far side, or a pixel more


def test_wrong_images_are_refused():
    with pytest.raises(InputError, match="smaller than image_size 20"):
        A.augment(pictures(1, 16), torch.arange(1), recipe(20, 20), 0, 0)
    for wrong in (pictures(1, 16).float(), pictures(1, 16)[:, :1], pictures(1, 16)[0], pictures(1, 16)[..., :8]):
        with pytest.raises(InputError, match="uint8"):
            A.centre(wrong, 4)
