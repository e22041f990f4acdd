"""What changes the weights: the recipe's optimiser, the clipping of gradients, and the
moving average of the weights.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..recipe import Recipe

KINDS = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
}


def make(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser with two groups of parameters: the backbone's, and all
    others. `rate`: a group's learning rate at factor 1.

    Parameters that do not require a gradient are left out; with backbone_lr_factor 0
    those of the backbone stop requiring one. Weight decay is on all parameters.
    """
    backbone = getattr(model, "backbone", None)
    old = list(backbone.parameters()) if isinstance(backbone, nn.Module) else []
    if recipe.backbone_lr_factor == 0:
        for parameter in old:
            parameter.requires_grad_(False)
    known = set(map(id, old))
    new = [p for p in model.parameters() if id(p) not in known]

    groups = [
        {"params": _learning(old), "rate": recipe.lr * recipe.backbone_lr_factor},
        {"params": _learning(new), "rate": recipe.lr},
    ]
    groups = [group for group in groups if group["params"]]
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        momentum = recipe.momentum
        return torch.optim.SGD(groups, recipe.lr, momentum, weight_decay=decay)
    return KINDS[recipe.optimiser](groups, lr=recipe.lr, weight_decay=decay)


def _learning(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def clipping(norm: Tensor, clip_norm: float) -> Tensor:
    """What is noted of a step whose gradient had this norm before it was cut to
    `clip_norm`: (3,) float64: 1, whether it was cut, and what it was multiplied by.

    All 0 where the norm is not finite: mixed precision skips such a step. Nothing waits
    for the device.
    """
    counts = norm.isfinite()
    # as torch.nn.utils.clip_grad_norm_ has it
    coefficient = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    noted = torch.stack([torch.ones_like(norm), coefficient < 1, coefficient])
    return torch.where(counts, noted.double(), 0.0)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average of a model's weights and running statistics towards the model:
    decay * average + (1 - decay) * model. Whole numbers are copied.
    """
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    kept_floats, now_floats = [], []
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for kept, now in pairs:
        if kept.is_floating_point():
            kept_floats.append(kept)
            now_floats.append(now)
        else:
            kept.copy_(now)
    get_ema_multi_avg_fn(decay)(kept_floats, now_floats, None)
