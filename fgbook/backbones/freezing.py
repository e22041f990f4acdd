"""What of a backbone does not learn: BatchNorm's statistics, or its first stages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone


def freeze_statistics(model: nn.Module) -> None:
    """From now on the BatchNorm layers of every Backbone in `model` stay in eval mode,
    whatever ``model.train()`` says: they keep and use their stored mean and variance;
    weight and bias still learn.
    """
    for backbone in _backbones(model):
        backbone.frozen_statistics = True
        backbone.train(backbone.training)


def freeze_stages(model: nn.Module, n: int) -> None:
    """From now on nothing of every Backbone in `model` up to the map at its n-th depth
    learns: the parameters that this map depends on have requires_grad False, and the
    modules that hold no others stay in eval mode, whatever ``model.train()`` says, with
    their BatchNorm and dropout. No gradient is computed for them.

    n = 0 freezes nothing. Raises InputError for an n below 0 or above the number of
    depths.
    """
    for backbone in _backbones(model):
        depths = len(backbone.depths)
        if not 0 <= n <= depths:
            raise InputError(
                f"{n} stages cannot be frozen: {backbone.name} has {depths} depths;"
                f" choose frozen_stages from 0 to {depths}."
            )
        if n == 0:
            continue

        used = parameters_of_stage(backbone, n - 1)
        for name, parameter in backbone.named_parameters():
            if name in used:
                parameter.requires_grad_(False)

        backbone.frozen_modules = tuple(_wholly(backbone, used))
        backbone.train(backbone.training)


def modules_of_stages(model: nn.Module, n: int) -> list[nn.Module]:
    """The modules that :func:`freeze_stages` with this n keeps in eval mode, of every
    Backbone in `model`, whether or not they are frozen.
    """
    if n == 0:
        return []
    found = []
    for backbone in _backbones(model):
        used = parameters_of_stage(backbone, n - 1)
        found += [backbone.get_submodule(name) for name in _wholly(backbone, used)]
    return found


@contextmanager
def in_bf16(modules: Sequence[nn.Module]) -> Iterator[None]:
    """While this is open, the modules compute in bfloat16 where that is safe (as
    torch.autocast has it), on a CPU; they give float32.
    """
    # What may stand there already, in place of the class's own (see training/memory).
    before = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = partial(_autocast, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _autocast(forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return forward(*inputs).float()


def parameters_of_stage(backbone: Backbone, stage: int) -> set[str]:
    """The names of the parameters that ``backbone.stages(images)[stage]`` depends on:
    those that a backward pass from there reaches.
    """
    # The same with tensors that have no values: nothing is computed, and the backbone's
    # gradients and statistics stay what they are.
    empty = {}
    for name, parameter in backbone.named_parameters():
        empty[name] = torch.empty_like(parameter, device="meta", requires_grad=True)
    for name, buffer in backbone.named_buffers():
        empty[name] = torch.empty_like(buffer, device="meta")
    size = backbone.usual_size
    images = torch.zeros(2, 3, size, size, device="meta")
    with torch.enable_grad():
        maps = torch.func.functional_call(
            _Stages(backbone),
            {f"backbone.{name}": tensor for name, tensor in empty.items()},
            (images,),
        )
        learning = {
            name: tensor for name, tensor in empty.items() if tensor.requires_grad
        }
        gradients = torch.autograd.grad(
            maps[stage].sum(), list(learning.values()), allow_unused=True
        )
    reached = zip(learning, gradients, strict=True)
    return {name for name, gradient in reached if gradient is not None}


class _Stages(nn.Module):
    """``backbone.stages`` as a module's forward."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone.stages(images)


def _backbones(model: nn.Module) -> Iterator[Backbone]:
    for module in model.modules():
        if isinstance(module, Backbone):
            yield module


def _wholly(module: nn.Module, parameters: set[str], prefix: str = "") -> Iterator[str]:
    """The outermost modules inside, by name, all of whose parameters are among these;
    modules without parameters belong to what they stand in.
    """
    for child_name, child in module.named_children():
        name = prefix + child_name
        own = {f"{name}.{key}" for key, _ in child.named_parameters()}
        if own and own <= parameters:
            yield name
        else:
            yield from _wholly(child, parameters, f"{name}.")
