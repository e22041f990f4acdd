"""MC-Loss: both losses against loops over classes and channels.
(tests/methods/test_methods.py has what holds of every method.)"""

import math

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.recipe import Recipe


def make(classes=5, seed=0, **options):
    torch.manual_seed(seed)
    recipe = Recipe(backbone="small", weights="none")  # 192 channels
    return build("mcloss", classes, recipe, options)


def groups_of(model, maps):
    """Maps (B, D, places) by class, as the model deals them out."""
    dealt = maps.index_select(1, model.index.flatten())
    return dealt.unflatten(1, model.index.shape)


@pytest.mark.parametrize("classes", [5, 64, 192])  # 38 or 39 channels each, 3, 1
def test_each_class_owns_channels_in_order(classes):
    model = make(classes)
    few, rest = divmod(192, classes)
    expected, first = [], 0
    for c in range(classes):
        number = few + (c >= classes - rest)
        expected.append(list(range(first, first + number)))
        first += number
    assert first == 192
    for row, count, own in zip(model.index, model.count, expected, strict=True):
        assert row[:count].tolist() == own
        assert set(row[count:].tolist()) <= {own[-1]}


@pytest.mark.parametrize("classes", [5, 64])
def test_diversity_is_that_of_a_loop(classes):
    model = make(classes)
    maps = torch.randn(3, 192, 7)
    found = model.diversities(groups_of(model, maps))
    for image in range(3):
        for c in range(classes):
            own = [maps[image, i].softmax(0) for i in model.index[c][: model.count[c]]]
            total = sum(max(channel[place] for channel in own) for place in range(7))
            expected = total.item() / len(own)
            assert found[image, c].item() == pytest.approx(expected, rel=1e-4)


def test_diversity_goes_from_one_channel_to_places_of_their_own():
    model = make(64)  # three channels a class
    equal = torch.randn(2, 64, 1, 9).expand(-1, -1, 3, -1)
    peaks = 100.0 * torch.eye(9)[torch.tensor([[0, 4, 8], [7, 1, 2]])]
    peaks = peaks[:, None].expand(-1, 64, -1, -1)
    for groups, expected in ((equal, 1 / 3), (peaks, 1.0)):
        found = model.diversities(groups)
        torch.testing.assert_close(found, torch.full((2, 64), expected))


@pytest.mark.parametrize(("masked", "hidden"), [(0.0, 0), (0.5, 19), (0.34, 13)])
def test_discriminality_is_that_of_a_loop(masked, hidden):
    """Channels that are told apart by their size tell which of them were hidden: the
    largest visible one is the maximum at every place."""
    model, classes = make(masked=masked), 5
    maps = torch.rand(40, 192, 4) - 3.0  # below 0, as of a network without a ReLU
    found = model.discriminality(groups_of(model, maps))
    assert found.shape == (40, classes)

    # by hand, with masks from the same random numbers
    torch.manual_seed(5)
    found = model.discriminality(groups_of(model, maps))
    torch.manual_seed(5)
    chance = torch.rand(40, classes, 39)
    for image in (0, 39):
        for c in range(classes):
            own = model.index[c][: model.count[c]].tolist()
            drop = math.floor(len(own) * masked)
            assert drop in (hidden, math.floor(38 * masked))
            draws = [(chance[image, c, i].item(), i) for i in range(len(own))]
            kept = [own[i] for _, i in sorted(draws)[drop:]]
            expected = 0.0
            for place in range(4):
                expected += max(maps[image, i, place].item() for i in kept) / 4
            assert found[image, c].item() == pytest.approx(expected, rel=1e-4)


def test_every_channel_is_hidden_as_often_and_images_differ():
    model = make(2, masked=0.5)  # 96 channels each, 48 hidden
    # at each place another channel is 1 and all others are 0
    groups = torch.eye(96).expand(500, 2, 96, 96)
    torch.manual_seed(0)
    found = []
    for place in range(96):
        torch.manual_seed(0)  # the same masks
        found.append(model.discriminality(groups[..., place : place + 1]))
    visible = torch.stack(found, 2) > 0  # (500, 2, 96)
    assert (visible.sum(2) == 48).all()
    often = visible.float().mean(0)
    assert often.min() > 0.4
    assert often.max() < 0.6
    assert len({tuple(row.tolist()) for row in visible[:, 0]}) == 500


def test_places_and_the_order_of_a_class_s_channels_do_not_matter():
    model = make(64, masked=0.0)
    groups = torch.randn(2, 64, 3, 9)
    turned = groups[:, :, [2, 0, 1]][..., torch.randperm(9)]
    torch.testing.assert_close(model.diversities(turned), model.diversities(groups))
    torch.testing.assert_close(
        model.discriminality(turned), model.discriminality(groups)
    )


def test_losses_are_weighted_as_in_the_paper():
    model = make(mu=0.3, diversity=4.0)
    outputs = {
        "image": torch.randn(6, 5),
        "channels": torch.randn(6, 5),
        "diversity": torch.rand(6, 5),
    }
    targets = torch.arange(6) % 5
    total = sum(model.losses(outputs, targets).values())
    expected = F.cross_entropy(outputs["image"], targets)
    discriminality = F.cross_entropy(outputs["channels"], targets)
    diversity = outputs["diversity"].mean()
    expected = expected + 0.3 * (discriminality - 4.0 * diversity) + 0.3 * 4.0
    torch.testing.assert_close(total, expected)


def test_a_layer_of_its_own_leaves_the_head_and_prediction_alone():
    images = torch.rand(3, 3, 40, 40)
    model, plain = make(xi=3).eval(), make().eval()
    assert model.index.shape == (5, 3)
    plain.load_state_dict(
        {n: v for n, v in model.state_dict().items() if not n.startswith("channels")}
    )
    assert torch.equal(model.predict(images), plain.predict(images))
    assert not torch.equal(model(images)["channels"], plain(images)["channels"])


@pytest.mark.parametrize("wrong", [{"mu": -1.0}, {"masked": 1.0}, {"xi": -1}])
def test_options_out_of_range_are_told(wrong):
    with pytest.raises(InputError, match="mcloss: mu >= 0, diversity >= 0"):
        make(**wrong)


def test_more_classes_than_channels_are_told_and_the_advice_helps():
    with pytest.raises(
        InputError, match=r"192 channels, fewer than the 200 .* xi to 3"
    ):
        make(200)
    assert make(200, xi=3).index.shape == (200, 3)
