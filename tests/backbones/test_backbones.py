"""Every backbone against the torchvision network it comes from; weights from every
place, and every way they can be wrong."""

import copy
import hashlib
import os
import pickle
import sys
import types
import urllib.error

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from fgbook.backbones import (
    NAMES,
    TORCHVISION,
    SecondStatistics,
    create,
    freeze_statistics,
    weights,
    weights_id,
)
from fgbook.backbones.small import Small
from fgbook.errors import InputError


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty weights folder, an empty download cache, and a download that fails as it
    does without a network."""

    def fail(url, *arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FGBOOK_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)


def message(error) -> str:
    """The message of an InputError, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


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
    assert [found.shape[1] for found in maps] == [
        depth.channels for depth in backbone.depths
    ]
    assert all(found.isfinite().all() for found in maps)
    # fails if a map was changed in place afterwards
    sum((found * torch.randn_like(found)).sum() for found in maps).backward()
    assert not [
        key
        for key, parameter in backbone.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    last = "network.classifier.6" if name == "alexnet_fc7" else "network.classifier.1"
    assert not any(
        key.startswith(("network.fc", "network.heads", last, "network.Aux"))
        for key in backbone.state_dict()
    )
    if name in ("alexnet", "vgg16"):
        assert not any(
            key.startswith("network.classifier") for key in backbone.state_dict()
        )


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
    options = (
        {"transform_input": True, "init_weights": True}
        if name == "inception_v3"
        else {}
    )
    network = torchvision.models.get_model(
        name.removesuffix("_fc7"), weights=None, **options
    ).eval()
    if name in ("alexnet", "vgg16"):
        # a small file
        network.classifier = nn.Linear(
            {"alexnet": 256 * 6 * 6, "vgg16": 512 * 7 * 7}[name], 5
        )
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
        else:
            logits = (network.fc if hasattr(network, "fc") else network.classifier[-1])(
                maps.mean((2, 3))
            )
    # between two images: small beside the biases
    difference = (expected[0] - expected[1]).abs().max().item()
    assert difference > 0
    torch.testing.assert_close(logits, expected, atol=0.01 * difference, rtol=0)


def test_transformer_tokens_are_torchvisions_in_their_places_at_any_size():
    backbone = create("vit_b_16", "none").eval()
    state = backbone.network.state_dict()
    for size in (224, 64):
        reference = torchvision.models.vit_b_16(image_size=size).eval()
        grid = (
            state["encoder.pos_embedding"][0, 1:]
            .view(14, 14, 768)
            .permute(2, 0, 1)[None]
        )
        if size != 224:
            grid = F.interpolate(grid, (size // 16, size // 16), mode="bicubic")
        position = torch.cat(
            [
                state["encoder.pos_embedding"][:, :1],
                grid[0].permute(1, 2, 0).reshape(1, -1, 768),
            ],
            1,
        )
        reference.load_state_dict(
            {**state, "encoder.pos_embedding": position}, strict=False
        )
        tokens = []
        reference.encoder.register_forward_hook(
            lambda module, inputs, output: tokens.append(output)
        )
        images = torch.rand(1, 3, size, size)
        with torch.no_grad():
            reference((images - backbone.mean) / backbone.std)
            maps = backbone(images)
        side = size // 16
        for y, x in ((0, 0), (0, side - 1), (side - 1, 0), (1, 2)):
            torch.testing.assert_close(
                maps[0, :, y, x], tokens[-1][0, 1 + y * side + x], atol=1e-4, rtol=1e-4
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


# ---- weights ---------------------------------------------------------------------------------------------------------


def saved(path, seed, name="resnet18", wrap=None, **extra):
    """Random weights of the whole torchvision network, written to `path`; returns
    them."""
    torch.manual_seed(seed)
    state = {**torchvision.models.get_model(name, weights=None).state_dict(), **extra}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(wrap(state) if wrap else state, path)
    return state


def first(backbone):
    return backbone.network.conv1.weight


def test_pretrained_takes_the_imagenet_file_and_variants_are_named(tmp_path):
    folder = tmp_path / "weights"
    imagenet = saved(folder / "resnet18-imagenet1k.safetensors", 1)
    birds = saved(folder / "resnet18-birds.pth", 2)
    other = saved(folder / "resnet18.pt", 3)
    assert torch.equal(first(create("resnet18")), imagenet["conv1.weight"])
    for which in (
        "resnet18-birds",
        "resnet18-birds.pth",
        str(folder / "resnet18-birds.pth"),
    ):
        assert torch.equal(first(create("resnet18", which)), birds["conv1.weight"])
        assert weights_id("resnet18", which) == weights_id("resnet18", "resnet18-birds")
    (folder / "resnet18-imagenet1k.safetensors").unlink()
    assert torch.equal(first(create("resnet18")), other["conv1.weight"])
    (folder / "resnet18.pt").unlink()
    with pytest.raises(InputError):  # the birds are not what "pretrained" means
        create("resnet18")
    assert create("resnet18", "none") is not None


def test_pretrained_finds_torchvisions_own_file_in_the_folder_or_its_cache(tmp_path):
    for place in (tmp_path / "weights", tmp_path / "torch" / "hub" / "checkpoints"):
        state = saved(place / "resnet18-f37072fd.pth", 4)
        assert torch.equal(first(create("resnet18")), state["conv1.weight"])
        (place / "resnet18-f37072fd.pth").unlink()


def test_offline_without_weights_says_what_to_do(tmp_path):
    for name in TORCHVISION:
        with pytest.raises(InputError) as error:
            create(name)
        text = message(error)
        assert (
            "no network" in text
            and f"{name}-imagenet1k.safetensors" in text
            and "FGBOOK_WEIGHTS" in text
            and str(tmp_path) in text
        )
    # and no download was tried
    assert weights_id("resnet50") == "ResNet50_Weights.IMAGENET1K_V1"


def test_wrapped_and_prefixed_state_dicts_are_understood(tmp_path):
    path = tmp_path / "a.pth"
    for wrap in (
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": s},
    ):
        state = saved(path, 5, wrap=wrap)
        assert torch.equal(first(create("resnet18", str(path))), state["conv1.weight"])


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "weights" / "resnet18.pth"
    bare = pickle.dumps(Malicious(marker), protocol=2)
    for write in (
        lambda: torch.save({"conv1.weight": Malicious(marker)}, path),
        lambda: path.write_bytes(bare),
    ):
        write()
        with pytest.raises(InputError, match="never run") as error:
            create("resnet18")
        assert str(path) in message(error)
        assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.is_dir()  # the file was a real attack


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    saved(path, 6)
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:100],
        b"",
        b"<html>not found</html>",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            create("resnet18", str(path))
        assert str(path) in message(error)


def test_files_without_tensors_are_refused(tmp_path):
    for content in ([1, 2], {}, {"a": 1}, torch.zeros(3)):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match="state dict"):
            create("resnet18", str(tmp_path / "a.pth"))


def test_weights_that_do_not_fit_are_told_by_key(tmp_path):
    path = tmp_path / "a.pth"
    state = saved(
        path, 7, **{"extra.weight": torch.zeros(2), "bn1.weight": torch.zeros(65)}
    )
    # the counter alone would not matter
    del state["layer1.0.conv1.weight"], state["bn1.num_batches_tracked"]
    torch.save(state, path)
    with pytest.raises(InputError) as error:
        create("resnet18", str(path))
    text = message(error)
    assert (
        "missing: layer1.0.conv1.weight;" in text
        and "unexpected: extra.weight;" in text
    )
    assert "other shape: bn1.weight (65,) instead of (64,)." in text
    with pytest.raises(
        InputError, match="missing: .* and [0-9]+ more; unexpected: .* more"
    ):
        create("mobilenet_v2", str(path))


def test_small_comes_from_the_package_and_its_absence_is_said(tmp_path, monkeypatch):
    torch.manual_seed(8)
    state = Small().state_dict()
    save_file(state, tmp_path / "small.safetensors")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "small.safetensors")
    loaded = create("small").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    before = weights_id("small")
    save_file(
        {**state, "widen.0.weight": state["widen.0.weight"] + 1},
        tmp_path / "small.safetensors",
    )
    assert (
        before.startswith("small.safetensors sha256:") and weights_id("small") != before
    )
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "missing.safetensors")
    for ask in (create, weights_id):
        with pytest.raises(InputError, match="missing") as error:
            ask("small")
        message(error)


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        create("resnet05")
    with pytest.raises(InputError, match="unknown backbone"):
        weights_id("resnet05")
    saved(tmp_path / "weights" / "here.pth", 9)
    with pytest.raises(
        InputError, match=r"neither a file nor in .*there: here\.pth"
    ) as error:
        create("resnet18", "nowhere")
    message(error)


def test_weights_id_is_the_files_checksum(tmp_path):
    path = tmp_path / "weights" / "mobilenet_v2-imagenet1k.safetensors"
    saved(path, 10, "mobilenet_v2")
    assert (
        weights_id("mobilenet_v2")
        == f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    )
    assert weights_id("mobilenet_v2", "none") == "none"


# ---- timm ------------------------------------------------------------------------------------------------------------


def test_without_timm_one_sentence(monkeypatch):
    # what Python does for a package that is not there
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'fgbook\[timm\]'") as error:
        create("timm:resnet18", "none")
    message(error)


class Layout(nn.Module):
    """A stand-in for a timm network: a patch convolution whose output comes in one of
    timm's three layouts."""

    def __init__(self, layout):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 8, 8)
        self.layout, self.output_fmt, self.num_prefix_tokens = (
            layout,
            "NHWC" if layout == "nhwc" else "NCHW",
            2,
        )
        self.pretrained_cfg = {
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "input_size": (3, 32, 32),
        }

    def forward_features(self, x):
        x = self.conv(x)
        tokens = torch.cat(
            [torch.full((len(x), 2, 10), 99.0), x.flatten(2).transpose(1, 2)], 1
        )
        return {"nchw": x, "nhwc": x.permute(0, 2, 3, 1), "tokens": tokens}[self.layout]


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_every_layout_of_timm_becomes_a_map(monkeypatch, layout):
    def create_model(name, num_classes, **options):
        assert num_classes == 0
        if "dynamic_img_size" in options and layout != "tokens":
            raise TypeError("unexpected keyword argument 'dynamic_img_size'")
        if name != "net":
            raise RuntimeError(f"Unknown model ({name})")
        return Layout(layout)

    monkeypatch.setitem(
        sys.modules,
        "timm",
        types.SimpleNamespace(
            create_model=create_model, list_models=lambda: ["net", "other"]
        ),
    )
    backbone = create("timm:net", "none")
    images = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(
        backbone(images), backbone.network.conv((images - 0.5) / 0.25)
    )
    assert (backbone.channels, backbone.stride) == (10, 8)
    with pytest.raises(InputError, match="nearest: net"):
        create("timm:nett", "none")


# ---- BatchNorm -------------------------------------------------------------------------------------------------------


def test_frozen_statistics_stay_through_training_and_affine_parameters_learn():
    model = nn.Sequential(create("small", "none"), nn.BatchNorm2d(Small.channels))
    census = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    assert len(census) > 2
    freeze_statistics(model)
    model.eval()
    model.train()
    assert {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    } == {"1"}
    before = copy.deepcopy(model[0].state_dict())
    model(torch.rand(4, 3, 32, 32)).square().mean().backward()
    assert all(
        torch.equal(before[key], value) for key, value in model[0].state_dict().items()
    )
    assert all(
        parameter.requires_grad and parameter.grad is not None
        for parameter in model[0].parameters()
    )
    thawed = create("small", "none")
    thawed(torch.rand(4, 3, 32, 32))
    assert thawed.network.stem[1].num_batches_tracked == 1  # what freezing prevented


def test_second_statistics_are_those_of_a_network_that_saw_only_the_second_view(
    tmp_path,
):
    network = create("small", "none")
    second, twin = SecondStatistics(network), copy.deepcopy(network)
    untouched = copy.deepcopy(network.state_dict())
    views = torch.rand(3, 4, 3, 32, 32) * 0.3
    for view in views:
        assert torch.equal(second(network, view), twin(view))
    assert all(
        torch.equal(untouched[key], value)
        for key, value in network.state_dict().items()
    )
    network.eval(), twin.eval()
    assert torch.equal(second(network, views[0]), twin(views[0])) and not torch.equal(
        network(views[0]), twin(views[0])
    )
    save_file(second.state_dict(), tmp_path / "second.safetensors")
    fresh = SecondStatistics(network)
    fresh.load_state_dict(load_file(tmp_path / "second.safetensors"))
    assert torch.equal(fresh(network, views[0]), twin(views[0]))


def test_second_statistics_change_nothing_where_statistics_are_frozen():
    network = create("small", "none")
    freeze_statistics(network)
    second = SecondStatistics(network)
    network.train()
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(second(network, images), network(images))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            second.buffers(), SecondStatistics(network).buffers(), strict=True
        )
    )


# Sides of an image that is low enough to be quick and wide enough that the middle cells
# do not see its ends.
WIDE = {
    "small": (32, 128),
    "alexnet": (64, 288),
    "vgg16": (32, 288),
    "inception_v3": (75, 1504),
    "resnet18": (32, 544),
    "mobilenet_v2": (32, 544),
}


@pytest.mark.parametrize("name", WIDE)
def test_the_cells_of_every_depth_look_where_it_says(name, monkeypatch):
    """With equal positive weights and averages in place of maxima a network is linear,
    and a window's weight has its centre in its middle."""
    monkeypatch.setattr(
        F,
        "max_pool2d",
        lambda x, kernel_size, stride, padding=0, *rest, **options: F.avg_pool2d(
            x, kernel_size, stride, padding
        ),
    )
    backbone = create(name, "none").eval().requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.fill_(1 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.zero_()
    backbone.mean.zero_()
    height, width = WIDE[name]
    images = torch.full((1, 3, height, width), 1e-3, requires_grad=True)
    maps = backbone.stages(images)
    for found, depth in zip(maps, backbone.depths, strict=True):
        cell = found.shape[3] // 2
        (gradient,) = torch.autograd.grad(
            found[0, :, 0, cell].sum(), images, retain_graph=True
        )
        weight = gradient[0].sum((0, 1)).double()  # (width,)
        assert weight[0] == weight[-1] == 0  # the window lies inside
        centre = ((torch.arange(width) + 0.5) * weight).sum() / weight.sum()
        assert centre.item() == pytest.approx(
            depth.first + cell * depth.stride, abs=0.01
        )
    assert (backbone.channels, backbone.stride, backbone.first) == (
        depth.channels,
        depth.stride,
        depth.first,
    )


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_a_cell_looks_where_the_backbone_says(name):
    """The centre of gravity of the input's gradient of a middle cell, averaged over
    random networks, is there and not half a stride away."""
    centres = []
    for seed in range(4):
        torch.manual_seed(seed)
        backbone = create(name, "none").eval()
        size = 8 * backbone.stride
        images = torch.rand(1, 3, size, size, requires_grad=True)
        cell = backbone(images)[0, :, 4, 4]
        (cell / cell.detach().abs().max()).square().sum().backward()
        weight = images.grad[0].double().square().sum(0)  # (size, size)
        place = torch.arange(size) + 0.5  # pixel centres
        centres += [
            ((weight.sum(axis) * place).sum() / weight.sum()).item() for axis in (0, 1)
        ]
    assert sum(centres) / len(centres) == pytest.approx(
        backbone.first + 4 * backbone.stride, abs=backbone.stride / 4
    )
