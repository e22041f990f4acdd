"""Frozen backbone and classifier; features computed once, kept, and found again."""

import multiprocessing
import os

import numpy as np
import pytest
import torch

from fgbook import backbones, paths
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.methods import Transfer, build
from fgbook.recipe import Recipe
from fgbook.training import features, loop

SIZE = 40
RECIPE = Recipe(
    image_size=SIZE,
    store_size=48,
    backbone="small",
    flip=False,
    epochs=4,
    batch_size=8,
    optimiser="adam",
    lr=1e-3,
    weight_decay=0.0,
    schedule="constant",
    precision="fp32",
)
HALF = {"rtol": 2**-11, "atol": 2**-24}  # how exactly float16 keeps a number


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))


def split(count: int, seed: int, name: str) -> Split:
    """Noise whose colour says the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 3, 48, 48), generator=generator)
    images[torch.arange(count), labels] += 100
    return Split(images.to(torch.uint8), labels, [f"{name}/{i}" for i in range(count)])


@pytest.fixture
def data() -> DataSet:
    return DataSet(
        "noise",
        ["a", "b", "c"],
        48,
        "f" * 16,
        split(70, 0, "train"),
        split(9, 1, "val"),
        split(11, 2, "test"),
    )


def frozen(weights: str = "pretrained"):
    torch.manual_seed(0)
    return backbones.create("small", weights)


def cached(data, recipe=RECIPE, backbone=None, weights="small sha256:1"):
    return features.cached(backbone or frozen(), data, recipe, weights, "cpu")


def forbidden(*arguments):
    raise AssertionError("the backbone was run again")


# Features


def test_cached_features_are_what_the_network_computes(data):
    backbone = frozen()
    seen = cached(data, RECIPE.but(flip=True), backbone)
    for name in features.SPLITS:
        images = data.split(name).images[:, :, 4:44, 4:44].float() / 255  # the centre
        with torch.no_grad():
            expected = torch.stack(
                [
                    torch.cat([backbone(view[i : i + 1]) for i in range(len(view))])
                    for view in (images, images.flip(3))
                ],
                1,
            )
        got = seen.split(name).images
        assert got.dtype == torch.float16
        assert got.shape == (len(images), 2, 192, 5, 5)
        # float16, and another order of sums in a batch
        torch.testing.assert_close(got.float(), expected, rtol=2**-10, atol=1e-5)
        assert torch.equal(seen.split(name).labels, data.split(name).labels)
        assert seen.split(name).files == data.split(name).files
    assert not backbone.training
    both = seen.split("train+val").images  # neighbours in one file: nothing is copied
    assert both.data_ptr() == seen.train.images.data_ptr()
    assert len(both) == 79


def test_features_are_computed_once_and_again_when_anything_that_matters_changes(
    data, monkeypatch
):
    first = cached(data).train.images.clone()
    monkeypatch.setattr(features, "compute", forbidden)
    again = cached(data).train.images
    assert torch.equal(again, first)
    changes = (
        {"recipe": RECIPE.but(image_size=32)},
        {"recipe": RECIPE.but(flip=True)},
        {"weights": "small sha256:2"},
        {"backbone": frozen("none"), "weights": "none"},
        {"data": DataSet(**{**vars(data), "fingerprint": "e" * 16})},
    )
    for change in changes:
        with pytest.raises(AssertionError, match="run again"):
            cached(**{"data": data, **change})
    monkeypatch.undo()


def test_random_backbones_are_told_apart_by_their_values(data):
    torch.manual_seed(1)
    one, other = backbones.create("small", "none"), backbones.create("small", "none")
    a, b = (
        cached(data, RECIPE, backbone, "none").test.images.clone()
        for backbone in (one, other)
    )
    assert not torch.equal(a, b)
    assert torch.equal(cached(data, RECIPE, one, "none").test.images, a)


def test_two_backbones_on_one_data_set_are_kept_beside_each_other_and_a_stale_one_goes(
    data,
):

    def entries():
        return sorted(path.name for path in paths.store().iterdir() if path.is_dir())

    cached(data, weights="imagenet sha256:1")
    cached(data, weights="birds sha256:1")
    assert len(entries()) == 2
    before = entries()
    cached(data, weights="birds sha256:2")  # the file of that name has changed
    assert len(entries()) == 2
    assert entries() != before


@pytest.mark.parametrize("how", ["truncated", "overwritten", "index lost"])
def test_a_damaged_cache_is_made_again(data, how):
    expected = cached(data).train.images.clone()
    maps = next(paths.store().glob("features-*/maps.npy"))
    if how == "truncated":
        os.truncate(maps, maps.stat().st_size - 1)
    elif how == "overwritten":
        with open(maps, "r+b") as file:
            file.seek(maps.stat().st_size // 2 // 4096 * 4096)
            file.write(bytes(20000))
    else:
        (maps.parent / "index.json").unlink()
    assert torch.equal(cached(data).train.images, expected)


def test_what_float16_cannot_hold_is_refused(data):
    backbone = frozen()
    with torch.no_grad():
        backbone.network.widen[1].weight.mul_(1e6)
    with pytest.raises(InputError, match="not finite"):
        cached(data, RECIPE, backbone)
    assert not list(paths.store().glob("features-*/"))  # nothing half-made is left


def race(start, place: str, queue) -> None:
    """In a process of its own: ask for the features, and say whether the backbone was
    run."""
    os.environ["FGBOOK_RUNS"] = place
    torch.set_num_threads(1)
    compute, ran = features.compute, []
    features.compute = lambda *arguments: ran.append(1) or compute(*arguments)
    data = DataSet(
        "noise",
        ["a", "b", "c"],
        48,
        "f" * 16,
        split(70, 0, "train"),
        split(9, 1, "val"),
        split(11, 2, "test"),
    )
    backbone = frozen()
    start.wait()
    maps = cached(data, RECIPE, backbone).train.images
    queue.put((bool(ran), maps.sum(dtype=torch.float64).item()))


def test_of_several_processes_one_computes(tmp_path):
    context = multiprocessing.get_context(
        "fork" if not torch.cuda.is_available() else "spawn"
    )
    start, queue = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=race, args=(start, str(tmp_path / "shared"), queue))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert sum(ran for ran, _ in found) == 1
    assert len({total for _, total in found}) == 1


def test_memory_stays_at_a_batch(data, monkeypatch):
    """Features go to the file batch by batch: no more than one batch of images is ever
    asked for."""
    seen, compute = [], features.compute
    monkeypatch.setattr(
        features,
        "compute",
        lambda backbone, images, *rest: (
            seen.append(len(images)) or compute(backbone, images, *rest)
        ),
    )
    monkeypatch.setattr(features, "BATCH", 16)
    assert cached(data).train.images.shape[0] == 70
    assert max(seen) == 16
    assert sum(seen) == 90


# The network


def slow(model, image):
    """One image through the backbone and the printed classifier: Flatten, Dense 256
    ReLU, Dense."""
    maps = model.backbone(image[None])[0]
    first, _, _, last = model.head.layers
    flat = maps.mean((1, 2)) if model.head.pool == "gap" else maps.reshape(-1)
    return last.weight @ (first.weight @ flat + first.bias).clamp(min=0) + last.bias


@torch.no_grad()
@pytest.mark.parametrize("pool", ["flatten", "gap"])
def test_prediction_is_the_printed_classifier_on_the_backbones_map(pool):
    model = Transfer(frozen(), 5, pool=pool, image_size=SIZE).eval()
    images = torch.rand(4, 3, SIZE, SIZE)
    torch.testing.assert_close(
        model.predict(images),
        torch.stack([slow(model, image) for image in images]),
        atol=1e-4,
        rtol=1e-4,
    )
    assert model.head.layers[0].in_features == (192 * 25 if pool == "flatten" else 192)
    assert model.head.layers[2].p == 0.5


def test_dropout_acts_in_training_only():
    model = Transfer(frozen(), 5, image_size=SIZE)
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert not torch.equal(model.train()(images)["image"], model(images)["image"])
        assert torch.equal(model.eval()(images)["image"], model(images)["image"])


def test_a_linear_probe_has_no_hidden_layer_and_no_dropout():
    model = Transfer(frozen(), 5, pool="gap", hidden=0, image_size=SIZE)
    assert [type(layer).__name__ for layer in model.head.layers] == ["Linear"]


def test_training_the_whole_leaves_the_backbone_as_it_was(data, tmp_path):
    torch.manual_seed(0)
    model = build("transfer", 3, RECIPE, {})
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    heads = {key: value.clone() for key, value in model.head.state_dict().items()}
    loop.fit(
        model,
        data,
        RECIPE.but(epochs=1),
        tmp_path / "run",
        device="cpu",
        progress=False,
    )
    # BatchNorm's statistics too
    assert all(
        torch.equal(value, before[key])
        for key, value in model.backbone.state_dict().items()
    )
    assert all(
        not torch.equal(value, heads[key])
        for key, value in model.head.state_dict().items()
    )


def test_a_head_trained_on_kept_features_predicts_like_the_network_from_images(
    data, tmp_path
):
    torch.manual_seed(0)
    model = build("transfer", 3, RECIPE, {})
    seen = features.cached(model.backbone, data, RECIPE, "none", "cpu")
    loop.fit(model.head, seen, RECIPE, tmp_path / "run", device="cpu", progress=False)
    from_features = loop.predict(model.head, seen.test, RECIPE, device="cpu")
    from_images = loop.predict(model, data.test, RECIPE, device="cpu")
    # the features were rounded to float16
    torch.testing.assert_close(from_features, from_images, atol=5e-3, rtol=0)
    # colours are easy: it did learn
    assert (from_images.argmax(1) == data.test.labels).float().mean() > 0.8


def test_both_ways_of_training_end_alike(data, tmp_path):
    """Without crops, flips and dropout, training from images is training from features,
    up to their rounding."""
    recipe = RECIPE.but(store_size=48, image_size=48, epochs=2)
    options, results = {"dropout": 0.0}, []
    for kept in (True, False):
        torch.manual_seed(0)
        model = build("transfer", 3, recipe, options)
        part = model.head if kept else model
        loop.fit(
            part,
            (
                features.cached(model.backbone, data, recipe, "none", "cpu")
                if kept
                else data
            ),
            recipe,
            tmp_path / str(kept),
            device="cpu",
            progress=False,
        )
        results.append(loop.predict(model, data.test, recipe, device="cpu"))
    torch.testing.assert_close(*results, atol=0.02, rtol=0)


def test_bad_options_are_told():
    with pytest.raises(InputError, match="unknown pool 'max'"):
        Transfer(frozen(), 5, pool="max")
    for wrong in ({"hidden": -1}, {"dropout": 1.0}):
        with pytest.raises(InputError, match="0 <= dropout < 1"):
            Transfer(frozen(), 5, **wrong)


def test_kept_features_are_memory_mapped(data):
    cached(data)
    images = cached(data).train.images
    assert isinstance(
        np.load(next(paths.store().glob("features-*/maps.npy")), mmap_mode="r"),
        np.memmap,
    )
    # one storage for all splits
    assert images.untyped_storage().nbytes() >= 90 * 192 * 25 * 2
