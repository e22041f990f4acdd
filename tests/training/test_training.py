"""The training loop against a plain one, and against crashes of real processes."""

import copy
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import fault_worker as tiny
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgbook import backbones, paths
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.images.augment import (
    augment,
    centre,
    degrade,
    evaluation_view,
    key,
    mix,
    partners,
)
from fgbook.methods.focus import Focus
from fgbook.recipe import LATER, Recipe
from fgbook.training import (
    checkpoints,
    devices,
    features,
    loop,
    memory,
    optimiser,
    schedule,
)

BASE = Recipe(**tiny.RECIPE)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Also without waiting for the disk, except in the processes that are killed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(
    folder: Path,
    recipe: Recipe = BASE,
    model: nn.Module | None = None,
    data: DataSet | None = None,
    **options,
):
    model = model or tiny.make()
    options = {"seed": 3, "device": "cpu", "progress": False, **options}
    return loop.fit(model, data or tiny.dataset(), recipe, folder, **options), model


def same(a, b) -> bool:
    """Equal, bit by bit."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def log(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()
    ]


def untimed(lines: list[dict]) -> list[dict]:
    return [
        {
            name: value
            for name, value in line.items()
            if name not in ("seconds", "images_per_second")
        }
        for line in lines
    ]


def assert_same_run(a: Path, b: Path) -> None:
    """Both folders hold the same finished run, and nothing else."""
    for folder in (a, b):
        assert sorted(path.name for path in folder.iterdir()) == [
            "log.jsonl",
            "model.safetensors",
        ]
    assert same(load_file(a / "model.safetensors"), load_file(b / "model.safetensors"))
    assert untimed(log(a)) == untimed(log(b))


# what a method sees before the first step


class Looking(tiny.Tiny):
    """Keeps what it is shown before it learns, and starts from it."""

    def prepare(self, views):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen, self.labels = map(torch.cat, zip(*views, strict=True))
        self.head.weight.fill_(float(self.seen.mean()))


def looking() -> Looking:
    torch.manual_seed(0)
    return Looking()


@pytest.mark.parametrize("train_on", ["train", "train+val"])
def test_a_method_sees_all_images_that_it_learns_from_before_the_first_step(
    tmp_path, train_on
):
    recipe, data = BASE.but(train_on=train_on), tiny.dataset()
    model = looking()
    fit(tmp_path / "whole", recipe, model)
    split = data.split(train_on)
    everything = torch.arange(len(split))
    expected = evaluation_view(split.images, everything, recipe, "high")
    torch.testing.assert_close(model.seen, expected)
    assert torch.equal(model.labels, split.labels)
    # a run that goes on has the weights of its checkpoint
    outcome, _ = fit(tmp_path / "cut", recipe, looking(), budget_minutes=0)
    assert not outcome.finished
    fit(tmp_path / "cut", recipe, looking())
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


# what is learnt


OPTIMISERS = {
    "sgd": lambda groups, r: torch.optim.SGD(
        groups, momentum=r.momentum, weight_decay=r.weight_decay
    ),
    "adam": lambda groups, r: torch.optim.Adam(groups, weight_decay=r.weight_decay),
    "adamax": lambda groups, r: torch.optim.Adamax(groups, weight_decay=r.weight_decay),
    "adamw": lambda groups, r: torch.optim.AdamW(groups, weight_decay=r.weight_decay),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "adam"},
        {"optimiser": "adamax", "schedule": "constant"},
        {"optimiser": "adamw", "schedule": "onecycle", "warmup_epochs": 1.0},
        {"clip_norm": 0.5, "label_smoothing": 0.1},
        {"ema": 0.8},
        {"loss_weights": (("size", 7.0),), "schedule": "cyclic"},
        {"train_on": "train+val"},
        {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1},
        {"resolution": "mixed", "low_side": 3},
        {"resolution": "low", "low_side": 4, "cutmix": 0.5},
    ],
    ids=str,
)
def test_fit_equals_a_plain_loop(tmp_path, changes):
    recipe, data = BASE.but(**changes), tiny.dataset()
    # before BatchNorm a bias has no gradient but rounding, of which Adam makes whole
    # steps
    norm = recipe.optimiser == "sgd"
    outcome, fitted = fit(tmp_path, recipe, tiny.make(norm, dropout=0.0))

    model, split = tiny.make(norm, dropout=0.0), data.split(recipe.train_on)
    groups = [
        {
            "params": model.backbone.parameters(),
            "lr": recipe.lr * recipe.backbone_lr_factor,
        },
        {"params": model.head.parameters(), "lr": recipe.lr},
    ]
    optimiser = OPTIMISERS[recipe.optimiser](groups, recipe)
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = math.ceil(len(split) / recipe.batch_size)
    weights = {"image": 1.0, "size": 1.0, **dict(recipe.loss_weights)}
    average, best, kept, step, clips = None, (-1,), None, 0, []
    for epoch in range(recipe.epochs):
        model.train()
        total, cut = 0.0, []
        generator = torch.Generator().manual_seed(key(3, epoch))
        order = torch.randperm(len(split), generator=generator)
        for index in order.split(recipe.batch_size):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * schedule.factor(recipe, step, steps)
            images = augment(split.images[index], index, recipe, 3, epoch)
            targets = split.labels[index]
            if recipe.mixup or recipe.cutmix:
                other = partners(index, len(split), 3, epoch)
                others = augment(split.images[other], other, recipe, 3, epoch)
                images, targets = mix(
                    images,
                    others,
                    targets,
                    split.labels[other],
                    3,
                    index,
                    recipe,
                    3,
                    epoch,
                )
            losses = model.losses(
                model(images),
                targets,
                partial(F.cross_entropy, label_smoothing=recipe.label_smoothing),
            )
            optimiser.zero_grad()
            sum(weights[name] * loss for name, loss in losses.items()).backward()
            if recipe.clip_norm:
                norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                cut.append(min(1.0, recipe.clip_norm / norm.item()))
            optimiser.step()
            total += losses["image"].item() * len(index)
            now = {name: value.double() for name, value in model.state_dict().items()}
            average = (
                now
                if average is None
                else {
                    name: recipe.ema * average[name] + (1 - recipe.ema) * now[name]
                    for name in now
                }
            )
            step += 1
        line = log(tmp_path)[epoch]
        assert line["losses"]["image"] == pytest.approx(total / len(split), rel=1e-4)
        if recipe.clip_norm:
            expected = sum(coefficient < 1 for coefficient in cut) / steps
            assert line["clipped"] == pytest.approx(expected)
            assert line["clip_coefficient"] == pytest.approx(sum(cut) / steps, rel=1e-4)
            clips.append((expected, sum(cut) / steps))
        else:
            assert "clipped" not in line
        tested = copy.deepcopy(model).eval()
        if recipe.ema:
            tested.load_state_dict(average)
        logits = tested.predict(
            evaluation_view(
                data.val.images, torch.arange(13), recipe, recipe.resolution
            )
        ).detach()
        score = (
            (logits.argmax(1) == data.val.labels).float().mean(),
            -F.cross_entropy(logits, data.val.labels),
        )
        if recipe.train_on == "train+val" or score > best:
            best, kept_epoch = score, epoch + 1
            kept = copy.deepcopy(tested.state_dict())

    assert outcome.finished
    assert outcome.epochs == recipe.epochs
    assert outcome.best_epoch == kept_epoch
    assert outcome.steps == step
    if clips:
        shares, coefficients = zip(*clips, strict=True)
        assert 0 < sum(shares) < recipe.epochs  # some are cut, and some are not
        assert outcome.clipped == pytest.approx(sum(shares) / recipe.epochs)
        mean = sum(coefficients) / recipe.epochs
        assert outcome.clip_coefficient == pytest.approx(mean, rel=1e-4)
    else:
        assert outcome.clipped is None
    for name, value in fitted.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-5)
    assert same(load_file(tmp_path / "model.safetensors"), fitted.state_dict())
    if recipe.train_on == "train":
        assert outcome.val_top1 == pytest.approx(best[0].item())
        predicted = loop.predict(
            fitted, data.val, recipe, device="cpu", resolution=recipe.resolution
        ).argmax(1)
        assert outcome.val_top1 == (predicted == data.val.labels).double().mean().item()
    else:
        assert outcome.val_top1 is None


def reference_schedule(recipe: Recipe, steps: int) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    lr, total = torch.optim.lr_scheduler, recipe.epochs * steps
    scheduler = {
        "constant": lambda: lr.ConstantLR(optimiser, 1.0),
        "cosine": lambda: lr.CosineAnnealingLR(optimiser, total),
        "step": lambda: lr.StepLR(
            optimiser, recipe.step_epochs * steps, recipe.step_factor
        ),
        "cyclic": lambda: lr.CyclicLR(
            optimiser, 0.1, 1.0, recipe.cycle_epochs * steps / 2, cycle_momentum=False
        ),
        "onecycle": lambda: lr.OneCycleLR(optimiser, 1.0, total, cycle_momentum=False),
    }[recipe.schedule]()
    values = []
    for _ in range(total):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("course", ["constant", "step", "cosine", "cyclic", "onecycle"])
@pytest.mark.parametrize("epochs,steps", [(10, 7), (3, 2), (1, 1), (25, 4)])
def test_schedules_are_those_of_torch(course, epochs, steps):
    recipe = BASE.but(
        schedule=course,
        epochs=epochs,
        step_epochs=4,
        step_factor=0.3,
        cycle_epochs=2.5,
    )
    values = [schedule.factor(recipe, step, steps) for step in range(epochs * steps)]
    assert values == pytest.approx(reference_schedule(recipe, steps), abs=1e-9)


def test_warm_up_multiplies():
    recipe = BASE.but(schedule="cosine", epochs=10, warmup_epochs=2.5)
    plain, steps = recipe.but(warmup_epochs=0.0), 8
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    linear = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 20, 1.0, 19)
    for step in range(80):
        assert schedule.factor(recipe, step, steps) == pytest.approx(
            schedule.factor(plain, step, steps) * optimiser.param_groups[0]["lr"]
        )
        optimiser.step()
        linear.step()


@pytest.mark.parametrize(
    "images,batch,steps",
    [(16, 8, 2), (17, 8, 2), (18, 8, 3), (1, 8, 1), (3, 1, 3), (2, 8, 1)],
)
def test_epochs_take_every_image_once_but_for_a_single_one_left_over(
    images, batch, steps
):
    assert schedule.steps_per_epoch(images, batch) == steps
    for epoch in (0, 1):
        assert sorted(schedule.order(5, epoch, images).tolist()) == list(range(images))
    assert images < 4 or not torch.equal(
        schedule.order(5, 0, images), schedule.order(5, 1, images)
    )


def test_accumulation_gives_the_same_steps(tmp_path):
    """Where images do not see each other (no batch statistics), pieces add up to the
    batch, also the last one of 3 images, cut unevenly."""
    recipe = BASE.but(batch_size=8)
    runs = [
        fit(
            tmp_path / str(n),
            recipe.but(accumulate=n),
            tiny.make(norm=False, dropout=0.0),
        )[1].state_dict()
        for n in (1, 2, 4, 8)
    ]
    for run in runs[1:]:
        assert not same(run, runs[0])  # other sums: so the pieces were really cut
        for name, value in run.items():
            torch.testing.assert_close(value, runs[0][name], rtol=1e-5, atol=1e-6)
    first, last = log(tmp_path / "1"), log(tmp_path / "8")
    assert [line["losses"]["image"] for line in last] == pytest.approx(
        [line["losses"]["image"] for line in first], rel=1e-5
    )


def test_a_step_that_mixed_precision_skips_counts_as_no_clipping():
    found = [
        optimiser.clipping(torch.tensor(norm), 2.0).tolist()
        for norm in (1.0, 8.0, math.inf, math.nan)
    ]
    assert found == [[1, 0, 1], [1, 1, pytest.approx(0.25)], [0, 0, 0], [0, 0, 0]]


def test_a_factor_of_0_freezes_the_backbone(tmp_path):
    before = tiny.make(norm=False).state_dict()
    after = fit(tmp_path, BASE.but(backbone_lr_factor=0.0), tiny.make(norm=False))[
        1
    ].state_dict()
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("backbone"), (
            name
        )


class Small(tiny.Tiny):
    """The small backbone, random."""

    def __init__(self, dropout: float = 0.2):
        super().__init__(dropout=dropout)
        self.backbone = backbones.create("small", "none")
        self.head = nn.Linear(self.backbone.channels, 3)


@pytest.mark.parametrize("mode", ["batch", "frozen"])
def test_batchnorm_statistics(tmp_path, mode):
    torch.manual_seed(0)
    model = Small()
    before = copy.deepcopy(model.state_dict())
    fit(tmp_path, BASE.but(batchnorm=mode, epochs=1), model)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(value, before[name]) == (mode == "frozen"), name
        elif name.startswith("backbone") and name.endswith("weight"):
            assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_stages_stay_as_they_are(tmp_path, stages):
    """Weights and statistics; all that the map at that depth is computed from."""
    torch.manual_seed(0)
    model = Small()
    before = copy.deepcopy(model.state_dict())
    fit(tmp_path, BASE.but(frozen_stages=stages, epochs=1), model)
    frozen = ("backbone.network.stem", "backbone.network.blocks.0")
    if stages == 2:
        frozen += ("backbone.network.blocks.1",)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name


@pytest.mark.parametrize(
    ("able", "change", "precision"),
    [
        (True, {}, "bf16"),
        (False, {}, "same"),
        (True, {"precision": "fp32"}, "same"),
        (True, {"frozen_stages": 0}, "same"),
        (True, {"compile": True}, "same"),
    ],
)
def test_precision_of_frozen_stages(monkeypatch, able, change, precision):
    capabilities = {"avx512_bf16": able}
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    recipe = BASE.but(frozen_stages=1).but(**change)
    found = devices.frozen_precision(recipe, torch.device("cpu"))
    assert found == precision
    assert devices.frozen_precision(recipe, torch.device("cuda")) == "same"


def test_training_and_prediction_use_the_precision_of_frozen_stages(
    tmp_path, monkeypatch
):
    """The same weights give other logits where the processor is able, and the steps
    other losses.
    """
    losses, found = [], []
    for able in (True, False):
        monkeypatch.setattr(
            torch.cpu,
            "get_capabilities",
            lambda able=able: {"avx512_bf16": able},
            raising=False,
        )
        torch.manual_seed(0)
        model = Small()
        recipe = BASE.but(frozen_stages=2, epochs=1)
        found.append(loop.predict(model, tiny.dataset().val, recipe))
        fit(tmp_path / str(able), recipe, model)
        losses.append(log(tmp_path / str(able))[0]["losses"])
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, atol=0.02, rtol=0)
    assert losses[0] != losses[1]


def test_seeds_differ_and_the_state_of_the_generators_does_not_matter(tmp_path):
    a = fit(tmp_path / "a")[1].state_dict()
    b = fit(tmp_path / "b")[1].state_dict()
    model = tiny.make()
    torch.rand(1000)
    c = fit(tmp_path / "c", model=model)[1].state_dict()
    assert same(a, b)
    assert same(a, c)
    assert not same(a, fit(tmp_path / "d", seed=4)[1].state_dict())


class Reader(nn.Module):
    """A head on kept feature maps, which tell what they are: image i's are i
    everywhere, those of its mirror image i + 0.5."""

    def __init__(self):
        super().__init__()
        self.weight, self.mirrored = nn.Parameter(torch.zeros(3)), []

    def forward(self, maps, targets=None):
        assert maps.shape[1:] == (4, 2, 3)
        assert maps.dtype == torch.float32
        assert (maps == maps[:, :1, :1, :1]).all()
        value = maps[:, 0, 0, 0]
        if targets is not None:
            # the labels of a split start 0, 1, 2, 0, ..
            assert torch.equal(value.long() % 3, targets)
            self.mirrored.append((value % 1 == 0.5).float().mean().item())
        return {"image": F.one_hot(value.long() % 3, 3) * self.weight}

    def losses(self, logits, targets, criterion):
        return {"image": criterion(logits["image"], targets)}

    def predict(self, maps):
        assert (maps % 1 == 0).all()  # evaluation sees images that are not mirrored
        return self(maps)["image"]


@pytest.mark.parametrize("views", [1, 2])
def test_kept_feature_maps_are_learnt_from_like_images(tmp_path, views):
    data = tiny.dataset()
    for split in (data.train, data.val, data.test):
        values = (
            torch.arange(len(split), dtype=torch.float16)[:, None]
            + torch.tensor([0.0, 0.5])[:views].half()
        )
        split.images = values[:, :, None, None, None].expand(-1, -1, 4, 2, 3)
    outcome, model = fit(tmp_path, BASE, Reader(), data)
    assert outcome.finished
    assert outcome.val_top1 == 1.0
    assert (model.weight > 0).all()
    if views == 2:
        assert 0.2 < sum(model.mirrored) / len(model.mirrored) < 0.8
    else:
        assert not any(model.mirrored)
    assert torch.equal(
        loop.predict(model, data.test, BASE, device="cpu").argmax(1), data.test.labels
    )


# memory for time


class Residual(nn.Module):
    """A block with BatchNorm and dropout."""

    def __init__(self, channels: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.Dropout(0.3),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return x + self.inner(x)


class Deep(tiny.Tiny):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Sequential(Residual(8), Residual(8)), Residual(8)
        )


def looking_twice() -> nn.Module:
    return Focus(
        backbones.create("small", "none"), 3, m=2, l=1, separate_statistics=True
    )


@pytest.mark.parametrize(
    "make,changes",
    [
        (Small, {}),
        (Deep, {"accumulate": 2, "ema": 0.7}),
        (Small, {"batchnorm": "frozen"}),
        (Deep, {"precision": "bf16"}),
        (looking_twice, {"image_size": 32, "store_size": 36}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_recomputed_activations_give_the_same_run_with_less_memory(
    tmp_path, make, changes
):
    """The same bits on a CPU: gradients, dropout, running statistics (each batch
    counted once); the checkpoint of one goes on as the other."""
    recipe = BASE.but(epochs=2, batch_size=16, **changes)
    size = recipe.store_size
    data = DataSet(
        "tiny",
        ["a", "b", "c"],
        size,
        "f00d",
        tiny.split(33, 0, size),
        tiny.split(8, 1, size),
        tiny.split(8, 2, size),
    )
    torch.manual_seed(1)
    first = make()
    models = [copy.deepcopy(first) for _ in range(3)]
    for name, model, again in zip("abc", models, (False, True, True), strict=True):
        if name == "c":
            assert not fit(
                tmp_path / name, recipe, copy.deepcopy(first), data, budget_minutes=0
            )[0].finished
        fit(tmp_path / name, recipe.but(recompute=again), model, data)
    assert same(models[0].state_dict(), models[1].state_dict())
    assert same(models[0].state_dict(), models[2].state_dict())
    assert not same(models[0].state_dict(), first.state_dict())
    plain, less = (log(tmp_path / name)[0]["activations_mib"] for name in "ab")
    assert 0 < less < 0.9 * plain
    # nothing of it stays in the model
    assert all("forward" not in vars(module) for module in models[1].modules())


@pytest.mark.parametrize(
    "name,count",
    [
        ("resnet18", 8),
        ("resnet50", 16),
        ("mobilenet_v2", 19),
        ("efficientnet_b0", 18),
        ("convnext_tiny", 22),
        ("vit_b_16", 12),
        ("small", 3),
    ],
)
def test_blocks_are_the_networks_own(name, count):
    with torch.device("meta"):
        network = backbones.untrained(name).network
    found = list(memory.blocks(network))
    inside = [id(module) for block in found for module in block.modules()]
    assert len(found) == count
    assert len(inside) == len(set(inside))  # none inside another
    parameters = sum(p.numel() for block in found for p in block.parameters())
    assert parameters > 0.75 * sum(p.numel() for p in network.parameters())


def test_activations_are_what_the_backward_pass_keeps():
    """By hand: a linear layer keeps its input, a ReLU its output; parameters and a
    tensor that two keep count once or not at all."""
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.rand(7, 10, requires_grad=True)
    with memory.Activations(model) as kept:
        model(x).sum().backward()
    # the ReLU's output is the second layer's input
    assert kept.bytes == 4 * 7 * (10 + 20)
    with memory.Activations(model) as kept, torch.no_grad():
        model(x)
    assert kept.bytes == 0


# selection


class Scripted(nn.Module):
    """Scores on validation as told, epoch by epoch: share of right answers, and how
    sure it is. Its one parameter moves at every step."""

    def __init__(self, script):
        super().__init__()
        self.weight, self.script, self.epoch = nn.Parameter(torch.zeros(1)), script, 0

    def train(self, mode=True):
        self.epoch += bool(mode)
        return super().train(mode)

    def forward(self, images, targets=None):
        return {"image": self.weight.expand(len(images), 3)}

    def losses(self, logits, targets, criterion):
        return {"image": -logits["image"].mean()}

    def predict(self, images):
        right, sure = self.script[self.epoch - 1]
        # the labels of a split start 0, 1, 2, 0, ..
        logits = F.one_hot(torch.arange(len(images)) % 3, 3).float() * sure
        logits[round(right * len(images)) :] = logits[
            round(right * len(images)) :
        ].roll(1, 1)
        return logits


@pytest.mark.parametrize(
    "script,patience,best,epochs",
    [
        ([(0.5, 1), (0.75, 1), (0.5, 1), (0.6, 1)], 0, 2, 4),
        # equal accuracy: lower loss; equal too: earlier
        ([(0.5, 1), (0.875, 1), (0.875, 2), (0.875, 2)], 0, 3, 4),
        ([(0.5, 1), (0.75, 1), (0.5, 1), (0.6, 1), (0.9, 1)], 2, 2, 4),
        (
            [(0.0, 1), (0.0, 9), (0.1, 1)],
            1,
            1,
            2,
        ),  # surer of wrong answers is no better
    ],
)
def test_best_validation_epoch_is_kept(tmp_path, script, patience, best, epochs):
    data = DataSet(
        "tiny",
        ["a", "b", "c"],
        10,
        "f00d",
        tiny.split(16, 0),
        tiny.split(8, 1),
        tiny.split(8, 2),
    )
    recipe = BASE.but(
        epochs=len(script),
        patience=patience,
        batch_size=8,
        schedule="constant",
        momentum=0.0,
        weight_decay=0.0,
        lr=1.0,
    )
    outcome, model = fit(tmp_path, recipe, Scripted(script), data)
    assert (outcome.best_epoch, outcome.epochs, outcome.finished) == (
        best,
        epochs,
        True,
    )
    assert outcome.val_top1 == pytest.approx(script[best - 1][0], abs=1 / 16)
    # two steps an epoch, each moves it by 1
    assert model.weight.item() == pytest.approx(2 * best)


class Untouchable(Split):
    """A split that may not even be looked at."""

    def __init__(self):
        pass

    def __getattribute__(self, name):
        raise AssertionError(f"the test split was asked for its {name}")


@pytest.mark.parametrize("train_on", ["train", "train+val"])
def test_training_never_touches_the_test_split(tmp_path, train_on):
    data = tiny.dataset()
    data.test = Untouchable()
    with pytest.raises(AssertionError):
        len(data.test)  # the trap works
    outcome, _ = fit(tmp_path, BASE.but(train_on=train_on), data=data)
    assert outcome.finished


# predictions


def test_predict_gives_probabilities_in_the_split_s_order():
    model, data = tiny.make(), tiny.dataset()
    probabilities = loop.predict(model.train(), data.val, BASE, device="cpu")
    assert probabilities.shape == (13, 3)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(13))
    for i in range(13):
        logits = model.predict(centre(data.val.images[i : i + 1], BASE.image_size))
        torch.testing.assert_close(probabilities[i], logits.softmax(1)[0])
    low = BASE.but(low_side=3)
    probabilities_low, mixed = (
        loop.predict(model, data.val, low, device="cpu", resolution=name)
        for name in ("low", "mixed")
    )
    view = degrade(centre(data.val.images, BASE.image_size), 3, "bicubic")
    torch.testing.assert_close(
        probabilities_low, model.predict(view).softmax(1).detach()
    )
    torch.testing.assert_close(mixed[0::2], probabilities[0::2])
    torch.testing.assert_close(mixed[1::2], probabilities_low[1::2])
    assert not torch.allclose(probabilities, probabilities_low)
    shuffled = torch.randperm(13)
    torch.testing.assert_close(
        loop.predict(model, data.val.subset(shuffled), BASE, device="cpu"),
        probabilities[shuffled],
    )


# no waiting for the device


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: reading a value of a tensor."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function.name() in (
            "aten::_local_scalar_dense",
            "aten::is_nonzero",
            "aten::nonzero",
        )
        return function(*arguments, **(options or {}))


EVERYTHING = {
    "clip_norm": 1.0,
    "ema": 0.9,
    "mixup": 0.4,
    "cutmix": 1.0,
    "erase": 0.5,
    "jitter": 0.2,
    "rotate": 10.0,
    "crop_scale": 0.5,
    "resolution": "mixed",
    "low_side": 3,
    "label_smoothing": 0.1,
    "recompute": True,
}


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (Small, {"clip_norm": 1.0}),
        (Small, EVERYTHING),
        (tiny.InTurns, {"clip_norm": 1.0, "ema": 0.9}),
    ],
    ids=["plain", "everything", "in turns"],
)
def test_a_step_reads_nothing_from_the_device(tmp_path, make, changes):
    counts = []
    for batch in (32, 4):  # 2 and 9 steps an epoch
        with Waits() as waits:
            fit(
                tmp_path / str(batch),
                BASE.but(batch_size=batch, epochs=2, **changes),
                make(),
            )
        counts.append(waits.count)
    assert counts[0] == counts[1]
    assert counts[0] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "changes", [{"clip_norm": 1.0}, EVERYTHING], ids=["plain", "everything"]
)
@pytest.mark.parametrize("resident", [True, False])
def test_a_step_does_not_wait_for_the_gpu(tmp_path, monkeypatch, changes, resident):
    """CUDA itself refuses to wait, in all steps but an epoch's first two (tables are
    made once) and its last (the host looks after it)."""
    usual = schedule.factor

    def watched(recipe, step, steps):
        torch.cuda.set_sync_debug_mode(
            "error" if 2 <= step % steps < steps - 1 else "default"
        )
        watched.steps += torch.cuda.get_sync_debug_mode() == 2
        return usual(recipe, step, steps)

    watched.steps = 0
    monkeypatch.setattr(schedule, "factor", watched)
    if not resident:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    try:
        outcome, _ = fit(
            tmp_path,
            BASE.but(batch_size=4, epochs=2, **changes),
            Small(),
            device="cuda",
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outcome.finished
    assert watched.steps == 2 * 6  # of 9 steps an epoch
    assert all(line["peak_memory_mib"] > 0 for line in log(tmp_path))


# TensorBoard


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: by name, (epoch, value) in the order of the files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(
                    (event.step, value.tensor.float_val[0])
                )
    return found


def test_tensorboard_gets_every_epoch_once_also_of_a_resumed_run(tmp_path):
    pytest.importorskip("tensorboard")
    whole = fit(tmp_path / "whole", tensorboard=True)[0]
    for _ in range(whole.steps // 2):
        assert not fit(tmp_path / "cut", budget_minutes=0, tensorboard=True)[0].finished
    fit(tmp_path / "cut", tensorboard=True)
    lines = log(tmp_path / "cut")
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        found = events(folder)
        assert found["loss/image"] == [
            (line["epoch"], pytest.approx(line["losses"]["image"])) for line in lines
        ]
        assert found["loss/size"] == [
            (line["epoch"], pytest.approx(line["losses"]["size"])) for line in lines
        ]
        for name in ("lr", "val_top1", "val_loss"):
            assert found[name] == [
                (line["epoch"], pytest.approx(line[name])) for line in lines
            ]


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    # as if it were not installed
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'fgbook\[tensorboard\]'"):
        fit(tmp_path, tensorboard=True)
    fit(tmp_path)
    assert not (tmp_path / "tensorboard").exists()


# stops and crashes


def test_a_budget_stops_cleanly_and_the_same_call_goes_on(tmp_path):
    whole, reference = fit(tmp_path / "whole")
    stops = 0
    while True:
        outcome, model = fit(tmp_path / "cut", budget_minutes=0)  # one step a call
        if outcome.finished:
            break
        stops += 1
        assert (tmp_path / "cut" / "checkpoint.pt").is_file()
        assert outcome.steps + outcome.epochs == stops
    # after each step, and after each epoch's validation but the last
    assert stops == whole.steps + whole.epochs - 1
    assert same(model.state_dict(), reference.state_dict())
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    # finished: not trained again, whatever the model's weights are
    again, model = fit(tmp_path / "cut", model=tiny.Tiny())
    assert again == outcome
    assert same(model.state_dict(), reference.state_dict())


def probabilities(folder: Path | str) -> torch.Tensor:
    """Those that a run's process wrote beside its folder."""
    return torch.load(f"{folder}.probabilities.pt", weights_only=True)


def worker(*tasks: dict) -> list[dict]:
    done = subprocess.run(
        [sys.executable, tiny.__file__, json.dumps(tasks)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_runs_that_are_killed_end_as_if_nothing_had_happened(tmp_path):
    """Real processes: SIGKILL and Ctrl-C at random moments, and SIGKILL at every
    operation on files."""
    seed = time.time_ns()

    def folder(name):
        return str(tmp_path / name)

    print("seed", seed)  # shown when the test fails
    plain = {"recipe": {}}
    averaged = {
        "recipe": {
            "optimiser": "adamw",
            "ema": 0.7,
            "clip_norm": 0.5,
            "accumulate": 2,
            "label_smoothing": 0.1,
        }
    }
    in_turns = {**averaged, "model": {"in_turns": True}}
    common = {"task": "random", "seed": seed}
    killed, interrupted, filed, turned = worker(
        {
            **common,
            **averaged,
            "folder": folder("killed"),
            "reference": folder("a"),
            "count": 20,
            "signal": signal.SIGKILL,
        },
        {
            **common,
            **plain,
            "folder": folder("interrupted"),
            "reference": folder("b"),
            "count": 5,
            "signal": signal.SIGINT,
        },
        {**plain, "task": "files", "folder": folder("filed"), "save_seconds": 0.0},
        {
            **common,
            **in_turns,
            "folder": folder("turned"),
            "reference": folder("c"),
            "count": 8,
            "signal": signal.SIGKILL,
        },
    )
    assert killed["statuses"] == [-signal.SIGKILL] * 20
    assert turned["statuses"] == [-signal.SIGKILL] * 8
    assert interrupted["statuses"] == [130] * 5
    assert len(filed["statuses"]) > 15
    ended_as = {
        folder("filed"): "b",
        **dict.fromkeys(killed["folders"], "a"),
        **dict.fromkeys(interrupted["folders"], "b"),
        **dict.fromkeys(turned["folders"], "c"),
    }
    for ended, reference in ended_as.items():
        assert_same_run(Path(ended), tmp_path / reference)
        assert torch.equal(probabilities(ended), probabilities(folder(reference)))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """Folders of runs in one and in several processes; gloo on the CPU."""
    top = tmp_path_factory.mktemp("several")
    # images do not see each other
    apart = {"recipe": {"accumulate": 2}, "model": {"norm": False, "dropout": 0.0}}
    # two optimiser steps a batch; weight decay tells which weights rest in which
    turns = {
        "recipe": {"accumulate": 2, "optimiser": "adamw", "weight_decay": 0.5},
        "model": {"norm": False, "dropout": 0.0, "in_turns": True},
    }
    norm = {"recipe": {}, "model": {"dropout": 0.0}}
    together = {
        "recipe": {"sync_batchnorm": True, "recompute": True},
        "model": {"dropout": 0.0},
    }
    planned = [
        ("apart", apart, 1),
        ("apart", apart, 2),
        ("apart", apart, 4),
        ("turns", turns, 1),
        ("turns", turns, 2),
        ("turns", turns, 4),
        ("norm", norm, 1),
        ("norm", norm, 2),
        ("norm-sync", together, 2),
    ]
    results = worker(
        *(
            {
                "task": "several",
                "save_seconds": 1000,
                **task,
                "folder": str(top / f"{name}-{count}"),
                "count": count,
            }
            for name, task, count in planned
        )
    )
    assert [result["statuses"] for result in results] == [
        [0] * count for _, _, count in planned
    ]
    return top


@pytest.mark.parametrize(
    "alone,together",
    [
        ("apart-1", "apart-2"),
        ("apart-1", "apart-4"),
        ("turns-1", "turns-2"),
        ("turns-1", "turns-4"),
        ("norm-1", "norm-sync-2"),
    ],
)
def test_several_processes_give_the_curve_of_one(several, alone, together):
    """Sums are taken in another order, so equality is to 1e-4. The last batch, of 3
    images, leaves one of four without."""
    one = several / alone
    expected, weights = log(one), load_file(one / "model.safetensors")
    folder = several / together
    assert sorted(path.name for path in folder.iterdir()) == [
        "log.jsonl",
        "model.safetensors",
    ]
    for line, other in zip(expected, log(folder), strict=True):
        assert other["losses"] == pytest.approx(line["losses"], rel=1e-4)
        assert other["val_top1"] == line["val_top1"]
        assert other["val_loss"] == pytest.approx(line["val_loss"], rel=1e-4)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        probabilities(folder), probabilities(one), rtol=1e-4, atol=1e-5
    )


def test_batch_statistics_of_slices_are_others(several):
    """What sync_batchnorm is for: without it the same processes give another run."""
    slices, whole = (
        load_file(several / name / "model.safetensors") for name in ("norm-2", "norm-1")
    )
    assert slices.keys() == whole.keys()
    assert max((slices[name] - whole[name]).abs().max().item() for name in whole) > 1e-2


def test_alone_batchnorm_is_not_touched(tmp_path):
    """One process with and without synchronisation: the same layers, and the same
    bits."""
    _, plain = fit(tmp_path / "plain")
    _, synchronised = fit(tmp_path / "synchronised", BASE.but(sync_batchnorm=True))
    assert same(plain.state_dict(), synchronised.state_dict())
    for module in synchronised.modules():
        assert not isinstance(module, devices.SyncBatchNorm)


def stopped(folder: Path, steps: int) -> Path:
    for _ in range(steps):
        assert not fit(folder, budget_minutes=0)[0].finished
    return folder


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "pickle"])
def test_a_damaged_checkpoint_is_told_and_the_previous_one_used(tmp_path, damage):
    fit(tmp_path / "whole")
    newest = stopped(tmp_path / "run", 8) / "checkpoint.pt"
    content = newest.read_bytes()
    if damage == "pickle":
        # asks for a function; the checksum is right
        torch.save({"run": {}, "state": {}, "parts": os.system}, newest)
        newest.write_bytes(newest.read_bytes() + sha256(newest.read_bytes()).digest())
    elif damage == "flipped":
        place = content.index(
            torch.load(newest, weights_only=True)["parts"]["model"]["head.weight"]
            .numpy()
            .tobytes()
        )
        newest.write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
    else:
        newest.write_bytes(
            content[: len(content) // 2] if damage == "truncated" else b""
        )
    with pytest.warns(RuntimeWarning, match="checkpoint.pt is damaged"):
        outcome, _ = fit(tmp_path / "run")
    assert outcome.finished
    noted = log(tmp_path / "run")
    [note] = [line.pop("note") for line in noted if "note" in line]
    assert "checkpoint.pt is damaged" in note
    assert "checkpoint.previous.pt (epoch 2, step 1)" in note
    (tmp_path / "run" / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in noted)
    )
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_two_damaged_checkpoints_mean_a_fresh_start(tmp_path):
    fit(tmp_path / "whole")
    stopped(tmp_path / "run", 7)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "run" / name).write_bytes(b"rubbish")
    with pytest.warns(RuntimeWarning, match="damaged"):
        fit(tmp_path / "run")
    assert "Started again" in log(tmp_path / "run")[0]["note"]
    assert same(
        load_file(tmp_path / "run" / "model.safetensors"),
        load_file(tmp_path / "whole" / "model.safetensors"),
    )


def damaged(content: bytes, kind: str) -> bytes:
    if kind == "truncated":
        return content[:-50]
    if kind == "header":
        return content.replace(b"outcome", b"outcame", 1)
    if kind == "flipped":
        return content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]
    return b""


@pytest.mark.parametrize("kind", ["truncated", "empty", "flipped", "header"])
def test_damaged_final_weights_are_told_and_made_again(tmp_path, kind):
    whole, _ = fit(tmp_path / "whole")
    expected = checkpoints.load_model(tmp_path / "whole" / "model.safetensors")
    fit(tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    assert same(checkpoints.load_model(path), expected)
    path.write_bytes(damaged(path.read_bytes(), kind))

    with pytest.raises(InputError, match=r"model.safetensors are damaged .*; delete"):
        checkpoints.load_model(path)
    with pytest.warns(RuntimeWarning, match="model.safetensors is damaged"):
        outcome, _ = fit(tmp_path / "run")
    assert outcome.steps == whole.steps
    assert same(checkpoints.load_model(path), expected)
    assert "model.safetensors is damaged" in log(tmp_path / "run")[0]["note"]


def test_weights_of_an_older_version_have_no_digest(tmp_path):
    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "model.safetensors", {"run": "{}"})
    found = checkpoints.load_model(tmp_path / "model.safetensors")
    assert same(found, weights)


def test_weights_that_are_not_there_are_told(tmp_path):
    with pytest.raises(InputError, match="cannot read the weights .*/nothing"):
        checkpoints.load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    "difference,match",
    [
        ({"recipe": BASE.but(lr=0.06)}, "lr is 0.05 there, 0.06 here"),
        ({"seed": 4}, "seed is 3 there, 4 here"),
        (
            {"data": tiny.dataset(fingerprint="beef")},
            "data is 'f00d' there, 'beef' here",
        ),
        ({"model": tiny.Tiny(norm=False)}, "model is"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_run_s_folder_is_refused(tmp_path, difference, match, finished):
    if finished:
        fit(tmp_path)
    else:
        stopped(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=match):
        fit(tmp_path, **difference)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # other ways to the same numbers
    assert fit(tmp_path, BASE.but(compile=finished, recompute=True))[0].finished


def test_an_older_checkpoint_stays_valid():
    """A checkpoint says what run it is of; fields that came later are not in it while
    they are off."""
    later = {*LATER, "compile"}
    here = loop._identity(tiny.make(), tiny.dataset(), BASE, 3)
    assert here.keys() == {"version", "data", "seed", "model", *BASE.as_dict()} - later
    assert loop._identity(
        tiny.make(), tiny.dataset(), BASE.but(cutmix=1.0, recompute=True), 3
    ) == {**here, "cutmix": 1.0}


def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    """The system refuses files over a size, as a full disk does, while a checkpoint is
    being written."""
    fit(tmp_path / "whole")
    folder = stopped(tmp_path / "run", 8)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (len(before["checkpoint.pt"]) // 2, hard)
        )
        with pytest.raises(
            InputError,
            match=(
                r"cannot write .*checkpoint.pt: .*; free some space .* \(epoch 2, step"
                r" 2\) is intact"
            ),
        ):
            fit(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    fit(folder)
    assert_same_run(folder, tmp_path / "whole")


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = tiny.make()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="cannot write in .*file"):
            fit(folder, model=model)
    assert same(model.state_dict(), tiny.make().state_dict())


class Explosive(tiny.Tiny):
    """Its loss is infinite when an image is all white."""

    def forward(self, images, targets=None):
        white = (images.amin((1, 2, 3), keepdim=True) > 0.99).flatten(1)
        return {
            "image": (
                super().forward(images)["image"] + torch.where(white, torch.inf, 0.0)
            )
        }


def test_a_loss_that_is_not_finite_names_step_files_and_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    data, recipe = tiny.dataset(), BASE.but(rotate=0.0, jitter=0.0, batch_size=4)
    expected = 5  # the sixth batch of the first epoch
    bad = schedule.order(3, 0, 35)[4 * expected + 2].item()
    data.train.images[bad] = 255
    told = (
        rf"step {expected + 1} \(epoch 1, step {expected + 1} of 9\).*checkpoint.pt"
        rf" \(epoch 1, step {expected}\)"
    )
    with pytest.raises(loop.NonFiniteLoss, match=told) as caught:
        fit(tmp_path, recipe, Explosive(), data)
    files = caught.value.files
    assert f"0/{bad}.jpg" in files
    assert len(files) == 4
    for name in files:
        assert name in str(caught.value)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["state"]["step"] == expected
    for value in kept["parts"]["model"].values():
        assert value.isfinite().all()
    assert not (tmp_path / "model.safetensors").exists()


def test_an_update_that_overflows_is_not_saved(tmp_path):
    """The last step's loss is finite, but its update is not: no later loss tells."""
    with pytest.raises(loop.NonFiniteLoss, match="step 5 "):
        fit(tmp_path, BASE.but(epochs=1), Overflowing())
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("train_on", ["train", "train+val"])
def test_predictions_that_overflow_name_the_cause(tmp_path, train_on):
    """A single step at a rate of 1e30: its loss and the weights after it are finite,
    but what they predict is not."""
    recipe = BASE.but(lr=1e30, epochs=1, batch_size=64, train_on=train_on)
    told = "lower the learning rate"
    if train_on == "train":
        told = "predictions on validation images were not finite at step 1 .*" + told
    with pytest.raises(InputError, match=told):
        _, model = fit(tmp_path, recipe)
        loop.predict(model, tiny.dataset().test, recipe, device="cpu")


class Overflowing(tiny.Tiny):
    """Gradients of its fifth training step are infinite, losses are not."""

    calls = 0

    def losses(self, logits, targets, criterion):
        self.calls += 1
        return {
            "image": (
                (logits["image"] * 0).sqrt().sum()
                if self.calls == 5
                else logits["image"].mean()
            )
        }


# wrong input


def test_wrong_input_is_told(tmp_path):
    data = tiny.dataset()
    nothing = data.val.subset(torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match="no validation images"):
        fit(
            tmp_path,
            data=DataSet("tiny", data.classes, 10, "x", data.train, nothing, data.test),
        )
    with pytest.raises(InputError, match="no training images"):
        fit(
            tmp_path,
            data=DataSet("tiny", data.classes, 10, "x", nothing, data.val, data.test),
        )
    with pytest.raises(InputError, match="1 class"):
        fit(
            tmp_path,
            data=DataSet("tiny", ["a"], 10, "x", data.train, data.val, data.test),
        )
    with pytest.raises(
        InputError, match="unknown loss in loss_weights 'imag'; did you mean 'image'"
    ):
        fit(tmp_path, BASE.but(loss_weights=(("imag", 2.0),)))
    with pytest.raises(InputError, match="'tpu' is not a device|not available"):
        fit(tmp_path, device="tpu")
    with pytest.raises(InputError, match="needs a GPU"):
        fit(tmp_path, BASE.but(precision="fp16"))
    with pytest.raises(InputError, match="smaller than image_size 20"):
        fit(tmp_path, BASE.but(image_size=20, store_size=20))


def test_a_batch_that_batchnorm_cannot_normalise_is_told(tmp_path):
    """At 8 pixels the small network's map is a single cell."""
    with pytest.raises(InputError, match=r"batch_size 1 .* image_size 8; set a larger"):
        fit(tmp_path, BASE.but(batch_size=1), Small())


@pytest.mark.parametrize("change", [{"low_side": 4}, {"resolution": "mixed"}])
def test_low_resolution_of_kept_features_is_refused_before_training(tmp_path, change):
    data = tiny.dataset()
    for split in (data.train, data.val, data.test):
        split.images = torch.zeros(len(split), 1, 4, 2, 3, dtype=torch.float16)
    model = Reader()
    with pytest.raises(InputError, match=f"{next(iter(change))} is .* frozen backbone"):
        fit(tmp_path, BASE.but(**{"low_side": 3, **change}), model, data)
    assert not (model.weight > 0).any()
    assert not list(tmp_path.iterdir())


def test_features_are_not_computed_for_low_resolution():
    def forbidden(images):
        raise AssertionError("the backbone was run")

    with pytest.raises(InputError, match="low_side is 3, but features of a frozen"):
        features.cached(forbidden, tiny.dataset(), BASE.but(low_side=3), "x", "cpu")


def test_a_wrong_loss_name_is_refused_before_anything_is_learnt(tmp_path):
    model = tiny.make(norm=False)
    with pytest.raises(InputError, match="unknown loss in loss_weights 'imag'"):
        fit(tmp_path, BASE.but(loss_weights=(("imag", 2.0),)), model)
    assert same(model.state_dict(), tiny.make(norm=False).state_dict())


def test_bf16_on_a_cpu_learns_too(tmp_path):
    outcome, model = fit(tmp_path, BASE.but(precision="bf16"))
    assert outcome.finished
    for value in model.state_dict().values():
        assert value.dtype != torch.bfloat16
    val, recipe = tiny.dataset().val, BASE.but(precision="bf16")
    found = loop.predict(model, val, recipe, device="cpu:0")
    assert found.dtype == torch.float32
    # the precision of an earlier run does not stick
    assert fit(tmp_path / "next")[0].finished
