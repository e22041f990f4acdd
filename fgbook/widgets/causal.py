"""A drawn bird with one thing changed: what the network names it, and where the maps
look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..evaluation import causal
from ..evaluation.causal import EDITS, Experiment
from ..explain import Explanation
from ..explain.classes import logits_of
from ..figures.causal import only
from ..images.light import lit
from ..methods import Method
from .piece import Choice, Frame, Piece
from .tiles import Marks, Picture, Tile, tiles
from .words import share

AS_IT_IS = "nothing"
CHANGES = (
    AS_IT_IS,
    "what tells it from a sibling",
    "what tells it from another one",
    "what tells nothing",
    "the perch",
    "the background",
)


def change(
    model: Method,
    pairs: Experiment,
    explanations: Mapping[str, Explanation],
    names: Sequence[str],
    in_page: Sequence[int],
) -> Piece:
    """Scenes of an experiment, one thing changed in each, and maps of the class that
    the network names (by name of what explains it). names: of the species; in_page:
    scenes that a page has frames for. Raises InputError for one that is not there.
    """
    count = len(pairs.labels)
    for scene in in_page:
        if not 0 <= scene < count:
            raise InputError(
                f"there is no scene {scene}; {count} are drawn, so take numbers from 0"
                f" to {count - 1}, or draw more scenes."
            )
    birds = []
    for scene, label in enumerate(pairs.labels.tolist()):
        birds.append(f"{scene + 1}: {names[label]}")

    @torch.no_grad()
    def frame(bird: str, changed: str) -> Frame:
        scene = birds.index(bird)
        edit = edit_of(pairs, scene, changed)
        one = only(pairs, torch.tensor([scene]))
        outline = box_of(one.changed[0, edit]) if edit else torch.zeros(0, 4)
        one = replace(one, images=one.images[:, edit : edit + 1])
        device = next(model.parameters()).device
        logits = logits_of(model, one.views(torch.tensor([0])).to(device))
        probability, named = logits.float().softmax(1).cpu()[0].max(0)
        image = one.images[0, 0].float() / 255
        what = "unchanged" if edit == 0 else f"other {EDITS[edit - 1]}"
        found = [
            Tile(
                Picture(image), f"{bird}, {what}", (Marks(outline, "#F0E442"),), (what,)
            )
        ]
        for name, explanation in explanations.items():
            maps = causal.explained(model, one, explanation, named[None])
            alt = f"{bird}, {what}, lit by {name}"
            found.append(Tile(Picture(lit(image, maps[0])), alt, (), (name,)))
        says = f"{what}: named {names[int(named)]} with {share(float(probability))}."
        return Frame(tiles(found, len(found)), says[0].upper() + says[1:])

    shown = tuple(birds[scene] for scene in in_page)
    return Piece(
        "A bird with one thing changed",
        "One thing of a drawn picture is changed; the changed pixels lie in the yellow"
        " box. Beside it the maps of the class that is named, each on its own scale.",
        (
            Choice("bird", "bird", tuple(birds), shown[0], in_page=shown),
            Choice("changed", "change", CHANGES, AS_IT_IS),
        ),
        frame,
    )


def edit_of(pairs: Experiment, scene: int, changed: str) -> int:
    """Which picture of a scene shows a change: 0 is as it is."""
    told = pairs.telling[scene].tolist()
    idle = next(k for k in range(1, len(EDITS) + 1) if k not in told)
    pictures = (0, *told, idle, len(EDITS) - 1, len(EDITS))
    return pictures[CHANGES.index(changed)]


def box_of(mask: Tensor) -> Tensor:
    """The box round the pixels of a mask (S, S) bool: (1, 4), or (0, 4) without any."""
    y, x = mask.nonzero(as_tuple=True)
    if not len(y):
        return torch.zeros(0, 4)
    return torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
