"""Every backbone against the torchvision network that it comes from."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from fgbook.backbones import NAMES, create
from fgbook.backbones.small import Small

# Sides of an image and of its map; networks that do not pad at the border have fewer
# cells than side / stride.
SIDES = {
    "small": (64, 8),
    "vit_b_16": (64, 4),
    "alexnet": (95, 2),
    "alexnet_fc7": (95, 1),
    "inception_v3": (107, 2),
}


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_gradients(name):
    side, cells = SIDES.get(name, (64, 2))
    backbone = create(name, "none")
    images = torch.rand(2, 3, side, side)
    maps = backbone.stages(images)
    assert maps[-1].shape == (2, backbone.channels, cells, cells)
    channels = [found.shape[1] for found in maps]
    assert channels == [depth.channels for depth in backbone.depths]
    for found in maps:
        assert found.isfinite().all()
    # fails if a map was changed in place afterwards
    sum((found * torch.randn_like(found)).sum() for found in maps).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_no_classifier_is_left(name):
    kept = {
        "alexnet_fc7": ("network.classifier.1.", "network.classifier.4."),
        "convnext_tiny": ("network.classifier.0.",),
    }
    heads = ("network.fc", "network.heads", "network.classifier", "network.Aux")
    with torch.device("meta"):
        names = create(name, "none").state_dict()
    for key in names:
        if key.startswith(heads):
            assert key.startswith(kept.get(name, ())), key


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "alexnet_fc7",
        "vgg16",
        "inception_v3",
        "resnet18",
        "mobilenet_v2",
        "efficientnet_b0",
        "convnext_tiny",
    ],
)
def test_map_and_pooling_and_the_old_classifier_are_torchvisions_network(
    name, tmp_path
):
    """The weights go through a file with its classifiers; the images get the
    normalisation that torchvision asks for by hand."""
    # as torchvision sets it for ImageNet weights
    options = {}
    if name == "inception_v3":
        options = {"transform_input": True, "init_weights": True}
    network = torchvision.models.get_model(
        name.removesuffix("_fc7"), weights=None, **options
    ).eval()
    if name in ("alexnet", "vgg16"):
        features = {"alexnet": 256 * 6 * 6, "vgg16": 512 * 7 * 7}[name]
        network.classifier = nn.Linear(features, 5)  # a small file
    # statistics other than 0 and 1, so that losing them would show
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        elif name == "inception_v3" and isinstance(module, nn.Conv2d):
            # its own start needs batch statistics to stay finite
            nn.init.kaiming_normal_(module.weight)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    backbone = create(name, str(tmp_path / "a.safetensors")).eval()
    # ConvNeXt pools before its LayerNorm: the same only on a map of one cell
    side = {"convnext_tiny": 32, "inception_v3": 107}.get(name, 64)
    images = torch.rand(2, 3, side, side)
    normalised = torchvision.transforms.functional.normalize(
        images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        maps, expected = backbone(images), network(normalised)
        if name in ("alexnet", "vgg16"):
            logits = network.classifier(network.avgpool(maps).flatten(1))
        elif hasattr(network, "fc"):
            logits = network.fc(maps.mean((2, 3)))
        else:
            logits = network.classifier[-1](maps.mean((2, 3)))
    # between two images: small beside the biases
    difference = (expected[0] - expected[1]).abs().max().item()
    assert difference > 0
    torch.testing.assert_close(logits, expected, atol=0.01 * difference, rtol=0)


def test_transformer_tokens_are_torchvisions_in_their_places_at_any_size():
    backbone = create("vit_b_16", "none").eval()
    state = backbone.network.state_dict()
    for size in (224, 64):
        reference = torchvision.models.vit_b_16(image_size=size).eval()
        position = state["encoder.pos_embedding"]  # (1, 1 + 14 * 14, 768)
        grid = position[0, 1:].view(14, 14, 768).permute(2, 0, 1)[None]
        if size != 224:
            grid = F.interpolate(grid, (size // 16, size // 16), mode="bicubic")
        patches = grid[0].permute(1, 2, 0).reshape(1, -1, 768)
        position = torch.cat([position[:, :1], patches], 1)
        resized = {**state, "encoder.pos_embedding": position}
        reference.load_state_dict(resized, strict=False)
        reference.heads = nn.Identity()
        places = []  # the tokens after the last layer

        def keep(module, inputs, output, places=places):
            places.append(output)

        reference.encoder.register_forward_hook(keep)
        images = torch.rand(1, 3, size, size)
        with torch.no_grad():
            reference((images - backbone.mean) / backbone.std)
            maps = backbone(images)
        side = size // 16
        for y, x in ((0, 0), (0, side - 1), (side - 1, 0), (1, 2)):
            torch.testing.assert_close(
                maps[0, :, y, x], places[-1][0, 1 + y * side + x], atol=1e-4, rtol=1e-4
            )


def test_small_is_its_network_and_sees_normalised_images():
    backbone = create("small", "none").eval()
    seen = []
    backbone.network.stem.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    backbone(grey)
    backbone(grey + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 16, 16))
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 16, 16))
    images = torch.rand(2, 3, 16, 24)
    assert torch.equal(
        backbone(images), backbone.network((images - backbone.mean) / backbone.std)
    )
    assert (backbone.channels, backbone.stride) == (Small.channels, Small.stride)


def test_nothing_heavy_is_loaded_before_a_network_is_made():
    """Names, and what identifies weights, are known without torchvision and timm."""
    code = """
import sys
from fgbook import backbones
for name in (*backbones.NAMES, "timm:tf_efficientnet_lite0"):
    backbones.weights_id(name)
print([name for name in ("torchvision", "timm") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
