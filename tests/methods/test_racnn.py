"""RA-CNN: where it zooms, and what its losses ask for, against slow references."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.racnn import GRID, Proposal, pooled, within
from fgbook.recipe import Recipe

CLASSES = 5
SIZE = 40


def make(**options):
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=SIZE)
    return build("racnn", CLASSES, recipe, options)


def batch():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


WHOLE = torch.tensor([[0.0, 0.0, SIZE, SIZE]])


def test_a_square_of_the_whole_view_is_the_view():
    images, _ = batch()
    square = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    boxes = within(WHOLE.expand(4, 4), square)
    assert torch.equal(boxes, WHOLE.expand(4, 4))
    crops = regions.crop_zoom(images, boxes[:, None], SIZE)[:, 0]
    torch.testing.assert_close(crops, images)


@pytest.mark.parametrize(("h", "w"), [(2, 3), (4, 4), (5, 7), (14, 9)])
def test_maps_are_pooled_as_pytorch_does(h, w):
    maps = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_max_pool2d(maps, GRID)
    assert torch.equal(pooled(pooled(maps, 2), 3), expected)


def test_a_square_within_a_box():
    box = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    # right border: the centre at 1 - side; upper third of the rest
    square = torch.tensor([[0.5, -0.25, 0.5]])
    expected = torch.tensor([[20.0, 22.5, 30.0, 32.5]])
    torch.testing.assert_close(within(box, square), expected)


def test_a_crop_has_a_derivative_in_its_place_and_side():
    images = F.interpolate(torch.rand(2, 1, 5, 5), SIZE, mode="bicubic").double()
    # no sample at a pixel's centre, where straight lines meet
    squares = torch.tensor([[0.11, -0.26, 0.41], [-0.17, 0.07, 0.53]])

    def crop(squares):
        boxes = within(WHOLE.double().expand(2, 4), squares)
        return regions.crop_zoom(images, boxes[:, None], 6)

    torch.autograd.gradcheck(crop, squares.double().requires_grad_())


@torch.no_grad()
def test_proposals_stay_within_the_view_whatever_the_layers_say():
    torch.manual_seed(0)
    proposal = Proposal(6, 8)
    maps = torch.rand(50, 6, 5, 5)
    assert torch.equal(proposal(maps), torch.tensor([[0.0, 0.0, 0.5]]).expand(50, 3))
    proposal.last.weight.normal_(std=50)
    boxes = within(WHOLE.expand(50, 4), proposal(maps))
    assert boxes.min() >= -1e-4 and boxes.max() <= SIZE + 1e-4
    side = (boxes[:, 2:] - boxes[:, :2]) / SIZE
    torch.testing.assert_close(side[:, 0], side[:, 1])
    assert side.min() >= 1 / 3 - 1e-5 and side.max() <= 2 / 3 + 1e-5
    assert side.min() < 0.4 and side.max() > 0.6


@torch.no_grad()
def test_crops_lie_within_each_other():
    model = make().eval()
    for proposal in model.proposals:
        proposal.last.weight.normal_(std=0.5)
    boxes = model.locate(batch()[0])
    first, second = boxes["zoom1"], boxes["zoom2"]
    assert (first[:, :2] <= second[:, :2]).all()
    assert (second[:, 2:] <= first[:, 2:]).all()
    assert (boxes["zoom1"].std(0) > 0).any()


def outputs_with(probabilities):
    """Outputs of two images of class 0, from the probability of class 0 by scale."""
    outputs = {}
    names = ("image", "zoom1", "zoom2")
    for name, p in zip(names, torch.tensor(probabilities).T, strict=True):
        rest = (1 - p) / (CLASSES - 1)
        others = rest[:, None].expand(2, CLASSES - 1)
        outputs[name] = torch.cat([p[:, None], others], 1).log().requires_grad_()
    return outputs


def test_the_rank_loss_is_0_where_probabilities_rise_by_the_margin():
    targets = torch.zeros(2, dtype=torch.long)
    model = make(margin=0.05)
    rising = outputs_with([[0.2, 0.26, 0.9], [0.5, 0.56, 0.62]])
    assert not model.losses(rising, targets)["rank"]
    p = [[0.5, 0.4, 0.42], [0.2, 0.21, 0.6]]
    expected = 0.0
    for a, b, c in p:
        expected += (max(0, a - b + 0.05) + max(0, b - c + 0.05)) / 2
    found = model.losses(outputs_with(p), targets)["rank"]
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_coarser_scale_is_a_reference_of_the_rank_loss():
    targets = torch.zeros(2, dtype=torch.long)
    outputs = outputs_with([[0.5, 0.4, 0.42], [0.5, 0.4, 0.42]])
    make().losses(outputs, targets)["rank"].backward()
    assert outputs["image"].grad is None
    # lowering the loss raises the true class
    assert (outputs["zoom1"].grad[:, 0] < 0).all()
    assert (outputs["zoom2"].grad[:, 0] < 0).all()


def reached(model, *names):
    images, targets = batch()
    model.zero_grad()
    for proposal in model.proposals:  # begins at 0, and would pass nothing on
        torch.nn.init.normal_(proposal.last.weight)
    losses = model.losses(model(images), targets)
    sum(losses[name] for name in names).backward()
    return {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_which_loss_moves_what():
    model = make()
    assert reached(model, "peak") == {"proposals"}
    assert reached(model, "image") == {"backbone", "image_head"}
    assert reached(model, "joint") == {"joint_head"}
    assert reached(model, "zoom1") == {"backbone", "zoom_heads", "proposals"}
    # with backbone and heads at rest, the rank loss moves the proposals alone
    model.backbone.requires_grad_(False)
    model.zoom_heads.requires_grad_(False)
    assert reached(model, "rank") == {"proposals"}


@torch.no_grad()
def test_peaks_are_where_the_mean_map_is_highest():
    model = make().eval()
    images, _ = batch()
    maps = torch.rand(4, 7, 5, 5, generator=torch.Generator().manual_seed(3))
    side = torch.full((4, 1), 0.4)
    found = model._peak(maps, images, torch.cat([torch.zeros(4, 2), side], 1))
    depth = model.backbone.depth_at(SIZE)
    for b in range(4):
        mean = maps[b].mean(0)
        y, x = divmod(int(mean.argmax()), 5)
        for axis, cell in enumerate((x, y)):
            pixel = depth.first + depth.stride * cell
            expected = min(max(2 * pixel / SIZE - 1, -0.6), 0.6)
            assert found[b, axis].item() == pytest.approx(expected, abs=1e-6)


def test_bad_input_is_told():
    with pytest.raises(InputError, match="scales >= 2"):
        make(scales=1)
    with pytest.raises(InputError, match="racnn needs square images"):
        make().eval().predict(torch.rand(2, 3, 40, 48))
