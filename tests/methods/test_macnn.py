"""MA-CNN: its maps and losses against loops, and which loss moves what."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.macnn import distance_loss, diversity_loss
from fgbook.recipe import Recipe

CLASSES = 5
SIZE = 40


def make(**options):
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=SIZE)
    return build("macnn", CLASSES, recipe, options)


def batch():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


def slow_distance(maps):
    batch, parts, h, w = maps.shape
    total = 0.0
    for b in range(batch):
        for i in range(parts):
            m = maps[b, i]
            ty, tx = divmod(int(m.argmax()), w)
            for y in range(h):
                for x in range(w):
                    squared = ((x - tx) / w) ** 2 + ((y - ty) / h) ** 2
                    total += m[y, x].item() * squared / batch
    return total


def slow_diversity(maps):
    batch, parts, h, w = maps.shape
    total = 0.0
    for b in range(batch):
        for i in range(parts):
            for y in range(h):
                for x in range(w):
                    column = maps[b, :, y, x].tolist()
                    others = max(column[:i] + column[i + 1 :])
                    total += column[i] * (others - 0.02) / batch
    return total


@torch.no_grad()
def test_channels_that_peak_at_one_place_start_in_one_part():
    model = make(parts=3).eval()
    n = model.image_head.in_features
    places = [(0, 0), (1, 5), (6, 2)]
    group = torch.randint(3, (n,), generator=torch.Generator().manual_seed(4))
    maps = torch.rand(6, n, 7, 7)
    for channel, number in enumerate(group.tolist()):
        y, x = places[number]
        maps[torch.arange(6), channel, y, (x + torch.arange(6) % 2) % 7] = 3.0
    model.backbone.stages = lambda images: [images]
    model.prepare((some, None) for some in maps.split(4))
    begun = torch.stack([layers[2].bias for layers in model.grouping])  # (3, n)
    assert begun.unique().tolist() == [-2.0, 2.0]
    part = begun.argmax(0)
    assert ((begun > 0).sum(0) == 1).all()
    assert len({(int(g), int(p)) for g, p in zip(group, part, strict=True)}) == 3


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (1, 2, 4, 6)])
def test_losses_are_those_of_loops(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    maps = maps / maps.sum((2, 3), keepdim=True)
    expected = pytest.approx(slow_distance(maps), rel=1e-4)
    assert distance_loss(maps).item() == expected
    expected = pytest.approx(slow_diversity(maps), rel=1e-4)
    assert diversity_loss(maps).item() == expected


def one_hot(*cells):
    """One image, a part at each cell of a 4 x 4 map."""
    return F.one_hot(torch.tensor(cells), 16).float().view(1, -1, 4, 4)


def test_distance_is_0_for_points_and_grows_with_the_spread():
    assert distance_loss(one_hot(0, 5, 15)) == 0
    y, x = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    squared = (x - 2) ** 2 + (y - 2) ** 2
    spread = []
    for sigma in (0.5, 1.0, 2.0):
        m = torch.exp(-squared / (2 * sigma**2))
        spread.append(distance_loss((m / m.sum())[None, None]).item())
    assert spread[0] < spread[1] < spread[2]


def test_diversity_is_below_0_where_parts_do_not_meet():
    assert diversity_loss(one_hot(0, 5, 15)).item() == pytest.approx(-3 * 0.02)
    meeting = diversity_loss(one_hot(5, 5, 15)).item()
    assert meeting == pytest.approx(2 * 0.98 - 0.02)


@torch.no_grad()
def test_part_maps_are_sharpened_sigmoids_of_weighed_sums():
    model = make(sharpness=3.0).eval()
    maps = model.backbone(batch()[0])
    found = model.part_maps(maps)
    torch.testing.assert_close(found.sum((2, 3)), torch.ones(4, 4))
    for i, layers in enumerate(model.grouping):
        of_image = maps.mean((2, 3))
        d = layers(of_image / of_image.norm(dim=1, keepdim=True))
        for b in range(4):
            s = sum(d[b, c] * maps[b, c] for c in range(maps.shape[1]))
            z = (s - s.mean()) / s.std(correction=0)
            m = torch.sigmoid(z) ** 3
            torch.testing.assert_close(found[b, i], m / m.sum(), atol=1e-3, rtol=1e-2)


def test_each_part_begins_with_channels_of_its_own():
    model = make(parts=3)
    with torch.no_grad():
        d = torch.stack([g(torch.zeros(1, 192))[0] for g in model.grouping])
    own = d > 0.5  # (p, n)
    assert (own.sum(0) == 1).all()
    assert (own.sum(1) == 64).all()


def reached(model, *names):
    images, targets = batch()
    model.zero_grad()
    losses = model.losses(model(images), targets)
    sum(losses[name] for name in names).backward()
    return {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_which_loss_moves_what():
    model = make()
    assert reached(model, "distance", "diversity") == {"grouping"}
    assert reached(model, "parts") == {"backbone", "part_heads"}
    assert reached(model, "joint") == {"joint_head"}


def test_losses_of_parts_add_up_and_diversity_counts_twice():
    model = make()
    images, targets = batch()
    outputs = model(images)
    losses = model.losses(outputs, targets)
    of_parts = [F.cross_entropy(outputs["parts"][:, i], targets) for i in range(4)]
    torch.testing.assert_close(losses["parts"], sum(of_parts))
    expected = 2 * diversity_loss(outputs["maps"])
    torch.testing.assert_close(losses["diversity"], expected)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_regions_lie_round_the_peaks(depth):
    model = make(depth=depth, box=0.25).eval()
    images, _ = batch()
    boxes = model.regions(images)
    assert boxes.shape == (4, 4, 4)
    maps = model(images)["maps"]
    at = model.backbone.depths_at(SIZE)[-depth]
    across = maps.shape[-1]
    for b in range(4):
        for i in range(4):
            y, x = divmod(int(maps[b, i].argmax()), across)
            for axis, cell in enumerate((x, y)):
                start = at.first + at.stride * cell - 5
                start = min(max(start, 0), SIZE - 10)
                assert boxes[b, i, axis].item() == pytest.approx(start)
                assert boxes[b, i, axis + 2].item() == pytest.approx(start + 10)


def test_bad_input_is_told():
    with pytest.raises(InputError, match="parts >= 2"):
        make(parts=1)
    with pytest.raises(InputError, match="depth is 4"):
        make(depth=4)
    with pytest.raises(InputError, match="macnn needs square images"):
        make().eval().regions(torch.rand(2, 3, 40, 48))
