"""DCL. Chen, Bai, Zhang, Mei: Destruction and construction learning for fine-grained
image recognition (CVPR 2019). Patches of the image change places: what is left of a
class then are its details.

    model = DCL(create("resnet50"), num_classes=200)
    outputs = model(images)
    # {"image", "destroyed": (B, C), "location": (B, 2, n * n, 2), ...}
    losses = model.losses(outputs, targets)
    probabilities = model.eval().predict(images).softmax(1)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images.shuffle import move_patches, near_places
from .heads import linear
from .method import Criterion, Method
from .options import check_choice

ADVERSARIAL = ("two", "classes", "none")
LOCATION = ("pair", "index", "none")


class DCL(Method):
    """Three heads on one backbone, which sees every image twice in training: as it is
    and destroyed. At test time it is the plain backbone.

    Images are squares (B, 3, S, S), float in [0, 1], of at least n pixels.

    n, k: the image is cut into n x n patches, which move by fewer than 2k rows and
        columns (the paper's N; 7, and k from 1 to N). k = 0: nothing is destroyed. For
        the location to be learnt, the backbone's map needs n cells a side; cells that
        lie from border to border look at the rims of the outer patches.
    adversarial: what says whether an image was destroyed. "two": two classes (paper);
        "classes": 2C, each class original and destroyed (public code, the command for
        CUB, Cars and Aircraft), whose logits join those of the image head at test time;
        "none": no such head.
    location: what is learnt of where each patch comes from. "pair": row and column
        (paper); "index": its number, row by row (public code); "none".

    Where paper and code differ, or the paper's rule leaves something open:

    - Paper: the place of a patch comes from the order of its row and that of its column
      at once, so two patches may claim one place. Here rows are shuffled first, then
      columns: a permutation that keeps the paper's bound. Code: a patch swaps places
      with the next, one after another, and so do whole rows; forward moves have no
      bound.
    - Code: guesses the permutation from the mean colours of the patches. Here it is
      known.
    - Paper: ReLU on the map of locations, the sum of absolute differences. Code: tanh,
      and the mean, as here. Targets are fractions of n (of n * n) round 0.
    - "Adversarial" is the paper's word; the code reverses no gradient, nor do we.
    """

    VARIANTS = (
        {},
        {"n": 4, "k": 1, "adversarial": "classes", "location": "index"},
        {"n": 3, "adversarial": "none"},
        {"location": "none"},
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        n: int = 7,
        k: int = 2,
        adversarial: str = "two",
        location: str = "pair",
    ):
        super().__init__()
        check_choice("adversarial", adversarial, ADVERSARIAL)
        check_choice("location", location, LOCATION)
        if not 0 <= k <= n or n < 1:
            raise InputError(f"dcl: n is {n} and k is {k}; 1 <= n, 0 <= k <= n.")
        self.n = n
        self.k = k
        self.num_classes = num_classes
        self.adversarial = adversarial
        self.location = location

        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        self.adversarial_head: nn.Linear | None = None
        if adversarial != "none":
            outputs = 2 if adversarial == "two" else 2 * num_classes
            self.adversarial_head = linear(backbone.channels, outputs)
        self.location_head: nn.Conv2d | None = None
        if location != "none":
            coordinates = 2 if location == "pair" else 1
            self.location_head = nn.Conv2d(backbone.channels, coordinates, 1)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the images and of what is left of them when they are destroyed, and
        what the other heads say of these two, (B, 2, ...):

        "adversarial" (B, 2, 2 or 2C); "location" (B, 2, n * n, 2 or 1) and "place", of
        the same shape, what it should be.
        """
        source = near_places(len(images), self.n, self.k, images.device)
        destroyed = move_patches(images, source, self.n)
        # one pass: both have the same batch statistics
        maps = self.backbone(torch.cat([images, destroyed]))  # (2B, n, h, w)
        features = maps.mean((2, 3))
        of_image, of_destroyed = self.image_head(features).chunk(2)
        outputs = {"image": of_image, "destroyed": of_destroyed}
        if self.adversarial_head is not None:
            outputs["adversarial"] = _pairs(self.adversarial_head(features))
        if self.location_head is not None:
            outputs["location"] = _pairs(self._locate(maps, self.location_head))
            unmoved = torch.arange(self.n**2, device=images.device).expand_as(source)
            outputs["place"] = self._place(torch.stack([unmoved, source], 1))
        return outputs

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """L_cls is the mean over both kinds of images, in two halves, "image" and
        "destroyed"; L_adv is "adversarial", L_loc "location".

        Their weights alpha, beta, gamma are the recipe's loss_weights: 1 each in the
        public code, but 0.01 for location on Cars and Aircraft.
        """
        losses = {
            "image": criterion(logits["image"], targets) / 2,
            "destroyed": criterion(logits["destroyed"], targets) / 2,
        }
        if "adversarial" in logits:
            original, destroyed = self._kinds(targets)
            both = torch.stack([original, destroyed], 1).flatten(0, 1)
            of_both = logits["adversarial"].flatten(0, 1)
            losses["adversarial"] = F.cross_entropy(of_both, both)
        if "location" in logits:
            losses["location"] = F.l1_loss(logits["location"], logits["place"])
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time: one pass, nothing is destroyed."""
        features = self.backbone(images).mean((2, 3))
        logits = self.image_head(features)
        if self.adversarial != "classes" or self.adversarial_head is None:
            return logits
        original, destroyed = self.adversarial_head(features).chunk(2, 1)
        return logits + original + destroyed

    # ---- the steps

    def _locate(self, maps: Tensor, head: nn.Conv2d) -> Tensor:
        """Where each of n x n places comes from: (2B, n * n, 2 or 1), within -1..1."""
        pooled = F.adaptive_avg_pool2d(head(maps), self.n)
        return pooled.tanh().flatten(2).transpose(1, 2)

    def _place(self, source: Tensor) -> Tensor:
        """What the location head shall say of patches with these numbers (B, 2, n * n):
        (B, 2, n * n, 2 or 1), within -0.5..0.5.
        """
        n = self.n
        if self.location == "index":
            return ((source - n**2 // 2) / n**2)[..., None]
        row_and_column = torch.stack([source // n, source % n], -1)
        return (row_and_column - (n - 1) / 2) / n

    def _kinds(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The targets of the adversarial head, for originals and for destroyed ones."""
        if self.adversarial == "two":
            original = torch.zeros(
                len(targets), dtype=torch.int64, device=targets.device
            )
            return original, original + 1
        c = self.num_classes
        if targets.ndim == 1:
            return targets, targets + c
        return F.pad(targets, (0, c)), F.pad(targets, (c, 0))


def _pairs(both: Tensor) -> Tensor:
    """(2B, ...), first the images and then the destroyed ones -> (B, 2, ...)."""
    return torch.stack(both.chunk(2), 1)
