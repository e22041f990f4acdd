"""Diagrams of methods say what the code does, and can be read on a page."""

import re
from functools import cache
from itertools import pairwise

import pytest
import torch
from matplotlib import font_manager
from PIL import ImageFont

from fgbook import papers
from fgbook.figures import diagrams
from fgbook.figures.diagrams import draw, glyphs, layout
from fgbook.figures.diagrams.routing import Rect
from fgbook.methods import METHODS, build
from fgbook.recipe import Recipe

CLASSES = 5
WAYS = tuple(layout.GAP)
OF_METHODS = {
    name: diagram for name, diagram in diagrams.DRAWINGS.items() if diagram.method
}
# A phone of 390 px has this much room, and text must not shrink much below its size.
PHONE = 360
PAGES = {"light": (255, 255, 255), "dark": (18, 18, 18)}
ACCENTS = (glyphs.LEARNS, glyphs.LOOKS, glyphs.TOLD)
each_method = pytest.mark.parametrize("name", OF_METHODS)
each_diagram = pytest.mark.parametrize("name", diagrams.DRAWINGS)


# ---- true: against the method itself


def made(diagram, options):
    """The method, small and with other weights than those it starts with: where these
    are 0, nothing behind them would learn or matter.
    """
    torch.manual_seed(0)
    options = dict(options)
    fields = {"image_size": 48, "views": options.pop("views", 1)}
    backbone = "none" if METHODS[diagram.method].own_network else "small"
    recipe = Recipe(backbone=backbone, weights="none", **fields)
    model = build(diagram.method, CLASSES, recipe, options, torch.rand(CLASSES, 9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, 48, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) // 2


def parameters(model, node):
    """By name, those of the parts of the model that a node stands for."""
    own = dict(model.named_parameters())
    found = {}
    for module in node.module.split():
        inside = {
            name: value
            for name, value in own.items()
            if name == module or name.startswith(f"{module}.")
        }
        found |= inside
    return found


def parts(model, diagram):
    """Everything that the diagram shows of the model: part -> (its nodes, parameters).

    Nodes of the same part are one: the backbone that looks again.
    """
    found = {}
    for name, node in diagram.nodes.items():
        if node.module:
            nodes, _ = found.get(node.module, (set(), {}))
            found[node.module] = (nodes | {name}, parameters(model, node))
    return found


def taught(model, value):
    """Names of the parameters that a gradient of this reaches."""
    model.zero_grad(set_to_none=True)
    value.backward(retain_graph=True)
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }


@cache
def losses_of(name):
    """Loss -> (the model, the loss), over all options of a diagram."""
    diagram = OF_METHODS[name]
    images, targets = batch()
    found = {}
    for options in diagram.options:
        model = made(diagram, options).train()
        torch.manual_seed(3)
        for loss, value in model.losses(model(images, targets), targets).items():
            found[loss] = (model, value)
    return found


def test_every_method_and_every_row_of_the_comparison_has_a_diagram():
    assert {one.method for one in OF_METHODS.values()} == set(METHODS)
    drawn = {(one.method, tuple(one.options[0])) for one in OF_METHODS.values()}
    rows = {
        row.name: row
        for row in papers.get("compare").rows
        # the same diagram, on other networks
        if row.name not in ("dinov2", "vit")
    }
    assert set(rows) <= set(diagrams.DRAWINGS)
    for name, row in rows.items():
        assert OF_METHODS[name].method == row.method
    # what an option makes another method
    assert ("probe", ("k",)) in drawn
    assert ("bilinear", ("sketch",)) in drawn


@each_method
def test_the_losses_are_those_of_the_method(name):
    diagram = OF_METHODS[name]
    expected = set(losses_of(name))
    if diagram.values.get("k") and diagram.method == "probe":
        expected = set()  # neighbours are kept, not trained
    assert set(diagram.losses) == expected


@each_method
def test_a_loss_teaches_what_its_arrows_come_from(name):
    """A gradient comes back along arrows without a bar, and along no other."""
    diagram = OF_METHODS[name]
    for loss, node in diagram.losses.items():
        model, value = losses_of(name)[loss]
        found = taught(model, value) if value.requires_grad else set()
        drawn = diagram.before(node, gradient=True)
        for part, (nodes, own) in parts(model, diagram).items():
            learns = bool(found & set(own))
            assert learns == bool(nodes & drawn), f"{loss} loss and {part}"
        shown = {one for _, own in parts(model, diagram).values() for one in own}
        assert found <= shown, f"{loss} loss teaches what is not drawn"


@each_method
def test_what_is_solid_is_what_the_prediction_needs(name):
    """Other weights give another prediction (or another region) if, and only if, their
    node acts at test time; and the prediction's own gradient follows the arrows.
    """
    diagram = OF_METHODS[name]
    model = made(diagram, diagram.options[-1]).eval()
    images, _ = batch()
    before = model.predict(images)
    drawn = diagram.before("prediction", gradient=True)
    found = taught(model, before.square().sum())
    for part, (nodes, own) in parts(model, diagram).items():
        assert bool(found & set(own)) == bool(nodes & drawn) or resting(own), part
        assert changes(model, own, images) == bool(nodes & diagram.at_test), part


def resting(own):
    """Whether a part of the model does not learn with these options."""
    return not any(parameter.requires_grad for parameter in own.values())


@torch.no_grad()
def changes(model, own, images):
    """Whether what a model says depends on these weights of its."""

    def said():
        shown = [model.predict(images)]
        if hasattr(model, "locate"):
            shown += model.locate(images).values()
        return torch.cat([one.flatten() for one in shown])

    before = said()
    kept = {name: parameter.clone() for name, parameter in own.items()}
    for seed in range(3):
        torch.manual_seed(seed)
        for parameter in own.values():
            parameter.add_(
                2 * parameter.std(correction=0) * torch.randn_like(parameter) + 0.5
            )
        changed = not torch.equal(before, said())
        for name, parameter in own.items():
            parameter.copy_(kept[name])
        if changed:
            return True
    return False


@each_method
def test_there_are_as_many_as_it_says(name):
    """Regions, maps and parts of the method with the options that are drawn."""
    diagram = OF_METHODS[name]
    model = made(diagram, diagram.options[-1]).eval()
    images, _ = batch()
    shapes = {
        "focus": lambda: ("regions", model.regions(images).shape[1]),
        "nts-net": lambda: ("regions", model.regions(images).shape[1]),
        "mmal": lambda: ("parts", model.regions(images).shape[1]),
        "wsdl": lambda: ("crops", len(model.locate(images))),
        "levels": lambda: ("boxes", len(model.locate(images))),
        "cal": lambda: ("attention", model._look(images)[1].shape[1]),
        "ma-cnn": lambda: ("part maps", model(images)["maps"].shape[1]),
    }
    if name in shapes:
        node, count = shapes[name]()
        assert diagram.count(node) == count
        assert str(count) in diagram.label(node) or name == "levels"
    for node, one in diagram.nodes.items():
        if one.kind == "jigsaw":
            assert f"{diagram.count(node)} × {diagram.count(node)}" in diagram.label(
                node
            )


# ---- readable


@cache
def planned(name, way):
    return layout.plan(diagrams.DRAWINGS[name], way)


@each_diagram
@pytest.mark.parametrize("way", WAYS)
def test_no_node_lies_on_another_or_outside(name, way):
    made = planned(name, way)
    wholes = {one: made.whole(one) for one in made.forms}
    for one, place in wholes.items():
        assert place.left >= 0 and place.top >= 0, one
        assert place.right <= made.width and place.bottom <= made.height, one
        for other, another in wholes.items():
            if one < other:
                assert not place.meets(another, apart=4), f"{one}, {other}"


@each_diagram
@pytest.mark.parametrize("way", WAYS)
def test_no_text_is_wider_than_what_it_stands_in(name, way):
    """By the metrics of the font, read with another library."""
    made = planned(name, way)
    for node, form in made.forms.items():
        room = form.whole.right - form.whole.left
        kind = diagrams.DRAWINGS[name].nodes[node].kind
        if kind not in glyphs.SIGNS:
            room -= 2 * 3  # from its line
        for line in form.lines:
            assert font(line.bold).getlength(line.text) / 10 <= room + 0.5, line.text
            assert form.whole.top < line.y < form.whole.bottom
        assert len(form.lines) <= 5, node


@cache
def font(bold):
    weight = "bold" if bold else "normal"
    wanted = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    return ImageFont.truetype(font_manager.findfont(wanted), 10 * layout.SIZE)


@each_diagram
@pytest.mark.parametrize("way", WAYS)
def test_arrows_go_round_what_they_do_not_belong_to(name, way):
    made = planned(name, way)
    for arrow, corners in made.routes.items():
        for (x, y), (u, v) in pairwise(corners):
            assert x == u or y == v
            stretch = Rect(min(x, u), min(y, v), max(x, u), max(y, v))
            for node in made.forms:
                if node not in (arrow.source, arrow.target):
                    assert not made.whole(node).meets(stretch), f"{arrow} and {node}"


@each_diagram
@pytest.mark.parametrize("way", WAYS)
def test_a_bar_stands_on_its_own_arrow_alone(name, way):
    """Where arrows share a line, it says nothing of the others."""
    made = planned(name, way)
    for arrow in made.routes:
        if arrow.stopped:
            (x, y), _ = draw.bars_at(made, arrow)
            for other, corners in made.routes.items():
                if not other.stopped:
                    for (a, b), (u, v) in pairwise(corners):
                        near = Rect(min(a, u), min(b, v), max(a, u), max(b, v))
                        assert not near.meets(Rect(x, y, x, y), 0.5) or a == u != x


@each_diagram
@pytest.mark.parametrize("way", WAYS)
def test_it_fits_a_page_with_text_of_11_pixels(name, way):
    made = planned(name, way)
    assert made.width <= (PHONE if way == "narrow" else layout.WIDEST["wide"])
    found = draw.svg(diagrams.DRAWINGS[name], way)
    sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', found)]
    least = float(re.search(r"min-width:(\d+)px", found)[1])
    assert min(sizes) * least / made.width >= 10.95


@each_diagram
def test_it_has_a_name_words_and_the_colours_of_the_theme(name):
    diagram = diagrams.DRAWINGS[name]
    html = diagrams.figure(diagram).html
    found = re.findall(
        r"<svg [^>]*role=\"img\"[^>]*><title>(.*?)</title><desc>(.*?)<", html
    )
    assert len(found) == 2
    for title, words in found:
        assert title == f"Diagram: {diagram.title}"
        assert len(words) > 40
    colours = set(re.findall(r'(?:fill|stroke|color)="([^"]+)"', html))
    assert colours <= {"none", "currentColor", *ACCENTS}
    names = re.findall(r' id="([^"]+)"', html)
    assert len(names) == len(set(names))


def test_accents_are_seen_on_both_grounds_and_told_apart_without_red_and_green():
    for accent in ACCENTS:
        for page in PAGES.values():
            assert contrast(rgb(accent), page) >= 3
    seen = [deuteranope(rgb(accent)) for accent in ACCENTS]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 50**2


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def linear(value):
    value /= 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def contrast(one, other):
    """As WCAG 2 defines it."""

    def luminance(colour):
        r, g, b = map(linear, colour)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def deuteranope(colour):
    """Machado, Oliveira and Fernandes 2009, severity 1, in linear light; 0 to 255."""
    matrix = (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    )
    light = [linear(value) for value in colour]
    seen = [sum(m * c for m, c in zip(row, light, strict=True)) for row in matrix]
    return [255 * max(0.0, min(1.0, value)) ** (1 / 2.2) for value in seen]
