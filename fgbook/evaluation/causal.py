"""Explanations judged by experiment: draw the same picture with one thing changed, see
whether the network notices, and whether the explanation pointed there.

    from fgbook.evaluation import causal
    from fgbook.figures import causal as drawn

    pairs = causal.experiment(size=73, count=100)  # drawn, nothing to download
    mine = {"mine": lambda images, classes: my_maps(images, classes)}  # (B, h, w)
    drawn.maps_table({"my network": [causal.score(my_network, pairs, mine)]})

`my_network` is any module that gives (B, 20) logits for images (B, 3, S, S) in [0, 1],
trained on fieldguide. Four questions:

1. Does the prediction follow (`reactions`)? Of the pairs in which the network names the
   first picture rightly, and the attribute that tells it from a sibling is changed and
   can be seen: the share in which it then names the sibling. And how often a change
   that tells nothing moves the prediction.
2. Does the explanation point there (`score`)? Where the prediction does follow, the
   changed pixels are its cause, by experiment and not by opinion: the measures of
   :mod:`fgbook.evaluation.blame` on these.
3. Does it notice a shortcut? The share of a map on the pixels that another background
   changes (`ground`), for networks that were trained with and without one.
4. Does it know what matters how much (`effects`)? Spearman's rank correlation, over all
   things that can be changed in one picture, of the share of the map that lies on the
   pixels of each with the change of the class's log-odds when it is changed.

All pictures that are compared were drawn, none is made of patches: a network sees
nothing of a kind that it was not trained on, but for attributes that no species of its
genus has. Question 1 to 3 use none of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import fieldguide, species
from ..data.counterfactual import CHOICES, counterfactual, sibling
from ..data.scenery import Nuisance, Scene
from ..errors import InputError
from ..explain import Explanation, offered
from ..explain.classes import logits_of
from ..images.augment import centre_offset
from ..methods import Method
from ..recipe import Recipe
from .blame import agreement, blame, controls, energy, positive, random_box

VERSION = 1
"""Raised when scores change: other scenes, edits, measures or explanations."""

SPECIES = 20
BATCH = 64
EDITS = (*species.LOCAL, "perch", "background")
"""What is changed in every scene, one after the other."""


# ---- the experiment


@dataclass(frozen=True)
class Experiment:
    """N scenes, each as it is and with each of K = len(EDITS) edits, in S x S pixels.

    Of the attributes that tell siblings apart, the edit makes the sibling; any other
    gets the next of its values. The background becomes the one that a shortcut plants
    for a sibling (:func:`fgbook.data.fieldguide.planted`).
    """

    labels: Tensor  # (N,) int64
    siblings: Tensor  # (N, 2) that differ in the first and in the second contrast only
    telling: Tensor  # (N, 2) which pictures show these siblings, from 1
    planted: Tensor  # (N,) the sibling whose background the last picture has
    images: Tensor  # (N, 1 + K, 3, S, S) uint8
    changed: Tensor  # (N, 1 + K, S, S) bool: pixels that differ from the first picture
    birds: Tensor  # (N, S, S) bool: the bird in the first picture

    def __len__(self) -> int:
        return len(self.labels)

    def views(self, index: Tensor) -> Tensor:
        """The pictures as they are, of the scenes at `index`, in [0, 1]."""
        return self.images[index, 0].float() / 255


def experiment(
    size: int = 73, count: int = 32, store: int | None = None, seed: int = 0
) -> Experiment:
    """The first `count` scenes of fieldguide's test split, the very pictures, and what
    becomes of each.

    They are drawn at `store` pixels (None: `size`) and cut to the `size` in the middle,
    as evaluation sees them. Raises InputError for no scenes, or a store too small.
    """
    store = size if store is None else store
    if count < 1 or store < size:
        raise InputError(
            f"an experiment needs at least 1 scene, got {count}, drawn at no less than"
            f" the {size} pixels that are seen, got {store}."
        )
    table = species.table("target", SPECIES)
    index = torch.arange(count)
    labels = index % SPECIES
    scene = Scene(fieldguide.keys(seed, "target", "test", index))
    birds = table.of(labels)
    kin = torch.stack([sibling(labels, which) for which in (0, 1)], 1)

    edits = []
    for name in species.LOCAL:
        own = birds.values[:, species.ATTRIBUTES.index(name)].long()
        value = (own + 1) % CHOICES[name]
        for which in (0, 1):
            tells = birds.differ[:, which] == species.LOCAL.index(name)
            other = table.values[kin[:, which], species.ATTRIBUTES.index(name)].long()
            value = torch.where(tells, other, value)
        edits.append({name: value})

    nuisance = Nuisance(scene)
    # of the first sibling, unless the bird sits there already
    grounds = fieldguide.planted(kin)  # (N, 2)
    second = (grounds[:, 0] == nuisance.background).long()[:, None]
    edits.append({"perch": (nuisance.bark + 1) % CHOICES["perch"]})
    edits.append({"background": grounds.gather(1, second)[:, 0]})

    made = counterfactual(scene, birds, edits, store)
    start = centre_offset(store, size)
    middle = slice(start, start + size)
    images = made.images[..., middle, middle]
    return Experiment(
        labels=labels,
        siblings=kin,
        telling=birds.differ + 1,
        planted=kin.gather(1, second)[:, 0],
        images=images,
        changed=(images != images[:, :1]).any(2),
        birds=made.masks[:, 0, middle, middle] > 0,
    )


def of(recipe: Recipe, count: int) -> Experiment:
    """The experiment in the sizes that a recipe's networks are tested at."""
    return experiment(recipe.image_size, count, recipe.store_size)


# ---- 1: does the prediction follow?


@torch.no_grad()
def answers(model: nn.Module, pairs: Experiment) -> Tensor:
    """The logits of every picture, (N, 1 + K, C), on the cpu. Raises InputError for a
    network that does not know fieldguide's species.
    """
    device = next(model.parameters()).device
    logits = []
    for images in pairs.images.flatten(0, 1).split(BATCH):
        seen = images.to(device).float() / 255
        logits.append(logits_of(model, seen).float().cpu())
    found = torch.cat(logits)
    if found.shape[1] != SPECIES:
        raise InputError(
            f"the network tells {found.shape[1]} classes; the experiment is about the"
            f" {SPECIES} species of fieldguide: train it on that data set."
        )
    return found.unflatten(0, pairs.images.shape[:2])


def reactions(logits: Tensor, pairs: Experiment) -> dict[str, Tensor]:
    """What the network does, for each scene a share (N,), NaN where there is nothing to
    see: from logits (N, 1 + K, C).

    right: it names the picture as it is. follows: where right, of the telling edits
    those that make it name the sibling. other: of the attributes that tell nothing,
    those that move the prediction. perch, background: whether this moves it. planted:
    whether another background makes it name the sibling for which a shortcut plants it.
    """
    named = logits.argmax(2)  # (N, 1 + K)
    visible = pairs.changed.flatten(2).any(2)
    moved = torch.where(visible, (named != named[:, :1]).float(), torch.nan)
    right = named[:, 0] == pairs.labels

    seen = visible.gather(1, pairs.telling) & right[:, None]
    to_sibling = causes(logits, pairs).float()
    # attributes that tell nothing: all but two
    tells = torch.zeros_like(visible).scatter(1, pairs.telling, True)
    idle = moved.masked_fill(tells, torch.nan)[:, 1 : 1 + len(species.LOCAL)]
    to_planted = (named[:, -1] == pairs.planted).float()
    return {
        "right": right.float(),
        "follows": torch.where(seen, to_sibling, torch.nan).nanmean(1),
        "other": idle.nanmean(1),
        "perch": moved[:, -2],
        "background": moved[:, -1],
        "planted": torch.where(visible[:, -1], to_planted, torch.nan),
    }


def causes(logits: Tensor, pairs: Experiment) -> Tensor:
    """Where the prediction follows: the picture is named rightly, and with the telling
    attribute changed it is named as the sibling. (N, 2) bool.
    """
    named = logits.argmax(2)
    right = named[:, :1] == pairs.labels[:, None]
    return right & (named.gather(1, pairs.telling) == pairs.siblings)


# ---- 4: what matters how much


def effects(logits: Tensor, pairs: Experiment) -> Tensor:
    """How far each edit moves the log-odds of the class that is named, up or down: (N,
    K), NaN where no pixel has changed.
    """
    moved = moved_odds(logits)
    return torch.where(pairs.changed[:, 1:].flatten(2).any(2), moved, torch.nan)


def moved_odds(logits: Tensor) -> Tensor:
    """How far the log-odds of the class that is named first are moved: logits (N, 1 +
    K, C) -> (N, K), not negative.
    """
    named = logits[:, :1].argmax(2, keepdim=True)  # (N, 1, 1)
    named = named.expand(-1, logits.shape[1], -1)
    of_class = logits.gather(2, named)[..., 0]
    others = logits.scatter(2, named, -torch.inf).logsumexp(2)
    odds = of_class - others  # (N, 1 + K)
    return (odds[:, 1:] - odds[:, :1]).abs()


# ---- 2 to 4: does the explanation know?


@dataclass(frozen=True)
class Scores:
    """What was found of one network; for each scene a number (N,), or NaN.

    network: the :func:`reactions`. effects: (N, K), as :func:`effects`. maps: of each
    explanation, and of maps that know nothing (`controls`), by name: "energy",
    "pointing", "rank" and "within" on the causes, mean over a scene's; "ground", the
    energy on the pixels that another background changes; "effects".
    """

    network: dict[str, Tensor]
    maps: dict[str, dict[str, Tensor]]
    controls: dict[str, dict[str, Tensor]]
    effects: Tensor
    refused: dict[str, str] = field(default_factory=dict)  # explanation -> why not


def score(
    model: nn.Module,
    pairs: Experiment,
    explanations: Mapping[str, Explanation],
    batch: int = 16,
) -> Scores:
    """Judge the explanations of a network, each by its name. They explain the class
    that the network names, in evaluation mode, `batch` pictures at a time.

    Raises InputError for a map that is not finite or not of the images' number, and for
    a network that does not know fieldguide's species.
    """
    model.eval()
    logits = answers(model, pairs)
    cause, effect = causes(logits, pairs), effects(logits, pairs)
    maps = {
        name: explained(model, pairs, explanation, logits[:, 0].argmax(1), batch)
        for name, explanation in explanations.items()
    }
    everything = torch.arange(len(pairs))
    blind = controls(pairs.views(everything), pairs.birds)
    found = {name: judged(each, pairs, cause, effect) for name, each in maps.items()}
    known = {name: judged(each, pairs, cause, effect) for name, each in blind.items()}

    boxes = []  # one for each cause, as large as it
    for which in (0, 1):
        of_cause = pairs.changed[everything, pairs.telling[:, which]]
        one = torch.zeros_like(cause)
        one[:, which] = cause[:, which]
        boxes.append(judged(random_box(of_cause), pairs, one, effect))
    known["random box"] = _mean(boxes)
    return Scores(reactions(logits, pairs), found, known, effect)


def judge(model: Method, pairs: Experiment) -> Scores:
    """:func:`score` of all explanations that a model of this package can be given or
    gives itself.
    """
    device = next(model.parameters()).device
    first = pairs.views(torch.arange(1)).to(device)
    explanations, refused = offered(model.eval(), first)
    return replace(score(model, pairs, explanations), refused=refused)


def _mean(both: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of two dictionaries of numbers (N,) the mean, of what there is."""
    return {
        name: torch.stack([one[name] for one in both]).nanmean(0) for name in both[0]
    }


def explained(
    model: nn.Module,
    pairs: Experiment,
    explanation: Explanation,
    classes: Tensor,
    batch: int = 16,
) -> Tensor:
    """The maps of an explanation for the pictures as they are and the classes (N,),
    over the pixels: (N, S, S), on the cpu.
    """
    device = next(model.parameters()).device
    size = pairs.images.shape[-1]
    maps = []
    for index in torch.arange(len(pairs)).split(batch):
        found = explanation(pairs.views(index).to(device), classes[index].to(device))
        fits = isinstance(found, Tensor) and found.ndim == 3
        if not fits or len(found) != len(index) or not found.isfinite().all():
            shape = tuple(found.shape) if isinstance(found, Tensor) else found
            raise InputError(
                f"an explanation gives maps ({len(index)}, h, w) of finite numbers for"
                f" {len(index)} images; got {shape}."
            )
        found = found.detach().float().cpu()
        if found.shape[1:] != (size, size):
            found = F.interpolate(found[:, None], (size, size), mode="bilinear")[:, 0]
        maps.append(found)
    return torch.cat(maps)


def judged(
    maps: Tensor, pairs: Experiment, cause: Tensor, effect: Tensor
) -> dict[str, Tensor]:
    """The measures of `Scores.maps` for maps (N, S, S), given which telling edits are
    causes (N, 2) and what each edit moves (N, K).
    """
    scenes = torch.arange(len(pairs))
    on_cause = []
    for which in (0, 1):
        pixels = pairs.changed[scenes, pairs.telling[:, which]]
        on_cause.append(blame(maps, pixels & cause[:, which, None, None], pairs.birds))
    found = _mean(on_cause)

    maps = positive(maps)
    shares = [energy(maps, pixels) for pixels in pairs.changed[:, 1:].unbind(1)]
    assigned = torch.stack(shares, 1)  # (N, K)
    ground_there = pairs.changed[:, -1].flatten(1).any(1)
    found["ground"] = torch.where(ground_there, assigned[:, -1], torch.nan)
    found["effects"] = agreement(assigned, effect)
    return found
