"""Robustness and class margins against slow references."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import robustness
from fgbook.evidence import verdicts
from fgbook.images import augment, corruptions
from fgbook.methods import build
from fgbook.recipe import Recipe

RECIPE = Recipe(
    image_size=32, store_size=40, backbone="small", weights="none", batch_size=4
)
KINDS = ("gaussian_noise", "occlusion", "brightness")


def network(method="plain", **options):
    torch.manual_seed(0)
    model = build(method, 3, RECIPE, options).eval()
    nn.init.normal_(model.image_head.weight)
    return model


def split(count=10):
    generator = torch.Generator().manual_seed(0)
    images = nn.functional.interpolate(
        torch.rand(count, 3, 5, 5, generator=generator), 40, mode="bicubic"
    ).clamp(0, 1)
    return Split(
        (images * 255).byte(),
        torch.arange(count) % 3,
        [f"{i}.png" for i in range(count)],
    )


def labelled_by(model, about):
    """The split with the network's own answers as labels, so that it is right on all
    undamaged images."""
    views = augment.centre(about.images, RECIPE.image_size)
    return Split(about.images, model.predict(views).argmax(1), about.files)


@torch.no_grad()
def test_it_is_the_loop_over_single_images():
    model, about = network(), split()
    about = labelled_by(model, about)
    found = robustness.corruption(
        model.train(), about, RECIPE, KINDS, (1, 3, 5), seed=4
    )
    assert not model.training
    assert found["clean"].all()
    assert found["clean"].shape == (10,)
    for kind in KINDS:
        for row, severity in enumerate((1, 3, 5)):
            for i in range(10):
                view = augment.centre(about.images[i : i + 1], RECIPE.image_size)
                damaged = corruptions.corrupt(
                    view, kind, severity, torch.tensor([i]), 4
                )
                assert found[kind][row, i] == (
                    int(model.predict(damaged).argmax()) == int(about.labels[i])
                ), (kind, severity, i)
    assert not found["occlusion"].all() or not found["gaussian_noise"].all()


def test_it_is_repeatable_and_does_not_depend_on_batches_or_on_the_other_images():
    model, about = network(), split()
    whole = robustness.corruption(model, about, RECIPE, KINDS)
    again = robustness.corruption(model, about, RECIPE.but(batch_size=3), KINDS[::-1])
    assert all(np.array_equal(whole[kind], again[kind]) for kind in whole)
    some = robustness.corruption(model, about, RECIPE, KINDS, images=6)
    chosen = robustness.sample(10, 6)
    assert all(
        np.array_equal(some[kind], whole[kind][..., chosen.numpy()]) for kind in whole
    )
    other = robustness.corruption(network(), about, RECIPE, KINDS, seed=1)
    assert np.array_equal(other["clean"], whole["clean"])


def test_what_is_kept_beside_a_record():
    model = network()
    about = labelled_by(model, split())
    found, kept = (
        robustness.corruption(model, about, RECIPE, images=6),
        robustness.measure(model, about, RECIPE, 6),
    )
    read = robustness.answers(kept)
    assert list(read) == list(found)
    for kind in found:
        assert read[kind].dtype == bool
        assert np.array_equal(read[kind], found[kind])
    assert kept.pop("damaged").shape == (61, 6)
    with pytest.raises(InputError, match="not measured on damaged images"):
        robustness.answers(kept)
    chosen = robustness.sample(10, 6).numpy()
    rest = np.setdiff1d(np.arange(10), chosen)
    for values in kept.values():
        assert values.shape == (10,)
        assert values.dtype == np.float32
        assert np.isnan(values[rest]).all()
    assert sorted(
        kind for kinds in robustness.GROUPS.values() for kind in kinds
    ) == sorted(corruptions.NAMES)
    assert set(kept) == {
        "robust",
        "robust_change",
        *(f"robust_{name}" for name in (*robustness.GROUPS, *corruptions.NAMES)),
    }
    for place, i in enumerate(chosen):
        shares = {
            kind: np.mean([found[kind][s, place] for s in range(5)])
            for kind in corruptions.NAMES
        }
        for kind, share in shares.items():
            assert kept[f"robust_{kind}"][i] == pytest.approx(share)
        for group, kinds in robustness.GROUPS.items():
            assert kept[f"robust_{group}"][i] == pytest.approx(
                np.mean([shares[kind] for kind in kinds])
            )
        assert kept["robust"][i] == pytest.approx(np.mean(list(shares.values())))
        # right on all undamaged images
        assert kept["robust_change"][i] == pytest.approx(
            kept["robust"][i] - 1, abs=1e-6
        )
    # NaN: not measured, left out
    effect = verdicts.difference(
        np.stack([kept["robust"]] * 2), np.stack([kept["robust"] - 0.25] * 2)
    )
    assert effect.effect == pytest.approx(0.25)
    assert effect.images == 6


@pytest.mark.parametrize("relative", [False, True])
def test_mean_corruption_error_is_the_formula(relative):
    generator = np.random.default_rng(1)
    ours, theirs = (
        {
            "clean": generator.random(50) < 0.95,
            **{kind: generator.random((5, 50)) < share for kind in KINDS},
        }
        for share in (0.6, 0.4)
    )
    ratios = []
    for kind in KINDS:
        sums = []
        for result in (ours, theirs):
            clean = sum(not right for right in result["clean"]) / 50
            sums.append(
                sum(
                    sum(not right for right in result[kind][s]) / 50 - relative * clean
                    for s in range(5)
                )
            )
        ratios.append(sums[0] / sums[1])
    assert robustness.mean_corruption_error(ours, theirs, relative) == pytest.approx(
        100 * sum(ratios) / 3
    )
    assert robustness.mean_corruption_error(theirs, theirs, relative) == pytest.approx(
        100
    )
    with pytest.raises(InputError, match="the same kinds"):
        robustness.mean_corruption_error(
            ours, {kind: theirs[kind] for kind in ("clean", *KINDS[1:])}
        )
    with pytest.raises(InputError, match="loses nothing by occlusion"):
        robustness.mean_corruption_error(
            ours,
            theirs | {"clean": np.ones(50, bool), "occlusion": np.ones((5, 50), bool)},
            relative,
        )


def test_bad_requests_are_told():
    with pytest.raises(InputError, match="no images"):
        robustness.corruption(network(), split(0), RECIPE)
    with pytest.raises(
        InputError, match="unknown corruption 'jpg'; did you mean 'jpeg'"
    ):
        robustness.corruption(network(), split(), RECIPE, ("jpg",))
    with pytest.raises(InputError, match="severity is 6"):
        robustness.corruption(network(), split(), RECIPE, ("jpeg",), (6,))


# ---- margins


@torch.no_grad()
@pytest.mark.parametrize("method", ["plain", "attention", "focus"])
def test_embeddings_are_pooled_features_of_length_one(method):
    model, about = (
        network(method, **({"start": "usual"} if method == "attention" else {})),
        split(),
    )
    found = robustness.embeddings(model.train(), about, RECIPE)
    assert not model.training
    views = augment.centre(about.images, RECIPE.image_size)
    maps = model.maps(views) if method == "attention" else model.backbone(views)
    pooled = maps.mean((2, 3))
    torch.testing.assert_close(
        found, pooled / pooled.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4
    )
    if method == "plain":  # what the head reads
        logits = model.predict(views)
        torch.testing.assert_close(
            (found * pooled.norm(dim=1, keepdim=True)) @ model.image_head.weight.T
            + model.image_head.bias,
            logits,
            atol=1e-3,
            rtol=1e-3,
        )


def test_a_network_without_backbone_is_refused():
    with pytest.raises(InputError, match="Simple has no backbone"):
        robustness.embeddings(build("simple", 3, RECIPE, {}), split(), RECIPE)


def slow(embeddings, labels):
    """a_i and b_i of every image, and the distances between classes' means."""
    points = [row.double() for row in embeddings]

    def mean(chosen):
        return sum(chosen) / len(chosen)

    classes = sorted(set(labels.tolist()))
    means = {
        k: mean(
            [p for p, label in zip(points, labels.tolist(), strict=True) if label == k]
        )
        for k in classes
    }
    own, nearest = [], []
    for i, label in enumerate(labels.tolist()):
        others = [
            points[j] for j in range(len(points)) if j != i and int(labels[j]) == label
        ]
        own.append(float((points[i] - mean(others)).norm()) if others else math.nan)
        nearest.append(
            min(float((points[i] - means[k]).norm()) for k in classes if k != label)
        )
    return (
        own,
        nearest,
        [
            float((means[k] - means[m]).norm())
            for k in classes
            for m in classes
            if k != m
        ],
    )


def test_margins_and_the_ratio_are_their_definitions():
    generator = torch.Generator().manual_seed(0)
    # 9 is alone; labels have gaps
    labels = torch.tensor([5, 5, 5, 2, 2, 9, 2, 5, 7, 7])
    embeddings = torch.randn(10, 4, generator=generator) + labels[
        :, None
    ] * torch.tensor([1.0, 0, 0, 0.5])
    own, nearest, between = slow(embeddings, labels)
    margins = robustness.margins(embeddings, labels)
    assert margins.dtype == torch.float32
    assert margins.isnan().tolist() == [label == 9 for label in labels.tolist()]
    known = [i for i in range(10) if labels[i] != 9]
    torch.testing.assert_close(
        margins[known],
        torch.tensor([math.log2(nearest[i] / own[i]) for i in known]),
        atol=1e-5,
        rtol=1e-4,
    )
    found = robustness.class_ratio(embeddings, labels)
    assert found["inter"] == pytest.approx(np.mean(between), rel=1e-5)
    assert found["intra"] == pytest.approx(np.nanmean(own), rel=1e-5)
    assert found["ratio"] == pytest.approx(found["inter"] / found["intra"])
    for changed in (
        3 * embeddings,
        embeddings + 7,
        embeddings @ torch.linalg.qr(torch.randn(4, 4, generator=generator))[0],
    ):
        torch.testing.assert_close(
            robustness.margins(changed, labels),
            margins,
            atol=1e-3,
            rtol=1e-3,
            equal_nan=True,
        )
        assert robustness.class_ratio(changed, labels)["ratio"] == pytest.approx(
            found["ratio"], rel=1e-3
        )


def test_classes_further_apart_have_larger_margins():
    labels, noise = (
        torch.arange(30) % 3,
        torch.randn(30, 8, generator=torch.Generator().manual_seed(0)),
    )
    centres = torch.eye(3, 8)[labels]
    ratios = [
        robustness.class_ratio(noise + far * centres, labels)["ratio"]
        for far in (0, 5, 50)
    ]
    means = [
        robustness.margins(noise + far * centres, labels).mean().item()
        for far in (0, 5, 50)
    ]
    assert ratios == sorted(ratios)
    assert means == sorted(means)
    # Without any difference a class's mean of the other 9 images is hardly farther than
    # another's mean of 10: not, as with the image itself among its own, nearer. The
    # nearest of two is nearer than one, so the margin is slightly below 0.
    assert -0.3 < means[0] < 0.05


def test_margins_need_two_classes_and_a_pair():
    with pytest.raises(InputError, match="at least two, not 1"):
        robustness.margins(torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match="no class has two images"):
        robustness.class_ratio(torch.rand(4, 3), torch.arange(4))
    assert (
        robustness.margins(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]))
        .isfinite()
        .all()
    )
