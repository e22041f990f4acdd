"""Channel and spatial attention and the triplet loss against slow references; the order
of images that the loss needs."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook import explain
from fgbook.backbones import freeze_stages
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.triplet import batch_hard
from fgbook.recipe import Recipe
from fgbook.training import loop, schedule

CLASSES = 7
RECIPE = Recipe(backbone="small", weights="none", image_size=40, store_size=40)


def make(seed=0, method="attention", **options):
    torch.manual_seed(seed)
    return build(method, CLASSES, RECIPE, options)


def stirred(**options):
    """With weights, also of the gates' last layers and the head, that matter."""
    model = make(**options)
    with torch.no_grad():
        model.image_head.weight.normal_()
        model.channel.perceptron[2].weight.normal_()
        model.spatial.convolution.weight.normal_()
        for value in (*model.spatial.norm.parameters(), *model.spatial.norm.buffers()):
            value.add_(0.7) if value.is_floating_point() else None
    return model.eval()


def images(size=6):
    return F.interpolate(
        torch.rand(size, 3, 6, 6, generator=torch.Generator().manual_seed(1)),
        40,
        mode="bicubic",
    ).clamp(0, 1)


def slow_channel(gate, maps, top):
    """Woo et al. 2018, eq. 2, channel by channel."""
    n = maps.shape[0]
    first, second = gate.perceptron[0].weight, gate.perceptron[2].weight
    z = [0.0] * n
    for pooled in (
        [float(maps[c].mean()) for c in range(n)],
        [float(maps[c].max()) for c in range(n)],
    ):
        hidden = [
            max(0.0, sum(float(first[k, c]) * pooled[c] for c in range(n)))
            for k in range(len(first))
        ]
        z = [
            z[c] + sum(float(second[c, k]) * hidden[k] for k in range(len(hidden)))
            for c in range(n)
        ]
    return torch.tensor([top / (1 + math.exp(-value)) for value in z])


def slow_spatial(gate, maps, top):
    """Eq. 3, place by place; BatchNorm with its running statistics."""
    _, h, w = maps.shape
    kernel, norm = gate.convolution.weight[0], gate.norm
    pooled = torch.stack([maps.mean(0), maps.max(0).values])
    found = torch.zeros(h, w)
    for y in range(h):
        for x in range(w):
            z = 0.0
            for dy in range(7):
                for dx in range(7):
                    if 0 <= y + dy - 3 < h and 0 <= x + dx - 3 < w:
                        z += float(
                            pooled[:, y + dy - 3, x + dx - 3] @ kernel[:, dy, dx]
                        )
            z = (z - float(norm.running_mean)) / math.sqrt(
                float(norm.running_var) + norm.eps
            ) * float(norm.weight) + float(norm.bias)
            found[y, x] = top / (1 + math.exp(-z))
    return found


@torch.no_grad()
@pytest.mark.parametrize(("start", "top"), [("identity", 2), ("usual", 1)])
def test_gates_are_those_of_the_paper_first_channels_then_places(start, top):
    model, seen = stirred(start=start), images(2)
    maps, expected = model.backbone(seen), []
    for own in maps:
        own = own * slow_channel(model.channel, own, top)[:, None, None]
        expected.append(own * slow_spatial(model.spatial, own, top))
    expected = torch.stack(expected)
    assert (expected - maps).abs().max() > 0.1 * maps.max()
    torch.testing.assert_close(model.maps(seen), expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        model(seen)["image"],
        model.image_head(expected.mean((2, 3))),
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spatial": False},
        {"channel": False, "triplet": True},
        {"channel": False, "spatial": False},
    ],
)
def test_an_identity_start_is_the_plain_backbone_bit_by_bit(options):
    model, plain = make(**options), make(method="plain")
    # the same seed makes the same head
    assert torch.equal(model.image_head.weight, plain.image_head.weight)
    for mode in (True, False):
        model.train(mode), plain.train(mode)
        assert torch.equal(model(images())["image"], plain(images())["image"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model(images())["image"], plain(images())["image"])


def test_a_usual_start_halves_twice():
    model = make(start="usual").eval()
    maps = model.backbone(images())
    for gate in (model.channel, model.spatial):
        assert 0.2 < gate(maps).mean() < 0.8
    assert 0.1 < (model.maps(images()).sum() / maps.sum()).item() < 0.5
    assert not torch.equal(
        model.channel(maps), torch.full_like(model.channel(maps), 0.5)
    )


def test_from_an_identity_start_every_parameter_learns_from_the_second_step_on():
    model, seen, targets = make(triplet=True), images(), torch.arange(6) % 3
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(2):
        optimiser.zero_grad()
        sum(model.losses(model(seen), targets).values()).backward()
        still = {
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        }
        first_layers = {"channel.perceptron.0.weight", "spatial.convolution.weight"}
        assert still == (first_layers if step == 0 else set())
        optimiser.step()


@torch.no_grad()
def test_class_activation_maps_are_those_behind_the_gates():
    model, seen, classes = stirred(), images(), torch.arange(6)
    maps = explain.cam(model, seen, classes)
    score = model.predict(seen)[torch.arange(6), classes]
    score = score - model.image_head.bias[classes]
    torch.testing.assert_close(maps.mean((1, 2)), score, atol=1e-3, rtol=1e-3)
    assert explain.grad_cam(model, seen, classes, model.backbone).shape == maps.shape


# ---- triplet loss


def slow_batch_hard(embeddings, labels, margin):
    """Hermans et al. 2017, eq. 5, by loops; double precision."""
    unit = [row / row.norm() for row in embeddings.double()]
    losses = []
    for a in range(len(unit)):
        positive = [
            (unit[a] - unit[p]).norm()
            for p in range(len(unit))
            if p != a and labels[p] == labels[a]
        ]
        negative = [
            (unit[a] - unit[n]).norm()
            for n in range(len(unit))
            if labels[n] != labels[a]
        ]
        if positive and negative:
            losses.append(torch.clamp(margin + max(positive) - min(negative), min=0))
    return (sum(losses) / len(losses)).float() if losses else torch.tensor(0.0)


LABELS = [
    [0, 0, 1, 1, 2, 2, 3, 3],
    [0, 0, 0, 1, 2, 3, 4, 5],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0] * 8,
    list(range(8)),
    [1, 0, 1, 0, 0, 1, 1, 0],
]


@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_batch_hard_is_the_loop(labels, margin):
    labels = torch.tensor(labels)
    embeddings = (
        torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
        * torch.arange(1, 9)[:, None]
    )
    a, b = (embeddings.clone().requires_grad_() for _ in range(2))
    fast, slow = batch_hard(a, labels, margin), slow_batch_hard(b, labels, margin)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    fast.backward()
    if slow.requires_grad:
        slow.backward()
    torch.testing.assert_close(
        a.grad, torch.zeros_like(a) if b.grad is None else b.grad, atol=1e-5, rtol=1e-3
    )


def test_images_without_a_partner_contribute_nothing():
    """Only the two images of class 0 are anchors: the others are negatives, and move as
    such if they are the nearest."""
    embeddings = torch.eye(4).requires_grad_()
    loss = batch_hard(embeddings, torch.tensor([0, 0, 1, 2]), 0.3)
    torch.testing.assert_close(loss, torch.tensor(0.3))  # all distances are equal
    alone = batch_hard(embeddings, torch.arange(4), 0.3)
    assert alone.item() == 0
    embeddings.grad = None
    alone.backward()
    assert not embeddings.grad.any()


def test_equal_embeddings_have_a_finite_gradient_and_half_precision_is_not_used():
    embeddings = torch.ones(4, 6, requires_grad=True)
    batch_hard(embeddings, torch.tensor([0, 0, 1, 1]), 0.3).backward()
    assert embeddings.grad.isfinite().all()
    values, labels = torch.randn(8, 64), torch.arange(8) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            batch_hard(values, labels, 0.3), batch_hard(values.clone(), labels, 0.3)
        )
        found = batch_hard(values, labels, 0.3)
    assert found.dtype == torch.float32
    assert torch.equal(found, batch_hard(values, labels, 0.3))


def test_losses_take_classes_and_mixed_images_as_the_class_that_they_show_most_of():
    model = make(triplet=True, margin=0.5)
    seen = images()
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = model(seen)
    assert list(logits) == ["image", "triplet"]
    losses = model.losses(logits, targets)
    torch.testing.assert_close(
        losses["image"], F.cross_entropy(logits["image"], targets)
    )
    torch.testing.assert_close(
        losses["triplet"],
        slow_batch_hard(logits["triplet"], targets, 0.5),
        atol=1e-4,
        rtol=1e-4,
    )
    assert losses["triplet"] > 0
    mixed = 0.6 * F.one_hot(targets, CLASSES) + 0.4 * F.one_hot(
        (targets + 1) % CLASSES, CLASSES
    )
    others = model.losses(logits, mixed)
    torch.testing.assert_close(others["triplet"], losses["triplet"])
    torch.testing.assert_close(others["image"], F.cross_entropy(logits["image"], mixed))


def test_a_training_step_never_asks_the_device_for_a_value():
    with FakeTensorMode():  # tensors without values: reading one fails
        model = make(triplet=True)
        for targets in (torch.zeros(4, dtype=torch.int64), torch.rand(4, CLASSES)):
            sum(
                model.losses(model(torch.rand(4, 3, 40, 40)), targets).values()
            ).backward()
        assert model.eval().predict(torch.rand(4, 3, 40, 40)).shape == (4, CLASSES)


def test_bad_options_are_told():
    with pytest.raises(
        InputError, match="unknown start 'identiy'; did you mean 'identity'"
    ):
        make(start="identiy")
    with pytest.raises(InputError, match="margin 2.5"):
        make(margin=2.5)


# ---- the order of images


@pytest.mark.parametrize("per_class", [2, 3, 4])
@pytest.mark.parametrize(
    "counts", [(8, 8, 8), (7, 1, 12, 3, 0, 5), (2,), (1, 1, 1), (30, 4, 4, 4)], ids=str
)
def test_groups_of_a_class_follow_each_other_and_every_image_comes_once(
    per_class, counts
):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[
        torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    ]
    whole = sum(count // per_class for count in counts)
    seen = []
    for epoch in range(3):
        order = schedule.by_class(labels, per_class, 5, epoch)
        assert sorted(order.tolist()) == list(range(len(labels)))
        assert torch.equal(order, schedule.by_class(labels, per_class, 5, epoch))
        groups = labels[order][: whole * per_class].view(-1, per_class)
        rest = labels[order][whole * per_class :].tolist()
        assert (groups == groups[:, :1]).all()
        assert sorted(groups[:, 0].tolist()) == [
            label
            for label, count in enumerate(counts)
            for _ in range(count // per_class)
        ]
        # what is left of a class stays together
        pieces = [
            label for i, label in enumerate(rest) if i == 0 or label != rest[i - 1]
        ]
        assert (
            len(pieces)
            == len(set(pieces))
            == sum(count % per_class > 0 for count in counts)
        )
        seen.append(order)
    if len(labels) > 10:
        assert not torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], schedule.by_class(labels, per_class, 6, 0))


def test_groups_and_their_images_are_in_random_order():
    """Over many epochs: every class comes first equally often, and every pair of a
    class's images is in one group equally often."""
    labels, epochs = torch.arange(4).repeat_interleave(4), 1200
    first, together = torch.zeros(4), torch.zeros(4, 4)
    for epoch in range(epochs):
        order = schedule.by_class(labels, 2, 0, epoch)
        first[labels[order[0]]] += 1
        for a, b in order.view(-1, 2).tolist():
            if a < 4:
                together[a, b] += 1
                together[b, a] += 1
    assert (first / epochs - 1 / 4).abs().max() < 0.07  # five standard deviations
    assert (
        (together / epochs)[~torch.eye(4, dtype=torch.bool)] - 1 / 3
    ).abs().max() < 0.07


def test_a_recipe_without_groups_keeps_its_order_and_its_key():
    train = Split(
        torch.zeros(9, 3, 4, 4, dtype=torch.uint8),
        torch.arange(9) % 3,
        [str(i) for i in range(9)],
    )
    assert torch.equal(
        schedule.of_epoch(train.labels, RECIPE, 3, 2), schedule.order(3, 2, 9)
    )
    grouped = RECIPE.but(per_class=2)
    assert "per_class" not in RECIPE.determinants()
    assert grouped.determinants()["per_class"] == 2
    assert torch.equal(
        schedule.of_epoch(train.labels, grouped, 3, 2),
        schedule.by_class(train.labels, 2, 3, 2),
    )
    for wrong in (
        {"per_class": 1},
        {"per_class": -2},
        {"per_class": 3},
        {"per_class": 4, "accumulate": 8},
    ):
        with pytest.raises(InputError, match=f"per_class is {wrong['per_class']}"):
            RECIPE.but(**wrong)


def test_training_sees_groups(tmp_path):
    """In a real run every batch holds whole groups, so the triplet loss finds its
    images."""
    labels = torch.arange(24) % 3
    pixels = torch.randint(
        0,
        256,
        (24, 3, 40, 40),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    part = Split(pixels, labels, [f"{i}.png" for i in range(24)])
    data = DataSet("noise", list("abc"), 40, "0", part, part, part)
    recipe = RECIPE.but(
        per_class=4,
        batch_size=8,
        epochs=1,
        lr=0.001,
        mixup=0.2,
        loss_weights=(("triplet", 0.5),),
        low_side=0,
    )
    model, seen = build("attention", 3, recipe, {"triplet": True}), []
    losses = model.losses
    model.losses = lambda logits, targets, criterion: (
        seen.append(targets) or losses(logits, targets, criterion)
    )
    loop.fit(model, data, recipe, tmp_path / "run", device="cpu", progress=False)
    order = schedule.by_class(labels, 4, 0, 0)
    assert [len(targets) for targets in seen] == [8, 8, 8]
    own = F.one_hot(labels[order], 3).bool()
    mixed = torch.cat(seen)
    torch.testing.assert_close(mixed.sum(1), torch.ones(24))
    assert (mixed[own] > 0).all()
    assert '"triplet"' in (tmp_path / "run" / "log.jsonl").read_text()


# ---- gates in the blocks


@torch.no_grad()
@pytest.mark.parametrize(
    "backbone, count",
    [
        ("small", 3),
        ("resnet18", 8),
        ("resnet50", 16),
        ("mobilenet_v2", 10),
        ("timm:tf_efficientnet_lite0", 9),
    ],
)
def test_gates_stand_on_every_residual_branch_and_start_as_the_plain_backbone(
    backbone, count
):
    recipe, seen = RECIPE.but(backbone=backbone), images(2)
    models = []
    for method, options in (
        ("plain", {}),
        ("attention", {"where": "blocks"}),
        ("attention", {"where": "blocks", "start": "usual"}),
    ):
        torch.manual_seed(0)
        models.append(build(method, CLASSES, recipe, options).eval())
        models[-1].image_head.weight.copy_(
            torch.linspace(-1, 1, models[-1].image_head.weight.numel()).view_as(
                models[-1].image_head.weight
            )
        )
    plain, gated, usual = (model.predict(seen) for model in models)
    assert torch.equal(plain, gated)
    assert (plain - usual).abs().max() > 1e-3 * plain.abs().max()
    assert len(models[1].blocks) == count


@torch.no_grad()
def test_a_gated_block_is_the_block_with_its_branch_weighed_before_the_sum():
    torch.manual_seed(0)
    model = make(where="blocks", start="usual").eval()
    plain = make(method="plain").eval()
    # the same weights: the same seed
    gated, block = model.backbone.network.blocks[2], plain.backbone.network.blocks[2]
    maps = torch.rand(2, 96, 5, 6)
    branch = block.norm2(block.conv2(block.relu(block.norm1(block.conv1(maps)))))
    expected = []
    for one in branch:
        one = one * slow_channel(model.blocks[2].channel, one, 1)[:, None, None]
        expected.append(one * slow_spatial(model.blocks[2].spatial, one, 1))
    torch.testing.assert_close(
        gated(maps), (torch.stack(expected) + maps).relu(), rtol=1e-4, atol=1e-5
    )


def test_gates_in_the_blocks_learn_at_the_heads_rate_and_survive_copies_and_files(
    tmp_path,
):
    model = make(where="blocks", channel=True, spatial=False)
    new = {id(p) for p in model.blocks.parameters()}
    assert new
    assert not new & {id(p) for p in model.backbone.parameters()}
    assert new < {id(p) for p in model.parameters()}
    model.train()
    # the first layers of gates that start at 1 get a gradient from the second step on
    for _ in range(2):
        loss = sum(model.losses(model(images()), torch.arange(6)).values())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    assert all(p.grad.abs().sum() > 0 for p in model.blocks.parameters())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.blocks.parameters():
            p.add_(1)
    model.eval(), twin.eval()
    # a copy has gates of its own
    assert not torch.allclose(model.predict(images()), twin.predict(images()))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = make(seed=5, where="blocks", channel=True, spatial=False).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(again.predict(images()), model.predict(images()))


def test_gates_learn_within_frozen_stages():
    model = make(where="blocks", start="usual")
    freeze_stages(model, 1)
    images = torch.rand(4, 3, 40, 40)
    model(images)["image"].square().sum().backward()
    frozen, learning = model.backbone.network.blocks[:2]
    assert {p.grad is None for p in frozen.parameters()} == {True}
    assert {p.grad is None for p in learning.parameters()} == {False}
    assert {p.grad is None for p in model.blocks.parameters()} == {False}


def test_a_backbone_without_residual_blocks_is_refused():
    with pytest.raises(InputError, match="vgg16 has no residual blocks"):
        build("attention", CLASSES, RECIPE.but(backbone="vgg16"), {"where": "blocks"})
    with pytest.raises(InputError, match="did you mean 'blocks'"):
        make(where="block")
