"""Augmentation: random numbers that depend on counters alone; sampling, erasing,
degrading and mixing against slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fgbook.errors import InputError
from fgbook.images import augment as A
from fgbook.recipe import Recipe


def pictures(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (n, 3, size, size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )


def recipe(size: int, stored: int, **fields) -> Recipe:
    return Recipe(image_size=size, store_size=stored, **fields)


# random numbers


def test_uniform_depends_on_its_counters_only():
    index = torch.randperm(1000, generator=torch.Generator().manual_seed(1)) * 7919
    whole = A.uniform(5, 3, index, 2)
    assert torch.equal(
        torch.cat([A.uniform(5, 3, part, 2) for part in index.split(37)]), whole
    )
    assert torch.equal(A.uniforms(5, 3, index, 4)[2], whole)
    assert whole.dtype == torch.float32
    assert whole.min() >= 0
    assert whole.max() < 1


def scrambled(x: int) -> int:
    for shift, factor in ((15, 739_982_445), (12, 695_872_825)):
        x = (x ^ x >> shift) * factor % 2**32
    return x ^ x >> 15


def counted(seed: int, epoch: int, index: int, stream: int) -> float:
    """The random number with these counters, in Python integers, written apart from the
    package."""
    state = scrambled(scrambled(seed % 2**32 ^ 2_654_435_769) ^ (seed >> 32) % 2**32)
    state = scrambled(scrambled((epoch + 2_135_587_861) % 2**32) ^ state)
    return (
        scrambled(scrambled(scrambled(index % 2**32) ^ state) ^ scrambled(stream + 1))
        >> 8
    ) / 2**24


def test_the_random_numbers_of_published_runs_stay_what_they_were():
    assert tuple(range(18)) == (
        A.PLACE_X,
        A.PLACE_Y,
        A.ZOOM,
        A.FLIP,
        A.ROTATE,
        A.BRIGHTNESS,
        A.CONTRAST,
        A.ERASE,
        A.ERASE_AREA,
        A.ERASE_ASPECT,
        A.ERASE_X,
        A.ERASE_Y,
        A.RESOLUTION,
        A.PARTNER,
        A.SHARE,
        A.CUT_X,
        A.CUT_Y,
        A.CUT,
    )
    index = torch.tensor([0, 1, 2, 70_000, 2**31 + 5, 2**40 + 3])
    for seed, epoch in ((0, 0), (5, 3), (-1, 10**6), (2**40 + 1, 7)):
        expected = [
            [counted(seed, epoch, i, stream) for i in index.tolist()]
            for stream in range(A.STREAMS)
        ]
        assert torch.equal(
            A.uniforms(seed, epoch, index, A.STREAMS).double(),
            torch.tensor(expected, dtype=torch.float64),
        )


def test_scramble_is_one_to_one_and_stays_in_32_bits():
    values = torch.cat([torch.arange(200_000), 2**32 - 1 - torch.arange(200_000)])
    mixed = A.scramble(values)
    assert len(mixed.unique()) == len(values)
    assert mixed.min() >= 0
    assert mixed.max() < 2**32


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 1])
def test_uniform_is_uniform_and_streams_epochs_and_seeds_are_unrelated(seed):
    index, n = torch.arange(20_000), 20_000
    draws = [
        A.uniform(seed, epoch, index, stream)
        for epoch in (0, 1)
        for stream in range(A.STREAMS)
    ] + [A.uniform(seed + 1, 0, index, 0)]
    for draw in draws:
        assert stats.kstest(draw.numpy(), "uniform").pvalue > 1e-5
    related = np.corrcoef(
        torch.stack([*draws, draws[0].roll(1), draws[0].roll(2)]).numpy()
    ) - np.eye(len(draws) + 2)
    assert np.abs(related).max() < 5 / math.sqrt(n)


def test_key_sees_every_argument():
    keys = [
        A.key(s, e, k)
        for s in (0, 1, -1, 2**32, 2**33)
        for e in range(20)
        for k in range(20)
    ]
    assert len(set(keys)) == len(keys)


# geometry


def slow(
    image: np.ndarray,
    size: int,
    left: float,
    top: float,
    side: float,
    mirror: bool,
    angle: float,
) -> np.ndarray:
    """One image, pixel by pixel: (3, S, S) in [0, 1] -> (3, size, size). Rotation and
    mirror are about the centre of the square."""
    stored = image.shape[-1]
    out = np.zeros((3, size, size))

    def at(y, x):  # mirrored at the edges between pixels -1 | 0 and S - 1 | S
        y, x = (v % (2 * stored) for v in (y, x))
        return image[:, min(y, 2 * stored - 1 - y), min(x, 2 * stored - 1 - x)]

    for row in range(size):
        for column in range(size):
            # from the centre of the square, stored pixels
            u = (column + 0.5) / size * side - side / 2
            v = (row + 0.5) / size * side - side / 2
            u = -u if mirror else u
            x = left + side / 2 + u * math.cos(angle) - v * math.sin(angle) - 0.5
            y = top + side / 2 + u * math.sin(angle) + v * math.cos(angle) - 0.5
            x0, y0 = math.floor(x), math.floor(y)
            fx, fy = x - x0, y - y0
            above, below = (
                at(y, x0) * (1 - fx) + at(y, x0 + 1) * fx for y in (y0, y0 + 1)
            )
            out[:, row, column] = above * (1 - fy) + below * fy
    return out


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flip": False},
        {"rotate": 30.0},
        {"crop_scale": 0.5},
        {"crop_scale": 0.3, "rotate": 180.0},
        {"crop_scale": 1.0},
        {"rotate": 15.0, "jitter": 0.4},
    ],
)
@pytest.mark.parametrize("stored", [20, 27])
def test_augment_equals_a_slow_loop(fields, stored):
    size, seed, epoch = 14, 3, 2
    images, index = pictures(6, stored), torch.tensor([0, 5, 17, 1000, 3, 99])
    chosen = recipe(size, stored, **fields)
    fast = A.augment(images, index, chosen, seed, epoch)
    streams = (A.PLACE_X, A.PLACE_Y, A.ZOOM, A.FLIP, A.ROTATE, A.BRIGHTNESS, A.CONTRAST)
    x, y, zoom, flip, rotate, bright, contrast = (
        A.uniform(seed, epoch, index, stream).double().tolist() for stream in streams
    )
    for i, image in enumerate(images.numpy() / 255.0):
        if chosen.crop_scale:
            side = stored * (chosen.crop_scale + (1 - chosen.crop_scale) * zoom[i])
            left, top = x[i] * (stored - side), y[i] * (stored - side)
        else:
            side, left, top = (
                size,
                int(x[i] * (stored - size + 1)),
                int(y[i] * (stored - size + 1)),
            )
        expected = slow(
            image,
            size,
            left,
            top,
            side,
            chosen.flip and flip[i] < 0.5,
            math.radians(chosen.rotate) * (2 * rotate[i] - 1),
        )
        if chosen.jitter:
            expected = expected * (1 + chosen.jitter * (2 * bright[i] - 1))
            expected = expected.mean() + (expected - expected.mean()) * (
                1 + chosen.jitter * (2 * contrast[i] - 1)
            )
        assert np.abs(fast[i].numpy() - expected.clip(0, 1)).max() < 1e-4


def test_crops_are_slices_of_every_place_mirrored_half_of_the_time():
    stored, size, n = 10, 8, 4000
    # the value tells the place
    ramp = (
        torch.arange(stored * stored, dtype=torch.uint8)
        .view(1, 1, stored, stored)
        .expand(n, 3, -1, -1)
    )
    out = A.augment(ramp, torch.arange(n), recipe(size, stored), 0, 0) * 255
    assert (out - out.round()).abs().max() < 1e-2
    rows = out[:, 0].round().long()
    mirrored = rows[:, 0, 0] > rows[:, 0, 1]
    rows = torch.where(mirrored[:, None, None], rows.flip(2), rows)
    top, left = rows[:, 0, 0] // stored, rows[:, 0, 0] % stored
    places = torch.arange(size)
    assert torch.equal(
        rows,
        (top[:, None, None] + places[:, None]) * stored + left[:, None, None] + places,
    )
    counts = torch.bincount((top * 3 + left) * 2 + mirrored, minlength=18)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5
    assert len(counts) == 18


@settings(max_examples=40, deadline=None)
@given(
    stored=st.integers(8, 40),
    share=st.floats(0.2, 1),
    scale=st.floats(0, 1),
    rotate=st.floats(0, 180),
    jitter=st.floats(0, 1),
    seed=st.integers(-(2**63), 2**63),
    epoch=st.integers(0, 10**6),
    split=st.integers(1, 4),
)
def test_any_setting_gives_the_same_images_in_any_batch(
    stored, share, scale, rotate, jitter, seed, epoch, split
):
    chosen = recipe(
        max(1, int(stored * share)),
        stored,
        crop_scale=scale,
        rotate=rotate,
        jitter=jitter,
    )
    images, index = (
        pictures(5, stored, seed % 2**31),
        torch.tensor([4, 0, 70_000, 2**40, 3]),
    )
    whole = A.augment(images, index, chosen, seed, epoch)
    assert whole.shape == (5, 3, chosen.image_size, chosen.image_size)
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert torch.equal(
        torch.cat(
            [
                A.augment(x, i, chosen, seed, epoch)
                for x, i in zip(images.split(split), index.split(split), strict=True)
            ]
        ),
        whole,
    )


def test_epochs_differ_and_nothing_random_is_left_when_all_is_off():
    images, index = pictures(8, 16), torch.arange(8)
    chosen = recipe(12, 16)
    assert not torch.equal(
        A.augment(images, index, chosen, 0, 0), A.augment(images, index, chosen, 0, 1)
    )
    still = A.augment(images, index, recipe(16, 16, flip=False), 0, 0)
    assert (still - images / 255).abs().max() < 1e-4


@pytest.mark.parametrize("stored,size", [(16, 16), (16, 11), (17, 12), (5, 1)])
def test_centre_is_a_slice_and_its_offset_moves_boxes(stored, size):
    images = pictures(3, stored)
    seen, offset = A.centre(images, size), A.centre_offset(stored, size)
    for y in range(size):
        for x in range(size):
            assert torch.equal(
                seen[:, :, y, x], images[:, :, y + offset, x + offset].float() / 255
            )
    # as much is cut at the far side, or a pixel more
    assert 0 <= (stored - size - offset) - offset <= 1


def test_wrong_images_are_refused():
    with pytest.raises(InputError, match="smaller than image_size 20"):
        A.augment(pictures(1, 16), torch.arange(1), recipe(20, 20), 0, 0)
    for wrong in (
        pictures(1, 16).float(),
        pictures(1, 16)[:, :1],
        pictures(1, 16)[0],
        pictures(1, 16)[..., :8],
        torch.rand(1, 3, 3, 4, 4),
    ):
        with pytest.raises(InputError, match="uint8"):
            A.centre(wrong, 4)


# erasing and resolution


def same_in_parts(make, index: torch.Tensor, *tensors: torch.Tensor) -> bool:
    """Whether make(index, *tensors) gives each image the same alone, in parts and in
    another order as in the whole batch."""
    whole, last = make(index, *tensors), torch.arange(len(index)).flip(0)
    parts = []
    for split in (1, 3):
        pieces = [x.split(split) for x in (index, *tensors)]
        made = [make(*part) for part in zip(*pieces, strict=True)]
        parts.append(torch.cat(made))
    return all(torch.equal(part, whole) for part in parts) and torch.equal(
        make(index[last], *(x[last] for x in tensors)), whole[last]
    )


def test_erasing_is_a_slow_loop():
    size, seed, epoch, share = 23, 4, 1, 0.6
    images, index = pictures(40, size), torch.arange(40) * 31
    without = A.augment(images, index, recipe(size, size), seed, epoch)
    erased = A.augment(images, index, recipe(size, size, erase=share), seed, epoch)
    changed = 0
    for before, after, i in zip(
        without.double().numpy(), erased.numpy(), index.tolist(), strict=True
    ):
        chance, area, aspect, x, y = (
            counted(seed, epoch, i, s)
            for s in (A.ERASE, A.ERASE_AREA, A.ERASE_ASPECT, A.ERASE_X, A.ERASE_Y)
        )
        expected = before.copy()
        if chance < share:
            changed += 1
            pixels, ratio = (0.02 + 0.31 * area) * size**2, 0.3 * 11**aspect
            height, width = (
                min(size, max(1, round(math.sqrt(pixels * r))))
                for r in (ratio, 1 / ratio)
            )
            top, left = int(y * (size - height + 1)), int(x * (size - width + 1))
            expected[:, top : top + height, left : left + width] = before.mean((1, 2))[
                :, None, None
            ]
        np.testing.assert_allclose(after, expected, atol=1e-6)
    assert 15 < changed < 33


def test_erased_areas_are_uniform_and_all_of_them_at_share_one():
    size, n = 60, 2000
    # no two pixels alike
    views = (
        torch.arange(size * size).view(1, 1, size, size).expand(n, 3, -1, -1) / size**2
    )
    random = A.uniforms(0, 0, torch.arange(n), A.STREAMS)
    area = (A._erase(views, random, 1.0) != views).any(1).float().mean((1, 2))
    # sides are whole pixels
    assert stats.kstest(area.numpy(), stats.uniform(0.02, 0.31).cdf).statistic < 0.05
    assert torch.equal(A._erase(views[:9], random[:, :9], 0.0), views[:9])


def resized(
    line: np.ndarray, length: int, kernel, support: float, widen: float
) -> np.ndarray:
    """One line of pixels at another length: weights are a kernel's values at the
    distances, `widen` times as wide, summing to 1."""
    out = np.zeros(length)
    for i in range(length):
        centre = (i + 0.5) * len(line) / length - 0.5
        places = range(
            math.floor(centre - support * widen),
            math.ceil(centre + support * widen) + 1,
        )
        # reducing: only pixels inside count; enlarging: the border goes on
        if widen > 1:
            places = [j for j in places if 0 <= j < len(line)]
        weights = [kernel((j - centre) / widen) for j in places]
        out[i] = sum(
            w * line[min(max(j, 0), len(line) - 1)]
            for j, w in zip(places, weights, strict=True)
        ) / sum(weights)
    return out


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    return (
        (a + 2) * x**3 - (a + 3) * x**2 + 1
        if x <= 1
        else a * (x**3 - 5 * x**2 + 8 * x - 4)
        if x < 2
        else 0.0
    )


@pytest.mark.parametrize("size,side", [(24, 6), (25, 7), (16, 15), (9, 1)])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_degrading_is_a_slow_loop(size, side, mode):
    # so that bicubic overshoots
    views = (
        torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) > 0.5
    ).float()
    expected = views.double().numpy()
    for axis in (2, 3):
        expected = np.apply_along_axis(
            resized, axis, expected, side, triangle, 1, size / side
        )
    for axis in (2, 3):
        expected = np.apply_along_axis(
            resized,
            axis,
            expected,
            size,
            cubic if mode == "bicubic" else triangle,
            2 if mode == "bicubic" else 1,
            1,
        )
    got = A.degrade(views, side, mode)
    np.testing.assert_allclose(got.numpy(), expected.clip(0, 1), atol=2e-6)
    assert got.shape == views.shape
    assert got.min() >= 0
    assert got.max() <= 1


def test_training_sees_the_resolution_of_the_recipe():
    images, index = pictures(200, 20), torch.arange(200)
    chosen = recipe(16, 20, rotate=10, jitter=0.2, erase=0.5, low_side=5)
    high, low, mixed = (
        A.augment(images, index, chosen.but(resolution=kind), 1, 2)
        for kind in ("high", "low", "mixed")
    )
    assert torch.equal(high, A.augment(images, index, chosen, 1, 2))
    assert torch.equal(low, A.degrade(high, 5, "bicubic"))
    assert torch.equal(
        A.augment(
            images, index, chosen.but(resolution="low", upsample="bilinear"), 1, 2
        ),
        A.degrade(high, 5, "bilinear"),
    )
    coin = torch.tensor([counted(1, 2, i, A.RESOLUTION) < 0.5 for i in range(200)])
    assert torch.equal(mixed[coin], low[coin])
    assert torch.equal(mixed[~coin], high[~coin])
    assert 70 < coin.sum() < 130
    for kind in ("low", "mixed"):
        one = chosen.but(resolution=kind)

        def make(i, x, one=one):
            return A.augment(x, i, one, 1, 2)

        assert same_in_parts(make, index[:7], images[:7])


def test_evaluation_sees_the_centre_at_the_asked_resolution():
    images, index, chosen = (
        pictures(6, 20),
        torch.tensor([3, 0, 8, 5, 7, 10]),
        recipe(16, 20, low_side=4),
    )
    high, low, mixed = (
        A.evaluation_view(images, index, chosen, kind)
        for kind in ("high", "low", "mixed")
    )
    assert torch.equal(high, A.centre(images, 16))
    assert torch.equal(low, A.degrade(high, 4, "bicubic"))
    for i, place in enumerate(index.tolist()):
        assert torch.equal(mixed[i], low[i] if place % 2 else high[i])
    with pytest.raises(InputError, match="resolution"):
        A.evaluation_view(images, index, chosen, "lo")
    with pytest.raises(InputError, match="feature maps"):
        A.evaluation_view(torch.rand(6, 1, 8, 2, 2), index, chosen, "low")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_kept_feature_maps_are_mirrored_as_their_images_would_be(dtype):
    maps, index, chosen = (
        torch.randn(9, 2, 5, 3, 3).to(dtype),
        torch.arange(9) * 7,
        recipe(16, 20),
    )
    seen = A.augment(maps, index, chosen, 2, 4)
    mirrored = [counted(2, 4, i, A.FLIP) < 0.5 for i in index.tolist()]
    assert seen.dtype == torch.float32
    assert 0 < sum(mirrored) < 9
    for i, second in enumerate(mirrored):
        assert torch.equal(seen[i], maps[i, int(second)].float())
    plain = maps[:, 0].float()
    assert torch.equal(A.augment(maps, index, chosen.but(flip=False), 2, 4), plain)
    assert torch.equal(A.centre(maps, 16), plain)
    assert torch.equal(A.augment(maps[:, :1], index, chosen, 2, 4), plain)
    assert torch.equal(A.evaluation_view(maps, index, chosen, "high"), plain)
    with pytest.raises(InputError, match="feature maps"):
        A.augment(maps[:, :1].expand(-1, 3, -1, -1, -1), index, chosen, 2, 4)


# mixing


def test_partners_are_any_other_image_equally_often():
    count, epochs = 7, 1500
    index = torch.arange(count)
    # (epochs, 7)
    chosen = torch.stack(
        [A.partners(index, count, 3, epoch) for epoch in range(epochs)]
    )
    assert chosen.dtype == torch.int64
    assert chosen.min() >= 0
    assert chosen.max() < count
    assert not (chosen == index).any()
    for image in range(count):
        found = torch.bincount(chosen[:, image], minlength=count).numpy()
        assert stats.chisquare(np.delete(found, image)).pvalue > 1e-5
    assert same_in_parts(
        lambda i: A.partners(i, 10**6, 3, 1), torch.arange(0, 10**6, 10**5 + 1)
    )
    ahead = [i + 1 + int(counted(3, 1, i, A.PARTNER) * (10**6 - 1)) for i in range(5)]
    assert A.partners(torch.arange(5), 10**6, 3, 1).tolist() == [
        place % 10**6 for place in ahead
    ]
    assert A.partners(torch.tensor([0, 1]), 2, 0, 0).tolist() == [1, 0]
    assert A.partners(torch.tensor([0]), 1, 0, 0).tolist() == [0]


@pytest.mark.parametrize("parameter", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0])
def test_shares_come_from_the_beta_distribution(parameter):
    nodes = np.linspace(0, 1, A.QUANTILES + 1)
    np.testing.assert_allclose(
        A._quantiles(parameter, torch.device("cpu")).numpy(),
        stats.beta.ppf(nodes, parameter, parameter),
        atol=1e-7,
    )
    chance = torch.cat(
        [
            A.uniform(0, 0, torch.arange(20_000), A.SHARE),
            torch.tensor([0.0, 1 - 2.0**-24]),
        ]
    )
    got = A._beta(chance, parameter).double().numpy()
    exact = stats.beta.ppf(chance.double().numpy(), parameter, parameter)
    assert got.min() >= 0
    assert got.max() <= 1
    if parameter <= 1:
        assert np.abs(got - exact).max() < 1e-6
    else:
        assert (
            np.abs(
                stats.beta.cdf(got, parameter, parameter) - chance.double().numpy()
            ).max()
            < 1 / A.QUANTILES
        )


@pytest.mark.parametrize(
    "fields", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 2.0}]
)
@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 7, 9)])
def test_mixing_is_a_slow_loop(fields, shape):
    n, classes, seed, epoch = 30, 6, 5, 2
    generator = torch.Generator().manual_seed(0)
    views, others = torch.rand(2, n, *shape, generator=generator)
    labels, other_labels = torch.randint(classes, (2, n), generator=generator)
    chosen, index = recipe(16, 16, **fields), torch.arange(n) * 13
    mixed, targets = A.mix(
        views, others, labels, other_labels, classes, index, chosen, seed, epoch
    )
    assert mixed.shape == views.shape
    assert targets.shape == (n, classes)
    assert targets.dtype == torch.float32
    height, width = shape[1:]
    pasted = 0
    for k, i in enumerate(index.tolist()):
        chance, x, y, coin = (
            counted(seed, epoch, i, stream)
            for stream in (A.SHARE, A.CUT_X, A.CUT_Y, A.CUT)
        )
        cut = chosen.cutmix > 0 and (chosen.mixup == 0 or coin < 0.5)
        parameter = chosen.cutmix if cut else chosen.mixup
        share = stats.beta.ppf(chance, parameter, parameter)
        if cut:
            expected, other = views[k].clone(), 0
            down, across = (
                int(height * math.sqrt(1 - share)),
                int(width * math.sqrt(1 - share)),
            )
            top, left = int(y * height) - down // 2, int(x * width) - across // 2
            for row in range(max(0, top), min(height, top + down)):
                for column in range(max(0, left), min(width, left + across)):
                    expected[:, row, column] = others[k, :, row, column]
                    other += 1
            assert torch.equal(mixed[k], expected)
            share, pasted = 1 - other / (height * width), pasted + (other > 0)
        else:
            torch.testing.assert_close(
                mixed[k],
                (share * views[k].double() + (1 - share) * others[k].double()).float(),
                atol=2e-6,
                rtol=0,
            )
        probabilities = np.zeros(classes)
        probabilities[labels[k]] += share
        probabilities[other_labels[k]] += 1 - share
        np.testing.assert_allclose(targets[k].numpy(), probabilities, atol=2e-6)
    assert pasted > 5 or not chosen.cutmix

    def make(i, *rest):
        mixed = A.mix(*rest, classes, i, chosen, seed, epoch)
        return torch.cat([part.flatten(1) for part in mixed], 1)

    assert same_in_parts(make, index, views, others, labels, other_labels)


def test_mixing_needs_a_parameter():
    with pytest.raises(InputError, match="mixup and recipe.cutmix are both 0"):
        A.mix(
            torch.rand(1, 3, 4, 4),
            torch.rand(1, 3, 4, 4),
            torch.tensor([0]),
            torch.tensor([1]),
            2,
            torch.tensor([0]),
            recipe(4, 4),
            0,
            0,
        )


def test_nothing_asks_the_device_for_a_value():
    """Tensors on the device "meta" have no values and do not mix with others: whatever
    reads one, or makes one elsewhere, fails."""
    index = torch.arange(4, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        index.max().item()
    chosen = recipe(
        16,
        20,
        crop_scale=0.5,
        rotate=10,
        jitter=0.2,
        erase=0.5,
        mixup=0.2,
        cutmix=1.0,
        resolution="mixed",
        low_side=5,
    )
    images = torch.zeros(4, 3, 20, 20, dtype=torch.uint8, device="meta")
    views = A.augment(images, index, chosen, 0, 0)
    mixed, targets = A.mix(
        views, views, index, A.partners(index, 4, 0, 0), 4, index, chosen, 0, 0
    )
    seen = A.evaluation_view(images, index, chosen, "mixed")
    assert mixed.shape == seen.shape == (4, 3, 16, 16)
    assert targets.shape == (4, 4)
    assert mixed.is_meta
    assert targets.is_meta
    assert seen.is_meta
    assert A.augment(
        torch.zeros(4, 2, 5, 3, 3, dtype=torch.float16, device="meta"),
        index,
        chosen,
        0,
        0,
    ).is_meta
