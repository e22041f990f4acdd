"""What holds for every method in METHODS, with the options that it names as VARIANTS.

A method that is added to METHODS gets all of these tests; what is special about it
stands in a file of its own.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fgbook import backbones
from fgbook.methods import METHODS, build
from fgbook.recipe import Recipe

CLASSES = 7
# maps of 5 x 5 and 3 x 3 cells
SIZES = {"small": 40, "mobilenet_v2": 80, "resnet18": 80}
CASES = [
    (name, options) for name, method in METHODS.items() for options in method.VARIANTS
]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Learns only from what was chosen in a batch (boxes of its level); the method's own
# tests say when.
CHOSEN = {"ntsnet": "navigator."}
# what a data set says of its classes
ATTRIBUTES = torch.rand(CLASSES, 9, generator=torch.Generator().manual_seed(2))


def on(*names):
    """The cases on each of the backbones; of methods that bring their own network, on
    the first."""
    return [
        (method, options, backbone)
        for method, options in CASES
        for backbone in names
        if backbone == names[0] or not METHODS[method].own_network
    ]


def name_of(value):
    if isinstance(value, str):
        return value
    return ",".join(f"{k}={v}" for k, v in value.items()) or "default"


def make(method, options, backbone="small", *, seed=0, classes=CLASSES, **recipe):
    torch.manual_seed(seed)
    recipe = {"image_size": SIZES[backbone]} | recipe
    return build(
        method,
        classes,
        Recipe(backbone=backbone, weights="none", **recipe),
        options,
        ATTRIBUTES[:classes],
    )


def batch(side=40, size=4, classes=CLASSES):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(size, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    return images, torch.arange(size) % classes


def total(model, images, targets):
    torch.manual_seed(3)  # dropout
    return sum(model.losses(model(images, targets), targets).values())


def learning(model):
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def step(model, images, targets, rate):
    """One step down the gradient, of length `rate`; the names of what was moved."""
    model.zero_grad()
    total(model, images, targets).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in learning(model).items()
        if parameter.grad is not None
    }
    length = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
    with torch.no_grad():
        for name, gradient in gradients.items():
            model.get_parameter(name).sub_(rate * gradient / length)
    return {name for name, gradient in gradients.items() if gradient.any()}


each_case = pytest.mark.parametrize(("method", "options"), CASES, ids=name_of)
each_backbone = pytest.mark.parametrize(
    ("method", "options", "backbone"), on(*SIZES), ids=name_of
)
two_backbones = pytest.mark.parametrize(
    ("method", "options", "backbone"), on("small", "mobilenet_v2"), ids=name_of
)


# ---- what comes out


@each_backbone
def test_logits_and_losses_are_finite_and_of_their_shapes(method, options, backbone):
    model = make(method, options, backbone)
    images, targets = batch(SIZES[backbone])
    outputs = model(images, targets)
    for output in outputs.values():
        assert len(output) == 4
        assert output.isfinite().all()
    if "image" in outputs:
        assert outputs["image"].shape == (4, CLASSES)
    losses = model.losses(outputs, targets)
    assert losses
    for loss in losses.values():
        assert loss.ndim == 0
        assert loss.isfinite()
    predicted = model.eval().predict(images)
    assert predicted.shape == (4, CLASSES)
    assert predicted.isfinite().all()


@each_case
def test_mixed_targets_are_taken_and_those_of_one_class_are_labels(method, options):
    model = make(method, options).eval()
    images, targets = batch()
    mixed = F.one_hot(targets, CLASSES).float()
    torch.manual_seed(3)
    outputs = model(images, targets)
    losses = model.losses(outputs, targets)
    for name, loss in model.losses(outputs, mixed).items():
        torch.testing.assert_close(loss, losses[name])
    torch.manual_seed(3)
    for name, output in model(images, mixed).items():
        torch.testing.assert_close(output, outputs[name])


@two_backbones
def test_eval_depends_on_each_image_alone(method, options, backbone):
    model = make(method, options, backbone).eval()
    images, _ = batch(SIZES[backbone])
    with torch.no_grad():
        together = model.predict(images)
        for i in range(len(images)):
            alone = model.predict(images[i : i + 1])[0]
            torch.testing.assert_close(alone, together[i], atol=1e-5, rtol=1e-4)


@each_case
def test_a_batch_of_one_can_be_learned_from(method, options):
    model = make(method, options)
    assert step(model, *batch(size=1), rate=0.0)


@each_case
def test_two_classes_are_enough(method, options):
    model = make(method, options, classes=2)
    images, targets = batch(classes=2)
    assert total(model, images, targets).isfinite()
    assert model.eval().predict(images).shape == (4, 2)


@pytest.mark.parametrize("side", [32, 33, 47, 56])  # 4, 5, 6 and 7 cells
@each_case
def test_small_images_can_be_learned_from(method, options, side):
    model = make(method, options, image_size=side, store_size=side)
    images, targets = batch(side)
    assert total(model, images, targets).isfinite()
    assert step(model, images, targets, rate=0.0)
    assert model.eval().predict(images).isfinite().all()


# ---- what learns


@each_backbone
def test_gradients_reach_exactly_what_learns(method, options, backbone):
    """Within two steps: layers before one that starts at 0 learn from the second on."""
    model = make(method, options, backbone)
    images, targets = batch(SIZES[backbone])
    should = set(learning(model))
    assert should
    moved = step(model, images, targets, 0.1) | step(model, images, targets, 0.1)
    chosen = CHOSEN.get(method)
    may = {name for name in should if chosen and name.startswith(chosen)}
    assert should - may <= moved <= should
    for parameter in model.parameters():
        assert parameter.requires_grad or parameter.grad is None


@each_backbone
def test_a_small_step_lowers_the_loss(method, options, backbone):
    model = make(method, options, backbone)
    images, targets = batch(SIZES[backbone])
    # Statistics of these images: with those of a new network features are so short that
    # any step turns their direction.
    for module in model.modules():
        if isinstance(module, backbones.BatchNorm):
            module.momentum = 1.0
    model(images, targets)
    backbones.freeze_statistics(model)
    before = total(model, images, targets)
    # Where regions are chosen, a loss jumps when another one is: the smaller the step,
    # the rarer.
    after = []
    for rate in (1e-3, 1e-4, 1e-5):
        moved = copy.deepcopy(model)
        step(moved, images, targets, rate)
        after.append(total(moved, images, targets))
    assert min(after) < before


@each_case
def test_frozen_statistics_are_those_of_the_backbone(method, options):
    """They stay, and nothing else does: neither parameters nor the statistics of what
    is new."""
    model = make(method, options, batchnorm="frozen").train()
    new = {
        f"{name}.{buffer}"
        for name, module in model.named_modules()
        if isinstance(module, backbones.BatchNorm) and not name.startswith("backbone.")
        for buffer, _ in module.named_buffers()
    }
    before = {name: value.clone() for name, value in model.named_buffers()}
    images, targets = batch()
    total(model, images, targets).backward()
    for name, value in model.named_buffers():
        # CAL's centres, say, are no statistics, and move
        if name.endswith(STATISTICS) and name not in new:
            assert torch.equal(value, before[name]), name
    assert set(learning(model)) == set(learning(make(method, options)))


@each_case
def test_statistics_move_where_the_backbone_learns(method, options):
    model = make(method, options).train()
    if METHODS[method].own_network:
        assert getattr(model, "backbone", None) is None
        return
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    model(*batch())
    moved = [
        name
        for name, value in model.backbone.named_buffers()
        if not torch.equal(value, before[name])
    ]
    if any(parameter.requires_grad for parameter in model.backbone.parameters()):
        assert moved
    else:
        assert not moved


@each_case
def test_an_image_head_is_the_plain_backbones_for_the_same_seed(method, options):
    head = getattr(make(method, options), "image_head", None)
    if head is None or METHODS[method].own_network:
        pytest.skip("no image head on a backbone")
    plain = make("plain", {}).image_head
    assert torch.equal(head.weight, plain.weight)
    assert torch.equal(head.bias, plain.bias)


# ---- the same again


@two_backbones
def test_saved_and_loaded_it_is_bit_identical(method, options, backbone, tmp_path):
    model = make(method, options, backbone)
    images, targets = batch(SIZES[backbone])
    model(images, targets)  # moves the running statistics
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = make(method, options, backbone, seed=5)
    with torch.no_grad():
        expected = model.eval().predict(images)
        assert not torch.equal(other.eval().predict(images), expected)
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other.predict(images), expected)
        assert torch.equal(copy.deepcopy(model).predict(images), expected)


@each_case
def test_two_steps_from_one_seed_are_identical(method, options):
    def run():
        model = make(method, options)
        for _ in range(2):
            step(model, *batch(), 0.05)
        return model.state_dict()

    first, second = run(), run()
    assert list(first) == list(second)
    for name in first:
        assert torch.equal(first[name], second[name]), name


@each_case
def test_prediction_in_inference_mode_leaves_the_model_trainable(method, options):
    model = make(method, options)
    images, targets = batch()
    with torch.inference_mode():
        model.eval().predict(images)
    total(model.train(), images, targets).backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


# ---- nothing that a device would have to wait for


@pytest.mark.parametrize("mixed", [False, True])
@each_case
def test_a_training_step_never_asks_the_device_for_a_value(method, options, mixed):
    model = make(method, options)
    fakes = FakeTensorMode()  # of tensors without values: reading one fails
    with FakeCopyMode(fakes):
        model = copy.deepcopy(model)
    with fakes:
        images = torch.rand(4, 3, 40, 40)
        targets = torch.rand(4, CLASSES) if mixed else torch.zeros(4).long()
        total(model, images, targets).backward()
        assert model.eval().predict(images).shape == (4, CLASSES)


class FromLists(TorchDispatchMode):
    """Counts the tensors that are made of Python's numbers: on a GPU the host waits
    while each is copied there."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten.lift_fresh.default
        return function(*arguments, **(options or {}))


@each_case
def test_a_training_step_makes_no_tensor_of_a_list(method, options):
    """But for the first, which makes what is then kept."""
    model = make(method, options)
    images, targets = batch()
    total(model, images, targets).backward()
    with FromLists() as made:
        total(model, images, targets).backward()
    assert made.count == 0


def same(network, model, images, targets):
    torch.manual_seed(3)  # dropout
    expected = model(images, targets)
    torch.manual_seed(3)
    for head, value in network(images, targets).items():
        torch.testing.assert_close(value, expected[head], atol=1e-5, rtol=1e-4)


@each_case
def test_compile_takes_the_whole_forward(method, options):
    """fullgraph refuses whatever would make the host wait for a value."""
    torch._dynamo.reset()
    model = make(method, options)
    images, targets = batch()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    same(compiled, model, images, targets)
    model.eval(), compiled.eval()
    same(compiled, model, images, targets)


@each_case
def test_export_takes_the_whole_forward(method, options):
    model = make(method, options).eval()
    images, targets = batch()
    exported = torch.export.export(copy.deepcopy(model), (images, targets)).module()
    same(exported, model, images, targets)


@each_case
def test_what_is_traced_leaves_no_traced_tensor_in_the_model(method, options):
    model = make(method, options).eval()
    images, targets = batch()
    expected = model.predict(images)
    twin = make(method, options).eval()
    torch.export.export(twin, (images, targets))
    assert torch.equal(twin.predict(images), expected)
    assert torch.equal(copy.deepcopy(twin).predict(images), expected)


def test_every_linear_head_of_ours_starts_near_equal_probabilities():
    from fgbook.methods.heads import linear

    torch.manual_seed(0)
    head = linear(500, 40)
    assert isinstance(head, nn.Linear)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()
