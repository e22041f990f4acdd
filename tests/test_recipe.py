"""Recipes: what every field may be, from wherever it comes, and the keys of what has
been published."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from fgbook import papers, paths, recipe
from fgbook.errors import InputError
from fgbook.recipe import LATER, OTHER_WAY, Recipe

RECORDS = sorted((paths.REPOSITORY / "results").glob("**/*.json"))


# what a field may be


@pytest.mark.parametrize(
    "name,value,says",
    [
        ("clip_norm", -1, "clip_norm is -1.0; it must be at least 0"),
        ("weight_decay", -1.0, "weight_decay is -1.0; it must be at least 0"),
        ("momentum", 1.5, "momentum is 1.5; it must be at least 0 and below 1"),
        ("momentum", 1.0, "below 1"),
        ("lr", 0.0, "lr is 0.0; it must be above 0"),
        ("lr", math.nan, "lr is nan; it must be finite"),
        ("lr", math.inf, "lr is inf; it must be finite"),
        ("jitter", 1.01, "jitter is 1.01; .* at most 1"),
        ("rotate", -5.0, "rotate is -5.0"),
        ("fraction", 0.0, "fraction is 0.0; it must be above 0"),
        ("epochs", 0, "epochs is 0; it must be at least 1"),
        ("epochs", True, "epochs must be of type int .*; got True"),
        ("epochs", "3", "epochs must be of type int .*; got '3'"),
        ("epochs", 3.0, "epochs must be of type int .*; got 3.0"),
        ("epochs", None, "epochs must be of type int .*; got None"),
        ("epochs", np.array([3]), "epochs must be of type int"),
        ("epochs", -(10**400), "epochs is -1"),
        ("lr", True, "lr must be of type float .*; got True"),
        ("lr", "0.1", "lr must be of type float .*; got '0.1'"),
        ("lr", 1e308, "lr is 1e.308; it must be above 0 and at most 1e.38"),
        ("batch_size", 10**20, "batch_size is 10+; it must be at least 1 and at most"),
        ("loss_weights", (("image", 1e308),), "loss_weights must be of type tuple"),
        ("lr", 10**400, "lr must be of type float"),
        ("flip", 1, "flip must be of type bool .*; got 1"),
        ("backbone", 3, "backbone must be of type str .*; got 3"),
        ("optimiser", "sdg", "unknown optimiser 'sdg'; did you mean 'sgd'"),
        ("optimiser", 3, "optimiser must be of type str"),
        ("loss_weights", "image", "loss_weights must be of type tuple"),
        ("loss_weights", (("image",),), "loss_weights must be of type tuple"),
        ("loss_weights", (("image", -1.0),), "weight of at least 0"),
        ("loss_weights", (("image", math.nan),), "weight of at least 0"),
        ("loss_weights", (("image", True),), "loss_weights must be of type tuple"),
        ("loss_weights", (("a", 1.0), ("a", 2.0)), "each once"),
        ("frozen_stages", -1, "frozen_stages is -1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(name, value, says):
    """However the recipe is made, with the same sentence."""
    said = []
    for make in (
        lambda: Recipe(**{name: value}),
        lambda: Recipe().but(**{name: value}),
        lambda: Recipe.of({name: value}),
        lambda: recipe.check(name, value),
    ):
        with pytest.raises(InputError, match=says) as caught:
            make()
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert "\n" not in said[0]


@pytest.mark.parametrize("field", fields(Recipe), ids=lambda field: field.name)
def test_every_field_has_a_type_and_every_number_a_range(field):
    """What is certainly wrong for any field of its type is refused."""
    wrong = {int: (-1, 1.5, False), float: (-1.0, math.nan, "x"), bool: (1, "true")}
    kind = type(field.default)
    for value in wrong.get(kind, (1, 1.5, None)):
        with pytest.raises(InputError, match=field.name):
            recipe.check(field.name, value)
    assert recipe.check(field.name, field.default) == field.default


def test_numbers_of_numpy_and_whole_numbers_become_those_of_python():
    made = Recipe(
        epochs=np.int64(3),
        lr=np.float64(0.5),
        flip=np.bool_(False),
        warmup_epochs=1,
        clip_norm=np.int32(2),
        optimiser=np.str_("adam"),
        loss_weights=[["a", np.float64(2)], ("b", 1)],
    )
    plain = Recipe(
        epochs=3,
        lr=0.5,
        flip=False,
        warmup_epochs=1.0,
        clip_norm=2.0,
        optimiser="adam",
        loss_weights=(("a", 2.0), ("b", 1.0)),
    )
    assert made == plain
    # also as text, on which keys depend: 1 is not 1.0 there
    assert json.dumps(made.as_dict()) == json.dumps(plain.as_dict())


@pytest.mark.parametrize("path", ["Recipe", "of", "but"])
def test_unknown_fields_are_refused(path):
    with pytest.raises((InputError, TypeError), match="epoch"):
        {"Recipe": Recipe, "of": lambda **v: Recipe.of(v), "but": Recipe().but}[path](
            epoch=3
        )


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"store_size": 100}, "store_size 100 is smaller than image_size 224"),
        ({"low_side": 224}, "low_side is 224; .* 0 or between 1 and 223"),
        ({"resolution": "low"}, "low_side is 0; .* needs it to be between 1 and 223"),
        ({"batch_size": 6, "accumulate": 4}, "not a multiple of accumulate 4"),
        ({"per_class": 1}, "per_class is 1"),
        ({"per_class": 3}, "divisor of the 16 images"),
        ({"accumulate": 8, "per_class": 4}, "divisor of the 2 images"),
        ({"keep": "last", "patience": 2}, "set patience=0"),
        ({"train_on": "train+val", "patience": 2}, "set patience=0"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        Recipe(**changes)


# text of a command line


@pytest.mark.parametrize(
    "name,text,value",
    [
        ("epochs", "12", 12),
        ("lr", "3e-4", 3e-4),
        ("lr", "1", 1.0),
        ("flip", "False", False),
        ("flip", "true", True),
        ("backbone", "resnet50", "resnet50"),
        ("weights", "3", "3"),
        ("loss_weights", "(('triplet', 0.1),)", (("triplet", 0.1),)),
        ("loss_weights", "[]", ()),
    ],
)
def test_text_becomes_a_value(name, text, value):
    found = recipe.parse(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("field", fields(Recipe), ids=lambda field: field.name)
def test_what_a_command_prints_is_read_again(field):
    """``Run.command`` writes a field as NAME=VALUE."""
    assert recipe.parse(field.name, str(field.default)) == field.default


@pytest.mark.parametrize(
    "name,text,says",
    [
        ("epoch", "3", "unknown recipe field 'epoch'; did you mean 'epochs'"),
        ("epochs", "two", "epochs must be of type int .*; got 'two'"),
        ("epochs", "1.5", "epochs must be of type int"),
        ("epochs", "0", "epochs is 0"),
        ("lr", "nan", "lr is nan; it must be finite"),
        ("lr", "fast", "lr must be of type float"),
        ("clip_norm", "-1", "clip_norm is -1.0"),
        ("flip", "1", "flip must be of type bool"),
        ("optimiser", "sdg", "did you mean 'sgd'"),
        ("loss_weights", "triplet", "loss_weights must be of type tuple"),
        ("loss_weights", "(" * 500, "loss_weights must be of type tuple"),
        ("loss_weights", "{[]: 1}", "loss_weights must be of type tuple"),
    ],
)
def test_text_that_is_no_value_is_refused(name, text, says):
    with pytest.raises(InputError, match=says):
        recipe.parse(name, text)


# keys


def published() -> list[Path]:
    found = []
    for path in RECORDS:
        if "recipe" in json.loads(path.read_text()):
            found.append(path)
    return found


def as_then(values: dict) -> dict:
    """What the key of a record was made of: its own fields, without other ways to the
    same numbers, and without those that were off and came later."""
    off = {"keep": "best", "resolution": "high", "upsample": "bicubic"}
    off |= {"fraction": 1.0, "views": 1}
    kept = {}
    for name, value in values.items():
        later = name in LATER and (value == off.get(name) or value in (0, False))
        if name not in OTHER_WAY and not later:
            kept[name] = value
    return kept


def test_published_recipes_have_the_key_parts_that_they_had():
    """As JSON text, of which keys are made: also 1 instead of 1.0 would be another
    key."""
    found = published()
    assert len(found) > 150
    for path in found:
        values = json.loads(path.read_text())["recipe"]
        parts = Recipe.of(values).determinants()
        then = json.dumps(as_then(values), sort_keys=True)
        assert json.dumps(parts, sort_keys=True) == then, path.name


def test_published_keys_are_those_of_their_recipes():
    """The whole key, from what a record says; versions of a method that came before the
    present one made some."""
    from fgbook import methods
    from fgbook.evidence import records
    from fgbook.training import loop

    for path in published():
        record = json.loads(path.read_text())
        parts = {
            "recipe": Recipe.of(record["recipe"]).determinants(),
            "data": record["data_fingerprint"],
        }
        for name in ("method", "options", "weights", "seed", "purpose"):
            parts[name] = record[name]
        if record.get("after"):
            parts["after"] = record["after"]
        keys = []
        for version in range(methods.METHODS[record["method"]].VERSION + 1):
            versions = {"versions": [version, loop.VERSION]}
            keys.append(records.key(parts | versions))
        assert record["key"] in keys, path.name


def test_a_record_s_recipe_comes_back_as_it_was():
    for path in published():
        values = json.loads(path.read_text())["recipe"]
        again = json.loads(json.dumps(Recipe.of(values).as_dict()))
        for name, value in values.items():
            assert json.dumps(again[name]) == json.dumps(value), (path.name, name)


def test_later_fields_are_no_part_of_a_key_while_they_are_off():
    known = {*LATER, *OTHER_WAY}
    assert Recipe().determinants().keys() == Recipe().as_dict().keys() - known
    on = Recipe(frozen_stages=1, recompute_statistics=True, compile=True)
    added = {"frozen_stages": 1, "recompute_statistics": True}
    assert on.determinants() == Recipe().determinants() | added


def test_the_recipes_of_all_papers_are_valid():
    """They are checked when they are made; here also when they come from JSON."""
    for name in papers.names():
        for row in papers.get(name).rows:
            for made in row.recipes.values():
                again = Recipe.of(json.loads(json.dumps(made.as_dict())))
                assert again == made
