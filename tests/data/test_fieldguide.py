"""fieldguide: what an image may depend on, and that the ground truth is true of the
pixels.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fgbook import backbones
from fgbook.backbones.small import Small
from fgbook.backbones.weights import SHIPPED
from fgbook.data import drawing, fieldguide, species
from fgbook.data.dataset import PART_NAMES
from fgbook.data.scenery import Scene
from fgbook.errors import InputError


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))


def draw(index, size=64, pool="target", count=20, seed=0, split="test"):
    table = species.table(pool, count)
    label = index % count
    scene = Scene(fieldguide.keys(seed, pool, split, index))
    return fieldguide.render(scene, table.of(label), size)


def digest(drawing) -> str:
    found = hashlib.sha256()
    for value in vars(drawing).values():
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def sample():
    """80 images of 96 pixels."""
    return draw(torch.arange(80), size=96)


# What an image depends on


@pytest.mark.parametrize("threads", [1, 3])
def test_same_bits_in_any_order_and_batch(monkeypatch, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        index = torch.arange(30, 53)
        # an odd side: images do not begin at multiples of a vector register
        whole = draw(index, size=49)
        order = torch.randperm(len(index))
        shuffled = draw(index[order], size=49)
        alone = [draw(index[i : i + 1], size=49) for i in range(5)]
        monkeypatch.setattr(fieldguide, "BLOCK", 3 * 49 * 49)
        blocks = draw(index, size=49)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name, value in vars(whole).items():
        assert torch.equal(value[order], getattr(shuffled, name)), name
        assert torch.equal(value, getattr(blocks, name)), name
        assert torch.equal(
            value[:5], torch.cat([getattr(one, name) for one in alone])
        ), name


def test_same_bits_in_another_process():
    code = """
import torch
torch.set_num_threads(2)
from fgbook.data import species
from tests_fieldguide import digest, draw
print(digest(draw(torch.arange(40).flip(0)[:17], size=80)))
"""
    # The other process imports this very file under another name, so that both run the
    # same helpers.
    loader = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("tests_fieldguide", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["tests_fieldguide"] = module
spec.loader.exec_module(module)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(fieldguide.__file__.rsplit("/fgbook/", 1)[0]),
        "PYTHONHASHSEED": "7",
    }
    done = subprocess.run(
        [sys.executable, "-c", loader + code, __file__],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.strip() == digest(draw(torch.arange(23, 40).flip(0), size=80))


# sha256 of everything that render() gives for 60 images, by version of the drawing
PIXELS = {
    1: {
        "target": "68bca4f5e2193f40bda96243ded89bc81f0367e5e09403936e50f5f572019273",
        "source": "6fe0b3624dc888c2607840e56ff0e8cc14a30aa2920e2c1f76565c6f36a12c30",
    }
}


@pytest.mark.parametrize("pool", species.POOLS)
def test_other_pixels_need_another_version(pool):
    """On every processor: only exactly rounded operations are used. Fingerprints, and
    so the keys of runs, name the version only."""
    found = digest(draw(torch.arange(60), size=40, pool=pool))
    assert found == PIXELS[fieldguide.VERSION][pool]


def test_roots_are_rounded_exactly_on_every_processor():
    x = 10 * torch.rand(500_000, generator=torch.Generator().manual_seed(0))
    expected = np.sqrt(x.numpy().astype(np.float64)).astype(np.float32)
    assert np.array_equal(drawing.root(x.clone()).numpy(), expected)
    every_third = x.clone()[::3]
    assert np.array_equal(drawing.root(every_third).numpy(), expected[::3])


def test_seed_split_index_and_pool_all_matter():
    index = torch.arange(6)
    seen = {
        digest(draw(index)),
        digest(draw(index, seed=1)),
        digest(draw(index, split="train")),
        digest(draw(index + 20)),
        digest(draw(index, pool="source")),
    }
    assert len(seen) == 5
    sets = itertools.product((0, 1), species.POOLS, fieldguide.SPLITS)
    keys = torch.cat([fieldguide.keys(*one, torch.arange(5000)) for one in sets])
    # 60,000 random 32-bit numbers share about 0.4 values; many would mean that images
    # repeat
    assert len(keys) - len(keys.unique()) <= 6


def test_hashed_numbers_are_uniform_and_independent():
    u = fieldguide.uniform(
        fieldguide.keys(0, "target", "train", torch.arange(4000)), 40, stream=1
    ).double()
    assert u.min() >= 0
    assert u.max() < 1
    # five standard errors
    assert (u.mean(0) - 0.5).abs().max() < 5 / (12 * 4000) ** 0.5
    # between the numbers of an image and of its neighbour
    correlation = torch.corrcoef(torch.cat([u[:-1].T, u[1:].T]))
    assert (correlation - torch.eye(80)).abs().max() < 6 / 4000**0.5


# Species


@pytest.mark.parametrize("pool", species.POOLS)
def test_siblings_differ_in_one_or_two_local_attributes(pool):
    table = species.table(pool, species.limit())
    assert species.limit() >= 200
    local = [species.ATTRIBUTES.index(name) for name in species.LOCAL]
    look = [species.ATTRIBUTES.index(name) for name in ("palette", "build")]
    for i in range(len(table)):
        for j in range(i):
            changed = (table.values[i] != table.values[j]).nonzero().flatten().tolist()
            if i // species.SIBLINGS == j // species.SIBLINGS:
                assert 1 <= len(changed) <= 2
                assert set(changed) <= set(local)
                assert set(changed) <= {local[k] for k in table.differ[i].tolist()}
            else:
                assert set(changed) & set(look)


def test_pools_share_no_species_and_no_name():
    tables = {pool: species.table(pool, species.limit()) for pool in species.POOLS}
    rows = {
        pool: set(map(tuple, table.values.tolist())) for pool, table in tables.items()
    }
    assert not rows["source"] & rows["target"]
    names = [name for table in tables.values() for name in table.names]
    assert len(set(names)) == len(names) == 2 * species.limit()
    assert fieldguide.species_names("target", 20) == tables["target"].names[:20]


def test_every_contrast_is_used_and_described():
    for pool in species.POOLS:
        table = species.table(pool, species.limit())
        assert set(table.differ.flatten().tolist()) == set(range(len(species.LOCAL)))
        words = [text for _, text in species.describe(pool, species.limit())]
        for i in range(0, len(words), species.SIBLINGS):
            assert len(set(words[i : i + species.SIBLINGS])) == species.SIBLINGS


def test_two_hundred_species():
    data = fieldguide.load(32, species=200, per_class=(1, 1, 1))
    assert data.num_classes == len(set(data.classes)) == 200
    assert data.test.labels.tolist() == list(range(200))
    assert (data.test.masks.flatten(1).sum(1) > 20).all()  # a bird is seen in each


# Ground truth against pixels


@pytest.mark.parametrize("pool", species.POOLS)
def test_siblings_differ_only_inside_their_part_boxes(pool):
    """All genera of a pool, siblings drawn with the same nuisance: pixels differ inside
    the boxes that are said to tell, nowhere else.
    """
    size, count = 72, species.limit()
    table = species.table(pool, count)
    key = fieldguide.keys(3, pool, "train", torch.arange(count) // species.SIBLINGS)
    drawing = fieldguide.render(Scene(key), table.of(torch.arange(count)), size)
    # (G, 4, 3, S, S)
    images = drawing.images.int().unflatten(0, (-1, species.SIBLINGS))
    boxes = drawing.part_boxes.unflatten(0, (-1, species.SIBLINGS))
    assert torch.equal(boxes, boxes[:, :1].expand_as(boxes))
    place = torch.arange(size)
    x0, y0, x1, y1 = (boxes[:, 0, :, k, None] for k in range(4))
    column = (place + 1 > x0) & (place < x1)  # (G, 2, S): pixels that the box touches
    row = (place + 1 > y0) & (place < y1)
    inside = row[..., :, None] & column[..., None, :]  # (G, 2, S, S)
    # order within a genus: (a, b), (a, b'), (a', b), (a', b')
    for one, other, which in ((0, 1, 1), (2, 3, 1), (0, 2, 0), (1, 3, 0)):
        changed = (images[:, one] != images[:, other]).any(1)
        outside = (changed & ~inside[:, which]).flatten(1).sum(1)
        wrong = [
            (species.LOCAL[table.differ[4 * g, which]], int(outside[g]))
            for g in outside.nonzero().flatten().tolist()
        ]
        assert not wrong, wrong
        # a leaf may hide the part
        assert (changed.flatten(1).sum(1) > 0).float().mean() > 0.9
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # local: boxes that cover the bird would tell nothing
    assert area.mean() < 0.12 * size * size


def test_boxes_are_the_bounds_of_the_masks(sample):
    for mask, box in zip(sample.masks.numpy(), sample.boxes.numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        ]
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).amax(1) / 96
    assert sides.max() <= 0.9 + 2 / 96
    assert sides.min() < 0.5
    assert sides.max() > 0.8


def test_masks_are_where_the_bird_is(sample):
    """The bird's silhouette without background or leaves, drawn on black and on white:
    where both agree there is bird.
    """
    table = species.table("target", 20)
    label = torch.arange(8)
    zero = torch.zeros(8)
    bird = fieldguide.Bird(table.values[label], fieldguide.Pose(zero, zero, zero))
    grid = (torch.arange(120).float() + 0.5) / 50 - 1.3
    x, y = grid.expand(8, 120, 120), grid[:, None].expand(8, 120, 120)
    brush = fieldguide.Brush(torch.full((8, 1, 1), 0.02))
    grain = torch.full((8, 120, 120), 0.5)
    black, white = torch.zeros(8, 3, 120, 120), torch.ones(8, 3, 120, 120)
    cover = fieldguide.draw_bird(black, bird, x, y, brush, grain)
    fieldguide.draw_bird(white, bird, x, y, brush, grain)
    seen_through = (white - black).mean(1)
    assert ((seen_through > 0.5) == (cover < 0.5)).float().mean() > 0.99


def test_parts(sample):
    parts, masks = sample.parts, sample.masks.bool()
    visible = parts[..., 2] > 0
    assert set(parts[..., 2].unique().tolist()) == {0.0, 1.0}
    image, part = visible.nonzero(as_tuple=True)
    x, y = parts[image, part, 0].long(), parts[image, part, 1].long()
    assert masks[image, y, x].all()
    share = dict(zip(PART_NAMES, visible.float().mean(0).tolist(), strict=True))
    pairs = ("eye", "leg", "wing")
    for name, value in share.items():
        assert value > (0.25 if name.endswith(pairs) else 0.6), (name, value)
    left, right = (
        visible[:, [PART_NAMES.index(f"{side} {name}") for name in ("eye", "wing")]]
        for side in ("left", "right")
    )
    assert not (left.any(1) & right.any(1)).any()  # a bird shows one side
    # a bird that shows its right side faces right: its beak is to the right of its tail
    beak = parts[:, PART_NAMES.index("beak"), 0]
    tail = parts[:, PART_NAMES.index("tail"), 0]
    assert ((beak > tail) == right.any(1))[left.any(1) | right.any(1)].all()


def test_an_eye_is_where_the_part_says():
    """At 224 pixels the visible eye has a dark disc and a highlight near its centre;
    the nape, on the same head, has not.
    """
    drawing = draw(torch.arange(40), size=224)

    def contrast(names):
        found = []
        for image, parts in zip(
            drawing.images.float().mean(1), drawing.parts, strict=True
        ):
            for k in map(PART_NAMES.index, names):
                if parts[k, 2] > 0:
                    x, y = int(parts[k, 0]), int(parts[k, 1])
                    window = image[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
                    found.append((window.max() - window.min()).item())
        return torch.tensor(found)

    eyes, napes = contrast(["left eye", "right eye"]), contrast(["nape"])
    assert len(eyes) >= 20
    assert (eyes > napes.median()).float().mean() > 0.9
    assert eyes.median() > 1.5 * napes.median()


def test_wing_bars_can_be_counted_on_the_plate():
    """From the shoulder to the tip along the middle of the wing a person counts as many
    pale bars as the attribute says.
    """
    size, count = 160, 40
    table = species.table("target", count)
    zero = torch.zeros(count)
    bird = fieldguide.Bird(table.values, fieldguide.Pose(zero, zero, zero))
    grid = torch.linspace(-1.2, 1.2, size)
    x, y = grid.expand(count, size, size), grid[:, None].expand(count, size, size)
    canvas = torch.full((count, 3, size, size), 0.5)
    fieldguide.draw_bird(
        canvas,
        bird,
        x,
        y,
        fieldguide.Brush(torch.full((count, 1, 1), 2.4 / size)),
        torch.full((count, size, size), 0.5),
    )
    along = torch.arange(0.12, 0.6, 0.004)
    pale = []
    for u in along.tolist():
        px, py = bird.wing_point(u, 0.0)
        column, row = ((p + 1.2) / 2.4 * (size - 1) for p in (px, py))
        birds = torch.arange(count)
        seen = canvas[birds, :, row.round().long(), column.round().long()]
        pale.append(seen.amin(1) > 0.8)
    pale = torch.stack(pale, 1).int()
    before = torch.zeros(count, 1, dtype=torch.int)
    bars = (pale.diff(dim=1, prepend=before) == 1).sum(1)
    expected = table.values[:, species.ATTRIBUTES.index("wing bars")]
    assert bars.tolist() == expected.int().tolist()


def test_antialiased_at_any_size():
    """A large rendering averaged over blocks is close to the small one, and much closer
    than the large one sampled at points.
    """
    index = torch.arange(24)
    small, large = draw(index, size=56), draw(index, size=224)
    small_pixels, large_pixels = small.images.float() / 255, large.images.float() / 255
    averaged = large_pixels.unflatten(3, (56, 4)).unflatten(2, (56, 4)).mean((3, 5))
    bird = torch.nn.functional.max_pool2d(small.masks[:, None].float(), 3, 1, 1) > 0
    error = ((averaged - small_pixels).abs() * bird).sum() / bird.sum() / 3
    points = large_pixels[..., 1::4, 1::4]
    sampled = ((points - small_pixels).abs() * bird).sum() / bird.sum() / 3
    assert error < 0.025
    assert error < 0.6 * sampled
    assert ((large.boxes / 4 - small.boxes).abs() <= 1.5).float().mean() > 0.97
    assert torch.allclose(large.parts[..., :2] / 4, small.parts[..., :2], atol=1e-3)


# The data set


def test_load_keeps_and_names_everything(monkeypatch):
    data = fieldguide.load(40, species=6, per_class=(3, 2, 1), seed=5)
    assert [len(data.split(name)) for name in fieldguide.SPLITS] == [18, 12, 6]
    for name in fieldguide.SPLITS:
        split = data.split(name)
        n = len(split)
        shapes = {
            "images": (n, 3, 40, 40),
            "masks": (n, 40, 40),
            "boxes": (n, 4),
            "parts": (n, 15, 3),
            "part_boxes": (n, 2, 4),
            "labels": (n,),
        }
        for field, shape in shapes.items():
            assert tuple(getattr(split, field).shape) == shape
        assert split.labels.bincount(minlength=6).tolist() == [n // 6] * 6
    files = [file for name in fieldguide.SPLITS for file in data.split(name).files]
    assert len(set(files)) == len(files)

    monkeypatch.setattr(fieldguide, "render", lambda *_: pytest.fail("drawn again"))
    again = fieldguide.load(40, species=6, per_class=(3, 2, 1), seed=5)
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train.images, data.train.images)


def test_fingerprint_says_what_determines_the_pixels():
    base = {
        "size": 32,
        "pool": "target",
        "species": 3,
        "per_class": (2, 1, 1),
        "seed": 0,
    }
    changes = (
        {},
        {"size": 33},
        {"pool": "source"},
        {"species": 4},
        {"per_class": (1, 1, 1)},
        {"seed": 1},
    )
    seen = {fieldguide.load(**(base | change)).fingerprint for change in changes}
    assert len(seen) == len(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0}, "size 0"),
        ({"size": 64.0}, "size 64.0"),
        ({"pool": "sorce"}, "did you mean 'source'"),
        ({"species": 1}, "1 species"),
        ({"species": 100_000}, str(species.limit())),
        ({"species": "20"}, "'20' species"),
        ({"per_class": (4, 1)}, "per_class"),
        ({"per_class": (4, 0, 1)}, "per_class"),
        ({"per_class": 5}, "per_class"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 0.5}, "seed 0.5"),
    ],
)
def test_bad_parameters(change, words):
    with pytest.raises(InputError, match=words):
        fieldguide.load(**({"size": 32} | change))


def test_plate():
    plate = fieldguide.plate(8, 96)
    assert plate.shape == (8, 3, 96, 96)
    assert plate.dtype == torch.uint8
    paper = plate[:, :, 2, 2].int()
    assert (paper == paper[0]).all()  # one neutral ground
    assert len({image.numpy().tobytes() for image in plate}) == 8


# The backbone that was trained on it


def test_small_network():
    network = Small().eval()
    assert sum(p.numel() for p in network.parameters()) <= 1_500_000
    with torch.no_grad():
        maps = network(torch.rand(2, 3, 72, 64))
    assert maps.shape == (2, Small.channels, 9, 8)
    assert maps.min() >= 0


def test_shipped_weights_match_their_record():
    file = SHIPPED
    record = json.loads(file.with_suffix(".json").read_text())
    content = file.read_bytes()
    assert len(content) == record["bytes"] <= 3_000_000
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    assert record["sha256"][:8] in backbones.weights_id("small")
    assert record["data"]["pool"] == "source"
    assert record["data"]["fieldguide_version"] == fieldguide.VERSION
    assert record["parameters"] == sum(
        p.numel() for p in backbones.create("small").network.parameters()
    )
    for split in ("val", "test"):
        known = record["accuracy"][split]
        assert known["top1_low"] <= known["top1"] <= known["top1_high"]


def test_shipped_weights_know_birds():
    """Their features tell genera of the target pool apart by the nearest class mean;
    random weights are far worse.
    """
    data = fieldguide.load(72, species=40, per_class=(6, 1, 3))
    genus = torch.arange(40) // species.SIBLINGS

    def score(weights):
        torch.manual_seed(0)
        network = backbones.create("small", weights).eval()
        with torch.no_grad():
            train, test = (
                network(split.images.float() / 255).mean((2, 3))
                for split in (data.train, data.test)
            )
        spread = train.std(0) + 1e-6
        of_genus = [train[genus[data.train.labels] == g] for g in range(10)]
        means = torch.stack([features.mean(0) for features in of_genus])
        nearest = torch.cdist(test / spread, means / spread).argmin(1)
        return (nearest == genus[data.test.labels]).float().mean().item()

    assert score("pretrained") > 0.5
    assert score("pretrained") > score("none") + 0.1
