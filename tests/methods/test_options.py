"""Options of methods: names, types and ranges, from text, Python and records. And a
method is added with one file and one line."""

import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from fgbook import backbones, methods
from fgbook.errors import InputError
from fgbook.methods import (
    METHODS,
    Method,
    build,
    check_options,
    options_of,
    parse_option,
)
from fgbook.methods import method as contract
from fgbook.methods.options import describe, fitted, parse
from fgbook.recipe import Recipe

SMALL = Recipe(backbone="small", weights="none")
each_method = pytest.mark.parametrize("method", METHODS)


# ---- every option of every method


@each_method
def test_every_option_has_a_default_of_its_annotation(method):
    hints = typing.get_type_hints(METHODS[method].__init__)
    for name, default in options_of(method).items():
        assert fitted(default, hints[name]) == default


@each_method
def test_every_default_is_read_back_from_its_text(method):
    for name, default in options_of(method).items():
        text = ",".join(map(str, default)) if isinstance(default, tuple) else default
        assert parse_option(method, name, str(text)) == default


@each_method
def test_variants_are_options(method):
    for options in METHODS[method].VARIANTS:
        assert check_options(method, options) == options


@each_method
def test_checking_leaves_the_random_numbers_as_they_were(method):
    before = torch.random.get_rng_state()
    check_options(method, {})
    assert torch.equal(torch.random.get_rng_state(), before)


@each_method
def test_an_option_that_no_method_has_is_told(method):
    with pytest.raises(InputError, match=f"unknown option of {method} 'tresh'"):
        parse_option(method, "tresh", "0.3")
    with pytest.raises(InputError, match=f"unknown option of {method} 'tresh'"):
        build(method, 5, SMALL, {"tresh": 0.3})
    with pytest.raises(InputError, match=f"unknown option of {method} 'tresh'"):
        check_options(method, {"tresh": 0.3})


@each_method
def test_what_the_recipe_says_is_no_option(method):
    for name in METHODS[method].from_recipe:
        assert name not in options_of(method)
        with pytest.raises(InputError, match=f"set the recipe's {name}"):
            parse_option(method, name, "2")


# ---- text and values


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "4", 4),
        (int, " -4 ", -4),
        (float, "0.3", 0.3),
        (float, "1e-3", 0.001),
        (float, "2", 2.0),
        (bool, "true", True),
        (bool, "False", False),
        (str, "max", "max"),
        (int | None, "none", None),
        (int | None, "3", 3),
        (str | None, "None", None),
        (str | int, "3", 3),
        (str | int, "three", "three"),
        (tuple[int, ...], "8", (8,)),
        (tuple[int, ...], "8, 16", (8, 16)),
        (tuple[int, ...], "(8, 16)", (8, 16)),
        (tuple[float, ...], "[1, 0.5,]", (1.0, 0.5)),
    ],
)
def test_text_becomes_what_the_annotation_says(kind, text, value):
    found = parse(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "4.0"),
        (int, "four"),
        (int, ""),
        (float, "nan"),
        (float, "inf"),
        (float, "x"),
        (bool, "1"),
        (bool, "maybe"),
        (int, "none"),
        (int | None, "nothing"),
        (tuple[int, ...], "8,a"),
        (tuple[int, ...], ""),
    ],
)
def test_text_of_another_type_is_refused(kind, text):
    with pytest.raises(ValueError, match=re.escape(describe(kind))):
        parse(text, kind)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (float, 1, 1.0),
        (int, np.int64(3), 3),
        (float, np.float32(0.5), 0.5),
        (bool, np.bool_(True), True),
        (tuple[int, ...], [8, 16], (8, 16)),
        (int | None, None, None),
    ],
)
def test_values_of_python_and_records_become_what_the_annotation_says(
    kind, given, value
):
    found = fitted(given, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (int, True),
        (int, 3.0),
        (int, "3"),
        (float, True),
        (float, float("nan")),
        (float, 10**400),
        (bool, 1),
        (str, 1),
        (int, None),
        (tuple[int, ...], 8),
        (tuple[int, ...], [8.5]),
    ],
)
def test_values_of_another_type_are_refused(kind, given):
    with pytest.raises(ValueError, match=re.escape(describe(kind))):
        fitted(given, kind)


def test_a_wrong_type_is_told_with_what_is_expected_and_the_default():
    message = r"focus: m must be a whole number \(default 6\); got 'x'"
    with pytest.raises(InputError, match=message):
        parse_option("focus", "m", "x")
    with pytest.raises(InputError, match=message):
        build("focus", 5, SMALL, {"m": "x"})


def test_near_names_are_told():
    with pytest.raises(InputError, match="unknown method 'focsu'; did you mean"):
        build("focsu", 5, SMALL, {})
    with pytest.raises(InputError, match="unknown method 'focsu'; did you mean"):
        check_options("focsu", {})
    with pytest.raises(InputError, match="did you mean 'threshold'"):
        parse_option("focus", "tresh", "0.3")


def test_a_range_is_the_constructors_to_judge():
    with pytest.raises(InputError, match="l is 4 and m is 2"):
        check_options("focus", {"m": 2})
    with pytest.raises(InputError, match="box 1.5"):
        check_options("focus", {"box": 1.5})


def test_a_range_can_hang_on_the_recipe():
    with pytest.raises(InputError, match="4 levels are asked for"):
        check_options("levels", {"levels": 4}, SMALL)
    mobile = SMALL.but(backbone="mobilenet_v2")
    assert check_options("levels", {"levels": 4}, mobile) == {"levels": 4}
    with pytest.raises(InputError, match="at 40 px"):
        check_options("simple", {"filters": [2] * 6}, SMALL.but(image_size=40))


def test_checked_options_are_of_their_types():
    assert check_options("simple", {"filters": [8, 16]}) == {"filters": (8, 16)}
    found = check_options("focus", {"box": 1})["box"]
    assert type(found) is float


class Peeking(Method):
    """Reads a value of a weight in its constructor."""

    def __init__(self, backbone, num_classes, *, limit: float = 2.0):
        super().__init__()
        self.backbone = backbone
        self.image_head = torch.nn.Linear(backbone.channels, num_classes)
        if self.image_head.weight.max().item() > limit:
            raise InputError("the limit is too low")


def test_a_constructor_that_looks_at_values_can_be_checked_too(monkeypatch):
    monkeypatch.setitem(METHODS, "peeking", Peeking)
    before = torch.random.get_rng_state()
    assert check_options("peeking", {"limit": 1}) == {"limit": 1.0}
    with pytest.raises(InputError, match="too low"):
        check_options("peeking", {"limit": -1.0})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_check_builds_nothing_of_size(monkeypatch):
    made = []
    create = backbones.create

    def watched(name, weights):
        made.append(create(name, weights))
        return made[-1]

    monkeypatch.setattr(backbones, "create", watched)
    check_options("attention", {"margin": 0.5}, SMALL.but(backbone="resnet18"))
    (backbone,) = made
    assert all(parameter.is_meta for parameter in backbone.parameters())


# ---- a new method


def example() -> str:
    """The smallest method, as the contract's page prints it."""
    text = contract.__doc__.split("The smallest one::")[1]
    imports = (
        "import torch.nn.functional as F",
        "from fgbook.backbones import Backbone",
        "from fgbook.methods import METHODS, Method",
        "from fgbook.methods.heads import linear",
    )
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    return "\n".join([*imports, *lines, 'METHODS["blurred"] = Blurred', ""])


def test_the_printed_example_is_a_method(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", dict(METHODS))
    exec(example(), {})
    assert options_of("blurred") == {"side": 3}
    model = build("blurred", 5, SMALL, {"side": 5})
    assert model(torch.rand(2, 3, 40, 40))["image"].shape == (2, 5)
    assert model.predict(torch.rand(2, 3, 40, 40)).shape == (2, 5)


def test_one_file_and_one_line_bring_the_tests_of_all_methods(tmp_path):
    (tmp_path / "blurred.py").write_text(example())
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "blurred"]
    files = [tests / "methods" / "test_methods.py", tests / "explain" / "test_cam.py"]
    found = subprocess.run(
        [*command, *map(str, files), "-k", "blurred"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=tests.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    default = [line for line in lines if "::" in line and "blurred-default" in line]
    other = [line for line in lines if "::" in line and "blurred-side=5" in line]
    assert len(default) >= 20
    assert len(other) == len(default)
