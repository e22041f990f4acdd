"""Self-supervised pretraining: the loss against loops, two views of an image, no label
in the first stage, which half learns, and both stages as runs."""

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from fgbook import papers
from fgbook.data import fieldguide
from fgbook.data.dataset import DataSet
from fgbook.errors import InputError
from fgbook.evidence import runs
from fgbook.figures import pretraining
from fgbook.images.augment import augment, key
from fgbook.methods import build
from fgbook.methods.simsiam import similarity, spread
from fgbook.papers import gautam
from fgbook.recipe import Recipe
from fgbook.training import batches, loop
from fgbook.training.devices import Images

RECIPE = Recipe(
    image_size=32,
    store_size=36,
    backbone="small",
    weights="none",
    epochs=1,
    batch_size=16,
    lr=0.003,
    optimiser="adamw",
    schedule="onecycle",
    backbone_lr_factor=1.0,
    views=2,
    keep="last",
    loss_weights=(("spread", 0.0),),
    crop_scale=0.5,
    jitter=0.4,
)
PARTS = ("pretrain", "classifier")
each_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> DataSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(tmp_path_factory.mktemp("birds")))
        return fieldguide.load(36, species=4, per_class=(16, 4, 4))


def make(seed=0, part="pretrain", recipe=RECIPE, **options):
    torch.manual_seed(seed)
    return build(
        "simsiam", 4, recipe, {"part": part, "width": 32, "hidden": 8, **options}
    )


def batch(size=6):
    generator = torch.Generator().manual_seed(1)
    return (
        F.interpolate(
            torch.rand(size, 3, 6, 6, generator=generator), 32, mode="bicubic"
        ).clamp(0, 1),
        torch.arange(size) % 4,
    )


def total(model, images, targets):
    return sum(model.losses(model(images, targets), targets).values())


# ---- the loss


def cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def test_the_loss_against_loops_and_its_gradient_stops_at_the_projections():
    random = torch.Generator().manual_seed(0)
    p1, p2, z1, z2 = (
        torch.randn(5, 7, generator=random, dtype=torch.float64).requires_grad_()
        for _ in range(4)
    )
    loss = similarity((p1, p2), (z1, z2))
    slow = 0.0
    for i in range(5):
        slow -= cosine(p1[i].tolist(), z2[i].tolist()) / 2 / 5
        slow -= cosine(p2[i].tolist(), z1[i].tolist()) / 2 / 5
    assert loss.item() == pytest.approx(slow, abs=1e-9)
    loss.backward()
    assert z1.grad is None
    assert z2.grad is None
    assert p1.grad.abs().max() > 0
    assert p2.grad.abs().max() > 0
    step = 1e-6
    moved = p1.detach().clone()
    moved[2, 3] += step
    slope = (similarity((moved, p2), (z1, z2)) - loss).item() / step
    assert p1.grad[2, 3].item() == pytest.approx(slope, abs=1e-5)
    assert similarity((p1, p2), (p2, p1)).item() == pytest.approx(-1)


def test_a_models_losses_compare_the_two_halves_of_its_batch():
    model = make().eval()
    images, targets = batch()
    outputs = model(images)
    losses = model.losses(outputs, targets)
    assert list(losses) == ["similarity", "spread"]
    assert all(loss.ndim == 0 for loss in losses.values())
    z, p = outputs["projected"].tolist(), outputs["predicted"].tolist()
    slow = sum(-cosine(p[i], z[(i + 3) % 6]) for i in range(6)) / 6
    assert losses["similarity"].item() == pytest.approx(slow, abs=1e-5)
    assert not losses["spread"].requires_grad


def test_spread_tells_a_collapse_from_directions_all_round():
    random = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert spread(random).item() == pytest.approx(1, abs=0.02)
    assert spread(random[:1].expand(50, -1)).item() == pytest.approx(0, abs=1e-6)
    # lengths do not count
    assert spread(3 * random).item() == pytest.approx(spread(random).item(), abs=1e-6)
    few = random[:6]
    unit = [
        [value / math.sqrt(sum(v * v for v in row)) for value in row]
        for row in few.tolist()
    ]
    slow = 0.0
    for i in range(64):
        column = torch.tensor([row[i] for row in unit], dtype=torch.float64)
        slow += column.std(correction=0).item() / 64 * 8
    assert spread(few).item() == pytest.approx(slow, abs=1e-5)


# ---- two views


def test_each_image_is_seen_twice_and_independently(birds):
    images = Images(birds.train.images, torch.device("cpu"))
    index = torch.tensor([5, 0, 9])
    view, targets = batches.examples(index, images, birds.train.labels, 4, RECIPE, 3, 7)
    assert view.shape == (6, 3, 32, 32)
    assert targets.tolist() == birds.train.labels[index].tolist() * 2
    once, _ = batches.examples(
        index, images, birds.train.labels, 4, RECIPE.but(views=1), 3, 7
    )
    # the first view is what a recipe without views sees
    assert torch.equal(view[:3], once)
    assert torch.equal(
        view[3:], augment(birds.train.images[index], index, RECIPE, key(3, 1), 7)
    )
    assert all(not torch.equal(view[i], view[i + 3]) for i in range(3))
    mixed, shares = batches.examples(
        index, images, birds.train.labels, 4, RECIPE.but(mixup=0.5), 3, 7
    )
    assert mixed.shape == view.shape
    assert shares.shape == (6, 4)
    torch.testing.assert_close(shares.sum(1), torch.ones(6))


def test_recipes_without_views_keep_their_keys():
    assert not {"views", "keep"} & set(Recipe().determinants())
    assert {
        "views",
        "keep",
    } <= set(RECIPE.determinants())
    for wrong in ({"views": 0}, {"keep": "first"}):
        with pytest.raises(InputError):
            Recipe(**wrong)


def test_any_method_may_be_trained_on_several_views(birds, tmp_path):
    torch.manual_seed(0)
    model = build("plain", 4, RECIPE, {})
    outcome = loop.fit(
        model,
        birds,
        RECIPE.but(views=3, loss_weights=()),
        tmp_path,
        device="cpu",
        progress=False,
    )
    assert outcome.finished
    assert outcome.steps == 4
    log = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < log["losses"]["image"] < 3


# ---- stages


def test_the_first_stage_reads_no_label(birds, tmp_path):
    """With the labels of all splits permuted the weights are the same, bit by bit."""
    mixed = {
        name: replace(
            birds.split(name), labels=birds.split(name).labels.flip(0) * 3 % 4
        )
        for name in ("train", "val", "test")
    }
    other = replace(birds, **mixed)
    assert not torch.equal(other.train.labels, birds.train.labels)
    states = []
    for number, dataset in enumerate((birds, other)):
        model = make()
        loop.fit(
            model,
            dataset,
            RECIPE.but(epochs=2),
            tmp_path / str(number),
            device="cpu",
            progress=False,
        )
        states.append(model.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(state.values() for state in states), strict=True)
    )


def test_the_last_epoch_is_kept_and_resumed_runs_end_alike(birds, tmp_path):
    recipe = RECIPE.but(epochs=2)
    model = make()
    outcome = loop.fit(
        model, birds, recipe, tmp_path / "whole", device="cpu", progress=False
    )
    assert (outcome.best_epoch, outcome.epochs) == (2, 2)
    other = make()
    while not loop.fit(
        other,
        birds,
        recipe,
        tmp_path / "parts",
        device="cpu",
        budget_minutes=0.0,
        progress=False,
    ).finished:
        pass
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.state_dict().values(), other.state_dict().values(), strict=True
        )
    )


@each_part
def test_each_part_learns_alone(part, birds, tmp_path):
    moved = {
        "pretrain": ("backbone.", "projector.", "predictor."),
        "classifier": ("backbone.", "image_head."),
    }[part]
    recipe = (
        RECIPE
        if part == "pretrain"
        else RECIPE.but(views=1, loss_weights=(), keep="best")
    )
    model = make(part=part, recipe=recipe)
    before = copy.deepcopy(model.state_dict())
    loop.fit(model, birds, recipe, tmp_path, device="cpu", progress=False)
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {name for name in before if name.startswith(moved)}


def test_it_learns_to_recognise_its_pictures_and_does_not_collapse(birds, tmp_path):
    recipe, model = RECIPE.but(epochs=6), make()
    loop.fit(model, birds, recipe, tmp_path, device="cpu", progress=False)
    log = [
        json.loads(line)["losses"]
        for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert log[-1]["similarity"] < log[0]["similarity"] - 0.1
    assert all(0.3 < line["spread"] < 1.1 for line in log)


def test_without_the_stopped_gradient_the_outputs_would_move_both_ways():
    """The weights' gradient is that of predictions alone: cut at the projections, it is
    the same; let through, it is another."""
    model, (images, _) = make(), batch()

    def gradient(through: bool) -> torch.Tensor:
        model.zero_grad()
        outputs = model(images)
        (p1, p2) = outputs["predicted"].chunk(2)
        (z1, z2) = outputs["projected"].chunk(2)
        cut = (lambda z: z) if through else (lambda z: z.detach())
        (
            -(
                F.cosine_similarity(p1, cut(z2)) + F.cosine_similarity(p2, cut(z1))
            ).mean()
            / 2
        ).backward()
        return model.projector[0].weight.grad.clone()

    stopped, through = gradient(False), gradient(True)
    model.zero_grad()
    total(model, images, None).backward()
    torch.testing.assert_close(model.projector[0].weight.grad, stopped)
    assert not torch.allclose(stopped, through, atol=1e-4)


def test_both_parts_fit_each_others_weights_and_start_with_the_plain_rows_head():
    first, second = make(), make(part="classifier")
    assert {n: v.shape for n, v in first.state_dict().items()} == {
        n: v.shape for n, v in second.state_dict().items()
    }
    torch.manual_seed(0)
    assert torch.equal(
        build("plain", 4, RECIPE, {}).image_head.weight, second.image_head.weight
    )
    plain = build("plain", 4, RECIPE, {}).eval()
    plain.load_state_dict(
        {
            n: v
            for n, v in second.state_dict().items()
            if not n.startswith(("projector", "predictor"))
        }
    )
    images, _ = batch()
    with torch.no_grad():
        assert torch.equal(second.eval().predict(images), plain.predict(images))
        assert torch.equal(second(images)["image"], plain.predict(images))


# ---- the first stage, as every method (the second: test_methods.py)


@pytest.mark.parametrize("backbone", ["small", "mobilenet_v2"])
def test_shapes_finite_and_gradients_reach_every_parameter_that_learns(backbone):
    model, (images, targets) = make(recipe=RECIPE.but(backbone=backbone)), batch()
    if backbone == "mobilenet_v2":
        images = F.interpolate(images, 64)
    outputs = model(images, targets)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "projected": (6, 32),
        "predicted": (6, 32),
    }
    total(model, images, targets).backward()
    learning = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    assert learning
    for parameter in learning:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    assert model.eval().predict(images).shape == (6, 4)


@torch.no_grad()
def test_eval_depends_on_each_image_alone():
    model, (images, _) = make().eval(), batch()
    together = model(images)
    together["prediction"] = model.predict(images)
    for i in range(len(images)):
        alone = model(images[i : i + 1]) | {
            "prediction": model.predict(images[i : i + 1])
        }
        for name, value in alone.items():
            torch.testing.assert_close(
                value[0], together[name][i], atol=1e-5, rtol=1e-4
            )


def test_a_small_step_lowers_the_loss():
    model, (images, targets) = make(recipe=RECIPE.but(batchnorm="frozen")), batch()

    def loss():
        return model.losses(model(images, targets), targets)["similarity"]

    before = loss()
    before.backward()
    learning = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    norm = (
        torch.stack([parameter.grad.square().sum() for parameter in learning])
        .sum()
        .sqrt()
    )
    with torch.no_grad():
        for parameter in learning:
            parameter -= 1e-3 * parameter.grad / norm
    assert loss() < before


def trained():
    """After two steps from one seed."""
    model, (images, targets) = make(), batch()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learning, 0.05)
    for _ in range(2):
        optimiser.zero_grad()
        total(model, images, targets).backward()
        optimiser.step()
    return model


def test_two_steps_from_one_seed_are_identical():
    one, two = trained().state_dict(), trained().state_dict()
    assert list(one) == list(two)
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_saved_weights_come_back(tmp_path):
    one, (images, _) = trained().eval(), batch()
    save_file(one.state_dict(), tmp_path / "model.safetensors")
    other = make(seed=5).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        expected = one(images)
        for name, value in other(images).items():
            assert torch.equal(value, expected[name]), name


def test_export_takes_the_forward():
    """It refuses whatever would make the host wait for a value."""
    one, (images, _) = trained().eval(), batch()
    exported = torch.export.export(one, (images,)).module()
    expected = one(images)
    for name, value in exported(images).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"part": "both"}, {"width": 0}, {"hidden": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError):
        make(**options)


def test_pretraining_without_two_views_is_refused():
    with pytest.raises(InputError, match="set views=2"):
        make(recipe=RECIPE.but(views=1))


# ---- rows


@pytest.mark.parametrize("profile", ["quick", "photo", "paper"])
def test_rows_differ_in_what_their_names_say(profile):
    recipe = {
        row.name: row.recipes[profile] for row in papers.get("gautam").rows_at(profile)
    }
    row = papers.get("gautam").row
    assert recipe["simsiam"] == recipe["plain"]
    assert recipe["simsiam-scratch"] == recipe["scratch"]
    assert recipe["simsiam-quarter"] == recipe["plain-quarter"]
    assert recipe["simsiam-scratch-quarter"] == recipe["scratch-quarter"]
    for name in ("simsiam-first", "simsiam-scratch-first"):
        first = recipe[name]
        assert (first.views, first.keep, first.train_on, first.per_class) == (
            2,
            "last",
            recipe["plain"].train_on,
            0,
        )
        assert row(name).after is None
        stage, long = (
            ("simsiam", "plain-long")
            if name == "simsiam-first"
            else ("simsiam-scratch", "scratch-long")
        )
        assert row(stage).after == row(f"{stage}-quarter").after == name
        # as many images seen
        assert recipe[long].epochs == recipe[stage].epochs + first.views * first.epochs
    assert {name for name, found in recipe.items() if found.weights == "none"} == {
        name for name in recipe if "scratch" in name
    }
    for name in ("semantic", "semantic-both", "semantic-shuffled"):
        assert recipe[name] == recipe["plain"]
    assert (
        recipe["semantic-quarter"]
        == recipe["semantic-shuffled-quarter"]
        == recipe["plain-quarter"]
    )


def test_questions_name_rows_and_no_key_twice():
    paper = papers.get("gautam")
    claims = (*paper.claims, *gautam.QUESTIONS, *gautam.FEATURES)
    assert len({claim.key for claim in claims}) == len(claims)
    for claim in gautam.FEATURES:
        assert all(
            "photo" in paper.row(name).recipes for name in (claim.better, claim.worse)
        )
        assert claim.metric == "top1"


def test_a_quarter_of_the_labels_follows_all_of_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path))
    runs._load.cache_clear()
    run = runs.resolve("gautam", "simsiam-quarter", "quick")
    assert (run.recipe.fraction, run.after.recipe.fraction) == (0.25, 1.0)
    small = {"image_size": 32, "store_size": 32, "epochs": 1, "precision": "fp32"}
    changed = small | {"fraction": 0.2}
    recipe = run.after.recipe.but(**changed)
    after = replace(run.after, recipe=recipe, overrides=changed)
    changed = small | {"fraction": 0.1}
    recipe = run.recipe.but(**changed)
    run = replace(run, recipe=recipe, overrides=changed, after=after)
    record = runs.execute(run, device="cpu", progress=False)
    assert record["after"] == after.key
    assert record["images"]["train"] == 20 * 4
    first = load_file(after.folder / "model.safetensors")
    second = load_file(run.folder / "model.safetensors")
    assert torch.equal(first["projector.0.weight"], second["projector.0.weight"])
    assert any(
        not torch.equal(first[name], second[name])
        for name in first
        if name.startswith("backbone")
    )

    # Tables and figures: the time of both stages, and the first stage's own curves.
    assert pretraining.first_stages([record]) == [runs.records.find(after.key)]
    seconds = (
        record["train"]["seconds"] + runs.records.find(after.key)["train"]["seconds"]
    )
    assert pretraining._seconds(record) == pytest.approx(seconds)
    table = pretraining.scores_table(papers.get("gautam"), gautam.PRETRAINED, [record])
    assert f"{100 * record['metrics']['test']['top1']:.1f}" in table.html
    assert "not run" not in table.html
    assert "illustration" in table.html
    shown = pretraining.stage_figure(pretraining.first_stages([record]))
    losses = json.loads((after.folder / "log.jsonl").read_text())["losses"]
    for words, value in (
        ("cosine of two views", -losses["similarity"]),
        ("spread of projections", losses["spread"]),
    ):
        drawn = re.search(
            rf"{words} against epoch \(pretrained weights, seed 0\): 1: ([-\d.]+\d)",
            shown.html,
        ).group(1)
        assert float(drawn) == pytest.approx(value, abs=1e-3)
    runs._load.cache_clear()
