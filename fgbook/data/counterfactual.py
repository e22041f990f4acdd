"""The same picture, had one thing been another: pairs for experiments on what a network
sees.

    scene = Scene(fieldguide.keys(0, "target", "test", index))
    edits = [{"throat": 1}, {"background": 3}]
    made = counterfactual(scene, table.of(label), edits, size=73)
    made.images     # (B, 3, 3, S, S): as it is, with another throat, elsewhere
    made.changed()  # (B, 3, S, S): which pixels differ from the first

An attribute of the bird is drawn on the bird and nowhere else; what is chosen of the
scene leaves the bird as it is. All else, down to the sensor's noise, is a function of
the scene, so that pixels which the edit does not reach are equal bit by bit. They are
therefore not drawn again: of a bird with another throat only the throat is.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError, unknown
from . import fieldguide
from .drawing import Bird
from .scenery import DISTRACTORS, Scene
from .species import ATTRIBUTES, LOCAL, SIBLINGS, WORDS, Species

Edit = Mapping[str, int | Tensor]
"""What is changed, by name, and into what: one value for all pictures or one for each,
(B,) int64. Names are those of LOCAL (values: places in WORDS) and of DISTRACTORS.
"""

CHOICES = {name: len(WORDS[name]) for name in LOCAL} | DISTRACTORS
"""Everything that can be changed, and how many values it has."""


class Made(fieldguide.Shots):
    """B scenes, each drawn as it is and then with each of K edits: images (B, 1 + K, 3,
    S, S) and masks (B, 1 + K, S, S), the visible bird.
    """

    def changed(self) -> Tensor:
        """Pixels that differ from the picture as it is, (B, 1 + K, S, S) bool."""
        return (self.images != self.images[:, :1]).any(2)


def counterfactual(
    scene: Scene, birds: Species, edits: Sequence[Edit], size: int
) -> Made:
    """B scenes as they are, and with each edit, in pixels of `size` x `size`.

    The frame stays that of the bird's genus. Raises InputError for something that
    cannot be changed, and for a value that it does not have.
    """
    for edit in edits:
        _check(edit)
    shots: dict[int, fieldguide.Shots] = {}
    on_bird = [0]
    values = [birds.values]
    for place, edit in enumerate(edits, 1):
        if set(edit) <= set(LOCAL):
            on_bird.append(place)
            values.append(_edited(birds.values, edit))
            continue
        of_scene = {name: edit[name] for name in edit if name in DISTRACTORS}
        other = replace(
            scene,
            **{
                name: torch.as_tensor(value).to(scene.key).expand(len(scene))
                for name, value in of_scene.items()
            },
        )
        bird = {name: edit[name] for name in edit if name in LOCAL}
        one = _edited(birds.values, bird)[:, None]
        shots[place] = drawn(other, birds, one, size)

    together = drawn(scene, birds, torch.stack(values, 1), size)
    images = [shot.images for shot in shots.values()]
    masks = [shot.masks for shot in shots.values()]
    order = torch.tensor([*on_bird, *shots]).argsort()
    return Made(
        torch.cat([together.images, *images], 1)[:, order],
        torch.cat([together.masks, *masks], 1)[:, order],
    )


# ---- drawing


def drawn(scene: Scene, birds: Species, values: Tensor, size: int) -> fieldguide.Shots:
    """The same B scenes with K birds each, whose attributes are values (B, K, A) and
    differ in local ones only: what a scene has behind and in front of the bird is drawn
    once, and of all birds but the first no more than what differs from that.
    """

    def draw(some: slice) -> fieldguide.Shots:
        stage = fieldguide.Stage(scene.part(some), birds.part(some), size)
        own, *others = values[some].unbind(1)
        image, mask = stage.shoot(own)
        made = [(image, mask)]
        for other in others:
            made.append(_retouched(stage, own, other, image, mask))
        images, masks = zip(*made, strict=True)
        return fieldguide.Shots(torch.stack(images, 1), torch.stack(masks, 1))

    return fieldguide.in_blocks(draw, scene, size)


def _retouched(
    stage: fieldguide.Stage, own: Tensor, other: Tensor, image: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``stage.shoot(other)`` gives, from what it gave of birds that differ in some
    local attributes, own and other (B, A): image (B, 3, S, S), mask (B, S, S).
    """
    rows, columns = _window(stage, own, other, mask.shape[-1])
    some, masks = _part(stage, rows, columns).shoot(other)
    image, mask = image.clone(), mask.clone()
    each = torch.arange(len(mask), device=mask.device)[:, None, None]
    # indices around a slice give its dimension the last place
    image[each, :, rows[:, :, None], columns[:, None]] = some.permute(0, 2, 3, 1)
    mask[each, rows[:, :, None], columns[:, None]] = masks
    return image, mask


def _window(
    stage: fieldguide.Stage, own: Tensor, other: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The rows (B, h) and columns (B, w) of the pixels in which birds of these
    attributes (B, A) can differ: a window of the same sides for all of them, and a
    pixel more to each side.
    """
    local = [ATTRIBUTES.index(name) for name in LOCAL]
    differ = (own != other)[:, local, None]  # (B, len(LOCAL), 1)
    here, there = (Bird(values, stage.pose).areas() for values in (own, other))
    low = torch.minimum(here, there)[..., :2]
    high = torch.maximum(here, there)[..., 2:]
    boxes = fieldguide.pixel_boxes(stage, torch.cat([low, high], 2), size)
    # of what does not differ: no pixel, in the middle of nowhere
    first = torch.where(differ, boxes[..., :2], size).amin(1).floor() - 1  # (B, 2)
    last = torch.where(differ, boxes[..., 2:], 0).amax(1).ceil() + 1
    first, last = first.clamp(0, size).long(), last.clamp(0, size).long()

    window = []
    for axis in (1, 0):  # y, x
        side = int((last - first)[:, axis].amax().clamp(min=1))
        start = first[:, axis].clamp(max=size - side)
        window.append(start[:, None] + torch.arange(side, device=start.device))
    return window[0], window[1]


def _part(stage: fieldguide.Stage, rows: Tensor, columns: Tensor) -> fieldguide.Stage:
    """The stage as seen through windows with these rows (B, h) and columns (B, w)."""
    each = torch.arange(len(rows), device=rows.device)[:, None, None]

    def cut(maps: Tensor) -> Tensor:
        """(B, S, S) or (B, 3, S, S) -> the same of h x w."""
        if maps.ndim == 3:
            return maps[each, rows[:, :, None], columns[:, None]]
        return torch.stack([cut(channel) for channel in maps.unbind(1)], 1)

    part = copy.copy(stage)
    part.x, part.y, part.grain = cut(stage.x), cut(stage.y), cut(stage.grain)
    part.behind = cut(stage.behind)
    part.front = [
        layer._replace(
            cover=cut(layer.cover),
            light=None if layer.light is None else cut(layer.light),
        )
        for layer in stage.front
    ]
    part.camera = copy.copy(stage.camera)
    part.camera.noise = [cut(noise) for noise in stage.camera.noise]
    return part


# ---- edits


def _check(edit: Edit) -> None:
    for name, value in edit.items():
        if name not in CHOICES:
            raise unknown("thing to change in a picture", name, CHOICES)
        given = torch.as_tensor(value)
        whole = not given.is_floating_point() and given.dtype != torch.bool
        if not whole or ((given < 0) | (given >= CHOICES[name])).any():
            raise InputError(
                f"{name} has the values 0 to {CHOICES[name] - 1}, in whole numbers; got"
                f" {given.tolist()}."
            )


def _edited(values: Tensor, edit: Edit) -> Tensor:
    """Attributes (B, A) with those of the edit in place of their own."""
    values = values.clone()
    for name, value in edit.items():
        values[:, ATTRIBUTES.index(name)] = torch.as_tensor(value).to(values)
    return values


def sibling(label: Tensor, which: int) -> Tensor:
    """The species (B,) that differs from `label` (B,) in one attribute alone: the first
    (which 0) or the second (which 1) of the two in which its genus varies.
    """
    # siblings follow each other as (a, b), (a, b'), (a', b), (a', b')
    place = label % SIBLINGS
    return label - place + (place ^ (2 >> which))
