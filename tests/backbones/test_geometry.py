"""Where cells look: computed, measured, and seen in the gradients of random
networks."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook.backbones import NAMES, create
from fgbook.backbones.geometry import measure
from fgbook.errors import InputError

LITE0 = "timm:tf_efficientnet_lite0"

# The size of the form 32 k, then 32 k + 1; networks of large windows need larger ones.
SIZES = {name: (128, 129) for name in NAMES} | {
    "small": (64, 65),
    "alexnet": (192, 193),
    "vgg16": (96, 97),
    "inception_v3": (288, 289),
    "vit_b_16": (64, 65),
    "resnet101": (160, 161),
    LITE0: (192, 193),
    "timm:mobilenetv3_small_100": (128, 129),
    "timm:tf_mobilenetv3_small_minimal_100": (128, 129),
    "timm:resnet18": (128, 129),
    "timm:resnet18d": (128, 129),
    "timm:convnext_atto": (128, 129),
    "timm:vit_tiny_patch16_224": (96, 112),  # it takes whole patches only
}
SIZES.pop("alexnet_fc7")  # one cell, which looks at the whole image


def random(name):
    """A backbone in eval mode with random weights, in which no way through a block
    counts for nothing (timm starts so) and none so much that a cell sees all of the
    image alike."""
    with torch.device("meta"):  # the usual start would take longer
        backbone = create(name, "none")
    backbone.to_empty(device="cpu").eval().requires_grad_(False)
    backbone.mean.fill_(0.5)
    backbone.std.fill_(0.25)
    for module in backbone.modules():
        batchnorm = isinstance(module, nn.BatchNorm2d)
        if batchnorm:
            module.reset_running_stats()
        for kind, parameter in module.named_parameters(recurse=False):
            if kind in ("gamma", "layer_scale"):  # of ConvNeXt: it starts at 1e-6
                parameter.fill_(0.1)
            elif parameter.ndim == 1:
                weight = 0.5 if batchnorm else 1
                parameter.fill_(0 if kind == "bias" else weight)
            elif "vit" in name:
                parameter.normal_(0, 0.02)
            else:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
    return backbone


def seen(maps, images, x):
    """Where the cells in column x of each map's diagonal look, from the squared
    gradients of a random sum over channels: mean of both axes."""
    places = []
    for cells, column in zip(maps, x, strict=True):
        cell = cells[0, :, column, column]
        (gradient,) = torch.autograd.grad(
            (cell * torch.randn(len(cell))).sum(), images, retain_graph=True
        )
        weight = gradient[0].double().square().sum(0)
        pixel = torch.arange(len(weight)) + 0.5
        down = (weight.sum(1) * pixel).sum() / weight.sum()
        across = (weight.sum(0) * pixel).sum() / weight.sum()
        places.append((down + across).item() / 2)
    return places


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("which", [0, 1])
def test_cells_look_where_the_backbone_says(name, which):
    """Gradients of random networks are noisy; what would be wrong is wrong by half a
    stride at least."""
    size = SIZES[name][which]
    torch.manual_seed(0)
    backbone = random(name)
    images = torch.rand(1, 3, size, size, requires_grad=True)
    maps = backbone.stages(images)
    depths = backbone.depths_at(size)
    assert [cells.shape[1] for cells in maps] == [depth.channels for depth in depths]

    # cells as near the middle as there are, so that no window leaves the image far
    columns = []
    for cells, depth in zip(maps, depths, strict=True):
        nearest = round((size / 2 - depth.first) / depth.stride)
        columns.append(min(max(nearest, 0), cells.shape[-1] - 1))
    found = [seen(maps, images, columns) for _ in range(2)]
    for depth, column, *places in zip(depths, columns, *found, strict=True):
        expected = depth.first + column * depth.stride
        assert sum(places) / 2 == pytest.approx(expected, abs=0.3 * depth.stride)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "alexnet_fc7"])
@pytest.mark.parametrize("size", [192, 193])
def test_what_is_computed_from_layers_is_what_is_measured(name, size):
    with torch.device("meta"):  # measuring gives all weights their values
        backbone = create(name, "none")
    backbone.to_empty(device="cpu")
    strides = [depth.stride for depth in backbone.depths]
    found = measure(backbone.network, backbone.features, strides, size)
    assert found == [depth.first for depth in backbone.depths_at(size)]


@pytest.mark.parametrize("size", [160, 161, 170, 193, 224, 225, 299, 640, 641])
def test_tensorflows_padding_depends_on_the_size(size):
    """Halving an even number of cells pads on the right and below only, so that each
    window of three begins at its cell; of an odd number, on both sides."""
    depths = create(LITE0, "none").depths_at(size)
    first, cells, expected = 0.5, size, {}
    for stride in (2, 4, 8, 16, 32):
        if cells % 2 == 0:
            first += stride / 2
        cells = math.ceil(cells / 2)
        expected[stride] = first
    assert [depth.first for depth in depths] == [expected[s] for s in (4, 8, 16, 32)]


def test_at_32_k_plus_1_the_cells_of_both_paddings_reach_from_border_to_border():
    for name in (LITE0, "mobilenet_v2"):
        depth = create(name, "none").depth_at(161)
        assert depth.first == 0.5, name
        assert depth.first + 5 * depth.stride == 160.5, name


def test_lite0_has_four_depths_and_ends_where_its_classifier_pools():
    backbone = create(LITE0, "none").eval()
    assert [d.channels for d in backbone.depths] == [24, 40, 112, 1280]
    assert [d.stride for d in backbone.depths] == [4, 8, 16, 32]
    images = torch.rand(1, 3, 96, 96)
    pooled = backbone(images).mean((2, 3))
    expected = backbone.network((images - backbone.mean) / backbone.std)
    torch.testing.assert_close(pooled, expected)


def test_measuring_disturbs_nothing_and_nothing_disturbs_it():
    """Under whatever is switched on around it; random numbers stay what they were."""
    backbone = create("timm:tf_mobilenetv3_small_minimal_100", "none")
    before, state = backbone.depths_at(96), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        first = backbone.depths_at(97)
    with FakeTensorMode(), torch.device("meta"):
        second = backbone.depths_at(98)
    assert torch.equal(torch.get_rng_state(), state)
    assert (before[-1].first, first[-1].first, second[-1].first) == (31.5, 0.5, 1.5)


class Mixer(nn.Module):
    """A stand-in for networks that mix all places otherwise than by attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.mix = nn.Linear(64, 64)

    def forward(self, x):
        cells = self.patches(x).flatten(2)  # (B, 4, 64)
        return (cells + self.mix(cells)).unflatten(2, (8, 8))


def test_cells_without_a_middle_are_tiles():
    assert measure(Mixer(), lambda network, x: [network(x)], [8], 64) == [4]


def test_a_size_that_a_network_does_not_take_is_said():
    backbone = create("timm:mixer_s16_224", "none")
    with pytest.raises(InputError, match="does not take images of 97 px"):
        backbone.depths_at(97)
