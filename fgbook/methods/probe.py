"""A probe: what a linear classifier, or the nearest neighbours, make of a pretrained
backbone's features. The first thing to try on new pictures, and what every method that
trains the backbone has to beat.

    model = Probe(create("timm:vit_small_patch14_dinov2.lvd142m"), 200, pool="class")
    logits = model(images)  # {"image": (B, C)}

    # What learns sees all features at once, and is found rather than trained.
    model.head.solve((features, labels), held_out=(others, their_labels), refit=True)

Linear classifiers on frozen features are the usual measure of self-supervised networks
(Zhang, Isola, Efros 2016, "Colorful image colorization"); full-batch L-BFGS, with the
penalty chosen on validation, is how CLIP's were found (Radford et al. 2021, section
3.2). Weighted nearest neighbours are those of Wu et al. 2018, "Unsupervised feature
learning via non-parametric instance discrimination", equation 7.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backbones
from ..backbones import Backbone
from ..errors import InputError
from .frozen import Frozen
from .heads import linear
from .method import Examples, Method
from .options import check_choice

# of the squared length of the weights, in units of the mean loss; strongest first
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# the steepest slope at which a search ends: to compare penalties, and for good
ROUGH, FINE = 1e-4, 1e-5
TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al.)
SMALLEST = 1e-6  # votes of a class that none of the neighbours is of


class Solved(Method):
    """A head that reads features (B, n, 1, 1), less their `mean` and divided by their
    `deviation` over the training images (0 and 1 unless it says otherwise).
    """

    solved = True

    mean: Tensor  # (n,)
    deviation: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; the `images` are features (B, n, 1, 1), and `targets` are not
        used (other methods do).
        """
        # in float32 also under mixed precision: it is little work
        with torch.autocast(images.device.type, enabled=False):
            return {"image": self.scores(self.standardised(images.float()))}

    def scores(self, features: Tensor) -> Tensor:
        """Standardised features (B, n) -> logits (B, C)."""
        raise NotImplementedError

    def standardised(self, maps: Tensor) -> Tensor:
        """Features (B, n, 1, 1) -> (B, n), in units of their deviation."""
        return (maps.flatten(1) - self.mean) / self.deviation

    def measure(self, maps: Tensor) -> None:
        """Take mean and deviation from features (N, n, 1, 1)."""
        features = maps.flatten(1).double()
        self.mean.copy_(features.mean(0))
        deviation = features.std(0, correction=0)
        # a feature that never changes stays 0
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))


class Regression(Solved):
    """Multinomial logistic regression on features of mean 0 and deviation 1.

    penalty: lambda; None: the one of PENALTIES with the lowest loss on validation (the
        accuracy of a few hundred images hardly changes with it: chance would choose).
    """

    def __init__(self, features: int, num_classes: int, penalty: float | None):
        super().__init__(features)
        self.penalty = penalty
        self.layer = linear(features, num_classes)

    def scores(self, features: Tensor) -> Tensor:
        """Standardised features (B, n) -> logits (B, C)."""
        return self.layer(features)

    @torch.no_grad()
    def solve(
        self, train: Examples, held_out: Examples | None, refit: bool
    ) -> dict[str, float]:
        """See :class:`Method`. In float64, from weights of 0: the result does not
        depend on where one begins, nor on the seed.
        """
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        if self.penalty is None and held_out is None:
            raise InputError(
                "probe: there are no validation images to choose the penalty on; set"
                " the option penalty, say to 0.1."
            )

        chosen, lowest = penalties[0], math.inf
        if len(penalties) > 1 and held_out is not None:
            for penalty, found in self._path(*train, penalties, ROUGH).items():
                self.layer.load_state_dict(found)
                logits = self(held_out[0])["image"]
                loss = F.cross_entropy(logits, held_out[1]).item()
                if loss < lowest:
                    chosen, lowest = penalty, loss

        if refit and held_out is not None:
            train = _joined(train, held_out)
        self.layer.load_state_dict(self._path(*train, (chosen,), FINE)[chosen])
        logits = self(train[0])["image"]
        loss = F.cross_entropy(logits, train[1]).item()
        return {"image": loss, "penalty": chosen}

    def _path(
        self,
        maps: Tensor,
        labels: Tensor,
        penalties: tuple[float, ...],
        slope: float,
    ) -> dict[float, dict[str, Tensor]]:
        """The layer's weight (C, n) and bias (C,) that minimise, for each penalty,

        mean cross-entropy + penalty / 2 * |weight|^2
        """
        self.measure(maps)
        features = self.standardised(maps).double()
        # along its principal axes, the mean loss curves by a feature's variance / C
        variances, axes = torch.linalg.eigh(features.T @ features / len(features))
        features = features @ axes
        classes = len(self.layer.weight)

        found = {}
        for penalty in penalties:
            curvature = variances.clamp(min=0) / classes + penalty
            scale = curvature.rsqrt()
            weight, bias = _minimum(features, labels, classes, scale, penalty, slope)
            found[penalty] = {"weight": weight @ axes.T, "bias": bias}
        return found


@torch.enable_grad()
def _minimum(
    features: Tensor,
    labels: Tensor,
    classes: int,
    scale: Tensor,
    penalty: float,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Weight (C, n) and bias (C,) of a logistic regression, by L-BFGS.

    The search runs in weights divided by `scale` (n,), in which the loss curves about
    equally in all directions: tens of steps instead of hundreds.
    """
    scaled = features * scale
    ratio = features.new_zeros(classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)
    search = torch.optim.LBFGS(
        [ratio, bias],
        max_iter=1000,
        tolerance_grad=slope,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        length = (ratio * scale).square().sum()
        entropy = F.cross_entropy(scaled @ ratio.T + bias, labels)
        total = entropy + penalty / 2 * length
        total.backward()
        return total

    search.step(loss)
    return (ratio * scale).detach(), bias.detach()


class Neighbours(Solved):
    """The k nearest training images by the cosine of their features vote for their
    class, each with exp(cosine / 0.07).

    Before it is solved, one random feature a class stands for the training images.
    """

    bank: Tensor  # (N, n) of length 1; a parameter
    labels: Tensor  # (N,) int64

    def __init__(self, features: int, num_classes: int, k: int):
        super().__init__(features)
        self.k, self.num_classes = k, num_classes
        self.bank = torch.nn.Parameter(linear(features, num_classes).weight.detach())
        self.register_buffer("labels", torch.arange(num_classes))

    def scores(self, features: Tensor) -> Tensor:
        """Features (B, n) as they are -> logarithms of the classes' votes (B, C)."""
        cosines = F.normalize(features) @ F.normalize(self.bank).T  # (B, N)
        nearest, places = cosines.topk(min(self.k, len(self.labels)))  # (B, k)
        # of the nearest one the vote is 1: shares of votes do not change by a factor
        votes = ((nearest - nearest[:, :1]) / TEMPERATURE).exp()
        of_class = votes.new_zeros(votes.shape[0], self.num_classes)
        of_class = of_class.scatter_add(1, self.labels[places], votes)
        return (of_class + SMALLEST).log()

    @torch.no_grad()
    def solve(
        self, train: Examples, held_out: Examples | None, refit: bool
    ) -> dict[str, float]:
        """See :class:`Method`: keep all features and their labels."""
        if refit and held_out is not None:
            train = _joined(train, held_out)
        maps, labels = train
        self.bank = torch.nn.Parameter(F.normalize(maps.flatten(1)))
        self.labels = labels
        return {}

    def _load_from_state_dict(self, state_dict, prefix, *others):
        """As every module's, but weights may hold any number of training images."""
        bank = state_dict.get(f"{prefix}bank")
        if bank is not None and bank.shape[1:] == self.bank.shape[1:]:
            self.bank = torch.nn.Parameter(self.bank.new_empty(bank.shape))
            self.labels = self.labels.new_empty(len(bank))
        super()._load_from_state_dict(state_dict, prefix, *others)


def _joined(train: Examples, held_out: Examples) -> Examples:
    return torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]])


class Probe(Frozen):
    """A backbone that never learns, and a classifier of what it makes of an image.

    Of the recipe only what makes the features acts: sizes, and with `flip` each image's
    mirror image as one more example. The classifier is the one minimum of its loss, so
    seeds give the same result.

    pool: "mean" of the last map, "class", a transformer's class token, or "both", one
        after the other.
    penalty: weight decay of the logistic regression; None: chosen on validation. With
        train_on="train+val" it is then solved again on both.
    k: nearest neighbours that vote; 0: logistic regression.

    Raises InputError for an option out of range, and for a class token of a backbone
    that has none.
    """

    VERSION = 1
    VARIANTS = ({}, {"k": 3})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        pool: str = "mean",
        penalty: float | None = None,
        k: int = 0,
    ):
        check_choice("pool", pool, backbones.POOLS)
        if k < 0 or (penalty is not None and penalty <= 0):
            raise InputError(
                "probe: k of at least 0 and a penalty above 0 are needed, not k"
                f" {k} and penalty {penalty}."
            )
        reader = backbones.pooled(backbone, pool)
        head: Solved
        if k:
            head = Neighbours(reader.channels, num_classes, k)
        else:
            head = Regression(reader.channels, num_classes, penalty)
        super().__init__(reader, head)
