"""What damage to images costs a network, and how far apart it holds the classes.

# {"clean": (n,), "jpeg": (5, n), ...}: right or wrong, image by image
found = corruption(model, data.test, recipe)
# the same, of a run that has been measured
found = answers(records.load_predictions(record))
# 100: as bad as that
mean_corruption_error(found, of_the_plain_backbone)
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import Split
from ..errors import InputError
from ..images import corruptions
from ..images.augment import centre
from ..methods import Method
from ..recipe import Recipe
from .heatmaps import sample

SEVERITIES = (1, 2, 3, 4, 5)

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
OCCLUSION = ("occlusion",)
DISTORTION = tuple(
    name for name in corruptions.NAMES if name not in (*NOISE, *OCCLUSION)
)
GROUPS = {"noise": NOISE, "occlusion": OCCLUSION, "distortion": DISTORTION}
"""Paper C speaks of noise, occlusion and distortion; the last are all others of the
suite.
"""

# of a test split that are damaged, in 60 ways each: always the same ones
IMAGES = {"quick": 64, "photo": 160, "paper": 1024}
TINY = 1e-12  # stands for a distance of 0 where a logarithm follows


# ---- damaged images


@torch.no_grad()
def corruption(
    model: Method,
    split: Split,
    recipe: Recipe,
    kinds: Sequence[str] = corruptions.NAMES,
    severities: Sequence[int] = SEVERITIES,
    *,
    images: int | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Which images are classified correctly: {"clean": (n,) bool, and for each kind:
    (severities, n) bool}.

    The n images are all of the split, or `images` of them, always the same ones, in the
    split's order (:func:`fgbook.evaluation.heatmaps.sample`). The centre crop is
    damaged, so that severities refer to what the network sees. The damage depends on
    (seed, kind, image) alone: networks are compared on the same pixels. In float32, on
    the model's device; leaves it in eval mode. Raises InputError for an empty split, an
    unknown kind, and a severity that is not 1 to 5.
    """
    if not len(split):
        raise InputError("there are no images to damage.")
    device = next(model.parameters()).device
    model.eval()
    chosen = sample(len(split), len(split) if images is None else images)

    found: dict[str, list[Tensor]] = {"clean": []}
    for kind in kinds:
        found[kind] = []
    for index in chosen.split(recipe.batch_size):
        views = centre(split.images[index].to(device), recipe.image_size)
        labels = split.labels[index].to(device)
        places = index.to(device)
        found["clean"].append(_right(model, views, labels))
        for kind in kinds:
            right = []
            for severity in severities:
                damaged = corruptions.corrupt(views, kind, severity, places, seed)
                right.append(_right(model, damaged, labels))
            found[kind].append(torch.stack(right))  # (severities, B)
    return {kind: torch.cat(parts, -1).cpu().numpy() for kind, parts in found.items()}


def _right(model: Method, images: Tensor, labels: Tensor) -> Tensor:
    """Which images (B, 3, s, s) are classified correctly: (B,) bool."""
    images = images.contiguous(memory_format=torch.channels_last)
    return model.predict(images).argmax(1) == labels


def measure(
    model: Method, split: Split, recipe: Recipe, images: int
) -> dict[str, np.ndarray]:
    """What is kept of `images` test images beside a record: arrays (N,) float32, NaN
    for all others, larger is better; and `damaged`.

    damaged (61, n) bool: all answers of :func:`corruption`, which :func:`answers`
    reads, of these n images alone. The others are per image:

    * robust_<kind>: share of the five severities at which the image is classified
      correctly;
    * robust_noise, robust_distortion: mean over the kinds of a group (GROUPS);
    * robust: mean over all kinds;
    * robust_change: robust, minus 1 where the undamaged image is classified correctly.

    A network that is better on all images alike has a higher `robust` but the same
    `robust_change`.
    """
    found = corruption(model, split, recipe, images=images)
    clean = found["clean"]  # (n,)
    shares = {kind: found[kind].mean(0) for kind in corruptions.NAMES}  # (n,) each

    means = {}
    for group, kinds in GROUPS.items():
        means[f"robust_{group}"] = np.mean([shares[kind] for kind in kinds], 0)
    means["robust"] = np.mean(list(shares.values()), 0)
    for kind, share in shares.items():
        means[f"robust_{kind}"] = share
    means["robust_change"] = means["robust"] - clean

    kept = {}
    for name, values in means.items():
        kept[name] = _spread(values, len(split), images)
    in_turn = [found[kind] for kind in corruptions.NAMES]
    kept["damaged"] = np.concatenate([clean[None], *in_turn])
    return kept


def answers(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The result of :func:`corruption` from what :func:`measure` keeps beside a record.
    Raises InputError where that was not measured.
    """
    if "damaged" not in kept:
        raise InputError(
            "this run was not measured on damaged images; run a row of a paper's file"
            " whose measures name 'robust'."
        )
    clean, rest = kept["damaged"][0], kept["damaged"][1:]
    by_kind = rest.reshape(-1, len(SEVERITIES), len(clean))
    # a run that was measured before a kind was added at the end has fewer
    return {"clean": clean} | dict(zip(corruptions.NAMES, by_kind, strict=False))


def mean_corruption_error(
    found: dict[str, np.ndarray],
    baseline: dict[str, np.ndarray],
    relative: bool = False,
) -> float:
    """Mean corruption error (Hendrycks and Dietterich 2019, section 4.2), in per cent
    of the baseline's; 100: as bad as that.

    For each kind c, with error rates E at severities s: CE_c = sum_s E_c,s / sum_s
    E_c,s of the baseline; then the mean over kinds. `relative`: the same with what
    damage adds, E_c,s - E_clean, in place of E_c,s. Both results of :func:`corruption`,
    with the same kinds, severities and number of images; else InputError, as where a
    baseline's sum is not above 0.
    """
    shapes = {kind: right.shape for kind, right in found.items()}
    others = {kind: right.shape for kind, right in baseline.items()}
    if shapes != others or len(found) < 2:
        raise InputError(
            "both results must be of the same images, with the same kinds of damage, at"
            " least one, and the same severities."
        )

    ratios = []
    for kind in found:
        if kind == "clean":
            continue
        usual = _error(baseline, kind, relative)
        if usual <= 0:
            raise InputError(
                f"the baseline loses nothing by {kind}, so that an error cannot be"
                " related to its own; take more images."
            )
        ratios.append(_error(found, kind, relative) / usual)
    return 100 * float(np.mean(ratios))


def _error(found: dict[str, np.ndarray], kind: str, relative: bool) -> float:
    """The error rates of a kind, sum over severities; `relative`: what damage adds."""
    rates = 1 - found[kind].mean(1)
    if relative:
        rates = rates - (1 - found["clean"].mean())
    return float(rates.sum())


def _spread(values: np.ndarray, count: int, images: int) -> np.ndarray:
    """Values (n,) of the images that :func:`measure` looks at, among all `count`; NaN
    elsewhere.
    """
    spread = np.full(count, np.nan, np.float32)
    spread[sample(count, images)] = values
    return spread


# ---- distances between classes


@torch.no_grad()
def embeddings(model: Method, split: Split, recipe: Recipe) -> Tensor:
    """What the network makes of each image of a split: (N, n) float32 on the CPU, of
    length 1.

    The mean over space of its backbone's feature maps of the whole image, behind the
    gates where a method has such (its ``maps``): what the plain head reads. In float32,
    on the model's device; leaves it in eval mode. Raises InputError for a network
    without a backbone.
    """
    maps = getattr(model, "maps", None) or getattr(model, "backbone", None)
    if maps is None:
        raise InputError(
            f"{type(model).__name__} has no backbone whose features could be pooled."
        )
    device = next(model.parameters()).device
    model.eval()
    found = []
    for index in torch.arange(len(split)).split(recipe.batch_size):
        views = centre(split.images[index].to(device), recipe.image_size)
        views = views.contiguous(memory_format=torch.channels_last)
        found.append(maps(views).float().mean((2, 3)))
    return nn.functional.normalize(torch.cat(found), dim=1).cpu()


def margins(embeddings: Tensor, labels: Tensor) -> Tensor:
    """How clearly each image lies with its own class: embeddings (N, n), labels (N,)
    int64 -> (N,) float32, larger is better.

    log2(b_i / a_i), where a_i is the distance to the mean of the other images of its
    class, b_i that to the nearest mean of another class: above 0, the nearest mean is
    the right one; 1 more, twice as clearly. All distances times the same number leave
    it as it is. NaN for an image that is alone in its class. Raises InputError for
    fewer than two classes.
    """
    to_own, to_others, _ = _distances(embeddings, labels)
    nearest = to_others.amin(1)
    return (nearest.clamp(min=TINY) / to_own.clamp(min=TINY)).log2()


def class_ratio(embeddings: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Distances between and within classes: embeddings (N, n), labels (N,) int64 ->
    {"inter", "intra", "ratio"}.

    inter = mean over pairs of classes k != l of |c_k - c_l|, where c_k is the mean
    embedding of class k. intra = mean over images i of the distance to the mean of the
    *other* images of its class (that of all, itself among them, would be the nearer the
    smaller the class is). ratio = inter / intra, None where all embeddings have become
    one. Images alone in their class do not count within. Raises InputError for fewer
    than two classes, or none with two images.
    """
    to_own, _, means = _distances(embeddings, labels)
    if to_own.isnan().all():
        raise InputError(
            "no class has two images, so there is no distance within a class."
        )
    inter = float(nn.functional.pdist(means).mean())
    intra = float(to_own.nanmean())
    return {"inter": inter, "intra": intra, "ratio": inter / intra if intra else None}


def _distances(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To the mean of the others of the own class (N,), NaN without any; to the classes'
    means (N, C), infinite for the own; those means (C, n). C: the classes that occur.
    """
    classes, own = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            "distances between classes need images of at least two, not"
            f" {len(classes)}."
        )
    x = embeddings.double()
    sums = x.new_zeros(len(classes), x.shape[1]).index_add_(0, own, x)  # (C, n)
    count = own.bincount()[:, None]

    # the own class without the image itself; 0 / 0 for an image alone
    others = (sums[own] - x) / (count[own] - 1)  # (N, n)
    to_own = (x - others).norm(dim=1)

    means = sums / count
    to_classes = torch.cdist(x, means).scatter(1, own[:, None], torch.inf)
    return to_own.float(), to_classes.float(), means.float()
