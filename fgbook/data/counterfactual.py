"""The same picture, had one thing been another: pairs for experiments on what a network
sees.

    scene = Scene(fieldguide.keys(0, "target", "test", index))
    edits = [{"throat": 1}, {"background": 3}]
    made = counterfactual(scene, table.of(label), edits, size=73)
    made.images     # (B, 3, 3, S, S): as it is, with another throat, elsewhere
    made.changed()  # (B, 3, S, S): which pixels differ from the first

An attribute of the bird is drawn on the bird and nowhere else; what is chosen of the
scene leaves the bird as it is. All else, down to the sensor's noise, is a function of
the scene, so that pixels which the edit does not reach are equal bit by bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError, unknown
from . import fieldguide
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
        shots[place] = fieldguide.shots(other, birds, one, size)

    together = fieldguide.shots(scene, birds, torch.stack(values, 1), size)
    images = [shot.images for shot in shots.values()]
    masks = [shot.masks for shot in shots.values()]
    order = torch.tensor([*on_bird, *shots]).argsort()
    return Made(
        torch.cat([together.images, *images], 1)[:, order],
        torch.cat([together.masks, *masks], 1)[:, order],
    )


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
