"""PMG: what each optimiser step of a batch sees, and what it changes.
(tests/methods/test_methods.py has what holds of every method, tests/images/ the jigsaw,
tests/training/test_rounds.py the steps.)"""

import copy

import pytest
import torch
import torch.nn.functional as F

from fgbook import backbones
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.images.shuffle import shuffle_patches
from fgbook.methods import build
from fgbook.methods.pmg import Norm
from fgbook.recipe import Recipe
from fgbook.training import loop

CLASSES, SIDE = 5, 73  # 8 patches of 9 pixels, and a frame of 1


def make(seed=0, recipe=None, **options):
    torch.manual_seed(seed)
    recipe = recipe or Recipe(backbone="small", weights="none")
    return build("pmg", CLASSES, recipe, {"width": 8, **options})


def batch(count=4, side=SIDE):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return F.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def by_hand(model, images, name, stage):
    """A stage's logits from its own layers, one after the other; its block's maximum
    over space, place by place."""
    maps = model.backbone.stages(images)[stage]
    block, head = model.blocks[name], model.heads[name]
    small, norm, _, large, second_norm, _ = block
    x = F.relu(norm(F.conv2d(maps, small.weight)))
    x = F.relu(second_norm(F.conv2d(x, large.weight, padding=1)))
    vectors = []
    for image in x:
        places = [image[:, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])]
        vectors.append(torch.stack(places).max(0).values)
    vector = torch.stack(vectors)
    first, linear, second, _, last = head
    return vector, last(F.elu(second(linear(first(vector)))))


@pytest.mark.parametrize(
    ("name", "n", "stage"), [("stage1", 8, -3), ("stage2", 4, -2), ("stage3", 2, -1)]
)
def test_a_stage_learns_from_its_own_jigsaw(name, n, stage):
    model, images = make().eval(), batch()
    torch.manual_seed(7)
    found = model(images, None, name)
    assert list(found) == [name]
    torch.manual_seed(7)
    jigsaw = shuffle_patches(images, n)
    assert not torch.equal(jigsaw, images)
    expected = by_hand(model, jigsaw, name, stage)[1]
    torch.testing.assert_close(found[name], expected)


def test_the_last_step_learns_from_all_stages_of_the_whole_image():
    model, images = make().eval(), batch()
    vectors, logits = [], []
    for i in (1, 2, 3):
        vector, of_stage = by_hand(model, images, f"stage{i}", i - 4)
        vectors.append(vector)
        logits.append(of_stage)
    together = model.heads["concat"](torch.cat(vectors, 1))
    torch.testing.assert_close(model(images, None, "concat")["concat"], together)
    # at test time the sum of all four
    torch.testing.assert_close(model.predict(images), sum(logits) + together)


def test_a_step_reaches_its_stage_and_what_is_below():
    model, images = make(), batch()
    targets = torch.arange(4)
    for stage in (0, 1, 2):
        name = f"stage{stage + 1}"
        model.zero_grad()
        model.losses(model(images, targets, name), targets)[name].backward()
        below = backbones.freezing.parameters_of_stage(model.backbone, stage)
        for parameter, value in model.backbone.named_parameters():
            assert (value.grad is not None) == (parameter in below), parameter
        for part in (*model.blocks.items(), *model.heads.items()):
            used = part[0] == name
            assert all((p.grad is not None) == used for p in part[1].parameters())
    model.zero_grad()
    model.losses(model(images, targets, "concat"), targets)["concat"].backward()
    for name, parameter in model.named_parameters():
        own_head = name.startswith("heads.stage")
        assert (parameter.grad is None) == own_head, name


def test_the_whole_image_counts_twice_also_in_the_sum_of_the_losses():
    """Without patches nothing is random: the one step's gradient is the sum of those of
    the steps."""
    images, targets = batch(), torch.arange(4)
    model = make(n=(1, 1, 1)).eval()
    summed = make(n=(1, 1, 1), steps="sum").eval()
    assert model.rounds == ("stage1", "stage2", "stage3", "concat")
    assert summed.rounds == ()
    for name in model.rounds:
        logits = model(images, targets, name)
        (loss,) = model.losses(logits, targets).values()
        twice = 2 if name == "concat" else 1
        torch.testing.assert_close(loss, twice * F.cross_entropy(logits[name], targets))
        loss.backward()
    sum(summed.losses(summed(images, targets), targets).values()).backward()
    for name, parameter in summed.named_parameters():
        expected = model.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_stage_heads_take_in_jigsaws_and_whole_images():
    """Running statistics are used on whole images, so these have to be among what they
    are made of."""
    model, images = make(), batch()
    counts = []
    for name in model.rounds:
        model(images, None, name)
        layers = [model.heads[f"stage{i}"][0] for i in (1, 2, 3)]
        counts.append([int(layer.num_batches_tracked) for layer in layers])
    assert counts == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 2, 2]]


def test_a_single_vector_is_normalised_by_the_running_statistics():
    torch.manual_seed(0)
    norm = Norm(6)
    many, one = torch.randn(9, 6), torch.randn(1, 6)
    usual = torch.nn.BatchNorm1d(6)
    assert torch.equal(norm(many), usual(many))
    before = copy.deepcopy(norm.state_dict())
    found = norm(one)
    expected = (one - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(norm.state_dict()[name], before[name]) for name in before)


def coloured(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 200, (count, 3, 40, 40), generator=generator)
    images[torch.arange(count), labels % 3] += 50
    return Split(images.to(torch.uint8), labels, [f"{i}" for i in range(count)])


def test_a_run_that_is_stopped_at_every_step_ends_as_an_undisturbed_one(tmp_path):
    recipe = Recipe(
        backbone="small", weights="none", image_size=32, store_size=40, epochs=2
    ).but(batch_size=8, optimiser="adamw", clip_norm=1.0)
    classes = [str(i) for i in range(CLASSES)]
    data = DataSet(
        "set", classes, 40, "f00d", coloured(20, 0), coloured(5, 1), coloured(5, 2)
    )

    def fit(folder, model, **options):
        return loop.fit(
            model, data, recipe, folder, device="cpu", progress=False, **options
        )

    whole = make(recipe=recipe)
    first = copy.deepcopy(whole.state_dict())
    fit(tmp_path / "whole", whole)
    stops, finished = 0, False
    while not finished:
        stopped = make(recipe=recipe)
        finished = fit(tmp_path / "stopped", stopped, budget_minutes=0).finished
        stops += 1
    assert stops > 6
    for name, value in stopped.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    assert not torch.equal(
        whole.heads["concat"][1].weight, first["heads.concat.1.weight"]
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": (8, 0)}, "each at least 1"),
        ({"n": ()}, "each at least 1"),
        ({"width": 0}, "width at least 1"),
        ({"n": (8, 4, 2, 1)}, "for 4 stages, but small gives maps at 3 depths"),
        ({"steps": "all"}, "steps 'all'"),
    ],
)
def test_options_out_of_range_are_told(options, match):
    with pytest.raises(InputError, match=match):
        make(**options)
