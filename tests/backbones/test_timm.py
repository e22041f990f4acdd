"""timm's networks as backbones: every layout of maps, every family."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook import methods
from fgbook.backbones import create, timm_networks
from fgbook.errors import InputError
from fgbook.evaluation import cost
from fgbook.recipe import Recipe

FAMILIES = (
    "tf_efficientnet_lite0",
    "mobilenetv3_small_100",
    "resnet18",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_map_is_what_the_classifier_pools(name):
    import timm

    backbone = create(f"timm:{name}", "none").eval()
    network = timm.create_model(name, num_classes=0).eval()
    network.load_state_dict(backbone.network.state_dict())
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        maps = backbone.stages(images)
        features = network.forward_features((images - backbone.mean) / backbone.std)
    if features.ndim == 3:  # a class token, then the patches
        expected = features[:, 1:].mean(1)
    elif features.shape[-1] == backbone.channels:
        expected = features.mean((1, 2))
    else:
        expected = features.mean((2, 3))
    torch.testing.assert_close(maps[-1].mean((2, 3)), expected)


@pytest.mark.parametrize(("height", "width"), [(97, 97), (96, 96), (97, 64), (33, 70)])
def test_same_padding_is_timm_s_and_copies_only_where_it_is_uneven(
    height, width, monkeypatch
):
    """To the last bit, and after a copy of the network, too."""
    import timm

    name = "tf_efficientnet_lite0"
    backbone = copy.deepcopy(create(f"timm:{name}", "none"))
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(backbone.network.state_dict())
    images = torch.rand(2, 3, height, width)
    wanted = theirs.eval().forward_features((images - backbone.mean) / backbone.std)
    wanted.sum().backward()

    padded = []
    pad = F.pad

    def counted(x, *arguments, **named):
        padded.append(x.shape)
        return pad(x, *arguments, **named)

    monkeypatch.setattr(F, "pad", counted)
    found = backbone.eval().stages(images)[-1]
    found.sum().backward()
    assert torch.equal(found, wanted)
    gradients = dict(theirs.named_parameters())
    for each, parameter in backbone.network.named_parameters():
        assert torch.equal(parameter.grad, gradients[each].grad), each
    # five convolutions have a stride of two; 97 is 32 k + 1
    strided = [module for module in theirs.modules() if isinstance(module, Conv2dSame)]
    assert len(strided) == 5
    assert len(padded) <= 5
    assert (len(padded) == 0) == ((height, width) == (97, 97))


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_have_the_channels_and_strides_of_their_depths(name):
    backbone = create(f"timm:{name}", "none").eval()
    with torch.no_grad():
        maps = backbone.stages(torch.rand(1, 3, 224, 224))
    strides = [4, 8, 16, 32] if name != "vit_tiny_patch16_224" else [16]
    assert [224 // found.shape[2] for found in maps] == strides
    assert [depth.stride for depth in backbone.depths] == strides
    channels = [depth.channels for depth in backbone.depths]
    assert [found.shape[1] for found in maps] == channels
    assert backbone.channels == channels[-1]


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "convnext_atto"])
def test_gradients_reach_every_parameter_that_learns(name):
    """Both have layers behind the pooling, which do not learn."""
    backbone = create(f"timm:{name}", "none")
    maps = backbone.stages(torch.rand(2, 3, 64, 64))
    (maps[-1] * torch.randn_like(maps[-1])).sum().backward()
    idle = []
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        if not parameter.requires_grad:
            idle.append(key.split(".")[1])
    assert set(idle) == {"conv_head" if name.startswith("mobile") else "head"}


def test_transformers_take_images_that_are_not_square():
    backbone = create("timm:vit_tiny_patch16_224", "none").eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 32, 64)).shape == (1, 192, 2, 4)


@pytest.mark.parametrize("size", [96, 97])
def test_methods_use_them_where_tensors_have_no_values(size, monkeypatch):
    """As a count of operations does, before anything is measured."""
    monkeypatch.setattr(timm_networks, "_measured", {})
    recipe = Recipe(backbone="timm:tf_mobilenetv3_small_minimal_100", weights="none")
    model = methods.build("focus", 3, recipe, {"m": 2, "l": 1})
    parameters, operations = cost.size(model, size)
    assert parameters == sum(p.numel() for p in model.parameters())
    assert operations > 0
    with FakeTensorMode():
        model = methods.build("focus", 3, recipe, {"m": 2, "l": 1})
        logits = model(torch.rand(2, 3, size, size), torch.tensor([0, 1]))
        assert logits["hybrid"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("deit_tiny_patch16_224", 16),
        ("deit_tiny_distilled_patch16_224", 16),
        ("vit_small_patch14_dinov2", 14),
        ("vit_small_patch14_reg4_dinov2", 14),
        ("vit_base_patch32_clip_224", 32),
    ],
)
def test_transformers_see_whole_patches_of_any_size_of_image(name, patch):
    """As a row of the plain method: what no patch reaches changes nothing."""
    recipe = Recipe(backbone=f"timm:{name}", weights="none")
    model = methods.build("plain", 3, recipe, {}).eval()
    size, cells = 3 * patch + 1, 3
    images = torch.rand(2, 3, size, size)
    beyond = images.clone()
    beyond[..., cells * patch :] = 0
    with torch.no_grad():
        found = model.backbone(images)
        assert found.shape == (2, model.backbone.channels, cells, cells)
        assert torch.equal(model.predict(images), model.predict(beyond))
    depth = model.backbone.depth_at(size)
    assert (depth.stride, depth.first) == (patch, patch / 2)


def test_images_smaller_than_a_patch_are_refused():
    backbone = create("timm:vit_tiny_patch16_224", "none")
    with pytest.raises(
        InputError, match="15 x 20 px are smaller than the patches of 16"
    ):
        backbone(torch.rand(1, 3, 20, 15))


class Layout(nn.Module):
    """A stand-in for a timm network: a patch convolution whose output comes in one of
    timm's three layouts."""

    num_prefix_tokens, num_features = 2, 10
    feature_info = ({"num_chs": 10, "reduction": 8},)
    pretrained_cfg = {  # noqa: RUF012 -- as timm's networks have it
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "input_size": (3, 32, 32),
    }

    def __init__(self, layout):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 8, 8)
        self.layout = layout
        self.output_fmt = "NHWC" if layout == "nhwc" else "NCHW"

    def forward_intermediates(self, x, indices):
        assert indices == [0]
        x = self.conv(x)
        if self.layout == "nchw":
            return x, [x]
        if self.layout == "nhwc":
            return x.permute(0, 2, 3, 1), [x]
        prefix = torch.full((len(x), 2, 10), 99.0, dtype=x.dtype, device=x.device)
        return torch.cat([prefix, x.flatten(2).transpose(1, 2)], 1), [x]


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_every_layout_of_timm_becomes_a_map(monkeypatch, layout):
    import timm

    def create_model(name, num_classes, **options):
        assert num_classes == 0
        if "dynamic_img_size" in options and layout != "tokens":
            raise TypeError("unexpected keyword argument 'dynamic_img_size'")
        return Layout(layout)

    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(timm_networks, "_measured", {})
    backbone = create("timm:net", "none")
    images = torch.rand(2, 3, 48, 64)
    expected = backbone.network.conv((images - 0.5) / 0.25)
    torch.testing.assert_close(backbone(images), expected)
    depth = backbone.depth_at(48)
    assert (depth.channels, depth.stride, depth.first) == (10, 8, 4)


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(InputError, match="timm has no model.*nearest: .*resnet18"):
        create("timm:resnet188", "none")
