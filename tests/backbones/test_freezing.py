"""What of a backbone does not learn: statistics, stages; statistics of a second kind of
image."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fgbook.backbones import (
    SecondStatistics,
    create,
    freeze_stages,
    freeze_statistics,
    in_bf16,
    modules_of_stages,
)
from fgbook.backbones.small import Small
from fgbook.errors import InputError

# ---- statistics


def test_frozen_statistics_stay_through_training_and_affine_parameters_learn():
    model = nn.Sequential(create("small", "none"), nn.BatchNorm2d(Small.channels))
    freeze_statistics(model)
    model.eval()
    model.train()
    learning = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.training:
            learning.append(name)
    assert learning == ["1"]  # not the backbone's
    before = copy.deepcopy(model[0].state_dict())
    model(torch.rand(4, 3, 32, 32)).square().mean().backward()
    for key, value in model[0].state_dict().items():
        assert torch.equal(before[key], value), key
    for name, parameter in model[0].named_parameters():
        assert parameter.grad is not None, name
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
    for key, value in network.state_dict().items():
        assert torch.equal(untouched[key], value), key
    network.eval(), twin.eval()
    assert torch.equal(second(network, views[0]), twin(views[0]))
    assert not torch.equal(network(views[0]), twin(views[0]))
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
    fresh = SecondStatistics(network)
    for kept, started in zip(second.buffers(), fresh.buffers(), strict=True):
        assert torch.equal(kept, started)


# ---- stages


class Pooled(nn.Module):
    """A backbone and a head, as methods have them."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.channels, 3)

    def forward(self, images):
        return self.head(self.backbone(images).mean((2, 3)))


def stage_of(name):
    """The depth that a parameter of resnet18 comes before, written by hand."""
    for stage in (1, 2, 3, 4):
        if f"layer{stage}" in name:
            return stage
    return 1  # the stem


@pytest.mark.parametrize("n", [0, 1, 3, 4])
def test_gradients_stop_exactly_at_the_frozen_stages(n):
    model = Pooled(create("resnet18", "none"))
    freeze_stages(model, n)
    model.train()
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is None) == (stage_of(name) <= n), name
        assert parameter.requires_grad == (stage_of(name) > n), name
    assert model.head.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "n", "learning"),
    [
        ("small", 1, ("network.blocks.1", "network.blocks.2", "network.widen")),
        ("small", 2, ("network.blocks.2", "network.widen")),
        ("mobilenet_v2", 3, tuple(f"network.features.{i}." for i in range(14, 19))),
        (
            "vgg16",
            2,
            ("network.features.24", "network.features.26", "network.features.28"),
        ),
        ("vit_b_16", 1, ()),
        (
            "timm:tf_efficientnet_lite0",
            3,
            (
                "network.blocks.5",
                "network.blocks.6",
                "network.conv_head",
                "network.bn2",
            ),
        ),
    ],
)
def test_what_still_learns(name, n, learning):
    with torch.device("meta"):  # parameters without values are enough
        backbone = create(name, "none")
    freeze_stages(backbone, n)
    for key, parameter in backbone.named_parameters():
        assert parameter.requires_grad == key.startswith(learning), key


def test_statistics_of_frozen_stages_stay_and_the_others_learn():
    model = Pooled(create("resnet18", "none"))
    freeze_stages(model, 2)
    before = copy.deepcopy(model.state_dict())
    model.eval()
    model.train()
    model(torch.rand(4, 3, 64, 64))
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            stays = torch.equal(value, before[name])
            assert stays == (stage_of(name) <= 2), name


def test_dropped_paths_of_frozen_stages_are_not_dropped():
    backbone = create("efficientnet_b0", "none")
    freeze_stages(backbone, 4)
    images = torch.rand(2, 3, 64, 64)
    in_training = backbone.train()(images)
    assert torch.equal(in_training, backbone.eval()(images))


def test_results_are_those_of_a_model_that_is_not_frozen():
    model = Pooled(create("resnet18", "none"))
    free = copy.deepcopy(model)
    freeze_stages(model, 2)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(images), free.eval()(images))

    # the gradients of the rest too, with the same statistics
    model.train()
    free.train()
    for name, module in free.named_modules():
        if isinstance(module, nn.BatchNorm2d) and stage_of(name) <= 2:
            module.eval()
    model(images).square().sum().backward()
    free(images).square().sum().backward()
    gradients = dict(free.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name].grad)


def test_freezing_leaves_gradients_and_statistics_of_the_model_alone():
    model = Pooled(create("small", "none"))
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradient = model.head.weight.grad.clone()
    deep = model.backbone.network.widen[0].weight.grad.clone()
    freeze_stages(model, 1)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(model.head.weight.grad, gradient)
    assert torch.equal(model.backbone.network.widen[0].weight.grad, deep)


def test_a_copy_is_frozen_too_and_states_have_the_same_names():
    model = Pooled(create("small", "none"))
    names = list(model.state_dict())
    freeze_stages(model, 1)
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    copied.train()
    assert not copied.backbone.network.stem[1].training
    assert not copied.backbone.network.stem[0].weight.requires_grad
    assert copied.backbone.network.widen[1].training


@pytest.mark.parametrize("n", [4, -1])
def test_more_stages_than_there_are_are_refused(n):
    with pytest.raises(InputError, match="small has 3 depths"):
        freeze_stages(Pooled(create("small", "none")), n)


# ---- precision of what is frozen


def test_frozen_stages_compute_in_bf16_and_the_rest_does_not():
    backbone = create("small", "none").eval()
    seen = {}

    def note(name, module, inputs, output):
        seen[name] = output.dtype

    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *a, name=name: note(name, *a))
    images = torch.rand(2, 3, 64, 64)
    exact = backbone.stages(images)
    with in_bf16(modules_of_stages(backbone, 2)):
        rounded = backbone.stages(images)
    frozen = ("network.stem", "network.blocks.0", "network.blocks.1")
    for name, dtype in seen.items():
        assert (dtype == torch.bfloat16) == name.startswith(frozen), name

    for before, after in zip(exact, rounded, strict=True):
        assert after.dtype == torch.float32
        assert not torch.equal(before, after)
        assert (before - after).norm() < 0.05 * before.norm()  # 8 bits of precision
    # nothing is left of it, also where something else stands in forward's place
    assert all("forward" not in vars(module) for module in backbone.modules())
    stem = backbone.network.stem
    stem.forward = other = stem.forward
    with pytest.raises(KeyboardInterrupt), in_bf16([stem]):
        raise KeyboardInterrupt
    assert stem.forward is other
    assert torch.equal(backbone(images), exact[-1])


def test_gradients_pass_through_stages_in_bf16():
    backbone = create("small", "none").eval()
    freeze_stages(backbone, 1)
    gradients = []
    for modules in ([], modules_of_stages(backbone, 1)):
        images = torch.linspace(0, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
        images.requires_grad_()
        with in_bf16(modules):
            backbone(images).square().sum().backward()
        gradients.append(images.grad)
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()


def test_modules_of_stages_are_those_that_are_frozen():
    backbone = create("small", "none")
    free = modules_of_stages(backbone, 2)
    freeze_stages(backbone, 2)
    assert free == [backbone.get_submodule(name) for name in backbone.frozen_modules]
    assert modules_of_stages(backbone, 0) == []
