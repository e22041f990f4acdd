"""API-Net: pairs, gates and losses against loops. (tests/methods/test_methods.py has
what holds of every method.)"""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.apinet import partners
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 40


def make(seed=0, **options):
    torch.manual_seed(seed)
    recipe = Recipe(backbone="small", weights="none")
    return build("apinet", CLASSES, recipe, options)


def batch(count=6, side=SIDE):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    return F.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def slow_partners(vectors, labels):
    found = []
    for i in range(len(labels)):
        nearest = {True: None, False: None}  # same class, other class
        for j in range(len(labels)):
            same = bool(labels[i] == labels[j])
            distance = (vectors[i] - vectors[j]).square().sum().sqrt().item()
            if i != j and (nearest[same] is None or distance < nearest[same][0]):
                nearest[same] = (distance, j)
        pair = [each and each[1] for each in (nearest[True], nearest[False])]
        if pair == [None, None]:
            pair = [i, i]
        found.append([pair[1] if pair[0] is None else pair[0], pair[1]])
        if pair[1] is None:
            found[-1][1] = pair[0]
    return torch.tensor(found)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 1, 2, 2, 0, 1],
        [0, 1, 2, 3, 4, 5, 6, 7],  # nobody has a partner of its class
        [3] * 8,  # nobody one of another class
        [0, 0, 0, 0, 0, 0, 0, 1],
        [2],
    ],
)
def test_partners_are_those_of_a_loop(labels):
    labels = torch.tensor(labels)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(len(labels), 6, generator=generator)
        found = partners(vectors, labels)
        assert torch.equal(found, slow_partners(vectors, labels))
        shares = F.one_hot(labels, 9) * 0.7 + 0.1  # mixed images: the largest share
        assert torch.equal(partners(vectors, shares), found)


def test_pairs_and_losses_are_those_of_a_loop():
    model, images = make(margin=0.01).eval(), batch()  # without dropout
    model.image_head.weight.data.normal_()
    model.mutual[2].weight.data.normal_()  # gates differ
    targets = torch.tensor([0, 0, 1, 1, 1, 4])  # the last has none of its class
    outputs = model(images, targets)
    losses = model.losses(outputs, targets)

    vectors = model.backbone(images).mean((2, 3))
    first, _, second = model.mutual
    softmax, rank = [], []
    for i, pair in enumerate(slow_partners(vectors, targets).tolist()):
        for kind, j in enumerate(pair):
            both = torch.cat([vectors[i], vectors[j]])
            mutual = second.weight @ (first.weight @ both + first.bias) + second.bias
            gate_i = 1 / (1 + (-mutual * vectors[i]).exp())
            gate_j = 1 / (1 + (-mutual * vectors[j]).exp())
            assert (gate_i > 0).all()
            assert (gate_i < 1).all()
            for member, (k, own, other) in enumerate(
                [(i, gate_i, gate_j), (j, gate_j, gate_i)]
            ):
                scores = []
                for name, gate in (("self", own), ("other", other)):
                    logits = model.image_head(vectors[k] * (1 + gate))
                    torch.testing.assert_close(outputs[name][i, kind, member], logits)
                    softmax.append(-logits.log_softmax(0)[targets[k]])
                    scores.append(logits.softmax(0)[targets[k]])
                rank.append((scores[1] - scores[0] + 0.01).clamp(min=0))
    assert len(softmax) == 8 * 6
    assert any(value == 0 for value in rank)
    assert any(value > 0 for value in rank)
    torch.testing.assert_close(losses["softmax"], torch.stack(softmax).mean())
    torch.testing.assert_close(losses["rank"], torch.stack(rank).mean())


def test_rank_is_0_where_an_image_s_own_gate_is_ahead_by_the_margin():
    model, targets = make(), torch.tensor([0, 0, 1, 1])
    wrong = torch.zeros(4, 2, 2, CLASSES)
    right = wrong.clone()
    partner = torch.tensor([[1, 2], [0, 2], [3, 0], [2, 0]])
    of_pair = torch.stack([targets[:, None].expand(-1, 2), targets[partner]], 2)
    right.scatter_(3, of_pair[..., None], 9.0)
    for ahead, behind, expected in ((right, wrong, 0.0), (right, right, 0.05)):
        outputs = {"self": ahead, "other": behind, "partner": partner}
        rank = model.losses(outputs, targets)["rank"]
        assert rank.item() == pytest.approx(expected, abs=1e-6)
    outputs = {"self": wrong, "other": right, "partner": partner}
    share = right.softmax(3).amax().item()
    expected = share - 1 / CLASSES + 0.05
    rank = model.losses(outputs, targets)["rank"]
    assert rank.item() == pytest.approx(expected, abs=1e-6)


def test_nobody_is_chosen_by_a_gradient():
    """Choosing partners is no part of what is learnt, and test images have none."""
    model, images = make().eval(), batch()
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    assert not model(images, targets)["partner"].requires_grad
    alone = model(images)
    assert list(alone) == ["image"]
    torch.testing.assert_close(alone["image"], model.predict(images))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"margin": -0.1}, {"dropout": 1.0}])
def test_options_out_of_range_are_told(wrong):
    with pytest.raises(InputError, match="apinet: width >= 1, margin >= 0"):
        make(**wrong)
