"""Semantic embedding: similarity against loops, descriptions of real and drawn classes,
that it learns what they say, and how runs carry them."""

import html
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import samples
from fgbook import data, figures
from fgbook.data import fieldguide, species
from fgbook.data.dataset import DataSet
from fgbook.errors import InputError
from fgbook.evidence import runs
from fgbook.figures import pretraining
from fgbook.methods import build, options_of
from fgbook.methods.semantic import Semantic, _others, standardised
from fgbook.recipe import Recipe
from fgbook.training import loop

CLASSES, SAID = 5, 9
OPTIONS = [{}, {"softmax": True}, {"shuffled": True}]
RECIPE = Recipe(
    image_size=40,
    store_size=44,
    backbone="small",
    weights="none",
    epochs=1,
    batch_size=8,
    lr=0.02,
    optimiser="adamw",
    schedule="onecycle",
)
each = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: next(iter(options), "default")
)


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> DataSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(tmp_path_factory.mktemp("birds")))
        return fieldguide.load(44, species=8, per_class=(12, 2, 4))


def described(classes=CLASSES) -> torch.Tensor:
    """Random shares, the third attribute the same for all classes."""
    shares = torch.rand(classes, SAID, generator=torch.Generator().manual_seed(2))
    shares[:, 2] = 0.3
    return shares


def make(seed=0, **options) -> Semantic:
    torch.manual_seed(seed)
    return build("semantic", CLASSES, RECIPE, options, described())


def batch(size=4):
    generator = torch.Generator().manual_seed(1)
    return (
        F.interpolate(
            torch.rand(size, 3, 6, 6, generator=generator), 40, mode="bicubic"
        ).clamp(0, 1),
        torch.arange(size) % CLASSES,
    )


def total(model, images, targets):
    return sum(model.losses(model(images, targets), targets).values())


# ---- equations


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_vectors(table: torch.Tensor) -> list[list[float]]:
    """Standardised over classes and divided by their length, number by number."""
    rows, (classes, count) = [], table.shape
    for c in range(classes):
        row = []
        for a in range(count):
            column = [table[k, a].item() for k in range(classes)]
            mean = sum(column) / classes
            spread = math.sqrt(sum((value - mean) ** 2 for value in column) / classes)
            row.append((column[c] - mean) / spread if spread > 1e-6 else 0.0)
        length = math.sqrt(sum(value**2 for value in row))
        rows.append([value / length for value in row])
    return rows


def test_standardised_against_loops_and_whatever_the_scale():
    table = described()
    torch.testing.assert_close(standardised(table), torch.tensor(slow_vectors(table)))
    assert not standardised(table)[:, 2].any()
    torch.testing.assert_close(
        standardised(100 * table - 7), standardised(table), atol=1e-5, rtol=1e-4
    )
    # the last class is the average in everything
    same = torch.tensor([[0.1, 0.2], [0.3, 0.2], [0.2, 0.2]])
    assert standardised(same)[2].tolist() == pytest.approx([0, 0], abs=1e-3)


@each
@torch.no_grad()
def test_logits_are_scaled_cosines_by_loops(options):
    model = make(**options).eval()
    model.attribute_head.bias.normal_()
    model.log_scale.fill_(1.3)
    images, _ = batch()
    found = model.predict(images)
    said = model.attributes(images)
    vectors = slow_vectors(described())
    feature = model.backbone(images).mean((2, 3))
    weight = model.attribute_head.weight.tolist()
    biases = model.attribute_head.bias.tolist()
    for b in range(len(images)):
        raw = []
        for row, bias in zip(weight, biases, strict=True):
            raw.append(dot(row, feature[b].tolist()) + bias)
        length = math.sqrt(sum(value**2 for value in raw))
        assert said[b].tolist() == pytest.approx(
            [value / length for value in raw], abs=1e-4
        )
        for c in range(CLASSES):
            k = _others(CLASSES)[c] if options.get("shuffled") else c
            expected = math.exp(1.3) * dot(raw, vectors[k]) / length
            if options.get("softmax"):
                expected += model.image_head(feature)[b, c].item()
            assert found[b, c].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 20, 50, 200])
def test_the_control_gives_every_class_anothers_description(count):
    others = _others(count)
    assert others.sort().values.tolist() == list(range(count))
    assert not (others == torch.arange(count)).any()
    assert torch.equal(others, _others(count))


def test_the_linear_head_is_the_plain_ones_for_the_same_seed():
    torch.manual_seed(0)
    plain = build("plain", CLASSES, RECIPE, {})
    assert torch.equal(plain.image_head.weight, make(softmax=True).image_head.weight)


def test_cosines_stay_float32_under_mixed_precision():
    model, (images, _) = make().eval(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert model.attributes(images).dtype == torch.float32
        torch.testing.assert_close(model.attributes(images).norm(dim=1), torch.ones(4))


@torch.no_grad()
# what every method promises is in test_models.py
def test_a_saved_model_brings_its_descriptions(tmp_path):
    model, (images, _) = make().eval(), batch()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = build("semantic", CLASSES, RECIPE, {}, 1 - described().roll(1, 0)).eval()
    assert not torch.equal(other.classes, model.classes)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other.classes, model.classes)
    assert torch.equal(other.predict(images), model.predict(images))


# ---- descriptions


def test_drawn_species_are_described_by_what_they_are_drawn_with(birds):
    table = species.table("target", 8)
    assert birds.class_attributes.shape == (8, len(birds.attribute_names))
    assert len(set(birds.attribute_names)) == len(birds.attribute_names)
    groups = [len(words) for words in species.WORDS.values()] + [
        len(species.PALETTES),
        len(species.BUILDS),
    ]
    for part in birds.class_attributes.split(groups, dim=1):
        assert part.sum(1).eq(1).all()  # one word of each kind
    for name, row in zip(
        species.describe("target", 8), birds.class_attributes, strict=True
    ):
        words = [birds.attribute_names[i] for i in row.nonzero()[:, 0].tolist()]
        assert set(name[1].split(", ")) <= set(words)  # what tells it from its siblings
        assert any(word.startswith("built like") for word in words)
    assert table.names == birds.classes
    assert torch.equal(birds.part(0.5).class_attributes, birds.class_attributes)


def write_attributes(
    root,
    rows,
    names=(
        "has_bill_shape::dagger",
        "has_back_color::blue",
        "has_size::small_(5_-_9_in)",
    ),
):
    (root / "attributes").mkdir(exist_ok=True)
    (root / "attributes" / "class_attribute_labels_continuous.txt").write_text(
        "\n".join(rows) + "\n"
    )
    (root / "attributes" / "attributes.txt").write_text(
        "".join(f"{i} {name}\n" for i, name in enumerate(names, 1))
    )


def test_cubs_attributes_from_real_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    root = tmp_path / "cub"
    samples.cub(root, 8, 5)
    shutil.rmtree(root / "attributes")
    without = data.load("cub", 24)
    assert without.class_attributes is None
    assert without.attribute_names == []
    with pytest.raises(
        InputError, match="says nothing about its classes.*folder 'attributes'"
    ):
        build("semantic", 2, RECIPE, {}, without.class_attributes)

    write_attributes(root, ["0.0 25.5 100", "50 0 12.5"])
    found = data.load("cub", 24)
    torch.testing.assert_close(
        found.class_attributes, torch.tensor([[0.0, 0.255, 1.0], [0.5, 0.0, 0.125]])
    )
    assert found.attribute_names == [
        "bill shape: dagger",
        "back color: blue",
        "size: small (5 - 9 in)",
    ]
    # so that other descriptions are another run
    assert found.fingerprint != without.fingerprint
    # where the official archive has it
    (root / "attributes" / "attributes.txt").rename(root.parent / "attributes.txt")
    again = data.load("cub", 24)
    assert (again.attribute_names, again.fingerprint) == (
        found.attribute_names,
        found.fingerprint,
    )
    (root.parent / "attributes.txt").unlink()
    assert data.load("cub", 24).attribute_names == [
        "attribute 1",
        "attribute 2",
        "attribute 3",
    ]

    def refused(message, rows=("0 0 0", "1 1 1"), **names):
        write_attributes(root, rows, **names)
        with pytest.raises(InputError, match=message):
            data.load("cub", 24)

    refused("1 rows for the 2 classes", rows=("0 0 0",))
    refused("not a table of numbers", rows=("0 0 0", "1 1"))
    refused("not a table of numbers", rows=("0 0 0", "1 one 1"))
    for number in ("101", "-1", "nan", "inf"):
        refused("no percentages from 0 to 100", rows=("0 0 0", f"1 {number} 1"))
    refused("does not list the 3 attributes", names=("a", "b"))
    write_attributes(root, ("0 0 0", "1 1 1"))
    (root / "attributes" / "attributes.txt").write_text("1 a\nb\n3 c\n")
    with pytest.raises(InputError, match="attributes.txt, line 2"):
        data.load("cub", 24)


@pytest.mark.parametrize(
    "wrong", [torch.rand(4, 3), torch.rand(5), torch.full((5, 3), torch.nan)]
)
def test_descriptions_that_do_not_fit_are_refused(wrong):
    with pytest.raises(
        InputError, match="a row of finite numbers for each of 5 classes"
    ):
        build("semantic", 5, RECIPE, {}, wrong)


def test_descriptions_are_no_option():
    assert options_of("semantic") == {"softmax": False, "shuffled": False}


# ---- runs


def test_it_learns_what_the_descriptions_say(birds, tmp_path):
    """After training, what it says of test images is nearer to their own class's
    description than to another genus's; before, it is not."""
    torch.manual_seed(0)
    recipe = RECIPE.but(
        weights="pretrained", epochs=3, backbone_lr_factor=0.1, weight_decay=0.05
    )
    model = build("semantic", 8, recipe, {}, birds.class_attributes)
    images = birds.test.images[:, :, 2:42, 2:42].float() / 255

    @torch.no_grad()
    def nearer() -> float:
        cosines = model.eval().attributes(images) @ model.classes.T
        own = cosines.gather(1, birds.test.labels[:, None])[:, 0]
        genus = torch.arange(birds.num_classes) // species.SIBLINGS
        others = genus[birds.test.labels][:, None] != genus
        return (own > cosines.masked_fill(~others, -2).amax(1)).float().mean().item()

    before = nearer()
    loop.fit(model, birds, recipe, tmp_path / "run", device="cpu", progress=False)
    assert nearer() > max(0.75, before + 0.2)


def test_a_run_hands_the_descriptions_on_and_its_model_comes_back(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path))
    runs._load.cache_clear()
    tiny = {
        "image_size": 32,
        "store_size": 32,
        "epochs": 1,
        "fraction": 0.1,
        "precision": "fp32",
    }
    run = runs.resolve("gautam", "semantic-shuffled", "quick", overrides=tiny)
    record = runs.execute(run, device="cpu", progress=False)
    network, dataset = runs.model(runs.of(record), device="cpu")
    torch.testing.assert_close(
        network.classes,
        standardised(dataset.class_attributes[_others(dataset.num_classes)]),
    )
    top1 = (
        (
            loop.predict(network, dataset.test, run.recipe, device="cpu").argmax(1)
            == dataset.test.labels
        )
        .double()
        .mean()
        .item()
    )
    assert record["metrics"]["test"]["top1"] == pytest.approx(top1, abs=1e-6)
    with pytest.raises(InputError, match="says nothing about its classes"):
        runs.execute(
            runs.resolve(
                "gautam",
                "semantic",
                "quick",
                samples.folder(tmp_path / "set"),
                overrides=tiny,
            ),
            device="cpu",
            progress=False,
        )
    runs._load.cache_clear()


# ---- in words


def test_the_words_figure_shows_what_the_model_gives_most(birds):
    torch.manual_seed(0)
    model = build("semantic", 8, RECIPE, {}, birds.class_attributes).eval()
    index = torch.tensor([3, 20])
    heard, known, predicted = pretraining.said(model, birds, RECIPE, index)
    view = birds.test.images[index][..., 2:42, 2:42].float() / 255
    with torch.no_grad():
        torch.testing.assert_close(heard, model.attributes(view))
        assert torch.equal(predicted, model(view)["image"].argmax(1))
    torch.testing.assert_close(
        known, standardised(birds.class_attributes)[birds.test.labels[index]]
    )

    shown = pretraining.words_figure(model, birds, RECIPE, count=2)
    alt = samples.words(shown)
    heard, known, _ = pretraining.said(
        model, birds, RECIPE, figures.spread(birds.test, 2)
    )
    for i, place in enumerate(figures.spread(birds.test, 2).tolist()):
        values = heard[i].tolist()
        best = sorted(range(len(values)), key=lambda a: -values[a])[
            : pretraining.SUREST
        ]
        words = ", ".join(
            f"{birds.attribute_names[a]} ({values[a]:.2f}, class"
            f" {known[i, a].item():.2f})"
            for a in best
        )
        assert f"{birds.classes[birds.test.labels[place]]}: {words}" in html.unescape(
            alt
        )
