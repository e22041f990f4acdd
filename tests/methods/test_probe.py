"""A probe: the minimum of its loss against a slow search, neighbours against loops, and
the run path from images to a record's numbers."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from fgbook import backbones
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.probe import PENALTIES, Neighbours, Regression
from fgbook.recipe import Recipe
from fgbook.training import features, loop

CLASSES, N = 4, 6
RECIPE = Recipe(image_size=40, store_size=40, backbone="small", precision="fp32")


def examples(count, seed):
    """Features (count, N, 1, 1) of overlapping classes, some far longer than others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, N, generator=generator)
    noise[:, 0] += labels
    noise[:, 1] -= labels
    scale = torch.tensor([1.0, 0.01, 100, 3, 1, 1])
    return ((noise + 5) * scale)[..., None, None], labels


def standardised(train, other):
    x, y = train[0].flatten(1).double(), other[0].flatten(1).double()
    return (y - x.mean(0)) / x.std(0, correction=0)


def searched(x, labels, penalty):
    """Weight and bias by plain gradient descent, which needs thousands of steps."""
    weight = torch.zeros(CLASSES, N, dtype=torch.float64)
    bias = torch.zeros(CLASSES, dtype=torch.float64)
    truth = F.one_hot(labels, CLASSES).double()
    for _ in range(8000):
        off = ((x @ weight.T + bias).softmax(1) - truth) / len(x)
        weight = weight - 0.5 * (off.T @ x + penalty * weight)
        bias = bias - 0.5 * off.sum(0)
    return weight, bias


def solved(penalty, train, held_out=None, refit=False, seed=0):
    torch.manual_seed(seed)
    head = Regression(N, CLASSES, penalty)
    return head, head.solve(train, held_out, refit)


@pytest.mark.parametrize("penalty", [0.3, 0.003])
def test_it_is_the_minimum_of_the_stated_loss(penalty):
    train = examples(60, 0)
    head, said = solved(penalty, train)
    weight, bias = searched(standardised(train, train), train[1], penalty)
    torch.testing.assert_close(head.layer.weight.double(), weight, atol=1e-4, rtol=1e-4)
    # a number that is added to all biases changes nothing
    found = head.layer.bias.double()
    torch.testing.assert_close(
        found - found.mean(), bias - bias.mean(), atol=1e-4, rtol=1e-4
    )
    logits = standardised(train, train) @ weight.T + bias
    assert said["image"] == pytest.approx(F.cross_entropy(logits, train[1]).item())


def test_it_is_what_scikit_learn_finds():
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, other = examples(60, 0), examples(40, 1)
    head, _ = solved(0.01, train)
    # its C is of the sum over images, ours of their mean
    peer = linear_model.LogisticRegression(C=1 / (0.01 * 60), tol=1e-8, max_iter=5000)
    peer.fit(standardised(train, train).numpy(), train[1].numpy())
    expected = torch.from_numpy(peer.predict_proba(standardised(train, other).numpy()))
    found = head(other[0])["image"].softmax(1).double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_penalty_is_the_one_that_validation_likes_best():
    train, held_out = examples(40, 0), examples(200, 1)
    losses = {}
    for penalty in PENALTIES:
        head, _ = solved(penalty, train)
        logits = head(held_out[0])["image"]
        losses[penalty] = F.cross_entropy(logits, held_out[1]).item()
    best = min(losses, key=losses.__getitem__)
    assert best not in (PENALTIES[0], PENALTIES[-1])
    head, said = solved(None, train, held_out)
    assert said["penalty"] == best
    assert torch.equal(head.layer.weight, solved(best, train)[0].layer.weight)

    # and then it is solved again with the images that were held out
    both = tuple(map(torch.cat, zip(train, held_out, strict=True)))
    again, said = solved(None, train, held_out, refit=True)
    assert said["penalty"] == best
    assert torch.equal(again.layer.weight, solved(best, both)[0].layer.weight)
    assert torch.equal(again.mean, both[0].flatten(1).double().mean(0).float())


def test_seeds_and_units_of_features_change_nothing():
    train = examples(60, 0)
    head, _ = solved(0.03, train)
    other, _ = solved(0.03, train, seed=5)
    assert torch.equal(head.layer.weight, other.layer.weight)
    scaled, _ = solved(0.03, (train[0] * 1000 - 7, train[1]))
    torch.testing.assert_close(
        scaled.layer.weight, head.layer.weight, atol=1e-4, rtol=1e-4
    )


def test_features_that_never_change_are_left_out():
    maps, labels = examples(40, 0)
    maps[:, 3] = 2.0
    head, _ = solved(0.1, (maps, labels))
    assert head.layer.weight[:, 3].abs().max() < 1e-9
    assert head(maps)["image"].isfinite().all()


def test_without_held_out_images_a_penalty_is_asked_for():
    with pytest.raises(InputError, match="no validation images.*penalty"):
        solved(None, examples(20, 0))


@pytest.mark.parametrize("k", [1, 3, 100])
def test_neighbours_vote_as_one_by_one(k):
    train, other = examples(30, 0), examples(9, 1)
    head = Neighbours(N, CLASSES, k)
    head.solve(train, None, False)
    found = head(other[0])["image"].softmax(1)
    bank = train[0].flatten(1)
    for i, x in enumerate(other[0].flatten(1)):
        cosines = [float(x @ y / x.norm() / y.norm()) for y in bank]
        nearest = sorted(range(30), key=lambda j: -cosines[j])[:k]
        votes = torch.zeros(CLASSES)
        for j in nearest:
            votes[train[1][j]] += math.exp(cosines[j] / 0.07)
        torch.testing.assert_close(found[i], votes / votes.sum(), atol=1e-4, rtol=1e-3)


def split(count: int, seed: int, name: str) -> Split:
    """Noise whose colour says the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 200, (count, 3, 40, 40), generator=generator)
    images[torch.arange(count), labels] += 20
    return Split(images.to(torch.uint8), labels, [f"{name}/{i}" for i in range(count)])


@pytest.fixture
def data(tmp_path, monkeypatch) -> DataSet:
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    parts = split(40, 0, "train"), split(12, 1, "val"), split(11, 2, "test")
    return DataSet("noise", ["a", "b", "c"], 40, "f" * 16, *parts)


@pytest.mark.parametrize("options", [{}, {"k": 3}])
@pytest.mark.parametrize("train_on", ["train", "train+val"])
def test_a_run_of_it_predicts_from_images_as_from_kept_features(
    options, train_on, data, tmp_path
):
    recipe = RECIPE.but(train_on=train_on)
    model = build("probe", 3, recipe, options)
    seen = features.cached(model.backbone, data, recipe, "small", "cpu")
    assert seen.train.images.shape == (40, 2, 192, 1, 1)  # with mirrored images

    def fit(network):
        return loop.fit(network.head, seen, recipe, tmp_path / "run", device="cpu")

    outcome = fit(model)
    assert outcome.finished
    assert (outcome.val_top1 is None) == (train_on == "train+val")
    kept = loop.predict(model.head, seen.test, recipe, device="cpu")
    direct = loop.predict(model, data.test, recipe, device="cpu")
    # the features were rounded to float16
    torch.testing.assert_close(kept, direct, atol=0.02, rtol=0)
    assert (direct.argmax(1) == data.test.labels).float().mean() > 0.6

    line = json.loads((tmp_path / "run" / "log.jsonl").read_text("utf-8"))
    assert line["epoch"] == 1
    assert line["val_top1"] == outcome.val_top1
    # the same call finds what it made, whatever the seed
    torch.manual_seed(7)
    other = build("probe", 3, recipe, options)
    assert fit(other) == outcome
    assert torch.equal(loop.predict(other.head, seen.test, recipe, device="cpu"), kept)


def test_pools_of_one_network_are_kept_beside_each_other(data):
    network = backbones.create("timm:vit_tiny_patch16_224", "none").eval()
    images = data.test.images.float() / 255
    found = {}
    for pool in ("mean", "class", "both"):
        reader = backbones.pooled(network, pool)
        recipe = RECIPE.but(backbone="timm:vit_tiny_patch16_224", flip=False)
        kept = features.cached(reader, data, recipe, "vit", "cpu").test.images[:, 0]
        found[pool] = kept.flatten(1).float()
        assert found[pool].shape == (11, reader.channels)
    with torch.no_grad():
        whole = (images[..., :32, :32] - network.mean) / network.std
        tokens = network.network.forward_features(whole)
    expected = {"mean": tokens[:, 1:].mean(1), "class": tokens[:, 0]}
    expected["both"] = torch.cat([expected["class"], expected["mean"]], 1)
    for pool, value in expected.items():
        torch.testing.assert_close(found[pool], value, atol=2e-3, rtol=2e-3)


def test_bad_options_are_told():
    with pytest.raises(InputError, match="small has no class token.*pool='mean'"):
        build("probe", 3, RECIPE, {"pool": "class"})
    with pytest.raises(InputError, match="unknown pool 'max'"):
        build("probe", 3, RECIPE, {"pool": "max"})
    for wrong in ({"k": -1}, {"penalty": 0.0}):
        with pytest.raises(InputError, match="k of at least 0 and a penalty above 0"):
            build("probe", 3, RECIPE, wrong)
