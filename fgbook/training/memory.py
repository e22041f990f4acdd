"""Memory of a training step: what is kept for the backward pass, and how to keep less
of it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbones import BatchNorm

ROW = (nn.Sequential, nn.ModuleList)


class Activations:
    """Counts what a forward pass keeps for the backward pass, without what the model
    holds anyway (parameters, buffers).

        with Activations(model) as kept:
            loss = ...
        kept.bytes

    A tensor that several operations keep counts once. It looks at sizes only, so that
    nothing waits for the device.
    """

    def __init__(self, model: nn.Module):
        self.bytes = 0
        held = (*model.parameters(), *model.buffers())
        self.seen = {_storage(value) for value in held}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(
            self._pack, lambda tensor: tensor
        )

    def _pack(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self.seen:
            self.seen.add(_storage(tensor))
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would be a reference cycle

    def __enter__(self) -> "Activations":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.hooks.__exit__(*error)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: modules made of layers that stand in a row (in an
    ``nn.Sequential`` or ``nn.ModuleList``), not inside each other.
    """
    in_a_row = isinstance(network, ROW)
    for child in network.children():
        has_layers = any(True for _ in child.children())
        if in_a_row and has_layers and not _is_stage(child):
            yield child
        else:
            yield from blocks(child)


def _is_stage(module: nn.Module) -> bool:
    """Whether it is itself a row of modules that are made of layers."""
    if not isinstance(module, ROW):
        return False
    return any(True for child in module.children() for _ in child.children())


@contextmanager
def recomputed(model: nn.Module, compiled: bool = False) -> Iterator[None]:
    """Within it, the blocks of ``model.backbone`` keep only their input; the rest is
    computed again when the gradient needs it.

    The same numbers come out: random numbers are those of the first time, and running
    statistics of BatchNorm take a batch in once (a compiled graph sees to that itself,
    and takes no contexts).
    """
    # Not torch's checkpoint_wrapper: it puts a module around each block, so that the
    # names of modules and buffers change, by which backbones.SecondStatistics finds its
    # layers (only the names of a state_dict stay); and it, too, would need the contexts
    # below, or BatchNorm would take in every batch twice. A block's own `forward` is
    # shadowed instead, and nothing is left of that afterwards.
    backbone = getattr(model, "backbone", None)
    chosen = list(blocks(backbone)) if isinstance(backbone, nn.Module) else []
    for block in chosen:
        again = partial(checkpoint, block.forward, use_reentrant=False)
        if not compiled:
            again = partial(again, context_fn=partial(_contexts, block))
        block.forward = again
    try:
        yield
    finally:
        for block in chosen:
            del block.forward  # the class's own shows again


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager, AbstractContextManager]:
    """For the first time, and for the second."""
    return nullcontext(), _on_copies(block)


@contextmanager
def _on_copies(block: nn.Module) -> Iterator[None]:
    """BatchNorm layers that learn statistics update copies of them."""
    own = {}  # layer -> its buffers by name
    for layer in block.modules():
        if isinstance(layer, BatchNorm) and layer.training:
            own[layer] = dict(layer.named_buffers())
    for layer, buffers in own.items():
        for name, value in buffers.items():
            setattr(layer, name, value.clone())
    try:
        yield
    finally:
        for layer, buffers in own.items():
            for name, value in buffers.items():
                setattr(layer, name, value)
