"""Memory of a training step: what is kept for the backward pass, and how to keep less
of it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BatchNorm = nn.modules.batchnorm._BatchNorm


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
        self.seen = {
            _storage(value) for value in (*model.parameters(), *model.buffers())
        }
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
    ``nn.Sequential`` or ``nn.ModuleList``), not inside each other."""
    row = isinstance(network, (nn.Sequential, nn.ModuleList))
    for child in network.children():
        inner = list(child.children())
        stage = isinstance(child, (nn.Sequential, nn.ModuleList)) and any(
            True for grandchild in inner for _ in grandchild.children()
        )
        if row and inner and not stage:
            yield child
        else:
            yield from blocks(child)


@contextmanager
def recomputed(model: nn.Module, compiled: bool = False):
    """Within it, the blocks of ``model.backbone`` keep only their input; the rest is
    computed again when the gradient needs it.

    The same numbers come out: random numbers are those of the first time, and running
    statistics of BatchNorm take a batch in once (a compiled graph sees to that itself,
    and takes no contexts).
    """
    chosen = list(blocks(model.backbone)) if hasattr(model, "backbone") else []
    for block in chosen:
        contexts = {} if compiled else {"context_fn": partial(_contexts, block)}
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, **contexts
        )
    try:
        yield
    finally:
        for block in chosen:
            del block.forward  # the class's own shows again


def _contexts(block: nn.Module) -> tuple:
    """For the first time, and for the second."""
    return nullcontext(), _on_copies(block)


@contextmanager
def _on_copies(block: nn.Module):
    """BatchNorm layers that learn statistics update copies of them."""
    layers = [
        module
        for module in block.modules()
        if isinstance(module, BatchNorm) and module.training
    ]
    own = [dict(layer.named_buffers()) for layer in layers]
    for layer, buffers in zip(layers, own):
        for name, value in buffers.items():
            setattr(layer, name, value.clone())
    try:
        yield
    finally:
        for layer, buffers in zip(layers, own):
            for name, value in buffers.items():
                setattr(layer, name, value)
